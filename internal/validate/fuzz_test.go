package validate_test

import (
	"testing"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// FuzzDecide mutates envelopes of the golden ledger. Whatever comes of it, there is a verdict, the same again when decided
// beside a good transaction, and the good transaction keeps its own.
func FuzzDecide(f *testing.F) {
	c := newChain(f).to(60)
	for _, number := range []int{3, 7, 16, 22, 28, 43, 54, 59} {
		for _, raw := range loadBlock(f, number).Data.Data {
			f.Add(raw)
		}
	}
	good := loadBlock(f, 60).Data.Data[0]
	alone := c.decide(block.Parse(block.New(60, nil, [][]byte{good}))).Codes[0]
	f.Fuzz(func(t *testing.T, raw []byte) {
		c.t = t
		first := c.decide(block.Parse(block.New(60, nil, [][]byte{raw, good})))
		again := c.decide(block.Parse(block.New(60, nil, [][]byte{raw, good})))
		if string(first.Codes) != string(again.Codes) || string(first.Updates.CommitBytes()) != string(again.Updates.CommitBytes()) {
			t.Fatalf("codes %v, then %v", names(first.Codes), names(again.Codes))
		}
		if first.Codes[0] != 0 && first.Codes[1] != alone {
			t.Fatalf("beside an invalid transaction a good one is %s, alone %s", codeName(first.Codes[1]), codeName(alone))
		}
	})
}

// FuzzResults puts arbitrary bytes where endorsed results are, properly signed and endorsed.
func FuzzResults(f *testing.F) {
	n := newNetwork(f)
	for _, key := range []string{"r1", "r2", "r3"} {
		n.run(n.tx(tx{set: put("both", key)}))
	}
	for _, number := range []int{7, 16, 22, 28, 54, 59} {
		for _, t := range loadBlock(f, number).Txs {
			if len(t.Actions) > 0 && t.Actions[0].Chaincode != nil {
				f.Add(t.Actions[0].Chaincode.Results)
			}
		}
	}
	f.Fuzz(func(t *testing.T, results []byte) {
		n.t = t
		blk := n.block(n.tx(tx{results: results}), n.tx(tx{set: put("both", "k")}), n.tx(tx{results: results}))
		first, again := n.decide(blk), n.decide(blk)
		if string(first.Codes) != string(again.Codes) || string(first.Updates.CommitBytes()) != string(again.Updates.CommitBytes()) {
			t.Fatalf("codes %v, then %v", names(first.Codes), names(again.Codes))
		}
	})
}

// FuzzTransaction puts arbitrary bytes where the transaction is, under good headers and a good signature.
func FuzzTransaction(f *testing.F) {
	n := newNetwork(f)
	for _, number := range []int{7, 22, 43, 54, 59} {
		for _, t := range loadBlock(f, number).Txs {
			if t.Payload != nil {
				f.Add(t.Payload.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		n.t = t
		codes := n.decide(n.block(n.tx(tx{outer: func(p *commonpb.Payload) { p.Data = data }}), n.tx(tx{set: put("both", "k")}))).Codes
		if codes[0] != byte(peerpb.TxValidationCode_INVALID_ENDORSER_TRANSACTION) || codes[1] != 0 {
			t.Fatalf("codes %v", names(codes))
		}
	})
}
