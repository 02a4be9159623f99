package channel_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/smartbftpb"
)

// updateEnvelopeOf opens a CONFIG_UPDATE envelope.
func updateEnvelopeOf(t testing.TB, env *commonpb.Envelope) *commonpb.ConfigUpdateEnvelope {
	t.Helper()
	payload, update := &commonpb.Payload{}, &commonpb.ConfigUpdateEnvelope{}
	if err := errors.Join(proto.Unmarshal(env.Payload, payload), proto.Unmarshal(payload.Data, update)); err != nil {
		t.Fatal(err)
	}
	return update
}

// The two config updates that the real orderer refused, with its words. Their
// signatures exist within updates that it accepted: one of the two is dropped for
// the first, and the second is one that came too early.
func TestRefusedGoldenUpdates(t *testing.T) {
	bundles, blocks := goldenBundles(t), goldenBlocks(t)
	at := func(number uint64) int {
		for i, b := range blocks {
			if b.Header.Number == number {
				return i
			}
		}
		t.Fatalf("no config block %d", number)
		return 0
	}
	lastUpdate := func(number uint64) *commonpb.Envelope {
		env, _, err := block.ConfigEnvelope(blocks[at(number)])
		if err != nil {
			t.Fatal(err)
		}
		return env.LastUpdate
	}
	oneAdmin := updateEnvelopeOf(t, lastUpdate(87))
	if len(oneAdmin.Signatures) != 2 {
		t.Fatalf("block 87 has %d signatures", len(oneAdmin.Signatures))
	}
	oneAdmin.Signatures = oneAdmin.Signatures[:1]
	_, err := bundles[at(87)-1].ProposeUpdate(wrap(t, oneAdmin))
	wantError(t, err, "error authorizing update: error validating DeltaSet: policy for [Policy] /Channel/Application/Endorsement not satisfied: implicit policy evaluation failed - 1 sub-policies were satisfied, but this policy requires 2 of the 'Admins' sub-policies to be satisfied")

	oneAdmin.Signatures = append(oneAdmin.Signatures, oneAdmin.Signatures[0])
	_, err = bundles[at(87)-1].ProposeUpdate(wrap(t, oneAdmin))
	wantError(t, err, "1 sub-policies were satisfied") // signing twice is no help

	// User3 became an admin with block 103 only.
	_, err = bundles[at(101)].ProposeUpdate(lastUpdate(104))
	wantError(t, err, "error authorizing update: error validating DeltaSet: policy for [Value]  /Channel/Application/Alpha/AnchorPeers not satisfied: signature set did not satisfy policy")

	// What was applied once does not apply again.
	_, err = bundles[at(87)].ProposeUpdate(lastUpdate(87))
	wantError(t, err, "error validating DeltaSet: attempt to set key [Policy] /Channel/Application/Endorsement to version")
}

func wantError(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

// The golden updates were computed by Fabric's configtxlator.
func TestComputeUpdateEqualsConfigtxlator(t *testing.T) {
	got, err := channel.ComputeUpdate("devledger",
		readProto(t, &commonpb.Config{}, "config_update_example/original_config.pb"),
		readProto(t, &commonpb.Config{}, "config_update_example/updated_config.pb"))
	if err != nil {
		t.Fatal(err)
	}
	if want := readProto(t, &commonpb.ConfigUpdate{}, "config_update_example/config_update.pb"); !proto.Equal(got, want) {
		t.Errorf("update %v, want %v", got, want)
	}
	bundles := goldenBundles(t)
	for i, b := range goldenBlocks(t)[1:] {
		env, _, err := block.ConfigEnvelope(b)
		if err != nil {
			t.Fatal(err)
		}
		want := &commonpb.ConfigUpdate{}
		if err := proto.Unmarshal(updateEnvelopeOf(t, env.LastUpdate).ConfigUpdate, want); err != nil {
			t.Fatal(err)
		}
		got, err := channel.ComputeUpdate("devledger", bundles[i].Config(), bundles[i+1].Config())
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, want) {
			t.Errorf("block %d: update %v, want %v", b.Header.Number, got, want)
		}
	}
	same := bundles[0].Config()
	if _, err := channel.ComputeUpdate("devledger", same, same); err == nil {
		t.Error("an update of nothing was computed")
	}
	if _, err := channel.ComputeUpdate("devledger", same, &commonpb.Config{}); err == nil {
		t.Error("an update to nothing was computed")
	}
}

