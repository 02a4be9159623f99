package channel_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hansa-ledger/hansa/internal/provision"
)

// Requests travel between hansa channel and Fabric's peer command, which HANSA_FABRIC_BIN and HANSA_FABRIC_CFG name, in both directions.
func TestRequestsWithFabricsPeerCommand(t *testing.T) {
	bin, cfg := os.Getenv("HANSA_FABRIC_BIN"), os.Getenv("HANSA_FABRIC_CFG")
	if bin == "" || cfg == "" {
		t.Skip("HANSA_FABRIC_BIN and HANSA_FABRIC_CFG are not set")
	}
	b := start(t)
	request := filepath.Join(b.Dir, "acl.request")
	peer := func(m provision.Member, args ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), filepath.Join(bin, "peer"), args...)
		c.Dir = t.TempDir()
		c.Env = append(os.Environ(), "FABRIC_CFG_PATH="+cfg, "CORE_PEER_LOCALMSPID="+m.MSPID, "CORE_PEER_MSPCONFIGPATH="+b.plan.UserMSP(m, "Admin"))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("peer %v: %v\n%s", args, err, out)
		}
	}
	b.Hansa("channel", "update", "--set", "acls.qscc/GetChainInfo=Writers", "--members", "org1", "--request", request)
	peer(b.plan.Members[1], "channel", "signconfigtx", "-f", request)
	b.said(b.Hansa("channel", "submit", request, "--members", "org1"), "signed by Admin@org2.example.com (Org2MSP)", "is in force")

	// The peer command signs once more when it submits.
	b.Hansa("channel", "update", "--set", "acls.qscc/GetChainInfo=", "--members", "org1", "--request", request)
	peer(b.plan.Members[2], "channel", "update", "-f", request, "-c", b.plan.Channel, "-o", b.plan.Orderers[0].Address(), "--tls", "--cafile", b.plan.OrdererTLSRoots())
	b.Await("the update", func() error {
		_, _, err := b.Run("channel", "config", "--data", b.Dir, "--sequence", "2")
		return err
	})
	b.said(b.Hansa("channel", "config"), "acls: {}")
}
