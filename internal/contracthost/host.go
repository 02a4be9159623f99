// Package contracthost runs contracts: it is the peer's side of Fabric's chaincode protocol, so that stock contracts in Go, Node and
// Java run unchanged. Contracts are processes of their own. One that runs as a service is dialled (protos.Chaincode/Connect, see
// remote.go); a classic one dials the peer (protos.ChaincodeSupport/Register, which *Host serves), and may be started for that when
// it is called (launch.go). Either way one stream carries the calls of many transactions at once.
//
// What it guarantees: every call ends, by an answer, the execute timeout, the caller's context, or the end of the contract's
// stream, and then holds nothing open; a contract that dies, hangs or breaks the protocol hurts the calls that it was running and
// no other contract; a contract as a service that died is dialled again, with growing pauses. The texts of errors are Fabric's.
//
// What it leaves out: it knows no ledger. State is reached through Backend, which the caller gives with each call and which decides
// what the transaction may see and write. It does not start processes, and does not decide which package serves a contract's name.
//
// Files: host.go (this: contracts and calls), session.go (one stream), requests.go (what a contract asks for), queries.go (its open
// iterators), remote.go (dialling), launch.go (processes that are started).
package contracthost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/queryresultpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	defaultExecuteTimeout = 30 * time.Second
	defaultStartTimeout   = 10 * time.Second
	defaultLaunchTimeout  = 300 * time.Second
	defaultQueryLimit     = 100_000
	defaultMaxIterators   = 100
	defaultBatch          = 1000
	defaultMinBackoff     = 100 * time.Millisecond
	defaultMaxBackoff     = 10 * time.Second

	// MaxMessageBytes is the size up to which messages are exchanged with contracts, as Fabric's shims and peers do.
	MaxMessageBytes = 100 << 20
)

// Backend is the state that one call of a contract sees and writes: one namespace of one transaction.
//
// A call uses it from one goroutine at a time, never after the call's end. The empty collection is the public state. A nil value means
// that there is none; values may be kept and are not changed by either side. The backend decides what is allowed (membership of
// collections, capabilities of the channel, a snapshot that is read only) and its errors reach the contract as text.
type Backend interface {
	Get(collection, key string) ([]byte, error)
	GetMany(collection string, keys []string) ([][]byte, error) // as many values as keys
	GetHash(collection, key string) ([]byte, error)
	// Put gets a nil value for a put of nothing, which the wire does not tell from an empty one. To Fabric's simulator that is a delete.
	Put(collection, key string, value []byte) error
	Delete(collection, key string) error
	Purge(collection, key string) error
	Metadata(collection, key string) (map[string][]byte, error)
	PutMetadata(collection, key, name string, value []byte) error

	// Range visits start <= key < end; an empty end is the end of the namespace.
	Range(collection, start, end string) (StateIterator, error)
	// RangePage visits at most pageSize keys of the public state.
	RangePage(start, end string, pageSize int32) (StateIterator, error)
	Query(collection, query string) (StateIterator, error)
	QueryPage(query, bookmark string, pageSize int32) (StateIterator, error)
	// History visits the changes of a key, newest first.
	History(key string) (HistoryIterator, error)

	// Invoke calls another contract in the same transaction. channelID is always set. On the channel of the call the callee's writes are
	// part of the transaction, elsewhere it can only read. An error of type *ContractError is handed to the caller as the callee's.
	Invoke(ctx context.Context, contract, channelID string, input *peerpb.ChaincodeInput) (*peerpb.Response, error)
}

// StateIterator visits keys in order. It is closed exactly once.
type StateIterator interface {
	Next() (key string, value []byte, ok bool, err error)
	// Bookmark tells where the page after this one starts, empty at the end of the results. Only pages are asked for it, just before Close.
	Bookmark() string
	Close()
}

// HistoryIterator visits the changes of one key. Next gives nil at the end. It is closed exactly once.
type HistoryIterator interface {
	Next() (*queryresultpb.KeyModification, error)
	Close()
}

// ContractError is how a contract's process itself reports that a call failed; a contract that refuses a call answers with a response
// of status 500 instead.
type ContractError struct {
	Message []byte
	Event   *peerpb.ChaincodeEvent
}

func (e *ContractError) Error() string {
	return "transaction returned with failure: " + string(e.Message)
}

