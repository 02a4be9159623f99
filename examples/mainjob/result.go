package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"time"
)

// summary is what an application prints with --json.
type summary struct {
	Committed     int            `json:"committed"`
	Rejected      map[string]int `json:"rejected"`
	Lost          int            `json:"lost"`
	Different     int            `json:"different"`
	Found         int            `json:"found,omitempty"`
	Events        int            `json:"events"`
	FirstCommitAt time.Time      `json:"first_commit_at"`
	Seconds       float64        `json:"seconds"`
	TxPerS        float64        `json:"tx_per_s"`
	P50Ms         float64        `json:"p50_ms"`
	P99Ms         float64        `json:"p99_ms"`
}

// result is what a smoke test prints: both applications together.
type result struct {
	Committed int            `json:"committed"`
	Rejected  map[string]int `json:"rejected"`
	// Lost counts shipments that were acknowledged and not found, or found with
	// other content, when they were read back, at once or after a restart.
	Lost int `json:"lost"`
	// FirstCommitS is from the start of `hansa up` on an empty folder to the first
	// committed transaction of an application, without the time in which the
	// contract was compiled.
	FirstCommitS float64 `json:"first_commit_s"`
	TxPerS       float64 `json:"tx_per_s"` // of both, one after the other
	P50Ms        float64 `json:"p50_ms"`   // the slower application's
	P99Ms        float64 `json:"p99_ms"`   // the slower application's
	// CPUMsPerTx is the CPU time of all nodes and the contract while the applications
	// ran (reads, events and rejected transactions included) for each committed transaction.
	CPUMsPerTx float64            `json:"cpu_ms_per_tx"`
	CPUByRole  map[string]float64 `json:"cpu_ms_per_tx_by_role"`
	Clients    map[string]summary `json:"clients"`
}

// together joins what the applications found.
func together(clients map[string]summary, cpu map[string]time.Duration) result {
	r := result{Rejected: map[string]int{}, CPUByRole: map[string]float64{}, Clients: clients}
	var seconds float64
	for _, s := range clients {
		r.Committed += s.Committed
		r.Lost += s.Lost + s.Different
		for why, n := range s.Rejected {
			r.Rejected[why] += n
		}
		seconds += s.Seconds
		r.P50Ms, r.P99Ms = max(r.P50Ms, s.P50Ms), max(r.P99Ms, s.P99Ms)
	}
	if r.Committed == 0 {
		return r
	}
	r.TxPerS = rounded(float64(r.Committed) / seconds)
	for role, used := range cpu {
		ms := float64(used.Microseconds()) / 1000 / float64(r.Committed)
		r.CPUByRole[role] = rounded(ms)
		r.CPUMsPerTx += ms
	}
	r.CPUMsPerTx = rounded(r.CPUMsPerTx)
	return r
}

func rounded(x float64) float64 {
	short, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'f', 3, 64), 64)
	return short
}

// expected is what an application must find, given its records.
type expected struct {
	Good     int            `json:"good"`
	Rejected map[string]int `json:"rejected"`
}

// check compares an application's summary with what its records must lead to.
func (e expected) check(name string, s summary) error {
	switch {
	case !maps.Equal(s.Rejected, e.Rejected):
		return fmt.Errorf("%s had %v rejected; its records were made for %v", name, s.Rejected, e.Rejected)
	case s.Committed < e.Good:
		return fmt.Errorf("%s committed %d transactions, less than its %d good records", name, s.Committed, e.Good)
	case s.Events != s.Committed:
		return fmt.Errorf("%s committed %d transactions and saw %d events", name, s.Committed, s.Events)
	}
	return nil
}

// cpu adds up the CPU time that processes have used, by role.
func cpu(nodes []node) (map[string]time.Duration, error) {
	all := map[string]time.Duration{}
	for _, n := range nodes {
		used, err := cpuOf(n.PID)
		if err != nil {
			return nil, fmt.Errorf("CPU time of %s: %w", n.Name, err)
		}
		all[n.Role] += used
	}
	return all, nil
}

// clockTick is the unit of /proc/PID/stat, the same on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

func cpuOf(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field, the program's name, may hold spaces; it ends with the last parenthesis.
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("it is not as proc(5) says")
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * clockTick, errors.Join(err1, err2)
}
