package validate_test

import (
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// Blocks at which the reference implementation panics, stops or waits forever. Each gets a verdict, the same in every
// run, and the transactions beside the hostile one get theirs.
func TestHostileBlocks(t *testing.T) {
	tests := []struct {
		name  string
		setup func(n *network)
		txs   func(n *network) [][]byte
		want  string
	}{
		{
			name: "transaction without actions before a good one",
			txs: func(n *network) [][]byte {
				return [][]byte{n.tx(tx{transaction: func(t *peerpb.Transaction) { t.Actions = nil }}), n.tx(tx{set: put("both", "k")})}
			},
			want: "INVALID_ENDORSER_TRANSACTION VALID",
		},
		{
			name: "transaction without data before a good one",
			txs: func(n *network) [][]byte {
				return [][]byte{n.tx(tx{outer: func(p *commonpb.Payload) { p.Data = nil }}), n.tx(tx{set: put("both", "k")})}
			},
			want: "INVALID_ENDORSER_TRANSACTION VALID",
		},
		{
			name: "MESSAGE with empty data before a good one",
			txs: func(n *network) [][]byte {
				return [][]byte{
					n.tx(tx{channel: func(h *commonpb.ChannelHeader) { h.Type = 0 }, outer: func(p *commonpb.Payload) { p.Data = nil }}),
					n.tx(tx{set: put("both", "k")}),
				}
			},
			want: "BAD_COMMON_HEADER VALID",
		},
		{
			name: "action without an endorsed action",
			txs: func(n *network) [][]byte {
				return [][]byte{n.tx(tx{payload: func(p *peerpb.ChaincodeActionPayload) { p.Action = nil }}), n.tx(tx{set: put("both", "k")})}
			},
			want: "INVALID_ENDORSER_TRANSACTION VALID",
		},
		{
			name: "unparsable chaincode action before a writer of the same key",
			txs: func(n *network) [][]byte {
				return [][]byte{
					n.tx(tx{response: func(r *peerpb.ProposalResponsePayload) { r.Extension = []byte{0xff, 0xff} }}),
					n.tx(tx{set: put("both", "k")}),
				}
			},
			want: "BAD_RESPONSE_PAYLOAD VALID",
		},
		{
			name: "hashed writes that name an undefined collection",
			txs: func(n *network) [][]byte {
				return [][]byte{
					n.tx(tx{raw: hashedWrite(n.t, "both", "nocoll", "k")}),
					n.tx(tx{raw: hashedWrite(n.t, "any", "nocoll", "k"), contract: "any"}), // of a contract without any
					n.tx(tx{raw: hashedWrite(n.t, "both", "_implicit_org_NoMSP", "k")}),
					n.tx(tx{raw: hashedWrite(n.t, "both", "coll", "k")}),
					n.tx(tx{raw: hashedWrite(n.t, "both", "_implicit_org_TwoMSP", "k")}),
				}
			},
			want: "ENDORSEMENT_POLICY_FAILURE ENDORSEMENT_POLICY_FAILURE ENDORSEMENT_POLICY_FAILURE VALID VALID",
		},
		{
			name:  "delete followed by a metadata-only write of the same key in one block",
			setup: func(n *network) { n.run(n.tx(tx{set: put("both", "k")})) },
			txs: func(n *network) [][]byte {
				remove, rule := rwset.NewBuilder(), encode(n.t, signaturePolicy(n.t, "OR('OneMSP.member')"))
				remove.AddWrite("both", "k", nil)
				return [][]byte{n.tx(tx{set: remove}), n.tx(tx{set: parameter("both", "k", rule)}), n.tx(tx{set: put("both", "other")})}
			},
			want: "VALID VALID VALID",
		},
		{
			name: "duplicate transaction that carries metadata before a writer of that key",
			txs: func(n *network) [][]byte {
				rule := encode(n.t, signaturePolicy(n.t, "OR('OneMSP.member')"))
				twice := n.tx(tx{set: parameter("both", "k", rule)})
				n.run(twice)
				return [][]byte{twice, n.tx(tx{set: put("both", "k")})}
			},
			want: "DUPLICATE_TXID VALID",
		},
		{
			name: "duplicate within the block that carries metadata before a writer of that key",
			txs: func(n *network) [][]byte {
				rule := encode(n.t, signaturePolicy(n.t, "OR('OneMSP.member')"))
				twice := n.tx(tx{set: parameter("both", "k", rule)})
				return [][]byte{twice, twice, n.tx(tx{set: put("both", "k")})}
			},
			want: "VALID ENDORSEMENT_POLICY_FAILURE ENDORSEMENT_POLICY_FAILURE",
		},
		{
			name: "badly signed transaction that carries metadata before a writer of that key",
			txs: func(n *network) [][]byte {
				rule := encode(n.t, signaturePolicy(n.t, "OR('OneMSP.member')"))
				return [][]byte{
					n.tx(tx{set: parameter("both", "k", rule), env: func(e *commonpb.Envelope) { e.Signature = []byte("no") }}),
					n.tx(tx{set: put("both", "k")}),
				}
			},
			want: "BAD_CREATOR_SIGNATURE VALID",
		},
		{
			name: "metadata in one namespace while another namespace fails its policy",
			txs: func(n *network) [][]byte {
				rule := encode(n.t, signaturePolicy(n.t, "OR('OneMSP.member')"))
				set := parameter("any", "k", rule)
				set.AddWrite("both", "k", []byte("v"))
				one := []*identity.Signer{n.one}
				return [][]byte{
					n.tx(tx{set: set, contract: "any", endorsers: one}),
					n.tx(tx{set: put("any", "k"), contract: "any", endorsers: one}),
					n.tx(tx{set: put("any", "other"), contract: "any", endorsers: one}),
				}
			},
			want: "ENDORSEMENT_POLICY_FAILURE ENDORSEMENT_POLICY_FAILURE VALID",
		},
		{
			name: "metadata that fails its own namespace's policy does not bind",
			txs: func(n *network) [][]byte {
				rule := encode(n.t, signaturePolicy(n.t, "OR('OneMSP.member')"))
				return [][]byte{
					n.tx(tx{set: parameter("both", "k", rule), endorsers: []*identity.Signer{n.one}}),
					n.tx(tx{set: put("both", "k")}),
				}
			},
			want: "ENDORSEMENT_POLICY_FAILURE VALID",
		},
		{
			name: "unparsable validation parameter on a key that is then written",
			setup: func(n *network) {
				set := parameter("both", "k", []byte{0xff, 0xff})
				set.AddWrite("both", "k", []byte("v"))
				n.run(n.tx(tx{set: set}))
			},
			txs: func(n *network) [][]byte {
				return [][]byte{n.tx(tx{set: put("both", "k")}), n.tx(tx{set: put("both", "other")})}
			},
			want: "ENDORSEMENT_POLICY_FAILURE VALID",
		},
		{
			name: "validation parameter that is no policy on a key that is then written",
			setup: func(n *network) {
				set := parameter("both", "k", encode(n.t, &commonpb.SignaturePolicyEnvelope{Rule: &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_SignedBy{SignedBy: 7}}}))
				set.AddWrite("both", "k", []byte("v"))
				n.run(n.tx(tx{set: set}))
			},
			txs:  func(n *network) [][]byte { return [][]byte{n.tx(tx{set: put("both", "k")})} },
			want: "ENDORSEMENT_POLICY_FAILURE",
		},
		{
			name: "merkle range query of degree 1, and of a shape no tree has",
			setup: func(n *network) {
				set := rwset.NewBuilder()
				for _, key := range []string{"r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"} {
					set.AddWrite("both", key, []byte("v"))
				}
				n.run(n.tx(tx{set: set}))
			},
			txs: func(n *network) [][]byte {
				return [][]byte{
					n.tx(tx{raw: merkleQuery(n.t, 1, 1, 1)}),
					n.tx(tx{raw: merkleQuery(n.t, 0, 0, 0)}),
					n.tx(tx{raw: merkleQuery(n.t, 2, 1, 3)}), // more hashes than the degree allows
					n.tx(tx{raw: merkleQuery(n.t, 2, 0, 5)}),
					n.tx(tx{raw: merkleQuery(n.t, 1<<32-1, 1<<31, 1)}),
					n.tx(tx{set: put("both", "k")}),
				}
			},
			want: "PHANTOM_READ_CONFLICT PHANTOM_READ_CONFLICT PHANTOM_READ_CONFLICT PHANTOM_READ_CONFLICT PHANTOM_READ_CONFLICT VALID",
		},
		{
			name:  "raw range query result without a version",
			setup: func(n *network) { n.run(n.tx(tx{set: put("both", "k")})) },
			txs: func(n *network) [][]byte {
				query := &kvrwsetpb.RangeQueryInfo{StartKey: "a", EndKey: "z", ItrExhausted: true, ReadsInfo: &kvrwsetpb.RangeQueryInfo_RawReads{
					RawReads: &kvrwsetpb.QueryReads{KvReads: []*kvrwsetpb.KVRead{{Key: "k"}}}}}
				return [][]byte{n.tx(tx{raw: []*rwsetpb.NsReadWriteSet{namespace(n.t, "both", &kvrwsetpb.KVRWSet{RangeQueriesInfo: []*kvrwsetpb.RangeQueryInfo{query}})}})}
			},
			want: "PHANTOM_READ_CONFLICT",
		},
		{
			name: "range query that runs backwards",
			txs: func(n *network) [][]byte {
				query := &kvrwsetpb.RangeQueryInfo{StartKey: "z", EndKey: "a", ItrExhausted: true}
				return [][]byte{n.tx(tx{set: put("both", "k")}), n.tx(tx{raw: []*rwsetpb.NsReadWriteSet{namespace(n.t, "both", &kvrwsetpb.KVRWSet{RangeQueriesInfo: []*kvrwsetpb.RangeQueryInfo{query}})}})}
			},
			want: "VALID VALID",
		},
		{
			name: "envelope with an empty signature",
			txs: func(n *network) [][]byte {
				return [][]byte{n.tx(tx{env: func(e *commonpb.Envelope) { e.Signature = nil }}), n.tx(tx{set: put("both", "k")})}
			},
			want: "BAD_CREATOR_SIGNATURE VALID",
		},
		{
			name: "no channel and another channel",
			txs: func(n *network) [][]byte {
				return [][]byte{
					n.tx(tx{channel: func(h *commonpb.ChannelHeader) { h.ChannelId = "" }}),
					n.tx(tx{channel: func(h *commonpb.ChannelHeader) { h.ChannelId = "other" }}),
				}
			},
			want: "BAD_CREATOR_SIGNATURE BAD_CREATOR_SIGNATURE",
		},
		{
			name: "config transaction beside another, and one that leads nowhere",
			txs: func(n *network) [][]byte {
				config := tx{channel: func(h *commonpb.ChannelHeader) { h.Type = int32(commonpb.HeaderType_CONFIG) }}
				if got := names(n.run(n.tx(config))); got[0] != "INVALID_CONFIG_TRANSACTION" {
					n.t.Errorf("alone: %v", got)
				}
				return [][]byte{n.tx(config), n.tx(tx{set: put("both", "k")})}
			},
			want: "INVALID_CONFIG_TRANSACTION VALID",
		},
		{
			name: "definitions that cannot be read or name a plugin",
			setup: func(n *network) {
				n.define("broken", signaturePolicy(n.t, "OR('OneMSP.member')"))
				n.set("_lifecycle", "namespaces/fields/broken/ValidationInfo", []byte{0xff})
				n.define("plugin", signaturePolicy(n.t, "OR('OneMSP.member')"))
				n.set("_lifecycle", "namespaces/fields/plugin/ValidationInfo", []byte{})
				n.set("_lifecycle", "namespaces/metadata/kind", []byte{0x0a, 1, 'x'})
				n.set("lscc", "legacy", []byte{0xff})
			},
			txs: func(n *network) [][]byte {
				var all [][]byte
				for _, name := range []string{"broken", "plugin", "kind", "legacy", "absent", "lscc"} {
					all = append(all, n.tx(tx{contract: name}))
				}
				return append(all, n.tx(tx{set: put("both", "k")}))
			},
			want: "INVALID_CHAINCODE INVALID_CHAINCODE INVALID_CHAINCODE INVALID_CHAINCODE INVALID_CHAINCODE INVALID_CHAINCODE VALID",
		},
		{
			name: "repeated namespace, key and collection",
			txs: func(n *network) [][]byte {
				kv := &kvrwsetpb.KVRWSet{Writes: []*kvrwsetpb.KVWrite{{Key: "k", Value: []byte("1")}, {Key: "k", Value: []byte("2")}, {Key: "k", IsDelete: true}}}
				coll := hashedWrite(n.t, "both", "coll", "k")[0].CollectionHashedRwset[0]
				return [][]byte{
					n.tx(tx{raw: []*rwsetpb.NsReadWriteSet{namespace(n.t, "both", kv), namespace(n.t, "both", kv)}}),
					n.tx(tx{raw: []*rwsetpb.NsReadWriteSet{namespace(n.t, "both", kv, coll, coll)}}),
				}
			},
			want: "ILLEGAL_WRITESET VALID",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := newNetwork(t)
			if test.setup != nil {
				test.setup(n)
			}
			if got := strings.Join(names(n.run(test.txs(n)...)), " "); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			n.derive()
		})
	}
}

