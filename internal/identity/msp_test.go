package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

func newMSP(t testing.TB, o *identitytest.Org, opts identity.Options) *identity.MSP {
	t.Helper()
	m, err := identity.NewMSP(o.MSPConfig(t), nil, opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// verdict joins what Fabric tells apart as deserializing and validating.
func verdict(m *identity.MSP, leaf *identitytest.Leaf) error {
	id, err := m.Deserialize(identity.Serialize(m.ID(), leaf.PEM))
	if err != nil {
		return err
	}
	return id.Validate()
}

func want(t *testing.T, what string, err error, text string) {
	t.Helper()
	if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
		t.Errorf("%s: got %v, want %q", what, err, text)
	}
}

// certifyUnits replaces the CA certificate of the node OUs, which is the root's at first.
func certifyUnits(o *identitytest.Org, certPEM []byte) {
	n := o.Config.FabricNodeOus
	for _, u := range []*msppb.FabricOUIdentifier{n.ClientOuIdentifier, n.PeerOuIdentifier, n.AdminOuIdentifier, n.OrdererOuIdentifier} {
		u.Certificate = certPEM
	}
}

func TestNodeOUs(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	m := newMSP(t, o, identity.Options{})
	none := "the identity does not have an OU that resolves to client, peer, orderer, or admin role"
	two := "the identity must have a client, a peer, an orderer, or an admin OU role to be valid, not a combination of them"
	for _, c := range []struct {
		units []string
		want  string
	}{
		{[]string{"client"}, ""}, {[]string{"peer"}, ""}, {[]string{"admin"}, ""}, {[]string{"orderer"}, ""},
		{[]string{"sales", "peer"}, ""}, {nil, none}, {[]string{"sales"}, none}, {[]string{"Client"}, none},
		{[]string{"client", "admin"}, two}, {[]string{"peer", "peer"}, two},
	} {
		want(t, strings.Join(c.units, "+"), verdict(m, o.Issue(t, "x", c.units)), c.want)
	}

	o.Config.FabricNodeOus.Enable = false
	o.Config.Admins = [][]byte{o.Issue(t, "boss", nil).PEM}
	m = newMSP(t, o, identity.Options{})
	want(t, "node OUs off", verdict(m, o.Issue(t, "x", nil)), "")
}

// A node OU whose certificate is one CA's is worth nothing in another CA's certificates.
func TestNodeOUsAreBoundToTheirCertifier(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	a, b := o.NewCA(t, "a"), o.NewCA(t, "b")
	o.Config.IntermediateCerts = [][]byte{a.PEM, b.PEM}
	certifyUnits(o, a.PEM)
	m := newMSP(t, o, identity.Options{})
	want(t, "right CA", verdict(m, a.Issue(t, "x", []string{"peer"})), "")
	want(t, "other CA", verdict(m, b.Issue(t, "x", []string{"peer"})), "certifiersIdentifier does not match")
	certifyUnits(o, nil)
	m = newMSP(t, o, identity.Options{})
	want(t, "any CA", verdict(m, b.Issue(t, "x", []string{"peer"})), "")

	certifyUnits(o, identitytest.NewCA(t, "stranger").PEM)
	_, err := identity.NewMSP(o.MSPConfig(t), nil, identity.Options{})
	want(t, "a stranger's CA", err, "not in root or intermediate certs")
}

func TestOrganizationalUnits(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	o.Config.OrganizationalUnitIdentifiers = []*msppb.FabricOUIdentifier{{Certificate: o.PEM, OrganizationalUnitIdentifier: "sales"}}
	m := newMSP(t, o, identity.Options{})
	want(t, "in sales", verdict(m, o.Issue(t, "x", []string{"sales", "client"})), "")
	want(t, "not in sales", verdict(m, o.Issue(t, "x", []string{"client"})), "none of the identity's organizational units")
	want(t, "without units", verdict(m, o.Issue(t, "x", nil)), "does not contain an Organizational Unit (OU)")
}

func TestChains(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	units := []string{"client"}
	direct := o.Issue(t, "direct", units)
	want(t, "issued by the root", verdict(newMSP(t, o, identity.Options{}), direct), "")

	// An intermediate takes the right to issue identities from its parent, and a second level from the first.
	one := o.NewCA(t, "one")
	two := one.NewCA(t, "two")
	o.Config.IntermediateCerts = [][]byte{one.PEM}
	certifyUnits(o, nil)
	m := newMSP(t, o, identity.Options{})
	inner := "Parent certificate should be a leaf of the certification tree"
	want(t, "issued by the root above an intermediate", verdict(m, direct), inner)
	want(t, "issued by the intermediate", verdict(m, one.Issue(t, "x", units)), "")
	want(t, "issued by an intermediate that is not configured", verdict(m, two.Issue(t, "x", units)), "certificate signed by unknown authority")
	o.Config.IntermediateCerts = append(o.Config.IntermediateCerts, two.PEM)
	m = newMSP(t, o, identity.Options{})
	want(t, "issued by the first of two levels", verdict(m, one.Issue(t, "x", units)), inner)
	want(t, "issued by the second level", verdict(m, two.Issue(t, "x", units)), "")

	want(t, "another root of the same name", verdict(m, identitytest.NewCA(t, "ca.OrgMSP").Issue(t, "x", units)), "unknown authority")
	ca := two.NewCA(t, "three")
	want(t, "a CA as identity", verdict(m, &identitytest.Leaf{PEM: ca.PEM}), "cannot be used as an identity")
	want(t, "the root as identity", verdict(m, &identitytest.Leaf{PEM: o.PEM}), "cannot be used as an identity")
}

// The clock has no say: a certificate is judged at its own first second.
func TestValidityIsJudgedAtTheFirstSecond(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	m := newMSP(t, o, identity.Options{})
	at := func(from, to time.Time) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = from, to }
	}
	begin := o.Cert.NotBefore
	want(t, "expired", verdict(m, o.Issue(t, "x", []string{"client"}, at(begin, begin.Add(time.Minute)))), "")
	want(t, "in the future", verdict(m, o.Issue(t, "x", []string{"client"}, at(begin.AddDate(40, 0, 0), begin.AddDate(60, 0, 0)))), "")
	want(t, "before its CA", verdict(m, o.Issue(t, "x", []string{"client"}, at(begin.Add(-time.Minute), begin.AddDate(1, 0, 0)))), "expired or is not yet valid")
	want(t, "after its CA", verdict(m, o.Issue(t, "x", []string{"client"}, at(begin.AddDate(60, 0, 0), begin.AddDate(61, 0, 0)))), "expired or is not yet valid")

	id, err := m.Deserialize(identity.Serialize("OrgMSP", o.Issue(t, "x", nil, at(begin, begin.Add(time.Minute))).PEM))
	if err != nil || !id.ExpiresAt().Equal(begin.Add(time.Minute)) {
		t.Error(id.ExpiresAt(), err)
	}
}

