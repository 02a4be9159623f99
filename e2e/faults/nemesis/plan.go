// Package nemesis does harm to a network, by a plan that a seed decides on, and takes it back.
//
// A plan names its victims by what they are (the leader, a follower), not who: who leads at a moment no seed can say. The same seed
// gives the same plan; open plan.go for plans, harm.go for what each fault does.
package nemesis

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a sort of fault.
type Kind string

// The kinds.
const (
	Kill        Kind = "kill"         // SIGKILL; started again when the fault ends
	KillAll     Kind = "kill all"     // SIGKILL for all orderers at once
	Pause       Kind = "pause"        // SIGSTOP, then SIGCONT
	Halves      Kind = "halves"       // two groups that do not hear each other
	Bridge      Kind = "bridge"       // two groups with one node that hears both
	OneWay      Kind = "one-way"      // one node that is not heard, or hears nothing
	Delay       Kind = "delay"        // on all links between nodes, as the next four
	Loss        Kind = "loss"         //
	Reorder     Kind = "reorder"      //
	Duplicate   Kind = "duplicate"    //
	Bandwidth   Kind = "bandwidth"    //
	SlowDisk    Kind = "slow disk"    // fsync takes longer
	FullDisk    Kind = "full disk"    // not a byte more
	Clock       Kind = "clock jump"   // forward or back, and back
	Membership  Kind = "membership"   // a consenter is removed, and added again
	LostDisk    Kind = "lost disk"    // a consenter begins anew with an empty folder, and is replaced by itself
	Certificate Kind = "new identity" // a consenter's TLS certificate is replaced
)

// Victim says whom a fault hits.
type Victim string

// The victims of faults that hit one process.
const (
	Leader       Victim = "leader"
	Follower     Victim = "follower"
	AnyPeer      Victim = "peer"
	TheContract  Victim = "contract"
	AllTheOthers Victim = "" // of faults that have no single one
)

// Fault is one part of a plan.
type Fault struct {
	Kind   Kind
	Victim Victim
	After  time.Duration // since the round began
	For    time.Duration
	// Amount is how bad it is, in the kind's unit: nanoseconds of delay, slowness and clocks, a share of frames, bytes a second.
	Amount float64
	// Dice decides what is left, such as who is on which side.
	Dice uint64
}

func (f Fault) String() string {
	text := string(f.Kind)
	switch f.Kind {
	case Delay, SlowDisk, Clock:
		text += " " + time.Duration(f.Amount).Round(time.Millisecond).String()
	case Loss, Reorder, Duplicate:
		text += fmt.Sprintf(" %.0f %%", 100*f.Amount)
	case Bandwidth:
		text += fmt.Sprintf(" %.0f kB/s", f.Amount/1000)
	}
	if f.Victim != AllTheOthers {
		text += " of " + string(f.Victim)
	}
	return fmt.Sprintf("%s at %v for %v", text, f.After.Round(time.Millisecond), f.For.Round(time.Millisecond))
}

// Plan is what happens in a round.
type Plan []Fault

func (p Plan) String() string {
	parts := make([]string, len(p))
	for i, f := range p {
		parts[i] = f.String()
	}
	return strings.Join(parts, "; ")
}

// most is how many faults a round has at most.
const most = 3

// NewPlan makes the plan of a seed. kinds are those that the machine and the binary are able to; each round has its first fault from them in
// turn, so that all occur.
func NewPlan(seed uint64, kinds []Kind) Plan {
	dice := rand.New(rand.NewPCG(seed, 1))
	var plan Plan
	for i := range 1 + dice.IntN(most) {
		kind := kinds[dice.IntN(len(kinds))]
		if i == 0 {
			kind = kinds[seed%uint64(len(kinds))]
		}
		// One change of members at a time, as operators make them.
		if changes := []Kind{Membership, Certificate, LostDisk}; slices.Contains(changes, kind) && slices.ContainsFunc(plan, func(f Fault) bool { return slices.Contains(changes, f.Kind) }) {
			continue
		}
		plan = append(plan, fault(dice, kind))
	}
	return plan
}

func fault(dice *rand.Rand, kind Kind) Fault {
	between := func(low, high float64) float64 { return low + (high-low)*dice.Float64() }
	f := Fault{Kind: kind, Dice: dice.Uint64(),
		After: time.Duration(between(0.1, 0.7) * float64(time.Second)), For: time.Duration(between(0.2, 1.6) * float64(time.Second))}
	one := func(victims ...Victim) { f.Victim = victims[dice.IntN(len(victims))] }
	switch kind {
	case Kill, Pause:
		one(Leader, Leader, Follower, AnyPeer, TheContract)
	case OneWay:
		one(Leader, Follower, AnyPeer)
	case SlowDisk:
		one(Leader, Follower, AnyPeer)
		f.Amount = between(10, 300) * float64(time.Millisecond)
	case FullDisk:
		one(Leader, Follower, AnyPeer)
	case Clock:
		one(Leader, Follower, AnyPeer)
		f.Amount = []float64{between(0.1, 5), between(5, 300), between(300, 7200)}[dice.IntN(3)] * float64(time.Second)
		if dice.IntN(2) == 0 {
			f.Amount = -f.Amount
		}
	case Delay:
		f.Amount = between(2, 80) * float64(time.Millisecond)
	case Loss:
		f.Amount = between(0.02, 0.25)
	case Reorder, Duplicate:
		f.Amount = between(0.05, 0.4)
	case Bandwidth:
		f.Amount = between(30_000, 500_000)
	case Membership, Certificate, LostDisk:
		one(Leader, Follower)
	}
	return f
}
