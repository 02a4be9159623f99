package validate

import (
	"bytes"
	"slices"

	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// conflicts checks what a transaction read against the state and the updates of the block so far: namespace by
// namespace, and in each single reads, range queries, then reads of private keys' hashes. A key that an
// earlier valid transaction of the block touched conflicts whatever its version.
func (d *decision) conflicts(set *rwset.Set) (Code, error) {
	for _, ns := range set.Namespaces {
		for _, read := range ns.KV.Reads {
			if d.updates.Get(ns.Name, read.Key) != nil {
				return peerpb.TxValidationCode_MVCC_READ_CONFLICT, nil
			}
			if now, err := d.state.Get(ns.Name, read.Key); err != nil || !unchanged(now, read.Version) {
				return peerpb.TxValidationCode_MVCC_READ_CONFLICT, err
			}
		}
		for _, query := range ns.KV.RangeQueriesInfo {
			if same, err := d.sameRange(ns.Name, query); err != nil || !same {
				return peerpb.TxValidationCode_PHANTOM_READ_CONFLICT, err
			}
		}
		for _, c := range ns.Collections {
			for _, read := range c.Hashed.HashedReads {
				// Writes to a collection without a name count as public ones, but reads do not look there.
				if c.Name != "" && d.updates.GetHash(ns.Name, c.Name, read.KeyHash) != nil {
					return peerpb.TxValidationCode_MVCC_READ_CONFLICT, nil
				}
				if now, err := d.state.GetHash(ns.Name, c.Name, read.KeyHash); err != nil || !unchanged(now, read.Version) {
					return peerpb.TxValidationCode_MVCC_READ_CONFLICT, err
				}
			}
		}
	}
	return valid, nil
}

// unchanged compares what the state holds with the version that was read, nil for a key that did not exist.
func unchanged(now *rwset.VersionedValue, read *kvrwsetpb.Version) bool {
	if now == nil || read == nil {
		return now == nil && read == nil
	}
	return now.Version == rwset.Version{Block: read.BlockNum, Tx: read.TxNum}
}

// sameRange runs a range query again, over the state with the block's updates so far, and compares its results with
// those recorded: every key and version, so that an update of a value counts as well as a phantom.
func (d *decision) sameRange(ns string, query *kvrwsetpb.RangeQueryInfo) (bool, error) {
	results, err := d.openRange(ns, query)
	if err != nil {
		return false, err
	}
	defer results.close()
	if summary := query.GetReadsMerkleHashes(); summary != nil {
		return sameSummary(results, summary)
	}
	for _, read := range query.GetRawReads().GetKvReads() {
		key, version, ok, err := results.next()
		// A recorded result without a version, which no endorser makes, cannot be the same.
		if err != nil || !ok || key != read.Key || read.Version == nil || version != (rwset.Version{Block: read.Version.BlockNum, Tx: read.Version.TxNum}) {
			return false, err
		}
	}
	_, _, more, err := results.next()
	return !more, err
}

// sameSummary builds the tree of hashes as simulation did and stops once it has outgrown what is wanted. A summary
// that no tree can have (of a degree below 2, where the reference implementation stops, or with more hashes on a level
// than its degree allows, where it panics) equals none.
func sameSummary(results *rangeResults, want *kvrwsetpb.QueryReadsMerkleSummary) (bool, error) {
	tree, err := rwset.NewRangeResults(want.MaxDegree)
	if err != nil {
		return false, nil
	}
	for {
		key, version, ok, err := results.next()
		if err != nil {
			return false, err
		}
		if !ok {
			_, got := tree.Done()
			return got != nil && got.MaxLevel == want.MaxLevel && slices.EqualFunc(got.MaxLevelHashes, want.MaxLevelHashes, bytes.Equal), nil
		}
		tree.Add(key, version)
		if got := tree.Summary(); got.MaxLevel > want.MaxLevel || got.MaxLevel == want.MaxLevel && len(got.MaxLevelHashes) > len(want.MaxLevelHashes) {
			return false, nil
		}
	}
}

// rangeResults merges a range of the state with the block's updates, which hide and delete what the state holds.
type rangeResults struct {
	d       *decision
	ns      string
	state   ledger.Iterator
	updates []*rwset.Update

	key   string // the state's next, if more
	value *rwset.VersionedValue
	more  bool

	// last is the end key, which belongs to the results if the query was not exhausted; served once all others are.
	last *string
}

func (d *decision) openRange(ns string, query *kvrwsetpb.RangeQueryInfo) (*rangeResults, error) {
	it, err := d.state.Range(ns, query.StartKey, query.EndKey)
	if err != nil {
		return nil, err
	}
	r := &rangeResults{d: d, ns: ns, state: it, updates: d.updates.Range(ns, query.StartKey, query.EndKey)}
	if !query.ItrExhausted {
		r.last = &query.EndKey
	}
	if err := r.advance(); err != nil {
		it.Close()
		return nil, err
	}
	return r, nil
}

func (r *rangeResults) close() { r.state.Close() }

func (r *rangeResults) advance() (err error) {
	r.key, r.value, r.more, err = r.state.Next()
	return err
}

func (r *rangeResults) next() (key string, version rwset.Version, ok bool, err error) {
	for r.more || len(r.updates) > 0 {
		if len(r.updates) == 0 || r.more && r.key < r.updates[0].Key {
			key, version = r.key, r.value.Version
			err = r.advance()
			return key, version, err == nil, err
		}
		update := r.updates[0]
		r.updates = r.updates[1:]
		if r.more && r.key == update.Key {
			if err = r.advance(); err != nil {
				return "", rwset.Version{}, false, err
			}
		}
		if !update.Delete {
			return update.Key, update.Version, true, nil
		}
	}
	if r.last == nil {
		return "", rwset.Version{}, false, nil
	}
	key, r.last = *r.last, nil
	if update := r.d.updates.Get(r.ns, key); update != nil {
		return key, update.Version, !update.Delete, nil
	}
	value, err := r.d.state.Get(r.ns, key)
	if err != nil || value == nil {
		return "", rwset.Version{}, false, err
	}
	return key, value.Version, true, nil
}
