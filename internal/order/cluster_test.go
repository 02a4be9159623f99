package order_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/deliver"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/order"
	"github.com/hansa-ledger/hansa/internal/order/cluster"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// ordering is a service of several orderers, of which some may be down or not in the config.
type ordering struct {
	*network
	nodes []*node
	log   *slog.Logger
}

// node is one orderer: a service behind a real gRPC server, with its connections to the others.
type node struct {
	of      *ordering
	number  int
	address string
	dir     string
	leaf    *identitytest.Leaf // TLS
	signer  *identity.Signer
	cfg     func(*order.Config)

	*order.Service
	current atomic.Pointer[order.Service] // the same, for clients
	server  *grpc.Server
	links   *cluster.Cluster
	cancel  context.CancelFunc
	ran     chan error
	up      bool
}

// newOrdering makes a network of founders consenters, and more nodes that are none yet. None of them runs.
// Edits such as "timeout: 1s" change what the channel's description says.
func newOrdering(t testing.TB, founders, more int, edits ...string) *ordering {
	t.Helper()
	o := &ordering{log: slog.New(slog.DiscardHandler)}
	if os.Getenv("HANSA_TEST_LOG") != "" {
		o.log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	text := `
channel: trade
batch: {timeout: 10s, maxMessages: 50, preferredMaxBytes: 64KB, absoluteMaxBytes: 256KB}
raft: {tickInterval: 20ms, electionTick: 10}
members:
  - {name: Harbour, mspId: HarbourMSP, mspDir: harbour, orderingOnly: true}
  - {name: Alpha, mspId: AlphaMSP, mspDir: alpha}
orderers:
`
	for _, edit := range edits {
		name, _, _ := strings.Cut(edit, ":")
		text = regexp.MustCompile(name+`: \w+`).ReplaceAllString(text, edit)
	}
	for i := range founders + more {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		o.nodes = append(o.nodes, &node{of: o, number: i, address: l.Addr().String(), dir: t.TempDir()})
		if i < founders {
			text += fmt.Sprintf("  - {member: Harbour, host: 127.0.0.1, port: %d, tlsCert: orderer%d-tls.pem}\n", l.Addr().(*net.TCPAddr).Port, i)
		}
	}
	o.network = newNetworkOf(t, "", text, founders+more)
	for i, n := range o.nodes {
		n.leaf = o.servers[i]
		n.signer = o.orderers.Signer(t, "orderer")
	}
	t.Cleanup(func() {
		for _, n := range o.nodes {
			n.stop(t)
		}
	})
	return o
}

// pullers adapts package deliver, as package node does.
func (n *node) pull(ctx context.Context, p order.Pull) error {
	cert := certificate(n.leaf)
	return deliver.NewPuller(deliver.PullerConfig{ChannelID: p.ChannelID, Signer: n.signer, Certificate: &cert, Next: p.Next, Known: p.Known, Log: n.of.log,
		Endpoints: func() (all []deliver.Endpoint) {
			for _, e := range p.Endpoints() {
				all = append(all, deliver.Endpoint{Address: e.Address, TLSRoots: e.TLSRoots})
			}
			return all
		},
		Sink: func(ctx context.Context, b *commonpb.Block) error {
			err := p.Sink(ctx, b)
			if errors.Is(err, order.ErrBadBlock) {
				return fmt.Errorf("%w: %w", deliver.ErrBadBlock, err)
			}
			return err
		}}).Run(ctx)
}

func (n *node) start(t testing.TB) {
	t.Helper()
	log := n.of.log.With("node", n.number)
	n.links = cluster.New(cluster.Config{Certificate: certificate(n.leaf), Log: log})
	cfg := order.Config{Dir: n.dir, Certificate: n.leaf.PEM, Signer: n.signer, Verifier: identity.NewVerifier(identity.Config{}),
		Cluster: n.links, Pull: n.pull, Accept: validate.Accept, Log: log}
	if n.cfg != nil {
		n.cfg(&cfg)
	}
	var err error
	if n.Service, err = order.Open(cfg); err != nil {
		t.Fatalf("node %d: %v", n.number, err)
	}
	n.current.Store(n.Service)
	var ctx context.Context
	ctx, n.cancel = context.WithCancel(context.Background())
	n.ran = make(chan error, 1)
	go func(s *order.Service) { n.ran <- s.Run(ctx) }(n.Service)
	n.server = grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate(n.leaf)}, ClientAuth: tls.RequestClientCert})))
	ordererpb.RegisterAtomicBroadcastServer(n.server, &atomicBroadcast{Service: n.Service, deliver: deliver.Orderer{Server: deliver.NewServer(deliver.Config{
		Log: log, Channel: func(id string) (deliver.Channel, bool) {
			c, ok := n.Channel(id)
			return c, ok
		}})}})
	ordererpb.RegisterClusterServer(n.server, clusterServer{links: n.links})
	l, err := net.Listen("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	go n.server.Serve(l)
	n.up = true
}

