package raft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// The write-ahead log is a folder of segments, NNNNNNNNNNNNNNNN.wal, read in the order of their names. A segment is a
// magic followed by frames: length (4 bytes), CRC-32C of the payload (4 bytes), payload. A frame is all that one step of
// the state machine made durable, so it is whole or absent; its payload is a list of items: kind (1 byte), length
// (uvarint), bytes. Every segment starts with a frame that holds a base item, so that older segments can be deleted.
//
// Every frame is fsynced before the next is written. Therefore at most the last frame can be torn by a crash: a bad
// frame with a good one somewhere behind it is a damaged disk, not a torn write, and is refused instead of cut.

const (
	itemBase      = 1 // raftpb.Snapshot: the log starts behind this index
	itemHardState = 2 // raftpb.HardState
	itemEntry     = 3 // raftpb.Entry; one with an index already present replaces it and all behind it
	itemConfState = 4 // raftpb.ConfState: the members after the conf changes applied so far

	frameHeader   = 8
	maxFrame      = 1 << 30
	segmentSuffix = ".wal"
)

var (
	segmentMagic = []byte("HANSAWL1")
	castagnoli   = crc32.MakeTable(crc32.Castagnoli)
)

// CorruptLogError says that the log is damaged at a place where no crash can have damaged it.
type CorruptLogError struct {
	File   string
	Offset int64
	Reason string
}

func (e *CorruptLogError) Error() string {
	return fmt.Sprintf("raft log %s is damaged at byte %d (%s): restore the node's folder from a copy, or remove the channel from this node and join it again from another orderer", e.File, e.Offset, e.Reason)
}

// state is what the log says: the result of reading it from its first item to its last.
type state struct {
	base    *raftpb.Snapshot
	hard    *raftpb.HardState
	conf    *raftpb.ConfState
	entries []*raftpb.Entry // consecutive, first index is base's + 1
}

// wal appends frames to the newest segment. It is owned by one goroutine. After an error it is unusable: what a failed
// write or fsync left on the disk is unknown, and only reading it again tells.
type wal struct {
	dir  string
	file *os.File
	seq  uint64
	size int64
	buf  []byte
	err  error
}

// openWAL reads the log and opens it for appending. A nil state means that the log is new and empty.
func openWAL(dir string) (*wal, *state, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, nil, fmt.Errorf("create raft log folder: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("list raft log folder: %w", err)
	}
	var seqs []uint64
	for _, n := range names {
		stem, ok := strings.CutSuffix(n.Name(), segmentSuffix)
		if !ok {
			continue
		}
		seq, err := strconv.ParseUint(stem, 16, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("raft log folder %s holds the unknown file %s: move it away", dir, n.Name())
		}
		seqs = append(seqs, seq)
	}
	slices.Sort(seqs)

	w := &wal{dir: dir}
	st := &state{}
	for i, seq := range seqs {
		last := i == len(seqs)-1
		good, whole, err := readSegment(w.path(seq), last, st)
		if err != nil {
			return nil, nil, err
		}
		if !last {
			continue
		}
		if good == 0 {
			// The crash came while this segment was being started; the one before it is still complete.
			if err := os.Remove(w.path(seq)); err != nil {
				return nil, nil, fmt.Errorf("remove unfinished raft log segment: %w", err)
			}
			if i == 0 {
				break
			}
			seq = seqs[i-1]
			info, err := os.Stat(w.path(seq))
			if err != nil {
				return nil, nil, fmt.Errorf("open raft log: %w", err)
			}
			good, whole = info.Size(), true
		}
		if err := w.reopen(seq, good, whole); err != nil {
			return nil, nil, err
		}
	}
	if st.base == nil {
		return w, nil, nil
	}
	return w, st, nil
}

func (w *wal) path(seq uint64) string {
	return filepath.Join(w.dir, fmt.Sprintf("%016x%s", seq, segmentSuffix))
}

func (w *wal) reopen(seq uint64, size int64, whole bool) error {
	f, err := os.OpenFile(w.path(seq), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open raft log: %w", err)
	}
	if !whole {
		if err := f.Truncate(size); err != nil {
			f.Close()
			return fmt.Errorf("cut torn end of raft log: %w", err)
		}
		if err := f.Sync(); err != nil {
			f.Close()
			return fmt.Errorf("sync raft log: %w", err)
		}
	}
	if _, err := f.Seek(size, io.SeekStart); err != nil {
		f.Close()
		return fmt.Errorf("open raft log: %w", err)
	}
	w.file, w.seq, w.size = f, seq, size
	return nil
}

