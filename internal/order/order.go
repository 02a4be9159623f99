// Package order is the ordering service of a node: it takes envelopes, checks that their senders may write, puts them
// into an order that all agree on, and makes signed blocks of them.
//
// Service holds the channels of the node, answers Broadcast as Hyperledger Fabric's orderers do (statuses and texts),
// and is managed by the channel participation API (Participation). A Chain orders one channel and is a source for
// package deliver.
//
// Guaranteed: SUCCESS is answered when the envelope is committed by consensus and fsynced on this node, not when it is
// queued (where Fabric answers): an acknowledged envelope is in the chain after a kill -9 or a power cut at any moment.
// Any other status means that it is not in the chain, but for SERVICE_UNAVAILABLE while a chain stops or loses its
// leader, whose text says so: then it may be sent again, anywhere, since peers let a transaction count once. One fsync serves all envelopes that arrived while the last one ran. Memory is bounded: when
// too much is waiting, the next envelope is refused with SERVICE_UNAVAILABLE at once.
//
// In a cluster any node takes envelopes: it forwards them to the leader, and waits with them for a new one while there is
// none. Which node a client talks to makes no difference to what SUCCESS means, also while an orderer of Fabric leads,
// which answers nothing: then the envelope has been seen in a block.
//
// Left out: migration between consensus types, and the gRPC and HTTP servers themselves.
//
// Open order.go first, then chain.go (one channel), consent.go (a consenter's loop), route.go (where an envelope goes), follow.go (how others get the
// blocks), members.go (who the consenters are), process.go (who may write), cut.go (when a block is cut), blocks.go (how
// it is encoded and signed), broadcast.go and participation.go (the two interfaces), observe.go (what is told of consensus), adopt.go (channels of another program). Package raft is consensus's log,
// package cluster the connections between consenters.
package order

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/blockstore"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/order/cluster"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// Config of a Service.
type Config struct {
	// Dir is the data folder; each channel has a folder of its own below it.
	Dir string `yaml:"dir"`
	// MaxInFlight and MaxInFlightBytes bound the envelopes of a channel that are accepted and not yet durable; beyond
	// that they are refused with SERVICE_UNAVAILABLE. Defaults 10000 and 64 MiB.
	MaxInFlight      int   `yaml:"maxInFlight"`
	MaxInFlightBytes int64 `yaml:"maxInFlightBytes"`
	// MaxLinger is how long a busy chain waits for a block to fill, within the channel's BatchTimeout; LingerGap ends the
	// wait when nothing arrives for so long, and a fifth of it when as many have come as before. A chain with little traffic does not wait. Defaults 50ms and 10ms.
	MaxLinger time.Duration `yaml:"maxLinger"`
	LingerGap time.Duration `yaml:"lingerGap"`
	// LogBytes is the size at which a channel's consensus log is compacted. Default: what the channel's config says.
	LogBytes int64 `yaml:"logBytes"`
	// MaxRequestBytes bounds a request of the channel participation API. Default 1 MiB, as in Fabric.
	MaxRequestBytes int64 `yaml:"maxRequestBytes"`
	// IgnoreExpired lets clients write whose certificates have expired, to give them time to renew.
	IgnoreExpired bool `yaml:"ignoreExpired"`

	// Certificate is this node's TLS server certificate (PEM): by its key the node finds itself among the consenters.
	Certificate []byte `yaml:"-"`
	// Signer signs blocks and config transactions.
	Signer   envelope.Signer    `yaml:"-"`
	Verifier *identity.Verifier `yaml:"-"`
	// Cluster connects this node to other consenters; nil for a node that serves channels with one consenter only.
	Cluster *cluster.Cluster `yaml:"-"`
	// Pull fetches blocks from other orderers until its context ends; nil for a node that only takes part as a consenter
	// from a channel's first block on, and never falls behind.
	Pull func(context.Context, Pull) error `yaml:"-"`
	// Accept says whether a block that was pulled is the next of its chain, and signed as the config in force wants it.
	Accept func(b *channel.Bundle, blk *commonpb.Block, number uint64, previousHash []byte) error `yaml:"-"`
	Now    func() time.Time                                                                       `yaml:"-"`
	Log    *slog.Logger                                                                           `yaml:"-"`

	metrics *metrics
}

func (c *Config) now() time.Time { return c.Now() }

