package channel

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// A config update names what it read (with versions) and what it writes. The
// rules, as Fabric's configtx has them:
//
//   - every element of the read set exists at just that version;
//   - the delta is what the write set has and the read set has not, or has at
//     another version; it must not be empty, and each element of it must have a
//     mod_policy;
//   - an element of the delta that is new has version 0; one that exists has the
//     current version plus one, and its current mod_policy, taken relative to
//     its group (a group itself: relative to itself), is satisfied by those who
//     signed the update;
//   - the next configuration is the current one overlaid with the delta: a group
//     of the delta says which members it has from then on.
//
// Fabric maps every element by its path and compares the maps. Here the three
// trees (current, read, write) are walked side by side, which comes to the same
// without building paths, so that hostile trees of great depth cost nothing.
// Where more than one rule is broken the first in sorted order is reported.

// maxPathLevels is how many levels of a path an error shows: a hostile update
// may be thousands of levels deep.
const maxPathLevels = 32

// element kinds, as Fabric writes them before paths.
const (
	groupElement  = "[Group]  "
	valueElement  = "[Value]  "
	policyElement = "[Policy] "
)

// path is where a walk is, for messages and for policies. It is a linked list,
// as most walks never print it.
type path struct {
	parent *path
	key    string
}

func (p *path) child(key string) *path { return &path{parent: p, key: key} }

func (p *path) String() string {
	var keys []string
	for at := p; at != nil; at = at.parent {
		keys = append(keys, at.key)
	}
	slices.Reverse(keys)
	if len(keys) > maxPathLevels {
		keys = append(keys[:maxPathLevels], "...")
	}
	return "/" + strings.Join(keys, "/")
}

// prefix is the path below the root as policies are named: "" or "Application/".
// It is called for elements of the current configuration alone, which is shallow.
func (p *path) prefix() string {
	if p.parent == nil {
		return ""
	}
	return p.parent.prefix() + p.key + "/"
}

// ProposeUpdate decides what an orderer decides about a CONFIG_UPDATE envelope:
// whether the update is authorised, whether the configuration that comes of it
// is sound, and whether it may follow this one. It gives that configuration, to
// be ordered in a CONFIG envelope. Its error is told to the client as
// "error applying config update to existing channel '<id>': ...".
//
// It looks at the clock for one thing: certificates of newly added consenters
// must not have expired. ProposeUpdateAt takes the time instead.
func (b *Bundle) ProposeUpdate(update *commonpb.Envelope) (*commonpb.ConfigEnvelope, error) {
	return b.ProposeUpdateAt(update, time.Now())
}

// ProposeUpdateAt is ProposeUpdate at a given time.
func (b *Bundle) ProposeUpdateAt(update *commonpb.Envelope, now time.Time) (*commonpb.ConfigEnvelope, error) {
	if b.orderer == nil {
		return nil, fmt.Errorf("the configuration of channel %s has no Orderer group, so no orderer can change it", b.id)
	}
	env, err := decodeUpdate(update)
	if err != nil {
		return nil, fmt.Errorf("error converting envelope to config update: %w", err)
	}
	group, err := b.authorize(env)
	if err != nil {
		return nil, fmt.Errorf("error authorizing update: %w", err)
	}
	next, err := b.follow(group, env, now)
	if err != nil {
		return nil, err
	}
	return &commonpb.ConfigEnvelope{Config: next.config, LastUpdate: update}, nil
}

// follow makes the Bundle of the next configuration, which an orderer orders only if all of this holds.
func (b *Bundle) follow(group *commonpb.ConfigGroup, env *commonpb.ConfigUpdateEnvelope, now time.Time) (*Bundle, error) {
	next, err := NewBundle(b.id, &commonpb.Config{Sequence: b.config.Sequence + 1, ChannelGroup: group}, b.verifier)
	if err != nil {
		return nil, err
	}
	if next.orderer == nil {
		return nil, errors.New("config update is not compatible: config does not contain orderer config")
	}
	if err := b.checkNext(next); err != nil {
		return nil, err
	}
	if err := b.checkConsensus(next, now); err != nil {
		return nil, fmt.Errorf("consensus metadata update for channel config update is invalid: %w", err)
	}
	if err := b.checkMaintenance(next, env); err != nil {
		return nil, fmt.Errorf("config update for existing channel did not pass maintenance checks: config transaction inspection failed: %w", err)
	}
	return next, nil
}