func hashedWrite(t testing.TB, ns, collection, key string) []*rwsetpb.NsReadWriteSet {
	hashed := &kvrwsetpb.HashedRWSet{HashedWrites: []*kvrwsetpb.KVWriteHash{{KeyHash: hashOf(key), ValueHash: hashOf("value")}}}
	return []*rwsetpb.NsReadWriteSet{namespace(t, ns, &kvrwsetpb.KVRWSet{}, &rwsetpb.CollectionHashedReadWriteSet{CollectionName: collection, HashedRwset: encode(t, hashed), PvtRwsetHash: hashOf("set")})}
}

func merkleQuery(t testing.TB, degree, level uint32, hashes int) []*rwsetpb.NsReadWriteSet {
	summary := &kvrwsetpb.QueryReadsMerkleSummary{MaxDegree: degree, MaxLevel: level}
	for range hashes {
		summary.MaxLevelHashes = append(summary.MaxLevelHashes, hashOf("leaf"))
	}
	query := &kvrwsetpb.RangeQueryInfo{StartKey: "r", EndKey: "s", ItrExhausted: true, ReadsInfo: &kvrwsetpb.RangeQueryInfo_ReadsMerkleHashes{ReadsMerkleHashes: summary}}
	return []*rwsetpb.NsReadWriteSet{namespace(t, "both", &kvrwsetpb.KVRWSet{RangeQueriesInfo: []*kvrwsetpb.RangeQueryInfo{query}})}
}

