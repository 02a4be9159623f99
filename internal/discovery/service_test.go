package discovery_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/wire/discoverypb"
	"github.com/hansa-ledger/hansa/internal/wire/gossippb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// town is a channel of three members whose peers know each other.
func town(t *testing.T) (w *world, a *peer, all map[string]*peer) {
	t.Helper()
	w = newWorld(t)
	w.rules = someRules
	all = map[string]*peer{
		"a1": w.peer("AlphaMSP", "and", "two", "or", "mixed"), "a2": w.peer("AlphaMSP", "and", "two"),
		"b1": w.peer("BetaMSP", "and", "two", "or"), "c1": w.peer("GammaMSP", "two", "or", "mixed"),
	}
	w.configure(all["a1"], all["b1"], all["c1"])
	a = all["a1"]
	await(t, "a1 knows all", func() bool {
		n := 0
		for _, m := range a.seen() {
			if m.Heard {
				n++
			}
		}
		return n == 3
	})
	return w, a, all
}

// names gives the names of peers in an answer, sorted; each is checked as clients do.
func names(t *testing.T, w *world, all map[string]*peer, peers []*discoverypb.Peer, state bool) string {
	t.Helper()
	var found []string
	for _, p := range peers {
		alive, info := &gossippb.GossipMessage{}, &gossippb.GossipMessage{}
		must(t, proto.Unmarshal(p.MembershipInfo.GetPayload(), alive))
		if alive.GetAliveMsg().GetMembership() == nil || alive.GetAliveMsg().Timestamp == nil || alive.Tag != gossippb.GossipMessage_EMPTY {
			t.Errorf("membership %v", alive)
		}
		if state {
			must(t, proto.Unmarshal(p.StateInfo.GetPayload(), info))
			if s := info.GetStateInfo(); s.GetTimestamp() == nil || s.GetProperties().GetLedgerHeight() == 0 || len(s.GetChannel_MAC()) != 32 || len(s.PkiId) != 32 {
				t.Errorf("state %v", info)
			}
		} else if p.StateInfo != nil {
			t.Error("a state where none belongs")
		}
		id, err := w.bundle.MSPs().Deserialize(p.Identity)
		must(t, err)
		must(t, id.Verify(p.MembershipInfo.Payload, p.MembershipInfo.Signature))
		for name, q := range all {
			if q.address == alive.GetAliveMsg().Membership.Endpoint {
				found = append(found, name)
			}
		}
	}
	slices.Sort(found)
	return strings.Join(found, " ")
}

func peerQuery(channel string, filter *peerpb.ChaincodeInterest) *discoverypb.Query {
	return &discoverypb.Query{Channel: channel, Query: &discoverypb.Query_PeerQuery{PeerQuery: &discoverypb.PeerMembershipQuery{Filter: filter}}}
}

func endorserQuery(channel string, interests ...*peerpb.ChaincodeInterest) *discoverypb.Query {
	return &discoverypb.Query{Channel: channel, Query: &discoverypb.Query_CcQuery{CcQuery: &discoverypb.ChaincodeQuery{Interests: interests}}}
}

func TestPeerQueries(t *testing.T) {
	w, a, all := town(t)
	client := w.orgs["BetaMSP"].Signer(t, "client")
	results, err := a.ask(client,
		peerQuery(w.id, nil),
		peerQuery(w.id, interest(t, "and")),
		peerQuery(w.id, interest(t, "two/ab")),
		&discoverypb.Query{Query: &discoverypb.Query_LocalPeers{LocalPeers: &discoverypb.LocalPeerQuery{}}},
		peerQuery(w.id, interest(t, "nothing")),
		peerQuery("elsewhere", nil),
		&discoverypb.Query{Channel: w.id},
		peerQuery("", nil))
	must(t, err)
	for i, want := range []string{"a1 a2 b1 c1", "a1 a2 b1", "a1 a2 b1", "a1 a2 b1 c1"} {
		var peers []*discoverypb.Peer
		for org, of := range results[i].GetMembers().GetPeersByOrg() {
			if org == "" || len(of.Peers) == 0 {
				t.Errorf("query %d: member %q has %d peers", i, org, len(of.Peers))
			}
			peers = append(peers, of.Peers...)
		}
		if got := names(t, w, all, peers, i < 3); got != want {
			t.Errorf("query %d: got %q, want %q", i, got, want)
		}
	}
	for i, want := range []string{"no chaincode nothing", "access denied", "unknown or missing request type", "unknown or missing request type"} {
		if got := results[4+i].GetError().GetContent(); got != want {
			t.Errorf("query %d: error %q, want %q", 4+i, got, want)
		}
	}
}

