// Package dropin_test starts nodes as a network of Hyperledger Fabric on one machine does: programs named peer and orderer, core.yaml and
// orderer.yaml in FABRIC_CFG_PATH, and everything that differs between nodes in CORE_* and ORDERER_* variables. Where HANSA_FABRIC_CFG names
// the folder of Fabric's sample configuration, its files are used as they are.
package dropin_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/admin"
	"github.com/hansa-ledger/hansa/internal/provision"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

func TestMain(m *testing.M) { network.Main(m) }

// What Fabric's files have, in small; the environment overrides most of it.
const (
	coreFile = `
peer:
  id: jdoe
  listenAddress: 0.0.0.0:7051
  address: 0.0.0.0:7051
  gateway: {enabled: true, endorsementTimeout: 30s, dialTimeout: 2m}
  gossip: {bootstrap: 127.0.0.1:7051, pvtData: {pushAckTimeout: 3s}}
  tls: {enabled: false, cert: {file: tls/server.crt}, key: {file: tls/server.key}, clientRootCAs: {files: [tls/ca.crt]}}
  fileSystemPath: /var/hyperledger/production
  mspConfigPath: msp
  localMspId: SampleOrg
vm: {endpoint: "unix:///var/run/docker.sock"}
chaincode: {executetimeout: 30s, externalBuilders: [{name: ccaas_builder, path: /opt/hyperledger/ccaas_builder}]}
`
	ordererFile = `
General:
  ListenAddress: 127.0.0.1
  ListenPort: 7050
  TLS: {Enabled: false, PrivateKey: tls/server.key, Certificate: tls/server.crt, RootCAs: [tls/ca.crt]}
  LocalMSPDir: msp
  LocalMSPID: SampleOrg
FileLedger: {Location: /var/hyperledger/production/orderer}
Admin: {ListenAddress: "127.0.0.1:9443", TLS: {Enabled: false}}
Consensus: {WALDir: /var/hyperledger/production/orderer/etcdraft/wal}
`
)

type world struct {
	*network.Network
	t    *testing.T
	plan *provision.Network
	bin  string // links named as Fabric's programs
	cfg  string
	// peerEnv is what peers get beside what every Fabric peer is given.
	peerEnv map[string]string
	health  string // the path that tells that a node serves; empty: that of our nodes
	secure  bool   // the operations ports have TLS
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// install makes the programs and Fabric's configuration files in a network's folder.
func install(t *testing.T, n *network.Network) *world {
	w := &world{Network: n, t: t, bin: filepath.Join(n.Dir, "bin"), cfg: filepath.Join(n.Dir, "cfg")}
	must(t, os.Mkdir(w.bin, 0o700))
	must(t, os.Mkdir(w.cfg, 0o700))
	for _, name := range []string{"peer", "orderer"} {
		must(t, os.Symlink(os.Getenv("HANSA_BINARY"), filepath.Join(w.bin, name)))
	}
	for name, content := range map[string]string{"core.yaml": coreFile, "orderer.yaml": ordererFile} {
		if dir := os.Getenv("HANSA_FABRIC_CFG"); dir != "" {
			raw, err := os.ReadFile(filepath.Join(dir, name))
			must(t, err)
			content = string(raw)
		}
		must(t, os.WriteFile(filepath.Join(w.cfg, name), []byte(content), 0o600))
	}
	return w
}

// folder is the one folder that a pattern names.
func (w *world) folder(pattern string) string {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(w.Dir, "crypto", pattern))
	if err != nil || len(found) != 1 {
		w.t.Fatalf("%s: %q %v", pattern, found, err)
	}
	return found[0]
}

func at(port int) string { return net.JoinHostPort(provision.Host, strconv.Itoa(port)) }

