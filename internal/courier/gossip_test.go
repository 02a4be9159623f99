package courier_test

import (
	"context"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/hansa-ledger/hansa/internal/courier"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/wire/gossippb"
)

// line is a link without the wire, which package gossip tests.
type line struct{ from, to *peer }

func (l line) Push(_ context.Context, channelID string, p *gossippb.PrivatePayload) error {
	return l.to.Take(channelID, l.from.signer.Serialize(), p)
}

func (l line) Pull(ctx context.Context, channelID string, digests []*gossippb.PvtDataDigest) ([]*gossippb.PvtDataElement, error) {
	return l.to.Give(ctx, channelID, l.from.signer.Serialize(), digests)
}

// noted is a link that notes what is brought.
type noted struct {
	line
	collections chan string
}

func (n noted) Push(_ context.Context, _ string, p *gossippb.PrivatePayload) error {
	n.collections <- p.CollectionName
	return nil
}

// Two members' peers may claim one address: each gets what is meant for its member.
func TestSharedAddress(t *testing.T) {
	w := newWorld(t, firstPrivate, "Alpha")
	alpha := w.peers[0]
	links := map[string]noted{"BetaMSP": {collections: make(chan string, 9)}, "GammaMSP": {collections: make(chan string, 9)}}
	c := must(courier.New(courier.Config{Signer: alpha.signer, MSPID: "AlphaMSP", Certificate: alpha.cert.Certificate[0],
		Channel: func(id string) (courier.Channel, bool) { return alpha, id == channelID },
		Peers: func(string) (all []courier.Peer) {
			for mspID, l := range links {
				all = append(all, courier.Peer{MSPID: mspID, Address: "same.example.com:7051", Link: l})
			}
			return all
		}}))(t)
	defer c.Close()
	d, other := data(t, "two", "forBeta", 1, 1, "OR('BetaMSP.member')"), data(t, "two", "forGamma", 1, 1, "OR('GammaMSP.member')")
	d.Set.NsPvtRwset = append(d.Set.NsPvtRwset, other.Set.NsPvtRwset...)
	d.Collections["pvt"].Config = append(d.Collections["pvt"].Config, other.Collections["pvt"].Config...)
	if err := c.Distribute(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for mspID, want := range map[string]string{"BetaMSP": "forBeta", "GammaMSP": "forGamma"} {
		l := links[mspID]
		if len(l.collections) != 1 {
			t.Errorf("%s got %d collections", mspID, len(l.collections))
		} else if got := <-l.collections; got != want {
			t.Errorf("%s got %s", mspID, got)
		}
	}
}

// What is done over links comes to the same as what is done by Hansa's own calls.
func TestByGossip(t *testing.T) {
	t.Run("reconcile", func(t *testing.T) {
		w := newWorld(t, goldenHeight(t), "Beta-", "Alpha", "Beta", "Gamma")
		w.linked = true
		bare, whole := w.peers[0], w.peers[2]
		taken := must(bare.ReconcileOnce(t.Context(), channelID))(t)
		if left := must(bare.ledger.MissingPrivateData(10))(t); len(left) > 0 || taken < 20 {
			t.Errorf("took %d; still missing: %v", taken, left)
		}
		if got, want := privateState(t, bare.ledger), privateState(t, whole.ledger); !reflect.DeepEqual(got, want) {
			t.Errorf("state\n%v\nwant\n%v", got, want)
		}
	})
	t.Run("distribute, then fetch", func(t *testing.T) {
		w := newWorld(t, firstPrivate, "Alpha", "Beta", "Gamma")
		w.linked = true
		alpha, beta, gamma := w.peers[0], w.peers[1], w.peers[2]
		d := data(t, "brought", "collAB", 1, 1, "OR('AlphaMSP.member','BetaMSP.member')")
		if err := alpha.Distribute(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if sets := must(beta.ledger.Transient().Get("brought"))(t); len(sets) != 1 {
			t.Errorf("beta has %d sets", len(sets))
		}
		refused := data(t, "to a stranger", "collAB", 2, 2, "OR('AlphaMSP.member','BetaMSP.member','GammaMSP.member')")
		if err := alpha.Distribute(t.Context(), refused); err == nil || !strings.Contains(err.Error(), "Failed disseminating 1 out of 2") {
			t.Errorf("%v, want that gamma's peer does not take it", err)
		}
		// Two endorsers wrote different things: both are given, for the hash is not in the request.
		other := data(t, "brought", "collAB", 1, 1, "OR('AlphaMSP.member')")
		other.Set.NsPvtRwset[0].CollectionPvtRwset[0].Rwset = data(t, "another", "collAB", 1, 1, "OR('AlphaMSP.member')").Set.NsPvtRwset[0].CollectionPvtRwset[0].Rwset
		if err := beta.ledger.Transient().Put("brought", firstPrivate, other.Set); err != nil {
			t.Fatal(err)
		}
		digest := &gossippb.PvtDataDigest{TxId: "brought", Namespace: "pvt", Collection: "collAB", BlockSeq: firstPrivate}
		elements := must(beta.Give(t.Context(), channelID, alpha.signer.Serialize(), []*gossippb.PvtDataDigest{digest, nil}))(t)
		if len(elements) != 1 || len(elements[0].Payload) != 2 {
			t.Errorf("given %v", elements)
		}
		if elements, err := beta.Give(t.Context(), channelID, gamma.signer.Serialize(), []*gossippb.PvtDataDigest{digest}); len(elements) != 0 || err == nil {
			t.Errorf("gamma, which is not of the channel, is given %v", elements)
		}
	})
	t.Run("misuse", func(t *testing.T) {
		w := newWorld(t, firstPrivate, "Alpha", "Beta")
		alpha, beta := w.peers[0], w.peers[1]
		good := &gossippb.PrivatePayload{TxId: "t", Namespace: "pvt", CollectionName: "collAB", PrivateRwset: data(t, "t", "collAB", 0, 0, "OR('AlphaMSP.member')").Set.NsPvtRwset[0].CollectionPvtRwset[0].Rwset}
		if err := beta.Take(channelID, alpha.signer.Serialize(), good); err != nil {
			t.Fatal(err)
		}
		stranger := identitytest.NewOrg(t, "AlphaMSP").Signer(t, "peer")
		for name, test := range map[string]struct {
			channel string
			by      []byte
			payload *gossippb.PrivatePayload
			code    codes.Code
		}{
			"another channel": {"elsewhere", alpha.signer.Serialize(), good, codes.NotFound},
			"a stranger":      {channelID, stranger.Serialize(), good, codes.PermissionDenied},
			"a client":        {channelID, w.orgs["AlphaMSP"].Signer(t, "client").Serialize(), good, codes.PermissionDenied},
			"nobody":          {channelID, nil, good, codes.PermissionDenied},
			"nothing":         {channelID, alpha.signer.Serialize(), nil, codes.InvalidArgument},
			"no collection":   {channelID, alpha.signer.Serialize(), &gossippb.PrivatePayload{TxId: "t", Namespace: "pvt", CollectionName: "none", PrivateRwset: good.PrivateRwset}, codes.PermissionDenied},
			"no write set":    {channelID, alpha.signer.Serialize(), &gossippb.PrivatePayload{TxId: "t", Namespace: "pvt", CollectionName: "collAB", PrivateRwset: []byte("no")}, codes.InvalidArgument},
		} {
			if err := beta.Take(test.channel, test.by, test.payload); status.Code(err) != test.code {
				t.Errorf("%s: %v, want %v", name, err, test.code)
			}
		}
		if _, err := beta.Give(t.Context(), channelID, alpha.signer.Serialize(), make([]*gossippb.PvtDataDigest, 1001)); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v for too many digests", err)
		}
	})
}
