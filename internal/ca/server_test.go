package ca_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/ca"
)

func TestInfo(t *testing.T) {
	s := start(t, config(t))
	for _, path := range []string{"/api/v1/cainfo", "/cainfo", "/cainfo?ca=ca.org1.example.com", "/cainfo?ca=undefined"} {
		for _, method := range []string{"GET", "POST"} {
			r := s.do(method, path, nil, nil)
			if r.status != 200 || !strings.Contains(string(r.Result), `"CAName":"ca.org1.example.com"`) {
				t.Errorf("%s %s: %d %s", method, path, r.status, r.Result)
			}
		}
	}
	res, err := s.Client().Head(s.URL + "/cainfo")
	if err != nil || res.StatusCode != 200 {
		t.Errorf("HEAD: %v %v", res, err)
	}
	for _, tc := range []struct {
		method, path string
		body         any
		status, code int
	}{
		{"GET", "/cainfo?ca=other", nil, 404, 19},
		{"POST", "/cainfo", object{"caname": "other"}, 404, 19},
		{"POST", "/cainfo", []byte("{"), 400, 5},
		{"DELETE", "/cainfo", nil, 405, 1},
		{"GET", "/api/v1/enroll", nil, 405, 1},
		{"GET", "/api/v1/idemix/cri", nil, 404, 0},
		{"POST", "/api/v1/register", object{}, 401, 2},
		{"POST", "/api/v1/enroll", object{}, 401, 2},
		{"POST", "/api/v1/enroll", bytes.Repeat([]byte(" "), 1<<20), 413, 3},
	} {
		if r := s.do(tc.method, tc.path, tc.body, nil); r.status != tc.status || r.code() != tc.code {
			t.Errorf("%s %s: %d %+v, want %d code %d", tc.method, tc.path, r.status, r.Errors, tc.status, tc.code)
		}
	}
}

func TestEnroll(t *testing.T) {
	s := start(t, config(t))
	key := newKey(t, "")
	csr := newCSR(t, key, x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "admin", Country: []string{"FR"}, Organization: []string{"Acme"}, OrganizationalUnit: []string{"peer"}},
		DNSNames: []string{"a.example.com"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)},
	})
	u, r := s.enroll("admin", "adminpw", key, object{"certificate_request": csr, "caname": "ca.org1.example.com"})
	if u == nil || r.status != 201 {
		t.Fatalf("%+v", r)
	}
	if sub := u.cert.Subject; !slices.Equal(sub.OrganizationalUnit, []string{"client"}) || sub.Organization[0] != "Acme" || sub.Country[0] != "FR" {
		t.Errorf("subject %s", sub)
	}
	if !slices.Equal(u.cert.DNSNames, []string{"a.example.com"}) || len(u.cert.IPAddresses) != 1 {
		t.Errorf("alternative names %v %v", u.cert.DNSNames, u.cert.IPAddresses)
	}
	want := map[string]string{"hf.EnrollmentID": "admin", "hf.Type": "client", "hf.Affiliation": ""}
	if got := attributesOf(t, u.cert); !maps.Equal(got, want) {
		t.Errorf("attributes %v", got)
	}
	if got := time.Until(u.cert.NotAfter).Round(time.Hour); got != ca.DefaultEnrollmentValidity {
		t.Errorf("valid for %s", got)
	}

	u, _ = s.enroll("admin", "adminpw", key, object{"certificate_request": csr, "profile": "tls", "hosts": []string{"b.example.com", "::1"},
		"attr_reqs": []object{{"name": "hf.Revoker"}, {"name": "nothing", "optional": true}},
		"subject":   object{"CN": "admin", "names": []object{{"O": "Other", "OU": "peer"}}}, "NotAfter": time.Now().Add(time.Hour)})
	if u == nil {
		t.Fatal("tls profile refused")
	}
	if !slices.Equal(u.cert.DNSNames, []string{"b.example.com"}) || u.cert.Subject.Organization[0] != "Other" || len(u.cert.ExtKeyUsage) != 2 {
		t.Errorf("tls certificate: %v %s %v", u.cert.DNSNames, u.cert.Subject, u.cert.ExtKeyUsage)
	}
	if got := attributesOf(t, u.cert); !maps.Equal(got, map[string]string{"hf.Revoker": "true"}) {
		t.Errorf("attributes %v", got)
	}
	if left := time.Until(u.cert.NotAfter); left > time.Hour || left < 50*time.Minute {
		t.Errorf("asked for an hour, got %s", left)
	}
}

