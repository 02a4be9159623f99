package endorse_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/endorse"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

func result[M any, P interface {
	*M
	proto.Message
}](t testing.TB, res *peerpb.ProposalResponse) P {
	t.Helper()
	if res.Response.Status != 200 {
		t.Fatalf("status %d: %s", res.Response.Status, res.Response.Message)
	}
	m := P(new(M))
	must(t, proto.Unmarshal(res.Response.Payload, m))
	return m
}

// TestFromInstallToInvoke takes a new contract the whole way.
func TestFromInstallToInvoke(t *testing.T) {
	w := newWorld(t)
	w.to(50)
	w.contract = (&golden{}).execute
	alpha, beta := w.peers["AlphaMSP"], w.peers["BetaMSP"]

	code, err := contractpackage.WriteCode(map[string][]byte{"connection.json": []byte(`{"address":"localhost:9999"}`)})
	must(t, err)
	raw, err := contractpackage.Write(contractpackage.Metadata{Type: "ccaas", Label: "fresh_1"}, code)
	must(t, err)
	id := contractpackage.ID("fresh_1", raw)
	for _, p := range []*peer{alpha, beta} {
		installed := result[lifecyclepb.InstallChaincodeResult](t, w.lifecycle(p, p.admin, "", "InstallChaincode", marshal(t, &lifecyclepb.InstallChaincodeArgs{ChaincodeInstallPackage: raw})))
		if installed.PackageId != id || installed.Label != "fresh_1" {
			t.Fatalf("installed %v", installed)
		}
	}
	again := w.lifecycle(alpha, alpha.admin, "", "InstallChaincode", marshal(t, &lifecyclepb.InstallChaincodeArgs{ChaincodeInstallPackage: raw}))
	if want := "failed to invoke backing implementation of 'InstallChaincode': chaincode already successfully installed (package ID '" + id + "')"; again.Response.Message != want {
		t.Errorf("installed again: %s", again.Response.Message)
	}
	got := result[lifecyclepb.GetInstalledChaincodePackageResult](t, w.lifecycle(alpha, alpha.admin, "", "GetInstalledChaincodePackage", marshal(t, &lifecyclepb.GetInstalledChaincodePackageArgs{PackageId: id})))
	if !bytes.Equal(got.ChaincodeInstallPackage, raw) {
		t.Error("the installed package differs")
	}

	readiness := func(version string) *lifecyclepb.CheckCommitReadinessResult {
		res := w.lifecycle(alpha, alpha.client, channelID, "CheckCommitReadiness", marshal(t, &lifecyclepb.CheckCommitReadinessArgs{Name: "fresh", Version: version, Sequence: 1, InitRequired: true}))
		return result[lifecyclepb.CheckCommitReadinessResult](t, res)
	}
	approve := func(p *peer, source string) {
		_, tx := w.endorsed(p, p.admin, call(t, "ApproveChaincodeDefinitionForMyOrg", &lifecyclepb.ApproveChaincodeDefinitionForMyOrgArgs{
			Name: "fresh", Version: "1", Sequence: 1, InitRequired: true,
			Source: &lifecyclepb.ChaincodeSource{Type: &lifecyclepb.ChaincodeSource_LocalPackage{LocalPackage: &lifecyclepb.ChaincodeSource_Local{PackageId: source}}},
		}))
		w.order(tx)
	}
	approve(alpha, id)
	if r := readiness("1"); !r.Approvals["AlphaMSP"] || r.Approvals["BetaMSP"] || !slices.Equal(r.Mismatches["BetaMSP"].Items, []string{"ChaincodeParameters"}) {
		t.Errorf("readiness after one approval: %v", r)
	}
	if r := readiness("2"); r.Approvals["AlphaMSP"] || !slices.Equal(r.Mismatches["AlphaMSP"].Items, []string{"EndorsementInfo"}) {
		t.Errorf("readiness of another version: %v", r)
	}
	approve(beta, id)
	unchanged := w.lifecycle(alpha, alpha.admin, channelID, "ApproveChaincodeDefinitionForMyOrg", marshal(t, &lifecyclepb.ApproveChaincodeDefinitionForMyOrgArgs{
		Name: "fresh", Version: "1", Sequence: 1, InitRequired: true,
		Source: &lifecyclepb.ChaincodeSource{Type: &lifecyclepb.ChaincodeSource_LocalPackage{LocalPackage: &lifecyclepb.ChaincodeSource_Local{PackageId: id}}},
	}))
	if !strings.HasSuffix(unchanged.Response.Message, "attempted to redefine uncommitted sequence (1) for namespace fresh with unchanged content") {
		t.Errorf("approved again: %s", unchanged.Response.Message)
	}
	approved := result[lifecyclepb.QueryApprovedChaincodeDefinitionResult](t, w.lifecycle(alpha, alpha.admin, channelID, "QueryApprovedChaincodeDefinition", marshal(t, &lifecyclepb.QueryApprovedChaincodeDefinitionArgs{Name: "fresh"})))
	if approved.Sequence != 1 || approved.Source.GetLocalPackage().GetPackageId() != id || approved.EndorsementPlugin != "escc" || approved.ValidationPlugin != "vscc" || len(approved.ValidationParameter) == 0 {
		t.Errorf("approved %v", approved)
	}
	all := result[lifecyclepb.QueryApprovedChaincodeDefinitionsResult](t, w.lifecycle(alpha, alpha.admin, channelID, "QueryApprovedChaincodeDefinitions", nil))
	if !slices.ContainsFunc(all.ApprovedChaincodeDefinitions, func(d *lifecyclepb.QueryApprovedChaincodeDefinitionsResult_ApprovedChaincodeDefinition) bool {
		return d.Name == "fresh" && d.Sequence == 1
	}) {
		t.Errorf("approvals %v", all)
	}
	missing := w.lifecycle(alpha, alpha.client, channelID, "QueryChaincodeDefinition", marshal(t, &lifecyclepb.QueryChaincodeDefinitionArgs{Name: "fresh"}))
	if missing.Response.Status != 404 || missing.Response.Message != "namespace fresh is not defined" || missing.Payload != nil || missing.Endorsement != nil {
		t.Errorf("query before the commit: %v", missing)
	}

	_, tx := w.endorsed(alpha, alpha.client, call(t, "CommitChaincodeDefinition", &lifecyclepb.CommitChaincodeDefinitionArgs{Name: "fresh", Version: "1", Sequence: 1, InitRequired: true}), beta)
	w.order(tx)
	defined := result[lifecyclepb.QueryChaincodeDefinitionResult](t, w.lifecycle(beta, beta.client, channelID, "QueryChaincodeDefinition", marshal(t, &lifecyclepb.QueryChaincodeDefinitionArgs{Name: "fresh"})))
	if defined.Sequence != 1 || defined.Version != "1" || !defined.InitRequired || !defined.Approvals["AlphaMSP"] || !defined.Approvals["BetaMSP"] || defined.Collections == nil {
		t.Errorf("defined %v", defined)
	}
	list := result[lifecyclepb.QueryChaincodeDefinitionsResult](t, w.lifecycle(beta, beta.client, channelID, "QueryChaincodeDefinitions", nil))
	var names []string
	for _, d := range list.ChaincodeDefinitions {
		names = append(names, d.Name)
	}
	if want := []string{"andcc", "basic", "fresh", "nested", "nodef", "orcc", "outcc", "refcc"}; !slices.Equal(names, want) {
		t.Errorf("defined are %v, want %v", names, want)
	}

	first := run("fresh", ops(t, []string{"put", "a", "1"}))
	first.IsInit = true
	_, tx = w.endorsed(alpha, alpha.client, first, beta)
	w.order(tx)
	_, tx = w.endorsed(alpha, alpha.client, run("fresh", ops(t, []string{"get", "a"}, []string{"put", "b", "2"})), beta)
	w.order(tx)
	v, err := w.now.Get("fresh", "b")
	must(t, err)
	if v == nil || string(v.Value) != "2" {
		t.Errorf("b is %v", v)
	}

	// Another package for the same sequence takes effect with its block.
	approve(alpha, "")
	res, err := w.propose(alpha, alpha.client, run("fresh", ops(t, []string{"nop"})))
	must(t, err)
	if want := "chaincode definition for 'fresh' exists, but chaincode is not installed"; !strings.HasSuffix(res.Response.Message, want) {
		t.Errorf("without a package: %v", res.Response)
	}
	approve(alpha, id)
	res, err = w.propose(alpha, alpha.client, run("fresh", ops(t, []string{"nop"})))
	must(t, err)
	if res.Response.Status != 200 {
		t.Errorf("with the package again: %v", res.Response)
	}
}

