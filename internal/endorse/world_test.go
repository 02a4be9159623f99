package endorse_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/endorse"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/lifecycle"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

const (
	vectors   = "../../testdata/vectors"
	channelID = "devledger"
)

// authority is a member's certificate authority, made for the test: of the golden ledger's own there are no keys. It
// takes the place of the member's in every configuration of the channel.
type authority struct {
	mspID string
	cert  *x509.Certificate
	pem   []byte
	key   *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, mspID string) *authority {
	t.Helper()
	a := &authority{mspID: mspID, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca." + mspID}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(mspID),
	}
	a.cert, a.pem = sign(t, template, template, &a.key.PublicKey, a.key)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, public *ecdsa.PublicKey, by *ecdsa.PrivateKey) (*x509.Certificate, []byte) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// issue makes an identity with a role (client, peer, admin) that is good until the given time.
func (a *authority) issue(t testing.TB, role string, until time.Time) *identity.Signer {
	t.Helper()
	key := newKey(t)
	_, certPEM := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: role, OrganizationalUnit: []string{role}},
		NotBefore: time.Now().Add(-30 * time.Minute), NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature, SubjectKeyId: []byte(a.mspID + role),
	}, a.cert, &key.PublicKey, a.key)
	s, err := identity.NewSigner(a.mspID, certPEM, key)
	must(t, err)
	return s
}

func (a *authority) mspConfig(t testing.TB) *msppb.MSPConfig {
	t.Helper()
	ou := func(name string) *msppb.FabricOUIdentifier {
		return &msppb.FabricOUIdentifier{Certificate: a.pem, OrganizationalUnitIdentifier: name}
	}
	raw, err := proto.Marshal(&msppb.FabricMSPConfig{
		Name: a.mspID, RootCerts: [][]byte{a.pem},
		CryptoConfig:  &msppb.FabricCryptoConfig{SignatureHashFamily: "SHA2", IdentityIdentifierHashFunction: "SHA256"},
		FabricNodeOus: &msppb.FabricNodeOUs{Enable: true, ClientOuIdentifier: ou("client"), PeerOuIdentifier: ou("peer"), AdminOuIdentifier: ou("admin"), OrdererOuIdentifier: ou("orderer")},
	})
	must(t, err)
	return &msppb.MSPConfig{Config: raw}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// at is the channel as it was at a height.
type at struct {
	*ledger.Snapshot
	bundle *channel.Bundle
}

// pinned is a snapshot that stays open for other proposals.
type pinned struct{ *ledger.Snapshot }

func (p pinned) Close() error { return nil }
func (p pinned) Range(ns, start, end string) (simulation.StateIterator, error) {
	return p.Snapshot.Range(ns, start, end)
}

func (p pinned) PrivateRange(ns, coll, start, end string) (simulation.StateIterator, error) {
	return p.Snapshot.PrivateRange(ns, coll, start, end)
}

func (p pinned) History(ns, key string) (simulation.HistoryIterator, error) {
	it, err := p.Snapshot.History(ns, key)
	if err != nil {
		return nil, err
	}
	return it, nil
}

// channelAt is an endorse.Channel.
type channelAt struct {
	at *at
	w  *world
}

func (c channelAt) Bundle() *channel.Bundle             { return c.at.bundle }
func (c channelAt) Height() uint64                      { return c.at.Height() }
func (c channelAt) HasTx(id string) (bool, error)       { return c.w.ledger.HasTx(id) }
func (c channelAt) Snapshot() (endorse.Snapshot, error) { return pinned{c.at.Snapshot}, nil }
func (c channelAt) Rebuilding() bool                    { return c.w.rebuilding }

// world is the golden ledger on a real one, block by block, with a peer for each of its members.
type world struct {
	t        testing.TB
	ledger   *ledger.Ledger
	verifier *identity.Verifier
	orgs     map[string]*authority
	peers    map[string]*peer
	heights  []*at // ascending
	now      *at   // what the peers see
	blocks   []*block.Parsed
	private  []map[uint64]*rwsetpb.TxPvtReadWriteSet
	contract func(context.Context, *endorse.Invocation) (*peerpb.Response, *peerpb.ChaincodeEvent, error)
	clock    func() time.Time
	holders  []string // members whose private data the ledger gets
	limit    func(*endorse.Config)

	rebuilding bool
}

type peer struct {
	*endorse.Endorser
	org     *authority
	catalog *lifecycle.Catalog
	admin   *identity.Signer
	client  *identity.Signer
	self    *identity.Signer
	kept    []*endorse.PrivateData
}

func (p *peer) Keep(_ context.Context, d *endorse.PrivateData) error {
	p.kept = append(p.kept, d)
	return nil
}

func (w *world) Execute(ctx context.Context, packageID string, in *endorse.Invocation) (*peerpb.Response, *peerpb.ChaincodeEvent, error) {
	return w.contract(ctx, in)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, verifier: identity.NewVerifier(identity.Config{}), orgs: map[string]*authority{}, peers: map[string]*peer{}, clock: time.Now, holders: []string{"Alpha", "Beta", "Gamma"}}
	l, err := ledger.Open(ledger.Config{Dir: "ledger", ChannelID: channelID, FS: vfs.NewMem()})
	must(t, err)
	w.ledger = l
	for _, mspID := range []string{"AlphaMSP", "BetaMSP", "GammaMSP"} {
		w.orgs[mspID] = newAuthority(t, mspID)
	}
	t.Cleanup(func() {
		for _, h := range w.heights {
			must(t, h.Close())
		}
		must(t, l.Close())
	})
	for mspID, org := range w.orgs {
		w.peers[mspID] = w.newPeer(mspID, org)
	}
	return w
}

