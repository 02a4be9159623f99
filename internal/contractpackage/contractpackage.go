// Package contractpackage reads and writes contract packages, the files that members install on their peers: a tar.gz of
// metadata.json, which says what is inside, and code.tar.gz. Fabric calls it a chaincode package, and every package that Fabric's
// tools make is read here and the other way round.
//
// A package's identity is its label and the SHA-256 of its bytes, so Write gives the same bytes for the same content on every
// machine and at any time. Reading trusts nothing: sizes, numbers of entries and names are bounded before memory is spent, and no name
// that leaves the folder it is unpacked into is accepted.
//
// The package neither stores packages (lifecycle does) nor runs what is in them. For contracts that run as a service the code is a
// connection.json; see connection.go. Start here.
package contractpackage

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

const (
	metadataName = "metadata.json"
	codeName     = "code.tar.gz"

	// MaxBytes bounds a package, and each of the archives in it when unpacked. Fabric's own limit is that of a gRPC message, 100 MiB.
	MaxBytes = 100 << 20
	// maxMetadata bounds metadata.json.
	maxMetadata = 64 << 10
	// maxEntries bounds the number of entries of one archive: a bomb can also be made of empty files.
	maxEntries = 50_000
)

var labelRule = regexp.MustCompile(`^[[:alnum:]][[:alnum:]_.+-]*$`)

// Metadata is metadata.json: how the code is to be run. Type is in the words of whoever built the package, such as "ccaas", "golang" or "node".
type Metadata struct {
	Path  string `json:"path"`
	Type  string `json:"type"`
	Label string `json:"label"`
}

// Package is a package that was read.
type Package struct {
	Metadata
	ID   string // label:hash
	Code []byte // code.tar.gz; see Files
	// RawMetadata is metadata.json as it stands in the package, which may say more than Metadata holds.
	RawMetadata []byte
}

// ID gives the identity of a package with the given label and bytes.
func ID(label string, raw []byte) string {
	sum := sha256.Sum256(raw)
	return label + ":" + hex.EncodeToString(sum[:])
}

// SplitID gives the parts of a package's identity; ok is false for text that is none.
func SplitID(id string) (label string, hash []byte, ok bool) {
	label, text, found := strings.Cut(id, ":")
	hash, err := hex.DecodeString(text)
	return label, hash, found && err == nil && len(hash) == sha256.Size && text == strings.ToLower(text) && CheckLabel(label) == nil
}

// CheckLabel tells why a label cannot be one. The text is Fabric's.
func CheckLabel(label string) error {
	if !labelRule.MatchString(label) {
		return fmt.Errorf("invalid label '%s'. Label must be non-empty, can only consist of alphanumerics, symbols from '.+-_', and can only begin with alphanumerics", label)
	}
	return nil
}

