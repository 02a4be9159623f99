// Package cluster connects the consenters of etcdraft channels: consensus messages both ways, and envelopes forwarded to a
// leader. It speaks Hyperledger Fabric's orderer.Cluster/Step.
//
// A Cluster belongs to a process. Its channels share one connection to each other node, and each has its own streams, so
// that a channel which is slow holds back no other. Both ends of a connection are pinned: a node is known by the public
// key of the TLS certificate that the channel's config names for it, whatever authority signed it and whatever dates it
// has, and only what it says about itself in a channel that it is a consenter of is heard.
//
// Guaranteed: Send and Forward never block. A queue that is full drops consensus messages, which raft repeats, and refuses
// envelopes. What is forwarded is answered once: by the other node, or by an error that leaves open whether it was taken.
// The other way, a channel that is behind holds back the streams that feed it.
//
// Left out: Fabric's ClusterNodeService, which only its BFT orderers speak.
//
// Open cluster.go first (who may speak, and what is received), then peer.go (what is sent).
package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// Config of a Cluster.
type Config struct {
	// Certificate is this node's TLS client certificate with its key.
	Certificate tls.Certificate
	// QueueMessages and QueueBytes bound what waits for one member in one channel. Defaults 4096 and 64 MiB.
	QueueMessages int
	QueueBytes    int64
	Log           *slog.Logger
}

// Member is another consenter of a channel. The keys are those of its TLS certificates (SubjectPublicKeyInfo).
type Member struct {
	ID        uint64
	Address   string // host:port
	ServerKey []byte
	ClientKey []byte
	// FormerServerKey and FormerClientKey are accepted as well, while a certificate is being changed.
	FormerServerKey []byte
	FormerClientKey []byte
}

func (m *Member) same(o *Member) bool {
	return m.Address == o.Address && bytes.Equal(m.ServerKey, o.ServerKey) && bytes.Equal(m.FormerServerKey, o.FormerServerKey)
}

// name tells connections apart that are not to be shared.
func (m *Member) name() string {
	return m.Address + "\x00" + string(m.ServerKey) + "\x00" + string(m.FormerServerKey)
}

// Receiver is a channel's end.
type Receiver interface {
	// Consensus takes a message that is of the member which it says it is of. It waits while the channel is behind. An
	// error ends the stream.
	Consensus(ctx context.Context, m *raftpb.Message) error
	// Submit takes an envelope that a member has checked under the config of that sequence. The channel that is returned
	// has room for the one answer, which comes when the envelope is durably in the chain or refused.
	Submit(env *commonpb.Envelope, sequence uint64) <-chan *ordererpb.SubmitResponse
	// Unreachable and SnapshotSent report on what was sent. They must not block.
	Unreachable(id uint64)
	SnapshotSent(id uint64, ok bool)
}

// Cluster holds the connections of a process.
type Cluster struct {
	cfg    Config
	closed chan struct{}
	sent   *prometheus.CounterVec // bytes
	count  *prometheus.CounterVec // messages

	mu       sync.RWMutex // guards what follows
	channels map[string]*Channel
	conns    map[string]*connection
}

// connection is shared by the channels in which a node is a member.
type connection struct {
	*grpc.ClientConn
	uses int
}

// Channel is one channel's part of a Cluster.
type Channel struct {
	id       string
	cluster  *Cluster
	receiver Receiver

	// Guarded by cluster.mu.
	self  uint64
	byKey map[string]uint64
	peers map[uint64]*remote
}

