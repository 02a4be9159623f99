package envelope

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// A transaction is a few hundred bytes wrapped in seven layers of messages, each of them a byte string in the one around it, and
// proto.Unmarshal copies every one. The functions below decode these layers in place: the byte strings of the result are parts of
// raw, which must not change while the result is in use. They come to the same result and the same error as proto.Unmarshal:
// what is not in the plain form that encoders make is left to it.

// field takes one field off raw: a byte string or message that is not empty, its number below 16, its length minimally encoded.
func field(raw []byte) (number protowire.Number, content, rest []byte, ok bool) {
	if len(raw) < 2 || raw[0]&7 != byte(protowire.BytesType) || raw[0] >= 0x80 {
		return 0, nil, nil, false
	}
	size, n := protowire.ConsumeVarint(raw[1:])
	end := uint64(1+n) + size
	if n < 0 || size == 0 || n != protowire.SizeVarint(size) || size > uint64(len(raw)) || end > uint64(len(raw)) {
		return 0, nil, nil, false
	}
	return protowire.Number(raw[0] >> 3), raw[1+n : end : end], raw[end:], true
}

// fields takes a message apart that has no other fields than byte strings with the numbers 1, 2 and so on, each at most once and in
// order; into[i] becomes number i+1.
func fields(raw []byte, into ...*[]byte) bool {
	next := protowire.Number(1)
	for len(raw) > 0 {
		number, content, rest, ok := field(raw)
		if !ok || number < next || int(number) > len(into) {
			return false
		}
		*into[number-1], raw, next = content, rest, number+1
	}
	return true
}

// decode copies. It returns nil and an error for bytes that are no message.
func decode[M any, P interface {
	*M
	proto.Message
}](raw []byte) (P, error) {
	message := P(new(M))
	if err := proto.Unmarshal(raw, message); err != nil {
		return nil, err
	}
	return message, nil
}

// DecodeEnvelope decodes in place.
func DecodeEnvelope(raw []byte) (*commonpb.Envelope, error) {
	m := &commonpb.Envelope{}
	if fields(raw, &m.Payload, &m.Signature) {
		return m, nil
	}
	return decode[commonpb.Envelope](raw)
}

// DecodePayload decodes in place.
func DecodePayload(raw []byte) (*commonpb.Payload, error) {
	m, header := &commonpb.Payload{}, []byte(nil)
	if fields(raw, &header, &m.Data) {
		if header == nil {
			return m, nil
		}
		m.Header = &commonpb.Header{}
		if fields(header, &m.Header.ChannelHeader, &m.Header.SignatureHeader) {
			return m, nil
		}
	}
	return decode[commonpb.Payload](raw)
}

// DecodeHeader decodes in place.
func DecodeHeader(raw []byte) (*commonpb.Header, error) {
	m := &commonpb.Header{}
	if fields(raw, &m.ChannelHeader, &m.SignatureHeader) {
		return m, nil
	}
	return decode[commonpb.Header](raw)
}

// DecodeSignatureHeader decodes in place.
func DecodeSignatureHeader(raw []byte) (*commonpb.SignatureHeader, error) {
	m := &commonpb.SignatureHeader{}
	if fields(raw, &m.Creator, &m.Nonce) {
		return m, nil
	}
	return decode[commonpb.SignatureHeader](raw)
}

// DecodeProposal decodes in place.
func DecodeProposal(raw []byte) (*peerpb.Proposal, error) {
	m := &peerpb.Proposal{}
	if fields(raw, &m.Header, &m.Payload) {
		return m, nil
	}
	return decode[peerpb.Proposal](raw)
}

// DecodeProposalPayload decodes in place where there is no transient data.
func DecodeProposalPayload(raw []byte) (*peerpb.ChaincodeProposalPayload, error) {
	m := &peerpb.ChaincodeProposalPayload{}
	if fields(raw, &m.Input) {
		return m, nil
	}
	return decode[peerpb.ChaincodeProposalPayload](raw)
}

// decodeTransaction decodes in place where there is one action.
func decodeTransaction(raw []byte) (*peerpb.Transaction, error) {
	var content []byte
	action := &peerpb.TransactionAction{}
	if fields(raw, &content) && content != nil && fields(content, &action.Header, &action.Payload) {
		return &peerpb.Transaction{Actions: []*peerpb.TransactionAction{action}}, nil
	}
	return decode[peerpb.Transaction](raw)
}

func decodeActionPayload(raw []byte) (*peerpb.ChaincodeActionPayload, error) {
	m, action := &peerpb.ChaincodeActionPayload{}, []byte(nil)
	if fields(raw, &m.ChaincodeProposalPayload, &action) {
		if action == nil {
			return m, nil
		}
		if m.Action = endorsedAction(action); m.Action != nil {
			return m, nil
		}
	}
	return decode[peerpb.ChaincodeActionPayload](raw)
}

// endorsedAction returns nil where the message is not in plain form.
func endorsedAction(raw []byte) *peerpb.ChaincodeEndorsedAction {
	m := &peerpb.ChaincodeEndorsedAction{}
	for len(raw) > 0 {
		number, content, rest, ok := field(raw)
		switch {
		case !ok:
			return nil
		case number == 1 && m.ProposalResponsePayload == nil && m.Endorsements == nil:
			m.ProposalResponsePayload = content
		case number == 2:
			e := &peerpb.Endorsement{}
			if !fields(content, &e.Endorser, &e.Signature) {
				return nil
			}
			m.Endorsements = append(m.Endorsements, e)
		default:
			return nil
		}
		raw = rest
	}
	return m
}

func decodeResponsePayload(raw []byte) (*peerpb.ProposalResponsePayload, error) {
	m := &peerpb.ProposalResponsePayload{}
	if fields(raw, &m.ProposalHash, &m.Extension) {
		return m, nil
	}
	return decode[peerpb.ProposalResponsePayload](raw)
}

// decodeAction decodes the results and the event in place.
func decodeAction(raw []byte) (*peerpb.ChaincodeAction, error) {
	m := &peerpb.ChaincodeAction{}
	var response, contract []byte
	if fields(raw, &m.Results, &m.Events, &response, &contract) {
		var err1, err2 error
		if response != nil {
			m.Response, err1 = decode[peerpb.Response](response)
		}
		if contract != nil {
			m.ChaincodeId, err2 = decode[peerpb.ChaincodeID](contract)
		}
		if err1 == nil && err2 == nil {
			return m, nil
		}
	}
	return decode[peerpb.ChaincodeAction](raw)
}
