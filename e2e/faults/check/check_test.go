package check_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/e2e/faults/check"
)

// story is a correct history with its chain: one transaction a block, two peers and an orderer.
func story() ([]*check.Op, []*check.Block) {
	ops := []*check.Op{
		{Kind: check.Write, Key: "x", Value: "1"},
		{Kind: check.Read, Key: "x", Result: "1"},
		{Kind: check.Swap, Key: "x", Old: "1", Value: "2", Result: check.Swapped},
		{Kind: check.Create, Key: "y", Value: "3"},
		{Kind: check.Swap, Key: "x", Old: "1", Value: "4", Result: "2"},
		{Kind: check.Read, Key: "x", Result: "2"},
	}
	var blocks []*check.Block
	previous := ""
	for i, op := range ops {
		op.TxID, op.Ordered, op.Outcome = fmt.Sprint("tx", i), true, check.Committed
		op.Call, op.Return = time.Duration(10*i), time.Duration(10*i+5)
		b := &check.Block{Number: uint64(i), Hash: fmt.Sprint("hash", i), Previous: previous, Judged: true, CommitHash: fmt.Sprint("state", i), Txs: []check.Tx{{ID: op.TxID}}}
		previous = b.Hash
		blocks = append(blocks, b)
	}
	return ops, blocks
}

func ledgerOf(blocks []*check.Block) *check.Ledger {
	l := check.NewLedger()
	for _, node := range []string{"orderer", "peer0", "peer1"} {
		for _, b := range blocks {
			b := *b
			b.Judged = node != "orderer"
			l.Add(node, &b)
		}
	}
	return l
}

func TestSound(t *testing.T) {
	ops, blocks := story()
	l := ledgerOf(blocks)
	if f := check.Check(ops, l); f.Failed() || len(l.Diverged()) > 0 {
		t.Fatalf("a correct history: %s %v", f, l.Diverged())
	}
	if got := check.Replay(ops, l); got["x"] != "2" || got["y"] != "3" || len(got) != 2 {
		t.Errorf("replayed: %v", got)
	}
}

// What must be found is found, under its name.
func TestFaultsAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(ops []*check.Op, blocks []*check.Block)
		want  string
	}{
		"a transaction that was committed is in no block": {func(_ []*check.Op, b []*check.Block) { b[3].Txs = nil }, "1 lost"},
		"one that only an orderer acknowledged": {func(o []*check.Op, b []*check.Block) {
			o[3].Outcome = check.Unknown
			b[3].Txs = nil
		}, "1 lost"},
		"one that was said to be valid is invalid": {func(_ []*check.Op, b []*check.Block) { b[3].Txs[0].Code = 11 }, "1 lost"},
		"one is there twice": {func(_ []*check.Op, b []*check.Block) {
			b[4].Txs = append(b[4].Txs, check.Tx{ID: "tx3"})
		}, "1 doubled"},
		"two are exchanged":          {func(_ []*check.Op, b []*check.Block) { b[0].Txs, b[3].Txs = b[3].Txs, b[0].Txs }, "reordered"},
		"a read that missed a write": {func(o []*check.Op, _ []*check.Block) { o[1].Result = "" }, "reordered"},
		"a swap that found what was not there": {func(o []*check.Op, _ []*check.Block) {
			o[4].Result = check.Swapped
		}, "reordered"},
		"an answer that the chain contradicts": {func(o []*check.Op, _ []*check.Block) {
			// Porcupine sees no error in it, as the unknown call may have come late.
			o[0].Outcome = check.Unknown
			o[1].Result = ""
			o[2].Result, o[4].Result, o[5].Result = "", "", ""
		}, "wrong"},
		"one that was said to have failed is valid": {func(o []*check.Op, _ []*check.Block) { o[3].Outcome = check.Refused }, "1 wrong"},
	} {
		t.Run(name, func(t *testing.T) {
			ops, blocks := story()
			c.spoil(ops, blocks)
			f := check.Check(ops, ledgerOf(blocks))
			if !strings.Contains(f.String(), c.want) {
				t.Errorf("found %q, want %q", f, c.want)
			}
		})
	}
}

// Unknown calls may have taken place, may still, or never will.
func TestUnknown(t *testing.T) {
	for _, in := range []bool{true, false} {
		ops, blocks := story()
		ops[2].Outcome, ops[2].Ordered, ops[2].Result = check.Unknown, false, ""
		if !in {
			blocks[2].Txs = nil
			ops[4].Result, ops[5].Result = check.Swapped, "4"
		}
		if f := check.Check(ops, ledgerOf(blocks)); f.Failed() {
			t.Errorf("in the chain: %v: %s", in, f)
		}
	}
}

func TestDivergenceIsFound(t *testing.T) {
	for name, spoil := range map[string]func(b *check.Block){
		"another block at a height":   func(b *check.Block) { b.Hash = "other" },
		"another block before it":     func(b *check.Block) { b.Previous = "other" },
		"another state":               func(b *check.Block) { b.CommitHash = "other" },
		"another verdict":             func(b *check.Block) { b.Txs = []check.Tx{{ID: "tx2", Code: 11}} },
		"a gap":                       func(b *check.Block) { b.Number = 99 },
		"another orderer's new block": func(b *check.Block) { b.Hash, b.Judged = "other", false },
	} {
		t.Run(name, func(t *testing.T) {
			_, blocks := story()
			l := ledgerOf(blocks)
			b := *blocks[2]
			spoil(&b)
			l.Add("another", &b)
			if len(l.Diverged()) == 0 {
				t.Error("not found")
			}
		})
	}
	_, blocks := story()
	blocks[3].Previous = "other"
	if l := ledgerOf(blocks); len(l.Diverged()) == 0 {
		t.Error("a broken chain is not found")
	}
}
