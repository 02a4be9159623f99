package order_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/deliver"
	"github.com/hansa-ledger/hansa/internal/order"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
)

// fabricOrderer is an unmodified orderer of Hyperledger Fabric in the place of a node.
type fabricOrderer struct {
	*node
	tools *toolbox
	admin string
	env   []string
	cmd   *exec.Cmd
	log   bytes.Buffer
	cert  tls.Certificate
}

func newFabricOrderer(t *testing.T, n *node, bin, cfg string) *fabricOrderer {
	t.Helper()
	free := freePorts(t, 2)
	client := n.of.tlsLeaf(t, "client")
	f := &fabricOrderer{node: n, tools: newToolbox(t, n.of.network, client, bin, cfg), admin: free[0], cert: certificate(client)}
	genesis, _ := proto.Marshal(n.of.genesis)
	f.tools.write("genesis.block", genesis)
	cert, key := f.tools.write("server.pem", n.leaf.PEM), f.tools.write("server.key", f.tools.keyPEM(n.leaf))
	msp := strings.TrimPrefix(f.tools.member("harbour", "HarbourMSP", n.of.orderers, "orderer")[1], "CORE_PEER_MSPCONFIGPATH=")
	_, port, err := net.SplitHostPort(n.address)
	if err != nil {
		t.Fatal(err)
	}
	f.env = []string{"ORDERER_GENERAL_LISTENADDRESS=127.0.0.1", "ORDERER_GENERAL_LISTENPORT=" + port, "ORDERER_GENERAL_BOOTSTRAPMETHOD=none",
		"ORDERER_GENERAL_LOCALMSPID=HarbourMSP", "ORDERER_GENERAL_LOCALMSPDIR=" + msp, "ORDERER_CHANNELPARTICIPATION_ENABLED=true",
		"ORDERER_FILELEDGER_LOCATION=" + filepath.Join(f.tools.dir, "ledger"), "ORDERER_CONSENSUS_WALDIR=" + filepath.Join(f.tools.dir, "wal"),
		"ORDERER_CONSENSUS_SNAPDIR=" + filepath.Join(f.tools.dir, "snap"), "ORDERER_OPERATIONS_LISTENADDRESS=" + free[1], "ORDERER_ADMIN_LISTENADDRESS=" + free[0],
		"ORDERER_GENERAL_CLUSTER_CLIENTCERTIFICATE=" + cert, "ORDERER_GENERAL_CLUSTER_CLIENTPRIVATEKEY=" + key, "ORDERER_GENERAL_CLUSTER_ROOTCAS=[" + f.tools.ca + "]",
		"FABRIC_LOGGING_SPEC=info"}
	for _, section := range []string{"GENERAL", "ADMIN"} {
		f.env = append(f.env, "ORDERER_"+section+"_TLS_ENABLED=true", "ORDERER_"+section+"_TLS_CERTIFICATE="+cert, "ORDERER_"+section+"_TLS_PRIVATEKEY="+key,
			"ORDERER_"+section+"_TLS_ROOTCAS=["+f.tools.ca+"]", "ORDERER_"+section+"_TLS_CLIENTAUTHREQUIRED=true", "ORDERER_"+section+"_TLS_CLIENTROOTCAS=["+f.tools.ca+"]")
	}
	t.Cleanup(func() {
		f.stop()
		if t.Failed() {
			log := f.log.Bytes()
			t.Logf("the orderer of Fabric:\n%s", log[max(0, len(log)-6000):])
		}
	})
	return f
}

func (f *fabricOrderer) start(t *testing.T) {
	t.Helper()
	f.cmd = f.tools.command(f.env, "orderer")
	f.cmd.Stdout, f.cmd.Stderr = &f.log, &f.log
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
}

func (f *fabricOrderer) stop() {
	if f.cmd != nil {
		f.cmd.Process.Kill()
		f.cmd.Wait()
		f.cmd = nil
	}
}

func (f *fabricOrderer) join(t *testing.T) {
	t.Helper()
	until(t, "the orderer of Fabric to join", func() bool {
		out, _ := f.tools.command(nil, "osnadmin", "channel", "join", "--channelID", channelID, "--config-block", "genesis.block",
			"-o", f.admin, "--ca-file", f.tools.ca, "--client-cert", f.tools.cert, "--client-key", f.tools.key).CombinedOutput()
		return strings.Contains(string(out), "Status: 201")
	})
}

