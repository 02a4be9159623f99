package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Layout says how many peers of each member must endorse: MSP id to number.
type Layout map[string]int

// maxLayouts bounds what a pathological policy can cost.
const maxLayouts = 512

// ErrNoLayout says that the members' peers cannot satisfy the policies.
var ErrNoLayout = errors.New("no combination of peers can be derived which satisfy the endorsement policy")

// Layouts returns the minimal combinations of members whose peers together
// satisfy every policy, smallest first, in a fixed order. available is how many
// peers each member has.
//
// A principal is taken to be satisfied by any peer of its MSP if it names the
// MSP as member or peer; policies that ask for clients, admins or orderers
// cannot be satisfied by peers.
func Layouts(policies []*commonpb.SignaturePolicyEnvelope, available map[string]int) ([]Layout, error) {
	merged := []Layout{{}}
	for _, p := range policies {
		var choices []Layout
		for _, principals := range policy.Combinations(p) {
			if l, ok := layoutOf(principals); ok {
				choices = append(choices, l)
			}
		}
		merged = minimal(product(merged, choices))
		if len(merged) == 0 {
			return nil, ErrNoLayout
		}
	}
	merged = slices.DeleteFunc(merged, func(l Layout) bool {
		for msp, n := range l {
			if available[msp] < n {
				return true
			}
		}
		return len(l) == 0
	})
	if len(merged) == 0 {
		return nil, ErrNoLayout
	}
	return merged, nil
}

// layoutOf counts principals by MSP; false if peers cannot satisfy one.
func layoutOf(principals []*msppb.MSPPrincipal) (Layout, bool) {
	l := Layout{}
	for _, p := range principals {
		msp, ok := peerMSP(p)
		if !ok {
			return nil, false
		}
		l[msp]++
	}
	return l, true
}

func peerMSP(p *msppb.MSPPrincipal) (string, bool) {
	switch p.GetPrincipalClassification() {
	case msppb.MSPPrincipal_ROLE:
		role := &msppb.MSPRole{}
		if proto.Unmarshal(p.Principal, role) != nil {
			return "", false
		}
		return role.MspIdentifier, role.Role == msppb.MSPRole_MEMBER || role.Role == msppb.MSPRole_PEER
	case msppb.MSPPrincipal_ORGANIZATION_UNIT:
		unit := &msppb.OrganizationUnit{}
		if proto.Unmarshal(p.Principal, unit) != nil {
			return "", false
		}
		return unit.MspIdentifier, true
	case msppb.MSPPrincipal_IDENTITY:
		id := &msppb.SerializedIdentity{}
		if proto.Unmarshal(p.Principal, id) != nil {
			return "", false
		}
		return id.Mspid, true
	}
	return "", false
}

// product joins every layout of a with every one of b: a peer may count for
// several policies, so the larger number of each member is enough.
func product(a, b []Layout) []Layout {
	var out []Layout
	for _, x := range a {
		for _, y := range b {
			joined := maps.Clone(x)
			for msp, n := range y {
				joined[msp] = max(joined[msp], n)
			}
			if out = append(out, joined); len(out) == maxLayouts {
				return out
			}
		}
	}
	return out
}

// minimal drops layouts that contain another one and sorts the rest.
func minimal(layouts []Layout) []Layout {
	slices.SortFunc(layouts, func(x, y Layout) int {
		return cmp.Or(cmp.Compare(x.size(), y.size()), strings.Compare(x.String(), y.String()))
	})
	var kept []Layout
	for _, l := range layouts {
		if !slices.ContainsFunc(kept, func(k Layout) bool { return l.contains(k) }) {
			kept = append(kept, l)
		}
	}
	return kept
}

func (l Layout) size() (n int) {
	for _, quantity := range l {
		n += quantity
	}
	return n
}

func (l Layout) contains(other Layout) bool {
	for msp, n := range other {
		if l[msp] < n {
			return false
		}
	}
	return true
}

// String is the layout in MSP order: "Org1MSP:1 Org2MSP:1".
func (l Layout) String() string {
	parts := make([]string, 0, len(l))
	for _, msp := range slices.Sorted(maps.Keys(l)) {
		parts = append(parts, fmt.Sprintf("%s:%d", msp, l[msp]))
	}
	return strings.Join(parts, " ")
}

// Rules gives the policies that an interest must satisfy.
type Rules interface {
	// EndorsementPolicy is the policy of a committed chaincode.
	EndorsementPolicy(chaincode string) (*peerpb.ApplicationPolicy, error)
	// CollectionPolicy is a collection's own endorsement policy, nil without one,
	// and the policy of its members.
	CollectionPolicy(chaincode, collection string) (endorsement *peerpb.ApplicationPolicy, members *commonpb.SignaturePolicyEnvelope, err error)
}

// Policies collects what the peers that endorse an interest must satisfy, as
// signature policies. config resolves references to channel policies.
func Policies(interest *peerpb.ChaincodeInterest, rules Rules, config *commonpb.Config) ([]*commonpb.SignaturePolicyEnvelope, error) {
	var out []*commonpb.SignaturePolicyEnvelope
	add := func(p *peerpb.ApplicationPolicy) error {
		signature, err := signaturePolicy(p, config)
		if err == nil {
			out = append(out, signature)
		}
		return err
	}
	for _, call := range interest.GetChaincodes() {
		if !call.GetDisregardNamespacePolicy() {
			p, err := rules.EndorsementPolicy(call.GetName())
			if err != nil {
				return nil, err
			}
			if err := add(p); err != nil {
				return nil, fmt.Errorf("chaincode %s: %w", call.GetName(), err)
			}
		}
		for _, collection := range call.GetCollectionNames() {
			endorsement, members, err := rules.CollectionPolicy(call.GetName(), collection)
			if err != nil {
				return nil, err
			}
			if endorsement != nil {
				if err := add(endorsement); err != nil {
					return nil, fmt.Errorf("collection %s of %s: %w", collection, call.GetName(), err)
				}
			}
			if members != nil && !call.GetNoPrivateReads() {
				out = append(out, members)
			}
		}
		out = append(out, call.GetKeyPolicies()...)
	}
	return out, nil
}

