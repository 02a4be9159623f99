package rwset_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

const vectors = "../../testdata/vectors"

// goldenResults gives the results of every endorser transaction of the golden ledger that have any.
func goldenResults(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(vectors, "blocks", "*.block"))
	if err != nil || len(names) == 0 {
		t.Fatal("no golden blocks", err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b := &commonpb.Block{}
		if err := proto.Unmarshal(raw, b); err != nil {
			t.Fatal(err)
		}
		for i, tx := range block.Parse(b).Txs {
			if len(tx.Actions) > 0 && tx.Actions[0].Chaincode != nil && block.Filter(b)[i] == 0 {
				all[fmt.Sprintf("%d:%d", b.Header.Number, i)] = tx.Actions[0].Chaincode.Results
			}
		}
	}
	return all
}

// goldenPrivate gives the private write sets of the golden ledger, by the hex of their transaction's place and collection.
func goldenPrivate(t testing.TB) map[string]*rwset.PrivateSet {
	t.Helper()
	all := map[string]*rwset.PrivateSet{}
	names, _ := filepath.Glob(filepath.Join(vectors, "pvtdata", "*", "*.json"))
	for _, name := range names {
		var file struct {
			Block uint64
			Txs   map[string]struct {
				Set string `json:"tx_pvt_read_write_set_hex"`
			}
		}
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &file); err != nil {
			t.Fatal(err)
		}
		for tx, x := range file.Txs {
			b, _ := hex.DecodeString(x.Set)
			p := &rwsetpb.TxPvtReadWriteSet{}
			if err := proto.Unmarshal(b, p); err != nil {
				t.Fatal(err)
			}
			set, err := rwset.ParsePrivate(p)
			if err != nil {
				t.Fatal(err)
			}
			id := fmt.Sprintf("%d:%s", file.Block, tx)
			if all[id] == nil {
				all[id] = &rwset.PrivateSet{}
			}
			all[id].Collections = append(all[id].Collections, set.Collections...)
		}
	}
	return all
}

// TestBuilderMakesGoldenBytes feeds what golden transactions read and wrote to a Builder, backwards, and wants their
// bytes again. What an honest endorser cannot make (repeated keys, unsorted or empty namespaces) is left out.
func TestBuilderMakesGoldenBytes(t *testing.T) {
	private := goldenPrivate(t)
	compared, withPrivate := 0, 0
next:
	for id, results := range goldenResults(t) {
		set, err := rwset.Parse(results)
		if err != nil {
			t.Fatal(err)
		}
		b := rwset.NewBuilder()
		for i, n := range set.Namespaces {
			if i > 0 && set.Namespaces[i-1].Name >= n.Name || len(n.Collections) == 0 && proto.Size(n.KV) == 0 {
				continue next
			}
		}
		for _, n := range slices.Backward(set.Namespaces) {
			for _, r := range slices.Backward(n.KV.Reads) {
				b.AddRead(n.Name, r.Key, rwset.VersionOf(r.Version))
			}
			for _, q := range n.KV.RangeQueriesInfo {
				b.AddRangeQuery(n.Name, q)
			}
			for i, w := range slices.Backward(n.KV.Writes) {
				if i > 0 && n.KV.Writes[i-1].Key >= w.Key || w.IsDelete != (len(w.Value) == 0) {
					continue next
				}
				b.AddWrite(n.Name, w.Key, w.Value)
			}
			for _, w := range slices.Backward(n.KV.MetadataWrites) {
				m := map[string][]byte{}
				for _, e := range w.Entries {
					m[e.Name] = e.Value
				}
				b.AddMetadataWrite(n.Name, w.Key, m)
			}
			for _, c := range n.Collections {
				var of *rwset.PrivateCollection
				if p := private[id]; p != nil {
					for _, x := range p.Collections {
						if x.Namespace == n.Name && x.Name == c.Name {
							of = x
						}
					}
				}
				if of == nil || len(c.Hashed.HashedReads) > 0 {
					continue next // its keys are not known
				}
				for i, w := range of.KV.Writes {
					if c.Hashed.HashedWrites[i].IsPurge {
						b.AddPrivatePurge(n.Name, c.Name, w.Key)
					} else {
						b.AddPrivateWrite(n.Name, c.Name, w.Key, w.Value)
					}
				}
				for i, w := range of.KV.MetadataWrites {
					m := map[string][]byte{}
					for _, e := range c.Hashed.MetadataWrites[i].Entries {
						m[e.Name] = e.Value
					}
					b.AddPrivateMetadataWrite(n.Name, c.Name, w.Key, m)
				}
				withPrivate++
			}
		}
		got, _, err := b.Results()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, results) {
			t.Errorf("transaction %s: built %x, want %x", id, got, results)
		}
		compared++
	}
	if compared < 200 || withPrivate < 30 {
		t.Errorf("only %d transactions and %d private write sets were compared", compared, withPrivate)
	}
}

