// Package bench puts a measured load on a network through its Gateway and says
// what it cost: rates, latencies, and CPU time and memory of each process.
//
// The load is a closed loop: each of a number of workers starts its next call
// when its last one has ended, and every transaction is followed to its commit
// status. Conflicts are results, not retried. What is prepared before a run is
// not in its figures.
package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/hansa-ledger/hansa/client"
)

// Workloads.
const (
	Create   = "create"   // write a new key
	Transfer = "transfer" // read, modify and write one of the keys
	Read     = "read"     // evaluate a read of one of the keys
)

// Config of a run.
type Config struct {
	Workload    string
	Concurrency int
	Duration    time.Duration // no call starts after it
	Keys        int           // of transfer and read; those missing are made first
	ValueBytes  int           // of what create writes
	Contract    *client.Contract
	Processes   []Process
	Progress    func(done int64, elapsed time.Duration) // nil for none
}

// Report is what a run came to. Latencies are in milliseconds, by nearest rank,
// of committed transactions (of answers, for read).
type Report struct {
	Workload    string           `json:"workload"`
	Concurrency int              `json:"concurrency"`
	ValueBytes  int              `json:"value_bytes"`
	Committed   int64            `json:"committed"`
	Rejected    map[string]int64 `json:"rejected"`
	Seconds     float64          `json:"seconds"`
	TxPerSecond float64          `json:"tx_per_s"`
	P50         float64          `json:"p50_ms"`
	P95         float64          `json:"p95_ms"`
	P99         float64          `json:"p99_ms"`
	Max         float64          `json:"max_ms"`
	Blocks      int              `json:"blocks,omitempty"`
	CPUPerTx    float64          `json:"cpu_ms_per_tx"` // all processes together, without the client
	ClientCPU   float64          `json:"client_cpu_ms_per_tx"`
	Processes   []Usage          `json:"processes"`
}

// seeders make the keys before a run, so many at a time.
const seeders = 64

// Run loads the network.
func Run(ctx context.Context, c Config) (*Report, error) {
	switch {
	case c.Workload != Create && c.Workload != Transfer && c.Workload != Read:
		return nil, fmt.Errorf("--workload %q: create, transfer or read is wanted", c.Workload)
	case c.Concurrency < 1:
		return nil, fmt.Errorf("--concurrency %d: at least 1 is wanted", c.Concurrency)
	case c.Keys < 1:
		return nil, fmt.Errorf("--keys %d: at least 1 is wanted", c.Keys)
	case c.Duration <= 0:
		return nil, fmt.Errorf("--duration %s: a positive one is wanted", c.Duration)
	case c.ValueBytes < 0:
		return nil, fmt.Errorf("--size %d: it must not be negative", c.ValueBytes)
	}
	w := &workload{Config: c, run: strconv.FormatInt(time.Now().UnixNano(), 36)}
	if c.Workload != Create {
		if err := w.seed(ctx); err != nil {
			return nil, fmt.Errorf("make the keys: %w", err)
		}
	}
	before, err := usages(c.Processes)
	if err != nil {
		return nil, err
	}
	own := ownCPU()
	t := w.drive(ctx)
	own = ownCPU() - own
	after, err := usages(c.Processes)
	if err != nil {
		return nil, err
	}
	return t.report(c, own, before, after), nil
}

type workload struct {
	Config
	run  string
	next atomic.Int64
}

func key(i int) string { return fmt.Sprintf("bench-%08d", i) }

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func (w *workload) create(id string, random *rand.Rand) client.Call {
	value := make([]byte, w.ValueBytes)
	for i := range value {
		value[i] = alphabet[random.IntN(len(alphabet))]
	}
	return client.Strings("CreateAsset", id, string(value), "5", "owner", "300")
}

