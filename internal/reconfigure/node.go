package reconfigure

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Node is an orderer or a peer to ask.
type Node struct {
	Address  string // host:port
	TLSRoots []byte // PEM certificates of the authorities that its TLS certificate may come from
	// ServerName overrides the host name that its certificate must have. Usually empty.
	ServerName string
	// Certificate is the caller's TLS client certificate, for nodes that ask for one. Nil for others.
	Certificate *tls.Certificate
	// Peer says that the node is a peer: it tells configurations, and takes no updates.
	Peer bool
}

const (
	maxMessage = 100 << 20 // as large as Fabric's blocks may be
	// attemptTimeout bounds one attempt at one node.
	attemptTimeout = 10 * time.Second
	// stragglers is how long nodes are waited for that tell configurations after the first one has.
	stragglers = 500 * time.Millisecond
	// maxRefusals is how often an update is submitted again that one orderer refused while others were not available: the
	// one may be behind, and judge by an older configuration.
	maxRefusals = 5
	// retryPause lies between attempts while no orderer takes the update.
	retryPause = 200 * time.Millisecond
)

var errNoNode = errors.New("no node is named that could be asked")

// ErrStale says that the channel's configuration has changed since the update was made.
var ErrStale = errors.New("the channel's configuration has changed meanwhile")

// Refused is an update that an orderer refused, with its words.
type Refused struct {
	Address string
	Status  commonpb.Status
	Info    string
}

func (r *Refused) Error() string {
	return fmt.Sprintf("orderer %s refused the update: %s: %s", r.Address, r.Status, r.Info)
}

// connection is a call of one node as one identity.
type connection struct {
	*grpc.ClientConn
	node    Node
	as      envelope.Signer
	channel string
	tlsHash []byte
}

func dial(n Node, as envelope.Signer, channelID string) (*connection, error) {
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12, ServerName: n.ServerName}
	if !config.RootCAs.AppendCertsFromPEM(n.TLSRoots) {
		return nil, fmt.Errorf("%s: its TLS roots hold no PEM certificate", n.Address)
	}
	c := &connection{node: n, as: as, channel: channelID}
	if n.Certificate != nil {
		config.Certificates = []tls.Certificate{*n.Certificate}
		sum := sha256.Sum256(n.Certificate.Certificate[0])
		c.tlsHash = sum[:]
	}
	var err error
	c.ClientConn, err = grpc.NewClient(n.Address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.Address, err)
	}
	return c, nil
}

// blocks asks for blocks and gives a function that waits for the next one.
func (c *connection) blocks(ctx context.Context, start, stop *ordererpb.SeekPosition) (func() (*commonpb.Block, error), error) {
	env, err := envelope.New(c.as, commonpb.HeaderType_DELIVER_SEEK_INFO, c.channel, &ordererpb.SeekInfo{Start: start, Stop: stop}, c.tlsHash)
	if err != nil {
		return nil, err
	}
	answer := func(b *commonpb.Block, status commonpb.Status, err error) (*commonpb.Block, error) {
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", c.node.Address, err)
		case b != nil:
			return b, nil
		case status == commonpb.Status_FORBIDDEN:
			return nil, fmt.Errorf("%s: it does not let this identity read channel %s", c.node.Address, c.channel)
		case status == commonpb.Status_NOT_FOUND:
			return nil, fmt.Errorf("%s: it has no channel %s", c.node.Address, c.channel)
		}
		return nil, fmt.Errorf("%s: it answered %s", c.node.Address, status)
	}
	if c.node.Peer {
		stream, err := peerpb.NewDeliverClient(c).Deliver(ctx)
		if err == nil {
			err = stream.Send(env)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.node.Address, err)
		}
		return func() (*commonpb.Block, error) {
			m, err := stream.Recv()
			return answer(m.GetBlock(), m.GetStatus(), err)
		}, nil
	}
	stream, err := ordererpb.NewAtomicBroadcastClient(c).Deliver(ctx)
	if err == nil {
		err = stream.Send(env)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.node.Address, err)
	}
	return func() (*commonpb.Block, error) {
		m, err := stream.Recv()
		return answer(m.GetBlock(), m.GetStatus(), err)
	}, nil
}

// block gets one block.
func (c *connection) block(ctx context.Context, at *ordererpb.SeekPosition) (*commonpb.Block, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	next, err := c.blocks(ctx, at, at)
	if err != nil {
		return nil, err
	}
	return next()
}

func newest() *ordererpb.SeekPosition {
	return &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_Newest{Newest: &ordererpb.SeekNewest{}}}
}

func numbered(n uint64) *ordererpb.SeekPosition {
	return &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_Specified{Specified: &ordererpb.SeekSpecified{Number: n}}}
}

