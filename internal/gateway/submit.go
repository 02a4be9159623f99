package gateway

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
)

// Submit hands a signed transaction to the ordering service. It returns once an
// orderer has accepted it; CommitStatus tells what became of it.
func (s *Server) Submit(ctx context.Context, request *gatewaypb.SubmitRequest) (*gatewaypb.SubmitResponse, error) {
	tx := request.GetPreparedTransaction()
	switch {
	case tx == nil:
		return nil, status.Error(codes.InvalidArgument, "a prepared transaction is required")
	case len(tx.Signature) == 0:
		return nil, status.Error(codes.InvalidArgument, "prepared transaction must be signed")
	}
	ch, ok := s.Channels(request.GetChannelId())
	if !ok {
		return nil, status.Errorf(codes.FailedPrecondition, "failed to get config for channel [%s]: the peer has not joined it", request.GetChannelId())
	}
	orderers := s.Orderers.Endpoints(request.GetChannelId())
	if len(orderers) == 0 {
		return nil, status.Error(codes.Unavailable, "no orderer nodes available")
	}
	if kind, _, _ := ch.Bundle().ConsensusType(); kind == "BFT" {
		return s.submitToQuorum(ctx, orderers, tx)
	}
	return s.submitToOne(ctx, orderers, tx)
}

// submitToOne tries one orderer after the other until one accepts. If an
// orderer keeps silent to everyone, the next one gets the transaction too, while
// its answer is still awaited: ordered twice, a transaction commits once.
func (s *Server) submitToOne(ctx context.Context, orderers []Orderer, tx *commonpb.Envelope) (*gatewaypb.SubmitResponse, error) {
	type outcome struct {
		orderer Orderer
		code    commonpb.Status
		info    string
		err     error
	}
	outcomes := make(chan outcome, len(orderers)) // nobody who answers late must wait
	awaited := 0
	var asked Orderer // last
	next := func() {
		asked, orderers = orderers[0], orderers[1:]
		awaited++
		go func(o Orderer) {
			code, info, err := s.broadcast(ctx, o, tx)
			outcomes <- outcome{o, code, info, err}
		}(asked)
	}
	next()
	silence := time.NewTicker(s.SilenceTimeout)
	defer silence.Stop()
	var details []*gatewaypb.ErrorDetail
	var unknown []string // refusals of those that do not have the channel
	for awaited > 0 {
		select {
		case got := <-outcomes:
			awaited--
			switch {
			case ctx.Err() != nil:
				continue
			case got.err != nil:
				details = append(details, detail(got.orderer.Address(), got.orderer.MSPID(), got.err.Error()))
			case got.code == commonpb.Status_SUCCESS:
				return &gatewaypb.SubmitResponse{}, nil
			case got.code >= 400 && got.code < 500 && got.info != channelUnknown: // the client's fault: the same everywhere
				return nil, fail(codes.Aborted, refusal(got.code, got.info))
			default:
				if got.info == channelUnknown {
					unknown = append(unknown, refusal(got.code, got.info))
				}
				details = append(details, detail(got.orderer.Address(), got.orderer.MSPID(), refusal(got.code, got.info)))
			}
			if len(orderers) > 0 {
				next()
				silence.Reset(s.SilenceTimeout)
			}
		case <-silence.C:
			// One that answers others is only busy; more load would not help it.
			if len(orderers) > 0 && time.Since(asked.Answered()) >= s.SilenceTimeout {
				next()
			}
		case <-ctx.Done():
			return nil, fail(codes.DeadlineExceeded, "submit timeout expired while broadcasting to ordering service", details...)
		}
	}
	if ctx.Err() != nil {
		return nil, fail(codes.DeadlineExceeded, "submit timeout expired while broadcasting to ordering service", details...)
	}
	if len(unknown) > 0 && len(unknown) == len(details) { // nobody has it
		return nil, fail(codes.Aborted, unknown[0])
	}
	return nil, fail(codes.Unavailable, "no orderers could successfully process transaction", details...)
}

// submitToQuorum sends to every orderer of a Byzantine-fault-tolerant service:
// a quorum must accept, so that at least one honest node holds the transaction.
func (s *Server) submitToQuorum(ctx context.Context, orderers []Orderer, tx *commonpb.Envelope) (*gatewaypb.SubmitResponse, error) {
	faulty := (len(orderers) - 1) / 3
	quorum := (len(orderers)+faulty)/2 + 1
	failures := make(chan *gatewaypb.ErrorDetail, len(orderers))
	// The stragglers of a satisfied quorum still get the transaction.
	background := context.WithoutCancel(ctx)
	for _, o := range orderers {
		go func() {
			code, info, err := s.broadcast(background, o, tx)
			switch {
			case err != nil:
				failures <- detail(o.Address(), o.MSPID(), err.Error())
			case code == commonpb.Status_SUCCESS,
				code == commonpb.Status_SERVICE_UNAVAILABLE && info == "failed to submit request: request already exists":
				failures <- nil
			default:
				failures <- detail(o.Address(), o.MSPID(), refusal(code, info))
			}
		}()
	}
	var details []*gatewaypb.ErrorDetail
	for accepted := 0; len(details) <= len(orderers)-quorum; {
		select {
		case failed := <-failures:
			if failed != nil {
				details = append(details, failed)
			} else if accepted++; accepted == quorum {
				return &gatewaypb.SubmitResponse{}, nil
			}
		case <-ctx.Done():
			return nil, fail(codes.DeadlineExceeded, "submit timeout expired while broadcasting to ordering service", details...)
		}
	}
	return nil, fail(codes.Unavailable, "insufficient number of orderers could successfully process transaction to satisfy quorum requirement", details...)
}

func (s *Server) broadcast(ctx context.Context, o Orderer, tx *commonpb.Envelope) (commonpb.Status, string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.BroadcastTimeout)
	defer cancel()
	return o.Broadcast(ctx, tx)
}

// channelUnknown is what an orderer says that does not have the channel, perhaps as its disk was replaced a moment ago. The client is
// not to blame unless no orderer has the channel.
const channelUnknown = "channel does not exist"

func refusal(code commonpb.Status, info string) string {
	return fmt.Sprintf("received unsuccessful response from orderer: status=%s, info=%s", code, info)
}
