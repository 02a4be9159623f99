package channel

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/smartbftpb"
)

// Genesis makes the first block of the described channel, laid out as Fabric's
// configtxgen does it, for orderers and peers of either make. dir is the folder
// that relative paths count from.
//
// The same description and files give the same bytes: what configtxgen draws at
// random (the nonce) comes from the configuration here, and there is no timestamp.
// So members can make the block each for themselves and compare.
func (s *Spec) Genesis(dir string) (*commonpb.Block, error) {
	g := genesis{Spec: s, dir: dir}
	root, err := g.channelGroup()
	if err != nil {
		return nil, fmt.Errorf("genesis of channel %s: %w", s.Channel, err)
	}
	config := &commonpb.Config{ChannelGroup: root}
	bundle, err := NewBundle(s.Channel, config, identity.NewVerifier(identity.Config{Identities: 1, Signatures: 1}))
	if err != nil {
		return nil, fmt.Errorf("genesis of channel %s: %w", s.Channel, err)
	}
	if err := bundle.checkConsenters(); err != nil {
		return nil, fmt.Errorf("genesis of channel %s: %w", s.Channel, err)
	}
	return genesisBlock(s.Channel, config)
}

// checkConsenters checks the consenters of a first configuration: their TLS
// certificates must come from the TLS authorities of members that run orderers.
func (b *Bundle) checkConsenters() error {
	if b.orderer.consensus.Type == ConsensusBFT {
		return checkBFT(b)
	}
	metadata, err := b.RaftMetadata()
	if err != nil {
		return err
	}
	roots, err := tlsRoots(b.orderer.orgs)
	if err != nil {
		return err
	}
	return checkRaftMetadata(metadata, roots)
}

func genesisBlock(channelID string, config *commonpb.Config) (*commonpb.Block, error) {
	data, err := encode(&commonpb.ConfigEnvelope{Config: config})
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(append([]byte(channelID+"\x00"), data...))
	nonce := digest[:24]
	channelHeader, err := encode(&commonpb.ChannelHeader{
		Type: int32(commonpb.HeaderType_CONFIG), Version: 1, ChannelId: channelID, TxId: envelope.TxID(nonce, nil),
	})
	if err != nil {
		return nil, err
	}
	signatureHeader, err := encode(&commonpb.SignatureHeader{Nonce: nonce})
	if err != nil {
		return nil, err
	}
	payload, err := encode(&commonpb.Payload{
		Header: &commonpb.Header{ChannelHeader: channelHeader, SignatureHeader: signatureHeader}, Data: data,
	})
	if err != nil {
		return nil, err
	}
	env, err := encode(&commonpb.Envelope{Payload: payload})
	if err != nil {
		return nil, err
	}
	b := block.New(0, nil, [][]byte{env})
	last, err := encode(&commonpb.OrdererBlockMetadata{LastConfig: &commonpb.LastConfig{}})
	if err != nil {
		return nil, err
	}
	signatures, err := encode(&commonpb.Metadata{Value: last})
	if err != nil {
		return nil, err
	}
	block.SetSlot(b, block.SlotSignatures, signatures)
	return b, nil
}

