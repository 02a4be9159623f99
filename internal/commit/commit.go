// Package commit takes a channel's blocks as they come from the ordering service and makes them part of the peer's
// ledger: decode -> verify -> conflict check -> persist -> notify.
//
//   - Submit accepts a block: that it is the next one, whole, and signed by the orderers; and decodes it. Who
//     sends a bad one is told, and the channel is as before.
//   - Run works on what was accepted, two blocks at a time: while one is checked for conflicts and persisted, the
//     signatures in the next are verified. A block behind a configuration block waits until that is committed, since the
//     configuration says whose signatures count.
//
// What it guarantees: a block is committed once, in order, durably, before anyone is told of it; a peer that was killed goes on
// where its ledger ends; what waits here is bounded, and Submit waits when the bound is met.
//
// It leaves out fetching blocks (package deliver), the verdicts (validate), and how a block is stored (ledger).
//
// Open this file first; private.go gathers private data, late.go commits what comes after its block and erases what was
// purged, wait.go serves those who wait for a commit.
package commit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// Defaults of Config.
const (
	DefaultPendingBlocks = 16
	DefaultPendingBytes  = 64 << 20
	DefaultEraseAfter    = 10 * time.Minute
)

// Config says what a Channel works with.
type Config struct {
	ChannelID string
	// Ledger is the channel's ledger. If it is empty, Genesis makes its first block.
	Ledger   *ledger.Ledger
	Genesis  *commonpb.Block
	Verifier *identity.Verifier
	// Self is the peer's own serialized identity. It decides which private data the peer should have; empty for a peer
	// that keeps none.
	Self []byte
	// Private fetches private data that was not endorsed here; nil records it as missing.
	Private PrivateData
	// Committed is told of each block after it was committed and before those who wait for it: what caches of the
	// state must know. It must not wait. nil for nobody.
	Committed func(height uint64, updates *rwset.Updates)
	// EraseAfter is for how long purged private data may stay in the files of the ledger, hidden from readers, before it is
	// erased from them; blocks wait meanwhile. DefaultEraseAfter if 0.
	EraseAfter time.Duration
	// PendingBlocks and PendingBytes bound what is accepted and not yet committed. A single block larger than
	// PendingBytes is taken when nothing else waits. 0 for the defaults.
	PendingBlocks int
	PendingBytes  int64
	// Log is where commits are reported; nil discards.
	Log *slog.Logger
}

// Channel is a peer's copy of one channel, as it grows. All methods are safe for concurrent use.
type Channel struct {
	config    Config
	log       *slog.Logger
	ledger    *ledger.Ledger
	validator *validate.Validator
	metrics   *metrics
	bundle    atomic.Pointer[channel.Bundle]
	accepted  chan *work
	pending   *semaphore.Weighted // bytes
	waiting   *waiting
	late      chan lateData
	eraser    eraser // of the goroutine that commits

	// arrival guards the end of the chain as accepted, which is ahead of the ledger.
	arrival chan struct{} // a lock that can be given up on: holds one token
	next    atomic.Uint64 // changed under arrival, read by anyone
	tip     []byte        // hash of the header before next
	barrier uint64        // no block is accepted until the ledger has this height

	stop    sync.Once
	stopped chan struct{}
	failure error // why, set before stopped is closed
}

// work is one block on its way.
type work struct {
	*block.Parsed
	bytes    int64
	prepared *validate.Prepared
}

// ErrStopped is returned once Run has ended, together with the reason.
var ErrStopped = errors.New("the channel is stopped")

