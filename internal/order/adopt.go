package order

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/blockstore"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/order/raft"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// Inheritance is what the program that was this node before has left of a channel.
type Inheritance struct {
	// Next gives the blocks in their order; io.EOF after the last one.
	Next func() (*commonpb.Block, error)
	// Join is the config block that the channel is being joined by; nil if it was reached.
	Join *commonpb.Block
	// Log is what the node remembers of consensus; nil: nothing. A consenter among others that has forgotten follows and does not
	// vote, until the config makes another member of it.
	Log *raft.Remembered
}

// Adopt makes a channel of what was inherited, for the next Open. A crash before its end leaves nothing.
func Adopt(cfg Config, id string, in Inheritance) (height uint64, err error) {
	if err := errors.Join(cfg.fill(), channel.CheckID(id)); err != nil {
		return 0, err
	}
	root := filepath.Join(cfg.Dir, "channels")
	draft, dir := filepath.Join(root, joiningPrefix+id), filepath.Join(root, id)
	if _, err := os.Stat(dir); err == nil {
		return 0, ErrChannelExists
	}
	if err := os.RemoveAll(draft); err != nil {
		return 0, err
	}
	if err := os.MkdirAll(draft, 0o750); err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(draft))
		}
	}()
	a := &adoption{cfg: &cfg, id: id, dir: draft}
	if height, err = a.takeBlocks(in); err != nil {
		return 0, err
	}
	if in.Join != nil && in.Join.GetHeader().GetNumber() >= height {
		raw, err := proto.Marshal(in.Join)
		if err != nil {
			return 0, err
		}
		if err := writeDurably(filepath.Join(draft, joinFile), raw); err != nil {
			return 0, err
		}
	} else if err := a.takeLog(in.Log); err != nil {
		return 0, err
	}
	if err := syncDir(draft); err != nil {
		return 0, err
	}
	if err := os.Rename(draft, dir); err != nil {
		return 0, err
	}
	return height, syncDir(root)
}

type adoption struct {
	cfg    *Config
	id     string
	dir    string
	bundle *channel.Bundle // after the newest block
	tip    *commonpb.Block
}

// takeBlocks stores the blocks. They are checked like those that are pulled.
func (a *adoption) takeBlocks(in Inheritance) (height uint64, err error) {
	store, err := blockstore.Open(filepath.Join(a.dir, "blocks"), blockstore.Options{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var hash []byte
	for {
		b, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
		if err := a.check(b, height, hash); err != nil {
			return 0, fmt.Errorf("block %d: %w", height, err)
		}
		raw, err := proto.Marshal(b)
		if err != nil {
			return 0, err
		}
		if err := store.Append(height, raw, nil); err != nil {
			return 0, err
		}
		height, hash, a.tip = height+1, block.HeaderHash(b.Header), b
	}
	if height == 0 && in.Join == nil {
		return 0, errors.New("there are no blocks")
	}
	return height, store.Sync()
}

// check checks a block and follows the config in it.
func (a *adoption) check(b *commonpb.Block, number uint64, previousHash []byte) (err error) {
	if number == 0 {
		if b.GetHeader().GetNumber() != 0 || string(block.DataHash(b.GetData().GetData())) != string(b.Header.DataHash) {
			return errors.New("it is not the channel's first block")
		}
		if a.bundle, err = channel.FromBlock(b, a.cfg.Verifier); err != nil {
			return err
		}
		if a.bundle.ID() != a.id {
			return fmt.Errorf("it is of channel %s", a.bundle.ID())
		}
		if kind, _, _ := a.bundle.ConsensusType(); kind != channel.ConsensusRaft {
			return fmt.Errorf("failed to find a consenter for consensus type: %s", kind)
		}
		return nil
	}
	if a.cfg.Accept != nil {
		if err := a.cfg.Accept(a.bundle, b, number, previousHash); err != nil {
			return err
		}
	}
	if len(b.GetData().GetData()) != 1 {
		return nil
	}
	config, err := configIn(b.Data.Data[0])
	if err != nil || config == nil {
		return err
	}
	next, err := a.bundle.ValidateConfig(config)
	if err != nil {
		return err
	}
	a.bundle = next
	return nil
}

// takeLog keeps what the node remembers, if it is a consenter, or that it has forgotten.
func (a *adoption) takeLog(m *raft.Remembered) error {
	meta, self, err := membership(a.bundle, a.cfg.Certificate)
	if errors.Is(err, errNotConsenter) {
		return nil
	}
	if err != nil {
		return err
	}
	stored, err := consensusNotes(a.tip)
	if err != nil {
		return fmt.Errorf("the newest block: %w", err)
	}
	notes, err := firstNotes(stored, meta)
	if err != nil {
		return err
	}
	id := notes.ConsenterIds[self]
	switch {
	case m != nil && m.Hard != nil:
	case len(meta.Consenters) > 1 && stored.RaftIndex > 0:
		a.cfg.Log.Error("there is no consensus log: this node follows the channel and may not vote, until it was removed from the channel's consenters and added again (hansa orderer replace)",
			"channel", a.id, "consenter", id)
		return writeDurably(filepath.Join(a.dir, forgottenFile), strconv.AppendUint(nil, id, 10))
	case stored.RaftIndex > 0: // nobody else was promised anything
		m = &raft.Remembered{Hard: &raftpb.HardState{Term: new(uint64(1)), Commit: new(stored.RaftIndex)},
			Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(stored.RaftIndex), Term: new(uint64(1)), ConfState: &raftpb.ConfState{Voters: []uint64{id}}}}}
	default:
		return nil // it has not begun
	}
	return raft.Import(filepath.Join(a.dir, fmt.Sprintf("raft-%d", id)), *m, stored.RaftIndex)
}

// emptyMetadata ends a replicated block: Fabric's orderers, which may be consenters of the same channel while one of them after the
// other is replaced, expect a block to have room for metadata (field 3, five empty entries).
var emptyMetadata = []byte{0x1a, 10, 0x0a, 0, 0x0a, 0, 0x0a, 0, 0x0a, 0, 0x0a, 0}

// withoutMetadata is a replicated block without its metadata.
func withoutMetadata(raw []byte) []byte {
	for at := 0; at < len(raw); {
		number, typ, n := protowire.ConsumeTag(raw[at:])
		if n < 0 {
			return raw
		}
		m := protowire.ConsumeFieldValue(number, typ, raw[at+n:])
		if m < 0 {
			return raw
		}
		if number == 3 && at+n+m == len(raw) {
			return raw[:at:at]
		}
		if number == 3 {
			return withoutMetadata(slices.Concat(raw[:at], raw[at+n+m:]))
		}
		at += n + m
	}
	return raw
}