// configAt gets the config block in force at a position.
func (c *connection) configAt(ctx context.Context, at *ordererpb.SeekPosition) (*commonpb.Block, error) {
	b, err := c.block(ctx, at)
	if err != nil {
		return nil, err
	}
	number, err := block.LastConfig(b)
	if err != nil {
		return nil, err
	}
	if number == b.GetHeader().GetNumber() {
		return b, nil
	}
	return c.block(ctx, numbered(number))
}

// Fetch gets the newest configuration of a channel. All nodes are asked at once, as
// one that has just started may be behind; the newest answer counts, and who does
// not answer is waited for no longer than stragglers after the first who does.
func Fetch(ctx context.Context, nodes []Node, as envelope.Signer, channelID string) (*Config, error) {
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	type answer struct {
		config *Config
		err    error
	}
	answers := make(chan answer, len(nodes))
	for _, n := range nodes {
		asking.Go(func() {
			config, err := ask([]Node{n}, as, channelID, func(c *connection) (*Config, error) {
				b, err := c.configAt(ctx, newest())
				if err != nil {
					return nil, err
				}
				return fromBlock(b, channelID)
			})
			answers <- answer{config, err}
		})
	}
	var best *Config
	var failed error
	var enough <-chan time.Time
	for range nodes {
		select {
		case a := <-answers:
			switch {
			case a.err != nil:
				failed = errors.Join(failed, a.err)
			case best == nil || a.config.Sequence() > best.Sequence():
				best = a.config
			}
			if best != nil && enough == nil {
				enough = time.After(stragglers)
			}
		case <-enough:
			return best, nil
		}
	}
	if best == nil && failed == nil {
		failed = errNoNode
	}
	if best == nil {
		return nil, failed
	}
	return best, nil
}

// FetchSequence gets an earlier configuration of a channel, by its sequence.
func FetchSequence(ctx context.Context, nodes []Node, as envelope.Signer, channelID string, sequence uint64) (*Config, error) {
	return ask(nodes, as, channelID, func(c *connection) (*Config, error) {
		at := newest()
		for {
			b, err := c.configAt(ctx, at)
			if err != nil {
				return nil, err
			}
			config, err := fromBlock(b, channelID)
			switch {
			case err != nil:
				return nil, err
			case config.Sequence() == sequence:
				return config, nil
			case config.Sequence() < sequence || config.Block == 0:
				return nil, fmt.Errorf("%s: channel %s has no configuration %d", c.node.Address, channelID, sequence)
			}
			at = numbered(config.Block - 1)
		}
	})
}

func fromBlock(b *commonpb.Block, channelID string) (*Config, error) {
	config, err := FromBlock(b)
	if err != nil {
		return nil, err
	}
	if config.ID() != channelID {
		return nil, fmt.Errorf("a configuration of channel %q came for %q", config.ID(), channelID)
	}
	return config, nil
}

// ask calls one node after the other until one answers.
func ask[T any](nodes []Node, as envelope.Signer, channelID string, call func(*connection) (T, error)) (T, error) {
	var none T
	if len(nodes) == 0 {
		return none, errNoNode
	}
	var failed error
	for _, n := range nodes {
		c, err := dial(n, as, channelID)
		if err != nil {
			return none, err
		}
		result, err := call(c)
		c.Close()
		if err == nil {
			return result, nil
		}
		failed = errors.Join(failed, err)
	}
	return none, failed
}

// Submit hands a request that is signed sufficiently to the first orderer that
// takes it, and waits until the configuration that comes of it has been ordered. It
// gives that configuration. While no orderer can take it (there is no leader), it
// tries again until ctx ends. as is who submits: a member that may write.
//
// Errors: *Refused with an orderer's words; ErrStale if another update came first.
func (c *Config) Submit(ctx context.Context, orderers []Node, as envelope.Signer, r *Request) (*Config, error) {
	if _, err := c.Status(r); err != nil {
		return nil, err
	}
	env, err := envelope.New(as, commonpb.HeaderType_CONFIG_UPDATE, c.ID(), r.envelope, nil)
	if err != nil {
		return nil, err
	}
	for refusals := 0; ; {
		busy, definite := false, false
		next, err := ask(orderers, as, c.ID(), func(conn *connection) (*Config, error) {
			// Where to look for the outcome is noted before, so that it cannot be missed.
			b, err := conn.block(ctx, newest())
			if err != nil {
				return nil, err
			}
			if err := conn.broadcast(ctx, env); err != nil {
				if refused := (*Refused)(nil); errors.As(err, &refused) {
					unavailable := refused.Status == commonpb.Status_SERVICE_UNAVAILABLE
					busy, definite = busy || unavailable, definite || !unavailable
				}
				return nil, err
			}
			return c.await(ctx, conn, b.GetHeader().GetNumber()+1, r)
		})
		if err == nil {
			return next, nil
		}
		if definite {
			refusals++
		}
		if !busy || refusals > maxRefusals {
			return c.settle(ctx, orderers, as, r, err)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(retryPause):
		}
	}
}

