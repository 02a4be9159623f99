package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// network is a Hansa network on this machine, seen through the hansa command.
type network struct {
	hansa, dir string

	// up is the `hansa up` that this program started, nil if the network was running
	// before; ended is closed when it has ended.
	up    *exec.Cmd
	ended chan struct{}
	// serves is whether it has been seen to serve.
	serves bool
}

// downTimeout is how long a network may take to stop.
const downTimeout = 30 * time.Second

// exists tells whether there is a network in the folder, running or not.
func (n *network) exists() bool {
	_, err := os.Stat(filepath.Join(n.dir, "network.yaml"))
	return err == nil
}

// log is what `hansa up` complains about.
func (n *network) log() string { return n.dir + ".log" }

// start runs `hansa up` and waits until the network serves.
func (n *network) start(ctx context.Context, port int) error {
	if err := os.MkdirAll(filepath.Dir(n.dir), 0o750); err != nil {
		return err
	}
	log, err := os.Create(n.log())
	if err != nil {
		return err
	}
	defer log.Close()
	// Not bound to ctx: it outlives the applications and is stopped after them.
	up := program(context.WithoutCancel(ctx), n.hansa, "up", "--data", n.dir, "--port", fmt.Sprint(port))
	up.Stderr = log
	says, err := up.StdoutPipe()
	if err != nil {
		return err
	}
	if err := up.Start(); err != nil {
		return err
	}
	n.up, n.ended = up, make(chan struct{})
	serves := make(chan struct{})
	go func() {
		defer close(n.ended)
		lines := bufio.NewReader(says)
		if _, err := lines.ReadString('\n'); err == nil {
			close(serves) // it says nothing before
		}
		io.Copy(io.Discard, lines)
		up.Wait()
	}()
	select {
	case <-serves:
		n.serves = true
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-n.ended:
		text, _ := os.ReadFile(n.log())
		return explained(up, errors.New("it ended"), string(text))
	}
}

// stop stops the network, whatever became of the caller's context, and waits
// until its processes are gone.
func (n *network) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
	defer cancel()
	if n.up == nil {
		_, err := output(program(ctx, n.hansa, "down", "--data", n.dir))
		return err
	}
	up := n.up
	n.up = nil
	up.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	select {
	case <-n.ended:
		return nil
	case <-ctx.Done():
		up.Process.Kill()
		<-n.ended
		return fmt.Errorf("the network did not stop within %s and was killed; %s and %s say more", downTimeout, n.log(), n.logs())
	}
}

// hasContract tells whether a contract is on the channel.
func (n *network) hasContract(ctx context.Context, name string) (bool, error) {
	text, err := output(program(ctx, n.hansa, "contract", "list", "--data", n.dir))
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == name {
			return true, err
		}
	}
	return false, err
}

// deploy puts a contract on the channel. It returns how long it took to compile,
// which is no part of starting a network.
func (n *network) deploy(ctx context.Context, source string) (building time.Duration, err error) {
	deploy := program(ctx, n.hansa, "contract", "deploy", source, "--data", n.dir)
	var failure bytes.Buffer
	deploy.Stderr = &failure
	steps, err := deploy.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := deploy.Start(); err != nil {
		return 0, err
	}
	// Each step is announced when it begins.
	lines := bufio.NewScanner(steps)
	var began time.Time
	for lines.Scan() {
		switch {
		case strings.Contains(lines.Text(), " s  build "):
			began = time.Now()
		case building == 0 && !began.IsZero():
			building = time.Since(began)
		}
	}
	return building, explained(deploy, deploy.Wait(), failure.String())
}

// node is a process of the network.
type node struct {
	Name    string `json:"name"`
	Role    string `json:"role"`
	Address string `json:"address"`
	PID     int    `json:"pid"`
	Ready   bool   `json:"is_ready"`
}

// errNotRunning says that no network runs in the folder.
var errNotRunning = errors.New("the network is not running")

func (n *network) nodes(ctx context.Context) ([]node, error) {
	text, err := output(program(ctx, n.hansa, "status", "--json", "--data", n.dir))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotRunning, err)
	}
	var all []node
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return nil, fmt.Errorf("hansa status --json: %w", err)
	}
	return all, nil
}

// logs says where the network's processes write.
func (n *network) logs() string { return filepath.Join(n.dir, "nodes", "*", "log") }

// program is a command in a process group of its own: Ctrl-C reaches this program
// alone, which then ends what it started, in order.
func program(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGINT) }
	c.WaitDelay = 10 * time.Second
	return c
}

// output runs a command and returns what it wrote; its error holds its complaint.
func output(c *exec.Cmd) (string, error) {
	var out, failure bytes.Buffer
	c.Stdout, c.Stderr = &out, &failure
	err := c.Run()
	return out.String(), explained(c, err, failure.String())
}

func explained(c *exec.Cmd, err error, complaint string) error {
	if err == nil {
		return nil
	}
	said := strings.TrimPrefix(strings.TrimSpace(complaint), "hansa: ")
	if said == "" {
		said = err.Error()
	}
	name := filepath.Base(c.Path)
	for _, arg := range c.Args[1:] {
		if strings.HasPrefix(arg, "-") {
			break
		}
		name += " " + arg
	}
	return fmt.Errorf("%s: %s", name, said)
}
