// Package snapshots makes snapshots of a peer's channels when they are asked for: of the newest block at once, of a
// later one as soon as it is committed. Commits go on while one is written.
//
// Requests survive a restart, and so does the promise: a snapshot whose block was the newest when the peer stopped is
// made at the next start. A finished snapshot appears under completed/CHANNEL/BLOCK in the folder of snapshots, whole or not at
// all; nothing here ever removes it.
//
// What is in a snapshot is decided in package ledger, its files are those of package snapshotfile. Open this file for requests,
// and service.go for the gRPC service with which `peer snapshot` makes them.
package snapshots

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
)

// MaxPending bounds the requests that wait at a channel.
const MaxPending = 1024

// Config says what snapshots are made of, and where they go.
type Config struct {
	// Dir is the folder of all channels' snapshots; it is created.
	Dir       string
	ChannelID string
	Ledger    *ledger.Ledger
	// Log is where snapshots are reported; nil discards.
	Log *slog.Logger
}

// Channel makes the snapshots of one channel. All methods are safe for concurrent use.
type Channel struct {
	config Config
	log    *slog.Logger
	ctx    context.Context // of what is being written
	stop   context.CancelFunc
	work   sync.WaitGroup
	turn   chan struct{} // holds one token: one snapshot is written at a time

	mu      sync.Mutex
	closed  bool
	pending []uint64        // sorted; as on disk
	writing map[uint64]bool // of pending: cannot be cancelled any more
}

// Completed is the folder of a finished snapshot.
func Completed(dir, channelID string, block uint64) string {
	return filepath.Join(dir, "completed", channelID, strconv.FormatUint(block, 10))
}

// Open takes up the requests of a channel. Those that cannot be met any more, because the peer was killed while it wrote
// them and went on since, are dropped and logged.
func Open(config Config) (*Channel, error) {
	c := &Channel{config: config, log: config.Log, turn: make(chan struct{}, 1), writing: map[uint64]bool{}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if err := c.load(); err != nil {
		return nil, fmt.Errorf("open snapshots of channel %q: %w", config.ChannelID, err)
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	height := config.Ledger.Height()
	for _, n := range slices.Clone(c.pending) {
		switch {
		case n >= height:
		case c.exists(n): // finished, but for the crossing out
			c.forget(n)
		case n == height-1:
			c.begin(n, config.Ledger.NewSnapshot())
		default:
			c.log.Error("a requested snapshot was lost when the peer stopped; request another", "block", n, "last", height-1)
			c.forget(n)
		}
	}
	return c, nil
}

// load reads the requests and removes what was left half written.
func (c *Channel) load() error {
	if err := os.RemoveAll(c.temp()); err != nil {
		return err
	}
	raw, err := os.ReadFile(c.requests())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, &c.pending); err != nil {
		return fmt.Errorf("%s: %w; remove the file to begin without requests", c.requests(), err)
	}
	slices.Sort(c.pending)
	c.pending = slices.Compact(c.pending)
	return nil
}

func (c *Channel) temp() string { return filepath.Join(c.config.Dir, "temp", c.config.ChannelID) }
func (c *Channel) requests() string {
	return filepath.Join(c.config.Dir, "requests", c.config.ChannelID+".json")
}

func (c *Channel) exists(n uint64) bool {
	_, err := os.Stat(Completed(c.config.Dir, c.config.ChannelID, n))
	return err == nil
}

// Submit asks for a snapshot after a block that is the newest or is still to come; 0 stands for the newest. It
// is durable when Submit returns. The errors are Fabric's.
func (c *Channel) Submit(block uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ledger.ErrClosed
	}
	// Under the lock, so that a block that is committed meanwhile is either in this snapshot or found pending by Committed.
	s := c.config.Ledger.NewSnapshot()
	if s.Height() == 0 {
		return errors.Join(errors.New("the ledger holds no block"), s.Close())
	}
	last := s.Height() - 1
	if block == 0 {
		block = last
	}
	err := c.refuse(block, last)
	if err == nil {
		err = c.store(append(slices.Clone(c.pending), block))
	}
	if err != nil || block > last {
		return errors.Join(err, s.Close())
	}
	c.begin(block, s)
	return nil
}

