package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/privatedb"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/statedb"
	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// Late is a private write set that comes after its block was committed without it.
type Late struct {
	Missing
	// Rwset is the serialized write set, less what the sender has purged. nil where nothing has to be fetched any more.
	Rwset []byte
}

// Lacking is a missing private write set with what is needed to ask others for it.
type Lacking struct {
	Missing
	TxID string
	Hash []byte // SHA-256 of the serialized write set
}

// MissingPrivateDataBelow is MissingPrivateData for the blocks below one.
func (l *Ledger) MissingPrivateDataBelow(block uint64, limit int) ([]Missing, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	return privatedb.NewView(l.db).MissingBelow(block, limit)
}

// LivePrivateData is PrivateData without what has outlived its collection's block-to-live: it may not be handed out any more.
func (l *Ledger) LivePrivateData(n uint64) ([]TxPrivate, error) {
	sets, err := l.PrivateData(n)
	if err != nil || len(sets) == 0 {
		return nil, err
	}
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	var live []TxPrivate
	for _, tx := range sets {
		kept := &rwsetpb.TxPvtReadWriteSet{DataModel: tx.Set.DataModel}
		parsed, err := rwset.ParsePrivate(tx.Set)
		if err != nil {
			return nil, fmt.Errorf("private data of block %d: %w", n, err)
		}
		for _, c := range parsed.Collections {
			hashes := make(map[string][]byte, len(c.KV.Writes))
			for _, w := range c.KV.Writes {
				sum := sha256.Sum256(w.Value)
				hashes[string(rwset.KeyHash(w.Key))] = sum[:]
			}
			m := Missing{Block: n, Tx: tx.Tx, Namespace: c.Namespace, Collection: c.Name}
			expired, err := l.expired(m, hashes)
			if err != nil {
				return nil, err
			}
			if !expired {
				addPrivate(kept, m, c.Raw)
			}
		}
		if len(kept.NsPvtRwset) > 0 {
			live = append(live, TxPrivate{Tx: tx.Tx, Set: kept})
		}
	}
	return live, nil
}

// expired reports whether a write set, given by the hashes of its keys and values, has outlived its collection's block-to-live
// and none of its values lives on by a metadata-only write.
func (l *Ledger) expired(m Missing, hashes map[string][]byte) (bool, error) {
	state := statedb.New(l.db, l.hints)
	expired, err := privatedb.Expired(state, m.Namespace, m.Collection, m.Block, l.Height())
	if !expired || err != nil {
		return false, err
	}
	for key, value := range hashes {
		current, err := state.GetHash(m.Namespace, m.Collection, []byte(key))
		if err != nil {
			return false, err
		}
		if current != nil && bytes.Equal(current.Value, value) {
			return false, nil
		}
	}
	return true, nil
}

// Sort tells what to do about missing private data: what settles without anyone's help, because it has expired or was
// purged or is in the log since before a crash, to be given to CommitLate; and what others have to be asked for.
func (l *Ledger) Sort(missing []Missing) (settled []Late, lacking []Lacking, err error) {
	if err := l.enter(); err != nil {
		return nil, nil, err
	}
	defer l.leave()
	var at *past
	for _, m := range missing {
		if at == nil || at.number != m.Block {
			if at, err = l.past(m.Block); err != nil {
				return nil, nil, err
			}
		}
		collection := at.collection(m)
		if raw := at.inLog(m); raw != nil || collection == nil {
			settled = append(settled, Late{m, raw})
			continue
		}
		over, err := l.over(m, collection)
		if err != nil {
			return nil, nil, err
		}
		if over {
			settled = append(settled, Late{m, nil})
			continue
		}
		lacking = append(lacking, Lacking{m, TxID(at.block.Txs[m.Tx]), collection.PvtRWSetHash})
	}
	return settled, lacking, nil
}

