package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/provision"
)

// startFabric makes the suite run against nodes of Fabric itself, with the certificates and at the addresses of a Hansa network's: what a case
// expects should be what Fabric does. bin holds Fabric's binaries, cfg its sample configuration.
func startFabric(t *testing.T, n *network.Network, bin, cfg string) {
	t.Helper()
	plan := n.Plan()
	n.Down()
	// Only the certificate authorities stay Hansa's.
	rest := *plan
	rest.Orderers, rest.Members = nil, nil
	for _, m := range plan.Members {
		m.Peers = nil
		rest.Members = append(rest.Members, m)
	}
	write(t, filepath.Join(n.Dir, "network.yaml"), rest)
	n.Up()

	genesis := genesisOf(t, n)
	orderer := plan.Orderers[0]
	ordering := filepath.Join(n.Dir, "crypto", "ordererOrganizations", "orderer.example.com")
	folder := filepath.Join(ordering, "orderers", orderer.Name+".orderer.example.com")
	data := filepath.Join(n.Dir, "fabric", orderer.Name)
	crt, key, ca := filepath.Join(folder, "tls", "server.crt"), filepath.Join(folder, "tls", "server.key"), filepath.Join(folder, "tls", "ca.crt")
	env := []string{"FABRIC_CFG_PATH=" + cfg, "FABRIC_LOGGING_SPEC=WARNING",
		"ORDERER_GENERAL_LISTENADDRESS=" + provision.Host, "ORDERER_GENERAL_LISTENPORT=" + strconv.Itoa(orderer.Port), "ORDERER_GENERAL_BOOTSTRAPMETHOD=none",
		"ORDERER_GENERAL_LOCALMSPID=OrdererMSP", "ORDERER_GENERAL_LOCALMSPDIR=" + filepath.Join(folder, "msp"), "ORDERER_CHANNELPARTICIPATION_ENABLED=true",
		"ORDERER_FILELEDGER_LOCATION=" + filepath.Join(data, "ledger"), "ORDERER_CONSENSUS_WALDIR=" + filepath.Join(data, "wal"), "ORDERER_CONSENSUS_SNAPDIR=" + filepath.Join(data, "snap"),
		"ORDERER_OPERATIONS_LISTENADDRESS=" + local(orderer.Operations), "ORDERER_ADMIN_LISTENADDRESS=" + local(orderer.Admin), "ORDERER_ADMIN_TLS_CLIENTAUTHREQUIRED=true",
		"ORDERER_GENERAL_CLUSTER_CLIENTCERTIFICATE=" + crt, "ORDERER_GENERAL_CLUSTER_CLIENTPRIVATEKEY=" + key, "ORDERER_GENERAL_CLUSTER_ROOTCAS=[" + ca + "]"}
	for _, section := range []string{"GENERAL", "ADMIN"} {
		env = append(env, "ORDERER_"+section+"_TLS_ENABLED=true", "ORDERER_"+section+"_TLS_CERTIFICATE="+crt, "ORDERER_"+section+"_TLS_PRIVATEKEY="+key,
			"ORDERER_"+section+"_TLS_ROOTCAS=["+ca+"]", "ORDERER_"+section+"_TLS_CLIENTROOTCAS=["+ca+"]")
	}
	start(t, exec.Command(filepath.Join(bin, "orderer")), env)
	builder := serviceBuilder(t)
	for _, m := range plan.Members {
		start(t, exec.Command(filepath.Join(bin, "peer"), "node", "start"), peerEnvironment(n, m, cfg, builder))
	}

	admin := filepath.Join(ordering, "users", "Admin@orderer.example.com", "tls")
	tool(t, n, "osnadmin join", nil, filepath.Join(bin, "osnadmin"), "channel", "join", "--channelID", plan.Channel, "--config-block", genesis, "-o", local(orderer.Admin),
		"--ca-file", ca, "--client-cert", filepath.Join(admin, "client.crt"), "--client-key", filepath.Join(admin, "client.key"))
	for _, m := range plan.Members {
		tool(t, n, "peer channel join", []string{"FABRIC_CFG_PATH=" + cfg, "CORE_PEER_TLS_ENABLED=true", "CORE_PEER_ADDRESS=" + m.Peers[0].Address(), "CORE_PEER_LOCALMSPID=" + m.MSPID,
			"CORE_PEER_MSPCONFIGPATH=" + plan.UserMSP(m, "Admin"), "CORE_PEER_TLS_ROOTCERT_FILE=" + plan.TLSRoots(m)}, filepath.Join(bin, "peer"), "channel", "join", "-b", genesis)
	}
}

