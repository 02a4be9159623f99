// Package faults_test harms a whole network by seeded plans, under clients that write down every answer, and checks after each round that
// nothing was lost, doubled or reordered and that all nodes agree.
//
// By default a few rounds. FAULTS_ROUNDS or FAULTS_DURATION make more, FAULTS_SEED repeats a round (its number is printed with every
// failure), FAULTS_ORDERERS says how many orderers there are, FAULTS_DISTORT=1 has a binary built whose clock can jump and whose disk can be slow,
// FAULTS_KINDS names the
// only faults to do, separated by commas, FAULTS_RESULT names a file for the figures, FAULTS_KEEP a folder for logs and data of rounds that fail. `make faults` and
// `make soak` set them.
package faults_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/contract"
	"github.com/hansa-ledger/hansa/e2e/faults/distort"
	"github.com/hansa-ledger/hansa/e2e/faults/nemesis"
	"github.com/hansa-ledger/hansa/e2e/faults/netns"
	"github.com/hansa-ledger/hansa/e2e/faults/register"
	"github.com/hansa-ledger/hansa/e2e/faults/site"
)

// contractVariable makes the test program the contract's process.
const contractVariable = "HANSA_FAULTS_CONTRACT"

// notIsolated is why this machine cannot run the harness, "" if it can.
var notIsolated string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if os.Getenv(contractVariable) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := contract.Run(ctx, register.New(site.Contract)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	switch inside, status, err := netns.Isolate(); {
	case err != nil:
		notIsolated = err.Error()
	case !inside:
		return status
	}
	status := m.Run()
	if lastLine != "" {
		fmt.Println(lastLine)
	}
	return status
}

// settings of a run, from the environment.
type settings struct {
	rounds   int
	duration time.Duration // if set, as many rounds as it takes
	seed     uint64
	orderers []int // of the networks that share the rounds
	distort  bool
	result   string
	keep     string
}

func settingsOf(t *testing.T) settings {
	t.Helper()
	number := func(name string, otherwise uint64) uint64 {
		text := os.Getenv(name)
		if text == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s=%s: a number is wanted", name, text)
		}
		return n
	}
	s := settings{rounds: int(number("FAULTS_ROUNDS", 4)), seed: number("FAULTS_SEED", uint64(time.Now().UnixNano())%1e9),
		distort: os.Getenv("FAULTS_DISTORT") != "", result: os.Getenv("FAULTS_RESULT"), keep: os.Getenv("FAULTS_KEEP")}
	if n := number("FAULTS_ORDERERS", 0); n > 0 {
		s.orderers = []int{int(n)}
	} else if s.rounds < 20 {
		s.orderers = []int{3}
	} else {
		s.orderers = []int{3, 5}
	}
	if text := os.Getenv("FAULTS_DURATION"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("FAULTS_DURATION=%s: a duration such as 2h is wanted", text)
		}
		s.duration = d
	}
	return s
}

// again is how to repeat rounds.
func (s settings) again(seed uint64, rounds, orderers int) string {
	text := fmt.Sprintf("FAULTS_SEED=%d FAULTS_ROUNDS=%d FAULTS_ORDERERS=%d", seed, rounds, orderers)
	if s.distort {
		text += " FAULTS_DISTORT=1"
	}
	if kinds := os.Getenv("FAULTS_KINDS"); kinds != "" {
		text += fmt.Sprintf(" FAULTS_KINDS=%q", kinds)
	}
	return text
}

// kinds are the faults that can be done.
func (s settings) kinds() []nemesis.Kind {
	kinds := []nemesis.Kind{nemesis.Kill, nemesis.Halves, nemesis.Pause, nemesis.OneWay, nemesis.Delay, nemesis.FullDisk, nemesis.Bridge,
		nemesis.Membership, nemesis.Loss, nemesis.Certificate, nemesis.LostDisk, nemesis.KillAll, nemesis.Reorder, nemesis.Bandwidth, nemesis.Duplicate}
	if s.distort {
		kinds = append(kinds, nemesis.SlowDisk, nemesis.Clock)
	}
	if text := os.Getenv("FAULTS_KINDS"); text != "" {
		kinds = slices.DeleteFunc(kinds, func(k nemesis.Kind) bool { return !slices.Contains(strings.Split(text, ","), string(k)) })
	}
	return kinds
}

// TestFaults is the harness.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole network")
	}
	if notIsolated != "" {
		simulate(t)
		return
	}
	s := settingsOf(t)
	dir, err := os.MkdirTemp("", "hansa-faults-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary := buildHansa(t, s, dir)
	report := newReport()
	began := time.Now()
	for i, orderers := range s.orderers {
		share := s
		share.rounds = s.rounds / len(s.orderers)
		share.duration = s.duration / time.Duration(len(s.orderers))
		share.seed = s.seed + uint64(i*share.rounds)
		harm(t, share, orderers, filepath.Join(dir, strconv.Itoa(orderers)), binary, report)
		if t.Failed() {
			break
		}
	}
	report.Seconds = time.Since(began).Seconds()
	report.write(t, s.result)
}

// simulate is for machines on which the harness cannot run: raft and its owner in one process, under a seeded faulty transport.
func simulate(t *testing.T) {
	fmt.Fprintf(os.Stderr, "\n*** SKIPPED: no faults in real networks, as this machine does not let them be made: %s.\n*** The simulation of faults in one process runs instead.\n\n", notIsolated)
	command := exec.Command("go", "test", "-count=1", "-v", "-run", "Simulation", "github.com/hansa-ledger/hansa/internal/order/...")
	command.Env = append(os.Environ(), "HANSA_SIMULATIONS="+cmp.Or(os.Getenv("HANSA_SIMULATIONS"), "300"))
	output, err := command.CombinedOutput()
	t.Logf("%s", output)
	if err != nil {
		t.Fatal(err)
	}
}

// buildHansa makes the binary; HANSA_BINARY names one that is there already, but for distortion.
func buildHansa(t *testing.T, s settings, dir string) string {
	t.Helper()
	if given := os.Getenv("HANSA_BINARY"); given != "" && !s.distort {
		return given
	}
	binary := filepath.Join(dir, "hansa")
	began := time.Now()
	if s.distort {
		cache, err := distort.Cache()
		if err != nil {
			t.Fatal(err)
		}
		if err := distort.Build(t.Context(), cache, "github.com/hansa-ledger/hansa/cmd/hansa", binary); err != nil {
			t.Fatal(err)
		}
	} else {
		build := exec.Command("go", "build", "-trimpath", "-o", binary, "github.com/hansa-ledger/hansa/cmd/hansa")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if output, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build hansa: %v\n%s", err, output)
		}
	}
	t.Logf("built in %v", time.Since(began).Round(time.Second))
	return binary
}

// newSite starts a network.
func newSite(t *testing.T, dir, binary string, orderers int) *site.Site {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(mkdir(t, dir), "harness.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := site.New(ctx, site.Config{Dir: dir, Binary: binary, Orderers: orderers, Contract: []string{self}, ContractEnv: []string{contractVariable + "=1"},
		Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(ctx); err != nil {
		s.Close()
		t.Fatal(err)
	}
	return s
}

func mkdir(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
