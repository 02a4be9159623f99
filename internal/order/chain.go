package order

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/blockstore"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/order/raft"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
)

// submission is an envelope on its way into the chain.
type submission struct {
	env      *commonpb.Envelope
	payload  *commonpb.Payload  // of what the client sent
	update   *commonpb.Envelope // for a config transaction: the update it was made from
	sequence uint64             // of the config that it was checked against
	done     chan *Rejection    // has room for the one answer: nil when the envelope is durably in the chain
}

func (s *submission) size() uint32 { return envelopeSize(s.env) }

// proposal is a block that consensus has not committed yet.
type proposal struct {
	hash  []byte // of its header
	batch []*submission
}

// Chain orders one channel. One goroutine, run, owns consensus and the cutting of blocks; envelopes are checked on
// the goroutines of their clients.
//
// A block is replicated as its header and data. That entry in raft's log is what is fsynced before an envelope is
// acknowledged; the block file is written behind it without an fsync and can lose its end, which is replayed from the
// log: every block names the entry it came from. The log is compacted only after the block file was synced.
type Chain struct {
	id    string
	cfg   *Config
	store *blockstore.Store
	node  *raft.Node
	tick  time.Duration

	bundle  atomic.Pointer[channel.Bundle]
	errored chan struct{}
	quit    chan struct{} // closed to stop run
	ended   chan struct{} // closed when run has returned

	messages chan *raftpb.Message // of other members

	mu      sync.Mutex // guards what follows; never held while waiting
	height  uint64
	grown   chan struct{} // closed and replaced when height grows
	stopped bool
	count   int   // envelopes accepted and not answered
	bytes   int64 // of them
	inbox   chan *submission

	// Owned by run.
	cutter     cutter
	proposed   []*proposal
	term       uint64 // of raft, when the newest of them was proposed
	next       uint64 // number of the next block to propose
	previous   []byte // hash of the header before it
	tipHash    []byte // hash of the newest stored header
	lastConfig uint64
	applied    uint64 // raft index of the newest stored block
	notes      *etcdraftpb.BlockMetadata
	configOut  bool // a config block is proposed; nothing else is accepted until it is in force
}

var errNotConsenter = errors.New("this node is not among the channel's consenters: its TLS certificate is named by none of them")

// openChain opens the channel in dir, which holds at least its first block.
func openChain(dir, id string, cfg *Config) (*Chain, error) {
	store, err := blockstore.Open(filepath.Join(dir, "blocks"), blockstore.Options{})
	if err != nil {
		return nil, err
	}
	c, err := newChain(dir, id, cfg, store)
	if err != nil {
		store.Close()
		return nil, fmt.Errorf("open channel %s: %w", id, err)
	}
	return c, nil
}

func newChain(dir, id string, cfg *Config, store *blockstore.Store) (*Chain, error) {
	c := &Chain{id: id, cfg: cfg, store: store, errored: make(chan struct{}), quit: make(chan struct{}), ended: make(chan struct{}),
		grown: make(chan struct{}), inbox: make(chan *submission, cfg.MaxInFlight), messages: make(chan *raftpb.Message, 64)}
	c.height = store.Height()
	if c.height == 0 {
		return nil, errors.New("its block file has no block: remove its folder and join the channel again")
	}
	tip, err := c.Block(c.height - 1)
	if err != nil {
		return nil, err
	}
	c.next, c.tipHash = c.height, block.HeaderHash(tip.Header)
	c.previous = c.tipHash
	if c.lastConfig, err = block.LastConfig(tip); err != nil {
		return nil, err
	}
	config := tip
	if c.lastConfig != tip.Header.Number {
		if config, err = c.Block(c.lastConfig); err != nil {
			return nil, err
		}
	}
	bundle, err := channel.FromBlock(config, cfg.Verifier)
	if err != nil {
		return nil, fmt.Errorf("config in block %d: %w", c.lastConfig, err)
	}
	if bundle.ID() != id {
		return nil, fmt.Errorf("its folder holds the blocks of channel %s", bundle.ID())
	}
	meta, self, err := membership(bundle, cfg.Certificate)
	if err != nil {
		return nil, err
	}
	if len(meta.Consenters) > 1 && cfg.Transport == nil {
		return nil, fmt.Errorf("the channel has %d consenters, and this node runs without connections to others", len(meta.Consenters))
	}
	stored, err := consensusNotes(tip)
	if err != nil {
		return nil, fmt.Errorf("block %d: %w", tip.Header.Number, err)
	}
	c.applied = stored.RaftIndex
	c.notes = &etcdraftpb.BlockMetadata{ConsenterIds: stored.ConsenterIds, NextConsenterId: stored.NextConsenterId}
	if len(c.notes.ConsenterIds) == 0 {
		for i := range meta.Consenters {
			c.notes.ConsenterIds = append(c.notes.ConsenterIds, uint64(i+1))
		}
		c.notes.NextConsenterId = uint64(len(meta.Consenters) + 1)
	}
	if len(c.notes.ConsenterIds) != len(meta.Consenters) {
		return nil, fmt.Errorf("the config has %d consenters, and block %d was made by %d", len(meta.Consenters), tip.Header.Number, len(c.notes.ConsenterIds))
	}
	if c.tick, err = time.ParseDuration(meta.GetOptions().GetTickInterval()); err != nil || c.tick <= 0 {
		c.tick = 500 * time.Millisecond
	}
	rc := raft.Config{
		Dir: filepath.Join(dir, "raft"), ID: c.notes.ConsenterIds[self], Members: c.notes.ConsenterIds, Applied: c.applied,
		ElectionTick: int(meta.GetOptions().GetElectionTick()), HeartbeatTick: int(meta.GetOptions().GetHeartbeatTick()),
		MaxInflight: int(meta.GetOptions().GetMaxInflightBlocks()), Log: cfg.Log.With("channel", id),
	}
	if len(meta.Consenters) > 1 {
		rc.Transport, rc.RetainBytes = cfg.Transport(id), int(cfg.LogBytes)
	}
	if c.node, err = raft.Open(rc); err != nil {
		return nil, err
	}
	c.install(bundle)
	cfg.metrics.height.WithLabelValues(id).Set(float64(c.height))
	return c, nil
}

