package stock_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/provision"
)

// One member runs a peer of Hansa, the other one of Fabric. They are each other's anchor peers, and a contract asks for the
// endorsements of both: each peer's gateway finds the other peer, and both end with the same ledger.
func TestMixedPeers(t *testing.T) {
	bin, cfg := os.Getenv("HANSA_FABRIC_BIN"), os.Getenv("HANSA_FABRIC_CFG")
	if bin == "" || cfg == "" {
		t.Skip("HANSA_FABRIC_BIN and HANSA_FABRIC_CFG are not set")
	}
	n := network.Start(t)
	ours, theirs := n.Plan().Members[0], n.Plan().Members[1]
	roots := map[string]string{ours.Name: n.Plan().TLSRoots(ours), theirs.Name: n.Plan().TLSRoots(theirs)}
	withoutPeer(t, n, 1)
	startFabricPeer(t, n, theirs, bin, cfg)
	orderer := n.Plan().Orderers[0].Address()

	cli := func(m provision.Member, want string, args ...string) string {
		t.Helper()
		var out []byte
		n.Await("peer "+strings.Join(args, " "), func() (err error) {
			c := exec.CommandContext(t.Context(), filepath.Join(bin, "peer"), args...)
			c.Env = append(os.Environ(), "FABRIC_CFG_PATH="+cfg, "CORE_PEER_TLS_ENABLED=true", "CORE_PEER_ADDRESS="+m.Peers[0].Address(),
				"CORE_PEER_LOCALMSPID="+m.MSPID, "CORE_PEER_MSPCONFIGPATH="+n.Plan().UserMSP(m, "Admin"), "CORE_PEER_TLS_ROOTCERT_FILE="+roots[m.Name])
			c.Dir = n.Dir
			if out, err = c.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
				return fmt.Errorf("%v\n%s", err, out)
			}
			return nil
		})
		return string(out)
	}
	cli(theirs, "Successfully submitted proposal", "channel", "join", "-b", filepath.Join(n.Dir, "business.block"))

	deploy := func(name, source string, options ...string) {
		t.Helper()
		ca := filepath.Join(n.Dir, "crypto", "ordererOrganizations", "orderer.example.com", "users", "Admin@orderer.example.com", "tls", "ca.crt")
		definition := append([]string{"-o", orderer, "--tls", "--cafile", ca, "-C", "business", "-n", name, "--version", "1", "--sequence", "1"}, options...)
		pkg, id := startContract(t, n, name, source)
		for _, m := range []provision.Member{ours, theirs} {
			cli(m, "", "lifecycle", "chaincode", "install", pkg)
			cli(m, "", append([]string{"lifecycle", "chaincode", "approveformyorg", "--package-id", id}, definition...)...)
		}
		cli(ours, "", append([]string{"lifecycle", "chaincode", "commit", "--peerAddresses", ours.Peers[0].Address(), "--tlsRootCertFiles", roots[ours.Name],
			"--peerAddresses", theirs.Peers[0].Address(), "--tlsRootCertFiles", roots[theirs.Name]}, definition...)...)
	}
	deploy("asset", "./examples/contracts/asset")
	collections := filepath.Join(t.TempDir(), "collections.json")
	if err := os.WriteFile(collections, []byte(`[
		{"name": "brought", "policy": "OR('Org1MSP.member','Org2MSP.member')", "requiredPeerCount": 1, "maxPeerCount": 1, "blockToLive": 0},
		{"name": "fetched", "policy": "OR('Org1MSP.member','Org2MSP.member')", "requiredPeerCount": 0, "maxPeerCount": 0, "blockToLive": 0}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	deploy("vault", "./e2e/private/vault", "--collections-config", collections, "--signature-policy", "OR('Org1MSP.peer','Org2MSP.peer')")

	for i, m := range []provision.Member{ours, theirs} {
		key := fmt.Sprintf("by the gateway of %s", m.Name)
		channel := at(t, n, m, roots[m.Name])
		submit := func(contract string, call client.Call) {
			t.Helper()
			n.Await(call.Function+" "+key, func() error {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				_, err := channel.Contract(contract).Submit(ctx, call)
				return err
			})
		}
		submit("asset", client.Strings("CreateAsset", key, "blue", strconv.Itoa(i), "Ann", "300"))
		// Both peers have it.
		for _, reader := range []provision.Member{ours, theirs} {
			cli(reader, `"Owner":"Ann"`, "chaincode", "query", "-C", "business", "-n", "asset", "-c", fmt.Sprintf(`{"Args":["ReadAsset",%q]}`, key))
		}
		// Endorsed by one peer alone, private data comes to the other one: brought before it is endorsed, or fetched when it is committed.
		for _, collection := range []string{"brought", "fetched"} {
			call := client.Strings("Put", collection, key)
			call.Transient, call.Members = map[string][]byte{"value": []byte("secret of " + m.Name)}, []string{m.MSPID}
			submit("vault", call)
			for _, reader := range []provision.Member{ours, theirs} {
				cli(reader, "secret of "+m.Name, "chaincode", "query", "-C", "business", "-n", "vault", "-c", fmt.Sprintf(`{"Args":["Get",%q,%q]}`, collection, key))
			}
		}
	}
	hash := regexp.MustCompile(`"currentBlockHash":"[^"]+"`)
	one := hash.FindString(cli(ours, "currentBlockHash", "channel", "getinfo", "-c", "business"))
	two := hash.FindString(cli(theirs, "currentBlockHash", "channel", "getinfo", "-c", "business"))
	if one != two {
		t.Errorf("the peers' newest blocks are %s and %s", one, two)
	}
}

