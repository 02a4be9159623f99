package cluster_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/order/cluster"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// end is a channel's end that records what arrives.
type end struct {
	messages    chan *raftpb.Message
	unreachable chan uint64
	snapshots   chan bool
	answer      chan *ordererpb.SubmitResponse
}

func newEnd() *end {
	return &end{make(chan *raftpb.Message, 100), make(chan uint64, 1000), make(chan bool, 100), make(chan *ordererpb.SubmitResponse, 1)}
}

func (e *end) Consensus(_ context.Context, m *raftpb.Message) error {
	e.messages <- m
	return nil
}
func (e *end) Submit(*commonpb.Envelope, uint64) <-chan *ordererpb.SubmitResponse { return e.answer }
func (e *end) Unreachable(id uint64)                                              { e.unreachable <- id }
func (e *end) SnapshotSent(_ uint64, ok bool)                                     { e.snapshots <- ok }

type server struct {
	ordererpb.UnimplementedClusterServer
	c *cluster.Cluster
}

func (s server) Step(stream grpc.BidiStreamingServer[ordererpb.StepRequest, ordererpb.StepResponse]) error {
	return s.c.Step(stream)
}

type node struct {
	*cluster.Cluster
	leaf   *identitytest.Leaf
	cert   tls.Certificate
	member cluster.Member
}

func newNode(t *testing.T, id uint64) *node {
	t.Helper()
	// Authorities of their own: only the keys count.
	leaf := identitytest.NewCA(t, "tlsca").Issue(t, "node", nil, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	})
	n := &node{leaf: leaf, cert: tls.Certificate{Certificate: [][]byte{leaf.Cert.Raw}, PrivateKey: leaf.Key}}
	n.Cluster = cluster.New(cluster.Config{Certificate: n.cert})
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{n.cert}, ClientAuth: tls.RequestClientCert})))
	ordererpb.RegisterClusterServer(s, server{c: n.Cluster})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(s.Stop)
	t.Cleanup(n.Close)
	key := leaf.Cert.RawSubjectPublicKeyInfo
	n.member = cluster.Member{ID: id, Address: l.Addr().String(), ServerKey: key, ClientKey: key}
	return n
}

func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing arrived")
	}
	return v
}

func message(kind raftpb.MessageType, from, to uint64) *raftpb.Message {
	return &raftpb.Message{Type: kind.Enum(), From: new(from), To: new(to)}
}

func TestSendAndForward(t *testing.T) {
	a, b := newNode(t, 1), newNode(t, 2)
	members := []cluster.Member{a.member, b.member}
	atA, atB := newEnd(), newEnd()
	ch := a.Open("trade", atA)
	ch.Configure(1, members)
	b.Open("trade", atB).Configure(2, members)

	ch.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 1, 2), message(raftpb.MsgSnap, 1, 2)})
	if m := receive(t, atB.messages); m.GetType() != raftpb.MsgHeartbeat {
		t.Errorf("a %v arrived", m.GetType())
	}
	if !receive(t, atA.snapshots) {
		t.Error("the snapshot that was sent is said to be lost")
	}
	answers := make(chan *ordererpb.SubmitResponse, 1)
	forward := func() {
		ch.Forward(2, &commonpb.Envelope{Payload: []byte("x")}, 3, func(r *ordererpb.SubmitResponse, err error) { answers <- r })
	}
	forward()
	atB.answer <- &ordererpb.SubmitResponse{Info: "taken"}
	if r := receive(t, answers); r.GetInfo() != "taken" {
		t.Errorf("answer %v", r)
	}
	// What is not answered fails when the connection ends, and what comes after it too.
	forward()
	b.Close()
	if r := receive(t, answers); r != nil {
		t.Errorf("answer %v of a closed node", r)
	}
	if id := receive(t, atA.unreachable); id != 2 {
		t.Errorf("member %d is unreachable", id)
	}
	ch.Close()
	forward()
	if r := receive(t, answers); r != nil {
		t.Errorf("answer %v in a closed channel", r)
	}
}

