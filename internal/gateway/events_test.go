package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// transaction is one that set an event; an invalid one has a signature.
func transaction(t testing.TB, id, chaincode, event string, valid bool) *commonpb.Envelope {
	t.Helper()
	action := &peerpb.ChaincodeAction{}
	if event != "" {
		action.Events = marshal(t, &peerpb.ChaincodeEvent{ChaincodeId: chaincode, TxId: id, EventName: event})
	}
	tx := &peerpb.Transaction{Actions: []*peerpb.TransactionAction{{Payload: marshal(t, &peerpb.ChaincodeActionPayload{
		Action: &peerpb.ChaincodeEndorsedAction{ProposalResponsePayload: marshal(t, &peerpb.ProposalResponsePayload{Extension: marshal(t, action)})}})}}}
	env := &commonpb.Envelope{Payload: marshal(t, &commonpb.Payload{
		Header: &commonpb.Header{ChannelHeader: marshal(t, &commonpb.ChannelHeader{TxId: id, ChannelId: "mychannel", Type: int32(commonpb.HeaderType_ENDORSER_TRANSACTION)})},
		Data:   marshal(t, tx)})}
	if !valid {
		env.Signature = []byte("invalid")
	}
	return env
}

func statusRequest(t testing.TB, txID string) *gatewaypb.SignedCommitStatusRequest {
	return &gatewaypb.SignedCommitStatusRequest{Signature: []byte("good"),
		Request: marshal(t, &gatewaypb.CommitStatusRequest{ChannelId: "mychannel", TransactionId: txID, Identity: []byte("me")})}
}

func TestCommitStatus(t *testing.T) {
	w := newWorld(t)
	w.channel.append(transaction(t, "a", "basic", "", true), transaction(t, "b", "basic", "", false))
	client := w.client()
	for id, want := range map[string]peerpb.TxValidationCode{"a": peerpb.TxValidationCode_VALID, "b": peerpb.TxValidationCode_MVCC_READ_CONFLICT} {
		r, err := client.CommitStatus(t.Context(), statusRequest(t, id))
		must(t, err)
		if r.Result != want || r.BlockNumber != 0 {
			t.Errorf("%s: %v", id, r)
		}
	}
	// Who asks early waits.
	answer := make(chan *gatewaypb.CommitStatusResponse)
	go func() {
		r, _ := client.CommitStatus(context.WithoutCancel(t.Context()), statusRequest(t, "c"))
		answer <- r
	}()
	w.channel.append(transaction(t, "c", "basic", "", true))
	if r := <-answer; r.GetBlockNumber() != 1 {
		t.Errorf("got %v", r)
	}

	for message, r := range map[string]*gatewaypb.CommitStatusRequest{
		"no identity provided":               {ChannelId: "mychannel", TransactionId: "a"},
		"no channel ID provided":             {TransactionId: "a", Identity: []byte("me")},
		"transaction ID should not be empty": {ChannelId: "mychannel", Identity: []byte("me")},
	} {
		_, err := client.CommitStatus(t.Context(), &gatewaypb.SignedCommitStatusRequest{Request: marshal(t, r), Signature: []byte("good")})
		failed(t, err).want(t, codes.InvalidArgument, message)
	}
	_, err := client.CommitStatus(t.Context(), &gatewaypb.SignedCommitStatusRequest{})
	failed(t, err).want(t, codes.InvalidArgument, "a commit status request is required")
	bad := statusRequest(t, "a")
	bad.Signature = []byte("bad")
	_, err = client.CommitStatus(t.Context(), bad)
	failed(t, err).want(t, codes.PermissionDenied, "access denied: gateway/CommitStatus")
}

func TestCommitStatusDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := w.server().CommitStatus(ctx, statusRequest(t, "never"))
		failed(t, err).want(t, codes.DeadlineExceeded, "context deadline exceeded")
		if ctx.Err() != nil {
			t.Error("the answer came after the deadline")
		}
	})
}

