package commit_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/commit"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

const (
	vectors = "../../testdata/vectors"
	height  = 115
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// golden is a block as Fabric's peer stored it.
func golden(t testing.TB, number uint64) (*commonpb.Block, []byte) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, "blocks", fmt.Sprintf("%06d.block", number)))
	if err != nil {
		t.Fatal(err)
	}
	b := &commonpb.Block{}
	if err := proto.Unmarshal(raw, b); err != nil {
		t.Fatal(err)
	}
	return b, raw
}

// ordered is the same block as an orderer delivers it, without what peers add.
func ordered(t testing.TB, number uint64) *commonpb.Block {
	t.Helper()
	b, _ := golden(t, number)
	block.SetSlot(b, block.SlotFilter, []byte{})
	block.SetSlot(b, block.SlotCommitHash, []byte{})
	return b
}

// self is the certificate of Alpha's peer.
func self(t testing.TB) []byte {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(vectors, "crypto-config/peerOrganizations/alpha.dev/peers/*/msp/signcerts/*.pem"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no certificate of Alpha's peer: %v", err)
	}
	cert, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return identity.Serialize("AlphaMSP", cert)
}

// privateData is what Alpha's peer had when it committed a block, by transaction.
func privateData(t testing.TB, number uint64) map[uint64]*rwsetpb.TxPvtReadWriteSet {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, "pvtdata/Alpha", fmt.Sprintf("%06d.json", number)))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Txs map[string]struct {
			Hex string `json:"tx_pvt_read_write_set_hex"`
		} `json:"txs"`
		Missing []struct{ Eligible bool } `json:"missing_at_commit"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	sets := map[uint64]*rwsetpb.TxPvtReadWriteSet{}
	for tx, data := range file.Txs {
		n, err := strconv.ParseUint(tx, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := hex.DecodeString(data.Hex)
		if err != nil {
			t.Fatal(err)
		}
		sets[n] = &rwsetpb.TxPvtReadWriteSet{}
		if err := proto.Unmarshal(encoded, sets[n]); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range file.Missing {
		if m.Eligible {
			t.Fatalf("block %d: Alpha's peer lacked data that it should have had", number)
		}
	}
	return sets
}

// peer is a channel of the golden ledger on a real ledger.
type peer struct {
	*commit.Channel
	t      testing.TB
	dir    string
	ledger *ledger.Ledger
	end    func()
}

func openPeer(t testing.TB, dir string, change func(*commit.Config)) *peer {
	t.Helper()
	l, err := ledger.Open(ledger.Config{Dir: dir, ChannelID: "devledger"})
	if err != nil {
		t.Fatal(err)
	}
	genesis, _ := golden(t, 0)
	config := commit.Config{ChannelID: "devledger", Ledger: l, Genesis: genesis, Verifier: identity.NewVerifier(identity.Config{}), Self: self(t)}
	if change != nil {
		change(&config)
	}
	c, err := commit.New(config)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{Channel: c, t: t, dir: dir, ledger: l}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	ended := false
	p.end = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("close ledger: %v", err)
		}
	}
	t.Cleanup(p.end)
	return p
}

// endorse puts the private data of a block into the transient store, where endorsement would have put it.
func (p *peer) endorse(number uint64) {
	p.t.Helper()
	sets := privateData(p.t, number)
	b, _ := golden(p.t, number)
	for tx, set := range sets {
		if err := p.ledger.Transient().Put(block.Parse(b).Txs[tx].ID(), number, set); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *peer) submit(from, to uint64) {
	p.t.Helper()
	for n := from; n < to; n++ {
		p.endorse(n)
		if err := p.Submit(context.Background(), ordered(p.t, n)); err != nil {
			p.t.Fatalf("block %d: %v", n, err)
		}
	}
	if err := p.Wait(context.Background(), to); err != nil {
		p.t.Fatal(err)
	}
}

// The golden ledger through the whole pipeline: every block ends up byte for byte as Fabric's peer stored it.
func TestGoldenLedger(t *testing.T) {
	p := openPeer(t, t.TempDir(), nil)
	p.submit(1, height)
	for n := uint64(0); n < height; n++ {
		got, err := p.BlockBytes(n)
		if err != nil {
			t.Fatal(err)
		}
		if _, want := golden(t, n); !bytes.Equal(got, want) {
			t.Errorf("block %d differs from the one that Fabric's peer stored", n)
		}
		sets := privateData(t, n)
		stored, err := p.ledger.PrivateData(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(stored) != len(sets) {
			t.Errorf("block %d: private data of %d transactions, want %d", n, len(stored), len(sets))
		}
	}
	if missing, err := p.ledger.MissingPrivateData(10); err != nil || len(missing) != 0 {
		t.Errorf("missing private data: %v, %v", missing, err)
	}
	if held := p.ledger.Transient().Bytes(); held != 0 {
		t.Errorf("%d bytes are left in the transient store", held)
	}
}

// A peer that ends at any block goes on from there.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	from := uint64(1)
	for _, to := range []uint64{1, 2, 5, 64, 72, 73, 106, height} {
		p := openPeer(t, dir, nil)
		if got := p.Next(); got != from {
			t.Fatalf("it wants block %d, want %d", got, from)
		}
		p.submit(from, to)
		p.end()
		from = to
	}
	p := openPeer(t, dir, nil)
	b, _ := golden(t, height-1)
	if !bytes.Equal(p.ledger.LastCommitHash(), block.CommitHash(b)) {
		t.Errorf("commit hash %x, want %x", p.ledger.LastCommitHash(), block.CommitHash(b))
	}
}

// A bad block changes nothing: the good one is taken afterwards.
func TestBadBlock(t *testing.T) {
	p := openPeer(t, t.TempDir(), nil)
	p.submit(1, 3)
	bad := ordered(t, 3)
	bad.Data.Data[0], bad.Data.Data[1] = bad.Data.Data[1], bad.Data.Data[0]
	for _, b := range []*commonpb.Block{bad, ordered(t, 4), ordered(t, 2), {}, nil} {
		err := p.Submit(context.Background(), b)
		if refused := (*validate.BadBlock)(nil); !errors.As(err, &refused) {
			t.Errorf("block %d: %v, want a BadBlock", b.GetHeader().GetNumber(), err)
		}
	}
	p.submit(3, 6)
}

// Those who wait for a transaction are told once its block is durable; those who come later are told at once.
func TestStatus(t *testing.T) {
	p := openPeer(t, t.TempDir(), nil)
	const number = 16 // conflicts within a block
	want, _ := golden(t, number)
	type outcome struct {
		tx    int
		code  peerpb.TxValidationCode
		block uint64
		err   error
	}
	txs := block.Parse(want).Txs
	outcomes := make(chan outcome, len(txs))
	for i, tx := range txs {
		go func() {
			code, n, err := p.Status(context.Background(), tx.ID())
			outcomes <- outcome{i, code, n, err}
		}()
	}
	p.submit(1, number+1)
	for range txs {
		got := <-outcomes
		if got.err != nil || got.block != number || byte(got.code) != block.Filter(want)[got.tx] {
			t.Errorf("transaction %d: %v in block %d, %v", got.tx, got.code, got.block, got.err)
		}
	}
	if code, n, err := p.Status(context.Background(), txs[1].ID()); err != nil || n != number || code != peerpb.TxValidationCode_MVCC_READ_CONFLICT {
		t.Errorf("afterwards: %v in block %d, %v", code, n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := p.Status(ctx, "unknown"); !errors.Is(err, context.Canceled) {
		t.Errorf("unknown transaction: %v", err)
	}
	unknown := make(chan error, 1)
	go func() {
		_, _, err := p.Status(context.Background(), "unknown")
		unknown <- err
	}()
	p.end()
	if err := <-unknown; !errors.Is(err, commit.ErrStopped) {
		t.Errorf("at the end: %v, want ErrStopped", err)
	}
	if err := p.Wait(context.Background(), height); !errors.Is(err, commit.ErrStopped) {
		t.Errorf("wait at the end: %v", err)
	}
}

// fetcher gives private data that another peer had.
type fetcher struct {
	t     testing.TB
	spoil bool
	asked []commit.Wanted
}

func (f *fetcher) Fetch(_ context.Context, number uint64, wanted []commit.Wanted) ([][]byte, error) {
	f.asked = append(f.asked, wanted...)
	sets := privateData(f.t, number)
	raw := make([][]byte, len(wanted))
	for i, want := range wanted {
		for _, ns := range sets[want.Tx].GetNsPvtRwset() {
			for _, coll := range ns.CollectionPvtRwset {
				if ns.Namespace == want.Namespace && coll.CollectionName == want.Collection {
					raw[i] = bytes.Clone(coll.Rwset)
				}
			}
		}
		if f.spoil {
			raw[i] = append(raw[i], 0)
		}
	}
	return raw, nil
}

// Private data that was not endorsed here is fetched if this member should have it; what stays missing is noted.
func TestPrivateData(t *testing.T) {
	const to = 60
	fetch := func(change func(*commit.Config)) *peer {
		p := openPeer(t, t.TempDir(), change)
		for n := uint64(1); n < to; n++ {
			if err := p.Submit(context.Background(), ordered(t, n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Wait(context.Background(), to); err != nil {
			t.Fatal(err)
		}
		return p
	}
	eligible := func(p *peer) int {
		missing, err := p.ledger.MissingPrivateData(1000)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, m := range missing {
			if m.Eligible {
				n++
			}
		}
		return n
	}
	good := &fetcher{t: t}
	p := fetch(func(c *commit.Config) { c.Private = good })
	if len(good.asked) == 0 || eligible(p) != 0 {
		t.Errorf("asked %d times, %d are missing", len(good.asked), eligible(p))
	}
	for _, want := range good.asked {
		if want.Collection == "_implicit_org_BetaMSP" {
			t.Errorf("asked for %s, which is not Alpha's", want.Collection)
		}
	}
	bad := &fetcher{t: t, spoil: true}
	if p := fetch(func(c *commit.Config) { c.Private = bad }); eligible(p) != len(bad.asked) {
		t.Errorf("of %d wrong answers %d are missing", len(bad.asked), eligible(p))
	}
	if p := fetch(nil); eligible(p) != len(good.asked) {
		t.Errorf("without anyone to ask %d are missing, want %d", eligible(p), len(good.asked))
	}
}

// Submit waits while enough is pending.
func TestBackPressure(t *testing.T) {
	l, err := ledger.Open(ledger.Config{Dir: t.TempDir(), ChannelID: "devledger"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	genesis, _ := golden(t, 0)
	c, err := commit.New(commit.Config{ChannelID: "devledger", Ledger: l, Genesis: genesis, Verifier: identity.NewVerifier(identity.Config{}), PendingBlocks: 4, PendingBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	// Run has not begun, so nothing moves on.
	if err := c.Submit(context.Background(), ordered(t, 1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Submit(ctx, ordered(t, 2)); !errors.Is(err, context.Canceled) {
		t.Errorf("second block: %v, want to wait behind the configuration block", err)
	}
	if got := c.Next(); got != 2 {
		t.Errorf("it wants block %d, want 2", got)
	}
	ctx, cancel = context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	for n := uint64(2); n < 12; n++ { // each is larger than the bound, and taken once nothing else waits
		if err := c.Submit(context.Background(), ordered(t, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Wait(context.Background(), 12); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := c.Submit(context.Background(), ordered(t, 12)); !errors.Is(err, commit.ErrStopped) {
		t.Errorf("after the end: %v", err)
	}
}

// When a block cannot be stored the channel stops, and everyone who waits learns why.
func TestFailure(t *testing.T) {
	l, err := ledger.Open(ledger.Config{Dir: t.TempDir(), ChannelID: "devledger"})
	if err != nil {
		t.Fatal(err)
	}
	genesis, _ := golden(t, 0)
	c, err := commit.New(commit.Config{ChannelID: "devledger", Ledger: l, Genesis: genesis, Verifier: identity.NewVerifier(identity.Config{}), PendingBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	waiters := make(chan error, 2)
	go func() { waiters <- c.Wait(context.Background(), 5) }()
	if err := c.Submit(context.Background(), ordered(t, 1)); err != nil {
		t.Fatal(err)
	}
	go func() { waiters <- c.Submit(context.Background(), ordered(t, 2)) }()
	failure := c.Run(context.Background())
	if failure == nil {
		t.Fatal("Run ended well on a closed ledger")
	}
	<-c.Errored()
	for range cap(waiters) {
		if err := <-waiters; !errors.Is(err, commit.ErrStopped) || !errors.Is(err, failure) {
			t.Errorf("a waiter got %v, want ErrStopped and %v", err, failure)
		}
	}
}

// What is no genesis block of the channel does not begin it.
func TestGenesis(t *testing.T) {
	genesis, _ := golden(t, 0)
	other, _ := golden(t, 7)
	for name, config := range map[string]commit.Config{
		"none":            {ChannelID: "devledger"},
		"later block":     {ChannelID: "devledger", Genesis: other},
		"another channel": {ChannelID: "other", Genesis: genesis},
		"empty":           {ChannelID: "devledger", Genesis: &commonpb.Block{}},
	} {
		l, err := ledger.Open(ledger.Config{Dir: t.TempDir(), ChannelID: config.ChannelID})
		if err != nil {
			t.Fatal(err)
		}
		config.Ledger, config.Verifier = l, identity.NewVerifier(identity.Config{})
		if _, err := commit.New(config); err == nil {
			t.Errorf("%s: a channel began", name)
		}
		if l.Height() != 0 {
			t.Errorf("%s: height %d", name, l.Height())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
