package discovery_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// interest reads "a b/c b/d! -e": chaincodes; collections of them, written only with "!"; "-" disregards the chaincode's policy.
func interest(t testing.TB, text string, keys ...string) *peerpb.ChaincodeInterest {
	t.Helper()
	i := &peerpb.ChaincodeInterest{}
	for _, word := range strings.Fields(text) {
		c := &peerpb.ChaincodeCall{}
		word, c.DisregardNamespacePolicy = strings.CutPrefix(word, "-")
		word, c.NoPrivateReads = strings.CutSuffix(word, "!")
		name, collection, ok := strings.Cut(word, "/")
		if c.Name = name; ok {
			c.CollectionNames = []string{collection}
		}
		i.Chaincodes = append(i.Chaincodes, c)
	}
	for _, k := range keys {
		env, err := policy.Parse(k)
		must(t, err)
		i.Chaincodes[0].KeyPolicies = append(i.Chaincodes[0].KeyPolicies, env)
	}
	return i
}

var someRules = rules{
	"and":               "AND('AlphaMSP.peer','BetaMSP.peer')",
	"or":                "OR('AlphaMSP.member','BetaMSP.member','GammaMSP.member')",
	"two":               "OutOf(2,'AlphaMSP.peer','BetaMSP.peer','GammaMSP.peer')",
	"clients":           "OR('AlphaMSP.client','BetaMSP.admin')",
	"mixed":             "OR('AlphaMSP.client','GammaMSP.peer')",
	"members of two.ab": "OR('AlphaMSP.member','BetaMSP.member')",
	"members of or.c":   "OR('GammaMSP.member')",
	"or.c":              "AND('GammaMSP.peer')",
}

func TestMembers(t *testing.T) {
	bundle := newWorld(t).bundle
	for _, test := range []struct {
		interest string
		keys     []string
		want     string
		err      string
	}{
		{interest: "and", want: "[AlphaMSP:1 BetaMSP:1]"},
		{interest: "or", want: "[AlphaMSP:1] [BetaMSP:1] [GammaMSP:1]"},
		{interest: "two", want: "[AlphaMSP:1 BetaMSP:1] [AlphaMSP:1 GammaMSP:1] [BetaMSP:1 GammaMSP:1]"},
		{interest: "and or", want: "[AlphaMSP:1 BetaMSP:1]"},
		{interest: "and two", want: "[AlphaMSP:1 BetaMSP:1]"},
		{interest: "mixed", want: "[GammaMSP:1]"},
		{interest: "clients", err: discovery.ErrNoLayout.Error()},
		{interest: "nothing", err: "no chaincode nothing"},
		// Who is not in a collection that is read must not endorse, even if others are.
		{interest: "two/ab", want: "[AlphaMSP:1 BetaMSP:1]"},
		{interest: "two/ab!", want: "[AlphaMSP:1 BetaMSP:1] [AlphaMSP:1 GammaMSP:1] [BetaMSP:1 GammaMSP:1]"},
		{interest: "and or/c", err: discovery.ErrNoLayout.Error()},
		// A collection's own policy counts beside the chaincode's, or in its place.
		{interest: "or/c!", want: "[GammaMSP:1]"},
		{interest: "-or/c!", want: "[GammaMSP:1]"},
		{interest: "two or/c!", want: "[AlphaMSP:1 GammaMSP:1] [BetaMSP:1 GammaMSP:1]"},
		{interest: "two/none", err: "no chaincode two.none"},
		{interest: "or", keys: []string{"AND('BetaMSP.peer')"}, want: "[BetaMSP:1]"},
		{interest: "-and", keys: []string{"AND('BetaMSP.peer')", "AND('GammaMSP.peer')"}, want: "[BetaMSP:1 GammaMSP:1]"},
		{interest: "-and", err: "the interest disregards the chaincode's policy and names no other policy in its place"},
		{interest: "-nothing", keys: []string{"AND('BetaMSP.peer')"}, err: "no chaincode nothing"},
		{interest: "or", keys: []string{"OutOf(2,'BetaMSP.peer','BetaMSP.peer')"}, want: "[BetaMSP:2]"},
	} {
		t.Run(test.interest+strings.Join(test.keys, " "), func(t *testing.T) {
			var got []discovery.Layout
			need, err := discovery.NeedOf(interest(t, test.interest, test.keys...), someRules, bundle)
			if err == nil {
				got, err = need.Members()
			}
			if test.err != "" {
				if err == nil || err.Error() != test.err {
					t.Fatalf("got %v, %v; want %q", got, err, test.err)
				}
				return
			}
			must(t, err)
			var texts []string
			for _, l := range got {
				texts = append(texts, "["+l.String()+"]")
			}
			if text := strings.Join(texts, " "); text != test.want {
				t.Errorf("got  %s\nwant %s", text, test.want)
			}
		})
	}
}

