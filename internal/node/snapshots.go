package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
	"github.com/hansa-ledger/hansa/internal/snapshots"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// staging is where a ledger is built from a snapshot.
func (c *channels) staging() string { return filepath.Join(c.peer.config.DataDir, "joining") }

// dropUnfinishedJoin removes what a join left that was killed.
func (c *channels) dropUnfinishedJoin() error { return os.RemoveAll(c.staging()) }

// notJoining refuses to make a ledger while another is made from a snapshot.
func (c *channels) notJoining() error {
	if dir, busy := c.JoiningBySnapshot(); busy {
		return fmt.Errorf("a ledger is being created from a snapshot at %s. Call ledger creation again after it is done.", dir) // Fabric's words
	}
	return nil
}

// JoiningBySnapshot is what `peer channel joinbysnapshotstatus` shows.
func (c *channels) JoiningBySnapshot() (dir string, inProgress bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.joining, c.joining != ""
}

// JoinBySnapshot begins to join a channel by its ledger's snapshot. What can be seen from the snapshot's metadata is
// refused at once; a snapshot may be large, so the rest is done in the background, as in Fabric, and a failure
// is in the log. The channel is there whole or not at all, whenever the peer is killed.
func (c *channels) JoinBySnapshot(_ context.Context, dir string) error {
	m, err := snapshotfile.ReadMetadata(vfs.Default, dir)
	if err != nil {
		return err
	}
	if err := channel.CheckID(m.ChannelID); err != nil {
		return err
	}
	if _, ok := c.get(m.ChannelID); ok {
		return fmt.Errorf("ledger [%s] already exists with state [ACTIVE]", m.ChannelID)
	}
	if c.isPaused(m.ChannelID) {
		return fmt.Errorf("ledger [%s] already exists with state [INACTIVE]", m.ChannelID)
	}
	if err := c.notJoining(); err != nil {
		return err
	}
	c.mu.Lock()
	busy := c.joining != ""
	if !busy {
		c.joining = dir
	}
	c.mu.Unlock()
	if busy { // another came between
		return c.notJoining()
	}
	c.group.Go(func() error {
		defer func() {
			c.mu.Lock()
			c.joining = ""
			c.mu.Unlock()
		}()
		log := c.peer.log.With("channel", m.ChannelID, "snapshot", dir)
		if err := c.joinBySnapshot(m.ChannelID, dir); err != nil {
			log.Error("could not join the channel by the snapshot", "error", err)
			return nil
		}
		log.Info("joined channel by a snapshot", "block", m.LastBlock)
		return nil
	})
	return nil
}

func (c *channels) joinBySnapshot(id, dir string) error {
	l, err := ledger.Bootstrap(c.ctx, ledger.Config{Dir: filepath.Join(c.dir, id), ChannelID: id, Log: c.peer.log.With("channel", id)}, dir, c.staging(),
		func(s *ledger.Snapshot) error { return c.checkConfig(id, s) })
	if err != nil {
		return err
	}
	if err := c.start(id, l, nil); err != nil {
		return errors.Join(err, l.Close())
	}
	c.peer.directory.Changed()
	return nil
}

// checkConfig refuses a snapshot whose configuration the peer could not work with.
func (c *channels) checkConfig(id string, s *ledger.Snapshot) error {
	v, err := s.Get("", rwset.ConfigKey)
	if err != nil {
		return err
	}
	if v == nil {
		return errors.New("the snapshot holds no channel configuration")
	}
	envelope := &commonpb.ConfigEnvelope{}
	if err := proto.Unmarshal(v.Value, envelope); err != nil {
		return fmt.Errorf("decode the channel configuration in the snapshot: %w", err)
	}
	bundle, err := channel.NewBundle(id, envelope.Config, c.peer.verifier)
	switch {
	case err != nil:
		return fmt.Errorf("the channel configuration in the snapshot: %w", err)
	case !bundle.HasApplication() || !bundle.HasOrderer():
		return errors.New("the channel configuration in the snapshot lacks the Application or the Orderer group")
	}
	return nil
}

// taken is what the Snapshot service sees of a channel.
func (c *channels) taken(id string) (*snapshots.Channel, bool) {
	ch, ok := c.get(id)
	if !ok {
		return nil, false
	}
	return ch.taken, true
}

// First is the number of the first block that can be delivered.
func (ch *peerChannel) First() uint64 { return ch.Ledger().First() }
