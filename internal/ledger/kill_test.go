package ledger_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	pipeline "github.com/hansa-ledger/hansa/internal/commit"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/ledger"
)

var long = flag.Bool("long", false, "kill the peer behind every block")

// peerVariable makes the test binary a program that commits the golden ledger into the folder that it names.
const peerVariable = "HANSA_TEST_PEER"

// stopVariable names the block behind which that program waits for its end.
const stopVariable = "HANSA_TEST_STOP"

func TestMain(m *testing.M) {
	if dir := os.Getenv(peerVariable); dir != "" {
		if err := followGolden(dir); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// followGolden is Alpha's peer without a network: it takes the golden blocks as they were ordered through the commit pipeline, from where its
// ledger ends, with private data from the transient store, and prints the number of each block once it is committed.
func followGolden(dir string) error {
	last := uint64(math.MaxUint64)
	if n, err := strconv.ParseUint(os.Getenv(stopVariable), 10, 64); err == nil {
		last = n
	}
	blocks, err := goldenBlocks()
	if err != nil {
		return err
	}
	cert, err := filepath.Glob(filepath.Join(vectors, "crypto-config/peerOrganizations/alpha*/peers/peer0.*/msp/signcerts/*.pem"))
	if err != nil || len(cert) != 1 {
		return fmt.Errorf("certificates of Alpha's peer: %q %w", cert, err)
	}
	pem, err := os.ReadFile(cert[0])
	if err != nil {
		return err
	}
	l, err := ledger.Open(ledger.Config{Dir: dir, ChannelID: "devledger", MemTableBytes: 128 << 10, SegmentBytes: 200 << 10})
	if err != nil {
		return err
	}
	c, err := pipeline.New(pipeline.Config{ChannelID: "devledger", Ledger: l, Genesis: blocks[0].Block, Verifier: identity.NewVerifier(identity.Config{}), Self: identity.Serialize("AlphaMSP", pem)})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	for n := c.Next(); n < uint64(len(blocks)); n++ {
		private, _, err := goldenPrivate("Alpha", n)
		if err != nil {
			return err
		}
		for _, p := range private {
			if err := l.Transient().Put(blocks[n].Txs[p.Tx].ID(), n, p.Set); err != nil {
				return err
			}
		}
		ordered := proto.CloneOf(blocks[n].Block)
		block.SetSlot(ordered, block.SlotFilter, []byte{})
		block.SetSlot(ordered, block.SlotCommitHash, []byte{})
		err = c.Submit(ctx, ordered)
		if err == nil {
			err = c.Wait(ctx, n+1)
		}
		if err != nil {
			return err
		}
		fmt.Println(n)
		if n >= last {
			select {} // to be killed here, between two blocks
		}
	}
	stop()
	return errors.Join(<-ended, l.Close())
}

// TestKilled kills a peer that commits the golden ledger with SIGKILL, again and again: behind blocks and, after a random moment, within
// the commit of the next. In the end codes, state, history, private data, indexes and commit hashes are those of the golden ledger.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	all := golden(t)
	next, kills := uint64(1), 0
	for next < uint64(len(all)) {
		at := next
		if !*long {
			at += rng.Uint64N(20)
		}
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), peerVariable+"="+dir)
		within := !*long && rng.IntN(2) == 0 // the commit of the block behind
		if !within {
			c.Env = append(c.Env, stopVariable+"="+strconv.FormatUint(at, 10))
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
		acknowledged, doomed := next, false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var n uint64
			if _, err := fmt.Sscan(lines.Text(), &n); err != nil {
				t.Fatal(err)
			}
			if acknowledged = n + 1; n >= at && !doomed {
				doomed = true
				delay := time.Duration(0)
				if within {
					delay = time.Duration(rng.IntN(3000)) * time.Microsecond
				}
				timer := time.AfterFunc(delay, func() { c.Process.Signal(syscall.SIGKILL) })
				defer timer.Stop()
			}
		}
		if err := c.Wait(); err != nil && c.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("seed %d: %v: %s", seed, err, stderr.String())
		} else if err != nil {
			kills++
		}
		next = acknowledged
	}
	l := open(t, ledger.Config{Dir: dir, ChannelID: "devledger"})
	compareWithGolden(t, l, "Alpha")
	checkIndexes(t, l)
	for _, b := range all {
		got, err := l.Block(b.Header.Number)
		if err != nil || !bytes.Equal(block.Filter(got), block.Filter(b.Block)) || !bytes.Equal(block.CommitHash(got), block.CommitHash(b.Block)) {
			t.Errorf("block %d: codes %v, commit hash %x, %v", b.Header.Number, block.Filter(got), block.CommitHash(got), err)
		}
		private, err := l.PrivateData(b.Header.Number)
		want, _ := privateOf(t, "Alpha", b.Header.Number)
		if err != nil || len(private) != len(want) {
			t.Errorf("block %d: private data of %d transactions, want %d; %v", b.Header.Number, len(private), len(want), err)
		}
	}
	sameFolder(t, export(t, l), filepath.Join(vectors, "snapshot-Alpha"))
	t.Logf("killed %d times", kills)
}
