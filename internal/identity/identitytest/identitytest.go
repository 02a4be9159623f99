// Package identitytest makes certificate authorities, members and signers for tests, with real keys in memory. It guarantees
// certificates as cryptogen lays them out (node OUs, CA hash as authority key id) and fails the test on every error. It is
// not for production: keys are never stored.
package identitytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// CA is a certificate authority: a root, or an intermediate made by NewCA of another one.
type CA struct {
	Cert *x509.Certificate
	PEM  []byte
	Key  crypto.Signer
}

// Leaf is an issued certificate.
type Leaf struct {
	Cert *x509.Certificate
	PEM  []byte
	Key  crypto.Signer
}

// NewKey makes an ECDSA P-256 key.
func NewKey(t testing.TB) crypto.Signer {
	t.Helper()
	return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
}

// NewCA makes a root. Each edit changes the certificate before it is signed.
func NewCA(t testing.TB, name string, edits ...func(*x509.Certificate)) *CA {
	t.Helper()
	return newCA(t, nil, name, NewKey(t), edits)
}

// NewCAWithKey is NewCA with a key of another kind.
func NewCAWithKey(t testing.TB, name string, key crypto.Signer, edits ...func(*x509.Certificate)) *CA {
	t.Helper()
	return newCA(t, nil, name, key, edits)
}

// NewCA makes an intermediate.
func (ca *CA) NewCA(t testing.TB, name string, edits ...func(*x509.Certificate)) *CA {
	t.Helper()
	return newCA(t, ca, name, NewKey(t), edits)
}

func newCA(t testing.TB, parent *CA, name string, key crypto.Signer, edits []func(*x509.Certificate)) *CA {
	t.Helper()
	template := base(t, name)
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	id := sha256.Sum256(must(x509.MarshalPKIXPublicKey(key.Public()))(t))
	template.SubjectKeyId = id[:]
	cert, raw := sign(t, template, parent, key, edits)
	return &CA{cert, raw, key}
}

// Issue makes a certificate with the given organizational units.
func (ca *CA) Issue(t testing.TB, name string, units []string, edits ...func(*x509.Certificate)) *Leaf {
	t.Helper()
	return ca.IssueTo(t, NewKey(t), name, units, edits...)
}

// IssueTo is Issue for a given key.
func (ca *CA) IssueTo(t testing.TB, key crypto.Signer, name string, units []string, edits ...func(*x509.Certificate)) *Leaf {
	t.Helper()
	template := base(t, name)
	template.Subject.OrganizationalUnit = units
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	cert, raw := sign(t, template, ca, key, edits)
	return &Leaf{cert, raw, key}
}

// Revoke makes a revocation list over the given certificates.
func (ca *CA) Revoke(t testing.TB, certs ...*x509.Certificate) []byte {
	t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: start, NextUpdate: start.AddDate(10, 0, 0)}
	for _, cert := range certs {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: start})
	}
	raw := must(x509.CreateRevocationList(rand.Reader, template, ca.Cert, ca.Key))(t)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: raw})
}

// start is when every certificate begins unless an edit says otherwise: long enough ago for wrong clocks.
var start = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

func base(t testing.TB, name string) *x509.Certificate {
	t.Helper()
	return &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)))(t),
		Subject:      pkix.Name{CommonName: name, Country: []string{"DE"}, Organization: []string{"Hansa"}},
		NotBefore:    start,
		NotAfter:     start.AddDate(50, 0, 0),
	}
}

func sign(t testing.TB, template *x509.Certificate, parent *CA, key crypto.Signer, edits []func(*x509.Certificate)) (*x509.Certificate, []byte) {
	t.Helper()
	for _, edit := range edits {
		edit(template)
	}
	issuer, issuerKey := template, key
	if parent != nil {
		issuer, issuerKey = parent.Cert, parent.Key
	}
	raw := must(x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey))(t)
	cert := must(x509.ParseCertificate(raw))(t)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

// Org is a member: a root CA and a configuration with node OUs (client, peer, admin, orderer), to be changed as a test wants.
type Org struct {
	*CA
	MSPID  string
	Config *msppb.FabricMSPConfig
}

// NewOrg makes a member.
func NewOrg(t testing.TB, mspID string) *Org {
	t.Helper()
	ca := NewCA(t, "ca."+mspID)
	tls := NewCA(t, "tlsca."+mspID)
	unit := func(name string) *msppb.FabricOUIdentifier {
		return &msppb.FabricOUIdentifier{Certificate: ca.PEM, OrganizationalUnitIdentifier: name}
	}
	return &Org{CA: ca, MSPID: mspID, Config: &msppb.FabricMSPConfig{
		Name:         mspID,
		RootCerts:    [][]byte{ca.PEM},
		TlsRootCerts: [][]byte{tls.PEM},
		FabricNodeOus: &msppb.FabricNodeOUs{
			Enable: true, ClientOuIdentifier: unit("client"), PeerOuIdentifier: unit("peer"),
			AdminOuIdentifier: unit("admin"), OrdererOuIdentifier: unit("orderer"),
		},
	}}
}

// MSPConfig is the member's configuration as a channel config holds it.
func (o *Org) MSPConfig(t testing.TB) *msppb.MSPConfig {
	t.Helper()
	return &msppb.MSPConfig{Config: must(proto.Marshal(o.Config))(t)}
}

// Signer makes a signer with the given organizational units, such as "peer".
func (o *Org) Signer(t testing.TB, units ...string) *identity.Signer {
	t.Helper()
	return Signer(t, o.MSPID, o.Issue(t, o.MSPID+" signer", units))
}

// Signer turns an issued certificate into a signer of mspID.
func Signer(t testing.TB, mspID string, leaf *Leaf) *identity.Signer {
	t.Helper()
	return must(identity.NewSigner(mspID, leaf.PEM, leaf.Key))(t)
}

// Manager sets up the members' MSPs under one verifier.
func Manager(t testing.TB, orgs ...*Org) *identity.Manager {
	t.Helper()
	v := identity.NewVerifier(identity.Config{})
	var msps []*identity.MSP
	for _, o := range orgs {
		msps = append(msps, must(identity.NewMSP(o.MSPConfig(t), v, identity.Options{}))(t))
	}
	return must(identity.NewManager(msps))(t)
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
