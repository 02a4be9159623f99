// Package conformance_test is the conformance suite: stock Fabric clients and contracts for Node use a Hansa network of three members,
// feature by feature, rightly and wrongly. run.mjs says how features are written; Go starts the network, makes the identities that must be
// refused, and writes docs/compatibility.md of the results, or tells that it is not what they are.
package conformance_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/provision"
)

var (
	printing = flag.Bool("print", false, "print every case")
	update   = flag.Bool("update", false, "write docs/compatibility.md")
	only     = flag.String("only", "", "run only these features, and leave the document alone")
)

// closing is what TestMain prints last.
var closing string

func TestMain(m *testing.M) {
	code := network.Run(m)
	if closing != "" && (*printing || *only != "") {
		fmt.Println(closing)
	}
	os.Exit(code)
}

// What the suite must have, so that it does not shrink unnoticed.
const (
	wantCases  = 150
	wantMisuse = 3 // a feature
)

func TestConformance(t *testing.T) {
	// So that nothing takes long that a network would take its time for.
	for name, value := range map[string]string{"RECONCILEINTERVAL": "1s", "ERASEAFTER": "500ms", "PUSHTIMEOUT": "1s", "PULLTIMEOUT": "3s"} {
		t.Setenv("HANSA_PEER_PRIVATEDATA_"+name, value)
	}
	n := network.Start(t, "--members", "3")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	install(ctx, t)
	cases := run(ctx, t, describe(t, n))

	passed := 0
	for _, c := range cases {
		if c.Passed {
			passed++
		} else {
			t.Errorf("%s: %s", c.Title, c.Name)
		}
	}
	closing = fmt.Sprintf("%d passed, %d failed", passed, len(cases)-passed)
	if *only != "" {
		return
	}
	features := group(cases)
	for _, f := range features {
		if good, misuse := f.count(); good == 0 || misuse < wantMisuse {
			t.Errorf("feature %q has %d cases of use and %d of misuse; 1 and %d are wanted", f.Title, good, misuse, wantMisuse)
		}
	}
	if len(cases) < wantCases {
		t.Errorf("there are %d cases, %d are wanted", len(cases), wantCases)
	}
	compare(t, features)
}

// result is a case as run.mjs reports it.
type result struct {
	File, Area, Title, About string
	Gaps                     []string
	Name                     string
	Misuse, Passed           bool
	// Fabric is what Fabric does instead, if it differs.
	Fabric string
}

func run(ctx context.Context, t *testing.T, network setup) (cases []result) {
	t.Helper()
	setup, err := json.Marshal(network)
	if err != nil {
		t.Fatal(err)
	}
	results := filepath.Join(t.TempDir(), "results")
	node := exec.CommandContext(ctx, "node", "run.mjs", *only)
	node.Env = append(os.Environ(), "HANSA_NETWORK="+string(setup), "HANSA_RESULTS="+results, "HFC_LOGGING={}", "NODE_NO_WARNINGS=1")
	// The contracts end with it, also when it is killed.
	node.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	node.Cancel = func() error { return syscall.Kill(-node.Process.Pid, syscall.SIGKILL) }
	node.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	node.Stdout, node.Stderr = &out, &out
	if *printing || *only != "" {
		node.Stdout = io.MultiWriter(&out, os.Stdout)
		node.Stderr = node.Stdout
	}
	err = node.Run()
	if node.Process != nil {
		syscall.Kill(-node.Process.Pid, syscall.SIGKILL)
	}
	if err != nil {
		t.Errorf("run.mjs: %v\n%s", err, out.Bytes())
	}
	file, err := os.Open(results)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	failed := false
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var c result
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
		failed = failed || !c.Passed
	}
	if failed && !*printing && *only == "" {
		t.Logf("%s", out.Bytes())
	}
	return cases
}

func install(ctx context.Context, t *testing.T) {
	t.Helper()
	if _, err := os.Stat("node_modules/fabric-shim"); err == nil {
		return
	}
	out, err := exec.CommandContext(ctx, "npm", "ci", "--omit=optional", "--ignore-scripts").CombinedOutput()
	if err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}

