package crash_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
)

// A peer's disk is full: it says so and stops rather than go on with half of a block; the others go on; once there is room again it
// catches up and has what they have.
func TestFullDisk(t *testing.T) {
	n := network.New(t)
	disk := filepath.Join(n.Dir, "nodes", "peer0.org2", "data")
	if err := os.MkdirAll(disk, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("FULL DISK IS NOT TESTED: mounting a small file system needs more rights: %v", err)
	}
	unmounted := false
	unmount := func() {
		if !unmounted {
			unmounted = true
			if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(unmount) // before the network's own cleanup removes the folder
	n.Up()
	n.Deploy("asset", "asset", "--policy", "OR('Org1MSP.peer','Org2MSP.peer')")
	plan := n.Plan()
	c, err := plan.Client(plan.Members[0], "User1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l := &load{t: t, acknowledged: map[string]string{}}
	put := func(id, color string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		contract := c.Channel(plan.Channel).Contract("asset")
		p, err := contract.Propose(client.Call{Function: "CreateAsset", Members: []string{"Org1MSP"},
			Args: [][]byte{[]byte(id), []byte(color), []byte("5"), []byte("Tom"), []byte("100")}})
		if err != nil {
			t.Fatal(err)
		}
		tx, err := p.Endorse(ctx)
		if err != nil {
			t.Fatal(err)
		}
		commit, err := tx.Submit(ctx)
		if err != nil {
			t.Fatal(err)
		}
		status, err := commit.Status(ctx)
		if err == nil {
			err = status.Err()
		}
		if err != nil {
			t.Fatal(err)
		}
		l.acknowledged[id] = commit.TxID()
	}
	put("before", "red")

	filler := filepath.Join(disk, "filler")
	fill(t, filler)
	large := strings.Repeat("x", 256<<10)
	log := filepath.Join(n.Dir, "nodes", "peer0.org2", "log")
	named := func() bool {
		raw, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(raw), "no space left on device")
	}
	// Some room is left in files that were made larger beforehand.
	for i := 0; !named(); i++ {
		if i == 200 {
			t.Fatal("the peer does not say that its disk is full")
		}
		put(fmt.Sprintf("full-%d", i), large)
	}
	put("meanwhile", "red")

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	n.AwaitReady()
	put("after", "red")
	check(t, n, l)
	n.Down()
	unmount()
}

// fill writes until nothing more goes in.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; size /= 2 {
		for block := make([]byte, size); ; {
			if _, err := f.Write(block); err != nil {
				break
			}
		}
	}
}
