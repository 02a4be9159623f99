package reconfigure_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/reconfigure"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// Fabric's configtxlator, in the folder that HANSA_FABRIC_BIN names, computes the same updates.
func TestUpdatesEqualConfigtxlators(t *testing.T) {
	bin := os.Getenv("HANSA_FABRIC_BIN")
	if bin == "" {
		t.Skip("HANSA_FABRIC_BIN is not set")
	}
	n := newNetwork(t, "acls: {qscc/GetChainInfo: Readers}\n")
	n.addOrg(t, "Delta")
	write(t, filepath.Join(n.dir, "new.pem"), n.tls["Carrier"].Issue(t, "o3", nil).PEM)
	c := n.Config
	stages := []*commonpb.Config{}
	stage := func() {
		t.Helper()
		r, err := c.Request()
		if err != nil {
			t.Fatal(err)
		}
		update := compare(t, bin, c.Bundle().Config(), mustStatus(t, c, r).Next.Config())
		if !proto.Equal(update, r.Update()) {
			t.Errorf("configtxlator: %v\nhere: %v", update, r.Update())
		}
		stages = append(stages, mustStatus(t, c, r).Next.Config())
	}
	for _, set := range []string{
		"batch.maxMessages=7",
		"batch.timeout=3s",
		"capabilities.application=V2_0",
		"policies.application.Endorsement=ANY Endorsement",
		"policies.application.Panel=OR('AlphaMSP.admin')",
		"policies.channel.Panel=ANY Readers",
		"acls.qscc/GetChainInfo=",
		"acls.qscc/GetBlockByNumber=Admins",
		"members.Alpha.anchorPeers=[\"a:1\"]",
		"members.Gamma=",
		"members.Beta.policies.Own=OR('BetaMSP.peer')",
		"members.Carrier.endpoints=[\"o9:7050\"]",
		"raft.electionTick=20",
		"maintenance=true",
	} {
		c = copyOf(n.Config)
		if err := c.Set(set, n.dir); err != nil {
			t.Fatal(err)
		}
		stage()
	}
	c = copyOf(n.Config)
	text := []byte("channel: trade\nconfiguration: 0\nmembers:\n  - {name: Alpha, mspId: AlphaMSP}\n  - {name: Beta, mspId: BetaMSP, endpoints: [\"b:7050\"]}\n" +
		"  - {name: Delta, mspId: DeltaMSP, mspDir: Delta}\n  - {name: Carrier, mspId: CarrierMSP, orderingOnly: true}\n")
	if err := c.EditYAML(text, n.dir); err != nil {
		t.Fatal(err)
	}
	stage()
	// Between any two of these, much changes at once; versions and what cannot be reached do not matter to the computation.
	for i, a := range stages {
		b := stages[(i+4)%len(stages)]
		want := compare(t, bin, a, b)
		got, err := channel.ComputeUpdate("trade", a, b)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(want, got) {
			t.Errorf("stage %d: configtxlator: %v\nhere: %v", i, want, got)
		}
	}
}

func copyOf(c *reconfigure.Config) *reconfigure.Config {
	copied := *c
	return &copied
}

func mustStatus(t *testing.T, c *reconfigure.Config, r *reconfigure.Request) *reconfigure.Status {
	t.Helper()
	s, err := c.Status(r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// compare has configtxlator compute an update.
func compare(t *testing.T, bin string, from, to *commonpb.Config) *commonpb.ConfigUpdate {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	for name, m := range map[string]proto.Message{"from": from, "to": to} {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		write(t, file(name), raw)
	}
	out, err := exec.Command(filepath.Join(bin, "configtxlator"), "compute_update", "--channel_id", "trade",
		"--original", file("from"), "--updated", file("to"), "--output", file("update")).CombinedOutput()
	if err != nil {
		t.Fatalf("configtxlator: %v\n%s", err, out)
	}
	raw, err := os.ReadFile(file("update"))
	if err != nil {
		t.Fatal(err)
	}
	update := &commonpb.ConfigUpdate{}
	if err := proto.Unmarshal(raw, update); err != nil {
		t.Fatal(err)
	}
	return update
}