// TestAnswers checks the form of answers.
func TestAnswers(t *testing.T) {
	w := newWorld(t)
	w.to(36)
	p := w.peers["AlphaMSP"]
	w.install(p)
	answer := func(status int32, err error) *peerpb.ProposalResponse {
		w.contract = func(_ context.Context, in *endorse.Invocation) (*peerpb.Response, *peerpb.ChaincodeEvent, error) {
			must(t, in.Backend.Put("", "k", []byte("v")))
			return &peerpb.Response{Status: status, Message: "m", Payload: []byte("p")}, &peerpb.ChaincodeEvent{EventName: "e"}, err
		}
		res, err := w.propose(p, p.client, run("orcc", [][]byte{[]byte("f")}))
		must(t, err)
		return res
	}
	for _, status := range []int32{0, 200, 399} {
		res := answer(status, nil)
		if res.Version != 1 || res.Payload == nil || res.Interest == nil || res.Endorsement == nil || res.Response.Status != status {
			t.Fatalf("status %d: %v", status, res)
		}
		message := append(slices.Clone(res.Payload), res.Endorsement.Endorser...)
		id, err := w.now.bundle.MSPs().Deserialize(res.Endorsement.Endorser)
		must(t, err)
		must(t, id.Verify(message, res.Endorsement.Signature))
	}
	if res := answer(400, nil); res.Response.Status != 400 || res.Payload != nil || res.Interest != nil || res.Endorsement != nil {
		t.Errorf("status 400: %v", res)
	}
	res := answer(500, nil)
	if res.Payload == nil || res.Interest == nil || res.Endorsement != nil || res.Version != 0 {
		t.Errorf("status 500: %v", res)
	}
	payload, action := &peerpb.ProposalResponsePayload{}, &peerpb.ChaincodeAction{}
	must(t, proto.Unmarshal(res.Payload, payload))
	must(t, proto.Unmarshal(payload.Extension, action))
	if len(action.Events) != 0 {
		t.Error("the event of a refusal is kept")
	}
	res = answer(200, errors.New("failed to execute transaction x: error sending: timeout expired while executing transaction"))
	if res.Response.Status != 500 || res.Response.Message != "error in simulation: failed to execute transaction x: error sending: timeout expired while executing transaction" || res.Payload != nil {
		t.Errorf("no answer: %v", res)
	}
	local := w.lifecycle(p, p.admin, "", "QueryInstalledChaincodes", nil)
	if local.Payload != nil || local.Endorsement != nil || local.Interest != nil || local.Response.Status != 200 {
		t.Errorf("without channel: %v", local)
	}
}

