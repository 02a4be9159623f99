package check

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// Kind is what a call does to a register.
type Kind string

// All calls are transactions, reads too: what a peer answers without one may be old.
const (
	Read   Kind = "read"   // Result is the value, "" if there is none
	Write  Kind = "write"  // sets Value
	Swap   Kind = "swap"   // sets Value if the register holds Old; Result is "swapped" or what it held
	Create Kind = "create" // sets Value in a register of its own, once
)

// Swapped is the result of a Swap that found what it expected.
const Swapped = "swapped"

// Outcome is what a client knows in the end.
type Outcome string

// Of Unknown calls nobody knows whether they have taken place or will.
const (
	Committed Outcome = "committed"
	Refused   Outcome = "refused" // never ordered, or ordered and found invalid: it had and will have no effect
	Unknown   Outcome = "unknown"
)

// Op is one call with its answer. Times are since the beginning of a run, on one monotonic clock.
type Op struct {
	Client     int
	Kind       Kind
	Key        string
	Value, Old string
	TxID       string
	Call       time.Duration
	Return     time.Duration // of an Unknown call when the client gave up
	Ordered    bool          // an orderer has acknowledged the transaction
	Outcome    Outcome
	Result     string
	Error      string
}

// Finding is what is wrong.
type Finding struct{ Lost, Doubled, Reordered, Wrong []string }

// Failed tells whether anything is.
func (f *Finding) Failed() bool {
	return len(f.Lost)+len(f.Doubled)+len(f.Reordered)+len(f.Wrong) > 0
}

func (f *Finding) String() string {
	text := ""
	for _, part := range []struct {
		name  string
		items []string
	}{{"lost", f.Lost}, {"doubled", f.Doubled}, {"reordered", f.Reordered}, {"wrong", f.Wrong}} {
		if n := len(part.items); n > 0 {
			text += fmt.Sprintf("%d %s: %v\n", n, part.name, part.items[:min(n, 5)])
		}
	}
	return text
}

// placed is a call with the place of its valid transaction.
type placed struct {
	*Op
	at Position
}

// Check compares a finished history with the ledger. All peers must have shown their whole chains, and the registers of the history must
// occur in no other.
func Check(ops []*Op, l *Ledger) *Finding {
	f := &Finding{}
	var valid []placed
	for _, op := range ops {
		at := l.Positions(op.TxID)
		var good []Position
		for _, p := range at {
			if p.Code == 0 {
				good = append(good, p)
			}
		}
		switch {
		case len(good) > 1:
			f.Doubled = append(f.Doubled, fmt.Sprintf("%s (%s %s) is valid at %v", op.TxID, op.Kind, op.Key, good))
		case op.Ordered && len(at) == 0:
			f.Lost = append(f.Lost, fmt.Sprintf("%s (%s %s) was acknowledged and is in no block", op.TxID, op.Kind, op.Key))
		case op.Outcome == Committed && len(good) == 0:
			f.Lost = append(f.Lost, fmt.Sprintf("%s (%s %s) was said to be committed and is not", op.TxID, op.Kind, op.Key))
		case op.Outcome == Refused && len(good) > 0:
			f.Wrong = append(f.Wrong, fmt.Sprintf("%s (%s %s) was said to have failed (%s) and is valid at %v", op.TxID, op.Kind, op.Key, op.Error, good))
		}
		if len(good) > 0 {
			valid = append(valid, placed{op, good[0]})
		}
	}
	f.realTime(valid)
	f.replay(valid)
	f.linearize(ops)
	return f
}

// realTime finds pairs of which the later one, called after the earlier had been answered, stands before it in the chain.
func (f *Finding) realTime(valid []placed) {
	byCall := slices.Clone(valid)
	slices.SortFunc(byCall, func(a, b placed) int { return cmp.Compare(a.Call, b.Call) })
	byReturn := slices.DeleteFunc(slices.Clone(valid), func(p placed) bool { return p.Outcome != Committed })
	slices.SortFunc(byReturn, func(a, b placed) int { return cmp.Compare(a.Return, b.Return) })
	var last *placed // of those that had been answered the one furthest in the chain
	for _, p := range byCall {
		for len(byReturn) > 0 && byReturn[0].Return < p.Call {
			if last == nil || last.at.before(byReturn[0].at) {
				last = &byReturn[0]
			}
			byReturn = byReturn[1:]
		}
		if last != nil && p.at.before(last.at) {
			f.Reordered = append(f.Reordered, fmt.Sprintf("%s stands at %v, and was called after %s at %v was answered", p.TxID, p.at, last.TxID, last.at))
		}
	}
}

// Registers are the values after some calls one after the other; see Replay.
type Registers map[string]string

// apply is the specification of a register: what a call answers and leaves.
func apply(state string, op *Op) (next, result string) {
	switch op.Kind {
	case Read:
		return state, state
	case Swap:
		if state != op.Old {
			return state, state
		}
		return op.Value, Swapped
	}
	return op.Value, ""
}

func answers(op *Op) bool { return op.Kind == Read || op.Kind == Swap }

// replay makes the valid calls one after the other, as the chain has them.
func (f *Finding) replay(valid []placed) Registers {
	valid = slices.Clone(valid)
	slices.SortFunc(valid, func(a, b placed) int {
		if a.at.before(b.at) {
			return -1
		}
		return 1
	})
	registers := Registers{}
	for _, p := range valid {
		next, result := apply(registers[p.Key], p.Op)
		if answers(p.Op) && p.Result != result && (p.Outcome == Committed || p.Result != "") {
			f.Wrong = append(f.Wrong, fmt.Sprintf("%s (%s %s) at %v answered %q, and the chain says %q", p.TxID, p.Kind, p.Key, p.at, p.Result, result))
		}
		if next != "" {
			registers[p.Key] = next
		}
	}
	return registers
}

// Replay is what the registers must hold by the chain.
func Replay(ops []*Op, l *Ledger) Registers {
	var valid []placed
	for _, op := range ops {
		for _, at := range l.Positions(op.TxID) {
			if at.Code == 0 {
				valid = append(valid, placed{op, at})
			}
		}
	}
	return new(Finding).replay(valid)
}

// linearize asks porcupine, which knows nothing of chains, whether each register can have behaved like one.
func (f *Finding) linearize(ops []*Op) {
	byKey := map[string][]porcupine.Operation{}
	for _, op := range ops {
		o := porcupine.Operation{ClientId: op.Client, Input: op, Call: int64(op.Call), Return: int64(op.Return)}
		switch op.Outcome {
		case Refused:
			continue
		case Unknown: // at some time from then on, or never, which is the same as after everything else
			if op.TxID == "" || op.Kind == Read {
				continue
			}
			o.Return = math.MaxInt64
		}
		byKey[op.Key] = append(byKey[op.Key], o)
	}
	model := porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, _ any) (bool, any) {
			op := input.(*Op)
			next, result := apply(state.(string), op)
			return op.Outcome == Unknown || !answers(op) || op.Result == result, next
		},
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		switch porcupine.CheckOperationsTimeout(model, byKey[key], 20*time.Second) {
		case porcupine.Illegal:
			f.Reordered = append(f.Reordered, fmt.Sprintf("the %d calls of %s cannot have taken place one after the other", len(byKey[key]), key))
		case porcupine.Unknown:
			f.Wrong = append(f.Wrong, fmt.Sprintf("it takes too long to check the %d calls of %s", len(byKey[key]), key))
		}
	}
}
