package node

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"

	"google.golang.org/grpc"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/gateway"
	"github.com/hansa-ledger/hansa/internal/lifecycle"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

var (
	_ gateway.Channel   = (*peerChannel)(nil)
	_ discovery.Channel = (*peerChannel)(nil)
)

// contractList is the contracts of a channel as of one state of its ledger and
// of the installed packages. It is not changed.
type contractList struct {
	defined   uint64
	installed int
	contracts map[string]*lifecycle.Contract
	listed    map[string]discovery.Contract
}

// number changes with every change of what is defined or installed; packages are never removed.
func (l *contractList) number() uint64 { return l.defined<<20 | uint64(l.installed) }

// contractList reads the contracts of the channel, once for each change of them.
func (ch *peerChannel) contractList() (*contractList, error) {
	// The count first: a change after it makes the next caller read again.
	d := &contractList{defined: ch.defined.Load(), installed: len(ch.peer.packages.List())}
	if known := ch.known.Load(); known != nil && known.number() == d.number() {
		return known, nil
	}
	s := ch.snapshot()
	defer s.Close()
	all, err := ch.peer.catalog.List(ch.id, s)
	if err != nil {
		return nil, err
	}
	d.contracts, d.listed = map[string]*lifecycle.Contract{}, map[string]discovery.Contract{}
	for _, c := range all {
		d.contracts[c.Name] = c
		// As Fabric's peers, which take for able who states the same: the definition's sequence for its version, since
		// the version need not change with it.
		d.listed[c.Name] = discovery.Contract{Version: strconv.FormatInt(c.Sequence, 10), Runs: c.Approved && c.PackageID != ""}
	}
	ch.known.Store(d)
	return d, nil
}

// Contracts implements discovery.Channel.
func (ch *peerChannel) Contracts() (map[string]discovery.Contract, error) {
	d, err := ch.contractList()
	if err != nil {
		return nil, err
	}
	return d.listed, nil
}

// Layouts implements gateway.Channel.
func (ch *peerChannel) Layouts(interest *peerpb.ChaincodeInterest) ([]discovery.Layout, error) {
	d, err := ch.contractList()
	if err != nil {
		return nil, err
	}
	bundle := ch.Bundle()
	return ch.plans.Members(interest, rules{ch.id, bundle, d}, bundle, d.number())
}

// Rules implements discovery.Channel.
func (ch *peerChannel) Rules() discovery.Rules {
	d, err := ch.contractList()
	if err != nil {
		ch.peer.log.Error("cannot read what contracts are defined", "channel", ch.id, "error", err)
		d = &contractList{}
	}
	return rules{ch.id, ch.Bundle(), d}
}

// rules gives the policies of committed contracts.
type rules struct {
	channelID string
	bundle    *channel.Bundle
	*contractList
}

func (r rules) contract(name string) (*lifecycle.Contract, error) {
	c := r.contracts[name]
	if c == nil {
		return nil, fmt.Errorf("No metadata was found for chaincode %s in channel %s", name, r.channelID) //nolint:staticcheck // Fabric's words, which clients know
	}
	return c, nil
}

// EndorsementPolicy implements discovery.Rules.
func (r rules) EndorsementPolicy(name string) (*peerpb.ApplicationPolicy, error) {
	raw, err := r.policyBytes(name)
	if err != nil {
		return nil, err
	}
	return decodePolicy(raw)
}

func (r rules) policyBytes(name string) ([]byte, error) {
	if name == lifecycle.Namespace {
		return lifecycle.EndorsementPolicy(r.bundle)
	}
	c, err := r.contract(name)
	if err != nil {
		return nil, err
	}
	return c.Validation.GetValidationParameter(), nil
}

// CollectionPolicy implements discovery.Rules.
func (r rules) CollectionPolicy(name, collection string) (*peerpb.ApplicationPolicy, *commonpb.SignaturePolicyEnvelope, error) {
	if mspID, ok := implicitMember(collection); ok {
		raw, err := lifecycle.ImplicitPolicy(r.bundle, mspID)
		if err != nil {
			return nil, nil, err
		}
		p, err := decodePolicy(raw)
		return p, simulation.ImplicitCollection(mspID).GetMemberOrgsPolicy().GetSignaturePolicy(), err
	}
	c, err := r.contract(name)
	if err != nil {
		return nil, nil, err
	}
	config := c.Collection(collection)
	if config == nil {
		return nil, nil, fmt.Errorf("chaincode '%s' has no collection '%s'", name, collection)
	}
	return config.GetEndorsementPolicy(), config.GetMemberOrgsPolicy().GetSignaturePolicy(), nil
}

