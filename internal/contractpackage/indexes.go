package contractpackage

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// Index is a file with the definition of an index for JSON queries.
type Index struct {
	File string // its name in the package
	// Collection is the collection of private data that it is for, empty for public data.
	Collection string
	Content    []byte
}

// Bounds of the definitions in one package.
const (
	maxIndexes    = 1000
	maxIndexBytes = 64 << 10
)

// Fabric's packagers put the folder beside the code, some of them with everything else under src.
var indexRule = regexp.MustCompile(`^(?:src/)?META-INF/statedb/couchdb/(?:collections/([A-Za-z0-9_-]+)/)?indexes/[^/]+[.]json$`)

// Indexes gives the definitions of indexes in META-INF/statedb/couchdb, by file name. What is in them is not looked at.
func (p *Package) Indexes() ([]Index, error) {
	var found []Index
	err := walk(p.Code, func(h *tar.Header, content io.Reader) error {
		m := indexRule.FindStringSubmatch(strings.TrimPrefix(h.Name, "./"))
		if m == nil || h.Typeflag != tar.TypeReg {
			return nil
		}
		if len(found) == maxIndexes {
			return fmt.Errorf("%s holds more than %d definitions of indexes", codeName, maxIndexes)
		}
		b, err := readEntry(h, content, maxIndexBytes)
		found = append(found, Index{strings.TrimPrefix(h.Name, "./"), m[1], b})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("indexes of contract %s: %w", p.Label, err)
	}
	slices.SortStableFunc(found, func(a, b Index) int { return strings.Compare(a.File, b.File) })
	return found, nil
}

// IndexesIn gives the definitions of indexes that an external builder released into a folder: under statedb/couchdb there.
func IndexesIn(dir fs.FS) ([]Index, error) {
	var found []Index
	err := fs.WalkDir(dir, "statedb", func(name string, d fs.DirEntry, err error) error {
		if name == "statedb" && errors.Is(err, fs.ErrNotExist) {
			return fs.SkipAll
		}
		if err != nil {
			return err
		}
		m := indexRule.FindStringSubmatch("META-INF/" + name)
		if m == nil || !d.Type().IsRegular() {
			return nil
		}
		if len(found) == maxIndexes {
			return fmt.Errorf("there are more than %d definitions of indexes", maxIndexes)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Size() > maxIndexBytes {
			return fmt.Errorf("%s has %d bytes, more than the %d that are accepted", name, info.Size(), maxIndexBytes)
		}
		b, err := fs.ReadFile(dir, name)
		found = append(found, Index{"META-INF/" + name, m[1], b})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("released indexes: %w", err)
	}
	return found, nil
}
