package privatedb_test

import (
	"errors"
	"fmt"
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