// setup is what lib/net.mjs reads from HANSA_NETWORK.
type setup struct {
	Dir      string    `json:"dir"`
	Binary   string    `json:"binary"`
	Channel  string    `json:"channel"`
	Members  []member  `json:"members"`
	Orderers []orderer `json:"orderers"`
	// Batch is how channels of the cases' own cut blocks, if not as by default.
	Batch json.RawMessage `json:"batch,omitempty"`
	// Refused are identities that the network must not accept, by what is wrong with them.
	Refused map[string]network.Credentials `json:"refused"`
}

type member struct {
	Name       string    `json:"name"`
	MSPID      string    `json:"mspId"`
	Domain     string    `json:"domain"`
	Address    string    `json:"address"`
	Operations string    `json:"operations"`
	TLSRoot    string    `json:"tlsRoot"`
	Profile    string    `json:"profile"`
	CA         authority `json:"ca"`
}

type authority struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	TLSRoot string `json:"tlsRoot"`
	Admin   string `json:"admin"`
	Secret  string `json:"secret"`
}

type orderer struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Admin   string `json:"admin"`
	TLSRoot string `json:"tlsRoot"`
	TLSCert string `json:"tlsCert"`
}

func describe(t *testing.T, n *network.Network) setup {
	plan := n.Plan()
	s := setup{Dir: n.Dir, Binary: os.Getenv("HANSA_BINARY"), Channel: plan.Channel, Refused: map[string]network.Credentials{}}
	at := func(port int) string { return fmt.Sprintf("%s:%d", provision.Host, port) }
	for _, m := range plan.Members {
		s.Members = append(s.Members, member{
			Name: m.Name, MSPID: m.MSPID, Domain: m.Domain, Address: m.Peers[0].Address(), Operations: at(m.Peers[0].Operations),
			TLSRoot: plan.TLSRoots(m), Profile: filepath.Join(n.Dir, "members", m.Name, "connection.json"), CA: registrar(t, n, plan, m),
		})
	}
	ordering := filepath.Join(n.Dir, "crypto", "ordererOrganizations", "orderer.example.com")
	for _, o := range plan.Orderers {
		s.Orderers = append(s.Orderers, orderer{
			Name: o.Name, Address: o.Address(), Admin: at(o.Admin), TLSRoot: single(t, filepath.Join(ordering, "tlsca", "*-cert.pem")),
			TLSCert: filepath.Join(ordering, "orderers", o.Name+".orderer.example.com", "tls", "server.crt"),
		})
	}
	ca := filepath.Join(n.Dir, "crypto", "peerOrganizations", plan.Members[0].Domain, "ca")
	issuer, key := network.ReadCertificate(t, single(t, filepath.Join(ca, "*-cert.pem"))), network.ReadKey(t, single(t, filepath.Join(ca, "*_sk")))
	strangerKey := network.NewKey(t)
	stranger := &x509.Certificate{Subject: pkix.Name{CommonName: "ca.org1.example.com"}, IsCA: true, BasicConstraintsValid: true}
	now := time.Now()
	s.Refused["expired"] = n.Issue("expired", "Org1MSP", now.Add(-time.Minute), issuer, key)
	s.Refused["stranger"] = n.Issue("stranger", "Org1MSP", now.Add(time.Hour), stranger, strangerKey)
	s.Refused["unknownMember"] = n.Issue("unknown", "Org9MSP", now.Add(time.Hour), stranger, strangerKey)
	return s
}

// registrar reads who may register identities at a member's certificate authority.
func registrar(t *testing.T, n *network.Network, plan *provision.Network, m provision.Member) authority {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(n.Dir, "nodes", m.CA.Name, "ca.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		CA struct {
			Identities []struct{ ID, Secret string } `yaml:"identities"`
		} `yaml:"ca"`
	}
	if err := yaml.Unmarshal(raw, &config); err != nil || len(config.CA.Identities) == 0 {
		t.Fatalf("%s has no registrar: %v", m.CA.Name, err)
	}
	first := config.CA.Identities[0]
	return authority{Name: m.CA.Name, Address: m.CA.Address(), TLSRoot: plan.TLSRoots(m), Admin: first.ID, Secret: first.Secret}
}

// single is the one file that a pattern matches.
func single(t *testing.T, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: one file is wanted, there are %d (%v)", pattern, len(files), err)
	}
	return files[0]
}