// ValidateConfig decides what a peer (and an orderer, on a block of others)
// decides about a CONFIG transaction: it recomputes the configuration from the
// update inside and compares. It gives the Bundle that is in force from the next
// block on. It depends on the configurations alone, never on a clock.
func (b *Bundle) ValidateConfig(env *commonpb.ConfigEnvelope) (*Bundle, error) {
	switch {
	case env == nil:
		return nil, errors.New("config envelope is nil")
	case env.Config == nil:
		return nil, errors.New("config envelope has nil config")
	case env.Config.Sequence != b.config.Sequence+1:
		return nil, fmt.Errorf("config currently at sequence %d, cannot validate config at sequence %d", b.config.Sequence, env.Config.Sequence)
	}
	update, err := decodeUpdate(env.LastUpdate)
	if err != nil {
		return nil, err
	}
	group, err := b.authorize(update)
	if err != nil {
		return nil, err
	}
	// Equal takes absent and empty maps for the same, as it should.
	if !proto.Equal(group, env.Config.ChannelGroup) {
		return nil, errors.New("ConfigEnvelope LastUpdate did not produce the supplied config result")
	}
	next, err := NewBundle(b.id, env.Config, b.verifier)
	if err != nil {
		return nil, err
	}
	if err := b.checkNext(next); err != nil {
		return nil, err
	}
	return next, nil
}

// decodeUpdate decodes a CONFIG_UPDATE envelope, but not yet the update in it.
func decodeUpdate(env *commonpb.Envelope) (*commonpb.ConfigUpdateEnvelope, error) {
	payload := &commonpb.Payload{}
	if err := proto.Unmarshal(env.GetPayload(), payload); err != nil {
		return nil, fmt.Errorf("error unmarshalling Payload: %w", err)
	}
	if payload.Header == nil {
		return nil, errors.New("envelope must have a Header")
	}
	header := &commonpb.ChannelHeader{}
	if err := proto.Unmarshal(payload.Header.ChannelHeader, header); err != nil {
		return nil, fmt.Errorf("error unmarshalling ChannelHeader: %w", err)
	}
	if header.Type != int32(commonpb.HeaderType_CONFIG_UPDATE) {
		return nil, fmt.Errorf("invalid type %s, expected %s", commonpb.HeaderType(header.Type), commonpb.HeaderType_CONFIG_UPDATE)
	}
	update := &commonpb.ConfigUpdateEnvelope{}
	if err := proto.Unmarshal(payload.Data, update); err != nil {
		return nil, fmt.Errorf("error unmarshalling message for type %s: %w", commonpb.HeaderType_CONFIG_UPDATE, err)
	}
	return update, nil
}

// authorize applies the rules above and gives the next channel group.
func (b *Bundle) authorize(env *commonpb.ConfigUpdateEnvelope) (*commonpb.ConfigGroup, error) {
	return b.apply(env, &delta{bundle: b})
}

// apply is authorize, with a delta of the caller's.
func (b *Bundle) apply(env *commonpb.ConfigUpdateEnvelope, d *delta) (*commonpb.ConfigGroup, error) {
	update := &commonpb.ConfigUpdate{}
	if err := proto.Unmarshal(env.ConfigUpdate, update); err != nil {
		return nil, err
	}
	if update.ChannelId != b.id {
		return nil, fmt.Errorf("ConfigUpdate for channel '%s' but envelope for channel '%s'", update.ChannelId, b.id)
	}
	root := &path{key: rootKey}
	current := b.config.ChannelGroup
	if update.ReadSet != nil {
		if err := checkKeys(update.ReadSet, rootKey, groupElement); err != nil {
			return nil, fmt.Errorf("error mapping ReadSet: %w", err)
		}
		if err := checkReadSet(current, update.ReadSet, root); err != nil {
			return nil, fmt.Errorf("error validating ReadSet: %w", err)
		}
	}
	if update.WriteSet != nil {
		if err := checkKeys(update.WriteSet, rootKey, groupElement); err != nil {
			return nil, fmt.Errorf("error mapping WriteSet: %w", err)
		}
	}
	var err error
	if d.signers, err = b.Signers(env); err != nil {
		return nil, err
	}
	if update.WriteSet != nil {
		if err := d.group(current, update.ReadSet, update.WriteSet, root); err != nil {
			return nil, fmt.Errorf("error validating DeltaSet: %w", err)
		}
	}
	if d.size == 0 {
		return nil, errors.New("error validating DeltaSet: delta set was empty -- update would have no effect")
	}
	_, has := current.Groups[ordererKey].GetValues()[capabilitiesKey]
	_, gets := update.WriteSet.Groups[ordererKey].GetValues()[capabilitiesKey]
	return overlay(current, update.ReadSet, update.WriteSet, has || gets), nil
}

// maxSignedBytes bounds what the signatures of one update make this node hash:
// each covers the whole update. Honest updates stay below a thousandth of it.
const maxSignedBytes = 1 << 30

