package order

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/hansa-ledger/hansa/internal/order/cluster"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

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

var (
	noLeader = reject(commonpb.Status_SERVICE_UNAVAILABLE, "no Raft leader")
	mayBe    = reject(commonpb.Status_SERVICE_UNAVAILABLE, "the Raft leader changed while the envelope was being ordered: it may or may not be in the chain")
)

// accept takes an envelope on its way: into a block, to the leader, or into the queue of those who wait for one.
func (c *Chain) accept(s *submission) error {
	switch lead := c.node.Leader(); {
	case c.node.Leading() && !c.handing && !c.configOut && !c.changing:
	case lead != 0 && lead != c.self && s.remote == nil:
		c.forward(lead, s)
		return nil
	case lead != 0 && lead != c.self:
		c.answer(noLeader, s) // the one that forwarded it knows better by now
		return nil
	default:
		c.park(s)
		return nil
	}
	if s.stale || s.sequence < c.Sequence() {
		before := s.env
		if rej := c.recheck(s); rej != nil {
			s.env = before
			c.answer(rej, s)
			return nil
		}
		s.stale = false
	}
	if s.update == nil {
		for _, batch := range c.cutter.add(s, time.Now()) {
			if err := c.propose(batch, false); err != nil {
				return err
			}
		}
		return nil
	}
	rej, moves := c.checkMembers(s)
	if rej != nil {
		c.answer(rej, s)
		return nil
	}
	if moves {
		s.stale = true
		c.handing = true
		c.park(s)
		return nil
	}
	if err := c.propose(c.cutter.cut(), false); err != nil {
		return err
	}
	return c.propose([]*submission{s}, true)
}

// checkMembers refuses a config that would lose the quorum. One that takes the leader itself out, or its certificate, is
// left to another leader (moves): the old one could not tell the others that it is committed.
func (c *Chain) checkMembers(s *submission) (rej *Rejection, moves bool) {
	bad := func(err error) (*Rejection, bool) {
		return reject(commonpb.Status_BAD_REQUEST, "config update for channel %s: %v", c.id, err), false
	}
	config, err := configOf(s.env)
	if err != nil {
		return bad(err)
	}
	next, err := c.Bundle().ValidateConfig(config)
	if err != nil {
		return bad(err)
	}
	before, err := c.Bundle().RaftMetadata()
	if err != nil {
		return bad(err)
	}
	after, err := next.RaftMetadata()
	if err != nil {
		return bad(err)
	}
	ch, err := changeOf(c.notes, before, after)
	if err != nil {
		return bad(err)
	}
	alive := []uint64{c.self}
	for id, at := range c.heard {
		if id != c.self && slices.Contains(c.notes.ConsenterIds, id) && time.Since(at) < c.election {
			alive = append(alive, id)
		}
	}
	if ch.losesQuorum(alive) {
		return bad(fmt.Errorf("%d out of %d nodes are alive, configuration will result in quorum loss", len(alive), len(c.notes.ConsenterIds)))
	}
	return nil, len(c.node.Members()) > 1 && (ch.removed == c.self || ch.rotated == c.self)
}

func (c *Chain) park(s *submission) {
	if s.since.IsZero() {
		s.since = time.Now()
	}
	c.waiting = append(c.waiting, s)
}

// route lets those who wait go on, if there is somewhere to go to.
func (c *Chain) route() error {
	if len(c.waiting) == 0 || !(c.node.Leading() && !c.handing && !c.configOut && !c.changing) && (c.node.Leader() == 0 || c.node.Leader() == c.self) {
		return nil
	}
	waiting := c.waiting
	c.waiting = nil
	for _, s := range waiting {
		if err := c.accept(s); err != nil {
			return err
		}
	}
	return nil
}

// forward gives an envelope to the leader, whose answer is the client's.
func (c *Chain) forward(lead uint64, s *submission) {
	if s.since.IsZero() {
		s.since = time.Now()
	}
	c.mu.Lock()
	c.away[s] = lead
	c.expected[string(s.env.Signature)] = append(c.expected[string(s.env.Signature)], s)
	c.mu.Unlock()
	c.link.Forward(lead, s.env, s.sequence, func(r *ordererpb.SubmitResponse, err error) {
		switch {
		case errors.Is(err, cluster.ErrNotSent) || err == nil && r.Status == noLeader.Status && r.Info == noLeader.Info:
			c.comeBack(s) // it is not in the chain: find the leader again
		case err != nil:
			c.answer(reject(mayBe.Status, "%v: the envelope may or may not be in the chain", err), s)
		case r.Status == commonpb.Status_SUCCESS:
			c.answer(nil, s)
		default:
			c.answer(&Rejection{r.Status, r.Info}, s)
		}
	})
}

