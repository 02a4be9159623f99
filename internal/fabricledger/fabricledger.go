// Package fabricledger reads what nodes of Hyperledger Fabric have stored, so that a node of ours can go on where one of those was
// stopped: the files of blocks, which peers and orderers have alike, a peer's list of ledgers and its private data, an orderer's raft log.
//
// What it guarantees: nothing is changed, no file is made; a block that was being written when the node died is left out, any other
// damage is an error that names file and offset; a node that is still running is noticed.
//
// What it leaves out: state, history and indexes, which follow from the blocks. It does not believe what it reads: blocks and private data
// are for the commit pipeline to verify. The formats are those of Fabric 2.0 and later, whose data older ones are upgraded to.
//
// Files: fabricledger.go (this: blocks), databases.go (what lies in LevelDB), raftlog.go (what an orderer remembers of consensus).
package fabricledger

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

const (
	filePattern = "blockfile_[0-9][0-9][0-9][0-9][0-9][0-9]"
	// peek is how much of a record is read to see which block it is.
	peek = 2 * binary.MaxVarintLen64
)

// Blocks reads the blocks of one channel in order.
type Blocks struct {
	files []string
	first uint64

	at     int // of files
	file   *os.File
	reader *bufio.Reader
	offset int64 // of reader in file
	size   int64 // of file, as it was when it was opened
}

// OpenBlocks opens the folder that holds a channel's files, at its first block. Close it. io.EOF: there is none.
func OpenBlocks(dir string) (*Blocks, error) {
	files, err := filepath.Glob(filepath.Join(dir, filePattern))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, io.EOF
	}
	slices.Sort(files) // numbers have as many digits
	b := &Blocks{files: files}
	if err := b.open(0); err != nil {
		return nil, err
	}
	if b.first, err = b.peek(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

// First is the number of the first block that is stored: not 0 where a peer joined by a snapshot.
func (b *Blocks) First() uint64 { return b.first }

func (b *Blocks) open(i int) error {
	if err := b.Close(); err != nil {
		return err
	}
	f, err := os.Open(b.files[i])
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	b.at, b.file, b.reader, b.offset, b.size = i, f, bufio.NewReaderSize(f, 1<<20), 0, info.Size()
	return nil
}

// Close closes the file that is being read.
func (b *Blocks) Close() error {
	if b.file == nil {
		return nil
	}
	f := b.file
	b.file = nil
	return f.Close()
}

// record is the length of the record that is next, and of the number in front of it. io.EOF: there is none in this file; also when
// only a part of it was written, at the end of the last file.
func (b *Blocks) record() (length int64, prefix int, err error) {
	left := b.size - b.offset
	if left == 0 {
		return 0, 0, io.EOF
	}
	head, err := b.reader.Peek(int(min(left, binary.MaxVarintLen64)))
	if err != nil {
		return 0, 0, b.damaged(err)
	}
	n, prefix := protowire.ConsumeVarint(head)
	switch {
	case prefix < 0 && len(head) == binary.MaxVarintLen64:
		return 0, 0, b.damaged(errors.New("this is no length of a block"))
	case prefix >= 0 && n <= uint64(left-int64(prefix)):
		return int64(n), prefix, nil
	case b.at < len(b.files)-1:
		return 0, 0, b.damaged(errors.New("a block reaches beyond the end of the file, and there is a next file"))
	}
	return 0, 0, io.EOF
}

func (b *Blocks) damaged(err error) error {
	return fmt.Errorf("%s is damaged at offset %d: %w", b.files[b.at], b.offset, err)
}

// peek is the number of the next block in this file.
func (b *Blocks) peek() (uint64, error) {
	length, prefix, err := b.record()
	if err != nil {
		return 0, err
	}
	head, err := b.reader.Peek(int(min(int64(prefix)+length, peek)))
	if err != nil {
		return 0, b.damaged(err)
	}
	number, n := protowire.ConsumeVarint(head[prefix:])
	if n < 0 {
		return 0, b.damaged(errors.New("the block has no number"))
	}
	return number, nil
}

// next moves to the file that holds the next block. io.EOF: there is none.
func (b *Blocks) next() error {
	for {
		_, _, err := b.record()
		if !errors.Is(err, io.EOF) {
			return err
		}
		if b.at == len(b.files)-1 {
			return io.EOF
		}
		if err := b.open(b.at + 1); err != nil {
			return err
		}
	}
}

// Next reads a block. io.EOF: that was the last one.
func (b *Blocks) Next() (*commonpb.Block, error) {
	if err := b.next(); err != nil {
		return nil, err
	}
	length, prefix, err := b.record()
	if err != nil {
		return nil, err
	}
	if _, err := b.reader.Discard(prefix); err != nil {
		return nil, b.damaged(err)
	}
	raw := make([]byte, length)
	if _, err := io.ReadFull(b.reader, raw); err != nil {
		return nil, b.damaged(err)
	}
	block, err := decodeBlock(raw)
	if err != nil {
		return nil, b.damaged(err)
	}
	b.offset += int64(prefix) + length
	return block, nil
}

// Seek moves to a block. io.EOF: it is not there.
func (b *Blocks) Seek(number uint64) error {
	if number < b.first {
		return io.EOF
	}
	// In the last file that does not begin behind it; an empty last one begins where the one before ends.
	i := len(b.files) - 1
	for ; i > 0; i-- {
		if err := b.open(i); err != nil {
			return err
		}
		begins, err := b.peek()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err == nil && begins <= number {
			break
		}
	}
	if err := b.open(i); err != nil {
		return err
	}
	for {
		if err := b.next(); err != nil {
			return err
		}
		switch at, err := b.peek(); {
		case err != nil:
			return err
		case at == number:
			return nil
		case at > number:
			return b.damaged(fmt.Errorf("block %d is missing, this is %d", number, at))
		}
		if err := b.skip(); err != nil {
			return err
		}
	}
}

// Height is how many blocks the channel has, counted from its first block ever. Next then begins anew.
func (b *Blocks) Height() (uint64, error) {
	height := b.first
	for i := len(b.files) - 1; i >= 0; i-- {
		if err := b.open(i); err != nil {
			return 0, err
		}
		for {
			number, err := b.peek()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return 0, err
			}
			height = number + 1
			if err := b.skip(); err != nil {
				return 0, err
			}
		}
		if b.offset > 0 {
			break
		}
	}
	return height, b.open(0)
}

