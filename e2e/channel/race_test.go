package channel_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/reconfigure"
)

// Of several who change the same at the same moment one wins, and the others are told; while orderers are killed no update is
// lost, done twice, or told otherwise than it went.
func TestRaces(t *testing.T) {
	n := network.Start(t, "--orderers", "3", "--members", "1")
	plan := n.Plan()
	roots, err := os.ReadFile(plan.OrdererTLSRoots())
	if err != nil {
		t.Fatal(err)
	}
	var admin *identity.Signer
	for _, a := range plan.Administrators() {
		if admin, err = identity.LoadSigner(a.MSPDir, a.MSPID); err != nil {
			t.Fatal(err)
		}
	}
	var nodes []reconfigure.Node
	for _, o := range plan.Orderers {
		nodes = append(nodes, reconfigure.Node{Address: o.Address(), TLSRoots: roots})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	fetch := func() *reconfigure.Config {
		t.Helper()
		var c *reconfigure.Config
		n.Await("an orderer", func() (err error) {
			c, err = reconfigure.Fetch(ctx, nodes, admin, plan.Channel)
			return err
		})
		return c
	}
	prepare := func(c *reconfigure.Config, set string) *reconfigure.Request {
		t.Helper()
		if err := c.Set(set, ""); err != nil {
			t.Fatal(err)
		}
		r, err := c.Request()
		if err != nil {
			t.Fatal(err)
		}
		if s, err := c.SignWhatIsNeeded(r, admin); err != nil || !s.Met() {
			t.Fatal(err, s.Needs)
		}
		return r
	}

	const rivals = 4
	var wait sync.WaitGroup
	var failed [rivals]error
	var won [rivals]*reconfigure.Config
	var configs [rivals]*reconfigure.Config
	var requests [rivals]*reconfigure.Request
	for i := range rivals {
		configs[i] = fetch()
		requests[i] = prepare(configs[i], fmt.Sprintf("batch.maxMessages=%d", 100+i))
	}
	for i, c := range configs {
		wait.Go(func() {
			// Each begins with another orderer.
			own := append(append([]reconfigure.Node{}, nodes[i%3:]...), nodes[:i%3]...)
			won[i], failed[i] = c.Submit(ctx, own, admin, requests[i])
		})
	}
	wait.Wait()
	now := fetch()
	winners := 0
	for i := range rivals {
		switch {
		case failed[i] == nil:
			winners++
			d, err := now.Document()
			if err != nil || d.Batch.MaxMessages != uint32(100+i) {
				t.Errorf("rival %d won with block %d, but in force is another: %v", i, won[i].Block, err)
			}
		case !errors.Is(failed[i], reconfigure.ErrStale):
			t.Errorf("rival %d: %v", i, failed[i])
		}
	}
	if winners != 1 || now.Sequence() != 1 {
		t.Errorf("%d won, at configuration %d", winners, now.Sequence())
	}

	// Orderers are killed, one after the other, while updates are submitted.
	for i := range 3 {
		c := fetch()
		r := prepare(c, fmt.Sprintf("batch.maxMessages=%d", 200+i))
		wait.Go(func() { n.Kill(plan.Orderers[i%3].Name) })
		next, err := c.Submit(ctx, nodes, admin, r)
		wait.Wait()
		if err == nil && next.Sequence() != c.Sequence()+1 {
			t.Errorf("update %d made configuration %d of %d", i, next.Sequence(), c.Sequence())
		}
		now = fetch()
		d, failed := now.Document()
		if failed != nil {
			t.Fatal(failed)
		}
		done := d.Batch.MaxMessages == uint32(200+i)
		if err == nil && !done {
			t.Errorf("update %d is said to be in force, and is not", i)
		}
		if err != nil {
			t.Logf("update %d, in force %t: %v", i, done, err)
		}
		n.AwaitReady()
	}
}
