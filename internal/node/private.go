package node

import (
	"context"
	"slices"

	"github.com/hansa-ledger/hansa/internal/commit"
	"github.com/hansa-ledger/hansa/internal/courier"
	"github.com/hansa-ledger/hansa/internal/deliver"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// newCourier makes what carries private data between this peer and others.
func (p *peer) newCourier() (*courier.Courier, error) {
	c := p.config.PrivateData
	return courier.New(courier.Config{
		Signer: p.signer, MSPID: p.config.MSPID, Certificate: p.cert.Certificate[0], Log: p.log,
		Channel:     func(id string) (courier.Channel, bool) { return lookup[courier.Channel](p.channels, id) },
		Peers:       p.otherPeers,
		PushTimeout: c.PushTimeout, PullTimeout: c.PullTimeout, ReconcileInterval: c.ReconcileInterval,
		ImplicitRequired: c.ImplicitRequired, ImplicitMaximum: c.ImplicitMaximum,
	})
}

// otherPeers are the peers of a channel that private data can be brought to and
// fetched from, as far as this peer knows them.
func (p *peer) otherPeers(channelID string) (peers []courier.Peer) {
	bundle, ok := p.bundle(channelID)
	if !ok {
		return nil
	}
	roots := map[string][][]byte{}
	for _, org := range bundle.ApplicationOrgs() {
		roots[org.MSPID] = slices.Concat(org.TLSRoots, org.TLSIntermediates)
	}
	for _, m := range p.directory.Members(channelID) {
		if m.Local {
			continue
		}
		if m.Foreign {
			if link, ok := p.rumours.Link(m.MSPID, m.Address); ok {
				peers = append(peers, courier.Peer{MSPID: m.MSPID, Address: m.Address, Link: link})
			}
			continue
		}
		conn, err := p.conns.Dial(m.Address, roots[m.MSPID])
		if err != nil {
			continue // no usable TLS roots in the configuration
		}
		peers = append(peers, courier.Peer{MSPID: m.MSPID, Address: m.Address, Conn: conn})
	}
	return peers
}

// fetcher gets a channel's private data for the commit of its blocks.
type fetcher struct {
	courier   *courier.Courier
	channelID string
}

var _ commit.PrivateData = fetcher{}

func (f fetcher) Fetch(ctx context.Context, number uint64, wanted []commit.Wanted) ([][]byte, error) {
	list := make([]courier.Wanted, len(wanted))
	for i, w := range wanted {
		list[i] = courier.Wanted{Block: number, Tx: w.Tx, TxID: w.TxID, Namespace: w.Namespace, Collection: w.Collection, Hash: w.Hash}
	}
	return f.courier.Fetch(ctx, f.channelID, list)
}

var _ deliver.PrivateSource = (*peerChannel)(nil)

// PrivateData gives the private data of a block that a reader of the channel may
// see.
func (ch *peerChannel) PrivateData(ctx context.Context, number uint64, reader policy.SignedData) (map[uint64]*rwsetpb.TxPvtReadWriteSet, error) {
	return ch.peer.courier.Readable(ctx, ch, number, reader)
}
