package node_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/hansa-ledger/hansa/internal/node"
)

var roles = []struct {
	name    string
	example string
	config  func() any
}{
	{"peer", node.PeerExample, func() any { return &node.PeerConfig{} }},
	{"orderer", node.OrdererExample, func() any { return &node.OrdererConfig{} }},
	{"ca", node.CAExample, func() any { return &node.CAConfig{} }},
}

func write(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// The examples are the manual: they decode, and they name every setting.
func TestExamplesNameEverySetting(t *testing.T) {
	for _, role := range roles {
		t.Run(role.name, func(t *testing.T) {
			config := role.config()
			if err := node.LoadConfig(write(t, role.example), role.name, nil, config); err != nil {
				t.Fatal(err)
			}
			var shown map[string]any
			if err := yaml.Unmarshal([]byte(role.example), &shown); err != nil {
				t.Fatal(err)
			}
			named(t, reflect.TypeOf(config).Elem(), shown, "")
		})
	}
}

// named checks that the example has a key for every field of a struct, and of
// the structs in its lists.
func named(t *testing.T, typ reflect.Type, shown map[string]any, prefix string) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		key := f.Tag.Get("yaml")
		value, ok := shown[key]
		if key == "" || !ok {
			t.Errorf("the example does not show %s%s", prefix, key)
			continue
		}
		switch {
		case f.Type.Kind() == reflect.Struct:
			inner, _ := value.(map[string]any)
			named(t, f.Type, inner, prefix+key+".")
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			list, _ := value.([]any)
			if len(list) == 0 { // no entry is a good default; then a comment shows one
				for i := range f.Type.Elem().NumField() {
					if inner := f.Type.Elem().Field(i).Tag.Get("yaml"); !strings.Contains(node.PeerExample, inner+": ") {
						t.Errorf("the example shows no %s%s[].%s", prefix, key, inner)
					}
				}
				continue
			}
			inner, _ := list[0].(map[string]any)
			named(t, f.Type.Elem(), inner, prefix+key+"[].")
		}
	}
}

func TestUnknownSettings(t *testing.T) {
	for _, role := range roles {
		err := node.LoadConfig(write(t, "listen: 0.0.0.0:1\nlisten2: 0.0.0.0:2\n"), role.name, nil, role.config())
		if err == nil || !strings.Contains(err.Error(), "listen2") || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v, want the unknown key and its line", role.name, err)
		}
		environ := []string{"HANSA_" + strings.ToUpper(role.name) + "_LISTEN2=0.0.0.0:2"}
		err = node.LoadConfig(write(t, ""), role.name, environ, role.config())
		if err == nil || !strings.Contains(err.Error(), "LISTEN2") {
			t.Errorf("%s: %v, want the unknown variable", role.name, err)
		}
	}
	err := node.LoadConfig(filepath.Join(t.TempDir(), "none.yaml"), "peer", nil, &node.PeerConfig{})
	if err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("no file: %v", err)
	}
}

func TestEnvironmentOverrides(t *testing.T) {
	var c node.PeerConfig
	file := write(t, "mspId: Org1MSP\ntls: {cert: a.crt, key: a.key}\nlimits: {endorser: 5, deliver: 7}\n")
	err := node.LoadConfig(file, "peer", []string{
		"HANSA_PEER_MSPID=Org2MSP",
		"HANSA_PEER_TLS_KEY=/secrets/tls.key",
		"HANSA_PEER_TLS_CLIENTROOTS=/roots/a.crt,b.crt",
		"HANSA_PEER_TLS_REQUIRECLIENTCERT=true",
		"HANSA_PEER_CHAINCODE_EXECUTETIMEOUT=2m",
		"HANSA_PEER_LIMITS_ENDORSER=9",
		"HANSA_PEER_LOG_LEVEL=debug",
		"HANSA_ORDERER_NOSUCH=belongs to another role",
		"PATH=/bin",
	}, &c)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	want := node.PeerConfig{
		MSPID: "Org2MSP",
		TLS: node.TLSConfig{Cert: filepath.Join(dir, "a.crt"), Key: "/secrets/tls.key",
			ClientRoots: []string{"/roots/a.crt", filepath.Join(dir, "b.crt")}, RequireClientCert: true},
		Chaincode: node.ChaincodeConfig{ExecuteTimeout: 2 * time.Minute},
		Limits:    node.PeerLimits{Endorser: 9, Deliver: 7},
		Log:       node.LogConfig{Level: slog.LevelDebug},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestOverridesThatCannotBe(t *testing.T) {
	for variable, want := range map[string]string{
		"HANSA_PEER_LIMITS_ENDORSER=many":         "whole number",
		"HANSA_PEER_TLS_REQUIRECLIENTCERT=maybe":  "true or false",
		"HANSA_PEER_CHAINCODE_EXECUTETIMEOUT=30":  "500ms or 2s",
		"HANSA_PEER_LOG_LEVEL=loud":               "loud",
		"HANSA_PEER_CHAINCODE_BUILDER=a=b":        "only be made in the file",
		"HANSA_PEER_OPERATIONS=127.0.0.1:9443":    "no such setting",
		"HANSA_PEER_OPERATIONS_LISTEN_PORT=12345": "no such setting",
	} {
		err := node.LoadConfig(write(t, ""), "peer", []string{variable}, &node.PeerConfig{})
		name, _, _ := strings.Cut(variable, "=")
		name = strings.TrimPrefix(name, "HANSA_PEER_")
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want the variable's name", variable, err)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", variable, err, want)
		}
	}
}

// A node says at once which setting it lacks.
func TestMissingSettings(t *testing.T) {
	level, log := new(slog.LevelVar), slog.New(slog.DiscardHandler)
	for name, err := range map[string]error{
		"mspId":   node.RunPeer(t.Context(), node.PeerConfig{}, level, log),
		"dataDir": node.RunOrderer(t.Context(), node.OrdererConfig{MSPID: "OrdererMSP", MSPDir: "msp"}, level, log),
		"listen":  node.RunCA(t.Context(), node.CAConfig{}, level, log),
	} {
		if err == nil || !strings.Contains(err.Error(), name+" is missing") || !strings.Contains(err.Error(), "--example") {
			t.Errorf("%v, want that %s is missing, and where to look", err, name)
		}
	}
}

func TestLogFormats(t *testing.T) {
	for format, want := range map[string]string{"": `"msg":"hello"`, "json": `"msg":"hello"`, "text": "msg=hello"} {
		var out strings.Builder
		level := new(slog.LevelVar)
		log, err := node.NewLogger(node.LogConfig{Format: format, Level: slog.LevelWarn}, level, &out)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("quiet")
		level.Set(slog.LevelInfo)
		log.Info("hello")
		if got := out.String(); !strings.Contains(got, want) || strings.Contains(got, "quiet") {
			t.Errorf("%q: %s", format, got)
		}
	}
	if _, err := node.NewLogger(node.LogConfig{Format: "xml"}, new(slog.LevelVar), nil); err == nil || !strings.Contains(err.Error(), "json or text") {
		t.Errorf("an unknown format: %v", err)
	}
}
