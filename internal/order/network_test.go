package order_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/deliver"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/order"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

const channelID = "trade"

// network is the crypto and genesis block of a channel with an orderer's member and one with peers.
type network struct {
	dir             string
	listen          string // the orderer's address
	tls             *identitytest.CA
	orderers, users *identitytest.Org
	orderer         *identity.Signer // the node's own identity
	ordererAdmin    *identity.Signer
	user            *identity.Signer
	server          *identitytest.Leaf // TLS
	servers         []*identitytest.Leaf
	genesis         *commonpb.Block
}

const specText = `
channel: trade
batch: {timeout: 10s, maxMessages: 50, preferredMaxBytes: 64KB, absoluteMaxBytes: 256KB}
members:
  - {name: Harbour, mspId: HarbourMSP, mspDir: harbour, orderingOnly: true}
  - {name: Alpha, mspId: AlphaMSP, mspDir: alpha}
orderers:
  - {member: Harbour, host: 127.0.0.1, port: %d, tlsCert: orderer-tls.pem}
`

func newNetwork(t testing.TB) *network {
	t.Helper()
	return newNetworkAt(t, "127.0.0.1:0", 7050)
}

// newNetworkAt is a network whose orderer listens where its genesis block says.
func newNetworkAt(t testing.TB, listen string, port int) *network {
	t.Helper()
	return newNetworkOf(t, listen, fmt.Sprintf(specText, port), 0)
}

// newNetworkOf is a network of that specification, with TLS certificates orderer0-tls.pem and so on for more orderers.
func newNetworkOf(t testing.TB, listen, text string, more int) *network {
	t.Helper()
	n := &network{listen: listen, dir: t.TempDir(), tls: identitytest.NewCA(t, "tlsca"), orderers: identitytest.NewOrg(t, "HarbourMSP"), users: identitytest.NewOrg(t, "AlphaMSP")}
	n.orderer = n.orderers.Signer(t, "orderer")
	n.ordererAdmin = n.orderers.Signer(t, "admin")
	n.user = n.users.Signer(t, "client")
	n.server = n.tlsLeaf(t, "orderer")
	write := func(name string, content []byte) {
		t.Helper()
		path := filepath.Join(n.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("orderer-tls.pem", n.server.PEM)
	for i := range more {
		n.servers = append(n.servers, n.tlsLeaf(t, fmt.Sprintf("orderer%d", i)))
		write(fmt.Sprintf("orderer%d-tls.pem", i), n.servers[i].PEM)
	}
	for folder, org := range map[string]*identitytest.Org{"harbour": n.orderers, "alpha": n.users} {
		write(folder+"/cacerts/ca.pem", org.PEM)
		write(folder+"/tlscacerts/tlsca.pem", n.tls.PEM)
		units := "NodeOUs:\n  Enable: true\n"
		for _, role := range []string{"Client", "Peer", "Admin", "Orderer"} {
			units += fmt.Sprintf("  %sOUIdentifier: {Certificate: cacerts/ca.pem, OrganizationalUnitIdentifier: %s}\n", role, string(role[0]+32)+role[1:])
		}
		write(folder+"/config.yaml", []byte(units))
	}
	spec, err := channel.ParseSpec([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if n.genesis, err = spec.Genesis(n.dir); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *network) tlsLeaf(t testing.TB, name string) *identitytest.Leaf {
	t.Helper()
	return n.tls.Issue(t, name, nil, func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		c.DNSNames = []string{"localhost"}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	})
}

func certificate(leaf *identitytest.Leaf) tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{leaf.Cert.Raw}, PrivateKey: leaf.Key}
}

func (n *network) config(dir string) order.Config {
	return order.Config{Dir: dir, Certificate: n.server.PEM, Signer: n.orderer,
		Verifier: identity.NewVerifier(identity.Config{}), Log: slog.New(slog.DiscardHandler)}
}

// orderer is a running node: the service behind a real gRPC server with mutual TLS, and its admin endpoint.
type orderer struct {
	*order.Service
	network *network
	address string
	admin   string
	stop    func()
	conn    *grpc.ClientConn
	client  ordererpb.AtomicBroadcastClient
	leaf    *identitytest.Leaf
}

type atomicBroadcast struct {
	ordererpb.UnimplementedAtomicBroadcastServer
	*order.Service
	deliver deliver.Orderer
}

func (a *atomicBroadcast) Broadcast(s grpc.BidiStreamingServer[commonpb.Envelope, ordererpb.BroadcastResponse]) error {
	return a.Service.Broadcast(s)
}

func (a *atomicBroadcast) Deliver(s grpc.BidiStreamingServer[commonpb.Envelope, ordererpb.DeliverResponse]) error {
	return a.deliver.Deliver(s)
}

func (n *network) start(t testing.TB, cfg order.Config) *orderer {
	t.Helper()
	service, err := order.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	o := &orderer{Service: service, network: n}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- service.Run(ctx) }()

	pool := x509.NewCertPool()
	pool.AddCert(n.tls.Cert)
	tlsConfig := &tls.Config{Certificates: []tls.Certificate{certificate(n.server)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(tlsConfig)))
	ordererpb.RegisterAtomicBroadcastServer(server, &atomicBroadcast{Service: service, deliver: deliver.Orderer{Server: deliver.NewServer(deliver.Config{
		MutualTLS: true, Log: cfg.Log,
		Channel: func(id string) (deliver.Channel, bool) {
			c, ok := service.Channel(id)
			return c, ok
		},
	})}})
	listener, err := net.Listen("tcp", n.listen)
	if err != nil {
		t.Fatal(err)
	}
	o.address = listener.Addr().String()
	go server.Serve(listener)
	adminListener, err := tls.Listen("tcp", "127.0.0.1:0", tlsConfig)
	if err != nil {
		t.Fatal(err)
	}
	o.admin = adminListener.Addr().String()
	admin := &http.Server{Handler: service.Participation(), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go admin.Serve(adminListener)

	o.dial(t)
	stopped := false
	o.stop = func() {
		if stopped {
			return
		}
		stopped = true
		o.conn.Close()
		server.Stop()
		admin.Close()
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("orderer: %v", err)
		}
	}
	t.Cleanup(o.stop)
	return o
}

