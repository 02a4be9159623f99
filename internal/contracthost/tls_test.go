package contracthost_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/contract"
	"github.com/hansa-ledger/hansa/internal/contracthost"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
)

// issue makes a certificate for a name, signed by itself, and gives both parts in PEM.
func issue(t *testing.T, name string) (certificate, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

func TestMutualTLS(t *testing.T) {
	m := newHost(t, contracthost.Config{})
	contractCert, contractKey := issue(t, "contract.example")
	peerCert, peerKey := issue(t, "peer.example")
	strangerCert, strangerKey := issue(t, "stranger.example")
	dir := t.TempDir()
	env := map[string]string{"CHAINCODE_SERVER_ADDRESS": "127.0.0.1:0", "CHAINCODE_ID": "notes:1", "CHAINCODE_TLS_DISABLED": "false"}
	for name, text := range map[string]string{"CHAINCODE_TLS_CERT": contractCert, "CHAINCODE_TLS_KEY": contractKey, "CHAINCODE_CLIENT_CA_CERT": peerCert} {
		env[name] = filepath.Join(dir, name)
		if err := os.WriteFile(env[name], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := contract.ConfigFromEnvironment(func(name string) string { return env[name] }, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", cfg.Address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- contract.ServeOn(ctx, l, *cfg, notes()) }()
	defer func() { cancel(); <-ended }()

	good := contractpackage.Connection{
		Address: l.Addr().String(), DialTimeout: 5 * time.Second, TLSRequired: true, RootCert: contractCert, Domain: "contract.example",
		ClientAuthRequired: true, ClientCert: peerCert, ClientKey: peerKey,
	}
	m.packages["notes"] = "notes:1"
	if err := m.host.Connect("notes:1", &good); err != nil {
		t.Fatal(err)
	}
	m.must(t, call("notes", "Put", "a", "1"))

	for want, change := range map[string]func(c *contractpackage.Connection){
		"expired while starting": func(c *contractpackage.Connection) { c.ClientCert, c.ClientKey = strangerCert, strangerKey },
		"unknown authority":      func(c *contractpackage.Connection) { c.RootCert = strangerCert },
		"not else.example":       func(c *contractpackage.Connection) { c.Domain = "else.example" },
		"could not launch":       func(c *contractpackage.Connection) { c.TLSRequired = false },
	} {
		bad := good
		bad.DialTimeout = 100 * time.Millisecond
		change(&bad)
		if err := m.host.Connect("notes:1", &bad); err != nil {
			t.Fatal(err)
		}
		_, _, err := m.execute(t.Context(), "notes:1", call("notes", "Get", "a"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	bad := good
	bad.RootCert = "none"
	if err := m.host.Connect("notes:1", &bad); err == nil || !strings.Contains(err.Error(), "root_cert") {
		t.Error(err)
	}
	bad = good
	bad.ClientKey = "none"
	if err := m.host.Connect("notes:1", &bad); err == nil || !strings.Contains(err.Error(), "client_key") {
		t.Error(err)
	}
}
