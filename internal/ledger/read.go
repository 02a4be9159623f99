package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/blockstore"
	"github.com/hansa-ledger/hansa/internal/privatedb"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// BlockBytes gives a block as it was committed, with all metadata, in its wire form. Callers share the bytes and must not
// change them.
func (l *Ledger) BlockBytes(n uint64) ([]byte, error) {
	if err := l.reaches(n); err != nil {
		return nil, err
	}
	if height := l.Height(); n >= height {
		return nil, fmt.Errorf("%w: block %d, height %d", ErrNotFound, n, height)
	}
	if b := l.recent.get(n); b != nil {
		return b, nil
	}
	b, _, err := l.blocks.Read(n)
	if errors.Is(err, blockstore.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return b, err
}

// Block gives a decoded block of the caller's own.
func (l *Ledger) Block(n uint64) (*commonpb.Block, error) {
	bytes, err := l.BlockBytes(n)
	if err != nil {
		return nil, err
	}
	b := &commonpb.Block{}
	if err := proto.Unmarshal(bytes, b); err != nil {
		return nil, fmt.Errorf("decode block %d: %w", n, err)
	}
	return b, nil
}

// BlockByHash gives the block with that header hash.
func (l *Ledger) BlockByHash(hash []byte) (*commonpb.Block, error) {
	b, err := l.get(append([]byte{prefixBlockHash}, hash...))
	if err != nil {
		return nil, fmt.Errorf("block with hash %x: %w", hash, err)
	}
	if len(b) != 8 {
		return nil, fmt.Errorf("block index: bad entry %x", b)
	}
	return l.Block(binary.BigEndian.Uint64(b))
}

func (l *Ledger) get(key []byte) ([]byte, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	b, closer, err := l.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	b = append([]byte{}, b...)
	return b, closer.Close()
}

func (l *Ledger) place(id string) (txPlace, error) {
	if p, found, known := l.txs.look(id); found {
		return p, nil
	} else if known {
		return p, fmt.Errorf("transaction %q: %w", id, ErrNotFound)
	}
	height := l.Height() // read first: what is committed meanwhile counts as unknown
	b, err := l.get(txKey(id))
	if err != nil {
		if errors.Is(err, ErrNotFound) {
			l.txs.miss(id, height)
		}
		return txPlace{}, fmt.Errorf("transaction %q: %w", id, err)
	}
	if len(b) == 0 {
		return txPlace{}, &BeforeSnapshotError{fmt.Sprintf("details for the TXID [%s] not available. Ledger bootstrapped from a snapshot. First available block = [%d]", id, l.first)}
	}
	return decodeTxPlace(b)
}

// HasTx reports whether any transaction, valid or not, was committed under that id. Those before the snapshot that the ledger
// began with count.
func (l *Ledger) HasTx(id string) (bool, error) {
	if _, found, known := l.txs.look(id); known {
		return found, nil
	}
	_, err := l.place(id)
	if before := (*BeforeSnapshotError)(nil); errors.As(err, &before) {
		return true, nil
	}
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// TxStatus gives the code and block of the first transaction with that id; ok is false if there is none. Of one before the
// snapshot that the ledger began with nothing is known: *BeforeSnapshotError.
func (l *Ledger) TxStatus(id string) (code peerpb.TxValidationCode, block uint64, ok bool, err error) {
	p, err := l.place(id)
	if before := (*BeforeSnapshotError)(nil); errors.As(err, &before) {
		return 0, 0, false, err
	}
	if errors.Is(err, ErrNotFound) {
		return 0, 0, false, nil
	}
	return peerpb.TxValidationCode(p.code), p.block, err == nil, err
}

// BlockByTxID gives the block that holds the first transaction with that id.
func (l *Ledger) BlockByTxID(id string) (*commonpb.Block, error) {
	p, err := l.place(id)
	if err != nil {
		return nil, err
	}
	return l.Block(p.block)
}

// Transaction gives the envelope and code of the first transaction with that id.
func (l *Ledger) Transaction(id string) (*peerpb.ProcessedTransaction, error) {
	p, err := l.place(id)
	if err != nil {
		return nil, err
	}
	raw, err := l.envelope(p.block, p.tx)
	if err != nil {
		return nil, err
	}
	e := &commonpb.Envelope{}
	if err := proto.Unmarshal(raw, e); err != nil {
		return nil, fmt.Errorf("decode transaction %q: %w", id, err)
	}
	return &peerpb.ProcessedTransaction{TransactionEnvelope: e, ValidationCode: int32(p.code)}, nil
}

func (l *Ledger) envelope(n, tx uint64) ([]byte, error) {
	b, err := l.Block(n)
	if err != nil {
		return nil, err
	}
	if tx >= uint64(len(b.GetData().GetData())) {
		return nil, fmt.Errorf("%w: transaction %d of block %d", ErrNotFound, tx, n)
	}
	return b.Data.Data[tx], nil
}

// PrivateData gives the private write sets that were committed with a block, without what was purged since.
func (l *Ledger) PrivateData(n uint64) ([]TxPrivate, error) {
	if err := l.reaches(n); err != nil {
		return nil, err
	}
	if height := l.Height(); n >= height {
		return nil, fmt.Errorf("%w: block %d, height %d", ErrNotFound, n, height)
	}
	_, extra, err := l.blocks.Read(n)
	if err != nil {
		return nil, err
	}
	sets, _, err := decodeExtra(extra)
	if err != nil {
		return nil, fmt.Errorf("private data of block %d: %w", n, err)
	}
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	view := privatedb.NewView(l.db)
	for i := range sets {
		if sets[i].Set, err = view.Trim(rwset.Version{Block: n, Tx: sets[i].Tx}, sets[i].Set); err != nil {
			return nil, fmt.Errorf("private data of block %d: %w", n, err)
		}
	}
	return sets, nil
}

// ErasePurged takes what was purged out of the block log, so that it is in none of the ledger's files: until then
// readers do not see it, but the disk has it. It walks the whole log, and may not run while Commit does.
func (l *Ledger) ErasePurged() error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	view := privatedb.NewView(l.db)
	err := l.blocks.RewriteExtra(func(n uint64, extra []byte) ([]byte, error) {
		sets, missing, err := decodeExtra(extra)
		if err != nil || len(sets) == 0 {
			return extra, err
		}
		changed := false
		for i, s := range sets {
			trimmed, err := view.Trim(rwset.Version{Block: n, Tx: s.Tx}, s.Set)
			if err != nil {
				return nil, err
			}
			changed = changed || trimmed != s.Set
			sets[i].Set = trimmed
		}
		if !changed {
			return extra, nil
		}
		return encodeExtra(sets, missing), nil
	})
	if err != nil {
		return fmt.Errorf("erase purged private data: %w", err)
	}
	// The values may still lie in old files of the derived data.
	if err := l.db.Flush(); err != nil {
		return fmt.Errorf("erase purged private data: %w", err)
	}
	if err := l.db.Compact(context.Background(), []byte{0}, []byte{0xff}, true); err != nil {
		return fmt.Errorf("erase purged private data: %w", err)
	}
	// They waited for their commit there.
	if err := l.transient.Scrub(); err != nil {
		return fmt.Errorf("erase purged private data: %w", err)
	}
	return nil
}

// MissingPrivateData lists up to limit private write sets that this node should have but lacks, the newest first.
func (l *Ledger) MissingPrivateData(limit int) ([]Missing, error) {
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	return privatedb.NewView(l.db).Missing(limit)
}

// recent keeps the newest blocks' bytes, up to a limit.
type recent struct {
	limit int

	mu     sync.Mutex
	first  uint64
	blocks [][]byte // from first on
	size   int
}

func newRecent(limit int) *recent { return &recent{limit: limit} }

func (r *recent) add(n uint64, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n != r.first+uint64(len(r.blocks)) {
		r.first, r.blocks, r.size = n, nil, 0
	}
	r.blocks, r.size = append(r.blocks, b), r.size+len(b)
	for r.size > r.limit {
		r.size -= len(r.blocks[0])
		r.blocks[0] = nil
		r.blocks, r.first = r.blocks[1:], r.first+1
	}
}

func (r *recent) get(n uint64) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n < r.first || n >= r.first+uint64(len(r.blocks)) {
		return nil
	}
	return r.blocks[n-r.first]
}
