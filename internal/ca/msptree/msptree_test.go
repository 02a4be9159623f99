package msptree_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/hansa-ledger/hansa/internal/ca"
	"github.com/hansa-ledger/hansa/internal/ca/msptree"
)

func open(t *testing.T, o msptree.Org, change func(*ca.Config)) *ca.CA {
	t.Helper()
	cfg := ca.Config{
		Name: "ca." + o.Domain, Dir: t.TempDir(), Issuer: o.Issuer(), TLSIssuer: o.TLSIssuer(),
		Subject: ca.Subject{Organization: o.Domain},
	}
	if change != nil {
		change(&cfg)
	}
	c, err := ca.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func newOrg(t *testing.T) msptree.Org {
	return msptree.Org{Dir: filepath.Join(t.TempDir(), "org1.example.com"), Domain: "org1.example.com"}
}

// listing is every path below dir, folders with a slash.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if d.IsDir() {
			rel += "/"
		} else if info, err := d.Info(); err != nil {
			return err
		} else if secret := strings.HasSuffix(rel, "_sk") || strings.HasSuffix(rel, ".key"); secret != (info.Mode().Perm() == 0o600) {
			t.Errorf("%s has mode %s", rel, info.Mode())
		}
		out = append(out, rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// The layout is that of cryptogen, as testdata/cryptogen.txt lists it for a peer organization with
// EnableNodeOUs, one peer and one user.
func TestLayoutIsCryptogens(t *testing.T) {
	o := newOrg(t)
	authority := open(t, o, nil)
	err := o.Write(context.Background(), authority, msptree.Spec{Peers: []msptree.Node{{Name: "peer0"}}, Users: []string{"User1"}})
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/cryptogen.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Fields(string(want)), listing(t, o.Dir)); diff != "" {
		t.Error(diff)
	}
	config, err := os.ReadFile(filepath.Join(o.MSP(), "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile("testdata/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var got, expected any
	if err := yaml.Unmarshal(config, &got); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(golden, &expected); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(expected, got); diff != "" {
		t.Error(diff)
	}
	for _, path := range []string{o.TLSRoot(), o.Peer("peer0").SignCert(), o.Peer("peer0").Key(), o.Peer("peer0").TLSCert(), o.Peer("peer0").TLSKey(),
		o.Peer("peer0").TLSRoots(), o.User("Admin").TLSCert(), o.User("User1").TLSKey(), o.User("User1").MSP()} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

func load(t *testing.T, path string) []*x509.Certificate {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := ca.ParseCertificates(data)
	if err != nil {
		t.Fatal(err)
	}
	return certs
}

func TestCertificates(t *testing.T) {
	o := newOrg(t)
	authority := open(t, o, nil)
	spec := msptree.Spec{
		Peers:    []msptree.Node{{Name: "peer0", Hosts: []string{"localhost", "127.0.0.1"}}},
		Orderers: []msptree.Node{{Name: "orderer0"}},
		Users:    []string{"User1"},
	}
	if err := o.Write(context.Background(), authority, spec); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		folder msptree.Folder
		ou, cn string
	}{
		{o.Peer("peer0"), "peer", "peer0.org1.example.com"},
		{o.Orderer("orderer0"), "orderer", "orderer0.org1.example.com"},
		{o.User("Admin"), "admin", "Admin@org1.example.com"},
		{o.User("User1"), "client", "User1@org1.example.com"},
	} {
		cert := load(t, tc.folder.SignCert())[0]
		if cert.Subject.CommonName != tc.cn || !slices.Equal(cert.Subject.OrganizationalUnit, []string{tc.ou}) {
			t.Errorf("%s: subject %s", tc.cn, cert.Subject)
		}
		if err := cert.CheckSignatureFrom(load(t, o.Issuer().CertFile)[0]); err != nil {
			t.Errorf("%s: %v", tc.cn, err)
		}
		if _, err := tls.LoadX509KeyPair(tc.folder.SignCert(), tc.folder.Key()); err != nil {
			t.Errorf("%s: %v", tc.cn, err)
		}
		if _, err := tls.LoadX509KeyPair(tc.folder.TLSCert(), tc.folder.TLSKey()); err != nil {
			t.Errorf("%s: %v", tc.cn, err)
		}
	}
	peer := load(t, o.Peer("peer0").TLSCert())[0]
	for _, host := range []string{"peer0", "peer0.org1.example.com", "localhost", "127.0.0.1"} {
		if err := peer.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}

	// Writing again keeps what is there and adds what is new.
	before := listing(t, o.Dir)
	sign, err := os.ReadFile(o.Peer("peer0").SignCert())
	if err != nil {
		t.Fatal(err)
	}
	spec.Peers = append(spec.Peers, msptree.Node{Name: "peer1"})
	stale := filepath.Join(o.Dir, "peers", ".peer1.org1.example.com.new", "msp", "config.yaml")
	if err := os.MkdirAll(stale, 0o755); err != nil { // left by a crash, and of the wrong kind
		t.Fatal(err)
	}
	if err := o.Write(context.Background(), authority, spec); err != nil {
		t.Fatal(err)
	}
	after := listing(t, o.Dir)
	if len(after) != len(before)+16 {
		t.Errorf("%d paths became %d", len(before), len(after))
	}
	if again, err := os.ReadFile(o.Peer("peer0").SignCert()); err != nil || string(again) != string(sign) {
		t.Errorf("peer0's certificate was replaced (%v)", err)
	}

	other := open(t, newOrg(t), nil)
	if err := o.Write(context.Background(), other, spec); err == nil || !strings.Contains(err.Error(), "another authority") {
		t.Errorf("mixed two authorities: %v", err)
	}
}

func TestWriteRefuses(t *testing.T) {
	o := newOrg(t)
	authority := open(t, o, nil)
	for name, spec := range map[string]msptree.Spec{
		"path":   {Peers: []msptree.Node{{Name: "../peer0"}}},
		"empty":  {Orderers: []msptree.Node{{}}},
		"hidden": {Users: []string{".ssh"}},
		"long":   {Users: []string{strings.Repeat("u", 60)}},
		"twice":  {Peers: []msptree.Node{{Name: "p"}, {Name: "p"}}},
		"host":   {Peers: []msptree.Node{{Name: "p", Hosts: []string{"no good"}}}},
	} {
		if err := o.Write(context.Background(), authority, spec); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	if _, err := os.Stat(o.Peer("p").Dir); err == nil {
		t.Error("half a peer was left")
	}
}

// TLS works between two members of the organization, each presenting what its folder holds.
func TestMutualTLS(t *testing.T) {
	o := newOrg(t)
	// An intermediate authority for TLS: its certificate must travel with the members'.
	parent := open(t, newOrg(t), nil)
	dir := t.TempDir()
	files := ca.IssuerFiles{CertFile: filepath.Join(dir, "c.pem"), KeyFile: filepath.Join(dir, "k.pem"), ChainFile: filepath.Join(dir, "r.pem")}
	intermediate(t, parent, files)
	authority := open(t, o, func(c *ca.Config) { c.Issuer, c.TLSIssuer = files, files })
	if err := o.Write(context.Background(), authority, msptree.Spec{Peers: []msptree.Node{{Name: "peer0"}}}); err != nil {
		t.Fatal(err)
	}
	got := listing(t, o.MSP())
	want := []string{"admincerts/", "cacerts/", "cacerts/ca.org1.example.com-cert.pem", "config.yaml",
		"intermediatecerts/", "intermediatecerts/ca.org1.example.com-intermediate1-cert.pem",
		"tlscacerts/", "tlscacerts/tlsca.org1.example.com-cert.pem",
		"tlsintermediatecerts/", "tlsintermediatecerts/tlsca.org1.example.com-intermediate1-cert.pem"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	config, err := os.ReadFile(filepath.Join(o.MSP(), "config.yaml"))
	if err != nil || !strings.Contains(string(config), "Certificate: intermediatecerts/ca.org1.example.com-intermediate1-cert.pem") {
		t.Errorf("config.yaml %s %v", config, err)
	}

	side := func(f msptree.Folder) *tls.Config {
		pair, err := tls.LoadX509KeyPair(f.TLSCert(), f.TLSKey())
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		for _, c := range load(t, f.TLSRoots()) {
			roots.AddCert(c)
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ClientCAs: roots,
			ClientAuth: tls.RequireAndVerifyClientCert, ServerName: "peer0.org1.example.com"}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() { done <- tls.Server(a, side(o.Peer("peer0"))).Handshake() }()
	client := tls.Client(b, side(o.User(msptree.Admin)))
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	go client.Read(make([]byte, 1)) // takes the session tickets, for which the server may wait
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func intermediate(t *testing.T, parent *ca.CA, files ca.IssuerFiles) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := parent.Issue(context.Background(), ca.Request{ID: "ica", Profile: ca.ProfileCA, PublicKey: key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := ca.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{files.CertFile: ca.EncodeCertificates(cert), files.KeyFile: keyPEM, files.ChainFile: ca.EncodeCertificates(parent.Chain("")...)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func endpoints() msptree.Endpoints {
	pem := "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
	return msptree.Endpoints{
		Network: "business", Organization: "Org1", Channels: []string{"business"},
		Organizations: []msptree.Organization{
			{Name: "Org1", MSPID: "Org1MSP", Peers: []msptree.Endpoint{{Name: "peer0.org1.example.com", Address: "localhost:7051", TLSRoots: pem}},
				Authorities: []msptree.Authority{{Name: "ca.org1.example.com", CAName: "ca-org1", Address: "localhost:7054", TLSRoots: pem}}},
			{Name: "Org2", MSPID: "Org2MSP", Peers: []msptree.Endpoint{{Name: "peer0.org2.example.com", Address: "localhost:9051", TLSRoots: pem}}},
		},
		Orderers: []msptree.Endpoint{{Name: "orderer.example.com", Address: "localhost:7050", TLSRoots: pem}},
	}
}

func TestProfile(t *testing.T) {
	p, err := msptree.NewProfile(endpoints())
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	golden, err := os.ReadFile("testdata/profile.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(golden), string(text)); diff != "" {
		t.Error(diff)
	}
	asYAML, err := p.YAML()
	if err != nil {
		t.Fatal(err)
	}
	var fromJSON, fromYAML any
	if err := json.Unmarshal(text, &fromJSON); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(asYAML, &fromYAML); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(fromJSON, fromYAML); diff != "" {
		t.Error(diff)
	}
	for name, change := range map[string]func(*msptree.Endpoints){
		"client":  func(e *msptree.Endpoints) { e.Organization = "Org3" },
		"address": func(e *msptree.Endpoints) { e.Orderers[0].Address = "localhost" },
		"roots":   func(e *msptree.Endpoints) { e.Organizations[0].Authorities[0].TLSRoots = "" },
		"name":    func(e *msptree.Endpoints) { e.Organizations[0].Peers[0].Name = "" },
		"twice":   func(e *msptree.Endpoints) { e.Orderers = append(e.Orderers, e.Orderers[0]) },
		"mspid":   func(e *msptree.Endpoints) { e.Organizations[1].MSPID = "" },
	} {
		e := endpoints()
		change(&e)
		if _, err := msptree.NewProfile(e); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
