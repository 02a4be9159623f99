// Package cli_test gives the hansa command wrong input and checks that every command says what is wrong and ends with exit code 1.
package cli_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hansa-ledger/hansa/e2e/network"
)

func TestMain(m *testing.M) { network.Main(m) }

// refused runs a command that must fail, and checks what it says.
func refused(t *testing.T, n *network.Network, want string, args ...string) {
	t.Helper()
	stdout, stderr, err := n.Run(args...)
	command := "hansa " + strings.Join(args, " ")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%s: exit code 1 is wanted: %v\n%s%s", command, err, stdout, stderr)
	}
	if !strings.Contains(stderr, want) {
		t.Errorf("%s: the error does not say %q: %s", command, want, stderr)
	}
	if strings.HasPrefix(stderr, "panic") || strings.Contains(stderr, "Usage:") {
		t.Errorf("%s: the error is hard to find: %s", command, stderr)
	}
}

func TestWithoutNetwork(t *testing.T) {
	n := network.New(t)
	none := filepath.Join(n.Dir, "none")
	for _, c := range []struct {
		want string
		args []string
	}{
		{`unknown command "frobnicate"`, []string{"frobnicate"}},
		{"unknown flag: --frob", []string{"up", "--frob"}},
		{"--members 0: 1 to 16", []string{"up", "--data", none, "--members", "0"}},
		{"--orderers 99: 1 to 7", []string{"up", "--data", none, "--orderers", "99"}},
		{"--port 99999", []string{"up", "--data", none, "--port", "99999"}},
		{`channel "Not A Name"`, []string{"up", "--data", none, "--channel", "Not A Name"}},
		{"--members 0: 1 to 16", []string{"up", "--detach", "--data", none, "--members", "0"}},
		{"there is no network in this folder", []string{"down", "--data", none}},
		{"there is no network in this folder", []string{"down", "--purge", "--data", none}},
		{"there is no network in this folder", []string{"status", "--data", none}},
		{"there is no network in this folder", []string{"logs", "--data", none}},
		{"there is no network in this folder", []string{"contract", "list", "--data", none}},
		{"there is no network in this folder", []string{"contract", "deploy", none, "--data", none}},
		{"there is no network in this folder", []string{"tx", "submit", "asset", "ReadAsset", "--data", none}},
		{"requires at least 2 arg(s)", []string{"tx", "submit", "asset"}},
		{"--config is missing", []string{"peer"}},
		{"no such file", []string{"orderer", "--config", filepath.Join(none, "orderer.yaml")}},
	} {
		refused(t, n, c.want, c.args...)
	}
	// A setting that does not exist is named, for every role.
	for _, role := range []string{"peer", "orderer", "ca"} {
		file := filepath.Join(n.Dir, role+".yaml")
		if err := os.WriteFile(file, []byte("lisen: 127.0.0.1:1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, n, "lisen", role, "--config", file)
	}
}

func TestWithNetwork(t *testing.T) {
	n := network.Start(t)
	n.Deploy("asset", "asset")
	library, empty, broken := filepath.Join(network.Root(t), "client"), t.TempDir(), t.TempDir()
	for file, content := range map[string]string{
		"go.mod":  "module broken\n",
		"main.go": "package main\n\nfunc main() { panic(\"no luck\") }\n",
	} {
		if err := os.WriteFile(filepath.Join(broken, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"is running already", []string{"up"}},
		{"is running already", []string{"up", "--detach"}},
		{"--members 5 has no effect", []string{"up", "--members", "5"}},
		{"--contract nothing: the channel has no such contract", []string{"bench", "--contract", "nothing"}},
		{`contract name "no name"`, []string{"contract", "deploy", empty, "--name", "no name"}},
		{"no such file", []string{"contract", "deploy", filepath.Join(empty, "none")}},
		{`no process "nobody"; there are`, []string{"logs", "nobody"}},
		{`no member "org9"; its members are org1, org2`, []string{"tx", "evaluate", "asset", "GetAllAssets", "--member", "org9"}},
		{`no user "Bob" here; there are Admin, User1`, []string{"tx", "evaluate", "asset", "GetAllAssets", "--user", "Bob"}},
		{"nothing", []string{"tx", "submit", "nothing", "F"}},
		{"NoFunction", []string{"tx", "submit", "asset", "NoFunction"}},
		{"the asset none does not exist", []string{"tx", "evaluate", "asset", "ReadAsset", "none"}},
		{"NAME=VALUE is wanted", []string{"tx", "submit", "asset", "ReadAsset", "none", "--transient", "novalue"}},
		{"Org9MSP", []string{"tx", "submit", "asset", "ReadAsset", "none", "--endorsers", "Org9MSP"}},
		{"holds no contract", []string{"contract", "deploy", empty}},
		{"contract-broken-1 does not start", []string{"contract", "deploy", broken, "--name", "broken"}},
		{"Go library", []string{"contract", "deploy", library}},
		{`no member "org9"`, []string{"contract", "deploy", empty, "--members", "org9"}},
		{"endorsement policy", []string{"contract", "deploy", empty, "--policy", "AND('Org1MSP.peer'"}},
	} {
		refused(t, n, c.want, append(c.args, "--data", n.Dir)...)
	}
	// What was refused has left nothing behind.
	if plan := n.Plan(); len(plan.Contracts) != 1 {
		t.Errorf("the network has the contracts %v", plan.Contracts)
	}
	n.Hansa("tx", "evaluate", "asset", "GetAllAssets")
	n.Down()
	for _, args := range [][]string{
		{"tx", "evaluate", "asset", "GetAllAssets"}, {"contract", "list"}, {"contract", "deploy", empty}, {"bench"},
		{"snapshot", "list"}, {"channel", "config"}, {"channel", "update", "--set", "batch.timeout=1s"}, {"orderer", "plan"},
	} {
		refused(t, n, "the network is not running; `hansa up --data", append(args, "--data", n.Dir)...)
	}
	n.Up()
	if got := n.Hansa("tx", "evaluate", "asset", "GetAllAssets", "--json"); !strings.HasPrefix(string(got), `{"result":"[`) {
		t.Errorf("as JSON: %s", got)
	}
}

// Commands that change a network wait for each other, and none undoes what another did.
func TestTwoAtOnce(t *testing.T) {
	n := network.Start(t)
	var group sync.WaitGroup
	asset := filepath.Join(network.Root(t), "examples", "contracts", "asset")
	for _, args := range [][]string{
		{"contract", "deploy", asset}, {"contract", "deploy", asset},
		{"contract", "deploy", asset, "--name", "other"}, {"orderer", "add", "orderer1"},
	} {
		group.Go(func() {
			if stdout, stderr, err := n.Run(append(args, "--data", n.Dir)...); err != nil {
				t.Errorf("hansa %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
			}
		})
	}
	group.Wait()
	n.Hansa("tx", "submit", "asset", "CreateAsset", "a1", "blue", "5", "Ann", "300")
	n.Hansa("tx", "submit", "other", "CreateAsset", "a1", "blue", "5", "Ann", "300")
	if plan := n.Plan(); len(plan.Contracts) != 2 || len(plan.Orderers) != 2 {
		t.Errorf("contracts %v, orderers %v", plan.Contracts, plan.Orderers)
	}
}

func TestPortInUse(t *testing.T) {
	n := network.New(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	if port > 60000 {
		t.Skipf("the free port %d leaves no room above it", port)
	}
	for _, detach := range []bool{false, true} {
		args := []string{"up", "--data", n.Dir, "--port", fmt.Sprint(port)}
		if detach {
			args = append(args, "--detach")
		}
		refused(t, n, fmt.Sprintf("port in use: 127.0.0.1:%d", port), args...)
	}
	// Nothing was made, so that other ports can be chosen; from then on they are the network's.
	n.Up()
	n.Down()
	taken, err := net.Listen("tcp", n.Plan().Orderers[0].Address())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	refused(t, n, "port in use: "+n.Plan().Orderers[0].Address(), "up", "--data", n.Dir, "--port", fmt.Sprint(port))
	taken.Close()
	n.Up()
	// A second process for a node that runs already.
	refused(t, n, "in use", "peer", "--config", filepath.Join(n.Dir, "nodes", "peer0.org1", "peer.yaml"))
}
