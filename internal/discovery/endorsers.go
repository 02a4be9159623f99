package discovery

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/discoverypb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// ability is what a peer must be and have to endorse an interest.
type ability struct {
	need      *Need
	contracts map[string]string // names and versions
}

func abilities(ch Channel, interest *peerpb.ChaincodeInterest) (*ability, error) {
	need, err := NeedOf(interest, ch.Rules(), ch.Bundle())
	if err != nil {
		return nil, err
	}
	defined, err := ch.Contracts()
	if err != nil {
		return nil, err
	}
	a := &ability{need, map[string]string{}}
	for _, call := range interest.GetChaincodes() {
		if call.Name == lifecycleNamespace {
			a.contracts[call.Name] = lifecycleVersion
			continue
		}
		c, ok := defined[call.Name]
		if !ok {
			return nil, fmt.Errorf("chaincode %s is not defined on channel %s", call.Name, ch.Bundle().ID())
		}
		a.contracts[call.Name] = c.Version
	}
	return a, nil
}

// of keeps the members that run the contracts and belong to every collection that is read.
func (a *ability) of(members []*Member) []*Member {
	return slices.DeleteFunc(slices.Clone(members), func(m *Member) bool {
		if m.identity == nil {
			return true
		}
		for name, version := range a.contracts {
			if m.Contracts[name] != version {
				return true
			}
		}
		for _, readers := range a.need.Readers {
			if !slices.ContainsFunc(readers, func(p *msppb.MSPPrincipal) bool { return m.identity.Satisfies(p) == nil }) {
				return true
			}
		}
		return false
	})
}

// describe plans an interest for a client: groups of peers that are worth the
// same, and how many of which group are enough.
func describe(ch Channel, members []*Member, interest *peerpb.ChaincodeInterest) (*discoverypb.EndorsementDescriptor, error) {
	able, err := abilities(ch, interest)
	if err != nil {
		return nil, err
	}
	members = able.of(members)
	if len(members) == 0 {
		return nil, errors.New("required chaincodes are not installed on sufficient peers")
	}
	groups := groupsOf(able.need, members)
	layouts, err := able.need.combine(groups.key)
	if err != nil {
		return nil, err
	}
	layouts = slices.DeleteFunc(layouts, func(l Layout) bool {
		for key, n := range l {
			if len(groups[key]) < n {
				return true
			}
		}
		return false
	})
	if len(layouts) == 0 {
		return nil, errors.New("no peer combination can satisfy the endorsement policy")
	}
	used := map[string]string{} // name of the group by key
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		if slices.ContainsFunc(layouts, func(l Layout) bool { return l[key] > 0 }) {
			used[key] = fmt.Sprintf("G%d", len(used))
		}
	}
	descriptor := &discoverypb.EndorsementDescriptor{Chaincode: interest.Chaincodes[0].Name, EndorsersByGroups: map[string]*discoverypb.Peers{}}
	for key, name := range used {
		peers := &discoverypb.Peers{}
		for _, m := range groups[key] {
			peers.Peers = append(peers.Peers, m.message)
		}
		descriptor.EndorsersByGroups[name] = peers
	}
	for _, l := range layouts {
		quantities := map[string]uint32{}
		for key, n := range l {
			quantities[used[key]] = uint32(n)
		}
		descriptor.Layouts = append(descriptor.Layouts, &discoverypb.Layout{QuantitiesByGroup: quantities})
	}
	return descriptor, nil
}

// groups are the peers that meet a principal, by the principal's key.
type groups map[string][]*Member

// groupsOf makes the groups of all principals that a need names and some peer meets.
func groupsOf(n *Need, members []*Member) groups {
	g := groups{}
	for _, p := range n.Policies {
		for _, principal := range p.GetIdentities() {
			key := principalKey(principal)
			// MEMBER and PEER of one MSP make one group, so that a peer who counts for both
			// policies is asked once: those who are both.
			members := members
			if known, ok := g[key]; ok {
				members = known
			}
			var meeting []*Member
			for _, m := range members {
				if m.identity.Satisfies(principal) == nil {
					meeting = append(meeting, m)
				}
			}
			g[key] = meeting
		}
	}
	return g
}

func (g groups) key(p *msppb.MSPPrincipal) (string, bool) {
	key := principalKey(p)
	return key, len(g[key]) > 0
}

func principalKey(p *msppb.MSPPrincipal) string {
	if p.GetPrincipalClassification() == msppb.MSPPrincipal_ROLE {
		role := &msppb.MSPRole{}
		if proto.Unmarshal(p.Principal, role) == nil && (role.Role == msppb.MSPRole_MEMBER || role.Role == msppb.MSPRole_PEER) {
			return "peer of " + role.MspIdentifier
		}
	}
	return fmt.Sprintf("%d %x", p.GetPrincipalClassification(), p.GetPrincipal())
}
