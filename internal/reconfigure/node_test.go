package reconfigure_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/reconfigure"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// orderer is an ordering service node that answers as a test wants; how real ones answer e2e/channel tests.
type orderer struct {
	ordererpb.UnimplementedAtomicBroadcastServer
	reconfigure.Node

	mu     sync.Mutex
	blocks []*commonpb.Block
	more   chan struct{} // closed and made anew when a block comes
	status commonpb.Status
	submit func(o *orderer, env *commonpb.Envelope) *ordererpb.BroadcastResponse
}

func newOrderer(t *testing.T, blocks ...*commonpb.Block) *orderer {
	t.Helper()
	ca := identitytest.NewCA(t, "tlsca")
	leaf := ca.Issue(t, "orderer", nil, func(c *x509.Certificate) {
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o := &orderer{Node: reconfigure.Node{Address: l.Addr().String(), TLSRoots: ca.PEM}, blocks: blocks, more: make(chan struct{})}
	s := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&tls.Certificate{Certificate: [][]byte{leaf.Cert.Raw}, PrivateKey: leaf.Key})))
	ordererpb.RegisterAtomicBroadcastServer(s, o)
	var serving sync.WaitGroup
	serving.Go(func() { s.Serve(l) })
	t.Cleanup(func() { s.Stop(); serving.Wait() })
	return o
}

// add appends a block to the chain.
func (o *orderer) add(b *commonpb.Block) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blocks = append(o.blocks, b)
	close(o.more)
	o.more = make(chan struct{})
}

func (o *orderer) Deliver(stream grpc.BidiStreamingServer[commonpb.Envelope, ordererpb.DeliverResponse]) error {
	env, err := stream.Recv()
	if err != nil {
		return err
	}
	payload, seek := &commonpb.Payload{}, &ordererpb.SeekInfo{}
	if err := errors.Join(proto.Unmarshal(env.Payload, payload), proto.Unmarshal(payload.Data, seek)); err != nil {
		return err
	}
	if o.status != 0 {
		return stream.Send(&ordererpb.DeliverResponse{Type: &ordererpb.DeliverResponse_Status{Status: o.status}})
	}
	at := seek.Start.GetSpecified().GetNumber()
	last := seek.Stop.GetSpecified().GetNumber()
	if seek.Start.GetNewest() != nil {
		o.mu.Lock()
		at = uint64(len(o.blocks) - 1)
		last = at
		o.mu.Unlock()
	}
	for ; at <= last; at++ {
		o.mu.Lock()
		for uint64(len(o.blocks)) <= at {
			more := o.more
			o.mu.Unlock()
			select {
			case <-more:
			case <-stream.Context().Done():
				return nil
			}
			o.mu.Lock()
		}
		b := o.blocks[at]
		o.mu.Unlock()
		if err := stream.Send(&ordererpb.DeliverResponse{Type: &ordererpb.DeliverResponse_Block{Block: b}}); err != nil {
			return err
		}
	}
	return nil
}

func (o *orderer) Broadcast(stream grpc.BidiStreamingServer[commonpb.Envelope, ordererpb.BroadcastResponse]) error {
	env, err := stream.Recv()
	if err != nil {
		return err
	}
	answer := o.submit(o, env)
	if answer == nil {
		return errors.New("the connection breaks")
	}
	return stream.Send(answer)
}

func success() *ordererpb.BroadcastResponse {
	return &ordererpb.BroadcastResponse{Status: commonpb.Status_SUCCESS}
}

// ordered is the config block that a request becomes.
func (n *network) ordered(t testing.TB, number uint64, env *commonpb.Envelope) *commonpb.Block {
	t.Helper()
	next, err := n.Bundle().ProposeUpdate(env)
	if err != nil {
		t.Error(err)
		return nil
	}
	return configBlock(t, n.ID(), number, next)
}

func configBlock(t testing.TB, channelID string, number uint64, config *commonpb.ConfigEnvelope) *commonpb.Block {
	t.Helper()
	marshal := func(m proto.Message) []byte {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Error(err)
		}
		return raw
	}
	payload := &commonpb.Payload{
		Header: &commonpb.Header{ChannelHeader: marshal(&commonpb.ChannelHeader{Type: int32(commonpb.HeaderType_CONFIG), ChannelId: channelID})},
		Data:   marshal(config),
	}
	return withConfig(t, block.New(number, nil, [][]byte{marshal(&commonpb.Envelope{Payload: marshal(payload)})}), number)
}

