package reconfigure

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// EditYAML changes the configuration into what an edited document says. Paths in
// it are meant from dir. Whatever the document leaves out or says as before keeps
// its bytes. A document made from an older configuration is ErrStale.
func (c *Config) EditYAML(raw []byte, dir string) error {
	after, err := c.read(raw, dir)
	if err != nil {
		return err
	}
	if after.Configuration != nil && *after.Configuration != c.Sequence() {
		return fmt.Errorf("%w: configuration %d was edited, in force is %d (made by block %d)", ErrStale, *after.Configuration, c.Sequence(), c.Block)
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

// Rebase is EditYAML for a document that was made from an older configuration: it
// makes the same changes in this one. Where others have changed the same since,
// it says so and changes nothing.
func (c *Config) Rebase(raw []byte, dir string, older *Config) error {
	after, err := c.read(raw, dir)
	if err != nil {
		return err
	}
	before, err := document(c.ID(), older.base.Config().ChannelGroup)
	if err != nil {
		return err
	}
	edited := &editor{before: before, after: after, root: proto.CloneOf(older.base.Config().ChannelGroup), dir: dir}
	if err := edited.apply(); err != nil {
		return err
	}
	mine, err := differences(c.ID(), older.base.Config().ChannelGroup, edited.root)
	if err != nil {
		return err
	}
	others, err := c.DifferencesFrom(older)
	if err != nil {
		return err
	}
	for _, m := range mine {
		for _, o := range others {
			if overlap(m.Path, o.Path) && m != o {
				return fmt.Errorf("%w, in the same place: by this edit %s, by others %s", ErrStale, m, o)
			}
		}
	}
	return c.Edit(func(config *commonpb.Config) error {
		e := &editor{before: before, after: after, root: config.ChannelGroup, dir: dir}
		return e.apply()
	})
}

// overlap says whether two changes are in one place: one within the other, or both in a list that is only set as a whole.
func overlap(a, b string) bool {
	for _, whole := range []string{"acls", "orderers"} {
		if strings.HasPrefix(a, whole+".") && strings.HasPrefix(b, whole+".") {
			return true
		}
	}
	if i, j := strings.Index(a, ".msp."), strings.Index(b, ".msp."); i > 0 && j > 0 && a[:i] == b[:j] {
		return true // so is a member's MSP
	}
	return a == b || strings.HasPrefix(a, b+".") || strings.HasPrefix(b, a+".")
}

// read parses an edited document of this channel, with the files that it names.
func (c *Config) read(raw []byte, dir string) (*Document, error) {
	d, err := ParseDocument(raw)
	if err != nil {
		return nil, errors.New(unknownField.ReplaceAllString(err.Error(), `unknown key "$1"`))
	}
	switch {
	case d.Channel == "":
		return nil, errors.New("channel: is missing, it says which channel's configuration this is")
	case d.Channel != c.ID():
		return nil, fmt.Errorf("channel: this is the configuration of channel %q, not of %q", d.Channel, c.ID())
	case d.Configuration == nil && d.complete():
		return nil, errors.New("configuration: is missing. Lists (members, orderers, policies, acls) are complete, so that it must be known which configuration was edited; take it from hansa channel config")
	}
	return d, d.load(dir)
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
	set(&size.MaxMessageCount, before.MaxMessages, after.MaxMessages)
	set(&size.AbsoluteMaxBytes, uint32(before.AbsoluteMaxBytes), uint32(after.AbsoluteMaxBytes))
	set(&size.PreferredMaxBytes, uint32(before.PreferredMaxBytes), uint32(after.PreferredMaxBytes))
	if group == nil && after == (channel.BatchSpec{}) {
		return nil
	}
	if err := SetValue(group, batchSizeKey, size); err != nil {
		return fmt.Errorf("batch: %w", err)
	}
	return nil
}

// set sets what an edit says, and says otherwise than before.
func set(value *uint32, before, after uint32) {
	if after != 0 && after != before {
		*value = after
	}
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
		if after.Maintenance != nil && *after.Maintenance != *before.Maintenance {
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
		set(&o.ElectionTick, before.Raft.ElectionTick, r.ElectionTick)
		set(&o.HeartbeatTick, before.Raft.HeartbeatTick, r.HeartbeatTick)
		set(&o.MaxInflightBlocks, before.Raft.MaxInflightBlocks, r.MaxInflightBlocks)
		set(&o.SnapshotIntervalSize, uint32(before.Raft.SnapshotIntervalBytes), uint32(r.SnapshotIntervalBytes))
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
