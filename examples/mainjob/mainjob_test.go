package main

import (
	"cmp"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
)

// An application's numbers must be those that its records were made for.
func TestCheck(t *testing.T) {
	e := expected{Good: 100, Rejected: map[string]int{"duplicate id": 2}}
	good := summary{Committed: 120, Events: 120, Rejected: map[string]int{"duplicate id": 2}}
	if err := e.check("it", good); err != nil {
		t.Error(err)
	}
	for want, spoil := range map[string]func(*summary){
		"rejected":     func(s *summary) { s.Rejected = map[string]int{"duplicate id": 1, "MVCC_READ_CONFLICT": 1} },
		"less than":    func(s *summary) { s.Committed = 99 },
		"saw 119 even": func(s *summary) { s.Events = 119 },
	} {
		s := good
		spoil(&s)
		if err := e.check("it", s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
}

func TestTogether(t *testing.T) {
	r := together(map[string]summary{
		"go":   {Committed: 300, Seconds: 1, P50Ms: 10, P99Ms: 90, Rejected: map[string]int{"wrong owner": 10}},
		"node": {Committed: 100, Seconds: 1, P50Ms: 50, P99Ms: 80, Lost: 1, Different: 2, Rejected: map[string]int{"wrong owner": 10}},
	}, map[string]time.Duration{"peer": 800 * time.Millisecond, "orderer": 200 * time.Millisecond})
	if r.Committed != 400 || r.Lost != 3 || r.Rejected["wrong owner"] != 20 || r.TxPerS != 200 || r.P50Ms != 50 || r.P99Ms != 90 || r.CPUMsPerTx != 2.5 {
		t.Errorf("%+v", r)
	}
	if none := together(nil, nil); none.TxPerS != 0 || none.CPUMsPerTx != 0 {
		t.Errorf("%+v", none)
	}
}

func TestCPU(t *testing.T) {
	for begun := time.Now(); time.Since(begun) < 50*time.Millisecond; {
	}
	used, err := cpu([]node{{Name: "test", Role: "test", PID: os.Getpid()}})
	if err != nil || used["test"] <= 0 {
		t.Errorf("%v %v", used, err)
	}
	if _, err := cpu([]node{{Name: "gone", PID: -1}}); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Error(err)
	}
}

// Rounds have records of their own, and only finished ones are looked at again.
func TestRounds(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	j := &job{records: minRecords, out: newScreen(null)}
	owner := map[string]string{} // file that an id is in
	for number := 1; number <= 2; number++ {
		r, err := j.newRound(t.TempDir(), number)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range j.applications() {
			file := r.recordsOf(a)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				var record struct{ ID string }
				if err := json.Unmarshal([]byte(line), &record); err != nil {
					t.Fatal(err)
				}
				if other := cmp.Or(owner[record.ID], file); other != file {
					t.Fatalf("%s is in %s and in %s", record.ID, other, file)
				}
				owner[record.ID] = file
			}
		}
		if _, ok, err := loadRound(r.dir); ok || err != nil {
			t.Errorf("a round that was interrupted counts as finished: %v", err)
		}
		if err := r.finish(); err != nil {
			t.Fatal(err)
		}
		again, ok, err := loadRound(r.dir)
		if !ok || err != nil || again.Of["go"].Good != r.Of["go"].Good {
			t.Errorf("%+v %v %v", again, ok, err)
		}
	}
}

// What is missing is said before anything is started.
func TestComplaints(t *testing.T) {
	for want, args := range map[string][]string{
		"say what to do":   {},
		"at least 200":     {"smoke", "-records", "5"},
		"`make build`":     {"smoke", "-hansa", "/no/such/hansa"},
		"\"x\" is not exp": {"run", "x"},
	} {
		if err := command(context.Background(), args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
}
