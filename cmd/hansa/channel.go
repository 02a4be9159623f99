package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
)

func newChannel() *cobra.Command {
	c := &cobra.Command{
		Use:     "channel",
		Short:   "Make channels and change their configuration",
		GroupID: "use",
	}
	c.AddCommand(newChannelGenesis(), newChannelConfig(), newChannelUpdate(), newChannelSign(), newChannelSubmit(), newChannelJoin())
	return c
}

func newChannelGenesis() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "genesis FILE",
		Short: "Make a channel's genesis block from a short YAML description",
		Args:  cobra.ExactArgs(1),
		Long: `Make the first block of a channel, which starts it on orderers (osnadmin channel join) and peers (peer channel join), of
Hansa and of Hyperledger Fabric alike. The description names the members with their MSP folders, the orderers with
their TLS certificates, and whatever differs from the defaults: batch, policies, capabilities. Paths in it are meant from
the file's folder. The channel.yaml in the folder of hansa up is one. The same files give the same block.`,
		Example: "  hansa channel genesis my-network/channel.yaml --output business.block",
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			spec, err := channel.ParseSpec(raw)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			genesis, err := spec.Genesis(filepath.Dir(args[0]))
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if raw, err = proto.Marshal(genesis); err != nil {
				return err
			}
			if err := os.WriteFile(output, raw, 0o644); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: genesis block of channel %s, hash %s\n", output, spec.Channel, hex.EncodeToString(block.HeaderHash(genesis.Header)))
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "genesis.block", "the `file` to write")
	return c
}
