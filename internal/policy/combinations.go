package policy

import (
	"slices"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// MaxCombinations bounds what Combinations returns. A policy with more ways than this is planned over the first ones found,
// which come in the order of its rules.
const MaxCombinations = 1000

// Combinations lists the smallest sets of principals that satisfy a policy, smallest first: those of which no signer can be
// spared. A principal that must be met by several signers appears that often. None means that nothing satisfies the policy (or that
// it is malformed); one empty set means that no signature is needed.
//
// Evaluation is greedy, so a signer who meets several principals may be used up by another one than planned: a plan is a good
// proposal, and the verdict on it is the policy's.
func Combinations(env *commonpb.SignaturePolicyEnvelope) [][]*msppb.MSPPrincipal {
	return CombinationsAmong(env, func(*msppb.MSPPrincipal) bool { return true })
}

// CombinationsAmong is Combinations over the principals that usable says yes to: those that some reachable peer can meet. A
// planner that asks this way does not lose a policy with very many ways whose first ones are all out of reach.
func CombinationsAmong(env *commonpb.SignaturePolicyEnvelope, usable func(*msppb.MSPPrincipal) bool) [][]*msppb.MSPPrincipal {
	ids := env.GetIdentities()
	// Equal principals under different numbers are one.
	canon := make([]int, len(ids))
	seen := make(map[string]int)
	for i, id := range ids {
		key := string(rune(id.GetPrincipalClassification())) + string(id.GetPrincipal())
		if _, ok := seen[key]; !ok {
			seen[key] = i
		}
		canon[i] = seen[key]
	}
	for i, at := range canon {
		if at == i && !usable(ids[i]) {
			canon[i] = unusable
		} else {
			canon[i] = canon[at]
		}
	}
	sets := smallest(ways(env.GetRule(), canon))
	out := make([][]*msppb.MSPPrincipal, len(sets))
	for i, set := range sets {
		out[i] = make([]*msppb.MSPPrincipal, len(set))
		for j, at := range set {
			out[i][j] = ids[at]
		}
	}
	return out
}

// unusable stands for the number of a principal that nobody within reach can meet.
const unusable = -1

// ways returns sorted multisets of principal numbers.
func ways(from *commonpb.SignaturePolicy, canon []int) [][]int {
	switch t := from.GetType().(type) {
	case *commonpb.SignaturePolicy_SignedBy:
		if t.SignedBy < 0 || int(t.SignedBy) >= len(canon) {
			return nil
		}
		if canon[t.SignedBy] == unusable {
			return nil
		}
		return [][]int{{canon[t.SignedBy]}}
	case *commonpb.SignaturePolicy_NOutOf_:
		need := int(t.NOutOf.GetN())
		if need <= 0 {
			return [][]int{nil}
		}
		var possible [][][]int // the ways of each rule that has any
		for _, sub := range t.NOutOf.GetRules() {
			if w := ways(sub, canon); len(w) > 0 {
				possible = append(possible, w)
			}
		}
		var out [][]int
		choose(possible, need, nil, &out)
		return smallest(out)
	}
	return nil
}

// choose adds to out every union of one way each of need rules, until there are enough.
func choose(possible [][][]int, need int, sofar []int, out *[][]int) {
	if need == 0 {
		set := slices.Clone(sofar)
		slices.Sort(set)
		*out = append(*out, set)
		return
	}
	for i := 0; i+need <= len(possible) && len(*out) < MaxCombinations; i++ {
		for _, way := range possible[i] {
			if len(*out) >= MaxCombinations {
				return
			}
			choose(possible[i+1:], need-1, append(slices.Clip(sofar), way...), out)
		}
	}
}

// smallest drops duplicates and sets that contain another one, and sorts by size; sets of one size keep their order.
func smallest(sets [][]int) [][]int {
	slices.SortStableFunc(sets, func(a, b []int) int { return len(a) - len(b) })
	var out [][]int
next:
	for _, set := range sets {
		for _, have := range out {
			if within(have, set) {
				continue next
			}
		}
		out = append(out, set)
	}
	return out
}

// within says whether the sorted multiset a is part of b.
func within(a, b []int) bool {
	i := 0
	for _, x := range b {
		if i < len(a) && a[i] == x {
			i++
		}
	}
	return i == len(a)
}
