package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

func parsePEM(raw []byte) (*x509.Certificate, error) {
	if raw == nil {
		return nil, errors.New("getCertFromPem error: nil idBytes")
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, fmt.Errorf("getCertFromPem error: could not decode pem bytes [%d bytes]", len(raw))
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("getCertFromPem error: failed to parse x509 cert: %w", err)
	}
	return cert, nil
}

// setupCAs reads the member's roots and intermediates. Sanitising them needs pools of the raw ones, which are replaced after.
func (m *MSP) setupCAs(c *msppb.FabricMSPConfig) error {
	if len(c.RootCerts) == 0 {
		return errors.New("expected at least one CA certificate")
	}
	read := func(pems [][]byte, pool *x509.CertPool) (certs []*x509.Certificate, err error) {
		for _, raw := range pems {
			cert, err := parsePEM(raw)
			if err != nil {
				return nil, err
			}
			pool.AddCert(cert)
			certs = append(certs, cert)
		}
		return certs, nil
	}
	m.trust = x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	roots, err := read(c.RootCerts, m.trust.Roots)
	if err != nil {
		return err
	}
	intermediates, err := read(c.IntermediateCerts, m.trust.Intermediates)
	if err != nil {
		return err
	}
	clean := func(certs []*x509.Certificate) (out []*x509.Certificate, err error) {
		for _, cert := range certs {
			if _, err := m.verifier.publicKey(cert); err != nil {
				return nil, err
			}
			cert, _, err := m.sanitize(cert)
			if err != nil {
				return nil, err
			}
			if _, err := m.identifierHash(cert.Raw); err != nil {
				return nil, err
			}
			out = append(out, cert)
		}
		return out, nil
	}
	if m.roots, err = clean(roots); err != nil {
		return err
	}
	if m.intermediates, err = clean(intermediates); err != nil {
		return err
	}
	m.trust = x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	for _, cert := range m.roots {
		m.trust.Roots.AddCert(cert)
	}
	for _, cert := range m.intermediates {
		m.trust.Intermediates.AddCert(cert)
	}
	return nil
}

// checkCAs wants every CA to be one, and finds those that have an intermediate below them.
func (m *MSP) checkCAs() error {
	for _, cert := range append(append([]*x509.Certificate{}, m.roots...), m.intermediates...) {
		if err := checkCA(cert); err != nil {
			return err
		}
		chain, err := uniqueChain(cert, m.at(cert))
		if err != nil {
			err = fmt.Errorf("could not obtain certification chain: %w", err)
		} else if len(chain) > 1 {
			err = m.checkRevocation(cert, chain)
		}
		if err != nil {
			return fmt.Errorf("CA Certificate is not valid, (SN: %s): %w", cert.SerialNumber, err)
		}
	}
	m.inner = make(map[string]bool)
	for _, cert := range m.intermediates {
		chain, err := uniqueChain(cert, m.at(cert))
		if err != nil {
			return fmt.Errorf("failed getting validation chain, (SN: %s): %w", cert.SerialNumber, err)
		}
		for _, parent := range chain[1:] {
			m.inner[string(parent.Raw)] = true
		}
	}
	return nil
}

func checkCA(cert *x509.Certificate) error {
	if !cert.IsCA {
		return fmt.Errorf("CA Certificate did not have the CA attribute, (SN: %x)", cert.SerialNumber)
	}
	if _, err := subjectKeyID(cert); err != nil {
		return fmt.Errorf("CA Certificate problem with Subject Key Identifier extension, (SN: %x): %w", cert.SerialNumber, err)
	}
	return nil
}

