// Package channel_test changes the configuration of a running channel with the hansa command, as its members would: an organization
// joins, endorses and leaves; anchor peers, access rules, batches, policies and capabilities change; members sign each for themselves.
package channel_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/admin"
	"github.com/hansa-ledger/hansa/internal/ca"
	"github.com/hansa-ledger/hansa/internal/ca/msptree"
	"github.com/hansa-ledger/hansa/internal/provision"
)

func TestMain(m *testing.M) { network.Main(m) }

// bed is a network of three members and files to edit.
type bed struct {
	*network.Network
	t    *testing.T
	plan *provision.Network
	file string // the configuration under edit
}

func start(t *testing.T) *bed {
	n := network.Start(t, "--members", "3")
	return &bed{n, t, n.Plan(), filepath.Join(n.Dir, "edited.yaml")}
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// edit writes the newest configuration with texts replaced; each must be there.
func (b *bed) edit(replace ...string) {
	b.t.Helper()
	b.Hansa("channel", "config", "--output", b.file)
	raw, err := os.ReadFile(b.file)
	b.must(err)
	text := string(raw)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			b.t.Fatalf("the configuration has no %q:\n%s", replace[i], text)
		}
		text = strings.Replace(text, replace[i], replace[i+1], 1)
	}
	b.must(os.WriteFile(b.file, []byte(text), 0o600))
}

// update edits and updates; all texts of want must be said.
func (b *bed) update(want string, replace ...string) {
	b.t.Helper()
	b.edit(replace...)
	b.said(b.Hansa("channel", "update", "-f", b.file), want, "is in force")
}

func (b *bed) said(got string, want ...string) {
	b.t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			b.t.Errorf("it does not say %q:\n%s", w, got)
		}
	}
}

// refused runs a command of this network that must fail, and checks what it says on both outputs.
func (b *bed) refused(want string, args ...string) {
	b.t.Helper()
	if args[1] != "join" && !strings.Contains(strings.Join(args, " "), "--orderer ") {
		args = append(args, "--data", b.Dir)
	}
	stdout, stderr, err := b.Run(args...)
	if err == nil || strings.Contains(stdout, "is in force") {
		b.t.Errorf("hansa %s: it must fail\n%s", strings.Join(args, " "), stdout)
	}
	b.said(stdout+stderr, want)
}

// joiner is an organization that the network was made without.
type joiner struct {
	org     msptree.Org
	mspID   string
	address string // of its peer
	flags   []string
}

// newJoiner makes an organization's certificates and starts its peer.
func (b *bed) newJoiner(name, mspID string) *joiner {
	b.t.Helper()
	j := &joiner{org: msptree.Org{Dir: filepath.Join(b.Dir, name), Domain: name + ".example.com"}, mspID: mspID}
	authority, err := ca.Open(ca.Config{Name: "ca-" + name, Dir: filepath.Join(j.org.Dir, "ca", "data"), Issuer: j.org.Issuer(), TLSIssuer: j.org.TLSIssuer(),
		Subject: ca.Subject{Organization: j.org.Domain}}, slog.New(slog.DiscardHandler))
	b.must(err)
	defer authority.Close()
	b.must(j.org.Write(b.t.Context(), authority, msptree.Spec{Peers: []msptree.Node{{Name: "peer0", Hosts: []string{"localhost", provision.Host}}}, Users: []string{"User1"}}))
	ports := b.freePorts(3)
	address := func(i int) string { return fmt.Sprintf("%s:%d", provision.Host, ports[i]) }
	j.address = address(0)
	folder := j.org.Peer("peer0")
	raw, err := yaml.Marshal(map[string]any{
		"mspId": mspID, "mspDir": folder.MSP(), "dataDir": filepath.Join(j.org.Dir, "data"), "listen": j.address,
		"tls":        map[string]any{"cert": folder.TLSCert(), "key": folder.TLSKey()},
		"operations": map[string]string{"listen": address(1)}, "chaincode": map[string]string{"listen": address(2)},
	})
	b.must(err)
	config := filepath.Join(j.org.Dir, "peer.yaml")
	b.must(os.WriteFile(config, raw, 0o600))
	log, err := os.Create(filepath.Join(j.org.Dir, "log"))
	b.must(err)
	peer := exec.Command(os.Getenv("HANSA_BINARY"), "peer", "--config", config)
	peer.Stdout, peer.Stderr = log, log
	b.must(peer.Start())
	b.t.Cleanup(func() {
		peer.Process.Kill()
		peer.Wait()
		log.Close()
		if b.t.Failed() {
			raw, _ := os.ReadFile(log.Name())
			b.t.Logf("--- peer of %s\n%s", name, raw[max(0, len(raw)-3000):])
		}
	})
	j.flags = []string{"--channel", b.plan.Channel, "--orderer", b.plan.Orderers[0].Address(), "--tls-root", b.plan.OrdererTLSRoots(),
		"--tls-root", j.org.TLSRoot(), "--identity", mspID + "=" + j.org.User(msptree.Admin).MSP()}
	return j
}

