package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// withhold takes single collections out of what a block brings, at random.
func withhold(r *rand.Rand, n uint64, codes []byte, private []ledger.TxPrivate) (kept []ledger.TxPrivate, late []ledger.Late) {
	for _, p := range private {
		if codes[p.Tx] != byte(peerpb.TxValidationCode_VALID) {
			kept = append(kept, p)
			continue
		}
		set := &rwsetpb.TxPvtReadWriteSet{DataModel: p.Set.DataModel}
		for _, ns := range p.Set.NsPvtRwset {
			here := &rwsetpb.NsPvtReadWriteSet{Namespace: ns.Namespace}
			for _, c := range ns.CollectionPvtRwset {
				if r.IntN(2) == 0 {
					here.CollectionPvtRwset = append(here.CollectionPvtRwset, c)
					continue
				}
				late = append(late, ledger.Late{
					Missing: ledger.Missing{Block: n, Tx: p.Tx, Namespace: ns.Namespace, Collection: c.CollectionName, Eligible: true}, Rwset: c.Rwset})
			}
			if len(here.CollectionPvtRwset) > 0 {
				set.NsPvtRwset = append(set.NsPvtRwset, here)
			}
		}
		if len(set.NsPvtRwset) > 0 {
			kept = append(kept, ledger.TxPrivate{Tx: p.Tx, Set: set})
		}
	}
	return kept, late
}

// TestLate commits the golden ledger with private data that comes some blocks after its own; the ledger ends as if all had come in
// time, also after its derived data was made again.
func TestLate(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 0))
			dir := t.TempDir()
			l := open(t, ledger.Config{Dir: dir, SegmentBytes: 300 << 10})
			var waiting []ledger.Late
			total := 0
			settle := func() {
				var missing []ledger.Missing
				data := map[ledger.Missing][]byte{}
				for _, w := range waiting {
					missing, data[w.Missing] = append(missing, w.Missing), w.Rwset
				}
				late, lacking, err := l.Sort(missing)
				if err != nil {
					t.Fatal(err)
				}
				for _, want := range lacking {
					if want.TxID == "" || len(want.Hash) != 32 {
						t.Errorf("asks for %v", want)
					}
					late = append(late, ledger.Late{Missing: want.Missing, Rwset: data[want.Missing]})
				}
				r.Shuffle(len(late), func(i, j int) { late[i], late[j] = late[j], late[i] })
				wrong := make([]ledger.Late, 0, len(lacking))
				for _, want := range lacking {
					wrong = append(wrong, ledger.Late{Missing: want.Missing, Rwset: []byte("\x1a\x03\x0a\x01k")})
				}
				if taken, err := l.CommitLate(wrong); err != nil || taken != 0 {
					t.Errorf("took %d that are wrong, %v", taken, err)
				}
				if taken, err := l.CommitLate(late); err != nil || taken != len(late) {
					t.Errorf("took %d of %d, %v", taken, len(late), err)
				}
				waiting = nil
				if left, err := l.MissingPrivateDataBelow(l.Height(), 100); err != nil || len(left) > 0 {
					t.Errorf("still missing: %v, %v", left, err)
				}
			}
			for _, b := range golden(t) {
				n := b.Header.Number
				c := &ledger.Commit{Block: b}
				private, missing := privateOf(t, "Alpha", n)
				for _, m := range missing {
					if !m.Eligible {
						c.Missing = append(c.Missing, m)
					}
				}
				var late []ledger.Late
				c.Private, late = withhold(r, n, block.Filter(b.Block), private)
				for _, w := range late {
					m := w.Missing
					c.Missing = append(c.Missing, m)
				}
				if err := l.Commit(c); err != nil {
					t.Fatal(err)
				}
				waiting, total = append(waiting, late...), total+len(late)
				if r.IntN(8) == 0 {
					settle()
				}
			}
			settle()
			if total < 10 {
				t.Errorf("only %d write sets came late", total)
			}
			compareWithGolden(t, l, "Alpha")
			l.Close()
			os.RemoveAll(filepath.Join(dir, "derived"))
			l = open(t, ledger.Config{Dir: dir})
			compareWithGolden(t, l, "Alpha")
			checkIndexes(t, l)
		})
	}
}