// start runs a node until stop is called, at the latest until the test ends, and waits until it serves.
func (w *world) start(log string, operations int, environ map[string]string, command ...string) (stop func()) {
	w.t.Helper()
	c := exec.Command(filepath.Join(w.bin, command[0]), command[1:]...)
	c.Dir = w.t.TempDir()
	c.Env = append(os.Environ(), "FABRIC_CFG_PATH="+w.cfg)
	for name, value := range environ {
		c.Env = append(c.Env, name+"="+value)
	}
	out, err := os.Create(log)
	must(w.t, err)
	defer out.Close()
	c.Stdout, c.Stderr = out, out
	must(w.t, c.Start())
	ended := make(chan struct{})
	go func() { c.Wait(); close(ended) }()
	stop = func() {
		c.Process.Signal(syscall.SIGTERM)
		<-ended
	}
	w.t.Cleanup(func() {
		stop()
		if w.t.Failed() {
			raw, _ := os.ReadFile(log)
			w.t.Logf("--- %s\n%s", log, raw)
		}
	})
	w.Await(log, func() error {
		return w.ask(operations, cmp.Or(w.health, "/readyz"))
	})
	return stop
}

// ask calls a node's operations port; certificates, if any, are shown.
func (w *world) ask(operations int, path string, certificates ...tls.Certificate) error {
	scheme := "http://"
	if w.secure {
		scheme = "https://"
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certificates}}}
	response, err := c.Get(scheme + at(operations) + path)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", response.Status)
	}
	return nil
}

func (w *world) startOrderer(data string) (stop func()) {
	o := w.plan.Orderers[0]
	dir := w.folder("ordererOrganizations/*/orderers/*")
	crt, key, ca := filepath.Join(dir, "tls/server.crt"), filepath.Join(dir, "tls/server.key"), filepath.Join(dir, "tls/ca.crt")
	return w.start(data+".log", o.Operations, map[string]string{
		"ORDERER_GENERAL_LISTENADDRESS": provision.Host, "ORDERER_GENERAL_LISTENPORT": strconv.Itoa(o.Port),
		"ORDERER_GENERAL_LOCALMSPID": "OrdererMSP", "ORDERER_GENERAL_LOCALMSPDIR": filepath.Join(dir, "msp"),
		"ORDERER_GENERAL_TLS_ENABLED": "true", "ORDERER_GENERAL_TLS_PRIVATEKEY": key, "ORDERER_GENERAL_TLS_CERTIFICATE": crt,
		"ORDERER_GENERAL_TLS_ROOTCAS":               "[" + ca + "]",
		"ORDERER_GENERAL_CLUSTER_CLIENTCERTIFICATE": crt, "ORDERER_GENERAL_CLUSTER_CLIENTPRIVATEKEY": key, "ORDERER_GENERAL_CLUSTER_ROOTCAS": "[" + ca + "]",
		"ORDERER_GENERAL_BOOTSTRAPMETHOD": "none", "ORDERER_CHANNELPARTICIPATION_ENABLED": "true", "ORDERER_FILELEDGER_LOCATION": data,
		"ORDERER_CONSENSUS_WALDIR": filepath.Join(data, "etcdraft/wal"), "ORDERER_CONSENSUS_SNAPDIR": filepath.Join(data, "etcdraft/snapshot"),
		"ORDERER_ADMIN_LISTENADDRESS": at(o.Admin), "ORDERER_ADMIN_TLS_ENABLED": "true", "ORDERER_ADMIN_TLS_CERTIFICATE": crt, "ORDERER_ADMIN_TLS_PRIVATEKEY": key,
		"ORDERER_ADMIN_TLS_ROOTCAS": "[" + ca + "]", "ORDERER_ADMIN_TLS_CLIENTROOTCAS": "[" + ca + "]", "ORDERER_ADMIN_TLS_CLIENTAUTHREQUIRED": "true",
		"ORDERER_OPERATIONS_LISTENADDRESS": at(o.Operations),
	}, "orderer")
}

func (w *world) startPeer(data string) (stop func()) {
	return w.start(data+".log", w.plan.Members[0].Peers[0].Operations, w.peerEnvironment(data), "peer", "node", "start")
}

