package ledger_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// transaction makes an envelope as far as the ledger looks at it.
func transaction(t testing.TB, id string, results []byte) []byte {
	action := marshal(t, &peerpb.ChaincodeAction{Results: results})
	response := marshal(t, &peerpb.ProposalResponsePayload{Extension: action})
	payload := marshal(t, &peerpb.ChaincodeActionPayload{Action: &peerpb.ChaincodeEndorsedAction{ProposalResponsePayload: response}})
	return marshal(t, &commonpb.Envelope{Payload: marshal(t, &commonpb.Payload{
		Header: &commonpb.Header{
			ChannelHeader: marshal(t, &commonpb.ChannelHeader{
				Type: int32(commonpb.HeaderType_ENDORSER_TRANSACTION), TxId: id, ChannelId: "c", Timestamp: &timestamppb.Timestamp{Seconds: 1, Nanos: 2},
			}),
			SignatureHeader: marshal(t, &commonpb.SignatureHeader{Creator: []byte("creator"), Nonce: []byte(id)}),
		},
		Data: marshal(t, &peerpb.Transaction{Actions: []*peerpb.TransactionAction{{Payload: payload}}}),
	})})
}

// next makes the block that follows the ledger's last, of one transaction for each list of "key=value".
func next(t testing.TB, l *ledger.Ledger, txs ...[]string) *block.Parsed {
	t.Helper()
	var data [][]byte
	for i, writes := range txs {
		b := rwset.NewBuilder()
		for _, w := range writes {
			key, value, _ := strings.Cut(w, "=")
			b.AddWrite("cc", key, []byte(value))
		}
		results, _, err := b.Results()
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, transaction(t, fmt.Sprintf("tx-%d-%d", l.Height(), i), results))
	}
	info := l.Info()
	b := block.New(info.Height, info.CurrentBlockHash, data)
	block.SetFilter(b, make([]byte, len(data)))
	block.SetCommitHash(b, []byte(fmt.Sprint("hash ", info.Height)))
	return block.Parse(b)
}

func open(t testing.TB, c ledger.Config) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func commit(t testing.TB, l *ledger.Ledger, txs ...[]string) {
	t.Helper()
	if err := l.Commit(&ledger.Commit{Block: next(t, l, txs...)}); err != nil {
		t.Fatal(err)
	}
}

func get(t testing.TB, s *ledger.Snapshot, key string) string {
	t.Helper()
	v, err := s.Get("cc", key)
	if err != nil {
		t.Fatal(err)
	}
	if v == nil {
		return ""
	}
	return string(v.Value)
}