// skip moves behind the next block.
func (b *Blocks) skip() error {
	length, prefix, err := b.record()
	if err != nil {
		return err
	}
	b.offset += int64(prefix) + length
	if _, err := b.file.Seek(b.offset, io.SeekStart); err != nil {
		return err
	}
	b.reader.Reset(b.file)
	return nil
}

// decodeBlock reads Fabric's own serialization of a block: number, data hash and previous hash, then the transactions and the
// metadata, each with their number in front.
func decodeBlock(raw []byte) (*commonpb.Block, error) {
	d := &decoder{rest: raw}
	block := &commonpb.Block{Header: &commonpb.BlockHeader{}, Data: &commonpb.BlockData{}, Metadata: &commonpb.BlockMetadata{}}
	block.Header.Number = d.varint()
	block.Header.DataHash = d.bytes()
	if block.Header.PreviousHash = d.bytes(); len(block.Header.PreviousHash) == 0 {
		block.Header.PreviousHash = nil
	}
	block.Data.Data = d.list()
	block.Metadata.Metadata = d.list()
	switch {
	case d.bad:
		return nil, errors.New("the block cannot be decoded")
	case len(d.rest) > 0:
		return nil, fmt.Errorf("%d bytes follow the block", len(d.rest))
	}
	return block, nil
}

// decoder reads until the first fault, after which it gives nothing.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) varint() uint64 {
	v, n := protowire.ConsumeVarint(d.rest)
	if d.bad = d.bad || n < 0; d.bad {
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes() []byte {
	b, n := protowire.ConsumeBytes(d.rest)
	if d.bad = d.bad || n < 0; d.bad {
		return nil
	}
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) list() (list [][]byte) {
	n := d.varint()
	if n > uint64(len(d.rest)) { // each has a byte at least
		d.bad = true
	}
	for ; n > 0 && !d.bad; n-- {
		list = append(list, d.bytes())
	}
	return list
}