func (w *world) peerEnvironment(data string) map[string]string {
	m := w.plan.Members[0]
	p := m.Peers[0]
	dir := w.folder("peerOrganizations/" + m.Domain + "/peers/*")
	environ := map[string]string{
		"CORE_PEER_ID": "peer0", "CORE_PEER_ADDRESS": p.Address(), "CORE_PEER_LISTENADDRESS": p.Address(),
		"CORE_PEER_CHAINCODELISTENADDRESS": at(p.Chaincode), "CORE_PEER_CHAINCODEADDRESS": at(p.Chaincode),
		"CORE_PEER_GOSSIP_BOOTSTRAP": p.Address(), "CORE_PEER_GOSSIP_EXTERNALENDPOINT": p.Address(),
		"CORE_PEER_LOCALMSPID": m.MSPID, "CORE_PEER_MSPCONFIGPATH": filepath.Join(dir, "msp"),
		"CORE_PEER_TLS_ENABLED": "true", "CORE_PEER_TLS_CERT_FILE": filepath.Join(dir, "tls/server.crt"), "CORE_PEER_TLS_KEY_FILE": filepath.Join(dir, "tls/server.key"),
		"CORE_PEER_TLS_ROOTCERT_FILE": filepath.Join(dir, "tls/ca.crt"), "CORE_PEER_FILESYSTEMPATH": data,
		"CORE_PEER_LIMITS_CONCURRENCY_ENDORSERSERVICE": "5000", "CORE_OPERATIONS_LISTENADDRESS": at(p.Operations),
		"CORE_LEDGER_SNAPSHOTS_ROOTDIR": filepath.Join(data, "snapshots"), "CORE_VM_ENDPOINT": "", "CORE_PEER_FUTURE": "bright",
	}
	maps.Copy(environ, w.peerEnv)
	return environ
}

// peerNode runs a command of `peer node` on the data of the peer; it has to fail with a text, or to succeed if that is empty.
func (w *world) peerNode(data, want string, args ...string) {
	w.t.Helper()
	c := exec.Command(filepath.Join(w.bin, "peer"), append([]string{"node"}, args...)...)
	c.Env = append(os.Environ(), "FABRIC_CFG_PATH="+w.cfg)
	for name, value := range w.peerEnvironment(data) {
		c.Env = append(c.Env, name+"="+value)
	}
	output, err := c.CombinedOutput()
	if (err == nil) != (want == "") || !strings.Contains(string(output), want) {
		w.t.Errorf("peer node %s: %v, want %q: %s", strings.Join(args, " "), err, want, output)
	}
}

// joinOrderer does what osnadmin channel join does.
func (w *world) joinOrderer(genesis []byte) {
	w.t.Helper()
	dir := w.folder("ordererOrganizations/*/users/Admin@*/tls")
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"))
	must(w.t, err)
	root, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	must(w.t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("config-block", "genesis.block")
	must(w.t, err)
	part.Write(genesis)
	form.Close()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}}}
	response, err := c.Post("https://"+at(w.plan.Orderers[0].Admin)+"/participation/v1/channels", form.FormDataContentType(), &body)
	must(w.t, err)
	defer response.Body.Close()
	if text, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusCreated {
		w.t.Fatalf("%s: %s", response.Status, text)
	}
}