// What a lying deliverer can make of a good block.
func TestAcceptRefuses(t *testing.T) {
	n := newNetwork(t)
	a, b := n.tx(tx{set: put("both", "a")}), n.tx(tx{set: put("both", "b")})
	env := &commonpb.Envelope{}
	if err := proto.Unmarshal(a, env); err != nil {
		t.Fatal(err)
	}
	signatureAt := len(a) - len(env.Signature) - 2
	tests := []struct {
		name  string
		spoil func(b *commonpb.Block)
		want  string
	}{
		{"no header", func(b *commonpb.Block) { b.Header = nil }, "no header"},
		{"number", func(b *commonpb.Block) { b.Header.Number = 2 }, "number 2"},
		{"previous hash", func(b *commonpb.Block) { b.Header.PreviousHash = []byte{1} }, "previous hash"},
		{"metadata", func(b *commonpb.Block) { b.Metadata.Metadata = b.Metadata.Metadata[:4] }, "metadata entries"},
		{"no data", func(b *commonpb.Block) { b.Data = nil }, "empty"},
		{"data", func(b *commonpb.Block) { b.Data.Data[0] = n.tx(tx{}) }, "data hashes to"},
		{"merged envelopes", func(b *commonpb.Block) {
			b.Data.Data = [][]byte{slices.Concat(b.Data.Data[0], b.Data.Data[1])}
		}, "canonical"},
		{"cut envelope", func(b *commonpb.Block) {
			b.Data.Data = [][]byte{a[:signatureAt], a[signatureAt:], b.Data.Data[1]}
		}, "no payload"},
		{"empty envelope", func(b *commonpb.Block) { b.Data.Data = append(b.Data.Data, []byte{}) }, "no payload"},
		{"garbage envelope", func(b *commonpb.Block) { b.Data.Data[1] = []byte{0xff} }, "no envelope"},
		{"no signature", func(b *commonpb.Block) { block.SetSlot(b, block.SlotSignatures, nil) }, "BlockValidation"},
		{"signature slot", func(b *commonpb.Block) { block.SetSlot(b, block.SlotSignatures, []byte{0xff}) }, "metadata slot 0"},
		{"header changed after signing", func(b *commonpb.Block) {
			b.Data.Data = b.Data.Data[:1]
			b.Header.DataHash = block.DataHash(b.Data.Data)
		}, "BlockValidation"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			blk := n.block(a, b)
			if err := validate.Accept(n.bundle, blk, 1, n.tip); err != nil {
				t.Fatal(err)
			}
			test.spoil(blk)
			err := validate.Accept(n.bundle, blk, 1, n.tip)
			bad := (*validate.BadBlock)(nil)
			if !errors.As(err, &bad) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want a BadBlock about %q", err, test.want)
			}
		})
	}
	orderer := n.orderer
	n.orderer = n.one
	if err := validate.Accept(n.bundle, n.block(a, b), 1, n.tip); err == nil || !strings.Contains(err.Error(), "BlockValidation") {
		t.Errorf("block signed by a member: %v", err)
	}
	n.orderer = orderer
}