// Read decodes the bytes of a package. It keeps no reference to them.
func Read(raw []byte) (*Package, error) {
	if len(raw) > MaxBytes {
		return nil, fmt.Errorf("package of %d bytes is larger than the %d that are accepted", len(raw), MaxBytes)
	}
	var metadata, code []byte
	err := walk(raw, func(h *tar.Header, content io.Reader) error {
		if h.Typeflag != tar.TypeReg {
			return fmt.Errorf("tar entry %s is not a regular file, type %v", h.Name, h.Typeflag)
		}
		var target *[]byte
		limit := int64(MaxBytes)
		switch h.Name {
		case metadataName:
			target, limit = &metadata, maxMetadata
		case codeName:
			target = &code
		default:
			return nil // Fabric reads past what it does not know
		}
		if *target != nil {
			return fmt.Errorf("the package holds %s twice", h.Name)
		}
		b, err := readEntry(h, content, limit)
		*target = b
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read contract package: %w", err)
	}
	if code == nil {
		return nil, errors.New("did not find a code package inside the package: code.tar.gz is missing")
	}
	if metadata == nil {
		return nil, errors.New("did not find any package metadata (missing metadata.json)")
	}
	p := &Package{Code: code, RawMetadata: metadata}
	if err := json.Unmarshal(metadata, &p.Metadata); err != nil {
		return nil, fmt.Errorf("could not unmarshal metadata.json as json: %w", err)
	}
	if err := CheckLabel(p.Label); err != nil {
		return nil, err
	}
	p.ID = ID(p.Label, raw)
	return p, nil
}

// Write makes a package of code.tar.gz bytes; WriteCode makes those.
func Write(m Metadata, code []byte) ([]byte, error) {
	if err := CheckLabel(m.Label); err != nil {
		return nil, err
	}
	if m.Type == "" {
		return nil, errors.New("contract package metadata: type must not be empty; use \"ccaas\" for a contract that runs as a service")
	}
	metadata, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return archive([]entry{{metadataName, metadata}, {codeName, code}})
}

// WriteCode makes code.tar.gz of files by their slash-separated names.
func WriteCode(files map[string][]byte) ([]byte, error) {
	entries := make([]entry, 0, len(files))
	for name, content := range files {
		if err := checkName(name); err != nil {
			return nil, err
		}
		entries = append(entries, entry{name, content})
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return archive(entries)
}

// Files unpacks the code: its regular files by name. Folders are left out, and links and devices are refused.
func (p *Package) Files() (map[string][]byte, error) {
	files := map[string][]byte{}
	err := p.visitFiles(func(name string, _ fs.FileMode, content []byte) error {
		files[name] = content
		return nil
	})
	if err != nil {
		return nil, err
	}
	return files, nil
}

// Unpack writes the code's regular files into a folder, those that are programs as such.
func (p *Package) Unpack(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return p.visitFiles(func(name string, mode fs.FileMode, content []byte) error {
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return err
		}
		return root.WriteFile(name, content, 0o600|mode&0o100)
	})
}

func (p *Package) visitFiles(visit func(name string, mode fs.FileMode, content []byte) error) error {
	seen := map[string]bool{}
	total := int64(0)
	err := walk(p.Code, func(h *tar.Header, content io.Reader) error {
		switch h.Typeflag {
		case tar.TypeDir, tar.TypeXGlobalHeader:
			return nil
		case tar.TypeReg:
		default:
			return fmt.Errorf("invalid file type '%v' contained in archive for file '%s': %s may hold regular files only", h.Typeflag, h.Name, codeName)
		}
		// tar writes "./connection.json" when it is given a folder.
		name := strings.TrimPrefix(h.Name, "./")
		if err := checkName(name); err != nil {
			return err
		}
		if seen[name] {
			return fmt.Errorf("%s holds %q twice", codeName, name)
		}
		seen[name] = true
		b, err := readEntry(h, content, MaxBytes-total)
		if err != nil {
			return err
		}
		total += int64(len(b))
		return visit(name, fs.FileMode(h.Mode).Perm(), b)
	})
	if err != nil {
		return fmt.Errorf("unpack contract %s: %w", p.Label, err)
	}
	return nil
}

// checkName refuses names that would leave the folder into which they are unpacked, on any system.
func checkName(name string) error {
	if name == "" || len(name) > 1024 || path.IsAbs(name) || path.Clean(name) != name || name == "." || name == ".." ||
		strings.HasPrefix(name, "../") || strings.ContainsAny(name, "\\\x00:") {
		return fmt.Errorf("tar contains the absolute or escaping path '%s': use a relative, slash-separated name inside the package", name)
	}
	return nil
}

// walk calls visit for every entry of a tar.gz. The bytes that come out of the compression are bounded, also those of entries that visit skips.
func walk(raw []byte, visit func(*tar.Header, io.Reader) error) error {
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("error reading as gzip stream: %w", err)
	}
	// Headers and padding come on top of the content.
	bounded := &boundedReader{r: z, left: MaxBytes + maxEntries*1024}
	t := tar.NewReader(bounded)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("error inspecting next tar header: %w", err)
		}
		if n == maxEntries {
			return fmt.Errorf("archive has more than %d entries", maxEntries)
		}
		if err := visit(h, t); err != nil {
			return err
		}
	}
}

func readEntry(h *tar.Header, content io.Reader, limit int64) ([]byte, error) {
	if h.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than the %d that are accepted", h.Name, h.Size, limit)
	}
	// Not sized by the header: its word costs an attacker nothing, the bytes do.
	var b bytes.Buffer
	if _, err := io.Copy(&b, content); err != nil {
		return nil, fmt.Errorf("could not read %s from tar: %w", h.Name, err)
	}
	if b.Len() == 0 {
		return []byte{}, nil
	}
	return b.Bytes(), nil
}

type boundedReader struct {
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("archive unpacks to more than %d bytes", int64(MaxBytes))
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

type entry struct {
	name    string
	content []byte
}

// archive writes entries without times, owners or the name of the machine's system.
func archive(entries []entry) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	t := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: int64(len(e.content)), Mode: 0o644}
		if err := t.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("write %s: %w", e.name, err)
		}
		if _, err := t.Write(e.content); err != nil {
			return nil, fmt.Errorf("write %s: %w", e.name, err)
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	if out.Len() > MaxBytes {
		return nil, fmt.Errorf("the archive has %d bytes, more than the %d that a peer accepts", out.Len(), MaxBytes)
	}
	return out.Bytes(), nil
}
