package courier_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/ledger"
)

// bySnapshot gives a peer a ledger that began with a snapshot of another's, and the blocks behind it without their private data.
func bySnapshot(t *testing.T, w *world, p *peer, height uint64) {
	t.Helper()
	donor := must(ledger.Open(ledger.Config{Dir: "donor", ChannelID: channelID, FS: vfs.NewMem()}))(t)
	defer donor.Close()
	for n := range height {
		if err := donor.Commit(&ledger.Commit{Block: goldenBlock(t, n), Private: privateOf(t, "Alpha", n)}); err != nil {
			t.Fatal(err)
		}
	}
	files := t.TempDir()
	s := donor.NewSnapshot()
	if err := s.Export(t.Context(), vfs.Default, files); err != nil {
		t.Fatal(err)
	}
	s.Close()
	p.ledger.Close()
	dir := t.TempDir()
	p.ledger = must(ledger.Bootstrap(t.Context(), ledger.Config{Dir: filepath.Join(dir, "ledger"), ChannelID: channelID}, files, filepath.Join(dir, "staging"), nil))(t)
	t.Cleanup(func() { p.ledger.Close() })
	for n := height; n < goldenHeight(t); n++ {
		b := goldenBlock(t, n)
		if err := p.ledger.Commit(&ledger.Commit{Block: b, Missing: missingOf(b, privateOf(t, "Beta", n))}); err != nil {
			t.Fatal(err)
		}
	}
	if len(privateState(t, p.ledger)) > 0 {
		t.Fatal("a snapshot brought private data")
	}
}

func sameState(t *testing.T, got, want map[string]string) {
	t.Helper()
	for key := range got {
		if want[key] == "" {
			t.Errorf("%s is %s, want none", key, got[key])
		}
	}
	for key := range want {
		if got[key] != want[key] {
			t.Errorf("%s is %s, want %s", key, got[key], want[key])
		}
	}
}

// A peer that joined by a snapshot gets the private data from before it that its member may have, and no other; also in
// pages, and again when the derived data is made again.
func TestReconcileSnapshot(t *testing.T) {
	for _, height := range []uint64{70, goldenHeight(t)} {
		w := newWorld(t, goldenHeight(t), "Beta-", "Alpha", "Beta", "Gamma")
		bare, whole := w.peers[0], w.peers[2]
		bySnapshot(t, w, bare, height)
		taken := must(bare.ReconcileOnce(t.Context(), channelID))(t)
		got, want := privateState(t, bare.ledger), privateState(t, whole.ledger)
		// This was written before Beta was let into the collection.
		const before = `pvt/collA/"ak1"`
		want[before] = privateState(t, w.peers[1].ledger)[before]
		if len(want) < 5 || taken < 5 {
			t.Errorf("from height %d: took %d of %d values", height, taken, len(want))
		}
		sameState(t, got, want)
		for range 2 {
			if taken := must(bare.ReconcileOnce(t.Context(), channelID))(t); taken > 0 {
				t.Errorf("took %d that are here", taken)
			}
		}
		dir, _ := bare.ledger.Bootstrapped()
		if err := bare.ledger.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(filepath.Dir(dir), "derived")); err != nil {
			t.Fatal(err)
		}
		bare.ledger = must(ledger.Open(ledger.Config{Dir: filepath.Dir(dir), ChannelID: channelID}))(t)
		t.Cleanup(func() { bare.ledger.Close() })
		w.serve(bare) // as after a restart
		must(bare.ReconcileOnce(t.Context(), channelID))(t)
		sameState(t, privateState(t, bare.ledger), want)
	}
}

// Nobody to ask, or nobody who has it: the data stays unfetched and is asked for again.
func TestReconcileSnapshotAlone(t *testing.T) {
	w := newWorld(t, goldenHeight(t), "Beta-", "Beta-")
	bare := w.peers[0]
	bySnapshot(t, w, bare, goldenHeight(t))
	for range 3 {
		if taken := must(bare.ReconcileOnce(t.Context(), channelID))(t); taken > 0 {
			t.Errorf("took %d from nobody", taken)
		}
	}
	if len(privateState(t, bare.ledger)) > 0 {
		t.Error("there is private data from nowhere")
	}
}

// What others give is taken only if it has the hashes that are in the snapshot.
func TestForgedBeforeSnapshot(t *testing.T) {
	w := newWorld(t, goldenHeight(t), "Beta-", "Alpha")
	bare := w.peers[0]
	bySnapshot(t, w, bare, goldenHeight(t))
	s := bare.ledger.NewSnapshot()
	defer s.Close()
	tried := 0
	for _, at := range must(s.Places(true))(t) {
		for _, u := range must(s.UnfetchedPrivateData(at, nil, 1000))(t) {
			m := ledger.Missing{Block: u.Version.Block, Tx: u.Version.Tx, Namespace: at.Namespace, Collection: at.Collection}
			for _, raw := range [][]byte{nil, {}, []byte("nonsense"), []byte("\x1a\x07\x0a\x02pk\x1a\x01v")} {
				tried++
				if taken, err := bare.ledger.CommitLate([]ledger.Late{{Missing: m, Rwset: raw}}); err != nil || taken != 0 {
					t.Errorf("%v: took %d of %q, %v", m, taken, raw, err)
				}
			}
		}
	}
	if tried < 20 || len(privateState(t, bare.ledger)) > 0 {
		t.Errorf("%d tries; private state %v", tried, privateState(t, bare.ledger))
	}
}
