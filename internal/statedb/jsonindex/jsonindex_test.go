package jsonindex_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/jsonquery"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/statedb"
	"github.com/hansa-ledger/hansa/internal/statedb/jsonindex"
)

var selectors = flag.Int("selectors", 300, "how many random selectors to compare")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// store is a namespace in a database, kept as a ledger keeps it.
type store struct {
	t       testing.TB
	fs      *vfs.MemFS
	db      *pebble.DB
	indexes *jsonindex.Indexes
	place   rwset.Place
	docs    map[string]string // what should be there
	defined []*jsonquery.Index
}

func open(t testing.TB) *store {
	s := &store{t: t, fs: vfs.NewMem(), place: rwset.Place{Namespace: "cars"}, docs: map[string]string{}}
	s.reopen()
	t.Cleanup(func() { must(t, s.db.Close()) })
	return s
}

func (s *store) reopen() {
	var err error
	s.db, err = pebble.Open("db", &pebble.Options{FS: s.fs, DisableWAL: true, Logger: silent{}, FormatMajorVersion: pebble.FormatNewest})
	must(s.t, err)
	s.indexes, err = jsonindex.Load(s.db)
	must(s.t, err)
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

func (s *store) source(p rwset.Place) jsonindex.Source {
	return jsonindex.Source{Prefix: statedb.Prefix(p.Namespace), Decode: statedb.DecodeValue}
}

// put writes documents in one batch; an empty one deletes.
func (s *store) put(docs map[string]string) {
	b := s.db.NewBatch()
	defer b.Close()
	for key, value := range docs {
		var before, after []byte
		if old, ok := s.docs[key]; ok {
			before = []byte(old)
		}
		at := append(statedb.Prefix(s.place.Namespace), key...)
		if value == "" {
			must(s.t, b.Delete(at, nil))
			delete(s.docs, key)
		} else {
			after = []byte(value)
			must(s.t, b.Set(at, statedb.AppendValue(nil, rwset.VersionedValue{Value: after, Version: rwset.Version{Block: 7, Tx: 1}}), nil))
			s.docs[key] = value
		}
		must(s.t, s.indexes.Change(b, s.place, key, before, after))
	}
	must(s.t, b.Commit(pebble.NoSync))
}

func (s *store) define(definitions ...string) {
	for _, d := range definitions {
		x, err := jsonquery.ParseIndex([]byte(d))
		must(s.t, err)
		s.defined = append(s.defined, x)
		_, err = s.indexes.Define(s.db, s.place, [][]byte{[]byte(d)})
		must(s.t, err)
	}
}

func (s *store) build() {
	for {
		more, err := s.indexes.Build(s.db, s.source)
		must(s.t, err)
		if !more {
			return
		}
	}
}

// page gives the keys of a query's results from a bookmark, up to a limit.
func (s *store) page(query, bookmark string, limit int) (keys []string, next string, err error) {
	q, err := jsonquery.Parse(query)
	if err != nil {
		return nil, "", err
	}
	snapshot := s.db.NewSnapshot()
	defer snapshot.Close()
	r, err := jsonindex.Query(snapshot, s.place, s.source(s.place), q, bookmark)
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	for len(keys) < limit {
		key, v, ok, err := r.Next()
		must(s.t, err)
		if !ok {
			break
		}
		if string(v.Value) != s.docs[key] || v.Version.Block != 7 {
			s.t.Fatalf("%s: value of %q is %s at %v, want %s", query, key, v.Value, v.Version, s.docs[key])
		}
		keys = append(keys, key)
	}
	return keys, r.Bookmark(), nil
}

var definitions = []string{
	`{"index":{"fields":["a"]},"ddoc":"one","name":"a"}`,
	`{"index":{"fields":["b","a"]},"ddoc":"two","name":"ba"}`,
	`{"index":{"fields":[{"a":"desc"},{"b":"desc"},{"c":"desc"}]},"ddoc":"three","name":"abc"}`,
	`{"index":{"fields":["a.x"]},"ddoc":"nested","name":"ax"}`,
	`{"index":{"fields":["c"],"partial_filter_selector":{"d":{"$type":"number"}}},"ddoc":"partial","name":"c"}`,
}

// TestRandom compares queries on changing documents with the naive evaluator: what they select, in which order, with and without
// indexes, whole and page by page.
func TestRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := source{rand.New(rand.NewPCG(seed, 1))}
	plain, indexed := open(t), open(t)
	both := func(docs map[string]string) { plain.put(docs); indexed.put(docs) }
	change := func(n int) map[string]string {
		docs := map[string]string{}
		for range n {
			key := r.pick("", "k", "K", "é", "\x00") + strconv.Itoa(r.IntN(2000))
			switch r.IntN(12) {
			case 0:
				docs[key] = ""
			case 1:
				docs[key] = r.pick(`not JSON`, `[1,2]`, `7`, `{"a":`, `{"a":1e999}`)
			default:
				docs[key] = r.object(2, "a", "b", "c", "d")
			}
		}
		return docs
	}
	both(change(1000))
	indexed.define(definitions...)
	for range 5 { // documents change while indexes are built
		_, err := indexed.indexes.Build(indexed.db, indexed.source)
		must(t, err)
		both(change(300))
	}
	indexed.build()
	both(change(1000))

	n := newNaive()
	decoded := map[string]any{}
	for key, raw := range plain.docs {
		if d, ok := jsonquery.ParseDocument(key, []byte(raw)); ok && d != nil {
			decoded[key] = decode(raw)
		}
	}
	keys := slices.Sorted(maps.Keys(decoded))
	used, selected := map[string]int{}, 0
	for i := range *selectors {
		selector := r.selector(3, false)
		sort, descending := r.pick("", "", "", `["a"]`, `["b","a"]`, `["b"]`, `[{"a":"desc"},{"b":"desc"}]`, `[{"a.x":"desc"}]`), false
		query := `{"selector":` + selector
		if sort != "" {
			query += `,"sort":` + sort
			descending = strings.Contains(sort, "desc")
		}
		if r.IntN(6) == 0 {
			query += `,"use_index":` + r.pick(`"one"`, `["_design/two","ba"]`, `"three"`, `"partial"`, `"nested"`)
		}
		query += `}`
		q, err := jsonquery.Parse(query)
		must(t, err)
		plan, planErr := q.Plan(indexed.defined)

		var want []string
		cond := decode(selector)
		for _, key := range keys {
			if !emptyList(cond) && n.match(cond, decoded[key], nil, false, false) {
				want = append(want, key)
			}
		}
		if sort == "" {
			got, _, err := plain.page(query, "", 1e9)
			must(t, err)
			if !slices.Equal(got, want) {
				t.Fatalf("%s without index\ngot  %q\nwant %q", query, got, want)
			}
		}
		if planErr != nil {
			if _, _, err := indexed.page(query, "", 1e9); err == nil || err.Error() != planErr.Error() {
				t.Fatalf("%s: %v, want %v", query, err, planErr)
			}
			used["refused"]++
			continue
		}
		if plan.Index != nil {
			used[plan.Index.Design]++
			want = inOrder(n, plan.Index, decoded, want, descending)
		} else {
			used["scan"]++
		}
		selected += len(want)
		got, _, err := indexed.page(query, "", 1e9)
		must(t, err)
		if !slices.Equal(got, want) {
			t.Fatalf("%d: %s by index %+v\ngot  %q\nwant %q", i, query, plan.Index, got, want)
		}
		if i%5 == 0 {
			got = nil
			for size, mark := r.IntN(40)+1, ""; ; {
				page, next, err := indexed.page(query, mark, size)
				must(t, err)
				if len(page) == 0 {
					if next != mark && mark != "" {
						t.Fatalf("the bookmark of an empty page is %q, not %q", next, mark)
					}
					break
				}
				got, mark = append(got, page...), next
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%s page by page\ngot  %q\nwant %q", query, got, want)
			}
		}
	}
	t.Logf("%d documents, %d results, plans %v", len(decoded), selected, used)
}

