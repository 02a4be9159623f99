package gateway_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/gateway"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

const (
	ok        = commonpb.Status_SUCCESS
	busy      = commonpb.Status_SERVICE_UNAVAILABLE
	forbidden = commonpb.Status_FORBIDDEN
)

func submission() *gatewaypb.SubmitRequest {
	return &gatewaypb.SubmitRequest{ChannelId: "mychannel", TransactionId: "tx", PreparedTransaction: &commonpb.Envelope{Payload: []byte("p"), Signature: []byte("s")}}
}

func refused(context.Context) (commonpb.Status, string, error) {
	return 0, "", errors.New("connection refused")
}

func TestSubmit(t *testing.T) {
	type answer = func(context.Context) (commonpb.Status, string, error)
	for _, test := range []struct {
		name     string
		orderers []answer
		bft      bool
		took     time.Duration
		code     codes.Code
		message  string
		details  []string
	}{
		{name: "one accepts", orderers: []answer{says(ok, ""), refused}},
		{name: "the next accepts", orderers: []answer{refused, says(busy, "no leader"), says(ok, "")}},
		{name: "the client's fault is the same everywhere", orderers: []answer{says(forbidden, "not a writer"), says(ok, "")},
			code: codes.Aborted, message: "received unsuccessful response from orderer: status=FORBIDDEN, info=not a writer"},
		{name: "one that lost the channel is passed", orderers: []answer{says(commonpb.Status_BAD_REQUEST, "channel does not exist"), says(ok, "")}},
		{name: "none has the channel", orderers: []answer{says(commonpb.Status_BAD_REQUEST, "channel does not exist"), says(commonpb.Status_BAD_REQUEST, "channel does not exist")},
			code: codes.Aborted, message: "received unsuccessful response from orderer: status=BAD_REQUEST, info=channel does not exist"},
		{name: "nobody accepts", orderers: []answer{refused, says(busy, "no leader")},
			code: codes.Unavailable, message: "no orderers could successfully process transaction",
			details: []string{"orderer0 OrdererMSP connection refused", "orderer1 OrdererMSP received unsuccessful response from orderer: status=SERVICE_UNAVAILABLE, info=no leader"}},
		{name: "there are none", code: codes.Unavailable, message: "no orderer nodes available"},
		{name: "a silent one is passed", orderers: []answer{silent, says(ok, "")}, took: time.Second},
		{name: "two silent ones are passed", orderers: []answer{silent, silent, says(ok, "")}, took: 2 * time.Second},
		{name: "all are silent", orderers: []answer{silent, silent}, took: 5 * time.Second,
			code: codes.DeadlineExceeded, message: "submit timeout expired while broadcasting to ordering service"},
		{name: "BFT: a quorum accepts", bft: true, orderers: []answer{silent, says(ok, ""), says(busy, "failed to submit request: request already exists"), says(ok, "")}},
		{name: "BFT: no quorum", bft: true, orderers: []answer{refused, says(ok, ""), says(busy, "x"), says(ok, "")},
			code: codes.Unavailable, message: "insufficient number of orderers could successfully process transaction to satisfy quorum requirement",
			details: []string{"orderer0 OrdererMSP connection refused", "orderer2 OrdererMSP received unsuccessful response from orderer: status=SERVICE_UNAVAILABLE, info=x"}},
		{name: "BFT: too many are silent", bft: true, orderers: []answer{silent, silent, says(ok, ""), says(ok, "")}, took: 5 * time.Second,
			code: codes.DeadlineExceeded, message: "submit timeout expired while broadcasting to ordering service"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				if test.bft {
					w.channel.bundle = bftBundle(t)
				}
				for i, a := range test.orderers {
					w.orderers = append(w.orderers, newOrderer("orderer"+string(rune('0'+i)), a))
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				start := time.Now()
				_, err := w.server().Submit(ctx, submission())
				if took := time.Since(start); took != test.took {
					t.Errorf("took %v, want %v", took, test.took)
				}
				if test.code == codes.OK {
					must(t, err)
				} else {
					failed(t, err).want(t, test.code, test.message, test.details...)
				}
				if test.bft {
					time.Sleep(time.Minute) // stragglers are asked without the client's deadline, but not for ever
				}
			})
		})
	}
}

