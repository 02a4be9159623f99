package gossip_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/gossip"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/gossippb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is the golden ledger's channel with the test's own members in place of its.
type world struct {
	t    testing.TB
	orgs map[string]*identitytest.Org
	base *commonpb.Config
	id   string

	mu     sync.Mutex
	bundle *channel.Bundle // guarded by mu
}

func newWorld(t testing.TB) *world {
	t.Helper()
	raw, err := os.ReadFile("../../testdata/vectors/blocks/000092.block")
	must(t, err)
	b := &commonpb.Block{}
	must(t, proto.Unmarshal(raw, b))
	first, err := channel.FromBlock(b, identity.NewVerifier(identity.Config{}))
	must(t, err)
	w := &world{t: t, id: first.ID(), base: first.Config(), orgs: map[string]*identitytest.Org{}}
	for _, o := range first.ApplicationOrgs() {
		w.orgs[o.MSPID] = identitytest.NewOrg(t, o.MSPID)
	}
	w.configure()
	return w
}

// configure makes a configuration with these peers as anchor peers.
func (w *world) configure(anchors ...*peer) {
	w.t.Helper()
	config := proto.Clone(w.base).(*commonpb.Config)
	for _, group := range config.ChannelGroup.Groups["Application"].Groups {
		conf, fabric := &msppb.MSPConfig{}, &msppb.FabricMSPConfig{}
		must(w.t, proto.Unmarshal(group.Values["MSP"].Value, conf))
		must(w.t, proto.Unmarshal(conf.Config, fabric))
		raw, err := proto.Marshal(w.orgs[fabric.Name].MSPConfig(w.t))
		must(w.t, err)
		group.Values["MSP"].Value = raw
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
		raw, err = proto.Marshal(all)
		must(w.t, err)
		group.Values["AnchorPeers"] = &commonpb.ConfigValue{ModPolicy: "Admins", Value: raw}
	}
	b, err := channel.NewBundle(w.id, config, identity.NewVerifier(identity.Config{}))
	must(w.t, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bundle = b
}

func (w *world) Bundle() *channel.Bundle {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bundle
}

// The rest of what a directory asks of a channel.
func (w *world) Height() uint64 { return 93 }
func (w *world) Contracts() (map[string]discovery.Contract, error) {
	return map[string]discovery.Contract{"asset": {Version: "1", Runs: true}}, nil
}
func (w *world) Rules() discovery.Rules { return nil }

// certificate is a TLS certificate of its own.
func certificate(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func hash(c tls.Certificate) []byte {
	sum := sha256.Sum256(c.Certificate[0])
	return sum[:]
}

// peer serves gossip over TLS.
type peer struct {
	w         *world
	org       string
	address   string
	cert      tls.Certificate
	signer    *identity.Signer
	directory *discovery.Directory
	service   *gossip.Service
	private   *private
}

// private keeps what is brought and gives that.
type private struct {
	mu    sync.Mutex
	taken []*gossippb.PrivatePayload // guarded by mu
}

func (p *private) Take(channelID string, identity []byte, payload *gossippb.PrivatePayload) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if payload.GetCollectionName() == "" {
		return status.Error(codes.PermissionDenied, "no such collection")
	}
	p.taken = append(p.taken, payload)
	return nil
}

func (p *private) Give(_ context.Context, channelID string, identity []byte, digests []*gossippb.PvtDataDigest) (given []*gossippb.PvtDataElement, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range digests {
		for _, t := range p.taken {
			if t.TxId == d.TxId {
				given = append(given, &gossippb.PvtDataElement{Digest: d, Payload: [][]byte{t.PrivateRwset, []byte(channelID), identity}})
			}
		}
	}
	return given, nil
}

func (w *world) peer(org string) *peer {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(w.t, err)
	p := &peer{w: w, org: org, address: l.Addr().String(), cert: certificate(w.t), signer: w.orgs[org].Signer(w.t, "peer"), private: &private{}}
	channels := func() []string { return []string{w.id} }
	p.directory, err = discovery.NewDirectory(discovery.Config{Signer: p.signer, MSPID: org, Address: p.address, Dial: p, Log: slog.New(slog.DiscardHandler),
		Channels: channels, Channel: func(id string) (discovery.Channel, bool) { return w, id == w.id }})
	must(w.t, err)
	p.service, err = gossip.New(gossip.Config{Signer: p.signer, CertHash: hash(p.cert), Directory: p.directory, Dial: p, Private: p.private, Log: slog.New(slog.DiscardHandler),
		Channels: channels, Bundle: func(id string) (*channel.Bundle, bool) { return w.Bundle(), id == w.id }, Interval: 20 * time.Millisecond})
	must(w.t, err)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{p.cert}, ClientAuth: tls.RequestClientCert})))
	gossippb.RegisterGossipServer(server, p.service)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { server.Serve(l) })
	running.Go(func() { p.service.Run(ctx) })
	w.t.Cleanup(func() {
		cancel()
		server.Stop()
		running.Wait()
	})
	return p
}

