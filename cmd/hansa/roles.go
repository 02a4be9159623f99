package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/hansa-ledger/hansa/internal/node"
)

func newPeer() *cobra.Command {
	c := newRole("peer", "Run a peer: it endorses, validates and commits transactions and serves the Gateway",
		node.PeerExample, func() any { return &node.PeerConfig{} },
		func(ctx context.Context, c any, level *slog.LevelVar, log *slog.Logger) error {
			return node.RunPeer(ctx, *c.(*node.PeerConfig), level, log)
		})
	for _, offline := range offlineCommands() {
		c.AddCommand(newOffline(offline))
	}
	return c
}

func newOrderer() *cobra.Command {
	c := newRole("orderer", "Run an ordering node, or change who orders a channel",
		node.OrdererExample, func() any { return &node.OrdererConfig{} },
		func(ctx context.Context, c any, level *slog.LevelVar, log *slog.Logger) error {
			return node.RunOrderer(ctx, *c.(*node.OrdererConfig), level, log)
		})
	c.AddCommand(ordererCommands()...)
	return c
}

func newCA() *cobra.Command {
	return newRole("ca", "Run a member's certificate authority, with the REST API of Fabric CA",
		node.CAExample, func() any { return &node.CAConfig{} },
		func(ctx context.Context, c any, level *slog.LevelVar, log *slog.Logger) error {
			return node.RunCA(ctx, *c.(*node.CAConfig), level, log)
		})
}

// newRole makes the subcommand of one role: it reads the configuration and runs
// the node until it is stopped.
func newRole(role, short, example string, config func() any, run func(context.Context, any, *slog.LevelVar, *slog.Logger) error) *cobra.Command {
	var file string
	var printExample bool
	c := &cobra.Command{
		Use:     role + " --config FILE",
		Short:   short,
		GroupID: "role",
		Args:    cobra.NoArgs,
		Long: short + `.

The configuration is a YAML file; --example prints a complete one that documents every setting. Each setting can be
overridden by an environment variable. An unknown setting is an error.`,
		Example: fmt.Sprintf("  hansa %[1]s --example > %[1]s.yaml\n  hansa %[1]s --config %[1]s.yaml", role),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if printExample {
				fmt.Fprint(cmd.OutOrStdout(), example)
				return nil
			}
			if file == "" {
				return fmt.Errorf("--config is missing; `hansa %s --example` prints a file to start from", role)
			}
			c := config()
			if err := node.LoadConfig(file, role, os.Environ(), c); err != nil {
				return err
			}
			level := new(slog.LevelVar)
			log, err := node.NewLogger(logConfig(c), level, os.Stderr)
			if err != nil {
				return err
			}
			log = log.With("role", role)
			if err := run(cmd.Context(), c, level, log); err != nil && !errors.Is(err, context.Canceled) {
				log.Error("stopped", "error", err)
				return errSilent
			}
			return nil
		},
	}
	c.Flags().StringVar(&file, "config", "", "the configuration `file`")
	c.Flags().BoolVar(&printExample, "example", false, "print a configuration that documents every setting, and end")
	return c
}

func logConfig(c any) node.LogConfig {
	switch c := c.(type) {
	case *node.PeerConfig:
		return c.Log
	case *node.OrdererConfig:
		return c.Log
	case *node.CAConfig:
		return c.Log
	}
	return node.LogConfig{}
}
