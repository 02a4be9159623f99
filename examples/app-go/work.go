package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hansa-ledger/hansa/client"
)

// record is one line of the file: the contract checks what is in it.
type record struct {
	id  string
	raw []byte
}

func readRecords(name string) ([]record, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []record
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r struct{ ID string }
		raw := bytes.Clone(lines.Bytes())
		if err := json.Unmarshal(raw, &r); err != nil {
			return nil, fmt.Errorf("%s line %d: %w", name, len(all)+1, err)
		}
		all = append(all, record{r.ID, raw})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no records", name)
	}
	return all, nil
}

// work is the job: what is done with the ledger, and what came of it.
type work struct {
	config
	own, other *member
	tally      *tally
	screen     *screen

	mu      sync.Mutex
	created []record // acknowledged by the ledger
}

// all loads the records, hands shipments over, and reads all back, while the
// contract's events come in.
func (w *work) all(ctx context.Context, records []record) error {
	following, stop := context.WithCancel(ctx)
	defer stop()
	events, err := newFollower(w.checkpoint)
	if err != nil {
		return err
	}
	followed := make(chan error, 1)
	go func() { followed <- events.follow(following, w.own.contract) }()

	w.screen.say("  %s, %s records, %d at a time, contract %q, channel %q",
		w.own.mspID, grouped(len(records)), w.concurrency, w.contract, w.channel)
	w.tally.started = time.Now()
	if err := each(ctx, w, "load", records, w.create); err != nil {
		return err
	}
	moved := w.created[:int(w.transfers*float64(len(w.created)))]
	if err := each(ctx, w, "hand over", moved, w.handOver); err != nil {
		return err
	}
	if err := each(ctx, w, "hand back", moved[:len(moved)/2], w.handBack); err != nil {
		return err
	}
	// The other half is still in the other member's hands.
	stolen := moved[len(moved)/2:]
	stolen = stolen[:min(len(stolen), w.intrusions)]
	if err := each(ctx, w, "claim", stolen, w.claim); err != nil {
		return err
	}
	w.tally.ended = time.Now()
	if err := each(ctx, w, "read back", w.created, w.readBack); err != nil {
		return err
	}
	if err := w.awaitEvents(ctx, events, followed); err != nil {
		return err
	}
	stop()
	return <-followed
}

// verify reads the records of an earlier run. What was rejected then is not there.
func (w *work) verify(ctx context.Context, records []record) error {
	return each(ctx, w, "read back", records, func(ctx context.Context, r record) error {
		raw, err := read(ctx, w.own, r.id)
		if err != nil && reason(err) != "not found" {
			return err
		}
		if err == nil && same(r.raw, raw) {
			w.tally.verified()
		}
		return nil
	})
}

// each does one step of the job with all items, some at a time.
func each(ctx context.Context, w *work, name string, items []record, do func(context.Context, record) error) error {
	if len(items) == 0 {
		return nil
	}
	done := w.screen.phase(name, len(items), w.tally)
	defer done()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(w.concurrency)
	for _, item := range items {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			defer w.screen.step()
			if err := do(ctx, item); err != nil {
				return fmt.Errorf("%s %s: %w", name, item.id, err)
			}
			return nil
		})
	}
	return group.Wait()
}

func (w *work) create(ctx context.Context, r record) error {
	ok, err := w.submit(ctx, w.own, client.Call{Function: "Create", Args: [][]byte{r.raw}})
	if ok {
		w.mu.Lock()
		w.created = append(w.created, r)
		w.mu.Unlock()
	}
	return err
}

func (w *work) handOver(ctx context.Context, r record) error {
	return w.mustSubmit(ctx, w.own, client.Strings("Transfer", r.id, w.other.mspID))
}

func (w *work) handBack(ctx context.Context, r record) error {
	// Members' peers commit a block one after the other: wait until the other
	// member sees the shipment in its hands.
	if err := w.awaitHolder(ctx, w.other, r.id, w.other.mspID); err != nil {
		return err
	}
	return w.mustSubmit(ctx, w.other, client.Strings("Transfer", r.id, w.own.mspID))
}

