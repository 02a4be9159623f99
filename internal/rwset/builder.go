package rwset

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// Builder records what a simulation reads and writes, and gives it as the bytes that all endorsers must agree
// on: namespaces, keys and collections sorted, range queries in the order of the calls, a later write of a key
// in place of an earlier one. Which version a repeated read reports is the caller's business; the last counts.
// One goroutine uses it at a time.
type Builder struct {
	public  map[string]*publicSet
	private map[string]map[string]*privateSet
}

type publicSet struct {
	reads    map[string]*kvrwsetpb.KVRead
	writes   map[string]*kvrwsetpb.KVWrite
	metadata map[string]*kvrwsetpb.KVMetadataWrite
	ranges   []*kvrwsetpb.RangeQueryInfo
	seen     map[rangeKey]bool
	hashed   map[string]*hashedSet
}

type rangeKey struct {
	start, end string
	exhausted  bool
}

type hashedSet struct {
	reads    map[string]*kvrwsetpb.KVReadHash
	writes   map[string]*kvrwsetpb.KVWriteHash
	metadata map[string]*kvrwsetpb.KVMetadataWriteHash
	pvtHash  []byte
}

type privateSet struct {
	writes   map[string]*kvrwsetpb.KVWrite
	metadata map[string]*kvrwsetpb.KVMetadataWrite
}

// NewBuilder gives an empty builder.
func NewBuilder() *Builder {
	return &Builder{public: map[string]*publicSet{}, private: map[string]map[string]*privateSet{}}
}

func (b *Builder) at(ns string) *publicSet {
	s := b.public[ns]
	if s == nil {
		s = &publicSet{
			reads: map[string]*kvrwsetpb.KVRead{}, writes: map[string]*kvrwsetpb.KVWrite{}, metadata: map[string]*kvrwsetpb.KVMetadataWrite{},
			hashed: map[string]*hashedSet{},
		}
		b.public[ns] = s
	}
	return s
}

func (b *Builder) hashedAt(ns, coll string) *hashedSet {
	s := b.at(ns)
	h := s.hashed[coll]
	if h == nil {
		h = &hashedSet{reads: map[string]*kvrwsetpb.KVReadHash{}, writes: map[string]*kvrwsetpb.KVWriteHash{}, metadata: map[string]*kvrwsetpb.KVMetadataWriteHash{}}
		s.hashed[coll] = h
	}
	return h
}

func (b *Builder) privateAt(ns, coll string) *privateSet {
	colls := b.private[ns]
	if colls == nil {
		colls = map[string]*privateSet{}
		b.private[ns] = colls
	}
	p := colls[coll]
	if p == nil {
		p = &privateSet{writes: map[string]*kvrwsetpb.KVWrite{}, metadata: map[string]*kvrwsetpb.KVMetadataWrite{}}
		colls[coll] = p
	}
	return p
}

// AddRead records that a key was read at a version, nil if it did not exist.
func (b *Builder) AddRead(ns, key string, v *Version) {
	b.at(ns).reads[key] = &kvrwsetpb.KVRead{Key: key, Version: v.Proto()}
}

// AddWrite records a put, or with an empty value a delete.
func (b *Builder) AddWrite(ns, key string, value []byte) {
	b.at(ns).writes[key] = &kvrwsetpb.KVWrite{Key: key, IsDelete: len(value) == 0, Value: value}
}

// AddMetadataWrite records the key's whole new metadata; none removes it.
func (b *Builder) AddMetadataWrite(ns, key string, metadata map[string][]byte) {
	b.at(ns).metadata[key] = &kvrwsetpb.KVMetadataWrite{Key: key, Entries: entries(metadata)}
}

func entries(metadata map[string][]byte) []*kvrwsetpb.KVMetadataEntry {
	var e []*kvrwsetpb.KVMetadataEntry
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		e = append(e, &kvrwsetpb.KVMetadataEntry{Name: name, Value: metadata[name]})
	}
	return e
}

// AddRangeQuery records a finished range query (see RangeResults.Finish). Of queries with the same bounds and
// the same exhaustion the first counts.
func (b *Builder) AddRangeQuery(ns string, q *kvrwsetpb.RangeQueryInfo) {
	s, key := b.at(ns), rangeKey{q.StartKey, q.EndKey, q.ItrExhausted}
	if s.seen[key] {
		return
	}
	if s.seen == nil {
		s.seen = map[rangeKey]bool{}
	}
	s.seen[key] = true
	s.ranges = append(s.ranges, q)
}

// AddHashedRead records that a private key was read at a version, nil if it did not exist.
func (b *Builder) AddHashedRead(ns, coll, key string, v *Version) {
	b.hashedAt(ns, coll).reads[key] = &kvrwsetpb.KVReadHash{KeyHash: KeyHash(key), Version: v.Proto()}
}

