package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/commit"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/fabricledger"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
	"github.com/hansa-ledger/hansa/internal/validate"
)

// takeoverDir in a peer's data folder is where channels of a Fabric peer are while they are taken over, and what is known of those that
// were: CHANNEL is a ledger that is not complete, CHANNEL.done says that the channel is not looked at any more, CHANNEL.failed why it
// could not be taken over.
const takeoverDir = "takeover"

// ledgersDir is where Fabric's peer has its ledgers.
const ledgersDir = "ledgersData"

const progressInterval = 10 * time.Second

// maxCounted is how many missing private write sets are counted for the log.
const maxCounted = 100_000

// takeover makes the ledgers of a stopped Fabric peer ours.
type takeover struct {
	peer *peer
	from string // the Fabric peer's folder
	dir  string
	log  *slog.Logger
}

// takeOver makes what a Fabric peer left in its folder this peer's, unless that was done before. Every block goes through the commit
// pipeline like one that comes from an orderer, and must come out with the codes and the commit hash that Fabric gave it. A channel
// that cannot be taken over is left out and said; it can be joined instead. Fabric's files stay as they are.
func (p *peer) takeOver(ctx context.Context) error {
	if p.config.FabricData == "" {
		return nil
	}
	t := &takeover{peer: p, from: p.config.FabricData, dir: filepath.Join(p.config.DataDir, takeoverDir), log: p.log}
	if err := t.takePackages(); err != nil {
		return fmt.Errorf("take over contract packages from %s: %w", t.from, err)
	}
	ledgers := filepath.Join(t.from, ledgersDir)
	if _, err := os.Stat(ledgers); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	chains, err := os.ReadDir(filepath.Join(ledgers, "chains", "chains"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var open []string
	for _, e := range chains {
		done, err := t.done(e.Name())
		if err != nil {
			return fmt.Errorf("finish the takeover of channel %s: %w", e.Name(), err)
		}
		if !done {
			open = append(open, e.Name())
		}
	}
	if len(open) == 0 {
		return nil
	}
	listed, err := fabricledger.Ledgers(ledgers)
	if err != nil {
		return fmt.Errorf("take over ledgers from %s: %w", t.from, err)
	}
	private, err := fabricledger.OpenPrivate(ledgers)
	if err != nil {
		return fmt.Errorf("take over private data from %s: %w", t.from, err)
	}
	defer private.Close()
	if err := os.MkdirAll(t.dir, 0o750); err != nil {
		return err
	}
	for _, id := range open {
		status, ok := listed[id]
		if !ok || status == fabricledger.UnderConstruction || status == fabricledger.UnderDeletion {
			t.log.Warn("a ledger is not in use in Fabric's peer and not taken over", "channel", id)
			continue
		}
		err := t.take(ctx, id, private, status == fabricledger.Inactive)
		if refused := (*refusal)(nil); errors.As(err, &refused) {
			if err := os.RemoveAll(filepath.Join(t.dir, id)); err != nil {
				return err
			}
			if err := writeSynced(t.failed(id), []byte(refused.why+"\n")); err != nil {
				return err
			}
			t.log.Error("the channel was not taken over", "channel", id, "error", refused.why, "until_removed", t.failed(id))
			continue
		}
		if err != nil {
			return fmt.Errorf("take over channel %s: %w", id, err)
		}
	}
	return nil
}

// refusal is why a channel cannot be taken over, now or at another start.
type refusal struct{ why string }

func (r *refusal) Error() string { return r.why }

func refuse(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

func (t *takeover) failed(id string) string { return filepath.Join(t.dir, id+".failed") }

// done tells whether a channel needs no look any more. It completes what a crash has left of the last step.
func (t *takeover) done(id string) (bool, error) {
	if _, err := os.Stat(filepath.Join(t.peer.channels.dir, id)); err == nil {
		return true, nil // also when it was joined after a failure
	}
	if why, err := os.ReadFile(t.failed(id)); err == nil {
		t.log.Error("the channel was not taken over", "channel", id, "error", strings.TrimSpace(string(why)), "until_removed", t.failed(id))
		return true, nil
	}
	if _, err := os.Stat(filepath.Join(t.dir, id+".done")); err == nil {
		return true, t.move(id)
	}
	return false, nil
}

// move makes a complete ledger the channel's.
func (t *takeover) move(id string) error {
	from := filepath.Join(t.dir, id)
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.MkdirAll(t.peer.channels.dir, 0o750); err != nil {
		return err
	}
	// What is moved must not be lost with a new folder while the note remains that it is done.
	if err := snapshotfile.SyncDir(vfs.Default, t.peer.config.DataDir); err != nil {
		return err
	}
	if err := os.Rename(from, filepath.Join(t.peer.channels.dir, id)); err != nil {
		return err
	}
	return errors.Join(snapshotfile.SyncDir(vfs.Default, t.peer.channels.dir), snapshotfile.SyncDir(vfs.Default, t.dir))
}

// take makes one channel's ledger, from where an earlier run of it ended.
func (t *takeover) take(ctx context.Context, id string, private *fabricledger.Private, paused bool) error {
	blocks, err := fabricledger.OpenBlocks(filepath.Join(t.from, ledgersDir, "chains", "chains", id))
	if errors.Is(err, io.EOF) {
		t.log.Warn("a ledger has no blocks and is not taken over", "channel", id)
		return nil
	}
	if err != nil {
		return err
	}
	defer blocks.Close()
	if first := blocks.First(); first > 0 {
		return refuse("its ledger began with a snapshot, so that blocks before %d are missing: join the channel by a snapshot or by its genesis block", first)
	}
	height, err := blocks.Height()
	if err != nil {
		return refuse("its blocks cannot be read: %v", err)
	}
	dir := filepath.Join(t.dir, id)
	l, err := ledger.Open(ledger.Config{Dir: dir, ChannelID: id, Log: t.log.With("channel", id)})
	if err != nil {
		return err
	}
	start := time.Now()
	t.log.Info("taking over a channel of Fabric's peer", "channel", id, "from", t.from, "height", height, "done", l.Height())
	var missing []ledger.Missing
	if err = t.commit(ctx, id, blocks, l, height, private); err == nil {
		err = settle(id, l, private)
	}
	if err == nil {
		missing, err = l.MissingPrivateData(maxCounted)
	}
	if err = errors.Join(err, l.Close()); err != nil {
		return err
	}
	if paused {
		if err := writeSynced(filepath.Join(dir, pausedFile), nil); err != nil {
			return err
		}
	}
	if err := writeSynced(filepath.Join(t.dir, id+".done"), fmt.Appendf(nil, "%d blocks\n", height)); err != nil {
		return err
	}
	if err := t.move(id); err != nil {
		return err
	}
	t.log.Info("took over a channel of Fabric's peer", "channel", id, "height", height, "missing_private_sets", len(missing), "seconds", int(time.Since(start).Seconds()))
	return nil
}

// verdict is what Fabric decided on a block.
type verdict struct {
	number       uint64
	filter, hash []byte
}

// commit has the pipeline commit the blocks that are not in the ledger yet, and compares.
func (t *takeover) commit(ctx context.Context, id string, blocks *fabricledger.Blocks, l *ledger.Ledger, height uint64, private *fabricledger.Private) (err error) {
	config := commit.Config{ChannelID: id, Ledger: l, Verifier: t.peer.verifier, Self: t.peer.signer.Serialize(), Log: t.log,
		Private: storedPrivate{id, private}}
	if l.Height() == 0 {
		if config.Genesis, err = blocks.Next(); err != nil {
			return refuse("its genesis block cannot be read: %v", err)
		}
	}
	pipeline, err := commit.New(config)
	if err != nil {
		return refuse("%v", err)
	}
	if err := blocks.Seek(l.Height()); err != nil && !errors.Is(err, io.EOF) {
		return refuse("its blocks cannot be read: %v", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	running, stop := context.WithCancel(ctx)
	defer stop()
	group.Go(func() error { return pipeline.Run(running) })
	verdicts := make(chan verdict, commit.DefaultPendingBlocks)
	group.Go(func() error {
		defer close(verdicts)
		return submit(ctx, blocks, pipeline, verdicts)
	})
	group.Go(func() error {
		defer stop() // the last one has been committed, or nothing will
		reported := time.Now()
		for v := range verdicts {
			if err := pipeline.Wait(ctx, v.number+1); err != nil {
				return err
			}
			if err := v.compare(l); err != nil {
				return err
			}
			if time.Since(reported) > progressInterval {
				reported = time.Now()
				t.log.Info("taking over a channel of Fabric's peer", "channel", id, "height", height, "done", v.number+1)
			}
		}
		return nil
	})
	err = group.Wait()
	if err == nil && l.Height() != height {
		err = ctx.Err() // of the process; the rest follows at the next start
	}
	return err
}

func submit(ctx context.Context, blocks *fabricledger.Blocks, pipeline *commit.Channel, verdicts chan<- verdict) error {
	for {
		b, err := blocks.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return refuse("its blocks cannot be read: %v", err)
		}
		v := verdict{b.Header.Number, bytes.Clone(block.Filter(b)), bytes.Clone(block.CommitHash(b))}
		err = pipeline.Submit(ctx, b)
		if bad := (*validate.BadBlock)(nil); errors.As(err, &bad) {
			return refuse("block %d is not acceptable: %v", v.number, bad)
		}
		if err != nil {
			return err
		}
		select {
		case verdicts <- v:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (v *verdict) compare(l *ledger.Ledger) error {
	b, err := l.Block(v.number)
	if err != nil {
		return err
	}
	if got := block.Filter(b); !bytes.Equal(got, v.filter) {
		return refuse("block %d: transactions have the codes %d here, and %d in Fabric's ledger", v.number, got, v.filter)
	}
	if got := block.CommitHash(b); len(v.hash) > 0 && !bytes.Equal(got, v.hash) {
		return refuse("block %d: the commit hash is %x here, and %x in Fabric's ledger", v.number, got, v.hash)
	}
	return nil
}

// storedPrivate gives the pipeline the private data that Fabric's peer has kept.
type storedPrivate struct {
	channel string
	store   *fabricledger.Private
}

func (s storedPrivate) Fetch(_ context.Context, number uint64, wanted []commit.Wanted) ([][]byte, error) {
	sets := make([][]byte, len(wanted))
	for i, w := range wanted {
		var err error
		if sets[i], err = s.store.WriteSet(s.channel, number, w.Tx, w.Namespace, w.Collection); err != nil {
			return nil, err
		}
	}
	return sets, nil
}

// settlePage is how many missing private write sets are looked at together.
const settlePage = 256

// settle completes private data once all purges are known: from a write set Fabric takes what was purged, so that it matches its
// hash no more. What is missing then, the other members' peers are asked for later.
func settle(id string, l *ledger.Ledger, private *fabricledger.Private) error {
	for below := uint64(math.MaxUint64); ; {
		missing, err := l.MissingPrivateDataBelow(below, settlePage)
		if err != nil || len(missing) == 0 {
			return err
		}
		late, lacking, err := l.Sort(missing)
		if err != nil {
			return err
		}
		for _, m := range lacking {
			set, err := private.WriteSet(id, m.Block, m.Tx, m.Namespace, m.Collection)
			if err != nil {
				return err
			}
			if set != nil {
				late = append(late, ledger.Late{Missing: m.Missing, Rwset: set})
			}
		}
		if _, err := l.CommitLate(late); err != nil {
			return err
		}
		first, last := missing[0].Block, missing[len(missing)-1].Block
		if len(missing) < settlePage {
			return nil
		}
		if below = last; first > last {
			below++ // the page may have cut through the last block
		}
	}
}

// takePackages copies the installed contract packages, and what Fabric's builders made of them.
func (t *takeover) takePackages() error {
	files, err := filepath.Glob(filepath.Join(t.from, "lifecycle", "chaincodes", "*.tar.gz"))
	if err != nil {
		return err
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".tar.gz")
		i := strings.LastIndexByte(name, '.')
		if i < 0 {
			continue
		}
		id := name[:i] + ":" + name[i+1:]
		if t.peer.packages.Has(id) {
			continue
		}
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if info.Size() > contractpackage.MaxBytes {
			t.log.Error("a contract package is too large and not taken over", "package", id, "bytes", info.Size())
			continue
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if _, err := t.peer.packages.Install(raw, nil); err != nil { // one bad package must not keep the peer from starting
			t.log.Error("a contract package was not taken over", "package", id, "error", err)
			continue
		}
		if t.peer.builders != nil {
			if err := t.peer.builders.Adopt(id, filepath.Join(t.from, "externalbuilder", "builds")); err != nil {
				t.log.Warn("a contract's build was not taken over; it is built anew", "package", id, "error", err)
			}
		}
		t.log.Info("took over a contract package of Fabric's peer", "package", id)
	}
	return nil
}

// writeSynced makes a file that survives a crash.
func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return snapshotfile.SyncDir(vfs.Default, filepath.Dir(path))
}
