//lint:file-ignore ST1005 The texts are Fabric's, which operators look for.

package channel

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Names of groups and values in a configuration tree.
const (
	rootKey        = "Channel"
	ordererKey     = "Orderer"
	applicationKey = "Application"
	consortiumsKey = "Consortiums"

	capabilitiesKey   = "Capabilities"
	consortiumKey     = "Consortium"
	hashingKey        = "HashingAlgorithm"
	hashingWidthKey   = "BlockDataHashingStructure"
	addressesKey      = "OrdererAddresses"
	orderersKey       = "Orderers"
	consensusTypeKey  = "ConsensusType"
	batchSizeKey      = "BatchSize"
	batchTimeoutKey   = "BatchTimeout"
	kafkaBrokersKey   = "KafkaBrokers"
	restrictionsKey   = "ChannelRestrictions"
	endpointsKey      = "Endpoints"
	mspKey            = "MSP"
	anchorPeersKey    = "AnchorPeers"
	aclsKey           = "ACLs"
	creationPolicyKey = "ChannelCreationPolicy"
)

// Names of the usual policies.
const (
	readersPolicy         = "Readers"
	writersPolicy         = "Writers"
	adminsPolicy          = "Admins"
	endorsementPolicy     = "Endorsement"
	lifecyclePolicy       = "LifecycleEndorsement"
	blockValidationPolicy = "BlockValidation"
)

const (
	hashSHA256  = "SHA256"
	hashSHA3256 = "SHA3_256"
)

// channelGroup is what the root group's values say.
type channelGroup struct {
	capabilities capabilitySet
	addresses    []string
}

// ordererGroup is what the Orderer group says.
type ordererGroup struct {
	consensus    *ordererpb.ConsensusType
	batchSize    *ordererpb.BatchSize
	batchTimeout time.Duration
	consenters   []*commonpb.Consenter
	capabilities capabilitySet
	orgs         []Org
}

// applicationGroup is what the Application group says.
type applicationGroup struct {
	capabilities capabilitySet
	acls         map[string]string // resource to absolute policy path
	orgs         []Org
}

// decode reads the whole tree. A key or group that is not known is an error, as
// it could mean something that this node would not honour.
func (b *Bundle) decode(root *commonpb.ConfigGroup, msps *mspBuilder) error {
	var (
		hashing      commonpb.HashingAlgorithm
		width        commonpb.BlockDataHashingStructure
		addresses    commonpb.OrdererAddresses
		orderers     commonpb.Orderers
		consortium   commonpb.Consortium
		capabilities commonpb.Capabilities
	)
	err := decodeValues(root, map[string]proto.Message{
		hashingKey: &hashing, hashingWidthKey: &width, addressesKey: &addresses,
		orderersKey: &orderers, consortiumKey: &consortium, capabilitiesKey: &capabilities,
	})
	if err != nil {
		return fmt.Errorf("failed to deserialize values: %w", err)
	}
	b.channel = channelGroup{capabilities: newCapabilities(&capabilities), addresses: addresses.Addresses}
	switch {
	case hashing.Name != hashSHA256 && hashing.Name != hashSHA3256:
		return fmt.Errorf("Unknown hashing algorithm type: %s", hashing.Name)
	case width.Width != hashingWidth:
		return errors.New("BlockDataHashStructure width only supported at MaxUint32 in this version")
	case !b.channel.v142() && len(addresses.Addresses) == 0:
		return errors.New("Must set some OrdererAddresses")
	case b.channel.v3() && len(addresses.Addresses) > 0:
		return errors.New("global OrdererAddresses are not allowed with V3_0 capability, use org specific addresses only")
	}
	msps.options = identity.Options{AllowEd25519: b.channel.v3()}

	for _, name := range slices.Sorted(maps.Keys(root.Groups)) {
		group := root.Groups[name]
		switch name {
		case applicationKey:
			b.application, err = decodeApplication(group, msps)
		case ordererKey:
			b.orderer, err = decodeOrderer(group, b.channel, msps)
		case consortiumsKey:
			err = checkConsortiums(group, msps)
		default:
			return fmt.Errorf("Disallowed channel group: %s", name)
		}
		if err != nil {
			return fmt.Errorf("could not create channel %s sub-group config: %w", name, err)
		}
	}
	return nil
}

