package simulation

import (
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Call is what a system contract gets: one invocation, by a client or by a contract on a client's behalf, with
// everything that was already decoded and verified on the way. System contracts read it and change nothing.
type Call struct {
	ChannelID string // empty for calls to the peer itself
	TxID      string
	Namespace string // the called contract

	Proposal        *peerpb.SignedProposal
	ChannelHeader   *commonpb.ChannelHeader
	SignatureHeader *commonpb.SignatureHeader

	// Creator is the serialized identity that signed the proposal. Identity is the same as the channel's MSPs
	// (without channel: the peer's own MSP) see it: it is valid, and its signature over the proposal has been
	// verified. A policy of another scope needs an identity deserialized there.
	Creator  []byte
	Identity *identity.Identity

	Transient map[string][]byte
	Args      [][]byte

	// Sim is the simulation that the call is part of. It is nil for calls without a channel, and for calls by
	// clients to qscc and cscc, which read the ledger and not its state.
	Sim *Simulator
}
