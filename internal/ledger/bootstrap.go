package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/privatedb"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
	"github.com/hansa-ledger/hansa/internal/statedb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// BootstrapDir is the folder in a ledger's own where it keeps the snapshot that it began with; others have none.
const BootstrapDir = "bootstrap"

// BeforeSnapshotError is for a block or transaction from before the snapshot that the ledger began with. It is an
// ErrNotFound. Its text is Fabric's, which clients get to see.
type BeforeSnapshotError struct{ text string }

func (e *BeforeSnapshotError) Error() string        { return e.text }
func (e *BeforeSnapshotError) Is(target error) bool { return target == ErrNotFound }

// First is the number of the first block that the ledger holds or will hold.
func (l *Ledger) First() uint64 { return l.first }

// Bootstrapped is the folder with the snapshot that the ledger began with; ok is false if it began with a genesis block.
func (l *Ledger) Bootstrapped() (dir string, ok bool) {
	return l.config.FS.PathJoin(l.config.Dir, BootstrapDir), l.boot != nil
}

func (l *Ledger) reaches(n uint64) error {
	if n >= l.first {
		return nil
	}
	return &BeforeSnapshotError{fmt.Sprintf("cannot serve block [%d]. The ledger is bootstrapped from a snapshot. First available block = [%d]", n, l.first)}
}

// Bootstrap makes a new ledger from a snapshot's folder and opens it. Every hash and every record is checked, then check
// may refuse what the ledger would hold. The ledger's folder appears whole or not at all: it is built in staging, a folder on the
// same file system that may be left over from an earlier try, and after an error nothing has changed.
func Bootstrap(ctx context.Context, config Config, from, staging string, check func(*Snapshot) error) (*Ledger, error) {
	wrap := func(err error) error {
		return fmt.Errorf("join channel %q by the snapshot in %s: %w", config.ChannelID, from, err)
	}
	fs := config.FS
	if fs == nil {
		fs = vfs.Default
	}
	if _, err := fs.Stat(config.Dir); err == nil {
		return nil, wrap(fmt.Errorf("the ledger's folder %s exists already", config.Dir))
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, wrap(err)
	}
	if err := fs.RemoveAll(staging); err != nil {
		return nil, wrap(err)
	}
	err := build(ctx, config, fs, from, staging, check)
	if err == nil {
		err = move(fs, staging, config.Dir)
	}
	if err != nil {
		return nil, wrap(errors.Join(err, fs.RemoveAll(staging)))
	}
	return Open(config)
}

func build(ctx context.Context, config Config, fs vfs.FS, from, staging string, check func(*Snapshot) error) error {
	files := fs.PathJoin(staging, BootstrapDir)
	if err := fs.MkdirAll(files, 0o750); err != nil {
		return err
	}
	m, err := snapshotfile.Copy(ctx, vfs.Default, from, fs, files)
	if err != nil {
		return err
	}
	if m.ChannelID != config.ChannelID {
		return fmt.Errorf("the snapshot is of channel %q", m.ChannelID)
	}
	if err := snapshotfile.SyncDir(fs, staging); err != nil {
		return err
	}
	config.Dir = staging
	l, err := Open(config)
	if err != nil {
		return err
	}
	if check != nil {
		s := l.NewSnapshot()
		err = errors.Join(check(s), s.Close())
	}
	// Close flushes what was imported.
	return errors.Join(err, l.Close())
}

// move makes a folder durable under its own name.
func move(fs vfs.FS, from, to string) error {
	parent := fs.PathDir(to)
	if err := fs.MkdirAll(parent, 0o750); err != nil {
		return err
	}
	if err := snapshotfile.SyncDir(fs, from); err != nil {
		return err
	}
	if err := fs.Rename(from, to); err != nil {
		return err
	}
	return errors.Join(snapshotfile.SyncDir(fs, parent), snapshotfile.SyncDir(fs, fs.PathDir(from)))
}

// findBootstrap says whether the ledger began with a snapshot.
func (l *Ledger) findBootstrap() error {
	fs := l.config.FS
	dir := fs.PathJoin(l.config.Dir, BootstrapDir)
	if _, err := fs.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	m, err := snapshotfile.ReadMetadata(fs, dir)
	if err != nil {
		return fmt.Errorf("the snapshot that the ledger began with: %w", err)
	}
	l.boot, l.first = m, m.LastBlock+1
	return nil
}

// importBatchBytes is about how much goes into the derived data at once.
const importBatchBytes = 1 << 20

