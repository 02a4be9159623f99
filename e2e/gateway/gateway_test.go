// Package gateway_test points the stock Fabric clients for Node, @hyperledger/fabric-gateway and the older fabric-network, at a Hansa
// network that runs a stock Node contract. The tests themselves are the *.test.mjs files; Go starts the network, makes the identities
// that Hansa must refuse, and runs them.
package gateway_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
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
	Refused map[string]network.Credentials `json:"refused"`
}

type member struct {
	Address string              `json:"address"`
	TLSRoot string              `json:"tlsRoot"`
	Profile string              `json:"profile"`
	User    network.Credentials `json:"user"`
}

func describe(t *testing.T, n *network.Network) setup {
	plan := n.Plan()
	s := setup{Channel: plan.Channel, Members: map[string]member{}, Refused: map[string]network.Credentials{}}
	for _, m := range plan.Members {
		msp := plan.UserMSP(m, "User1")
		s.Members[m.Name] = member{
			Address: m.Peers[0].Address(), TLSRoot: plan.TLSRoots(m), Profile: filepath.Join(n.Dir, "members", m.Name, "connection.json"),
			User: network.Credentials{MSPID: m.MSPID, Certificate: only(t, msp, "signcerts"), Key: only(t, msp, "keystore")},
		}
	}
	ca := filepath.Join(n.Dir, "crypto", "peerOrganizations", plan.Members[0].Domain, "ca")
	authority, key := network.ReadCertificate(t, only(t, ca, "*-cert.pem")), network.ReadKey(t, only(t, ca, "*_sk"))
	strangerKey := network.NewKey(t)
	stranger := &x509.Certificate{Subject: pkix.Name{CommonName: "ca.org1.example.com"}, IsCA: true, BasicConstraintsValid: true}
	now := time.Now()
	s.Refused["expired"] = n.Issue("expired", "Org1MSP", now.Add(-time.Minute), authority, key)
	s.Refused["stranger"] = n.Issue("stranger", "Org1MSP", now.Add(time.Hour), stranger, strangerKey)
	s.Refused["unknownMember"] = n.Issue("unknown", "Org9MSP", now.Add(time.Hour), stranger, strangerKey)
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
