// Package snapshot_test takes snapshots of a running network and joins peers by them: a second peer of Hansa, and, where
// HANSA_FABRIC_BIN and HANSA_FABRIC_CFG name the folders of Fabric's tools and of a core.yaml, a peer of Hyperledger Fabric.
package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/admin"
)

func TestMain(m *testing.M) { network.Main(m) }

// world is a network, and how to reach its first member's peers.
type world struct {
	*network.Network
	t       *testing.T
	ctx     context.Context
	channel string
	admin   client.Identity
	roots   []byte
	peerDir string // crypto material of the peer
	first   *admin.Peer
	count   int
}

func start(t *testing.T) *world {
	n := network.Start(t)
	n.Deploy("asset", "asset")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	plan := n.Plan()
	m := plan.Members[0]
	w := &world{Network: n, t: t, ctx: ctx, channel: plan.Channel}
	var err error
	if w.admin, err = client.LoadIdentity(m.MSPID, plan.UserMSP(m, "Admin")); err != nil {
		t.Fatal(err)
	}
	if w.roots, err = os.ReadFile(plan.TLSRoots(m)); err != nil {
		t.Fatal(err)
	}
	w.peerDir = w.glob("crypto/peerOrganizations/*1*/peers/*")
	w.first = w.dial(m.Peers[0].Address())
	return w
}

func (w *world) glob(pattern string) string {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(w.Dir, pattern))
	if err != nil || len(found) == 0 {
		w.t.Fatalf("%s: %v", pattern, err)
	}
	return found[0]
}

func (w *world) dial(address string) *admin.Peer {
	w.t.Helper()
	p, err := admin.DialPeer(address, w.roots, w.admin)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { p.Close() })
	return p
}

// create submits transactions, a block each.
func (w *world) create(n int) {
	w.t.Helper()
	for range n {
		w.count++
		w.Hansa("tx", "submit", "asset", "CreateAsset", "a"+strconv.Itoa(w.count), "red", "5", "anna", "10")
	}
}

func (w *world) height(p *admin.Peer) uint64 {
	w.t.Helper()
	info, err := p.ChainInfo(w.ctx, w.channel)
	if err != nil {
		w.t.Fatal(err)
	}
	return info.Height
}

// until waits for what is true sooner or later.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for !is() {
		select {
		case <-w.ctx.Done():
			w.t.Fatalf("%s: %v", what, w.ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// snapshot waits for a finished snapshot.
func (w *world) snapshot(data string, block uint64) string {
	w.t.Helper()
	dir := filepath.Join(data, "snapshots", "completed", w.channel, strconv.FormatUint(block, 10))
	w.until(fmt.Sprintf("snapshot of block %d", block), func() bool {
		_, err := os.Stat(dir)
		return err == nil
	})
	return dir
}

// join joins by a snapshot and waits until the peer has what the first peer has.
func (w *world) join(p *admin.Peer, dir string) {
	w.t.Helper()
	if err := p.JoinBySnapshot(w.ctx, dir); err != nil {
		w.t.Fatal(err)
	}
	w.until("join", func() bool {
		joining, err := p.JoiningBySnapshot(w.ctx)
		channels, err2 := p.Channels(w.ctx)
		return errors.Join(err, err2) == nil && joining == "" && len(channels) == 1
	})
	w.follow(p)
}

// follow waits until a peer has the first peer's height, and compares.
func (w *world) follow(p *admin.Peer) {
	w.t.Helper()
	want, err := w.first.ChainInfo(w.ctx, w.channel)
	if err != nil {
		w.t.Fatal(err)
	}
	w.until("follow", func() bool {
		info, err := p.ChainInfo(w.ctx, w.channel)
		return err == nil && info.Height >= want.Height && bytes.Equal(info.CurrentBlockHash, want.CurrentBlockHash)
	})
}

func ports(t *testing.T, n int) []string {
	t.Helper()
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		all = append(all, l.Addr().String())
	}
	return all
}

// run starts a process that the test ends.
func (w *world) run(log string, c *exec.Cmd) {
	w.t.Helper()
	out, err := os.Create(log)
	if err != nil {
		w.t.Fatal(err)
	}
	defer out.Close()
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
		if w.t.Failed() {
			raw, _ := os.ReadFile(log)
			w.t.Logf("--- %s\n%s", log, raw[max(0, len(raw)-3000):])
		}
	})
}

// secondPeer runs another peer with the identity of the first.
func (w *world) secondPeer() (p *admin.Peer, data string, kill func()) {
	w.t.Helper()
	raw, err := os.ReadFile(w.glob("nodes/peer0.org1/*.yaml"))
	if err != nil {
		w.t.Fatal(err)
	}
	var config map[string]any
	if err := yaml.Unmarshal(raw, &config); err != nil {
		w.t.Fatal(err)
	}
	at := ports(w.t, 3)
	data = filepath.Join(w.Dir, "second")
	config["address"], config["listen"], config["dataDir"] = at[0], at[0], data
	config["chaincode"] = map[string]string{"listen": at[1]}
	config["operations"] = map[string]string{"listen": at[2]}
	if raw, err = yaml.Marshal(config); err != nil {
		w.t.Fatal(err)
	}
	file := filepath.Join(w.Dir, "second.yaml")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		w.t.Fatal(err)
	}
	begin := func(log string) *exec.Cmd {
		c := exec.Command(os.Getenv("HANSA_BINARY"), "peer", "--config", file)
		w.run(filepath.Join(w.Dir, log), c)
		return c
	}
	c := begin("second.log")
	p = w.dial(at[0])
	serves := func() bool { _, err := p.Channels(w.ctx); return err == nil }
	w.until("second peer", serves)
	return p, data, func() {
		c.Process.Kill()
		c.Wait()
		c = begin("second-again.log")
		w.until("second peer again", serves)
	}
}

