package main

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"hansa": main})
}

// The command line as it is typed. What needs a running network is in e2e.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}

// Every command says what it is for, and every flag what it does.
func TestHelpIsComplete(t *testing.T) {
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: a short description without a full stop is wanted, it is %q", c.CommandPath(), c.Short)
		}
		if c.Runnable() && c.Args == nil && !strings.Contains(c.Use, "...") {
			t.Errorf("%s takes any arguments", c.CommandPath())
		}
		if c.Runnable() && c.Example == "" && !c.Hidden && c.HasParent() {
			t.Errorf("%s has no example", c.CommandPath())
		}
		// A backslash goes on with the next line, as in a shell.
		for _, line := range strings.Split(strings.ReplaceAll(c.Example, "\\\n", ""), "\n") {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			// An example is a command that exists, with flags that exist.
			words := strings.Fields(line)
			found, rest, err := newRoot().Find(words[1:])
			if err != nil || words[0] != "hansa" || found.CommandPath() != c.CommandPath() {
				t.Errorf("%s: the example %q is another command (%v)", c.CommandPath(), line, err)
				continue
			}
			if err := found.ParseFlags(unquote(rest)); err != nil {
				t.Errorf("%s: the example %q: %v", c.CommandPath(), line, err)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}

// Ctrl-C ends a question at once, and is no yes.
func TestAgrees(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, "Yes\n": true, "n\n": false, "\n": false, "": false} {
		if got := agrees(t.Context(), strings.NewReader(answer)); got != want {
			t.Errorf("%q: %v", answer, got)
		}
	}
	silent, end := io.Pipe()
	defer end.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if agrees(ctx, silent) {
		t.Error("an interruption agrees")
	}
}

func unquote(words []string) []string {
	for i := range words {
		words[i] = strings.Trim(words[i], `"'`)
	}
	return words
}
