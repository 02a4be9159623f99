package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/audit"
	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

const vectors = "../../testdata/vectors"

func golden(t *testing.T, number uint64) *commonpb.Block {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, "blocks", fmt.Sprintf("%06d.block", number)))
	if err != nil {
		t.Fatal(err)
	}
	b := &commonpb.Block{}
	if err := proto.Unmarshal(raw, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// The golden ledger, against the list of what is expected and against its own metadata.
func TestReplay(t *testing.T) {
	for _, expect := range []string{filepath.Join(vectors, "expected.json"), ""} {
		var out bytes.Buffer
		err := audit.Replay(context.Background(), vectors, &out, audit.Options{Expect: expect, TempDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		var last struct {
			Blocks       int `json:"matched_blocks"`
			Transactions int `json:"matched_transactions"`
		}
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
			t.Fatal(err)
		}
		if len(lines) != 116 || last.Blocks != 115 || last.Transactions != 443 {
			t.Errorf("%d lines, the last %s", len(lines), lines[len(lines)-1])
		}
		if want := `{"number":6,"codes":[10,0,11],"commit_hash":"`; !strings.HasPrefix(lines[6], want) {
			t.Errorf("line 6 is %s", lines[6])
		}
	}
}

// copyBlocks makes a folder of the first blocks, one of them changed.
func copyBlocks(t *testing.T, height uint64, changed uint64, change func(*commonpb.Block)) string {
	dir := t.TempDir()
	for n := range height {
		b := golden(t, n)
		if n == changed {
			change(b)
		}
		raw, err := proto.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.block", n)), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReplayDiffers(t *testing.T) {
	tests := []struct {
		name   string
		change func(*commonpb.Block)
		want   string
	}{
		{"code", func(b *commonpb.Block) { block.Filter(b)[1] = 11 }, "transaction 1 is VALID, stored or expected is MVCC_READ_CONFLICT"},
		{"number of codes", func(b *commonpb.Block) { block.SetFilter(b, []byte{0}) }, "codes of 1"},
		{"commit hash", func(b *commonpb.Block) { block.SetCommitHash(b, []byte("x")) }, "commit hash"},
		{"data", func(b *commonpb.Block) { b.Data.Data[0][100] ^= 1 }, "its data hashes to"},
		{"header", func(b *commonpb.Block) { b.Header.PreviousHash[0] ^= 1 }, "previous hash"},
		{"signature", func(b *commonpb.Block) { block.SetSlot(b, block.SlotSignatures, nil) }, "orderers' signatures"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := audit.Replay(context.Background(), copyBlocks(t, 6, 4, test.change), new(bytes.Buffer), audit.Options{TempDir: t.TempDir()})
			if d := (*audit.Difference)(nil); !errors.As(err, &d) || d.Block != 4 || !strings.Contains(d.What, test.want) {
				t.Errorf("got %v, want a difference in block 4 about %q", err, test.want)
			}
		})
	}
}

// node makes a node's ledger of the first blocks as they were stored.
func node(t *testing.T, height uint64, change func(*commonpb.Block)) string {
	t.Helper()
	dir := t.TempDir()
	l, err := ledger.Open(ledger.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for n := range height {
		b := golden(t, n)
		if change != nil {
			change(b)
		}
		if err := l.Commit(&ledger.Commit{Block: block.Parse(b)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestVerify(t *testing.T) {
	var out bytes.Buffer
	dir := node(t, 115, nil)
	if err := audit.Verify(context.Background(), dir, &out, audit.Options{TempDir: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	var sum struct {
		Blocks int `json:"matched_blocks"`
		Keys   int `json:"matched_keys"`
	}
	if err := json.Unmarshal(out.Bytes(), &sum); err != nil || sum.Blocks != 115 || sum.Keys < 900 {
		t.Errorf("%v: %s", err, out.String())
	}
	out.Reset()
	if err := audit.Replay(context.Background(), dir, &out, audit.Options{TempDir: t.TempDir()}); err != nil || strings.Count(out.String(), "\n") != 116 {
		t.Errorf("replay of a node's ledger: %v, %d lines", err, strings.Count(out.String(), "\n"))
	}
}

// A node that stored another verdict than the blocks deserve, in code and state alike.
func TestVerifyFindsOtherVerdict(t *testing.T) {
	dir := node(t, 8, func(b *commonpb.Block) {
		if b.Header.Number == 6 {
			block.Filter(b)[1] = 10
		}
	})
	err := audit.Verify(context.Background(), dir, new(bytes.Buffer), audit.Options{TempDir: t.TempDir()})
	if d := (*audit.Difference)(nil); !errors.As(err, &d) || d.Block != 6 {
		t.Errorf("got %v, want a difference in block 6", err)
	}
}

func TestOrderersLedger(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"blocks", "raft-1"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if err := audit.Verify(context.Background(), dir, new(bytes.Buffer), audit.Options{}); err == nil || !strings.Contains(err.Error(), "orderer's") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "derived")); err == nil {
		t.Error("the orderer's folder has got a peer's files")
	}
}

func TestNoLedger(t *testing.T) {
	for _, check := range []func(context.Context, string, *bytes.Buffer) error{
		func(ctx context.Context, dir string, out *bytes.Buffer) error {
			return audit.Verify(ctx, dir, out, audit.Options{})
		},
		func(ctx context.Context, dir string, out *bytes.Buffer) error {
			return audit.Replay(ctx, dir, out, audit.Options{})
		},
	} {
		if err := check(context.Background(), t.TempDir(), new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "holds no ledger") {
			t.Errorf("got %v", err)
		}
	}
}

// A folder that may not be read is not said to hold nothing.
func TestNoRights(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("the superuser may read everything")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	if err := audit.Verify(t.Context(), dir, new(bytes.Buffer), audit.Options{}); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v", err)
	}
}
