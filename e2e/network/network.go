// Package network starts whole Hansa networks for end-to-end tests: real processes of the real binary, in a temporary folder, on free ports.
//
// A test gets a network that serves, and its folder is gone afterwards. Stopping is checked too: a process that is left behind fails the
// test. What the nodes wrote is printed when a test fails. There is nothing here that a user's script could not do with the command line.
//
// A package of tests calls Main from its TestMain, which builds the binary once (or takes the one that HANSA_BINARY names).
package network

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/provision"
	"github.com/hansa-ledger/hansa/internal/provision/process"
)

// binaryVariable names the binary to test.
const binaryVariable = "HANSA_BINARY"

// Main runs a package's tests with a freshly built binary.
func Main(m *testing.M) {
	os.Exit(Run(m))
}

// Run does so without ending the process; a package's TestMain that has something to do last calls it.
func Run(m *testing.M) int {
	flag.Parse()
	if os.Getenv(binaryVariable) != "" || testing.Short() {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "hansa-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "hansa")
	build := exec.Command("go", "build", "-o", binary, "github.com/hansa-ledger/hansa/cmd/hansa")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build hansa: %v\n%s", err, output)
		return 1
	}
	os.Setenv(binaryVariable, binary)
	return m.Run()
}

// Network is a network of one test.
type Network struct {
	t   testing.TB
	Dir string
}

// New is a network that has not been started; its folder is empty. -short skips the test.
func New(t testing.TB) *Network {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a whole network")
	}
	// t.TempDir's names can be too long for the path of a Unix socket.
	dir, err := os.MkdirTemp("", "hansa-net-")
	if err != nil {
		t.Fatal(err)
	}
	n := &Network{t, dir}
	t.Cleanup(func() {
		n.end()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return n
}

// Start is a network that serves; options go to `hansa up`.
func Start(t testing.TB, options ...string) *Network {
	t.Helper()
	n := New(t)
	n.Up(options...)
	return n
}

// end stops whatever runs and checks that nothing is left.
func (n *Network) end() {
	if n.t.Failed() {
		n.showLogs()
	}
	if control, err := provision.NewControl(n.Dir); err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := control.Status(ctx); err == nil {
			if err := control.Stop(ctx); err != nil {
				n.t.Errorf("stop the network: %v", err)
			}
		}
	}
	// The supervisor ends a moment after it closed its socket.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := n.Processes()
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			for pid, command := range left {
				n.t.Errorf("process %d is left behind: %s", pid, command)
				if p, err := os.FindProcess(pid); err == nil {
					p.Kill()
				}
			}
			return
		}
	}
}

// Processes lists the live processes whose command lines name the network's folder, wherever they come from.
func (n *Network) Processes() map[int]string {
	found := map[int]string{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// A zombie has no command line.
		raw, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && bytes.Contains(raw, []byte(n.Dir)) {
			found[pid] = strings.TrimSpace(string(bytes.ReplaceAll(raw, []byte{0}, []byte{' '})))
		}
	}
	return found
}

func (n *Network) showLogs() {
	const tail = 3000
	show := func(name, file string) {
		raw, err := os.ReadFile(file)
		if err != nil || len(raw) == 0 {
			return
		}
		n.t.Logf("--- %s\n%s", name, raw[max(0, len(raw)-tail):])
	}
	show("hansa up", filepath.Join(n.Dir, "up.log"))
	files, err := filepath.Glob(filepath.Join(n.Dir, "nodes", "*", "log"))
	if err != nil {
		n.t.Log(err)
	}
	for _, file := range files {
		show(filepath.Base(filepath.Dir(file)), file)
	}
}

// Command is a hansa command that has not started.
func (n *Network) Command(args ...string) *exec.Cmd {
	return exec.Command(os.Getenv(binaryVariable), args...)
}

// Run runs a hansa command and returns what it wrote to its two outputs, and how it ended.
func (n *Network) Run(args ...string) (stdout, stderr string, err error) {
	command := n.Command(args...)
	var out, errOut bytes.Buffer
	command.Stdout, command.Stderr = &out, &errOut
	err = command.Run()
	return out.String(), errOut.String(), err
}

