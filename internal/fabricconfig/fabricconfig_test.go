package fabricconfig_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/fabricconfig"
)

const file = "/cfg/core.yaml"

func parse(t *testing.T, text string, environ ...string) *fabricconfig.Settings {
	t.Helper()
	s, err := fabricconfig.Parse(fabricconfig.Core, file, []byte(text), environ)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestReading(t *testing.T) {
	s := parse(t, `
Peer:
  LOCALMSPID: Org1MSP
  mspConfigPath: msp
  id: 12
  tls:
    enabled: true
    cert: {file: /abs/server.crt}
    clientRootCAs: {files: [a.crt, /abs/b.crt]}
  limits: {concurrency: {endorserService: 7}}
  gateway: {dialTimeout: 2m}
chaincode:
  externalBuilders:
    - {name: ccaas_builder, path: /opt/ccaas}
`)
	for what, pair := range map[string][2]any{
		"text":          {s.String("peer.localMspId"), "Org1MSP"},
		"number":        {s.String("peer.id"), "12"},
		"relative path": {s.Path("peer.mspConfigPath"), "/cfg/msp"},
		"absolute path": {s.Path("peer.tls.cert.file"), "/abs/server.crt"},
		"truth":         {s.Bool("peer.tls.enabled"), true},
		"paths":         {s.Paths("peer.tls.clientRootCAs.files"), []string{"/cfg/a.crt", "/abs/b.crt"}},
		"int":           {s.Int("peer.limits.concurrency.endorserService"), 7},
		"duration":      {s.Duration("peer.gateway.dialTimeout"), 2 * time.Minute},
		"entries":       {s.Entries("chaincode.externalBuilders"), []map[string]any{{"name": "ccaas_builder", "path": "/opt/ccaas"}}},
		"missing":       {s.Has("peer.address"), false},
		"missing path":  {s.Path("peer.tls.key.file"), ""},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: %v, want %v", what, pair[0], pair[1])
		}
	}
	if err := s.Err(); err != nil || len(s.Notices()) > 0 {
		t.Errorf("%v %v, want no complaint", err, s.Notices())
	}
}

func TestEnvironment(t *testing.T) {
	s := parse(t, "peer: {id: a, listenAddress: b, tls: {enabled: false}}",
		"CORE_PEER_LISTENADDRESS=0.0.0.0:7051", "CORE_PEER_TLS_ENABLED=true", "CORE_PEER_ID=", "CORE_PEER_TLS_CERT_FILE=tls/server.crt",
		"CORE_PEER_TLS_CLIENTROOTCAS_FILES=[a.crt, \"b.crt\"]", "CORE_OPERATIONS_TLS_CLIENTROOTCAS_FILES=c.crt,d.crt e.crt",
		"CORE_CHAINCODE_EXTERNALBUILDERS=[{name: x, path: /x}]", "ORDERER_GENERAL_LISTENPORT=1", "core_peer_address=of nobody")
	for what, pair := range map[string][2]any{
		"override":      {s.String("peer.listenAddress"), "0.0.0.0:7051"},
		"truth":         {s.Bool("peer.tls.enabled"), true},
		"empty":         {s.String("peer.id"), "a"},
		"not in file":   {s.Path("peer.tls.cert.file"), "/cfg/tls/server.crt"},
		"brackets":      {s.List("peer.tls.clientRootCAs.files"), []string{"a.crt", "b.crt"}},
		"commas":        {s.List("operations.tls.clientRootCAs.files"), []string{"c.crt", "d.crt", "e.crt"}},
		"groups":        {s.Entries("chaincode.externalBuilders"), []map[string]any{{"name": "x", "path": "/x"}}},
		"in lower case": {s.Has("peer.address"), false},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: %v, want %v", what, pair[0], pair[1])
		}
	}
	if err := s.Err(); err != nil || len(s.Notices()) > 0 {
		t.Errorf("%v %v, want no complaint", err, s.Notices())
	}
}

// A value of a wrong type is an error that says which, where, and what is wanted.
func TestWrongTypes(t *testing.T) {
	for text, read := range map[string]func(*fabricconfig.Settings, string){
		"true or false":  func(s *fabricconfig.Settings, k string) { s.Bool(k) },
		"whole number":   func(s *fabricconfig.Settings, k string) { s.Int(k) },
		"with its unit":  func(s *fabricconfig.Settings, k string) { s.Duration(k) },
		"list of groups": func(s *fabricconfig.Settings, k string) { s.Entries(k) },
	} {
		s := parse(t, "peer: {address: -5 apples}")
		read(s, "peer.address")
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), text) || !strings.Contains(err.Error(), "peer.address") || !strings.Contains(err.Error(), file) {
			t.Errorf("%v, want %q, the setting and the file", err, text)
		}
		s = parse(t, "", "CORE_PEER_ADDRESS=apples")
		read(s, "peer.address")
		if err := s.Err(); err == nil || !strings.Contains(err.Error(), "CORE_PEER_ADDRESS") {
			t.Errorf("%v, want the variable", err)
		}
	}
	s := parse(t, "peer: {id: [1], address: [[a]], tls: {enabled: 5m}}")
	s.String("peer.id")
	s.List("peer.address")
	s.Duration("peer.tls.enabled")
	if err := s.Err(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("%v, want two errors", err)
	}
}

