package order

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/order/cluster"
	"github.com/hansa-ledger/hansa/internal/order/raft"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// consent is what a consenter has beside the chain. It is owned by run.
type consent struct {
	node      *raft.Node // nil on a node that follows
	self      uint64
	link      *cluster.Channel // nil without connections to others
	members   map[uint64]cluster.Member
	voters    []uint64 // of raft, when the link was configured
	tick      time.Duration
	election  time.Duration
	heartbeat time.Duration
	logBytes  int64
	logStart  int64       // size of raft's log after it was compacted
	stand     *time.Timer // when to stand for election, before raft's timeout would
	attempts  int         // how often to do so, while there is no leader

	heard      map[uint64]time.Time // of each member
	leaderSeen time.Time
	lostAt     time.Time // when the lead was lost in which something is proposed
	changing   bool      // raft's members are not yet those of the config
	asked      time.Time // for that change, zero if not
	handing    bool      // the lead is to go to another member
	handed     time.Time // when another was told so, zero if not
	displaced  bool      // the config names another certificate for this member, who is to get it
	renumbered bool      // this node is another member by now
	former     map[uint64]formerKeys
	changedAt  time.Time // when the leader changed last

	syncs  int // of the log, as told in metrics
	synced time.Duration

	snapshot   *raftpb.Message // held back until the blocks that it stands for are here
	snapshotAt uint64          // the newest of them
}

// formerKeys are what a member was known by before its certificate was changed. They are accepted for a while, since it
// cannot have the new certificate in use at the very moment the config names it.
type formerKeys struct {
	server, client []byte
	until          time.Time
}

// formerAccepted is how long that is.
const formerAccepted = 10 * time.Minute

// patience is how long an envelope waits for a leader, or for news of a lost one, before its sender is told to try again.
func (c *Chain) patience() time.Duration {
	return min(max(3*c.election, 3*time.Second), 10*time.Second)
}

// silence is how long a leader may be silent before this node looks for another one, whatever the election timeout of the
// channel's config: five heartbeats and no less than a second. A leader that the others hear from stays.
func (c *Chain) silence() time.Duration { return max(5*c.heartbeat, time.Second) }

// openConsent opens raft's log, or starts it.
func (c *Chain) openConsent(id uint64) error {
	meta, err := c.Bundle().RaftMetadata()
	if err != nil {
		return err
	}
	if len(meta.Consenters) > 1 && c.cfg.Cluster == nil {
		return fmt.Errorf("the channel has %d consenters, and this node runs without connections to others", len(meta.Consenters))
	}
	genesis, err := c.Block(0)
	if err != nil {
		return err
	}
	first, err := channel.FromBlock(genesis, c.cfg.Verifier)
	if err != nil {
		return err
	}
	founders, err := first.RaftMetadata()
	if err != nil {
		return err
	}
	dir := c.raftDir(id)
	exists, err := raft.Exists(dir)
	if err != nil {
		return err
	}
	added := id > uint64(len(founders.Consenters))
	tick, err := time.ParseDuration(meta.GetOptions().GetTickInterval())
	if err != nil || tick <= 0 {
		tick = 500 * time.Millisecond
	}
	c.consent = consent{self: id, tick: tick, election: tick * time.Duration(max(meta.GetOptions().GetElectionTick(), 1)),
		heartbeat: tick * time.Duration(max(meta.GetOptions().GetHeartbeatTick(), 1)),
		logBytes:  c.cfg.LogBytes, heard: map[uint64]time.Time{}, former: map[uint64]formerKeys{}, leaderSeen: time.Now()}
	if c.logBytes == 0 {
		c.logBytes = int64(meta.GetOptions().GetSnapshotIntervalSize())
	}
	if c.logBytes == 0 {
		c.logBytes = 16 << 20
	}
	rc := raft.Config{
		Dir: dir, ID: id, Applied: c.applied, Elsewhere: c.notes.NextConsenterId > 2, // there are or were others
		ElectionTick: int(meta.GetOptions().GetElectionTick()), HeartbeatTick: int(meta.GetOptions().GetHeartbeatTick()),
		MaxInflight: int(meta.GetOptions().GetMaxInflightBlocks()), Log: c.cfg.Log.With("channel", c.id),
		// Of two members each has every entry that was committed, so a vote for the other one loses nothing.
		Doubtful: len(meta.Consenters) > 2,
	}
	// A founder starts with the same members as every other; a log that it once had must not have been lost. Who came
	// later, or joined by a later block, gets the log from the leader.
	if rc.Join = added || c.join != nil; !rc.Join {
		rc.Members = slices.Sorted(slices.Values(c.notes.ConsenterIds))
		chosen := rc.Members[int(crc32.ChecksumIEEE([]byte(c.id)))%len(rc.Members)]
		if !exists && len(rc.Members) > 1 && chosen == id {
			c.attempts = math.MaxInt // somebody has to take the first lead
		}
	}
	if c.cfg.Cluster != nil {
		c.link = c.cfg.Cluster.Open(c.id, (*receiver)(c))
		rc.Transport, rc.RetainBytes = c.link, int(c.logBytes)
	}
	if c.node, err = raft.Open(rc); err != nil {
		if c.link != nil {
			c.link.Close()
			c.link = nil
		}
		return err
	}
	if c.join != nil {
		c.join = nil
		if err := errors.Join(os.Remove(filepath.Join(c.dir, joinFile)), syncDir(c.dir)); err != nil {
			return fmt.Errorf("finish joining: %w", err)
		}
	}
	return c.connect()
}

