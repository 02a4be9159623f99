// Package mainjob_test does the main job from end to end, as `make smoke` does: a
// fresh network of real processes, thousands of transactions through Hansa's Go
// client and through Fabric's own Node client, a restart, and nothing lost and
// nothing left behind.
package mainjob_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a network and runs Node")
	}
	for _, name := range []string{"node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(err)
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin, tmp := t.TempDir(), t.TempDir()
	build := exec.Command("go", "build", "-o", bin+string(os.PathSeparator), "./cmd/hansa", "./examples/mainjob", "./examples/app-go")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}

	smoke := exec.Command(filepath.Join(bin, "mainjob"), "smoke", "-root", root,
		"-hansa", filepath.Join(bin, "hansa"), "-app-go", filepath.Join(bin, "app-go"))
	smoke.Env = append(os.Environ(), "TMPDIR="+tmp)
	var out, failure bytes.Buffer
	smoke.Stdout, smoke.Stderr = &out, &failure
	if err := smoke.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, out.Bytes(), failure.Bytes())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var found struct {
		Committed    int            `json:"committed"`
		Rejected     map[string]int `json:"rejected"`
		Lost         *int           `json:"lost"`
		FirstCommitS float64        `json:"first_commit_s"`
		TxPerS       float64        `json:"tx_per_s"`
		P50Ms        float64        `json:"p50_ms"`
		P99Ms        float64        `json:"p99_ms"`
		CPUMsPerTx   float64        `json:"cpu_ms_per_tx"`
	}
	last := lines[len(lines)-1]
	if err := json.Unmarshal([]byte(last), &found); err != nil {
		t.Fatalf("the last line is no JSON object: %v\n%s", err, last)
	}
	if found.Committed < 1000 || found.Lost == nil || *found.Lost != 0 || len(found.Rejected) != 3 || found.FirstCommitS <= 0 ||
		found.TxPerS <= 0 || found.P50Ms <= 0 || found.P99Ms < found.P50Ms || found.CPUMsPerTx <= 0 {
		t.Error(last)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("it left %v behind, %v", left, err)
	}
	t.Log(last)
}
