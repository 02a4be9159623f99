package dropin_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/syndtr/goleveldb/leveldb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/admin"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// fabricPeer is what a Fabric peer leaves in its folder.
type fabricPeer struct {
	dir     string
	channel string
	blocks  []*commonpb.Block
	private map[uint64][]ledger.TxPrivate // by block
	status  []byte                        // of the ledger
}

// readPeer reads a stopped peer of ours.
func readPeer(t *testing.T, data, channel string) *fabricPeer {
	t.Helper()
	l, err := ledger.Open(ledger.Config{Dir: filepath.Join(data, "hansa", "channels", channel), ChannelID: channel})
	must(t, err)
	defer l.Close()
	p := &fabricPeer{channel: channel, private: map[uint64][]ledger.TxPrivate{}}
	for n := range l.Height() {
		b, err := l.Block(n)
		must(t, err)
		p.blocks = append(p.blocks, proto.CloneOf(b))
		p.private[n], err = l.PrivateData(n)
		must(t, err)
	}
	return p
}

// serialize writes a block as Fabric's block files have it.
func serialize(b *commonpb.Block) (raw []byte) {
	raw = protowire.AppendVarint(raw, b.Header.Number)
	raw = protowire.AppendBytes(raw, b.Header.DataHash)
	raw = protowire.AppendBytes(raw, b.Header.PreviousHash)
	for _, list := range [][][]byte{b.Data.Data, b.Metadata.Metadata} {
		raw = protowire.AppendVarint(raw, uint64(len(list)))
		for _, e := range list {
			raw = protowire.AppendBytes(raw, e)
		}
	}
	return protowire.AppendBytes(nil, raw)
}

func ordered(b []byte, n uint64) []byte {
	size := (bits.Len64(n) + 7) / 8
	return append(append(b, byte(size)), binary.BigEndian.AppendUint64(nil, n)[8-size:]...)
}

// write lays the peer's folder out as Fabric does.
func (p *fabricPeer) write(t *testing.T, dir string) {
	t.Helper()
	p.dir = dir
	chain := filepath.Join(dir, "ledgersData", "chains", "chains", p.channel)
	must(t, os.MkdirAll(chain, 0o700))
	var files [2][]byte
	for i, b := range p.blocks {
		file := &files[2*i/len(p.blocks)]
		*file = append(*file, serialize(b)...)
	}
	files[1] = append(files[1], 0x90, 0x4e, 1, 2, 3) // a block that was being written
	for i, content := range files {
		must(t, os.WriteFile(filepath.Join(chain, fmt.Sprintf("blockfile_%06d", i)), content, 0o600))
	}
	put := func(name string, entries map[string][]byte) {
		db, err := leveldb.OpenFile(filepath.Join(dir, "ledgersData", name), nil)
		must(t, err)
		for key, value := range entries {
			must(t, db.Put([]byte(key), value, nil))
		}
		must(t, db.Close())
	}
	put("fileLock", nil)
	put("ledgerProvider", map[string][]byte{"f": []byte("2.0"), "s" + p.channel: p.status, "sgone": {8, 3}})
	private := map[string][]byte{}
	for number, txs := range p.private {
		for _, tx := range txs {
			for _, ns := range tx.Set.NsPvtRwset {
				for _, coll := range ns.CollectionPvtRwset {
					key := ordered(ordered(append([]byte(p.channel), 0, 2), number), tx.Tx)
					raw, err := proto.Marshal(&rwsetpb.CollectionPvtReadWriteSet{CollectionName: coll.CollectionName, Rwset: coll.Rwset})
					must(t, err)
					private[string(key)+ns.Namespace+"\x00"+coll.CollectionName] = raw
				}
			}
		}
	}
	put("pvtdataStore", private)
}

// sum tells one content of a folder from another.
func sum(t *testing.T, dir string) (all string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == "hansa" {
				return fs.SkipDir
			}
			return err
		}
		raw, err := os.ReadFile(path)
		all += fmt.Sprintf("%s %x\n", path, raw)
		return err
	}))
	return all
}

