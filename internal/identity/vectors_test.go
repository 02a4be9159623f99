package identity_test

import (
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// vectorManager sets up the MSPs of a channel made by real Fabric: node OUs, a revoked user, a client among the admins.
func vectorManager(t testing.TB, v *identity.Verifier) *identity.Manager {
	t.Helper()
	config := &commonpb.Config{}
	if err := proto.Unmarshal(read(t, "config.pb"), config); err != nil {
		t.Fatal(err)
	}
	var msps []*identity.MSP
	var walk func(g *commonpb.ConfigGroup)
	walk = func(g *commonpb.ConfigGroup) {
		if value, ok := g.Values["MSP"]; ok {
			conf := &msppb.MSPConfig{}
			if err := proto.Unmarshal(value.Value, conf); err != nil {
				t.Fatal(err)
			}
			m, err := identity.NewMSP(conf, v, identity.Options{})
			if err != nil {
				t.Fatal(err)
			}
			msps = append(msps, m)
		}
		for _, sub := range g.Groups {
			walk(sub)
		}
	}
	walk(config.ChannelGroup)
	m, err := identity.NewManager(msps)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.MSPs()) != 4 {
		t.Fatalf("%d MSPs in the vectors, want 4", len(m.MSPs()))
	}
	return m
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func readBlock(t testing.TB, name string) *block.Parsed {
	t.Helper()
	b := &commonpb.Block{}
	if err := proto.Unmarshal(read(t, name), b); err != nil {
		t.Fatal(err)
	}
	return block.Parse(b)
}

// checkCreator is what a peer asks of a creator.
func checkCreator(m *identity.Manager, tx *envelope.Tx) error {
	id, err := m.Deserialize(tx.Creator())
	if err != nil {
		return err
	}
	if err := id.Validate(); err != nil {
		return err
	}
	return id.Verify(tx.Envelope.GetPayload(), tx.Envelope.GetSignature())
}

// Real Fabric's verdicts on good and bad creators: revoked, unknown, stolen, without or with two units, Ed25519, high S, expired,
// older than their CA.
func TestCreatorsOfRealBlocks(t *testing.T) {
	m := vectorManager(t, identity.NewVerifier(identity.Config{}))
	for _, name := range []string{"000106.block", "000107.block"} {
		b := readBlock(t, name)
		for i, code := range block.Filter(b.Block) {
			if code == 3 { // BAD_COMMON_HEADER: no creator to look at
				continue
			}
			err := checkCreator(m, b.Txs[i])
			if bad := code == 4; bad != (err != nil) {
				t.Errorf("%s tx %d: code %d, creator: %v", name, i, code, err)
			}
		}
	}
}

func TestBlockSignerAndEndorsersOfRealBlocks(t *testing.T) {
	m := vectorManager(t, newVerifier())
	b := readBlock(t, "000107.block")
	meta, err := block.Metadata(b.Block, block.SlotSignatures)
	if err != nil {
		t.Fatal(err)
	}
	sig := meta.Signatures[0]
	header := &commonpb.SignatureHeader{}
	if err := proto.Unmarshal(sig.SignatureHeader, header); err != nil {
		t.Fatal(err)
	}
	id, err := m.Deserialize(header.Creator)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Verify(block.SignedBytes(meta.Value, sig.SignatureHeader, b.Header), sig.Signature); err != nil {
		t.Error(err)
	}
	if err := id.Satisfies(role(id.MSPID(), msppb.MSPRole_ORDERER)); err != nil {
		t.Error(err)
	}
	for _, endorsement := range b.Txs[0].Actions[0].Payload.Action.Endorsements {
		id, err := m.Deserialize(endorsement.Endorser)
		if err != nil {
			t.Fatal(err)
		}
		signed := append(append([]byte{}, b.Txs[0].Actions[0].Payload.Action.ProposalResponsePayload...), endorsement.Endorser...)
		if err := id.Verify(signed, endorsement.Signature); err != nil {
			t.Error(err)
		}
		if err := id.Satisfies(role(id.MSPID(), msppb.MSPRole_PEER)); err != nil {
			t.Error(err)
		}
	}
}

func newVerifier() *identity.Verifier { return identity.NewVerifier(identity.Config{}) }

func role(mspID string, r msppb.MSPRole_MSPRoleType) *msppb.MSPPrincipal {
	raw, err := proto.Marshal(&msppb.MSPRole{MspIdentifier: mspID, Role: r})
	if err != nil {
		panic(err)
	}
	return &msppb.MSPPrincipal{PrincipalClassification: msppb.MSPPrincipal_ROLE, Principal: raw}
}
