package ledger_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// The golden ledger: made by the reference implementation, see MANIFEST.md there.
const vectors = "../../testdata/vectors"

func readJSON(t testing.TB, name string, into any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

var goldenBlocks = sync.OnceValues(func() ([]*block.Parsed, error) {
	names, err := filepath.Glob(filepath.Join(vectors, "blocks", "*.block"))
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("no golden blocks: %v", err)
	}
	var all []*block.Parsed
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		b := &commonpb.Block{}
		if err := proto.Unmarshal(raw, b); err != nil {
			return nil, err
		}
		all = append(all, block.Parse(b))
	}
	return all, nil
})

func golden(t testing.TB) []*block.Parsed {
	t.Helper()
	blocks, err := goldenBlocks()
	if err != nil {
		t.Fatal(err)
	}
	return blocks
}

// privateOf gives what an organisation's peer had of a block's private data.
func privateOf(t testing.TB, org string, number uint64) (private []ledger.TxPrivate, missing []ledger.Missing) {
	t.Helper()
	private, missing, err := goldenPrivate(org, number)
	if err != nil {
		t.Fatal(err)
	}
	return private, missing
}

func goldenPrivate(org string, number uint64) (private []ledger.TxPrivate, missing []ledger.Missing, err error) {
	var file struct {
		Missing []struct {
			Tx                    uint64
			Namespace, Collection string
			Eligible              bool
		} `json:"missing_at_commit"`
		Txs map[string]struct {
			Set string `json:"tx_pvt_read_write_set_hex"`
		}
	}
	b, err := os.ReadFile(filepath.Join(vectors, "pvtdata", org, fmt.Sprintf("%06d.json", number)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &file)
	}
	if err != nil {
		return nil, nil, err
	}
	for index, tx := range file.Txs {
		p := ledger.TxPrivate{Set: &rwsetpb.TxPvtReadWriteSet{}}
		fmt.Sscan(index, &p.Tx)
		raw, err := hex.DecodeString(tx.Set)
		if err == nil {
			err = proto.Unmarshal(raw, p.Set)
		}
		if err != nil {
			return nil, nil, err
		}
		private = append(private, p)
	}
	sort.Slice(private, func(i, j int) bool { return private[i].Tx < private[j].Tx })
	for _, m := range file.Missing {
		missing = append(missing, ledger.Missing{Tx: m.Tx, Namespace: m.Namespace, Collection: m.Collection, Eligible: m.Eligible})
	}
	return private, missing, nil
}

type goldenEntry struct {
	Key   string `json:"key_hex"`
	Value struct {
		Hex    *string
		Sha256 string
	}
	Block, Tx uint64
	Metadata  string `json:"metadata_hex"`
}

func compareEntries(t *testing.T, where string, want []goldenEntry, it ledger.Iterator) {
	t.Helper()
	defer it.Close()
	for _, w := range want {
		key, v, ok, err := it.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			t.Errorf("%s: ends before key %s", where, w.Key)
			return
		}
		if hex.EncodeToString([]byte(key)) != w.Key {
			t.Errorf("%s: key %x, want %s", where, key, w.Key)
			return
		}
		sum := sha256.Sum256(v.Value)
		if w.Value.Hex != nil && hex.EncodeToString(v.Value) != *w.Value.Hex || w.Value.Hex == nil && hex.EncodeToString(sum[:]) != w.Value.Sha256 {
			t.Errorf("%s %s: value %x", where, w.Key, v.Value)
		}
		if v.Version != (rwset.Version{Block: w.Block, Tx: w.Tx}) {
			t.Errorf("%s %s: version %v, want %d:%d", where, w.Key, v.Version, w.Block, w.Tx)
		}
		if hex.EncodeToString(v.Metadata) != w.Metadata {
			t.Errorf("%s %s: metadata %x, want %s", where, w.Key, v.Metadata, w.Metadata)
		}
	}
	if key, _, ok, _ := it.Next(); ok {
		t.Errorf("%s: unexpected key %x", where, key)
	}
}

