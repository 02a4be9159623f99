package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hansa-ledger/hansa/internal/fabricconfig"
	"github.com/hansa-ledger/hansa/internal/node"
)

// newDropin is the command of a link to this program that bears the name of one of
// Fabric's nodes: started as Fabric's, it reads Fabric's configuration. nil: another name.
func newDropin(name string) *cobra.Command {
	var root *cobra.Command
	switch name {
	case "peer":
		root = &cobra.Command{Use: "peer", Short: "Run a peer of Hansa with Fabric's core.yaml",
			Long: `Run a peer of Hansa with Fabric's core.yaml, from FABRIC_CFG_PATH, and CORE_* variables.

The commands of Fabric's peer that call a node, such as peer channel and peer lifecycle, are handed to Fabric's own peer, the next program of that
name in PATH. They work with this node as with Fabric's.`}
		for _, name := range []string{"channel", "chaincode", "lifecycle", "snapshot"} {
			root.AddCommand(&cobra.Command{Use: name, Short: "Handed to Fabric's own peer", DisableFlagParsing: true,
				RunE: func(*cobra.Command, []string) error { return handOver(name) }})
		}
		group := &cobra.Command{Use: "node", Short: "Run the peer"}
		group.AddCommand(startDropin("peer"))
		for _, offline := range offlineCommands() {
			group.AddCommand(offlineDropin(offline))
		}
		root.AddCommand(group)
	case "orderer":
		// Without a command Fabric's orderer starts.
		start := startDropin("orderer")
		root = &cobra.Command{Use: "orderer", Short: "Run an orderer of Hansa with Fabric's orderer.yaml", Args: cobra.NoArgs, RunE: start.RunE,
			Long: `Run an orderer of Hansa with Fabric's orderer.yaml, from FABRIC_CFG_PATH, and ORDERER_* variables.`}
		root.AddCommand(start)
	default:
		return nil
	}
	root.SilenceUsage, root.SilenceErrors = true, true
	root.AddCommand(&cobra.Command{Use: "version", Short: "Show the version", Args: cobra.NoArgs, Run: func(cmd *cobra.Command, _ []string) {
		v := node.Version()
		fmt.Fprintf(cmd.OutOrStdout(), "%s:\n Version: %s\n Commit SHA: %s\n Go version: %s\n OS/Arch: %s/%s\n",
			name, v["Version"], v["CommitSHA"], runtime.Version(), runtime.GOOS, runtime.GOARCH)
	}})
	return root
}

// handedOver is set for the program that handOver starts.
const handedOver = "HANSA_PEER_HANDED_OVER"

// handOver goes on as Fabric's own peer, with the same arguments: the next program of that name in PATH.
func handOver(command string) error {
	missing := fmt.Errorf("there is no command %q here: it is one of Fabric's own peer; have that in PATH, behind the folder of this program", command)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	own, err := os.Stat(self)
	if err != nil || os.Getenv(handedOver) != "" { // a script that calls us again
		return missing
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		program, err := exec.LookPath(filepath.Join(dir, "peer"))
		if err != nil {
			continue
		}
		if info, err := os.Stat(program); err != nil || os.SameFile(info, own) {
			continue
		}
		return fmt.Errorf("%s: %w", program, syscall.Exec(program, os.Args, append(os.Environ(), handedOver+"=1")))
	}
	return missing
}

func startDropin(role string) *cobra.Command {
	return &cobra.Command{Use: "start", Short: "Start the node; it runs until it is stopped", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var (
				notices []fabricconfig.Notice
				logging node.LogConfig
				run     func(context.Context, *slog.LevelVar, *slog.Logger) error
			)
			if role == "peer" {
				c, n, err := node.FabricPeer(os.Environ())
				if err != nil {
					return err
				}
				notices, logging = n, c.Log
				run = func(ctx context.Context, level *slog.LevelVar, log *slog.Logger) error {
					return node.RunPeer(ctx, c, level, log)
				}
			} else {
				c, n, err := node.FabricOrderer(os.Environ())
				if err != nil {
					return err
				}
				notices, logging = n, c.Log
				run = func(ctx context.Context, level *slog.LevelVar, log *slog.Logger) error {
					return node.RunOrderer(ctx, c, level, log)
				}
			}
			level := new(slog.LevelVar)
			log, err := node.NewLogger(logging, level, os.Stderr)
			if err != nil {
				return err
			}
			log = log.With("role", role)
			for _, n := range notices {
				log.Log(cmd.Context(), n.Level, n.Text, "setting", n.Key, "source", n.Source)
			}
			if err := run(cmd.Context(), level, log); err != nil && !errors.Is(err, context.Canceled) {
				log.Error("stopped", "error", err)
				return errSilent
			}
			return nil
		}}
}
