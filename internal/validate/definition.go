package validate

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Namespaces in which contracts are defined, and what their keys look like.
const (
	lifecycleNamespace = "_lifecycle"
	legacyNamespace    = "lscc" // of channels that were once below the V2_0 capability

	definitionType  = "ChaincodeDefinition"
	builtinPlugin   = "vscc"
	implicitPrefix  = "_implicit_org_"
	lifecyclePolicy = "/Channel/Application/LifecycleEndorsement"
)

// definition is what validation needs of a contract's definition: committed before the block, so that an upgrade takes
// effect with the next block.
type definition struct {
	// usable is false if writes to the namespace cannot be valid: there is no definition, it lacks a policy, or it names
	// a validation plugin, of which only the built-in one exists here. (At a definition that cannot be read
	// and at an unknown plugin, the reference implementation stops.)
	usable      bool
	raw         []byte // the policy: a serialized ApplicationPolicy
	policy      policy.Policy
	collections map[string]*peerpb.StaticCollectionConfig
	// legacy definitions have no implicit collections, and their collections no policies of their own.
	legacy bool

	rules map[string]collectionRule // of the collections asked for so far
}

// collectionRule is what a collection's name stands for. Without a policy of its own the contract's counts.
type collectionRule struct {
	defined   bool // whether keys can have policies of their own
	writable  bool
	hasPolicy bool
	policy    policy.Policy
}

// definition looks a contract up, once a block.
func (d *decision) definition(name string) (*definition, error) {
	if def := d.definitions[name]; def != nil {
		return def, nil
	}
	def, err := d.readDefinition(name)
	if err != nil {
		return nil, err
	}
	d.definitions[name] = def
	return def, nil
}

func (d *decision) readDefinition(name string) (*definition, error) {
	if name == lifecycleNamespace {
		return d.newDefinition(lifecycleEndorsement(d.bundle)), nil
	}
	metadata := &lifecyclepb.StateMetadata{}
	switch found, good, err := d.message(lifecycleNamespace, "namespaces/metadata/"+name, metadata); {
	case err != nil:
		return nil, err
	case !found:
		return d.readLegacyDefinition(name)
	case !good || metadata.Datatype != definitionType:
		return &definition{}, nil
	}
	info, packaged := &lifecyclepb.ChaincodeValidationInfo{}, &peerpb.CollectionConfigPackage{}
	if good, err := d.field(name, "ValidationInfo", info); !good || err != nil {
		return &definition{}, err
	}
	if good, err := d.field(name, "Collections", packaged); !good || err != nil {
		return &definition{}, err
	}
	if info.ValidationPlugin != builtinPlugin {
		return &definition{}, nil
	}
	def := d.newDefinition(info.ValidationParameter)
	def.addCollections(packaged)
	return def, nil
}

// field reads a message that is part of a definition. One that is missing counts as empty.
func (d *decision) field(name, field string, m proto.Message) (good bool, err error) {
	data := &lifecyclepb.StateData{}
	found, good, err := d.message(lifecycleNamespace, "namespaces/fields/"+name+"/"+field, data)
	if err != nil || !found {
		return !found, err
	}
	return good && proto.Unmarshal(data.GetBytes(), m) == nil, nil
}

func (d *decision) readLegacyDefinition(name string) (*definition, error) {
	data := &peerpb.ChaincodeData{}
	found, good, err := d.message(legacyNamespace, name, data)
	if err != nil {
		return nil, err
	}
	if !found || !good || data.Vscc != builtinPlugin {
		return &definition{}, nil
	}
	var raw []byte
	if data.Policy != nil {
		raw = applicationPolicy(data.Policy)
	}
	packaged := &peerpb.CollectionConfigPackage{}
	if _, good, err = d.message(legacyNamespace, name+"~collection", packaged); err != nil {
		return nil, err
	}
	def := d.newDefinition(raw)
	def.legacy = true
	if good {
		def.addCollections(packaged)
	}
	return def, nil
}

func (d *decision) newDefinition(raw []byte) *definition {
	def := &definition{usable: len(raw) > 0, raw: raw}
	if def.usable {
		def.policy = d.validator.application(d.bundle, raw)
	}
	return def
}