const (
	orderer     = "Orderer"
	application = "Application"
)

func TestUpdateRules(t *testing.T) {
	n := newNetwork(t, 1, "")
	admins := n.admins
	for _, test := range []struct {
		name   string
		update *commonpb.ConfigUpdate
		by     string // initials of the admins who sign
		want   string // error; empty if accepted
	}{
		{"anchor peers", n.edit(func(r *commonpb.ConfigGroup) {
			setValue(t, r.Groups[application].Groups["Alpha"], "AnchorPeers", &peerpb.AnchorPeers{AnchorPeers: []*peerpb.AnchorPeer{{Host: "h", Port: 1}}})
		}), "A", ""},
		{"anchor peers by another", n.edit(func(r *commonpb.ConfigGroup) {
			setValue(t, r.Groups[application].Groups["Alpha"], "AnchorPeers", &peerpb.AnchorPeers{})
		}), "BGC", "policy for [Group]  /Channel/Application/Alpha not satisfied: signature set did not satisfy policy"},
		{"a member leaves", n.edit(func(r *commonpb.ConfigGroup) { delete(r.Groups[application].Groups, "Gamma") }), "AB", ""},
		{"a member leaves, by one", n.edit(func(r *commonpb.ConfigGroup) { delete(r.Groups[application].Groups, "Gamma") }), "G", "policy for [Group]  /Channel/Application not satisfied"},
		{"batch size", n.edit(func(r *commonpb.ConfigGroup) {
			setValue(t, r.Groups[orderer], "BatchSize", &ordererpb.BatchSize{MaxMessageCount: 1, AbsoluteMaxBytes: 10, PreferredMaxBytes: 10})
		}), "C", ""},
		{"batch size zero", n.edit(func(r *commonpb.ConfigGroup) {
			setValue(t, r.Groups[orderer], "BatchSize", &ordererpb.BatchSize{AbsoluteMaxBytes: 10, PreferredMaxBytes: 10})
		}), "C", "Attempted to set the batch size max message count to an invalid value: 0"},
		{"batch timeout", n.edit(func(r *commonpb.ConfigGroup) {
			setValue(t, r.Groups[orderer], "BatchTimeout", &ordererpb.BatchTimeout{Timeout: "-1s"})
		}), "C", "non-positive value: -1s"},
		{"unknown value", n.edit(func(r *commonpb.ConfigGroup) {
			setValue(t, r.Groups[orderer], "Colour", &ordererpb.BatchTimeout{})
		}), "C", "Unexpected key Colour"},
		{"unknown group", n.edit(func(r *commonpb.ConfigGroup) { r.Groups["Other"] = &commonpb.ConfigGroup{ModPolicy: "Admins"} }), "ABGC", "Disallowed channel group: Other"},
		{"without orderers", n.edit(func(r *commonpb.ConfigGroup) { delete(r.Groups, orderer) }), "ABGC", "config does not contain orderer config"},
		{"without application", n.edit(func(r *commonpb.ConfigGroup) { delete(r.Groups, application) }), "ABGC", "current config has application section, but new config does not"},
		{"channel policy by a minority", n.edit(func(r *commonpb.ConfigGroup) { r.Policies["Mine"] = proto.CloneOf(r.Policies["Admins"]) }), "AB", "policy for [Group]  /Channel not satisfied"},
		{"channel policy", n.edit(func(r *commonpb.ConfigGroup) { r.Policies["Mine"] = proto.CloneOf(r.Policies["Admins"]) }), "ABC", ""},
		{"policy without a definition", n.edit(func(r *commonpb.ConfigGroup) { r.Policies["Mine"] = &commonpb.ConfigPolicy{ModPolicy: "Admins"} }), "ABC", "policy Mine at path Channel was nil"},
		{"policy of an unknown type", n.edit(func(r *commonpb.ConfigGroup) {
			r.Policies["Mine"] = &commonpb.ConfigPolicy{ModPolicy: "Admins", Policy: &commonpb.Policy{Type: 9}}
		}), "ABC", "unknown policy type: 9"},
		{"no mod_policy", n.edit(func(r *commonpb.ConfigGroup) { r.Groups[application].Groups["Alpha"].Values["MSP"].ModPolicy = "" }), "A", "invalid mod_policy for element [Value]  /Channel/Application/Alpha/MSP: mod_policy not set"},
		{"odd mod_policy", n.edit(func(r *commonpb.ConfigGroup) {
			r.Groups[application].Groups["Alpha"].Values["MSP"].ModPolicy = "/Channel//Admins"
		}), "A", "path element at 1 is invalid: config ID illegal, cannot be empty"},
		{"another MSP ID", n.edit(func(r *commonpb.ConfigGroup) {
			r.Groups[application].Groups["Alpha"].Values["MSP"].Value = r.Groups[application].Groups["Beta"].Values["MSP"].Value
		}), "A", "application org Alpha attempted to change MSP ID from AlphaMSP to BetaMSP"},
		{"no MSP", n.edit(func(r *commonpb.ConfigGroup) { delete(r.Groups[application].Groups["Alpha"].Values, "MSP") }), "A", "setting up the MSP manager failed"},
		{"sub-group of a member", n.edit(func(r *commonpb.ConfigGroup) {
			r.Groups[application].Groups["Alpha"].Groups = map[string]*commonpb.ConfigGroup{"Dept": {ModPolicy: "Admins"}}
		}), "A", "ApplicationOrg config does not allow sub-groups"},
		{"unknown capability", n.edit(func(r *commonpb.ConfigGroup) {
			setValue(t, r.Groups[application], "Capabilities", &commonpb.Capabilities{Capabilities: map[string]*commonpb.Capability{"V9_9": {}}})
			setValue(t, r.Groups[application], "Unheard", &commonpb.Capabilities{})
		}), "ABG", "Application capability V9_9 is required but not supported"},
		{"other channel", &commonpb.ConfigUpdate{ChannelId: "other"}, "ABGC", "ConfigUpdate for channel 'other' but envelope for channel 'trade'"},
		{"nothing", &commonpb.ConfigUpdate{ChannelId: "trade"}, "ABGC", "delta set was empty -- update would have no effect"},
		{"read what is not there", &commonpb.ConfigUpdate{ChannelId: "trade", ReadSet: &commonpb.ConfigGroup{Values: map[string]*commonpb.ConfigValue{"X": {}}}}, "ABGC", "error validating ReadSet: existing config does not contain element for [Value]  /Channel/X but was in the read set"},
		{"read another version", &commonpb.ConfigUpdate{ChannelId: "trade", ReadSet: &commonpb.ConfigGroup{Version: 3}}, "ABGC", "error validating ReadSet: proposed update requires that key [Group]  /Channel be at version 3, but it is currently at version 0"},
		{"odd key", &commonpb.ConfigUpdate{ChannelId: "trade", WriteSet: &commonpb.ConfigGroup{Policies: map[string]*commonpb.ConfigPolicy{"a/b": {}}}}, "ABGC", "error mapping WriteSet: illegal characters in key: [Policy] : config ID 'a/b' contains illegal characters"},
		{"new at a version", &commonpb.ConfigUpdate{ChannelId: "trade", ReadSet: &commonpb.ConfigGroup{}, WriteSet: &commonpb.ConfigGroup{Values: map[string]*commonpb.ConfigValue{"X": {Version: 1, ModPolicy: "Admins"}}}}, "ABGC", "attempted to set key [Value]  /Channel/X to version 1, but key does not exist"},
		{"skips a version", &commonpb.ConfigUpdate{ChannelId: "trade", WriteSet: &commonpb.ConfigGroup{Version: 2, ModPolicy: "Admins"}}, "ABGC", "attempt to set key [Group]  /Channel to version 2, but key is at version 0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var signers []*identity.Signer
			for name, admin := range admins {
				if strings.Contains(test.by, name[:1]) {
					signers = append(signers, admin)
				}
			}
			env := n.sign(test.update, signers...)
			next, err := n.ProposeUpdate(env)
			if test.want != "" {
				wantError(t, err, test.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			after, err := n.ValidateConfig(next)
			if err != nil {
				t.Fatal(err)
			}
			if after.Sequence() != 1 {
				t.Errorf("sequence %d", after.Sequence())
			}
			// A peer does not take the orderer's word for it.
			forged := proto.CloneOf(next)
			forged.Config.ChannelGroup.ModPolicy = "Readers"
			if _, err := n.ValidateConfig(forged); err == nil || !strings.Contains(err.Error(), "did not produce the supplied config result") {
				t.Errorf("a forged configuration: %v", err)
			}
			forged = proto.CloneOf(next)
			forged.Config.Sequence = 2
			if _, err := n.ValidateConfig(forged); err == nil {
				t.Error("a skipped sequence was accepted")
			}
			if _, err := after.ValidateConfig(next); err == nil {
				t.Error("a configuration was accepted twice")
			}
		})
	}
	unsupported := n.edit(func(r *commonpb.ConfigGroup) {
		setValue(t, r, "Capabilities", &commonpb.Capabilities{Capabilities: map[string]*commonpb.Capability{"V4_0": {}}})
	})
	_, err := n.ProposeUpdate(n.sign(unsupported, admins["Alpha"], admins["Beta"], admins["Carrier"]))
	if typed := (*channel.UnsupportedCapability)(nil); !errors.As(err, &typed) || typed.Name != "V4_0" || typed.Group != "Channel" {
		t.Errorf("an unknown capability: %v", err)
	}
}

// Fabric drops what an update adds below a group that it does not change; the
// update still counts.
func TestOrphansVanish(t *testing.T) {
	n := newNetwork(t, 1, "")
	update := &commonpb.ConfigUpdate{
		ChannelId: "trade",
		ReadSet:   &commonpb.ConfigGroup{},
		WriteSet:  &commonpb.ConfigGroup{Values: map[string]*commonpb.ConfigValue{"Orphan": {ModPolicy: "Admins"}}},
	}
	next, err := n.ProposeUpdate(n.sign(update))
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(next.Config.ChannelGroup, n.Config().ChannelGroup) || next.Config.Sequence != 1 {
		t.Error("the orphan did not vanish")
	}
}

func TestConsenterRules(t *testing.T) {
	n := newNetwork(t, 3, "")
	carrier := n.orgs["Carrier"]
	hour := time.Now().Add(time.Hour)
	consensus := func(change func(*etcdraftpb.ConfigMetadata, *ordererpb.ConsensusType)) *commonpb.Envelope {
		update := n.edit(func(r *commonpb.ConfigGroup) {
			c, m := &ordererpb.ConsensusType{}, &etcdraftpb.ConfigMetadata{}
			if err := errors.Join(proto.Unmarshal(r.Groups[orderer].Values["ConsensusType"].Value, c), proto.Unmarshal(c.Metadata, m)); err != nil {
				t.Fatal(err)
			}
			change(m, c)
			if c.Type == channel.ConsensusRaft {
				c.Metadata, _ = proto.Marshal(m)
			}
			setValue(t, r.Groups[orderer], "ConsensusType", c)
		})
		return n.sign(update, n.admins["Carrier"])
	}
	consenter := func(host string, cert []byte) *etcdraftpb.Consenter {
		return &etcdraftpb.Consenter{Host: host, Port: 7050, ServerTlsCert: cert, ClientTlsCert: cert}
	}
	add := func(m *etcdraftpb.ConfigMetadata, cert []byte) {
		m.Consenters = append(m.Consenters, consenter("new", cert))
	}
	for _, test := range []struct {
		name   string
		change func(*etcdraftpb.ConfigMetadata, *ordererpb.ConsensusType)
		want   string
	}{
		{"add one", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) { add(m, carrier.tlsCert("n", hour)) }, ""},
		{"remove one", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) { m.Consenters = m.Consenters[1:] }, ""},
		{"replace one", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) {
			m.Consenters[0] = consenter("o0", carrier.tlsCert("n", hour))
		}, ""},
		{"add two", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) {
			add(m, carrier.tlsCert("n", hour))
			add(m, carrier.tlsCert("m", hour))
		}, "update of more than one consenter at a time is not supported, requested changes: add 2 node(s), remove 0 node(s)"},
		{"remove two", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) { m.Consenters = m.Consenters[2:] }, "add 0 node(s), remove 2 node(s)"},
		{"remove all", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) { m.Consenters = nil }, "empty consenter set"},
		{"twice the same", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) {
			m.Consenters = append(m.Consenters, m.Consenters[0])
		}, "duplicate consenter"},
		{"of a stranger", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) {
			add(m, n.orgs["Beta"].tlsCert("n", hour))
		}, "has invalid certificate"},
		{"expired", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) {
			add(m, carrier.tlsCert("n", time.Now().Add(-time.Minute)))
		}, "consenter new:7050 has invalid certificates"},
		{"of an authority made later", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) {
			add(m, carrier.tlsCertFrom("n", time.Now().Add(-24*time.Hour), hour))
		}, ""},
		{"garbage certificate", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) { add(m, []byte("garbage")) }, "no PEM data"},
		{"no options", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) { m.Options = nil }, "nil Raft config metadata options"},
		{"zero tick", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) { m.Options.TickInterval = "0s" }, "TickInterval cannot be zero"},
		{"hasty election", func(m *etcdraftpb.ConfigMetadata, _ *ordererpb.ConsensusType) { m.Options.ElectionTick = 1 }, "must be greater than HeartbeatTick"},
		{"another type", func(_ *etcdraftpb.ConfigMetadata, c *ordererpb.ConsensusType) { c.Type = "solo" }, "illegal consensus type"},
		{"enter maintenance", func(_ *etcdraftpb.ConfigMetadata, c *ordererpb.ConsensusType) {
			c.State = ordererpb.ConsensusType_STATE_MAINTENANCE
		}, ""},
		{"enter maintenance and more", func(m *etcdraftpb.ConfigMetadata, c *ordererpb.ConsensusType) {
			c.State = ordererpb.ConsensusType_STATE_MAINTENANCE
			m.Options.ElectionTick++
		}, "attempted to change ConsensusType.Metadata, but ConsensusType.State is changing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			next, err := n.ProposeUpdate(consensus(test.change))
			if test.want != "" {
				wantError(t, err, test.want)
			} else if err != nil {
				t.Error(err)
			} else if _, err := n.ValidateConfig(next); err != nil {
				t.Error(err)
			}
		})
	}
}

