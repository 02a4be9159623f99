// Package ledger is one channel's ledger on one node: blocks, state, history, private data and indexes, committed
// together and found again after any crash.
//
// The block log (blockstore) is the only thing that is flushed. A commit appends the block with its private
// data to the log, flushes it, and only then applies it to the derived data, one Pebble database without a log of its own in which
// state, history, indexes and the savepoint change in one batch. So the derived data is never ahead of the
// log, and Open brings it up to the log again by applying the blocks behind the savepoint, by the validation
// codes that are stored with them. The folder "derived" may be deleted while the node is down; Open makes it again.
//
// A ledger that begins with a snapshot (Bootstrap) keeps the snapshot's files in the folder "bootstrap": they stand for the
// blocks that it does not have.
//
// Readers take a Snapshot: one height, all stores consistent, never waiting for commits nor delaying them.
//
// Rollback drops the newest blocks of a ledger that is not open, for the node to fetch them again; it keeps their private data.
//
// Private data that was purged is hidden at once and leaves the disk with ErasePurged. What block-to-live ended is
// hidden from the private state, and stays in the log: a value may live on by a metadata-only write.
//
// What the package leaves out: deciding the codes (validate), and fetching blocks or private data. Open
// commit.go for the way of a block, rollback.go for what is done to a ledger that is not open.
package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/blockstore"
	"github.com/hansa-ledger/hansa/internal/privatedb"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
	"github.com/hansa-ledger/hansa/internal/statedb"
	"github.com/hansa-ledger/hansa/internal/statedb/jsonindex"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// ErrNotFound is for a block or transaction that the ledger does not hold.
var ErrNotFound = errors.New("not found in the ledger")

// Defaults of Config.
const (
	DefaultCacheBytes    = 64 << 20
	DefaultMemTableBytes = 32 << 20
	DefaultRecentBytes   = 16 << 20
)

// Config of a ledger. Dir is required.
type Config struct {
	// Dir is the ledger's own folder; it is created.
	Dir string
	// ChannelID names the channel in errors and logs.
	ChannelID string
	// CacheBytes bounds the cache of state read from disk, DefaultCacheBytes if 0.
	CacheBytes int64
	// MemTableBytes bounds what is derived but not yet on disk, and with it the time to open after a crash;
	// DefaultMemTableBytes if 0.
	MemTableBytes uint64
	// RecentBytes bounds the newest blocks that are kept in memory for those who follow the chain, DefaultRecentBytes if 0.
	RecentBytes int
	// SegmentBytes is the size of the block log's files, 0 for the default.
	SegmentBytes int64
	// TransientBytes bounds the private data that waits for the commit of its transaction, 0 for the default.
	TransientBytes int64
	// FS is the file system, the machine's own if nil.
	FS vfs.FS
	// Log is where trouble in the background is reported; nil discards.
	Log *slog.Logger
}

// Ledger is open from Open to Close. Commit is called by one goroutine; everything else by any number.
type Ledger struct {
	config    Config
	log       *slog.Logger
	blocks    *blockstore.Store
	db        *pebble.DB
	cache     *pebble.Cache
	hints     *statedb.Hints
	indexes   *jsonindex.Indexes     // changed under applying
	first     uint64                 // number of the first block in the log
	boot      *snapshotfile.Metadata // of the snapshot that the ledger began with; nil if with a genesis block
	transient *privatedb.Transient
	rolled    *rollback // what is left of a rollback; changed by the goroutine that commits
	regaining regaining
	recent    *recent
	txs       *recentTxs
	hot       *hotKeys

	warned atomic.Int64 // when a JSON query was warned of last

	// trouble is the last error of the database's background work, until that work succeeds again.
	trouble  atomic.Pointer[error]
	troubled chan struct{} // gets a token when trouble begins or goes on; holds one

	// applying is held while a block's changes are gathered and applied, and while something is written between blocks. It is
	// taken before mu.
	applying sync.Mutex

	readers sync.WaitGroup // snapshots and reads of indexes under way; grows under mu while the ledger is open

	mu      sync.Mutex
	ended   bool
	tip     savepoint
	changed chan struct{} // closed and replaced when tip moves; nil if nobody waits
	closed  chan struct{}
	once    sync.Once
	closing error
	filling bool          // indexes are being built
	filled  chan struct{} // closed when no index is being built any more; nil if nobody waits
	failed  error         // set when the log is ahead of the derived data and stays so until the next Open
}

