package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/hansa-ledger/hansa/internal/deliver"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/order"
	"github.com/hansa-ledger/hansa/internal/order/cluster"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
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
	// Consenters show each other the certificate that the channel's config names.
	links := cluster.New(cluster.Config{Certificate: serverConfig.Certificates[0], Log: log})
	defer links.Close()
	admitConsenters(serverConfig, links)
	config := order.Config{Dir: c.DataDir, Certificate: certificate, Signer: signer,
		Verifier: identity.NewVerifier(identity.Config{}), Log: log,
		Cluster: links, Pull: pullBlocks(signer, serverConfig.Certificates[0], log), Accept: validate.Accept}
	if err := takeOverChains(c.FabricData, config, log); err != nil {
		return err
	}
	service, err := order.Open(config)
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
	ordererpb.RegisterClusterServer(server, clusterServer{links: links})

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
		if err := ops.start(ctx, group, c.Operations, slices.Concat(service.Collectors(), delivery.Collectors(), links.Collectors())...); err != nil {
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

// clusterServer is orderer.Cluster, which the consenters of a channel call on each
// other. It is on the port that clients use, as in Fabric where no other is configured.
type clusterServer struct {
	ordererpb.UnimplementedClusterServer
	links *cluster.Cluster
}

func (s clusterServer) Step(stream ordererpb.Cluster_StepServer) error { return s.links.Step(stream) }

// admitConsenters lets a client in whose key a channel's config names for a
// consenter, whatever authority vouches for it; others as t says.
func admitConsenters(t *tls.Config, links *cluster.Cluster) {
	if t.ClientCAs == nil {
		return // certificates are asked for and not verified; what needs one checks it
	}
	roots := t.ClientCAs
	// Naming the authorities would keep clients with certificates of others from showing them.
	t.ClientCAs = nil
	if t.ClientAuth == tls.RequireAndVerifyClientCert {
		t.ClientAuth = tls.RequireAnyClientCert
	} else {
		t.ClientAuth = tls.RequestClientCert
	}
	t.VerifyConnection = func(s tls.ConnectionState) error {
		if len(s.PeerCertificates) == 0 || links.Knows(s.PeerCertificates[0].RawSubjectPublicKeyInfo) {
			return nil
		}
		between := x509.NewCertPool()
		for _, cert := range s.PeerCertificates[1:] {
			between.AddCert(cert)
		}
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return err
	}
}

// pullBlocks lets an orderer fetch blocks from others as a peer does.
func pullBlocks(signer envelope.Signer, cert tls.Certificate, log *slog.Logger) func(context.Context, order.Pull) error {
	return func(ctx context.Context, p order.Pull) error {
		return deliver.NewPuller(deliver.PullerConfig{ChannelID: p.ChannelID, Signer: signer, Certificate: &cert, Next: p.Next, Known: p.Known, Log: log,
			Endpoints: func() (all []deliver.Endpoint) {
				for _, e := range p.Endpoints() {
					all = append(all, deliver.Endpoint{Address: e.Address, TLSRoots: e.TLSRoots})
				}
				return all
			},
			Sink: func(ctx context.Context, b *commonpb.Block) error {
				err := p.Sink(ctx, b)
				if errors.Is(err, order.ErrBadBlock) {
					return fmt.Errorf("%w: %w", deliver.ErrBadBlock, err)
				}
				return err
			}}).Run(ctx)
	}
}

// serveAdmin serves the channel participation API. It always demands client
// certificates: whoever reaches it administrates the orderer.
func serveAdmin(ctx context.Context, group *errgroup.Group, c AdminConfig, service *order.Service) error {
	if c.Plain {
		return servePlainAdmin(ctx, group, c.Listen, service)
	}
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

// servePlainAdmin serves this machine's users, of whom each may administrate then; not the web pages that they open.
func servePlainAdmin(ctx context.Context, group *errgroup.Group, address string, service *order.Service) error {
	if !loopback(address) {
		return fmt.Errorf("admin.plain: admin.listen is %s; without TLS the port is opened on 127.0.0.1 only", address)
	}
	l, err := listen("admin", address)
	if err != nil {
		return err
	}
	participation := service.Participation()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" || !loopback(r.Host) {
			http.Error(w, "this port is for administrators' tools on this machine", http.StatusForbidden)
			return
		}
		participation.ServeHTTP(w, r)
	})
	group.Go(func() error { return serveHTTP(ctx, handler, l, nil) })
	return nil
}

// loopback tells whether an address, host:port, is this machine's own.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