// A network starts by Fabric's names and settings, orders and commits, and does so again after a restart.
func TestDropIn(t *testing.T) {
	// Certificates and genesis block are those of a network that does not run any more.
	n := network.Start(t)
	plan := n.Plan()
	n.Down()
	w := install(t, n)
	w.plan = plan
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ordererData, peerData := filepath.Join(w.Dir, "orderer-production"), filepath.Join(w.Dir, "peer-production")
	w.startOrderer(ordererData)
	stop := w.startPeer(peerData)

	raw, err := os.ReadFile(w.plan.Genesis())
	must(t, err)
	w.joinOrderer(raw)
	genesis := &commonpb.Block{}
	must(t, proto.Unmarshal(raw, genesis))
	m := w.plan.Members[0]
	user, err := client.LoadIdentity(m.MSPID, w.plan.UserMSP(m, "Admin"))
	must(t, err)
	roots, err := os.ReadFile(w.plan.TLSRoots(m))
	must(t, err)
	peer, err := admin.DialPeer(m.Peers[0].Address(), roots, user)
	must(t, err)
	defer peer.Close()
	must(t, peer.JoinChannel(ctx, genesis))

	c, err := client.Dial(client.Config{Endpoint: m.Peers[0].Address(), Identity: user, TLSRoots: roots})
	must(t, err)
	defer c.Close()
	channel := c.Channel(w.plan.Channel)
	definition := admin.Definition{Name: "asset", Version: "1", Sequence: 1}
	// Endorsed by this peer, ordered, and committed.
	must(t, admin.Approve(ctx, channel, m.MSPID, definition, ""))
	ready := func() error {
		approved, err := admin.Readiness(ctx, channel, definition)
		if err == nil && !approved[m.MSPID] {
			err = fmt.Errorf("the approval is not there: %v", approved)
		}
		return err
	}
	must(t, ready())

	w.peerNode(peerData, "as another peer node command is executing, wait for that command to complete its execution", "reset")
	stop()
	w.peerNode(peerData, "Must supply channel ID", "rollback", "-b", "0")
	w.peerNode(peerData, "Must supply channel ID", "pause")
	w.peerNode(peerData, "ledgerID [nosuch] does not exist", "rollback", "-c", "nosuch", "-b", "0")
	w.peerNode(peerData, "target block number [1] should be less than the biggest block number [1]", "rollback", "-c", w.plan.Channel, "--blockNumber", "1")
	w.peerNode(peerData, "unjoin channel [nosuch]: cannot update ledger status, ledger [nosuch] does not exist", "unjoin", "-c", "nosuch")
	w.peerNode(peerData, "No upgrade is required", "upgrade-dbs")
	w.peerNode(peerData, "", "rollback", "--channelID", w.plan.Channel, "-b", "0")
	w.peerNode(peerData, "", "pause", "-c", w.plan.Channel)
	w.peerNode(peerData, "", "resume", "-c", w.plan.Channel)
	w.peerNode(peerData, "", "reset")
	w.peerNode(peerData, "", "rebuild-dbs")
	w.startPeer(peerData)
	w.Await("the approval after a restart", ready)
	for file, want := range map[string][]string{
		peerData + ".log":    {"unknown setting", "peer.future", "has no meaning here", "peer.gossip.bootstrap"},
		ordererData + ".log": {"consensus logs lie with the chains", "General.TLS.RootCAs"},
	} {
		log, err := os.ReadFile(file)
		must(t, err)
		for _, text := range want {
			if !strings.Contains(string(log), text) {
				t.Errorf("%s does not say %q:\n%s", filepath.Base(file), text, log)
			}
		}
	}
}

// What is wrong is said under the name that was called.
func TestRefusals(t *testing.T) {
	w := install(t, network.New(t))
	empty := t.TempDir()
	for _, c := range []struct {
		want, cfg string
		command   []string
	}{
		{"peer: there is no core.yaml", empty, []string{"peer", "node", "start"}},
		{"orderer: there is no orderer.yaml", empty, []string{"orderer", "start"}},
		{"peer: peer.tls.enabled", w.cfg, []string{"peer", "node", "start"}},
		{"orderer: General.TLS.Enabled", w.cfg, []string{"orderer"}},
		{`peer: there is no command "channel" here: it is one of Fabric's own peer; have that in PATH`, w.cfg, []string{"peer", "channel", "list"}},
		{`peer: unknown command "colour"`, w.cfg, []string{"peer", "colour"}},
	} {
		command := exec.Command(filepath.Join(w.bin, c.command[0]), c.command[1:]...)
		command.Env = append(os.Environ(), "FABRIC_CFG_PATH="+c.cfg)
		output, err := command.CombinedOutput()
		if err == nil || !strings.HasPrefix(string(output), c.want) {
			t.Errorf("%q: %v, want %q: %s", c.command, err, c.want, output)
		}
	}
	for _, name := range []string{"peer", "orderer"} {
		output, err := exec.Command(filepath.Join(w.bin, name), "version").Output()
		if err != nil || !strings.HasPrefix(string(output), name+":\n Version: ") {
			t.Errorf("%s version: %v %s", name, err, output)
		}
	}
}

