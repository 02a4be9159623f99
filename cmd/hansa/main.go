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

	"github.com/spf13/cobra"

	"github.com/hansa-ledger/hansa/internal/node"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	name, root := filepath.Base(os.Args[0]), newRoot()
	if dropin := newDropin(name); dropin != nil {
		root = dropin
	} else {
		name = "hansa"
	}
	err := root.ExecuteContext(ctx)
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
	return root
}

func version() string {
	v := node.Version()
	parts := []string{v["Version"]}
	if sha := v["CommitSHA"]; sha != "" {
		parts = append(parts, sha[:min(12, len(sha))])
	}
	return strings.Join(append(parts, v["GoVersion"]), " ")
}
