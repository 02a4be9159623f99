package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// Dialer gives connections to other nodes. Connections are shared and kept: the
// caller does not close them.
type Dialer interface {
	// Dial returns a connection to address, whose certificate comes from one of the PEM roots.
	Dial(address string, roots [][]byte) (*grpc.ClientConn, error)
}

// streams reach the orderers of a channel over a few streams that stay open:
// transactions of many clients share them, so that none pays for opening one.
type streams struct {
	dial    Dialer
	bundles func(channelID string) (*channel.Bundle, bool)

	mu    sync.Mutex
	nodes map[string]*ordererNode // by address, guarded by mu
}

// NewOrderers reaches the orderers that the channels' configurations name.
func NewOrderers(dial Dialer, bundles func(channelID string) (*channel.Bundle, bool)) Orderers {
	return &streams{dial: dial, bundles: bundles, nodes: map[string]*ordererNode{}}
}

// Endpoints returns the orderers of a channel, those that answered last first,
// in random order otherwise.
func (s *streams) Endpoints(channelID string) []Orderer {
	bundle, ok := s.bundles(channelID)
	if !ok {
		return nil
	}
	endpoints := bundle.OrdererEndpoints()
	good, bad := make([]Orderer, 0, len(endpoints)), []Orderer(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range rand.Perm(len(endpoints)) {
		e := endpoints[i]
		n := s.nodes[e.Address]
		if n == nil {
			n = &ordererNode{dial: s.dial}
			s.nodes[e.Address] = n
		}
		n.endpoint.Store(&e)
		if n.down.Load() {
			bad = append(bad, n)
		} else {
			good = append(good, n)
		}
	}
	return append(good, bad...)
}

// ordererNode is one orderer with the open stream to it.
type ordererNode struct {
	dial     Dialer
	endpoint atomic.Pointer[channel.Endpoint] // as the newest configuration has it
	down     atomic.Bool                      // the last call failed

	mu     sync.Mutex       // held while connecting
	stream *broadcastStream // nil without one; a broken one is replaced
}

func (n *ordererNode) Address() string { return n.endpoint.Load().Address }
func (n *ordererNode) MSPID() string   { return n.endpoint.Load().MSPID }

// errStreamEnded says that the stream ended before the orderer answered: after
// another transaction was refused, as Fabric's orderers do, or because the
// orderer went away. Sending again is safe: a transaction commits once.
var errStreamEnded = errors.New("the orderer ended the stream before it answered")

// Broadcast sends one transaction and waits for its answer.
func (n *ordererNode) Broadcast(ctx context.Context, tx *commonpb.Envelope) (commonpb.Status, string, error) {
	for attempt := 0; ; attempt++ {
		s, fresh, err := n.open()
		if err != nil {
			n.down.Store(true)
			return 0, "", err
		}
		response, err := s.send(ctx, tx)
		if err == nil {
			n.down.Store(false)
			return response.Status, response.Info, nil
		}
		// A stream that was open already may have been dead for long: that says
		// nothing about the orderer. Each stream that ends gives way to a new one.
		if ctx.Err() != nil || fresh || attempt == maxAttempts {
			n.down.Store(true)
			return 0, "", err
		}
	}
}

// maxAttempts bounds how often a transaction moves to another stream because
// transactions of others broke the one that it was on.
const maxAttempts = 8

// open returns the stream, and whether it was made just now.
func (n *ordererNode) open() (*broadcastStream, bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stream != nil && !n.stream.broken() {
		return n.stream, false, nil
	}
	endpoint := n.endpoint.Load()
	conn, err := n.dial.Dial(endpoint.Address, endpoint.TLSRoots)
	if err != nil {
		return nil, false, fmt.Errorf("failed to create new connection: %w", err)
	}
	// The stream outlives the call that needed it first; it ends with the connection.
	stream, err := ordererpb.NewAtomicBroadcastClient(conn).Broadcast(context.Background())
	if err != nil {
		return nil, false, err
	}
	n.stream = newBroadcastStream(stream)
	return n.stream, true, nil
}

// broadcastStream is an open stream. An orderer answers in the order of what it
// got, so the calls that wait stand in a queue.
type broadcastStream struct {
	stream ordererpb.AtomicBroadcast_BroadcastClient

	mu      sync.Mutex // held while sending: queue and wire must have one order
	waiting []chan *ordererpb.BroadcastResponse
	err     error // why the stream ended
}

func newBroadcastStream(stream ordererpb.AtomicBroadcast_BroadcastClient) *broadcastStream {
	s := &broadcastStream{stream: stream}
	go s.receive()
	return s
}

func (s *broadcastStream) broken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err != nil
}

func (s *broadcastStream) send(ctx context.Context, tx *commonpb.Envelope) (*ordererpb.BroadcastResponse, error) {
	answer := make(chan *ordererpb.BroadcastResponse, 1)
	if err := s.enqueue(tx, answer); err != nil {
		return nil, err
	}
	select {
	case response, ok := <-answer:
		if !ok {
			return nil, s.reason()
		}
		return response, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *broadcastStream) enqueue(tx *commonpb.Envelope, answer chan *ordererpb.BroadcastResponse) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if err := s.stream.Send(tx); err != nil {
		s.err = errStreamEnded // receive learns the reason
		return s.err
	}
	s.waiting = append(s.waiting, answer)
	return nil
}

func (s *broadcastStream) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// receive hands answers to those who wait, until the stream ends.
func (s *broadcastStream) receive() {
	for {
		response, err := s.stream.Recv()
		s.mu.Lock()
		if err != nil {
			if s.err = err; errors.Is(err, io.EOF) {
				s.err = errStreamEnded
			}
			for _, w := range s.waiting {
				close(w)
			}
			s.waiting = nil
			s.mu.Unlock()
			return
		}
		if len(s.waiting) > 0 {
			s.waiting[0] <- response
			s.waiting = s.waiting[1:]
		}
		s.mu.Unlock()
	}
}
