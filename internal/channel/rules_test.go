package channel_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/smartbftpb"
)

// Each rule by which Fabric refuses a change of configuration, by name, beyond those of TestUpdateRules,
// TestConsenterRules and TestMigrationToBFT. Base changes the configuration in force first, without asking anybody.

type rule struct {
	name   string
	base   func(*commonpb.ConfigGroup)
	change func(*commonpb.ConfigGroup)
	by     string // initials of the admins who sign; all if empty
	want   string // error; empty if accepted
}

func (n *network) checkRules(t *testing.T, rules []rule) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			n := *n
			n.t = t
			if r.base != nil {
				n.rebase(r.base)
			}
			var signers []*identity.Signer
			for name, admin := range n.admins {
				if r.by == "" || strings.Contains(r.by, name[:1]) {
					signers = append(signers, admin)
				}
			}
			next, err := n.ProposeUpdate(n.sign(n.edit(r.change), signers...))
			if r.want != "" {
				wantError(t, err, r.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := n.ValidateConfig(next); err != nil {
				t.Error(err)
			}
		})
	}
}

// rebase changes the configuration in force.
func (n *network) rebase(change func(*commonpb.ConfigGroup)) {
	n.t.Helper()
	c := proto.CloneOf(n.Config())
	change(c.ChannelGroup)
	var err error
	if n.Bundle, err = channel.NewBundle("trade", c, verifier()); err != nil {
		n.t.Fatal(err)
	}
}

func capability(names ...string) *commonpb.Capabilities {
	c := &commonpb.Capabilities{Capabilities: map[string]*commonpb.Capability{}}
	for _, name := range names {
		c.Capabilities[name] = &commonpb.Capability{}
	}
	return c
}

func TestModPolicyRules(t *testing.T) {
	n := newNetwork(t, 1, "")
	anchors := func(member string) func(*commonpb.ConfigGroup) {
		return func(r *commonpb.ConfigGroup) {
			setValue(t, r.Groups[application].Groups[member], "AnchorPeers", &peerpb.AnchorPeers{AnchorPeers: []*peerpb.AnchorPeer{{Host: "h", Port: 1}}})
		}
	}
	guarded := func(modPolicy string) func(*commonpb.ConfigGroup) {
		return func(r *commonpb.ConfigGroup) {
			setValue(t, r.Groups[application].Groups["Alpha"], "AnchorPeers", &peerpb.AnchorPeers{})
			r.Groups[application].Groups["Alpha"].Values["AnchorPeers"].ModPolicy = modPolicy
		}
	}
	n.checkRules(t, []rule{
		{"relative to the value's group", guarded("Admins"), anchors("Alpha"), "A", ""},
		{"absolute", guarded("/Channel/Application/Beta/Admins"), anchors("Alpha"), "B", ""},
		{"absolute, by the group's own", guarded("/Channel/Application/Beta/Admins"), anchors("Alpha"), "A", "signature set did not satisfy policy"},
		{"of a policy that does not exist", guarded("Nobody"), anchors("Alpha"), "", "unexpected missing policy Nobody for item [Value]  /Channel/Application/Alpha/AnchorPeers"},
		{"of an absolute policy that does not exist", guarded("/Channel/Nobody"), anchors("Alpha"), "", "unexpected missing policy /Channel/Nobody"},
		{"of another root", guarded("/Other/Admins"), anchors("Alpha"), "", "unexpected missing policy /Other/Admins"},
		{"empty in force", guarded(""), anchors("Alpha"), "", "mod_policy not set"},
		{"the current one decides, not the new one", nil, func(r *commonpb.ConfigGroup) {
			r.Groups[application].Groups["Alpha"].Policies["Admins"].ModPolicy = "/Channel/Application/Beta/Admins"
		}, "B", "policy for [Policy] /Channel/Application/Alpha/Admins not satisfied"},
		{"one that leads nowhere may be set", nil, guarded("Nobody"), "A", ""},
		{"a changed group asks its own", nil, func(r *commonpb.ConfigGroup) { r.Groups[application].ModPolicy = "Writers" }, "AB", ""},
		{"a changed group, by too few", nil, func(r *commonpb.ConfigGroup) { r.Groups[application].ModPolicy = "Writers" }, "A", "policy for [Group]  /Channel/Application not satisfied"},
		{"a new member needs the group's consent", nil, func(r *commonpb.ConfigGroup) {
			r.Groups[application].Groups["Carrier"] = proto.CloneOf(r.Groups[orderer].Groups["Carrier"])
			delete(r.Groups[application].Groups["Carrier"].Values, "Endpoints")
		}, "C", "policy for [Group]  /Channel/Application not satisfied"},
		{"a new member, by a majority", nil, func(r *commonpb.ConfigGroup) {
			r.Groups[application].Groups["Carrier"] = proto.CloneOf(r.Groups[orderer].Groups["Carrier"])
			delete(r.Groups[application].Groups["Carrier"].Values, "Endpoints")
		}, "AB", ""},
		{"two changes, one of them allowed", nil, func(r *commonpb.ConfigGroup) { anchors("Alpha")(r); anchors("Beta")(r) }, "A", "not satisfied"},
		{"two changes, both allowed", nil, func(r *commonpb.ConfigGroup) { anchors("Alpha")(r); anchors("Beta")(r) }, "AB", ""},
	})
}

