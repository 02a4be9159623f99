// Package statedb is the state of a channel as versioned keys on Pebble: public keys of every namespace, the hashed
// collections, and the history of public keys.
//
// A State reads one consistent view, either the database as it is or a snapshot of it; it implements
// rwset.State. Writes are put into a batch that the caller commits together with whatever must be
// consistent with them. The package holds no durability promise of its own: what is here is derived from the
// block log and made again from it (package ledger).
//
// Keys are ordered as Fabric orders them, bytewise within a namespace. The range of a query includes its start
// and excludes its end; an empty start or end means the namespace's own.
//
// It leaves out private values (privatedb). Queries by content are in its subfolders: jsonquery is the language, jsonindex the indexes.
// Open keys.go for the layout.
package statedb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hansa-ledger/hansa/internal/rwset"
)

// Hints say which key spaces ever held metadata, so that most reads of metadata need no look into the database. A hint is
// never taken back; one that is older than a snapshot or newer is as good.
type Hints struct {
	mu     sync.Mutex // held to change places
	places atomic.Pointer[map[rwset.Place]bool]
}

// LoadHints reads the hints of a database.
func LoadHints(r pebble.Reader) (*Hints, error) {
	h := &Hints{}
	places := map[rwset.Place]bool{}
	prefix := []byte{prefixHint}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: PrefixEnd(prefix)})
	if err != nil {
		return nil, fmt.Errorf("read metadata hints: %w", err)
	}
	for it.First(); it.Valid(); it.Next() {
		ns, rest, ok := CutName(it.Key()[1:])
		coll, _, ok2 := CutName(rest)
		if !ok || !ok2 {
			return nil, errors.Join(fmt.Errorf("read metadata hints: bad key %x", it.Key()), it.Close())
		}
		places[rwset.Place{Namespace: ns, Collection: coll}] = true
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return nil, fmt.Errorf("read metadata hints: %w", err)
	}
	h.places.Store(&places)
	return h, nil
}

func (h *Hints) has(p rwset.Place) bool { return (*h.places.Load())[p] }

func (h *Hints) add(p rwset.Place, b *pebble.Batch) error {
	if h.has(p) {
		return nil
	}
	if err := b.Set(appendPlace([]byte{prefixHint}, p), nil, nil); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	places := map[rwset.Place]bool{p: true}
	for q := range *h.places.Load() {
		places[q] = true
	}
	h.places.Store(&places)
	return nil
}

// State reads the state through one Pebble reader. Any number of goroutines may use it. The values it gives are copies that
// belong to the caller.
type State struct {
	reader pebble.Reader
	hints  *Hints
}

var _ rwset.State = (*State)(nil)

// New reads through r.
func New(r pebble.Reader, h *Hints) *State { return &State{r, h} }

// Get gives a public key's value, nil if there is none.
func (s *State) Get(namespace, key string) (*rwset.VersionedValue, error) {
	return s.get(appendPublic(make([]byte, 0, 64), namespace, key))
}

// GetHash gives the hash of a private value by the hash of its key, nil if there is none.
func (s *State) GetHash(namespace, collection string, keyHash []byte) (*rwset.VersionedValue, error) {
	return s.get(appendHashed(make([]byte, 0, 96), namespace, collection, keyHash))
}

func (s *State) get(key []byte) (*rwset.VersionedValue, error) {
	b, closer, err := s.reader.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	v, err := DecodeValue(slices.Clone(b))
	if err = errors.Join(err, closer.Close()); err != nil {
		return nil, fmt.Errorf("read state, key %x: %w", key, err)
	}
	return v, nil
}

// Metadata gives a public key's metadata, nil if there is none.
func (s *State) Metadata(namespace, key string) ([]byte, error) {
	if !s.hints.has(rwset.Place{Namespace: namespace}) {
		return nil, nil
	}
	return metadataOf(s.Get(namespace, key))
}

// HashMetadata is Metadata for a key of a hashed collection.
func (s *State) HashMetadata(namespace, collection string, keyHash []byte) ([]byte, error) {
	if !s.hints.has(rwset.Place{Namespace: namespace, Collection: collection}) {
		return nil, nil
	}
	return metadataOf(s.GetHash(namespace, collection, keyHash))
}

func metadataOf(v *rwset.VersionedValue, err error) ([]byte, error) {
	if v == nil || err != nil {
		return nil, err
	}
	return v.Metadata, nil
}

// Iterator walks keys in order. It must be closed, and is used by one goroutine.
type Iterator struct {
	it      *pebble.Iterator
	skip    int
	started bool
}

// Range walks the public keys of a namespace from start to before end.
func (s *State) Range(namespace, start, end string) (*Iterator, error) {
	base := appendPublic(nil, namespace, "")
	return newIterator(s.reader, base, start, end)
}

// HashRange walks the key hashes of a hashed collection.
func (s *State) HashRange(namespace, collection string) (*Iterator, error) {
	return s.HashRangeFrom(namespace, collection, nil)
}

