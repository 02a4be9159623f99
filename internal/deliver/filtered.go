package deliver

import (
	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Filter makes the filtered form of a block: transaction ids, types, validation codes, and chaincode events without
// their payloads. A transaction whose header cannot be read is left out, as in Fabric. One whose content cannot be read
// has no events; there Fabric refuses the whole block, and with it the events of every other transaction in it.
func Filter(b *commonpb.Block) *peerpb.FilteredBlock {
	f := &peerpb.FilteredBlock{Number: b.GetHeader().GetNumber()}
	codes := block.Filter(b)
	for i, tx := range block.Parse(b).Txs {
		if tx.Channel == nil {
			continue
		}
		code := peerpb.TxValidationCode_NOT_VALIDATED
		if i < len(codes) {
			code = peerpb.TxValidationCode(codes[i])
		}
		out := &peerpb.FilteredTransaction{Txid: tx.ID(), Type: tx.Type(), TxValidationCode: code}
		if tx.Type() == commonpb.HeaderType_ENDORSER_TRANSACTION {
			out.Data = &peerpb.FilteredTransaction_TransactionActions{TransactionActions: filterActions(tx.Actions)}
		}
		f.ChannelId = tx.ChannelID()
		f.FilteredTransactions = append(f.FilteredTransactions, out)
	}
	return f
}

func filterActions(actions []*envelope.Action) *peerpb.FilteredTransactionActions {
	out := &peerpb.FilteredTransactionActions{}
	for _, a := range actions {
		if a.Event.GetChaincodeId() == "" {
			continue
		}
		out.ChaincodeActions = append(out.ChaincodeActions, &peerpb.FilteredChaincodeAction{ChaincodeEvent: &peerpb.ChaincodeEvent{
			TxId: a.Event.TxId, ChaincodeId: a.Event.ChaincodeId, EventName: a.Event.EventName,
		}})
	}
	return out
}
