package ledger

import (
	"encoding/binary"
	"fmt"
	"math"
	"sort"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/statedb"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// The history of collections: which a contract had after each block that changed its definition. Who belonged to a
// collection when something was written is decided by it, and it is part of snapshots. The keys behind the prefix are those
// of Fabric's own store, which a snapshot carries as they are:
//
//	"slscc" 0  contract "~collection"  ^block
const (
	collectionsBase = "slscc\x00"
	collectionsMark = "~collection"

	lifecycleNamespace = "_lifecycle"
	legacyNamespace    = "lscc"
)

func collectionsKey(contract string, block uint64) []byte {
	b := append(append(append(make([]byte, 0, 64), collectionsBase...), contract...), collectionsMark...)
	return binary.BigEndian.AppendUint64(b, math.MaxUint64-block)
}

func cutCollectionsKey(key []byte) (contract string, block uint64, ok bool) {
	rest, ok := strings.CutPrefix(string(key), collectionsBase)
	if !ok || len(rest) < 8 {
		return "", 0, false
	}
	block = math.MaxUint64 - binary.BigEndian.Uint64([]byte(rest[len(rest)-8:]))
	contract, ok = strings.CutSuffix(rest[:len(rest)-8], collectionsMark)
	return contract, block, ok
}

// writeCollections notes the collections of the contracts whose definition a block changes, as they are after it. A contract
// without any is not noted, and so keeps what it had.
func writeCollections(b *pebble.Batch, u *rwset.Updates, before rwset.State) error {
	for _, contract := range definedIn(u) {
		raw, err := collectionsAfter(u, before, contract)
		if err != nil {
			return err
		}
		var config peerpb.CollectionConfigPackage
		if proto.Unmarshal(raw, &config) != nil || len(config.Config) == 0 {
			continue // unreadable ones are written by nobody but the lifecycle contract, and all nodes see them alike
		}
		// Encoded again, as the reference implementation does.
		if raw, err = proto.Marshal(&config); err != nil {
			return fmt.Errorf("history of collections: %w", err)
		}
		if err := b.Set(append([]byte{prefixCollections}, collectionsKey(contract, u.Block())...), raw, nil); err != nil {
			return fmt.Errorf("history of collections: %w", err)
		}
	}
	return nil
}

// definedIn lists the contracts whose definition a block writes, by the lifecycle contract or the legacy one.
func definedIn(u *rwset.Updates) []string {
	names := map[string]bool{}
	for _, up := range u.At(rwset.Place{Namespace: lifecycleNamespace}) {
		name, ok := strings.CutPrefix(up.Key, "namespaces/fields/")
		if name, ok2 := strings.CutSuffix(name, "/Sequence"); ok && ok2 && name != "" && !strings.Contains(name, "/") {
			names[name] = true
		}
	}
	for _, up := range u.At(rwset.Place{Namespace: legacyNamespace}) {
		if name, _, _ := strings.Cut(up.Key, "~"); !up.Delete && name != "" {
			names[name] = true
		}
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	return sorted
}

func collectionsAfter(u *rwset.Updates, before rwset.State, contract string) ([]byte, error) {
	get := func(ns, key string) ([]byte, error) {
		if up := u.Get(ns, key); up != nil {
			if up.Delete {
				return nil, nil
			}
			return up.Value, nil
		}
		v, err := before.Get(ns, key)
		if v == nil || err != nil {
			return nil, err
		}
		return v.Value, nil
	}
	defined, err := get(lifecycleNamespace, "namespaces/metadata/"+contract)
	if err != nil {
		return nil, err
	}
	if defined == nil {
		return get(legacyNamespace, contract+collectionsMark)
	}
	raw, err := get(lifecycleNamespace, "namespaces/fields/"+contract+"/Collections")
	var data lifecyclepb.StateData
	if err != nil || proto.Unmarshal(raw, &data) != nil {
		return nil, err
	}
	return data.GetBytes(), nil
}

// CollectionsAt is what a block left a contract's collections as.
type CollectionsAt struct {
	Block  uint64
	Config *peerpb.CollectionConfigPackage
}

// CollectionBefore gives a collection as it was defined before a block, nil if it was not.
func (l *Ledger) CollectionBefore(block uint64, contract, collection string) (*peerpb.StaticCollectionConfig, error) {
	s := l.NewSnapshot()
	defer s.Close()
	history, err := s.CollectionHistory(contract)
	if err != nil {
		return nil, err
	}
	for _, at := range history {
		if at.Block >= block {
			continue
		}
		for _, c := range at.Config.Config {
			if static := c.GetStaticCollectionConfig(); static != nil && static.Name == collection {
				return static, nil
			}
		}
		return nil, nil
	}
	return nil, nil
}

// CollectionHistory gives the collections that a contract had, the newest first.
func (s *Snapshot) CollectionHistory(contract string) ([]CollectionsAt, error) {
	prefix := append([]byte{prefixCollections}, collectionsKey(contract, 0)...)
	prefix = prefix[:len(prefix)-8]
	var all []CollectionsAt
	err := s.each(prefix, func(key, value []byte) error {
		name, block, ok := cutCollectionsKey(key[1:])
		if !ok {
			return fmt.Errorf("bad key %x", key)
		}
		if name != contract {
			return nil // another's whose name looks like this one's key
		}
		config := &peerpb.CollectionConfigPackage{}
		if err := proto.Unmarshal(value, config); err != nil {
			return err
		}
		all = append(all, CollectionsAt{block, config})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read history of collections: %w", err)
	}
	return all, nil
}

// each walks the keys with a prefix.
func (s *Snapshot) each(prefix []byte, use func(key, value []byte) error) error {
	it, err := s.reader.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: statedb.PrefixEnd(prefix)})
	if err != nil {
		return err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := use(it.Key(), value); err != nil {
			return err
		}
	}
	return it.Error()
}