func (def *definition) addCollections(packaged *peerpb.CollectionConfigPackage) {
	def.collections = map[string]*peerpb.StaticCollectionConfig{}
	for _, c := range packaged.Config {
		if c := c.GetStaticCollectionConfig(); c != nil && def.collections[c.Name] == nil {
			def.collections[c.Name] = c
		}
	}
}

func applicationPolicy(rule *commonpb.SignaturePolicyEnvelope) []byte {
	return marshal(&peerpb.ApplicationPolicy{Type: &peerpb.ApplicationPolicy_SignaturePolicy{SignaturePolicy: rule}})
}

func policyReference(path string) []byte {
	return marshal(&peerpb.ApplicationPolicy{Type: &peerpb.ApplicationPolicy_ChannelConfigPolicyReference{ChannelConfigPolicyReference: path}})
}

// marshal serializes messages that were made here or decoded before, which always succeeds.
func marshal(m proto.Message) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic("validate: a message made here has no encoding: " + err.Error())
	}
	return raw
}

// message reads a serialized message from the state; good says whether it could be decoded.
func (d *decision) message(namespace, key string, m proto.Message) (found, good bool, err error) {
	value, err := d.state.Get(namespace, key)
	if err != nil || value == nil {
		return false, false, err
	}
	return true, proto.Unmarshal(value.Value, m) == nil, nil
}

// lifecycleEndorsement is the policy for writes to the definitions themselves: the channel's, or for channels made
// before there was one, a member of a majority of the organisations.
func lifecycleEndorsement(b *channel.Bundle) []byte {
	if _, ok := b.Policy(lifecyclePolicy); ok {
		return policyReference(lifecyclePolicy)
	}
	var members []string
	for _, org := range b.ApplicationOrgs() {
		members = append(members, org.MSPID)
	}
	return applicationPolicy(outOfMembers(len(members)/2+1, members))
}

// collection gives the rule for writes to a collection.
func (d *decision) collection(def *definition, name string) collectionRule {
	rule, known := def.rules[name]
	if !known {
		rule = d.newCollectionRule(def, name)
		if def.rules == nil {
			def.rules = map[string]collectionRule{}
		}
		def.rules[name] = rule
	}
	return rule
}

func (d *decision) newCollectionRule(def *definition, name string) collectionRule {
	c := def.collections[name]
	if def.legacy {
		return collectionRule{defined: c != nil, writable: true}
	}
	var raw []byte
	if member, implicit := strings.CutPrefix(name, implicitPrefix); implicit {
		if raw = implicitPolicy(d.bundle, member); raw == nil {
			return collectionRule{}
		}
	} else {
		if c == nil {
			return collectionRule{}
		}
		if raw = def.raw; c.EndorsementPolicy != nil {
			raw = marshal(c.EndorsementPolicy)
		}
	}
	rule := collectionRule{defined: true, writable: true, hasPolicy: len(raw) > 0}
	if rule.hasPolicy {
		rule.policy = d.validator.application(d.bundle, raw)
	}
	return rule
}

// implicitPolicy is the policy of an organisation's implicit collections: its own endorsement policy, or for an
// organisation without one, any of its members; nil if it is not on the channel.
func implicitPolicy(b *channel.Bundle, mspID string) []byte {
	for _, org := range b.ApplicationOrgs() {
		if org.MSPID != mspID {
			continue
		}
		path := "/Channel/Application/" + org.Name + "/Endorsement"
		if _, ok := b.Policy(path); ok {
			return policyReference(path)
		}
		return applicationPolicy(outOfMembers(1, []string{mspID}))
	}
	return nil
}

// outOfMembers asks for n members of different organisations, tried in the order of their names.
func outOfMembers(n int, mspIDs []string) *commonpb.SignaturePolicyEnvelope {
	mspIDs = slices.Sorted(slices.Values(mspIDs))
	all := &commonpb.SignaturePolicy_NOutOf{N: int32(n)}
	env := &commonpb.SignaturePolicyEnvelope{Rule: &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_NOutOf_{NOutOf: all}}}
	for i, id := range mspIDs {
		all.Rules = append(all.Rules, &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_SignedBy{SignedBy: int32(i)}})
		env.Identities = append(env.Identities, &msppb.MSPPrincipal{
			PrincipalClassification: msppb.MSPPrincipal_ROLE,
			Principal:               marshal(&msppb.MSPRole{Role: msppb.MSPRole_MEMBER, MspIdentifier: id}),
		})
	}
	return env
}
