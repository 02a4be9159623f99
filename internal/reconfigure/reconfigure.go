// Package reconfigure changes the configuration of a channel, for people and for
// the commands that they use: it fetches the newest configuration, shows it as
// YAML, makes of an edited one the smallest update that leads there, says in
// words what it changes and whose signatures it needs, signs it, collects other
// members' signatures, submits it and waits until it is in force.
//
// Guarantees: what the YAML does not show, or shows and nobody edited, stays as it
// is to the byte; an update is checked by all rules of package channel before
// anybody signs it; an update of a configuration that is no longer the newest is
// told as such (ErrStale) and never submitted silently. A Request, the file in
// which signatures travel, is a plain CONFIG_UPDATE envelope: Hyperledger
// Fabric's `peer channel signconfigtx` and `peer channel update` read and write
// it too.
//
// Left out: whose keys are at hand and which nodes there are (its callers know),
// raft's view of the cluster, such as whether enough orderers would remain that
// work, and trust in the node asked beyond its TLS certificate. Who signs should
// ask a node of their own.
//
// Open this file first, then needs.go (who must sign), document.go (the YAML),
// apply.go (what an edit of it means), node.go (the calls).
package reconfigure

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// Config is a channel's configuration as it was fetched, and as it should be. It
// is for one goroutine.
type Config struct {
	// Block is the number of the block that made the configuration.
	Block uint64

	base *channel.Bundle
	next *commonpb.Config
	made []byte // the update that made it; empty for a genesis block
}

// ErrNoChange says that nothing was edited.
var ErrNoChange = errors.New("nothing differs from the channel's configuration")

// FromBlock takes the configuration of a config block.
func FromBlock(b *commonpb.Block) (*Config, error) {
	bundle, err := channel.FromBlock(b, identity.NewVerifier(identity.Config{}))
	if err != nil {
		return nil, err
	}
	c := &Config{Block: b.GetHeader().GetNumber(), base: bundle, next: proto.CloneOf(bundle.Config())}
	env, _, err := block.ConfigEnvelope(b)
	if err != nil {
		return nil, err
	}
	if env.LastUpdate != nil {
		payload, update := &commonpb.Payload{}, &commonpb.ConfigUpdateEnvelope{}
		if err := errors.Join(proto.Unmarshal(env.LastUpdate.Payload, payload), proto.Unmarshal(payload.Data, update)); err != nil {
			return nil, fmt.Errorf("decode the update of config block %d: %w", c.Block, err)
		}
		c.made = update.ConfigUpdate
	}
	return c, nil
}

// ID is the channel's name.
func (c *Config) ID() string { return c.base.ID() }

// Sequence counts the channel's configurations; genesis is 0.
func (c *Config) Sequence() uint64 { return c.base.Sequence() }

// Bundle is the configuration in force, as it was fetched.
func (c *Config) Bundle() *channel.Bundle { return c.base }

// Edit changes the configuration that should be. Edits add up; one that fails
// leaves no trace.
func (c *Config) Edit(change func(*commonpb.Config) error) error {
	next := proto.CloneOf(c.next)
	if err := change(next); err != nil {
		return err
	}
	c.next = next
	return nil
}

// EditRaft changes etcdraft's consenters and options.
func (c *Config) EditRaft(change func(*etcdraftpb.ConfigMetadata) error) error {
	return c.Edit(func(config *commonpb.Config) error {
		group := config.GetChannelGroup().GetGroups()[ordererKey]
		consensus, metadata := &ordererpb.ConsensusType{}, &etcdraftpb.ConfigMetadata{}
		if err := Value(group, consensusKey, consensus); err != nil {
			return err
		}
		if consensus.Type != channel.ConsensusRaft {
			return fmt.Errorf("channel %s: consensus is %q, not %s", c.ID(), consensus.Type, channel.ConsensusRaft)
		}
		if err := proto.Unmarshal(consensus.Metadata, metadata); err != nil {
			return fmt.Errorf("channel %s: decode etcdraft metadata: %w", c.ID(), err)
		}
		if err := change(metadata); err != nil {
			return err
		}
		var err error
		if consensus.Metadata, err = encode(metadata); err != nil {
			return err
		}
		return SetValue(group, consensusKey, consensus)
	})
}

