package reconfigure_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/reconfigure"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// network is a channel with keys: members Alpha, Beta and Gamma, orderers of Carrier.
type network struct {
	dir    string
	orgs   map[string]*identitytest.Org
	tls    map[string]*identitytest.CA
	admins map[string]*identity.Signer
	*reconfigure.Config
}

const nodeOUs = `NodeOUs:
  Enable: true
  ClientOUIdentifier: {OrganizationalUnitIdentifier: client}
  PeerOUIdentifier: {OrganizationalUnitIdentifier: peer}
  AdminOUIdentifier: {OrganizationalUnitIdentifier: admin}
  OrdererOUIdentifier: {OrganizationalUnitIdentifier: orderer}
`

// newNetwork makes the channel; more is added to its description.
func newNetwork(t testing.TB, more string) *network {
	t.Helper()
	n := &network{dir: t.TempDir(), orgs: map[string]*identitytest.Org{}, tls: map[string]*identitytest.CA{}, admins: map[string]*identity.Signer{}}
	text := strings.Builder{}
	text.WriteString("channel: trade\nmembers:\n")
	for _, name := range []string{"Alpha", "Beta", "Gamma", "Carrier"} {
		n.addOrg(t, name)
		fmt.Fprintf(&text, "  - {name: %s, mspId: %sMSP, mspDir: %s, orderingOnly: %v}\n", name, name, name, name == "Carrier")
	}
	text.WriteString("orderers:\n")
	for i := range 3 {
		file := fmt.Sprintf("tls%d.pem", i)
		write(t, filepath.Join(n.dir, file), n.tls["Carrier"].Issue(t, fmt.Sprintf("o%d", i), nil).PEM)
		fmt.Fprintf(&text, "  - {member: Carrier, host: o%d, port: 7050, tlsCert: %s, identity: %s}\n", i, file, file)
	}
	text.WriteString(more)
	spec, err := channel.ParseSpec([]byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	genesis, err := spec.Genesis(n.dir)
	if err != nil {
		t.Fatal(err)
	}
	if n.Config, err = reconfigure.FromBlock(genesis); err != nil {
		t.Fatal(err)
	}
	return n
}

// addOrg makes a member's MSP folder, named as the member.
func (n *network) addOrg(t testing.TB, name string) {
	t.Helper()
	org, tls := identitytest.NewOrg(t, name+"MSP"), identitytest.NewCA(t, "tlsca."+name)
	n.orgs[name], n.tls[name], n.admins[name] = org, tls, org.Signer(t, "admin")
	write(t, filepath.Join(n.dir, name, "cacerts", "ca.pem"), org.PEM)
	write(t, filepath.Join(n.dir, name, "tlscacerts", "ca.pem"), tls.PEM)
	write(t, filepath.Join(n.dir, name, "config.yaml"), []byte(nodeOUs))
}

func write(t testing.TB, file string, raw []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// by is the admins whose names have these initials.
func (n *network) by(initials string) (signers []reconfigure.Signer) {
	for _, name := range []string{"Alpha", "Beta", "Gamma", "Carrier"} {
		if strings.Contains(initials, name[:1]) {
			signers = append(signers, n.admins[name])
		}
	}
	return signers
}

func wantError(t testing.TB, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want %q", err, want)
	}
}

// edited is a request for a change of the network's configuration.
func (n *network) edited(t testing.TB, change func(root *commonpb.ConfigGroup)) *reconfigure.Request {
	t.Helper()
	c := *n.Config
	err := c.Edit(func(config *commonpb.Config) error {
		change(config.ChannelGroup)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Request()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// apply has an orderer's rules decide on a request, and gives the configuration after it.
func (n *network) apply(t testing.TB, r *reconfigure.Request) *reconfigure.Config {
	t.Helper()
	c, err := reconfigure.FromBlock(n.ordered(t, 7, envelopeOf(t, r)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhoMustSign(t *testing.T) {
	n := newNetwork(t, "policies: {application: {Panel: \"OutOf(2, 'AlphaMSP.admin', 'AlphaMSP.admin', 'BetaMSP.member')\"}}\n")
	leave := func(r *commonpb.ConfigGroup) { delete(r.Groups["Application"].Groups, "Gamma") }
	everywhere := func(r *commonpb.ConfigGroup) {
		leave(r)
		r.Groups["Orderer"].Policies["Own"] = proto.CloneOf(r.Groups["Orderer"].Policies["Admins"])
		r.Policies["Own"] = proto.CloneOf(r.Policies["Admins"])
	}
	for _, test := range []struct {
		name   string
		change func(*commonpb.ConfigGroup)
		by     string
		want   string // what is missing, need by need
	}{
		{"nobody signed", leave, "", "/Channel/Application/Admins: 2 of (an admin of AlphaMSP, an admin of BetaMSP, an admin of GammaMSP)"},
		{"one signed", leave, "A", "/Channel/Application/Admins: an admin of BetaMSP or an admin of GammaMSP"},
		{"two signed", leave, "AG", ""},
		{"one who has no say", leave, "C", "/Channel/Application/Admins: 2 of (an admin of AlphaMSP, an admin of BetaMSP, an admin of GammaMSP)"},
		{"three policies", everywhere, "A", "/Channel/Admins: (an admin of BetaMSP or an admin of GammaMSP) and an admin of CarrierMSP" +
			"|/Channel/Application/Admins: an admin of BetaMSP or an admin of GammaMSP|/Channel/Orderer/Admins: an admin of CarrierMSP"},
		{"all three met", everywhere, "ABC", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := n.edited(t, test.change)
			for _, s := range n.by(test.by) {
				if err := r.Sign(s); err != nil {
					t.Fatal(err)
				}
			}
			status, err := n.Status(r)
			if err != nil {
				t.Fatal(err)
			}
			var missing []string
			for _, need := range status.Needs {
				if !need.Met {
					missing = append(missing, need.Policy+": "+need.Missing)
				}
			}
			if got := strings.Join(missing, "|"); got != test.want || status.Met() != (test.want == "") {
				t.Errorf("missing %q, want %q", got, test.want)
			}
		})
	}
}

func TestSignWhatIsNeeded(t *testing.T) {
	n := newNetwork(t, "")
	r := n.edited(t, func(r *commonpb.ConfigGroup) { delete(r.Groups["Application"].Groups, "Gamma") })
	// Carrier has no say, and after two members a third need not sign.
	status, err := n.SignWhatIsNeeded(r, n.by("CABG")...)
	if err != nil || !status.Met() || !slices.Equal(status.Signed, []string{"AlphaMSP signer (AlphaMSP)", "BetaMSP signer (BetaMSP)"}) {
		t.Errorf("signed %v, %v", status, err)
	}
	// Members' clients are no admins.
	r = n.edited(t, func(r *commonpb.ConfigGroup) { delete(r.Groups["Application"].Groups, "Gamma") })
	if status, err = n.SignWhatIsNeeded(r, n.orgs["Alpha"].Signer(t, "client")); err != nil || len(status.Signed) > 0 {
		t.Errorf("signed %v, %v", status.Signed, err)
	}
}

// Members sign copies of the file each for themselves.
func TestSignaturesTravel(t *testing.T) {
	n := newNetwork(t, "")
	change := func(r *commonpb.ConfigGroup) { delete(r.Groups["Application"].Groups, "Gamma") }
	first := n.edited(t, change)
	raw, err := first.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range n.by("AB") {
		copied, err := reconfigure.ReadRequest(raw)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := copied.Sign(s); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := first.Merge(copied); err != nil {
				t.Fatal(err)
			}
		}
	}
	status, err := n.Status(first)
	if err != nil || !status.Met() || len(status.Signed) != 2 {
		t.Errorf("status %v, %v", status, err)
	}
	if raw, err = first.Bytes(); err != nil {
		t.Fatal(err)
	}
	if again, err := reconfigure.ReadRequest(raw); err != nil {
		t.Error(err)
	} else if status, err := n.Status(again); err != nil || !status.Met() {
		t.Errorf("signatures were lost: %v", err)
	}
	other := n.edited(t, func(r *commonpb.ConfigGroup) { delete(r.Groups["Application"].Groups, "Beta") })
	wantError(t, first.Merge(other), "of different updates")
}

func TestStaleAndForeignRequests(t *testing.T) {
	n := newNetwork(t, "")
	r := n.edited(t, func(r *commonpb.ConfigGroup) { delete(r.Groups["Application"].Groups, "Gamma") })
	if _, err := n.SignWhatIsNeeded(r, n.by("AB")...); err != nil {
		t.Fatal(err)
	}
	after := n.apply(t, r)
	if after.Sequence() != 1 {
		t.Errorf("sequence %d", after.Sequence())
	}
	_, err := after.Status(r)
	if !errors.Is(err, reconfigure.ErrStale) {
		t.Errorf("an update that has been applied: %v", err)
	}
	wantError(t, err, "in force is configuration 1 (block 7), for which the update was not made")
	update := proto.CloneOf(r.Update())
	update.ChannelId = "other"
	made, err := reconfigure.NewRequest(update)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := made.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := reconfigure.ReadRequest(raw)
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.Status(foreign)
	wantError(t, err, `the update is for channel "other", not for "trade"`)
	for _, raw := range [][]byte{nil, []byte("garbage"), raw[:len(raw)/2]} {
		if _, err := reconfigure.ReadRequest(raw); err == nil {
			t.Error("garbage was read as a request")
		}
	}
}

func TestNothingEdited(t *testing.T) {
	n := newNetwork(t, "")
	if _, err := n.Request(); err != reconfigure.ErrNoChange {
		t.Error(err)
	}
}

func FuzzReadRequest(f *testing.F) {
	n := newNetwork(f, "")
	r := n.edited(f, func(r *commonpb.ConfigGroup) { delete(r.Groups["Application"].Groups, "Gamma") })
	if err := r.Sign(n.admins["Alpha"]); err != nil {
		f.Fatal(err)
	}
	raw, err := r.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := reconfigure.ReadRequest(raw)
		if err != nil {
			return
		}
		_, _ = n.Status(r)
		if _, err := r.Bytes(); err != nil {
			t.Error(err)
		}
	})
}