// Dial implements discovery.Dialer. Certificates are not what is tested here.
func (p *peer) Dial(address string, _ [][]byte) (*grpc.ClientConn, error) {
	return connect(p.w.t, address, p.cert), nil
}

func connect(t testing.TB, address string, certs ...tls.Certificate) *grpc.ClientConn {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: certs})))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (p *peer) heard(address string) *discovery.Member {
	for _, m := range p.directory.Members(p.w.id) {
		if m.Address == address && m.Heard {
			return m
		}
	}
	return nil
}

func await(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long: %s", what)
		}
	}
}

// foreigner speaks as a peer of Fabric does, message by message.
type foreigner struct {
	w      *world
	signer *identity.Signer
	pkiID  []byte
	cert   tls.Certificate
	stream grpc.BidiStreamingClient[gossippb.Envelope, gossippb.Envelope]
	count  uint64
}

func (w *world) foreigner(org string) *foreigner {
	f := &foreigner{w: w, signer: w.orgs[org].Signer(w.t, "peer"), cert: certificate(w.t)}
	var err error
	f.pkiID, err = discovery.PKIID(f.signer.Serialize())
	must(w.t, err)
	return f
}

func (f *foreigner) connect(p *peer, certs ...tls.Certificate) {
	f.w.t.Helper()
	var err error
	f.stream, err = gossippb.NewGossipClient(connect(f.w.t, p.address, certs...)).GossipStream(f.w.t.Context())
	must(f.w.t, err)
}

func (f *foreigner) seal(m *gossippb.GossipMessage) *gossippb.Envelope {
	f.w.t.Helper()
	e, err := discovery.Seal(f.signer, m)
	must(f.w.t, err)
	return e
}

func (f *foreigner) greeting() *gossippb.ConnEstablish {
	return &gossippb.ConnEstablish{PkiId: f.pkiID, Identity: f.signer.Serialize(), TlsCertHash: hash(f.cert)}
}

func greeting(c *gossippb.ConnEstablish) *gossippb.GossipMessage {
	return &gossippb.GossipMessage{Tag: gossippb.GossipMessage_EMPTY, Content: &gossippb.GossipMessage_Conn{Conn: c}}
}

// next is the next message of a kind.
func (f *foreigner) next(wanted func(*gossippb.GossipMessage) bool) (*gossippb.GossipMessage, *gossippb.Envelope) {
	f.w.t.Helper()
	for {
		e, err := f.stream.Recv()
		must(f.w.t, err)
		m := &gossippb.GossipMessage{}
		must(f.w.t, proto.Unmarshal(e.Payload, m))
		if wanted(m) {
			return m, e
		}
	}
}

func (f *foreigner) time() *gossippb.PeerTime {
	f.count++
	return &gossippb.PeerTime{IncNum: 7, SeqNum: f.count}
}

func (f *foreigner) alive(address string) *gossippb.GossipMessage {
	return &gossippb.GossipMessage{Tag: gossippb.GossipMessage_EMPTY, Content: &gossippb.GossipMessage_AliveMsg{AliveMsg: &gossippb.AliveMessage{
		Membership: &gossippb.Member{Endpoint: address, PkiId: f.pkiID}, Timestamp: f.time()}}}
}

