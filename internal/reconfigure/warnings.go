package reconfigure

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// Warnings tells what the channel would accept and its members would regret:
// that those who sign could afterwards not change anything any more, that
// nobody could, that a capability is lowered, that peers would find no orderer.
func (c *Config) Warnings(s *Status) (all []string) {
	all = append(all, c.lockedOut(s)...)
	all = append(all, c.dead(s.Next)...)
	all = append(all, c.lowered(s.Next)...)
	if len(c.base.OrdererEndpoints()) > 0 && len(s.Next.OrdererEndpoints()) == 0 {
		all = append(all, "no member has endpoints of orderers any more, so that peers find none to get blocks from")
	}
	return all
}

// lockedOut warns those who sign, of what they may decide now and not afterwards.
func (c *Config) lockedOut(s *Status) (all []string) {
	for _, id := range s.signers {
		after, err := s.Next.MSPs().Deserialize(id.Serialized())
		for _, name := range []string{applicationKey, ordererKey} {
			for _, member := range slices.Sorted(maps.Keys(c.base.Config().ChannelGroup.GetGroups()[name].GetGroups())) {
				path := strings.Join([]string{"", rootKey, name, member, adminsPolicy}, "/")
				now, ok := c.base.Policy(path)
				if !ok || now.EvaluateIdentities([]*identity.Identity{id}) != nil {
					continue
				}
				switch then, exists := s.Next.Policy(path); {
				case err != nil && s.Next.Config().ChannelGroup.GetGroups()[name].GetGroups()[member] != nil:
					all = append(all, fmt.Sprintf("%s, who signs this, is locked out by it: the new MSP of %s does not know the certificate", describe(id), member))
				case !exists && s.Next.Config().ChannelGroup.GetGroups()[name].GetGroups()[member] == nil:
					all = append(all, fmt.Sprintf("%s, who signs this, is locked out by it: member %s leaves the channel's %s", describe(id), member, strings.ToLower(name)))
				case !exists || then.EvaluateIdentities([]*identity.Identity{after}) != nil:
					all = append(all, fmt.Sprintf("%s, who signs this, is locked out by it: afterwards %s is no longer an administrator of %s (%s)", describe(id), id.Certificate().Subject.CommonName, member, path))
				}
			}
		}
	}
	return all
}

// dead warns of policies that somebody can meet now and nobody afterwards.
func (c *Config) dead(next *channel.Bundle) (all []string) {
	before, after := newElectorate(c.base), newElectorate(next)
	walkPolicies(next.Config().ChannelGroup, "/"+rootKey, func(path string, group *commonpb.ConfigGroup, name string) {
		end := ""
		if _, ok := c.base.Policy(path); ok {
			was, wasName := c.find(path)
			if !before.meets(was, wasName) {
				return
			}
			end = " any more"
		}
		if !after.meets(group, name) {
			all = append(all, fmt.Sprintf("nobody could satisfy the policy %s (%s)%s", path, ruleText(group.Policies[name].GetPolicy()), end))
		}
	})
	return all
}

func walkPolicies(group *commonpb.ConfigGroup, path string, visit func(path string, group *commonpb.ConfigGroup, name string)) {
	for _, name := range slices.Sorted(maps.Keys(group.GetPolicies())) {
		visit(path+"/"+name, group, name)
	}
	for _, name := range slices.Sorted(maps.Keys(group.GetGroups())) {
		walkPolicies(group.Groups[name], path+"/"+name, visit)
	}
}

// electorate is who there can be in a configuration: the definitions of its MSPs, by MSP id.
type electorate map[string]*msppb.FabricMSPConfig

func newElectorate(b *channel.Bundle) electorate {
	all := electorate{}
	for _, name := range []string{applicationKey, ordererKey} {
		for _, group := range b.Config().ChannelGroup.GetGroups()[name].GetGroups() {
			if _, definition, err := mspOf(group); err == nil {
				all[definition.Name] = definition
			}
		}
	}
	return all
}

// meets says whether signers can exist who satisfy a policy of a group.
func (e electorate) meets(group *commonpb.ConfigGroup, name string) bool {
	definition := group.GetPolicies()[name].GetPolicy()
	switch commonpb.Policy_PolicyType(definition.GetType()) {
	case commonpb.Policy_IMPLICIT_META:
		meta := &commonpb.ImplicitMetaPolicy{}
		if proto.Unmarshal(definition.Value, meta) != nil {
			return false
		}
		n := 0
		for _, sub := range group.Groups {
			if e.meets(sub, meta.SubPolicy) {
				n++
			}
		}
		return n >= threshold(meta.Rule, len(group.Groups))
	case commonpb.Policy_SIGNATURE:
		env := &commonpb.SignaturePolicyEnvelope{}
		return proto.Unmarshal(definition.Value, env) == nil && e.meetsRule(env, env.Rule)
	}
	return false
}

func (e electorate) meetsRule(env *commonpb.SignaturePolicyEnvelope, rule *commonpb.SignaturePolicy) bool {
	if gate := rule.GetNOutOf(); gate != nil {
		n := 0
		for _, sub := range gate.Rules {
			if e.meetsRule(env, sub) {
				n++
			}
		}
		return n >= int(gate.N)
	}
	at := int(rule.GetSignedBy())
	return at < len(env.Identities) && e.has(env.Identities[at])
}

// has says whether somebody can meet a principal. An administrator is one by the
// member's list of certificates, or by the unit in the certificate.
func (e electorate) has(p *msppb.MSPPrincipal) bool {
	w := wantedPrincipal(p)
	if len(w.members) == 0 {
		return true // of a kind that nothing can be said of
	}
	definition, ok := e[w.members[0]]
	if !ok {
		return false
	}
	role := &msppb.MSPRole{}
	if p.GetPrincipalClassification() != msppb.MSPPrincipal_ROLE || proto.Unmarshal(p.Principal, role) != nil {
		return true
	}
	units := definition.GetFabricNodeOus()
	switch role.Role {
	case msppb.MSPRole_ADMIN:
		return len(definition.GetAdmins()) > 0 || units.GetEnable() && units.GetAdminOuIdentifier() != nil
	case msppb.MSPRole_CLIENT:
		return units.GetEnable() && units.GetClientOuIdentifier() != nil
	case msppb.MSPRole_PEER:
		return units.GetEnable() && units.GetPeerOuIdentifier() != nil
	case msppb.MSPRole_ORDERER:
		return units.GetEnable() && units.GetOrdererOuIdentifier() != nil
	}
	return true
}

// lowered warns of capabilities below those that the channel has.
func (c *Config) lowered(next *channel.Bundle) (all []string) {
	for _, name := range []string{rootKey, ordererKey, applicationKey} {
		was, is := c.level(c.base, name), c.level(next, name)
		if strings.Compare(is, was) < 0 {
			if is == "" {
				is = "none"
			}
			all = append(all, fmt.Sprintf("the %s capability is lowered from %s to %s: what the channel has used of the higher level stops working or is judged differently", name, was, is))
		}
	}
	return all
}

// level is the highest capability of a group; their names are in order.
func (c *Config) level(b *channel.Bundle, name string) string {
	group := b.Config().ChannelGroup
	if name != rootKey {
		group = group.GetGroups()[name]
	}
	capabilities := &commonpb.Capabilities{}
	if Value(group, capabilitiesKey, capabilities) != nil || len(capabilities.Capabilities) == 0 {
		return ""
	}
	return slices.Max(slices.Collect(maps.Keys(capabilities.Capabilities)))
}
