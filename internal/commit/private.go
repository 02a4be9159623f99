package commit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/lifecycle"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/validate"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// PrivateData fetches from other peers the private write sets that this one lacks.
type PrivateData interface {
	// Fetch gives, for each that is wanted, the serialized private write set of the collection, or nil; the
	// block waits for it, so it gives up in good time. Whoever sends wrong ones does no harm: the hashes are checked.
	Fetch(ctx context.Context, number uint64, wanted []Wanted) ([][]byte, error)
}

// Wanted is the private write set of a collection in a transaction of a block.
type Wanted struct {
	Tx                          uint64
	TxID, Namespace, Collection string
	Hash                        []byte // SHA-256 of the serialized write set
}

// transientLife is for how many blocks private data waits for the commit of its transaction, as in Fabric.
const transientLife = 1000

const implicitPrefix = "_implicit_org_"

// private is a block's private data as far as it is here.
type private struct {
	found   []ledger.TxPrivate
	missing []ledger.Missing
	ids     []string // of the transactions that had any in the transient store
	number  uint64
}

// gather looks for the private data of a block's transactions: first what waits here since endorsement, then what other peers
// give; for a block that a rollback dropped, what it had before. Data of invalid transactions is kept if it is here, but not asked for.
// What this peer endorsed for collections that it does not belong to is dropped.
func (c *Channel) gather(ctx context.Context, b *block.Parsed, r *validate.Result, snapshot *ledger.Snapshot) (*private, error) {
	p := &private{number: b.Header.Number}
	sets := map[uint64]*rwsetpb.TxPvtReadWriteSet{}
	var lacking []Wanted
	var kept []*rwsetpb.TxPvtReadWriteSet // of the last of p.ids
	member := c.membership(snapshot)
	dropped, err := c.ledger.Dropped(p.number)
	if err != nil {
		return nil, err
	}
	for _, want := range wantedOf(b, r) {
		if n := len(p.ids); n == 0 || p.ids[n-1] != want.TxID {
			var err error
			if kept, err = c.ledger.Transient().Get(want.TxID); err != nil {
				return nil, fmt.Errorf("read private data of transaction %d: %w", want.Tx, err)
			}
			p.ids = append(p.ids, want.TxID)
			for _, tx := range dropped {
				if tx.Tx == want.Tx {
					kept = append(kept, tx.Set)
				}
			}
		}
		belongs, err := member(want.Namespace, want.Collection)
		if err != nil {
			return nil, err
		}
		// A channel without an identity of its own is no peer's: it keeps what it is given.
		if raw := find(kept, want); raw != nil && (belongs || len(c.config.Self) == 0) {
			add(sets, want, raw)
		} else if r.Codes[want.Tx] != byte(peerpb.TxValidationCode_VALID) {
			continue
		} else if belongs {
			lacking = append(lacking, want)
		} else {
			p.missing = append(p.missing, ledger.Missing{Block: p.number, Tx: want.Tx, Namespace: want.Namespace, Collection: want.Collection})
		}
	}
	if err := c.fetch(ctx, p, sets, lacking); err != nil {
		return nil, err
	}
	for i := range r.Codes {
		if set := sets[uint64(i)]; set != nil {
			p.found = append(p.found, ledger.TxPrivate{Tx: uint64(i), Set: set})
		}
	}
	return p, nil
}

// wantedOf lists the private write sets that a block's transactions hash. A copy of a known transaction has none.
func wantedOf(b *block.Parsed, r *validate.Result) []Wanted {
	var all []Wanted
	for i, set := range r.Sets {
		if set == nil || r.Codes[i] == byte(peerpb.TxValidationCode_DUPLICATE_TXID) {
			continue
		}
		for _, ns := range set.Namespaces {
			for _, coll := range ns.Collections {
				if len(coll.PvtRWSetHash) > 0 {
					all = append(all, Wanted{uint64(i), r.TxIDs[i], ns.Name, coll.Name, coll.PvtRWSetHash})
				}
			}
		}
	}
	return all
}

func find(kept []*rwsetpb.TxPvtReadWriteSet, want Wanted) []byte {
	for _, set := range kept {
		for _, ns := range set.NsPvtRwset {
			for _, coll := range ns.CollectionPvtRwset {
				if ns.Namespace == want.Namespace && coll.CollectionName == want.Collection && want.matches(coll.Rwset) {
					return coll.Rwset
				}
			}
		}
	}
	return nil
}

