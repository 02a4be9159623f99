package deliver_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/deliver"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// chain is a Channel in memory.
type chain struct {
	mu       sync.Mutex
	blocks   [][]byte
	grown    chan struct{}
	sequence uint64
	refuse   error
	errored  chan struct{}
	waited   chan struct{} // has a value once someone had to wait
	hold     uint64        // blocks from here on are announced and never arrive, if not 0
}

func newChain(n int) *chain {
	c := &chain{grown: make(chan struct{}), errored: make(chan struct{}), waited: make(chan struct{}, 1)}
	for range n {
		c.append()
	}
	return c
}

func (c *chain) append() {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.blocks)
	var data [][]byte
	for i := range 2 {
		data = append(data, endorserTx(fmt.Sprintf("tx-%d-%d", n, i)))
	}
	b := block.New(uint64(n), nil, data)
	block.SetFilter(b, []byte{0, 11})
	raw, _ := proto.Marshal(b)
	c.blocks = append(c.blocks, raw)
	close(c.grown)
	c.grown = make(chan struct{})
}

func endorserTx(id string) []byte {
	m := func(m proto.Message) []byte { raw, _ := proto.Marshal(m); return raw }
	return m(&commonpb.Envelope{Signature: []byte("s"), Payload: m(&commonpb.Payload{
		Header: &commonpb.Header{ChannelHeader: m(&commonpb.ChannelHeader{Type: int32(commonpb.HeaderType_ENDORSER_TRANSACTION), ChannelId: "c", TxId: id})},
		Data: m(&peerpb.Transaction{Actions: []*peerpb.TransactionAction{{Payload: m(&peerpb.ChaincodeActionPayload{
			Action: &peerpb.ChaincodeEndorsedAction{ProposalResponsePayload: m(&peerpb.ProposalResponsePayload{Extension: m(&peerpb.ChaincodeAction{
				Events: m(&peerpb.ChaincodeEvent{ChaincodeId: "cc", TxId: id, EventName: "shipped", Payload: []byte("secret")}),
			})})}})}}}),
	})})
}

func (c *chain) Height() uint64 { c.mu.Lock(); defer c.mu.Unlock(); return uint64(len(c.blocks)) }
func (c *chain) BlockBytes(n uint64) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n >= uint64(len(c.blocks)) {
		return nil, errors.New("no such block")
	}
	return c.blocks[n], nil
}

func (c *chain) Wait(ctx context.Context, height uint64) error {
	for {
		c.mu.Lock()
		enough, grown := uint64(len(c.blocks)) >= height, c.grown
		if c.hold != 0 && height > c.hold {
			enough = false
		}
		c.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case c.waited <- struct{}{}:
		default:
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *chain) Sequence() uint64         { c.mu.Lock(); defer c.mu.Unlock(); return c.sequence }
func (c *chain) Errored() <-chan struct{} { return c.errored }
func (c *chain) Authorize(string, policy.SignedData) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refuse
}

func (c *chain) PrivateData(_ context.Context, n uint64, _ policy.SignedData) (map[uint64]*rwsetpb.TxPvtReadWriteSet, error) {
	return map[uint64]*rwsetpb.TxPvtReadWriteSet{1: {NsPvtRwset: []*rwsetpb.NsPvtReadWriteSet{{Namespace: fmt.Sprint("ns", n)}}}}, nil
}

type orderer struct {
	ordererpb.UnimplementedAtomicBroadcastServer
	deliver.Orderer
}

func (o *orderer) Deliver(s grpc.BidiStreamingServer[commonpb.Envelope, ordererpb.DeliverResponse]) error {
	return o.Orderer.Deliver(s)
}

// serve runs both services on a loopback port.
func serve(t testing.TB, c deliver.Channel, mutual bool) string {
	t.Helper()
	s := deliver.NewServer(deliver.Config{MutualTLS: mutual, Log: slog.New(slog.DiscardHandler),
		Channel: func(id string) (deliver.Channel, bool) { return c, id == "c" }})
	server := grpc.NewServer()
	ordererpb.RegisterAtomicBroadcastServer(server, &orderer{Orderer: deliver.Orderer{Server: s}})
	peerpb.RegisterDeliverServer(server, deliver.Peer{Server: s})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

func dial(t testing.TB, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func signer(t testing.TB) *identity.Signer {
	return identitytest.NewOrg(t, "AlphaMSP").Signer(t, "client")
}

func seekEnvelope(t testing.TB, s envelope.Signer, channel string, seek *ordererpb.SeekInfo) *commonpb.Envelope {
	t.Helper()
	env, err := envelope.New(s, commonpb.HeaderType_DELIVER_SEEK_INFO, channel, seek, nil)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

var (
	oldest = &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_Oldest{Oldest: &ordererpb.SeekOldest{}}}
	newest = &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_Newest{Newest: &ordererpb.SeekNewest{}}}
	commit = &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_NextCommit{NextCommit: &ordererpb.SeekNextCommit{}}}
	at     = deliver.Specified
)

