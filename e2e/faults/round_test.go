package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/faults/check"
	"github.com/hansa-ledger/hansa/e2e/faults/nemesis"
	"github.com/hansa-ledger/hansa/e2e/faults/site"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// rounds are those on one network.
type rounds struct {
	settings
	t         *testing.T
	began     time.Time
	dir       string
	site      *site.Site
	nemesis   *nemesis.Nemesis
	contracts []*client.Contract
	ledger    *check.Ledger
	report    *report
}

// Limits on what a network may take after all faults have ended, on a machine that is busy with other things too.
const (
	recoveryLimit   = 30 * time.Second
	convergeLimit   = 30 * time.Second
	minimumAfter    = 5 // calls answered with success after the end of the faults
	pollEvery       = 10 * time.Millisecond
	beforeTheFaults = 200 * time.Millisecond
)

// harm plays the rounds of one network.
func harm(t *testing.T, s settings, orderers int, dir, binary string, report *report) {
	began := time.Now()
	network := newSite(t, dir, binary, orderers)
	t.Logf("a network of %d orderers runs after %v", orderers, time.Since(began).Round(10*time.Millisecond))
	defer func() {
		if err := network.Close(); err != nil {
			t.Errorf("take the network away: %v", err)
		}
	}()
	contracts, closeClients, err := contractsOf(network)
	if err != nil {
		t.Fatal(err)
	}
	defer closeClients()
	r := &rounds{settings: s, t: t, began: began, dir: dir, site: network, nemesis: nemesis.New(network), contracts: contracts, ledger: check.NewLedger(), report: report}

	watching, stop := context.WithCancel(t.Context())
	var watchers sync.WaitGroup
	for _, n := range append(append([]*site.Node{}, network.Orderers...), network.Peers...) {
		watchers.Go(func() {
			if err := network.Watch(watching, n, func(b *commonpb.Block) { r.show(n, b) }); err != nil {
				t.Errorf("watch %s: %v", n.Name, err)
			}
		})
	}
	defer watchers.Wait()
	defer stop()
	for i := 0; s.duration > 0 && time.Since(began) < s.duration || s.duration == 0 && i < s.rounds; i++ {
		seed := s.seed + uint64(i)
		if err := r.round(i, seed); err != nil {
			t.Errorf("round %d of %d orderers failed; repeat it with %s, or with all that went before with %s\n%v", i, orderers, s.again(seed, 1, orderers), s.again(s.seed, i+1, orderers), err)
			r.keepEvidence(seed)
			return
		}
	}
	for _, n := range network.Nodes() {
		report.Exits += n.Exits()
	}
	if err := r.verify(); err != nil {
		t.Error(err)
		r.keepEvidence(s.seed)
	}
}

func (r *rounds) show(n *site.Node, b *commonpb.Block) {
	decoded, err := check.Decode(b, n.Role == site.Peer)
	if err != nil {
		r.t.Errorf("%s: %v", n.Name, err)
		return
	}
	r.ledger.Add(n.Name, decoded)
}

func (r *rounds) now() time.Duration { return time.Since(r.began) }

// round plays one plan.
func (r *rounds) round(number int, seed uint64) error {
	ctx := r.t.Context()
	start := time.Now()
	plan := nemesis.NewPlan(seed, r.kinds())
	r.site.Net.Seed(seed)
	prefix := fmt.Sprintf("round%d.", number)
	load := startLoad(ctx, r.began, prefix, seed, r.contracts)
	wait(ctx, beforeTheFaults)
	done, impaired, err := r.nemesis.Run(ctx, plan)
	healed := r.now()
	if err != nil {
		load.stop()
		return fmt.Errorf("the harness: %w", err)
	}
	recovered := r.recover(load, healed)
	ops := load.stop()
	if recovered != nil {
		return fmt.Errorf("plan %s: %w", plan, recovered)
	}
	if err := r.converge(ctx); err != nil {
		return fmt.Errorf("plan %s: %w", plan, err)
	}
	finding := check.Check(ops, r.ledger)
	diverged := r.ledger.Diverged()
	if err := r.compareState(ctx, prefix, ops); err != nil {
		diverged = append(diverged, err.Error())
	}
	r.report.add(r, done, impaired, ops, load, healed, finding, diverged)
	var crashes []string
	for _, n := range r.site.Nodes() {
		crashes = append(crashes, n.Crashes()...)
	}
	if finding.Failed() || len(diverged) > 0 || len(crashes) > 0 {
		return fmt.Errorf("plan %s:\n%sdiverged: %v\ncrashes: %v", plan, finding, diverged, crashes)
	}
	for _, d := range done {
		if d.Refused != "" {
			r.t.Logf("%s of %s was refused: %s", d.Kind, d.Hit, d.Refused)
		}
	}
	committed := 0
	for _, op := range ops {
		if op.Outcome == check.Committed {
			committed++
		}
	}
	first, _ := load.firstAfter(healed)
	r.t.Logf("round %3d, seed %d: %s. %d of %d calls committed, recovered in %v, checked after %v", number, seed, plan, committed, len(ops),
		(first - healed).Round(time.Millisecond), time.Since(start).Round(10*time.Millisecond))
	return nil
}