// membership decodes who the consenters are and which of them this node is. A renewed certificate keeps its key.
func membership(b *channel.Bundle, own []byte) (*etcdraftpb.ConfigMetadata, int, error) {
	meta, err := b.RaftMetadata()
	if err != nil {
		return nil, 0, err
	}
	mine, err := publicKey(own)
	if err != nil {
		return nil, 0, fmt.Errorf("this node's TLS certificate: %w", err)
	}
	for i, consenter := range meta.Consenters {
		for _, cert := range [][]byte{consenter.ServerTlsCert, consenter.ClientTlsCert} {
			if key, err := publicKey(cert); err == nil && bytes.Equal(key, mine) {
				return meta, i, nil
			}
		}
	}
	return nil, 0, errNotConsenter
}

func publicKey(certPEM []byte) ([]byte, error) {
	p, _ := pem.Decode(certPEM)
	if p == nil {
		return nil, errors.New("no PEM block")
	}
	cert, err := x509.ParseCertificate(p.Bytes)
	if err != nil {
		return nil, err
	}
	return cert.RawSubjectPublicKeyInfo, nil
}

// install makes a config the one in force.
func (c *Chain) install(b *channel.Bundle) {
	c.bundle.Store(b)
	c.cutter.size, c.cutter.timeout = b.BatchSize(), b.BatchTimeout()
	c.cutter.linger, c.cutter.gap = c.cfg.MaxLinger, c.cfg.LingerGap
}

// Bundle is the config in force.
func (c *Chain) Bundle() *channel.Bundle { return c.bundle.Load() }

// Sequence is the sequence number of the config in force.
func (c *Chain) Sequence() uint64 { return c.Bundle().Sequence() }

// Errored is closed when the chain cannot go on.
func (c *Chain) Errored() <-chan struct{} { return c.errored }

// Authorize says whether a signed request may read the chain; there is one kind of reader.
func (c *Chain) Authorize(_ string, request policy.SignedData) error {
	if rej := authorize(c.Bundle(), readers, maintenanceReaders, request); rej != nil {
		return rej
	}
	return nil
}

// Height is the number of blocks in the chain.
func (c *Chain) Height() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.height
}

