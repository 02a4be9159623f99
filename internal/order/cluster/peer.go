package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// retryPause is how long after a failure a stream is not tried again; what was queued is dropped.
const retryPause = 50 * time.Millisecond

// steady is how long a stream must have lasted to be called a connection: one that the other side refuses, such as that of a
// node that is no member there, lasts a moment each time, and is worth one line in the log.
const steady = 3 * time.Second

type stepStream = grpc.BidiStreamingClient[ordererpb.StepRequest, ordererpb.StepResponse]

// remote is another member in one channel: one stream for consensus, one for envelopes.
type remote struct {
	channel *Channel
	member  Member
	client  ordererpb.ClusterClient
	cancel  context.CancelFunc
	group   sync.WaitGroup

	messages chan *raftpb.Message
	bytes    atomic.Int64 // of the queued messages

	mu        sync.Mutex // guards stopped against forward
	stopped   bool
	envelopes chan *forwarded
}

type forwarded struct {
	env      *commonpb.Envelope
	sequence uint64
	done     func(*ordererpb.SubmitResponse, error)
}

func startRemote(ch *Channel, m Member, conn *grpc.ClientConn) *remote {
	ctx, cancel := context.WithCancel(context.Background())
	cfg := ch.cluster.cfg
	r := &remote{channel: ch, member: m, client: ordererpb.NewClusterClient(conn), cancel: cancel,
		messages: make(chan *raftpb.Message, cfg.QueueMessages), envelopes: make(chan *forwarded, cfg.QueueMessages)}
	r.group.Go(func() { r.sendMessages(ctx) })
	r.group.Go(func() { r.sendEnvelopes(ctx) })
	return r
}

func (r *remote) stop() {
	r.cancel()
	r.group.Wait()
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	for {
		select {
		case f := <-r.envelopes:
			f.done(nil, ErrNotSent)
		default:
			return
		}
	}
}

func weight(m *raftpb.Message) (n int64) {
	for _, e := range m.GetEntries() {
		n += int64(len(e.GetData()))
	}
	return n + int64(len(m.GetSnapshot().GetData()))
}

// send queues a message, unless the queue is full.
func (r *remote) send(m *raftpb.Message) bool {
	n := weight(m)
	if r.bytes.Add(n) > r.channel.cluster.cfg.QueueBytes && n < r.bytes.Load() {
		r.bytes.Add(-n)
		return false
	}
	select {
	case r.messages <- m:
		return true
	default:
		r.bytes.Add(-n)
		return false
	}
}

// open starts a stream and watches it: a stream that the other side ended is cancelled.
func (r *remote) open(ctx context.Context, received func(*ordererpb.StepResponse), ended func(error)) (stepStream, context.CancelFunc, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := r.client.Step(ctx)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	r.group.Go(func() {
		defer cancel()
		for {
			response, err := stream.Recv()
			if err != nil {
				ended(err)
				return
			}
			received(response)
		}
	})
	return stream, cancel, nil
}

func (r *remote) sendMessages(ctx context.Context) {
	log := r.channel.cluster.cfg.Log.With("channel", r.channel.id, "consenter", r.member.ID, "address", r.member.Address)
	var stream stepStream
	var cancel context.CancelFunc
	var ended chan error
	sent := r.channel.link(r.member, "consensus")
	var opened time.Time
	warned := false
	for {
		var m *raftpb.Message
		select {
		case m = <-r.messages:
			r.bytes.Add(-weight(m))
		case <-ctx.Done():
			return
		}
		payload, err := proto.Marshal(m)
		if err == nil && stream == nil {
			opened = time.Now()
			why := make(chan error, 1)
			ended = why
			stream, cancel, err = r.open(ctx, func(*ordererpb.StepResponse) {}, func(err error) {
				why <- err
				r.channel.receiver.Unreachable(r.member.ID) // at once, also when there is nothing to send
			})
		}
		if err == nil {
			err = stream.Send(&ordererpb.StepRequest{Payload: &ordererpb.StepRequest_ConsensusRequest{
				ConsensusRequest: &ordererpb.ConsensusRequest{Channel: r.channel.id, Payload: payload}}})
			if errors.Is(err, io.EOF) {
				err = <-ended // says why
			}
		}
		if err == nil {
			sent.add(len(payload))
			if warned && time.Since(opened) > steady {
				log.Info("connected to consenter")
				warned = false
			}
			if m.GetType() == raftpb.MsgSnap {
				r.channel.receiver.SnapshotSent(r.member.ID, true)
			}
			continue
		}
		if stream != nil {
			cancel()
			stream = nil
		}
		if !warned && ctx.Err() == nil {
			log.Warn("no connection to consenter", "error", err)
			warned = true
		}
		r.channel.lost(m)
		r.dropMessages()
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return
		}
	}
}

func (r *remote) dropMessages() {
	for {
		select {
		case m := <-r.messages:
			r.bytes.Add(-weight(m))
			r.channel.lost(m)
		default:
			return
		}
	}
}

// forward queues an envelope, unless the queue is full.
func (r *remote) forward(f *forwarded) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false
	}
	select {
	case r.envelopes <- f:
		return true
	default:
		return false
	}
}

// submits is a stream of envelopes, whose answers come in the order of the envelopes.
type submits struct {
	stepStream
	mu      sync.Mutex
	waiting []*forwarded
	err     error // why it ended
}

func (s *submits) received(response *ordererpb.StepResponse) {
	s.mu.Lock()
	if len(s.waiting) == 0 || response.GetSubmitRes() == nil {
		s.mu.Unlock()
		return
	}
	f := s.waiting[0]
	s.waiting = s.waiting[1:]
	s.mu.Unlock()
	f.done(response.GetSubmitRes(), nil)
}

func (s *submits) ended(err error) {
	s.mu.Lock()
	s.err = fmt.Errorf("the connection to the leader ended: %w", err)
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, f := range waiting {
		f.done(nil, s.err)
	}
}

// expect notes that an answer is to come, unless the stream has ended.
func (s *submits) expect(f *forwarded) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.waiting = append(s.waiting, f)
	}
	return s.err == nil
}

func (r *remote) sendEnvelopes(ctx context.Context) {
	var s *submits
	sent := r.channel.link(r.member, "envelopes")
	for {
		var f *forwarded
		select {
		case f = <-r.envelopes:
		case <-ctx.Done():
			return
		}
		request := &ordererpb.StepRequest{Payload: &ordererpb.StepRequest_SubmitRequest{
			SubmitRequest: &ordererpb.SubmitRequest{Channel: r.channel.id, LastValidationSeq: f.sequence, Payload: f.env}}}
		if s == nil || !s.expect(f) {
			fresh := &submits{}
			var err error
			if fresh.stepStream, _, err = r.open(ctx, fresh.received, fresh.ended); err != nil {
				s = nil
				f.done(nil, ErrNotSent)
				continue
			}
			if s = fresh; !s.expect(f) {
				f.done(nil, ErrNotSent)
				continue
			}
		}
		// An error here ends the stream too, and then everything that waits is answered with it.
		if s.Send(request) == nil {
			sent.add(proto.Size(f.env))
		}
	}
}
