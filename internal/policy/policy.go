// Package policy decides whether a set of signers is enough: signature policies, implicit meta policies over them, and the text
// that people write them in.
//
// It guarantees Fabric's verdicts: signature policies consume each identity once, greedily and in the order of the rules and
// of the signatures; identities are told apart by certificate; a signature that does not hold is as if it were absent. Signatures
// are verified once for a whole tree of policies. Policies are immutable and safe for concurrent use.
//
// It leaves out names and paths ("/Channel/Application/Writers": package channel), and what is signed (its callers).
//
// Open this file first; text.go is the language, combinations.go answers which principals would satisfy a policy.
package policy

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// SignedData is one signature: Identity is a serialized msppb.SerializedIdentity.
type SignedData struct {
	Data, Identity, Signature []byte
}

// Policy says no by an error whose text Fabric's clients know.
type Policy interface {
	// EvaluateSigned verifies the signatures, once each, and evaluates those that hold.
	EvaluateSigned(set []SignedData) error
	// EvaluateIdentities evaluates identities whose signatures the caller verified and which it deduplicated (ValidIdentities
	// does both). Their order matters.
	EvaluateIdentities(ids []*identity.Identity) error
}

// ValidIdentities returns the signers of set whose signature holds, in order, each certificate once. Signers that the channel does
// not know and signatures that do not hold are passed over; a second signature by a signer already counted is not even verified.
// Whether the signers are valid members is asked by the principals of a policy.
func ValidIdentities(set []SignedData, m *identity.Manager) []*identity.Identity {
	ids := make([]*identity.Identity, 0, len(set))
next:
	for _, one := range set {
		id, err := m.Deserialize(one.Identity)
		if err != nil {
			continue
		}
		for _, have := range ids {
			if have == id || have.Key() == id.Key() {
				continue next
			}
		}
		if id.Verify(one.Data, one.Signature) == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// Reject returns the policy that stands for one that does not exist.
func Reject(name string) Policy { return reject(name) }

type reject string

func (r reject) EvaluateSigned([]SignedData) error {
	return fmt.Errorf("no such policy: '%s'", string(r))
}

func (r reject) EvaluateIdentities([]*identity.Identity) error {
	return fmt.Errorf("no such policy: '%s'", string(r))
}

// signature is a compiled signature policy.
type signature struct {
	envelope *commonpb.SignaturePolicyEnvelope
	rule     rule
	manager  *identity.Manager
}

// rule is one node of the tree: n of rules, or, if principal is set, one signer who meets it.
type rule struct {
	principal *identity.Principal
	n         int32
	rules     []rule
}

// ParseSignature compiles the bytes of a commonpb.SignaturePolicyEnvelope as a channel config's policy of type SIGNATURE holds
// them; unlike NewSignature it insists on version 0.
func ParseSignature(raw []byte, m *identity.Manager) (Policy, error) {
	env := &commonpb.SignaturePolicyEnvelope{}
	if err := proto.Unmarshal(raw, env); err != nil {
		return nil, fmt.Errorf("Error unmarshalling to SignaturePolicy: %w", err)
	}
	if env.Version != 0 {
		return nil, fmt.Errorf("This evaluator only understands messages of version 0, but version was %d", env.Version)
	}
	return NewSignature(env, m)
}

// NewSignature compiles a signature policy, such as a chaincode's endorsement policy. env must not be changed afterwards.
func NewSignature(env *commonpb.SignaturePolicyEnvelope, m *identity.Manager) (Policy, error) {
	if env == nil {
		return nil, errors.New("invalid arguments")
	}
	principals := make([]*identity.Principal, len(env.Identities))
	root, err := compile(env.Rule, env.Identities, principals)
	if err != nil {
		return nil, err
	}
	return &signature{envelope: env, rule: root, manager: m}, nil
}

func compile(from *commonpb.SignaturePolicy, identities []*msppb.MSPPrincipal, principals []*identity.Principal) (rule, error) {
	if from == nil {
		return rule{}, errors.New("Empty policy element")
	}
	switch t := from.Type.(type) {
	case *commonpb.SignaturePolicy_NOutOf_:
		r := rule{n: t.NOutOf.GetN()}
		for _, sub := range t.NOutOf.GetRules() {
			compiled, err := compile(sub, identities, principals)
			if err != nil {
				return rule{}, err
			}
			r.rules = append(r.rules, compiled)
		}
		return r, nil
	case *commonpb.SignaturePolicy_SignedBy:
		i := t.SignedBy
		if i < 0 || int(i) >= len(identities) {
			return rule{}, fmt.Errorf("identity index out of range, requested %v, but identities length is %d", i, len(identities))
		}
		if principals[i] == nil {
			principals[i] = identity.NewPrincipal(identities[i])
		}
		return rule{principal: principals[i]}, nil
	}
	return rule{}, fmt.Errorf("Unknown type: %T:%v", from.Type, from.Type)
}

func (s *signature) EvaluateSigned(set []SignedData) error {
	return s.EvaluateIdentities(ValidIdentities(set, s.manager))
}

func (s *signature) EvaluateIdentities(ids []*identity.Identity) error {
	if !s.rule.met(ids, make([]bool, len(ids))) {
		return errors.New("signature set did not satisfy policy")
	}
	return nil
}

// met marks in used the identities that the rule consumed. It goes on after n rules are met, and so takes identities away from
// the rules beside it; a rule that fails gives back what it took. Other verdicts would be sounder, but these are Fabric's.
func (r *rule) met(ids []*identity.Identity, used []bool) bool {
	if r.principal != nil {
		for i, id := range ids {
			if !used[i] && id.SatisfiesPrincipal(r.principal) == nil {
				used[i] = true
				return true
			}
		}
		return false
	}
	count := int32(0)
	before := make([]bool, len(used))
	for i := range r.rules {
		copy(before, used)
		if r.rules[i].met(ids, used) {
			count++
		} else {
			copy(used, before)
		}
	}
	return count >= r.n
}

// implicitMeta counts how many policies below are satisfied.
type implicitMeta struct {
	threshold int
	name      string
	subs      []Policy
	manager   *identity.Manager
}

// NewImplicitMeta asks the policies named name of the groups below: subs has one entry per group, in any order, and Reject(name)
// (or nil) for a group without one. All of them must be over m.
func NewImplicitMeta(kind commonpb.ImplicitMetaPolicy_Rule, name string, subs []Policy, m *identity.Manager) Policy {
	p := &implicitMeta{name: name, manager: m, subs: make([]Policy, len(subs))}
	for i, sub := range subs {
		if sub == nil {
			sub = Reject(name)
		}
		p.subs[i] = sub
	}
	switch kind {
	case commonpb.ImplicitMetaPolicy_ANY:
		p.threshold = 1
	case commonpb.ImplicitMetaPolicy_ALL:
		p.threshold = len(subs)
	case commonpb.ImplicitMetaPolicy_MAJORITY:
		p.threshold = len(subs)/2 + 1
	}
	if len(subs) == 0 {
		p.threshold = 0 // of nothing, nothing is enough
	}
	return p
}

func (p *implicitMeta) EvaluateSigned(set []SignedData) error {
	return p.EvaluateIdentities(ValidIdentities(set, p.manager))
}

func (p *implicitMeta) EvaluateIdentities(ids []*identity.Identity) error {
	// Counting down, as Fabric does, also gives its verdict for a rule it does not know: threshold 0 above groups that agree.
	remaining := p.threshold
	for _, sub := range p.subs {
		if sub.EvaluateIdentities(ids) == nil {
			if remaining--; remaining == 0 {
				return nil
			}
		}
	}
	if remaining == 0 {
		return nil
	}
	return fmt.Errorf("implicit policy evaluation failed - %d sub-policies were satisfied, but this policy requires %d of the '%s' sub-policies to be satisfied", p.threshold-remaining, p.threshold, p.name)
}

// Envelope returns p as one signature policy: a policy of a channel config that chaincodes refer to, for planning endorsements.
// Principals that several sub-policies share appear once. A group without the policy makes it fail, as in Fabric.
func Envelope(p Policy) (*commonpb.SignaturePolicyEnvelope, error) {
	switch p := p.(type) {
	case *signature:
		return p.envelope, nil
	case *implicitMeta:
		out := &commonpb.SignaturePolicyEnvelope{}
		gate := &commonpb.SignaturePolicy_NOutOf{N: int32(p.threshold)}
		index := make(map[string]int32)
		for i, sub := range p.subs {
			env, err := Envelope(sub)
			if err != nil {
				return nil, fmt.Errorf("failed to convert subpolicy number %d of policy %s: %w", i, p.name, err)
			}
			moved := make([]int32, len(env.Identities))
			for j, principal := range env.Identities {
				key := fmt.Sprintf("%d:%s", principal.PrincipalClassification, principal.Principal)
				at, ok := index[key]
				if !ok {
					at = int32(len(out.Identities))
					index[key] = at
					out.Identities = append(out.Identities, principal)
				}
				moved[j] = at
			}
			gate.Rules = append(gate.Rules, renumber(env.Rule, moved))
		}
		out.Rule = &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_NOutOf_{NOutOf: gate}}
		return out, nil
	}
	return nil, fmt.Errorf("policy of type %T is not convertible to SignaturePolicyEnvelope", p)
}

// renumber copies a rule that compile accepted, with its principals at other places.
func renumber(from *commonpb.SignaturePolicy, moved []int32) *commonpb.SignaturePolicy {
	if by, ok := from.Type.(*commonpb.SignaturePolicy_SignedBy); ok {
		return signedBy(moved[by.SignedBy])
	}
	gate := from.GetNOutOf()
	rules := make([]*commonpb.SignaturePolicy, len(gate.GetRules()))
	for i, sub := range gate.GetRules() {
		rules[i] = renumber(sub, moved)
	}
	return nOutOf(gate.GetN(), rules)
}

func signedBy(i int32) *commonpb.SignaturePolicy {
	return &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_SignedBy{SignedBy: i}}
}

func nOutOf(n int32, rules []*commonpb.SignaturePolicy) *commonpb.SignaturePolicy {
	return &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_NOutOf_{NOutOf: &commonpb.SignaturePolicy_NOutOf{N: n, Rules: rules}}}
}
