package contractpackage

import (
	"archive/tar"
	"fmt"
	"io"
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
