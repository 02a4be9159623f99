package qscc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/qscc"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

const height = 5

func goldenBlock(t testing.TB, n int) *commonpb.Block {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "testdata", "vectors", "blocks", fmt.Sprintf("%06d.block", n)))
	if err != nil {
		t.Fatal(err)
	}
	b := &commonpb.Block{}
	if err := proto.Unmarshal(raw, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// goldenLedger is a real ledger with the first blocks of the golden one.
func goldenLedger(t testing.TB) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(ledger.Config{Dir: t.TempDir(), ChannelID: "devledger"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for n := range height {
		if err := l.Commit(&ledger.Commit{Block: block.Parse(goldenBlock(t, n))}); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

type signer struct{}

func (signer) Serialize() []byte           { return []byte("somebody") }
func (signer) Sign([]byte) ([]byte, error) { return []byte("signature"), nil }

func call(t testing.TB, contract string, args ...string) *simulation.Call {
	t.Helper()
	c := &simulation.Call{}
	for _, a := range args {
		c.Args = append(c.Args, []byte(a))
	}
	_, signed, err := envelope.NewProposal(signer{}, envelope.ProposalArgs{
		Type: commonpb.HeaderType_ENDORSER_TRANSACTION, Chaincode: contract, Args: c.Args,
	})
	if err != nil {
		t.Fatal(err)
	}
	c.Proposal = signed
	return c
}

// access denies one resource.
type access struct{ deny string }

func (a access) Check(channelID, resource string, sp *peerpb.SignedProposal) error {
	if channelID != "devledger" || sp == nil || resource == a.deny {
		return errors.New("not you")
	}
	return nil
}

func contract(t testing.TB, deny string) *qscc.Contract {
	l := goldenLedger(t)
	return qscc.New(qscc.Config{
		Ledger: func(id string) (qscc.Ledger, bool) { return l, id == "devledger" },
		Access: access{deny},
	})
}

func TestQueries(t *testing.T) {
	c := contract(t, "")
	if c.Name() != "qscc" {
		t.Error(c.Name())
	}
	ok := func(into proto.Message, args ...string) {
		t.Helper()
		r := c.Invoke(context.Background(), call(t, "qscc", args...))
		if r.Status != 200 {
			t.Fatalf("%v: %v", args[0], r)
		}
		if err := proto.Unmarshal(r.Payload, into); err != nil {
			t.Fatal(err)
		}
	}
	info := &commonpb.BlockchainInfo{}
	ok(info, "GetChainInfo", "devledger")
	last := goldenBlock(t, height-1)
	if info.Height != height || string(info.CurrentBlockHash) != string(block.HeaderHash(last.Header)) || string(info.PreviousBlockHash) != string(last.Header.PreviousHash) {
		t.Errorf("info %v", info)
	}
	for _, number := range []string{"4", "18446744073709551615"} {
		b := &commonpb.Block{}
		ok(b, "GetBlockByNumber", "devledger", number)
		if !proto.Equal(b, last) {
			t.Errorf("block %s is another", number)
		}
	}
	second := goldenBlock(t, 3)
	b := &commonpb.Block{}
	ok(b, "GetBlockByHash", "devledger", string(block.HeaderHash(second.Header)))
	if !proto.Equal(b, second) {
		t.Error("the block with a hash is another")
	}
	id := envelope.Parse(second.Data.Data[1]).ID()
	b = &commonpb.Block{}
	ok(b, "GetBlockByTxID", "devledger", id)
	if !proto.Equal(b, second) {
		t.Error("the block of a transaction is another")
	}
	tx := &peerpb.ProcessedTransaction{}
	ok(tx, "GetTransactionByID", "devledger", id)
	want := &commonpb.Envelope{}
	if err := proto.Unmarshal(second.Data.Data[1], want); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(tx.TransactionEnvelope, want) || tx.ValidationCode != int32(block.Filter(second)[1]) {
		t.Errorf("transaction %v", tx)
	}
}

func TestFailures(t *testing.T) {
	c := contract(t, "qscc/GetBlockByTxID")
	for _, test := range []struct {
		contract string
		args     []string
		want     string
	}{
		{"qscc", nil, "Incorrect number of arguments, 0"},
		{"qscc", []string{"GetChainInfo"}, "Incorrect number of arguments, 1"},
		{"other", []string{"GetChainInfo", "devledger"}, "Rejecting invoke of QSCC from another chaincode because of potential for deadlocks, original invocation for 'other'"},
		{"qscc", []string{"GetChainInfo", "nowhere"}, "Invalid chain ID, nowhere"},
		{"qscc", []string{"GetBlockByNumber", "devledger"}, "missing 3rd argument for GetBlockByNumber"},
		{"qscc", []string{"Drop", "devledger", ""}, "Requested function Drop not found."},
		{"qscc", []string{"GetBlockByNumber", "devledger", "one"}, "Failed to parse block number with error"},
		{"qscc", []string{"GetBlockByNumber", "devledger", "5"}, "Failed to get block number 5, error no such block number [5] in index"},
		{"qscc", []string{"GetBlockByHash", "devledger", "\xff\x01"}, "no such block hash [ff01] in index"},
		{"qscc", []string{"GetTransactionByID", "devledger", "f00"}, "Failed to get transaction with id f00, error no such transaction ID [f00] in index"},
		{"qscc", []string{"GetTransactionByID", "devledger", "\xff"}, "no such transaction ID [?] in index"},
		{"qscc", []string{"GetBlockByTxID", "devledger", "f00"}, "access denied for [GetBlockByTxID][devledger]: [not you]"},
	} {
		r := c.Invoke(context.Background(), call(t, test.contract, test.args...))
		if r.Status != 500 || !strings.Contains(r.Message, test.want) {
			t.Errorf("%v: %d %q, want %q", test.args, r.Status, r.Message, test.want)
		}
		if _, err := proto.Marshal(r); err != nil {
			t.Error(err)
		}
	}
	broken := call(t, "qscc", "GetChainInfo", "devledger")
	broken.Proposal = &peerpb.SignedProposal{ProposalBytes: []byte("garbage")}
	if r := c.Invoke(context.Background(), broken); r.Status != 500 {
		t.Errorf("a garbled proposal: %v", r)
	}
}