// importBootstrap derives what the blocks before the first would have. The savepoint comes last, so a crash on the way has
// all of it done again.
func (l *Ledger) importBootstrap() error {
	i := &importing{ledger: l, batch: l.db.NewBatch(), lives: map[rwset.Place]uint64{}, read: map[string]bool{}}
	defer func() { i.batch.Close() }()
	m, err := snapshotfile.Read(context.Background(), l.config.FS, l.config.FS.PathJoin(l.config.Dir, BootstrapDir), snapshotfile.Visitor{
		Public: i.public, Hashed: i.hashed, TxID: i.txID, Config: i.collections,
	})
	if err != nil {
		return fmt.Errorf("import snapshot: %w", err)
	}
	tip := savepoint{height: m.LastBlock + 1, hash: m.LastBlockHash, previousHash: m.PreviousHash, commitHash: m.LastCommitHash}
	if len(tip.commitHash) == 0 {
		tip.commitHash = nil
	}
	err = i.batch.Set([]byte{keySavepoint}, tip.encode(), nil)
	if err = errors.Join(err, i.batch.Commit(pebble.NoSync)); err != nil {
		return fmt.Errorf("import snapshot: %w", err)
	}
	if err := l.db.Flush(); err != nil {
		return fmt.Errorf("import snapshot: %w", err)
	}
	l.tip = tip
	return nil
}

// importing is an import under way.
type importing struct {
	ledger *Ledger
	batch  *pebble.Batch
	lives  map[rwset.Place]uint64 // block-to-live of collections that have one, by the newest definition
	read   map[string]bool        // contracts whose newest definition has been seen
}

// full commits the batch when it is large.
func (i *importing) full() error {
	if i.batch.Len() < importBatchBytes {
		return nil
	}
	err := i.batch.Commit(pebble.NoSync)
	if err = errors.Join(err, i.batch.Close()); err != nil {
		return err
	}
	i.batch = i.ledger.db.NewBatch()
	return nil
}

func (i *importing) public(namespace string, r *snapshotfile.Record) error {
	return errors.Join(statedb.Import(i.batch, rwset.Place{Namespace: namespace}, valueOf(r), r.Key, i.ledger.hints), i.full())
}

func (i *importing) hashed(namespace, collection string, r *snapshotfile.Record) error {
	p := rwset.Place{Namespace: namespace, Collection: collection}
	err := statedb.Import(i.batch, p, valueOf(r), r.Key, i.ledger.hints)
	if live := i.lives[p]; live > 0 {
		err = errors.Join(err, privatedb.ScheduleExpiry(i.batch, p, r.Key, r.Version.Block, live))
	}
	return errors.Join(err, i.full())
}

func valueOf(r *snapshotfile.Record) *VersionedValue {
	return &VersionedValue{Value: r.Value, Metadata: r.Metadata, Version: r.Version}
}

func (i *importing) txID(id string) error {
	if id == "" {
		return errors.New("a transaction's identifier is empty")
	}
	return errors.Join(i.batch.Set(txKey(id), nil, nil), i.full())
}

// collections takes the history of collections, which comes before the hashed keys and, within a contract, the newest first.
func (i *importing) collections(key, value []byte) error {
	contract, block, ok := cutCollectionsKey(key)
	if !ok || block > i.ledger.boot.LastBlock {
		return fmt.Errorf("bad key %x in the history of collections", key)
	}
	var config peerpb.CollectionConfigPackage
	if err := proto.Unmarshal(value, &config); err != nil {
		return fmt.Errorf("collections of %q at block %d: %w", contract, block, err)
	}
	if !i.read[contract] {
		i.read[contract] = true
		for _, c := range config.Config {
			if s := c.GetStaticCollectionConfig(); s != nil {
				i.lives[rwset.Place{Namespace: contract, Collection: s.Name}] = s.BlockToLive
			}
		}
	}
	return errors.Join(i.batch.Set(append([]byte{prefixCollections}, key...), value, nil), i.full())
}

// Unfetched is a private value that a snapshot knows by its hashes only.
type Unfetched struct {
	Namespace, Collection string
	KeyHash, ValueHash    []byte
	Version               rwset.Version // the transaction that wrote it
}

// UnfetchedPrivateData lists up to limit private values of a collection from before the snapshot that the ledger began with and
// that are not here, in the order of the key hashes from start on (nil: from the first). There is no write set
// with a hash to ask for: CommitLate compares what was fetched with these hashes. A value whose metadata was written later than itself
// has the version of that write, so that nobody finds it by its version; as with Fabric's peers it stays unfetched.
func (s *Snapshot) UnfetchedPrivateData(p rwset.Place, start []byte, limit int) ([]Unfetched, error) {
	if s.ledger.boot == nil {
		return nil, nil
	}
	it, err := s.HashRangeFrom(p.Namespace, p.Collection, start)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var all []Unfetched
	for len(all) < limit {
		key, v, ok, err := it.Next()
		if err != nil || !ok {
			return all, err
		}
		if v.Version.Block >= s.ledger.first {
			continue
		}
		here, err := s.private.ByHash(p, []byte(key))
		if err != nil {
			return nil, err
		}
		if here == nil || here.Version != v.Version {
			all = append(all, Unfetched{p.Namespace, p.Collection, []byte(key), v.Value, v.Version})
		}
	}
	return all, nil
}
