package contracthost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"google.golang.org/protobuf/proto"
)

const (
	registerTimeout = 10 * time.Second
	// Messages that wait to be sent to one contract. At the limit callers wait, within their timeouts.
	outgoing = 64
	// Requests of one call that wait. The protocol has at most one under way; a contract that ignores that is failed at this number.
	incoming = 8
)

// stream is what both directions of dialling have in common.
type stream interface {
	Send(*peerpb.ChaincodeMessage) error
	Recv() (*peerpb.ChaincodeMessage, error)
}

// session is one registered stream to a contract process. One goroutine reads it and hands each message to the call that it belongs
// to; one writes. The requests of a call are served by the goroutine that made the call, so calls do not wait for each other.
type session struct {
	host   *Host
	remote *remote // nil for a classic contract
	out    chan *peerpb.ChaincodeMessage

	ended   chan struct{} // closed once, after err is set
	endOnce sync.Once
	err     error

	mu    sync.Mutex
	calls map[callID]*call
}

type callID struct{ channel, tx string }

// serve speaks the protocol on a stream until it ends: registration first, then calls. The caller closes the stream afterwards, which
// also ends the reader.
func (h *Host) serve(ctx context.Context, st stream, r *remote, admit func(packageID string) (*contract, error)) error {
	s := &session{
		host:   h,
		remote: r,
		out:    make(chan *peerpb.ChaincodeMessage, outgoing),
		ended:  make(chan struct{}),
		calls:  map[callID]*call{},
	}
	registered := make(chan string)
	h.run.Go(func() { s.stop(s.read(st, registered)) })

	timer := time.NewTimer(registerTimeout)
	defer timer.Stop()
	var id string
	select {
	case id = <-registered:
	case <-s.ended:
		return s.err
	case <-timer.C:
		s.stop(fmt.Errorf("contract did not register within %s", registerTimeout))
		return s.err
	case <-ctx.Done():
		s.stop(ErrStreamTerminated)
		return s.err
	}
	c, err := admit(id)
	if err != nil {
		s.stop(err)
		return err
	}
	err = s.greet(st)
	if err == nil {
		err = h.attach(c, s)
	}
	if err != nil {
		s.stop(err)
		return err
	}
	s.stop(s.write(ctx, st))
	h.detach(c, s, s.err)
	return s.err
}

// greet answers a registration and says what this host can do beyond Fabric 2: shims of Fabric 3.1 then send writes and reads in batches.
func (s *session) greet(st stream) error {
	if err := st.Send(&peerpb.ChaincodeMessage{Type: peerpb.ChaincodeMessage_REGISTERED}); err != nil {
		return fmt.Errorf("error sending REGISTERED: %w", err)
	}
	able, err := proto.Marshal(&peerpb.ChaincodeAdditionalParams{
		UseWriteBatch:          true,
		MaxSizeWriteBatch:      s.host.cfg.MaxBatch,
		UseGetMultipleKeys:     true,
		MaxSizeGetMultipleKeys: s.host.cfg.MaxBatch,
	})
	if err != nil {
		return err
	}
	if err := st.Send(&peerpb.ChaincodeMessage{Type: peerpb.ChaincodeMessage_READY, Payload: able}); err != nil {
		return fmt.Errorf("error sending READY: %w", err)
	}
	return nil
}

// stop ends the session; the first reason stays.
func (s *session) stop(err error) {
	s.endOnce.Do(func() {
		s.err = err
		close(s.ended)
	})
}

// read hands out what the contract sends until the stream ends; a defect that a message meets ends the stream, not the peer.
func (s *session) read(st stream, registered chan<- string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.host.cfg.Log.Error("panic while a contract's message was read", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = errors.New("internal error")
		}
	}()
	ready := false
	for {
		m, err := st.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return ErrStreamTerminated
		case err != nil:
			return fmt.Errorf("receive from chaincode support stream failed: %w", err)
		case m.Type == peerpb.ChaincodeMessage_KEEPALIVE:
		case ready:
			if err := s.dispatch(m); err != nil {
				return fmt.Errorf("error handling message, ending stream: %w", err)
			}
		case m.Type != peerpb.ChaincodeMessage_REGISTER:
			return fmt.Errorf("[%s] Fabric side handler cannot handle message (%s) while in created state", m.Txid, m.Type)
		default:
			id := &peerpb.ChaincodeID{}
			if err := proto.Unmarshal(m.Payload, id); err != nil {
				return fmt.Errorf("error in received REGISTER, could not unmarshal registration info: %w", err)
			}
			if id.Name == "" {
				return errors.New("error in handling register chaincode, chaincodeID name is empty")
			}
			select {
			case registered <- id.Name:
				ready = true
			case <-s.ended:
				return s.err
			}
		}
	}
}

