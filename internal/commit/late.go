package commit

import (
	"context"
	"time"

	"github.com/hansa-ledger/hansa/internal/ledger"
)

// lateData is private data on its way to the goroutine that commits.
type lateData struct {
	late   []ledger.Late
	answer chan<- lateAnswer // has room for the answer
}

type lateAnswer struct {
	taken int
	err   error
}

// CommitLate makes private data that was missing part of the ledger, see there; between two blocks.
func (c *Channel) CommitLate(ctx context.Context, late []ledger.Late) (taken int, err error) {
	answer := make(chan lateAnswer, 1)
	select {
	case c.late <- lateData{late, answer}:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-c.stopped:
		return 0, c.stopError()
	}
	a := <-answer
	return a.taken, a.err
}

func (c *Channel) commitLate(d lateData) {
	taken, err := c.ledger.CommitLate(d.late)
	d.answer <- lateAnswer{taken, err}
}

// eraser says when it is time to erase what was purged.
type eraser struct {
	after time.Duration
	took  time.Duration // the last time
	timer *time.Timer
	due   <-chan time.Time // nil while nothing has to be erased
}

// eraseShare bounds the time spent on erasing: so many times as long as it took blocks are committed undisturbed.
const eraseShare = 20

// purged notes that there is something to erase.
func (e *eraser) purged() {
	if e.due == nil {
		e.timer = time.NewTimer(max(e.after, eraseShare*e.took))
		e.due = e.timer.C
	}
}

func (e *eraser) stop() {
	if e.timer != nil {
		e.timer.Stop()
	}
}

// erase takes out of the ledger's files what was purged. Should it fail, it is tried again later: readers do not see the data
// in any case.
func (c *Channel) erase() {
	start := time.Now()
	err := c.ledger.ErasePurged()
	c.eraser.took, c.eraser.due = time.Since(start), nil
	if err != nil {
		c.log.Error("purged private data could not be erased from the ledger's files; it will be tried again", "error", err)
		c.eraser.purged()
		return
	}
	c.log.Info("purged private data erased from the ledger's files", "took", c.eraser.took)
}
