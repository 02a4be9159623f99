// Package private tests private data on a whole network: what a member writes reaches the others of its collection and nobody
// else, also after they were away, and goes when it has to.
package private

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

func TestMain(m *testing.M) { network.Main(m) }

// bed is a network of three members with the vault contract, whose endorsement is up to any one of them.
type bed struct {
	*network.Network
	t         *testing.T
	contracts []*client.Contract // as a user of each member, through its own peer
	msps      []string
}

func start(t *testing.T) *bed {
	// So that nothing takes long that a network would take its time for.
	for name, value := range map[string]string{"RECONCILEINTERVAL": "1s", "ERASEAFTER": "500ms", "PUSHTIMEOUT": "1s", "PULLTIMEOUT": "3s"} {
		t.Setenv("HANSA_PEER_PRIVATEDATA_"+name, value)
	}
	b := &bed{Network: network.Start(t, "--members", "3", "--orderers", "1"), t: t}
	plan := b.Plan()
	for _, m := range plan.Members {
		b.msps = append(b.msps, m.MSPID)
		c, err := plan.Client(m, "User1")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		b.contracts = append(b.contracts, c.Channel(plan.Channel).Contract("vault"))
	}
	b.deploy(fmt.Sprintf("OR('%s.member', '%s.member')", b.msps[0], b.msps[1]))
	return b
}

// deploy puts the contract on the channel, or upgrades it; deals says who belongs to the collection of that name.
func (b *bed) deploy(deals string) {
	b.t.Helper()
	both := fmt.Sprintf("OR('%s.member', '%s.member')", b.msps[0], b.msps[1])
	first := fmt.Sprintf("OR('%s.member')", b.msps[0])
	raw, err := json.Marshal([]map[string]any{
		{"name": "deals", "policy": deals, "maxPeerCount": 1},
		{"name": "discreet", "policy": both, "maxPeerCount": 1, "memberOnlyRead": true, "memberOnlyWrite": true},
		{"name": "strict", "policy": both, "requiredPeerCount": 1, "maxPeerCount": 1},
		{"name": "fetched", "policy": both, "maxPeerCount": 0}, // brought to nobody
		{"name": "lonely", "policy": first, "requiredPeerCount": 1, "maxPeerCount": 1},
		{"name": "brief", "policy": both, "maxPeerCount": 1, "blockToLive": 2},
		{"name": "agreed", "policy": both, "maxPeerCount": 1,
			"endorsementPolicy": map[string]string{"signaturePolicy": fmt.Sprintf("AND('%s.peer', '%s.peer')", b.msps[0], b.msps[1])}},
	})
	b.must(err)
	collections := filepath.Join(b.t.TempDir(), "collections_config.json")
	b.must(os.WriteFile(collections, raw, 0o600))
	b.Hansa("contract", "deploy", filepath.Join(network.Root(b.t), "e2e", "private", "vault"), "--collections", collections,
		"--policy", fmt.Sprintf("OR('%s.peer','%s.peer','%s.peer')", b.msps[0], b.msps[1], b.msps[2]))
}

// submit calls a function as a member, endorsed by that member's peer alone.
func (b *bed) submit(member int, value, function string, args ...string) error {
	call := client.Strings(function, args...)
	call.Members = []string{b.msps[member]}
	if value != "" {
		call.Transient = map[string][]byte{"value": []byte(value)}
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), 20*time.Second)
	defer cancel()
	_, err := b.contracts[member].Submit(ctx, call)
	return err
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// refused checks that an error says why.
func (b *bed) refused(err error, why string) {
	b.t.Helper()
	if err == nil {
		b.t.Errorf("succeeded; it should have failed with %q", why)
	} else if !strings.Contains(err.Error(), why) {
		b.t.Errorf("failed with %v; wanted %q", err, why)
	}
}

func (b *bed) evaluate(member int, function, collection, key string) (string, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	got, err := b.contracts[member].Evaluate(ctx, client.Strings(function, collection, key))
	return string(got), err
}

// reads waits until a member's peer gives a value.
func (b *bed) reads(member int, collection, key, want string) {
	b.t.Helper()
	b.Await(fmt.Sprintf("%s of %s at %s", key, collection, b.msps[member]), func() error {
		if got, err := b.evaluate(member, "Get", collection, key); err != nil || got != want {
			return fmt.Errorf("%q, %w", got, err)
		}
		return nil
	})
}

