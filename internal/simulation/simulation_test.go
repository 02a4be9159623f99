package simulation_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// snapshot makes a ledger's snapshot one of the simulation's.
type snapshot struct{ *ledger.Snapshot }

func (s snapshot) Range(ns, start, end string) (simulation.StateIterator, error) {
	return s.Snapshot.Range(ns, start, end)
}

func (s snapshot) PrivateRange(ns, coll, start, end string) (simulation.StateIterator, error) {
	return s.Snapshot.PrivateRange(ns, coll, start, end)
}

func (s snapshot) History(ns, key string) (simulation.HistoryIterator, error) {
	return s.Snapshot.History(ns, key)
}

// golden opens a ledger with the first blocks of the golden one, without private data.
func golden(t testing.TB, height int) snapshot {
	t.Helper()
	l, err := ledger.Open(ledger.Config{Dir: "ledger", ChannelID: "devledger", FS: vfs.NewMem()})
	must(t, err)
	for n := range height {
		raw, err := os.ReadFile(filepath.Join("../../testdata/vectors/blocks", fmt.Sprintf("%06d.block", n)))
		must(t, err)
		b := &commonpb.Block{}
		must(t, proto.Unmarshal(raw, b))
		must(t, l.Commit(&ledger.Commit{Block: block.Parse(b)}))
	}
	s := snapshot{l.NewSnapshot()}
	t.Cleanup(func() {
		must(t, s.Close())
		must(t, l.Close())
	})
	return s
}

// definitions defines a contract with collections: open to all, for members to read, for members to write.
type definitions struct{}

func (definitions) Collections(contract string, read func(ns, key string) ([]byte, error)) (*peerpb.CollectionConfigPackage, bool, error) {
	if contract != "pvt" {
		return nil, false, nil
	}
	if _, err := read("definitions", contract); err != nil {
		return nil, false, err
	}
	pkg := &peerpb.CollectionConfigPackage{}
	for _, c := range []*peerpb.StaticCollectionConfig{
		{Name: "collAB"}, {Name: "readers", MemberOnlyRead: true}, {Name: "writers", MemberOnlyWrite: true}, {Name: "broken", MemberOnlyRead: true, BlockToLive: 1},
	} {
		pkg.Config = append(pkg.Config, &peerpb.CollectionConfig{Payload: &peerpb.CollectionConfig_StaticCollectionConfig{StaticCollectionConfig: c}})
	}
	return pkg, true, nil
}

func config(s simulation.Snapshot) simulation.Config {
	return simulation.Config{
		ChannelID: "devledger", TxID: "tx1", Snapshot: s, Definitions: definitions{}, Orgs: []string{"AlphaMSP"}, KeyPolicies: true, Purge: true,
		Member: func(*peerpb.CollectionPolicyConfig) (bool, error) { return false, nil },
	}
}

