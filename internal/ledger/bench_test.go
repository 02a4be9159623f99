package ledger_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
)

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCommit commits blocks of transactions that read one key and write two of 100 bytes, as validation would hand them over.
func BenchmarkCommit(b *testing.B) {
	for _, size := range []int{100, 500} {
		b.Run(fmt.Sprintf("%dtx", size), func(b *testing.B) {
			l := open(b, ledger.Config{Dir: b.TempDir()})
			value := make([]byte, 100)
			var busy time.Duration
			for b.Loop() {
				b.StopTimer()
				var data [][]byte
				n := l.Height()
				for i := range size {
					rw := rwset.NewBuilder()
					rw.AddRead("_lifecycle", "namespaces/fields/cc/Sequence", &rwset.Version{Block: 3})
					rw.AddWrite("cc", fmt.Sprintf("key-%d", (int(n)*size+i)%20000), value)
					rw.AddWrite("cc", fmt.Sprintf("new-%d-%d", n, i), value)
					results, _, err := rw.Results()
					if err != nil {
						b.Fatal(err)
					}
					data = append(data, transaction(b, fmt.Sprintf("%064d", int(n)*size+i), results))
				}
				blk := block.New(n, l.Info().CurrentBlockHash, data)
				block.SetFilter(blk, make([]byte, size))
				c := &ledger.Commit{Block: block.Parse(blk)}
				var err error
				if c.Sets, err = ledger.Sets(c.Block, block.Filter(blk)); err != nil {
					b.Fatal(err)
				}
				start := cpu()
				b.StartTimer()
				s := l.NewSnapshot()
				if c.Updates, err = ledger.Derive(c.Block, block.Filter(blk), c.Sets, s); err != nil {
					b.Fatal(err)
				}
				s.Close()
				if n > 0 {
					block.SetCommitHash(blk, rwset.CommitHash(block.Filter(blk), c.Updates.CommitBytes(), l.LastCommitHash()))
				}
				if err := l.Commit(c); err != nil {
					b.Fatal(err)
				}
				busy += cpu() - start
			}
			b.ReportMetric(float64(busy.Microseconds())/float64(b.N*size), "cpu-us/tx")
		})
	}
}

func filled(b *testing.B) *ledger.Ledger {
	l := open(b, ledger.Config{Dir: b.TempDir()})
	for n := range 20 {
		var txs [][]string
		for i := range 500 {
			txs = append(txs, []string{fmt.Sprintf("key-%06d=%0100d", n*500+i, i)})
		}
		commit(b, l, txs...)
	}
	return l
}

func BenchmarkGet(b *testing.B) {
	s := filled(b).NewSnapshot()
	defer s.Close()
	i := 0
	for b.Loop() {
		i = (i + 7919) % 10000
		if v, err := s.Get("cc", fmt.Sprintf("key-%06d", i)); v == nil || err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRange100(b *testing.B) {
	s := filled(b).NewSnapshot()
	defer s.Close()
	i := 0
	for b.Loop() {
		i = (i + 7919) % 9900
		it, err := s.Range("cc", fmt.Sprintf("key-%06d", i), "")
		if err != nil {
			b.Fatal(err)
		}
		for range 100 {
			if _, _, ok, err := it.Next(); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
		it.Close()
	}
}

func BenchmarkSnapshot(b *testing.B) {
	l := filled(b)
	for b.Loop() {
		l.NewSnapshot().Close()
	}
}
