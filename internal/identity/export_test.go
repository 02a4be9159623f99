package identity

import (
	"crypto/ecdsa"
	"math/big"
)

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

// KeyTable is the table of one key.
type KeyTable struct{ t *keyTable }

// NewKeyTable makes one whatever the use of the key.
func NewKeyTable(pub *ecdsa.PublicKey) (KeyTable, error) {
	t, err := newKeyTable(pub)
	return KeyTable{t}, err
}

// Verify is to be equal to ecdsa.Verify.
func (k KeyTable) Verify(digest *[32]byte, r, s *big.Int) bool { return k.t.verify(digest, r, s) }

// HasTable says whether the identity's key got a table.
func (id *Identity) HasTable() bool { return id.pub.usage.table.Load() != nil }
