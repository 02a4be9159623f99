package cscc_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/cscc"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

const vectors = "../../testdata/vectors"

func read(t testing.TB, file string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, file))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

type signer struct{}

func (signer) Serialize() []byte           { return []byte("somebody") }
func (signer) Sign([]byte) ([]byte, error) { return []byte("signature"), nil }

// peer keeps real ledgers.
type peer struct {
	t        testing.TB
	verifier *identity.Verifier
	channels map[string]cscc.Channel
	joining  string
}

func (p *peer) Join(_ context.Context, channelID string, genesis *commonpb.Block) error {
	if _, ok := p.channels[channelID]; ok {
		return fmt.Errorf("ledger [%s] already exists with state [ACTIVE]", channelID)
	}
	bundle, err := channel.FromBlock(genesis, p.verifier)
	if err != nil {
		return err
	}
	l, err := ledger.Open(ledger.Config{Dir: p.t.TempDir(), ChannelID: channelID})
	if err != nil {
		return err
	}
	p.t.Cleanup(func() { l.Close() })
	p.channels[channelID] = cscc.Channel{Bundle: bundle, Ledger: l}
	return l.Commit(&ledger.Commit{Block: block.Parse(genesis)})
}

func (p *peer) JoinBySnapshot(_ context.Context, dir string) error {
	if dir == "/bad" {
		return errors.New("it is bad")
	}
	p.joining = dir
	return nil
}

func (p *peer) JoiningBySnapshot() (string, bool) { return p.joining, p.joining != "" }

func (p *peer) Channels() []string { return slices.Sorted(maps.Keys(p.channels)) }

func (p *peer) Channel(id string) (cscc.Channel, bool) {
	ch, ok := p.channels[id]
	return ch, ok
}

// access denies one resource and remembers the checks.
type access struct {
	deny    string
	checked []string
}

func (a *access) Check(channelID, resource string, _ *peerpb.SignedProposal) error {
	a.checked = append(a.checked, resource+"@"+channelID)
	if resource == a.deny {
		return errors.New("not you")
	}
	return nil
}

type fixture struct {
	t      testing.TB
	access *access
	peer   *peer
	*cscc.Contract
}

func newFixture(t testing.TB) *fixture {
	v := identity.NewVerifier(identity.Config{})
	f := &fixture{t: t, access: &access{}, peer: &peer{t: t, verifier: v, channels: map[string]cscc.Channel{}}}
	f.Contract = cscc.New(cscc.Config{Peer: f.peer, Access: f.access, Verifier: v})
	return f
}

func (f *fixture) call(contract string, args ...string) *peerpb.Response {
	f.t.Helper()
	c := &simulation.Call{}
	for _, a := range args {
		c.Args = append(c.Args, []byte(a))
	}
	_, signed, err := envelope.NewProposal(signer{}, envelope.ProposalArgs{Type: commonpb.HeaderType_CONFIG, Chaincode: contract, Args: c.Args})
	if err != nil {
		f.t.Fatal(err)
	}
	c.Proposal = signed
	return f.Invoke(context.Background(), c)
}

func TestJoinAndAsk(t *testing.T) {
	f := newFixture(t)
	genesis := read(t, "genesis.block")
	if r := f.call("cscc", "JoinChain", string(genesis)); r.Status != 200 {
		t.Fatal(r)
	}
	if r := f.call("cscc", "JoinChain", string(genesis)); r.Status != 500 || r.Message != "ledger [devledger] already exists with state [ACTIVE]" {
		t.Error(r)
	}
	list := &peerpb.ChannelQueryResponse{}
	if r := f.call("cscc", "GetChannels"); r.Status != 200 || proto.Unmarshal(r.Payload, list) != nil || len(list.Channels) != 1 || list.Channels[0].ChannelId != "devledger" {
		t.Error(r)
	}
	got, want := &commonpb.Block{}, &commonpb.Block{}
	if err := proto.Unmarshal(genesis, want); err != nil {
		t.Fatal(err)
	}
	block.SetFilter(want, []byte{0}) // as a peer stores it
	if r := f.call("cscc", "GetConfigBlock", "devledger"); r.Status != 200 || proto.Unmarshal(r.Payload, got) != nil || !proto.Equal(got, want) {
		t.Error("GetConfigBlock gives another block")
	}
	// Later blocks name an older config block.
	l := f.peer.channels["devledger"].Ledger.(*ledger.Ledger)
	for n := 1; n < 5; n++ {
		b := &commonpb.Block{}
		if err := proto.Unmarshal(read(t, fmt.Sprintf("blocks/%06d.block", n)), b); err != nil {
			t.Fatal(err)
		}
		if err := l.Commit(&ledger.Commit{Block: block.Parse(b)}); err != nil {
			t.Fatal(err)
		}
	}
	if r := f.call("cscc", "GetConfigBlock", "devledger"); r.Status != 200 || proto.Unmarshal(r.Payload, got) != nil || got.Header.Number != 2 {
		t.Errorf("the config block is %d, want 2", got.Header.GetNumber())
	}
	config := &commonpb.Config{}
	env, _, err := block.ConfigEnvelope(want)
	if err != nil {
		t.Fatal(err)
	}
	if r := f.call("cscc", "GetChannelConfig", "devledger"); r.Status != 200 || proto.Unmarshal(r.Payload, config) != nil || !proto.Equal(config, env.Config) {
		t.Error("GetChannelConfig gives another configuration")
	}
	if r := f.call("cscc", "JoinBySnapshotStatus"); r.Status != 200 || len(r.Payload) != 0 {
		t.Error(r)
	}
	if r := f.call("cscc", "JoinChainBySnapshot", "/dir"); r.Status != 200 {
		t.Error(r)
	}
	joining := &peerpb.JoinBySnapshotStatus{}
	if r := f.call("cscc", "JoinBySnapshotStatus"); proto.Unmarshal(r.Payload, joining) != nil || !joining.InProgress || joining.BootstrappingSnapshotDir != "/dir" {
		t.Error(r)
	}
	for _, checked := range []string{"cscc/JoinChain@", "cscc/GetChannels@", "cscc/GetConfigBlock@devledger", "cscc/GetChannelConfig@devledger", "cscc/JoinBySnapshotStatus@"} {
		if !slices.Contains(f.access.checked, checked) {
			t.Errorf("%s was not checked", checked)
		}
	}
}

