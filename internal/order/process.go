package order

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// Policies of the channel config.
const (
	writers            = "/Channel/Writers"
	readers            = "/Channel/Readers"
	maintenanceWriters = "/Channel/Orderer/Writers"
	maintenanceReaders = "/Channel/Orderer/Readers"
)

// Rejection is an envelope or request that was refused, with the status and text that Fabric's clients know.
type Rejection struct {
	Status commonpb.Status
	Info   string
}

func (r *Rejection) Error() string { return r.Info }

func reject(status commonpb.Status, format string, args ...any) *Rejection {
	return &Rejection{status, fmt.Sprintf(format, args...)}
}

// within puts a text in front of a rejection's own.
func (r *Rejection) within(format string, args ...any) *Rejection {
	return &Rejection{r.Status, fmt.Sprintf(format, args...) + ": " + r.Info}
}

// header reads as much of an envelope as is needed to find its channel.
func header(env *commonpb.Envelope) (*commonpb.Payload, *commonpb.ChannelHeader, error) {
	payload, err := envelope.DecodePayload(env.GetPayload())
	if err != nil {
		return nil, nil, fmt.Errorf("error unmarshalling Payload: %w", err)
	}
	if payload.Header == nil {
		return nil, nil, errors.New("header not set")
	}
	if payload.Header.ChannelHeader == nil {
		return nil, nil, errors.New("channel header not set")
	}
	h := &commonpb.ChannelHeader{}
	if err := proto.Unmarshal(payload.Header.ChannelHeader, h); err != nil {
		return nil, nil, fmt.Errorf("error unmarshalling channel header: error unmarshalling ChannelHeader: %w", err)
	}
	return payload, h, nil
}

// rules decides which envelopes may be ordered under one config.
type rules struct {
	bundle        *channel.Bundle
	signer        envelope.Signer
	ignoreExpired bool
	alone         bool // no connections to other consenters
}

// normal checks an envelope that is no config update. The payload is the envelope's, decoded.
func (r *rules) normal(env *commonpb.Envelope, payload *commonpb.Payload, now time.Time) *Rejection {
	if _, _, state := r.bundle.ConsensusType(); state != ordererpb.ConsensusType_STATE_NORMAL {
		return reject(commonpb.Status_SERVICE_UNAVAILABLE, "normal transactions are rejected: maintenance mode")
	}
	return r.filter(env, payload, now)
}

// filter is what holds for every envelope: not empty, not too large, signed, by a signer who may write and has not expired.
func (r *rules) filter(env *commonpb.Envelope, payload *commonpb.Payload, now time.Time) *Rejection {
	if len(env.Payload) == 0 {
		return reject(commonpb.Status_BAD_REQUEST, "Message was empty")
	}
	if size, limit := envelopeSize(env), r.bundle.BatchSize().GetAbsoluteMaxBytes(); size > limit {
		return reject(commonpb.Status_BAD_REQUEST, "message payload is %d bytes and exceeds maximum allowed %d bytes", size, limit)
	}
	signature, err := envelope.DecodeSignatureHeader(payload.Header.SignatureHeader)
	if err != nil {
		return reject(commonpb.Status_BAD_REQUEST, "could not convert message to signedData: error unmarshalling SignatureHeader: %v", err)
	}
	// The identity is parsed once and cached; one that does not parse is for the policy to refuse.
	if id, err := r.bundle.MSPs().Deserialize(signature.Creator); err == nil && !r.ignoreExpired && !now.Before(id.ExpiresAt()) {
		return reject(commonpb.Status_BAD_REQUEST, "broadcast client identity expired")
	}
	if rejection := authorize(r.bundle, writers, maintenanceWriters,
		policy.SignedData{Data: env.Payload, Identity: signature.Creator, Signature: env.Signature}); rejection != nil {
		return rejection
	}
	if len(env.Signature) == 0 { // a policy that asks for nobody's
		return reject(commonpb.Status_BAD_REQUEST, "message is not signed: peers of Fabric would stop at its block")
	}
	return nil
}

