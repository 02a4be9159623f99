// Package crash_test kills the processes of a Hansa network under load and checks what must hold afterwards: every transaction that a
// client was told is committed is there, once; all peers have the same blocks, the same commit hashes and the same state; and the
// network goes on by itself.
//
// By default some random rounds; with -long many, for which go test needs -timeout 1h. -seed repeats a run's choices.
package crash_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

var (
	long = flag.Bool("long", false, "run many rounds")
	seed = flag.Uint64("seed", 0, "seed of the random choices; 0 takes a new one")
)

func TestMain(m *testing.M) { network.Main(m) }

func random(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", s)
	return rand.New(rand.NewPCG(s, 0))
}

func rounds(few, many int) int {
	if *long {
		return many
	}
	return few
}

// Any one process is killed at a random moment; the supervisor starts it again.
func TestKillOneProcess(t *testing.T) {
	n := network.Start(t)
	// Each kind once, then whatever comes.
	killOneByOne(t, n, rounds(5, 100), "orderer0", "peer0.org1", "peer0.org2", "contract-asset-1")
}

// Of three orderers one is killed, often the leader.
func TestKillOneOfThreeOrderers(t *testing.T) {
	n := network.Start(t, "--orderers", "3")
	killOneByOne(t, n, rounds(3, 60), "orderer0", "orderer1", "orderer2")
}

// killOneByOne kills the named processes first, and then any.
func killOneByOne(t *testing.T, n *network.Network, rounds int, first ...string) {
	n.Deploy("asset", "asset")
	r := random(t)
	load := start(t, n)
	names := slices.Sorted(maps.Keys(n.Status()))
	for round := range rounds {
		name := names[r.IntN(len(names))]
		if round < len(first) {
			name = first[round]
		}
		load.await(20)
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
		before := n.Status()[name].Restarts
		t.Logf("round %d: kill %s after %d transactions", round, name, load.count())
		n.Kill(name)
		n.Await("the restart of "+name, func() error {
			if p := n.Status()[name]; !p.Ready || p.Restarts == before {
				return fmt.Errorf("%+v", p)
			}
			return nil
		})
		load.await(20) // it goes on by itself
		load.pause(func() { check(t, n, load) })
	}
	load.stop()
	verify(t, n)
}

// Every process is killed at once, as in a power cut; then the network starts again.
func TestKillAll(t *testing.T) {
	n := network.Start(t)
	n.Deploy("asset", "asset")
	r := random(t)
	load := start(t, n)
	for round := range rounds(2, 50) {
		load.await(20)
		time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
		t.Logf("round %d: kill all after %d transactions", round, load.count())
		n.KillAll()
		n.Up()
		n.AwaitReady()
		load.await(20)
		load.pause(func() { check(t, n, load) })
	}
	load.stop()
	verify(t, n)
}

// verify stops the network and has every peer's ledger checked by the verifier that ships with Hansa.
func verify(t *testing.T, n *network.Network) {
	t.Helper()
	plan := n.Plan()
	if len(n.Processes()) > 0 {
		n.Down()
	}
	for _, m := range plan.Members {
		for _, p := range m.Peers {
			dir := filepath.Join(n.Dir, "nodes", p.Name+"."+m.Name, "data", "channels", plan.Channel)
			stdout, stderr, err := n.Run("ledger", "verify", dir)
			if err != nil {
				t.Errorf("verify the ledger of %s: %v\n%s", m.Name, err, stderr)
				continue
			}
			t.Logf("%s: %s", m.Name, strings.TrimSpace(stdout))
		}
	}
}

// `hansa up` is killed alone: its nodes go on serving, and the next one takes the network over.
func TestKillSupervisor(t *testing.T) {
	n := network.Start(t)
	n.Deploy("asset", "asset")
	r := random(t)
	load := start(t, n)
	for round := range rounds(1, 20) {
		load.await(20)
		time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
		t.Logf("round %d: kill hansa up after %d transactions", round, load.count())
		takeOver(t, n, func() { load.await(20) }) // nobody needs it for this
		load.await(20)
		load.pause(func() { check(t, n, load) })
	}
	load.stop()
	n.KillSupervisor()
	n.Down() // it finds nodes without their supervisor too
	if left := n.Processes(); len(left) > 0 {
		t.Errorf("hansa down has left %v", left)
	}
	verify(t, n)
}

// takeOver kills `hansa up` alone, does what shall be possible without it, and starts another.
func takeOver(t *testing.T, n *network.Network, meanwhile ...func()) {
	t.Helper()
	before := n.Processes()
	n.KillSupervisor()
	for _, f := range meanwhile {
		f()
	}
	n.Up()
	for pid, command := range n.Processes() {
		if before[pid] != "" {
			t.Errorf("process %d runs on without its supervisor: %s", pid, command)
		}
	}
	n.AwaitReady()
}

// load creates assets through both members' peers and keeps those that the network said are committed.
type load struct {
	t       *testing.T
	cancel  context.CancelFunc
	workers sync.WaitGroup
	gate    sync.RWMutex // read-locked by a worker while it has a transaction in flight

	total        atomic.Int64
	mu           sync.Mutex
	acknowledged map[string]string // asset to transaction, guarded by mu
	seconds      []string          // acknowledged second creations of one asset: there must be none; guarded by mu
}

// workersEach is how many transactions are in flight through each member's peer.
const workersEach = 4

func start(t *testing.T, n *network.Network) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, cancel: cancel, acknowledged: map[string]string{}}
	plan := n.Plan()
	for _, m := range plan.Members {
		c, err := plan.Client(m, "User1")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		for worker := range workersEach {
			l.workers.Go(func() { l.work(ctx, c.Channel(plan.Channel), fmt.Sprintf("%s-%d", m.Name, worker)) })
		}
	}
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.cancel()
	l.workers.Wait()
}

