package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// source gives the blocks from the first up to a height.
type source interface {
	First() uint64
	Height() uint64
	Block(number uint64) (*commonpb.Block, error)
	Close() error
}

// openSource finds out what kind of folder dir is.
func openSource(dir string) (source, error) {
	for _, folder := range []string{dir, filepath.Join(dir, "blocks")} {
		files, err := filepath.Glob(filepath.Join(folder, "*.block"))
		if err != nil {
			return nil, fmt.Errorf("list block files: %w", err)
		}
		if s := newFiles(files); len(s) > 0 {
			return s, nil
		}
	}
	return openLedger(dir)
}

// files are block files in the order of their numbers.
type files []string

// newFiles keeps those of names whose file name is a number.
func newFiles(names []string) files {
	type numbered struct {
		number uint64
		name   string
	}
	var all []numbered
	for _, name := range names {
		if n, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), ".block"), 10, 64); err == nil {
			all = append(all, numbered{n, name})
		}
	}
	slices.SortFunc(all, func(a, b numbered) int {
		if a.number < b.number {
			return -1
		}
		return 1
	})
	var s files
	for _, one := range all {
		s = append(s, one.name)
	}
	return s
}

func (s files) First() uint64  { return 0 }
func (s files) Height() uint64 { return uint64(len(s)) }

func (s files) Block(number uint64) (*commonpb.Block, error) {
	raw, err := os.ReadFile(s[number])
	if err != nil {
		return nil, err
	}
	b := &commonpb.Block{}
	if err := proto.Unmarshal(raw, b); err != nil {
		return nil, fmt.Errorf("decode %s: %w", s[number], err)
	}
	return b, nil
}

func (s files) Close() error { return nil }

// stored is a node's ledger.
type stored struct{ ledger *ledger.Ledger }

// openLedger opens the ledger of a node that is not running. It does not make one.
func openLedger(dir string) (*stored, error) {
	if info, err := os.Stat(filepath.Join(dir, "blocks")); errors.Is(err, fs.ErrPermission) {
		return nil, err
	} else if err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s holds no ledger: name the folder of one channel's ledger, which has a folder \"blocks\" in it", dir)
	}
	// Opening it as a peer's would put a peer's files into it.
	if raft, err := filepath.Glob(filepath.Join(dir, "raft-*")); err == nil && len(raft) > 0 {
		return nil, fmt.Errorf("%s is an orderer's, whose blocks have no verdicts yet: name the folder of a peer's channel", dir)
	}
	l, err := ledger.Open(ledger.Config{Dir: dir})
	if err != nil {
		return nil, err
	}
	return &stored{l}, nil
}

func (s *stored) First() uint64                                { return s.ledger.First() }
func (s *stored) Height() uint64                               { return s.ledger.Height() }
func (s *stored) Block(number uint64) (*commonpb.Block, error) { return s.ledger.Block(number) }
func (s *stored) Close() error                                 { return s.ledger.Close() }
