package process_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/provision/process"
)

// The processes under supervision are this test binary itself: with an address
// in the environment it serves there instead of testing.
const addressVariable = "HANSA_PROCESS_TEST_ADDRESS"

func TestMain(m *testing.M) {
	if address := os.Getenv(addressVariable); address != "" {
		if strings.HasSuffix(os.Args[len(os.Args)-1], "broken") {
			fmt.Println("cannot read configuration: no such file")
			os.Exit(3)
		}
		fmt.Println("serving", address)
		err := http.ListenAndServe(address, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func spec(t *testing.T, name, role string) process.Spec {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	dir := filepath.Join(t.TempDir(), name)
	return process.Spec{Name: name, Role: role, Command: []string{binary, dir}, Dir: dir, Env: []string{addressVariable + "=" + address},
		Address: address, Ready: "http://" + address + "/readyz"}
}

func supervise(t *testing.T) *process.Supervisor {
	t.Helper()
	s := process.NewSupervisor(slog.New(slog.DiscardHandler))
	t.Cleanup(s.Stop)
	return s
}

// wait polls for a condition of the processes.
func wait(t *testing.T, s *process.Supervisor, what string, condition func(map[string]process.Status) bool) map[string]process.Status {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		all := map[string]process.Status{}
		for _, st := range s.Status(t.Context()) {
			all[st.Name] = st
		}
		if condition(all) {
			return all
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited too long until %s: %+v", what, all)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func start(t *testing.T, s *process.Supervisor, specs ...process.Spec) {
	t.Helper()
	if err := s.Reconcile(specs); err != nil {
		t.Fatal(err)
	}
	if err := s.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func gone(pid int) bool { return syscall.Kill(pid, 0) != nil }

func TestRestartsWhatDies(t *testing.T) {
	s := supervise(t)
	start(t, s, spec(t, "peer0", "peer"))
	before := s.Status(t.Context())[0]
	if !before.Ready || before.PID == 0 || before.Restarts != 0 {
		t.Fatalf("%+v", before)
	}
	if err := syscall.Kill(before.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	after := wait(t, s, "it serves again", func(all map[string]process.Status) bool { return all["peer0"].Ready && all["peer0"].PID != before.PID })["peer0"]
	if after.Restarts != 1 || !strings.Contains(after.LastExit, "killed") || !strings.Contains(after.LastExit, "serving") {
		t.Errorf("%+v: want one restart, and how it ended with its last line", after)
	}
}

func TestReconcile(t *testing.T) {
	s := supervise(t)
	stays, changes, goes := spec(t, "stays", "peer"), spec(t, "changes", "peer"), spec(t, "goes", "contract")
	start(t, s, stays, changes, goes)
	before := wait(t, s, "all serve", func(all map[string]process.Status) bool { return len(all) == 3 })
	changed := changes
	changed.Env = append(slices.Clone(changes.Env), "MORE=1")
	added := spec(t, "added", "orderer")
	start(t, s, stays, changed, added)
	after := wait(t, s, "the new set serves", func(all map[string]process.Status) bool { return len(all) == 3 && all["added"].Ready })
	if after["stays"].PID != before["stays"].PID {
		t.Error("a process that is as wanted was restarted")
	}
	if after["changes"].PID == before["changes"].PID || !gone(before["changes"].PID) {
		t.Error("a process with other settings was not replaced")
	}
	if _, ok := after["goes"]; ok || !gone(before["goes"].PID) {
		t.Error("a process that is not wanted runs on")
	}
	s.Stop()
	for name, st := range after {
		if !gone(st.PID) {
			t.Errorf("%s runs on after Stop", name)
		}
	}
	if left := s.Status(t.Context()); len(left) != 0 {
		t.Errorf("after Stop there are %+v", left)
	}
}

func TestWhatCannotStartSaysWhy(t *testing.T) {
	s := supervise(t)
	broken := spec(t, "broken", "peer")
	if err := s.Reconcile([]process.Spec{broken}); err != nil {
		t.Fatal(err)
	}
	err := s.WaitReady(t.Context())
	if err == nil || !strings.Contains(err.Error(), "broken does not start") || !strings.Contains(err.Error(), "cannot read configuration") || !strings.Contains(err.Error(), broken.Log()) {
		t.Errorf("%v: want its name, what it wrote last and its log", err)
	}
	missing := spec(t, "missing", "peer")
	missing.Command = []string{filepath.Join(t.TempDir(), "nothing")}
	if err := s.Reconcile([]process.Spec{missing}); err == nil || !strings.Contains(err.Error(), "start missing") {
		t.Errorf("a command that is not there: %v", err)
	}
	deaf := spec(t, "deaf", "peer")
	deaf.Ready = "tcp://" + freeAddress(t)
	if err := s.Reconcile([]process.Spec{deaf}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "deaf is not ready") {
		t.Errorf("a process that never serves: %v", err)
	}
}

// A supervisor that was killed leaves processes behind; the next one stops
// those, and nothing else.
func TestStopStale(t *testing.T) {
	left, other := spec(t, "left", "peer"), spec(t, "other", "peer")
	pids := map[string]int{}
	for _, p := range []process.Spec{left, other} {
		c := exec.Command(p.Command[0], p.Command[1:]...)
		c.Env = append(os.Environ(), p.Env...)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- c.Wait() }()
		t.Cleanup(func() { c.Process.Kill(); <-ended })
		pids[p.Name] = c.Process.Pid
	}
	// Its command line is another until exec.
	deadline := time.Now().Add(10 * time.Second)
	for name := range pids {
		p := map[string]process.Spec{"left": left, "other": other}[name]
		for {
			conn, err := net.Dial("tcp", p.Address)
			if err == nil {
				conn.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	process.StopStale([]process.Spec{left})
	if !gone(pids["left"]) {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pids["left"]))
		if !strings.Contains(string(raw), ") Z ") && len(raw) > 0 {
			t.Error("the stale process runs on")
		}
	}
	if gone(pids["other"]) {
		t.Error("a process that is not the network's was stopped")
	}
}

func TestCheckPorts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = process.CheckPorts(freeAddress(t), l.Addr().String())
	if !errors.Is(err, process.ErrPortInUse) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("%v, want the port that is in use", err)
	}
	if err := process.CheckPorts(freeAddress(t)); err != nil {
		t.Error(err)
	}
}
