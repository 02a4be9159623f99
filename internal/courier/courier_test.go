package courier_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/courier"
	"github.com/hansa-ledger/hansa/internal/endorse"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/privatedatapb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	vectors   = "../../testdata/vectors"
	channelID = "devledger"
	// The golden ledger's collections exist from block 52 on; 53 is the first that writes to them.
	firstPrivate = 53
)

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// world is the golden ledger at peers of its members, with keys of the test's own.
type world struct {
	t      testing.TB
	bundle *channel.Bundle
	orgs   map[string]*org
	peers  []*peer
	asking func() // called when a courier wants to know the other peers
	linked bool   // the peers are known to each other by links as with peers of Fabric
}

type org struct {
	*identitytest.Org
	tls *identitytest.CA
}

type peer struct {
	*courier.Courier
	w       *world
	org     *org
	address string
	signer  *identity.Signer
	cert    tls.Certificate
	ledger  *ledger.Ledger
	server  *grpc.Server
	commit  sync.Mutex
}

func (p *peer) Bundle() *channel.Bundle { return p.w.bundle }
func (p *peer) Ledger() *ledger.Ledger  { return p.ledger }
func (p *peer) CommitLate(_ context.Context, late []ledger.Late) (int, error) {
	p.commit.Lock()
	defer p.commit.Unlock()
	return p.ledger.CommitLate(late)
}

// newWorld brings the golden ledger to a height at one peer of each named member; the private data of those whose name ends in "-"
// is withheld.
func newWorld(t testing.TB, height uint64, names ...string) *world {
	t.Helper()
	w := &world{t: t, orgs: map[string]*org{}}
	for _, mspID := range []string{"AlphaMSP", "BetaMSP", "GammaMSP"} {
		o := &org{identitytest.NewOrg(t, mspID), identitytest.NewCA(t, "tls "+mspID)}
		o.Config.TlsRootCerts = [][]byte{o.tls.PEM}
		w.orgs[mspID] = o
	}
	for _, name := range names {
		name, bare := strings.CutSuffix(name, "-")
		p := &peer{w: w, org: w.orgs[name+"MSP"]}
		p.signer = p.org.Signer(t, "peer")
		p.cert = p.org.certificate(t)
		p.ledger = must(ledger.Open(ledger.Config{Dir: "ledger", ChannelID: channelID, FS: vfs.NewMem()}))(t)
		t.Cleanup(func() { p.ledger.Close() })
		for n := range height {
			c := &ledger.Commit{Block: goldenBlock(t, n)}
			c.Private = privateOf(t, name, n)
			if bare {
				c.Missing, c.Private = missingOf(c.Block, c.Private), nil
			}
			if err := p.ledger.Commit(c); err != nil {
				t.Fatal(err)
			}
		}
		w.peers = append(w.peers, p)
	}
	w.bundle = w.newBundle()
	for _, p := range w.peers {
		w.serve(p)
	}
	return w
}

