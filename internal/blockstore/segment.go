package blockstore

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A segment file is named after its first block, "00000000000000000000.blocks", and starts with
//
//	"HANSABLK"  format (4 bytes, 1)  checksum (4)  first block (8)  salt (8)
//
// followed by records, each
//
//	block length (4)  extra length (4)  number (8)  synced (8)  checksum of the body (4)  checksum of the header (4)
//	block  extra
//
// All numbers are little-endian, all checksums CRC-32C; the segment's covers what comes after it. A record's header checksum also covers
// the segment's random salt: nobody can put bytes into a block that look like a record of this file.
//
// "synced" is the height that was durable when the record was written. It tells the two kinds of bad record
// apart: one that a later record says was durable is damage, any other was torn by a crash. After a crash all
// records from the first torn one on are cut, none of which was ever acknowledged.
//
// Beside a full segment lies its index, "….index": offsets of its records, so that opening reads one small
// file in place of walking the records. It is made again if it is missing or wrong.
const (
	headerBytes  = 32
	segmentStart = 32
	magic        = "HANSABLK"
	format       = 1
	extension    = ".blocks"
	indexSuffix  = ".index"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type segment struct {
	name    string
	first   uint64
	file    vfs.File
	salt    [8]byte
	offsets []int64
	size    int64
	readers sync.WaitGroup
}

type header struct {
	block, extra   uint32
	number, synced uint64
	body           uint32
}

func (h header) bodyBytes() int64 { return int64(h.block) + int64(h.extra) }

func (h header) encode(salt [8]byte) []byte {
	b := make([]byte, 0, headerBytes)
	b = binary.LittleEndian.AppendUint32(b, h.block)
	b = binary.LittleEndian.AppendUint32(b, h.extra)
	b = binary.LittleEndian.AppendUint64(b, h.number)
	b = binary.LittleEndian.AppendUint64(b, h.synced)
	b = binary.LittleEndian.AppendUint32(b, h.body)
	return binary.LittleEndian.AppendUint32(b, headerSum(b, salt))
}

func headerSum(b []byte, salt [8]byte) uint32 {
	return crc32.Update(crc32.Checksum(salt[:], castagnoli), castagnoli, b)
}

func decodeHeader(b []byte, salt [8]byte) (header, bool) {
	if len(b) < headerBytes {
		return header{}, false
	}
	h := header{
		block: binary.LittleEndian.Uint32(b), extra: binary.LittleEndian.Uint32(b[4:]),
		number: binary.LittleEndian.Uint64(b[8:]), synced: binary.LittleEndian.Uint64(b[16:]),
		body: binary.LittleEndian.Uint32(b[24:]),
	}
	return h, binary.LittleEndian.Uint32(b[28:]) == headerSum(b[:28], salt) && h.bodyBytes()+headerBytes <= MaxRecordBytes
}

func segmentHeader(first uint64, salt [8]byte) []byte {
	tail := append(binary.LittleEndian.AppendUint64(nil, first), salt[:]...)
	b := append([]byte(magic), make([]byte, 0, segmentStart)...)
	b = binary.LittleEndian.AppendUint32(b, format)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(tail, castagnoli))
	return append(b, tail...)
}

