package raft_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/hansa-ledger/hansa/internal/order/raft"
)

func open(t *testing.T, cfg raft.Config) *raft.Node {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	n, err := raft.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

func advance(t *testing.T, n *raft.Node) []raft.Committed {
	t.Helper()
	out, err := n.Advance()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func single(dir string) raft.Config { return raft.Config{Dir: dir, ID: 1, Members: []uint64{1}} }

func TestSingleMemberCommitsInOneStep(t *testing.T) {
	dir := t.TempDir()
	n := open(t, single(dir))
	if err := n.Propose([]byte("too early")); !errors.Is(err, raft.ErrDropped) {
		t.Fatalf("proposal before the lead: %v", err)
	}
	advance(t, n)
	if !n.Leading() || n.Leader() != 1 {
		t.Fatal("a single member does not lead at once")
	}
	before, _ := n.Syncs()
	for i := range 5 {
		if err := n.Propose(fmt.Appendf(nil, "block %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	got := advance(t, n)
	if len(got) != 5 {
		t.Fatalf("committed %d of 5", len(got))
	}
	for i, c := range got {
		if string(c.Data) != fmt.Sprintf("block %d", i) || i > 0 && c.Index != got[i-1].Index+1 {
			t.Fatalf("entry %d is %q at %d", i, c.Data, c.Index)
		}
	}
	if after, _ := n.Syncs(); after != before+1 {
		t.Errorf("five entries cost %d fsyncs, want 1", after-before)
	}
}

// Entries that were returned as committed come back after a crash, unless the owner says that it has kept their effect.
func TestReopen(t *testing.T) {
	dir := t.TempDir()
	n := open(t, single(dir))
	advance(t, n)
	var last raft.Committed
	for i := range 10 {
		if err := n.Propose(fmt.Appendf(nil, "block %d", i)); err != nil {
			t.Fatal(err)
		}
		got := advance(t, n)
		last = got[len(got)-1]
	}
	n.Close()

	again := open(t, single(dir))
	if got := advance(t, again); len(got) != 10 || string(got[9].Data) != "block 9" {
		t.Fatalf("%d entries came back, want 10", len(got))
	}
	if !again.Leading() {
		t.Fatal("no lead after reopening")
	}
	again.Close()

	cfg := single(dir)
	cfg.Applied = last.Index - 2
	if got := advance(t, open(t, cfg)); len(got) != 2 || string(got[0].Data) != "block 8" {
		t.Fatalf("%d entries came back behind index %d, want 2", len(got), cfg.Applied)
	}
}

func TestCompact(t *testing.T) {
	dir := t.TempDir()
	n := open(t, single(dir))
	advance(t, n)
	var applied uint64
	for i := range 50 {
		if err := n.Propose(bytes.Repeat([]byte{byte(i)}, 1000)); err != nil {
			t.Fatal(err)
		}
		for _, c := range advance(t, n) {
			applied = c.Index
		}
		if i%10 == 9 {
			if err := n.Compact(applied, []byte("tip")); err != nil {
				t.Fatal(err)
			}
			if n.LogSize() > 1000 {
				t.Fatalf("the log still has %d bytes after compaction", n.LogSize())
			}
		}
	}
	if err := n.Compact(applied+1, nil); err == nil {
		t.Error("entries that are not applied could be dropped")
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("%d segments are left, want 1", len(names))
	}
	if err := n.Propose([]byte("after")); err != nil {
		t.Fatal(err)
	}
	advance(t, n)
	n.Close()

	cfg := single(dir)
	cfg.Applied = applied
	again := open(t, cfg)
	if got := advance(t, again); len(got) != 1 || string(got[0].Data) != "after" {
		t.Fatalf("after compaction %d entries came back, want 1", len(got))
	}
	again.Close()

	cfg.Applied = applied + 100
	cfg.Log = slog.New(slog.DiscardHandler)
	if _, err := raft.Open(cfg); err == nil {
		t.Error("opened a log that ends before what was applied")
	}
	cfg.Dir = t.TempDir()
	if _, err := raft.Open(cfg); err == nil {
		t.Error("started an empty log although entries were applied")
	}
}

// A crash may leave any prefix of what was written: all that was committed before the last fsync is still there.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	n := open(t, single(dir))
	advance(t, n)
	sizes := []int64{n.LogSize()}
	for i := range 5 {
		if err := n.Propose(bytes.Repeat([]byte{byte(i)}, 50)); err != nil {
			t.Fatal(err)
		}
		advance(t, n)
		sizes = append(sizes, n.LogSize())
	}
	n.Close()
	name := segment(t, dir)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for cut := sizes[0]; cut <= int64(len(whole)); cut += 3 {
		for _, garbage := range []int{0, 30} {
			want := 0
			for want < 5 && sizes[want+1] <= cut {
				want++
			}
			if want == 5 && garbage > 0 {
				garbage = 7
			}
			crashed := filepath.Join(t.TempDir(), "log")
			if err := os.Mkdir(crashed, 0o700); err != nil {
				t.Fatal(err)
			}
			content := append(bytes.Clone(whole[:cut]), bytes.Repeat([]byte{0xff}, garbage)...)
			if err := os.WriteFile(filepath.Join(crashed, filepath.Base(name)), content, 0o600); err != nil {
				t.Fatal(err)
			}
			m := open(t, single(crashed))
			if got := advance(t, m); len(got) != want {
				t.Fatalf("cut at %d: %d entries, want %d", cut, len(got), want)
			}
			if err := m.Propose([]byte("goes on")); err != nil {
				t.Fatal(err)
			}
			if got := advance(t, m); len(got) != 1 {
				t.Fatalf("cut at %d: the log does not go on", cut)
			}
			m.Close()
			if got := advance(t, open(t, single(crashed))); len(got) != want+1 {
				t.Fatalf("cut at %d: %d entries after going on, want %d", cut, len(got), want+1)
			}
		}
	}
}

func segment(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil || len(names) != 1 {
		t.Fatalf("segments %v, %v", names, err)
	}
	return names[0]
}

// Damage in front of good records is never taken for a torn end.
func TestDamageIsRefused(t *testing.T) {
	dir := t.TempDir()
	n := open(t, single(dir))
	advance(t, n)
	start := n.LogSize()
	for i := range 3 {
		if err := n.Propose(bytes.Repeat([]byte{byte(i)}, 50)); err != nil {
			t.Fatal(err)
		}
		advance(t, n)
	}
	n.Close()
	name := segment(t, dir)
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	content[start+20] ^= 1
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := single(dir)
	cfg.Log = slog.New(slog.DiscardHandler)
	var corrupt *raft.CorruptLogError
	if _, err := raft.Open(cfg); !errors.As(err, &corrupt) || corrupt.Offset != start {
		t.Fatalf("a damaged log gave %v", err)
	}
}

// Three members over a network that loses messages agree on one log, and keep it when the leader is restarted.
func TestCluster(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	net := &network{}
	dirs := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	nodes := make([]*raft.Node, 3)
	logs := make([][]string, 3)
	start := func(i int) {
		logs[i] = nil
		nodes[i] = open(t, raft.Config{Dir: dirs[i], ID: uint64(i + 1), Members: []uint64{1, 2, 3}, Transport: net})
	}
	for i := range nodes {
		start(i)
	}
	round := func(loss float64) {
		for i, n := range nodes {
			n.Tick()
			for _, c := range advance(t, n) {
				logs[i] = append(logs[i], string(c.Data))
			}
		}
		queue := net.queue
		net.queue = nil
		for _, m := range queue {
			if rng.Float64() < loss {
				continue
			}
			if err := nodes[m.GetTo()-1].Step(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	leader := func() int {
		for range 1000 {
			round(0)
			for i, n := range nodes {
				if n.Leading() {
					return i
				}
			}
		}
		t.Fatal("no leader")
		return 0
	}
	for i := range 100 {
		l := leader()
		if err := nodes[l].Propose(fmt.Appendf(nil, "block %d", i)); err != nil {
			t.Fatal(err)
		}
		round(0.2)
		if i%20 == 10 {
			nodes[l].Close()
			start(l)
		}
	}
	for range 100 {
		round(0)
	}
	if len(logs[0]) < 50 {
		t.Errorf("only %d entries were committed", len(logs[0]))
	}
	for i := 1; i < 3; i++ {
		if fmt.Sprint(logs[i]) != fmt.Sprint(logs[0]) {
			t.Errorf("member %d has another log than member 1:\n%v\n%v", i+1, logs[i], logs[0])
		}
	}
}

type network struct{ queue []*raftpb.Message }

func (n *network) Send(ms []*raftpb.Message) { n.queue = append(n.queue, ms...) }

func FuzzLog(f *testing.F) {
	dir := f.TempDir()
	cfg := single(dir)
	cfg.Log = slog.New(slog.DiscardHandler)
	n, err := raft.Open(cfg)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := n.Advance(); err != nil {
		f.Fatal(err)
	}
	if err := n.Propose([]byte("block")); err != nil {
		f.Fatal(err)
	}
	if _, err := n.Advance(); err != nil {
		f.Fatal(err)
	}
	n.Close()
	names, _ := filepath.Glob(filepath.Join(dir, "*.wal"))
	whole, err := os.ReadFile(names[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-3])
	f.Add([]byte("HANSAWL1"))
	f.Fuzz(func(t *testing.T, content []byte) { raft.ReadLog(content) })
}
