package node_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/node"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// stopped makes the data folder of a peer with channels of the golden ledger's first blocks.
func stopped(t *testing.T, channels ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, id := range channels {
		l := openLedger(t, dir, id)
		for n := range uint64(6) {
			raw, err := os.ReadFile(fmt.Sprintf("../../testdata/vectors/blocks/%06d.block", n))
			if err != nil {
				t.Fatal(err)
			}
			b := &commonpb.Block{}
			if err := proto.Unmarshal(raw, b); err != nil {
				t.Fatal(err)
			}
			if err := l.Commit(&ledger.Commit{Block: block.Parse(b)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func openLedger(t *testing.T, dir, id string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(ledger.Config{Dir: filepath.Join(dir, "channels", id), ChannelID: id})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func heights(t *testing.T, dir string, want map[string]uint64) {
	t.Helper()
	for id, height := range want {
		l := openLedger(t, dir, id)
		if l.Height() != height {
			t.Errorf("channel %s has height %d, want %d", id, l.Height(), height)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func offline(t *testing.T, dir string) *node.Offline {
	t.Helper()
	o, err := node.OpenOffline(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}

func fails(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

func succeeds(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func TestOffline(t *testing.T) {
	dir := stopped(t, "one", "two")
	o := offline(t, dir)
	_, err := node.OpenOffline(dir, slog.New(slog.DiscardHandler))
	fails(t, err, "as another peer node command is executing, wait for that command to complete its execution or terminate it before retrying: the data folder is in use by process")

	succeeds(t, o.Rollback("one", 3))
	heights(t, dir, map[string]uint64{"one": 4, "two": 6})
	fails(t, o.Rollback("one", 3), "target block number [3] should be less than the biggest block number [3]")
	fails(t, o.Rollback("three", 3), "ledgerID [three] does not exist")
	fails(t, o.Rollback("", 3), "ledgerID [] does not exist")
	fails(t, o.Rollback("..", 3), "ledgerID [..] does not exist")
	succeeds(t, o.RebuildDatabases())
	heights(t, dir, map[string]uint64{"one": 4, "two": 6})
	fails(t, o.UpgradeDatabases(), "the data format is already up to date. No upgrade is required")
	succeeds(t, o.Reset())
	succeeds(t, o.Reset())
	heights(t, dir, map[string]uint64{"one": 1, "two": 1})

	for range 2 {
		succeeds(t, o.Pause("one"))
	}
	for range 2 {
		succeeds(t, o.Resume("one"))
	}
	fails(t, o.Pause("three"), "cannot update ledger status, ledger [three] does not exist")
	fails(t, o.Resume("../one"), "cannot update ledger status, ledger [../one] does not exist")

	requests := filepath.Join(dir, "snapshots", "requests")
	if err := os.MkdirAll(requests, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"one", "two"} {
		if err := os.WriteFile(filepath.Join(requests, id+".json"), []byte("[9]"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	succeeds(t, o.Unjoin("one"))
	fails(t, o.Unjoin("one"), "unjoin channel [one]: cannot update ledger status, ledger [one] does not exist")
	// One that was interrupted after the channel was moved away.
	if err := os.Mkdir(filepath.Join(dir, "unjoining"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "channels", "two"), filepath.Join(dir, "unjoining", "two")); err != nil {
		t.Fatal(err)
	}
	succeeds(t, o.Unjoin("two"))
	for _, left := range []string{"channels/one", "channels/two", "unjoining", "snapshots/requests/one.json", "snapshots/requests/two.json"} {
		if _, err := os.Stat(filepath.Join(dir, left)); err == nil {
			t.Errorf("%s is left", left)
		}
	}
	succeeds(t, o.Reset()) // of nothing
}

// A channel that began with a snapshot has no genesis block to go back to.
func TestOfflineSnapshot(t *testing.T) {
	dir := stopped(t, "devledger", "other")
	l := openLedger(t, dir, "devledger")
	files := t.TempDir()
	s := l.NewSnapshot()
	if err := s.Export(t.Context(), vfs.Default, files); err != nil {
		t.Fatal(err)
	}
	s.Close()
	l.Close()
	if err := os.RemoveAll(filepath.Join(dir, "channels", "devledger")); err != nil {
		t.Fatal(err)
	}
	config := ledger.Config{Dir: filepath.Join(dir, "channels", "devledger"), ChannelID: "devledger"}
	l, err := ledger.Bootstrap(t.Context(), config, files, filepath.Join(dir, "joining"), nil)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	o := offline(t, dir)
	fails(t, o.Reset(), "cannot reset channels because the peer contains channel(s) [devledger] that were bootstrapped from snapshot")
	heights(t, dir, map[string]uint64{"devledger": 6, "other": 6})
	fails(t, o.Rollback("devledger", 4), "target block number")
	succeeds(t, o.Rollback("other", 4))
	succeeds(t, o.RebuildDatabases())
	heights(t, dir, map[string]uint64{"devledger": 6, "other": 5})
}

func TestOfflineWithoutData(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{"": "dataDir is missing", filepath.Join(t.TempDir(), "nothing"): "no such file", file: "is no folder"} {
		_, err := node.OpenOffline(dir, slog.New(slog.DiscardHandler))
		fails(t, err, want)
	}
	succeeds(t, offline(t, t.TempDir()).Reset())
}
