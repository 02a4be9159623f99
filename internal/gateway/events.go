package gateway

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Access-control resources, as channel ACLs name them.
const (
	resourceStatus = "gateway/CommitStatus"
	resourceEvents = "gateway/ChaincodeEvents"
)

// maxMargin is how long before a client's deadline CommitStatus answers at most.
const maxMargin = 25 * time.Millisecond

// CommitStatus waits for a transaction's validation code.
func (s *Server) CommitStatus(ctx context.Context, signed *gatewaypb.SignedCommitStatusRequest) (*gatewaypb.CommitStatusResponse, error) {
	request := &gatewaypb.CommitStatusRequest{}
	switch {
	case len(signed.GetRequest()) == 0:
		return nil, status.Error(codes.InvalidArgument, "a commit status request is required")
	case proto.Unmarshal(signed.Request, request) != nil:
		return nil, status.Error(codes.InvalidArgument, "invalid status request: it does not decode as a CommitStatusRequest")
	case len(request.Identity) == 0:
		return nil, status.Error(codes.InvalidArgument, "no identity provided")
	case request.ChannelId == "":
		return nil, status.Error(codes.InvalidArgument, "no channel ID provided")
	case request.TransactionId == "":
		return nil, status.Error(codes.InvalidArgument, "transaction ID should not be empty")
	}
	if err := s.Access.CheckSigned(request.ChannelId, resourceStatus, signed.Request, request.Identity, signed.Signature); err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	ch, ok := s.Channels(request.ChannelId)
	if !ok {
		return nil, status.Errorf(codes.Aborted, "channel does not exist: %s", request.ChannelId)
	}
	// A client that waits to its deadline gets an answer that says so, not a stream
	// that is broken off at the same moment.
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-min(maxMargin, time.Until(end)/10)))
		defer cancel()
	}
	code, number, err := ch.Status(ctx, request.TransactionId)
	if err != nil {
		return nil, contextError(err)
	}
	return &gatewaypb.CommitStatusResponse{Result: code, BlockNumber: number}, nil
}

// contextError tells a client that gave up from a ledger that failed.
func contextError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Aborted, err.Error())
}

// ChaincodeEvents streams a contract's events, block by block, from the asked
// position on; a block without any is passed over.
func (s *Server) ChaincodeEvents(signed *gatewaypb.SignedChaincodeEventsRequest, stream gatewaypb.Gateway_ChaincodeEventsServer) error {
	request := &gatewaypb.ChaincodeEventsRequest{}
	switch {
	case len(signed.GetRequest()) == 0:
		return status.Error(codes.InvalidArgument, "a chaincode events request is required")
	case proto.Unmarshal(signed.Request, request) != nil:
		return status.Error(codes.InvalidArgument, "invalid chaincode events request: it does not decode as a ChaincodeEventsRequest")
	}
	if err := s.Access.CheckSigned(request.ChannelId, resourceEvents, signed.Request, request.Identity, signed.Signature); err != nil {
		return status.Error(codes.PermissionDenied, err.Error())
	}
	ch, ok := s.Channels(request.ChannelId)
	if !ok {
		return status.Errorf(codes.NotFound, "channel does not exist: %s", request.ChannelId)
	}
	number, err := firstBlock(ch, request)
	if err != nil {
		return err
	}
	after := request.AfterTransactionId
	for ; ; number++ {
		b, err := ch.Block(stream.Context(), number)
		if err != nil {
			return contextError(err)
		}
		events := eventsOf(b, request.ChaincodeId, &after)
		if len(events) == 0 {
			continue
		}
		if err := stream.Send(&gatewaypb.ChaincodeEventsResponse{Events: events, BlockNumber: number}); err != nil {
			return err
		}
	}
}

// firstBlock is the block of the checkpoint's transaction, if the ledger has
// it, else the asked position, else the next block.
func firstBlock(ch Channel, request *gatewaypb.ChaincodeEventsRequest) (uint64, error) {
	if after := request.AfterTransactionId; after != "" {
		if number, ok := ch.BlockOf(after); ok {
			return number, nil
		}
	}
	switch position := request.GetStartPosition().GetType().(type) {
	case nil, *ordererpb.SeekPosition_NextCommit:
		return ch.Height(), nil
	case *ordererpb.SeekPosition_Specified:
		return position.Specified.GetNumber(), nil
	default:
		return 0, status.Errorf(codes.InvalidArgument, "invalid start position type: %T", position)
	}
}

// eventsOf returns the events that a contract's valid transactions set in a
// block. While *after names a transaction, events up to and with it are left out.
func eventsOf(b *commonpb.Block, chaincode string, after *string) []*peerpb.ChaincodeEvent {
	filter := block.Filter(b)
	var events []*peerpb.ChaincodeEvent
	for i, tx := range block.Parse(b).Txs {
		if i >= len(filter) || filter[i] != byte(peerpb.TxValidationCode_VALID) {
			continue
		}
		for _, action := range tx.Actions {
			event := action.Event
			if event == nil {
				continue
			}
			if *after != "" {
				if event.TxId == *after {
					*after = ""
				}
				continue
			}
			if event.ChaincodeId == chaincode {
				events = append(events, event)
			}
		}
	}
	return events
}