func (c *Config) fill() error {
	if c.Dir == "" {
		return errors.New("orderer: dir is not set: name the data folder")
	}
	if c.Signer == nil || c.Verifier == nil {
		return errors.New("orderer: no signer or verifier")
	}
	if len(c.Certificate) == 0 {
		return errors.New("orderer: no TLS certificate to find this node among the consenters by")
	}
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 10_000
	}
	if c.MaxInFlightBytes == 0 {
		c.MaxInFlightBytes = 64 << 20
	}
	if c.MaxLinger == 0 {
		c.MaxLinger = 50 * time.Millisecond
	}
	if c.LingerGap == 0 {
		c.LingerGap = 10 * time.Millisecond
	}
	if c.MaxRequestBytes == 0 {
		c.MaxRequestBytes = 1 << 20
	}
	if c.Pull != nil && c.Accept == nil {
		return errors.New("orderer: blocks can be pulled and not be checked")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MaxInFlight < 0 || c.MaxInFlightBytes < 0 || c.MaxLinger < 0 || c.LingerGap < 0 || c.LogBytes < 0 || c.MaxRequestBytes < 0 {
		return errors.New("orderer: maxInFlight, maxInFlightBytes, maxLinger, lingerGap, logBytes and maxRequestBytes must not be negative")
	}
	return nil
}

// Service is the orderer of a node: its channels.
type Service struct {
	cfg     Config
	root    string
	started chan *Chain // handed to Run, which owns their goroutines

	mu       sync.RWMutex
	chains   map[string]*Chain
	changing map[string]bool // being joined or removed
}

// Sentinels of the participation operations, with Fabric's texts.
var (
	ErrChannelExists   = errors.New("channel already exists")
	ErrChannelUnknown  = errors.New("channel does not exist")
	ErrChannelChanging = errors.New("channel pending removal")
	ErrSystemChannel   = errors.New("invalid config: contains consortiums: system channel not supported")
)

// Names of folders that are no channel: a channel's name starts with a letter.
const (
	joiningPrefix  = "_joining-"
	removingPrefix = "_removing-"
)

// Open opens all channels in the data folder and finishes what a crash interrupted: a removal goes on, a join that had
// not been answered is undone.
func Open(cfg Config) (*Service, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	cfg.metrics = newMetrics()
	s := &Service{cfg: cfg, root: filepath.Join(cfg.Dir, "channels"), started: make(chan *Chain),
		chains: map[string]*Chain{}, changing: map[string]bool{}}
	if err := os.MkdirAll(s.root, 0o750); err != nil {
		return nil, fmt.Errorf("open orderer: %w", err)
	}
	names, err := os.ReadDir(s.root)
	if err != nil {
		return nil, fmt.Errorf("open orderer: %w", err)
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), joiningPrefix) || strings.HasPrefix(n.Name(), removingPrefix) {
			if err := os.RemoveAll(filepath.Join(s.root, n.Name())); err != nil {
				return nil, fmt.Errorf("open orderer: %w", err)
			}
			continue
		}
		if !n.IsDir() || channel.CheckID(n.Name()) != nil {
			continue
		}
		c, err := openChain(filepath.Join(s.root, n.Name()), n.Name(), &s.cfg)
		if err != nil {
			for _, open := range s.chains {
				open.closeConsent()
				open.store.Close()
			}
			return nil, err
		}
		s.chains[n.Name()] = c
	}
	return s, nil
}

// Run orders on all channels until the context ends. It returns an error as soon as one of them cannot go on: storage
// that failed once is not to be trusted, and a restart reads it again.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	s.mu.RLock()
	for _, c := range s.chains {
		group.Go(func() error { return c.run(ctx) })
	}
	s.mu.RUnlock()
	group.Go(func() error {
		for {
			select {
			case c := <-s.started:
				group.Go(func() error { return c.run(ctx) })
			case <-ctx.Done():
				return nil
			}
		}
	})
	return group.Wait()
}

// Channel returns a channel that this node orders.
func (s *Service) Channel(id string) (*Chain, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, ok := s.chains[id]
	return c, ok
}

// Channels are the names of the channels, sorted.
func (s *Service) Channels() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var names []string
	for id := range s.chains {
		names = append(names, id)
	}
	slices.Sort(names)
	return names
}

// change marks a channel as being joined or removed, so that only one of that happens at a time.
func (s *Service) change(id string, wantExists bool) (*Chain, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changing[id] {
		return nil, nil, ErrChannelChanging
	}
	c, exists := s.chains[id]
	if exists && !wantExists {
		return nil, nil, ErrChannelExists
	}
	if !exists && wantExists {
		return nil, nil, ErrChannelUnknown
	}
	s.changing[id] = true
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.changing, id)
	}, nil
}

