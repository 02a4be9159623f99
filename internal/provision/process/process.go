// Package process runs nodes as local processes: it starts what is wanted,
// restarts what dies, stops what is no longer wanted, and tells how each is
// doing. Output goes to one log file a process.
//
// It knows nothing of what the processes do. A Supervisor lives as long as
// `hansa up`; the next one finds and stops what a killed supervisor left behind.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Spec is a process that should run.
type Spec struct {
	Name    string   `json:"name"`
	Role    string   `json:"role"` // peer, orderer, ca, contract
	Command []string `json:"command"`
	Dir     string   `json:"dir"` // working directory; holds the log
	Env     []string `json:"env,omitempty"`
	// Address is where the process serves, for people to read.
	Address string `json:"address"`
	// Ready is a URL that answers 200 once the process serves, or "tcp://host:port"
	// that accepts connections then.
	Ready string `json:"ready"`
}

// Log is the file that holds the output of a process.
func (s Spec) Log() string { return filepath.Join(s.Dir, "log") }

// Status is how a process is doing.
type Status struct {
	Spec
	PID      int       `json:"pid"`
	Ready    bool      `json:"is_ready"`
	Restarts int       `json:"restarts"`
	Since    time.Time `json:"since"`
	LastExit string    `json:"last_exit,omitempty"`
}

// How the supervisor waits.
const (
	// stopGrace is how long a process may take to stop before it is killed.
	stopGrace = 10 * time.Second
	// A process that dies is started again after minBackoff, doubled up to maxBackoff
	// while it keeps dying within a minute.
	minBackoff    = 100 * time.Millisecond
	maxBackoff    = 15 * time.Second
	steadyAfter   = time.Minute
	readyInterval = 5 * time.Millisecond
)

// Supervisor keeps a set of processes running.
type Supervisor struct {
	log *slog.Logger

	mu      sync.Mutex
	running map[string]*child // guarded by mu
}

type child struct {
	spec   Spec
	cancel context.CancelFunc
	done   chan struct{} // closed when the keeper has ended

	mu     sync.Mutex
	status Status // guarded by mu
}

// NewSupervisor makes a supervisor without processes.
func NewSupervisor(log *slog.Logger) *Supervisor {
	return &Supervisor{log: log, running: map[string]*child{}}
}

// Reconcile starts the processes of want that do not run and stops those that
// run and are not in want, or are in it with another command. It does not wait
// until they are ready: see WaitReady.
func (s *Supervisor) Reconcile(want []Spec) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := map[string]Spec{}
	for _, spec := range want {
		keep[spec.Name] = spec
	}
	var stopping []*child
	for name, c := range s.running {
		if spec, ok := keep[name]; !ok || !reflect.DeepEqual(spec, c.spec) {
			c.cancel()
			stopping = append(stopping, c)
			delete(s.running, name)
		}
	}
	for _, c := range stopping {
		<-c.done
	}
	for _, spec := range want {
		if s.running[spec.Name] != nil {
			continue
		}
		c, err := s.start(spec)
		if err != nil {
			return fmt.Errorf("start %s: %w", spec.Name, err)
		}
		s.running[spec.Name] = c
	}
	return nil
}

// start runs a keeper for the process; the first start is checked at once.
func (s *Supervisor) start(spec Spec) (*child, error) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &child{spec: spec, cancel: cancel, done: make(chan struct{}), status: Status{Spec: spec}}
	command, err := launch(spec)
	if err != nil {
		cancel()
		return nil, err
	}
	c.status.PID = command.Process.Pid // before anyone waits until it is ready
	c.started(command)                 // now: who waits takes a process without pid for a dead one
	go func() {
		defer close(c.done)
		s.keep(ctx, c, command)
	}()
	return c, nil
}

// keep waits for the process and starts it again until ctx ends.
func (s *Supervisor) keep(ctx context.Context, c *child, command *exec.Cmd) {
	backoff := minBackoff
	for {
		started := time.Now()
		exited := make(chan error, 1)
		go func() { exited <- command.Wait() }()
		select {
		case err := <-exited:
			c.set(func(st *Status) { st.PID, st.Ready, st.LastExit = 0, false, exitText(err, c.spec) })
			s.log.Warn("process ended", "name", c.spec.Name, "exit", exitText(err, c.spec), "log", c.spec.Log())
		case <-ctx.Done():
			stop(command.Process, exited)
			c.set(func(st *Status) { st.PID, st.Ready = 0, false })
			return
		}
		if time.Since(started) > steadyAfter {
			backoff = minBackoff
		}
		for {
			select {
			case <-time.After(backoff):
			case <-ctx.Done():
				return
			}
			backoff = min(2*backoff, maxBackoff)
			var err error
			if command, err = launch(c.spec); err == nil {
				c.set(func(st *Status) { st.Restarts++ })
				c.started(command)
				break
			}
			s.log.Error("cannot start process", "name", c.spec.Name, "error", err)
		}
	}
}

func (c *child) started(command *exec.Cmd) {
	c.set(func(st *Status) { st.PID, st.Since, st.Ready = command.Process.Pid, time.Now(), false })
}

