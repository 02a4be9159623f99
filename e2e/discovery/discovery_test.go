// Package discovery_test points the older stock Fabric client for Node, with service discovery, at a Hansa network of
// three members: it gets the address of one peer and nothing else.
package discovery_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/e2e/network"
)

func TestMain(m *testing.M) { network.Main(m) }

func TestStockClientDiscovers(t *testing.T) {
	n := network.Start(t, "--members", "3")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	install(ctx, t)
	n.Deploy("asset", "all", "--policy", "AND('Org1MSP.peer','Org2MSP.peer','Org3MSP.peer')")
	n.Deploy("asset", "two", "--policy", "OutOf(2,'Org1MSP.peer','Org2MSP.peer','Org3MSP.peer')")
	n.Deploy("asset", "two", "--policy", "OutOf(2,'Org1MSP.peer','Org2MSP.peer','Org3MSP.peer')") // an upgrade
	n.Deploy("asset", "others", "--policy", "AND('Org2MSP.peer','Org3MSP.member')")

	plan := n.Plan()
	m := plan.Members[0]
	msp := plan.UserMSP(m, "User1")
	setup, err := json.Marshal(map[string]string{
		"channel": plan.Channel, "mspId": m.MSPID, "address": m.Peers[0].Address(), "tlsRoot": plan.TLSRoots(m),
		"certificate": only(t, filepath.Join(msp, "signcerts")), "key": only(t, filepath.Join(msp, "keystore")),
	})
	if err != nil {
		t.Fatal(err)
	}
	node := exec.CommandContext(ctx, "node", "--test", "--test-timeout=60000", "--test-reporter=spec", "discovery.test.mjs")
	node.Env = append(os.Environ(), "HANSA_NETWORK="+string(setup), "HFC_LOGGING={}")
	out, err := node.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func install(ctx context.Context, t *testing.T) {
	t.Helper()
	if _, err := os.Stat("node_modules/fabric-network"); err == nil {
		return
	}
	out, err := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts").CombinedOutput()
	if err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}

// only is the one file in dir.
func only(t *testing.T, dir string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: one file is wanted, there are %d (%v)", dir, len(files), err)
	}
	return files[0]
}