// CommitLate makes private data that was missing part of the ledger, as if it had come with its block: durable in the log, and of
// effect as far as it was not overwritten since. What does not match the hashes in its block is left out and stays
// missing; taken is the number of those that are missing no more. Of what is from before the snapshot that the ledger began with
// there is no block, and what counts is the state: values are taken whose hashes are in it (see UnfetchedPrivateData). They are not in the
// log; should they be lost, they are unfetched again. It is called by the goroutine that commits, not while Commit runs.
func (l *Ledger) CommitLate(late []Late) (taken int, err error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.leave()
	l.mu.Lock()
	err = l.failed
	l.mu.Unlock()
	if err != nil {
		return 0, err
	}
	late = slices.Clone(late)
	slices.SortStableFunc(late, func(a, b Late) int {
		return rwset.Version{Block: a.Block, Tx: a.Tx}.Compare(rwset.Version{Block: b.Block, Tx: b.Tx})
	})
	l.applying.Lock()
	defer l.applying.Unlock()
	state := statedb.New(l.db, l.hints)
	view := privatedb.NewView(l.db)
	batch := l.db.NewBatch()
	if !l.indexes.None() {
		batch = l.db.NewIndexedBatch() // indexLate reads it
	}
	defer batch.Close()
	var applied []*rwsetpb.TxPvtReadWriteSet
	extras := map[uint64][]byte{}
	var at *past
	for _, item := range late {
		if item.Block < l.first {
			set, err := unfetched(item, state)
			if err != nil {
				return 0, err
			}
			if set != nil {
				if err := view.ApplyLate(batch, item.Block, privatedb.Data{Tx: item.Tx, Set: set}, state); err != nil {
					return 0, err
				}
				applied = append(applied, set)
				taken++
			}
			continue
		}
		if at == nil || at.number != item.Block {
			if at, err = l.past(item.Block); err != nil {
				return 0, err
			}
		}
		raw, ok, err := l.accept(at, item)
		if err != nil {
			return 0, err
		}
		if !ok {
			continue
		}
		taken++
		if err := privatedb.Settle(batch, item.Missing); err != nil {
			return 0, err
		}
		if raw == nil {
			continue
		}
		set := &rwsetpb.TxPvtReadWriteSet{}
		addPrivate(set, item.Missing, raw)
		if err := view.ApplyLate(batch, item.Block, privatedb.Data{Tx: item.Tx, Set: set}, state); err != nil {
			return 0, err
		}
		applied = append(applied, set)
		if at.add(item.Missing, raw) {
			extras[item.Block] = encodeExtra(at.private, at.missing)
		}
	}
	if !l.indexes.None() {
		if err := l.indexLate(batch, applied); err != nil {
			return 0, err
		}
	}
	// The log first: should the rest be lost, the data is listed as missing and found there by Sort.
	if len(extras) > 0 {
		if err := l.blocks.ReplaceExtra(extras); err != nil {
			return 0, fmt.Errorf("commit late private data: %w", err)
		}
	}
	if err := batch.Commit(pebble.NoSync); err != nil {
		return 0, fmt.Errorf("commit late private data: %w", err)
	}
	return taken, nil
}

// unfetched takes out of a write set from before the snapshot what is still in the state by its hashes; nil if that is nothing.
func unfetched(item Late, state *statedb.State) (*rwsetpb.TxPvtReadWriteSet, error) {
	var kv, kept kvrwsetpb.KVRWSet
	if item.Rwset == nil || proto.Unmarshal(item.Rwset, &kv) != nil {
		return nil, nil
	}
	for _, w := range kv.Writes {
		if rwset.IsDelete(w) {
			continue
		}
		current, err := state.GetHash(item.Namespace, item.Collection, rwset.KeyHash(w.Key))
		if err != nil {
			return nil, err
		}
		value := sha256.Sum256(w.Value)
		if current != nil && current.Version == (rwset.Version{Block: item.Block, Tx: item.Tx}) && bytes.Equal(current.Value, value[:]) {
			kept.Writes = append(kept.Writes, w)
		}
	}
	if len(kept.Writes) == 0 {
		return nil, nil
	}
	raw, err := proto.Marshal(&kept)
	if err != nil {
		return nil, fmt.Errorf("encode private write set: %w", err)
	}
	set := &rwsetpb.TxPvtReadWriteSet{}
	addPrivate(set, item.Missing, raw)
	return set, nil
}

// past is a committed block with its private data.
type past struct {
	number  uint64
	block   *block.Parsed
	sets    []*rwset.Set
	private []TxPrivate
	missing []Missing
}

