// Package privatedb keeps the private data of the collections that this node's member belongs to: the current
// values, when they expire, what was purged, what is missing, and what endorsed transactions hold in wait for
// their commit (Transient).
//
// Apply turns one block into changes of that state: a value written at block N with a block-to-live of L goes
// with the commit of block N+L+1, unless it was written again; a metadata-only write renews it. A
// purge removes a key's value and makes Trim strip it from past write sets. All of it is derived from
// the block log, where the write sets themselves lie, and made again from it; only Transient is durable by itself.
//
// The public hashes of the values belong to statedb. Fetching what is missing from other members is not
// done here: Missing lists it for those who do.
package privatedb

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// The database is shared with statedb and ledger; these first bytes of keys are this package's. Names are written with their
// length in front, so that none reaches into another's keys.
//
//	p  namespace  collection  key                                     value
//	k  namespace  collection  hash of the key                         the key, if its value is here
//	e  expiring block  writing block  namespace  collection  hash     expiry schedule
//	g  namespace  collection  hash of the key                         latest purge
//	x  block  transaction  namespace  collection                      missing private data
//	o  namespace  collection  block  transaction                      private data of collections of others
const (
	prefixValue   = 'p'
	prefixKey     = 'k'
	prefixExpiry  = 'e'
	prefixPurge   = 'g'
	prefixMissing = 'x'
	prefixForeign = 'o'
)

func appendName(b []byte, name string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(name))), name...)
}

func cutName(b []byte) (string, []byte, bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return "", nil, false
	}
	return string(b[size : size+int(n)]), b[size+int(n):], true
}

func inCollection(prefix byte, namespace, collection, key string) []byte {
	return append(appendName(appendName([]byte{prefix}, namespace), collection), key...)
}

func blockPrefix(prefix byte, block uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, block)
}

// Data is the private write set of one transaction of a block.
type Data struct {
	Tx  uint64
	Set *rwsetpb.TxPvtReadWriteSet
}

// Missing is a private write set that the block's transaction hashes but this node did not have at commit. Eligible says that
// the member belongs to the collection, and the data should be fetched.
type Missing struct {
	Block, Tx             uint64
	Namespace, Collection string
	Eligible              bool
}

// View reads private data through one Pebble reader, the database or a snapshot. Any number of goroutines may use it.
type View struct{ reader pebble.Reader }

// NewView reads through r.
func NewView(r pebble.Reader) *View { return &View{r} }

// Get gives a private value, nil if it is not here. Whether it is the current one is told by comparing its version with that
// of the key's public hash: a member may lack the data of a later transaction.
func (v *View) Get(namespace, collection, key string) (*rwset.VersionedValue, error) {
	b, err := v.bytes(inCollection(prefixValue, namespace, collection, key))
	if b == nil || err != nil {
		return nil, err
	}
	return decodeValue(b)
}

// bytes gives nil for a missing key, and never nil for one that is there.
func (v *View) bytes(key []byte) ([]byte, error) {
	b, closer, err := v.reader.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read private data: %w", err)
	}
	b = append([]byte{}, b...)
	return b, closer.Close()
}

func encodeValue(version rwset.Version, value []byte) []byte {
	b := binary.AppendUvarint(make([]byte, 0, 20+len(value)), version.Block)
	return append(binary.AppendUvarint(b, version.Tx), value...)
}

func decodeValue(b []byte) (*rwset.VersionedValue, error) {
	block, n := binary.Uvarint(b)
	if n <= 0 {
		return nil, errors.New("private value: cut short in its version")
	}
	tx, m := binary.Uvarint(b[n:])
	if m <= 0 {
		return nil, errors.New("private value: cut short in its version")
	}
	return &rwset.VersionedValue{Value: b[n+m:], Version: rwset.Version{Block: block, Tx: tx}}, nil
}

// Iterator walks private keys in order. It must be closed, and is used by one goroutine.
type Iterator struct {
	it      *pebble.Iterator
	skip    int
	started bool
}

// Range walks the keys of a collection from start to before end; an empty bound is the collection's own.
func (v *View) Range(namespace, collection, start, end string) (*Iterator, error) {
	base := inCollection(prefixValue, namespace, collection, "")
	lower, upper := append(slices.Clone(base), start...), prefixEnd(base)
	if end != "" {
		upper = append(slices.Clone(base), end...)
		if start > end {
			lower = upper
		}
	}
	it, err := v.reader.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, fmt.Errorf("read private range: %w", err)
	}
	return &Iterator{it: it, skip: len(base)}, nil
}

// Prefix is in front of the keys of a collection's values in the database, for those who index them; DecodeValue reads what is stored.
func Prefix(namespace, collection string) []byte {
	return inCollection(prefixValue, namespace, collection, "")
}

// DecodeValue reads a stored value. The result shares b.
func DecodeValue(b []byte) (*rwset.VersionedValue, error) { return decodeValue(b) }

// Next gives the next key and its value; ok is false at the end.
func (i *Iterator) Next() (key string, value *rwset.VersionedValue, ok bool, err error) {
	if !i.started {
		i.started, ok = true, i.it.First()
	} else {
		ok = i.it.Next()
	}
	if !ok {
		return "", nil, false, i.it.Error()
	}
	b, err := i.it.ValueAndErr()
	if err == nil {
		value, err = decodeValue(slices.Clone(b))
	}
	if err != nil {
		return "", nil, false, fmt.Errorf("read private range: %w", err)
	}
	return string(i.it.Key()[i.skip:]), value, true, nil
}