func (o *orderer) dial(t testing.TB) {
	t.Helper()
	o.leaf = o.network.tlsLeaf(t, "client")
	var err error
	if o.conn, err = grpc.NewClient(o.address, grpc.WithTransportCredentials(credentials.NewTLS(o.clientTLS()))); err != nil {
		t.Fatal(err)
	}
	o.client = ordererpb.NewAtomicBroadcastClient(o.conn)
}

func (o *orderer) clientTLS() *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(o.network.tls.Cert)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{certificate(o.leaf)}}
}

// startJoined is a node that orders the network's channel.
func (n *network) startJoined(t testing.TB) *orderer {
	t.Helper()
	o := n.start(t, n.config(t.TempDir()))
	o.join(t)
	return o
}

func (o *orderer) join(t testing.TB) *order.Chain {
	t.Helper()
	c, err := o.Join(t.Context(), proto.Clone(o.network.genesis).(*commonpb.Block))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// puller collects blocks until want transactions outside of config blocks have arrived.
func (o *orderer) pull(t testing.TB, from uint64, enough func(*commonpb.Block) bool) []*commonpb.Block {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cert := certificate(o.leaf)
	var blocks []*commonpb.Block
	p := deliver.NewPuller(deliver.PullerConfig{
		ChannelID: channelID, Signer: o.network.user, Certificate: &cert, Log: slog.New(slog.DiscardHandler),
		Endpoints: func() []deliver.Endpoint {
			return []deliver.Endpoint{{Address: o.address, TLSRoots: [][]byte{o.network.tls.PEM}}}
		},
		Next: func() uint64 { return from + uint64(len(blocks)) },
		Sink: func(_ context.Context, b *commonpb.Block) error {
			blocks = append(blocks, b)
			if enough(b) {
				cancel()
			}
			return nil
		},
	})
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return blocks
}
