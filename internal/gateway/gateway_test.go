package gateway_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/gateway"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// world is a gateway of Org1 with everything around it made up.
type world struct {
	t        testing.TB
	config   gateway.Config
	channel  *ledgerChannel
	peers    map[string][]gateway.Peer
	orderers []gateway.Orderer

	mu    sync.Mutex
	calls []string // addresses of the peers that were asked
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, channel: &ledgerChannel{bundle: bundle(t, nil), changed: make(chan struct{}), reading: make(chan uint64, 1000)}, peers: map[string][]gateway.Peer{}}
	w.config = gateway.Config{
		MSPID: "Org1MSP", Address: "own:1", Log: slog.New(slog.DiscardHandler), Access: w, Peers: w, Orderers: w,
		Channels: func(id string) (gateway.Channel, bool) { return w.channel, id == "mychannel" },
	}
	return w
}

// bundle is the golden ledger's first configuration, edited.
func bundle(t testing.TB, edit func(*commonpb.Config)) *channel.Bundle {
	t.Helper()
	raw, err := os.ReadFile("../../testdata/vectors/genesis.block")
	must(t, err)
	b := &commonpb.Block{}
	must(t, proto.Unmarshal(raw, b))
	first, err := channel.FromBlock(b, identity.NewVerifier(identity.Config{}))
	must(t, err)
	if edit == nil {
		return first
	}
	config := proto.Clone(first.Config()).(*commonpb.Config)
	edit(config)
	edited, err := channel.NewBundle(first.ID(), config, identity.NewVerifier(identity.Config{}))
	must(t, err)
	return edited
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) server() *gateway.Server {
	w.t.Helper()
	s, err := gateway.New(w.config)
	must(w.t, err)
	return s
}

// client serves the gateway over gRPC and connects to it.
func (w *world) client() gatewaypb.GatewayClient {
	w.t.Helper()
	s := grpc.NewServer()
	gatewaypb.RegisterGatewayServer(s, w.server())
	return gatewaypb.NewGatewayClient(dial(w.t, serve(w.t, s)))
}