func decodeOrderer(group *commonpb.ConfigGroup, channel channelGroup, msps *mspBuilder) (*ordererGroup, error) {
	var (
		batchTimeout ordererpb.BatchTimeout
		restrictions ordererpb.ChannelRestrictions
		orderers     commonpb.Orderers
		capabilities commonpb.Capabilities
		// A Kafka broker list has the shape of an address list. Channels that began on Kafka still carry it.
		brokers commonpb.OrdererAddresses
	)
	g := &ordererGroup{consensus: &ordererpb.ConsensusType{}, batchSize: &ordererpb.BatchSize{}}
	err := decodeValues(group, map[string]proto.Message{
		consensusTypeKey: g.consensus, batchSizeKey: g.batchSize, batchTimeoutKey: &batchTimeout, kafkaBrokersKey: &brokers,
		restrictionsKey: &restrictions, orderersKey: &orderers, capabilitiesKey: &capabilities,
	})
	if err != nil {
		return nil, fmt.Errorf("failed to deserialize values: %w", err)
	}
	g.consenters = orderers.ConsenterMapping
	g.capabilities = newCapabilities(&capabilities)
	if err := checkBatchSize(g.batchSize); err != nil {
		return nil, err
	}
	g.batchTimeout, err = time.ParseDuration(batchTimeout.Timeout)
	if err != nil {
		return nil, fmt.Errorf("Attempted to set the batch timeout to a invalid value: %w", err)
	}
	if g.batchTimeout <= 0 {
		return nil, fmt.Errorf("Attempted to set the batch timeout to a non-positive value: %s", g.batchTimeout)
	}
	var missing []string
	for _, name := range slices.Sorted(maps.Keys(group.GetGroups())) {
		sub := group.Groups[name]
		if len(sub.GetGroups()) > 0 {
			return nil, errors.New("OrdererOrg config does not allow sub-groups")
		}
		if _, ok := sub.GetValues()[endpointsKey]; ok && !channel.v142() {
			return nil, fmt.Errorf("Orderer Org %s cannot contain endpoints value until V1_4_2+ capabilities have been enabled", name)
		}
		var endpoints commonpb.OrdererAddresses
		org, err := decodeOrg(name, sub, msps, endpointsKey, &endpoints)
		if err != nil {
			return nil, err
		}
		org.Endpoints = endpoints.Addresses
		if len(org.Endpoints) == 0 {
			missing = append(missing, name)
		}
		g.orgs = append(g.orgs, org)
	}
	if channel.v3() && len(missing) > 0 {
		return nil, fmt.Errorf("some orderer organizations endpoints are empty: %s", missing)
	}
	return g, nil
}

func checkBatchSize(size *ordererpb.BatchSize) error {
	switch {
	case size.MaxMessageCount == 0:
		return errors.New("Attempted to set the batch size max message count to an invalid value: 0")
	case size.AbsoluteMaxBytes == 0:
		return errors.New("Attempted to set the batch size absolute max bytes to an invalid value: 0")
	case size.PreferredMaxBytes == 0:
		return errors.New("Attempted to set the batch size preferred max bytes to an invalid value: 0")
	case size.PreferredMaxBytes > size.AbsoluteMaxBytes:
		return fmt.Errorf("Attempted to set the batch size preferred max bytes (%v) greater than the absolute max bytes (%v).", size.PreferredMaxBytes, size.AbsoluteMaxBytes)
	}
	return nil
}

func decodeApplication(group *commonpb.ConfigGroup, msps *mspBuilder) (*applicationGroup, error) {
	var (
		acls         peerpb.ACLs
		capabilities commonpb.Capabilities
	)
	err := decodeValues(group, map[string]proto.Message{aclsKey: &acls, capabilitiesKey: &capabilities})
	if err != nil {
		return nil, fmt.Errorf("failed to deserialize values: %w", err)
	}
	g := &applicationGroup{capabilities: newCapabilities(&capabilities), acls: absoluteACLs(acls.Acls)}
	if _, ok := group.GetValues()[aclsKey]; ok && !g.aclsAllowed() {
		return nil, errors.New("ACLs may not be specified without the required capability")
	}
	for _, name := range slices.Sorted(maps.Keys(group.GetGroups())) {
		sub := group.Groups[name]
		if len(sub.GetGroups()) > 0 {
			return nil, errors.New("ApplicationOrg config does not allow sub-groups")
		}
		var anchors peerpb.AnchorPeers
		org, err := decodeOrg(name, sub, msps, anchorPeersKey, &anchors)
		if err != nil {
			return nil, err
		}
		for _, a := range anchors.AnchorPeers {
			org.AnchorPeers = append(org.AnchorPeers, Address{Host: a.GetHost(), Port: int(a.GetPort())})
		}
		g.orgs = append(g.orgs, org)
	}
	return g, nil
}

