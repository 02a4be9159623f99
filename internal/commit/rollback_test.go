package commit_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/hansa-ledger/hansa/internal/commit"
	"github.com/hansa-ledger/hansa/internal/ledger"
)

// A peer that was rolled back gets its blocks again and ends as it was, with its private data, which nobody else gives it.
func TestRollback(t *testing.T) {
	dir := t.TempDir()
	p := openPeer(t, dir, nil)
	p.submit(1, height)
	p.end()
	for _, to := range []uint64{70, 0} {
		if err := ledger.Rollback(ledger.Config{Dir: dir, ChannelID: "devledger"}, to); err != nil {
			t.Fatal(err)
		}
		other := &fetcher{t: t, spoil: true}
		p = openPeer(t, dir, func(c *commit.Config) { c.Private = other })
		for n := to + 1; n < height; n++ {
			if err := p.Submit(context.Background(), ordered(t, n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Wait(context.Background(), height); err != nil {
			t.Fatal(err)
		}
		for n := uint64(0); n < height; n++ {
			got, err := p.BlockBytes(n)
			if err != nil {
				t.Fatal(err)
			}
			if _, want := golden(t, n); !bytes.Equal(got, want) {
				t.Errorf("block %d differs from the one that Fabric's peer stored", n)
			}
			stored, err := p.ledger.PrivateData(n)
			if err != nil || len(stored) != len(privateData(t, n)) {
				t.Errorf("block %d: private data of %d transactions, want %d; %v", n, len(stored), len(privateData(t, n)), err)
			}
		}
		if len(other.asked) > 0 {
			t.Errorf("asked others for private data that was here: %v", other.asked)
		}
		if missing, err := p.ledger.MissingPrivateData(10); err != nil || len(missing) != 0 {
			t.Errorf("missing private data: %v, %v", missing, err)
		}
		p.end()
	}
}
