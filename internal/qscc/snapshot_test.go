package qscc_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/qscc"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// What lies before the snapshot that a peer joined by is refused in Fabric's words.
func TestJoinedBySnapshot(t *testing.T) {
	dir := t.TempDir()
	l, err := ledger.Bootstrap(context.Background(), ledger.Config{Dir: filepath.Join(dir, "ledger"), ChannelID: "devledger"},
		filepath.Join("..", "..", "testdata", "vectors", "snapshot-Alpha"), filepath.Join(dir, "staging"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := qscc.New(qscc.Config{Ledger: func(string) (qscc.Ledger, bool) { return l, true }, Access: access{}})
	id := envelope.Parse(goldenBlock(t, 3).Data.Data[1]).ID()
	for want, args := range map[string][]string{
		"Failed to get block number 7, error cannot serve block [7]. The ledger is bootstrapped from a snapshot. First available block = [115]":                                   {"GetBlockByNumber", "7"},
		"error cannot serve block [114]. The ledger is bootstrapped from a snapshot. First available block = [115]":                                                               {"GetBlockByNumber", "18446744073709551615"},
		"Failed to get block for txID " + id + ", error details for the TXID [" + id + "] not available. Ledger bootstrapped from a snapshot. First available block = [115]":      {"GetBlockByTxID", id},
		"Failed to get transaction with id " + id + ", error details for the TXID [" + id + "] not available. Ledger bootstrapped from a snapshot. First available block = [115]": {"GetTransactionByID", id},
		"no such transaction ID [none] in index": {"GetTransactionByID", "none"},
	} {
		r := c.Invoke(context.Background(), call(t, "qscc", args[0], "devledger", args[1]))
		if r.Status != 500 || !strings.Contains(r.Message, want) {
			t.Errorf("%v: %d %q, want %q", args, r.Status, r.Message, want)
		}
	}
	info := &commonpb.BlockchainInfo{}
	r := c.Invoke(context.Background(), call(t, "qscc", "GetChainInfo", "devledger"))
	if err := proto.Unmarshal(r.Payload, info); err != nil || info.Height != 115 || info.GetBootstrappingSnapshotInfo().GetLastBlockInSnapshot() != 114 {
		t.Error(info, err)
	}
}