func (f *foreigner) state(height uint64) *gossippb.GossipMessage {
	return &gossippb.GossipMessage{Tag: gossippb.GossipMessage_CHAN_OR_ORG, Content: &gossippb.GossipMessage_StateInfo{StateInfo: &gossippb.StateInfo{
		Timestamp: f.time(), PkiId: f.pkiID, Channel_MAC: discovery.ChannelMAC(f.pkiID, f.w.id),
		Properties: &gossippb.Properties{LedgerHeight: height, Chaincodes: []*gossippb.Chaincode{{Name: "asset", Version: "1"}}}}}}
}

func (f *foreigner) send(messages ...*gossippb.Envelope) {
	f.w.t.Helper()
	for _, m := range messages {
		must(f.w.t, f.stream.Send(m))
	}
}

func unsigned(t testing.TB, m *gossippb.GossipMessage) *gossippb.Envelope {
	t.Helper()
	raw, err := proto.Marshal(m)
	must(t, err)
	return &gossippb.Envelope{Payload: raw}
}

// A peer of Fabric learns of ours and ours of it, as the messages of Fabric's protocol have it.
func TestForeignPeer(t *testing.T) {
	w := newWorld(t)
	a, f := w.peer("AlphaMSP"), w.foreigner("BetaMSP")
	f.connect(a, f.cert)
	f.send(f.seal(greeting(f.greeting())))

	m, e := f.next(func(m *gossippb.GossipMessage) bool { return m.GetConn() != nil })
	own, err := w.Bundle().MSPs().Deserialize(m.GetConn().Identity)
	must(t, err)
	must(t, own.Verify(e.Payload, e.Signature))
	if !bytes.Equal(m.GetConn().TlsCertHash, hash(a.cert)) || m.Tag != gossippb.GossipMessage_EMPTY {
		t.Errorf("greeting %v", m)
	}
	m, e = f.next(func(m *gossippb.GossipMessage) bool { return m.GetAliveMsg() != nil })
	must(t, own.Verify(e.Payload, e.Signature))
	if alive := m.GetAliveMsg(); alive.Membership.Endpoint != a.address || !bytes.Equal(alive.Identity, a.signer.Serialize()) {
		t.Errorf("sign of life %v", m)
	}
	m, e = f.next(func(m *gossippb.GossipMessage) bool { return m.GetStateInfo() != nil })
	must(t, own.Verify(e.Payload, e.Signature))
	if p := m.GetStateInfo().Properties; p.LedgerHeight != 93 || len(p.Chaincodes) != 2 || m.Tag != gossippb.GossipMessage_CHAN_OR_ORG {
		t.Errorf("state %v", m)
	}

	f.send(f.seal(f.alive("beta.example.com:7051")), f.seal(f.state(70)))
	await(t, "alpha knows beta's peer", func() bool {
		m := a.heard("beta.example.com:7051")
		return m != nil && m.Height == 70 && m.Runs("asset")
	})
	f.send(f.seal(f.state(71)))
	await(t, "its new height", func() bool { return a.heard("beta.example.com:7051").Height == 71 })

	// What it asks is answered, with what was heard of itself too.
	f.send(unsigned(t, &gossippb.GossipMessage{Tag: gossippb.GossipMessage_EMPTY, Nonce: 42, Content: &gossippb.GossipMessage_MemReq{
		MemReq: &gossippb.MembershipRequest{SelfInformation: f.seal(f.alive("beta.example.com:7052"))}}}))
	if m, _ = f.next(func(m *gossippb.GossipMessage) bool { return m.GetMemRes() != nil }); m.Nonce != 42 || len(m.GetMemRes().Alive) != 2 {
		t.Errorf("members %v", m)
	}
	await(t, "its new address", func() bool { return a.heard("beta.example.com:7052") != nil })
	f.send(unsigned(t, &gossippb.GossipMessage{Tag: gossippb.GossipMessage_CHAN_OR_ORG, Content: &gossippb.GossipMessage_StateInfoPullReq{
		StateInfoPullReq: &gossippb.StateInfoPullRequest{Channel_MAC: discovery.ChannelMAC(f.pkiID, w.id)}}}))
	if m, _ = f.next(func(m *gossippb.GossipMessage) bool { return m.GetStateSnapshot() != nil }); len(m.GetStateSnapshot().Elements) != 2 {
		t.Errorf("states %v", m)
	}
	// A request bound to another channel is not answered; the next one is.
	f.send(unsigned(t, &gossippb.GossipMessage{Content: &gossippb.GossipMessage_StateInfoPullReq{StateInfoPullReq: &gossippb.StateInfoPullRequest{
		Channel_MAC: discovery.ChannelMAC(f.pkiID, "elsewhere")}}}))

	// Certificates of peers that it has no link with are fetched.
	g := w.foreigner("GammaMSP")
	m, _ = f.next(func(m *gossippb.GossipMessage) bool { return m.GetHello() != nil })
	nonce := m.GetHello().Nonce
	f.send(unsigned(t, &gossippb.GossipMessage{Content: &gossippb.GossipMessage_DataDig{DataDig: &gossippb.DataDigest{
		Nonce: nonce, MsgType: gossippb.PullMsgType_IDENTITY_MSG, Digests: [][]byte{g.pkiID, f.pkiID}}}}))
	if m, _ = f.next(func(m *gossippb.GossipMessage) bool { return m.GetDataReq() != nil }); m.GetDataReq().Nonce != nonce || len(m.GetDataReq().Digests) != 1 {
		t.Errorf("certificates wanted: %v", m)
	}
	f.send(unsigned(t, &gossippb.GossipMessage{Content: &gossippb.GossipMessage_DataUpdate{DataUpdate: &gossippb.DataUpdate{Nonce: nonce, MsgType: gossippb.PullMsgType_IDENTITY_MSG,
		Data: []*gossippb.Envelope{unsigned(t, &gossippb.GossipMessage{Content: &gossippb.GossipMessage_PeerIdentity{
			PeerIdentity: &gossippb.PeerIdentity{PkiId: g.pkiID, Cert: g.signer.Serialize()}}})}}}}))
	f.send(g.seal(g.alive("gamma.example.com:7051")), unsigned(t, &gossippb.GossipMessage{Content: &gossippb.GossipMessage_StateSnapshot{
		StateSnapshot: &gossippb.StateInfoSnapshot{Elements: []*gossippb.Envelope{g.seal(g.state(5))}}}}))
	await(t, "alpha knows gamma's peer", func() bool { return a.heard("gamma.example.com:7051") != nil })
}

