package shim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"

	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/queryresultpb"
	"google.golang.org/protobuf/proto"
)

const (
	// maxCalls bounds the calls that run at once on one stream; more are refused. Far above what a peer runs at once.
	maxCalls = 10_000
	// Writes wait in a call until one of these is reached, if the peer takes batches.
	maxBatchBytes = 1 << 20
	outgoing      = 64
)

// Program is what a process registers: a contract package and the handler of its calls.
type Program struct {
	ID     string
	Handle Handler
	Log    *slog.Logger
}

type peerStream interface {
	Send(*peerpb.ChaincodeMessage) error
	Recv() (*peerpb.ChaincodeMessage, error)
}

// session is one stream to a peer.
type session struct {
	Program
	ctx context.Context // ends with the stream, which is as long as the session lives
	out chan *peerpb.ChaincodeMessage

	// Set before the first call.
	batch, multiple int // most writes and keys in a message; 0: the peer does not take several

	mu    sync.Mutex
	calls map[callID]*transaction
}

type callID struct{ channel, tx string }

// talk registers on a stream and runs calls until the stream or the context ends.
func (p Program) talk(ctx context.Context, st peerStream) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &session{Program: p, ctx: ctx, out: make(chan *peerpb.ChaincodeMessage, outgoing), calls: map[callID]*transaction{}}
	id, err := proto.Marshal(&peerpb.ChaincodeID{Name: p.ID})
	if err != nil {
		return err
	}
	if err := st.Send(&peerpb.ChaincodeMessage{Type: peerpb.ChaincodeMessage_REGISTER, Payload: id}); err != nil {
		return fmt.Errorf("error sending chaincode REGISTER: %w", err)
	}
	go func() { cancel(s.read(st)) }() // ends with the stream, which the caller closes
	for {
		select {
		case m := <-s.out:
			if err := st.Send(m); err != nil {
				return fmt.Errorf("error sending %s: %w", m.Type, err)
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *session) read(st peerStream) error {
	registered, ready := false, false
	slots := make(chan struct{}, maxCalls)
	for {
		m, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("received EOF, ending chaincode stream")
		}
		if err != nil {
			return fmt.Errorf("receive failed: %w", err)
		}
		switch {
		case m.Type == peerpb.ChaincodeMessage_KEEPALIVE:
			s.queue(&peerpb.ChaincodeMessage{Type: peerpb.ChaincodeMessage_KEEPALIVE})
		case !registered && m.Type == peerpb.ChaincodeMessage_REGISTERED:
			registered = true
		case registered && !ready && m.Type == peerpb.ChaincodeMessage_READY:
			ready = true
			if err := s.negotiate(m.Payload); err != nil {
				return err
			}
		case ready && (m.Type == peerpb.ChaincodeMessage_TRANSACTION || m.Type == peerpb.ChaincodeMessage_INIT):
			select {
			case slots <- struct{}{}:
			default:
				// Waiting here would keep the answers from the calls that run.
				s.queue(&peerpb.ChaincodeMessage{
					Type: peerpb.ChaincodeMessage_ERROR, Txid: m.Txid, ChannelId: m.ChannelId,
					Payload: fmt.Appendf(nil, "the contract runs %d transactions and takes no more now", maxCalls),
				})
				continue
			}
			t := &transaction{session: s, id: callID{m.ChannelId, m.Txid}, answer: make(chan *peerpb.ChaincodeMessage, 1)}
			if !s.begin(t) {
				<-slots
				s.Log.Error("peer sent a transaction that is already running", "transaction", m.Txid, "channel", m.ChannelId)
				continue
			}
			go func() {
				t.run(m)
				<-slots
			}()
		case ready && (m.Type == peerpb.ChaincodeMessage_RESPONSE || m.Type == peerpb.ChaincodeMessage_ERROR):
			s.mu.Lock()
			t := s.calls[callID{m.ChannelId, m.Txid}]
			s.mu.Unlock()
			if t == nil {
				continue
			}
			select {
			case t.answer <- m:
			default:
				return fmt.Errorf("[%s] peer answered a request twice", m.Txid)
			}
		default:
			return fmt.Errorf("[%s] chaincode cannot handle message (%s) now", m.Txid, m.Type)
		}
	}
}

// negotiate reads what the peer can do. Peers before Fabric 3.1 say nothing.
func (s *session) negotiate(payload []byte) error {
	var able peerpb.ChaincodeAdditionalParams
	if err := proto.Unmarshal(payload, &able); err != nil {
		return fmt.Errorf("failed to unmarshal READY: %w", err)
	}
	// As Fabric's shim, take 100 for less.
	if able.UseWriteBatch {
		s.batch = int(max(100, min(able.MaxSizeWriteBatch, 100_000)))
	}
	if able.UseGetMultipleKeys {
		s.multiple = int(max(100, min(able.MaxSizeGetMultipleKeys, 100_000)))
	}
	return nil
}

func (s *session) begin(t *transaction) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls[t.id] != nil {
		return false
	}
	s.calls[t.id] = t
	return true
}