// raftDir has the member's number in its name: a node that was removed and is added again is another member, and must not
// remember.
func (c *Chain) raftDir(id uint64) string { return filepath.Join(c.dir, fmt.Sprintf("raft-%d", id)) }

func (c *Chain) closeConsent() error {
	if c.node == nil {
		return nil
	}
	if c.link != nil {
		c.link.Close()
	}
	err := c.node.Close()
	c.consent = consent{}
	c.lead.Store(0)
	c.consensus.Store(nil)
	c.cfg.metrics.forgetConsensus(c.id)
	return err
}

// connect tells the link who the members are: those of the config, and those on their way out as long as raft counts them.
func (c *Chain) connect() error {
	c.voters = slices.Clone(c.node.Members())
	if c.link == nil {
		return nil
	}
	meta, err := c.Bundle().RaftMetadata()
	if err != nil {
		return err
	}
	members, err := clusterMembers(c.notes, meta)
	if err != nil {
		return err
	}
	for id, m := range c.members {
		now, named := members[id]
		switch {
		case !named && slices.Contains(c.voters, id):
			members[id] = m
		case named && (!bytes.Equal(now.ServerKey, m.ServerKey) || !bytes.Equal(now.ClientKey, m.ClientKey)):
			c.former[id] = formerKeys{m.ServerKey, m.ClientKey, time.Now().Add(formerAccepted)}
		}
	}
	for id, keys := range c.former {
		if m, ok := members[id]; ok && time.Now().Before(keys.until) {
			m.FormerServerKey, m.FormerClientKey = keys.server, keys.client
			members[id] = m
		} else {
			delete(c.former, id)
		}
	}
	c.members = members
	all := make([]cluster.Member, 0, len(members))
	for _, m := range members {
		all = append(all, m)
	}
	c.link.Configure(c.self, all)
	return nil
}

// takePart orders as a consenter until the chain is to stop, or (on) this node is a consenter no more.
func (c *Chain) takePart(ctx context.Context) (on bool, err error) {
	ticker := time.NewTicker(c.tick)
	defer ticker.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	c.stand = time.NewTimer(standPause)
	defer c.stand.Stop()
	for {
		if err := c.advance(); err != nil {
			return false, err
		}
		if c.removed() {
			return true, c.leave()
		}
		if err := c.route(); err != nil {
			return false, err
		}
		if at, ok := c.cutter.due(len(c.proposed) == 0); ok {
			if wait := time.Until(at); wait > 0 {
				timer.Reset(wait)
			} else {
				if err := c.propose(c.cutter.cut(), false); err != nil {
					return false, err
				}
				continue
			}
		}
		inbox := c.inbox
		if c.configOut || c.changing {
			inbox = nil
		}
		select {
		case s := <-inbox:
			err = c.acceptAll(s)
		case m := <-c.messages:
			err = c.stepAll(m)
		case <-c.reports:
			err = c.report()
		case p := <-c.pulled:
			err = c.takePulled(p)
		case <-ticker.C:
			c.node.Tick()
			err = c.expire()
		case <-c.stand.C:
			err = c.standForElection()
		case <-timer.C:
		case <-c.quit:
			return false, c.retire()
		case <-ctx.Done():
			return false, c.retire()
		}
		if err != nil {
			return false, err
		}
	}
}