// genesisOf makes the channel's first block anew, with a batch timeout for which nobody waits long.
func genesisOf(t *testing.T, n *network.Network) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(n.Dir, "channel.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var spec map[string]any
	if err := yaml.Unmarshal(raw, &spec); err != nil {
		t.Fatal(err)
	}
	spec["batch"] = map[string]any{"timeout": "20ms"}
	file := filepath.Join(n.Dir, "quick.yaml")
	write(t, file, spec)
	block := filepath.Join(n.Dir, "quick.block")
	if stdout, stderr, err := n.Run("channel", "genesis", file, "--output", block); err != nil {
		t.Fatalf("%v\n%s%s", err, stdout, stderr)
	}
	return block
}

func peerEnvironment(n *network.Network, m provision.Member, cfg, builder string) []string {
	p := m.Peers[0]
	folder := filepath.Join(n.Dir, "crypto", "peerOrganizations", m.Domain, "peers", p.Name+"."+m.Domain)
	data := filepath.Join(n.Dir, "fabric", p.Name+"."+m.Name)
	return []string{"FABRIC_CFG_PATH=" + cfg, "FABRIC_LOGGING_SPEC=WARNING", "CORE_VM_ENDPOINT=",
		"CORE_PEER_ID=" + p.Name + "." + m.Domain, "CORE_PEER_ADDRESS=" + p.Address(), "CORE_PEER_LISTENADDRESS=" + p.Address(), "CORE_OPERATIONS_LISTENADDRESS=" + local(p.Operations),
		"CORE_PEER_CHAINCODELISTENADDRESS=" + local(p.Chaincode), "CORE_PEER_CHAINCODEADDRESS=" + local(p.Chaincode),
		"CORE_PEER_GOSSIP_BOOTSTRAP=" + p.Address(), "CORE_PEER_GOSSIP_EXTERNALENDPOINT=" + p.Address(),
		"CORE_PEER_GOSSIP_PVTDATA_RECONCILESLEEPINTERVAL=1s", "CORE_PEER_GOSSIP_PVTDATA_PULLRETRYTHRESHOLD=3s",
		"CORE_PEER_LOCALMSPID=" + m.MSPID, "CORE_PEER_MSPCONFIGPATH=" + filepath.Join(folder, "msp"), "CORE_PEER_TLS_ENABLED=true",
		"CORE_PEER_TLS_CERT_FILE=" + filepath.Join(folder, "tls", "server.crt"), "CORE_PEER_TLS_KEY_FILE=" + filepath.Join(folder, "tls", "server.key"),
		"CORE_PEER_TLS_ROOTCERT_FILE=" + filepath.Join(folder, "tls", "ca.crt"),
		"CORE_PEER_FILESYSTEMPATH=" + data, "CORE_LEDGER_SNAPSHOTS_ROOTDIR=" + filepath.Join(n.Dir, "nodes", p.Name+"."+m.Name, "data", "snapshots"), // where cases look
		"CORE_CHAINCODE_EXTERNALBUILDERS=[{name: ccaas, path: " + builder + "}]"}
}

func local(port int) string { return net.JoinHostPort(provision.Host, strconv.Itoa(port)) }