func (s *session) queue(m *peerpb.ChaincodeMessage) {
	select {
	case s.out <- m:
	case <-s.ctx.Done():
	}
}

// transaction is one call on a stream. It is the call's Ledger.
type transaction struct {
	*session
	id     callID
	answer chan *peerpb.ChaincodeMessage

	mu      sync.Mutex // one request at a time, also if the contract uses goroutines
	writes  []*peerpb.WriteRecord
	pending int // bytes in writes
}

var _ Ledger = (*transaction)(nil)

// run answers the call.
func (t *transaction) run(m *peerpb.ChaincodeMessage) {
	result := &peerpb.ChaincodeMessage{Type: peerpb.ChaincodeMessage_COMPLETED, Txid: m.Txid, ChannelId: m.ChannelId}
	payload, event, err := t.handle(m)
	result.Payload, result.ChaincodeEvent = payload, event
	if err != nil {
		result.Type, result.Payload = peerpb.ChaincodeMessage_ERROR, []byte(err.Error())
	}
	// Before the answer: the peer may send the same transaction again at once.
	t.session.mu.Lock()
	delete(t.calls, t.id)
	t.session.mu.Unlock()
	t.queue(result)
}

func (t *transaction) handle(m *peerpb.ChaincodeMessage) ([]byte, *peerpb.ChaincodeEvent, error) {
	call, err := newCall(m)
	if err != nil {
		return nil, nil, err
	}
	call.Ledger = t
	response := t.guarded(call)
	if call.IsInit && response.Status >= Failed {
		return nil, call.Event, errors.New(response.Message)
	}
	// What a refused call wrote does not matter; not sending it spares the peer.
	if response.Status < Failed {
		if err := t.Flush(); err != nil {
			return nil, nil, err
		}
	}
	payload, err := proto.Marshal(response)
	return payload, call.Event, err
}

// guarded keeps a contract's panic to its call. The text is fixed, since endorsements must agree; the log has the rest.
func (t *transaction) guarded(call *Call) (response *peerpb.Response) {
	defer func() {
		if p := recover(); p != nil {
			t.Log.Error("contract panicked", "transaction", call.TxID, "panic", p, "stack", string(debug.Stack()))
			response = &peerpb.Response{Status: Failed, Message: "the contract panicked; its log says where"}
		}
	}()
	return t.Handle(t.ctx, call)
}

// request sends one message and waits for its answer.
func (t *transaction) request(typ peerpb.ChaincodeMessage_Type, body proto.Message) ([]byte, error) {
	payload, err := proto.Marshal(body)
	if err != nil {
		return nil, err
	}
	select {
	case t.out <- &peerpb.ChaincodeMessage{Type: typ, Payload: payload, Txid: t.id.tx, ChannelId: t.id.channel}:
	case <-t.ctx.Done():
		return nil, context.Cause(t.ctx)
	}
	select {
	case m := <-t.answer:
		if m.Type == peerpb.ChaincodeMessage_ERROR {
			return nil, errors.New(string(m.Payload))
		}
		return m.Payload, nil
	case <-t.ctx.Done():
		return nil, context.Cause(t.ctx)
	}
}

func (t *transaction) ask(typ peerpb.ChaincodeMessage_Type, body proto.Message) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.request(typ, body)
}

func (t *transaction) askFor(typ peerpb.ChaincodeMessage_Type, body, answer proto.Message) error {
	payload, err := t.ask(typ, body)
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(payload, answer); err != nil {
		return fmt.Errorf("peer's answer to %s: %w", typ, err)
	}
	return nil
}

func (t *transaction) Get(collection, key string) ([]byte, error) {
	return absent(t.ask(peerpb.ChaincodeMessage_GET_STATE, &peerpb.GetState{Collection: collection, Key: key}))
}

func (t *transaction) Hash(collection, key string) ([]byte, error) {
	return absent(t.ask(peerpb.ChaincodeMessage_GET_PRIVATE_DATA_HASH, &peerpb.GetState{Collection: collection, Key: key}))
}