// inOrder gives those of the documents that are in an index, in its order.
func inOrder(n *naive, x *jsonquery.Index, decoded map[string]any, keys []string, descending bool) []string {
	columns := map[string][]any{}
	var in []string
	for _, key := range keys {
		var values []any
		for _, f := range x.Fields {
			if v, state := lookup(decoded[key], strings.Split(f, ".")); state == found {
				values = append(values, v)
			}
		}
		if len(values) < len(x.Fields) {
			continue
		}
		if x.Design == "partial" {
			if v, state := lookup(decoded[key], []string{"d"}); state != found || rank(v) != 3 {
				continue
			}
		}
		columns[key] = values
		in = append(in, key)
	}
	slices.SortStableFunc(in, func(a, b string) int {
		c := n.compare(columns[a], columns[b])
		if c == 0 {
			c = strings.Compare(a, b)
		}
		if descending {
			return -c
		}
		return c
	})
	return in
}

// TestCrash loses what was not flushed, at every step of building an index.
func TestCrash(t *testing.T) {
	s := open(t)
	docs := map[string]string{}
	for i := range 3000 {
		docs[fmt.Sprintf("k%05d", i)] = fmt.Sprintf(`{"a":%d}`, i%100)
	}
	s.put(docs)
	s.define(definitions[0])
	must(t, s.db.Flush())
	for steps := 0; ; steps++ {
		more, err := s.indexes.Build(s.db, s.source)
		must(t, err)
		if !more {
			break
		}
		if steps%2 == 0 {
			must(t, s.db.Flush())
		}
		must(t, s.db.Close())
		s.reopen()
	}
	keys, _, err := s.page(`{"selector":{"a":42}}`, "", 1e9)
	must(t, err)
	if len(keys) != 30 || keys[0] != "k00042" || keys[29] != "k02942" {
		t.Errorf("found %q", keys)
	}
}

