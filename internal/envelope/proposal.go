package envelope

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// ProposalArgs is what a caller asks a contract to do.
type ProposalArgs struct {
	Type        commonpb.HeaderType // ENDORSER_TRANSACTION; CONFIG for calls without a channel (cscc)
	ChannelID   string              // empty for calls to the peer itself
	Chaincode   string
	Args        [][]byte          // function name first
	Transient   map[string][]byte // reaches the contract, never the ledger
	IsInit      bool
	TLSCertHash []byte // SHA-256 of the TLS client certificate, nil without mutual TLS
}

// Proposal is a proposal as its maker sees it.
type Proposal struct {
	*peerpb.Proposal
	TxID      string
	ChannelID string
	Bytes     []byte // the serialized peerpb.Proposal: what is signed
}

// NewProposal makes a proposal and signs it.
func NewProposal(s Signer, args ProposalArgs) (*Proposal, *peerpb.SignedProposal, error) {
	p, err := NewUnsignedProposal(s, args)
	if err != nil {
		return nil, nil, err
	}
	signature, err := s.Sign(p.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("sign proposal: %w", err)
	}
	return p, &peerpb.SignedProposal{ProposalBytes: p.Bytes, Signature: signature}, nil
}

// NewUnsignedProposal makes a proposal whose signature is made elsewhere: of s
// only Serialize is used.
func NewUnsignedProposal(s Signer, args ProposalArgs) (*Proposal, error) {
	id := &peerpb.ChaincodeID{Name: args.Chaincode}
	extension, err := proto.Marshal(&peerpb.ChaincodeHeaderExtension{ChaincodeId: id})
	if err != nil {
		return nil, fmt.Errorf("marshal header extension: %w", err)
	}
	channel := &commonpb.ChannelHeader{Type: int32(args.Type), ChannelId: args.ChannelID, Extension: extension, TlsCertHash: args.TLSCertHash}
	header, err := newHeader(s, channel)
	if err != nil {
		return nil, err
	}
	input, err := proto.Marshal(&peerpb.ChaincodeInvocationSpec{ChaincodeSpec: &peerpb.ChaincodeSpec{
		Type:        peerpb.ChaincodeSpec_GOLANG, // the peer knows the real language; clients always say this
		ChaincodeId: id,
		Input:       &peerpb.ChaincodeInput{Args: args.Args, IsInit: args.IsInit},
	}})
	if err != nil {
		return nil, fmt.Errorf("marshal chaincode input: %w", err)
	}
	payload, err := proto.Marshal(&peerpb.ChaincodeProposalPayload{Input: input, TransientMap: args.Transient})
	if err != nil {
		return nil, fmt.Errorf("marshal proposal payload: %w", err)
	}
	headerBytes, err := proto.Marshal(header)
	if err != nil {
		return nil, fmt.Errorf("marshal header: %w", err)
	}
	p := &Proposal{Proposal: &peerpb.Proposal{Header: headerBytes, Payload: payload}, TxID: channel.TxId, ChannelID: args.ChannelID}
	if p.Bytes, err = proto.Marshal(p.Proposal); err != nil {
		return nil, fmt.Errorf("marshal proposal: %w", err)
	}
	return p, nil
}

// PayloadForTx returns the serialized chaincode proposal payload without its
// transient map: the form that is hashed and stored in a transaction.
func PayloadForTx(proposalPayload []byte) ([]byte, error) {
	var input []byte
	if fields(proposalPayload, &input) {
		return proposalPayload, nil // it has none
	}
	payload, err := decode[peerpb.ChaincodeProposalPayload](proposalPayload)
	if err != nil {
		return nil, fmt.Errorf("decode chaincode proposal payload: %w", err)
	}
	return proto.Marshal(&peerpb.ChaincodeProposalPayload{Input: payload.Input})
}

// ErrMismatch says that endorsers answered one proposal with different results.
var ErrMismatch = errors.New("ProposalResponsePayloads do not match")

// AssembleTx makes the unsigned payload of the transaction for an endorsed
// proposal. Endorsers must agree on every byte of their response payload
// (ErrMismatch otherwise); an endorser that answered twice counts once.
func AssembleTx(proposal *peerpb.Proposal, responses []*peerpb.ProposalResponse) (*commonpb.Payload, error) {
	if len(responses) == 0 {
		return nil, errors.New("at least one proposal response is required")
	}
	header, err := DecodeHeader(proposal.GetHeader())
	if err != nil {
		return nil, fmt.Errorf("decode proposal header: %w", err)
	}
	agreed := responses[0].GetPayload()
	var endorsements []*peerpb.Endorsement
	seen := make(map[string]bool, len(responses))
	for _, response := range responses {
		if status := response.GetResponse().GetStatus(); status < 200 || status >= 400 {
			return nil, fmt.Errorf("proposal response was not successful, error code %d, msg %s", status, response.GetResponse().GetMessage())
		}
		if !bytes.Equal(response.GetPayload(), agreed) {
			return nil, fmt.Errorf("%w (base64): '%s' vs '%s'", ErrMismatch,
				base64.StdEncoding.EncodeToString(response.GetPayload()), base64.StdEncoding.EncodeToString(agreed))
		}
		if e := response.GetEndorsement(); e != nil && !seen[string(e.Endorser)] {
			seen[string(e.Endorser)] = true
			endorsements = append(endorsements, e)
		}
	}
	if len(endorsements) == 0 {
		return nil, errors.New("no endorsements")
	}
	proposalPayload, err := PayloadForTx(proposal.GetPayload())
	if err != nil {
		return nil, err
	}
	action, err := proto.Marshal(&peerpb.ChaincodeActionPayload{
		ChaincodeProposalPayload: proposalPayload,
		Action:                   &peerpb.ChaincodeEndorsedAction{ProposalResponsePayload: agreed, Endorsements: endorsements},
	})
	if err != nil {
		return nil, fmt.Errorf("marshal chaincode action: %w", err)
	}
	tx, err := proto.Marshal(&peerpb.Transaction{Actions: []*peerpb.TransactionAction{{Header: header.SignatureHeader, Payload: action}}})
	if err != nil {
		return nil, fmt.Errorf("marshal transaction: %w", err)
	}
	return &commonpb.Payload{Header: header, Data: tx}, nil
}