// certificate is a TLS certificate of the member for the loopback.
func (o *org) certificate(t testing.TB) tls.Certificate {
	leaf := o.tls.Issue(t, "node", nil, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
	return tls.Certificate{Certificate: [][]byte{leaf.Cert.Raw}, PrivateKey: leaf.Key, Leaf: leaf.Cert}
}

// newBundle is the ledger's configuration with the members' authorities replaced.
func (w *world) newBundle() *channel.Bundle {
	s := w.peers[0].ledger.NewSnapshot()
	defer s.Close()
	value := must(s.Get("", rwset.ConfigKey))(w.t)
	envelope := &commonpb.ConfigEnvelope{}
	if err := proto.Unmarshal(value.Value, envelope); err != nil {
		w.t.Fatal(err)
	}
	for name, group := range envelope.Config.ChannelGroup.Groups["Application"].Groups {
		if o := w.orgs[name+"MSP"]; o != nil {
			group.Values["MSP"].Value = must(proto.Marshal(o.MSPConfig(w.t)))(w.t)
		}
	}
	return must(channel.NewBundle(channelID, envelope.Config, identity.NewVerifier(identity.Config{})))(w.t)
}

func (w *world) serve(p *peer) {
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(w.t)
	p.address = listener.Addr().String()
	p.Courier = must(courier.New(courier.Config{
		Signer: p.signer, MSPID: p.org.MSPID, Certificate: p.cert.Certificate[0], PushTimeout: 2 * time.Second, PullTimeout: 2 * time.Second,
		Channel: func(id string) (courier.Channel, bool) { return p, id == channelID },
		Peers: func(string) (others []courier.Peer) {
			if w.asking != nil {
				w.asking()
			}
			for _, other := range w.peers {
				if other != p && w.linked {
					others = append(others, courier.Peer{MSPID: other.org.MSPID, Address: other.address, Link: line{p, other}})
				} else if other != p {
					others = append(others, courier.Peer{MSPID: other.org.MSPID, Address: other.address, Conn: w.dial(other, &p.cert)})
				}
			}
			return others
		},
	}))(w.t)
	p.server = grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{p.cert}, ClientAuth: tls.RequestClientCert})))
	privatedatapb.RegisterPrivateDataServer(p.server, p.Courier)
	go p.server.Serve(listener)
	w.t.Cleanup(p.server.Stop)
	w.t.Cleanup(p.Courier.Close)
}

func (w *world) dial(to *peer, cert *tls.Certificate) *grpc.ClientConn {
	roots := x509.NewCertPool()
	roots.AddCert(to.org.tls.Cert)
	config := &tls.Config{RootCAs: roots}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	conn := must(grpc.NewClient(to.address, grpc.WithTransportCredentials(credentials.NewTLS(config))))(w.t)
	w.t.Cleanup(func() { conn.Close() })
	return conn
}

func goldenBlock(t testing.TB, n uint64) *block.Parsed {
	t.Helper()
	raw := must(os.ReadFile(filepath.Join(vectors, "blocks", fmt.Sprintf("%06d.block", n))))(t)
	b := &commonpb.Block{}
	if err := proto.Unmarshal(raw, b); err != nil {
		t.Fatal(err)
	}
	return block.Parse(b)
}

func goldenHeight(t testing.TB) uint64 {
	return uint64(len(must(filepath.Glob(filepath.Join(vectors, "blocks", "*.block")))(t)))
}

