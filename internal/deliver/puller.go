package deliver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// Endpoint is one orderer.
type Endpoint struct {
	Address string // host:port
	// ServerName overrides the host name that the orderer's certificate must have. Usually empty.
	ServerName string
	TLSRoots   [][]byte // PEM
}

// PullerConfig says what to pull, from where and to whom.
type PullerConfig struct {
	// Silence is how long to wait for a block before asking the orderer, and another one, whether there is one. An orderer
	// that does not answer within the same time, or does not send a block that one of them has, is left for the next.
	// Default 500ms.
	Silence time.Duration `yaml:"silence"`
	// MaxSilence bounds the pause between such questions while the chain is idle. Default 1s.
	MaxSilence time.Duration `yaml:"maxSilence"`
	// DialTimeout bounds one attempt to connect. Default 1s.
	DialTimeout time.Duration `yaml:"dialTimeout"`
	// MinBackoff and MaxBackoff bound the pause after all orderers have failed; it doubles and is jittered. Defaults 50ms, 2s.
	MinBackoff time.Duration `yaml:"minBackoff"`
	MaxBackoff time.Duration `yaml:"maxBackoff"`
	// Ahead is how many blocks are received while the sink is busy. Default 4.
	Ahead int `yaml:"ahead"`
	// MaxBlockBytes is the largest message accepted. Default 100 MiB, as in Fabric.
	MaxBlockBytes int `yaml:"maxBlockBytes"`

	ChannelID string          `yaml:"-"`
	Signer    envelope.Signer `yaml:"-"`
	// Certificate is this node's TLS client certificate; nil for a server that asks for none.
	Certificate *tls.Certificate `yaml:"-"`
	// Plaintext connects without TLS, for networks that have none.
	Plaintext bool `yaml:"-"`
	// Endpoints are the channel's orderers, asked at every attempt since the config may have changed.
	Endpoints func() []Endpoint `yaml:"-"`
	// Next is the number of the block that is wanted, asked at every attempt.
	Next func() uint64 `yaml:"-"`
	// Known is a height that the chain has reached for sure, 0 if nothing is known: an orderer that has not is left at once.
	// Nil is never.
	Known func() uint64 `yaml:"-"`
	// Sink takes the blocks, in order, one at a time. It verifies them: ErrBadBlock makes the puller turn to another
	// orderer, any other error ends Run. While it is busy the orderer is held back.
	Sink func(ctx context.Context, b *commonpb.Block) error `yaml:"-"`
	Log  *slog.Logger                                       `yaml:"-"`
}

// ErrBadBlock is returned by a sink for a block that must not be trusted, nor the orderer which sent it.
var ErrBadBlock = errors.New("bad block")

// Puller keeps a chain up to date from a set of orderers. Run it once.
type Puller struct {
	cfg     PullerConfig
	tlsHash []byte

	// Of Run's goroutine, and of the one look that it has under way.
	failures map[string]time.Time // when each orderer failed last
	wanted   string               // the orderer to turn to next, if not empty
	asked    int                  // by elsewhere
	others   map[string]*grpc.ClientConn

	mu      sync.Mutex
	source  string
	blocks  prometheus.Counter
	changes prometheus.Counter
}

// NewPuller returns a Puller that has not started.
func NewPuller(cfg PullerConfig) *Puller {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&cfg.Silence, 500*time.Millisecond)
	set(&cfg.MaxSilence, time.Second)
	set(&cfg.DialTimeout, time.Second)
	set(&cfg.MinBackoff, 50*time.Millisecond)
	set(&cfg.MaxBackoff, 2*time.Second)
	if cfg.Ahead == 0 {
		cfg.Ahead = 4
	}
	if cfg.MaxBlockBytes == 0 {
		cfg.MaxBlockBytes = 100 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	labels := prometheus.Labels{"channel": cfg.ChannelID}
	p := &Puller{cfg: cfg, failures: map[string]time.Time{}, others: map[string]*grpc.ClientConn{},
		blocks:  prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_pull_blocks_total", Help: "Blocks pulled from orderers.", ConstLabels: labels}),
		changes: prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_pull_failures_total", Help: "Connections to orderers that ended or could not be made.", ConstLabels: labels}),
	}
	if cfg.Certificate != nil && !cfg.Plaintext {
		sum := sha256.Sum256(cfg.Certificate.Certificate[0])
		p.tlsHash = sum[:]
	}
	return p
}

