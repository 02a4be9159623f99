// Package stock_test drives a Hansa network with Fabric's own `peer` and `osnadmin` commands, as an administrator does who comes from
// Fabric. It runs where HANSA_FABRIC_BIN and HANSA_FABRIC_CFG name the folders of Fabric's binaries and of its sample configuration.
package stock_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/e2e/network"
)

func TestMain(m *testing.M) { network.Main(m) }

func TestPeerCommand(t *testing.T) {
	bin, cfg := os.Getenv("HANSA_FABRIC_BIN"), os.Getenv("HANSA_FABRIC_CFG")
	if bin == "" || cfg == "" {
		t.Skip("HANSA_FABRIC_BIN and HANSA_FABRIC_CFG are not set")
	}
	n := network.Start(t)
	n.Deploy("asset", "asset")
	plan := n.Plan()
	org1, org2 := plan.Members[0], plan.Members[1]
	users := filepath.Join(n.Dir, "crypto", "ordererOrganizations", "orderer.example.com", "users", "Admin@orderer.example.com", "tls")
	ca := filepath.Join(users, "ca.crt")

	env := append(os.Environ(), "FABRIC_CFG_PATH="+cfg, "CORE_PEER_TLS_ENABLED=true",
		"CORE_PEER_ADDRESS="+org1.Peers[0].Address(), "CORE_PEER_LOCALMSPID="+org1.MSPID,
		"CORE_PEER_MSPCONFIGPATH="+plan.UserMSP(org1, "Admin"), "CORE_PEER_TLS_ROOTCERT_FILE="+plan.TLSRoots(org1))
	run := func(want, program string, args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), filepath.Join(bin, program), args...)
		c.Env, c.Dir = env, t.TempDir()
		out, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Fatalf("%s %s: %v, %q is wanted\n%s", program, strings.Join(args, " "), err, want, out)
		}
		return string(out)
	}
	peer := func(want string, args ...string) string { t.Helper(); return run(want, "peer", args...) }
	ordered := func(args ...string) []string {
		return append(args, "-o", plan.Orderers[0].Address(), "--tls", "--cafile", ca)
	}

	peer("business", "channel", "list")
	peer(`"height":`, "channel", "getinfo", "-c", "business")
	peer("", ordered("channel", "fetch", "newest", "newest.block", "-c", "business")...)
	installed := peer("asset_1.0", "lifecycle", "chaincode", "queryinstalled")
	id := regexp.MustCompile(`asset_1\.0:[0-9a-f]{64}`).FindString(installed)
	peer("Version: 1.0, Sequence: 1", "lifecycle", "chaincode", "querycommitted", "-C", "business")
	peer("", ordered("lifecycle", "chaincode", "approveformyorg", "-C", "business", "-n", "asset", "--version", "2.0", "--sequence", "2", "--package-id", id)...)
	peer(org1.MSPID+": true", "lifecycle", "chaincode", "checkcommitreadiness", "-C", "business", "-n", "asset", "--version", "2.0", "--sequence", "2")
	peer("status:200", ordered("chaincode", "invoke", "-C", "business", "-n", "asset", "--waitForEvent",
		"-c", `{"Args":["CreateAsset","a1","blue","5","Ann","300"]}`,
		"--peerAddresses", org1.Peers[0].Address(), "--tlsRootCertFiles", plan.TLSRoots(org1),
		"--peerAddresses", org2.Peers[0].Address(), "--tlsRootCertFiles", plan.TLSRoots(org2))...)
	peer(`"Owner":"Ann"`, "chaincode", "query", "-C", "business", "-n", "asset", "-c", `{"Args":["ReadAsset","a1"]}`)

	admin := "127.0.0.1:" + strconv.Itoa(plan.Orderers[0].Admin)
	run(`"name": "business"`, "osnadmin", "channel", "list", "-o", admin, "--ca-file", ca,
		"--client-cert", filepath.Join(users, "client.crt"), "--client-key", filepath.Join(users, "client.key"))
}