// endorsers tells the gateway which peers may endorse.
type endorsers struct {
	self      gateway.Peer
	directory *discovery.Directory
	channels  *channels
	dial      gateway.Dialer

	mu    sync.Mutex
	known map[endorsersKey]*endorserList // guarded by mu
}

type endorsersKey struct{ channelID, chaincode string }

// endorserList is an answer, good while nothing it came from has changed.
type endorserList struct {
	bundle    *channel.Bundle
	directory uint64
	number    uint64
	peers     map[string][]gateway.Peer
}

// maxEndorserLists bounds the answers kept: clients may name any contract.
const maxEndorserLists = 1024

var _ gateway.Peers = (*endorsers)(nil)

func newEndorsers(self gateway.Peer, d *discovery.Directory, c *channels, dial gateway.Dialer) *endorsers {
	return &endorsers{self: self, directory: d, channels: c, dial: dial, known: map[endorsersKey]*endorserList{}}
}

// Endorsers lists the channel's peers by member, best first: those known to run
// the chaincode, then those that may. This peer is left out if it cannot run it.
func (e *endorsers) Endorsers(channelID, chaincode string) map[string][]gateway.Peer {
	ch, ok := e.channels.get(channelID)
	if !ok {
		return nil
	}
	d, err := ch.contractList()
	if err != nil {
		ch.peer.log.Error("cannot read what contracts are defined", "channel", channelID, "error", err)
		return nil
	}
	now := endorserList{bundle: ch.Bundle(), directory: e.directory.Version(), number: d.number()}
	key := endorsersKey{channelID, chaincode}
	e.mu.Lock()
	known := e.known[key]
	e.mu.Unlock()
	if known != nil && known.bundle == now.bundle && known.directory == now.directory && known.number == now.number {
		return known.peers
	}
	now.peers = e.list(now.bundle, channelID, chaincode, d.listed)
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.known) >= maxEndorserLists {
		clear(e.known)
	}
	e.known[key] = &now
	return now.peers
}

func (e *endorsers) list(bundle *channel.Bundle, channelID, chaincode string, defined map[string]discovery.Contract) map[string][]gateway.Peer {
	system := isSystem(chaincode)
	if _, ok := defined[chaincode]; !ok && !system {
		return nil
	}
	roots := map[string][][]byte{}
	for _, org := range bundle.ApplicationOrgs() {
		roots[org.MSPID] = slices.Concat(org.TLSRoots, org.TLSIntermediates)
	}
	peers := map[string][]gateway.Peer{}
	for _, m := range e.directory.Members(channelID) {
		runs := system || m.Runs(chaincode)
		if m.Local {
			if runs {
				peers[m.MSPID] = append(peers[m.MSPID], e.self)
			}
			continue
		}
		conn, err := e.dial.Dial(m.Address, roots[m.MSPID])
		if err != nil {
			continue // no usable TLS roots in the configuration
		}
		peers[m.MSPID] = append(peers[m.MSPID], gateway.Peer{
			Endorser: remoteEndorser{conn}, MSPID: m.MSPID, Address: m.Address, Height: m.Height, Ready: runs && !m.Failed,
			Failed: func() { e.directory.Fail(channelID, m.Address) },
		})
	}
	for _, list := range peers {
		slices.SortStableFunc(list, func(a, b gateway.Peer) int {
			switch {
			case a.Ready == b.Ready:
				return 0
			case a.Ready:
				return -1
			}
			return 1
		})
	}
	return peers
}

// isSystem names the contracts that are part of every peer.
func isSystem(chaincode string) bool {
	switch chaincode {
	case lifecycle.Namespace, "qscc", "cscc":
		return true
	}
	return false
}

// remoteEndorser is another peer.
type remoteEndorser struct{ conn *grpc.ClientConn }

func (r remoteEndorser) ProcessProposal(ctx context.Context, signed *peerpb.SignedProposal) (*peerpb.ProposalResponse, error) {
	return peerpb.NewEndorserClient(r.conn).ProcessProposal(ctx, signed)
}