// authorize asks a policy, or in maintenance the stricter one that leaves only the orderers' own members in.
func authorize(b *channel.Bundle, name, inMaintenance string, signed policy.SignedData) *Rejection {
	if _, _, state := b.ConsensusType(); state == ordererpb.ConsensusType_STATE_MAINTENANCE {
		name = inMaintenance
	}
	p, ok := b.Policy(name)
	if !ok {
		return reject(commonpb.Status_BAD_REQUEST, "could not find policy %s", name)
	}
	if err := p.EvaluateSigned([]policy.SignedData{signed}); err != nil {
		return reject(commonpb.Status_FORBIDDEN, "%v: permission denied", err)
	}
	return nil
}

// configUpdate checks a config update and makes the config transaction that is ordered in its place.
func (r *rules) configUpdate(env *commonpb.Envelope, payload *commonpb.Payload, now time.Time) (*commonpb.Envelope, *Rejection) {
	if rej := r.filter(env, payload, now); rej != nil {
		return nil, rej.within("config update for existing channel did not pass initial checks")
	}
	next, err := r.bundle.ProposeUpdate(env)
	if err != nil {
		return nil, reject(commonpb.Status_BAD_REQUEST, "error applying config update to existing channel '%s': %v", r.bundle.ID(), err)
	}
	if err := r.supported(next); err != nil {
		return nil, reject(commonpb.Status_BAD_REQUEST, "error applying config update to existing channel '%s': %v", r.bundle.ID(), err)
	}
	config, body, err := signConfig(r.signer, r.bundle.ID(), next, now)
	if err != nil {
		return nil, reject(commonpb.Status_INTERNAL_SERVER_ERROR, "the orderer could not sign the config transaction")
	}
	// Again, for the size above all: the config transaction holds the whole config beside the update.
	if rej := r.filter(config, body, now); rej != nil {
		return nil, rej.within("config update for existing channel did not pass final checks")
	}
	return config, nil
}

// supported refuses what this node could order but not carry out afterwards.
func (r *rules) supported(next *commonpb.ConfigEnvelope) error {
	after, err := r.bundle.ValidateConfig(next)
	if err != nil {
		return err
	}
	was, _, _ := r.bundle.ConsensusType()
	will, _, _ := after.ConsensusType()
	if was != will {
		return fmt.Errorf("this orderer cannot migrate a channel from consensus type %s to %s", was, will)
	}
	wanted, err := after.RaftMetadata()
	if err != nil {
		return err
	}
	if r.alone && len(wanted.Consenters) > 1 {
		return errors.New("this orderer runs without connections to others and can only be a channel's single consenter")
	}
	return nil
}

// signConfig makes the CONFIG envelope. As Fabric's orderers do, it leaves the transaction id to be computed by readers.
func signConfig(s envelope.Signer, channelID string, config *commonpb.ConfigEnvelope, now time.Time) (*commonpb.Envelope, *commonpb.Payload, error) {
	body, err := proto.Marshal(config)
	if err != nil {
		return nil, nil, err
	}
	ch, err := proto.Marshal(&commonpb.ChannelHeader{Type: int32(commonpb.HeaderType_CONFIG), ChannelId: channelID, Timestamp: timestamppb.New(now)})
	if err != nil {
		return nil, nil, err
	}
	sh, err := proto.Marshal(&commonpb.SignatureHeader{Creator: s.Serialize(), Nonce: envelope.NewNonce()})
	if err != nil {
		return nil, nil, err
	}
	payload := &commonpb.Payload{Header: &commonpb.Header{ChannelHeader: ch, SignatureHeader: sh}, Data: body}
	env, err := envelope.SignPayload(s, payload)
	return env, payload, err
}

// configOf decodes a config transaction.
func configOf(env *commonpb.Envelope) (*commonpb.ConfigEnvelope, error) {
	payload, _, err := header(env)
	if err != nil {
		return nil, err
	}
	config := &commonpb.ConfigEnvelope{}
	if err := proto.Unmarshal(payload.Data, config); err != nil {
		return nil, fmt.Errorf("decode config envelope: %w", err)
	}
	return config, nil
}

// envelopeSize is what the batch limits count, as in Fabric: the framing around payload and signature is not in it.
func envelopeSize(env *commonpb.Envelope) uint32 {
	return uint32(len(env.Payload) + len(env.Signature))
}
