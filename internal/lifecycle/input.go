package lifecycle

import (
	"errors"
	"fmt"
	"regexp"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

var (
	nameRule       = regexp.MustCompile(`^[a-zA-Z0-9]+([-_][a-zA-Z0-9]+)*$`)
	versionRule    = regexp.MustCompile(`^[A-Za-z0-9_.+-]+$`)
	collectionRule = regexp.MustCompile(`^[A-Za-z0-9-]+([A-Za-z0-9_-]+)*$`)
)

// checkInput refuses a definition that would not work, by the channel's members of today: they may change before it
// is committed, so this helps operators and protects nothing.
func (c *call) checkInput(in proposed) error {
	name, version := in.GetName(), in.GetVersion()
	if !nameRule.MatchString(name) {
		return fmt.Errorf("invalid chaincode name '%s'. Names can only consist of alphanumerics, '_', and '-' and can only begin with alphanumerics", name)
	}
	switch name {
	case "cscc", "escc", "lscc", "qscc", "vscc":
		return fmt.Errorf("chaincode name '%s' is the name of a system chaincode", name)
	}
	if !versionRule.MatchString(version) {
		return fmt.Errorf("invalid chaincode version '%s'. Versions can only consist of alphanumerics, '_', '-', '+', and '.'", version)
	}
	collections, err := staticCollections(in.GetCollections())
	if err != nil {
		return err
	}
	if c.bundle == nil {
		return fmt.Errorf("could not get channelconfig for channel '%s'", c.ChannelID)
	}
	if err := checkCollections(collections, c.bundle); err != nil {
		return err
	}
	if c.Sim == nil {
		return fmt.Errorf("could not retrieve committed definition for chaincode '%s': no ledger context", name)
	}
	committed, err := readOrLegacy(name, c.Sim.Get)
	if err != nil {
		return fmt.Errorf("could not retrieve committed definition for chaincode '%s': %w", name, err)
	}
	if committed == nil {
		return nil
	}
	return checkAgainst(collections, committed.Collections)
}

func staticCollections(pkg *peerpb.CollectionConfigPackage) ([]*peerpb.StaticCollectionConfig, error) {
	var all []*peerpb.StaticCollectionConfig
	for _, c := range pkg.GetConfig() {
		payload, ok := c.Payload.(*peerpb.CollectionConfig_StaticCollectionConfig)
		if !ok {
			return nil, fmt.Errorf("collection config contains unexpected payload type: %T", c.Payload)
		}
		if payload.StaticCollectionConfig == nil {
			return nil, errors.New("collection configuration is empty")
		}
		all = append(all, payload.StaticCollectionConfig)
	}
	return all, nil
}

func checkCollections(collections []*peerpb.StaticCollectionConfig, b *channel.Bundle) error {
	seen := map[string]bool{}
	for _, c := range collections {
		if !collectionRule.MatchString(c.Name) {
			return fmt.Errorf("invalid collection name '%s'. Names can only consist of alphanumerics, '_', and '-' and cannot begin with '_'", c.Name)
		}
		if seen[c.Name] {
			return fmt.Errorf("collection-name: %s -- found duplicate in collection configuration", c.Name)
		}
		seen[c.Name] = true
		if c.MaximumPeerCount < c.RequiredPeerCount {
			return fmt.Errorf("collection-name: %s -- maximum peer count (%d) cannot be less than the required peer count (%d)", c.Name, c.MaximumPeerCount, c.RequiredPeerCount)
		}
		if c.RequiredPeerCount < 0 {
			return fmt.Errorf("collection-name: %s -- requiredPeerCount (%d) cannot be less than zero", c.Name, c.RequiredPeerCount)
		}
		if err := checkMembers(c, b); err != nil {
			return err
		}
	}
	return nil
}

// checkMembers refuses a member policy that is anything but a list of members of the channel.
func checkMembers(c *peerpb.StaticCollectionConfig, b *channel.Bundle) error {
	if c.MemberOrgsPolicy == nil {
		return fmt.Errorf("collection member policy is not set for collection '%s'", c.Name)
	}
	env := c.MemberOrgsPolicy.GetSignaturePolicy()
	if env == nil {
		return fmt.Errorf("collection member org policy is empty for collection '%s'", c.Name)
	}
	if _, err := policy.NewSignature(env, b.MSPs()); err != nil {
		return fmt.Errorf("invalid member org policy for collection '%s': %w", c.Name, err)
	}
	if err := onlyOr(env.Rule); err != nil {
		return fmt.Errorf("collection-name: %s -- error in member org policy: %w", c.Name, err)
	}
	for _, p := range env.Identities {
		var org string
		switch p.PrincipalClassification {
		case msppb.MSPPrincipal_ROLE:
			role := &msppb.MSPRole{}
			if err := proto.Unmarshal(p.Principal, role); err != nil {
				return fmt.Errorf("collection-name: %s -- cannot unmarshal identity bytes into MSPRole: %w", c.Name, err)
			}
			org = role.MspIdentifier
		case msppb.MSPPrincipal_ORGANIZATION_UNIT:
			unit := &msppb.OrganizationUnit{}
			if err := proto.Unmarshal(p.Principal, unit); err != nil {
				return fmt.Errorf("collection-name: %s -- cannot unmarshal identity bytes into OrganizationUnit: %w", c.Name, err)
			}
			org = unit.MspIdentifier
		case msppb.MSPPrincipal_IDENTITY:
			if _, err := b.MSPs().Deserialize(p.Principal); err != nil {
				return fmt.Errorf("collection-name: %s -- contains an identity that is not part of the channel", c.Name)
			}
			continue
		default:
			return fmt.Errorf("collection-name: %s -- principal type %v is not supported", c.Name, p.PrincipalClassification)
		}
		if _, ok := b.MSPs().MSP(org); !ok {
			return fmt.Errorf("collection-name: %s -- collection member '%s' is not part of the channel", c.Name, org)
		}
	}
	return nil
}

// onlyOr is called on rules that policy.NewSignature has accepted, which bounds their depth.
func onlyOr(rule *commonpb.SignaturePolicy) error {
	of := rule.GetNOutOf()
	if of == nil {
		return nil
	}
	if of.N != 1 {
		return fmt.Errorf("signature policy is not an OR concatenation, NOutOf %d", of.N)
	}
	for _, r := range of.Rules {
		if err := onlyOr(r); err != nil {
			return err
		}
	}
	return nil
}

// checkAgainst refuses to drop a collection, or to change how long it lives: data of it are there.
func checkAgainst(collections []*peerpb.StaticCollectionConfig, committed *peerpb.CollectionConfigPackage) error {
	if len(committed.GetConfig()) == 0 {
		return nil
	}
	if len(collections) == 0 {
		return errors.New("the proposed collection config does not contain previously defined collections")
	}
	proposed := map[string]*peerpb.StaticCollectionConfig{}
	for _, c := range collections {
		proposed[c.Name] = c
	}
	for _, config := range committed.Config {
		old := config.GetStaticCollectionConfig()
		if old == nil {
			return errors.New("unknown collection configuration type")
		}
		c, ok := proposed[old.Name]
		if !ok {
			return fmt.Errorf("existing collection [%s] missing in the proposed collection configuration", old.Name)
		}
		if c.BlockToLive != old.BlockToLive {
			return fmt.Errorf("the BlockToLive in an existing collection [%s] modified. Existing value [%d]", old.Name, old.BlockToLive)
		}
	}
	return nil
}
