package courier

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hansa-ledger/hansa/internal/endorse"
	"github.com/hansa-ledger/hansa/internal/wire/gossippb"
	"github.com/hansa-ledger/hansa/internal/wire/privatedatapb"
)

// Link is a link with a peer of Fabric by gossip. Both sides have proved who they are.
type Link interface {
	// Push waits until the peer says that it keeps the data.
	Push(ctx context.Context, channelID string, p *gossippb.PrivatePayload) error
	// Pull waits for the answer: what the peer has, and gives to this one, of what the digests name.
	Pull(ctx context.Context, channelID string, digests []*gossippb.PvtDataDigest) ([]*gossippb.PvtDataElement, error)
}

// pushByGossip brings write sets one after the other, as the protocol has it.
func (c *Courier) pushByGossip(ctx context.Context, data *endorse.PrivateData, p Peer, sets []*privatedatapb.WriteSet) ([]bool, error) {
	kept := make([]bool, len(sets))
	for i, w := range sets {
		err := p.Link.Push(ctx, data.ChannelID, &gossippb.PrivatePayload{Namespace: w.Namespace, CollectionName: w.Collection, TxId: data.TxID,
			PrivateRwset: w.Rwset, PrivateSimHeight: data.EndorsedAt, CollectionConfigs: data.Collections[w.Namespace]})
		c.note(p, err)
		if err != nil {
			return kept, fmt.Errorf("collection %s of %s: %w", w.Collection, w.Namespace, err)
		}
		kept[i] = true
	}
	return kept, nil
}

// pullByGossip asks for write sets; what the peer does not give is nil. A request names no hashes, so one answer can be several write sets of one
// transaction, of which the wanted one is taken.
func (c *Courier) pullByGossip(ctx context.Context, channelID string, p Peer, wanted []Wanted) ([][]byte, error) {
	got := make([][]byte, len(wanted))
	for start := 0; start < len(wanted); start += maxWanted {
		part := wanted[start:min(start+maxWanted, len(wanted))]
		digests := make([]*gossippb.PvtDataDigest, len(part))
		for i, w := range part {
			digests[i] = &gossippb.PvtDataDigest{TxId: w.TxID, Namespace: w.Namespace, Collection: w.Collection, BlockSeq: w.Block, SeqInBlock: w.Tx}
		}
		elements, err := p.Link.Pull(ctx, channelID, digests)
		c.note(p, err)
		if err != nil {
			return got, err
		}
		for _, e := range elements {
			for i, w := range part {
				d := e.GetDigest()
				if d.GetTxId() != w.TxID || d.Namespace != w.Namespace || d.Collection != w.Collection || d.BlockSeq != w.Block || d.SeqInBlock != w.Tx {
					continue
				}
				for _, raw := range e.Payload {
					if got[start+i] == nil || w.matches(raw) {
						got[start+i] = append([]byte{}, raw...)
					}
				}
			}
		}
	}
	return got, nil
}

// admitLinked lets in a peer that has proved its identity on a link.
func (c *Courier) admitLinked(channelID string, serialized []byte) (*caller, error) {
	ch, ok := c.config.Channel(channelID)
	if !ok {
		return nil, status.Errorf(codes.NotFound, "this peer has not joined channel %q", channelID)
	}
	m := newMembership(ch)
	id, err := m.bundle.MSPs().Deserialize(serialized)
	if err != nil {
		return nil, status.Error(codes.PermissionDenied, "the sender's identity is not of a member of the channel")
	}
	if err := m.bundle.CheckPeer(id); err != nil {
		return nil, status.Errorf(codes.PermissionDenied, "the sender is not a valid peer of a member of the channel: %v", err)
	}
	if !c.gate.enter(id.MSPID()) {
		return nil, tooMany()
	}
	return &caller{ch, id, m}, nil
}

// Take keeps private data that a peer brought by gossip until the commit.
func (c *Courier) Take(channelID string, serialized []byte, p *gossippb.PrivatePayload) error {
	caller, err := c.admitLinked(channelID, serialized)
	if err != nil {
		return err
	}
	defer c.gate.leave(caller.id.MSPID())
	kept, err := c.take(caller, channelID, p.GetTxId(), p.GetPrivateSimHeight(),
		[]*privatedatapb.WriteSet{{Namespace: p.GetNamespace(), Collection: p.GetCollectionName(), Rwset: p.GetPrivateRwset()}})
	if err == nil && !kept[0] {
		err = status.Errorf(codes.PermissionDenied, "this peer does not belong to collection %s of %s", p.GetCollectionName(), p.GetNamespace())
	}
	return err
}

// Give answers a peer that asked by gossip: with what this peer has and the other may have.
func (c *Courier) Give(ctx context.Context, channelID string, serialized []byte, digests []*gossippb.PvtDataDigest) ([]*gossippb.PvtDataElement, error) {
	if len(digests) > maxWanted {
		return nil, status.Errorf(codes.InvalidArgument, "%d digests are given, 1 to %d are wanted", len(digests), maxWanted)
	}
	caller, err := c.admitLinked(channelID, serialized)
	if err != nil {
		return nil, err
	}
	defer c.gate.leave(caller.id.MSPID())
	wanted := make([]*privatedatapb.Wanted, len(digests))
	for i, d := range digests {
		wanted[i] = &privatedatapb.Wanted{Block: d.GetBlockSeq(), Transaction: d.GetSeqInBlock(), TransactionId: d.GetTxId(), Namespace: d.GetNamespace(), Collection: d.GetCollection()}
	}
	given, err := c.give(ctx, caller, channelID, wanted)
	if err != nil {
		return nil, err
	}
	var elements []*gossippb.PvtDataElement
	for i, raw := range given {
		if len(raw) > 0 {
			elements = append(elements, &gossippb.PvtDataElement{Digest: digests[i], Payload: raw})
		}
	}
	return elements, nil
}
