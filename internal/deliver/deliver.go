// Package deliver serves blocks to whoever may read a channel, and pulls them from orderers.
//
// Server is the server side of orderer.AtomicBroadcast/Deliver and protos.Deliver on any Channel: every seek form and
// behaviour, statuses as Hyperledger Fabric answers them, access checked when a stream starts and again whenever the
// channel's config changes, no block after the reader's certificate expired, and the binding of a request to its TLS
// certificate. Puller is the client side: blocks from a set of orderers, in order, with failover.
//
// Block bytes are sent as they are stored: nothing is marshalled again, and readers at the tip of a chain share one
// framed response. A reader that does not keep up is slowed down by its own stream and by nothing else.
//
// Left out: the gRPC server itself (its keepalive must permit a ping a minute), who may read (Channel.Authorize), and
// the verification of pulled blocks (the Puller's sink).
//
// Open deliver.go first: serve and deliver are the protocol; then frame.go, filtered.go, puller.go.
package deliver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// Source is a growing chain of blocks. It is safe for concurrent use.
type Source interface {
	// Height is the number of blocks that are durable here.
	Height() uint64
	// BlockBytes returns the serialised common.Block with this number, below Height. The caller must not change it, and
	// it must not change afterwards.
	BlockBytes(number uint64) ([]byte, error)
	// Wait returns nil as soon as Height is at least height, or the context's error.
	Wait(ctx context.Context, height uint64) error
}

// Channel is a Source with the rules of who may read it.
type Channel interface {
	Source
	// Sequence is the sequence number of the current config: access is checked again when it grew.
	Sequence() uint64
	// Authorize says whether the signed request may read this resource (EventBlock, EventFilteredBlock; on an orderer
	// there is one kind of reader). It verifies the signature.
	Authorize(resource string, request policy.SignedData) error
	// Errored is closed when the chain cannot go on; nil if that never happens.
	Errored() <-chan struct{}
}

// Pruned is implemented by a Channel that does not begin with block 0.
type Pruned interface {
	First() uint64
}

// PrivateSource is implemented by a Channel that can give private data.
type PrivateSource interface {
	// PrivateData returns the private write sets of a block by transaction number: those that are here and that the
	// signer of the request may see.
	PrivateData(ctx context.Context, number uint64, reader policy.SignedData) (map[uint64]*rwsetpb.TxPvtReadWriteSet, error)
}

// Resources, named as in Fabric's access control lists.
const (
	EventBlock         = "event/Block"
	EventFilteredBlock = "event/FilteredBlock"
)

// DefaultTimeWindow is Fabric's.
const DefaultTimeWindow = 15 * time.Minute

// Config of a Server.
type Config struct {
	// TimeWindow is how far the timestamp of a request may be from this node's clock. Default 15m.
	TimeWindow time.Duration `yaml:"timeWindow"`
	// MutualTLS demands that a request names the hash of the TLS certificate its connection was opened with.
	MutualTLS bool `yaml:"-"`
	// CacheBytes bounds the framed responses kept for readers at the tips of all channels. Default 32 MiB.
	CacheBytes int `yaml:"cacheBytes"`

	// Channel finds a channel by its name: a pointer, the same every time, as responses are cached by it.
	Channel func(id string) (Channel, bool) `yaml:"-"`
	Now     func() time.Time                `yaml:"-"`
	Log     *slog.Logger                    `yaml:"-"`
}

// Server answers deliver streams. It is safe for concurrent use and holds no goroutines of its own.
type Server struct {
	cfg     Config
	cache   *cache
	metrics metrics
}

type metrics struct {
	streams  *prometheus.GaugeVec
	requests *prometheus.CounterVec
	blocks   *prometheus.CounterVec
}

// NewServer returns a server of the channels that cfg.Channel finds.
func NewServer(cfg Config) *Server {
	if cfg.TimeWindow == 0 {
		cfg.TimeWindow = DefaultTimeWindow
	}
	if cfg.CacheBytes == 0 {
		cfg.CacheBytes = 32 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, cache: newCache(cfg.CacheBytes), metrics: metrics{
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "hansa_deliver_streams", Help: "Open deliver streams."}, []string{"data_type"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_deliver_requests_total", Help: "Finished deliver requests by the status they were answered with."}, []string{"data_type", "status"}),
		blocks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_deliver_blocks_sent_total", Help: "Blocks sent to readers."}, []string{"channel", "data_type"}),
	}}
}

