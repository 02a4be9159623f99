package conformance_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/hansa-ledger/hansa/e2e/network"
)

// area is a heading of the document.
type area struct {
	Title    string
	Features []*feature
}

// feature is one file of features/.
type feature struct {
	Title, About string
	Gaps         []string
	Cases        []result
}

func (f *feature) count() (good, misuse int) {
	for _, c := range f.Cases {
		if c.Misuse {
			misuse++
		} else {
			good++
		}
	}
	return good, misuse
}

// Misuse is how many cases are of misuse.
func (f *feature) Misuse() int { _, misuse := f.count(); return misuse }

// Passed is how many cases passed.
func (f *feature) Passed() (n int) {
	for _, c := range f.Cases {
		if c.Passed {
			n++
		}
	}
	return n
}

// Anchor is where a link to the feature's heading leads.
func (f *feature) Anchor() string {
	keep := func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z':
			return r
		}
		return -1
	}
	return strings.Map(keep, strings.ToLower(f.Title))
}

// group collects the cases of each feature, in the order of their files: in which order they ran does not matter.
func group(cases []result) (features []*feature) {
	byFile := map[string][]result{}
	for _, c := range cases {
		byFile[c.File] = append(byFile[c.File], c)
	}
	var files []string
	for file := range byFile {
		files = append(files, file)
	}
	slices.Sort(files)
	for _, file := range files {
		of := byFile[file]
		features = append(features, &feature{of[0].Title, of[0].About, of[0].Gaps, of})
	}
	return features
}

// areas puts features under their headings. Headings that the list does not know come last.
func areas(features []*feature) (all []*area) {
	for _, title := range []string{"Gateway", "Services", "Contract features", "Identities", "Tools", "Channel configuration"} {
		all = append(all, &area{Title: title})
	}
	for _, f := range features {
		title := f.Cases[0].Area
		i := slices.IndexFunc(all, func(a *area) bool { return a.Title == title })
		if i < 0 {
			i = len(all)
			all = append(all, &area{Title: title})
		}
		all[i].Features = append(all[i].Features, f)
	}
	return slices.DeleteFunc(all, func(a *area) bool { return len(a.Features) == 0 })
}

// document fills in compatibility.md.tmpl.
func document(t *testing.T, features []*feature) []byte {
	t.Helper()
	// Cells of tables.
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	parsed, err := template.New("compatibility.md.tmpl").Funcs(template.FuncMap{"cell": cell}).ParseFiles("compatibility.md.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	known := differences(t)
	total, passed, misuse, onFabric, different := 0, 0, 0, 0, 0
	for _, f := range features {
		total, passed, misuse = total+len(f.Cases), passed+f.Passed(), misuse+f.Misuse()
		if !slices.Contains(notOnFabric, f.Cases[0].File) {
			onFabric += len(f.Cases)
		}
		for i, c := range f.Cases {
			if j := slices.IndexFunc(known, func(d difference) bool { return d.File == c.File && d.Name == c.Name }); j >= 0 {
				f.Cases[i].Fabric = known[j].Fabric
				different++
			}
		}
	}
	if different != len(known) {
		t.Errorf("differences.json names %d cases, of which there are %d", len(known), different)
	}
	var out bytes.Buffer
	err = parsed.Execute(&out, map[string]any{"Areas": areas(features), "Features": len(features), "Total": total, "Passed": passed, "Misuse": misuse,
		"OnFabric": onFabric, "Different": different})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// compare checks that the document in the repository tells these results, or writes it.
func compare(t *testing.T, features []*feature) {
	t.Helper()
	got, file := document(t, features), filepath.Join(network.Root(t), "docs", "compatibility.md")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/compatibility.md does not tell what this run has shown: make conformance writes it anew")
	}
}
