package stock_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/provision"
)

// tools runs Fabric's commands as a member's administrator.
type tools struct {
	t      *testing.T
	bin    string
	dir    string // where they run
	env    []string
	member provision.Member
	plan   *provision.Network
	ca     string // of the orderer
	users  string // TLS folder of the orderer's administrator
}

func newTools(t *testing.T, n *network.Network) *tools {
	t.Helper()
	w := &tools{t: t, bin: os.Getenv("HANSA_FABRIC_BIN"), dir: t.TempDir(), plan: n.Plan(),
		users: filepath.Join(n.Dir, "crypto", "ordererOrganizations", "orderer.example.com", "users", "Admin@orderer.example.com", "tls")}
	w.ca = filepath.Join(w.users, "ca.crt")
	w.as(0)
	return w
}

func (w *tools) environ(mspID, msp string) {
	w.env = append(os.Environ(), "FABRIC_CFG_PATH="+os.Getenv("HANSA_FABRIC_CFG"), "FABRIC_LOGGING_SPEC=ERROR", "CORE_PEER_TLS_ENABLED=true",
		"CORE_PEER_ADDRESS="+w.member.Peers[0].Address(), "CORE_PEER_TLS_ROOTCERT_FILE="+w.plan.TLSRoots(w.member),
		"CORE_PEER_LOCALMSPID="+mspID, "CORE_PEER_MSPCONFIGPATH="+msp)
}

// as makes the tools a member's administrator's.
func (w *tools) as(i int) {
	w.member = w.plan.Members[i]
	w.environ(w.member.MSPID, w.plan.UserMSP(w.member, "Admin"))
}

// asOrderer makes them the orderer's administrator's.
func (w *tools) asOrderer() {
	w.environ("OrdererMSP", filepath.Join(filepath.Dir(w.users), "msp"))
}

func (w *tools) try(program string, args ...string) (string, error) {
	c := exec.CommandContext(w.t.Context(), filepath.Join(w.bin, program), args...)
	c.Env, c.Dir = w.env, w.dir
	out, err := c.CombinedOutput()
	return string(out), err
}

func (w *tools) run(want, program string, args ...string) string {
	w.t.Helper()
	out, err := w.try(program, args...)
	if err != nil || !strings.Contains(out, want) {
		w.t.Fatalf("%s %s: %v, %q is wanted\n%s", program, strings.Join(args, " "), err, want, out)
	}
	return out
}

func (w *tools) refused(want, program string, args ...string) {
	w.t.Helper()
	// osnadmin exits with 0 once it was answered, whatever it was.
	if out, err := w.try(program, args...); err == nil && program != "osnadmin" || !strings.Contains(out, want) {
		w.t.Errorf("%s %s: %v, a refusal with %q is wanted\n%s", program, strings.Join(args, " "), err, want, out)
	}
}

func (w *tools) peer(want, command string, more ...string) string {
	w.t.Helper()
	return w.run(want, "peer", append(strings.Fields(command), more...)...)
}

// ordered is a command that also calls the orderer.
func (w *tools) ordered(want, command string, more ...string) string {
	w.t.Helper()
	return w.peer(want, command+" -o "+w.plan.Orderers[0].Address()+" --tls --cafile "+w.ca, more...)
}

func (w *tools) osnadmin(want, command string) string {
	w.t.Helper()
	return w.run(want, "osnadmin", w.osn(command)...)
}

func (w *tools) osn(command string) []string {
	return append(strings.Fields("channel "+command), "-o", "127.0.0.1:"+strconv.Itoa(w.plan.Orderers[0].Admin), "--ca-file", w.ca,
		"--client-cert", filepath.Join(w.users, "client.crt"), "--client-key", filepath.Join(w.users, "client.key"))
}

func (w *tools) both(command string) (args []string) {
	args = strings.Fields(command)
	for _, m := range w.plan.Members {
		args = append(args, "--peerAddresses", m.Peers[0].Address(), "--tlsRootCertFiles", w.plan.TLSRoots(m))
	}
	return args
}

func (w *tools) read(name string) []byte {
	w.t.Helper()
	raw, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

func (w *tools) decode(kind, file string) (tree map[string]any) {
	w.t.Helper()
	out := w.run("", "configtxlator", "proto_decode", "--type", kind, "--input", file)
	if err := json.Unmarshal([]byte(out), &tree); err != nil {
		w.t.Fatal(err)
	}
	return tree
}

func (w *tools) encode(kind, file string, tree any) {
	w.t.Helper()
	raw, err := json.Marshal(tree)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, file+".json"), raw, 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.run("", "configtxlator", "proto_encode", "--type", kind, "--input", file+".json", "--output", file)
}

