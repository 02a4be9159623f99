package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/fabricledger"
	"github.com/hansa-ledger/hansa/internal/order"
	"github.com/hansa-ledger/hansa/internal/order/raft"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// FabricOrdererData names what a stopped Fabric orderer has left: what its orderer.yaml calls FileLedger.Location, Consensus.WALDir
// and Consensus.SnapDir.
type FabricOrdererData struct {
	Ledger    string `yaml:"ledger"`
	WAL       string `yaml:"wal"`
	Snapshots string `yaml:"snapshots"`
}

// takeOverChains makes the channels of a Fabric orderer this one's, each unless that was done before. The blocks are checked like those
// that come from other orderers; with them comes what the orderer promised to the other consenters, so that it goes on as the member that
// it was. Fabric's files stay as they are.
func takeOverChains(from FabricOrdererData, config order.Config, log *slog.Logger) error {
	if from.Ledger == "" {
		return nil
	}
	chains, err := os.ReadDir(filepath.Join(from.Ledger, "chains"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	marks := filepath.Join(config.Dir, takeoverDir)
	var open []string
	for _, e := range chains {
		_, done := os.Stat(filepath.Join(marks, e.Name()+".done"))
		_, removing := os.Stat(filepath.Join(from.Ledger, "pendingops", "remove", e.Name()+".remove"))
		if e.IsDir() && done != nil && removing != nil {
			open = append(open, e.Name())
		}
	}
	if len(open) == 0 {
		return nil
	}
	if err := fabricledger.Idle(from.Ledger); err != nil {
		return fmt.Errorf("take over channels from %s: %w", from.Ledger, err)
	}
	if err := os.MkdirAll(marks, 0o750); err != nil {
		return err
	}
	for _, id := range open {
		if err := takeOverChain(from, config, id, log); err != nil {
			return fmt.Errorf("take over channel %s from %s: %w; move %s away to go without it",
				id, from.Ledger, err, filepath.Join(from.Ledger, "chains", id))
		}
		// The folder of the chains may be new: it must not be lost while the mark remains.
		if err := snapshotfile.SyncDir(vfs.Default, config.Dir); err != nil {
			return err
		}
		if err := writeSynced(filepath.Join(marks, id+".done"), nil); err != nil {
			return err
		}
	}
	return nil
}

func takeOverChain(from FabricOrdererData, config order.Config, id string, log *slog.Logger) error {
	start := time.Now()
	log.Info("taking over a channel of Fabric's orderer", "channel", id, "from", from.Ledger)
	in := order.Inheritance{Next: func() (*commonpb.Block, error) { return nil, io.EOF }}
	blocks, err := fabricledger.OpenBlocks(filepath.Join(from.Ledger, "chains", id))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err == nil {
		defer blocks.Close()
		reported := start
		in.Next = func() (*commonpb.Block, error) {
			b, err := blocks.Next()
			if err == nil && time.Since(reported) > progressInterval {
				reported = time.Now()
				log.Info("taking over a channel of Fabric's orderer", "channel", id, "done", b.Header.Number)
			}
			return b, err
		}
	}
	if in.Join, err = pendingJoin(filepath.Join(from.Ledger, "pendingops", "join", id+".join")); err != nil {
		return err
	}
	if blocks == nil && in.Join == nil {
		log.Warn("a chain has no blocks and is not taken over", "channel", id)
		return nil
	}
	switch remembered, err := fabricledger.ReadRaftLog(filepath.Join(from.WAL, id), filepath.Join(from.Snapshots, id)); {
	case err == nil:
		in.Log = &raft.Remembered{Hard: remembered.Hard, Snapshot: remembered.Snapshot, Entries: remembered.Entries}
	case !errors.Is(err, fabricledger.ErrNoRaftLog):
		return err
	}
	height, err := order.Adopt(config, id, in)
	if errors.Is(err, order.ErrChannelExists) { // joined here, or a crash came before the mark
		return nil
	}
	if err != nil {
		return err
	}
	log.Info("took over a channel of Fabric's orderer", "channel", id, "height", height, "seconds", int(time.Since(start).Seconds()))
	return nil
}

func pendingJoin(file string) (*commonpb.Block, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b := &commonpb.Block{}
	if err := proto.Unmarshal(raw, b); err != nil {
		return nil, fmt.Errorf("%s holds no block: %w", file, err)
	}
	return b, nil
}
