package channel

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// UnsupportedCapability says that a configuration requires what this node does
// not know: it must stop there, as it would judge what follows differently.
type UnsupportedCapability struct {
	Group string // Channel, Orderer or Application
	Name  string
}

func (e *UnsupportedCapability) Error() string {
	return fmt.Sprintf("%s capability %s is required but not supported; upgrade this node", e.Group, e.Name)
}

// capabilitySet holds the names of the capabilities that a group requires.
type capabilitySet map[string]bool

func newCapabilities(c *commonpb.Capabilities) capabilitySet {
	set := make(capabilitySet, len(c.Capabilities))
	for name := range c.Capabilities {
		set[name] = true
	}
	return set
}

func (s capabilitySet) any(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return s[n] })
}

// checkCapabilities refuses what is required and not known. It looks at nothing
// else, before anything else is read: what comes with a new capability must not
// be taken for a mistake. A Fabric peer does not look at the Orderer group's and
// a Fabric orderer not at the Application group's; here all three count, since
// nobody could say what else is meant.
func checkCapabilities(root *commonpb.ConfigGroup) error {
	for _, g := range []struct {
		name  string
		group *commonpb.ConfigGroup
		known []string
	}{
		{rootKey, root, []string{"V1_1", "V1_3", "V1_4_2", "V1_4_3", "V2_0", "V3_0"}},
		{ordererKey, root.Groups[ordererKey], []string{"V1_1", "V1_4_2", "V2_0"}},
		{applicationKey, root.Groups[applicationKey], []string{
			"V1_1", "V1_2", "V1_3", "V1_4_2", "V2_0", "V2_5", "V1_1_PVTDATA_EXPERIMENTAL", "V1_1_RESOURCETREE_EXPERIMENTAL",
		}},
	} {
		c := &commonpb.Capabilities{}
		if err := proto.Unmarshal(g.group.GetValues()[capabilitiesKey].GetValue(), c); err != nil {
			return fmt.Errorf("decode %s of group %s: %w", capabilitiesKey, g.name, err)
		}
		for _, name := range slices.Sorted(maps.Keys(c.Capabilities)) {
			if !slices.Contains(g.known, name) {
				return &UnsupportedCapability{Group: g.name, Name: name}
			}
		}
	}
	return nil
}

func (g channelGroup) v142() bool { return g.capabilities.any("V1_4_2", "V1_4_3", "V2_0", "V3_0") }
func (g channelGroup) v3() bool   { return g.capabilities["V3_0"] }

func (g *ordererGroup) consensusMigration() bool { return g.capabilities.any("V1_4_2", "V2_0") }

func (g *applicationGroup) aclsAllowed() bool {
	return g.capabilities.any("V1_2", "V1_3", "V1_4_2", "V2_0", "V2_5")
}

func (b *Bundle) applicationHas(names ...string) bool {
	return b.application != nil && b.application.capabilities.any(names...)
}

// ChannelV3 says whether the channel is at V3_0: BFT consensus and Ed25519 keys
// are allowed, orderer endpoints are each member's own.
func (b *Bundle) ChannelV3() bool { return b.channel.v3() }

// ApplicationV2_0 says whether the 2.0 lifecycle and validation are in force;
// every later level includes it.
func (b *Bundle) ApplicationV2_0() bool { return b.applicationHas("V2_0", "V2_5") }

// ApplicationV2_5 says whether private data may be purged.
func (b *Bundle) ApplicationV2_5() bool { return b.applicationHas("V2_5") }

// ApplicationV1_3 says whether key-level endorsement policies are in force.
func (b *Bundle) ApplicationV1_3() bool { return b.applicationHas("V1_3", "V1_4_2", "V2_0", "V2_5") }