// TestPrivateData checks what is kept of private data.
func TestPrivateData(t *testing.T) {
	w := newWorld(t)
	w.contract = (&golden{}).execute
	w.to(54)
	p := w.peers["AlphaMSP"]
	w.install(p)
	res, err := w.propose(p, p.client, run("pvt", ops(t, []string{"pput", "collA", "a", "1"}, []string{"pput", "_implicit_org_AlphaMSP", "b", "2"})))
	must(t, err)
	if res.Response.Status != 200 || len(p.kept) != 1 {
		t.Fatalf("answer %v, kept %d", res.Response, len(p.kept))
	}
	kept := p.kept[0]
	if kept.ChannelID != channelID || kept.EndorsedAt != 54 || len(kept.Set.NsPvtRwset) != 1 || len(kept.Set.NsPvtRwset[0].CollectionPvtRwset) != 2 {
		t.Errorf("kept %v", kept)
	}
	var names []string
	for _, c := range kept.Collections["pvt"].GetConfig() {
		names = append(names, c.GetStaticCollectionConfig().Name)
	}
	if !slices.Equal(names, []string{"_implicit_org_AlphaMSP", "collA"}) {
		t.Errorf("collections %v", names)
	}
	// A peer that cannot keep the data does not endorse.
	w.limit = func(c *endorse.Config) { c.Distributor = unreachable{} }
	p = w.newPeer("AlphaMSP", w.orgs["AlphaMSP"])
	w.install(p)
	res, err = w.propose(p, p.client, run("pvt", ops(t, []string{"pput", "collA", "a", "1"})))
	must(t, err)
	if res.Response.Message != "error in simulation: nobody there" || res.Endorsement != nil || len(p.kept) != 0 {
		t.Errorf("answer %v, kept %d", res, len(p.kept))
	}
}

