// Command mainjob shows Hansa at work. It starts a business network of two members
// on this machine, puts the shipment contract on its channel, makes a file of
// shipment records for each of two applications, one with Hansa's Go client and one
// with Fabric's own Node client, and runs both.
//
//	mainjob run     stays up then and says how to reach the network; Ctrl-C stops
//	                it, and started again it goes on with all it had
//	mainjob smoke   does it with a fresh network in a temporary folder, stops it,
//	                starts it once more to see that all is still there, removes it,
//	                and prints what came of it as one JSON object in the last line
//
// It calls the hansa command as a person would; `make run` and `make smoke` build
// what it needs. Open job.go for what is done, network.go for how hansa is called,
// result.go for the numbers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := command(ctx, os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "\nmainjob:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if len(args) == 0 || (args[0] != "run" && args[0] != "smoke") {
		return errors.New("say what to do: mainjob run, or mainjob smoke; each has -help")
	}
	j := &job{out: newScreen(os.Stdout)}
	flags := flag.NewFlagSet("mainjob "+args[0], flag.ContinueOnError)
	flags.StringVar(&j.root, "root", ".", "the `folder` of the repository")
	flags.StringVar(&j.hansa, "hansa", "bin/hansa", "the hansa `binary`")
	flags.StringVar(&j.goApp, "app-go", "bin/app-go", "the `binary` of examples/app-go")
	flags.IntVar(&j.concurrency, "concurrency", 16, "transactions that each application has in flight")
	flags.Uint64Var(&j.seed, "seed", 1, "what the records are made from")
	port, records, dir := 7050, 2000, "run"
	if args[0] == "run" {
		flags.StringVar(&dir, "dir", dir, "the `folder` of the network and the records")
	} else {
		port, records = 0, 600
	}
	flags.IntVar(&j.port, "port", port, "first port of a new network; 0 takes free ones")
	flags.IntVar(&j.records, "records", records, "records for each of the two applications")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is not expected", flags.Arg(0))
	}
	if err := absolute(&j.root, &j.hansa, &j.goApp, &dir); err != nil {
		return err
	}
	if args[0] == "run" {
		return j.run(ctx, dir)
	}
	return j.smoke(ctx)
}

func absolute(paths ...*string) (err error) {
	for _, p := range paths {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	return nil
}