func inside(tree map[string]any, path ...string) map[string]any {
	for _, name := range path {
		tree, _ = tree[name].(map[string]any)
	}
	return tree
}

// update makes the envelope of a config update the way Fabric's documentation has it.
func (w *tools) update(edit func(group map[string]any)) (file string) {
	w.t.Helper()
	w.ordered("", "channel fetch config config.block -c business")
	block := w.decode("common.Block", "config.block")
	envelope := block["data"].(map[string]any)["data"].([]any)[0].(map[string]any)
	config := inside(envelope, "payload", "data", "config")
	w.encode("common.Config", "before.pb", config)
	edit(inside(config, "channel_group"))
	w.encode("common.Config", "after.pb", config)
	w.run("", "configtxlator", "compute_update", "--channel_id", "business", "--original", "before.pb", "--updated", "after.pb", "--output", "update.pb")
	w.encode("common.Envelope", "update.tx", map[string]any{"payload": map[string]any{
		"header": map[string]any{"channel_header": map[string]any{"channel_id": "business", "type": 2}},
		"data":   map[string]any{"config_update": w.decode("common.ConfigUpdate", "update.pb")}}})
	return "update.tx"
}

func maxMessages(n int) func(map[string]any) {
	return func(group map[string]any) {
		inside(group, "groups", "Orderer", "values", "BatchSize", "value")["max_message_count"] = n
	}
}