// forgetAway is called with mu held.
func (c *Chain) forgetAway(s *submission) {
	if _, ok := c.away[s]; !ok {
		return
	}
	delete(c.away, s)
	key := string(s.env.Signature)
	left := slices.DeleteFunc(c.expected[key], func(other *submission) bool { return other == s })
	if c.expected[key] = left; len(left) == 0 {
		delete(c.expected, key)
	}
}

// arrivedHome answers forwarded envelopes that a block of the chain has: their leader's answer may be lost with its connection,
// and an orderer of Fabric gives none.
func (c *Chain) arrivedHome(envelopes iter.Seq[[]byte]) {
	c.mu.Lock()
	waiting := len(c.expected)
	c.mu.Unlock()
	if waiting == 0 {
		return
	}
	var found []*submission
	for raw := range envelopes {
		payload, signature, ok := splitEnvelope(raw)
		if !ok {
			continue
		}
		c.mu.Lock()
		for _, s := range c.expected[string(signature)] {
			if bytes.Equal(s.env.Payload, payload) {
				found = append(found, s)
			}
		}
		c.mu.Unlock()
	}
	c.answer(nil, found...)
}

// comeBack takes an envelope back that no leader took, unless it has waited too long already.
func (c *Chain) comeBack(s *submission) {
	c.mu.Lock()
	_, ok := c.away[s]
	c.forgetAway(s)
	ok = ok && !s.answered && !c.stopped
	if ok {
		c.returned = append(c.returned, s)
	}
	c.mu.Unlock()
	if !ok {
		c.answer(noLeader, s)
	}
}

// silentAnswer is how long an orderer that leads no more is waited for.
const silentAnswer = time.Second

// lastHeard is when a member was heard from, or began to be listened to.
func (c *Chain) lastHeard(id uint64) time.Time {
	if at := c.heard[id]; at.After(c.changedAt) {
		return at
	}
	return c.changedAt
}

// expire answers who has waited too long, looks for another leader if the one there is has fallen silent, and for what a
// consenter that hears from no leader may have missed.
func (c *Chain) expire() error {
	now, patience := time.Now(), c.patience()
	late := func(s *submission) bool {
		if now.Sub(s.since) <= patience {
			return false
		}
		c.answer(noLeader, s)
		return true
	}
	c.waiting = slices.DeleteFunc(c.waiting, late)
	if len(c.proposed) > 0 && !c.lostAt.IsZero() && now.Sub(c.lostAt) > patience {
		for _, p := range c.proposed {
			c.answer(mayBe, p.batch...)
		}
		c.proposed, c.configOut = nil, false
		c.next, c.previous = c.store.Height(), c.tipHash
	}
	lead := c.node.Leader()
	silent := lead != 0 && lead != c.self && now.Sub(c.lastHeard(lead)) > c.silence()
	var lost []*submission
	c.mu.Lock()
	for s, to := range c.away {
		// A leader that lost the lead answers soon, if it lives.
		if now.Sub(s.since) > patience || silent && to == lead || to != lead && now.Sub(c.changedAt) > silentAnswer {
			lost = append(lost, s)
		}
	}
	c.waiting = append(c.waiting, c.returned...)
	c.returned = nil
	c.mu.Unlock()
	c.answer(mayBe, lost...)

	if lead != 0 && !silent {
		c.leaderSeen = now
	}
	if behind := c.snapshot != nil || now.Sub(c.leaderSeen) > patience; behind && c.cfg.Pull != nil && len(c.voters) != 1 {
		c.startPull()
	} else {
		c.stopPull()
	}
	for _, keys := range c.former {
		if now.After(keys.until) {
			if err := c.connect(); err != nil {
				return err
			}
			break
		}
	}
	c.publish()
	if silent {
		return c.leaderGone()
	}
	return nil
}
