package courier

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Wanted is the private write set of a collection in a transaction of a block.
type Wanted struct {
	Block, Tx                   uint64
	TxID, Namespace, Collection string
	Hash                        []byte // SHA-256 of the serialized write set
}

func (w *Wanted) matches(raw []byte) bool {
	sum := sha256.Sum256(raw)
	return raw != nil && bytes.Equal(sum[:], w.Hash)
}

// firstPause is how long Fetch waits before it asks peers again that did not have the data yet; the pauses grow.
const firstPause = 50 * time.Millisecond

// Fetch gets from other peers the write sets of a block's transactions, those it cannot get are nil. It asks again until the
// PullTimeout is over: what was just endorsed may still be on its way to those who are asked. It gives up at once
// when nobody can be asked.
func (c *Courier) Fetch(ctx context.Context, channelID string, wanted []Wanted) ([][]byte, error) {
	got := make([][]byte, len(wanted))
	ch, ok := c.config.Channel(channelID)
	if !ok {
		return got, fmt.Errorf("the peer has not joined channel %s", channelID)
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.PullTimeout)
	defer cancel()
	defer func() {
		for i := range got {
			count(c.metrics.fetched, channelID, got[i] != nil)
		}
	}()
	m := newMembership(ch)
	complete := func() bool {
		for i := range wanted {
			if got[i] == nil {
				return false
			}
		}
		return true
	}
	for pause := firstPause; ; pause *= 2 {
		asked, err := c.round(ctx, channelID, m, wanted, got, true)
		if err != nil {
			return got, err
		}
		if complete() {
			return got, nil
		}
		if asked == 0 {
			break
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
			continue
		case <-ctx.Done():
			timer.Stop()
		}
		break
	}
	c.wake(channelID)
	return got, nil
}

// round asks the peers of the collections' members, one after the other until one has it, for what is nil in got. asked is the number
// of peers that answered. With exact set, only what has the wanted hash is taken.
func (c *Courier) round(ctx context.Context, channelID string, m *membership, wanted []Wanted, got [][]byte, exact bool) (asked int, err error) {
	peers := c.fresh(c.config.Peers(channelID))
	rand.Shuffle(len(peers), func(i, j int) { peers[i], peers[j] = peers[j], peers[i] })
	left := make([][]Peer, len(wanted)) // to be asked for each
	for i, w := range wanted {
		if got[i] != nil {
			continue
		}
		if left[i], err = m.holders(peers, w); err != nil {
			return 0, err
		}
	}
	answered := map[peerKey]bool{}
	for ctx.Err() == nil {
		// Every peer is asked once for all that it is next for.
		turns := map[peerKey]*turn{}
		for i := range wanted {
			if got[i] == nil && len(left[i]) > 0 {
				p := left[i][0]
				left[i] = left[i][1:]
				if turns[p.key()] == nil {
					turns[p.key()] = &turn{peer: p}
				}
				turns[p.key()].indexes = append(turns[p.key()].indexes, i)
			}
		}
		if len(turns) == 0 {
			break
		}
		var calls sync.WaitGroup
		for _, t := range turns {
			calls.Go(func() { t.ask(ctx, c, channelID, wanted) })
		}
		calls.Wait()
		for _, t := range turns {
			if t.err == nil {
				answered[t.peer.key()] = true
			} else if ctx.Err() == nil {
				c.config.Log.Debug("a peer was asked for private data in vain", "channel", channelID, "peer", t.peer.Address, "error", t.err)
			}
			for k, i := range t.indexes {
				if t.raw == nil || t.raw[k] == nil {
					continue
				}
				if exact && !wanted[i].matches(t.raw[k]) {
					continue // trimmed by a purge that is not committed here yet, or forged
				}
				got[i] = t.raw[k]
			}
		}
	}
	return len(answered), nil
}

// turn is one peer's in a round.
type turn struct {
	peer    Peer
	indexes []int
	raw     [][]byte
	err     error
}

// patience is the part of PullTimeout that one peer is given.
const patience = 3

func (t *turn) ask(ctx context.Context, c *Courier, channelID string, wanted []Wanted) {
	ctx, cancel := context.WithTimeout(ctx, max(c.config.PullTimeout/patience, time.Second))
	defer cancel()
	list := make([]Wanted, len(t.indexes))
	for k, i := range t.indexes {
		list[k] = wanted[i]
	}
	t.raw, t.err = c.pull(ctx, channelID, t.peer, list)
}

// holders are the peers that may have a write set: those of the members that its collection had then.
func (m *membership) holders(peers []Peer, w Wanted) ([]Peer, error) {
	config, err := m.collection(w.Namespace, w.Collection, w.Block)
	if err != nil {
		return nil, err
	}
	members := membersOf(config)
	var holders []Peer
	for _, p := range peers {
		if slices.Contains(members, p.MSPID) {
			holders = append(holders, p)
		}
	}
	return holders, nil
}

// wake makes Reconcile try soon.
func (c *Courier) wake(channelID string) {
	select {
	case c.lacks(channelID) <- struct{}{}:
	default:
	}
}

func (c *Courier) lacks(channelID string) chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lacking[channelID] == nil {
		c.lacking[channelID] = make(chan struct{}, 1)
	}
	return c.lacking[channelID]
}
