package main

import (
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/hansa-ledger/hansa/internal/admin"
	"github.com/hansa-ledger/hansa/internal/provision"
)

func newSnapshot() *cobra.Command {
	c := &cobra.Command{
		Use:     "snapshot",
		Short:   "Take snapshots of a channel, and join a channel by one",
		GroupID: "use",
		Long: `A snapshot is a channel's ledger after one block, without the blocks: files in Hyperledger Fabric's own format, with
which other peers, of Hansa and of Fabric, join the channel. A peer puts it into the folder snapshots/completed/CHANNEL/BLOCK
of its data, and goes on working meanwhile.`,
	}
	var block uint64
	request := newSnapshotCommand("request", "Have a peer take a snapshot", "request --block 1000", cobra.NoArgs, func(cmd *cobra.Command, n *provision.Network, p *admin.Peer, _ []string) error {
		if err := p.RequestSnapshot(cmd.Context(), n.Channel, block); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), "requested; hansa snapshot list shows it until it is there")
		return nil
	})
	request.Flags().Uint64Var(&block, "block", 0, "the `number` of the last block in it, the newest or one still to come (default: the newest)")
	c.AddCommand(request,
		newSnapshotCommand("cancel BLOCK", "Take a request back", "cancel 1000", cobra.ExactArgs(1), func(cmd *cobra.Command, n *provision.Network, p *admin.Peer, args []string) error {
			number, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return fmt.Errorf("BLOCK: %q is no block number", args[0])
			}
			if err := p.CancelSnapshot(cmd.Context(), n.Channel, number); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "cancelled")
			return nil
		}),
		newSnapshotCommand("list", "List the requests that are not met yet", "list", cobra.NoArgs, func(cmd *cobra.Command, n *provision.Network, p *admin.Peer, _ []string) error {
			pending, err := p.PendingSnapshots(cmd.Context(), n.Channel)
			for _, number := range pending {
				fmt.Fprintln(cmd.OutOrStdout(), number)
			}
			return err
		}),
		newSnapshotCommand("join DIR", "Have a peer join the channel by the snapshot in a folder", "join snapshots/completed/business/1000 --member org2", cobra.ExactArgs(1), func(cmd *cobra.Command, _ *provision.Network, p *admin.Peer, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if err := p.JoinBySnapshot(cmd.Context(), dir); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "joining; the peer's log tells the end")
			return nil
		}))
	return c
}

// newSnapshotCommand is a command to one peer, as its member's administrator.
func newSnapshotCommand(use, short, example string, args cobra.PositionalArgs, run func(*cobra.Command, *provision.Network, *admin.Peer, []string) error) *cobra.Command {
	var dir, member string
	c := &cobra.Command{
		Use:     use,
		Short:   short,
		Args:    args,
		Example: "  hansa snapshot " + example + " --data my-network",
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := provision.Load(dir)
			if err != nil {
				return err
			}
			m := n.Members[0]
			if member != "" {
				if m, err = n.Member(member); err != nil {
					return err
				}
			}
			if len(m.Peers) == 0 {
				return fmt.Errorf("member %s has no peer", m.Name)
			}
			p, err := n.AdminPeer(m, m.Peers[0])
			if err != nil {
				return err
			}
			defer p.Close()
			return run(cmd, n, p, args)
		},
	}
	dataFlag(c, &dir)
	memberFlag(c, &member)
	return c
}