func TestRevocation(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	bad, good := o.Issue(t, "bad", []string{"client"}), o.Issue(t, "good", []string{"client"})
	list := o.Revoke(t, bad.Cert)
	der, _ := pem.Decode(list)
	for name, raw := range map[string][]byte{"PEM": list, "DER": der.Bytes} {
		o.Config.RevocationList = [][]byte{raw}
		m := newMSP(t, o, identity.Options{})
		want(t, name+" revoked", verdict(m, bad), "The certificate has been revoked")
		want(t, name+" other", verdict(m, good), "")
	}

	// Someone else's list over the same serial number, even with the right key id, has no force.
	forger := identitytest.NewCA(t, "ca.OrgMSP", func(c *x509.Certificate) { c.SubjectKeyId = o.Cert.SubjectKeyId })
	o.Config.RevocationList = [][]byte{forger.Revoke(t, bad.Cert)}
	want(t, "forged list", verdict(newMSP(t, o, identity.Options{}), bad), "")
	o.Config.RevocationList = [][]byte{[]byte("nonsense")}
	_, err := identity.NewMSP(o.MSPConfig(t), nil, identity.Options{})
	want(t, "nonsense", err, "could not parse RevocationList")

	// A revoked intermediate breaks the configuration itself.
	sub := o.NewCA(t, "sub")
	o.Config.IntermediateCerts = [][]byte{sub.PEM}
	o.Config.RevocationList = [][]byte{o.Revoke(t, sub.Cert)}
	_, err = identity.NewMSP(o.MSPConfig(t), nil, identity.Options{})
	want(t, "revoked intermediate", err, "CA Certificate is not valid")
}

