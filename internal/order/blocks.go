package order

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
)

// buildBlock encodes header and data of a block: what is replicated. Each envelope is written once, straight from what
// the client sent, in the canonical form that peers demand; unknown fields around payload and signature are dropped.
func buildBlock(number uint64, previousHash []byte, envs []*commonpb.Envelope) (raw []byte, h *commonpb.BlockHeader) {
	dataSize := 0
	for _, e := range envs {
		dataSize += protowire.SizeTag(1) + protowire.SizeBytes(encodedSize(e))
	}
	// The header's size is known before its content: all hashes have 32 bytes, and block 0 is never built here.
	h = &commonpb.BlockHeader{Number: number, PreviousHash: previousHash, DataHash: make([]byte, sha256.Size)}
	raw = make([]byte, 0, proto.Size(h)+dataSize+32+len(emptyMetadata))
	raw = protowire.AppendTag(raw, 1, protowire.BytesType)
	raw = protowire.AppendVarint(raw, uint64(proto.Size(h)))
	headerAt := len(raw)
	raw = raw[:headerAt+proto.Size(h)]
	raw = protowire.AppendTag(raw, 2, protowire.BytesType)
	raw = protowire.AppendVarint(raw, uint64(dataSize))
	sum := sha256.New()
	for _, e := range envs {
		raw = protowire.AppendTag(raw, 1, protowire.BytesType)
		raw = protowire.AppendVarint(raw, uint64(encodedSize(e)))
		start := len(raw)
		raw = appendEnvelope(raw, e)
		sum.Write(raw[start:])
	}
	sum.Sum(h.DataHash[:0])
	encoded, err := proto.Marshal(h)
	if err != nil {
		panic(fmt.Sprintf("order: a block header has no encoding: %v", err))
	}
	copy(raw[headerAt:], encoded)
	return raw, h
}

func encodedSize(e *commonpb.Envelope) int {
	n := 0
	for _, part := range [][]byte{e.Payload, e.Signature} {
		if len(part) > 0 {
			n += protowire.SizeTag(1) + protowire.SizeBytes(len(part))
		}
	}
	return n
}

func appendEnvelope(raw []byte, e *commonpb.Envelope) []byte {
	if len(e.Payload) > 0 {
		raw = protowire.AppendBytes(protowire.AppendTag(raw, 1, protowire.BytesType), e.Payload)
	}
	if len(e.Signature) > 0 {
		raw = protowire.AppendBytes(protowire.AppendTag(raw, 2, protowire.BytesType), e.Signature)
	}
	return raw
}

// openBlock reads the header of a replicated block, and its envelope if there is exactly one: it may be a config.
func openBlock(raw []byte) (h *commonpb.BlockHeader, single []byte, err error) {
	for rest := raw; len(rest) > 0; {
		number, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, nil, protowire.ParseError(n)
		}
		if typ != protowire.BytesType {
			return nil, nil, fmt.Errorf("field %d of the block is no message", number)
		}
		value, m := protowire.ConsumeBytes(rest[n:])
		if m < 0 {
			return nil, nil, protowire.ParseError(m)
		}
		switch number {
		case 1:
			h = &commonpb.BlockHeader{}
			if err := proto.Unmarshal(value, h); err != nil {
				return nil, nil, fmt.Errorf("block header: %w", err)
			}
		case 2:
			num, typ, k := protowire.ConsumeTag(value)
			if k < 0 || num != 1 || typ != protowire.BytesType {
				return nil, nil, errors.New("block data holds no envelope")
			}
			first, l := protowire.ConsumeBytes(value[k:])
			if l < 0 {
				return nil, nil, protowire.ParseError(l)
			}
			if k+l == len(value) {
				single = first
			}
		}
		rest = rest[n+m:]
	}
	if h == nil {
		return nil, nil, errors.New("block without header")
	}
	return h, single, nil
}

// envelopesIn walks over the envelopes of a replicated block, without decoding them. It ends where the encoding is bad.
func envelopesIn(raw []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for number, value := range fields(raw) {
			if number != 2 {
				continue
			}
			for number, env := range fields(value) {
				if number == 1 && !yield(env) {
					return
				}
			}
		}
	}
}

// splitEnvelope finds payload and signature in an envelope.
func splitEnvelope(raw []byte) (payload, signature []byte, ok bool) {
	for number, value := range fields(raw) {
		switch number {
		case 1:
			payload = value
		case 2:
			signature, ok = value, true
		}
	}
	return payload, signature, ok
}