func encode(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// genesis builds the configuration tree of a Spec.
type genesis struct {
	*Spec
	dir string
}

func newGroup() *commonpb.ConfigGroup {
	return &commonpb.ConfigGroup{
		Groups:    map[string]*commonpb.ConfigGroup{},
		Values:    map[string]*commonpb.ConfigValue{},
		Policies:  map[string]*commonpb.ConfigPolicy{},
		ModPolicy: adminsPolicy,
	}
}

func setValues(g *commonpb.ConfigGroup, values map[string]proto.Message) error {
	for key, value := range values {
		raw, err := encode(value)
		if err != nil {
			return fmt.Errorf("encode %s: %w", key, err)
		}
		g.Values[key] = &commonpb.ConfigValue{Value: raw, ModPolicy: adminsPolicy}
	}
	return nil
}

// setPolicies adds the default rules, then those of the description, to a group.
func setPolicies(g *commonpb.ConfigGroup, field string, defaults map[string]*commonpb.Policy, own map[string]string) error {
	for name, p := range defaults {
		g.Policies[name] = &commonpb.ConfigPolicy{Policy: p, ModPolicy: adminsPolicy}
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if err := checkConfigID(name); err != nil {
			return fmt.Errorf("%s: %w", field, err)
		}
		p, err := ParsePolicy(own[name])
		if err != nil {
			return fmt.Errorf("%s.%s: %w", field, name, err)
		}
		g.Policies[name] = &commonpb.ConfigPolicy{Policy: p, ModPolicy: adminsPolicy}
	}
	return nil
}

// ParsePolicy reads a policy as people write it: "MAJORITY Admins", "OR('AlphaMSP.peer')".
func ParsePolicy(text string) (*commonpb.Policy, error) {
	switch first, _, _ := strings.Cut(text, " "); first {
	case "ANY", "ALL", "MAJORITY":
		p, err := policy.ParseImplicitMeta(text)
		if err != nil {
			return nil, err
		}
		return metaPolicy(p.Rule, p.SubPolicy)
	}
	env, err := policy.Parse(text)
	if err != nil {
		return nil, err
	}
	return signaturePolicy(env)
}

func metaPolicy(rule commonpb.ImplicitMetaPolicy_Rule, sub string) (*commonpb.Policy, error) {
	raw, err := encode(&commonpb.ImplicitMetaPolicy{Rule: rule, SubPolicy: sub})
	return &commonpb.Policy{Type: int32(commonpb.Policy_IMPLICIT_META), Value: raw}, err
}

func signaturePolicy(env *commonpb.SignaturePolicyEnvelope) (*commonpb.Policy, error) {
	raw, err := encode(env)
	return &commonpb.Policy{Type: int32(commonpb.Policy_SIGNATURE), Value: raw}, err
}

// metaDefaults are the policies of a group above members; extra ones come by name and rule.
func metaDefaults(extra ...[2]string) (map[string]*commonpb.Policy, error) {
	rules := append([][2]string{
		{readersPolicy, "ANY Readers"}, {writersPolicy, "ANY Writers"}, {adminsPolicy, "MAJORITY Admins"},
	}, extra...)
	all := make(map[string]*commonpb.Policy, len(rules))
	for _, r := range rules {
		p, err := ParsePolicy(r[1])
		if err != nil {
			return nil, err
		}
		all[r[0]] = p
	}
	return all, nil
}

// anyRole is the policy of one signature by someone who has one of the roles. It
// is not made from text, which has no way to write every MSP ID.
func anyRole(mspID string, roles ...msppb.MSPRole_MSPRoleType) (*commonpb.Policy, error) {
	gate := &commonpb.SignaturePolicy_NOutOf{N: 1}
	env := &commonpb.SignaturePolicyEnvelope{Rule: &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_NOutOf_{NOutOf: gate}}}
	for i, role := range roles {
		env.Identities = append(env.Identities, policy.Role(mspID, role))
		gate.Rules = append(gate.Rules, &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_SignedBy{SignedBy: int32(i)}})
	}
	return signaturePolicy(env)
}

func roleDefaults(mspID string, roles map[string][]msppb.MSPRole_MSPRoleType) (map[string]*commonpb.Policy, error) {
	all := make(map[string]*commonpb.Policy, len(roles))
	for name, r := range roles {
		p, err := anyRole(mspID, r...)
		if err != nil {
			return nil, err
		}
		all[name] = p
	}
	return all, nil
}

func capabilities(level string) proto.Message {
	return &commonpb.Capabilities{Capabilities: map[string]*commonpb.Capability{level: {}}}
}

func (g genesis) channelGroup() (*commonpb.ConfigGroup, error) {
	root := newGroup()
	err := setValues(root, map[string]proto.Message{
		hashingKey:      &commonpb.HashingAlgorithm{Name: hashSHA256},
		hashingWidthKey: &commonpb.BlockDataHashingStructure{Width: hashingWidth},
		capabilitiesKey: capabilities(g.Capabilities.Channel),
	})
	if err != nil {
		return nil, err
	}
	defaults, err := metaDefaults()
	if err != nil {
		return nil, err
	}
	if err := setPolicies(root, "policies.channel", defaults, g.Policies.Channel); err != nil {
		return nil, err
	}
	if root.Groups[ordererKey], err = g.ordererGroup(); err != nil {
		return nil, err
	}
	root.Groups[applicationKey], err = g.applicationGroup()
	return root, err
}

