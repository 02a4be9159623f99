// Command clusters measures what more orderers cost: fresh networks of 1, 3, 5 and 7 orderers, and one of 3 of which one is dead, one
// after the other on one machine, each under the same load of `hansa bench`. It prints a Markdown table for docs/reliability.md.
//
// Flushes and bytes are read from the orderers' own metrics before and after each load. All nodes share the machine's cores and its one
// disk, so that the table tells what an orderer more costs, not what a service of machines of their own would bear.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	binary := flag.String("hansa", "bin/hansa", "the binary")
	duration := flag.Duration("duration", 8*time.Second, "how long each load lasts")
	concurrency := flag.String("concurrency", "1,64", "calls in flight, one load each")
	sizes := flag.String("orderers", "1,3,3-1,5,7", "networks to measure; 3-1 is three orderers of which one is dead")
	flag.Parse()
	path, err := filepath.Abs(*binary)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("| orderers | calls in flight | tx/s | p50 | p99 | tx a block | flushes a block, leader | all orderers | bytes a block, leader to a follower | a follower to the leader, a transaction |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	for size := range strings.SplitSeq(*sizes, ",") {
		if err := measure(path, size, strings.Split(*concurrency, ","), *duration); err != nil {
			log.Fatalf("%s orderers: %v", size, err)
		}
	}
}

// network is one that `hansa up` runs.
type network struct{ binary, dir string }

