package contracthost_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/contracthost"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"google.golang.org/protobuf/proto"
)

// nodeContract is where a contract written with Hyperledger's own packages for Node lies.
const nodeContract = "../../examples/contracts/asset-node"

// startNode runs the stock Node contract with the arguments of fabric-chaincode-node. kill ends it at once.
func startNode(t *testing.T, environment []string, args ...string) (kill func()) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs Node")
	}
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("Node is not installed")
	}
	if _, err := os.Stat(filepath.Join(nodeContract, "node_modules", ".package-lock.json")); err != nil {
		install := exec.Command("npm", "ci", "--ignore-scripts")
		install.Dir = nodeContract
		if out, err := install.CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
	}
	cli, err := filepath.EvalSymlinks(filepath.Join(nodeContract, "node_modules/.bin/fabric-chaincode-node"))
	if err != nil {
		t.Fatal(err)
	}
	if cli, err = filepath.Abs(cli); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", append([]string{cli}, args...)...)
	cmd.Dir = nodeContract
	cmd.Env = append(os.Environ(), environment...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if killed {
			return
		}
		killed = true
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Cleanup(func() {
		kill()
		if t.Failed() {
			t.Logf("%s", out.Bytes())
		}
	})
	return kill
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func client(t *testing.T) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ann"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proto.Marshal(&msppb.SerializedIdentity{Mspid: "Org1MSP", IdBytes: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// everyNodeAccess has the stock contract use all that its shim can ask for.
func everyNodeAccess(t *testing.T, m *memory) {
	creator := client(t)
	run := func(transient map[string][]byte, args ...string) string {
		t.Helper()
		c := call("asset", args...)
		c.Proposal = proposal(channel, c.TxID, creator, transient)
		return m.must(t, c)
	}
	for i := range 205 {
		run(nil, "CreateAsset", fmt.Sprintf("asset%03d", i), "blue", "5", "ann", "300")
	}
	if got := run(nil, "TransferAsset", "asset000", "bob"); got != "ann" {
		t.Error(got)
	}
	if got := run(nil, "ReadAsset", "asset000"); got != `{"ID":"asset000","Color":"blue","Size":5,"Owner":"bob","AppraisedValue":300}` {
		t.Error(got)
	}
	if got := run(nil, "asset:AssetExists", "asset999"); got != "false" {
		t.Error(got)
	}
	c := call("asset", "ReadAsset", "none")
	c.Proposal = proposal(channel, c.TxID, creator, nil)
	if got := m.refusal(t, c); got != "the asset none does not exist" {
		t.Error(got)
	}
	var all []any
	if err := json.Unmarshal([]byte(run(nil, "GetAllAssets")), &all); err != nil || len(all) != 205 {
		t.Error(err, len(all))
	}
	if got := run(nil, "GetAssetPage", "2", "asset203"); got != `{"ids":["asset203","asset204"],"count":2,"bookmark":""}` {
		t.Error(got)
	}
	run(nil, "DeleteAsset", "asset000")
	if got := run(nil, "GetAssetHistory", "asset000"); strings.Count(got, "txId") != 3 || strings.Count(got, `"isDelete":true`) != 1 {
		t.Error(got)
	}
	run(map[string][]byte{"details": []byte("fragile")}, "PutDetails", "asset001")
	if got := run(nil, "ReadDetails", "asset001"); got != "fragile" {
		t.Error(got)
	}
	if got := run(nil, "DetailsHash", "asset001"); len(got) != 64 {
		t.Error(got)
	}
	run(nil, "SetEndorsers", "asset001", "cG9saWN5")
	if got := run(nil, "GetEndorsers", "asset001"); got != "cG9saWN5" {
		t.Error(got)
	}
	if got := run(nil, "Whoami"); got != "Org1MSP" {
		t.Error(got)
	}
	// To a contract of ours and back.
	m.serve(t, "notes", notes())
	run(nil, "Ask", "notes", `["Put","n","1"]`)
	if got := run(nil, "Ask", "notes", `["Get","n"]`); got != "1" {
		t.Error(got)
	}
	ask := call("notes", "Ask", "asset", "AssetExists", `["asset001"]`)
	ask.Proposal = proposal(channel, ask.TxID, creator, nil)
	if got := m.must(t, ask); got != "true" {
		t.Error(got)
	}
	if got := run(nil, "org.hyperledger.fabric:GetMetadata"); !strings.Contains(got, `"TransferAsset"`) {
		t.Error(got)
	}
	if n := m.openIterators(); n != 0 {
		t.Errorf("%d iterators are open", n)
	}
}

func TestStockNodeContractAsAService(t *testing.T) {
	m := newHost(t, contracthost.Config{})
	address := freePort(t)
	args := []string{"server", "--chaincode-address=" + address, "--chaincode-id=asset:1"}
	kill := startNode(t, nil, args...)
	m.connect(t, "asset", address)
	everyNodeAccess(t, m)

	// Killed in the middle of a transaction, and started again.
	m.entered, m.proceed = make(chan string), make(chan struct{})
	failed := make(chan error, 1)
	interrupted := call("asset", "ReadAsset", "asset001")
	interrupted.Proposal = proposal(channel, interrupted.TxID, client(t), nil)
	go func() {
		_, _, err := m.execute(context.Background(), "asset:1", interrupted)
		failed <- err
	}()
	select {
	case <-m.entered:
	case err := <-failed:
		t.Fatal("it ended early", err)
	}
	kill()
	m.proceed <- struct{}{}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "chaincode stream terminated") {
		t.Error(err)
	}
	m.entered = nil
	startNode(t, nil, args...)
	c := call("asset", "AssetExists", "asset001")
	c.Proposal = proposal(channel, c.TxID, client(t), nil)
	if got := m.must(t, c); got != "true" {
		t.Error(got)
	}
}

func TestStockNodeContractClassic(t *testing.T) {
	m := newHost(t, contracthost.Config{})
	m.packages["asset"] = "asset:1"
	m.host.Expect("asset:1")
	startNode(t, []string{"CORE_CHAINCODE_ID_NAME=asset:1"}, "start", "--peer.address="+m.listen(t))
	everyNodeAccess(t, m)
}
