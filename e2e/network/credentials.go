package network

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Credentials are files that a stock client is given.
type Credentials struct {
	MSPID       string `json:"mspId"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

// NewKey is a P-256 key.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Issue makes a certificate of a client, with an issuer of the test's choice, and keeps it in the network's folder.
func (n *Network) Issue(name, mspID string, until time.Time, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) Credentials {
	t := n.t
	t.Helper()
	key := NewKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name, OrganizationalUnit: []string{"client"}},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	if issuer.NotBefore.After(template.NotBefore) {
		template.NotBefore = issuer.NotBefore
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := Credentials{mspID, filepath.Join(n.Dir, name+".crt"), filepath.Join(n.Dir, name+".key")}
	for file, block := range map[string]*pem.Block{
		c.Certificate: {Type: "CERTIFICATE", Bytes: der},
		c.Key:         {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func decode(t testing.TB, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		t.Fatalf("%s holds no PEM", file)
	}
	return block.Bytes
}

// ReadCertificate reads a PEM file.
func ReadCertificate(t testing.TB, file string) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(decode(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ReadKey reads a PEM file with a PKCS #8 key.
func ReadKey(t testing.TB, file string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(decode(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PrivateKey)
}
