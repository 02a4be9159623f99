package dropin_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/admin"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// nodeBuilder runs contracts for Node with the packages that were installed once, as a builder of an operator may.
var nodeBuilder = map[string]string{
	"detect": `grep -q '"type":"node"' "$2/metadata.json"`,
	"build": `test ! -e "$1/broken"
cp -r "$1/src/." "$3"`,
	"release": `mkdir -p "$2/statedb"`,
	"run": `cd "$1"
file="$2/chaincode.json"
value() { node -p 'JSON.parse(fs.readFileSync(process.argv[1]))[process.argv[2]]' "$file" "$1"; }
export NODE_PATH="$NODE_PACKAGES" CORE_CHAINCODE_ID_NAME="$(value chaincode_id)" CORE_PEER_LOCALMSPID="$(value mspid)" CORE_PEER_TLS_ENABLED=true
value client_cert | base64 > "$2/cert"; value client_key | base64 > "$2/key"; value root_cert > "$2/root"
export CORE_TLS_CLIENT_CERT_PATH="$2/cert" CORE_TLS_CLIENT_KEY_PATH="$2/key" CORE_PEER_TLS_ROOTCERT_FILE="$2/root"
echo "running as $CORE_CHAINCODE_ID_NAME for $CORE_PEER_LOCALMSPID"
node "$NODE_PACKAGES/.bin/fabric-chaincode-node" start --peer.address "$(value peer_address)" & echo $! > "$TMPDIR/contract.pid"
wait $!`,
}

func writeBuilder(t *testing.T, scripts map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "bin"), 0o700))
	for name, script := range scripts {
		must(t, os.WriteFile(filepath.Join(dir, "bin", name), []byte("#!/bin/sh\nset -eu\n"+script+"\n"), 0o700))
	}
	return dir
}

// nodePackages are the stock packages that the example contract for Node needs.
func nodePackages(t *testing.T) (source, packages string) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs Node")
	}
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("Node is not installed")
	}
	source = filepath.Join(network.Root(t), "examples", "contracts", "asset-node")
	packages = filepath.Join(source, "node_modules")
	if _, err := os.Stat(filepath.Join(packages, ".package-lock.json")); err != nil {
		install := exec.Command("npm", "ci", "--ignore-scripts")
		install.Dir = source
		if out, err := install.CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
	}
	return source, packages
}

func pack(t *testing.T, kind, label string, files map[string][]byte) []byte {
	t.Helper()
	code, err := contractpackage.WriteCode(files)
	must(t, err)
	raw, err := contractpackage.Write(contractpackage.Metadata{Type: kind, Label: label}, code)
	must(t, err)
	return raw
}

// member is the network's only member, whose orderer and peer run on the channel.
type member struct {
	*admin.Peer
	channel *client.Channel
	id      string
	stop    func() // the peer
}

// begin starts orderer and peer of a network of one member, and joins both to the channel.
func (w *world) begin(ctx context.Context, ordererData, peerData string) *member {
	w.t.Helper()
	w.startOrderer(ordererData)
	return w.join(ctx, w.startPeer(peerData))
}

// join joins the orderer and the peer, which run, to the channel.
func (w *world) join(ctx context.Context, stop func()) *member {
	w.t.Helper()
	m := w.member(stop)
	raw, err := os.ReadFile(w.plan.Genesis())
	must(w.t, err)
	w.joinOrderer(raw)
	genesis := &commonpb.Block{}
	must(w.t, proto.Unmarshal(raw, genesis))
	w.Await("the peer's join", func() error { return m.JoinChannel(ctx, genesis) })
	return m
}

// member connects to the peer as its administrator.
func (w *world) member(stop func()) *member {
	w.t.Helper()
	m := w.plan.Members[0]
	user, err := client.LoadIdentity(m.MSPID, w.plan.UserMSP(m, "Admin"))
	must(w.t, err)
	roots, err := os.ReadFile(w.plan.TLSRoots(m))
	must(w.t, err)
	peer, err := admin.DialPeer(m.Peers[0].Address(), roots, user)
	must(w.t, err)
	w.t.Cleanup(func() { peer.Close() })
	c, err := client.Dial(client.Config{Endpoint: m.Peers[0].Address(), Identity: user, TLSRoots: roots})
	must(w.t, err)
	w.t.Cleanup(func() { c.Close() })
	return &member{peer, c.Channel(w.plan.Channel), m.MSPID, stop}
}

