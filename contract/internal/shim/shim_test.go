package shim_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/contract/internal/shim"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type message = peerpb.ChaincodeMessage

// peer is a peer that speaks the protocol by hand, badly if need be.
type peer struct {
	peerpb.Chaincode_ConnectClient
	t testing.TB
}

func connect(t testing.TB, handle shim.Handler) *peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	program := shim.Program{ID: "a:1", Handle: handle, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	go func() { ended <- program.Serve(ctx, l, nil) }()
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	st, err := peerpb.NewChaincodeClient(conn).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{st, t}
	var id peerpb.ChaincodeID
	if err := proto.Unmarshal(p.receive(peerpb.ChaincodeMessage_REGISTER).Payload, &id); err != nil || id.Name != "a:1" {
		t.Fatal(&id, err)
	}
	return p
}

func (p *peer) send(typ peerpb.ChaincodeMessage_Type, tx string, body proto.Message) {
	p.t.Helper()
	var payload []byte
	if body != nil {
		var err error
		if payload, err = proto.Marshal(body); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := p.Send(&message{Type: typ, Txid: tx, ChannelId: "c", Payload: payload}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) receive(want peerpb.ChaincodeMessage_Type) *message {
	p.t.Helper()
	m, err := p.Recv()
	if err != nil || m.Type != want {
		p.t.Fatalf("%v, %v; want %s", m, err, want)
	}
	return m
}

// ready is what a peer of Fabric 2 says, or with able a later one.
func (p *peer) ready(able *peerpb.ChaincodeAdditionalParams) {
	p.send(peerpb.ChaincodeMessage_REGISTERED, "", nil)
	p.send(peerpb.ChaincodeMessage_READY, "", able)
}

func writer(_ context.Context, c *shim.Call) *peerpb.Response {
	for _, key := range []string{"a", "b"} {
		if err := c.Ledger.Put("", key, []byte("v")); err != nil {
			return &peerpb.Response{Status: shim.Failed, Message: err.Error()}
		}
	}
	values, err := c.Ledger.GetMany("", []string{"a", "b"})
	if err != nil || len(values) != 2 {
		return &peerpb.Response{Status: shim.Failed, Message: err.Error()}
	}
	return &peerpb.Response{Status: shim.OK}
}

func (p *peer) status() int32 {
	p.t.Helper()
	var response peerpb.Response
	if err := proto.Unmarshal(p.receive(peerpb.ChaincodeMessage_COMPLETED).Payload, &response); err != nil {
		p.t.Fatal(err)
	}
	return response.Status
}

func TestPeersOfFabric2GetSingleMessages(t *testing.T) {
	p := connect(t, writer)
	p.ready(nil)
	p.send(peerpb.ChaincodeMessage_KEEPALIVE, "", nil)
	p.receive(peerpb.ChaincodeMessage_KEEPALIVE)
	p.send(peerpb.ChaincodeMessage_TRANSACTION, "t", nil)
	for range 2 {
		p.receive(peerpb.ChaincodeMessage_PUT_STATE)
		p.send(peerpb.ChaincodeMessage_RESPONSE, "t", nil)
	}
	for range 2 {
		p.receive(peerpb.ChaincodeMessage_GET_STATE)
		p.send(peerpb.ChaincodeMessage_RESPONSE, "t", nil)
	}
	if got := p.status(); got != shim.OK {
		t.Error(got)
	}
}

func TestPeersThatTakeBatchesGetThem(t *testing.T) {
	p := connect(t, writer)
	p.ready(&peerpb.ChaincodeAdditionalParams{UseWriteBatch: true, UseGetMultipleKeys: true})
	p.send(peerpb.ChaincodeMessage_TRANSACTION, "t", nil)
	p.receive(peerpb.ChaincodeMessage_GET_STATE_MULTIPLE)
	p.send(peerpb.ChaincodeMessage_RESPONSE, "t", &peerpb.GetStateMultipleResult{Values: [][]byte{{1}, nil}})
	var batch peerpb.WriteBatchState
	if err := proto.Unmarshal(p.receive(peerpb.ChaincodeMessage_WRITE_BATCH_STATE).Payload, &batch); err != nil || len(batch.Rec) != 2 || batch.Rec[1].Key != "b" {
		t.Error(&batch, err)
	}
	p.send(peerpb.ChaincodeMessage_RESPONSE, "t", nil)
	if got := p.status(); got != shim.OK {
		t.Error(got)
	}
	// A write that the peer refuses fails the call.
	p.send(peerpb.ChaincodeMessage_TRANSACTION, "u", nil)
	p.receive(peerpb.ChaincodeMessage_GET_STATE_MULTIPLE)
	p.send(peerpb.ChaincodeMessage_RESPONSE, "u", &peerpb.GetStateMultipleResult{Values: [][]byte{nil, nil}})
	p.receive(peerpb.ChaincodeMessage_WRITE_BATCH_STATE)
	if err := p.Send(&message{Type: peerpb.ChaincodeMessage_ERROR, Txid: "u", ChannelId: "c", Payload: []byte("not you")}); err != nil {
		t.Fatal(err)
	}
	if got := p.receive(peerpb.ChaincodeMessage_ERROR); string(got.Payload) != "not you" {
		t.Errorf("%s", got.Payload)
	}
	// So does an answer that does not fit.
	p.send(peerpb.ChaincodeMessage_TRANSACTION, "v", nil)
	p.receive(peerpb.ChaincodeMessage_GET_STATE_MULTIPLE)
	p.send(peerpb.ChaincodeMessage_RESPONSE, "v", &peerpb.GetStateMultipleResult{})
	p.receive(peerpb.ChaincodeMessage_COMPLETED)
}

func TestBadPeers(t *testing.T) {
	for want, misbehave := range map[string]func(*peer){
		"cannot handle message (TRANSACTION)": func(p *peer) { p.send(peerpb.ChaincodeMessage_TRANSACTION, "t", nil) },
		"cannot handle message (READY)":       func(p *peer) { p.send(peerpb.ChaincodeMessage_READY, "t", nil) },
		"failed to unmarshal READY": func(p *peer) {
			p.send(peerpb.ChaincodeMessage_REGISTERED, "", nil)
			_ = p.Send(&message{Type: peerpb.ChaincodeMessage_READY, Payload: []byte{0xff}})
		},
		"cannot handle message (GET_STATE)": func(p *peer) { p.ready(nil); p.send(peerpb.ChaincodeMessage_GET_STATE, "t", nil) },
		"answered a request twice": func(p *peer) {
			p.ready(nil)
			p.send(peerpb.ChaincodeMessage_TRANSACTION, "t", nil)
			for range 3 {
				p.send(peerpb.ChaincodeMessage_RESPONSE, "t", nil)
			}
		},
	} {
		release := make(chan struct{})
		p := connect(t, func(context.Context, *shim.Call) *peerpb.Response { <-release; return &peerpb.Response{} })
		misbehave(p)
		var err error
		for err == nil {
			_, err = p.Recv()
		}
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		close(release)
	}
}

func TestStopEndsCalls(t *testing.T) {
	ended := make(chan error, 1)
	p := connect(t, func(ctx context.Context, c *shim.Call) *peerpb.Response {
		_, err := c.Ledger.Get("", "k")
		ended <- err
		return &peerpb.Response{}
	})
	p.ready(nil)
	p.send(peerpb.ChaincodeMessage_TRANSACTION, "t", nil)
	p.receive(peerpb.ChaincodeMessage_GET_STATE)
	if err := p.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// FuzzTransaction has a peer send a transaction of any bytes.
func FuzzTransaction(f *testing.F) {
	f.Add([]byte("\n\x01f"), []byte{}, []byte{0xff})
	f.Add([]byte{0xff}, []byte("\n\x02\n\x00"), []byte{})
	f.Fuzz(func(t *testing.T, input, proposal, answer []byte) {
		p := connect(t, func(_ context.Context, c *shim.Call) *peerpb.Response {
			rows, err := c.Ledger.Range("", "a", "b", shim.Page{})
			if err == nil {
				_, _ = rows.Next()
			}
			_, _ = c.Ledger.Metadata("", "k")
			_, _ = c.Ledger.Invoke("c", nil)
			return &peerpb.Response{}
		})
		p.ready(nil)
		m := &message{Type: peerpb.ChaincodeMessage_TRANSACTION, Txid: "t", ChannelId: "c", Payload: input, Proposal: &peerpb.SignedProposal{ProposalBytes: proposal}}
		if err := p.Send(m); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := p.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if m.Type == peerpb.ChaincodeMessage_COMPLETED || m.Type == peerpb.ChaincodeMessage_ERROR {
				return
			}
			if err := p.Send(&message{Type: peerpb.ChaincodeMessage_RESPONSE, Txid: "t", ChannelId: "c", Payload: answer}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
