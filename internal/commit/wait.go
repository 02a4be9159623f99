package commit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// waiting are those who wait for a transaction. Every one is the goroutine of a caller, so callers bound them.
type waiting struct {
	mu   sync.Mutex
	byID map[string][]chan status
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

// committed tells those who wait for a transaction of the block. Of several with one identifier the first counts, as in
// the ledger's index.
func (w *waiting) committed(b *block.Parsed, r *validate.Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
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

// Height is the number of blocks that are durable and whose effects readers see.
func (c *Channel) Height() uint64 { return c.ledger.Height() }

// Wait returns when the channel has a height.
func (c *Channel) Wait(ctx context.Context, height uint64) error { return c.waitHeight(ctx, height) }

func (c *Channel) waitHeight(ctx context.Context, height uint64) error {
	if c.ledger.Height() >= height {
		return nil
	}
	return c.whileRunning(ctx, func(ctx context.Context) error { return c.ledger.Wait(ctx, height) })
}

// whileRunning ends a wait when the channel stops, too.
func (c *Channel) whileRunning(ctx context.Context, wait func(context.Context) error) error {
	waiting, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-c.stopped:
			cancel()
		case <-waiting.Done():
		}
	}()
	err := wait(waiting)
	cancel()
	<-watched
	if err != nil && ctx.Err() == nil && errors.Is(err, context.Canceled) {
		return c.stopError()
	}
	return err
}

// Block gives a block, waiting until it is committed. Nobody may change it.
func (c *Channel) Block(ctx context.Context, number uint64) (*commonpb.Block, error) {
	if err := c.waitHeight(ctx, number+1); err != nil {
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
