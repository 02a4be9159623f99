package courier

import (
	"context"
	"math"
	"time"

	"github.com/hansa-ledger/hansa/internal/ledger"
)

const (
	// page is how much missing data is looked at and asked for at a time.
	page = 200
	// soon is the part of ReconcileInterval after which what was just missed is asked for.
	soon = 10
)

// Reconcile gets what the channel's ledger lacks, from time to time, until ctx ends: data of blocks that were committed while nobody could
// give it.
func (c *Courier) Reconcile(ctx context.Context, channelID string) {
	wake := c.lacks(channelID)
	timer := time.NewTimer(c.config.ReconcileInterval / soon)
	defer timer.Stop()
	due := time.Now().Add(c.config.ReconcileInterval / soon)
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
			if next := c.config.ReconcileInterval / soon; time.Until(due) > next {
				due = time.Now().Add(next)
				timer.Reset(next)
			}
			continue
		case <-timer.C:
		}
		if taken, err := c.ReconcileOnce(ctx, channelID); err != nil && ctx.Err() == nil {
			c.config.Log.Warn("missing private data could not be reconciled; it will be tried again", "channel", channelID, "error", err)
		} else if taken > 0 {
			c.config.Log.Info("missing private data reconciled", "channel", channelID, "writeSets", taken)
		}
		due = time.Now().Add(c.config.ReconcileInterval)
		timer.Reset(c.config.ReconcileInterval)
	}
}

// ReconcileOnce asks once for all that is missing, the newest first, and then for what is from before the snapshot that the ledger
// began with; it tells how much is missing no more.
func (c *Courier) ReconcileOnce(ctx context.Context, channelID string) (taken int, err error) {
	ch, ok := c.config.Channel(channelID)
	if !ok {
		return 0, nil
	}
	if err := c.adopt(ch); err != nil {
		return 0, err
	}
	for below := uint64(math.MaxUint64); ctx.Err() == nil; {
		missing, err := ch.Ledger().MissingPrivateDataBelow(below, page)
		if err != nil {
			return taken, err
		}
		if len(missing) == 0 {
			break
		}
		n, err := c.reconcile(ctx, channelID, ch, missing)
		taken += n
		if err != nil {
			return taken, err
		}
		first, last := missing[0].Block, missing[len(missing)-1].Block
		if below = last; first > last {
			below++ // the page may have cut through the last block
		}
		if len(missing) < page {
			break
		}
	}
	n, err := c.reconcileSnapshot(ctx, channelID, ch)
	return taken + n, err
}

// adopt looks for collections that this peer was let into after data had been written to them, which it then misses.
func (c *Courier) adopt(ch Channel) error {
	foreign, err := ch.Ledger().ForeignCollections()
	if err != nil || len(foreign) == 0 {
		return err
	}
	m := newMembership(ch)
	self, err := m.bundle.MSPs().Deserialize(c.config.Signer.Serialize())
	if err != nil {
		return nil // this peer's member is not on the channel, or not any more
	}
	for _, at := range foreign {
		belongs, err := m.belongs(self, at.Namespace, at.Collection, now)
		if err == nil && belongs {
			err = ch.Ledger().Adopt(at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Courier) reconcile(ctx context.Context, channelID string, ch Channel, missing []ledger.Missing) (int, error) {
	late, lacking, err := ch.Ledger().Sort(missing)
	if err != nil {
		return 0, err
	}
	if len(lacking) > 0 {
		wanted := make([]Wanted, len(lacking))
		for i, l := range lacking {
			wanted[i] = Wanted{Block: l.Block, Tx: l.Tx, TxID: l.TxID, Namespace: l.Namespace, Collection: l.Collection, Hash: l.Hash}
		}
		got := make([][]byte, len(wanted))
		if _, err := c.round(ctx, channelID, newMembership(ch), wanted, got, false); err != nil {
			return 0, err
		}
		for i, l := range lacking {
			if got[i] != nil {
				late = append(late, ledger.Late{Missing: l.Missing, Rwset: got[i]})
			}
		}
	}
	if len(late) == 0 {
		return 0, nil
	}
	taken, err := ch.CommitLate(ctx, late)
	c.metrics.reconciled.WithLabelValues(channelID).Add(float64(taken))
	if err == nil && taken < len(late) {
		c.config.Log.Warn("private data from other peers does not match the ledger", "channel", channelID, "writeSets", len(late)-taken)
	}
	return taken, err
}
