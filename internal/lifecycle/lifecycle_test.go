package lifecycle_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/lifecycle"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func packageOf(t testing.TB, label string) []byte {
	t.Helper()
	code, err := contractpackage.WriteCode(map[string][]byte{"connection.json": []byte(`{"address":"localhost:9999"}`)})
	must(t, err)
	raw, err := contractpackage.Write(contractpackage.Metadata{Type: "ccaas", Label: label}, code)
	must(t, err)
	return raw
}

func TestPackages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "contracts")
	p, err := lifecycle.OpenPackages(dir)
	must(t, err)
	one := packageOf(t, "one_1.0")
	pkg, err := p.Install(one, nil)
	must(t, err)
	if want := fmt.Sprintf("one_1.0:%x", sha256.Sum256(one)); pkg.ID != want || !p.Has(want) {
		t.Errorf("id %s, want %s", pkg.ID, want)
	}
	if _, err := p.Install(one, nil); err == nil || err.Error() != "chaincode already successfully installed (package ID '"+pkg.ID+"')" {
		t.Errorf("installed again: %v", err)
	}
	if _, err := p.Install([]byte("garbage"), nil); err == nil || !strings.HasPrefix(err.Error(), "could not parse as a chaincode install package: ") {
		t.Errorf("garbage: %v", err)
	}
	// What cannot be prepared is not kept, and may be installed later.
	two := packageOf(t, "two")
	if _, err := p.Install(two, func(*contractpackage.Package) error { return errors.New("no builder") }); err == nil || err.Error() != "could not build chaincode: no builder" {
		t.Errorf("unprepared: %v", err)
	}
	if len(p.List()) != 1 {
		t.Errorf("installed %v", p.List())
	}
	prepared := ""
	_, err = p.Install(two, func(x *contractpackage.Package) error { prepared = x.Label; return nil })
	must(t, err)
	if prepared != "two" {
		t.Errorf("prepared %q", prepared)
	}
	// A crash leaves a file that is not a package; other files are none of ours.
	must(t, os.WriteFile(filepath.Join(dir, ".ccpackage.123"), []byte("half"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "README"), nil, 0o600))
	again, err := lifecycle.OpenPackages(dir)
	must(t, err)
	if !slices.Equal(again.List(), p.List()) || len(again.List()) != 2 {
		t.Errorf("after a restart %v, before %v", again.List(), p.List())
	}
	raw, err := again.Load(pkg.ID)
	must(t, err)
	if !bytes.Equal(raw, one) {
		t.Error("the package has changed")
	}
	for _, id := range []string{"one_1.0", "x:y", "../contracts/one_1.0:00"} {
		if _, err := again.Load(id); err == nil || err.Error() != "chaincode install package '"+id+"' not found" {
			t.Errorf("%s: %v", id, err)
		}
	}
	if name := strings.Replace(pkg.ID, ":", ".", 1) + ".tar.gz"; !slices.ContainsFunc(files(t, dir), func(f string) bool { return f == name }) {
		t.Errorf("no file %s in %v", name, files(t, dir))
	}
}

func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestInstallAtOnce has many install the same package: one does.
func TestInstallAtOnce(t *testing.T) {
	p, err := lifecycle.OpenPackages(t.TempDir())
	must(t, err)
	raw := packageOf(t, "one")
	results := make(chan error, 8)
	for range cap(results) {
		go func() { _, err := p.Install(raw, nil); results <- err }()
	}
	good := 0
	for range cap(results) {
		if <-results == nil {
			good++
		}
	}
	if good != 1 {
		t.Errorf("%d installed it", good)
	}
}

// state is a state at one height, in memory: the catalog reads nothing else.
type state struct {
	height uint64
	values map[string][]byte // by namespace/key, or namespace/collection/hash of the key
}

func (s *state) Height() uint64 { return s.height }

func (s *state) Get(ns, key string) (*rwset.VersionedValue, error) {
	return s.at(ns + "/" + key), nil
}

func (s *state) GetHash(ns, coll string, hash []byte) (*rwset.VersionedValue, error) {
	return s.at(ns + "/" + coll + "/" + string(hash)), nil
}

func (s *state) at(key string) *rwset.VersionedValue {
	if v, ok := s.values[key]; ok {
		return &rwset.VersionedValue{Value: v}
	}
	return nil
}

