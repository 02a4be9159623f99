// Package simulation runs one proposal against a snapshot of the state and records what it reads and writes.
//
// It guarantees that the recorded bytes are those which every endorser of the same proposal at the same height
// comes to, be it Hansa or Hyperledger Fabric: a read reports the committed value even after a write of the same
// transaction, a range query records what the peer fetched for the contract and not what the contract looked at,
// and combinations that could not be validated later (a write after a paginated query, say) are refused with
// Fabric's own words. Nothing here changes the ledger, and a simulation never blocks a commit.
//
// It leaves out deciding which contract runs and whether its client may call it (package endorse), how contracts
// talk (package contracthost) and what a definition looks like in the state (package lifecycle, through
// Definitions).
//
// Open this file first: Simulator holds the rules; query.go and private.go are the rest of it. contract.go is a
// running contract's view of it, with
// the checks that depend on the contract and the client; call.go is what system contracts get.
package simulation

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// ImplicitPrefix starts the name of the collection that every organisation has in every contract.
const ImplicitPrefix = "_implicit_org_"

// maxQueries bounds the range queries of one simulation: each is part of the read set until the end.
const maxQueries = 10_000

// maxRecorded bounds what a simulation records, in bytes of keys and values and perKey more for each: a transaction of
// that size could not be ordered. Results of range queries count only up to the point where they are hashed.
const (
	maxRecorded = 128 << 20
	perKey      = 128
)

// Config says what a simulation runs on.
type Config struct {
	ChannelID string
	TxID      string
	Snapshot  Snapshot
	// Definitions finds the collections of contracts.
	Definitions Definitions
	// Orgs are the MSP ids of the channel's application organisations: each has an implicit collection.
	Orgs []string
	// Member tells whether the client of the proposal satisfies a collection's member policy.
	Member func(*peerpb.CollectionPolicyConfig) (bool, error)
	// KeyPolicies and Purge are the application capabilities V1_3 (key-level endorsement) and V2_5 (purge).
	KeyPolicies, Purge bool
}

// Simulator is one simulation. Namespaces are given with each call, because a contract that calls another shares
// the simulation with it. It may be used from several goroutines, one operation at a time.
type Simulator struct {
	cfg Config

	mu          sync.Mutex // held for the length of every operation
	builder     *rwset.Builder
	done        bool
	written     bool // refuses private and paginated queries from then on
	recorded    int
	queried     bool // on private data: refuses writes from then on
	paginated   bool // refuses writes from then on
	queries     []*Query
	histories   []*history
	namespaces  map[string]bool
	reads       map[place]bool
	policies    map[place]map[string][]byte // per place and written key, the key-level policy, nil if it has none
	collections map[string]*collections
}

// place is a namespace, or with a collection a private one.
type place struct{ namespace, collection string }

type collections struct {
	defined bool
	configs map[string]*peerpb.StaticCollectionConfig
}

// New starts a simulation.
func New(cfg Config) *Simulator {
	return &Simulator{
		cfg: cfg, builder: rwset.NewBuilder(), namespaces: map[string]bool{}, reads: map[place]bool{},
		policies: map[place]map[string][]byte{}, collections: map[string]*collections{},
	}
}

// ChannelID names the channel of the simulation.
func (s *Simulator) ChannelID() string { return s.cfg.ChannelID }

// TxID names the transaction of the simulation.
func (s *Simulator) TxID() string { return s.cfg.TxID }

// Snapshot is the state below the simulation, for reads that are not to be recorded. It must not be used while an
// operation of the simulation runs, nor after Close.
func (s *Simulator) Snapshot() Snapshot { return s.cfg.Snapshot }

var errDone = errors.New("this instance should not be used after calling Done()")

// enter starts an operation; the caller unlocks mu in any case.
func (s *Simulator) enter() error {
	s.mu.Lock()
	if s.done {
		return errDone
	}
	return nil
}