func (m *member) define(ctx context.Context, t *testing.T, d admin.Definition, packageID string) {
	t.Helper()
	must(t, admin.Approve(ctx, m.channel, m.id, d, packageID))
	must(t, admin.Commit(ctx, m.channel, []string{m.id}, d))
}

func stopped(t *testing.T, options ...string) *world {
	t.Helper()
	n := network.Start(t, options...) // for its certificates and genesis block
	plan := n.Plan()
	n.Down()
	w := install(t, n)
	w.plan = plan
	return w
}

// A stock contract for Node is built and run by an operator's own programs, registers over TLS, comes back when it was killed and when the peer was
// restarted, and goes with the peer; packages that cannot be built are refused.
func TestExternalBuilder(t *testing.T) {
	source, packages := nodePackages(t)
	w := stopped(t, "--members", "1")
	scratch := t.TempDir()
	w.peerEnv = map[string]string{"TMPDIR": scratch, "NODE_PACKAGES": packages, "CORE_CHAINCODE_EXTERNALBUILDERS": `[{name: absent, path: /nowhere},
		{name: node, path: ` + writeBuilder(t, nodeBuilder) + `, propagateEnvironment: [NODE_PACKAGES]}]`}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	peerData := filepath.Join(w.Dir, "peer-production")
	m := w.begin(ctx, filepath.Join(w.Dir, "orderer-production"), peerData)

	if _, err := m.Install(ctx, pack(t, "node", "broken_1", map[string][]byte{"broken": nil, "src/a": nil})); err == nil || !strings.Contains(err.Error(), "external builder 'node' failed: exit status 1") {
		t.Errorf("a package that cannot be built: %v", err)
	}
	if _, err := m.Install(ctx, pack(t, "cobol", "plain_1", map[string][]byte{"a": nil})); err == nil || !strings.Contains(err.Error(), "no external builder claims the package") {
		t.Errorf("a package that no builder wants: %v", err)
	}
	files := map[string][]byte{}
	for _, name := range []string{"package.json", "index.js", "asset.js"} {
		content, err := os.ReadFile(filepath.Join(source, name))
		must(t, err)
		files["src/"+name] = content
	}
	id, err := m.Install(ctx, pack(t, "node", "asset_1", files))
	must(t, err)
	m.define(ctx, t, admin.Definition{Name: "asset", Version: "1", Sequence: 1}, id)
	asset := m.channel.Contract("asset")
	_, err = asset.Submit(ctx, client.Strings("CreateAsset", "a1", "blue", "5", "Ann", "300"))
	must(t, err)

	read := func(asset *client.Contract) func() error {
		return func() error {
			value, err := asset.Evaluate(ctx, client.Strings("ReadAsset", "a1"))
			if err == nil && !strings.Contains(string(value), "Ann") {
				err = fmt.Errorf("%s", value)
			}
			return err
		}
	}
	process := func() int {
		raw, err := os.ReadFile(filepath.Join(scratch, "contract.pid"))
		must(t, err)
		pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		must(t, err)
		return pid
	}
	ended := func(pid int) func() error {
		return func() error {
			if syscall.Kill(pid, 0) == nil {
				return errors.New("the contract runs")
			}
			return nil
		}
	}
	first := process()
	must(t, syscall.Kill(first, syscall.SIGKILL))
	w.Await("the contract after its death", read(asset)) // the calls that it was running fail, the next one starts it
	second := process()
	if second == first {
		t.Error("the contract was not started again")
	}
	m.stop()
	w.Await("the contract's end with its peer", ended(second))
	m = w.member(w.startPeer(peerData))
	w.Await("the contract after the peer's restart", read(m.channel.Contract("asset")))
	log, err := os.ReadFile(peerData + ".log")
	must(t, err)
	for _, want := range []string{"builder absent has no programs", "running as asset_1:"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	m.stop()
	w.Await("the contract's end", ended(process()))
	if left, _ := filepath.Glob(filepath.Join(peerData, "hansa", "builds", ".*")); len(left) > 0 {
		t.Errorf("%q was left behind", left)
	}
	if left, _ := filepath.Glob(filepath.Join(scratch, "*")); len(left) != 1 {
		t.Errorf("%q was left behind", left)
	}
}