func TestSeek(t *testing.T) {
	const wait, fail = ordererpb.SeekInfo_BLOCK_UNTIL_READY, ordererpb.SeekInfo_FAIL_IF_NOT_READY
	ok, bad, missing := commonpb.Status_SUCCESS, commonpb.Status_BAD_REQUEST, commonpb.Status_NOT_FOUND
	for _, tt := range []struct {
		name        string
		start, stop *ordererpb.SeekPosition
		behavior    ordererpb.SeekInfo_SeekBehavior
		grow        int // blocks that come after the first answers
		want        []uint64
		status      commonpb.Status
	}{
		{"oldest", oldest, oldest, wait, 0, []uint64{0}, ok},
		{"all", oldest, newest, wait, 0, []uint64{0, 1, 2, 3, 4}, ok},
		{"newest", newest, newest, wait, 0, []uint64{4}, ok},
		{"one", at(2), at(2), wait, 0, []uint64{2}, ok},
		{"some", at(1), at(3), fail, 0, []uint64{1, 2, 3}, ok},
		{"to newest", at(3), newest, wait, 0, []uint64{3, 4}, ok},
		{"into the future", at(4), at(6), wait, 2, []uint64{4, 5, 6}, ok},
		{"fails at the tip", at(3), at(6), fail, 0, []uint64{3, 4}, missing},
		{"next block", at(5), at(5), wait, 1, []uint64{5}, ok},
		{"next block not ready", at(5), at(5), fail, 0, nil, missing},
		{"next commit", commit, at(5), wait, 1, []uint64{5}, ok},
		{"next commit not ready", commit, at(5), fail, 0, nil, missing},
		{"beyond the next block", at(6), at(7), wait, 0, nil, missing},
		{"backwards", at(3), at(2), wait, 0, nil, bad},
		{"newest to oldest", newest, oldest, wait, 0, []uint64{4}, ok},
		{"no start", nil, at(2), wait, 0, nil, bad},
		{"no stop", at(2), nil, wait, 0, nil, bad},
		{"start of no kind", &ordererpb.SeekPosition{}, at(2), wait, 0, nil, missing},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newChain(5)
			stream, err := ordererpb.NewAtomicBroadcastClient(dial(t, serve(t, c, false))).Deliver(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(seekEnvelope(t, signer(t), "c", &ordererpb.SeekInfo{Start: tt.start, Stop: tt.stop, Behavior: tt.behavior})); err != nil {
				t.Fatal(err)
			}
			if tt.grow > 0 && len(tt.want) == tt.grow {
				<-c.waited
				for range tt.grow {
					c.append()
				}
				tt.grow = 0
			}
			var got []uint64
			for {
				m, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if b := m.GetBlock(); b != nil {
					want, _ := c.BlockBytes(b.Header.Number)
					if raw, _ := proto.Marshal(b); string(raw) != string(want) {
						t.Errorf("block %d arrived changed", b.Header.Number)
					}
					got = append(got, b.Header.Number)
				} else if m.GetStatus() != tt.status {
					t.Errorf("status %v, want %v", m.GetStatus(), tt.status)
				}
				if len(got) == len(tt.want)-tt.grow && m.GetBlock() != nil {
					for range tt.grow {
						c.append()
					}
					tt.grow = 0
				}
				if m.GetBlock() == nil {
					break
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("blocks %v, want %v", got, tt.want)
			}
			if tt.status != ok {
				if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
					t.Errorf("after %v the stream goes on: %v", tt.status, err)
				}
			}
		})
	}
}

func status(t testing.TB, stream interface {
	Recv() (*peerpb.DeliverResponse, error)
}) commonpb.Status {
	t.Helper()
	for {
		m, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := m.Type.(*peerpb.DeliverResponse_Status); ok {
			return m.GetStatus()
		}
	}
}