// EditEndpoints changes the addresses, as host:port, of the orderers that a member
// runs. The member is known by its name in the configuration or its MSP id.
func (c *Config) EditEndpoints(member string, change func([]string) ([]string, error)) error {
	orgs := c.base.OrdererOrgs()
	i := slices.IndexFunc(orgs, func(o channel.Org) bool { return o.Name == member || o.MSPID == member })
	if i < 0 {
		return fmt.Errorf("channel %s: no member %q runs orderers", c.ID(), member)
	}
	return c.Edit(func(config *commonpb.Config) error {
		group := config.GetChannelGroup().GetGroups()[ordererKey].GetGroups()[orgs[i].Name]
		if group == nil {
			return fmt.Errorf("channel %s: member %q is about to leave the orderers", c.ID(), member)
		}
		addresses := &commonpb.OrdererAddresses{}
		if err := Value(group, endpointsKey, addresses); err != nil {
			return err
		}
		var err error
		if addresses.Addresses, err = change(addresses.Addresses); err != nil {
			return err
		}
		return SetValue(group, endpointsKey, addresses)
	})
}

// Names of groups, values and policies in a configuration.
const (
	rootKey         = "Channel"
	ordererKey      = "Orderer"
	applicationKey  = "Application"
	capabilitiesKey = "Capabilities"
	addressesKey    = "OrdererAddresses"
	orderersKey     = "Orderers"
	consensusKey    = "ConsensusType"
	batchSizeKey    = "BatchSize"
	batchTimeoutKey = "BatchTimeout"
	endpointsKey    = "Endpoints"
	mspKey          = "MSP"
	anchorPeersKey  = "AnchorPeers"
	aclsKey         = "ACLs"
	adminsPolicy    = "Admins"
	blockPolicy     = "BlockValidation"
)

// Value decodes a value of a group; one that is not there leaves m empty.
func Value(group *commonpb.ConfigGroup, key string, m proto.Message) error {
	if err := proto.Unmarshal(group.GetValues()[key].GetValue(), m); err != nil {
		return fmt.Errorf("decode %s: %w", key, err)
	}
	return nil
}

// SetValue sets a value of a group. One that says the same keeps its bytes, so
// that no change appears where there is none. A new one is in the care of the
// group's Admins.
func SetValue(group *commonpb.ConfigGroup, key string, m proto.Message) error {
	if group == nil {
		return fmt.Errorf("the configuration has no group that could hold %s", key)
	}
	if have, ok := group.Values[key]; ok {
		old := m.ProtoReflect().New().Interface()
		if proto.Unmarshal(have.Value, old) == nil && proto.Equal(old, m) {
			return nil
		}
	}
	raw, err := encode(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	if have, ok := group.Values[key]; ok {
		have.Value = raw
		return nil
	}
	if group.Values == nil {
		group.Values = map[string]*commonpb.ConfigValue{}
	}
	group.Values[key] = &commonpb.ConfigValue{Value: raw, ModPolicy: adminsPolicy}
	return nil
}

func encode(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Request makes the smallest update that leads to the edited configuration, ready
// to be signed. ErrNoChange if there is none. All that orderers would refuse,
// except for want of signatures, is refused here.
func (c *Config) Request() (*Request, error) {
	if proto.Equal(c.base.Config().ChannelGroup, c.next.ChannelGroup) {
		return nil, ErrNoChange
	}
	update, err := channel.ComputeUpdate(c.ID(), c.base.Config(), c.next)
	if err != nil {
		return nil, err
	}
	r, err := NewRequest(update)
	if err != nil {
		return nil, err
	}
	if _, err := c.Status(r); err != nil {
		return nil, err
	}
	return r, nil
}

// Status is how a request stands against the configuration in force.
type Status struct {
	// Next is the configuration that would come of it.
	Next *channel.Bundle
	// Changes are the elements that it changes.
	Changes []channel.Change
	// Signed names those who validly signed it, as "Admin@org1.example.com (Org1MSP)".
	Signed []string
	// Needs are the policies that must be met, by path.
	Needs []Need

	signers []*identity.Identity
}

// Met says whether the signatures are enough.
func (s *Status) Met() bool {
	return !slices.ContainsFunc(s.Needs, func(n Need) bool { return !n.Met })
}

// Status checks a request against the configuration in force: whether it fits it
// (else ErrStale), what it changes, and whose signatures it has and lacks.
func (c *Config) Status(r *Request) (*Status, error) {
	if r.ChannelID() != c.ID() {
		return nil, fmt.Errorf("the update is for channel %q, not for %q", r.ChannelID(), c.ID())
	}
	if err := c.stale(r); err != nil {
		return nil, err
	}
	next, changes, err := c.base.Preview(r.update, time.Now())
	if err != nil {
		return nil, fmt.Errorf("the channel would refuse this update: %w", err)
	}
	s := &Status{Next: next, Changes: changes}
	if s.signers, err = c.base.Signers(r.envelope); err != nil {
		return nil, err
	}
	for _, id := range s.signers {
		s.Signed = append(s.Signed, describe(id))
	}
	s.Needs = c.needs(changes, s.signers)
	return s, nil
}

// describe names an identity for people.
func describe(id *identity.Identity) string {
	return fmt.Sprintf("%s (%s)", id.Certificate().Subject.CommonName, id.MSPID())
}
