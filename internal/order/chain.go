package order

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// submission is an envelope on its way into the chain.
type submission struct {
	env      *commonpb.Envelope
	payload  *commonpb.Payload  // of what the client sent
	update   *commonpb.Envelope // for a config transaction: the update it was made from
	sequence uint64             // of the config that it was checked against
	stale    bool               // to be checked again whatever its sequence: another orderer checked it
	since    time.Time          // when it had to wait for a leader first

	// One of these has room for the one answer.
	done   chan *Rejection                // of a client: nil when the envelope is durably in the chain
	remote chan *ordererpb.SubmitResponse // of a consenter that forwarded it

	weight   int64 // that it counts with, guarded by Chain.mu
	answered bool  // guarded by Chain.mu
}

func (s *submission) size() uint32 { return envelopeSize(s.env) }

// proposal is a block that consensus has not committed yet.
type proposal struct {
	number uint64
	hash   []byte // of its header
	batch  []*submission
}

// Chain orders one channel. One goroutine, run, owns consensus and the cutting of blocks; envelopes are checked on
// the goroutines of their clients.
//
// A node that the config names as a consenter takes part in consensus (consent.go); any other follows (follow.go): it
// pulls the blocks from the consenters and serves them. Config blocks turn one into the other.
//
// A block is replicated as its header and data. That entry in raft's log is what is fsynced before an envelope is
// acknowledged; the block file is written behind it without an fsync and can lose its end, which is replayed from the
// log: every block names the entry it came from. The log is compacted only after the block file was synced.
type Chain struct {
	id    string
	dir   string
	cfg   *Config
	store *blockstore.Store

	bundle    atomic.Pointer[channel.Bundle]
	lead      atomic.Uint64 // the leader's id, 0 while none is known or this node follows
	role      atomic.Pointer[role]
	consensus atomic.Pointer[Consensus]
	known     atomic.Uint64 // the height that others have reached for sure, for the pull under way
	errored   chan struct{}
	quit      chan struct{} // closed to stop run
	ended     chan struct{} // closed when run has returned

	messages chan *raftpb.Message // of other members
	pulled   chan *pulledBlock    // from other orderers

	reports chan struct{} // has room for one; says that there is something in sent

	mu       sync.Mutex // guards what follows; never held while waiting
	sent     map[uint64]sendReport
	height   uint64
	tip      []byte        // hash of the newest stored header
	grown    chan struct{} // closed and replaced when height grows
	stopped  bool
	count    int   // envelopes accepted and not answered
	bytes    int64 // of them
	inbox    chan *submission
	away     map[*submission]uint64   // forwarded and not answered, with the leader they went to
	expected map[string][]*submission // the same, by their signatures
	returned []*submission            // forwarded and not taken

	// Owned by run.
	cutter     cutter
	proposed   []*proposal   // not committed yet; some may be of a lead that is lost
	term       uint64        // of raft, when the newest of them was proposed
	waiting    []*submission // for a leader
	next       uint64        // number of the next block to propose
	previous   []byte        // hash of the header before it
	tipHash    []byte        // hash of the newest stored header
	lastConfig uint64
	applied    uint64 // raft index of the newest stored block
	notes      *etcdraftpb.BlockMetadata
	configOut  bool            // a config block is proposed, or a change of members under way; nothing else is accepted until it is in force
	join       *commonpb.Block // the block that an operator joined by, until the chain has reached it
	pull       *pull           // under way, nil otherwise
	consent                    // of a consenter
}

// role is what this node is in the channel.
type role struct{ relation, status string }

var (
	consenting = &role{"consenter", "active"}
	following  = &role{"follower", "active"}
	onboarding = &role{"follower", "onboarding"}
	failed     = &role{"follower", "failed"}
	forgetful  = &role{"consenter", "inactive"} // it follows
)

// joinFile holds the config block that the channel is joined by, until everything before it has been pulled.
const joinFile = "join.block"

var errNotConsenter = errors.New("this node is not among the channel's consenters: its TLS certificate is named by none of them")