// Signers gives the members who validly signed an update, each once, in the order
// of their signatures. Policies would verify the same signatures again and again;
// the valid identities are the same for all of them.
func (b *Bundle) Signers(env *commonpb.ConfigUpdateEnvelope) ([]*identity.Identity, error) {
	if n := len(env.Signatures); n > 0 && len(env.ConfigUpdate) > maxSignedBytes/n {
		return nil, fmt.Errorf("config update of %d bytes carries too many signatures (%d)", len(env.ConfigUpdate), n)
	}
	var all []*identity.Identity
	seen := map[string]bool{}
	for _, s := range env.Signatures {
		header := &commonpb.SignatureHeader{}
		if err := proto.Unmarshal(s.GetSignatureHeader(), header); err != nil {
			return nil, err
		}
		// One at a time, so that only one copy of the update exists.
		valid := policy.ValidIdentities([]policy.SignedData{{
			Data:      slices.Concat(s.GetSignatureHeader(), env.ConfigUpdate),
			Identity:  header.Creator,
			Signature: s.GetSignature(),
		}}, b.msps)
		for _, id := range valid {
			if !seen[id.Key()] {
				seen[id.Key()] = true
				all = append(all, id)
			}
		}
	}
	return all, nil
}

// checkKeys checks the names of all elements of a tree, and that none is nil,
// which decoded trees never have.
func checkKeys(group *commonpb.ConfigGroup, key, kind string) error {
	check := func(key, kind string, isNil bool) error {
		if err := checkConfigID(key); err != nil {
			return fmt.Errorf("illegal characters in key: %s: %w", kind, err)
		}
		if isNil {
			return fmt.Errorf("element %s%s is empty", kind, key)
		}
		return nil
	}
	if err := check(key, kind, group == nil); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(group.Groups)) {
		if err := checkKeys(group.Groups[name], name, groupElement); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(group.Values)) {
		if err := check(name, valueElement, group.Values[name] == nil); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(group.Policies)) {
		if err := check(name, policyElement, group.Policies[name] == nil); err != nil {
			return err
		}
	}
	return nil
}

// checkReadSet checks that the elements of the read set exist at its versions.
// The first difference ends the walk, so it is never deeper than current.
func checkReadSet(current, read *commonpb.ConfigGroup, at *path) error {
	check := func(exists bool, has, wants uint64, kind string, at *path) error {
		if !exists {
			return versionError(fmt.Sprintf("existing config does not contain element for %s%s but was in the read set", kind, at))
		}
		if has != wants {
			return versionError(fmt.Sprintf("proposed update requires that key %s%s be at version %d, but it is currently at version %d", kind, at, wants, has))
		}
		return nil
	}
	if err := check(current != nil, current.GetVersion(), read.Version, groupElement, at); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(read.Groups)) {
		if err := checkReadSet(current.Groups[key], read.Groups[key], at.child(key)); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(read.Values)) {
		has, ok := current.Values[key]
		if err := check(ok, has.GetVersion(), read.Values[key].Version, valueElement, at.child(key)); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(read.Policies)) {
		has, ok := current.Policies[key]
		if err := check(ok, has.GetVersion(), read.Policies[key].Version, policyElement, at.child(key)); err != nil {
			return err
		}
	}
	return nil
}

// element is what groups, values and policies have in common.
type element interface {
	GetVersion() uint64
	GetModPolicy() string
}

// delta judges the elements that an update changes.
type delta struct {
	bundle  *Bundle
	signers []*identity.Identity
	size    int
	preview bool     // note the changes instead of asking the policies
	changes []Change // with preview
}

// group judges a group of the write set and all below it. Beside it go the same
// group of the current configuration and of the read set; either may be nil.
func (d *delta) group(current, read, write *commonpb.ConfigGroup, at *path) error {
	// The key of a group belongs to the path that its own mod_policy is relative to.
	if err := d.element(current, current != nil, read, read != nil, write, groupElement, at, at); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(write.Groups)) {
		if err := d.group(current.GetGroups()[key], read.GetGroups()[key], write.Groups[key], at.child(key)); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(write.Values)) {
		has, exists := current.GetValues()[key]
		was, known := read.GetValues()[key]
		if err := d.element(has, exists, was, known, write.Values[key], valueElement, at.child(key), at); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(write.Policies)) {
		has, exists := current.GetPolicies()[key]
		was, known := read.GetPolicies()[key]
		if err := d.element(has, exists, was, known, write.Policies[key], policyElement, at.child(key), at); err != nil {
			return err
		}
	}
	return nil
}