// roll makes the last segment durable, writes its index and starts the next segment with the block of that number.
func (s *Store) roll(number uint64) (*segment, error) {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if err := s.syncLocked(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	var last *segment
	if len(s.segments) > 0 {
		last = s.segments[len(s.segments)-1]
	}
	s.mu.RUnlock()
	if last != nil {
		if err := s.writeIndex(last); err != nil {
			return nil, err
		}
	}
	seg := &segment{name: fmt.Sprintf("%020d%s", number, extension), first: number, size: segmentStart}
	rand.Read(seg.salt[:])
	if err := s.writeFile(seg.name, segmentHeader(number, seg.salt)); err != nil {
		return nil, fmt.Errorf("start segment %s: %w", seg.name, err)
	}
	var err error
	if seg.file, err = s.fs.OpenReadWrite(s.path(seg.name), vfs.WriteCategoryUnspecified); err != nil {
		return nil, fmt.Errorf("start segment: %w", err)
	}
	s.mu.Lock()
	s.segments = append(s.segments, seg)
	s.mu.Unlock()
	return seg, nil
}

// writeFile makes a small file appear whole and durable, or not at all.
func (s *Store) writeFile(name string, parts ...[]byte) error {
	temp := s.path(name + ".new")
	f, err := s.fs.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if _, e := f.Write(p); e != nil {
			err = errors.Join(err, e)
			break
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		s.fs.Remove(temp)
		return err
	}
	if err := s.fs.Rename(temp, s.path(name)); err != nil {
		return err
	}
	return s.syncDir()
}

func (s *Store) syncDir() error {
	d, err := s.fs.OpenDir(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *Store) writeIndex(seg *segment) error {
	b := make([]byte, 0, 16+8*len(seg.offsets))
	for _, at := range append(slices.Clone(seg.offsets), seg.size) {
		b = binary.LittleEndian.AppendUint64(b, uint64(at))
	}
	b = append(b, seg.salt[:]...)
	if err := s.writeFile(seg.name+indexSuffix, binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))); err != nil {
		return fmt.Errorf("write index of %s: %w", seg.name, err)
	}
	return nil
}

// readIndex reports false for an index that does not fit its segment.
func (s *Store) readIndex(seg *segment, fileSize int64) bool {
	f, err := s.fs.Open(s.path(seg.name + indexSuffix))
	if err != nil {
		return false
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil || len(b) < 20 || len(b)%8 != 4 {
		return false
	}
	b, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(b, castagnoli) != sum || !bytes.Equal(b[len(b)-8:], seg.salt[:]) {
		return false
	}
	b = b[:len(b)-8]
	offsets := make([]int64, 0, len(b)/8)
	for ; len(b) > 0; b = b[8:] {
		offsets = append(offsets, int64(binary.LittleEndian.Uint64(b)))
	}
	seg.size = offsets[len(offsets)-1]
	seg.offsets = offsets[:len(offsets)-1]
	return seg.size == fileSize
}

// load finds the segments and brings the last one to a clean end.
func (s *Store) load() error {
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	names = slices.DeleteFunc(names, func(n string) bool {
		if strings.HasSuffix(n, ".new") {
			s.fs.Remove(s.path(n)) // the rest of a crash; nothing depends on it
		}
		return !strings.HasSuffix(n, extension)
	})
	for i, name := range names {
		seg := &segment{name: name}
		if seg.file, err = s.fs.OpenReadWrite(s.path(name), vfs.WriteCategoryUnspecified); err != nil {
			return err
		}
		s.segments = append(s.segments, seg)
		if err := s.loadSegment(seg, i == len(names)-1); err != nil {
			return err
		}
		if i == 0 {
			s.first, s.next = seg.first, seg.first
		}
		if seg.first != s.next {
			return &CorruptError{File: s.path(name), Offset: 0, Number: s.next, Reason: fmt.Sprintf("the file starts with block %d, block %d should come next; a segment file is missing", seg.first, s.next)}
		}
		s.next = seg.first + uint64(len(seg.offsets))
	}
	return nil
}

func (s *Store) loadSegment(seg *segment, last bool) error {
	corrupt := func(at int64, number uint64, reason string) error {
		return &CorruptError{File: s.path(seg.name), Offset: at, Number: number, Reason: reason}
	}
	info, err := seg.file.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, segmentStart)
	if info.Size() < segmentStart {
		return corrupt(0, 0, "the file is shorter than its header")
	}
	if _, err := seg.file.ReadAt(b, 0); err != nil {
		return fmt.Errorf("read %s: %w", seg.name, err)
	}
	if string(b[:8]) != magic {
		return corrupt(0, 0, "this is no segment of a block store")
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v != format {
		return corrupt(8, 0, fmt.Sprintf("format %d, this program knows format %d", v, format))
	}
	if crc32.Checksum(b[16:], castagnoli) != binary.LittleEndian.Uint32(b[12:]) {
		return corrupt(12, 0, "the file's header does not match its checksum")
	}
	seg.first = binary.LittleEndian.Uint64(b[16:])
	copy(seg.salt[:], b[24:])
	if !last {
		if s.readIndex(seg, info.Size()) {
			return nil
		}
		seg.offsets, seg.size = nil, 0
	}
	return s.scan(seg, info.Size(), last)
}

// scan walks a segment's records. In the last segment it checks every body, and cuts what a crash left behind.
// (Segments before it were synced as a whole before their successor was made; their bodies are checked when read.)
func (s *Store) scan(seg *segment, fileSize int64, last bool) error {
	at, synced := int64(segmentStart), seg.first
	var bad string
	for at < fileSize {
		number := seg.first + uint64(len(seg.offsets))
		b := make([]byte, headerBytes)
		if n, err := seg.file.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s: %w", seg.name, err)
		} else {
			b = b[:n]
		}
		h, ok := decodeHeader(b, seg.salt)
		end := at + headerBytes + h.bodyBytes()
		switch {
		case !ok || h.number != number:
			bad = "no record where one should be"
		case end > fileSize:
			bad = "the record is longer than the file"
		case last:
			body := make([]byte, h.bodyBytes())
			if _, err := seg.file.ReadAt(body, at+headerBytes); err != nil && len(body) > 0 {
				return fmt.Errorf("read %s: %w", seg.name, err)
			}
			if crc32.Checksum(body, castagnoli) != h.body {
				bad = "the record does not match its checksum"
			}
		}
		if bad != "" {
			break
		}
		seg.offsets = append(seg.offsets, at)
		at, synced = end, max(synced, h.synced)
	}
	seg.size = at
	number := seg.first + uint64(len(seg.offsets))
	if bad != "" && !last {
		return &CorruptError{File: s.path(seg.name), Offset: at, Number: number, Reason: bad}
	}
	if !last {
		return s.writeIndex(seg)
	}
	if bad != "" {
		later, err := s.laterSynced(seg, at, fileSize, number)
		if err != nil {
			return err
		}
		if later {
			return &CorruptError{File: s.path(seg.name), Offset: at, Number: number, Reason: bad + ", although a later record says that it was durable"}
		}
		return s.cut(seg)
	}
	return s.settle(seg, synced)
}

