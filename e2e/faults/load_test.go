package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/faults/check"
	"github.com/hansa-ledger/hansa/e2e/faults/site"
)

// Per round.
const (
	registers      = 4
	clientsPerPeer = 4
)

// load is clients at work on the registers of one round. They write down every call and its answer.
type load struct {
	began    time.Time // the run's clock
	prefix   string    // of this round's keys
	pause    context.CancelFunc
	abandon  context.CancelFunc
	clients  sync.WaitGroup
	contract []*client.Contract

	mu  sync.Mutex
	ops []*check.Op // finished; guarded by mu
}

// startLoad begins to work. The contracts are those of each peer's gateway.
func startLoad(ctx context.Context, began time.Time, prefix string, seed uint64, contracts []*client.Contract) *load {
	l := &load{began: began, prefix: prefix, contract: contracts}
	calls, abandon := context.WithCancel(ctx)
	work, pause := context.WithCancel(calls)
	l.pause, l.abandon = pause, abandon
	for i := range clientsPerPeer * len(contracts) {
		l.clients.Go(func() {
			dice := rand.New(rand.NewPCG(seed, uint64(i)))
			seen := make([]string, registers) // what the client last knew of each register
			for number := 0; work.Err() == nil; number++ {
				op := &check.Op{Client: i}
				register := dice.IntN(registers)
				op.Key = fmt.Sprintf("%sregister%d", prefix, register)
				op.Value = fmt.Sprintf("%d.%d", i, number)
				switch dice.IntN(6) {
				case 0, 1:
					op.Kind = check.Read
					op.Value = ""
				case 2:
					op.Kind = check.Write
				case 3:
					op.Kind, op.Old = check.Swap, seen[register]
				default:
					op.Kind, op.Key = check.Create, fmt.Sprintf("%sof%d.%d", prefix, i, number)
				}
				l.call(calls, contracts[i%len(contracts)], op, dice.IntN(10) == 0)
				if op.Outcome == check.Committed {
					switch {
					case op.Kind == check.Write, op.Result == check.Swapped:
						seen[register] = op.Value
					case op.Kind != check.Create:
						seen[register] = op.Result
					}
				} else {
					wait(work, 20*time.Millisecond)
				}
			}
		})
	}
	return l
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

var functions = map[check.Kind]func(*check.Op) client.Call{
	check.Read:   func(op *check.Op) client.Call { return client.Strings("Read", op.Key) },
	check.Write:  func(op *check.Op) client.Call { return client.Strings("Write", op.Key, op.Value) },
	check.Swap:   func(op *check.Op) client.Call { return client.Strings("Swap", op.Key, op.Old, op.Value) },
	check.Create: func(op *check.Op) client.Call { return client.Strings("Create", op.Key, op.Value) },
}

// call makes one call and writes it down. twice is for a client that sends even what was acknowledged once more.
func (l *load) call(ctx context.Context, contract *client.Contract, op *check.Op, twice bool) {
	op.Call = time.Since(l.began)
	err := try(ctx, contract, op, twice)
	op.Return = time.Since(l.began)
	if err != nil {
		op.Error = err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, op)
}

// sendings is how often a client sends one transaction, when it is not told that it was ordered.
const sendings = 3

func try(ctx context.Context, contract *client.Contract, op *check.Op, twice bool) error {
	op.Outcome = check.Refused
	proposal, err := contract.Propose(functions[op.Kind](op))
	if err != nil {
		return err
	}
	op.TxID = proposal.TxID()
	tx, err := proposal.Endorse(ctx)
	if err != nil {
		return err
	}
	op.Outcome = check.Unknown
	op.Result = string(tx.Result())
	var commit *client.Commit
	for i := range sendings {
		if commit, err = tx.Submit(ctx); err == nil || i == sendings-1 || ctx.Err() != nil {
			break
		}
		wait(ctx, 50*time.Millisecond)
	}
	if err != nil {
		return err
	}
	op.Ordered = true
	if twice {
		tx.Submit(ctx) // whatever comes of it, it must not count
	}
	status, err := commit.Status(ctx)
	if err != nil {
		return err
	}
	var invalid *client.CommitError
	if err := status.Err(); errors.As(err, &invalid) {
		op.Outcome = check.Refused
		return err
	} else if err != nil {
		return err
	}
	op.Outcome = check.Committed
	return nil
}

// finished are the calls so far, in the order of their answers.
func (l *load) finished() []*check.Op {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.ops)
}

// firstAfter is when the first call was answered with success that was made after a moment of the run.
func (l *load) firstAfter(moment time.Duration) (time.Duration, bool) {
	for _, op := range l.finished() {
		if op.Call >= moment && op.Outcome == check.Committed {
			return op.Return, true
		}
	}
	return 0, false
}

// grace is how long calls may take that are under way when the clients stop.
const grace = 1500 * time.Millisecond

// stop ends the work and returns what was done.
func (l *load) stop() []*check.Op {
	l.pause()
	timer := time.AfterFunc(grace, l.abandon)
	l.clients.Wait()
	timer.Stop()
	l.abandon()
	return l.finished()
}

// contractsOf connects to each peer's gateway.
func contractsOf(s *site.Site) (contracts []*client.Contract, closeAll func(), err error) {
	var clients []*client.Client
	closeAll = func() {
		for _, c := range clients {
			c.Close()
		}
	}
	for _, p := range s.Peers {
		c, err := s.Client(p, "User1")
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		clients = append(clients, c)
		contracts = append(contracts, c.Channel(site.Channel).Contract(site.Contract))
	}
	return contracts, closeAll, nil
}
