package ca_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/ca"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func open(t *testing.T, cfg ca.Config) *ca.CA {
	t.Helper()
	c, err := ca.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestReopenKeepsKeysAndRegistry(t *testing.T) {
	cfg := config(t)
	c := open(t, cfg)
	root := c.Chain(ca.ProfileEnrollment)[0]
	if _, err := ca.Open(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("second opener of the folder: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	again := start(t, cfg)
	if !again.Chain(ca.ProfileEnrollment)[0].Equal(root) {
		t.Error("another root after reopening")
	}
	again.mustEnroll("admin", "adminpw")
	for _, f := range []string{"ca-key.pem", "LOCK"} {
		info, err := os.Stat(filepath.Join(cfg.Dir, f))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v, want mode 0600", f, info, err)
		}
	}
	db, err := os.ReadFile(filepath.Join(cfg.Dir, "ca.db"))
	if err != nil {
		t.Fatal(err)
	}
	if wal, err := os.ReadFile(filepath.Join(cfg.Dir, "ca.db-wal")); err == nil {
		db = append(db, wal...)
	}
	if strings.Contains(string(db), "adminpw") {
		t.Error("the registry holds a password in the clear")
	}
}

func TestFolderOfAnyName(t *testing.T) {
	cfg := config(t)
	cfg.Dir = filepath.Join(cfg.Dir, "a b?c=d%20#e&")
	start(t, cfg).mustEnroll("admin", "adminpw")
	info, err := os.Stat(filepath.Join(cfg.Dir, "ca.db"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("registry: %v %v", info, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	write := func(t *testing.T, path string, data []byte, mode os.FileMode) {
		if err := os.WriteFile(path, data, mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, cfg *ca.Config)
		want string
	}{
		{"no name", func(t *testing.T, cfg *ca.Config) { cfg.Name = "" }, "name"},
		{"no folder", func(t *testing.T, cfg *ca.Config) { cfg.Dir = "" }, "dir"},
		{"half an issuer", func(t *testing.T, cfg *ca.Config) { cfg.Issuer.CertFile = "x" }, "issuer"},
		{"negative", func(t *testing.T, cfg *ca.Config) { cfg.CRLValidity = -1 }, "crlValidity"},
		{"no secret", func(t *testing.T, cfg *ca.Config) { cfg.Identities[0].Secret = "" }, "secret"},
		{"bad affiliation", func(t *testing.T, cfg *ca.Config) { cfg.Affiliations = []string{"a..b"} }, "a..b"},
		{"key without certificate", func(t *testing.T, cfg *ca.Config) {
			write(t, filepath.Join(cfg.Dir, "ca-key.pem"), nil, 0o600)
		}, "ca-cert.pem"},
		{"readable key", func(t *testing.T, cfg *ca.Config) {
			open(t, *cfg).Close()
			if err := os.Chmod(filepath.Join(cfg.Dir, "ca-key.pem"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "chmod 600"},
		{"foreign key", func(t *testing.T, cfg *ca.Config) {
			open(t, *cfg).Close()
			key, err := ca.EncodeKey(newKey(t, ""))
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(cfg.Dir, "ca-key.pem"), key, 0o600)
		}, "private key"},
		{"no database", func(t *testing.T, cfg *ca.Config) {
			write(t, filepath.Join(cfg.Dir, "ca.db"), []byte("this is not a database, whatever it looks like"), 0o600)
		}, "ca.db"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := config(t)
			tc.do(t, &cfg)
			c, err := ca.Open(cfg, slog.New(slog.DiscardHandler))
			if err == nil {
				c.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %q does not name %q", err, tc.want)
			}
		})
	}
}

func TestIssue(t *testing.T) {
	cfg := config(t)
	cfg.TLSIssuer = ca.IssuerFiles{CertFile: filepath.Join(cfg.Dir, "tls-cert.pem"), KeyFile: filepath.Join(cfg.Dir, "tls-key.pem")}
	s := start(t, cfg)
	ctx := context.Background()
	for _, kind := range []string{"P-256", "P-384", "Ed25519"} {
		key := newKey(t, kind)
		cert, err := s.Issue(ctx, ca.Request{ID: "peer0-" + kind, Type: "peer", Affiliation: "org1.department1", PublicKey: key.Public()})
		if err != nil {
			t.Fatal(err)
		}
		// One multi-valued name, a set: the encoding orders it.
		if got := slices.Sorted(slices.Values(cert.Subject.OrganizationalUnit)); !slices.Equal(got, []string{"department1", "org1", "peer"}) {
			t.Errorf("%s: OUs %s", kind, got)
		}
		if cert.Subject.Organization[0] != "org1.example.com" || cert.Subject.Country[0] != "DE" {
			t.Errorf("%s: subject %s lacks the configured names", kind, cert.Subject)
		}
		verify(t, cert, s.Chain(ca.ProfileEnrollment), x509.ExtKeyUsageAny)
		if cert.KeyUsage != x509.KeyUsageDigitalSignature || cert.IsCA || !cert.BasicConstraintsValid {
			t.Errorf("%s: usage %v CA %v", kind, cert.KeyUsage, cert.IsCA)
		}
	}

	key := newKey(t, "")
	cert, err := s.Issue(ctx, ca.Request{ID: "peer0", Type: "peer", Profile: ca.ProfileTLS, PublicKey: key.Public(),
		Hosts: []string{"peer0.example.com", "127.0.0.1", "::1", "a@example.com", "spiffe://example.com/x"}})
	if err != nil {
		t.Fatal(err)
	}
	verify(t, cert, s.Chain(ca.ProfileTLS), x509.ExtKeyUsageServerAuth)
	verify(t, cert, s.Chain(ca.ProfileTLS), x509.ExtKeyUsageClientAuth)
	if s.Chain(ca.ProfileTLS)[0].Equal(s.Chain(ca.ProfileEnrollment)[0]) {
		t.Error("TLS has no root of its own")
	}
	if len(cert.DNSNames) != 1 || len(cert.IPAddresses) != 2 || len(cert.EmailAddresses) != 1 || len(cert.URIs) != 1 {
		t.Errorf("alternative names %v %v %v %v", cert.DNSNames, cert.IPAddresses, cert.EmailAddresses, cert.URIs)
	}

	for name, req := range map[string]ca.Request{
		"P-521":    {ID: "x", PublicKey: newKey(t, "P-521").Public()},
		"no key":   {ID: "x"},
		"no ID":    {PublicKey: key.Public()},
		"profile":  {ID: "x", PublicKey: key.Public(), Profile: "zzz"},
		"bad host": {ID: "x", PublicKey: key.Public(), Hosts: []string{"a b"}},
		"past":     {ID: "x", PublicKey: key.Public(), NotAfter: time.Now().Add(-time.Hour)},
	} {
		if _, err := s.Issue(ctx, req); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

// A certificate issued in process is as good as an enrolled one.
func TestIssuedInProcessIsKnown(t *testing.T) {
	s := start(t, config(t))
	key := newKey(t, "")
	cert, err := s.Issue(context.Background(), ca.Request{ID: "operator", Type: "admin", PublicKey: key.Public(), Attributes: map[string]string{"region": "north"}})
	if err != nil {
		t.Fatal(err)
	}
	u := &user{s: s, id: "operator", key: key, certPEM: ca.EncodeCertificates(cert), cert: cert}
	u.ok("POST", "reenroll", object{"certificate_request": simpleCSR(t, newKey(t, ""), "operator")}, nil)
	if _, r := s.enroll("operator", "", newKey(t, ""), nil); r.status != 401 {
		t.Errorf("enrolled without a secret: %+v", r)
	}
	admin := s.mustEnroll("admin", "adminpw")
	admin.ok("POST", "revoke", object{"id": "operator"}, nil)
	u.refused("POST", "reenroll", object{"certificate_request": simpleCSR(t, newKey(t, ""), "operator")}, 401, 20)
}

func verify(t *testing.T, cert *x509.Certificate, chain []*x509.Certificate, usage x509.ExtKeyUsage) {
	t.Helper()
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(chain[len(chain)-1])
	for _, c := range chain[:len(chain)-1] {
		between.AddCert(c)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
		t.Errorf("verify %s: %v", cert.Subject, err)
	}
	if public, ok := chain[0].PublicKey.(*ecdsa.PublicKey); ok {
		var sig struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(cert.Signature, &sig); err != nil {
			t.Fatal(err)
		}
		if sig.S.Cmp(new(big.Int).Rsh(public.Params().N, 1)) > 0 {
			t.Error("the signature's s is the larger one; Fabric's MSP would rewrite the certificate")
		}
	}
}

func TestIntermediate(t *testing.T) {
	parent := start(t, config(t))
	admin := parent.mustEnroll("admin", "adminpw")
	admin.register(object{"id": "ica", "secret": "icapw", "attrs": []object{{"name": "hf.IntermediateCA", "value": "true"}}})
	admin.register(object{"id": "mallory", "secret": "pw"})
	if _, r := parent.enroll("mallory", "pw", newKey(t, ""), object{"profile": "ca"}); r.status != 403 || r.code() != 71 {
		t.Errorf("authority for anyone: %+v", r)
	}
	key := newKey(t, "P-384")
	ica, r := parent.enroll("ica", "icapw", key, object{"profile": "ca"})
	if ica == nil {
		t.Fatalf("%+v", r)
	}
	cfg := config(t)
	cfg.Issuer = ca.IssuerFiles{CertFile: filepath.Join(cfg.Dir, "c.pem"), KeyFile: filepath.Join(cfg.Dir, "k.pem"), ChainFile: filepath.Join(cfg.Dir, "chain.pem")}
	keyPEM, err := ca.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, data := range map[string][]byte{cfg.Issuer.CertFile: ica.certPEM, cfg.Issuer.KeyFile: keyPEM, cfg.Issuer.ChainFile: ca.EncodeCertificates(parent.Chain("")...)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	child := start(t, cfg)
	if n := len(child.Chain("")); n != 2 {
		t.Fatalf("chain of %d", n)
	}
	u := child.mustEnroll("admin", "adminpw")
	verify(t, u.cert, child.Chain(""), x509.ExtKeyUsageAny)
	if _, r := child.enroll("admin", "adminpw", newKey(t, ""), object{"profile": "ca"}); r.status != 403 {
		t.Errorf("the intermediate made an authority beyond its path length: %+v", r)
	}

	cfg.Issuer.ChainFile = ""
	cfg.Dir = t.TempDir()
	if _, err := ca.Open(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "chain") {
		t.Errorf("opened without its chain: %v", err)
	}
}

func TestLowSAlways(t *testing.T) {
	s := start(t, config(t))
	key := newKey(t, "")
	for range 16 { // each would be high in half of the cases
		cert, err := s.Issue(context.Background(), ca.Request{ID: "u", PublicKey: key.Public()})
		if err != nil {
			t.Fatal(err)
		}
		verify(t, cert, s.Chain(""), x509.ExtKeyUsageAny)
	}
}

func TestMetricsLint(t *testing.T) {
	s := start(t, config(t))
	s.mustEnroll("admin", "adminpw")
	reg := prometheus.NewRegistry()
	reg.MustRegister(s.Collectors()...)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	if n, err := testutil.GatherAndCount(reg, "hansa_ca_requests_total"); err != nil || n != 1 {
		t.Errorf("%d series of requests, %v", n, err)
	}
}

// attributesOf reads the extension that contracts read.
func attributesOf(t *testing.T, cert *x509.Certificate) map[string]string {
	t.Helper()
	for _, ext := range cert.Extensions {
		if ext.Id.Equal(asn1.ObjectIdentifier{1, 2, 3, 4, 5, 6, 7, 8, 1}) {
			var v struct{ Attrs map[string]string }
			if err := json.Unmarshal(ext.Value, &v); err != nil {
				t.Fatal(err)
			}
			return v.Attrs
		}
	}
	return nil
}