// Collectors are the server's metrics.
func (s *Server) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.streams, s.metrics.requests, s.metrics.blocks}
}

// Orderer is the Deliver half of orderer.AtomicBroadcast.
type Orderer struct{ *Server }

// Deliver serves one stream of blocks.
func (o Orderer) Deliver(stream grpc.BidiStreamingServer[commonpb.Envelope, ordererpb.DeliverResponse]) error {
	return o.serve(stream, kindBlock)
}

// Peer is protos.Deliver.
type Peer struct {
	peerpb.UnimplementedDeliverServer
	*Server
}

var _ peerpb.DeliverServer = Peer{}

// Deliver serves one stream of blocks.
func (p Peer) Deliver(stream grpc.BidiStreamingServer[commonpb.Envelope, peerpb.DeliverResponse]) error {
	return p.serve(stream, kindBlock)
}

// DeliverFiltered serves one stream of filtered blocks: ids, validation codes and event names without payloads.
func (p Peer) DeliverFiltered(stream grpc.BidiStreamingServer[commonpb.Envelope, peerpb.DeliverResponse]) error {
	return p.serve(stream, kindFiltered)
}

// DeliverWithPrivateData serves one stream of blocks with the private data that the reader may see.
func (p Peer) DeliverWithPrivateData(stream grpc.BidiStreamingServer[commonpb.Envelope, peerpb.DeliverResponse]) error {
	return p.serve(stream, kindPrivate)
}

type kind int

const (
	kindBlock kind = iota
	kindFiltered
	kindPrivate
	kindHeader // of a block stream that asked for headers with signatures
)

func (k kind) String() string {
	return [...]string{"block", "filtered_block", "block_and_pvtdata", "header"}[k]
}

func (k kind) resource() string {
	if k == kindFiltered {
		return EventFilteredBlock
	}
	return EventBlock
}

// serve answers the requests of a stream one after the other, until the client is done or a request fails. Both
// services' responses have the same encoding as far as their fields go, so one message type serves both.
func (s *Server) serve(stream grpc.ServerStream, k kind) error {
	open := s.metrics.streams.WithLabelValues(k.String())
	open.Inc()
	defer open.Dec()
	for {
		env := &commonpb.Envelope{}
		if err := stream.RecvMsg(env); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		answer, err := s.deliver(stream, env, k)
		if err != nil {
			return err
		}
		s.metrics.requests.WithLabelValues(k.String(), answer.String()).Inc()
		err = stream.SendMsg(&peerpb.DeliverResponse{Type: &peerpb.DeliverResponse_Status{Status: answer}})
		if err != nil || answer != commonpb.Status_SUCCESS {
			return err
		}
	}
}

// request is a seek request that has been found well-formed.
type request struct {
	channelID string
	seek      *ordererpb.SeekInfo
	signed    policy.SignedData
	expires   time.Time // zero: never
}

func (s *Server) parse(ctx context.Context, env *commonpb.Envelope) (*request, error) {
	payload := &commonpb.Payload{}
	if err := proto.Unmarshal(env.Payload, payload); err != nil {
		return nil, fmt.Errorf("decode payload: %w", err)
	}
	if payload.Header == nil {
		return nil, errors.New("envelope has no header")
	}
	channel, signature := &commonpb.ChannelHeader{}, &commonpb.SignatureHeader{}
	if err := proto.Unmarshal(payload.Header.ChannelHeader, channel); err != nil {
		return nil, fmt.Errorf("decode channel header: %w", err)
	}
	if err := proto.Unmarshal(payload.Header.SignatureHeader, signature); err != nil {
		return nil, fmt.Errorf("decode signature header: %w", err)
	}
	if channel.Timestamp == nil {
		return nil, errors.New("channel header in envelope must contain timestamp")
	}
	if off := s.cfg.Now().Sub(channel.Timestamp.AsTime()).Abs(); off > s.cfg.TimeWindow {
		return nil, fmt.Errorf("envelope timestamp %v is %v away from this node's clock, more than %v", channel.Timestamp.AsTime(), off, s.cfg.TimeWindow)
	}
	if s.cfg.MutualTLS {
		if err := checkBinding(ctx, channel.TlsCertHash); err != nil {
			return nil, err
		}
	}
	r := &request{channelID: channel.ChannelId, seek: &ordererpb.SeekInfo{}, expires: expiry(signature.Creator),
		signed: policy.SignedData{Data: env.Payload, Identity: signature.Creator, Signature: env.Signature}}
	// An unknown channel is reported before a malformed seek, as clients poll for channels that do not exist yet.
	if err := proto.Unmarshal(payload.Data, r.seek); err != nil {
		r.seek = nil
	}
	return r, nil
}