// Causes of failed calls; Execute wraps them.
var (
	ErrTimeout          = errors.New("timeout expired while executing transaction")
	ErrStreamTerminated = errors.New("chaincode stream terminated")
	ErrUnknownContract  = errors.New("no process is known that runs this contract package")
)

// Config is the manual of a Host. The zero value serves contracts as a service.
type Config struct {
	// ExecuteTimeout ends a call; calls to other contracts have their own, within their caller's. 30 s unless set.
	ExecuteTimeout time.Duration
	// StartTimeout is how long a call waits for a classic contract to register. 10 s unless set. For a contract as a service it is the
	// dial_timeout of its connection.json.
	StartTimeout time.Duration
	// LaunchTimeout is the same for a contract whose process the host starts. 300 s unless set.
	LaunchTimeout time.Duration
	// QueryLimit is the most results that one query gives. 100,000 unless set.
	QueryLimit int32
	// MaxIterators is how many queries a call may have open at once. 100 unless set.
	MaxIterators int
	// MaxBatch is how many keys or writes a contract is told it may send in one message. 1,000 unless set.
	MaxBatch uint32
	// Keepalive is the pause between KEEPALIVE messages to a contract, for networks that cut silent connections. 0 sends none,
	// which is right for stock Node contracts: their shim (2.5.8) exits on a KEEPALIVE. gRPC's own pings are always sent.
	Keepalive time.Duration
	// MinBackoff and MaxBackoff are the pauses before a contract as a service is dialled again. 100 ms and 10 s unless set.
	MinBackoff, MaxBackoff time.Duration
	// Authorize decides, beyond Expect, whether the client of a Register stream may be the contract package that it says it is. Nil
	// accepts it: the operator then keeps strangers away from the contract port.
	Authorize func(ctx context.Context, packageID string) error
	// Log receives the coming and going of contracts. Nil discards it.
	Log *slog.Logger
}

// Host is safe for concurrent use.
type Host struct {
	peerpb.UnimplementedChaincodeSupportServer
	cfg Config
	ctx context.Context // ends with Close; it is the parent of every stream, none of which belongs to one caller
	end context.CancelFunc
	run sync.WaitGroup

	mu        sync.Mutex // never held with a session's lock, nor while waiting
	closed    bool
	contracts map[string]*contract
}

// contract is a package that a process runs, or is expected to run. Its fields belong to Host.mu.
type contract struct {
	id      string
	remote  *remote       // nil for a classic contract
	run     Start         // nil unless the host starts its process
	launch  *launch       // the process under way or running; nil while there is none
	session *session      // nil while no process is ready
	lastErr error         // why the last one ended or could not be reached
	changed chan struct{} // closed and replaced when session or lastErr change, or the contract goes
}

// Invocation is one call of a contract.
type Invocation struct {
	ChannelID string
	TxID      string
	Namespace string // name of the contract on the channel
	Proposal  *peerpb.SignedProposal
	Input     *peerpb.ChaincodeInput
	Backend   Backend
}

// New makes a host without contracts. Close it.
func New(cfg Config) (*Host, error) {
	for _, d := range []struct {
		name string
		of   time.Duration
	}{
		{"ExecuteTimeout", cfg.ExecuteTimeout}, {"StartTimeout", cfg.StartTimeout}, {"LaunchTimeout", cfg.LaunchTimeout}, {"Keepalive", cfg.Keepalive},
		{"MinBackoff", cfg.MinBackoff}, {"MaxBackoff", cfg.MaxBackoff},
	} {
		if d.of < 0 {
			return nil, fmt.Errorf("contract host: %s is %s; it must not be negative", d.name, d.of)
		}
	}
	if cfg.QueryLimit < 0 || cfg.MaxIterators < 0 {
		return nil, fmt.Errorf("contract host: QueryLimit is %d and MaxIterators %d; neither may be negative", cfg.QueryLimit, cfg.MaxIterators)
	}
	setDefault(&cfg.ExecuteTimeout, defaultExecuteTimeout)
	setDefault(&cfg.StartTimeout, defaultStartTimeout)
	setDefault(&cfg.LaunchTimeout, defaultLaunchTimeout)
	setDefault(&cfg.QueryLimit, defaultQueryLimit)
	setDefault(&cfg.MaxIterators, defaultMaxIterators)
	setDefault(&cfg.MaxBatch, defaultBatch)
	setDefault(&cfg.MinBackoff, defaultMinBackoff)
	setDefault(&cfg.MaxBackoff, defaultMaxBackoff)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Host{cfg: cfg, contracts: map[string]*contract{}}
	h.ctx, h.end = context.WithCancel(context.Background())
	return h, nil
}