type unreachable struct{}

func (unreachable) Distribute(context.Context, *endorse.PrivateData) error {
	return errors.New("nobody there")
}

// TestInterest checks what clients learn about the endorsements that they need.
func TestInterest(t *testing.T) {
	w := newWorld(t)
	w.contract = (&golden{}).execute
	w.to(60) // keys with policies: basic.sb1 (Alpha's), pvt/collAB.pk20 (Alpha's)
	p := w.peers["AlphaMSP"]
	w.install(p)
	policyOf := func(ns, coll, key string) *commonpb.SignaturePolicyEnvelope {
		raw, err := w.now.Metadata(ns, key)
		if coll != "" {
			raw, err = w.now.HashMetadata(ns, coll, sha([]byte(key)))
		}
		must(t, err)
		env := &commonpb.SignaturePolicyEnvelope{}
		metadata, err := rwset.DecodeMetadata(raw)
		must(t, err)
		must(t, proto.Unmarshal(metadata["VALIDATION_PARAMETER"], env))
		return env
	}
	sb1, pk20 := policyOf("basic", "", "sb1"), policyOf("pvt", "collAB", "pk20")
	cases := []struct {
		what, contract string
		ops            [][]string
		want           []*peerpb.ChaincodeCall
	}{
		{"nothing", "basic", [][]string{{"nop"}}, nil},
		{"read", "basic", [][]string{{"get", "acc1"}}, []*peerpb.ChaincodeCall{{Name: "basic"}}},
		{"write", "basic", [][]string{{"put", "acc1", "1"}}, []*peerpb.ChaincodeCall{{Name: "basic"}}},
		{"range", "basic", [][]string{{"range", "a", "b", "", "x"}}, []*peerpb.ChaincodeCall{{Name: "basic"}}},
		{"write of a key with a policy", "basic", [][]string{{"put", "sb1", "1"}}, []*peerpb.ChaincodeCall{{Name: "basic", KeyPolicies: []*commonpb.SignaturePolicyEnvelope{sb1}, DisregardNamespacePolicy: true}}},
		{"writes with and without", "basic", [][]string{{"put", "sb1", "1"}, {"put", "acc1", "1"}}, []*peerpb.ChaincodeCall{{Name: "basic", KeyPolicies: []*commonpb.SignaturePolicyEnvelope{sb1}}}},
		{"call", "basic", [][]string{{"put", "acc1", "1"}, {"call", "orcc", "", `[["put","x","1"]]`}}, []*peerpb.ChaincodeCall{{Name: "basic"}, {Name: "orcc"}}},
		{"call of a reader", "basic", [][]string{{"call", "orcc", "", `[["get","x"]]`}}, []*peerpb.ChaincodeCall{{Name: "orcc"}}},
		{"private write", "pvt", [][]string{{"pput", "collAB", "z", "1"}}, []*peerpb.ChaincodeCall{{Name: "pvt", CollectionNames: []string{"collAB"}, NoPrivateReads: true}}},
		{"private read", "pvt", [][]string{{"pget", "collAB", "nokey"}}, []*peerpb.ChaincodeCall{{Name: "pvt"}, {Name: "pvt", CollectionNames: []string{"collAB"}}}},
		{"hash read", "pvt", [][]string{{"phash", "collAB", "pk1"}}, []*peerpb.ChaincodeCall{{Name: "pvt"}}},
		{"private write of a key with a policy", "pvt", [][]string{{"pput", "collAB", "pk20", "1"}}, []*peerpb.ChaincodeCall{{Name: "pvt", KeyPolicies: []*commonpb.SignaturePolicyEnvelope{pk20}, DisregardNamespacePolicy: true}}},
		{"public and private", "pvt", [][]string{{"put", "a", "1"}, {"pput", "collAB", "z", "1"}, {"pput", "collBTL", "z", "1"}}, []*peerpb.ChaincodeCall{
			{Name: "pvt"}, {Name: "pvt", CollectionNames: []string{"collAB"}, NoPrivateReads: true}, {Name: "pvt", CollectionNames: []string{"collBTL"}, NoPrivateReads: true}}},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			res, err := w.propose(p, p.client, run(c.contract, ops(t, c.ops...)))
			must(t, err)
			if res.Response.Status != 200 {
				t.Fatal(res.Response.Message)
			}
			if want := (&peerpb.ChaincodeInterest{Chaincodes: c.want}); !proto.Equal(res.Interest, want) {
				t.Errorf("interest %s\nwant %s", prototext.Format(res.Interest), prototext.Format(want))
			}
		})
	}
}

