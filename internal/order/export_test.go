package order

import (
	"time"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// Decode runs the decoders of outside and stored bytes, for the fuzz test.
func Decode(raw []byte) {
	header(&commonpb.Envelope{Payload: raw})
	updatedChannel(&commonpb.Envelope{Payload: raw})
	openBlock(raw)
	for env := range envelopesIn(raw) {
		splitEnvelope(env)
	}
	configIn(raw)
}

// BuildBlock gives a test the encoding of a block.
func BuildBlock(number uint64, previous []byte, envs []*commonpb.Envelope) []byte {
	raw, _ := buildBlock(number, previous, envs)
	return raw
}

// Cutter gives a test the cutter with envelopes told apart by the length of their payload.
type Cutter struct{ c cutter }

func NewCutter(size *ordererpb.BatchSize, timeout, linger, gap time.Duration) *Cutter {
	return &Cutter{cutter{size: size, timeout: timeout, linger: linger, gap: gap}}
}

func (c *Cutter) Add(size int, now time.Time) [][]int {
	var out [][]int
	for _, b := range c.c.add(&submission{env: &commonpb.Envelope{Payload: make([]byte, size)}}, now) {
		out = append(out, sizes(b))
	}
	return out
}

func (c *Cutter) Due(idle bool) (time.Time, bool) { return c.c.due(idle) }
func (c *Cutter) Cut() []int                      { return sizes(c.c.cut()) }

func sizes(batch []*submission) (out []int) {
	for _, s := range batch {
		out = append(out, int(s.size()))
	}
	return out
}

// ConsenterIDs and ConsenterNotes read what consensus noted in a block.
func ConsenterIDs(b *commonpb.Block) []uint64 { return ConsenterNotes(b).GetConsenterIds() }

func ConsenterNotes(b *commonpb.Block) *etcdraftpb.BlockMetadata {
	notes, err := consensusNotes(b)
	if err != nil {
		return nil
	}
	return notes
}
