package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/blockstore"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
)

// Files of a ledger that was rolled back, until it has its blocks again.
const (
	rollbackFile = "rollback.json"
	droppedDir   = "dropped"     // private data of the dropped blocks, as a log of records without blocks
	droppedNew   = "dropped.new" // the same while it is being gathered
)

// rollback is the content of rollbackFile. Each step can be done again after a crash in the middle of it.
type rollback struct {
	// Height is the greatest height that the ledger ever had: until it has it again, blocks are missing that others have seen
	// this node commit.
	Height uint64 `json:"height"`
	// To is the number of the last block that stays.
	To uint64 `json:"to"`
	// Step is what is being done: stepKeep, stepDrop, or "" when all is done.
	Step string `json:"step,omitempty"`
}

const (
	stepKeep = "keep private data"
	stepDrop = "drop blocks"
)

// RollbackError refuses to roll a ledger back. Its text is Fabric's where Fabric refuses the same.
type RollbackError struct{ text string }

func (e *RollbackError) Error() string { return e.text }

// Rollback drops the blocks behind block to from a ledger that is not open; the node fetches them again. Private data of the dropped
// blocks is kept for when they come again: there may be nobody else who has it. When it is interrupted, the next
// Rollback or Open finishes it.
func Rollback(config Config, to uint64) error {
	return offline(config, func(l *Ledger) error {
		if height := l.blocks.Height(); height == 0 || to >= height-1 {
			return &RollbackError{fmt.Sprintf("target block number [%d] should be less than the biggest block number [%d]", to, max(height, 1)-1)}
		}
		if to+1 < l.first {
			return &RollbackError{fmt.Sprintf("target block number [%d] should not be less than the last block number [%d] of the snapshot that the channel was joined by", to, l.boot.LastBlock)}
		}
		r := &rollback{Height: l.blocks.Height(), To: to, Step: stepKeep}
		if l.rolled != nil {
			r.Height = max(r.Height, l.rolled.Height)
		}
		if err := r.store(l.config.FS, l.config.Dir); err != nil {
			return err
		}
		l.rolled = r
		return l.finishRollback()
	})
}

// Rebuild removes what a ledger that is not open derives from its blocks; the next Open makes it again.
func Rebuild(config Config) error {
	return offline(config, (*Ledger).removeDerived)
}

// OldFormat reports whether a ledger that is not open has derived data of another format than this program's, which Open makes
// again.
func OldFormat(config Config) (old bool, err error) {
	err = offline(config, func(l *Ledger) error {
		if _, err := l.config.FS.Stat(l.path("derived")); errors.Is(err, os.ErrNotExist) {
			return nil
		}
		err := l.openDatabase()
		old = err == nil && l.tip.height > 0 && l.tip.format != derivedFormat
		if l.db != nil {
			err = errors.Join(err, l.db.Close())
		}
		if l.cache != nil {
			l.cache.Unref()
		}
		return err
	})
	return old, err
}

// offline opens no more of a ledger than its log, after finishing a rollback that was interrupted.
func offline(config Config, use func(*Ledger) error) (err error) {
	l := newLedger(config)
	wrap := func(err error) error {
		if err == nil {
			return nil
		}
		if refused := (*RollbackError)(nil); errors.As(err, &refused) {
			return err
		}
		return fmt.Errorf("ledger of channel %q: %w", config.ChannelID, err)
	}
	if err := l.openLog(); err != nil {
		return wrap(err)
	}
	defer func() { err = errors.Join(err, wrap(l.blocks.Close())) }()
	return wrap(use(l))
}

func (l *Ledger) path(name string) string { return l.config.FS.PathJoin(l.config.Dir, name) }

