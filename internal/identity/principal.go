package identity

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// Principal is an msppb.MSPPrincipal decoded once, for policies that ask many identities.
type Principal struct {
	all []demand // every one must be met
	err error    // the principal cannot be met by anyone, and why
}

// demand is one principal that is no combination.
type demand struct {
	class    msppb.MSPPrincipal_Classification
	role     *msppb.MSPRole
	unit     *msppb.OrganizationUnit
	identity []byte
	err      error
}

// maxPrincipalDepth bounds nested combinations. Fabric has no such bound; protobuf decoding stops there at 10,000.
const maxPrincipalDepth = 1000

// NewPrincipal decodes p. One that is malformed is met by nobody: SatisfiesPrincipal then says why, as Fabric does only when it
// evaluates.
func NewPrincipal(p *msppb.MSPPrincipal) *Principal {
	out := &Principal{}
	out.err = out.collect(p, 0)
	return out
}

func (p *Principal) collect(from *msppb.MSPPrincipal, depth int) error {
	if from.GetPrincipalClassification() != msppb.MSPPrincipal_COMBINED {
		p.all = append(p.all, newDemand(from))
		return nil
	}
	if depth == maxPrincipalDepth {
		return fmt.Errorf("CombinedPrincipal is nested more than %d deep", maxPrincipalDepth)
	}
	combined := &msppb.CombinedPrincipal{}
	if err := proto.Unmarshal(from.Principal, combined); err != nil {
		return fmt.Errorf("could not unmarshal CombinedPrincipal from principal: %w", err)
	}
	if len(combined.Principals) == 0 {
		return errors.New("No principals in CombinedPrincipal")
	}
	for _, one := range combined.Principals {
		if err := p.collect(one, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func newDemand(from *msppb.MSPPrincipal) demand {
	d := demand{class: from.GetPrincipalClassification()}
	switch d.class {
	case msppb.MSPPrincipal_ROLE:
		d.role = &msppb.MSPRole{}
		if err := proto.Unmarshal(from.GetPrincipal(), d.role); err != nil {
			d.err = fmt.Errorf("could not unmarshal MSPRole from principal: %w", err)
		}
	case msppb.MSPPrincipal_ORGANIZATION_UNIT:
		d.unit = &msppb.OrganizationUnit{}
		if err := proto.Unmarshal(from.Principal, d.unit); err != nil {
			d.err = fmt.Errorf("could not unmarshal OrganizationUnit from principal: %w", err)
		}
	case msppb.MSPPrincipal_IDENTITY:
		d.identity = from.Principal
	case msppb.MSPPrincipal_ANONYMITY:
		anonymity := &msppb.MSPIdentityAnonymity{}
		if err := proto.Unmarshal(from.Principal, anonymity); err != nil {
			d.err = fmt.Errorf("could not unmarshal MSPIdentityAnonymity from principal: %w", err)
		} else if anonymity.AnonymityType == msppb.MSPIdentityAnonymity_ANONYMOUS {
			d.err = errors.New("Principal is anonymous, but X.509 MSP does not support anonymous identities")
		} else if anonymity.AnonymityType != msppb.MSPIdentityAnonymity_NOMINAL {
			d.err = fmt.Errorf("Unknown principal anonymity type: %d", anonymity.AnonymityType)
		}
	default:
		d.err = fmt.Errorf("invalid principal type %d", int32(d.class))
	}
	return d
}

// Satisfies is SatisfiesPrincipal for a principal that is asked about once.
func (id *Identity) Satisfies(p *msppb.MSPPrincipal) error {
	return id.SatisfiesPrincipal(NewPrincipal(p))
}

// SatisfiesPrincipal says whether the identity meets p, and validates it where Fabric does: for every role but an administrator
// who is named in the configuration, for organizational units and for exact identities.
func (id *Identity) SatisfiesPrincipal(p *Principal) error {
	if p.err != nil {
		return p.err
	}
	for i := range p.all {
		if err := id.meets(&p.all[i]); err != nil {
			return err
		}
	}
	return nil
}

func (id *Identity) meets(d *demand) error {
	if d.err != nil {
		return d.err
	}
	m := id.msp
	switch d.class {
	case msppb.MSPPrincipal_ROLE:
		return id.hasRole(d.role)
	case msppb.MSPPrincipal_ORGANIZATION_UNIT:
		if d.unit.MspIdentifier != m.name {
			return fmt.Errorf("the identity is a member of a different MSP (expected %s, got %s)", d.unit.MspIdentifier, m.name)
		}
		if err := id.Validate(); err != nil {
			return err
		}
		for _, u := range id.units() {
			if u.name == d.unit.OrganizationalUnitIdentifier && bytes.Equal(u.certifier, d.unit.CertifiersIdentifier) {
				return nil
			}
		}
		return errors.New("The identities do not match")
	case msppb.MSPPrincipal_IDENTITY:
		wanted, err := m.Deserialize(d.identity)
		if err != nil {
			return fmt.Errorf("invalid identity principal, not a certificate: %w", err)
		}
		if !id.cert.Equal(wanted.cert) {
			return errors.New("The identities do not match")
		}
		return wanted.Validate()
	}
	return nil // nominal
}

func (id *Identity) hasRole(want *msppb.MSPRole) error {
	m := id.msp
	if want.MspIdentifier != m.name {
		return refuse("the identity is a member of a different MSP (expected %s, got %s)", want.MspIdentifier, m.name)
	}
	switch want.Role {
	case msppb.MSPRole_MEMBER:
		return id.Validate()
	case msppb.MSPRole_ADMIN:
		// Administrators named in the configuration are not validated: being named is enough, even when revoked.
		for _, admin := range m.admins {
			if admin.cert.Equal(id.cert) {
				return nil
			}
		}
		if !m.nodeOUs {
			return errors.New("This identity is not an admin")
		}
		if err := id.Validate(); err != nil {
			return refuse("The identity is not valid under this MSP [%s]: %v", m.name, err)
		}
		if err := m.hasNodeOU(id, want.Role); err != nil {
			return refuse("The identity is not an admin under this MSP [%s]: %v", m.name, err)
		}
		return nil
	case msppb.MSPRole_ORDERER, msppb.MSPRole_CLIENT, msppb.MSPRole_PEER:
		if want.Role == msppb.MSPRole_ORDERER && !m.nodeOUs {
			break // the role came with node OUs; without them it does not exist
		}
		if err := id.Validate(); err != nil {
			return refuse("The identity is not valid under this MSP [%s]: %v", m.name, err)
		}
		if err := m.hasNodeOU(id, want.Role); err != nil {
			return refuse("The identity is not a [%s] under this MSP [%s]: %v", want.Role, m.name, err)
		}
		return nil
	}
	return refuse("invalid MSP role type %d", int32(want.Role))
}

// hasNodeOU compares names only: certifiers are Validate's business.
func (m *MSP) hasNodeOU(id *Identity, role msppb.MSPRole_MSPRoleType) error {
	if !m.nodeOUs {
		return errors.New("NodeOUs not activated. Cannot tell apart identities.")
	}
	var node *unit
	switch role {
	case msppb.MSPRole_CLIENT:
		node = m.clientOU
	case msppb.MSPRole_PEER:
		node = m.peerOU
	case msppb.MSPRole_ADMIN:
		node = m.adminOU
	case msppb.MSPRole_ORDERER:
		node = m.orderOU
	}
	if node == nil {
		return refuse("cannot test for classification, node ou for type [%s], not defined, msp: [%s]", role, m.name)
	}
	for _, u := range id.units() {
		if u.name == node.name {
			return nil
		}
	}
	return refuse("The identity does not contain OU [%s], MSP: [%s]", role, m.name)
}

// refusal is put into words only when somebody reads it: policies ask one principal after the other, and most of them refuse.
type refusal struct {
	format string
	args   []any
}

func refuse(format string, args ...any) error { return &refusal{format, args} }

func (r *refusal) Error() string { return fmt.Sprintf(r.format, r.args...) }