// From etcdraft to BFT: into maintenance at V3_0, change the type, out again.
func TestMigrationToBFT(t *testing.T) {
	n := newNetwork(t, 1, "capabilities: {channel: V3_0}\n")
	apply := func(want string, change func(*commonpb.ConfigGroup)) {
		t.Helper()
		next, err := n.ProposeUpdate(n.sign(n.edit(change), n.admins["Carrier"]))
		if want != "" {
			wantError(t, err, want)
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		after, err := n.ValidateConfig(next)
		if err != nil {
			t.Fatal(err)
		}
		n.Bundle = after
	}
	state := func(s ordererpb.ConsensusType_State) func(*commonpb.ConfigGroup) {
		return func(r *commonpb.ConfigGroup) {
			c := &ordererpb.ConsensusType{}
			if err := proto.Unmarshal(r.Groups[orderer].Values["ConsensusType"].Value, c); err != nil {
				t.Fatal(err)
			}
			c.State = s
			setValue(t, r.Groups[orderer], "ConsensusType", c)
		}
	}
	raft, err := n.RaftMetadata()
	if err != nil {
		t.Fatal(err)
	}
	other := newNetwork(t, 1, "consensus: BFT\ncapabilities: {channel: V3_0}\n")
	options := other.Config().ChannelGroup.Groups[orderer]
	toBFT := func(consenter *commonpb.Consenter, s ordererpb.ConsensusType_State) func(*commonpb.ConfigGroup) {
		return func(r *commonpb.ConfigGroup) {
			c := &ordererpb.ConsensusType{}
			if err := proto.Unmarshal(options.Values["ConsensusType"].Value, c); err != nil {
				t.Fatal(err)
			}
			c.State = s
			setValue(t, r.Groups[orderer], "ConsensusType", c)
			setValue(t, r.Groups[orderer], "Orderers", &commonpb.Orderers{ConsenterMapping: []*commonpb.Consenter{consenter}})
			r.Groups[orderer].Policies["BlockValidation"].Policy = bftPolicy(t, consenter)
		}
	}
	old := raft.Consenters[0]
	same := &commonpb.Consenter{Id: 1, Host: old.Host, Port: old.Port, MspId: "CarrierMSP", Identity: []byte("pem"), ServerTlsCert: old.ServerTlsCert, ClientTlsCert: old.ClientTlsCert}
	moved := proto.CloneOf(same)
	moved.Port++

	maintenance := ordererpb.ConsensusType_STATE_MAINTENANCE
	apply("current config ConsensusType.State is not in maintenance mode", toBFT(same, ordererpb.ConsensusType_STATE_NORMAL))
	apply("", state(maintenance))
	apply("No suitable BFT consenter for Raft consenter", toBFT(moved, maintenance))
	apply("block validation policy must be a signature policy over the consenters", func(r *commonpb.ConfigGroup) {
		toBFT(same, maintenance)(r)
		r.Groups[orderer].Policies["BlockValidation"].Policy = bftPolicy(t, moved, same)
	})
	apply("leader rotation must be turned off", func(r *commonpb.ConfigGroup) {
		toBFT(same, maintenance)(r)
		raw, _ := proto.Marshal(&smartbftpb.Options{LeaderRotation: smartbftpb.Options_ROTATION_ON})
		setValue(t, r.Groups[orderer], "ConsensusType", &ordererpb.ConsensusType{Type: "BFT", Metadata: raw, State: maintenance})
	})
	apply("", toBFT(same, maintenance))
	apply("", state(ordererpb.ConsensusType_STATE_NORMAL))
	if name, _, s := n.ConsensusType(); name != channel.ConsensusBFT || s != ordererpb.ConsensusType_STATE_NORMAL || len(n.Consenters()) != 1 {
		t.Errorf("after migration: %s %v", name, s)
	}
}

// bftPolicy is the block validation policy that consenters ask for, written down once more.
func bftPolicy(t testing.TB, consenters ...*commonpb.Consenter) *commonpb.Policy {
	t.Helper()
	env := &commonpb.SignaturePolicyEnvelope{}
	gate := &commonpb.SignaturePolicy_NOutOf{N: int32(len(consenters))} // of one or two, all
	for i, c := range consenters {
		principal, err := proto.Marshal(&msppb.SerializedIdentity{Mspid: c.MspId, IdBytes: c.Identity})
		if err != nil {
			t.Fatal(err)
		}
		env.Identities = append(env.Identities, &msppb.MSPPrincipal{PrincipalClassification: msppb.MSPPrincipal_IDENTITY, Principal: principal})
		gate.Rules = append(gate.Rules, &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_SignedBy{SignedBy: int32(i)}})
	}
	env.Rule = &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_NOutOf_{NOutOf: gate}}
	raw, err := proto.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	return &commonpb.Policy{Type: int32(commonpb.Policy_SIGNATURE), Value: raw}
}

