package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/gateway"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// directory finds the peers that may endorse on a channel: this peer, and the
// anchor peers that the channel's configuration names.
type directory struct {
	self    gateway.Peer
	bundles func(channelID string) (*channel.Bundle, bool)
	dial    gateway.Dialer

	mu     sync.Mutex
	failed map[string]time.Time // by address: when a call could not be delivered; guarded by mu
}

var _ gateway.Peers = (*directory)(nil)

// retryFailed is how long a peer that could not be reached comes last.
const retryFailed = 10 * time.Second

func newDirectory(self gateway.Peer, bundles func(string) (*channel.Bundle, bool), dial gateway.Dialer) *directory {
	return &directory{self: self, bundles: bundles, dial: dial, failed: map[string]time.Time{}}
}

// Endorsers lists the channel's peers by member, this peer first in its own,
// those that failed lately last.
func (d *directory) Endorsers(channelID, _ string) map[string][]gateway.Peer {
	bundle, ok := d.bundles(channelID)
	if !ok {
		return nil
	}
	peers := map[string][]gateway.Peer{d.self.MSPID: {d.self}}
	for _, org := range bundle.ApplicationOrgs() {
		roots := slices.Concat(org.TLSRoots, org.TLSIntermediates)
		for _, anchor := range org.AnchorPeers {
			address := anchor.String()
			if address == d.self.Address {
				continue
			}
			conn, err := d.dial.Dial(address, roots)
			if err != nil {
				continue // no usable TLS roots in the configuration
			}
			peers[org.MSPID] = append(peers[org.MSPID], gateway.Peer{
				Endorser: remoteEndorser{conn}, MSPID: org.MSPID, Address: address, Failed: func() { d.fail(address) },
			})
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.failed) > 0 {
		for _, list := range peers {
			slices.SortStableFunc(list, func(a, b gateway.Peer) int { return d.rank(a) - d.rank(b) })
		}
	}
	return peers
}

// rank is 1 for a peer that failed lately. The caller holds mu.
func (d *directory) rank(p gateway.Peer) int {
	if at, ok := d.failed[p.Address]; ok && time.Since(at) < retryFailed {
		return 1
	}
	return 0
}

func (d *directory) fail(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed[address] = time.Now()
}

// remoteEndorser is another peer.
type remoteEndorser struct{ conn *grpc.ClientConn }

func (r remoteEndorser) ProcessProposal(ctx context.Context, signed *peerpb.SignedProposal) (*peerpb.ProposalResponse, error) {
	return peerpb.NewEndorserClient(r.conn).ProcessProposal(ctx, signed)
}