// checkConsortiums reads the group that system channels had, for form alone.
func checkConsortiums(group *commonpb.ConfigGroup, msps *mspBuilder) error {
	for _, name := range slices.Sorted(maps.Keys(group.GetGroups())) {
		consortium := group.Groups[name]
		if err := decodeValues(consortium, map[string]proto.Message{creationPolicyKey: &commonpb.Policy{}}); err != nil {
			return fmt.Errorf("failed to deserialize values: %w", err)
		}
		for _, orgName := range slices.Sorted(maps.Keys(consortium.GetGroups())) {
			sub := consortium.Groups[orgName]
			if len(sub.GetGroups()) > 0 {
				return errors.New("organizations do not support sub-groups")
			}
			if _, err := decodeOrg(orgName, sub, msps, "", nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// decodeOrg reads the MSP of an organization's group, and the one other value
// that this kind of group may have.
func decodeOrg(name string, group *commonpb.ConfigGroup, msps *mspBuilder, extraKey string, extra proto.Message) (Org, error) {
	conf := &msppb.MSPConfig{}
	known := map[string]proto.Message{mspKey: conf}
	if extra != nil {
		known[extraKey] = extra
	}
	if err := decodeValues(group, known); err != nil {
		return Org{}, fmt.Errorf("failed to deserialize values: %w", err)
	}
	m, err := msps.add(conf)
	if err != nil {
		return Org{}, err
	}
	if m.ID() == "" {
		return Org{}, fmt.Errorf("MSP for org %s has empty MSP ID", name)
	}
	return Org{Name: name, MSPID: m.ID(), TLSRoots: m.TLSRootCerts(), TLSIntermediates: m.TLSIntermediateCerts()}, nil
}

// decodeValues decodes each value of a group into the message known for its key.
func decodeValues(group *commonpb.ConfigGroup, known map[string]proto.Message) error {
	values := group.GetValues()
	for _, key := range slices.Sorted(maps.Keys(values)) {
		target, ok := known[key]
		if !ok {
			return fmt.Errorf("Unexpected key %s", key)
		}
		if err := proto.Unmarshal(values[key].GetValue(), target); err != nil {
			return fmt.Errorf("decode %s: %w", key, err)
		}
	}
	return nil
}

// mspBuilder collects the MSPs of a configuration; the same MSP may stand in
// the Orderer and in the Application group, in one version only.
type mspBuilder struct {
	verifier *identity.Verifier
	options  identity.Options
	byID     map[string]*identity.MSP
	raw      map[string][]byte // definitions, by MSP ID
}

// add makes the MSP of a definition; the verifier gives the same one for the same bytes.
func (m *mspBuilder) add(conf *msppb.MSPConfig) (*identity.MSP, error) {
	msp, err := identity.NewMSP(conf, m.verifier, m.options)
	if err != nil {
		return nil, fmt.Errorf("setting up the MSP manager failed: %w", err)
	}
	if seen, ok := m.byID[msp.ID()]; ok && !bytes.Equal(m.raw[msp.ID()], conf.Config) {
		return nil, fmt.Errorf("Attempted to define two different versions of MSP: %s", msp.ID())
	} else if ok {
		return seen, nil
	}
	m.byID[msp.ID()] = msp
	m.raw[msp.ID()] = conf.Config
	return msp, nil
}

func (m *mspBuilder) manager() (*identity.Manager, error) {
	all := make([]*identity.MSP, 0, len(m.byID))
	for _, id := range slices.Sorted(maps.Keys(m.byID)) {
		all = append(all, m.byID[id])
	}
	return identity.NewManager(all)
}
