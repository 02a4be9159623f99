package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// Process is a local process to watch during a run.
type Process struct {
	Name string
	PID  int
}

// Usage is what a process used.
type Usage struct {
	Name       string  `json:"name"`
	CPUPerTx   float64 `json:"cpu_ms_per_tx"`
	ResidentMB float64 `json:"resident_mb"` // at the end
	cpu        time.Duration
}

// clockTicks per second in /proc (USER_HZ), which Linux fixes for programs.
const clockTicks = 100

func usages(processes []Process) ([]Usage, error) {
	all := make([]Usage, len(processes))
	for i, p := range processes {
		cpu, err := cpuOf(p.PID)
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", p.Name, err)
		}
		memory, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.PID))
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", p.Name, err)
		}
		pages, err := strconv.ParseInt(string(bytes.Fields(memory)[1]), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("watch %s: %w", p.Name, err)
		}
		all[i] = Usage{Name: p.Name, cpu: cpu, ResidentMB: round(float64(pages*int64(os.Getpagesize())) / 1e6)}
	}
	return all, nil
}

// cpuOf is the user and system time that a process has used.
func cpuOf(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold spaces; utime and stime are fields 14 and 15.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	var ticks int64
	for _, i := range []int{11, 12} {
		n, err := strconv.ParseInt(string(fields[i]), 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / clockTicks, nil
}

func ownCPU() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
