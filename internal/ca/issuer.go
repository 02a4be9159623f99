package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/mail"
	"net/url"
	"os"
	"strings"
	"time"
)

// Profiles of a certificate: what it may be used for.
const (
	// ProfileEnrollment signs transactions; it is the profile of a request that names none.
	ProfileEnrollment = ""
	// ProfileTLS is for servers and clients of TLS.
	ProfileTLS = "tls"
	// ProfileCA is for an intermediate authority.
	ProfileCA = "ca"
)

// clockSkew is how far back a certificate's start is dated, so that a client whose clock is a little
// behind can use it at once.
const clockSkew = 5 * time.Minute

// attributeOID is the extension in which Fabric's client identity library looks for attributes.
var attributeOID = asn1.ObjectIdentifier{1, 2, 3, 4, 5, 6, 7, 8, 1}

// issuer is a signing certificate with its key and the chain above it. It is immutable.
type issuer struct {
	cert   *x509.Certificate
	above  []*x509.Certificate // from cert's parent up to the root; empty for a root
	signer crypto.Signer
}

// openIssuer reads the files, or makes a self-signed root when neither exists.
func openIssuer(files IssuerFiles, subject pkix.Name, validity time.Duration, now time.Time) (*issuer, error) {
	certPEM, certErr := os.ReadFile(files.CertFile)
	keyPEM, keyErr := os.ReadFile(files.KeyFile)
	switch {
	case errors.Is(certErr, os.ErrNotExist) && errors.Is(keyErr, os.ErrNotExist):
		if files.ChainFile != "" {
			return nil, fmt.Errorf("a chain file is given, but neither %s nor %s exists", files.CertFile, files.KeyFile)
		}
		return createRoot(files, subject, validity, now)
	case certErr != nil:
		return nil, fmt.Errorf("read issuing certificate (the key %s is there): %w", files.KeyFile, certErr)
	case keyErr != nil:
		return nil, fmt.Errorf("read issuing key (the certificate %s is there): %w", files.CertFile, keyErr)
	}
	if info, err := os.Stat(files.KeyFile); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key file %s can be read by others (mode %04o); run chmod 600 on it", files.KeyFile, info.Mode().Perm())
	}
	certs, err := ParseCertificates(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files.CertFile, err)
	}
	key, err := ParseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files.KeyFile, err)
	}
	pool := certs[1:]
	if files.ChainFile != "" {
		chainPEM, err := os.ReadFile(files.ChainFile)
		if err != nil {
			return nil, fmt.Errorf("read chain: %w", err)
		}
		chain, err := ParseCertificates(chainPEM)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", files.ChainFile, err)
		}
		pool = append(pool, chain...)
	}
	is, err := newIssuer(certs[0], pool, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", files.CertFile, err)
	}
	return is, nil
}

func newIssuer(cert *x509.Certificate, pool []*x509.Certificate, key crypto.Signer) (*issuer, error) {
	if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return nil, errors.New("is not the certificate of an authority (basic constraint CA and key usage 'cert sign' are needed)")
	}
	if len(cert.SubjectKeyId) == 0 {
		return nil, errors.New("has no subject key identifier, which Fabric's MSP needs in an authority's certificate")
	}
	public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(key.Public()) {
		return nil, errors.New("does not belong to the given private key")
	}
	is := &issuer{cert: cert, signer: lowS(key)}
	for at := cert; !isRoot(at); {
		parent := findParent(at, pool)
		if parent == nil {
			return nil, fmt.Errorf("the chain lacks the issuer of %q; put %q into the chain file", at.Subject, at.Issuer)
		}
		if len(is.above) == 16 {
			return nil, errors.New("the chain is longer than 16 certificates")
		}
		is.above = append(is.above, parent)
		at = parent
	}
	return is, nil
}

func isRoot(c *x509.Certificate) bool {
	return string(c.RawSubject) == string(c.RawIssuer) && c.CheckSignatureFrom(c) == nil
}

func findParent(c *x509.Certificate, pool []*x509.Certificate) *x509.Certificate {
	for _, p := range pool {
		if string(p.RawSubject) == string(c.RawIssuer) && !p.Equal(c) && c.CheckSignatureFrom(p) == nil {
			return p
		}
	}
	return nil
}