func (c *Channel) refuse(block, last uint64) error {
	switch {
	case block < last:
		return fmt.Errorf("requested snapshot for block number %d cannot be less than the last committed block number %d", block, last)
	case slices.Contains(c.pending, block):
		return fmt.Errorf("duplicate snapshot request for block number %d", block)
	case c.exists(block):
		return fmt.Errorf("snapshot already generated for block number %d", block)
	case len(c.pending) >= MaxPending:
		return fmt.Errorf("%d snapshot requests are pending already; cancel some", len(c.pending))
	}
	return nil
}

// Cancel takes back a request that is not being met yet.
func (c *Channel) Cancel(block uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return ledger.ErrClosed
	case c.writing[block]:
		return errors.New("cannot cancel the snapshot request because it is under processing")
	case !slices.Contains(c.pending, block):
		return fmt.Errorf("no snapshot request exists for block number %d", block)
	}
	return c.store(without(c.pending, block))
}

// Pending lists the requests that are not met yet, in order.
func (c *Channel) Pending() []uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.pending)
}

// Committed is told of every block, after it was committed and before the next is: height is that of the ledger. It does
// not wait for the snapshot.
func (c *Channel) Committed(height uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := height - 1
	if c.closed || c.writing[n] || !slices.Contains(c.pending, n) {
		return
	}
	c.begin(n, c.config.Ledger.NewSnapshot())
}

// begin writes a snapshot in the background. It is called with mu held.
func (c *Channel) begin(n uint64, s *ledger.Snapshot) {
	c.writing[n] = true
	c.work.Go(func() {
		var err error
		select {
		case c.turn <- struct{}{}:
			err = c.write(n, s)
			<-c.turn
		case <-c.ctx.Done():
			err = c.ctx.Err()
		}
		err = errors.Join(err, s.Close())
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.writing, n)
		switch {
		case err == nil:
			c.log.Info("generated snapshot", "block", n, "folder", Completed(c.config.Dir, c.config.ChannelID, n))
		case c.ctx.Err() != nil:
			return // the request stays for the next start
		default:
			c.log.Error("failed to generate snapshot; request it again", "block", n, "error", err)
		}
		c.forget(n)
	})
}

func (c *Channel) write(n uint64, s *ledger.Snapshot) error {
	if s.Height() != n+1 {
		return fmt.Errorf("the ledger is at height %d", s.Height()) // closed meanwhile
	}
	temp := filepath.Join(c.temp(), strconv.FormatUint(n, 10))
	done := Completed(c.config.Dir, c.config.ChannelID, n)
	fs := vfs.Default
	err := errors.Join(os.MkdirAll(temp, 0o750), os.MkdirAll(filepath.Dir(done), 0o750))
	if err == nil {
		err = s.Export(c.ctx, fs, temp)
	}
	if err == nil {
		err = os.Rename(temp, done)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(temp))
	}
	// From the new name up to the folder that was there.
	for dir := filepath.Dir(done); ; dir = filepath.Dir(dir) {
		if err := snapshotfile.SyncDir(fs, dir); err != nil {
			return err
		}
		if dir == filepath.Dir(c.config.Dir) || dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// forget crosses out a request. A failure costs a second look at the next start.
func (c *Channel) forget(n uint64) {
	if err := c.store(without(c.pending, n)); err != nil {
		c.log.Error("a snapshot request could not be removed", "block", n, "error", err)
		c.pending = without(c.pending, n)
	}
}

func without(all []uint64, n uint64) []uint64 {
	return slices.DeleteFunc(slices.Clone(all), func(m uint64) bool { return m == n })
}

// store makes the requests durable, then takes them for true.
func (c *Channel) store(pending []uint64) error {
	slices.Sort(pending)
	raw, err := json.Marshal(pending)
	if err != nil {
		return err
	}
	path := c.requests()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("store snapshot requests: %w", err)
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return fmt.Errorf("store snapshot requests: %w", err)
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = snapshotfile.SyncDir(vfs.Default, filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("store snapshot requests: %w", err)
	}
	c.pending = pending
	return nil
}

// Wait returns when no snapshot is being written.
func (c *Channel) Wait() { c.work.Wait() }

// Close stops what is being written, which the next Open takes up again if it can. The ledger is still open then.
func (c *Channel) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.work.Wait()
}
