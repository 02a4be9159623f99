package order_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/order"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// gate is a signer that can hang, and with it the consenter that has a block to sign: its connections stay, and nothing comes.
type gate struct {
	envelope.Signer
	shut atomic.Pointer[chan struct{}]
	hung atomic.Bool
}

func (g *gate) Sign(message []byte) ([]byte, error) {
	if c := g.shut.Load(); c != nil {
		g.hung.Store(true)
		<-*c
		g.hung.Store(false)
	}
	return g.Signer.Sign(message)
}

// A leader that hangs is left within seconds also where the channel has Fabric's long election timeouts, by all who hear
// nothing. Who sent it an envelope is told in time to try again; nothing is lost or doubled, and the old leader comes back.
func TestHungLeader(t *testing.T) {
	t.Parallel()
	o := newOrdering(t, 3, 0, "tickInterval: 500ms")
	gates := make([]*gate, len(o.nodes))
	for i, n := range o.nodes {
		gates[i] = &gate{Signer: n.signer}
		n.cfg = func(c *order.Config) { c.Signer = gates[i] }
	}
	o.begin(t, 3)
	leader := o.leader(t)
	follower := o.nodes[(leader.number+1)%3]
	acknowledged := map[string]bool{}
	submit := func(through *node, text string) error {
		err := through.Submit(t.Context(), message(t, o.user, channelID, text))
		if err == nil {
			acknowledged[text] = true
		}
		return err
	}
	if err := submit(follower, "before"); err != nil {
		t.Fatal(err)
	}
	for _, n := range o.nodes { // who has nothing yet does not vote
		until(t, "the block", func() bool { return n.chain(t).Height() == 2 })
	}
	shut := make(chan struct{})
	open := sync.OnceFunc(func() {
		gates[leader.number].shut.Store(nil)
		close(shut)
	})
	defer open()
	gates[leader.number].shut.Store(&shut)
	if err := submit(follower, "the last one"); err != nil { // it is answered before the block is signed
		t.Fatal(err)
	}
	until(t, "the leader to hang", gates[leader.number].hung.Load)

	start := time.Now()
	for i := 0; ; i++ {
		err := submit(follower, fmt.Sprint("while it hangs ", i))
		var rej *order.Rejection
		if err == nil {
			break
		} else if !errors.As(err, &rej) || rej.Status != commonpb.Status_SERVICE_UNAVAILABLE {
			t.Fatalf("answered %v", err)
		}
		t.Logf("after %v: %s", time.Since(start), rej.Info)
	}
	took := time.Since(start)
	t.Logf("ordering went on after %v", took)
	if took > 8*time.Second { // an election timeout of 5 to 10 s, and the time until the sender is told, would be more
		t.Errorf("it took %v", took)
	}
	open()
	o.leader(t)
	until(t, "the old leader ordering", func() bool { return submit(leader, "through the old leader") == nil })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := leader.chain(t).Wait(ctx, follower.chain(t).Height()); err != nil {
		t.Fatal(err)
	}
	o.check(t, acknowledged)
}
