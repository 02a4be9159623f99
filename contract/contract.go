// Package contract is what authors of contracts in Go import. A contract is a set of functions with typed arguments and results:
//
//	func create(ctx *contract.Context, id string, size int) (*Asset, error) { ... }
//
//	assets := contract.New("asset")
//	assets.Submit("Create", create)
//	assets.Evaluate("Read", read)
//	err := contract.Run(ctx, assets)
//
// Run serves the contract to peers, as the environment says: as a service that peers dial, or classically, dialling a peer. The same
// program runs on Hansa and on Hyperledger Fabric 2 and 3, whose chaincode protocol it speaks. Package contracttest runs
// contracts in memory, for unit tests.
//
// The peer runs a transaction on several members' nodes, which must come to the same result. So a function must depend on its
// arguments and on what it reads through its Context only: no clock, no random numbers, no other service, no order of Go's maps.
//
// It guarantees that arguments are checked against the types of the function before it runs, that functions of Evaluate do not write,
// and that a panic fails one call and not the process. It leaves out packaging and deployment.
//
// Files: contract.go (this: contracts and their functions), function.go (typed calls), context.go (state, events, other contracts),
// query.go, private.go, identity.go, endorsers.go, metadata.go (the description that SDKs ask for), serve.go (processes).
package contract

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/hansa-ledger/hansa/contract/internal/shim"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// systemContract has one function, by which SDKs and explorers ask what a process offers.
const (
	systemContract   = "org.hyperledger.fabric"
	metadataFunction = "GetMetadata"
)

// Contract is a named set of functions. Several contracts can share a process; callers then say "name:Function". The functions of the
// process's first contract are also called without a name.
type Contract struct {
	// Info describes the contract in its metadata.
	Info Info

	name      string
	functions map[string]*function
	before    func(*Context) error
	after     func(*Context, []byte) error
	unknown   func(*Context) ([]byte, error)
	errs      []error
}

// Info describes a contract to people.
type Info struct {
	Title       string `json:"title,omitempty"`
	Description string `json:"description,omitempty"`
	Version     string `json:"version,omitempty"`
}

// New makes a contract without functions. Mistakes in its making are told when it is served or tested.
func New(name string) *Contract {
	c := &Contract{name: name, functions: map[string]*function{}, Info: Info{Title: name, Version: "latest"}}
	if name == "" || strings.ContainsRune(name, ':') {
		c.errs = append(c.errs, fmt.Errorf("contract name %q must not be empty and must not contain a colon", name))
	}
	return c
}

// Submit registers a function that clients submit as a transaction.
//
// f is a func(*Context, arguments...) that returns nothing, an error, a result, or a result and an error. Arguments and results are
// strings, byte slices, booleans, numbers, time.Time, or anything that encoding/json reads and writes. Callers pass strings, byte slices, numbers
// and booleans as plain text and everything else as JSON. Unknown fields in a JSON argument are refused, and an argument with a method
// Validate() error is refused when that says so. params name the arguments in the contract's metadata.
func (c *Contract) Submit(name string, f any, params ...string) { c.register(name, f, false, params) }

// Evaluate registers a function that only reads: it cannot write or emit events.
func (c *Contract) Evaluate(name string, f any, params ...string) { c.register(name, f, true, params) }

// Before has hook run before each function. An error refuses the call.
func (c *Contract) Before(hook func(*Context) error) { c.before = hook }

// After has hook run after each function that succeeded, with its encoded result. An error refuses the call after all.
func (c *Contract) After(hook func(ctx *Context, result []byte) error) { c.after = hook }

// Unknown has hook run for calls of functions that the contract does not have, in place of an error.
func (c *Contract) Unknown(hook func(*Context) ([]byte, error)) { c.unknown = hook }

func (c *Contract) register(name string, f any, readOnly bool, params []string) {
	fn, err := newFunction(name, f, readOnly, params)
	switch {
	case err != nil:
	case name == "" || strings.ContainsRune(name, ':'):
		err = errors.New("the name must not be empty and must not contain a colon")
	case c.functions[name] != nil:
		err = errors.New("it is registered twice")
	}
	if err != nil {
		c.errs = append(c.errs, fmt.Errorf("contract %s: function %q: %w", c.name, name, err))
		return
	}
	c.functions[name] = fn
}

// Process is what one process offers: one or more contracts. Run and Serve make their own; package contracttest needs one.
type Process struct {
	contracts map[string]*Contract
	first     *Contract
	metadata  []byte
	log       *slog.Logger
}

// NewProcess checks contracts and puts them together.
func NewProcess(log *slog.Logger, contracts ...*Contract) (*Process, error) {
	if len(contracts) == 0 {
		return nil, errors.New("a process needs at least one contract")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Process{contracts: map[string]*Contract{}, first: contracts[0], log: log}
	var errs []error
	for _, c := range contracts {
		errs = append(errs, c.errs...)
		if p.contracts[c.name] != nil || c.name == systemContract {
			errs = append(errs, fmt.Errorf("contract name %q is taken", c.name))
		}
		p.contracts[c.name] = c
	}
	var err error
	if p.metadata, err = describe(contracts); err != nil {
		errs = append(errs, err)
	}
	return p, errors.Join(errs...)
}

// Handle runs one call. It is for this module's own runtimes: its types cannot be named elsewhere.
func (p *Process) Handle(ctx context.Context, call *shim.Call) *peerpb.Response {
	result, err := p.handle(ctx, call)
	if err != nil {
		return &peerpb.Response{Status: shim.Failed, Message: err.Error()}
	}
	return &peerpb.Response{Status: shim.OK, Payload: result}
}

func (p *Process) handle(ctx context.Context, call *shim.Call) ([]byte, error) {
	var full string
	var args [][]byte
	if len(call.Args) > 0 {
		full, args = string(call.Args[0]), call.Args[1:]
	}
	// "a:b:F" is function F of contract "a:b" to Fabric; names with colons are refused at registration, so the last colon will do.
	c, name := p.first, full
	if i := strings.LastIndexByte(full, ':'); i >= 0 {
		name = full[i+1:]
		if full[:i] == systemContract && name == metadataFunction {
			return p.metadata, nil
		}
		if c = p.contracts[full[:i]]; c == nil {
			return nil, fmt.Errorf("Contract not found with name %s", full[:i]) //nolint:staticcheck // Fabric's text
		}
	}
	x := &Context{ctx: ctx, call: call, log: p.log, function: name, args: args}
	if name == "" && call.IsInit {
		return nil, nil // an initialization without a function has nothing to do
	}
	f := c.functions[name]
	if f == nil && c.unknown == nil {
		return nil, fmt.Errorf("Function %s not found in contract %s", name, c.name) //nolint:staticcheck // Fabric's text
	}
	x.readOnly = f != nil && f.readOnly
	if c.before != nil {
		if err := c.before(x); err != nil {
			return nil, err
		}
	}
	var result []byte
	var err error
	if f == nil {
		result, err = c.unknown(x)
	} else {
		result, err = f.run(x, args)
	}
	if err != nil {
		return nil, err
	}
	if c.after != nil {
		if err := c.after(x, slices.Clip(result)); err != nil {
			return nil, err
		}
	}
	return result, nil
}
