package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hansa-ledger/hansa/examples/shipments"
)

// job is the main job with all it needs.
type job struct {
	root, hansa, goApp string
	port, records      int
	concurrency        int
	seed               uint64
	out                *screen
}

const (
	contractName = "shipment"
	flawed       = 0.03 // share of the records that must be rejected
	intrusions   = 10   // shipments that each application claims from others
	minRecords   = 200  // fewer would leave fewer than that in others' hands
)

// application is one of the two that load records.
type application struct {
	name, title string
	command     []string // without the flags that both have
	as, to      string
}

func (j *job) applications() []application {
	return []application{
		{"go", "An application with Hansa's Go client", []string{j.goApp}, "org1", "org2"},
		{"node", "The same with Fabric's own Node client (@hyperledger/fabric-gateway)", []string{"node", filepath.Join(j.nodeDir(), "app.mjs")}, "org2", "org1"},
	}
}

func (j *job) nodeDir() string { return filepath.Join(j.root, "examples", "app-node") }

// round is one time that both applications load records. Its files stay, so that
// a later start can see whether all is still there.
type round struct {
	dir string
	Of  map[string]expected `json:"expected"` // by application
}

func (r round) recordsOf(a application) string { return filepath.Join(r.dir, a.name+".jsonl") }

// newRound makes records for each application. Every round of a network has its
// own series of ids.
func (j *job) newRound(dir string, number int) (round, error) {
	r := round{dir, map[string]expected{}}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return r, err
	}
	for i, a := range j.applications() {
		set, err := shipments.Make(shipments.Options{
			Seed: j.seed + uint64(2*number+i), Count: j.records, Members: []string{"Org1MSP", "Org2MSP"}, Flawed: flawed,
			Series: fmt.Sprintf("%s%d", strings.ToUpper(a.name[:1]), number),
		})
		if err != nil {
			return r, err
		}
		var lines bytes.Buffer
		set.WriteTo(&lines)
		if err := os.WriteFile(r.recordsOf(a), lines.Bytes(), 0o640); err != nil {
			return r, err
		}
		rejected := map[string]int{"duplicate id": set.Duplicates, "invalid record": set.Invalid, "wrong owner": intrusions}
		maps.DeleteFunc(rejected, func(_ string, n int) bool { return n == 0 })
		r.Of[a.name] = expected{set.Good(), rejected}
		j.out.say("%s: %d records, %d bytes each: %d good, %d duplicate ids, %d invalid",
			filepath.Base(r.recordsOf(a)), j.records, lines.Len()/j.records, set.Good(), set.Duplicates, set.Invalid)
	}
	return r, nil
}

// finish remembers that the round came to its end.
func (r round) finish() error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, "finished.json"), raw, 0o640)
}

// loadRound reads a round; ok is false for one that did not come to its end.
func loadRound(dir string) (r round, ok bool, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, "finished.json"))
	if errors.Is(err, os.ErrNotExist) {
		return r, false, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	r.dir = dir
	return r, err == nil, err
}

// prepare checks that all is there that the job needs, before anything starts.
func (j *job) prepare(ctx context.Context) error {
	if j.records < minRecords {
		return fmt.Errorf("-records is %d; it must be at least %d", j.records, minRecords)
	}
	for _, file := range []string{j.hansa, j.goApp} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w; `make build` builds it", err)
		}
	}
	for _, name := range []string{"go", "node", "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%s is needed and not installed: Go 1.26 builds the contract, Node 20.9 or later runs the Fabric application", name)
		}
	}
	if _, err := os.Stat(filepath.Join(j.nodeDir(), "node_modules", "@hyperledger", "fabric-gateway")); err == nil {
		return nil
	}
	j.out.title("Install Fabric's Node client from npm")
	install := program(ctx, "npm", "ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	install.Dir = j.nodeDir()
	_, err := output(install)
	return err
}

// start brings the network up, unless it runs, and the contract on its channel.
// It returns how much of the time went into compiling the contract.
func (j *job) start(ctx context.Context, n *network) (building time.Duration, err error) {
	begun := time.Now()
	if _, err := n.nodes(ctx); errors.Is(err, errNotRunning) {
		if err := n.start(ctx, j.port); err != nil {
			return 0, err
		}
		j.out.say("it serves after %.2f s", time.Since(begun).Seconds())
	} else if err != nil {
		return 0, err
	} else {
		n.serves = true
		j.out.say("it runs already")
	}
	switch there, err := n.hasContract(ctx, contractName); {
	case err != nil:
		return 0, err
	case there:
		j.out.say("contract %q is on its channel", contractName)
		return 0, nil
	}
	begun = time.Now()
	building, err = n.deploy(ctx, filepath.Join(j.root, "examples", "contracts", contractName))
	if err != nil {
		return 0, err
	}
	j.out.say("contract %q compiled in %.2f s, then put on its channel in %.2f s",
		contractName, building.Seconds(), (time.Since(begun) - building).Seconds())
	return building, nil
}

