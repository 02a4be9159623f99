// Package channel understands channel configurations: what a config block says,
// and which configuration may follow which.
//
// A Bundle is one configuration, decoded and checked once: members and their
// MSPs, policies, batch limits, consenters, anchor peers, access rules and
// capabilities. It never changes; the configuration after it is another Bundle,
// which ValidateConfig makes. ProposeUpdate, ValidateConfig and ComputeUpdate
// are pure functions: no map order, no I/O, and a clock in ProposeUpdate alone,
// which only an orderer asks. They come to the verdicts of Hyperledger Fabric's configtx and
// channelconfig, with its error texts where operators know them.
//
// Guarantees: no input makes it panic or run away, since update trees are
// walked beside the current configuration and no deeper than protobuf itself
// decodes; signatures of an update are verified once, however many elements
// they are to authorise.
//
// Left out: channels made through a system channel (the Consortiums group is
// only checked for form), Idemix MSPs, and checks that need the state of a
// running cluster, such as whether a membership change loses the quorum.
//
// Open first: this file, then update.go (the rules of change), genesis.go (a
// genesis block from a short YAML file).
package channel

import (
	"errors"
	"fmt"
	"math"
	"net"
	"regexp"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// Bundle is one channel configuration, ready for use. It is immutable and safe
// for concurrent use; slices that it returns belong to it.
type Bundle struct {
	id       string
	config   *commonpb.Config
	verifier *identity.Verifier

	msps     *identity.Manager
	policies policySet

	channel     channelGroup
	orderer     *ordererGroup     // nil without the group
	application *applicationGroup // nil without the group
}

// Org is a member organization as one group of the configuration names it.
type Org struct {
	Name  string // name of the group, e.g. "Alpha"
	MSPID string
	// AnchorPeers are the peers through which other members find this one's; only on application members.
	AnchorPeers []Address
	// Endpoints are the ordering service nodes of this member, as host:port; only on orderer members.
	Endpoints []string
	// TLSRoots and TLSIntermediates are PEM certificates of the member's TLS authorities.
	TLSRoots, TLSIntermediates [][]byte
}

// Address is a host and a port.
type Address struct {
	Host string
	Port int
}

// String is host:port.
func (a Address) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(a.Port)) }

// Endpoint is an ordering service node that peers may connect to.
type Endpoint struct {
	MSPID    string // of its owner; empty for a channel-wide address of an old configuration
	Address  string // host:port
	TLSRoots [][]byte
}

// FromBlock makes the Bundle of a config block, genesis or later. It judges the
// configuration itself, not how the block came about: see ValidateConfig.
func FromBlock(b *commonpb.Block, v *identity.Verifier) (*Bundle, error) {
	env, channelID, err := block.ConfigEnvelope(b)
	if err != nil {
		return nil, err
	}
	return NewBundle(channelID, env.Config, v)
}

// NewBundle decodes and checks a configuration, which the Bundle then owns: the
// caller must not change c afterwards. A capability that is required and not
// known makes a *UnsupportedCapability.
func NewBundle(channelID string, c *commonpb.Config, v *identity.Verifier) (*Bundle, error) {
	if v == nil {
		return nil, errors.New("channel: no identity verifier given")
	}
	if err := CheckID(channelID); err != nil {
		return nil, fmt.Errorf("bad channel ID: %w", err)
	}
	if c == nil {
		return nil, errors.New("channelconfig Config cannot be nil")
	}
	root := c.ChannelGroup
	if root == nil {
		return nil, errors.New("config must contain a channel group")
	}
	if err := checkCapabilities(root); err != nil {
		return nil, err
	}
	if err := checkOrdererCapabilitiesFirst(root); err != nil {
		return nil, err
	}
	b := &Bundle{id: channelID, config: c, verifier: v}
	builder := &mspBuilder{verifier: v, byID: map[string]*identity.MSP{}, raw: map[string][]byte{}}
	if err := b.decode(root, builder); err != nil {
		return nil, fmt.Errorf("initializing channelconfig failed: %w", err)
	}
	var err error
	if b.msps, err = builder.manager(); err != nil {
		return nil, fmt.Errorf("initializing channelconfig failed: %w", err)
	}
	if err := checkKeys(root, rootKey, groupElement); err != nil {
		return nil, fmt.Errorf("initializing configtx manager failed: error converting config to map: %w", err)
	}
	if b.policies, err = compilePolicies(root, b.msps); err != nil {
		return nil, fmt.Errorf("initializing policymanager failed: %w", err)
	}
	return b, nil
}

