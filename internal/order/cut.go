package order

import (
	"time"

	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// cutter groups envelopes into batches, each to become a block. It only decides: time comes in as an argument.
//
// The limits are the channel's. Within them a batch is cut as early as it pays: at once when the chain is idle and
// traffic is light, so that a lone transaction is in a block within a millisecond; under load it lingers for some
// milliseconds, since every block costs each peer a fixed sum, and clients and nodes are cheaper to serve in bursts.
// The lingering ends when nothing came for the length of a gap: clients that wait for their commit before they go on
// send in bursts, and waiting behind a burst gains nothing. The gap is a short one when as many have come as before.
type cutter struct {
	size    *ordererpb.BatchSize
	timeout time.Duration // the channel's BatchTimeout
	linger  time.Duration
	gap     time.Duration

	pending  []*submission
	bytes    uint32
	first    time.Time               // arrival of the oldest pending envelope
	last     time.Time               // arrival of the newest
	arrivals [busyArrivals]time.Time // of the newest envelopes, a ring
	at       int
	expected int // envelopes that are likely to come: as many as in the last batches, of which older ones count less
}

// busyArrivals within busyShare of a linger make the channel busy: 250 a second by default.
const (
	busyArrivals = 5
	busyShare    = 0.4
)

// shortGap is the part of a gap that ends the lingering when as many envelopes have come as are expected.
const shortGap = 0.2

// add takes an envelope and returns the batches that it completes: none, one, or two when it is too large to share one.
func (c *cutter) add(s *submission, now time.Time) [][]*submission {
	c.arrivals[c.at%busyArrivals] = now
	c.at++
	var full [][]*submission
	size := s.size()
	if size > c.size.PreferredMaxBytes {
		if len(c.pending) > 0 {
			full = append(full, c.cut())
		}
		return append(full, []*submission{s})
	}
	if c.bytes+size > c.size.PreferredMaxBytes {
		full = append(full, c.cut())
	}
	if len(c.pending) == 0 {
		c.first = now
	}
	c.last = now
	c.pending = append(c.pending, s)
	c.bytes += size
	if uint32(len(c.pending)) >= c.size.MaxMessageCount {
		full = append(full, c.cut())
	}
	return full
}

// due is when the pending batch is to be cut if nothing else arrives, and whether there is one. idle says that no block
// is on its way through consensus; while one is, waiting costs nothing.
func (c *cutter) due(idle bool) (time.Time, bool) {
	if len(c.pending) == 0 {
		return time.Time{}, false
	}
	at := c.first.Add(c.timeout)
	if !idle {
		return at, true
	}
	if oldest := c.arrivals[c.at%busyArrivals]; float64(c.last.Sub(oldest)) > busyShare*float64(c.linger) {
		return c.first, true
	}
	gap := c.gap
	if len(c.pending) >= c.expected {
		gap = time.Duration(shortGap * float64(gap))
	}
	for _, t := range []time.Time{c.first.Add(c.linger), c.last.Add(gap)} {
		if t.Before(at) {
			at = t
		}
	}
	return at, true
}

// cut returns the pending batch, which may be empty.
func (c *cutter) cut() []*submission {
	batch := c.pending
	c.pending, c.bytes = nil, 0
	c.expected = max(len(batch), c.expected*3/4)
	return batch
}
