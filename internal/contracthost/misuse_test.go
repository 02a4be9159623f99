package contracthost_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/contracthost"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

type message = peerpb.ChaincodeMessage

// raw is a contract process that speaks the protocol by hand, badly if need be.
type raw struct {
	peerpb.ChaincodeSupport_RegisterClient
	t testing.TB
}

func dialRaw(t testing.TB, address string) *raw {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	st, err := peerpb.NewChaincodeSupportClient(conn).Register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &raw{st, t}
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (r *raw) send(m *message) {
	r.t.Helper()
	if err := r.Send(m); err != nil {
		r.t.Error(err)
	}
}

func (r *raw) receive(want peerpb.ChaincodeMessage_Type) *message {
	r.t.Helper()
	m, err := r.Recv()
	if err != nil || m.Type != want {
		r.t.Fatalf("%v, %v; want %s", m, err, want)
	}
	return m
}

func (r *raw) register(id string) {
	r.t.Helper()
	r.send(&message{Type: peerpb.ChaincodeMessage_REGISTER, Payload: marshal(r.t, &peerpb.ChaincodeID{Name: id})})
	r.receive(peerpb.ChaincodeMessage_REGISTERED)
	ready := r.receive(peerpb.ChaincodeMessage_READY)
	var able peerpb.ChaincodeAdditionalParams
	if err := proto.Unmarshal(ready.Payload, &able); err != nil || !able.UseWriteBatch || !able.UseGetMultipleKeys || able.MaxSizeWriteBatch != 1000 || able.MaxSizeGetMultipleKeys != 1000 {
		r.t.Errorf("%v, %v", &able, err)
	}
}

func TestBadRegistrations(t *testing.T) {
	m := newHost(t, contracthost.Config{Authorize: func(_ context.Context, id string) error {
		if id == "barred:1" {
			return errors.New("wrong certificate")
		}
		return nil
	}})
	address := m.listen(t)
	for _, id := range []string{"a:1", "barred:1"} {
		m.host.Expect(id)
	}
	dialRaw(t, address).register("a:1")
	register := func(id string) *message {
		return &message{Type: peerpb.ChaincodeMessage_REGISTER, Payload: marshal(t, &peerpb.ChaincodeID{Name: id})}
	}
	for _, test := range []struct {
		first *message
		code  codes.Code
		want  string
	}{
		{&message{Type: peerpb.ChaincodeMessage_GET_STATE}, codes.Aborted, "cannot handle message (GET_STATE) while in created state"},
		{&message{Type: peerpb.ChaincodeMessage_REGISTER, Payload: []byte("\xff")}, codes.Aborted, "could not unmarshal registration info"},
		{register(""), codes.Aborted, "chaincodeID name is empty"},
		{register("b:1"), codes.PermissionDenied, "peer will not accept external chaincode connection b:1"},
		{register("barred:1"), codes.PermissionDenied, "wrong certificate"},
		{register("a:1"), codes.AlreadyExists, "duplicate chaincodeID: a:1"},
	} {
		r := dialRaw(t, address)
		r.send(test.first)
		var err error
		for err == nil {
			_, err = r.Recv()
		}
		if status.Code(err) != test.code || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
}

// start runs a call against a raw contract and gives how it ended.
func (m *memory) start(c contracthost.Invocation) (ended func() (*peerpb.Response, error)) {
	type end struct {
		response *peerpb.Response
		err      error
	}
	done := make(chan end, 1)
	go func() {
		response, _, err := m.execute(context.Background(), m.packages[c.Namespace], c)
		done <- end{response, err}
	}()
	return func() (*peerpb.Response, error) { e := <-done; return e.response, e.err }
}

func rawContract(t testing.TB, cfg contracthost.Config) (*memory, *raw) {
	m := newHost(t, cfg)
	m.packages["raw"] = "raw:1"
	m.host.Expect("raw:1")
	r := dialRaw(t, m.listen(t))
	r.register("raw:1")
	return m, r
}

func TestBadRequests(t *testing.T) {
	m, r := rawContract(t, contracthost.Config{MaxIterators: 2})
	c := call("raw", "f")
	c.Input.IsInit = true
	for i := range 250 {
		v := &view{memory: m, call: c}
		v.Put("", strings.Repeat("k", i+1), []byte("v"))
	}
	ended := m.start(c)
	first := r.receive(peerpb.ChaincodeMessage_INIT)
	ask := func(typ peerpb.ChaincodeMessage_Type, payload []byte) *message {
		t.Helper()
		r.send(&message{Type: typ, Txid: first.Txid, ChannelId: first.ChannelId, Payload: payload})
		answer, err := r.Recv()
		if err != nil || answer.Txid != first.Txid || answer.ChannelId != first.ChannelId {
			t.Fatal(answer, err)
		}
		return answer
	}
	refuse := func(typ peerpb.ChaincodeMessage_Type, payload []byte, want string) {
		t.Helper()
		answer := ask(typ, payload)
		want = typ.String() + " failed: transaction ID: " + first.Txid + ": " + want
		if answer.Type != peerpb.ChaincodeMessage_ERROR || !strings.HasPrefix(string(answer.Payload), want) {
			t.Errorf("%s %s, want %s", answer.Type, answer.Payload, want)
		}
	}
	const private = "private data APIs are not allowed in chaincode Init()"
	for typ, body := range map[peerpb.ChaincodeMessage_Type]proto.Message{
		peerpb.ChaincodeMessage_GET_STATE:             &peerpb.GetState{Collection: "c", Key: "k"},
		peerpb.ChaincodeMessage_PUT_STATE:             &peerpb.PutState{Collection: "c", Key: "k"},
		peerpb.ChaincodeMessage_DEL_STATE:             &peerpb.DelState{Collection: "c", Key: "k"},
		peerpb.ChaincodeMessage_PURGE_PRIVATE_DATA:    &peerpb.DelState{Collection: "c", Key: "k"},
		peerpb.ChaincodeMessage_GET_PRIVATE_DATA_HASH: &peerpb.GetState{Collection: "c", Key: "k"},
		peerpb.ChaincodeMessage_GET_STATE_MULTIPLE:    &peerpb.GetStateMultiple{Collection: "c", Keys: []string{"k"}},
		peerpb.ChaincodeMessage_GET_STATE_METADATA:    &peerpb.GetStateMetadata{Collection: "c", Key: "k"},
		peerpb.ChaincodeMessage_PUT_STATE_METADATA:    &peerpb.PutStateMetadata{Collection: "c", Key: "k", Metadata: &peerpb.StateMetadata{}},
		peerpb.ChaincodeMessage_GET_STATE_BY_RANGE:    &peerpb.GetStateByRange{Collection: "c"},
		peerpb.ChaincodeMessage_GET_QUERY_RESULT:      &peerpb.GetQueryResult{Collection: "c"},
	} {
		refuse(typ, []byte{0xff}, "unmarshal failed")
		refuse(typ, marshal(t, body), private)
	}
	refuse(peerpb.ChaincodeMessage_PURGE_PRIVATE_DATA, marshal(t, &peerpb.DelState{Key: "k"}), "only applicable for private data")
	refuse(peerpb.ChaincodeMessage_PUT_STATE_METADATA, marshal(t, &peerpb.PutStateMetadata{Key: "k"}), "metadata is missing")
	refuse(peerpb.ChaincodeMessage_QUERY_STATE_NEXT, marshal(t, &peerpb.QueryStateNext{Id: "9"}), "query iterator not found")
	refuse(peerpb.ChaincodeMessage_WRITE_BATCH_STATE, marshal(t, &peerpb.WriteBatchState{Rec: []*peerpb.WriteRecord{{Key: "k"}}}), "unknown operation type")
	refuse(peerpb.ChaincodeMessage_INVOKE_CHAINCODE, nil, "the name of the chaincode to invoke is empty")
	refuse(peerpb.ChaincodeMessage_GET_STATE_BY_RANGE, marshal(t, &peerpb.GetStateByRange{Metadata: []byte{0xff}}), "unmarshal failed")
	for range 2 {
		if answer := ask(peerpb.ChaincodeMessage_GET_STATE_BY_RANGE, nil); answer.Type != peerpb.ChaincodeMessage_RESPONSE {
			t.Errorf("%s", answer.Payload)
		}
	}
	refuse(peerpb.ChaincodeMessage_GET_STATE_BY_RANGE, nil, "the transaction has 2 queries open")
	if answer := ask(peerpb.ChaincodeMessage_QUERY_STATE_CLOSE, marshal(t, &peerpb.QueryStateClose{Id: "1"})); answer.Type != peerpb.ChaincodeMessage_RESPONSE {
		t.Errorf("%s", answer.Payload)
	}
	if n := m.openIterators(); n != 1 {
		t.Errorf("%d iterators are open", n)
	}
	// A transaction that nobody runs.
	r.send(&message{Type: peerpb.ChaincodeMessage_GET_STATE, Txid: "stale", ChannelId: channel})
	if answer := r.receive(peerpb.ChaincodeMessage_ERROR); string(answer.Payload) != "GET_STATE failed: transaction ID: stale: no ledger context" {
		t.Errorf("%s", answer.Payload)
	}
	r.send(&message{Type: peerpb.ChaincodeMessage_ERROR, Txid: first.Txid, ChannelId: first.ChannelId, Payload: []byte("no")})
	_, err := ended()
	var failed *contracthost.ContractError
	if !errors.As(err, &failed) || err.Error() != "transaction returned with failure: no" {
		t.Error(err)
	}
	if n := m.openIterators(); n != 0 {
		t.Errorf("%d iterators are open after the end", n)
	}

	// An answer that is none.
	ended = m.start(call("raw", "f"))
	first = r.receive(peerpb.ChaincodeMessage_TRANSACTION)
	r.send(&message{Type: peerpb.ChaincodeMessage_COMPLETED, Txid: first.Txid, ChannelId: first.ChannelId, Payload: []byte{0xff}})
	if _, err := ended(); err == nil || !strings.Contains(err.Error(), "failed to unmarshal response for transaction") {
		t.Error(err)
	}
	// A message that no contract may send ends the stream.
	ended = m.start(call("raw", "f"))
	first = r.receive(peerpb.ChaincodeMessage_TRANSACTION)
	r.send(&message{Type: peerpb.ChaincodeMessage_READY, Txid: first.Txid, ChannelId: first.ChannelId})
	if _, err := ended(); !errors.Is(err, contracthost.ErrStreamTerminated) {
		t.Error(err)
	}
	if _, err := r.Recv(); !strings.Contains(err.Error(), "cannot handle message (READY) while in ready state") {
		t.Error(err)
	}
}

func TestFloodHurtsOneTransactionOnly(t *testing.T) {
	m, r := rawContract(t, contracthost.Config{})
	m.entered, m.proceed = make(chan string), make(chan struct{})
	ended := m.start(call("raw", "f"))
	other := m.start(call("raw", "g"))
	flooding, calm := r.receive(peerpb.ChaincodeMessage_TRANSACTION), r.receive(peerpb.ChaincodeMessage_TRANSACTION)
	var input peerpb.ChaincodeInput
	if err := proto.Unmarshal(flooding.Payload, &input); err != nil {
		t.Fatal(err)
	}
	if string(input.Args[0]) == "g" {
		flooding, calm = calm, flooding
	}
	get := func(of *message) *message {
		return &message{Type: peerpb.ChaincodeMessage_GET_STATE, Txid: of.Txid, ChannelId: of.ChannelId, Payload: marshal(t, &peerpb.GetState{Key: "k"})}
	}
	r.send(get(flooding))
	<-m.entered
	for range 20 {
		r.send(get(flooding))
	}
	// What follows on the stream is read after the flood.
	r.send(get(calm))
	<-m.entered
	m.proceed <- struct{}{}
	m.proceed <- struct{}{}
	go func() { // those that were queued
		for {
			select {
			case <-m.entered:
				m.proceed <- struct{}{}
			case <-t.Context().Done():
				return
			}
		}
	}()
	r.send(&message{Type: peerpb.ChaincodeMessage_COMPLETED, Txid: calm.Txid, ChannelId: calm.ChannelId, Payload: marshal(t, &peerpb.Response{Status: 200})})
	if response, err := other(); err != nil || response.Status != 200 {
		t.Error(response, err)
	}
	if _, err := ended(); err == nil || !strings.Contains(err.Error(), "requests without waiting for answers") {
		t.Error(err)
	}
}

// A contract that stops reading blocks neither the host nor its callers for longer than their timeout.
func TestContractThatDoesNotRead(t *testing.T) {
	m, _ := rawContract(t, contracthost.Config{ExecuteTimeout: 200 * time.Millisecond})
	var calls []func() (*peerpb.Response, error)
	for range 200 {
		calls = append(calls, m.start(call("raw", strings.Repeat("x", 100_000))))
	}
	for _, ended := range calls {
		if _, err := ended(); !errors.Is(err, contracthost.ErrTimeout) {
			t.Error(err)
		}
	}
}

func TestCloseEndsCalls(t *testing.T) {
	m, r := rawContract(t, contracthost.Config{})
	ended := m.start(call("raw", "f"))
	r.receive(peerpb.ChaincodeMessage_TRANSACTION)
	m.host.Close()
	if _, err := ended(); !errors.Is(err, contracthost.ErrStreamTerminated) {
		t.Error(err)
	}
	if _, _, err := m.execute(t.Context(), "raw:1", call("raw", "f")); err == nil {
		t.Error("a closed host ran a call")
	}
}

// FuzzMessages sends a contract's bytes of any kind within a transaction.
func FuzzMessages(f *testing.F) {
	for typ := range peerpb.ChaincodeMessage_Type_name {
		f.Add(typ, []byte("\n\x01k"), []byte{0xff})
	}
	f.Fuzz(func(t *testing.T, typ int32, one, two []byte) {
		m, r := rawContract(t, contracthost.Config{ExecuteTimeout: time.Second})
		ended := m.start(call("raw", "f"))
		first := r.receive(peerpb.ChaincodeMessage_TRANSACTION)
		for _, payload := range [][]byte{one, two} {
			if r.Send(&message{Type: peerpb.ChaincodeMessage_Type(typ), Txid: first.Txid, ChannelId: first.ChannelId, Payload: payload}) != nil {
				break
			}
		}
		_ = r.Send(&message{Type: peerpb.ChaincodeMessage_COMPLETED, Txid: first.Txid, ChannelId: first.ChannelId})
		if _, err := ended(); errors.Is(err, contracthost.ErrTimeout) {
			t.Error(err)
		}
	})
}
