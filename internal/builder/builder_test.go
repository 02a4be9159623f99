package builder_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/builder"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// programs makes a builder of shell scripts.
func programs(t *testing.T, name string, scripts map[string]string) builder.Builder {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "bin"), 0o700))
	for program, script := range scripts {
		must(t, os.WriteFile(filepath.Join(dir, "bin", program), []byte("#!/bin/sh\nset -eu\n"+script), 0o700))
	}
	return builder.Builder{Name: name, Path: dir}
}

func packageOf(t *testing.T, kind string, files map[string]string) *contractpackage.Package {
	t.Helper()
	content := map[string][]byte{}
	for name, text := range files {
		content[name] = []byte(text)
	}
	code, err := contractpackage.WriteCode(content)
	must(t, err)
	raw, err := contractpackage.Write(contractpackage.Metadata{Type: kind, Label: "asset_1.0"}, code)
	must(t, err)
	p, err := contractpackage.Read(raw)
	must(t, err)
	return p
}

// record is a log that tests read.
type record struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

func open(t *testing.T, dir string, log *record, list ...builder.Builder) *builder.Builders {
	t.Helper()
	b, err := builder.Open(builder.Config{Builders: list, Dir: dir, MSPID: "Org1MSP", PeerAddress: "127.0.0.1:7052", Timeout: 20 * time.Second,
		Environ: []string{"PATH=" + os.Getenv("PATH"), "SECRET=s", "COLOUR=red"},
		Credentials: func(id string) (*builder.Credentials, error) {
			return &builder.Credentials{ClientCert: []byte("cert of " + id), ClientKey: []byte("key"), RootCert: []byte("root")}, nil
		},
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	must(t, err)
	return b
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

// nothingLeft checks that only finished builds are in the folder.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

// A package goes through the programs of the builder that wants it, with Fabric's arguments, folders and environment.
func TestBuildAndRun(t *testing.T) {
	out, dir, log := t.TempDir(), t.TempDir(), &record{}
	none := programs(t, "none", map[string]string{"detect": "exit 1", "build": "exit 0"})
	own := programs(t, "own", map[string]string{
		"detect":  `[ $# = 2 ]; grep -q '"type":"own"' "$2/metadata.json"`,
		"build":   `[ $# = 3 ]; cp "$1/src/main.sh" "$3/contract"; cp -r "$1/META-INF" "$3"; env > ` + out + `/environ; echo built; echo errors >&2`,
		"release": `[ $# = 2 ]; cp -r "$1"/META-INF/* "$2"`,
		"run":     `[ $# = 2 ]; cp "$2/chaincode.json" ` + out + `; echo $$ > ` + out + `/pid; exec sh "$1/contract"`,
	})
	own.Environment = []string{"COLOUR", "ABSENT"}
	b := open(t, dir, log, none, own)
	p := packageOf(t, "own", map[string]string{"src/main.sh": "echo ready; exec sleep 600", "META-INF/statedb/couchdb/indexes/owner.json": "{}",
		"META-INF/statedb/couchdb/collections/secret/indexes/x.json": "{}", "META-INF/statedb/other.json": "{}"})
	build, err := b.Build(t.Context(), p)
	must(t, err)
	if build.Builder != "own" {
		t.Errorf("built by %s", build.Builder)
	}
	if _, err := build.Connection(); !errors.Is(err, contractpackage.ErrNoConnection) {
		t.Errorf("%v, want no connection", err)
	}
	indexes, err := build.Indexes()
	must(t, err)
	if len(indexes) != 2 || indexes[0].Collection != "secret" || indexes[1].File != "META-INF/statedb/couchdb/indexes/owner.json" {
		t.Errorf("%+v", indexes)
	}
	environ, err := os.ReadFile(filepath.Join(out, "environ"))
	must(t, err)
	if text := string(environ); !strings.Contains(text, "COLOUR=red") || !strings.Contains(text, "PATH=") || strings.Contains(text, "SECRET") || strings.Contains(text, "HOME") {
		t.Errorf("environment of build:\n%s", text)
	}
	for _, want := range []string{"output=built", "output=errors", "command=build"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	nothingLeft(t, dir)

	process, err := build.Run()
	must(t, err)
	await(t, "the contract's output", func() bool { return strings.Contains(log.String(), "output=ready") })
	var config map[string]string
	raw, err := os.ReadFile(filepath.Join(out, "chaincode.json"))
	must(t, err)
	must(t, json.Unmarshal(raw, &config))
	want := map[string]string{"chaincode_id": p.ID, "peer_address": "127.0.0.1:7052", "mspid": "Org1MSP",
		"client_cert": "cert of " + p.ID, "client_key": "key", "root_cert": "root"}
	if fmt.Sprint(config) != fmt.Sprint(want) {
		t.Errorf("chaincode.json: %v", config)
	}
	process.Stop()
	if err := process.Exit(); !strings.Contains(err.Error(), "container exited with -1 (signal: terminated)") {
		t.Error(err)
	}
	nothingLeft(t, dir)

	// Made once: another process finds it, without asking the builders.
	must(t, os.Remove(filepath.Join(own.Path, "bin/detect")))
	again, err := open(t, dir, log, none, own).Build(t.Context(), p)
	must(t, err)
	if again.Builder != "own" {
		t.Error(again.Builder)
	}
	if _, err := open(t, dir, log, none).Build(t.Context(), p); err == nil || !strings.Contains(err.Error(), "builder 'own', but that builder is no longer available") {
		t.Error(err)
	}
}

// A builder may say where the contract is served instead of running it.
func TestConnection(t *testing.T) {
	b := open(t, t.TempDir(), &record{}, programs(t, "service", map[string]string{"detect": "", "build": `cp "$1/connection.json" "$3"`,
		"release": `mkdir -p "$2/chaincode/server"; cp "$1/connection.json" "$2/chaincode/server"`}))
	build, err := b.Build(t.Context(), packageOf(t, "x", map[string]string{"connection.json": `{"address":"127.0.0.1:9999","dial_timeout":"7s"}`}))
	must(t, err)
	if c, err := build.Connection(); err != nil || c.Address != "127.0.0.1:9999" || c.DialTimeout != 7*time.Second {
		t.Errorf("%v %v", c, err)
	}
	if _, err := build.Run(); err == nil || !strings.Contains(err.Error(), "no bin/run") {
		t.Error(err)
	}
}

// What goes wrong in a builder is said, and leaves nothing.
func TestBadBuilders(t *testing.T) {
	p := packageOf(t, "own", map[string]string{"src/main.sh": ""})
	for name, c := range map[string]struct {
		scripts map[string]string
		want    string
	}{
		"nobody wants it":     {map[string]string{"detect": "exit 3", "build": ""}, "no external builder claims"},
		"there is nothing":    {nil, "no external builder claims"},
		"detect is killed":    {map[string]string{"detect": "kill -9 $$", "build": ""}, "no external builder claims"},
		"build fails":         {map[string]string{"detect": "", "build": "exit 5"}, "external builder 'own' failed: exit status 5"},
		"build is missing":    {map[string]string{"detect": ""}, "external builder 'own' failed: fork/exec"},
		"build is killed":     {map[string]string{"detect": "", "build": "kill -9 $$"}, "signal: killed"},
		"release fails":       {map[string]string{"detect": "", "build": "", "release": "exit 6"}, "builder 'own' release failed: exit status 6"},
		"a bad release":       {map[string]string{"detect": "", "build": "", "release": `mkdir -p "$2/chaincode/server"; echo x > "$2/chaincode/server/connection.json"`}, "builder 'own' released"},
		"an endless release":  {map[string]string{"detect": "", "build": "", "release": `mkdir -p "$2/chaincode/server"; head -c 2000000 /dev/zero > "$2/chaincode/server/connection.json"`}, "more than"},
		"too large an index":  {map[string]string{"detect": "", "build": "", "release": `mkdir -p "$2/statedb/couchdb/indexes"; head -c 200000 /dev/zero > "$2/statedb/couchdb/indexes/a.json"`}, "a.json has 200000 bytes"},
		"no program at all":   {map[string]string{"detect": "", "build": "", "release": ""}, "no bin/run"},
		"a program that dies": {map[string]string{"detect": "", "build": "", "run": "exit 7"}, "container exited with 7"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			build, err := open(t, dir, &record{}, programs(t, "own", c.scripts)).Build(context.Background(), p)
			if err == nil {
				if _, err = build.Connection(); errors.Is(err, contractpackage.ErrNoConnection) {
					err = nil
				}
			}
			if err == nil {
				_, err = build.Indexes()
			}
			if err == nil {
				var process *builder.Process
				if process, err = build.Run(); err == nil {
					<-process.Done()
					err = process.Exit()
				}
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			nothingLeft(t, dir)
		})
	}
}

func alive(t *testing.T, pidFile string) bool {
	t.Helper()
	raw, err := os.ReadFile(pidFile)
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	must(t, err)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return syscall.Kill(pid, 0) == nil
	}
	return err == nil && !strings.Contains(string(stat), ") Z ") // a zombie waits for init only
}

// A builder that hangs is ended at the time limit, with what it started; so is a contract that does not listen.
func TestHanging(t *testing.T) {
	out, dir := t.TempDir(), t.TempDir()
	child := filepath.Join(out, "child")
	hang := `trap "" TERM; sleep 600 & echo $! > ` + child + `; wait`
	list := []builder.Builder{programs(t, "hangs", map[string]string{"detect": "", "build": hang})}
	b, err := builder.Open(builder.Config{Builders: list, Dir: dir, Timeout: 300 * time.Millisecond, Environ: os.Environ()})
	must(t, err)
	_, err = b.Build(t.Context(), packageOf(t, "own", nil))
	if err == nil || !strings.Contains(err.Error(), "did not end within 300ms") {
		t.Error(err)
	}
	await(t, "the end of what the builder started", func() bool { return !alive(t, child) })
	nothingLeft(t, dir)

	// The one who asks may lose patience first; what left the process group does not keep the rest from ending.
	list[0] = programs(t, "patient", map[string]string{"detect": "", "build": "touch " + out + "/begun; sleep 600"})
	b, err = builder.Open(builder.Config{Builders: list, Dir: dir, Environ: os.Environ()})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for {
			if _, err := os.Stat(out + "/begun"); err == nil {
				cancel()
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	if _, err = b.Build(ctx, packageOf(t, "own", nil)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// Then nobody knows whether a builder wants the package.
	if _, err = b.Build(ctx, packageOf(t, "own", nil)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	nothingLeft(t, dir)
}

// A contract that ends takes with it what it started, also where that holds the output open.
func TestOrphans(t *testing.T) {
	out, dir := t.TempDir(), t.TempDir()
	child := filepath.Join(out, "child")
	b := open(t, dir, &record{}, programs(t, "own", map[string]string{"detect": "", "build": "", "run": "sleep 600 & echo $! > " + child + "; exit 0"}))
	build, err := b.Build(t.Context(), packageOf(t, "own", nil))
	must(t, err)
	process, err := build.Run()
	must(t, err)
	<-process.Done()
	if err := process.Exit(); err == nil || err.Error() != "container exited with 0" {
		t.Error(err)
	}
	await(t, "the end of the orphan", func() bool { return !alive(t, child) })
}

// What a crash left of builds and runs goes at the next start.
func TestUnfinished(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(dir, ".building-1", "made", "bld"), 0o700))
	open(t, dir, &record{})
	nothingLeft(t, dir)
	must(t, os.Mkdir(filepath.Join(dir, "asset_1.0-x"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "asset_1.0-x", "build-info.json"), []byte("{"), 0o600))
	if _, err := open(t, dir, &record{}).Find("asset_1.0:x"); err == nil || !strings.Contains(err.Error(), "build-info.json") {
		t.Error(err)
	}
}
