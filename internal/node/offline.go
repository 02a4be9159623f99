package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
)

// pausedFile in a channel's folder keeps the peer from opening the channel.
const pausedFile = "paused"

// Offline is the data of a peer that does not run, for its operator to work on. Every operation can be interrupted and done
// again. Errors are worded as those of Fabric's `peer node` wherever that has the same.
type Offline struct {
	dir    string // the peer's data folder
	log    *slog.Logger
	unlock func()
}

// OpenOffline takes a peer's data folder, which no running peer may hold.
func OpenOffline(dataDir string, log *slog.Logger) (*Offline, error) {
	if dataDir == "" {
		return nil, errors.New("dataDir is missing in the peer's configuration")
	}
	if info, err := os.Stat(dataDir); err != nil {
		return nil, fmt.Errorf("the peer's data folder: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("the peer's data folder: %s is no folder", dataDir)
	}
	unlock, err := lockData(dataDir)
	if err != nil {
		return nil, fmt.Errorf("as another peer node command is executing, wait for that command to complete its execution or terminate it before retrying: %w", err)
	}
	return &Offline{dir: dataDir, log: log, unlock: unlock}, nil
}

// Close gives the data folder back.
func (o *Offline) Close() { o.unlock() }

func (o *Offline) channelDir(id string) string { return filepath.Join(o.dir, "channels", id) }

func (o *Offline) ledger(id string) ledger.Config {
	return ledger.Config{Dir: o.channelDir(id), ChannelID: id, Log: o.log.With("channel", id)}
}

// channels lists the channels that the peer has joined, paused ones too.
func (o *Offline) channels() (ids []string, err error) {
	entries, err := os.ReadDir(filepath.Join(o.dir, "channels"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if e.IsDir() {
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}

func (o *Offline) has(id string) (bool, error) {
	ids, err := o.channels()
	for _, one := range ids {
		if one == id { // an id from outside never becomes a path unless it is a name that is there
			return true, err
		}
	}
	return false, err
}

// Reset takes all channels back to their genesis blocks; the peer fetches the others again when it starts.
func (o *Offline) Reset() error {
	ids, err := o.channels()
	if err != nil {
		return err
	}
	var bySnapshot []string
	for _, id := range ids {
		if _, err := os.Stat(filepath.Join(o.channelDir(id), ledger.BootstrapDir)); err == nil {
			bySnapshot = append(bySnapshot, id)
		}
	}
	if len(bySnapshot) > 0 {
		return fmt.Errorf("cannot reset channels because the peer contains channel(s) %s that were bootstrapped from snapshot", bySnapshot)
	}
	for _, id := range ids {
		err := ledger.Rollback(o.ledger(id), 0)
		if refused := (*ledger.RollbackError)(nil); errors.As(err, &refused) { // it is at its genesis block, or has not even that
			err = ledger.Rebuild(o.ledger(id))
		}
		if err != nil {
			return err
		}
		o.log.Info("the channel was reset to its genesis block", "channel", id)
	}
	return nil
}

// Rollback takes one channel back to a block, which becomes its last one until the peer starts and fetches the others again.
func (o *Offline) Rollback(id string, block uint64) error {
	switch ok, err := o.has(id); {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("ledgerID [%s] does not exist", id)
	}
	if err := ledger.Rollback(o.ledger(id), block); err != nil {
		return err
	}
	o.log.Info("the channel was rolled back", "channel", id, "block", block)
	return nil
}

// RebuildDatabases removes what is derived from the blocks of all channels; the peer makes it again when it starts.
func (o *Offline) RebuildDatabases() error {
	ids, err := o.channels()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := ledger.Rebuild(o.ledger(id)); err != nil {
			return err
		}
		o.log.Info("state, history and indexes are made again when the peer starts", "channel", id)
	}
	return nil
}

// UpgradeDatabases removes what an older program derived from the blocks in another format. It is never necessary: the peer
// does the same when it starts.
func (o *Offline) UpgradeDatabases() error {
	ids, err := o.channels()
	if err != nil {
		return err
	}
	upgraded := false
	for _, id := range ids {
		old, err := ledger.OldFormat(o.ledger(id))
		if err == nil && old {
			upgraded = true
			err = ledger.Rebuild(o.ledger(id))
		}
		if err != nil {
			return err
		}
	}
	if !upgraded {
		return errors.New("the data format is already up to date. No upgrade is required")
	}
	return nil
}

// Pause keeps the peer away from a channel, from its next start on until Resume.
func (o *Offline) Pause(id string) error {
	if err := o.mustExist(id); err != nil {
		return err
	}
	dir := o.channelDir(id)
	f, err := os.OpenFile(filepath.Join(dir, pausedFile), os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("pause channel %s: %w", id, err)
	}
	if err := errors.Join(f.Close(), snapshotfile.SyncDir(vfs.Default, dir)); err != nil {
		return fmt.Errorf("pause channel %s: %w", id, err)
	}
	o.log.Info("the channel was paused", "channel", id)
	return nil
}

// Resume ends Pause.
func (o *Offline) Resume(id string) error {
	if err := o.mustExist(id); err != nil {
		return err
	}
	dir := o.channelDir(id)
	if err := os.Remove(filepath.Join(dir, pausedFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("resume channel %s: %w", id, err)
	}
	if err := snapshotfile.SyncDir(vfs.Default, dir); err != nil {
		return fmt.Errorf("resume channel %s: %w", id, err)
	}
	o.log.Info("the channel was resumed", "channel", id)
	return nil
}

func (o *Offline) mustExist(id string) error {
	ok, err := o.has(id)
	if err == nil && !ok {
		err = fmt.Errorf("cannot update ledger status, ledger [%s] does not exist", id)
	}
	return err
}

// Unjoin removes a channel from the peer, with its private data and its requests for snapshots. Finished snapshots stay.
func (o *Offline) Unjoin(id string) error {
	if unfinished, err := finishUnjoins(o.dir); err != nil {
		return fmt.Errorf("unjoin channel [%s]: %w", id, err)
	} else if unfinished[id] {
		o.log.Info("the channel was unjoined", "channel", id)
		return nil
	}
	if err := o.mustExist(id); err != nil {
		return fmt.Errorf("unjoin channel [%s]: %w", id, err)
	}
	// Once it is moved the peer knows nothing of it; its own start removes what is left.
	leaving := filepath.Join(o.dir, unjoiningDir)
	err := os.MkdirAll(leaving, 0o750)
	if err == nil {
		err = os.Rename(o.channelDir(id), filepath.Join(leaving, id))
	}
	if err == nil {
		err = errors.Join(snapshotfile.SyncDir(vfs.Default, filepath.Join(o.dir, "channels")), snapshotfile.SyncDir(vfs.Default, leaving),
			snapshotfile.SyncDir(vfs.Default, o.dir))
	}
	if err == nil {
		_, err = finishUnjoins(o.dir)
	}
	if err != nil {
		return fmt.Errorf("unjoin channel [%s]: %w", id, err)
	}
	o.log.Info("the channel was unjoined", "channel", id)
	return nil
}

// unjoiningDir in a peer's data folder is where channels are that are being removed.
const unjoiningDir = "unjoining"

// finishUnjoins removes what is left of channels that were unjoined, and says which.
func finishUnjoins(dataDir string) (removed map[string]bool, err error) {
	leaving := filepath.Join(dataDir, unjoiningDir)
	entries, err := os.ReadDir(leaving)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	removed = map[string]bool{}
	for _, e := range entries {
		id := e.Name()
		for _, path := range []string{
			filepath.Join(dataDir, "snapshots", "requests", id+".json"),
			filepath.Join(dataDir, "snapshots", "temp", id),
			filepath.Join(leaving, id),
		} {
			err = errors.Join(err, os.RemoveAll(path))
		}
		removed[id] = true
	}
	return removed, errors.Join(err, os.Remove(leaving))
}

// isPaused tells whether a channel is not to be opened.
func (c *channels) isPaused(id string) bool {
	_, err := os.Stat(filepath.Join(c.dir, id, pausedFile))
	return err == nil
}
