package validate_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// network is a channel of two members, each with one certificate that signs as client and peer, and an orderer; the
// contract "both" needs both members' endorsements, "any" one.
type network struct {
	t          testing.TB
	validator  *validate.Validator
	verifier   *identity.Verifier
	bundle     *channel.Bundle
	state      *memory
	one, two   *identity.Signer
	orderer    *identity.Signer
	nextNumber uint64
	tip        []byte
	disk       vfs.FS
	ledger     *ledger.Ledger // the same as state, but for what is set without a transaction
}

const channelID = "hostile"

func newNetwork(t testing.TB) *network {
	t.Helper()
	return newNetworkAt(t, "V2_0", nil)
}

// newNetworkAt makes the network at a channel capability level; orderers tells who its consenters are.
func newNetworkAt(t testing.TB, level string, orderers func(n *network) *commonpb.Orderers) *network {
	t.Helper()
	n := &network{t: t, validator: validate.New(validate.Config{}), verifier: identity.NewVerifier(identity.Config{}), state: newMemory(), nextNumber: 1, tip: []byte("tip"), disk: vfs.NewMem()}
	var oneMSP, twoMSP, ordererMSP *msppb.MSPConfig
	n.one, oneMSP = newMember(t, "OneMSP")
	n.two, twoMSP = newMember(t, "TwoMSP")
	n.orderer, ordererMSP = newMember(t, "OrdererMSP")
	consenters := &commonpb.Orderers{}
	if orderers != nil {
		consenters = orderers(n)
	}
	config := &commonpb.Config{ChannelGroup: group(
		values{
			"HashingAlgorithm":          &commonpb.HashingAlgorithm{Name: "SHA256"},
			"BlockDataHashingStructure": &commonpb.BlockDataHashingStructure{Width: math.MaxUint32},
			"Capabilities":              capabilities(level),
		}, nil,
		map[string]*commonpb.ConfigGroup{
			"Application": group(values{"Capabilities": capabilities("V2_5")},
				policies{"Endorsement": "MAJORITY Endorsement", "LifecycleEndorsement": "MAJORITY Endorsement"},
				map[string]*commonpb.ConfigGroup{
					"One": group(values{"MSP": oneMSP}, policies{"Endorsement": "OR('OneMSP.member')"}, nil),
					"Two": group(values{"MSP": twoMSP}, policies{"Endorsement": "OR('TwoMSP.member')"}, nil),
				}),
			"Orderer": group(values{
				"Capabilities":  capabilities("V2_0"),
				"BatchSize":     &ordererpb.BatchSize{MaxMessageCount: 10, AbsoluteMaxBytes: 1 << 20, PreferredMaxBytes: 1 << 20},
				"BatchTimeout":  &ordererpb.BatchTimeout{Timeout: "1s"},
				"ConsensusType": &ordererpb.ConsensusType{Type: "etcdraft"},
				"Orderers":      consenters,
			}, policies{"BlockValidation": "ANY Writers"}, map[string]*commonpb.ConfigGroup{
				"Orderer": group(values{"MSP": ordererMSP, "Endpoints": &commonpb.OrdererAddresses{Addresses: []string{"orderer:7050"}}}, policies{"Writers": "OR('OrdererMSP.member')"}, nil),
			}),
		},
	)}
	var err error
	if n.bundle, err = channel.NewBundle(channelID, config, n.verifier); err != nil {
		t.Fatal(err)
	}
	n.define("both", signaturePolicy(t, "AND('OneMSP.member','TwoMSP.member')"), "coll")
	n.define("any", signaturePolicy(t, "OR('OneMSP.member','TwoMSP.member')"))
	return n
}