// digest is a hash over everything that a ledger would show.
func digest(t testing.TB, l *ledger.Ledger) string {
	t.Helper()
	s := l.NewSnapshot()
	defer s.Close()
	h := sha256.New()
	fmt.Fprintln(h, s.Height(), l.Info(), l.LastCommitHash())
	dump := func(it ledger.Iterator, err error) {
		if err != nil {
			t.Fatal(err)
		}
		defer it.Close()
		for {
			key, v, ok, err := it.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return
			}
			fmt.Fprintf(h, "%x %x %x %v\n", key, v.Value, v.Metadata, v.Version)
		}
	}
	for _, hashed := range []bool{false, true} {
		places, err := s.Places(hashed)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range places {
			fmt.Fprintln(h, p)
			if hashed {
				it, err := s.HashRange(p.Namespace, p.Collection)
				dump(it, err)
			} else {
				it, err := s.Range(p.Namespace, "", "")
				dump(it, err)
			}
		}
	}
	places, err := s.PrivatePlaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range places {
		fmt.Fprintln(h, p)
		it, err := s.PrivateRange(p.Namespace, p.Collection, "", "")
		dump(it, err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// goldenDigests are the digests of the golden ledger at Alpha, by height.
var goldenDigests = sync.OnceValue(func() map[uint64]string { return map[uint64]string{} })

func digests(t testing.TB) map[uint64]string {
	t.Helper()
	m := goldenDigests()
	if len(m) > 0 {
		return m
	}
	l := open(t, ledger.Config{Dir: "ledger", FS: vfs.NewMem()})
	m[0] = digest(t, l)
	for _, b := range golden(t) {
		commitGolden(t, l, b.Header.Number)
		m[l.Height()] = digest(t, l)
	}
	return m
}

func commitGolden(t testing.TB, l *ledger.Ledger, n uint64) {
	t.Helper()
	c := &ledger.Commit{Block: golden(t)[n]}
	c.Private, c.Missing = privateOf(t, "Alpha", n)
	if err := l.Commit(c); err != nil {
		t.Fatal(err)
	}
}

// TestPowerLoss stops the machine before a random operation on the disk, of which there are some thousands, and keeps a random part of
// what was not yet synced. The ledger comes back at a height that was at least acknowledged, with the state of that height.
func TestPowerLoss(t *testing.T) {
	want := digests(t)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 7))
	t.Logf("seed %d", seed)
	disk := vfs.NewCrashableMem()
	lives, height := 0, uint64(0)
	for lives < 40 && height < uint64(len(golden(t))) {
		lives++
		var acknowledged atomic.Uint64
		acknowledged.Store(height)
		var ops atomic.Int64
		var crash atomic.Pointer[vfs.MemFS]
		var atLeast uint64
		at, percent := int64(1+rng.IntN(40<<rng.IntN(5))), rng.IntN(101)
		cloneRNG := rand.New(rand.NewPCG(rng.Uint64(), 8))
		current := disk
		fs := errorfs.Wrap(current, errorfs.InjectorFunc(func(errorfs.Op) error {
			if ops.Add(1) == at {
				atLeast = acknowledged.Load()
				crash.Store(current.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: cloneRNG}))
			}
			return nil
		}))
		l, err := ledger.Open(ledger.Config{Dir: "data/ledger", FS: fs, MemTableBytes: 128 << 10, SegmentBytes: 200 << 10})
		if err != nil {
			t.Fatalf("seed %d, life %d: %v", seed, lives, err)
		}
		if got := digest(t, l); got != want[l.Height()] {
			t.Fatalf("seed %d, life %d: wrong content at height %d", seed, lives, l.Height())
		}
		for crash.Load() == nil && l.Height() < uint64(len(golden(t))) {
			commitGolden(t, l, l.Height())
			acknowledged.Store(l.Height())
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if crash.Load() == nil { // the end of the golden ledger came first
			height = l.Height()
			continue
		}
		disk = crash.Load()
		r := open(t, ledger.Config{Dir: "data/ledger", FS: disk})
		if r.Height() < atLeast {
			t.Fatalf("seed %d, life %d: height %d after the crash, %d was acknowledged", seed, lives, r.Height(), atLeast)
		}
		if got := digest(t, r); got != want[r.Height()] {
			t.Fatalf("seed %d, life %d: wrong content at height %d", seed, lives, r.Height())
		}
		height = r.Height()
		r.Close()
	}
	t.Logf("%d lives", lives)
}