type clusterServer struct {
	ordererpb.UnimplementedClusterServer
	links *cluster.Cluster
}

func (s clusterServer) Step(stream grpc.BidiStreamingServer[ordererpb.StepRequest, ordererpb.StepResponse]) error {
	return s.links.Step(stream)
}

// stop stops in good order, kill without a word to the others.
func (n *node) stop(t testing.TB) { n.end(t, false) }
func (n *node) kill(t testing.TB) { n.end(t, true) }

func (n *node) end(t testing.TB, silent bool) {
	t.Helper()
	if !n.up {
		return
	}
	n.up = false
	if silent {
		n.links.Close()
		n.server.Stop()
	}
	n.cancel()
	if err := <-n.ran; err != nil {
		t.Errorf("node %d: %v", n.number, err)
	}
	if !silent {
		n.links.Close()
		n.server.Stop()
	}
}

func (n *node) chain(t testing.TB) *order.Chain {
	t.Helper()
	c, ok := n.Channel(channelID)
	if !ok {
		t.Fatalf("node %d has no channel", n.number)
	}
	return c
}

func (n *node) join(t testing.TB, b *commonpb.Block) {
	t.Helper()
	if _, err := n.Join(t.Context(), proto.CloneOf(b)); err != nil {
		t.Fatalf("node %d: %v", n.number, err)
	}
}

// begin starts and joins the founders.
func (o *ordering) begin(t testing.TB, founders int) {
	t.Helper()
	for _, n := range o.nodes[:founders] {
		n.start(t)
		n.join(t, o.genesis)
	}
	o.leader(t)
}

// until waits for a condition.
func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

// leader is the node that leads, and that the others which run know of.
func (o *ordering) leader(t testing.TB) (leader *node) {
	t.Helper()
	until(t, "a leader", func() bool {
		votes := map[uint64]int{}
		leader = nil
		running := 0
		for _, n := range o.nodes {
			if !n.up {
				continue
			}
			c, ok := n.Channel(channelID)
			if relation, _ := relationOf(c, ok); relation != "consenter" {
				continue
			}
			running++
			votes[c.Leader()]++
			if id := o.id(n); id != 0 && id == c.Leader() {
				leader = n
			}
		}
		return leader != nil && votes[o.id(leader)] == running
	})
	return leader
}

func relationOf(c *order.Chain, ok bool) (string, string) {
	if !ok {
		return "", ""
	}
	return c.Relation()
}

// id is a node's number in raft by its own config, 0 if it has none.
func (o *ordering) id(n *node) uint64 {
	c, ok := n.Channel(channelID)
	if !ok || c.Height() == 0 {
		return 0
	}
	tip, err := c.Block(c.Height() - 1)
	if err != nil {
		return 0
	}
	meta, err := c.Bundle().RaftMetadata()
	if err != nil {
		return 0
	}
	ids := order.ConsenterIDs(tip)
	for i, m := range meta.Consenters {
		if bytes.Equal(m.ServerTlsCert, n.leaf.PEM) {
			if len(ids) == 0 {
				return uint64(i + 1)
			}
			if i < len(ids) {
				return ids[i]
			}
		}
	}
	return 0
}

// load submits through all nodes until stopped and records what was acknowledged.
type load struct {
	stop  func() map[string]bool
	count atomic.Int64
}

func (o *ordering) load(t testing.TB, clients int) *load {
	l := &load{}
	ctx, cancel := context.WithCancel(context.Background())
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	var group sync.WaitGroup
	for w := range clients {
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				n := o.nodes[(w+i)%len(o.nodes)]
				s := n.current.Load()
				if s == nil {
					continue
				}
				text := fmt.Sprintf("%d/%d", w, i)
				short, done := context.WithTimeout(ctx, 10*time.Second)
				err := s.Submit(short, message(t, o.user, channelID, text))
				done()
				if err != nil {
					time.Sleep(time.Millisecond)
					continue
				}
				mu.Lock()
				acknowledged[text] = true
				mu.Unlock()
				l.count.Add(1)
			}
		})
	}
	l.stop = func() map[string]bool {
		cancel()
		group.Wait()
		return acknowledged
	}
	return l
}

func (l *load) more(t testing.TB, n int64) {
	t.Helper()
	from := l.count.Load()
	until(t, fmt.Sprintf("%d more acknowledged envelopes", n), func() bool { return l.count.Load() >= from+n })
}