func (w *Wanted) matches(raw []byte) bool {
	sum := sha256.Sum256(raw)
	return raw != nil && bytes.Equal(sum[:], w.Hash)
}

// add puts a collection's write set into its transaction's. Those of one namespace come one after the other.
func add(sets map[uint64]*rwsetpb.TxPvtReadWriteSet, want Wanted, raw []byte) {
	set := sets[want.Tx]
	if set == nil {
		set = &rwsetpb.TxPvtReadWriteSet{DataModel: rwsetpb.TxReadWriteSet_KV}
		sets[want.Tx] = set
	}
	n := len(set.NsPvtRwset)
	if n == 0 || set.NsPvtRwset[n-1].Namespace != want.Namespace {
		set.NsPvtRwset = append(set.NsPvtRwset, &rwsetpb.NsPvtReadWriteSet{Namespace: want.Namespace})
		n++
	}
	ns := set.NsPvtRwset[n-1]
	ns.CollectionPvtRwset = append(ns.CollectionPvtRwset, &rwsetpb.CollectionPvtReadWriteSet{CollectionName: want.Collection, Rwset: raw})
}

// fetch asks other peers for what this peer should have, and notes what stays missing.
func (c *Channel) fetch(ctx context.Context, p *private, sets map[uint64]*rwsetpb.TxPvtReadWriteSet, eligible []Wanted) error {
	if len(eligible) == 0 {
		return nil
	}
	got := make([][]byte, len(eligible))
	if c.config.Private != nil {
		raw, err := c.config.Private.Fetch(ctx, p.number, eligible)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			c.log.Warn("private data could not be fetched; the block is committed without", "block", p.number, "error", err)
		}
		copy(got, raw)
	}
	for i, want := range eligible {
		if want.matches(got[i]) {
			add(sets, want, got[i])
			continue
		}
		p.missing = append(p.missing, ledger.Missing{Block: p.number, Tx: want.Tx, Namespace: want.Namespace, Collection: want.Collection, Eligible: true})
	}
	return nil
}

// membership is member, which remembers its answers: a block asks for few collections many times.
func (c *Channel) membership(snapshot *ledger.Snapshot) func(namespace, collection string) (bool, error) {
	type place struct{ namespace, collection string }
	known := map[place]bool{}
	return func(namespace, collection string) (bool, error) {
		if belongs, ok := known[place{namespace, collection}]; ok {
			return belongs, nil
		}
		belongs, err := c.member(namespace, collection, snapshot)
		if err == nil {
			known[place{namespace, collection}] = belongs
		}
		return belongs, err
	}
}

// member says whether this peer belongs to a collection, by the definition before the block.
func (c *Channel) member(namespace, collection string, snapshot *ledger.Snapshot) (bool, error) {
	if len(c.config.Self) == 0 {
		return false, nil
	}
	bundle := c.Bundle()
	self, err := bundle.MSPs().Deserialize(c.config.Self)
	if err != nil {
		return false, nil // this peer's member is not on the channel, or not any more
	}
	if mspID, implicit := strings.CutPrefix(collection, implicitPrefix); implicit {
		return mspID == self.MSPID(), nil
	}
	var failed error // of the state; a definition that cannot be decoded must not stop the channel
	definition, err := lifecycle.Read(namespace, func(ns, key string) ([]byte, error) {
		value, err := snapshot.Get(ns, key)
		if value == nil || err != nil {
			failed = err
			return nil, err
		}
		return value.Value, nil
	})
	if err != nil || definition == nil {
		return false, failed
	}
	rule := definition.Collection(collection).GetMemberOrgsPolicy().GetSignaturePolicy()
	if rule == nil {
		return false, nil
	}
	members, err := policy.NewSignature(rule, bundle.MSPs())
	return err == nil && members.EvaluateIdentities([]*identity.Identity{self}) == nil, nil
}

// forget drops what waited for the block's transactions, and what has waited too long. The block is committed, so a failure
// costs space only.
func (p *private) forget(c *Channel) {
	transient := c.ledger.Transient()
	if len(p.ids) > 0 {
		if err := transient.Remove(p.ids...); err != nil {
			c.log.Warn("private data of committed transactions could not be removed from the transient store", "error", err)
		}
	}
	if p.number >= transientLife && p.number%transientLife == 0 {
		if err := transient.PurgeBelow(p.number - transientLife); err != nil {
			c.log.Warn("old private data could not be removed from the transient store", "error", err)
		}
	}
}