// New returns a Cluster without channels.
func New(cfg Config) *Cluster {
	if cfg.QueueMessages == 0 {
		cfg.QueueMessages = 4096
	}
	if cfg.QueueBytes == 0 {
		cfg.QueueBytes = 64 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	labels := []string{"channel", "to", "kind"}
	return &Cluster{cfg: cfg, closed: make(chan struct{}), channels: map[string]*Channel{}, conns: map[string]*connection{},
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_cluster_sent_bytes_total", Help: "Bytes of messages sent to another consenter, by its address."}, labels),
		count: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_cluster_sent_messages_total", Help: "Messages sent to another consenter: of consensus, and envelopes for the leader."}, labels)}
}

// Collectors are the metrics of all links.
func (c *Cluster) Collectors() []prometheus.Collector { return []prometheus.Collector{c.sent, c.count} }

// link counts what is sent to one member in one channel.
type link struct{ bytes, messages prometheus.Counter }

func (ch *Channel) link(m Member, kind string) link {
	return link{ch.cluster.sent.WithLabelValues(ch.id, m.Address, kind), ch.cluster.count.WithLabelValues(ch.id, m.Address, kind)}
}

func (l link) add(n int) {
	l.bytes.Add(float64(n))
	l.messages.Inc()
}

// Open makes a channel known. Nobody may speak in it before Configure.
func (c *Cluster) Open(channelID string, r Receiver) *Channel {
	ch := &Channel{id: channelID, cluster: c, receiver: r, peers: map[uint64]*remote{}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.channels[channelID] = ch
	return ch
}

// Knows says whether a TLS public key is pinned by any channel: such a client needs no other proof of who it is.
func (c *Cluster) Knows(key []byte) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, ch := range c.channels {
		if _, ok := ch.byKey[string(key)]; ok {
			return true
		}
	}
	return false
}

// Close ends all streams.
func (c *Cluster) Close() {
	c.mu.Lock()
	var all []*Channel
	for _, ch := range c.channels {
		all = append(all, ch)
	}
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	c.mu.Unlock()
	for _, ch := range all {
		ch.Close()
	}
}

// Configure says who this node is and who the other members are. Streams to members that stay the same go on.
func (ch *Channel) Configure(self uint64, members []Member) {
	c := ch.cluster
	c.mu.Lock()
	var gone []*remote
	ch.self, ch.byKey = self, map[string]uint64{}
	wanted := map[uint64]Member{}
	for _, m := range members {
		if m.ID != self {
			wanted[m.ID] = m
			if len(m.FormerClientKey) > 0 {
				ch.byKey[string(m.FormerClientKey)] = m.ID
			}
		}
	}
	for id, m := range wanted { // who has a key now goes before who had it
		ch.byKey[string(m.ClientKey)] = id
	}
	for id, r := range ch.peers {
		if m, ok := wanted[id]; !ok || !m.same(&r.member) {
			delete(ch.peers, id)
			gone = append(gone, r)
		}
	}
	for id, m := range wanted {
		if ch.peers[id] != nil {
			continue
		}
		conn, err := c.connect(m)
		if err != nil {
			c.cfg.Log.Error("no connection to consenter", "channel", ch.id, "consenter", id, "address", m.Address, "error", err)
			continue
		}
		ch.peers[id] = startRemote(ch, m, conn)
	}
	c.mu.Unlock()
	for _, r := range gone {
		r.stop()
		c.disconnect(r.member)
	}
}

// Close forgets the channel and waits until its streams have ended. What is forwarded and not answered fails.
func (ch *Channel) Close() {
	ch.Configure(0, nil)
	c := ch.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.channels[ch.id] == ch {
		delete(c.channels, ch.id)
	}
}

// Send queues messages for their members.
func (ch *Channel) Send(messages []*raftpb.Message) {
	for _, m := range messages {
		if r := ch.peer(m.GetTo()); r == nil || !r.send(m) {
			ch.lost(m)
		}
	}
}

// lost tells raft of a message that will not arrive.
func (ch *Channel) lost(m *raftpb.Message) {
	if m.GetType() == raftpb.MsgSnap {
		ch.receiver.SnapshotSent(m.GetTo(), false)
	}
	ch.receiver.Unreachable(m.GetTo())
}

// ErrNotSent says that an envelope did not leave this node.
var ErrNotSent = errors.New("the leader cannot be reached")

// Forward queues an envelope for a member; done is called once, with the member's answer or with an error.
func (ch *Channel) Forward(to uint64, env *commonpb.Envelope, sequence uint64, done func(*ordererpb.SubmitResponse, error)) {
	if r := ch.peer(to); r == nil || !r.forward(&forwarded{env, sequence, done}) {
		done(nil, ErrNotSent)
	}
}

func (ch *Channel) peer(id uint64) *remote {
	ch.cluster.mu.RLock()
	defer ch.cluster.mu.RUnlock()
	return ch.peers[id]
}

// connect returns the connection to a member. The caller holds mu.
func (c *Cluster) connect(m Member) (*grpc.ClientConn, error) {
	name := m.name()
	if known := c.conns[name]; known != nil {
		known.uses++
		return known.ClientConn, nil
	}
	host, _, err := net.SplitHostPort(m.Address)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+m.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{c.cfg.Certificate}, ServerName: host, MinVersion: tls.VersionTLS12,
			// The pinned key replaces the chain of authorities: it is what the channel's members agreed on.
			InsecureSkipVerify: true,
			VerifyConnection: func(s tls.ConnectionState) error {
				key := s.PeerCertificates[0].RawSubjectPublicKeyInfo // a TLS server has one
				if !bytes.Equal(key, m.ServerKey) && (len(m.FormerServerKey) == 0 || !bytes.Equal(key, m.FormerServerKey)) {
					return errors.New("the node at " + m.Address + " shows another TLS certificate than the channel's config names")
				}
				return nil
			},
		})),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second,
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}}),
		// The timeout also bounds how long sent bytes may stay unacknowledged: a dead link is noticed while it is in use.
		// Fabric's servers hang up on pings more frequent than one a minute.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 3 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, err
	}
	c.conns[name] = &connection{conn, 1}
	return conn, nil
}

