package statedb

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hansa-ledger/hansa/internal/rwset"
)

// Import puts one key into a batch as a snapshot has it, without history. In a hashed collection, key is the key's hash.
func Import(b *pebble.Batch, p rwset.Place, v *rwset.VersionedValue, key []byte, h *Hints) error {
	var k []byte
	if p.Collection == "" {
		k = appendPublic(make([]byte, 0, 64), p.Namespace, string(key))
	} else {
		k = appendHashed(make([]byte, 0, 96), p.Namespace, p.Collection, key)
	}
	err := b.Set(k, AppendValue(nil, *v), nil)
	if len(v.Metadata) > 0 {
		err = errors.Join(err, h.add(p, b))
	}
	return err
}