func TestFailures(t *testing.T) {
	edit := func(change func(*commonpb.Block)) string {
		b := &commonpb.Block{}
		if err := proto.Unmarshal(read(t, "genesis.block"), b); err != nil {
			t.Fatal(err)
		}
		change(b)
		raw, err := proto.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	genesis := string(read(t, "genesis.block"))
	for _, test := range []struct {
		deny, contract string
		args           []string
		want           string
	}{
		{"", "cscc", nil, "Incorrect number of arguments, 0"},
		{"", "cscc", []string{"JoinChain"}, "Incorrect number of arguments, 1"},
		{"", "cscc", []string{"Leave", "x"}, "Requested function Leave not found."},
		{"", "basic", []string{"GetChannels"}, "Rejecting invoke of CSCC from another chaincode, original invocation for 'basic'"},
		{"", "cscc", []string{"JoinChain", "garbage"}, "Failed to reconstruct the genesis block"},
		{"", "cscc", []string{"JoinChain", ""}, "failed to extract channel id from the block"},
		{"", "cscc", []string{"JoinChain", string(read(t, "blocks/000003.block"))}, "\"JoinChain\" for channelID = devledger failed because of validation of configuration block, because of Bad configuration envelope"},
		{"", "cscc", []string{"JoinChain", string(read(t, "blocks/000002.block"))}, "it is block 2"},
		{"", "cscc", []string{"JoinChain", edit(func(b *commonpb.Block) { b.Header = nil })}, "no header"},
		{"", "cscc", []string{"JoinChain", edit(func(b *commonpb.Block) { b.Header.DataHash[0] ^= 1 })}, "data hash"},
		{"cscc/JoinChain", "cscc", []string{"JoinChain", genesis}, "access denied for [JoinChain][devledger]: [not you]"},
		{"", "cscc", []string{"JoinChainBySnapshot", ""}, "Cannot join the channel, no snapshot directory provided"},
		{"", "cscc", []string{"JoinChainBySnapshot", "/bad"}, "cannot create ledger from snapshot /bad: it is bad"},
		{"cscc/JoinChainBySnapshot", "cscc", []string{"JoinChainBySnapshot", "/dir"}, "access denied for [JoinChainBySnapshot]"},
		{"cscc/JoinBySnapshotStatus", "cscc", []string{"JoinBySnapshotStatus"}, "access denied for [JoinBySnapshotStatus]"},
		{"cscc/GetChannels", "cscc", []string{"GetChannels"}, "access denied for [GetChannels]: not you"},
		{"cscc/GetConfigBlock", "cscc", []string{"GetConfigBlock", "c"}, "access denied for [GetConfigBlock][c]: not you"},
		{"cscc/GetChannelConfig", "cscc", []string{"GetChannelConfig", "c"}, "access denied for [GetChannelConfig][c]: not you"},
		{"", "cscc", []string{"GetConfigBlock", "c"}, "Unknown channel ID, c"},
		{"", "cscc", []string{"GetChannelConfig", "c"}, "unknown channel ID, c"},
		{"", "cscc", []string{"GetChannelConfig", ""}, "empty channel name provided"},
	} {
		f := newFixture(t)
		f.access.deny = test.deny
		r := f.call(test.contract, test.args...)
		if r.Status != 500 || !strings.Contains(r.Message, test.want) {
			t.Errorf("%.40q: %d %q, want %q", test.args, r.Status, r.Message, test.want)
		}
		if len(f.peer.channels) > 0 {
			t.Errorf("%.40q joined a channel", test.args)
		}
	}
}
