// Command generate writes a file of shipment records, one JSON object a line. The
// same flags give the same file.
//
//	go run ./examples/shipments/generate -count 3000 -seed 7 > shipments.jsonl
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/hansa-ledger/hansa/examples/shipments"
)

func main() {
	var o shipments.Options
	flag.Uint64Var(&o.Seed, "seed", 1, "what the records are made from")
	flag.IntVar(&o.Count, "count", 3000, "how many records")
	flag.StringVar(&o.Series, "series", "", "a part of every id: up to 16 capital letters and digits (default: made of the seed)")
	flag.Float64Var(&o.Flawed, "flawed", 0.03, "the `share` of records that must be rejected: ids given twice, broken rules")
	members := flag.String("members", "Org1MSP,Org2MSP", "MSP ids of the receivers")
	flag.Parse()
	o.Members = strings.Split(*members, ",")
	if err := write(o); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func write(o shipments.Options) error {
	set, err := shipments.Make(o)
	if err != nil {
		return err
	}
	if _, err := set.WriteTo(os.Stdout); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d records: %d good, %d with an id that was given before, %d invalid\n",
		len(set.Lines), set.Good(), set.Duplicates, set.Invalid)
	return nil
}