// Collectors are the puller's metrics.
func (p *Puller) Collectors() []prometheus.Collector {
	return []prometheus.Collector{p.blocks, p.changes}
}

// Source is the orderer that blocks come from now; empty while there is none.
func (p *Puller) Source() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.source
}

func (p *Puller) setSource(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.source = address
}

// sinkError carries an error of the sink through the attempt that met it.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return e.err.Error() }

// Run pulls until the context ends (nil) or the sink fails (its error). It stays with an orderer while that one is well,
// and otherwise turns at once to the one whose last failure is longest ago; only when all failed in turn it pauses.
func (p *Puller) Run(ctx context.Context) error {
	defer func() {
		for _, conn := range p.others {
			conn.Close()
		}
	}()
	pause := p.cfg.MinBackoff
	failed := 0 // orderers in a row that gave no block
	at := rand.IntN(1 << 16)
	for ctx.Err() == nil {
		endpoints := p.cfg.Endpoints()
		if len(endpoints) > 0 {
			e := p.choose(endpoints, at)
			before := p.cfg.Next()
			err := p.pull(ctx, e)
			p.setSource("")
			if ctx.Err() != nil {
				return nil
			}
			var sink *sinkError
			if errors.As(err, &sink) && !errors.Is(sink.err, ErrBadBlock) {
				return fmt.Errorf("take block from %s: %w", e.Address, sink.err)
			}
			p.changes.Inc()
			p.cfg.Log.Warn("pulling blocks failed, turning to the next orderer", "channel", p.cfg.ChannelID, "orderer", e.Address, "error", err)
			p.failures[e.Address] = time.Now()
			at++
			if p.cfg.Next() > before {
				failed, pause = 0, p.cfg.MinBackoff
			}
			if failed++; failed < len(endpoints) {
				continue
			}
		} else {
			p.cfg.Log.Warn("the channel's config names no orderers to pull from", "channel", p.cfg.ChannelID)
		}
		failed = 0
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
		}
		pause = min(pause*2, p.cfg.MaxBackoff)
	}
	return nil
}

// choose takes the orderer that is known to have more than the last one, or else the one that failed longest ago or never.
func (p *Puller) choose(endpoints []Endpoint, at int) Endpoint {
	best := endpoints[at%len(endpoints)]
	for i := range endpoints {
		e := endpoints[(at+i)%len(endpoints)]
		if e.Address == p.wanted {
			best = e
			break
		}
		if p.failures[e.Address].Before(p.failures[best.Address]) {
			best = e
		}
	}
	p.wanted = ""
	return best
}

func (p *Puller) dial(e Endpoint) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if !p.cfg.Plaintext {
		roots := x509.NewCertPool()
		for _, pem := range e.TLSRoots {
			roots.AppendCertsFromPEM(pem)
		}
		conf := &tls.Config{RootCAs: roots, ServerName: e.ServerName, MinVersion: tls.VersionTLS12}
		if p.cfg.Certificate != nil {
			conf.Certificates = []tls.Certificate{*p.cfg.Certificate}
			// An orderer that pulls finds its own address among the channel's, and has nothing to learn from itself.
			conf.VerifyConnection = func(s tls.ConnectionState) error {
				if bytes.Equal(s.PeerCertificates[0].Raw, p.cfg.Certificate.Certificate[0]) {
					return errors.New("the address leads back to this node")
				}
				return nil
			}
		}
		creds = credentials.NewTLS(conf)
	}
	return grpc.NewClient("passthrough:///"+e.Address, grpc.WithTransportCredentials(creds),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: p.cfg.DialTimeout}),
		// Fabric's servers hang up on pings more frequent than one a minute.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(p.cfg.MaxBlockBytes)))
}