// broadcast hands an envelope to the orderer.
func (c *connection) broadcast(ctx context.Context, env *commonpb.Envelope) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	stream, err := ordererpb.NewAtomicBroadcastClient(c).Broadcast(ctx)
	if err == nil {
		err = stream.Send(env)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", c.node.Address, err)
	}
	answer, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("%s: %w", c.node.Address, err)
	}
	if answer.Status != commonpb.Status_SUCCESS {
		return &Refused{c.node.Address, answer.Status, answer.Info}
	}
	return nil
}

// await reads blocks until the update is in force, or another one is.
func (c *Config) await(ctx context.Context, conn *connection, from uint64, r *Request) (*Config, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next, err := conn.blocks(ctx, numbered(from), numbered(math.MaxUint64))
	if err != nil {
		return nil, fmt.Errorf("the update was accepted, but whether it is in force is not known: %w", err)
	}
	for {
		b, err := next()
		if err != nil {
			return nil, fmt.Errorf("the update was accepted, but whether it is in force is not known: %w", err)
		}
		if !block.IsConfig(b) {
			continue
		}
		config, err := fromBlock(b, c.ID())
		if err != nil {
			return nil, err
		}
		if config.cameOf(r) {
			return config, nil
		}
		if _, err := config.Status(r); errors.Is(err, ErrStale) {
			return nil, fmt.Errorf("%w; another update came first", err)
		}
		// Another update that touches other things: this one's turn is next.
	}
}

// cameOf says whether a request made the configuration.
func (c *Config) cameOf(r *Request) bool {
	return len(c.made) > 0 && bytes.Equal(c.made, r.envelope.ConfigUpdate)
}

// settle finds out what became of an update after a failure: an orderer may have taken
// it before it failed, and another one then refuses the same again; or somebody
// else's update came first.
func (c *Config) settle(ctx context.Context, nodes []Node, as envelope.Signer, r *Request, failed error) (*Config, error) {
	now, err := Fetch(ctx, nodes, as, c.ID())
	for err == nil && now.Sequence() > c.Sequence() {
		if now.cameOf(r) {
			return now, nil
		}
		if _, err := now.Status(r); errors.Is(err, ErrStale) && now.Sequence() == c.Sequence()+1 {
			if refused := (*Refused)(nil); errors.As(failed, &refused) {
				failed = refused // one orderer's words are enough
			}
			return nil, fmt.Errorf("%w (%w)", err, failed)
		}
		now, err = FetchSequence(ctx, nodes, as, c.ID(), now.Sequence()-1)
	}
	return nil, failed
}

// stale says whether a request reads other versions than the configuration has. What was
// read and is gone or newer, and what is written and is there already, tell the same.
func (c *Config) stale(r *Request) error {
	_, _, err := c.base.Preview(r.update, time.Now())
	if err == nil || !channel.IsVersionError(err) {
		return nil
	}
	return fmt.Errorf("%w: in force is configuration %d (block %d), for which the update was not made: %w", ErrStale, c.Sequence(), c.Block, err)
}

// AwaitBlock waits until a node, usually a peer, has a block of the channel.
func AwaitBlock(ctx context.Context, n Node, as envelope.Signer, channelID string, number uint64) error {
	_, err := ask([]Node{n}, as, channelID, func(c *connection) (*commonpb.Block, error) {
		next, err := c.blocks(ctx, numbered(number), numbered(number))
		if err != nil {
			return nil, err
		}
		return next()
	})
	return err
}

// FirstBlock gets the block that began a channel, with which peers join it.
func FirstBlock(ctx context.Context, nodes []Node, as envelope.Signer, channelID string) (*commonpb.Block, error) {
	return ask(nodes, as, channelID, func(c *connection) (*commonpb.Block, error) { return c.block(ctx, numbered(0)) })
}

// AwaitConfig waits until a node that catches up has the configuration of a block. Until
// then it may not know the one who asks, so that refusals are no end.
func AwaitConfig(ctx context.Context, n Node, as envelope.Signer, channelID string, number uint64) error {
	for {
		config, err := Fetch(ctx, []Node{n}, as, channelID)
		if err == nil && config.Block >= number {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(retryPause):
		}
	}
}