const maxMessage = 100 << 20 // Fabric's

func (c *Cluster) disconnect(m Member) {
	name := m.name()
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.conns[name]
	if known.uses--; known.uses == 0 {
		delete(c.conns, name)
		known.Close()
	}
}

// sender finds out who sends a message in a channel.
func (c *Cluster) sender(channelID string, key []byte) (ch *Channel, from, self uint64, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ch = c.channels[channelID]
	if ch == nil {
		return nil, 0, 0, status.Errorf(codes.NotFound, "channel %s doesn't exist", channelID)
	}
	from, ok := ch.byKey[string(key)]
	if !ok {
		return nil, 0, 0, status.Error(codes.PermissionDenied, "certificate extracted from TLS connection isn't authorized")
	}
	return ch, from, ch.self, nil
}

// Step serves orderer.Cluster/Step.
func (c *Cluster) Step(stream grpc.BidiStreamingServer[ordererpb.StepRequest, ordererpb.StepResponse]) error {
	key := clientKey(stream.Context())
	if key == nil {
		return status.Error(codes.Unauthenticated, "no TLS certificate sent")
	}
	answers := make(chan (<-chan *ordererpb.SubmitResponse), 1024)
	received := make(chan error, 1)
	// This goroutine ends with the stream: Recv returns when the handler has returned.
	go func() { received <- c.receive(stream, key, answers) }()
	for {
		select {
		case answer := <-answers:
			select {
			case r := <-answer:
				if err := stream.Send(&ordererpb.StepResponse{Payload: &ordererpb.StepResponse_SubmitRes{SubmitRes: r}}); err != nil {
					return err
				}
			case <-stream.Context().Done():
				return stream.Context().Err()
			case <-c.closed:
				return status.Error(codes.Unavailable, "the orderer stops")
			}
		case err := <-received:
			return err
		case <-c.closed:
			return status.Error(codes.Unavailable, "the orderer stops")
		}
	}
}

func (c *Cluster) receive(stream grpc.BidiStreamingServer[ordererpb.StepRequest, ordererpb.StepResponse], key []byte, answers chan<- (<-chan *ordererpb.SubmitResponse)) error {
	ctx := stream.Context()
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case request.GetConsensusRequest() != nil:
			r := request.GetConsensusRequest()
			ch, from, self, err := c.sender(r.Channel, key)
			if err != nil {
				return err
			}
			m := &raftpb.Message{}
			if err := proto.Unmarshal(r.Payload, m); err != nil {
				return status.Errorf(codes.InvalidArgument, "failed to unmarshal StepRequest payload to Raft Message: %v", err)
			}
			if m.GetFrom() != from || m.GetTo() != self {
				return status.Errorf(codes.InvalidArgument, "message from consenter %d to %d, but the connection is from %d to %d", m.GetFrom(), m.GetTo(), from, self)
			}
			if err := ch.receiver.Consensus(ctx, m); err != nil {
				return status.Error(codes.Unavailable, err.Error())
			}
		case request.GetSubmitRequest() != nil:
			r := request.GetSubmitRequest()
			ch, _, _, err := c.sender(r.Channel, key)
			if err != nil {
				return err
			}
			if r.Payload == nil {
				return status.Error(codes.InvalidArgument, "submit request without an envelope")
			}
			select {
			case answers <- ch.receiver.Submit(r.Payload, r.LastValidationSeq):
			case <-ctx.Done():
				return ctx.Err()
			}
		default:
			return status.Error(codes.InvalidArgument, "message is neither a Submit nor a Consensus request")
		}
	}
}

// clientKey is the public key that the client of a call has proven to hold.
func clientKey(ctx context.Context) []byte {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil
	}
	return info.State.PeerCertificates[0].RawSubjectPublicKeyInfo
}
