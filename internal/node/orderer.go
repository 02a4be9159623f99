package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/hansa-ledger/hansa/internal/deliver"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/order"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// atomicBroadcast is orderer.AtomicBroadcast: both halves of it.
type atomicBroadcast struct {
	ordererpb.UnimplementedAtomicBroadcastServer
	*order.Service
	delivery deliver.Orderer
}

func (a atomicBroadcast) Broadcast(stream ordererpb.AtomicBroadcast_BroadcastServer) error {
	return a.Service.Broadcast(stream)
}

func (a atomicBroadcast) Deliver(stream ordererpb.AtomicBroadcast_DeliverServer) error {
	return a.delivery.Deliver(stream)
}

// RunOrderer runs an ordering node until ctx ends.
func RunOrderer(ctx context.Context, c OrdererConfig, level *slog.LevelVar, log *slog.Logger) error {
	if err := c.complete(); err != nil {
		return err
	}
	unlock, err := lockData(c.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	signer, err := identity.LoadSigner(c.MSPDir, c.MSPID)
	if err != nil {
		return fmt.Errorf("mspDir: %w", err)
	}
	serverConfig, err := serverTLS(c.TLS)
	if err != nil {
		return err
	}
	certificate, err := os.ReadFile(c.TLS.Cert)
	if err != nil {
		return fmt.Errorf("tls.cert: %w", err)
	}
	service, err := order.Open(order.Config{Dir: c.DataDir, Certificate: certificate, Signer: signer,
		Verifier: identity.NewVerifier(identity.Config{}), Log: log})
	if err != nil {
		return err
	}
	delivery := deliver.NewServer(deliver.Config{MutualTLS: c.TLS.RequireClientCert, Log: log,
		Channel: func(id string) (deliver.Channel, bool) {
			chain, ok := service.Channel(id)
			return chain, ok
		}})
	server := newGRPCServer(serverConfig, log, grpc.ChainStreamInterceptor(limitStream(map[string]*limit{
		ordererpb.AtomicBroadcast_Broadcast_FullMethodName: newLimit("broadcast", c.Limits.Broadcast),
		ordererpb.AtomicBroadcast_Deliver_FullMethodName:   newLimit("deliver", c.Limits.Deliver)})))
	ordererpb.RegisterAtomicBroadcastServer(server, atomicBroadcast{Service: service, delivery: deliver.Orderer{Server: delivery}})

	group, ctx := errgroup.WithContext(ctx)
	ctx, abandon := context.WithCancel(ctx)
	defer abandon()
	group.Go(func() error { return service.Run(ctx) })
	start := func() error {
		l, err := listen("orderer", c.Listen)
		if err != nil {
			return err
		}
		group.Go(func() error { return serveGRPC(ctx, server, l) })
		if c.Admin.Listen != "" {
			if err := serveAdmin(ctx, group, c.Admin, service); err != nil {
				return err
			}
		}
		ops := &operations{level: level}
		if err := ops.start(ctx, group, c.Operations, append(service.Collectors(), delivery.Collectors()...)...); err != nil {
			return err
		}
		ops.ready.Store(true)
		log.Info("serving", "msp", c.MSPID, "address", c.Listen, "channels", service.Channels())
		return nil
	}
	if err := start(); err != nil {
		abandon()
		return errors.Join(err, group.Wait())
	}
	return group.Wait()
}

// serveAdmin serves the channel participation API. It always demands client
// certificates: whoever reaches it administrates the orderer.
func serveAdmin(ctx context.Context, group *errgroup.Group, c AdminConfig, service *order.Service) error {
	if len(c.TLS.ClientRoots) == 0 {
		return errors.New("admin.tls.clientRoots is missing: the admin port needs mutual TLS; leave admin.listen empty to go without")
	}
	c.TLS.RequireClientCert = true
	t, err := serverTLS(c.TLS)
	if err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	t.NextProtos = nil // plain HTTPS
	l, err := listen("admin", c.Listen)
	if err != nil {
		return err
	}
	group.Go(func() error { return serveHTTP(ctx, service.Participation(), l, t) })
	return nil
}
