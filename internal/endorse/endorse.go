// Package endorse answers proposals: it checks who proposes what, runs the contract in a simulation, and signs what
// came out. It is served as protos.Endorser.
//
// It guarantees that a proposal has no effect on the ledger, that the bytes it signs are those that any Hyperledger
// Fabric peer at the same height would sign for it, and that answers, refusals included, have the status, text and
// form that Fabric's clients expect: what is wrong with the proposal itself is also a gRPC error, what went wrong in
// running it is only a response with status 500. The creator's signature is verified once, and the signature made
// here is remembered, so that validation does not verify it again.
//
// It leaves out how contracts are reached (Contracts), how contracts are defined (Programs), system contracts, and
// what happens to private data between endorsement and commit (PrivateStore, Distributor).
//
// Open this file first; proposal.go checks proposals, run.go runs them, interest.go tells clients which
// endorsements a transaction needs.
package endorse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// Channel is what endorsement needs of a channel that the peer has joined.
type Channel interface {
	// Bundle is the configuration as of now. It is read once per proposal.
	Bundle() *channel.Bundle
	// HasTx tells whether a transaction id has been used on the channel.
	HasTx(id string) (bool, error)
	// Height is the number of committed blocks.
	Height() uint64
	// Snapshot opens the state as of now.
	Snapshot() (Snapshot, error)
	// Rebuilding is true while the channel lacks blocks that it once had: its state is of the past, and what was
	// endorsed on it could contradict what was endorsed before.
	Rebuilding() bool
}

// Snapshot is the state as of one height, until it is closed.
type Snapshot interface {
	simulation.Snapshot
	Close() error
}

// Programs finds contracts. *lifecycle.Catalog is one.
type Programs interface {
	simulation.Definitions
	// Program tells how to run a contract, as of the simulation's snapshot, recording what it read for that.
	Program(sim *simulation.Simulator, name string) (*simulation.Program, error)
}

// Contracts runs contracts that are processes of their own. An error means that there is no answer to
// endorse; its text goes to the client.
type Contracts interface {
	Execute(ctx context.Context, packageID string, in *Invocation) (*peerpb.Response, *peerpb.ChaincodeEvent, error)
}

// Invocation is one call of a contract.
type Invocation struct {
	ChannelID string
	TxID      string
	Namespace string
	Proposal  *peerpb.SignedProposal
	Input     *peerpb.ChaincodeInput // IsInit: run the initialisation
	Backend   *Backend
}

// System is a contract that is part of the peer.
type System interface {
	Name() string
	Invoke(ctx context.Context, call *simulation.Call) *peerpb.Response
}

// PrivateData are the private write sets of an endorsed transaction.
type PrivateData struct {
	ChannelID string
	TxID      string
	// EndorsedAt is the height at which the transaction was endorsed, or just after: from there the data may be
	// dropped when the transaction does not come.
	EndorsedAt uint64
	Set        *rwsetpb.TxPvtReadWriteSet
	// Collections are the configurations of the collections in Set, by namespace.
	Collections map[string]*peerpb.CollectionConfigPackage
}

// PrivateStore keeps private data until their transaction commits. It has returned before the endorsement is given.
type PrivateStore interface {
	Keep(ctx context.Context, data *PrivateData) error
}

// Distributor brings private data to the other members of their collections, as many as each collection demands
// before an endorsement is given.
type Distributor interface {
	Distribute(ctx context.Context, data *PrivateData) error
}

// Defaults of Config.
const (
	DefaultMaxConcurrent    = 2500
	DefaultMaxProposalBytes = 100 << 20
	DefaultTimeWindow       = 15 * time.Minute // Fabric's
)

