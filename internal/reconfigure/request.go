package reconfigure

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// Signer is somebody whose key is at hand; *identity.Signer is one.
type Signer interface {
	envelope.Signer
	MSPID() string
}

// Request is an update with the signatures that it has so far.
type Request struct {
	update   *commonpb.ConfigUpdate
	envelope *commonpb.ConfigUpdateEnvelope
}

// NewRequest is a request that nobody has signed. Config.Request makes one of an edit.
func NewRequest(update *commonpb.ConfigUpdate) (*Request, error) {
	raw, err := encode(update)
	if err != nil {
		return nil, err
	}
	return &Request{update, &commonpb.ConfigUpdateEnvelope{ConfigUpdate: raw}}, nil
}

// maxRequestBytes bounds the file of a request; real ones are a thousandth of it.
const maxRequestBytes = 32 << 20

// ReadRequest reads what Bytes wrote, or a file of `peer channel signconfigtx`.
func ReadRequest(raw []byte) (*Request, error) {
	if len(raw) > maxRequestBytes {
		return nil, fmt.Errorf("the request has %d bytes, at most %d are read", len(raw), maxRequestBytes)
	}
	env, payload, header := &commonpb.Envelope{}, &commonpb.Payload{}, &commonpb.ChannelHeader{}
	err := errors.Join(proto.Unmarshal(raw, env), proto.Unmarshal(env.Payload, payload), proto.Unmarshal(payload.GetHeader().GetChannelHeader(), header))
	if err != nil || header.Type != int32(commonpb.HeaderType_CONFIG_UPDATE) {
		return nil, errors.New("this is no request to sign: a config update envelope is wanted, as hansa channel update and peer channel signconfigtx write it")
	}
	r := &Request{&commonpb.ConfigUpdate{}, &commonpb.ConfigUpdateEnvelope{}}
	if err := proto.Unmarshal(payload.Data, r.envelope); err != nil {
		return nil, fmt.Errorf("the request's update envelope cannot be read: %w", err)
	}
	if err := proto.Unmarshal(r.envelope.ConfigUpdate, r.update); err != nil {
		return nil, fmt.Errorf("the request's update cannot be read: %w", err)
	}
	if r.update.ChannelId == "" || r.update.WriteSet == nil {
		return nil, errors.New("the request's update is empty")
	}
	if header.ChannelId != r.update.ChannelId {
		return nil, fmt.Errorf("the request's envelope is for channel %q, the update in it for %q", header.ChannelId, r.update.ChannelId)
	}
	return r, nil
}

// ChannelID is the channel that the update is for.
func (r *Request) ChannelID() string { return r.update.ChannelId }

// Update is the update. It must not be changed.
func (r *Request) Update() *commonpb.ConfigUpdate { return r.update }

// Bytes writes the request for other members to sign.
func (r *Request) Bytes() ([]byte, error) {
	header, err := encode(&commonpb.ChannelHeader{Type: int32(commonpb.HeaderType_CONFIG_UPDATE), ChannelId: r.ChannelID()})
	if err != nil {
		return nil, err
	}
	data, err := encode(r.envelope)
	if err != nil {
		return nil, err
	}
	payload, err := encode(&commonpb.Payload{Header: &commonpb.Header{ChannelHeader: header}, Data: data})
	if err != nil {
		return nil, err
	}
	return encode(&commonpb.Envelope{Payload: payload})
}

// Sign adds a signature; one who has signed already does not sign twice.
func (r *Request) Sign(s Signer) error {
	for _, have := range r.envelope.Signatures {
		header := &commonpb.SignatureHeader{}
		if proto.Unmarshal(have.SignatureHeader, header) == nil && bytes.Equal(header.Creator, s.Serialize()) {
			return nil
		}
	}
	header, err := encode(&commonpb.SignatureHeader{Creator: s.Serialize(), Nonce: envelope.NewNonce()})
	if err != nil {
		return err
	}
	signature, err := s.Sign(slices.Concat(header, r.envelope.ConfigUpdate))
	if err != nil {
		return fmt.Errorf("sign as %s: %w", s.MSPID(), err)
	}
	r.envelope.Signatures = append(r.envelope.Signatures, &commonpb.ConfigSignature{SignatureHeader: header, Signature: signature})
	return nil
}

// Merge takes over the signatures of another copy of the same request.
func (r *Request) Merge(other *Request) error {
	if !bytes.Equal(r.envelope.ConfigUpdate, other.envelope.ConfigUpdate) {
		return errors.New("the requests are of different updates: signatures on one are none on the other")
	}
	for _, s := range other.envelope.Signatures {
		if !slices.ContainsFunc(r.envelope.Signatures, func(have *commonpb.ConfigSignature) bool { return proto.Equal(have, s) }) {
			r.envelope.Signatures = append(r.envelope.Signatures, s)
		}
	}
	return nil
}

// SignWhatIsNeeded has those of the signers sign whose signatures bring the request
// nearer to what it needs, until it has all or nobody is left who could help.
func (c *Config) SignWhatIsNeeded(r *Request, signers ...Signer) (*Status, error) {
	status, err := c.Status(r)
	for _, s := range signers {
		if err != nil || status.Met() {
			break
		}
		if !status.wants(s.MSPID()) {
			continue
		}
		before := len(r.envelope.Signatures)
		if err = r.Sign(s); err != nil {
			break
		}
		var after *Status
		if after, err = c.Status(r); err != nil {
			break
		}
		if len(after.Signed) == len(status.Signed) || after.lacks() == status.lacks() && !strings.Contains(after.lacks(), furtherPeople) {
			r.envelope.Signatures = r.envelope.Signatures[:before] // it counts for nothing
			continue
		}
		status = after
	}
	return status, err
}
