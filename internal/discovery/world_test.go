package discovery_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/discoverypb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	must(t, err)
	return raw
}

// world is the golden ledger's channel of three members with the test's own members in place of its.
type world struct {
	t      testing.TB
	orgs   map[string]*identitytest.Org
	base   *commonpb.Config
	id     string
	bundle *channel.Bundle
	rules  rules

	mu    sync.Mutex
	clock time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	raw, err := os.ReadFile("../../testdata/vectors/blocks/000092.block")
	must(t, err)
	b := &commonpb.Block{}
	must(t, proto.Unmarshal(raw, b))
	first, err := channel.FromBlock(b, identity.NewVerifier(identity.Config{}))
	must(t, err)
	w := &world{t: t, id: first.ID(), base: first.Config(), orgs: map[string]*identitytest.Org{}, clock: time.Unix(1e9, 0), rules: rules{}}
	for _, o := range first.ApplicationOrgs() {
		w.orgs[o.MSPID] = identitytest.NewOrg(t, o.MSPID)
	}
	w.configure()
	return w
}

// configure makes a new configuration, with these anchor peers by member, without the members that were left out of w.orgs.
func (w *world) configure(anchors ...*peer) {
	w.t.Helper()
	config := proto.Clone(w.base).(*commonpb.Config)
	application := config.ChannelGroup.Groups["Application"]
	for name, group := range application.Groups {
		conf, fabric := &msppb.MSPConfig{}, &msppb.FabricMSPConfig{}
		must(w.t, proto.Unmarshal(group.Values["MSP"].Value, conf))
		must(w.t, proto.Unmarshal(conf.Config, fabric))
		org := w.orgs[fabric.Name]
		if org == nil {
			delete(application.Groups, name)
			continue
		}
		group.Values["MSP"].Value = marshal(w.t, org.MSPConfig(w.t))
		all := &peerpb.AnchorPeers{}
		for _, p := range anchors {
			if p.org == fabric.Name {
				host, port, err := net.SplitHostPort(p.address)
				must(w.t, err)
				n, err := net.LookupPort("tcp", port)
				must(w.t, err)
				all.AnchorPeers = append(all.AnchorPeers, &peerpb.AnchorPeer{Host: host, Port: int32(n)})
			}
		}
		delete(group.Values, "AnchorPeers")
		if len(all.AnchorPeers) > 0 {
			group.Values["AnchorPeers"] = &commonpb.ConfigValue{ModPolicy: "Admins", Value: marshal(w.t, all)}
		}
	}
	b, err := channel.NewBundle(w.id, config, identity.NewVerifier(identity.Config{}))
	must(w.t, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bundle = b
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
}

// rules are policies in text, by chaincode or "chaincode.collection"; "members of chaincode.collection" too.
type rules map[string]string

type undefined string

func (u undefined) Error() string { return "no chaincode " + string(u) }

func (r rules) envelope(name string) (*commonpb.SignaturePolicyEnvelope, error) {
	text, ok := r[name]
	if !ok {
		return nil, nil
	}
	return policy.Parse(text)
}

func (r rules) EndorsementPolicy(name string) (*peerpb.ApplicationPolicy, error) {
	env, err := r.envelope(name)
	if err != nil {
		return nil, err
	}
	if env == nil {
		return nil, undefined(name)
	}
	return &peerpb.ApplicationPolicy{Type: &peerpb.ApplicationPolicy_SignaturePolicy{SignaturePolicy: env}}, nil
}

func (r rules) CollectionPolicy(name, collection string) (*peerpb.ApplicationPolicy, *commonpb.SignaturePolicyEnvelope, error) {
	members, err := r.envelope("members of " + name + "." + collection)
	if err != nil || members == nil {
		return nil, nil, undefined(name + "." + collection)
	}
	env, err := r.envelope(name + "." + collection)
	if env == nil || err != nil {
		return nil, members, err
	}
	return &peerpb.ApplicationPolicy{Type: &peerpb.ApplicationPolicy_SignaturePolicy{SignaturePolicy: env}}, members, nil
}

// peer is a peer with a directory and a discovery service over gRPC.
type peer struct {
	w         *world
	org       string
	address   string
	signer    *identity.Signer
	directory *discovery.Directory
	server    *grpc.Server
	stop      func() // ends the server and the directory

	mu        sync.Mutex
	height    uint64
	contracts map[string]discovery.Contract
	conns     map[string]*grpc.ClientConn
}

func (w *world) peer(org string, runs ...string) *peer {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(w.t, err)
	p := &peer{w: w, org: org, address: l.Addr().String(), signer: w.orgs[org].Signer(w.t, "peer"), height: 1, contracts: map[string]discovery.Contract{}, conns: map[string]*grpc.ClientConn{}}
	p.install(runs...)
	p.directory, err = discovery.NewDirectory(discovery.Config{
		Signer: p.signer, MSPID: org, Address: p.address, Dial: p, Log: slog.New(slog.DiscardHandler), Now: w.now,
		Channels: func() []string { return []string{w.id} },
		Channel:  func(id string) (discovery.Channel, bool) { return p, id == w.id },
		Interval: 20 * time.Millisecond,
	})
	must(w.t, err)
	p.server = grpc.NewServer()
	discoverypb.RegisterDiscoveryServer(p.server, discovery.NewService(p.directory, w, false))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { p.server.Serve(l) })
	running.Go(func() { p.directory.Run(ctx) })
	p.stop = func() {
		cancel()
		p.server.Stop()
		running.Wait()
	}
	w.t.Cleanup(func() {
		p.stop()
		for _, c := range p.conns {
			c.Close()
		}
	})
	return p
}

