// Package builder builds and runs contracts with the operator's own programs, by the rules of Fabric's external builders: a folder with
// bin/detect, bin/build and, where they are wanted, bin/release and bin/run, which get Fabric's arguments, folders and
// chaincode.json, so builders that were written for Fabric's peer work unchanged.
//
// What it guarantees: the first builder whose detect agrees builds the package, and its name is kept with the result; a build is there
// whole or not at all, also after a crash, and is made once; every program ends, by itself, at its time limit, or with the process that
// it belongs to, together with what it started; programs see of the environment only what Fabric hands on; what they print is
// logged, line by line.
//
// What it leaves out: it does not know which packages are installed nor which contract is called; who speaks with the contract's
// process is the contract host. It makes no containers: a package that no builder wants is ErrUnclaimed.
//
// Files: builder.go (this: builders and builds), process.go (programs that run).
package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
)

// ErrUnclaimed is returned for a package that no builder wants.
var ErrUnclaimed = errors.New("no external builder claims the package")

const (
	defaultTimeout = 5 * time.Minute
	infoFile       = "build-info.json"
	scratchPrefix  = ".building-"
	maxConnection  = 1 << 20
)

// propagated are the variables that every program gets.
var propagated = [...]string{"LD_LIBRARY_PATH", "LIBPATH", "PATH", "TMPDIR"}

// Builder is one entry of chaincode.externalBuilders.
type Builder struct {
	Name string `yaml:"name"` // kept with what it builds
	Path string `yaml:"path"` // the folder that holds bin
	// Environment names the variables that its programs get beyond LD_LIBRARY_PATH, LIBPATH, PATH and TMPDIR.
	Environment []string `yaml:"propagateEnvironment"`
}

// program is the path of one of the builder's programs, and whether it is there.
func (b *Builder) program(name string) (string, bool) {
	path := filepath.Join(b.Path, "bin", name)
	_, err := exec.LookPath(path)
	return path, err == nil
}

// Complete tells whether the builder has the programs that every builder has.
func (b *Builder) Complete() bool {
	_, detects := b.program("detect")
	_, builds := b.program("build")
	return detects && builds
}

// Credentials are those of one run of a contract, all PEM.
type Credentials struct {
	ClientCert, ClientKey []byte
	RootCert              []byte // of the authority that signed the certificate of the peer's contract port
}

// Config is the manual of Builders.
type Config struct {
	// Builders are asked in this order. Required.
	Builders []Builder
	// Dir keeps the builds, one folder for each. Required.
	Dir string
	// Timeout ends detect, build and release. 5 min unless set.
	Timeout time.Duration
	// MSPID and PeerAddress tell contracts whose peer they serve and where to register.
	MSPID, PeerAddress string
	// Credentials are made for each run. Nil: the contract port has no TLS.
	Credentials func(packageID string) (*Credentials, error)
	// Environ is the environment from which programs get their part.
	Environ []string
	// Log receives what the programs print. Nil discards it.
	Log *slog.Logger
}

// Builders is safe for concurrent use.
type Builders struct {
	cfg Config
	mu  sync.Mutex // one build at a time
}

// Open makes the folder of builds and clears it of what was not finished.
func Open(cfg Config) (*Builders, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var err error
	// Programs may change their folder before they use what they are given.
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder of builds: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(cfg.Dir, scratchPrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("remove an unfinished build: %w", err)
		}
	}
	return &Builders{cfg: cfg}, nil
}

// Build is a package that was built.
type Build struct {
	PackageID string
	Builder   string
	dir       string
	builders  *Builders
	by        *Builder
}

type buildInfo struct {
	BuilderName string `json:"builder_name"`
}

// Fabric leaves out of the name what a file system may not like.
var unfit = regexp.MustCompile(`[<>:"/\\|?*&]`)

func (b *Builders) folder(packageID string) string {
	return filepath.Join(b.cfg.Dir, unfit.ReplaceAllString(packageID, "-"))
}