// openChain opens the channel in dir, which holds at least its first block, or the one to join by.
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
	c := &Chain{id: id, dir: dir, cfg: cfg, store: store, errored: make(chan struct{}), quit: make(chan struct{}), ended: make(chan struct{}),
		grown: make(chan struct{}), inbox: make(chan *submission, cfg.MaxInFlight), messages: make(chan *raftpb.Message, 256),
		pulled: make(chan *pulledBlock), reports: make(chan struct{}, 1), sent: map[uint64]sendReport{}, away: map[*submission]uint64{}, expected: map[string][]*submission{}, notes: &etcdraftpb.BlockMetadata{}}
	c.height = store.Height()
	if err := c.readJoinBlock(); err != nil {
		return nil, err
	}
	config := c.join
	if c.height > 0 {
		tip, err := c.Block(c.height - 1)
		if err != nil {
			return nil, err
		}
		c.tipHash = block.HeaderHash(tip.Header)
		if c.lastConfig, err = block.LastConfig(tip); err != nil {
			return nil, err
		}
		if config = tip; c.lastConfig != tip.Header.Number {
			if config, err = c.Block(c.lastConfig); err != nil {
				return nil, err
			}
		}
		stored, err := consensusNotes(tip)
		if err != nil {
			return nil, fmt.Errorf("block %d: %w", tip.Header.Number, err)
		}
		c.applied, c.notes = stored.RaftIndex, stored
	} else if c.join == nil {
		return nil, errors.New("its block file has no block: remove its folder and join the channel again")
	}
	c.next, c.previous, c.tip = c.height, c.tipHash, c.tipHash
	bundle, err := channel.FromBlock(config, cfg.Verifier)
	if err != nil {
		return nil, fmt.Errorf("config in block %d: %w", config.Header.Number, err)
	}
	if bundle.ID() != id {
		return nil, fmt.Errorf("its folder holds the blocks of channel %s", bundle.ID())
	}
	c.install(bundle)
	cfg.metrics.height.WithLabelValues(id).Set(float64(c.height))
	if c.join != nil && c.height <= c.join.Header.Number {
		if cfg.Pull == nil {
			return nil, errors.New("this node cannot fetch blocks from other orderers")
		}
		c.role.Store(onboarding)
		return c, nil
	}
	meta, err := bundle.RaftMetadata()
	if err != nil {
		return nil, err
	}
	if c.notes, err = firstNotes(c.notes, meta); err != nil {
		return nil, err
	}
	return c, c.resume()
}

// enter makes the node what the config in force wants it to be.
func (c *Chain) enter() error {
	_, self, err := membership(c.Bundle(), c.cfg.Certificate)
	if errors.Is(err, errNotConsenter) && c.cfg.Pull != nil {
		c.role.Store(following)
		return nil
	}
	if err != nil {
		return err
	}
	id := c.notes.ConsenterIds[self]
	forgot, err := c.hasForgotten(id)
	switch {
	case err != nil:
		return err
	case forgot && c.cfg.Pull != nil:
		c.role.Store(forgetful)
		return nil
	}
	if err := c.openConsent(id); err != nil {
		return err
	}
	c.role.Store(consenting)
	return nil
}

// resume makes a node what it was before it stopped. It is the member whose log it has also while the certificate that it
// was started with and the one that the config names differ: its certificate is being changed, and either may be ahead.
func (c *Chain) resume() error {
	if _, _, err := membership(c.Bundle(), c.cfg.Certificate); !errors.Is(err, errNotConsenter) {
		return c.enter()
	}
	meta, err := c.Bundle().RaftMetadata()
	if err != nil {
		return err
	}
	for _, id := range c.notes.ConsenterIds {
		if exists, err := raft.Exists(c.raftDir(id)); err != nil {
			return err
		} else if !exists {
			continue
		}
		c.cfg.Log.Warn("the channel's config names another TLS certificate for this node: start it with that one, or change the config", "channel", c.id, "consenter", id)
		if err := c.openConsent(id); err != nil {
			return err
		}
		c.displaced = len(meta.Consenters) > 1
		c.role.Store(consenting)
		return nil
	}
	return c.enter()
}

// forgottenFile names the number of the member that this node was, if it has lost what it promised as that one.
const forgottenFile = "forgotten"

