package deliver_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/deliver"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// line is a connection to a server that can hang, as a stopped process or a dead link does: nothing ends, nothing arrives.
type line struct {
	address string
	hung    atomic.Bool
	dials   atomic.Int64
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	n := &line{address: l.Addr().String()}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			n.dials.Add(1)
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			t.Cleanup(func() { in.Close(); out.Close() })
			go n.carry(in, out)
			go n.carry(out, in)
		}
	}()
	return n
}

func (n *line) carry(from, to net.Conn) {
	defer to.Close()
	buffer := make([]byte, 32<<10)
	for {
		k, err := from.Read(buffer)
		for n.hung.Load() {
			time.Sleep(time.Millisecond)
			if _, err := to.Write(nil); err != nil {
				return
			}
		}
		if _, werr := to.Write(buffer[:k]); err != nil || werr != nil {
			if err != io.EOF || werr != nil {
				return
			}
			return
		}
	}
}

// follower pulls without end.
type follower struct {
	*deliver.Puller
	mu     sync.Mutex
	height uint64
}

func follow(t *testing.T, cfg deliver.PullerConfig, addresses ...string) *follower {
	t.Helper()
	f := &follower{}
	cfg.ChannelID, cfg.Signer, cfg.Plaintext, cfg.Log = "c", signer(t), true, slog.New(slog.DiscardHandler)
	cfg.Next = f.Height
	cfg.Endpoints = func() (all []deliver.Endpoint) {
		for _, a := range addresses {
			all = append(all, deliver.Endpoint{Address: a})
		}
		return all
	}
	cfg.Sink = func(_ context.Context, b *commonpb.Block) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.height = b.Header.Number + 1
		return nil
	}
	f.Puller = deliver.NewPuller(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *follower) Height() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.height
}

func (f *follower) await(t *testing.T, height uint64) time.Duration {
	t.Helper()
	start := time.Now()
	for f.Height() < height {
		if time.Since(start) > 20*time.Second {
			t.Fatalf("height %d, want %d", f.Height(), height)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

// An orderer that hangs while the chain is idle is left before the next block is missed for long: with the defaults within
// about a second, whatever happens to the orderers after that.
func TestPullLeavesAHungOrderer(t *testing.T) {
	t.Parallel()
	c := newChain(3)
	server := serve(t, c, false)
	lines := []*line{newLine(t, server), newLine(t, server), newLine(t, server)}
	f := follow(t, deliver.PullerConfig{}, lines[0].address, lines[1].address, lines[2].address)
	f.await(t, 3)
	for i := range 2 {
		used := slices.IndexFunc(lines, func(l *line) bool { return l.address == f.Source() })
		if used < 0 {
			t.Fatal("no orderer is in use")
		}
		lines[used].hung.Store(true)
		c.append()
		took := f.await(t, uint64(4+i))
		t.Logf("the block came %v after the orderer hung", took)
		if took > 5*time.Second { // on a busy machine
			t.Errorf("it took %v", took)
		}
	}
}

// The orderer that failed is the last to be asked again.
func TestPullPrefersTheHealthy(t *testing.T) {
	t.Parallel()
	c := newChain(3)
	good := serve(t, c, false)
	bad := newLine(t, "127.0.0.1:1")
	lines := []*line{bad, newLine(t, good), newLine(t, good), newLine(t, good)}
	f := follow(t, deliver.PullerConfig{Silence: 100 * time.Millisecond, MaxSilence: 100 * time.Millisecond},
		lines[0].address, lines[1].address, lines[2].address, lines[3].address)
	f.await(t, 3)
	used := map[string]bool{}
	for i := range 3 {
		at := slices.IndexFunc(lines, func(l *line) bool { return l.address == f.Source() })
		if at < 0 {
			t.Fatal("no orderer is in use")
		}
		if used[lines[at].address] {
			t.Errorf("it came back to %d, which has failed, while others had not", at)
		}
		used[lines[at].address] = true
		if i < 2 {
			lines[at].hung.Store(true)
			c.append()
			f.await(t, uint64(4+i))
		}
	}
}

// An orderer that takes the request and then sends nothing, while others have blocks, is found out by asking the others.
func TestPullLeavesAWithholdingOrderer(t *testing.T) {
	t.Parallel()
	for name, withhold := range map[string]func(c *chain){
		"says that there is none": func(*chain) {},
		"says that there is one": func(c *chain) {
			c.mu.Lock()
			c.hold = 3
			c.mu.Unlock()
			c.append()
		},
	} {
		t.Run(name, func(t *testing.T) {
			honest, other := newChain(3), newChain(3)
			a, b := serve(t, other, false), serve(t, honest, false)
			f := follow(t, deliver.PullerConfig{Silence: 100 * time.Millisecond}, a, b)
			for f.await(t, 3); f.Source() == b; {
				// It is to be found out while it is used.
				f = follow(t, deliver.PullerConfig{Silence: 100 * time.Millisecond}, a, b)
				f.await(t, 3)
			}
			withhold(other)
			honest.append()
			f.await(t, 4)
			if f.Source() != b {
				t.Errorf("blocks come from %s", f.Source())
			}
		})
	}
}

// An orderer that sends old blocks, one now and then, is left for one that has the newest.
func TestPullLeavesAnOrdererThatStaysBehind(t *testing.T) {
	t.Parallel()
	ahead, behind := newChain(3), newChain(3)
	a, b := serve(t, behind, false), serve(t, ahead, false)
	cfg := deliver.PullerConfig{Silence: 100 * time.Millisecond, MaxSilence: 100 * time.Millisecond}
	f := follow(t, cfg, a, b)
	for f.await(t, 3); f.Source() == b; {
		f = follow(t, cfg, a, b)
		f.await(t, 3)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	for range 30 {
		ahead.append()
	}
	go func() {
		defer close(stopped)
		for {
			behind.append()
			ahead.append()
			select {
			case <-time.After(40 * time.Millisecond): // never silent for long
			case <-stop:
				return
			}
		}
	}()
	f.await(t, 33)
	close(stop)
	<-stopped
	if f.Source() != b {
		t.Errorf("blocks come from %s", f.Source())
	}
}
