package reconfigure

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// Need is a policy that those who sign must meet, because it guards something
// that the update changes.
type Need struct {
	Policy string   // its path, /Channel/Application/Admins
	Rule   string   // as people write it, MAJORITY Admins
	For    []string // paths of what it guards
	Met    bool
	// Missing says in words what is still wanted, "an admin of Org2MSP"; empty when met.
	Missing string
	// Members are the MSP ids from which a further signature can help.
	Members []string
}

// furtherPeople is wanted where signers meet more than one part of a rule: each counts once.
const furtherPeople = "signatures of further people"

// needs lists the policies of changes and what is missing to meet them.
func (c *Config) needs(changes []channel.Change, signers []*identity.Identity) []Need {
	byPolicy := map[string]*Need{}
	for _, change := range changes {
		if change.Policy == "" {
			continue
		}
		n := byPolicy[change.Policy]
		if n == nil {
			n = &Need{Policy: change.Policy}
			byPolicy[change.Policy] = n
		}
		n.For = append(n.For, change.Path)
	}
	var all []Need
	for _, path := range slices.Sorted(maps.Keys(byPolicy)) {
		n := byPolicy[path]
		group, name := c.find(path)
		n.Rule = ruleText(group.GetPolicies()[name].GetPolicy())
		if p, ok := c.base.Policy(path); ok {
			n.Met = p.EvaluateIdentities(signers) == nil
		}
		if !n.Met {
			w := c.wanted(group, path, name, signers)
			n.Missing, n.Members = w.text, w.members
			if n.Missing == "" {
				n.Missing = "further signatures"
			}
			slices.Sort(n.Members)
			n.Members = slices.Compact(n.Members)
		}
		all = append(all, *n)
	}
	return all
}

// wants says whether a signature of a member can help.
func (s *Status) wants(mspID string) bool {
	return slices.ContainsFunc(s.Needs, func(n Need) bool { return slices.Contains(n.Members, mspID) })
}

// lacks tells two states of what is missing apart.
func (s *Status) lacks() string {
	var b strings.Builder
	for _, n := range s.Needs {
		b.WriteString(n.Missing + "\n")
	}
	return b.String()
}

// find gives the group of the configuration in force, and the name, that the
// absolute path of a policy means.
func (c *Config) find(path string) (*commonpb.ConfigGroup, string) {
	names := strings.Split(strings.TrimPrefix(path, "/"), "/")
	group := c.base.Config().ChannelGroup
	for _, name := range names[1 : len(names)-1] {
		group = group.GetGroups()[name]
	}
	return group, names[len(names)-1]
}

// ruleText writes a policy as people write it, as far as that is possible.
func ruleText(p *commonpb.Policy) string {
	switch commonpb.Policy_PolicyType(p.GetType()) {
	case commonpb.Policy_IMPLICIT_META:
		m := &commonpb.ImplicitMetaPolicy{}
		if proto.Unmarshal(p.Value, m) == nil {
			return m.Rule.String() + " " + m.SubPolicy
		}
	case commonpb.Policy_SIGNATURE:
		env := &commonpb.SignaturePolicyEnvelope{}
		if proto.Unmarshal(p.Value, env) == nil {
			if text, err := policy.Text(env); err == nil {
				return text
			}
		}
	}
	return ""
}

// wanted is what a rule lacks.
type wanted struct {
	text    string
	members []string
}

// wanted says what the policy at a path lacks, given who has signed.
func (c *Config) wanted(group *commonpb.ConfigGroup, path, name string, signers []*identity.Identity) wanted {
	definition := group.GetPolicies()[name].GetPolicy()
	switch commonpb.Policy_PolicyType(definition.GetType()) {
	case commonpb.Policy_IMPLICIT_META:
		meta := &commonpb.ImplicitMetaPolicy{}
		if proto.Unmarshal(definition.Value, meta) != nil {
			return wanted{}
		}
		dir := path[:strings.LastIndexByte(path, '/')]
		var open []wanted
		met := 0
		for _, sub := range slices.Sorted(maps.Keys(group.GetGroups())) {
			at := dir + "/" + sub + "/" + meta.SubPolicy
			p, ok := c.base.Policy(at)
			switch {
			case !ok: // nobody can meet it
			case p.EvaluateIdentities(signers) == nil:
				met++
			default:
				open = append(open, c.wanted(group.Groups[sub], at, meta.SubPolicy, signers))
			}
		}
		return some(threshold(meta.Rule, len(group.GetGroups()))-met, open)
	case commonpb.Policy_SIGNATURE:
		env := &commonpb.SignaturePolicyEnvelope{}
		if proto.Unmarshal(definition.Value, env) != nil {
			return wanted{}
		}
		return c.wantedRule(env, env.Rule, signers)
	}
	return wanted{}
}