// work runs both applications, one after the other.
func (j *job) work(ctx context.Context, n *network, r round, checkpoints string) (result, error) {
	clients := map[string]summary{}
	nodes, err := n.nodes(ctx)
	if err != nil {
		return result{}, err
	}
	before, err := cpu(nodes)
	if err != nil {
		return result{}, err
	}
	for _, a := range j.applications() {
		j.out.title("%s", a.title)
		s, err := j.apply(ctx, n, a, "--records", r.recordsOf(a), "--checkpoint", filepath.Join(checkpoints, a.name+".checkpoint"),
			"--wrong-owner", fmt.Sprint(intrusions), "--to", a.to)
		if err != nil {
			return result{}, err
		}
		if err := r.Of[a.name].check("the application "+a.name, s); err != nil {
			return result{}, err
		}
		clients[a.name] = s
	}
	used, err := cpu(nodes)
	if err != nil {
		return result{}, err
	}
	for role := range used {
		used[role] -= before[role]
	}
	return together(clients, used), nil
}

// apply runs one application to its end. The person sees what it shows.
func (j *job) apply(ctx context.Context, n *network, a application, args ...string) (summary, error) {
	all := append(slices.Clone(a.command), "--json", "--data", n.dir, "--as", a.as, "--concurrency", fmt.Sprint(j.concurrency))
	c := program(ctx, all[0], append(all[1:], args...)...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, j.out.File
	err := c.Run()
	var s summary
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &s)
	}
	if err != nil {
		return s, fmt.Errorf("the application %s failed (%w) and says why above; what the network's processes wrote is in %s", a.name, err, n.logs())
	}
	return s, nil
}

// verify reads the records of a round once more and returns how many are missing.
func (j *job) verify(ctx context.Context, n *network, r round) (lost int, err error) {
	reader := j.applications()[0]
	for _, a := range j.applications() {
		s, err := j.apply(ctx, n, reader, "--records", r.recordsOf(a), "--verify")
		if err != nil {
			return 0, err
		}
		lost += r.Of[a.name].Good - s.Found
	}
	return lost, nil
}

// run does the job and stays.
func (j *job) run(ctx context.Context, dir string) (err error) {
	if err := j.prepare(ctx); err != nil {
		return err
	}
	n := &network{hansa: j.hansa, dir: filepath.Join(dir, "network")}
	rounds := filepath.Join(dir, "rounds")
	if !n.exists() {
		// Records of a network that is gone say nothing about a new one.
		if err := os.RemoveAll(rounds); err != nil {
			return err
		}
	}
	defer func() {
		err = unlessInterrupted(ctx, err)
		if n.serves {
			j.out.title("\nStopping the network; its data stays in %s", n.dir)
		}
		if n.serves || n.up != nil {
			err = errors.Join(err, n.stop(ctx))
		}
	}()
	j.out.title("A business network of two members in %s", n.dir)
	if _, err := j.start(ctx, n); err != nil {
		return err
	}
	earlier, err := filepath.Glob(filepath.Join(rounds, "*"))
	if err != nil {
		return err
	}
	number := 1
	for _, name := range earlier {
		var k int
		if _, err := fmt.Sscanf(filepath.Base(name), "%d", &k); err == nil {
			number = max(number, k+1)
		}
	}
	for last := number - 1; last > 0; last-- {
		ok, err := j.verifyRound(ctx, n, filepath.Join(rounds, fmt.Sprint(last)))
		if err != nil {
			return err
		}
		if ok {
			break
		}
	}
	j.out.title("\nShipment records for round %d, in %s", number, filepath.Join(rounds, fmt.Sprint(number)))
	r, err := j.newRound(filepath.Join(rounds, fmt.Sprint(number)), number)
	if err != nil {
		return err
	}
	fmt.Fprintln(j.out)
	found, err := j.work(ctx, n, r, dir)
	if err != nil {
		return err
	}
	if err := r.finish(); err != nil {
		return err
	}
	j.out.title("CPU for each committed transaction")
	j.out.say("%.1f ms in all:%s", found.CPUMsPerTx, byRole(found.CPUByRole))
	return j.stay(ctx, n)
}

// unlessInterrupted replaces the failures that come of an interrupt.
func unlessInterrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return err
}

