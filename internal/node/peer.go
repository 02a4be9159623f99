// Package node wires a node: it is the only place that knows which part of a
// peer, an orderer or a certificate authority gives what to which other. Each
// role is one file and one Run function, which lasts as long as the node.
//
// What is here decides nothing: adapters where two packages say the same in
// different words, gRPC and HTTP servers, access control by the channels'
// policies, configuration. Open peer.go to see a peer, and config.go for what can be
// configured.
package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/hansa-ledger/hansa/internal/builder"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/contracthost"
	"github.com/hansa-ledger/hansa/internal/courier"
	"github.com/hansa-ledger/hansa/internal/cscc"
	"github.com/hansa-ledger/hansa/internal/deliver"
	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/endorse"
	"github.com/hansa-ledger/hansa/internal/gateway"
	"github.com/hansa-ledger/hansa/internal/gossip"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/lifecycle"
	"github.com/hansa-ledger/hansa/internal/qscc"
	"github.com/hansa-ledger/hansa/internal/snapshots"
	"github.com/hansa-ledger/hansa/internal/wire/discoverypb"
	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	"github.com/hansa-ledger/hansa/internal/wire/gossippb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/privatedatapb"
)

// peer is a running peer.
type peer struct {
	config   PeerConfig
	log      *slog.Logger
	cert     tls.Certificate
	signer   *identity.Signer
	verifier *identity.Verifier
	localMSP *identity.MSP
	access   *access
	packages *lifecycle.Packages
	catalog  *lifecycle.Catalog
	host     *contracthost.Host
	channels *channels
	conns    *connections
	courier  *courier.Courier
	// builders and contractPort are nil without external builders.
	builders     *builder.Builders
	contractPort *contractPort
	// directory knows the other peers of the channels.
	directory *discovery.Directory
	// rumours are exchanged with peers of Fabric.
	rumours *gossip.Service
}

// peerGCPercent lets a peer's heap grow to three times what is in use before it is searched for garbage, unless the environment says
// otherwise (GOGC). Much of a peer's memory is Pebble's, which is not searched, so that twice would be soon.
const peerGCPercent = 200

// RunPeer runs a peer until ctx ends.
func RunPeer(ctx context.Context, c PeerConfig, level *slog.LevelVar, log *slog.Logger) (err error) {
	if err := c.complete(); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(peerGCPercent)
	}
	unlock, err := lockData(c.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	p := &peer{config: c, log: log, verifier: identity.NewVerifier(identity.Config{})}
	if err := p.loadIdentity(); err != nil {
		return err
	}
	serverConfig, err := serverTLS(c.TLS)
	if err != nil {
		return err
	}
	p.cert = serverConfig.Certificates[0]
	p.conns = newConnections(p.cert)
	defer p.conns.close()
	if p.courier, err = p.newCourier(); err != nil {
		return err
	}
	defer p.courier.Close()
	if err := p.openContracts(); err != nil {
		return err
	}
	defer p.host.Close()

	group, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	p.channels = newChannels(ctx, group, p)
	if p.directory, err = p.newDirectory(); err != nil {
		return err
	}
	if p.rumours, err = p.newGossip(); err != nil {
		return err
	}
	// Channels close after everything that reads them has ended.
	defer func() { err = errors.Join(err, p.channels.close()) }()
	endorser, err := p.newEndorser()
	if err != nil {
		return err
	}
	if err := p.takeOver(ctx); err != nil {
		return err
	}
	if err := p.channels.open(); err != nil {
		return err
	}
	p.runInstalled(ctx, group.Go)
	ops := &operations{level: level, check: p.channels.check}
	if err := p.serve(ctx, group, serverConfig, endorser, ops); err != nil {
		// End what was started when another part could not be.
		stop()
		return errors.Join(err, group.Wait())
	}
	ops.ready.Store(true)
	log.Info("serving", "msp", c.MSPID, "address", c.Listen, "channels", p.channels.Channels())
	return group.Wait()
}

func (p *peer) loadIdentity() error {
	c := p.config
	var err error
	if p.signer, err = identity.LoadSigner(c.MSPDir, c.MSPID); err != nil {
		return fmt.Errorf("mspDir: %w", err)
	}
	conf, err := identity.ConfigFromDir(c.MSPDir, c.MSPID)
	if err != nil {
		return fmt.Errorf("mspDir: %w", err)
	}
	if p.localMSP, err = identity.NewMSP(conf, p.verifier, identity.Options{AllowEd25519: true}); err != nil {
		return fmt.Errorf("mspDir: %w", err)
	}
	local, err := identity.NewManager([]*identity.MSP{p.localMSP})
	if err != nil {
		return err
	}
	p.access = &access{bundles: p.bundle, local: local, mspID: c.MSPID}
	return nil
}

func (p *peer) newEndorser() (*endorse.Endorser, error) {
	return endorse.New(endorse.Config{
		Signer: p.signer, LocalMSP: p.localMSP, Verifier: p.verifier,
		Channel:       func(id string) (endorse.Channel, bool) { return lookup[endorse.Channel](p.channels, id) },
		Contracts:     contracts{p.host},
		Programs:      p.catalog,
		PrivateStore:  p.channels,
		Distributor:   p.courier,
		MaxConcurrent: p.config.Limits.Endorser,
		TimeWindow:    p.config.TimeWindow,
		Log:           p.log,
		System: []endorse.System{
			lifecycle.New(lifecycle.Config{LocalMSP: p.localMSP, Channel: p.bundle, Packages: p.packages, Catalog: p.catalog,
				Snapshots: p.channels.snapshots, Prepare: p.prepareContract, Installed: p.channels.wakeIndexing}),
			qscc.New(qscc.Config{Access: p.access, Ledger: p.channels.ledger}),
			cscc.New(cscc.Config{Access: p.access, Peer: p.channels, Verifier: p.verifier}),
		},
	})
}

