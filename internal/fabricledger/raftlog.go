package fabricledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// RaftLog is what an orderer remembers of consensus on a channel.
type RaftLog struct {
	Hard     *raftpb.HardState // nil: nothing was promised yet
	Snapshot *raftpb.Snapshot  // what the entries follow; nil: they begin at 1
	Entries  []*raftpb.Entry   // consecutive
}

// The records of etcd's write-ahead log.
const (
	recordMetadata = iota + 1
	recordEntry
	recordState
	recordCRC
	recordSnapshot
)

// sector is the unit that a disk writes whole, which etcd aligns its writes to.
const sector = 512

const maxSnapshot = 256 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrNoRaftLog says that there is no log.
var ErrNoRaftLog = errors.New("there is no consensus log")

// ReadRaftLog reads the log of one channel: the segments in walDir, and the newest snapshot in snapDir.
func ReadRaftLog(walDir, snapDir string) (*RaftLog, error) {
	log := &RaftLog{}
	var err error
	if log.Snapshot, err = newestSnapshot(snapDir); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(walDir, "????????????????-????????????????.wal"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, ErrNoRaftLog
	}
	slices.Sort(files)
	r := &segmentReader{log: log, noted: log.Snapshot == nil}
	for i, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		offset, err := r.read(raw)
		if err != nil && (i < len(files)-1 || !torn(raw, offset)) {
			return nil, fmt.Errorf("%s is damaged at offset %d: %w", file, offset, err)
		}
	}
	if !r.noted {
		return nil, fmt.Errorf("the log in %s does not know the snapshot at entry %d", walDir, log.Snapshot.GetMetadata().GetIndex())
	}
	return log, nil
}

// segmentReader takes one segment after the other.
type segmentReader struct {
	log   *RaftLog
	crc   uint32 // of all records so far
	noted bool   // that there is the snapshot
}

// read takes a segment's records, up to the space that is not used yet. It tells where the first bad one begins.
func (r *segmentReader) read(raw []byte) (offset int, err error) {
	for offset < len(raw) {
		if len(raw)-offset < 8 {
			return offset, errors.New("a record is cut off")
		}
		field := binary.LittleEndian.Uint64(raw[offset:])
		if field == 0 {
			return offset, nil
		}
		length, padding := field&^(uint64(0xff)<<56), uint64(0)
		if field>>63 == 1 {
			padding = field >> 56 & 7
		}
		if length+padding > uint64(len(raw)-offset-8) {
			return offset, errors.New("a record reaches beyond the end of the file")
		}
		if err := r.record(raw[offset+8:][:length]); err != nil {
			return offset, err
		}
		offset += 8 + int(length+padding)
	}
	return offset, nil
}

// torn tells whether a record may be bad because the machine stopped while it was written: a sector of it was not.
func torn(raw []byte, offset int) bool {
	if len(raw)-offset < 8 {
		return true
	}
	length := binary.LittleEndian.Uint64(raw[offset:]) &^ (uint64(0xff) << 56)
	if length > uint64(len(raw)-offset-8) {
		return true
	}
	end := offset + 8 + int(length)
	for at := offset; at < end; {
		next := min(end, (at/sector+1)*sector)
		if len(bytes.Trim(raw[at:next], "\x00")) == 0 {
			return true
		}
		at = next
	}
	return false
}

func (r *segmentReader) record(raw []byte) error {
	var kind uint64
	var crc uint32
	var data []byte
	err := walk(raw, func(field protowire.Number, number uint64, value []byte) {
		switch {
		case field == 1 && value == nil:
			kind = number
		case field == 2 && value == nil:
			crc = uint32(number)
		case field == 3 && value != nil:
			data = value
		}
	})
	if err != nil {
		return err
	}
	if kind == recordCRC { // begins a segment, and carries on the sum of the one before
		if r.crc != 0 && crc != r.crc {
			return errors.New("the segment does not follow the one before")
		}
		r.crc = crc
		return nil
	}
	sum := crc32.Update(r.crc, castagnoli, data)
	if sum != crc {
		return errors.New("the record's checksum is wrong")
	}
	r.crc = sum
	switch kind {
	case recordMetadata:
		return nil
	case recordEntry:
		return r.entry(data)
	case recordState:
		r.log.Hard = &raftpb.HardState{}
		return proto.Unmarshal(data, r.log.Hard)
	case recordSnapshot:
		return r.snapshot(data)
	}
	return fmt.Errorf("the record is of the unknown kind %d", kind)
}

// entry takes an entry; it replaces those from its index on.
func (r *segmentReader) entry(data []byte) error {
	e := &raftpb.Entry{}
	if err := proto.Unmarshal(data, e); err != nil {
		return err
	}
	after := r.log.Snapshot.GetMetadata().GetIndex()
	if e.GetIndex() <= after {
		return nil
	}
	at := e.GetIndex() - after - 1
	if at > uint64(len(r.log.Entries)) {
		return fmt.Errorf("entry %d follows entry %d", e.GetIndex(), after+uint64(len(r.log.Entries)))
	}
	r.log.Entries = append(r.log.Entries[:at], e)
	return nil
}

// snapshot notes that the log knows the snapshot that was found.
func (r *segmentReader) snapshot(data []byte) error {
	var index, term uint64
	err := walk(data, func(field protowire.Number, number uint64, value []byte) {
		if field == 1 && value == nil {
			index = number
		} else if field == 2 && value == nil {
			term = number
		}
	})
	if err != nil {
		return err
	}
	m := r.log.Snapshot.GetMetadata()
	r.noted = r.noted || index == m.GetIndex() && term == m.GetTerm()
	return nil
}

// newestSnapshot reads the newest snapshot that is whole.
func newestSnapshot(dir string) (*raftpb.Snapshot, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.snap"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files) // names begin with term and index
	for _, file := range slices.Backward(files) {
		info, err := os.Stat(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err != nil || info.Size() > maxSnapshot {
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if s, err := decodeSnapshot(raw); err == nil {
			return s, nil
		}
	}
	return nil, nil
}

func decodeSnapshot(raw []byte) (*raftpb.Snapshot, error) {
	var crc uint32
	var data []byte
	err := walk(raw, func(field protowire.Number, number uint64, value []byte) {
		if field == 1 && value == nil {
			crc = uint32(number)
		} else if field == 2 && value != nil {
			data = value
		}
	})
	if err != nil {
		return nil, err
	}
	if len(data) == 0 || crc32.Checksum(data, castagnoli) != crc {
		return nil, errors.New("the snapshot is damaged")
	}
	s := &raftpb.Snapshot{}
	if err := proto.Unmarshal(data, s); err != nil {
		return nil, err
	}
	if s.GetMetadata().GetIndex() == 0 {
		return nil, errors.New("the snapshot is empty")
	}
	return s, nil
}