func serve(t testing.TB, s *grpc.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

func dial(t testing.TB, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (w *world) Endorsers(channelID, chaincode string) map[string][]gateway.Peer { return w.peers }
func (w *world) Endpoints(channelID string) []gateway.Orderer                    { return slices.Clone(w.orderers) }
func (w *world) CheckSigned(channelID, resource string, data, identity, signature []byte) error {
	if string(signature) != "good" {
		return errors.New("access denied: " + resource)
	}
	return nil
}

// behaviour is how a made-up peer answers.
type behaviour func(ctx context.Context) (*peerpb.ProposalResponse, error)

// peer adds a peer of a member.
func (w *world) peer(mspID, address string, b behaviour) *gateway.Peer {
	p := gateway.Peer{MSPID: mspID, Address: address, Local: address == "own:1", Ready: true}
	p.Endorser = endorserFunc(func(ctx context.Context, _ *peerpb.SignedProposal) (*peerpb.ProposalResponse, error) {
		w.mu.Lock()
		w.calls = append(w.calls, address)
		w.mu.Unlock()
		r, err := b(ctx)
		if r != nil && r.Endorsement == nil && err == nil {
			r.Endorsement = &peerpb.Endorsement{Endorser: []byte(address), Signature: []byte("signature")}
		}
		return r, err
	})
	w.peers[mspID] = append(w.peers[mspID], p)
	return &w.peers[mspID][len(w.peers[mspID])-1]
}

func (w *world) asked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(slices.Values(w.calls))
}

type endorserFunc func(context.Context, *peerpb.SignedProposal) (*peerpb.ProposalResponse, error)

func (f endorserFunc) ProcessProposal(ctx context.Context, p *peerpb.SignedProposal) (*peerpb.ProposalResponse, error) {
	return f(ctx, p)
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	must(t, err)
	return raw
}

// answers endorses with a result; calls are the chaincodes that the transaction touched.
func answers(result string, calls ...*peerpb.ChaincodeCall) behaviour {
	return func(context.Context) (*peerpb.ProposalResponse, error) {
		action, _ := proto.Marshal(&peerpb.ChaincodeAction{Response: &peerpb.Response{Status: 200, Payload: []byte(result)}})
		payload, _ := proto.Marshal(&peerpb.ProposalResponsePayload{ProposalHash: []byte("hash"), Extension: action})
		r := &peerpb.ProposalResponse{Version: 1, Response: &peerpb.Response{Status: 200, Payload: []byte(result)}, Payload: payload}
		if len(calls) > 0 {
			r.Interest = &peerpb.ChaincodeInterest{Chaincodes: calls}
		}
		return r, nil
	}
}

// fails is a contract's own refusal.
func fails(code int32, message string) behaviour {
	return func(context.Context) (*peerpb.ProposalResponse, error) {
		return &peerpb.ProposalResponse{Response: &peerpb.Response{Status: code, Message: message}, Payload: []byte("payload")}, nil
	}
}

// breaks is a peer that could not run the contract.
func breaks(message string) behaviour {
	return func(context.Context) (*peerpb.ProposalResponse, error) {
		return &peerpb.ProposalResponse{Response: &peerpb.Response{Status: 500, Message: message}}, nil
	}
}

// unreachable is a peer to which there is no connection.
func unreachable(context.Context) (*peerpb.ProposalResponse, error) {
	return nil, status.Error(codes.Unavailable, "connection refused")
}

// hangs never answers.
func hangs(ctx context.Context) (*peerpb.ProposalResponse, error) {
	<-ctx.Done()
	return nil, status.FromContextError(ctx.Err()).Err()
}

// proposal is a client's proposal for chaincode "basic".
func proposal(t testing.TB, edits ...func(*peerpb.ChaincodeProposalPayload, *commonpb.ChannelHeader)) *peerpb.SignedProposal {
	t.Helper()
	header := &commonpb.ChannelHeader{ChannelId: "mychannel", TxId: "tx", Type: int32(commonpb.HeaderType_ENDORSER_TRANSACTION)}
	payload := &peerpb.ChaincodeProposalPayload{Input: marshal(t, &peerpb.ChaincodeInvocationSpec{ChaincodeSpec: &peerpb.ChaincodeSpec{
		ChaincodeId: &peerpb.ChaincodeID{Name: "basic"}, Input: &peerpb.ChaincodeInput{Args: [][]byte{[]byte("f")}}}})}
	for _, edit := range edits {
		edit(payload, header)
	}
	return &peerpb.SignedProposal{Signature: []byte("s"), ProposalBytes: marshal(t, &peerpb.Proposal{
		Header:  marshal(t, &commonpb.Header{ChannelHeader: marshal(t, header), SignatureHeader: marshal(t, &commonpb.SignatureHeader{Creator: []byte("c"), Nonce: []byte("n")})}),
		Payload: marshal(t, payload)})}
}

func transient(p *peerpb.ChaincodeProposalPayload, _ *commonpb.ChannelHeader) {
	p.TransientMap = map[string][]byte{"secret": []byte("s")}
}

// failure is an error as an SDK sees it.
type failure struct {
	Code    codes.Code
	Message string
	Details []string // "address msp message", sorted
}

func failed(t testing.TB, err error) failure {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	s := status.Convert(err)
	f := failure{Code: s.Code(), Message: s.Message()}
	for _, d := range s.Proto().Details {
		if d.TypeUrl != "type.googleapis.com/gateway.ErrorDetail" {
			t.Errorf("a detail has the type %s", d.TypeUrl)
		}
		e := &gatewaypb.ErrorDetail{}
		must(t, proto.Unmarshal(d.Value, e))
		f.Details = append(f.Details, e.Address+" "+e.MspId+" "+e.Message)
	}
	slices.Sort(f.Details)
	return f
}

func (f failure) want(t testing.TB, code codes.Code, message string, details ...string) {
	t.Helper()
	slices.Sort(details)
	if f.Code != code || f.Message != message || !slices.Equal(f.Details, details) {
		t.Errorf("got  %v %q %q\nwant %v %q %q", f.Code, f.Message, f.Details, code, message, details)
	}
}

// ledgerChannel is a channel whose blocks a test appends.
type ledgerChannel struct {
	bundle  *channel.Bundle
	layouts func(*peerpb.ChaincodeInterest) ([]discovery.Layout, error)

	mu      sync.Mutex
	blocks  []*commonpb.Block
	changed chan struct{} // closed with every block
	reading chan uint64   // gets the number of each block that a reader comes to wait for
}

func (c *ledgerChannel) Bundle() *channel.Bundle { return c.bundle }

func (c *ledgerChannel) Layouts(i *peerpb.ChaincodeInterest) ([]discovery.Layout, error) {
	return c.layouts(i)
}

// policies plans with one policy for each chaincode, and collections with members.
func policies(of map[string][]discovery.Layout) func(*peerpb.ChaincodeInterest) ([]discovery.Layout, error) {
	return func(i *peerpb.ChaincodeInterest) ([]discovery.Layout, error) {
		var names []string
		for _, c := range i.Chaincodes {
			name := c.Name
			if len(c.CollectionNames) > 0 {
				name += "." + strings.Join(c.CollectionNames, ".")
				if c.NoPrivateReads {
					name += " (written)"
				}
			}
			names = append(names, name)
		}
		l, ok := of[strings.Join(names, "+")]
		if !ok {
			return nil, discovery.ErrNoLayout
		}
		return l, nil
	}
}

func (c *ledgerChannel) append(txs ...*commonpb.Envelope) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := &commonpb.Block{Header: &commonpb.BlockHeader{Number: uint64(len(c.blocks))}, Data: &commonpb.BlockData{}, Metadata: &commonpb.BlockMetadata{Metadata: make([][]byte, 5)}}
	for _, tx := range txs {
		raw, _ := proto.Marshal(tx)
		b.Data.Data = append(b.Data.Data, raw)
		code := peerpb.TxValidationCode_VALID
		if len(tx.Signature) > 0 { // how a test marks an invalid one
			code = peerpb.TxValidationCode_MVCC_READ_CONFLICT
		}
		b.Metadata.Metadata[2] = append(b.Metadata.Metadata[2], byte(code))
	}
	c.blocks = append(c.blocks, b)
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *ledgerChannel) wait(ctx context.Context, found func() bool) error {
	for {
		c.mu.Lock()
		ok, changed := found(), c.changed
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *ledgerChannel) find(txID string) (code peerpb.TxValidationCode, number uint64, ok bool) {
	for n, b := range c.blocks {
		for i, raw := range b.Data.Data {
			if envelope.Parse(raw).ID() == txID {
				return peerpb.TxValidationCode(b.Metadata.Metadata[2][i]), uint64(n), true
			}
		}
	}
	return 0, 0, false
}

func (c *ledgerChannel) Status(ctx context.Context, txID string) (code peerpb.TxValidationCode, number uint64, err error) {
	err = c.wait(ctx, func() (ok bool) { code, number, ok = c.find(txID); return ok })
	return code, number, err
}

func (c *ledgerChannel) Height() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint64(len(c.blocks))
}

