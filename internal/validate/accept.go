package validate

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// blockPolicy says which orderers' signatures make a block of the channel.
const blockPolicy = "/Channel/Orderer/BlockValidation"

// BadBlock says why a block is not the next one of its channel. Whoever sent it is wrong or lying: ask another.
type BadBlock struct {
	Number uint64
	Reason string
}

func (e *BadBlock) Error() string { return fmt.Sprintf("block %d refused: %s", e.Number, e.Reason) }

// Accept checks that b is the block with a number that follows the one whose header hashes to previousHash, that its
// data is what its header says, and that enough orderers signed it under the configuration in force before it. It says
// nothing about its transactions. The error is a *BadBlock.
func Accept(bundle *channel.Bundle, b *commonpb.Block, number uint64, previousHash []byte) error {
	bad := func(format string, args ...any) error {
		return &BadBlock{Number: number, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case b.GetHeader() == nil:
		return bad("it has no header")
	case b.Header.Number != number:
		return bad("it says it is number %d", b.Header.Number)
	case !bytes.Equal(b.Header.PreviousHash, previousHash):
		return bad("its previous hash is %x, the block before it hashes to %x", b.Header.PreviousHash, previousHash)
	case len(b.GetMetadata().GetMetadata()) <= block.SlotCommitHash:
		return bad("it has %d metadata entries, want %d", len(b.GetMetadata().GetMetadata()), block.SlotCommitHash+1)
	case len(b.GetData().GetData()) == 0:
		return bad("it is empty")
	}
	if err := checkBounds(b); err != nil {
		return bad("%v", err)
	}
	if hash := block.DataHash(b.Data.Data); !bytes.Equal(hash, b.Header.DataHash) {
		return bad("its data hashes to %x, its header says %x", hash, b.Header.DataHash)
	}
	if err := checkSignatures(bundle, b); err != nil {
		return bad("%v", err)
	}
	return nil
}

// checkBounds sees to it that the envelopes begin and end where the orderer put them. The data hash covers
// all envelopes in a row, and so says nothing about where one ends; but a row of canonical envelopes, each beginning with a
// payload, can be cut in one way only. A config block holds one envelope, however it is written.
//
// Blocks with an envelope that has no signature are refused by the reference implementation, which stops at them where
// the channel's policy lets orderers take such envelopes in. Here they are accepted, as the bounds are no less clear, and
// the transaction gets BAD_CREATOR_SIGNATURE.
func checkBounds(b *commonpb.Block) error {
	for i, raw := range b.Data.Data {
		if plainEnvelope(raw) || len(b.Data.Data) == 1 && block.IsConfig(b) {
			continue
		}
		env := &commonpb.Envelope{}
		if err := proto.Unmarshal(raw, env); err != nil {
			return fmt.Errorf("transaction %d is no envelope: %v", i, err)
		}
		if len(env.Payload) == 0 {
			return fmt.Errorf("transaction %d has no payload", i)
		}
		if again, err := proto.Marshal(env); err != nil || !bytes.Equal(again, raw) {
			return fmt.Errorf("transaction %d is not in canonical form", i)
		}
	}
	return nil
}

// plainEnvelope recognises, without decoding it, an envelope in canonical form of a payload and a signature, neither of
// them empty, and nothing else.
func plainEnvelope(raw []byte) bool {
	for field := protowire.Number(1); field <= 2; field++ {
		if len(raw) == 0 || raw[0] != byte(protowire.EncodeTag(field, protowire.BytesType)) {
			return false
		}
		content, n := protowire.ConsumeBytes(raw[1:])
		if n < 0 || len(content) == 0 || n != protowire.SizeBytes(len(content)) {
			return false
		}
		raw = raw[1+n:]
	}
	return len(raw) == 0
}

// checkSignatures evaluates the orderers' signatures. A crash-fault-tolerant orderer signs with its identity beside the
// signature; a Byzantine-fault-tolerant one is named by its number among the consenters in the configuration.
func checkSignatures(bundle *channel.Bundle, b *commonpb.Block) error {
	rule, ok := bundle.Policy(blockPolicy)
	if !ok {
		return fmt.Errorf("the channel has no policy %s", blockPolicy)
	}
	metadata, err := block.Metadata(b, block.SlotSignatures)
	if err != nil {
		return err
	}
	set := make([]policy.SignedData, 0, len(metadata.Signatures))
	for _, s := range metadata.Signatures {
		if bundle.ChannelV3() && len(s.GetSignatureHeader()) == 0 && len(s.GetIdentifierHeader()) > 0 {
			header := &commonpb.IdentifierHeader{}
			if err := proto.Unmarshal(s.IdentifierHeader, header); err != nil {
				return fmt.Errorf("decode identifier header: %w", err)
			}
			for _, c := range bundle.Consenters() {
				if c.Id == header.Identifier {
					set = append(set, policy.SignedData{
						Data:      block.SignedBytes(metadata.Value, s.IdentifierHeader, b.Header),
						Identity:  identity.Serialize(c.MspId, c.Identity),
						Signature: s.Signature,
					})
					break
				}
			}
			continue
		}
		header := &commonpb.SignatureHeader{}
		if err := proto.Unmarshal(s.GetSignatureHeader(), header); err != nil {
			return fmt.Errorf("decode signature header: %w", err)
		}
		set = append(set, policy.SignedData{
			Data:      block.SignedBytes(metadata.Value, s.GetSignatureHeader(), b.Header),
			Identity:  header.Creator,
			Signature: s.GetSignature(),
		})
	}
	if err := rule.EvaluateSigned(set); err != nil {
		return fmt.Errorf("orderers' signatures do not satisfy %s: %w", blockPolicy, err)
	}
	return nil
}