func bftBundle(t *testing.T) *channel.Bundle {
	return bundle(t, func(c *commonpb.Config) {
		value := c.ChannelGroup.Groups["Orderer"].Values["ConsensusType"]
		kind := &ordererpb.ConsensusType{}
		must(t, proto.Unmarshal(value.Value, kind))
		kind.Type = "BFT"
		value.Value = marshal(t, kind)
		c.ChannelGroup.Values["Capabilities"].Value = marshal(t, &commonpb.Capabilities{Capabilities: map[string]*commonpb.Capability{"V3_0": {}}})
	})
}

// An orderer that answers others is only busy: the transaction is not sent twice.
func TestBusyOrdererIsNotPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := newOrderer("first", nil)
		first.answer = func(context.Context) (commonpb.Status, string, error) {
			for range 10 {
				time.Sleep(500 * time.Millisecond)
				now := time.Now()
				first.last.Store(&now)
			}
			return ok, "", nil
		}
		second := newOrderer("second", says(ok, ""))
		w.orderers = []gateway.Orderer{first, second}
		_, err := w.server().Submit(t.Context(), submission())
		must(t, err)
		if len(second.calls) != 0 {
			t.Error("the second orderer got the transaction too")
		}
	})
}

func TestSubmitRequests(t *testing.T) {
	client := newWorld(t).client()
	_, err := client.Submit(t.Context(), &gatewaypb.SubmitRequest{})
	failed(t, err).want(t, codes.InvalidArgument, "a prepared transaction is required")
	_, err = client.Submit(t.Context(), &gatewaypb.SubmitRequest{PreparedTransaction: &commonpb.Envelope{}})
	failed(t, err).want(t, codes.InvalidArgument, "prepared transaction must be signed")
	r := submission()
	r.ChannelId = "elsewhere"
	_, err = client.Submit(t.Context(), r)
	failed(t, err).want(t, codes.FailedPrecondition, "failed to get config for channel [elsewhere]: the peer has not joined it")
}

// broadcast serves a real orderer's side of streams.
type broadcast struct {
	ordererpb.UnimplementedAtomicBroadcastServer
	streams atomic.Int32
	handle  func(*commonpb.Envelope) (r *ordererpb.BroadcastResponse, end bool)
}

func (b *broadcast) Broadcast(stream ordererpb.AtomicBroadcast_BroadcastServer) error {
	b.streams.Add(1)
	for {
		tx, err := stream.Recv()
		if err != nil {
			return nil
		}
		r, end := b.handle(tx)
		if r != nil {
			if err := stream.Send(r); err != nil {
				return err
			}
		}
		if end {
			return nil
		}
	}
}

// plain dials without TLS.
type plain struct{ t testing.TB }

func (p plain) Dial(address string, _ [][]byte) (*grpc.ClientConn, error) {
	return dial(p.t, address), nil
}

// orderersAt reaches orderers at real addresses.
func orderersAt(t *testing.T, addresses ...string) gateway.Orderers {
	b := bundle(t, func(c *commonpb.Config) {
		delete(c.ChannelGroup.Values, "OrdererAddresses")
		for _, group := range c.ChannelGroup.Groups["Orderer"].Groups {
			group.Values["Endpoints"] = &commonpb.ConfigValue{ModPolicy: "Admins", Value: marshal(t, &commonpb.OrdererAddresses{Addresses: addresses})}
			addresses = nil
		}
	})
	return gateway.NewOrderers(plain{t}, func(string) (*channel.Bundle, bool) { return b, true })
}