// standPause lies between attempts to be elected out of turn, up to twice that at random so that two do not keep meeting.
const (
	standPause    = 50 * time.Millisecond
	standAttempts = 20
)

// leaderGone is called when the connection to the leader ended. A process that died is missed within milliseconds, not
// an election timeout later: all who notice forget it, so that they may vote, and stand themselves after a random pause.
// It does no harm if the leader lives: the others refuse their votes while they hear from it.
func (c *Chain) leaderGone() error {
	if c.attempts == 0 {
		c.stand.Reset(rand.N(2 * standPause))
	}
	c.attempts = max(c.attempts, standAttempts)
	return c.node.ForgetLeader()
}

func (c *Chain) standForElection() error {
	if c.attempts == 0 || c.node.Leader() != 0 {
		c.attempts = 0
		return nil
	}
	c.attempts--
	c.stand.Reset(standPause + rand.N(standPause))
	return c.node.Campaign()
}

// removed says whether this node is to stop taking part. A member that the config removes stays until raft has removed it
// too, since raft may need its vote for that; if it missed the end of that, it hears from no leader any more.
func (c *Chain) removed() bool {
	unheard := time.Since(c.leaderSeen) > c.patience()
	switch {
	case c.renumbered:
		return true
	case c.displaced:
		return unheard // the others accept the certificate that this node has for a while
	default:
		return !slices.Contains(c.notes.ConsenterIds, c.self) && (unheard || !slices.Contains(c.node.Members(), c.self))
	}
}

// leave ends the part that this node has in consensus, since the config no longer gives it one.
func (c *Chain) leave() error {
	self, evicted := c.self, !slices.Contains(c.notes.ConsenterIds, c.self)
	if err := c.stepBack(following); err != nil {
		return err
	}
	if !evicted {
		c.cfg.Log.Warn("the channel's config names another TLS certificate for this node: it follows until it is started with that one", "channel", c.id, "consenter", self)
		return nil
	}
	c.cfg.Log.Warn("the channel's config names this node no more: it follows", "channel", c.id, "consenter", self)
	if err := os.RemoveAll(c.raftDir(self)); err != nil {
		return fmt.Errorf("remove raft log: %w", err)
	}
	return nil
}

// stepBack makes a consenter follow.
func (c *Chain) stepBack(as *role) error {
	c.stopPull()
	c.role.Store(as)
	gone := reject(commonpb.Status_SERVICE_UNAVAILABLE, "orderer is no longer a consenter of channel %s: send to another", c.id)
	c.answer(gone, c.cutter.cut()...)
	c.answer(gone, c.waiting...)
	for _, p := range c.proposed {
		c.answer(mayBe, p.batch...)
	}
	c.waiting, c.proposed, c.configOut = nil, nil, false
	c.next, c.previous = c.store.Height(), c.tipHash
	return errors.Join(c.syncBlocks(), c.closeConsent())
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
	if err := c.node.Propose(append(raw, emptyMetadata...)); errors.Is(err, raft.ErrDropped) {
		for _, s := range batch {
			c.park(s)
		}
		return nil
	} else if err != nil {
		return err
	}
	c.term, c.lostAt = c.node.Term(), time.Time{}
	c.next++
	c.previous = block.HeaderHash(h)
	c.proposed = append(c.proposed, &proposal{number: h.Number, hash: c.previous, batch: batch})
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
	if lead := c.node.Leader(); lead != c.lead.Load() {
		c.lead.Store(lead)
		c.cfg.Log.Info("leader changed", "channel", c.id, "leader", lead, "self", c.self, "term", c.node.Term())
		c.leaderSeen, c.changedAt = time.Now(), time.Now()
		c.publish()
	}
	leading := c.node.Leading()
	if c.handing && !leading {
		c.handing, c.handed = false, time.Time{}
	}
	if !leading {
		for _, s := range c.cutter.cut() {
			c.park(s)
		}
	}
	if len(c.proposed) > 0 && (!leading || c.node.Term() != c.term) {
		if c.lostAt.IsZero() {
			c.lostAt = time.Now()
		}
		if c.node.Settled() > c.term {
			c.void()
		}
	}
	if err := c.changeMembers(leading); err != nil {
		return err
	}
	if c.handing {
		if err := c.handOver(); err != nil {
			return err
		}
	}
	if c.node.LogSize()-c.logStart > c.logBytes && c.applied > 0 {
		if err := c.syncBlocks(); err != nil {
			return err
		}
		tip, err := c.BlockBytes(c.store.Height() - 1)
		if err != nil {
			return err
		}
		// After a restart the chain may know more than the log.
		if err := c.node.Compact(min(c.applied, c.node.Applied()), tip); err != nil {
			return err
		}
		c.logStart = c.node.LogSize()
	}
	return nil
}