// seek opens a deliver stream with a signed request.
func (p *Puller) seek(ctx context.Context, client ordererpb.AtomicBroadcastClient, seek *ordererpb.SeekInfo) (grpc.BidiStreamingClient[commonpb.Envelope, ordererpb.DeliverResponse], error) {
	stream, err := client.Deliver(ctx)
	if err != nil {
		return nil, err
	}
	env, err := envelope.New(p.cfg.Signer, commonpb.HeaderType_DELIVER_SEEK_INFO, p.cfg.ChannelID, seek, p.tlsHash)
	if err != nil {
		return nil, err
	}
	if err := stream.Send(env); err != nil {
		return nil, err
	}
	return stream, nil
}

// pull takes blocks from one orderer until that fails.
func (p *Puller) pull(ctx context.Context, e Endpoint) error {
	conn, err := p.dial(e)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	client := ordererpb.NewAtomicBroadcastClient(conn)
	next := p.cfg.Next()
	stream, err := p.seek(ctx, client, &ordererpb.SeekInfo{Start: Specified(next), Stop: Specified(math.MaxUint64)})
	if err != nil {
		cancel()
		return fmt.Errorf("ask for blocks: %w", err)
	}
	if p.cfg.Known != nil && p.cfg.Known() > next {
		if newest, err := p.newest(ctx, client); err != nil || newest+1 < p.cfg.Known() {
			cancel()
			return fmt.Errorf("the orderer is behind: it has no block %d (%v)", p.cfg.Known()-1, err)
		}
	}
	p.setSource(e.Address)
	p.cfg.Log.Info("pulling blocks", "channel", p.cfg.ChannelID, "orderer", e.Address, "from", next)

	blocks := make(chan *commonpb.Block, p.cfg.Ahead)
	var received error // of the receiver, to be read after blocks is closed
	var group sync.WaitGroup
	group.Go(func() {
		defer close(blocks)
		for {
			m, err := stream.Recv()
			if err != nil {
				received = fmt.Errorf("receive block: %w", err)
				return
			}
			b := m.GetBlock()
			if b == nil {
				received = fmt.Errorf("the orderer answered %v instead of a block", m.GetStatus())
				return
			}
			select {
			case blocks <- b:
			case <-ctx.Done():
				received = ctx.Err()
				return
			}
		}
	})
	defer group.Wait()
	defer cancel()

	silence := p.cfg.Silence
	timer := time.NewTimer(silence)
	defer timer.Stop()
	steady := time.NewTicker(4 * p.cfg.MaxSilence) // also while blocks come: they may be old ones
	defer steady.Stop()
	looks := make(chan look, 1)
	looking, lookedAt := false, next
	start := func() {
		if !looking {
			looking, lookedAt = true, next
			group.Go(func() { looks <- p.look(ctx, client, e) })
		}
	}
	known := uint64(0)  // a height that there is, as this orderer or another one says
	behind := uint64(0) // by how much this orderer was behind another one
	unanswered := 0
	for {
		select {
		case b, ok := <-blocks:
			if !ok {
				return received
			}
			if got := b.GetHeader().GetNumber(); got != next {
				return fmt.Errorf("the orderer sent block %d instead of %d", got, next)
			}
			if err := p.cfg.Sink(ctx, b); err != nil {
				return &sinkError{err}
			}
			p.blocks.Inc()
			next++
			silence = p.cfg.Silence
			timer.Reset(silence)
		case <-timer.C:
			if known > next {
				return fmt.Errorf("there is a block %d and the orderer does not send it", next)
			}
			start()
			silence = min(silence*2, p.cfg.MaxSilence)
			timer.Reset(silence)
		case <-steady.C:
			start()
		case l := <-looks:
			looking = false
			if l.err == nil {
				unanswered = 0
			} else if next > lookedAt {
				continue // it sends blocks, and is too busy for questions
			} else if unanswered++; unanswered < patience && len(p.cfg.Endpoints()) == 1 {
				continue // there is no other, and it may just be busy
			} else {
				return fmt.Errorf("the orderer is silent and does not answer: %w", l.err)
			}
			if known = max(known, l.height, l.other); known > next {
				timer.Reset(p.cfg.Silence) // that long it has to send it
				p.wanted = ""
				if l.other > l.height {
					p.wanted = l.otherAddress
				}
			}
			if l.other <= l.height+maxBehind {
				behind = 0
				continue
			}
			if gap := l.other - l.height; behind != 0 && gap >= behind {
				return fmt.Errorf("the orderer is %d blocks behind another one and does not catch up", gap)
			} else {
				behind = gap
			}
		}
	}
}

