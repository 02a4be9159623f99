package distort_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/e2e/faults/distort"
)

// A running program's clock is moved and its disk made slow, and both are well again.
func TestDistortion(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the standard library")
	}
	dir := t.TempDir()
	cache, err := distort.Cache()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "probe")
	if err := distort.Build(t.Context(), cache, "./testdata/probe", program); err != nil {
		t.Fatal(err)
	}
	page, err := distort.NewPage(filepath.Join(dir, "page"))
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	command := exec.Command(program)
	command.Env = append(os.Environ(), distort.Variable+"="+page.File)
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer command.Wait()
	defer in.Close()
	ask := func() (ahead, disk time.Duration) {
		t.Helper()
		fmt.Fprintln(in)
		var at, took int64
		if _, err := fmt.Fscan(out, &at, &took); err != nil {
			t.Fatal(err)
		}
		return time.Until(time.Unix(0, at)), time.Duration(took)
	}
	near := func(got, want time.Duration) bool { return got > want-10*time.Second && got < want+time.Second }
	if ahead, _ := ask(); !near(ahead, 0) {
		t.Errorf("without distortion the clock is %v ahead", ahead)
	}
	for _, skew := range []time.Duration{time.Hour, -time.Hour, 1500 * time.Millisecond} {
		page.Skew(skew)
		page.Disk(50 * time.Millisecond)
		if ahead, disk := ask(); !near(ahead, skew) || disk < 50*time.Millisecond {
			t.Errorf("with the clock %v ahead and a disk that takes 50 ms: %v and %v", skew, ahead, disk)
		}
	}
	page.Skew(0)
	page.Disk(0)
	if ahead, _ := ask(); !near(ahead, 0) {
		t.Errorf("the clock stays %v ahead", ahead)
	}
}