// Find gives the build of a package that was built before, or nil.
func (b *Builders) Find(packageID string) (*Build, error) {
	dir := b.folder(packageID)
	raw, err := os.ReadFile(filepath.Join(dir, infoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var info buildInfo
	if err := json.Unmarshal(raw, &info); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, infoFile), err)
	}
	for i := range b.cfg.Builders {
		if by := &b.cfg.Builders[i]; by.Name == info.BuilderName {
			return &Build{PackageID: packageID, Builder: by.Name, dir: dir, builders: b, by: by}, nil
		}
	}
	return nil, fmt.Errorf("chaincode '%s' was already built with builder '%s', but that builder is no longer available", packageID, info.BuilderName)
}

// Adopt copies a build that Fabric's peer made, if there is one in its folder of builds and none here.
func (b *Builders) Adopt(packageID, from string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	from = filepath.Join(from, unfit.ReplaceAllString(packageID, "-"))
	if _, err := os.Stat(filepath.Join(from, infoFile)); err != nil {
		return nil
	}
	if _, err := os.Stat(b.folder(packageID)); err == nil {
		return nil
	}
	scratch, err := os.MkdirTemp(b.cfg.Dir, scratchPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	made := filepath.Join(scratch, "made")
	if err := os.CopyFS(made, os.DirFS(from)); err != nil {
		return fmt.Errorf("copy the build of %s: %w", packageID, err)
	}
	return b.keep(made, packageID)
}

// keep makes a finished build the package's.
func (b *Builders) keep(made, packageID string) error {
	// One flush of everything is quicker than one of each of a package manager's thousands of files.
	syscall.Sync()
	if err := os.Rename(made, b.folder(packageID)); err != nil {
		return err
	}
	return snapshotfile.SyncDir(vfs.Default, b.cfg.Dir)
}

// Build gives the build of a package, and makes it if there is none.
func (b *Builders) Build(ctx context.Context, p *contractpackage.Package) (*Build, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if found, err := b.Find(p.ID); found != nil || err != nil {
		return found, err
	}
	scratch, err := os.MkdirTemp(b.cfg.Dir, scratchPrefix)
	if err != nil {
		return nil, fmt.Errorf("could not create build context: %w", err)
	}
	defer os.RemoveAll(scratch)
	source, metadata := filepath.Join(scratch, "src"), filepath.Join(scratch, "metadata")
	made := filepath.Join(scratch, "made")
	bld, release := filepath.Join(made, "bld"), filepath.Join(made, "release")
	for _, dir := range []string{source, metadata, made, bld, release} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if err := p.Unpack(source); err != nil {
		return nil, fmt.Errorf("could not create build context: %w", err)
	}
	if err := os.WriteFile(filepath.Join(metadata, "metadata.json"), p.RawMetadata, 0o600); err != nil {
		return nil, err
	}
	by := b.detect(ctx, p.ID, source, metadata)
	if by == nil {
		if ctx.Err() != nil { // no builder had its say
			return nil, context.Cause(ctx)
		}
		return nil, ErrUnclaimed
	}
	if err := b.finish(ctx, by, "build", p.ID, source, metadata, bld); err != nil {
		return nil, fmt.Errorf("external builder failed: external builder failed to build: external builder '%s' failed: %w", by.Name, err)
	}
	if _, releases := by.program("release"); releases {
		if err := b.finish(ctx, by, "release", p.ID, bld, release); err != nil {
			return nil, fmt.Errorf("external builder failed: external builder failed to release: builder '%s' release failed: %w", by.Name, err)
		}
	}
	info, err := json.Marshal(buildInfo{by.Name})
	if err == nil {
		err = os.WriteFile(filepath.Join(made, infoFile), info, 0o600)
	}
	if err == nil {
		err = b.keep(made, p.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("could not persist build output: %w", err)
	}
	b.cfg.Log.Info("contract was built", "package", p.ID, "builder", by.Name)
	return b.Find(p.ID)
}

func (b *Builders) detect(ctx context.Context, packageID, source, metadata string) *Builder {
	for i := range b.cfg.Builders {
		by := &b.cfg.Builders[i]
		err := b.finish(ctx, by, "detect", packageID, source, metadata)
		if err == nil {
			return by
		}
		b.cfg.Log.Debug("builder does not want the package", "builder", by.Name, "package", packageID, "reason", err)
	}
	return nil
}

// finish runs a program to its end.
func (b *Builders) finish(ctx context.Context, by *Builder, name, packageID string, args ...string) error {
	p, err := b.start(by, name, packageID, args)
	if err != nil {
		return err
	}
	timer := time.NewTimer(b.cfg.Timeout)
	defer timer.Stop()
	select {
	case <-p.Done():
		return p.Err()
	case <-timer.C:
		p.Stop()
		return fmt.Errorf("%s did not end within %s", name, b.cfg.Timeout)
	case <-ctx.Done():
		p.Stop()
		return context.Cause(ctx)
	}
}

func (b *Builders) environment(by *Builder) (environ []string) {
	for _, name := range append(slices.Clone(by.Environment), propagated[:]...) {
		for _, entry := range slices.Backward(b.cfg.Environ) {
			if strings.HasPrefix(entry, name+"=") {
				environ = append(environ, entry)
				break
			}
		}
	}
	if environ == nil {
		environ = []string{} // nil would be all of ours
	}
	return environ
}

// Connection is where the contract is served, as the builder released it; contractpackage.ErrNoConnection where the builder runs it.
func (b *Build) Connection() (*contractpackage.Connection, error) {
	name := filepath.Join(b.dir, "release", "chaincode", "server", "connection.json")
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, contractpackage.ErrNoConnection
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxConnection {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, info.Size(), maxConnection)
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	c, err := contractpackage.ParseConnection(raw, nil)
	if err != nil {
		return nil, fmt.Errorf("builder '%s' released: %w", b.Builder, err)
	}
	return c, nil
}

// Indexes are the definitions of indexes that the builder released.
func (b *Build) Indexes() ([]contractpackage.Index, error) {
	return contractpackage.IndexesIn(os.DirFS(filepath.Join(b.dir, "release")))
}

// runConfig is chaincode.json.
type runConfig struct {
	PackageID   string `json:"chaincode_id"`
	PeerAddress string `json:"peer_address"`
	ClientCert  string `json:"client_cert"`
	ClientKey   string `json:"client_key"`
	RootCert    string `json:"root_cert"`
	MSPID       string `json:"mspid"`
}

// Run starts the contract, which is to register at the peer. Stop it.
func (b *Build) Run() (*Process, error) {
	cfg := &b.builders.cfg
	if _, runs := b.by.program("run"); !runs {
		return nil, fmt.Errorf("builder '%s' run failed to start: it has no bin/run, and released no chaincode/server/connection.json", b.Builder)
	}
	rc := runConfig{PackageID: b.PackageID, PeerAddress: cfg.PeerAddress, MSPID: cfg.MSPID}
	if cfg.Credentials != nil {
		c, err := cfg.Credentials(b.PackageID)
		if err != nil {
			return nil, fmt.Errorf("certificate for %s: %w", b.PackageID, err)
		}
		rc.ClientCert, rc.ClientKey, rc.RootCert = string(c.ClientCert), string(c.ClientKey), string(c.RootCert)
	}
	raw, err := json.Marshal(rc)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(cfg.Dir, scratchPrefix)
	if err != nil {
		return nil, fmt.Errorf("could not create run dir: %w", err)
	}
	if err = os.WriteFile(filepath.Join(dir, "chaincode.json"), raw, 0o600); err == nil {
		var p *Process
		if p, err = b.builders.start(b.by, "run", b.PackageID, []string{filepath.Join(b.dir, "bld"), dir}, func() { os.RemoveAll(dir) }); err == nil {
			return p, nil
		}
	}
	os.RemoveAll(dir)
	return nil, fmt.Errorf("builder '%s' run failed to start: %w", b.Builder, err)
}