// checkOrdererCapabilitiesFirst keeps the order in which old networks turned
// capabilities on: an orderer that knows none could not refuse what it does not know.
func checkOrdererCapabilitiesFirst(root *commonpb.ConfigGroup) error {
	orderer, ok := root.Groups[ordererKey]
	if !ok {
		return nil
	}
	if _, ok := orderer.GetValues()[capabilitiesKey]; ok {
		return nil
	}
	if _, ok := root.Values[capabilitiesKey]; ok {
		return errors.New("cannot enable channel capabilities without orderer support first")
	}
	if _, ok := root.Groups[applicationKey].GetValues()[capabilitiesKey]; ok {
		return errors.New("cannot enable application capabilities without orderer support first")
	}
	return nil
}

// ID is the channel's name.
func (b *Bundle) ID() string { return b.id }

// Sequence counts the configurations of the channel; genesis is 0.
func (b *Bundle) Sequence() uint64 { return b.config.Sequence }

// Config is the configuration itself. It must not be changed.
func (b *Bundle) Config() *commonpb.Config { return b.config }

// MSPs resolves identities of the channel's members.
func (b *Bundle) MSPs() *identity.Manager { return b.msps }

// Policy returns the policy at an absolute path such as
// "/Channel/Application/Writers". Relative names are not found.
func (b *Bundle) Policy(path string) (policy.Policy, bool) {
	if path == "" || path[0] != '/' {
		return nil, false
	}
	return b.policies.get(path)
}

// PolicyRef returns the policy that a chaincode definition or collection names
// as its channel config policy reference. Unlike Policy it takes a path relative
// to the channel too ("Application/Endorsement"), as such references may be.
func (b *Bundle) PolicyRef(reference string) (policy.Policy, bool) {
	return b.policies.get(reference)
}

// SignatureEnvelope writes the policy at a path, as PolicyRef finds it, as one
// signature policy over principals: an implicit meta policy becomes "n out of"
// its sub-policies. It must not be changed. It is what endorsement planning works on.
func (b *Bundle) SignatureEnvelope(reference string) (*commonpb.SignaturePolicyEnvelope, error) {
	p, ok := b.policies.get(reference)
	if !ok {
		return nil, fmt.Errorf("policy %s not found", reference)
	}
	return policy.Envelope(p)
}

// BatchSize bounds the blocks that orderers cut.
func (b *Bundle) BatchSize() *ordererpb.BatchSize {
	if b.orderer == nil {
		return &ordererpb.BatchSize{}
	}
	return b.orderer.batchSize
}

// BatchTimeout is how long an orderer may wait for a block to fill.
func (b *Bundle) BatchTimeout() time.Duration {
	if b.orderer == nil {
		return 0
	}
	return b.orderer.batchTimeout
}

// ConsensusType names the consensus ("etcdraft", "BFT"), its metadata (an
// etcdraft ConfigMetadata or SmartBFT Options) and whether the channel is in
// maintenance, where only configuration may change.
func (b *Bundle) ConsensusType() (name string, metadata []byte, state ordererpb.ConsensusType_State) {
	if b.orderer == nil {
		return "", nil, ordererpb.ConsensusType_STATE_NORMAL
	}
	c := b.orderer.consensus
	return c.Type, c.Metadata, c.State
}

// RaftMetadata decodes the consensus metadata of an etcdraft channel.
func (b *Bundle) RaftMetadata() (*etcdraftpb.ConfigMetadata, error) {
	name, raw, _ := b.ConsensusType()
	if name != ConsensusRaft {
		return nil, fmt.Errorf("channel %s: consensus is %q, not %s", b.id, name, ConsensusRaft)
	}
	m := &etcdraftpb.ConfigMetadata{}
	if err := proto.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("channel %s: decode etcdraft metadata: %w", b.id, err)
	}
	return m, nil
}

