package bench

import "time"

// Ran is a run as the workers saw it, for tests of the arithmetic.
type Ran struct {
	Latencies []time.Duration
	Rejected  map[string]int64
	Blocks    map[uint64]bool
	Elapsed   time.Duration
	ClientCPU time.Duration
	// Before and After are the CPU times of each process in Config.Processes.
	Before, After []time.Duration
}

// Report is what the run comes to.
func (r Ran) Report(c Config) *Report {
	t := &tally{elapsed: r.Elapsed, latencies: r.Latencies, rejected: r.Rejected, blocks: r.Blocks}
	used := func(cpu []time.Duration) (all []Usage) {
		for i, p := range c.Processes {
			all = append(all, Usage{Name: p.Name, cpu: cpu[i]})
		}
		return all
	}
	return t.report(c, r.ClientCPU, used(r.Before), used(r.After))
}

// Usages reads what processes have used.
func Usages(processes []Process) (cpu []time.Duration, residentMB []float64, err error) {
	all, err := usages(processes)
	for _, u := range all {
		cpu, residentMB = append(cpu, u.cpu), append(residentMB, u.ResidentMB)
	}
	return cpu, residentMB, err
}

// Reason names an error in Report.Rejected.
var Reason = reason