// hasHash waits until a member's peer has committed a key of a collection.
func (b *bed) hasHash(member int, collection, key string) {
	b.t.Helper()
	b.Await(fmt.Sprintf("the hash of %s in %s at %s", key, collection, b.msps[member]), func() error {
		if got, err := b.evaluate(member, "Hash", collection, key); err != nil || got == "" {
			return fmt.Errorf("%q, %w", got, err)
		}
		return nil
	})
}

func (b *bed) signal(member int, s syscall.Signal) {
	b.t.Helper()
	p := b.Status()["peer0."+b.Plan().Members[member].Name]
	if p.PID == 0 {
		b.t.Fatalf("there is no peer of %s: %v", b.msps[member], b.Status())
	}
	b.must(syscall.Kill(p.PID, s))
}

const notHere = "private data matching public hash version is not available"

func TestPrivateData(t *testing.T) {
	b := start(t)

	// Who belongs to the collection has the data, whoever else has only its hash.
	b.must(b.submit(0, "ten tons of salt", "Put", "deals", "salt"))
	b.reads(0, "deals", "salt", "ten tons of salt")
	b.reads(1, "deals", "salt", "ten tons of salt")
	b.hasHash(2, "deals", "salt")
	_, err := b.evaluate(2, "Get", "deals", "salt")
	b.refused(err, notHere)

	// Any member's peer may endorse a write; the data goes to those who belong, and is not kept by who does not.
	b.must(b.submit(2, "from outside", "Put", "deals", "gift"))
	b.reads(0, "deals", "gift", "from outside")
	b.reads(1, "deals", "gift", "from outside")
	b.hasHash(2, "deals", "gift")
	_, err = b.evaluate(2, "Get", "deals", "gift")
	b.refused(err, notHere)

	// memberOnlyRead and memberOnlyWrite.
	b.must(b.submit(1, "amber", "Put", "discreet", "ware"))
	b.reads(0, "discreet", "ware", "amber")
	_, err = b.evaluate(2, "Get", "discreet", "ware")
	b.refused(err, "tx creator does not have read access permission on privatedata in chaincodeName:vault collectionName: discreet")
	b.refused(b.submit(2, "fur", "Put", "discreet", "ware"), "tx creator does not have write access permission on privatedata in chaincodeName:vault collectionName: discreet")

	// A collection's own endorsement policy: the gateway asks whom it names, and fewer do not suffice.
	agreed := client.Strings("Put", "agreed", "terms")
	agreed.Transient = map[string][]byte{"value": []byte("both signed")}
	_, err = b.contracts[0].Submit(t.Context(), agreed)
	b.must(err)
	b.reads(1, "agreed", "terms", "both signed")
	b.refused(b.submit(0, "one signed", "Put", "agreed", "terms"), "ENDORSEMENT_POLICY_FAILURE")

	// Implicit collections.
	implicit := "_implicit_org_" + b.msps[1]
	b.must(b.submit(1, "my own", "Put", implicit, "note"))
	b.reads(1, implicit, "note", "my own")
	b.hasHash(0, implicit, "note")
	_, err = b.evaluate(0, "Get", implicit, "note")
	b.refused(err, notHere)

	// requiredPeerCount.
	b.must(b.submit(0, "sure", "Put", "strict", "thing"))
	b.reads(1, "strict", "thing", "sure")
	b.refused(b.submit(0, "alone", "Put", "lonely", "thing"),
		"could not build private data dissemination plan for chaincode vault and collection lonely: required to disseminate to at least 1 peers, but know of only 0 eligible peers")
	b.signal(1, syscall.SIGSTOP)
	b.refused(b.submit(0, "unsure", "Put", "strict", "thing"), "Failed disseminating 1 out of 1 private dissemination plans")

	// A peer that was away gets what it missed when it commits the block; or, if nobody could give it then, later.
	b.must(b.submit(0, "while you were away", "Put", "deals", "letter"))
	b.signal(1, syscall.SIGCONT)
	b.reads(1, "deals", "letter", "while you were away")

	b.signal(1, syscall.SIGSTOP)
	b.must(b.submit(0, "better late", "Put", "fetched", "parcel"))
	b.signal(0, syscall.SIGSTOP)
	b.signal(1, syscall.SIGCONT)
	b.hasHash(1, "fetched", "parcel")
	_, err = b.evaluate(1, "Get", "fetched", "parcel")
	b.refused(err, notHere)
	b.signal(0, syscall.SIGCONT)
	b.reads(1, "fetched", "parcel", "better late")

	// Readers of the blocks get the private data that they may have.
	b.must(b.submit(0, "to be delivered", "Put", "discreet", "news"))
	b.reads(1, "discreet", "news", "to be delivered")
	if got := b.delivered(1, 1); !strings.Contains(got, "to be delivered") {
		t.Errorf("a member of the collection is delivered %q", got)
	}
	if got := b.delivered(1, 2); got != "" {
		t.Errorf("who does not belong to the collection is delivered %q", got)
	}

	// What is purged is on no disk any more, soon.
	b.must(b.submit(0, "a secret to forget", "Put", "deals", "secret"))
	b.reads(1, "deals", "secret", "a secret to forget")
	b.must(b.submit(0, "", "Purge", "deals", "secret"))
	b.reads(0, "deals", "secret", "")
	b.reads(1, "deals", "secret", "")
	b.Await("the erasure", func() error { return b.onDisk("a secret to forget") })

	// A value expires with the second block after its own but one.
	b.must(b.submit(0, "for a short time", "Put", "brief", "ice"))
	b.reads(1, "brief", "ice", "for a short time")
	for i := range 3 {
		b.must(b.submit(0, "", "Touch", fmt.Sprint(i)))
	}
	b.reads(0, "brief", "ice", "")
	b.reads(1, "brief", "ice", "")
	if got, err := b.evaluate(0, "Hash", "brief", "ice"); got != "" || err != nil {
		t.Errorf("the hash of an expired value: %q, %v", got, err)
	}

	// All of it survives a restart.
	b.KillAll()
	b.Up()
	b.reads(0, "deals", "letter", "while you were away")
	b.reads(1, "fetched", "parcel", "better late")
	b.reads(1, "deals", "secret", "")

	// Who is let into a collection gets what is in it.
	b.deploy(fmt.Sprintf("OR('%s.member', '%s.member', '%s.member')", b.msps[0], b.msps[1], b.msps[2]))
	b.reads(2, "deals", "letter", "while you were away")
	b.reads(2, "deals", "secret", "")
	_, err = b.evaluate(2, "Get", "strict", "thing")
	b.refused(err, notHere)

	// An upgrade that does not mention collections keeps them.
	b.Hansa("contract", "deploy", filepath.Join(network.Root(t), "e2e", "private", "vault"))
	b.reads(2, "deals", "letter", "while you were away")
}

