package nemesis_test

import (
	"testing"

	"github.com/hansa-ledger/hansa/e2e/faults/nemesis"
)

// A seed gives one plan, and seeds in a row give every kind.
func TestPlans(t *testing.T) {
	kinds := []nemesis.Kind{nemesis.Kill, nemesis.Halves, nemesis.Delay, nemesis.Membership, nemesis.LostDisk}
	seen := map[nemesis.Kind]int{}
	different := map[string]bool{}
	for seed := range uint64(50) {
		plan := nemesis.NewPlan(seed, kinds)
		if again := nemesis.NewPlan(seed, kinds); plan.String() != again.String() {
			t.Errorf("seed %d gives %q and %q", seed, plan, again)
		}
		different[plan.String()] = true
		changes := 0
		for _, f := range plan {
			seen[f.Kind]++
			if f.Kind == nemesis.Membership || f.Kind == nemesis.LostDisk {
				changes++
			}
		}
		if changes > 1 {
			t.Errorf("seed %d changes members %d times at once", seed, changes)
		}
	}
	for _, kind := range kinds {
		if seen[kind] < 10 {
			t.Errorf("%s occurs %d times", kind, seen[kind])
		}
	}
	if len(different) != 50 {
		t.Errorf("50 seeds give %d plans", len(different))
	}
}