// void takes back what this node proposed in an earlier lead: it is certain now that it is not in the chain.
func (c *Chain) void() {
	for _, p := range c.proposed {
		for _, s := range p.batch {
			s.stale = s.stale || s.update != nil
			c.park(s)
		}
	}
	c.proposed, c.configOut, c.lostAt = nil, false, time.Time{}
	c.next, c.previous = c.store.Height(), c.tipHash
}

// changeMembers makes raft's members those of the config, as the leader; in the meantime it accepts nothing, as in Fabric.
// A new leader goes on with what the last one began.
func (c *Chain) changeMembers(leading bool) error {
	voters, wanted := c.node.Members(), c.notes.ConsenterIds
	if !slices.Equal(voters, c.voters) {
		if err := c.connect(); err != nil {
			return err
		}
	}
	id, add := uint64(0), false
	for _, v := range wanted {
		if !slices.Contains(voters, v) {
			id, add = v, true
		}
	}
	for _, v := range voters {
		if !slices.Contains(wanted, v) {
			id, add = v, false
		}
	}
	if c.changing = id != 0 && leading; !c.changing {
		c.asked = time.Time{}
		return nil
	}
	if !c.asked.IsZero() && time.Since(c.asked) < c.election {
		return nil
	}
	c.asked = time.Now()
	if err := c.node.ProposeChange(id, add); err != nil && !errors.Is(err, raft.ErrDropped) {
		return err
	}
	return nil
}

// handOver gives the lead to another member once nothing of this one's is under way.
func (c *Chain) handOver() error {
	if c.handed.IsZero() {
		if err := c.propose(c.cutter.cut(), false); err != nil || len(c.proposed) > 0 {
			return err
		}
		if c.node.TransferLead() != 0 {
			c.handed = time.Now()
			return nil
		}
	} else if time.Since(c.handed) < c.election+2*c.tick { // raft drops proposals for an election timeout
		return nil
	}
	c.handing, c.handed = false, time.Time{} // nobody took it
	return nil
}

