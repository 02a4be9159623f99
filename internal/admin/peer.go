// Package admin makes the calls that members' administrators make: joining
// peers to channels and putting contracts on them. What goes through a channel
// (approving and committing a contract's definition) are ordinary transactions
// of the _lifecycle system chaincode, sent through the Gateway; what concerns
// one peer (joining, installing) is proposed to that peer alone.
//
// Open peer.go for single peers, definition.go for contracts on channels.
package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// maxMessage is what a peer accepts: packages are the largest.
const maxMessage = 100 << 20

// Peer is a connection to one peer as its member's administrator.
type Peer struct {
	conn     *grpc.ClientConn
	endorser peerpb.EndorserClient
	id       client.Identity
	address  string
}

// DialPeer prepares a connection to address, whose certificate comes from one of
// the PEM roots.
func DialPeer(address string, tlsRoots []byte, id client.Identity) (*Peer, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(tlsRoots) {
		return nil, fmt.Errorf("peer %s: its TLS roots hold no PEM certificate", address)
	}
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("peer %s: %w", address, err)
	}
	return &Peer{conn, peerpb.NewEndorserClient(conn), id, address}, nil
}

// Close ends the connection.
func (p *Peer) Close() error { return p.conn.Close() }

// call proposes an invocation of a system chaincode to this peer alone.
func (p *Peer) call(ctx context.Context, typ commonpb.HeaderType, channelID, chaincode string, args ...[]byte) ([]byte, error) {
	_, signed, err := envelope.NewProposal(p.id, envelope.ProposalArgs{Type: typ, ChannelID: channelID, Chaincode: chaincode, Args: args})
	if err != nil {
		return nil, err
	}
	response, err := p.endorser.ProcessProposal(ctx, signed)
	if err != nil {
		return nil, fmt.Errorf("peer %s: %w", p.address, err)
	}
	if r := response.GetResponse(); r.GetStatus() < 200 || r.GetStatus() >= 400 {
		return nil, fmt.Errorf("peer %s: %s %s: status %d: %s", p.address, chaincode, args[0], r.GetStatus(), r.GetMessage())
	}
	return response.Response.Payload, nil
}

// JoinChannel joins the peer to the channel of a genesis block.
func (p *Peer) JoinChannel(ctx context.Context, genesis *commonpb.Block) error {
	raw, err := proto.Marshal(genesis)
	if err != nil {
		return fmt.Errorf("marshal genesis block: %w", err)
	}
	_, err = p.call(ctx, commonpb.HeaderType_CONFIG, "", "cscc", []byte("JoinChain"), raw)
	return err
}

// Channels lists the channels that the peer has joined.
func (p *Peer) Channels(ctx context.Context) ([]string, error) {
	raw, err := p.call(ctx, commonpb.HeaderType_ENDORSER_TRANSACTION, "", "cscc", []byte("GetChannels"))
	if err != nil {
		return nil, err
	}
	var response peerpb.ChannelQueryResponse
	if err := proto.Unmarshal(raw, &response); err != nil {
		return nil, fmt.Errorf("peer %s: decode channels: %w", p.address, err)
	}
	var ids []string
	for _, c := range response.Channels {
		ids = append(ids, c.ChannelId)
	}
	return ids, nil
}

// ChainInfo tells a channel's height and newest hashes at the peer.
func (p *Peer) ChainInfo(ctx context.Context, channelID string) (*commonpb.BlockchainInfo, error) {
	raw, err := p.call(ctx, commonpb.HeaderType_ENDORSER_TRANSACTION, "", "qscc", []byte("GetChainInfo"), []byte(channelID))
	if err != nil {
		return nil, err
	}
	info := &commonpb.BlockchainInfo{}
	if err := proto.Unmarshal(raw, info); err != nil {
		return nil, fmt.Errorf("peer %s: decode chain info: %w", p.address, err)
	}
	return info, nil
}

// Install puts a contract package on the peer and returns its id. Installing
// the same package again is no error.
func (p *Peer) Install(ctx context.Context, pkg []byte) (string, error) {
	raw, err := p.lifecycle(ctx, "InstallChaincode", &lifecyclepb.InstallChaincodeArgs{ChaincodeInstallPackage: pkg})
	if err != nil {
		return "", err
	}
	var result lifecyclepb.InstallChaincodeResult
	if err := proto.Unmarshal(raw, &result); err != nil {
		return "", fmt.Errorf("peer %s: decode install result: %w", p.address, err)
	}
	return result.PackageId, nil
}

func (p *Peer) lifecycle(ctx context.Context, function string, args proto.Message) ([]byte, error) {
	raw, err := proto.Marshal(args)
	if err != nil {
		return nil, err
	}
	return p.call(ctx, commonpb.HeaderType_ENDORSER_TRANSACTION, "", "_lifecycle", []byte(function), raw)
}
