package commit

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// waiting are those who wait for a transaction or a height. Every one is the goroutine of a caller, so callers bound them.
type waiting struct {
	mu      sync.Mutex
	byID    map[string][]chan status
	height  uint64        // of the ledger, with the configuration that belongs to it in force
	changed chan struct{} // closed when height grows; nil if nobody waits for that
}

type status struct {
	code  peerpb.TxValidationCode
	block uint64
}

func newWaiting() *waiting { return &waiting{byID: map[string][]chan status{}} }

func (w *waiting) add(id string) chan status {
	waiter := make(chan status, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.byID[id] = append(w.byID[id], waiter)
	return waiter
}

func (w *waiting) remove(id string, waiter chan status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := slices.DeleteFunc(w.byID[id], func(c chan status) bool { return c == waiter })
	if len(left) == 0 {
		delete(w.byID, id)
		return
	}
	w.byID[id] = left
}

// committed tells those who wait for the block or a transaction in it. Of several transactions with one identifier the
// first counts, as in the ledger's index.
func (w *waiting) committed(b *block.Parsed, r *validate.Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.height = b.Header.Number + 1
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
	if len(w.byID) == 0 {
		return
	}
	for i, id := range r.TxIDs {
		for _, waiter := range w.byID[id] {
			waiter <- status{peerpb.TxValidationCode(r.Codes[i]), b.Header.Number}
		}
		delete(w.byID, id)
	}
}

// reached says whether the height is at least height, and if not, what is closed when it grows.
func (w *waiting) reached(height uint64) (bool, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.height >= height {
		return true, nil
	}
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return false, w.changed
}

// Status gives what became of a transaction and the number of its block. It waits until the transaction is committed, ctx
// ends, or the channel stops.
func (c *Channel) Status(ctx context.Context, txID string) (peerpb.TxValidationCode, uint64, error) {
	waiter := c.waiting.add(txID) // before the look into the ledger, so that no commit goes unseen between them
	defer c.waiting.remove(txID, waiter)
	code, number, ok, err := c.ledger.TxStatus(txID)
	if err != nil || ok {
		return code, number, err
	}
	select {
	case s := <-waiter:
		return s.code, s.block, nil
	case <-ctx.Done():
		return peerpb.TxValidationCode_NOT_VALIDATED, 0, ctx.Err()
	case <-c.stopped:
		return peerpb.TxValidationCode_NOT_VALIDATED, 0, c.stopError()
	}
}

// Height is the number of blocks that are durable and in force: readers see their effects, Bundle their configuration.
func (c *Channel) Height() uint64 {
	c.waiting.mu.Lock()
	defer c.waiting.mu.Unlock()
	return c.waiting.height
}

// Wait returns when Height is at least height, ctx ends or the channel stops.
func (c *Channel) Wait(ctx context.Context, height uint64) error {
	for {
		reached, changed := c.waiting.reached(height)
		if reached {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.stopped:
			return c.stopError()
		}
	}
}

// Block gives a block, waiting until it is committed. Nobody may change it.
func (c *Channel) Block(ctx context.Context, number uint64) (*commonpb.Block, error) {
	if err := c.Wait(ctx, number+1); err != nil {
		return nil, fmt.Errorf("wait for block %d: %w", number, err)
	}
	return c.ledger.Block(number)
}

// BlockBytes gives a committed block in serialized form.
func (c *Channel) BlockBytes(number uint64) ([]byte, error) { return c.ledger.BlockBytes(number) }

// BlockOf gives the number of the block that holds a transaction.
func (c *Channel) BlockOf(txID string) (uint64, bool) {
	_, number, ok, err := c.ledger.TxStatus(txID)
	return number, ok && err == nil
}