func (c *Chain) hasForgotten(id uint64) (bool, error) {
	raw, err := os.ReadFile(filepath.Join(c.dir, forgottenFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return string(raw) == strconv.FormatUint(id, 10), err
}

// forget makes a consenter that has lost its log, or has an old copy of it, follow: it must not vote, since it does not
// know what it promised, until the config makes another member of it.
func (c *Chain) forget(why error) error {
	id := c.self
	c.cfg.Log.Error("this node may not take part: remove it from the channel's consenters and add it again (hansa orderer replace)",
		"channel", c.id, "consenter", id, "error", why)
	if err := writeDurably(filepath.Join(c.dir, forgottenFile), strconv.AppendUint(nil, id, 10)); err != nil {
		return err
	}
	if err := syncDir(c.dir); err != nil {
		return err
	}
	return c.stepBack(forgetful)
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

// Leader is the id of the consenter that leads; 0 while none is known, and on a node that follows.
func (c *Chain) Leader() uint64 { return c.lead.Load() }

// Relation is "consenter" or "follower", and Status "active", "onboarding" or "failed": the participation API's words.
func (c *Chain) Relation() (relation, status string) {
	r := c.role.Load()
	select {
	case <-c.errored:
		return r.relation, failed.status
	default:
		return r.relation, r.status
	}
}

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
	return &rules{bundle: c.Bundle(), signer: c.cfg.Signer, ignoreExpired: c.cfg.IgnoreExpired, alone: c.cfg.Cluster == nil}
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
	case c.role.Load() != consenting:
		return reject(commonpb.Status_SERVICE_UNAVAILABLE, "orderer is a follower of channel %s: send to one of its consenters", c.id)
	case c.count >= c.cfg.MaxInFlight || c.count > 0 && c.bytes+size > c.cfg.MaxInFlightBytes:
		return reject(commonpb.Status_SERVICE_UNAVAILABLE, "the orderer has %d envelopes waiting to be ordered on channel %s: try again", c.count, c.id)
	default:
		s.weight = size
		c.count++
		c.bytes += size
	}
	c.inbox <- s // has room for MaxInFlight
	return nil
}

// answer tells those who sent envelopes how they ended.
func (c *Chain) answer(rej *Rejection, batch ...*submission) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range batch {
		if s.answered {
			continue
		}
		s.answered = true
		c.forgetAway(s)
		c.count--
		c.bytes -= s.weight
		if s.remote == nil {
			s.done <- rej
			continue
		}
		response := &ordererpb.SubmitResponse{Channel: c.id, Status: commonpb.Status_SUCCESS}
		if rej != nil {
			response.Status, response.Info = rej.Status, rej.Info
		}
		s.remote <- response
	}
}

// run orders or follows until the context ends or the chain is stopped; an error means that storage or consensus failed.
func (c *Chain) run(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			close(c.errored)
		}
		c.shutDown()
		err = errors.Join(err, c.closeConsent(), c.store.Close())
		close(c.ended)
	}()
	for {
		var on bool
		if c.node != nil {
			if on, err = c.takePart(ctx); errors.Is(err, raft.ErrForgot) && c.cfg.Pull != nil {
				on, err = true, c.forget(err)
			}
		} else {
			on, err = c.follow(ctx)
		}
		if err != nil {
			return fmt.Errorf("channel %s: %w", c.id, err)
		}
		if !on {
			return nil
		}
		if err := c.enter(); err != nil {
			return fmt.Errorf("channel %s: %w", c.id, err)
		}
	}
}

// shutDown answers everyone who still waits. What is proposed may or may not be in the chain after a restart.
func (c *Chain) shutDown() {
	c.stopPull()
	c.mu.Lock()
	c.stopped = true
	returned := c.returned
	c.mu.Unlock()
	stopped := reject(commonpb.Status_SERVICE_UNAVAILABLE, "chain is stopped")
	c.answer(stopped, c.cutter.cut()...)
	c.answer(stopped, c.waiting...)
	c.answer(stopped, returned...)
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

// keep stores the next block, as sealed, and brings the config in it into force.
func (c *Chain) keep(h *commonpb.BlockHeader, sealed []byte, next *channel.Bundle) error {
	if err := c.store.Append(h.Number, sealed, nil); err != nil {
		return err
	}
	c.tipHash = block.HeaderHash(h)
	if len(c.proposed) == 0 {
		c.next, c.previous = h.Number+1, c.tipHash
	}
	if next != nil {
		c.install(next)
		c.configOut = false
		c.cfg.Log.Info("config is in force", "channel", c.id, "block", h.Number, "sequence", next.Sequence())
	}
	c.mu.Lock()
	c.height, c.tip = h.Number+1, c.tipHash
	close(c.grown)
	c.grown = make(chan struct{})
	c.mu.Unlock()
	c.cfg.metrics.height.WithLabelValues(c.id).Set(float64(h.Number + 1))
	return nil
}