func write(t *testing.T, file string, value any) {
	t.Helper()
	raw, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// serviceBuilder is an external builder for packages of type ccaas, as Fabric's own.
func serviceBuilder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"detect":  `grep -q '"type": *"ccaas"' "$2/metadata.json"`,
		"build":   `cp "$1/connection.json" "$3/"; if [ -d "$1/META-INF" ]; then cp -r "$1/META-INF" "$3/"; fi`,
		"release": `mkdir -p "$2/chaincode/server" && cp "$1/connection.json" "$2/chaincode/server/"; if [ -d "$1/META-INF" ]; then cp -r "$1/META-INF/." "$2/"; fi`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Dir(dir)
}

// start runs a node until the test's end.
func start(t *testing.T, c *exec.Cmd, env []string) {
	t.Helper()
	var log bytes.Buffer
	c.Env, c.Stdout, c.Stderr = append(os.Environ(), env...), &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() && *only == "" {
			t.Logf("--- %s\n%s", c, log.Bytes()[max(0, log.Len()-4000):])
		}
	})
}

// tool runs one of Fabric's tools until it succeeds: nodes need a moment to serve.
func tool(t *testing.T, n *network.Network, what string, env []string, program string, args ...string) {
	t.Helper()
	n.Await(what, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c := exec.CommandContext(ctx, program, args...)
		c.Env = append(os.Environ(), env...)
		// osnadmin ends well whatever the answer is.
		if out, err := c.CombinedOutput(); err != nil || strings.Contains(string(out), "Status: 4") {
			return fmt.Errorf("%v\n%s", err, out)
		}
		return nil
	})
}

// notOnFabric are the features that cannot run there: those that use Hansa's own supervisor or certificate authorities, or wait less than
// Fabric's gossip takes; and JSON queries, for which Fabric wants a CouchDB.
var notOnFabric = []string{"certificate-authority", "json-queries", "node-down", "operations", "private-away"}

// difference is a case in which Fabric does not do what Hansa does.
type difference struct{ File, Name, Fabric string }

func differences(t *testing.T) (all []difference) {
	t.Helper()
	raw, err := os.ReadFile("differences.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatalf("differences.json: %v", err)
	}
	return all
}

// TestFabric runs the suite against Fabric: what a case expects must be what Fabric does, but where differences.json says what it does.
func TestFabric(t *testing.T) {
	bin, cfg := os.Getenv("HANSA_FABRIC_BIN"), os.Getenv("HANSA_FABRIC_CFG")
	if bin == "" || cfg == "" {
		t.Skip("HANSA_FABRIC_BIN and HANSA_FABRIC_CFG are not set")
	}
	n := network.Start(t, "--members", "3")
	setup := describe(t, n)
	setup.Batch = json.RawMessage(`{"timeout":"20ms"}`)
	startFabric(t, n, bin, cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	install(ctx, t)
	if *only == "" {
		*only = strings.Join(onFabric(t), ",")
	}
	known := map[string]string{}
	for _, d := range differences(t) {
		known[d.File+": "+d.Name] = d.Fabric
	}
	passed, different := 0, 0
	for _, c := range run(ctx, t, setup) {
		switch differs := known[c.File+": "+c.Name]; {
		case c.Passed && differs == "":
			passed++
		case c.Passed:
			t.Errorf("%s: %s: Fabric does the same; differences.json says that it %s", c.File, c.Name, differs)
		case differs == "":
			t.Errorf("%s: %s: Fabric does something else", c.File, c.Name)
		default:
			different++
		}
	}
	closing = fmt.Sprintf("%d passed on Fabric, %d are known to differ", passed, different)
}

// onFabric lists the features that run on Fabric.
func onFabric(t *testing.T) (features []string) {
	t.Helper()
	files, err := filepath.Glob("features/*.mjs")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no features: %v", err)
	}
	for _, file := range files {
		if name := strings.TrimSuffix(filepath.Base(file), ".mjs"); !slices.Contains(notOnFabric, name) {
			features = append(features, name)
		}
	}
	return features
}