func privateOf(t testing.TB, name string, n uint64) (private []ledger.TxPrivate) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, "pvtdata", name, fmt.Sprintf("%06d.json", n)))
	if err != nil {
		return nil // it had none
	}
	var file struct {
		Txs map[string]struct {
			Set string `json:"tx_pvt_read_write_set_hex"`
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	for index, tx := range file.Txs {
		set := &rwsetpb.TxPvtReadWriteSet{}
		if err := proto.Unmarshal(must(hex.DecodeString(tx.Set))(t), set); err != nil {
			t.Fatal(err)
		}
		private = append(private, ledger.TxPrivate{Tx: must(strconv.ParseUint(index, 10, 64))(t), Set: set})
	}
	slices.SortFunc(private, func(a, b ledger.TxPrivate) int { return int(a.Tx) - int(b.Tx) })
	return private
}

// missingOf lists what of the private data belongs to valid transactions.
func missingOf(b *block.Parsed, private []ledger.TxPrivate) (missing []ledger.Missing) {
	codes := block.Filter(b.Block)
	for _, w := range wantedOf(b, private) {
		if codes[w.Tx] == byte(peerpb.TxValidationCode_VALID) {
			missing = append(missing, ledger.Missing{Block: w.Block, Tx: w.Tx, Namespace: w.Namespace, Collection: w.Collection, Eligible: true})
		}
	}
	return missing
}

func wantedOf(b *block.Parsed, private []ledger.TxPrivate) (wanted []courier.Wanted) {
	for _, p := range private {
		for _, ns := range p.Set.NsPvtRwset {
			for _, c := range ns.CollectionPvtRwset {
				hash := sha256.Sum256(c.Rwset)
				wanted = append(wanted, courier.Wanted{Block: b.Header.Number, Tx: p.Tx, TxID: ledger.TxID(b.Txs[p.Tx]), Namespace: ns.Namespace, Collection: c.CollectionName, Hash: hash[:]})
			}
		}
	}
	return wanted
}

// privateState is all private values of a ledger.
func privateState(t testing.TB, l *ledger.Ledger) map[string]string {
	t.Helper()
	s := l.NewSnapshot()
	defer s.Close()
	all := map[string]string{}
	for _, p := range must(s.PrivatePlaces())(t) {
		it := must(s.PrivateRange(p.Namespace, p.Collection, "", ""))(t)
		for {
			key, v, ok, err := it.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			all[fmt.Sprintf("%s/%s/%q", p.Namespace, p.Collection, key)] = fmt.Sprintf("%q at %v", v.Value, v.Version)
		}
		it.Close()
	}
	return all
}

// TestReconcile gets a whole ledger's private data from the peers of other members and another one of the own.
func TestReconcile(t *testing.T) {
	w := newWorld(t, goldenHeight(t), "Beta-", "Alpha", "Beta", "Gamma")
	bare, whole := w.peers[0], w.peers[2]
	if len(must(bare.ledger.MissingPrivateData(1000))(t)) < 20 {
		t.Fatal("hardly anything is missing")
	}
	taken := must(bare.ReconcileOnce(t.Context(), channelID))(t)
	if left := must(bare.ledger.MissingPrivateData(10))(t); len(left) > 0 || taken < 20 {
		t.Errorf("took %d; still missing: %v", taken, left)
	}
	if got, want := privateState(t, bare.ledger), privateState(t, whole.ledger); !reflect.DeepEqual(got, want) {
		t.Errorf("state\n%v\nwant\n%v", got, want)
	}
}

// TestLetIn gets the data that was written to a collection before the member came to belong to it.
func TestLetIn(t *testing.T) {
	w := newWorld(t, goldenHeight(t), "Beta-", "Alpha")
	beta := w.peers[0]
	beta.ledger.Close()
	l := must(ledger.Open(ledger.Config{Dir: "ledger", ChannelID: channelID, FS: vfs.NewMem()}))(t)
	beta.ledger = l
	for n := range goldenHeight(t) {
		c := &ledger.Commit{Block: goldenBlock(t, n), Missing: missingOf(goldenBlock(t, n), privateOf(t, "Alpha", n))}
		for i := range c.Missing {
			c.Missing[i].Eligible = false // as if it were a stranger to all of them
		}
		if err := l.Commit(c); err != nil {
			t.Fatal(err)
		}
	}
	if missing := must(l.MissingPrivateData(1))(t); len(missing) > 0 {
		t.Fatal(missing)
	}
	taken := must(beta.ReconcileOnce(t.Context(), channelID))(t)
	if left := must(l.MissingPrivateData(1))(t); taken < 5 || len(left) > 0 {
		t.Errorf("took %d, still missing %v", taken, left)
	}
	state := privateState(t, l)
	for _, key := range []string{`pvt/collAB/"pk2"`, `pvt/collAB/"pk6"`} {
		if state[key] == "" || state[key] != privateState(t, w.peers[1].ledger)[key] {
			t.Errorf("%s: %s", key, state[key])
		}
	}
	for key := range state {
		if strings.Contains(key, "_implicit_org_Alpha") {
			t.Errorf("has %s", key)
		}
	}
}

// TestReconcileInTheBackground goes on until the data is there.
func TestReconcileInTheBackground(t *testing.T) {
	w := newWorld(t, firstPrivate+1, "Beta-", "Beta")
	bare := w.peers[0]
	c := must(courier.New(courier.Config{
		Signer: bare.signer, MSPID: bare.org.MSPID, Certificate: bare.cert.Certificate[0], ReconcileInterval: 10 * time.Millisecond,
		Channel: func(string) (courier.Channel, bool) { return bare, true },
		Peers: func(string) []courier.Peer {
			return []courier.Peer{{MSPID: "BetaMSP", Address: w.peers[1].address, Conn: w.dial(w.peers[1], &bare.cert)}}
		},
	}))(t)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Reconcile(ctx, channelID)
	}()
	for len(must(bare.ledger.MissingPrivateData(1))(t)) > 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	if left := must(bare.ledger.MissingPrivateData(1))(t); len(left) > 0 {
		t.Errorf("still missing: %v", left)
	}
}

