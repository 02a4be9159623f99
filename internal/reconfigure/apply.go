package reconfigure

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// EditYAML changes the configuration into what an edited document says. Paths in
// it are meant from dir. Whatever the document leaves out or says as before keeps
// its bytes. A document made from an older configuration is ErrStale.
func (c *Config) EditYAML(raw []byte, dir string) error {
	after, err := ParseDocument(raw)
	if err != nil {
		return errors.New(unknownField.ReplaceAllString(err.Error(), `unknown key "$1"`))
	}
	switch {
	case after.Channel == "":
		return errors.New("channel: is missing, it says which channel's configuration this is")
	case after.Channel != c.ID():
		return fmt.Errorf("channel: this is the configuration of channel %q, not of %q", after.Channel, c.ID())
	case after.Configuration == nil && after.complete():
		return errors.New("configuration: is missing. Lists (members, orderers, policies, acls) are complete, so that it must be known which configuration was edited; take it from hansa channel config")
	case after.Configuration != nil && *after.Configuration != c.Sequence():
		return fmt.Errorf("%w: configuration %d was edited, in force is %d (made by block %d)", ErrStale, *after.Configuration, c.Sequence(), c.Block)
	}
	if err := after.load(dir); err != nil {
		return err
	}
	return c.Edit(func(config *commonpb.Config) error {
		before, err := document(c.ID(), config.ChannelGroup)
		if err != nil {
			return err
		}
		e := &editor{before: before, after: after, root: config.ChannelGroup, dir: dir}
		return e.apply()
	})
}

// unknownField is how the YAML decoder tells of a key that is not known.
var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// complete says whether the document holds lists that replace others.
func (d *Document) complete() bool {
	return d.ACLs != nil || d.Members != nil || d.Orderers != nil || d.OrdererAddresses != nil ||
		d.Policies.Channel != nil || d.Policies.Orderer != nil || d.Policies.Application != nil
}

// load reads the files that stand for certificates.
func (d *Document) load(dir string) error {
	l := loader{dir: dir}
	for i := range d.Orderers {
		o, at := &d.Orderers[i], fmt.Sprintf("orderers[%d].", i)
		l.file(at+"tlsCert", &o.TLSCert)
		l.file(at+"clientTlsCert", &o.ClientTLSCert)
		l.file(at+"identity", &o.Identity)
		if o.ClientTLSCert == o.TLSCert {
			o.ClientTLSCert = ""
		}
	}
	for i := range d.Members {
		m, at := d.Members[i].MSP, fmt.Sprintf("members[%d].msp.", i)
		if m == nil {
			continue
		}
		l.files(at+"roots", m.Roots)
		l.files(at+"intermediates", m.Intermediates)
		l.files(at+"admins", m.Admins)
		l.files(at+"tlsRoots", m.TLSRoots)
		l.files(at+"tlsIntermediates", m.TLSIntermediates)
		l.files(at+"revocationLists", m.RevocationLists)
		if n := m.NodeOUs; n != nil {
			for _, u := range []*Unit{n.Client, n.Peer, n.Admin, n.Orderer} {
				if u != nil {
					l.file(at+"nodeOUs", &u.Certificate)
				}
			}
		}
		for j := range m.Units {
			l.file(fmt.Sprintf("%sorganizationalUnits[%d].certificate", at, j), &m.Units[j].Certificate)
		}
	}
	return l.err
}

// maxFileBytes bounds files of certificates and revocation lists.
const maxFileBytes = 4 << 20

// loader keeps the first error.
type loader struct {
	dir string
	err error
}

func (l *loader) files(field string, texts []string) {
	for i := range texts {
		at := fmt.Sprintf("%s[%d]", field, i)
		if texts[i] == "" && l.err == nil {
			l.err = fmt.Errorf("%s: is empty", at)
		}
		l.file(at, &texts[i])
	}
}