// AddPrivateWrite records a put of a private key, or with an empty value a delete.
func (b *Builder) AddPrivateWrite(ns, coll, key string, value []byte) {
	b.addPrivate(ns, coll, key, value, false)
}

// AddPrivatePurge records that a private key is to be deleted with all its past.
func (b *Builder) AddPrivatePurge(ns, coll, key string) { b.addPrivate(ns, coll, key, nil, true) }

func (b *Builder) addPrivate(ns, coll, key string, value []byte, purge bool) {
	w := &kvrwsetpb.KVWrite{Key: key, IsDelete: len(value) == 0, Value: value}
	h := &kvrwsetpb.KVWriteHash{KeyHash: KeyHash(key), IsDelete: w.IsDelete, IsPurge: purge}
	if !w.IsDelete {
		sum := sha256.Sum256(value)
		h.ValueHash = sum[:]
	}
	b.privateAt(ns, coll).writes[key] = w
	b.hashedAt(ns, coll).writes[key] = h
}

// AddPrivateMetadataWrite records a private key's whole new metadata, which is public under the key's hash. The
// private side names the key alone: members need it to renew their value's version.
func (b *Builder) AddPrivateMetadataWrite(ns, coll, key string, metadata map[string][]byte) {
	b.privateAt(ns, coll).metadata[key] = &kvrwsetpb.KVMetadataWrite{Key: key}
	b.hashedAt(ns, coll).metadata[key] = &kvrwsetpb.KVMetadataWriteHash{KeyHash: KeyHash(key), Entries: entries(metadata)}
}

// Results gives the public results as they enter the chaincode action, and the private write sets, nil if there
// are none. It may be called once, when the simulation is over.
func (b *Builder) Results() (public []byte, private *rwsetpb.TxPvtReadWriteSet, err error) {
	if len(b.private) > 0 {
		private = &rwsetpb.TxPvtReadWriteSet{DataModel: rwsetpb.TxReadWriteSet_KV}
	}
	for _, ns := range slices.Sorted(maps.Keys(b.private)) {
		p := &rwsetpb.NsPvtReadWriteSet{Namespace: ns}
		for _, coll := range slices.Sorted(maps.Keys(b.private[ns])) {
			s := b.private[ns][coll]
			raw, err := proto.Marshal(&kvrwsetpb.KVRWSet{Writes: sorted(s.writes), MetadataWrites: sorted(s.metadata)})
			if err != nil {
				return nil, nil, fmt.Errorf("encode private write set of collection %q of namespace %q: %w", coll, ns, err)
			}
			sum := sha256.Sum256(raw)
			b.hashedAt(ns, coll).pvtHash = sum[:]
			p.CollectionPvtRwset = append(p.CollectionPvtRwset, &rwsetpb.CollectionPvtReadWriteSet{CollectionName: coll, Rwset: raw})
		}
		private.NsPvtRwset = append(private.NsPvtRwset, p)
	}
	tx := &rwsetpb.TxReadWriteSet{DataModel: rwsetpb.TxReadWriteSet_KV}
	for _, ns := range slices.Sorted(maps.Keys(b.public)) {
		s := b.public[ns]
		n := &rwsetpb.NsReadWriteSet{Namespace: ns}
		n.Rwset, err = proto.Marshal(&kvrwsetpb.KVRWSet{
			Reads: sorted(s.reads), RangeQueriesInfo: s.ranges, Writes: sorted(s.writes), MetadataWrites: sorted(s.metadata),
		})
		if err != nil {
			return nil, nil, fmt.Errorf("encode read-write set of namespace %q (keys must be valid UTF-8): %w", ns, err)
		}
		for _, coll := range slices.Sorted(maps.Keys(s.hashed)) {
			h := s.hashed[coll]
			raw, err := proto.Marshal(&kvrwsetpb.HashedRWSet{HashedReads: sorted(h.reads), HashedWrites: sorted(h.writes), MetadataWrites: sorted(h.metadata)})
			if err != nil {
				return nil, nil, fmt.Errorf("encode hashed read-write set of collection %q of namespace %q: %w", coll, ns, err)
			}
			n.CollectionHashedRwset = append(n.CollectionHashedRwset, &rwsetpb.CollectionHashedReadWriteSet{CollectionName: coll, HashedRwset: raw, PvtRwsetHash: h.pvtHash})
		}
		tx.NsRwset = append(tx.NsRwset, n)
	}
	if public, err = proto.Marshal(tx); err != nil {
		return nil, nil, fmt.Errorf("encode read-write set: %w", err)
	}
	return public, private, nil
}

// sorted gives a map's values in the order of its keys. Hashed entries are ordered by the keys themselves, not
// by their hashes.
func sorted[K cmp.Ordered, V any](m map[K]V) []V {
	if len(m) == 0 {
		return nil
	}
	values := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		values = append(values, m[k])
	}
	return values
}