func (m *MSP) setupTLS(c *msppb.FabricMSPConfig) error {
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	var certs []*x509.Certificate
	for _, set := range []struct {
		pems [][]byte
		pool *x509.CertPool
	}{{c.TlsRootCerts, opts.Roots}, {c.TlsIntermediateCerts, opts.Intermediates}} {
		for _, raw := range set.pems {
			cert, err := parsePEM(raw)
			if err != nil {
				return err
			}
			set.pool.AddCert(cert)
			certs = append(certs, cert)
		}
	}
	for _, cert := range certs {
		if err := checkCA(cert); err != nil {
			return err
		}
		opts.CurrentTime = cert.NotBefore.Add(time.Second)
		chain, err := uniqueChain(cert, opts)
		if err != nil {
			err = fmt.Errorf("could not obtain certification chain: %w", err)
		} else if len(chain) > 1 {
			err = m.checkRevocation(cert, chain)
		}
		if err != nil {
			return fmt.Errorf("CA Certificate is not valid, (SN: %s): %w", cert.SerialNumber, err)
		}
	}
	m.tlsRoots, m.tlsIntermediates = c.TlsRootCerts, c.TlsIntermediateCerts
	return nil
}

// at returns the trust anchors with the time set to the certificate's own first second: blocks must get the same verdict
// whenever they are replayed, so the clock has no say.
func (m *MSP) at(cert *x509.Certificate) x509.VerifyOptions {
	return x509.VerifyOptions{Roots: m.trust.Roots, Intermediates: m.trust.Intermediates, CurrentTime: cert.NotBefore.Add(time.Second)}
}

// uniqueChain wants exactly one way to the roots. It leaves the extended key usages to Go's default (server authentication, or
// none named), which is what Fabric does.
func uniqueChain(cert *x509.Certificate, opts x509.VerifyOptions) ([]*x509.Certificate, error) {
	chains, err := cert.Verify(opts)
	if err != nil {
		return nil, fmt.Errorf("the supplied identity is not valid: %w", err)
	}
	if len(chains) != 1 {
		return nil, fmt.Errorf("this MSP only supports a single validation chain, got %d", len(chains))
	}
	if err := legacyNameConstraints(chains[0]); err != nil {
		return nil, fmt.Errorf("the supplied identity is not valid: %w", err)
	}
	return chains[0], nil
}

// legacyNameConstraints refuses what Go refused until 1.14, when Fabric's ledgers began: below a CA with name constraints, a
// certificate without alternative names whose common name looks like a host name.
func legacyNameConstraints(chain []*x509.Certificate) error {
	has := func(cert *x509.Certificate, oid asn1.ObjectIdentifier) bool {
		for _, ext := range cert.Extensions {
			if ext.Id.Equal(oid) {
				return true
			}
		}
		return false
	}
	subjectAltName, nameConstraints := asn1.ObjectIdentifier{2, 5, 29, 17}, asn1.ObjectIdentifier{2, 5, 29, 30}
	if has(chain[0], subjectAltName) || !looksLikeHost(chain[0].Subject.CommonName) {
		return nil
	}
	for _, ca := range chain[1:] {
		if has(ca, nameConstraints) {
			return x509.CertificateInvalidError{Cert: chain[0], Reason: x509.NameConstraintsWithoutSANs}
		}
	}
	return nil
}

func looksLikeHost(name string) bool {
	name = strings.TrimSuffix(name, ".")
	if name == "" {
		return false
	}
	for i, label := range strings.Split(name, ".") {
		if label == "" {
			return false
		}
		if i == 0 && label == "*" {
			continue
		}
		for j, c := range label {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == ':', c == '-' && j != 0:
			default:
				return false
			}
		}
	}
	return true
}

// memberChain is the chain of a certificate that is used as an identity. known is the chain that sanitising found, if it is
// still the right one.
func (m *MSP) memberChain(cert *x509.Certificate, known []*x509.Certificate) ([]*x509.Certificate, error) {
	if cert.IsCA {
		return nil, errors.New("An X509 certificate with Basic Constraint: Certificate Authority equals true cannot be used as an identity")
	}
	return m.leafChain(cert, 1, known)
}

// leafChain wants the CA at position parent of the chain to have no intermediate below it: adding an intermediate CA makes
// identities that its parent issued directly invalid.
func (m *MSP) leafChain(cert *x509.Certificate, parent int, known []*x509.Certificate) ([]*x509.Certificate, error) {
	chain := known
	if chain == nil {
		var err error
		if chain, err = uniqueChain(cert, m.at(cert)); err != nil {
			return nil, fmt.Errorf("failed getting validation chain: %w", err)
		}
	}
	if len(chain) < 2 {
		return nil, fmt.Errorf("expected a chain of length at least 2, got %d", len(chain))
	}
	if m.inner[string(chain[parent].Raw)] {
		return nil, fmt.Errorf("invalid validation chain. Parent certificate should be a leaf of the certification tree [%s]", cert.Subject)
	}
	return chain, nil
}

