package shim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	maxMessageBytes = 100 << 20 // as Fabric's
	maxPeers        = 100       // streams that a service accepts on one connection
)

// Serve waits for peers on a listener, which it closes, until the context ends.
func (p Program) Serve(ctx context.Context, l net.Listener, config *tls.Config) error {
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessageBytes), grpc.MaxSendMsgSize(maxMessageBytes), grpc.MaxConcurrentStreams(maxPeers),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(5 * time.Second),
		grpc.InitialWindowSize(1 << 20), grpc.InitialConnWindowSize(4 << 20),
	}
	if config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	server := grpc.NewServer(options...)
	peerpb.RegisterChaincodeServer(server, &service{program: p, ctx: ctx})
	defer context.AfterFunc(ctx, server.Stop)()
	err := server.Serve(l)
	if ctx.Err() != nil {
		server.Stop() // waits for the handlers
		return nil
	}
	return err
}

type service struct {
	peerpb.UnimplementedChaincodeServer
	program Program
	ctx     context.Context // the server's, which lives as long as this
}

func (s *service) Connect(stream peerpb.Chaincode_ConnectServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	err := s.program.talk(ctx, stream)
	s.program.Log.Info("peer has gone", "reason", err)
	if errors.Is(err, context.Canceled) {
		return status.Error(codes.Canceled, "contract is stopping")
	}
	return status.Error(codes.Aborted, err.Error())
}

// Join dials a peer and serves it until the stream or the context ends. It returns nil only for the latter.
func (p Program) Join(ctx context.Context, address string, config *tls.Config) error {
	creds := insecure.NewCredentials()
	if config != nil {
		creds = credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(creds), grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 20 * time.Second, PermitWithoutStream: true}),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(4<<20),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)),
	)
	if err != nil {
		return fmt.Errorf("dial peer %s: %w", address, err)
	}
	defer conn.Close()
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := peerpb.NewChaincodeSupportClient(conn).Register(streamCtx)
	if err != nil {
		return fmt.Errorf("register with peer %s: %w", address, err)
	}
	err = p.talk(streamCtx, stream)
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("peer %s: %w", address, err)
}
