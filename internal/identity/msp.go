package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"crypto/x509"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// Options are the channel capabilities that change an MSP's verdicts.
type Options struct {
	// AllowEd25519 accepts identities with Ed25519 keys: channel capability V3_0, and every node's local MSP.
	AllowEd25519 bool
}

// MSP is one member's rules: its certificate authorities, revocation lists, administrators and organizational units. Immutable.
type MSP struct {
	name        string
	fingerprint [sha256.Size]byte
	verifier    *Verifier
	options     Options

	// hash functions of the crypto config; unknown names fail at first use, as in Fabric
	identifierFamily, signatureFamily string

	roots, intermediates []*x509.Certificate // sanitised
	trust                x509.VerifyOptions  // pools over roots and intermediates
	inner                map[string]bool     // raw certificates of CAs that have an intermediate below them: they issue no identities
	revoked              []revocationList

	tlsRoots, tlsIntermediates [][]byte // PEM

	ouIdentifiers                      map[string][][]byte // organizational unit -> accepted certifiers; empty: anything
	nodeOUs                            bool                // node OUs are enforced
	clientOU, peerOU, adminOU, orderOU *unit
	admins                             []*Identity
}

// unit is an organizational unit together with the hash over the CA chain that certifies it (empty: any chain).
type unit struct {
	name      string
	certifier []byte
}

// NewMSP builds an MSP from a channel's or a folder's configuration. A signing identity inside conf is ignored: keys come from
// LoadSigner. The same configuration given twice to one Verifier yields the same *MSP, so that a config update which leaves a
// member alone, and other channels with the same member, keep what was verified. A nil Verifier gives the MSP its own.
func NewMSP(conf *msppb.MSPConfig, v *Verifier, opts Options) (*MSP, error) {
	if conf == nil {
		return nil, errors.New("Setup error: nil conf reference")
	}
	if v == nil {
		v = NewVerifier(Config{})
	}
	switch conf.Type {
	case 0:
	case 1:
		return nil, errors.New("Setup error: unsupported msp type 1: Idemix members cannot be served, use an X.509 MSP (type 0)")
	default:
		return nil, fmt.Errorf("Setup error: unsupported msp type %d", conf.Type)
	}
	h := sha256.New()
	fmt.Fprintf(h, "%t:", opts.AllowEd25519)
	h.Write(conf.Config)
	var fingerprint [sha256.Size]byte
	h.Sum(fingerprint[:0])
	if m, ok := v.msps.get(fingerprint); ok {
		return m, nil
	}

	c := &msppb.FabricMSPConfig{}
	if err := proto.Unmarshal(conf.Config, c); err != nil {
		return nil, fmt.Errorf("failed unmarshalling fabric msp config: %w", err)
	}
	m := &MSP{name: c.Name, fingerprint: fingerprint, verifier: v, options: opts}
	if err := m.setup(c); err != nil {
		return nil, err
	}
	return v.msps.add(fingerprint, m), nil
}

// ID is the MSP's name.
func (m *MSP) ID() string { return m.name }

// TLSRootCerts returns the member's TLS root certificates in PEM form. The caller must not change them.
func (m *MSP) TLSRootCerts() [][]byte { return m.tlsRoots }

// TLSIntermediateCerts returns the member's TLS intermediate certificates in PEM form. The caller must not change them.
func (m *MSP) TLSIntermediateCerts() [][]byte { return m.tlsIntermediates }

// Roots returns the member's root certificates, sanitised. The caller must not change them.
func (m *MSP) Roots() []*x509.Certificate { return m.roots }

// Intermediates returns the member's intermediate certificates, sanitised. The caller must not change them.
func (m *MSP) Intermediates() []*x509.Certificate { return m.intermediates }

// NodeOUs says whether the MSP tells clients, peers, orderers and administrators apart by organizational unit.
func (m *MSP) NodeOUs() bool { return m.nodeOUs }

