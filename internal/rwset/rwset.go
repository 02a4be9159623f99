// Package rwset is the read-write set: what a transaction read and wrote, and what its writes do to the state.
//
// It holds the four things that must come out identical on every node of a channel: the bytes a simulation
// produces (Builder), their decoded form (Parse), the summary of a range query that validation compares with
// (RangeResults), and the effect of the valid transactions of one block on the state together with the bytes
// of that effect that enter the commit hash (Updates). All of it is pure: the state is read through the small
// interface State, so that validation, replay after a crash and offline verification share one derivation.
//
// It leaves out the verdict on a transaction (package validate) and storing anything (package ledger).
//
// Open updates.go first for how writes become state, builder.go for how a simulation becomes bytes.
package rwset

import (
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// Version says which transaction wrote a key last. A key that does not exist has no version (a nil pointer),
// which differs from Version{0, 0}, the first transaction of the genesis block.
type Version struct{ Block, Tx uint64 }

// Compare orders versions by block, then by transaction.
func (v Version) Compare(w Version) int {
	switch {
	case v.Block < w.Block || v.Block == w.Block && v.Tx < w.Tx:
		return -1
	case v == w:
		return 0
	}
	return 1
}

func (v Version) String() string { return fmt.Sprintf("%d:%d", v.Block, v.Tx) }

// Proto gives the wire form; nil stays nil.
func (v *Version) Proto() *kvrwsetpb.Version {
	if v == nil {
		return nil
	}
	return &kvrwsetpb.Version{BlockNum: v.Block, TxNum: v.Tx}
}

// VersionOf is the inverse of Proto; nil stays nil.
func VersionOf(p *kvrwsetpb.Version) *Version {
	if p == nil {
		return nil
	}
	return &Version{Block: p.BlockNum, Tx: p.TxNum}
}

// SameVersion reports whether both are nil or both name the same transaction.
func SameVersion(a, b *Version) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// appendOrdered appends n so that the encodings compare like the numbers: a length byte, then the number
// big-endian without leading zeros.
func appendOrdered(b []byte, n uint64) []byte {
	size := 0
	for m := n; m != 0; m >>= 8 {
		size++
	}
	b = append(b, byte(size))
	for i := size - 1; i >= 0; i-- {
		b = append(b, byte(n>>(8*i)))
	}
	return b
}

// AppendBytes appends the version's order-preserving form, as it enters the commit hash.
func (v Version) AppendBytes(b []byte) []byte { return appendOrdered(appendOrdered(b, v.Block), v.Tx) }

// Set is a decoded TxReadWriteSet, in the order of the wire. It is not changed after Parse.
type Set struct{ Namespaces []*Namespace }

// Namespace is what a transaction read and wrote under one name. KV is never nil.
type Namespace struct {
	Name        string
	KV          *kvrwsetpb.KVRWSet
	Collections []*Collection
}

// Collection is the public, hashed part of a private collection's reads and writes. Hashed is never nil.
// PvtRWSetHash is the SHA-256 of the private write set, empty if the transaction only read.
type Collection struct {
	Name         string
	Hashed       *kvrwsetpb.HashedRWSet
	PvtRWSetHash []byte
}

// Parse decodes the results of a chaincode action through all its layers. It judges nothing but the encoding:
// duplicate namespaces and keys are kept, for the validator to see.
func Parse(results []byte) (*Set, error) {
	var tx rwsetpb.TxReadWriteSet
	if err := proto.Unmarshal(results, &tx); err != nil {
		return nil, fmt.Errorf("read-write set: %w", err)
	}
	set := &Set{}
	if len(tx.NsRwset) > 0 {
		set.Namespaces = make([]*Namespace, 0, len(tx.NsRwset))
	}
	for _, n := range tx.NsRwset {
		ns := &Namespace{Name: n.Namespace, KV: &kvrwsetpb.KVRWSet{}}
		if err := proto.Unmarshal(n.Rwset, ns.KV); err != nil {
			return nil, fmt.Errorf("read-write set of namespace %q: %w", n.Namespace, err)
		}
		for _, c := range n.CollectionHashedRwset {
			coll := &Collection{Name: c.CollectionName, Hashed: &kvrwsetpb.HashedRWSet{}, PvtRWSetHash: c.PvtRwsetHash}
			if err := proto.Unmarshal(c.HashedRwset, coll.Hashed); err != nil {
				return nil, fmt.Errorf("hashed read-write set of collection %q of namespace %q: %w", c.CollectionName, n.Namespace, err)
			}
			ns.Collections = append(ns.Collections, coll)
		}
		set.Namespaces = append(set.Namespaces, ns)
	}
	return set, nil
}

// PvtHash gives the hash of the private write set of a collection, nil if the set holds none.
func (s *Set) PvtHash(ns, collection string) []byte {
	for _, n := range s.Namespaces {
		if n.Name != ns {
			continue
		}
		for _, c := range n.Collections {
			if c.Name == collection {
				return c.PvtRWSetHash
			}
		}
	}
	return nil
}

// PrivateSet is a decoded TxPvtReadWriteSet.
type PrivateSet struct{ Collections []*PrivateCollection }

// PrivateCollection is the private write set of one collection. Raw is the encoding that its public hash covers.
type PrivateCollection struct {
	Namespace, Name string
	KV              *kvrwsetpb.KVRWSet
	Raw             []byte
}

// ParsePrivate decodes the layers of a private write set. A nil set gives an empty one.
func ParsePrivate(p *rwsetpb.TxPvtReadWriteSet) (*PrivateSet, error) {
	set := &PrivateSet{}
	for _, n := range p.GetNsPvtRwset() {
		for _, c := range n.CollectionPvtRwset {
			kv := &kvrwsetpb.KVRWSet{}
			if err := proto.Unmarshal(c.Rwset, kv); err != nil {
				return nil, fmt.Errorf("private write set of collection %q of namespace %q: %w", c.CollectionName, n.Namespace, err)
			}
			set.Collections = append(set.Collections, &PrivateCollection{Namespace: n.Namespace, Name: c.CollectionName, KV: kv, Raw: c.Rwset})
		}
	}
	return set, nil
}

// IsDelete reports whether a write removes its key: an empty value counts as a delete.
func IsDelete(w *kvrwsetpb.KVWrite) bool { return w.IsDelete || len(w.Value) == 0 }

var hashOfEmpty = sha256.Sum256(nil)

// IsHashDelete is IsDelete for a hashed write; the hash of the empty value counts as a delete too.
func IsHashDelete(w *kvrwsetpb.KVWriteHash) bool {
	return w.IsDelete || len(w.ValueHash) == 0 || string(w.ValueHash) == string(hashOfEmpty[:])
}

// KeyHash is the name of a private key on the ledger, its SHA-256.
func KeyHash(key string) []byte {
	h := sha256.Sum256([]byte(key))
	return h[:]
}

// EncodeMetadata is a key's metadata as the state holds it: a KVMetadataWrite without the key.
func EncodeMetadata(entries []*kvrwsetpb.KVMetadataEntry) []byte {
	var b []byte
	for _, e := range entries {
		var m []byte
		if e.GetName() != "" {
			m = protowire.AppendString(protowire.AppendTag(m, 1, protowire.BytesType), e.GetName())
		}
		if len(e.GetValue()) > 0 {
			m = protowire.AppendBytes(protowire.AppendTag(m, 2, protowire.BytesType), e.GetValue())
		}
		b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), m)
	}
	return b
}

// DecodeMetadata gives the metadata of a key by name; nil for no metadata. An entry may be empty: a key-level
// policy that was removed leaves one behind.
func DecodeMetadata(metadata []byte) (map[string][]byte, error) {
	if len(metadata) == 0 {
		return nil, nil
	}
	var w kvrwsetpb.KVMetadataWrite
	if err := proto.Unmarshal(metadata, &w); err != nil {
		return nil, fmt.Errorf("metadata of a key: %w", err)
	}
	m := make(map[string][]byte, len(w.Entries))
	for _, e := range w.Entries {
		m[e.Name] = e.Value
	}
	return m, nil
}
