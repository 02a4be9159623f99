package channel_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// vectors is the golden ledger "devledger", made by Hyperledger Fabric.
const vectors = "../../testdata/vectors"

func readProto[M proto.Message](t testing.TB, m M, name string) M {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(raw, m); err != nil {
		t.Fatalf("decode %s: %v", name, err)
	}
	return m
}

func verifier() *identity.Verifier { return identity.NewVerifier(identity.Config{}) }

// goldenBlocks are the golden ledger's config blocks.
func goldenBlocks(t testing.TB) []*commonpb.Block {
	t.Helper()
	var blocks []*commonpb.Block
	for _, n := range []int{0, 1, 2, 72, 76, 80, 82, 87, 89, 91, 92, 98, 99, 101, 103, 104, 105, 108} {
		blocks = append(blocks, readProto(t, &commonpb.Block{}, fmt.Sprintf("blocks/%06d.block", n)))
	}
	return blocks
}

// goldenBundles are the configurations of the golden ledger, in order.
func goldenBundles(t testing.TB) []*channel.Bundle {
	t.Helper()
	v := verifier()
	var bundles []*channel.Bundle
	for _, b := range goldenBlocks(t) {
		if b.Header.Number == 0 {
			first, err := channel.FromBlock(b, v)
			if err != nil {
				t.Fatal(err)
			}
			bundles = append(bundles, first)
			continue
		}
		env, _, err := block.ConfigEnvelope(b)
		if err != nil {
			t.Fatal(err)
		}
		next, err := bundles[len(bundles)-1].ValidateConfig(env)
		if err != nil {
			t.Fatalf("block %d: %v", b.Header.Number, err)
		}
		bundles = append(bundles, next)
	}
	return bundles
}

func TestReplayReachesTheFinalConfig(t *testing.T) {
	bundles := goldenBundles(t)
	last := bundles[len(bundles)-1]
	want := readProto(t, &commonpb.Config{}, "final_config/config.pb")
	if !proto.Equal(last.Config(), want) {
		t.Fatal("the configuration after the last config block is not the golden one")
	}
	if last.Sequence() != uint64(len(bundles)-1) {
		t.Errorf("sequence %d after %d updates", last.Sequence(), len(bundles)-1)
	}
	if _, err := last.ValidateConfig(&commonpb.ConfigEnvelope{Config: want}); err == nil {
		t.Error("a config of the same sequence was accepted again")
	}
}

// What orderers accepted once they accept again, and come to the same configuration.
func TestProposeUpdateGivesWhatWasOrdered(t *testing.T) {
	bundles := goldenBundles(t)
	for i, b := range goldenBlocks(t)[1:] {
		env, _, err := block.ConfigEnvelope(b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := bundles[i].ProposeUpdate(env.LastUpdate)
		if err != nil {
			t.Fatalf("block %d: %v", b.Header.Number, err)
		}
		if !proto.Equal(got, env) {
			t.Errorf("block %d: another configuration than was ordered", b.Header.Number)
		}
	}
}

func TestBundleOfTheGoldenGenesis(t *testing.T) {
	b := goldenBundles(t)[0]
	if b.ID() != "devledger" || b.Sequence() != 0 || !b.HasOrderer() || !b.HasApplication() {
		t.Fatalf("channel %q at sequence %d", b.ID(), b.Sequence())
	}
	if b.ChannelV3() || !b.ApplicationV2_0() || !b.ApplicationV2_5() || !b.ApplicationV1_3() {
		t.Error("wrong capabilities")
	}
	size := b.BatchSize()
	if size.MaxMessageCount != 50 || size.AbsoluteMaxBytes != 4<<20 || size.PreferredMaxBytes != 1<<20 || b.BatchTimeout() != time.Second {
		t.Errorf("batch %v, timeout %v", size, b.BatchTimeout())
	}
	name, _, state := b.ConsensusType()
	raft, err := b.RaftMetadata()
	if err != nil || name != channel.ConsensusRaft || state != 0 || len(raft.Consenters) != 1 || raft.Consenters[0].Port != 21310 {
		t.Errorf("consensus %q %v %v %v", name, state, raft, err)
	}
	endpoints := b.OrdererEndpoints()
	if len(endpoints) != 1 || endpoints[0].Address != "127.0.0.1:21310" || endpoints[0].MSPID != "OrdererMSP" || len(endpoints[0].TLSRoots) != 1 {
		t.Errorf("endpoints %v", endpoints)
	}
	var names []string
	for _, org := range b.ApplicationOrgs() {
		names = append(names, org.Name+" "+org.MSPID)
	}
	if !slices.Equal(names, []string{"Alpha AlphaMSP", "Beta BetaMSP"}) {
		t.Errorf("application members %v", names)
	}
	for path, want := range map[string]bool{
		"/Channel/Readers": true, "/Channel/Application/Writers": true, "/Channel/Application/Alpha/Endorsement": true,
		"/Channel/Orderer/BlockValidation": true,
		"":                                 false, "/": false, "/Channel": false, "/Channel/": false, "/Channel/Nothing": false, "Application/Writers": false, "/Other/Readers": false,
	} {
		if p, ok := b.Policy(path); ok != want || (p != nil) != want {
			t.Errorf("policy %q found: %v", path, ok)
		}
	}
	if _, ok := b.PolicyRef("Application/Writers"); !ok {
		t.Error("a relative reference is not found")
	}
	if _, err := b.SignatureEnvelope("/Channel/Nothing"); err == nil {
		t.Error("a policy that does not exist was converted")
	}
	env, err := b.SignatureEnvelope("/Channel/Application/Endorsement")
	if err != nil {
		t.Fatal(err)
	}
	gate := env.GetRule().GetNOutOf()
	if gate.GetN() != 2 || len(gate.GetRules()) != 2 || len(env.Identities) != 2 {
		t.Errorf("MAJORITY Endorsement became %v", env)
	}
}

func TestLaterGoldenConfigurations(t *testing.T) {
	bundles := goldenBundles(t)
	last := bundles[len(bundles)-1]
	var anchors []string
	for _, org := range last.ApplicationOrgs() {
		for _, a := range org.AnchorPeers {
			anchors = append(anchors, org.Name+" "+a.String())
		}
	}
	if len(last.ApplicationOrgs()) != 3 || len(anchors) < 3 {
		t.Errorf("members %v with anchors %v", last.ApplicationOrgs(), anchors)
	}
	// Block 82, which makes the seventh configuration, sets this one; it names the default.
	if path, ok := bundles[6].ACL("qscc/GetBlockByNumber"); !ok || path != "/Channel/Application/Readers" {
		t.Errorf("ACL %q", path)
	}
}
