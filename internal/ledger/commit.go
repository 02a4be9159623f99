package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/privatedb"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/statedb"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// TxPrivate is the private write sets of one transaction of a block.
type TxPrivate struct {
	Tx  uint64
	Set *rwsetpb.TxPvtReadWriteSet
}

// Missing is a private write set that is committed without, see privatedb.Missing.
type Missing = privatedb.Missing

// Commit is one decided block. The ledger keeps none of it.
type Commit struct {
	// Block carries the validation codes in its metadata and, but for the genesis block, the commit hash.
	Block *block.Parsed
	// Updates are the effect of the valid transactions on the state at the block's predecessor. nil has the ledger derive
	// them from the block and its codes.
	Updates *rwset.Updates
	// Sets are the decoded read-write sets by transaction, nil where there is none. nil has the ledger decode those of the
	// valid transactions again.
	Sets []*rwset.Set
	// Private is the private data of the block's transactions, as far as this node has it. That of invalid transactions is
	// kept but not applied.
	Private []TxPrivate
	// Missing names the private write sets that the node should have fetched but could not.
	Missing []Missing
}

// Commit makes a block durable, then visible: it returns when the block survives a power loss and readers see
// it. After an error the ledger is unchanged, and the same block may be committed later (disk full), unless the error
// says that the ledger has to be opened again.
func (l *Ledger) Commit(c *Commit) error { return l.CommitAll([]*Commit{c}) }