func (c *child) set(change func(*Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
}

func launch(spec Spec) (*exec.Cmd, error) {
	if err := os.MkdirAll(spec.Dir, 0o750); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(spec.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own descriptor
	command := exec.Command(spec.Command[0], spec.Command[1:]...)
	command.Dir = spec.Dir
	command.Env = append(os.Environ(), spec.Env...)
	command.Stdout, command.Stderr = log, log
	// Its own group: Ctrl-C in the terminal reaches the supervisor alone, which
	// then stops the processes in order.
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return command, command.Start()
}

// stop asks a process to end, and kills it after stopGrace.
func stop(p *os.Process, exited <-chan error) {
	p.Signal(syscall.SIGTERM)
	select {
	case <-exited:
	case <-time.After(stopGrace):
		p.Kill()
		<-exited
	}
}

// StopStale stops the processes of specs that a killed supervisor left running,
// and tells how many they were.
// Only the one who holds the network's lock may call it. They are known by their
// command lines: a pid file can miss a process whose supervisor was killed
// between starting it and writing the file.
func StopStale(specs []Spec) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0 // not Linux: the check of the ports names what is left
	}
	var stale []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && slices.ContainsFunc(specs, func(s Spec) bool { return runs(pid, s.Command) }) {
			// It is no child of ours, so its end can only be seen, not waited for.
			syscall.Kill(pid, syscall.SIGTERM)
			stale = append(stale, pid)
		}
	}
	deadline := time.Now().Add(stopGrace)
	for _, pid := range stale {
		for alive(pid) {
			if time.Now().After(deadline) {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			time.Sleep(readyInterval)
		}
	}
	return len(stale)
}

// runs says whether pid is a process of the command. A script's command line
// begins with its interpreter; another build of the same program counts too, if
// its arguments tell that it is this node.
func runs(pid int, command []string) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	args := strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
	if len(args) < len(command) {
		return false
	}
	args = args[len(args)-len(command):]
	return slices.Equal(args[1:], command[1:]) && (args[0] == command[0] || len(command) > 1 && filepath.Base(args[0]) == filepath.Base(command[0]))
}

// alive says whether pid is a process that has not ended; a zombie has.
func alive(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(raw), ") ")
	return !strings.HasPrefix(state, "Z")
}

// exitText says how a process ended, with the line it wrote last that tells of an error.
func exitText(err error, spec Spec) string {
	text := "ended with success"
	if err != nil {
		text = err.Error()
	}
	if line := lastLine(spec.Log()); line != "" {
		text += ": " + line
	}
	return text
}

func lastLine(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	const tail = 4096
	if info, err := f.Stat(); err == nil && info.Size() > tail {
		f.Seek(-tail, 2)
	}
	buffer := make([]byte, tail)
	n, _ := f.Read(buffer)
	lines := strings.Split(strings.TrimSpace(string(buffer[:n])), "\n")
	// An uncaught error of a Node contract ends in its stack, not in its message.
	for _, line := range slices.Backward(lines) {
		if strings.HasPrefix(line, "Error: ") {
			return line
		}
	}
	return lines[len(lines)-1]
}

// WaitReady waits until every process serves. A process that dies meanwhile
// fails the wait with what it wrote last.
func (s *Supervisor) WaitReady(ctx context.Context) error {
	s.mu.Lock()
	children := make([]*child, 0, len(s.running))
	for _, c := range s.running {
		children = append(children, c)
	}
	s.mu.Unlock()
	for _, c := range children {
		if err := c.waitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *child) waitReady(ctx context.Context) error {
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	restarts := c.get().Restarts
	for !probe(ctx, c.spec.Ready) {
		if st := c.get(); st.PID == 0 || st.Restarts > restarts {
			return fmt.Errorf("%s does not start: %s (log: %s)", c.spec.Name, st.LastExit, c.spec.Log())
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (log: %s)", c.spec.Name, ctx.Err(), c.spec.Log())
		}
	}
	c.set(func(st *Status) { st.Ready = true })
	return nil
}

func (c *child) get() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func probe(ctx context.Context, target string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if address, ok := strings.CutPrefix(target, "tcp://"); ok {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// Status tells how each process is doing, by name.
func (s *Supervisor) Status(ctx context.Context) []Status {
	s.mu.Lock()
	children := make([]*child, 0, len(s.running))
	for _, c := range s.running {
		children = append(children, c)
	}
	s.mu.Unlock()
	all := make([]Status, len(children))
	var group sync.WaitGroup
	for i, c := range children {
		group.Go(func() {
			all[i] = c.get()
			all[i].Ready = all[i].PID != 0 && probe(ctx, c.spec.Ready)
		})
	}
	group.Wait()
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Stop stops every process: contracts and peers before the orderers that they use.
func (s *Supervisor) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, role := range []string{"peer", "contract", "ca", "orderer"} {
		var group sync.WaitGroup
		for name, c := range s.running {
			if c.spec.Role == role {
				c.cancel()
				group.Go(func() { <-c.done })
				delete(s.running, name)
			}
		}
		group.Wait()
	}
}

// ErrPortInUse says that another program listens where a node should.
var ErrPortInUse = errors.New("port in use")

// releaseTime is how long a port may stay taken by a process that was killed a
// moment ago: the kernel closes its sockets after its command line has gone.
const releaseTime = time.Second

// CheckPorts names the first of the addresses that cannot be listened on.
func CheckPorts(addresses ...string) error {
	deadline := time.Now().Add(releaseTime)
	for _, address := range addresses {
		for {
			listener, err := net.Listen("tcp", address)
			if err == nil {
				listener.Close()
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%w: %s (%v)", ErrPortInUse, address, err)
			}
			time.Sleep(readyInterval)
		}
	}
	return nil
}
