package snapshotfile

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hansa-ledger/hansa/internal/rwset"
)

// Copy copies a snapshot from one folder into another, which is there and empty, and verifies the copy while it is
// made: what was changed behind the reader's back is found too. The copy is durable.
func Copy(ctx context.Context, from vfs.FS, source string, to vfs.FS, dir string) (*Metadata, error) {
	raw, err := readFile(from, from.PathJoin(source, SignableMetadata), SignableMetadata, MaxMetadataBytes)
	if err != nil {
		return nil, err
	}
	more, err := readFile(from, from.PathJoin(source, AdditionalMetadata), AdditionalMetadata, MaxMetadataBytes)
	if err != nil {
		return nil, err
	}
	m, err := decodeMetadata(raw, more)
	if err != nil {
		return nil, err
	}
	for _, name := range m.names() {
		out, err := to.Create(to.PathJoin(dir, name), vfs.WriteCategoryUnspecified)
		if err != nil {
			return nil, fmt.Errorf("copy %s: %w", name, err)
		}
		err = m.verify(ctx, from, source, name, out)
		if err == nil {
			err = out.Sync()
		}
		if err := errors.Join(err, out.Close()); err != nil {
			return nil, err
		}
	}
	for name, b := range map[string][]byte{SignableMetadata: raw, AdditionalMetadata: more} {
		if err := writeFile(to, to.PathJoin(dir, name), b); err != nil {
			return nil, fmt.Errorf("copy %s: %w", name, err)
		}
	}
	return m, SyncDir(to, dir)
}

func (m *Metadata) names() []string {
	var names []string
	for name := range m.Files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// verify compares one file with its hash and copies it.
func (m *Metadata) verify(ctx context.Context, fs vfs.FS, dir, name string, out io.Writer) error {
	in, _, err := openRegular(fs, fs.PathJoin(dir, name), name)
	if err != nil {
		return err
	}
	defer in.Close()
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(h, out), reader{ctx, in}); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	if got := h.Sum(nil); !bytes.Equal(got, m.Files[name]) {
		return mismatch(name, m.Files[name], got)
	}
	return nil
}

// reader ends when its context does.
type reader struct {
	ctx context.Context
	in  io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.in.Read(b)
}

// Visitor takes what is in a snapshot. The slices are its own. An error ends the reading.
type Visitor struct {
	Public func(namespace string, r *Record) error
	Hashed func(namespace, collection string, r *Record) error
	TxID   func(id string) error
	Config func(key, value []byte) error
}