func TestKeyTypes(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key         crypto.Signer
		before, now string
	}{
		{identitytest.NewKey(t), "", ""},
		{p384, "", ""},
		{ed, "Ed25519 is not supported", ""},
		{rsaKey, "RSA is not supported", "RSA is not supported"},
	} {
		leaf := o.IssueTo(t, c.key, "x", []string{"client"})
		want(t, "V2_0", verdict(newMSP(t, o, identity.Options{}), leaf), c.before)
		m := newMSP(t, o, identity.Options{AllowEd25519: true})
		want(t, "V3_0", verdict(m, leaf), c.now)
		if c.now != "" {
			if _, err := identity.NewSigner("OrgMSP", leaf.PEM, c.key); err == nil {
				t.Error("signs with RSA")
			}
			continue
		}
		s := identitytest.Signer(t, "OrgMSP", leaf)
		for range 8 { // half of all raw ECDSA signatures are high-S
			sig, err := s.Sign([]byte("message"))
			if err != nil {
				t.Fatal(err)
			}
			id, err := m.Deserialize(s.Serialize())
			if err != nil {
				t.Fatal(err)
			}
			want(t, "own signature", id.Verify([]byte("message"), sig), "")
			want(t, "other message", id.Verify([]byte("massage"), sig), "The signature is invalid")
			want(t, "empty signature", id.Verify([]byte("message"), nil), "Invalid signature. Cannot be empty.")
		}
	}

	// CAs may have any of these keys.
	for _, key := range []crypto.Signer{p384, ed, rsaKey} {
		ca := identitytest.NewCAWithKey(t, "ca", key)
		o := identitytest.NewOrg(t, "OrgMSP")
		o.CA, o.Config.RootCerts = ca, [][]byte{ca.PEM}
		certifyUnits(o, nil)
		want(t, "issued by another kind of CA", verdict(newMSP(t, o, identity.Options{}), o.Issue(t, "x", []string{"peer"})), "")
	}
}

