package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/hansa-ledger/hansa/client"
)

// tally counts what became of the transactions.
type tally struct {
	mu          sync.Mutex
	started     time.Time
	ended       time.Time
	firstCommit time.Time
	committed   []string // transaction ids
	latencies   []time.Duration
	rejected    map[string]int
	lost        int
	different   int
	found       int
	events      int
	eventsAgain int
}

func newTally() *tally { return &tally{rejected: map[string]int{}} }

func (t *tally) commit(txID string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.committed) == 0 {
		t.firstCommit = time.Now()
	}
	t.committed = append(t.committed, txID)
	t.latencies = append(t.latencies, took)
}

func (t *tally) reject(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rejected[why]++
}

func (t *tally) lose()     { t.mu.Lock(); t.lost++; t.mu.Unlock() }
func (t *tally) differ()   { t.mu.Lock(); t.different++; t.mu.Unlock() }
func (t *tally) verified() { t.mu.Lock(); t.found++; t.mu.Unlock() }

// live is what the progress bar shows of the last transactions.
func (t *tally) live() (rejected int, p50, p99 time.Duration) {
	t.mu.Lock()
	recent := slices.Clone(t.latencies[max(0, len(t.latencies)-1000):])
	for _, n := range t.rejected {
		rejected += n
	}
	t.mu.Unlock()
	slices.Sort(recent)
	return rejected, percentile(recent, 50), percentile(recent, 99)
}

func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)-1)*p/100]
}

// reason says in a few words why the contract or the ledger rejected a
// transaction; "" if nothing did and something is broken.
func reason(err error) string {
	var invalid *client.CommitError
	if errors.As(err, &invalid) {
		return invalid.Code
	}
	var failed *client.Error
	if !errors.As(err, &failed) || (failed.Code != codes.Aborted && failed.Code != codes.Unknown) {
		return ""
	}
	text := failed.Error()
	for _, r := range []struct{ part, reason string }{
		{"already exists", "duplicate id"},
		{"does not exist", "not found"},
		{"is held by", "wrong owner"},
		{"argument order of Create", "invalid record"},
	} {
		if strings.Contains(text, r.part) {
			return r.reason
		}
	}
	return ""
}

// summary is what the application found, as people and as programs read it.
type summary struct {
	Committed     int            `json:"committed"`
	Rejected      map[string]int `json:"rejected"`
	Lost          int            `json:"lost"`      // acknowledged, but not found when read back
	Different     int            `json:"different"` // found with other content
	Found         int            `json:"found"`     // with -verify: records that are there, as they were sent
	Events        int            `json:"events"`    // committed transactions that were announced, once
	EventsAgain   int            `json:"events_again"`
	FirstCommitS  float64        `json:"first_commit_s"` // since the application began
	FirstCommitAt time.Time      `json:"first_commit_at"`
	Seconds       float64        `json:"seconds"`
	TxPerS        float64        `json:"tx_per_s"`
	P50Ms         float64        `json:"p50_ms"`
	P99Ms         float64        `json:"p99_ms"`

	verify bool
}

func (w *work) summary() summary {
	t := w.tally
	slices.Sort(t.latencies)
	s := summary{
		Committed: len(t.committed), Rejected: t.rejected, Lost: t.lost, Different: t.different, Found: t.found,
		Events: t.events, EventsAgain: t.eventsAgain, FirstCommitAt: t.firstCommit,
		P50Ms: milliseconds(percentile(t.latencies, 50)), P99Ms: milliseconds(percentile(t.latencies, 99)),
		verify: w.config.verify,
	}
	if s.Committed > 0 {
		s.FirstCommitS = t.firstCommit.Sub(t.started).Seconds()
		s.Seconds = t.ended.Sub(t.started).Seconds()
		s.TxPerS = float64(s.Committed) / s.Seconds
	}
	return s
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (s summary) print(out io.Writer) {
	if s.verify {
		fmt.Fprintf(out, "  found       %s, as they were sent\n\n", grouped(s.Found))
		return
	}
	var all int
	var why []string
	for _, reason := range slices.SortedFunc(maps.Keys(s.Rejected), func(a, b string) int {
		return cmp.Or(cmp.Compare(s.Rejected[b], s.Rejected[a]), cmp.Compare(a, b))
	}) {
		all += s.Rejected[reason]
		why = append(why, fmt.Sprintf("%s %d", reason, s.Rejected[reason]))
	}
	fmt.Fprintf(out, "  committed   %s transactions, %.0f/s, p50 %.0f ms, p99 %.0f ms\n", grouped(s.Committed), s.TxPerS, s.P50Ms, s.P99Ms)
	fmt.Fprintf(out, "  rejected    %s: %s\n", grouped(all), cmp.Or(strings.Join(why, ", "), "none"))
	fmt.Fprintf(out, "  read back   %d lost, %d different\n", s.Lost, s.Different)
	fmt.Fprintf(out, "  events      %s announced once, %d more than once, %d missing\n\n",
		grouped(s.Events), s.EventsAgain, s.Committed-s.Events-s.EventsAgain)
}

// verdict is an error if the ledger did not keep what it promised.
func (s summary) verdict() error {
	switch {
	case s.Lost > 0 || s.Different > 0:
		return fmt.Errorf("of the shipments that were acknowledged %d are lost and %d differ from what was sent", s.Lost, s.Different)
	case !s.verify && s.Events != s.Committed:
		return fmt.Errorf("of %d committed transactions %d were announced once, %d more than once", s.Committed, s.Events, s.EventsAgain)
	}
	return nil
}

// grouped writes 12345 as 12,345.
func grouped(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
