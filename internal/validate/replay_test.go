package validate_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

const vectors = "../../testdata/vectors"

// memory is the state in maps: a naive twin of the real one.
type memory struct {
	places map[rwset.Place]map[string]*rwset.VersionedValue
	ids    map[string]bool
}

func newMemory() *memory {
	return &memory{places: map[rwset.Place]map[string]*rwset.VersionedValue{}, ids: map[string]bool{}}
}

func (m *memory) Get(ns, key string) (*rwset.VersionedValue, error) {
	return m.places[rwset.Place{Namespace: ns}][key], nil
}

func (m *memory) GetHash(ns, coll string, hash []byte) (*rwset.VersionedValue, error) {
	return m.places[rwset.Place{Namespace: ns, Collection: coll}][string(hash)], nil
}

func (m *memory) Metadata(ns, key string) ([]byte, error) {
	v, _ := m.Get(ns, key)
	if v == nil {
		return nil, nil
	}
	return v.Metadata, nil
}

func (m *memory) HashMetadata(ns, coll string, hash []byte) ([]byte, error) {
	v, _ := m.GetHash(ns, coll, hash)
	if v == nil {
		return nil, nil
	}
	return v.Metadata, nil
}

func (m *memory) HasTx(id string) (bool, error) { return m.ids[id], nil }

func (m *memory) Range(ns, start, end string) (ledger.Iterator, error) {
	it := &iterator{values: m.places[rwset.Place{Namespace: ns}]}
	for key := range it.values {
		if key >= start && (end == "" || key < end) {
			it.keys = append(it.keys, key)
		}
	}
	slices.Sort(it.keys)
	return it, nil
}

type iterator struct {
	keys   []string
	values map[string]*rwset.VersionedValue
}

func (it *iterator) Next() (string, *rwset.VersionedValue, bool, error) {
	if len(it.keys) == 0 {
		return "", nil, false, nil
	}
	key := it.keys[0]
	it.keys = it.keys[1:]
	return key, it.values[key], true, nil
}

func (it *iterator) Close() error { return nil }

func (m *memory) commit(r *validate.Result) {
	for _, place := range r.Updates.Places() {
		if m.places[place] == nil {
			m.places[place] = map[string]*rwset.VersionedValue{}
		}
		for _, up := range r.Updates.At(place) {
			if delete(m.places[place], up.Key); !up.Delete {
				m.places[place][up.Key] = &rwset.VersionedValue{Value: up.Value, Metadata: up.Metadata, Version: up.Version}
			}
		}
	}
	for _, id := range r.TxIDs {
		m.ids[id] = true
	}
	delete(m.ids, "")
}

// expire removes the hashes of a collection whose keys were last written blocksToLive before the block.
func (m *memory) expire(place rwset.Place, blocksToLive, number uint64) {
	for key, v := range m.places[place] {
		if v.Version.Block+blocksToLive+1 <= number {
			delete(m.places[place], key)
		}
	}
}

type expectedBlock struct {
	CommitHash string `json:"commit_hash"`
	Number     uint64 `json:"number"`
	Txs        []struct {
		ID      string `json:"tx_id"`
		IndexID string `json:"index_tx_id"`
		Code    byte   `json:"validation_code"`
		Label   string `json:"label"`
	} `json:"txs"`
}