func TestHostileUpdates(t *testing.T) {
	n := newNetwork(t, 1, "")
	deep := &commonpb.ConfigGroup{ModPolicy: "Admins"}
	for range 4000 {
		deep = &commonpb.ConfigGroup{ModPolicy: "Admins", Groups: map[string]*commonpb.ConfigGroup{strings.Repeat("x", 200): deep}}
	}
	start := time.Now()
	// As an orphan Fabric would take it, so it must be taken; and cost little.
	_, err := n.ProposeUpdate(n.sign(&commonpb.ConfigUpdate{ChannelId: "trade", ReadSet: &commonpb.ConfigGroup{}, WriteSet: &commonpb.ConfigGroup{Groups: deep.Groups}}))
	if err != nil {
		t.Error(err)
	}
	_, err = n.ProposeUpdate(n.sign(&commonpb.ConfigUpdate{ChannelId: "trade", ReadSet: deep}))
	wantError(t, err, "was in the read set")
	_, err = n.ProposeUpdate(n.sign(&commonpb.ConfigUpdate{ChannelId: "trade", WriteSet: &commonpb.ConfigGroup{Version: 1, ModPolicy: "Admins", Groups: deep.Groups}}, n.admins["Alpha"], n.admins["Beta"], n.admins["Carrier"]))
	if err == nil {
		t.Error("a deep tree became the configuration")
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("deep trees took %s", took)
	}
	big := &commonpb.ConfigUpdateEnvelope{ConfigUpdate: make([]byte, 1<<20)}
	for range 2000 {
		big.Signatures = append(big.Signatures, &commonpb.ConfigSignature{})
	}
	if _, err := n.ProposeUpdate(wrap(t, big)); err == nil {
		t.Error("an update of garbage was accepted")
	}
	for _, env := range []*commonpb.Envelope{nil, {}, {Payload: []byte("garbage")}, wrap(t, &commonpb.ConfigUpdateEnvelope{}), wrap(t, nil)} {
		if _, err := n.ProposeUpdate(env); err == nil {
			t.Error("an empty update was accepted")
		}
	}
	for _, env := range []*commonpb.ConfigEnvelope{nil, {}, {Config: &commonpb.Config{Sequence: 1}}, {Config: &commonpb.Config{Sequence: 1}, LastUpdate: &commonpb.Envelope{}}} {
		if _, err := n.ValidateConfig(env); err == nil {
			t.Error("an empty configuration was accepted")
		}
	}
	for _, change := range []func(*commonpb.ConfigGroup){
		func(r *commonpb.ConfigGroup) { r.Groups[orderer] = nil },
		func(r *commonpb.ConfigGroup) { r.Groups[application] = nil },
		func(r *commonpb.ConfigGroup) { r.Groups[application].Groups["Alpha"] = nil },
		func(r *commonpb.ConfigGroup) { r.Groups[orderer].Groups["Carrier"] = nil },
		func(r *commonpb.ConfigGroup) { r.Values["Capabilities"] = nil },
		func(r *commonpb.ConfigGroup) { r.Policies["Readers"] = nil },
		func(r *commonpb.ConfigGroup) { r.Groups["Consortiums"] = nil },
		func(r *commonpb.ConfigGroup) {
			r.Groups["Consortiums"] = &commonpb.ConfigGroup{Groups: map[string]*commonpb.ConfigGroup{"x": nil}}
		},
		func(r *commonpb.ConfigGroup) { r.Groups, r.Values, r.Policies = nil, nil, nil },
	} {
		c := proto.CloneOf(n.Config())
		change(c.ChannelGroup)
		if _, err := channel.NewBundle("trade", c, verifier()); err == nil {
			t.Error("a configuration with holes was accepted")
		}
	}
	headless := proto.CloneOf(n.Config())
	delete(headless.ChannelGroup.Groups, orderer)
	noOrderer, err := channel.NewBundle("trade", headless, verifier())
	if err != nil {
		t.Fatal(err)
	}
	noOrderer.OrdererEndpoints()
	noOrderer.BatchSize()
	back, err := channel.ComputeUpdate("trade", headless, n.Config())
	if err != nil {
		t.Fatal(err)
	}
	_, err = noOrderer.ProposeUpdate(n.sign(back, n.admins["Alpha"], n.admins["Beta"], n.admins["Gamma"]))
	wantError(t, err, "has no Orderer group")
	if _, err := channel.NewBundle("trade", nil, verifier()); err == nil {
		t.Error("no configuration was accepted")
	}
	if _, err := channel.NewBundle("trade", n.Config(), nil); err == nil {
		t.Error("no verifier was accepted")
	}
}

