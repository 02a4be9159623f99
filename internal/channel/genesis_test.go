package channel_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

func goldenSpec(t testing.TB) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", "golden.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func mustGenesis(t testing.TB, text, dir string) *commonpb.Block {
	t.Helper()
	spec, err := channel.ParseSpec([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	b, err := spec.Genesis(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The configuration is the one that configtxgen made of its own description.
func TestGenesisEqualsConfigtxgen(t *testing.T) {
	got := mustGenesis(t, goldenSpec(t), vectors)
	want := goldenBlocks(t)[0]
	gotEnv, id, err := block.ConfigEnvelope(got)
	if err != nil {
		t.Fatal(err)
	}
	wantEnv, _, err := block.ConfigEnvelope(want)
	if err != nil {
		t.Fatal(err)
	}
	if id != "devledger" {
		t.Errorf("channel %q", id)
	}
	if diff := cmp.Diff(wantEnv, gotEnv, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	for slot := range want.Metadata.Metadata {
		if slot == block.SlotFilter {
			continue // the golden block is as a peer stored it
		}
		if string(got.Metadata.Metadata[slot]) != string(want.Metadata.Metadata[slot]) {
			t.Errorf("metadata slot %d: %x, configtxgen has %x", slot, got.Metadata.Metadata[slot], want.Metadata.Metadata[slot])
		}
	}
	if !proto.Equal(got, mustGenesis(t, goldenSpec(t), vectors)) {
		t.Error("a second block of the same description differs")
	}
	if other := mustGenesis(t, strings.Replace(goldenSpec(t), "maxMessages: 50", "maxMessages: 51", 1), vectors); proto.Equal(got, other) {
		t.Error("another description gives the same block")
	}
	if _, err := channel.FromBlock(got, verifier()); err != nil {
		t.Error(err)
	}
}

func TestSpecDefaults(t *testing.T) {
	text := goldenSpec(t)
	start, end := strings.Index(text, "batch:"), strings.Index(text, "members:")
	text = text[:start] + text[end:]
	text = strings.Replace(text, "mspDir: crypto-config/peerOrganizations/beta.dev/msp", "mspDir: crypto-config/peerOrganizations/beta.dev/msp\n    anchorPeers: ['peer0.beta:7051', '[::1]:7052']", 1)
	text += "acls: {qscc/GetChainInfo: Writers}\n"
	b, err := channel.FromBlock(mustGenesis(t, text, vectors), verifier())
	if err != nil {
		t.Fatal(err)
	}
	if s := b.BatchSize(); s.MaxMessageCount != 500 || s.AbsoluteMaxBytes != 10<<20 || s.PreferredMaxBytes != 2<<20 || b.BatchTimeout() != 2*time.Second {
		t.Errorf("batch %v, %v", s, b.BatchTimeout())
	}
	if !b.ApplicationV2_5() || b.ChannelV3() {
		t.Error("wrong capabilities")
	}
	anchors := b.ApplicationOrgs()[1].AnchorPeers
	if len(anchors) != 2 || anchors[0].String() != "peer0.beta:7051" || anchors[1] != (channel.Address{Host: "::1", Port: 7052}) {
		t.Errorf("anchors %v", anchors)
	}
	if path, ok := b.ACL("qscc/GetChainInfo"); !ok || path != "/Channel/Application/Writers" {
		t.Errorf("ACL %q", path)
	}
}

// A member may run peers and orderers: it stands in both groups then.
func TestMemberWithPeersAndOrderers(t *testing.T) {
	text := strings.Replace(goldenSpec(t), "    orderingOnly: true\n", "", 1)
	b, err := channel.FromBlock(mustGenesis(t, text, vectors), verifier())
	if err != nil {
		t.Fatal(err)
	}
	if len(b.ApplicationOrgs()) != 3 || len(b.OrdererOrgs()) != 1 || b.OrdererOrgs()[0].MSPID != "OrdererMSP" {
		t.Errorf("members %v, with orderers %v", b.ApplicationOrgs(), b.OrdererOrgs())
	}
}

func TestGenesisOfBFT(t *testing.T) {
	text := strings.Replace(goldenSpec(t), "channel: devledger", "channel: devledger\nconsensus: BFT\ncapabilities: {channel: V3_0}", 1)
	text = strings.Replace(text, "tlsCert: crypto-config/ordererOrganizations/orderer.dev/orderers/orderer.orderer.dev/tls/server.crt", "tlsCert: crypto-config/ordererOrganizations/orderer.dev/orderers/orderer.orderer.dev/tls/server.crt\n    identity: crypto-config/ordererOrganizations/orderer.dev/orderers/orderer.orderer.dev/msp/signcerts/orderer.orderer.dev-cert.pem", 1)
	b, err := channel.FromBlock(mustGenesis(t, text, vectors), verifier())
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := b.ConsensusType()
	if consenters := b.Consenters(); name != channel.ConsensusBFT || len(consenters) != 1 || consenters[0].Id != 1 || consenters[0].MspId != "OrdererMSP" || !b.ChannelV3() {
		t.Errorf("consensus %s with %v", name, consenters)
	}
	env, err := b.SignatureEnvelope("/Channel/Orderer/BlockValidation")
	if err != nil || env.GetRule().GetNOutOf().GetN() != 1 {
		t.Errorf("block validation policy %v, %v", env, err)
	}
}

func TestSpecErrors(t *testing.T) {
	good := goldenSpec(t)
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the description", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for _, test := range []struct{ text, want string }{
		{"", "empty"},
		{good + "---\nchannel: x\n", "more follow"},
		{good + "colour: blue\n", `unknown key "colour"`},
		{replace("channel: devledger", "channel: Devledger"), "channel: 'Devledger' contains illegal characters"},
		{replace("channel: devledger", "channel: ''"), "cannot be empty"},
		{replace("timeout: 1s", "timeout: soon"), "soon"},
		{replace("timeout: 1s", "timeout: -1s"), "batch.timeout"},
		{replace("4 MB", "4 GB"), "is no size"},
		{replace("4 MB", "4096 MB"), "is no size"},
		{replace("4 MB", "1 KB"), "batch.preferredMaxBytes"},
		{replace("mspId: BetaMSP", "mspId: AlphaMSP"), "members[1].mspId: AlphaMSP is there twice"},
		{replace("name: Beta", "name: Alpha"), "members[1].name: Alpha is there twice"},
		{replace("name: Beta", "name: B/ta"), "members[1].name: config ID 'B/ta' contains illegal characters"},
		{replace("mspDir: crypto-config/peerOrganizations/beta.dev/msp", "mspDir: ''"), "members[1].mspDir"},
		{replace("mspDir: crypto-config/peerOrganizations/beta.dev/msp", "mspDir: nowhere"), "member Beta: mspDir"},
		{replace("mspDir: crypto-config/peerOrganizations/beta.dev/msp", "mspDir: crypto-config/peerOrganizations/beta.dev/msp\n    orderingOnly: true"), "members[1].orderingOnly: Beta runs no orderer"},
		{replace("mspDir: crypto-config/peerOrganizations/beta.dev/msp", "mspDir: crypto-config/peerOrganizations/beta.dev/msp\n    anchorPeers: [peer0]"), "members[1].anchorPeers"},
		{replace("mspDir: crypto-config/peerOrganizations/beta.dev/msp", "mspDir: crypto-config/peerOrganizations/beta.dev/msp\n    policies: {Readers: 'MOST Readers'}"), "policies.Readers"},
		{replace("- member: OrdererOrg", "- member: Delta"), "orderers[0].member: \"Delta\""},
		{replace("port: 21310", "port: 0"), "orderers[0].port"},
		{replace("tlsCert: crypto-config/ordererOrganizations/orderer.dev/orderers/orderer.orderer.dev/tls/server.crt", "tlsCert: missing.crt"), "orderers[0].tlsCert"},
		{replace("tlsCert: crypto-config/ordererOrganizations/orderer.dev/orderers/orderer.orderer.dev/tls/server.crt", "tlsCert: configtx.yaml"), "no PEM data"},
		{replace("tlsCert: crypto-config/ordererOrganizations/orderer.dev/orderers/orderer.orderer.dev/tls/server.crt", "tlsCert: crypto-config/peerOrganizations/alpha.dev/msp/tlscacerts/tlsca.alpha.dev-cert.pem"), "has invalid certificate"},
		{replace("channel: devledger", "channel: devledger\nconsensus: solo"), "consensus: \"solo\""},
		{replace("channel: devledger", "channel: devledger\nconsensus: BFT"), "needs capabilities.channel V3_0"},
		{replace("channel: devledger", "channel: devledger\ncapabilities: {channel: V9}"), "capabilities.channel"},
		{replace("channel: devledger", "channel: devledger\nraft: {electionTick: 1}"), "raft.electionTick"},
		{replace("AnyEndorsement: ANY Endorsement", "AnyEndorsement: ANY"), "policies.application.AnyEndorsement"},
	} {
		spec, err := channel.ParseSpec([]byte(test.text))
		if err == nil {
			_, err = spec.Genesis(vectors)
		}
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("error %v, want %q", err, test.want)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add([]byte(goldenSpec(f)))
	f.Add([]byte("channel: &a [*a]"))
	f.Add([]byte("members: [{name: A, mspId: A, mspDir: x}]\norderers: [{member: A, host: h, port: 1, tlsCert: x}]\nchannel: c"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		spec, err := channel.ParseSpec(raw)
		if (spec == nil) == (err == nil) {
			t.Fatal("neither description nor error")
		}
	})
}