// What is not signed by the peer it is about, or is not new, changes nothing.
func TestForgedRumours(t *testing.T) {
	w := newWorld(t)
	a, f, liar := w.peer("AlphaMSP"), w.foreigner("BetaMSP"), w.foreigner("GammaMSP")
	f.connect(a, f.cert)
	f.send(f.seal(greeting(f.greeting())), f.seal(f.alive("beta.example.com:7051")))
	f.count += 10
	f.send(f.seal(f.state(70)))
	await(t, "alpha knows beta's peer", func() bool { return a.heard("beta.example.com:7051") != nil })
	liar.connect(a, liar.cert)
	f.count = 2
	old := f.seal(f.state(60))
	f.count = 20
	forgedAlive, forgedState, elsewhere := f.alive("evil.example.com:1"), f.state(1000), f.state(2000)
	elsewhere.GetStateInfo().Channel_MAC = discovery.ChannelMAC(f.pkiID, "elsewhere")
	liar.send(liar.seal(greeting(liar.greeting())), old, liar.seal(forgedAlive), liar.seal(forgedState), f.seal(elsewhere), unsigned(t, forgedAlive),
		&gossippb.Envelope{}, liar.seal(liar.alive("gamma.example.com:7051")), liar.seal(liar.state(3)))
	await(t, "the liar's own word", func() bool { return a.heard("gamma.example.com:7051") != nil })
	if m := a.heard("beta.example.com:7051"); m == nil || m.Height != 70 || a.heard("evil.example.com:1") != nil {
		t.Errorf("beta's peer became %+v", m)
	}
}