// Config says what endorsement works with. Signer, LocalMSP, Verifier, Channel, Contracts, Programs and PrivateStore
// are needed.
type Config struct {
	// Signer is the peer's own identity.
	Signer envelope.Signer
	// LocalMSP is the MSP of the peer's own organisation: it decides who may call the peer without a channel.
	LocalMSP *identity.MSP
	Verifier *identity.Verifier
	// Channel finds a channel that the peer has joined.
	Channel      func(id string) (Channel, bool)
	Contracts    Contracts
	Programs     Programs
	System       []System
	PrivateStore PrivateStore
	// Distributor may be nil: then other members' peers fetch private data after the commit.
	Distributor Distributor
	// MaxConcurrent is the number of proposals that are worked on at a time; more are refused with
	// RESOURCE_EXHAUSTED. 0 means DefaultMaxConcurrent.
	MaxConcurrent int
	// MaxProposalBytes bounds a proposal. 0 means DefaultMaxProposalBytes.
	MaxProposalBytes int
	// TimeWindow is how far the timestamp of a proposal may be from the clock. 0 means DefaultTimeWindow.
	TimeWindow time.Duration
	// Now is the clock for that and for the expiry of certificates. nil means time.Now.
	Now func() time.Time
	// Log gets one line for each proposal that is refused, at level debug. nil means none.
	Log *slog.Logger
}

// Endorser answers proposals. It may be used from many goroutines.
type Endorser struct {
	peerpb.UnimplementedEndorserServer
	cfg     Config
	system  map[string]System
	slots   chan struct{}
	self    []byte // the peer's serialized identity
	metrics *metrics
}

var _ peerpb.EndorserServer = (*Endorser)(nil)

// New makes an endorser.
func New(cfg Config) (*Endorser, error) {
	switch {
	case cfg.Signer == nil, cfg.LocalMSP == nil, cfg.Verifier == nil, cfg.Channel == nil, cfg.Contracts == nil, cfg.Programs == nil, cfg.PrivateStore == nil:
		return nil, errors.New("endorser: Signer, LocalMSP, Verifier, Channel, Contracts, Programs and PrivateStore must all be set")
	case cfg.MaxConcurrent < 0 || cfg.MaxProposalBytes < 0:
		return nil, fmt.Errorf("endorser: MaxConcurrent is %d and MaxProposalBytes %d; neither may be negative", cfg.MaxConcurrent, cfg.MaxProposalBytes)
	}
	if cfg.MaxConcurrent == 0 {
		cfg.MaxConcurrent = DefaultMaxConcurrent
	}
	if cfg.MaxProposalBytes == 0 {
		cfg.MaxProposalBytes = DefaultMaxProposalBytes
	}
	if cfg.TimeWindow == 0 {
		cfg.TimeWindow = DefaultTimeWindow
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Endorser{cfg: cfg, system: map[string]System{}, slots: make(chan struct{}, cfg.MaxConcurrent), self: cfg.Signer.Serialize(), metrics: newMetrics()}
	for _, s := range cfg.System {
		if e.system[s.Name()] != nil {
			return nil, fmt.Errorf("endorser: two system contracts are named %s", s.Name())
		}
		e.system[s.Name()] = s
	}
	return e, nil
}

// isSystem tells whether a name is that of a system contract. lscc is one in Fabric; here it has no functions, but its
// namespace is still looked at for old definitions.
func (e *Endorser) isSystem(name string) bool { return e.system[name] != nil || name == "lscc" }

func refusal(err error) *peerpb.ProposalResponse {
	return &peerpb.ProposalResponse{Response: &peerpb.Response{Status: 500, Message: err.Error()}}
}

// ProcessProposal answers a proposal. What is wrong with the proposal itself comes back both as a response and as an
// error, for callers in the same process; over gRPC only the error arrives.
func (e *Endorser) ProcessProposal(ctx context.Context, signed *peerpb.SignedProposal) (*peerpb.ProposalResponse, error) {
	start := e.cfg.Now()
	e.metrics.received.Inc()
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	default:
		return nil, status.Errorf(codes.ResourceExhausted, "too many requests for /protos.Endorser, exceeding concurrency limit (%d)", cap(e.slots))
	}
	if n := len(signed.GetProposalBytes()); n > e.cfg.MaxProposalBytes {
		return nil, status.Errorf(codes.ResourceExhausted, "proposal has %d bytes, more than the limit of %d: keep large data off the ledger", n, e.cfg.MaxProposalBytes)
	}
	p, err := unpack(signed, e.timely)
	if err != nil {
		e.metrics.invalid.Inc()
		e.cfg.Log.DebugContext(ctx, "proposal refused", "error", err)
		return refusal(err), err
	}
	log := e.cfg.Log.With("channel", p.channelID, "txid", p.txID, "contract", p.contract)
	var ch Channel
	if p.channelID != "" {
		var ok bool
		if ch, ok = e.cfg.Channel(p.channelID); !ok {
			err := fmt.Errorf("channel '%s' not found", p.channelID)
			log.DebugContext(ctx, "proposal refused", "error", err)
			return refusal(err), nil
		}
	}
	r := &run{e: e, proposal: p, channel: ch, active: map[activeCall]bool{}}
	if ch != nil {
		r.bundle = ch.Bundle()
	}
	if err := e.admit(r); err != nil {
		log.DebugContext(ctx, "proposal refused", "error", err)
		return refusal(err), err
	}
	response, err := e.endorse(ctx, r)
	if err != nil {
		e.metrics.failed.WithLabelValues(p.channelID).Inc()
		log.DebugContext(ctx, "proposal failed", "error", err)
		return refusal(err), nil
	}
	e.metrics.answered(p, response, e.cfg.Now().Sub(start))
	return response, nil
}