func TestAccess(t *testing.T) {
	all := &ordererpb.SeekInfo{Start: oldest, Stop: newest}
	expired := identitytest.NewOrg(t, "AlphaMSP")
	old := identitytest.Signer(t, "AlphaMSP", expired.Issue(t, "old", []string{"client"}, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }))
	late := seekEnvelope(t, signer(t), "c", all)
	payload, ch := &commonpb.Payload{}, &commonpb.ChannelHeader{}
	proto.Unmarshal(late.Payload, payload)
	proto.Unmarshal(payload.Header.ChannelHeader, ch)
	ch.Timestamp = timestamppb.New(time.Now().Add(-time.Hour))
	payload.Header.ChannelHeader, _ = proto.Marshal(ch)
	late.Payload, _ = proto.Marshal(payload)
	refusing, broken := newChain(1), newChain(1)
	refusing.refuse = errors.New("no")
	close(broken.errored)
	effort := &ordererpb.SeekInfo{Start: oldest, Stop: newest, ErrorResponse: ordererpb.SeekInfo_BEST_EFFORT}
	for name, tt := range map[string]struct {
		chain  *chain
		env    *commonpb.Envelope
		mutual bool
		want   commonpb.Status
	}{
		"good":            {newChain(1), seekEnvelope(t, signer(t), "c", all), false, commonpb.Status_SUCCESS},
		"unknown channel": {newChain(1), seekEnvelope(t, signer(t), "d", all), false, commonpb.Status_NOT_FOUND},
		"not a reader":    {refusing, seekEnvelope(t, signer(t), "c", all), false, commonpb.Status_FORBIDDEN},
		"expired":         {newChain(1), seekEnvelope(t, old, "c", all), false, commonpb.Status_FORBIDDEN},
		"old timestamp":   {newChain(1), late, false, commonpb.Status_BAD_REQUEST},
		"no certificate":  {newChain(1), seekEnvelope(t, signer(t), "c", all), true, commonpb.Status_BAD_REQUEST},
		"garbage":         {newChain(1), &commonpb.Envelope{Payload: []byte("\xff")}, false, commonpb.Status_BAD_REQUEST},
		"empty":           {newChain(1), &commonpb.Envelope{}, false, commonpb.Status_BAD_REQUEST},
		"errored":         {broken, seekEnvelope(t, signer(t), "c", all), false, commonpb.Status_SERVICE_UNAVAILABLE},
		"best effort":     {broken, seekEnvelope(t, signer(t), "c", effort), false, commonpb.Status_SUCCESS},
	} {
		t.Run(name, func(t *testing.T) {
			stream, err := peerpb.NewDeliverClient(dial(t, serve(t, tt.chain, tt.mutual))).Deliver(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(tt.env); err != nil {
				t.Fatal(err)
			}
			if got := status(t, stream); got != tt.want {
				t.Errorf("status %v, want %v", got, tt.want)
			}
		})
	}
}