// TestMisuse calls the system contract in every wrong way.
func TestMisuse(t *testing.T) {
	w := newWorld(t)
	w.to(60)
	p := w.peers["AlphaMSP"]
	w.install(p)
	member := func(text string) *peerpb.CollectionPolicyConfig {
		env, err := policy.Parse(text)
		must(t, err)
		return &peerpb.CollectionPolicyConfig{Payload: &peerpb.CollectionPolicyConfig_SignaturePolicy{SignaturePolicy: env}}
	}
	collection := func(c *peerpb.StaticCollectionConfig) *peerpb.CollectionConfigPackage {
		return &peerpb.CollectionConfigPackage{Config: []*peerpb.CollectionConfig{{Payload: &peerpb.CollectionConfig_StaticCollectionConfig{StaticCollectionConfig: c}}}}
	}
	type args = lifecyclepb.ApproveChaincodeDefinitionForMyOrgArgs
	approve := func(a *args) envelope.ProposalArgs {
		if a.Name == "" {
			a.Name = "new"
		}
		if a.Version == "" {
			a.Version = "1"
		}
		if a.Sequence == 0 {
			a.Sequence = 1
		}
		return call(t, "ApproveChaincodeDefinitionForMyOrg", a)
	}
	local := func(a envelope.ProposalArgs) envelope.ProposalArgs { a.ChannelID = ""; return a }
	alphaOnly := member("OR('AlphaMSP.member')")
	prefix := map[string]string{
		"a": "failed to invoke backing implementation of 'ApproveChaincodeDefinitionForMyOrg': ",
		"v": "failed to invoke backing implementation of 'ApproveChaincodeDefinitionForMyOrg': error validating chaincode definition: ",
		"c": "Failed to authorize invocation due to failed ACL check: ",
	}
	cases := []struct {
		what   string
		client bool
		args   envelope.ProposalArgs
		want   string // the start of the answer; a one-letter key of prefix before a colon
	}{
		{"no arguments", false, run("_lifecycle", nil), "lifecycle scc must be invoked with arguments"},
		{"one argument", false, run("_lifecycle", [][]byte{[]byte("x")}), "lifecycle scc operations require exactly two arguments but received 1"},
		{"unknown function", false, run("_lifecycle", [][]byte{[]byte("Nonsense"), nil}), "c:Unmapped policy for _lifecycle/Nonsense"},
		{"argument garbage", false, run("_lifecycle", [][]byte{[]byte("QueryApprovedChaincodeDefinition"), {1}}), "failed to invoke backing implementation of 'QueryApprovedChaincodeDefinition': could not decode input arg for *lifecycle.Invocation.QueryApprovedChaincodeDefinition: "},
		{"install by a client", true, local(call(t, "InstallChaincode", &lifecyclepb.InstallChaincodeArgs{})), "c:Failed verifying that proposal's creator satisfies local MSP principal during channelless check policy with policy [Admins]: [The identity is not an admin under this MSP [AlphaMSP]: "},
		{"approve by a client", true, approve(&args{}), "c:Failed verifying that proposal's creator satisfies local MSP principal during channelless check policy with policy [Admins]: ["},
		{"install garbage", false, local(call(t, "InstallChaincode", &lifecyclepb.InstallChaincodeArgs{ChaincodeInstallPackage: []byte("garbage")})), "failed to invoke backing implementation of 'InstallChaincode': could not parse as a chaincode install package: "},
		{"get a package that is not there", false, local(call(t, "GetInstalledChaincodePackage", &lifecyclepb.GetInstalledChaincodePackageArgs{PackageId: "a:b"})), "failed to invoke backing implementation of 'GetInstalledChaincodePackage': could not load cc install package: chaincode install package 'a:b' not found"},
		{"get a package outside", false, local(call(t, "GetInstalledChaincodePackage", &lifecyclepb.GetInstalledChaincodePackageArgs{PackageId: "../../x"})), "failed to invoke backing implementation of 'GetInstalledChaincodePackage': could not load cc install package: chaincode install package '../../x' not found"},
		{"query a package that is not there", false, local(call(t, "QueryInstalledChaincode", &lifecyclepb.QueryInstalledChaincodeArgs{PackageId: "a:b"})), "failed to invoke backing implementation of 'QueryInstalledChaincode': could not find chaincode with package id 'a:b'"},
		{"name", false, approve(&args{Name: "_bad"}), "v:invalid chaincode name '_bad'. Names can only consist of alphanumerics, '_', and '-' and can only begin with alphanumerics"},
		{"system name", false, approve(&args{Name: "qscc"}), "v:chaincode name 'qscc' is the name of a system chaincode"},
		{"version", false, approve(&args{Version: "1 0"}), "v:invalid chaincode version '1 0'. Versions can only consist of alphanumerics, '_', '-', '+', and '.'"},
		{"empty collection", false, approve(&args{Collections: &peerpb.CollectionConfigPackage{Config: []*peerpb.CollectionConfig{{}}}}), "v:collection config contains unexpected payload type: <nil>"},
		{"collection name", false, approve(&args{Collections: collection(&peerpb.StaticCollectionConfig{Name: "_x"})}), "v:invalid collection name '_x'. Names can only consist of alphanumerics, '_', and '-' and cannot begin with '_'"},
		{"peer counts", false, approve(&args{Collections: collection(&peerpb.StaticCollectionConfig{Name: "x", RequiredPeerCount: 2, MaximumPeerCount: 1})}), "v:collection-name: x -- maximum peer count (1) cannot be less than the required peer count (2)"},
		{"negative count", false, approve(&args{Collections: collection(&peerpb.StaticCollectionConfig{Name: "x", RequiredPeerCount: -1})}), "v:collection-name: x -- requiredPeerCount (-1) cannot be less than zero"},
		{"no member policy", false, approve(&args{Collections: collection(&peerpb.StaticCollectionConfig{Name: "x"})}), "v:collection member policy is not set for collection 'x'"},
		{"empty member policy", false, approve(&args{Collections: collection(&peerpb.StaticCollectionConfig{Name: "x", MemberOrgsPolicy: &peerpb.CollectionPolicyConfig{}})}), "v:collection member org policy is empty for collection 'x'"},
		{"AND of members", false, approve(&args{Collections: collection(&peerpb.StaticCollectionConfig{Name: "x", MemberOrgsPolicy: member("AND('AlphaMSP.member','BetaMSP.member')")})}), "v:collection-name: x -- error in member org policy: signature policy is not an OR concatenation, NOutOf 2"},
		{"unknown member", false, approve(&args{Collections: collection(&peerpb.StaticCollectionConfig{Name: "x", MemberOrgsPolicy: member("OR('NoMSP.member')")})}), "v:collection-name: x -- collection member 'NoMSP' is not part of the channel"},
		{"collections dropped", false, approve(&args{Name: "pvt", Sequence: 2}), "v:the proposed collection config does not contain previously defined collections"},
		{"approve without channel", false, local(approve(&args{})), "v:could not get channelconfig for channel ''"},
		{"sequence too high", false, approve(&args{Sequence: 3}), "a:requested sequence 3 is larger than the next available sequence number 1"},
		{"negative sequence", false, approve(&args{Sequence: -1}), "a:currently defined sequence 0 is larger than requested sequence -1"},
		{"sequence 0", false, call(t, "ApproveChaincodeDefinitionForMyOrg", &args{Name: "new", Version: "1"}), "a:requested sequence is 0, but first definable sequence number is 1"},
		{"past sequence", false, call(t, "ApproveChaincodeDefinitionForMyOrg", &args{Name: "basic", Version: "1"}), "a:currently defined sequence 1 is larger than requested sequence 0"},
		{"committed with another version", false, approve(&args{Name: "basic", Version: "9"}), "a:attempted to redefine the current committed sequence (1) for namespace basic with different parameters: expected Version '1.0' does not match passed Version '9'"},
		{"committed with collections", false, approve(&args{Name: "basic", Version: "1.0", Collections: collection(&peerpb.StaticCollectionConfig{Name: "x", MemberOrgsPolicy: alphaOnly})}), "a:attempted to redefine the current committed sequence (1) for namespace basic with different parameters: Collections do not match"},
		{"readiness of a past sequence", true, call(t, "CheckCommitReadiness", &lifecyclepb.CheckCommitReadinessArgs{Name: "basic", Version: "1", Sequence: 1}), "failed to invoke backing implementation of 'CheckCommitReadiness': requested sequence is 1, but new definition must be sequence 2"},
		{"readiness without channel", false, local(call(t, "CheckCommitReadiness", &lifecyclepb.CheckCommitReadinessArgs{})), "c:Failed getting local MSP principal during channelless check policy with policy [/Channel/Application/Writers]: [MSP Principal role [/Channel/Application/Writers] not recognized]"},
		{"nothing approved", false, call(t, "QueryApprovedChaincodeDefinition", &lifecyclepb.QueryApprovedChaincodeDefinitionArgs{Name: "new"}), "failed to invoke backing implementation of 'QueryApprovedChaincodeDefinition': could not fetch approved chaincode definition (name: 'new', sequence: '0') on channel 'devledger'"},
		{"approvals without channel", false, local(call(t, "QueryApprovedChaincodeDefinitions", &lifecyclepb.QueryApprovedChaincodeDefinitionsArgs{})), "failed to invoke backing implementation of 'QueryApprovedChaincodeDefinitions': could not fetch metadatas: could not get state range for namespace namespaces: could not get state iterator: GET_STATE_BY_RANGE failed: transaction ID: "},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			by := p.admin
			if c.client {
				by = p.client
			}
			res, err := w.propose(p, by, c.args)
			must(t, err)
			want := c.want
			if len(want) > 1 && want[1] == ':' {
				want = prefix[want[:1]] + want[2:]
			}
			if res.Response.Status != 500 || !strings.HasPrefix(res.Response.Message, want) {
				t.Errorf("answer %d %s\nwant 500 %s", res.Response.Status, res.Response.Message, want)
			}
		})
	}
}