// Every subcommand of Fabric's tools that calls a node, beside those of TestPeerCommand.
func TestSubcommands(t *testing.T) {
	if os.Getenv("HANSA_FABRIC_BIN") == "" || os.Getenv("HANSA_FABRIC_CFG") == "" {
		t.Skip("HANSA_FABRIC_BIN and HANSA_FABRIC_CFG are not set")
	}
	n := network.Start(t)
	n.Deploy("asset", "asset")
	w := newTools(t, n)

	// Blocks, by the orderer and by the peer.
	w.ordered("", "channel fetch oldest oldest.block -c business")
	w.peer("", "channel fetch 0 zero.block -c business")
	w.ordered("", "channel fetch newest newest.block -c business")
	w.osnadmin("", "fetch -c business -b 0 -f osn.block")
	if !bytes.Equal(w.read("oldest.block"), w.read("zero.block")) && w.decode("common.Block", "oldest.block")["header"] == nil {
		t.Error("two blocks 0")
	}
	header := func(file string) string {
		raw, _ := json.Marshal(w.decode("common.Block", file)["header"])
		return string(raw)
	}
	if a, b, c := header("oldest.block"), header("zero.block"), header("osn.block"); a != b || b != c {
		t.Errorf("blocks 0: %s %s %s", a, b, c)
	}
	w.refused("", "peer", "channel", "fetch", "newest", "x.block", "-c", "nothing")
	w.osnadmin("", "fetch -c business -b config -f config2.block")
	w.refused("404", "osnadmin", w.osn("fetch -c nothing -b 0 -f x.block")...)

	// Configuration: signed, and sent by peer and by osnadmin.
	tx := w.update(maxMessages(11))
	w.asOrderer()
	w.peer("", "channel signconfigtx -f "+tx)
	w.as(0)
	w.ordered("", "channel update -c business -f "+tx) // signs and sends; the orderer's signature is in it
	maximum := func(want string) {
		t.Helper()
		w.ordered("", "channel fetch config config.block -c business")
		if out := w.run("", "configtxlator", "proto_decode", "--type", "common.Block", "--input", "config.block"); !regexp.MustCompile(`"max_message_count": ` + want).MatchString(out) {
			t.Errorf("max_message_count is not %s", want)
		}
	}
	maximum("11")
	tx = w.update(maxMessages(12))
	w.refused("BAD_REQUEST", "peer", "channel", "update", "-c", "business", "-f", tx, "-o", w.plan.Orderers[0].Address(), "--tls", "--cafile", w.ca)
	w.asOrderer()
	w.peer("", "channel signconfigtx -f "+tx)
	w.osnadmin("", "update -c business -e "+tx)
	w.as(0)
	maximum("12")

	// Packages and definitions.
	source := filepath.Join(network.Root(t), "examples", "contracts", "asset-node")
	copied := filepath.Join(w.dir, "source")
	if err := os.Mkdir(copied, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"package.json", "index.js", "asset.js"} {
		raw, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(copied, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.peer("", "lifecycle chaincode package own.tar.gz --lang node --label own_1 --path "+copied)
	id := strings.TrimSpace(w.peer("own_1:", "lifecycle chaincode calculatepackageid own.tar.gz"))
	w.peer("", "lifecycle chaincode install own.tar.gz")
	w.refused("already successfully installed", "peer", "lifecycle", "chaincode", "install", "own.tar.gz")
	w.peer(id, "lifecycle chaincode queryinstalled --output json")
	w.peer("", "lifecycle chaincode getinstalledpackage --output-directory . --package-id "+id)
	if !bytes.Equal(w.read("own.tar.gz"), w.read(id+".tar.gz")) {
		t.Error("the package that comes back is another")
	}
	w.refused("not found", "peer", "lifecycle", "chaincode", "getinstalledpackage", "--package-id", "own_1:"+strings.Repeat("0", 64))
	installed := w.peer("asset_1.0", "lifecycle chaincode queryinstalled")
	asset := regexp.MustCompile(`asset_1\.0:[0-9a-f]{64}`).FindString(installed)
	definition := "-C business -n asset --version 2.0 --sequence 2 --signature-policy OR('Org1MSP.peer','Org2MSP.peer')"
	for i := range w.plan.Members {
		w.as(i)
		w.ordered("", "lifecycle chaincode approveformyorg "+definition+" --package-id "+asset)
	}
	w.as(0)
	w.peer(`"Org2MSP": true`, "lifecycle chaincode checkcommitreadiness --output json "+definition)
	w.peer("sequence: 2, version: 2.0", "lifecycle chaincode queryapproved -C business -n asset --sequence 2")
	w.peer(asset, "lifecycle chaincode queryapproved -C business -n asset --output json")
	w.ordered("", "lifecycle chaincode commit "+definition, w.both("")...)
	w.peer("Version: 2.0, Sequence: 2", "lifecycle chaincode querycommitted -C business -n asset")
	w.refused("", "peer", "lifecycle", "chaincode", "querycommitted", "-C", "business", "-n", "nothing")
	// The policy is one member's now.
	w.ordered("", "chaincode invoke -C business -n asset --waitForEvent", "-c", `{"Args":["CreateAsset","b1","blue","5","Ann","300"]}`)
	w.peer("Ann", "chaincode query -C business -n asset -c", `{"Args":["ReadAsset","b1"]}`)
	w.refused("does not exist", "peer", "chaincode", "query", "-C", "business", "-n", "asset", "-c", `{"Args":["ReadAsset","none"]}`)

	// Snapshots.
	tls := " --peerAddress " + w.member.Peers[0].Address() + " --tlsRootCertFile " + w.plan.TLSRoots(w.member)
	w.peer("Snapshot request submitted successfully", "snapshot submitrequest -c business -b 100000"+tls)
	w.peer("100000", "snapshot listpending -c business"+tls)
	w.peer("cancelled successfully", "snapshot cancelrequest -c business -b 100000"+tls)
	w.refused("", "peer", strings.Fields("snapshot cancelrequest -c business -b 100000"+tls)...)
	w.peer("submitted successfully", "snapshot submitrequest -c business"+tls)
	w.peer("No joinbysnapshot operation is in progress", "channel joinbysnapshotstatus")

	// Discovery.
	msp := w.plan.UserMSP(w.member, "Admin")
	key, err := filepath.Glob(filepath.Join(msp, "keystore", "*"))
	if err != nil || len(key) != 1 {
		t.Fatal(key, err)
	}
	cert, err := filepath.Glob(filepath.Join(msp, "signcerts", "*"))
	if err != nil || len(cert) != 1 {
		t.Fatal(cert, err)
	}
	w.run("", "discover", "--configFile", "discover.yaml", "--peerTLSCA", w.plan.TLSRoots(w.member), "--userKey", key[0], "--userCert", cert[0], "--MSP", w.member.MSPID, "saveConfig")
	discover := func(want string, args ...string) {
		t.Helper()
		w.run(want, "discover", append([]string{"--configFile", "discover.yaml"}, append(args, "--channel", "business", "--server", w.member.Peers[0].Address())...)...)
	}
	discover(w.plan.Members[1].Peers[0].Address(), "peers")
	discover("OrdererMSP", "config")
	discover("Layouts", "endorsers", "--chaincode", "asset")

	// A channel leaves its orderer, and comes back.
	w.osnadmin(`"status": "active"`, "list -c business")
	w.osnadmin("", "remove -c business")
	w.osnadmin(`"channels": null`, "list")
	w.osnadmin(`"name": "business"`, "join -c business --config-block oldest.block")
	w.refused("already exists", "osnadmin", w.osn("join -c business --config-block oldest.block")...)
}
