package order

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// Pull says which blocks are wanted, from where, and to whom.
type Pull struct {
	ChannelID string
	Endpoints func() []Endpoint
	Next      func() uint64
	Known     func() uint64 // the height that others have reached for sure, 0 if nothing is known
	// Sink takes the blocks in their order. It returns ErrBadBlock (wrapped) for one that must not be trusted, nor the
	// orderer that sent it.
	Sink func(context.Context, *commonpb.Block) error
}

// Endpoint is an orderer to pull from.
type Endpoint struct {
	Address  string
	TLSRoots [][]byte // PEM
}

// ErrBadBlock says that a pulled block is not what the chain goes on with.
var ErrBadBlock = errors.New("bad block")

// pull is one run of Config.Pull.
type pull struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

// pulledBlock is on its way from a pull to run.
type pulledBlock struct {
	block *commonpb.Block
	taken chan error // has room for the one answer
}

// startPull fetches blocks from other orderers, unless that is under way.
func (c *Chain) startPull() {
	if c.pull != nil {
		select {
		case <-c.pull.ended: // by itself
		default:
			return
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.pull = &pull{cancel, make(chan struct{})}
	ended := c.pull.ended
	c.known.Store(0)
	if c.join != nil {
		c.known.Store(c.join.Header.Number + 1)
	}
	from := c.Bundle // where the orderers are: what an operator joined by is newer than what is here
	if c.join != nil {
		bundle := c.Bundle()
		from = func() *channel.Bundle { return bundle }
	}
	go func() {
		defer close(ended)
		err := c.cfg.Pull(ctx, Pull{ChannelID: c.id, Endpoints: func() []Endpoint { return c.endpoints(from()) }, Next: c.Height, Known: c.known.Load, Sink: c.sink})
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.Error("pulling blocks failed", "channel", c.id, "error", err)
		}
	}()
}

func (c *Chain) stopPull() {
	if c.pull == nil {
		return
	}
	c.pull.cancel()
	<-c.pull.ended
	c.pull = nil
}

// endpoints are the other consenters, and the orderers that the members name.
func (c *Chain) endpoints(b *channel.Bundle) (all []Endpoint) {
	var roots [][]byte
	for _, org := range b.OrdererOrgs() {
		roots = append(append(roots, org.TLSRoots...), org.TLSIntermediates...)
	}
	meta, err := b.RaftMetadata()
	if err != nil {
		return nil
	}
	seen := map[string]bool{}
	if _, self, err := membership(b, c.cfg.Certificate); err == nil {
		m := meta.Consenters[self]
		seen[net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port)))] = true
	}
	add := func(address string, roots [][]byte) {
		if !seen[address] {
			seen[address] = true
			all = append(all, Endpoint{address, roots})
		}
	}
	for _, m := range meta.Consenters {
		add(net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port))), roots)
	}
	for _, org := range b.OrdererOrgs() {
		for _, address := range org.Endpoints {
			add(address, slices.Concat(org.TLSRoots, org.TLSIntermediates))
		}
	}
	return all
}