// check brings all running nodes to one height and compares their chains; what was acknowledged is in it once.
func (o *ordering) check(t testing.TB, acknowledged map[string]bool) {
	t.Helper()
	var first *node
	height := uint64(0)
	for _, n := range o.nodes {
		if n.up {
			height = max(height, n.chain(t).Height())
		}
	}
	var blocks [][]byte
	found := map[string]int{}
	for _, n := range o.nodes {
		if !n.up {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := n.chain(t).Wait(ctx, height); err != nil {
			t.Fatalf("node %d stays at height %d of %d: %v", n.number, n.chain(t).Height(), height, err)
		}
		cancel()
		previous := []byte(nil)
		for i := range height {
			b, err := n.chain(t).Block(i)
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				if err := validate.Accept(n.chain(t).Bundle(), b, i, previous); err != nil {
					t.Fatalf("node %d: %v", n.number, err)
				}
			}
			previous = block.HeaderHash(b.Header)
			content, _ := proto.MarshalOptions{Deterministic: true}.Marshal(&commonpb.Block{Header: b.Header, Data: b.Data})
			content = fmt.Appendf(content, "%v", order.ConsenterNotes(b))
			if first == nil {
				blocks = append(blocks, content)
				for _, text := range texts(t, b) {
					found[text]++
				}
			} else if !bytes.Equal(content, blocks[i]) {
				t.Fatalf("nodes %d and %d have different blocks %d:\n%v\n%v", first.number, n.number, i, blocks[i], content)
			}
		}
		if first == nil {
			first = n
		}
	}
	lost := 0
	for text := range acknowledged {
		if found[text] != 1 {
			lost++
			t.Errorf("%s was acknowledged and is %d times in the chain", text, found[text])
		}
	}
	t.Logf("%d blocks, %d envelopes acknowledged, %d lost or doubled", height, len(acknowledged), lost)
}

// Orderers die and come back under load, by good and by bad deaths, the leader among them; a majority goes on.
func TestClusterFaults(t *testing.T) {
	t.Parallel()
	for _, size := range []int{3, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 0))
			o := newOrdering(t, size, 0)
			for _, n := range o.nodes {
				n.cfg = func(c *order.Config) { c.LogBytes = 64 << 10 } // so that the log is compacted
			}
			o.begin(t, size)
			l := o.load(t, 6)
			l.more(t, 50)
			for round := range 2 {
				leader := o.leader(t)
				down := []*node{leader}
				for len(down) < 1+rng.IntN(size/2) {
					if n := o.nodes[rng.IntN(size)]; n != leader {
						down = append(down, n)
					}
				}
				for _, n := range down {
					if (round+n.number)%2 == 0 {
						n.kill(t)
					} else {
						n.stop(t)
					}
				}
				l.more(t, int64(50+rng.IntN(300)))
				for _, n := range down {
					n.start(t)
				}
			}
			l.more(t, 50)
			acknowledged := l.stop()
			o.leader(t)
			o.check(t, acknowledged)
		})
	}
}

func (o *ordering) editConsenters(t testing.TB, edit func(*etcdraftpb.ConfigMetadata)) func(*commonpb.Config) {
	return func(c *commonpb.Config) {
		v := c.ChannelGroup.Groups["Orderer"].Values["ConsensusType"]
		ct, meta := &ordererpb.ConsensusType{}, &etcdraftpb.ConfigMetadata{}
		if err := errors.Join(proto.Unmarshal(v.Value, ct), proto.Unmarshal(ct.Metadata, meta)); err != nil {
			t.Fatal(err)
		}
		edit(meta)
		ct.Metadata, _ = proto.Marshal(meta)
		v.Value, _ = proto.Marshal(ct)
	}
}

func (n *node) consenter(t testing.TB) *etcdraftpb.Consenter {
	t.Helper()
	address, err := net.ResolveTCPAddr("tcp", n.address)
	if err != nil {
		t.Fatal(err)
	}
	return &etcdraftpb.Consenter{Host: "127.0.0.1", Port: uint32(address.Port), ClientTlsCert: n.leaf.PEM, ServerTlsCert: n.leaf.PEM}
}

// change submits a config update through a node until it is in force there.
func (o *ordering) change(t testing.TB, through *node, edit func(*etcdraftpb.ConfigMetadata)) {
	t.Helper()
	if err := o.tryChange(t, through, edit); err != nil {
		t.Fatal(err)
	}
}

func (o *ordering) tryChange(t testing.TB, through *node, edit func(*etcdraftpb.ConfigMetadata)) error {
	t.Helper()
	env := (&orderer{Service: through.Service, network: o.network}).update(t, o.ordererAdmin, o.editConsenters(t, edit))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return through.Submit(ctx, env)
}