// setup follows Fabric's order, which decides the error a broken configuration gives.
func (m *MSP) setup(c *msppb.FabricMSPConfig) error {
	m.signatureFamily, m.identifierFamily = "SHA2", "SHA256"
	if c.CryptoConfig.GetSignatureHashFamily() != "" {
		m.signatureFamily = c.CryptoConfig.SignatureHashFamily
	}
	if c.CryptoConfig.GetIdentityIdentifierHashFunction() != "" {
		m.identifierFamily = c.CryptoConfig.IdentityIdentifierHashFunction
	}
	if err := m.setupCAs(c); err != nil {
		return err
	}
	if err := m.setupRevocation(c.RevocationList); err != nil {
		return err
	}
	if err := m.checkCAs(); err != nil {
		return err
	}
	if err := m.setupTLS(c); err != nil {
		return err
	}
	if err := m.setupUnits(c); err != nil {
		return err
	}
	if err := m.setupNodeOUs(c.FabricNodeOus); err != nil {
		return err
	}
	return m.setupAdmins(c.Admins)
}

func (m *MSP) setupUnits(c *msppb.FabricMSPConfig) error {
	m.ouIdentifiers = make(map[string][][]byte)
	for _, ou := range c.OrganizationalUnitIdentifiers {
		certifier, err := m.certifier(ou.Certificate)
		if err != nil {
			return fmt.Errorf("failed getting certificate for [%s]: %w", ou.OrganizationalUnitIdentifier, err)
		}
		m.ouIdentifiers[ou.OrganizationalUnitIdentifier] = append(m.ouIdentifiers[ou.OrganizationalUnitIdentifier], certifier)
	}
	return nil
}

func (m *MSP) setupNodeOUs(c *msppb.FabricNodeOUs) error {
	if c == nil {
		return nil
	}
	for _, one := range []struct {
		from *msppb.FabricOUIdentifier
		to   **unit
	}{
		{c.ClientOuIdentifier, &m.clientOU}, {c.PeerOuIdentifier, &m.peerOU},
		{c.AdminOuIdentifier, &m.adminOU}, {c.OrdererOuIdentifier, &m.orderOU},
	} {
		if one.from == nil {
			continue
		}
		u := &unit{name: one.from.OrganizationalUnitIdentifier}
		if len(one.from.Certificate) != 0 {
			certifier, err := m.certifier(one.from.Certificate)
			if err != nil {
				return err
			}
			u.certifier = certifier
		}
		*one.to = u
	}
	// Node OUs that name no unit at all are off, even where enable is set.
	none := m.clientOU == nil && m.peerOU == nil && m.adminOU == nil && m.orderOU == nil
	m.nodeOUs = c.Enable && !none
	return nil
}

func (m *MSP) setupAdmins(admins [][]byte) error {
	for _, certPEM := range admins {
		cert, err := parsePEM(certPEM)
		if err != nil {
			return err
		}
		id, err := newIdentity(m, cert, Serialize(m.name, certPEM))
		if err != nil {
			return err
		}
		m.admins = append(m.admins, id)
	}
	if len(m.admins) == 0 && (!m.nodeOUs || m.adminOU == nil) {
		return errors.New("administrators must be declared when no admin ou classification is set")
	}
	for i, admin := range m.admins {
		if !m.nodeOUs {
			if err := admin.Validate(); err != nil {
				return fmt.Errorf("admin %d is invalid: %w", i, err)
			}
			continue
		}
		// With node OUs Fabric looks at the unit only: a revoked administrator does not break the channel.
		asClient, asAdmin := m.hasNodeOU(admin, msppb.MSPRole_CLIENT), m.hasNodeOU(admin, msppb.MSPRole_ADMIN)
		if asClient != nil && asAdmin != nil {
			return fmt.Errorf("admin %d is invalid [%s,%s]", i, asClient, asAdmin)
		}
	}
	return nil
}

// validate is Identity.Validate without its memory.
func (m *MSP) validate(id *Identity) error {
	algorithm := id.cert.PublicKeyAlgorithm
	if algorithm != x509.ECDSA && !(algorithm == x509.Ed25519 && m.options.AllowEd25519) {
		return fmt.Errorf("could not validate identity's public key algorithm: %s is not supported", algorithm)
	}
	chain, err := id.chain()
	if err != nil {
		return fmt.Errorf("could not obtain certification chain: %w", err)
	}
	if err := m.checkRevocation(id.cert, chain); err != nil {
		return fmt.Errorf("could not validate identity against certification chain: %w", err)
	}
	if err := m.checkUnits(id); err != nil {
		return fmt.Errorf("could not validate identity's OUs: %w", err)
	}
	return nil
}