// retire leaves the lead in good hands before the chain stops, if there are any.
func (c *Chain) retire() error {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	if c.link == nil || !c.node.Leading() || len(c.node.Members()) < 2 {
		return nil
	}
	c.handing = true
	ticker := time.NewTicker(c.tick)
	defer ticker.Stop()
	deadline := time.After(min(c.election, 2*time.Second))
	for {
		if err := c.advance(); err != nil {
			return err
		}
		if !c.handing {
			return nil
		}
		var err error
		select {
		case m := <-c.messages:
			err = c.stepAll(m)
		case <-c.reports:
			err = c.report()
		case <-ticker.C:
			c.node.Tick()
		case <-deadline:
			return nil
		}
		if err != nil {
			return err
		}
	}
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
		c.applied = max(c.applied, e.Index)
		return nil // it was pulled from another orderer before, or is repeated after a restart
	case h.Number > height:
		return fmt.Errorf("committed block %d, but the chain ends at block %d", h.Number, height-1)
	case !bytes.Equal(h.PreviousHash, c.tipHash):
		return fmt.Errorf("committed block %d does not follow block %d", h.Number, height-1)
	}
	c.settle(h)
	c.arrivedHome(envelopesIn(e.Data))
	config, err := configIn(single)
	if err != nil {
		return fmt.Errorf("committed block %d: %w", h.Number, err)
	}
	var next *channel.Bundle
	if config != nil {
		if next, err = c.Bundle().ValidateConfig(config); err != nil {
			return fmt.Errorf("config in committed block %d: %w", h.Number, err)
		}
		before, err := c.Bundle().RaftMetadata()
		if err != nil {
			return err
		}
		after, err := next.RaftMetadata()
		if err != nil {
			return err
		}
		ch, err := changeOf(c.notes, before, after)
		if err != nil {
			return fmt.Errorf("config in committed block %d: %w", h.Number, err)
		}
		c.notes, c.lastConfig = ch.notes, h.Number
	}
	c.notes.RaftIndex = e.Index
	sealed, err := sealBlock(withoutMetadata(e.Data), h, c.lastConfig, c.notes, c.cfg.Signer)
	if err != nil {
		return err
	}
	if err := c.keep(h, sealed, next); err != nil {
		return err
	}
	c.applied = e.Index
	if next != nil {
		return c.reconnect()
	}
	return nil
}

// settle answers those whose block is the next in the chain. If another block is, theirs never will be.
func (c *Chain) settle(h *commonpb.BlockHeader) {
	if len(c.proposed) == 0 || h.Number < c.proposed[0].number {
		return
	}
	if !bytes.Equal(c.proposed[0].hash, block.HeaderHash(h)) {
		c.void()
		return
	}
	batch := c.proposed[0].batch
	c.proposed = c.proposed[1:]
	c.answer(nil, batch...)
	c.cfg.metrics.blockSize.WithLabelValues(c.id).Observe(float64(len(batch)))
}

// reconnect follows a config that is in force now.
func (c *Chain) reconnect() error {
	_, self, err := membership(c.Bundle(), c.cfg.Certificate)
	if err != nil && !errors.Is(err, errNotConsenter) {
		return err
	}
	if err != nil {
		meta, err := c.Bundle().RaftMetadata()
		if err != nil {
			return err
		}
		// A single consenter goes on until it is restarted with its new certificate: nobody else could.
		c.displaced, c.renumbered = slices.Contains(c.notes.ConsenterIds, c.self) && len(meta.Consenters) > 1, false
	} else {
		c.displaced, c.renumbered = false, c.notes.ConsenterIds[self] != c.self
	}
	if err := c.connect(); err != nil {
		return err
	}
	c.publish()
	return nil
}

// stepAll gives raft everything that has arrived: it shares the next fsync.
func (c *Chain) stepAll(m *raftpb.Message) error {
	for range cap(c.messages) {
		if err := c.step(m); err != nil {
			return err
		}
		select {
		case m = <-c.messages:
		default:
			return nil
		}
	}
	return nil
}

// step gives raft a message. A snapshot is held back until the blocks that it stands for are here.
func (c *Chain) step(m *raftpb.Message) error {
	if m.GetTo() != c.self {
		return nil // for the member that this node was before
	}
	c.heard[m.GetFrom()] = time.Now()
	if m.GetType() == raftpb.MsgSnap {
		h, _, err := openBlock(m.GetSnapshot().GetData())
		if err != nil {
			c.cfg.Log.Error("the leader's snapshot holds no block", "channel", c.id, "leader", m.GetFrom(), "error", err)
			return nil
		}
		c.snapshot, c.snapshotAt = m, h.Number
		return c.catchUp()
	}
	return c.node.Step(m)
}

// catchUp installs the snapshot that waits, when its time has come.
func (c *Chain) catchUp() error {
	if c.snapshot == nil {
		return nil
	}
	if c.store.Height() <= c.snapshotAt {
		if c.cfg.Pull == nil {
			return errors.New("this node is behind the leader's log and cannot fetch blocks from other orderers")
		}
		c.startPull()
		c.known.Store(c.snapshotAt + 1)
		return nil
	}
	if err := c.syncBlocks(); err != nil {
		return err
	}
	m := c.snapshot
	c.snapshot = nil
	c.stopPull()
	return c.node.Step(m)
}