func (p *peer) install(names ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]discovery.Contract{}
	for name := range p.w.rules {
		all[name] = discovery.Contract{Version: "1.0", Runs: slices.Contains(names, name)}
	}
	p.contracts = all
}

func (p *peer) Dial(address string, _ [][]byte) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[address] == nil {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		p.conns[address] = conn
	}
	return p.conns[address], nil
}

func (p *peer) Bundle() *channel.Bundle {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.w.bundle
}

func (p *peer) Height() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.height
}

func (p *peer) Contracts() (map[string]discovery.Contract, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.contracts, nil
}

func (p *peer) Rules() discovery.Rules { return p.w.rules }

// Discover lets in whoever is a valid member of the channel and signed.
func (w *world) Discover(channelID string, _ bool, data, creator, signature []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ids := policy.ValidIdentities([]policy.SignedData{{Data: data, Identity: creator, Signature: signature}}, w.bundle.MSPs()); len(ids) != 1 {
		return undefined("identity")
	}
	return nil
}

// seen is what a peer's directory lists of others: "msp contracts" by address.
func (p *peer) seen() map[string]*discovery.Member {
	found := map[string]*discovery.Member{}
	for _, m := range p.directory.Members(p.w.id) {
		if !m.Local {
			found[m.Address] = m
		}
	}
	return found
}

// await waits for a condition on what directories learn by asking.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// ask sends queries as a client of a member.
func (p *peer) ask(as *identity.Signer, queries ...*discoverypb.Query) ([]*discoverypb.QueryResult, error) {
	p.w.t.Helper()
	conn, err := p.Dial(p.address, nil)
	must(p.w.t, err)
	payload := marshal(p.w.t, &discoverypb.Request{Authentication: &discoverypb.AuthInfo{ClientIdentity: as.Serialize()}, Queries: queries})
	signature, err := as.Sign(payload)
	must(p.w.t, err)
	r, err := discoverypb.NewDiscoveryClient(conn).Discover(p.w.t.Context(), &discoverypb.SignedRequest{Payload: payload, Signature: signature})
	return r.GetResults(), err
}