// Open opens or creates a ledger, and repairs what a crash left.
func Open(config Config) (*Ledger, error) {
	l := newLedger(config)
	wrap := func(err error) error {
		l.Close()
		if config.ChannelID == "" { // it is read from the blocks
			return fmt.Errorf("open ledger: %w", err)
		}
		return fmt.Errorf("open ledger of channel %q: %w", config.ChannelID, err)
	}
	err := l.openLog()
	if err == nil {
		err = l.openDerived()
	}
	if err != nil {
		return nil, wrap(err)
	}
	fs := l.config.FS
	if l.transient, err = privatedb.OpenTransient(privatedb.TransientConfig{Dir: fs.PathJoin(config.Dir, "transient"), FS: fs, MaxBytes: config.TransientBytes}); err != nil {
		return nil, wrap(err)
	}
	if l.boot != nil && l.tip.height == 0 {
		if err := l.importBootstrap(); err != nil {
			return nil, wrap(err)
		}
	}
	l.txs, l.hot = newRecentTxs(l.Height()), newHotKeys(l.Height())
	if err := l.catchUp(); err != nil {
		return nil, wrap(err)
	}
	if err := l.regain(); err != nil {
		return nil, wrap(err)
	}
	l.fillIndexes() // a crash may have left some unfinished
	return l, nil
}

func newLedger(config Config) *Ledger {
	l := &Ledger{config: config, log: config.Log, closed: make(chan struct{}), troubled: make(chan struct{}, 1)}
	if l.config.FS == nil {
		l.config.FS = vfs.Default
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.recent = newRecent(orDefault(config.RecentBytes, DefaultRecentBytes))
	return l
}

// openLog opens the log, without blocks that a rollback was dropping when it was interrupted.
func (l *Ledger) openLog() (err error) {
	if l.config.Dir == "" {
		return errors.New("Dir is empty; name the ledger's folder")
	}
	if err := l.findBootstrap(); err != nil {
		return err
	}
	l.blocks, err = blockstore.Open(l.path("blocks"), blockstore.Options{FS: l.config.FS, SegmentBytes: l.config.SegmentBytes, First: l.first})
	if err != nil {
		return err
	}
	if err := l.loadRollback(); err != nil {
		return errors.Join(fmt.Errorf("roll back: %w", err), l.blocks.Close())
	}
	return nil
}

func orDefault[N int | int64 | uint64](n, otherwise N) N {
	if n <= 0 {
		return otherwise
	}
	return n
}

// openDerived opens the derived data, or what is left after data of another format was thrown away.
func (l *Ledger) openDerived() error {
	if err := l.openDatabase(); err != nil {
		return err
	}
	if l.tip.height == 0 || l.tip.format == derivedFormat {
		return nil
	}
	l.log.Info("making the derived data again in the format of this program", "channel", l.config.ChannelID, "format", derivedFormat, "found", l.tip.format)
	err := l.db.Close()
	l.cache.Unref()
	l.db, l.cache = nil, nil
	if err != nil {
		return fmt.Errorf("close derived data of another format: %w", err)
	}
	if err := l.config.FS.RemoveAll(l.config.FS.PathJoin(l.config.Dir, "derived")); err != nil {
		return fmt.Errorf("remove derived data of another format: %w", err)
	}
	return l.openDatabase()
}

func (l *Ledger) openDatabase() error {
	l.cache = pebble.NewCache(orDefault(l.config.CacheBytes, DefaultCacheBytes))
	o := &pebble.Options{
		FS:                          l.config.FS,
		Cache:                       l.cache,
		DisableWAL:                  true,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                orDefault(l.config.MemTableBytes, DefaultMemTableBytes),
		MemTableStopWritesThreshold: 4,
		Logger:                      quiet{l.log},
		EventListener: &pebble.EventListener{
			BackgroundError: func(err error) {
				l.trouble.Store(&err)
				select {
				case l.troubled <- struct{}{}:
				default:
				}
			},
			FlushEnd: func(info pebble.FlushInfo) {
				if info.Err == nil {
					l.trouble.Store(nil)
				}
			},
		},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	dir := l.config.FS.PathJoin(l.config.Dir, "derived")
	db, err := pebble.Open(dir, o)
	if pebble.IsCorruptionError(err) || errors.Is(err, os.ErrNotExist) {
		// A power loss can leave Pebble's files in pieces that refer to lost ones. All of it is in the log.
		l.log.Warn("making the derived data again from the block log", "channel", l.config.ChannelID, "because", err)
		if err := l.config.FS.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove damaged derived data: %w", err)
		}
		db, err = pebble.Open(dir, o)
	}
	if err != nil {
		return fmt.Errorf("open derived data: %w", err)
	}
	l.db = db
	if l.hints, err = statedb.LoadHints(db); err != nil {
		return err
	}
	if l.indexes, err = jsonindex.Load(db); err != nil {
		return err
	}
	tip, err := readSavepoint(db)
	if err != nil {
		return err
	}
	l.tip = tip
	return nil
}

// quiet passes on what an operator has to know and drops Pebble's diary.
type quiet struct{ log *slog.Logger }

func (q quiet) Infof(string, ...any) {}
func (q quiet) Errorf(format string, args ...any) {
	q.log.Error("derived ledger data", "error", fmt.Sprintf(format, args...))
}

// Fatalf must not return: Pebble does not know any more what its files hold. Nothing is lost with them, as all of it is in the log. A full
// disk is nobody's programming error, and is not reported as one.
func (q quiet) Fatalf(format string, args ...any) {
	for _, arg := range args {
		if err, ok := arg.(error); ok && errors.Is(err, syscall.ENOSPC) {
			q.log.Error("the disk is full: free some space and start again; nothing was lost", "error", fmt.Sprintf(format, args...))
			os.Exit(1)
		}
	}
	q.log.Error("derived ledger data", "error", fmt.Sprintf(format, args...))
	panic(fmt.Sprintf("ledger: derived data: "+format, args...))
}

// catchUp applies the blocks that are in the log but not yet in the derived data.
func (l *Ledger) catchUp() error {
	height := l.blocks.Height()
	if l.tip.height > height {
		return fmt.Errorf("the block log ends before block %d, but block %d was committed: blocks were lost; restore the folder \"blocks\" from a backup, or remove the ledger's folder and let the node fetch the channel again", height, l.tip.height-1)
	}
	if l.tip.height < height {
		l.log.Info("applying blocks that a crash left out", "channel", l.config.ChannelID, "from", l.tip.height, "to", height-1)
	}
	for n := l.tip.height; n < height; n++ {
		if err := l.replay(n); err != nil {
			return fmt.Errorf("apply block %d again: %w", n, err)
		}
	}
	return nil
}

// enter begins a read of the database, which Close then waits for.
func (l *Ledger) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return ErrClosed
	}
	l.readers.Add(1)
	return nil
}