// signaturePolicy gives an application policy as a signature policy.
func signaturePolicy(p *peerpb.ApplicationPolicy, config *commonpb.Config) (*commonpb.SignaturePolicyEnvelope, error) {
	switch kind := p.GetType().(type) {
	case *peerpb.ApplicationPolicy_SignaturePolicy:
		return kind.SignaturePolicy, nil
	case *peerpb.ApplicationPolicy_ChannelConfigPolicyReference:
		return channelPolicy(config, kind.ChannelConfigPolicyReference)
	}
	return nil, errors.New("its endorsement policy is of no known kind")
}

// channelPolicy gives the channel policy at path as a signature policy.
func channelPolicy(config *commonpb.Config, path string) (*commonpb.SignaturePolicyEnvelope, error) {
	elements := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(elements) < 2 || elements[0] != "Channel" {
		return nil, fmt.Errorf("channel policy %q: a path such as /Channel/Application/Endorsement is wanted", path)
	}
	group := config.GetChannelGroup()
	for _, name := range elements[1 : len(elements)-1] {
		if group = group.GetGroups()[name]; group == nil {
			return nil, fmt.Errorf("channel policy %q: the channel has no group %q", path, name)
		}
	}
	rule, err := groupRule(group, elements[len(elements)-1], 0)
	if err != nil {
		return nil, fmt.Errorf("channel policy %q: %w", path, err)
	}
	return rule.envelope(), nil
}

// rule is a signature policy under construction: leaves name principals.
type rule struct {
	principal *msppb.MSPPrincipal
	n         int
	rules     []rule
}

// maxRuleDepth bounds policies that nest; configs are at most three groups deep.
const maxRuleDepth = 16

func groupRule(group *commonpb.ConfigGroup, name string, depth int) (rule, error) {
	p := group.GetPolicies()[name].GetPolicy()
	if p == nil || depth > maxRuleDepth {
		return rule{}, fmt.Errorf("there is no usable policy %q", name)
	}
	switch commonpb.Policy_PolicyType(p.Type) {
	case commonpb.Policy_SIGNATURE:
		env := &commonpb.SignaturePolicyEnvelope{}
		if err := proto.Unmarshal(p.Value, env); err != nil {
			return rule{}, err
		}
		return fromEnvelope(env, env.Rule, depth)
	case commonpb.Policy_IMPLICIT_META:
		meta := &commonpb.ImplicitMetaPolicy{}
		if err := proto.Unmarshal(p.Value, meta); err != nil {
			return rule{}, err
		}
		var r rule
		for _, org := range slices.Sorted(maps.Keys(group.Groups)) {
			// A member without the sub-policy can never satisfy it.
			if sub, err := groupRule(group.Groups[org], meta.SubPolicy, depth+1); err == nil {
				r.rules = append(r.rules, sub)
			}
		}
		switch members := len(group.Groups); meta.Rule {
		case commonpb.ImplicitMetaPolicy_ANY:
			r.n = min(1, members)
		case commonpb.ImplicitMetaPolicy_ALL:
			r.n = members
		default:
			r.n = members/2 + 1
		}
		return r, nil
	}
	return rule{}, fmt.Errorf("policy %q is of unknown type %d", name, p.Type)
}

func fromEnvelope(env *commonpb.SignaturePolicyEnvelope, p *commonpb.SignaturePolicy, depth int) (rule, error) {
	switch kind := p.GetType().(type) {
	case *commonpb.SignaturePolicy_SignedBy:
		if kind.SignedBy < 0 || int(kind.SignedBy) >= len(env.Identities) {
			return rule{}, fmt.Errorf("it refers to identity %d of %d", kind.SignedBy, len(env.Identities))
		}
		return rule{principal: env.Identities[kind.SignedBy]}, nil
	case *commonpb.SignaturePolicy_NOutOf_:
		r := rule{n: int(kind.NOutOf.GetN())}
		for _, sub := range kind.NOutOf.GetRules() {
			s, err := fromEnvelope(env, sub, depth+1)
			if err != nil {
				return rule{}, err
			}
			r.rules = append(r.rules, s)
		}
		if depth <= maxRuleDepth {
			return r, nil
		}
	}
	return rule{}, errors.New("a rule is of no known kind or nested too deep")
}

func (r rule) envelope() *commonpb.SignaturePolicyEnvelope {
	env := &commonpb.SignaturePolicyEnvelope{}
	env.Rule = r.addTo(env)
	return env
}

func (r rule) addTo(env *commonpb.SignaturePolicyEnvelope) *commonpb.SignaturePolicy {
	if r.principal != nil {
		env.Identities = append(env.Identities, r.principal)
		return &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_SignedBy{SignedBy: int32(len(env.Identities) - 1)}}
	}
	n := &commonpb.SignaturePolicy_NOutOf{N: int32(r.n)}
	for _, sub := range r.rules {
		n.Rules = append(n.Rules, sub.addTo(env))
	}
	return &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_NOutOf_{NOutOf: n}}
}
