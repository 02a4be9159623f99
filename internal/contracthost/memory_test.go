package contracthost_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/hansa-ledger/hansa/internal/contracthost"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/queryresultpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// memory is a channel's state for tests. Writes take effect at once; whoever needs a rollback copies it.
type memory struct {
	mu       sync.Mutex
	values   map[[3]string][]byte // namespace, collection, key
	metadata map[[3]string]map[string][]byte
	history  map[[3]string][]*queryresultpb.KeyModification
	open     int // iterators
	reads    int // rows that iterators gave
	entered  chan string
	proceed  chan struct{}
	// host and packages let contracts call each other.
	host     *contracthost.Host
	packages map[string]string
}

func newMemory() *memory {
	return &memory{
		values: map[[3]string][]byte{}, metadata: map[[3]string]map[string][]byte{},
		history: map[[3]string][]*queryresultpb.KeyModification{}, packages: map[string]string{},
	}
}

// view is the memory as one call sees it.
type view struct {
	*memory
	call contracthost.Invocation
}

var _ contracthost.Backend = (*view)(nil)

func (v *view) at(collection, key string) [3]string {
	return [3]string{v.call.Namespace, collection, key}
}

func (v *view) Get(collection, key string) ([]byte, error) {
	if v.entered != nil {
		v.entered <- key
		<-v.proceed
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if key == "forbidden" {
		return nil, errors.New("nobody may read this")
	}
	return v.values[v.at(collection, key)], nil
}

func (v *view) GetMany(collection string, keys []string) (values [][]byte, err error) {
	for _, key := range keys {
		value, err := v.Get(collection, key)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, nil
}

func (v *view) GetHash(collection, key string) ([]byte, error) {
	value, err := v.Get(collection, key)
	if value == nil || err != nil {
		return nil, err
	}
	sum := sha256.Sum256(value)
	return sum[:], nil
}

func (v *view) Put(collection, key string, value []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := v.at(collection, key)
	v.values[at] = value
	v.history[at] = append(v.history[at], &queryresultpb.KeyModification{TxId: v.call.TxID, Value: value, Timestamp: timestamppb.Now(), IsDelete: value == nil})
	if value == nil {
		delete(v.values, at)
	}
	return nil
}

func (v *view) Delete(collection, key string) error { return v.Put(collection, key, nil) }
func (v *view) Purge(collection, key string) error  { return v.Put(collection, key, nil) }

func (v *view) Metadata(collection, key string) (map[string][]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return maps.Clone(v.metadata[v.at(collection, key)]), nil
}

func (v *view) PutMetadata(collection, key, name string, value []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	at := v.at(collection, key)
	if v.metadata[at] == nil {
		v.metadata[at] = map[string][]byte{}
	}
	v.metadata[at][name] = value
	return nil
}

func (v *view) Range(collection, start, end string) (contracthost.StateIterator, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	it := &iterator{memory: v.memory}
	for at := range v.values {
		if at[0] == v.call.Namespace && at[1] == collection && at[2] >= start && (end == "" || at[2] < end) {
			it.keys = append(it.keys, at[2])
		}
	}
	slices.Sort(it.keys)
	for _, key := range it.keys {
		it.values = append(it.values, v.values[v.at(collection, key)])
	}
	v.open++
	return it, nil
}

func (v *view) RangePage(start, end string, size int32) (contracthost.StateIterator, error) {
	it, _ := v.Range("", start, end)
	i := it.(*iterator)
	if len(i.keys) > int(size) {
		i.bookmark = i.keys[size]
		i.keys = i.keys[:size]
	}
	return i, nil
}

func (v *view) Query(collection, query string) (contracthost.StateIterator, error) {
	return nil, fmt.Errorf("queries such as %s are not supported here", query)
}

func (v *view) QueryPage(query, _ string, _ int32) (contracthost.StateIterator, error) {
	return v.Query("", query)
}

func (v *view) History(key string) (contracthost.HistoryIterator, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	changes := slices.Clone(v.history[v.at("", key)])
	slices.Reverse(changes)
	v.open++
	return &historyIterator{memory: v.memory, changes: changes}, nil
}

func (v *view) Invoke(ctx context.Context, contract, channel string, input *peerpb.ChaincodeInput) (*peerpb.Response, error) {
	id, ok := v.packages[contract]
	if !ok {
		return nil, fmt.Errorf("[channel %s] failed to get chaincode container info for %s", channel, contract)
	}
	call := v.call
	call.Namespace, call.Input = contract, input
	response, _, err := v.execute(ctx, id, call)
	return response, err
}

func (m *memory) execute(ctx context.Context, packageID string, call contracthost.Invocation) (*peerpb.Response, *peerpb.ChaincodeEvent, error) {
	v := &view{memory: m}
	call.Backend = v
	v.call = call
	return m.host.Execute(ctx, packageID, call)
}

func (m *memory) openIterators() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open
}

func (m *memory) rowsRead() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

type iterator struct {
	memory   *memory
	keys     []string
	values   [][]byte
	n        int
	bookmark string
}

func (i *iterator) Next() (string, []byte, bool, error) {
	if i.n == len(i.keys) {
		return "", nil, false, nil
	}
	i.memory.mu.Lock()
	i.memory.reads++
	i.memory.mu.Unlock()
	i.n++
	return i.keys[i.n-1], i.values[i.n-1], true, nil
}
func (i *iterator) Bookmark() string { return i.bookmark }
func (i *iterator) Close() {
	i.memory.mu.Lock()
	defer i.memory.mu.Unlock()
	i.memory.open--
}

type historyIterator struct {
	memory  *memory
	changes []*queryresultpb.KeyModification
}

func (i *historyIterator) Next() (*queryresultpb.KeyModification, error) {
	if len(i.changes) == 0 {
		return nil, nil
	}
	change := i.changes[0]
	i.changes = i.changes[1:]
	return change, nil
}
func (i *historyIterator) Close() {
	i.memory.mu.Lock()
	defer i.memory.mu.Unlock()
	i.memory.open--
}

// proposal makes what a client would have signed. The host only passes it on.
func proposal(channel, tx string, creator []byte, transient map[string][]byte) *peerpb.SignedProposal {
	marshal := func(m proto.Message) []byte {
		raw, err := proto.Marshal(m)
		if err != nil {
			panic(err)
		}
		return raw
	}
	if creator == nil {
		creator = marshal(&msppb.SerializedIdentity{Mspid: "Org1MSP"})
	}
	header := &commonpb.Header{
		ChannelHeader:   marshal(&commonpb.ChannelHeader{Type: int32(commonpb.HeaderType_ENDORSER_TRANSACTION), ChannelId: channel, TxId: tx, Timestamp: &timestamppb.Timestamp{Seconds: 1_700_000_000}}),
		SignatureHeader: marshal(&commonpb.SignatureHeader{Creator: creator, Nonce: []byte("nonce")}),
	}
	return &peerpb.SignedProposal{ProposalBytes: marshal(&peerpb.Proposal{
		Header: marshal(header), Payload: marshal(&peerpb.ChaincodeProposalPayload{Input: []byte("input"), TransientMap: transient}),
	}), Signature: []byte("signature")}
}