func (l *loader) file(field string, text *string) {
	if l.err != nil || *text == "" {
		return
	}
	if isPEM(*text) {
		if err := checkPEM([]byte(*text)); err != nil {
			l.err = fmt.Errorf("%s: %w", field, err)
		}
		return
	}
	name := *text
	if !filepath.IsAbs(name) {
		name = filepath.Join(l.dir, name)
	}
	raw, err := []byte(nil), error(nil)
	if info, failed := os.Stat(name); failed != nil {
		err = failed
	} else if !info.Mode().IsRegular() || info.Size() > maxFileBytes {
		err = fmt.Errorf("%s: not a file of certificates", name)
	} else {
		raw, err = os.ReadFile(name)
	}
	switch {
	case err != nil:
		l.err = fmt.Errorf("%s: neither PEM text nor a file: %w", field, err)
	case !isPEM(string(raw)):
		l.err = fmt.Errorf("%s: %s holds nothing in PEM form", field, name)
	default:
		if err := checkPEM(raw); err != nil {
			l.err = fmt.Errorf("%s: %s: %w", field, name, err)
		}
	}
	*text = string(raw)
}

// editor brings a configuration tree from one document to another.
type editor struct {
	before, after *Document
	root          *commonpb.ConfigGroup
	dir           string
}