// readSegment applies a segment to st. It returns the offset up to which the segment is good (0 if not even its first
// frame is) and whether that is its end.
func readSegment(path string, last bool, st *state) (good int64, whole bool, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false, fmt.Errorf("read raft log: %w", err)
	}
	good, reason, err := readFrames(data, st)
	if err != nil {
		return 0, false, &CorruptLogError{File: path, Offset: good, Reason: err.Error()}
	}
	if reason == "" {
		return good, true, nil
	}
	if !last {
		return 0, false, &CorruptLogError{File: path, Offset: good, Reason: reason}
	}
	if at, ok := nextFrame(data, int(good)+1); ok {
		return 0, false, &CorruptLogError{File: path, Offset: good, Reason: fmt.Sprintf("%s, yet a good record follows at byte %d", reason, at)}
	}
	return good, false, nil
}

// readFrames applies the frames of a segment until the first bad one, and says what is wrong with that. An error means
// that a frame is whole but its content makes no sense.
func readFrames(data []byte, st *state) (good int64, reason string, err error) {
	if len(data) < len(segmentMagic) || string(data[:len(segmentMagic)]) != string(segmentMagic) {
		return 0, "no segment header", nil
	}
	off := len(segmentMagic)
	for off < len(data) {
		payload, why := frameAt(data, off)
		if why != "" {
			if off == len(segmentMagic) {
				off = 0 // without its base the segment says nothing
			}
			return int64(off), why, nil
		}
		if err := st.apply(payload); err != nil {
			return int64(off), "", err
		}
		off += frameHeader + len(payload)
	}
	if off == len(segmentMagic) {
		return 0, "empty segment", nil
	}
	return int64(off), "", nil
}

func frameAt(data []byte, off int) (payload []byte, why string) {
	if len(data)-off < frameHeader {
		return nil, "incomplete record header"
	}
	n := int(binary.BigEndian.Uint32(data[off:]))
	if n == 0 || n > maxFrame {
		return nil, "impossible record length"
	}
	if len(data)-off-frameHeader < n {
		return nil, "incomplete record"
	}
	payload = data[off+frameHeader : off+frameHeader+n]
	if crc32.Checksum(payload, castagnoli) != binary.BigEndian.Uint32(data[off+4:]) {
		return nil, "checksum mismatch"
	}
	return payload, ""
}

// nextFrame looks for a good frame at or behind off. A torn frame may itself be megabytes of anything, so the search
// first tests the cheap things; a false match needs a CRC collision and would only turn a cut into a refusal.
func nextFrame(data []byte, off int) (int, bool) {
	for ; off+frameHeader < len(data); off++ {
		kind := data[off+frameHeader]
		if kind < itemBase || kind > itemConfState {
			continue
		}
		payload, why := frameAt(data, off)
		if why == "" && new(state).wellFormed(payload) {
			return off, true
		}
	}
	return 0, false
}

func (st *state) wellFormed(payload []byte) bool {
	return eachItem(payload, func(byte, []byte) error { return nil }) == nil
}

func (st *state) apply(payload []byte) error { return eachItem(payload, st.applyItem) }

func (st *state) applyItem(kind byte, b []byte) error {
	switch kind {
	case itemBase:
		s := &raftpb.Snapshot{}
		if err := proto.Unmarshal(b, s); err != nil {
			return fmt.Errorf("base: %w", err)
		}
		s = raftpb.EnsureSnapshot(s)
		index := s.GetMetadata().GetIndex()
		// A base written by a compaction repeats what the older segments said: keep the entries behind it.
		i := 0
		for i < len(st.entries) && st.entries[i].GetIndex() <= index {
			i++
		}
		st.entries = slices.Clone(st.entries[i:])
		st.base, st.conf = s, raftpb.EnsureConfState(s.GetMetadata().GetConfState())
		if len(st.entries) > 0 && st.entries[0].GetIndex() != index+1 {
			return fmt.Errorf("base at index %d is followed by entry %d", index, st.entries[0].GetIndex())
		}
	case itemHardState:
		h := &raftpb.HardState{}
		if err := proto.Unmarshal(b, h); err != nil {
			return fmt.Errorf("hard state: %w", err)
		}
		st.hard = h
	case itemConfState:
		c := &raftpb.ConfState{}
		if err := proto.Unmarshal(b, c); err != nil {
			return fmt.Errorf("members: %w", err)
		}
		st.conf = c
	case itemEntry:
		if st.base == nil {
			return errors.New("entry before any base")
		}
		e := &raftpb.Entry{}
		if err := proto.Unmarshal(b, e); err != nil {
			return fmt.Errorf("entry: %w", err)
		}
		base := st.base.GetMetadata().GetIndex()
		if e.GetIndex() <= base {
			return nil
		}
		at := e.GetIndex() - base - 1
		if at > uint64(len(st.entries)) {
			return fmt.Errorf("entry %d follows entry %d", e.GetIndex(), base+uint64(len(st.entries)))
		}
		st.entries = append(st.entries[:at], e)
	default:
		return fmt.Errorf("unknown item kind %d: written by a newer version?", kind)
	}
	return nil
}

