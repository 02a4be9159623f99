package discovery

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
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

// Need is what an interest asks of those who endorse it.
type Need struct {
	// Policies must all be satisfied by the endorsements together.
	Policies []*commonpb.SignaturePolicyEnvelope
	// Readers hold, for each collection that is read, the principals of its members:
	// every endorser must be one of each, as others lack the data or must not see it.
	Readers [][]*msppb.MSPPrincipal
}

// Members returns the minimal combinations of members whose peers together
// satisfy the need, smallest first, in a fixed order.
//
// A principal is taken to be satisfied by any peer of its MSP if it names the
// MSP as member or peer; policies that ask for clients, admins or orderers
// cannot be satisfied by peers.
func (n *Need) Members() ([]Layout, error) {
	layouts, err := n.combine(peerMSP)
	if err != nil {
		return nil, err
	}
	for _, principals := range n.Readers {
		readers := map[string]bool{}
		for _, p := range principals {
			if msp, ok := peerMSP(p); ok {
				readers[msp] = true
			}
		}
		layouts = slices.DeleteFunc(layouts, func(l Layout) bool {
			for msp := range l {
				if !readers[msp] {
					return true
				}
			}
			return false
		})
	}
	if len(layouts) == 0 {
		return nil, ErrNoLayout
	}
	return layouts, nil
}

// combine joins the ways to satisfy each policy. group names what a principal
// counts for; false means that no peer can satisfy it.
func (n *Need) combine(group func(*msppb.MSPPrincipal) (string, bool)) ([]Layout, error) {
	merged := []Layout{{}}
	for _, p := range n.Policies {
		var choices []Layout
		for _, principals := range policy.CombinationsAmong(p, func(p *msppb.MSPPrincipal) bool { _, ok := group(p); return ok }) {
			l := Layout{}
			for _, p := range principals {
				name, _ := group(p)
				l[name]++
			}
			choices = append(choices, l)
		}
		merged = minimal(product(merged, choices))
	}
	merged = slices.DeleteFunc(merged, func(l Layout) bool { return len(l) == 0 })
	if len(merged) == 0 {
		return nil, ErrNoLayout
	}
	return merged, nil
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
	// EndorsementPolicy is the policy of a committed chaincode. The error says so if
	// there is none of that name.
	EndorsementPolicy(chaincode string) (*peerpb.ApplicationPolicy, error)
	// CollectionPolicy is a collection's own endorsement policy, nil without one,
	// and the policy of its members.
	CollectionPolicy(chaincode, collection string) (endorsement *peerpb.ApplicationPolicy, members *commonpb.SignaturePolicyEnvelope, err error)
}

// NeedOf collects what an interest asks of its endorsers. bundle resolves
// references to channel policies.
func NeedOf(interest *peerpb.ChaincodeInterest, rules Rules, bundle *channel.Bundle) (*Need, error) {
	need := &Need{}
	add := func(p *peerpb.ApplicationPolicy) error {
		signature, err := signaturePolicy(p, bundle)
		if err == nil {
			need.Policies = append(need.Policies, signature)
		}
		return err
	}
	for _, call := range interest.GetChaincodes() {
		// Also looked up where it does not count: the chaincode must exist.
		p, err := rules.EndorsementPolicy(call.GetName())
		if err != nil {
			return nil, err
		}
		if !call.GetDisregardNamespacePolicy() {
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
			if !call.GetNoPrivateReads() {
				need.Readers = append(need.Readers, members.GetIdentities())
			}
		}
		need.Policies = append(need.Policies, call.GetKeyPolicies()...)
	}
	if len(need.Policies) == 0 {
		return nil, errors.New("the interest disregards the chaincode's policy and names no other policy in its place")
	}
	return need, nil
}

// signaturePolicy gives an application policy as a signature policy.
func signaturePolicy(p *peerpb.ApplicationPolicy, bundle *channel.Bundle) (*commonpb.SignaturePolicyEnvelope, error) {
	switch kind := p.GetType().(type) {
	case *peerpb.ApplicationPolicy_SignaturePolicy:
		return kind.SignaturePolicy, nil
	case *peerpb.ApplicationPolicy_ChannelConfigPolicyReference:
		return bundle.SignatureEnvelope(kind.ChannelConfigPolicyReference)
	}
	return nil, errors.New("its endorsement policy is of no known kind")
}

// Planner answers Members for interests and remembers the answers until the
// configuration or the definitions change: transactions of one kind have one interest.
type Planner struct {
	mu         sync.Mutex
	bundle     *channel.Bundle
	definition uint64
	known      map[string][]Layout // by encoded interest; guarded by mu
}

// maxPlans bounds what a Planner remembers; key-level policies can make many interests.
const maxPlans = 1024

// Members returns the layouts of an interest. They are shared: do not change
// them. definitions is a number that changes whenever what rules answers may have.
func (p *Planner) Members(interest *peerpb.ChaincodeInterest, rules Rules, bundle *channel.Bundle, definitions uint64) ([]Layout, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(interest)
	if err != nil {
		return nil, err
	}
	key := string(raw)
	p.mu.Lock()
	if p.bundle != bundle || p.definition != definitions || len(p.known) >= maxPlans {
		p.bundle, p.definition, p.known = bundle, definitions, map[string][]Layout{}
	}
	layouts, ok := p.known[key]
	p.mu.Unlock()
	if ok {
		return layouts, nil
	}
	need, err := NeedOf(interest, rules, bundle)
	if err != nil {
		return nil, err
	}
	if layouts, err = need.Members(); err != nil {
		return nil, err
	}
	// A policy may name members that the channel does not have, a key's own above all.
	layouts = slices.DeleteFunc(layouts, func(l Layout) bool {
		for msp := range l {
			if _, ok := bundle.MSPs().MSP(msp); !ok {
				return true
			}
		}
		return false
	})
	if len(layouts) == 0 {
		return nil, fmt.Errorf("%w: no peer combination can satisfy the endorsement policy", ErrNoLayout)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bundle == bundle && p.definition == definitions {
		p.known[key] = layouts
	}
	return layouts, nil
}
