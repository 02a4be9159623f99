package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hansa-ledger/hansa/e2e/faults/distort"
	"github.com/hansa-ledger/hansa/e2e/faults/netns"
)

// Node is one process with its surroundings.
type Node struct {
	Name string
	Role Role
	Host *netns.Host
	Page *distort.Page // its clock and the speed of its disk, if the binary knows of pages

	dir     string
	member  *member
	command func() *exec.Cmd
	tls     *keyPair
	next    *keyPair // issued, perhaps named by the configuration and in use, but the change is not finished
	lost    bool     // it began anew with an empty folder, and is not yet another member for it
	log     *slog.Logger

	mu      sync.Mutex
	process *os.Process   // nil while it is down; guarded by mu
	ended   chan struct{} // closed when process has ended; guarded by mu
	wanted  bool          // guarded by mu
	exits   int           // without having been told to; guarded by mu
}

// Address is where it serves.
func (n *Node) Address() string { return net.JoinHostPort(n.Host.IP, port) }

// Data is the folder of its data: its disk.
func (n *Node) Data() string { return filepath.Join(n.dir, "data") }

// LogFile has everything that its processes wrote.
func (n *Node) LogFile() string { return filepath.Join(n.dir, "log") }

func (n *Node) config() string { return filepath.Join(n.dir, "config.yaml") }

// Start runs the node, and runs it again when it ends by itself.
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wanted = true
	if n.process != nil {
		return nil
	}
	return n.launch()
}

// launch starts the process; the caller holds mu.
func (n *Node) launch() error {
	log, err := os.OpenFile(n.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer log.Close()
	command := n.command()
	command.Env = append(append(os.Environ(), distort.Variable+"="+n.Page.File), command.Env...)
	command.Stdout, command.Stderr = log, log
	if err := command.Start(); err != nil {
		return err
	}
	n.process, n.ended = command.Process, make(chan struct{})
	go n.wait(command, n.ended)
	return nil
}

// restartAfter is the pause before a node that ended by itself is started again.
const restartAfter = 200 * time.Millisecond

func (n *Node) wait(command *exec.Cmd, ended chan struct{}) {
	err := command.Wait()
	n.mu.Lock()
	n.process = nil
	close(ended)
	again := n.wanted
	if again {
		n.exits++
		n.log.Warn("process ended by itself", "node", n.Name, "exit", err, "said", n.lastLine())
	}
	n.mu.Unlock()
	if !again {
		return
	}
	time.Sleep(restartAfter)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.wanted && n.process == nil {
		if err := n.launch(); err != nil {
			n.log.Error("cannot start", "node", n.Name, "error", err)
		}
	}
}

func (n *Node) lastLine() string {
	raw, err := os.ReadFile(n.LogFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return lines[len(lines)-1]
}

// Signal sends a signal to the process, if there is one.
func (n *Node) Signal(signal syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return nil
	}
	if err := n.process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Kill ends the process with SIGKILL, and leaves it down.
func (n *Node) Kill() error { return n.end(syscall.SIGKILL) }

// Stop asks the process to end, and leaves it down.
func (n *Node) Stop() error { return n.end(syscall.SIGTERM) }

func (n *Node) end(signal syscall.Signal) error {
	n.mu.Lock()
	n.wanted = false
	process, ended := n.process, n.ended
	n.mu.Unlock()
	if process == nil {
		return nil
	}
	if err := process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("%s does not end at %v", n.Name, signal)
	}
}

// Exits is how often the node has ended without having been told to.
func (n *Node) Exits() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.exits
}

// Crashes are the lines of its log that tell of a programming error.
func (n *Node) Crashes() []string {
	raw, err := os.ReadFile(n.LogFile())
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for line := range bytes.Lines(raw) {
		if text := strings.TrimSpace(string(line)); strings.HasPrefix(text, "panic:") || strings.HasPrefix(text, "fatal error:") {
			found = append(found, n.Name+": "+text)
		}
	}
	return found
}

// Await waits until the node serves.
func (n *Node) Await(ctx context.Context) error {
	if n.Role == contract {
		return until(ctx, func() error {
			c, err := net.DialTimeout("tcp", net.JoinHostPort(n.Host.IP, serverPort), time.Second)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
	return until(ctx, func() error {
		_, err := n.get(ctx, "/readyz")
		return err
	})
}

// get asks the operations port.
func (n *Node) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(n.Host.IP, opsPort)+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s%s: %s: %.200s", n.Name, path, response.Status, body.Bytes())
	}
	return body.Bytes(), nil
}

// until tries until there is no error, or no time.
func until(ctx context.Context, try func() error) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// diskSize is how large a node's disk is.
const diskSize = "size=1g"

// FillDisk leaves no room on the node's disk.
func (n *Node) FillDisk() error {
	var s syscall.Statfs_t
	if err := syscall.Statfs(n.Data(), &s); err != nil {
		return err
	}
	// It may grow between the two calls; then the new size is too small, and refused.
	var err error
	for spare := range 4 {
		if err = syscall.Mount("tmpfs", n.Data(), "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", (s.Blocks-s.Bfree+uint64(4*spare))*uint64(s.Bsize))); err == nil {
			return nil
		}
	}
	return fmt.Errorf("fill the disk of %s: %w", n.Name, err)
}

// FreeDisk gives the room back.
func (n *Node) FreeDisk() error {
	return syscall.Mount("tmpfs", n.Data(), "tmpfs", syscall.MS_REMOUNT, diskSize)
}

// Metric reads a number from the node's metrics; ok is false if the node does not answer or has none of that name and labels.
func (n *Node) Metric(ctx context.Context, name string) (value float64, ok bool) {
	body, err := n.get(ctx, "/metrics")
	if err != nil {
		return 0, false
	}
	for line := range bytes.Lines(body) {
		if text, found := strings.CutPrefix(string(line), name+" "); found {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			return value, err == nil
		}
	}
	return 0, false
}

// Leader is the orderer that leads, nil if none says so.
func (s *Site) Leader(ctx context.Context) *Node {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	leads := make([]bool, len(s.Orderers))
	var group sync.WaitGroup
	for i, n := range s.Orderers {
		group.Go(func() {
			value, _ := n.Metric(ctx, `hansa_raft_leader{channel="`+Channel+`"}`)
			leads[i] = value == 1
		})
	}
	group.Wait()
	if i := slices.Index(leads, true); i >= 0 {
		return s.Orderers[i]
	}
	return nil
}