// defined is a state in which a contract is defined, and approved by AlphaMSP for a package.
func defined(t testing.TB, height uint64, sequence int64, version, packageID string) *state {
	t.Helper()
	s := &state{height: height, values: map[string][]byte{}}
	marshal := func(m proto.Message) []byte {
		raw, err := proto.Marshal(m)
		must(t, err)
		return raw
	}
	data := func(m proto.Message) []byte {
		return marshal(&lifecyclepb.StateData{Type: &lifecyclepb.StateData_Bytes{Bytes: marshal(m)}})
	}
	fields := map[string][]byte{
		"EndorsementInfo": data(&lifecyclepb.ChaincodeEndorsementInfo{Version: version, EndorsementPlugin: "escc"}),
		"ValidationInfo":  data(&lifecyclepb.ChaincodeValidationInfo{ValidationPlugin: "vscc", ValidationParameter: []byte("policy")}),
		"Collections":     data(&peerpb.CollectionConfigPackage{}),
	}
	s.values["_lifecycle/namespaces/metadata/cc"] = marshal(&lifecyclepb.StateMetadata{Datatype: "ChaincodeDefinition", Fields: []string{"Sequence", "EndorsementInfo", "ValidationInfo", "Collections"}})
	s.values["_lifecycle/namespaces/fields/cc/Sequence"] = marshal(&lifecyclepb.StateData{Type: &lifecyclepb.StateData_Int64{Int64: sequence}})
	hashed := func(key string, value []byte) {
		sum := sha256.Sum256(value)
		s.values["_lifecycle/_implicit_org_AlphaMSP/"+string(rwset.KeyHash(key))] = sum[:]
	}
	private := fmt.Sprintf("cc#%d", sequence)
	for name, value := range fields {
		s.values["_lifecycle/namespaces/fields/cc/"+name] = value
		hashed("namespaces/fields/"+private+"/"+name, value)
	}
	hashed("namespaces/metadata/"+private, marshal(&lifecyclepb.StateMetadata{Datatype: "ChaincodeParameters", Fields: []string{"EndorsementInfo", "ValidationInfo", "Collections"}}))
	hashed("chaincode-sources/metadata/"+private, marshal(&lifecyclepb.StateMetadata{Datatype: "ChaincodeLocalPackage", Fields: []string{"PackageID"}}))
	hashed("chaincode-sources/fields/"+private+"/PackageID", marshal(&lifecyclepb.StateData{Type: &lifecyclepb.StateData_String_{String_: packageID}}))
	return s
}

// TestCatalog sees a definition change under readers of older states.
func TestCatalog(t *testing.T) {
	packages, err := lifecycle.OpenPackages(t.TempDir())
	must(t, err)
	pkg, err := packages.Install(packageOf(t, "cc_1"), nil)
	must(t, err)
	c := lifecycle.NewCatalog("AlphaMSP", packages, false)
	other := lifecycle.NewCatalog("BetaMSP", packages, false)
	first, second := defined(t, 5, 1, "1.0", pkg.ID), defined(t, 9, 2, "2.0", "later:00")
	withdrawn := defined(t, 12, 2, "2.0", "")

	look := func(c *lifecycle.Catalog, s *state) string {
		t.Helper()
		d, err := c.Lookup("ch", "cc", s)
		must(t, err)
		if d == nil {
			return "undefined"
		}
		return fmt.Sprintf("%s %t %s", d.Endorsement.Version, d.Approved, d.PackageID)
	}
	steps := []struct {
		what string
		c    *lifecycle.Catalog
		s    *state
		want string
	}{
		{"nothing", c, &state{height: 1}, "undefined"},
		{"first", c, first, "1.0 true " + pkg.ID},
		{"first for another member", other, first, "1.0 false "},
		{"second, before the catalog heard of it", c, second, "2.0 true "},
		{"first, for a long simulation", c, first, "1.0 true " + pkg.ID},
	}
	for _, s := range steps {
		if got := look(s.c, s.s); got != s.want {
			t.Errorf("%s: %q, want %q", s.what, got, s.want)
		}
	}
	c.Changed("ch", 9)
	if got := look(c, first); got != "1.0 true "+pkg.ID {
		t.Errorf("first after the change: %q", got)
	}
	if got := look(c, second); got != "2.0 true " {
		t.Errorf("second after the change: %q", got)
	}
	// Installed later: no block tells.
	late, err := packages.Install(packageOf(t, "later"), nil)
	must(t, err)
	third := defined(t, 11, 2, "2.0", late.ID)
	c.Changed("ch", 11)
	if got := look(c, third); got != "2.0 true "+late.ID {
		t.Errorf("approved for an installed package: %q", got)
	}
	// The same sequence, another package: the catalog must hear of it, and an old state must not bring the old one back.
	c.Changed("ch", 12)
	look(c, third)
	if got := look(c, withdrawn); got != "2.0 true " {
		t.Errorf("approved for no package: %q", got)
	}
	c.Forget("ch")
	if got := look(c, first); got != "1.0 true "+pkg.ID {
		t.Errorf("first after all was forgotten: %q", got)
	}
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for n := range 50 {
				s, want := first, "1.0"
				if (i+n)%2 == 0 {
					s, want = withdrawn, "2.0"
				}
				if d, err := c.Lookup("ch", "cc", s); err != nil || d.Endorsement.Version != want {
					t.Errorf("found %v, %v; want %s", d, err, want)
				}
				c.Changed("ch", 12)
			}
		}()
	}
	readers.Wait()
}

