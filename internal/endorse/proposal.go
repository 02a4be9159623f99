package endorse

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// proposal is a proposal taken apart. Nothing in it is changed afterwards.
type proposal struct {
	signed    *peerpb.SignedProposal
	channel   *commonpb.ChannelHeader
	signature *commonpb.SignatureHeader
	channelID string
	txID      string
	contract  string
	input     *peerpb.ChaincodeInput
	transient map[string][]byte
	hash      []byte
	creator   *identity.Identity // set by admit
}

// unpack decodes every layer of a proposal. timely decides on its channel header before the rest is looked into.
func unpack(signed *peerpb.SignedProposal, timely func(*commonpb.ChannelHeader) error) (*proposal, error) {
	p := &proposal{signed: signed, channel: &commonpb.ChannelHeader{}}
	raw, err := envelope.DecodeProposal(signed.GetProposalBytes())
	if err != nil {
		return nil, undecodable("Proposal", err)
	}
	header, err := envelope.DecodeHeader(raw.Header)
	if err != nil {
		return nil, undecodable("Header", err)
	}
	if err := proto.Unmarshal(header.ChannelHeader, p.channel); err != nil {
		return nil, undecodable("ChannelHeader", err)
	}
	if err := timely(p.channel); err != nil {
		return nil, err
	}
	if p.signature, err = envelope.DecodeSignatureHeader(header.SignatureHeader); err != nil {
		return nil, undecodable("SignatureHeader", err)
	}
	extension := &peerpb.ChaincodeHeaderExtension{}
	if err := proto.Unmarshal(p.channel.Extension, extension); err != nil {
		return nil, undecodable("ChaincodeHeaderExtension", err)
	}
	if extension.ChaincodeId == nil {
		return nil, errors.New("ChaincodeHeaderExtension.ChaincodeId is nil")
	}
	if extension.ChaincodeId.Name == "" {
		return nil, errors.New("ChaincodeHeaderExtension.ChaincodeId.Name is empty")
	}
	payload, err := envelope.DecodeProposalPayload(raw.Payload)
	if err != nil {
		return nil, undecodable("ChaincodeProposalPayload", err)
	}
	spec := &peerpb.ChaincodeInvocationSpec{}
	if err := proto.Unmarshal(payload.Input, spec); err != nil {
		return nil, undecodable("ChaincodeInvocationSpec", err)
	}
	if spec.ChaincodeSpec == nil {
		return nil, errors.New("chaincode invocation spec did not contain chaincode spec")
	}
	if spec.ChaincodeSpec.Input == nil {
		return nil, errors.New("chaincode input did not contain any input")
	}
	public, err := envelope.PayloadForTx(raw.Payload)
	if err != nil {
		return nil, fmt.Errorf("could not marshal non-transient portion of payload: %w", err)
	}
	p.channelID, p.txID, p.contract = p.channel.ChannelId, p.channel.TxId, extension.ChaincodeId.Name
	p.input, p.transient = spec.ChaincodeSpec.Input, payload.TransientMap
	p.hash = envelope.ProposalHash(header.ChannelHeader, header.SignatureHeader, public)
	return p, nil
}

func undecodable(name string, err error) error {
	return fmt.Errorf("error unmarshalling %s: %w", name, err)
}

// timely refuses a proposal that was made at quite another time than now: one that somebody kept to send it later.
func (e *Endorser) timely(h *commonpb.ChannelHeader) error {
	made, now := h.GetTimestamp().AsTime(), e.cfg.Now().UTC()
	if now.Sub(made).Abs() > e.cfg.TimeWindow {
		return fmt.Errorf("request unauthorized due to incorrect timestamp %s, peer time %s, peer.authentication.timewindow %s",
			made.Format(time.RFC3339), now.Format(time.RFC3339), e.cfg.TimeWindow)
	}
	return nil
}

// errRebuilding has Fabric's words.
var errRebuilding = errors.New("endorse requests are blocked while ledgers are being rebuilt")

// admit decides whether a proposal may run at all.
func (e *Endorser) admit(r *run) error {
	p := r.proposal
	if err := e.checkProposal(r); err != nil {
		e.metrics.invalid.Inc()
		return err
	}
	if r.channel == nil {
		return nil // nothing can come of it but an answer; its contract checks the caller
	}
	used, err := r.channel.HasTx(p.txID)
	if err != nil {
		return fmt.Errorf("failed to look up transaction %s: %w", p.txID, err)
	}
	if used {
		e.metrics.duplicate.WithLabelValues(p.channelID).Inc()
		return fmt.Errorf("duplicate transaction found [%s]. Creator [%x]", p.txID, p.signature.Creator)
	}
	if e.isSystem(p.contract) {
		return nil // each checks for itself
	}
	if r.channel.Rebuilding() {
		return errRebuilding
	}
	if err := r.checkACL("peer/Propose", p.creator); err != nil {
		e.metrics.denied.WithLabelValues(p.channelID).Inc()
		return err
	}
	return nil
}

// checkProposal checks the headers and the creator, whom it sets.
func (e *Endorser) checkProposal(r *run) error {
	p := r.proposal
	if err := p.checkHeaders(); err != nil {
		return fmt.Errorf("error validating proposal: %w", err)
	}
	deserialize := e.cfg.LocalMSP.Deserialize
	if r.bundle != nil {
		deserialize = r.bundle.MSPs().Deserialize
	}
	creator, err := deserialize(p.signature.Creator)
	if err != nil {
		return fmt.Errorf("error validating proposal: access denied: channel [%s] creator org unknown, creator is malformed", p.channelID)
	}
	if e.cfg.Now().After(creator.ExpiresAt()) {
		return errors.New("proposal client identity expired")
	}
	// Clients learn that they are refused, and no more.
	if creator.Validate() != nil || creator.Verify(p.signed.ProposalBytes, p.signed.Signature) != nil {
		return fmt.Errorf("error validating proposal: access denied: channel [%s] creator org [%s]", p.channelID, creator.MSPID())
	}
	p.creator = creator
	return nil
}

func (p *proposal) checkHeaders() error {
	switch kind := commonpb.HeaderType(p.channel.Type); {
	case kind != commonpb.HeaderType_ENDORSER_TRANSACTION && kind != commonpb.HeaderType_CONFIG: // clients of cscc say CONFIG
		return fmt.Errorf("invalid header type %s", kind)
	case p.channel.Epoch != 0:
		return errors.New("epoch is non-zero")
	case len(p.signature.Nonce) == 0:
		return errors.New("nonce is empty")
	case len(p.signature.Creator) == 0:
		return errors.New("creator is empty")
	}
	if want := envelope.TxID(p.signature.Nonce, p.signature.Creator); p.txID != want {
		return fmt.Errorf("incorrectly computed txid '%s' -- expected '%s'", p.txID, want)
	}
	if len(p.signed.ProposalBytes) == 0 {
		return errors.New("empty proposal bytes")
	}
	if len(p.signed.Signature) == 0 {
		return errors.New("empty signature bytes")
	}
	return nil
}