// countingRules counts how often policies are read.
type countingRules struct {
	rules
	n int
}

func (c *countingRules) EndorsementPolicy(name string) (*peerpb.ApplicationPolicy, error) {
	c.n++
	return c.rules.EndorsementPolicy(name)
}

func TestPlannerRemembers(t *testing.T) {
	w := newWorld(t)
	r := &countingRules{rules: someRules}
	var p discovery.Planner
	ask := func(bundleOf *world, definitions uint64, want int) {
		t.Helper()
		l, err := p.Members(interest(t, "and"), r, bundleOf.bundle, definitions)
		must(t, err)
		if len(l) != 1 || l[0]["AlphaMSP"] != 1 || r.n != want {
			t.Errorf("%v after %d readings, want %d", l, r.n, want)
		}
	}
	ask(w, 1, 1)
	ask(w, 1, 1)
	ask(w, 2, 2)
	w.configure()
	ask(w, 2, 3)
	ask(w, 2, 3)
	for i := range 3000 { // many kinds of transactions do not fill the memory
		key := fmt.Sprintf("OR('AlphaMSP.peer','Org%dMSP.peer')", i)
		if _, err := p.Members(interest(t, "or", key), r, w.bundle, 2); err != nil {
			t.Fatal(err)
		}
	}
	ask(w, 2, 3004)
	if _, err := p.Members(interest(t, "or", "AND('AlphaMSP.peer','NobodyMSP.peer')"), r, w.bundle, 2); !errors.Is(err, discovery.ErrNoLayout) {
		t.Error(err)
	}
	if _, err := p.Members(interest(t, "clients"), r, w.bundle, 2); !errors.Is(err, discovery.ErrNoLayout) {
		t.Error(err)
	}
}

// A policy of the channel's configuration is resolved.
func TestChannelPolicyReference(t *testing.T) {
	bundle := newWorld(t).bundle
	need, err := discovery.NeedOf(interest(t, "any"), reference("/Channel/Application/Endorsement"), bundle)
	must(t, err)
	l, err := need.Members()
	must(t, err)
	if len(l) != 3 || l[0].String() != "AlphaMSP:1 BetaMSP:1" {
		t.Errorf("the majority of three is %v", l)
	}
	if _, err := discovery.NeedOf(interest(t, "any"), reference("/Channel/Application/None"), bundle); err == nil {
		t.Error("a policy that is not there was found")
	}
}

type reference string

func (r reference) EndorsementPolicy(string) (*peerpb.ApplicationPolicy, error) {
	return &peerpb.ApplicationPolicy{Type: &peerpb.ApplicationPolicy_ChannelConfigPolicyReference{ChannelConfigPolicyReference: string(r)}}, nil
}

func (r reference) CollectionPolicy(string, string) (*peerpb.ApplicationPolicy, *commonpb.SignaturePolicyEnvelope, error) {
	return nil, nil, undefined("collection")
}