func TestEnrollRefuses(t *testing.T) {
	s := start(t, config(t))
	key := newKey(t, "")
	good := simpleCSR(t, key, "admin")
	caCSR := newCSR(t, key, x509.CertificateRequest{Subject: pkix.Name{CommonName: "admin"},
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}}})
	block, _ := pem.Decode([]byte(good))
	block.Bytes[len(block.Bytes)-1] ^= 1
	tampered := string(pem.EncodeToMemory(block))
	block.Type = "CERTIFICATE"
	for _, tc := range []struct {
		name         string
		id, secret   string
		extra        object
		status, code int
	}{
		{"wrong password", "admin", "no", nil, 401, 20},
		{"empty password", "admin", "", nil, 401, 20},
		{"unknown identity", "nobody", "adminpw", nil, 401, 20},
		{"no CSR", "admin", "adminpw", object{"certificate_request": ""}, 400, 31},
		{"no PEM", "admin", "adminpw", object{"certificate_request": "zzz"}, 400, 31},
		{"wrong PEM", "admin", "adminpw", object{"certificate_request": string(pem.EncodeToMemory(block))}, 400, 31},
		{"huge CSR", "admin", "adminpw", object{"certificate_request": strings.Repeat("x", 100_000)}, 400, 31},
		{"tampered CSR", "admin", "adminpw", object{"certificate_request": tampered}, 400, 31},
		{"P-521", "admin", "adminpw", object{"certificate_request": simpleCSR(t, newKey(t, "P-521"), "admin")}, 400, 31},
		{"another name", "admin", "adminpw", object{"certificate_request": simpleCSR(t, key, "peer0")}, 403, 77},
		{"another subject", "admin", "adminpw", object{"certificate_request": good, "subject": object{"CN": "peer0"}}, 403, 77},
		{"long field", "admin", "adminpw", object{"certificate_request": newCSR(t, key, x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "admin", Country: []string{"Germany"}}})}, 400, 80},
		{"profile", "admin", "adminpw", object{"profile": "vpn"}, 400, 0},
		{"authority by CSR", "admin", "adminpw", object{"certificate_request": caCSR}, 400, 31},
		{"own extensions", "admin", "adminpw", object{"extensions": []object{{"id": "1.2.3.4.5.6.7.8.1", "value": "00"}}}, 400, 31},
		{"missing attribute", "admin", "adminpw", object{"attr_reqs": []object{{"name": "email"}}}, 400, 0},
		{"bad host", "admin", "adminpw", object{"hosts": []string{"no good"}}, 400, 31},
		{"many hosts", "admin", "adminpw", object{"hosts": slices.Repeat([]string{"a"}, 101)}, 400, 31},
		{"past end", "admin", "adminpw", object{"NotAfter": time.Now().Add(-time.Minute)}, 400, 31},
		{"wrong type", "admin", "adminpw", object{"hosts": 7}, 400, 5},
	} {
		u, r := s.enroll(tc.id, tc.secret, key, tc.extra)
		if u != nil || r.status != tc.status || r.code() != tc.code {
			t.Errorf("%s: %d %+v, want %d code %d", tc.name, r.status, r.Errors, tc.status, tc.code)
		}
	}
}

func TestPasswordLock(t *testing.T) {
	cfg := config(t)
	cfg.PasswordAttempts = 2
	s := start(t, cfg)
	admin := s.mustEnroll("admin", "adminpw")
	admin.register(object{"id": "u", "secret": "pw"})
	for range 2 {
		if _, r := s.enroll("u", "guess", admin.key, nil); r.code() != 20 {
			t.Fatalf("%+v", r)
		}
	}
	if _, r := s.enroll("u", "pw", admin.key, nil); r.status != 401 || r.code() != 73 {
		t.Errorf("right password after the lock: %+v", r)
	}
	admin.ok("PUT", "identities/u", object{"secret": "pw2"}, nil)
	s.mustEnroll("u", "pw2")
}