// FuzzProcessProposal changes bytes of good proposals: the peer must answer, and endorse nothing that is not signed.
func FuzzProcessProposal(f *testing.F) {
	w := newWorld(f)
	w.contract = (&golden{}).execute
	w.to(36)
	p := w.peers["AlphaMSP"]
	w.install(p)
	var seeds []*peerpb.SignedProposal
	for _, args := range []envelope.ProposalArgs{
		run("basic", ops(f, []string{"put", "a", "1"})),
		call(f, "QueryChaincodeDefinition", &lifecyclepb.QueryChaincodeDefinitionArgs{Name: "basic"}),
	} {
		args.Type = commonpb.HeaderType_ENDORSER_TRANSACTION
		_, signed, err := envelope.NewProposal(p.admin, args)
		must(f, err)
		seeds = append(seeds, signed)
		f.Add(signed.ProposalBytes, signed.Signature)
		f.Add(signed.ProposalBytes[:len(signed.ProposalBytes)/2], signed.Signature)
	}
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, raw, signature []byte) {
		res, err := p.ProcessProposal(context.Background(), &peerpb.SignedProposal{ProposalBytes: raw, Signature: signature})
		if res.GetResponse() == nil && err == nil {
			t.Fatal("no answer")
		}
		if res.GetEndorsement() != nil && !slices.ContainsFunc(seeds, func(s *peerpb.SignedProposal) bool { return bytes.Equal(s.ProposalBytes, raw) }) {
			t.Fatalf("endorsed %x", raw)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	if _, err := endorse.New(endorse.Config{}); err == nil {
		t.Error("an empty Config is taken")
	}
}

// BenchmarkProcessProposal endorses a transaction of one write: a signature to verify and one to make.
func BenchmarkProcessProposal(b *testing.B) {
	w := newWorld(b)
	w.contract = (&golden{}).execute
	w.to(36)
	p := w.peers["AlphaMSP"]
	w.install(p)
	args := run("basic", ops(b, []string{"put", "a", "1"}))
	args.Type = commonpb.HeaderType_ENDORSER_TRANSACTION
	for b.Loop() {
		b.StopTimer()
		_, signed, err := envelope.NewProposal(p.client, args)
		must(b, err)
		b.StartTimer()
		if res, err := p.ProcessProposal(context.Background(), signed); err != nil || res.Endorsement == nil {
			b.Fatal(res, err)
		}
	}
}
