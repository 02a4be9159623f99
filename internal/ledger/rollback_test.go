package ledger_test

import (
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// recommit commits golden blocks up to a height with no private data but what the rollback kept. As the pipeline does, it leaves
// out what does not match the hash in the block.
func recommit(t testing.TB, l *ledger.Ledger, height uint64) {
	t.Helper()
	for n := l.Height(); n < height; n++ {
		c := &ledger.Commit{Block: golden(t)[n]}
		want, missing := privateOf(t, "Alpha", n)
		c.Missing = missing
		dropped, err := l.Dropped(n)
		if err != nil {
			t.Fatal(err)
		}
		hashes := map[ledger.Missing][32]byte{}
		for _, item := range ledger.Each(n, want) {
			hashes[item.Missing] = sha256.Sum256(item.Rwset)
		}
		for _, p := range dropped {
			whole := &rwsetpb.TxPvtReadWriteSet{DataModel: p.Set.DataModel}
			for _, item := range ledger.Each(n, []ledger.TxPrivate{p}) {
				if hashes[item.Missing] == sha256.Sum256(item.Rwset) {
					ledger.AddPrivate(whole, item.Missing, item.Rwset)
				} else {
					item.Eligible = true
					c.Missing = append(c.Missing, item.Missing)
				}
			}
			if len(whole.NsPvtRwset) > 0 {
				c.Private = append(c.Private, ledger.TxPrivate{Tx: p.Tx, Set: whole})
			}
		}
		if err := l.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
}

func regaining(t testing.TB, l *ledger.Ledger, want uint64) {
	t.Helper()
	if height, ok := l.Regaining(); height != want || ok != (want > 0) {
		t.Errorf("to be regained: height %d %v, want %d", height, ok, want)
	}
}

// TestRollback rolls the golden ledger back, to the genesis block too, and again while it comes back; in the end it is what it
// was, private data included that nobody else gives it.
func TestRollback(t *testing.T) {
	want, full := digests(t), uint64(len(golden(t)))
	for _, erase := range []bool{false, true} {
		config := ledger.Config{Dir: t.TempDir(), ChannelID: "devledger", SegmentBytes: 200 << 10}
		l := open(t, config)
		for n := range full {
			commitGolden(t, l, n)
		}
		if erase {
			if err := l.ErasePurged(); err != nil {
				t.Fatal(err)
			}
		}
		for _, step := range []struct{ to, upTo uint64 }{{full - 2, full}, {80, 95}, {40, 41}, {0, 30}, {10, full}, {0, full}} {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if err := ledger.Rollback(config, step.to); err != nil {
				t.Fatal(err)
			}
			l = open(t, config)
			if l.Height() != step.to+1 {
				t.Fatalf("height %d after the rollback to block %d", l.Height(), step.to)
			}
			// Values that were erased since are not in the state of the past any more.
			if got := digest(t, l); !erase && got != want[step.to+1] {
				t.Fatalf("wrong content after the rollback to block %d", step.to)
			}
			regaining(t, l, full)
			recommit(t, l, step.upTo)
			if step.upTo < full {
				regaining(t, l, full)
			}
		}
		regaining(t, l, 0)
		compareWithGolden(t, l, "Alpha")
		checkIndexes(t, l)
		if missing, err := l.MissingPrivateData(100); err != nil || len(missing) > 100 {
			t.Error(err)
		} else {
			for _, m := range missing {
				if _, golden := privateOf(t, "Alpha", m.Block); len(golden) == 0 {
					t.Errorf("missing at the end: %v", m)
				}
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"rollback.json", "dropped", "dropped.new"} {
			if _, err := os.Stat(filepath.Join(config.Dir, name)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", name, err)
			}
		}
		if err := ledger.Rebuild(config); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(config.Dir, "derived")); !errors.Is(err, os.ErrNotExist) {
			t.Error("derived data is left after Rebuild", err)
		}
		compareWithGolden(t, open(t, config), "Alpha")
	}
}

func TestRollbackRefusals(t *testing.T) {
	config := ledger.Config{Dir: t.TempDir(), ChannelID: "devledger"}
	refuse := func(to uint64, want string) {
		t.Helper()
		if err := ledger.Rollback(config, to); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("rollback to block %d: %v, want %q", to, err, want)
		}
	}
	l := open(t, config)
	refuse(0, "is in use by")
	l.Close()
	refuse(0, "target block number [0] should be less than the biggest block number [0]")
	l = open(t, config)
	for n := range uint64(5) {
		commitGolden(t, l, n)
	}
	l.Close()
	refuse(4, "target block number [4] should be less than the biggest block number [4]")
	refuse(1<<63, "should be less than the biggest block number [4]")
	if err := os.WriteFile(filepath.Join(config.Dir, "rollback.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	refuse(2, "rollback.json")
	if l, err := ledger.Open(config); err == nil {
		l.Close()
		t.Error("opened a ledger whose rollback cannot be read")
	}
}

// TestRollbackOfRegained rolls a ledger back that has most of its blocks again: private data of these that could not be taken with them,
// since a purge had trimmed it, waits for the end as before.
func TestRollbackOfRegained(t *testing.T) {
	full := uint64(len(golden(t)))
	config := ledger.Config{Dir: t.TempDir(), ChannelID: "devledger"}
	l := open(t, config)
	until(t, l, full)
	if err := l.ErasePurged(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ to, upTo uint64 }{{0, full - 1}, {full - 3, full}} {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := ledger.Rollback(config, step.to); err != nil {
			t.Fatal(err)
		}
		l = open(t, config)
		recommit(t, l, step.upTo)
	}
	regaining(t, l, 0)
	compareWithGolden(t, l, "Alpha")
	missing, err := l.MissingPrivateData(100)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range missing {
		if _, golden := privateOf(t, "Alpha", m.Block); len(golden) == 0 {
			t.Errorf("missing at the end: %v", m)
		}
	}
}

// A ledger that began with a snapshot goes back to that, and no further.
func TestRollbackToSnapshot(t *testing.T) {
	donor := open(t, ledger.Config{Dir: t.TempDir(), ChannelID: "devledger"})
	until(t, donor, 60)
	l, config := bootstrap(t, export(t, donor), nil)
	first := l.First()
	full := uint64(len(golden(t)))
	at := digest(t, l)
	for n := first; n < full; n++ {
		commitGolden(t, l, n)
	}
	end := digest(t, l)
	l.Close()
	if err := ledger.Rollback(config, first-2); err == nil || !strings.Contains(err.Error(), "of the snapshot that the channel was joined by") {
		t.Errorf("rolled back to before the snapshot: %v", err)
	}
	if err := ledger.Rollback(config, first-1); err != nil {
		t.Fatal(err)
	}
	l = open(t, config)
	if got := digest(t, l); got != at {
		t.Error("the ledger is not as it was with the snapshot alone")
	}
	recommit(t, l, full)
	if got := digest(t, l); got != end {
		t.Error("the ledger is not as it was before")
	}
	regaining(t, l, 0)
}

// TestRollbackPowerLoss stops the machine at one operation after another of a rollback. Done again, or opened, the ledger is
// as after a rollback or as before, and nothing is lost.
func TestRollbackPowerLoss(t *testing.T) {
	want, full := digests(t), uint64(len(golden(t)))
	const to = 50
	base := vfs.NewCrashableMem()
	config := ledger.Config{Dir: "data/ledger", ChannelID: "devledger", FS: base, SegmentBytes: 150 << 10}
	l := open(t, config)
	for n := range full {
		commitGolden(t, l, n)
	}
	l.Close()
	rng := rand.New(rand.NewPCG(1, 2))
	clone := func(fs *vfs.MemFS, percent int) *vfs.MemFS {
		return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
	}
	before, after, again := 0, 0, 0
	for at := int64(1); ; at += 1 + at/12 {
		disk := clone(base, 100)
		var ops atomic.Int64
		var crash *vfs.MemFS
		config.FS = errorfs.Wrap(disk, errorfs.InjectorFunc(func(errorfs.Op) error {
			if ops.Add(1) == at {
				crash = clone(disk, rng.IntN(101))
			}
			return nil
		}))
		if err := ledger.Rollback(config, to); err != nil {
			t.Fatal(err)
		}
		if crash == nil {
			break
		}
		config.FS = crash
		if rng.IntN(2) == 0 {
			again++
			err := ledger.Rollback(config, to)
			if refused := (*ledger.RollbackError)(nil); err != nil && !errors.As(err, &refused) { // refused: it was done
				t.Fatalf("after %d operations: %v", at, err)
			}
		}
		l := open(t, config)
		switch {
		case l.Height() == full:
			before++
		case l.Height() == to+1:
			after++
			regaining(t, l, full)
		default:
			t.Fatalf("after %d operations the height is %d", at, l.Height())
		}
		if got := digest(t, l); got != want[l.Height()] {
			t.Fatalf("after %d operations: wrong content at height %d", at, l.Height())
		}
		recommit(t, l, full)
		if got := digest(t, l); got != want[full] {
			t.Fatalf("after %d operations: wrong content in the end", at)
		}
		l.Close()
	}
	if before < 2 || after < 5 || again < 2 {
		t.Errorf("%d crashes before, %d after the rollback began, %d done again", before, after, again)
	}
}
