package identity

// Cached counts what the caches hold.
func (v *Verifier) Cached() (identities, signatures int) {
	return v.identities.len(), v.signatures.len()
}

func (c *cache[K, V]) len() (n int) {
	for i := range c.shards {
		c.shards[i].mu.RLock()
		n += len(c.shards[i].young) + len(c.shards[i].old)
		c.shards[i].mu.RUnlock()
	}
	return n
}

// HasTable says whether the identity's key got a table.
func (id *Identity) HasTable() bool { return id.pub.usage.table.Load() != nil }
