package channel_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// authority is a certificate authority of a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: []string{name}}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(name),
	}
	a.pem, a.key = a.issue(template, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	block, _ := pem.Decode(a.pem)
	var err error
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) issue(template *x509.Certificate, notBefore, notAfter time.Time) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = notBefore, notAfter
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key
}

// org is a member of a test network.
type org struct {
	name      string
	dir       string
	ca, tlsCA *authority
}

const nodeOUs = `NodeOUs:
  Enable: true
  ClientOUIdentifier: {OrganizationalUnitIdentifier: client}
  PeerOUIdentifier: {OrganizationalUnitIdentifier: peer}
  AdminOUIdentifier: {OrganizationalUnitIdentifier: admin}
  OrdererOUIdentifier: {OrganizationalUnitIdentifier: orderer}
`

func newOrg(t testing.TB, dir, name string) *org {
	t.Helper()
	o := &org{name: name, dir: filepath.Join(dir, name), ca: newAuthority(t, "ca."+name), tlsCA: newAuthority(t, "tlsca."+name)}
	write(t, filepath.Join(o.dir, "cacerts", "ca.pem"), o.ca.pem)
	write(t, filepath.Join(o.dir, "tlscacerts", "ca.pem"), o.tlsCA.pem)
	write(t, filepath.Join(o.dir, "config.yaml"), []byte(nodeOUs))
	return o
}

func write(t testing.TB, file string, raw []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (o *org) mspID() string { return o.name + "MSP" }

// signer enrols somebody with a role: admin, client, peer or orderer.
func (o *org) signer(role string) *identity.Signer {
	o.ca.t.Helper()
	cert, key := o.ca.issue(&x509.Certificate{Subject: pkix.Name{CommonName: role, OrganizationalUnit: []string{role}}, KeyUsage: x509.KeyUsageDigitalSignature}, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	s, err := identity.NewSigner(o.mspID(), cert, key)
	if err != nil {
		o.ca.t.Fatal(err)
	}
	return s
}

// tlsCert makes a TLS certificate for a node.
func (o *org) tlsCert(host string, notAfter time.Time) []byte {
	return o.tlsCertFrom(host, time.Now().Add(-time.Hour), notAfter)
}

func (o *org) tlsCertFrom(host string, notBefore, notAfter time.Time) []byte {
	cert, _ := o.tlsCA.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: host}, DNSNames: []string{host}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, notBefore, notAfter)
	return cert
}

// network is a channel with keys: members Alpha, Beta and Gamma, orderers of Carrier.
type network struct {
	t           testing.TB
	orgs        map[string]*org
	admins      map[string]*identity.Signer
	clientAlpha *identity.Signer
	*channel.Bundle
}

func newNetwork(t testing.TB, orderers int, more string) *network {
	t.Helper()
	dir := t.TempDir()
	n := &network{t: t, orgs: map[string]*org{}, admins: map[string]*identity.Signer{}}
	text := strings.Builder{}
	text.WriteString("channel: trade\nmembers:\n")
	for _, name := range []string{"Alpha", "Beta", "Gamma", "Carrier"} {
		o := newOrg(t, dir, name)
		n.orgs[name], n.admins[name] = o, o.signer("admin")
		fmt.Fprintf(&text, "  - {name: %s, mspId: %sMSP, mspDir: %s, orderingOnly: %v}\n", name, name, name, name == "Carrier")
	}
	n.clientAlpha = n.orgs["Alpha"].signer("client")
	text.WriteString("orderers:\n")
	for i := range orderers {
		file := fmt.Sprintf("tls%d.pem", i)
		write(t, filepath.Join(dir, file), n.orgs["Carrier"].tlsCert("o", time.Now().Add(time.Hour)))
		fmt.Fprintf(&text, "  - {member: Carrier, host: o%d, port: 7050, tlsCert: %s, identity: %s}\n", i, file, file)
	}
	text.WriteString(more)
	var err error
	if n.Bundle, err = channel.FromBlock(mustGenesis(t, text.String(), dir), verifier()); err != nil {
		t.Fatal(err)
	}
	return n
}

// sign signs an update as several people.
func (n *network) sign(update *commonpb.ConfigUpdate, signers ...*identity.Signer) *commonpb.Envelope {
	n.t.Helper()
	raw, err := proto.Marshal(update)
	if err != nil {
		n.t.Fatal(err)
	}
	env := &commonpb.ConfigUpdateEnvelope{ConfigUpdate: raw}
	for _, s := range signers {
		header, err := proto.Marshal(&commonpb.SignatureHeader{Creator: s.Serialize(), Nonce: envelope.NewNonce()})
		if err != nil {
			n.t.Fatal(err)
		}
		signature, err := s.Sign(append(append([]byte{}, header...), raw...))
		if err != nil {
			n.t.Fatal(err)
		}
		env.Signatures = append(env.Signatures, &commonpb.ConfigSignature{SignatureHeader: header, Signature: signature})
	}
	return wrap(n.t, env)
}

// wrap puts an update into an envelope; its own signature is checked elsewhere.
func wrap(t testing.TB, env *commonpb.ConfigUpdateEnvelope) *commonpb.Envelope {
	t.Helper()
	marshal := func(m proto.Message) []byte {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	return &commonpb.Envelope{Payload: marshal(&commonpb.Payload{
		Header: &commonpb.Header{ChannelHeader: marshal(&commonpb.ChannelHeader{Type: int32(commonpb.HeaderType_CONFIG_UPDATE), ChannelId: "trade"})},
		Data:   marshal(env),
	})}
}

// edit computes the update that a change of the configuration needs.
func (n *network) edit(change func(root *commonpb.ConfigGroup)) *commonpb.ConfigUpdate {
	n.t.Helper()
	next := proto.CloneOf(n.Config())
	change(next.ChannelGroup)
	update, err := channel.ComputeUpdate(n.ID(), n.Config(), next)
	if err != nil {
		n.t.Fatal(err)
	}
	return update
}

// setValue replaces a value in place, by its encoding.
func setValue(t testing.TB, group *commonpb.ConfigGroup, key string, m proto.Message) {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if group.Values[key] == nil {
		group.Values[key] = &commonpb.ConfigValue{ModPolicy: "Admins"}
	}
	group.Values[key].Value = raw
}