func setDefault[T comparable](value *T, unless T) {
	var zero T
	if *value == zero {
		*value = unless
	}
}

// Close ends all streams, calls and processes and waits for them.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.end()
	h.run.Wait()
}

// Connect keeps a stream to the process that serves a package. Called again with another connection it moves there; the calls
// that run at the old one end there.
func (h *Host) Connect(packageID string, to *contractpackage.Connection) error {
	r, err := newRemote(h, packageID, to)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errors.New("contract host is closed")
	}
	c := h.contracts[packageID]
	if c != nil && c.remote != nil && c.remote.to == *to {
		return nil
	}
	if c == nil {
		c = &contract{id: packageID, changed: make(chan struct{})}
		h.contracts[packageID] = c
	} else {
		c.leave()
	}
	c.remote = r
	h.run.Go(r.keepConnected)
	return nil
}

// Expect lets a classic contract register as packageID, and calls wait for it.
func (h *Host) Expect(packageID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.contracts[packageID] == nil {
		h.contracts[packageID] = &contract{id: packageID, changed: make(chan struct{})}
	}
}

// leave parts with what has served the contract so far. The host's lock is held.
func (c *contract) leave() {
	if c.remote != nil {
		c.remote.retire()
		c.remote = nil
	} else if c.session != nil {
		c.session.stop(ErrStreamTerminated) // it was a classic contract
	}
	if c.launch != nil {
		c.launch.end()
	}
	c.session, c.run, c.launch = nil, nil, nil
}

// Disconnect forgets a contract. Calls that run end with ErrStreamTerminated.
func (h *Host) Disconnect(packageID string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.contracts[packageID]
	if c == nil {
		return
	}
	delete(h.contracts, packageID)
	if c.launch != nil {
		c.launch.end()
	}
	if c.remote != nil {
		c.remote.stop()
	}
	if c.session != nil {
		c.session.stop(ErrStreamTerminated)
	}
	close(c.changed)
}

// Ready tells whether a process runs the package now, and if not, why it could not be reached, if that is known.
func (h *Host) Ready(packageID string) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := h.contracts[packageID]
	if c == nil {
		return false, ErrUnknownContract
	}
	return c.session != nil, c.lastErr
}

// Register serves protos.ChaincodeSupport/Register for classic contracts.
func (h *Host) Register(stream peerpb.ChaincodeSupport_RegisterServer) error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return status.Error(codes.Unavailable, "contract host is closed")
	}
	h.run.Add(1)
	h.mu.Unlock()
	defer h.run.Done()

	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(h.ctx, cancel)()
	err := h.serve(ctx, stream, nil, func(id string) (*contract, error) {
		h.mu.Lock()
		c := h.contracts[id]
		h.mu.Unlock()
		if c == nil || c.remote != nil {
			return nil, status.Errorf(codes.PermissionDenied, "peer will not accept external chaincode connection %s (except in dev mode): install the contract package first", id)
		}
		if h.cfg.Authorize != nil {
			if err := h.cfg.Authorize(ctx, id); err != nil {
				return nil, status.Errorf(codes.PermissionDenied, "not allowed to register as %s: %v", id, err)
			}
		}
		return c, nil
	})
	if _, known := status.FromError(err); err != nil && !known {
		err = status.Error(codes.Aborted, err.Error())
	}
	return err
}

