package channel_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/e2e/network"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/provision"
	"github.com/hansa-ledger/hansa/internal/reconfigure"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Fabric's orderer, in the folder that HANSA_FABRIC_BIN names, and package channel decide on the same random updates: they come to the same
// verdicts and to the same configurations.
func TestRandomUpdatesOnFabric(t *testing.T) {
	bin, cfg := os.Getenv("HANSA_FABRIC_BIN"), os.Getenv("HANSA_FABRIC_CFG")
	if bin == "" || cfg == "" {
		t.Skip("HANSA_FABRIC_BIN and HANSA_FABRIC_CFG are not set")
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("HANSA_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("HANSA_SEED=%d", seed)
	d := &differ{Network: network.Start(t, "--members", "3"), t: t, rand: rand.New(rand.NewPCG(seed, 0))}
	d.plan = d.Plan()
	d.Down()
	d.startOrderer(bin, cfg)
	for _, a := range d.plan.Administrators() {
		s, err := identity.LoadSigner(a.MSPDir, a.MSPID)
		if err != nil {
			t.Fatal(err)
		}
		d.admins = append(d.admins, s)
	}
	const channels, updates = 6, 60
	for i := range channels {
		d.join(bin, fmt.Sprintf("random%d", i))
		for range updates {
			if !d.try() {
				break
			}
		}
	}
	t.Logf("%d accepted, %d refused", d.accepted, d.refused)
	if d.accepted < channels || d.refused < channels {
		t.Errorf("%d accepted, %d refused: that says little", d.accepted, d.refused)
	}
}

type differ struct {
	*network.Network
	t                 *testing.T
	rand              *rand.Rand
	plan              *provision.Network
	admins            []*identity.Signer // the orderers' is the last
	orderer           reconfigure.Node
	config            *reconfigure.Config
	accepted, refused int
}

func (d *differ) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// orderers is the folder of the ordering service's certificates.
func (d *differ) orderers(elements ...string) string {
	return filepath.Join(append([]string{d.Dir, "crypto", "ordererOrganizations", "orderer.example.com"}, elements...)...)
}

func (d *differ) startOrderer(bin, cfg string) {
	d.t.Helper()
	o := d.plan.Orderers[0]
	folder := d.orderers("orderers", o.Name+".orderer.example.com")
	crt, key, ca := filepath.Join(folder, "tls", "server.crt"), filepath.Join(folder, "tls", "server.key"), filepath.Join(folder, "tls", "ca.crt")
	data := filepath.Join(d.Dir, "fabric")
	local := func(port int) string { return provision.Host + ":" + strconv.Itoa(port) }
	env := []string{"FABRIC_CFG_PATH=" + cfg, "FABRIC_LOGGING_SPEC=ERROR",
		"ORDERER_GENERAL_LISTENADDRESS=" + provision.Host, "ORDERER_GENERAL_LISTENPORT=" + strconv.Itoa(o.Port), "ORDERER_GENERAL_BOOTSTRAPMETHOD=none",
		"ORDERER_GENERAL_LOCALMSPID=OrdererMSP", "ORDERER_GENERAL_LOCALMSPDIR=" + filepath.Join(folder, "msp"), "ORDERER_CHANNELPARTICIPATION_ENABLED=true",
		"ORDERER_FILELEDGER_LOCATION=" + filepath.Join(data, "ledger"), "ORDERER_CONSENSUS_WALDIR=" + filepath.Join(data, "wal"), "ORDERER_CONSENSUS_SNAPDIR=" + filepath.Join(data, "snap"),
		"ORDERER_OPERATIONS_LISTENADDRESS=" + local(o.Operations), "ORDERER_ADMIN_LISTENADDRESS=" + local(o.Admin), "ORDERER_ADMIN_TLS_CLIENTAUTHREQUIRED=true",
		"ORDERER_GENERAL_CLUSTER_CLIENTCERTIFICATE=" + crt, "ORDERER_GENERAL_CLUSTER_CLIENTPRIVATEKEY=" + key, "ORDERER_GENERAL_CLUSTER_ROOTCAS=[" + ca + "]"}
	for _, section := range []string{"GENERAL", "ADMIN"} {
		env = append(env, "ORDERER_"+section+"_TLS_ENABLED=true", "ORDERER_"+section+"_TLS_CERTIFICATE="+crt, "ORDERER_"+section+"_TLS_PRIVATEKEY="+key,
			"ORDERER_"+section+"_TLS_ROOTCAS=["+ca+"]", "ORDERER_"+section+"_TLS_CLIENTROOTCAS=["+ca+"]")
	}
	c := exec.Command(filepath.Join(bin, "orderer"))
	var log bytes.Buffer
	c.Env, c.Stdout, c.Stderr = append(os.Environ(), env...), &log, &log
	d.must(c.Start())
	d.t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if d.t.Failed() {
			d.t.Logf("--- orderer\n%s", log.Bytes()[max(0, log.Len()-4000):])
		}
	})
	roots, err := os.ReadFile(d.plan.OrdererTLSRoots())
	d.must(err)
	d.orderer = reconfigure.Node{Address: o.Address(), TLSRoots: roots}
}

