package admin

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// RequestSnapshot asks the peer for a snapshot of a channel after a block, which may be still to come; 0 stands for the
// newest.
func (p *Peer) RequestSnapshot(ctx context.Context, channelID string, block uint64) error {
	signed, err := p.signSnapshot(&peerpb.SnapshotRequest{SignatureHeader: p.signatureHeader(), ChannelId: channelID, BlockNumber: block})
	if err == nil {
		_, err = peerpb.NewSnapshotClient(p.conn).Generate(ctx, signed)
	}
	return p.snapshotError(err)
}

// CancelSnapshot takes a request back.
func (p *Peer) CancelSnapshot(ctx context.Context, channelID string, block uint64) error {
	signed, err := p.signSnapshot(&peerpb.SnapshotRequest{SignatureHeader: p.signatureHeader(), ChannelId: channelID, BlockNumber: block})
	if err == nil {
		_, err = peerpb.NewSnapshotClient(p.conn).Cancel(ctx, signed)
	}
	return p.snapshotError(err)
}

// PendingSnapshots lists the blocks whose snapshots are requested and not finished.
func (p *Peer) PendingSnapshots(ctx context.Context, channelID string) ([]uint64, error) {
	signed, err := p.signSnapshot(&peerpb.SnapshotQuery{SignatureHeader: p.signatureHeader(), ChannelId: channelID})
	if err != nil {
		return nil, err
	}
	response, err := peerpb.NewSnapshotClient(p.conn).QueryPendings(ctx, signed)
	return response.GetBlockNumbers(), p.snapshotError(err)
}

// JoinBySnapshot has the peer begin to join a channel by the snapshot in a folder of the peer's machine.
func (p *Peer) JoinBySnapshot(ctx context.Context, dir string) error {
	_, err := p.call(ctx, commonpb.HeaderType_CONFIG, "", "cscc", []byte("JoinChainBySnapshot"), []byte(dir))
	return err
}

// JoiningBySnapshot is the folder of the snapshot by which the peer is joining a channel, "" if it is not.
func (p *Peer) JoiningBySnapshot(ctx context.Context) (string, error) {
	raw, err := p.call(ctx, commonpb.HeaderType_ENDORSER_TRANSACTION, "", "cscc", []byte("JoinBySnapshotStatus"))
	if err != nil {
		return "", err
	}
	var status peerpb.JoinBySnapshotStatus
	if err := proto.Unmarshal(raw, &status); err != nil {
		return "", fmt.Errorf("peer %s: decode status: %w", p.address, err)
	}
	return status.BootstrappingSnapshotDir, nil
}

func (p *Peer) signatureHeader() *commonpb.SignatureHeader {
	return &commonpb.SignatureHeader{Creator: p.id.Serialize(), Nonce: envelope.NewNonce()}
}

func (p *Peer) signSnapshot(request proto.Message) (*peerpb.SignedSnapshotRequest, error) {
	raw, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	signature, err := p.id.Sign(raw)
	if err != nil {
		return nil, err
	}
	return &peerpb.SignedSnapshotRequest{Request: raw, Signature: signature}, nil
}

func (p *Peer) snapshotError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("peer %s: %w", p.address, err)
}