// Members come and go under load, one at a time: a follower that becomes a consenter, one that joins by a later block, the
// leader that is removed, and one that comes back as another member.
func TestClusterMembers(t *testing.T) {
	t.Parallel()
	o := newOrdering(t, 1, 3)
	o.begin(t, 1)
	l := o.load(t, 4)
	l.more(t, 30)
	relation := func(n *node, want string) {
		t.Helper()
		until(t, fmt.Sprintf("node %d being a %s", n.number, want), func() bool {
			c, ok := n.Channel(channelID)
			got, status := relationOf(c, ok)
			return got == want && status == "active"
		})
	}
	add := func(n *node) func(*etcdraftpb.ConfigMetadata) {
		return func(m *etcdraftpb.ConfigMetadata) { m.Consenters = append(m.Consenters, n.consenter(t)) }
	}
	remove := func(n *node) func(*etcdraftpb.ConfigMetadata) {
		return func(m *etcdraftpb.ConfigMetadata) {
			var left []*etcdraftpb.Consenter
			for _, c := range m.Consenters {
				if !bytes.Equal(c.ServerTlsCert, n.leaf.PEM) {
					left = append(left, c)
				}
			}
			m.Consenters = left
		}
	}

	// Node 1 follows from the genesis block on before it is added.
	o.nodes[1].start(t)
	o.nodes[1].join(t, o.genesis)
	relation(o.nodes[1], "follower")
	o.change(t, o.nodes[0], add(o.nodes[1]))
	relation(o.nodes[1], "consenter")
	o.leader(t)
	l.more(t, 30)

	// Node 2 is added first and joins by the block that adds it.
	o.change(t, o.nodes[1], add(o.nodes[2]))
	c := o.nodes[0].chain(t)
	config, err := c.Block(c.Height() - 1)
	for i := c.Height() - 1; err == nil && !block.IsConfig(config); i-- {
		config, err = c.Block(i)
	}
	if err != nil {
		t.Fatal(err)
	}
	o.nodes[2].start(t)
	o.nodes[2].join(t, config)
	relation(o.nodes[2], "consenter")
	l.more(t, 30)

	// A change that would lose the quorum is refused.
	leader := o.leader(t)
	dead := o.nodes[(leader.number+1)%3]
	dead.kill(t)
	time.Sleep(300 * time.Millisecond) // an election timeout: until then it counts as alive
	if err := o.tryChange(t, leader, add(o.nodes[3])); err == nil || !strings.Contains(err.Error(), "2 out of 3 nodes are alive, configuration will result in quorum loss") {
		t.Errorf("adding a fourth consenter with two of three alive: %v", err)
	}
	dead.start(t)
	l.more(t, 10)

	// The leader is removed; the others go on.
	leader = o.leader(t)
	other := o.nodes[(leader.number+1)%3]
	until(t, "the leader to hear from both others", func() bool { return o.tryChange(t, other, remove(leader)) == nil })
	relation(leader, "follower")
	l.more(t, 30)

	// The old leader comes back, as another member.
	before := o.id(leader)
	o.change(t, other, add(leader))
	relation(leader, "consenter")
	if id := o.id(leader); before != 0 || id != 4 {
		t.Errorf("the member that came back is number %d, want 4", id)
	}
	l.more(t, 30)
	o.check(t, l.stop())
}

// A consenter that was down while the others compacted their log, or were told to do without it, finds out.
func TestClusterLagging(t *testing.T) {
	t.Parallel()
	o := newOrdering(t, 3, 0)
	for _, n := range o.nodes {
		n.cfg = func(c *order.Config) { c.LogBytes = 16 << 10 }
	}
	o.begin(t, 3)
	lagging := o.nodes[0]
	if o.leader(t) == lagging {
		lagging = o.nodes[1]
	}
	lagging.kill(t)
	l := o.load(t, 8)
	l.more(t, 400)
	lagging.start(t)
	acknowledged := l.stop()
	o.check(t, acknowledged)

	lagging.kill(t)
	left := o.leader(t)
	o.change(t, left, func(m *etcdraftpb.ConfigMetadata) {
		var rest []*etcdraftpb.Consenter
		for _, c := range m.Consenters {
			if !bytes.Equal(c.ServerTlsCert, lagging.leaf.PEM) {
				rest = append(rest, c)
			}
		}
		m.Consenters = rest
	})
	lagging.start(t)
	until(t, "the removed consenter to notice", func() bool {
		relation, _ := lagging.chain(t).Relation()
		return relation == "follower"
	})
	o.check(t, acknowledged)
}

// Without a majority nothing is acknowledged, and clients are told so in time.
func TestClusterMinority(t *testing.T) {
	t.Parallel()
	o := newOrdering(t, 3, 0)
	o.begin(t, 3)
	leader := o.leader(t)
	for _, n := range o.nodes {
		if n != leader {
			n.kill(t)
		}
	}
	var rej *order.Rejection
	err := leader.Submit(t.Context(), message(t, o.user, channelID, "alone"))
	if !errors.As(err, &rej) || rej.Status != commonpb.Status_SERVICE_UNAVAILABLE || !strings.Contains(rej.Info, "leader") {
		t.Fatalf("one of three answered %v", err)
	}
}