// TestCutLog cuts the log within its last two records, with derived data from before them (failed and not written) and from
// after them, which then is ahead of the log (acknowledged blocks were lost, which must be said).
func TestCutLog(t *testing.T) {
	want := digests(t)
	const before = 60
	dir := t.TempDir()
	behind, ahead := filepath.Join(dir, "behind"), filepath.Join(dir, "ahead")
	l := open(t, ledger.Config{Dir: behind})
	for n := uint64(0); n < before; n++ {
		commitGolden(t, l, n)
	}
	l.Close()
	copyTree(t, behind, ahead)
	l = open(t, ledger.Config{Dir: ahead})
	names, _ := filepath.Glob(filepath.Join(ahead, "blocks", "*.blocks"))
	name := names[0]
	start, _ := os.Stat(name)
	ends := []int64{start.Size()}
	for n := uint64(before); n < before+2; n++ {
		commitGolden(t, l, n)
		info, _ := os.Stat(name)
		ends = append(ends, info.Size())
	}
	l.Close()
	whole, _ := os.ReadFile(name)

	for cut := ends[0]; cut <= ends[2]; {
		height := uint64(before)
		for _, end := range ends[1:] {
			if cut >= end {
				height++
			}
		}
		work := t.TempDir()
		copyTree(t, behind, work)
		if err := os.WriteFile(filepath.Join(work, "blocks", filepath.Base(name)), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, ledger.Config{Dir: work})
		if l.Height() != height || digest(t, l) != want[height] {
			t.Fatalf("cut at %d: height %d, want %d, or wrong content", cut, l.Height(), height)
		}
		commitGolden(t, l, height)
		if digest(t, l) != want[height+1] {
			t.Fatalf("cut at %d: wrong content after the next block", cut)
		}
		l.Close()
		if cut < ends[1] && cut%4 == 0 {
			work := t.TempDir()
			copyTree(t, ahead, work)
			os.WriteFile(filepath.Join(work, "blocks", filepath.Base(name)), whole[:cut], 0o600)
			if _, err := ledger.Open(ledger.Config{Dir: work}); err == nil || !strings.Contains(err.Error(), "blocks were lost") {
				t.Fatalf("cut at %d below the derived data: %v", cut, err)
			}
		}
		switch { // every byte near the records' bounds, some between
		case cut+60 < ends[1] && cut > ends[0]+40, cut+60 < ends[2] && cut > ends[1]+40:
			cut += 997
		default:
			cut += 31
		}
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func TestDiskFull(t *testing.T) {
	var full atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.Contains(op.Path, "blocks") {
			return syscall.ENOSPC
		}
		return nil
	}))
	l := open(t, ledger.Config{Dir: "ledger", FS: fs})
	commit(t, l, []string{"a=1"})
	full.Store(true)
	if err := l.Commit(&ledger.Commit{Block: next(t, l, []string{"a=2"})}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	s := l.NewSnapshot()
	if l.Height() != 1 || get(t, s, "a") != "1" {
		t.Fatal("the failed commit left a trace")
	}
	s.Close()
	full.Store(false)
	commit(t, l, []string{"a=3"})
	l.Close()
	l = open(t, ledger.Config{Dir: "ledger", FS: fs})
	s = l.NewSnapshot()
	defer s.Close()
	if l.Height() != 2 || get(t, s, "a") != "3" {
		t.Fatal("wrong content after opening again")
	}
}

// TestDerivedDiskFull: trouble below the derived data is reported before anything goes into the log, and passes.
func TestDerivedDiskFull(t *testing.T) {
	var full atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.HasSuffix(op.Path, ".sst") {
			return syscall.ENOSPC
		}
		return nil
	}))
	l := open(t, ledger.Config{Dir: "ledger", FS: fs, MemTableBytes: 64 << 10})
	big := strings.Repeat("v", 10000)
	full.Store(true)
	refused := false
	for i := 0; i < 100 && !refused; i++ {
		err := l.Commit(&ledger.Commit{Block: next(t, l, []string{fmt.Sprintf("k%d=%s", i, big)})})
		if refused = err != nil; refused && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if i == 12 {
			full.Store(false) // or Pebble would at some point hold the writer up
		}
	}
	full.Store(false)
	height := l.Height()
	for i := range 20 {
		if err := l.Commit(&ledger.Commit{Block: next(t, l, []string{fmt.Sprintf("n%d=%s", i, big)})}); err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	if l.Height() <= height+10 {
		t.Errorf("height %d, was %d", l.Height(), height)
	}
	want := digest(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l = open(t, ledger.Config{Dir: "ledger", FS: fs}); digest(t, l) != want {
		t.Error("other content after opening again")
	}
}

// TestCloseOnFullDisk: a peer whose disk is full can end, and has everything when there is room again.
func TestCloseOnFullDisk(t *testing.T) {
	var full atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && strings.HasSuffix(op.Path, ".sst") {
			return syscall.ENOSPC
		}
		return nil
	}))
	l := open(t, ledger.Config{Dir: "ledger", FS: fs})
	commit(t, l, []string{"a=1"})
	want := digest(t, l)
	full.Store(true)
	if err := l.Close(); err == nil {
		t.Error("closing did not say that something could not be written")
	}
	full.Store(false)
	if l = open(t, ledger.Config{Dir: "ledger", FS: fs}); digest(t, l) != want {
		t.Error("other content after opening again")
	}
}