func TestEnrollmentsAreCounted(t *testing.T) {
	s := start(t, config(t))
	admin := s.mustEnroll("admin", "adminpw")
	admin.register(object{"id": "once", "secret": "pw", "max_enrollments": 3})
	var wg sync.WaitGroup
	var mu sync.Mutex
	granted := 0
	key := newKey(t, "")
	for range 8 {
		wg.Go(func() {
			if u, _ := s.enroll("once", "pw", key, nil); u != nil {
				mu.Lock()
				granted++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if granted != 3 {
		t.Errorf("%d enrollments of 3", granted)
	}
	var list struct{ Certs []struct{ PEM string } }
	admin.ok("GET", "certificates?id=once", nil, &list)
	if len(list.Certs) != 3 {
		t.Errorf("%d certificates recorded", len(list.Certs))
	}
}

func TestToken(t *testing.T) {
	s := start(t, config(t))
	admin := s.mustEnroll("admin", "adminpw")
	body := object{"id": "x1"}
	forge := func(change func(*http.Request, []byte)) reply {
		return s.do("POST", "/api/v1/register", body, func(r *http.Request, data []byte) {
			admin.token(r, data)
			change(r, data)
		})
	}
	for name, change := range map[string]func(*http.Request, []byte){
		"empty":       func(r *http.Request, _ []byte) { r.Header.Set("Authorization", ".") },
		"garbage":     func(r *http.Request, _ []byte) { r.Header.Set("Authorization", "a.b.c") },
		"basic":       func(r *http.Request, _ []byte) { r.SetBasicAuth("admin", "adminpw") },
		"long":        func(r *http.Request, _ []byte) { r.Header.Set("Authorization", strings.Repeat("A", 70_000)) },
		"other body":  func(r *http.Request, d []byte) { admin.token(r, append(d, ' ')) },
		"other path":  func(r *http.Request, d []byte) { r.URL.Path = "/register" },
		"other verb":  func(r *http.Request, d []byte) { c := *r; c.Method = "PUT"; admin.token(&c, d); r.Header = c.Header },
		"legacy form": func(r *http.Request, d []byte) { l := *admin; l.legacy = true; l.token(r, d) },
	} {
		if r := forge(change); r.status != 401 || r.code() != 20 {
			t.Errorf("%s: %d %+v", name, r.status, r.Errors)
		}
	}

	// A certificate from elsewhere with the same names does not count.
	other := start(t, config(t)).mustEnroll("admin", "adminpw")
	other.s = s
	other.refused("POST", "register", body, 401, 20)
	// Nor does one's own key with another's certificate.
	stolen := *admin
	stolen.key = newKey(t, "")
	stolen.refused("POST", "register", body, 401, 20)

	admin.ok("POST", "register", body, nil)
	for _, kind := range []string{"P-384", "Ed25519"} {
		u, r := s.enroll("admin", "adminpw", newKey(t, kind), nil)
		if u == nil {
			t.Fatalf("%s: %+v", kind, r.Errors)
		}
		u.ok("POST", "register", object{"id": "by-" + kind}, nil)
	}

	s.SetClock(func() time.Time { return time.Now().Add(2 * ca.DefaultEnrollmentValidity) })
	admin.refused("POST", "register", object{"id": "x2"}, 401, 20)
	admin.refused("POST", "reenroll", object{"certificate_request": simpleCSR(t, admin.key, "admin")}, 401, 20)
}

func TestLegacyToken(t *testing.T) {
	cfg := config(t)
	cfg.LegacyTokens = true
	cfg.ReenrollExpired = true
	s := start(t, cfg)
	admin := s.mustEnroll("admin", "adminpw")
	admin.ok("POST", "register", object{"id": "new form"}, nil)
	admin.legacy = true
	admin.ok("POST", "register", object{"id": "old form"}, nil)
	s.SetClock(func() time.Time { return time.Now().Add(2 * ca.DefaultEnrollmentValidity) })
	admin.refused("POST", "register", object{"id": "x"}, 401, 20)
	admin.ok("POST", "reenroll", object{"certificate_request": simpleCSR(t, admin.key, "admin")}, nil)
}

func TestRegister(t *testing.T) {
	s := start(t, config(t))
	admin := s.mustEnroll("admin", "adminpw")
	r := admin.do("POST", "register", object{"id": "peer 0/ä", "type": "peer", "affiliation": "org1.department1",
		"attrs": []object{{"name": "email", "value": "p@x", "ecert": true}, {"name": "hidden", "value": "1"}}})
	if r.status != 201 || !r.Success {
		t.Fatalf("%+v", r)
	}
	var id struct {
		Type, Affiliation string
		Attrs             []ca.Attribute
		MaxEnrollments    int `json:"max_enrollments"`
	}
	admin.ok("GET", "identities/peer%200%2F%C3%A4", nil, &id)
	if id.Type != "peer" || id.Affiliation != "org1.department1" || id.MaxEnrollments != -1 || len(id.Attrs) != 5 {
		t.Errorf("%+v", id)
	}
	admin.refused("POST", "register", object{"id": "peer 0/ä"}, 409, 74)
	admin.refused("POST", "register", object{"id": ""}, 400, 52)
	admin.refused("POST", "register", object{"id": "a\nb"}, 400, 52)
	admin.refused("POST", "register", object{"id": "x", "affiliation": "org9"}, 404, 16)
	admin.refused("POST", "register", object{"id": "x", "max_enrollments": -2}, 400, 82)
	admin.refused("POST", "register", object{"id": "x", "attrs": []object{{"name": "hf.Type", "value": "peer"}}}, 403, 71)
	admin.refused("POST", "register", object{"id": "x", "attrs": []object{{"name": "hf.Unheard", "value": "1"}}}, 403, 71)
	admin.refused("POST", "register", []byte("[]"), 400, 5)

	secret := admin.register(object{"id": "clerk", "affiliation": "org1", "attrs": []object{
		{"name": "hf.Registrar.Roles", "value": "client,peer"}, {"name": "hf.Registrar.DelegateRoles", "value": "client"},
		{"name": "hf.Registrar.Attributes", "value": "app.*,hf.Registrar.Roles"}}})
	clerk := s.mustEnroll("clerk", secret)
	for _, tc := range []struct {
		name string
		body object
		ok   bool
	}{
		{"plain", object{"id": "a1"}, true},
		{"below", object{"id": "a2", "affiliation": "org1.department1", "type": "peer"}, true},
		{"app attribute", object{"id": "a3", "attrs": []object{{"name": "app.role", "value": "x"}}}, true},
		{"root", object{"id": "b1", "affiliation": "."}, false},
		{"beside", object{"id": "b2", "affiliation": "org2"}, false},
		{"prefix trick", object{"id": "b3", "affiliation": "org10"}, false},
		{"type", object{"id": "b4", "type": "orderer"}, false},
		{"other attribute", object{"id": "b5", "attrs": []object{{"name": "role", "value": "x"}}}, false},
		{"right it lacks", object{"id": "b6", "attrs": []object{{"name": "hf.Revoker", "value": "true"}}}, false},
		{"more roles", object{"id": "b7", "attrs": []object{{"name": "hf.Registrar.Roles", "value": "orderer"}}}, false},
		{"wildcard roles", object{"id": "b8", "attrs": []object{{"name": "hf.Registrar.Roles", "value": "*"}}}, false},
	} {
		r := clerk.do("POST", "register", tc.body)
		if r.Success != tc.ok || !tc.ok && (r.status != 403 || r.code() != 71) {
			t.Errorf("%s: %d %+v", tc.name, r.status, r.Errors)
		}
	}
	// A registrar of the root, of the administrator's type, cannot take the administrator over.
	rootClerk := s.mustEnroll("rc", admin.register(object{"id": "rc", "affiliation": ".", "attrs": []object{{"name": "hf.Registrar.Roles", "value": "client"}}}))
	rootClerk.refused("PUT", "identities/admin", object{"secret": "mine"}, 403, 71)
	rootClerk.ok("PUT", "identities/rc", object{"secret": "mine"}, nil)
	rootClerk.ok("PUT", "identities/a1", object{"secret": "known"}, nil)

	plain := s.mustEnroll("a1", clerk2secret(clerk))
	plain.refused("POST", "register", object{"id": "c1"}, 403, 71)
	plain.refused("GET", "identities", nil, 403, 71)
	plain.refused("GET", "identities/admin", nil, 403, 71)
	plain.refused("GET", "identities/nobody", nil, 403, 71)
	plain.refused("GET", "certificates", nil, 403, 71)
	plain.refused("POST", "gencrl", object{}, 403, 71)
	plain.refused("GET", "affiliations", nil, 403, 71)
}

// clerk2secret gives a1 a known secret, as its registrar may.
func clerk2secret(clerk *user) string {
	clerk.ok("PUT", "identities/a1", object{"secret": "a1pw"}, nil)
	return "a1pw"
}

func TestRevoke(t *testing.T) {
	s := start(t, config(t))
	admin := s.mustEnroll("admin", "adminpw")
	admin.register(object{"id": "u", "secret": "pw"})
	admin.register(object{"id": "v", "secret": "pw"})
	one, two, v := s.mustEnroll("u", "pw"), s.mustEnroll("u", "pw"), s.mustEnroll("v", "pw")
	v.refused("POST", "revoke", object{"id": "u"}, 403, 71)
	v.refused("POST", "revoke", object{"serial": serialOf(one), "aki": akiOf(one)}, 403, 71)
	admin.refused("POST", "revoke", object{}, 400, 15)
	admin.refused("POST", "revoke", object{"id": "nobody"}, 404, 10)
	admin.refused("POST", "revoke", object{"serial": "1", "aki": "2"}, 404, 8)
	admin.refused("POST", "revoke", object{"id": "v", "serial": serialOf(one), "aki": akiOf(one)}, 400, 9)
	admin.refused("POST", "revoke", object{"id": "u", "reason": "mood"}, 400, 15)

	var result struct {
		RevokedCerts []struct{ Serial, AKI string }
		CRL          string
	}
	colons := strings.ToUpper(akiOf(one)[:2]) + ":" + akiOf(one)[2:]
	admin.ok("POST", "revoke", object{"serial": "00" + strings.ToUpper(serialOf(one)), "aki": colons, "reason": "keycompromise", "gencrl": true}, &result)
	if len(result.RevokedCerts) != 1 {
		t.Fatalf("%+v", result)
	}
	list := parseCRL(t, s, result.CRL)
	if len(list) != 1 || list[0].SerialNumber.Cmp(one.cert.SerialNumber) != 0 || list[0].ReasonCode != 1 {
		t.Errorf("CRL %+v", list)
	}
	admin.refused("POST", "revoke", object{"serial": serialOf(one), "aki": akiOf(one)}, 404, 66)
	one.refused("POST", "reenroll", object{"certificate_request": simpleCSR(t, one.key, "u")}, 401, 20)
	two.ok("POST", "reenroll", object{"certificate_request": simpleCSR(t, two.key, "u")}, nil)

	admin.ok("POST", "revoke", object{"id": "u"}, &result)
	if len(result.RevokedCerts) != 2 {
		t.Errorf("revoked %d of the remaining 2", len(result.RevokedCerts))
	}
	two.refused("POST", "reenroll", object{"certificate_request": simpleCSR(t, two.key, "u")}, 401, 20)
	if _, r := s.enroll("u", "pw", one.key, nil); r.status != 401 || r.code() != 20 {
		t.Errorf("revoked identity enrolls: %+v", r)
	}
	v.ok("POST", "revoke", object{"id": "v"}, &result) // one's own
	v.refused("POST", "reenroll", object{"certificate_request": simpleCSR(t, v.key, "v")}, 401, 20)

	var crl struct{ CRL string }
	admin.ok("POST", "gencrl", object{}, &crl)
	if n := len(parseCRL(t, s, crl.CRL)); n != 4 {
		t.Errorf("CRL of %d, want 4", n)
	}
	hour := time.Hour
	for _, tc := range []struct {
		body object
		want int
	}{
		{object{"revokedafter": time.Now().Add(hour)}, 0},
		{object{"revokedafter": time.Now().Add(-hour), "revokedbefore": time.Now().Add(hour)}, 4},
		{object{"revokedBefore": time.Now().Add(-hour)}, 0},
		{object{"expireafter": time.Now()}, 4},
		{object{"expirebefore": time.Now()}, 0},
		{object{"expireafter": nil, "profile": "tls"}, 4}, // one issuer for both
	} {
		admin.ok("POST", "gencrl", tc.body, &crl)
		if n := len(parseCRL(t, s, crl.CRL)); n != tc.want {
			t.Errorf("gencrl %v: %d entries, want %d", tc.body, n, tc.want)
		}
	}
	admin.refused("POST", "gencrl", object{"revokedafter": time.Now(), "revokedbefore": time.Now().Add(-hour)}, 400, 36)
	admin.refused("POST", "gencrl", object{"expireafter": time.Now(), "expirebefore": time.Now().Add(-hour)}, 400, 37)
}

func parseCRL(t *testing.T, s *server, text string) []x509.RevocationListEntry {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("no PEM in %q", data)
	}
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(s.Chain("")[0]); err != nil {
		t.Error(err)
	}
	return list.RevokedCertificateEntries
}

func TestIdentities(t *testing.T) {
	s := start(t, config(t))
	admin := s.mustEnroll("admin", "adminpw")
	var id struct {
		ID, Type, Affiliation, Secret string
		Attrs                         []ca.Attribute
	}
	admin.ok("POST", "identities", object{"id": "u", "affiliation": "org1", "type": nil, "secret": nil, "attrs": []object{{"name": "a", "value": "1"}, {"name": "b", "value": "2"}}}, &id)
	if id.ID != "u" || len(id.Secret) < 12 {
		t.Errorf("%+v", id)
	}
	u := s.mustEnroll("u", id.Secret)
	admin.refused("POST", "identities", object{}, 400, 52)
	id.Attrs, id.Secret = nil, ""
	admin.ok("PUT", "identities/u", object{"type": "peer", "affiliation": "org2", "max_enrollments": 7, "attrs": []object{{"name": "a", "value": ""}, {"name": "b", "value": "3"}, {"name": "c", "value": "4"}}}, &id)
	values := map[string]string{}
	for _, a := range id.Attrs {
		values[a.Name] = a.Value
	}
	want := map[string]string{"b": "3", "c": "4", "hf.EnrollmentID": "u", "hf.Type": "peer", "hf.Affiliation": "org2"}
	if !maps.Equal(values, want) || id.Secret != "" {
		t.Errorf("after the change: %v %q", values, id.Secret)
	}
	admin.refused("PUT", "identities/u", object{"affiliation": "org9"}, 400, 58)
	admin.refused("PUT", "identities/u", object{"attrs": []object{{"name": "hf.Type", "value": "admin"}}}, 403, 71)
	admin.refused("PUT", "identities/nobody", object{}, 404, 63)
	admin.refused("GET", "identities/nobody", nil, 404, 63)
	admin.refused("DELETE", "identities/admin", nil, 403, 56)
	admin.refused("DELETE", "identities/u?force=perhaps", nil, 400, 57)
	admin.ok("DELETE", "identities/u", nil, nil)
	admin.refused("DELETE", "identities/u", nil, 404, 63)
	u.refused("POST", "reenroll", object{"certificate_request": simpleCSR(t, u.key, "u")}, 401, 20)

	// A list longer than a page, seen by a registrar of one affiliation and type.
	for n := range 5 {
		admin.register(object{"id": fmt.Sprintf("d1-%d", n), "affiliation": "org1.department1", "secret": "x"})
	}
	admin.register(object{"id": "d1-peer", "type": "peer", "affiliation": "org1.department1"})
	secret := admin.register(object{"id": "clerk", "affiliation": "org1", "attrs": []object{{"name": "hf.Registrar.Roles", "value": "client"}}})
	var list struct {
		Identities []struct{ ID string }
		CAName     string
	}
	s.mustEnroll("clerk", secret).ok("GET", "identities", nil, &list)
	if len(list.Identities) != 6 || list.CAName != "ca.org1.example.com" {
		t.Errorf("the clerk sees %+v", list)
	}
	admin.ok("GET", "identities?ca=undefined", nil, &list)
	if len(list.Identities) != 8 {
		t.Errorf("the admin sees %+v", list)
	}
}

func TestAffiliations(t *testing.T) {
	s := start(t, config(t))
	admin := s.mustEnroll("admin", "adminpw")
	type tree struct {
		Name         string
		Affiliations []tree
		Identities   []struct{ ID, Affiliation string }
	}
	var a tree
	admin.ok("GET", "affiliations", nil, &a)
	if a.Name != "" || len(a.Affiliations) != 2 || len(a.Affiliations[0].Affiliations) != 2 || a.Affiliations[0].Affiliations[1].Name != "org1.department2" {
		t.Errorf("%+v", a)
	}
	a = tree{}
	admin.ok("GET", "affiliations/org1", nil, &a)
	if a.Name != "org1" || len(a.Affiliations) != 2 {
		t.Errorf("%+v", a)
	}
	admin.refused("GET", "affiliations/org9", nil, 404, 63)
	admin.refused("POST", "affiliations", object{"name": "org1"}, 409, 60)
	admin.refused("POST", "affiliations", object{"name": "org3.x"}, 400, 60)
	admin.refused("POST", "affiliations", object{"name": "org3..x"}, 400, 60)
	admin.ok("POST", "affiliations?force=true", object{"name": "org3.x.y"}, nil)
	admin.ok("GET", "affiliations/org3.x", nil, &a)
	admin.register(object{"id": "u", "secret": "pw", "affiliation": "org3.x.y"})
	u := s.mustEnroll("u", "pw")

	admin.refused("PUT", "affiliations/org3", object{"name": "org4"}, 400, 64)
	admin.refused("PUT", "affiliations/org3", object{"name": "org2"}, 409, 64)
	admin.refused("PUT", "affiliations/org3", object{"name": "org3.z"}, 400, 64)
	a = tree{}
	admin.ok("PUT", "affiliations/org3?force=true", object{"name": "org4"}, &a)
	if a.Name != "org4" || a.Affiliations[0].Name != "org4.x" || a.Affiliations[0].Affiliations[0].Identities[0].Affiliation != "org4.x.y" {
		t.Errorf("%+v", a)
	}
	admin.refused("GET", "affiliations/org3", nil, 404, 63)
	again, r := s.enroll("u", "pw", u.key, nil)
	if again == nil || attributesOf(t, again.cert)["hf.Affiliation"] != "org4.x.y" {
		t.Errorf("enrolled after the move: %+v", r)
	}

	admin.refused("DELETE", "affiliations/org4", nil, 403, 71)
	admin.ok("DELETE", "affiliations/org4?force=true", nil, &a)
	u.refused("POST", "reenroll", object{"certificate_request": simpleCSR(t, u.key, "u")}, 401, 20)
	admin.refused("GET", "identities/u", nil, 404, 63)
	admin.refused("GET", "affiliations/org4.x", nil, 404, 63)

	// A manager acts below its own affiliation only.
	secret := admin.register(object{"id": "m", "affiliation": "org1", "attrs": []object{{"name": "hf.AffiliationMgr", "value": "true"}}})
	m := s.mustEnroll("m", secret)
	a = tree{}
	m.ok("GET", "affiliations", nil, &a)
	if a.Name != "org1" || len(a.Affiliations) != 2 {
		t.Errorf("%+v", a)
	}
	m.ok("POST", "affiliations", object{"name": "org1.department3"}, nil)
	m.refused("POST", "affiliations", object{"name": "org2.x"}, 403, 71)
	m.refused("DELETE", "affiliations/org1", nil, 403, 71)
	m.refused("PUT", "affiliations/org1.department3", object{"name": "org5"}, 403, 71)
	m.ok("DELETE", "affiliations/org1.department3", nil, nil)
}

func TestRemovalDisabled(t *testing.T) {
	cfg := config(t)
	cfg.AllowIdentityRemoval, cfg.AllowAffiliationRemoval = false, false
	s := start(t, cfg)
	admin := s.mustEnroll("admin", "adminpw")
	admin.register(object{"id": "u"})
	admin.refused("DELETE", "identities/u", nil, 403, 56)
	admin.refused("DELETE", "affiliations/org2", nil, 403, 71)
}

func TestCertificates(t *testing.T) {
	s := start(t, config(t))
	admin := s.mustEnroll("admin", "adminpw")
	admin.register(object{"id": "u", "secret": "pw", "affiliation": "org1"})
	u := s.mustEnroll("u", "pw")
	for range 300 { // more than a page
		admin.ok("POST", "reenroll", object{"certificate_request": simpleCSR(t, admin.key, "admin")}, nil)
	}
	admin.ok("POST", "revoke", object{"id": "u"}, nil)
	count := func(query string, want int) {
		t.Helper()
		var list struct{ Certs []struct{ PEM string } }
		admin.ok("GET", "certificates"+query, nil, &list)
		if len(list.Certs) != want {
			t.Errorf("certificates%s: %d, want %d", query, len(list.Certs), want)
		}
	}
	count("", 302)
	count("?id=u", 1)
	count("?id=u&notrevoked=true", 0)
	count("?notrevoked=true", 301)
	count("?notexpired=true", 302)
	count("?serial=0"+serialOf(u)+"&aki="+akiOf(u), 1)
	count("?revoked_start=-1h&revoked_end=%2B1h", 1)
	count("?revoked_end=-1h", 0)
	count("?expired_start=%2B30d", 302)
	count("?expired_start=2100-01-01", 0)
	count("?expired_end=2020-01-01T00:00:00Z", 0)
	for _, query := range []string{"?notexpired=true&expired_end=-1h", "?notrevoked=true&revoked_end=-1h", "?revoked_start=soon", "?expired_end=+1y", "?expired_end=+xd"} {
		admin.refused("GET", "certificates"+query, nil, 400, 67)
	}
	admin.refused("GET", "certificates?notrevoked=7", nil, 400, 57)
}

func TestFailuresAreLimited(t *testing.T) {
	cfg := config(t)
	cfg.Limits.FailuresPerMinute = 3
	s := start(t, cfg)
	key := newKey(t, "")
	for range 3 {
		if _, r := s.enroll("nobody", "x", key, nil); r.status != 401 {
			t.Fatalf("%+v", r)
		}
	}
	if _, r := s.enroll("admin", "adminpw", key, nil); r.status != 429 {
		t.Errorf("after the limit: %+v", r)
	}
	s.SetClock(func() time.Time { return time.Now().Add(time.Minute) })
	s.mustEnroll("admin", "adminpw")
}

func TestLoginQueueIsBounded(t *testing.T) {
	cfg := config(t)
	cfg.Limits.MaxQueuedLogins = 1
	s := start(t, cfg)
	key := newKey(t, "")
	var wg sync.WaitGroup
	var mu sync.Mutex
	answers := map[int]int{}
	for range 32 {
		wg.Go(func() {
			_, r := s.enroll("admin", "adminpw", key, nil)
			mu.Lock()
			answers[r.status]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if answers[201] == 0 || answers[201]+answers[503] != 32 {
		t.Errorf("answers %v, want only 201 and 503", answers)
	}
}

func FuzzToken(f *testing.F) {
	f.Add("")
	f.Add("a.b")
	f.Add(base64.StdEncoding.EncodeToString([]byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")) + ".MAA=")
	f.Fuzz(func(t *testing.T, header string) { _ = ca.ParseToken(header) })
}

func FuzzCSR(f *testing.F) {
	f.Add("")
	f.Add("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n")
	f.Fuzz(func(t *testing.T, text string) { _ = ca.ParseCSR(text) })
}

// FuzzRequest sends bodies of an authenticated registrar: whatever they hold, the answer is a well-formed
// refusal or success, never an internal error.
func FuzzRequest(f *testing.F) {
	paths := []string{"reenroll", "register", "revoke", "gencrl", "identities", "affiliations", "cainfo"}
	for n, body := range []string{`{"certificate_request":"x","hosts":["a"],"subject":{"CN":"admin","names":[{}]},"attr_reqs":[{"name":"x"}]}`,
		`{"id":"u","attrs":[{"name":"hf.Registrar.Roles","value":"*"}],"max_enrollments":-1}`, `{"id":"u","serial":"1","aki":"0","reason":"x"}`,
		`{"revokedafter":"2020-01-01T00:00:00Z"}`, `{"id":"v","type":null}`, `{"name":"a.b"}`, `{"caname":1}`} {
		f.Add(uint8(n), []byte(body))
	}
	cfg := ca.Config{Name: "ca.org1.example.com", Dir: f.TempDir()}
	authority, err := ca.Open(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { authority.Close() })
	secret, err := authority.Register(f.Context(), ca.Registration{ID: "admin", Attributes: []ca.Attribute{
		{Name: "hf.Registrar.Roles", Value: "*"}, {Name: "hf.Registrar.Attributes", Value: "*"}, {Name: "hf.Revoker", Value: "true"},
		{Name: "hf.GenCRL", Value: "true"}, {Name: "hf.AffiliationMgr", Value: "true"}}})
	if err != nil || secret == "" {
		f.Fatal(err)
	}
	handler := authority.Handler()
	f.Fuzz(func(t *testing.T, path uint8, body []byte) {
		key := newKey(t, "")
		cert, err := authority.Issue(t.Context(), ca.Request{ID: "admin", PublicKey: key.Public()})
		if err != nil {
			t.Fatal(err)
		}
		u := &user{s: &server{t: t}, key: key, certPEM: ca.EncodeCertificates(cert)}
		r := httptest.NewRequest("POST", "/api/v1/"+paths[int(path)%len(paths)], bytes.NewReader(body))
		u.token(r, body)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		var answer struct {
			Errors  []any
			Success *bool
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.Success == nil || *answer.Success == (len(answer.Errors) > 0) {
			t.Errorf("answer %q: %v", w.Body, err)
		}
		if w.Code >= 500 {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}
