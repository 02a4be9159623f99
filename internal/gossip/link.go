package gossip

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	remote "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/wire/gossippb"
)

// stream is either end of a GossipStream.
type stream interface {
	Context() context.Context
	Send(*gossippb.Envelope) error
	Recv() (*gossippb.Envelope, error)
}

// link is a stream with a peer that has proved who it is.
type link struct {
	pkiID    []byte
	identity []byte // serialized
	mspID    string
	// queue is what is to be sent. What finds it full is dropped: all is said again.
	queue chan *gossippb.GossipMessage
	// replaced is closed when a newer link with the same peer takes its place.
	replaced chan struct{}
	// ended is closed when the link is no more.
	ended chan struct{}

	mu sync.Mutex // guards all below
	// nonce is that of the last question for identities.
	nonce uint64
	// awaited are requests that wait for their answers, by nonce.
	awaited map[uint64]chan<- *gossippb.GossipMessage
}

func newLink(pkiID, identity []byte, mspID string) *link {
	return &link{pkiID: pkiID, identity: identity, mspID: mspID, queue: make(chan *gossippb.GossipMessage, queueLength),
		replaced: make(chan struct{}), ended: make(chan struct{}), awaited: map[uint64]chan<- *gossippb.GossipMessage{}}
}

const (
	greetingTimeout = 5 * time.Second
	queueLength     = 64
	// askEvery is after how many signs of life this peer asks again.
	askEvery = 5
)

// serve greets the other side and keeps the link until it ends.
func (s *Service) serve(ctx context.Context, stream stream) error {
	select {
	case s.greeting <- struct{}{}:
	default:
		return status.Error(codes.ResourceExhausted, "gossip: too many peers greet at once; try again later")
	}
	l, err := s.greet(stream)
	<-s.greeting
	if err != nil {
		return status.Errorf(codes.PermissionDenied, "gossip: %v", err)
	}
	if l == nil {
		return nil // it only wanted to know who this is
	}
	if !s.add(l) {
		return status.Errorf(codes.ResourceExhausted, "gossip: %d links are the limit", maxLinks)
	}
	defer s.remove(l)
	defer close(l.ended)

	heard := make(chan error, 1)
	go func() {
		for {
			e, err := stream.Recv()
			if err == nil {
				err = s.handle(l, e)
			}
			if err != nil {
				heard <- err
				return
			}
		}
	}()
	tick := time.NewTicker(s.config.Interval)
	defer tick.Stop()
	for beat := 0; ; {
		var messages []*gossippb.Envelope
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ended:
			return status.Error(codes.Unavailable, "gossip: this peer stops")
		case <-l.replaced:
			return status.Error(codes.Aborted, "gossip: there is a newer link")
		case err := <-heard:
			return err
		case m := <-l.queue:
			e, err := unsigned(m)
			if err != nil {
				return err
			}
			messages = append(messages, e)
		case <-after(beat, tick.C):
			if messages, err = s.beat(l, beat%askEvery == 0); err != nil {
				s.config.Log.Error("this peer cannot say that it lives", "error", err)
			}
			beat++
		}
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
}

// after is the next beat's time: the first is due at once.
func after(beat int, tick <-chan time.Time) <-chan time.Time {
	if beat > 0 {
		return tick
	}
	now := make(chan time.Time)
	close(now)
	return now
}

// greet exchanges proofs of identity, each bound to the sender's TLS certificate.
// There is no link for a peer that only asks who this is.
func (s *Service) greet(stream stream) (*link, error) {
	own, err := discovery.Seal(s.config.Signer, &gossippb.GossipMessage{Tag: gossippb.GossipMessage_EMPTY, Content: &gossippb.GossipMessage_Conn{
		Conn: &gossippb.ConnEstablish{PkiId: s.pkiID, Identity: s.config.Signer.Serialize(), TlsCertHash: s.config.CertHash}}})
	if err != nil {
		return nil, err
	}
	if err := stream.Send(own); err != nil {
		return nil, err
	}
	e, err := receive(stream)
	if err != nil {
		return nil, err
	}
	m, err := decode(e)
	if err != nil {
		return nil, err
	}
	c := m.GetConn()
	if c == nil {
		return nil, errors.New("the first message is not of a peer that says who it is")
	}
	id, err := s.identify(c.Identity, c.PkiId)
	if err != nil {
		return nil, err
	}
	if err := id.Verify(e.Payload, e.Signature); err != nil {
		return nil, fmt.Errorf("greeting of %s: %w", id.MSPID(), err)
	}
	if hash := certHash(stream.Context()); hash != nil && !bytes.Equal(hash, c.TlsCertHash) {
		return nil, fmt.Errorf("greeting of %s: it names another TLS certificate than that of the connection", id.MSPID())
	} else if hash == nil {
		return nil, fmt.Errorf("greeting of %s: the connection has no TLS certificate", id.MSPID())
	}
	if c.Probe {
		return nil, nil
	}
	s.learn(c.PkiId, c.Identity)
	return newLink(c.PkiId, c.Identity, id.MSPID()), nil
}

// receive waits for the first message. A stream that ends ends the goroutine that waits.
func receive(stream stream) (*gossippb.Envelope, error) {
	type result struct {
		e   *gossippb.Envelope
		err error
	}
	got := make(chan result, 1)
	go func() {
		e, err := stream.Recv()
		got <- result{e, err}
	}()
	timeout := time.NewTimer(greetingTimeout)
	defer timeout.Stop()
	select {
	case r := <-got:
		return r.e, r.err
	case <-timeout.C:
		return nil, fmt.Errorf("no greeting within %v", greetingTimeout)
	}
}

// certHash is the SHA-256 of the TLS certificate that the other side showed.
func certHash(ctx context.Context) []byte {
	p, ok := remote.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil
	}
	hash := sha256.Sum256(info.State.PeerCertificates[0].Raw)
	return hash[:]
}

// add makes l the link with its peer.
func (s *Service) add(l *link) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.links[string(l.pkiID)]
	if old == nil && len(s.links) >= maxLinks {
		return false
	}
	if old != nil {
		close(old.replaced)
	}
	s.links[string(l.pkiID)] = l
	return true
}

func (s *Service) remove(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.links[string(l.pkiID)] == l {
		delete(s.links, string(l.pkiID))
	}
}

func decode(e *gossippb.Envelope) (*gossippb.GossipMessage, error) {
	if len(e.GetPayload()) > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes; %d are the limit", len(e.Payload), maxMessage)
	}
	m := &gossippb.GossipMessage{}
	if err := proto.Unmarshal(e.GetPayload(), m); err != nil {
		return nil, fmt.Errorf("decode message: %w", err)
	}
	return m, nil
}

func unsigned(m *gossippb.GossipMessage) (*gossippb.Envelope, error) {
	payload, err := proto.Marshal(m)
	return &gossippb.Envelope{Payload: payload}, err
}
