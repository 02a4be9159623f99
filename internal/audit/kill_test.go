package audit_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/audit"
	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

var long = flag.Bool("long", false, "kill the replay behind every block")

// replayVariable makes the test binary a program that replays the golden ledger into the folder that it names.
const replayVariable = "HANSA_TEST_REPLAY"

// stopVariable begins the line behind which that program waits for its end.
const stopVariable = "HANSA_TEST_STOP"

// waits is the output of that program.
type waits struct{}

func (waits) Write(line []byte) (int, error) {
	n, err := os.Stdout.Write(line)
	if last := os.Getenv(stopVariable); last != "" && strings.HasPrefix(string(line), `{"number":`+last+`,`) {
		select {} // to be killed here: the block is committed, the next is not begun
	}
	return n, err
}

func TestMain(m *testing.M) {
	if dir := os.Getenv(replayVariable); dir != "" {
		o := audit.Options{Dir: dir, Expect: filepath.Join(vectors, "expected.json")}
		if err := audit.Replay(context.Background(), vectors, waits{}, o); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// replay runs a replay as a process of its own. It is killed when it has printed some lines: there, or a little later.
func replay(t *testing.T, dir string, killAt int, later time.Duration) (lines []string, finished bool) {
	t.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), replayVariable+"="+dir)
	if later == 0 {
		c.Env = append(c.Env, stopVariable+"="+strconv.Itoa(killAt-1))
	}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
		if len(lines) == killAt {
			timer := time.AfterFunc(later, func() { c.Process.Signal(syscall.SIGKILL) })
			defer timer.Stop()
		}
	}
	err = c.Wait()
	if status := c.ProcessState.Sys().(syscall.WaitStatus); err != nil && status.Signal() != syscall.SIGKILL {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	return lines, err == nil
}

// TestReplayKilled kills a replay of the golden ledger with SIGKILL, again and again: behind blocks and, after a random moment, within
// the commit of the next. Each goes on where the one before was stopped, and in the end all is as if none had been.
func TestReplayKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	const blocks = 115
	kills := 0
	for at := 1; at <= blocks; kills++ {
		var later time.Duration
		if !*long && rng.IntN(2) == 0 {
			later = 1 + time.Duration(rng.IntN(3000))*time.Microsecond
		}
		lines, _ := replay(t, dir, at, later)
		if len(lines) < at {
			t.Fatalf("%d lines, killed behind %d", len(lines), at)
		}
		if *long {
			at++
		} else {
			at += 1 + rng.IntN(24)
		}
	}
	lines, finished := replay(t, dir, blocks+9, 0)
	var last struct {
		Blocks       int `json:"matched_blocks"`
		Transactions int `json:"matched_transactions"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || !finished || last.Blocks != blocks || last.Transactions != 443 {
		t.Errorf("the last line is %s", lines[len(lines)-1])
	}
	var out bytes.Buffer
	if err := audit.Verify(context.Background(), dir, &out, audit.Options{TempDir: t.TempDir()}); err != nil || !strings.Contains(out.String(), `"matched_blocks":115`) {
		t.Errorf("the ledger in the end: %v %s", err, out.String())
	}
	t.Logf("killed %d times", kills)
}

// What cannot be gone on with is said.
func TestReplayDir(t *testing.T) {
	dir := t.TempDir()
	first := copyBlocks(t, 4, 99, nil)
	if err := audit.Replay(context.Background(), first, new(bytes.Buffer), audit.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	// The ledger of another channel or fork is no beginning of this one.
	lines := new(bytes.Buffer)
	if err := audit.Replay(context.Background(), copyBlocks(t, 3, 99, nil), lines, audit.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "has 4 blocks, more than the 3") {
		t.Errorf("went on with a longer ledger: %v", err)
	}
	// A block that is none of a channel's beginning makes no configuration.
	empty := t.TempDir()
	l, err := ledger.Open(ledger.Config{Dir: empty})
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(l.Commit(&ledger.Commit{Block: block.Parse(&commonpb.Block{Header: &commonpb.BlockHeader{}, Data: &commonpb.BlockData{},
		Metadata: &commonpb.BlockMetadata{Metadata: make([][]byte, 5)}}), Updates: &rwset.Updates{}}), l.Close())
	if err != nil {
		t.Fatal(err)
	}
	if err := audit.Replay(context.Background(), first, lines, audit.Options{Dir: empty}); err == nil || !strings.Contains(err.Error(), "holds no channel configuration") {
		t.Errorf("went on with a ledger without configuration: %v", err)
	}
	other := copyBlocks(t, 4, 3, func(b *commonpb.Block) { b.Header.PreviousHash[0] ^= 1 })
	if err := audit.Replay(context.Background(), other, lines, audit.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "block 3: the ledger to go on with holds another block") {
		t.Errorf("went on with the ledger of another fork: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := audit.Replay(context.Background(), first, lines, audit.Options{Dir: file}); err == nil {
		t.Error("made a ledger in a file")
	}
}
