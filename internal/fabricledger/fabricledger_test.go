package fabricledger_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/syndtr/goleveldb/leveldb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/fabricledger"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func made(n int) *commonpb.Block {
	b := &commonpb.Block{Header: &commonpb.BlockHeader{Number: uint64(n), DataHash: []byte{1, byte(n)}},
		Data: &commonpb.BlockData{}, Metadata: &commonpb.BlockMetadata{Metadata: [][]byte{[]byte("signature"), {}, {0}}}}
	if n > 0 {
		b.Header.PreviousHash = []byte{2, byte(n)}
	}
	for i := range n%3 + 1 {
		b.Data.Data = append(b.Data.Data, bytes.Repeat([]byte{byte(n), byte(i)}, 50*n))
	}
	return b
}

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

// write makes files of blocks, each with the numbers given, and what comes behind the last one.
func write(t testing.TB, tail []byte, files ...[]int) (dir string) {
	dir = t.TempDir()
	for i, numbers := range files {
		var content []byte
		for _, n := range numbers {
			content = append(content, serialize(made(n))...)
		}
		if i == len(files)-1 {
			content = append(content, tail...)
		}
		must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("blockfile_%06d", i)), content, 0o600))
	}
	return dir
}

func read(b *fabricledger.Blocks) (numbers []int, err error) {
	for {
		block, err := b.Next()
		if err != nil {
			return numbers, err
		}
		n := int(block.Header.Number)
		if !proto.Equal(block, made(n)) {
			return numbers, fmt.Errorf("%v is not %v", block, made(n))
		}
		numbers = append(numbers, n)
	}
}

func TestBlocks(t *testing.T) {
	half := serialize(made(9))
	half = half[:len(half)/2]
	for name, tail := range map[string][]byte{"whole": nil, "torn": half, "torn length": {0x80}, "torn by a byte": half[:3]} {
		dir := write(t, tail, []int{0, 1, 2}, []int{3}, nil, []int{4, 5, 6}, nil)
		b, err := fabricledger.OpenBlocks(dir)
		must(t, err)
		defer b.Close()
		if height, err := b.Height(); err != nil || height != 7 || b.First() != 0 {
			t.Errorf("%s: height %d from %d, %v", name, height, b.First(), err)
		}
		if got, err := read(b); fmt.Sprint(got) != "[0 1 2 3 4 5 6]" || !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v %v", name, got, err)
		}
		for n := range 7 {
			must(t, b.Seek(uint64(n)))
			if got, err := read(b); len(got) != 7-n || got[0] != n || !errors.Is(err, io.EOF) {
				t.Errorf("%s: from %d: %v %v", name, n, got, err)
			}
		}
		if err := b.Seek(7); !errors.Is(err, io.EOF) {
			t.Errorf("%s: block 7: %v", name, err)
		}
	}
	if _, err := fabricledger.OpenBlocks(t.TempDir()); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if _, err := fabricledger.OpenBlocks(write(t, half, nil)); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	b, err := fabricledger.OpenBlocks(write(t, nil, []int{5, 6}))
	must(t, err)
	defer b.Close()
	if b.First() != 5 || !errors.Is(b.Seek(4), io.EOF) {
		t.Errorf("a chain from a snapshot begins at %d", b.First())
	}
}

func TestDamagedBlocks(t *testing.T) {
	tooLong := protowire.AppendVarint(nil, 1<<40)
	for name, c := range map[string]struct {
		dir  string
		want string
	}{
		"torn in the middle": {write(t, nil, []int{0, 1}, []int{2}), "blockfile_000000 is damaged at offset"},
		"no length":          {write(t, bytes.Repeat([]byte{0xff}, 20), []int{0}), "this is no length of a block"},
		"no block":           {write(t, []byte{3, 1, 0xff, 0xff}, []int{0}), "cannot be decoded"},
		"more than a block":  {write(t, append([]byte{6}, 1, 0, 0, 0, 0, 9), []int{0}), "bytes follow the block"},
		"many transactions":  {write(t, append([]byte{8}, 1, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0), []int{0}), "cannot be decoded"},
		"block missing":      {write(t, nil, []int{0, 2}), "block 1 is missing"},
	} {
		if name == "torn in the middle" {
			file := filepath.Join(c.dir, "blockfile_000000")
			raw, err := os.ReadFile(file)
			must(t, err)
			must(t, os.WriteFile(file, append(raw, tooLong...), 0o600))
		}
		b, err := fabricledger.OpenBlocks(c.dir)
		must(t, err)
		_, err = read(b)
		if errors.Is(err, io.EOF) {
			err = b.Seek(1)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		must(t, b.Close())
	}
}

func FuzzBlocks(f *testing.F) {
	f.Add(serialize(made(0)))
	f.Add(append(serialize(made(3)), serialize(made(4))...))
	f.Add([]byte{8, 1, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "blockfile_000000"), raw, 0o600))
		b, err := fabricledger.OpenBlocks(dir)
		if err != nil {
			return
		}
		defer b.Close()
		for {
			if _, err := b.Next(); err != nil {
				break
			}
		}
		_, _ = b.Height()
		_ = b.Seek(b.First() + 1)
	})
}

