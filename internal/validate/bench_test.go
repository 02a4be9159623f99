package validate_test

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/rwset"
)

// A block of 100 transactions with 2 endorsements, each of which reads and writes one key: with every signature new, and with
// those that this process has verified before. cpu-ns/tx counts the process's CPU time, which other load on the machine does
// not inflate.
func BenchmarkValidate(b *testing.B) {
	const txs = 100
	n := newNetwork(b)
	n.define("both", signaturePolicy(b, "AND('OneMSP.member','TwoMSP.member')"))
	data := make([][]byte, txs)
	for i := range data {
		set := rwset.NewBuilder()
		key := fmt.Sprintf("key%03d", i)
		set.AddRead("both", key, nil)
		set.AddWrite("both", key, make([]byte, 200))
		data[i] = n.tx(tx{set: set})
	}
	blk := n.block(data...)
	for _, verified := range []bool{false, true} {
		b.Run(fmt.Sprintf("verified=%t", verified), func(b *testing.B) {
			b.ReportAllocs()
			bundle := n.bundle
			if !verified {
				// A cache so small that every signature has left it when its turn comes again.
				var err error
				if bundle, err = channel.NewBundle(channelID, n.bundle.Config(), identity.NewVerifier(identity.Config{Signatures: 1})); err != nil {
					b.Fatal(err)
				}
			}
			var cpu time.Duration
			for b.Loop() {
				start := cpuTime(b)
				r, err := n.validator.Decide(bundle, n.validator.Prepare(bundle, block.Parse(blk)), n.state)
				cpu += cpuTime(b) - start
				if err != nil || r.Codes[0] != 0 || r.Codes[txs-1] != 0 {
					b.Fatal(err, names(r.Codes))
				}
			}
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N*txs), "cpu-ns/tx")
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
