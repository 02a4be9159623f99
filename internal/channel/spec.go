package channel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Spec describes a new channel, as a short YAML file does:
//
//	channel: trade
//	members:
//	  - name: Alpha
//	    mspId: AlphaMSP
//	    mspDir: crypto/alpha/msp
//	    anchorPeers: [peer0.alpha.example:7051]
//	  - name: Carrier
//	    mspId: CarrierMSP
//	    mspDir: crypto/carrier/msp
//	    orderingOnly: true
//	orderers:
//	  - member: Carrier
//	    host: orderer0.carrier.example
//	    port: 7050
//	    tlsCert: crypto/carrier/orderer0/tls/server.crt
//
// All else has defaults, which are those of Fabric's sample configuration.
// Relative paths count from the file's folder. Unknown keys are errors.
type Spec struct {
	// Channel is the channel's name: lower case letters, digits, dots and dashes, a letter first.
	Channel string `yaml:"channel"`
	// Capabilities are the levels that every node of the channel must know.
	Capabilities CapabilitiesSpec `yaml:"capabilities"`
	// Consensus is etcdraft (default; some orderers may crash) or BFT (some may lie; needs channel capability V3_0).
	Consensus string `yaml:"consensus"`
	// Batch bounds the blocks that orderers cut.
	Batch BatchSpec `yaml:"batch"`
	// Raft tunes etcdraft.
	Raft RaftSpec `yaml:"raft"`
	// Members are the organizations of the channel.
	Members []MemberSpec `yaml:"members"`
	// Orderers are the ordering service nodes, each run by a member.
	Orderers []OrdererSpec `yaml:"orderers"`
	// Policies adds to or replaces the default policies of the three groups.
	Policies PoliciesSpec `yaml:"policies"`
	// ACLs sets, for a resource such as qscc/GetBlockByNumber, the policy that callers must satisfy.
	ACLs map[string]string `yaml:"acls"`
}

// CapabilitiesSpec names capability levels.
type CapabilitiesSpec struct {
	// Channel is V2_0 (default) or V3_0, which allows BFT and Ed25519 keys and which nodes before Fabric 3.0 refuse.
	Channel string `yaml:"channel"`
	// Orderer is V2_0 (default).
	Orderer string `yaml:"orderer"`
	// Application is V2_5 (default; private data can be purged) or V2_0.
	Application string `yaml:"application"`
}

// BatchSpec bounds blocks.
type BatchSpec struct {
	// Timeout is how long a block may wait to fill; default 2s. Hansa's orderers do not wait while nothing else is pending.
	Timeout time.Duration `yaml:"timeout"`
	// MaxMessages is the most transactions of a block; default 500.
	MaxMessages uint32 `yaml:"maxMessages"`
	// AbsoluteMaxBytes is the most bytes of a block, hence of a transaction; default 10 MB.
	AbsoluteMaxBytes Size `yaml:"absoluteMaxBytes"`
	// PreferredMaxBytes is where a block is cut if it can be; default 2 MB.
	PreferredMaxBytes Size `yaml:"preferredMaxBytes"`
}

// RaftSpec tunes etcdraft.
type RaftSpec struct {
	// TickInterval is the unit of the two below; default 500ms.
	TickInterval time.Duration `yaml:"tickInterval"`
	// ElectionTick is after how many ticks without a leader a node stands for election; default 10.
	ElectionTick uint32 `yaml:"electionTick"`
	// HeartbeatTick is how many ticks lie between a leader's signs of life; default 1.
	HeartbeatTick uint32 `yaml:"heartbeatTick"`
	// MaxInflightBlocks is how many blocks may be under way to a follower; default 5.
	MaxInflightBlocks uint32 `yaml:"maxInflightBlocks"`
	// SnapshotIntervalBytes is after how many bytes of blocks the log is compacted; default 16 MB.
	SnapshotIntervalBytes Size `yaml:"snapshotIntervalBytes"`
}