// Hansa runs a hansa command on this network; a failure fails the test.
func (n *Network) Hansa(args ...string) string {
	n.t.Helper()
	stdout, stderr, err := n.Run(append(args, "--data", n.Dir)...)
	if err != nil {
		n.t.Fatalf("hansa %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
	return stdout
}

// Up starts the network, or starts it again.
func (n *Network) Up(options ...string) {
	n.t.Helper()
	n.Hansa(append([]string{"up", "--detach", "--port", "0"}, options...)...)
}

// Down stops it.
func (n *Network) Down() {
	n.t.Helper()
	n.Hansa("down")
}

// Deploy puts one of the example contracts on the channel under a name; more options go to `hansa contract deploy`.
func (n *Network) Deploy(example, name string, options ...string) {
	n.t.Helper()
	n.Hansa(append([]string{"contract", "deploy", filepath.Join(Root(n.t), "examples", "contracts", example), "--name", name}, options...)...)
}

// Root is the repository's folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("the test does not run within the module")
		}
	}
}

// Plan is what the network consists of.
func (n *Network) Plan() *provision.Network {
	n.t.Helper()
	plan, err := provision.Load(n.Dir)
	if err != nil {
		n.t.Fatal(err)
	}
	return plan
}

// Status is how the processes are, by name.
func (n *Network) Status() map[string]process.Status {
	n.t.Helper()
	var all []process.Status
	if err := json.Unmarshal([]byte(n.Hansa("status", "--json")), &all); err != nil {
		n.t.Fatal(err)
	}
	byName := map[string]process.Status{}
	for _, p := range all {
		byName[p.Name] = p
	}
	return byName
}

// Kill kills a process with SIGKILL, as the kernel does when memory is short. The supervisor starts it again.
func (n *Network) Kill(name string) {
	n.t.Helper()
	status := n.Status()[name]
	p, err := os.FindProcess(status.PID)
	if err != nil || status.PID == 0 {
		n.t.Fatalf("%s does not run: %s", name, status.LastExit)
	}
	if err := p.Kill(); err != nil && err != os.ErrProcessDone {
		n.t.Fatal(err)
	}
}

// KillAll kills every process at once, the supervisor first so that it restarts none: what a power cut leaves, but for what the disk had
// not yet written.
func (n *Network) KillAll() {
	n.t.Helper()
	all := n.Processes()
	pids := make([]int, 0, len(all))
	for pid := range all {
		pids = append(pids, pid)
	}
	slices.SortFunc(pids, func(a, b int) int { return n.rank(all[a]) - n.rank(all[b]) })
	for _, pid := range pids {
		if p, err := os.FindProcess(pid); err == nil {
			p.Kill()
		}
	}
	n.Await("the end of all processes", func() error {
		if left := n.Processes(); len(left) > 0 {
			return fmt.Errorf("%d are left", len(left))
		}
		return nil
	})
}

func (n *Network) rank(command string) int {
	if strings.Contains(command, " up --data ") {
		return 0
	}
	return 1
}

// KillSupervisor kills `hansa up` alone; the nodes run on.
func (n *Network) KillSupervisor() {
	n.t.Helper()
	for pid, command := range n.Processes() {
		if n.rank(command) > 0 {
			continue
		}
		if p, err := os.FindProcess(pid); err == nil {
			p.Kill()
		}
		n.Await("the supervisor's end", func() error {
			if n.Processes()[pid] != "" {
				return fmt.Errorf("process %d is still there", pid)
			}
			return nil
		})
		return
	}
	n.t.Fatal("there is no supervisor")
}

// AwaitReady waits until every process serves.
func (n *Network) AwaitReady() {
	n.t.Helper()
	n.Await("the network to serve", func() error {
		for name, p := range n.Status() {
			if !p.Ready {
				return fmt.Errorf("%s is not ready: %s", name, p.LastExit)
			}
		}
		return nil
	})
}

// Await waits up to 30 seconds until a condition holds: until it has no error.
func (n *Network) Await(what string, condition func() error) {
	n.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("waited too long for %s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
