package order_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/order"
	"github.com/hansa-ledger/hansa/internal/order/raft"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// remembered is the log that consenters of Fabric have after these blocks: the members, then entries with blocks that have room for
// metadata, and empty ones of new leaders between.
func remembered(t *testing.T, blocks []*commonpb.Block, members int, term, vote uint64) *raft.Remembered {
	t.Helper()
	byIndex := map[uint64]*commonpb.Block{}
	last := uint64(0)
	for _, b := range blocks[1:] {
		last = order.ConsenterNotes(b).RaftIndex
		byIndex[last] = b
	}
	m := &raft.Remembered{Hard: &raftpb.HardState{Term: &term, Vote: &vote, Commit: &last}}
	for i := uint64(1); i <= last; i++ {
		e := &raftpb.Entry{Index: new(i), Term: new(uint64(1))}
		if i <= uint64(members) {
			cc := &raftpb.ConfChange{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: new(i)}
			raw, err := proto.Marshal(cc)
			if err != nil {
				t.Fatal(err)
			}
			e.Type, e.Data = raftpb.EntryConfChange.Enum(), raw
		} else if b := byIndex[i]; b != nil {
			raw, err := proto.Marshal(&commonpb.Block{Header: b.Header, Data: b.Data, Metadata: &commonpb.BlockMetadata{Metadata: make([][]byte, 5)}})
			if err != nil {
				t.Fatal(err)
			}
			e.Data = raw
		}
		m.Entries = append(m.Entries, e)
	}
	return m
}

func giving(blocks []*commonpb.Block) func() (*commonpb.Block, error) {
	return func() (*commonpb.Block, error) {
		if len(blocks) == 0 {
			return nil, io.EOF
		}
		b := blocks[0]
		blocks = blocks[1:]
		return b, nil
	}
}

func (n *node) blocks(t *testing.T) (all []*commonpb.Block) {
	t.Helper()
	for i := range n.chain(t).Height() {
		b, err := n.chain(t).Block(i)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, proto.CloneOf(b))
	}
	return all
}

func (n *node) adopt(t *testing.T, in order.Inheritance) (uint64, error) {
	t.Helper()
	return order.Adopt(order.Config{Dir: n.dir, Certificate: n.leaf.PEM, Signer: n.signer, Verifier: identity.NewVerifier(identity.Config{}),
		Cluster: n.links, Pull: n.pull, Accept: validate.Accept, Log: n.of.log}, channelID, in)
}

// Consenters go on as the members that they were in another program, with what they promised there.
func TestAdoptCluster(t *testing.T) {
	o := newOrdering(t, 3, 0)
	o.begin(t, 3)
	l := o.load(t, 4)
	l.more(t, 60)
	o.check(t, l.stop())
	blocks := o.nodes[0].blocks(t)
	for i, n := range o.nodes {
		n.stop(t)
		n.dir = t.TempDir()
		// Two of them had not stored the newest blocks yet.
		stored := blocks[:len(blocks)-i]
		height, err := n.adopt(t, order.Inheritance{Next: giving(stored), Log: remembered(t, blocks, 3, 9, uint64(i%2)*2)})
		if err != nil || height != uint64(len(stored)) {
			t.Fatalf("node %d: height %d, %v", i, height, err)
		}
		if _, err := n.adopt(t, order.Inheritance{Next: giving(stored)}); err == nil {
			t.Error("a channel was adopted twice")
		}
	}
	for _, n := range o.nodes {
		n.start(t)
	}
	leader := o.leader(t)
	if term := termOf(t, leader); term < 10 {
		t.Errorf("term %d: what was promised in term 9 was forgotten", term)
	}
	l = o.load(t, 4)
	l.more(t, 30)
	l.stop()
	o.check(t, nil) // each load has the same texts
}