// withConfig says in a block's metadata which config block is in force.
func withConfig(t testing.TB, b *commonpb.Block, number uint64) *commonpb.Block {
	t.Helper()
	last, err := proto.Marshal(&commonpb.OrdererBlockMetadata{LastConfig: &commonpb.LastConfig{Index: number}})
	if err != nil {
		t.Fatal(err)
	}
	signatures, err := proto.Marshal(&commonpb.Metadata{Value: last})
	if err != nil {
		t.Fatal(err)
	}
	block.SetSlot(b, block.SlotSignatures, signatures)
	return b
}

// genesis is the block of the configuration that the network has.
func (n *network) genesis(t testing.TB) *commonpb.Block {
	t.Helper()
	return configBlock(t, n.ID(), 0, &commonpb.ConfigEnvelope{Config: n.Bundle().Config()})
}

func TestFetch(t *testing.T) {
	n := newNetwork(t, "")
	as := n.admins["Carrier"]
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	plain := withConfig(t, block.New(1, nil, [][]byte{[]byte("transaction")}), 0)
	behind := newOrderer(t, n.genesis(t), plain)
	r := n.edited(t, func(r *commonpb.ConfigGroup) { delete(r.Groups["Application"].Groups, "Gamma") })
	if _, err := n.SignWhatIsNeeded(r, n.by("AB")...); err != nil {
		t.Fatal(err)
	}
	ahead := newOrderer(t, n.genesis(t), plain, n.ordered(t, 2, envelopeOf(t, r)))
	dead := reconfigure.Node{Address: "127.0.0.1:1", TLSRoots: behind.TLSRoots}

	c, err := reconfigure.Fetch(ctx, []reconfigure.Node{dead, behind.Node, ahead.Node}, as, "trade")
	if err != nil || c.Sequence() != 1 || c.Block != 2 {
		t.Errorf("the newest configuration: %v, %v", c, err)
	}
	if c, err = reconfigure.FetchSequence(ctx, []reconfigure.Node{ahead.Node}, as, "trade", 0); err != nil || c.Block != 0 {
		t.Errorf("an earlier configuration: %v, %v", c, err)
	}
	if _, err = reconfigure.FetchSequence(ctx, []reconfigure.Node{ahead.Node}, as, "trade", 7); err == nil || !strings.Contains(err.Error(), "has no configuration 7") {
		t.Errorf("a configuration to come: %v", err)
	}
	if b, err := reconfigure.FirstBlock(ctx, []reconfigure.Node{dead, ahead.Node}, as, "trade"); err != nil || b.Header.Number != 0 {
		t.Errorf("the first block: %v", err)
	}
	_, err = reconfigure.Fetch(ctx, nil, as, "trade")
	wantError(t, err, "no node is named")
	_, err = reconfigure.Fetch(ctx, []reconfigure.Node{{Address: behind.Address}}, as, "trade")
	wantError(t, err, "its TLS roots hold no PEM certificate")
	_, err = reconfigure.Fetch(ctx, []reconfigure.Node{{Address: behind.Address, TLSRoots: ahead.TLSRoots}}, as, "trade")
	wantError(t, err, "certificate")
	_, err = reconfigure.Fetch(ctx, []reconfigure.Node{behind.Node}, as, "other")
	wantError(t, err, `a configuration of channel "trade" came for "other"`)
	for status, want := range map[commonpb.Status]string{
		commonpb.Status_FORBIDDEN: "does not let this identity read channel trade", commonpb.Status_NOT_FOUND: "it has no channel trade", commonpb.Status_SERVICE_UNAVAILABLE: "it answered SERVICE_UNAVAILABLE",
	} {
		refusing := newOrderer(t)
		refusing.status = status
		_, err = reconfigure.Fetch(ctx, []reconfigure.Node{refusing.Node}, as, "trade")
		wantError(t, err, want)
	}
	for _, b := range []*commonpb.Block{{}, {Header: &commonpb.BlockHeader{}}, plain, block.New(0, nil, [][]byte{[]byte("garbage")})} {
		if _, err := reconfigure.Fetch(ctx, []reconfigure.Node{newOrderer(t, b).Node}, as, "trade"); err == nil {
			t.Error("a block that is none was taken for a configuration")
		}
	}
}

func envelopeOf(t testing.TB, r *reconfigure.Request) *commonpb.Envelope {
	t.Helper()
	raw, err := r.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	env := &commonpb.Envelope{}
	if err := proto.Unmarshal(raw, env); err != nil {
		t.Fatal(err)
	}
	return env
}

