package order_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
	dir := t.TempDir()
	write := func(name string, raw []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key := func(l *identitytest.Leaf) []byte {
		raw, err := x509.MarshalPKCS8PrivateKey(l.Key.(*ecdsa.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	}
	ca, cert, private := write("tlsca.pem", n.tls.PEM), write("tls.pem", o.leaf.PEM), write("tls.key", key(o.leaf))
	genesis, _ := proto.Marshal(n.genesis)
	write("genesis.block", genesis)
	member := func(folder, msp string, org *identitytest.Org, unit string) []string {
		l := org.Issue(t, "someone", []string{unit})
		at := filepath.Join(dir, folder+"-"+unit)
		if err := os.CopyFS(at, os.DirFS(filepath.Join(n.dir, folder))); err != nil {
			t.Fatal(err)
		}
		write(folder+"-"+unit+"/signcerts/cert.pem", l.PEM)
		write(folder+"-"+unit+"/keystore/key.pem", key(l))
		return []string{"CORE_PEER_LOCALMSPID=" + msp, "CORE_PEER_MSPCONFIGPATH=" + at}
	}
	run := func(env []string, tool string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, tool), args...)
		cmd.Dir = dir
		cmd.Env = append(append(os.Environ(), "FABRIC_CFG_PATH="+cfg, "CORE_PEER_TLS_ENABLED=true", "CORE_PEER_TLS_CLIENTAUTHREQUIRED=true",
			"CORE_PEER_TLS_CLIENTCERT_FILE="+cert, "CORE_PEER_TLS_CLIENTKEY_FILE="+private, "FABRIC_LOGGING_SPEC=warning:cli.common=info:channelCmd=info"), env...)
		out, err := cmd.CombinedOutput()
		t.Logf("%s %s: %v\n%s", tool, strings.Join(args, " "), err, out)
		return string(out)
	}
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