// recover waits until the network serves again at every peer.
func (r *rounds) recover(l *load, healed time.Duration) error {
	for limit := time.Now().Add(recoveryLimit); ; time.Sleep(pollEvery) {
		served := make([]int, len(r.contracts))
		var last string
		for _, op := range l.finished() {
			if op.Call >= healed && op.Outcome == check.Committed {
				served[op.Client%len(served)]++
			} else if op.Error != "" {
				last = op.Error
			}
		}
		least := served[0]
		for _, n := range served {
			least = min(least, n)
		}
		if least >= minimumAfter {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%v after the end of the faults the peers had committed %v calls; the last error is %q", recoveryLimit, served, last)
		}
	}
}

// converge waits until every node has shown every block.
func (r *rounds) converge(ctx context.Context) error {
	limit := time.Now().Add(convergeLimit)
	for {
		height, behind := r.ledger.Height(), ""
		for _, n := range append(append([]*site.Node{}, r.site.Orderers...), r.site.Peers...) {
			if has := r.ledger.HeightOf(n.Name); has < height {
				behind += fmt.Sprintf(" %s has %d", n.Name, has)
			}
		}
		if behind == "" {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%v after the clients stopped not all nodes have all %d blocks:%s", convergeLimit, height, behind)
		}
		wait(ctx, pollEvery)
	}
}

// compareState compares what the peers hold with each other and with what the chain says.
func (r *rounds) compareState(ctx context.Context, prefix string, ops []*check.Op) error {
	var err error
	for range 20 {
		before := r.ledger.Height()
		want := check.Replay(ops, r.ledger)
		err = nil
		for i, c := range r.contracts {
			held, failed := dump(ctx, c, prefix)
			if failed != nil {
				return failed
			}
			if !maps.Equal(held, want) {
				err = errors.Join(err, fmt.Errorf("%s holds %d registers otherwise than the chain says, such as %s", r.site.Peers[i].Name, len(differences(held, want)), differences(held, want)[0]))
			}
		}
		if err == nil {
			return nil
		}
		// A call that nobody waits for any more may still have come.
		wait(ctx, 100*time.Millisecond)
		if r.ledger.Height() == before {
			return err
		}
	}
	return err
}

func differences(a, b map[string]string) (keys []string) {
	all := maps.Clone(a)
	maps.Copy(all, b)
	for key := range all {
		if a[key] != b[key] {
			keys = append(keys, fmt.Sprintf("%s: %q, not %q", key, a[key], b[key]))
		}
	}
	return keys
}

func dump(ctx context.Context, c *client.Contract, prefix string) (map[string]string, error) {
	var raw []byte
	var err error
	for range 5 { // the contract's stream may just be coming back
		if raw, err = c.Evaluate(ctx, client.Strings("Dump", prefix, prefix+"~")); err == nil {
			break
		}
		wait(ctx, 200*time.Millisecond)
	}
	if err != nil {
		return nil, fmt.Errorf("read the state: %w", err)
	}
	held := map[string]string{}
	return held, json.Unmarshal(raw, &held)
}

// verify stops the peers and has their ledgers checked by the verifier that ships with Hansa.
func (r *rounds) verify() error {
	var errs []error
	for _, p := range r.site.Peers {
		if err := p.Stop(); err != nil {
			errs = append(errs, err)
			continue
		}
		if output, err := exec.Command(r.site.Binary(), "ledger", "verify", filepath.Join(p.Data(), "channels", site.Channel)).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("verify the ledger of %s: %w\n%s", p.Name, err, output))
		}
	}
	return errors.Join(errs...)
}

// keepEvidence copies logs and data, which end with this process.
func (r *rounds) keepEvidence(seed uint64) {
	for _, n := range r.site.Nodes() {
		n.Kill()
	}
	to := r.keep
	if to == "" {
		to = os.TempDir()
	}
	to = filepath.Join(to, fmt.Sprintf("hansa-faults-seed%d", seed))
	if output, err := exec.Command("cp", "-r", r.dir, to).CombinedOutput(); err != nil {
		r.t.Logf("keep the evidence: %v\n%s", err, output)
		return
	}
	r.t.Logf("logs and data are kept in %s", to)
}