// TestMerkleShape checks when there is a tree and how wide its top may be. That its hashes are right is shown by
// the golden ledger's summaries, which package ledger makes again from the state.
func TestMerkleShape(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 7, 8, 9, 26, 27, 28, 81, 82, 200} {
		r, err := rwset.NewRangeResults(2)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			r.Add(fmt.Sprintf("k%03d", i), rwset.Version{Block: uint64(i), Tx: uint64(i % 3)})
		}
		reads, summary := r.Done()
		if n <= 2 {
			if len(reads) != n || summary != nil {
				t.Errorf("%d results: %d reads, %v", n, len(reads), summary)
			}
			continue
		}
		if reads != nil || summary == nil || len(summary.MaxLevelHashes) == 0 || len(summary.MaxLevelHashes) > 2 || summary.MaxDegree != 2 {
			t.Errorf("%d results: %d reads, %v", n, len(reads), summary)
		}
	}
	for _, degree := range []uint32{0, 1} {
		if _, err := rwset.NewRangeResults(degree); err == nil {
			t.Errorf("degree %d was taken", degree)
		}
	}
	if r, err := rwset.NewRangeResults(1<<32 - 1); err != nil || r.Summary() == nil {
		t.Error(err)
	}
}

// TestGoldenRangeSummaries summarises the golden ledger's lists of raw reads again, and checks the degree of its trees.
func TestGoldenRangeSummaries(t *testing.T) {
	raw, merkle := 0, 0
	for id, results := range goldenResults(t) {
		set, err := rwset.Parse(results)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range set.Namespaces {
			for _, q := range n.KV.RangeQueriesInfo {
				if m := q.GetReadsMerkleHashes(); m != nil {
					merkle++
					if m.MaxDegree != rwset.MaxDegree {
						t.Errorf("%s: degree %d", id, m.MaxDegree)
					}
				} else if reads := q.GetRawReads().GetKvReads(); len(reads) > 0 {
					raw++
					r, err := rwset.NewRangeResults(rwset.MaxDegree)
					if err != nil {
						t.Fatal(err)
					}
					for _, read := range reads {
						r.Add(read.Key, *rwset.VersionOf(read.Version))
					}
					again := &kvrwsetpb.RangeQueryInfo{StartKey: q.StartKey, EndKey: q.EndKey, ItrExhausted: q.ItrExhausted}
					if r.Finish(again); !proto.Equal(again, q) {
						t.Errorf("%s: %v, want %v", id, again, q)
					}
				}
			}
		}
	}
	if raw == 0 || merkle == 0 {
		t.Errorf("%d raw, %d summarised", raw, merkle)
	}
}

// state is a State over maps.
type state map[string]*rwset.VersionedValue

