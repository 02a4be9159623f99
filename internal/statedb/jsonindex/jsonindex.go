// Package jsonindex keeps secondary indexes of JSON documents in the database that holds them, and answers queries.
//
// The documents of one place (a namespace, or a collection of private data) have any number of indexes. An index
// changes in the batch in which its documents change, so that every snapshot of the database has both as of one height. A new index
// is filled bit by bit while commits go on (Build); queries use it from the moment that it is complete.
//
// What a query means, which index serves it, and the order of the results are decided by package jsonquery. The package knows nothing
// of how documents are stored but what a Source says. Everything here is derived data: it may be lost with the database,
// and is made again from the definitions.
//
// Open this file for the layout and the upkeep; query.go reads.
package jsonindex

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hansa-ledger/hansa/internal/jsonquery"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/statedb"
)

// Prefix is the first byte of all keys of this package.
//
//	q  d  namespace  collection  number   state and text of a definition
//	q  p  number                          the key of the document up to which a new index is filled
//	q  e  number  order keys  key         one document's entry; its value is the key
//
// Numbers of indexes have four bytes.
const (
	Prefix         = 'q'
	kindDefinition = 'd'
	kindProgress   = 'p'
	kindEntry      = 'e'
)

const (
	stateBuilding = 0
	stateReady    = 1
)

// MaxPerPlace is the number of indexes that one place may have: each costs at every commit.
const MaxPerPlace = 64

// Source is where the documents of a place are.
type Source struct {
	// Prefix is in front of a document's key.
	Prefix []byte
	// Decode reads what is stored. The result may share its argument.
	Decode func([]byte) (*rwset.VersionedValue, error)
}

// index is one index. It is not changed.
type index struct {
	number uint32
	place  rwset.Place
	ready  bool
	raw    []byte
	*jsonquery.Index
}

func definitionPrefix(p rwset.Place) []byte {
	return statedb.AppendName(statedb.AppendName([]byte{Prefix, kindDefinition}, p.Namespace), p.Collection)
}

func (x *index) definitionKey() []byte {
	return binary.BigEndian.AppendUint32(definitionPrefix(x.place), x.number)
}

func (x *index) progressKey() []byte {
	return binary.BigEndian.AppendUint32([]byte{Prefix, kindProgress}, x.number)
}

func (x *index) entryPrefix(b []byte) []byte {
	return binary.BigEndian.AppendUint32(append(b, Prefix, kindEntry), x.number)
}

// decodeDefinition reads what is stored of an index of a place.
func decodeDefinition(p rwset.Place, number, v []byte) (*index, error) {
	if len(number) != 4 || len(v) == 0 {
		return nil, errors.New("read indexes: a definition is cut short")
	}
	parsed, err := jsonquery.ParseIndex(v[1:])
	if err != nil {
		return nil, fmt.Errorf("read indexes: %w", err)
	}
	return &index{number: binary.BigEndian.Uint32(number), place: p, ready: v[0] == stateReady, raw: bytes.Clone(v[1:]), Index: parsed}, nil
}

// Indexes are the indexes of a database, for those who change it: that they do so one at a time is up to the caller, but for Has.
type Indexes struct {
	places atomic.Pointer[map[rwset.Place][]*index] // replaced, not changed
	next   uint32
	keyer  jsonquery.Keyer
}

// Load reads the indexes of a database.
func Load(r pebble.Reader) (*Indexes, error) {
	x := &Indexes{}
	places := map[rwset.Place][]*index{}
	prefix := []byte{Prefix, kindDefinition}
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: statedb.PrefixEnd(prefix)})
	if err != nil {
		return nil, fmt.Errorf("read indexes: %w", err)
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		ns, rest, ok := statedb.CutName(it.Key()[2:])
		coll, number, ok2 := statedb.CutName(rest)
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, fmt.Errorf("read indexes: %w", err)
		}
		if !ok || !ok2 {
			return nil, fmt.Errorf("read indexes: bad key %x", it.Key())
		}
		one, err := decodeDefinition(rwset.Place{Namespace: ns, Collection: coll}, number, v)
		if err != nil {
			return nil, err
		}
		places[one.place] = append(places[one.place], one)
		x.next = max(x.next, one.number+1)
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("read indexes: %w", err)
	}
	x.places.Store(&places)
	return x, nil
}

// Has tells whether a place has indexes, or with none named any place. Any goroutine may call it.
func (x *Indexes) Has(p rwset.Place) bool { return len((*x.places.Load())[p]) > 0 }

// None tells that there are no indexes at all: nothing is to be done at commits.
func (x *Indexes) None() bool { return len(*x.places.Load()) == 0 }

// Complete tells that no index is to be built. Any goroutine may call it.
func (x *Indexes) Complete() bool {
	for _, all := range *x.places.Load() {
		if slices.ContainsFunc(all, func(o *index) bool { return !o.ready }) {
			return false
		}
	}
	return true
}

// replace publishes the indexes of a place.
func (x *Indexes) replace(p rwset.Place, indexes []*index) {
	places := map[rwset.Place][]*index{}
	for q, all := range *x.places.Load() {
		places[q] = all
	}
	places[p] = indexes
	x.places.Store(&places)
}

