package order_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// What follows a refused envelope on its stream is neither answered nor ordered, though it was sent before the refusal came.
func TestNothingAfterARefusal(t *testing.T) {
	n := newNetwork(t)
	o := n.startJoined(t)
	good, refused, after := message(t, n.user, channelID, "good"), message(t, n.user, channelID, "refused"), []string{}
	refused.Signature = nil
	for round := range 5 {
		stream, err := o.client.Broadcast(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		envs := []*commonpb.Envelope{good, refused}
		for i := range 20 {
			text := fmt.Sprintf("after %d/%d", round, i)
			after = append(after, text)
			envs = append(envs, message(t, n.user, channelID, text))
		}
		for _, env := range envs {
			if err := stream.Send(env); err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
		}
		for _, want := range []commonpb.Status{commonpb.Status_SUCCESS, commonpb.Status_FORBIDDEN} {
			if r, err := stream.Recv(); err != nil || r.Status != want {
				t.Fatalf("%v, %v; want %v", r, err, want)
			}
		}
		if r, err := stream.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the stream goes on with %v, %v", r, err)
		}
	}
	if r := o.broadcast(t, message(t, n.user, channelID, "last")); r.Status != commonpb.Status_SUCCESS {
		t.Fatal(r)
	}
	o.pull(t, 0, func(b *commonpb.Block) bool {
		for _, text := range texts(t, b) {
			if slices.Contains(after, text) {
				t.Errorf("%q is ordered", text)
			}
		}
		return slices.Contains(texts(t, b), "last")
	})
}
