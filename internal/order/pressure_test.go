package order_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/order"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// While nothing can be ordered, an orderer keeps as many envelopes and bytes as it may and refuses the next at once, with a
// status that says to try again; its memory does not grow however many come. When ordering goes on it takes envelopes again.
func TestBackPressureWithoutMajority(t *testing.T) {
	// Not parallel: what other tests allocate would count.
	const size = 10_000
	for name, c := range map[string]struct {
		limit func(*order.Config)
		full  string
	}{
		"envelopes": {func(c *order.Config) { c.MaxInFlight = 20 }, "the orderer has 20 envelopes waiting to be ordered on channel trade: try again"},
		"bytes":     {func(c *order.Config) { c.MaxInFlightBytes = 7*size + size/2 }, "the orderer has 7 envelopes waiting to be ordered on channel trade: try again"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOrdering(t, 3, 0)
			for _, n := range o.nodes {
				n.cfg = c.limit
			}
			o.begin(t, 3)
			leader := o.leader(t)
			padding := strings.Repeat("x", size-1000) // with signature and certificate
			submit := func(text string) *order.Rejection {
				var rej *order.Rejection
				if err := leader.Submit(t.Context(), message(t, o.user, channelID, text+padding)); err != nil && !errors.As(err, &rej) {
					t.Error(err)
				}
				return rej
			}
			if rej := submit("before"); rej != nil {
				t.Fatal(rej)
			}
			for _, n := range o.nodes {
				if n != leader {
					n.kill(t)
				}
			}
			ctx, stop := context.WithCancel(t.Context())
			var group sync.WaitGroup
			var refused atomic.Int64
			for w := range 30 { // more than there is room for
				group.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						if rej := submit(fmt.Sprintf("%d-%d", w, i)); rej != nil && rej.Info == c.full && rej.Status == commonpb.Status_SERVICE_UNAVAILABLE {
							refused.Add(1)
						}
					}
				})
			}
			until(t, "refusals", func() bool { return refused.Load() > 100 })
			most := heap() + 8<<20
			until(t, "many refusals", func() bool { return refused.Load() > 3000 }) // 30 MB
			// Garbage that is made while it is measured counts, so the least that is ever found decides.
			until(t, "a heap that is as it was", func() bool { return heap() <= most })
			stop()
			for _, n := range o.nodes {
				if n != leader {
					n.start(t)
				}
			}
			group.Wait()
			until(t, "ordering to go on", func() bool { return submit("after") == nil })
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// The same holds for a consenter that forwards to a leader which takes nothing.
func TestBackPressureWhileForwarding(t *testing.T) {
	t.Parallel()
	o := newOrdering(t, 3, 0)
	for _, n := range o.nodes {
		n.cfg = func(c *order.Config) { c.MaxInFlight = 10 }
	}
	o.begin(t, 3)
	leader := o.leader(t)
	follower, other := o.nodes[(leader.number+1)%3], o.nodes[(leader.number+2)%3]
	other.kill(t)
	leader.kill(t)
	var group sync.WaitGroup
	var full, late atomic.Int64
	for i := range 40 {
		group.Go(func() {
			start := time.Now()
			var rej *order.Rejection
			err := follower.Submit(t.Context(), message(t, o.user, channelID, fmt.Sprint(i)))
			switch {
			case !errors.As(err, &rej) || rej.Status != commonpb.Status_SERVICE_UNAVAILABLE:
				t.Errorf("answered %v", err)
			case strings.Contains(rej.Info, "10 envelopes waiting"):
				full.Add(1)
			default:
				late.Add(1)
				if waited := time.Since(start); waited > 30*time.Second {
					t.Errorf("told after %v", waited)
				}
			}
		})
	}
	group.Wait()
	if full.Load() != 30 || late.Load() != 10 {
		t.Errorf("%d were refused at once and %d later", full.Load(), late.Load())
	}
}
