package gateway

import (
	"context"
	"errors"
	"sync"
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
		all, err := s.events.of(stream.Context(), ch, request.ChannelId, number)
		if err != nil {
			return contextError(err)
		}
		events := pick(all, request.ChaincodeId, &after)
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

// pick returns the events of a contract. While *after names a transaction,
// events up to and with it are left out.
func pick(all []*peerpb.ChaincodeEvent, chaincode string, after *string) []*peerpb.ChaincodeEvent {
	var events []*peerpb.ChaincodeEvent
	for _, event := range all {
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
	return events
}

// Bounds of recentEvents.
const (
	maxEventBlocks = 256
	maxEventBytes  = 16 << 20
)

// recentEvents are the events of the blocks that streams have looked at last:
// streams that follow a channel look at the same ones, and a block is taken
// apart for the first of them only.
type recentEvents struct {
	mu     sync.Mutex
	blocks map[eventsKey]*blockEvents
	order  []eventsKey // the oldest first
	bytes  int
}

type eventsKey struct {
	channelID string
	number    uint64
}

type blockEvents struct {
	ready  chan struct{}            // closed when the block is taken apart
	events []*peerpb.ChaincodeEvent // shared, not changed
	bytes  int                      // as counted in recentEvents; guarded by its mu
}

// of returns the events that the valid transactions of a block set, waiting
// until it is committed or ctx ends.
func (r *recentEvents) of(ctx context.Context, ch Channel, channelID string, number uint64) ([]*peerpb.ChaincodeEvent, error) {
	key := eventsKey{channelID, number}
	r.mu.Lock()
	one := r.blocks[key]
	r.mu.Unlock()
	if one == nil || number >= ch.Height() {
		b, err := ch.Block(ctx, number)
		if err != nil {
			return nil, err
		}
		r.mu.Lock()
		if one = r.blocks[key]; one == nil {
			one = &blockEvents{ready: make(chan struct{})}
			if r.blocks == nil {
				r.blocks = map[eventsKey]*blockEvents{}
			}
			r.blocks[key], r.order = one, append(r.order, key)
			r.mu.Unlock()
			one.events = eventsOf(b)
			close(one.ready)
			r.count(key, one)
			return one.events, nil
		}
		r.mu.Unlock()
	}
	<-one.ready
	return one.events, nil
}

// count adds what a block takes and drops the oldest beyond the bounds.
func (r *recentEvents) count(key eventsKey, one *blockEvents) {
	size := 0
	for _, event := range one.events {
		size += proto.Size(event)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.blocks[key] == one {
		one.bytes = size
		r.bytes += size
	}
	for len(r.order) > 0 && (len(r.order) > maxEventBlocks || r.bytes > maxEventBytes) {
		oldest := r.order[0]
		r.order = r.order[1:]
		r.bytes -= r.blocks[oldest].bytes
		delete(r.blocks, oldest)
	}
}

// eventsOf returns the events that the valid transactions of a block set.
func eventsOf(b *commonpb.Block) []*peerpb.ChaincodeEvent {
	filter := block.Filter(b)
	var events []*peerpb.ChaincodeEvent
	for i, tx := range block.Parse(b).Txs {
		if i >= len(filter) || filter[i] != byte(peerpb.TxValidationCode_VALID) {
			continue
		}
		for _, action := range tx.Actions {
			if action.Event != nil {
				events = append(events, action.Event)
			}
		}
	}
	return events
}
