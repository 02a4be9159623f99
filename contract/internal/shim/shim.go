// Package shim is the contract's side of Fabric's chaincode protocol: it registers a contract with peers and runs its transactions, many
// at a time on each stream. Package contract is made of it, and so is its in-memory twin for tests, contracttest: both give a Call
// whose Ledger reaches the state.
//
// It guarantees that each call is answered once, that a panic in a contract fails its own call only, and that messages and the number
// of calls that run at once are bounded. It leaves out everything that contract authors see. Files: shim.go (this: calls and what they
// can ask for), stream.go (the protocol), transport.go (sockets and TLS).
package shim

import (
	"context"
	"fmt"
	"time"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/queryresultpb"
	"google.golang.org/protobuf/proto"
)

// Statuses of responses.
const (
	OK     = 200
	Failed = 500
)

// Handler runs one call. The context ends with the stream that the call came by.
type Handler func(ctx context.Context, c *Call) *peerpb.Response

// Call is one invocation of a contract.
type Call struct {
	ChannelID string
	TxID      string
	Args      [][]byte // the function's name first
	IsInit    bool
	Creator   []byte // msp.SerializedIdentity
	Transient map[string][]byte
	Timestamp time.Time // chosen by the client: the same on all peers, but not to be trusted
	Ledger    Ledger
	Event     *peerpb.ChaincodeEvent // set by the handler
}

// Ledger is what a call can ask its peer for. The empty collection is the public state; a nil value means that there is none. It is used
// by one goroutine at a time.
type Ledger interface {
	Get(collection, key string) ([]byte, error)
	GetMany(collection string, keys []string) ([][]byte, error)
	Hash(collection, key string) ([]byte, error)
	Put(collection, key string, value []byte) error
	Delete(collection, key string) error
	Purge(collection, key string) error
	Metadata(collection, key string) (map[string][]byte, error)
	PutMetadata(collection, key, name string, value []byte) error
	Range(collection, start, end string, page Page) (Rows, error)
	Query(collection, query string, page Page) (Rows, error)
	History(key string) (Changes, error)
	Invoke(contract string, args [][]byte) (*peerpb.Response, error) // contract or contract/channel
	// Flush makes sure that the peer has all writes. A peer may refuse one only then.
	Flush() error
}

// Page asks for a part of a query's results; the zero Page for all.
type Page struct {
	Size     int32
	Bookmark string
}

// Rows are the results of a query. Next gives nil at the end; Bookmark is where the next page starts.
type Rows interface {
	Next() (*queryresultpb.KV, error)
	Bookmark() string
	Close() error
}

// Changes are the history of a key. Next gives nil at the end.
type Changes interface {
	Next() (*queryresultpb.KeyModification, error)
	Close() error
}

// newCall takes a message apart.
func newCall(m *peerpb.ChaincodeMessage) (*Call, error) {
	var input peerpb.ChaincodeInput
	if err := proto.Unmarshal(m.Payload, &input); err != nil {
		return nil, fmt.Errorf("failed to unmarshal input: %w", err)
	}
	c := &Call{ChannelID: m.ChannelId, TxID: m.Txid, Args: input.Args, IsInit: m.Type == peerpb.ChaincodeMessage_INIT}
	if m.Proposal == nil {
		return c, nil // the peer speaks for itself
	}
	var (
		proposal  peerpb.Proposal
		header    commonpb.Header
		channel   commonpb.ChannelHeader
		signature commonpb.SignatureHeader
		payload   peerpb.ChaincodeProposalPayload
	)
	for _, layer := range []struct {
		what string
		raw  func() []byte
		into proto.Message
	}{
		{"proposal", func() []byte { return m.Proposal.ProposalBytes }, &proposal},
		{"proposal header", func() []byte { return proposal.Header }, &header},
		{"channel header", func() []byte { return header.ChannelHeader }, &channel},
		{"signature header", func() []byte { return header.SignatureHeader }, &signature},
		{"proposal payload", func() []byte { return proposal.Payload }, &payload},
	} {
		if err := proto.Unmarshal(layer.raw(), layer.into); err != nil {
			return nil, fmt.Errorf("failed to unmarshal %s: %w", layer.what, err)
		}
	}
	c.Creator = signature.Creator
	c.Transient = payload.TransientMap
	if channel.Timestamp != nil {
		c.Timestamp = channel.Timestamp.AsTime()
	}
	return c, nil
}