// A consenter that brings blocks and no promises gets the rest of the blocks and does not vote.
func TestAdoptWithoutLog(t *testing.T) {
	o := newOrdering(t, 3, 0)
	o.begin(t, 3)
	l := o.load(t, 4)
	l.more(t, 20)
	blocks := o.nodes[2].blocks(t)
	o.nodes[2].stop(t)
	o.nodes[2].dir = t.TempDir()
	if _, err := o.nodes[2].adopt(t, order.Inheritance{Next: giving(blocks)}); err != nil {
		t.Fatal(err)
	}
	o.nodes[2].start(t)
	if relation, status := o.nodes[2].chain(t).Relation(); relation != "consenter" || status != "inactive" {
		t.Errorf("it is %s, %s", relation, status)
	}
	l.more(t, 20)
	o.check(t, l.stop())
}

// The only consenter has promised nobody anything.
func TestAdoptSingle(t *testing.T) {
	for _, withLog := range []bool{true, false} {
		o := newOrdering(t, 1, 0)
		o.begin(t, 1)
		l := o.load(t, 2)
		l.more(t, 20)
		l.stop()
		n := o.nodes[0]
		blocks := n.blocks(t)
		n.stop(t)
		n.dir = t.TempDir()
		in := order.Inheritance{Next: giving(blocks)}
		if withLog {
			in.Log = remembered(t, blocks, 1, 4, 1)
		}
		if _, err := n.adopt(t, in); err != nil {
			t.Fatal(err)
		}
		for range 2 { // and after a restart
			n.start(t)
			o.leader(t)
			l = o.load(t, 2)
			l.more(t, 10)
			l.stop()
			o.check(t, nil) // each load has the same texts
			n.stop(t)
		}
	}
}

func TestAdoptRefuses(t *testing.T) {
	o := newOrdering(t, 3, 0)
	o.begin(t, 3)
	l := o.load(t, 2)
	l.more(t, 10)
	l.stop()
	good := o.nodes[0].blocks(t)
	n := o.nodes[0]
	n.stop(t)
	full := remembered(t, good, 3, 2, 1)
	for name, c := range map[string]struct {
		spoil func(blocks []*commonpb.Block, log *raft.Remembered) []*commonpb.Block
		want  string
	}{
		"no blocks": {func([]*commonpb.Block, *raft.Remembered) []*commonpb.Block { return nil }, "there are no blocks"},
		"a gap":     {func(b []*commonpb.Block, _ *raft.Remembered) []*commonpb.Block { return append(b[:1:1], b[2:]...) }, "block 1"},
		"another channel": {func(b []*commonpb.Block, _ *raft.Remembered) []*commonpb.Block {
			b[0] = proto.CloneOf(b[0])
			b[0].Data.Data[0] = append(b[0].Data.Data[0], 0)
			return b
		}, "not the channel's first block"},
		"other data": {func(b []*commonpb.Block, _ *raft.Remembered) []*commonpb.Block {
			b[1].Data.Data = append(b[1].Data.Data, []byte("x"))
			return b
		}, "block 1"},
		"a short log": {func(b []*commonpb.Block, log *raft.Remembered) []*commonpb.Block {
			log.Entries = log.Entries[:4]
			return b
		}, "the log ends at entry 4"},
		"a log with a gap": {func(b []*commonpb.Block, log *raft.Remembered) []*commonpb.Block {
			log.Entries = append(log.Entries[:1:1], log.Entries[2:]...)
			return b
		}, "is where entry 2 belongs"},
	} {
		n.dir = t.TempDir()
		var blocks []*commonpb.Block
		for _, b := range good {
			blocks = append(blocks, proto.CloneOf(b))
		}
		log := &raft.Remembered{Hard: full.Hard, Entries: full.Entries}
		blocks = c.spoil(blocks, log)
		if _, err := n.adopt(t, order.Inheritance{Next: giving(blocks), Log: log}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if left, err := os.ReadDir(filepath.Join(n.dir, "channels")); err != nil || len(left) > 0 {
			t.Errorf("%s: %v %v was left", name, left, err)
		}
	}
}