// TestBrokenState reads definitions that no peer has written.
func TestBrokenState(t *testing.T) {
	for key, value := range map[string][]byte{
		"namespaces/metadata/cc":               {0xff},
		"namespaces/fields/cc/Sequence":        {0xff},
		"namespaces/fields/cc/EndorsementInfo": {0x08, 1}, // a number
		"namespaces/fields/cc/ValidationInfo":  {0x12, 1, 0xff},
	} {
		s := defined(t, 5, 1, "1.0", "")
		s.values["_lifecycle/"+key] = value
		_, err := lifecycle.Read("cc", func(ns, key string) ([]byte, error) {
			v, err := s.Get(ns, key)
			if v == nil {
				return nil, err
			}
			return v.Value, nil
		})
		if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(key, "namespaces/metadata")) && !strings.Contains(err.Error(), "namespaces/cc") {
			t.Errorf("%s: error %v does not say where", key, err)
		}
	}
}

// FuzzRead reads definitions from states of any content.
func FuzzRead(f *testing.F) {
	good := defined(f, 5, 1, "1.0", "")
	f.Add(good.values["_lifecycle/namespaces/metadata/cc"], good.values["_lifecycle/namespaces/fields/cc/Sequence"], good.values["_lifecycle/namespaces/fields/cc/EndorsementInfo"])
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, metadata, sequence, rest []byte) {
		d, err := lifecycle.Read("cc", func(ns, key string) ([]byte, error) {
			switch {
			case strings.Contains(key, "metadata"):
				return metadata, nil
			case strings.HasSuffix(key, "Sequence"):
				return sequence, nil
			}
			return rest, nil
		})
		if err == nil && d != nil && (d.Endorsement == nil || d.Validation == nil || d.Collections == nil) {
			t.Fatal("a part is missing")
		}
	})
}

// TestPolicies compares the policies of the system contract and of implicit collections with what the channel says.
func TestPolicies(t *testing.T) {
	raw, err := os.ReadFile("../../testdata/vectors/genesis.block")
	must(t, err)
	b := &commonpb.Block{}
	must(t, proto.Unmarshal(raw, b))
	env, id, err := block.ConfigEnvelope(b)
	must(t, err)
	bundle := func(change func(*commonpb.Config)) *channel.Bundle {
		config := proto.Clone(env.Config).(*commonpb.Config)
		change(config)
		bundle, err := channel.NewBundle(id, config, identity.NewVerifier(identity.Config{}))
		must(t, err)
		return bundle
	}
	parse := func(raw []byte, err error) *peerpb.ApplicationPolicy {
		must(t, err)
		p := &peerpb.ApplicationPolicy{}
		must(t, proto.Unmarshal(raw, p))
		return p
	}
	as := bundle(func(*commonpb.Config) {})
	if p := parse(lifecycle.EndorsementPolicy(as)); p.GetChannelConfigPolicyReference() != "/Channel/Application/LifecycleEndorsement" {
		t.Errorf("lifecycle: %v", p)
	}
	if p := parse(lifecycle.ImplicitPolicy(as, "AlphaMSP")); p.GetChannelConfigPolicyReference() != "/Channel/Application/Alpha/Endorsement" {
		t.Errorf("implicit collection: %v", p)
	}
	if _, err := lifecycle.ImplicitPolicy(as, "NoMSP"); err == nil || err.Error() != "no org found in channel with MSPID 'NoMSP'" {
		t.Errorf("implicit collection of nobody: %v", err)
	}
	without := bundle(func(c *commonpb.Config) {
		application := c.ChannelGroup.Groups["Application"]
		delete(application.Policies, "LifecycleEndorsement")
		delete(application.Groups["Alpha"].Policies, "Endorsement")
	})
	if p := parse(lifecycle.EndorsementPolicy(without)).GetSignaturePolicy(); p.GetRule().GetNOutOf().GetN() != 2 || len(p.Identities) != 2 {
		t.Errorf("lifecycle without a policy: %v", p)
	}
	if p := parse(lifecycle.ImplicitPolicy(without, "AlphaMSP")).GetSignaturePolicy(); p.GetRule().GetNOutOf().GetN() != 1 || len(p.Identities) != 1 {
		t.Errorf("implicit collection without a policy: %v", p)
	}
}
