// Package gateway_test points the stock Fabric clients for Node, @hyperledger/fabric-gateway and the older fabric-network, at a Hansa
// network that runs a stock Node contract. The tests themselves are the *.test.mjs files; Go starts the network, makes the identities
// that Hansa must refuse, and runs them.
package gateway_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/e2e/network"
)

func TestMain(m *testing.M) { network.Main(m) }

func TestStockClients(t *testing.T) {
	n := network.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	install(ctx, t)
	n.Deploy("asset-node", "asset", "--collections", "collections.json")
	n.Deploy("asset", "both", "--policy", "AND('Org1MSP.peer','Org2MSP.peer')")

	setup, err := json.Marshal(describe(t, n))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"gateway.test.mjs", "errors.test.mjs", "legacy.test.mjs"} {
		t.Run(file, func(t *testing.T) {
			node := exec.CommandContext(ctx, "node", "--test", "--test-timeout=60000", "--test-reporter=spec", file)
			node.Env = append(os.Environ(), "HANSA_NETWORK="+string(setup), "HFC_LOGGING={}")
			out, err := node.CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
		})
	}
}

func install(ctx context.Context, t *testing.T) {
	t.Helper()
	if _, err := os.Stat("node_modules/@hyperledger/fabric-gateway"); err == nil {
		return
	}
	out, err := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts").CombinedOutput()
	if err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}

// setup is what setup.mjs reads from HANSA_NETWORK.
type setup struct {
	Channel string            `json:"channel"`
	Members map[string]member `json:"members"`
	// Refused are identities that the network must not accept, by what is wrong with them.
	Refused map[string]credentials `json:"refused"`
}

type member struct {
	Address string      `json:"address"`
	TLSRoot string      `json:"tlsRoot"`
	Profile string      `json:"profile"`
	User    credentials `json:"user"`
}

type credentials struct {
	MSPID       string `json:"mspId"`
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

func describe(t *testing.T, n *network.Network) setup {
	plan := n.Plan()
	s := setup{Channel: plan.Channel, Members: map[string]member{}, Refused: map[string]credentials{}}
	for _, m := range plan.Members {
		msp := plan.UserMSP(m, "User1")
		s.Members[m.Name] = member{
			Address: m.Peers[0].Address(), TLSRoot: plan.TLSRoots(m), Profile: filepath.Join(n.Dir, "members", m.Name, "connection.json"),
			User: credentials{m.MSPID, only(t, msp, "signcerts"), only(t, msp, "keystore")},
		}
	}
	ca := filepath.Join(n.Dir, "crypto", "peerOrganizations", plan.Members[0].Domain, "ca")
	authority, key := readCertificate(t, only(t, ca, "*-cert.pem")), readKey(t, only(t, ca, "*_sk"))
	strangerKey := newKey(t)
	stranger := &x509.Certificate{Subject: pkix.Name{CommonName: "ca.org1.example.com"}, IsCA: true, BasicConstraintsValid: true}
	now := time.Now()
	s.Refused["expired"] = issue(t, n, "expired", "Org1MSP", now.Add(-time.Minute), authority, key)
	s.Refused["stranger"] = issue(t, n, "stranger", "Org1MSP", now.Add(time.Hour), stranger, strangerKey)
	s.Refused["unknownMember"] = issue(t, n, "unknown", "Org9MSP", now.Add(time.Hour), stranger, strangerKey)
	return s
}

// only is the one file that matches pattern in dir, or that the folder of that name holds.
func only(t *testing.T, dir, pattern string) string {
	t.Helper()
	path := filepath.Join(dir, pattern)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "*")
	}
	files, err := filepath.Glob(path)
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: one file is wanted, there are %d (%v)", path, len(files), err)
	}
	return files[0]
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func issue(t *testing.T, n *network.Network, name, mspID string, until time.Time, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) credentials {
	t.Helper()
	key := newKey(t)
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
	c := credentials{mspID, filepath.Join(n.Dir, name+".crt"), filepath.Join(n.Dir, name+".key")}
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

func decode(t *testing.T, file string) []byte {
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

func readCertificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(decode(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func readKey(t *testing.T, file string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(decode(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PrivateKey)
}