// TestMembersOnly asks for everything that another member's peer has: what comes is what one belongs to.
func TestMembersOnly(t *testing.T) {
	w := newWorld(t, goldenHeight(t), "Beta-", "Gamma", "Alpha")
	for _, p := range w.peers[:2] {
		asked, given := 0, 0
		for n := range goldenHeight(t) {
			b := goldenBlock(t, n)
			wanted := wantedOf(b, privateOf(t, "Alpha", n))
			if len(wanted) == 0 {
				continue
			}
			for _, w := range wanted {
				asked++
				if !isGiven(t, p, w) {
					continue
				}
				given++
				if p.org.MSPID == "GammaMSP" || strings.HasPrefix(w.Collection, "_implicit_org_Alpha") {
					t.Errorf("%s was given block %d, transaction %d, %s of %s", p.org.MSPID, n, w.Tx, w.Collection, w.Namespace)
				}
			}
		}
		if asked < 30 || (given > 5) != (p.org.MSPID == "BetaMSP") {
			t.Errorf("%s: given %d of %d", p.org.MSPID, given, asked)
		}
	}
}

// isGiven asks the world's last peer for one write set.
func isGiven(t *testing.T, p *peer, want courier.Wanted) bool {
	t.Helper()
	to := p.w.peers[len(p.w.peers)-1]
	response, err := privatedatapb.NewPrivateDataClient(p.w.dial(to, &p.cert)).Pull(t.Context(), signed(t, p.signer, privatedatapb.PrivateData_Pull_FullMethodName,
		&privatedatapb.PullRequest{Sender: senderOf(p), Wanted: []*privatedatapb.Wanted{
			{Block: want.Block, Transaction: want.Tx, TransactionId: want.TxID, Namespace: want.Namespace, Collection: want.Collection, Hash: want.Hash}}}))
	if err != nil {
		t.Fatal(err)
	}
	return len(response.Answers) > 0
}

func senderOf(p *peer) *privatedatapb.Sender {
	hash := sha256.Sum256(p.cert.Certificate[0])
	return &privatedatapb.Sender{ChannelId: channelID, Identity: p.signer.Serialize(), TlsCertificateHash: hash[:]}
}

func signed(t testing.TB, signer *identity.Signer, method string, request proto.Message) *privatedatapb.SignedRequest {
	t.Helper()
	raw := must(proto.Marshal(request))(t)
	return &privatedatapb.SignedRequest{Request: raw, Signature: must(signer.Sign(append([]byte(method+"\x00"), raw...)))(t)}
}

// TestFetch gets at a block's commit what others hold since its endorsement.
func TestFetch(t *testing.T) {
	w := newWorld(t, firstPrivate, "Beta-", "Alpha")
	beta, alpha := w.peers[0], w.peers[1]
	b := goldenBlock(t, firstPrivate)
	private := privateOf(t, "Alpha", firstPrivate)
	var wanted []courier.Wanted
	for _, want := range wantedOf(b, private) {
		if want.Collection == "collAB" {
			wanted = append(wanted, want)
		}
	}
	if len(wanted) == 0 {
		t.Fatal("the block writes nothing to collAB")
	}
	rounds := 0
	w.asking = func() { // the data comes too late for the first question
		if rounds++; rounds != 2 {
			return
		}
		for _, p := range private {
			if err := alpha.ledger.Transient().Put(ledger.TxID(b.Txs[p.Tx]), firstPrivate, p.Set); err != nil {
				t.Error(err)
			}
		}
	}
	got := must(beta.Fetch(t.Context(), channelID, wanted))(t)
	for i, raw := range got {
		if sum := sha256.Sum256(raw); string(sum[:]) != string(wanted[i].Hash) {
			t.Errorf("%v: got %x", wanted[i], raw)
		}
	}

	// A peer that cannot be reached holds up one block, and not for long.
	alpha.server.Stop()
	start := time.Now()
	for range 3 {
		if got := must(beta.Fetch(t.Context(), channelID, wanted))(t); got[0] != nil {
			t.Errorf("got %x from nobody", got[0])
		}
	}
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("gave up after %v", took)
	}
}

