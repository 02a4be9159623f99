package simulation

import (
	"fmt"
	"strings"

	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// GetPrivate reads a private key. It fails where the peer does not hold the value that the public hash stands
// for: it is no member, or the data have not come yet.
func (s *Simulator) GetPrivate(namespace, collection, key string) ([]byte, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	if err := s.checkCollection(namespace, collection); err != nil {
		return nil, err
	}
	v, err := s.cfg.Snapshot.GetPrivate(namespace, collection, key)
	if err != nil {
		return nil, err
	}
	hash, err := s.cfg.Snapshot.GetHash(namespace, collection, rwset.KeyHash(key))
	if err != nil {
		return nil, err
	}
	if !rwset.SameVersion(version(hash), version(v)) {
		return nil, fmt.Errorf("private data matching public hash version is not available. Public hash version = %s, Private data version = %s",
			versionText(version(hash)), versionText(version(v)))
	}
	if err := s.recordPrivate(namespace, collection, key, v); err != nil || v == nil {
		return nil, err
	}
	return v.Value, nil
}

func (s *Simulator) recordPrivate(namespace, collection, key string, v *rwset.VersionedValue) error {
	if err := s.charge(len(key)); err != nil {
		return err
	}
	s.namespaces[namespace] = true
	s.reads[place{namespace, collection}] = true
	s.builder.AddHashedRead(namespace, collection, key, version(v))
	return nil
}

func versionText(v *rwset.Version) string {
	if v == nil {
		return "<nil>"
	}
	return fmt.Sprintf("{BlockNum: %d, TxNum: %d}", v.Block, v.Tx)
}

// GetPrivateMany reads private keys. Unlike GetPrivate it reports what the peer holds without comparing versions,
// which is what Fabric does: a stale value is then found in validation.
func (s *Simulator) GetPrivateMany(namespace, collection string, keys []string) ([][]byte, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	if err := s.checkCollection(namespace, collection); err != nil {
		return nil, err
	}
	values := make([][]byte, len(keys))
	for i, key := range keys {
		v, err := s.cfg.Snapshot.GetPrivate(namespace, collection, key)
		if err != nil {
			return nil, err
		}
		if err := s.recordPrivate(namespace, collection, key, v); err != nil {
			return nil, err
		}
		if v != nil {
			values[i] = v.Value
		}
	}
	return values, nil
}

// GetHash reads the hash of a private value, which needs no membership.
func (s *Simulator) GetHash(namespace, collection, key string) ([]byte, error) {
	v, err := s.readHash(namespace, collection, key)
	if v == nil {
		return nil, err
	}
	return v.Value, nil
}

// PrivateMetadata reads a private key's metadata, which is a read of its hash.
func (s *Simulator) PrivateMetadata(namespace, collection, key string) (map[string][]byte, error) {
	v, err := s.readHash(namespace, collection, key)
	if v == nil {
		return nil, err
	}
	return rwset.DecodeMetadata(v.Metadata)
}

func (s *Simulator) readHash(namespace, collection, key string) (*rwset.VersionedValue, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	if err := s.checkCollection(namespace, collection); err != nil {
		return nil, err
	}
	v, err := s.cfg.Snapshot.GetHash(namespace, collection, rwset.KeyHash(key))
	if err != nil {
		return nil, err
	}
	if err := s.charge(len(key)); err != nil {
		return nil, err
	}
	s.namespaces[namespace] = true
	s.builder.AddHashedRead(namespace, collection, key, version(v))
	return v, nil
}

// PutPrivate writes a private key; an empty value deletes it.
func (s *Simulator) PutPrivate(namespace, collection, key string, value []byte) error {
	return s.writePrivate(namespace, collection, key, len(value), func() { s.builder.AddPrivateWrite(namespace, collection, key, value) })
}

// Purge deletes a private key with all its past.
func (s *Simulator) Purge(namespace, collection, key string) error {
	return s.writePrivate(namespace, collection, key, 0, func() { s.builder.AddPrivatePurge(namespace, collection, key) })
}

// PutPrivateMetadata replaces a private key's metadata; none removes it.
func (s *Simulator) PutPrivateMetadata(namespace, collection, key string, metadata map[string][]byte) error {
	return s.writePrivate(namespace, collection, key, sizeOf("", metadata), func() { s.builder.AddPrivateMetadataWrite(namespace, collection, key, metadata) })
}

func (s *Simulator) writePrivate(namespace, collection, key string, size int, record func()) error {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return err
	}
	if err := s.checkCollection(namespace, collection); err != nil {
		return err
	}
	if err := s.checkWrite(len(key) + size); err != nil {
		return err
	}
	s.namespaces[namespace] = true
	record()
	raw, err := s.cfg.Snapshot.HashMetadata(namespace, collection, rwset.KeyHash(key))
	if err != nil {
		return err
	}
	return s.note(place{namespace, collection}, key, raw)
}