// TestRules combines operations that do not go together, or are not open to everyone.
func TestRules(t *testing.T) {
	s := golden(t, 60)
	drain := func(q *simulation.Query, err error) error {
		if err != nil {
			return err
		}
		defer q.Close()
		for {
			if _, _, ok, err := q.Next(); !ok || err != nil {
				return err
			}
		}
	}
	type contract = *simulation.Contract
	put := func(c contract) error { return c.Put("", "k", []byte("v")) }
	privatePut := func(c contract) error { return c.Put("collAB", "k", []byte("v")) }
	page := func(c contract) error { return drain(c.RangePage("a", "z", 2)) }
	privateRange := func(c contract) error { return drain(c.Range("collAB", "a", "z")) }
	cases := []struct {
		what  string
		init  bool
		tune  func(*simulation.Config)
		steps []func(contract) error
		want  string // of the last step, empty for none
	}{
		{"write after a page", false, nil, []func(contract) error{page, put}, "txid [tx1]: unsuppored transaction. Transaction has already performed a paginated query. Writes are not allowed"},
		{"private write after a page", false, nil, []func(contract) error{page, privatePut}, "txid [tx1]: unsuppored transaction. Transaction has already performed a paginated query. Writes are not allowed"},
		{"page after a write", false, nil, []func(contract) error{put, page}, "txid [tx1]: unsuppored transaction. Paginated queries are supported only in a read-only transaction"},
		{"write after a private range", false, nil, []func(contract) error{privateRange, put}, "txid [tx1]: unsuppored transaction. Transaction has already performed queries on pvt data. Writes are not allowed"},
		{"private range after a write", false, nil, []func(contract) error{privatePut, privateRange}, "txid [tx1]: unsuppored transaction. Queries on pvt data is supported only in a read-only transaction"},
		{"private range after a page", false, nil, []func(contract) error{page, privateRange}, ""},
		{"metadata after a page", false, nil, []func(contract) error{page, func(c contract) error { return c.PutMetadata("", "k", "n", nil) }}, "txid [tx1]: unsuppored transaction. Transaction has already performed a paginated query. Writes are not allowed"},
		{"read for members", false, nil, []func(contract) error{func(c contract) error { _, err := c.Get("readers", "k"); return err }}, "tx creator does not have read access permission on privatedata in chaincodeName:pvt collectionName: readers"},
		{"write where members read", false, nil, []func(contract) error{func(c contract) error { return c.Put("readers", "k", []byte("v")) }}, ""},
		{"write for members", false, nil, []func(contract) error{func(c contract) error { return c.Delete("writers", "k") }}, "tx creator does not have write access permission on privatedata in chaincodeName:pvt collectionName: writers"},
		{"purge for members", false, nil, []func(contract) error{func(c contract) error { return c.Purge("writers", "k") }}, "tx creator does not have write access permission on privatedata in chaincodeName:pvt collectionName: writers"},
		{"metadata for members", false, nil, []func(contract) error{func(c contract) error { return c.PutMetadata("writers", "k", "n", nil) }}, "tx creator does not have write access permission on privatedata in chaincodeName:pvt collectionName: writers"},
		{"hash for everyone", false, nil, []func(contract) error{func(c contract) error { _, err := c.GetHash("readers", "k"); return err }}, ""},
		{"a member", false, func(c *simulation.Config) {
			c.Member = func(*peerpb.CollectionPolicyConfig) (bool, error) { return true, nil }
		}, []func(contract) error{func(c contract) error { _, err := c.Get("readers", "k"); return err }, func(c contract) error { return c.Put("writers", "k", []byte("v")) }}, ""},
		{"membership unknown", false, func(c *simulation.Config) {
			c.Member = func(*peerpb.CollectionPolicyConfig) (bool, error) {
				return false, errors.New("Collection config policy is nil")
			}
		}, []func(contract) error{func(c contract) error { _, err := c.Get("broken", "k"); return err }}, "error setting up collection for collection criteria devledger/pvt/broken: Collection config policy is nil"},
		{"unknown collection", false, nil, []func(contract) error{func(c contract) error { _, err := c.Get("nocoll", "k"); return err }}, "collection devledger/pvt/nocoll could not be found"},
		{"hash in an unknown collection", false, nil, []func(contract) error{func(c contract) error { _, err := c.GetHash("nocoll", "k"); return err }}, "collection [nocoll] not defined in the collection config for chaincode [pvt]"},
		{"implicit collection", false, nil, []func(contract) error{func(c contract) error { return c.Put("_implicit_org_AlphaMSP", "k", []byte("v")) }}, ""},
		{"implicit collection of nobody", false, nil, []func(contract) error{func(c contract) error { return c.Put("_implicit_org_NoMSP", "k", []byte("v")) }}, "collection [_implicit_org_NoMSP] not defined in the collection config for chaincode [pvt]"},
		{"private data in Init", true, nil, []func(contract) error{privatePut}, "private data APIs are not allowed in chaincode Init()"},
		{"hash in Init", true, nil, []func(contract) error{func(c contract) error { _, err := c.GetHash("collAB", "k"); return err }}, "private data APIs are not allowed in chaincode Init()"},
		{"public data in Init", true, nil, []func(contract) error{put}, ""},
		{"no key policies", false, func(c *simulation.Config) { c.KeyPolicies = false }, []func(contract) error{func(c contract) error { return c.PutMetadata("", "k", "n", nil) }}, "key level endorsement is not enabled, channel application capability of V1_3 or later is required"},
		{"no purge", false, func(c *simulation.Config) { c.Purge = false }, []func(contract) error{func(c contract) error { return c.Purge("collAB", "k") }}, "purge private data is not enabled, channel application capability of V2_5 or later is required"},
		{"purge of public data", false, nil, []func(contract) error{func(c contract) error { return c.Purge("", "k") }}, "only applicable for private data"},
		{"value that is not here", false, nil, []func(contract) error{func(c contract) error { _, err := c.Get("collAB", "pk2"); return err }}, "private data matching public hash version is not available. Public hash version = {BlockNum: 55, TxNum: 5}, Private data version = <nil>"},
		{"JSON query", false, nil, []func(contract) error{func(c contract) error { return drain(c.Query("", "{}")) }}, "ExecuteQuery not supported for leveldb"},
		{"page of a JSON query", false, nil, []func(contract) error{func(c contract) error { return drain(c.QueryPage("{}", "", 1)) }}, "ExecuteQuery not supported for leveldb"},
		{"JSON query of private data", false, nil, []func(contract) error{func(c contract) error { return drain(c.Query("collAB", "{}")) }}, "ExecuteQuery not supported for leveldb"},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			cfg := config(s)
			if c.tune != nil {
				c.tune(&cfg)
			}
			sim := simulation.New(cfg)
			defer sim.Close()
			view := sim.Contract("pvt", c.init)
			for i, step := range c.steps {
				err := step(view)
				switch {
				case i < len(c.steps)-1:
					must(t, err)
				case c.want == "" && err != nil, c.want != "" && (err == nil || err.Error() != c.want):
					t.Errorf("error %v\nwant  %s", err, c.want)
				}
			}
		})
	}
}

