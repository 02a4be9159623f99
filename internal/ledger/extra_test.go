package ledger_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/ledger"
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
