package endorse

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// systemVersion is the version that a transaction says of a system contract.
const systemVersion = "syscc"

// initKey is the key in a contract's namespace that holds the version it was last initialised for.
const initKey = "\x00\U0010FFFFinitialized"

// run is one proposal on its way. One goroutine works on it at a time: contracts call each other while they wait.
type run struct {
	e        *Endorser
	proposal *proposal
	channel  Channel         // nil without channel
	bundle   *channel.Bundle // nil without channel
	active   map[activeCall]bool
}

// activeCall is a contract package that runs for a channel. Its process has one context for a transaction, so that it cannot
// be called again, directly or through others.
type activeCall struct{ channelID, packageID string }

// outcome is what a simulation came to.
type outcome struct {
	response *peerpb.Response
	event    *peerpb.ChaincodeEvent
	results  []byte // nil without simulation
	interest *peerpb.ChaincodeInterest
	version  string
	plugin   string
}

// checkACL checks that the channel lets a client, whose signature was verified, use a resource.
func (r *run) checkACL(resource string, id *identity.Identity) error {
	path, p, err := resourcePolicy(r.bundle, resource)
	if err != nil {
		return err
	}
	return aclError(r.proposal.channelID, path, p.EvaluateIdentities([]*identity.Identity{id}))
}

func resourcePolicy(b *channel.Bundle, resource string) (string, policy.Policy, error) {
	path, ok := b.ACL(resource)
	if !ok {
		return "", nil, fmt.Errorf("Unmapped policy for %s", resource) //nolint:staticcheck // Fabric's words
	}
	p, ok := b.Policy(path)
	if !ok {
		p = policy.Reject(path)
	}
	return path, p, nil
}

func aclError(channelID, path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("Failed evaluating policy on signed data during check policy on channel [%s] with policy [%s]: [%w]", channelID, path, err) //nolint:staticcheck // Fabric's words
}

// scope is a channel within a run: contracts of a channel share its simulation.
type scope struct {
	channelID string
	bundle    *channel.Bundle
	sim       *simulation.Simulator
	creator   *identity.Identity
}

// open starts a simulation on a channel. The caller calls the returned function in the end.
func (r *run) open(channelID string, ch Channel, b *channel.Bundle) (*simulation.Simulator, func(), error) {
	snapshot, err := ch.Snapshot()
	if err != nil {
		return nil, nil, err
	}
	var orgs []string
	for _, org := range b.ApplicationOrgs() {
		orgs = append(orgs, org.MSPID)
	}
	sim := simulation.New(simulation.Config{
		ChannelID: channelID, TxID: r.proposal.txID, Snapshot: snapshot, Definitions: r.e.cfg.Programs, Orgs: orgs,
		Member:      func(p *peerpb.CollectionPolicyConfig) (bool, error) { return r.isMember(p, b) },
		KeyPolicies: b.ApplicationV1_3(), Purge: b.ApplicationV2_5(),
	})
	return sim, func() {
		sim.Close()
		if err := snapshot.Close(); err != nil {
			r.e.cfg.Log.Error("closing a snapshot failed", "channel", channelID, "error", err)
		}
	}, nil
}

// isMember tells whether the client satisfies a collection's member policy.
func (r *run) isMember(config *peerpb.CollectionPolicyConfig, b *channel.Bundle) (bool, error) {
	if config == nil {
		return false, errors.New("Collection config policy is nil") //nolint:staticcheck // Fabric's words
	}
	env := config.GetSignaturePolicy()
	if env == nil {
		return false, errors.New("Collection config access policy is nil") //nolint:staticcheck // Fabric's words
	}
	p, err := policy.NewSignature(env, b.MSPs())
	if err != nil {
		return false, err
	}
	s := r.proposal.signed
	return p.EvaluateSigned([]policy.SignedData{{Data: s.ProposalBytes, Identity: r.proposal.signature.Creator, Signature: s.Signature}}) == nil, nil
}

