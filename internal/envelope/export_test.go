package envelope

import "google.golang.org/protobuf/proto"

// Decoders decode raw as each of the messages that can be decoded in place.
func Decoders(raw []byte) []func() (proto.Message, error) {
	return []func() (proto.Message, error){
		as(DecodeEnvelope, raw), as(DecodePayload, raw), as(DecodeHeader, raw), as(DecodeSignatureHeader, raw), as(DecodeProposal, raw),
		as(DecodeProposalPayload, raw), as(decodeTransaction, raw), as(decodeActionPayload, raw), as(decodeResponsePayload, raw), as(decodeAction, raw),
	}
}

func as[M proto.Message](f func([]byte) (M, error), raw []byte) func() (proto.Message, error) {
	return func() (proto.Message, error) { return f(raw) }
}