func createRoot(files IssuerFiles, subject pkix.Name, validity time.Duration, now time.Time) (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	signer := lowS(key)
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	ski, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	start := now.Add(-clockSkew).UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject, SubjectKeyId: ski,
		NotBefore: start, NotAfter: start.Add(validity),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("sign root certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	keyPEM, err := EncodeKey(key)
	if err != nil {
		return nil, err
	}
	// The key first: a crash between the two leaves a key without certificate, which the next start
	// reports, and never a published certificate whose key is lost.
	if err := writeFile(files.KeyFile, keyPEM, 0o600); err != nil {
		return nil, err
	}
	if err := writeFile(files.CertFile, EncodeCertificates(cert), 0o644); err != nil {
		return nil, err
	}
	return &issuer{cert: cert, signer: signer}, nil
}

// chain is the issuing certificate and all above it, the root last.
func (is *issuer) chain() []*x509.Certificate {
	return append([]*x509.Certificate{is.cert}, is.above...)
}

// Request describes a certificate to issue.
type Request struct {
	// ID is the enrollment ID, and the common name.
	ID string
	// Type is the identity's type (client, peer, orderer, admin), the first organizational unit.
	Type string
	// Affiliation, dotted, gives the further organizational units.
	Affiliation string
	// Subject holds the other names. Its common name and organizational units are not used. When it has
	// none of country, state, locality and organization, CA.Issue fills them from Config.Subject.
	Subject pkix.Name
	// PublicKey to certify: ECDSA on P-256 or P-384, or Ed25519.
	PublicKey crypto.PublicKey
	// Profile is ProfileEnrollment, ProfileTLS or ProfileCA.
	Profile string
	// Hosts become subject alternative names: IP addresses, e-mail addresses, URIs, else DNS names.
	Hosts []string
	// Attributes go into the certificate for contracts to read.
	Attributes map[string]string
	// NotBefore and NotAfter narrow the lifetime that the profile gives; zero is the profile's.
	NotBefore, NotAfter time.Time
}

// issue signs. The lifetime is the profile's, narrowed by the request and by the issuer's own.
func (is *issuer) issue(req Request, lifetime time.Duration, now time.Time) (*x509.Certificate, error) {
	if f := checkPublicKey(req.PublicKey); f != nil {
		return nil, f
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	ski, err := keyID(req.PublicKey)
	if err != nil {
		return nil, err
	}
	subject := req.Subject
	subject.CommonName = req.ID
	subject.OrganizationalUnit = nil
	subject.Names, subject.ExtraNames = nil, nil
	if req.Type != "" {
		subject.OrganizationalUnit = append(subject.OrganizationalUnit, req.Type)
	}
	if req.Affiliation != "" {
		subject.OrganizationalUnit = append(subject.OrganizationalUnit, strings.Split(req.Affiliation, ".")...)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject, SubjectKeyId: ski, BasicConstraintsValid: true,
		NotBefore: later(now.Add(-clockSkew), req.NotBefore, is.cert.NotBefore).UTC().Truncate(time.Second),
		NotAfter:  earlier(now.Add(lifetime), req.NotAfter, is.cert.NotAfter).UTC().Truncate(time.Second),
	}
	if !template.NotAfter.After(template.NotBefore) || !template.NotAfter.After(now) {
		return nil, refuse(400, codeBadCSR, "The certificate would be valid from %s to %s (the authority's own ends at %s); ask for a later end",
			template.NotBefore.Format(time.RFC3339), template.NotAfter.Format(time.RFC3339), is.cert.NotAfter.Format(time.RFC3339))
	}
	switch req.Profile {
	case ProfileEnrollment:
		template.KeyUsage = x509.KeyUsageDigitalSignature
	case ProfileTLS:
		template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageKeyAgreement
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	case ProfileCA:
		if is.cert.MaxPathLenZero {
			return nil, refuse(403, codeAuthorization, "This authority may not certify other authorities (its path length is 0); ask its parent")
		}
		template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
		template.IsCA, template.MaxPathLenZero = true, true
	default:
		return nil, refuse(400, codeUnknown, "Invalid profile: '%s'", req.Profile)
	}
	if f := setHosts(template, req.Hosts); f != nil {
		return nil, f
	}
	if len(req.Attributes) > 0 {
		ext, err := attributeExtension(req.Attributes)
		if err != nil {
			return nil, err
		}
		template.ExtraExtensions = append(template.ExtraExtensions, ext)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, is.cert, req.PublicKey, is.signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %q: %w", req.ID, err)
	}
	return x509.ParseCertificate(der)
}

// attributeExtension encodes {"attrs":{...}}; json.Marshal sorts the names.
func attributeExtension(attrs map[string]string) (pkix.Extension, error) {
	value, err := json.Marshal(struct {
		Attrs map[string]string `json:"attrs"`
	}{attrs})
	return pkix.Extension{Id: attributeOID, Value: value}, err
}

// revocationList signs a CRL of entries.
func (is *issuer) revocationList(entries []x509.RevocationListEntry, now time.Time, validity time.Duration) ([]byte, error) {
	if is.cert.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return nil, refuse(500, codeNoCRLSign, "The CA does not have authority to generate a CRL. Its certificate does not have 'crl sign' key usage")
	}
	now = now.UTC()
	return x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		RevokedCertificateEntries: entries,
		// RFC 5280 5.2.3: numbers grow monotonically; milliseconds do without a stored counter.
		Number:     big.NewInt(now.UnixMilli()),
		ThisUpdate: now, NextUpdate: now.Add(validity),
	}, is.cert, is.signer)
}