func loadExpected(t testing.TB) []expectedBlock {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Blocks []expectedBlock `json:"blocks"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	return file.Blocks
}

func loadBlock(t testing.TB, number int) *block.Parsed {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, "blocks", fmt.Sprintf("%06d.block", number)))
	if err != nil {
		t.Fatal(err)
	}
	b := &commonpb.Block{}
	if err := proto.Unmarshal(raw, b); err != nil {
		t.Fatal(err)
	}
	return block.Parse(b)
}

// blocksToLive is the life of the vectors' collections that have one.
var blocksToLive = map[rwset.Place]uint64{{Namespace: "pvt", Collection: "collBTL"}: 3}

// chain is the golden ledger up to some block.
type chain struct {
	t         testing.TB
	validator *validate.Validator
	verifier  *identity.Verifier
	bundle    *channel.Bundle
	state     *memory
	height    int
	hash      []byte // commit hash
	tip       []byte // hash of the last block's header
}

func newChain(t testing.TB) *chain {
	t.Helper()
	c := &chain{t: t, validator: validate.New(validate.Config{}), verifier: identity.NewVerifier(identity.Config{}), state: newMemory()}
	genesis := loadBlock(t, 0)
	var err error
	if c.bundle, err = channel.FromBlock(genesis.Block, c.verifier); err != nil {
		t.Fatal(err)
	}
	r, err := validate.Genesis(genesis)
	if err != nil {
		t.Fatal(err)
	}
	c.commit(genesis, r)
	return c
}

func (c *chain) commit(b *block.Parsed, r *validate.Result) {
	c.tip = block.HeaderHash(b.Header)
	if c.height > 0 {
		c.hash = rwset.CommitHash(r.Codes, r.Updates.CommitBytes(), c.hash)
	}
	c.state.commit(r)
	for place, life := range blocksToLive {
		c.state.expire(place, life, uint64(c.height))
	}
	if r.NextBundle != nil {
		c.bundle = r.NextBundle
	}
	c.height++
}

func (c *chain) decide(b *block.Parsed) *validate.Result {
	c.t.Helper()
	r, err := c.validator.Decide(c.bundle, c.validator.Prepare(c.bundle, b), c.state)
	if err != nil {
		c.t.Fatalf("block %d: %v", b.Header.Number, err)
	}
	return r
}

// to replays the golden ledger up to a height.
func (c *chain) to(height int) *chain {
	for c.height < height {
		b := loadBlock(c.t, c.height)
		c.commit(b, c.decide(b))
	}
	return c
}

func codeName(code byte) string { return peerpb.TxValidationCode(code).String() }

// The golden ledger was made by Hyperledger Fabric: every validation code, transaction identifier and commit hash
// must come out the same.
func TestGoldenLedger(t *testing.T) {
	c := newChain(t)
	transactions := 0
	for _, want := range loadExpected(t) {
		if want.Number == 0 {
			continue
		}
		b := loadBlock(t, int(want.Number))
		if err := validate.Accept(c.bundle, b.Block, want.Number, c.tip); err != nil {
			t.Error(err)
		}
		r := c.decide(b)
		for i, tx := range want.Txs {
			transactions++
			if r.Codes[i] != tx.Code {
				t.Errorf("block %d transaction %d (%s): code %s, want %s", want.Number, i, tx.Label, codeName(r.Codes[i]), codeName(tx.Code))
			}
			if id := cmpOr(tx.ID, tx.IndexID); r.TxIDs[i] != id {
				t.Errorf("block %d transaction %d (%s): id %q, want %q", want.Number, i, tx.Label, r.TxIDs[i], id)
			}
		}
		if !bytes.Equal(r.Codes, block.Filter(b.Block)) {
			t.Errorf("block %d: filter %x, want %x", want.Number, r.Codes, block.Filter(b.Block))
		}
		if bytesOf, err := os.ReadFile(filepath.Join(vectors, "commit_inputs", fmt.Sprintf("%06d.bin", want.Number))); err != nil {
			t.Error(err)
		} else if got := r.Updates.CommitBytes(); !bytes.Equal(got, bytesOf) {
			t.Errorf("block %d: update bytes\n got %x\nwant %x", want.Number, got, bytesOf)
		}
		c.commit(b, r)
		if got := hex.EncodeToString(c.hash); got != want.CommitHash {
			t.Fatalf("block %d: commit hash %s, want %s", want.Number, got, want.CommitHash)
		}
	}
	if c.height != 115 || transactions != 442 {
		t.Errorf("replayed %d blocks and %d transactions after genesis, want 115 and 442", c.height, transactions)
	}
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// At the end the state is what Fabric's peer had.
func TestGoldenState(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(vectors, "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Namespaces map[string][]struct {
			Key   string `json:"key_hex"`
			Value struct {
				Hex    string `json:"hex"`
				Length int    `json:"len"`
			} `json:"value"`
			Metadata  string `json:"metadata_hex"`
			Block, Tx uint64
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	c := newChain(t).to(115)
	keys := 0
	for name, want := range file.Namespaces {
		place := rwset.Place{Namespace: name}
		if ns, coll, hashed := strings.Cut(name, "$$h"); hashed {
			place = rwset.Place{Namespace: ns, Collection: coll}
		}
		if got := len(c.state.places[place]); got != len(want) {
			t.Errorf("%q: %d keys, want %d", name, got, len(want))
		}
		for _, w := range want {
			keys++
			key, _ := hex.DecodeString(w.Key)
			got := c.state.places[place][string(key)]
			switch {
			case got == nil:
				t.Errorf("%q: key %q is missing", name, key)
			case got.Version != rwset.Version{Block: w.Block, Tx: w.Tx}:
				t.Errorf("%q: key %q has version %v, want %d:%d", name, key, got.Version, w.Block, w.Tx)
			case w.Value.Hex != "" && hex.EncodeToString(got.Value) != w.Value.Hex, w.Value.Length > 0 && len(got.Value) != w.Value.Length:
				t.Errorf("%q: key %q has another value", name, key)
			case hex.EncodeToString(got.Metadata) != w.Metadata:
				t.Errorf("%q: key %q has metadata %x, want %s", name, key, got.Metadata, w.Metadata)
			}
		}
	}
	if keys < 900 {
		t.Errorf("compared only %d keys", keys)
	}
}