// Define adds indexes to a place. One of the same design document and name is replaced, unless it is the same. Invalid definitions
// are left out, which the error tells; new reports that there is something to build.
func (x *Indexes) Define(db *pebble.DB, p rwset.Place, definitions [][]byte) (isNew bool, err error) {
	b := db.NewBatch()
	defer b.Close()
	var faults []error
	all := slices.Clone((*x.places.Load())[p])
	next := x.next
	for _, raw := range definitions {
		parsed, err := jsonquery.ParseIndex(raw)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		at := slices.IndexFunc(all, func(o *index) bool { return o.Design == parsed.Design && o.Name == parsed.Name })
		if at >= 0 {
			if bytes.Equal(all[at].raw, raw) {
				continue
			}
			if err := all[at].drop(b); err != nil {
				return false, err
			}
			all = slices.Delete(all, at, at+1)
		}
		if len(all) == MaxPerPlace {
			faults = append(faults, fmt.Errorf("index %s/%s: there are %d already, which is the most", parsed.Design, parsed.Name, MaxPerPlace))
			continue
		}
		one := &index{number: next, place: p, raw: bytes.Clone(raw), Index: parsed}
		next++
		if err := b.Set(one.definitionKey(), append([]byte{stateBuilding}, raw...), nil); err != nil {
			return false, err
		}
		all, isNew = append(all, one), true
	}
	if b.Empty() {
		return false, errors.Join(faults...)
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return false, errors.Join(append(faults, fmt.Errorf("define indexes: %w", err))...)
	}
	x.next = next
	x.replace(p, all)
	return isNew, errors.Join(faults...)
}

func (x *index) drop(b *pebble.Batch) error {
	entries := x.entryPrefix(nil)
	return errors.Join(b.Delete(x.definitionKey(), nil), b.Delete(x.progressKey(), nil), b.DeleteRange(entries, statedb.PrefixEnd(entries), nil))
}

// Change puts what a document's change means to its indexes into the batch. A value that is nil is none.
func (x *Indexes) Change(b *pebble.Batch, p rwset.Place, key string, before, after []byte) error {
	old, isOld := jsonquery.ParseDocument(key, before)
	doc, isNew := jsonquery.ParseDocument(key, after)
	if !isOld && !isNew {
		return nil
	}
	var was, is []byte
	for _, one := range (*x.places.Load())[p] {
		hadEntry, hasEntry := false, false
		if isOld {
			was, hadEntry = x.entry(was[:0], one, old, key)
		}
		if isNew {
			is, hasEntry = x.entry(is[:0], one, doc, key)
		}
		if hadEntry && hasEntry && bytes.Equal(was, is) {
			// The entry may be missing nevertheless: an index that is being built has not come here.
			hadEntry = false
		}
		var err error
		if hadEntry {
			err = b.Delete(was, nil)
		}
		if hasEntry && err == nil {
			err = b.Set(is, []byte(key), nil)
		}
		if err != nil {
			return fmt.Errorf("write index: %w", err)
		}
	}
	return nil
}

// entry makes the key of a document's entry in an index; false if it has none.
func (x *Indexes) entry(b []byte, one *index, d *jsonquery.Document, key string) ([]byte, bool) {
	b, ok := x.keyer.Append(one.entryPrefix(b), one.Index, d)
	return append(b, key...), ok
}

// Bounds of one step of Build, so that commits do not wait long for it.
const (
	stepDocuments = 500
	stepBytes     = 1 << 20
)

// Build takes the next step in filling an index, and tells whether there are more. Commits may come between steps, not during one.
func (x *Indexes) Build(db *pebble.DB, source func(rwset.Place) Source) (more bool, err error) {
	var one *index
	for _, all := range *x.places.Load() {
		if i := slices.IndexFunc(all, func(o *index) bool { return !o.ready }); i >= 0 {
			one = all[i]
			break
		}
	}
	if one == nil {
		return false, nil
	}
	b := db.NewBatch()
	defer b.Close()
	done, err := x.step(db, b, one, source(one.place))
	if err == nil {
		err = b.Commit(pebble.NoSync)
	}
	if err != nil {
		return false, fmt.Errorf("build index %s/%s of %q: %w", one.Design, one.Name, one.place.Namespace, err)
	}
	if done {
		all := slices.Clone((*x.places.Load())[one.place])
		ready := *one
		ready.ready = true
		all[slices.Index(all, one)] = &ready
		x.replace(one.place, all)
	}
	return true, nil
}

// step writes the entries of some documents behind those that have theirs. Commits take care of documents on both sides: of one
// that this has not come to, an entry is written again, and is the same.
func (x *Indexes) step(db *pebble.DB, b *pebble.Batch, one *index, from Source) (done bool, err error) {
	lower := from.Prefix
	if progress, closer, err := db.Get(one.progressKey()); err == nil {
		lower = append(slices.Concat(from.Prefix, progress), 0)
		if err := closer.Close(); err != nil {
			return false, err
		}
	} else if !errors.Is(err, pebble.ErrNotFound) {
		return false, err
	}
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: statedb.PrefixEnd(from.Prefix)})
	if err != nil {
		return false, err
	}
	defer it.Close()
	var entry []byte
	documents, size, last := 0, 0, ""
	for it.First(); it.Valid(); it.Next() {
		if documents == stepDocuments || size >= stepBytes {
			return false, b.Set(one.progressKey(), []byte(last), nil)
		}
		raw, err := it.ValueAndErr()
		if err != nil {
			return false, err
		}
		v, err := from.Decode(raw)
		if err != nil {
			return false, err
		}
		last = string(it.Key()[len(from.Prefix):])
		documents, size = documents+1, size+len(raw)
		d, ok := jsonquery.ParseDocument(last, v.Value)
		if !ok {
			continue
		}
		if entry, ok = x.entry(entry[:0], one, d, last); ok {
			if err := b.Set(entry, []byte(last), nil); err != nil {
				return false, err
			}
		}
	}
	if err := it.Error(); err != nil {
		return false, err
	}
	return true, errors.Join(b.Delete(one.progressKey(), nil), b.Set(one.definitionKey(), append([]byte{stateReady}, one.raw...), nil))
}
