package privatedb

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

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

func missingKey(m Missing) []byte {
	key := binary.BigEndian.AppendUint64(blockPrefix(prefixMissing, m.Block), m.Tx)
	return appendName(appendName(key, m.Namespace), m.Collection)
}

// Settle takes a private write set off the list of what is missing.
func Settle(b *pebble.Batch, m Missing) error { return b.Delete(missingKey(m), nil) }

// foreignKey is where private data of a collection that the member does not belong to is noted, for the day that it does; nil if
// that cannot come, since the collection is another member's own.
func foreignKey(m Missing) []byte {
	if strings.HasPrefix(m.Collection, "_implicit_org_") {
		return nil
	}
	key := inCollection(prefixForeign, m.Namespace, m.Collection, "")
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(key, m.Block), m.Tx)
}

// Foreign lists the collections of which private data was committed that the member does not have since it did not belong to them.
func (v *View) Foreign() ([]rwset.Place, error) { return v.places(prefixForeign) }

// Adopt puts the private data of a collection that the member belongs to now on the list of what is missing; at most limit write sets, so
// it is to be called until moved is less.
func (v *View) Adopt(b *pebble.Batch, at rwset.Place, limit int) (moved int, err error) {
	prefix := inCollection(prefixForeign, at.Namespace, at.Collection, "")
	it, err := v.reader.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return 0, fmt.Errorf("list private data of others: %w", err)
	}
	for ok := it.First(); ok && moved < limit && err == nil; ok = it.Next() {
		key := bytes.Clone(it.Key())
		if len(key) != len(prefix)+16 {
			err = fmt.Errorf("list private data of others: bad key %x", key)
			break
		}
		m := Missing{Block: binary.BigEndian.Uint64(key[len(prefix):]), Tx: binary.BigEndian.Uint64(key[len(prefix)+8:]), Namespace: at.Namespace, Collection: at.Collection}
		err = errors.Join(b.Set(missingKey(m), nil, nil), b.Delete(key, nil))
		moved++
	}
	return moved, errors.Join(err, it.Error(), it.Close())
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
