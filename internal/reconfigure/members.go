package reconfigure

import (
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

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
		if _, exists := group.Groups[member]; exists != stays {
			continue // others have let it in or go meanwhile: see Rebase
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
