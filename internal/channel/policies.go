package channel

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// policySet holds every policy of a configuration by its path below the root:
// "Admins", "Application/Writers", "Application/Alpha/Endorsement".
type policySet map[string]policy.Policy

// compilePolicies compiles the tree from the leaves up, since an implicit meta
// policy refers to policies one level below. The tree has passed decode, so that
// it is shallow.
func compilePolicies(root *commonpb.ConfigGroup, msps *identity.Manager) (policySet, error) {
	set := policySet{}
	return set, set.compile(root, "", msps)
}

func (s policySet) compile(group *commonpb.ConfigGroup, prefix string, msps *identity.Manager) error {
	names := slices.Sorted(maps.Keys(group.GetGroups()))
	for _, name := range names {
		if err := s.compile(group.Groups[name], prefix+name+"/", msps); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(group.GetPolicies())) {
		definition := group.Policies[name].GetPolicy()
		if definition == nil {
			return fmt.Errorf("policy %s at path %s was nil", name, groupPath(prefix))
		}
		var err error
		switch commonpb.Policy_PolicyType(definition.Type) {
		case commonpb.Policy_SIGNATURE:
			s[prefix+name], err = policy.ParseSignature(definition.Value, msps)
		case commonpb.Policy_IMPLICIT_META:
			s[prefix+name], err = s.meta(definition.Value, prefix, names, msps)
		default:
			return fmt.Errorf("policy %s at path %s has unknown policy type: %v", name, groupPath(prefix), definition.Type)
		}
		if err != nil {
			return fmt.Errorf("policy %s at path %s did not compile: %w", name, groupPath(prefix), err)
		}
	}
	return nil
}

// meta compiles an implicit meta policy of the group at prefix, whose sub-groups are compiled already.
func (s policySet) meta(raw []byte, prefix string, subGroups []string, msps *identity.Manager) (policy.Policy, error) {
	definition := &commonpb.ImplicitMetaPolicy{}
	if err := proto.Unmarshal(raw, definition); err != nil {
		return nil, fmt.Errorf("Error unmarshalling to ImplicitMetaPolicy: %w", err)
	}
	subs := make([]policy.Policy, 0, len(subGroups))
	for _, group := range subGroups {
		path, ok := resolve(prefix+group+"/", definition.SubPolicy)
		sub, exists := s[path]
		if !ok || !exists {
			// Not an error: such a sub-policy merely is never satisfied.
			sub = policy.Reject(definition.SubPolicy)
		}
		subs = append(subs, sub)
	}
	return policy.NewImplicitMeta(definition.Rule, definition.SubPolicy, subs, msps), nil
}

func groupPath(prefix string) string {
	return strings.TrimSuffix(rootKey+"/"+prefix, "/")
}

// resolve finds the path below the root that a reference in the group at prefix
// ("" or "Application/" and so on) means. An absolute reference must lead into
// that group; of its separator after the group's path Fabric only counts the
// byte, so that is what happens here too.
func resolve(prefix, reference string) (string, bool) {
	if reference == "" {
		return "", false
	}
	if reference[0] == '/' {
		path := "/" + groupPath(prefix)
		if !strings.HasPrefix(reference, path) || len(reference) == len(path) {
			return "", false
		}
		reference = reference[len(path)+1:]
	}
	return prefix + reference, true
}

func (s policySet) get(reference string) (policy.Policy, bool) {
	path, ok := resolve("", reference)
	if !ok {
		return nil, false
	}
	p, ok := s[path]
	return p, ok
}
