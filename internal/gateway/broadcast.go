package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// Dialer gives connections to other nodes. Connections are shared and kept: the
// caller does not close them.
type Dialer interface {
	// Dial returns a connection to address, whose certificate comes from one of the PEM roots.
	Dial(address string, roots [][]byte) (*grpc.ClientConn, error)
}

// streams reach the orderers of a channel over a few streams that stay open:
// transactions of many clients share them, so that none pays for opening one.
type streams struct {
	dial    Dialer
	bundles func(channelID string) (*channel.Bundle, bool)

	mu    sync.Mutex
	nodes map[string]*ordererNode // by address, guarded by mu
}

// NewOrderers reaches the orderers that the channels' configurations name.
func NewOrderers(dial Dialer, bundles func(channelID string) (*channel.Bundle, bool)) Orderers {
	return &streams{dial: dial, bundles: bundles, nodes: map[string]*ordererNode{}}
}

// Endpoints returns the orderers of a channel, those that answered last first,
// in random order otherwise.
func (s *streams) Endpoints(channelID string) []Orderer {
	bundle, ok := s.bundles(channelID)
	if !ok {
		return nil
	}
	endpoints := bundle.OrdererEndpoints()
	good, bad := make([]Orderer, 0, len(endpoints)), []Orderer(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range rand.Perm(len(endpoints)) {
		e := endpoints[i]
		n := s.nodes[e.Address]
		if n == nil {
			n = &ordererNode{dial: s.dial}
			s.nodes[e.Address] = n
		}
		n.endpoint.Store(&e)
		if n.down.Load() {
			bad = append(bad, n)
		} else {
			good = append(good, n)
		}
	}
	return append(good, bad...)
}

// ordererNode is one orderer with the open stream to it.
type ordererNode struct {
	dial     Dialer
	endpoint atomic.Pointer[channel.Endpoint] // as the newest configuration has it
	down     atomic.Bool                      // the last call failed
	answered atomic.Int64                     // when it last answered, in ns since 1970

	mu     sync.Mutex       // never held while waiting
	stream *broadcastStream // nil without one; one that ended is replaced
}

func (n *ordererNode) Address() string { return n.endpoint.Load().Address }
func (n *ordererNode) MSPID() string   { return n.endpoint.Load().MSPID }

func (n *ordererNode) Answered() time.Time {
	if at := n.answered.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// errStreamEnded says that the stream ended before the orderer answered: after
// another transaction was refused, as Fabric's orderers do, or because the
// orderer went away. Sending again is safe: a transaction commits once.
var errStreamEnded = errors.New("the orderer ended the stream before it answered")

// maxAttempts bounds how often a transaction moves to another stream because
// transactions of others broke the one that it was on.
const maxAttempts = 8

// Broadcast sends one transaction and waits for its answer.
func (n *ordererNode) Broadcast(ctx context.Context, tx *commonpb.Envelope) (commonpb.Status, string, error) {
	for attempt := 0; ; attempt++ {
		s, fresh := n.open()
		response, err := s.send(ctx, tx)
		if err == nil {
			n.down.Store(false)
			n.answered.Store(time.Now().UnixNano())
			return response.Status, response.Info, nil
		}
		if ctx.Err() != nil {
			// Who gave up early says little; one who waited long while nobody got an answer
			// leaves the stream to its end, which may be far, and takes a new one next time.
			if time.Since(s.opened) >= silent && time.Since(n.Answered()) >= silent {
				n.down.Store(true)
				s.cancel()
			}
			return 0, "", err
		}
		// A stream that was open already may have been dead for long: that says
		// nothing about the orderer. Each stream that ends gives way to a new one.
		if fresh || attempt == maxAttempts {
			n.down.Store(true)
			return 0, "", err
		}
	}
}

// silent is how long an orderer that answers nobody is believed to live.
const silent = time.Second

// open returns the stream, and whether it was made just now. It does not wait.
func (n *ordererNode) open() (*broadcastStream, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stream != nil && !n.stream.ended() {
		return n.stream, false
	}
	ctx, cancel := context.WithCancel(context.Background()) // the stream outlives the call that needed it first
	s := &broadcastStream{opened: time.Now(), cancel: cancel, queue: make(chan *submission), done: make(chan struct{})}
	n.stream = s
	go s.run(ctx, n.dial, n.endpoint.Load())
	return s, true
}

// broadcastStream is a stream to an orderer, from before it is connected until
// it ends. An orderer answers in the order of what it got, so the calls that wait
// stand in a queue.
type broadcastStream struct {
	opened time.Time
	cancel context.CancelFunc
	queue  chan *submission // to run, which sends
	done   chan struct{}    // closed when the stream has ended, with err set
	err    error

	mu      sync.Mutex // not held while sending
	waiting []*submission
}

type submission struct {
	tx     *commonpb.Envelope
	answer chan *ordererpb.BroadcastResponse // holds one
}

func (s *broadcastStream) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *broadcastStream) send(ctx context.Context, tx *commonpb.Envelope) (*ordererpb.BroadcastResponse, error) {
	c := &submission{tx, make(chan *ordererpb.BroadcastResponse, 1)}
	select {
	case s.queue <- c:
	case <-s.done:
		return nil, s.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case response := <-c.answer:
		return response, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.done:
	}
	select { // the last answer may have come just before the end
	case response := <-c.answer:
		return response, nil
	default:
		return nil, s.err
	}
}

// run connects, sends what calls queue, and hands out the answers, until the
// stream ends.
func (s *broadcastStream) run(ctx context.Context, dial Dialer, endpoint *channel.Endpoint) {
	defer close(s.done)
	defer s.cancel()
	conn, err := dial.Dial(endpoint.Address, endpoint.TLSRoots)
	if err != nil {
		s.err = fmt.Errorf("failed to create new connection: %w", err)
		return
	}
	stream, err := ordererpb.NewAtomicBroadcastClient(conn).Broadcast(ctx)
	if err != nil {
		s.err = err
		return
	}
	received := make(chan error, 1)
	go func() { received <- s.receive(stream) }()
	for {
		select {
		case c := <-s.queue:
			s.mu.Lock()
			s.waiting = append(s.waiting, c)
			s.mu.Unlock()
			if stream.Send(c.tx) != nil { // receive learns the reason
				s.err = <-received
				return
			}
		case s.err = <-received:
			return
		}
	}
}

func (s *broadcastStream) receive(stream ordererpb.AtomicBroadcast_BroadcastClient) error {
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) || status.Code(err) == codes.Canceled {
			return errStreamEnded
		}
		if err != nil {
			return err
		}
		s.mu.Lock()
		if len(s.waiting) > 0 {
			s.waiting[0].answer <- response
			s.waiting = s.waiting[1:]
		}
		s.mu.Unlock()
	}
}
