package rwset

import (
	"crypto/sha256"
	"slices"
	"sort"

	"google.golang.org/protobuf/encoding/protowire"
)

// ConfigKey is where the state keeps the channel's latest configuration (a ConfigEnvelope, as the payload's
// data of the configuration transaction), in the namespace "" that no contract can write.
const ConfigKey = "CHANNEL_CONFIG_ENV_BYTES"

// VersionedValue is a key's value in the state. Metadata is what DecodeMetadata reads; it is empty for most keys.
type VersionedValue struct {
	Value, Metadata []byte
	Version         Version
}

// State is the committed state that updates build on: the state after the block before. A missing key is nil
// without an error. The two Metadata methods ask for less than the others and are meant to be cheap where a
// namespace holds no metadata at all. Returned slices belong to the caller but may be shared: nobody changes them.
type State interface {
	Get(namespace, key string) (*VersionedValue, error)
	GetHash(namespace, collection string, keyHash []byte) (*VersionedValue, error)
	Metadata(namespace, key string) ([]byte, error)
	HashMetadata(namespace, collection string, keyHash []byte) ([]byte, error)
}

// Update is a key's final content after the block so far. In a hashed collection Key is the hash of the key and
// Value the hash of the value. A delete has neither value nor metadata.
type Update struct {
	Key             string
	Value, Metadata []byte
	Version         Version
	Delete          bool
}

// Purge asks every member to forget all versions of a private key up to a version.
type Purge struct {
	Namespace, Collection string
	KeyHash               []byte
	Version               Version
}

// Place names a key space: a namespace's public keys (Collection "") or one of its hashed collections.
type Place struct{ Namespace, Collection string }

// Updates gathers what the valid transactions of one block do to public state and hashed collections. It is
// also the overlay that later transactions of the block are checked against. One goroutine uses it at a time.
type Updates struct {
	block  uint64
	places map[Place]map[string]*Update
	purges map[Place]map[string]*Purge
}

// NewUpdates starts the updates of the block with that number.
func NewUpdates(block uint64) *Updates {
	return &Updates{block: block, places: map[Place]map[string]*Update{}}
}

// Block is the number of the block that the updates are of.
func (u *Updates) Block() uint64 { return u.block }

// Operations on one key within one transaction are counted as flags that are added, not joined. For a key that
// occurs once per list, as honest endorsers make it, this is plain; for a key that is repeated it gives the
// odd results which all nodes of a channel have to share: two puts look like a metadata write, three
// like put and metadata write, eight like a delete.
const (
	opPut uint8 = 1 << iota
	opMetadata
	opClearMetadata
	opDelete
)

type operation struct {
	flags           uint8
	value, metadata []byte
}

// Apply adds the writes of a valid transaction. A write of the value keeps the key's metadata, a write
// of metadata keeps its value, and metadata for a key that does not exist is dropped. On an error (of the
// state) the updates are not usable any more.
func (u *Updates) Apply(tx uint64, set *Set, state State) error {
	if plain(set) {
		for _, n := range set.Namespaces {
			if err := u.applyPlain(tx, n, state); err != nil {
				return err
			}
		}
		return nil
	}
	ops := map[Place]map[string]*operation{}
	at := func(p Place, key string) *operation {
		m := ops[p]
		if m == nil {
			m = map[string]*operation{}
			ops[p] = m
		}
		o := m[key]
		if o == nil {
			o = &operation{}
			m[key] = o
		}
		return o
	}
	for _, n := range set.Namespaces {
		public := Place{Namespace: n.Name}
		for _, w := range n.KV.Writes {
			if o := at(public, w.Key); IsDelete(w) {
				o.flags += opDelete
			} else {
				o.flags, o.value = o.flags+opPut, w.Value
			}
		}
		for _, w := range n.KV.MetadataWrites {
			if o := at(public, w.Key); len(w.Entries) == 0 {
				o.flags += opClearMetadata
			} else {
				o.flags, o.metadata = o.flags+opMetadata, EncodeMetadata(w.Entries)
			}
		}
		for _, c := range n.Collections {
			place := Place{n.Name, c.Name}
			for _, w := range c.Hashed.HashedWrites {
				if o := at(place, string(w.KeyHash)); IsHashDelete(w) {
					o.flags += opDelete
				} else {
					o.flags, o.value = o.flags+opPut, w.ValueHash
				}
				if w.IsPurge {
					u.purge(place, w.KeyHash, Version{u.block, tx})
				}
			}
			for _, w := range c.Hashed.MetadataWrites {
				if o := at(place, string(w.KeyHash)); len(w.Entries) == 0 {
					o.flags += opClearMetadata
				} else {
					o.flags, o.metadata = o.flags+opMetadata, EncodeMetadata(w.Entries)
				}
			}
		}
	}
	// The order of the two loops does not matter: every key is settled by itself.
	for place, keys := range ops {
		for key, o := range keys {
			if err := u.settle(place, key, o, Version{u.block, tx}, state); err != nil {
				return err
			}
		}
	}
	return nil
}

