package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

func TestTextIsReadAndWritten(t *testing.T) {
	for text, want := range map[string]string{
		"OR('A.member')":                                      "OR('A.member')",
		`AND("A.member", 'B-1.org.peer')`:                     "AND('A.member', 'B-1.org.peer')",
		" outof ( 2 , 'A.client' ,\n'B.orderer','C.admin' ) ": "OutOf(2, 'A.client', 'B.orderer', 'C.admin')",
		"OutOf('1', 'A.peer')":                                "OR('A.peer')",
		"OutOf(2, 'A.peer')":                                  "OutOf(2, 'A.peer')",
		"And('A.peer', Or('B.peer', 'C.peer'))":               "AND('A.peer', OR('B.peer', 'C.peer'))",
	} {
		env, err := policy.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, err := policy.Text(env); err != nil || got != want {
			t.Errorf("%s: written as %s, %v", text, got, err)
		}
	}
}

func TestBadTextIsExplained(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "ends where",
		"'A.member'":             "want a gate",
		"NOT('A.member')":        "unrecognized token 'NOT'",
		"OR('A.member'":          "ends where",
		"OR('A.member)":          "closing quote",
		"OR('A_MSP.member')":     "error parsing principal A_MSP.member",
		"OR('A.boss')":           "error parsing principal A.boss",
		"OR()":                   "where AND, OR, OutOf",
		"OR('A.member') x":       "the end",
		"OutOf('A.member')":      "a number of signatures",
		"OutOf(-1,'A.member')":   "a number of signatures",
		"OutOf(3,'A.member')":    "invalid t-out-of-n predicate, t 3, n 1",
		"OutOf(99999999999,'A')": "a number of signatures",
		"OR('A.member',)":        "where AND, OR, OutOf",
		strings.Repeat("OR(", 200) + "'A.member'" + strings.Repeat(")", 200): "deep",
		strings.Repeat(" ", 70_000): "at most",
	} {
		if _, err := policy.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{"ANY", "SOME Readers", "ANY  Readers", ""} {
		if _, err := policy.ParseImplicitMeta(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("AND('A.member', OutOf(2, \"B.peer\", 'C.admin', OR('D.client')))")
	f.Add("OutOf('1', 'A.peer')")
	f.Fuzz(func(t *testing.T, text string) {
		env, err := policy.Parse(text)
		if err != nil {
			return
		}
		written, err := policy.Text(env)
		if err != nil {
			t.Fatalf("%q was read, but not written: %v", text, err)
		}
		again, err := policy.Parse(written)
		if err != nil || !proto.Equal(env, again) {
			t.Fatalf("%q was written as %q: %v", text, written, err)
		}
	})
}

func FuzzSignaturePolicy(f *testing.F) {
	for _, c := range readVectors(f).Evaluation.Cases {
		f.Add([]byte(c.PolicyHex))
	}
	m := vectorManager(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := policy.ParseSignature(raw, m)
		if err != nil {
			return
		}
		_ = p.EvaluateSigned(nil)
		env, err := policy.Envelope(p)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = policy.Text(env)
		if n := len(policy.Combinations(env)); n > policy.MaxCombinations {
			t.Fatalf("%d combinations", n)
		}
	})
}

func TestCombinations(t *testing.T) {
	for text, want := range map[string]string{
		"OR('A.peer','B.peer')":                                "A | B",
		"AND('A.peer','B.peer')":                               "A B",
		"AND('A.peer','A.peer')":                               "A A",
		"OutOf(2,'A.peer','B.peer','C.peer')":                  "A B | A C | B C",
		"OutOf(0,'A.peer')":                                    "",
		"OutOf(2,'A.peer')":                                    "none",
		"OR('A.peer',AND('A.peer','B.peer'))":                  "A",
		"OR(AND('B.peer','C.peer'),'A.peer')":                  "A | B C",
		"AND('A.peer',OR('B.peer','C.peer'))":                  "B A | C A",
		"OutOf(2,OR('A.peer','B.peer'),OR('B.peer','C.peer'))": "A B | B B | A C | B C",
	} {
		sets := policy.Combinations(mustParse(t, text))
		if got := describe(t, sets); !sameSets(got, want) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	// Twenty members, ten needed: 184,756 ways. The bound holds, and with the first ten out of reach the last way is found.
	var peers []string
	for i := range 20 {
		peers = append(peers, fmt.Sprintf("'Org%02d.peer'", i))
	}
	env := mustParse(t, "OutOf(10,"+strings.Join(peers, ",")+")")
	if n := len(policy.Combinations(env)); n != policy.MaxCombinations {
		t.Errorf("%d combinations", n)
	}
	sets := policy.CombinationsAmong(env, func(p *msppb.MSPPrincipal) bool { return mspOf(t, p) >= "Org10" })
	if len(sets) != 1 || len(sets[0]) != 10 {
		t.Errorf("%d sets among the last ten", len(sets))
	}
	if sets := policy.CombinationsAmong(env, func(p *msppb.MSPPrincipal) bool { return mspOf(t, p) > "Org10" }); len(sets) != 0 {
		t.Errorf("%d sets among nine", len(sets))
	}
	if sets := policy.Combinations(&commonpb.SignaturePolicyEnvelope{}); len(sets) != 0 {
		t.Error("an empty policy has combinations")
	}
}

func describe(t *testing.T, sets [][]*msppb.MSPPrincipal) string {
	if len(sets) == 0 {
		return "none"
	}
	var all []string
	for _, set := range sets {
		var names []string
		for _, p := range set {
			names = append(names, mspOf(t, p))
		}
		all = append(all, strings.Join(names, " "))
	}
	return strings.Join(all, " | ")
}

func sameSets(a, b string) bool {
	have := map[string]int{}
	for _, one := range strings.Split(a, " | ") {
		have[one]++
	}
	for _, one := range strings.Split(b, " | ") {
		have[one]--
	}
	for _, n := range have {
		if n != 0 {
			return false
		}
	}
	return true
}

func mspOf(t *testing.T, p *msppb.MSPPrincipal) string {
	role := &msppb.MSPRole{}
	if err := proto.Unmarshal(p.Principal, role); err != nil {
		t.Fatal(err)
	}
	return role.MspIdentifier
}
