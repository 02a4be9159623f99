package privatedb

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Block is what Apply needs to know of one.
type Block struct {
	Updates *rwset.Updates
	// Data are the private write sets of the block's valid transactions, as far as they are here, in the order of
	// the transactions. Their hashes have been checked.
	Data    []Data
	Missing []Missing
	// State is the state before the block.
	State rwset.State
	// Changed is told of every value that changes, before and after, nil for none; nil for nobody.
	Changed func(namespace, collection, key string, before, after []byte) error
}

// ExpiredHash is a key of a hashed collection whose time is over; the caller removes it from the public state.
type ExpiredHash struct {
	Namespace, Collection string
	KeyHash               []byte
}

type privateKey struct{ namespace, collection, key string }

type privateUpdate struct {
	value   []byte
	version rwset.Version
	delete  bool
}

// Apply puts a block's changes of private data into the batch and gives the public hashes that expire with the block.
func (v *View) Apply(b *pebble.Batch, in Block) ([]ExpiredHash, error) {
	a := &applying{View: v, batch: b, Block: in, number: in.Updates.Block(), updates: map[privateKey]*privateUpdate{}, lives: map[rwset.Place]uint64{}}
	if err := errors.Join(a.collect(), a.schedule()); err != nil {
		return nil, err
	}
	expired, err := a.expire()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(a.purge(), a.write()); err != nil {
		return nil, err
	}
	return expired, nil
}

type applying struct {
	*View
	Block
	batch   *pebble.Batch
	number  uint64
	updates map[privateKey]*privateUpdate
	lives   map[rwset.Place]uint64
}

// collect joins the write sets. A private value whose key saw a metadata-only write takes the version of
// its public hash, if it is the value that was hashed: else readers would take it for stale.
func (a *applying) collect() error {
	renewed := map[privateKey]bool{}
	for _, d := range a.Data {
		set, err := rwset.ParsePrivate(d.Set)
		if err != nil {
			return fmt.Errorf("block %d, transaction %d: %w", a.number, d.Tx, err)
		}
		for _, c := range set.Collections {
			for _, w := range c.KV.Writes {
				a.updates[privateKey{c.Namespace, c.Name, w.Key}] = &privateUpdate{
					value: w.Value, version: rwset.Version{Block: a.number, Tx: d.Tx}, delete: rwset.IsDelete(w),
				}
			}
			for _, w := range c.KV.MetadataWrites {
				renewed[privateKey{c.Namespace, c.Name, w.Key}] = true
			}
		}
	}
	for k := range renewed {
		hashed := a.Updates.GetHash(k.namespace, k.collection, rwset.KeyHash(k.key))
		if hashed == nil || hashed.Delete {
			continue
		}
		latest := a.updates[k]
		if latest == nil {
			stored, err := a.Get(k.namespace, k.collection, k.key)
			if err != nil {
				return err
			}
			if stored == nil {
				continue
			}
			latest = &privateUpdate{value: stored.Value, version: stored.Version}
		}
		sum := sha256.Sum256(latest.value)
		if !latest.delete && latest.version != hashed.Version && bytes.Equal(sum[:], hashed.Value) {
			a.updates[k] = &privateUpdate{value: latest.value, version: hashed.Version}
		}
	}
	return nil
}

func (a *applying) schedule() error {
	add := func(namespace, collection string, keyHash []byte) error {
		p := rwset.Place{Namespace: namespace, Collection: collection}
		live, known := a.lives[p]
		if !known {
			var err error
			if live, err = BlockToLive(a.State, namespace, collection); err != nil {
				return err
			}
			a.lives[p] = live
		}
		expiry, expires := expiryOf(a.number, live)
		if !expires {
			return nil
		}
		key := binary.BigEndian.AppendUint64(blockPrefix(prefixExpiry, expiry), a.number)
		return a.batch.Set(append(appendName(appendName(key, namespace), collection), keyHash...), nil, nil)
	}
	for _, p := range a.Updates.Places() {
		if p.Collection == "" {
			continue
		}
		for _, up := range a.Updates.At(p) {
			if up.Delete {
				continue
			}
			if err := add(p.Namespace, p.Collection, []byte(up.Key)); err != nil {
				return err
			}
		}
	}
	for k, up := range a.updates {
		if up.delete {
			continue
		}
		if err := add(k.namespace, k.collection, rwset.KeyHash(k.key)); err != nil {
			return err
		}
	}
	return nil
}