func newMember(t testing.TB, mspID string) (*identity.Signer, *msppb.MSPConfig) {
	t.Helper()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca." + mspID}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(mspID), NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0)}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "user." + mspID},
		KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0)}
	rootKey, leafKey := newKey(t), newKey(t)
	rootPEM := certify(t, root, root, &rootKey.PublicKey, rootKey)
	leafPEM := certify(t, leaf, root, &leafKey.PublicKey, rootKey)
	signer, err := identity.NewSigner(mspID, leafPEM, leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return signer, &msppb.MSPConfig{Config: encode(t, &msppb.FabricMSPConfig{Name: mspID, RootCerts: [][]byte{rootPEM}, Admins: [][]byte{leafPEM},
		CryptoConfig: &msppb.FabricCryptoConfig{SignatureHashFamily: "SHA2", IdentityIdentifierHashFunction: "SHA256"}})}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certify(t testing.TB, cert, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) []byte {
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

type values map[string]proto.Message

type policies map[string]string

func group(v values, p policies, groups map[string]*commonpb.ConfigGroup) *commonpb.ConfigGroup {
	g := &commonpb.ConfigGroup{Values: map[string]*commonpb.ConfigValue{}, Policies: map[string]*commonpb.ConfigPolicy{}, Groups: groups}
	for key, m := range v {
		raw, err := proto.Marshal(m)
		if err != nil {
			panic(err)
		}
		g.Values[key] = &commonpb.ConfigValue{Value: raw}
	}
	for key, text := range p {
		g.Policies[key] = &commonpb.ConfigPolicy{Policy: configPolicy(text)}
	}
	return g
}

func configPolicy(text string) *commonpb.Policy {
	var m proto.Message
	kind := commonpb.Policy_IMPLICIT_META
	switch rule, sub, _ := cut(text); rule {
	case "MAJORITY":
		m = &commonpb.ImplicitMetaPolicy{Rule: commonpb.ImplicitMetaPolicy_MAJORITY, SubPolicy: sub}
	case "ANY":
		m = &commonpb.ImplicitMetaPolicy{Rule: commonpb.ImplicitMetaPolicy_ANY, SubPolicy: sub}
	default:
		env, err := policy.Parse(text)
		if err != nil {
			panic(err)
		}
		m, kind = env, commonpb.Policy_SIGNATURE
	}
	raw, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return &commonpb.Policy{Type: int32(kind), Value: raw}
}

func cut(s string) (string, string, bool) {
	for i := range s {
		if s[i] == ' ' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func capabilities(name string) *commonpb.Capabilities {
	return &commonpb.Capabilities{Capabilities: map[string]*commonpb.Capability{name: {}}}
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func signaturePolicy(t testing.TB, text string) *commonpb.SignaturePolicyEnvelope {
	t.Helper()
	env, err := policy.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// define puts a contract's definition into the state.
func (n *network) define(name string, rule *commonpb.SignaturePolicyEnvelope, collections ...string) {
	application := &peerpb.ApplicationPolicy{Type: &peerpb.ApplicationPolicy_SignaturePolicy{SignaturePolicy: rule}}
	packaged := &peerpb.CollectionConfigPackage{}
	for _, c := range collections {
		packaged.Config = append(packaged.Config, &peerpb.CollectionConfig{Payload: &peerpb.CollectionConfig_StaticCollectionConfig{StaticCollectionConfig: &peerpb.StaticCollectionConfig{Name: c}}})
	}
	n.set("_lifecycle", "namespaces/metadata/"+name, encode(n.t, &lifecyclepb.StateMetadata{Datatype: "ChaincodeDefinition"}))
	for field, m := range map[string]proto.Message{
		"ValidationInfo": &lifecyclepb.ChaincodeValidationInfo{ValidationPlugin: "vscc", ValidationParameter: encode(n.t, application)},
		"Collections":    packaged,
	} {
		n.set("_lifecycle", "namespaces/fields/"+name+"/"+field, encode(n.t, &lifecyclepb.StateData{Type: &lifecyclepb.StateData_Bytes{Bytes: encode(n.t, m)}}))
	}
}

func (n *network) set(ns, key string, value []byte) {
	place := rwset.Place{Namespace: ns}
	if n.state.places[place] == nil {
		n.state.places[place] = map[string]*rwset.VersionedValue{}
	}
	n.state.places[place][key] = &rwset.VersionedValue{Value: value}
}

// tx describes a transaction; the zero value of a field is the ordinary thing.
type tx struct {
	contract  string             // "both"
	endorsers []*identity.Signer // both members
	results   []byte             // made by set
	set       *rwset.Builder
	raw       []*rwsetpb.NsReadWriteSet // where a builder would not make it

	// Hooks to spoil layers before they are encoded and signed.
	channel     func(*commonpb.ChannelHeader)
	header      func(*commonpb.SignatureHeader)
	action      func(*peerpb.ChaincodeAction)
	response    func(*peerpb.ProposalResponsePayload)
	payload     func(*peerpb.ChaincodeActionPayload)
	transaction func(*peerpb.Transaction)
	outer       func(*commonpb.Payload)
	env         func(*commonpb.Envelope)
}

func (n *network) tx(spec tx) []byte {
	n.t.Helper()
	if spec.contract == "" {
		spec.contract = "both"
	}
	if spec.endorsers == nil {
		spec.endorsers = []*identity.Signer{n.one, n.two}
	}
	results := spec.results
	if spec.set != nil {
		var err error
		if results, _, err = spec.set.Results(); err != nil {
			n.t.Fatal(err)
		}
	}
	if spec.raw != nil {
		results = encode(n.t, &rwsetpb.TxReadWriteSet{NsRwset: spec.raw})
	}
	creator := n.one
	signature := &commonpb.SignatureHeader{Creator: creator.Serialize(), Nonce: envelope.NewNonce()}
	extension := encode(n.t, &peerpb.ChaincodeHeaderExtension{ChaincodeId: &peerpb.ChaincodeID{Name: spec.contract}})
	header := &commonpb.ChannelHeader{Type: int32(commonpb.HeaderType_ENDORSER_TRANSACTION), ChannelId: channelID, Extension: extension, TxId: envelope.TxID(signature.Nonce, signature.Creator)}
	call(spec.channel, header)
	call(spec.header, signature)
	proposal := encode(n.t, &peerpb.ChaincodeProposalPayload{Input: []byte("input")})
	outer := &commonpb.Payload{Header: &commonpb.Header{ChannelHeader: encode(n.t, header), SignatureHeader: encode(n.t, signature)}}
	action := &peerpb.ChaincodeAction{Results: results, ChaincodeId: &peerpb.ChaincodeID{Name: spec.contract, Version: "1"}, Response: &peerpb.Response{Status: 200}}
	call(spec.action, action)
	response := &peerpb.ProposalResponsePayload{Extension: encode(n.t, action), ProposalHash: envelope.ProposalHash(outer.Header.ChannelHeader, outer.Header.SignatureHeader, proposal)}
	call(spec.response, response)
	endorsed := &peerpb.ChaincodeEndorsedAction{ProposalResponsePayload: encode(n.t, response)}
	for _, s := range spec.endorsers {
		sig, err := s.Sign(append(append([]byte(nil), endorsed.ProposalResponsePayload...), s.Serialize()...))
		if err != nil {
			n.t.Fatal(err)
		}
		endorsed.Endorsements = append(endorsed.Endorsements, &peerpb.Endorsement{Endorser: s.Serialize(), Signature: sig})
	}
	payload := &peerpb.ChaincodeActionPayload{ChaincodeProposalPayload: proposal, Action: endorsed}
	call(spec.payload, payload)
	transaction := &peerpb.Transaction{Actions: []*peerpb.TransactionAction{{Header: outer.Header.SignatureHeader, Payload: encode(n.t, payload)}}}
	call(spec.transaction, transaction)
	outer.Data = encode(n.t, transaction)
	call(spec.outer, outer)
	env, err := envelope.SignPayload(creator, outer)
	if err != nil {
		n.t.Fatal(err)
	}
	call(spec.env, env)
	return encode(n.t, env)
}

func call[T any](f func(T), v T) {
	if f != nil {
		f(v)
	}
}

// block makes the next block, signed by the orderer.
func (n *network) block(data ...[]byte) *commonpb.Block {
	n.t.Helper()
	b := block.New(n.nextNumber, n.tip, data)
	header := encode(n.t, &commonpb.SignatureHeader{Creator: n.orderer.Serialize(), Nonce: envelope.NewNonce()})
	value := encode(n.t, &commonpb.OrdererBlockMetadata{LastConfig: &commonpb.LastConfig{}})
	sig, err := n.orderer.Sign(block.SignedBytes(value, header, b.Header))
	if err != nil {
		n.t.Fatal(err)
	}
	block.SetSlot(b, block.SlotSignatures, encode(n.t, &commonpb.Metadata{Value: value, Signatures: []*commonpb.MetadataSignature{{SignatureHeader: header, Signature: sig}}}))
	return b
}

// run decides on a block of these envelopes, checks that a second run comes to the same, and commits it.
func (n *network) run(data ...[]byte) []byte {
	n.t.Helper()
	b := n.block(data...)
	if err := validate.Accept(n.bundle, b, n.nextNumber, n.tip); err != nil {
		n.t.Fatal(err)
	}
	r := n.decide(b)
	again := n.decide(b)
	if string(r.Codes) != string(again.Codes) || string(r.Updates.CommitBytes()) != string(again.Updates.CommitBytes()) {
		n.t.Fatalf("two runs differ: %v and %v", names(r.Codes), names(again.Codes))
	}
	n.store(b, r)
	n.state.commit(r)
	n.nextNumber, n.tip = n.nextNumber+1, block.HeaderHash(b.Header)
	return r.Codes
}

// store commits a decided block to a real ledger, which must take whatever is in it.
func (n *network) store(b *commonpb.Block, r *validate.Result) {
	n.t.Helper()
	if n.ledger == nil {
		l, err := ledger.Open(ledger.Config{Dir: "ledger", ChannelID: channelID, FS: n.disk})
		if err != nil {
			n.t.Fatal(err)
		}
		n.t.Cleanup(func() { l.Close() })
		n.ledger = l
		genesis := block.New(0, nil, [][]byte{{0xff}})
		block.SetFilter(genesis, []byte{byte(peerpb.TxValidationCode_INVALID_OTHER_REASON)})
		if err := l.Commit(&ledger.Commit{Block: block.Parse(genesis)}); err != nil {
			n.t.Fatal(err)
		}
	}
	stored := proto.CloneOf(b)
	block.SetFilter(stored, r.Codes)
	block.SetCommitHash(stored, rwset.CommitHash(r.Codes, r.Updates.CommitBytes(), n.ledger.LastCommitHash()))
	if err := n.ledger.Commit(&ledger.Commit{Block: block.Parse(stored), Updates: r.Updates, Sets: r.Sets}); err != nil {
		n.t.Fatalf("the ledger does not take block %d: %v", b.Header.Number, err)
	}
}

// derive opens the ledger once more from its block log alone and checks that it holds the same keys.
func (n *network) derive() {
	n.t.Helper()
	before := n.keys()
	if err := n.ledger.Close(); err != nil {
		n.t.Fatal(err)
	}
	if err := n.disk.RemoveAll("ledger/derived"); err != nil {
		n.t.Fatal(err)
	}
	l, err := ledger.Open(ledger.Config{Dir: "ledger", ChannelID: channelID, FS: n.disk})
	if err != nil {
		n.t.Fatalf("the ledger cannot be made again: %v", err)
	}
	n.t.Cleanup(func() { l.Close() })
	n.ledger = l
	if after := n.keys(); after != before {
		n.t.Errorf("made again from its blocks the ledger holds\n%s\nand held\n%s", after, before)
	}
}

// keys lists what the ledger holds.
func (n *network) keys() string {
	n.t.Helper()
	s := n.ledger.NewSnapshot()
	defer s.Close()
	var out strings.Builder
	fmt.Fprintf(&out, "height %d, commit hash %x\n", s.Height(), n.ledger.LastCommitHash())
	for _, hashed := range []bool{false, true} {
		places, err := s.Places(hashed)
		if err != nil {
			n.t.Fatal(err)
		}
		for _, p := range places {
			open := func() (ledger.Iterator, error) { return s.Range(p.Namespace, "", "") }
			if hashed {
				open = func() (ledger.Iterator, error) { return s.HashRange(p.Namespace, p.Collection) }
			}
			it, err := open()
			if err != nil {
				n.t.Fatal(err)
			}
			for {
				key, v, ok, err := it.Next()
				if err != nil {
					n.t.Fatal(err)
				}
				if !ok {
					break
				}
				fmt.Fprintf(&out, "%v %q %q %x %v\n", p, key, v.Value, v.Metadata, v.Version)
			}
			it.Close()
		}
	}
	return out.String()
}

func (n *network) decide(b *commonpb.Block) *validate.Result {
	n.t.Helper()
	r, err := n.validator.Decide(n.bundle, n.validator.Prepare(n.bundle, block.Parse(b)), n.state)
	if err != nil {
		n.t.Fatal(err)
	}
	return r
}

func names(codes []byte) []string {
	all := make([]string, len(codes))
	for i, c := range codes {
		all[i] = codeName(c)
	}
	return all
}

// put makes a write set of one key.
func put(ns, key string) *rwset.Builder {
	b := rwset.NewBuilder()
	b.AddWrite(ns, key, []byte("value"))
	return b
}

// parameter makes a write set that gives a key a policy of its own.
func parameter(ns, key string, raw []byte) *rwset.Builder {
	b := rwset.NewBuilder()
	b.AddMetadataWrite(ns, key, map[string][]byte{"VALIDATION_PARAMETER": raw})
	return b
}

func namespace(t testing.TB, name string, kv *kvrwsetpb.KVRWSet, collections ...*rwsetpb.CollectionHashedReadWriteSet) *rwsetpb.NsReadWriteSet {
	return &rwsetpb.NsReadWriteSet{Namespace: name, Rwset: encode(t, kv), CollectionHashedRwset: collections}
}

func hashOf(s string) []byte {
	h := sha256.Sum256([]byte(s))
	return h[:]
}
