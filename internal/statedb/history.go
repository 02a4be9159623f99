package statedb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hansa-ledger/hansa/internal/rwset"
)

// MaxInlineHistory is the size up to which a past value is kept in the history itself. A larger one is read from
// the block again, so that big values are not stored twice.
const MaxInlineHistory = 1024

// Modification is one valid write of a key.
type Modification struct {
	TxID  string
	Value []byte
	// Timestamp is as the client wrote it into the transaction, unchecked; nil if it wrote none.
	Timestamp *timestamppb.Timestamp
	IsDelete  bool
	// Version says where the write is.
	Version rwset.Version
	// InBlock is set if the value is too large for the history and has to be read from the block.
	InBlock bool
}

const (
	historyDelete = 1 << iota
	historyInBlock
	historyNoTimestamp
)

// WriteHistory puts one write of a key into a batch.
func WriteHistory(b *pebble.Batch, namespace, key string, m *Modification) error {
	k := appendNewestFirst(appendHistory(make([]byte, 0, 128), namespace, key), m.Version)
	flags, value := byte(0), m.Value
	if m.IsDelete {
		flags |= historyDelete
	}
	if m.Timestamp == nil {
		flags |= historyNoTimestamp
	}
	if len(value) > MaxInlineHistory {
		flags, value = flags|historyInBlock, nil
	}
	v := make([]byte, 0, 1+binary.MaxVarintLen64*3+len(m.TxID)+len(value))
	v = append(v, flags)
	v = binary.AppendVarint(v, m.Timestamp.GetSeconds())
	v = binary.AppendVarint(v, int64(m.Timestamp.GetNanos()))
	v = binary.AppendUvarint(v, uint64(len(m.TxID)))
	v = append(append(v, m.TxID...), value...)
	if err := b.Set(k, v, nil); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}

func decodeHistory(suffix, b []byte) (*Modification, error) {
	if len(suffix) != 16 || len(b) == 0 {
		return nil, errors.New("history entry: cut short")
	}
	m := &Modification{Version: rwset.Version{Block: ^binary.BigEndian.Uint64(suffix), Tx: ^binary.BigEndian.Uint64(suffix[8:])}}
	flags := b[0]
	m.IsDelete, m.InBlock = flags&historyDelete != 0, flags&historyInBlock != 0
	b = b[1:]
	seconds, n := binary.Varint(b)
	if n <= 0 {
		return nil, errors.New("history entry: cut short in its timestamp")
	}
	b = b[n:]
	nanos, n := binary.Varint(b)
	if n <= 0 {
		return nil, errors.New("history entry: cut short in its timestamp")
	}
	b = b[n:]
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, errors.New("history entry: cut short in its transaction id")
	}
	if flags&historyNoTimestamp == 0 {
		m.Timestamp = &timestamppb.Timestamp{Seconds: seconds, Nanos: int32(nanos)}
	}
	m.TxID = string(b[n : n+int(size)])
	if rest := b[n+int(size):]; len(rest) > 0 {
		m.Value = slices.Clone(rest)
	}
	return m, nil
}

// HistoryIterator walks the writes of one key, the newest first. It must be closed.
type HistoryIterator struct {
	it      *pebble.Iterator
	skip    int
	started bool
}

// History walks the writes of a public key.
func (s *State) History(namespace, key string) (*HistoryIterator, error) {
	prefix := appendHistory(nil, namespace, key)
	it, err := s.reader.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: PrefixEnd(prefix)})
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	return &HistoryIterator{it: it, skip: len(prefix)}, nil
}

// Next gives the next older write, nil at the end.
func (h *HistoryIterator) Next() (*Modification, error) {
	var ok bool
	if !h.started {
		h.started, ok = true, h.it.First()
	} else {
		ok = h.it.Next()
	}
	if !ok {
		if err := h.it.Error(); err != nil {
			return nil, fmt.Errorf("read history: %w", err)
		}
		return nil, nil
	}
	b, err := h.it.ValueAndErr()
	if err != nil {
		return nil, fmt.Errorf("read history: %w", err)
	}
	m, err := decodeHistory(h.it.Key()[h.skip:], b)
	if err != nil {
		return nil, fmt.Errorf("read history, key %x: %w", h.it.Key(), err)
	}
	return m, nil
}

// Close frees the iterator.
func (h *HistoryIterator) Close() error { return h.it.Close() }