// dispatch hands a message to its call. An error ends the stream.
func (s *session) dispatch(m *peerpb.ChaincodeMessage) error {
	switch m.Type {
	case peerpb.ChaincodeMessage_COMPLETED, peerpb.ChaincodeMessage_ERROR:
	default:
		if !isRequest(m.Type) {
			return fmt.Errorf("[%s] Fabric side handler cannot handle message (%s) while in ready state", m.Txid, m.Type)
		}
	}
	s.mu.Lock()
	c := s.calls[callID{m.ChannelId, m.Txid}]
	s.mu.Unlock()
	if c != nil {
		select {
		case c.inbox <- m:
		default:
			c.flooded.Do(func() { close(c.broken) })
		}
		return nil
	}
	if !isRequest(m.Type) {
		return nil // the late answer to a call that was given up
	}
	why := "no ledger context"
	if m.Type == peerpb.ChaincodeMessage_INVOKE_CHAINCODE {
		why = "could not get valid transaction"
	}
	select {
	case s.out <- failure(m, errors.New(why)):
	default:
		// The contract does not read. It waits for an answer to a call that nobody waits for; reading on serves the others.
	}
	return nil
}

func (s *session) write(ctx context.Context, st stream) error {
	var tick <-chan time.Time
	if s.host.cfg.Keepalive > 0 {
		ticker := time.NewTicker(s.host.cfg.Keepalive)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		var m *peerpb.ChaincodeMessage
		select {
		case m = <-s.out:
		case <-tick:
			m = &peerpb.ChaincodeMessage{Type: peerpb.ChaincodeMessage_KEEPALIVE}
		case <-s.ended:
			return s.err
		case <-ctx.Done():
			return ErrStreamTerminated
		}
		if err := st.Send(m); err != nil {
			// The reader meets the stream's own error, which says more than the writer's EOF.
			if errors.Is(err, io.EOF) {
				select {
				case <-s.ended:
					return s.err
				case <-ctx.Done():
				}
			}
			return fmt.Errorf("error sending %s: %w", m.Type, err)
		}
	}
}

// send queues a message of a call.
func (s *session) send(ctx context.Context, m *peerpb.ChaincodeMessage) error {
	select {
	case s.out <- m:
		return nil
	case <-s.ended:
		return ErrStreamTerminated
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// call runs one call on this stream and gives the message that ended it, COMPLETED or ERROR.
func (s *session) call(ctx context.Context, of *Invocation, input []byte) (*peerpb.ChaincodeMessage, error) {
	c := &call{
		Invocation: of,
		limits:     &s.host.cfg,
		inbox:      make(chan *peerpb.ChaincodeMessage, incoming),
		broken:     make(chan struct{}),
	}
	id := callID{of.ChannelID, of.TxID}
	s.mu.Lock()
	if s.calls[id] != nil {
		s.mu.Unlock()
		// A contract that calls itself, directly or through others: one stream has one context for a transaction.
		return nil, fmt.Errorf("txid: %s(%s) exists", of.TxID, of.ChannelID)
	}
	s.calls[id] = c
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.calls, id)
		s.mu.Unlock()
		c.closeQueries()
	}()

	first := &peerpb.ChaincodeMessage{
		Type: peerpb.ChaincodeMessage_TRANSACTION, Payload: input, Txid: of.TxID, ChannelId: of.ChannelID, Proposal: of.Proposal,
	}
	if of.Input.IsInit {
		first.Type = peerpb.ChaincodeMessage_INIT
	}
	if err := s.send(ctx, first); err != nil {
		return nil, err
	}
	for {
		var m *peerpb.ChaincodeMessage
		select {
		case m = <-c.inbox:
		default:
			select {
			case m = <-c.inbox:
			case <-c.broken:
				return nil, fmt.Errorf("contract sent more than %d requests without waiting for answers", incoming)
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			case <-s.ended:
				// What was read before the end counts: a process may answer and exit.
				select {
				case m = <-c.inbox:
				default:
					return nil, ErrStreamTerminated
				}
			}
		}
		if !isRequest(m.Type) {
			return m, nil
		}
		answer := c.serve(ctx, m)
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		if err := s.send(ctx, answer); err != nil {
			return nil, err
		}
	}
}