// data is a transaction that writes to a collection of the golden ledger.
func data(t testing.TB, txID, collection string, required, maximum int32, members string) *endorse.PrivateData {
	b := rwset.NewBuilder()
	b.AddPrivateWrite("pvt", collection, "key of "+txID, []byte("value"))
	_, set, err := b.Results()
	if err != nil {
		t.Fatal(err)
	}
	rule := must(policy.Parse(members))(t)
	static := &peerpb.StaticCollectionConfig{Name: collection, RequiredPeerCount: required, MaximumPeerCount: maximum,
		MemberOrgsPolicy: &peerpb.CollectionPolicyConfig{Payload: &peerpb.CollectionPolicyConfig_SignaturePolicy{SignaturePolicy: rule}}}
	return &endorse.PrivateData{ChannelID: channelID, TxID: txID, EndorsedAt: firstPrivate, Set: set, Collections: map[string]*peerpb.CollectionConfigPackage{
		"pvt": {Config: []*peerpb.CollectionConfig{{Payload: &peerpb.CollectionConfig_StaticCollectionConfig{StaticCollectionConfig: static}}}}}}
}

func TestDistribute(t *testing.T) {
	const both, all = "OR('AlphaMSP.member','BetaMSP.member')", "OR('AlphaMSP.member','BetaMSP.member','GammaMSP.member')"
	w := newWorld(t, firstPrivate, "Alpha", "Beta", "Beta", "Gamma")
	alpha := w.peers[0]
	have := func(txID string) (holders int) {
		for _, p := range w.peers[1:] {
			if sets := must(p.ledger.Transient().Get(txID))(t); len(sets) > 0 {
				holders++
				if p.org.MSPID == "GammaMSP" {
					t.Errorf("%s: a peer that does not belong to the collection keeps its data", txID)
				}
			}
		}
		return holders
	}
	distribute := func(d *endorse.PrivateData, want int, refused string) {
		t.Helper()
		switch err := alpha.Distribute(t.Context(), d); {
		case refused != "" && (err == nil || err.Error() != refused):
			t.Errorf("%s: %v, want %s", d.TxID, err, refused)
		case refused == "" && err != nil:
			t.Errorf("%s: %v", d.TxID, err)
		}
		for deadline := time.Now().Add(5 * time.Second); have(d.TxID) < want && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if got := have(d.TxID); got != want {
			t.Errorf("%s: %d peers have it, want %d", d.TxID, got, want)
		}
	}
	distribute(data(t, "nobody waits", "collAB", 0, 1, both), 1, "")
	distribute(data(t, "to both", "collAB", 2, 2, both), 2, "")
	distribute(data(t, "to one", "collAB", 1, 1, both), 1, "")
	distribute(data(t, "to nobody", "collAB", 0, 0, both), 0, "")
	distribute(data(t, "too few", "collAB", 3, 3, both), 0,
		"could not build private data dissemination plan for chaincode pvt and collection collAB: required to disseminate to at least 3 peers, but know of only 2 eligible peers")
	// The sender takes a member for one of the collection that is none.
	distribute(data(t, "to a stranger", "collAB", 3, 3, all), 2, "Failed disseminating 1 out of 3 private dissemination plans")

	// One takes the place of another that is gone.
	w.peers[1].server.Stop()
	distribute(data(t, "the other one", "collAB", 1, 1, both), 1, "")
	distribute(data(t, "one is gone", "collAB", 2, 2, both), 1, "Failed disseminating 1 out of 2 private dissemination plans")
}

