package node

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// access decides who may use what: a channel's resources by the policies that
// its configuration names for them, the peer's own by its member's roles.
type access struct {
	bundles func(channelID string) (*channel.Bundle, bool)
	local   *identity.Manager // the peer's own MSP alone
	mspID   string
}

// localWords are what Fabric says of callers who may not use what is the peer's own.
type localWords struct{ unknown, noRole string }

var (
	proposalWords = localWords{"Failed deserializing proposal creator", "Failed verifying that proposal's creator satisfies local MSP principal"}
	requestWords  = localWords{"failed deserializing signed data identity", "failed verifying that the signed data identity satisfies local MSP principal"}
)

// Check decides on a signed proposal; its signature is verified.
func (a *access) Check(channelID, resource string, signed *peerpb.SignedProposal) error {
	creator, err := creatorOf(signed)
	if err != nil {
		return err
	}
	return a.check(channelID, resource, policy.SignedData{Data: signed.GetProposalBytes(), Identity: creator, Signature: signed.GetSignature()}, proposalWords)
}

// CheckSigned decides on signed bytes; the signature is verified.
func (a *access) CheckSigned(channelID, resource string, data, creator, signature []byte) error {
	return a.check(channelID, resource, policy.SignedData{Data: data, Identity: creator, Signature: signature}, requestWords)
}

func (a *access) check(channelID, resource string, signed policy.SignedData, words localWords) error {
	if role, ok := channel.LocalACL(resource); ok {
		return a.checkLocal(role, signed, words)
	}
	p, path, err := a.policyFor(channelID, resource)
	if err != nil {
		return err
	}
	if err := p.EvaluateSigned([]policy.SignedData{signed}); err != nil {
		return denied(channelID, path, err)
	}
	return denied(channelID, path, a.unexpired(channelID, signed.Identity))
}

// unexpired refuses who asks for something now with a certificate that has
// expired. Policies do not look at the clock, since blocks are judged by them too.
func (a *access) unexpired(channelID string, creator []byte) error {
	bundle, ok := a.bundles(channelID)
	if !ok {
		return nil // and no policy that it could have satisfied
	}
	id, err := bundle.MSPs().Deserialize(creator)
	if err != nil {
		return err
	}
	if end := id.ExpiresAt(); time.Now().After(end) {
		return fmt.Errorf("the identity expired on %s", end.Format(time.RFC3339))
	}
	return nil
}

// Discover implements discovery.Access: as Fabric does, the channel's writers may
// ask, and about the peer's own surroundings its member's administrators. Besides,
// a peer of the channel's members may ask for the channel's peers: policies of
// writers usually leave peers out, and peers must find each other.
func (a *access) Discover(channelID string, peers bool, data, creator, signature []byte) error {
	set := []policy.SignedData{{Data: data, Identity: creator, Signature: signature}}
	if channelID == "" {
		return a.checkLocal(channel.LocalAdmins, set[0], requestWords)
	}
	bundle, ok := a.bundles(channelID)
	if !ok {
		return fmt.Errorf("failed to get policy manager for channel [%s]", channelID)
	}
	p, ok := bundle.Policy("/Channel/Application/Writers")
	if !ok {
		return errors.New("the channel has no policy /Channel/Application/Writers")
	}
	err := p.EvaluateSigned(set)
	if err == nil || !peers {
		return err
	}
	for _, id := range policy.ValidIdentities(set, bundle.MSPs()) {
		for _, org := range bundle.ApplicationOrgs() {
			if org.MSPID == id.MSPID() && id.Satisfies(policy.Role(org.MSPID, msppb.MSPRole_PEER)) == nil {
				return nil
			}
		}
	}
	return err
}

func (a *access) policyFor(channelID, resource string) (policy.Policy, string, error) {
	bundle, ok := a.bundles(channelID)
	if !ok {
		return nil, "", fmt.Errorf("failed to get policy manager for channel [%s]", channelID)
	}
	path, ok := bundle.ACL(resource)
	if !ok {
		return nil, "", fmt.Errorf("Unmapped policy for %s", resource) //nolint:staticcheck // Fabric's words
	}
	p, ok := bundle.Policy(path)
	if !ok {
		p = policy.Reject(path)
	}
	return p, path, nil
}

func denied(channelID, path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("Failed evaluating policy on signed data during check policy on channel [%s] with policy [%s]: [%w]", channelID, path, err) //nolint:staticcheck // Fabric's words
}

// checkLocal lets callers of the peer's own member in who have a role there.
func (a *access) checkLocal(role channel.LocalRole, signed policy.SignedData, words localWords) error {
	id, err := a.local.Deserialize(signed.Identity)
	if err != nil {
		return fmt.Errorf("%s during channelless check policy with policy [%s]: [%w]", words.unknown, role, err)
	}
	wanted := msppb.MSPRole_MEMBER
	if role == channel.LocalAdmins {
		wanted = msppb.MSPRole_ADMIN
	}
	principal, err := proto.Marshal(&msppb.MSPRole{MspIdentifier: a.mspID, Role: wanted})
	if err != nil {
		return err
	}
	if err := id.Satisfies(&msppb.MSPPrincipal{PrincipalClassification: msppb.MSPPrincipal_ROLE, Principal: principal}); err != nil {
		return fmt.Errorf("%s during channelless check policy with policy [%s]: [%w]", words.noRole, role, err)
	}
	if len(policy.ValidIdentities([]policy.SignedData{signed}, a.local)) == 0 {
		return errors.New("The signature is invalid") //nolint:staticcheck // Fabric's words
	}
	return nil
}

// creatorOf reads who signed a proposal.
func creatorOf(signed *peerpb.SignedProposal) ([]byte, error) {
	var proposal peerpb.Proposal
	var header commonpb.Header
	var signature commonpb.SignatureHeader
	if err := proto.Unmarshal(signed.GetProposalBytes(), &proposal); err != nil {
		return nil, fmt.Errorf("decode proposal: %w", err)
	}
	if err := proto.Unmarshal(proposal.Header, &header); err != nil {
		return nil, fmt.Errorf("decode proposal header: %w", err)
	}
	if err := proto.Unmarshal(header.SignatureHeader, &signature); err != nil {
		return nil, fmt.Errorf("decode signature header: %w", err)
	}
	return signature.Creator, nil
}