// freePorts finds ports that nobody uses.
func (b *bed) freePorts(n int) (ports []int) {
	b.t.Helper()
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(provision.Host, "0"))
		b.must(err)
		defer l.Close() // not before all are known
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// runAs runs a channel command as the organization's administrator, from elsewhere.
func (b *bed) runAs(j *joiner, args ...string) (string, error) {
	b.t.Helper()
	stdout, stderr, err := b.Run(append(append([]string{"channel"}, args...), j.flags...)...)
	return stdout + stderr, err
}

// channelAs opens the channel through the organization's own peer.
func (b *bed) channelAs(j *joiner, user string) *client.Channel {
	b.t.Helper()
	id, err := client.LoadIdentity(j.mspID, j.org.User(user).MSP())
	b.must(err)
	roots, err := os.ReadFile(j.org.TLSRoot())
	b.must(err)
	c, err := client.Dial(client.Config{Endpoint: j.address, Identity: id, TLSRoots: roots})
	b.must(err)
	b.t.Cleanup(func() { c.Close() })
	return c.Channel(b.plan.Channel)
}

// install puts the package that serves a contract on the organization's peer, and approves its definition.
func (b *bed) install(j *joiner, d admin.Definition) {
	b.t.Helper()
	packages, err := filepath.Glob(filepath.Join(b.Dir, "nodes", "peer0.org1", "data", "packages", "*"))
	b.must(err)
	roots, err := os.ReadFile(j.org.TLSRoot())
	b.must(err)
	id, err := client.LoadIdentity(j.mspID, j.org.User(msptree.Admin).MSP())
	b.must(err)
	peer, err := admin.DialPeer(j.address, roots, id)
	b.must(err)
	defer peer.Close()
	for _, file := range packages {
		raw, err := os.ReadFile(file)
		b.must(err)
		packageID, err := peer.Install(b.t.Context(), raw)
		b.must(err)
		b.must(admin.Approve(b.t.Context(), b.channelAs(j, msptree.Admin), j.mspID, d, packageID))
	}
}

