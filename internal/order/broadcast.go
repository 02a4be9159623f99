package order

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// streamWindow is how many envelopes of one stream are worked on at the same time.
const streamWindow = 256

// turn is the place of one envelope in its stream.
type turn struct {
	submitted chan struct{}                     // closed when the envelope has been handed to its chain, or refused
	refused   bool                              // the envelope or one before it, once submitted is closed
	response  chan *ordererpb.BroadcastResponse // has room for the one response; closed without one if an envelope before was refused
}

// Broadcast answers every envelope of a stream in its order, and like Fabric ends the stream after the first that is
// refused. A client that does not wait for each answer before it sends the next envelope gets the most of its stream:
// signatures are checked in parallel and one fsync serves many envelopes; envelopes still reach their chains in the
// order of the stream. What comes after an envelope that is refused is neither ordered nor answered, unless the refusal came
// late, from the chain, when the others were on their way: these are answered too.
func (s *Service) Broadcast(stream grpc.BidiStreamingServer[commonpb.Envelope, ordererpb.BroadcastResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	turns := make(chan *turn, streamWindow)
	refused := make(chan struct{})
	var received error // why receiving ended, to be read after turns is closed

	// This goroutine ends with the stream: Recv returns when the handler has returned.
	go func() {
		defer close(turns)
		before := &turn{submitted: make(chan struct{})}
		close(before.submitted)
		for {
			env, err := stream.Recv()
			if err != nil {
				received = err
				return
			}
			t := &turn{submitted: make(chan struct{}), response: make(chan *ordererpb.BroadcastResponse, 1)}
			select {
			case <-refused:
				return
			case turns <- t:
			case <-ctx.Done():
				return
			}
			go s.order(ctx, env, before, t)
			before = t
		}
	}()

	for {
		select {
		case t, ok := <-turns:
			if !ok {
				if errors.Is(received, io.EOF) {
					return nil
				}
				return received
			}
			response, err := s.respond(ctx, stream, t)
			if err != nil {
				return err
			}
			if response.Status != commonpb.Status_SUCCESS {
				close(refused)
				return s.drain(ctx, stream, turns)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drain answers what was on its way already when an envelope was refused.
func (s *Service) drain(ctx context.Context, stream grpc.BidiStreamingServer[commonpb.Envelope, ordererpb.BroadcastResponse], turns <-chan *turn) error {
	for {
		select {
		case t, ok := <-turns:
			if !ok {
				return nil
			}
			if response, err := s.respond(ctx, stream, t); err != nil || response == nil {
				return err
			}
		default:
			return nil
		}
	}
}

// respond sends an envelope's answer; there is none if one before it was refused.
func (s *Service) respond(ctx context.Context, stream grpc.BidiStreamingServer[commonpb.Envelope, ordererpb.BroadcastResponse], t *turn) (*ordererpb.BroadcastResponse, error) {
	select {
	case r := <-t.response:
		if r == nil {
			return nil, nil
		}
		return r, stream.Send(r)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// order takes one envelope through check, submission in its turn, and the wait for its place in the chain.
func (s *Service) order(ctx context.Context, env *commonpb.Envelope, before, t *turn) {
	start := time.Now()
	chain, sub, labels, rej := s.check(env)
	checked := time.Now()
	s.cfg.metrics.validate.Observe(checked.Sub(start).Seconds())
	<-before.submitted
	if before.refused {
		t.refused = true
		close(t.submitted)
		close(t.response)
		return
	}
	if rej == nil {
		rej = chain.submit(sub)
		t.refused = rej != nil
		close(t.submitted)
		if rej == nil {
			select {
			case rej = <-sub.done:
			case <-ctx.Done():
				return // nobody is there to be answered
			}
			s.cfg.metrics.ordering.Observe(time.Since(checked).Seconds())
		}
	} else {
		t.refused = true
		close(t.submitted)
	}
	response := &ordererpb.BroadcastResponse{Status: commonpb.Status_SUCCESS}
	if rej != nil {
		response.Status, response.Info = rej.Status, rej.Info
		s.cfg.Log.Warn("envelope refused", "channel", labels[0], "type", labels[1], "status", rej.Status.String(), "reason", rej.Info)
	}
	s.cfg.metrics.processed.WithLabelValues(labels[0], labels[1], response.Status.String()).Inc()
	t.response <- response
}

// check finds the envelope's channel and asks it. labels are the channel and type for metrics: only known ones. A defect that an
// envelope meets is the end of that envelope, not of the node.
func (s *Service) check(env *commonpb.Envelope) (chain *Chain, sub *submission, labels [2]string, rej *Rejection) {
	labels = [2]string{"unknown", "unknown"}
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("panic while an envelope was checked", "channel", labels[0], "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			rej = reject(commonpb.Status_INTERNAL_SERVER_ERROR, "internal error")
		}
	}()
	payload, h, err := header(env)
	if err != nil {
		return nil, nil, labels, reject(commonpb.Status_BAD_REQUEST, "could not determine channel ID: %v", err)
	}
	chain, ok := s.Channel(h.ChannelId)
	if !ok {
		return nil, nil, labels, reject(commonpb.Status_BAD_REQUEST, "%v", ErrChannelUnknown)
	}
	typ := commonpb.HeaderType(h.Type)
	if name, ok := commonpb.HeaderType_name[h.Type]; ok {
		labels[1] = name
	}
	labels[0] = chain.id
	switch typ {
	case commonpb.HeaderType_CONFIG:
		return nil, nil, labels, reject(commonpb.Status_BAD_REQUEST, "message is of type that cannot be processed directly")
	case commonpb.HeaderType_ORDERER_TRANSACTION:
		return nil, nil, labels, reject(commonpb.Status_BAD_REQUEST, "message is of type that is no longer supported")
	}
	sub, rej = chain.check(env, payload, typ == commonpb.HeaderType_CONFIG_UPDATE)
	return chain, sub, labels, rej
}

// Submit orders one envelope from within the process and returns when it is durable; a *Rejection otherwise.
func (s *Service) Submit(ctx context.Context, env *commonpb.Envelope) error {
	chain, sub, _, rej := s.check(env)
	if rej != nil {
		return rej
	}
	return chain.await(ctx, sub)
}

// await hands in a checked envelope and returns when it is durable; a *Rejection otherwise.
func (c *Chain) await(ctx context.Context, sub *submission) error {
	if rej := c.submit(sub); rej != nil {
		return rej
	}
	select {
	case rej := <-sub.done:
		if rej != nil {
			return rej
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
