package contractpackage_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/contractpackage"
)

var metadata = contractpackage.Metadata{Type: "ccaas", Label: "basic_1.0"}

func pack(t testing.TB, files map[string]string) []byte {
	t.Helper()
	raw := map[string][]byte{}
	for name, text := range files {
		raw[name] = []byte(text)
	}
	code, err := contractpackage.WriteCode(raw)
	if err != nil {
		t.Fatal(err)
	}
	p, err := contractpackage.Write(metadata, code)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWriteAndRead(t *testing.T) {
	files := map[string]string{"connection.json": `{"address":"a:1"}`, "META-INF/statedb/couchdb/indexes/owner.json": "{}"}
	raw := pack(t, files)
	if !bytes.Equal(raw, pack(t, files)) {
		t.Error("the same content gave other bytes")
	}
	p, err := contractpackage.Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	if p.Metadata != metadata || p.ID != contractpackage.ID("basic_1.0", raw) {
		t.Errorf("%+v", p)
	}
	label, hash, ok := contractpackage.SplitID(p.ID)
	if label != "basic_1.0" || len(hash) != 32 || !ok {
		t.Error(label, hash, ok)
	}
	for _, bad := range []string{"", "a", "a:b", "a:" + strings.Repeat("0", 62), strings.ToUpper(p.ID), "-" + p.ID} {
		if _, _, ok := contractpackage.SplitID(bad); ok {
			t.Errorf("%s is no id", bad)
		}
	}
	got, err := p.Files()
	if err != nil {
		t.Fatal(err)
	}
	if names := slices.Sorted(maps.Keys(got)); len(names) != 2 || string(got["connection.json"]) != files["connection.json"] {
		t.Error(names)
	}
	c, err := p.Connection(nil)
	if err != nil || c.Address != "a:1" || c.DialTimeout != 3*time.Second {
		t.Error(c, err)
	}
	p, err = contractpackage.Read(pack(t, map[string]string{"main.go": "package main"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Connection(nil); !errors.Is(err, contractpackage.ErrNoConnection) {
		t.Error(err)
	}
}

// archive makes a tar.gz of entries that our own writer refuses to make.
func archive(t testing.TB, headers ...tar.Header) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, h := range headers {
		content := []byte(h.Linkname)
		if h.Typeflag == tar.TypeReg {
			h.Size, h.Linkname = int64(len(content)), ""
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			w.Write(content)
		}
	}
	w.Close()
	z.Close()
	return out.Bytes()
}

func file(name, content string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Linkname: content, Mode: 0o644}
}

func TestBadPackages(t *testing.T) {
	good := `{"type":"ccaas","label":"a"}`
	for want, raw := range map[string][]byte{
		"error reading as gzip stream":       []byte("nothing"),
		"did not find a code package":        archive(t, file("metadata.json", good)),
		"did not find any package metadata":  archive(t, file("code.tar.gz", "x")),
		"could not unmarshal metadata.json":  archive(t, file("metadata.json", "{"), file("code.tar.gz", "x")),
		"invalid label '../a'":               archive(t, file("metadata.json", `{"type":"ccaas","label":"../a"}`), file("code.tar.gz", "x")),
		"holds metadata.json twice":          archive(t, file("metadata.json", good), file("metadata.json", good)),
		"is not a regular file":              archive(t, tar.Header{Typeflag: tar.TypeSymlink, Name: "metadata.json", Linkname: "/etc/passwd"}),
		"more than the 65536":                archive(t, file("metadata.json", strings.Repeat(" ", 70_000))),
		"error inspecting next tar header":   pack(t, nil)[:40],
		"archive unpacks to more than 10485": bomb(t),
	} {
		if _, err := contractpackage.Read(raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	// Fabric reads past what it does not know.
	if _, err := contractpackage.Read(archive(t, file("README", "x"), file("metadata.json", good), file("code.tar.gz", "x"))); err != nil {
		t.Error(err)
	}
	for want, entry := range map[string]tar.Header{
		`escaping path '../evil'`:      file("../evil", "x"),
		`escaping path 'a/../../evil'`: file("a/../../evil", "x"),
		`escaping path '/etc/passwd'`:  file("/etc/passwd", "x"),
		`escaping path 'a\b'`:          file(`a\b`, "x"),
		"invalid file type '49'":       {Typeflag: tar.TypeLink, Name: "a", Linkname: "b"},
	} {
		p, err := contractpackage.Read(archive(t, file("metadata.json", good), file("code.tar.gz", string(archive(t, entry)))))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Files(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := contractpackage.WriteCode(map[string][]byte{"../evil": nil}); err == nil {
		t.Error("wrote a name that leaves the package")
	}
	if _, err := contractpackage.Write(contractpackage.Metadata{Type: "ccaas", Label: ".a"}, nil); err == nil {
		t.Error("wrote a bad label")
	}
	if _, err := contractpackage.Write(contractpackage.Metadata{Label: "a"}, nil); err == nil {
		t.Error("wrote no type")
	}
}

// bomb is small, and an unknown entry that would be read past.
func bomb(t testing.TB) []byte {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	const size = 200 << 20
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Size: size}); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range size / len(zeros) {
		w.Write(zeros)
	}
	w.Close()
	z.Close()
	return out.Bytes()
}

func TestConnection(t *testing.T) {
	config := map[string]any{"peername": "org1peer", "ports": map[string]any{"basic": 9999}}
	c, err := contractpackage.ParseConnection([]byte(`{"address":"{{.peername}}_basic:{{.ports.basic}}","dial_timeout":"10s","tls_required":true,
		"client_auth_required":true,"root_cert":"{{if .peername}}R{{end}}","client_key":"K","client_cert":"C"}`), config)
	want := contractpackage.Connection{
		Address: "org1peer_basic:9999", DialTimeout: 10 * time.Second, TLSRequired: true, RootCert: "R", ClientAuthRequired: true, ClientKey: "K", ClientCert: "C",
	}
	if err != nil || *c != want {
		t.Errorf("%+v, %v", c, err)
	}
	for raw, want := range map[string]string{
		`{"address":"{{.other}}:1"}`:                                                  "address field template",
		`{"address":"{{range 1000000000000}}{{end}}a:1"}`:                             "not supported",
		`{"address":"{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}:1"}`: "not supported",
		`{"address":""}`:                          "chaincode address not provided",
		`{"address":"here"}`:                      "is not host:port",
		`{"address":"a:1","dial_timeout":"soon"}`: "dial_timeout",
		`{"address":"a:1","dial_timeout":"-1s"}`:  "dial_timeout",
		`{"address":"a:1","tls_required":true}`:   "root_cert",
		`{"address":"a:1","tls_required":true,"root_cert":"R","client_auth_required":true}`:  "client_key",
		`{"address":"a:1","tls_required":true,"client_auth_required":true,"client_key":"K"}`: "client_cert",
		`[`: "connection.json",
	} {
		if _, err := contractpackage.ParseConnection([]byte(raw), config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", raw, err)
		}
	}
	if config, err := contractpackage.ParseConfig(""); config != nil || err != nil {
		t.Error(config, err)
	}
	if _, err := contractpackage.ParseConfig("[]"); err == nil {
		t.Error("accepted a list")
	}
	if c, err := contractpackage.ParseConnection([]byte(`{"address":"a:1","dial_timeout":5000000000}`), nil); err != nil || c.DialTimeout != 5*time.Second {
		t.Error(c, err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(pack(f, map[string]string{"connection.json": `{"address":"{{.a}}:1"}`}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := contractpackage.Read(raw)
		if err != nil {
			return
		}
		if _, err := p.Files(); err == nil {
			_, _ = p.Connection(map[string]any{"a": "b"})
		}
	})
}

func FuzzParseConnection(f *testing.F) {
	f.Add([]byte(`{"address":"{{.a}}:1","dial_timeout":"1s"}`))
	f.Add([]byte(`{"address":"{{with .a}}{{.}}{{end}}:1","dial_timeout":1e9}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := contractpackage.ParseConnection(raw, map[string]any{"a": "b"})
		if err == nil && (c.Address == "" || c.DialTimeout <= 0) {
			t.Errorf("%+v", c)
		}
	})
}
