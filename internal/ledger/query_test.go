package ledger_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// selected gives "key=value" for all results of a query.
func selected(t testing.TB, s *ledger.Snapshot, collection, query string) string {
	t.Helper()
	r, err := s.Query("cc", collection, query, "")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out []string
	for {
		key, v, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return strings.Join(out, " ")
		}
		out = append(out, key+"="+string(v.Value))
	}
}

var byOwner = []ledger.IndexDefinition{
	{JSON: []byte(`{"index":{"fields":["owner"]},"ddoc":"byOwner","name":"byOwner","type":"json"}`)},
	{Collection: "secret", JSON: []byte(`{"index":{"fields":["owner"]},"ddoc":"byOwner","name":"byOwner"}`)},
}

const sorted = `{"selector":{"owner":{"$gt":null}},"sort":["owner"]}`

func defineIndexes(t testing.TB, l *ledger.Ledger) {
	t.Helper()
	if err := l.DefineIndexes("cc", byOwner); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestQuery reads the same documents with indexes that are older than they and younger, through snapshots, a crash and the loss of
// all derived data.
func TestQuery(t *testing.T) {
	fs := vfs.NewCrashableMem()
	config := ledger.Config{Dir: "l", ChannelID: "c", FS: fs}
	l := open(t, config)
	commit(t, l, []string{`a={"owner":"x"}`, `b={"owner":"k"}`, `c=none`, `d={"color":1}`})
	before := l.NewSnapshot()
	if _, err := before.Query("cc", "", sorted, ""); err == nil || !strings.Contains(err.Error(), "No index exists for this sort") {
		t.Errorf("sorted without an index: %v", err)
	}
	defineIndexes(t, l)
	commit(t, l, []string{`a={"owner":"b"}`, `e={"owner":"c"}`, `b=`})
	const want = `a={"owner":"b"} e={"owner":"c"}`
	check := func(l *ledger.Ledger) {
		t.Helper()
		s := l.NewSnapshot()
		defer s.Close()
		if got := selected(t, s, "", sorted); got != want {
			t.Errorf("sorted: %s", got)
		}
		if got := selected(t, s, "", `{"selector":{"owner":"x"}}`); got != "" {
			t.Errorf("overwritten: %s", got)
		}
	}
	check(l)
	if got := selected(t, before, "", `{"selector":{"owner":{"$gt":"a"}}}`); got != `a={"owner":"x"} b={"owner":"k"}` {
		t.Errorf("a snapshot of before: %s", got)
	}
	before.Close()

	crashed := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 30, RNG: rand.New(rand.NewPCG(1, 2))})
	config.FS = crashed
	again := open(t, config)
	defineIndexes(t, again)
	check(again)
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if err := crashed.RemoveAll("l/derived"); err != nil {
		t.Fatal(err)
	}
	again = open(t, config)
	defineIndexes(t, again)
	check(again)
}