func (g genesis) ordererGroup() (*commonpb.ConfigGroup, error) {
	group := newGroup()
	consensus := &ordererpb.ConsensusType{Type: g.Consensus}
	defaults, err := metaDefaults([2]string{blockValidationPolicy, "ANY Writers"})
	if err != nil {
		return nil, err
	}
	if g.Consensus == ConsensusBFT {
		consenters, err := g.bftConsenters()
		if err != nil {
			return nil, err
		}
		if err := setValues(group, map[string]proto.Message{orderersKey: &commonpb.Orderers{ConsenterMapping: consenters}}); err != nil {
			return nil, err
		}
		if defaults[blockValidationPolicy], err = BFTBlockPolicy(consenters); err != nil {
			return nil, err
		}
		consensus.Metadata, err = encode(bftOptions())
		if err != nil {
			return nil, err
		}
	} else if consensus.Metadata, err = g.raftMetadata(); err != nil {
		return nil, err
	}
	if err := setPolicies(group, "policies.orderer", defaults, g.Policies.Orderer); err != nil {
		return nil, err
	}
	err = setValues(group, map[string]proto.Message{
		consensusTypeKey: consensus,
		batchSizeKey: &ordererpb.BatchSize{
			MaxMessageCount: g.Batch.MaxMessages, AbsoluteMaxBytes: uint32(g.Batch.AbsoluteMaxBytes), PreferredMaxBytes: uint32(g.Batch.PreferredMaxBytes),
		},
		batchTimeoutKey: &ordererpb.BatchTimeout{Timeout: g.Batch.Timeout.String()},
		restrictionsKey: &ordererpb.ChannelRestrictions{},
		capabilitiesKey: capabilities(g.Capabilities.Orderer),
	})
	if err != nil {
		return nil, err
	}
	for _, name := range g.ordererMembers() {
		if group.Groups[name], err = g.ordererMember(g.member(name)); err != nil {
			return nil, fmt.Errorf("member %s: %w", name, err)
		}
	}
	return group, nil
}

func (g genesis) ordererMember(m MemberSpec) (*commonpb.ConfigGroup, error) {
	msp, err := identity.ConfigFromDir(g.path(m.MSPDir), m.MSPID)
	if err != nil {
		return nil, fmt.Errorf("mspDir: %w", err)
	}
	var endpoints []string
	for _, o := range g.Orderers {
		if o.Member == m.Name {
			endpoints = append(endpoints, o.address())
		}
	}
	return NewOrdererMember(m.MSPID, msp, endpoints, m.OrdererPolicies)
}

// NewOrdererMember makes the group of a member that runs orderers at endpoints,
// host:port. policies adds to or replaces the default ones, as rules in text.
func NewOrdererMember(mspID string, msp *msppb.MSPConfig, endpoints []string, policies map[string]string) (*commonpb.ConfigGroup, error) {
	group := newGroup()
	defaults, err := roleDefaults(mspID, map[string][]msppb.MSPRole_MSPRoleType{
		readersPolicy: {msppb.MSPRole_MEMBER},
		writersPolicy: {msppb.MSPRole_MEMBER},
		adminsPolicy:  {msppb.MSPRole_ADMIN},
	})
	if err != nil {
		return nil, err
	}
	if err := setPolicies(group, "ordererPolicies", defaults, policies); err != nil {
		return nil, err
	}
	return group, setValues(group, map[string]proto.Message{mspKey: msp, endpointsKey: &commonpb.OrdererAddresses{Addresses: endpoints}})
}

func (g genesis) applicationGroup() (*commonpb.ConfigGroup, error) {
	group := newGroup()
	defaults, err := metaDefaults([2]string{endorsementPolicy, "MAJORITY Endorsement"}, [2]string{lifecyclePolicy, "MAJORITY Endorsement"})
	if err != nil {
		return nil, err
	}
	if err := setPolicies(group, "policies.application", defaults, g.Policies.Application); err != nil {
		return nil, err
	}
	values := map[string]proto.Message{capabilitiesKey: capabilities(g.Capabilities.Application)}
	if len(g.ACLs) > 0 {
		acls := &peerpb.ACLs{Acls: map[string]*peerpb.APIResource{}}
		for resource, ref := range g.ACLs {
			acls.Acls[resource] = &peerpb.APIResource{PolicyRef: ref}
		}
		values[aclsKey] = acls
	}
	if err := setValues(group, values); err != nil {
		return nil, err
	}
	for _, m := range g.Members {
		if m.OrderingOnly {
			continue
		}
		if group.Groups[m.Name], err = g.applicationMember(m); err != nil {
			return nil, fmt.Errorf("member %s: %w", m.Name, err)
		}
	}
	return group, nil
}

func (g genesis) applicationMember(m MemberSpec) (*commonpb.ConfigGroup, error) {
	msp, err := identity.ConfigFromDir(g.path(m.MSPDir), m.MSPID)
	if err != nil {
		return nil, fmt.Errorf("mspDir: %w", err)
	}
	return NewApplicationMember(m.MSPID, msp, m.AnchorPeers, m.Policies)
}