// endorse runs an admitted proposal and signs the outcome.
func (e *Endorser) endorse(ctx context.Context, r *run) (*peerpb.ProposalResponse, error) {
	p := r.proposal
	out, err := r.simulate(ctx)
	if err != nil {
		return nil, err
	}
	res := out.response
	switch {
	case res.Status >= 500:
	case p.channelID == "", res.Status >= 400:
		return &peerpb.ProposalResponse{Response: res}, nil
	}
	payload, err := p.responsePayload(out)
	if err != nil {
		return nil, fmt.Errorf("failed to create the proposal response: %w", err)
	}
	if res.Status >= 500 {
		return &peerpb.ProposalResponse{Response: res, Payload: payload, Interest: out.interest}, nil
	}
	if out.plugin != "escc" {
		return nil, fmt.Errorf("endorsing with plugin failed: plugin with name %s could not be used: plugin with name %s wasn't found", out.plugin, out.plugin)
	}
	message := make([]byte, 0, len(payload)+len(e.self))
	message = append(append(message, payload...), e.self...)
	signature, err := e.cfg.Signer.Sign(message)
	if err != nil {
		return nil, fmt.Errorf("endorsing with plugin failed: could not sign the proposal response payload: %w", err)
	}
	if self, err := r.bundle.MSPs().Deserialize(e.self); err == nil { // else the peer's certificate is not the channel's, and validation will say so
		e.cfg.Verifier.Remember(self, message, signature)
	}
	return &peerpb.ProposalResponse{
		Version: 1, Response: res, Payload: payload, Interest: out.interest,
		Endorsement: &peerpb.Endorsement{Endorser: e.self, Signature: signature},
	}, nil
}

// responsePayload is what endorsers sign, and what must be the same at all of them.
func (p *proposal) responsePayload(out *outcome) ([]byte, error) {
	action := &peerpb.ChaincodeAction{Results: out.results, Response: out.response, ChaincodeId: &peerpb.ChaincodeID{Name: p.contract, Version: out.version}}
	var err error
	if out.event != nil {
		if action.Events, err = proto.Marshal(out.event); err != nil {
			return nil, fmt.Errorf("failed to marshal chaincode event: %w", err)
		}
	}
	extension, err := proto.Marshal(action)
	if err != nil {
		return nil, fmt.Errorf("error marshaling ChaincodeAction: %w", err)
	}
	return proto.Marshal(&peerpb.ProposalResponsePayload{ProposalHash: p.hash, Extension: extension})
}
