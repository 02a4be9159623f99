package reconfigure

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Document is a channel's configuration as people edit it, in the words of
// channel.Spec. In an edited one, what is left out (nil, zero) stays as it is.
type Document struct {
	// Channel is the channel's name.
	Channel string `yaml:"channel"`
	// Configuration is the sequence of the configuration that was edited. Lists and maps are complete, so that who
	// edits one must say of which configuration it is.
	Configuration *uint64 `yaml:"configuration,omitempty"`
	// Capabilities are the levels that every node of the channel must know.
	Capabilities Capabilities `yaml:"capabilities,omitempty"`
	// Consensus is etcdraft or BFT. It cannot be edited.
	Consensus string `yaml:"consensus,omitempty"`
	// Maintenance says that orderers take nothing but configuration.
	Maintenance *bool `yaml:"maintenance,omitempty"`
	// Batch bounds the blocks that orderers cut.
	Batch channel.BatchSpec `yaml:"batch,omitempty"`
	// Raft tunes etcdraft.
	Raft channel.RaftSpec `yaml:"raft,omitempty"`
	// ACLs gives, for a resource such as qscc/GetBlockByNumber, the policy that callers must satisfy.
	ACLs Rules `yaml:"acls,omitempty"`
	// Policies are those of the three groups.
	Policies Policies `yaml:"policies,omitempty"`
	// Orderers are the consenters, in their order.
	Orderers Orderers `yaml:"orderers,omitempty"`
	// OrdererAddresses are the channel-wide addresses that old channels have beside their members' endpoints.
	OrdererAddresses List `yaml:"ordererAddresses,omitempty"`
	// Members are the organizations of the channel.
	Members Members `yaml:"members,omitempty"`
}

// These are shown when they are empty, and left out when they are nil.
type (
	// List is a list of texts.
	List []string
	// Rules are texts by name: policies, or paths of policies by resource.
	Rules map[string]string
	// Orderers is a list of orderers.
	Orderers []Orderer
	// Members is a list of members.
	Members []Member
)

func (l List) IsZero() bool     { return l == nil }
func (r Rules) IsZero() bool    { return r == nil }
func (o Orderers) IsZero() bool { return o == nil }
func (m Members) IsZero() bool  { return m == nil }

// Capabilities names the capability levels of the three groups.
type Capabilities struct {
	Channel     Levels `yaml:"channel,omitempty"`
	Orderer     Levels `yaml:"orderer,omitempty"`
	Application Levels `yaml:"application,omitempty"`
}

// Levels is the one capability level of a group as a rule; old channels may have several.
type Levels []string

// IsZero says that they are left out.
func (l Levels) IsZero() bool { return len(l) == 0 }

// MarshalYAML writes one level as a text.
func (l Levels) MarshalYAML() (any, error) {
	if len(l) == 1 {
		return l[0], nil
	}
	return []string(l), nil
}

// UnmarshalYAML reads a text or a list.
func (l *Levels) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*l = Levels{node.Value}
		return nil
	}
	var list []string
	if err := node.Decode(&list); err != nil {
		return err
	}
	slices.Sort(list)
	*l = list
	return nil
}

// Policies holds policies by group and name.
type Policies struct {
	Channel     Rules `yaml:"channel,omitempty"`
	Orderer     Rules `yaml:"orderer,omitempty"`
	Application Rules `yaml:"application,omitempty"`
}

// Orderer is a consenter. Certificates are PEM texts; what is read may name files instead.
type Orderer struct {
	// Member is the name of the member that runs it; BFT only, etcdraft does not say.
	Member string `yaml:"member,omitempty"`
	// ID numbers it among the orderers; BFT only.
	ID   uint32 `yaml:"id,omitempty"`
	Host string `yaml:"host"`
	Port uint32 `yaml:"port"`
	// TLSCert is its TLS server certificate.
	TLSCert string `yaml:"tlsCert"`
	// ClientTLSCert is the certificate it dials other orderers with; left out when it is TLSCert.
	ClientTLSCert string `yaml:"clientTlsCert,omitempty"`
	// Identity is its signing certificate; BFT only.
	Identity string `yaml:"identity,omitempty"`
}

