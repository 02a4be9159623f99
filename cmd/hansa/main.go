// Command hansa is the whole of Hansa in one binary: each role of a network is a
// subcommand that runs one node as one process, and the rest is for the people
// who run, use and check networks. `hansa up` starts a network on this machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hansa-ledger/hansa/internal/node"
	"github.com/hansa-ledger/hansa/internal/provision"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	name, root := filepath.Base(os.Args[0]), newRoot()
	if dropin := newDropin(name); dropin != nil {
		root = dropin
	} else {
		name = "hansa"
	}
	err := unknownCommand(root, os.Args[1:])
	if err == nil {
		var ran *cobra.Command
		ran, err = root.ExecuteContextC(ctx)
		err = whyUnreachable(ran, err)
		if err != nil && ctx.Err() != nil && strings.Contains(err.Error(), context.Canceled.Error()) {
			err = errors.New("interrupted")
		}
	}
	stop()
	if err != nil {
		if !errors.Is(err, errSilent) {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		}
		os.Exit(1)
	}
}

// errSilent ends a command with a failure that it has reported itself.
var errSilent = errors.New("failed")

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "hansa",
		Short: "A managed blockchain for business networks, compatible with Hyperledger Fabric",
		Long: `Hansa runs permissioned ledgers for business networks. Its nodes speak the protocols of Hyperledger Fabric, so that
Fabric's SDKs, contracts and tools work with them as they are.

Start a network of two members on this machine, and stop it again:

    hansa up --data my-network
    hansa down --data my-network`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddGroup(
		&cobra.Group{ID: "network", Title: "Networks on this machine:"},
		&cobra.Group{ID: "use", Title: "Using a network:"},
		&cobra.Group{ID: "role", Title: "Running one node:"})
	for _, c := range []*cobra.Command{
		newUp(), newDown(), newStatus(), newLogs(),
		newChannel(), newContract(), newTx(), newLedger(), newSnapshot(), newBench(),
		newPeer(), newOrderer(), newCA(),
	} {
		root.AddCommand(c)
	}
	sayUsage(root)
	return root
}

// sayUsage makes commands that get wrong arguments say which they take.
func sayUsage(c *cobra.Command) {
	for _, sub := range c.Commands() {
		sayUsage(sub)
	}
	if check := c.Args; check != nil && !c.HasSubCommands() {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return fmt.Errorf("%w; the command is: %s", err, cmd.UseLine())
			}
			return nil
		}
	}
}

// unknownCommand refuses what is no subcommand of a command that does nothing itself: cobra would
// print help and succeed.
func unknownCommand(root *cobra.Command, args []string) error {
	c, rest, err := root.Find(args)
	if err != nil || c == root || c.Runnable() || len(rest) == 0 || strings.HasPrefix(rest[0], "-") {
		return nil // cobra's to say
	}
	return fmt.Errorf("unknown command %q for %q; `%s --help` lists what there is", rest[0], c.CommandPath(), c.CommandPath())
}

// whyUnreachable says of a node of a network on this machine that refuses connections that the
// network does not run, if that is why.
func whyUnreachable(c *cobra.Command, err error) error {
	if err == nil || c.Flag("data") == nil || !strings.Contains(err.Error(), syscall.ECONNREFUSED.Error()) {
		return err
	}
	for _, name := range []string{"peer", "orderer", "config"} { // a node elsewhere
		if f := c.Flag(name); f != nil && f.Changed {
			return err
		}
	}
	control, failed := provision.NewControl(c.Flag("data").Value.String())
	if failed != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, failed = control.Status(ctx); errors.Is(failed, provision.ErrNotRunning) {
		return failed
	}
	return err
}

func version() string {
	v := node.Version()
	parts := []string{v["Version"]}
	if sha := v["CommitSHA"]; sha != "" {
		parts = append(parts, sha[:min(12, len(sha))])
	}
	return strings.Join(append(parts, v["GoVersion"]), " ")
}