func TestOrganizationJoinsAndLeaves(t *testing.T) {
	b := start(t)
	const policy = "OR('Org1MSP.peer', 'Org9MSP.peer')"
	b.Deploy("asset", "asset", "--policy", policy)
	j := b.newJoiner("org9", "Org9MSP")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	request := filepath.Join(b.Dir, "join.request")

	// Of three members two have to agree; one proposes, another signs elsewhere, and the first submits.
	joins := []string{"members:\n", "members:\n  - {name: org9, mspId: Org9MSP, mspDir: org9/msp}\n"}
	b.edit(joins...)
	b.said(b.Hansa("channel", "update", "-f", b.file, "--members", "org1", "--request", request),
		"+ members.org9.mspId: Org9MSP", "signed by Admin@org1.example.com (Org1MSP)", "not met: /Channel/Application/Admins (MAJORITY Admins)",
		"still needs an admin of Org2MSP or an admin of Org3MSP")
	b.refused("signatures are missing, nothing was submitted", "channel", "submit", request, "--members", "org1,orderer")
	second := filepath.Join(b.Dir, "second.request")
	b.said(b.Hansa("channel", "sign", request, "--members", "org2", "--output", second), "signed by Admin@org2.example.com", "The signatures are enough")
	b.said(b.Hansa("channel", "submit", request, second, "--members", "org1"), "is in force")
	// Once more it is too late.
	b.refused("has changed meanwhile", "channel", "submit", request, second)

	// Its peer joins and endorses.
	if out, err := b.runAs(j, "join", "--peer", j.address); err != nil {
		t.Fatal(err, out)
	}
	b.install(j, admin.Definition{Name: "asset", Version: "1.0", Sequence: 1, Policy: policy})
	contract := b.channelAs(j, "User1").Contract("asset")
	call := client.Strings("CreateAsset", "a9", "blue", "5", "org9", "300")
	call.Members = []string{"Org9MSP"}
	b.Await("an endorsement of the new member's peer", func() error {
		_, err := contract.Submit(ctx, call)
		return err
	})
	b.Await("the asset at another member's peer", func() error {
		_, _, err := b.Run("tx", "evaluate", "asset", "ReadAsset", "a9", "--data", b.Dir)
		return err
	})

	// Its administrator, elsewhere, sets its anchor peer; the YAML comes from its own peer.
	file := filepath.Join(b.Dir, "org9.yaml")
	if out, err := b.runAs(j, "config", "--peer", j.address, "--output", file); err != nil {
		t.Fatal(err, out)
	}
	raw, err := os.ReadFile(file)
	b.must(err)
	at := strings.Index(string(raw), "name: org9")
	text := string(raw[:at]) + strings.Replace(string(raw[at:]), "anchorPeers: []", "anchorPeers: [\""+j.address+"\"]", 1)
	b.must(os.WriteFile(file, []byte(text), 0o600))
	out, err := b.runAs(j, "update", "-f", file)
	b.said(out, "+ members.org9.anchorPeers: "+j.address, "signed by Admin@org9.example.com (Org9MSP)", "is in force")
	b.must(err)
	// It cannot decide alone about others, nor lock itself out without noticing.
	out, err = b.runAs(j, "update", "-f", b.write("batch: {maxMessages: 3}"), "--request", second)
	b.must(err)
	b.said(out, "still needs an admin of OrdererMSP")
	locked := strings.Replace(text, "Admins: OR('Org9MSP.admin')", "Admins: OR('Org1MSP.admin')", 1)
	b.must(os.WriteFile(file, []byte(strings.Replace(locked, "configuration: 1\n", "configuration: 2\n", 1)), 0o600))
	if out, err = b.runAs(j, "update", "-f", file); err == nil {
		t.Error("an administrator locked itself out")
	}
	b.said(out, "Admin@org9.example.com (Org9MSP), who signs this, is locked out by it", "--force goes on despite them")

	// It leaves; its peer's endorsements count no more.
	b.edit()
	raw, err = os.ReadFile(b.file)
	b.must(err)
	text = string(raw)
	from, to := strings.Index(text, "  - name: org9"), strings.Index(text, "  - name: orderer")
	b.must(os.WriteFile(b.file, []byte(text[:from]+text[to:]), 0o600))
	b.said(b.Hansa("channel", "update", "-f", b.file), "- members.org9: Org9MSP", "is in force")
	if out, err := b.runAs(j, "config"); err == nil {
		t.Errorf("who left reads the configuration:\n%s", out)
	}
	b.said(b.Hansa("channel", "config", "--sequence", "1"), "name: org9")
}

// write makes a document of a part.
func (b *bed) write(text string) string {
	b.t.Helper()
	file := filepath.Join(b.Dir, "part.yaml")
	b.must(os.WriteFile(file, []byte("channel: "+b.plan.Channel+"\n"+text+"\n"), 0o600))
	return file
}

// conflict is an edit of the batch that somebody else has changed otherwise meanwhile.
func (b *bed) conflict() string {
	b.t.Helper()
	b.edit("maxMessages: 8", "maxMessages: 9")
	b.Hansa("channel", "update", "--set", "batch.maxMessages=10")
	return b.file
}