// compareWithGolden checks everything that the golden ledger's peer of an organisation held at the end.
func compareWithGolden(t *testing.T, l *ledger.Ledger, org string) {
	t.Helper()
	s := l.NewSnapshot()
	defer s.Close()
	var state struct {
		Height     uint64
		Namespaces map[string][]goldenEntry
	}
	readJSON(t, "state.json", &state)
	if s.Height() != state.Height || l.Height() != state.Height {
		t.Fatalf("height %d and %d, want %d", s.Height(), l.Height(), state.Height)
	}
	places := 0
	for _, hashed := range []bool{false, true} {
		list, err := s.Places(hashed)
		if err != nil {
			t.Fatal(err)
		}
		places += len(list)
	}
	if places != len(state.Namespaces) {
		t.Errorf("%d namespaces and hashed collections, want %d", places, len(state.Namespaces))
	}
	for name, want := range state.Namespaces {
		ns, coll, hashed := strings.Cut(name, "$$h")
		var it ledger.Iterator
		var err error
		if hashed {
			it, err = s.HashRange(ns, coll)
		} else {
			it, err = s.Range(ns, "", "")
		}
		if err != nil {
			t.Fatal(err)
		}
		compareEntries(t, name, want, it)
	}

	var private map[string]map[string][]goldenEntry
	readJSON(t, "private_state.json", &private)
	list, err := s.PrivatePlaces()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != len(private[org]) {
		t.Errorf("private collections %v, want %d", list, len(private[org]))
	}
	for name, want := range private[org] {
		ns, coll, _ := strings.Cut(name, "$$p")
		it, err := s.PrivateRange(ns, coll, "", "")
		if err != nil {
			t.Fatal(err)
		}
		compareEntries(t, org+" "+name, want, it)
	}

	var history []struct {
		Chaincode, Key string
		Results        []struct {
			IsDelete  bool `json:"is_delete"`
			Timestamp struct {
				Seconds int64
				Nanos   int32
			}
			TxID  string `json:"tx_id"`
			Value string `json:"value_hex"`
		} `json:"results_newest_first"`
	}
	readJSON(t, "history.json", &history)
	for _, h := range history {
		it, err := s.History(h.Chaincode, h.Key)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range h.Results {
			m, err := it.Next()
			if err != nil {
				t.Fatal(err)
			}
			if m == nil {
				t.Errorf("history of %s %s: ends after %d entries, want %d", h.Chaincode, h.Key, i, len(h.Results))
				break
			}
			if m.TxId != want.TxID || hex.EncodeToString(m.Value) != want.Value || m.IsDelete != want.IsDelete ||
				m.Timestamp.GetSeconds() != want.Timestamp.Seconds || m.Timestamp.GetNanos() != want.Timestamp.Nanos {
				t.Errorf("history of %s %s, entry %d: %v, want %v", h.Chaincode, h.Key, i, m, want)
			}
		}
		if m, err := it.Next(); m != nil || err != nil {
			t.Errorf("history of %s %s: more than wanted: %v %v", h.Chaincode, h.Key, m, err)
		}
		it.Close()
	}

	blocks := golden(t)
	last := blocks[len(blocks)-1]
	if !bytes.Equal(l.LastCommitHash(), block.CommitHash(last.Block)) {
		t.Errorf("last commit hash %x", l.LastCommitHash())
	}
	if i := l.Info(); i.Height != state.Height || !bytes.Equal(i.CurrentBlockHash, block.HeaderHash(last.Header)) || !bytes.Equal(i.PreviousBlockHash, last.Header.PreviousHash) {
		t.Errorf("info %v", i)
	}
}

// checkIndexes asks for every block and transaction in every way.
func checkIndexes(t *testing.T, l *ledger.Ledger) {
	t.Helper()
	var expected struct {
		Blocks []struct {
			Number     uint64
			HeaderHash string `json:"header_hash"`
			Txs        []struct {
				TxID      string `json:"tx_id"`
				IndexTxID string `json:"index_tx_id"`
				Code      int32  `json:"validation_code"`
			}
		}
	}
	readJSON(t, "expected.json", &expected)
	owner := map[string]bool{}
	blocks := golden(t)
	for _, e := range expected.Blocks {
		hash, _ := hex.DecodeString(e.HeaderHash)
		b, err := l.BlockByHash(hash)
		if err != nil || !proto.Equal(b, blocks[e.Number].Block) {
			t.Errorf("block %d by hash: %v", e.Number, err)
		}
		for i, tx := range e.Txs {
			id := tx.TxID
			if id == "" {
				id = tx.IndexTxID
			}
			if got := ledger.TxID(blocks[e.Number].Txs[i]); got != id {
				t.Errorf("transaction %d:%d is indexed as %q, want %q", e.Number, i, got, id)
			}
			if id == "" || owner[id] {
				continue
			}
			owner[id] = true
			code, n, ok, err := l.TxStatus(id)
			if err != nil || !ok || int32(code) != tx.Code || n != e.Number {
				t.Errorf("status of %s: code %v, block %d, found %v, %v; want code %d, block %d", id, code, n, ok, err, tx.Code, e.Number)
			}
			if has, err := l.HasTx(id); !has || err != nil {
				t.Errorf("has %s: %v, %v", id, has, err)
			}
			p, err := l.Transaction(id)
			if err != nil || p.ValidationCode != tx.Code || !proto.Equal(p.TransactionEnvelope, blocks[e.Number].Txs[i].Envelope) {
				t.Errorf("transaction %s: %v", id, err)
			}
			if b, err := l.BlockByTxID(id); err != nil || b.Header.Number != e.Number {
				t.Errorf("block of %s: %v", id, err)
			}
		}
	}
}

