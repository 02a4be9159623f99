package blockstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/hansa-ledger/hansa/internal/blockstore"
)

// record gives block n's bytes; they differ in length, and every fifth has no extra bytes.
func record(n uint64) (block, extra []byte) {
	block = bytes.Repeat([]byte{byte(n), 0xb}, int(5+n%7))
	if n%5 != 0 {
		extra = bytes.Repeat([]byte{byte(n), 0xe}, int(1+n%3))
	}
	return block, extra
}

func open(t testing.TB, dir string, o blockstore.Options) *blockstore.Store {
	t.Helper()
	s, err := blockstore.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func appendTo(t testing.TB, s *blockstore.Store, height uint64) {
	t.Helper()
	for n := s.Height(); n < height; n++ {
		b, e := record(n)
		if err := s.Append(n, b, e); err != nil {
			t.Fatal(err)
		}
	}
}

func check(t testing.TB, s *blockstore.Store, first, height uint64) {
	t.Helper()
	if s.First() != first || s.Height() != height {
		t.Fatalf("blocks %d to %d, want %d to %d", s.First(), s.Height(), first, height)
	}
	for n := first; n < height; n++ {
		b, e, err := s.Read(n)
		if err != nil {
			t.Fatal(err)
		}
		wantB, wantE := record(n)
		if !bytes.Equal(b, wantB) || !bytes.Equal(e, wantE) {
			t.Fatalf("block %d: %x %x", n, b, e)
		}
	}
	if _, _, err := s.Read(height); !errors.Is(err, blockstore.ErrNotFound) {
		t.Fatalf("block above the height: %v", err)
	}
}

func TestAppendAndReopen(t *testing.T) {
	for _, segment := range []int64{1, 200, 1 << 20} {
		for _, first := range []uint64{0, 1000} {
			dir := t.TempDir()
			o := blockstore.Options{SegmentBytes: segment, First: first}
			s := open(t, dir, o)
			check(t, s, first, first)
			appendTo(t, s, first+20)
			if s.Synced() > first+20 {
				t.Fatal("synced above the height")
			}
			if err := s.Sync(); err != nil || s.Synced() != first+20 {
				t.Fatal(err, s.Synced())
			}
			check(t, s, first, first+20)
			s.Close()
			s = open(t, dir, blockstore.Options{SegmentBytes: segment})
			check(t, s, first, first+20)
			appendTo(t, s, first+25)
			s.Close()
			// The indexes of full segments are made again.
			indexes, _ := filepath.Glob(filepath.Join(dir, "*.index"))
			for i, name := range indexes {
				if i%2 == 0 {
					os.Remove(name)
				} else {
					os.WriteFile(name, []byte("nonsense"), 0o600)
				}
			}
			s = open(t, dir, o)
			check(t, s, first, first+25)
			s.Close()
		}
	}
}

func TestWrongNumber(t *testing.T) {
	s := open(t, t.TempDir(), blockstore.Options{})
	appendTo(t, s, 2)
	for _, n := range []uint64{0, 1, 3} {
		if err := s.Append(n, []byte("x"), nil); err == nil || !strings.Contains(err.Error(), "next block is 2") {
			t.Errorf("block %d: %v", n, err)
		}
	}
	check(t, s, 0, 2)
}

func segments(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.blocks"))
	if err != nil || len(names) == 0 {
		t.Fatal("no segments", err)
	}
	return names
}

// withFile gives a file system in memory that holds one file of a store in the folder "log".
func withFile(t testing.TB, name string, content []byte) vfs.FS {
	t.Helper()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("log", 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := fs.Create("log/"+name, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	f.Close()
	return fs
}

// TestTornTail cuts the file behind every byte of the last records, and in a second round fills what is cut with
// zeros or noise, as file systems do that grow a file before its data. What is whole stays.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, blockstore.Options{})
	appendTo(t, s, 6)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	name := segments(t, dir)[0]
	durable, _ := os.ReadFile(name)
	var ends []int
	for n := uint64(6); n < 9; n++ {
		appendTo(t, s, n+1)
		b, _ := os.ReadFile(name)
		ends = append(ends, len(b))
	}
	s.Close()
	whole, _ := os.ReadFile(name)
	for cut := len(durable); cut <= len(whole); cut++ {
		want := uint64(6)
		for _, end := range ends {
			if cut >= end {
				want++
			}
		}
		for _, fill := range []string{"", "zeros", "noise"} {
			torn := bytes.Clone(whole[:cut])
			if rest := len(whole) - cut; fill == "zeros" {
				torn = append(torn, make([]byte, rest)...)
			} else if fill == "noise" {
				for _, b := range whole[cut:] {
					torn = append(torn, b^byte(1+rand.IntN(255)))
				}
			}
			disk := blockstore.Options{FS: withFile(t, filepath.Base(name), torn)}
			s := open(t, "log", disk)
			if fill == "zeros" && s.Height() > want {
				want = s.Height() // the cut bytes were zeros
			}
			check(t, s, 0, want)
			appendTo(t, s, 12)
			s.Close()
			s = open(t, "log", disk)
			check(t, s, 0, 12)
			s.Close()
		}
	}
}

// TestUnsyncedHole damages a record that was not yet synced while a later one got to the disk whole: both go.
func TestUnsyncedHole(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, blockstore.Options{})
	appendTo(t, s, 3)
	s.Sync()
	name := segments(t, dir)[0]
	at, _ := os.Stat(name)
	appendTo(t, s, 6)
	s.Close()
	b, _ := os.ReadFile(name)
	b[at.Size()+40] ^= 1
	os.WriteFile(name, b, 0o600)
	s = open(t, dir, blockstore.Options{})
	check(t, s, 0, 3)
}

// TestDamage changes every byte of a synced record: Open or Read tells the file and the offset, and nothing is cut.
func TestDamage(t *testing.T) {
	for _, segment := range []int64{1 << 20, 150} {
		dir := t.TempDir()
		s := open(t, dir, blockstore.Options{SegmentBytes: segment})
		for n := uint64(1); n <= 8; n++ {
			appendTo(t, s, n)
			s.Sync()
		}
		s.Close()
		name := segments(t, dir)[0]
		whole, _ := os.ReadFile(name)
		end := len(whole)
		if segment > 1000 {
			end -= 60 // without the last record, of which no later one says that it was synced
		}
		for i := range end {
			b := bytes.Clone(whole)
			b[i] ^= 0x40
			os.WriteFile(name, b, 0o600)
			s, err := blockstore.Open(dir, blockstore.Options{SegmentBytes: segment})
			if err == nil {
				for n := uint64(0); n < s.Height() && err == nil; n++ {
					_, _, err = s.Read(n)
				}
				s.Close()
			}
			var damage *blockstore.CorruptError
			if !errors.As(err, &damage) || damage.File != name || !strings.Contains(err.Error(), fmt.Sprint("offset ", damage.Offset)) {
				t.Fatalf("byte %d changed: %v", i, err)
			}
			if now, _ := os.ReadFile(name); !bytes.Equal(now, b) {
				t.Fatalf("byte %d changed: the file was rewritten", i)
			}
		}
		os.WriteFile(name, whole, 0o600)
		s = open(t, dir, blockstore.Options{SegmentBytes: segment})
		check(t, s, 0, 8)
		s.Close()
	}
}

func TestMissingSegment(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, blockstore.Options{SegmentBytes: 1})
	appendTo(t, s, 5)
	s.Close()
	os.Remove(segments(t, dir)[2])
	_, err := blockstore.Open(dir, blockstore.Options{})
	var damage *blockstore.CorruptError
	if !errors.As(err, &damage) || !strings.Contains(err.Error(), "segment file is missing") {
		t.Fatal(err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, blockstore.Options{})
	_, err := blockstore.Open(dir, blockstore.Options{})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Fatal(err)
	}
	s.Close()
	open(t, dir, blockstore.Options{})
}

