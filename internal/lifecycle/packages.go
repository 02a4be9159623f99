package lifecycle

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/contractpackage"
)

// Packages are the contract packages that are installed on this peer: files label.hash.tar.gz in one folder, as
// Fabric keeps them. Installed packages survive a crash: a file appears under its name complete and synced, or not
// at all. It may be used from several goroutines.
type Packages struct {
	dir string

	installing sync.Mutex // held for the length of an install, which may take long; taken before mu

	mu sync.RWMutex // guards what follows
	// ids are the installed packages by the hash under which approvals name them.
	ids map[[sha256.Size]byte]string
}

var packageFile = regexp.MustCompile(`^(.+)[.]([0-9a-f]{64})[.]tar[.]gz$`)

// OpenPackages opens the folder, which is made if it is missing.
func OpenPackages(dir string) (*Packages, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("open contract packages: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open contract packages: %w", err)
	}
	p := &Packages{dir: dir, ids: map[[sha256.Size]byte]string{}}
	for _, e := range entries {
		if m := packageFile.FindStringSubmatch(e.Name()); m != nil && e.Type().IsRegular() {
			id := m[1] + ":" + m[2]
			p.ids[sourceHash(id)] = id
		}
	}
	return p, nil
}

// sourceHash is the hash of the value by which an organisation's approval names a package.
func sourceHash(id string) [sha256.Size]byte {
	raw, _ := proto.Marshal(packageData(id)) // fails on invalid UTF-8 only: no approval can name such a package
	return sha256.Sum256(raw)
}

func (p *Packages) path(id string) string {
	return filepath.Join(p.dir, strings.Replace(id, ":", ".", 1)+".tar.gz")
}

// List gives the ids of the installed packages, sorted.
func (p *Packages) List() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	ids := make([]string, 0, len(p.ids))
	for _, id := range p.ids {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// byHash finds an installed package by the hash in an approval.
func (p *Packages) byHash(hash []byte) (string, bool) {
	if len(hash) != sha256.Size {
		return "", false
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	id, ok := p.ids[[sha256.Size]byte(hash)]
	return id, ok
}

// Has tells whether a package is installed.
func (p *Packages) Has(id string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.ids[sourceHash(id)] == id
}

// Load gives the bytes of an installed package.
func (p *Packages) Load(id string) ([]byte, error) {
	if !p.Has(id) { // also keeps ids that are no ids from becoming paths
		return nil, fmt.Errorf("chaincode install package '%s' not found", id)
	}
	raw, err := os.ReadFile(p.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("chaincode install package '%s' not found", id)
	}
	return raw, err
}

// Install checks a package, prepares it and keeps it. prepare may be nil; if it fails nothing is kept.
func (p *Packages) Install(raw []byte, prepare func(*contractpackage.Package) error) (*contractpackage.Package, error) {
	pkg, err := contractpackage.Read(raw)
	if err != nil {
		return nil, fmt.Errorf("could not parse as a chaincode install package: %w", err)
	}
	p.installing.Lock()
	defer p.installing.Unlock()
	if p.Has(pkg.ID) {
		return nil, fmt.Errorf("chaincode already successfully installed (package ID '%s')", pkg.ID)
	}
	if prepare != nil {
		if err := prepare(pkg); err != nil {
			return nil, fmt.Errorf("could not build chaincode: %w", err)
		}
	}
	if err := p.save(pkg.ID, raw); err != nil {
		return nil, fmt.Errorf("could not save cc install package: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ids[sourceHash(pkg.ID)] = pkg.ID
	return pkg, nil
}

func (p *Packages) save(id string, raw []byte) (err error) {
	f, err := os.CreateTemp(p.dir, ".ccpackage.")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), p.path(id))
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(p.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
