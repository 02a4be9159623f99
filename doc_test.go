package hansa_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Every package says once what it is.
func TestPackageComments(t *testing.T) {
	for dir, files := range packages(t) {
		if dir == "." || strings.HasPrefix(dir, "internal/wire/") { // internal/wire speaks for what is generated
			continue
		}
		var commented []string
		hasCode := slices.ContainsFunc(files, func(f goFile) bool { return !strings.HasSuffix(f.name, "_test.go") })
		for _, f := range files {
			if hasCode && strings.HasSuffix(f.name, "_test.go") {
				continue
			}
			full, err := parser.ParseFile(token.NewFileSet(), f.name, nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			if begins(full) {
				commented = append(commented, f.name)
			}
		}
		if len(commented) != 1 {
			t.Errorf("%s: the package comment is wanted once, it is in %q", dir, commented)
		}
	}
}

func begins(f *ast.File) bool {
	if f.Doc == nil {
		return false
	}
	text := f.Doc.Text()
	return strings.HasPrefix(text, "Package "+f.Name.Name) || f.Name.Name == "main" && strings.HasPrefix(text, "Command ")
}

// What is committed works anywhere: it names no folder of one machine and no
// host that packages happened to come from.
func TestNothingNamesThisMachine(t *testing.T) {
	forbidden := regexp.MustCompile(strings.Join([]string{
		`(^|[\s"'=(:])/(work|root|home|Users)/[\w.]`,
		`/tmp/(fab|hansa|bash)`,
		`registry\.[a-z]+js\.[a-z]+`, `(proxy|sum)\.golang\.[a-z]+`,
	}, "|"))
	for _, name := range tracked(t) {
		if strings.HasPrefix(name, "testdata/") || name == "doc_test.go" {
			continue
		}
		content, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue // deleted and not yet committed
		} else if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(content), "\n") {
			if found := forbidden.FindString(line); found != "" {
				t.Errorf("%s:%d names %q", name, i+1, found)
			}
		}
	}
}

// The links between the documents, and from them to files, lead somewhere.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)|(?:src|srcset)="([^"]+)"`)
	for _, name := range documents(t) {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(content), -1) {
			target := match[1] + match[3]
			if strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), target)); err != nil {
				t.Errorf("%s links to %s, which is not there", name, target)
			}
		}
	}
}

// Every package that docs/architecture.md should describe is named there.
func TestArchitectureNamesEveryPackage(t *testing.T) {
	content, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, floor := range floors {
		for _, family := range floor {
			if !strings.Contains(string(content), "`"+strings.TrimPrefix(family, "internal/")+"`") {
				t.Errorf("docs/architecture.md does not name %s", family)
			}
		}
	}
}

// Every direct dependency has its line in docs/dependencies.md, with the version in use.
func TestDependenciesAreRecorded(t *testing.T) {
	document, err := os.ReadFile("docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"go.mod", "tools/go.mod"} {
		mod, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		direct := regexp.MustCompile(`(?m)^(?:require)?\s+([a-z][\w./-]+\.[\w./-]+) (v\S+)$`)
		for _, match := range direct.FindAllStringSubmatch(string(mod), -1) {
			line := regexp.MustCompile(`(?m)^.*` + regexp.QuoteMeta("`"+match[1]+"`") + `.*$`).FindString(string(document))
			if !strings.Contains(line, strings.TrimPrefix(match[2], "v")) {
				t.Errorf("%s: docs/dependencies.md has no line for %s %s", file, match[1], match[2])
			}
		}
	}
}

// Every metric that the code names is explained to those who watch it.
func TestMetricsAreDocumented(t *testing.T) {
	document, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	metric := regexp.MustCompile(`Name:\s*"(hansa_[a-z_]*[a-z])"`)
	count := 0
	for _, name := range tracked(t) {
		if !strings.HasPrefix(name, "internal/") || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		content, err := os.ReadFile(name)
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for _, match := range metric.FindAllStringSubmatch(string(content), -1) {
			count++
			if !strings.Contains(string(document), "`"+match[1]+"`") {
				t.Errorf("%s: docs/operations.md does not explain %s", name, match[1])
			}
		}
	}
	if count == 0 {
		t.Error("no metric was found")
	}
}

func tracked(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "ls-files", "-z").Output()
	if err != nil {
		t.Skip("not a git checkout: ", err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
}

// documents are the texts for people, from the repository's root.
func documents(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"*.md", "docs/*.md", "examples/*.md", "examples/*/*.md", "examples/*/*/*.md"} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, matches...)
	}
	return found
}