// Get reads a key.
func (s *Simulator) Get(namespace, key string) ([]byte, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	return s.get(namespace, key)
}

func (s *Simulator) get(namespace, key string) ([]byte, error) {
	v, err := s.read(namespace, key)
	if v == nil {
		return nil, err
	}
	return v.Value, nil
}

func (s *Simulator) read(namespace, key string) (*rwset.VersionedValue, error) {
	v, err := s.cfg.Snapshot.Get(namespace, key)
	if err != nil {
		return nil, err
	}
	if err := s.charge(len(key)); err != nil {
		return nil, err
	}
	s.namespaces[namespace] = true
	s.builder.AddRead(namespace, key, version(v))
	return v, nil
}

// charge counts what is about to be recorded.
func (s *Simulator) charge(n int) error {
	if s.recorded += n + perKey; s.recorded > maxRecorded {
		return fmt.Errorf("txid [%s]: the transaction reads and writes more than %d MB: split it", s.cfg.TxID, maxRecorded>>20)
	}
	return nil
}

func version(v *rwset.VersionedValue) *rwset.Version {
	if v == nil {
		return nil
	}
	return &v.Version
}

// GetMany reads keys.
func (s *Simulator) GetMany(namespace string, keys []string) ([][]byte, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	values := make([][]byte, len(keys))
	for i, key := range keys {
		var err error
		if values[i], err = s.get(namespace, key); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// Metadata reads a key's metadata, which is a read of the key.
func (s *Simulator) Metadata(namespace, key string) (map[string][]byte, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	v, err := s.read(namespace, key)
	if v == nil {
		return nil, err
	}
	return rwset.DecodeMetadata(v.Metadata)
}

// Put writes a key; an empty value deletes it.
func (s *Simulator) Put(namespace, key string, value []byte) error {
	defer s.mu.Unlock()
	if err := s.enterWrite(len(key) + len(value)); err != nil {
		return err
	}
	s.namespaces[namespace] = true
	s.builder.AddWrite(namespace, key, value)
	return s.notePolicy(namespace, key)
}

// PutMetadata replaces a key's metadata; none removes it.
func (s *Simulator) PutMetadata(namespace, key string, metadata map[string][]byte) error {
	defer s.mu.Unlock()
	if err := s.enterWrite(sizeOf(key, metadata)); err != nil {
		return err
	}
	s.namespaces[namespace] = true
	s.builder.AddMetadataWrite(namespace, key, metadata)
	return s.notePolicy(namespace, key)
}

func sizeOf(key string, metadata map[string][]byte) int {
	n := len(key)
	for name, value := range metadata {
		n += len(name) + len(value)
	}
	return n
}

func (s *Simulator) enterWrite(size int) error {
	if err := s.enter(); err != nil {
		return err
	}
	return s.checkWrite(size)
}

func (s *Simulator) checkWrite(size int) error {
	switch {
	case s.queried:
		return fmt.Errorf("txid [%s]: unsuppored transaction. Transaction has already performed queries on pvt data. Writes are not allowed", s.cfg.TxID)
	case s.paginated:
		return fmt.Errorf("txid [%s]: unsuppored transaction. Transaction has already performed a paginated query. Writes are not allowed", s.cfg.TxID)
	}
	s.written = true
	return s.charge(size)
}

// notePolicy remembers the policy of a key that is written: clients are told whose endorsements it takes.
func (s *Simulator) notePolicy(namespace, key string) error {
	raw, err := s.cfg.Snapshot.Metadata(namespace, key)
	if err != nil {
		return err
	}
	return s.note(place{namespace, ""}, key, raw)
}

func (s *Simulator) note(at place, key string, raw []byte) error {
	var policy []byte
	if raw != nil {
		metadata, err := rwset.DecodeMetadata(raw)
		if err != nil {
			return err
		}
		var ok bool
		if policy, ok = metadata[peerpb.MetaDataKeys_VALIDATION_PARAMETER.String()]; ok && policy == nil {
			policy = []byte{} // present, though empty
		}
	}
	if s.policies[at] == nil {
		s.policies[at] = map[string][]byte{}
	}
	s.policies[at][key] = policy
	return nil
}

// Results are what a simulation comes to.
type Results struct {
	// Public is the read-write set as it enters the chaincode action.
	Public []byte
	// Private are the private write sets, nil if there are none, and Collections what the definitions said of
	// their collections, by namespace.
	Private     *rwsetpb.TxPvtReadWriteSet
	Collections map[string]*peerpb.CollectionConfigPackage
	// Calls say what the simulation touched, sorted by namespace and collection.
	Calls []Touched
}

// Touched is a namespace, or a collection of it, that a simulation read or wrote.
type Touched struct {
	Namespace, Collection string
	// PrivateRead: values of the collection were read.
	PrivateRead bool
	// Policies are the key-level policies of written keys; NoPolicy: a key without one was written.
	Policies [][]byte
	NoPolicy bool
	// Written: keys were written.
	Written bool
}

// Results ends the simulation and gives its results. It may be called once.
func (s *Simulator) Results() (*Results, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return nil, errors.New("this function should only be called once on a transaction simulator instance")
	}
	for _, q := range s.queries {
		if q.info == nil {
			continue
		}
		q.results.Finish(q.info)
		s.builder.AddRangeQuery(q.namespace, q.info)
	}
	r := &Results{}
	var err error
	if r.Public, r.Private, err = s.builder.Results(); err != nil {
		return nil, err
	}
	if r.Private != nil {
		if r.Collections, err = s.privateConfigs(r.Private); err != nil {
			return nil, fmt.Errorf("failed to obtain collections config: %w", err)
		}
	}
	r.Calls = s.touched()
	s.end()
	return r, nil
}

// privateConfigs gives the configurations of the collections that were written.
func (s *Simulator) privateConfigs(private *rwsetpb.TxPvtReadWriteSet) (map[string]*peerpb.CollectionConfigPackage, error) {
	configs := map[string]*peerpb.CollectionConfigPackage{}
	for _, ns := range private.NsPvtRwset {
		c, err := s.collectionsOf(ns.Namespace)
		if err != nil {
			return nil, err
		}
		if !c.defined {
			return nil, fmt.Errorf("no collection config for chaincode %q", ns.Namespace)
		}
		pkg := &peerpb.CollectionConfigPackage{}
		for _, coll := range ns.CollectionPvtRwset {
			if config := c.configs[coll.CollectionName]; config != nil {
				pkg.Config = append(pkg.Config, &peerpb.CollectionConfig{Payload: &peerpb.CollectionConfig_StaticCollectionConfig{StaticCollectionConfig: config}})
			}
		}
		configs[ns.Namespace] = pkg
	}
	return configs, nil
}

func (s *Simulator) touched() []Touched {
	at := map[place]*Touched{}
	get := func(p place) *Touched {
		if at[p] == nil {
			at[p] = &Touched{Namespace: p.namespace, Collection: p.collection}
		}
		return at[p]
	}
	for ns := range s.namespaces {
		get(place{ns, ""})
	}
	for p := range s.reads {
		get(p).PrivateRead = true
	}
	for p, keys := range s.policies {
		t := get(p)
		t.Written = true
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			if policy := keys[key]; policy == nil {
				t.NoPolicy = true
			} else {
				t.Policies = append(t.Policies, policy)
			}
		}
	}
	all := make([]Touched, 0, len(at))
	for _, t := range at {
		all = append(all, *t)
	}
	slices.SortFunc(all, func(a, b Touched) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Collection, b.Collection))
	})
	return all
}

// Close ends the simulation without results, or after them. The snapshot is the caller's to close.
func (s *Simulator) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}

func (s *Simulator) end() {
	s.done = true
	for _, q := range s.queries {
		q.close()
	}
	for _, h := range s.histories {
		_ = h.close() // what matters was read
	}
}