// TestQueryPrivate follows private documents through writes, deletes and purges, and late arrival.
func TestQueryPrivate(t *testing.T) {
	l := open(t, ledger.Config{Dir: "l", ChannelID: "c", FS: vfs.NewMem()})
	commit(t, l, []string{"k=v"})
	defineIndexes(t, l)
	write := func(change func(*rwset.Builder), late bool) {
		t.Helper()
		b := rwset.NewBuilder()
		change(b)
		results, private, err := b.Results()
		if err != nil {
			t.Fatal(err)
		}
		info := l.Info()
		raw := block.New(info.Height, info.CurrentBlockHash, [][]byte{transaction(t, fmt.Sprint("private", info.Height), results)})
		block.SetFilter(raw, make([]byte, 1))
		block.SetCommitHash(raw, []byte("hash"))
		c := &ledger.Commit{Block: block.Parse(raw)}
		if late {
			c.Missing = []ledger.Missing{{Block: info.Height, Tx: 0, Namespace: "cc", Collection: "secret", Eligible: true}}
		} else {
			c.Private = []ledger.TxPrivate{{Tx: 0, Set: private}}
		}
		if err := l.Commit(c); err != nil {
			t.Fatal(err)
		}
		if late {
			taken, err := l.CommitLate([]ledger.Late{{Missing: c.Missing[0], Rwset: rwsetOf(private)}})
			if taken != 1 || err != nil {
				t.Fatal(taken, err)
			}
		}
	}
	check := func(want string) {
		t.Helper()
		s := l.NewSnapshot()
		defer s.Close()
		if got := selected(t, s, "secret", sorted); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
	write(func(b *rwset.Builder) {
		b.AddPrivateWrite("cc", "secret", "1", []byte(`{"owner":"b"}`))
		b.AddPrivateWrite("cc", "secret", "2", []byte(`{"owner":"a"}`))
		b.AddPrivateWrite("cc", "secret", "3", []byte(`{"owner":"c"}`))
	}, false)
	check(`2={"owner":"a"} 1={"owner":"b"} 3={"owner":"c"}`)
	write(func(b *rwset.Builder) {
		b.AddPrivateWrite("cc", "secret", "2", []byte(`{"owner":"z"}`))
		b.AddPrivateWrite("cc", "secret", "1", nil)
		b.AddPrivatePurge("cc", "secret", "3")
	}, false)
	check(`2={"owner":"z"}`)
	write(func(b *rwset.Builder) {
		b.AddPrivateWrite("cc", "secret", "2", []byte(`{"owner":"m"}`))
		b.AddPrivateWrite("cc", "secret", "4", []byte(`{"owner":"l"}`))
	}, true)
	check(`4={"owner":"l"} 2={"owner":"m"}`)
}

func rwsetOf(set *rwsetpb.TxPvtReadWriteSet) []byte {
	return set.NsPvtRwset[0].CollectionPvtRwset[0].Rwset
}

// TestIndexWhileCommitting has blocks committed and queries answered while an index is built.
func TestIndexWhileCommitting(t *testing.T) {
	l := open(t, ledger.Config{Dir: "l", ChannelID: "c", FS: vfs.NewMem()})
	owner := func(i, round int) string { return fmt.Sprintf(`k%04d={"owner":"%03d"}`, i, (i*7+round)%1000) }
	var writes []string
	for i := range 5000 {
		writes = append(writes, owner(i, 0))
	}
	commit(t, l, writes)
	var group sync.WaitGroup
	group.Go(func() {
		if err := l.DefineIndexes("cc", byOwner); err != nil {
			t.Error(err)
		}
	})
	for round := 1; round <= 20; round++ {
		writes = writes[:0]
		for i := round; i < 5000; i += 50 {
			writes = append(writes, owner(i, round))
		}
		commit(t, l, writes)
	}
	group.Wait()
	if err := l.WaitIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := l.NewSnapshot()
	defer s.Close()
	all := strings.Fields(selected(t, s, "", sorted))
	if len(all) != 5000 {
		t.Fatalf("%d documents", len(all))
	}
	for i := 1; i < len(all); i++ {
		a, b := all[i-1], all[i]
		if a[6:]+a[:5] >= b[6:]+b[:5] {
			t.Fatalf("%s before %s", a, b)
		}
	}
	for _, o := range []string{"000", "500", "999"} {
		got := selected(t, s, "", `{"selector":{"owner":"`+o+`"}}`)
		scan := selected(t, s, "", `{"selector":{"$or":[{"owner":"`+o+`"},{"absent":1}]}}`)
		if got != scan {
			t.Errorf("%s by index %s\nby scan %s", o, got, scan)
		}
	}
}

// An operator hears of queries that an index would help, and not of each.
func TestQueryWarning(t *testing.T) {
	const unindexed, scanned = "No matching index found, create an index to optimize query time.", "The number of documents examined is high in proportion"
	warned := func(query string) string {
		var out bytes.Buffer
		l := open(t, ledger.Config{Dir: t.TempDir(), Log: slog.New(slog.NewTextHandler(&out, nil))})
		var documents []string
		for i := range 30 {
			documents = append(documents, fmt.Sprintf(`k%d={"owner":"ann","a":%d}`, i, i))
		}
		commit(t, l, documents)
		defineIndexes(t, l)
		s := l.NewSnapshot()
		defer s.Close()
		for range 3 {
			selected(t, s, "", query)
		}
		if n := strings.Count(out.String(), "contract=cc"); n > 1 {
			t.Errorf("%s: warned of %d times", query, n)
		}
		return out.String()
	}
	for query, want := range map[string][2]bool{
		`{"selector":{"a":{"$lt":20}}}`:              {true, false},
		`{"selector":{"a":1}}`:                       {true, true},
		`{"selector":{"owner":"ann"}}`:               {false, false},
		`{"selector":{"owner":"ann","a":7}}`:         {false, true},
		`{"selector":{"owner":"ann","a":"nothing"}}`: {false, true},
		`{"selector":{"owner":"nobody"}}`:            {false, false},
	} {
		got := warned(query)
		if strings.Contains(got, unindexed) != want[0] || strings.Contains(got, scanned) != want[1] {
			t.Errorf("%s: warned %q, want %v", query, got, want)
		}
	}
}