// Close frees the iterator.
func (i *Iterator) Close() error { return i.it.Close() }

// Places lists the collections with values, sorted by namespace and name.
func (v *View) Places() ([]rwset.Place, error) { return v.places(prefixValue) }

func (v *View) places(prefix byte) ([]rwset.Place, error) {
	it, err := v.reader.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
	if err != nil {
		return nil, fmt.Errorf("list collections: %w", err)
	}
	defer it.Close()
	var places []rwset.Place
	for ok := it.First(); ok; {
		ns, rest, good := cutName(it.Key()[1:])
		coll, _, good2 := cutName(rest)
		if !good || !good2 {
			return nil, fmt.Errorf("list collections: bad key %x", it.Key())
		}
		places = append(places, rwset.Place{Namespace: ns, Collection: coll})
		ok = it.SeekGE(prefixEnd(inCollection(prefix, ns, coll, "")))
	}
	sort.Slice(places, func(i, j int) bool {
		a, b := places[i], places[j]
		return a.Namespace < b.Namespace || a.Namespace == b.Namespace && a.Collection < b.Collection
	})
	return places, it.Error()
}

// Missing lists up to limit private write sets that this node should have but has not, the newest first.
func (v *View) Missing(limit int) ([]Missing, error) { return v.MissingBelow(math.MaxUint64, limit) }

// MissingBelow is Missing for the blocks below one.
func (v *View) MissingBelow(block uint64, limit int) ([]Missing, error) {
	it, err := v.reader.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixMissing}, UpperBound: blockPrefix(prefixMissing, block)})
	if err != nil {
		return nil, fmt.Errorf("list missing private data: %w", err)
	}
	defer it.Close()
	var all []Missing
	for ok := it.Last(); ok && len(all) < limit; ok = it.Prev() {
		k := it.Key()
		if len(k) < 17 {
			return nil, fmt.Errorf("list missing private data: bad key %x", k)
		}
		ns, rest, good := cutName(k[17:])
		coll, _, good2 := cutName(rest)
		if !good || !good2 {
			return nil, fmt.Errorf("list missing private data: bad key %x", k)
		}
		all = append(all, Missing{Block: binary.BigEndian.Uint64(k[1:]), Tx: binary.BigEndian.Uint64(k[9:]), Namespace: ns, Collection: coll, Eligible: true})
	}
	return all, it.Error()
}

func prefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

// Trim takes from a past write set what has been purged since: the writes of a key up to its latest purge. The trimmed set no
// longer matches its public hash. The set given is not changed.
func (v *View) Trim(version rwset.Version, set *rwsetpb.TxPvtReadWriteSet) (*rwsetpb.TxPvtReadWriteSet, error) {
	decoded, err := rwset.ParsePrivate(set)
	if err != nil {
		return nil, err
	}
	var out *rwsetpb.TxPvtReadWriteSet
	for _, c := range decoded.Collections {
		kept := make([]*kvrwsetpb.KVWrite, 0, len(c.KV.Writes))
		for _, w := range c.KV.Writes {
			b, err := v.bytes(inCollection(prefixPurge, c.Namespace, c.Name, string(rwset.KeyHash(w.Key))))
			if err != nil {
				return nil, err
			}
			if b != nil {
				if p, err := decodeValue(b); err != nil {
					return nil, err
				} else if version.Compare(p.Version) <= 0 {
					continue
				}
			}
			kept = append(kept, w)
		}
		if len(kept) == len(c.KV.Writes) {
			continue
		}
		if out == nil {
			out = proto.Clone(set).(*rwsetpb.TxPvtReadWriteSet)
		}
		c.KV.Writes = kept
		raw, err := proto.Marshal(c.KV)
		if err != nil {
			return nil, fmt.Errorf("trim private write set: %w", err)
		}
		replace(out, c.Namespace, c.Name, raw)
	}
	if out == nil {
		return set, nil
	}
	return out, nil
}

func replace(set *rwsetpb.TxPvtReadWriteSet, namespace, collection string, raw []byte) {
	for _, n := range set.NsPvtRwset {
		for _, c := range n.CollectionPvtRwset {
			if n.Namespace == namespace && c.CollectionName == collection {
				c.Rwset = raw
			}
		}
	}
}

// CheckHashes compares private write sets with the hashes in the public results of their transaction.
func CheckHashes(set *rwsetpb.TxPvtReadWriteSet, public *rwset.Set) error {
	for _, n := range set.GetNsPvtRwset() {
		for _, c := range n.CollectionPvtRwset {
			sum := sha256.Sum256(c.Rwset)
			if !bytes.Equal(sum[:], public.PvtHash(n.Namespace, c.CollectionName)) {
				return fmt.Errorf("private data of collection %q of namespace %q does not match the hash in the transaction", c.CollectionName, n.Namespace)
			}
		}
	}
	return nil
}

// expiryOf is the block with which a value written in the block goes, false if it stays.
func expiryOf(block, blockToLive uint64) (uint64, bool) {
	if blockToLive == 0 || block > math.MaxUint64-1-blockToLive {
		return 0, false
	}
	return block + blockToLive + 1, true
}