// work creates one asset after another. A creation whose fate is unknown is tried again, so that a transaction which was lost only
// to its client shows up as "already exists" and is not counted twice.
func (l *load) work(ctx context.Context, ch *client.Channel, name string) {
	for i := 0; ctx.Err() == nil; {
		id := name + "-" + strconv.Itoa(i)
		l.gate.RLock()
		txID, err := create(ctx, ch, id)
		l.gate.RUnlock()
		switch {
		case err == nil:
			l.mu.Lock()
			if earlier := l.acknowledged[id]; earlier != "" {
				l.seconds = append(l.seconds, id)
			}
			l.acknowledged[id] = txID
			l.mu.Unlock()
			l.total.Add(1)
			i++
		case strings.Contains(err.Error(), "already exists"):
			i++
		case ctx.Err() == nil:
			select { // the network is away for a moment
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

func create(ctx context.Context, ch *client.Channel, id string) (txID string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	commit, err := ch.Contract("asset").SubmitAsync(ctx, client.Strings("CreateAsset", id, "red", "5", "Tom", "100"))
	if err != nil {
		return "", err
	}
	status, err := commit.Status(ctx)
	if err != nil {
		return "", err
	}
	return commit.TxID(), status.Err()
}

func (l *load) count() int64 { return l.total.Load() }

// await waits until so many more transactions are acknowledged.
func (l *load) await(more int64) {
	l.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for want := l.count() + more; l.count() < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("%d of %d transactions went through within 30 s", l.count()+more-want, more)
		}
	}
}

// pause runs f while no transaction is in flight.
func (l *load) pause(f func()) {
	l.gate.Lock()
	defer l.gate.Unlock()
	f()
}

// check compares the peers with each other and with what the clients were told.
func check(t *testing.T, n *network.Network, l *load) {
	t.Helper()
	plan := n.Plan()
	var chains []*chain
	n.Await("equal heights", func() error {
		chains = nil
		for _, m := range plan.Members {
			c, err := plan.Client(m, "User1")
			if err != nil {
				return err
			}
			defer c.Close()
			read, err := readChain(t.Context(), c.Channel(plan.Channel))
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			chains = append(chains, read)
		}
		for _, other := range chains[1:] {
			if other.info.Height != chains[0].info.Height {
				return fmt.Errorf("heights %d and %d", chains[0].info.Height, other.info.Height)
			}
		}
		return nil
	})
	first := chains[0]
	for i, other := range chains[1:] {
		if !bytes.Equal(first.info.CurrentBlockHash, other.info.CurrentBlockHash) {
			t.Errorf("block hashes of %s differ at height %d: %x and %x", plan.Members[i+1].Name, first.info.Height, first.info.CurrentBlockHash, other.info.CurrentBlockHash)
		}
		if !bytes.Equal(first.commitHash, other.commitHash) {
			t.Errorf("commit hashes of %s differ at height %d: %x and %x", plan.Members[i+1].Name, first.info.Height, first.commitHash, other.commitHash)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.seconds) > 0 {
		t.Errorf("created twice: %v", l.seconds)
	}
	for i, c := range chains {
		lost := 0
		for asset, txID := range l.acknowledged {
			if c.assets[asset] != 1 || c.valid[txID] != 1 {
				lost++
				t.Errorf("%s: asset %s stands %d times in the state, its acknowledged transaction %s %d times in the ledger",
					plan.Members[i].Name, asset, c.assets[asset], txID, c.valid[txID])
			}
			if lost == 10 {
				t.Fatal("and more")
			}
		}
	}
}

// chain is what one peer has.
type chain struct {
	info       *commonpb.BlockchainInfo
	commitHash []byte
	valid      map[string]int // transactions that the blocks hold as valid
	assets     map[string]int // in the state
}

// readChain reads a whole channel from one peer, as any client can: through qscc and the contract.
func readChain(ctx context.Context, ch *client.Channel) (*chain, error) {
	c := &chain{info: &commonpb.BlockchainInfo{}, valid: map[string]int{}, assets: map[string]int{}}
	if err := query(ctx, ch, c.info, "GetChainInfo"); err != nil {
		return nil, err
	}
	previous := []byte(nil)
	for number := range c.info.Height {
		b := &commonpb.Block{}
		if err := query(ctx, ch, b, "GetBlockByNumber", strconv.FormatUint(number, 10)); err != nil {
			return nil, err
		}
		if number > 0 && !bytes.Equal(b.Header.PreviousHash, previous) {
			return nil, fmt.Errorf("block %d does not follow block %d", number, number-1)
		}
		previous = block.HeaderHash(b.Header)
		c.commitHash = block.CommitHash(b)
		filter := block.Filter(b)
		for i, tx := range block.Parse(b).Txs {
			if filter[i] == byte(peerpb.TxValidationCode_VALID) {
				c.valid[tx.ID()]++
			}
		}
	}
	if !bytes.Equal(previous, c.info.CurrentBlockHash) {
		return nil, errors.New("the newest block has another hash than the chain's information says")
	}
	raw, err := ch.Contract("asset").Evaluate(ctx, client.Strings("GetAllAssets"))
	if err != nil {
		return nil, err
	}
	var assets []struct{ ID string }
	if err := json.Unmarshal(raw, &assets); err != nil {
		return nil, err
	}
	for _, a := range assets {
		c.assets[a.ID]++
	}
	return c, nil
}

func query(ctx context.Context, ch *client.Channel, into proto.Message, function string, args ...string) error {
	raw, err := ch.Contract("qscc").Evaluate(ctx, client.Strings(function, append([]string{ch.ID()}, args...)...))
	if err != nil {
		return err
	}
	return proto.Unmarshal(raw, into)
}