func byRole(cpu map[string]float64) string {
	var b strings.Builder
	for _, role := range slices.SortedFunc(maps.Keys(cpu), func(a, b string) int { return int(1000*cpu[b]) - int(1000*cpu[a]) }) {
		fmt.Fprintf(&b, "  %s %.1f ms", role, cpu[role])
	}
	return b.String()
}

// verifyRound sees whether the records of an earlier round are still there; ok is
// false for a round that was interrupted.
func (j *job) verifyRound(ctx context.Context, n *network, dir string) (ok bool, err error) {
	r, ok, err := loadRound(dir)
	if err != nil || !ok {
		return false, err
	}
	j.out.title("\nThe records of round %s, from an earlier start", filepath.Base(dir))
	lost, err := j.verify(ctx, n, r)
	if err == nil && lost > 0 {
		err = fmt.Errorf("%d shipments of %s are not in the ledger any more as they were; what the network's processes wrote is in %s", lost, dir, n.logs())
	}
	return true, err
}

// stay keeps the network up until Ctrl-C, or until somebody else stops it.
func (j *job) stay(ctx context.Context, n *network) error {
	about, err := n.nodes(ctx)
	if err != nil {
		return err
	}
	j.out.title("\nThe network is up")
	for _, node := range about {
		j.out.say("%-22s %-10s %s", node.Name, node.Role, node.Address)
	}
	here := func(path string) string {
		if wd, err := os.Getwd(); err == nil {
			if short, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(short, "..") {
				return short
			}
		}
		return path
	}
	hansa, data := here(n.hansa), here(n.dir)
	fmt.Fprintf(j.out, `
  Connection profiles   %s
  Identities            %s

  Try   %s tx evaluate %s List 3 "" --data %s
        %s status --data %s
        %s logs -f --data %s

`, filepath.Join(data, "members", "ORG", "connection.json"), filepath.Join(data, "crypto", "peerOrganizations"),
		hansa, contractName, data, hansa, data, hansa, data)
	j.out.title("Ctrl-C stops it; the next start goes on with all it has.")
	select {
	case <-ctx.Done():
	case <-n.ended: // never, if it was running before
		n.up, n.serves = nil, false
		j.out.title("\nThe network has stopped: by `hansa down`, or it failed; then %s says why", n.log())
	}
	return nil
}

// smoke does the job with a network that goes again.
func (j *job) smoke(ctx context.Context) (err error) {
	if err := j.prepare(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hansa-smoke-")
	if err != nil {
		return err
	}
	n := &network{hansa: j.hansa, dir: filepath.Join(dir, "network")}
	defer func() {
		if err == nil || ctx.Err() != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		} else {
			err = fmt.Errorf("%w\nall files of this run are kept in %s; what its processes wrote is in %s", err, dir, n.logs())
		}
	}()
	defer func() {
		err = unlessInterrupted(ctx, err)
		if n.up != nil {
			err = errors.Join(err, n.stop(ctx))
		}
	}()

	j.out.title("Shipment records")
	r, err := j.newRound(dir, 1)
	if err != nil {
		return err
	}
	j.out.title("\nA fresh network in %s", n.dir)
	begun := time.Now()
	building, err := j.start(ctx, n)
	if err != nil {
		return err
	}
	fmt.Fprintln(j.out)
	found, err := j.work(ctx, n, r, dir)
	if err != nil {
		return err
	}
	found.FirstCommitS = rounded((found.Clients["go"].FirstCommitAt.Sub(begun) - building).Seconds())

	j.out.title("Stop the network, and start it again: is everything there?")
	if err := j.stop(ctx, n); err != nil {
		return err
	}
	if _, err := j.start(ctx, n); err != nil {
		return err
	}
	lost, err := j.verify(ctx, n, r)
	if err != nil {
		return err
	}
	found.Lost += lost
	if err := j.stop(ctx, n); err != nil {
		return err
	}
	if found.Lost > 0 {
		return fmt.Errorf("%d shipments are lost", found.Lost)
	}
	return json.NewEncoder(j.out).Encode(found)
}

// stop stops the network and sees that none of its processes stays behind.
func (j *job) stop(ctx context.Context, n *network) error {
	nodes, err := n.nodes(ctx)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := n.stop(ctx); err != nil {
		return err
	}
	j.out.say("it stopped in %.2f s", time.Since(begun).Seconds())
	for _, node := range nodes {
		if syscall.Kill(node.PID, 0) == nil {
			return fmt.Errorf("process %d (%s) runs on after the network was stopped", node.PID, node.Name)
		}
	}
	return nil
}
