package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/admin"
	"github.com/hansa-ledger/hansa/internal/reconfigure"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

func newChannelJoin() *cobra.Command {
	var flags channelFlags
	var file string
	c := &cobra.Command{
		Use:   "join",
		Short: "Join peers to a channel",
		Args:  cobra.NoArgs,
		Long: `Join peers, named by --peer, to a channel: by its first block, which comes from an orderer, or from a file. --identity
is an administrator of the peers' own member, whom the channel's configuration has to name by then. As peer channel join does.`,
		Example: `  hansa channel join --channel business --peer peer0.org3.example.com:7051 --orderer orderer0.example.com:7050 \
    --tls-root org3/tlsca.pem --tls-root orderer/tlsca.pem --identity Org3MSP=org3/admin/msp`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(flags.peers) == 0 {
				return errors.New("--peer is missing: the peers that join")
			}
			if len(flags.orderers) == 0 && file == "" {
				return errors.New("--orderer or --block is missing: where the channel's first block comes from")
			}
			s, err := flags.open()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), channelTimeout)
			defer cancel()
			first := &commonpb.Block{}
			if file == "" {
				first, err = reconfigure.FirstBlock(ctx, s.orderers, s.asker, s.channel)
			} else {
				var raw []byte
				if raw, err = os.ReadFile(file); err == nil {
					err = proto.Unmarshal(raw, first)
				}
			}
			if err != nil {
				return err
			}
			if config, err := reconfigure.FromBlock(first); err != nil {
				return fmt.Errorf("the channel's first block: %w", err)
			} else if config.ID() != s.channel {
				return fmt.Errorf("%s begins channel %q, not %q", file, config.ID(), s.channel)
			}
			for _, p := range s.peers {
				peer, err := admin.DialPeer(p.Address, p.TLSRoots, s.asker)
				if err != nil {
					return err
				}
				err = peer.JoinChannel(ctx, first)
				peer.Close()
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s has joined channel %s\n", p.Address, s.channel)
			}
			return catchUp(ctx, cmd.OutOrStdout(), s)
		},
	}
	flags.register(c, false)
	c.Flag("peer").Usage = "`host:port` of a peer that joins; may be repeated"
	c.Flag("orderer").Usage = "`host:port` of an orderer that has the channel; may be repeated"
	c.Flags().StringVar(&file, "block", "", "the `file` of the channel's first block, instead of asking an orderer")
	return c
}

// catchUp waits until the peers have the channel's newest configuration: before, they do not know members that came later.
func catchUp(ctx context.Context, out io.Writer, s *channelSession) error {
	if len(s.orderers) == 0 {
		return nil
	}
	newest, err := reconfigure.Fetch(ctx, s.orderers, s.asker, s.channel)
	if err != nil {
		return err
	}
	for _, p := range s.peers {
		if err := reconfigure.AwaitConfig(ctx, p, s.asker, s.channel, newest.Block); err != nil {
			fmt.Fprintf(out, "%s still catches up with the channel\n", p.Address)
		}
	}
	return nil
}