// Execute runs one call and returns the contract's answer, which may well be a refusal: a response of status 500. An error means
// that there is no answer; the caller must then forget what the call wrote.
func (h *Host) Execute(ctx context.Context, packageID string, call Invocation) (*peerpb.Response, *peerpb.ChaincodeEvent, error) {
	answer, err := h.execute(ctx, packageID, &call)
	if err != nil {
		return nil, nil, fmt.Errorf("failed to execute transaction %s: %w", call.TxID, err)
	}
	if answer.ChaincodeEvent != nil {
		answer.ChaincodeEvent.ChaincodeId = call.Namespace
		answer.ChaincodeEvent.TxId = call.TxID
	}
	if answer.Type == peerpb.ChaincodeMessage_ERROR {
		return nil, answer.ChaincodeEvent, &ContractError{Message: answer.Payload, Event: answer.ChaincodeEvent}
	}
	response := &peerpb.Response{}
	if err := proto.Unmarshal(answer.Payload, response); err != nil {
		return nil, nil, fmt.Errorf("failed to unmarshal response for transaction %s: %w", call.TxID, err)
	}
	return response, answer.ChaincodeEvent, nil
}

func (h *Host) execute(ctx context.Context, packageID string, call *Invocation) (*peerpb.ChaincodeMessage, error) {
	if call.Backend == nil || call.Input == nil || call.TxID == "" {
		return nil, errors.New("contract call needs a transaction id, an input and a backend")
	}
	s, err := h.session(ctx, packageID)
	if err != nil {
		return nil, fmt.Errorf("could not launch chaincode %s: %w", packageID, err)
	}
	payload, err := proto.Marshal(call.Input)
	if err != nil {
		return nil, fmt.Errorf("failed to create chaincode message: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, h.cfg.ExecuteTimeout, ErrTimeout)
	defer cancel()
	answer, err := s.call(ctx, call, payload)
	if err != nil {
		return nil, fmt.Errorf("error sending: %w", err)
	}
	return answer, nil
}

// session waits for a process that runs the package, and has one started where that is the host's part.
func (h *Host) session(ctx context.Context, packageID string) (*session, error) {
	var timer *time.Timer
	var expired <-chan time.Time
	for {
		h.mu.Lock()
		c := h.contracts[packageID]
		if c == nil {
			h.mu.Unlock()
			return nil, ErrUnknownContract
		}
		if c.session == nil && c.run != nil && c.launch == nil && !h.closed {
			h.start(c)
		}
		s, changed, r, l, lastErr := c.session, c.changed, c.remote, c.launch, c.lastErr
		h.mu.Unlock()
		if s != nil {
			return s, nil
		}
		var over <-chan struct{}
		if l != nil {
			over = l.over
		}
		if timer == nil {
			wait := h.cfg.StartTimeout
			switch {
			case r != nil:
				wait = r.to.DialTimeout
				r.kick()
			case l != nil:
				wait = h.cfg.LaunchTimeout
			}
			timer = time.NewTimer(wait)
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case <-changed:
		case <-over:
			if !l.registered { // one that had been well is started again
				return nil, fmt.Errorf("chaincode registration failed: %w", l.err)
			}
		case <-expired:
			err := fmt.Errorf("timeout expired while starting chaincode %s for transaction", packageID)
			if lastErr != nil {
				err = fmt.Errorf("%w: %w", err, lastErr)
			}
			return nil, err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-h.ctx.Done():
			return nil, errors.New("contract host is closed")
		}
	}
}

// attach makes a session the one that serves its contract; detach takes it away.
func (h *Host) attach(c *contract, s *session) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.contracts[c.id] != c, s.remote != c.remote:
		return fmt.Errorf("contract package %s is no longer served here", c.id)
	case c.session != nil:
		return status.Errorf(codes.AlreadyExists, "duplicate chaincodeID: %s", c.id)
	}
	c.session, c.lastErr = s, nil
	if c.launch != nil {
		c.launch.register()
	}
	c.announce()
	h.cfg.Log.Info("contract is ready", "package", c.id)
	return nil
}

func (h *Host) detach(c *contract, s *session, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.contracts[c.id] != c || c.session != s {
		return
	}
	c.session, c.lastErr = nil, err
	if c.launch != nil {
		c.launch.end() // a process that serves nobody
	}
	c.announce()
	h.cfg.Log.Warn("contract has gone", "package", c.id, "error", err)
}

// unreachable notes why a dial failed, for whoever waits.
func (h *Host) unreachable(r *remote, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.contracts[r.packageID]; c != nil && c.remote == r && c.session == nil {
		c.lastErr = err
		c.announce()
	}
}

// announce wakes those who wait for a change. The host's lock is held.
func (c *contract) announce() {
	close(c.changed)
	c.changed = make(chan struct{})
}