// TestMisuse makes calls that are to be refused, each right but for one thing.
func TestMisuse(t *testing.T) {
	w := newWorld(t, firstPrivate, "Alpha", "Beta", "Gamma")
	alpha, beta, gamma := w.peers[0], w.peers[1], w.peers[2]
	sets := []*privatedatapb.WriteSet{{Namespace: "pvt", Collection: "collAB", Rwset: data(t, "tx", "collAB", 0, 0, "OR('AlphaMSP.member')").Set.NsPvtRwset[0].CollectionPvtRwset[0].Rwset}}
	type attempt struct {
		cert   *tls.Certificate
		signer *identity.Signer
		sender *privatedatapb.Sender
		method string
		push   *privatedatapb.PushRequest
	}
	foreign := identitytest.NewOrg(t, "BetaMSP")
	for _, c := range []struct {
		what   string
		change func(*attempt)
		code   codes.Code
	}{
		{"all right", func(*attempt) {}, codes.OK},
		{"no TLS certificate", func(a *attempt) { a.cert = nil }, codes.Unauthenticated},
		{"another connection's request", func(a *attempt) { a.cert = &gamma.cert }, codes.Unauthenticated},
		{"no certificate named", func(a *attempt) { a.sender.TlsCertificateHash = nil }, codes.Unauthenticated},
		{"a TLS certificate of another member", func(a *attempt) {
			a.cert = &gamma.cert
			a.sender.TlsCertificateHash = senderOf(gamma).TlsCertificateHash
		}, codes.PermissionDenied},
		{"another's identity", func(a *attempt) { a.sender.Identity = alpha.signer.Serialize() }, codes.Unauthenticated},
		{"signed for another method", func(a *attempt) { a.method = privatedatapb.PrivateData_Pull_FullMethodName }, codes.Unauthenticated},
		{"a client", func(a *attempt) {
			a.signer = beta.org.Signer(t, "client")
			a.sender.Identity = a.signer.Serialize()
		}, codes.PermissionDenied},
		{"an identity of an authority that is not the member's", func(a *attempt) {
			a.signer = foreign.Signer(t, "peer")
			a.sender.Identity = a.signer.Serialize()
		}, codes.PermissionDenied},
		{"no identity", func(a *attempt) { a.sender.Identity = nil }, codes.PermissionDenied},
		{"another channel", func(a *attempt) { a.sender.ChannelId = "other" }, codes.NotFound},
		{"no sender", func(a *attempt) { a.sender = nil }, codes.NotFound},
		{"no transaction", func(a *attempt) { a.push.TransactionId = "" }, codes.InvalidArgument},
		{"no write set", func(a *attempt) { a.push.WriteSets = nil }, codes.InvalidArgument},
		{"a write set that is none", func(a *attempt) {
			a.push.WriteSets = []*privatedatapb.WriteSet{{Namespace: "pvt", Collection: "collAB", Rwset: []byte{0xff}}}
		}, codes.InvalidArgument},
		{"too many write sets", func(a *attempt) {
			a.push.WriteSets = make([]*privatedatapb.WriteSet, 1001)
			for i := range a.push.WriteSets {
				a.push.WriteSets[i] = sets[0]
			}
		}, codes.InvalidArgument},
	} {
		a := &attempt{cert: &beta.cert, signer: beta.signer, sender: senderOf(beta), method: privatedatapb.PrivateData_Push_FullMethodName,
			push: &privatedatapb.PushRequest{TransactionId: "tx", Height: 1 << 62, WriteSets: sets}}
		c.change(a)
		a.push.Sender = a.sender
		response, err := privatedatapb.NewPrivateDataClient(w.dial(alpha, a.cert)).Push(t.Context(), signed(t, a.signer, a.method, a.push))
		if status.Code(err) != c.code {
			t.Errorf("%s: %v, want %v", c.what, err, c.code)
		}
		if err == nil && !slices.Equal(response.Kept, []bool{true}) {
			t.Errorf("%s: kept %v", c.what, response.Kept)
		}
	}
	// The height that was named does not keep the data for ever.
	if err := alpha.ledger.Transient().PurgeBelow(alpha.ledger.Height() + 20_000); err != nil {
		t.Fatal(err)
	}
	if left := must(alpha.ledger.Transient().Get("tx"))(t); len(left) > 0 {
		t.Error("what was brought for an absurd height stays")
	}
	client := privatedatapb.NewPrivateDataClient(w.dial(alpha, &beta.cert))
	for what, request := range map[string]*privatedatapb.SignedRequest{
		"nothing":           {},
		"garbage":           {Request: []byte{0xff, 0xff}},
		"nothing is wanted": signed(t, beta.signer, privatedatapb.PrivateData_Pull_FullMethodName, &privatedatapb.PullRequest{Sender: senderOf(beta)}),
	} {
		if _, err := client.Pull(t.Context(), request); status.Code(err) == codes.OK || status.Code(err) == codes.Internal {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestReadable gives the readers of a block what each may see.
func TestReadable(t *testing.T) {
	w := newWorld(t, firstPrivate+1, "Alpha")
	alpha := w.peers[0]
	// Of these collA alone is for reading by members only.
	open := []string{"_implicit_org_AlphaMSP", "collAB", "collBTL", "collEP", "collRef"}
	for mspID, want := range map[string][]string{
		"AlphaMSP": append([]string{"collA"}, open...),
		"BetaMSP":  open,
		"GammaMSP": nil, // not yet on the channel
	} {
		signer := w.orgs[mspID].Signer(t, "client")
		request := []byte("a request")
		reader := policy.SignedData{Data: request, Identity: signer.Serialize(), Signature: must(signer.Sign(request))(t)}
		seen := map[string]bool{}
		for _, set := range must(alpha.Readable(t.Context(), alpha, firstPrivate, reader))(t) {
			for _, ns := range set.NsPvtRwset {
				for _, c := range ns.CollectionPvtRwset {
					seen[c.CollectionName] = true
				}
			}
		}
		for _, collection := range want {
			if !seen[collection] {
				t.Errorf("%s does not see %s", mspID, collection)
			}
		}
		if len(seen) != len(want) {
			t.Errorf("%s sees %v", mspID, seen)
		}
		reader.Signature = must(signer.Sign([]byte("another request")))(t)
		if got := must(alpha.Readable(t.Context(), alpha, firstPrivate, reader))(t); len(got) > 0 {
			t.Errorf("%s sees %v with a wrong signature", mspID, got)
		}
	}
}

// FuzzPush brings any bytes as write sets of any collection, and asks for them.
func FuzzPush(f *testing.F) {
	f.Add("tx", "pvt", "collAB", []byte("\x1a\x06\x0a\x01k\x1a\x01v"))
	f.Add("tx", "_lifecycle", "_implicit_org_AlphaMSP", []byte{})
	f.Add("\xff", "", "", []byte{0xff})
	w := newWorld(f, firstPrivate, "Alpha", "Beta")
	alpha, beta := w.peers[0], w.peers[1]
	client := privatedatapb.NewPrivateDataClient(w.dial(alpha, &beta.cert))
	f.Fuzz(func(t *testing.T, txID, namespace, collection string, raw []byte) {
		for _, name := range []*string{&txID, &namespace, &collection} {
			*name = strings.ToValidUTF8(*name, "?")
		}
		set := &privatedatapb.WriteSet{Namespace: namespace, Collection: collection, Rwset: raw}
		response, err := client.Push(t.Context(), signed(t, beta.signer, privatedatapb.PrivateData_Push_FullMethodName,
			&privatedatapb.PushRequest{Sender: senderOf(beta), TransactionId: txID, WriteSets: []*privatedatapb.WriteSet{set}}))
		if code := status.Code(err); code != codes.OK && code != codes.InvalidArgument {
			t.Fatal(err)
		}
		if err != nil || !response.Kept[0] {
			return
		}
		if _, err := rwset.ParsePrivate(must(alpha.ledger.Transient().Get(txID))(t)[0]); err != nil {
			t.Errorf("keeps what it cannot read: %v", err)
		}
		if err := alpha.ledger.Transient().Remove(txID); err != nil {
			t.Fatal(err)
		}
	})
}
