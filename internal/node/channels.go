package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/commit"
	"github.com/hansa-ledger/hansa/internal/cscc"
	"github.com/hansa-ledger/hansa/internal/deliver"
	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/endorse"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/lifecycle"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/qscc"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/snapshots"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// channels are the channels that a peer has joined, each with its ledger, its
// commit pipeline and its pull from the orderers.
type channels struct {
	peer  *peer
	dir   string
	ctx   context.Context // of the node; joined channels run in it
	stop  context.CancelFunc
	group *errgroup.Group

	mu      sync.RWMutex
	joined  map[string]*peerChannel // guarded by mu
	joining string                  // guarded by mu: folder of the snapshot that a channel is being joined by
}

var (
	_ cscc.Peer            = (*channels)(nil)
	_ endorse.PrivateStore = (*channels)(nil)
)

// peerChannel is one channel of a peer, in the words of each that uses it.
type peerChannel struct {
	*commit.Channel
	id     string
	peer   *peer
	plans  discovery.Planner
	puller *deliver.Puller
	taken  *snapshots.Channel // the snapshots that are taken of it

	// defined counts the blocks that changed definitions of contracts; known is what they were at one count.
	defined atomic.Uint64
	known   atomic.Pointer[contractList]
	// definitions are what snapshots have read of them.
	definitions definitions
	indexing    *indexing
}

func newChannels(ctx context.Context, group *errgroup.Group, p *peer) *channels {
	ctx, stop := context.WithCancel(ctx)
	return &channels{peer: p, dir: filepath.Join(p.config.DataDir, "channels"), ctx: ctx, stop: stop, group: group, joined: map[string]*peerChannel{}}
}