func (w *world) newPeer(mspID string, org *authority) *peer {
	t := w.t
	t.Helper()
	until := time.Now().Add(30 * time.Minute)
	p := &peer{org: org, admin: org.issue(t, "admin", until), client: org.issue(t, "client", until), self: org.issue(t, "peer", until)}
	local, err := identity.NewMSP(org.mspConfig(t), w.verifier, identity.Options{})
	must(t, err)
	packages, err := lifecycle.OpenPackages(filepath.Join(t.TempDir(), "contracts"))
	must(t, err)
	p.catalog = lifecycle.NewCatalog(mspID, packages, false)
	system := lifecycle.New(lifecycle.Config{
		LocalMSP: local, Packages: packages, Catalog: p.catalog,
		Channel: func(id string) (*channel.Bundle, bool) {
			if id != channelID || w.now == nil {
				return nil, false
			}
			return w.now.bundle, true
		},
		Snapshots: func(use func(string, simulation.Snapshot) error) error { return use(channelID, pinned{w.now.Snapshot}) },
	})
	cfg := endorse.Config{
		Signer: p.self, LocalMSP: local, Verifier: w.verifier, Contracts: w, Programs: p.catalog, System: []endorse.System{system}, PrivateStore: p,
		Now: func() time.Time { return w.clock() },
		Channel: func(id string) (endorse.Channel, bool) {
			if id != channelID || w.now == nil {
				return nil, false
			}
			return channelAt{w.now, w}, true
		},
	}
	if w.limit != nil {
		w.limit(&cfg)
	}
	p.Endorser, err = endorse.New(cfg)
	must(t, err)
	return p
}

