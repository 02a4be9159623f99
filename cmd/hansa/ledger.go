package main

import (
	"github.com/spf13/cobra"

	"github.com/hansa-ledger/hansa/internal/audit"
)

func newLedger() *cobra.Command {
	c := &cobra.Command{
		Use:     "ledger",
		Short:   "Check ledgers without trusting the node that wrote them",
		GroupID: "use",
	}
	c.AddCommand(newLedgerVerify(), newLedgerReplay())
	return c
}

func newLedgerVerify() *cobra.Command {
	var o audit.Options
	c := &cobra.Command{
		Use:   "verify DIR",
		Short: "Recompute every hash, signature, validation code and the state of a peer's ledger",
		Args:  cobra.ExactArgs(1),
		Long: `Check the ledger of one channel of a peer that is not running: every hash, every orderer's signature, every validation
code and commit hash is computed again from the blocks, and the state compared with what they make of it.

DIR is the channel's folder in the peer's data folder, DATADIR/channels/CHANNEL.`,
		Example: "  hansa ledger verify my-network/nodes/peer0.org1/data/channels/business",
		RunE: func(cmd *cobra.Command, args []string) error {
			return audit.Verify(cmd.Context(), args[0], cmd.OutOrStdout(), o)
		},
	}
	tempFlag(c, &o)
	return c
}

func newLedgerReplay() *cobra.Command {
	var o audit.Options
	c := &cobra.Command{
		Use:   "replay DIR",
		Short: "Commit the blocks of a folder again and compare what comes out",
		Args:  cobra.ExactArgs(1),
		Long: `Take blocks through the commit pipeline and print for each what came out as one JSON object: its number, validation codes
and commit hash; in the last line how many blocks and transactions matched. DIR is a ledger's folder, or one of files
named NUMBER.block (or one that holds such a folder as blocks/). What comes out is compared with the blocks' own
metadata, or with --expect.

With --dir the ledger that is made stays there, and a later replay goes on with it, also after a kill -9 at any moment.`,
		Example: "  hansa ledger replay --expect testdata/vectors/expected.json testdata/vectors",
		RunE: func(cmd *cobra.Command, args []string) error {
			return audit.Replay(cmd.Context(), args[0], cmd.OutOrStdout(), o)
		},
	}
	c.Flags().StringVar(&o.Dir, "dir", "", "the `folder` for the ledger that is made; it stays, and the next replay goes on with it")
	c.Flags().StringVar(&o.Expect, "expect", "", "a JSON `file` with the expected outcome")
	tempFlag(c, &o)
	return c
}

func tempFlag(c *cobra.Command, o *audit.Options) {
	c.Flags().StringVar(&o.TempDir, "temp", "", "the `folder` for the ledger that is made to compare with (default: the system's)")
}