// Member is an organization.
type Member struct {
	// Name is its name in the configuration.
	Name string `yaml:"name"`
	// MSPID is the identifier in its certificates' serialized form.
	MSPID string `yaml:"mspId"`
	// OrderingOnly keeps it out of the application: it runs orderers and no peers.
	OrderingOnly bool `yaml:"orderingOnly,omitempty"`
	// AnchorPeers are peers, as host:port, through which other members find this one's.
	AnchorPeers List `yaml:"anchorPeers,omitempty"`
	// Endpoints are the addresses of its orderers, as host:port. Who has this key belongs to the ordering service.
	Endpoints List `yaml:"endpoints,omitempty"`
	// Policies are its policies as a member that runs peers. For a new one: in addition to the usual ones.
	Policies Rules `yaml:"policies,omitempty"`
	// OrdererPolicies are those as a member that runs orderers.
	OrdererPolicies Rules `yaml:"ordererPolicies,omitempty"`
	// MSPDir is an MSP folder to take the MSP from, instead of MSP. It is never shown.
	MSPDir string `yaml:"mspDir,omitempty"`
	// MSP says which certificates are its own.
	MSP *MSP `yaml:"msp,omitempty"`
}

// orders says whether the member belongs to the ordering service.
func (m Member) orders() bool { return m.OrderingOnly || m.Endpoints != nil }

// MSP is what makes a certificate a member's. Certificates and revocation lists
// are PEM texts; what is read may name files instead.
type MSP struct {
	Roots            []string `yaml:"roots"`
	Intermediates    []string `yaml:"intermediates,omitempty"`
	Admins           []string `yaml:"admins,omitempty"`
	TLSRoots         []string `yaml:"tlsRoots,omitempty"`
	TLSIntermediates []string `yaml:"tlsIntermediates,omitempty"`
	RevocationLists  []string `yaml:"revocationLists,omitempty"`
	// NodeOUs tells clients, peers, administrators and orderers apart by organizational unit.
	NodeOUs *NodeOUs `yaml:"nodeOUs,omitempty"`
	// Units are the only organizational units whose certificates count, if there are any.
	Units []Unit `yaml:"organizationalUnits,omitempty"`
}

// NodeOUs names an organizational unit for each role.
type NodeOUs struct {
	Enable  bool  `yaml:"enable"`
	Client  *Unit `yaml:"client,omitempty"`
	Peer    *Unit `yaml:"peer,omitempty"`
	Admin   *Unit `yaml:"admin,omitempty"`
	Orderer *Unit `yaml:"orderer,omitempty"`
}

// Unit is an organizational unit, of certificates below one authority if it is named.
type Unit struct {
	Name        string `yaml:"name"`
	Certificate string `yaml:"certificate,omitempty"`
}

// Document shows the configuration as it is edited so far.
func (c *Config) Document() (*Document, error) {
	d, err := document(c.ID(), c.next.GetChannelGroup())
	if err != nil {
		return nil, fmt.Errorf("channel %s: %w", c.ID(), err)
	}
	sequence := c.Sequence()
	d.Configuration = &sequence
	return d, nil
}

// document reads a configuration tree.
func document(id string, root *commonpb.ConfigGroup) (*Document, error) {
	d := &Document{Channel: id, ACLs: Rules{}, Members: Members{}, Orderers: Orderers{}}
	orderer, application := root.GetGroups()[ordererKey], root.GetGroups()[applicationKey]
	for _, g := range []struct {
		group  *commonpb.ConfigGroup
		levels *Levels
		rules  *Rules
	}{
		{root, &d.Capabilities.Channel, &d.Policies.Channel},
		{orderer, &d.Capabilities.Orderer, &d.Policies.Orderer},
		{application, &d.Capabilities.Application, &d.Policies.Application},
	} {
		if g.group == nil {
			continue
		}
		capabilities := &commonpb.Capabilities{}
		if err := Value(g.group, capabilitiesKey, capabilities); err != nil {
			return nil, err
		}
		*g.levels = slices.Sorted(maps.Keys(capabilities.Capabilities))
		*g.rules = rules(g.group)
	}
	addresses, acls := &commonpb.OrdererAddresses{}, &peerpb.ACLs{}
	if err := errors.Join(Value(root, addressesKey, addresses), Value(application, aclsKey, acls)); err != nil {
		return nil, err
	}
	if _, ok := root.GetValues()[addressesKey]; ok {
		d.OrdererAddresses = append(List{}, addresses.Addresses...)
	}
	for resource, acl := range acls.Acls {
		d.ACLs[resource] = acl.GetPolicyRef()
	}
	if orderer != nil {
		if err := d.ordering(orderer); err != nil {
			return nil, err
		}
	}
	return d, d.members(application, orderer)
}