func (e *editor) apply() error {
	for _, step := range []func() error{e.levels, e.batch, e.consensus, e.lists, e.policies, e.members, e.orderers} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// groups are the three groups that have capabilities and policies, by name.
func (e *editor) group(name string) *commonpb.ConfigGroup {
	if name == rootKey {
		return e.root
	}
	return e.root.GetGroups()[name]
}

func (e *editor) levels() error {
	for _, g := range []struct {
		group, field  string
		before, after Levels
	}{
		{rootKey, "channel", e.before.Capabilities.Channel, e.after.Capabilities.Channel},
		{ordererKey, "orderer", e.before.Capabilities.Orderer, e.after.Capabilities.Orderer},
		{applicationKey, "application", e.before.Capabilities.Application, e.after.Capabilities.Application},
	} {
		if g.after.IsZero() || slices.Equal(g.before, g.after) {
			continue
		}
		all := &commonpb.Capabilities{Capabilities: map[string]*commonpb.Capability{}}
		for _, level := range g.after {
			all.Capabilities[level] = &commonpb.Capability{}
		}
		if err := SetValue(e.group(g.group), capabilitiesKey, all); err != nil {
			return fmt.Errorf("capabilities.%s: %w", g.field, err)
		}
	}
	return nil
}

func (e *editor) batch() error {
	before, after := e.before.Batch, e.after.Batch
	group := e.group(ordererKey)
	if after.Timeout != 0 && after.Timeout != before.Timeout {
		if err := SetValue(group, batchTimeoutKey, &ordererpb.BatchTimeout{Timeout: after.Timeout.String()}); err != nil {
			return fmt.Errorf("batch.timeout: %w", err)
		}
	}
	size := &ordererpb.BatchSize{}
	if err := Value(group, batchSizeKey, size); err != nil {
		return err
	}
	if after.MaxMessages != 0 {
		size.MaxMessageCount = after.MaxMessages
	}
	if after.AbsoluteMaxBytes != 0 {
		size.AbsoluteMaxBytes = uint32(after.AbsoluteMaxBytes)
	}
	if after.PreferredMaxBytes != 0 {
		size.PreferredMaxBytes = uint32(after.PreferredMaxBytes)
	}
	if group == nil && after == (channel.BatchSpec{}) {
		return nil
	}
	if err := SetValue(group, batchSizeKey, size); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	return nil
}

// consensus applies what is said of the consensus, except for who takes part.
func (e *editor) consensus() error {
	before, after := e.before, e.after
	if after.Consensus != "" && after.Consensus != before.Consensus {
		return fmt.Errorf("consensus: a channel cannot be moved from %s to %s by an edit", before.Consensus, after.Consensus)
	}
	if after.Raft != (channel.RaftSpec{}) && before.Consensus != channel.ConsensusRaft {
		return fmt.Errorf("raft: the channel's consensus is %s", before.Consensus)
	}
	return e.editConsensus(func(consensus *ordererpb.ConsensusType) error {
		if after.Maintenance != nil {
			consensus.State = ordererpb.ConsensusType_STATE_NORMAL
			if *after.Maintenance {
				consensus.State = ordererpb.ConsensusType_STATE_MAINTENANCE
			}
		}
		return nil
	}, func(m *etcdraftpb.ConfigMetadata) error {
		if m.Options == nil {
			m.Options = &etcdraftpb.Options{}
		}
		o, r := m.Options, after.Raft
		if r.TickInterval != 0 && r.TickInterval != before.Raft.TickInterval {
			o.TickInterval = r.TickInterval.String()
		}
		for _, f := range []struct {
			to   *uint32
			from uint32
		}{
			{&o.ElectionTick, r.ElectionTick}, {&o.HeartbeatTick, r.HeartbeatTick},
			{&o.MaxInflightBlocks, r.MaxInflightBlocks}, {&o.SnapshotIntervalSize, uint32(r.SnapshotIntervalBytes)},
		} {
			if f.from != 0 {
				*f.to = f.from
			}
		}
		return nil
	})
}

// editConsensus changes the ConsensusType value, and the metadata in it where the consensus is etcdraft.
func (e *editor) editConsensus(change func(*ordererpb.ConsensusType) error, raft func(*etcdraftpb.ConfigMetadata) error) error {
	group := e.group(ordererKey)
	if group == nil {
		return nil
	}
	consensus, metadata := &ordererpb.ConsensusType{}, &etcdraftpb.ConfigMetadata{}
	if err := Value(group, consensusKey, consensus); err != nil {
		return err
	}
	if err := change(consensus); err != nil {
		return err
	}
	if consensus.Type == channel.ConsensusRaft {
		if err := proto.Unmarshal(consensus.Metadata, metadata); err != nil {
			return fmt.Errorf("decode etcdraft metadata: %w", err)
		}
		had := proto.CloneOf(metadata)
		if err := raft(metadata); err != nil {
			return err
		}
		if !proto.Equal(had, metadata) {
			var err error
			if consensus.Metadata, err = encode(metadata); err != nil {
				return err
			}
		}
	}
	return SetValue(group, consensusKey, consensus)
}

// lists applies ACLs and channel-wide addresses.
func (e *editor) lists() error {
	if acls := e.after.ACLs; acls != nil && !maps.Equal(acls, e.before.ACLs) {
		value := &peerpb.ACLs{Acls: map[string]*peerpb.APIResource{}}
		for resource, ref := range acls {
			if ref == "" {
				return fmt.Errorf("acls.%s: names no policy", resource)
			}
			if err := e.reference(ref); err != nil {
				return fmt.Errorf("acls.%s: %w", resource, err)
			}
			value.Acls[resource] = &peerpb.APIResource{PolicyRef: ref}
		}
		if err := SetValue(e.group(applicationKey), aclsKey, value); err != nil {
			return fmt.Errorf("acls: %w", err)
		}
	}
	if a := e.after.OrdererAddresses; a != nil && !slices.Equal(a, e.before.OrdererAddresses) {
		if len(a) == 0 {
			delete(e.root.Values, addressesKey)
		} else if err := SetValue(e.root, addressesKey, &commonpb.OrdererAddresses{Addresses: a}); err != nil {
			return fmt.Errorf("ordererAddresses: %w", err)
		}
	}
	return nil
}

// reference checks that a policy exists, or is about to, to which an ACL refers.
// Fabric takes any name, and then refuses every call.
func (e *editor) reference(ref string) error {
	path := ref
	if ref[0] != '/' {
		path = "/" + rootKey + "/" + applicationKey + "/" + ref
	}
	names := strings.Split(path[1:], "/")
	if names[0] != rootKey || len(names) < 2 {
		return fmt.Errorf("%q is no path of a policy, such as /Channel/Application/Readers", ref)
	}
	group, name := e.root, names[len(names)-1]
	for _, sub := range names[1 : len(names)-1] {
		group = group.GetGroups()[sub]
	}
	_, exists := group.GetPolicies()[name]
	if len(names) == 3 && names[1] == applicationKey && e.after.Policies.Application != nil {
		_, exists = e.after.Policies.Application[name]
	}
	if !exists {
		return fmt.Errorf("there is no policy %s", path)
	}
	return nil
}

func (e *editor) policies() error {
	for _, g := range []struct {
		group, field  string
		before, after Rules
	}{
		{rootKey, "policies.channel", e.before.Policies.Channel, e.after.Policies.Channel},
		{ordererKey, "policies.orderer", e.before.Policies.Orderer, e.after.Policies.Orderer},
		{applicationKey, "policies.application", e.before.Policies.Application, e.after.Policies.Application},
	} {
		if err := setRules(e.group(g.group), g.field, g.before, g.after); err != nil {
			return err
		}
	}
	return nil
}

// setRules makes a group's policies those of after; nil leaves them.
func setRules(group *commonpb.ConfigGroup, field string, before, after Rules) error {
	if after == nil || maps.Equal(before, after) {
		return nil
	}
	if group == nil {
		return fmt.Errorf("%s: the configuration has no such group", field)
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			delete(group.Policies, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if after[name] == before[name] {
			continue
		}
		p, err := channel.ParsePolicy(after[name])
		if err != nil {
			return fmt.Errorf("%s.%s: %w", field, name, err)
		}
		if have, ok := group.Policies[name]; ok {
			have.Policy = p
			continue
		}
		if group.Policies == nil {
			group.Policies = map[string]*commonpb.ConfigPolicy{}
		}
		group.Policies[name] = &commonpb.ConfigPolicy{Policy: p, ModPolicy: adminsPolicy}
	}
	return nil
}

// side is a member's part in one group.
type side struct {
	Member
	field string
}

// sides sorts members by the groups that they are in.
func sides(members []Member) (application, orderer map[string]side, err error) {
	application, orderer = map[string]side{}, map[string]side{}
	for i, m := range members {
		s := side{m, fmt.Sprintf("members[%d]", i)}
		switch {
		case m.Name == "":
			return nil, nil, fmt.Errorf("%s.name: is missing", s.field)
		case m.MSPID == "":
			return nil, nil, fmt.Errorf("%s.mspId: is missing", s.field)
		case m.MSP != nil && m.MSPDir != "":
			return nil, nil, fmt.Errorf("%s: msp and mspDir say the same thing twice; remove msp to take the MSP from the folder", s.field)
		case m.OrderingOnly && (len(m.AnchorPeers) > 0 || len(m.Policies) > 0):
			return nil, nil, fmt.Errorf("%s.orderingOnly: %s has no part in the application, so anchorPeers and policies mean nothing", s.field, m.Name)
		case !m.orders() && len(m.OrdererPolicies) > 0:
			return nil, nil, fmt.Errorf("%s.ordererPolicies: %s runs no orderer (it has no endpoints)", s.field, m.Name)
		}
		for _, part := range []struct {
			in    bool
			group map[string]side
		}{{!m.OrderingOnly, application}, {m.orders(), orderer}} {
			if !part.in {
				continue
			}
			if _, twice := part.group[m.Name]; twice {
				return nil, nil, fmt.Errorf("%s.name: %s is there twice", s.field, m.Name)
			}
			part.group[m.Name] = s
		}
	}
	return application, orderer, nil
}

func (e *editor) members() error {
	if e.after.Members == nil {
		return nil
	}
	wasApplication, wasOrderer, err := sides(e.before.Members)
	if err != nil {
		return err
	}
	application, orderer, err := sides(e.after.Members)
	if err != nil {
		return err
	}
	err = e.side(applicationKey, wasApplication, application, func(group *commonpb.ConfigGroup, was, is side) error {
		if is.AnchorPeers != nil && !slices.Equal(was.AnchorPeers, is.AnchorPeers) {
			anchors, err := channel.AnchorPeers(is.AnchorPeers)
			if err != nil {
				return fmt.Errorf("%s.%w", is.field, err)
			}
			if err := SetValue(group, anchorPeersKey, anchors); err != nil {
				return err
			}
		}
		return setRules(group, is.field+".policies", was.Policies, is.Policies)
	}, func(s side, msp *msppb.MSPConfig) (*commonpb.ConfigGroup, error) {
		return channel.NewApplicationMember(s.MSPID, msp, s.AnchorPeers, s.Policies)
	})
	if err != nil {
		return err
	}
	return e.side(ordererKey, wasOrderer, orderer, func(group *commonpb.ConfigGroup, was, is side) error {
		if is.Endpoints != nil && !slices.Equal(was.Endpoints, is.Endpoints) {
			if err := SetValue(group, endpointsKey, &commonpb.OrdererAddresses{Addresses: is.Endpoints}); err != nil {
				return err
			}
		}
		return setRules(group, is.field+".ordererPolicies", was.OrdererPolicies, is.OrdererPolicies)
	}, func(s side, msp *msppb.MSPConfig) (*commonpb.ConfigGroup, error) {
		return channel.NewOrdererMember(s.MSPID, msp, s.Endpoints, s.OrdererPolicies)
	})
}

// side brings one group's members from was to is.
func (e *editor) side(name string, was, is map[string]side, change func(group *commonpb.ConfigGroup, was, is side) error, add func(side, *msppb.MSPConfig) (*commonpb.ConfigGroup, error)) error {
	group := e.group(name)
	if group == nil && len(is) > 0 {
		return fmt.Errorf("members: the configuration has no group %s", name)
	}
	for member := range was {
		if _, stays := is[member]; !stays {
			delete(group.Groups, member)
		}
	}
	for _, member := range slices.Sorted(maps.Keys(is)) {
		next := is[member]
		before, stays := was[member]
		if stays && before.MSPID != next.MSPID {
			return fmt.Errorf("%s.mspId: the MSP id of member %s cannot change from %s to %s; remove the member, and add it anew with a later update", next.field, member, before.MSPID, next.MSPID)
		}
		conf, definition, has := &msppb.MSPConfig{}, &msppb.FabricMSPConfig{}, before.MSP
		have, known := group.Groups[member]
		if !stays {
			have, known = e.elsewhere(name, next)
		}
		if known {
			var err error
			if conf, definition, err = mspOf(have); err != nil {
				return err
			}
			has = newMSP(definition)
		}
		msp, err := e.msp(next, has, conf, definition)
		if err != nil {
			return err
		}
		if stays {
			if err := SetValue(group.Groups[member], mspKey, msp); err != nil {
				return err
			}
			if err := change(group.Groups[member], before, next); err != nil {
				return err
			}
			continue
		}
		added, err := add(next, msp)
		if err != nil {
			return fmt.Errorf("%s.%w", next.field, err)
		}
		if group.Groups == nil {
			group.Groups = map[string]*commonpb.ConfigGroup{}
		}
		group.Groups[member] = added
	}
	return nil
}

// elsewhere finds a member that is new in one group in the other one: it may begin to run orderers, or peers.
func (e *editor) elsewhere(name string, s side) (*commonpb.ConfigGroup, bool) {
	other := applicationKey
	if name == applicationKey {
		other = ordererKey
	}
	group, ok := e.group(other).GetGroups()[s.Name]
	if !ok {
		return nil, false
	}
	_, definition, err := mspOf(group)
	return group, err == nil && definition.Name == s.MSPID
}

// msp is the MSP that a member should have, beginning with the one that it has.
func (e *editor) msp(s side, before *MSP, conf *msppb.MSPConfig, definition *msppb.FabricMSPConfig) (*msppb.MSPConfig, error) {
	switch {
	case s.MSPDir != "":
		dir := s.MSPDir
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(e.dir, dir)
		}
		read, err := identity.ConfigFromDir(dir, s.MSPID)
		if err != nil {
			return nil, fmt.Errorf("%s.mspDir: %w", s.field, err)
		}
		return read, nil
	case s.MSP == nil && before == nil:
		return nil, fmt.Errorf("%s.mspDir: is missing, a new member needs it (or msp)", s.field)
	case s.MSP == nil || sameMSP(s.MSP, before):
		return conf, nil
	}
	m := s.MSP
	definition.Name = s.MSPID
	definition.RootCerts, definition.IntermediateCerts, definition.Admins = raws(m.Roots), raws(m.Intermediates), raws(m.Admins)
	definition.TlsRootCerts, definition.TlsIntermediateCerts, definition.RevocationList = raws(m.TLSRoots), raws(m.TLSIntermediates), raws(m.RevocationLists)
	if definition.CryptoConfig == nil {
		definition.CryptoConfig = &msppb.FabricCryptoConfig{SignatureHashFamily: "SHA2", IdentityIdentifierHashFunction: "SHA256"}
	}
	definition.FabricNodeOus, definition.OrganizationalUnitIdentifiers = nil, nil
	if n := m.NodeOUs; n != nil {
		definition.FabricNodeOus = &msppb.FabricNodeOUs{Enable: n.Enable,
			ClientOuIdentifier: n.Client.message(), PeerOuIdentifier: n.Peer.message(), AdminOuIdentifier: n.Admin.message(), OrdererOuIdentifier: n.Orderer.message()}
	}
	for i := range m.Units {
		definition.OrganizationalUnitIdentifiers = append(definition.OrganizationalUnitIdentifiers, m.Units[i].message())
	}
	raw, err := encode(definition)
	if err != nil {
		return nil, err
	}
	return &msppb.MSPConfig{Type: conf.Type, Config: raw}, nil
}

// sameMSP compares what was edited with what was shown: an empty list is as good as none.
func sameMSP(a, b *MSP) bool {
	if b == nil {
		return false
	}
	lists := func(m *MSP) [][]string {
		return [][]string{m.Roots, m.Intermediates, m.Admins, m.TLSRoots, m.TLSIntermediates, m.RevocationLists}
	}
	for i, l := range lists(a) {
		if !slices.Equal(l, lists(b)[i]) {
			return false
		}
	}
	return slices.Equal(a.Units, b.Units) && reflect.DeepEqual(a.NodeOUs, b.NodeOUs)
}

func (u *Unit) message() *msppb.FabricOUIdentifier {
	if u == nil {
		return nil
	}
	return &msppb.FabricOUIdentifier{Certificate: []byte(u.Certificate), OrganizationalUnitIdentifier: u.Name}
}

func raws(texts []string) (out [][]byte) {
	for _, t := range texts {
		out = append(out, []byte(t))
	}
	return out
}

// orderers applies who takes part in the consensus.
func (e *editor) orderers() error {
	after := e.after.Orderers
	if after == nil || slices.Equal(e.before.Orderers, after) {
		return nil
	}
	for i, o := range after {
		field := fmt.Sprintf("orderers[%d].", i)
		switch bft := e.before.Consensus == channel.ConsensusBFT; {
		case o.Host == "":
			return fmt.Errorf("%shost: is missing", field)
		case o.Port == 0 || o.Port > 65535:
			return fmt.Errorf("%sport: %d is no port", field, o.Port)
		case o.TLSCert == "":
			return fmt.Errorf("%stlsCert: is missing", field)
		case bft && (o.Identity == "" || o.ID == 0 || o.Member == ""):
			return fmt.Errorf("%sidentity, id and member: BFT names each orderer's signing certificate, number and member", field)
		case !bft && (o.Identity != "" || o.ID != 0 || o.Member != ""):
			return fmt.Errorf("%sidentity, id and member: they are of BFT; %s knows an orderer by its TLS certificates, and whose it is say the endpoints of the members", field, e.before.Consensus)
		}
	}
	if e.before.Consensus == channel.ConsensusBFT {
		return e.bftOrderers(after)
	}
	return e.editConsensus(func(*ordererpb.ConsensusType) error { return nil }, func(m *etcdraftpb.ConfigMetadata) error {
		m.Consenters = nil
		for _, o := range after {
			m.Consenters = append(m.Consenters, &etcdraftpb.Consenter{Host: o.Host, Port: o.Port, ServerTlsCert: []byte(o.TLSCert), ClientTlsCert: o.client()})
		}
		return nil
	})
}

func (o Orderer) client() []byte {
	if o.ClientTLSCert == "" {
		return []byte(o.TLSCert)
	}
	return []byte(o.ClientTLSCert)
}

// bftOrderers sets the consenters of BFT, and with them the policy by which peers check blocks.
func (e *editor) bftOrderers(after []Orderer) error {
	group := e.group(ordererKey)
	all := &commonpb.Orderers{}
	for i, o := range after {
		member, ok := group.Groups[o.Member]
		if !ok {
			return fmt.Errorf("orderers[%d].member: no member %q runs orderers", i, o.Member)
		}
		_, definition, err := mspOf(member)
		if err != nil {
			return err
		}
		all.ConsenterMapping = append(all.ConsenterMapping, &commonpb.Consenter{Id: o.ID, Host: o.Host, Port: o.Port, MspId: definition.Name,
			Identity: []byte(o.Identity), ServerTlsCert: []byte(o.TLSCert), ClientTlsCert: o.client()})
	}
	if err := SetValue(group, orderersKey, all); err != nil {
		return err
	}
	p, err := channel.BFTBlockPolicy(all.ConsenterMapping)
	if err != nil {
		return err
	}
	have, ok := group.Policies[blockPolicy]
	if !ok {
		return fmt.Errorf("the configuration has no policy %s", blockPolicy)
	}
	have.Policy = p
	return nil
}