func (m *MSP) chainIdentifier(chain []*x509.Certificate) ([]byte, error) {
	parts := make([][]byte, len(chain))
	for i, cert := range chain {
		parts[i] = cert.Raw
	}
	return m.identifierHash(parts...)
}

// certifier hashes the chain of the CA (given in PEM form, one of the MSP's own) that certifies an organizational unit.
func (m *MSP) certifier(certPEM []byte) ([]byte, error) {
	cert, err := parsePEM(certPEM)
	if err != nil {
		return nil, fmt.Errorf("Failed getting certificate for [%s]: [%s]", firstLine(certPEM), err)
	}
	if cert, _, err = m.sanitize(cert); err != nil {
		return nil, fmt.Errorf("sanitizeCert failed %w", err)
	}
	chain := []*x509.Certificate{cert}
	if !contains(m.roots, cert) {
		if !contains(m.intermediates, cert) {
			return nil, fmt.Errorf("Failed adding OU. Certificate [%s] not in root or intermediate certs.", cert.Subject)
		}
		if chain, err = m.leafChain(cert, 0, nil); err != nil {
			return nil, fmt.Errorf("Failed computing validation chain for [%s]. [%s]", cert.Subject, err)
		}
	}
	return m.chainIdentifier(chain)
}

func contains(certs []*x509.Certificate, cert *x509.Certificate) bool {
	for _, one := range certs {
		if one.Equal(cert) {
			return true
		}
	}
	return false
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return line[:min(len(line), 80)]
}

// sanitize returns cert with its ECDSA signature in low-S form (two encodings of one certificate would be two identities), and
// the chain it found on the way where that is the certificate's own. A certificate signed otherwise comes back untouched and
// unverified.
func (m *MSP) sanitize(cert *x509.Certificate) (*x509.Certificate, []*x509.Certificate, error) {
	switch cert.SignatureAlgorithm {
	case x509.ECDSAWithSHA1, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
	default:
		return cert, nil, nil
	}
	opts := m.at(cert)
	if cert.IsCA && cert.CheckSignatureFrom(cert) == nil {
		clean, err := lowSCertificate(cert, cert)
		if err != nil {
			return nil, nil, err
		}
		opts.Roots = x509.NewCertPool()
		opts.Roots.AddCert(clean)
		if _, err := uniqueChain(clean, opts); err != nil {
			return nil, nil, err
		}
		return clean, nil, nil
	}
	chain, err := uniqueChain(cert, opts)
	if err != nil {
		return nil, nil, err
	}
	if len(chain) <= 1 {
		return nil, nil, fmt.Errorf("failed to traverse certificate verification chain for leaf or intermediate certificate, with subject %s", cert.Subject)
	}
	clean, err := lowSCertificate(cert, chain[1])
	if err != nil {
		return nil, nil, err
	}
	if clean != cert {
		chain = nil
	}
	return clean, chain, nil
}

// lowSCertificate replaces the signature of cert, made by issuer, by its low-S twin; cert itself if it is low-S already.
func lowSCertificate(cert, issuer *x509.Certificate) (*x509.Certificate, error) {
	pub, ok := issuer.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("certificate of %s has an ECDSA signature, but its issuer has no ECDSA key", cert.Subject)
	}
	r, s, err := unmarshalSignature(cert.Signature)
	if err != nil {
		return nil, err
	}
	half, err := halfOrder(pub.Curve)
	if err != nil {
		return nil, err
	}
	if s.Cmp(half) > 0 {
		s.Sub(pub.Params().N, s)
	}
	sig, err := asn1.Marshal(ecdsaSignature{r, s})
	if err != nil {
		return nil, err
	}
	if bytes.Equal(sig, cert.Signature) {
		return cert, nil
	}
	var outer struct {
		TBS       asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(cert.Raw, &outer); err != nil {
		return nil, fmt.Errorf("unmarshalling of the certificate failed: %w", err)
	}
	outer.Signature = asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
	raw, err := asn1.Marshal(outer)
	if err != nil {
		return nil, fmt.Errorf("marshalling of the certificate failed: %w", err)
	}
	return x509.ParseCertificate(raw)
}