// fields walks over the fields of a message of which all are bytes.
func fields(raw []byte) iter.Seq2[protowire.Number, []byte] {
	return func(yield func(protowire.Number, []byte) bool) {
		for len(raw) > 0 {
			number, typ, n := protowire.ConsumeTag(raw)
			if n < 0 || typ != protowire.BytesType {
				return
			}
			value, m := protowire.ConsumeBytes(raw[n:])
			if m < 0 || !yield(number, value) {
				return
			}
			raw = raw[n+m:]
		}
	}
}

// configIn returns the config of a block's only envelope, nil if that is no config transaction.
func configIn(single []byte) (*commonpb.ConfigEnvelope, error) {
	if single == nil {
		return nil, nil
	}
	env := &commonpb.Envelope{}
	if err := proto.Unmarshal(single, env); err != nil {
		return nil, fmt.Errorf("decode envelope: %w", err)
	}
	payload, h, err := header(env)
	if err != nil {
		return nil, err
	}
	if commonpb.HeaderType(h.Type) != commonpb.HeaderType_CONFIG {
		return nil, nil
	}
	config := &commonpb.ConfigEnvelope{}
	if err := proto.Unmarshal(payload.Data, config); err != nil {
		return nil, fmt.Errorf("decode config envelope: %w", err)
	}
	return config, nil
}

// sealBlock appends the metadata to a replicated block: this orderer's signature over the header, over the number of
// the last config block and over consensus's own notes. Every orderer does that for itself, so stored blocks of two
// orderers differ in it and in nothing else.
func sealBlock(raw []byte, h *commonpb.BlockHeader, lastConfig uint64, notes *etcdraftpb.BlockMetadata, s envelope.Signer) ([]byte, error) {
	var err error
	encode := func(m proto.Message) (b []byte) {
		if err == nil {
			b, err = proto.Marshal(m)
		}
		return b
	}
	last := &commonpb.LastConfig{Index: lastConfig}
	value := encode(&commonpb.OrdererBlockMetadata{
		LastConfig:        last,
		ConsenterMetadata: encode(&commonpb.Metadata{Value: encode(notes)}),
	})
	signer := encode(&commonpb.SignatureHeader{Creator: s.Serialize(), Nonce: envelope.NewNonce()})
	if err != nil {
		return nil, fmt.Errorf("encode metadata of block %d: %w", h.Number, err)
	}
	signature, err := s.Sign(block.SignedBytes(value, signer, h))
	if err != nil {
		return nil, fmt.Errorf("sign block %d: %w", h.Number, err)
	}
	metadata := encode(&commonpb.BlockMetadata{Metadata: [][]byte{
		block.SlotSignatures: encode(&commonpb.Metadata{Value: value, Signatures: []*commonpb.MetadataSignature{{SignatureHeader: signer, Signature: signature}}}),
		block.SlotLastConfig: encode(&commonpb.Metadata{Value: encode(last)}),
		block.SlotFilter:     {},
		block.SlotOrderer:    {},
		block.SlotCommitHash: {},
	}})
	if err != nil {
		return nil, fmt.Errorf("encode metadata of block %d: %w", h.Number, err)
	}
	sealed := make([]byte, 0, len(raw)+len(metadata)+16)
	sealed = append(sealed, raw...)
	sealed = protowire.AppendTag(sealed, 3, protowire.BytesType)
	return protowire.AppendBytes(sealed, metadata), nil
}

// consensusNotes reads what sealBlock noted for consensus; empty for a block that carries none, such as the genesis block.
func consensusNotes(b *commonpb.Block) (*etcdraftpb.BlockMetadata, error) {
	notes := &etcdraftpb.BlockMetadata{}
	m, err := block.Metadata(b, block.SlotSignatures)
	if err != nil {
		return nil, err
	}
	o, inner := &commonpb.OrdererBlockMetadata{}, &commonpb.Metadata{}
	if err := proto.Unmarshal(m.Value, o); err != nil {
		return nil, fmt.Errorf("orderer metadata: %w", err)
	}
	if err := proto.Unmarshal(o.ConsenterMetadata, inner); err != nil {
		return nil, fmt.Errorf("consenter metadata: %w", err)
	}
	if err := proto.Unmarshal(inner.Value, notes); err != nil {
		return nil, fmt.Errorf("etcdraft metadata: %w", err)
	}
	return notes, nil
}
