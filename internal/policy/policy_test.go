package policy_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// vectors are verdicts and encodings of real Fabric.
type vectors struct {
	Evaluation struct {
		Cases []struct {
			Policy    string
			PolicyHex hexBytes `json:"policy_hex"`
			Satisfied bool
			Note      string
			Signers   []struct {
				Identity  hexBytes `json:"identity_hex"`
				Message   hexBytes `json:"message_hex"`
				Signature hexBytes `json:"signature_hex"`
			} `json:"signers_in_order"`
		}
	} `json:"signature_policy_evaluation"`
	Texts []struct {
		Text, Error string
		Envelope    hexBytes `json:"signature_policy_envelope_hex"`
	} `json:"signature_policy_bytes"`
	Implicit struct {
		Cases []struct {
			Rule      string
			Satisfied bool
			Yes       int `json:"satisfied_sub_policies"`
			All       int `json:"sub_policies"`
		}
		Bytes map[string]hexBytes `json:"policy_bytes"`
	} `json:"implicit_meta_evaluation"`
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func readVectors(t testing.TB) (v vectors) {
	t.Helper()
	if err := json.Unmarshal(read(t, "policies.json"), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func vectorManager(t testing.TB) *identity.Manager {
	t.Helper()
	config := &commonpb.Config{}
	if err := proto.Unmarshal(read(t, "config.pb"), config); err != nil {
		t.Fatal(err)
	}
	v := identity.NewVerifier(identity.Config{})
	var msps []*identity.MSP
	var walk func(g *commonpb.ConfigGroup)
	walk = func(g *commonpb.ConfigGroup) {
		if value, ok := g.Values["MSP"]; ok {
			conf := &msppb.MSPConfig{}
			if err := proto.Unmarshal(value.Value, conf); err != nil {
				t.Fatal(err)
			}
			m, err := identity.NewMSP(conf, v, identity.Options{})
			if err != nil {
				t.Fatal(err)
			}
			msps = append(msps, m)
		}
		for _, sub := range g.Groups {
			walk(sub)
		}
	}
	walk(config.ChannelGroup)
	m, err := identity.NewManager(msps)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEvaluationVectors(t *testing.T) {
	m := vectorManager(t)
	for _, c := range readVectors(t).Evaluation.Cases {
		p, err := policy.ParseSignature(c.PolicyHex, m)
		if err != nil {
			t.Fatal(c.Policy, err)
		}
		var set []policy.SignedData
		for _, s := range c.Signers {
			set = append(set, policy.SignedData{Data: s.Message, Identity: s.Identity, Signature: s.Signature})
		}
		err = p.EvaluateSigned(set)
		if (err == nil) != c.Satisfied {
			t.Errorf("%s (%s): %v, want satisfied %t", c.Policy, c.Note, err, c.Satisfied)
		}
		if err != nil && err.Error() != "signature set did not satisfy policy" {
			t.Errorf("%s: %v", c.Policy, err)
		}
	}
}

func TestTextVectors(t *testing.T) {
	for _, c := range readVectors(t).Texts {
		env, err := policy.Parse(c.Text)
		if c.Error != "" {
			if err == nil {
				t.Errorf("%s: accepted; Fabric says %s", c.Text, c.Error)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.Text, err)
			continue
		}
		raw, err := proto.Marshal(env)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(raw, c.Envelope) {
			t.Errorf("%s: %x, want %x", c.Text, raw, c.Envelope)
		}
		text, err := policy.Text(env)
		if err != nil {
			t.Errorf("%s: %v", c.Text, err)
			continue
		}
		again, err := policy.Parse(text)
		if err != nil || !proto.Equal(env, again) {
			t.Errorf("%s was written as %s: %v", c.Text, text, err)
		}
	}
}

func TestImplicitMetaVectors(t *testing.T) {
	m := vectorManager(t)
	yes, err := policy.NewSignature(mustParse(t, "OutOf(0,'AlphaMSP.member')"), m)
	if err != nil {
		t.Fatal(err)
	}
	v := readVectors(t)
	for _, c := range v.Implicit.Cases {
		subs := make([]policy.Policy, c.All)
		for i := 0; i < c.Yes; i++ {
			subs[i] = yes
		}
		kind := commonpb.ImplicitMetaPolicy_Rule(commonpb.ImplicitMetaPolicy_Rule_value[c.Rule])
		err := policy.NewImplicitMeta(kind, "Endorsement", subs, m).EvaluateSigned(nil)
		if (err == nil) != c.Satisfied {
			t.Errorf("%s %d of %d: %v", c.Rule, c.Yes, c.All, err)
		}
	}
	for text, want := range v.Implicit.Bytes {
		p, err := policy.ParseImplicitMeta(text)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := proto.Marshal(p); err != nil || !bytes.Equal(raw, want) {
			t.Errorf("%s: %x %v", text, raw, err)
		}
	}
	err = policy.NewImplicitMeta(commonpb.ImplicitMetaPolicy_MAJORITY, "Admins", []policy.Policy{yes, nil, nil}, m).EvaluateSigned(nil)
	if want := "implicit policy evaluation failed - 1 sub-policies were satisfied, but this policy requires 2 of the 'Admins' sub-policies to be satisfied"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// Endorsement policies in blocks of real Fabric, one chaincode each; basic and refcc refer to implicit meta policies.
func TestEndorsementsOfRealBlocks(t *testing.T) {
	m := vectorManager(t)
	policies := map[string]policy.Policy{}
	for name, text := range map[string]string{
		"andcc":  "AND('AlphaMSP.peer','BetaMSP.peer')",
		"orcc":   "OR('AlphaMSP.member','BetaMSP.member')",
		"outcc":  "OutOf(2,'AlphaMSP.peer','BetaMSP.peer','AlphaMSP.client','BetaMSP.admin')",
		"nested": "OR(AND('AlphaMSP.member','AlphaMSP.peer'),AND('BetaMSP.admin','BetaMSP.client'))",
	} {
		p, err := policy.NewSignature(mustParse(t, text), m)
		if err != nil {
			t.Fatal(err)
		}
		policies[name] = p
	}
	var orgs []policy.Policy
	for _, org := range []string{"AlphaMSP", "BetaMSP"} {
		p, err := policy.NewSignature(mustParse(t, "OR('"+org+".peer')"), m)
		if err != nil {
			t.Fatal(err)
		}
		orgs = append(orgs, p)
	}
	policies["basic"] = policy.NewImplicitMeta(commonpb.ImplicitMetaPolicy_MAJORITY, "Endorsement", orgs, m)
	policies["refcc"] = policy.NewImplicitMeta(commonpb.ImplicitMetaPolicy_ANY, "Endorsement", orgs, m)

	seen := 0
	for _, name := range []string{"000033.block", "000034.block"} {
		raw := &commonpb.Block{}
		if err := proto.Unmarshal(read(t, name), raw); err != nil {
			t.Fatal(err)
		}
		b := block.Parse(raw)
		for i, code := range block.Filter(raw) {
			action := b.Txs[i].Actions[0]
			var set []policy.SignedData
			for _, e := range action.Payload.Action.Endorsements {
				set = append(set, policy.SignedData{
					Data:     append(append([]byte{}, action.Payload.Action.ProposalResponsePayload...), e.Endorser...),
					Identity: e.Endorser, Signature: e.Signature,
				})
			}
			chaincode := action.Chaincode.GetChaincodeId().GetName()
			direct := policies[chaincode].EvaluateSigned(set)
			if bad := code == 10; bad != (direct != nil) {
				t.Errorf("%s tx %d (%s): code %d, policy: %v", name, i, chaincode, code, direct)
			}
			seen++
			// The same policy as one signature policy.
			env, err := policy.Envelope(policies[chaincode])
			if err != nil {
				t.Fatal(err)
			}
			flat, err := policy.NewSignature(env, m)
			if err != nil {
				t.Fatal(err)
			}
			if got := flat.EvaluateSigned(set); (got == nil) != (direct == nil) {
				t.Errorf("%s tx %d: as one envelope: %v", name, i, got)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d transactions seen", seen)
	}
}

func mustParse(t testing.TB, text string) *commonpb.SignaturePolicyEnvelope {
	t.Helper()
	env, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestMalformedPolicies(t *testing.T) {
	m := vectorManager(t)
	by := func(i int32) *commonpb.SignaturePolicy {
		return &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_SignedBy{SignedBy: i}}
	}
	gate := func(rules ...*commonpb.SignaturePolicy) *commonpb.SignaturePolicyEnvelope {
		return &commonpb.SignaturePolicyEnvelope{Rule: &commonpb.SignaturePolicy{
			Type: &commonpb.SignaturePolicy_NOutOf_{NOutOf: &commonpb.SignaturePolicy_NOutOf{N: 1, Rules: rules}}}}
	}
	for want, env := range map[string]*commonpb.SignaturePolicyEnvelope{
		"invalid arguments":    nil,
		"Empty policy element": {},
		"Unknown type":         gate(&commonpb.SignaturePolicy{}),
		"identity index out of range, requested 0, but identities length is 0":  gate(by(0)),
		"identity index out of range, requested -1, but identities length is 0": gate(by(-1)),
	} {
		if _, err := policy.NewSignature(env, m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if _, err := policy.Text(env); err == nil {
			t.Errorf("%s: has a text", want)
		}
		if sets := policy.Combinations(env); len(sets) != 0 {
			t.Errorf("%s: has combinations", want)
		}
	}
	if _, err := policy.ParseSignature([]byte{0xff}, m); err == nil {
		t.Error("garbage was accepted")
	}
	if _, err := policy.ParseSignature([]byte{0x08, 0x01}, m); err == nil || !strings.Contains(err.Error(), "version was 1") {
		t.Error(err)
	}
	if err := policy.Reject("Readers").EvaluateSigned(nil); err == nil || err.Error() != "no such policy: 'Readers'" {
		t.Error(err)
	}
}

// Each signer counts once: whatever the PEM looks like, and the signature that does not hold takes no one's place.
func TestSignersAreDeduplicated(t *testing.T) {
	org := identitytest.NewOrg(t, "OrgMSP")
	m := identitytest.Manager(t, org)
	leaf := org.Issue(t, "one", []string{"client"})
	one, other := identitytest.Signer(t, "OrgMSP", leaf), org.Signer(t, "peer")
	msg := []byte("message")
	sign := func(s *identity.Signer) policy.SignedData {
		sig, err := s.Sign(msg)
		if err != nil {
			t.Fatal(err)
		}
		return policy.SignedData{Data: msg, Identity: s.Serialize(), Signature: sig}
	}
	bad := sign(one)
	bad.Signature = append([]byte{}, bad.Signature...)
	bad.Signature[len(bad.Signature)-1] ^= 1
	twin := sign(one)
	twin.Identity = identity.Serialize("OrgMSP", append([]byte("text before\n"), leaf.PEM...))
	stranger := identitytest.NewOrg(t, "StrangerMSP").Signer(t, "peer")

	ids := policy.ValidIdentities([]policy.SignedData{bad, sign(one), twin, sign(stranger), {}, sign(other), sign(one)}, m)
	if len(ids) != 2 || ids[0].Certificate().Subject.CommonName != "one" {
		t.Fatalf("%d identities", len(ids))
	}
	p, err := policy.NewSignature(mustParse(t, "AND('OrgMSP.member','OrgMSP.member')"), m)
	if err != nil {
		t.Fatal(err)
	}
	if p.EvaluateSigned([]policy.SignedData{sign(one), twin}) == nil {
		t.Error("one signer counted twice")
	}
	if err := p.EvaluateIdentities(ids); err != nil {
		t.Error(err)
	}
}