func (d *delta) element(current element, exists bool, read element, known bool, write element, kind string, at, group *path) error {
	if known && read.GetVersion() == write.GetVersion() {
		return nil
	}
	d.size++
	if err := checkModPolicy(write.GetModPolicy()); err != nil {
		return fmt.Errorf("invalid mod_policy for element %s%s: %w", kind, at, err)
	}
	if !exists {
		if write.GetVersion() != 0 {
			return versionError(fmt.Sprintf("attempted to set key %s%s to version %d, but key does not exist", kind, at, write.GetVersion()))
		}
		if d.preview {
			d.changes = append(d.changes, Change{Kind: kindName(kind), Path: at.String()})
		}
		return nil
	}
	if write.GetVersion() != current.GetVersion()+1 {
		return versionError(fmt.Sprintf("attempt to set key %s%s to version %d, but key is at version %d", kind, at, write.GetVersion(), current.GetVersion()))
	}
	p, ok := d.policyFor(current.GetModPolicy(), group)
	if !ok {
		return fmt.Errorf("unexpected missing policy %s for item %s%s", current.GetModPolicy(), kind, at)
	}
	if d.preview {
		d.changes = append(d.changes, Change{Kind: kindName(kind), Path: at.String(), Policy: absolute(current.GetModPolicy(), group)})
		return nil
	}
	if err := p.EvaluateIdentities(d.signers); err != nil {
		return fmt.Errorf("policy for %s%s not satisfied: %w", kind, at, err)
	}
	return nil
}

// policyFor finds the policy that a mod_policy in a group of the current configuration names.
func (d *delta) policyFor(modPolicy string, group *path) (policy.Policy, bool) {
	if modPolicy == "" {
		return nil, false
	}
	if modPolicy[0] != '/' {
		p, ok := d.bundle.policies[group.prefix()+modPolicy]
		return p, ok
	}
	return d.bundle.policies.get(modPolicy)
}

// checkModPolicy checks the form of a mod_policy: names between slashes.
func checkModPolicy(modPolicy string) error {
	if modPolicy == "" {
		return errors.New("mod_policy not set")
	}
	i := 0
	for name := range strings.SplitSeq(strings.TrimPrefix(modPolicy, "/"), "/") {
		if err := checkConfigID(name); err != nil {
			return fmt.Errorf("path element at %d is invalid: %w", i, err)
		}
		i++
	}
	return nil
}

// overlay gives the group that follows current when write, read against read, is
// applied to it. A group of the delta decides itself which members it has; any
// other keeps those it had, so that elements which the update adds below an
// unchanged group do not appear: Fabric drops them just so.
//
// All members are found: one of a changed group is either in the delta or in the
// read set at the same version, hence in the current configuration.
//
// With fill, elements without a mod_policy get "Admins". Channels from Fabric 1.0
// have such elements, which nobody could ever change; they are mended once the
// orderer has capabilities.
func overlay(current, read, write *commonpb.ConfigGroup, fill bool) *commonpb.ConfigGroup {
	from := current
	if write != nil && (read == nil || read.Version != write.Version) {
		from = write
	}
	next := &commonpb.ConfigGroup{
		Version: from.Version, ModPolicy: mended(from.ModPolicy, fill),
		Groups:   make(map[string]*commonpb.ConfigGroup, len(from.Groups)),
		Values:   make(map[string]*commonpb.ConfigValue, len(from.Values)),
		Policies: make(map[string]*commonpb.ConfigPolicy, len(from.Policies)),
	}
	next.ProtoReflect().SetUnknown(slices.Clone(from.ProtoReflect().GetUnknown()))
	for key := range from.Groups {
		next.Groups[key] = overlay(current.GetGroups()[key], read.GetGroups()[key], write.GetGroups()[key], fill)
	}
	for key := range from.Values {
		value := pick(current.GetValues()[key], read.GetValues()[key], write.GetValues()[key])
		value.ModPolicy = mended(value.ModPolicy, fill)
		next.Values[key] = value
	}
	for key := range from.Policies {
		p := pick(current.GetPolicies()[key], read.GetPolicies()[key], write.GetPolicies()[key])
		p.ModPolicy = mended(p.ModPolicy, fill)
		next.Policies[key] = p
	}
	return next
}

// pick copies the written element if it is in the delta, else the current one.
func pick[T interface {
	comparable
	element
	proto.Message
}](current, read, write T) T {
	var none T
	if write != none && (read == none || read.GetVersion() != write.GetVersion()) {
		return proto.CloneOf(write)
	}
	return proto.CloneOf(current)
}

func mended(modPolicy string, fill bool) string {
	if modPolicy == "" && fill {
		return adminsPolicy
	}
	return modPolicy
}
