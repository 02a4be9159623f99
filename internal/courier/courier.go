// Package courier brings private data to the peers that may have it: what is endorsed here to other members of
// the collection before the endorsement is given (Distribute), and what this peer lacks from them, when its block is committed
// (Fetch) or later (Reconcile). As a server it answers the couriers of other peers.
//
// What it guarantees: private data goes to nobody but peers that satisfy the member policy of its collection, by the
// definition that the channel had agreed on when it was written or has now, and over a connection to a peer of the member that the
// channel's configuration names. Who asks or brings something shows that it is a peer of a member by a signature that is
// bound to its TLS certificate, and the certificate has to come from that member. What others bring is kept apart until the
// transaction is committed and counts only if it has the hash that is in the block. Waiting for others, and what
// others can make this peer hold or do, is bounded.
//
// It leaves out which peers there are (Config.Peers), what is missing and how it is stored (package ledger), and when to fetch
// (package commit).
//
// The protocol between Hansa's peers is their own (proto/hansa/privatedata.proto) and is touched in two places: remote.go, where
// others are called, and server.go. With peers of Fabric the same goes by Fabric's gossip: gossip.go. What is decided
// does not depend on the way.
//
// Open this file first; distribute.go brings, fetch.go and reconcile.go get, snapshot.go what is older than the ledger, collections.go says who belongs to a
// collection.
package courier

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/privatedb"
	"github.com/hansa-ledger/hansa/internal/wire/privatedatapb"
)

// Channel is what the courier needs of a channel that this peer has joined. *commit.Channel is one.
type Channel interface {
	Bundle() *channel.Bundle
	Ledger() *ledger.Ledger
	// CommitLate makes private data part of the ledger that was missing, and tells how much of it was taken.
	CommitLate(ctx context.Context, late []ledger.Late) (taken int, err error)
}

// Peer is another peer of a channel.
type Peer struct {
	MSPID, Address string
	// Conn is a connection that checks that the peer is one of that member.
	Conn grpc.ClientConnInterface
	// Link is there for a peer of Fabric and used instead.
	Link Link
}

// peerKey names a peer: by its member too, as the address is what it says of itself.
type peerKey struct{ mspID, address string }

func (p Peer) key() peerKey { return peerKey{p.MSPID, p.Address} }

// Defaults of Config. The times are those of Fabric where it has them (core.yaml, peer.gossip.pvtData), but for PullTimeout, which
// is a minute there: for so long a block would wait for peers that are gone, although reconciliation brings the data later.
const (
	DefaultPushTimeout       = 3 * time.Second
	DefaultPullTimeout       = 5 * time.Second
	DefaultReconcileInterval = time.Minute
	DefaultImplicitMaximum   = 1
	DefaultMaxCalls          = 64
	DefaultMaxHeldBytes      = privatedb.DefaultTransientBytes / 2
)

// Config says what a Courier works with. Signer, Certificate, Channel and Peers are needed.
type Config struct {
	// Signer is the peer's own identity, MSPID that of its member.
	Signer envelope.Signer
	MSPID  string
	// Certificate is the TLS certificate, in DER, that this peer shows to others.
	Certificate []byte
	// Channel finds a channel that this peer has joined.
	Channel func(id string) (Channel, bool)
	// Peers lists the other peers of a channel.
	Peers func(channelID string) []Peer
	// PushTimeout is for how long an endorsement waits for others to take its private data.
	PushTimeout time.Duration
	// PullTimeout is for how long the commit of a block waits for private data. What does not come is reconciled later.
	PullTimeout time.Duration
	// ReconcileInterval is the time between two attempts to get what is missing.
	ReconcileInterval time.Duration
	// ImplicitRequired and ImplicitMaximum are the numbers of other peers of the own member to which private data of its implicit
	// collection is brought; those of other collections are in their definition.
	ImplicitRequired, ImplicitMaximum int
	// MaxCalls bounds the calls of other peers that are answered at once; half of them for one member.
	MaxCalls int
	// MaxHeldBytes is how much private data may wait for its commit before no more is taken from others. The rest is for what is
	// endorsed here.
	MaxHeldBytes int64
	// Log is where it is reported what did not work; nil discards.
	Log *slog.Logger
}

func (c *Config) complete() error {
	if c.Signer == nil || c.MSPID == "" || len(c.Certificate) == 0 || c.Channel == nil || c.Peers == nil {
		return errors.New("courier: Signer, MSPID, Certificate, Channel and Peers must all be set")
	}
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{{&c.PushTimeout, DefaultPushTimeout}, {&c.PullTimeout, DefaultPullTimeout}, {&c.ReconcileInterval, DefaultReconcileInterval}} {
		if *d.value <= 0 {
			*d.value = d.or
		}
	}
	if c.ImplicitMaximum == 0 {
		c.ImplicitMaximum = DefaultImplicitMaximum
	}
	if c.MaxCalls <= 0 {
		c.MaxCalls = DefaultMaxCalls
	}
	if c.MaxHeldBytes <= 0 {
		c.MaxHeldBytes = DefaultMaxHeldBytes
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Courier carries private data for one peer. All methods are safe for concurrent use.
type Courier struct {
	privatedatapb.UnimplementedPrivateDataServer
	config  Config
	metrics *metrics
	tlsHash []byte
	gate    *gate         // of calls by others
	sending chan struct{} // has room for what is brought to others at once
	ctx     context.Context
	cancel  context.CancelFunc
	sends   sync.WaitGroup

	mu      sync.Mutex // guards all below
	closed  bool
	failed  map[peerKey]time.Time    // when a peer could not be reached
	lacking map[string]chan struct{} // by channel: wakes its Reconcile
	// unfetched is what Reconcile knows of private data from before snapshots.
	unfetched map[snapshotPlace]*unfetched
}

var _ privatedatapb.PrivateDataServer = (*Courier)(nil)

// maxSending bounds what is brought to others at once; what nobody waits for is dropped beyond it, and fetched by those who miss it.
const maxSending = 256

// New makes a courier. It is to be closed.
func New(c Config) (*Courier, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	hash := sha256.Sum256(c.Certificate)
	ctx, cancel := context.WithCancel(context.Background())
	return &Courier{config: c, metrics: newMetrics(), tlsHash: hash[:], gate: newGate(c.MaxCalls), sending: make(chan struct{}, maxSending), ctx: ctx, cancel: cancel,
		failed: map[peerKey]time.Time{}, lacking: map[string]chan struct{}{}, unfetched: map[snapshotPlace]*unfetched{}}, nil
}

// Close ends what is under way.
func (c *Courier) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.sends.Wait()
}

// spare is for how long a peer that could not be reached is spared; not so long that it is passed over when what is missing is asked for
// the next time.
const spare = 10 * time.Second

// note remembers how a call of a peer went.
func (c *Courier) note(p Peer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if unreachable(err) {
		c.failed[p.key()] = time.Now()
	} else {
		delete(c.failed, p.key())
	}
}

// fresh leaves out the peers that failed lately.
func (c *Courier) fresh(peers []Peer) (fresh []Peer) {
	spare := min(spare, c.config.ReconcileInterval)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range peers {
		if time.Since(c.failed[p.key()]) > spare {
			fresh = append(fresh, p)
		}
	}
	return fresh
}