func TestRefusals(t *testing.T) {
	l := open(t, ledger.Config{Dir: "ledger", FS: vfs.NewMem()})
	commit(t, l, []string{"a=1"})
	wrong := next(t, l, []string{"a=2"})
	wrong.Header.Number = 7
	if err := l.Commit(&ledger.Commit{Block: wrong}); err == nil || !strings.Contains(err.Error(), "number is 7") {
		t.Error(err)
	}
	short := next(t, l, []string{"a=2"})
	block.SetFilter(short.Block, nil)
	if err := l.Commit(&ledger.Commit{Block: short}); err == nil || !strings.Contains(err.Error(), "0 validation codes") {
		t.Error(err)
	}
	if err := l.Commit(&ledger.Commit{Block: next(t, l, []string{"a=2"}), Updates: rwset.NewUpdates(3)}); err == nil {
		t.Error("updates of another block")
	}
	private, _ := privateOf(t, "Alpha", 3)
	if err := l.Commit(&ledger.Commit{Block: next(t, l, []string{"a=2"}), Private: private[:1]}); err == nil || !strings.Contains(err.Error(), "does not match the hash") {
		t.Error(err)
	}
	if _, err := l.Block(1); !errors.Is(err, ledger.ErrNotFound) {
		t.Error(err)
	}
	if _, err := l.Transaction("none"); !errors.Is(err, ledger.ErrNotFound) {
		t.Error(err)
	}
	if _, err := l.BlockByHash([]byte("none")); !errors.Is(err, ledger.ErrNotFound) {
		t.Error(err)
	}
	if _, _, ok, err := l.TxStatus("none"); ok || err != nil {
		t.Error(ok, err)
	}
	commit(t, l, []string{"a=2"}) // none of it did harm
	l.Close()
	s := l.NewSnapshot()
	defer s.Close()
	if _, err := s.Get("cc", "a"); !errors.Is(err, ledger.ErrClosed) {
		t.Error(err)
	}
	if _, err := l.HasTx("x"); !errors.Is(err, ledger.ErrClosed) {
		t.Error(err)
	}
	if err := l.Commit(&ledger.Commit{Block: wrong}); !errors.Is(err, ledger.ErrClosed) {
		t.Error(err)
	}
}

// TestSnapshots reads while blocks are committed: a snapshot shows one height, whole.
func TestSnapshots(t *testing.T) {
	l := open(t, ledger.Config{Dir: "ledger", FS: vfs.NewMem()})
	commit(t, l, []string{"x=0", "y=0"})
	old := l.NewSnapshot()
	defer old.Close()
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				s := l.NewSnapshot()
				x, y, want := get(t, s, "x"), get(t, s, "y"), fmt.Sprint(s.Height()-1)
				if x != want || y != want {
					t.Errorf("at height %d: x=%s y=%s", s.Height(), x, y)
				}
				s.Close()
			}
		})
	}
	for n := 1; n < 200; n++ {
		commit(t, l, []string{fmt.Sprintf("x=%d", n)}, []string{fmt.Sprintf("y=%d", n)})
	}
	close(done)
	wg.Wait()
	if get(t, old, "x") != "0" || old.Height() != 1 {
		t.Error("an old snapshot moved")
	}
}

func TestRange(t *testing.T) {
	l := open(t, ledger.Config{Dir: "ledger", FS: vfs.NewMem()})
	commit(t, l, []string{"a=1", "b=2", "c=3", "\x00comp\x00=4", "z\U0010ffff=5"})
	commit(t, l, []string{"b="})
	s := l.NewSnapshot()
	defer s.Close()
	for _, c := range []struct{ start, end, want string }{
		{"", "", "\x00comp\x00,a,c,z\U0010ffff"}, {"a", "c", "a"}, {"a", "c\x00", "a,c"}, {"b", "", "c,z\U0010ffff"}, {"c", "a", ""}, {"\x01", "", "a,c,z\U0010ffff"}, {"a", "a", ""},
	} {
		it, err := s.Range("cc", c.start, c.end)
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for {
			key, _, ok, err := it.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			keys = append(keys, key)
		}
		it.Close()
		if got := strings.Join(keys, ","); got != c.want {
			t.Errorf("range %q to %q: %q, want %q", c.start, c.end, got, c.want)
		}
	}
	values, err := s.GetMany("cc", []string{"c", "b", "a"})
	if err != nil || values[1] != nil || string(values[0].Value)+string(values[2].Value) != "31" {
		t.Error(values, err)
	}
}

