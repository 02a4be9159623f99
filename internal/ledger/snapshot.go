package ledger

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/privatedb"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/statedb"
	"github.com/hansa-ledger/hansa/internal/wire/queryresultpb"
)

// VersionedValue is a value of the state with its metadata and version.
type VersionedValue = rwset.VersionedValue

// Iterator walks keys in order; ok is false at the end. It must be closed, and is used by one goroutine.
type Iterator interface {
	Next() (key string, v *VersionedValue, ok bool, err error)
	Close() error
}

// Snapshot is the ledger as it was after one block, whatever is committed meanwhile. It must be closed; the ledger's
// Close waits for that. Any number of goroutines may read it.
type Snapshot struct {
	*statedb.State
	ledger  *Ledger
	snap    *pebble.Snapshot // nil if it could not be taken
	reader  pebble.Reader    // snap, or what says why not
	private *privatedb.View
	tip     savepoint
	once    sync.Once
	closing error
}

var _ rwset.State = (*Snapshot)(nil)

// NewSnapshot gives a view of the newest height. That of a closed ledger gives ErrClosed on every read.
func (l *Ledger) NewSnapshot() *Snapshot {
	if err := l.enter(); err != nil {
		return l.snapshotOf(broken{err})
	}
	snap := l.db.NewSnapshot()
	tip, err := readSavepoint(snap)
	if err != nil {
		snap.Close()
		l.leave()
		return l.snapshotOf(broken{err})
	}
	s := l.snapshotOf(snap)
	s.snap, s.tip = snap, tip
	return s
}

func (l *Ledger) snapshotOf(r pebble.Reader) *Snapshot {
	return &Snapshot{State: statedb.New(r, l.hints), ledger: l, reader: r, private: privatedb.NewView(r)}
}

// broken is a reader that only says why it cannot read.
type broken struct{ err error }

func (b broken) Get([]byte) ([]byte, io.Closer, error)                 { return nil, nil, b.err }
func (b broken) NewIter(*pebble.IterOptions) (*pebble.Iterator, error) { return nil, b.err }
func (b broken) NewIterWithContext(context.Context, *pebble.IterOptions) (*pebble.Iterator, error) {
	return nil, b.err
}
func (b broken) Close() error { return nil }

// Close frees the snapshot, after its iterators. Closing twice does no harm.
func (s *Snapshot) Close() error {
	s.once.Do(func() {
		if s.snap != nil {
			s.closing = s.snap.Close()
			s.ledger.leave()
		}
	})
	return s.closing
}

// Height is the number of the first block that the snapshot does not see.
func (s *Snapshot) Height() uint64 { return s.tip.height }

// Get reads a public key; a missing one is nil.
func (s *Snapshot) Get(namespace, key string) (*VersionedValue, error) {
	if s.snap == nil {
		return s.State.Get(namespace, key)
	}
	if value, ok := s.ledger.hot.get(namespace, key, s.tip.height); ok {
		return value, nil
	}
	value, err := s.State.Get(namespace, key)
	if err == nil {
		s.ledger.hot.read(namespace, key, value, s.tip.height)
	}
	return value, err
}

// GetMany reads several public keys of a namespace; a missing one is nil in its place.
func (s *Snapshot) GetMany(namespace string, keys []string) ([]*VersionedValue, error) {
	values := make([]*VersionedValue, len(keys))
	for i, key := range keys {
		v, err := s.Get(namespace, key)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

// Range walks the public keys of a namespace from start to before end; an empty bound is the namespace's own.
func (s *Snapshot) Range(namespace, start, end string) (Iterator, error) {
	return s.State.Range(namespace, start, end)
}

// GetPrivate gives a private value of a collection, nil if it is not here. It is current if its version is that of
// GetHash for the same key.
func (s *Snapshot) GetPrivate(namespace, collection, key string) (*VersionedValue, error) {
	return s.private.Get(namespace, collection, key)
}

// PrivateRange walks the private keys of a collection.
func (s *Snapshot) PrivateRange(namespace, collection, start, end string) (Iterator, error) {
	return s.private.Range(namespace, collection, start, end)
}

// PrivatePlaces lists the collections that hold private values here.
func (s *Snapshot) PrivatePlaces() ([]rwset.Place, error) { return s.private.Places() }

// HistoryIterator walks the valid writes of a key, the newest first. It must be closed.
type HistoryIterator struct {
	it     *statedb.HistoryIterator
	ledger *Ledger
	ns     string
	key    string
}

// History walks the valid writes of a public key.
func (s *Snapshot) History(namespace, key string) (*HistoryIterator, error) {
	it, err := s.State.History(namespace, key)
	if err != nil {
		return nil, err
	}
	return &HistoryIterator{it: it, ledger: s.ledger, ns: namespace, key: key}, nil
}

// Next gives the next older write, nil at the end.
func (h *HistoryIterator) Next() (*queryresultpb.KeyModification, error) {
	m, err := h.it.Next()
	if m == nil || err != nil {
		return nil, err
	}
	if m.InBlock {
		if m.Value, err = h.valueInBlock(m.Version); err != nil {
			return nil, err
		}
	}
	out := &queryresultpb.KeyModification{TxId: m.TxID, Value: m.Value, IsDelete: m.IsDelete}
	if m.Timestamp != nil {
		out.Timestamp = &timestamppb.Timestamp{Seconds: m.Timestamp.Seconds, Nanos: m.Timestamp.Nanos}
	}
	return out, nil
}

func (h *HistoryIterator) valueInBlock(v rwset.Version) ([]byte, error) {
	raw, err := h.ledger.envelope(v.Block, v.Tx)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	tx := envelope.Parse(raw)
	if len(tx.Actions) == 0 || tx.Actions[0].Chaincode == nil {
		return nil, fmt.Errorf("read history: transaction %d of block %d cannot be decoded", v.Tx, v.Block)
	}
	set, err := rwset.Parse(tx.Actions[0].Chaincode.Results)
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	for _, n := range set.Namespaces {
		for _, w := range n.KV.Writes {
			if n.Name == h.ns && w.Key == h.key {
				return w.Value, nil
			}
		}
	}
	return nil, fmt.Errorf("read history: transaction %d of block %d does not write the key", v.Tx, v.Block)
}

// Close frees the iterator.
func (h *HistoryIterator) Close() error { return h.it.Close() }