// delivered is the private data of the newest block as a peer delivers it to a user of a member.
func (b *bed) delivered(peer, user int) (private string) {
	b.t.Helper()
	plan := b.Plan()
	at, reader := plan.Members[peer], plan.Members[user]
	id, err := client.LoadIdentity(reader.MSPID, plan.UserMSP(reader, "User1"))
	b.must(err)
	roots, err := credentials.NewClientTLSFromFile(plan.TLSRoots(at), "")
	b.must(err)
	conn, err := grpc.NewClient(at.Peers[0].Address(), grpc.WithTransportCredentials(roots))
	b.must(err)
	defer conn.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	stream, err := peerpb.NewDeliverClient(conn).DeliverWithPrivateData(ctx)
	b.must(err)
	newest := &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_Newest{Newest: &ordererpb.SeekNewest{}}}
	request, err := envelope.New(id, commonpb.HeaderType_DELIVER_SEEK_INFO, plan.Channel, &ordererpb.SeekInfo{Start: newest, Stop: newest}, nil)
	b.must(err)
	b.must(stream.Send(request))
	response, err := stream.Recv()
	b.must(err)
	block := response.GetBlockAndPrivateData()
	if block.GetBlock().GetHeader() == nil {
		b.t.Fatalf("delivered %v", response)
	}
	for _, set := range block.PrivateDataMap {
		for _, ns := range set.NsPvtRwset {
			for _, c := range ns.CollectionPvtRwset {
				private += string(c.Rwset)
			}
		}
	}
	return private
}

// onDisk is an error if any file of the network holds the text.
func (b *bed) onDisk(text string) error {
	return filepath.WalkDir(b.Dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil
		}
		raw, err := os.ReadFile(name)
		if err == nil && bytes.Contains(raw, []byte(text)) {
			return fmt.Errorf("%s holds it", name)
		}
		return nil
	})
}