// ordering reads the Orderer group's values.
func (d *Document) ordering(group *commonpb.ConfigGroup) error {
	size, timeout := &ordererpb.BatchSize{}, &ordererpb.BatchTimeout{}
	consensus, orderers := &ordererpb.ConsensusType{}, &commonpb.Orderers{}
	err := errors.Join(Value(group, batchSizeKey, size), Value(group, batchTimeoutKey, timeout), Value(group, consensusKey, consensus), Value(group, orderersKey, orderers))
	if err != nil {
		return err
	}
	d.Batch = channel.BatchSpec{MaxMessages: size.MaxMessageCount,
		AbsoluteMaxBytes: channel.Size(size.AbsoluteMaxBytes), PreferredMaxBytes: channel.Size(size.PreferredMaxBytes)}
	if d.Batch.Timeout, err = time.ParseDuration(timeout.Timeout); err != nil {
		return fmt.Errorf("batch timeout: %w", err)
	}
	d.Consensus = consensus.Type
	maintenance := consensus.State == ordererpb.ConsensusType_STATE_MAINTENANCE
	d.Maintenance = &maintenance
	if consensus.Type != channel.ConsensusRaft {
		names := map[string]string{}
		for name, org := range group.Groups {
			_, definition, err := mspOf(org)
			if err != nil {
				return fmt.Errorf("member %s: %w", name, err)
			}
			names[definition.Name] = name
		}
		for _, o := range orderers.ConsenterMapping {
			d.Orderers = append(d.Orderers, newOrderer(names[o.MspId], o.Id, o.Host, o.Port, o.ServerTlsCert, o.ClientTlsCert, o.Identity))
		}
		return nil
	}
	metadata := &etcdraftpb.ConfigMetadata{}
	if err := proto.Unmarshal(consensus.Metadata, metadata); err != nil {
		return fmt.Errorf("decode etcdraft metadata: %w", err)
	}
	o := metadata.GetOptions()
	d.Raft = channel.RaftSpec{ElectionTick: o.GetElectionTick(), HeartbeatTick: o.GetHeartbeatTick(),
		MaxInflightBlocks: o.GetMaxInflightBlocks(), SnapshotIntervalBytes: channel.Size(o.GetSnapshotIntervalSize())}
	if d.Raft.TickInterval, err = time.ParseDuration(o.GetTickInterval()); err != nil {
		return fmt.Errorf("etcdraft tick interval: %w", err)
	}
	for _, o := range metadata.Consenters {
		d.Orderers = append(d.Orderers, newOrderer("", 0, o.Host, o.Port, o.ServerTlsCert, o.ClientTlsCert, nil))
	}
	return nil
}

func newOrderer(member string, id uint32, host string, port uint32, server, client, identity []byte) Orderer {
	o := Orderer{Member: member, ID: id, Host: host, Port: port, TLSCert: string(server), Identity: string(identity)}
	if !bytes.Equal(server, client) {
		o.ClientTLSCert = string(client)
	}
	return o
}

// members reads the members of both groups. One that runs peers and orderers
// is shown once, unless its two definitions differ.
func (d *Document) members(application, orderer *commonpb.ConfigGroup) error {
	shown := map[string]int{}
	for _, name := range slices.Sorted(maps.Keys(application.GetGroups())) {
		group := application.Groups[name]
		m, err := newMember(name, group)
		if err != nil {
			return err
		}
		anchors := &peerpb.AnchorPeers{}
		if err := Value(group, anchorPeersKey, anchors); err != nil {
			return fmt.Errorf("member %s: %w", name, err)
		}
		m.AnchorPeers = List{}
		for _, a := range anchors.AnchorPeers {
			m.AnchorPeers = append(m.AnchorPeers, net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))))
		}
		m.Policies = rules(group)
		shown[name] = len(d.Members)
		d.Members = append(d.Members, m)
	}
	for _, name := range slices.Sorted(maps.Keys(orderer.GetGroups())) {
		group := orderer.Groups[name]
		m, err := newMember(name, group)
		if err != nil {
			return err
		}
		endpoints := &commonpb.OrdererAddresses{}
		if err := Value(group, endpointsKey, endpoints); err != nil {
			return fmt.Errorf("member %s: %w", name, err)
		}
		if i, ok := shown[name]; ok && bytes.Equal(application.Groups[name].Values[mspKey].GetValue(), group.Values[mspKey].GetValue()) {
			d.Members[i].Endpoints, d.Members[i].OrdererPolicies = append(List{}, endpoints.Addresses...), rules(group)
			continue
		}
		m.OrderingOnly, m.Endpoints, m.OrdererPolicies = true, append(List{}, endpoints.Addresses...), rules(group)
		d.Members = append(d.Members, m)
	}
	return nil
}

func newMember(name string, group *commonpb.ConfigGroup) (Member, error) {
	_, definition, err := mspOf(group)
	if err != nil {
		return Member{}, fmt.Errorf("member %s: %w", name, err)
	}
	return Member{Name: name, MSPID: definition.Name, MSP: newMSP(definition)}, nil
}