// checkBinding compares the certificate hash that the client signed with the certificate of its connection, so that a
// request seen by another node cannot be replayed over another connection.
func checkBinding(ctx context.Context, claimed []byte) error {
	if len(claimed) == 0 {
		return errors.New("client didn't include its TLS cert hash")
	}
	p, _ := peer.FromContext(ctx)
	if p != nil {
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
			if actual := sha256.Sum256(info.State.PeerCertificates[0].Raw); !bytes.Equal(actual[:], claimed) {
				return fmt.Errorf("claimed TLS cert hash is %x but actual TLS cert hash is %x", claimed, actual)
			}
			return nil
		}
	}
	return errors.New("client didn't send a TLS certificate")
}

// expiry is when the certificate of an identity ends; zero if it is none that can be read, which the policy will say.
func expiry(creator []byte) time.Time {
	id := &msppb.SerializedIdentity{}
	if proto.Unmarshal(creator, id) != nil {
		return time.Time{}
	}
	p, _ := pem.Decode(id.IdBytes)
	if p == nil {
		return time.Time{}
	}
	cert, err := x509.ParseCertificate(p.Bytes)
	if err != nil {
		return time.Time{}
	}
	return cert.NotAfter
}

// access decides on one request, again when the config changed and until the reader's certificate ends.
type access struct {
	channel  Channel
	resource string
	request  *request
	checked  bool
	sequence uint64
}

func (a *access) check(now time.Time) error {
	if !a.request.expires.IsZero() && now.After(a.request.expires) {
		return fmt.Errorf("deliver client identity expired %v before", now.Sub(a.request.expires))
	}
	sequence := a.channel.Sequence()
	if a.checked && sequence <= a.sequence {
		return nil
	}
	if err := a.channel.Authorize(a.resource, a.request.signed); err != nil {
		return err
	}
	a.checked, a.sequence = true, sequence
	return nil
}

