package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hansa-ledger/hansa/internal/admin"
	"github.com/hansa-ledger/hansa/internal/provision"
)

func newContract() *cobra.Command {
	c := &cobra.Command{
		Use:     "contract",
		Short:   "Put contracts on a network and look at them",
		GroupID: "use",
	}
	c.AddCommand(newContractDeploy(), newContractList())
	return c
}

func newContractDeploy() *cobra.Command {
	var dir string
	var d provision.Deployment
	c := &cobra.Command{
		Use:   "deploy DIR",
		Short: "Build, install, approve, run and commit the contract in a folder",
		Args:  cobra.ExactArgs(1),
		Long: `Put the contract in a folder on the network's channel, or upgrade it: build it (a Go main package, or a Node contract with
fabric-shim), run it as a service, install its package on the members' peers, approve its definition for the members
whose administrators' keys are here, and commit it.`,
		Example: `  hansa contract deploy examples/contracts/shipment
  hansa contract deploy ./my-contract --name orders --policy "AND('Org1MSP.peer','Org2MSP.peer')"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := provision.Load(dir)
			if err != nil {
				return err
			}
			d.Source = args[0]
			start := time.Now()
			err = n.Deploy(cmd.Context(), d, func(step string) {
				fmt.Fprintf(cmd.OutOrStdout(), "%6.1f s  %s\n", time.Since(start).Seconds(), step)
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%6.1f s  done\n", time.Since(start).Seconds())
			return nil
		},
	}
	dataFlag(c, &dir)
	f := c.Flags()
	f.StringVar(&d.Name, "name", "", "the contract's `name` on the channel (default: the folder's name)")
	f.StringVar(&d.Version, "version", "", "its `version` (default: 1.0, then 2.0 and so on)")
	f.StringVar(&d.Policy, "policy", "", "endorsement `policy`: its text, or the path of a channel policy (default: the channel's own)")
	f.StringVar(&d.Collections, "collections", "", "`file` with its collections of private data: JSON, as Fabric's collections_config.json (default: those it has)")
	f.BoolVar(&d.InitRequired, "init-required", false, "the contract must be initialized before it is used")
	f.StringSliceVar(&d.Members, "members", nil, "`members` that approve (default: all whose administrators' keys are here)")
	return c
}

func newContractList() *cobra.Command {
	var dir, member string
	c := &cobra.Command{
		Use:     "list",
		Short:   "List the contracts of the channel",
		Args:    cobra.NoArgs,
		Example: "  hansa contract list --data my-network",
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, ch, closeClient, err := openChannel(dir, member, "Admin")
			if err != nil {
				return err
			}
			defer closeClient()
			all, err := admin.Committed(cmd.Context(), ch)
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
			fmt.Fprintln(table, "NAME\tVERSION\tSEQUENCE\tINIT\tCHANNEL")
			for _, d := range all {
				fmt.Fprintf(table, "%s\t%s\t%d\t%t\t%s\n", d.Name, d.Version, d.Sequence, d.InitRequired, n.Channel)
			}
			return table.Flush()
		},
	}
	dataFlag(c, &dir)
	memberFlag(c, &member)
	return c
}