func (l *Ledger) leave() { l.readers.Done() }

// Close ends the ledger, once snapshots are closed. No Commit may be under way. It writes the derived data out, so that
// the next Open has nothing to apply.
func (l *Ledger) Close() error {
	l.once.Do(func() {
		l.mu.Lock()
		l.ended = true
		l.mu.Unlock()
		close(l.closed)
		l.readers.Wait()
		var errs []error
		if l.transient != nil {
			errs = append(errs, l.transient.Close())
		}
		if l.db != nil {
			errs = append(errs, l.flush(), l.db.Close())
		}
		if l.cache != nil {
			l.cache.Unref()
		}
		if l.regaining.dropped != nil {
			errs = append(errs, l.regaining.dropped.Close())
		}
		if l.blocks != nil {
			errs = append(errs, l.blocks.Close())
		}
		l.closing = errors.Join(errs...)
	})
	return l.closing
}

// flush writes out what the database has in memory, unless that fails: Pebble
// would try for ever, with a full disk, and the next Open can do without, since
// it applies the log's newest blocks again.
func (l *Ledger) flush() error {
	select {
	case <-l.troubled: // of old, or still: see trouble
	default:
	}
	if l.trouble.Load() != nil {
		return nil
	}
	done, err := l.db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-l.troubled:
		return errors.New("the newest blocks' changes could not be written out; they are applied again when the ledger is opened")
	}
}

// Height is the number of the next block: blocks below it are durable and applied.
func (l *Ledger) Height() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tip.height
}

// LastCommitHash is the commit hash of the newest block, nil after the genesis block and before.
func (l *Ledger) LastCommitHash() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tip.commitHash
}

// Info is the chain's height and the hashes of its newest block and the one before.
func (l *Ledger) Info() *commonpb.BlockchainInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	info := &commonpb.BlockchainInfo{Height: l.tip.height, CurrentBlockHash: l.tip.hash, PreviousBlockHash: l.tip.previousHash}
	if l.boot != nil {
		info.BootstrappingSnapshotInfo = &commonpb.BootstrappingSnapshotInfo{LastBlockInSnapshot: l.boot.LastBlock}
	}
	return info
}

// ErrClosed is returned by reads of a closed ledger, and by Wait when it is closed meanwhile.
var ErrClosed = errors.New("the ledger is closed")

// Wait returns when Height is at least height.
func (l *Ledger) Wait(ctx context.Context, height uint64) error {
	for {
		l.mu.Lock()
		if l.tip.height >= height {
			l.mu.Unlock()
			return nil
		}
		if l.changed == nil {
			l.changed = make(chan struct{})
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.closed:
			return ErrClosed
		}
	}
}

// Transient is where private data waits for the commit of its transaction.
func (l *Ledger) Transient() *privatedb.Transient { return l.transient }
