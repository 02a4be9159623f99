package identity

import (
	"crypto/elliptic"
	"sync"
	"sync/atomic"

	"github.com/hansa-ledger/hansa/internal/identity/p256"
)

// A verifying node sees the same few keys over and over: a handful of endorsers and orderers, some clients. A P-256 key that
// is used often gets a table of its multiples.

// tableAfter is how many verifications a key must have asked for: a table costs as much as some 40 of them save.
const tableAfter = 100

// keyTables says which keys have a table: at most as many as there are slots, the busiest ones.
type keyTables struct {
	limit int

	mu    sync.Mutex // guards slots; held while a table is computed
	slots []*publicKey
}

// usage belongs to a publicKey.
type usage struct {
	count atomic.Uint64 // verifications, halved as time goes by for keys that have a table
	table atomic.Pointer[p256.Table]
}

// tableOf returns the table of k if it has one. It computes one for a key that earned it, on the caller's time (some 3 ms, once),
// unless another key is at it: then the caller does without.
func (ts *keyTables) tableOf(k *publicKey) *p256.Table {
	count := k.usage.count.Add(1)
	if t := k.usage.table.Load(); t != nil {
		return t
	}
	if ts.limit <= 0 || k.ecdsa.Curve != elliptic.P256() || count%tableAfter != 0 || !ts.mu.TryLock() {
		return nil
	}
	defer ts.mu.Unlock()
	if t := k.usage.table.Load(); t != nil {
		return t
	}
	if len(ts.slots) < ts.limit {
		ts.slots = append(ts.slots, nil)
	} else {
		// The least busy key makes room, if it is less busy than k. Halving lets old fame fade.
		last := len(ts.slots) - 1
		for i, one := range ts.slots {
			one.usage.count.Store(one.usage.count.Load() / 2)
			if one.usage.count.Load() < ts.slots[last].usage.count.Load() {
				ts.slots[i], ts.slots[last] = ts.slots[last], ts.slots[i]
			}
		}
		if ts.slots[last].usage.count.Load() >= count {
			return nil
		}
		ts.slots[last].usage.table.Store(nil)
	}
	t, err := p256.NewTable(k.ecdsa)
	if err != nil { // not possible for a key out of a certificate, whose point was checked
		ts.slots = ts.slots[:len(ts.slots)-1]
		return nil
	}
	ts.slots[len(ts.slots)-1] = k
	k.usage.table.Store(t)
	return t
}