// PrivateRange opens a query over private keys. It is not recorded, so it makes the transaction read-only.
func (s *Simulator) PrivateRange(namespace, collection, start, end string) (*Query, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	if err := s.startPrivateQuery(namespace, collection); err != nil {
		return nil, err
	}
	if len(s.queries) >= maxQueries {
		return nil, fmt.Errorf("txid [%s]: more than %d range queries in one transaction", s.cfg.TxID, maxQueries)
	}
	it, err := s.cfg.Snapshot.PrivateRange(namespace, collection, start, end)
	if err != nil {
		return nil, err
	}
	q := &Query{sim: s, it: it, end: end, namespace: namespace}
	s.queries = append(s.queries, q)
	return q, nil
}

func (s *Simulator) startPrivateQuery(namespace, collection string) error {
	if s.written {
		return fmt.Errorf("txid [%s]: unsuppored transaction. Queries on pvt data is supported only in a read-only transaction", s.cfg.TxID)
	}
	s.queried = true
	return s.checkCollection(namespace, collection)
}

// ExecuteQueryPrivate opens a JSON query over private data. It is not recorded, so it makes the transaction read-only.
func (s *Simulator) ExecuteQueryPrivate(namespace, collection, query string) (*Query, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	if err := s.startPrivateQuery(namespace, collection); err != nil {
		return nil, err
	}
	return s.openQuery(namespace, collection, query, "", 0)
}

// checkCollection refuses a collection that neither the contract's definition nor an organisation of the channel
// has. The definition's keys become part of the read set.
func (s *Simulator) checkCollection(namespace, collection string) error {
	c, err := s.collectionsOf(namespace)
	if err != nil {
		return err
	}
	if !c.defined {
		return fmt.Errorf("collection config not defined for chaincode [%s], pass the collection configuration upon chaincode definition/instantiation", namespace)
	}
	if c.configs[collection] == nil {
		return fmt.Errorf("collection [%s] not defined in the collection config for chaincode [%s]", collection, namespace)
	}
	return nil
}

// collectionsOf reads the collections of a contract once in a simulation: the snapshot does not change.
func (s *Simulator) collectionsOf(namespace string) (*collections, error) {
	if c := s.collections[namespace]; c != nil {
		return c, nil
	}
	pkg, defined, err := s.cfg.Definitions.Collections(namespace, s.get)
	if err != nil {
		return nil, err
	}
	c := &collections{defined: defined, configs: map[string]*peerpb.StaticCollectionConfig{}}
	if defined {
		for _, config := range pkg.GetConfig() {
			if static := config.GetStaticCollectionConfig(); static != nil {
				c.configs[static.Name] = static
			}
		}
		for _, org := range s.cfg.Orgs {
			c.configs[ImplicitPrefix+org] = ImplicitCollection(org)
		}
	}
	s.collections[namespace] = c
	return c, nil
}

// collection gives the configuration that governs access to a collection; nil if there is none. An implicit
// collection is open to every client, even if its organisation is unknown: that is for checkCollection to refuse.
func (s *Simulator) collection(namespace, name string) (*peerpb.StaticCollectionConfig, error) {
	c, err := s.collectionsOf(namespace)
	if err != nil || !c.defined {
		return nil, err
	}
	if org, ok := strings.CutPrefix(name, ImplicitPrefix); ok && c.configs[name] == nil {
		return ImplicitCollection(org), nil
	}
	return c.configs[name], nil
}