// checkUnits wants one of the MSP's organizational units, if it names any, and exactly one node OU, if those are enforced.
func (m *MSP) checkUnits(id *Identity) error {
	units := id.units()
	if len(m.ouIdentifiers) > 0 {
		found := false
		for _, u := range units {
			for _, certifier := range m.ouIdentifiers[u.name] {
				found = found || bytes.Equal(certifier, u.certifier)
			}
		}
		if !found {
			if len(units) == 0 {
				return errors.New("the identity certificate does not contain an Organizational Unit (OU)")
			}
			return fmt.Errorf("none of the identity's organizational units %s are in MSP %s", unitNames(units), m.name)
		}
	}
	if !m.nodeOUs {
		return nil
	}
	// Where two roles share a unit name the later one counts, in Fabric's order.
	nodes := make(map[string]*unit, 4)
	for _, node := range []*unit{m.clientOU, m.peerOU, m.adminOU, m.orderOU} {
		if node != nil {
			nodes[node.name] = node
		}
	}
	count := 0
	for _, u := range units {
		node := nodes[u.name]
		if node == nil {
			continue
		}
		if len(node.certifier) != 0 && !bytes.Equal(node.certifier, u.certifier) {
			return fmt.Errorf("certifiersIdentifier does not match: %s, MSP: [%s]", unitNames(units), m.name)
		}
		if count++; count > 1 {
			break
		}
	}
	if count == 0 {
		return fmt.Errorf("the identity does not have an OU that resolves to client, peer, orderer, or admin role. OUs: %s, MSP: [%s]", unitNames(units), m.name)
	}
	if count > 1 {
		return fmt.Errorf("the identity must have a client, a peer, an orderer, or an admin OU role to be valid, not a combination of them. OUs: %s, MSP: [%s]", unitNames(units), m.name)
	}
	return nil
}

// organizationalUnits lists the units of the certificate's subject with the hash over its CA chain; none if it has no chain.
func (m *MSP) organizationalUnits(id *Identity) []unit {
	chain, err := id.chain()
	if err != nil {
		return nil
	}
	certifier, err := m.chainIdentifier(chain[1:])
	if err != nil {
		return nil
	}
	var units []unit
	for _, name := range id.cert.Subject.OrganizationalUnit {
		units = append(units, unit{name, certifier})
	}
	return units
}

func unitNames(units []unit) []string {
	names := make([]string, 0, len(units))
	for _, u := range units {
		names = append(names, fmt.Sprintf("%s(%X)", u.name, u.certifier[:8]))
	}
	return names
}

// identifierHash is the hash that identifies certificates and chains.
func (m *MSP) identifierHash(parts ...[]byte) ([]byte, error) {
	whole := parts[0]
	if len(parts) > 1 {
		whole = bytes.Join(parts, nil)
	}
	switch m.identifierFamily {
	case "SHA256":
		sum := sha256.Sum256(whole)
		return sum[:], nil
	case "SHA384":
		sum := sha512.Sum384(whole)
		return sum[:], nil
	case "SHA3_256":
		sum := sha3.Sum256(whole)
		return sum[:], nil
	case "SHA3_384":
		sum := sha3.Sum384(whole)
		return sum[:], nil
	}
	return nil, fmt.Errorf("failed getting hash function options: hash function not recognized [%s]", m.identifierFamily)
}

// signatureHash is the hash under ECDSA signatures: SHA-256 for every curve.
func (m *MSP) signatureHash(msg []byte) ([sha256.Size]byte, error) {
	switch m.signatureFamily {
	case "SHA2":
		return sha256.Sum256(msg), nil
	case "SHA3":
		return sha3.Sum256(msg), nil
	}
	return [sha256.Size]byte{}, fmt.Errorf("failed getting hash function options: hash family not recognized [%s]", m.signatureFamily)
}