func TestSignatureSetRules(t *testing.T) {
	n := newNetwork(t, 1, "")
	update := n.edit(func(r *commonpb.ConfigGroup) { delete(r.Groups[application].Groups, "Gamma") })
	signed := func(change func(*commonpb.ConfigUpdateEnvelope)) *commonpb.Envelope {
		env := updateEnvelopeOf(t, n.sign(update, n.admins["Alpha"], n.admins["Beta"]))
		change(env)
		return wrap(t, env)
	}
	stranger := newOrg(t, t.TempDir(), "Omega")
	for _, test := range []struct {
		name string
		env  *commonpb.Envelope
		want string
	}{
		{"enough", signed(func(*commonpb.ConfigUpdateEnvelope) {}), ""},
		{"in another order", signed(func(e *commonpb.ConfigUpdateEnvelope) { slices.Reverse(e.Signatures) }), ""},
		{"none", signed(func(e *commonpb.ConfigUpdateEnvelope) { e.Signatures = nil }), "0 sub-policies were satisfied"},
		{"a flipped bit", signed(func(e *commonpb.ConfigUpdateEnvelope) { e.Signatures[0].Signature[20] ^= 1 }), "1 sub-policies were satisfied"},
		{"an empty signature", signed(func(e *commonpb.ConfigUpdateEnvelope) { e.Signatures[0].Signature = nil }), "1 sub-policies were satisfied"},
		{"over another header", signed(func(e *commonpb.ConfigUpdateEnvelope) {
			e.Signatures[0].SignatureHeader = e.Signatures[1].SignatureHeader
		}), "1 sub-policies were satisfied"},
		{"a header that is none", signed(func(e *commonpb.ConfigUpdateEnvelope) {
			e.Signatures = append(e.Signatures, &commonpb.ConfigSignature{SignatureHeader: []byte{255}})
		}), "error authorizing update"},
		{"an empty header", signed(func(e *commonpb.ConfigUpdateEnvelope) {
			e.Signatures = append(e.Signatures, &commonpb.ConfigSignature{})
		}), ""},
		{"a stranger beside them", n.sign(update, n.admins["Alpha"], stranger.signer("admin"), n.admins["Beta"]), ""},
		{"a stranger instead", n.sign(update, n.admins["Alpha"], stranger.signer("admin")), "1 sub-policies were satisfied"},
		{"a client instead of an admin", n.sign(update, n.clientAlpha, n.admins["Beta"]), "1 sub-policies were satisfied"},
		{"another update's", func() *commonpb.Envelope {
			other := n.edit(func(r *commonpb.ConfigGroup) { delete(r.Groups[application].Groups, "Beta") })
			env := updateEnvelopeOf(t, n.sign(other, n.admins["Alpha"], n.admins["Beta"]))
			raw, err := proto.Marshal(update)
			if err != nil {
				t.Fatal(err)
			}
			env.ConfigUpdate = raw
			return wrap(t, env)
		}(), "0 sub-policies were satisfied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := n.ProposeUpdate(test.env); test.want != "" {
				wantError(t, err, test.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestReadAndWriteSetRules(t *testing.T) {
	n := newNetwork(t, 1, "")
	type group = commonpb.ConfigGroup
	anchored := &commonpb.ConfigValue{Version: 0, ModPolicy: "Admins"}
	within := func(g *group) *group {
		return &group{Groups: map[string]*group{application: {Groups: map[string]*group{"Alpha": g}}}}
	}
	for _, test := range []struct {
		name        string
		read, write *group
		want        string
	}{
		{"new value, group unchanged", within(&group{}), within(&group{Values: map[string]*commonpb.ConfigValue{"AnchorPeers": anchored}}), ""},
		{"a group of a higher version in the read set", within(&group{Version: 1}), within(&group{Version: 1}), "proposed update requires that key [Group]  /Channel/Application/Alpha be at version 1, but it is currently at version 0"},
		{"a policy of a higher version in the read set", within(&group{Policies: map[string]*commonpb.ConfigPolicy{"Admins": {Version: 4}}}), within(&group{}), "key [Policy] /Channel/Application/Alpha/Admins be at version 4"},
		{"a value that is not there in the read set", within(&group{Values: map[string]*commonpb.ConfigValue{"None": {}}}), within(&group{}), "does not contain element for [Value]  /Channel/Application/Alpha/None"},
		{"a group that is not there in the read set", within(&group{Groups: map[string]*group{"None": {}}}), within(&group{}), "does not contain element for [Group]  /Channel/Application/Alpha/None"},
		{"read set alone", within(&group{}), nil, "delta set was empty"},
		{"write set as read", within(&group{}), within(&group{}), "delta set was empty"},
		{"write set empty", &group{}, &group{}, "delta set was empty"},
		{"no read set: a write at the current version", nil, &group{}, "mod_policy not set"},
		{"a value skips a version", within(&group{}), within(&group{Values: map[string]*commonpb.ConfigValue{"MSP": {Version: 2, ModPolicy: "Admins"}}}), "attempt to set key [Value]  /Channel/Application/Alpha/MSP to version 2, but key is at version 0"},
		{"a value at its version, not in the read set", within(&group{}), within(&group{Values: map[string]*commonpb.ConfigValue{"MSP": {Version: 0, ModPolicy: "Admins"}}}), "attempt to set key [Value]  /Channel/Application/Alpha/MSP to version 0, but key is at version 0"},
		{"a policy skips a version", within(&group{}), within(&group{Policies: map[string]*commonpb.ConfigPolicy{"Admins": {Version: 5, ModPolicy: "Admins"}}}), "attempt to set key [Policy] /Channel/Application/Alpha/Admins to version 5"},
		{"a new policy at a version", within(&group{}), within(&group{Version: 1, ModPolicy: "Admins", Policies: map[string]*commonpb.ConfigPolicy{"New": {Version: 1, ModPolicy: "Admins"}}}), "attempted to set key [Policy] /Channel/Application/Alpha/New to version 1, but key does not exist"},
		{"an odd name in the read set", &group{Groups: map[string]*group{"..": {}}}, &group{}, "error mapping ReadSet: illegal characters in key: [Group]  : name '..' for config ID is not allowed"},
		{"an empty name", &group{}, &group{Values: map[string]*commonpb.ConfigValue{"": {}}}, "config ID illegal, cannot be empty"},
		{"a long name", &group{}, &group{Values: map[string]*commonpb.ConfigValue{strings.Repeat("x", 250): {}}}, "cannot be longer than 249"},
		{"a mod_policy of odd letters", within(&group{}), within(&group{Version: 1, ModPolicy: "Ad mins"}), "path element at 0 is invalid: config ID 'Ad mins' contains illegal characters"},
	} {
		t.Run(test.name, func(t *testing.T) {
			signers := []*identity.Signer{n.admins["Alpha"], n.admins["Beta"], n.admins["Gamma"], n.admins["Carrier"]}
			_, err := n.ProposeUpdate(n.sign(&commonpb.ConfigUpdate{ChannelId: "trade", ReadSet: test.read, WriteSet: test.write}, signers...))
			if test.want != "" {
				wantError(t, err, test.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestGroupRules(t *testing.T) {
	n := newNetwork(t, 1, "")
	set := func(path string, key string, m proto.Message) func(*commonpb.ConfigGroup) {
		return func(r *commonpb.ConfigGroup) {
			g := r
			for name := range strings.SplitSeq(path, "/") {
				if name != "" {
					g = g.Groups[name]
				}
			}
			setValue(t, g, key, m)
		}
	}
	all := func(changes ...func(*commonpb.ConfigGroup)) func(*commonpb.ConfigGroup) {
		return func(r *commonpb.ConfigGroup) {
			for _, c := range changes {
				c(r)
			}
		}
	}
	remove := func(group, key string) func(*commonpb.ConfigGroup) {
		return func(r *commonpb.ConfigGroup) {
			if group != "" {
				r = r.Groups[group]
			}
			delete(r.Values, key)
		}
	}
	size := func(count, absolute, preferred uint32) func(*commonpb.ConfigGroup) {
		return set(orderer, "BatchSize", &ordererpb.BatchSize{MaxMessageCount: count, AbsoluteMaxBytes: absolute, PreferredMaxBytes: preferred})
	}
	addresses := &commonpb.OrdererAddresses{Addresses: []string{"o:7050"}}
	// Before V1_4_2 a channel has addresses of its own, and its members' endpoints do not exist.
	old := all(set("", "Capabilities", capability("V1_3")), set("", "OrdererAddresses", addresses), func(r *commonpb.ConfigGroup) {
		delete(r.Groups[orderer].Groups["Carrier"].Values, "Endpoints")
	})
	n.checkRules(t, []rule{
		{"batch: no bytes", nil, size(1, 0, 0), "", "absolute max bytes to an invalid value: 0"},
		{"batch: no preferred bytes", nil, size(1, 5, 0), "", "preferred max bytes to an invalid value: 0"},
		{"batch: prefers more than it may", nil, size(1, 5, 6), "", "preferred max bytes (6) greater than the absolute max bytes (5)"},
		{"batch timeout: no duration", nil, set(orderer, "BatchTimeout", &ordererpb.BatchTimeout{Timeout: "soon"}), "", "invalid value"},
		{"batch timeout: zero", nil, set(orderer, "BatchTimeout", &ordererpb.BatchTimeout{Timeout: "0s"}), "", "non-positive value: 0s"},
		{"hashing: unknown", nil, set("", "HashingAlgorithm", &commonpb.HashingAlgorithm{Name: "MD5"}), "", "Unknown hashing algorithm type: MD5"},
		{"hashing: SHA3_256", nil, set("", "HashingAlgorithm", &commonpb.HashingAlgorithm{Name: "SHA3_256"}), "", ""},
		{"hashing: gone", nil, remove("", "HashingAlgorithm"), "", "Unknown hashing algorithm type: "},
		{"hashing width", nil, set("", "BlockDataHashingStructure", &commonpb.BlockDataHashingStructure{Width: 4}), "", "width only supported at MaxUint32"},
		{"a value that is no message", nil, func(r *commonpb.ConfigGroup) { r.Groups[orderer].Values["BatchSize"].Value = []byte{255} }, "", "decode BatchSize"},
		{"application: an unknown value", nil, set(application, "Colour", addresses), "", "Unexpected key Colour"},
		{"application member: a value of orderers", nil, set(application+"/Alpha", "Endpoints", addresses), "", "Unexpected key Endpoints"},
		{"orderer member: a value of peers", nil, set(orderer+"/Carrier", "AnchorPeers", &peerpb.AnchorPeers{}), "", "Unexpected key AnchorPeers"},
		{"orderer member: a sub-group", nil, func(r *commonpb.ConfigGroup) {
			r.Groups[orderer].Groups["Carrier"].Groups = map[string]*commonpb.ConfigGroup{"Dept": {ModPolicy: "Admins"}}
		}, "", "OrdererOrg config does not allow sub-groups"},
		{"orderer member: another MSP ID", nil, func(r *commonpb.ConfigGroup) {
			r.Groups[orderer].Groups["Carrier"].Values["MSP"].Value = r.Groups[application].Groups["Alpha"].Values["MSP"].Value
		}, "", "orderer org Carrier attempted to change MSP ID from CarrierMSP to AlphaMSP"},
		{"two versions of one MSP", nil, func(r *commonpb.ConfigGroup) {
			other := proto.CloneOf(r.Groups[application].Groups["Alpha"])
			raw := mustGenesis(t, "channel: trade\nmembers: [{name: Alpha, mspId: AlphaMSP, mspDir: Omega}]\norderers: [{member: Alpha, host: h, port: 1, tlsCert: tls0.pem}]\n", omegaDir(t))
			b, err := channel.FromBlock(raw, verifier())
			if err != nil {
				t.Fatal(err)
			}
			other.Values["MSP"].Value = b.Config().ChannelGroup.Groups[application].Groups["Alpha"].Values["MSP"].Value
			r.Groups[application].Groups["Twin"] = other
		}, "", "Attempted to define two different versions of MSP: AlphaMSP"},
		{"capabilities: channel before orderer", nil, remove(orderer, "Capabilities"), "", "cannot enable channel capabilities without orderer support first"},
		{"capabilities: application before orderer", all(set("", "OrdererAddresses", addresses)), all(remove(orderer, "Capabilities"), remove("", "Capabilities"), func(r *commonpb.ConfigGroup) {
			delete(r.Groups[orderer].Groups["Carrier"].Values, "Endpoints")
		}), "", "cannot enable application capabilities without orderer support first"},
		{"capabilities: orderer unknown", nil, set(orderer, "Capabilities", capability("V7_0")), "", "Orderer capability V7_0 is required but not supported"},
		{"capabilities: lowered", nil, set(application, "Capabilities", capability("V2_0")), "", ""},
		{"capabilities: raised", nil, set("", "Capabilities", capability("V3_0")), "", ""},
		{"V3_0: channel-wide addresses", set("", "OrdererAddresses", addresses), set("", "Capabilities", capability("V3_0")), "", "global OrdererAddresses are not allowed with V3_0 capability"},
		{"V3_0: a member without endpoints", set(orderer+"/Carrier", "Endpoints", &commonpb.OrdererAddresses{}), set("", "Capabilities", capability("V3_0")), "", "some orderer organizations endpoints are empty: [Carrier]"},
		{"below V1_4_2: no addresses", old, remove("", "OrdererAddresses"), "", "Must set some OrdererAddresses"},
		{"below V1_4_2: a member's endpoints", old, set(orderer+"/Carrier", "Endpoints", addresses), "", "Orderer Org Carrier cannot contain endpoints value until V1_4_2+ capabilities have been enabled"},
		{"below V1_4_2: another consensus type", old, set(orderer, "ConsensusType", &ordererpb.ConsensusType{Type: "BFT"}), "", "attempted to change consensus type from etcdraft to BFT"},
		{"below V1_2: access rules", set(application, "Capabilities", capability("V1_1")), set(application, "ACLs", &peerpb.ACLs{}), "", "ACLs may not be specified without the required capability"},
		{"consortiums appear", nil, func(r *commonpb.ConfigGroup) {
			r.Groups["Consortiums"] = &commonpb.ConfigGroup{ModPolicy: "Admins"}
		}, "", "current config has no consortiums section, but new config does"},
		{"consortiums vanish", func(r *commonpb.ConfigGroup) { r.Groups["Consortiums"] = &commonpb.ConfigGroup{ModPolicy: "Admins"} }, func(r *commonpb.ConfigGroup) { delete(r.Groups, "Consortiums") }, "", "current config has consortiums section, but new config does not"},
		{"consortium: an unknown value", func(r *commonpb.ConfigGroup) {
			r.Groups["Consortiums"] = &commonpb.ConfigGroup{ModPolicy: "/Channel/Admins"}
		}, func(r *commonpb.ConfigGroup) {
			g := &commonpb.ConfigGroup{ModPolicy: "Admins", Values: map[string]*commonpb.ConfigValue{"Colour": {ModPolicy: "Admins"}}}
			r.Groups["Consortiums"].Groups = map[string]*commonpb.ConfigGroup{"C": g}
		}, "", "Unexpected key Colour"},
	})
}

// omegaDir holds an organization's MSP folder and a TLS certificate of its own.
func omegaDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	o := newOrg(t, dir, "Omega")
	write(t, dir+"/tls0.pem", o.tlsCert("h", time.Now().Add(time.Hour)))
	return dir
}

func TestMaintenanceRules(t *testing.T) {
	n := newNetwork(t, 1, "")
	state := func(s ordererpb.ConsensusType_State, more func(*ordererpb.ConsensusType)) func(*commonpb.ConfigGroup) {
		return func(r *commonpb.ConfigGroup) {
			c := &ordererpb.ConsensusType{}
			if err := proto.Unmarshal(r.Groups[orderer].Values["ConsensusType"].Value, c); err != nil {
				t.Fatal(err)
			}
			c.State = s
			if more != nil {
				more(c)
			}
			setValue(t, r.Groups[orderer], "ConsensusType", c)
		}
	}
	both := func(changes ...func(*commonpb.ConfigGroup)) func(*commonpb.ConfigGroup) {
		return func(r *commonpb.ConfigGroup) {
			for _, c := range changes {
				c(r)
			}
		}
	}
	const normal, maintenance = ordererpb.ConsensusType_STATE_NORMAL, ordererpb.ConsensusType_STATE_MAINTENANCE
	enter, leave := state(maintenance, nil), state(normal, nil)
	batch := func(r *commonpb.ConfigGroup) {
		setValue(t, r.Groups[orderer], "BatchTimeout", &ordererpb.BatchTimeout{Timeout: "9s"})
	}
	channelValue := func(r *commonpb.ConfigGroup) {
		setValue(t, r, "HashingAlgorithm", &commonpb.HashingAlgorithm{Name: "SHA3_256"})
	}
	member := func(r *commonpb.ConfigGroup) {
		setValue(t, r.Groups[orderer].Groups["Carrier"], "Endpoints", &commonpb.OrdererAddresses{Addresses: []string{"x:1"}})
	}
	peers := func(r *commonpb.ConfigGroup) {
		setValue(t, r.Groups[application].Groups["Alpha"], "AnchorPeers", &peerpb.AnchorPeers{})
	}
	n.checkRules(t, []rule{
		{"enter", nil, enter, "C", ""},
		{"leave", enter, leave, "C", ""},
		{"enter with another value of the orderers", nil, both(enter, batch), "", "config update contain more then just the ConsensusType value in the Orderer group"},
		{"enter with a value of the channel", nil, both(enter, channelValue), "", "config update contains changes to values in group Channel"},
		{"enter with a member of the orderers", nil, both(enter, member), "", "config update contains changes to groups within the Orderer group"},
		{"enter with the application", nil, both(enter, peers), "", "config update contains changes to more than one group"},
		{"leave with another value", enter, both(leave, batch), "", "config update contain more then just the ConsensusType value"},
		{"within: a batch", enter, batch, "C", ""},
		{"without the capability: enter", func(r *commonpb.ConfigGroup) { setValue(t, r.Groups[orderer], "Capabilities", capability("V1_1")) }, enter, "C",
			"next config attempted to change ConsensusType.State to STATE_MAINTENANCE, but capability is disabled"},
		{"type and state at once", nil, state(maintenance, func(c *ordererpb.ConsensusType) { c.Type = "BFT"; c.Metadata = nil }), "", "consensus metadata update for channel config update is invalid"},
		{"unknown type", enter, state(maintenance, func(c *ordererpb.ConsensusType) { c.Type = "solo" }), "", "illegal consensus type detected during consensus metadata validation: solo"},
		{"metadata that is none", nil, state(normal, func(c *ordererpb.ConsensusType) { c.Metadata = []byte{255} }), "", "failed to unmarshal new etcdraft metadata configuration"},
		{"metadata gone", nil, state(normal, func(c *ordererpb.ConsensusType) { c.Metadata = nil }), "", "nil Raft config metadata options"},
	})
}

func TestBFTOptionRules(t *testing.T) {
	n := newNetwork(t, 4, "consensus: BFT\ncapabilities: {channel: V3_0}\n")
	options := func(change func(*smartbftpb.Options)) func(*commonpb.ConfigGroup) {
		return func(r *commonpb.ConfigGroup) {
			c, o := &ordererpb.ConsensusType{}, &smartbftpb.Options{}
			if err := errors.Join(proto.Unmarshal(r.Groups[orderer].Values["ConsensusType"].Value, c), proto.Unmarshal(c.Metadata, o)); err != nil {
				t.Fatal(err)
			}
			change(o)
			raw, err := proto.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			c.Metadata = raw
			setValue(t, r.Groups[orderer], "ConsensusType", c)
		}
	}
	n.checkRules(t, []rule{
		{"another pool", nil, options(func(o *smartbftpb.Options) { o.RequestPoolSize = 7 }), "C", ""},
		{"no batch", nil, options(func(o *smartbftpb.Options) { o.RequestBatchMaxCount = 0 }), "", "RequestBatchMaxCount should be greater than zero"},
		{"no bytes", nil, options(func(o *smartbftpb.Options) { o.RequestBatchMaxBytes = 0 }), "", "RequestBatchMaxBytes should be greater than zero"},
		{"no buffer", nil, options(func(o *smartbftpb.Options) { o.IncomingMessageBufferSize = 0 }), "", "IncomingMessageBufferSize should be greater than zero"},
		{"no heartbeats", nil, options(func(o *smartbftpb.Options) { o.LeaderHeartbeatCount = 0 }), "", "LeaderHeartbeatCount should be greater than zero"},
		{"no time", nil, options(func(o *smartbftpb.Options) { o.CollectTimeout = "" }), "", "bad config metadata option CollectTimeout"},
		{"negative time", nil, options(func(o *smartbftpb.Options) { o.RequestBatchMaxInterval = "-1s" }), "", "RequestBatchMaxInterval should be greater than zero"},
		{"complains before it forwards", nil, options(func(o *smartbftpb.Options) { o.RequestComplainTimeout = "1ms" }), "", "RequestForwardTimeout is bigger than RequestComplainTimeout"},
		{"forgets before it complains", nil, options(func(o *smartbftpb.Options) { o.RequestAutoRemoveTimeout = "3s" }), "", "RequestComplainTimeout is bigger than RequestAutoRemoveTimeout"},
		{"resends after the end", nil, options(func(o *smartbftpb.Options) { o.ViewChangeResendInterval = "1h" }), "", "ViewChangeResendInterval is bigger than ViewChangeTimeout"},
		{"more messages than bytes", nil, options(func(o *smartbftpb.Options) { o.RequestBatchMaxCount = 1 << 30 }), "", "RequestBatchMaxCount is bigger than RequestBatchMaxBytes"},
		{"a message beyond a batch", nil, options(func(o *smartbftpb.Options) { o.RequestMaxBytes = 1 << 40 }), "", "RequestMaxBytes is bigger than RequestBatchMaxBytes"},
		{"leader rotation", nil, options(func(o *smartbftpb.Options) { o.LeaderRotation = smartbftpb.Options_ROTATION_ON }), "", "leader rotation must be turned off"},
		{"no consenters", nil, func(r *commonpb.ConfigGroup) { setValue(t, r.Groups[orderer], "Orderers", &commonpb.Orderers{}) }, "", "no consenters in the Orderers value"},
		{"consenters, and the policy as it was", nil, func(r *commonpb.ConfigGroup) {
			o := &commonpb.Orderers{}
			if err := proto.Unmarshal(r.Groups[orderer].Values["Orderers"].Value, o); err != nil {
				t.Fatal(err)
			}
			o.ConsenterMapping = o.ConsenterMapping[1:]
			setValue(t, r.Groups[orderer], "Orderers", o)
		}, "", "block validation policy must be a signature policy over the consenters"},
	})
}

// What a request previews is what comes of it.
func TestPreview(t *testing.T) {
	n := newNetwork(t, 1, "")
	update := n.edit(func(r *commonpb.ConfigGroup) {
		setValue(t, r.Groups[application].Groups["Alpha"], "AnchorPeers", &peerpb.AnchorPeers{})
		delete(r.Groups[application].Groups, "Gamma")
		setValue(t, r.Groups[orderer], "BatchTimeout", &ordererpb.BatchTimeout{Timeout: "9s"})
	})
	next, changes, err := n.Preview(update, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ordered, err := n.ProposeUpdate(n.sign(update, n.admins["Alpha"], n.admins["Beta"], n.admins["Carrier"]))
	if err != nil || !proto.Equal(next.Config(), ordered.Config) {
		t.Errorf("another configuration came of it: %v", err)
	}
	var got []string
	for _, c := range changes {
		got = append(got, c.Kind+" "+c.Path+" "+c.Policy)
	}
	want := []string{
		"group /Channel/Application /Channel/Application/Admins",
		"group /Channel/Application/Alpha /Channel/Application/Alpha/Admins",
		"value /Channel/Application/Alpha/AnchorPeers ",
		"value /Channel/Orderer/BatchTimeout /Channel/Orderer/Admins",
	}
	if !slices.Equal(got, want) {
		t.Errorf("changes %q", got)
	}
	if _, _, err := next.Preview(update, time.Now()); !channel.IsVersionError(err) {
		t.Errorf("an update that has been applied: %v", err)
	}
	if _, _, err := n.Preview(&commonpb.ConfigUpdate{ChannelId: "other"}, time.Now()); err == nil || channel.IsVersionError(err) {
		t.Errorf("an update of another channel: %v", err)
	}
}
