// Package blockstore is the append-only log of blocks: the one thing of a ledger that is flushed to disk before
// anyone hears of it. Everything else a node keeps can be made again from it.
//
// A record is a block's bytes and extra bytes that belong to it (a peer's private data). Records lie one after
// the other in segment files of bounded size. Guarantees:
//
//   - After Sync returns, the records appended before it survive kill -9 and power loss.
//   - A record that was being written when the machine stopped is cut at the next Open; whatever was
//     synced is never cut. A damaged record in front of synced ones is an error that names file and offset.
//   - One process at a time: a second one is told who holds the folder.
//   - A failed Append (disk full) leaves the store as it was; the same Append may be tried again. A failed
//     Sync stops the store, since the kernel may have dropped what it could not write; Open starts it again.
//
// Blocks are never changed. Their extra bytes may be, by RewriteExtra, since private data has to be erasable. Truncate
// drops the newest, when an operator rolls a ledger back.
//
// It leaves out what is in a block: it never parses one. Open segment.go for the layout on disk.
package blockstore

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Bounds.
const (
	DefaultSegmentBytes = 64 << 20
	// MaxRecordBytes bounds one record; the orderer's absolute limits lie far below.
	MaxRecordBytes = 1 << 30
)

// ErrClosed is the error of a store that was closed, as fs.ErrClosed is of a file.
var ErrClosed error = closedError{}

type closedError struct{}

func (closedError) Error() string        { return "the block store is closed" }
func (closedError) Is(target error) bool { return target == fs.ErrClosed }

// ErrNotFound is for a block number that the store does not hold.
var ErrNotFound = errors.New("block not found")

// Options of a store. The zero value is usable.
type Options struct {
	// FS is the file system, the machine's own if nil.
	FS vfs.FS
	// SegmentBytes is the size above which a new segment file is started, DefaultSegmentBytes if 0. A record larger than
	// that has a segment of its own.
	SegmentBytes int64
	// First is the number of the first block of an empty store, other than 0 only for a ledger that starts from a
	// snapshot.
	First uint64
}

// Store is an open log. Append and Sync may run at the same time, each on one goroutine; reads on any number.
type Store struct {
	dir   string
	fs    vfs.FS
	limit int64
	lock  io.Closer

	syncing sync.Mutex // held for the length of a Sync and of a change of segments; taken before mu

	mu       sync.RWMutex
	segments []*segment // in the order of their blocks, none empty but perhaps the last
	first    uint64
	next     uint64 // number of the next block
	synced   uint64 // blocks below are durable
	failed   error
	closed   bool
}

// Open opens or creates the store in dir.
func Open(dir string, opts Options) (*Store, error) {
	s := &Store{dir: dir, fs: opts.FS, limit: opts.SegmentBytes, first: opts.First, next: opts.First}
	if s.fs == nil {
		s.fs = vfs.Default
	}
	if s.limit <= 0 {
		s.limit = DefaultSegmentBytes
	}
	if err := makeDir(s.fs, dir); err != nil {
		return nil, fmt.Errorf("open block store: %w", err)
	}
	if err := s.acquire(); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		s.Close()
		return nil, fmt.Errorf("open block store in %s: %w", dir, err)
	}
	s.synced = s.next
	return s, nil
}

// makeDir makes a folder durable in its parent: a synced file in a lost folder is lost.
func makeDir(fs vfs.FS, dir string) error {
	parent := fs.PathDir(dir)
	if _, err := fs.Stat(dir); err != nil && parent != dir {
		if err := makeDir(fs, parent); err != nil {
			return err
		}
		if err := fs.MkdirAll(dir, 0o750); err != nil {
			return err
		}
	}
	if parent == dir {
		return nil
	}
	d, err := fs.OpenDir(parent)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *Store) path(name string) string { return s.fs.PathJoin(s.dir, name) }

// acquire takes the folder. The lock is the operating system's and ends with the process; the text beside it
// is for the one who is refused.
func (s *Store) acquire() error {
	lock, err := s.fs.Lock(s.path("LOCK"))
	if err != nil {
		return fmt.Errorf("block store %s is in use by %s; stop that process or choose another data folder (%w)", s.dir, s.holder(), err)
	}
	s.lock = lock
	host, _ := os.Hostname()
	f, err := s.fs.Create(s.path("HOLDER"), vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = fmt.Fprintf(f, "process %d on host %q", os.Getpid(), host)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		lock.Close()
		return fmt.Errorf("open block store: note the holder of %s: %w", s.dir, err)
	}
	return nil
}

func (s *Store) holder() string {
	if f, err := s.fs.Open(s.path("HOLDER")); err == nil {
		defer f.Close()
		if text, err := io.ReadAll(io.LimitReader(f, 256)); err == nil && len(text) > 0 {
			return strings.TrimSpace(string(text))
		}
	}
	return "another process"
}

// First is the number of the first block that the store holds or will hold.
func (s *Store) First() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.first
}

// Height is the number of the next block, counting blocks that were appended but not yet synced.
func (s *Store) Height() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.next
}

// Synced is the height up to which blocks are durable.
func (s *Store) Synced() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.synced
}

func (s *Store) usable() error {
	if s.closed {
		return ErrClosed
	}
	return s.failed
}