func TestStop(t *testing.T) {
	s := open(t)
	docs := map[string]string{}
	for i := range 1000 {
		docs[fmt.Sprint(i)] = `{"a":1}`
	}
	s.put(docs)
	q, err := jsonquery.Parse(`{"selector":{"a":2}}`)
	must(t, err)
	r, err := jsonindex.Query(s.db, s.place, s.source(s.place), q, "")
	must(t, err)
	defer r.Close()
	asked := 0
	r.StopWhen(func() bool { asked++; return asked == 2 })
	if _, _, _, err := r.Next(); !errors.Is(err, jsonindex.ErrStopped) || asked != 2 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}

func TestRedefine(t *testing.T) {
	s := open(t)
	s.put(map[string]string{"1": `{"a":2,"b":1}`, "2": `{"a":1,"b":2}`})
	s.define(`{"index":{"fields":["a"]},"ddoc":"d","name":"n"}`)
	byA, byB := `{"selector":{},"sort":["a"]}`, `{"selector":{},"sort":["b"]}`
	if _, _, err := s.page(byA, "", 9); err == nil {
		t.Error("an index was used before it was complete")
	}
	s.build()
	if keys, _, err := s.page(byA, "", 9); err != nil || strings.Join(keys, "") != "21" {
		t.Error(keys, err)
	}
	if isNew, err := s.indexes.Define(s.db, s.place, [][]byte{[]byte(`{"index":{"fields":["a"]},"ddoc":"d","name":"n"}`)}); isNew || err != nil {
		t.Error(isNew, err)
	}
	s.define(`{"index":{"fields":["b"]},"ddoc":"d","name":"n"}`)
	s.build()
	if keys, _, err := s.page(byB, "", 9); err != nil || strings.Join(keys, "") != "12" {
		t.Error(keys, err)
	}
	if _, _, err := s.page(byA, "", 9); err == nil {
		t.Error("a replaced index was used")
	}
	isNew, err := s.indexes.Define(s.db, s.place, [][]byte{[]byte(`{"index":1}`), []byte(`{"index":{"fields":["c"]}}`)})
	if !isNew || err == nil || !strings.Contains(err.Error(), `"index" must be a JSON`) {
		t.Error(isNew, err)
	}
}

