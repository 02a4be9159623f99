// Package block holds what a block is made of: hashes, the bytes that orderers
// sign, metadata slots, and the parsed form that a block carries through a peer.
//
// It decides nothing: who may sign a block and which transactions are valid is
// said elsewhere. Hash inputs are Hyperledger Fabric's (protoutil/blockutils.go).
package block

import (
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// Metadata slots of a block, by index.
const (
	SlotSignatures = int(commonpb.BlockMetadataIndex_SIGNATURES)
	SlotLastConfig = int(commonpb.BlockMetadataIndex_LAST_CONFIG)
	SlotFilter     = int(commonpb.BlockMetadataIndex_TRANSACTIONS_FILTER)
	SlotOrderer    = int(commonpb.BlockMetadataIndex_ORDERER)
	SlotCommitHash = int(commonpb.BlockMetadataIndex_COMMIT_HASH)
	slots          = SlotCommitHash + 1
)

// header is hashed in ASN.1 DER.
type header struct {
	Number       *big.Int
	PreviousHash []byte
	DataHash     []byte
}

// HeaderBytes is the DER form of a block header.
func HeaderBytes(h *commonpb.BlockHeader) []byte {
	der, err := asn1.Marshal(header{new(big.Int).SetUint64(h.GetNumber()), h.GetPreviousHash(), h.GetDataHash()})
	if err != nil {
		panic(fmt.Sprintf("block: a header of one integer and two strings has no DER form: %v", err))
	}
	return der
}

// HeaderHash is the block's hash: SHA-256 of its header's DER form.
func HeaderHash(h *commonpb.BlockHeader) []byte {
	sum := sha256.Sum256(HeaderBytes(h))
	return sum[:]
}

// DataHash is SHA-256 over all the block's envelopes, one after the other.
func DataHash(data [][]byte) []byte {
	h := sha256.New()
	for _, envelope := range data {
		h.Write(envelope)
	}
	return h.Sum(nil)
}

// New makes the unsigned block that follows the one whose hash is previousHash
// (nil for block 0), with every metadata slot present and empty.
func New(number uint64, previousHash []byte, data [][]byte) *commonpb.Block {
	metadata := make([][]byte, slots)
	for i := range metadata {
		metadata[i] = []byte{}
	}
	return &commonpb.Block{
		Header:   &commonpb.BlockHeader{Number: number, PreviousHash: previousHash, DataHash: DataHash(data)},
		Data:     &commonpb.BlockData{Data: data},
		Metadata: &commonpb.BlockMetadata{Metadata: metadata},
	}
}

// SignedBytes is what a crash-fault-tolerant orderer signs: the metadata value,
// its own signature header, and the block header.
func SignedBytes(value, signatureHeader []byte, h *commonpb.BlockHeader) []byte {
	der := HeaderBytes(h)
	message := make([]byte, 0, len(value)+len(signatureHeader)+len(der))
	message = append(message, value...)
	message = append(message, signatureHeader...)
	return append(message, der...)
}

// slot returns a metadata slot, nil where the block has none.
func slot(b *commonpb.Block, index int) []byte {
	if m := b.GetMetadata().GetMetadata(); index < len(m) {
		return m[index]
	}
	return nil
}

// SetSlot sets a metadata slot and makes those before it that are missing.
func SetSlot(b *commonpb.Block, index int, value []byte) {
	if b.Metadata == nil {
		b.Metadata = &commonpb.BlockMetadata{}
	}
	for len(b.Metadata.Metadata) <= index {
		b.Metadata.Metadata = append(b.Metadata.Metadata, []byte{})
	}
	b.Metadata.Metadata[index] = value
}

// Metadata decodes a metadata slot; an absent or empty slot is an empty Metadata.
func Metadata(b *commonpb.Block, index int) (*commonpb.Metadata, error) {
	m := &commonpb.Metadata{}
	if err := proto.Unmarshal(slot(b, index), m); err != nil {
		return nil, fmt.Errorf("block %d: decode metadata slot %d: %w", b.GetHeader().GetNumber(), index, err)
	}
	return m, nil
}

// LastConfig is the number of the newest config block at or before b, from the
// SIGNATURES slot, or from the older LAST_CONFIG slot where that is all there is.
func LastConfig(b *commonpb.Block) (uint64, error) {
	m, err := Metadata(b, SlotSignatures)
	if err != nil {
		return 0, err
	}
	if len(m.Value) > 0 {
		orderer := &commonpb.OrdererBlockMetadata{}
		if err := proto.Unmarshal(m.Value, orderer); err != nil {
			return 0, fmt.Errorf("block %d: decode orderer metadata: %w", b.GetHeader().GetNumber(), err)
		}
		if orderer.LastConfig != nil {
			return orderer.LastConfig.Index, nil
		}
	}
	if m, err = Metadata(b, SlotLastConfig); err != nil {
		return 0, err
	}
	last := &commonpb.LastConfig{}
	if err := proto.Unmarshal(m.Value, last); err != nil {
		return 0, fmt.Errorf("block %d: decode last config: %w", b.GetHeader().GetNumber(), err)
	}
	return last.Index, nil
}

// Filter holds one validation code a transaction; empty before a peer validated the block.
func Filter(b *commonpb.Block) []byte { return slot(b, SlotFilter) }

// SetFilter stores the validation codes.
func SetFilter(b *commonpb.Block, codes []byte) { SetSlot(b, SlotFilter, codes) }

// CommitHash returns the commit hash that a peer stored, nil without one.
func CommitHash(b *commonpb.Block) []byte {
	m, err := Metadata(b, SlotCommitHash)
	if err != nil || len(m.Value) == 0 {
		return nil
	}
	return m.Value
}

// SetCommitHash stores the commit hash.
func SetCommitHash(b *commonpb.Block, hash []byte) {
	raw, err := proto.Marshal(&commonpb.Metadata{Value: hash})
	if err != nil {
		panic(fmt.Sprintf("block: a metadata value has no encoding: %v", err))
	}
	SetSlot(b, SlotCommitHash, raw)
}

// ErrNoConfig says that a block is not a config block.
var ErrNoConfig = errors.New("not a config block")

// ConfigEnvelope decodes the channel configuration that a config block carries
// and the channel it is for. A config block holds one CONFIG envelope and
// nothing else; anything other is ErrNoConfig.
func ConfigEnvelope(b *commonpb.Block) (*commonpb.ConfigEnvelope, string, error) {
	data := b.GetData().GetData()
	if len(data) != 1 {
		return nil, "", fmt.Errorf("block %d: %w: it holds %d envelopes, a config block one", b.GetHeader().GetNumber(), ErrNoConfig, len(data))
	}
	tx := envelope.Parse(data[0])
	if tx.Channel == nil || tx.Type() != commonpb.HeaderType_CONFIG {
		return nil, "", fmt.Errorf("block %d: %w", b.GetHeader().GetNumber(), ErrNoConfig)
	}
	config := &commonpb.ConfigEnvelope{}
	if err := proto.Unmarshal(tx.Payload.Data, config); err != nil {
		return nil, "", fmt.Errorf("block %d: decode config envelope: %w", b.GetHeader().GetNumber(), err)
	}
	return config, tx.ChannelID(), nil
}

// IsConfig says whether a block carries a channel configuration.
func IsConfig(b *commonpb.Block) bool {
	_, _, err := ConfigEnvelope(b)
	return err == nil
}

// Parsed is a block with its envelopes decoded: Txs[i] is Data.Data[i].
type Parsed struct {
	*commonpb.Block
	Txs []*envelope.Tx
}

// Parse decodes every envelope of b, on all cores where that pays.
func Parse(b *commonpb.Block) *Parsed {
	data := b.GetData().GetData()
	p := &Parsed{Block: b, Txs: make([]*envelope.Tx, len(data))}
	workers := min(runtime.GOMAXPROCS(0), len(data)/parallelFrom)
	if workers < 2 {
		for i, raw := range data {
			p.Txs[i] = envelope.Parse(raw)
		}
		return p
	}
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(data); i = next.Add(1) - 1 {
				p.Txs[i] = envelope.Parse(data[i])
			}
		})
	}
	group.Wait()
	return p
}

// parallelFrom is how many envelopes a core must have to be worth starting: one
// takes about 10 µs to decode.
const parallelFrom = 8