func (s state) Get(ns, key string) (*rwset.VersionedValue, error) { return s[ns+"/"+key], nil }
func (s state) GetHash(ns, coll string, h []byte) (*rwset.VersionedValue, error) {
	return s[ns+"/"+coll+"/"+string(h)], nil
}
func (s state) Metadata(ns, key string) ([]byte, error) {
	if v := s[ns+"/"+key]; v != nil {
		return v.Metadata, nil
	}
	return nil, nil
}
func (s state) HashMetadata(ns, coll string, h []byte) ([]byte, error) {
	return s.Metadata(ns, coll+"/"+string(h))
}

// TestApply holds the rules that hostile and odd write sets fall under.
func TestApply(t *testing.T) {
	put := func(v string) *kvrwsetpb.KVWrite { return &kvrwsetpb.KVWrite{Key: "k", Value: []byte(v)} }
	del := &kvrwsetpb.KVWrite{Key: "k", IsDelete: true}
	meta := &kvrwsetpb.KVMetadataWrite{Key: "k", Entries: []*kvrwsetpb.KVMetadataEntry{{Name: "n", Value: []byte("m")}}}
	clear := &kvrwsetpb.KVMetadataWrite{Key: "k"}
	m := string(rwset.EncodeMetadata(meta.Entries))
	repeat := func(n int) (w []*kvrwsetpb.KVWrite) {
		for i := range n {
			w = append(w, put(fmt.Sprint("v", i+1)))
		}
		return w
	}
	type tx struct {
		writes []*kvrwsetpb.KVWrite
		meta   []*kvrwsetpb.KVMetadataWrite
	}
	for _, c := range []struct {
		name   string
		absent bool
		txs    []tx
		want   string // value|metadata, "-" for a delete, "" for no update
	}{
		{"a value keeps the metadata", false, []tx{{writes: repeat(1)}}, "v1|old"},
		{"metadata keeps the value", false, []tx{{meta: []*kvrwsetpb.KVMetadataWrite{meta}}}, "value|" + m},
		{"both", false, []tx{{repeat(1), []*kvrwsetpb.KVMetadataWrite{meta}}}, "v1|" + m},
		{"value and no metadata", false, []tx{{repeat(1), []*kvrwsetpb.KVMetadataWrite{clear}}}, "v1|"},
		{"metadata removed", false, []tx{{meta: []*kvrwsetpb.KVMetadataWrite{clear}}}, "value|"},
		{"metadata of nothing", true, []tx{{meta: []*kvrwsetpb.KVMetadataWrite{meta}}}, ""},
		{"delete", false, []tx{{writes: []*kvrwsetpb.KVWrite{del}}}, "-"},
		{"delete of nothing", true, []tx{{writes: []*kvrwsetpb.KVWrite{del}}}, "-"},
		{"an empty value deletes", false, []tx{{writes: []*kvrwsetpb.KVWrite{put("")}}}, "-"},
		{"delete wins over metadata", false, []tx{{[]*kvrwsetpb.KVWrite{del}, []*kvrwsetpb.KVMetadataWrite{meta}}}, "-"},
		{"delete, then put in the block", false, []tx{{writes: []*kvrwsetpb.KVWrite{del}}, {writes: repeat(1)}}, "v1|"},
		{"put, then put in the block", false, []tx{{writes: repeat(1)}, {writes: repeat(1)}}, "v1|old"},
		{"delete, then metadata in the block", false, []tx{{writes: []*kvrwsetpb.KVWrite{del}}, {meta: []*kvrwsetpb.KVMetadataWrite{meta}}}, "-"},
		{"twice keeps the old value", false, []tx{{writes: repeat(2)}}, "value|"},
		{"twice of nothing", true, []tx{{writes: repeat(2)}}, ""},
		{"three times works", false, []tx{{writes: repeat(3)}}, "v3|"},
		{"eight times deletes", false, []tx{{writes: repeat(8)}}, "-"},
		{"256 times is once", false, []tx{{writes: repeat(257)}}, "v257|old"},
		{"two deletes keep the value", false, []tx{{writes: []*kvrwsetpb.KVWrite{del, del}}}, "value|"},
	} {
		for _, collection := range []bool{false, true} {
			s := state{}
			if !c.absent {
				s["ns/k"] = &rwset.VersionedValue{Value: []byte("value"), Metadata: []byte("old")}
				s["ns/coll/k"] = s["ns/k"]
			}
			u := rwset.NewUpdates(5)
			for i, x := range c.txs {
				n := &rwset.Namespace{Name: "ns", KV: &kvrwsetpb.KVRWSet{Writes: x.writes, MetadataWrites: x.meta}}
				if collection {
					coll := &rwset.Collection{Name: "coll", Hashed: &kvrwsetpb.HashedRWSet{}}
					for _, w := range x.writes {
						coll.Hashed.HashedWrites = append(coll.Hashed.HashedWrites, &kvrwsetpb.KVWriteHash{KeyHash: []byte(w.Key), ValueHash: w.Value, IsDelete: w.IsDelete})
					}
					for _, w := range x.meta {
						coll.Hashed.MetadataWrites = append(coll.Hashed.MetadataWrites, &kvrwsetpb.KVMetadataWriteHash{KeyHash: []byte(w.Key), Entries: w.Entries})
					}
					n = &rwset.Namespace{Name: "ns", KV: &kvrwsetpb.KVRWSet{}, Collections: []*rwset.Collection{coll}}
				}
				if err := u.Apply(uint64(i), &rwset.Set{Namespaces: []*rwset.Namespace{n}}, s); err != nil {
					t.Fatal(err)
				}
			}
			up := u.Get("ns", "k")
			if collection {
				up = u.GetHash("ns", "coll", []byte("k"))
			}
			got := ""
			if up != nil && up.Delete {
				got = "-"
			} else if up != nil {
				got = string(up.Value) + "|" + string(up.Metadata)
			}
			if got != c.want {
				t.Errorf("%s (collection: %v): %q, want %q", c.name, collection, got, c.want)
			}
		}
	}
}