func TestNotices(t *testing.T) {
	s := parse(t, `
peer: {networkId: dev, id: , speed: fast, handlers: {authFilters: [{name: x}]}}
vm: {docker: {hostConfig: {Memory: 1, Dns: }}}
`, "CORE_PEER_COLOUR=red", "CORE_VM_ENDPOINT=unix:///x")
	s.Note(slog.LevelWarn, "peer.networkId", "said")
	s.Note(slog.LevelWarn, "peer.address", "missed")
	got := map[string]fabricconfig.Notice{}
	for _, n := range s.Notices() {
		got[n.Key] = n
	}
	none, unknown := "setting has no meaning here", "unknown setting"
	want := map[string]fabricconfig.Notice{
		"peer.networkId":              {Level: slog.LevelWarn, Key: "peer.networkId", Source: file, Text: "said"},
		"peer.address":                {Level: slog.LevelWarn, Key: "peer.address", Text: "missed"},
		"peer.speed":                  {Level: slog.LevelWarn, Key: "peer.speed", Source: file, Text: unknown},
		"peer.colour":                 {Level: slog.LevelWarn, Key: "peer.colour", Source: "environment variable CORE_PEER_COLOUR", Text: unknown},
		"peer.handlers.authFilters":   {Level: slog.LevelInfo, Key: "peer.handlers.authFilters", Source: file, Text: none},
		"vm.docker.hostConfig.Memory": {Level: slog.LevelInfo, Key: "vm.docker.hostConfig.Memory", Source: file, Text: none},
		"vm.endpoint":                 {Level: slog.LevelInfo, Key: "vm.endpoint", Source: "environment variable CORE_VM_ENDPOINT", Text: none},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestBadFiles(t *testing.T) {
	for text, want := range map[string]string{
		"peer: [":                      "core.yaml",
		"- a":                          "core.yaml",
		"peer: {id: a}\nPeer: {ID: b}": "same setting",
		strings.Repeat("{a: ", 40) + "1" + strings.Repeat("}", 40): "too deeply",
	} {
		if _, err := fabricconfig.Parse(fabricconfig.Core, file, []byte(text), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	environ := []string{"FABRIC_CFG_PATH=" + dir}
	if _, err := fabricconfig.Load(fabricconfig.Orderer, environ, ""); err == nil || !strings.Contains(err.Error(), "orderer.yaml") || !strings.Contains(err.Error(), "FABRIC_CFG_PATH") {
		t.Errorf("%v, want the file and the variable", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "orderer.yml"), []byte("General: {LocalMSPDir: msp}"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := fabricconfig.Load(fabricconfig.Orderer, environ, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Path("General.LocalMSPDir"); got != filepath.Join(dir, "msp") {
		t.Errorf("%s, want it in the file's folder", got)
	}
}

// The files that come with Fabric hold no setting that is unknown here, where they are at hand.
func TestFabricsOwnFiles(t *testing.T) {
	dir := os.Getenv("HANSA_FABRIC_CFG")
	if dir == "" {
		t.Skip("HANSA_FABRIC_CFG does not name the folder of Fabric's sample configuration")
	}
	for _, kind := range []string{fabricconfig.Core, fabricconfig.Orderer} {
		s, err := fabricconfig.Load(kind, []string{"FABRIC_CFG_PATH=" + dir}, "")
		if err != nil {
			t.Fatal(err)
		}
		notices := s.Notices()
		if len(notices) < 20 {
			t.Errorf("%s: %d settings, want more", kind, len(notices))
		}
		for _, n := range notices {
			if n.Level != slog.LevelInfo {
				t.Errorf("%s: %v", kind, n)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("peer: {id: a, tls: {clientRootCAs: {files: [a, b]}}}", "CORE_PEER_ID=[a,b]")
	f.Add("a: &a {b: c}\npeer: *a\n", "CORE__=1")
	f.Add("? [1]\n: x", "CORE_PEER_ADDRESS=1s")
	f.Fuzz(func(t *testing.T, text, variable string) {
		s, err := fabricconfig.Parse(fabricconfig.Core, file, []byte(text), []string{variable})
		if err != nil {
			return
		}
		s.Bool("peer.id")
		s.Int("peer.id")
		s.Duration("peer.address")
		s.Paths("peer.tls.clientRootCAs.files")
		s.Entries("chaincode.externalBuilders")
		s.Notices()
	})
}

// A container may have no file.
func TestWithoutFile(t *testing.T) {
	t.Chdir(t.TempDir())
	s, err := fabricconfig.Load(fabricconfig.Core, []string{"CORE_PEER_LISTENADDRESS=0.0.0.0:9051"}, "peer: {listenAddress: a, mspConfigPath: msp}")
	if err != nil {
		t.Skip(err) // this machine has a file where Fabric's images have it
	}
	if s.String("peer.listenAddress") != "0.0.0.0:9051" || s.Path("peer.mspConfigPath") != "/etc/hyperledger/fabric/msp" || s.Err() != nil {
		t.Errorf("%q %q %v", s.String("peer.listenAddress"), s.Path("peer.mspConfigPath"), s.Err())
	}
	if n := s.Notices(); len(n) != 1 || n[0].Level != slog.LevelWarn || n[0].Key != "core.yaml" {
		t.Errorf("%+v", n)
	}
}
