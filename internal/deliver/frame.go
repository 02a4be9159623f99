package deliver

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Field numbers of DeliverResponse, BlockAndPrivateData and Block.
const (
	fieldBlock           = 2
	fieldBlockAndPrivate = 4
	fieldPrivateBlock    = 1
	fieldData            = 2
)

// frame wraps bytes that are already encoded as a field of a response. They travel as the message's unknown fields,
// which the encoder copies out unread: what arrives is the message with that field set.
func frame(field protowire.Number, parts ...[]byte) *peerpb.DeliverResponse {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	raw := make([]byte, 0, size+2*protowire.SizeVarint(uint64(size)))
	raw = protowire.AppendTag(raw, field, protowire.BytesType)
	raw = protowire.AppendVarint(raw, uint64(size))
	for _, p := range parts {
		raw = append(raw, p...)
	}
	m := &peerpb.DeliverResponse{}
	m.ProtoReflect().SetUnknown(raw)
	return m
}

// response makes the message for one block, or finds it where another reader has made it.
func (s *Server) response(ctx context.Context, r *request, ch Channel, private PrivateSource, number uint64, k kind) (*peerpb.DeliverResponse, error) {
	key := cacheKey{ch, k, number}
	if m := s.cache.get(key); m != nil {
		return m, nil
	}
	raw, err := ch.BlockBytes(number)
	if err != nil {
		return nil, fmt.Errorf("read block: %w", err)
	}
	var m *peerpb.DeliverResponse
	size := len(raw)
	switch k {
	case kindBlock:
		m = frame(fieldBlock, raw)
	case kindHeader:
		if raw, err = withoutData(raw); err != nil {
			return nil, fmt.Errorf("stored block: %w", err)
		}
		m, size = frame(fieldBlock, raw), len(raw)
	case kindFiltered:
		b := &commonpb.Block{}
		if err := proto.Unmarshal(raw, b); err != nil {
			return nil, fmt.Errorf("stored block: %w", err)
		}
		f := Filter(b)
		m, size = &peerpb.DeliverResponse{Type: &peerpb.DeliverResponse_FilteredBlock{FilteredBlock: f}}, proto.Size(f)
	case kindPrivate:
		sets, err := private.PrivateData(ctx, number, r.signed)
		if err != nil {
			return nil, fmt.Errorf("read private data: %w", err)
		}
		rest, err := proto.Marshal(&peerpb.BlockAndPrivateData{PrivateDataMap: sets})
		if err != nil {
			return nil, fmt.Errorf("encode private data: %w", err)
		}
		head := protowire.AppendTag(nil, fieldPrivateBlock, protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(len(raw)))
		return frame(fieldBlockAndPrivate, head, raw, rest), nil // differs by reader
	}
	// Readers that catch up each read their own part of the past; those at the tip all want the same blocks.
	if number+tip >= ch.Height() {
		s.cache.put(key, m, size)
	}
	return m, nil
}

// tip is how many of the newest blocks are worth keeping for other readers.
const tip = 8

// withoutData drops the transactions of an encoded block, except those of a config block, which a reader of headers
// needs to follow the config.
func withoutData(raw []byte) ([]byte, error) {
	var out []byte
	for rest := raw; len(rest) > 0; {
		number, typ, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		m := protowire.ConsumeFieldValue(number, typ, rest[n:])
		if m < 0 {
			return nil, protowire.ParseError(m)
		}
		if number != fieldData {
			out = append(out, rest[:n+m]...)
		} else if typ != protowire.BytesType {
			return nil, errors.New("block data is no message")
		} else if value, _ := protowire.ConsumeBytes(rest[n:]); isConfig(value) {
			return raw, nil
		}
		rest = rest[n+m:]
	}
	return out, nil
}

func isConfig(data []byte) bool {
	_, _, n := protowire.ConsumeTag(data)
	if n < 0 {
		return false
	}
	first, m := protowire.ConsumeBytes(data[n:])
	if m < 0 || n+m != len(data) {
		return false // none, or more than one transaction
	}
	tx := envelope.Parse(first)
	return tx.Channel != nil && tx.Type() == commonpb.HeaderType_CONFIG
}

// cache keeps the newest responses, oldest out first. The messages in it are shared and never changed.
type cache struct {
	mu    sync.Mutex
	byKey map[cacheKey]cached
	order []cacheKey
	size  int
	limit int
}

type cacheKey struct {
	channel Channel
	kind    kind
	number  uint64
}

type cached struct {
	message *peerpb.DeliverResponse
	size    int
}

func newCache(limit int) *cache { return &cache{byKey: map[cacheKey]cached{}, limit: limit} }

func (c *cache) get(key cacheKey) *peerpb.DeliverResponse {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byKey[key].message
}

func (c *cache) put(key cacheKey, m *peerpb.DeliverResponse, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byKey[key]; ok || size > c.limit/4 {
		return
	}
	c.byKey[key] = cached{m, size}
	c.order = append(c.order, key)
	c.size += size
	for c.size > c.limit || len(c.order) > maxCached {
		c.size -= c.byKey[c.order[0]].size
		delete(c.byKey, c.order[0])
		c.order = c.order[1:]
	}
}

const maxCached = 256
