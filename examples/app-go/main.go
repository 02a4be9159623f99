// Command app-go is an application on a Hansa network: it loads a file of shipment
// records into the ledger, has members hand shipments to each other, reads all
// back, follows the contract's events, and says how that went.
//
//	go run ./examples/app-go -data hansa-network -records shipments.jsonl
//
// It uses nothing but the public package client, as any Go program outside this
// repository would. Open work.go for what it does with the ledger; member.go for
// how it connects; tally.go and progress.go are for the person who looks on. The
// same application for Node, with Fabric's own client, is in examples/app-node.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// config is what the flags say.
type config struct {
	data, records, checkpoint string
	as, to                    string
	channel, contract         string
	concurrency               int
	transfers                 float64
	intrusions                int
	verify, json              bool
}

func main() {
	var c config
	flag.StringVar(&c.data, "data", "hansa-network", "the `folder` of the network")
	flag.StringVar(&c.records, "records", "shipments.jsonl", "the `file` with one record a line")
	flag.StringVar(&c.checkpoint, "checkpoint", "", "a `file` that remembers which events were handled (default: none, from the first block on)")
	flag.StringVar(&c.as, "as", "org1", "the member whose application this is")
	flag.StringVar(&c.to, "to", "org2", "the member to hand shipments to")
	flag.StringVar(&c.channel, "channel", "business", "channel")
	flag.StringVar(&c.contract, "contract", "shipment", "contract")
	flag.IntVar(&c.concurrency, "concurrency", 16, "how many transactions are in flight at once")
	flag.Float64Var(&c.transfers, "transfers", 0.2, "the share of the shipments to hand over, and half of those back")
	flag.IntVar(&c.intrusions, "wrong-owner", 10, "how many shipments to claim that others hold: all must be rejected")
	flag.BoolVar(&c.verify, "verify", false, "only read the records back, from an earlier run")
	flag.BoolVar(&c.json, "json", false, "print the summary as one JSON object, and all else on standard error")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, c); err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "app-go:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c config) error {
	if c.concurrency < 1 || c.transfers < 0 || c.transfers > 1 || c.intrusions < 0 {
		return errors.New("-concurrency must be at least 1, -transfers between 0 and 1, and -wrong-owner not negative")
	}
	records, err := readRecords(c.records)
	if err != nil {
		return err
	}
	own, err := connect(c, c.as)
	if err != nil {
		return err
	}
	defer own.Close()
	other, err := connect(c, c.to)
	if err != nil {
		return err
	}
	defer other.Close()

	var out io.Writer = os.Stdout
	if c.json {
		out = os.Stderr
	}
	w := &work{config: c, own: own, other: other, tally: newTally(), screen: newScreen(out)}
	if c.verify {
		err = w.verify(ctx, records)
	} else {
		err = w.all(ctx, records)
	}
	if err != nil {
		return err
	}
	s := w.summary()
	s.print(out)
	if c.json {
		if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
			return err
		}
	}
	return s.verdict()
}
