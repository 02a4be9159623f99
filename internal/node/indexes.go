package node

import (
	"context"
	"errors"

	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/simulation"
)

// Query answers JSON queries.
func (s snapshot) Query(namespace, collection, query, bookmark string) (simulation.DocumentIterator, error) {
	results, err := s.Snapshot.Query(namespace, collection, query, bookmark)
	if err != nil {
		return nil, err
	}
	return results, nil
}

var _ simulation.Documents = snapshot{}

// indexing defines the indexes that are in the packages of a channel's
// contracts, once a contract is both defined there and installed here.
type indexing struct {
	wakes chan struct{}
	done  map[string]string // package by contract; of run alone
}

func newIndexing() *indexing {
	return &indexing{wakes: make(chan struct{}, 1), done: map[string]string{}}
}

// wake has the definitions looked at again.
func (x *indexing) wake() {
	select {
	case x.wakes <- struct{}{}:
	default: // it is going to happen
	}
}

// run looks at the definitions, now and whenever it is woken, until ctx ends.
func (x *indexing) run(ctx context.Context, ch *peerChannel) {
	log := ch.peer.log.With("channel", ch.id)
	for {
		if err := x.define(ch); err != nil && ctx.Err() == nil && !errors.Is(err, ledger.ErrClosed) {
			log.Error("contracts' indexes cannot be read", "error", err)
		}
		select {
		case <-x.wakes:
		case <-ctx.Done():
			return
		}
	}
}

func (x *indexing) define(ch *peerChannel) error {
	s := ch.snapshot()
	contracts, err := ch.peer.catalog.List(ch.id, s)
	if err := errors.Join(err, s.Close()); err != nil {
		return err
	}
	packages := map[string]string{}
	for _, c := range contracts {
		if c.PackageID != "" && x.done[c.Name] != c.PackageID {
			packages[c.Name] = c.PackageID
		}
	}
	for name, id := range packages {
		definitions, err := indexesOf(ch.peer, id)
		if err == nil && len(definitions) > 0 {
			err = ch.Ledger().DefineIndexes(name, definitions)
			ch.peer.log.Info("contract has indexes", "channel", ch.id, "contract", name, "indexes", len(definitions))
		}
		if errors.Is(err, ledger.ErrClosed) {
			return err
		}
		x.done[name] = id
		if err != nil { // the contract runs without, as in Fabric
			ch.peer.log.Warn("contract has invalid indexes, queries do without them", "channel", ch.id, "contract", name, "package", id, "error", err)
		}
	}
	return nil
}

func indexesOf(p *peer, packageID string) ([]ledger.IndexDefinition, error) {
	files, err := p.indexFiles(packageID)
	if err != nil {
		return nil, err
	}
	var definitions []ledger.IndexDefinition
	for _, f := range files {
		definitions = append(definitions, ledger.IndexDefinition{Collection: f.Collection, JSON: f.Content})
	}
	return definitions, nil
}

// wakeIndexing has every channel look for indexes: a package was installed.
func (c *channels) wakeIndexing() {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, ch := range c.joined {
		ch.indexing.wake()
	}
}
