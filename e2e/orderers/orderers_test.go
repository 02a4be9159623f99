// Package orderers_test changes who orders a channel while applications use it, with the hansa command as an operator does, and
// hurts orderers: nothing that was acknowledged may be lost or doubled, and what would lose the quorum is refused.
package orderers_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/provision"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

func TestMain(m *testing.M) { network.Main(m) }

// load creates assets until it is stopped, and keeps the transactions that were acknowledged as valid.
type load struct {
	t       *testing.T
	n       *network.Network
	channel *client.Channel
	cancel  context.CancelFunc
	workers sync.WaitGroup
	count   atomic.Int64

	mu           sync.Mutex
	acknowledged []string
	longest      time.Duration // that no transaction was acknowledged
	last         time.Time
}

func start(t *testing.T, n *network.Network, workers int) *load {
	t.Helper()
	plan := n.Plan()
	c, err := plan.Client(plan.Members[0], "User1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: t, n: n, channel: c.Channel(plan.Channel), cancel: cancel, last: time.Now()}
	for worker := range workers {
		l.workers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				l.create(ctx, fmt.Sprintf("%d-%d", worker, i))
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

// create tries until the asset is there: a transaction whose fate is not known is sent again as another one, and then one of
// the two finds the asset.
func (l *load) create(ctx context.Context, id string) {
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		txID, err := submit(attempt, l.channel, id)
		cancel()
		switch {
		case err == nil:
			l.mu.Lock()
			l.acknowledged = append(l.acknowledged, txID)
			l.longest, l.last = max(l.longest, time.Since(l.last)), time.Now()
			l.mu.Unlock()
			l.count.Add(1)
			return
		case strings.Contains(err.Error(), "already exists"):
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func submit(ctx context.Context, ch *client.Channel, id string) (string, error) {
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

func (l *load) stop() {
	l.cancel()
	l.workers.Wait()
}

// more waits until so many more transactions are acknowledged.
func (l *load) more(n int64) {
	l.t.Helper()
	want := l.count.Load() + n
	l.n.Await(fmt.Sprintf("%d more transactions", n), func() error {
		if got := l.count.Load(); got < want {
			return fmt.Errorf("%d are missing", want-got)
		}
		return nil
	})
}

// gap is the longest time without an acknowledgement since it was asked for last.
func (l *load) gap() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	longest := max(l.longest, time.Since(l.last))
	l.longest = 0
	return longest
}

// check stops the load and looks for each acknowledged transaction in the chain.
func (l *load) check() {
	l.t.Helper()
	l.stop()
	codes := codesOf(l.t, l.channel)
	bad := 0
	for _, txID := range l.acknowledged {
		valid := 0
		for _, code := range codes[txID] {
			if code == peerpb.TxValidationCode_VALID {
				valid++
			}
		}
		if valid != 1 {
			bad++
			l.t.Errorf("transaction %s was acknowledged and is valid %d times in the ledger", txID, valid)
		}
	}
	l.t.Logf("%d transactions acknowledged, %d lost or doubled", len(l.acknowledged), bad)
	if len(l.acknowledged) == 0 {
		l.t.Error("there was no traffic")
	}
}

// codesOf reads the whole chain: the validation codes of each transaction, one for each time that it was ordered.
func codesOf(t *testing.T, ch *client.Channel) map[string][]peerpb.TxValidationCode {
	t.Helper()
	info := &commonpb.BlockchainInfo{}
	query(t, ch, info, "GetChainInfo")
	codes := map[string][]peerpb.TxValidationCode{}
	for number := range info.Height {
		b := &commonpb.Block{}
		query(t, ch, b, "GetBlockByNumber", strconv.FormatUint(number, 10))
		filter := block.Filter(b)
		for i, tx := range block.Parse(b).Txs {
			codes[tx.ID()] = append(codes[tx.ID()], peerpb.TxValidationCode(filter[i]))
		}
	}
	return codes
}

func query(t *testing.T, ch *client.Channel, into proto.Message, function string, args ...string) {
	t.Helper()
	raw, err := ch.Contract("qscc").Evaluate(t.Context(), client.Strings(function, append([]string{ch.ID()}, args...)...))
	if err == nil {
		err = proto.Unmarshal(raw, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// metric reads a metric of a process; the labels that are given must be there.
func metric(t *testing.T, n *network.Network, process, name string, labels ...string) float64 {
	t.Helper()
	response, err := http.Get(strings.TrimSuffix(n.Status()[process].Spec.Ready, "/readyz") + "/metrics")
	if err != nil {
		return -1
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		line := lines.Text()
		if !strings.HasPrefix(line, name+"{") || slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(line, l) }) {
			continue
		}
		value, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	return -1
}

// leader is the orderer that leads.
func leader(t *testing.T, n *network.Network) (name string) {
	t.Helper()
	n.Await("a leader", func() error {
		for _, o := range n.Plan().Orderers {
			if metric(t, n, o.Name, "hansa_raft_leader") == 1 {
				name = o.Name
				return nil
			}
		}
		return fmt.Errorf("none leads")
	})
	return name
}

// refused runs a command that must fail, saying why.
func refused(t *testing.T, n *network.Network, why string, args ...string) {
	t.Helper()
	stdout, stderr, err := n.Run(append(args, "--data", n.Dir)...)
	if err == nil || !strings.Contains(stderr, why) {
		t.Errorf("hansa %s: %v\n%s%s\nwant the refusal %q", strings.Join(args, " "), err, stdout, stderr, why)
	}
}

// Under traffic a fourth orderer is added, one is removed, one that was killed and lost its folder is replaced, and one gets
// another certificate: nothing is lost. What would lose the quorum, or makes no sense, is refused.
func TestChangesUnderTraffic(t *testing.T) {
	t.Parallel()
	n := network.Start(t, "--orderers", "3", "--members", "1")
	n.Deploy("asset", "asset")
	l := start(t, n, 4)
	l.more(10)

	out := n.Hansa("orderer", "plan", "add")
	if !strings.Contains(out, "3 of 3 take part, and of 4 then 3 must") {
		t.Errorf("the plan is\n%s", out)
	}
	n.Hansa("orderer", "add")
	l.more(10)
	if _, err := n.Plan().Orderer("orderer3"); err != nil {
		t.Fatal(err)
	}
	if got := metric(t, n, leader(t, n), "hansa_raft_members"); got != 4 {
		t.Errorf("the leader counts %v members", got)
	}

	n.Hansa("orderer", "remove", leader(t, n)) // the hardest one
	l.more(10)
	if n := len(n.Plan().Orderers); n != 3 {
		t.Errorf("the network has %d orderers", n)
	}

	lead := leader(t, n)
	var others []string
	for _, o := range n.Plan().Orderers {
		if o.Name != lead {
			others = append(others, o.Name)
		}
	}
	lost := others[0]
	if err := os.RemoveAll(filepath.Join(n.Dir, "nodes", lost, "data")); err != nil {
		t.Fatal(err)
	}
	n.Kill(lost)
	n.Await("the loss to be noticed", func() error {
		if got := metric(t, n, leader(t, n), "hansa_raft_active_members"); got != 2 {
			return fmt.Errorf("the leader hears from %v", got)
		}
		return nil
	})
	address := func(name string) string {
		o, err := n.Plan().Orderer(name)
		if err != nil {
			t.Fatal(err)
		}
		return o.Address()
	}
	refused(t, n, "bring back, replace or remove first: "+address(lost), "orderer", "rotate", others[1])
	refused(t, n, "2 of 3 consenters take part, and of 4 consenters 3 must", "orderer", "add")
	refused(t, n, `the network has no orderer "orderer9"`, "orderer", "remove", "orderer9")
	refused(t, n, `orderer "elsewhere:7050": a name of`, "orderer", "replace", others[1], "elsewhere:7050")
	refused(t, n, `orderer "No Name": a name of`, "orderer", "plan", "add", "No Name")
	refused(t, n, "the command is: hansa orderer plan remove ORDERER", "orderer", "plan", "remove")
	n.Hansa("orderer", "replace", lost)
	l.more(10)

	before := certificate(t, n, others[1])
	n.Hansa("orderer", "rotate", others[1])
	if certificate(t, n, others[1]) == before {
		t.Error("the certificate is the old one")
	}
	l.more(10)
	out = n.Hansa("orderer", "plan")
	if got := strings.Count(out, "takes part") + strings.Count(out, "leads"); got != 3 {
		t.Errorf("%d take part:\n%s", got, out)
	}
	for _, o := range n.Plan().Orderers {
		if got := metric(t, n, o.Name, "hansa_order_fsyncs_total", `file="log"`); got <= 0 {
			t.Errorf("%s counted %v flushes", o.Name, got)
		}
	}
	if got := metric(t, n, leader(t, n), "hansa_cluster_sent_bytes_total", `kind="consensus"`); got <= 0 {
		t.Errorf("the leader sent %v bytes", got)
	}
	l.check()

	// All of it is there after a restart too.
	n.Down()
	n.Up()
	again := start(t, n, 2)
	again.create(t.Context(), "after the restart")
	again.check()
	for name := range n.Status() {
		raw, err := os.ReadFile(filepath.Join(n.Dir, "nodes", name, "log"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			if strings.HasPrefix(name, "orderer") && strings.Contains(line, `"level":"ERROR"`) && !strings.Contains(line, "hansa orderer replace") {
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}

func certificate(t *testing.T, n *network.Network, orderer string) string {
	t.Helper()
	o, err := n.Plan().Orderer(orderer)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := n.Plan().OrdererCertificate(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// A command that is killed anywhere leaves a network that works, and is finished by the same command.
func TestInterruptedChanges(t *testing.T) {
	t.Parallel()
	n := network.Start(t, "--orderers", "3", "--members", "1")
	n.Deploy("asset", "asset")
	l := start(t, n, 2)
	for _, c := range []struct {
		args  []string
		after []string // words of the output at which the command is killed
		done  func() error
	}{
		{[]string{"orderer", "rotate", "orderer1"}, []string{"2. ", "3. "}, func() error { return nil }},
		{[]string{"orderer", "add", "orderer3"}, []string{"1. ", "4. "}, func() error {
			if _, err := n.Plan().Orderer("orderer3"); err != nil {
				return err
			}
			return nil
		}},
		{[]string{"orderer", "remove", "orderer0"}, []string{"2. "}, func() error {
			if _, err := n.Plan().Orderer("orderer0"); err == nil {
				return fmt.Errorf("it is still there")
			}
			return nil
		}},
	} {
		for _, word := range c.after {
			killAt(t, n, word, c.args...)
			l.more(5)
		}
		if !slices.Contains(c.args, "remove") || c.done() != nil { // one that was killed late is done
			n.Hansa(c.args...)
		}
		if err := c.done(); err != nil {
			t.Errorf("hansa %s: %v", strings.Join(c.args, " "), err)
		}
		l.more(5)
	}
	out := n.Hansa("orderer", "plan")
	if got := strings.Count(out, "takes part") + strings.Count(out, "leads"); got != 3 {
		t.Errorf("%d take part:\n%s", got, out)
	}
	l.check()
}

// killAt runs a command and kills it as soon as it has written a line that begins with a word; it may be done by then.
func killAt(t *testing.T, n *network.Network, word string, args ...string) {
	t.Helper()
	command := n.Command(append(args, "--data", n.Dir)...)
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), word) {
			command.Process.Kill()
		}
	}
	command.Wait()
}

// Three orderers of one network are hurt in turn.
func TestFaults(t *testing.T) {
	t.Parallel()
	n := network.Start(t, "--orderers", "3", "--members", "1")
	n.Deploy("asset", "asset")
	t.Run("sent twice", func(t *testing.T) { sentTwice(t, n) })
	t.Run("hung leader", func(t *testing.T) { hungLeader(t, n) })
	t.Run("from elsewhere", func(t *testing.T) { fromElsewhere(t, n) })
}

// An operator who does not have the network's folder names nodes, keys and files, and puts the new certificate in place
// when the command says so.
func fromElsewhere(t *testing.T, n *network.Network) {
	plan := n.Plan()
	admin := filepath.Join(n.Dir, "crypto", "ordererOrganizations", "orderer.example.com", "users", "Admin@orderer.example.com")
	flags := []string{"--channel", plan.Channel, "--tls-root", plan.OrdererTLSRoots(), "--identity", "OrdererMSP=" + filepath.Join(admin, "msp"),
		"--tls-cert", filepath.Join(admin, "tls", "client.crt"), "--tls-key", filepath.Join(admin, "tls", "client.key")}
	for _, o := range plan.Orderers {
		flags = append(flags, "--orderer", o.Address())
	}
	out, stderr, err := n.Run(append([]string{"orderer", "plan"}, flags...)...)
	if err != nil || strings.Count(out, "answers") != 3 {
		t.Errorf("without admin ports: %v\n%s%s", err, out, stderr)
	}
	for _, o := range plan.Orderers {
		flags = append(flags, "--admin", o.Address()+"="+o.AdminAddress())
	}
	out, stderr, err = n.Run(append([]string{"orderer", "plan", "rotate", plan.Orderers[0].Address()}, flags...)...)
	if err != nil || strings.Count(out, "leads") != 1 || strings.Count(out, "takes part\n") < 2 {
		t.Errorf("with admin ports: %v\n%s%s", err, out, stderr)
	}
	for why, args := range map[string][]string{
		"host:port is wanted": {"orderer", "remove", "orderer0"},
		"--cert is missing":   {"orderer", "rotate", plan.Orderers[0].Address()},
	} {
		if _, stderr, err := n.Run(append(args, flags...)...); err == nil || !strings.Contains(stderr, why) {
			t.Errorf("hansa %v: %v, %s", args, err, stderr)
		}
	}

	o := plan.Orderers[0]
	if err := plan.IssueOrdererCertificate(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	raw, err := plan.OrdererCertificate(o)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "next.pem")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	command := n.Command(append([]string{"orderer", "rotate", o.Address(), "--cert", file}, flags...)...)
	pipe, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	command.Stderr = &complaints
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	told := false
	for lines := bufio.NewScanner(pipe); lines.Scan(); {
		if !strings.Contains(lines.Text(), "Now start the orderer") {
			continue
		}
		told = true
		control, err := provision.NewControl(n.Dir)
		if err == nil {
			err = plan.InstallOrdererCertificate(o)
		}
		if err == nil {
			err = control.Restart(t.Context(), o.Name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := command.Wait(); err != nil || !told {
		t.Errorf("hansa orderer rotate: %v\n%s", err, complaints.String())
	}
}

// A leader that hangs is replaced by another one within seconds, also if it comes back later, and nothing is lost or doubled.
func hungLeader(t *testing.T, n *network.Network) {
	l := start(t, n, 4)
	for range 2 {
		l.more(10)
		name := leader(t, n)
		pid := n.Status()[name].PID
		l.gap()
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		l.more(20)
		t.Logf("after %s hung, nothing was acknowledged for %v", name, l.gap())
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		l.more(20)
		n.Await("all taking part", func() error {
			if got := metric(t, n, leader(t, n), "hansa_raft_active_members"); got != 3 {
				return fmt.Errorf("the leader hears from %v", got)
			}
			return nil
		})
	}
	l.check()
}

// Submitting is safe to repeat: a transaction that is sent again and again, to different orderers, is valid once.
func sentTwice(t *testing.T, n *network.Network) {
	plan := n.Plan()
	c, err := plan.Client(plan.Members[0], "User1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ch := c.Channel(plan.Channel)
	proposal, err := ch.Contract("asset").Propose(client.Strings("CreateAsset", "once", "red", "5", "Tom", "100"))
	if err != nil {
		t.Fatal(err)
	}
	tx, err := proposal.Endorse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const times = 12 // by chance to all orderers
	var group sync.WaitGroup
	for range times {
		group.Go(func() {
			if _, err := tx.Submit(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	var codes []peerpb.TxValidationCode
	n.Await("all to be in the chain", func() error {
		if codes = codesOf(t, ch)[tx.TxID()]; len(codes) != times {
			return fmt.Errorf("it was ordered %d times", len(codes))
		}
		return nil
	})
	count := map[peerpb.TxValidationCode]int{}
	for _, code := range codes {
		count[code]++
	}
	if count[peerpb.TxValidationCode_VALID] != 1 || count[peerpb.TxValidationCode_DUPLICATE_TXID] != times-1 {
		t.Errorf("its codes are %v", codes)
	}
	status, err := ch.Status(t.Context(), tx.TxID())
	if err != nil || status.Code != "VALID" {
		t.Errorf("its status is %v, %v", status, err)
	}
	raw, err := ch.Contract("asset").Evaluate(t.Context(), client.Strings("GetAllAssets"))
	var assets []json.RawMessage
	if err != nil || json.Unmarshal(raw, &assets) != nil || len(assets) != 1 {
		t.Errorf("the assets are %s, %v", raw, err)
	}
	used := 0
	for _, o := range plan.Orderers {
		if metric(t, n, o.Name, "hansa_broadcast_processed_total", `type="ENDORSER_TRANSACTION"`, `status="SUCCESS"`) > 0 {
			used++
		}
	}
	t.Logf("%d orderers took it", used)
}
