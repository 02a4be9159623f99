// Package envelope builds and reads signed transaction envelopes: proposals,
// the transactions assembled from endorsed proposals, and the identifiers and
// hashes that bind them together.
//
// It is pure: no signature is verified here and no verdict is given. The rules
// are those of Hyperledger Fabric's protocol (protoutil and core/common/validation
// name the same hashes). Open envelope.go for the hashes, proposal.go for what
// clients make, tx.go for what peers read.
package envelope

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// NonceSize is the length of the nonce in a signature header, as Fabric's
// clients make it. Readers accept any non-empty nonce.
const NonceSize = 24

// Signer signs as one identity.
type Signer interface {
	// Serialize returns the msp.SerializedIdentity bytes; the caller must not change them.
	Serialize() []byte
	// Sign returns a signature over message in the form that Fabric's verifiers accept.
	Sign(message []byte) ([]byte, error)
}

// NewNonce returns NonceSize random bytes.
func NewNonce() []byte {
	nonce := make([]byte, NonceSize)
	rand.Read(nonce) // never fails (crypto/rand)
	return nonce
}

// TxID is hex(SHA-256(nonce || creator)).
func TxID(nonce, creator []byte) string {
	h := sha256.New()
	h.Write(nonce)
	h.Write(creator)
	var sum [sha256.Size]byte
	return hex.EncodeToString(h.Sum(sum[:0]))
}

// ProposalHash is SHA-256 over the serialized channel header, signature header
// and chaincode proposal payload, the last without its transient map.
func ProposalHash(channelHeader, signatureHeader, payloadWithoutTransient []byte) []byte {
	h := sha256.New()
	h.Write(channelHeader)
	h.Write(signatureHeader)
	h.Write(payloadWithoutTransient)
	return h.Sum(nil)
}

// New makes a signed envelope that is not a transaction with a computed
// identifier: a config update or a seek request. tlsCertHash is the SHA-256 of
// the caller's TLS client certificate, nil without mutual TLS.
func New(s Signer, typ commonpb.HeaderType, channelID string, data proto.Message, tlsCertHash []byte) (*commonpb.Envelope, error) {
	body, err := proto.Marshal(data)
	if err != nil {
		return nil, fmt.Errorf("marshal envelope data: %w", err)
	}
	header, err := newHeader(s, &commonpb.ChannelHeader{Type: int32(typ), ChannelId: channelID, TlsCertHash: tlsCertHash})
	if err != nil {
		return nil, err
	}
	return SignPayload(s, &commonpb.Payload{Header: header, Data: body})
}

// SignPayload serializes and signs a payload.
func SignPayload(s Signer, payload *commonpb.Payload) (*commonpb.Envelope, error) {
	raw, err := proto.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("marshal payload: %w", err)
	}
	signature, err := s.Sign(raw)
	if err != nil {
		return nil, fmt.Errorf("sign payload: %w", err)
	}
	return &commonpb.Envelope{Payload: raw, Signature: signature}, nil
}

// newHeader completes channel with the current time, and for anything but
// config data with the transaction identifier that the fresh nonce fixes.
func newHeader(s Signer, channel *commonpb.ChannelHeader) (*commonpb.Header, error) {
	nonce, creator := NewNonce(), s.Serialize()
	channel.Timestamp = timestamppb.Now()
	channel.TxId = TxID(nonce, creator)
	channelBytes, err := proto.Marshal(channel)
	if err != nil {
		return nil, fmt.Errorf("marshal channel header: %w", err)
	}
	signatureBytes, err := proto.Marshal(&commonpb.SignatureHeader{Creator: creator, Nonce: nonce})
	if err != nil {
		return nil, fmt.Errorf("marshal signature header: %w", err)
	}
	return &commonpb.Header{ChannelHeader: channelBytes, SignatureHeader: signatureBytes}, nil
}