func TestWait(t *testing.T) {
	l := open(t, ledger.Config{Dir: "ledger", FS: vfs.NewMem()})
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error)
	go func() { results <- l.Wait(t.Context(), 2) }()
	go func() { commit(t, l, []string{"a=1"}); commit(t, l, []string{"a=2"}) }()
	if err := <-results; err != nil || l.Height() < 2 {
		t.Error(err, l.Height())
	}
	go func() { results <- l.Wait(ctx, 9) }()
	cancel()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	go func() { results <- l.Wait(context.Background(), 9) }()
	l.Close()
	if err := <-results; !errors.Is(err, ledger.ErrClosed) {
		t.Error(err)
	}
}

// TestFirstOwnsID: the first transaction with an id is the one that is found, also within a block.
func TestFirstOwnsID(t *testing.T) {
	l := open(t, ledger.Config{Dir: "ledger", FS: vfs.NewMem()})
	add := func(codes []byte, ids ...string) {
		var data [][]byte
		for _, id := range ids {
			data = append(data, transaction(t, id, nil))
		}
		b := block.New(l.Height(), l.Info().CurrentBlockHash, data)
		block.SetFilter(b, codes)
		if err := l.Commit(&ledger.Commit{Block: block.Parse(b)}); err != nil {
			t.Fatal(err)
		}
	}
	add([]byte{0, 9, 4}, "one", "one", "two")
	add([]byte{9, 9, 0}, "one", "two", "three")
	for id, want := range map[string]string{"one": "VALID 0", "two": "BAD_CREATOR_SIGNATURE 0", "three": "VALID 1"} {
		code, n, ok, err := l.TxStatus(id)
		if got := fmt.Sprint(code, " ", n); got != want || !ok || err != nil {
			t.Errorf("%s: %s, %v, %v; want %s", id, got, ok, err, want)
		}
	}
}

// TestLargeHistory: a big past value is read from its block.
func TestLargeHistory(t *testing.T) {
	l := open(t, ledger.Config{Dir: "ledger", FS: vfs.NewMem(), RecentBytes: 1})
	big := strings.Repeat("v", 5000)
	commit(t, l, []string{"a=" + big})
	commit(t, l, []string{"a="})
	commit(t, l, []string{"a=small"})
	s := l.NewSnapshot()
	defer s.Close()
	it, err := s.History("cc", "a")
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for _, want := range []string{"small", "", big} {
		m, err := it.Next()
		if err != nil || string(m.Value) != want || m.IsDelete != (want == "") || m.Timestamp.GetNanos() != 2 {
			t.Fatal(m, err)
		}
	}
}

func TestCommitAll(t *testing.T) {
	var syncs atomic.Int64
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && strings.HasSuffix(op.Path, ".blocks") {
			syncs.Add(1)
		}
		return nil
	}))
	l := open(t, ledger.Config{Dir: "ledger", FS: fs})
	var all []*ledger.Commit
	previous := []byte(nil)
	for n := uint64(0); n < 5; n++ {
		b := rwset.NewBuilder()
		b.AddWrite("cc", "k", []byte(fmt.Sprint(n)))
		results, _, err := b.Results()
		if err != nil {
			t.Fatal(err)
		}
		one := block.New(n, previous, [][]byte{transaction(t, fmt.Sprint("id", n), results)})
		block.SetFilter(one, []byte{0})
		previous = block.HeaderHash(one.Header)
		all = append(all, &ledger.Commit{Block: block.Parse(one)})
	}
	if err := l.CommitAll(all); err != nil {
		t.Fatal(err)
	}
	s := l.NewSnapshot()
	defer s.Close()
	if l.Height() != 5 || get(t, s, "k") != "4" || syncs.Load() != 1 {
		t.Errorf("height %d, k=%s, %d flushes", l.Height(), get(t, s, "k"), syncs.Load())
	}
	want := marshal(t, all[2].Block.Block)
	if got, err := l.BlockBytes(2); err != nil || !bytes.Equal(got, want) {
		t.Error(err)
	}
}

var _ io.Closer = (*ledger.Ledger)(nil)