func (l *Ledger) past(n uint64) (*past, error) {
	b, err := l.Block(n)
	if err != nil {
		return nil, err
	}
	p := &past{number: n, block: block.Parse(b)}
	_, extra, err := l.blocks.Read(n)
	if err == nil {
		p.private, p.missing, err = decodeExtra(extra)
	}
	if err == nil {
		p.sets, err = Sets(p.block, block.Filter(b))
	}
	if err != nil {
		return nil, fmt.Errorf("private data of block %d: %w", n, err)
	}
	return p, nil
}

// collection is the public part of what a valid transaction did to a collection; nil if it did nothing.
func (p *past) collection(m Missing) *rwset.Collection {
	if m.Tx >= uint64(len(p.sets)) || p.sets[m.Tx] == nil {
		return nil
	}
	for _, ns := range p.sets[m.Tx].Namespaces {
		for _, c := range ns.Collections {
			if ns.Name == m.Namespace && c.Name == m.Collection && len(c.PvtRWSetHash) > 0 {
				return c
			}
		}
	}
	return nil
}

func (p *past) inLog(m Missing) []byte {
	for _, tx := range p.private {
		if tx.Tx != m.Tx {
			continue
		}
		for _, ns := range tx.Set.NsPvtRwset {
			for _, c := range ns.CollectionPvtRwset {
				if ns.Namespace == m.Namespace && c.CollectionName == m.Collection {
					return append([]byte{}, c.Rwset...)
				}
			}
		}
	}
	return nil
}

// add puts a write set into what the log has of the block; false if it is there.
func (p *past) add(m Missing, raw []byte) bool {
	if p.inLog(m) != nil {
		return false
	}
	p.missing = slices.DeleteFunc(p.missing, func(other Missing) bool {
		return other.Tx == m.Tx && other.Namespace == m.Namespace && other.Collection == m.Collection
	})
	i, found := slices.BinarySearchFunc(p.private, m.Tx, func(tx TxPrivate, want uint64) int {
		return int(int64(tx.Tx) - int64(want))
	})
	if !found {
		p.private = slices.Insert(p.private, i, TxPrivate{Tx: m.Tx, Set: &rwsetpb.TxPvtReadWriteSet{DataModel: rwsetpb.TxReadWriteSet_KV}})
	}
	addPrivate(p.private[i].Set, m, raw)
	return true
}

func addPrivate(set *rwsetpb.TxPvtReadWriteSet, m Missing, raw []byte) {
	collection := &rwsetpb.CollectionPvtReadWriteSet{CollectionName: m.Collection, Rwset: raw}
	for _, ns := range set.NsPvtRwset {
		if ns.Namespace == m.Namespace {
			ns.CollectionPvtRwset = append(ns.CollectionPvtRwset, collection)
			return
		}
	}
	set.NsPvtRwset = append(set.NsPvtRwset, &rwsetpb.NsPvtReadWriteSet{Namespace: m.Namespace, CollectionPvtRwset: []*rwsetpb.CollectionPvtReadWriteSet{collection}})
}

// over reports whether nothing of a missing write set is wanted any more.
func (l *Ledger) over(m Missing, c *rwset.Collection) (bool, error) {
	wanted, err := l.unpurged(m, c)
	if err != nil {
		return false, err
	}
	if len(wanted) == 0 && len(c.Hashed.HashedWrites) > 0 {
		return true, nil
	}
	hashes := make(map[string][]byte, len(wanted))
	for key, w := range wanted {
		hashes[key] = w.ValueHash
	}
	return l.expired(m, hashes)
}

// unpurged gives the transaction's hashed writes to the collection, by the key's hash, that were not purged since.
func (l *Ledger) unpurged(m Missing, c *rwset.Collection) (map[string]*kvrwsetpb.KVWriteHash, error) {
	view := privatedb.NewView(l.db)
	wanted := map[string]*kvrwsetpb.KVWriteHash{}
	for _, w := range c.Hashed.HashedWrites {
		purged, err := view.Purged(m.Namespace, m.Collection, w.KeyHash, rwset.Version{Block: m.Block, Tx: m.Tx})
		if err != nil {
			return nil, err
		}
		if !purged {
			wanted[string(w.KeyHash)] = w
		}
	}
	return wanted, nil
}