// NewApplicationMember makes the group of a member that runs peers. policies adds
// to or replaces the default ones, as rules in text.
func NewApplicationMember(mspID string, msp *msppb.MSPConfig, anchorPeers []string, policies map[string]string) (*commonpb.ConfigGroup, error) {
	group := newGroup()
	defaults, err := roleDefaults(mspID, map[string][]msppb.MSPRole_MSPRoleType{
		readersPolicy:     {msppb.MSPRole_ADMIN, msppb.MSPRole_PEER, msppb.MSPRole_CLIENT},
		writersPolicy:     {msppb.MSPRole_ADMIN, msppb.MSPRole_CLIENT},
		adminsPolicy:      {msppb.MSPRole_ADMIN},
		endorsementPolicy: {msppb.MSPRole_PEER},
	})
	if err != nil {
		return nil, err
	}
	if err := setPolicies(group, "policies", defaults, policies); err != nil {
		return nil, err
	}
	values := map[string]proto.Message{mspKey: msp}
	if len(anchorPeers) > 0 {
		if values[anchorPeersKey], err = AnchorPeers(anchorPeers); err != nil {
			return nil, err
		}
	}
	return group, setValues(group, values)
}

// AnchorPeers makes the value of a member's anchor peers, given as host:port.
func AnchorPeers(addresses []string) (*peerpb.AnchorPeers, error) {
	anchors := &peerpb.AnchorPeers{}
	for _, text := range addresses {
		address, err := parseAddress(text)
		if err != nil {
			return nil, fmt.Errorf("anchorPeers: %w", err)
		}
		anchors.AnchorPeers = append(anchors.AnchorPeers, &peerpb.AnchorPeer{Host: address.Host, Port: int32(address.Port)})
	}
	return anchors, nil
}

func (g genesis) raftMetadata() ([]byte, error) {
	m := &etcdraftpb.ConfigMetadata{Options: &etcdraftpb.Options{
		TickInterval: g.Raft.TickInterval.String(), ElectionTick: g.Raft.ElectionTick, HeartbeatTick: g.Raft.HeartbeatTick,
		MaxInflightBlocks: g.Raft.MaxInflightBlocks, SnapshotIntervalSize: uint32(g.Raft.SnapshotIntervalBytes),
	}}
	for i, o := range g.Orderers {
		server, client, err := g.tlsCertificates(i)
		if err != nil {
			return nil, err
		}
		m.Consenters = append(m.Consenters, &etcdraftpb.Consenter{Host: o.Host, Port: uint32(o.Port), ServerTlsCert: server, ClientTlsCert: client})
	}
	return encode(m)
}

func (g genesis) bftConsenters() ([]*commonpb.Consenter, error) {
	var all []*commonpb.Consenter
	for i, o := range g.Orderers {
		server, client, err := g.tlsCertificates(i)
		if err != nil {
			return nil, err
		}
		signer, err := g.read(fmt.Sprintf("orderers[%d].identity", i), o.Identity)
		if err != nil {
			return nil, err
		}
		all = append(all, &commonpb.Consenter{
			Id: o.ID, Host: o.Host, Port: uint32(o.Port), MspId: g.member(o.Member).MSPID,
			Identity: signer, ServerTlsCert: server, ClientTlsCert: client,
		})
	}
	return all, nil
}

// bftOptions are the defaults of SmartBFT, with which Fabric's orderers begin too.
func bftOptions() *smartbftpb.Options {
	return &smartbftpb.Options{
		RequestBatchMaxCount:      100,
		RequestBatchMaxBytes:      10 << 20,
		RequestBatchMaxInterval:   (50 * time.Millisecond).String(),
		IncomingMessageBufferSize: 200,
		RequestPoolSize:           400,
		RequestForwardTimeout:     (2 * time.Second).String(),
		RequestComplainTimeout:    (20 * time.Second).String(),
		RequestAutoRemoveTimeout:  (3 * time.Minute).String(),
		ViewChangeResendInterval:  (5 * time.Second).String(),
		ViewChangeTimeout:         (20 * time.Second).String(),
		LeaderHeartbeatTimeout:    time.Minute.String(),
		LeaderHeartbeatCount:      10,
		CollectTimeout:            time.Second.String(),
	}
}

func (g genesis) tlsCertificates(i int) (server, client []byte, err error) {
	o := g.Orderers[i]
	if server, err = g.read(fmt.Sprintf("orderers[%d].tlsCert", i), o.TLSCert); err != nil {
		return nil, nil, err
	}
	client, err = g.read(fmt.Sprintf("orderers[%d].clientTlsCert", i), o.ClientTLSCert)
	return server, client, err
}

func (g genesis) read(field, file string) ([]byte, error) {
	raw, err := os.ReadFile(g.path(file))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return raw, nil
}

func (g genesis) path(file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(g.dir, file)
}
