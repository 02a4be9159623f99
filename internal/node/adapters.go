package node

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/contracthost"
	"github.com/hansa-ledger/hansa/internal/endorse"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/lifecycle"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// snapshot is a ledger's snapshot as simulations read it: the same methods, with
// the iterators' types of the consumer.
type snapshot struct {
	*ledger.Snapshot
	definitions *definitions
}

var _ endorse.Snapshot = snapshot{}

// Get answers for contracts' definitions from memory: every proposal reads its contract's.
func (s snapshot) Get(namespace, key string) (*rwset.VersionedValue, error) {
	if namespace != lifecycle.Namespace {
		return s.Snapshot.Get(namespace, key)
	}
	if value, ok := s.definitions.get(key, s.Height()); ok {
		return value, nil
	}
	value, err := s.Snapshot.Get(namespace, key)
	if err == nil {
		s.definitions.put(key, value, s.Height())
	}
	return value, err
}

// definitions remembers the public state of contracts' definitions, for
// snapshots between the block that changed it last and the newest that it knows.
type definitions struct {
	mu           sync.RWMutex
	since, until uint64 // heights for which the values hold
	values       map[string]*rwset.VersionedValue
}

// maxDefinitions bounds the keys that are remembered; four of a contract are in use.
const maxDefinitions = 4096

func (d *definitions) get(key string, height uint64) (*rwset.VersionedValue, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if height < d.since || height > d.until {
		return nil, false
	}
	value, ok := d.values[key]
	return value, ok
}

func (d *definitions) put(key string, value *rwset.VersionedValue, height uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if height >= d.since && height <= d.until && len(d.values) < maxDefinitions {
		d.values[key] = value
	}
}

// committed tells of every block, in order; changed says that it wrote definitions.
func (d *definitions) committed(height uint64, changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until = height
	if changed || d.values == nil {
		d.since, d.values = height, map[string]*rwset.VersionedValue{}
	}
}

func (s snapshot) Range(namespace, start, end string) (simulation.StateIterator, error) {
	return s.Snapshot.Range(namespace, start, end)
}

func (s snapshot) PrivateRange(namespace, collection, start, end string) (simulation.StateIterator, error) {
	return s.Snapshot.PrivateRange(namespace, collection, start, end)
}

func (s snapshot) History(namespace, key string) (simulation.HistoryIterator, error) {
	return s.Snapshot.History(namespace, key)
}

// contracts runs invocations on the contract host.
type contracts struct{ host *contracthost.Host }

var _ endorse.Contracts = contracts{}

func (c contracts) Execute(ctx context.Context, packageID string, in *endorse.Invocation) (*peerpb.Response, *peerpb.ChaincodeEvent, error) {
	return c.host.Execute(ctx, packageID, contracthost.Invocation{
		ChannelID: in.ChannelID, TxID: in.TxID, Namespace: in.Namespace, Proposal: in.Proposal, Input: in.Input, Backend: backend{in.Backend}})
}

// backend is an endorsement's backend as the contract host calls it.
type backend struct{ *endorse.Backend }

var _ contracthost.Backend = backend{}

func (b backend) Range(collection, start, end string) (contracthost.StateIterator, error) {
	return iterator(b.Backend.Range(collection, start, end))
}

func (b backend) RangePage(start, end string, pageSize int32) (contracthost.StateIterator, error) {
	return iterator(b.Backend.RangePage(start, end, pageSize))
}

func (b backend) Query(collection, query string) (contracthost.StateIterator, error) {
	return iterator(b.Backend.Query(collection, query))
}

func (b backend) QueryPage(query, bookmark string, pageSize int32) (contracthost.StateIterator, error) {
	return iterator(b.Backend.QueryPage(query, bookmark, pageSize))
}

func (b backend) History(key string) (contracthost.HistoryIterator, error) {
	it, err := b.Backend.History(key)
	if err != nil {
		return nil, err
	}
	return history{it}, nil
}

// iterator keeps a nil query from becoming an interface that is not nil.
func iterator(q *simulation.Query, err error) (contracthost.StateIterator, error) {
	if err != nil {
		return nil, err
	}
	return q, nil
}

// history leaves out the error of Close: what matters was read.
type history struct{ simulation.HistoryIterator }

func (h history) Close() { _ = h.HistoryIterator.Close() }

// implicitMember gives the member whose implicit collection a name is.
func implicitMember(collection string) (mspID string, ok bool) {
	return strings.CutPrefix(collection, simulation.ImplicitPrefix)
}

func decodePolicy(raw []byte) (*peerpb.ApplicationPolicy, error) {
	p := &peerpb.ApplicationPolicy{}
	if err := proto.Unmarshal(raw, p); err != nil {
		return nil, fmt.Errorf("decode endorsement policy: %w", err)
	}
	return p, nil
}
