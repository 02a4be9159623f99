package validate

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Prepared is a block with all that can be said about it without the state.
type Prepared struct {
	Block  *block.Parsed
	bundle *channel.Bundle
	txs    []preparedTx
}

// preparedTx holds two verdicts, since the check for duplicates on the ledger comes between them.
type preparedTx struct {
	tx          *envelope.Tx
	early, late Code

	// The rest is there if both are VALID and the transaction is an endorser transaction.

	set *rwset.Set
	// written are the namespaces whose rules the transaction must satisfy: the invoked contract first, then
	// the others that it writes to in the order of the read-write set. (The reference implementation takes them in
	// random order, so where several fail with different codes its peers may disagree; here the first counts.)
	written []string
	// endorsers are the identities with a good signature, each once, in the order of the transaction.
	endorsers []*identity.Identity
}

// Prepare checks what needs no state, under the configuration that is in force before the block.
func (v *Validator) Prepare(b *channel.Bundle, blk *block.Parsed) *Prepared {
	p := &Prepared{Block: blk, bundle: b, txs: make([]preparedTx, len(blk.Txs))}
	for i, tx := range blk.Txs {
		p.txs[i].tx = tx
	}
	workers := min(v.config.Workers, len(p.txs))
	if workers < 2 {
		var scratch []byte
		for i := range p.txs {
			scratch = p.txs[i].prepare(b, scratch)
		}
		return p
	}
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			var scratch []byte
			for i := next.Add(1) - 1; int(i) < len(p.txs); i = next.Add(1) - 1 {
				scratch = p.txs[i].prepare(b, scratch)
			}
		})
	}
	group.Wait()
	return p
}

// prepare needs a buffer for what endorsers signed, and returns it for the next transaction.
func (t *preparedTx) prepare(b *channel.Bundle, scratch []byte) []byte {
	if t.early = checkEnvelope(b, t.tx); t.early != valid || t.tx.Type() == commonpb.HeaderType_CONFIG {
		return scratch
	}
	if t.late = t.checkAction(); t.late != valid {
		return scratch
	}
	action := t.tx.Actions[0]
	endorsements := action.Payload.Action.Endorsements
	size := 0
	for _, e := range endorsements {
		size += len(action.ResponseBytes) + len(e.GetEndorser())
	}
	scratch = slices.Grow(scratch[:0], size)
	set := make([]policy.SignedData, 0, len(endorsements))
	for _, e := range endorsements {
		start := len(scratch)
		scratch = append(append(scratch, action.ResponseBytes...), e.GetEndorser()...)
		set = append(set, policy.SignedData{Data: scratch[start:], Identity: e.GetEndorser(), Signature: e.GetSignature()})
	}
	t.endorsers = policy.ValidIdentities(set, b.MSPs())
	return scratch
}

// checkEnvelope is everything up to the search for duplicates on the ledger.
func checkEnvelope(b *channel.Bundle, t *envelope.Tx) Code {
	switch {
	case t.EnvelopeErr != nil:
		return peerpb.TxValidationCode_INVALID_OTHER_REASON
	case t.Envelope == nil:
		return peerpb.TxValidationCode_NIL_ENVELOPE
	case t.PayloadErr != nil:
		return peerpb.TxValidationCode_BAD_PAYLOAD
	case !goodHeaders(t):
		return peerpb.TxValidationCode_BAD_COMMON_HEADER
	case !goodCreator(b, t):
		return peerpb.TxValidationCode_BAD_CREATOR_SIGNATURE
	}
	switch t.Type() {
	case commonpb.HeaderType_CONFIG:
		if len(t.Payload.Data) == 0 {
			return peerpb.TxValidationCode_INVALID_CONFIG_TRANSACTION
		}
		return valid
	case commonpb.HeaderType_ENDORSER_TRANSACTION:
	default:
		return peerpb.TxValidationCode_UNSUPPORTED_TX_PAYLOAD
	}
	if t.ID() != envelope.TxID(t.Signature.Nonce, t.Signature.Creator) {
		return peerpb.TxValidationCode_BAD_PROPOSAL_TXID
	}
	if !goodTransaction(t) {
		return peerpb.TxValidationCode_INVALID_ENDORSER_TRANSACTION
	}
	return valid
}