func database(t *testing.T, dir string, entries map[string][]byte) {
	t.Helper()
	db, err := leveldb.OpenFile(dir, nil)
	must(t, err)
	for key, value := range entries {
		must(t, db.Put([]byte(key), value, nil))
	}
	must(t, db.Close())
}

func TestLedgers(t *testing.T) {
	dir := t.TempDir()
	if _, err := fabricledger.Ledgers(dir); err == nil {
		t.Error("there is no list")
	}
	database(t, filepath.Join(dir, "fileLock"), nil)
	database(t, filepath.Join(dir, "ledgerProvider"), map[string][]byte{"f": []byte("2.0"), "sa": nil, "sb": {8, 1}, "sc": {8, 2}, "sd": {18, 0, 8, 3}, "underConstruction": []byte("x")})
	got, err := fabricledger.Ledgers(dir)
	want := map[string]fabricledger.Status{"a": fabricledger.Active, "b": fabricledger.Inactive, "c": fabricledger.UnderConstruction, "d": fabricledger.UnderDeletion}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v %v", got, err)
	}
	// A running peer holds a lock.
	lock, err := os.OpenFile(filepath.Join(dir, "fileLock", "LOCK"), os.O_RDWR, 0)
	must(t, err)
	must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	if _, err := fabricledger.Ledgers(dir); err == nil || !strings.Contains(err.Error(), "is in use: stop Fabric's node first") {
		t.Error(err)
	}
	lock.Close()
	database(t, filepath.Join(dir, "ledgerProvider"), map[string][]byte{"sd": {0xff}})
	if _, err := fabricledger.Ledgers(dir); err == nil || !strings.Contains(err.Error(), `ledger "d"`) {
		t.Error(err)
	}
	database(t, filepath.Join(dir, "ledgerProvider"), map[string][]byte{"f": []byte("1.x")})
	if _, err := fabricledger.Ledgers(dir); err == nil || !strings.Contains(err.Error(), "upgrade-dbs") {
		t.Error(err)
	}
}

func TestPrivate(t *testing.T) {
	dir := t.TempDir()
	if p, err := fabricledger.OpenPrivate(dir); p != nil || err != nil {
		t.Errorf("%v %v", p, err)
	}
	database(t, filepath.Join(dir, "pvtdataStore"), map[string][]byte{
		"ch\x00\x02\x02\x01\x00\x01\x07ns\x00coll": {10, 1, 'c', 18, 2, 5, 6}, "ch\x00\x02\x00\x00ns\x00coll": {18, 1, 9}, "ch\x00\x02\x00\x00ns\x00bad": {0xff}})
	p, err := fabricledger.OpenPrivate(dir)
	must(t, err)
	defer p.Close()
	for _, c := range []struct {
		block, tx uint64
		coll      string
		want      []byte
	}{{256, 7, "coll", []byte{5, 6}}, {0, 0, "coll", []byte{9}}, {256, 8, "coll", nil}, {0, 0, "other", nil}} {
		if got, err := p.WriteSet("ch", c.block, c.tx, "ns", c.coll); err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%+v: %v %v", c, got, err)
		}
	}
	if _, err := p.WriteSet("ch", 0, 0, "ns", "bad"); err == nil {
		t.Error("what cannot be decoded was taken")
	}
}

// wal writes segments as etcd does.
type wal struct {
	raw []byte
	crc uint32
}

func (w *wal) record(kind uint64, data []byte) {
	if kind == 4 {
		data = nil
	} else {
		w.crc = crc32.Update(w.crc, crc32.MakeTable(crc32.Castagnoli), data)
	}
	raw := protowire.AppendVarint([]byte{8}, kind)
	raw = protowire.AppendVarint(append(raw, 16), uint64(w.crc))
	if data != nil {
		raw = protowire.AppendBytes(append(raw, 26), data)
	}
	field, padding := uint64(len(raw)), (8-len(raw)%8)%8
	if padding > 0 {
		field |= uint64(0x80|padding) << 56
	}
	w.raw = append(binary.LittleEndian.AppendUint64(w.raw, field), raw...)
	w.raw = append(w.raw, make([]byte, padding)...)
}

func (w *wal) message(t *testing.T, kind uint64, m proto.Message) {
	raw, err := proto.Marshal(m)
	must(t, err)
	w.record(kind, raw)
}

func (w *wal) entry(t *testing.T, index, term uint64, data string) {
	w.message(t, 2, &raftpb.Entry{Index: &index, Term: &term, Data: []byte(data)})
}

func (w *wal) state(t *testing.T, term, vote, commit uint64) {
	w.message(t, 3, &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit})
}

