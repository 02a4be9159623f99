package envelope

import (
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Tx is one envelope, decoded once and as deep as it goes. A layer that is
// absent or cannot be decoded is nil; where it could not be decoded the error of
// the same name says why. Tx gives no verdict: validation walks the layers in
// the protocol's order.
//
// Only an ENDORSER_TRANSACTION is decoded past its headers.
type Tx struct {
	Raw      []byte // the serialized Envelope, as received
	Envelope *commonpb.Envelope
	Payload  *commonpb.Payload
	Channel  *commonpb.ChannelHeader
	// Signature is the envelope's signature header: creator and nonce.
	Signature *commonpb.SignatureHeader
	Extension *peerpb.ChaincodeHeaderExtension
	// Transaction has one Action for each of its actions.
	Transaction *peerpb.Transaction
	Actions     []*Action

	EnvelopeErr, PayloadErr, ChannelErr, SignatureErr, ExtensionErr, TransactionErr error
}

// Action is one decoded action of an endorser transaction.
type Action struct {
	Signature *commonpb.SignatureHeader
	Payload   *peerpb.ChaincodeActionPayload
	// Response is what the endorsers signed; its bytes are ResponseBytes.
	Response      *peerpb.ProposalResponsePayload
	ResponseBytes []byte
	Chaincode     *peerpb.ChaincodeAction
	Event         *peerpb.ChaincodeEvent

	SignatureErr, PayloadErr, ResponseErr, ChaincodeErr, EventErr error
}

// Parse decodes a serialized Envelope. It never fails: see Tx. raw must not change while the Tx is in use, which holds parts of it.
func Parse(raw []byte) *Tx {
	t := &Tx{Raw: raw}
	if t.Envelope, t.EnvelopeErr = DecodeEnvelope(raw); t.EnvelopeErr != nil {
		return t
	}
	if t.Payload, t.PayloadErr = DecodePayload(t.Envelope.Payload); t.PayloadErr != nil || t.Payload.Header == nil {
		return t
	}
	t.Channel, t.ChannelErr = decode[commonpb.ChannelHeader](t.Payload.Header.ChannelHeader)
	t.Signature, t.SignatureErr = DecodeSignatureHeader(t.Payload.Header.SignatureHeader)
	if t.Type() != commonpb.HeaderType_ENDORSER_TRANSACTION || t.Channel == nil {
		return t
	}
	t.Extension, t.ExtensionErr = decode[peerpb.ChaincodeHeaderExtension](t.Channel.Extension)
	if t.Transaction, t.TransactionErr = decodeTransaction(t.Payload.Data); t.TransactionErr != nil {
		return t
	}
	t.Actions = make([]*Action, len(t.Transaction.Actions))
	for i, action := range t.Transaction.Actions {
		t.Actions[i] = parseAction(action)
	}
	return t
}

func parseAction(raw *peerpb.TransactionAction) *Action {
	a := &Action{}
	a.Signature, a.SignatureErr = DecodeSignatureHeader(raw.GetHeader())
	if a.Payload, a.PayloadErr = decodeActionPayload(raw.GetPayload()); a.PayloadErr != nil || a.Payload.Action == nil {
		return a
	}
	a.ResponseBytes = a.Payload.Action.ProposalResponsePayload
	if a.Response, a.ResponseErr = decodeResponsePayload(a.ResponseBytes); a.ResponseErr != nil {
		return a
	}
	if a.Chaincode, a.ChaincodeErr = decodeAction(a.Response.Extension); a.ChaincodeErr != nil {
		return a
	}
	if len(a.Chaincode.Events) > 0 {
		a.Event, a.EventErr = decode[peerpb.ChaincodeEvent](a.Chaincode.Events)
	}
	return a
}

// ID is the transaction identifier in the channel header, "" without one.
func (t *Tx) ID() string { return t.Channel.GetTxId() }

// ChannelID is the channel in the channel header, "" without one.
func (t *Tx) ChannelID() string { return t.Channel.GetChannelId() }

// Type is the type in the channel header; without one it is MESSAGE, the zero value.
func (t *Tx) Type() commonpb.HeaderType { return commonpb.HeaderType(t.Channel.GetType()) }

// Creator is the serialized identity that signed the envelope, nil without one.
func (t *Tx) Creator() []byte { return t.Signature.GetCreator() }