// mspOf decodes a member's MSP.
func mspOf(group *commonpb.ConfigGroup) (*msppb.MSPConfig, *msppb.FabricMSPConfig, error) {
	conf, definition := &msppb.MSPConfig{}, &msppb.FabricMSPConfig{}
	if err := Value(group, mspKey, conf); err != nil {
		return nil, nil, err
	}
	if err := proto.Unmarshal(conf.Config, definition); err != nil {
		return nil, nil, fmt.Errorf("decode MSP: %w", err)
	}
	return conf, definition, nil
}

func newMSP(m *msppb.FabricMSPConfig) *MSP {
	unit := func(u *msppb.FabricOUIdentifier) *Unit {
		if u == nil {
			return nil
		}
		return &Unit{u.OrganizationalUnitIdentifier, string(u.Certificate)}
	}
	out := &MSP{
		Roots: texts(m.RootCerts), Intermediates: texts(m.IntermediateCerts), Admins: texts(m.Admins),
		TLSRoots: texts(m.TlsRootCerts), TLSIntermediates: texts(m.TlsIntermediateCerts), RevocationLists: texts(m.RevocationList),
	}
	if n := m.FabricNodeOus; n != nil {
		out.NodeOUs = &NodeOUs{n.Enable, unit(n.ClientOuIdentifier), unit(n.PeerOuIdentifier), unit(n.AdminOuIdentifier), unit(n.OrdererOuIdentifier)}
	}
	for _, u := range m.OrganizationalUnitIdentifiers {
		out.Units = append(out.Units, *unit(u))
	}
	return out
}

func texts(raw [][]byte) (out []string) {
	for _, r := range raw {
		out = append(out, string(r))
	}
	return out
}

// rules writes the policies of a group. One that text cannot express is told by a
// mark: left as it is it stays.
func rules(group *commonpb.ConfigGroup) Rules {
	all := Rules{}
	for name, p := range group.GetPolicies() {
		text := ruleText(p.GetPolicy())
		if text == "" {
			sum := sha256.Sum256(p.GetPolicy().GetValue())
			text = fmt.Sprintf("(policy %s, which text cannot express)", hex.EncodeToString(sum[:4]))
		}
		all[name] = text
	}
	return all
}

// YAML writes the document for an editor.
func (d *Document) YAML() ([]byte, error) {
	root := &yaml.Node{}
	if err := root.Encode(d); err != nil {
		return nil, err
	}
	annotate(root, map[string]*yaml.Node{})
	var b bytes.Buffer
	fmt.Fprintf(&b, `# The configuration of channel %s. Edit it and hand it to hansa channel update -f FILE.
# What is left out stays as it is; lists and maps are complete, and [] or {} empties them.
# A certificate is PEM text (&pem1 names one, *pem1 is the same again) or the name of a file, meant from this file's
# folder. A member's msp may be replaced by mspDir: FOLDER, and a new member needs no more than name, mspId and mspDir.
`, d.Channel)
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// annotate says in a comment what each PEM text is. One that comes again is written once.
func annotate(node *yaml.Node, seen map[string]*yaml.Node) {
	for i, child := range node.Content {
		if !isPEM(child.Value) {
			annotate(child, seen)
			continue
		}
		at := child
		if node.Kind == yaml.MappingNode {
			at = node.Content[i-1]
		}
		at.HeadComment = "# " + certificateName([]byte(child.Value))
		if first, again := seen[child.Value]; again {
			if first.Anchor == "" {
				first.Anchor = fmt.Sprintf("pem%d", anchors(seen)+1)
			}
			node.Content[i] = &yaml.Node{Kind: yaml.AliasNode, Alias: first, Value: first.Anchor, HeadComment: child.HeadComment}
			continue
		}
		child.Style = yaml.LiteralStyle
		seen[child.Value] = child
	}
}

func anchors(seen map[string]*yaml.Node) (n int) {
	for _, node := range seen {
		if node.Anchor != "" {
			n++
		}
	}
	return n
}

func isPEM(text string) bool { return strings.Contains(text, "-----BEGIN ") }

const maxDocumentBytes = 16 << 20

// ParseDocument reads an edited document, strictly. Files that it names are not read yet.
func ParseDocument(raw []byte) (*Document, error) {
	if len(raw) > maxDocumentBytes {
		return nil, fmt.Errorf("the configuration has %d bytes, at most %d are read", len(raw), maxDocumentBytes)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	d := &Document{}
	if err := decoder.Decode(d); errors.Is(err, io.EOF) {
		return nil, errors.New("the configuration is empty")
	} else if err != nil {
		return nil, err
	}
	if err := decoder.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("one YAML document is wanted, more follow")
	}
	return d, nil
}