func threshold(rule commonpb.ImplicitMetaPolicy_Rule, groups int) int {
	switch {
	case groups == 0:
		return 0
	case rule == commonpb.ImplicitMetaPolicy_ANY:
		return 1
	case rule == commonpb.ImplicitMetaPolicy_MAJORITY:
		return groups/2 + 1
	}
	return groups
}

// wantedRule is wanted for a signature policy's rule.
func (c *Config) wantedRule(env *commonpb.SignaturePolicyEnvelope, rule *commonpb.SignaturePolicy, signers []*identity.Identity) wanted {
	gate := rule.GetNOutOf()
	if gate == nil {
		at := int(rule.GetSignedBy())
		if at >= len(env.Identities) {
			return wanted{}
		}
		return wantedPrincipal(env.Identities[at])
	}
	var open []wanted
	met := 0
	for _, sub := range gate.Rules {
		// A part is judged as if it stood alone; whether the whole is met the policy itself says.
		p, err := policy.NewSignature(&commonpb.SignaturePolicyEnvelope{Rule: sub, Identities: env.Identities}, c.base.MSPs())
		if err == nil && p.EvaluateIdentities(signers) == nil {
			met++
			continue
		}
		open = append(open, c.wantedRule(env, sub, signers))
	}
	if n := int(gate.N) - met; n > 0 {
		return some(n, open)
	}
	// Each part is met and the whole is not: one signer counts once.
	return wanted{text: furtherPeople, members: c.memberIDs(env)}
}

func (c *Config) memberIDs(env *commonpb.SignaturePolicyEnvelope) (ids []string) {
	for _, p := range env.Identities {
		ids = append(ids, wantedPrincipal(p).members...)
	}
	return ids
}

// some asks for n of several.
func some(n int, of []wanted) wanted {
	of = slices.DeleteFunc(slices.Clone(of), func(w wanted) bool { return w.text == "" })
	if n <= 0 {
		return wanted{}
	}
	var texts, members []string
	for _, w := range of {
		if !slices.Contains(texts, w.text) || n == len(of) {
			texts = append(texts, w.text)
		}
		members = append(members, w.members...)
	}
	switch {
	case n > len(of):
		return wanted{"more signatures than anybody can give", members}
	case len(texts) == 1:
		return wanted{texts[0], members}
	case n == len(of):
		return wanted{join(texts, "and"), members}
	case n == 1:
		return wanted{join(texts, "or"), members}
	}
	return wanted{fmt.Sprintf("%d of (%s)", n, strings.Join(texts, ", ")), members}
}

func join(texts []string, word string) string {
	for i, t := range texts {
		if strings.Contains(t, " and ") || strings.Contains(t, " or ") {
			texts[i] = "(" + t + ")"
		}
	}
	last := len(texts) - 1
	return strings.Join(texts[:last], ", ") + " " + word + " " + texts[last]
}

func wantedPrincipal(p *msppb.MSPPrincipal) wanted {
	switch p.GetPrincipalClassification() {
	case msppb.MSPPrincipal_ROLE:
		role := &msppb.MSPRole{}
		if proto.Unmarshal(p.Principal, role) != nil {
			return wanted{}
		}
		name := strings.ToLower(role.Role.String())
		article := "a"
		if role.Role == msppb.MSPRole_ADMIN || role.Role == msppb.MSPRole_ORDERER {
			article = "an"
		}
		return wanted{fmt.Sprintf("%s %s of %s", article, name, role.MspIdentifier), []string{role.MspIdentifier}}
	case msppb.MSPPrincipal_ORGANIZATION_UNIT:
		unit := &msppb.OrganizationUnit{}
		if proto.Unmarshal(p.Principal, unit) != nil {
			return wanted{}
		}
		return wanted{fmt.Sprintf("somebody of unit %s of %s", unit.OrganizationalUnitIdentifier, unit.MspIdentifier), []string{unit.MspIdentifier}}
	case msppb.MSPPrincipal_IDENTITY:
		id := &msppb.SerializedIdentity{}
		if proto.Unmarshal(p.Principal, id) != nil {
			return wanted{}
		}
		return wanted{"the holder of " + certificateName(id.IdBytes) + " of " + id.Mspid, []string{id.Mspid}}
	}
	return wanted{"somebody whom policy text cannot name", nil}
}