// seed makes the keys that do not exist yet.
func (w *workload) seed(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for worker := range seeders {
		workers.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for i := next.Add(1) - 1; i < int64(w.Keys) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := w.ensure(ctx, key(int(i)), random); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

func (w *workload) ensure(ctx context.Context, id string, random *rand.Rand) error {
	exists, err := w.Contract.Evaluate(ctx, client.Strings("AssetExists", id))
	if err != nil || string(exists) == "true" {
		return err
	}
	_, err = w.Contract.Submit(ctx, w.create(id, random))
	return err
}

// call does one call and returns the block of its transaction.
func (w *workload) call(ctx context.Context, random *rand.Rand) (block uint64, err error) {
	var call client.Call
	switch w.Workload {
	case Read:
		_, err := w.Contract.Evaluate(ctx, client.Strings("ReadAsset", key(random.IntN(w.Keys))))
		return 0, err
	case Transfer:
		call = client.Strings("TransferAsset", key(random.IntN(w.Keys)), "owner"+strconv.Itoa(random.IntN(1_000_000)))
	default:
		call = w.create(w.run+"-"+strconv.FormatInt(w.next.Add(1), 10), random)
	}
	commit, err := w.Contract.SubmitAsync(ctx, call)
	if err != nil {
		return 0, err
	}
	status, err := commit.Status(ctx)
	if err != nil {
		return 0, err
	}
	return status.Block, status.Err()
}

// tally is what the workers saw.
type tally struct {
	elapsed   time.Duration
	latencies []time.Duration
	rejected  map[string]int64
	blocks    map[uint64]bool
}

func newTally() *tally { return &tally{rejected: map[string]int64{}, blocks: map[uint64]bool{}} }

// reason names an error by the code that it ended with.
func reason(err error) string {
	if invalid := (*client.CommitError)(nil); errors.As(err, &invalid) {
		return invalid.Code
	}
	if failed := (*client.Error)(nil); errors.As(err, &failed) && failed.Code != codes.Unknown {
		return failed.Step + ":" + failed.Code.String()
	}
	return err.Error()
}

// drive keeps the workers busy until the duration is over, then waits for the
// calls in flight.
func (w *workload) drive(ctx context.Context) *tally {
	start := time.Now()
	var done atomic.Int64
	tallies := make([]*tally, w.Concurrency)
	var workers sync.WaitGroup
	for worker := range tallies {
		t := newTally()
		tallies[worker] = t
		workers.Go(func() {
			random := rand.New(rand.NewPCG(uint64(start.UnixNano()), uint64(worker)))
			for ctx.Err() == nil && time.Since(start) < w.Duration {
				begin := time.Now()
				block, err := w.call(context.WithoutCancel(ctx), random)
				if err != nil {
					t.rejected[reason(err)]++
					continue
				}
				done.Add(1)
				t.latencies = append(t.latencies, time.Since(begin))
				t.blocks[block] = true
			}
		})
	}
	finished := make(chan struct{})
	if w.Progress != nil {
		go w.show(start, &done, finished)
	}
	workers.Wait()
	close(finished)
	total := newTally()
	total.elapsed = time.Since(start)
	for _, t := range tallies {
		total.latencies = append(total.latencies, t.latencies...)
		for why, n := range t.rejected {
			total.rejected[why] += n
		}
		for b := range t.blocks {
			total.blocks[b] = true
		}
	}
	return total
}

func (w *workload) show(start time.Time, done *atomic.Int64, finished <-chan struct{}) {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			w.Progress(done.Load(), time.Since(start))
		case <-finished:
			return
		}
	}
}

func (t *tally) report(c Config, own time.Duration, before, after []Usage) *Report {
	committed := int64(len(t.latencies))
	r := &Report{
		Workload: c.Workload, Concurrency: c.Concurrency, ValueBytes: c.ValueBytes, Committed: committed, Rejected: t.rejected,
		Seconds: round(t.elapsed.Seconds()), TxPerSecond: round(float64(committed) / t.elapsed.Seconds()),
		ClientCPU: perTx(own, committed),
	}
	if c.Workload != Read {
		r.Blocks = len(t.blocks)
	}
	if committed > 0 {
		slices.Sort(t.latencies)
		at := func(percent int) float64 {
			rank := (len(t.latencies)*percent + 99) / 100
			return round(float64(t.latencies[max(rank, 1)-1].Microseconds()) / 1000)
		}
		r.P50, r.P95, r.P99, r.Max = at(50), at(95), at(99), at(100)
	}
	for i, u := range after {
		u.CPUPerTx = perTx(u.cpu-before[i].cpu, committed)
		r.CPUPerTx = round(r.CPUPerTx + u.CPUPerTx)
		r.Processes = append(r.Processes, u)
	}
	return r
}

func perTx(cpu time.Duration, n int64) float64 {
	if n == 0 {
		return 0
	}
	return round(float64(cpu.Microseconds()) / 1000 / float64(n))
}

func round(v float64) float64 { return float64(int64(v*1000+0.5)) / 1000 }