// A Byzantine-fault-tolerant orderer signs under its number among the consenters.
func TestAcceptConsenterNumbers(t *testing.T) {
	n := newNetworkAt(t, "V3_0", func(n *network) *commonpb.Orderers {
		cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.orderer.Certificate().Raw})
		return &commonpb.Orderers{ConsenterMapping: []*commonpb.Consenter{{Id: 7, MspId: "OrdererMSP", Identity: cert}}}
	})
	sign := func(number uint32, by *identity.Signer) *commonpb.Block {
		b := block.New(1, n.tip, [][]byte{n.tx(tx{})})
		header, value := encode(t, &commonpb.IdentifierHeader{Identifier: number, Nonce: []byte("n")}), []byte("value")
		sig, err := by.Sign(block.SignedBytes(value, header, b.Header))
		if err != nil {
			t.Fatal(err)
		}
		block.SetSlot(b, block.SlotSignatures, encode(t, &commonpb.Metadata{Value: value, Signatures: []*commonpb.MetadataSignature{{IdentifierHeader: header, Signature: sig}}}))
		return b
	}
	if err := validate.Accept(n.bundle, sign(7, n.orderer), 1, n.tip); err != nil {
		t.Error(err)
	}
	if err := validate.Accept(n.bundle, sign(8, n.orderer), 1, n.tip); err == nil {
		t.Error("a number that is no consenter's was accepted")
	}
	if err := validate.Accept(n.bundle, sign(7, n.one), 1, n.tip); err == nil {
		t.Error("a signature that is not the consenter's was accepted")
	}
	old := newNetwork(t)
	n.bundle = old.bundle
	if err := validate.Accept(n.bundle, sign(7, old.orderer), 1, n.tip); err == nil {
		t.Error("below V3_0 a numbered signature was accepted")
	}
}

