package ledger_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/internal/ledger"
)

// Snapshots of all heights read the same whether a key is remembered or not.
func TestRememberedKeys(t *testing.T) {
	for _, limit := range []int{1, 2000, 1 << 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			l := open(t, ledger.Config{Dir: t.TempDir(), ChannelID: "c"})
			l.LimitHotKeys(limit)
			random := rand.New(rand.NewPCG(1, uint64(limit)))
			var open []*ledger.Snapshot
			hits := 0
			for range 150 {
				var writes []string
				for range random.IntN(4) {
					value := fmt.Sprint(random.IntN(1000))
					switch random.IntN(6) {
					case 0:
						value = "" // a deletion
					case 1:
						value = strings.Repeat("x", 70_000)
					}
					writes = append(writes, fmt.Sprintf("key%d=%s", random.IntN(20), value))
				}
				commit(t, l, writes)
				open = append(open, l.NewSnapshot())
				if len(open) > 6 {
					i := random.IntN(len(open))
					if err := open[i].Close(); err != nil {
						t.Fatal(err)
					}
					open = append(open[:i], open[i+1:]...)
				}
				for range 30 {
					s, key := open[random.IntN(len(open))], fmt.Sprintf("key%d", random.IntN(20))
					want, err := s.State.Get("cc", key)
					if err != nil {
						t.Fatal(err)
					}
					if l.IsHot("cc", key, s.Height()) {
						hits++
					}
					if got, err := s.Get("cc", key); err != nil || !reflect.DeepEqual(got, want) {
						t.Fatalf("%s at height %d of %d: %+v, %v, want %+v", key, s.Height(), l.Height(), got, err, want)
					}
				}
			}
			if limit > 1 && hits == 0 {
				t.Error("nothing is remembered")
			}
			for _, s := range open {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