// serve starts the peer's servers.
func (p *peer) serve(ctx context.Context, group *errgroup.Group, t *tls.Config, endorser *endorse.Endorser, ops *operations) error {
	c := p.config
	self := gateway.Peer{Endorser: endorser, MSPID: c.MSPID, Address: c.Address, Local: true, Ready: true}
	gatewayServer, err := gateway.New(gateway.Config{
		MSPID: c.MSPID, Address: c.Address, Access: p.access, Log: p.log,
		Channels: func(id string) (gateway.Channel, bool) { return lookup[gateway.Channel](p.channels, id) },
		Peers:    newEndorsers(self, p.directory, p.channels, p.conns),
		Orderers: gateway.NewOrderers(p.conns, p.bundle),

		EndorsementTimeout: c.Gateway.EndorsementTimeout, BroadcastTimeout: c.Gateway.BroadcastTimeout,
	})
	if err != nil {
		return err
	}
	delivery := deliver.NewServer(deliver.Config{TimeWindow: c.TimeWindow, MutualTLS: c.TLS.RequireClientCert, Log: p.log,
		Channel: func(id string) (deliver.Channel, bool) { return lookup[deliver.Channel](p.channels, id) }})
	calls, streams := newLimit("gateway", c.Limits.Gateway), newLimit("deliver", c.Limits.Deliver)
	server := newGRPCServer(t, p.log,
		grpc.ChainUnaryInterceptor(limitUnary(map[string]*limit{
			gatewaypb.Gateway_Endorse_FullMethodName: calls, gatewaypb.Gateway_Submit_FullMethodName: calls,
			gatewaypb.Gateway_Evaluate_FullMethodName: calls, gatewaypb.Gateway_CommitStatus_FullMethodName: calls})),
		grpc.ChainStreamInterceptor(limitStream(map[string]*limit{
			gatewaypb.Gateway_ChaincodeEvents_FullMethodName: calls,
			peerpb.Deliver_Deliver_FullMethodName:            streams, peerpb.Deliver_DeliverFiltered_FullMethodName: streams,
			peerpb.Deliver_DeliverWithPrivateData_FullMethodName: streams})))
	peerpb.RegisterEndorserServer(server, endorser)
	peerpb.RegisterDeliverServer(server, deliver.Peer{Server: delivery})
	peerpb.RegisterSnapshotServer(server, &snapshots.Service{Channel: p.channels.taken, Access: p.access, Now: time.Now})
	gatewaypb.RegisterGatewayServer(server, gatewayServer)
	privatedatapb.RegisterPrivateDataServer(server, p.courier)
	discoverypb.RegisterDiscoveryServer(server, discovery.NewService(p.directory, p.access, c.TLS.RequireClientCert))
	gossippb.RegisterGossipServer(server, p.rumours)

	l, err := listen("peer", c.Listen)
	if err != nil {
		return err
	}
	// Contracts are served as long as calls may need them.
	contractsCtx, endContracts := context.WithCancel(context.WithoutCancel(ctx))
	if err := p.serveContracts(contractsCtx, group.Go); err != nil {
		l.Close()
		endContracts()
		return err
	}
	if err := ops.start(ctx, group, c.Operations, slices.Concat(delivery.Collectors(), endorser.Collectors(), p.courier.Collectors(), []prometheus.Collector{p.channels})...); err != nil {
		l.Close()
		endContracts()
		return err
	}
	group.Go(func() error {
		defer endContracts()
		return serveGRPC(ctx, server, l)
	})
	group.Go(func() error { return p.directory.Run(ctx) })
	group.Go(func() error { return p.rumours.Run(ctx) })
	return nil
}

func (p *peer) newDirectory() (*discovery.Directory, error) {
	return discovery.NewDirectory(discovery.Config{
		Signer: p.signer, MSPID: p.config.MSPID, Address: p.config.Address, CertHash: certHash(p.cert), Dial: p.conns, Log: p.log,
		Channels: p.channels.Channels,
		Channel:  func(id string) (discovery.Channel, bool) { return lookup[discovery.Channel](p.channels, id) },
	})
}

// newGossip makes what tells peers of Fabric of this one.
func (p *peer) newGossip() (*gossip.Service, error) {
	return gossip.New(gossip.Config{
		Signer: p.signer, CertHash: certHash(p.cert), Directory: p.directory, Dial: p.conns, Private: p.courier, Log: p.log,
		Channels: p.channels.Channels,
		Bundle: func(id string) (*channel.Bundle, bool) {
			ch, ok := p.channels.get(id)
			if !ok {
				return nil, false
			}
			return ch.Bundle(), true
		},
	})
}

// lockData keeps a second process from a node's data folder.
func lockData(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("dataDir: %w", err)
	}
	return lockFile(filepath.Join(dir, "lock"))
}