// Wait returns when the chain has at least height blocks.
func (c *Chain) Wait(ctx context.Context, height uint64) error {
	for {
		c.mu.Lock()
		enough, grown := c.height >= height, c.grown
		c.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-grown:
		case <-c.ended:
			return fmt.Errorf("channel %s is stopped", c.id)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// BlockBytes returns a stored block as it is sent to readers.
func (c *Chain) BlockBytes(number uint64) ([]byte, error) {
	raw, _, err := c.store.Read(number)
	return raw, err
}

// Block returns a stored block, decoded.
func (c *Chain) Block(number uint64) (*commonpb.Block, error) {
	raw, err := c.BlockBytes(number)
	if err != nil {
		return nil, err
	}
	b := &commonpb.Block{}
	if err := proto.Unmarshal(raw, b); err != nil {
		return nil, fmt.Errorf("stored block %d: %w", number, err)
	}
	return b, nil
}

// rules are those of the config in force.
func (c *Chain) rules() *rules {
	return &rules{bundle: c.Bundle(), signer: c.cfg.Signer, ignoreExpired: c.cfg.IgnoreExpired}
}

// check decides whether an envelope may enter the chain. It does the signature work, on the caller's goroutine.
func (c *Chain) check(env *commonpb.Envelope, payload *commonpb.Payload, config bool) (*submission, *Rejection) {
	s := &submission{env: env, payload: payload, done: make(chan *Rejection, 1)}
	if config {
		s.update = env
	}
	return s, c.recheck(s)
}

// recheck decides again, under the config that is in force now.
func (c *Chain) recheck(s *submission) *Rejection {
	r := c.rules()
	// If the config changes from here on, the sequence is the old one and the chain checks again.
	s.sequence = r.bundle.Sequence()
	if s.update == nil {
		return r.normal(s.env, s.payload, c.cfg.now())
	}
	env, rej := r.configUpdate(s.update, s.payload, c.cfg.now())
	s.env = env
	return rej
}

// submit hands a checked envelope to the chain, or refuses it at once when too many are on their way.
func (c *Chain) submit(s *submission) *Rejection {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch size := int64(s.size()); {
	case c.stopped:
		return reject(commonpb.Status_SERVICE_UNAVAILABLE, "chain is stopped")
	case c.count >= c.cfg.MaxInFlight || c.count > 0 && c.bytes+size > c.cfg.MaxInFlightBytes:
		return reject(commonpb.Status_SERVICE_UNAVAILABLE, "the orderer has %d envelopes waiting to be ordered on channel %s: try again", c.count, c.id)
	default:
		c.count++
		c.bytes += size
	}
	c.inbox <- s // has room for MaxInFlight
	return nil
}

// answer tells the client of an envelope how it ended.
func (c *Chain) answer(rej *Rejection, batch ...*submission) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range batch {
		c.count--
		c.bytes -= int64(s.size())
		s.done <- rej
	}
}

// run orders until the context ends or the chain is stopped; an error means that storage or consensus failed.
func (c *Chain) run(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			close(c.errored)
		}
		c.shutDown()
		err = errors.Join(err, c.node.Close(), c.store.Close())
		close(c.ended)
	}()
	ticker := time.NewTicker(c.tick)
	defer ticker.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if err := c.advance(); err != nil {
			return fmt.Errorf("channel %s: %w", c.id, err)
		}
		if at, ok := c.cutter.due(len(c.proposed) == 0); ok {
			if wait := time.Until(at); wait > 0 {
				timer.Reset(wait)
			} else {
				if err := c.propose(c.cutter.cut(), false); err != nil {
					return fmt.Errorf("channel %s: %w", c.id, err)
				}
				continue
			}
		}
		inbox := c.inbox
		if c.configOut {
			inbox = nil
		}
		select {
		case s := <-inbox:
			err = c.acceptAll(s)
		case m := <-c.messages:
			err = c.node.Step(m)
		case <-ticker.C:
			c.node.Tick()
		case <-timer.C:
		case <-c.quit:
			return nil
		case <-ctx.Done():
			return nil
		}
		if err != nil {
			return fmt.Errorf("channel %s: %w", c.id, err)
		}
	}
}

// shutDown answers everyone who still waits. What is proposed may or may not be in the chain after a restart.
func (c *Chain) shutDown() {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	stopped := reject(commonpb.Status_SERVICE_UNAVAILABLE, "chain is stopped")
	c.answer(stopped, c.cutter.cut()...)
	for _, p := range c.proposed {
		c.answer(stopped, p.batch...)
	}
	for {
		select {
		case s := <-c.inbox:
			c.answer(stopped, s)
		default:
			return
		}
	}
}

// acceptAll takes everything that has arrived: it shares the next fsync.
func (c *Chain) acceptAll(s *submission) error {
	for range c.cfg.MaxInFlight {
		if err := c.accept(s); err != nil || c.configOut {
			return err
		}
		select {
		case s = <-c.inbox:
		default:
			return nil
		}
	}
	return nil
}

func (c *Chain) accept(s *submission) error {
	if !c.node.Leading() {
		c.answer(reject(commonpb.Status_SERVICE_UNAVAILABLE, "no Raft leader"), s)
		return nil
	}
	if s.sequence < c.Sequence() {
		before := int64(s.size())
		rej := c.recheck(s)
		if rej != nil && s.update != nil {
			s.env = s.update
		}
		c.mu.Lock()
		c.bytes += int64(s.size()) - before
		c.mu.Unlock()
		if rej != nil {
			c.answer(rej, s)
			return nil
		}
	}
	if s.update != nil {
		if err := c.propose(c.cutter.cut(), false); err != nil {
			return err
		}
		return c.propose([]*submission{s}, true)
	}
	for _, batch := range c.cutter.add(s, time.Now()) {
		if err := c.propose(batch, false); err != nil {
			return err
		}
	}
	return nil
}