// New opens a channel at the height of its ledger. An empty ledger gets the genesis block.
func New(config Config) (*Channel, error) {
	if config.PendingBlocks <= 0 {
		config.PendingBlocks = DefaultPendingBlocks
	}
	if config.PendingBytes <= 0 {
		config.PendingBytes = DefaultPendingBytes
	}
	if config.EraseAfter <= 0 {
		config.EraseAfter = DefaultEraseAfter
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	c := &Channel{
		config:    config,
		log:       config.Log.With("channel", config.ChannelID),
		ledger:    config.Ledger,
		validator: validate.New(validate.Config{}),
		metrics:   newMetrics(config.ChannelID),
		accepted:  make(chan *work, config.PendingBlocks),
		pending:   semaphore.NewWeighted(config.PendingBytes),
		waiting:   newWaiting(),
		late:      make(chan lateData),
		arrival:   make(chan struct{}, 1),
		stopped:   make(chan struct{}),
	}
	if c.ledger.Height() == 0 {
		if err := c.begin(); err != nil {
			return nil, fmt.Errorf("begin channel %q: %w", config.ChannelID, err)
		}
	}
	bundle, err := currentBundle(config)
	if err != nil {
		return nil, fmt.Errorf("open channel %q: %w", config.ChannelID, err)
	}
	c.bundle.Store(bundle)
	c.next.Store(c.ledger.Height())
	c.waiting.height = c.ledger.Height()
	c.tip = c.ledger.Info().CurrentBlockHash
	c.metrics.height.Set(float64(c.ledger.Height()))
	return c, nil
}

// begin commits the genesis block, which the operator vouches for.
func (c *Channel) begin() error {
	if c.config.Genesis == nil {
		return errors.New("the ledger is empty and no genesis block was given")
	}
	genesis := block.Parse(proto.CloneOf(c.config.Genesis))
	switch id := genesis.Txs; {
	case genesis.GetHeader().GetNumber() != 0 || len(id) != 1:
		return fmt.Errorf("the block given is number %d with %d transactions, not a genesis block", genesis.GetHeader().GetNumber(), len(id))
	case id[0].ChannelID() != c.config.ChannelID:
		return fmt.Errorf("the genesis block is of channel %q", id[0].ChannelID())
	}
	if _, err := channel.FromBlock(genesis.Block, c.config.Verifier); err != nil {
		return fmt.Errorf("genesis block: %w", err)
	}
	result, err := validate.Genesis(genesis)
	if err != nil {
		return err
	}
	block.SetFilter(genesis.Block, result.Codes)
	return c.ledger.Commit(&ledger.Commit{Block: genesis, Updates: result.Updates, Sets: result.Sets})
}

// currentBundle reads the channel's configuration from the state.
func currentBundle(config Config) (*channel.Bundle, error) {
	snapshot := config.Ledger.NewSnapshot()
	defer snapshot.Close()
	value, err := snapshot.Get("", rwset.ConfigKey)
	if err != nil {
		return nil, err
	}
	if value == nil {
		return nil, errors.New("the ledger holds no channel configuration")
	}
	envelope := &commonpb.ConfigEnvelope{}
	if err := proto.Unmarshal(value.Value, envelope); err != nil {
		return nil, fmt.Errorf("decode the channel configuration in the ledger: %w", err)
	}
	return channel.NewBundle(config.ChannelID, envelope.Config, config.Verifier)
}

// Next is the number of the block that Submit wants.
func (c *Channel) Next() uint64 { return c.next.Load() }

// Submit accepts the next block, which then belongs to the channel. It waits while too much is pending, and behind a
// configuration block until that is committed. A *validate.BadBlock error means that the sender is not to be trusted; any
// other that this channel takes no more blocks, or that ctx ended; the block may be submitted again.
func (c *Channel) Submit(ctx context.Context, b *commonpb.Block) error {
	select {
	case c.arrival <- struct{}{}:
		defer func() { <-c.arrival }()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-c.stopped:
		return c.stopError()
	default:
	}
	if err := c.Wait(ctx, c.barrier); err != nil {
		return err
	}
	if err := validate.Accept(c.Bundle(), b, c.next.Load(), c.tip); err != nil {
		c.metrics.refused.Inc()
		return err
	}
	w := &work{Parsed: block.Parse(b), bytes: min(int64(proto.Size(b)), c.config.PendingBytes)}
	if err := c.acquire(ctx, w.bytes); err != nil {
		return err
	}
	select {
	case c.accepted <- w:
	case <-ctx.Done():
		c.pending.Release(w.bytes)
		return ctx.Err()
	case <-c.stopped:
		return c.stopError()
	}
	c.tip = block.HeaderHash(b.Header)
	// The decoded form says enough: a block that only looks like a configuration delays the next one, no more.
	if next := c.next.Add(1); len(w.Txs) == 1 && w.Txs[0].Type() == commonpb.HeaderType_CONFIG {
		c.barrier = next
	}
	return nil
}

// acquire waits for room for a block, until ctx ends or the channel stops.
func (c *Channel) acquire(ctx context.Context, bytes int64) error {
	if c.pending.TryAcquire(bytes) {
		return nil
	}
	waiting, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-c.stopped:
			cancel()
		case <-waiting.Done():
		}
	}()
	err := c.pending.Acquire(waiting, bytes)
	cancel()
	<-watched
	if err != nil && ctx.Err() == nil {
		return c.stopError()
	}
	return err
}