// Only a channel's consenters are heard in it, each for itself alone; and only they are talked to.
func TestPinnedKeys(t *testing.T) {
	a, b, stranger := newNode(t, 1), newNode(t, 2), newNode(t, 3)
	atB := newEnd()
	members := []cluster.Member{a.member, b.member}
	b.Open("trade", atB).Configure(2, members)
	if !b.Knows(a.member.ClientKey) || b.Knows(stranger.member.ClientKey) {
		t.Error("the wrong keys are known")
	}
	step := func(n *node, channelID string, m *raftpb.Message) codes.Code {
		t.Helper()
		conf := &tls.Config{InsecureSkipVerify: true}
		if n != nil {
			conf.Certificates = []tls.Certificate{n.cert}
		}
		conn, err := grpc.NewClient(b.member.Address, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		stream, err := ordererpb.NewClusterClient(conn).Step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		payload, _ := proto.Marshal(m)
		stream.Send(&ordererpb.StepRequest{Payload: &ordererpb.StepRequest_ConsensusRequest{ConsensusRequest: &ordererpb.ConsensusRequest{Channel: channelID, Payload: payload}}})
		stream.CloseSend()
		_, err = stream.Recv()
		return status.Code(err)
	}
	for name, tt := range map[string]struct {
		got, want codes.Code
	}{
		"no certificate":  {step(nil, "trade", message(raftpb.MsgHeartbeat, 1, 2)), codes.Unauthenticated},
		"a stranger":      {step(stranger, "trade", message(raftpb.MsgHeartbeat, 1, 2)), codes.PermissionDenied},
		"another's name":  {step(a, "trade", message(raftpb.MsgHeartbeat, 3, 2)), codes.InvalidArgument},
		"another target":  {step(a, "trade", message(raftpb.MsgHeartbeat, 1, 3)), codes.InvalidArgument},
		"another channel": {step(a, "other", message(raftpb.MsgHeartbeat, 1, 2)), codes.NotFound},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v, want %v", name, tt.got, tt.want)
		}
	}
	if len(atB.messages) > 0 {
		t.Errorf("%v was taken", <-atB.messages)
	}

	// A node that took the address of a consenter is not talked to.
	atA := newEnd()
	ch := a.Open("trade", atA)
	ch.Configure(1, []cluster.Member{a.member, {ID: 4, Address: stranger.member.Address, ServerKey: b.member.ServerKey, ClientKey: b.member.ClientKey}})
	ch.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 1, 4)})
	if id := receive(t, atA.unreachable); id != 4 {
		t.Errorf("member %d is unreachable", id)
	}
}

// While a member's certificate is being changed the one that it had counts too, in both directions, and no longer than that.
func TestFormerKeys(t *testing.T) {
	a, b, next := newNode(t, 1), newNode(t, 2), newNode(t, 1)
	atA, atB := newEnd(), newEnd()
	toB, toA := a.Open("trade", atA), b.Open("trade", atB)
	toB.Configure(1, []cluster.Member{a.member, b.member})
	changed := a.member
	changed.ServerKey, changed.ClientKey = next.member.ServerKey, next.member.ClientKey
	changed.FormerServerKey, changed.FormerClientKey = a.member.ServerKey, a.member.ClientKey
	toA.Configure(2, []cluster.Member{changed, b.member})
	if !b.Knows(a.member.ClientKey) || !b.Knows(next.member.ClientKey) {
		t.Error("one of the keys is not known")
	}
	toB.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 1, 2)})
	toA.Send([]*raftpb.Message{message(raftpb.MsgHeartbeatResp, 2, 1)})
	receive(t, atB.messages)
	receive(t, atA.messages)

	changed.FormerServerKey, changed.FormerClientKey = nil, nil
	toA.Configure(2, []cluster.Member{changed, b.member})
	for len(atA.unreachable) > 0 {
		<-atA.unreachable
	}
	for len(atB.unreachable) > 0 {
		<-atB.unreachable
	}
	toB.Send([]*raftpb.Message{message(raftpb.MsgHeartbeat, 1, 2)}) // over the stream that is open
	toA.Send([]*raftpb.Message{message(raftpb.MsgHeartbeatResp, 2, 1)})
	if id := receive(t, atA.unreachable); id != 2 {
		t.Errorf("member %d is unreachable", id)
	}
	if id := receive(t, atB.unreachable); id != 1 {
		t.Errorf("member %d is unreachable", id)
	}
	if len(atA.messages)+len(atB.messages) > 0 {
		t.Error("a message came with the certificate of before")
	}
}