// TestDiskFull lets writes fail from some moment on and then succeed again. Nothing that was there is lost, and the store goes on.
func TestDiskFull(t *testing.T) {
	var full atomic.Bool
	inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && (op.Kind.ReadOrWrite() == errorfs.OpIsWrite) {
			return syscall.ENOSPC
		}
		return nil
	})
	dir := t.TempDir()
	o := blockstore.Options{FS: errorfs.Wrap(vfs.Default, inject), SegmentBytes: 250}
	s := open(t, dir, o)
	for n := uint64(0); n < 20; n++ {
		full.Store(true)
		b, e := record(n)
		if err := s.Append(n, b, e); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		full.Store(false)
		check(t, s, 0, n)
		appendTo(t, s, n+1)
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	s = open(t, dir, o)
	check(t, s, 0, 20)
}

// TestFailedSync: after a flush that failed nobody knows what is on the disk, so the store stops until it is opened again.
func TestFailedSync(t *testing.T) {
	var broken atomic.Bool
	inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			return syscall.EIO
		}
		return nil
	})
	dir := t.TempDir()
	o := blockstore.Options{FS: errorfs.Wrap(vfs.Default, inject)}
	s := open(t, dir, o)
	appendTo(t, s, 3)
	s.Sync()
	appendTo(t, s, 4)
	broken.Store(true)
	if err := s.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	broken.Store(false)
	if err := s.Append(4, []byte("x"), nil); err == nil || !strings.Contains(err.Error(), "opened again") {
		t.Fatal(err)
	}
	check(t, s, 0, 4)
	s.Close()
	s = open(t, dir, o)
	check(t, s, 0, 4) // failed yet written
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
}