// awaitReader waits until somebody waits for block n.
func (c *ledgerChannel) awaitReader(t testing.TB, n uint64) {
	t.Helper()
	for {
		select {
		case at := <-c.reading:
			if at == n {
				return
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("nobody waits for block %d", n)
		}
	}
}

func (c *ledgerChannel) Block(ctx context.Context, n uint64) (b *commonpb.Block, err error) {
	for told := false; !told; {
		select {
		case c.reading <- n:
			told = true
		default: // nobody looks at them: the oldest makes room
			select {
			case <-c.reading:
			default:
			}
		}
	}
	err = c.wait(ctx, func() bool {
		if n < uint64(len(c.blocks)) {
			b = c.blocks[n]
		}
		return b != nil
	})
	return b, err
}

func (c *ledgerChannel) BlockOf(txID string) (uint64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, n, ok := c.find(txID)
	return n, ok
}

// orderer is a made-up orderer.
type orderer struct {
	address string
	answer  func(ctx context.Context) (commonpb.Status, string, error)
	last    atomic.Pointer[time.Time]
	calls   chan struct{} // holds one for each call
}

func newOrderer(address string, answer func(ctx context.Context) (commonpb.Status, string, error)) *orderer {
	return &orderer{address: address, answer: answer, calls: make(chan struct{}, 100)}
}

func (o *orderer) Address() string { return o.address }
func (o *orderer) MSPID() string   { return "OrdererMSP" }
func (o *orderer) Answered() time.Time {
	if at := o.last.Load(); at != nil {
		return *at
	}
	return time.Time{}
}
func (o *orderer) Broadcast(ctx context.Context, _ *commonpb.Envelope) (commonpb.Status, string, error) {
	o.calls <- struct{}{}
	return o.answer(ctx)
}

func says(code commonpb.Status, info string) func(context.Context) (commonpb.Status, string, error) {
	return func(context.Context) (commonpb.Status, string, error) { return code, info, nil }
}

func silent(ctx context.Context) (commonpb.Status, string, error) {
	<-ctx.Done()
	return 0, "", ctx.Err()
}
