// Package ledgeradmin works on the ledgers of stopped peers as an operator does: it takes channels back, rebuilds, pauses and leaves them,
// is killed in the middle of it, and checks that each peer ends with the ledger that it had, private data included.
package ledgeradmin

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/provision"
)

func TestMain(m *testing.M) { network.Main(m) }

// bed is a network of two members in which the first has private data of its own that nobody else could give back.
type bed struct {
	*network.Network
	t     *testing.T
	plan  *provision.Network
	names []string // of the peers
}

func start(t *testing.T) *bed {
	t.Setenv("HANSA_PEER_PRIVATEDATA_RECONCILEINTERVAL", "1s")
	t.Setenv("HANSA_PEER_PRIVATEDATA_PULLTIMEOUT", "3s")
	b := &bed{Network: network.Start(t, "--members", "2", "--orderers", "1"), t: t}
	b.plan = b.Plan()
	for _, m := range b.plan.Members {
		b.names = append(b.names, m.Peers[0].Name+"."+m.Name)
	}
	first, second := b.plan.Members[0].MSPID, b.plan.Members[1].MSPID
	collections := filepath.Join(t.TempDir(), "collections_config.json")
	raw, err := json.Marshal([]map[string]any{
		{"name": "own", "policy": fmt.Sprintf("OR('%s.member')", first)},
		{"name": "both", "policy": fmt.Sprintf("OR('%s.member', '%s.member')", first, second), "maxPeerCount": 1},
	})
	b.must(err)
	b.must(os.WriteFile(collections, raw, 0o600))
	b.Hansa("contract", "deploy", filepath.Join(network.Root(t), "e2e", "private", "vault"), "--collections", collections,
		"--policy", fmt.Sprintf("OR('%s.peer','%s.peer')", first, second))
	return b
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// contract calls the vault through a member's own peer.
func (b *bed) contract(member int, use func(context.Context, *client.Contract)) {
	b.t.Helper()
	c, err := b.plan.Client(b.plan.Members[member], "User1")
	b.must(err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	use(ctx, c.Channel(b.plan.Channel).Contract("vault"))
}

// put writes a private value, endorsed by the first member's peer alone.
func (b *bed) put(collection, key, value string) {
	b.t.Helper()
	b.contract(0, func(ctx context.Context, c *client.Contract) {
		call := client.Strings("Put", collection, key)
		call.Members = []string{b.plan.Members[0].MSPID}
		call.Transient = map[string][]byte{"value": []byte(value)}
		_, err := c.Submit(ctx, call)
		b.must(err)
	})
}

// reads waits until a member's peer gives a value.
func (b *bed) reads(member int, collection, key, want string) {
	b.t.Helper()
	b.contract(member, func(ctx context.Context, c *client.Contract) {
		b.Await(fmt.Sprintf("%s in %s at %s", key, collection, b.names[member]), func() error {
			got, err := c.Evaluate(ctx, client.Strings("Get", collection, key))
			if err != nil || string(got) != want {
				return fmt.Errorf("%q, %w", got, err)
			}
			return nil
		})
	})
}

func (b *bed) height(member int) (height uint64, channels []string) {
	b.t.Helper()
	m := b.plan.Members[member]
	p, err := b.plan.AdminPeer(m, m.Peers[0])
	b.must(err)
	defer p.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	channels, err = p.Channels(ctx)
	b.must(err)
	if len(channels) > 0 {
		info, err := p.ChainInfo(ctx, b.plan.Channel)
		b.must(err)
		height = info.Height
	}
	return height, channels
}

func (b *bed) awaitHeight(member int, want uint64) {
	b.t.Helper()
	b.Await(fmt.Sprintf("height %d at %s", want, b.names[member]), func() error {
		if height, _ := b.height(member); height < want {
			return fmt.Errorf("height %d", height)
		}
		return nil
	})
}

// ledger is a stopped peer's, as `hansa ledger verify` finds it.
type ledger struct {
	Blocks     uint64 `json:"matched_blocks"`
	Keys       int    `json:"matched_keys"`
	Private    int    `json:"matched_private_values"`
	CommitHash string `json:"commit_hash"`
}

func (b *bed) channelDir(member int) string {
	return filepath.Join(b.Dir, "nodes", b.names[member], "data", "channels", b.plan.Channel)
}

func (b *bed) verify(member int) (l ledger) {
	b.t.Helper()
	stdout, stderr, err := b.Run("ledger", "verify", b.channelDir(member))
	if err != nil {
		b.t.Fatalf("verify the ledger of %s: %v %s", b.names[member], err, stderr)
	}
	b.must(json.Unmarshal([]byte(stdout), &l))
	return l
}

// peer runs a command on a member's peer.
func (b *bed) peer(member int, args ...string) {
	b.t.Helper()
	if stdout, stderr, err := b.try(member, args...); err != nil {
		b.t.Fatalf("hansa peer %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr)
	}
}

func (b *bed) try(member int, args ...string) (stdout, stderr string, err error) {
	return b.Run(append(append([]string{"peer"}, args...), "--data", b.Dir, b.names[member])...)
}

// refuse runs a command that must fail.
func (b *bed) refuse(member int, why string, args ...string) {
	b.t.Helper()
	if _, stderr, err := b.try(member, args...); err == nil || !strings.Contains(stderr, why) {
		b.t.Errorf("hansa peer %s: %v %q, want %q", strings.Join(args, " "), err, stderr, why)
	}
}

func TestOfflineAdministration(t *testing.T) {
	b := start(t)
	for i := range 6 {
		b.put("own", "k"+strconv.Itoa(i), "secret"+strconv.Itoa(i))
		b.put("both", "k"+strconv.Itoa(i), "shared"+strconv.Itoa(i))
	}
	height, _ := b.height(0)
	b.awaitHeight(1, height)
	b.reads(1, "both", "k5", "shared5")
	t.Log("misuse while the network runs")
	for _, args := range [][]string{{"reset"}, {"rebuild-dbs"}, {"upgrade-dbs"}, {"rollback", "--channel", b.plan.Channel, "--block", "3"}, {"pause", "--channel", b.plan.Channel},
		{"resume", "--channel", b.plan.Channel}, {"unjoin", "--channel", b.plan.Channel}} {
		b.refuse(0, "as another peer node command is executing, wait for that command to complete its execution or terminate it before retrying: the data folder is in use by process", args...)
	}
	b.Down()
	was := []ledger{b.verify(0), b.verify(1)}
	if was[0].Blocks != height || was[0].Private < 12 || was[1].Private < 6 || was[0].CommitHash != was[1].CommitHash {
		t.Fatalf("ledgers %+v at height %d", was, height)
	}
	b.misuse(height)

	t.Run("rollback", func(t *testing.T) {
		b.peer(0, "rollback", "--channel", b.plan.Channel, "--block", "4")
		if got := b.verify(0); got.Blocks != 5 {
			t.Errorf("%d blocks after the rollback to block 4", got.Blocks)
		}
		b.refuse(0, "target block number [4] should be less than the biggest block number [4]", "rollback", "--channel", b.plan.Channel, "--block", "4")
		b.refusesToEndorse()
		b.Up()
		b.back(was)
	})
	t.Run("reset", func(t *testing.T) {
		b.peer(0, "reset")
		b.peer(0, "reset") // again does no harm
		if got := b.verify(0); got.Blocks != 1 || got.Private != 0 {
			t.Errorf("%+v after the reset", got)
		}
		b.peer(1, "rebuild-dbs")
		b.Up()
		b.back(was)
	})
	t.Run("killed", func(t *testing.T) {
		for i := range 12 {
			b.killed(time.Duration(i*i)*400*time.Microsecond, "rollback", "--channel", b.plan.Channel, "--block", strconv.Itoa(9-i/2))
		}
		for i := range 4 {
			b.killed(time.Duration(i*7)*time.Millisecond, "reset")
		}
		b.peer(0, "reset")
		b.Up()
		b.back(was)
	})
	t.Run("pause", func(t *testing.T) {
		b.peer(1, "pause", "--channel", b.plan.Channel)
		b.peer(1, "pause", "--channel", b.plan.Channel)
		b.Up()
		if _, channels := b.height(1); len(channels) != 0 {
			t.Errorf("the peer serves %v while its channel is paused", channels)
		}
		b.put("both", "later", "news")
		b.Down()
		b.peer(1, "resume", "--channel", b.plan.Channel)
		b.Up()
		b.reads(1, "both", "later", "news")
		height, _ := b.height(0)
		b.awaitHeight(1, height)
		b.Down()
		was = []ledger{b.verify(0), b.verify(1)}
		if was[0].CommitHash != was[1].CommitHash || was[0].Blocks != height {
			t.Errorf("ledgers %+v at height %d", was, height)
		}
	})
	t.Run("unjoin", func(t *testing.T) {
		b.peer(1, "unjoin", "--channel", b.plan.Channel)
		if _, err := os.Stat(b.channelDir(1)); err == nil {
			t.Error("the channel is still there")
		}
		b.refuse(1, "cannot update ledger status, ledger ["+b.plan.Channel+"] does not exist", "unjoin", "--channel", b.plan.Channel)
		// hansa up joins the peer again; the other peer gives the private data that both have, but nobody what was this one's alone.
		b.Up()
		for i := range 6 {
			b.reads(1, "both", "k"+strconv.Itoa(i), "shared"+strconv.Itoa(i))
		}
		b.reads(1, "both", "later", "news")
		was[1].Private = 7
		b.back(was)
	})
}

// back waits until both peers have the ledgers that they had, and stops the network.
func (b *bed) back(was []ledger) {
	b.t.Helper()
	for member := range was {
		b.awaitHeight(member, was[member].Blocks)
	}
	b.reads(0, "own", "k5", "secret5")
	b.reads(0, "own", "k0", "secret0")
	b.reads(1, "both", "k5", "shared5")
	b.reads(1, "both", "k0", "shared0")
	b.Down()
	for member, want := range was {
		if got := b.verify(member); got != want {
			b.t.Errorf("%s has %+v, had %+v", b.names[member], got, want)
		}
	}
}

func (b *bed) misuse(height uint64) {
	b.t.Helper()
	for _, one := range []struct {
		why  string
		args []string
	}{
		{"ledgerID [nosuch] does not exist", []string{"rollback", "--channel", "nosuch", "--block", "1"}},
		{"ledgerID [../../x] does not exist", []string{"rollback", "--channel", "../../x", "--block", "1"}},
		{fmt.Sprintf("target block number [%d] should be less than the biggest block number [%d]", height, height-1), []string{"rollback", "--channel", b.plan.Channel, "--block", strconv.FormatUint(height, 10)}},
		{"--block is missing", []string{"rollback", "--channel", b.plan.Channel}},
		{"--channel is missing", []string{"rollback", "--block", "1"}},
		{"--channel is missing", []string{"pause"}},
		{"invalid argument", []string{"rollback", "--channel", b.plan.Channel, "--block", "-1"}},
		{"cannot update ledger status, ledger [nosuch] does not exist", []string{"pause", "--channel", "nosuch"}},
		{"cannot update ledger status, ledger [nosuch] does not exist", []string{"resume", "--channel", "nosuch"}},
		{"unjoin channel [..]: cannot update ledger status, ledger [..] does not exist", []string{"unjoin", "--channel", ".."}},
		{"the data format is already up to date. No upgrade is required", []string{"upgrade-dbs"}},
		{"--config names a peer already", []string{"reset", "--config", "peer.yaml"}},
	} {
		b.refuse(0, one.why, one.args...)
	}
	if _, stderr, err := b.Run("peer", "reset"); err == nil || !strings.Contains(stderr, "no peer is named") {
		b.t.Errorf("a reset of no peer: %v %q", err, stderr)
	}
	if _, stderr, err := b.Run("peer", "reset", "--data", b.Dir, "peer9.org1"); err == nil || !strings.Contains(stderr, `no peer "peer9.org1"`) {
		b.t.Errorf("a reset of an unknown peer: %v %q", err, stderr)
	}
}

// killed runs a command on the first peer and kills it after a while.
func (b *bed) killed(after time.Duration, args ...string) {
	b.t.Helper()
	c := exec.Command(os.Getenv("HANSA_BINARY"), append(append([]string{"peer"}, args...), "--data", b.Dir, b.names[0])...)
	b.must(c.Start())
	timer := time.AfterFunc(after, func() { c.Process.Kill() })
	defer timer.Stop()
	if err := c.Wait(); err != nil && c.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL && c.ProcessState.ExitCode() != 1 {
		b.t.Errorf("hansa peer %s: %v", strings.Join(args, " "), err) // 1: an earlier one came through, so that there is nothing to drop
	}
}

// refusesToEndorse runs the first peer, which was rolled back, alone: without an orderer its blocks do not come back.
func (b *bed) refusesToEndorse() {
	b.t.Helper()
	c := exec.Command(os.Getenv("HANSA_BINARY"), "peer", "--config", filepath.Join(b.Dir, "nodes", b.names[0], "peer.yaml"))
	b.must(c.Start())
	defer func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
	}()
	b.contract(0, func(ctx context.Context, contract *client.Contract) {
		b.Await("the refusal", func() error {
			_, err := contract.Evaluate(ctx, client.Strings("Get", "own", "k0"))
			if err == nil || !strings.Contains(err.Error(), "endorse requests are blocked while ledgers are being rebuilt") {
				return fmt.Errorf("evaluate: %v", err)
			}
			return nil
		})
	})
	if height, _ := b.height(0); height != 5 {
		b.t.Errorf("height %d while the orderer is away", height)
	}
}