func TestChaincodeEvents(t *testing.T) {
	w := newWorld(t)
	tx := func(id, chaincode string, valid bool) *commonpb.Envelope {
		return transaction(t, id, chaincode, "event-"+id, valid)
	}
	w.channel.append(tx("a1", "basic", true), tx("a2", "other", true), tx("a3", "basic", false), tx("a4", "basic", true))
	w.channel.append(transaction(t, "b1", "basic", "", true))
	w.channel.append(tx("c1", "basic", true), tx("c2", "basic", true), tx("c3", "basic", true))
	client := w.client()
	specified := func(n uint64) *ordererpb.SeekPosition {
		return &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_Specified{Specified: &ordererpb.SeekSpecified{Number: n}}}
	}
	for _, test := range []struct {
		name  string
		start *ordererpb.SeekPosition
		after string
		want  []string
	}{
		{"from a block", specified(0), "", []string{"0 a1 a4", "2 c1 c2 c3", "3 new"}},
		{"from a later block", specified(1), "", []string{"2 c1 c2 c3", "3 new"}},
		{"from the next block", nil, "", []string{"3 new"}},
		{"from the next block, said", &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_NextCommit{NextCommit: &ordererpb.SeekNextCommit{}}}, "", []string{"3 new"}},
		{"behind an event", specified(2), "c1", []string{"2 c2 c3", "3 new"}},
		{"behind the last event of a block", specified(2), "c3", []string{"3 new"}},
		{"behind an event of an earlier block", specified(2), "a1", []string{"0 a4", "2 c1 c2 c3", "3 new"}},
		{"behind another contract's event", specified(0), "a2", []string{"0 a4", "2 c1 c2 c3", "3 new"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			blocks := w.channel.Height()
			defer func() { // the next test starts with the same ledger
				w.channel.mu.Lock()
				w.channel.blocks = w.channel.blocks[:blocks]
				w.channel.mu.Unlock()
			}()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			stream, err := client.ChaincodeEvents(ctx, eventsRequest(t, &gatewaypb.ChaincodeEventsRequest{ChannelId: "mychannel", ChaincodeId: "basic", Identity: []byte("me"), StartPosition: test.start, AfterTransactionId: test.after}))
			must(t, err)
			var got []string
			for range test.want {
				if len(got) == len(test.want)-1 {
					// The stream is there by now, or waits for the block that it started at.
					appendOnce(t, w, tx("new", "basic", true), blocks)
				}
				r, err := stream.Recv()
				must(t, err)
				line := fmt.Sprint(r.BlockNumber)
				for _, e := range r.Events {
					line += " " + e.TxId
				}
				got = append(got, line)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}

	for _, test := range []struct {
		request *gatewaypb.SignedChaincodeEventsRequest
		code    codes.Code
		message string
	}{
		{&gatewaypb.SignedChaincodeEventsRequest{}, codes.InvalidArgument, "a chaincode events request is required"},
		{eventsRequest(t, &gatewaypb.ChaincodeEventsRequest{ChannelId: "elsewhere"}), codes.NotFound, "channel does not exist: elsewhere"},
		{&gatewaypb.SignedChaincodeEventsRequest{Request: []byte{10, 0}, Signature: []byte("bad")}, codes.PermissionDenied, "access denied: gateway/ChaincodeEvents"},
	} {
		stream, err := client.ChaincodeEvents(t.Context(), test.request)
		must(t, err)
		_, err = stream.Recv()
		failed(t, err).want(t, test.code, test.message)
	}
}

func eventsRequest(t testing.TB, r *gatewaypb.ChaincodeEventsRequest) *gatewaypb.SignedChaincodeEventsRequest {
	return &gatewaypb.SignedChaincodeEventsRequest{Request: marshal(t, r), Signature: []byte("good")}
}

// appendOnce appends a block once a stream that starts at the next block can be
// waiting for it: one that has not got to its start yet would miss it.
func appendOnce(t *testing.T, w *world, tx *commonpb.Envelope, height uint64) {
	t.Helper()
	w.channel.awaitReader(t, height)
	w.channel.append(tx)
}

// Many streams that follow one channel, and more blocks than are remembered, each with the events of its contract.
func TestManyEventStreams(t *testing.T) {
	w := newWorld(t)
	const blocks, streams = 300, 8
	for n := range blocks {
		w.channel.append(transaction(t, fmt.Sprint("a", n), "basic", "e", true), transaction(t, fmt.Sprint("b", n), "other", "e", true),
			transaction(t, fmt.Sprint("c", n), "basic", "e", n%2 == 0))
	}
	client := w.client()
	group, ctx := errgroup.WithContext(t.Context())
	for i := range streams {
		group.Go(func() error {
			contract, first := [...]string{"basic", "other"}[i%2], uint64(i*7)
			stream, err := client.ChaincodeEvents(ctx, eventsRequest(t, &gatewaypb.ChaincodeEventsRequest{ChannelId: "mychannel", ChaincodeId: contract, Identity: []byte("me"),
				StartPosition: &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_Specified{Specified: &ordererpb.SeekSpecified{Number: first}}}}))
			if err != nil {
				return err
			}
			for n := first; n < blocks; n++ {
				r, err := stream.Recv()
				if err != nil {
					return err
				}
				want := []string{fmt.Sprint("b", n)}
				if contract == "basic" {
					if want = []string{fmt.Sprint("a", n)}; n%2 == 0 {
						want = append(want, fmt.Sprint("c", n))
					}
				}
				got := []string{}
				for _, e := range r.Events {
					got = append(got, e.TxId)
				}
				if r.BlockNumber != n || !slices.Equal(got, want) {
					return fmt.Errorf("block %d: %q in block %d, want %q", n, got, r.BlockNumber, want)
				}
			}
			return nil
		})
	}
	must(t, group.Wait())
}