func goodHeaders(t *envelope.Tx) bool {
	if t.Channel == nil || t.Signature == nil {
		return false
	}
	switch t.Type() {
	case commonpb.HeaderType_ENDORSER_TRANSACTION, commonpb.HeaderType_CONFIG_UPDATE, commonpb.HeaderType_CONFIG:
	default:
		return false
	}
	return t.Channel.Epoch == 0 && goodSignatureHeader(t.Signature)
}

func goodSignatureHeader(h *commonpb.SignatureHeader) bool {
	return len(h.GetNonce()) > 0 && len(h.GetCreator()) > 0
}

// goodCreator verifies the envelope's signature by an identity of this channel. Peers of the reference
// implementation look up the channel that the transaction names, or for none their own organisation, so that their
// verdict depends on the peer; here only this channel counts, which is what a peer of no other channel decides.
func goodCreator(b *channel.Bundle, t *envelope.Tx) bool {
	if t.ChannelID() != b.ID() || len(t.Envelope.Signature) == 0 || len(t.Envelope.Payload) == 0 {
		return false
	}
	creator, err := b.MSPs().Deserialize(t.Signature.Creator)
	if err != nil {
		return false
	}
	return creator.Validate() == nil && creator.Verify(t.Envelope.Payload, t.Envelope.Signature) == nil
}

// goodTransaction checks that there is one action and that what was endorsed belongs to this transaction's headers
// and proposal.
func goodTransaction(t *envelope.Tx) bool {
	if len(t.Payload.Data) == 0 || t.TransactionErr != nil || len(t.Actions) != 1 {
		return false
	}
	action := t.Actions[0]
	if action.SignatureErr != nil || !goodSignatureHeader(action.Signature) || action.PayloadErr != nil {
		return false
	}
	// An action without an endorsed action makes the reference implementation panic.
	if action.Payload.GetAction() == nil || action.ResponseErr != nil || action.Response == nil {
		return false
	}
	header, payload := t.Payload.Header.ChannelHeader, action.Payload.ChaincodeProposalPayload
	if len(header) == 0 || len(payload) == 0 {
		return false
	}
	return bytes.Equal(action.Response.ProposalHash, envelope.ProposalHash(header, t.Transaction.Actions[0].Header, payload))
}

// checkAction is what follows the search for duplicates and still needs no state. It fills in the read-write set and
// the namespaces written.
func (t *preparedTx) checkAction() Code {
	if t.tx.ExtensionErr != nil {
		return peerpb.TxValidationCode_BAD_HEADER_EXTENSION
	}
	action := t.tx.Actions[0]
	if len(action.ResponseBytes) == 0 || len(action.Response.Extension) == 0 || action.ChaincodeErr != nil {
		return peerpb.TxValidationCode_BAD_RESPONSE_PAYLOAD
	}
	var err error
	if t.set, err = rwset.Parse(action.Chaincode.Results); err != nil {
		return peerpb.TxValidationCode_BAD_RWSET
	}
	asked, ran := t.tx.Extension.GetChaincodeId(), action.Chaincode.ChaincodeId
	if asked == nil || ran == nil {
		return peerpb.TxValidationCode_INVALID_OTHER_REASON
	}
	if asked.Name == "" || asked.Name != ran.Name || ran.Version == "" {
		return peerpb.TxValidationCode_INVALID_CHAINCODE
	}
	if len(action.Chaincode.Events) > 0 && (action.EventErr != nil || action.Event.GetChaincodeId() != asked.Name) {
		return peerpb.TxValidationCode_INVALID_OTHER_REASON
	}
	t.written = append(t.written, asked.Name)
	seen := make(map[string]bool, len(t.set.Namespaces))
	for _, ns := range t.set.Namespaces {
		if seen[ns.Name] {
			return peerpb.TxValidationCode_ILLEGAL_WRITESET
		}
		seen[ns.Name] = true
		if ns.Name != asked.Name && writes(ns) {
			t.written = append(t.written, ns.Name)
		}
	}
	return valid
}

// writes says whether a transaction writes to a namespace, values or metadata, public or private.
func writes(ns *rwset.Namespace) bool {
	if len(ns.KV.Writes) > 0 || len(ns.KV.MetadataWrites) > 0 {
		return true
	}
	for _, c := range ns.Collections {
		if len(c.Hashed.HashedWrites) > 0 || len(c.Hashed.MetadataWrites) > 0 {
			return true
		}
	}
	return false
}
