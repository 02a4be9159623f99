package courier

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/lifecycle"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// now stands for a block that is not there yet: the rules of today.
const now = math.MaxUint64

// membership answers who belongs to which collections of a channel. It serves one request and remembers what it read.
type membership struct {
	channel Channel
	bundle  *channel.Bundle
	known   map[place]*peerpb.StaticCollectionConfig
}

type place struct {
	namespace, collection string
	block                 uint64
}

func newMembership(ch Channel) *membership {
	return &membership{channel: ch, bundle: ch.Bundle(), known: map[place]*peerpb.StaticCollectionConfig{}}
}

// collection gives a collection as it was defined before a block; nil if it was not.
func (m *membership) collection(namespace, collection string, block uint64) (*peerpb.StaticCollectionConfig, error) {
	if mspID, implicit := strings.CutPrefix(collection, simulation.ImplicitPrefix); implicit {
		return simulation.ImplicitCollection(mspID), nil
	}
	at := place{namespace, collection, block}
	if config, ok := m.known[at]; ok {
		return config, nil
	}
	if l := m.channel.Ledger(); block < l.Height() {
		// By the history of collections, which a snapshot brings along, unlike that of the definitions.
		config, err := l.CollectionBefore(block, namespace, collection)
		if err != nil {
			return nil, fmt.Errorf("collection %s of %s: %w", collection, namespace, err)
		}
		m.known[at] = config
		return config, nil
	}
	var failed error // of the state; a definition that cannot be decoded is none
	definition, err := lifecycle.Read(namespace, func(ns, key string) ([]byte, error) {
		value, err := m.channel.Ledger().ValueBefore(block, ns, key)
		if err != nil {
			failed = err
		}
		return value, err
	})
	if failed != nil {
		return nil, fmt.Errorf("collection %s of %s: %w", collection, namespace, failed)
	}
	var config *peerpb.StaticCollectionConfig
	if err == nil && definition != nil {
		config = definition.Collection(collection)
	}
	m.known[at] = config
	return config, nil
}

// belongs reports whether an identity satisfies the member policy that a collection had before a block.
func (m *membership) belongs(id *identity.Identity, namespace, collection string, block uint64) (bool, error) {
	config, err := m.collection(namespace, collection, block)
	if config == nil || err != nil {
		return false, err
	}
	rule := config.GetMemberOrgsPolicy().GetSignaturePolicy()
	if rule == nil {
		return false, nil
	}
	members, err := policy.NewSignature(rule, m.bundle.MSPs())
	if err != nil {
		return false, nil // a policy that cannot be used lets nobody in
	}
	return members.EvaluateIdentities([]*identity.Identity{id}) == nil, nil
}

// reads reports whether an identity may read what a block wrote into a collection.
func (m *membership) reads(id *identity.Identity, namespace, collection string, block uint64) (bool, error) {
	config, err := m.collection(namespace, collection, block)
	if config == nil || err != nil {
		return false, err
	}
	if !config.MemberOnlyRead {
		return true, nil
	}
	return m.belongs(id, namespace, collection, block)
}

// membersOf lists the members that a collection's policy names. Which of their peers satisfy it, they decide themselves.
func membersOf(config *peerpb.StaticCollectionConfig) []string {
	var members []string
	for _, principal := range config.GetMemberOrgsPolicy().GetSignaturePolicy().GetIdentities() {
		mspID := ""
		switch principal.PrincipalClassification {
		case msppb.MSPPrincipal_ROLE:
			role := &msppb.MSPRole{}
			if proto.Unmarshal(principal.Principal, role) == nil {
				mspID = role.MspIdentifier
			}
		case msppb.MSPPrincipal_ORGANIZATION_UNIT:
			unit := &msppb.OrganizationUnit{}
			if proto.Unmarshal(principal.Principal, unit) == nil {
				mspID = unit.MspIdentifier
			}
		}
		if mspID != "" && !slices.Contains(members, mspID) {
			members = append(members, mspID)
		}
	}
	return members
}

// Readable gives the private write sets of a block that the signer of a request may see, by transaction number: those of
// collections that, as they were when the block was written, do not restrict reading to members (memberOnlyRead), and of the others
// those whose member policy the signer satisfies. Contracts let readers in by the same rule.
func (c *Courier) Readable(_ context.Context, ch Channel, number uint64, reader policy.SignedData) (map[uint64]*rwsetpb.TxPvtReadWriteSet, error) {
	sets, err := ch.Ledger().LivePrivateData(number)
	if err != nil {
		return nil, err
	}
	readable := map[uint64]*rwsetpb.TxPvtReadWriteSet{}
	if len(sets) == 0 {
		return readable, nil
	}
	m := newMembership(ch)
	ids := policy.ValidIdentities([]policy.SignedData{reader}, m.bundle.MSPs())
	if len(ids) == 0 {
		return readable, nil
	}
	for _, tx := range sets {
		seen := &rwsetpb.TxPvtReadWriteSet{DataModel: tx.Set.DataModel}
		for _, ns := range tx.Set.NsPvtRwset {
			part := &rwsetpb.NsPvtReadWriteSet{Namespace: ns.Namespace}
			for _, collection := range ns.CollectionPvtRwset {
				ok, err := m.reads(ids[0], ns.Namespace, collection.CollectionName, number)
				if err != nil {
					return nil, err
				}
				if ok {
					part.CollectionPvtRwset = append(part.CollectionPvtRwset, collection)
				}
			}
			if len(part.CollectionPvtRwset) > 0 {
				seen.NsPvtRwset = append(seen.NsPvtRwset, part)
			}
		}
		if len(seen.NsPvtRwset) > 0 {
			readable[tx.Tx] = seen
		}
	}
	return readable, nil
}