// laterSynced looks behind a bad record for one that was written after the bad one was synced.
func (s *Store) laterSynced(seg *segment, at, fileSize int64, number uint64) (bool, error) {
	const chunk = 1 << 20
	buf := make([]byte, chunk+headerBytes)
	for at++; at < fileSize; at += chunk {
		n, err := seg.file.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, fmt.Errorf("read %s: %w", seg.name, err)
		}
		for i := 0; i < min(chunk, n); i++ {
			if h, ok := decodeHeader(buf[i:n], seg.salt); ok && h.number > number && h.synced > number {
				return true, nil
			}
		}
	}
	return false, nil
}

// cut replaces a torn segment by its good part. The old file stays until the new one is durable.
func (s *Store) cut(seg *segment) error {
	good := make([]byte, seg.size)
	if _, err := seg.file.ReadAt(good, 0); err != nil {
		return fmt.Errorf("read %s: %w", seg.name, err)
	}
	if err := seg.file.Close(); err != nil {
		return err
	}
	if err := s.writeFile(seg.name, good); err != nil {
		seg.file = nil
		return fmt.Errorf("cut the torn end of %s: %w", seg.name, err)
	}
	file, err := s.fs.OpenReadWrite(s.path(seg.name), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	seg.file = file
	return nil
}

// Truncate drops the blocks from a height on, newest first: whenever it is interrupted, the store holds a prefix of what it
// held, and Truncate again finishes the work. Nothing else may use the store meanwhile.
func (s *Store) Truncate(height uint64) error {
	if err := s.Sync(); err != nil {
		return err
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if height < s.first {
		return fmt.Errorf("truncate to height %d: the store starts at block %d", height, s.first)
	}
	for len(s.segments) > 0 && s.next > height {
		last := s.segments[len(s.segments)-1]
		last.readers.Wait()
		s.fs.Remove(s.path(last.name + indexSuffix)) // of the last segment nobody reads it
		if last.first < height {
			keep := height - last.first
			last.size, last.offsets = last.offsets[keep], last.offsets[:keep]
			if err := s.cut(last); err != nil {
				s.failed = fmt.Errorf("the block store must be opened again: %w", err)
				return s.failed
			}
		} else {
			err := errors.Join(last.file.Close(), s.fs.Remove(s.path(last.name)), s.syncDir())
			s.segments = s.segments[:len(s.segments)-1]
			if err != nil {
				s.failed = fmt.Errorf("the block store must be opened again: drop %s: %w", last.name, err)
				return s.failed
			}
		}
		s.next = max(height, last.first)
		s.synced = s.next
	}
	return nil
}

// settle writes the records that may not have reached the disk once more and flushes. They are read from the
// kernel's cache, which after a failed flush may hold them although the disk does not.
func (s *Store) settle(seg *segment, synced uint64) error {
	from := synced - seg.first
	if from >= uint64(len(seg.offsets)) {
		return nil
	}
	at := seg.offsets[from]
	b := make([]byte, seg.size-at)
	if _, err := seg.file.ReadAt(b, at); err != nil {
		return fmt.Errorf("read %s: %w", seg.name, err)
	}
	if _, err := seg.file.WriteAt(b, at); err != nil {
		return fmt.Errorf("settle the end of %s: %w", seg.name, err)
	}
	return seg.file.Sync()
}

// RewriteExtra lets f change the extra bytes of records: it gets each record's and returns what shall be there, which
// may be the same slice. A segment in which anything changed is written anew, beside the old one until it is
// durable; what was taken out is then in no file. It may not run while Append does; reads go on.
func (s *Store) RewriteExtra(f func(number uint64, extra []byte) ([]byte, error)) error {
	return s.rewriteSegments(func(*segment) bool { return true }, f)
}

// ReplaceExtra is RewriteExtra for the records that are named, and reads only the segments in which they are.
func (s *Store) ReplaceExtra(extras map[uint64][]byte) error {
	affected := func(seg *segment) bool {
		for number := range extras {
			if number >= seg.first && number-seg.first < uint64(len(seg.offsets)) {
				return true
			}
		}
		return false
	}
	return s.rewriteSegments(affected, func(number uint64, extra []byte) ([]byte, error) {
		if replaced, ok := extras[number]; ok {
			return replaced, nil
		}
		return extra, nil
	})
}

func (s *Store) rewriteSegments(affected func(*segment) bool, f func(number uint64, extra []byte) ([]byte, error)) error {
	if err := s.Sync(); err != nil {
		return err
	}
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.RLock()
	segments, err := slices.Clone(s.segments), s.usable()
	s.mu.RUnlock()
	if err != nil {
		return err
	}
	for i, old := range segments {
		if !affected(old) {
			continue
		}
		if err := s.rewrite(i, old, f); err != nil {
			return fmt.Errorf("rewrite %s: %w", old.name, err)
		}
	}
	return nil
}

func (s *Store) rewrite(i int, old *segment, f func(uint64, []byte) ([]byte, error)) error {
	seg := &segment{name: old.name, first: old.first}
	rand.Read(seg.salt[:])
	parts, changed := [][]byte{segmentHeader(seg.first, seg.salt)}, false
	seg.size = segmentStart
	for j := range old.offsets {
		number := old.first + uint64(j)
		block, extra, err := s.Read(number)
		if err != nil {
			return err
		}
		replaced, err := f(number, extra)
		if err != nil {
			return err
		}
		changed = changed || !bytes.Equal(replaced, extra)
		h := header{block: uint32(len(block)), extra: uint32(len(replaced)), number: number, synced: number}
		h.body = crc32.Update(crc32.Checksum(block, castagnoli), castagnoli, replaced)
		parts = append(parts, h.encode(seg.salt), block, replaced)
		seg.offsets = append(seg.offsets, seg.size)
		seg.size += headerBytes + h.bodyBytes()
	}
	if !changed {
		return nil
	}
	if err := s.writeFile(seg.name, parts...); err != nil {
		return err
	}
	var err error
	if seg.file, err = s.fs.OpenReadWrite(s.path(seg.name), vfs.WriteCategoryUnspecified); err != nil {
		return err
	}
	s.mu.Lock()
	s.segments[i] = seg
	s.mu.Unlock()
	old.readers.Wait()
	if err := old.file.Close(); err != nil {
		return err
	}
	if i < len(s.segments)-1 {
		return s.writeIndex(seg)
	}
	return nil
}
