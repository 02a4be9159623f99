// Package validate gives the verdict on every transaction of a block, and what the block changes.
//
// It decides what Hyperledger Fabric's V2_0 validation decides: the same checks in the same order with the same
// codes, so that both come to the same filter and the same commit hash. The work is split in two:
//
//   - Prepare needs only the block and the channel's configuration: syntax, the creator's signature, the
//     endorsers' signatures (each verified once, whatever number of policies asks), the read-write set. It takes
//     nearly all of the time, uses all cores, and may run for the next block while this one is stored.
//   - Decide needs the state before the block: duplicates, contract definitions, endorsement policies, conflicts,
//     configuration changes. It is sequential.
//
// What it guarantees: a verdict depends on the block, the configuration and the state alone, never on the
// clock, the order of a map or which other channels a peer is on; and no block, however hostile, makes it panic or
// give no verdict. Where the reference implementation would stop or hang, the verdict chosen here is said in
// the comment beside it. An error from Decide is only ever about the state (or a capability this version lacks), and then
// no verdict was given.
//
// Whether a block is the next one of its channel at all is a separate question, answered by Accept. It leaves out storing the
// outcome (package ledger), and private data, which has no say in a verdict.
//
// Open this file first, then prepare.go, endorsement.go and conflict.go in the order in which a transaction meets them.
package validate

