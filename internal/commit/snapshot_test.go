package commit_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/commit"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/ledger"
)

// A peer that joins by a snapshot validates the rest of the golden ledger, byte for byte as Fabric's peer stored it: copies of
// transactions from before the snapshot are found out, policies and collections are known, expiring hashes go in time.
func TestJoinBySnapshot(t *testing.T) {
	source := openPeer(t, t.TempDir(), nil)
	from := uint64(1)
	for _, at := range []uint64{2, 28, 55, 67, 81, 100} {
		source.submit(from, at)
		from = at
		s := source.ledger.NewSnapshot()
		files := t.TempDir()
		if err := s.Export(context.Background(), vfs.Default, files); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		follow(t, files, at)
	}
}

// follow joins by a snapshot of the first blocks and takes the rest.
func follow(t *testing.T, files string, from uint64) {
	t.Helper()
	dir := t.TempDir()
	joined := filepath.Join(dir, "ledger")
	l, err := ledger.Bootstrap(context.Background(), ledger.Config{Dir: joined, ChannelID: "devledger"}, files, filepath.Join(dir, "staging"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := openPeer(t, joined, func(c *commit.Config) {
		c.Genesis = nil
		c.Verifier = identity.NewVerifier(identity.Config{})
	})
	if p.Next() != from || p.Height() != from {
		t.Fatalf("it wants block %d, want %d", p.Next(), from)
	}
	p.submit(from, height)
	for n := from; n < height; n++ {
		got, err := p.BlockBytes(n)
		if err != nil {
			t.Fatal(err)
		}
		if _, want := golden(t, n); !bytes.Equal(got, want) {
			t.Errorf("joined at %d: block %d differs from the one that Fabric's peer stored", from, n)
		}
	}
	p.end()
}
