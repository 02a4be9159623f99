package lifecycle

import (
	"fmt"
	"sort"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Policies of the channel that stand in where a definition names none.
const (
	DefaultPolicy   = "/Channel/Application/Endorsement"
	LifecyclePolicy = "/Channel/Application/LifecycleEndorsement"
)

// Definition is a contract's committed definition. Sequences of a contract start at 1 and rise by one with each
// commit, so a name and a sequence determine the rest for ever.
type Definition struct {
	Name     string
	Sequence int64
	Parameters
}

// Reader reads a key of the public state; nil if it is missing.
type Reader func(namespace, key string) ([]byte, error)

func (r Reader) lifecycle() readState {
	return func(key string) ([]byte, error) { return r(Namespace, key) }
}

// Read reads a contract's committed definition; nil if it has none. The system contract's own definition is not in
// the state: it is empty, with the sequence 0.
func Read(name string, read Reader) (*Definition, error) {
	if name == Namespace {
		return &Definition{Name: name, Parameters: Parameters{&lifecyclepb.ChaincodeEndorsementInfo{}, &lifecyclepb.ChaincodeValidationInfo{}, &peerpb.CollectionConfigPackage{}}}, nil
	}
	get := read.lifecycle()
	metadata, ok, err := readMetadata(sectionNamespaces, name, get)
	if err != nil {
		return nil, fmt.Errorf("could not deserialize metadata for chaincode %s: %w", name, err)
	}
	if !ok {
		return nil, nil
	}
	if metadata.Datatype != typeDefinition {
		return nil, fmt.Errorf("not a chaincode type: %s", metadata.Datatype)
	}
	d, err := readDefinition(name, get)
	if err != nil {
		return nil, fmt.Errorf("could not deserialize chaincode definition for chaincode %s: %w", name, err)
	}
	return d, nil
}

func readDefinition(name string, get readState) (*Definition, error) {
	sequence, err := readSequence(name, get)
	if err != nil {
		return nil, err
	}
	p, err := readParameters(name, get)
	if err != nil {
		return nil, err
	}
	return &Definition{Name: name, Sequence: sequence, Parameters: p}, nil
}

func (d *Definition) record() (*record, error) {
	r := &record{kind: typeDefinition}
	if err := r.add(fieldSequence, &lifecyclepb.StateData{Type: &lifecyclepb.StateData_Int64{Int64: d.Sequence}}); err != nil {
		return nil, err
	}
	return r, d.addTo(r)
}

// Collection gives the configuration of a collection that the definition names; nil if it names none such.
func (d *Definition) Collection(name string) *peerpb.StaticCollectionConfig {
	for _, c := range d.Collections.GetConfig() {
		if static := c.GetStaticCollectionConfig(); static != nil && static.Name == name {
			return static
		}
	}
	return nil
}

// policyReference is an application policy that refers to one of the channel's. These are constant bytes.
func policyReference(name string) ([]byte, error) {
	return proto.Marshal(&peerpb.ApplicationPolicy{Type: &peerpb.ApplicationPolicy_ChannelConfigPolicyReference{ChannelConfigPolicyReference: name}})
}

// EndorsementPolicy gives the application policy that transactions of the system contract must satisfy: the
// channel's LifecycleEndorsement or, in channels without it, a majority of members.
func EndorsementPolicy(b *channel.Bundle) ([]byte, error) {
	if _, ok := b.Policy(LifecyclePolicy); ok {
		return policyReference(LifecyclePolicy)
	}
	var orgs []string
	for _, org := range b.ApplicationOrgs() {
		orgs = append(orgs, org.MSPID)
	}
	return members(int32(len(orgs)/2+1), orgs)
}

// ImplicitPolicy gives the application policy that writes to an organisation's implicit collection must satisfy:
// the organisation's Endorsement or, in channels without it, any of its members. An organisation that is not in
// the channel is an error.
func ImplicitPolicy(b *channel.Bundle, mspID string) ([]byte, error) {
	for _, org := range b.ApplicationOrgs() {
		if org.MSPID != mspID {
			continue
		}
		reference := "/Channel/Application/" + org.Name + "/Endorsement"
		if _, ok := b.Policy(reference); ok {
			return policyReference(reference)
		}
		return members(1, []string{mspID})
	}
	return nil, fmt.Errorf("no org found in channel with MSPID '%s'", mspID)
}

func members(n int32, orgs []string) ([]byte, error) {
	sort.Strings(orgs)
	rule := &commonpb.SignaturePolicy_NOutOf{N: n}
	env := &commonpb.SignaturePolicyEnvelope{Rule: &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_NOutOf_{NOutOf: rule}}}
	for i, org := range orgs {
		role, err := proto.Marshal(&msppb.MSPRole{Role: msppb.MSPRole_MEMBER, MspIdentifier: org})
		if err != nil {
			return nil, err
		}
		env.Identities = append(env.Identities, &msppb.MSPPrincipal{PrincipalClassification: msppb.MSPPrincipal_ROLE, Principal: role})
		rule.Rules = append(rule.Rules, &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_SignedBy{SignedBy: int32(i)}})
	}
	return proto.Marshal(&peerpb.ApplicationPolicy{Type: &peerpb.ApplicationPolicy_SignaturePolicy{SignaturePolicy: env}})
}

// legacyNamespace is where contracts were defined before Fabric 2.0. Hansa has none, but what looks for a
// definition looks there too, and the look is part of the read set.
const legacyNamespace = "lscc"