// readBlock reads a block of the golden ledger and the private data that members had of it.
func readBlock(t testing.TB, n int, holders []string) (*block.Parsed, map[uint64]*rwsetpb.TxPvtReadWriteSet) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, "blocks", fmt.Sprintf("%06d.block", n)))
	must(t, err)
	b := &commonpb.Block{}
	must(t, proto.Unmarshal(raw, b))
	private := map[uint64]*rwsetpb.TxPvtReadWriteSet{}
	for _, org := range holders {
		raw, err := os.ReadFile(filepath.Join(vectors, "pvtdata", org, fmt.Sprintf("%06d.json", n)))
		if err != nil {
			continue // had none
		}
		var doc struct {
			Txs map[string]struct {
				Hex string `json:"tx_pvt_read_write_set_hex"`
			} `json:"txs"`
		}
		must(t, json.Unmarshal(raw, &doc))
		for index, tx := range doc.Txs {
			i, err := strconv.ParseUint(index, 10, 64)
			must(t, err)
			raw, err := hex.DecodeString(tx.Hex)
			must(t, err)
			set := &rwsetpb.TxPvtReadWriteSet{}
			must(t, proto.Unmarshal(raw, set))
			private[i] = merge(private[i], set)
		}
	}
	return block.Parse(b), private
}

func merge(a, b *rwsetpb.TxPvtReadWriteSet) *rwsetpb.TxPvtReadWriteSet {
	if a == nil {
		return b
	}
	for _, ns := range b.NsPvtRwset {
		for _, have := range a.NsPvtRwset {
			if have.Namespace != ns.Namespace {
				continue
			}
		next:
			for _, coll := range ns.CollectionPvtRwset {
				for _, c := range have.CollectionPvtRwset {
					if c.CollectionName == coll.CollectionName {
						continue next
					}
				}
				have.CollectionPvtRwset = append(have.CollectionPvtRwset, coll)
			}
			ns = nil
			break
		}
		if ns != nil {
			a.NsPvtRwset = append(a.NsPvtRwset, ns)
		}
	}
	return a
}

// commit commits the next block of the golden ledger with the codes and hashes it came with.
func (w *world) commit() {
	t := w.t
	t.Helper()
	n := w.ledger.Height()
	b, private := readBlock(t, int(n), w.holders)
	c := &ledger.Commit{Block: b}
	for i := range b.Txs {
		if set := private[uint64(i)]; set != nil {
			c.Private = append(c.Private, ledger.TxPrivate{Tx: uint64(i), Set: set})
		}
	}
	must(t, w.ledger.Commit(c))
	w.blocks, w.private = append(w.blocks, b), append(w.private, private)
	w.now = &at{Snapshot: w.ledger.NewSnapshot()}
	if n > 0 {
		w.now.bundle = w.heights[n-1].bundle
	}
	if block.IsConfig(b.Block) && block.Filter(b.Block)[0] == 0 {
		env, _, err := block.ConfigEnvelope(b.Block)
		must(t, err)
		w.now.bundle = w.bundleOf(env.Config)
	}
	w.heights = append(w.heights, w.now)
	for _, p := range w.peers {
		for i, tx := range b.Txs {
			if len(tx.Actions) > 0 && tx.Actions[0].Chaincode.GetChaincodeId().GetName() == lifecycle.Namespace && block.Filter(b.Block)[i] == 0 {
				p.catalog.Changed(channelID, n+1)
			}
		}
	}
}

// endorsed has peers of the given members endorse a proposal, and gives the transaction that its client sends.
func (w *world) endorsed(p *peer, by *identity.Signer, args envelope.ProposalArgs, others ...*peer) (*peerpb.SignedProposal, *commonpb.Envelope) {
	t := w.t
	t.Helper()
	args.Type = commonpb.HeaderType_ENDORSER_TRANSACTION
	proposal, signed, err := envelope.NewProposal(by, args)
	must(t, err)
	var responses []*peerpb.ProposalResponse
	for _, one := range append([]*peer{p}, others...) {
		res, err := one.ProcessProposal(context.Background(), signed)
		must(t, err)
		if res.Response.Status != 200 {
			t.Fatal(res.Response.Message)
		}
		responses = append(responses, res)
	}
	payload, err := envelope.AssembleTx(proposal.Proposal, responses)
	must(t, err)
	env, err := envelope.SignPayload(by, payload)
	must(t, err)
	return signed, env
}

