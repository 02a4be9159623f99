package order_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
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
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// The unmodified tools of Hyperledger Fabric, where HANSA_FABRIC_BIN names the folder that has them and
// HANSA_FABRIC_CFG one with a core.yaml.
func TestStockTools(t *testing.T) {
	bin, cfg := os.Getenv("HANSA_FABRIC_BIN"), os.Getenv("HANSA_FABRIC_CFG")
	if bin == "" || cfg == "" {
		t.Skip("HANSA_FABRIC_BIN and HANSA_FABRIC_CFG are not set")
	}
	n := newNetwork(t)
	o := n.start(t, n.config(t.TempDir()))
	tools := newToolbox(t, n, o.leaf, bin, cfg)
	dir, ca, cert, private := tools.dir, tools.ca, tools.cert, tools.key
	write, member, run := tools.write, tools.member, tools.run
	genesis, _ := proto.Marshal(n.genesis)
	write("genesis.block", genesis)
	osn := func(want string, args ...string) string {
		t.Helper()
		out := run(nil, "osnadmin", append(args, "-o", o.admin, "--ca-file", ca, "--client-cert", cert, "--client-key", private)...)
		if !strings.Contains(out, "Status: "+want) {
			t.Errorf("osnadmin %v: status is not %s", args, want)
		}
		return out
	}
	osn("404", "channel", "list", "--channelID", channelID)
	if out := osn("201", "channel", "join", "--channelID", channelID, "--config-block", "genesis.block"); !strings.Contains(out, `"consensusRelation": "consenter"`) || !strings.Contains(out, `"status": "active"`) {
		t.Error("join answers otherwise than Fabric")
	}
	osn("405", "channel", "join", "--channelID", channelID, "--config-block", "genesis.block")
	if out := osn("200", "channel", "list"); !strings.Contains(out, `"systemChannel": null`) {
		t.Error("list answers otherwise than Fabric")
	}

	user := member("alpha", "AlphaMSP", n.users, "client")
	admin := member("harbour", "HarbourMSP", n.orderers, "admin")
	connection := []string{"-o", o.address, "--tls", "--cafile", ca, "--clientauth", "--certfile", cert, "--keyfile", private}
	fetch := func(env []string, which string) *commonpb.Block {
		t.Helper()
		run(env, "peer", append([]string{"channel", "fetch", which, which + ".out", "-c", channelID}, connection...)...)
		raw, err := os.ReadFile(filepath.Join(dir, which+".out"))
		b := &commonpb.Block{}
		if err == nil {
			err = proto.Unmarshal(raw, b)
		}
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if b := fetch(user, "oldest"); !proto.Equal(b, n.genesis) {
		t.Error("the genesis block comes back changed")
	}
	update, err := proto.Marshal(o.update(t, n.ordererAdmin, setMaxMessages(t, 9)))
	if err != nil {
		t.Fatal(err)
	}
	write("update.tx", update)
	if out := run(admin, "peer", append([]string{"channel", "update", "-f", "update.tx", "-c", channelID}, connection...)...); !strings.Contains(out, "Successfully submitted channel update") {
		t.Error("the update failed")
	}
	c, _ := o.Channel(channelID)
	if err := c.Wait(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if b := fetch(user, "config"); b.Header.Number != 1 || !block.IsConfig(b) {
		t.Errorf("the config is in block %d", b.Header.Number)
	}
	verifyChain(t, []*commonpb.Block{fetch(user, "0"), fetch(user, "newest")})

	osn("200", "channel", "fetch", "--blockID", "newest", "--outputfile", "fetched.block", "--channelID", channelID)
	if raw, err := os.ReadFile(filepath.Join(dir, "fetched.block")); err != nil {
		t.Error(err)
	} else if want, _ := c.BlockBytes(1); !bytes.Equal(raw, want) {
		t.Error("osnadmin fetched another block")
	}
	update, err = proto.Marshal(o.update(t, n.ordererAdmin, setMaxMessages(t, 10)))
	if err != nil {
		t.Fatal(err)
	}
	write("update.tx", update)
	osn("201", "channel", "update", "--channelID", channelID, "--config-update-envelope", "update.tx")
	osn("204", "channel", "remove", "--channelID", channelID)
	osn("404", "channel", "remove", "--channelID", channelID)
}

// freePorts are addresses that nobody listens on now.
func freePorts(t *testing.T, count int) (free []string) {
	t.Helper()
	for range count {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		free = append(free, l.Addr().String())
		defer l.Close()
	}
	return free
}

// toolbox runs Fabric's programs with files of a network.
type toolbox struct {
	t             *testing.T
	bin, cfg, dir string
	network       *network
	ca, cert, key string // files
}

func newToolbox(t *testing.T, n *network, client *identitytest.Leaf, bin, cfg string) *toolbox {
	b := &toolbox{t: t, bin: bin, cfg: cfg, dir: t.TempDir(), network: n}
	b.ca, b.cert, b.key = b.write("tlsca.pem", n.tls.PEM), b.write("tls.pem", client.PEM), b.write("tls.key", b.keyPEM(client))
	return b
}

func (b *toolbox) write(name string, raw []byte) string {
	b.t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

func (b *toolbox) keyPEM(l *identitytest.Leaf) []byte {
	b.t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(l.Key.(*ecdsa.PrivateKey))
	if err != nil {
		b.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// member makes an MSP folder and gives the environment that names it.
func (b *toolbox) member(folder, msp string, org *identitytest.Org, unit string) []string {
	b.t.Helper()
	l := org.Issue(b.t, "someone", []string{unit})
	at := filepath.Join(b.dir, folder+"-"+unit)
	if err := os.CopyFS(at, os.DirFS(filepath.Join(b.network.dir, folder))); err != nil {
		b.t.Fatal(err)
	}
	b.write(folder+"-"+unit+"/signcerts/cert.pem", l.PEM)
	b.write(folder+"-"+unit+"/keystore/key.pem", b.keyPEM(l))
	return []string{"CORE_PEER_LOCALMSPID=" + msp, "CORE_PEER_MSPCONFIGPATH=" + at}
}

func (b *toolbox) command(env []string, tool string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.t.Context(), filepath.Join(b.bin, tool), args...)
	cmd.Dir = b.dir
	cmd.Env = append(append(os.Environ(), "FABRIC_CFG_PATH="+b.cfg, "CORE_PEER_TLS_ENABLED=true", "CORE_PEER_TLS_CLIENTAUTHREQUIRED=true",
		"CORE_PEER_TLS_ROOTCERT_FILE="+b.ca, "CORE_PEER_TLS_CLIENTCERT_FILE="+b.cert, "CORE_PEER_TLS_CLIENTKEY_FILE="+b.key,
		"FABRIC_LOGGING_SPEC=warning:cli.common=info:channelCmd=info"), env...)
	return cmd
}

func (b *toolbox) run(env []string, tool string, args ...string) string {
	b.t.Helper()
	out, err := b.command(env, tool, args...).CombinedOutput()
	b.t.Logf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, out)
	return string(out)
}

// A real Fabric peer joins the channel by its genesis block, pulls from this orderer, and commits what it gets.
func TestStockPeer(t *testing.T) {
	bin, cfg := os.Getenv("HANSA_FABRIC_BIN"), os.Getenv("HANSA_FABRIC_CFG")
	if bin == "" || cfg == "" {
		t.Skip("HANSA_FABRIC_BIN and HANSA_FABRIC_CFG are not set")
	}
	free := freePorts(t, 4)
	var port int
	fmt.Sscanf(free[0], "127.0.0.1:%d", &port)
	n := newNetworkAt(t, free[0], port)
	o := n.startJoined(t)
	tools := newToolbox(t, n, o.leaf, bin, cfg)
	genesis, _ := proto.Marshal(n.genesis)
	tools.write("genesis.block", genesis)
	address := []string{"CORE_PEER_ADDRESS=" + free[1]}
	node := tools.command(append(append(address, tools.member("alpha", "AlphaMSP", n.users, "peer")...),
		"CORE_PEER_ID=peer0", "CORE_PEER_LISTENADDRESS="+free[1], "CORE_PEER_CHAINCODELISTENADDRESS="+free[2], "CORE_OPERATIONS_LISTENADDRESS="+free[3],
		"CORE_PEER_GOSSIP_BOOTSTRAP="+free[1], "CORE_PEER_GOSSIP_ORGLEADER=true", "CORE_PEER_GOSSIP_USELEADERELECTION=false", "CORE_PEER_GOSSIP_STATE_ENABLED=false",
		"CORE_PEER_TLS_CERT_FILE="+tools.cert, "CORE_PEER_TLS_KEY_FILE="+tools.key, "CORE_PEER_TLS_CLIENTROOTCAS_FILES="+tools.ca,
		"CORE_PEER_FILESYSTEMPATH="+filepath.Join(tools.dir, "peer"), "CORE_LEDGER_SNAPSHOTS_ROOTDIR="+filepath.Join(tools.dir, "snapshots"), "CORE_VM_ENDPOINT="),
		"peer", "node", "start")
	var log bytes.Buffer
	node.Stdout, node.Stderr = &log, &log
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		node.Process.Kill()
		node.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	admin := append(address, tools.member("alpha", "AlphaMSP", n.users, "admin")...)
	until := func(what, want string, args ...string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; {
			out, _ := tools.command(admin, "peer", args...).CombinedOutput()
			if strings.Contains(string(out), want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %s", what, out)
			}
			time.Sleep(200 * time.Millisecond) // a process of its own has nothing else to wait for
		}
	}
	until("join", "Successfully submitted proposal to join channel", "channel", "join", "-b", "genesis.block")
	for i := range 20 {
		if r := o.broadcast(t, message(t, n.user, channelID, fmt.Sprint(i))); r.Status != commonpb.Status_SUCCESS {
			t.Fatal(r)
		}
	}
	if r := o.broadcast(t, o.update(t, n.ordererAdmin, setMaxMessages(t, 5))); r.Status != commonpb.Status_SUCCESS {
		t.Fatal(r)
	}
	if r := o.broadcast(t, message(t, n.user, channelID, "last")); r.Status != commonpb.Status_SUCCESS {
		t.Fatal(r)
	}
	c, _ := o.Channel(channelID)
	if err := c.Wait(t.Context(), 4); err != nil {
		t.Fatal(err)
	}
	until("pull", fmt.Sprintf(`"height":%d,`, c.Height()), "channel", "getinfo", "-c", channelID)
}

// A real Fabric orderer orders on a genesis block of ours; the puller takes its blocks, and they are made like ours.
func TestStockOrderer(t *testing.T) {
	bin, cfg := os.Getenv("HANSA_FABRIC_BIN"), os.Getenv("HANSA_FABRIC_CFG")
	if bin == "" || cfg == "" {
		t.Skip("HANSA_FABRIC_BIN and HANSA_FABRIC_CFG are not set")
	}
	free := freePorts(t, 3)
	var port int
	fmt.Sscanf(free[0], "127.0.0.1:%d", &port)
	n := newNetworkAt(t, free[0], port)
	o := &orderer{network: n, address: free[0], admin: free[1]}
	o.dial(t)
	defer o.conn.Close()
	tools := newToolbox(t, n, o.leaf, bin, cfg)
	genesis, _ := proto.Marshal(n.genesis)
	tools.write("genesis.block", genesis)
	cert, key := tools.write("server.pem", n.server.PEM), tools.write("server.key", tools.keyPEM(n.server))
	msp := strings.TrimPrefix(tools.member("harbour", "HarbourMSP", n.orderers, "orderer")[1], "CORE_PEER_MSPCONFIGPATH=")
	env := []string{"ORDERER_GENERAL_LISTENADDRESS=127.0.0.1", fmt.Sprint("ORDERER_GENERAL_LISTENPORT=", port), "ORDERER_GENERAL_BOOTSTRAPMETHOD=none",
		"ORDERER_GENERAL_LOCALMSPID=HarbourMSP", "ORDERER_GENERAL_LOCALMSPDIR=" + msp, "ORDERER_CHANNELPARTICIPATION_ENABLED=true",
		"ORDERER_FILELEDGER_LOCATION=" + filepath.Join(tools.dir, "ledger"), "ORDERER_CONSENSUS_WALDIR=" + filepath.Join(tools.dir, "wal"),
		"ORDERER_CONSENSUS_SNAPDIR=" + filepath.Join(tools.dir, "snap"), "ORDERER_OPERATIONS_LISTENADDRESS=" + free[2], "ORDERER_ADMIN_LISTENADDRESS=" + free[1]}
	for _, section := range []string{"GENERAL", "ADMIN"} {
		env = append(env, "ORDERER_"+section+"_TLS_ENABLED=true", "ORDERER_"+section+"_TLS_CERTIFICATE="+cert, "ORDERER_"+section+"_TLS_PRIVATEKEY="+key,
			"ORDERER_"+section+"_TLS_ROOTCAS=["+tools.ca+"]", "ORDERER_"+section+"_TLS_CLIENTAUTHREQUIRED=true", "ORDERER_"+section+"_TLS_CLIENTROOTCAS=["+tools.ca+"]")
	}
	node := tools.command(env, "orderer")
	var log bytes.Buffer
	node.Stdout, node.Stderr = &log, &log
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		node.Process.Kill()
		node.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		out, _ := tools.command(nil, "osnadmin", "channel", "join", "--channelID", channelID, "--config-block", "genesis.block",
			"-o", o.admin, "--ca-file", tools.ca, "--client-cert", tools.cert, "--client-key", tools.key).CombinedOutput()
		if strings.Contains(string(out), "Status: 201") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("join: %s", out)
		}
	}
	for sent := 0; sent < 50; {
		r := o.broadcast(t, message(t, n.user, channelID, fmt.Sprint(sent)))
		switch r.Status {
		case commonpb.Status_SUCCESS:
			sent++
		case commonpb.Status_SERVICE_UNAVAILABLE: // no leader yet
			time.Sleep(100 * time.Millisecond)
		default:
			t.Fatal(r)
		}
	}
	blocks := o.pull(t, 0, func(b *commonpb.Block) bool { return b.Header.Number == 1 })
	verifyChain(t, blocks)
	if len(blocks[1].Data.Data) != 50 {
		t.Errorf("%d envelopes in the block", len(blocks[1].Data.Data))
	}
}
