// Package contracttest runs contracts in memory, for unit tests: no network, no peers, no waiting.
//
//	l := contracttest.New(t)
//	l.Deploy("asset", contracts...)
//	ann := l.Client("Org1MSP", "ann", nil)
//	result, err := ann.Submit("Create", "a1", "5")
//
// The ledger behaves as a channel does where contracts can tell: a transaction sees what was committed before it and not its own
// writes, all its writes take effect or none, two transactions that ran on the same state conflict (see Simulate), private data
// need a collection and a member, and what a peer refuses is refused with its words.
//
// JSON queries are answered as peers answer them, by the same code, from indexes that Index defines.
//
// It leaves out endorsement policies, which are recorded but not enforced, several peers that must agree, and block to live.
//
// Files: contracttest.go (this: ledgers, clients and transactions), view.go (the state as a contract sees it), query.go (JSON queries).
package contracttest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/contract"
	"github.com/hansa-ledger/hansa/contract/internal/shim"
	"github.com/hansa-ledger/hansa/internal/jsonquery"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"google.golang.org/protobuf/proto"
)

// ErrConflict is what Commit says of a transaction that read what another has changed since.
var ErrConflict = errors.New("MVCC_READ_CONFLICT: the transaction read what another one changed")

// Refused is the error of a call that the contract refused.
type Refused struct {
	Status  int32
	Message string
}

func (r *Refused) Error() string { return r.Message }

// Ledger is a channel in memory. It is used from one goroutine.
type Ledger struct {
	// Channel is the channel's name as contracts see it.
	Channel string
	// Now is the time that clients write into their transactions. Every transaction is a second later than the one before.
	Now time.Time

	t           testing.TB
	deployed    map[string]*contract.Process
	first       string
	state       map[place]*entry
	history     map[place][]contract.Change
	collections map[string][]string
	indexes     map[place][]*jsonquery.Index // by contract and collection
	events      []Event
	transaction uint64
	serial      int64
}

// Event is an event of a committed transaction.
type Event struct {
	Contract, TxID, Name string
	Payload              []byte
}

// place is where a value is. The empty collection is the public state.
type place struct{ contract, collection, key string }

type entry struct {
	value    []byte
	metadata map[string][]byte
	version  uint64 // of the transaction that wrote it last
}

// New makes an empty channel.
func New(t testing.TB) *Ledger {
	return &Ledger{
		Channel: "test", Now: time.Date(2026, time.January, 1, 12, 0, 0, 0, time.UTC), t: t,
		deployed: map[string]*contract.Process{}, state: map[place]*entry{}, history: map[place][]contract.Change{},
		collections: map[string][]string{}, indexes: map[place][]*jsonquery.Index{},
	}
}

// Deploy puts contracts on the channel under a name, as one process. Clients call the name that was deployed first.
func (l *Ledger) Deploy(name string, contracts ...*contract.Contract) {
	l.t.Helper()
	p, err := contract.NewProcess(slog.New(slog.NewTextHandler(l.t.Output(), nil)), contracts...)
	if err != nil {
		l.t.Fatalf("deploy %s: %v", name, err)
	}
	l.deployed[name] = p
	if l.first == "" {
		l.first = name
	}
}

// Collection defines a private data collection and its members, for all contracts. Members' own collections
// (contract.OrgCollection) need no definition.
func (l *Ledger) Collection(name string, mspIDs ...string) { l.collections[name] = mspIDs }

// Get reads the public state of the first contract; nil if there is no value.
func (l *Ledger) Get(key string) []byte { return l.value(place{l.first, "", key}) }

// Private reads a collection of the first contract, as its members see it.
func (l *Ledger) Private(collection, key string) []byte {
	return l.value(place{l.first, collection, key})
}

// Put writes the public state of the first contract without a transaction, to prepare a test.
func (l *Ledger) Put(key string, value []byte) {
	l.transaction++
	l.state[place{l.first, "", key}] = &entry{value: value, version: l.transaction}
}

// Keys lists the keys of the first contract's public state, in order.
func (l *Ledger) Keys() []string {
	var keys []string
	for at := range l.state {
		if at.contract == l.first && at.collection == "" {
			keys = append(keys, at.key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Events are those of the transactions that committed, in their order.
func (l *Ledger) Events() []Event { return l.events }

func (l *Ledger) value(at place) []byte {
	if e := l.state[at]; e != nil {
		return e.value
	}
	return nil
}

// Client is somebody who calls contracts.
type Client struct {
	ledger    *Ledger
	contract  string
	mspID     string
	creator   []byte
	transient map[string][]byte
}

// Client makes a client with a certificate of its own, with attributes as Fabric's certificate authority writes them.
func (l *Ledger) Client(mspID, name string, attributes map[string]string) *Client {
	l.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		l.t.Fatal(err)
	}
	l.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(l.serial), Subject: pkix.Name{CommonName: name, OrganizationalUnit: []string{"client"}},
		NotBefore: l.Now.Add(-time.Hour), NotAfter: l.Now.AddDate(10, 0, 0),
	}
	if attributes != nil {
		raw, err := json.Marshal(map[string]any{"attrs": attributes})
		if err != nil {
			l.t.Fatal(err)
		}
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4, 5, 6, 7, 8, 1}, Value: raw}}
	}
	issuer := &x509.Certificate{SerialNumber: big.NewInt(0), Subject: pkix.Name{CommonName: "ca." + mspID}}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), key)
	if err != nil {
		l.t.Fatal(err)
	}
	creator, err := proto.Marshal(&msppb.SerializedIdentity{Mspid: mspID, IdBytes: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})})
	if err != nil {
		l.t.Fatal(err)
	}
	return &Client{ledger: l, mspID: mspID, creator: creator}
}