// TestReadSet checks what is recorded, and that reads do not see writes.
func TestReadSet(t *testing.T) {
	s := golden(t, 32)
	sim := simulation.New(config(s))
	c := sim.Contract("basic", false)
	must(t, c.Put("", "acc3", []byte("mine")))
	value, err := c.Get("", "acc3")
	must(t, err)
	if string(value) != "1" {
		t.Errorf("acc3 is %q in the transaction that writes it", value)
	}
	values, err := c.GetMany("", []string{"nokey", "acc3"})
	must(t, err)
	if values[0] != nil || string(values[1]) != "1" {
		t.Errorf("values %q", values)
	}
	m, err := c.Metadata("", "nokey2")
	if m != nil || err != nil {
		t.Errorf("metadata of nothing %v, %v", m, err)
	}
	must(t, c.PutMetadata("", "acc3", "name", []byte("value")))
	open, err := c.Range("", "q00000", "q00010") // never asked for a result
	must(t, err)
	open.Close()
	if _, _, _, err := open.Next(); err == nil {
		t.Error("a closed query gives results")
	}
	some, err := c.Range("", "q00000", "q00010")
	must(t, err)
	for range 3 {
		_, _, ok, err := some.Next()
		must(t, err)
		if !ok {
			t.Fatal("no result")
		}
	}
	h, err := c.History("acc1")
	must(t, err)
	newest, err := h.Next()
	must(t, err)
	if string(newest.GetValue()) != "7" {
		t.Errorf("newest of acc1 is %v", newest)
	}
	must(t, h.Close())

	results, err := sim.Results()
	must(t, err)
	set, err := rwset.Parse(results.Public)
	must(t, err)
	if len(set.Namespaces) != 1 || set.Namespaces[0].Name != "basic" || results.Private != nil {
		t.Fatalf("results %v", set)
	}
	kv := set.Namespaces[0].KV
	var reads []string
	for _, r := range kv.Reads {
		reads = append(reads, fmt.Sprintf("%s %v", r.Key, r.Version != nil))
	}
	if want := []string{"acc3 true", "nokey false", "nokey2 false"}; !slices.Equal(reads, want) {
		t.Errorf("reads %v, want %v", reads, want)
	}
	want := []*kvrwsetpb.RangeQueryInfo{{StartKey: "q00000"}, {StartKey: "q00000", EndKey: "q00002"}}
	for i, q := range kv.RangeQueriesInfo {
		if q.StartKey != want[i].StartKey || q.EndKey != want[i].EndKey || q.ItrExhausted {
			t.Errorf("range %d: %v", i, q)
		}
	}
	if len(kv.RangeQueriesInfo) != 2 || len(kv.RangeQueriesInfo[1].GetRawReads().GetKvReads()) != 3 {
		t.Errorf("ranges %v", kv.RangeQueriesInfo)
	}
	if _, err := sim.Results(); err == nil || err.Error() != "this function should only be called once on a transaction simulator instance" {
		t.Errorf("results again: %v", err)
	}
	if err := c.Put("", "late", nil); err == nil || err.Error() != "this instance should not be used after calling Done()" {
		t.Errorf("write after the end: %v", err)
	}
	sim.Close()
}