// CommitAll commits consecutive blocks with one flush of the log. If the log takes only some of them, those are committed and the
// error tells the first that is not.
func (l *Ledger) CommitAll(commits []*Commit) error {
	l.mu.Lock()
	next, err := l.tip.height, l.failed
	if l.ended {
		err = ErrClosed
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	if t := l.trouble.Swap(nil); t != nil {
		// Said once for each time that Pebble fails; it tries again now, so that a disk with space again needs no restart.
		l.db.AsyncFlush()
		return fmt.Errorf("commit block %d: the derived data cannot be written: %w (is the disk full?)", next, *t)
	}
	works := make([]*work, len(commits))
	for i, c := range commits {
		w, err := l.prepare(c, next+uint64(i))
		if err != nil {
			return fmt.Errorf("commit block %d: %w", next+uint64(i), err)
		}
		works[i] = w
	}
	for i, w := range works {
		if l.blocks.Height() > w.number {
			// A try before this one got the record into the log and failed later. Its bytes are the decision.
			old, extra, err := l.blocks.Read(w.number)
			if err != nil {
				return fmt.Errorf("commit block %d: %w", w.number, err)
			}
			if string(old) == string(w.bytes) && string(extra) == string(w.extra) {
				continue
			}
			return l.fail(fmt.Errorf("commit block %d: another form of this block is in the log already; open the ledger again", w.number))
		}
		if err := l.blocks.Append(w.number, w.bytes, w.extra); err != nil {
			if i > 0 {
				works = works[:i]
				err = errors.Join(err, l.finish(works))
			}
			return err
		}
	}
	if err := l.finish(works); err != nil {
		return err
	}
	if err := l.regained(); err != nil {
		// The blocks are committed, and the next Open tries this again.
		l.log.Error("what a rollback left could not be cleared away", "channel", l.config.ChannelID, "error", err)
		l.regaining.height.Store(0)
	}
	return nil
}

// finish flushes the log while the first block's changes are gathered, then applies what is durable.
func (l *Ledger) finish(works []*work) error {
	if len(works) == 0 {
		return nil
	}
	l.applying.Lock()
	defer l.applying.Unlock()
	flushed := make(chan error, 1)
	go func() { flushed <- l.blocks.Sync() }()
	batch, err := l.gather(works[0])
	if syncErr := <-flushed; syncErr != nil {
		if batch != nil {
			batch.Close()
		}
		return l.fail(fmt.Errorf("commit block %d: %w", works[0].number, syncErr))
	}
	for i, w := range works {
		if i > 0 {
			batch, err = l.gather(w)
		}
		if err == nil {
			err = l.apply(w, batch)
		}
		if err != nil {
			return l.fail(fmt.Errorf("block %d is in the log but could not be applied; open the ledger again: %w", w.number, err))
		}
	}
	return nil
}

func (l *Ledger) fail(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err
	return err
}

// work is a block on its way.
type work struct {
	number       uint64
	block        *block.Parsed
	codes        []byte
	sets         []*rwset.Set
	updates      *rwset.Updates
	private      []privatedb.Data // of valid transactions
	missing      []Missing
	bytes, extra []byte
	tip          savepoint
	places       map[string]txPlace // what it adds to the transaction index
}

func (l *Ledger) prepare(c *Commit, number uint64) (*work, error) {
	b := c.Block.Block
	if b.GetHeader().GetNumber() != number || b.Header == nil {
		return nil, fmt.Errorf("the block's number is %d", b.GetHeader().GetNumber())
	}
	bytes, err := proto.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	w, err := newWork(c.Block, c.Updates, c.Sets, c.Private, c.Missing)
	if err != nil {
		return nil, err
	}
	for _, p := range w.private {
		// Only here: what is in the log was checked, and a later purge may have taken something out.
		if err := privatedb.CheckHashes(p.Set, w.sets[p.Tx]); err != nil {
			return nil, fmt.Errorf("transaction %d: %w", p.Tx, err)
		}
	}
	w.bytes, w.extra = bytes, encodeExtra(c.Private, c.Missing)
	return w, nil
}

func newWork(b *block.Parsed, updates *rwset.Updates, sets []*rwset.Set, private []TxPrivate, missing []Missing) (*work, error) {
	w := &work{number: b.Header.Number, block: b, codes: block.Filter(b.Block), sets: sets, updates: updates, missing: missing}
	if len(w.codes) != len(b.Txs) {
		return nil, fmt.Errorf("it has %d transactions and %d validation codes", len(b.Txs), len(w.codes))
	}
	if updates != nil && updates.Block() != w.number {
		return nil, fmt.Errorf("the updates are of block %d", updates.Block())
	}
	if sets != nil && len(sets) != len(b.Txs) {
		return nil, fmt.Errorf("it has %d transactions and %d read-write sets", len(b.Txs), len(sets))
	}
	if sets == nil {
		var err error
		if w.sets, err = Sets(b, w.codes); err != nil {
			return nil, err
		}
	}
	for _, p := range private {
		if p.Tx >= uint64(len(w.codes)) {
			return nil, fmt.Errorf("private data of transaction %d, the block has %d", p.Tx, len(w.codes))
		}
		if w.codes[p.Tx] != byte(peerpb.TxValidationCode_VALID) || w.sets[p.Tx] == nil {
			continue
		}
		w.private = append(w.private, privatedb.Data{Tx: p.Tx, Set: p.Set})
	}
	w.tip = savepoint{height: w.number + 1, hash: block.HeaderHash(b.Header), previousHash: b.Header.PreviousHash, commitHash: block.CommitHash(b.Block)}
	return w, nil
}

// Sets decodes the read-write sets of a block's valid transactions; other places are nil.
func Sets(b *block.Parsed, codes []byte) ([]*rwset.Set, error) {
	sets := make([]*rwset.Set, len(b.Txs))
	for i, tx := range b.Txs {
		if codes[i] != byte(peerpb.TxValidationCode_VALID) || tx.Type() != commonpb.HeaderType_ENDORSER_TRANSACTION {
			continue
		}
		if len(tx.Actions) == 0 || tx.Actions[0].Chaincode == nil {
			return nil, fmt.Errorf("transaction %d is marked valid but cannot be decoded", i)
		}
		set, err := rwset.Parse(tx.Actions[0].Chaincode.Results)
		if err != nil {
			return nil, fmt.Errorf("transaction %d is marked valid: %w", i, err)
		}
		sets[i] = set
	}
	return sets, nil
}

// Derive gives what a block's valid transactions do to the state, from its codes alone. Validation comes to the same by
// applying transactions one by one as it accepts them.
func Derive(b *block.Parsed, codes []byte, sets []*rwset.Set, state rwset.State) (*rwset.Updates, error) {
	u := rwset.NewUpdates(b.Header.Number)
	for i, tx := range b.Txs {
		if codes[i] != byte(peerpb.TxValidationCode_VALID) {
			continue
		}
		switch {
		case sets[i] != nil:
			if err := u.Apply(uint64(i), sets[i], state); err != nil {
				return nil, err
			}
		case tx.Type() == commonpb.HeaderType_CONFIG && tx.Payload != nil:
			u.SetConfig(uint64(i), tx.Payload.Data)
		}
	}
	return u, nil
}

// gather puts everything that a block changes into one batch, on top of the state that is applied so far.
func (l *Ledger) gather(w *work) (*pebble.Batch, error) {
	state := statedb.New(l.db, l.hints)
	if w.updates == nil {
		u, err := Derive(w.block, w.codes, w.sets, state)
		if err != nil {
			return nil, err
		}
		w.updates = u
	}
	b := l.db.NewBatchWithSize(64 << 10)
	err := statedb.Write(b, w.updates, l.hints)
	if err == nil {
		err = w.history(b)
	}
	if err == nil {
		err = l.index(b, w)
	}
	if err == nil {
		err = writeCollections(b, w.updates, state)
	}
	var privateChanged func(ns, coll, key string, before, after []byte) error
	if err == nil && !l.indexes.None() {
		privateChanged, err = l.indexDocuments(b, w.updates, state)
	}
	if err == nil {
		var expired []privatedb.ExpiredHash
		expired, err = privatedb.NewView(l.db).Apply(b, privatedb.Block{Updates: w.updates, Data: w.private, Missing: w.missing, State: state, Changed: privateChanged})
		for _, e := range expired {
			err = errors.Join(err, statedb.DeleteHash(b, e.Namespace, e.Collection, e.KeyHash))
		}
	}
	if err == nil {
		err = b.Set([]byte{keySavepoint}, w.tip.encode(), nil)
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// apply makes a durable block visible.
func (l *Ledger) apply(w *work, b *pebble.Batch) error {
	err := b.Commit(pebble.NoSync)
	if err = errors.Join(err, b.Close()); err != nil {
		return err
	}
	l.recent.add(w.number, w.bytes)
	l.txs.add(w.places)
	l.hot.written(w.updates)
	l.mu.Lock()
	l.tip = w.tip
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	l.mu.Unlock()
	return nil
}

// replay applies a block that is in the log.
func (l *Ledger) replay(n uint64) error {
	bytes, extra, err := l.blocks.Read(n)
	if err != nil {
		return err
	}
	b := &commonpb.Block{}
	if err := proto.Unmarshal(bytes, b); err != nil {
		return fmt.Errorf("decode: %w", err)
	}
	private, missing, err := decodeExtra(extra)
	if err != nil {
		return err
	}
	w, err := newWork(block.Parse(b), nil, nil, private, missing)
	if err != nil {
		return err
	}
	w.bytes = bytes
	batch, err := l.gather(w)
	if err != nil {
		return err
	}
	return l.apply(w, batch)
}

// history adds an entry for every public key that a valid transaction writes. Of several writes of one key in one
// transaction the first counts.
func (w *work) history(b *pebble.Batch) error {
	for i, set := range w.sets {
		if set == nil || w.codes[i] != byte(peerpb.TxValidationCode_VALID) {
			continue
		}
		tx := w.block.Txs[i]
		m := statedb.Modification{TxID: tx.ID(), Timestamp: tx.Channel.GetTimestamp(), Version: rwset.Version{Block: w.number, Tx: uint64(i)}}
		for _, ns := range set.Namespaces {
			seen := repeated(ns)
			for _, write := range ns.KV.Writes {
				if seen != nil {
					if seen[write.Key] {
						continue
					}
					seen[write.Key] = true
				}
				m.Value, m.IsDelete = write.Value, rwset.IsDelete(write)
				if err := statedb.WriteHistory(b, ns.Name, write.Key, &m); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// repeated gives a set to note keys in if keys may repeat, nil for the usual sorted list.
func repeated(ns *rwset.Namespace) map[string]bool {
	for i := 1; i < len(ns.KV.Writes); i++ {
		if ns.KV.Writes[i-1].Key >= ns.KV.Writes[i].Key {
			return map[string]bool{}
		}
	}
	return nil
}

// TxID is the identifier under which a transaction is indexed: its own or, for one without (a configuration), that of its
// creator and nonce; "" for one that has neither.
func TxID(tx *envelope.Tx) string {
	if id := tx.ID(); id != "" || tx.Channel == nil || tx.Signature == nil {
		return id
	}
	return envelope.TxID(tx.Signature.Nonce, tx.Signature.Creator)
}

// index notes the block's hash and where each transaction is. The first transaction with an identifier owns it.
func (l *Ledger) index(b *pebble.Batch, w *work) error {
	number := binary.BigEndian.AppendUint64(nil, w.number)
	if err := b.Set(append([]byte{prefixBlockHash}, w.tip.hash...), number, nil); err != nil {
		return err
	}
	seen := make(map[string]bool, len(w.codes))
	w.places = make(map[string]txPlace, len(w.codes))
	for i, tx := range w.block.Txs {
		id := TxID(tx)
		if id == "" || seen[id] {
			continue
		}
		seen[id] = true
		key := txKey(id)
		if w.codes[i] != byte(peerpb.TxValidationCode_VALID) {
			// A valid transaction's id was found free by validation; any other may be a copy.
			_, closer, err := l.db.Get(key)
			if err == nil {
				closer.Close()
				continue
			}
			if !errors.Is(err, pebble.ErrNotFound) {
				return fmt.Errorf("read transaction index: %w", err)
			}
		}
		w.places[id] = txPlace{w.number, uint64(i), w.codes[i]}
		if err := b.Set(key, w.places[id].encode(), nil); err != nil {
			return err
		}
	}
	return nil
}
