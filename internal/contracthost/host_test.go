package contracthost_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/contract"
	"github.com/hansa-ledger/hansa/internal/contracthost"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
)

const channel = "trade"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var txs atomic.Int64

// newHost makes a host over a memory, closed with the test.
func newHost(t testing.TB, cfg contracthost.Config) *memory {
	t.Helper()
	cfg.MinBackoff, cfg.MaxBackoff = 5*time.Millisecond, 50*time.Millisecond
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	h, err := contracthost.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	m := newMemory()
	m.host = h
	return m
}

// serve runs contracts of ours as a service and connects the host. stop ends the process.
func (m *memory) serve(t testing.TB, name string, contracts ...*contract.Contract) (stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.packages[name] = name + ":1"
	stop = serveOn(t, l, m.packages[name], contracts...)
	m.connect(t, name, l.Addr().String())
	return stop
}

func (m *memory) connect(t testing.TB, name, address string) {
	t.Helper()
	m.packages[name] = name + ":1"
	if err := m.host.Connect(m.packages[name], &contractpackage.Connection{Address: address, DialTimeout: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
}

func serveOn(t testing.TB, l net.Listener, id string, contracts ...*contract.Contract) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := contract.ServeOn(ctx, l, contract.Config{ID: id, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}, contracts...); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(stop)
	return stop
}

func call(name string, args ...string) contracthost.Invocation {
	tx := fmt.Sprintf("tx%d", txs.Add(1))
	input := &peerpb.ChaincodeInput{}
	for _, a := range args {
		input.Args = append(input.Args, []byte(a))
	}
	return contracthost.Invocation{ChannelID: channel, TxID: tx, Namespace: name, Input: input, Proposal: proposal(channel, tx, nil, nil)}
}

// must runs a call that is to succeed.
func (m *memory) must(t testing.TB, c contracthost.Invocation) string {
	t.Helper()
	response, _, err := m.execute(t.Context(), m.packages[c.Namespace], c)
	if err != nil {
		t.Fatal(err)
	}
	if response.Status != 200 {
		t.Fatalf("status %d: %s", response.Status, response.Message)
	}
	return string(response.Payload)
}

// refusal runs a call that the contract is to refuse, and gives its words.
func (m *memory) refusal(t testing.TB, c contracthost.Invocation) string {
	t.Helper()
	response, _, err := m.execute(t.Context(), m.packages[c.Namespace], c)
	if err != nil {
		t.Fatal(err)
	}
	if response.Status < 400 {
		t.Fatalf("status %d: %s", response.Status, response.Payload)
	}
	return response.Message
}

// notes is a contract with one function for each kind of access.
func notes() *contract.Contract {
	c := contract.New("notes")
	c.Submit("Put", func(ctx *contract.Context, key, value string) error {
		if err := ctx.Emit("put", []byte(key)); err != nil {
			return err
		}
		return ctx.Put(key, []byte(value))
	})
	c.Submit("PutMany", func(ctx *contract.Context, n int) error {
		for i := range n {
			if err := ctx.Put(fmt.Sprintf("key%05d", i), []byte("v")); err != nil {
				return err
			}
		}
		return nil
	})
	c.Evaluate("Get", func(ctx *contract.Context, key string) ([]byte, error) { return ctx.Get(key) })
	c.Evaluate("GetMany", func(ctx *contract.Context, keys []string) ([]string, error) {
		values, err := ctx.GetMany(keys...)
		var texts []string
		for _, v := range values {
			texts = append(texts, string(v))
		}
		return texts, err
	})
	c.Submit("Delete", func(ctx *contract.Context, key string) error { return ctx.Delete(key) })
	c.Evaluate("Count", func(ctx *contract.Context, most int) (int, error) {
		n := 0
		for _, err := range ctx.Range("", "") {
			if err != nil {
				return 0, err
			}
			if n++; n == most {
				break
			}
		}
		return n, nil
	})
	c.Evaluate("Page", func(ctx *contract.Context, size int, bookmark string) (*contract.Page, error) {
		return ctx.RangePage("", "", size, bookmark)
	})
	c.Evaluate("History", func(ctx *contract.Context, key string) ([]string, error) {
		var all []string
		for change, err := range ctx.History(key) {
			if err != nil {
				return nil, err
			}
			all = append(all, fmt.Sprintf("%s %v", change.Value, change.IsDelete))
		}
		return all, nil
	})
	c.Evaluate("Select", func(ctx *contract.Context, query string) error {
		for _, err := range ctx.Query(query) {
			if err != nil {
				return err
			}
		}
		return nil
	})
	c.Submit("Secret", func(ctx *contract.Context, key string) (string, error) {
		p := ctx.Private("secrets")
		if err := p.Put(key, ctx.Transient()["secret"]); err != nil {
			return "", err
		}
		before, err := p.Get(key)
		return string(before), err
	})
	c.Submit("Forget", func(ctx *contract.Context, key string) error { return ctx.Private("secrets").Purge(key) })
	c.Evaluate("SecretHash", func(ctx *contract.Context, key string) ([]byte, error) { return ctx.Private("secrets").Hash(key) })
	c.Submit("Endorsers", func(ctx *contract.Context, key string, orgs []string) ([]string, error) {
		if err := ctx.SetEndorsers(key, orgs...); err != nil {
			return nil, err
		}
		return ctx.Endorsers(key)
	})
	c.Submit("Ask", func(ctx *contract.Context, name, function string, args []string) ([]byte, error) {
		return ctx.Invoke(name, function, args...)
	})
	c.Submit("Panic", func(ctx *contract.Context) { panic("oh") })
	c.Submit("Big", func(ctx *contract.Context, size int) (string, error) { return strings.Repeat("x", size), nil })
	return c
}

func TestEveryAccess(t *testing.T) {
	m := newHost(t, contracthost.Config{})
	m.serve(t, "notes", notes())

	c := call("notes", "Put", "a", "1")
	response, event, err := m.execute(t.Context(), "notes:1", c)
	if err != nil || response.Status != 200 {
		t.Fatal(response, err)
	}
	if event.ChaincodeId != "notes" || event.TxId != c.TxID || event.EventName != "put" || string(event.Payload) != "a" {
		t.Errorf("event %v", event)
	}
	if got := m.must(t, call("notes", "Get", "a")); got != "1" {
		t.Errorf("got %q", got)
	}
	m.must(t, call("notes", "Put", "a", "2"))
	m.must(t, call("notes", "Delete", "a"))
	if got := m.must(t, call("notes", "Get", "a")); got != "" {
		t.Errorf("got %q", got)
	}
	if got := m.must(t, call("notes", "History", "a")); got != `[" true","2 false","1 false"]` {
		t.Error(got)
	}
	if got := m.refusal(t, call("notes", "Get", "forbidden")); !strings.HasPrefix(got, "GET_STATE failed: transaction ID: tx") || !strings.HasSuffix(got, ": nobody may read this") {
		t.Error(got)
	}
	if got := m.refusal(t, call("notes", "Select", "{}")); !strings.Contains(got, "GET_QUERY_RESULT failed: ") {
		t.Error(got)
	}
	m.must(t, call("notes", "Put", "b", "2"))
	if got := m.must(t, call("notes", "GetMany", `["b","a","b"]`)); got != `["2","","2"]` {
		t.Error(got)
	}

	secret := call("notes", "Secret", "s")
	secret.Proposal = proposal(channel, secret.TxID, nil, map[string][]byte{"secret": []byte("hush")})
	m.must(t, secret)
	if got := m.must(t, call("notes", "SecretHash", "s")); len(got) != 32 {
		t.Errorf("hash %x", got)
	}
	m.must(t, call("notes", "Forget", "s"))
	if got := m.must(t, call("notes", "SecretHash", "s")); got != "" {
		t.Errorf("hash %x", got)
	}
	m.must(t, call("notes", "Endorsers", "b", `["Org2MSP","Org1MSP"]`))
	if got := m.must(t, call("notes", "Endorsers", "b", `[]`)); got != `["Org1MSP","Org2MSP"]` {
		t.Error(got)
	}
	if got := m.refusal(t, call("notes", "Panic")); !strings.Contains(got, "panicked") {
		t.Error(got)
	}
	if got := m.must(t, call("notes", "Big", "9000000")); len(got) != 9_000_000 {
		t.Error(len(got))
	}
	if n := m.openIterators(); n != 0 {
		t.Errorf("%d iterators are open", n)
	}
}

func TestQueriesReadWhatFabricReads(t *testing.T) {
	m := newHost(t, contracthost.Config{QueryLimit: 1000})
	m.serve(t, "notes", notes())
	m.must(t, call("notes", "PutMany", "1234"))

	for _, test := range []struct{ most, counted, rows int }{
		{1, 1, 101},      // a batch, and one ahead
		{100, 100, 101},  // the second batch is not asked for
		{101, 101, 201},  // it is
		{0, 1000, 1000},  // the limit
		{999, 999, 1000}, // the last batch is short
	} {
		before := m.rowsRead()
		if got := m.must(t, call("notes", "Count", fmt.Sprint(test.most))); got != fmt.Sprint(test.counted) {
			t.Errorf("%d: counted %s", test.most, got)
		}
		if got := m.rowsRead() - before; got != test.rows {
			t.Errorf("%d: read %d rows, want %d", test.most, got, test.rows)
		}
	}
	bookmark, seen := "", 0
	for range 7 {
		before := m.rowsRead()
		var page contract.Page
		if err := json.Unmarshal([]byte(m.must(t, call("notes", "Page", "200", bookmark))), &page); err != nil {
			t.Fatal(err)
		}
		if got := m.rowsRead() - before; got != len(page.Entries) {
			t.Errorf("read %d rows for a page of %d", got, len(page.Entries))
		}
		seen += len(page.Entries)
		bookmark = page.Bookmark
	}
	if seen != 1234 || bookmark != "" {
		t.Errorf("saw %d, bookmark %q", seen, bookmark)
	}
	if n := m.openIterators(); n != 0 {
		t.Errorf("%d iterators are open", n)
	}
}

func TestContractsCallEachOther(t *testing.T) {
	m := newHost(t, contracthost.Config{})
	m.serve(t, "one", notes())
	m.serve(t, "two", notes())
	m.must(t, call("one", "Ask", "two", "Put", `["k","v"]`))
	if got := m.must(t, call("one", "Ask", "two/"+channel, "Get", `["k"]`)); got != "v" {
		t.Errorf("got %q", got)
	}
	if got := m.must(t, call("one", "Get", "k")); got != "" {
		t.Errorf("the callee wrote to its caller: %q", got)
	}
	for name, want := range map[string]string{
		"three": "INVOKE_CHAINCODE failed: transaction ID: ",
		"one":   ") exists", // itself
	} {
		if got := m.refusal(t, call("one", "Ask", name, "Get", `["k"]`)); !strings.Contains(got, want) {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := m.refusal(t, call("one", "Ask", "two", "Nothing", `[]`)); !strings.Contains(got, "Function Nothing not found in contract notes") {
		t.Error(got)
	}
}

func TestManyTransactionsShareAStream(t *testing.T) {
	m := newHost(t, contracthost.Config{})
	m.serve(t, "notes", notes())
	var workers sync.WaitGroup
	for w := range 32 {
		workers.Go(func() {
			for i := range 20 {
				key := fmt.Sprintf("%d-%d", w, i)
				response, _, err := m.execute(context.Background(), "notes:1", call("notes", "Put", key, key))
				if err != nil || response.Status != 200 {
					t.Error(response, err)
					return
				}
				response, _, err = m.execute(context.Background(), "notes:1", call("notes", "Get", key))
				if err != nil || string(response.Payload) != key {
					t.Error(response, err)
					return
				}
			}
		})
	}
	workers.Wait()
}

// One transaction hangs in a read while others go on; then it is given up, and the stream still serves.
func TestTimeoutHurtsOneTransactionOnly(t *testing.T) {
	m := newHost(t, contracthost.Config{ExecuteTimeout: 300 * time.Millisecond})
	release, entered := make(chan struct{}), make(chan struct{}, 1)
	c := notes()
	c.Evaluate("Hang", func(ctx *contract.Context) (string, error) {
		entered <- struct{}{}
		<-release
		_, err := ctx.Get("late")
		return "", err
	})
	m.serve(t, "notes", c)
	failed := make(chan error)
	go func() {
		_, _, err := m.execute(context.Background(), "notes:1", call("notes", "Hang"))
		failed <- err
	}()
	<-entered
	m.must(t, call("notes", "Put", "a", "b"))
	err := <-failed
	if !errors.Is(err, contracthost.ErrTimeout) || !strings.Contains(err.Error(), "error sending: timeout expired while executing transaction") {
		t.Error(err)
	}
	close(release) // the late request is answered with an error and its answer is dropped
	m.must(t, call("notes", "Get", "a"))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := m.execute(ctx, "notes:1", call("notes", "Get", "a")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestContractDiesAndComesBack(t *testing.T) {
	m := newHost(t, contracthost.Config{})
	m.serve(t, "other", notes())
	stop := m.serve(t, "notes", notes())
	m.must(t, call("notes", "Put", "a", "1"))

	m.entered, m.proceed = make(chan string), make(chan struct{})
	failed := make(chan error)
	go func() {
		_, _, err := m.execute(context.Background(), "notes:1", call("notes", "Get", "a"))
		failed <- err
	}()
	<-m.entered // in the middle of the transaction
	go stop()
	m.proceed <- struct{}{}
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "chaincode stream terminated") {
		t.Error(err)
	}
	stop()
	m.entered = nil
	m.must(t, call("other", "Get", "a"))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.connect(t, "notes", l.Addr().String()) // the contract moved
	waiting := make(chan struct{})
	go func() {
		defer close(waiting)
		response, _, err := m.execute(context.Background(), "notes:1", call("notes", "Get", "a"))
		if err != nil || string(response.Payload) != "1" {
			t.Error(response, err)
		}
	}()
	stop = serveOn(t, l, "notes:1", notes())
	<-waiting
	stop()
	// At the same address this time.
	if l, err = net.Listen("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, "notes:1", notes())
	for {
		if _, _, err = m.execute(t.Context(), "notes:1", call("notes", "Get", "a")); err == nil {
			break // the host had not noticed the end before
		}
	}
}

func TestUnreachableContract(t *testing.T) {
	m := newHost(t, contracthost.Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := m.host.Connect("p:1", &contractpackage.Connection{Address: l.Addr().String(), DialTimeout: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	_, _, err = m.execute(t.Context(), "p:1", call("p", "f"))
	if err == nil || !strings.Contains(err.Error(), "could not launch chaincode p:1: timeout expired while starting chaincode p:1 for transaction") || !strings.Contains(err.Error(), "refused") {
		t.Error(err)
	}
	if _, _, err = m.execute(t.Context(), "q:1", call("q", "f")); !errors.Is(err, contracthost.ErrUnknownContract) {
		t.Error(err)
	}
	m.host.Disconnect("p:1")
	if _, _, err = m.execute(t.Context(), "p:1", call("p", "f")); !errors.Is(err, contracthost.ErrUnknownContract) {
		t.Error(err)
	}
	// A contract that says it is another one.
	wrong, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, wrong, "else:1", notes())
	if err := m.host.Connect("r:1", &contractpackage.Connection{Address: wrong.Addr().String(), DialTimeout: 200 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	if _, _, err = m.execute(t.Context(), "r:1", call("r", "f")); err == nil || !strings.Contains(err.Error(), `registered as "else:1" instead of "r:1": set its CHAINCODE_ID`) {
		t.Error(err)
	}
}

// listen serves classic contracts.
func (m *memory) listen(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(contracthost.MaxMessageBytes), grpc.MaxSendMsgSize(contracthost.MaxMessageBytes))
	peerpb.RegisterChaincodeSupportServer(server, m.host)
	ended := make(chan struct{})
	go func() { defer close(ended); server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-ended })
	return l.Addr().String()
}

func TestClassicContract(t *testing.T) {
	m := newHost(t, contracthost.Config{})
	address := m.listen(t)
	m.packages["notes"] = "notes:1"
	m.host.Expect("notes:1")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- contract.Serve(ctx, contract.Config{ID: "notes:1", PeerAddress: address}, notes()) }()
	m.must(t, call("notes", "Put", "a", "1"))
	if got := m.must(t, call("notes", "Get", "a")); got != "1" {
		t.Error(got)
	}
	// It becomes a service.
	m.serve(t, "notes", notes())
	if got := m.must(t, call("notes", "Get", "a")); got != "1" {
		t.Error(got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func BenchmarkTransaction(b *testing.B) {
	m := newHost(b, contracthost.Config{})
	m.serve(b, "notes", notes())
	m.must(b, call("notes", "Put", "a", "1"))
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, _, err := m.execute(context.Background(), "notes:1", call("notes", "Get", "a")); err != nil {
				b.Error(err)
			}
		}
	})
}
