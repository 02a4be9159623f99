// Package discovery knows who the peers of a channel are and which of them
// together can endorse a transaction. It serves both as discovery.Discovery, as
// clients of Hyperledger Fabric know it, and tells this peer's own gateway.
//
// Hansa's peers find each other without a gossip protocol: every peer asks the anchor
// peers of the channel's members, and the peers that those name, for the peers
// that they know, and shows its own messages as it asks. What a peer says of
// itself, its address, its ledger's height and the contracts that it runs, is
// signed by it in Fabric's gossip format, so it does not matter who passes it on.
// A peer that has not been heard of for a while is dropped; the anchor peers of
// the configuration stay candidates. What gossip tells of Fabric's peers goes in by
// Directory.Hear, and comes out for them by Directory.Statements.
//
// It leaves out what contracts and their policies are (Channel, Rules), and
// connections (Dialer). Open directory.go for how peers are found, layout.go for how
// endorsements are planned, service.go for what clients are told.
package discovery

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/gossippb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// Channel is what discovery needs of a channel that this peer has joined. It is
// safe for concurrent use.
type Channel interface {
	Bundle() *channel.Bundle
	Height() uint64
	// Contracts are the committed contracts by name. The map is shared and not changed.
	Contracts() (map[string]Contract, error)
	Rules() Rules
}

// Contract is a contract that is defined on a channel.
type Contract struct {
	// Version tells definitions apart: the sequence number, as in Fabric.
	Version string
	// Runs says that this peer can run it: its member approved it and the package is installed.
	Runs bool
}

// Dialer gives connections to other peers. They are shared and kept: the caller
// does not close them.
type Dialer interface {
	// Dial returns a connection to address, whose certificate comes from one of the PEM roots.
	Dial(address string, roots [][]byte) (*grpc.ClientConn, error)
}

// Config is what a Directory works with. All above the blank line is required.
type Config struct {
	Signer  envelope.Signer // this peer
	MSPID   string          // of its member
	Address string          // host:port under which others reach it
	// Channels lists the joined channels; Channel gives one.
	Channels func() []string
	Channel  func(id string) (Channel, bool)
	Dial     Dialer
	Log      *slog.Logger

	// CertHash is the SHA-256 of the TLS certificate that Dial shows: peers that
	// demand mutual TLS bind requests to it.
	CertHash []byte
	// Interval is the time between two questions to each peer; default 5 s.
	Interval time.Duration
	// Expiry is how long a peer is listed after it was last heard of; default 30 s.
	Expiry time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

const (
	defaultInterval = 5 * time.Second
	defaultExpiry   = 30 * time.Second
)

func (c *Config) complete() error {
	if c.Signer == nil || c.MSPID == "" || c.Address == "" || c.Channels == nil || c.Channel == nil || c.Dial == nil || c.Log == nil {
		return errors.New("discovery: Signer, MSPID, Address, Channels, Channel, Dial and Log are required")
	}
	if c.Interval == 0 {
		c.Interval = defaultInterval
	}
	if c.Expiry == 0 {
		c.Expiry = defaultExpiry
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// Every peer runs the contract that defines contracts; Fabric's peers state this
// version of it.
const (
	lifecycleNamespace = "_lifecycle"
	lifecycleVersion   = "1"
)

// mark is what Hansa's peers state as their metadata: they ask each other, and gossip with other peers only.
const mark = "hansa"

// PKIID computes a peer's PKI-ID, as which Fabric's messages name it, from its serialized identity.
func PKIID(serialized []byte) ([]byte, error) {
	id := &msppb.SerializedIdentity{}
	if err := proto.Unmarshal(serialized, id); err != nil {
		return nil, fmt.Errorf("decode identity: %w", err)
	}
	h := sha256.New()
	h.Write([]byte(id.Mspid))
	h.Write(id.IdBytes)
	return h.Sum(nil), nil
}

// ChannelMAC binds a message of a peer to a channel, without naming it.
func ChannelMAC(pkiID []byte, channelID string) []byte {
	h := sha256.New()
	h.Write(pkiID)
	h.Write([]byte(channelID))
	return h.Sum(nil)
}

// Seal signs a message of this peer.
func Seal(s envelope.Signer, m *gossippb.GossipMessage) (*gossippb.Envelope, error) {
	payload, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	signature, err := s.Sign(payload)
	if err != nil {
		return nil, fmt.Errorf("sign a message to other peers: %w", err)
	}
	return &gossippb.Envelope{Payload: payload, Signature: signature}, nil
}

// call bounds one question to one peer.
func call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 3*time.Second)
}