// patience is how often the only orderer may leave a question unanswered.
const patience = 4

// maxBehind is how many blocks an orderer may be behind another one, as one that is a little slower always is.
const maxBehind = 8

// look is what two orderers said when they were asked for their heights.
type look struct {
	height       uint64 // of the one in use
	err          error  // it did not answer
	other        uint64 // of another one, 0 if none answered
	otherAddress string
}

// look asks the orderer in use, and another one, how many blocks they have: the one in use may hang, be cut off from the
// rest, or want to hide what there is.
func (p *Puller) look(ctx context.Context, client ordererpb.AtomicBroadcastClient, used Endpoint) (l look) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Silence)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() { l.other, l.otherAddress = p.elsewhere(ctx, used) })
	var newest uint64
	newest, l.err = p.newest(ctx, client)
	l.height = newest + 1
	if l.err != nil {
		cancel()
	}
	group.Wait()
	return l
}

// elsewhere asks one of the other orderers, in turn, for its height; those that cannot be reached are skipped.
func (p *Puller) elsewhere(ctx context.Context, used Endpoint) (uint64, string) {
	endpoints := p.cfg.Endpoints()
	for range endpoints {
		p.asked++
		e := endpoints[p.asked%len(endpoints)]
		if e.Address == used.Address {
			continue
		}
		conn := p.others[e.Address]
		if conn == nil {
			var err error
			if conn, err = p.dial(e); err != nil {
				continue
			}
			p.others[e.Address] = conn
		}
		newest, err := p.newest(ctx, ordererpb.NewAtomicBroadcastClient(conn))
		if err == nil {
			return newest + 1, e.Address
		}
		conn.Close()
		delete(p.others, e.Address)
	}
	return 0, ""
}

// Height asks an orderer how many blocks it has.
func (p *Puller) Height(ctx context.Context, e Endpoint) (uint64, error) {
	conn, err := p.dial(e)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	newest, err := p.newest(ctx, ordererpb.NewAtomicBroadcastClient(conn))
	return newest + 1, err
}

// Block asks an orderer for a block. Nothing about it is checked.
func (p *Puller) Block(ctx context.Context, e Endpoint, number uint64) (*commonpb.Block, error) {
	conn, err := p.dial(e)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := p.seek(ctx, ordererpb.NewAtomicBroadcastClient(conn), &ordererpb.SeekInfo{Start: Specified(number), Stop: Specified(number)})
	if err != nil {
		return nil, err
	}
	m, err := stream.Recv()
	if err == nil && m.GetBlock() == nil {
		err = fmt.Errorf("it answered %v", m.GetStatus())
	}
	return m.GetBlock(), err
}

// newest asks the orderer for the number of its newest block.
func (p *Puller) newest(ctx context.Context, client ordererpb.AtomicBroadcastClient) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Silence)
	defer cancel()
	newest := &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_Newest{Newest: &ordererpb.SeekNewest{}}}
	stream, err := p.seek(ctx, client, &ordererpb.SeekInfo{Start: newest, Stop: newest,
		ErrorResponse: ordererpb.SeekInfo_BEST_EFFORT, ContentType: ordererpb.SeekInfo_HEADER_WITH_SIG})
	if err != nil {
		return 0, err
	}
	m, err := stream.Recv()
	if err != nil {
		return 0, err
	}
	if m.GetBlock() == nil {
		return 0, fmt.Errorf("it answered %v", m.GetStatus())
	}
	return m.GetBlock().GetHeader().GetNumber(), nil
}

// Specified is the position of one block.
func Specified(number uint64) *ordererpb.SeekPosition {
	return &ordererpb.SeekPosition{Type: &ordererpb.SeekPosition_Specified{Specified: &ordererpb.SeekSpecified{Number: number}}}
}
