// Package cscc is the system contract by which a peer joins channels and tells
// which it is a member of and how they are configured.
//
// Functions, arguments, status codes and messages are those of Hyperledger
// Fabric's cscc, so that `peer channel join` and `peer channel list` work
// unmodified. JoinChain and the snapshot functions need an admin of the peer's
// own organization, GetChannels a member of it, GetConfigBlock and
// GetChannelConfig what the channel asks for (Readers unless it says otherwise).
//
// There is only this file.
package cscc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

const name = "cscc"

// Ledger is one channel's ledger, as far as its config block is looked for.
type Ledger interface {
	Height() uint64
	// Block gives a decoded block.
	Block(n uint64) (*commonpb.Block, error)
	// BlockBytes gives an encoded block, which stays the ledger's.
	BlockBytes(n uint64) ([]byte, error)
}

// Channel is a channel that this peer is a member of.
type Channel struct {
	Bundle *channel.Bundle // the configuration in force
	Ledger Ledger
}

// Peer is the peer's set of channels. Implementations are safe for concurrent use.
type Peer interface {
	// Join makes the peer a member of a new channel, durably, and starts it. The
	// block has passed all checks of JoinChain and carries its transactions filter.
	// If the peer is a member already, the error reads "cannot create ledger from genesis block:
	// ledger [<channelID>] already exists with state [ACTIVE]", as tools look for it.
	Join(ctx context.Context, channelID string, genesis *commonpb.Block) error
	// JoinBySnapshot begins to make the peer a member of the channel whose ledger's snapshot is in a folder of the peer's
	// machine. What it does not refuse at once goes on in the background, one join at a time.
	JoinBySnapshot(ctx context.Context, dir string) error
	// JoiningBySnapshot is the folder of the join that is going on.
	JoiningBySnapshot() (dir string, inProgress bool)
	// Channels are the names of the channels, in a fixed order.
	Channels() []string
	Channel(channelID string) (Channel, bool)
}

// Access decides whether the signer of a proposal may use a resource: one of a
// channel, or with an empty channelID one of the peer itself.
type Access interface {
	Check(channelID, resource string, sp *peerpb.SignedProposal) error
}

// Config is what the contract works on. All fields are needed.
type Config struct {
	// Peer holds the channels.
	Peer Peer
	// Access guards every function.
	Access Access
	// Verifier is the process's; the configuration of a new channel is checked with it.
	Verifier *identity.Verifier
}

// Contract is the system contract. It holds no state.
type Contract struct{ config Config }

// New makes the contract.
func New(c Config) *Contract { return &Contract{config: c} }

// Name is the name that proposals call it by.
func (c *Contract) Name() string { return name }

// Invoke runs one function: args[0] names it, args[1] is its argument.
func (c *Contract) Invoke(ctx context.Context, call *simulation.Call) *peerpb.Response {
	args := call.Args
	if len(args) < 1 {
		return failure("Incorrect number of arguments, %d", len(args))
	}
	function := string(args[0])
	if function != "GetChannels" && function != "JoinBySnapshotStatus" && len(args) < 2 {
		return failure("Incorrect number of arguments, %d", len(args))
	}
	switch called, err := calledContract(call.Proposal); {
	case err != nil:
		return failure("Failed to identify the called chaincode: %s", err)
	case called != name:
		return failure("Rejecting invoke of CSCC from another chaincode, original invocation for '%s'", called)
	}
	switch function {
	case "JoinChain":
		return c.joinChain(ctx, call.Proposal, args[1])
	case "JoinChainBySnapshot":
		if len(args[1]) == 0 {
			return failure("Cannot join the channel, no snapshot directory provided")
		}
		if err := c.config.Access.Check("", "cscc/JoinChainBySnapshot", call.Proposal); err != nil {
			return failure("access denied for [%s]: [%s]", function, err)
		}
		if err := c.config.Peer.JoinBySnapshot(ctx, string(args[1])); err != nil {
			return failure("cannot create ledger from snapshot %s: %s", args[1], err)
		}
		return &peerpb.Response{Status: int32(commonpb.Status_SUCCESS)}
	case "JoinBySnapshotStatus":
		if err := c.config.Access.Check("", "cscc/JoinBySnapshotStatus", call.Proposal); err != nil {
			return failure("access denied for [%s]: %s", function, err)
		}
		dir, inProgress := c.config.Peer.JoiningBySnapshot()
		return success(&peerpb.JoinBySnapshotStatus{InProgress: inProgress, BootstrappingSnapshotDir: strings.ToValidUTF8(dir, "?")})
	case "GetConfigBlock":
		return c.configBlock(call.Proposal, string(args[1]))
	case "GetChannelConfig":
		return c.channelConfig(call.Proposal, string(args[1]))
	case "GetChannels":
		return c.channels(call.Proposal)
	}
	return failure("Requested function %s not found.", function)
}

func (c *Contract) joinChain(ctx context.Context, sp *peerpb.SignedProposal, raw []byte) *peerpb.Response {
	b := &commonpb.Block{}
	if err := proto.Unmarshal(raw, b); err != nil {
		return failure("Failed to reconstruct the genesis block, %s", err)
	}
	channelID, err := channelOf(b)
	if err != nil {
		return failure("\"JoinChain\" request failed to extract channel id from the block due to [%s]", err)
	}
	// Before the configuration is looked into: its certificates cost time to check.
	if err := c.config.Access.Check("", "cscc/JoinChain", sp); err != nil {
		return failure("access denied for [%s][%s]: [%s]", "JoinChain", channelID, err)
	}
	if err := c.checkGenesis(b); err != nil {
		return failure("\"JoinChain\" for channelID = %s failed because of validation of configuration block, because of %s", channelID, err)
	}
	if len(block.Filter(b)) == 0 {
		block.SetFilter(b, []byte{byte(peerpb.TxValidationCode_VALID)})
	}
	if err := c.config.Peer.Join(ctx, channelID, b); err != nil {
		return failure("%s", err)
	}
	return &peerpb.Response{Status: int32(commonpb.Status_SUCCESS)}
}

