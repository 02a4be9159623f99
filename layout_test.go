package hansa_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors is the house that docs/architecture.md describes. A package imports
// lower floors only. Packages on one floor do not import each other, but on
// floors 0 and 1 left may be imported from the right. A subfolder is part of its
// parent's package family, which counts as one package here. What only tests
// import does not count.
var floors = [][]string{
	0: {"internal/wire", "internal/envelope", "internal/block", "internal/rwset", "internal/contractpackage", "internal/jsonquery"},
	1: {"internal/identity", "internal/policy", "internal/channel"},
	2: {"internal/blockstore", "internal/statedb", "internal/privatedb", "internal/snapshotfile", "internal/fabricledger"},
	3: {"internal/ledger", "internal/simulation"},
	4: {"internal/endorse", "internal/validate", "internal/order", "internal/deliver", "internal/discovery", "internal/lifecycle",
		"internal/contracthost", "internal/qscc", "internal/cscc", "internal/ca", "internal/builder", "internal/admin", "internal/snapshots"},
	5: {"internal/commit", "internal/gateway", "internal/provision", "internal/audit", "internal/bench", "internal/courier", "internal/gossip", "internal/fabricconfig", "internal/membership", "internal/reconfigure"},
	6: {"internal/node"},
	7: {"cmd/hansa"},
}

// public are the packages that other modules import, with the highest floor
// that they may import themselves. Packages from floor 4 up may import them.
var public = map[string]int{"contract": 0, "client": 0}

// outside are folders of programs and tests that are not part of the house:
// nothing may import them.
var outside = []string{"e2e", "examples"}

// drawers are names that say nothing about what a package holds.
var drawers = []string{"util", "utils", "common", "helper", "helpers", "base", "types", "models", "misc", "shared", "lib"}

// publicFrom is the lowest floor that may use the public packages.
const publicFrom = 4

const module = "github.com/hansa-ledger/hansa"

func TestFloors(t *testing.T) {
	for dir, files := range packages(t) {
		for _, f := range files {
			if strings.HasSuffix(f.name, "_test.go") {
				continue
			}
			for _, spec := range f.Imports {
				imported, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				if to, ok := strings.CutPrefix(imported, module+"/"); ok {
					if why := refuse(dir, to); why != "" {
						t.Errorf("%s imports %s: %s", f.name, to, why)
					}
				}
			}
		}
	}
}

// refuse says why one folder must not import another, or "".
func refuse(from, to string) string {
	if root := within(to, outside); root != "" {
		if within(from, outside) == root {
			return ""
		}
		return "examples and end-to-end tests are imported by nothing else"
	}
	toPublic := publicFamily(to)
	if root := within(from, outside); root != "" {
		// Examples are written as a user of Hansa writes them.
		if root == "examples" && toPublic == "" {
			return "examples import what is public only"
		}
		return ""
	}
	if fromPublic := publicFamily(from); fromPublic != "" {
		floor, _, ok := place(to)
		if fromPublic == toPublic || ok && floor <= public[fromPublic] {
			return ""
		}
		return "public packages import nothing above floor 0"
	}
	floor, at, ok := place(from)
	if !ok {
		return "the importing package has no place in the house; give it one in layout_test.go"
	}
	if toPublic != "" {
		if floor < publicFrom {
			return "the public packages are used from floor 4 up"
		}
		return ""
	}
	toFloor, toAt, ok := place(to)
	switch {
	case !ok:
		return "the imported package has no place in the house; give it one in layout_test.go"
	case toFloor < floor, toFloor == floor && toAt == at:
		return ""
	case toFloor > floor:
		return "imports only go down"
	case floor <= 1 && toAt < at:
		return ""
	}
	return "neighbours on a floor do not import each other; declare an interface that internal/node fulfils"
}

func TestEveryPackageHasAPlace(t *testing.T) {
	for dir := range packages(t) {
		_, _, ok := place(dir)
		if !ok && publicFamily(dir) == "" && within(dir, outside) == "" && dir != "." {
			t.Errorf("%s has no place in the house; give it one in layout_test.go", dir)
		}
	}
}

func TestPackageNames(t *testing.T) {
	for dir, files := range packages(t) {
		for part := range strings.SplitSeq(dir, "/") {
			if slices.Contains(drawers, part) {
				t.Errorf("%s: %q is a drawer, not a concept; name the noun", dir, part)
			}
		}
		for _, f := range files {
			name := strings.TrimSuffix(f.Name.Name, "_test")
			if name != "main" && name != path.Base(dir) && dir != "." {
				t.Errorf("%s is package %s; a package is named as its folder", f.name, name)
			}
		}
	}
}

// place is the floor of a folder's family and its position there.
func place(dir string) (floor, at int, ok bool) {
	for floor, families := range floors {
		for at, f := range families {
			if dir == f || strings.HasPrefix(dir, f+"/") {
				return floor, at, true
			}
		}
	}
	return 0, 0, false
}

func publicFamily(dir string) string {
	for f := range public {
		if dir == f || strings.HasPrefix(dir, f+"/") {
			return f
		}
	}
	return ""
}

// within returns the root that dir lies in, or "".
func within(dir string, roots []string) string {
	for _, r := range roots {
		if dir == r || strings.HasPrefix(dir, r+"/") {
			return r
		}
	}
	return ""
}

type goFile struct {
	*ast.File
	name string // from the repository's root, with slashes
}

// packages are the Go files of this module by folder; in a git checkout those
// of folders with tracked files, so that what lies beside them does not count.
func packages(t *testing.T) map[string][]goFile {
	t.Helper()
	known := map[string]bool{}
	if out, err := exec.Command("git", "ls-files", "-z", "*.go").Output(); err == nil {
		for name := range strings.SplitSeq(string(out), "\x00") {
			known[path.Dir(name)] = true
		}
	}
	found := map[string][]goFile{}
	set := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := entry.Name()
		if entry.IsDir() {
			if base == "testdata" || base == "node_modules" || name == "tools" || name != "." && strings.HasPrefix(base, ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(set, name, nil, parser.ParseComments|parser.PackageClauseOnly|parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(name))
		if len(known) > 0 && !known[dir] {
			return nil
		}
		found[dir] = append(found[dir], goFile{File: parsed, name: filepath.ToSlash(name)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
