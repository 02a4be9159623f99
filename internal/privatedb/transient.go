package privatedb

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// DefaultTransientBytes bounds a transient store whose configuration does not.
const DefaultTransientBytes = 256 << 20

// ErrTransientFull says that too much private data waits for its commit; the endorsement should be tried later.
var ErrTransientFull = errors.New("too much private data waits for the commit of its transactions; try again later")

// TransientConfig of a transient store. Dir is required.
type TransientConfig struct {
	// Dir is the store's own folder, created when the first private data comes.
	Dir string
	// FS is the file system, the machine's own if nil.
	FS vfs.FS
	// MaxBytes bounds the store, DefaultTransientBytes if 0.
	MaxBytes int64
}

// Transient keeps the private data of endorsed transactions until they are committed. What Put took survives a crash. A
// channel without private data has no such store on disk. Any number of goroutines may use it.
//
// Keys: t, transaction id (closed by its length in front), hash of the set -> height, set;
// h, height, transaction id -> nothing, for PurgeBelow.
type Transient struct {
	config TransientConfig

	mu     sync.Mutex
	db     *pebble.DB
	size   int64
	closed bool
}

// OpenTransient opens the store if there is one.
func OpenTransient(config TransientConfig) (*Transient, error) {
	t := &Transient{config: config}
	if t.config.FS == nil {
		t.config.FS = vfs.Default
	}
	if t.config.MaxBytes <= 0 {
		t.config.MaxBytes = DefaultTransientBytes
	}
	if err := t.settle(); err != nil {
		return nil, err
	}
	if _, err := t.config.FS.Stat(config.Dir); err != nil {
		return t, nil
	}
	return t, t.open()
}

func (t *Transient) open() error {
	db, err := pebble.Open(t.config.Dir, t.options())
	if err != nil {
		return fmt.Errorf("open transient store: %w", err)
	}
	t.db = db
	it, err := db.NewIter(nil)
	if err != nil {
		return fmt.Errorf("open transient store: %w", err)
	}
	for it.First(); it.Valid(); it.Next() {
		t.size += int64(len(it.Key()) + len(it.Value()))
	}
	return errors.Join(it.Error(), it.Close())
}

func (t *Transient) options() *pebble.Options {
	return &pebble.Options{FS: t.config.FS, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 4 << 20, CacheSize: 1 << 20, Logger: silent{}}
}

type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("transient store: "+format, args...))
}

func (t *Transient) usable() error {
	if t.closed {
		return errors.New("the transient store is closed")
	}
	return nil
}

// Put keeps a private write set that was endorsed at a height of the chain, durably.
func (t *Transient) Put(txID string, height uint64, set *rwsetpb.TxPvtReadWriteSet) error {
	raw, err := proto.Marshal(set)
	if err != nil {
		return fmt.Errorf("keep private data of transaction %q: %w", txID, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(); err != nil {
		return err
	}
	sum := sha256.Sum256(raw)
	key := append(appendName([]byte{'t'}, txID), sum[:16]...)
	value := append(binary.AppendUvarint(nil, height), raw...)
	byHeight := append(blockPrefix('h', height), txID...)
	size := int64(len(key) + len(value) + len(byHeight))
	if t.size+size > t.config.MaxBytes {
		return ErrTransientFull
	}
	if t.db == nil {
		if err := makeDir(t.config.FS, t.config.Dir); err != nil {
			return fmt.Errorf("open transient store: %w", err)
		}
		if err := t.open(); err != nil {
			return err
		}
	}
	if _, closer, err := t.db.Get(key); err == nil {
		return closer.Close() // the same again
	}
	b := t.db.NewBatch()
	defer b.Close()
	if err := errors.Join(b.Set(key, value, nil), b.Set(byHeight, nil, nil), b.Commit(pebble.Sync)); err != nil {
		return fmt.Errorf("keep private data of transaction %q: %w", txID, err)
	}
	t.size += size
	return nil
}

// makeDir makes a folder durable in its parent: a synced file in a lost folder is lost.
func makeDir(fs vfs.FS, dir string) error {
	parent := fs.PathDir(dir)
	if parent == dir {
		return nil
	}
	if _, err := fs.Stat(dir); err != nil {
		if err := makeDir(fs, parent); err != nil {
			return err
		}
		if err := fs.MkdirAll(dir, 0o750); err != nil {
			return err
		}
	}
	d, err := fs.OpenDir(parent)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Get gives the write sets that were kept for a transaction, one for each different one that was put.
func (t *Transient) Get(txID string) ([]*rwsetpb.TxPvtReadWriteSet, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(); err != nil || t.db == nil {
		return nil, err
	}
	var sets []*rwsetpb.TxPvtReadWriteSet
	err := t.each(appendName([]byte{'t'}, txID), func(_, value []byte) error {
		_, n := binary.Uvarint(value)
		if n <= 0 {
			return errors.New("entry cut short")
		}
		set := &rwsetpb.TxPvtReadWriteSet{}
		if err := proto.Unmarshal(value[n:], set); err != nil {
			return err
		}
		sets = append(sets, set)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read private data of transaction %q: %w", txID, err)
	}
	return sets, nil
}

func (t *Transient) each(prefix []byte, f func(key, value []byte) error) error {
	it, err := t.db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return err
	}
	for it.First(); it.Valid() && err == nil; it.Next() {
		err = f(it.Key(), it.Value())
	}
	return errors.Join(err, it.Error(), it.Close())
}

// Remove forgets transactions, after their commit.
func (t *Transient) Remove(txIDs ...string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(); err != nil || t.db == nil {
		return err
	}
	return t.remove(txIDs)
}

func (t *Transient) remove(txIDs []string) error {
	b := t.db.NewBatch()
	defer b.Close()
	var freed int64
	heights := map[string]bool{}
	for _, id := range txIDs {
		err := t.each(appendName([]byte{'t'}, id), func(key, value []byte) error {
			height, n := binary.Uvarint(value)
			if n <= 0 {
				return errors.New("entry cut short")
			}
			byHeight := append(blockPrefix('h', height), id...)
			freed += int64(len(key) + len(value))
			if !heights[string(byHeight)] {
				heights[string(byHeight)] = true
				freed += int64(len(byHeight))
			}
			return errors.Join(b.Delete(slices.Clone(key), nil), b.Delete(byHeight, nil))
		})
		if err != nil {
			return fmt.Errorf("forget private data of transaction %q: %w", id, err)
		}
	}
	if b.Empty() {
		return nil
	}
	// Without a flush: what comes back after a crash is removed again by PurgeBelow.
	if err := b.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("forget private data: %w", err)
	}
	t.size = max(0, t.size-freed)
	return nil
}

// PurgeBelow forgets what was endorsed below a height: such transactions were given up.
func (t *Transient) PurgeBelow(height uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.usable(); err != nil || t.db == nil {
		return err
	}
	var ids []string
	it, err := t.db.NewIter(&pebble.IterOptions{LowerBound: []byte{'h'}, UpperBound: blockPrefix('h', height)})
	if err != nil {
		return fmt.Errorf("purge transient store: %w", err)
	}
	for it.First(); it.Valid(); it.Next() {
		ids = append(ids, string(it.Key()[9:]))
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return fmt.Errorf("purge transient store: %w", err)
	}
	return t.remove(ids)
}

// Bytes is what the store holds.
func (t *Transient) Bytes() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size
}

// Close ends the store.
func (t *Transient) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.db == nil {
		return nil
	}
	db := t.db
	t.db = nil
	return db.Close()
}