// JoinBlock checks that a block can start a channel here, as far as the block alone tells, and names the channel.
func (s *Service) JoinBlock(b *commonpb.Block) (*channel.Bundle, error) {
	if !block.IsConfig(b) {
		return nil, errors.New("block is not a config block")
	}
	if len(b.GetMetadata().GetMetadata()) == 0 {
		return nil, errors.New("invalid block: does not have metadata")
	}
	if b.Header == nil || string(block.DataHash(b.Data.Data)) != string(b.Header.DataHash) {
		return nil, errors.New("invalid block: Header.DataHash is different from Hash(block.Data)")
	}
	bundle, err := channel.FromBlock(b, s.cfg.Verifier)
	if err != nil {
		return nil, err
	}
	if _, system := bundle.Config().ChannelGroup.Groups["Consortiums"]; system {
		return nil, ErrSystemChannel
	}
	if !bundle.HasApplication() {
		return nil, errors.New("invalid config: must contain application config")
	}
	return bundle, nil
}

// Join starts ordering a channel from its genesis block, or from a later config block: then this node pulls the blocks
// before it from other orderers, and takes part as soon as the config names it as a consenter. When it returns, the channel
// survives a crash. Run must be running.
func (s *Service) Join(ctx context.Context, b *commonpb.Block) (*Chain, error) {
	bundle, err := s.JoinBlock(b)
	if err != nil {
		return nil, fmt.Errorf("invalid join block: %w", err)
	}
	id := bundle.ID()
	_, done, err := s.change(id, false)
	if err != nil {
		return nil, err
	}
	defer done()
	if name, _, _ := bundle.ConsensusType(); name != channel.ConsensusRaft {
		return nil, fmt.Errorf("failed to find a consenter for consensus type: %s", name)
	}
	if s.cfg.Pull == nil {
		if b.Header.Number != 0 {
			return nil, fmt.Errorf("this orderer joins a channel by its genesis block, not by block %d: it cannot fetch the blocks before", b.Header.Number)
		}
		if _, _, err := membership(bundle, s.cfg.Certificate); err != nil {
			return nil, err
		}
	}
	raw, err := proto.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode join block: %w", err)
	}
	draft, dir := filepath.Join(s.root, joiningPrefix+id), filepath.Join(s.root, id)
	c, err := s.create(draft, dir, id, b.Header.Number, raw)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(draft))
	}
	select {
	case s.started <- c:
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), c.closeConsent(), c.store.Close(), os.RemoveAll(dir))
	}
	s.mu.Lock()
	s.chains[id] = c
	s.mu.Unlock()
	s.cfg.Log.Info("joined channel", "channel", id)
	return c, nil
}

// create makes the channel's folder under a draft name and renames it when it is complete.
func (s *Service) create(draft, dir, id string, number uint64, joinBlock []byte) (*Chain, error) {
	if err := os.RemoveAll(draft); err != nil {
		return nil, fmt.Errorf("create channel folder: %w", err)
	}
	store, err := blockstore.Open(filepath.Join(draft, "blocks"), blockstore.Options{})
	if err != nil {
		return nil, err
	}
	if number == 0 {
		err = errors.Join(store.Append(0, joinBlock, nil), store.Sync())
	} else {
		err = writeDurably(filepath.Join(draft, joinFile), joinBlock)
	}
	if err := errors.Join(err, store.Close()); err != nil {
		return nil, fmt.Errorf("store join block: %w", err)
	}
	if err := syncDir(draft); err != nil {
		return nil, fmt.Errorf("create channel folder: %w", err)
	}
	if err := os.Rename(draft, dir); err != nil {
		return nil, fmt.Errorf("create channel folder: %w", err)
	}
	if err := syncDir(s.root); err != nil {
		return nil, fmt.Errorf("create channel folder: %w", err)
	}
	c, err := openChain(dir, id, &s.cfg)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return c, nil
}

// Remove stops ordering a channel and deletes its blocks.
func (s *Service) Remove(id string) error {
	c, done, err := s.change(id, true)
	if err != nil {
		return err
	}
	defer done()
	close(c.quit)
	<-c.ended
	s.mu.Lock()
	delete(s.chains, id)
	s.mu.Unlock()
	s.cfg.metrics.height.DeleteLabelValues(id)
	gone := filepath.Join(s.root, removingPrefix+id)
	if err := os.Rename(filepath.Join(s.root, id), gone); err != nil {
		return fmt.Errorf("remove channel: %w", err)
	}
	if err := errors.Join(syncDir(s.root), os.RemoveAll(gone)); err != nil {
		return fmt.Errorf("remove channel: %w", err)
	}
	s.cfg.Log.Info("removed channel", "channel", id)
	return nil
}

func writeDurably(name string, content []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
