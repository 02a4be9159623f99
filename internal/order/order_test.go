package order_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/order"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

func message(t testing.TB, s envelope.Signer, channelID, text string) *commonpb.Envelope {
	t.Helper()
	env, err := envelope.New(s, commonpb.HeaderType_MESSAGE, channelID, &commonpb.Metadata{Value: []byte(text)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// broadcast sends one envelope over a stream of its own.
func (o *orderer) broadcast(t testing.TB, env *commonpb.Envelope) *ordererpb.BroadcastResponse {
	t.Helper()
	stream, err := o.client.Broadcast(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(env); err != nil {
		t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("the stream ends with %v", err)
	}
	return r
}

// texts are the messages in a block.
func texts(t testing.TB, b *commonpb.Block) []string {
	t.Helper()
	var out []string
	for _, tx := range block.Parse(b).Txs {
		if tx.Type() != commonpb.HeaderType_MESSAGE {
			continue
		}
		m := &commonpb.Metadata{}
		if err := proto.Unmarshal(tx.Payload.Data, m); err != nil {
			t.Fatal(err)
		}
		out = append(out, string(m.Value))
	}
	return out
}

// verifyChain checks blocks as a peer would: numbers, hashes, signatures by the orderers' policy, last config.
func verifyChain(t testing.TB, blocks []*commonpb.Block) {
	t.Helper()
	bundle, err := channel.FromBlock(blocks[0], identity.NewVerifier(identity.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	lastConfig := uint64(0)
	for i, b := range blocks {
		if b.Header.Number != uint64(i) {
			t.Fatalf("block %d at place %d", b.Header.Number, i)
		}
		if i == 0 {
			continue
		}
		if !bytes.Equal(b.Header.PreviousHash, block.HeaderHash(blocks[i-1].Header)) {
			t.Fatalf("block %d does not follow the one before", i)
		}
		if !bytes.Equal(b.Header.DataHash, block.DataHash(b.Data.Data)) {
			t.Fatalf("data hash of block %d", i)
		}
		for _, raw := range b.Data.Data {
			canonical, err := proto.MarshalOptions{Deterministic: true}.Marshal(envelope.Parse(raw).Envelope)
			if err != nil || !bytes.Equal(canonical, raw) {
				t.Fatalf("an envelope of block %d is not in its canonical form", i)
			}
		}
		if block.IsConfig(b) {
			lastConfig = b.Header.Number
		}
		m, err := block.Metadata(b, block.SlotSignatures)
		if err != nil {
			t.Fatal(err)
		}
		sh := &commonpb.SignatureHeader{}
		if err := proto.Unmarshal(m.Signatures[0].SignatureHeader, sh); err != nil {
			t.Fatal(err)
		}
		validation, ok := bundle.Policy("/Channel/Orderer/BlockValidation")
		if !ok {
			t.Fatal("no block validation policy")
		}
		if err := validation.EvaluateSigned([]policy.SignedData{{
			Data: block.SignedBytes(m.Value, m.Signatures[0].SignatureHeader, b.Header), Identity: sh.Creator, Signature: m.Signatures[0].Signature,
		}}); err != nil {
			t.Fatalf("signature of block %d: %v", i, err)
		}
		if last, err := block.LastConfig(b); err != nil || last != lastConfig {
			t.Fatalf("last config of block %d is %d (%v), want %d", i, last, err, lastConfig)
		}
		slot, last := &commonpb.Metadata{}, &commonpb.LastConfig{}
		if err := errors.Join(proto.Unmarshal(b.Metadata.Metadata[block.SlotLastConfig], slot), proto.Unmarshal(slot.Value, last)); err != nil || last.Index != lastConfig {
			t.Fatalf("last config slot of block %d is %d (%v), want %d", i, last.Index, err, lastConfig)
		}
		o, inner, notes := &commonpb.OrdererBlockMetadata{}, &commonpb.Metadata{}, &etcdraftpb.BlockMetadata{}
		if err := errors.Join(proto.Unmarshal(m.Value, o), proto.Unmarshal(o.ConsenterMetadata, inner), proto.Unmarshal(inner.Value, notes)); err != nil {
			t.Fatal(err)
		}
		if len(notes.ConsenterIds) != 1 || notes.ConsenterIds[0] != 1 || notes.NextConsenterId != 2 || notes.RaftIndex == 0 {
			t.Fatalf("consensus notes of block %d: %v", i, notes)
		}
		if len(b.Metadata.Metadata) != 5 {
			t.Fatalf("block %d has %d metadata slots", i, len(b.Metadata.Metadata))
		}
	}
}

func TestOrderAndDeliver(t *testing.T) {
	n := newNetwork(t)
	o := n.startJoined(t)

	// A lone envelope is in a block at once, although the batch timeout is 10 seconds.
	start := time.Now()
	if r := o.broadcast(t, message(t, n.user, channelID, "lone")); r.Status != commonpb.Status_SUCCESS {
		t.Fatal(r)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a lone envelope took %v", took)
	}

	// Many clients, each with many envelopes on its stream without waiting.
	const clients, each = 4, 100
	var group sync.WaitGroup
	for c := range clients {
		envs := make([]*commonpb.Envelope, each)
		for i := range envs {
			envs[i] = message(t, n.user, channelID, fmt.Sprintf("%d/%d", c, i))
		}
		group.Go(func() {
			stream, err := o.client.Broadcast(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			for _, env := range envs {
				if err := stream.Send(env); err != nil {
					t.Error(err)
				}
			}
			stream.CloseSend()
			for range each {
				if r, err := stream.Recv(); err != nil || r.Status != commonpb.Status_SUCCESS {
					t.Errorf("%v, %v", r, err)
					return
				}
			}
			if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("end of stream: %v", err)
			}
		})
	}
	group.Wait()

	seen := 0
	next := make([]int, clients)
	blocks := o.pull(t, 0, func(b *commonpb.Block) bool {
		seen += len(texts(t, b))
		return seen == 1+clients*each
	})
	verifyChain(t, blocks)
	for _, b := range blocks[1:] {
		if len(b.Data.Data) > 50 {
			t.Errorf("block %d holds %d envelopes", b.Header.Number, len(b.Data.Data))
		}
		for _, text := range texts(t, b) {
			var c, i int
			if _, err := fmt.Sscanf(text, "%d/%d", &c, &i); err != nil {
				continue
			}
			if next[c] != i {
				t.Fatalf("envelope %d of client %d comes where %d was expected", i, c, next[c])
			}
			next[c]++
		}
	}
	if len(blocks) > 1+clients*each/2 {
		t.Errorf("%d blocks for %d envelopes: they do not fill under load", len(blocks), clients*each)
	}
}

func TestRejections(t *testing.T) {
	n := newNetwork(t)
	o := n.startJoined(t)
	stranger := identitytest.NewOrg(t, "AlphaMSP").Signer(t, "client") // the right name, another CA
	expired := identitytest.Signer(t, "AlphaMSP", n.users.Issue(t, "late", []string{"client"}, func(c *x509.Certificate) {
		c.NotAfter = time.Now().Add(-time.Hour)
	}))
	tampered := message(t, n.user, channelID, "x")
	tampered.Signature[len(tampered.Signature)-1] ^= 1
	typed := func(typ commonpb.HeaderType) *commonpb.Envelope {
		env, err := envelope.New(n.user, typ, channelID, &commonpb.Metadata{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return env
	}
	headerless, _ := proto.Marshal(&commonpb.Payload{Data: []byte("x")})
	for name, tt := range map[string]struct {
		env    *commonpb.Envelope
		status commonpb.Status
		info   string
	}{
		"good":            {message(t, n.user, channelID, "fine"), commonpb.Status_SUCCESS, ""},
		"empty":           {&commonpb.Envelope{}, commonpb.Status_BAD_REQUEST, "could not determine channel ID: header not set"},
		"no header":       {&commonpb.Envelope{Payload: headerless}, commonpb.Status_BAD_REQUEST, "could not determine channel ID: header not set"},
		"garbage":         {&commonpb.Envelope{Payload: []byte("\xff\xff")}, commonpb.Status_BAD_REQUEST, "could not determine channel ID: error unmarshalling Payload"},
		"unknown channel": {message(t, n.user, "nowhere", "x"), commonpb.Status_BAD_REQUEST, "channel does not exist"},
		"too large":       {message(t, n.user, channelID, strings.Repeat("x", 300<<10)), commonpb.Status_BAD_REQUEST, "and exceeds maximum allowed 262144 bytes"},
		"stranger":        {message(t, stranger, channelID, "x"), commonpb.Status_FORBIDDEN, "permission denied"},
		"tampered":        {tampered, commonpb.Status_FORBIDDEN, "permission denied"},
		"expired":         {message(t, expired, channelID, "x"), commonpb.Status_BAD_REQUEST, "broadcast client identity expired"},
		"config":          {typed(commonpb.HeaderType_CONFIG), commonpb.Status_BAD_REQUEST, "message is of type that cannot be processed directly"},
		"system channel":  {typed(commonpb.HeaderType_ORDERER_TRANSACTION), commonpb.Status_BAD_REQUEST, "message is of type that is no longer supported"},
		"empty update":    {typed(commonpb.HeaderType_CONFIG_UPDATE), commonpb.Status_BAD_REQUEST, "error applying config update to existing channel 'trade': "},
	} {
		t.Run(name, func(t *testing.T) {
			r := o.broadcast(t, tt.env)
			if r.Status != tt.status || !strings.Contains(r.Info, tt.info) || tt.info == "" && r.Info != "" {
				t.Errorf("%v %q, want %v %q", r.Status, r.Info, tt.status, tt.info)
			}
		})
	}
}

// Where anybody may write a message has to be signed all the same: peers of Fabric stop at a block with one that is not.
func TestUnsigned(t *testing.T) {
	n := newNetwork(t)
	payload, header, config := &commonpb.Payload{}, &commonpb.Envelope{}, &commonpb.ConfigEnvelope{}
	for _, err := range []error{proto.Unmarshal(n.genesis.Data.Data[0], header), proto.Unmarshal(header.Payload, payload), proto.Unmarshal(payload.Data, config)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	encode := func(m proto.Message) []byte {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	config.Config.ChannelGroup.Policies["Writers"].Policy = &commonpb.Policy{Type: int32(commonpb.Policy_SIGNATURE),
		Value: encode(&commonpb.SignaturePolicyEnvelope{Rule: &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_NOutOf_{NOutOf: &commonpb.SignaturePolicy_NOutOf{}}}})}
	payload.Data = encode(config)
	header.Payload = encode(payload)
	n.genesis.Data.Data[0] = encode(header)
	n.genesis.Header.DataHash = block.DataHash(n.genesis.Data.Data)
	o := n.startJoined(t)
	unsigned := message(t, n.user, channelID, "x")
	unsigned.Signature = nil
	if r := o.broadcast(t, unsigned); r.Status != commonpb.Status_BAD_REQUEST || !strings.Contains(r.Info, "not signed") {
		t.Errorf("%v %q", r.Status, r.Info)
	}
	stranger := identitytest.NewOrg(t, "AlphaMSP").Signer(t, "client")
	if r := o.broadcast(t, message(t, stranger, channelID, "x")); r.Status != commonpb.Status_SUCCESS {
		t.Errorf("a signed message where anybody may write: %v %q", r.Status, r.Info)
	}
}

// update makes a signed config update that changes the config as edit says.
func (o *orderer) update(t testing.TB, admin *identity.Signer, edit func(*commonpb.Config)) *commonpb.Envelope {
	t.Helper()
	c, _ := o.Channel(channelID)
	was := c.Bundle().Config()
	will := proto.Clone(was).(*commonpb.Config)
	edit(will)
	update, err := channel.ComputeUpdate(channelID, was, will)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := proto.Marshal(update)
	if err != nil {
		t.Fatal(err)
	}
	sh, err := proto.Marshal(&commonpb.SignatureHeader{Creator: admin.Serialize(), Nonce: envelope.NewNonce()})
	if err != nil {
		t.Fatal(err)
	}
	signature, err := admin.Sign(append(bytes.Clone(sh), raw...))
	if err != nil {
		t.Fatal(err)
	}
	env, err := envelope.New(admin, commonpb.HeaderType_CONFIG_UPDATE, channelID, &commonpb.ConfigUpdateEnvelope{
		ConfigUpdate: raw, Signatures: []*commonpb.ConfigSignature{{SignatureHeader: sh, Signature: signature}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func setMaxMessages(t testing.TB, n uint32) func(*commonpb.Config) {
	return func(c *commonpb.Config) {
		v := c.ChannelGroup.Groups["Orderer"].Values["BatchSize"]
		size := &ordererpb.BatchSize{}
		if err := proto.Unmarshal(v.Value, size); err != nil {
			t.Fatal(err)
		}
		size.MaxMessageCount = n
		v.Value, _ = proto.Marshal(size)
	}
}

func TestConfigUpdate(t *testing.T) {
	n := newNetwork(t)
	o := n.startJoined(t)
	c, _ := o.Channel(channelID)
	ok := func(r *ordererpb.BroadcastResponse) {
		t.Helper()
		if r.Status != commonpb.Status_SUCCESS {
			t.Fatal(r)
		}
	}
	ok(o.broadcast(t, message(t, n.user, channelID, "before")))
	stale := o.update(t, n.ordererAdmin, setMaxMessages(t, 7))
	if r := o.broadcast(t, o.update(t, n.user, setMaxMessages(t, 3))); r.Status != commonpb.Status_BAD_REQUEST || !strings.Contains(r.Info, "error applying config update") {
		t.Errorf("an update without the admin: %v", r)
	}
	ok(o.broadcast(t, o.update(t, n.ordererAdmin, setMaxMessages(t, 2))))
	if err := c.Wait(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	if got := c.Bundle().BatchSize().MaxMessageCount; got != 2 || c.Sequence() != 1 {
		t.Fatalf("after the update: %d messages, sequence %d", got, c.Sequence())
	}
	if r := o.broadcast(t, stale); r.Status != commonpb.Status_BAD_REQUEST {
		t.Errorf("an update of an old config: %v", r)
	}
	if r := o.broadcast(t, o.update(t, n.ordererAdmin, func(c *commonpb.Config) {
		v := c.ChannelGroup.Groups["Orderer"].Values["ConsensusType"]
		ct := &ordererpb.ConsensusType{}
		if err := proto.Unmarshal(v.Value, ct); err != nil {
			t.Fatal(err)
		}
		ct.Type = "BFT"
		v.Value, _ = proto.Marshal(ct)
	})); r.Status != commonpb.Status_BAD_REQUEST {
		t.Errorf("a change of consensus: %v", r)
	}
	ok(o.broadcast(t, message(t, n.user, channelID, "after")))
	verifyChain(t, o.pull(t, 0, func(b *commonpb.Block) bool { return b.Header.Number == 3 }))
}

func TestReopenGoesOn(t *testing.T) {
	n := newNetwork(t)
	cfg := n.config(t.TempDir())
	cfg.LogBytes = 20 << 10 // compact often
	for round := range 3 {
		o := n.start(t, cfg)
		if round == 0 {
			o.join(t)
		}
		c, _ := o.Channel(channelID)
		for i := range 30 {
			if r := o.broadcast(t, message(t, n.user, channelID, strings.Repeat("x", 1000)+fmt.Sprint(round, i))); r.Status != commonpb.Status_SUCCESS {
				t.Fatal(r)
			}
		}
		if round == 1 {
			if r := o.broadcast(t, o.update(t, n.ordererAdmin, setMaxMessages(t, 5))); r.Status != commonpb.Status_SUCCESS {
				t.Fatal(r)
			}
		}
		if want := uint64(min(round, 1)); round != 1 && c.Sequence() != want {
			t.Errorf("sequence %d after reopening, want %d", c.Sequence(), want)
		}
		seen := 0
		blocks := o.pull(t, 0, func(b *commonpb.Block) bool {
			seen += len(texts(t, b))
			return seen == 30*(round+1)
		})
		verifyChain(t, blocks)
		o.stop()
	}
}

func TestTwoProcessesOneFolder(t *testing.T) {
	n := newNetwork(t)
	cfg := n.config(t.TempDir())
	first := n.start(t, cfg)
	first.join(t)
	if _, err := order.Open(cfg); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second orderer on the folder: %v", err)
	}
}

// Envelopes beyond the bound are refused at once and not queued.
func TestBackPressure(t *testing.T) {
	n := newNetwork(t)
	cfg := n.config(t.TempDir())
	cfg.MaxInFlight = 3
	cfg.MaxLinger, cfg.LingerGap = 5*time.Second, 5*time.Second
	o := n.start(t, cfg)
	o.join(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	got := map[commonpb.Status]int{}
	var group sync.WaitGroup
	for i := range 40 {
		env := message(t, n.user, channelID, fmt.Sprint(i))
		group.Go(func() {
			status := commonpb.Status_SUCCESS
			var rej *order.Rejection
			if err := o.Submit(ctx, env); errors.As(err, &rej) {
				status = rej.Status
			} else if err != nil {
				status = commonpb.Status_UNKNOWN
			}
			mu.Lock()
			defer mu.Unlock()
			got[status]++
			if got[commonpb.Status_SERVICE_UNAVAILABLE] > 0 && got[commonpb.Status_SUCCESS] > 0 {
				cancel()
			}
		})
	}
	group.Wait()
	if got[commonpb.Status_SERVICE_UNAVAILABLE] == 0 || got[commonpb.Status_SUCCESS] == 0 {
		t.Errorf("answers %v", got)
	}
}