func TestSubmit(t *testing.T) {
	refusal := func(status commonpb.Status, info string) *ordererpb.BroadcastResponse {
		return &ordererpb.BroadcastResponse{Status: status, Info: info}
	}
	n := newNetwork(t, "")
	r := n.edited(t, func(r *commonpb.ConfigGroup) { delete(r.Groups["Application"].Groups, "Gamma") })
	if _, err := n.SignWhatIsNeeded(r, n.by("AB")...); err != nil {
		t.Fatal(err)
	}
	rival := n.edited(t, func(r *commonpb.ConfigGroup) { delete(r.Groups["Application"].Groups, "Beta") })
	beside := n.edited(t, func(r *commonpb.ConfigGroup) {
		if err := reconfigure.SetValue(r.Groups["Orderer"], "BatchTimeout", &ordererpb.BatchTimeout{Timeout: "9s"}); err != nil {
			t.Fatal(err)
		}
	})
	for _, other := range []*reconfigure.Request{rival, beside} {
		if _, err := n.SignWhatIsNeeded(other, n.by("AGC")...); err != nil {
			t.Fatal(err)
		}
	}
	tries := 0
	for _, test := range []struct {
		name   string
		submit func(o *orderer, env *commonpb.Envelope) *ordererpb.BroadcastResponse
		want   string // error
		stale  bool
	}{
		{"ordered", func(o *orderer, env *commonpb.Envelope) *ordererpb.BroadcastResponse {
			o.add(withConfig(t, block.New(1, nil, [][]byte{[]byte("before")}), 0))
			o.add(n.ordered(t, 2, env))
			return success()
		}, "", false},
		{"no leader at first", func(o *orderer, env *commonpb.Envelope) *ordererpb.BroadcastResponse {
			if tries++; tries < 3 {
				return refusal(commonpb.Status_SERVICE_UNAVAILABLE, "no Raft leader")
			}
			o.add(n.ordered(t, 1, env))
			return success()
		}, "", false},
		{"ordered, and the answer is lost", func(o *orderer, env *commonpb.Envelope) *ordererpb.BroadcastResponse {
			o.add(n.ordered(t, 1, env))
			return nil
		}, "", false},
		{"refused", func(*orderer, *commonpb.Envelope) *ordererpb.BroadcastResponse {
			return refusal(commonpb.Status_FORBIDDEN, "not you")
		}, "refused the update: FORBIDDEN: not you", false},
		{"another came first", func(o *orderer, _ *commonpb.Envelope) *ordererpb.BroadcastResponse {
			o.add(n.ordered(t, 1, envelopeOf(t, rival)))
			return refusal(commonpb.Status_BAD_REQUEST, "attempt to set key")
		}, "has changed meanwhile", true},
		{"another came first, after it was taken", func(o *orderer, _ *commonpb.Envelope) *ordererpb.BroadcastResponse {
			o.add(n.ordered(t, 1, envelopeOf(t, rival)))
			return success()
		}, "another update came first", true},
		{"another that touches something else came first", func(o *orderer, env *commonpb.Envelope) *ordererpb.BroadcastResponse {
			first := n.ordered(t, 1, envelopeOf(t, beside))
			o.add(first)
			after, err := reconfigure.FromBlock(first)
			if err != nil {
				t.Error(err)
				return nil
			}
			o.add((&network{Config: after}).ordered(t, 2, env))
			return success()
		}, "", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			o := newOrderer(t, n.genesis(t))
			o.submit = test.submit
			next, err := n.Submit(ctx, []reconfigure.Node{{Address: "127.0.0.1:1", TLSRoots: o.TLSRoots}, o.Node}, n.admins["Alpha"], r)
			if test.want != "" {
				wantError(t, err, test.want)
				if errors.Is(err, reconfigure.ErrStale) != test.stale {
					t.Errorf("stale: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if org := next.Bundle().ApplicationOrgs(); len(org) != 2 {
				t.Errorf("members %v", org)
			}
		})
	}
}

// One orderer refuses and another has no leader: that is not waited out for ever.
func TestSubmitToOrderersOfTwoMinds(t *testing.T) {
	n := newNetwork(t, "")
	r := n.edited(t, func(r *commonpb.ConfigGroup) { delete(r.Groups["Application"].Groups, "Gamma") })
	if _, err := n.SignWhatIsNeeded(r, n.by("AB")...); err != nil {
		t.Fatal(err)
	}
	answers := func(status commonpb.Status, info string) reconfigure.Node {
		o := newOrderer(t, n.genesis(t))
		o.submit = func(*orderer, *commonpb.Envelope) *ordererpb.BroadcastResponse {
			return &ordererpb.BroadcastResponse{Status: status, Info: info}
		}
		return o.Node
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := n.Submit(ctx, []reconfigure.Node{answers(commonpb.Status_SERVICE_UNAVAILABLE, "no Raft leader"), answers(commonpb.Status_FORBIDDEN, "not you")}, n.admins["Alpha"], r)
	wantError(t, err, "FORBIDDEN: not you")
	if ctx.Err() != nil {
		t.Error("it was tried until the end")
	}
}