// absent makes an empty answer nil: the wire does not tell them apart.
func absent(value []byte, err error) ([]byte, error) {
	if len(value) == 0 {
		return nil, err
	}
	return value, err
}

func (t *transaction) GetMany(collection string, keys []string) ([][]byte, error) {
	values := make([][]byte, 0, len(keys))
	if t.multiple == 0 {
		for _, key := range keys {
			value, err := t.Get(collection, key)
			if err != nil {
				return nil, err
			}
			values = append(values, value)
		}
		return values, nil
	}
	for len(keys) > 0 {
		n := min(len(keys), t.multiple)
		var answer peerpb.GetStateMultipleResult
		if err := t.askFor(peerpb.ChaincodeMessage_GET_STATE_MULTIPLE, &peerpb.GetStateMultiple{Collection: collection, Keys: keys[:n]}, &answer); err != nil {
			return nil, err
		}
		if len(answer.Values) != n {
			return nil, fmt.Errorf("peer gave %d values for %d keys", len(answer.Values), n)
		}
		for _, value := range answer.Values {
			value, _ = absent(value, nil)
			values = append(values, value)
		}
		keys = keys[n:]
	}
	return values, nil
}

func (t *transaction) Put(collection, key string, value []byte) error {
	return t.write(&peerpb.WriteRecord{Type: peerpb.WriteRecord_PUT_STATE, Collection: collection, Key: key, Value: value},
		peerpb.ChaincodeMessage_PUT_STATE, &peerpb.PutState{Collection: collection, Key: key, Value: value})
}

func (t *transaction) Delete(collection, key string) error {
	return t.write(&peerpb.WriteRecord{Type: peerpb.WriteRecord_DEL_STATE, Collection: collection, Key: key},
		peerpb.ChaincodeMessage_DEL_STATE, &peerpb.DelState{Collection: collection, Key: key})
}

func (t *transaction) Purge(collection, key string) error {
	return t.write(&peerpb.WriteRecord{Type: peerpb.WriteRecord_PURGE_PRIVATE_DATA, Collection: collection, Key: key},
		peerpb.ChaincodeMessage_PURGE_PRIVATE_DATA, &peerpb.PurgePrivateState{Collection: collection, Key: key})
}

func (t *transaction) PutMetadata(collection, key, name string, value []byte) error {
	entry := &peerpb.StateMetadata{Metakey: name, Value: value}
	return t.write(&peerpb.WriteRecord{Type: peerpb.WriteRecord_PUT_STATE_METADATA, Collection: collection, Key: key, Metadata: entry},
		peerpb.ChaincodeMessage_PUT_STATE_METADATA, &peerpb.PutStateMetadata{Collection: collection, Key: key, Metadata: entry})
}

// write sends a write, or keeps it for a batch: a transaction does not read its own writes, so nobody can tell.
func (t *transaction) write(record *peerpb.WriteRecord, typ peerpb.ChaincodeMessage_Type, alone proto.Message) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.batch == 0 {
		_, err := t.request(typ, alone)
		return err
	}
	t.writes = append(t.writes, record)
	t.pending += len(record.Key) + len(record.Value)
	if len(t.writes) < t.batch && t.pending < maxBatchBytes {
		return nil
	}
	return t.flush()
}

func (t *transaction) Flush() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flush()
}

func (t *transaction) flush() error {
	writes := t.writes
	t.writes, t.pending = nil, 0
	if len(writes) == 0 {
		return nil
	}
	_, err := t.request(peerpb.ChaincodeMessage_WRITE_BATCH_STATE, &peerpb.WriteBatchState{Rec: writes})
	return err
}

func (t *transaction) Metadata(collection, key string) (map[string][]byte, error) {
	var answer peerpb.StateMetadataResult
	if err := t.askFor(peerpb.ChaincodeMessage_GET_STATE_METADATA, &peerpb.GetStateMetadata{Collection: collection, Key: key}, &answer); err != nil {
		return nil, err
	}
	metadata := make(map[string][]byte, len(answer.Entries))
	for _, e := range answer.Entries {
		metadata[e.Metakey] = e.Value
	}
	return metadata, nil
}

