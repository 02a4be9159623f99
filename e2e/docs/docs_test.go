// Package docs_test does what the documents say: every command in a block of shell commands of README.md and docs/*.md is run, in
// order, each document with a network of its own. Blocks without "sh" are shown only, since they need what this repository does not have.
package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/e2e/network"
)

func TestMain(m *testing.M) { network.Main(m) }

// elsewhere are commands that run in another place.
var elsewhere = map[string]string{
	"make run":  "smoke", // the same program, which .ci/run runs so that it ends
	"make test": "test",
}

var (
	block  = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")
	folder = regexp.MustCompile(`\b(my|bench)-network\b`)
)

func TestCommands(t *testing.T) {
	root := network.Root(t)
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	ci, err := os.ReadFile(filepath.Join(root, ".ci", "run"))
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range append(documents, filepath.Join(root, "README.md")) {
		content, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		var commands []string
		for _, b := range block.FindAllStringSubmatch(string(content), -1) {
			commands = append(commands, strings.Split(strings.TrimSpace(b[1]), "\n")...)
		}
		if len(commands) == 0 {
			continue
		}
		t.Run(filepath.Base(document), func(t *testing.T) {
			n := network.New(t)
			for _, command := range commands {
				if target := elsewhere[command]; target != "" {
					if !strings.Contains(string(ci), "make "+target) {
						t.Errorf("%s: .ci/run does not run make %s", command, target)
					}
					continue
				}
				run(t, root, command, n.Dir)
			}
		})
	}
}

// run runs a command as written, but with the network in dir, and on free ports.
func run(t *testing.T, root, command, dir string) {
	t.Helper()
	if !strings.HasPrefix(command, "hansa ") {
		t.Errorf("%q is no hansa command: show it in a block without sh, or say in this test where it is run", command)
		return
	}
	real := folder.ReplaceAllString(command, dir)
	if strings.HasPrefix(real, "hansa up ") && !strings.Contains(real, "--port") {
		real += " --port 0"
	}
	bin := t.TempDir()
	if err := os.Symlink(os.Getenv("HANSA_BINARY"), filepath.Join(bin, "hansa")); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "sh", "-e", "-c", real)
	c.Dir = root
	c.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	if len(strings.TrimSpace(string(out))) == 0 && !strings.HasPrefix(command, "hansa down") {
		t.Errorf("%s: it says nothing", command)
	}
}
