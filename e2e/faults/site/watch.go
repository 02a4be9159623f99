package site

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// again is how many blocks are read once more after a connection broke: a node that comes back must have what it had.
const again = 5

// Watch shows every block of a node, orderer or peer, in order and as it comes, until ctx ends. After a break it goes on a little before
// the point that it had reached.
func (s *Site) Watch(ctx context.Context, n *Node, show func(*commonpb.Block)) error {
	reader, err := s.Peers[0].member.identity("User1")
	if err != nil {
		return err
	}
	conn, err := n.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	next := uint64(0)
	for ctx.Err() == nil {
		next -= min(next, again)
		read(ctx, n, conn, reader, func(b *commonpb.Block) {
			next = b.Header.Number + 1
			show(b)
		}, next)
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

func (n *Node) dial() (*grpc.ClientConn, error) {
	raw, err := os.ReadFile(n.member.org.TLSRoot())
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(raw)
	return grpc.NewClient("passthrough:///"+n.Address(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots})),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(100<<20)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond}, MinConnectTimeout: time.Second}))
}

// read shows the blocks from one on until something ends.
func read(ctx context.Context, n *Node, conn *grpc.ClientConn, reader client.Identity, show func(*commonpb.Block), from uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seek := &ordererpb.SeekInfo{Start: at(from), Stop: at(1<<64 - 1)}
	env, err := envelope.New(reader, commonpb.HeaderType_DELIVER_SEEK_INFO, Channel, seek, nil)
	if err != nil {
		return err
	}
	var receive func() (*commonpb.Block, commonpb.Status, error)
	if n.Role == Orderer {
		stream, err := ordererpb.NewAtomicBroadcastClient(conn).Deliver(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(env); err != nil {
			return err
		}
		receive = func() (*commonpb.Block, commonpb.Status, error) {
			r, err := stream.Recv()
			return r.GetBlock(), r.GetStatus(), err
		}
	} else {
		stream, err := peerpb.NewDeliverClient(conn).Deliver(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(env); err != nil {
			return err
		}
		receive = func() (*commonpb.Block, commonpb.Status, error) {
			r, err := stream.Recv()
			return r.GetBlock(), r.GetStatus(), err
		}
	}
	for {
		b, status, err := receive()
		switch {
		case err != nil:
			return err
		case b == nil:
			return fmt.Errorf("%s answers %v", n.Name, status)
		case b.Header == nil:
			return errors.New("a block without header")
		}
		show(b)
	}
}

func at(number uint64) *ordererpb.SeekPosition {
	return &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_Specified{Specified: &ordererpb.SeekSpecified{Number: number}}}
}