// simulate runs the proposal's contract and collects what it did.
func (r *run) simulate(ctx context.Context) (*outcome, error) {
	p := r.proposal
	sc := &scope{channelID: p.channelID, bundle: r.bundle, creator: p.creator}
	// qscc and cscc read the ledger, not the state.
	if r.channel != nil && p.contract != "qscc" && p.contract != "cscc" {
		sim, end, err := r.open(p.channelID, r.channel, r.bundle)
		if err != nil {
			return nil, err
		}
		defer end()
		sc.sim = sim
	}
	program, err := r.program(sc, p.contract)
	if err != nil {
		return nil, fmt.Errorf("make sure the chaincode %s has been successfully defined on channel %s and try again: %w", p.contract, p.channelID, err)
	}
	out := &outcome{version: program.Version, plugin: program.EndorsementPlugin}
	if out.response, out.event, err = r.invoke(ctx, sc, p.contract, program, p.input); err != nil {
		var invalid *invalidInvocation
		if errors.As(err, &invalid) {
			err = fmt.Errorf("failed to execute transaction %s: %w", p.txID, err)
		}
		return nil, fmt.Errorf("error in simulation: %w", err)
	}
	if out.response.Status >= 400 {
		out.event = nil
	}
	if sc.sim == nil {
		return out, nil
	}
	results, err := sc.sim.Results()
	if err != nil {
		return nil, fmt.Errorf("error in simulation: %w", err)
	}
	if out.interest, err = interest(results.Calls, r.e.isSystem); err != nil {
		return nil, fmt.Errorf("error in simulation: %w", err)
	}
	if results.Private != nil {
		if err := r.keepPrivate(ctx, results); err != nil {
			return nil, fmt.Errorf("error in simulation: %w", err)
		}
	}
	out.results = results.Public
	return out, nil
}

func (r *run) keepPrivate(ctx context.Context, results *simulation.Results) error {
	data := &PrivateData{
		ChannelID: r.proposal.channelID, TxID: r.proposal.txID, EndorsedAt: r.channel.Height(), Set: results.Private, Collections: results.Collections,
	}
	if d := r.e.cfg.Distributor; d != nil {
		if err := d.Distribute(ctx, data); err != nil {
			return err
		}
	}
	return r.e.cfg.PrivateStore.Keep(ctx, data)
}

// program finds a contract.
func (r *run) program(sc *scope, name string) (*simulation.Program, error) {
	if r.e.system[name] != nil {
		return &simulation.Program{Version: systemVersion, PackageID: name + "." + systemVersion, EndorsementPlugin: "escc"}, nil
	}
	if sc.sim == nil {
		return nil, fmt.Errorf("could not get channel config for channel '%s'", sc.channelID)
	}
	return r.e.cfg.Programs.Program(sc.sim, name)
}

// invalidInvocation is a call that was refused before any contract ran.
type invalidInvocation struct{ err error }

func (i *invalidInvocation) Error() string { return i.err.Error() }
func (i *invalidInvocation) Unwrap() error { return i.err }

func invalid(format string, args ...any) error {
	return &invalidInvocation{fmt.Errorf(format, args...)}
}

// invoke runs a contract in a scope.
func (r *run) invoke(ctx context.Context, sc *scope, name string, program *simulation.Program, input *peerpb.ChaincodeInput) (*peerpb.Response, *peerpb.ChaincodeEvent, error) {
	if err := r.checkInit(sc, name, program, input); err != nil {
		return nil, nil, &invalidInvocation{err}
	}
	me := activeCall{sc.channelID, program.PackageID}
	if r.active[me] {
		return nil, nil, invalid("error sending: txid: %s(%s) exists", r.proposal.txID, sc.channelID)
	}
	r.active[me] = true
	defer delete(r.active, me)

	p := r.proposal
	if system := r.e.system[name]; system != nil {
		response := system.Invoke(ctx, &simulation.Call{
			ChannelID: sc.channelID, TxID: p.txID, Namespace: name, Proposal: p.signed, ChannelHeader: p.channel, SignatureHeader: p.signature,
			Creator: p.signature.Creator, Identity: sc.creator, Transient: p.transient, Args: input.Args, Sim: sc.sim,
		})
		if response == nil {
			return nil, nil, fmt.Errorf("nil response from transaction %s", p.txID)
		}
		return response, nil, nil
	}
	response, event, err := r.e.cfg.Contracts.Execute(ctx, program.PackageID, &Invocation{
		ChannelID: sc.channelID, TxID: p.txID, Namespace: name, Proposal: p.signed, Input: input,
		Backend: &Backend{Contract: sc.sim.Contract(name, input.IsInit), run: r, scope: sc},
	})
	if err == nil && response == nil {
		err = fmt.Errorf("nil response from transaction %s", p.txID)
	}
	return response, event, err
}

