package client

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// Event is what a contract announced in a valid transaction.
type Event struct {
	Block    uint64
	TxID     string
	Contract string
	Name     string
	Payload  []byte
}

// Checkpoint is where to go on with events. The zero value means from the next
// block on; From(n) names a block; After resumes behind an event that was handled.
type Checkpoint struct {
	block uint64
	set   bool
	txID  string
}

// From starts at the first event of block n.
func From(n uint64) Checkpoint { return Checkpoint{block: n, set: true} }

// After starts behind e: an application that stores After(e) with what it did
// of e handles every event exactly once.
func After(e Event) Checkpoint { return Checkpoint{block: e.Block, set: true, txID: e.TxID} }

// Events follows the contract's events until ctx ends or the loop is left. The
// last pair holds the error that ended the stream; the end of ctx is none.
func (c *Contract) Events(ctx context.Context, from Checkpoint) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := c.openEvents(ctx, from)
		for err == nil {
			var response *gatewaypb.ChaincodeEventsResponse
			if response, err = stream.Recv(); err != nil {
				break
			}
			for _, e := range response.Events {
				if !yield(Event{response.BlockNumber, e.TxId, e.ChaincodeId, e.EventName, e.Payload}, nil) {
					return
				}
			}
		}
		// The gateway may notice the end of ctx a moment before we do.
		_, limited := ctx.Deadline()
		ended := ctx.Err() != nil || limited && status.Code(err) == codes.DeadlineExceeded
		if !ended && !errors.Is(err, io.EOF) && status.Code(err) != codes.Canceled {
			yield(Event{}, stepError("events", "", err))
		}
	}
}

func (c *Contract) openEvents(ctx context.Context, from Checkpoint) (gatewaypb.Gateway_ChaincodeEventsClient, error) {
	client := c.channel.client
	position := &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_NextCommit{NextCommit: &ordererpb.SeekNextCommit{}}}
	if from.set {
		position.Type = &ordererpb.SeekPosition_Specified{Specified: &ordererpb.SeekSpecified{Number: from.block}}
	}
	request := mustMarshal(&gatewaypb.ChaincodeEventsRequest{
		ChannelId: c.channel.id, ChaincodeId: c.name, Identity: client.config.Identity.Serialize(),
		StartPosition: position, AfterTransactionId: from.txID,
	})
	signature, err := client.config.Identity.Sign(request)
	if err != nil {
		return nil, err
	}
	return client.gateway.ChaincodeEvents(ctx, &gatewaypb.SignedChaincodeEventsRequest{Request: request, Signature: signature})
}