// On is the same client calling another contract.
func (c *Client) On(name string) *Client {
	d := *c
	d.contract = name
	return &d
}

// With is the same client sending transient data with its calls.
func (c *Client) With(transient map[string][]byte) *Client {
	d := *c
	d.transient = transient
	return &d
}

// Submit runs a function and commits what it wrote.
func (c *Client) Submit(function string, args ...string) ([]byte, error) {
	tx, err := c.Simulate(function, args...)
	if err != nil {
		return nil, err
	}
	return tx.Result, tx.Commit()
}

// Evaluate runs a function and forgets what it wrote.
func (c *Client) Evaluate(function string, args ...string) ([]byte, error) {
	tx, err := c.Simulate(function, args...)
	if err != nil {
		return nil, err
	}
	return tx.Result, nil
}

// Transaction is a call that ran and has not been committed.
type Transaction struct {
	ID     string
	Result []byte
	Event  *Event // nil: none

	ledger  *Ledger
	client  *Client
	at      time.Time
	depth   []string // contracts that are running, caller first
	reads   map[place]uint64
	ranges  []rangeRead
	writes  map[place]*write
	order   []place
	paged   bool // it took a page
	private bool // it queried private data
	done    bool
}

// Simulate runs a function without committing. Two transactions that were simulated before either was committed conflict as on a network.
func (c *Client) Simulate(function string, args ...string) (*Transaction, error) {
	l := c.ledger
	name := c.contract
	if name == "" {
		name = l.first
	}
	l.serial++
	l.Now = l.Now.Add(time.Second)
	id := sha256.Sum256(fmt.Appendf(nil, "%s %d", name, l.serial))
	tx := &Transaction{
		ID: hex.EncodeToString(id[:]), ledger: l, client: c, at: l.Now,
		reads: map[place]uint64{}, writes: map[place]*write{},
	}
	raw := make([][]byte, 0, 1+len(args))
	for _, a := range append([]string{function}, args...) {
		raw = append(raw, []byte(a))
	}
	call, response, err := tx.run(name, raw)
	if err != nil {
		return nil, err
	}
	if response.Status >= 400 {
		return nil, &Refused{Status: response.Status, Message: response.Message}
	}
	tx.Result = response.Payload
	if e := call.Event; e != nil {
		tx.Event = &Event{Contract: name, TxID: tx.ID, Name: e.EventName, Payload: e.Payload}
	}
	return tx, nil
}

// Commit makes the writes of a transaction take effect, unless it conflicts.
func (tx *Transaction) Commit() error {
	if tx.done {
		return errors.New("DUPLICATE_TXID: the transaction was committed before")
	}
	tx.done = true
	l := tx.ledger
	for at, version := range tx.reads {
		if l.version(at) != version {
			return fmt.Errorf("%w: key %q of %s", ErrConflict, at.key, at.contract)
		}
	}
	for _, r := range tx.ranges {
		if !slices.Equal(r.seen, l.scan(r.contract, r.collection, r.start, r.end)) {
			return fmt.Errorf("%w (PHANTOM_READ_CONFLICT): keys from %q to %q of %s", ErrConflict, r.start, r.end, r.contract)
		}
	}
	l.transaction++
	for _, at := range tx.order {
		tx.apply(at, tx.writes[at])
	}
	if tx.Event != nil {
		l.events = append(l.events, *tx.Event)
	}
	return nil
}

func (tx *Transaction) apply(at place, w *write) {
	l := tx.ledger
	e := l.state[at]
	switch {
	case w.removed:
		delete(l.state, at)
		e = nil
	case w.value != nil:
		n := &entry{value: w.value}
		if e != nil {
			n.metadata = e.metadata
		}
		e = n
		l.state[at] = e
	}
	if at.collection == "" && (w.removed || w.value != nil) {
		l.history[at] = append(l.history[at], contract.Change{TxID: tx.ID, Timestamp: tx.at, Value: w.value, IsDelete: w.removed})
	}
	if e == nil {
		return // metadata of a key without a value is nothing
	}
	e.version = l.transaction
	for name, value := range w.metadata {
		if e.metadata == nil {
			e.metadata = map[string][]byte{}
		}
		e.metadata[name] = value
	}
}

func (l *Ledger) version(at place) uint64 {
	if e := l.state[at]; e != nil {
		return e.version
	}
	return 0
}

// keyVersion is what ranges are compared by.
type keyVersion struct {
	key     string
	version uint64
}

// scan lists the keys from start up to, without, end, as the wire means them: an empty end is the end.
func (l *Ledger) scan(contract, collection, start, end string) []keyVersion {
	var found []keyVersion
	for at, e := range l.state {
		if at.contract == contract && at.collection == collection && at.key >= start && (end == "" || at.key < end) {
			found = append(found, keyVersion{at.key, e.version})
		}
	}
	slices.SortFunc(found, func(a, b keyVersion) int { return strings.Compare(a.key, b.key) })
	return found
}

// handle runs a process's function. A panic is a refusal, as on a network.
func handle(p *contract.Process, call *shim.Call) (response *peerpb.Response) {
	defer func() {
		if v := recover(); v != nil {
			response = &peerpb.Response{Status: shim.Failed, Message: fmt.Sprintf("the contract panicked: %v", v)}
		}
	}()
	return p.Handle(context.Background(), call)
}