// withoutPeer starts the network again without the peer of a member, whose address becomes free.
func withoutPeer(t *testing.T, n *network.Network, member int) {
	t.Helper()
	n.Down()
	plan := n.Plan()
	plan.Members[member].Peers = nil
	raw, err := yaml.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.Dir, "network.yaml"), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	n.Up()
}

// startFabricPeer runs Fabric's peer with the certificates and at the address that a member's peer of Hansa had.
func startFabricPeer(t *testing.T, n *network.Network, m provision.Member, bin, cfg string) {
	t.Helper()
	p := m.Peers[0]
	local := func(port int) string { return net.JoinHostPort(provision.Host, strconv.Itoa(port)) }
	folder := filepath.Join(n.Dir, "crypto", "peerOrganizations", m.Domain, "peers", p.Name+"."+m.Domain)
	data := filepath.Join(n.Dir, "fabric")
	node := exec.Command(filepath.Join(bin, "peer"), "node", "start")
	node.Env = append(os.Environ(), "FABRIC_CFG_PATH="+cfg, "FABRIC_LOGGING_SPEC=WARNING", "CORE_VM_ENDPOINT=",
		"CORE_PEER_ID=peer0", "CORE_PEER_ADDRESS="+p.Address(), "CORE_PEER_LISTENADDRESS="+p.Address(), "CORE_OPERATIONS_LISTENADDRESS="+local(p.Operations),
		"CORE_PEER_CHAINCODELISTENADDRESS="+local(p.Chaincode), "CORE_PEER_CHAINCODEADDRESS="+local(p.Chaincode),
		"CORE_PEER_GOSSIP_BOOTSTRAP="+p.Address(), "CORE_PEER_GOSSIP_EXTERNALENDPOINT="+p.Address(),
		"CORE_PEER_LOCALMSPID="+m.MSPID, "CORE_PEER_MSPCONFIGPATH="+filepath.Join(folder, "msp"), "CORE_PEER_TLS_ENABLED=true",
		"CORE_PEER_TLS_CERT_FILE="+filepath.Join(folder, "tls", "server.crt"), "CORE_PEER_TLS_KEY_FILE="+filepath.Join(folder, "tls", "server.key"),
		"CORE_PEER_TLS_ROOTCERT_FILE="+filepath.Join(folder, "tls", "ca.crt"),
		"CORE_PEER_FILESYSTEMPATH="+data, "CORE_LEDGER_SNAPSHOTS_ROOTDIR="+filepath.Join(data, "snapshots"))
	// Fabric's ccaas builder, if its release is there, else one that does as it does.
	node.Env = append(node.Env, "CORE_CHAINCODE_EXTERNALBUILDERS=[{name: ccaas, path: "+builder(t)+"}]")
	run(t, node)
}

// run runs a process for the time of the test.
func run(t *testing.T, c *exec.Cmd) {
	t.Helper()
	var log bytes.Buffer
	c.Stdout, c.Stderr = &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if t.Failed() {
			t.Logf("--- %s\n%s", c, log.Bytes()[max(0, log.Len()-8000):])
		}
	})
}

// builder is an external builder for packages of type ccaas.
func builder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"detect":  `grep -q '"type": *"ccaas"' "$2/metadata.json"`,
		"build":   `cp "$1/connection.json" "$3/"`,
		"release": `mkdir -p "$2/chaincode/server" && cp "$1/connection.json" "$2/chaincode/server/"`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Dir(dir)
}

// startContract packages a contract as a service and runs it.
func startContract(t *testing.T, n *network.Network, name, folder string) (pkg, id string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	code, err := contractpackage.WriteCode(map[string][]byte{"connection.json": fmt.Appendf(nil, `{"address":%q,"dial_timeout":"10s","tls_required":false}`, address)})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := contractpackage.Write(contractpackage.Metadata{Type: "ccaas", Label: name}, code)
	if err != nil {
		t.Fatal(err)
	}
	pkg = filepath.Join(n.Dir, name+".tgz")
	if err := os.WriteFile(pkg, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), name)
	build := exec.Command("go", "build", "-o", program, folder)
	build.Env, build.Dir = append(os.Environ(), "CGO_ENABLED=0"), network.Root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	contract := exec.Command(program)
	id = contractpackage.ID(name, raw)
	contract.Env = append(os.Environ(), "CHAINCODE_SERVER_ADDRESS="+address, "CHAINCODE_ID="+id)
	run(t, contract)
	return pkg, id
}

// at is the channel at the gateway of a member's peer.
func at(t *testing.T, n *network.Network, m provision.Member, roots string) *client.Channel {
	t.Helper()
	user, err := client.LoadIdentity(m.MSPID, n.Plan().UserMSP(m, "User1"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(roots)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.Dial(client.Config{Endpoint: m.Peers[0].Address(), Identity: user, TLSRoots: pem})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.Channel("business")
}