func (w *wal) save(t *testing.T, dir, name string) {
	must(t, os.MkdirAll(dir, 0o700))
	must(t, os.WriteFile(filepath.Join(dir, name), append(w.raw, make([]byte, 4096)...), 0o600))
	w.raw = nil
}

func describe(l *fabricledger.RaftLog) (text string) {
	text = fmt.Sprintf("%d/%d/%d after %d:", l.Hard.GetTerm(), l.Hard.GetVote(), l.Hard.GetCommit(), l.Snapshot.GetMetadata().GetIndex())
	for _, e := range l.Entries {
		text += fmt.Sprintf(" %d.%d%s", e.GetTerm(), e.GetIndex(), e.GetData())
	}
	return text
}

func TestRaftLog(t *testing.T) {
	dir, snaps := t.TempDir(), t.TempDir()
	if _, err := fabricledger.ReadRaftLog(dir, snaps); !errors.Is(err, fabricledger.ErrNoRaftLog) {
		t.Error(err)
	}
	var w wal
	w.record(4, nil)
	w.record(1, []byte("metadata"))
	w.entry(t, 1, 1, "a")
	w.entry(t, 2, 1, "b")
	w.entry(t, 3, 1, "c")
	w.state(t, 1, 2, 2)
	w.save(t, dir, "0000000000000000-0000000000000000.wal")
	w.record(4, nil)
	w.record(1, []byte("metadata"))
	w.entry(t, 3, 2, "d") // another leader's
	w.entry(t, 4, 2, "e")
	w.record(5, []byte{8, 3, 16, 2})
	w.state(t, 2, 3, 4)
	complete := bytes.Clone(w.raw)
	w.entry(t, 5, 2, strings.Repeat("f", 2000))
	last := "0000000000000001-0000000000000003.wal"
	w.save(t, dir, last)
	check := func(want string) {
		t.Helper()
		l, err := fabricledger.ReadRaftLog(dir, snaps)
		if err != nil || !strings.HasPrefix(describe(l), want) {
			t.Errorf("%v, want %s", err, want)
			if err == nil {
				t.Log(describe(l))
			}
		}
	}
	check("2/3/4 after 0: 1.1a 1.2b 2.3d 2.4e 2.5fff")
	// A crash while the last record was written.
	file := filepath.Join(dir, last)
	raw, err := os.ReadFile(file)
	must(t, err)
	torn := bytes.Clone(raw)
	clear(torn[1024:])
	must(t, os.WriteFile(file, torn, 0o600))
	check("2/3/4 after 0: 1.1a 1.2b 2.3d 2.4e")
	must(t, os.WriteFile(file, raw[:len(complete)+100], 0o600))
	check("2/3/4 after 0: 1.1a 1.2b 2.3d 2.4e")
	// Damage is none.
	damaged := bytes.Clone(raw)
	damaged[len(complete)+50]++
	must(t, os.WriteFile(file, damaged, 0o600))
	if _, err := fabricledger.ReadRaftLog(dir, snaps); err == nil || !strings.Contains(err.Error(), last+" is damaged at offset "+fmt.Sprint(len(complete))) {
		t.Error(err)
	}
	must(t, os.WriteFile(file, raw, 0o600))

	snapshot := func(name string, index, term uint64, spoil bool) {
		data, err := proto.Marshal(&raftpb.Snapshot{Data: []byte("block"), Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}}})
		must(t, err)
		out := protowire.AppendVarint([]byte{8}, uint64(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))))
		if spoil {
			data[0]++
		}
		must(t, os.WriteFile(filepath.Join(snaps, name), protowire.AppendBytes(append(out, 18), data), 0o600))
	}
	snapshot("0000000000000002-0000000000000003.snap", 3, 2, false)
	snapshot("0000000000000002-0000000000000004.snap", 4, 2, true)
	check("2/3/4 after 3: 2.4e 2.5fff")
	snapshot("0000000000000002-0000000000000004.snap", 4, 2, false)
	if _, err := fabricledger.ReadRaftLog(dir, snaps); err == nil || !strings.Contains(err.Error(), "does not know the snapshot at entry 4") {
		t.Error(err)
	}
	must(t, os.Remove(filepath.Join(dir, last)))
	must(t, os.Remove(filepath.Join(snaps, "0000000000000002-0000000000000004.snap")))
	if _, err := fabricledger.ReadRaftLog(dir, snaps); err == nil {
		t.Error("the segment that knows the snapshot is missing")
	}
}

func FuzzRaftLog(f *testing.F) {
	var w wal
	w.record(4, nil)
	w.record(3, []byte{8, 1})
	f.Add(w.raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "0000000000000000-0000000000000000.wal"), raw, 0o600))
		must(t, os.WriteFile(filepath.Join(dir, "0000000000000000-0000000000000000.snap"), raw, 0o600))
		_, _ = fabricledger.ReadRaftLog(dir, dir)
	})
}
