package faults_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/e2e/faults/check"
	"github.com/hansa-ledger/hansa/e2e/faults/nemesis"
)

// report is what a run has shown.
type report struct {
	Rounds       int                  `json:"rounds"`
	Seconds      float64              `json:"seconds"`
	Faults       map[nemesis.Kind]int `json:"faults"`
	Refused      int                  `json:"refused_changes"`
	Calls        int                  `json:"calls"`
	Acknowledged int                  `json:"acknowledged"`
	Conflicts    int                  `json:"conflicts"`   // ordered, and invalid as something they had read had changed
	NotOrdered   int                  `json:"not_ordered"` // failed before they were sent to an orderer, for example for want of a peer or the contract
	Unknown      int                  `json:"unknown"`     // the client gave up waiting
	Lost         int                  `json:"lost"`
	Doubled      int                  `json:"doubled"`
	Reordered    int                  `json:"reordered"`
	Wrong        int                  `json:"wrong"`
	Diverged     int                  `json:"diverged"`
	Exits        int                  `json:"exits"` // processes that ended by themselves, as their disk was full
	// Errors counts what clients were told, without the numbers in it.
	Errors map[string]int `json:"errors"`
	// AfterHeal is from the end of a round's last fault to the first commit of a transaction that was sent after it.
	AfterHeal percentiles `json:"recovery_after_heal_ms"`
	// Failover is from the beginning of a fault to the first commit of a transaction that was sent after it, in rounds in which a majority of orderers,
	// a peer and the contract were not hit.
	Failover map[nemesis.Kind]percentiles `json:"failover_ms"`

	afterHeal []time.Duration
	failover  map[nemesis.Kind][]time.Duration
}

type percentiles struct {
	Count int   `json:"count"`
	P50   int64 `json:"p50"`
	P99   int64 `json:"p99"`
	Max   int64 `json:"max"`
}

func newReport() *report {
	return &report{Errors: map[string]int{}, Faults: map[nemesis.Kind]int{}, Failover: map[nemesis.Kind]percentiles{}, failover: map[nemesis.Kind][]time.Duration{}}
}

// numbers and what looks like them: transaction ids, addresses.
var numbers = regexp.MustCompile(`[0-9a-f]{16,}|[0-9]+(\.[0-9]+)*`)

// all is the entry of the sum over all kinds.
const all nemesis.Kind = "all"

func (r *report) add(rounds *rounds, done []nemesis.Done, impaired nemesis.Impaired, ops []*check.Op, l *load, healed time.Duration, f *check.Finding, diverged []string) {
	r.Rounds++
	for _, d := range done {
		r.Faults[d.Kind]++
		if d.Refused != "" {
			r.Refused++
			continue
		}
		lives := impaired.Orderers <= (len(rounds.site.Orderers)-1)/2 && impaired.Peers < len(rounds.site.Peers) && !impaired.Contract
		began := d.Began.Sub(rounds.began)
		if first, ok := l.firstAfter(began); ok && lives {
			r.failover[d.Kind] = append(r.failover[d.Kind], first-began)
			r.failover[all] = append(r.failover[all], first-began)
		}
	}
	if first, ok := l.firstAfter(healed); ok {
		r.afterHeal = append(r.afterHeal, first-healed)
	}
	for _, op := range ops {
		if op.Error != "" {
			first, _, _ := strings.Cut(op.Error, "\n")
			r.Errors[numbers.ReplaceAllString(first, "#")]++
		}
		r.Calls++
		switch {
		case op.Outcome == check.Committed:
			r.Acknowledged++
		case op.Outcome == check.Unknown:
			r.Unknown++
		case op.Ordered:
			r.Conflicts++
		default:
			r.NotOrdered++
		}
	}
	r.Lost, r.Doubled, r.Reordered, r.Wrong = r.Lost+len(f.Lost), r.Doubled+len(f.Doubled), r.Reordered+len(f.Reordered), r.Wrong+len(f.Wrong)
	r.Diverged += len(diverged)
}

func percentilesOf(all []time.Duration) percentiles {
	if len(all) == 0 {
		return percentiles{}
	}
	all = slices.Sorted(slices.Values(all))
	at := func(share float64) int64 { return all[int(share*float64(len(all)-1)+0.5)].Milliseconds() }
	return percentiles{len(all), at(0.5), at(0.99), at(1)}
}

// write prints the run's line and tables, and stores the figures.
func (r *report) write(t *testing.T, file string) {
	t.Helper()
	r.AfterHeal = percentilesOf(r.afterHeal)
	for kind, times := range r.failover {
		r.Failover[kind] = percentilesOf(times)
	}
	if file != "" {
		raw, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(raw, '\n'), 0o644); err != nil {
			t.Error(err)
		}
	}
	fmt.Print(r.table())
	lastLine = r.line()
}

// lastLine ends the program's output.
var lastLine string

// line is the end of a run.
func (r *report) line() string {
	total := 0
	var kinds []string
	for _, kind := range slices.Sorted(maps.Keys(r.Faults)) {
		total += r.Faults[kind]
		kinds = append(kinds, fmt.Sprintf("%s %d", kind, r.Faults[kind]))
	}
	return fmt.Sprintf("faults: %d rounds in %.0f s, %d faults (%s; %d changes of members refused), %d transactions acknowledged, %d lost, %d doubled, %d reordered, %d wrong, %d diverged, recovery p50 %d ms p99 %d ms",
		r.Rounds, r.Seconds, total, strings.Join(kinds, ", "), r.Refused, r.Acknowledged, r.Lost, r.Doubled, r.Reordered, r.Wrong, r.Diverged, r.AfterHeal.P50, r.AfterHeal.P99)
}

// table is Markdown for docs/reliability.md.
func (r *report) table() string {
	var text strings.Builder
	text.WriteString("\n| fault | number | with a majority unharmed | until the next commit: p50 | p99 | longest |\n|---|---|---|---|---|---|\n")
	total := 0
	row := func(name nemesis.Kind, number int) {
		p := r.Failover[name]
		if p.Count == 0 {
			fmt.Fprintf(&text, "| %s | %d | 0 | | | |\n", name, number)
			return
		}
		fmt.Fprintf(&text, "| %s | %d | %d | %d ms | %d ms | %d ms |\n", name, number, p.Count, p.P50, p.P99, p.Max)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Faults)) {
		row(kind, r.Faults[kind])
		total += r.Faults[kind]
	}
	row(all, total)
	text.WriteString("\n| rounds | calls | committed | conflicts | not ordered | unknown | lost | doubled | reordered | diverged | recovery p50 | p99 | longest |\n" +
		"|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	fmt.Fprintf(&text, "| %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d ms | %d ms | %d ms |\n\n", r.Rounds, r.Calls, r.Acknowledged, r.Conflicts, r.NotOrdered, r.Unknown,
		r.Lost, r.Doubled, r.Reordered+r.Wrong, r.Diverged, r.AfterHeal.P50, r.AfterHeal.P99, r.AfterHeal.Max)
	return text.String()
}
