package ledger_test

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// TestExpiry: a private key that is written in block n of a collection with a block-to-live of b expires with block n+b+1, is still there
// for whoever validates that block, and lives on from a later write, also one of its metadata alone.
func TestExpiry(t *testing.T) {
	l := open(t, ledger.Config{Dir: "ledger", FS: vfs.NewMem()})
	add := func(write func(b *rwset.Builder)) {
		t.Helper()
		b := rwset.NewBuilder()
		write(b)
		results, private, err := b.Results()
		if err != nil {
			t.Fatal(err)
		}
		info := l.Info()
		blk := block.New(info.Height, info.CurrentBlockHash, [][]byte{transaction(t, fmt.Sprint("tx", info.Height), results)})
		block.SetFilter(blk, []byte{0})
		c := &ledger.Commit{Block: block.Parse(blk)}
		if private != nil {
			c.Private = []ledger.TxPrivate{{Set: private}}
		}
		if err := l.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
	empty := func() { add(func(b *rwset.Builder) { b.AddWrite("cc", "filler", []byte("x")) }) }
	const live = 2
	add(func(b *rwset.Builder) {
		collections := marshal(t, &peerpb.CollectionConfigPackage{Config: []*peerpb.CollectionConfig{{Payload: &peerpb.CollectionConfig_StaticCollectionConfig{
			StaticCollectionConfig: &peerpb.StaticCollectionConfig{Name: "brief", BlockToLive: live}}}}})
		b.AddWrite("_lifecycle", "namespaces/fields/cc/Collections", marshal(t, &lifecyclepb.StateData{Type: &lifecyclepb.StateData_Bytes{Bytes: collections}}))
	})
	there := func(key string, want bool) {
		t.Helper()
		s := l.NewSnapshot()
		defer s.Close()
		hash, err := s.GetHash("cc", "brief", rwset.KeyHash(key))
		if err != nil || (hash != nil) != want {
			t.Errorf("at height %d the hash of %s is there: %v, want %v; %v", l.Height(), key, hash != nil, want, err)
		}
		value, err := s.GetPrivate("cc", "brief", key)
		if err != nil || (value != nil) != want {
			t.Errorf("at height %d the value of %s is there: %v, want %v; %v", l.Height(), key, value != nil, want, err)
		}
	}
	n := l.Height()
	add(func(b *rwset.Builder) {
		for _, key := range []string{"left", "renewed", "again"} {
			b.AddPrivateWrite("cc", "brief", key, []byte("secret"))
		}
	})
	empty()
	m := l.Height()
	add(func(b *rwset.Builder) {
		b.AddPrivateMetadataWrite("cc", "brief", "renewed", map[string][]byte{"m": []byte("x")})
		b.AddPrivateWrite("cc", "brief", "again", []byte("other"))
	})
	for l.Height() < n+live+1 {
		empty()
	}
	// This is the state in which block n+live+1 is validated.
	there("left", true)
	empty()
	there("left", false)
	there("renewed", true)
	there("again", true)
	for l.Height() < m+live+1 {
		empty()
	}
	there("renewed", true)
	empty()
	there("renewed", false)
	there("again", false)
}