// TestPages walks a range in pages.
func TestPages(t *testing.T) {
	s := golden(t, 30)
	sim := simulation.New(config(s))
	defer sim.Close()
	c := sim.Contract("basic", false)
	start, pages, total := "q", 0, 0
	for {
		q, err := c.RangePage(start, "r", 60)
		must(t, err)
		n := 0
		for {
			_, _, ok, err := q.Next()
			must(t, err)
			if !ok {
				break
			}
			n++
		}
		if n > 60 {
			t.Fatalf("a page of %d", n)
		}
		pages, total = pages+1, total+n
		if start = q.Bookmark(); start == "" {
			break
		}
	}
	if pages != 4 || total != 230 {
		t.Errorf("%d keys on %d pages, want 230 on 4", total, pages)
	}
}

// TestPrivateResults checks the private side of results.
func TestPrivateResults(t *testing.T) {
	s := golden(t, 60)
	sim := simulation.New(config(s))
	c := sim.Contract("pvt", false)
	must(t, c.Put("collAB", "b", []byte("1")))
	must(t, c.Purge("collAB", "a"))
	must(t, c.PutMetadata("_implicit_org_AlphaMSP", "m", "VALIDATION_PARAMETER", []byte("p")))
	results, err := sim.Results()
	must(t, err)
	p, err := rwset.ParsePrivate(results.Private)
	must(t, err)
	if p == nil || len(results.Private.NsPvtRwset) != 1 || len(results.Private.NsPvtRwset[0].CollectionPvtRwset) != 2 {
		t.Fatalf("private %v", results.Private)
	}
	var names []string
	for _, config := range results.Collections["pvt"].Config {
		names = append(names, config.GetStaticCollectionConfig().Name)
	}
	if strings.Join(names, " ") != "_implicit_org_AlphaMSP collAB" {
		t.Errorf("collections %v", names)
	}
	set, err := rwset.Parse(results.Public)
	must(t, err)
	// What was read to find the collections is part of the read set.
	if len(set.Namespaces) != 2 || set.Namespaces[0].Name != "definitions" || len(set.Namespaces[0].KV.Reads) != 1 {
		t.Errorf("namespaces %v", set.Namespaces)
	}
}

// TestBoundedQueries opens more queries than a transaction may.
func TestBoundedQueries(t *testing.T) {
	s := golden(t, 8)
	sim := simulation.New(config(s))
	defer sim.Close()
	c := sim.Contract("basic", false)
	for i := range 20_000 {
		q, err := c.Range("", "a", "b")
		if err != nil {
			if i != 10_000 {
				t.Errorf("refused after %d", i)
			}
			return
		}
		q.Close()
	}
	t.Error("never refused")
}

// TestBoundedWrites writes more than a transaction may.
func TestBoundedWrites(t *testing.T) {
	s := golden(t, 8)
	sim := simulation.New(config(s))
	defer sim.Close()
	c := sim.Contract("basic", false)
	value := make([]byte, 1<<20) // the same memory every time
	for i := range 200 {
		if err := c.Put("", fmt.Sprint(i), value); err != nil {
			if i != 127 || !strings.Contains(err.Error(), "more than 128 MB") {
				t.Errorf("refused after %d: %v", i, err)
			}
			return
		}
	}
	t.Error("never refused")
}

// TestLeftOpen ends a simulation whose contract closes nothing and goes on after the end.
func TestLeftOpen(t *testing.T) {
	s := golden(t, 32)
	sim := simulation.New(config(s))
	c := sim.Contract("basic", false)
	h, err := c.History("acc1")
	must(t, err)
	q, err := c.Range("", "", "")
	must(t, err)
	_, err = h.Next()
	must(t, err)
	sim.Close() // the snapshot is closed after it, which needs its iterators closed
	if _, err := h.Next(); err == nil {
		t.Error("the history goes on")
	}
	if _, _, _, err := q.Next(); err == nil {
		t.Error("the query goes on")
	}
	if q.Bookmark() != "" {
		t.Error("there is a bookmark")
	}
	must(t, h.Close())
	q.Close()
}