func TestPrincipals(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	named := o.Issue(t, "named", []string{"client"})
	o.Config.Admins = [][]byte{named.PEM}
	revoked := o.Issue(t, "revoked", []string{"admin"})
	o.Config.RevocationList = [][]byte{o.Revoke(t, revoked.Cert, named.Cert)}
	m := newMSP(t, o, identity.Options{})
	ids := map[string]*identity.Identity{}
	add := func(name string, leaf *identitytest.Leaf) {
		id, err := m.Deserialize(identity.Serialize("OrgMSP", leaf.PEM))
		if err != nil {
			t.Fatal(err)
		}
		ids[name] = id
	}
	for _, unit := range []string{"client", "peer", "admin", "orderer"} {
		add(unit, o.Issue(t, unit, []string{unit, "sales"}))
	}
	add("named", named)
	add("revoked", revoked)
	add("homeless", o.Issue(t, "homeless", nil))

	certifier := sha256.Sum256(ids["client"].MSP().Roots()[0].Raw)
	ou := func(msp, name string, certifier []byte) *msppb.MSPPrincipal {
		return principal(t, msppb.MSPPrincipal_ORGANIZATION_UNIT, &msppb.OrganizationUnit{MspIdentifier: msp, OrganizationalUnitIdentifier: name, CertifiersIdentifier: certifier})
	}
	both := func(ps ...*msppb.MSPPrincipal) *msppb.MSPPrincipal {
		return principal(t, msppb.MSPPrincipal_COMBINED, &msppb.CombinedPrincipal{Principals: ps})
	}
	exactly := func(name string) *msppb.MSPPrincipal {
		return &msppb.MSPPrincipal{PrincipalClassification: msppb.MSPPrincipal_IDENTITY, Principal: ids[name].Serialized()}
	}
	sales := ou("OrgMSP", "sales", certifier[:])
	anonymity := func(kind int32) *msppb.MSPPrincipal {
		return principal(t, msppb.MSPPrincipal_ANONYMITY, &msppb.MSPIdentityAnonymity{AnonymityType: msppb.MSPIdentityAnonymity_MSPIdentityAnonymityType(kind)})
	}
	for _, c := range []struct {
		what string
		p    *msppb.MSPPrincipal
		yes  string // who satisfies it
		no   string // what the peer is told, if it does not
	}{
		{"member", role("OrgMSP", msppb.MSPRole_MEMBER), "client peer admin orderer", ""},
		{"client", role("OrgMSP", msppb.MSPRole_CLIENT), "client", "The identity is not a [CLIENT] under this MSP [OrgMSP]: The identity does not contain OU [CLIENT], MSP: [OrgMSP]"},
		{"peer", role("OrgMSP", msppb.MSPRole_PEER), "peer", ""},
		{"orderer", role("OrgMSP", msppb.MSPRole_ORDERER), "orderer", "The identity is not a [ORDERER] under this MSP [OrgMSP]: The identity does not contain OU [ORDERER], MSP: [OrgMSP]"},
		{"admin", role("OrgMSP", msppb.MSPRole_ADMIN), "admin named", "The identity is not an admin under this MSP [OrgMSP]: The identity does not contain OU [ADMIN], MSP: [OrgMSP]"},
		{"unknown role", role("OrgMSP", 9), "", "invalid MSP role type 9"},
		{"other MSP", role("OtherMSP", msppb.MSPRole_MEMBER), "", "the identity is a member of a different MSP (expected OtherMSP, got OrgMSP)"},
		{"unit", sales, "client peer admin orderer", ""},
		{"unit of another CA", ou("OrgMSP", "sales", make([]byte, 32)), "", "The identities do not match"},
		{"unit of another MSP", ou("OtherMSP", "sales", certifier[:]), "", "the identity is a member of a different MSP (expected OtherMSP, got OrgMSP)"},
		{"identity", exactly("peer"), "peer", ""},
		{"revoked identity", exactly("revoked"), "", "The identities do not match"},
		{"no identity", &msppb.MSPPrincipal{PrincipalClassification: msppb.MSPPrincipal_IDENTITY, Principal: []byte("x")}, "", "invalid identity principal, not a certificate"},
		{"nominal", anonymity(0), "client peer admin orderer named revoked homeless", ""},
		{"anonymous", anonymity(1), "", "Principal is anonymous, but X.509 MSP does not support anonymous identities"},
		{"unknown anonymity", anonymity(5), "", "Unknown principal anonymity type: 5"},
		{"both", both(role("OrgMSP", msppb.MSPRole_PEER), both(sales)), "peer", ""},
		{"both, impossible", both(role("OrgMSP", msppb.MSPRole_PEER), exactly("client")), "", "The identities do not match"},
		{"none of nothing", both(), "", "No principals in CombinedPrincipal"},
		{"unknown kind", &msppb.MSPPrincipal{PrincipalClassification: 7}, "", "invalid principal type 7"},
		{"broken role", &msppb.MSPPrincipal{Principal: []byte{0xff}}, "", "could not unmarshal MSPRole from principal"},
		{"broken unit", &msppb.MSPPrincipal{PrincipalClassification: msppb.MSPPrincipal_ORGANIZATION_UNIT, Principal: []byte{0xff}}, "", "could not unmarshal OrganizationUnit from principal"},
		{"broken combination", &msppb.MSPPrincipal{PrincipalClassification: msppb.MSPPrincipal_COMBINED, Principal: []byte{0xff}}, "", "could not unmarshal CombinedPrincipal from principal"},
	} {
		for name, id := range ids {
			err := id.Satisfies(c.p)
			if yes := strings.Contains(" "+c.yes+" ", " "+name+" "); yes != (err == nil) {
				t.Errorf("%s by %s: %v", c.what, name, err)
			}
			if name == "peer" && c.no != "" {
				want(t, c.what, err, c.no)
			}
		}
	}
}

