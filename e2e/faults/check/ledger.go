// Package check decides whether what clients were told, what nodes keep and what contracts hold agrees: whether anything was lost,
// doubled, reordered, or is different on two nodes.
//
// It knows nothing of networks and faults, and is as strict with a history that a test makes up as with a real one: check_test.go shows
// that each kind of error is found. Open ledger.go for nodes' blocks, history.go for clients' calls.
package check

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// Tx is a transaction in a block.
type Tx struct {
	ID   string
	Code uint8 // validation code; 0 is VALID. Only peers tell
}

// Block is a block as one node has it.
type Block struct {
	Number     uint64
	Hash       string
	Previous   string
	Txs        []Tx
	Judged     bool   // by a peer: Code and CommitHash are set
	CommitHash string // of all that was committed up to here
}

// Decode reads what is to be compared. The data hash is computed anew: a header proves nothing about the data beside it.
func Decode(b *commonpb.Block, judged bool) (*Block, error) {
	if got := block.DataHash(b.GetData().GetData()); !bytes.Equal(got, b.GetHeader().GetDataHash()) {
		return nil, fmt.Errorf("block %d: its data do not match its header", b.GetHeader().GetNumber())
	}
	out := &Block{Number: b.Header.Number, Hash: hex.EncodeToString(block.HeaderHash(b.Header)), Previous: hex.EncodeToString(b.Header.PreviousHash), Judged: judged}
	codes := block.Filter(b)
	if judged {
		out.CommitHash = hex.EncodeToString(block.CommitHash(b))
		if len(codes) != len(b.Data.Data) {
			return nil, fmt.Errorf("block %d has %d transactions and %d validation codes", b.Header.Number, len(b.Data.Data), len(codes))
		}
	}
	for i, tx := range block.Parse(b).Txs {
		var one Tx
		if tx.Channel != nil {
			one.ID = tx.Channel.TxId
		}
		if judged {
			one.Code = codes[i]
		}
		out.Txs = append(out.Txs, one)
	}
	return out, nil
}

// Position is where a transaction stands.
type Position struct {
	Block uint64
	Index int
	Code  uint8
}

func (p Position) before(q Position) bool {
	return p.Block < q.Block || p.Block == q.Block && p.Index < q.Index
}

// Ledger is what all nodes have shown of one channel. It is safe for concurrent use.
type Ledger struct {
	mu       sync.Mutex
	blocks   []*Block              // as first shown; guarded by mu
	judged   []*Block              // as first shown by a peer, nil where none has; guarded by mu
	tx       map[string][]Position // by peers; guarded by mu
	heights  map[string]uint64     // by node; guarded by mu
	diverged []string              // guarded by mu
}

// NewLedger is a ledger that no node has shown anything of.
func NewLedger() *Ledger {
	return &Ledger{tx: map[string][]Position{}, heights: map[string]uint64{}}
}

// Add notes that a node has a block. Blocks of one node come in order, beginning anywhere that the ledger has reached, also again.
func (l *Ledger) Add(node string, b *Block) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.Number > uint64(len(l.blocks)) {
		l.diverge("%s shows block %d where %d is next", node, b.Number, len(l.blocks))
		return
	}
	if b.Number == uint64(len(l.blocks)) {
		if n := len(l.blocks); n > 0 && b.Previous != l.blocks[n-1].Hash {
			l.diverge("block %d of %s follows %.8s, and block %d is %.8s", b.Number, node, b.Previous, n-1, l.blocks[n-1].Hash)
		}
		l.blocks, l.judged = append(l.blocks, b), append(l.judged, nil)
	}
	first := l.blocks[b.Number]
	if first.Hash != b.Hash || first.Previous != b.Previous {
		l.diverge("%s has block %.8s at height %d, another node %.8s", node, b.Hash, b.Number, first.Hash)
	}
	l.heights[node] = max(l.heights[node], b.Number+1)
	if !b.Judged {
		return
	}
	if other := l.judged[b.Number]; other != nil {
		if other.CommitHash != b.CommitHash || !slices.Equal(other.Txs, b.Txs) {
			l.diverge("%s committed block %d to %.8s, another peer to %.8s", node, b.Number, b.CommitHash, other.CommitHash)
		}
		return
	}
	l.judged[b.Number] = b
	for i, tx := range b.Txs {
		if tx.ID != "" {
			l.tx[tx.ID] = append(l.tx[tx.ID], Position{b.Number, i, tx.Code})
		}
	}
}

func (l *Ledger) diverge(format string, args ...any) {
	if len(l.diverged) < 20 {
		l.diverged = append(l.diverged, fmt.Sprintf(format, args...))
	}
}

// Height is how many blocks any node has shown, and HeightOf how many one has.
func (l *Ledger) Height() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(len(l.blocks))
}

// HeightOf is how many blocks a node has shown.
func (l *Ledger) HeightOf(node string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.heights[node]
}

// Diverged says where nodes differ.
func (l *Ledger) Diverged() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.diverged)
}

// Positions are the places of a transaction.
func (l *Ledger) Positions(txID string) []Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.tx[txID])
}