// TestPowerLoss stops the machine at random moments, losing any part of what was not synced.
func TestPowerLoss(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for round := range 60 {
		disk := vfs.NewCrashableMem()
		synced := uint64(0)
		for life := range 4 {
			s, err := blockstore.Open("log", blockstore.Options{FS: disk, SegmentBytes: int64(100 + rng.IntN(400))})
			if err != nil {
				t.Fatalf("seed %d, round %d, life %d: %v", seed, round, life, err)
			}
			if s.Height() < synced {
				t.Fatalf("seed %d, round %d, life %d: height %d, %d were synced", seed, round, life, s.Height(), synced)
			}
			check(t, s, 0, s.Height())
			synced = s.Height()
			for range rng.IntN(12) {
				appendTo(t, s, s.Height()+1)
				if rng.IntN(3) == 0 {
					if err := s.Sync(); err != nil {
						t.Fatal(err)
					}
				}
			}
			synced = max(synced, s.Synced())
			disk = disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			s.Close()
		}
	}
}

// TestRewriteExtra takes extra bytes out of some records: they are in no file any more, everything else is as it was.
func TestRewriteExtra(t *testing.T) {
	dir := t.TempDir()
	o := blockstore.Options{SegmentBytes: 300}
	s := open(t, dir, o)
	secret := []byte("a very private thing")
	for n := uint64(0); n < 20; n++ {
		b, e := record(n)
		if n%4 == 2 {
			e = secret
		}
		if err := s.Append(n, b, e); err != nil {
			t.Fatal(err)
		}
	}
	err := s.RewriteExtra(func(n uint64, extra []byte) ([]byte, error) {
		if bytes.Equal(extra, secret) {
			_, e := record(n)
			return e, nil
		}
		return extra, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		check(t, s, 0, 20)
		names, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, name := range names {
			if b, _ := os.ReadFile(name); bytes.Contains(b, secret) {
				t.Errorf("still in %s", name)
			}
		}
		s.Close()
		s = open(t, dir, o)
	}
	appendTo(t, s, 30)
	s.Close()
	s = open(t, dir, o)
	check(t, s, 0, 30)
}

// TestTruncate drops blocks at every height, across segments, and goes on from there.
func TestTruncate(t *testing.T) {
	for _, segment := range []int64{1, 200, 1 << 20} {
		for _, height := range []uint64{10, 11, 15, 18, 22, 29, 30, 31} {
			dir := t.TempDir()
			o := blockstore.Options{SegmentBytes: segment, First: 10}
			s := open(t, dir, o)
			appendTo(t, s, 30)
			if err := s.Truncate(9); err == nil {
				t.Fatal("truncated to before the first block")
			}
			if err := s.Truncate(height); err != nil {
				t.Fatal(err)
			}
			left := min(height, 30)
			check(t, s, 10, left)
			if height%2 == 0 {
				s.Close()
				s = open(t, dir, o)
				check(t, s, 10, left)
			}
			appendTo(t, s, 32)
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
			s.Close()
			check(t, open(t, dir, o), 10, 32)
		}
	}
}

func TestConcurrentReads(t *testing.T) {
	s := open(t, t.TempDir(), blockstore.Options{SegmentBytes: 500})
	appendTo(t, s, 1)
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				n := rand.Uint64N(s.Height())
				b, _, err := s.Read(n)
				if want, _ := record(n); err != nil || !bytes.Equal(b, want) {
					t.Error(n, err)
					return
				}
			}
		})
	}
	for n := uint64(2); n < 300; n++ {
		appendTo(t, s, n)
		if n%10 == 0 {
			s.Sync()
		}
	}
	close(done)
	wg.Wait()
}

func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	s := open(f, dir, blockstore.Options{})
	appendTo(f, s, 4)
	s.Sync()
	appendTo(f, s, 6)
	s.Close()
	name := segments(f, dir)[0]
	whole, _ := os.ReadFile(name)
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := blockstore.Open("log", blockstore.Options{FS: withFile(t, "00000000000000000000.blocks", b)})
		if err != nil {
			return
		}
		defer s.Close()
		height := s.Height()
		for n := s.First(); n < height; n++ {
			if _, _, err := s.Read(n); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Append(height, []byte("next"), nil); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkAppendSync(b *testing.B) {
	for _, size := range []int{50 << 10, 500 << 10} {
		b.Run(fmt.Sprintf("%dkB", size>>10), func(b *testing.B) {
			s := open(b, b.TempDir(), blockstore.Options{})
			block := make([]byte, size)
			b.SetBytes(int64(size))
			n := uint64(0)
			for b.Loop() {
				if err := errors.Join(s.Append(n, block, nil), s.Sync()); err != nil {
					b.Fatal(err)
				}
				n++
			}
		})
	}
}

var _ io.Closer = (*blockstore.Store)(nil)
