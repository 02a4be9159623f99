package channel

import (
	"bytes"
	"errors"
	"maps"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// ComputeUpdate gives the smallest update that leads from original to updated:
// what `configtxlator compute_update` gives. Versions and sequences in updated do
// not matter. Where the members of a group change, the group and all its members
// are named; elsewhere only what leads to a change is.
func ComputeUpdate(channelID string, original, updated *commonpb.Config) (*commonpb.ConfigUpdate, error) {
	if original.GetChannelGroup() == nil {
		return nil, errors.New("no channel group included for original config")
	}
	if updated.GetChannelGroup() == nil {
		return nil, errors.New("no channel group included for updated config")
	}
	for _, root := range []*commonpb.ConfigGroup{original.ChannelGroup, updated.ChannelGroup} {
		if err := checkKeys(root, rootKey, groupElement); err != nil {
			return nil, err
		}
	}
	read, write, changed := computeGroup(original.ChannelGroup, updated.ChannelGroup)
	if !changed {
		return nil, errors.New("no differences detected between original and updated config")
	}
	return &commonpb.ConfigUpdate{ChannelId: channelID, ReadSet: read, WriteSet: write}, nil
}

// difference of two maps of elements: what is read and written for those that
// changed or are new, and the unchanged ones, by version alone.
type difference[T any] struct {
	read, write, same map[string]T
	members           bool // an element came or went
}

func newDifference[T any]() difference[T] {
	return difference[T]{read: map[string]T{}, write: map[string]T{}, same: map[string]T{}}
}

// keepSame names the unchanged elements too, as a group with other members must.
func (d difference[T]) keepSame() {
	maps.Copy(d.read, d.same)
	maps.Copy(d.write, d.same)
}

// compare goes over the union of two maps; visit is told old (if any) and new.
func compare[T any](original, updated map[string]T, d *difference[T], changed func(key string, old, next T), added func(key string, next T)) {
	for key, old := range original {
		if next, ok := updated[key]; ok {
			changed(key, old, next)
		} else {
			d.members = true
		}
	}
	for key, next := range updated {
		if _, ok := original[key]; !ok {
			d.members = true
			added(key, next)
		}
	}
}

func computeGroup(original, updated *commonpb.ConfigGroup) (read, write *commonpb.ConfigGroup, changed bool) {
	policies := newDifference[*commonpb.ConfigPolicy]()
	compare(original.Policies, updated.Policies, &policies, func(key string, old, next *commonpb.ConfigPolicy) {
		if old.ModPolicy == next.ModPolicy && proto.Equal(old.Policy, next.Policy) {
			policies.same[key] = &commonpb.ConfigPolicy{Version: old.Version}
			return
		}
		policies.write[key] = &commonpb.ConfigPolicy{Version: old.Version + 1, ModPolicy: next.ModPolicy, Policy: next.Policy}
	}, func(key string, next *commonpb.ConfigPolicy) {
		policies.write[key] = &commonpb.ConfigPolicy{ModPolicy: next.ModPolicy, Policy: next.Policy}
	})
	values := newDifference[*commonpb.ConfigValue]()
	compare(original.Values, updated.Values, &values, func(key string, old, next *commonpb.ConfigValue) {
		if old.ModPolicy == next.ModPolicy && bytes.Equal(old.Value, next.Value) {
			values.same[key] = &commonpb.ConfigValue{Version: old.Version}
			return
		}
		values.write[key] = &commonpb.ConfigValue{Version: old.Version + 1, ModPolicy: next.ModPolicy, Value: next.Value}
	}, func(key string, next *commonpb.ConfigValue) {
		values.write[key] = &commonpb.ConfigValue{ModPolicy: next.ModPolicy, Value: next.Value}
	})
	groups := newDifference[*commonpb.ConfigGroup]()
	compare(original.Groups, updated.Groups, &groups, func(key string, old, next *commonpb.ConfigGroup) {
		subRead, subWrite, subChanged := computeGroup(old, next)
		if !subChanged {
			groups.same[key] = subRead
			return
		}
		groups.read[key], groups.write[key] = subRead, subWrite
	}, func(key string, next *commonpb.ConfigGroup) {
		_, all, _ := computeGroup(&commonpb.ConfigGroup{}, next)
		all.Version, all.ModPolicy = 0, next.ModPolicy
		groups.write[key] = all
	})

	read = &commonpb.ConfigGroup{Version: original.Version}
	write = &commonpb.ConfigGroup{Version: original.Version}
	if policies.members || values.members || groups.members || original.ModPolicy != updated.ModPolicy {
		policies.keepSame()
		values.keepSame()
		groups.keepSame()
		write.Version, write.ModPolicy = original.Version+1, updated.ModPolicy
	} else if len(policies.write) == 0 && len(values.write) == 0 && len(groups.write) == 0 {
		return read, write, false
	}
	read.Policies, read.Values, read.Groups = policies.read, values.read, groups.read
	write.Policies, write.Values, write.Groups = policies.write, values.write, groups.write
	return read, write, true
}
