package ledger_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
)

func FuzzExtra(f *testing.F) {
	private, missing := privateOf(f, "Alpha", 3)
	f.Add(ledger.EncodeExtra(private[:1], nil))
	f.Add(ledger.EncodeExtra(nil, missing))
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		private, missing, err := ledger.DecodeExtra(b)
		if err != nil {
			return
		}
		private2, missing2, err := ledger.DecodeExtra(ledger.EncodeExtra(private, missing))
		if err != nil || len(private) != len(private2) || len(missing) != len(missing2) {
			t.Fatal(err)
		}
		for i := range private {
			if private[i].Tx != private2[i].Tx || !proto.Equal(private[i].Set, private2[i].Set) {
				t.Fatal("private data changed")
			}
		}
	})
}

// TestErasePurged: after it no file holds a purged value, and the ledger, also made again from the log, is what it was.
func TestErasePurged(t *testing.T) {
	dir := t.TempDir()
	l := open(t, ledger.Config{Dir: dir, SegmentBytes: 300 << 10})
	type where struct{ ns, coll, hash string }
	type written struct {
		block, tx uint64
		bytes     string // as in the encoded write
	}
	values := map[where][]written{}
	var purged [][]byte
	for _, b := range golden(t) {
		n := b.Header.Number
		commitGolden(t, l, n)
		private, _ := privateOf(t, "Alpha", n)
		for _, p := range private {
			set, err := rwset.ParsePrivate(p.Set)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range set.Collections {
				for _, w := range c.KV.Writes {
					at := where{c.Namespace, c.Name, string(rwset.KeyHash(w.Key))}
					values[at] = append(values[at], written{n, p.Tx, w.Key + "\x1a" + string([]byte{byte(len(w.Value))}) + string(w.Value)})
				}
			}
		}
		for tx, set := range mustSets(t, b) {
			if set == nil {
				continue
			}
			for _, ns := range set.Namespaces {
				for _, c := range ns.Collections {
					for _, w := range c.Hashed.HashedWrites {
						at := where{ns.Name, c.Name, string(w.KeyHash)}
						if w.IsPurge {
							for _, v := range values[at] {
								if v.block < n || v.tx <= uint64(tx) { // a later one of the block stays
									purged = append(purged, []byte(v.bytes))
								}
							}
						}
					}
				}
			}
		}
	}
	found := func() (n int) {
		filepath.WalkDir(filepath.Join(dir, "blocks"), func(name string, _ fs.DirEntry, _ error) error {
			b, _ := os.ReadFile(name)
			for _, v := range purged {
				if bytes.Contains(b, v) {
					n++
				}
			}
			return nil
		})
		return n
	}
	if len(purged) == 0 || found() == 0 {
		t.Fatal("nothing was purged, or the test cannot find it on the disk", len(purged))
	}
	if err := l.ErasePurged(); err != nil {
		t.Fatal(err)
	}
	if n := found(); n > 0 {
		t.Errorf("%d purged values are still on the disk", n)
	}
	compareWithGolden(t, l, "Alpha")
	l.Close()
	os.RemoveAll(filepath.Join(dir, "derived"))
	l = open(t, ledger.Config{Dir: dir})
	compareWithGolden(t, l, "Alpha")
	checkIndexes(t, l)
}

// TestMissing lists what a member lacks, and only where it is eligible.
func TestMissing(t *testing.T) {
	l := open(t, ledger.Config{Dir: t.TempDir()})
	for n := uint64(0); n < 5; n++ {
		c := &ledger.Commit{Block: golden(t)[n]}
		if n == 3 {
			c.Missing = []ledger.Missing{
				{Tx: 2, Namespace: "_lifecycle", Collection: "_implicit_org_AlphaMSP", Eligible: true},
				{Tx: 3, Namespace: "_lifecycle", Collection: "_implicit_org_BetaMSP"},
				{Tx: 4, Namespace: "_lifecycle", Collection: "_implicit_org_AlphaMSP", Eligible: true},
			}
		}
		if err := l.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
	all, err := l.MissingPrivateData(10)
	if err != nil || len(all) != 2 || all[0].Tx != 4 || all[1].Tx != 2 || all[0].Block != 3 || all[0].Collection != "_implicit_org_AlphaMSP" {
		t.Errorf("%v, %v", all, err)
	}
	if some, err := l.MissingPrivateData(1); err != nil || len(some) != 1 {
		t.Errorf("%v, %v", some, err)
	}
}
