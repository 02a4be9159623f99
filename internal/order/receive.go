package order

import (
	"context"
	"errors"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/order/cluster"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// receiver is the chain's end of the connections to other consenters.
type receiver Chain

var _ cluster.Receiver = (*receiver)(nil)

// sendReport collects what became of messages to one member until run has time for it.
type sendReport struct{ unreachable, snapshotSent, snapshotLost bool }

func (r *receiver) Consensus(ctx context.Context, m *raftpb.Message) error {
	select {
	case r.messages <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-r.ended:
		return errors.New("chain is stopped")
	}
}

// Submit takes an envelope that another consenter has checked: it is trusted with that, as it is with its vote. A config
// transaction is made anew from its update all the same, since one that does not hold would stop every node.
func (r *receiver) Submit(env *commonpb.Envelope, sequence uint64) <-chan *ordererpb.SubmitResponse {
	c := (*Chain)(r)
	s := &submission{env: env, sequence: sequence, remote: make(chan *ordererpb.SubmitResponse, 1)}
	if rej := s.unpack(); rej != nil {
		s.remote <- &ordererpb.SubmitResponse{Channel: c.id, Status: rej.Status, Info: rej.Info}
	} else if rej := c.submit(s); rej != nil {
		s.remote <- &ordererpb.SubmitResponse{Channel: c.id, Status: rej.Status, Info: rej.Info}
	}
	return s.remote
}

// unpack reads from a forwarded envelope what is needed to check it again.
func (s *submission) unpack() *Rejection {
	payload, h, err := header(s.env)
	if err != nil {
		return reject(commonpb.Status_BAD_REQUEST, "forwarded envelope: %v", err)
	}
	s.payload = payload
	if commonpb.HeaderType(h.Type) != commonpb.HeaderType_CONFIG {
		return nil
	}
	config := &commonpb.ConfigEnvelope{}
	if err := proto.Unmarshal(payload.Data, config); err != nil {
		return reject(commonpb.Status_BAD_REQUEST, "forwarded config transaction: %v", err)
	}
	if s.payload, _, err = header(config.LastUpdate); err != nil {
		return reject(commonpb.Status_BAD_REQUEST, "forwarded config transaction: its update: %v", err)
	}
	s.update, s.stale = config.LastUpdate, true
	return nil
}

func (r *receiver) Unreachable(id uint64) {
	r.note(id, func(s *sendReport) { s.unreachable = true })
}

func (r *receiver) SnapshotSent(id uint64, ok bool) {
	r.note(id, func(s *sendReport) { s.snapshotSent, s.snapshotLost = ok, !ok })
}

func (r *receiver) note(id uint64, f func(*sendReport)) {
	r.mu.Lock()
	s := r.sent[id]
	f(&s)
	r.sent[id] = s
	r.mu.Unlock()
	select {
	case r.reports <- struct{}{}:
	default:
	}
}

// report tells raft what became of its messages.
func (c *Chain) report() error {
	c.mu.Lock()
	sent := c.sent
	c.sent = map[uint64]sendReport{}
	c.mu.Unlock()
	for id, s := range sent {
		if s.snapshotSent || s.snapshotLost {
			c.node.SnapshotSent(id, s.snapshotSent)
		}
		if !s.unreachable {
			continue
		}
		c.node.Unreachable(id)
		if id == c.node.Leader() && id != c.self {
			if err := c.leaderGone(); err != nil {
				return err
			}
		}
	}
	return nil
}