func TestConfigQuery(t *testing.T) {
	w, a, _ := town(t)
	results, err := a.ask(a.signer, &discoverypb.Query{Channel: w.id, Query: &discoverypb.Query_ConfigQuery{ConfigQuery: &discoverypb.ConfigQuery{}}})
	must(t, err)
	config := results[0].GetConfigResult()
	for _, id := range []string{"AlphaMSP", "BetaMSP", "GammaMSP", "OrdererMSP"} {
		if msp := config.GetMsps()[id]; msp.GetName() != id || len(msp.GetRootCerts()) == 0 || len(msp.GetTlsRootCerts()) == 0 {
			t.Errorf("%s: %v", id, msp)
		}
	}
	if got := fmt.Sprintln(config.GetOrderers()["OrdererMSP"].GetEndpoint()[0].Host, config.GetOrderers()["OrdererMSP"].GetEndpoint()[0].Port); got != "127.0.0.1 21310\n" {
		t.Errorf("the orderer is at %s", got)
	}
}

func TestEndorserQueries(t *testing.T) {
	w, a, all := town(t)
	for _, test := range []struct {
		interest *peerpb.ChaincodeInterest
		want     []string // layouts, each "quantity×peers of the group + ..."
		err      string
	}{
		{interest: interest(t, "and"), want: []string{"1×a1 a2 + 1×b1"}},
		{interest: interest(t, "two"), want: []string{"1×a1 a2 + 1×b1", "1×a1 a2 + 1×c1", "1×b1 + 1×c1"}},
		{interest: interest(t, "or"), want: []string{"1×a1", "1×b1", "1×c1"}},
		{interest: interest(t, "two or"), want: []string{"1×a1 + 1×b1", "1×a1 + 1×c1", "1×b1 + 1×c1"}},
		{interest: interest(t, "two/ab"), want: []string{"1×a1 a2 + 1×b1"}},
		{interest: interest(t, "two", "OutOf(2,'AlphaMSP.peer','AlphaMSP.peer')"), want: []string{"2×a1 a2 + 1×b1", "2×a1 a2 + 1×c1"}},
		{interest: interest(t, "or", "OutOf(2,'AlphaMSP.peer','AlphaMSP.peer')"), err: "failed constructing descriptor for "},
		{interest: interest(t, "and mixed"), err: "failed constructing descriptor for "}, // b1 has no "mixed"
		{interest: interest(t, "nothing"), err: "failed constructing descriptor for "},
		{interest: interest(t, "clients"), err: "failed constructing descriptor for "},
		{interest: &peerpb.ChaincodeInterest{}, err: "chaincode interest must contain at least one chaincode"},
		{interest: &peerpb.ChaincodeInterest{Chaincodes: []*peerpb.ChaincodeCall{{}}}, err: "chaincode name in interest cannot be empty"},
	} {
		t.Run(test.interest.String(), func(t *testing.T) {
			results, err := a.ask(a.signer, endorserQuery(w.id, test.interest))
			must(t, err)
			if test.err != "" {
				if got := results[0].GetError().GetContent(); !strings.HasPrefix(got, test.err) {
					t.Errorf("error %q, want %q", got, test.err)
				}
				return
			}
			content := results[0].GetCcQueryRes().GetContent()
			if len(content) != 1 || content[0].Chaincode != test.interest.Chaincodes[0].Name {
				t.Fatalf("got %v", results[0])
			}
			var got []string
			for _, l := range content[0].Layouts {
				var parts []string
				for group, n := range l.QuantitiesByGroup {
					parts = append(parts, fmt.Sprintf("%d×%s", n, names(t, w, all, content[0].EndorsersByGroups[group].GetPeers(), true)))
				}
				slices.SortFunc(parts, func(a, b string) int { return strings.Compare(a[3:], b[3:]) })
				got = append(got, strings.Join(parts, " + "))
			}
			slices.Sort(got)
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	results, err := a.ask(a.signer, endorserQuery(w.id))
	must(t, err)
	if got := results[0].GetError().GetContent(); got != "chaincode query must have at least one chaincode interest" {
		t.Error(got)
	}
}

func TestRefusedRequests(t *testing.T) {
	w, a, _ := town(t)
	stranger := identitytest.NewOrg(t, "AlphaMSP").Signer(t, "client")
	results, err := a.ask(stranger, peerQuery(w.id, nil))
	must(t, err)
	if got := results[0].GetError().GetContent(); got != "access denied" {
		t.Errorf("a stranger is told %v", results[0])
	}
	service := discovery.NewService(a.directory, w, true)
	for want, r := range map[string]*discoverypb.SignedRequest{
		"access denied, no authentication info in request": {},
		"access denied, client identity wasn't supplied":   {Payload: marshal(t, &discoverypb.Request{Authentication: &discoverypb.AuthInfo{}})},
		"client didn't send a TLS certificate":             {Payload: marshal(t, &discoverypb.Request{Authentication: &discoverypb.AuthInfo{ClientIdentity: []byte("x")}})},
	} {
		if _, err := service.Discover(t.Context(), r); err == nil || err.Error() != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	// Under mutual TLS a request belongs to the connection whose certificate it names.
	cert := a.signer.Certificate()
	ctx := grpcpeer.NewContext(t.Context(), &grpcpeer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}}})
	sum := sha256.Sum256(cert.Raw)
	for want, hash := range map[string][]byte{"<nil>": sum[:], "client claimed TLS hash doesn't match computed TLS hash from gRPC stream": {1, 2, 3}} {
		r := &discoverypb.SignedRequest{Payload: marshal(t, &discoverypb.Request{Authentication: &discoverypb.AuthInfo{ClientIdentity: []byte("x"), ClientTlsCertHash: hash}})}
		if _, err := service.Discover(ctx, r); fmt.Sprint(err) != want {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := a.ask(a.signer, make([]*discoverypb.Query, 65)...); err == nil {
		t.Error("a request with 65 queries was answered")
	}
}

// What one peer says of another is believed only with the other's signature, and only if it is newer.
func TestForgedStatements(t *testing.T) {
	w, a, all := town(t)
	service := discovery.NewService(a.directory, w, false)
	honest := func() *discoverypb.Peer {
		results, err := a.ask(a.signer, peerQuery(w.id, nil))
		must(t, err)
		for _, p := range results[0].GetMembers().GetPeersByOrg()["BetaMSP"].GetPeers() {
			return proto.Clone(p).(*discoverypb.Peer)
		}
		t.Fatal("b1 is not listed")
		return nil
	}
	edit := func(p *discoverypb.Peer, change func(alive, state *gossippb.GossipMessage)) {
		alive, state := &gossippb.GossipMessage{}, &gossippb.GossipMessage{}
		must(t, proto.Unmarshal(p.MembershipInfo.Payload, alive))
		must(t, proto.Unmarshal(p.StateInfo.Payload, state))
		alive.GetAliveMsg().Timestamp.SeqNum += 1000
		state.GetStateInfo().Timestamp.SeqNum += 1000
		change(alive, state)
		p.MembershipInfo.Payload, p.StateInfo.Payload = marshal(t, alive), marshal(t, state)
	}
	sign := func(p *discoverypb.Peer) {
		for _, e := range []*gossippb.Envelope{p.MembershipInfo, p.StateInfo} {
			var err error
			e.Signature, err = all["b1"].signer.Sign(e.Payload)
			must(t, err)
		}
	}
	show := func(p *discoverypb.Peer) {
		request := &discoverypb.Request{Authentication: &discoverypb.AuthInfo{ClientIdentity: a.signer.Serialize()}, Queries: []*discoverypb.Query{peerQuery(w.id, nil)}}
		payload := marshal(t, request)
		signature, err := a.signer.Sign(payload)
		must(t, err)
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("hansa-peer-bin", string(marshal(t, p))))
		_, err = service.Discover(ctx, &discoverypb.SignedRequest{Payload: payload, Signature: signature})
		must(t, err)
	}
	for name, forge := range map[string]func(p *discoverypb.Peer){
		"address": func(p *discoverypb.Peer) {
			edit(p, func(alive, _ *gossippb.GossipMessage) { alive.GetAliveMsg().Membership.Endpoint = "evil:1" })
		},
		"height": func(p *discoverypb.Peer) {
			edit(p, func(_, state *gossippb.GossipMessage) { state.GetStateInfo().Properties.LedgerHeight = 1e9 })
		},
		"another channel": func(p *discoverypb.Peer) {
			edit(p, func(_, state *gossippb.GossipMessage) {
				state.GetStateInfo().Channel_MAC[0]++
				state.GetStateInfo().Properties.LedgerHeight = 1e9
			})
			sign(p)
		},
		"no address": func(p *discoverypb.Peer) {
			edit(p, func(alive, _ *gossippb.GossipMessage) { alive.GetAliveMsg().Membership.Endpoint = "evil" })
			sign(p)
		},
		"identity": func(p *discoverypb.Peer) { p.Identity = a.signer.Serialize() },
		"stranger": func(p *discoverypb.Peer) {
			p.Identity = identitytest.NewOrg(t, "BetaMSP").Signer(t, "peer").Serialize()
		},
	} {
		p := honest()
		forge(p)
		show(p)
		for address, m := range a.seen() {
			if strings.HasPrefix(address, "evil") || m.Height > 1e6 || len(a.seen()) != 3 {
				t.Errorf("forged %s: %s is believed at %d", name, address, m.Height)
			}
		}
	}
	p := honest()
	edit(p, func(_, state *gossippb.GossipMessage) { state.GetStateInfo().Properties.LedgerHeight = 1e9 })
	sign(p)
	show(p)
	if m := a.seen()[all["b1"].address]; m.Height != 1e9 {
		t.Error("a true statement is not believed")
	}
	old := honest()
	edit(old, func(alive, state *gossippb.GossipMessage) {
		alive.GetAliveMsg().Timestamp.SeqNum, state.GetStateInfo().Timestamp.SeqNum = 1, 1
		state.GetStateInfo().Properties.LedgerHeight = 2
	})
	sign(old)
	show(old)
	if m := a.seen()[all["b1"].address]; m.Height != 1e9 {
		t.Error("an old statement replaces a newer one")
	}
	left := honest()
	edit(left, func(_, state *gossippb.GossipMessage) {
		state.GetStateInfo().Timestamp.SeqNum += 1e6
		state.GetStateInfo().Properties.LeftChannel = true
	})
	sign(left)
	show(left)
	if m := a.seen()[all["b1"].address]; m.Heard {
		t.Error("a peer that left the channel is listed")
	}
}

func FuzzDiscover(f *testing.F) {
	w := newWorld(f)
	w.rules = someRules
	a := w.peer("AlphaMSP", "and")
	a.stop()
	service := discovery.NewService(a.directory, everyone{}, false)
	payload := marshal(f, &discoverypb.Request{Authentication: &discoverypb.AuthInfo{ClientIdentity: a.signer.Serialize()},
		Queries: []*discoverypb.Query{peerQuery(w.id, nil), endorserQuery(w.id, interest(f, "and")), peerQuery(w.id, interest(f, "two/ab"))}})
	f.Add(payload, []byte{})
	for _, m := range a.directory.Members(w.id) {
		f.Add(payload, marshal(f, &discoverypb.Peer{Identity: a.signer.Serialize(), MembershipInfo: &gossippb.Envelope{Payload: []byte(m.Address)}, StateInfo: &gossippb.Envelope{}}))
	}
	f.Fuzz(func(t *testing.T, payload, shown []byte) {
		ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("hansa-peer-bin", string(shown)))
		r, err := service.Discover(ctx, &discoverypb.SignedRequest{Payload: payload})
		if err == nil {
			for _, result := range r.Results {
				if result.GetResult() == nil {
					t.Error("a query without an answer")
				}
			}
		}
		if len(a.directory.Members(w.id)) != 1 {
			t.Error("an unsigned statement is believed")
		}
	})
}

// everyone may ask.
type everyone struct{}

func (everyone) Discover(string, bool, []byte, []byte, []byte) error { return nil }