// revocationList is a CRL. It has force over certificates whose issuer's subject key id equals its authority key id and whose
// issuer signed it; the latter is checked when it matters.
type revocationList struct {
	list         *pkix.CertificateList
	authority    []byte
	authorityErr error
	serials      map[string]bool
}

func (m *MSP) setupRevocation(lists [][]byte) error {
	for _, raw := range lists {
		//lint:ignore SA1019 its successor refuses lists that Fabric accepts (a missing nextUpdate or number, for example)
		list, err := x509.ParseCRL(raw)
		if err != nil {
			return fmt.Errorf("could not parse RevocationList: %w", err)
		}
		if isECDSA(list.SignatureAlgorithm.Algorithm) {
			r, s, err := unmarshalSignature(list.SignatureValue.RightAlign())
			if err != nil {
				return err
			}
			sig, err := asn1.Marshal(ecdsaSignature{r, s})
			if err != nil {
				return err
			}
			list.SignatureValue = asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
		}
		one := revocationList{list: list, serials: make(map[string]bool)}
		one.authority, one.authorityErr = authorityKeyID(list)
		for _, cert := range list.TBSCertList.RevokedCertificates {
			one.serials[cert.SerialNumber.String()] = true
		}
		m.revoked = append(m.revoked, one)
	}
	return nil
}

func isECDSA(algorithm asn1.ObjectIdentifier) bool {
	for _, one := range []asn1.ObjectIdentifier{
		{1, 2, 840, 10045, 4, 1}, {1, 2, 840, 10045, 4, 3, 2}, {1, 2, 840, 10045, 4, 3, 3}, {1, 2, 840, 10045, 4, 3, 4},
	} {
		if one.Equal(algorithm) {
			return true
		}
	}
	return false
}

// checkRevocation ignores the dates in a CRL: it has force from the config block that brings it.
func (m *MSP) checkRevocation(cert *x509.Certificate, chain []*x509.Certificate) error {
	issuer, err := subjectKeyID(chain[1])
	if err != nil {
		return fmt.Errorf("could not obtain Subject Key Identifier for signer cert: %w", err)
	}
	for _, one := range m.revoked {
		if one.authorityErr != nil {
			return fmt.Errorf("could not obtain Authority Key Identifier for crl: %w", one.authorityErr)
		}
		if !bytes.Equal(one.authority, issuer) || !one.serials[cert.SerialNumber.String()] {
			continue
		}
		//lint:ignore SA1019 it belongs to ParseCRL
		if chain[1].CheckCRLSignature(one.list) != nil {
			continue // someone else's list
		}
		return errors.New("The certificate has been revoked")
	}
	return nil
}

// authorityKeyID reads the authority key identifier of a CRL (RFC 5280, section 5.2.1).
func authorityKeyID(list *pkix.CertificateList) ([]byte, error) {
	for _, ext := range list.TBSCertList.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 35}) {
			continue
		}
		var id struct {
			Key    []byte  `asn1:"optional,tag:0"`
			Issuer []byte  `asn1:"optional,tag:1"`
			Serial big.Int `asn1:"optional,tag:2"`
		}
		if _, err := asn1.Unmarshal(ext.Value, &id); err != nil {
			return nil, fmt.Errorf("failed to unmarshal AKI: %w", err)
		}
		return id.Key, nil
	}
	return nil, errors.New("authorityKeyIdentifier not found in certificate")
}

// subjectKeyID differs from x509.Certificate.SubjectKeyId in telling an empty identifier from a missing one.
func subjectKeyID(cert *x509.Certificate) ([]byte, error) {
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 14}) {
			continue
		}
		var id []byte
		if _, err := asn1.Unmarshal(ext.Value, &id); err != nil {
			return nil, fmt.Errorf("failed to unmarshal Subject Key Identifier: %w", err)
		}
		return id, nil
	}
	return nil, errors.New("subjectKeyIdentifier not found in certificate")
}