// HashRangeFrom is HashRange from a key hash on.
func (s *State) HashRangeFrom(namespace, collection string, start []byte) (*Iterator, error) {
	return newIterator(s.reader, appendHashed(nil, namespace, collection, nil), string(start), "")
}

func newIterator(r pebble.Reader, base []byte, start, end string) (*Iterator, error) {
	upper := PrefixEnd(base)
	if end != "" {
		upper = append(slices.Clone(base), end...)
	}
	lower := append(slices.Clone(base), start...)
	if end != "" && start > end {
		lower = upper
	}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("read state range: %w", err)
	}
	return &Iterator{it: it, skip: len(base)}, nil
}

// Next gives the next key and its value; ok is false at the end.
func (i *Iterator) Next() (key string, v *rwset.VersionedValue, ok bool, err error) {
	if !i.started {
		i.started = true
		ok = i.it.First()
	} else {
		ok = i.it.Next()
	}
	if !ok {
		if err := i.it.Error(); err != nil {
			return "", nil, false, fmt.Errorf("read state range: %w", err)
		}
		return "", nil, false, nil
	}
	b, err := i.it.ValueAndErr()
	if err == nil {
		v, err = DecodeValue(slices.Clone(b))
	}
	if err != nil {
		return "", nil, false, fmt.Errorf("read state range, key %x: %w", i.it.Key(), err)
	}
	return string(i.it.Key()[i.skip:]), v, true, nil
}

// Close frees the iterator.
func (i *Iterator) Close() error { return i.it.Close() }

// Prefix is in front of the public keys of a namespace in the database, for those who index them; DecodeValue reads what is stored.
func Prefix(namespace string) []byte { return appendPublic(nil, namespace, "") }

// Places lists the key spaces that hold anything, sorted: all public ones, or all hashed collections.
func (s *State) Places(hashed bool) ([]rwset.Place, error) {
	prefix := byte(prefixPublic)
	if hashed {
		prefix = prefixHashed
	}
	it, err := s.reader.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	defer it.Close()
	var places []rwset.Place
	for ok := it.First(); ok; {
		var p rwset.Place
		rest, good := it.Key()[1:], false
		if p.Namespace, rest, good = CutName(rest); good && hashed {
			p.Collection, rest, good = CutName(rest)
		}
		if !good {
			return nil, fmt.Errorf("list namespaces: bad key %x", it.Key())
		}
		places = append(places, p)
		ok = it.SeekGE(PrefixEnd(it.Key()[:len(it.Key())-len(rest)]))
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	return places, nil
}

// Write puts a block's updates into a batch.
func Write(b *pebble.Batch, u *rwset.Updates, h *Hints) error {
	var key, value []byte
	for _, p := range u.Places() {
		key = key[:0]
		if p.Collection == "" {
			key = appendPublic(key, p.Namespace, "")
		} else {
			key = appendHashed(key, p.Namespace, p.Collection, nil)
		}
		base := len(key)
		for _, up := range u.At(p) {
			key = append(key[:base], up.Key...)
			var err error
			if up.Delete {
				err = b.Delete(key, nil)
			} else {
				value = AppendValue(value[:0], rwset.VersionedValue{Value: up.Value, Metadata: up.Metadata, Version: up.Version})
				err = b.Set(key, value, nil)
			}
			if err == nil && len(up.Metadata) > 0 {
				err = h.add(p, b)
			}
			if err != nil {
				return fmt.Errorf("write state: %w", err)
			}
		}
	}
	return nil
}

// DeleteHash removes a key of a hashed collection, as block-to-live does.
func DeleteHash(b *pebble.Batch, namespace, collection string, keyHash []byte) error {
	return b.Delete(appendHashed(nil, namespace, collection, keyHash), nil)
}

// AppendValue encodes a value: block, transaction and length of the metadata as varints, metadata, value.
func AppendValue(b []byte, v rwset.VersionedValue) []byte {
	b = binary.AppendUvarint(b, v.Version.Block)
	b = binary.AppendUvarint(b, v.Version.Tx)
	b = binary.AppendUvarint(b, uint64(len(v.Metadata)))
	return append(append(b, v.Metadata...), v.Value...)
}

// DecodeValue is the inverse of AppendValue. The result shares b.
func DecodeValue(b []byte) (*rwset.VersionedValue, error) {
	var n [3]uint64
	for i := range n {
		x, size := binary.Uvarint(b)
		if size <= 0 {
			return nil, errors.New("state value: cut short in its version")
		}
		n[i], b = x, b[size:]
	}
	if n[2] > uint64(len(b)) {
		return nil, fmt.Errorf("state value: metadata of %d bytes, %d are left", n[2], len(b))
	}
	v := &rwset.VersionedValue{Version: rwset.Version{Block: n[0], Tx: n[1]}, Value: b[n[2]:]}
	if n[2] > 0 {
		v.Metadata = b[:n[2]:n[2]]
	}
	return v, nil
}
