package ledger

import (
	"sync"

	"github.com/hansa-ledger/hansa/internal/rwset"
)

// hotKeys remembers public keys that were read lately, missing ones too: what a simulation reads is read again when its
// transaction is checked for conflicts, and every call reads the definition of its contract. It knows the newest value
// only, and since when that holds; a snapshot from before asks the disk. One that was read by a snapshot of an older
// height is not remembered, as it may have been written since.
type hotKeys struct {
	mu         sync.RWMutex
	height     uint64 // all blocks below are taken into account
	young, old map[hotKey]hotValue
	bytes      int // in young
	limit      int
}

type hotKey struct{ namespace, key string }

type hotValue struct {
	value *rwset.VersionedValue // nil: there is none
	from  uint64                // the least height at which the value is known to hold
}

// Bounds of hotKeys: two generations of so many bytes each. Larger values are not remembered.
const (
	hotGeneration = 8 << 20
	maxHotValue   = 64 << 10
	hotOverhead   = 200 // bytes that an entry takes beside key and value
)

func newHotKeys(height uint64) *hotKeys {
	return &hotKeys{height: height, young: map[hotKey]hotValue{}, limit: hotGeneration}
}

// get gives the value of a key at a height; ok is false if it is not known.
func (h *hotKeys) get(namespace, key string, height uint64) (value *rwset.VersionedValue, ok bool) {
	k := hotKey{namespace, key}
	h.mu.RLock()
	defer h.mu.RUnlock()
	v, ok := h.young[k]
	if !ok {
		v, ok = h.old[k]
	}
	if !ok || height < v.from || height > h.height { // a snapshot can be ahead for a moment
		return nil, false
	}
	return v.value, true
}

// read remembers what a snapshot of a height found on the disk.
func (h *hotKeys) read(namespace, key string, value *rwset.VersionedValue, height uint64) {
	from := height
	if value != nil {
		from = value.Version.Block + 1
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if height == h.height {
		h.put(hotKey{namespace, key}, hotValue{value, from})
	}
}

// written takes a block's updates into account.
func (h *hotKeys) written(u *rwset.Updates) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.height = u.Block() + 1
	for _, p := range u.Places() {
		if p.Collection != "" {
			continue
		}
		for _, up := range u.At(p) {
			k := hotKey{p.Namespace, up.Key}
			_, young := h.young[k]
			if _, old := h.old[k]; !young && !old {
				continue
			}
			v := hotValue{from: h.height}
			if !up.Delete {
				v.value = &rwset.VersionedValue{Value: up.Value, Metadata: up.Metadata, Version: up.Version}
			}
			h.put(k, v)
		}
	}
}

// put is called with mu held.
func (h *hotKeys) put(k hotKey, v hotValue) {
	size := len(k.namespace) + len(k.key) + hotOverhead
	if v.value != nil {
		size += len(v.value.Value) + len(v.value.Metadata)
	}
	if size > maxHotValue {
		delete(h.young, k)
		delete(h.old, k)
		return
	}
	if h.bytes += size; h.bytes > h.limit {
		h.old, h.young, h.bytes = h.young, map[hotKey]hotValue{}, size
	}
	h.young[k] = v
}