// Read verifies the files of a folder and gives what is in them to the visitor. Nothing is given before all hashes
// were compared.
func Read(ctx context.Context, fs vfs.FS, dir string, v Visitor) (*Metadata, error) {
	m, err := ReadMetadata(fs, dir)
	if err != nil {
		return nil, err
	}
	for _, name := range m.names() {
		if err := m.verify(ctx, fs, dir, name, io.Discard); err != nil {
			return nil, err
		}
	}
	// The collections first: what they say about hashed keys is needed with the hashes.
	for _, step := range []struct {
		data, metadata string
		read           func(rows, data *source) error
	}{
		{ConfigData, ConfigMetadata, func(rows, data *source) error { return readConfigs(rows, data, v.Config) }},
		{TxIDData, TxIDMetadata, func(rows, data *source) error { return readIDs(rows, data, v.TxID) }},
		{PublicData, PublicMetadata, func(rows, data *source) error { return readStates(rows, data, m.LastBlock, v.Public) }},
		{HashedData, HashedMetadata, func(rows, data *source) error {
			return readStates(rows, data, m.LastBlock, func(name string, r *Record) error {
				ns, coll, ok := strings.Cut(name, hashedMark)
				if !ok || ns == "" || coll == "" {
					return fmt.Errorf("%q names no collection", name)
				}
				return v.Hashed(ns, coll, r)
			})
		}},
	} {
		if m.Files[step.data] == nil {
			continue
		}
		if err := readPair(ctx, fs, dir, step.data, step.metadata, step.read); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func readPair(ctx context.Context, fs vfs.FS, dir, data, metadata string, read func(rows, data *source) error) error {
	rows, err := open(ctx, fs, dir, metadata)
	if err != nil {
		return err
	}
	defer rows.f.Close()
	records, err := open(ctx, fs, dir, data)
	if err != nil {
		return err
	}
	defer records.f.Close()
	if err := read(rows, records); err != nil {
		return fmt.Errorf("%s: %w", data, err)
	}
	for _, s := range []*source{rows, records} {
		if s.left > 0 {
			return fmt.Errorf("%s: %d bytes are left behind the last record", s.name, s.left)
		}
	}
	return nil
}

func readIDs(rows, data *source, use func(string) error) error {
	n, err := rows.number()
	for ; err == nil && n > 0; n-- {
		var id []byte
		if id, err = data.field(); err == nil {
			err = use(string(id))
		}
	}
	return err
}

func readConfigs(rows, data *source, use func(key, value []byte) error) error {
	n, err := rows.number()
	for ; err == nil && n > 0; n-- {
		var key, value []byte
		if key, err = data.field(); err != nil {
			return err
		}
		if value, err = data.field(); err == nil {
			err = use(key, value)
		}
	}
	return err
}

func readStates(rows, data *source, last uint64, use func(string, *Record) error) error {
	namespaces, err := rows.number()
	if err != nil {
		return err
	}
	for ; namespaces > 0; namespaces-- {
		name, err := rows.field()
		if err != nil {
			return err
		}
		n, err := rows.number()
		if err != nil {
			return err
		}
		for ; n > 0; n-- {
			raw, err := data.field()
			if err != nil {
				return err
			}
			r, err := decodeRecord(raw)
			if err != nil {
				return fmt.Errorf("a record of %q: %w", name, err)
			}
			if r.Version.Block > last {
				return fmt.Errorf("a record of %q: its version is of block %d, the snapshot ends with block %d", name, r.Version.Block, last)
			}
			if err := use(string(name), r); err != nil {
				return err
			}
		}
	}
	return nil
}

func decodeRecord(b []byte) (*Record, error) {
	r := &Record{}
	var version []byte
	fields := [...]*[]byte{nil, &r.Key, &r.Value, &r.Metadata, &version}
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
		if field < protowire.Number(len(fields)) && kind == protowire.BytesType {
			x, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return nil, protowire.ParseError(n)
			}
			*fields[field], b = x, b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(field, kind, b); n < 0 {
			return nil, protowire.ParseError(n)
		}
		b = b[n:]
	}
	var err error
	r.Version, err = rwset.ParseVersion(version)
	return r, err
}

// source is a file in reading.
type source struct {
	name string
	f    vfs.File
	in   *bufio.Reader
	left int64 // bytes not read yet
}

func open(ctx context.Context, fs vfs.FS, dir, name string) (*source, error) {
	f, size, err := openRegular(fs, fs.PathJoin(dir, name), name)
	if err != nil {
		return nil, err
	}
	s := &source{name: name, f: f, in: bufio.NewReaderSize(reader{ctx, f}, 64<<10), left: size}
	b, err := s.ReadByte()
	if err == nil && b != format {
		err = fmt.Errorf("%s: unexpected data format: %x", name, b)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return s, nil
}

// ReadByte makes a source a reader of varints.
func (s *source) ReadByte() (byte, error) {
	if s.left <= 0 {
		return 0, fmt.Errorf("%s: cut short", s.name)
	}
	b, err := s.in.ReadByte()
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", s.name, err)
	}
	s.left--
	return b, nil
}

func (s *source) number() (uint64, error) { return binary.ReadUvarint(s) }

// field reads a length and so many bytes. No memory is taken for more than the file has.
func (s *source) field() ([]byte, error) {
	n, err := s.number()
	if err != nil {
		return nil, err
	}
	if n > MaxRecordBytes {
		return nil, fmt.Errorf("%s: a record of %d bytes, at most %d are read", s.name, n, MaxRecordBytes)
	}
	if n > uint64(s.left) {
		return nil, fmt.Errorf("%s: a record of %d bytes, %d are left", s.name, n, s.left)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(s.in, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.name, err)
	}
	s.left -= int64(n)
	return b, nil
}