// A reader loses access when the config changes, and a waiting one is told when the chain breaks.
func TestAccessEnds(t *testing.T) {
	for name, end := range map[string]func(*chain){
		"FORBIDDEN": func(c *chain) {
			c.mu.Lock()
			c.sequence, c.refuse = 1, errors.New("no longer")
			c.mu.Unlock()
			c.append()
		},
		"SERVICE_UNAVAILABLE": func(c *chain) { close(c.errored) },
	} {
		c := newChain(1)
		stream, err := peerpb.NewDeliverClient(dial(t, serve(t, c, false))).Deliver(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(seekEnvelope(t, signer(t), "c", &ordererpb.SeekInfo{Start: oldest, Stop: at(math.MaxUint64)})); err != nil {
			t.Fatal(err)
		}
		if m, err := stream.Recv(); err != nil || m.GetBlock() == nil {
			t.Fatal(m, err)
		}
		end(c)
		if got := status(t, stream); got.String() != name {
			t.Errorf("status %v, want %s", got, name)
		}
	}
}

func TestContentTypes(t *testing.T) {
	client := peerpb.NewDeliverClient(dial(t, serve(t, newChain(3), false)))
	for range 2 { // the second time from the cache
		filtered, err := client.DeliverFiltered(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		private, err := client.DeliverWithPrivateData(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		headers, err := client.Deliver(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		errs := errors.Join(filtered.Send(seekEnvelope(t, signer(t), "c", &ordererpb.SeekInfo{Start: newest, Stop: newest})),
			private.Send(seekEnvelope(t, signer(t), "c", &ordererpb.SeekInfo{Start: newest, Stop: newest})),
			headers.Send(seekEnvelope(t, signer(t), "c", &ordererpb.SeekInfo{Start: newest, Stop: newest, ContentType: ordererpb.SeekInfo_HEADER_WITH_SIG})))
		if errs != nil {
			t.Fatal(errs)
		}
		m, err := filtered.Recv()
		if err != nil {
			t.Fatal(err)
		}
		f := m.GetFilteredBlock()
		if f.GetNumber() != 2 || f.GetChannelId() != "c" || len(f.GetFilteredTransactions()) != 2 {
			t.Fatalf("filtered block %v", f)
		}
		tx := f.FilteredTransactions[1]
		if tx.Txid != "tx-2-1" || tx.TxValidationCode != peerpb.TxValidationCode_MVCC_READ_CONFLICT || tx.Type != commonpb.HeaderType_ENDORSER_TRANSACTION {
			t.Errorf("filtered transaction %v", tx)
		}
		event := tx.GetTransactionActions().GetChaincodeActions()[0].ChaincodeEvent
		if event.EventName != "shipped" || event.ChaincodeId != "cc" || event.TxId != "tx-2-1" || event.Payload != nil {
			t.Errorf("filtered event %v", event)
		}
		if m, err = private.Recv(); err != nil {
			t.Fatal(err)
		}
		bp := m.GetBlockAndPrivateData()
		if bp.GetBlock().GetHeader().GetNumber() != 2 || len(bp.GetBlock().GetData().GetData()) != 2 || bp.GetPrivateDataMap()[1].GetNsPvtRwset()[0].GetNamespace() != "ns2" {
			t.Errorf("block and private data %v", bp)
		}
		if m, err = headers.Recv(); err != nil {
			t.Fatal(err)
		}
		if b := m.GetBlock(); b.GetHeader().GetNumber() != 2 || b.GetData() != nil || len(b.GetMetadata().GetMetadata()) != 5 {
			t.Errorf("header %v", b)
		}
	}
}

// pull runs a puller over servers until it has n blocks.
func pull(t *testing.T, n int, addresses ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var got []uint64
	refusals := 0
	p := deliver.NewPuller(deliver.PullerConfig{
		ChannelID: "c", Signer: signer(t), Plaintext: true, Log: slog.New(slog.DiscardHandler), Silence: 100 * time.Millisecond,
		Next: func() uint64 { return uint64(len(got)) },
		Endpoints: func() (all []deliver.Endpoint) {
			for _, a := range addresses {
				all = append(all, deliver.Endpoint{Address: a})
			}
			return all
		},
		Sink: func(_ context.Context, b *commonpb.Block) error {
			if refusals++; refusals == 2 {
				return fmt.Errorf("looks odd: %w", deliver.ErrBadBlock)
			}
			got = append(got, b.Header.Number)
			if len(got) == n {
				cancel()
			}
			return nil
		},
	})
	if err := p.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(got) != n {
		t.Fatalf("%d blocks, want %d", len(got), n)
	}
	for i, number := range got {
		if number != uint64(i) {
			t.Fatalf("blocks %v", got)
		}
	}
}

func TestPullFailsOver(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close() // accepts and never answers
	withholding, breaking, good := newChain(10), newChain(4), newChain(10)
	withholding.hold = 2
	close(breaking.errored)
	pull(t, 10, serve(t, withholding, false), "127.0.0.1:1", serve(t, breaking, false), nobody.Addr().String(), serve(t, good, false))
}

// Orderers that are cut off from the rest, or pretend to be, do not hold a puller back: it asks others.
func TestPullLeavesOrderersBehind(t *testing.T) {
	pull(t, 10, serve(t, newChain(3), false), serve(t, newChain(5), false), serve(t, newChain(10), false))
}

func TestPullStopsOnSinkError(t *testing.T) {
	boom := errors.New("disk full")
	address := serve(t, newChain(1), false)
	p := deliver.NewPuller(deliver.PullerConfig{ChannelID: "c", Signer: signer(t), Plaintext: true, Log: slog.New(slog.DiscardHandler),
		Next: func() uint64 { return 0 }, Endpoints: func() []deliver.Endpoint { return []deliver.Endpoint{{Address: address}} },
		Sink: func(context.Context, *commonpb.Block) error { return boom }})
	if err := p.Run(t.Context()); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
}

func FuzzFilter(f *testing.F) {
	c := newChain(1)
	f.Add(c.blocks[0])
	f.Fuzz(func(t *testing.T, raw []byte) {
		b := &commonpb.Block{}
		if proto.Unmarshal(raw, b) == nil {
			deliver.Filter(b)
		}
		deliver.WithoutData(raw)
	})
}

func FuzzRequest(f *testing.F) {
	s := deliver.NewServer(deliver.Config{})
	f.Add(seekEnvelope(f, signer(f), "c", &ordererpb.SeekInfo{Start: oldest, Stop: newest}).Payload)
	f.Fuzz(func(t *testing.T, raw []byte) { deliver.Parse(s, &commonpb.Envelope{Payload: raw}) })
}
