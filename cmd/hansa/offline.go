package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hansa-ledger/hansa/internal/node"
	"github.com/hansa-ledger/hansa/internal/provision"
)

// offlineCommand is what an operator does to the data of a peer that does not run. Fabric's peer has the same under the
// same names.
type offlineCommand struct {
	name, short, long string
	channel, block    bool // what it is told
	run               func(o *node.Offline, channel string, block uint64) error
}

func offlineCommands() []offlineCommand {
	return []offlineCommand{
		{name: "reset", short: "Take all channels of a stopped peer back to their genesis blocks",
			long: `Take all channels of a peer that is not running back to their genesis blocks. When the peer starts, it fetches the blocks again
from the orderers and checks and commits each anew. It endorses nothing on a channel until it is where it was before. Private
data is kept, since there may be nobody else who has it. A peer that joined a channel by a snapshot cannot be reset.`,
			run: func(o *node.Offline, _ string, _ uint64) error { return o.Reset() }},
		{name: "rollback", short: "Take one channel of a stopped peer back to a block", channel: true, block: true,
			long: `Drop the newest blocks of one channel of a peer that is not running, down to the one that is named, which stays. When the peer
starts, it fetches the others again from the orderers, and endorses nothing on the channel until it is where it was before.
Private data is kept. A channel that was joined by a snapshot goes back to the snapshot's last block at most.`,
			run: func(o *node.Offline, channel string, block uint64) error { return o.Rollback(channel, block) }},
		{name: "rebuild-dbs", short: "Have a stopped peer make state, history and indexes again from its blocks",
			long: `Remove the state, history and indexes of all channels of a peer that is not running. When it starts, it makes them again from
the blocks that it has.`,
			run: func(o *node.Offline, _ string, _ uint64) error { return o.RebuildDatabases() }},
		{name: "upgrade-dbs", short: "Remove what an older program derived from a stopped peer's blocks",
			long: `Remove state, history and indexes that an older program wrote in another format. There is no need to: a peer that starts
recognizes them and makes them again by itself.`,
			run: func(o *node.Offline, _ string, _ uint64) error { return o.UpgradeDatabases() }},
		{name: "pause", short: "Keep a stopped peer away from a channel from its next start on", channel: true,
			long: `Keep a peer that is not running away from a channel: from its next start on it neither fetches blocks of the channel nor
serves it, until resume.`,
			run: func(o *node.Offline, channel string, _ uint64) error { return o.Pause(channel) }},
		{name: "resume", short: "Let a stopped peer go on with a paused channel", channel: true,
			long: `End the pause of a channel. When the peer starts, it fetches what it has missed.`,
			run:  func(o *node.Offline, channel string, _ uint64) error { return o.Resume(channel) }},
		{name: "unjoin", short: "Remove a channel from a stopped peer", channel: true,
			long: `Remove a channel with all its data, private data too, from a peer that is not running. It can join the channel again later, by
the genesis block or by a snapshot, but private data that nobody else has is gone.`,
			run: func(o *node.Offline, channel string, _ uint64) error { return o.Unjoin(channel) }},
	}
}

// work takes the data folder for as long as the command runs.
func (c offlineCommand) work(dataDir string, logging node.LogConfig, channel string, block uint64) error {
	log, err := node.NewLogger(logging, new(slog.LevelVar), os.Stderr)
	if err != nil {
		return err
	}
	o, err := node.OpenOffline(dataDir, log)
	if err != nil {
		return err
	}
	defer o.Close()
	return c.run(o, channel, block)
}

// newOffline is a subcommand of `hansa peer`.
func newOffline(oc offlineCommand) *cobra.Command {
	var file, dir, channel string
	var block uint64
	use, example := oc.name, "  hansa peer "+oc.name
	if oc.channel {
		use, example = use+" --channel NAME", example+" --channel business"
	}
	if oc.block {
		use, example = use+" --block NUMBER", example+" --block 100"
	}
	c := &cobra.Command{
		Use: use + " (--config FILE | --data DIR PEER)", Short: oc.short, Args: cobra.MaximumNArgs(1),
		Long: oc.long + `

The peer is named by its configuration file, or by the folder of a network that hansa up made and its name there. It can be
killed at any moment: the same command, or the peer when it starts, finishes what it began.`,
		Example: example + " --data my-network peer0.org1",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch named := cmd.Flags().Changed("data"); {
			case file != "" && (named || len(args) > 0):
				return errors.New("--config names a peer already; leave --data and PEER out")
			case file == "" && len(args) == 0:
				return errors.New("no peer is named: --config FILE or --data DIR PEER is wanted, such as --data my-network peer0.org1")
			case oc.channel && channel == "":
				return errors.New("--channel is missing; name the channel")
			case oc.block && !cmd.Flags().Changed("block"):
				return errors.New("--block is missing; name the block that shall be the last")
			case file == "":
				var err error
				if file, err = peerConfigFile(dir, args[0]); err != nil {
					return err
				}
			}
			var config node.PeerConfig
			if err := node.LoadConfig(file, "peer", os.Environ(), &config); err != nil {
				return err
			}
			config.Log.Format = "text"
			return oc.work(config.DataDir, config.Log, channel, block)
		},
	}
	c.Flags().StringVar(&file, "config", "", "the peer's configuration `file`")
	dataFlag(c, &dir)
	if oc.channel {
		c.Flags().StringVar(&channel, "channel", "", "the channel's `name`")
	}
	if oc.block {
		c.Flags().Uint64Var(&block, "block", 0, "the `number` of the block that shall be the last")
	}
	return c
}

// peerConfigFile finds the configuration of a peer of a network on this machine.
func peerConfigFile(dir, name string) (string, error) {
	n, err := provision.Load(dir)
	if err != nil {
		return "", err
	}
	var names []string
	for _, m := range n.Members {
		for _, p := range m.Peers {
			full := p.Name + "." + m.Name
			if full == name {
				return filepath.Join(n.Dir(), "nodes", full, "peer.yaml"), nil
			}
			names = append(names, full)
		}
	}
	return "", fmt.Errorf("the network has no peer %q; its peers are %s", name, strings.Join(names, ", "))
}

// offlineDropin is the same as a subcommand of Fabric's `peer node`.
func offlineDropin(oc offlineCommand) *cobra.Command {
	var channel string
	var block uint64
	c := &cobra.Command{Use: oc.name, Short: oc.short, Long: oc.long, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if oc.channel && channel == "" {
				return errors.New("Must supply channel ID") // Fabric's words
			}
			config, _, err := node.FabricPeer(os.Environ())
			if err != nil {
				return err
			}
			return oc.work(config.DataDir, config.Log, channel, block)
		}}
	if oc.channel {
		c.Flags().StringVarP(&channel, "channelID", "c", "", "Channel to "+oc.name+".")
	}
	if oc.block {
		c.Flags().Uint64VarP(&block, "blockNumber", "b", 0, "Block number to which the channel needs to be rolled back to.")
	}
	return c
}
