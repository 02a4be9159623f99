package snapshotfile_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/snapshotfile"
)

const golden = "../../testdata/vectors/snapshot-Alpha"

// rewrite gives a visitor that writes what it is given.
func rewrite(w *snapshotfile.Writer) snapshotfile.Visitor {
	return snapshotfile.Visitor{Public: w.Public, Hashed: w.Hashed, TxID: w.TxID, Config: w.Config}
}

func TestGolden(t *testing.T) {
	fs := vfs.NewMem()
	for _, dir := range []string{"copy", "again"} {
		if err := fs.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := snapshotfile.Copy(context.Background(), vfs.Default, golden, fs, "copy"); err != nil {
		t.Fatal(err)
	}
	w := snapshotfile.NewWriter(fs, "again")
	m, err := snapshotfile.Read(context.Background(), fs, "copy", rewrite(w))
	if err != nil {
		t.Fatal(err)
	}
	if m.ChannelID != "devledger" || m.LastBlock != 114 || m.StateDBType != "SimpleKeyValueDB" || len(m.Files) != 8 {
		t.Errorf("%+v", m)
	}
	if err := w.Finish(m); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(golden)
	if err != nil || len(entries) != 10 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		want, err := os.ReadFile(filepath.Join(golden, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{"copy", "again"} {
			if !bytes.Equal(contents(t, fs, fs.PathJoin(dir, e.Name())), want) {
				t.Errorf("%s in %s differs", e.Name(), dir)
			}
		}
	}
}

func contents(t testing.TB, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(f); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := snapshotfile.Read(ctx, vfs.Default, golden, snapshotfile.Visitor{}); err == nil {
		t.Error("a cancelled reading went on")
	}
}

// folder lays out a snapshot of the files given, all hashes right.
func folder(t testing.TB, files map[string][]byte, change func(signable, additional map[string]any)) (vfs.FS, string) {
	t.Helper()
	fs := vfs.NewMem()
	sums := map[string]string{}
	hash := strings.Repeat("00", 32)
	write := func(name string, b []byte) {
		f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for name, b := range files {
		sums[name] = fmt.Sprintf("%x", sha256.Sum256(b))
		write(name, b)
	}
	signable := map[string]any{"channel_name": "c", "last_block_number": 7, "last_block_hash": hash, "previous_block_hash": hash, "snapshot_files_raw_hashes": sums}
	additional := map[string]any{"last_block_commit_hash": hash}
	if change != nil {
		change(signable, additional)
	}
	raw, err := json.Marshal(signable)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(raw)
	if additional["snapshot_hash"] == nil {
		additional["snapshot_hash"] = hex.EncodeToString(sum[:])
	}
	more, err := json.Marshal(additional)
	if err != nil {
		t.Fatal(err)
	}
	write(snapshotfile.SignableMetadata, raw)
	write(snapshotfile.AdditionalMetadata, more)
	return fs, ""
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		want   string
		files  map[string][]byte
		change func(signable, additional map[string]any)
	}{
		{"hash mismatch for file [_snapshot_signable_metadata.json]", nil, func(_, a map[string]any) { a["snapshot_hash"] = strings.Repeat("11", 32) }},
		{"last_block_commit_hash: it has 0 bytes", nil, func(_, a map[string]any) { delete(a, "last_block_commit_hash") }},
		{"last_block_hash: it has 1 bytes", nil, func(s, _ map[string]any) { s["last_block_hash"] = "00" }},
		{"no block can follow", nil, func(s, _ map[string]any) { s["last_block_number"] = uint64(1<<64 - 1) }},
		{`"../../etc/passwd" is no file of a snapshot`, nil, func(s, _ map[string]any) {
			s["snapshot_files_raw_hashes"] = map[string]string{"../../etc/passwd": strings.Repeat("00", 32)}
		}},
		{"of txids.data and txids.metadata one is missing", map[string][]byte{"txids.data": {1}}, nil},
		{"txids.metadata: unexpected data format: 2", map[string][]byte{"txids.data": {1}, "txids.metadata": {2, 0}}, nil},
		{"txids.data: cut short", map[string][]byte{"txids.data": {1}, "txids.metadata": {1, 1}}, nil},
		{"txids.data: cut short", map[string][]byte{"txids.data": {}, "txids.metadata": {1, 1}}, nil},
		{"txids.data: a record of 9 bytes, 1 are left", map[string][]byte{"txids.data": {1, 9, 'x'}, "txids.metadata": {1, 1}}, nil},
		{"at most 1073741824 are read", map[string][]byte{"txids.data": {1, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, "txids.metadata": {1, 1}}, nil},
		{"txids.data: 2 bytes are left behind the last record", map[string][]byte{"txids.data": {1, 1, 'x', 1, 'y'}, "txids.metadata": {1, 1}}, nil},
		{"txids.metadata: 1 bytes are left", map[string][]byte{"txids.data": {1, 1, 'x'}, "txids.metadata": {1, 1, 0}}, nil},
		{`a record of "n": version : cut short`, map[string][]byte{"public_state.data": {1, 0}, "public_state.metadata": {1, 1, 1, 'n', 1}}, nil},
		{`its version is of block 8, the snapshot ends with block 7`, map[string][]byte{"public_state.data": {1, 5, 0x22, 3, 1, 8, 0}, "public_state.metadata": {1, 1, 1, 'n', 1}}, nil},
		{`"n" names no collection`, map[string][]byte{"private_state_hashes.data": {1, 5, 0x22, 3, 1, 7, 0}, "private_state_hashes.metadata": {1, 1, 1, 'n', 1}}, nil},
	} {
		fs, dir := folder(t, c.files, c.change)
		_, err := snapshotfile.Read(context.Background(), fs, dir, discard())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v does not say %q", err, c.want)
		}
	}
}

func discard() snapshotfile.Visitor {
	return snapshotfile.Visitor{
		Public: func(string, *snapshotfile.Record) error { return nil },
		Hashed: func(string, string, *snapshotfile.Record) error { return nil },
		TxID:   func(string) error { return nil },
		Config: func(_, _ []byte) error { return nil },
	}
}

// FuzzRead gives files of any content, with the right hashes.
func FuzzRead(f *testing.F) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(golden, name))
		if err != nil {
			f.Fatal(err)
		}
		return b[:min(len(b), 4096)]
	}
	f.Add(read(snapshotfile.PublicData), read(snapshotfile.PublicMetadata), uint8(0))
	f.Add(read(snapshotfile.HashedData), read(snapshotfile.HashedMetadata), uint8(1))
	f.Add(read(snapshotfile.TxIDData), read(snapshotfile.TxIDMetadata), uint8(2))
	f.Add(read(snapshotfile.ConfigData), read(snapshotfile.ConfigMetadata), uint8(3))
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, []byte{1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, uint8(0))
	names := [][2]string{{snapshotfile.PublicData, snapshotfile.PublicMetadata}, {snapshotfile.HashedData, snapshotfile.HashedMetadata},
		{snapshotfile.TxIDData, snapshotfile.TxIDMetadata}, {snapshotfile.ConfigData, snapshotfile.ConfigMetadata}}
	f.Fuzz(func(t *testing.T, data, metadata []byte, pair uint8) {
		name := names[pair%4]
		files := map[string][]byte{name[0]: data, name[1]: metadata}
		fs, dir := folder(t, files, nil)
		again := vfs.NewMem()
		w := snapshotfile.NewWriter(again, "")
		m, err := snapshotfile.Read(context.Background(), fs, dir, rewrite(w))
		if err != nil {
			w.Abandon()
			return
		}
		if err := w.Finish(m); err != nil {
			t.Fatal(err)
		}
		if _, err := snapshotfile.Read(context.Background(), again, "", discard()); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzMetadata gives the two files of metadata any content.
func FuzzMetadata(f *testing.F) {
	for _, name := range []string{snapshotfile.SignableMetadata, snapshotfile.AdditionalMetadata} {
		b, err := os.ReadFile(filepath.Join(golden, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := vfs.NewMem()
		for _, name := range []string{snapshotfile.SignableMetadata, snapshotfile.AdditionalMetadata} {
			out, err := fs.Create(name, vfs.WriteCategoryUnspecified)
			if err != nil {
				t.Fatal(err)
			}
			out.Write(b)
			out.Close()
		}
		if m, err := snapshotfile.ReadMetadata(fs, ""); err == nil && (len(m.LastBlockHash) != 32 || m.LastBlock == 1<<64-1) {
			t.Errorf("%+v", m)
		}
	})
}

func TestVersions(t *testing.T) {
	for _, v := range []rwset.Version{{}, {Block: 1, Tx: 255}, {Block: 1 << 40, Tx: 1<<64 - 1}} {
		if got, err := rwset.ParseVersion(v.AppendBytes(nil)); got != v || err != nil {
			t.Errorf("%v, %v, want %v", got, err, v)
		}
	}
	for _, b := range [][]byte{nil, {1}, {0}, {9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0}, {0, 0, 0}} {
		if v, err := rwset.ParseVersion(b); err == nil {
			t.Errorf("%x: %v", b, v)
		}
	}
}
