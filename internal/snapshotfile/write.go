package snapshotfile

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/encoding/protowire"
)

func sum(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

// Writer writes one snapshot. The methods that add are called in the order of the records within their files: namespaces
// and keys bytewise, identifiers by length and then bytewise. It is used by one goroutine and ends with Finish or Abandon.
type Writer struct {
	fs      vfs.FS
	dir     string
	public  *states
	hashed  *states
	ids     *counted
	configs *counted
	buf     []byte
}

// NewWriter writes into dir, a folder that is there and empty.
func NewWriter(fs vfs.FS, dir string) *Writer {
	return &Writer{
		fs: fs, dir: dir,
		public: &states{counted: counted{data: PublicData, metadata: PublicMetadata}},
		hashed: &states{counted: counted{data: HashedData, metadata: HashedMetadata}},
		ids:    &counted{data: TxIDData, metadata: TxIDMetadata}, configs: &counted{data: ConfigData, metadata: ConfigMetadata},
	}
}

// Public adds a key of the public state.
func (w *Writer) Public(namespace string, r *Record) error { return w.state(w.public, namespace, r) }

// Hashed adds the hash of a private key.
func (w *Writer) Hashed(namespace, collection string, r *Record) error {
	return w.state(w.hashed, HashedName(namespace, collection), r)
}

// HashedName is the name under which a collection's hashes are sorted and written.
func HashedName(namespace, collection string) string {
	return namespace + hashedMark + collection
}

const hashedMark = "$$h"

// TxID adds the identifier of a transaction.
func (w *Writer) TxID(id string) error {
	if err := w.ids.start(w); err != nil {
		return err
	}
	w.ids.count++
	return w.ids.file.field([]byte(id))
}

// Config adds a version of a contract's collections under the key of Fabric's own store.
func (w *Writer) Config(key, value []byte) error {
	if err := w.configs.start(w); err != nil {
		return err
	}
	w.configs.count++
	return errors.Join(w.configs.file.field(key), w.configs.file.field(value))
}

func (w *Writer) state(s *states, name string, r *Record) error {
	if err := s.start(w); err != nil {
		return err
	}
	if n := len(s.names); n == 0 || s.names[n-1] != name {
		s.names, s.counts = append(s.names, name), append(s.counts, 0)
	}
	s.counts[len(s.counts)-1]++
	w.buf = appendRecord(w.buf[:0], r)
	return s.file.field(w.buf)
}

// appendRecord encodes a record as a message of four byte fields, the empty ones left out.
func appendRecord(b []byte, r *Record) []byte {
	var version [20]byte
	for i, f := range [][]byte{r.Key, r.Value, r.Metadata, r.Version.AppendBytes(version[:0])} {
		if len(f) > 0 {
			b = protowire.AppendBytes(protowire.AppendTag(b, protowire.Number(i+1), protowire.BytesType), f)
		}
	}
	return b
}

// Finish completes the folder and makes it durable. The hashes of the files are put into the metadata.
func (w *Writer) Finish(m *Metadata) error {
	m.Files = map[string][]byte{}
	for _, c := range []*counted{&w.public.counted, &w.hashed.counted, w.ids, w.configs} {
		if c.file == nil {
			continue
		}
		var err error
		if m.Files[c.data], err = c.file.close(); err != nil {
			return fmt.Errorf("write %s: %w", c.data, err)
		}
	}
	for _, c := range []struct {
		*counted
		rows *states
	}{{&w.public.counted, w.public}, {&w.hashed.counted, w.hashed}, {w.ids, nil}, {w.configs, nil}} {
		if c.file == nil {
			continue
		}
		f, err := create(w.fs, w.fs.PathJoin(w.dir, c.metadata))
		if err != nil {
			return fmt.Errorf("write %s: %w", c.metadata, err)
		}
		if c.rows != nil {
			err = c.rows.write(f)
		} else {
			err = f.number(c.count)
		}
		h, closeErr := f.close()
		if err := errors.Join(err, closeErr); err != nil {
			return fmt.Errorf("write %s: %w", c.metadata, err)
		}
		m.Files[c.metadata] = h
	}
	signed, more, err := m.encode()
	if err != nil {
		return fmt.Errorf("write %s: %w", SignableMetadata, err)
	}
	for name, b := range map[string][]byte{SignableMetadata: signed, AdditionalMetadata: more} {
		if err := writeFile(w.fs, w.fs.PathJoin(w.dir, name), b); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return SyncDir(w.fs, w.dir)
}

// Abandon closes the files of a snapshot that will not be finished. The caller removes the folder.
func (w *Writer) Abandon() {
	for _, c := range []*counted{&w.public.counted, &w.hashed.counted, w.ids, w.configs} {
		if c.file != nil {
			c.file.f.Close()
		}
	}
}

// counted is a pair of files whose metadata is a number.
type counted struct {
	data, metadata string
	file           *file // nil until the first record
	count          uint64
}

func (c *counted) start(w *Writer) (err error) {
	if c.file == nil {
		if c.file, err = create(w.fs, w.fs.PathJoin(w.dir, c.data)); err != nil {
			return fmt.Errorf("write %s: %w", c.data, err)
		}
	}
	return nil
}

// states is a pair of files whose metadata lists names with numbers of records.
type states struct {
	counted
	names  []string
	counts []uint64
}

func (s *states) write(f *file) error {
	err := f.number(uint64(len(s.names)))
	for i, name := range s.names {
		err = errors.Join(err, f.field([]byte(name)), f.number(s.counts[i]))
	}
	return err
}

// file is a file in writing, hashed on the way.
type file struct {
	f    vfs.File
	out  *bufio.Writer
	hash hash.Hash
}

func create(fs vfs.FS, path string) (*file, error) {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	out := &file{f: f, out: bufio.NewWriterSize(f, 64<<10), hash: sha256.New()}
	return out, out.write([]byte{format})
}

func (f *file) write(b []byte) error {
	f.hash.Write(b)
	_, err := f.out.Write(b)
	return err
}

func (f *file) number(n uint64) error {
	var b [binary.MaxVarintLen64]byte
	return f.write(b[:binary.PutUvarint(b[:], n)])
}

func (f *file) field(b []byte) error {
	if err := f.number(uint64(len(b))); err != nil {
		return err
	}
	return f.write(b)
}

func (f *file) close() ([]byte, error) {
	err := f.out.Flush()
	if err == nil {
		err = f.f.Sync()
	}
	return f.hash.Sum(nil), errors.Join(err, f.f.Close())
}

func writeFile(fs vfs.FS, path string, b []byte) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// SyncDir makes the names in a folder durable.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