// Run commits what Submit accepts, until ctx ends (nil) or a block cannot be decided or stored (why). It runs once.
func (c *Channel) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	verified := make(chan *work, 1)
	group.Go(func() error { return c.verify(ctx, verified) })
	group.Go(func() error { return c.commit(ctx, verified) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	c.stop.Do(func() {
		c.failure = err
		close(c.stopped)
	})
	return err
}

// verify checks what needs no state; nearly all of the work.
func (c *Channel) verify(ctx context.Context, verified chan<- *work) error {
	for {
		var w *work
		select {
		case w = <-c.accepted:
		case <-ctx.Done():
			return ctx.Err()
		}
		start := time.Now()
		w.prepared = c.validator.Prepare(c.Bundle(), w.Parsed)
		c.metrics.verify.Observe(time.Since(start).Seconds())
		select {
		case verified <- w:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// commit decides, persists and notifies, one block after the other. What else changes the ledger runs between blocks.
func (c *Channel) commit(ctx context.Context, verified <-chan *work) error {
	purged, err := c.ledger.HasPurges() // by an earlier run, which may not have come to erasing them
	if err != nil {
		return err
	}
	c.eraser = eraser{after: c.config.EraseAfter}
	defer c.eraser.stop()
	if purged {
		c.eraser.purged()
	}
	for {
		select {
		case data := <-c.late:
			c.commitLate(data)
		case <-c.eraser.due:
			c.erase()
		case w := <-verified:
			if err := c.commitOne(ctx, w); err != nil {
				return fmt.Errorf("channel %q: commit block %d: %w", c.config.ChannelID, w.Header.Number, err)
			}
			c.pending.Release(w.bytes)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// state is what validation reads: the ledger after the block before.
type state struct {
	*ledger.Snapshot
	*ledger.Ledger
}

func (c *Channel) commitOne(ctx context.Context, w *work) error {
	start := time.Now()
	snapshot := c.ledger.NewSnapshot()
	defer snapshot.Close()
	result, err := c.validator.Decide(c.Bundle(), w.prepared, state{snapshot, c.ledger})
	if err != nil {
		return err
	}
	decided := time.Now()
	private, err := c.gather(ctx, w.Parsed, result, snapshot)
	if err != nil {
		return err
	}
	block.SetFilter(w.Block, result.Codes)
	block.SetCommitHash(w.Block, rwset.CommitHash(result.Codes, result.Updates.CommitBytes(), c.ledger.LastCommitHash()))
	gathered := time.Now()
	err = c.ledger.Commit(&ledger.Commit{Block: w.Parsed, Updates: result.Updates, Sets: result.Sets, Private: private.found, Missing: private.missing})
	if err != nil {
		return err
	}
	persisted := time.Now()
	if len(result.Updates.Purges()) > 0 {
		c.eraser.purged()
	}
	if result.NextBundle != nil {
		c.bundle.Store(result.NextBundle)
	}
	if c.config.Committed != nil {
		c.config.Committed(w.Header.Number+1, result.Updates)
	}
	c.waiting.committed(w.Parsed, result)
	private.forget(c)
	c.metrics.committed(w.Parsed, result.Codes, decided.Sub(start), gathered.Sub(decided), persisted.Sub(gathered))
	c.log.Debug("block committed", "block", w.Header.Number, "transactions", len(result.Codes))
	return nil
}

// Bundle is the channel's configuration after the newest committed block.
func (c *Channel) Bundle() *channel.Bundle { return c.bundle.Load() }

// Sequence counts the channel's configurations.
func (c *Channel) Sequence() uint64 { return c.Bundle().Sequence() }

// Ledger is the channel's ledger.
func (c *Channel) Ledger() *ledger.Ledger { return c.ledger }

// Errored is closed when the channel takes no more blocks.
func (c *Channel) Errored() <-chan struct{} { return c.stopped }

func (c *Channel) stopError() error {
	if c.failure != nil {
		return fmt.Errorf("%w: %w", ErrStopped, c.failure)
	}
	return ErrStopped
}