// checkInit sees to it that a contract whose definition asks for it is initialised once for each version, and before
// anything else. The version is kept in the contract's own namespace.
func (r *run) checkInit(sc *scope, name string, program *simulation.Program, input *peerpb.ChaincodeInput) error {
	due := false
	if program.InitRequired {
		version, err := sc.sim.Get(name, initKey)
		if err != nil {
			return fmt.Errorf("invalid invocation: could not get 'initialized' key: %w", err)
		}
		due = !bytes.Equal(version, []byte(program.Version))
	}
	switch {
	case !input.IsInit && due:
		return fmt.Errorf("invalid invocation: chaincode '%s' has not been initialized for this version, must call as init first", name)
	case !input.IsInit:
		return nil
	case !program.InitRequired:
		return fmt.Errorf("invalid invocation: chaincode '%s' does not require initialization but called as init", name)
	case !due:
		return fmt.Errorf("invalid invocation: chaincode '%s' is already initialized but called as init", name)
	}
	if err := sc.sim.Put(name, initKey, []byte(program.Version)); err != nil {
		return fmt.Errorf("invalid invocation: could not set 'initialized' key: %w", err)
	}
	return nil
}

// Backend is what a running contract may ask of the peer: its state, and calls of other contracts.
type Backend struct {
	*simulation.Contract
	run   *run
	scope *scope
}

// Invoke calls another contract: on the same channel as part of the same simulation, on another one for
// its answer only. An empty channel means the caller's.
func (b *Backend) Invoke(ctx context.Context, name, channelID string, input *peerpb.ChaincodeInput) (*peerpb.Response, error) {
	r, sc := b.run, b.scope
	if channelID == "" {
		channelID = sc.channelID
	}
	other := channelID != sc.channelID
	var ch Channel
	if other {
		sc = &scope{channelID: channelID}
		var ok bool
		if ch, ok = r.e.cfg.Channel(channelID); ok {
			sc.bundle = ch.Bundle()
		} else if !r.e.isSystem(name) {
			return nil, fmt.Errorf("Failed to get policy manager for channel [%s]", channelID) //nolint:staticcheck // Fabric's words
		} else {
			return nil, fmt.Errorf("failed to find ledger for channel: %s", channelID)
		}
	}
	if !r.e.isSystem(name) {
		if err := r.checkCallACL(sc); err != nil {
			return nil, err
		}
	}
	if other {
		// The other channel may know the client under other certificates; system contracts judge it by those.
		creator, err := sc.bundle.MSPs().Deserialize(r.proposal.signature.Creator)
		if err != nil {
			return nil, fmt.Errorf("access denied: channel [%s] creator org unknown, creator is malformed", channelID)
		}
		sc.creator = creator
		sim, end, err := r.open(channelID, ch, sc.bundle)
		if err != nil {
			return nil, err
		}
		defer end()
		sc.sim = sim
	}
	program, err := r.program(sc, name)
	if err != nil {
		return nil, fmt.Errorf("invalid invocation: [channel %s] failed to get chaincode container info for %s: %w", channelID, name, err)
	}
	response, _, err := r.invoke(ctx, sc, name, program, input) // only the event of the first contract counts
	return response, err
}

func (r *run) checkCallACL(sc *scope) error {
	path, p, err := resourcePolicy(sc.bundle, "peer/ChaincodeToChaincode")
	if err != nil {
		return err
	}
	s := r.proposal.signed
	return aclError(sc.channelID, path, p.EvaluateSigned([]policy.SignedData{{Data: s.ProposalBytes, Identity: r.proposal.signature.Creator, Signature: s.Signature}}))
}
