package endorse_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/lifecycle"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// original is a transaction of the golden ledger.
type original struct {
	name   string
	tx     *envelope.Tx
	action *peerpb.ChaincodeAction
	input  *peerpb.ChaincodeInput
}

func originals(t testing.TB, b *block.Parsed) map[int]*original {
	t.Helper()
	all := map[int]*original{}
	for i, tx := range b.Txs {
		if len(tx.Actions) != 1 || tx.Actions[0].Chaincode == nil || tx.Actions[0].Payload == nil {
			continue
		}
		payload, spec := &peerpb.ChaincodeProposalPayload{}, &peerpb.ChaincodeInvocationSpec{}
		if proto.Unmarshal(tx.Actions[0].Payload.ChaincodeProposalPayload, payload) != nil || proto.Unmarshal(payload.Input, spec) != nil {
			continue
		}
		input := spec.GetChaincodeSpec().GetInput()
		if len(input.GetArgs()) == 0 || string(input.Args[0]) == "forged" {
			continue // these were made without an endorser
		}
		all[i] = &original{name: spec.ChaincodeSpec.ChaincodeId.Name, tx: tx, action: tx.Actions[0].Chaincode, input: input}
	}
	return all
}

// TestGoldenTransactions runs every endorsed transaction of the golden ledger again, at the height at which it was
// endorsed, and compares what the endorsers signed byte for byte.
func TestGoldenTransactions(t *testing.T) {
	w := newWorld(t)
	alpha := w.peers["AlphaMSP"]
	w.install(alpha)
	last := 110
	if testing.Short() {
		last = 36
	}
	// Transactions whose results were changed after endorsement to see what validation says.
	forged := map[string]bool{"34.7": true}
	w.to(1)
	compared := 0
	for n := 1; n < last; n++ {
		w.now = w.heights[n-1]
		b, private := readBlock(t, n, w.holders)
		for i, o := range originals(t, b) {
			where := fmt.Sprintf("%d.%d", n, i)
			if forged[where] {
				continue
			}
			g := &golden{public: map[string]map[string][]byte{}, private: map[string]map[string][]byte{}, metadata: map[string][]byte{}}
			for _, ns := range parseSet(t, o.action.Results).Namespaces {
				g.public[ns.Name] = map[string][]byte{}
				for _, kv := range ns.KV.Writes {
					g.public[ns.Name][kv.Key] = kv.Value
				}
				for _, m := range ns.KV.MetadataWrites {
					for _, e := range m.Entries {
						g.metadata[m.Key] = e.Value
					}
				}
				for _, c := range ns.Collections {
					for _, m := range c.Hashed.MetadataWrites {
						for _, e := range m.Entries {
							g.metadata[string(m.KeyHash)] = e.Value
						}
					}
				}
			}
			for _, ns := range private[uint64(i)].GetNsPvtRwset() {
				for _, c := range ns.CollectionPvtRwset {
					kv := parsePrivate(t, c.Rwset)
					values := map[string][]byte{}
					for _, w := range kv.Writes {
						values[w.Key] = w.Value
					}
					for _, m := range kv.MetadataWrites {
						g.metadata[m.Key] = g.metadata[string(sha([]byte(m.Key)))]
					}
					g.private[ns.Namespace+"/"+c.CollectionName] = values
				}
			}
			w.contract = g.execute
			if err := rerun(t, w, n, o); err != nil {
				t.Errorf("%s (%s): %v", where, o.name, err)
				continue
			}
			compared++
		}
		w.commit()
	}
	t.Logf("%d transactions compared", compared)
	if want := 200; !testing.Short() && compared < want {
		t.Errorf("compared %d transactions, want at least %d", compared, want)
	}
}

