package privatedb

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hansa-ledger/hansa/internal/rwset"
)

// ApplyLate puts into the batch what the private writes of a past block's valid transaction mean for the state as it is now. A
// value counts if the key's public hash is still that of the value, and takes the hash's version, which metadata-only
// writes have moved; any other was overwritten, deleted, purged or has expired since. It expires with the
// public hash, whose schedule was made when the block was committed.
func (v *View) ApplyLate(b *pebble.Batch, block uint64, data Data, state rwset.State) error {
	set, err := rwset.ParsePrivate(data.Set)
	if err != nil {
		return err
	}
	at := rwset.Version{Block: block, Tx: data.Tx}
	for _, c := range set.Collections {
		for _, w := range c.KV.Writes {
			hash := rwset.KeyHash(w.Key)
			current, err := state.GetHash(c.Namespace, c.Name, hash)
			if err != nil {
				return err
			}
			stored, err := v.Get(c.Namespace, c.Name, w.Key)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(w.Value)
			value := inCollection(prefixValue, c.Namespace, c.Name, w.Key)
			index := inCollection(prefixKey, c.Namespace, c.Name, string(hash))
			switch {
			case !rwset.IsDelete(w) && current != nil && current.Version.Compare(at) >= 0 && bytes.Equal(current.Value, sum[:]):
				err = errors.Join(b.Set(value, encodeValue(current.Version, w.Value), nil), b.Set(index, []byte(w.Key), nil))
			case stored != nil && stored.Version.Compare(at) < 0:
				// What is here is older than this write, which itself is history.
				err = errors.Join(b.Delete(value, nil), b.Delete(index, nil))
			}
			if err != nil {
				return fmt.Errorf("write private data: %w", err)
			}
		}
	}
	return nil
}

// Settle takes a private write set off the list of what is missing.
func Settle(b *pebble.Batch, m Missing) error {
	key := binary.BigEndian.AppendUint64(blockPrefix(prefixMissing, m.Block), m.Tx)
	return b.Delete(appendName(appendName(key, m.Namespace), m.Collection), nil)
}

// Purged reports whether a version of a key was purged.
func (v *View) Purged(namespace, collection string, keyHash []byte, version rwset.Version) (bool, error) {
	b, err := v.bytes(inCollection(prefixPurge, namespace, collection, string(keyHash)))
	if b == nil || err != nil {
		return false, err
	}
	purge, err := decodeValue(b)
	return err == nil && version.Compare(purge.Version) <= 0, err
}

// AnyPurged reports whether anything was ever purged.
func (v *View) AnyPurged() (bool, error) {
	it, err := v.reader.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixPurge}, UpperBound: []byte{prefixPurge + 1}})
	if err != nil {
		return false, fmt.Errorf("list purges: %w", err)
	}
	found := it.First()
	return found, errors.Join(it.Error(), it.Close())
}

// Expired reports whether what was written to a collection at a block has outlived the collection's block-to-live when the
// chain has a height. Some of it may live on by metadata-only writes; as in Fabric, it is not handed out any more.
func Expired(state rwset.State, namespace, collection string, block, height uint64) (bool, error) {
	live, err := BlockToLive(state, namespace, collection)
	if err != nil {
		return false, err
	}
	expiry, expires := expiryOf(block, live)
	return expires && expiry < height, nil
}
