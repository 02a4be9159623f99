package privatedb_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/privatedb"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

func privateSet(t *testing.T, value string) *rwsetpb.TxPvtReadWriteSet {
	t.Helper()
	b := rwset.NewBuilder()
	b.AddPrivateWrite("cc", "coll", "key", []byte(value))
	_, set, err := b.Results()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func openTransient(t *testing.T, fs vfs.FS, limit int64) *privatedb.Transient {
	t.Helper()
	s, err := privatedb.OpenTransient(privatedb.TransientConfig{Dir: "data/transient", FS: fs, MaxBytes: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func count(t *testing.T, s *privatedb.Transient, id string) int {
	t.Helper()
	sets, err := s.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	return len(sets)
}

func TestTransient(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := openTransient(t, disk, 0)
	if names, _ := disk.List("data"); len(names) > 0 || count(t, s, "one") != 0 || s.Remove("one") != nil || s.PurgeBelow(9) != nil {
		t.Fatal("an unused store is on disk or fails", names)
	}
	for i, put := range []struct {
		id     string
		height uint64
		value  string
	}{{"one", 5, "a"}, {"one", 5, "a"}, {"one", 6, "b"}, {"two", 5, "c"}, {"three", 7, "d"}, {"on", 7, "e"}} {
		if err := s.Put(put.id, put.height, privateSet(t, put.value)); err != nil {
			t.Fatal(i, err)
		}
	}
	if count(t, s, "one") != 2 || count(t, s, "two") != 1 || count(t, s, "on") != 1 || count(t, s, "none") != 0 {
		t.Error("wrong sets")
	}
	s = openTransient(t, disk.CrashClone(vfs.CrashCloneCfg{}), 0) // power loss: all that Put took is there
	size := s.Bytes()
	if count(t, s, "one") != 2 || count(t, s, "three") != 1 || size == 0 {
		t.Error("lost by the crash")
	}
	if err := errors.Join(s.Remove("two", "none"), s.PurgeBelow(7)); err != nil {
		t.Fatal(err)
	}
	if count(t, s, "one") != 0 || count(t, s, "two") != 0 || count(t, s, "three") != 1 || count(t, s, "on") != 1 {
		t.Error("wrong sets after removal")
	}
	if err := s.PurgeBelow(8); err != nil || s.Bytes() != 0 {
		t.Error("not empty", err, s.Bytes())
	}
	s.Close()
	if err := s.Put("x", 1, privateSet(t, "x")); err == nil {
		t.Error("a closed store took data")
	}
}

func TestTransientIsBounded(t *testing.T) {
	s := openTransient(t, vfs.NewMem(), 1000)
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = s.Put(fmt.Sprint("tx", n), 1, privateSet(t, "value"))
	}
	if !errors.Is(err, privatedb.ErrTransientFull) || s.Bytes() > 1000 || n < 3 {
		t.Fatal(n, s.Bytes(), err)
	}
	if err := errors.Join(s.Remove("tx0"), s.Put("again", 1, privateSet(t, "value"))); err != nil {
		t.Fatal(err)
	}
}

// TestScrub leaves what waits and nothing of what does not, also if it is interrupted.
func TestScrub(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "transient")
	set := func(text string) *rwsetpb.TxPvtReadWriteSet {
		return &rwsetpb.TxPvtReadWriteSet{NsPvtRwset: []*rwsetpb.NsPvtReadWriteSet{{Namespace: text}}}
	}
	open := func() *privatedb.Transient {
		t.Helper()
		s, err := privatedb.OpenTransient(privatedb.TransientConfig{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	has := func(s *privatedb.Transient, id, text string) {
		t.Helper()
		if got, err := s.Get(id); err != nil || len(got) != 1 || got[0].NsPvtRwset[0].Namespace != text {
			t.Errorf("%s: %v, %v", id, got, err)
		}
	}
	onDisk := func(text string) (found bool) {
		filepath.WalkDir(filepath.Dir(dir), func(name string, _ fs.DirEntry, _ error) error {
			raw, _ := os.ReadFile(name)
			found = found || bytes.Contains(raw, []byte(text))
			return nil
		})
		return found
	}
	s := open()
	must(s.Put("1", 5, set("forget this")))
	must(s.Put("2", 6, set("keep this")))
	must(s.Remove("1"))
	if !onDisk("forget this") {
		t.Fatal("the test cannot find the data on the disk")
	}
	must(s.Scrub())
	if onDisk("forget this") {
		t.Error("what was forgotten is on the disk")
	}
	has(s, "2", "keep this")
	if s.Bytes() == 0 {
		t.Error("counts no bytes")
	}
	must(s.Close())

	// Interrupted after the old folder was moved away, with and without the new one in place.
	must(os.Rename(dir, dir+".old"))
	s = open()
	has(s, "2", "keep this")
	must(s.Close())
	must(os.CopyFS(dir+".old", os.DirFS(dir)))
	must(os.Rename(dir, dir+".new"))
	s = open()
	has(s, "2", "keep this")

	must(s.Remove("2"))
	must(s.Scrub())
	if onDisk("keep this") || s.Bytes() != 0 {
		t.Error("an empty store holds something", s.Bytes())
	}
	must(s.Put("3", 7, set("again")))
	has(s, "3", "again")
}
