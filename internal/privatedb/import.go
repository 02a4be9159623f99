package privatedb

import (
	"encoding/binary"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hansa-ledger/hansa/internal/rwset"
)

// ScheduleExpiry notes when the hash of a private value goes that came with a snapshot: the collection's values live for
// the given number of blocks, and it was written in the block named.
func ScheduleExpiry(b *pebble.Batch, p rwset.Place, keyHash []byte, written, blockToLive uint64) error {
	expiry, expires := expiryOf(written, blockToLive)
	if !expires {
		return nil
	}
	key := binary.BigEndian.AppendUint64(blockPrefix(prefixExpiry, expiry), written)
	return b.Set(append(appendName(appendName(key, p.Namespace), p.Collection), keyHash...), nil, nil)
}

// ByHash gives the private value behind the hash of its key, nil if it is not here.
func (v *View) ByHash(p rwset.Place, keyHash []byte) (*rwset.VersionedValue, error) {
	key, err := v.bytes(inCollection(prefixKey, p.Namespace, p.Collection, string(keyHash)))
	if key == nil || err != nil {
		return nil, err
	}
	return v.Get(p.Namespace, p.Collection, string(key))
}
