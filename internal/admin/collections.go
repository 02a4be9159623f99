package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// collection is one entry of a collections file, as the stock tools read it.
type collection struct {
	Name              string `json:"name"`
	Policy            string `json:"policy"` // who belongs to it: a signature policy's text
	RequiredPeerCount *int32 `json:"requiredPeerCount"`
	MaxPeerCount      *int32 `json:"maxPeerCount"`
	BlockToLive       uint64 `json:"blockToLive"`
	MemberOnlyRead    bool   `json:"memberOnlyRead"`
	MemberOnlyWrite   bool   `json:"memberOnlyWrite"`
	EndorsementPolicy *struct {
		SignaturePolicy     string `json:"signaturePolicy"`
		ChannelConfigPolicy string `json:"channelConfigPolicy"`
	} `json:"endorsementPolicy"`
}

// defaultMaxPeerCount is that of the stock tools.
const defaultMaxPeerCount = 1

// ParseCollections reads a collections file: a JSON list, in the format of
// Fabric's collections_config.json.
func ParseCollections(raw []byte) (*peerpb.CollectionConfigPackage, error) {
	var list []collection
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&list); err != nil {
		return nil, fmt.Errorf("collections: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("collections: there is something after the list")
	}
	pkg := &peerpb.CollectionConfigPackage{}
	names := map[string]bool{}
	for i, c := range list {
		if c.Name == "" {
			return nil, fmt.Errorf("collections: number %d has no name", i+1)
		}
		if names[c.Name] {
			return nil, fmt.Errorf("collection %s: it is there twice", c.Name)
		}
		names[c.Name] = true
		static, err := c.config()
		if err != nil {
			return nil, fmt.Errorf("collection %s: %w", c.Name, err)
		}
		pkg.Config = append(pkg.Config, &peerpb.CollectionConfig{Payload: &peerpb.CollectionConfig_StaticCollectionConfig{StaticCollectionConfig: static}})
	}
	return pkg, nil
}

func (c *collection) config() (*peerpb.StaticCollectionConfig, error) {
	if c.Policy == "" {
		return nil, errors.New(`policy is missing; it says who belongs to it, such as "OR('Org1MSP.member','Org2MSP.member')"`)
	}
	members, err := policy.Parse(c.Policy)
	if err != nil {
		return nil, fmt.Errorf("policy %q: %w", c.Policy, err)
	}
	static := &peerpb.StaticCollectionConfig{
		Name: c.Name, BlockToLive: c.BlockToLive, MemberOnlyRead: c.MemberOnlyRead, MemberOnlyWrite: c.MemberOnlyWrite,
		MaximumPeerCount: defaultMaxPeerCount,
		MemberOrgsPolicy: &peerpb.CollectionPolicyConfig{Payload: &peerpb.CollectionPolicyConfig_SignaturePolicy{SignaturePolicy: members}},
	}
	if c.RequiredPeerCount != nil {
		static.RequiredPeerCount = *c.RequiredPeerCount
	}
	if c.MaxPeerCount != nil {
		static.MaximumPeerCount = *c.MaxPeerCount
	}
	switch required, maximum := static.RequiredPeerCount, static.MaximumPeerCount; {
	case required < 0 || maximum < 0:
		return nil, fmt.Errorf("requiredPeerCount is %d and maxPeerCount %d; neither may be negative", required, maximum)
	case maximum < required:
		return nil, fmt.Errorf("maxPeerCount is %d; it cannot be less than requiredPeerCount, %d", maximum, required)
	}
	if e := c.EndorsementPolicy; e != nil {
		switch {
		case e.SignaturePolicy != "" && e.ChannelConfigPolicy != "":
			return nil, errors.New("endorsementPolicy: there is both a signaturePolicy and a channelConfigPolicy; one is wanted")
		case e.ChannelConfigPolicy != "":
			static.EndorsementPolicy = &peerpb.ApplicationPolicy{Type: &peerpb.ApplicationPolicy_ChannelConfigPolicyReference{ChannelConfigPolicyReference: e.ChannelConfigPolicy}}
		case e.SignaturePolicy != "":
			signature, err := policy.Parse(e.SignaturePolicy)
			if err != nil {
				return nil, fmt.Errorf("endorsementPolicy.signaturePolicy %q: %w", e.SignaturePolicy, err)
			}
			static.EndorsementPolicy = &peerpb.ApplicationPolicy{Type: &peerpb.ApplicationPolicy_SignaturePolicy{SignaturePolicy: signature}}
		default:
			return nil, errors.New("endorsementPolicy: a signaturePolicy or a channelConfigPolicy is wanted")
		}
	}
	return static, nil
}