// accept checks a late write set against its block and takes out what was purged here. raw is nil if the write set
// settles without data.
func (l *Ledger) accept(at *past, item Late) (raw []byte, ok bool, err error) {
	c := at.collection(item.Missing)
	if c == nil {
		return nil, item.Rwset == nil, nil
	}
	if kept := at.inLog(item.Missing); kept != nil {
		return kept, true, nil
	}
	over, err := l.over(item.Missing, c)
	if err != nil || over {
		return nil, over, err
	}
	if item.Rwset == nil {
		return nil, false, nil
	}
	wanted, err := l.unpurged(item.Missing, c)
	if err != nil {
		return nil, false, err
	}
	sum := sha256.Sum256(item.Rwset)
	whole := bytes.Equal(sum[:], c.PvtRWSetHash)
	if whole && len(wanted) == len(c.Hashed.HashedWrites) {
		return item.Rwset, true, nil
	}
	if len(c.Hashed.HashedWrites) == 0 { // metadata alone cannot be purged
		return nil, false, nil
	}
	// The sender's purges or ours leave a part, which has to hold all that we still want.
	var kv, kept kvrwsetpb.KVRWSet
	if proto.Unmarshal(item.Rwset, &kv) != nil {
		return nil, false, nil
	}
	for _, w := range kv.Writes {
		hash := rwset.KeyHash(w.Key)
		want := wanted[string(hash)]
		if want == nil {
			continue
		}
		value := sha256.Sum256(w.Value)
		if rwset.IsDelete(w) != rwset.IsHashDelete(want) || !rwset.IsDelete(w) && !bytes.Equal(value[:], want.ValueHash) {
			return nil, false, nil
		}
		delete(wanted, string(hash))
		kept.Writes = append(kept.Writes, w)
	}
	if len(wanted) > 0 {
		return nil, false, nil
	}
	if raw, err = proto.Marshal(&kept); err != nil {
		return nil, false, fmt.Errorf("encode private write set: %w", err)
	}
	return raw, true, nil
}

// ForeignCollections lists the collections of which private data was committed that this node does not have because its member did
// not belong to them.
func (l *Ledger) ForeignCollections() ([]rwset.Place, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	return privatedb.NewView(l.db).Foreign()
}

// adoptAtOnce bounds what Adopt moves in one batch.
const adoptAtOnce = 1000

// Adopt makes the private data of a collection missing that was not this node's business before, because its member belongs to
// the collection now. What a crash loses of that is done by the next call.
func (l *Ledger) Adopt(at rwset.Place) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	for moved := adoptAtOnce; moved == adoptAtOnce; {
		b := l.db.NewBatch()
		var err error
		moved, err = privatedb.NewView(l.db).Adopt(b, at, adoptAtOnce)
		if err == nil {
			err = b.Commit(pebble.NoSync)
		}
		if err = errors.Join(err, b.Close()); err != nil {
			return fmt.Errorf("adopt private data: %w", err)
		}
	}
	return nil
}

// HasPurges reports whether anything was ever purged here, so that ErasePurged may have work.
func (l *Ledger) HasPurges() (bool, error) {
	if err := l.enter(); err != nil {
		return false, err
	}
	defer l.leave()
	return privatedb.NewView(l.db).AnyPurged()
}

// ValueBefore gives a public key as it was before a block, nil if it was not there, for what has to be judged by the rules of that
// time.
func (l *Ledger) ValueBefore(block uint64, namespace, key string) ([]byte, error) {
	s := l.NewSnapshot()
	defer s.Close()
	current, err := s.Get(namespace, key)
	if err != nil {
		return nil, err
	}
	if current != nil && current.Version.Block < block {
		return current.Value, nil
	}
	it, err := s.History(namespace, key)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for {
		m, err := it.Next()
		if m == nil || err != nil {
			return nil, err
		}
		_, n, ok, err := l.TxStatus(m.TxId)
		if err != nil {
			return nil, err
		}
		if ok && n < block {
			if m.IsDelete {
				return nil, nil
			}
			return m.Value, nil
		}
	}
}