// Without node OUs there are members and named administrators only.
func TestPrincipalsWithoutNodeOUs(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	named := o.Issue(t, "named", nil)
	o.Config.Admins, o.Config.FabricNodeOus = [][]byte{named.PEM}, nil
	m := newMSP(t, o, identity.Options{})
	id, err := m.Deserialize(identity.Serialize("OrgMSP", o.Issue(t, "x", []string{"admin"}).PEM))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "member", id.Satisfies(role("OrgMSP", msppb.MSPRole_MEMBER)), "")
	want(t, "admin", id.Satisfies(role("OrgMSP", msppb.MSPRole_ADMIN)), "This identity is not an admin")
	want(t, "peer", id.Satisfies(role("OrgMSP", msppb.MSPRole_PEER)), "NodeOUs not activated. Cannot tell apart identities.")
	want(t, "orderer", id.Satisfies(role("OrgMSP", msppb.MSPRole_ORDERER)), "invalid MSP role type 4")
	admin, err := m.Deserialize(identity.Serialize("OrgMSP", named.PEM))
	if err != nil {
		t.Fatal(err)
	}
	want(t, "named admin", admin.Satisfies(role("OrgMSP", msppb.MSPRole_ADMIN)), "")
}

func principal(t testing.TB, class msppb.MSPPrincipal_Classification, m proto.Message) *msppb.MSPPrincipal {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return &msppb.MSPPrincipal{PrincipalClassification: class, Principal: raw}
}

func TestBadConfigurations(t *testing.T) {
	for text, edit := range map[string]func(c *msppb.FabricMSPConfig, o *identitytest.Org){
		"expected at least one CA certificate": func(c *msppb.FabricMSPConfig, o *identitytest.Org) { c.RootCerts = nil },
		"could not decode pem bytes":           func(c *msppb.FabricMSPConfig, o *identitytest.Org) { c.RootCerts = [][]byte{[]byte("x")} },
		"failed to traverse certificate verification chain": func(c *msppb.FabricMSPConfig, o *identitytest.Org) {
			c.RootCerts = append(c.RootCerts, o.Issue(t, "x", nil).PEM)
		},
		"unknown authority": func(c *msppb.FabricMSPConfig, o *identitytest.Org) {
			c.IntermediateCerts = [][]byte{identitytest.NewCA(t, "a").NewCA(t, "b").PEM}
		},
		"administrators must be declared when no admin ou classification is set": func(c *msppb.FabricMSPConfig, o *identitytest.Org) { c.FabricNodeOus.AdminOuIdentifier = nil },
		"admin 0 is invalid": func(c *msppb.FabricMSPConfig, o *identitytest.Org) {
			c.Admins = [][]byte{o.Issue(t, "x", []string{"peer"}).PEM}
		},
		"hash function not recognized [MD5]": func(c *msppb.FabricMSPConfig, o *identitytest.Org) {
			c.CryptoConfig = &msppb.FabricCryptoConfig{IdentityIdentifierHashFunction: "MD5"}
		},
		"(SN: ": func(c *msppb.FabricMSPConfig, o *identitytest.Org) {
			c.TlsRootCerts = [][]byte{o.Issue(t, "x", nil).PEM}
		},
	} {
		o := identitytest.NewOrg(t, "OrgMSP")
		edit(o.Config, o)
		_, err := identity.NewMSP(o.MSPConfig(t), nil, identity.Options{})
		want(t, "set up", err, text)
	}
	for text, conf := range map[string]*msppb.MSPConfig{
		"nil conf reference":          nil,
		"unsupported msp type 1":      {Type: 1},
		"unsupported msp type 2":      {Type: 2},
		"failed unmarshalling":        {Config: []byte{0xff}},
		"at least one CA certificate": {},
	} {
		_, err := identity.NewMSP(conf, nil, identity.Options{})
		want(t, "set up", err, text)
	}
	a, b := identitytest.NewOrg(t, "OrgMSP"), identitytest.NewOrg(t, "OrgMSP")
	_, err := identity.NewManager([]*identity.MSP{newMSP(t, a, identity.Options{}), newMSP(t, b, identity.Options{})})
	want(t, "two of one name", err, "Attempted to define two different versions of MSP: OrgMSP")
}