// plain reports whether a transaction is of the common kind: puts and deletes of public keys, each once, so
// that no operations have to be joined. Builders sort, so that neighbours tell; an unsorted set takes the
// general way to the same result.
func plain(set *Set) bool {
	for i, n := range set.Namespaces {
		if i > 0 && set.Namespaces[i-1].Name >= n.Name || len(n.Collections) > 0 || len(n.KV.MetadataWrites) > 0 {
			return false
		}
		for j := 1; j < len(n.KV.Writes); j++ {
			if n.KV.Writes[j-1].Key >= n.KV.Writes[j].Key {
				return false
			}
		}
	}
	return true
}

func (u *Updates) applyPlain(tx uint64, n *Namespace, state State) error {
	place, version := Place{Namespace: n.Name}, Version{u.block, tx}
	for _, w := range n.KV.Writes {
		o := operation{flags: opDelete}
		if !IsDelete(w) {
			o = operation{flags: opPut, value: w.Value}
		}
		if err := u.settle(place, w.Key, &o, version, state); err != nil {
			return err
		}
	}
	return nil
}

func (u *Updates) settle(p Place, key string, o *operation, version Version, state State) error {
	switch {
	case o.flags&opDelete != 0:
		u.put(p, &Update{Key: key, Version: version, Delete: true})
		return nil
	case o.flags&opPut != 0 && o.flags&(opMetadata|opClearMetadata) != 0:
	case o.flags|opPut == opPut:
		metadata, err := u.metadata(p, key, state)
		if err != nil {
			return err
		}
		o.metadata = metadata
	default:
		value, err := u.value(p, key, state)
		if err != nil {
			return err
		}
		if len(value) == 0 {
			// Also after a delete earlier in this block, where the reference implementation panics: there is
			// nothing for the metadata to belong to.
			return nil
		}
		o.value = value
	}
	u.put(p, &Update{Key: key, Value: o.value, Metadata: o.metadata, Version: version})
	return nil
}

func (u *Updates) value(p Place, key string, state State) ([]byte, error) {
	if up := u.places[p][key]; up != nil {
		return up.Value, nil
	}
	var v *VersionedValue
	var err error
	if p.Collection == "" {
		v, err = state.Get(p.Namespace, key)
	} else {
		v, err = state.GetHash(p.Namespace, p.Collection, []byte(key))
	}
	if v == nil || err != nil {
		return nil, err
	}
	return v.Value, nil
}

func (u *Updates) metadata(p Place, key string, state State) ([]byte, error) {
	if up := u.places[p][key]; up != nil {
		return up.Metadata, nil
	}
	if p.Collection == "" {
		return state.Metadata(p.Namespace, key)
	}
	return state.HashMetadata(p.Namespace, p.Collection, []byte(key))
}

func (u *Updates) put(p Place, up *Update) {
	m := u.places[p]
	if m == nil {
		m = map[string]*Update{}
		u.places[p] = m
	}
	m[up.Key] = up
}

func (u *Updates) purge(p Place, keyHash []byte, v Version) {
	if u.purges == nil {
		u.purges = map[Place]map[string]*Purge{}
	}
	m := u.purges[p]
	if m == nil {
		m = map[string]*Purge{}
		u.purges[p] = m
	}
	m[string(keyHash)] = &Purge{p.Namespace, p.Collection, keyHash, v}
}

// SetConfig adds the effect of a valid configuration transaction, whose payload's data (a ConfigEnvelope) becomes
// the channel's configuration. It does not enter the commit hash.
func (u *Updates) SetConfig(tx uint64, configEnvelope []byte) {
	if len(configEnvelope) > 0 {
		u.put(Place{}, &Update{Key: ConfigKey, Value: configEnvelope, Version: Version{u.block, tx}})
	}
}