// deliver answers one request. A status goes to the client as the last message of the answer; an error ends the stream.
func (s *Server) deliver(stream grpc.ServerStream, env *commonpb.Envelope, k kind) (commonpb.Status, error) {
	ctx := stream.Context()
	log := s.cfg.Log.With("from", remote(ctx), "data_type", k.String())
	r, err := s.parse(ctx, env)
	if err != nil {
		log.Warn("deliver request refused", "reason", err.Error())
		return commonpb.Status_BAD_REQUEST, nil
	}
	log = log.With("channel", r.channelID)
	ch, ok := s.cfg.Channel(r.channelID)
	if !ok {
		log.Debug("deliver request for an unknown channel")
		return commonpb.Status_NOT_FOUND, nil
	}
	if r.seek == nil {
		log.Warn("deliver request refused", "reason", "malformed seek info")
		return commonpb.Status_BAD_REQUEST, nil
	}
	private, ok := ch.(PrivateSource)
	if k == kindPrivate && !ok {
		return 0, status.Error(codes.Unimplemented, "this node does not deliver private data")
	}
	errored := ch.Errored()
	if r.seek.ErrorResponse == ordererpb.SeekInfo_BEST_EFFORT {
		errored = nil // the reader wants what there is, although the chain does not go on
	}
	if closed(errored) {
		log.Warn("deliver request refused", "reason", "the chain cannot go on")
		return commonpb.Status_SERVICE_UNAVAILABLE, nil
	}
	access := &access{channel: ch, resource: k.resource(), request: r}
	if err := access.check(s.cfg.Now()); err != nil {
		log.Warn("deliver request is not authorized", "reason", err.Error())
		return commonpb.Status_FORBIDDEN, nil
	}
	if r.seek.Start == nil || r.seek.Stop == nil {
		log.Warn("deliver request refused", "reason", "start or stop is missing")
		return commonpb.Status_BAD_REQUEST, nil
	}
	number, stop, answer := span(ch, r.seek)
	if answer != commonpb.Status_SUCCESS {
		log.Debug("deliver request cannot be met", "status", answer.String())
		return answer, nil
	}
	if k == kindBlock && r.seek.ContentType == ordererpb.SeekInfo_HEADER_WITH_SIG {
		k = kindHeader
	}
	sent := s.metrics.blocks.WithLabelValues(r.channelID, k.String())
	for ; ; number++ {
		if r.seek.Behavior == ordererpb.SeekInfo_FAIL_IF_NOT_READY && number >= ch.Height() {
			return commonpb.Status_NOT_FOUND, nil
		}
		if err := wait(ctx, ch, number+1, errored); err != nil {
			if ctx.Err() != nil {
				return 0, fmt.Errorf("context finished before block retrieved: %w", ctx.Err())
			}
			log.Info("deliver stream ends", "reason", err.Error())
			return commonpb.Status_SERVICE_UNAVAILABLE, nil
		}
		if err := access.check(s.cfg.Now()); err != nil {
			log.Warn("deliver client's authorization revoked", "reason", err.Error())
			return commonpb.Status_FORBIDDEN, nil
		}
		response, err := s.response(ctx, r, ch, private, number, k)
		if errors.Is(err, fs.ErrClosed) {
			log.Info("deliver stream ends", "reason", "the channel is stopped")
			return commonpb.Status_SERVICE_UNAVAILABLE, nil
		}
		if err != nil {
			log.Error("deliver stream ends", "block", number, "error", err.Error())
			return commonpb.Status_SERVICE_UNAVAILABLE, nil
		}
		if err := stream.SendMsg(response); err != nil {
			return 0, err
		}
		sent.Inc()
		if number == stop {
			return commonpb.Status_SUCCESS, nil
		}
	}
}

// span turns the positions into block numbers, or the status which says that there is no such span. Its corners are
// Fabric's: a start one above the tip waits for that block, and a stop of no known kind means block 0.
func span(ch Channel, seek *ordererpb.SeekInfo) (start, stop uint64, answer commonpb.Status) {
	height := ch.Height()
	switch p := seek.Start.Type.(type) {
	case *ordererpb.SeekPosition_Oldest:
	case *ordererpb.SeekPosition_Newest:
		if height == 0 {
			return 0, 0, commonpb.Status_NOT_FOUND
		}
		start = height - 1
		if pruned, ok := ch.(Pruned); ok {
			start = max(start, pruned.First()) // right after a snapshot there is no newest block yet
		}
	case *ordererpb.SeekPosition_Specified:
		if start = p.Specified.GetNumber(); start > height {
			return 0, 0, commonpb.Status_NOT_FOUND
		}
	case *ordererpb.SeekPosition_NextCommit:
		start = height
	default:
		return 0, 0, commonpb.Status_NOT_FOUND
	}
	if pruned, ok := ch.(Pruned); ok && start < pruned.First() {
		return 0, 0, commonpb.Status_NOT_FOUND
	}
	switch p := seek.Stop.Type.(type) {
	case *ordererpb.SeekPosition_Oldest:
		stop = start
	case *ordererpb.SeekPosition_Newest:
		if _, same := seek.Start.Type.(*ordererpb.SeekPosition_Newest); same {
			stop = start // one block, whatever is committed meanwhile
			break
		}
		stop = max(ch.Height(), 1) - 1
	case *ordererpb.SeekPosition_Specified:
		if stop = p.Specified.GetNumber(); stop < start {
			return 0, 0, commonpb.Status_BAD_REQUEST
		}
	}
	return start, stop, commonpb.Status_SUCCESS
}

var errErrored = errors.New("the chain cannot go on")

func wait(ctx context.Context, src Source, height uint64, errored <-chan struct{}) error {
	if src.Height() >= height {
		return nil
	}
	if errored == nil {
		return src.Wait(ctx, height)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-errored:
			cancel(errErrored)
		case <-done:
		}
	}()
	err := src.Wait(ctx, height)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err // the channel is stopped, while the reader would wait on
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func remote(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}
