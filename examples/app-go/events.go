package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/hansa-ledger/hansa/client"
)

// follower handles the contract's events, each once, and remembers in a file how
// far it came: started again, it goes on behind the last event it handled.
type follower struct {
	file string

	mu    sync.Mutex
	last  position
	seen  map[string]int // events by transaction, of this run
	count int
	news  chan struct{} // has an element when seen has changed
}

// position names an event.
type position struct {
	Block uint64 `json:"block"`
	TxID  string `json:"txId"`
}

// savedEvery is how many events are handled between two writes of the file. A
// crash makes at most so many come again.
const savedEvery = 100

func newFollower(file string) (*follower, error) {
	f := &follower{file: file, seen: map[string]int{}, news: make(chan struct{}, 1)}
	if file == "" {
		return f, nil
	}
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &f.last)
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint %s: %w", file, err)
	}
	return f, nil
}

// follow handles events until ctx ends. When the peer was away it goes on where it
// was.
func (f *follower) follow(ctx context.Context, contract *client.Contract) error {
	for ctx.Err() == nil {
		_, err := again(ctx, func() (struct{}, error) { return struct{}{}, f.stream(ctx, contract) })
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("follow events: %w", err)
		}
	}
	return f.save()
}

// stream handles events until the stream ends.
func (f *follower) stream(ctx context.Context, contract *client.Contract) error {
	from := client.From(0)
	if f.last.TxID != "" {
		from = client.After(client.Event{Block: f.last.Block, TxID: f.last.TxID})
	}
	for e, err := range contract.Events(ctx, from) {
		if err == nil {
			err = f.handle(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) handle(e client.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = position{e.Block, e.TxID}
	f.seen[e.TxID]++
	f.count++
	select {
	case f.news <- struct{}{}:
	default:
	}
	if f.count%savedEvery == 0 {
		return f.save()
	}
	return nil
}

func (f *follower) save() error {
	if f.file == "" || f.last.TxID == "" {
		return nil
	}
	raw, err := json.Marshal(f.last)
	if err != nil {
		return err
	}
	// Written beside and renamed: a crash leaves the old checkpoint or the new one.
	if err := os.WriteFile(f.file+".new", raw, 0o640); err != nil {
		return err
	}
	return os.Rename(f.file+".new", f.file)
}

// of counts the given transactions' events, and those that came more than once.
func (f *follower) of(txIDs []string) (once, again int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range txIDs {
		switch n := f.seen[id]; {
		case n == 1:
			once++
		case n > 1:
			again++
		}
	}
	return once, again
}

// awaitEvents waits until each of the committed transactions was announced.
func (w *work) awaitEvents(ctx context.Context, f *follower, ended <-chan error) error {
	timeout := time.NewTimer(15 * time.Second)
	defer timeout.Stop()
	for {
		once, again := f.of(w.tally.committed)
		w.tally.events, w.tally.eventsAgain = once, again
		if once+again == len(w.tally.committed) {
			return nil
		}
		select {
		case <-f.news:
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return cmp.Or(err, ctx.Err())
		case <-timeout.C:
			return nil // the summary says that events are missing
		}
	}
}
