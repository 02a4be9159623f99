package ledger_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
)

// export writes the ledger's snapshot into a new folder.
func export(t testing.TB, l *ledger.Ledger) string {
	t.Helper()
	dir := t.TempDir()
	s := l.NewSnapshot()
	defer s.Close()
	if err := s.Export(context.Background(), vfs.Default, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// sameFolder compares the files of two folders byte by byte.
func sameFolder(t testing.TB, got, want string) {
	t.Helper()
	names := func(dir string) (all []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, e.Name())
		}
		return all
	}
	if a, b := names(got), names(want); !slices.Equal(a, b) {
		t.Fatalf("files %v, want %v", a, b)
	}
	for _, name := range names(want) {
		a, err := os.ReadFile(filepath.Join(got, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(want, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(a, b) {
			t.Errorf("%s: %d bytes differ from the %d wanted", name, len(a), len(b))
		}
	}
}

// until commits the golden ledger up to and without a block, as Alpha's peer had it.
func until(t testing.TB, l *ledger.Ledger, height uint64) {
	t.Helper()
	for n := l.Height(); n < height; n++ {
		commitGolden(t, l, n)
	}
}

func TestGoldenSnapshot(t *testing.T) {
	l := open(t, ledger.Config{Dir: filepath.Join(t.TempDir(), "l"), ChannelID: "devledger"})
	until(t, l, uint64(len(golden(t))))
	dir := export(t, l)
	sameFolder(t, dir, filepath.Join(vectors, "snapshot-Alpha"))
	sameFolder(t, dir, filepath.Join(vectors, "snapshot-Beta"))
}

func bootstrap(t testing.TB, from string, change func(*ledger.Config)) (*ledger.Ledger, ledger.Config) {
	t.Helper()
	dir := t.TempDir()
	config := ledger.Config{Dir: filepath.Join(dir, "ledgers", "devledger"), ChannelID: "devledger"}
	if change != nil {
		change(&config)
	}
	l, err := ledger.Bootstrap(context.Background(), config, from, filepath.Join(dir, "staging"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, config
}

func TestGoldenBootstrap(t *testing.T) {
	for _, org := range []string{"Alpha", "Beta"} {
		from := filepath.Join(vectors, "snapshot-"+org)
		l, config := bootstrap(t, from, nil)
		sameFolder(t, export(t, l), from)
		last := golden(t)[len(golden(t))-1]
		if l.Height() != 115 || l.First() != 115 || !bytes.Equal(l.LastCommitHash(), block.CommitHash(last.Block)) {
			t.Fatalf("height %d, first %d, commit hash %x", l.Height(), l.First(), l.LastCommitHash())
		}
		info := l.Info()
		if !bytes.Equal(info.CurrentBlockHash, block.HeaderHash(last.Header)) || !bytes.Equal(info.PreviousBlockHash, last.Header.PreviousHash) ||
			info.BootstrappingSnapshotInfo.GetLastBlockInSnapshot() != 114 {
			t.Errorf("info %v", info)
		}
		checkBefore(t, l, ledger.TxID(last.Txs[0]))
		// Once more from the disk, and once from the kept files alone.
		for _, lose := range []string{"", "derived"} {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if lose != "" {
				if err := os.RemoveAll(filepath.Join(config.Dir, lose)); err != nil {
					t.Fatal(err)
				}
			}
			l = open(t, config)
			sameFolder(t, export(t, l), from)
		}
	}
}

// checkBefore asks for what lies before the snapshot.
func checkBefore(t *testing.T, l *ledger.Ledger, id string) {
	t.Helper()
	var before *ledger.BeforeSnapshotError
	for name, err := range map[string]error{
		"block": second(l.BlockBytes(3)), "private data": second(l.PrivateData(3)), "transaction": second(l.Transaction(id)), "its block": second(l.BlockByTxID(id)),
	} {
		if !errors.As(err, &before) || !errors.Is(err, ledger.ErrNotFound) || !strings.Contains(err.Error(), "First available block = [115]") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.Block(3); err == nil || err.Error() != "cannot serve block [3]. The ledger is bootstrapped from a snapshot. First available block = [115]" {
		t.Error(err)
	}
	if _, _, ok, err := l.TxStatus(id); ok || !errors.As(err, &before) {
		t.Error(ok, err)
	}
	for id, want := range map[string]bool{id: true, "unknown": false} {
		if has, err := l.HasTx(id); has != want || err != nil {
			t.Errorf("%q: %v, %v", id, has, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestContinue joins by snapshots of the golden ledger at many heights and commits the rest: the same commit hashes follow,
// derived here from the codes alone, and the same snapshot at the end. Collections expire on the way.
func TestContinue(t *testing.T) {
	blocks := golden(t)
	source := open(t, ledger.Config{Dir: filepath.Join(t.TempDir(), "l"), ChannelID: "devledger"})
	for _, height := range []uint64{1, 30, 60, 67, 114} {
		until(t, source, height)
		l, config := bootstrap(t, export(t, source), nil)
		for n := height; n < uint64(len(blocks)); n++ {
			b := blocks[n]
			codes := block.Filter(b.Block)
			sets, err := ledger.Sets(b, codes)
			if err != nil {
				t.Fatal(err)
			}
			s := l.NewSnapshot()
			u, err := ledger.Derive(b, codes, sets, s)
			s.Close()
			if err != nil {
				t.Fatal(err)
			}
			if hash := rwset.CommitHash(codes, u.CommitBytes(), l.LastCommitHash()); !bytes.Equal(hash, block.CommitHash(b.Block)) {
				t.Fatalf("from %d: block %d: commit hash %x", height, n, hash)
			}
			if n == height+3 {
				// A crash that loses what was derived from blocks after the snapshot.
				if err := errors.Join(l.Close(), os.RemoveAll(filepath.Join(config.Dir, "derived"))); err != nil {
					t.Fatal(err)
				}
				l = open(t, config)
			}
			commitGolden(t, l, n)
		}
		sameFolder(t, export(t, l), filepath.Join(vectors, "snapshot-Alpha"))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCollectionHistory(t *testing.T) {
	l, _ := bootstrap(t, filepath.Join(vectors, "snapshot-Alpha"), nil)
	s := l.NewSnapshot()
	defer s.Close()
	history, err := s.CollectionHistory("pvt")
	if err != nil || len(history) != 2 || history[0].Block != 66 || history[1].Block != 52 || len(history[0].Config.Config) <= len(history[1].Config.Config) {
		t.Error(history, err)
	}
	if none, err := s.CollectionHistory("pv"); len(none) > 0 || err != nil {
		t.Error(none, err)
	}
	for _, c := range []struct {
		block uint64
		name  string
		want  bool
	}{{52, "collAB", false}, {53, "collAB", true}, {66, "collNew", false}, {67, "collNew", true}, {67, "none", false}} {
		if config, err := l.CollectionBefore(c.block, "pvt", c.name); (config != nil) != c.want || err != nil {
			t.Errorf("%s before %d: %v, %v", c.name, c.block, config, err)
		}
	}
}

func TestUnfetchedPrivateData(t *testing.T) {
	l, _ := bootstrap(t, filepath.Join(vectors, "snapshot-Alpha"), nil)
	s := l.NewSnapshot()
	defer s.Close()
	place := rwset.Place{Namespace: "pvt", Collection: "collAB"}
	all, err := s.UnfetchedPrivateData(place, nil, 10)
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	rest, err := s.UnfetchedPrivateData(place, all[1].KeyHash, 1)
	if err != nil || len(rest) != 1 || !bytes.Equal(rest[0].KeyHash, all[1].KeyHash) {
		t.Error(rest, err)
	}
}

// copyFolder gives a copy of the golden snapshot to spoil.
func copyFolder(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "snapshot")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(vectors, "snapshot-Alpha"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestRefusedSnapshots spoils snapshots: none may leave anything behind.
func TestRefusedSnapshots(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir string) error
		want  string
	}{
		{"no such folder", func(_ *testing.T, dir string) error { return os.RemoveAll(dir) }, "open _snapshot_signable_metadata.json"},
		{"missing file", func(_ *testing.T, dir string) error { return os.Remove(filepath.Join(dir, "txids.data")) }, "open txids.data"},
		{"changed file", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "txids.metadata"), []byte{1, 0}, 0o600)
		}, "hash mismatch for file [txids.metadata]"},
		{"changed metadata", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "_snapshot_signable_metadata.json"), []byte(`{}`), 0o600)
		}, "_snapshot_signable_metadata.json: last_block_hash"},
		{"a pipe for a file", func(_ *testing.T, dir string) error {
			name := filepath.Join(dir, "txids.data")
			return errors.Join(os.Remove(name), os.Mkdir(name, 0o700))
		}, "no regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := copyFolder(t)
			if err := c.spoil(t, from); err != nil {
				t.Fatal(err)
			}
			refused(t, from, c.want)
		})
	}
	t.Run("another channel", func(t *testing.T) {
		dir := t.TempDir()
		_, err := ledger.Bootstrap(context.Background(), ledger.Config{Dir: filepath.Join(dir, "x"), ChannelID: "x"}, filepath.Join(vectors, "snapshot-Alpha"), filepath.Join(dir, "staging"), nil)
		if err == nil || !strings.Contains(err.Error(), `the snapshot is of channel "devledger"`) {
			t.Error(err)
		}
	})
	t.Run("refused by the caller", func(t *testing.T) {
		dir := t.TempDir()
		_, err := ledger.Bootstrap(context.Background(), ledger.Config{Dir: filepath.Join(dir, "l"), ChannelID: "devledger"}, filepath.Join(vectors, "snapshot-Alpha"),
			filepath.Join(dir, "staging"), func(s *ledger.Snapshot) error { return fmt.Errorf("height %d", s.Height()) })
		if err == nil || !strings.Contains(err.Error(), "height 115") {
			t.Error(err)
		}
		nothingIn(t, dir)
	})
	t.Run("folder in use", func(t *testing.T) {
		dir := t.TempDir()
		_, err := ledger.Bootstrap(context.Background(), ledger.Config{Dir: dir, ChannelID: "devledger"}, filepath.Join(vectors, "snapshot-Alpha"), filepath.Join(t.TempDir(), "staging"), nil)
		if err == nil || !strings.Contains(err.Error(), "exists already") {
			t.Error(err)
		}
	})
	t.Run("bad records", func(t *testing.T) {
		// Right hashes do not make right records.
		for name, write := range map[string]func(w *snapshotfile.Writer) error{
			"its version is of block 9": func(w *snapshotfile.Writer) error {
				return w.Public("ns", &snapshotfile.Record{Key: []byte("k"), Value: []byte("v"), Version: rwset.Version{Block: 9}})
			},
			"identifier is empty":       func(w *snapshotfile.Writer) error { return w.TxID("") },
			"bad key 6b in the history": func(w *snapshotfile.Writer) error { return w.Config([]byte("k"), nil) },
			`collections of "c" at block 1: proto`: func(w *snapshotfile.Writer) error {
				return w.Config([]byte("slscc\x00c~collection\xff\xff\xff\xff\xff\xff\xff\xfe"), []byte{1})
			},
			"names no collection": func(w *snapshotfile.Writer) error {
				return w.Hashed("ns", "", &snapshotfile.Record{Key: []byte("k")})
			},
		} {
			from := t.TempDir()
			w := snapshotfile.NewWriter(vfs.Default, from)
			if err := write(w); err != nil {
				t.Fatal(err)
			}
			hash := make([]byte, 32)
			if err := w.Finish(&snapshotfile.Metadata{ChannelID: "devledger", LastBlock: 5, LastBlockHash: hash, PreviousHash: hash, LastCommitHash: hash}); err != nil {
				t.Fatal(err)
			}
			refused(t, from, name)
		}
	})
}

func refused(t *testing.T, from, want string) {
	t.Helper()
	dir := t.TempDir()
	l, err := ledger.Bootstrap(context.Background(), ledger.Config{Dir: filepath.Join(dir, "l"), ChannelID: "devledger"}, from, filepath.Join(dir, "staging"), nil)
	if err == nil {
		l.Close()
		t.Fatal("the snapshot was accepted")
	}
	if !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not say %q", err, want)
	}
	nothingIn(t, dir)
}

func nothingIn(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// TestBootstrapPowerLoss ends the machine while a ledger is made from a snapshot: what is there afterwards is a whole ledger or none.
func TestBootstrapPowerLoss(t *testing.T) {
	from := filepath.Join(vectors, "snapshot-Alpha")
	whole, none := 0, 0
	for stop := 1; ; stop += 1 + stop/4 {
		disk := vfs.NewCrashableMem()
		config := ledger.Config{Dir: "/data/ledgers/devledger", ChannelID: "devledger", FS: newCutOff(disk, stop)}
		if err := disk.MkdirAll("/data", 0o700); err != nil {
			t.Fatal(err)
		}
		root, err := disk.OpenDir("/")
		if err = errors.Join(err, root.Sync()); err != nil {
			t.Fatal(err)
		}
		l, err := ledger.Bootstrap(context.Background(), config, from, "/data/joining", nil)
		if err == nil {
			err = l.Close()
		}
		done := err == nil
		config.FS = disk.CrashClone(vfs.CrashCloneCfg{})
		if _, err := config.FS.Stat(config.Dir); errors.Is(err, os.ErrNotExist) {
			if done {
				t.Fatal("a ledger is gone that was made")
			}
			none++
			// The next try finds what is left in its way.
			l, err = ledger.Bootstrap(context.Background(), config, from, "/data/joining", nil)
			if err != nil {
				t.Fatalf("after %d operations, joining again: %v", stop, err)
			}
		} else {
			whole++
			if l, err = ledger.Open(config); err != nil {
				t.Fatalf("after %d operations: %v", stop, err)
			}
		}
		sameFolder(t, export(t, l), from)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if done {
			break
		}
	}
	if none < 3 || whole < 1 {
		t.Errorf("%d crashes before, %d after the ledger was there", none, whole)
	}
}

// cutOff is a file system that fails every change after some.
type cutOff struct {
	vfs.FS
	left *int
}

var errCutOff = errors.New("the machine has stopped")

func newCutOff(fs vfs.FS, changes int) vfs.FS { return cutOff{fs, &changes} }

func (c cutOff) spend() error {
	if *c.left--; *c.left < 0 {
		return errCutOff
	}
	return nil
}

func (c cutOff) Rename(from, to string) error {
	if err := c.spend(); err != nil {
		return err
	}
	return c.FS.Rename(from, to)
}

func (c cutOff) RemoveAll(name string) error {
	if err := c.spend(); err != nil {
		return err
	}
	return c.FS.RemoveAll(name)
}

func (c cutOff) OpenDir(name string) (vfs.File, error) {
	if err := c.spend(); err != nil {
		return nil, err
	}
	return c.FS.OpenDir(name)
}

func TestExportEnds(t *testing.T) {
	l := open(t, ledger.Config{Dir: filepath.Join(t.TempDir(), "l"), ChannelID: "devledger"})
	s := l.NewSnapshot()
	if err := s.Export(context.Background(), vfs.Default, t.TempDir()); err == nil {
		t.Error("a snapshot of an empty ledger was made")
	}
	s.Close()
	until(t, l, 5)
	if _, err := proto.Marshal(l.Info()); err != nil {
		t.Error(err)
	}
}

// TestOldFormat opens derived data from before formats were counted: it is made again.
func TestOldFormat(t *testing.T) {
	config := ledger.Config{Dir: filepath.Join(t.TempDir(), "l"), ChannelID: "devledger"}
	l := open(t, config)
	until(t, l, uint64(len(golden(t))))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open(filepath.Join(config.Dir, "derived"), &pebble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tip, closer, err := db.Get([]byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.Clone(tip[:len(tip)-1])
	// What the older form did not have must come back.
	err = errors.Join(closer.Close(), db.Set([]byte("m"), old, pebble.NoSync), db.DeleteRange([]byte("c"), []byte("d"), pebble.NoSync), db.Flush(), db.Close())
	if err != nil {
		t.Fatal(err)
	}
	sameFolder(t, export(t, open(t, config)), filepath.Join(vectors, "snapshot-Alpha"))
}
