package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hansa-ledger/hansa/contract"
	"github.com/hansa-ledger/hansa/internal/admin"
	"github.com/hansa-ledger/hansa/internal/bench"
	"github.com/hansa-ledger/hansa/internal/provision"
)

func newBench() *cobra.Command {
	var dir, member, contractName string
	var asJSON bool
	var workloads []string
	var concurrencies []int
	var config bench.Config
	c := &cobra.Command{
		Use:     "bench",
		Short:   "Measure a network: throughput, latency, CPU per transaction, memory",
		GroupID: "use",
		Args:    cobra.NoArgs,
		Long: `Put a load on the network and report what it bears and what that costs. The contract of the benchmark comes with hansa and
is put on the channel when it is missing; any contract with the functions CreateAsset, TransferAsset, ReadAsset and
AssetExists can stand in for it.`,
		Example: `  hansa bench --data my-network
  hansa bench --workload create,transfer,read --concurrency 1,16,64,256 --duration 30s --json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := provision.Load(dir)
			if err != nil {
				return err
			}
			_, ch, closeClient, err := openChannel(dir, member, "User1")
			if err != nil {
				return err
			}
			defer closeClient()
			committed, err := admin.Committed(cmd.Context(), ch)
			if err != nil {
				return err
			}
			has := func(name string) bool {
				for _, d := range committed {
					if d.Name == name {
						return true
					}
				}
				return false
			}
			switch {
			case contractName == "" && has("bench"):
				contractName = "bench"
			case contractName == "":
				contractName = "bench"
				if err := deployBench(cmd, n); err != nil {
					return err
				}
			case !has(contractName):
				return fmt.Errorf("--contract %s: the channel has no such contract; `hansa contract list` shows those it has", contractName)
			}
			config.Contract = ch.Contract(contractName)
			if config.Processes, err = watched(cmd, dir); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			var table *tabwriter.Writer
			var rejections []string // after the table: among its lines they would end the columns
			defer func() {
				if table != nil {
					table.Flush()
				}
				for _, line := range rejections {
					fmt.Fprintln(out, line)
				}
			}()
			for _, workload := range workloads {
				for _, concurrency := range concurrencies {
					config.Workload, config.Concurrency = workload, concurrency
					config.Progress = progress(cmd.ErrOrStderr(), workload, concurrency, config.Duration)
					report, err := bench.Run(cmd.Context(), config)
					if err != nil {
						return err
					}
					if asJSON {
						if err := json.NewEncoder(out).Encode(report); err != nil {
							return err
						}
						continue
					}
					if table == nil {
						table = newReportTable(out, report)
					}
					writeReport(table, report)
					for _, why := range slices.Sorted(maps.Keys(report.Rejected)) {
						rejections = append(rejections, fmt.Sprintf("%s, %d in flight: %d × %s", workload, concurrency, report.Rejected[why], why))
					}
				}
			}
			return nil
		},
	}
	c.AddCommand(newBenchContract())
	dataFlag(c, &dir)
	memberFlag(c, &member)
	f := c.Flags()
	f.StringSliceVar(&workloads, "workload", []string{bench.Create, bench.Transfer, bench.Read}, "`workloads`: create, transfer and read, one run each")
	f.IntSliceVar(&concurrencies, "concurrency", []int{1, 16, 64}, "calls in flight, one run each")
	f.DurationVar(&config.Duration, "duration", 10*time.Second, "how long each run lasts")
	f.IntVar(&config.Keys, "keys", 10_000, "keys that transfer and read choose from")
	f.IntVar(&config.ValueBytes, "size", 256, "bytes of a value")
	f.StringVar(&contractName, "contract", "", "a `contract` to call instead of the benchmark's own")
	f.BoolVar(&asJSON, "json", false, "print one JSON object a run")
	return c
}

// deployBench puts the benchmark's contract on the channel, served by this
// binary.
func deployBench(cmd *cobra.Command, n *provision.Network) error {
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	return n.Deploy(cmd.Context(), provision.Deployment{Name: "bench", Command: []string{binary, "bench", "contract"}}, func(string) {})
}

// newBenchContract is the process of the benchmark's contract.
func newBenchContract() *cobra.Command {
	return &cobra.Command{
		Use:    "contract",
		Short:  "Serve the contract of the benchmark",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return contract.Run(cmd.Context(), bench.NewContract())
		},
	}
}

// watched are the processes that take part in transactions.
func watched(cmd *cobra.Command, dir string) ([]bench.Process, error) {
	control, err := provision.NewControl(dir)
	if err != nil {
		return nil, err
	}
	all, err := control.Status(cmd.Context())
	if err != nil {
		return nil, err
	}
	var processes []bench.Process
	for _, p := range all {
		if p.Role != "ca" && p.PID != 0 {
			processes = append(processes, bench.Process{Name: p.Name, PID: p.PID})
		}
	}
	return processes, nil
}

// progress shows a line that is written over on a terminal, and nothing elsewhere.
func progress(out io.Writer, workload string, concurrency int, total time.Duration) func(int64, time.Duration) {
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return nil
	}
	return func(done int64, elapsed time.Duration) {
		const width = 30
		full := min(width, int(width*elapsed/total))
		fmt.Fprintf(out, "\r%s, %d in flight [%s%s] %d, %.0f/s \x1b[K", workload, concurrency,
			strings.Repeat("=", full), strings.Repeat(" ", width-full), done, float64(done)/elapsed.Seconds())
		if full == width {
			fmt.Fprint(out, "\r\x1b[K")
		}
	}
}

func newReportTable(out io.Writer, r *bench.Report) *tabwriter.Writer {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "workload\tin flight\ttx/s\tp50 ms\tp99 ms\trejected\tCPU ms/tx\t")
	for _, p := range r.Processes {
		fmt.Fprintf(table, "%s\tMB\t", p.Name)
	}
	fmt.Fprintln(table, "client\t")
	return table
}

func writeReport(table *tabwriter.Writer, r *bench.Report) {
	var rejected int64
	for n := range maps.Values(r.Rejected) {
		rejected += n
	}
	fmt.Fprintf(table, "%s\t%d\t%.0f\t%.1f\t%.1f\t%d\t%.2f\t", r.Workload, r.Concurrency, r.TxPerSecond, r.P50, r.P99, rejected, r.CPUPerTx)
	for _, p := range r.Processes {
		fmt.Fprintf(table, "%.2f\t%.0f\t", p.CPUPerTx, p.ResidentMB)
	}
	fmt.Fprintf(table, "%.2f\t\n", r.ClientCPU)
}
