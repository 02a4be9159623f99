package contract

import (
	"fmt"
	"slices"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"google.golang.org/protobuf/proto"
)

// The entry of a key's metadata that holds its endorsement policy.
var validationParameter = peerpb.MetaDataKeys_VALIDATION_PARAMETER.String()

// SetEndorsers has changes of a key need an endorsement of a peer of each of these members, in place of what the contract's
// policy asks for. Without members the key goes back to that.
func (c *Context) SetEndorsers(key string, mspIDs ...string) error {
	return c.state("").SetEndorsers(key, mspIDs...)
}

// Endorsers gives the members whose peers must endorse changes of a key; none if the contract's policy decides.
func (c *Context) Endorsers(key string) ([]string, error) { return c.state("").Endorsers(key) }

// SetEndorsers is Context.SetEndorsers for private data.
func (p *Collection) SetEndorsers(key string, mspIDs ...string) error {
	if err := p.mayWrite(key); err != nil {
		return err
	}
	policy, err := allPeersOf(mspIDs)
	if err != nil {
		return err
	}
	return p.ctx.call.Ledger.PutMetadata(p.name, key, validationParameter, policy)
}

// Endorsers is Context.Endorsers for private data.
func (p *Collection) Endorsers(key string) ([]string, error) {
	if err := p.check(key); err != nil {
		return nil, err
	}
	metadata, err := p.ctx.call.Ledger.Metadata(p.name, key)
	if err != nil {
		return nil, err
	}
	var policy commonpb.SignaturePolicyEnvelope
	if err := proto.Unmarshal(metadata[validationParameter], &policy); err != nil {
		return nil, fmt.Errorf("endorsement policy of %q: %w", key, err)
	}
	var members []string
	for _, principal := range policy.Identities {
		var role msppb.MSPRole
		if principal.PrincipalClassification != msppb.MSPPrincipal_ROLE {
			continue // written by something else than SetEndorsers
		}
		if err := proto.Unmarshal(principal.Principal, &role); err != nil {
			return nil, fmt.Errorf("endorsement policy of %q: %w", key, err)
		}
		members = append(members, role.MspIdentifier)
	}
	return members, nil
}

// allPeersOf is a policy that asks for a peer of each member. Members are sorted, so that all endorsers write the same bytes.
func allPeersOf(mspIDs []string) ([]byte, error) {
	if len(mspIDs) == 0 {
		return nil, nil
	}
	mspIDs = slices.Clone(mspIDs)
	slices.Sort(mspIDs)
	mspIDs = slices.Compact(mspIDs)
	policy := &commonpb.SignaturePolicyEnvelope{}
	all := &commonpb.SignaturePolicy_NOutOf{N: int32(len(mspIDs))}
	for i, id := range mspIDs {
		if id == "" {
			return nil, fmt.Errorf("the id of a member that must endorse is empty")
		}
		role, err := proto.Marshal(&msppb.MSPRole{MspIdentifier: id, Role: msppb.MSPRole_PEER})
		if err != nil {
			return nil, err
		}
		policy.Identities = append(policy.Identities, &msppb.MSPPrincipal{PrincipalClassification: msppb.MSPPrincipal_ROLE, Principal: role})
		all.Rules = append(all.Rules, &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_SignedBy{SignedBy: int32(i)}})
	}
	policy.Rule = &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_NOutOf_{NOutOf: all}}
	return proto.MarshalOptions{Deterministic: true}.Marshal(policy)
}