// TestResults looks at what results are: the documents' own bytes or the fields asked for, without those to skip.
func TestResults(t *testing.T) {
	s := open(t)
	s.put(map[string]string{"1": `{ "b":{"y":1.50,"x":"<"}, "a":[1] }`, "2": `{"a":2}`, "3": `{"b":{"x":3}}`})
	for query, want := range map[string]string{
		`{"selector":{}}`: `1={ "b":{"y":1.50,"x":"<"}, "a":[1] } 2={"a":2} 3={"b":{"x":3}} `,
		`{"selector":{},"fields":["a","b.x","_id"]}`:                   `1={"a":[1],"b":{"x":"\u003c"}} 2={"a":2} 3={"b":{"x":3}} `,
		`{"selector":{},"fields":[]}`:                                  `1={} 2={} 3={} `,
		`{"selector":{"b":{"$exists":true}},"skip":1}`:                 `3={"b":{"x":3}} `,
		`{"selector":{"_id":{"$gt":"1","$lt":"3"}},"limit":1}`:         `2={"a":2} `,
		`{"selector":{"_id":{"$gt":null}},"sort":[{"_id":"desc"}]}`:    `3={"b":{"x":3}} 2={"a":2} 1={ "b":{"y":1.50,"x":"<"}, "a":[1] } `,
		`{"selector":{"a":{"$gt":5,"$lt":3}}}`:                         ``,
		`{"selector":{"_id":{"$gt":"3"}}}`:                             ``,
		`{"selector":{"_id":{"$lt":"1","$gt":"3"}},"bookmark":"nil"}`:  ``,
		`{"selector":{"_id":{"$gte":"2","$lte":"2"}},"bookmark":null}`: `2={"a":2} `,
	} {
		q, err := jsonquery.Parse(query)
		must(t, err)
		r, err := jsonindex.Query(s.db, s.place, s.source(s.place), q, "")
		must(t, err)
		got := ""
		for {
			key, v, ok, err := r.Next()
			must(t, err)
			if !ok {
				break
			}
			got += key + "=" + string(v.Value) + " "
		}
		if got != want {
			t.Errorf("%s: %s\nwant %s", query, got, want)
		}
		if got == "" && r.Bookmark() != "nil" {
			t.Errorf("%s: the bookmark of nothing is %q", query, r.Bookmark())
		}
		must(t, r.Close())
	}
	for _, mark := range []string{"x", "!", "AQ", "AQFhAWI", strings.Repeat("A", 100)} {
		if _, _, err := s.page(`{"selector":{}}`, mark, 9); err == nil || !strings.Contains(err.Error(), "Error:invalid_bookmark,  Status Code:400,  Reason:Invalid bookmark value") {
			t.Errorf("bookmark %q: %v", mark, err)
		}
	}
}

// A bookmark comes from a client: whatever it is, a query from it fails or gives results of the query, in order.
func FuzzBookmark(f *testing.F) {
	s := open(f)
	docs := map[string]string{}
	for i := range 20 {
		docs["k"+strconv.Itoa(i)] = fmt.Sprintf(`{"a":%d,"b":"x"}`, i%7)
	}
	s.put(docs)
	s.define(definitions...)
	s.build()
	const byKey, byIndex = `{"selector":{"b":"x"}}`, `{"selector":{"a":{"$gt":2}},"sort":["a"]}`
	for _, query := range []string{byKey, byIndex} {
		_, mark, err := s.page(query, "", 3)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(query == byIndex, mark)
	}
	for _, mark := range []string{"nil", "AQ", "AQAA", "AQH_____", "\x00", "AQP_____Dw"} {
		f.Add(true, mark)
	}
	f.Fuzz(func(t *testing.T, indexed bool, mark string) {
		query := byKey
		if indexed {
			query = byIndex
		}
		here := *s
		here.t = t
		all, _, err := here.page(query, "", 100)
		must(t, err)
		got, _, err := here.page(query, mark, 100)
		if err != nil {
			if text := err.Error(); !strings.Contains(text, "invalid_bookmark") && !strings.Contains(text, "no_usable_index") {
				t.Fatal(err)
			}
			return
		}
		if len(got) > len(all) || !slices.Equal(got, all[len(all)-len(got):]) {
			t.Fatalf("from %q: %q of %q", mark, got, all)
		}
	})
}