// A peer goes on with the blocks, the private data and the packages that Fabric's peer had, which stay as they are.
func TestTakeOverPeer(t *testing.T) {
	w := stopped(t, "--members", "1")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	first := filepath.Join(w.Dir, "first")
	m := w.begin(ctx, filepath.Join(w.Dir, "orderer-production"), first)
	pkg := pack(t, "node", "asset_1", map[string][]byte{"connection.json": []byte(`{"address":"127.0.0.1:1"}`)})
	id, err := m.Install(ctx, pkg)
	must(t, err)
	m.define(ctx, t, admin.Definition{Name: "asset", Version: "1", Sequence: 1}, id)
	must(t, admin.Approve(ctx, m.channel, m.id, admin.Definition{Name: "asset", Version: "2", Sequence: 2}, id))
	before, err := m.ChainInfo(ctx, w.plan.Channel)
	must(t, err)
	m.stop()

	left := readPeer(t, first, w.plan.Channel)
	fabric := filepath.Join(w.Dir, "fabric")
	left.write(t, fabric)
	packages := filepath.Join(fabric, "lifecycle", "chaincodes")
	must(t, os.MkdirAll(packages, 0o700))
	must(t, os.WriteFile(filepath.Join(packages, strings.Replace(id, ":", ".", 1)+".tar.gz"), pkg, 0o600))
	content := sum(t, fabric)
	for range 2 { // and again, with nothing left to do
		m = w.member(w.startPeer(fabric))
		after, err := m.ChainInfo(ctx, w.plan.Channel)
		must(t, err)
		if !proto.Equal(before, after) {
			t.Errorf("%v after the takeover, %v before", after, before)
		}
		// That was approved is private data.
		ready, err := admin.Readiness(ctx, m.channel, admin.Definition{Name: "asset", Version: "2", Sequence: 2})
		if err != nil || !ready[m.id] {
			t.Errorf("the approval is not there: %v %v", ready, err)
		}
		if _, err := m.Install(ctx, pkg); err == nil || !strings.Contains(err.Error(), "already successfully installed") {
			t.Errorf("the package is not there: %v", err)
		}
		m.stop()
		if content != sum(t, fabric) {
			t.Error("the files of Fabric's peer were changed")
		}
	}
	m = w.member(w.startPeer(fabric))
	must(t, admin.Commit(ctx, m.channel, []string{m.id}, admin.Definition{Name: "asset", Version: "2", Sequence: 2}))
	m.stop()
	log, err := os.ReadFile(fabric + ".log")
	must(t, err)
	if strings.Contains(string(log), "taking over") {
		t.Error("the channel was taken over twice")
	}
	got, err := os.ReadFile(filepath.Join(fabric, "hansa", "takeover", w.plan.Channel+".done"))
	if err != nil || string(got) != fmt.Sprintf("%d blocks\n", before.Height) {
		t.Errorf("%q %v", got, err)
	}

	// What cannot be believed is left out, and said.
	for name, c := range map[string]struct {
		spoil func(*fabricPeer)
		want  string
	}{
		"other code":      {func(p *fabricPeer) { p.blocks[2].Metadata.Metadata[2] = []byte{11} }, "block 2: transactions have the codes"},
		"other hash":      {func(p *fabricPeer) { p.blocks[2].Metadata.Metadata[4][7]++ }, "block 2: the commit hash is"},
		"other data":      {func(p *fabricPeer) { p.blocks[1].Data.Data[0] = append(p.blocks[1].Data.Data[0], 0) }, "block 1 is not acceptable"},
		"block missing":   {func(p *fabricPeer) { p.blocks = append(p.blocks[:1], p.blocks[2:]...) }, "block 1 is missing, this is 2"},
		"from a snapshot": {func(p *fabricPeer) { p.blocks = p.blocks[2:] }, "began with a snapshot, so that blocks before 2 are missing"},
	} {
		bad := readPeer(t, first, w.plan.Channel)
		c.spoil(bad)
		dir := filepath.Join(w.Dir, strings.ReplaceAll(name, " ", "-"))
		bad.write(t, dir)
		m := w.member(w.startPeer(dir))
		channels, err := m.Channels(ctx)
		if err != nil || len(channels) > 0 {
			t.Errorf("%s: channels %q %v, want none", name, channels, err)
		}
		m.stop()
		why, err := os.ReadFile(filepath.Join(dir, "hansa", "takeover", w.plan.Channel+".failed"))
		if err != nil || !strings.Contains(string(why), c.want) {
			t.Errorf("%s: %q %v, want %q", name, why, err, c.want)
		}
		log, err := os.ReadFile(dir + ".log")
		must(t, err)
		if !strings.Contains(string(log), c.want) || !strings.Contains(string(log), "was not taken over") {
			t.Errorf("%s: the log does not say why", name)
		}
	}
}

// A takeover that was interrupted goes on where it was, at every step; a channel that was paused stays so.
func TestTakeOverInterrupted(t *testing.T) {
	w := stopped(t, "--members", "1")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	first := filepath.Join(w.Dir, "first")
	m := w.begin(ctx, filepath.Join(w.Dir, "orderer-production"), first)
	must(t, admin.Approve(ctx, m.channel, m.id, admin.Definition{Name: "asset", Version: "1", Sequence: 1}, ""))
	must(t, admin.Commit(ctx, m.channel, []string{m.id}, admin.Definition{Name: "asset", Version: "1", Sequence: 1}))
	before, err := m.ChainInfo(ctx, w.plan.Channel)
	must(t, err)
	m.stop()

	fabric := filepath.Join(w.Dir, "fabric")
	part := readPeer(t, first, w.plan.Channel)
	part.blocks, part.status = part.blocks[:2], []byte{8, 1}
	part.write(t, fabric)
	channels := func(want int) {
		t.Helper()
		m := w.member(w.startPeer(fabric))
		defer m.stop()
		if ids, err := m.Channels(ctx); err != nil || len(ids) != want {
			t.Fatalf("%q %v, want %d channels", ids, err, want)
		}
	}
	channels(0) // it is paused
	own := filepath.Join(fabric, "hansa")
	ready, staged, done := filepath.Join(own, "channels", w.plan.Channel), filepath.Join(own, "takeover", w.plan.Channel), filepath.Join(own, "takeover", w.plan.Channel+".done")
	must(t, os.Remove(filepath.Join(ready, "paused")))

	// Killed when two blocks were in the ledger.
	must(t, os.Rename(ready, staged))
	must(t, os.Remove(done))
	must(t, os.RemoveAll(filepath.Join(fabric, "ledgersData")))
	readPeer(t, first, w.plan.Channel).write(t, fabric)
	m = w.member(w.startPeer(fabric))
	after, err := m.ChainInfo(ctx, w.plan.Channel)
	if err != nil || !proto.Equal(before, after) {
		t.Errorf("%v %v after the takeover, %v before", after, err, before)
	}
	log, err := os.ReadFile(fabric + ".log")
	must(t, err)
	if !strings.Contains(string(log), fmt.Sprintf("height=%d done=2", before.Height)) {
		t.Errorf("it did not go on where it was:\n%s", log)
	}
	m.stop()
	// Killed before the last step.
	must(t, os.Rename(ready, staged))
	channels(1)
	if _, err := os.Stat(staged); err == nil {
		t.Error("the ledger is still in the takeover's folder")
	}
}
