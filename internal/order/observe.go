package order

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Consensus is what a consenter tells of its part in a channel: how an operator sees whether the service can bear a change.
type Consensus struct {
	Self      uint64            `json:"self"`   // this node's number
	Leader    uint64            `json:"leader"` // 0 while none is known
	Term      uint64            `json:"term"`
	Committed uint64            `json:"committed"` // index in raft's log
	Height    uint64            `json:"height"`
	Members   []ConsensusMember `json:"members"` // as the channel's config names them
}

// ConsensusMember is one consenter as another one sees it.
type ConsensusMember struct {
	ID      uint64 `json:"id"`
	Address string `json:"address"`
	// Active says that it was heard from within an election timeout. Members that do not lead hear from the leader only.
	Active bool `json:"active"`
}

// Consensus is how consensus was a tick ago; false on a node that takes no part.
func (c *Chain) Consensus() (*Consensus, bool) {
	s := c.consensus.Load()
	return s, s != nil
}

// publish lets others than run see how consensus is.
func (c *Chain) publish() {
	now := time.Now()
	s := &Consensus{Self: c.self, Leader: c.node.Leader(), Term: c.node.Term(), Committed: c.node.Applied(), Height: c.store.Height()}
	active := 0
	for _, id := range c.notes.ConsenterIds {
		m := ConsensusMember{ID: id, Address: c.members[id].Address, Active: id == c.self || now.Sub(c.heard[id]) < c.election}
		if m.Active {
			active++
		}
		s.Members = append(s.Members, m)
	}
	slices.SortFunc(s.Members, func(a, b ConsensusMember) int { return int(a.ID) - int(b.ID) })
	c.consensus.Store(s)
	m := c.cfg.metrics
	leads := 0.0
	if s.Leader == s.Self {
		leads = 1
	}
	m.leader.WithLabelValues(c.id).Set(leads)
	m.members.WithLabelValues(c.id).Set(float64(len(s.Members)))
	m.active.WithLabelValues(c.id).Set(float64(active) * leads)
	m.term.WithLabelValues(c.id).Set(float64(s.Term))
	m.committed.WithLabelValues(c.id).Set(float64(s.Committed))
	syncs, waited := c.node.Syncs()
	m.syncs.WithLabelValues(c.id, "log").Add(float64(syncs - c.syncs))
	m.synced.WithLabelValues(c.id, "log").Add((waited - c.synced).Seconds())
	c.syncs, c.synced = syncs, waited
}

// syncBlocks makes the block file durable.
func (c *Chain) syncBlocks() error {
	start := time.Now()
	err := c.store.Sync()
	c.cfg.metrics.syncs.WithLabelValues(c.id, "blocks").Inc()
	c.cfg.metrics.synced.WithLabelValues(c.id, "blocks").Add(time.Since(start).Seconds())
	return err
}

type metrics struct {
	processed *prometheus.CounterVec
	validate  prometheus.Histogram
	ordering  prometheus.Histogram
	blockSize *prometheus.HistogramVec
	height    *prometheus.GaugeVec

	leader, members, active, term, committed *prometheus.GaugeVec
	syncs, synced                            *prometheus.CounterVec
}

func newMetrics() *metrics {
	buckets := prometheus.ExponentialBuckets(0.0001, 2, 16)
	perChannel := []string{"channel"}
	return &metrics{
		processed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_broadcast_processed_total", Help: "Envelopes answered, by channel, type and status."}, []string{"channel", "type", "status"}),
		validate: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hansa_broadcast_validate_seconds", Help: "Time to check an envelope.", Buckets: buckets}),
		ordering: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "hansa_broadcast_order_seconds", Help: "Time from an accepted envelope to its durable place in the chain.", Buckets: buckets}),
		blockSize: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hansa_order_block_transactions", Help: "Envelopes in the blocks made here.", Buckets: prometheus.ExponentialBuckets(1, 2, 12)}, perChannel),
		height: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hansa_order_height_blocks", Help: "Blocks in the chain."}, perChannel),
		leader: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hansa_raft_leader", Help: "1 on the consenter that leads, 0 on others."}, perChannel),
		members: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hansa_raft_members", Help: "Consenters that the channel's config names."}, perChannel),
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hansa_raft_active_members", Help: "Consenters that the leader heard from within an election timeout, and itself; 0 on others."}, perChannel),
		term: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hansa_raft_term", Help: "Raft's term: it grows with each election."}, perChannel),
		committed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hansa_raft_committed_index", Help: "The newest entry of raft's log that this node knows to be committed."}, perChannel),
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_order_fsyncs_total", Help: "Flushes to disk, of raft's log and of the block file."}, []string{"channel", "file"}),
		synced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_order_fsync_seconds_total", Help: "Time that these flushes took."}, []string{"channel", "file"}),
	}
}

// forgetConsensus is for a channel in which this node is no consenter any more.
func (m *metrics) forgetConsensus(channelID string) {
	for _, g := range []*prometheus.GaugeVec{m.leader, m.members, m.active, m.term, m.committed} {
		g.DeleteLabelValues(channelID)
	}
}

// Collectors are the service's metrics.
func (s *Service) Collectors() []prometheus.Collector {
	m := s.cfg.metrics
	return []prometheus.Collector{m.processed, m.validate, m.ordering, m.blockSize, m.height,
		m.leader, m.members, m.active, m.term, m.committed, m.syncs, m.synced}
}