// MemberSpec is an organization.
type MemberSpec struct {
	// Name is the organization's name in the configuration.
	Name string `yaml:"name"`
	// MSPID is the identifier in its certificates' serialized form, e.g. AlphaMSP.
	MSPID string `yaml:"mspId"`
	// MSPDir is its MSP folder: cacerts, tlscacerts, config.yaml and so on. Only certificates are read.
	MSPDir string `yaml:"mspDir"`
	// OrderingOnly keeps it out of the application: it runs orderers and no peers.
	OrderingOnly bool `yaml:"orderingOnly"`
	// AnchorPeers are peers, as host:port, through which other members find this one's.
	AnchorPeers []string `yaml:"anchorPeers"`
	// Policies adds to or replaces the member's default policies (Readers, Writers, Admins, Endorsement).
	Policies map[string]string `yaml:"policies"`
	// OrdererPolicies does so for the member as one that runs orderers.
	OrdererPolicies map[string]string `yaml:"ordererPolicies"`
}

// OrdererSpec is an ordering service node.
type OrdererSpec struct {
	// Member is the name of the member that runs it.
	Member string `yaml:"member"`
	// Host and Port are where clients and other orderers reach it.
	Host string `yaml:"host"`
	Port uint16 `yaml:"port"`
	// TLSCert is the file of its TLS server certificate.
	TLSCert string `yaml:"tlsCert"`
	// ClientTLSCert is the file of the certificate it dials other orderers with; default TLSCert.
	ClientTLSCert string `yaml:"clientTlsCert"`
	// Identity is the file of its signing certificate; BFT only.
	Identity string `yaml:"identity"`
	// ID numbers it among the orderers; BFT only, default its place in the list from 1 on.
	ID uint32 `yaml:"id"`
}

// PoliciesSpec holds policies by group and name. A rule is an implicit meta policy
// ("MAJORITY Endorsement") or policy text ("OR('AlphaMSP.peer', 'BetaMSP.peer')").
type PoliciesSpec struct {
	Channel     map[string]string `yaml:"channel"`
	Orderer     map[string]string `yaml:"orderer"`
	Application map[string]string `yaml:"application"`
}

// Size is a number of bytes: plain, or with KB or MB behind it (1024-fold, as in configtx.yaml).
type Size uint32