// Private data goes both ways over a link.
func TestPrivateData(t *testing.T) {
	w := newWorld(t)
	a, f := w.peer("AlphaMSP"), w.foreigner("BetaMSP")
	f.connect(a, f.cert)
	f.send(f.seal(greeting(f.greeting())), f.seal(f.alive("beta.example.com:7051")), f.seal(f.state(70)))
	await(t, "alpha knows beta's peer", func() bool { return a.heard("beta.example.com:7051") != nil })
	if m := a.heard("beta.example.com:7051"); !m.Foreign {
		t.Error("beta's peer is taken for one of Hansa")
	}
	message := func(nonce uint64, content *gossippb.GossipMessage) *gossippb.Envelope {
		content.Tag, content.Channel, content.Nonce = gossippb.GossipMessage_CHAN_ONLY, []byte(w.id), nonce
		return unsigned(t, content)
	}
	brought := &gossippb.PrivatePayload{CollectionName: "secrets", Namespace: "asset", TxId: "t1", PrivateRwset: []byte("set")}
	for nonce, test := range map[uint64]struct {
		payload *gossippb.PrivatePayload
		refused string
	}{11: {brought, ""}, 12: {nil, "no such collection"}} {
		f.send(message(nonce, &gossippb.GossipMessage{Content: &gossippb.GossipMessage_PrivateData{PrivateData: &gossippb.PrivateDataMessage{Payload: test.payload}}}))
		if m, _ := f.next(func(m *gossippb.GossipMessage) bool { return m.GetAck() != nil }); m.Nonce != nonce || m.GetAck().Error != test.refused {
			t.Errorf("acknowledgement %v of %d, want %q", m, nonce, test.refused)
		}
	}
	digest := &gossippb.PvtDataDigest{TxId: "t1", Namespace: "asset", Collection: "secrets", BlockSeq: 7}
	f.send(message(13, &gossippb.GossipMessage{Content: &gossippb.GossipMessage_PrivateReq{PrivateReq: &gossippb.RemotePvtDataRequest{Digests: []*gossippb.PvtDataDigest{digest}}}}))
	m, _ := f.next(func(m *gossippb.GossipMessage) bool { return m.GetPrivateRes() != nil })
	if e := m.GetPrivateRes().Elements; m.Nonce != 13 || string(m.Channel) != w.id || len(e) != 1 || !proto.Equal(e[0].Digest, digest) ||
		string(e[0].Payload[0]) != "set" || string(e[0].Payload[1]) != w.id || !bytes.Equal(e[0].Payload[2], f.signer.Serialize()) {
		t.Errorf("answer %v", m)
	}

	link, ok := a.service.Link("BetaMSP", "beta.example.com:7051")
	if !ok {
		t.Fatal("there is no link")
	}
	var asking sync.WaitGroup
	asking.Go(func() {
		if err := link.Push(t.Context(), w.id, brought); err != nil {
			t.Error(err)
		}
		if err := link.Push(t.Context(), w.id, brought); err == nil || !strings.Contains(err.Error(), "the disk is full") {
			t.Errorf("%v, want what the peer says", err)
		}
		elements, err := link.Pull(t.Context(), w.id, []*gossippb.PvtDataDigest{digest})
		if err != nil || len(elements) != 1 || string(elements[0].Payload[0]) != "theirs" {
			t.Errorf("pulled %v, %v", elements, err)
		}
	})
	for _, refusal := range []string{"", "the disk is full"} {
		m, _ = f.next(func(m *gossippb.GossipMessage) bool { return m.GetPrivateData() != nil })
		if !proto.Equal(m.GetPrivateData().Payload, brought) || string(m.Channel) != w.id || m.Tag != gossippb.GossipMessage_CHAN_ONLY {
			t.Errorf("brought %v", m)
		}
		f.send(unsigned(t, &gossippb.GossipMessage{Nonce: m.Nonce, Content: &gossippb.GossipMessage_Ack{Ack: &gossippb.Acknowledgement{Error: refusal}}}))
	}
	m, _ = f.next(func(m *gossippb.GossipMessage) bool { return m.GetPrivateReq() != nil })
	answer := func(nonce uint64) *gossippb.Envelope {
		return message(nonce, &gossippb.GossipMessage{Content: &gossippb.GossipMessage_PrivateRes{PrivateRes: &gossippb.RemotePvtDataResponse{
			Elements: []*gossippb.PvtDataElement{{Digest: digest, Payload: [][]byte{[]byte("theirs")}}}}}})
	}
	f.send(answer(m.Nonce+1), answer(m.Nonce)) // what nobody asked for is passed over
	asking.Wait()

	// An answer that does not come is not waited for longer than is wanted, nor beyond the link's end.
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := link.Pull(short, w.id, nil); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("%v, want that the time is over", err)
	}
	must(t, f.stream.CloseSend())
	if _, err := link.Pull(t.Context(), w.id, nil); status.Code(err) != codes.Unavailable {
		t.Errorf("%v, want that the link has ended", err)
	}
}