func (n *network) hansa(args ...string) ([]byte, error) {
	var stderr bytes.Buffer
	command := exec.Command(n.binary, append(args, "--data", n.dir)...)
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		err = fmt.Errorf("hansa %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return output, err
}

// result is a line of `hansa bench --json`.
type result struct {
	Committed int     `json:"committed"`
	TxPerS    float64 `json:"tx_per_s"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Blocks    int     `json:"blocks"`
}

func measure(binary, size string, loads []string, duration time.Duration) (err error) {
	count, dead, err := parse(size)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hansa-clusters-")
	if err != nil {
		return err
	}
	n := &network{binary, dir}
	defer func() {
		_, stopped := n.hansa("down", "--purge")
		err = errors.Join(err, stopped, os.RemoveAll(dir))
	}()
	if _, err := n.hansa("up", "--orderers", strconv.Itoa(count), "--port", "0", "--detach"); err != nil {
		return err
	}
	// The contract gets onto the channel, and all get warm.
	if _, err := n.hansa("bench", "--workload", "create", "--concurrency", "16", "--duration", "1s", "--json"); err != nil {
		return err
	}
	for range dead {
		if err := n.killFollower(); err != nil {
			return err
		}
	}
	name := strconv.Itoa(count)
	if dead > 0 {
		name = fmt.Sprintf("%d, %d of them dead", count, dead)
	}
	for _, load := range loads {
		before, err := n.counters()
		if err != nil {
			return err
		}
		output, err := n.hansa("bench", "--workload", "create", "--concurrency", load, "--duration", duration.String(), "--json")
		if err != nil {
			return err
		}
		var r result
		if err := json.Unmarshal(output, &r); err != nil {
			return err
		}
		after, err := n.counters()
		if err != nil {
			return err
		}
		row(name, load, r, before, after)
	}
	return nil
}

func parse(size string) (count, dead int, err error) {
	all, down, some := strings.Cut(size, "-")
	count, err = strconv.Atoi(all)
	if err == nil && some {
		dead, err = strconv.Atoi(down)
	}
	return count, dead, err
}

// counters are what the orderers have counted, by orderer.
type counters map[string]*counter

type counter struct {
	leads        bool
	height       float64
	flushes      float64
	consensus    map[string]float64 // bytes, by the series of the link
	envelopes    float64            // bytes
	envelopeSent float64            // messages
}

type process struct {
	Name  string `json:"name"`
	Dir   string `json:"dir"`
	Ready string `json:"ready"`
	PID   int    `json:"pid"`
}

func (n *network) orderers() (all []process, err error) {
	output, err := n.hansa("status", "--json")
	if err != nil {
		return nil, err
	}
	var every []process
	if err := json.Unmarshal(output, &every); err != nil {
		return nil, err
	}
	for _, p := range every {
		if strings.HasPrefix(p.Name, "orderer") && p.PID != 0 {
			all = append(all, p)
		}
	}
	return all, nil
}

func (n *network) counters() (counters, error) {
	orderers, err := n.orderers()
	if err != nil {
		return nil, err
	}
	all := counters{}
	for _, o := range orderers {
		c, err := o.count()
		if err != nil {
			if len(all) > 0 && errors.Is(err, syscall.ECONNREFUSED) {
				continue // it is being started in vain
			}
			return nil, fmt.Errorf("metrics of %s: %w", o.Name, err)
		}
		all[o.Name] = c
	}
	return all, nil
}

func (p process) count() (*counter, error) {
	response, err := http.Get(strings.TrimSuffix(p.Ready, "/readyz") + "/metrics")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	c := &counter{consensus: map[string]float64{}}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		name, text, found := strings.Cut(lines.Text(), "} ")
		value, err := strconv.ParseFloat(text, 64)
		if !found || err != nil {
			continue
		}
		metric, labels, _ := strings.Cut(name, "{")
		envelopes := strings.Contains(labels, `kind="envelopes"`)
		switch metric {
		case "hansa_raft_leader":
			c.leads = value == 1
		case "hansa_order_height_blocks":
			c.height += value
		case "hansa_order_fsyncs_total":
			c.flushes += value
		case "hansa_cluster_sent_bytes_total":
			if envelopes {
				c.envelopes += value
			} else {
				c.consensus[labels] = value
			}
		case "hansa_cluster_sent_messages_total":
			if envelopes {
				c.envelopeSent += value
			}
		}
	}
	return c, lines.Err()
}

func row(name, load string, r result, before, after counters) {
	var flushes, leader, consensus, envelopes, sent, blocks float64
	for name, a := range after {
		b := before[name]
		if b == nil {
			b = &counter{}
		}
		flushes += a.flushes - b.flushes
		if a.leads {
			blocks = a.height - b.height
			leader = a.flushes - b.flushes
			links := 0.
			for link, bytes := range a.consensus {
				if more := bytes - b.consensus[link]; more > 0 { // the dead get nothing
					consensus += more
					links++
				}
			}
			consensus /= max(links, 1)
		} else {
			envelopes += a.envelopes - b.envelopes
			sent += a.envelopeSent - b.envelopeSent
		}
	}
	per := func(value, of float64) string {
		if of == 0 || value == 0 {
			return ""
		}
		return strconv.FormatFloat(value/of, 'f', 1, 64)
	}
	whole := func(value, of float64) string {
		if of == 0 || value == 0 {
			return ""
		}
		return strconv.Itoa(int(value / of))
	}
	fmt.Printf("| %s | %s | %.0f | %.1f ms | %.1f ms | %s | %s | %s | %s | %s |\n", name, load, r.TxPerS, r.P50, r.P99, per(float64(r.Committed), float64(r.Blocks)),
		per(leader, blocks), per(flushes, blocks), whole(consensus, blocks), whole(envelopes, sent))
}

// killFollower kills an orderer that does not lead, so that it stays dead: without its configuration it cannot be started again.
func (n *network) killFollower() error {
	orderers, err := n.orderers()
	if err != nil {
		return err
	}
	for _, o := range orderers {
		c, err := o.count()
		if err != nil {
			return err
		}
		if c.leads {
			continue
		}
		config := filepath.Join(o.Dir, "orderer.yaml")
		if err := os.Rename(config, config+".away"); err != nil {
			return err
		}
		return syscall.Kill(o.PID, syscall.SIGKILL)
	}
	return errors.New("there is no follower")
}
