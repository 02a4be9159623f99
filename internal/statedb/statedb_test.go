package statedb_test

import (
	"bytes"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/statedb"
	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
)

func database(t interface {
	Fatal(...any)
	Cleanup(func())
}) *pebble.DB {
	db, err := pebble.Open("db", &pebble.Options{FS: vfs.NewMem(), DisableWAL: true, Logger: pebble.DefaultLogger, MemTableSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

var names = []string{"", "a", "a\x00", "a\x00\x01", "b", "a\x00b", "\x00", "ab", "\U0010ffff"}

// TestTwin runs random writes against a map: what is read by key and by range is the same, whatever zero bytes names
// and keys have.
func TestTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		db := database(t)
		hints, err := statedb.LoadHints(db)
		if err != nil {
			t.Fatal(err)
		}
		state := statedb.New(db, hints)
		type full struct{ ns, key string }
		twin := map[full]rwset.VersionedValue{}
		name := rapid.SampledFrom(names)
		for n := range rapid.IntRange(1, 8).Draw(t, "blocks") {
			u := rwset.NewUpdates(uint64(n))
			for tx := range rapid.IntRange(0, 6).Draw(t, "transactions") {
				ns, key := name.Draw(t, "namespace"), name.Draw(t, "key")
				kv := &kvrwsetpb.KVRWSet{}
				old := twin[full{ns, key}]
				v := rwset.VersionedValue{Value: []byte(fmt.Sprint(n, tx)), Metadata: old.Metadata, Version: rwset.Version{Block: uint64(n), Tx: uint64(tx)}}
				switch rapid.IntRange(0, 2).Draw(t, "kind") {
				case 0:
					kv.Writes = []*kvrwsetpb.KVWrite{{Key: key, IsDelete: true}}
					delete(twin, full{ns, key})
				case 1:
					kv.Writes = []*kvrwsetpb.KVWrite{{Key: key, Value: v.Value}}
					twin[full{ns, key}] = v
				case 2:
					entries := []*kvrwsetpb.KVMetadataEntry{{Name: "m", Value: v.Value}}
					kv.MetadataWrites = []*kvrwsetpb.KVMetadataWrite{{Key: key, Entries: entries}}
					if old.Value != nil {
						v.Value, v.Metadata = old.Value, rwset.EncodeMetadata(entries)
						twin[full{ns, key}] = v
					}
				}
				if err := u.Apply(uint64(tx), &rwset.Set{Namespaces: []*rwset.Namespace{{Name: ns, KV: kv}}}, state); err != nil {
					t.Fatal(err)
				}
			}
			b := db.NewBatch()
			if err := statedb.Write(b, u, hints); err != nil {
				t.Fatal(err)
			}
			if err := b.Commit(pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if rapid.Bool().Draw(t, "load the hints again") {
			if hints, err = statedb.LoadHints(db); err != nil {
				t.Fatal(err)
			}
			state = statedb.New(db, hints)
		}
		for _, ns := range names {
			start, end := name.Draw(t, "start"), name.Draw(t, "end")
			var want, got []string
			for f, v := range twin {
				if f.ns == ns && f.key >= start && (end == "" || f.key < end) {
					want = append(want, fmt.Sprintf("%q %s %x %v", f.key, v.Value, v.Metadata, v.Version))
				}
			}
			sort.Strings(want)
			it, err := state.Range(ns, start, end)
			if err != nil {
				t.Fatal(err)
			}
			last := ""
			for {
				key, v, ok, err := it.Next()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				if len(got) > 0 && key <= last {
					t.Fatalf("%q comes after %q", key, last)
				}
				last = key
				got = append(got, fmt.Sprintf("%q %s %x %v", key, v.Value, v.Metadata, v.Version))
			}
			it.Close()
			sort.Strings(got)
			if !slices.Equal(got, want) {
				t.Fatalf("namespace %q from %q to %q:\n%s\nwant\n%s", ns, start, end, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			for _, key := range names {
				v, err := state.Get(ns, key)
				w, there := twin[full{ns, key}]
				if err != nil || (v != nil) != there || there && (!bytes.Equal(v.Value, w.Value) || !bytes.Equal(v.Metadata, w.Metadata) || v.Version != w.Version) {
					t.Fatalf("%q %q: %v, %v, want %v", ns, key, v, err, w)
				}
				if m, err := state.Metadata(ns, key); err != nil || !bytes.Equal(m, w.Metadata) {
					t.Fatalf("metadata of %q %q: %x, %v, want %x", ns, key, m, err, w.Metadata)
				}
			}
		}
	})
}

func FuzzDecodeValue(f *testing.F) {
	f.Add(statedb.AppendValue(nil, rwset.VersionedValue{Value: []byte("v"), Metadata: []byte("m"), Version: rwset.Version{Block: 300, Tx: 2}}))
	f.Add([]byte{0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := statedb.DecodeValue(b)
		if err != nil {
			return
		}
		w, err := statedb.DecodeValue(statedb.AppendValue(nil, *v))
		if err != nil || !bytes.Equal(v.Value, w.Value) || !bytes.Equal(v.Metadata, w.Metadata) || v.Version != w.Version {
			t.Fatal(v, w, err)
		}
	})
}

func FuzzName(f *testing.F) {
	for _, n := range names {
		f.Add(n, []byte("rest"))
	}
	f.Fuzz(func(t *testing.T, name string, rest []byte) {
		got, left, ok := statedb.CutName(append(statedb.AppendName(nil, name), rest...))
		if !ok || got != name || !bytes.Equal(left, rest) {
			t.Fatalf("%q %x %v", got, left, ok)
		}
		statedb.CutName(rest)
	})
}
