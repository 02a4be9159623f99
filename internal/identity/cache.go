package identity

import (
	"hash/maphash"
	"sync"
)

// cache is a bounded map of two generations: new entries go to the young one; when that is full it becomes the old one, and what
// was in the old one and not asked for meanwhile is forgotten. A hit costs a read lock on one shard and no bookkeeping, which an
// exact least-recently-used list would.
type cache[K comparable, V any] struct {
	seed   maphash.Seed
	shards []shard[K, V]
}

type shard[K comparable, V any] struct {
	limit int // of one generation

	mu         sync.RWMutex // guards young and old
	young, old map[K]V
}

// newCache makes a cache of at most size entries (rounded up to the number of shards times two).
func newCache[K comparable, V any](size, shards int) *cache[K, V] {
	c := &cache[K, V]{seed: maphash.MakeSeed(), shards: make([]shard[K, V], shards)}
	for i := range c.shards {
		c.shards[i].limit = (size + 2*shards - 1) / (2 * shards)
		c.shards[i].young = make(map[K]V)
	}
	return c
}

func (c *cache[K, V]) shard(key K) *shard[K, V] {
	if len(c.shards) == 1 {
		return &c.shards[0]
	}
	return &c.shards[maphash.Comparable(c.seed, key)%uint64(len(c.shards))]
}

func (c *cache[K, V]) get(key K) (V, bool) {
	s := c.shard(key)
	s.mu.RLock()
	v, ok := s.young[key]
	if ok {
		s.mu.RUnlock()
		return v, true
	}
	v, ok = s.old[key]
	s.mu.RUnlock()
	if ok {
		v = c.add(key, v)
	}
	return v, ok
}

// add stores v unless the key is there already, and returns what is there now.
func (c *cache[K, V]) add(key K, v V) V {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.young[key]; ok {
		return have
	}
	if have, ok := s.old[key]; ok {
		v = have
	}
	if len(s.young) >= s.limit {
		s.old, s.young = s.young, make(map[K]V, s.limit)
	}
	s.young[key] = v
	return v
}