const (
	maxHosts     = 100
	maxHostBytes = 253
)

func setHosts(c *x509.Certificate, hosts []string) *fault {
	if len(hosts) > maxHosts {
		return refuse(400, codeBadCSR, "The request names %d hosts; at most %d are allowed", len(hosts), maxHosts)
	}
	for _, h := range hosts {
		if h == "" {
			continue
		}
		if ip := net.ParseIP(h); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
			continue
		}
		if strings.Contains(h, "@") && !strings.Contains(h, "://") {
			if addr, err := mail.ParseAddress(h); err == nil && addr.Address == h && ascii(h) {
				c.EmailAddresses = append(c.EmailAddresses, h)
				continue
			}
		}
		if u, err := url.ParseRequestURI(h); err == nil && u.Scheme != "" && u.Host != "" && ascii(h) {
			c.URIs = append(c.URIs, u)
			continue
		}
		if len(h) > maxHostBytes || !hostName(h) {
			return refuse(400, codeBadCSR, "Host '%.64s' is neither an IP address, an e-mail address, a URI nor a DNS name", h)
		}
		c.DNSNames = append(c.DNSNames, h)
	}
	return nil
}

func hostName(h string) bool {
	for _, r := range h {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.*", r)) {
			return false
		}
	}
	return true
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

func checkPublicKey(key crypto.PublicKey) *fault {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case ed25519.PublicKey:
		return nil
	}
	return refuse(400, codeBadCSR, "The key's algorithm is not supported; use ECDSA on P-256 or P-384, or Ed25519")
}

// keyID is the subject key identifier: SHA-256 over the public key's bits, as cryptogen and Fabric's
// key stores compute it.
func keyID(key crypto.PublicKey) ([]byte, error) {
	var bits []byte
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		b, err := k.Bytes()
		if err != nil {
			return nil, fmt.Errorf("encode public key: %w", err)
		}
		bits = b
	case ed25519.PublicKey:
		bits = k
	default:
		return nil, fmt.Errorf("no key identifier for %T", key)
	}
	sum := sha256.Sum256(bits)
	return sum[:], nil
}

// newSerial is 159 random bits: positive, and at most the 20 octets of RFC 5280.
func newSerial() (*big.Int, error) {
	for {
		n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
		if err != nil || n.Sign() > 0 {
			return n, err
		}
	}
}

func later(a time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if t.After(a) {
			a = t
		}
	}
	return a
}

func earlier(a time.Time, others ...time.Time) time.Time {
	for _, t := range others {
		if !t.IsZero() && t.Before(a) {
			a = t
		}
	}
	return a
}

// lowS makes an ECDSA signer give the smaller of the two values of s that verify. Fabric's MSP rewrites a
// certificate whose signature has the larger one; then the bytes that a client sends as its identity and
// those that peers compare would differ.
func lowS(key crypto.Signer) crypto.Signer {
	if k, ok := key.(*ecdsa.PrivateKey); ok {
		return lowSSigner{k}
	}
	return key
}

type lowSSigner struct{ key *ecdsa.PrivateKey }

func (s lowSSigner) Public() crypto.PublicKey { return s.key.Public() }

func (s lowSSigner) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	der, err := s.key.Sign(random, digest, opts)
	if err != nil {
		return nil, err
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return nil, fmt.Errorf("decode own signature: %w", err)
	}
	n := s.key.Curve.Params().N
	if sig.S.Cmp(new(big.Int).Rsh(n, 1)) <= 0 {
		return der, nil
	}
	sig.S.Sub(n, sig.S)
	return asn1.Marshal(sig)
}
