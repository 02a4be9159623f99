package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hansa-ledger/hansa/internal/audit"
	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// commitGolden commits blocks of the golden ledger.
func commitGolden(t *testing.T, l *ledger.Ledger, to uint64) {
	t.Helper()
	for n := l.Height(); n < to; n++ {
		raw, err := os.ReadFile(fmt.Sprintf("../../testdata/vectors/blocks/%06d.block", n))
		if err != nil {
			t.Fatal(err)
		}
		b := &commonpb.Block{}
		if err := proto.Unmarshal(raw, b); err != nil {
			t.Fatal(err)
		}
		if err := l.Commit(&ledger.Commit{Block: block.Parse(b)}); err != nil {
			t.Fatal(err)
		}
	}
}

// A ledger that began with a snapshot is verified from there.
func TestVerifySnapshot(t *testing.T) {
	dir := t.TempDir()
	ctx := context.Background()
	source, err := ledger.Open(ledger.Config{Dir: filepath.Join(dir, "source"), ChannelID: "devledger"})
	if err != nil {
		t.Fatal(err)
	}
	commitGolden(t, source, 60)
	files := filepath.Join(dir, "files")
	s := source.NewSnapshot()
	err = errors.Join(os.Mkdir(files, 0o700), s.Export(ctx, vfs.Default, files), s.Close(), source.Close())
	if err != nil {
		t.Fatal(err)
	}
	joined := filepath.Join(dir, "joined")
	l, err := ledger.Bootstrap(ctx, ledger.Config{Dir: joined, ChannelID: "devledger"}, files, filepath.Join(dir, "staging"), nil)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(want string) {
		t.Helper()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := audit.Verify(ctx, joined, &out, audit.Options{TempDir: t.TempDir()}); err != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s, %v, want %s", out.String(), err, want)
		}
		if l, err = ledger.Open(ledger.Config{Dir: joined, ChannelID: "devledger"}); err != nil {
			t.Fatal(err)
		}
	}
	verify(`"matched_blocks":0,`)
	commitGolden(t, l, 115)
	verify(`"matched_blocks":55,`)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}