// sink checks a block, on the goroutine of the pull, and hands it to run.
func (c *Chain) sink(ctx context.Context, b *commonpb.Block) error {
	c.mu.Lock()
	height, tip := c.height, c.tip
	c.mu.Unlock()
	number := b.GetHeader().GetNumber()
	if number < height {
		return nil // consensus was faster
	}
	if height > 0 {
		if err := c.cfg.Accept(c.Bundle(), b, height, tip); err != nil {
			return fmt.Errorf("%w: %w", ErrBadBlock, err)
		}
	}
	p := &pulledBlock{b, make(chan error, 1)}
	select {
	case c.pulled <- p:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-p.taken:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// takePulled stores a pulled block. What is wrong with the block is the pull's to know, an error of storage is returned.
func (c *Chain) takePulled(p *pulledBlock) error {
	height := c.store.Height()
	h := p.block.GetHeader()
	switch {
	case h.GetNumber() < height:
		p.taken <- nil
		return nil
	case h.GetNumber() > height || height > 0 && !bytes.Equal(h.PreviousHash, c.tipHash):
		p.taken <- fmt.Errorf("%w: block %d does not follow block %d", ErrBadBlock, h.GetNumber(), height-1)
		return nil
	}
	next, err := c.configOfPulled(p.block)
	if err != nil {
		p.taken <- fmt.Errorf("%w: %w", ErrBadBlock, err)
		return nil
	}
	notes, err := consensusNotes(p.block)
	if err != nil {
		p.taken <- fmt.Errorf("%w: block %d: %w", ErrBadBlock, h.Number, err)
		return nil
	}
	raw, err := proto.Marshal(p.block)
	if err != nil {
		p.taken <- fmt.Errorf("%w: %w", ErrBadBlock, err)
		return nil
	}
	c.settle(h)
	c.arrivedHome(slices.Values(p.block.GetData().GetData()))
	if len(notes.ConsenterIds) > 0 {
		c.notes = notes
	}
	if next != nil {
		c.lastConfig = h.Number
	}
	if err := c.keep(h, raw, next); err != nil {
		return err
	}
	p.taken <- nil
	if c.node == nil {
		return nil
	}
	if next != nil {
		if err := c.reconnect(); err != nil {
			return err
		}
	}
	return c.catchUp()
}

// configOfPulled returns the config that a block brings into force, nil if it brings none.
func (c *Chain) configOfPulled(b *commonpb.Block) (*channel.Bundle, error) {
	if b.Header.Number == 0 {
		// Nobody signed this block. It is trusted when the chain that it begins has led to the block joined by.
		if !bytes.Equal(block.DataHash(b.GetData().GetData()), b.Header.DataHash) {
			return nil, errors.New("block 0: its data does not hash to what its header says")
		}
		bundle, err := channel.FromBlock(b, c.cfg.Verifier)
		if err != nil {
			return nil, err
		}
		if bundle.ID() != c.id {
			return nil, fmt.Errorf("it is of channel %s", bundle.ID())
		}
		return bundle, nil
	}
	if len(b.GetData().GetData()) != 1 {
		return nil, nil
	}
	config, err := configIn(b.Data.Data[0])
	if err != nil || config == nil {
		return nil, err
	}
	return c.Bundle().ValidateConfig(config)
}

// follow pulls and serves blocks until the chain is to stop, or (on) this node is to be a consenter.
func (c *Chain) follow(ctx context.Context) (on bool, err error) {
	defer c.stopPull()
	if c.join != nil && c.store.Height() > c.join.Header.Number && c.role.Load() != failed {
		if err := c.forgetJoin(); err != nil {
			return false, err
		}
	}
	c.startPull()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case p := <-c.pulled:
			if err := c.takePulled(p); err != nil {
				return false, err
			}
			if on, err := c.arrived(p.block); on || err != nil {
				return on, err
			}
		case s := <-c.inbox:
			c.answer(reject(commonpb.Status_SERVICE_UNAVAILABLE, "orderer is a follower of channel %s: send to one of its consenters", c.id), s)
		case <-ticker.C:
			c.mu.Lock()
			returned := c.returned
			c.returned = nil
			c.mu.Unlock()
			c.answer(noLeader, returned...)
			c.startPull() // again, should it have ended
		case <-c.quit:
			return false, nil
		case <-ctx.Done():
			return false, nil
		}
	}
}

// arrived looks at what a pulled block changes: whether the chain reached the block joined by, and whether this node is a
// consenter now.
func (c *Chain) arrived(b *commonpb.Block) (on bool, err error) {
	if c.join != nil {
		switch {
		case b.Header.Number < c.join.Header.Number:
			return false, nil
		case b.Header.Number == c.join.Header.Number && !bytes.Equal(block.HeaderHash(b.Header), block.HeaderHash(c.join.Header)):
			c.cfg.Log.Error("the orderers have another block than the one this channel was joined by: remove the channel and join it by a block of theirs", "channel", c.id, "block", b.Header.Number)
			c.role.Store(failed)
			return false, nil
		case b.Header.Number == c.join.Header.Number:
			c.cfg.Log.Info("caught up with the block joined by", "channel", c.id, "block", b.Header.Number)
			c.role.Store(following)
		case c.role.Load() == failed:
			return false, nil
		}
	} else if !block.IsConfig(b) {
		return false, nil
	}
	if _, _, err := membership(c.Bundle(), c.cfg.Certificate); errors.Is(err, errNotConsenter) {
		if c.join != nil && b.Header.Number == c.join.Header.Number {
			return false, c.forgetJoin()
		}
		return false, nil
	} else if err != nil {
		return false, err
	}
	return true, c.syncBlocks() // raft's log begins where the blocks end
}

// forgetJoin ends the joining of a node that follows.
func (c *Chain) forgetJoin() error {
	c.join = nil
	c.stopPull() // it asked the orderers of the block joined by
	c.startPull()
	if err := c.syncBlocks(); err != nil {
		return err
	}
	return errors.Join(os.Remove(filepath.Join(c.dir, joinFile)), syncDir(c.dir))
}

func (c *Chain) readJoinBlock() error {
	raw, err := os.ReadFile(filepath.Join(c.dir, joinFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c.join = &commonpb.Block{}
	if err := proto.Unmarshal(raw, c.join); err != nil {
		return fmt.Errorf("the block joined by: %w", err)
	}
	return nil
}