// propose makes a block of a batch and gives it to consensus.
func (c *Chain) propose(batch []*submission, config bool) error {
	if len(batch) == 0 {
		return nil
	}
	envs := make([]*commonpb.Envelope, len(batch))
	for i, s := range batch {
		envs[i] = s.env
	}
	raw, h := buildBlock(c.next, c.previous, envs)
	if err := c.node.Propose(raw); errors.Is(err, raft.ErrDropped) {
		c.answer(reject(commonpb.Status_SERVICE_UNAVAILABLE, "no Raft leader"), batch...)
		return nil
	} else if err != nil {
		return err
	}
	c.term = c.node.Term()
	c.next++
	c.previous = block.HeaderHash(h)
	c.proposed = append(c.proposed, &proposal{hash: c.previous, batch: batch})
	c.configOut = c.configOut || config
	return nil
}

// advance lets consensus work and stores what it committed.
func (c *Chain) advance() error {
	committed, err := c.node.Advance()
	if err != nil {
		return err
	}
	for _, e := range committed {
		if err := c.apply(e); err != nil {
			return fmt.Errorf("entry %d: %w", e.Index, err)
		}
	}
	if len(c.proposed) > 0 && (!c.node.Leading() || c.node.Term() != c.term) {
		c.lostLead()
	}
	if c.node.LogSize() > c.cfg.LogBytes && c.applied > 0 {
		if err := c.store.Sync(); err != nil {
			return err
		}
		if err := c.node.Compact(c.applied, nil); err != nil {
			return err
		}
	}
	return nil
}

// lostLead gives up on what this node proposed: the new leader may commit it or not.
func (c *Chain) lostLead() {
	lost := reject(commonpb.Status_SERVICE_UNAVAILABLE, "the Raft leader changed while the envelope was being ordered: it may or may not be in the chain")
	for _, p := range c.proposed {
		c.answer(lost, p.batch...)
	}
	c.answer(reject(commonpb.Status_SERVICE_UNAVAILABLE, "no Raft leader"), c.cutter.cut()...)
	c.proposed, c.configOut = nil, false
	c.next, c.previous = c.store.Height(), c.tipHash
}

// apply stores a committed block. The clients are answered first: the block is durable in the log, and the rest is
// repeated from there after a crash.
func (c *Chain) apply(e raft.Committed) error {
	h, single, err := openBlock(e.Data)
	if err != nil {
		return fmt.Errorf("committed block: %w", err)
	}
	height := c.store.Height()
	switch {
	case h.Number < height:
		return nil // proposed by a leader that did not know of it yet; the chain already has its number
	case h.Number > height:
		return fmt.Errorf("committed block %d, but the chain ends at block %d", h.Number, height-1)
	case !bytes.Equal(h.PreviousHash, c.tipHash):
		return fmt.Errorf("committed block %d does not follow block %d", h.Number, height-1)
	}
	hash := block.HeaderHash(h)
	own := len(c.proposed) > 0 && bytes.Equal(c.proposed[0].hash, hash)
	if own {
		batch := c.proposed[0].batch
		c.proposed = c.proposed[1:]
		c.answer(nil, batch...)
		c.cfg.metrics.blockSize.WithLabelValues(c.id).Observe(float64(len(batch)))
	}
	config, err := configIn(single)
	if err != nil {
		return fmt.Errorf("committed block %d: %w", h.Number, err)
	}
	var next *channel.Bundle
	if config != nil {
		if next, err = c.Bundle().ValidateConfig(config); err != nil {
			return fmt.Errorf("config in committed block %d: %w", h.Number, err)
		}
		c.lastConfig = h.Number
	}
	c.notes.RaftIndex = e.Index
	sealed, err := sealBlock(e.Data, h, c.lastConfig, c.notes, c.cfg.Signer)
	if err != nil {
		return err
	}
	if err := c.store.Append(h.Number, sealed, nil); err != nil {
		return err
	}
	c.applied, c.tipHash = e.Index, hash
	if !own && len(c.proposed) == 0 {
		c.next, c.previous = h.Number+1, c.tipHash
	}
	if next != nil {
		c.install(next)
		c.configOut = false
		c.cfg.Log.Info("config is in force", "channel", c.id, "block", h.Number, "sequence", next.Sequence())
	}
	c.mu.Lock()
	c.height = h.Number + 1
	close(c.grown)
	c.grown = make(chan struct{})
	c.mu.Unlock()
	c.cfg.metrics.height.WithLabelValues(c.id).Set(float64(h.Number + 1))
	return nil
}
