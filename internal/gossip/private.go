package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hansa-ledger/hansa/internal/wire/gossippb"
)

// Private decides about private data. *courier.Courier is one.
type Private interface {
	// Take keeps what a peer brought, until the commit of its transaction.
	Take(channelID string, identity []byte, p *gossippb.PrivatePayload) error
	// Give answers with what this peer has and the other may have.
	Give(ctx context.Context, channelID string, identity []byte, digests []*gossippb.PvtDataDigest) ([]*gossippb.PvtDataElement, error)
}

// giveTimeout bounds an answer; whoever asked has waited 5 s for it then.
const giveTimeout = 5 * time.Second

// handlePrivate answers what another peer brings or wants.
func (s *Service) handlePrivate(l *link, m *gossippb.GossipMessage) {
	answer := &gossippb.GossipMessage{Tag: gossippb.GossipMessage_CHAN_ONLY, Channel: m.Channel, Nonce: m.Nonce}
	if m.GetPrivateData() != nil {
		ack := &gossippb.Acknowledgement{}
		if err := s.config.Private.Take(string(m.Channel), l.identity, m.GetPrivateData().GetPayload()); err != nil {
			ack.Error = status.Convert(err).Message()
		}
		answer.Content = &gossippb.GossipMessage_Ack{Ack: ack}
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), giveTimeout)
		defer cancel()
		elements, err := s.config.Private.Give(ctx, string(m.Channel), l.identity, m.GetPrivateReq().GetDigests())
		if err != nil {
			s.config.Log.Debug("a peer asked for private data in vain", "member", l.mspID, "error", err)
		}
		answer.Content = &gossippb.GossipMessage_PrivateRes{PrivateRes: &gossippb.RemotePvtDataResponse{Elements: elements}}
	}
	l.send(answer)
}

// Link is the link with a member's peer at an address, if there is one.
func (s *Service) Link(mspID, address string) (*Link, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.linkTo(mspID, address); l != nil {
		return &Link{l}, true
	}
	return nil, false
}

// linkTo finds a link, with s.mu held. An address is what a peer says of itself, its member is proved: who claims the
// address of another member's peer must not get what is meant for that one.
func (s *Service) linkTo(mspID, address string) *link {
	for id, l := range s.links {
		if p := s.known[id]; p != nil && p.address == address && l.mspID == mspID {
			return l
		}
	}
	return nil
}

// Link is a link as package courier uses it.
type Link struct{ *link }

// Push brings private data and waits until the peer has it.
func (l *Link) Push(ctx context.Context, channelID string, p *gossippb.PrivatePayload) error {
	answer, err := l.ask(ctx, channelID, &gossippb.GossipMessage{Content: &gossippb.GossipMessage_PrivateData{PrivateData: &gossippb.PrivateDataMessage{Payload: p}}})
	if err != nil {
		return err
	}
	if ack := answer.GetAck(); ack == nil {
		return errors.New("gossip: the answer is no acknowledgement")
	} else if ack.Error != "" {
		return fmt.Errorf("gossip: the peer refuses: %s", ack.Error)
	}
	return nil
}

// Pull asks for private data.
func (l *Link) Pull(ctx context.Context, channelID string, digests []*gossippb.PvtDataDigest) ([]*gossippb.PvtDataElement, error) {
	answer, err := l.ask(ctx, channelID, &gossippb.GossipMessage{Content: &gossippb.GossipMessage_PrivateReq{PrivateReq: &gossippb.RemotePvtDataRequest{Digests: digests}}})
	if err != nil {
		return nil, err
	}
	return answer.GetPrivateRes().GetElements(), nil
}

// ask sends a request and waits for its answer. Its errors are those of gRPC: Unavailable, DeadlineExceeded.
func (l *link) ask(ctx context.Context, channelID string, m *gossippb.GossipMessage) (*gossippb.GossipMessage, error) {
	m.Tag, m.Channel, m.Nonce = gossippb.GossipMessage_CHAN_ONLY, []byte(channelID), rand.Uint64()
	answer := make(chan *gossippb.GossipMessage, 1)
	l.mu.Lock()
	l.awaited[m.Nonce] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.awaited, m.Nonce)
	}()
	select {
	case l.queue <- m:
	case <-l.ended:
		return nil, errEnded
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	select {
	case a := <-answer:
		return a, nil
	case <-l.ended:
		return nil, errEnded
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

var errEnded = status.Error(codes.Unavailable, "gossip: the link with the peer has ended")

// answered hands an answer to whoever waits for it.
func (l *link) answered(m *gossippb.GossipMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if waiting := l.awaited[m.Nonce]; waiting != nil {
		delete(l.awaited, m.Nonce)
		waiting <- m
	}
}