// Consenters are the nodes of a BFT ordering service, from the Orderers value.
func (b *Bundle) Consenters() []*commonpb.Consenter {
	if b.orderer == nil {
		return nil
	}
	return b.orderer.consenters
}

// HasOrderer says whether the configuration has an Orderer group.
func (b *Bundle) HasOrderer() bool { return b.orderer != nil }

// HasApplication says whether the configuration has an Application group.
func (b *Bundle) HasApplication() bool { return b.application != nil }

// OrdererOrgs are the members that run ordering service nodes, by name.
func (b *Bundle) OrdererOrgs() []Org {
	if b.orderer == nil {
		return nil
	}
	return b.orderer.orgs
}

// ApplicationOrgs are the members that run peers, by name.
func (b *Bundle) ApplicationOrgs() []Org {
	if b.application == nil {
		return nil
	}
	return b.application.orgs
}

// RunsPeers says whether a member, by its MSP id, is one of ApplicationOrgs.
func (b *Bundle) RunsPeers(mspID string) bool {
	return slices.ContainsFunc(b.ApplicationOrgs(), func(org Org) bool { return org.MSPID == mspID })
}

// CheckPeer wants a valid peer of a member that runs peers. In a member without
// node OUs all are peers.
func (b *Bundle) CheckPeer(id *identity.Identity) error {
	if !b.RunsPeers(id.MSPID()) {
		return errors.New("its member only orders")
	}
	role := msppb.MSPRole_PEER
	if !id.MSP().NodeOUs() {
		role = msppb.MSPRole_MEMBER
	}
	return id.Satisfies(policy.Role(id.MSPID(), role))
}

// OrdererEndpoints are the ordering service nodes to pull blocks from and submit
// to. Channel-wide addresses, which configurations had before V1_4_2, count only
// where no member names its own; any orderer member's TLS roots are good for them.
func (b *Bundle) OrdererEndpoints() []Endpoint {
	var all []Endpoint
	for _, org := range b.OrdererOrgs() {
		for _, address := range org.Endpoints {
			all = append(all, Endpoint{MSPID: org.MSPID, Address: address, TLSRoots: slices.Concat(org.TLSRoots, org.TLSIntermediates)})
		}
	}
	if len(all) > 0 {
		return all
	}
	var roots [][]byte
	for _, org := range b.OrdererOrgs() {
		roots = append(append(roots, org.TLSRoots...), org.TLSIntermediates...)
	}
	for _, address := range b.channel.addresses {
		all = append(all, Endpoint{Address: address, TLSRoots: roots})
	}
	return all
}

// Consensus types that the orderer configuration may name.
const (
	ConsensusRaft = "etcdraft"
	ConsensusBFT  = "BFT"
)

const maxIDLength = 249

var (
	channelIDPattern = regexp.MustCompile(`^[a-z][a-z0-9.-]*$`)
	configIDPattern  = regexp.MustCompile(`^[a-zA-Z0-9.-]+$`)
)

// CheckID says whether a channel may have this name.
func CheckID(id string) error {
	switch {
	case id == "":
		return errors.New("channel ID illegal, cannot be empty")
	case len(id) > maxIDLength:
		return fmt.Errorf("channel ID illegal, cannot be longer than %d", maxIDLength)
	case !channelIDPattern.MatchString(id):
		return fmt.Errorf("'%s' contains illegal characters", id)
	}
	return nil
}

// checkConfigID says whether an element of a configuration may have this name.
func checkConfigID(id string) error {
	switch {
	case id == "":
		return errors.New("config ID illegal, cannot be empty")
	case len(id) > maxIDLength:
		return fmt.Errorf("config ID illegal, cannot be longer than %d", maxIDLength)
	case id == "." || id == "..":
		return fmt.Errorf("name '%s' for config ID is not allowed", id)
	case !configIDPattern.MatchString(id):
		return fmt.Errorf("config ID '%s' contains illegal characters", id)
	}
	return nil
}

// hashingWidth is the only width of block data hashing there is: one hash over all.
const hashingWidth = math.MaxUint32