func TestSnapshots(t *testing.T) {
	w := start(t)
	w.create(2)
	last := w.height(w.first) - 1
	data := filepath.Join(w.Dir, "nodes", "peer0.org1", "data")

	// One now, one later, both asked for on the command line; one taken back.
	w.Hansa("snapshot", "request")
	now := w.snapshot(data, last)
	later := last + 4
	for _, block := range []uint64{later, later + 1} {
		w.Hansa("snapshot", "request", "--block", strconv.FormatUint(block, 10))
	}
	w.Hansa("snapshot", "cancel", strconv.FormatUint(later+1, 10))
	if out := w.Hansa("snapshot", "list"); out != fmt.Sprintln(later) {
		t.Errorf("pending: %q", out)
	}
	if err := w.first.RequestSnapshot(w.ctx, w.channel, 1); err == nil || !strings.Contains(err.Error(), "cannot be less than the last committed block number") {
		t.Error(err)
	}

	// A second peer joins by the first snapshot, and takes the later one itself. The requests of both outlive a kill.
	second, secondData, kill := w.secondPeer()
	if err := second.JoinBySnapshot(w.ctx, filepath.Join(w.Dir, "nothing")); err == nil || !strings.Contains(err.Error(), "cannot create ledger from snapshot") {
		t.Error(err)
	}
	w.join(second, now)
	if err := second.JoinBySnapshot(w.ctx, now); err == nil || !strings.Contains(err.Error(), "already exists with state [ACTIVE]") {
		t.Error(err)
	}
	if err := second.RequestSnapshot(w.ctx, w.channel, later); err != nil {
		t.Fatal(err)
	}
	kill()
	w.Kill("peer0.org1")
	w.until("first peer", func() bool { _, err := w.first.Channels(w.ctx); return err == nil })
	fabric, fabricData := w.fabricPeer()
	if fabric != nil {
		w.join(fabric, now)
		if err := fabric.RequestSnapshot(w.ctx, w.channel, later); err != nil {
			t.Fatal(err)
		}
	}
	w.create(6)
	w.follow(second)
	want := w.snapshot(data, later)
	same(t, w.snapshot(secondData, later), want)
	if fabric != nil {
		w.follow(fabric)
		same(t, w.snapshot(fabricData, later), want)
	}
}

// fabricPeer runs a peer of Fabric with the identity of the first, nil if there is no Fabric here.
func (w *world) fabricPeer() (p *admin.Peer, data string) {
	bin, cfg := os.Getenv("HANSA_FABRIC_BIN"), os.Getenv("HANSA_FABRIC_CFG")
	if bin == "" || cfg == "" {
		return nil, ""
	}
	at := ports(w.t, 3)
	data = filepath.Join(w.Dir, "fabric")
	if err := os.MkdirAll(data, 0o700); err != nil {
		w.t.Fatal(err)
	}
	c := exec.Command(filepath.Join(bin, "peer"), "node", "start")
	tls := filepath.Join(w.peerDir, "tls")
	c.Env = append(os.Environ(), "FABRIC_CFG_PATH="+cfg, "CORE_PEER_ID=fabric", "CORE_PEER_ADDRESS="+at[0], "CORE_PEER_LISTENADDRESS="+at[0],
		"CORE_PEER_CHAINCODELISTENADDRESS="+at[1], "CORE_OPERATIONS_LISTENADDRESS="+at[2], "CORE_PEER_FILESYSTEMPATH="+data,
		"CORE_LEDGER_SNAPSHOTS_ROOTDIR="+filepath.Join(data, "snapshots"), "CORE_PEER_LOCALMSPID=Org1MSP", "CORE_PEER_MSPCONFIGPATH="+filepath.Join(w.peerDir, "msp"),
		"CORE_PEER_TLS_ENABLED=true", "CORE_PEER_TLS_CERT_FILE="+filepath.Join(tls, "server.crt"), "CORE_PEER_TLS_KEY_FILE="+filepath.Join(tls, "server.key"),
		"CORE_PEER_TLS_ROOTCERT_FILE="+filepath.Join(tls, "ca.crt"), "CORE_VM_ENDPOINT=", "CORE_PEER_GOSSIP_BOOTSTRAP=",
		"CORE_PEER_GOSSIP_USELEADERELECTION=false", "CORE_PEER_GOSSIP_ORGLEADER=true")
	w.run(filepath.Join(w.Dir, "fabric.log"), c)
	p = w.dial(at[0])
	w.until("Fabric's peer", func() bool { _, err := p.Channels(w.ctx); return err == nil })
	return p, data
}

// same compares the files of two folders.
func same(t *testing.T, got, want string) {
	t.Helper()
	files, err := os.ReadDir(want)
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		a, err := os.ReadFile(filepath.Join(got, f.Name()))
		b, err2 := os.ReadFile(filepath.Join(want, f.Name()))
		if err := errors.Join(err, err2); err != nil || !bytes.Equal(a, b) {
			t.Errorf("%s of %s and %s differ (%v)", f.Name(), got, want, err)
		}
	}
}