import (
	"errors"
	"fmt"
	"runtime"
	"sync"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Code is the verdict on a transaction.
type Code = peerpb.TxValidationCode

const (
	valid        = peerpb.TxValidationCode_VALID
	notValidated = peerpb.TxValidationCode_NOT_VALIDATED
)

// Config sets up a Validator.
type Config struct {
	// Workers is how many transactions Prepare works on at once; 0 for one a core.
	Workers int
	// MaxPolicies bounds the compiled policies that are kept; 0 for DefaultMaxPolicies. At the bound all are forgotten.
	MaxPolicies int
}

// DefaultMaxPolicies is ample: contracts, collections and key-level policies that are in use at one time.
const DefaultMaxPolicies = 1024

// State is what Decide reads: the state and the transaction index after the block before. It must not change
// while Decide runs.
type State interface {
	rwset.State
	// Range iterates over the public keys from start (inclusive) to end (exclusive; "" for no end) in order.
	Range(namespace, start, end string) (ledger.Iterator, error)
	// HasTx says whether a transaction identifier is on the ledger, whatever became of that transaction.
	HasTx(id string) (bool, error)
}

// Validator gives verdicts for one channel. Prepare may run beside Decide; each is called by one goroutine at a time.
type Validator struct {
	config Config

	mu       sync.Mutex
	bundle   *channel.Bundle // that policies were compiled for
	policies map[policyKey]policy.Policy
}

// New makes a Validator.
func New(config Config) *Validator {
	if config.Workers <= 0 {
		config.Workers = runtime.GOMAXPROCS(0)
	}
	if config.MaxPolicies <= 0 {
		config.MaxPolicies = DefaultMaxPolicies
	}
	return &Validator{config: config}
}

// Result is the outcome of a block.
type Result struct {
	Codes   []byte         // one validation code a transaction: the block's filter
	Updates *rwset.Updates // what the valid transactions change
	TxIDs   []string       // under which each transaction is indexed; "" for none
	// Sets are the transactions' read-write sets, nil for a transaction without one that could be read.
	Sets []*rwset.Set
	// NextBundle is the channel's configuration from the next block on, nil if it stays.
	NextBundle *channel.Bundle
}

// definitionsOnce reads each key of the contracts' definitions once a block: every
// transaction reads its contract's.
type definitionsOnce struct {
	State
	seen map[string]*rwset.VersionedValue
}

func (o *definitionsOnce) Get(namespace, key string) (*rwset.VersionedValue, error) {
	if namespace != lifecycleNamespace {
		return o.State.Get(namespace, key)
	}
	if value, ok := o.seen[key]; ok {
		return value, nil
	}
	value, err := o.State.Get(namespace, key)
	if err == nil {
		o.seen[key] = value
	}
	return value, err
}

// Decide gives the verdicts. b is the channel's configuration before the block and state the state before it. If p
// was prepared under another configuration, which a caller should avoid, it is prepared again.
func (v *Validator) Decide(b *channel.Bundle, p *Prepared, state State) (*Result, error) {
	if p.bundle != b {
		p = v.Prepare(b, p.Block)
	}
	d := &decision{
		validator: v, bundle: b, Prepared: p, state: &definitionsOnce{State: state, seen: map[string]*rwset.VersionedValue{}},
		codes:       make([]Code, len(p.txs)),
		updates:     rwset.NewUpdates(p.Block.GetHeader().GetNumber()),
		definitions: map[string]*definition{},
	}
	for i := range p.txs {
		code, err := d.endorsed(i)
		if err != nil {
			return nil, fmt.Errorf("validate transaction %d of block %d: %w", i, d.updates.Block(), err)
		}
		d.codes[i] = code
	}
	d.rejectDuplicates()
	for i := range p.txs {
		if d.codes[i] != valid {
			continue
		}
		if err := d.apply(i); err != nil {
			return nil, fmt.Errorf("validate transaction %d of block %d: %w", i, d.updates.Block(), err)
		}
	}
	r := &Result{Codes: make([]byte, len(d.codes)), Updates: d.updates, TxIDs: make([]string, len(d.codes)), Sets: make([]*rwset.Set, len(d.codes)), NextBundle: d.next}
	for i, code := range d.codes {
		r.Codes[i], r.TxIDs[i], r.Sets[i] = byte(code), ledger.TxID(p.txs[i].tx), p.txs[i].set
	}
	return r, nil
}

// decision is one run of Decide.
type decision struct {
	*Prepared
	validator *Validator
	bundle    *channel.Bundle
	state     State

	codes       []Code
	updates     *rwset.Updates
	next        *channel.Bundle
	definitions map[string]*definition
	// parameters holds, for each key whose metadata an earlier transaction of this block writes with its
	// namespace's policy satisfied, that this happened.
	parameters map[ledgerKey]bool
}

// ledgerKey names a public key (collection "") or the hash of a private one.
type ledgerKey struct{ namespace, collection, key string }

// endorsed gives the verdict of everything that comes before the conflict check.
func (d *decision) endorsed(i int) (Code, error) {
	tx := &d.txs[i]
	if tx.early != valid {
		return tx.early, nil
	}
	if tx.tx.Type() == commonpb.HeaderType_CONFIG {
		return d.config(tx)
	}
	// Any identifier on the ledger is used up, even by a transaction that was not valid.
	switch known, err := d.state.HasTx(tx.tx.ID()); {
	case err != nil:
		return notValidated, err
	case known:
		return peerpb.TxValidationCode_DUPLICATE_TXID, nil
	}
	if tx.late != valid {
		return tx.late, nil
	}
	return d.checkPolicies(tx)
}

// config decides on a configuration transaction. The reference implementation stops at one that it cannot apply
// and takes one in the midst of a block; here it is invalid unless it is alone in its block, as honest orderers make
// it, and leads to a configuration.
func (d *decision) config(tx *preparedTx) (Code, error) {
	if len(d.txs) != 1 {
		return peerpb.TxValidationCode_INVALID_CONFIG_TRANSACTION, nil
	}
	config := &commonpb.ConfigEnvelope{}
	if err := proto.Unmarshal(tx.tx.Payload.Data, config); err != nil {
		return peerpb.TxValidationCode_INVALID_CONFIG_TRANSACTION, nil
	}
	next, err := d.bundle.ValidateConfig(config)
	if unsupported := (*channel.UnsupportedCapability)(nil); errors.As(err, &unsupported) {
		// The channel has moved on to rules that this version does not know: any verdict of ours from
		// here on could be wrong.
		return notValidated, err
	}
	if err != nil {
		return peerpb.TxValidationCode_INVALID_CONFIG_TRANSACTION, nil
	}
	d.next = next
	return valid, nil
}

// rejectDuplicates lets the first of several transactions with one identifier stand; those that were refused
// already do not count. Configuration transactions have no part in it.
func (d *decision) rejectDuplicates() {
	if len(d.txs) < 2 {
		return
	}
	seen := make(map[string]bool, len(d.txs))
	for i := range d.txs {
		id := d.txs[i].tx.ID()
		if d.codes[i] != valid || id == "" || d.txs[i].tx.Type() != commonpb.HeaderType_ENDORSER_TRANSACTION {
			continue
		}
		if seen[id] {
			d.codes[i] = peerpb.TxValidationCode_DUPLICATE_TXID
		}
		seen[id] = true
	}
}

// apply checks a transaction for conflicts and adds what it writes to the block's updates.
func (d *decision) apply(i int) error {
	tx := &d.txs[i]
	if tx.tx.Type() == commonpb.HeaderType_CONFIG {
		d.updates.SetConfig(uint64(i), tx.tx.Payload.Data)
		return nil
	}
	code, err := d.conflicts(tx.set)
	if err != nil {
		return err
	}
	if d.codes[i] = code; code != valid {
		return nil
	}
	return d.updates.Apply(uint64(i), tx.set, d.state)
}

// Genesis is the result of a channel's first block, which nothing can check: whoever joins by it trusts it.
func Genesis(p *block.Parsed) (*Result, error) {
	if len(p.Txs) != 1 || p.Txs[0].Type() != commonpb.HeaderType_CONFIG || p.Txs[0].Payload == nil {
		return nil, fmt.Errorf("block %d: %w", p.GetHeader().GetNumber(), block.ErrNoConfig)
	}
	r := &Result{Codes: []byte{byte(valid)}, Updates: rwset.NewUpdates(p.GetHeader().GetNumber()), TxIDs: []string{ledger.TxID(p.Txs[0])}, Sets: make([]*rwset.Set, 1)}
	r.Updates.SetConfig(0, p.Txs[0].Payload.Data)
	return r, nil
}
