// Package gateway serves gateway.Gateway: it takes a client's signed proposal,
// collects the endorsements that the contract's policy asks for, hands the
// signed transaction to the ordering service, and reports its commit status and
// the contract's events.
//
// It keeps no state of its own: what it knows of channels, contracts and other
// members' peers comes through the interfaces below. Clients sign everything;
// the gateway can neither forge nor alter a transaction. Codes and texts of
// failures are those that the stock Fabric SDKs expect.
//
// Open endorse.go for how endorsers are planned, submit.go for the way to the
// orderers.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Endorser runs and signs proposals: this peer's own, or another peer over gRPC.
type Endorser interface {
	ProcessProposal(ctx context.Context, proposal *peerpb.SignedProposal) (*peerpb.ProposalResponse, error)
}

// Channel is what the gateway needs of a channel that its peer has joined. It
// is safe for concurrent use.
type Channel interface {
	Bundle() *channel.Bundle
	// Layouts returns the combinations of members whose peers can endorse an interest,
	// smallest first. They are shared and not changed. It is asked at every transaction.
	Layouts(interest *peerpb.ChaincodeInterest) ([]discovery.Layout, error)
	// Status waits until the transaction is committed or ctx ends.
	Status(ctx context.Context, txID string) (peerpb.TxValidationCode, uint64, error)
	Height() uint64
	// Block returns block number, waiting until it is committed or ctx ends.
	Block(ctx context.Context, number uint64) (*commonpb.Block, error)
	// BlockOf returns the number of the block that holds a transaction.
	BlockOf(txID string) (number uint64, ok bool)
}

// Peers knows the peers that may endorse.
type Peers interface {
	// Endorsers returns the channel's peers that can run the chaincode, by MSP id,
	// best first. The local peer is among them, with Local set, if it can run the
	// chaincode. The answer is shared and not changed; it is asked for at every call.
	Endorsers(channelID, chaincode string) map[string][]Peer
}

// Peer is a peer that may endorse.
type Peer struct {
	Endorser
	MSPID, Address string
	Local          bool
	Height         uint64 // of its ledger, as known last; not of the local peer
	// Ready says that the peer lives and is known to run the chaincode. Others may do too.
	Ready bool
	// Failed reports that a call could not be delivered, so that others are preferred.
	Failed func()
}

// Orderers hands transactions to the ordering service.
type Orderers interface {
	// Endpoints returns the channel's orderers in the order in which to try them.
	Endpoints(channelID string) []Orderer
}

// Orderer is one ordering node.
type Orderer interface {
	Address() string
	MSPID() string
	// Broadcast sends a transaction and waits for the answer until ctx ends.
	Broadcast(ctx context.Context, envelope *commonpb.Envelope) (status commonpb.Status, info string, err error)
	// Answered is when the orderer last answered anyone, zero if it never did.
	Answered() time.Time
}

// Access decides whether an identity may use a resource of a channel.
type Access interface {
	CheckSigned(channelID, resource string, data, identity, signature []byte) error
}

// Config is what a gateway works with. All but the limits is required.
type Config struct {
	MSPID    string // of the gateway's own member
	Address  string // of the gateway's own peer, named in error details
	Channels func(id string) (Channel, bool)
	Peers    Peers
	Orderers Orderers
	Access   Access
	Log      *slog.Logger

	// EndorsementTimeout bounds one endorser's answer; default 30 s.
	EndorsementTimeout time.Duration
	// BroadcastTimeout bounds one orderer's answer; default 30 s.
	BroadcastTimeout time.Duration
	// SilenceTimeout is how long an orderer may answer nobody until a transaction that
	// it has got is given to the next one as well; default 1 s.
	SilenceTimeout time.Duration
}

// Fabric's defaults (core.yaml, peer.gateway).
const (
	defaultEndorsementTimeout = 30 * time.Second
	defaultBroadcastTimeout   = 30 * time.Second
)

// The stock SDKs give a submission 5 s: time for three silent orderers.
const defaultSilenceTimeout = time.Second

// Server implements gatewaypb.GatewayServer.
type Server struct {
	gatewaypb.UnimplementedGatewayServer
	Config
	events recentEvents
}

// New makes a gateway.
func New(c Config) (*Server, error) {
	if c.Channels == nil || c.Peers == nil || c.Orderers == nil || c.Access == nil || c.Log == nil {
		return nil, errors.New("gateway: Channels, Peers, Orderers, Access and Log are required")
	}
	if c.EndorsementTimeout == 0 {
		c.EndorsementTimeout = defaultEndorsementTimeout
	}
	if c.BroadcastTimeout == 0 {
		c.BroadcastTimeout = defaultBroadcastTimeout
	}
	if c.SilenceTimeout == 0 {
		c.SilenceTimeout = defaultSilenceTimeout
	}
	return &Server{Config: c}, nil
}
