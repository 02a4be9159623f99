package commit_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/commit"
	"github.com/hansa-ledger/hansa/internal/ledger"
)

// Private data that comes after its block is committed between blocks.
func TestLate(t *testing.T) {
	const to = 70
	p := openPeer(t, t.TempDir(), nil)
	settled := 0
	settle := func() {
		t.Helper()
		missing, err := p.ledger.MissingPrivateData(1000)
		if err != nil {
			t.Fatal(err)
		}
		late, lacking, err := p.ledger.Sort(missing)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lacking {
			got, err := (&fetcher{t: t}).Fetch(t.Context(), l.Block, []commit.Wanted{{Tx: l.Tx, TxID: l.TxID, Namespace: l.Namespace, Collection: l.Collection, Hash: l.Hash}})
			if err != nil || got[0] == nil {
				t.Fatal(l, err)
			}
			late = append(late, ledger.Late{Missing: l.Missing, Rwset: got[0]})
		}
		taken, err := p.CommitLate(t.Context(), late)
		if err != nil || taken != len(late) {
			t.Errorf("took %d of %d, %v", taken, len(late), err)
		}
		settled += taken
	}
	for n := uint64(1); n < to; n++ {
		if err := p.Submit(t.Context(), ordered(t, n)); err != nil {
			t.Fatal(err)
		}
		if n%9 == 0 {
			settle() // while blocks are on their way
		}
	}
	if err := p.Wait(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	settle()
	if left, err := p.ledger.MissingPrivateData(1); err != nil || len(left) > 0 || settled < 10 {
		t.Errorf("settled %d; still missing: %v, %v", settled, left, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.CommitLate(ended, nil); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p.end()
	if _, err := p.CommitLate(t.Context(), nil); !errors.Is(err, commit.ErrStopped) {
		t.Errorf("after the end: %v", err)
	}
}

// What is purged leaves the disk by itself, also if the peer was stopped before.
func TestErase(t *testing.T) {
	const to = 60
	dir := t.TempDir()
	secret := []byte("\x0a\x04pk10") // a private key that block 55 writes and purges
	onDisk := func() (found bool) {
		filepath.WalkDir(dir, func(name string, _ fs.DirEntry, _ error) error {
			raw, _ := os.ReadFile(name)
			found = found || bytes.Contains(raw, secret)
			return nil
		})
		return found
	}
	p := openPeer(t, dir, nil)
	p.submit(1, to)
	if !onDisk() {
		t.Fatal("the test cannot find the data on the disk")
	}
	p.end()
	p = openPeer(t, dir, func(c *commit.Config) { c.EraseAfter = time.Millisecond })
	for deadline := time.Now().Add(10 * time.Second); onDisk() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if onDisk() {
		t.Error("purged data stays on the disk")
	}
	p.submit(to, height)
	p.end()
}