// expire removes what was written so long ago and not since. An entry whose public hash has a later version may
// still have its own private value here (that of the later one is missing), which goes alone.
func (a *applying) expire() ([]ExpiredHash, error) {
	prefix := blockPrefix(prefixExpiry, a.number)
	it, err := a.reader.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return nil, fmt.Errorf("read expiry schedule: %w", err)
	}
	defer it.Close()
	var expired []ExpiredHash
	for it.First(); it.Valid(); it.Next() {
		k := bytes.Clone(it.Key())
		if err := a.batch.Delete(k, nil); err != nil {
			return nil, err
		}
		if len(k) < 17 {
			return nil, fmt.Errorf("read expiry schedule: bad key %x", k)
		}
		written := binary.BigEndian.Uint64(k[9:])
		ns, rest, ok := cutName(k[17:])
		coll, hash, ok2 := cutName(rest)
		if !ok || !ok2 {
			return nil, fmt.Errorf("read expiry schedule: bad key %x", k)
		}
		current, err := a.State.GetHash(ns, coll, hash)
		if err != nil {
			return nil, err
		}
		hashToo := current != nil && current.Version.Block == written
		if hashToo && a.Updates.GetHash(ns, coll, hash) == nil {
			expired = append(expired, ExpiredHash{ns, coll, hash})
		}
		key, err := a.keyOf(ns, coll, hash)
		if err != nil {
			return nil, err
		}
		if key == nil {
			continue
		}
		value, err := a.Get(ns, coll, string(key))
		if err != nil {
			return nil, err
		}
		if hashToo || value != nil && value.Version.Block == written {
			a.drop(privateKey{ns, coll, string(key)})
		}
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("read expiry schedule: %w", err)
	}
	return expired, nil
}

// keyOf gives the private key behind a hash, nil if its value is not here.
func (a *applying) keyOf(ns, coll string, hash []byte) ([]byte, error) {
	return a.bytes(inCollection(prefixKey, ns, coll, string(hash)))
}

// drop deletes a value unless the block writes it.
func (a *applying) drop(k privateKey) {
	if a.updates[k] == nil {
		a.updates[k] = &privateUpdate{delete: true}
	}
}

// purge takes out what was purged, also what the block itself wrote before: the private write set of the purge, which would
// delete it, may be missing.
func (a *applying) purge() error {
	for _, p := range a.Updates.Purges() {
		for k, up := range a.updates {
			if k.namespace == p.Namespace && k.collection == p.Collection && up.version.Compare(p.Version) < 0 && bytes.Equal(rwset.KeyHash(k.key), p.KeyHash) {
				a.updates[k] = &privateUpdate{delete: true}
			}
		}
		marker := inCollection(prefixPurge, p.Namespace, p.Collection, string(p.KeyHash))
		if err := a.batch.Set(marker, encodeValue(p.Version, nil), nil); err != nil {
			return err
		}
		key, err := a.keyOf(p.Namespace, p.Collection, p.KeyHash)
		if err != nil {
			return err
		}
		if key != nil {
			a.drop(privateKey{p.Namespace, p.Collection, string(key)})
		}
	}
	return nil
}

func (a *applying) write() error {
	for k, up := range a.updates {
		value := inCollection(prefixValue, k.namespace, k.collection, k.key)
		index := inCollection(prefixKey, k.namespace, k.collection, string(rwset.KeyHash(k.key)))
		var err error
		if up.delete {
			err = errors.Join(a.batch.Delete(value, nil), a.batch.Delete(index, nil))
		} else {
			err = errors.Join(a.batch.Set(value, encodeValue(up.version, up.value), nil), a.batch.Set(index, []byte(k.key), nil))
		}
		if err == nil && a.Changed != nil {
			err = a.tell(k, up)
		}
		if err != nil {
			return fmt.Errorf("write private data: %w", err)
		}
	}
	for _, m := range a.Block.Missing {
		m.Block = a.number
		key := missingKey(m)
		if !m.Eligible {
			if key = foreignKey(m); key == nil {
				continue
			}
		}
		if err := a.batch.Set(key, nil, nil); err != nil {
			return fmt.Errorf("write private data: %w", err)
		}
	}
	return nil
}

// tell reports a change.
func (a *applying) tell(k privateKey, up *privateUpdate) error {
	stored, err := a.Get(k.namespace, k.collection, k.key)
	if err != nil {
		return err
	}
	var before, after []byte
	if stored != nil {
		before = stored.Value
	}
	if !up.delete {
		after = up.value
	}
	return a.Changed(k.namespace, k.collection, k.key, before, after)
}

// BlockToLive is the number of blocks that a collection's values live, 0 for ever. It is read from the contract's committed
// definition, "namespaces/fields/<contract>/Collections" in the namespace "_lifecycle". A collection without a definition,
// and a member's implicit one, live for ever.
func BlockToLive(state rwset.State, namespace, collection string) (uint64, error) {
	v, err := state.Get("_lifecycle", "namespaces/fields/"+namespace+"/Collections")
	if v == nil || err != nil {
		return 0, err
	}
	var data lifecyclepb.StateData
	var configs peerpb.CollectionConfigPackage
	if proto.Unmarshal(v.Value, &data) != nil || proto.Unmarshal(data.GetBytes(), &configs) != nil {
		// Only the lifecycle contract writes here. Should it be unreadable all the same, all nodes see it alike.
		return 0, nil
	}
	for _, c := range configs.Config {
		if s := c.GetStaticCollectionConfig(); s != nil && s.Name == collection {
			return s.BlockToLive, nil
		}
	}
	return 0, nil
}