// FuzzProposeUpdate must neither panic nor accept what then does not validate.
func FuzzProposeUpdate(f *testing.F) {
	n := newNetwork(f, 1, "")
	for i, b := range goldenBlocks(f)[1:4] {
		env, _, err := block.ConfigEnvelope(b)
		if err != nil {
			f.Fatal(i, err)
		}
		f.Add(updateEnvelopeOf(f, env.LastUpdate).ConfigUpdate)
	}
	change := n.edit(func(r *commonpb.ConfigGroup) { delete(r.Groups[application].Groups, "Gamma") })
	raw, err := proto.Marshal(change)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		update := &commonpb.ConfigUpdate{}
		if proto.Unmarshal(raw, update) != nil {
			return
		}
		update.ChannelId = "trade"
		n := *n
		n.t = t
		preview, _, failed := n.Preview(update, time.Now())
		next, err := n.ProposeUpdate(n.sign(update, n.admins["Alpha"], n.admins["Beta"], n.admins["Carrier"]))
		if err != nil {
			return
		}
		if failed != nil || !proto.Equal(preview.Config(), next.Config) {
			t.Fatalf("previewed otherwise than proposed: %v", failed)
		}
		if _, err := n.ValidateConfig(next); err != nil {
			t.Fatalf("proposed, yet not valid: %v", err)
		}
	})
}

// FuzzFromBlock reads config blocks of strangers.
func FuzzFromBlock(f *testing.F) {
	v := verifier()
	raw, err := proto.Marshal(goldenBlocks(f)[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		b := &commonpb.Block{}
		if proto.Unmarshal(raw, b) != nil {
			return
		}
		if bundle, err := channel.FromBlock(b, v); err == nil {
			bundle.OrdererEndpoints()
			_, _ = bundle.RaftMetadata()
			for path := range bundle.Config().ChannelGroup.Policies {
				_, _ = bundle.SignatureEnvelope(path)
			}
		}
	})
}

func ExampleComputeUpdate() {
	before := &commonpb.Config{ChannelGroup: &commonpb.ConfigGroup{Values: map[string]*commonpb.ConfigValue{"Colour": {Version: 4, Value: []byte("blue"), ModPolicy: "Admins"}}}}
	after := proto.CloneOf(before)
	after.ChannelGroup.Values["Colour"].Value = []byte("green")
	update, err := channel.ComputeUpdate("trade", before, after)
	if err != nil {
		fmt.Println(err)
		return
	}
	colour := update.WriteSet.Values["Colour"]
	fmt.Println(colour.Version, string(colour.Value), colour.ModPolicy)
	// Output: 5 green Admins
}