// TestGolden commits the golden ledger as each organisation's peer did and compares all of it: the bytes that enter
// every commit hash, the commit hashes, state, private state, history and indexes; then again after a
// restart, and after a rebuild from the log alone.
func TestGolden(t *testing.T) {
	for _, org := range []string{"Alpha", "Beta", "Gamma"} {
		t.Run(org, func(t *testing.T) {
			t.Parallel()
			config := ledger.Config{Dir: t.TempDir(), ChannelID: "devledger", SegmentBytes: 300 << 10}
			l, err := ledger.Open(config)
			if err != nil {
				t.Fatal(err)
			}
			summaries := 0
			for _, b := range golden(t) {
				n := b.Header.Number
				codes := block.Filter(b.Block)
				sets, err := ledger.Sets(b, codes)
				if err != nil {
					t.Fatal(err)
				}
				s := l.NewSnapshot()
				u, err := ledger.Derive(b, codes, sets, s)
				if err != nil {
					t.Fatal(err)
				}
				summaries += checkSummaries(t, s, u, sets)
				s.Close()
				if n > 0 {
					want, err := os.ReadFile(filepath.Join(vectors, "commit_inputs", fmt.Sprintf("%06d.bin", n)))
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(u.CommitBytes(), want) {
						t.Errorf("block %d: commit bytes %x, want %x", n, u.CommitBytes(), want)
					}
					if h := rwset.CommitHash(codes, u.CommitBytes(), l.LastCommitHash()); !bytes.Equal(h, block.CommitHash(b.Block)) {
						t.Errorf("block %d: commit hash %x, want %x", n, h, block.CommitHash(b.Block))
					}
				}
				c := &ledger.Commit{Block: b, Updates: u, Sets: sets}
				if n%2 == 0 { // the ledger comes to the same by itself
					c.Updates, c.Sets = nil, nil
				}
				c.Private, c.Missing = privateOf(t, org, n)
				if err := l.Commit(c); err != nil {
					t.Fatal(err)
				}
			}
			if summaries < 4 {
				t.Errorf("only %d range query summaries were compared", summaries)
			}
			compareWithGolden(t, l, org)
			checkIndexes(t, l)
			for _, rebuild := range []bool{false, true} {
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
				if rebuild {
					if err := os.RemoveAll(filepath.Join(config.Dir, "derived")); err != nil {
						t.Fatal(err)
					}
				}
				if l, err = ledger.Open(config); err != nil {
					t.Fatal(err)
				}
				compareWithGolden(t, l, org)
				checkIndexes(t, l)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// checkSummaries makes the Merkle summaries of valid range queries again from the state they were made on, where no other
// transaction of the block came between.
func checkSummaries(t *testing.T, s *ledger.Snapshot, u *rwset.Updates, sets []*rwset.Set) (compared int) {
	t.Helper()
	for i, set := range sets {
		if set == nil {
			continue
		}
		for _, n := range set.Namespaces {
			for _, q := range n.KV.RangeQueriesInfo {
				want := q.GetReadsMerkleHashes()
				end := q.EndKey
				if !q.ItrExhausted {
					end += "\x00"
				}
				if want == nil || len(u.Range(n.Name, q.StartKey, end)) > 0 {
					continue
				}
				r, err := rwset.NewRangeResults(want.MaxDegree)
				if err != nil {
					t.Fatal(err)
				}
				it, err := s.Range(n.Name, q.StartKey, end)
				if err != nil {
					t.Fatal(err)
				}
				for {
					key, v, ok, err := it.Next()
					if err != nil {
						t.Fatal(err)
					}
					if !ok {
						break
					}
					r.Add(key, v.Version)
				}
				it.Close()
				if _, got := r.Done(); !proto.Equal(got, want) {
					t.Errorf("transaction %d at height %d: summary %v, want %v", i, s.Height(), got, want)
				}
				compared++
			}
		}
	}
	return compared
}

// TestPrivateDataOfBlock checks that what was committed comes back, but for what a later purge took.
func TestPrivateDataOfBlock(t *testing.T) {
	l, err := ledger.Open(ledger.Config{Dir: t.TempDir(), ChannelID: "devledger"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	purged := 0
	for _, b := range golden(t) {
		c := &ledger.Commit{Block: b}
		c.Private, c.Missing = privateOf(t, "Alpha", b.Header.Number)
		if err := l.Commit(c); err != nil {
			t.Fatal(err)
		}
		got, err := l.PrivateData(b.Header.Number)
		if err != nil || len(got) != len(c.Private) {
			t.Fatalf("block %d: %d private sets, want %d, %v", b.Header.Number, len(got), len(c.Private), err)
		}
		for _, set := range mustSets(t, b) {
			if set == nil {
				continue
			}
			for _, ns := range set.Namespaces {
				for _, coll := range ns.Collections {
					for _, w := range coll.Hashed.HashedWrites {
						if w.IsPurge {
							purged++
						}
					}
				}
			}
		}
	}
	if purged == 0 {
		t.Fatal("the golden ledger is expected to purge")
	}
	trimmed := 0
	for n := uint64(0); n < l.Height(); n++ {
		want, _ := privateOf(t, "Alpha", n)
		got, err := l.PrivateData(n)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if !proto.Equal(got[i].Set, want[i].Set) {
				trimmed++
			}
		}
	}
	if trimmed == 0 {
		t.Error("no write set was trimmed although keys were purged")
	}
}

func mustSets(t *testing.T, b *block.Parsed) []*rwset.Set {
	t.Helper()
	sets, err := ledger.Sets(b, block.Filter(b.Block))
	if err != nil {
		t.Fatal(err)
	}
	return sets
}
