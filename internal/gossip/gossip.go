// Package gossip lets peers of Fabric know this peer, and this peer know them, as
// they expect it: by the membership and private data parts of Fabric's gossip protocol.
//
// A link is one GossipStream with another peer, in whichever direction it was
// opened, after both have proved who they are. Over it this peer says regularly
// that it lives, how far its ledgers are and which contracts it runs, and answers
// who else there is; what it hears goes to the discovery.Directory, which checks
// it and from which it goes on to all who ask. Whoever is no peer of a
// member of a common channel gets no link.
//
// Private data goes over links too, both ways; what may be given and what is kept, and
// what becomes of it, package courier decides.
//
// It leaves out what else gossip carries: blocks (a Hansa peer takes them from
// orderers, a Fabric peer may too) and leader election. Peers of Hansa do
// not gossip among themselves, see package discovery. Open link.go for the life of a
// link, messages.go for what is said on it, private.go for private data.
//
// Source: Fabric's gossip/message.proto and the behaviour of its peers.
package gossip

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/gossippb"
)

// Config is what a Service works with. All above the blank line is required.
type Config struct {
	Signer    envelope.Signer // this peer
	CertHash  []byte          // SHA-256 of the TLS certificate that this peer shows, as server and as client
	Directory *discovery.Directory
	// Channels lists the joined channels; Bundle gives the configuration of one.
	Channels func() []string
	Bundle   func(id string) (*channel.Bundle, bool)
	Dial     discovery.Dialer
	Private  Private
	Log      *slog.Logger

	// Interval is the time between two signs of life on a link; default 4 s. Fabric's
	// peers wait for one 25 s.
	Interval time.Duration
}

const (
	defaultInterval = 4 * time.Second
	// maxLinks bounds the links at a time, maxKnown the peers that were heard of.
	maxLinks, maxKnown = 256, 4096
	// maxGreeting bounds those that may be about to prove who they are.
	maxGreeting = 32
	// maxMessage bounds a message in bytes, as Fabric's peers do: private data can be large.
	maxMessage = 100 << 20
)

// Service is this peer's part in the gossip. It is a gossip.Gossip server.
type Service struct {
	gossippb.UnimplementedGossipServer
	config Config
	pkiID  []byte
	ended  chan struct{} // closed when Run ends
	// greeting has room for those that have not proved yet who they are.
	greeting chan struct{}

	mu    sync.Mutex // guards all below
	links map[string]*link
	known map[string]*peer
	// dialling are the addresses to which a link is open or being opened from here.
	dialling map[string]bool
}

// New makes a service; Run opens its links.
func New(c Config) (*Service, error) {
	if c.Signer == nil || c.Directory == nil || c.Channels == nil || c.Bundle == nil || c.Dial == nil || c.Private == nil || c.Log == nil {
		return nil, errors.New("gossip: Signer, Directory, Channels, Bundle, Dial, Private and Log are required")
	}
	if c.Interval == 0 {
		c.Interval = defaultInterval
	}
	pkiID, err := discovery.PKIID(c.Signer.Serialize())
	if err != nil {
		return nil, err
	}
	return &Service{config: c, pkiID: pkiID, ended: make(chan struct{}), greeting: make(chan struct{}, maxGreeting), links: map[string]*link{}, known: map[string]*peer{}, dialling: map[string]bool{}}, nil
}

// Run keeps links to the anchor peers that are not of Hansa, until ctx ends; all links end with it.
func (s *Service) Run(ctx context.Context) error {
	var dialled sync.WaitGroup
	defer dialled.Wait()
	defer close(s.ended)
	tick := time.NewTicker(s.config.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, id := range s.config.Channels() {
			bundle, ok := s.config.Bundle(id)
			if !ok {
				continue
			}
			for address, mspID := range s.config.Directory.Strangers(id) {
				if s.reserve(mspID, address) {
					dialled.Go(func() {
						defer s.release(address)
						if err := s.open(ctx, address, roots(bundle, mspID)); err != nil && ctx.Err() == nil {
							s.config.Log.Debug("no link to a peer", "address", address, "error", err)
						}
					})
				}
			}
		}
	}
}

func roots(b *channel.Bundle, mspID string) (all [][]byte) {
	for _, org := range b.ApplicationOrgs() {
		if org.MSPID == mspID {
			all = append(append(all, org.TLSRoots...), org.TLSIntermediates...)
		}
	}
	return all
}

// reserve says whether a link to a member's peer should be opened now.
func (s *Service) reserve(mspID, address string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dialling[address] || len(s.dialling) >= maxLinks {
		return false
	}
	if s.linkTo(mspID, address) != nil {
		return false
	}
	s.dialling[address] = true
	return true
}

func (s *Service) release(address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dialling, address)
}

// open opens a link and serves it until it ends.
func (s *Service) open(ctx context.Context, address string, roots [][]byte) error {
	conn, err := s.config.Dial.Dial(address, roots)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := gossippb.NewGossipClient(conn).GossipStream(ctx, grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage))
	if err != nil {
		return err
	}
	return s.serve(ctx, stream)
}

// GossipStream implements gossip.Gossip.
func (s *Service) GossipStream(stream grpc.BidiStreamingServer[gossippb.Envelope, gossippb.Envelope]) error {
	return s.serve(stream.Context(), stream)
}

// Ping implements gossip.Gossip: peers ask so whether this one is there.
func (s *Service) Ping(context.Context, *gossippb.Empty) (*gossippb.Empty, error) {
	return &gossippb.Empty{}, nil
}

// identify finds whose identity this is: of a peer of a member of a common channel.
func (s *Service) identify(serialized, pkiID []byte) (*identity.Identity, error) {
	claimed, err := discovery.PKIID(serialized)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(claimed, pkiID) {
		return nil, errors.New("the PKI-ID is of another identity")
	}
	err = errors.New("this peer has joined no channel")
	for _, channelID := range s.config.Channels() {
		bundle, ok := s.config.Bundle(channelID)
		if !ok {
			continue
		}
		var id *identity.Identity
		if id, err = bundle.MSPs().Deserialize(serialized); err != nil {
			continue
		}
		if err = bundle.CheckPeer(id); err == nil {
			return id, nil
		}
	}
	return nil, err
}