func eachItem(payload []byte, f func(kind byte, b []byte) error) error {
	for len(payload) > 0 {
		kind := payload[0]
		n, k := binary.Uvarint(payload[1:])
		if k <= 0 || n > uint64(len(payload)-1-k) {
			return errors.New("item longer than its record")
		}
		if err := f(kind, payload[1+k:1+k+int(n)]); err != nil {
			return err
		}
		payload = payload[1+k+int(n):]
	}
	return nil
}

func appendItem(buf []byte, kind byte, m proto.Message) ([]byte, error) {
	buf = append(buf, kind)
	buf = binary.AppendUvarint(buf, uint64(proto.Size(m)))
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(buf, m)
}

// append writes one frame and makes it durable.
func (w *wal) append(fill func(buf []byte) ([]byte, error)) error {
	if w.err != nil {
		return w.err
	}
	if w.file == nil {
		return errors.New("raft log has no segment")
	}
	buf, err := fill(append(w.buf[:0], 0, 0, 0, 0, 0, 0, 0, 0))
	if err != nil {
		return fmt.Errorf("encode raft log record: %w", err)
	}
	if cap(buf) <= 8<<20 {
		w.buf = buf // one large block must not pin its buffer for ever
	}
	if len(buf)-frameHeader > maxFrame {
		return fmt.Errorf("raft log record of %d bytes is too large", len(buf))
	}
	sealFrame(buf)
	if _, err := w.file.Write(buf); err != nil {
		w.err = fmt.Errorf("write raft log: %w", err)
		return w.err
	}
	if err := w.file.Sync(); err != nil {
		w.err = fmt.Errorf("sync raft log: %w", err)
		return w.err
	}
	w.size += int64(len(buf))
	return nil
}

func sealFrame(buf []byte) {
	binary.BigEndian.PutUint32(buf, uint32(len(buf)-frameHeader))
	binary.BigEndian.PutUint32(buf[4:], crc32.Checksum(buf[frameHeader:], castagnoli))
}

// startSegment begins a new segment with one frame that stands for all that older segments said, then deletes them. A
// crash in between leaves either the old segments alone, or old and new which say the same.
func (w *wal) startSegment(st *state) error {
	if w.err != nil {
		return w.err
	}
	buf := append([]byte{}, make([]byte, frameHeader)...)
	var err error
	if buf, err = appendItem(buf, itemBase, st.base); err != nil {
		return fmt.Errorf("encode raft log base: %w", err)
	}
	if st.hard != nil {
		if buf, err = appendItem(buf, itemHardState, st.hard); err != nil {
			return fmt.Errorf("encode raft log base: %w", err)
		}
	}
	for _, e := range st.entries {
		if buf, err = appendItem(buf, itemEntry, e); err != nil {
			return fmt.Errorf("encode raft log base: %w", err)
		}
	}
	sealFrame(buf)

	seq := w.seq + 1
	f, err := os.OpenFile(w.path(seq), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return fmt.Errorf("start raft log segment: %w", err)
	}
	fail := func(err error) error {
		f.Close()
		w.err = fmt.Errorf("start raft log segment: %w", err)
		return w.err
	}
	if _, err := f.Write(slices.Concat(segmentMagic, buf)); err != nil {
		return fail(err)
	}
	if err := f.Sync(); err != nil {
		return fail(err)
	}
	if err := syncDir(w.dir); err != nil {
		return fail(err)
	}
	old := w.seq
	if w.file != nil {
		if err := w.file.Close(); err != nil {
			return fail(err)
		}
	}
	w.file, w.seq, w.size = f, seq, int64(len(segmentMagic)+len(buf))
	for ; old > 0; old-- {
		if err := os.Remove(w.path(old)); errors.Is(err, os.ErrNotExist) {
			break
		} else if err != nil {
			return fmt.Errorf("remove old raft log segment: %w", err)
		}
	}
	return nil
}

func (w *wal) close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	if w.err == nil {
		w.err = errors.New("raft log is closed")
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
