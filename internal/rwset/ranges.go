package rwset

import (
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
)

// MaxDegree is the degree that endorsers use for the results of range queries: above that many results the
// read set holds hashes in place of the results.
const MaxDegree = 50

// RangeResults summarises the results of a range query, as they come, into what the read set records: the
// reads themselves up to maxDegree of them, else the top of a Merkle tree.
//
// Results are the leaves of the tree. Whenever more than maxDegree nodes are gathered on a level, they are
// hashed into one node of the level above; the hash of leaves covers the encoding of the reads, that of nodes
// their concatenation. The same code runs in simulation and in validation.
type RangeResults struct {
	degree  uint32
	pending []*kvrwsetpb.KVRead
	levels  map[uint32][][]byte
	top     uint32
}

// NewRangeResults starts a summary. A tree needs a degree of 2 at least; a smaller one can only come from a
// hostile read set.
func NewRangeResults(maxDegree uint32) (*RangeResults, error) {
	if maxDegree < 2 {
		return nil, fmt.Errorf("range query summary: max_degree is %d, want 2 or more", maxDegree)
	}
	return &RangeResults{degree: maxDegree, levels: map[uint32][][]byte{}, top: 1}, nil
}

// Add adds the next result.
func (r *RangeResults) Add(key string, v Version) {
	r.pending = append(r.pending, &kvrwsetpb.KVRead{Key: key, Version: v.Proto()})
	if uint64(len(r.pending)) > uint64(r.degree) {
		r.hashPending()
	}
}

func (r *RangeResults) hashPending() {
	var b, m, v []byte
	for _, read := range r.pending {
		m, v = m[:0], v[:0]
		if read.Key != "" {
			m = protowire.AppendString(protowire.AppendTag(m, 1, protowire.BytesType), read.Key)
		}
		if n := read.Version.BlockNum; n != 0 {
			v = protowire.AppendVarint(protowire.AppendTag(v, 1, protowire.VarintType), n)
		}
		if n := read.Version.TxNum; n != 0 {
			v = protowire.AppendVarint(protowire.AppendTag(v, 2, protowire.VarintType), n)
		}
		m = protowire.AppendBytes(protowire.AppendTag(m, 2, protowire.BytesType), v)
		b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), m)
	}
	r.pending = nil
	h := sha256.Sum256(b)
	level := uint32(1)
	r.levels[level] = append(r.levels[level], h[:])
	for uint64(len(r.levels[level])) > uint64(r.degree) {
		up := combine(r.levels[level])
		delete(r.levels, level)
		level++
		r.levels[level] = append(r.levels[level], up)
		r.top = max(r.top, level)
	}
}

func combine(hashes [][]byte) []byte {
	h := sha256.New()
	for _, x := range hashes {
		h.Write(x)
	}
	return h.Sum(nil)
}

// Summary is the tree's top as it stands, which lets validation stop at the first difference.
func (r *RangeResults) Summary() *kvrwsetpb.QueryReadsMerkleSummary {
	return &kvrwsetpb.QueryReadsMerkleSummary{MaxDegree: r.degree, MaxLevel: r.top, MaxLevelHashes: r.levels[r.top]}
}

// Done finishes the summary: either the results themselves, or the finished tree's top; both nil if there were
// no results.
func (r *RangeResults) Done() ([]*kvrwsetpb.KVRead, *kvrwsetpb.QueryReadsMerkleSummary) {
	if r.top == 1 && len(r.levels[1]) == 0 {
		return r.pending, nil
	}
	if len(r.pending) > 0 {
		r.hashPending()
	}
	for level := uint32(1); level < r.top; level++ {
		hashes := r.levels[level]
		if len(hashes) == 0 {
			continue
		}
		up := hashes[0]
		if len(hashes) > 1 {
			up = combine(hashes)
		}
		delete(r.levels, level)
		r.levels[level+1] = append(r.levels[level+1], up)
	}
	if top := r.levels[r.top]; uint64(len(top)) > uint64(r.degree) {
		delete(r.levels, r.top)
		r.top++
		r.levels[r.top] = [][]byte{combine(top)}
	}
	return nil, r.Summary()
}

// Finish puts the results into the query's record; without results the record stays without them.
func (r *RangeResults) Finish(q *kvrwsetpb.RangeQueryInfo) {
	reads, summary := r.Done()
	switch {
	case summary != nil:
		q.ReadsInfo = &kvrwsetpb.RangeQueryInfo_ReadsMerkleHashes{ReadsMerkleHashes: summary}
	case reads != nil:
		q.ReadsInfo = &kvrwsetpb.RangeQueryInfo_RawReads{RawReads: &kvrwsetpb.QueryReads{KvReads: reads}}
	}
}