func TestStreamsAreShared(t *testing.T) {
	b := &broadcast{handle: func(tx *commonpb.Envelope) (*ordererpb.BroadcastResponse, bool) {
		return &ordererpb.BroadcastResponse{Status: ok, Info: string(tx.Payload)}, false
	}}
	s := grpc.NewServer()
	ordererpb.RegisterAtomicBroadcastServer(s, b)
	orderers := orderersAt(t, serve(t, s))
	errs := make(chan error)
	for i := range 200 {
		go func() {
			payload := string(rune('a' + i))
			code, info, err := orderers.Endpoints("mychannel")[0].Broadcast(t.Context(), &commonpb.Envelope{Payload: []byte(payload)})
			if err == nil && (code != ok || info != payload) {
				err = errors.New("got the answer of another")
			}
			errs <- err
		}()
	}
	for range 200 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := b.streams.Load(); n != 1 {
		t.Errorf("%d streams", n)
	}
}

// Fabric's orderers end a stream after they refused a transaction: the others on it try again.
func TestStreamsThatEnd(t *testing.T) {
	b := &broadcast{handle: func(tx *commonpb.Envelope) (*ordererpb.BroadcastResponse, bool) {
		if string(tx.Payload) == "bad" {
			return &ordererpb.BroadcastResponse{Status: commonpb.Status_BAD_REQUEST, Info: "bad"}, true
		}
		return &ordererpb.BroadcastResponse{Status: ok}, false
	}}
	s := grpc.NewServer()
	ordererpb.RegisterAtomicBroadcastServer(s, b)
	orderers := orderersAt(t, serve(t, s))
	for i := range 20 {
		payload, want := "good", ok
		if i%4 == 0 {
			payload, want = "bad", commonpb.Status_BAD_REQUEST
		}
		code, _, err := orderers.Endpoints("mychannel")[0].Broadcast(t.Context(), &commonpb.Envelope{Payload: []byte(payload)})
		if err != nil || code != want {
			t.Fatalf("call %d: %v, %v; want %v", i, code, err, want)
		}
	}
}

// What cannot be reached, or takes connections and never speaks, costs its own
// callers their time and nobody else, and comes last from then on.
func TestDeadOrderers(t *testing.T) {
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer hole.Close()
	mute := &broadcast{handle: func(*commonpb.Envelope) (*ordererpb.BroadcastResponse, bool) { return nil, false }}
	muteServer := grpc.NewServer()
	ordererpb.RegisterAtomicBroadcastServer(muteServer, mute)
	good := &broadcast{handle: func(*commonpb.Envelope) (*ordererpb.BroadcastResponse, bool) {
		return &ordererpb.BroadcastResponse{Status: ok}, false
	}}
	goodServer := grpc.NewServer()
	ordererpb.RegisterAtomicBroadcastServer(goodServer, good)
	goodAddress := serve(t, goodServer)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	closed.Close()
	for name, address := range map[string]string{"black hole": hole.Addr().String(), "mute": serve(t, muteServer), "closed": closed.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.config.Orderers = orderersAt(t, address, goodAddress)
			w.config.SilenceTimeout = 100 * time.Millisecond
			server := w.server()
			errs := make(chan error)
			for range 20 {
				go func() {
					ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
					defer cancel()
					_, err := server.Submit(ctx, submission())
					errs <- err
				}()
			}
			for range 20 {
				must(t, <-errs)
			}
			for _, o := range w.config.Orderers.Endpoints("mychannel") {
				if o.Address() == address {
					ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
					if _, _, err := o.Broadcast(ctx, &commonpb.Envelope{}); err == nil {
						t.Error("a dead orderer answered")
					}
					cancel()
				}
			}
			for range 10 {
				if first := w.config.Orderers.Endpoints("mychannel")[0].Address(); first != goodAddress {
					t.Errorf("%s comes first", first)
				}
			}
		})
	}
}