// claim tries to hand over what another member holds.
func (w *work) claim(ctx context.Context, r record) error {
	ok, err := w.submit(ctx, w.own, client.Strings("Transfer", r.id, w.own.mspID))
	if ok {
		return errors.New("the ledger let a member transfer what another holds")
	}
	return err
}

func (w *work) awaitHolder(ctx context.Context, m *member, id, holder string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		raw, err := read(ctx, m, id)
		var s struct{ Holder string }
		if err == nil && json.Unmarshal(raw, &s) == nil && s.Holder == holder {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the peer of %s does not show %s as the holder: it says %s %v", m.mspID, holder, raw, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// submit sends one transaction and counts what became of it. Rejections are
// results, not errors; an error is what makes going on senseless.
func (w *work) submit(ctx context.Context, m *member, call client.Call) (ok bool, err error) {
	start := time.Now()
	tx, err := endorse(ctx, m, call)
	if err == nil {
		err = order(ctx, tx)
	}
	switch {
	case err == nil:
		w.tally.commit(tx.TxID(), time.Since(start))
		return true, nil
	case ctx.Err() != nil:
		return false, ctx.Err()
	}
	if why := reason(err); why != "" {
		w.tally.reject(why)
		return false, nil
	}
	return false, err
}

func (w *work) mustSubmit(ctx context.Context, m *member, call client.Call) error {
	ok, err := w.submit(ctx, m, call)
	if err == nil && !ok {
		return errors.New("the transaction was rejected")
	}
	return err
}

// endorse has the contract run on the members' peers. Each attempt is a proposal
// of its own.
func endorse(ctx context.Context, m *member, call client.Call) (*client.Transaction, error) {
	return again(ctx, func() (*client.Transaction, error) {
		proposal, err := m.contract.Propose(call)
		if err != nil {
			return nil, err
		}
		return proposal.Endorse(ctx)
	})
}

// order submits an endorsed transaction and waits until it is committed. It is the
// same transaction at each attempt, which the ledger takes once.
func order(ctx context.Context, tx *client.Transaction) error {
	commit, err := again(ctx, func() (*client.Commit, error) { return tx.Submit(ctx) })
	if err != nil {
		return err
	}
	status, err := again(ctx, func() (client.Status, error) { return commit.Status(ctx) })
	if err != nil {
		return err
	}
	return status.Err()
}

// read returns the shipment as the member's peer has it.
func read(ctx context.Context, m *member, id string) ([]byte, error) {
	return again(ctx, func() ([]byte, error) { return m.contract.Evaluate(ctx, client.Strings("Read", id)) })
}

// patience is how long a call is tried again while a node is away, as when it is
// restarted.
const patience = 20 * time.Second

// again tries a call until it succeeds, is rejected, or patience ends.
func again[T any](ctx context.Context, try func() (T, error)) (T, error) {
	begun := time.Now()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		result, err := try()
		var failed *client.Error
		if !errors.As(err, &failed) || reason(err) != "" || time.Since(begun) > patience {
			return result, err
		}
		select {
		case <-ctx.Done():
			return result, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// readBack compares what the ledger has with what was sent.
func (w *work) readBack(ctx context.Context, r record) error {
	raw, err := read(ctx, w.own, r.id)
	switch {
	case err != nil && reason(err) != "not found":
		return err
	case err != nil:
		w.tally.lose()
	case !same(r.raw, raw):
		w.tally.differ()
	}
	return nil
}

// same tells whether all that was sent is in what came back. The ledger's
// shipment has more: its holder, its hand-overs.
func same(sent, got []byte) bool {
	var s, g map[string]any
	if json.Unmarshal(sent, &s) != nil || json.Unmarshal(got, &g) != nil {
		return false
	}
	for name, value := range s {
		if !reflect.DeepEqual(value, g[name]) {
			return false
		}
	}
	return true
}