// join makes another channel.
func (d *differ) join(bin, id string) {
	d.t.Helper()
	raw, err := os.ReadFile(filepath.Join(d.Dir, "channel.yaml"))
	d.must(err)
	file, block := filepath.Join(d.Dir, id+".yaml"), filepath.Join(d.Dir, id+".block")
	d.must(os.WriteFile(file, bytes.Replace(raw, []byte("channel: "+d.plan.Channel), []byte("channel: "+id), 1), 0o600))
	if _, stderr, err := d.Run("channel", "genesis", file, "--output", block); err != nil {
		d.t.Fatal(stderr)
	}
	admin := d.orderers("users", "Admin@orderer.example.com", "tls")
	d.Await("the orderer to join", func() error {
		out, err := exec.CommandContext(d.t.Context(), filepath.Join(bin, "osnadmin"), "channel", "join", "--channelID", id, "--config-block", block,
			"-o", provision.Host+":"+strconv.Itoa(d.plan.Orderers[0].Admin), "--ca-file", filepath.Join(admin, "ca.crt"),
			"--client-cert", filepath.Join(admin, "client.crt"), "--client-key", filepath.Join(admin, "client.key")).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "Status: 201") {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	d.config = nil
	d.fetch(id)
}

func (d *differ) fetch(id string) {
	d.t.Helper()
	d.Await("the configuration", func() (err error) {
		ctx, cancel := context.WithTimeout(d.t.Context(), 5*time.Second)
		defer cancel()
		before := d.config
		if d.config, err = reconfigure.Fetch(ctx, []reconfigure.Node{d.orderer}, d.admins[len(d.admins)-1], id); err != nil {
			d.config = before
		}
		return err
	})
}

// try makes one update and asks both. False means that nobody can use the channel any more.
func (d *differ) try() bool {
	d.t.Helper()
	update := d.update()
	if update == nil {
		return true
	}
	env := d.sign(update)
	next, ours := d.config.Bundle().ProposeUpdate(env)
	theirs := d.broadcast(env)
	what := func() string {
		return fmt.Sprintf("channel %s, configuration %d, update %v", d.config.ID(), d.config.Sequence(), update)
	}
	if (ours == nil) != (theirs == nil) {
		d.t.Fatalf("here: %v\nFabric: %v\n%s", ours, theirs, what())
	}
	if ours != nil {
		d.refused++
		return true
	}
	d.accepted++
	if !d.usable(next.Config) {
		return false
	}
	sequence := d.config.Sequence()
	d.Await("the next configuration", func() error {
		if d.fetch(d.config.ID()); d.config.Sequence() == sequence {
			return errors.New("it is the same")
		}
		return nil
	})
	if !proto.Equal(d.config.Bundle().Config(), next.Config) {
		d.t.Fatalf("another configuration came of it: %v\nhere: %v\n%s", d.config.Bundle().Config(), next.Config, what())
	}
	return true
}

// usable says whether the orderers' administrator can read and write a channel.
func (d *differ) usable(c *commonpb.Config) bool {
	b, err := channel.NewBundle(d.config.ID(), proto.CloneOf(c), identity.NewVerifier(identity.Config{}))
	d.must(err)
	id, err := b.MSPs().Deserialize(d.admins[len(d.admins)-1].Serialize())
	for _, path := range []string{"/Channel/Readers", "/Channel/Writers"} {
		p, ok := b.Policy(path)
		if err != nil || !ok || p.EvaluateIdentities([]*identity.Identity{id}) != nil {
			return false
		}
	}
	return true
}

// broadcast submits an update; an error is Fabric's refusal.
func (d *differ) broadcast(env *commonpb.Envelope) (refusal error) {
	d.t.Helper()
	tls, err := credentials.NewClientTLSFromFile(d.plan.OrdererTLSRoots(), "")
	d.must(err)
	conn, err := grpc.NewClient(d.orderer.Address, grpc.WithTransportCredentials(tls))
	d.must(err)
	defer conn.Close()
	d.Await("a leader", func() error {
		stream, err := ordererpb.NewAtomicBroadcastClient(conn).Broadcast(d.t.Context())
		if err != nil {
			return err
		}
		if err := stream.Send(env); err != nil && err != io.EOF {
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if answer.Status == commonpb.Status_SERVICE_UNAVAILABLE {
			return errors.New(answer.Info)
		}
		if answer.Status != commonpb.Status_SUCCESS {
			refusal = fmt.Errorf("%s: %s", answer.Status, answer.Info)
		}
		return nil
	})
	return refusal
}

// sign has some administrators sign, more often all of them.
func (d *differ) sign(update *commonpb.ConfigUpdate) *commonpb.Envelope {
	d.t.Helper()
	r, err := reconfigure.NewRequest(update)
	d.must(err)
	some := d.rand.IntN(3) == 0
	for _, a := range d.admins {
		if !some || d.rand.IntN(2) == 0 {
			d.must(r.Sign(a))
		}
	}
	raw, err := r.Bytes()
	d.must(err)
	outer, payload, data := &commonpb.Envelope{}, &commonpb.Payload{}, &commonpb.ConfigUpdateEnvelope{}
	d.must(errors.Join(proto.Unmarshal(raw, outer), proto.Unmarshal(outer.Payload, payload), proto.Unmarshal(payload.Data, data)))
	env, err := envelope.New(d.admins[len(d.admins)-1], commonpb.HeaderType_CONFIG_UPDATE, d.config.ID(), data, nil)
	d.must(err)
	return env
}

// update edits the configuration at random, computes the update, and at times spoils it.
func (d *differ) update() *commonpb.ConfigUpdate {
	before := d.config.Bundle().Config()
	after := proto.CloneOf(before)
	for range 1 + d.rand.IntN(3) {
		d.mutate(after.ChannelGroup)
	}
	update, err := channel.ComputeUpdate(d.config.ID(), before, after)
	if err != nil {
		return nil // it changed nothing
	}
	if d.rand.IntN(3) == 0 {
		for range 1 + d.rand.IntN(2) {
			d.spoil(update)
		}
	}
	return update
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// someGroup walks down from a group.
func (d *differ) someGroup(g *commonpb.ConfigGroup) *commonpb.ConfigGroup {
	for g != nil && len(g.Groups) > 0 && d.rand.IntN(4) > 0 {
		g = g.Groups[pick(d.rand, slices.Sorted(maps.Keys(g.Groups))...)]
	}
	return g
}

// mutate edits one place. What would stop Fabric's orderer (another consensus type), and application capabilities, which it does not look
// at, are left alone.
func (d *differ) mutate(root *commonpb.ConfigGroup) {
	g := d.someGroup(root)
	values, policies := slices.Sorted(maps.Keys(g.Values)), slices.Sorted(maps.Keys(g.Policies))
	modPolicy := pick(d.rand, "Admins", "Admins", "Readers", "/Channel/Admins", "/Channel/Application/Admins", "Nobody", "", "a b", "Orderer/Admins", "/Other/Admins", "/Channel/", "..")
	switch d.rand.IntN(11) {
	case 0, 1, 2:
		d.value(root)
	case 3:
		if len(values) > 0 {
			g.Values[pick(d.rand, values...)].ModPolicy = modPolicy
		}
	case 4:
		if len(policies) > 0 {
			g.Policies[pick(d.rand, policies...)].ModPolicy = modPolicy
		}
	case 5:
		g.ModPolicy = modPolicy
	case 6:
		switch d.rand.IntN(3) {
		case 0:
			if len(values) > 0 {
				if key := pick(d.rand, values...); key != "ConsensusType" {
					delete(g.Values, key)
				}
			}
		case 1:
			if len(policies) > 0 {
				delete(g.Policies, pick(d.rand, policies...))
			}
		case 2:
			if len(g.Groups) > 0 {
				delete(g.Groups, pick(d.rand, slices.Sorted(maps.Keys(g.Groups))...))
			}
		}
	case 7:
		if g.Policies == nil {
			g.Policies = map[string]*commonpb.ConfigPolicy{}
		}
		p, err := channel.ParsePolicy(pick(d.rand, "ANY Readers", "MAJORITY Admins", "ALL Nothing", "OR('Org1MSP.admin')", "AND('Org1MSP.admin','Org2MSP.member')", "OutOf(2,'Org1MSP.admin','OrdererMSP.admin','NoMSP.admin')"))
		d.must(err)
		g.Policies[pick(d.rand, "Own", "Readers", "Admins", "Endorsement", "a_b")] = &commonpb.ConfigPolicy{Policy: p, ModPolicy: modPolicy}
	case 8: // a policy of another kind, or none
		if len(policies) > 0 {
			g.Policies[pick(d.rand, policies...)].Policy = pick(d.rand, nil, &commonpb.Policy{}, &commonpb.Policy{Type: int32(d.rand.IntN(5)), Value: pick(d.rand, nil, []byte{0xff}, []byte{8, 1})})
		}
	case 9: // an MSP of another, or damaged
		from := d.someGroup(root)
		if has, other := g.Values["MSP"], from.GetValues()["MSP"]; has != nil && other != nil {
			has.Value = slices.Clone(other.Value)
			if at := d.rand.IntN(2 * len(has.Value)); at < len(has.Value) {
				has.Value[at] ^= 1
			}
		}
	case 10:
		if from := d.someGroup(root); from != g {
			if g.Groups == nil {
				g.Groups = map[string]*commonpb.ConfigGroup{}
			}
			g.Groups[pick(d.rand, "Twin", "org1", "orderer", "Consortiums", "x.y")] = proto.CloneOf(from)
		}
	}
}

// value sets one of the values that a channel has, in its place or elsewhere.
func (d *differ) value(root *commonpb.ConfigGroup) {
	capabilities := func(names ...string) *commonpb.Capabilities {
		c := &commonpb.Capabilities{Capabilities: map[string]*commonpb.Capability{}}
		for _, n := range names {
			c.Capabilities[n] = &commonpb.Capability{}
		}
		return c
	}
	n := d.rand.Uint32N
	addresses := &commonpb.OrdererAddresses{Addresses: pick(d.rand, nil, []string{"h:1"}, []string{d.orderer.Address})}
	v := pick(d.rand, []struct {
		group, key string
		message    proto.Message
	}{
		{"Orderer", "BatchSize", &ordererpb.BatchSize{MaxMessageCount: n(3), AbsoluteMaxBytes: 1 << 20 * n(3), PreferredMaxBytes: 1 << 19 * n(5)}},
		{"Orderer", "BatchTimeout", &ordererpb.BatchTimeout{Timeout: pick(d.rand, "1s", "2s", "0s", "-1s", "soon", "")}},
		{"Orderer", "ChannelRestrictions", &ordererpb.ChannelRestrictions{MaxCount: uint64(n(3))}},
		{"Orderer", "Capabilities", capabilities(pick(d.rand, []string{"V2_0"}, []string{"V1_4_2", "V2_0"}, []string{"V1_1"}, []string{"V9"}, nil)...)},
		{"Orderer", "KafkaBrokers", addresses},
		{"", "Capabilities", capabilities(pick(d.rand, []string{"V2_0"}, []string{"V3_0"}, []string{"V1_3"}, []string{"V9"}, []string{"V2_0", "V9"}, nil)...)},
		{"", "OrdererAddresses", addresses},
		{"", "HashingAlgorithm", &commonpb.HashingAlgorithm{Name: pick(d.rand, "SHA256", "SHA3_256", "MD5", "")}},
		{"", "BlockDataHashingStructure", &commonpb.BlockDataHashingStructure{Width: pick(d.rand, uint32(1<<32-1), 7)}},
		{"", "Consortium", &commonpb.Consortium{Name: "c"}},
		{"Application", "ACLs", &peerpb.ACLs{Acls: map[string]*peerpb.APIResource{"r": {PolicyRef: pick(d.rand, "Readers", "/Channel/None", "")}}}},
		{"Application", "Colour", addresses},
		{"Application/org1", "AnchorPeers", &peerpb.AnchorPeers{AnchorPeers: []*peerpb.AnchorPeer{{Host: "h", Port: int32(n(9))}}}},
		{"Application/org2", "Endpoints", addresses},
		{"Orderer/orderer", "Endpoints", addresses},
	}...)
	g := root
	for name := range strings.SplitSeq(v.group, "/") {
		if name != "" {
			if g = g.GetGroups()[name]; g == nil {
				return
			}
		}
	}
	raw, err := proto.Marshal(v.message)
	d.must(err)
	if d.rand.IntN(10) == 0 {
		raw = append(raw, 0xff)
	}
	if g.Values == nil {
		g.Values = map[string]*commonpb.ConfigValue{}
	}
	if has := g.Values[v.key]; has != nil {
		has.Value = raw
	} else {
		g.Values[v.key] = &commonpb.ConfigValue{Value: raw, ModPolicy: "Admins"}
	}
}

// spoil changes versions and members of the read and write sets, as a computation never would.
func (d *differ) spoil(update *commonpb.ConfigUpdate) {
	g := d.someGroup(pick(d.rand, update.ReadSet, update.WriteSet, update.WriteSet))
	if g == nil {
		return
	}
	values, policies, groups := slices.Sorted(maps.Keys(g.Values)), slices.Sorted(maps.Keys(g.Policies)), slices.Sorted(maps.Keys(g.Groups))
	switch d.rand.IntN(8) {
	case 0:
		g.Version++
	case 1:
		g.Version = uint64(d.rand.IntN(2))
	case 2:
		if len(values) > 0 {
			g.Values[pick(d.rand, values...)].Version = uint64(d.rand.IntN(3))
		}
	case 3:
		if len(policies) > 0 {
			g.Policies[pick(d.rand, policies...)].Version = uint64(d.rand.IntN(3))
		}
	case 4:
		if len(values) > 0 {
			delete(g.Values, pick(d.rand, values...))
		}
	case 5:
		if len(policies) > 0 {
			delete(g.Policies, pick(d.rand, policies...))
		}
	case 6:
		if len(groups) > 0 {
			delete(g.Groups, pick(d.rand, groups...))
		}
	case 7: // an orphan, where the group does not change
		if g.Groups == nil {
			g.Groups = map[string]*commonpb.ConfigGroup{}
		}
		g.Groups["Orphan"] = &commonpb.ConfigGroup{ModPolicy: "Admins", Version: uint64(d.rand.IntN(2))}
	}
}