// rerun tries the heights at which a transaction of block n may have been endorsed.
func rerun(t *testing.T, w *world, n int, o *original) error {
	p := w.peers["AlphaMSP"]
	by := p.client
	if o.name == lifecycle.Namespace {
		if string(o.input.Args[0]) == "ApproveChaincodeDefinitionForMyOrg" {
			for mspID, one := range w.peers {
				if bytes.Contains(o.action.Results, []byte("_implicit_org_"+mspID)) {
					p = one
				}
			}
		}
		by = p.admin
	}
	var first error
	for back := 1; back <= 8 && n-back >= 0; back++ {
		w.now = w.heights[n-back]
		if w.now.bundle == nil {
			break
		}
		res, err := w.propose(p, by, envelope.ProposalArgs{ChannelID: channelID, Chaincode: o.name, Args: o.input.Args, IsInit: o.input.IsInit})
		if err == nil {
			err = same(t, res, o)
		}
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// same compares an endorsement with a transaction.
func same(t *testing.T, res *peerpb.ProposalResponse, o *original) error {
	if res.Response.Status != 200 {
		return fmt.Errorf("status %d: %s", res.Response.Status, res.Response.Message)
	}
	payload, action := &peerpb.ProposalResponsePayload{}, &peerpb.ChaincodeAction{}
	must(t, proto.Unmarshal(res.Payload, payload))
	must(t, proto.Unmarshal(payload.Extension, action))
	if !bytes.Equal(action.Results, o.action.Results) {
		return fmt.Errorf("results differ:\n got %s\nwant %s", describe(t, action.Results), describe(t, o.action.Results))
	}
	if !proto.Equal(action.ChaincodeId, o.action.ChaincodeId) {
		return fmt.Errorf("contract %v, want %v", action.ChaincodeId, o.action.ChaincodeId)
	}
	got, want := &peerpb.ChaincodeEvent{}, &peerpb.ChaincodeEvent{}
	must(t, proto.Unmarshal(action.Events, got))
	must(t, proto.Unmarshal(o.action.Events, want))
	got.TxId, want.TxId = "", ""
	if !proto.Equal(got, want) {
		return fmt.Errorf("event %v, want %v", got, want)
	}
	if o.name == lifecycle.Namespace && !proto.Equal(action.Response, o.action.Response) {
		return fmt.Errorf("response %v, want %v", action.Response, o.action.Response)
	}
	return nil
}

func describe(t testing.TB, raw []byte) string {
	var s strings.Builder
	for _, ns := range parseSet(t, raw).Namespaces {
		fmt.Fprintf(&s, "%s{%v", ns.Name, ns.KV)
		for _, c := range ns.Collections {
			fmt.Fprintf(&s, " %s{%v %x}", c.Name, c.Hashed, c.PvtRWSetHash)
		}
		s.WriteString("} ")
	}
	return s.String()
}

// TestDefinitions looks up what the golden ledger defines in the end.
func TestDefinitions(t *testing.T) {
	w := newWorld(t)
	p := w.peers["AlphaMSP"]
	w.install(p)
	w.to(71)
	all, err := p.catalog.List(channelID, pinned{w.now.Snapshot})
	must(t, err)
	got := map[string]string{}
	for _, c := range all {
		label, _, _ := strings.Cut(c.PackageID, ":")
		got[c.Name] = fmt.Sprintf("%d %s %s %v %d", c.Sequence, c.Endorsement.Version, label, c.Approved, len(c.Collections.Config))
	}
	want := map[string]string{"basic": "2 1.1 basic_1.1 true 0", "andcc": "1 1.0 andcc_1.0 true 0", "pvt": "2 1.0 pvt_1.0 true 6", "initcc": "1 1.0 initcc_1.0 true 0"}
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s is %q, want %q", name, got[name], v)
		}
	}
	res := w.lifecycle(p, p.admin, "", "QueryInstalledChaincodes", nil)
	list := &lifecyclepb.QueryInstalledChaincodesResult{}
	must(t, proto.Unmarshal(res.Response.Payload, list))
	for _, one := range list.InstalledChaincodes {
		if one.Label == "basic_1.1" && one.References[channelID].GetChaincodes()[0].Version != "1.1" {
			t.Errorf("basic_1.1 is referred to as %v", one.References)
		}
		if one.Label == "basic_1.0" && len(one.References) != 0 {
			t.Errorf("basic_1.0 is still referred to: %v", one.References)
		}
	}
}