// Get gives the update of a public key, nil if the block has not touched it. A delete is an update too.
func (u *Updates) Get(namespace, key string) *Update {
	return u.places[Place{Namespace: namespace}][key]
}

// GetHash is Get for a key of a hashed collection.
func (u *Updates) GetHash(namespace, collection string, keyHash []byte) *Update {
	return u.places[Place{namespace, collection}][string(keyHash)]
}

// Len counts the keys touched.
func (u *Updates) Len() int {
	n := 0
	for _, m := range u.places {
		n += len(m)
	}
	return n
}

// Range gives the updates of public keys from start (inclusive) to end (exclusive; "" for no end), sorted by
// key, deletes included. It is the block's side of a range query that is checked for phantoms.
func (u *Updates) Range(namespace, start, end string) []*Update {
	m := u.places[Place{Namespace: namespace}]
	if len(m) == 0 {
		return nil
	}
	var in []*Update
	for key, up := range m {
		if key >= start && (end == "" || key < end) {
			in = append(in, up)
		}
	}
	slices.SortFunc(in, func(a, b *Update) int { return compare(a.Key, b.Key) })
	return in
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Places gives the key spaces touched, sorted: by namespace, a namespace's public keys before its collections.
func (u *Updates) Places() []Place {
	places := make([]Place, 0, len(u.places))
	for p := range u.places {
		places = append(places, p)
	}
	sort.Slice(places, func(i, j int) bool {
		if places[i].Namespace != places[j].Namespace {
			return places[i].Namespace < places[j].Namespace
		}
		return places[i].Collection < places[j].Collection
	})
	return places
}

// At gives the updates of one key space sorted by key.
func (u *Updates) At(p Place) []*Update {
	m := u.places[p]
	all := make([]*Update, 0, len(m))
	for _, up := range m {
		all = append(all, up)
	}
	slices.SortFunc(all, func(a, b *Update) int { return compare(a.Key, b.Key) })
	return all
}

// Purges gives the purges of the block's valid transactions, sorted by namespace, collection and key hash; of several
// for one key the last.
func (u *Updates) Purges() []Purge {
	var all []Purge
	for _, m := range u.purges {
		for _, p := range m {
			all = append(all, *p)
		}
	}
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i], all[j]
		if a.Namespace != b.Namespace {
			return a.Namespace < b.Namespace
		}
		if a.Collection != b.Collection {
			return a.Collection < b.Collection
		}
		return string(a.KeyHash) < string(b.KeyHash)
	})
	return all
}

// CommitBytes gives the bytes of the updates that enter the commit hash: every write in the order of Places, a
// namespace or collection named only where it first occurs. The channel's configuration, metadata
// and what block-to-live removes are not part of it.
func (u *Updates) CommitBytes() []byte {
	var out, m []byte
	namespace := ""
	for _, p := range u.Places() {
		if p.Namespace == "" {
			continue
		}
		collection := ""
		for _, up := range u.At(p) {
			m = m[:0]
			if p.Namespace != namespace {
				m = protowire.AppendString(protowire.AppendTag(m, 1, protowire.BytesType), p.Namespace)
				namespace = p.Namespace
			}
			if p.Collection != collection {
				m = protowire.AppendString(protowire.AppendTag(m, 2, protowire.BytesType), p.Collection)
				collection = p.Collection
			}
			if up.Key != "" {
				m = protowire.AppendString(protowire.AppendTag(m, 3, protowire.BytesType), up.Key)
			}
			if up.Delete {
				m = protowire.AppendVarint(protowire.AppendTag(m, 4, protowire.VarintType), 1)
			} else {
				m = protowire.AppendBytes(protowire.AppendTag(m, 5, protowire.BytesType), up.Value)
			}
			var v [18]byte
			m = protowire.AppendBytes(protowire.AppendTag(m, 6, protowire.BytesType), up.Version.AppendBytes(v[:0]))
			out = protowire.AppendBytes(protowire.AppendTag(out, 1, protowire.BytesType), m)
		}
	}
	return out
}

// CommitHash chains a block's outcome to its predecessor's: SHA-256 over the number of transactions as a varint,
// their validation codes, the updates' CommitBytes and the previous commit hash. The genesis block has none,
// and block 1 an empty predecessor.
func CommitHash(filter, commitBytes, previous []byte) []byte {
	h := sha256.New()
	h.Write(protowire.AppendVarint(nil, uint64(len(filter))))
	h.Write(filter)
	h.Write(commitBytes)
	h.Write(previous)
	return h.Sum(nil)
}