func (t *transaction) Invoke(contract string, args [][]byte) (*peerpb.Response, error) {
	// The callee must see the order of things as the contract wrote it.
	if err := t.Flush(); err != nil {
		return nil, err
	}
	var answer peerpb.ChaincodeMessage
	spec := &peerpb.ChaincodeSpec{ChaincodeId: &peerpb.ChaincodeID{Name: contract}, Input: &peerpb.ChaincodeInput{Args: args}}
	if err := t.askFor(peerpb.ChaincodeMessage_INVOKE_CHAINCODE, spec, &answer); err != nil {
		return nil, err
	}
	if answer.Type != peerpb.ChaincodeMessage_COMPLETED {
		return nil, fmt.Errorf("contract %s failed: %s", contract, answer.Payload)
	}
	response := &peerpb.Response{}
	if err := proto.Unmarshal(answer.Payload, response); err != nil {
		return nil, fmt.Errorf("response of contract %s: %w", contract, err)
	}
	return response, nil
}

func (t *transaction) Range(collection, start, end string, page Page) (Rows, error) {
	metadata, err := page.marshal()
	if err != nil {
		return nil, err
	}
	return t.rows(peerpb.ChaincodeMessage_GET_STATE_BY_RANGE,
		&peerpb.GetStateByRange{Collection: collection, StartKey: start, EndKey: end, Metadata: metadata})
}

func (t *transaction) Query(collection, query string, page Page) (Rows, error) {
	metadata, err := page.marshal()
	if err != nil {
		return nil, err
	}
	return t.rows(peerpb.ChaincodeMessage_GET_QUERY_RESULT, &peerpb.GetQueryResult{Collection: collection, Query: query, Metadata: metadata})
}

func (p Page) marshal() ([]byte, error) {
	if p == (Page{}) {
		return nil, nil
	}
	return proto.Marshal(&peerpb.QueryMetadata{PageSize: p.Size, Bookmark: p.Bookmark})
}

func (t *transaction) rows(typ peerpb.ChaincodeMessage_Type, body proto.Message) (Rows, error) {
	r := &results{t: t}
	if err := t.askFor(typ, body, &r.response); err != nil {
		return nil, err
	}
	var page peerpb.QueryResponseMetadata
	if err := proto.Unmarshal(r.response.Metadata, &page); err != nil {
		return nil, fmt.Errorf("peer's page metadata: %w", err)
	}
	r.bookmark = page.Bookmark
	return (*rows)(r), nil
}

func (t *transaction) History(key string) (Changes, error) {
	r := &results{t: t}
	if err := t.askFor(peerpb.ChaincodeMessage_GET_HISTORY_FOR_KEY, &peerpb.GetHistoryForKey{Key: key}, &r.response); err != nil {
		return nil, err
	}
	return (*changes)(r), nil
}

// results are an open query: the batch at hand, and the peer has the rest.
type results struct {
	t        *transaction
	response peerpb.QueryResponse
	at       int
	bookmark string
}

func (r *results) next(into proto.Message) (bool, error) {
	for r.at == len(r.response.Results) {
		if !r.response.HasMore {
			return false, nil
		}
		id := r.response.Id
		r.response.Reset()
		r.at = 0
		if err := r.t.askFor(peerpb.ChaincodeMessage_QUERY_STATE_NEXT, &peerpb.QueryStateNext{Id: id}, &r.response); err != nil {
			return false, err
		}
		if len(r.response.Results) == 0 && r.response.HasMore {
			return false, errors.New("peer says that a query has more results and gives none")
		}
	}
	raw := r.response.Results[r.at].ResultBytes
	r.at++
	if err := proto.Unmarshal(raw, into); err != nil {
		return false, fmt.Errorf("peer's query result: %w", err)
	}
	return true, nil
}

// close spares the message for a query that the peer has closed already, after its last batch.
func (r *results) close() error {
	if !r.response.HasMore {
		return nil
	}
	r.response.HasMore = false
	_, err := r.t.ask(peerpb.ChaincodeMessage_QUERY_STATE_CLOSE, &peerpb.QueryStateClose{Id: r.response.Id})
	return err
}

type (
	rows    results
	changes results
)

func (r *rows) Next() (*queryresultpb.KV, error) {
	row := &queryresultpb.KV{}
	if ok, err := (*results)(r).next(row); !ok {
		return nil, err
	}
	return row, nil
}
func (r *rows) Bookmark() string { return r.bookmark }
func (r *rows) Close() error     { return (*results)(r).close() }

func (r *changes) Next() (*queryresultpb.KeyModification, error) {
	change := &queryresultpb.KeyModification{}
	if ok, err := (*results)(r).next(change); !ok {
		return nil, err
	}
	return change, nil
}
func (r *changes) Close() error { return (*results)(r).close() }
