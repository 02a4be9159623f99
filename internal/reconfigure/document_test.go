package reconfigure_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/reconfigure"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// shown is the YAML of a configuration.
func shown(t testing.TB, c *reconfigure.Config) string {
	t.Helper()
	d, err := c.Document()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := d.YAML()
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// goldenConfigs are the configurations of a ledger that Hyperledger Fabric made.
func goldenConfigs(t testing.TB) (all []*reconfigure.Config) {
	t.Helper()
	for _, n := range []int{0, 1, 2, 72, 76, 80, 82, 87, 89, 91, 92, 98, 99, 101, 103, 104, 105, 108} {
		raw, err := os.ReadFile(fmt.Sprintf("../../testdata/vectors/blocks/%06d.block", n))
		if err != nil {
			t.Fatal(err)
		}
		b := &commonpb.Block{}
		if err := proto.Unmarshal(raw, b); err != nil {
			t.Fatal(err)
		}
		c, err := reconfigure.FromBlock(b)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// What is shown and not edited is not changed, to the byte.
func TestRoundTrip(t *testing.T) {
	configs := append(goldenConfigs(t), newNetwork(t, "").Config, newNetwork(t, "consensus: BFT\ncapabilities: {channel: V3_0}\n").Config)
	for _, c := range configs {
		text := shown(t, c)
		if err := c.EditYAML([]byte(text), t.TempDir()); err != nil {
			t.Fatalf("configuration %d: %v\n%s", c.Sequence(), err, text)
		}
		if _, err := c.Request(); err != reconfigure.ErrNoChange {
			t.Errorf("configuration %d changes by being shown: %v", c.Sequence(), err)
		}
	}
}

// An edit to the next golden configuration leads just there, as far as the YAML shows.
func TestGoldenEdits(t *testing.T) {
	configs := goldenConfigs(t)
	for i, c := range configs[1:] {
		before, after := configs[i], shown(t, c)
		after = strings.Replace(after, fmt.Sprintf("configuration: %d\n", i+1), fmt.Sprintf("configuration: %d\n", i), 1)
		err := before.EditYAML([]byte(after), t.TempDir())
		if err != nil && strings.Contains(err.Error(), "which text cannot express") {
			continue // the next one has a policy of an organizational unit
		}
		if err != nil {
			t.Fatalf("configuration %d: %v", i, err)
		}
		again := shown(t, before)
		if again != after {
			t.Errorf("configuration %d became another than was edited", i)
		}
		differences, err := c.DifferencesFrom(before)
		if err != nil || len(differences) == 0 {
			t.Errorf("configuration %d: differences %v, %v", i, differences, err)
		}
		for _, d := range differences {
			if strings.HasPrefix(d.Path, "/") {
				t.Errorf("configuration %d: a difference that is not shown: %s", i, d)
			}
		}
	}
}

// edit makes a request of an edit of the shown text.
func (n *network) edit(t testing.TB, replace ...string) (*reconfigure.Request, error) {
	t.Helper()
	c := *n.Config
	text := shown(t, &c)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("the YAML has no %q:\n%s", replace[i], text)
		}
		text = strings.Replace(text, replace[i], replace[i+1], 1)
	}
	if err := c.EditYAML([]byte(text), n.dir); err != nil {
		return nil, err
	}
	return c.Request()
}

func TestEdits(t *testing.T) {
	n := newNetwork(t, "")
	n.addOrg(t, "Delta")
	write(t, filepath.Join(n.dir, "new.pem"), n.tls["Carrier"].Issue(t, "o3", nil).PEM)
	write(t, filepath.Join(n.dir, "text.pem"), []byte("no certificate"))
	const firstMember = "members:\n"
	delta := firstMember + "  - {name: Delta, mspId: DeltaMSP, mspDir: Delta, anchorPeers: [\"peer.delta:7051\"]}\n"
	for _, test := range []struct {
		name    string
		replace []string
		want    string // a difference or, with an exclamation mark, an error
	}{
		{"batch", []string{"maxMessages: 500", "maxMessages: 10"}, "~ batch.maxMessages: 500 → 10"},
		{"batch of nothing", []string{"preferredMaxBytes: 2 MB", "preferredMaxBytes: 20 MB"}, "!greater than the absolute max bytes"},
		{"timeout", []string{"timeout: 2s", "timeout: 1500ms"}, "~ batch.timeout: 2s → 1.5s"},
		{"capability", []string{"application: V2_5", "application: V2_0"}, "~ capabilities.application: V2_5 → V2_0"},
		{"unknown capability", []string{"application: V2_5", "application: V9_9"}, "!Application capability V9_9 is required but not supported"},
		{"acl", []string{"acls: {}", "acls: {qscc/GetBlockByNumber: /Channel/Application/Admins}"}, "+ acls.qscc/GetBlockByNumber: /Channel/Application/Admins"},
		{"acl of no policy", []string{"acls: {}", "acls: {qscc/GetBlockByNumber: /Channel/Application/Admin}"}, "!there is no policy /Channel/Application/Admin"},
		{"policy", []string{"LifecycleEndorsement: MAJORITY Endorsement", "LifecycleEndorsement: ANY Endorsement"}, "~ policies.application.LifecycleEndorsement: MAJORITY Endorsement → ANY Endorsement"},
		{"new policy", []string{"LifecycleEndorsement:", "Panel: OR('AlphaMSP.admin')\n    LifecycleEndorsement:"}, "+ policies.application.Panel: OR('AlphaMSP.admin')"},
		{"odd policy", []string{"LifecycleEndorsement: MAJORITY Endorsement", "LifecycleEndorsement: MAJORITY"}, "!policies.application.LifecycleEndorsement: expected two space separated tokens"},
		{"anchor peers", []string{"anchorPeers: []", "anchorPeers: [\"p:1\"]"}, "+ members.Alpha.anchorPeers: p:1"},
		{"odd anchor peer", []string{"anchorPeers: []", "anchorPeers: [p]"}, "!members[0].anchorPeers: \"p\" is not host:port"},
		{"member", []string{firstMember, delta}, "+ members.Delta.policies.Admins: OR('DeltaMSP.admin')"},
		{"member twice", []string{firstMember, delta + delta[len(firstMember):]}, "!members[1].name: Delta is there twice"},
		{"member without an MSP", []string{firstMember, firstMember + "  - {name: Delta, mspId: DeltaMSP}\n"}, "!members[0].mspDir: is missing"},
		{"member of no folder", []string{firstMember, firstMember + "  - {name: Delta, mspId: DeltaMSP, mspDir: none}\n"}, "!no ca certificate found"},
		{"member's MSP id", []string{"mspId: AlphaMSP", "mspId: OtherMSP"}, "!members[0].mspId: the MSP id of member Alpha cannot change"},
		{"another's MSP", []string{"mspId: AlphaMSP", "mspId: AlphaMSP\n    mspDir: Delta"}, "!members[0]: msp and mspDir say the same thing twice"},
		{"maintenance", []string{"maintenance: false", "maintenance: true"}, "~ maintenance: false → true"},
		{"consensus", []string{"consensus: etcdraft", "consensus: BFT"}, "!cannot be moved from etcdraft to BFT"},
		{"raft", []string{"electionTick: 10", "electionTick: 20"}, "~ raft.electionTick: 10 → 20"},
		{"hasty raft", []string{"electionTick: 10", "electionTick: 1"}, "!must be greater than HeartbeatTick"},
		{"orderer", []string{"orderers:\n", "orderers:\n  - {host: o3, port: 7050, tlsCert: new.pem}\n"}, "+ orderers.o3:7050.tlsCert: certificate "},
		{"orderer of no file", []string{"orderers:\n", "orderers:\n  - {host: o3, port: 7050, tlsCert: none.pem}\n"}, "!orderers[0].tlsCert: neither PEM text nor a file"},
		{"orderer of no certificate", []string{"orderers:\n", "orderers:\n  - {host: o3, port: 7050, tlsCert: text.pem}\n"}, "!holds nothing in PEM form"},
		{"orderer of a number", []string{"orderers:\n", "orderers:\n  - {host: o3, port: 7050, id: 1, tlsCert: new.pem}\n"}, "!they are of BFT"},
		{"endpoint", []string{"- o0:7050", "- o0:7051"}, "- members.Carrier(orderers).endpoints: o0:7050"},
		{"member begins to order", []string{"anchorPeers: []\n", "anchorPeers: []\n    endpoints: [\"a:7050\"]\n"}, "+ members.Alpha.endpoints: a:7050"},
		{"unknown key", []string{"batch:", "bach:"}, `!unknown key "bach"`},
		{"other channel", []string{"channel: trade", "channel: other"}, `!this is the configuration of channel "other", not of "trade"`},
		{"no base", []string{"configuration: 0\n", ""}, "!configuration: is missing"},
		{"other base", []string{"configuration: 0\n", "configuration: 3\n"}, "!has changed meanwhile: configuration 3 was edited, in force is 0"},
		{"bad certificate", []string{"      roots:\n", "      roots:\n        - |\n          -----BEGIN CERTIFICATE-----\n          aGFuc2E=\n          -----END CERTIFICATE-----\n"}, "!members[0].msp.roots[0]: "},
		{"private key", []string{"      roots:\n", "      roots:\n        - |\n          -----BEGIN PRIVATE KEY-----\n          aGFuc2E=\n          -----END PRIVATE KEY-----\n"}, "!members[0].msp.roots[0]: a certificate is wanted, this is a PRIVATE KEY"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := n.edit(t, test.replace...)
			if want, ok := strings.CutPrefix(test.want, "!"); ok {
				wantError(t, err, want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			status, err := n.Status(r)
			if err != nil {
				t.Fatal(err)
			}
			differences, err := n.Differences(status)
			if err != nil {
				t.Fatal(err)
			}
			var texts []string
			for _, d := range differences {
				texts = append(texts, d.String())
				if strings.HasPrefix(d.Path, "/") {
					t.Errorf("a difference that is not shown: %s", d)
				}
			}
			if all := strings.Join(texts, "\n"); !strings.Contains(all, test.want) {
				t.Errorf("differences:\n%s\nwant %s", all, test.want)
			}
		})
	}
}

// What is written by hand needs to say no more than what changes.
func TestPartOfADocument(t *testing.T) {
	n := newNetwork(t, "")
	for _, test := range []struct{ text, want string }{
		{"channel: trade\nbatch: {maxMessages: 7}\n", ""},
		{"channel: trade\nraft: {electionTick: 12}\n", ""},
		{"channel: trade\nacls: {}\n", "configuration: is missing"},
		{"batch: {maxMessages: 7}\n", "channel: is missing"},
		{"", "empty"},
		{"channel: trade\n---\nchannel: trade\n", "one YAML document is wanted"},
		{"channel: [", "yaml"},
		{"channel: trade\nbatch: {maxMessages: many}\n", "cannot unmarshal"},
		{"channel: trade\nconfiguration: 0\nmembers: [{mspId: X}]\n", "members[0].name: is missing"},
		{"channel: trade\nconfiguration: 0\nmembers: [{name: X}]\n", "members[0].mspId: is missing"},
		{"channel: trade\nconfiguration: 0\nmembers: [{name: Alpha, mspId: AlphaMSP, orderingOnly: true, anchorPeers: [\"a:1\"]}]\n", "anchorPeers and policies mean nothing"},
		{"channel: trade\nconfiguration: 0\nmembers: [{name: Alpha, mspId: AlphaMSP, ordererPolicies: {Own: ANY Admins}}]\n", "runs no orderer"},
		{"channel: trade\nconfiguration: 0\norderers: []\n", "empty consenter set"},
		{"channel: trade\nconfiguration: 0\norderers: [{host: h}]\n", "orderers[0].port: 0 is no port"},
	} {
		c := *n.Config
		err := c.EditYAML([]byte(test.text), n.dir)
		if err == nil {
			_, err = c.Request()
		}
		if test.want != "" {
			wantError(t, err, test.want)
		} else if err != nil {
			t.Errorf("%s: %v", test.text, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	n := newNetwork(t, "")
	application := func(r *commonpb.ConfigGroup) *commonpb.ConfigGroup { return r.Groups["Application"] }
	policyOf := func(text string) *commonpb.Policy {
		p, err := channel.ParsePolicy(text)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, test := range []struct {
		name   string
		change func(*commonpb.ConfigGroup)
		by     string
		want   []string
	}{
		{"nothing to fear", func(r *commonpb.ConfigGroup) { delete(application(r).Groups, "Gamma") }, "AB", nil},
		{"own member leaves", func(r *commonpb.ConfigGroup) { delete(application(r).Groups, "Gamma") }, "AG", []string{"GammaMSP signer (GammaMSP), who signs this, is locked out by it: member Gamma leaves the channel's application"}},
		{"own administrators given away", func(r *commonpb.ConfigGroup) {
			application(r).Groups["Alpha"].Policies["Admins"].Policy = policyOf("OR('BetaMSP.admin')")
		}, "A", []string{"AlphaMSP signer is no longer an administrator of Alpha"}},
		{"to nobody", func(r *commonpb.ConfigGroup) {
			application(r).Policies["Admins"].Policy = policyOf("OR('OmegaMSP.admin')")
		}, "AB", []string{"nobody could satisfy the policy /Channel/Admins (MAJORITY Admins) any more", "nobody could satisfy the policy /Channel/Application/Admins (OR('OmegaMSP.admin')) any more"}},
		{"own certificate unknown", func(r *commonpb.ConfigGroup) {
			other := identitytest.NewOrg(t, "AlphaMSP")
			raw, err := proto.Marshal(other.MSPConfig(t))
			if err != nil {
				t.Fatal(err)
			}
			application(r).Groups["Alpha"].Values["MSP"].Value = raw
		}, "A", []string{"the new MSP of Alpha does not know the certificate"}},
		{"lowered", func(r *commonpb.ConfigGroup) {
			if err := reconfigure.SetValue(application(r), "Capabilities", &commonpb.Capabilities{Capabilities: map[string]*commonpb.Capability{"V2_0": {}}}); err != nil {
				t.Fatal(err)
			}
		}, "AB", []string{"the Application capability is lowered from V2_5 to V2_0"}},
		{"no endpoints", func(r *commonpb.ConfigGroup) {
			if err := reconfigure.SetValue(r.Groups["Orderer"].Groups["Carrier"], "Endpoints", &commonpb.OrdererAddresses{}); err != nil {
				t.Fatal(err)
			}
		}, "C", []string{"no member has endpoints of orderers any more"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := n.edited(t, test.change)
			status, err := n.SignWhatIsNeeded(r, n.by(test.by)...)
			if err != nil || !status.Met() {
				t.Fatal(err, status)
			}
			got := n.Warnings(status)
			if len(got) != len(test.want) {
				t.Errorf("warnings %q", got)
			}
			for i, want := range test.want {
				if i < len(got) && !strings.Contains(got[i], want) {
					t.Errorf("warning %q, want %q", got[i], want)
				}
			}
		})
	}
}

// What the YAML has no words for is told by its path.
func TestUnshownDifferences(t *testing.T) {
	n := newNetwork(t, "")
	r := n.edited(t, func(r *commonpb.ConfigGroup) {
		r.Groups["Application"].Values["Capabilities"].ModPolicy = "/Channel/Admins"
		r.Groups["Application"].Groups["Alpha"].ModPolicy = "Endorsement"
		r.Groups["Orderer"].Values["ChannelRestrictions"].Value = []byte{8, 5}
	})
	status, err := n.Status(r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := n.Differences(status)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"~ /Channel/Application/Capabilities (who may modify it): Admins → /Channel/Admins",
		"~ /Channel/Application/Alpha (who may modify it): Admins → Endorsement",
		"~ /Channel/Orderer/ChannelRestrictions: it was → something that has no words here",
	}
	if len(got) != len(want) {
		t.Fatalf("differences %v", got)
	}
	for i := range want {
		if got[i].String() != want[i] {
			t.Errorf("difference %s, want %s", got[i], want[i])
		}
	}
}

// FuzzEditYAML must neither panic nor make of an edit what the channel refuses without an error.
func FuzzEditYAML(f *testing.F) {
	n := newNetwork(f, "")
	f.Add([]byte(shown(f, n.Config)))
	f.Add([]byte("channel: trade\nconfiguration: 0\nmembers: [{name: A, mspId: A, endpoints: [], msp: {nodeOUs: {client: {}}}}]\n"))
	f.Add([]byte("channel: trade\nconfiguration: 0\norderers: [{}]\nacls: {a: b}\ncapabilities: {channel: [V2_0, V3_0]}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := *n.Config
		if c.EditYAML(raw, n.dir) != nil {
			return
		}
		r, err := c.Request()
		if err != nil {
			return
		}
		status, err := c.Status(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Differences(status); err != nil {
			t.Fatal(err)
		}
		c.Warnings(status)
	})
}

func TestSet(t *testing.T) {
	n := newNetwork(t, "acls: {qscc/GetChainInfo: Readers}\n")
	for _, test := range []struct{ set, want string }{
		{"batch.maxMessages=7", "~ batch.maxMessages: 500 → 7"},
		{"batch.absoluteMaxBytes=20 MB", "~ batch.absoluteMaxBytes: 10 MB → 20 MB"},
		{"policies.application.Endorsement=ANY Endorsement", "~ policies.application.Endorsement: MAJORITY Endorsement → ANY Endorsement"},
		{"policies.application.Panel=OR('AlphaMSP.admin')", "+ policies.application.Panel: OR('AlphaMSP.admin')"},
		{"policies.application.LifecycleEndorsement=", "- policies.application.LifecycleEndorsement: MAJORITY Endorsement"},
		{"acls.qscc/GetBlockByNumber=Admins", "+ acls.qscc/GetBlockByNumber: Admins"},
		{"acls.qscc/GetChainInfo=", "- acls.qscc/GetChainInfo: Readers"},
		{"members.Alpha.anchorPeers=[\"a:1\", \"b:2\"]", "+ members.Alpha.anchorPeers: a:1|+ members.Alpha.anchorPeers: b:2"},
		{"members.Alpha.policies.Own=OR('AlphaMSP.peer')", "+ members.Alpha.policies.Own: OR('AlphaMSP.peer')"},
		{"members.Carrier.endpoints=[\"o9:7050\"]", "- members.Carrier(orderers).endpoints: o0:7050|- members.Carrier(orderers).endpoints: o1:7050|- members.Carrier(orderers).endpoints: o2:7050|+ members.Carrier(orderers).endpoints: o9:7050"},
		{"batch", "!PATH=VALUE is wanted"},
		{"batch.maxMessages=many", "!batch.maxMessages=many: cannot unmarshal"},
		{"batch.maxMessages=0", "!batch.maxMessages: it cannot be 0"},
		{"batch.timeout=0s", "!batch.timeout: it cannot be 0s"},
		{"batch.size=7", "!unknown key \"size\""},
		{"members.Omega.anchorPeers=[]", "!it is none of Alpha, Beta, Gamma, Carrier"},
		{"policies.peer.Own=ANY Admins", "!there is no peer"},
		{"consensus.type=x", "!there is nothing below it"},
		{"acls.qscc/None=", "!there is no such thing to remove"},
		{"batch.timeout=[", "!yaml"},
		{"orderers.o1:7050.port=7051", "~"},
	} {
		t.Run(test.set, func(t *testing.T) {
			c := *n.Config
			err := c.Set(test.set, n.dir)
			if want, ok := strings.CutPrefix(test.want, "!"); ok {
				wantError(t, err, want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.Request()
			if err != nil {
				t.Fatal(err)
			}
			status, err := n.Status(r)
			if err != nil {
				t.Fatal(err)
			}
			differences, err := n.Differences(status)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range differences {
				got = append(got, d.String())
			}
			if all := strings.Join(got, "|"); test.want != "~" && all != test.want {
				t.Errorf("differences %s", all)
			}
		})
	}
	c := *n.Config
	if err := c.Set("members.Gamma=", n.dir); err != nil {
		t.Error(err)
	} else if strings.Contains(shown(t, &c), "Gamma") {
		t.Error("the member is still there")
	}
	r, err := c.Request()
	if err != nil {
		t.Fatal(err)
	}
	status, err := n.Status(r)
	if err != nil {
		t.Fatal(err)
	}
	if differences, err := n.Differences(status); err != nil || len(differences) != 1 || differences[0].String() != "- members.Gamma: GammaMSP" {
		t.Errorf("differences %v, %v", differences, err)
	}
}

// The policy by which peers check blocks follows the consenters of BFT.
func TestBFTOrderers(t *testing.T) {
	n := newNetwork(t, "consensus: BFT\ncapabilities: {channel: V3_0}\n")
	write(t, filepath.Join(n.dir, "new.pem"), n.tls["Carrier"].Issue(t, "o3", nil).PEM)
	r, err := n.edit(t, "orderers:\n", "orderers:\n  - {member: Carrier, id: 9, host: o9, port: 7050, tlsCert: new.pem, identity: new.pem}\n")
	if err != nil {
		t.Fatal(err)
	}
	status, err := n.SignWhatIsNeeded(r, n.by("C")...)
	if err != nil || !status.Met() {
		t.Fatal(err, status.Needs)
	}
	after := n.apply(t, r)
	if consenters := after.Bundle().Consenters(); len(consenters) != 4 || consenters[0].Id != 9 {
		t.Errorf("consenters %v", consenters)
	}
	env, err := after.Bundle().SignatureEnvelope("/Channel/Orderer/BlockValidation")
	if err != nil || env.GetRule().GetNOutOf().GetN() != 3 || len(env.Identities) != 4 {
		t.Errorf("block policy %v, %v", env, err)
	}
	for replace, want := range map[string]string{
		"orderers:\n  - {member: Omega, id: 9, host: o9, port: 7050, tlsCert: new.pem, identity: new.pem}\n": `orderers[0].member: no member "Omega" runs orderers`,
		"orderers:\n  - {host: o9, port: 7050, tlsCert: new.pem}\n":                                          "BFT names each orderer's signing certificate",
		"raft: {electionTick: 3}\norderers:\n":                                                               "raft: the channel's consensus is BFT",
	} {
		_, err := n.edit(t, "orderers:\n", replace)
		wantError(t, err, want)
	}
}

func TestRebase(t *testing.T) {
	n := newNetwork(t, "acls: {qscc/GetChainInfo: Readers}\n")
	n.addOrg(t, "Delta")
	// Meanwhile others have let Gamma go, changed the batch's timeout, and set a policy.
	c := *n.Config
	for _, set := range []string{"members.Gamma=", "batch.timeout=9s", "policies.application.Endorsement=ANY Endorsement", "members.Alpha.anchorPeers=[\"theirs:1\"]", "acls.qscc/GetBlockByNumber=Readers"} {
		if err := c.Set(set, n.dir); err != nil {
			t.Fatal(err)
		}
	}
	r, err := c.Request()
	if err != nil {
		t.Fatal(err)
	}
	if status, err := n.SignWhatIsNeeded(r, n.by("ABC")...); err != nil || !status.Met() {
		t.Fatal(err, status.Needs)
	}
	now := n.apply(t, r)
	const delta = "members:\n  - {name: Delta, mspId: DeltaMSP, mspDir: Delta}\n"
	for _, test := range []struct {
		name    string
		replace []string
		want    string // the differences or, with an exclamation mark, an error
	}{
		{"another place", []string{"maxMessages: 500", "maxMessages: 7"}, "~ batch.maxMessages: 500 → 7"},
		{"another policy", []string{"LifecycleEndorsement: MAJORITY Endorsement", "LifecycleEndorsement: ANY Endorsement"}, "~ policies.application.LifecycleEndorsement: MAJORITY Endorsement → ANY Endorsement"},
		{"another member", []string{"members:\n", delta}, "+ members.Delta.mspId: DeltaMSP"},
		{"the same", []string{"timeout: 2s", "timeout: 9s"}, ""},
		{"the same place", []string{"timeout: 2s", "timeout: 5s"}, "!in the same place: by this edit ~ batch.timeout: 2s → 5s, by others ~ batch.timeout: 2s → 9s"},
		{"a list", []string{"anchorPeers: []", "anchorPeers: [\"mine:1\"]"}, "!in the same place: by this edit + members.Alpha.anchorPeers: mine:1, by others + members.Alpha.anchorPeers: theirs:1"},
		{"access rules", []string{"  qscc/GetChainInfo: Readers", "  qscc/GetChainInfo: Admins"}, "!in the same place"},
		{"who has left", []string{"name: Gamma\n    mspId: GammaMSP\n    anchorPeers: []", "name: Gamma\n    mspId: GammaMSP\n    anchorPeers: [\"g:1\"]"}, "!in the same place"},
	} {
		t.Run(test.name, func(t *testing.T) {
			text := shown(t, n.Config)
			if !strings.Contains(text, test.replace[0]) {
				t.Fatalf("the YAML has no %q", test.replace[0])
			}
			text = strings.Replace(text, test.replace[0], test.replace[1], 1)
			c := *now
			if err := c.EditYAML([]byte(text), n.dir); !errors.Is(err, reconfigure.ErrStale) {
				t.Errorf("an edit of an older configuration: %v", err)
			}
			err := c.Rebase([]byte(text), n.dir, n.Config)
			if want, ok := strings.CutPrefix(test.want, "!"); ok {
				wantError(t, err, want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.Request()
			if test.want == "" && err == reconfigure.ErrNoChange {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			status, err := c.Status(r)
			if err != nil {
				t.Fatal(err)
			}
			differences, err := now.Differences(status)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, d := range differences {
				found = found || d.String() == test.want
				if !strings.HasPrefix(d.Path, "members.Delta") && d.String() != test.want {
					t.Errorf("it changes %s", d)
				}
			}
			if !found {
				t.Errorf("differences %v", differences)
			}
		})
	}
}