// UnmarshalYAML reads a size.
func (s *Size) UnmarshalYAML(node *yaml.Node) error {
	text, factor := strings.ToUpper(strings.TrimSpace(node.Value)), uint64(1)
	for suffix, f := range map[string]uint64{"KB": 1 << 10, "MB": 1 << 20} {
		if number, ok := strings.CutSuffix(text, suffix); ok {
			text, factor = strings.TrimSpace(number), f
		}
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if node.Kind != yaml.ScalarNode || err != nil || n*factor > 1<<32-1 {
		return fmt.Errorf("line %d: %q is no size: write a number of bytes below 4096 MB, such as 10 MB", node.Line, node.Value)
	}
	*s = Size(n * factor)
	return nil
}

// MarshalYAML writes a size in the largest unit that it is a whole number of.
func (s Size) MarshalYAML() (any, error) {
	switch {
	case s > 0 && s%(1<<20) == 0:
		return fmt.Sprintf("%d MB", s>>20), nil
	case s > 0 && s%(1<<10) == 0:
		return fmt.Sprintf("%d KB", s>>10), nil
	}
	return uint32(s), nil
}

const (
	maxSpecBytes = 1 << 20
	maxSpecNodes = 1000 // members, and orderers
)

// unknownField is how the YAML decoder tells of a key that is not known.
var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// ParseSpec reads and checks a description, strictly, and fills in the defaults.
func ParseSpec(raw []byte) (*Spec, error) {
	if len(raw) > maxSpecBytes {
		return nil, fmt.Errorf("channel description has %d bytes, at most %d are read", len(raw), maxSpecBytes)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	s := &Spec{}
	if err := decoder.Decode(s); errors.Is(err, io.EOF) {
		return nil, errors.New("channel description is empty")
	} else if err != nil {
		return nil, fmt.Errorf("channel description: %s", unknownField.ReplaceAllString(err.Error(), `unknown key "$1"`))
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("channel description: one YAML document is wanted, more follow")
	}
	s.setDefaults()
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("channel description: %w", err)
	}
	return s, nil
}

func orElse[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}

func (s *Spec) setDefaults() {
	orElse(&s.Consensus, ConsensusRaft)
	orElse(&s.Capabilities.Channel, "V2_0")
	orElse(&s.Capabilities.Orderer, "V2_0")
	orElse(&s.Capabilities.Application, "V2_5")
	orElse(&s.Batch.Timeout, 2*time.Second)
	orElse(&s.Batch.MaxMessages, 500)
	orElse(&s.Batch.AbsoluteMaxBytes, 10<<20)
	orElse(&s.Batch.PreferredMaxBytes, min(2<<20, s.Batch.AbsoluteMaxBytes))
	orElse(&s.Raft.TickInterval, 500*time.Millisecond)
	orElse(&s.Raft.ElectionTick, 10)
	orElse(&s.Raft.HeartbeatTick, 1)
	orElse(&s.Raft.MaxInflightBlocks, 5)
	orElse(&s.Raft.SnapshotIntervalBytes, 16<<20)
	for i := range s.Orderers {
		o := &s.Orderers[i]
		orElse(&o.ClientTLSCert, o.TLSCert)
		orElse(&o.ID, uint32(i+1))
	}
}

func (s *Spec) check() error {
	if err := CheckID(s.Channel); err != nil {
		return fmt.Errorf("channel: %w", err)
	}
	oneOf := func(field, value string, of ...string) error {
		if !slices.Contains(of, value) {
			return fmt.Errorf("%s: %q is not known, want one of %s", field, value, strings.Join(of, ", "))
		}
		return nil
	}
	err := errors.Join(
		oneOf("consensus", s.Consensus, ConsensusRaft, ConsensusBFT),
		oneOf("capabilities.channel", s.Capabilities.Channel, "V2_0", "V3_0"),
		oneOf("capabilities.orderer", s.Capabilities.Orderer, "V2_0"),
		oneOf("capabilities.application", s.Capabilities.Application, "V2_0", "V2_5"),
	)
	switch {
	case err != nil:
		return err
	case s.Consensus == ConsensusBFT && s.Capabilities.Channel != "V3_0":
		return errors.New("consensus: BFT needs capabilities.channel V3_0")
	case s.Batch.Timeout < 0:
		return fmt.Errorf("batch.timeout: %s is not positive", s.Batch.Timeout)
	case s.Batch.PreferredMaxBytes > s.Batch.AbsoluteMaxBytes:
		return fmt.Errorf("batch.preferredMaxBytes: %d is more than absoluteMaxBytes, %d", s.Batch.PreferredMaxBytes, s.Batch.AbsoluteMaxBytes)
	case s.Raft.TickInterval < 0:
		return fmt.Errorf("raft.tickInterval: %s is not positive", s.Raft.TickInterval)
	case s.Raft.ElectionTick <= s.Raft.HeartbeatTick:
		return fmt.Errorf("raft.electionTick: %d must be more than heartbeatTick, %d", s.Raft.ElectionTick, s.Raft.HeartbeatTick)
	case len(s.Members) == 0:
		return errors.New("members: a channel needs at least one")
	case len(s.Orderers) == 0:
		return errors.New("orderers: a channel needs at least one")
	case len(s.Members) > maxSpecNodes || len(s.Orderers) > maxSpecNodes:
		return fmt.Errorf("more than %d members or orderers", maxSpecNodes)
	}
	if err := s.checkOrderers(); err != nil {
		return err
	}
	return s.checkMembers()
}

func (s *Spec) checkMembers() error {
	names, ids := map[string]bool{}, map[string]bool{}
	runs := map[string]bool{}
	for _, o := range s.Orderers {
		runs[o.Member] = true
	}
	peers := false
	for i, m := range s.Members {
		field := fmt.Sprintf("members[%d]", i)
		if err := checkConfigID(m.Name); err != nil {
			return fmt.Errorf("%s.name: %w", field, err)
		}
		switch {
		case names[m.Name]:
			return fmt.Errorf("%s.name: %s is there twice", field, m.Name)
		case m.MSPID == "":
			return fmt.Errorf("%s.mspId: is missing", field)
		case ids[m.MSPID]:
			return fmt.Errorf("%s.mspId: %s is there twice", field, m.MSPID)
		case m.MSPDir == "":
			return fmt.Errorf("%s.mspDir: is missing", field)
		case m.OrderingOnly && !runs[m.Name]:
			return fmt.Errorf("%s.orderingOnly: %s runs no orderer", field, m.Name)
		case m.OrderingOnly && (len(m.AnchorPeers) > 0 || len(m.Policies) > 0):
			return fmt.Errorf("%s.orderingOnly: %s has no part in the application, so anchorPeers and policies mean nothing", field, m.Name)
		case !runs[m.Name] && len(m.OrdererPolicies) > 0:
			return fmt.Errorf("%s.ordererPolicies: %s runs no orderer", field, m.Name)
		}
		for _, address := range m.AnchorPeers {
			if _, err := parseAddress(address); err != nil {
				return fmt.Errorf("%s.anchorPeers: %w", field, err)
			}
		}
		names[m.Name], ids[m.MSPID] = true, true
		peers = peers || !m.OrderingOnly
	}
	if !peers {
		return errors.New("members: all are orderingOnly, so nobody could run a peer")
	}
	return nil
}

func (s *Spec) checkOrderers() error {
	known := map[string]bool{}
	for _, m := range s.Members {
		known[m.Name] = true
	}
	ids, addresses := map[uint32]bool{}, map[string]bool{}
	for i, o := range s.Orderers {
		field := fmt.Sprintf("orderers[%d]", i)
		switch {
		case !known[o.Member]:
			return fmt.Errorf("%s.member: %q is no name of a member", field, o.Member)
		case o.Host == "":
			return fmt.Errorf("%s.host: is missing", field)
		case o.Port == 0:
			return fmt.Errorf("%s.port: is missing", field)
		case addresses[o.address()]:
			return fmt.Errorf("%s: %s is there twice", field, o.address())
		case o.TLSCert == "":
			return fmt.Errorf("%s.tlsCert: is missing", field)
		case s.Consensus == ConsensusBFT && o.Identity == "":
			return fmt.Errorf("%s.identity: is missing, BFT names each orderer's signing certificate", field)
		case s.Consensus == ConsensusBFT && ids[o.ID]:
			return fmt.Errorf("%s.id: %d is there twice", field, o.ID)
		}
		ids[o.ID], addresses[o.address()] = true, true
	}
	return nil
}

func (o OrdererSpec) address() string { return net.JoinHostPort(o.Host, strconv.Itoa(int(o.Port))) }

func parseAddress(text string) (Address, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return Address{}, fmt.Errorf("%q is not host:port", text)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return Address{}, fmt.Errorf("%q is not host:port", text)
	}
	return Address{Host: host, Port: int(n)}, nil
}

// member finds a member by name; check has made sure that it is there.
func (s *Spec) member(name string) MemberSpec {
	i := slices.IndexFunc(s.Members, func(m MemberSpec) bool { return m.Name == name })
	return s.Members[i]
}

// ordererMembers are the names of the members that run orderers, sorted.
func (s *Spec) ordererMembers() []string {
	names := map[string]bool{}
	for _, o := range s.Orderers {
		names[o.Member] = true
	}
	return slices.Sorted(maps.Keys(names))
}