// order commits a block of valid transactions that follows what is there; after it the golden ledger cannot go on.
func (w *world) order(txs ...*commonpb.Envelope) {
	t := w.t
	t.Helper()
	n := w.ledger.Height()
	previous, err := w.ledger.Block(n - 1)
	must(t, err)
	var data [][]byte
	for _, tx := range txs {
		data = append(data, marshal(t, tx))
	}
	b := block.New(n, block.HeaderHash(previous.Header), data)
	block.SetFilter(b, make([]byte, len(txs)))
	block.SetCommitHash(b, make([]byte, 32))
	c := &ledger.Commit{Block: block.Parse(b)}
	for i, tx := range c.Block.Txs {
		for _, p := range w.peers {
			for _, kept := range p.kept {
				if kept.TxID == tx.ID() {
					c.Private = append(c.Private, ledger.TxPrivate{Tx: uint64(i), Set: kept.Set})
				}
			}
		}
	}
	must(t, w.ledger.Commit(c))
	w.now = &at{Snapshot: w.ledger.NewSnapshot(), bundle: w.now.bundle}
	w.heights = append(w.heights, w.now)
	for _, p := range w.peers {
		p.catalog.Changed(channelID, n+1)
	}
}

// to commits blocks up to a height.
func (w *world) to(height uint64) {
	for w.ledger.Height() < height {
		w.commit()
	}
}

// bundleOf is the bundle of a configuration with the test's authorities in it.
func (w *world) bundleOf(config *commonpb.Config) *channel.Bundle {
	t := w.t
	t.Helper()
	config = proto.Clone(config).(*commonpb.Config)
	for _, group := range config.ChannelGroup.Groups["Application"].Groups {
		conf, fabric := &msppb.MSPConfig{}, &msppb.FabricMSPConfig{}
		must(t, proto.Unmarshal(group.Values["MSP"].Value, conf))
		must(t, proto.Unmarshal(conf.Config, fabric))
		raw, err := proto.Marshal(w.orgs[fabric.Name].mspConfig(t))
		must(t, err)
		group.Values["MSP"].Value = raw
	}
	b, err := channel.NewBundle(channelID, config, w.verifier)
	must(t, err)
	return b
}

// install installs the golden ledger's packages at a peer.
func (w *world) install(p *peer) {
	t := w.t
	t.Helper()
	files, err := filepath.Glob(filepath.Join(vectors, "packages", "*.tar.gz"))
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no packages")
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		must(t, err)
		res := w.lifecycle(p, p.admin, "", "InstallChaincode", marshal(t, &lifecyclepb.InstallChaincodeArgs{ChaincodeInstallPackage: raw}))
		if res.Response.Status != 200 {
			t.Fatal(res.Response.Message)
		}
	}
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	must(t, err)
	return raw
}

func (w *world) propose(p *peer, by *identity.Signer, args envelope.ProposalArgs) (*peerpb.ProposalResponse, error) {
	w.t.Helper()
	if args.Type == 0 {
		args.Type = commonpb.HeaderType_ENDORSER_TRANSACTION
	}
	_, signed, err := envelope.NewProposal(by, args)
	must(w.t, err)
	return p.ProcessProposal(context.Background(), signed)
}

func (w *world) lifecycle(p *peer, by *identity.Signer, channelID, function string, arg []byte) *peerpb.ProposalResponse {
	w.t.Helper()
	res, err := w.propose(p, by, envelope.ProposalArgs{ChannelID: channelID, Chaincode: lifecycle.Namespace, Args: [][]byte{[]byte(function), arg}})
	must(w.t, err)
	return res
}

func sha(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

func parseSet(t testing.TB, raw []byte) *rwset.Set {
	t.Helper()
	s, err := rwset.Parse(raw)
	must(t, err)
	return s
}

func parsePrivate(t testing.TB, raw []byte) *kvrwsetpb.KVRWSet {
	t.Helper()
	kv := &kvrwsetpb.KVRWSet{}
	must(t, proto.Unmarshal(raw, kv))
	return kv
}
