package courier

import (
	"context"
	"errors"

	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
)

// fruitless bounds the pages of a collection that are asked for in vain at a time.
const fruitless = 5

// unfetched is what is known of a collection's private data from before a snapshot.
type unfetched struct {
	complete bool   // all of it is here
	next     []byte // where to go on asking; nil at the beginning
}

// reconcileSnapshot asks once for private values from before the snapshot that a channel's ledger began with: a snapshot has their
// hashes only. It is as ReconcileOnce, but goes on where it left off.
func (c *Courier) reconcileSnapshot(ctx context.Context, channelID string, ch Channel) (taken int, err error) {
	if _, ok := ch.Ledger().Bootstrapped(); !ok {
		return 0, nil
	}
	m := newMembership(ch)
	self, err := m.bundle.MSPs().Deserialize(c.config.Signer.Serialize())
	if err != nil {
		return 0, nil // this peer's member is not on the channel, or not any more
	}
	s := ch.Ledger().NewSnapshot()
	places, err := s.Places(true)
	if err := errors.Join(err, s.Close()); err != nil {
		return 0, err
	}
	for _, at := range places {
		state := c.unfetchedOf(channelID, at)
		if state.complete {
			continue
		}
		belongs, err := m.belongs(self, at.Namespace, at.Collection, now)
		if err != nil {
			return taken, err
		}
		if !belongs {
			continue
		}
		n, err := c.reconcilePlace(ctx, channelID, ch, m, at, state)
		taken += n
		if err != nil {
			return taken, err
		}
	}
	return taken, nil
}

// reconcilePlace walks over what is unfetched of one collection, page by page.
func (c *Courier) reconcilePlace(ctx context.Context, channelID string, ch Channel, m *membership, at rwset.Place, state *unfetched) (taken int, err error) {
	fromStart, lacking := state.next == nil, false
	for vain := 0; vain < fruitless && ctx.Err() == nil; {
		s := ch.Ledger().NewSnapshot()
		list, err := s.UnfetchedPrivateData(at, state.next, page)
		if err := errors.Join(err, s.Close()); err != nil {
			return taken, err
		}
		if len(list) == 0 {
			state.next = nil
			state.complete = fromStart && !lacking
			return taken, nil
		}
		n, err := c.fetchUnfetched(ctx, channelID, ch, m, list)
		taken += n
		if err != nil {
			return taken, err
		}
		if n == 0 {
			vain++
		}
		lacking = true // or not: the next time tells
		state.next = append(list[len(list)-1].KeyHash, 0)
	}
	return taken, nil
}

// fetchUnfetched asks for the write sets in which values were written.
func (c *Courier) fetchUnfetched(ctx context.Context, channelID string, ch Channel, m *membership, list []ledger.Unfetched) (int, error) {
	var wanted []Wanted
	asked := map[rwset.Version]bool{}
	for _, u := range list {
		if !asked[u.Version] {
			asked[u.Version] = true
			wanted = append(wanted, Wanted{Block: u.Version.Block, Tx: u.Version.Tx, Namespace: u.Namespace, Collection: u.Collection})
		}
	}
	got := make([][]byte, len(wanted))
	if _, err := c.round(ctx, channelID, m, wanted, got, false); err != nil {
		return 0, err
	}
	var late []ledger.Late
	for i, w := range wanted {
		if got[i] != nil {
			late = append(late, ledger.Late{Missing: ledger.Missing{Block: w.Block, Tx: w.Tx, Namespace: w.Namespace, Collection: w.Collection}, Rwset: got[i]})
		}
	}
	if len(late) == 0 {
		return 0, nil
	}
	taken, err := ch.CommitLate(ctx, late)
	c.metrics.reconciled.WithLabelValues(channelID).Add(float64(taken))
	return taken, err
}

// unfetchedOf is used by the channel's Reconcile alone.
func (c *Courier) unfetchedOf(channelID string, at rwset.Place) *unfetched {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := snapshotPlace{channelID, at}
	if c.unfetched[key] == nil {
		c.unfetched[key] = &unfetched{}
	}
	return c.unfetched[key]
}

type snapshotPlace struct {
	channelID string
	rwset.Place
}
