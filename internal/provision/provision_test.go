package provision_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/provision"
	"github.com/hansa-ledger/hansa/internal/provision/process"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

func plan(t *testing.T, dir string, o provision.Options) *provision.Network {
	t.Helper()
	n, err := provision.New(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestPlan(t *testing.T) {
	n := plan(t, t.TempDir(), provision.Options{Orderers: 2, Members: 2, Port: 7050})
	want := []string{
		"127.0.0.1:7050", "127.0.0.1:7051", "127.0.0.1:7052", "127.0.0.1:7060", "127.0.0.1:7061", "127.0.0.1:7062", // orderers
		"127.0.0.1:7080", "127.0.0.1:7082", "127.0.0.1:7070", "127.0.0.1:7071", "127.0.0.1:7072", // org1: CA, peer
		"127.0.0.1:7100", "127.0.0.1:7102", "127.0.0.1:7090", "127.0.0.1:7091", "127.0.0.1:7092", // org2
	}
	if got := n.Addresses(); !slices.Equal(got, want) {
		t.Errorf("addresses\n%v, want\n%v", got, want)
	}
	if n.Channel != "business" || n.Members[1].MSPID != "Org2MSP" || n.Members[1].Domain != "org2.example.com" {
		t.Errorf("%+v", n)
	}
	for _, name := range []string{"org2", "Org2MSP"} {
		if m, err := n.Member(name); err != nil || m.Name != "org2" {
			t.Errorf("member %s: %v, %v", name, m.Name, err)
		}
	}
	if _, err := n.Member("org9"); err == nil || !strings.Contains(err.Error(), "org1, org2") {
		t.Errorf("%v, want the members that there are", err)
	}
}

// A network that is stopped finds its ports free when it starts again: others that take any free ports do not take them.
func TestFreePortsAreOneNetworksAlone(t *testing.T) {
	seen := map[string]string{}
	for range 5 {
		dir := t.TempDir()
		for _, a := range plan(t, dir, provision.Options{Orderers: 3, Members: 8}).Addresses() {
			if seen[a] != "" {
				t.Errorf("%s has the address %s of %s", dir, a, seen[a])
			}
			seen[a] = dir
		}
	}
}

func TestPlansThatCannotBe(t *testing.T) {
	for want, o := range map[string]provision.Options{
		"--orderers 0":   {Members: 2},
		"--orderers 8":   {Members: 2, Orderers: 8},
		"--members 0":    {Orderers: 1},
		"--members 17":   {Orderers: 1, Members: 17},
		"--port 65500":   {Orderers: 1, Members: 2, Port: 65500},
		"--port -1":      {Orderers: 1, Members: 2, Port: -1},
		`"Business One"`: {Orderers: 1, Members: 2, Channel: "Business One"},
	} {
		if _, err := provision.New(t.TempDir(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error about %s", err, want)
		}
	}
}

// made is a network's folder with everything but running nodes.
func made(t *testing.T, o provision.Options) *provision.Network {
	t.Helper()
	n := plan(t, t.TempDir(), o)
	if err := n.Make(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestMake(t *testing.T) {
	n := made(t, provision.Options{Orderers: 1, Members: 2, Port: 7050})

	t.Run("loads as it was made", func(t *testing.T) {
		again, err := provision.Load(n.Dir())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(again, n) {
			t.Errorf("got %+v, want %+v", again, n)
		}
	})
	t.Run("genesis block", func(t *testing.T) {
		raw, err := os.ReadFile(n.Genesis())
		if err != nil {
			t.Fatal(err)
		}
		b := &commonpb.Block{}
		if err := proto.Unmarshal(raw, b); err != nil {
			t.Fatal(err)
		}
		bundle, err := channel.FromBlock(b, identity.NewVerifier(identity.Config{}))
		if err != nil {
			t.Fatal(err)
		}
		if bundle.ID() != "business" || len(bundle.ApplicationOrgs()) != 2 || len(bundle.OrdererEndpoints()) != 1 {
			t.Errorf("channel %s of %d members and %d orderers", bundle.ID(), len(bundle.ApplicationOrgs()), len(bundle.OrdererEndpoints()))
		}
		for _, org := range bundle.ApplicationOrgs() {
			if len(org.AnchorPeers) != 1 {
				t.Errorf("%s has %d anchor peers", org.Name, len(org.AnchorPeers))
			}
		}
		// Its users are who the channel takes them for.
		for _, m := range n.Members {
			for user, role := range map[string]string{"Admin": "Admins", "User1": "Writers"} {
				signer, err := identity.LoadSigner(n.UserMSP(m, user), m.MSPID)
				if err != nil {
					t.Fatal(err)
				}
				id, err := bundle.MSPs().Deserialize(signer.Serialize())
				if err != nil {
					t.Fatal(err)
				}
				policy, _ := bundle.Policy("/Channel/Application/" + m.Name + "/" + role)
				if err := policy.EvaluateIdentities([]*identity.Identity{id}); err != nil {
					t.Errorf("%s of %s is none of its %s: %v", user, m.Name, role, err)
				}
			}
		}
	})
	t.Run("connection profiles", func(t *testing.T) {
		for _, m := range n.Members {
			var asJSON, asYAML map[string]any
			for file, decode := range map[string]func([]byte) error{
				"connection.json": func(raw []byte) error { return json.Unmarshal(raw, &asJSON) },
				"connection.yaml": func(raw []byte) error { return yaml.Unmarshal(raw, &asYAML) },
			} {
				raw, err := os.ReadFile(filepath.Join(n.Dir(), "members", m.Name, file))
				if err == nil {
					err = decode(raw)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			peers, _ := asJSON["peers"].(map[string]any)
			if _, ok := peers["peer0."+m.Domain]; !ok {
				t.Errorf("the profile of %s names the peers %v", m.Name, peers)
			}
			if len(asJSON) != len(asYAML) {
				t.Errorf("the profiles of %s differ", m.Name)
			}
		}
	})
	t.Run("keys and secrets are the owner's", func(t *testing.T) {
		keys := 0
		err := filepath.WalkDir(n.Dir(), func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			base := e.Name()
			secret := base == "priv_sk" || strings.HasSuffix(base, ".key") || base == "ca.yaml"
			info, err := e.Info()
			if err != nil {
				return err
			}
			if secret {
				keys++
				if info.Mode().Perm() != 0o600 {
					t.Errorf("%s has mode %o", name, info.Mode().Perm())
				}
			}
			return nil
		})
		if err != nil || keys < 20 {
			t.Errorf("%d keys, %v", keys, err)
		}
	})
}

// What was interrupted while it was made is completed: the keys that exist stay.
func TestMakeAgain(t *testing.T) {
	n := made(t, provision.Options{Orderers: 1, Members: 1})
	key := filepath.Join(n.UserMSP(n.Members[0], "User1"), "keystore", "priv_sk")
	before, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(n.Dir(), "network.yaml")), os.Remove(n.Genesis())); err != nil {
		t.Fatal(err)
	}
	if err := n.Make(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(key)
	if err != nil || string(after) != string(before) {
		t.Errorf("the user's key was replaced (%v)", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := provision.Load(dir); !errors.Is(err, provision.ErrNoNetwork) || !strings.Contains(err.Error(), "hansa up --data "+dir) {
		t.Errorf("an empty folder: %v", err)
	}
	file := filepath.Join(dir, "network.yaml")
	if err := os.WriteFile(file, []byte("channel: a\norderer: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := provision.Load(dir); err == nil || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), "orderer") {
		t.Errorf("an unknown key: %v", err)
	}
}

func TestControlOfWhatDoesNotRun(t *testing.T) {
	control, err := provision.NewControl(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := control.Status(t.Context()); !errors.Is(err, provision.ErrNotRunning) || !strings.Contains(err.Error(), "hansa up") {
		t.Errorf("status: %v", err)
	}
	if err := control.Stop(t.Context()); !errors.Is(err, provision.ErrNotRunning) {
		t.Errorf("stop: %v", err)
	}
	if _, err := provision.NewControl(filepath.Join(t.TempDir(), strings.Repeat("long", 40))); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a folder whose path is too long for a socket: %v", err)
	}
}

func up(t *testing.T, dir string, o provision.Options, binary string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return provision.Up(ctx, dir, o, binary, slog.New(slog.DiscardHandler), func(*provision.Network) { t.Error("it serves") })
}

func TestUpRefuses(t *testing.T) {
	t.Run("a folder in use", func(t *testing.T) {
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, "lock"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			t.Fatal(err)
		}
		if err := up(t, dir, provision.Options{Orderers: 1, Members: 1}, "/bin/false"); err == nil || !strings.Contains(err.Error(), "running already") {
			t.Error(err)
		}
	})
	t.Run("a port in use", func(t *testing.T) {
		n := made(t, provision.Options{Orderers: 1, Members: 1})
		l, err := net.Listen("tcp", n.Members[0].Peers[0].Address())
		if err != nil {
			t.Skip("another program took the port: ", err)
		}
		defer l.Close()
		if err := up(t, n.Dir(), provision.Options{}, "/bin/false"); !errors.Is(err, process.ErrPortInUse) || !strings.Contains(err.Error(), n.Members[0].Peers[0].Address()) {
			t.Error(err)
		}
	})
	t.Run("nodes that do not start", func(t *testing.T) {
		dir := t.TempDir()
		if err := up(t, dir, provision.Options{Orderers: 1, Members: 1}, "/bin/false"); err == nil || !strings.Contains(err.Error(), "does not start") || !strings.Contains(err.Error(), "log") {
			t.Error(err)
		}
	})
}

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestKindOfContract(t *testing.T) {
	for want, files := range map[string]map[string]string{
		"go":   {"main.go": "package main"},
		"node": {"package.json": "{}", "tool.go": "package main"},
		"":     {"README.md": "nothing"},
	} {
		got, err := provision.Kind(folder(t, files))
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%v: %q, %v", files, got, err)
		}
	}
}

func TestBuildSaysWhatIsWrong(t *testing.T) {
	for want, files := range map[string]map[string]string{
		"undefined: x": {"go.mod": "module m\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() { x() }\n"},
		"Go library":   {"go.mod": "module m\n\ngo 1.26\n", "lib.go": "package lib\n"},
	} {
		_, err := provision.Build(t.Context(), folder(t, files), t.TempDir())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	command, err := provision.Build(t.Context(), folder(t, map[string]string{"go.mod": "module m\n\ngo 1.26\n", "main.go": "package main\n\nfunc main() {}\n"}), t.TempDir())
	if err != nil || len(command) != 1 {
		t.Errorf("%v, %v", command, err)
	}
}

// The package of a service depends on the code that it stands for, on nothing else of the folder, and on no clock.
func TestPackageService(t *testing.T) {
	source := folder(t, map[string]string{"main.go": "package main", "META-INF/statedb/couchdb/indexes/a.json": "{}", "node_modules/x/index.js": "1", ".git/HEAD": "1"})
	id, raw, err := provision.PackageService(source, "ship_1.0", "127.0.0.1:9999")
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := contractpackage.Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	files, err := pkg.Files()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"META-INF/statedb/couchdb/indexes/a.json", "connection.json", "source.sha256"}; !slices.Equal(names, want) || pkg.ID != id {
		t.Errorf("package %s holds %v, want %v", pkg.ID, names, want)
	}
	connection, err := pkg.Connection(nil)
	if err != nil || connection.Address != "127.0.0.1:9999" {
		t.Errorf("%+v, %v", connection, err)
	}
	ids := map[string]string{}
	for _, change := range []struct{ what, file, content string }{
		{"nothing", "", ""},
		{"what is installed", "node_modules/x/index.js", "2"},
		{"the code", "main.go", "package main // changed"},
	} {
		if change.file != "" {
			if err := os.WriteFile(filepath.Join(source, change.file), []byte(change.content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if ids[change.what], _, err = provision.PackageService(source, "ship_1.0", "127.0.0.1:9999"); err != nil {
			t.Fatal(err)
		}
	}
	if ids["nothing"] != id || ids["what is installed"] != id || ids["the code"] == id {
		t.Error(fmt.Sprint(id, ids))
	}
}