// blocks pulls the chain up to a height from the orderer of Fabric.
func (f *fabricOrderer) blocks(t *testing.T, height uint64) (all []*commonpb.Block) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p := deliver.NewPuller(deliver.PullerConfig{ChannelID: channelID, Signer: f.of.user, Certificate: &f.cert, Log: f.of.log,
		Endpoints: func() []deliver.Endpoint {
			return []deliver.Endpoint{{Address: f.address, TLSRoots: [][]byte{f.of.tls.PEM}}}
		},
		Next: func() uint64 { return uint64(len(all)) },
		Sink: func(_ context.Context, b *commonpb.Block) error {
			if uint64(len(all)) < height {
				all = append(all, b)
			}
			if uint64(len(all)) == height {
				cancel()
			}
			return nil
		}})
	if err := p.Run(ctx); err != nil || uint64(len(all)) != height {
		t.Fatalf("the orderer of Fabric has %d blocks of %d: %v", len(all), height, err)
	}
	return all
}

// compare checks that the orderer of Fabric has the blocks that those of Hansa have, made alike.
func (f *fabricOrderer) compare(t *testing.T, with *node) {
	t.Helper()
	height := with.chain(t).Height()
	theirs := f.blocks(t, height)
	for i, b := range theirs {
		if i > 0 {
			if err := validate.Accept(with.chain(t).Bundle(), b, uint64(i), block.HeaderHash(theirs[i-1].Header)); err != nil {
				t.Fatal(err)
			}
		}
		ours, err := with.chain(t).Block(uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(block.HeaderHash(b.Header), block.HeaderHash(ours.Header)) {
			t.Fatalf("block %d differs: %v and %v", i, b.Header, ours.Header)
		}
		a, b := order.ConsenterNotes(b), order.ConsenterNotes(ours)
		a.RaftIndex, b.RaftIndex = 0, 0 // each orderer's own: Fabric's note the entry before in config blocks
		if !proto.Equal(a, b) {
			t.Errorf("block %d: consensus notes of Fabric %q and of Hansa %q", i, fmt.Sprint(a), fmt.Sprint(b))
		}
	}
}

// Two orderers of Hansa and one of Hyperledger Fabric order one channel, whoever of them leads; each bears the death of one
// of the others, configs change, and all have the same blocks.
func TestMixedCluster(t *testing.T) {
	bin, cfg := os.Getenv("HANSA_FABRIC_BIN"), os.Getenv("HANSA_FABRIC_CFG")
	if bin == "" || cfg == "" {
		t.Skip("HANSA_FABRIC_BIN and HANSA_FABRIC_CFG are not set")
	}
	o := newOrdering(t, 3, 0, "timeout: 50ms")
	hansa := o.nodes[:2]
	f := newFabricOrderer(t, o.nodes[2], bin, cfg)
	o.nodes = hansa
	f.start(t)
	for _, n := range hansa {
		n.start(t)
		n.join(t, o.genesis)
	}
	f.join(t)
	o.lead(t, func(id uint64) bool { return id != 0 })

	l := o.load(t, 4)
	for round, leads := range []func(uint64) bool{
		func(id uint64) bool { return id == 3 }, func(id uint64) bool { return id == 1 || id == 2 }, func(id uint64) bool { return id == 3 },
	} {
		o.lead(t, leads)
		t.Logf("%d leads", hansa[0].chain(t).Leader())
		l.more(t, 50)
		o.changeSoon(t, hansa[round%2], func(m *etcdraftpb.ConfigMetadata) { m.Options.MaxInflightBlocks = uint32(10 + round) })
		l.more(t, 50)
	}

	// The one of Fabric dies as the leader and comes back.
	f.stop()
	l.more(t, 100)
	f.start(t)
	l.more(t, 100)
	// One of Hansa dies.
	hansa[0].kill(t)
	l.more(t, 100)
	hansa[0].start(t)
	l.more(t, 100)
	acknowledged := l.stop()
	o.check(t, acknowledged)
	f.compare(t, hansa[0])
}

// lead has the lead change until somebody has it who should.
func (o *ordering) lead(t *testing.T, who func(id uint64) bool) {
	t.Helper()
	until(t, "the right leader", func() bool {
		id := uint64(0)
		until(t, "a leader", func() bool {
			id = o.nodes[0].chain(t).Leader()
			return id != 0 && id == o.nodes[1].chain(t).Leader()
		})
		if who(id) {
			return true
		}
		// Fabric's orderer gives the lead up when it is asked to by nobody: only ours do, when they stop.
		if id <= uint64(len(o.nodes)) {
			n := o.nodes[id-1]
			n.stop(t)
			n.start(t)
		} else {
			o.unseat(t)
		}
		return false
	})
}

// unseat makes a leader that cannot be stopped here lose its lead: nobody answers it for a while.
func (o *ordering) unseat(t *testing.T) {
	t.Helper()
	for _, n := range o.nodes {
		n.stop(t)
	}
	time.Sleep(500 * time.Millisecond) // an election timeout
	for _, n := range o.nodes {
		n.start(t)
	}
}