// channelOf is the channel that a block's first envelope is for, whatever the envelope is.
func channelOf(b *commonpb.Block) (string, error) {
	data := b.GetData().GetData()
	if len(data) == 0 {
		return "", errors.New("the block holds no envelope")
	}
	tx := envelope.Parse(data[0])
	if tx.Channel == nil {
		return "", errors.New("its first envelope has no channel header")
	}
	return tx.ChannelID(), nil
}

// checkGenesis checks that a channel can begin with a block: what is wrong with
// it would otherwise show when the second block does not fit.
func (c *Contract) checkGenesis(b *commonpb.Block) error {
	if _, _, err := block.ConfigEnvelope(b); err != nil {
		return fmt.Errorf("Bad configuration envelope: %w", err) //nolint:staticcheck // Fabric's words
	}
	switch header := b.GetHeader(); {
	case header == nil:
		return errors.New("the block has no header")
	case header.Number != 0:
		return fmt.Errorf("it is block %d; a peer joins with the genesis block, number 0 (peer channel fetch 0)", header.Number)
	case !bytes.Equal(header.DataHash, block.DataHash(b.GetData().GetData())):
		return errors.New("the data hash in its header is not that of its data")
	}
	bundle, err := channel.FromBlock(b, c.config.Verifier)
	switch {
	case err != nil:
		return err
	case !bundle.HasApplication():
		return errors.New("invalid configuration block, missing Application configuration group")
	case !bundle.HasOrderer():
		return errors.New("invalid configuration block, missing Orderer configuration group")
	}
	return nil
}

func (c *Contract) configBlock(sp *peerpb.SignedProposal, channelID string) *peerpb.Response {
	if err := c.config.Access.Check(channelID, "cscc/GetConfigBlock", sp); err != nil {
		return failure("access denied for [%s][%s]: %s", "GetConfigBlock", channelID, err)
	}
	ch, ok := c.config.Peer.Channel(channelID)
	if !ok {
		return failure("Unknown channel ID, %s", channelID)
	}
	last, err := ch.Ledger.Block(ch.Ledger.Height() - 1)
	if err != nil {
		return failure("%s", err)
	}
	n, err := block.LastConfig(last)
	if err != nil {
		return failure("%s", err)
	}
	raw, err := ch.Ledger.BlockBytes(n)
	if err != nil {
		return failure("%s", err)
	}
	return &peerpb.Response{Status: int32(commonpb.Status_SUCCESS), Payload: raw}
}

func (c *Contract) channelConfig(sp *peerpb.SignedProposal, channelID string) *peerpb.Response {
	if channelID == "" {
		return failure("empty channel name provided")
	}
	if err := c.config.Access.Check(channelID, "cscc/GetChannelConfig", sp); err != nil {
		return failure("access denied for [%s][%s]: %s", "GetChannelConfig", channelID, err)
	}
	ch, ok := c.config.Peer.Channel(channelID)
	if !ok {
		return failure("unknown channel ID, %s", channelID)
	}
	return success(ch.Bundle.Config())
}

func (c *Contract) channels(sp *peerpb.SignedProposal) *peerpb.Response {
	if err := c.config.Access.Check("", "cscc/GetChannels", sp); err != nil {
		return failure("access denied for [%s]: %s", "GetChannels", err)
	}
	list := &peerpb.ChannelQueryResponse{}
	for _, id := range c.config.Peer.Channels() {
		list.Channels = append(list.Channels, &peerpb.ChannelInfo{ChannelId: id})
	}
	return success(list)
}

// calledContract is the contract that the client itself called with its proposal.
func calledContract(sp *peerpb.SignedProposal) (string, error) {
	var proposal peerpb.Proposal
	var payload peerpb.ChaincodeProposalPayload
	var spec peerpb.ChaincodeInvocationSpec
	if err := proto.Unmarshal(sp.GetProposalBytes(), &proposal); err != nil {
		return "", fmt.Errorf("could not unmarshal proposal: %w", err)
	}
	if err := proto.Unmarshal(proposal.Payload, &payload); err != nil {
		return "", fmt.Errorf("could not unmarshal chaincode proposal payload: %w", err)
	}
	if err := proto.Unmarshal(payload.Input, &spec); err != nil {
		return "", fmt.Errorf("could not unmarshal chaincode invocation spec: %w", err)
	}
	return spec.GetChaincodeSpec().GetChaincodeId().GetName(), nil
}

func success(m proto.Message) *peerpb.Response {
	raw, err := proto.Marshal(m)
	if err != nil {
		return failure("%s", err)
	}
	return &peerpb.Response{Status: int32(commonpb.Status_SUCCESS), Payload: raw}
}

func failure(format string, args ...any) *peerpb.Response {
	return &peerpb.Response{Status: int32(commonpb.Status_INTERNAL_SERVER_ERROR), Message: strings.ToValidUTF8(fmt.Sprintf(format, args...), "?")}
}