func TestRangeOfUpdates(t *testing.T) {
	u := rwset.NewUpdates(1)
	var writes []*kvrwsetpb.KVWrite
	for _, k := range []string{"a", "b", "c", "d"} {
		writes = append(writes, &kvrwsetpb.KVWrite{Key: k, Value: []byte(k), IsDelete: k == "b"})
	}
	if err := u.Apply(0, &rwset.Set{Namespaces: []*rwset.Namespace{{Name: "ns", KV: &kvrwsetpb.KVRWSet{Writes: writes}}}}, state{}); err != nil {
		t.Fatal(err)
	}
	keys := func(ups []*rwset.Update) (s string) {
		for _, up := range ups {
			s += up.Key
		}
		return s
	}
	if got := keys(u.Range("ns", "b", "d")); got != "bc" {
		t.Error(got)
	}
	if got := keys(u.Range("ns", "", "")); got != "abcd" || u.Len() != 4 || keys(u.Range("other", "", "")) != "" {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	i := 0
	for _, r := range goldenResults(f) {
		if i++; i%20 == 0 {
			f.Add(r)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		set, err := rwset.Parse(b)
		if err != nil {
			return
		}
		u := rwset.NewUpdates(1)
		if err := u.Apply(0, set, state{}); err != nil {
			t.Fatal(err)
		}
		u.CommitBytes()
		for _, n := range set.Namespaces {
			for _, w := range n.KV.MetadataWrites {
				if _, err := rwset.DecodeMetadata(rwset.EncodeMetadata(w.Entries)); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func BenchmarkApplyAndCommitBytes(b *testing.B) {
	var sets []*rwset.Set
	for _, r := range goldenResults(b) {
		set, err := rwset.Parse(r)
		if err != nil {
			b.Fatal(err)
		}
		sets = append(sets, set)
	}
	for b.Loop() {
		u := rwset.NewUpdates(1)
		for i, s := range sets {
			if err := u.Apply(uint64(i), s, state{}); err != nil {
				b.Fatal(err)
			}
		}
		u.CommitBytes()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(sets)), "ns/tx")
}
