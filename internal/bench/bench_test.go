package bench_test

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/contract/contracttest"
	"github.com/hansa-ledger/hansa/internal/bench"
)

// latencies are 1 ms, 2 ms, ... n ms, from the last to the first.
func latencies(n int) (all []time.Duration) {
	for i := n; i > 0; i-- {
		all = append(all, time.Duration(i)*time.Millisecond)
	}
	return all
}

func TestReport(t *testing.T) {
	c := bench.Config{Workload: bench.Create, Concurrency: 8, ValueBytes: 256, Processes: []bench.Process{{Name: "peer0.org1"}, {Name: "orderer0"}}}
	r := bench.Ran{
		Latencies: latencies(200), Rejected: map[string]int64{"MVCC_READ_CONFLICT": 3}, Blocks: map[uint64]bool{4: true, 5: true},
		Elapsed: 2500 * time.Millisecond, ClientCPU: 100 * time.Millisecond,
		Before: []time.Duration{time.Second, 2 * time.Second}, After: []time.Duration{1300 * time.Millisecond, 2050 * time.Millisecond},
	}.Report(c)
	want := &bench.Report{
		Workload: "create", Concurrency: 8, ValueBytes: 256, Committed: 200, Rejected: map[string]int64{"MVCC_READ_CONFLICT": 3},
		Seconds: 2.5, TxPerSecond: 80, P50: 100, P95: 190, P99: 198, Max: 200, Blocks: 2,
		CPUPerTx: 1.75, ClientCPU: 0.5,
		Processes: []bench.Usage{{Name: "peer0.org1", CPUPerTx: 1.5}, {Name: "orderer0", CPUPerTx: 0.25}},
	}
	// The processes' own counters are not exported.
	got, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	expected, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(expected) {
		t.Errorf("got  %s\nwant %s", got, expected)
	}
}

// Percentiles are by nearest rank: the smallest value that so many per cent do not exceed.
func TestPercentiles(t *testing.T) {
	for n, want := range map[int][4]float64{1: {1, 1, 1, 1}, 2: {1, 2, 2, 2}, 3: {2, 3, 3, 3}, 100: {50, 95, 99, 100}, 101: {51, 96, 100, 101}} {
		r := bench.Ran{Latencies: latencies(n), Elapsed: time.Second}.Report(bench.Config{Workload: bench.Read})
		if got := [4]float64{r.P50, r.P95, r.P99, r.Max}; got != want {
			t.Errorf("of %d: %v, want %v", n, got, want)
		}
	}
}

// Where nothing was committed nothing is divided by it: the report is still JSON.
func TestReportOfNothing(t *testing.T) {
	r := bench.Ran{Elapsed: time.Second, ClientCPU: time.Second, Before: []time.Duration{0}, After: []time.Duration{time.Second}}.Report(
		bench.Config{Workload: bench.Transfer, Processes: []bench.Process{{Name: "peer"}}})
	if _, err := json.Marshal(r); err != nil || r.CPUPerTx != 0 || r.P50 != 0 || math.IsNaN(r.TxPerSecond) {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestUsageOfAProcess(t *testing.T) {
	self := []bench.Process{{Name: "self", PID: os.Getpid()}}
	before, _, err := bench.Usages(self)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		for i, end := 0, time.Now().Add(20*time.Millisecond); time.Now().Before(end); i++ {
			_ = i * i
		}
		after, memory, err := bench.Usages(self)
		if err != nil {
			t.Fatal(err)
		}
		if memory[0] < 1 {
			t.Fatalf("a Go program in %.3f MB", memory[0])
		}
		if after[0] > before[0] {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("work takes no CPU time")
		}
	}
	if _, _, err := bench.Usages([]bench.Process{{Name: "gone", PID: 1 << 30}}); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("a process that is not there: %v", err)
	}
}

func TestReasons(t *testing.T) {
	for want, err := range map[string]error{
		"MVCC_READ_CONFLICT":       &client.CommitError{Status: client.Status{Code: "MVCC_READ_CONFLICT"}},
		"endorse:Aborted":          &client.Error{Step: "endorse", Code: codes.Aborted},
		"the asset already exists": errors.New("the asset already exists"),
	} {
		if got := bench.Reason(err); got != want {
			t.Errorf("%v is named %q, want %q", err, got, want)
		}
	}
}

func TestConfigsThatCannotBe(t *testing.T) {
	good := bench.Config{Workload: bench.Create, Concurrency: 1, Duration: time.Second, Keys: 1}
	for flag, change := range map[string]func(*bench.Config){
		"--workload":    func(c *bench.Config) { c.Workload = "delete" },
		"--concurrency": func(c *bench.Config) { c.Concurrency = 0 },
		"--keys":        func(c *bench.Config) { c.Keys = 0 },
		"--duration":    func(c *bench.Config) { c.Duration = 0 },
		"--size":        func(c *bench.Config) { c.ValueBytes = -1 },
	} {
		c := good
		change(&c)
		if _, err := bench.Run(t.Context(), c); err == nil || !strings.HasPrefix(err.Error(), flag) {
			t.Errorf("%v, want an error about %s", err, flag)
		}
	}
}

// The contract does what the workloads expect of it.
func TestContract(t *testing.T) {
	l := contracttest.New(t)
	l.Deploy("bench", bench.NewContract())
	user := l.Client("Org1MSP", "user", nil)
	submit := func(args ...string) string {
		t.Helper()
		result, err := user.Submit(args[0], args[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		return string(result)
	}
	submit("CreateAsset", "a", "blue", "5", "ann", "300")
	if previous := submit("TransferAsset", "a", "ben"); previous != "ann" {
		t.Errorf("the previous owner is %q", previous)
	}
	result, err := user.Evaluate("ReadAsset", "a")
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	if err := errors.Join(json.Unmarshal(result, &got),
		json.Unmarshal([]byte(`{"ID":"a","Color":"blue","Size":5,"Owner":"ben","AppraisedValue":300}`), &want)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s, %v", result, err)
	}
	if _, err := user.Submit("CreateAsset", "a", "red", "5", "ann", "300"); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("the same again: %v", err)
	}
	if _, err := user.Submit("TransferAsset", "b", "ann"); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("what is not there: %v", err)
	}
	for id, want := range map[string]string{"a": "true", "b": "false"} {
		if exists, err := user.Evaluate("AssetExists", id); err != nil || string(exists) != want {
			t.Errorf("AssetExists(%s) is %s, %v", id, exists, err)
		}
	}
}
