package validate_test

import (
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// fault spoils one layer of a transaction; code is what it gets for that alone.
type fault struct {
	name  string
	code  string
	spoil func(x *tx)
}

// faults are in the order in which a transaction is checked: of two the earlier one decides.
func faults(n *network) []fault {
	return []fault{
		{"common header", "BAD_COMMON_HEADER", func(x *tx) { x.channel = with(x.channel, func(h *commonpb.ChannelHeader) { h.Epoch = 1 }) }},
		{"creator's signature", "BAD_CREATOR_SIGNATURE", func(x *tx) {
			x.env = with(x.env, func(e *commonpb.Envelope) { e.Signature = append([]byte(nil), e.Signature[:8]...) })
		}},
		{"transaction id", "BAD_PROPOSAL_TXID", func(x *tx) { x.channel = with(x.channel, func(h *commonpb.ChannelHeader) { h.TxId = "other" }) }},
		{"number of actions", "INVALID_ENDORSER_TRANSACTION", func(x *tx) {
			x.transaction = with(x.transaction, func(t *peerpb.Transaction) { t.Actions = append(t.Actions, t.Actions[0]) })
		}},
		{"chaincode action", "BAD_RESPONSE_PAYLOAD", func(x *tx) {
			x.response = with(x.response, func(r *peerpb.ProposalResponsePayload) { r.Extension = []byte{0xff, 0xff} })
		}},
		{"read-write set", "BAD_RWSET", func(x *tx) { x.set, x.results = nil, []byte{0xff, 0xff} }},
		{"chaincode", "INVALID_CHAINCODE", func(x *tx) {
			x.action = with(x.action, func(a *peerpb.ChaincodeAction) { a.ChaincodeId = &peerpb.ChaincodeID{Name: "both"} }) // no version
		}},
		{"event", "INVALID_OTHER_REASON", func(x *tx) {
			x.action = with(x.action, func(a *peerpb.ChaincodeAction) { a.Events = encode(n.t, &peerpb.ChaincodeEvent{ChaincodeId: "any"}) })
		}},
		{"endorsements", "ENDORSEMENT_POLICY_FAILURE", func(x *tx) { x.endorsers = x.endorsers[:1] }},
	}
}

func (n *network) both() []*identity.Signer { return []*identity.Signer{n.one, n.two} }

func read(ns, key string) *rwset.Builder {
	b := rwset.NewBuilder()
	b.AddRead(ns, key, nil)
	return b
}

func remove(ns, key string) *rwset.Builder {
	b := rwset.NewBuilder()
	b.AddWrite(ns, key, nil)
	return b
}

// with is one hook after another.
func with[T any](first, second func(*T)) func(*T) {
	return func(v *T) {
		if first != nil {
			first(v)
		}
		second(v)
	}
}

// The order of the checks is seen by what a transaction with two faults gets, as far as one transaction can have both.
func TestOrderOfChecks(t *testing.T) {
	all := faults(newNetwork(t))
	for i, first := range all {
		for j := i; j < len(all); j++ {
			second := all[j]
			t.Run(first.name+" and "+second.name, func(t *testing.T) {
				n := newNetwork(t)
				x := tx{set: put("both", "k"), endorsers: n.both()}
				list := faults(n)
				list[j].spoil(&x)
				if i != j {
					list[i].spoil(&x)
				}
				if got := names(n.run(n.tx(x), n.tx(tx{set: put("both", "other")}))); got[0] != first.code || got[1] != "VALID" {
					t.Errorf("got %s, want %s VALID", strings.Join(got, " "), first.code)
				}
			})
		}
	}
}

// What decides between transactions of one block comes last: duplicates, then conflicts.
func TestOrderBetweenTransactions(t *testing.T) {
	n := newNetwork(t)
	twice := n.tx(tx{set: put("both", "k")})
	n.run(twice)
	spoiled := n.tx(tx{set: put("both", "k"), endorsers: n.both()[:1]})
	n.run(spoiled)
	for name, c := range map[string]struct {
		txs  [][]byte
		want string
	}{
		"an id on the ledger before the policy":         {[][]byte{spoiled}, "DUPLICATE_TXID"},
		"the id of a valid transaction":                 {[][]byte{twice}, "DUPLICATE_TXID"},
		"the policy before a conflict within the block": {[][]byte{n.tx(tx{set: put("both", "c")}), n.tx(tx{set: read("both", "c"), endorsers: n.both()[:1]})}, "VALID ENDORSEMENT_POLICY_FAILURE"},
		"a conflict within the block":                   {[][]byte{n.tx(tx{set: put("both", "d")}), n.tx(tx{set: read("both", "d")})}, "VALID MVCC_READ_CONFLICT"},
		"no conflict with an invalid one":               {[][]byte{n.tx(tx{set: put("both", "e"), endorsers: n.both()[:1]}), n.tx(tx{set: read("both", "e")})}, "ENDORSEMENT_POLICY_FAILURE VALID"},
		"a nil read and a delete of what is not there":  {[][]byte{n.tx(tx{set: remove("both", "f")}), n.tx(tx{set: read("both", "f")})}, "VALID MVCC_READ_CONFLICT"},
		"a blind write after another":                   {[][]byte{n.tx(tx{set: put("both", "g")}), n.tx(tx{set: put("both", "g")})}, "VALID VALID"},
		"a duplicate within the block before a conflict": {func() [][]byte {
			x := n.tx(tx{set: read("both", "h")})
			return [][]byte{n.tx(tx{set: put("both", "h")}), x, x}
		}(), "VALID MVCC_READ_CONFLICT DUPLICATE_TXID"},
	} {
		if got := strings.Join(names(n.run(c.txs...)), " "); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}
