package client_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	// Everything that a program with the client may link.
	_ "github.com/hansa-ledger/hansa/client"
	_ "github.com/hansa-ledger/hansa/internal/wire/discoverypb"
	_ "github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
	_ "github.com/hansa-ledger/hansa/internal/wire/gossippb"
	_ "github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
	_ "github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	_ "github.com/hansa-ledger/hansa/internal/wire/queryresultpb"
	_ "github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
	_ "github.com/hansa-ledger/hansa/internal/wire/smartbftpb"
)

// Hyperledger's modules register these proto packages.
var taken = []string{"common", "msp", "orderer", "etcdraft", "protos", "gateway", "discovery", "gossip", "rwset", "kvrwset", "queryresult", "lifecycle", "smartbft"}

// Registering a name twice panics at start, so none of Hyperledger's may be ours.
func TestNoNameIsHyperledgers(t *testing.T) {
	own := 0
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		if strings.HasPrefix(f.Path(), "google/protobuf/") {
			return true
		}
		own++
		for _, name := range taken {
			if f.Package() == protoreflect.FullName(name) || strings.HasPrefix(string(f.Package()), name+".") || strings.HasPrefix(f.Path(), name+"/") {
				t.Errorf("the file %s has the package %s", f.Path(), f.Package())
			}
		}
		if !strings.HasPrefix(string(f.Package()), "hansa.") || !strings.HasPrefix(f.Path(), "hansa/") {
			// Libraries have files of their own.
			if strings.Contains(f.Path(), "hansa") || !strings.Contains(f.Path(), "/") {
				t.Errorf("the file %s with the package %s is not apart", f.Path(), f.Package())
			}
		}
		return true
	})
	protoregistry.GlobalTypes.RangeMessages(func(m protoreflect.MessageType) bool {
		for _, name := range taken {
			if strings.HasPrefix(string(m.Descriptor().FullName()), name+".") {
				t.Errorf("the message %s is registered", m.Descriptor().FullName())
			}
		}
		return true
	})
	if own < 5 {
		t.Errorf("only %d files were looked at", own)
	}
}

// Another module that links the client and registers Hyperledger's names builds and runs.
func TestLinksBesideHyperledgersNames(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/beside")); err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sums, 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), args[0], args[1:]...)
		c.Dir, c.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0")
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("go", "mod", "edit", "-replace", "github.com/hansa-ledger/hansa="+root)
	if out := run("go", "run", "."); out != "13 packages of the same names\n" {
		t.Errorf("the program says %q", out)
	}
}
