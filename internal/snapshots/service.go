package snapshots

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Access decides whether the signer of some bytes may use a resource of the peer.
type Access interface {
	CheckSigned(channelID, resource string, data, creator, signature []byte) error
}

// Service is protos.Snapshot, which `peer snapshot` calls. The messages of its errors are Fabric's.
type Service struct {
	peerpb.UnimplementedSnapshotServer
	// Channel finds a channel that the peer has joined.
	Channel func(channelID string) (*Channel, bool)
	Access  Access
	Now     func() time.Time
}

var _ peerpb.SnapshotServer = (*Service)(nil)

// Generate takes a request for a snapshot.
func (s *Service) Generate(_ context.Context, signed *peerpb.SignedSnapshotRequest) (*emptypb.Empty, error) {
	c, block, err := s.request(signed, "snapshot/submitrequest")
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, c.Submit(block)
}

// Cancel takes a request back.
func (s *Service) Cancel(_ context.Context, signed *peerpb.SignedSnapshotRequest) (*emptypb.Empty, error) {
	c, block, err := s.request(signed, "snapshot/cancelrequest")
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, c.Cancel(block)
}

func (s *Service) request(signed *peerpb.SignedSnapshotRequest, resource string) (*Channel, uint64, error) {
	request := &peerpb.SnapshotRequest{}
	if err := proto.Unmarshal(signed.GetRequest(), request); err != nil {
		return nil, 0, fmt.Errorf("failed to unmarshal snapshot request: %w", err)
	}
	c, err := s.authorize(signed, request.SignatureHeader, resource, request.ChannelId)
	return c, request.BlockNumber, err
}

// QueryPendings lists the requests that are not met yet.
func (s *Service) QueryPendings(_ context.Context, signed *peerpb.SignedSnapshotRequest) (*peerpb.QueryPendingSnapshotsResponse, error) {
	query := &peerpb.SnapshotQuery{}
	if err := proto.Unmarshal(signed.GetRequest(), query); err != nil {
		return nil, fmt.Errorf("failed to unmarshal snapshot request: %w", err)
	}
	c, err := s.authorize(signed, query.SignatureHeader, "snapshot/listpending", query.ChannelId)
	if err != nil {
		return nil, err
	}
	return &peerpb.QueryPendingSnapshotsResponse{BlockNumbers: c.Pending()}, nil
}

func (s *Service) authorize(signed *peerpb.SignedSnapshotRequest, header *commonpb.SignatureHeader, resource, channelID string) (*Channel, error) {
	if header == nil {
		return nil, errors.New("missing signature header")
	}
	if end, ok := expiry(header.Creator); ok && s.Now().After(end) {
		return nil, errors.New("client identity expired")
	}
	if err := s.Access.CheckSigned("", resource, signed.Request, header.Creator, signed.Signature); err != nil {
		return nil, err
	}
	if channelID == "" {
		return nil, errors.New("missing channel ID")
	}
	c, ok := s.Channel(channelID)
	if !ok {
		return nil, fmt.Errorf("cannot find ledger for channel %s", channelID)
	}
	return c, nil
}

// expiry is until when a creator's certificate is valid; what is no certificate is left to Access.
func expiry(creator []byte) (time.Time, bool) {
	var id msppb.SerializedIdentity
	if proto.Unmarshal(creator, &id) != nil {
		return time.Time{}, false
	}
	block, _ := pem.Decode(id.IdBytes)
	if block == nil {
		return time.Time{}, false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, false
	}
	return cert.NotAfter, true
}