// open opens the channels that were joined before. A folder whose ledger is
// empty is that of a join that never finished.
func (c *channels) open() error {
	if err := c.dropUnfinishedJoin(); err != nil {
		return err
	}
	if _, err := finishUnjoins(c.peer.config.DataDir); err != nil {
		return fmt.Errorf("remove channels that were unjoined: %w", err)
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if c.isPaused(e.Name()) {
			c.peer.log.Info("the channel is paused", "channel", e.Name())
			continue
		}
		l, err := c.openLedger(e.Name())
		if err != nil {
			return fmt.Errorf("open channel %s: %w", e.Name(), err)
		}
		if l.Height() == 0 {
			if err := errors.Join(l.Close(), os.RemoveAll(filepath.Join(c.dir, e.Name()))); err != nil {
				return err
			}
			continue
		}
		if err := c.start(e.Name(), l, nil); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	return nil
}

func (c *channels) openLedger(id string) (*ledger.Ledger, error) {
	return ledger.Open(ledger.Config{Dir: filepath.Join(c.dir, id), ChannelID: id, Log: c.peer.log.With("channel", id)})
}

// start runs a channel on its ledger.
func (c *channels) start(id string, l *ledger.Ledger, genesis *commonpb.Block) error {
	p := c.peer
	log := p.log.With("channel", id)
	ch := &peerChannel{id: id, peer: p, indexing: newIndexing()}
	pipeline, err := commit.New(commit.Config{
		ChannelID: id, Ledger: l, Genesis: genesis, Verifier: p.verifier, Self: p.signer.Serialize(), Log: log,
		Private: fetcher{p.courier, id}, EraseAfter: p.config.PrivateData.EraseAfter,
		Committed: func(height uint64, updates *rwset.Updates) {
			ch.taken.Committed(height)
			places := updates.Places()
			changed := slices.ContainsFunc(places, func(at rwset.Place) bool { return at.Namespace == lifecycle.Namespace })
			ch.definitions.committed(height, changed)
			if changed {
				p.catalog.Changed(id, height)
				ch.indexing.wake()
				ch.defined.Add(1)
				p.directory.Changed()
			} else if slices.ContainsFunc(places, func(at rwset.Place) bool { return at.Namespace == "" }) {
				p.directory.Changed() // the configuration
			}
		},
	})
	if err != nil {
		return err
	}
	if ch.taken, err = snapshots.Open(snapshots.Config{Dir: filepath.Join(p.config.DataDir, "snapshots"), ChannelID: id, Ledger: l, Log: log}); err != nil {
		return err
	}
	if height, ok := l.Regaining(); ok {
		log.Info("the channel was rolled back: nothing is endorsed until it has its blocks again", "height", l.Height(), "until", height)
	}
	ch.Channel = pipeline
	ch.definitions.committed(pipeline.Height(), true)
	ch.puller = deliver.NewPuller(deliver.PullerConfig{
		ChannelID: id, Signer: p.signer, Certificate: &p.cert, Log: p.log, Next: pipeline.Next,
		Endpoints: func() []deliver.Endpoint {
			var endpoints []deliver.Endpoint
			for _, e := range pipeline.Bundle().OrdererEndpoints() {
				endpoints = append(endpoints, deliver.Endpoint{Address: e.Address, TLSRoots: e.TLSRoots})
			}
			return endpoints
		},
		Sink: func(ctx context.Context, b *commonpb.Block) error {
			err := pipeline.Submit(ctx, b)
			if bad := (*validate.BadBlock)(nil); errors.As(err, &bad) {
				return fmt.Errorf("%w: %w", deliver.ErrBadBlock, err)
			}
			return err
		},
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.joined[id] = ch
	c.group.Go(func() error { return pipeline.Run(c.ctx) })
	c.group.Go(func() error {
		ch.indexing.run(c.ctx, ch)
		return nil
	})
	c.group.Go(func() error {
		p.courier.Reconcile(c.ctx, id)
		return nil
	})
	c.group.Go(func() error {
		if err := ch.puller.Run(c.ctx); err != nil && c.ctx.Err() == nil {
			return fmt.Errorf("channel %s: pull blocks: %w", id, err)
		}
		return nil
	})
	return nil
}

// Join makes the peer a member of a channel. It survives a crash once the
// genesis block is committed, which commit.New does.
func (c *channels) Join(_ context.Context, id string, genesis *commonpb.Block) error {
	if _, ok := c.get(id); ok {
		return fmt.Errorf("cannot create ledger from genesis block: ledger [%s] already exists with state [ACTIVE]", id)
	}
	if c.isPaused(id) {
		return fmt.Errorf("cannot create ledger from genesis block: ledger [%s] already exists with state [INACTIVE]", id)
	}
	if err := c.notJoining(); err != nil {
		return err
	}
	if err := os.MkdirAll(c.dir, 0o750); err != nil {
		return err
	}
	l, err := c.openLedger(id)
	if err != nil {
		return err
	}
	if err := c.start(id, l, genesis); err != nil {
		return errors.Join(err, l.Close())
	}
	c.peer.directory.Changed()
	c.peer.log.Info("joined channel", "channel", id)
	return nil
}

// Channels lists the joined channels by name.
func (c *channels) Channels() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ids := make([]string, 0, len(c.joined))
	for id := range c.joined {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (c *channels) get(id string) (*peerChannel, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ch, ok := c.joined[id]
	return ch, ok
}

// lookup finds a channel as one of the interfaces that others see it by.
func lookup[T any](c *channels, id string) (T, bool) {
	ch, ok := c.get(id)
	if !ok {
		var none T
		return none, false
	}
	return any(ch).(T), true
}

var (
	_ endorse.Channel = (*peerChannel)(nil)
	_ deliver.Channel = (*peerChannel)(nil)
)

func (p *peer) bundle(id string) (*channel.Bundle, bool) {
	ch, ok := p.channels.get(id)
	if !ok {
		return nil, false
	}
	return ch.Bundle(), true
}

// Channel is what cscc sees of a channel.
func (c *channels) Channel(id string) (cscc.Channel, bool) {
	ch, ok := c.get(id)
	if !ok {
		return cscc.Channel{}, false
	}
	return cscc.Channel{Bundle: ch.Bundle(), Ledger: ch.Ledger()}, true
}

// ledger is what qscc sees of a channel.
func (c *channels) ledger(id string) (qscc.Ledger, bool) {
	ch, ok := c.get(id)
	if !ok {
		return nil, false
	}
	return ch.Ledger(), true
}

// snapshots opens the state of every channel in turn.
func (c *channels) snapshots(use func(channelID string, s simulation.Snapshot) error) error {
	for _, id := range c.Channels() {
		ch, ok := c.get(id)
		if !ok {
			continue
		}
		s := ch.snapshot()
		err := use(id, s)
		if err := errors.Join(err, s.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Keep stores the private data of an endorsed transaction until it commits.
func (c *channels) Keep(_ context.Context, data *endorse.PrivateData) error {
	ch, ok := c.get(data.ChannelID)
	if !ok {
		return fmt.Errorf("channel %s: the peer has not joined it", data.ChannelID)
	}
	return ch.Ledger().Transient().Put(data.TxID, data.EndorsedAt, data.Set)
}

// check reports a channel that has stopped.
func (c *channels) check(context.Context) error {
	for _, id := range c.Channels() {
		ch, ok := c.get(id)
		if !ok {
			continue
		}
		select {
		case <-ch.Errored():
			return fmt.Errorf("channel %s has stopped", id)
		default:
		}
	}
	return nil
}

// close closes the ledgers, once everything that used them has ended.
func (c *channels) close() (err error) {
	c.stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, ch := range c.joined {
		ch.taken.Close()
		if e := ch.Ledger().Close(); e != nil {
			err = errors.Join(err, fmt.Errorf("close channel %s: %w", id, e))
		}
	}
	return err
}

// Describe implements prometheus.Collector without naming metrics in advance:
// channels come while the peer runs.
func (c *channels) Describe(chan<- *prometheus.Desc) {}

// Collect gathers the metrics of every channel.
func (c *channels) Collect(metrics chan<- prometheus.Metric) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, ch := range c.joined {
		for _, collector := range slices.Concat(ch.Collectors(), ch.puller.Collectors()) {
			collector.Collect(metrics)
		}
	}
}

// HasTx tells whether a transaction id is used on the channel.
func (ch *peerChannel) HasTx(id string) (bool, error) { return ch.Ledger().HasTx(id) }

// Rebuilding tells whether the channel was rolled back and does not have all of its blocks again.
func (ch *peerChannel) Rebuilding() bool {
	_, rebuilding := ch.Ledger().Regaining()
	return rebuilding
}

func (ch *peerChannel) snapshot() snapshot {
	return snapshot{ch.Ledger().NewSnapshot(), &ch.definitions}
}

// Snapshot opens the state for endorsement.
func (ch *peerChannel) Snapshot() (endorse.Snapshot, error) {
	return ch.snapshot(), nil
}

// Authorize says whether a signed request may read the channel's blocks.
func (ch *peerChannel) Authorize(resource string, request policy.SignedData) error {
	return ch.peer.access.CheckSigned(ch.id, resource, request.Data, request.Identity, request.Signature)
}
