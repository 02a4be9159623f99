package ledger

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hansa-ledger/hansa/internal/jsonquery"
	"github.com/hansa-ledger/hansa/internal/privatedb"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/statedb"
	"github.com/hansa-ledger/hansa/internal/statedb/jsonindex"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// source is where the documents of a place are: the public ones of a namespace, or a collection's private ones.
func source(p rwset.Place) jsonindex.Source {
	if p.Collection == "" {
		return jsonindex.Source{Prefix: statedb.Prefix(p.Namespace), Decode: statedb.DecodeValue}
	}
	return jsonindex.Source{Prefix: privatedb.Prefix(p.Namespace, p.Collection), Decode: privatedb.DecodeValue}
}

// QueryResults walk over what a JSON query selects. They must be closed, before the snapshot.
type QueryResults = jsonindex.Results

// Query opens a JSON query on the public documents of a namespace or, with a collection named, on the private ones that are
// here. A bookmark, where an earlier query of the same kind ended, overrides the one in the query.
func (s *Snapshot) Query(namespace, collection, query, bookmark string) (*QueryResults, error) {
	q, err := jsonquery.Parse(query)
	if err != nil {
		return nil, err
	}
	p := rwset.Place{Namespace: namespace, Collection: collection}
	r, err := jsonindex.Query(s.reader, p, source(p), q, bookmark)
	if err == nil {
		r.Closed = func(warning string) {
			if warning != "" {
				s.ledger.warnOfQuery(p, query, warning)
			}
		}
	}
	return r, err
}

// warnEvery is how often queries are warned of, which Fabric does with each.
const warnEvery = time.Minute

// warnOfQuery tells the operator of a query that an index would help.
func (l *Ledger) warnOfQuery(p rwset.Place, query, warning string) {
	now := time.Now().UnixNano()
	last := l.warned.Load()
	if now-last < int64(warnEvery) || !l.warned.CompareAndSwap(last, now) {
		return
	}
	if p.Collection != "" {
		query = "" // it may name what is nobody's business
	}
	l.log.Warn("a JSON query needs a better index; others may, too", "contract", p.Namespace, "collection", p.Collection,
		"query", query[:min(len(query), 500)], "warning", warning)
}

// IndexDefinition is a definition of an index for JSON queries, on the public documents of a namespace or on a collection.
type IndexDefinition struct {
	Collection string
	JSON       []byte
}

// DefineIndexes adds indexes to a namespace; one of the same name replaces the other. They are filled in the background and used once
// they are complete. Definitions are part of the derived data: whoever has them defines them again after each Open, which costs
// nothing if they are there. The error names invalid ones; the others are defined.
func (l *Ledger) DefineIndexes(namespace string, definitions []IndexDefinition) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	byPlace := map[rwset.Place][][]byte{}
	var places []rwset.Place
	for _, d := range definitions {
		p := rwset.Place{Namespace: namespace, Collection: d.Collection}
		if byPlace[p] == nil {
			places = append(places, p)
		}
		byPlace[p] = append(byPlace[p], d.JSON)
	}
	var faults []error
	l.applying.Lock()
	for _, p := range places {
		_, err := l.indexes.Define(l.db, p, slices.Clone(byPlace[p]))
		faults = append(faults, err)
	}
	l.applying.Unlock()
	l.fillIndexes()
	return errors.Join(faults...)
}

// fillIndexes builds what is not complete, in the background.
func (l *Ledger) fillIndexes() {
	if l.indexes.Complete() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.filling {
		return
	}
	l.filling = true
	l.readers.Add(1)
	go func() {
		defer l.leave()
		l.fill()
	}()
}

func (l *Ledger) fill() {
	for {
		l.applying.Lock()
		more, err := l.indexes.Build(l.db, source)
		if err != nil || !more {
			// Under the lock, so that what is defined meanwhile starts anew.
			l.mu.Lock()
			l.filling = false
			if l.filled != nil {
				close(l.filled)
				l.filled = nil
			}
			l.mu.Unlock()
		}
		l.applying.Unlock()
		if err != nil {
			l.log.Error("indexes cannot be built; queries do without them until the node starts again", "channel", l.config.ChannelID, "error", err)
		}
		if err != nil || !more {
			return
		}
		select {
		case <-l.closed:
			return
		default:
		}
	}
}

// WaitIndexes returns when no index is being built.
func (l *Ledger) WaitIndexes(ctx context.Context) error {
	for {
		l.mu.Lock()
		if !l.filling {
			l.mu.Unlock()
			return nil
		}
		if l.filled == nil {
			l.filled = make(chan struct{})
		}
		filled := l.filled
		l.mu.Unlock()
		select {
		case <-filled:
		case <-ctx.Done():
			return ctx.Err()
		case <-l.closed:
			return ErrClosed
		}
	}
}

// indexDocuments puts into a block's batch what its public writes change in indexes, and gives the function that does the same for
// private ones, nil if none is needed.
func (l *Ledger) indexDocuments(b *pebble.Batch, u *rwset.Updates, state rwset.State) (private func(ns, coll, key string, before, after []byte) error, err error) {
	for _, p := range u.Places() {
		if p.Collection != "" || !l.indexes.Has(p) {
			continue
		}
		for _, up := range u.At(p) {
			stored, err := state.Get(p.Namespace, up.Key)
			if err != nil {
				return nil, err
			}
			var before, after []byte
			if stored != nil {
				before = stored.Value
			}
			if !up.Delete {
				after = up.Value
			}
			if err := l.indexes.Change(b, p, up.Key, before, after); err != nil {
				return nil, err
			}
		}
	}
	return func(ns, coll, key string, before, after []byte) error {
		p := rwset.Place{Namespace: ns, Collection: coll}
		if !l.indexes.Has(p) {
			return nil
		}
		return l.indexes.Change(b, p, key, before, after)
	}, nil
}

// indexLate puts into a batch with late private data what that changes in indexes. The batch can be read.
func (l *Ledger) indexLate(b *pebble.Batch, sets []*rwsetpb.TxPvtReadWriteSet) error {
	before, after := privatedb.NewView(l.db), privatedb.NewView(b)
	valueOf := func(v *privatedb.View, p rwset.Place, key string) ([]byte, error) {
		stored, err := v.Get(p.Namespace, p.Collection, key)
		if stored == nil {
			return nil, err
		}
		return stored.Value, nil
	}
	type document struct {
		rwset.Place
		key string
	}
	seen := map[document]bool{}
	for _, raw := range sets {
		set, err := rwset.ParsePrivate(raw)
		if err != nil {
			return err
		}
		for _, c := range set.Collections {
			p := rwset.Place{Namespace: c.Namespace, Collection: c.Name}
			if !l.indexes.Has(p) {
				continue
			}
			for _, w := range c.KV.Writes {
				if d := (document{p, w.Key}); seen[d] {
					continue
				} else {
					seen[d] = true
				}
				old, err := valueOf(before, p, w.Key)
				if err != nil {
					return err
				}
				current, err := valueOf(after, p, w.Key)
				if err != nil {
					return err
				}
				if err := l.indexes.Change(b, p, w.Key, old, current); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
