// Package ca_test drives a served Hansa certificate authority with the stock npm fabric-ca-client.
package ca_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/ca"
)

// One issuer for all, as the stock server has it; and a root of its own for TLS, as cryptogen lays it out.
func TestStockNodeClient(t *testing.T) {
	if testing.Short() {
		t.Skip("runs npm and Node")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	install(ctx, t)
	t.Run("one issuer", func(t *testing.T) { run(ctx, t, ca.IssuerFiles{}) })
	t.Run("own TLS issuer", func(t *testing.T) {
		dir := t.TempDir()
		run(ctx, t, ca.IssuerFiles{CertFile: filepath.Join(dir, "tlsca.pem"), KeyFile: filepath.Join(dir, "tlsca.key")})
	})
}

func install(ctx context.Context, t *testing.T) {
	t.Helper()
	if _, err := os.Stat("node_modules/fabric-ca-client"); err == nil {
		return
	}
	out, err := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts").CombinedOutput()
	if err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}

func run(ctx context.Context, t *testing.T, tlsIssuer ca.IssuerFiles) {
	authority, err := ca.Open(ca.Config{
		Name: "ca.org1.example.com", Dir: t.TempDir(), TLSIssuer: tlsIssuer,
		Subject:                 ca.Subject{Country: "DE", Organization: "org1.example.com"},
		Identities:              []ca.Bootstrap{{ID: "admin", Secret: "adminpw", Registrar: true}},
		Affiliations:            []string{"org1.department1", "org1.department2", "org2"},
		AllowIdentityRemoval:    true,
		AllowAffiliationRemoval: true,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer authority.Close()

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := authority.Issue(ctx, ca.Request{ID: "ca-server", Profile: ca.ProfileTLS, PublicKey: key.Public(), Hosts: []string{"localhost", "127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(authority.Handler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
	server.StartTLS()
	defer server.Close()

	setup, err := json.Marshal(map[string]any{
		"url": server.URL, "caName": authority.Name(),
		"roots": []string{string(ca.EncodeCertificates(authority.Chain(ca.ProfileTLS)...))},
		"ski":   hex.EncodeToString(authority.Chain(ca.ProfileEnrollment)[0].SubjectKeyId),
	})
	if err != nil {
		t.Fatal(err)
	}
	node := exec.CommandContext(ctx, "node", "client.mjs")
	node.Env = append(os.Environ(), "HANSA_CA="+string(setup), "HFC_LOGGING={}")
	out, err := node.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("client.mjs: %v", err)
	}
}
