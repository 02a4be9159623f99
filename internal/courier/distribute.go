package courier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/hansa-ledger/hansa/internal/endorse"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/privatedatapb"
)

var _ endorse.Distributor = (*Courier)(nil)

// delivery is the private data of one collection of a transaction on its way.
type delivery struct {
	set      *privatedatapb.WriteSet
	required int    // this many peers have to take it
	maximum  int    // this many get it; further ones of order only in the place of others
	order    []Peer // whom to bring it to, one peer of each member first
	next     int    // of order, that it was not brought to yet
	kept     int    // by how many peers
}

// Distribute brings private data to other peers of its collections' members: to as many as each collection's definition
// allows, and it waits until as many as the definition requires have it. The others get theirs without being waited for.
func (c *Courier) Distribute(ctx context.Context, data *endorse.PrivateData) error {
	deliveries, plans, err := c.plan(data)
	if err != nil || len(deliveries) == 0 {
		return err
	}
	// Time for one peer that does not answer, and another in its place.
	ctx, cancel := context.WithTimeout(ctx, 2*c.config.PushTimeout)
	defer cancel()
	for {
		if err := c.wave(ctx, data, deliveries); err != nil {
			return err
		}
		unmet, hopeless := 0, ctx.Err() != nil
		for _, d := range deliveries {
			if missing := d.required - d.kept; missing > 0 {
				unmet += missing
				hopeless = hopeless || len(d.order)-d.next < missing
			}
		}
		if unmet == 0 {
			return nil
		}
		if hopeless {
			return fmt.Errorf("Failed disseminating %d out of %d private dissemination plans", unmet, plans) //nolint:staticcheck // Fabric's words
		}
	}
}

// plan says whom to bring each collection's data.
func (c *Courier) plan(data *endorse.PrivateData) (deliveries []*delivery, plans int, err error) {
	var peers []Peer
	listed := false
	for _, ns := range data.Set.GetNsPvtRwset() {
		for _, collection := range ns.CollectionPvtRwset {
			config, required, maximum, err := c.terms(data, ns.Namespace, collection.CollectionName)
			if err != nil {
				return nil, 0, err
			}
			if required == 0 && maximum == 0 {
				continue
			}
			if !listed {
				peers, listed = c.config.Peers(data.ChannelID), true
			}
			order := c.arrange(peers, membersOf(config))
			if len(order) < required {
				return nil, 0, fmt.Errorf("could not build private data dissemination plan for chaincode %s and collection %s: required to disseminate to at least %d peers, but know of only %d eligible peers",
					ns.Namespace, collection.CollectionName, required, len(order))
			}
			if len(order) == 0 {
				continue
			}
			deliveries = append(deliveries, &delivery{
				set:      &privatedatapb.WriteSet{Namespace: ns.Namespace, Collection: collection.CollectionName, Rwset: collection.Rwset},
				required: required, maximum: max(maximum, required), order: order,
			})
			plans += min(len(order), max(maximum, required))
		}
	}
	return deliveries, plans, nil
}

// terms are a collection's definition and to how many other peers its data has to go and may go.
func (c *Courier) terms(data *endorse.PrivateData, namespace, collection string) (config *peerpb.StaticCollectionConfig, required, maximum int, err error) {
	if mspID, implicit := strings.CutPrefix(collection, simulation.ImplicitPrefix); implicit {
		config = simulation.ImplicitCollection(mspID)
		if mspID == c.config.MSPID {
			required, maximum = c.config.ImplicitRequired, c.config.ImplicitMaximum
		}
		return config, required, maximum, nil
	}
	for _, one := range data.Collections[namespace].GetConfig() {
		if config := one.GetStaticCollectionConfig(); config.GetName() == collection {
			return config, int(config.RequiredPeerCount), int(config.MaximumPeerCount), nil
		}
	}
	return nil, 0, 0, fmt.Errorf("could not find collection access policy for %s and collection %s: no configuration for collection %s found", namespace, collection, collection)
}