// Who claims the address of another member's peer does not get what is meant for that one.
func TestClaimedAddress(t *testing.T) {
	w := newWorld(t)
	a, liar := w.peer("AlphaMSP"), w.foreigner("GammaMSP")
	liar.connect(a, liar.cert)
	liar.send(liar.seal(greeting(liar.greeting())), liar.seal(liar.alive("beta.example.com:7051")), liar.seal(liar.state(3)))
	await(t, "alpha has heard the liar", func() bool {
		_, ok := a.service.Link("GammaMSP", "beta.example.com:7051")
		return ok
	})
	if _, ok := a.service.Link("BetaMSP", "beta.example.com:7051"); ok {
		t.Error("a peer of gamma is taken for one of beta")
	}
}

// A peer of ours finds an anchor peer that nobody told it to be of Hansa, and both learn of each other.
func TestAnchorPeerIsDialled(t *testing.T) {
	w := newWorld(t)
	a, b := w.peer("AlphaMSP"), w.peer("BetaMSP")
	w.configure(b)
	await(t, "both know each other", func() bool { return a.heard(b.address) != nil && b.heard(a.address) != nil })
	if left := a.directory.Strangers(w.id); len(left) != 0 {
		t.Errorf("%v are taken for strangers", left)
	}
}

// A newer link of the same peer takes the place of the older one.
func TestSecondLink(t *testing.T) {
	w := newWorld(t)
	a, f := w.peer("AlphaMSP"), w.foreigner("BetaMSP")
	f.connect(a, f.cert)
	f.send(f.seal(greeting(f.greeting())))
	f.next(func(m *gossippb.GossipMessage) bool { return m.GetAliveMsg() != nil })
	first := f.stream
	f.connect(a, f.cert)
	f.send(f.seal(greeting(f.greeting())))
	f.next(func(m *gossippb.GossipMessage) bool { return m.GetAliveMsg() != nil })
	var err error
	for err == nil {
		_, err = first.Recv()
	}
	if status.Code(err) != codes.Aborted {
		t.Errorf("the first link ended with %v", err)
	}
}