// loadRollback finds out whether the ledger was rolled back, and finishes that.
func (l *Ledger) loadRollback() error {
	f, err := l.config.FS.Open(l.path(rollbackFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	l.rolled = &rollback{}
	if err := json.Unmarshal(raw, l.rolled); err != nil {
		return fmt.Errorf("decode %s: %w", l.path(rollbackFile), err)
	}
	return l.finishRollback()
}

func (r *rollback) store(fs vfs.FS, dir string) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	name := fs.PathJoin(dir, rollbackFile)
	f, err := fs.Create(name+".new", vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(append(raw, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := fs.Rename(name+".new", name); err != nil {
		return err
	}
	return snapshotfile.SyncDir(fs, dir)
}

// finishRollback does what is left of a rollback. The log is only cut when the private data is safe and the derived data, which
// must never be ahead of the log, is gone.
func (l *Ledger) finishRollback() error {
	fs, r := l.config.FS, l.rolled
	if r.Step == stepKeep {
		if err := l.keepDropped(); err != nil {
			return fmt.Errorf("keep the private data of the blocks to drop: %w", err)
		}
		r.Step = stepDrop
		if err := r.store(fs, l.config.Dir); err != nil {
			return err
		}
	}
	if r.Step == stepDrop {
		switch _, err := fs.Stat(l.path(droppedNew)); {
		case err == nil:
			if err := fs.RemoveAll(l.path(droppedDir)); err != nil {
				return err
			}
			if err := fs.Rename(l.path(droppedNew), l.path(droppedDir)); err != nil {
				return err
			}
		case !errors.Is(err, os.ErrNotExist): // not: it was moved before a crash
			return err
		}
		if err := l.removeDerived(); err != nil {
			return err
		}
		if err := l.blocks.Truncate(r.To + 1); err != nil {
			return err
		}
		r.Step = ""
		return r.store(fs, l.config.Dir)
	}
	return nil
}

func (l *Ledger) removeDerived() error {
	if err := l.config.FS.RemoveAll(l.path("derived")); err != nil {
		return err
	}
	return snapshotfile.SyncDir(l.config.FS, l.config.Dir)
}

// keepDropped gathers the private data of the blocks behind the target, from the log and from what an earlier rollback kept: of
// blocks that did not come again, or came without what a purge had trimmed, which regained takes in the end.
func (l *Ledger) keepDropped() error {
	fs := l.config.FS
	if err := fs.RemoveAll(l.path(droppedNew)); err != nil {
		return err
	}
	earlier, err := l.openDropped()
	if err != nil {
		return err
	}
	first := l.rolled.To + 1
	if earlier != nil {
		defer earlier.Close()
		first = min(first, earlier.First())
	}
	to, err := blockstore.Open(l.path(droppedNew), blockstore.Options{FS: fs, SegmentBytes: l.config.SegmentBytes, First: first})
	if err != nil {
		return err
	}
	for n := first; n < l.rolled.Height && err == nil; n++ {
		var extra []byte
		if extra, err = l.everPrivate(n, earlier); err == nil {
			err = to.Append(n, nil, extra)
		}
	}
	if err == nil {
		err = to.Sync()
	}
	return errors.Join(err, to.Close())
}

// everPrivate is what the log has of a block's private data with what an earlier rollback kept of it.
func (l *Ledger) everPrivate(n uint64, earlier *blockstore.Store) ([]byte, error) {
	var private, before []TxPrivate
	if n < l.blocks.Height() {
		_, extra, err := l.blocks.Read(n)
		if err == nil {
			private, _, err = decodeExtra(extra)
		}
		if err != nil {
			return nil, err
		}
	}
	if earlier != nil && n >= earlier.First() && n < earlier.Height() {
		_, extra, err := earlier.Read(n)
		if err == nil {
			before, _, err = decodeExtra(extra)
		}
		if err != nil {
			return nil, err
		}
	}
	p := &past{number: n, private: private}
	for _, m := range each(n, before) {
		p.add(m.Missing, m.Rwset)
	}
	return encodeExtra(p.private, nil), nil
}

// each lists the write sets of a block's private data one by one.
func each(n uint64, private []TxPrivate) (all []Late) {
	for _, tx := range private {
		for _, ns := range tx.Set.NsPvtRwset {
			for _, c := range ns.CollectionPvtRwset {
				all = append(all, Late{Missing{Block: n, Tx: tx.Tx, Namespace: ns.Namespace, Collection: c.CollectionName}, c.Rwset})
			}
		}
	}
	return all
}

// openDropped opens what a rollback kept; nil if there is nothing.
func (l *Ledger) openDropped() (*blockstore.Store, error) {
	if _, err := l.config.FS.Stat(l.path(droppedDir)); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return blockstore.Open(l.path(droppedDir), blockstore.Options{FS: l.config.FS, First: l.rolled.To + 1})
}

// regaining is the state of a ledger that was rolled back and does not have all of its blocks again.
type regaining struct {
	height  atomic.Uint64 // to be reached; 0 if it is
	dropped *blockstore.Store
}

// Regaining is the height that the ledger had before it was rolled back; ok is false once it has it again. Until
// then others know a later state of it, and what it endorsed would be of the past.
func (l *Ledger) Regaining() (height uint64, ok bool) {
	height = l.regaining.height.Load()
	return height, height > 0
}

// Dropped is the private data that a block had before a rollback dropped it. Later purges may have trimmed it, so that it does not
// match the hashes in the block. It is called by the goroutine that commits.
func (l *Ledger) Dropped(n uint64) ([]TxPrivate, error) {
	d := l.regaining.dropped
	if d == nil || n < d.First() || n >= d.Height() {
		return nil, nil
	}
	_, extra, err := d.Read(n)
	if err != nil {
		return nil, fmt.Errorf("private data of dropped block %d: %w", n, err)
	}
	private, _, err := decodeExtra(extra)
	return private, err
}

// regain begins to wait for the blocks that a rollback dropped.
func (l *Ledger) regain() (err error) {
	if l.rolled == nil {
		return nil
	}
	if l.regaining.dropped, err = l.openDropped(); err != nil {
		return fmt.Errorf("open the private data of dropped blocks: %w", err)
	}
	l.regaining.height.Store(l.rolled.Height)
	return l.regained()
}

// regained ends what a rollback began, once the ledger has its blocks again. Private data that could not be taken with its block,
// because a purge in a later one had trimmed it, is taken now.
func (l *Ledger) regained() error {
	if target, ok := l.Regaining(); !ok || l.Height() < target {
		return nil
	}
	if d := l.regaining.dropped; d != nil {
		for n := d.First(); n < d.Height(); n++ {
			if err := l.takeDropped(n); err != nil {
				return fmt.Errorf("private data of dropped block %d: %w", n, err)
			}
		}
		if err := d.Close(); err != nil {
			return err
		}
		l.regaining.dropped = nil
	}
	fs := l.config.FS
	if err := fs.RemoveAll(l.path(droppedDir)); err != nil {
		return err
	}
	if err := errors.Join(fs.Remove(l.path(rollbackFile)), snapshotfile.SyncDir(fs, l.config.Dir)); err != nil {
		return err
	}
	l.rolled = nil
	l.regaining.height.Store(0)
	l.log.Info("the ledger has the blocks again that were rolled back", "channel", l.config.ChannelID, "height", l.Height())
	return nil
}

func (l *Ledger) takeDropped(n uint64) error {
	private, err := l.Dropped(n)
	if err != nil || len(private) == 0 {
		return err
	}
	at, err := l.past(n)
	if err != nil {
		return err
	}
	var late []Late
	for _, item := range each(n, private) {
		if at.inLog(item.Missing) == nil {
			late = append(late, item)
		}
	}
	if len(late) == 0 {
		return nil
	}
	_, err = l.CommitLate(late)
	return err
}