// arrange puts the members' peers into the order in which they get something: first one of each member, in any order, so that
// many members have it; those that failed lately last.
func (c *Courier) arrange(peers []Peer, members []string) []Peer {
	byMember := map[string][]Peer{}
	var eligible []Peer
	for _, p := range peers {
		if slices.Contains(members, p.MSPID) {
			eligible = append(eligible, p)
		}
	}
	rand.Shuffle(len(eligible), func(i, j int) { eligible[i], eligible[j] = eligible[j], eligible[i] })
	good := c.fresh(eligible)
	rest := slices.DeleteFunc(slices.Clone(eligible), func(p Peer) bool {
		return slices.ContainsFunc(good, func(g Peer) bool { return g.key() == p.key() })
	})
	var order, second []Peer
	for _, p := range good {
		if len(byMember[p.MSPID]) == 0 {
			order = append(order, p)
		} else {
			second = append(second, p)
		}
		byMember[p.MSPID] = append(byMember[p.MSPID], p)
	}
	return slices.Concat(order, second, rest)
}

// parcel is what one peer gets.
type parcel struct {
	peer       Peer
	deliveries []*delivery
	awaited    bool
}

type receipt struct {
	parcel *parcel
	kept   []bool
	err    error
}

// wave brings each delivery to further peers: at first to all that shall have it, later to as many as are still required.
func (c *Courier) wave(ctx context.Context, data *endorse.PrivateData, deliveries []*delivery) error {
	parcels := map[peerKey]*parcel{}
	for _, d := range deliveries {
		count := d.required - d.kept
		if d.next == 0 {
			count = d.maximum
		}
		for count > 0 && d.next < len(d.order) {
			p := d.order[d.next]
			d.next++
			count--
			if parcels[p.key()] == nil {
				parcels[p.key()] = &parcel{peer: p}
			}
			parcels[p.key()].deliveries = append(parcels[p.key()].deliveries, d)
			parcels[p.key()].awaited = parcels[p.key()].awaited || d.required > 0
		}
	}
	receipts := make(chan receipt, len(parcels))
	awaited := 0
	for _, p := range parcels {
		if err := c.send(ctx, data, p, receipts); err != nil {
			return err
		}
		if p.awaited {
			awaited++
		}
	}
	for ; awaited > 0; awaited-- {
		select {
		case r := <-receipts:
			for i, d := range r.parcel.deliveries {
				if r.err == nil && r.kept[i] {
					d.kept++
				}
			}
			if !slices.ContainsFunc(deliveries, func(d *delivery) bool { return d.kept < d.required }) {
				return nil
			}
		case <-ctx.Done():
			return nil // Distribute sees what is unmet
		}
	}
	return nil
}

// send brings a parcel in the background. What nobody waits for is dropped when too much is under way.
func (c *Courier) send(ctx context.Context, data *endorse.PrivateData, p *parcel, receipts chan<- receipt) error {
	if p.awaited {
		select {
		case c.sending <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
	} else {
		select {
		case c.sending <- struct{}{}:
		default:
			return nil
		}
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.sending
		return errors.New("the peer is shutting down")
	}
	c.sends.Add(1)
	c.mu.Unlock()
	go func() {
		defer c.sends.Done()
		defer func() { <-c.sending }()
		// The endorsement may be given before: the data is on its way all the same.
		ctx, cancel := context.WithTimeout(c.ctx, c.config.PushTimeout)
		defer cancel()
		sets := make([]*privatedatapb.WriteSet, len(p.deliveries))
		for i, d := range p.deliveries {
			sets[i] = d.set
		}
		kept, err := c.push(ctx, data, p.peer, sets)
		for i := range sets {
			count(c.metrics.brought, data.ChannelID, err == nil && kept[i])
		}
		if err != nil {
			c.config.Log.Warn("private data could not be brought to a peer", "channel", data.ChannelID, "transaction", data.TxID, "peer", p.peer.Address, "error", err)
		}
		if p.awaited {
			receipts <- receipt{p, kept, err}
		}
	}()
	return nil
}