func TestRefusedGreetings(t *testing.T) {
	w := newWorld(t)
	a := w.peer("AlphaMSP")
	stranger := &foreigner{w: w, signer: identitytest.NewOrg(t, "BetaMSP").Signer(t, "peer"), cert: certificate(t)}
	stranger.pkiID, _ = discovery.PKIID(stranger.signer.Serialize())
	f, g := w.foreigner("BetaMSP"), w.foreigner("GammaMSP")
	user := &foreigner{w: w, signer: w.orgs["BetaMSP"].Signer(t, "client"), cert: certificate(t)}
	user.pkiID, _ = discovery.PKIID(user.signer.Serialize())
	other := f.greeting()
	other.PkiId = g.pkiID
	wrongHash := f.greeting()
	wrongHash.TlsCertHash = hash(g.cert)
	probe := f.greeting()
	probe.Probe = true
	for name, test := range map[string]struct {
		by    *foreigner
		first *gossippb.Envelope
		certs []tls.Certificate
		want  string // "" for a link that ends well
	}{
		"stranger":          {stranger, stranger.seal(greeting(stranger.greeting())), []tls.Certificate{stranger.cert}, "MSP"},
		"no peer":           {user, user.seal(greeting(user.greeting())), []tls.Certificate{user.cert}, "is not a [PEER]"},
		"another's id":      {f, f.seal(greeting(other)), []tls.Certificate{f.cert}, "PKI-ID is of another identity"},
		"another's hand":    {f, g.seal(greeting(f.greeting())), []tls.Certificate{f.cert}, "signature is invalid"},
		"another's TLS":     {f, f.seal(greeting(wrongHash)), []tls.Certificate{f.cert}, "another TLS certificate"},
		"no TLS":            {f, f.seal(greeting(f.greeting())), nil, "no TLS certificate"},
		"no greeting":       {f, f.seal(f.alive("x:1")), []tls.Certificate{f.cert}, "says who it is"},
		"nothing":           {f, &gossippb.Envelope{}, []tls.Certificate{f.cert}, "says who it is"},
		"not a message":     {f, &gossippb.Envelope{Payload: []byte("no")}, []tls.Certificate{f.cert}, "decode message"},
		"a probe ends well": {f, f.seal(greeting(probe)), []tls.Certificate{f.cert}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			test.by.connect(a, test.certs...)
			test.by.send(test.first)
			var err error
			for err == nil {
				var e *gossippb.Envelope
				if e, err = test.by.stream.Recv(); err == nil && !strings.Contains(string(e.Payload), "AlphaMSP") {
					t.Error("more than a greeting was answered")
				}
			}
			if test.want == "" {
				if status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), "EOF") {
					t.Errorf("ended with %v", err)
				}
			} else if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
	if _, err := gossippb.NewGossipClient(connect(t, a.address)).Ping(t.Context(), &gossippb.Empty{}); err != nil {
		t.Error(err)
	}
	if _, err := gossip.New(gossip.Config{}); err == nil {
		t.Errorf("%v, want what is required", err)
	}
}

// Those that never say who they are take a bounded number of places.
func TestSilentStrangers(t *testing.T) {
	w := newWorld(t)
	a := w.peer("AlphaMSP")
	conn := connect(t, a.address)
	for {
		stream, err := gossippb.NewGossipClient(conn).GossipStream(t.Context())
		must(t, err)
		if _, err := stream.Recv(); err == nil {
			continue // a's greeting, which the stranger does not answer
		} else if status.Code(err) != codes.ResourceExhausted {
			t.Fatal(err)
		}
		return
	}
}

// Whatever a linked peer says, nothing breaks.
func FuzzMessage(f *testing.F) {
	w := newWorld(f)
	a, b := w.peer("AlphaMSP"), w.foreigner("BetaMSP")
	for _, m := range []*gossippb.GossipMessage{b.alive("b:1"), b.state(4), greeting(b.greeting()),
		{Content: &gossippb.GossipMessage_MemRes{MemRes: &gossippb.MembershipResponse{Alive: []*gossippb.Envelope{b.seal(b.alive("b:2"))}}}},
		{Content: &gossippb.GossipMessage_MemReq{}}, {Content: &gossippb.GossipMessage_StateSnapshot{}},
		{Content: &gossippb.GossipMessage_DataUpdate{DataUpdate: &gossippb.DataUpdate{MsgType: gossippb.PullMsgType_IDENTITY_MSG, Data: []*gossippb.Envelope{nil}}}}} {
		e := b.seal(m)
		f.Add(e.Payload, e.Signature)
	}
	f.Fuzz(func(_ *testing.T, payload, signature []byte) {
		_ = a.service.Handle("BetaMSP", b.pkiID, &gossippb.Envelope{Payload: payload, Signature: signature})
	})
}