// Contracts that were defined before the channel reached V2_0 keep their rules: their collections have none of their own.
func TestLegacyDefinition(t *testing.T) {
	n := newNetwork(t)
	collections := &peerpb.CollectionConfigPackage{Config: []*peerpb.CollectionConfig{{Payload: &peerpb.CollectionConfig_StaticCollectionConfig{StaticCollectionConfig: &peerpb.StaticCollectionConfig{Name: "coll"}}}}}
	n.set("lscc", "old", encode(t, &peerpb.ChaincodeData{Name: "old", Version: "1", Vscc: "vscc", Policy: signaturePolicy(t, "AND('OneMSP.member','TwoMSP.member')")}))
	n.set("lscc", "old~collection", encode(t, collections))
	one := []*identity.Signer{n.one}
	got := names(n.run(
		n.tx(tx{contract: "old", set: put("old", "a")}),
		n.tx(tx{contract: "old", set: put("old", "b"), endorsers: one}),
		n.tx(tx{contract: "old", raw: hashedWrite(t, "old", "coll", "k")}),
		n.tx(tx{contract: "old", raw: hashedWrite(t, "old", "coll", "k"), endorsers: one}),
		n.tx(tx{contract: "old", raw: hashedWrite(t, "old", "_implicit_org_OneMSP", "k"), endorsers: one}),
	))
	if want := "VALID ENDORSEMENT_POLICY_FAILURE VALID ENDORSEMENT_POLICY_FAILURE ENDORSEMENT_POLICY_FAILURE"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if got := n.state.places[rwset.Place{Namespace: "old", Collection: "coll"}]; len(got) != 1 {
		t.Errorf("%d private keys", len(got))
	}
}
