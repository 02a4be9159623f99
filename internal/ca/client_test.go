package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hansa-ledger/hansa/internal/ca"
)

// server is a certificate authority under test, served over HTTPS.
type server struct {
	*ca.CA
	*httptest.Server
	t *testing.T
}

func config(t *testing.T) ca.Config {
	return ca.Config{
		Name: "ca.org1.example.com", Dir: t.TempDir(),
		Subject: ca.Subject{Country: "DE", Organization: "org1.example.com"},
		Identities: []ca.Bootstrap{
			{ID: "admin", Secret: "adminpw", Registrar: true},
		},
		Affiliations:            []string{"org1.department1", "org1.department2", "org2"},
		AllowIdentityRemoval:    true,
		AllowAffiliationRemoval: true,
	}
}

func start(t *testing.T, cfg ca.Config) *server {
	t.Helper()
	c, err := ca.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := &server{CA: c, Server: httptest.NewTLSServer(c.Handler()), t: t}
	t.Cleanup(func() {
		s.Server.Close()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// user is a client of the authority with an enrolled identity.
type user struct {
	s       *server
	id      string
	key     crypto.Signer
	certPEM []byte
	cert    *x509.Certificate
	legacy  bool
}

type reply struct {
	status int
	Result json.RawMessage
	Errors []struct {
		Code    int
		Message string
	}
	Success bool
}

func (r reply) code() int {
	if len(r.Errors) == 0 {
		return -1
	}
	return r.Errors[0].Code
}

func (s *server) do(method, path string, body any, authorize func(*http.Request, []byte)) reply {
	s.t.Helper()
	var data []byte
	if raw, ok := body.([]byte); ok {
		data = raw
	} else if body != nil {
		data, _ = json.Marshal(body)
	}
	req, err := http.NewRequest(method, s.URL+path, bytes.NewReader(data))
	if err != nil {
		s.t.Fatal(err)
	}
	if authorize != nil {
		authorize(req, data)
	}
	res, err := s.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	out := reply{status: res.StatusCode}
	if err := json.Unmarshal(text, &out); err != nil {
		s.t.Fatalf("%s %s: answer %q is no JSON: %v", method, path, text, err)
	}
	if out.Success != (len(out.Errors) == 0) || out.Success != (res.StatusCode < 300) {
		s.t.Fatalf("%s %s: inconsistent answer %d %s", method, path, res.StatusCode, text)
	}
	return out
}

func newKey(t *testing.T, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "", "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "P-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCSR(t *testing.T, key crypto.Signer, template x509.CertificateRequest) string {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func simpleCSR(t *testing.T, key crypto.Signer, cn string) string {
	return newCSR(t, key, x509.CertificateRequest{Subject: pkix.Name{CommonName: cn}})
}

func basic(id, secret string) func(*http.Request, []byte) {
	return func(r *http.Request, _ []byte) { r.SetBasicAuth(id, secret) }
}

type object = map[string]any

// enroll asks with the given key and further fields; the user is nil when it was refused.
func (s *server) enroll(id, secret string, key crypto.Signer, extra object) (*user, reply) {
	s.t.Helper()
	body := object{"certificate_request": simpleCSR(s.t, key, id)}
	for k, v := range extra {
		body[k] = v
	}
	r := s.do("POST", "/api/v1/enroll", body, basic(id, secret))
	if !r.Success {
		return nil, r
	}
	return s.user(id, key, r), r
}

func (s *server) user(id string, key crypto.Signer, r reply) *user {
	s.t.Helper()
	var result struct{ Cert string }
	if err := json.Unmarshal(r.Result, &result); err != nil {
		s.t.Fatal(err)
	}
	certPEM, err := base64.StdEncoding.DecodeString(result.Cert)
	if err != nil {
		s.t.Fatal(err)
	}
	certs, err := ca.ParseCertificates(certPEM)
	if err != nil {
		s.t.Fatal(err)
	}
	return &user{s: s, id: id, key: key, certPEM: certPEM, cert: certs[0]}
}

func (s *server) mustEnroll(id, secret string) *user {
	s.t.Helper()
	u, r := s.enroll(id, secret, newKey(s.t, ""), nil)
	if u == nil {
		s.t.Fatalf("enroll %s: %+v", id, r.Errors)
	}
	return u
}

// token signs a request as the stock clients do.
func (u *user) token(r *http.Request, body []byte) {
	b64 := base64.StdEncoding.EncodeToString
	cert := b64(u.certPEM)
	payload := b64(body) + "." + cert
	if !u.legacy {
		payload = r.Method + "." + b64([]byte(r.URL.RequestURI())) + "." + payload
	}
	var sig []byte
	var err error
	if _, ok := u.key.(ed25519.PrivateKey); ok {
		sig, err = u.key.Sign(rand.Reader, []byte(payload), crypto.Hash(0))
	} else {
		sum := sha256.Sum256([]byte(payload))
		sig, err = u.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	}
	if err != nil {
		u.s.t.Fatal(err)
	}
	r.Header.Set("Authorization", cert+"."+b64(sig))
}

func (u *user) do(method, path string, body any) reply {
	u.s.t.Helper()
	return u.s.do(method, "/api/v1/"+path, body, u.token)
}

// ok is do that must succeed.
func (u *user) ok(method, path string, body any, into any) {
	u.s.t.Helper()
	r := u.do(method, path, body)
	if !r.Success {
		u.s.t.Fatalf("%s %s as %s: %d %+v", method, path, u.id, r.status, r.Errors)
	}
	if into != nil {
		if err := json.Unmarshal(r.Result, into); err != nil {
			u.s.t.Fatalf("%s %s: result %s: %v", method, path, r.Result, err)
		}
	}
}

// refused is do that must fail with this status and code.
func (u *user) refused(method, path string, body any, status, code int) {
	u.s.t.Helper()
	r := u.do(method, path, body)
	if r.status != status || r.code() != code {
		u.s.t.Errorf("%s %s %v as %s: got %d %+v, want status %d code %d", method, path, body, u.id, r.status, r.Errors, status, code)
	}
}

func (u *user) register(body object) string {
	u.s.t.Helper()
	var result struct{ Secret string }
	u.ok("POST", "register", body, &result)
	return result.Secret
}

func serialOf(u *user) string { return fmt.Sprintf("%x", u.cert.SerialNumber) }

func akiOf(u *user) string { return fmt.Sprintf("%x", u.cert.AuthorityKeyId) }