// Append writes the next block, whose number must be Height. It is durable after the next Sync. The store keeps
// neither slice.
func (s *Store) Append(number uint64, block, extra []byte) error {
	size := int64(headerBytes) + int64(len(block)) + int64(len(extra))
	if size > MaxRecordBytes {
		return fmt.Errorf("append block %d: %d bytes, at most %d fit", number, size, MaxRecordBytes)
	}
	s.mu.RLock()
	err, next, synced := s.usable(), s.next, s.synced
	var last *segment
	if len(s.segments) > 0 {
		last = s.segments[len(s.segments)-1]
	}
	s.mu.RUnlock()
	if err != nil {
		return fmt.Errorf("append block %d: %w", number, err)
	}
	if number != next {
		return fmt.Errorf("append block %d: the next block is %d", number, next)
	}
	if last == nil || last.size+size > s.limit && len(last.offsets) > 0 {
		if last, err = s.roll(number); err != nil {
			return fmt.Errorf("append block %d: %w", number, err)
		}
		synced = number
	}

	at := last.size
	h := header{block: uint32(len(block)), extra: uint32(len(extra)), number: number, synced: synced}
	h.body = crc32.Update(crc32.Checksum(block, castagnoli), castagnoli, extra)
	// The header goes last: until it is there, the bytes after the last record mean nothing.
	for _, part := range []struct {
		b  []byte
		at int64
	}{{block, at + headerBytes}, {extra, at + headerBytes + int64(len(block))}, {h.encode(last.salt), at}} {
		if len(part.b) == 0 {
			continue
		}
		if _, err := last.file.WriteAt(part.b, part.at); err != nil {
			// What was written lies behind the last record, where the next Append overwrites it and Open cuts it. A header
			// that got there in part is wiped, best effort, so that not even a whole one stays by chance.
			last.file.WriteAt(make([]byte, headerBytes), at)
			return fmt.Errorf("append block %d to %s: %w (free some space and try again; nothing was lost)", number, last.name, err)
		}
	}
	s.mu.Lock()
	last.offsets = append(last.offsets, at)
	last.size += size
	s.next = number + 1
	s.mu.Unlock()
	return nil
}

// Sync makes every block that was appended before durable: several appends and one Sync cost one flush.
func (s *Store) Sync() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	return s.syncLocked()
}

func (s *Store) syncLocked() error {
	s.mu.RLock()
	err, upTo, done := s.usable(), s.next, s.synced
	var last *segment
	if len(s.segments) > 0 {
		last = s.segments[len(s.segments)-1]
	}
	s.mu.RUnlock()
	if err != nil {
		return fmt.Errorf("sync block store: %w", err)
	}
	if upTo == done {
		return nil
	}
	if err := last.file.SyncData(); err != nil {
		s.mu.Lock()
		s.failed = fmt.Errorf("the block store stopped at a failed flush of %s and must be opened again: %w", last.name, err)
		err = s.failed
		s.mu.Unlock()
		return err
	}
	s.mu.Lock()
	s.synced = max(s.synced, upTo)
	s.mu.Unlock()
	return nil
}

// Read gives a block and its extra bytes, checked against their sum. Blocks that are not yet synced are read too.
func (s *Store) Read(number uint64) (block, extra []byte, err error) {
	s.mu.RLock()
	if s.closed {
		s.mu.RUnlock()
		return nil, nil, fmt.Errorf("read block: %w", ErrClosed)
	}
	if number < s.first || number >= s.next {
		first, next := s.first, s.next
		s.mu.RUnlock()
		if number < first {
			return nil, nil, fmt.Errorf("%w: number %d, the store starts at %d", ErrNotFound, number, first)
		}
		return nil, nil, fmt.Errorf("%w: number %d, height %d", ErrNotFound, number, next)
	}
	seg := s.segmentOf(number)
	i := number - seg.first
	at, end := seg.offsets[i], seg.size
	if i+1 < uint64(len(seg.offsets)) {
		end = seg.offsets[i+1]
	}
	// A reader holds the segment's file while it reads, so that Close waits for it.
	seg.readers.Add(1)
	s.mu.RUnlock()
	defer seg.readers.Done()

	b := make([]byte, end-at)
	if _, err := seg.file.ReadAt(b, at); err != nil {
		return nil, nil, fmt.Errorf("read block %d from %s at offset %d: %w", number, seg.name, at, err)
	}
	h, ok := decodeHeader(b, seg.salt)
	body := b[headerBytes:]
	if !ok || h.number != number || h.bodyBytes() != int64(len(body)) || crc32.Checksum(body, castagnoli) != h.body {
		return nil, nil, &CorruptError{File: s.path(seg.name), Offset: at, Number: number, Reason: "the record does not match its checksum"}
	}
	return body[:h.block:h.block], body[h.block:], nil
}

// segmentOf is called with mu held, for a number that is there.
func (s *Store) segmentOf(number uint64) *segment {
	lo, hi := 0, len(s.segments)
	for hi-lo > 1 {
		if m := (lo + hi) / 2; s.segments[m].first <= number {
			lo = m
		} else {
			hi = m
		}
	}
	return s.segments[lo]
}

// Close ends the store after the reads that are under way. What was not synced may be lost.
func (s *Store) Close() error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	segments := s.segments
	s.mu.Unlock()
	var err error
	for _, seg := range segments {
		seg.readers.Wait()
		if seg.file == nil { // an Open that failed half-way
			continue
		}
		err = errors.Join(err, seg.file.Close())
	}
	s.fs.Remove(s.path("HOLDER"))
	return errors.Join(err, s.lock.Close())
}

// CorruptError is damage that is no torn tail: bytes that were once durable have changed.
type CorruptError struct {
	File   string
	Offset int64
	Number uint64
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("block store is damaged: %s, offset %d, block %d: %s; restore the file from a backup, or remove the node's data and let it fetch the channel again",
		e.File, e.Offset, e.Number, e.Reason)
}
