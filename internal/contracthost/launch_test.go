package contracthost_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/contract"
	"github.com/hansa-ledger/hansa/internal/contracthost"
)

// process is a contract's process as a goroutine.
type process struct {
	done chan struct{}
	err  error
	stop context.CancelFunc
}

func (p *process) Done() <-chan struct{} { return p.done }
func (p *process) Exit() error           { return p.err }
func (p *process) Stop()                 { p.stop(); <-p.done }

// program starts processes, of which the newest is known.
type program struct {
	starts atomic.Int64
	mu     sync.Mutex
	newest *process
}

func (g *program) launch(main func(ctx context.Context) error) contracthost.Start {
	return func() (contracthost.Process, error) {
		g.starts.Add(1)
		ctx, cancel := context.WithCancel(context.Background())
		p := &process{done: make(chan struct{}), stop: cancel}
		g.mu.Lock()
		g.newest = p
		g.mu.Unlock()
		go func() { p.err = main(ctx); close(p.done) }()
		return p, nil
	}
}

func (g *program) kill() {
	g.mu.Lock()
	p := g.newest
	g.mu.Unlock()
	p.Stop()
}

// A contract is started when it is called, once for all who call, again when it has died, and ends with the host.
func TestLaunch(t *testing.T) {
	m := newHost(t, contracthost.Config{})
	address := m.listen(t)
	m.packages["notes"] = "notes:1"
	var g program
	start := g.launch(func(ctx context.Context) error {
		return errors.Join(contract.Serve(ctx, contract.Config{ID: "notes:1", PeerAddress: address}, notes()), errors.New("container exited with 0"))
	})
	if err := m.host.Launch("notes:1", start); err != nil {
		t.Fatal(err)
	}
	if g.starts.Load() != 0 {
		t.Error("started although nobody called")
	}
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() { m.must(t, call("notes", "Put", "a", "1")) })
	}
	callers.Wait()
	if n := g.starts.Load(); n != 1 {
		t.Errorf("%d starts, want one", n)
	}
	for range 3 {
		before := g.starts.Load()
		g.kill()
		// The stream may outlive its process by a moment, and fail the call that meets it.
		for {
			_, _, err := m.execute(t.Context(), "notes:1", call("notes", "Get", "a"))
			if err == nil {
				break
			}
			if !errors.Is(err, contracthost.ErrStreamTerminated) && !strings.Contains(err.Error(), "error sending") {
				t.Fatal(err)
			}
		}
		if n := g.starts.Load(); n != before+1 {
			t.Errorf("%d starts, want %d", n, before+1)
		}
	}
	// It becomes a service: the process is not needed any more.
	g.mu.Lock()
	old := g.newest
	g.mu.Unlock()
	m.serve(t, "notes", notes())
	if got := m.must(t, call("notes", "Get", "a")); got != "1" {
		t.Error(got)
	}
	<-old.done
	if err := m.host.Launch("notes:1", start); err != nil { // and a process again
		t.Fatal(err)
	}
	m.must(t, call("notes", "Get", "a"))
	m.host.Close()
	g.mu.Lock()
	<-g.newest.done
	g.mu.Unlock()
	if err := m.host.Launch("notes:1", start); err == nil {
		t.Error("a closed host took a contract")
	}
}

// Calls learn at once that the process has ended, and in time that it does not register.
func TestLaunchFails(t *testing.T) {
	m := newHost(t, contracthost.Config{LaunchTimeout: 200 * time.Millisecond})
	var g program
	for name, c := range map[string]struct {
		start contracthost.Start
		want  string
	}{
		"cannot start": {func() (contracthost.Process, error) { return nil, errors.New("no bin/run") }, "chaincode registration failed: error starting container: no bin/run"},
		"ends":         {g.launch(func(context.Context) error { return errors.New("container exited with 7") }), "chaincode registration failed: container exited with 7"},
		"is silent":    {g.launch(func(ctx context.Context) error { <-ctx.Done(); return errors.New("killed") }), "timeout expired while starting chaincode is silent:1"},
	} {
		id := name + ":1"
		if err := m.host.Launch(id, c.start); err != nil {
			t.Fatal(err)
		}
		for range 2 { // each call tries
			_, _, err := m.execute(t.Context(), id, call(name, "f"))
			if err == nil || !strings.Contains(err.Error(), "could not launch chaincode "+id+": "+c.want) && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		}
		m.host.Disconnect(id)
		if _, _, err := m.execute(t.Context(), id, call(name, "f")); !errors.Is(err, contracthost.ErrUnknownContract) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A caller who gives up leaves the start to others.
	slow := g.launch(func(ctx context.Context) error { <-ctx.Done(); return errors.New("killed") })
	if err := m.host.Launch("slow:1", slow); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := m.execute(ctx, "slow:1", call("slow", "f")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