func TestChanges(t *testing.T) {
	b := start(t)
	b.Deploy("asset", "asset")
	b.update("~ batch.maxMessages: 500 → 7", "maxMessages: 500", "maxMessages: 7")
	anchor := b.plan.Members[0].Peers[0].Address()
	b.update("- members.org1.anchorPeers: "+anchor, "anchorPeers:\n      - "+anchor, "anchorPeers: []")
	b.update("~ policies.application.Endorsement: MAJORITY Endorsement → ANY Endorsement", " Endorsement: MAJORITY Endorsement", " Endorsement: ANY Endorsement")
	// Three members, and one endorsement is enough now.
	b.Hansa("tx", "submit", "asset", "CreateAsset", "a1", "blue", "5", "org1", "300", "--endorsers", "Org2MSP")

	// Access rules are in force at once: what only administrators may ask a user is refused.
	call := []string{"tx", "evaluate", "qscc", "GetChainInfo", b.plan.Channel}
	b.Hansa(call...)
	b.update("+ acls.qscc/GetChainInfo: /Channel/Application/Admins", "acls: {}", "acls: {qscc/GetChainInfo: /Channel/Application/Admins}")
	b.refused("access denied for [GetChainInfo]", call...)
	b.update("- acls.qscc/GetChainInfo: /Channel/Application/Admins", "acls:\n  qscc/GetChainInfo: /Channel/Application/Admins", "acls: {}")
	b.Hansa(call...)

	// A capability is not lowered in passing.
	b.edit("application: V2_5", "application: V2_0")
	b.refused("warning: the Application capability is lowered from V2_5 to V2_0", "channel", "update", "-f", b.file)
	b.said(b.Hansa("channel", "update", "-f", b.file, "--force"), "~ capabilities.application: V2_5 → V2_0", "is in force")
	b.update("~ capabilities.application: V2_0 → V2_5", "application: V2_0", "application: V2_5")

	// With an editor; and one that changes nothing.
	t.Setenv("TMPDIR", t.TempDir())
	editor := func(command string) string {
		t.Helper()
		t.Setenv("VISUAL", "")
		t.Setenv("EDITOR", command)
		return b.Hansa("channel", "update")
	}
	b.said(editor("sed -i 's/timeout: 2s/timeout: 1s/'"), "~ batch.timeout: 2s → 1s", "is in force")
	b.said(editor("true"), "Nothing changes")
	t.Setenv("EDITOR", "sed -i s/batch:/bach:/")
	b.refused("your edit is kept in", "channel", "update")
	t.Setenv("EDITOR", "")
	b.refused("no editor: set EDITOR", "channel", "update")

	// What is shown only is not done.
	b.said(b.Hansa("channel", "update", "-f", b.write("batch: {maxMessages: 9}"), "--dry-run"), "~ batch.maxMessages: 7 → 9", "Nothing was done")
	b.said(b.Hansa("channel", "config"), "maxMessages: 7")

	// Two edit the same configuration: the second is told what the first has changed.
	b.edit("maxMessages: 7", "maxMessages: 8")
	b.Hansa("channel", "update", "-f", b.write("batch: {timeout: 3s}"))
	b.refused("since then others have changed:\n  ~ batch.timeout: 1s → 3s", "channel", "update", "-f", b.file)
	b.said(b.Hansa("channel", "update", "-f", b.file, "--rebase"), "~ batch.maxMessages: 7 → 8", "is in force")
	b.said(b.Hansa("channel", "config"), "timeout: 3s")
	b.refused("in the same place: by this edit ~ batch.maxMessages: 8 → 9, by others ~ batch.maxMessages: 8 → 10", "channel", "update", "-f", b.conflict(), "--rebase")
	// The same at the last moment: both updates were made, and signed, before one of them was submitted.
	first, second := filepath.Join(b.Dir, "first.request"), filepath.Join(b.Dir, "second.request")
	b.Hansa("channel", "update", "-f", b.write("batch: {maxMessages: 21}"), "--request", first)
	b.Hansa("channel", "update", "-f", b.write("batch: {maxMessages: 22}"), "--request", second)
	other := filepath.Join(b.Dir, "other.request")
	b.Hansa("channel", "update", "-f", b.write("batch: {timeout: 4s}"), "--request", other)
	b.Hansa("channel", "submit", first)
	b.refused("has changed meanwhile", "channel", "submit", second)
	b.refused("of different updates", "channel", "submit", first, second)
	b.Hansa("channel", "submit", other) // it touches something else
	b.said(b.Hansa("channel", "config"), "maxMessages: 21", "timeout: 4s")

	for _, c := range []struct{ want, text string }{
		{`unknown key "bach"`, "bach: {}"},
		{"Attempted to set the batch size preferred max bytes", "batch: {preferredMaxBytes: 64 MB}"},
		{"is required but not supported", "capabilities: {channel: V9_9}"},
		{"configuration: is missing", "acls: {}"},
	} {
		b.refused(c.want, "channel", "update", "-f", b.write(c.text))
	}
	b.edit("channel: "+b.plan.Channel+"\n", "channel: another\n")
	b.refused(`this is the configuration of channel "another"`, "channel", "update", "-f", b.file)
	b.edit("          -----BEGIN CERTIFICATE-----\n", "          -----BEGIN CERTIFICATE-----\n          Z2FyYmFnZQ==\n")
	b.refused("members[0].msp.roots[0]: the PEM text is damaged", "channel", "update", "-f", b.file)
	none := filepath.Join(b.Dir, "none")
	b.refused("this is no request to sign", "channel", "sign", b.file)
	b.refused("no such file", "channel", "submit", none)
	b.refused("no administrator's key is here", "channel", "update", "-f", b.file, "--members", "org7")
	b.refused("MSPID=FOLDER is wanted", "channel", "config", "--identity", "x")
	b.refused("--tls-root is missing", "channel", "config", "--orderer", "127.0.0.1:1", "--channel", "x")
	b.refused("--peer is missing", "channel", "join")
}