// Commands that are Fabric's go to the next program of that name, with all that they were given.
func TestHandOver(t *testing.T) {
	w := install(t, network.New(t))
	stock := t.TempDir()
	script := "#!/bin/sh\necho \"stock: $* in $FABRIC_CFG_PATH\"\n"
	must(t, os.WriteFile(filepath.Join(stock, "peer"), []byte(script), 0o700))
	path := strings.Join([]string{w.bin, filepath.Join(w.bin, "nothing"), stock, os.Getenv("PATH")}, string(os.PathListSeparator))
	for command, want := range map[string]string{
		"channel list": "stock: channel list in " + w.cfg, "lifecycle chaincode package a.tar.gz --lang node": "stock: lifecycle chaincode package a.tar.gz --lang node in " + w.cfg,
		"chaincode query -C a -n b -c {}": "stock: chaincode query", "version": "peer:\n Version: ",
	} {
		c := exec.Command(filepath.Join(w.bin, "peer"), strings.Fields(command)...)
		c.Env = append(os.Environ(), "FABRIC_CFG_PATH="+w.cfg, "PATH="+path)
		if output, err := c.CombinedOutput(); err != nil || !strings.HasPrefix(string(output), want) {
			t.Errorf("%s: %v %s", command, err, output)
		}
	}
	// A script that calls us back must not go round for ever.
	must(t, os.WriteFile(filepath.Join(stock, "peer"), []byte("#!/bin/sh\nexec "+filepath.Join(w.bin, "peer")+" \"$@\"\n"), 0o700))
	c := exec.Command(filepath.Join(w.bin, "peer"), "channel", "list")
	c.Env = append(os.Environ(), "PATH="+path)
	if output, err := c.CombinedOutput(); err == nil || !strings.Contains(string(output), `there is no command "channel" here`) {
		t.Errorf("%v %s", err, output)
	}
}

// The operations port has TLS where Fabric's has, and tells strangers only whether the node works.
func TestOperationsTLS(t *testing.T) {
	w := stopped(t, "--members", "1")
	m := w.plan.Members[0]
	folder := w.folder("peerOrganizations/" + m.Domain + "/peers/*/tls")
	w.secure = true
	w.peerEnv = map[string]string{"CORE_OPERATIONS_TLS_ENABLED": "true", "CORE_OPERATIONS_TLS_CERT_FILE": filepath.Join(folder, "server.crt"),
		"CORE_OPERATIONS_TLS_KEY_FILE": filepath.Join(folder, "server.key"), "CORE_OPERATIONS_TLS_CLIENTROOTCAS_FILES": "[" + filepath.Join(folder, "ca.crt") + "]"}
	w.startPeer(filepath.Join(w.Dir, "peer-production"))
	operations := m.Peers[0].Operations
	must(t, w.ask(operations, "/healthz"))
	for _, path := range []string{"/metrics", "/logspec", "/debug/pprof/"} {
		if err := w.ask(operations, path); err == nil || !strings.Contains(err.Error(), "401") {
			t.Errorf("%s without a certificate: %v", path, err)
		}
	}
	known, err := tls.LoadX509KeyPair(filepath.Join(folder, "server.crt"), filepath.Join(folder, "server.key"))
	must(t, err)
	must(t, w.ask(operations, "/metrics", known))
}
