package contract

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/hansa-ledger/hansa/contract/internal/shim"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Causes that callers may want to tell apart.
var (
	// ErrReadOnly refuses writes in functions that were registered with Evaluate.
	ErrReadOnly = errors.New("the function is registered with Evaluate and must not write; register it with Submit")
	// ErrNotFound is what GetJSON says of a key without a value.
	ErrNotFound = errors.New("not found")
)

// Context is one call: who calls, and the state as of now. It is good until the function returns.
//
// Reads give what is committed: a transaction does not see its own writes. Writes take effect together when the transaction commits, or not
// at all. They may be sent to the peer as late as the function's end, and an error that the peer has with one then fails the call.
type Context struct {
	ctx      context.Context
	call     *shim.Call
	log      *slog.Logger
	function string
	args     [][]byte
	readOnly bool
	client   *Client
}

// Context ends when nobody waits for the call any more.
func (c *Context) Context() context.Context { return c.ctx }

// Log is the process's logger with the call's transaction.
func (c *Context) Log() *slog.Logger { return c.log.With("transaction", c.call.TxID) }

// ChannelID is the channel whose state the call sees.
func (c *Context) ChannelID() string { return c.call.ChannelID }

// TxID is the transaction's id, unique on the channel: a good id for what the transaction makes.
func (c *Context) TxID() string { return c.call.TxID }

// Timestamp is the time at which the client says it made the transaction: the same on all peers, but the client's word.
func (c *Context) Timestamp() time.Time { return c.call.Timestamp }

// Function is the name that was called, without the contract's, and Args its arguments as they came.
func (c *Context) Function() string { return c.function }

// Args are the arguments as they came. They must not be changed.
func (c *Context) Args() [][]byte { return c.args }

// Get reads a key of the public state. A key without a value gives nil.
func (c *Context) Get(key string) ([]byte, error) { return c.state("").Get(key) }

// GetMany reads several keys, in one exchange with the peer where that is possible.
func (c *Context) GetMany(keys ...string) ([][]byte, error) { return c.state("").GetMany(keys...) }

// GetJSON reads a key into a value. A key without a value is ErrNotFound.
func (c *Context) GetJSON(key string, into any) error { return c.state("").GetJSON(key, into) }

// Has tells whether a key has a value.
func (c *Context) Has(key string) (bool, error) { return c.state("").Has(key) }

// Put writes a key. The value must not be empty: peers would not tell it from none. Use Delete.
func (c *Context) Put(key string, value []byte) error { return c.state("").Put(key, value) }

// PutJSON writes a value as JSON.
func (c *Context) PutJSON(key string, value any) error { return c.state("").PutJSON(key, value) }

// Delete removes a key, whose history stays.
func (c *Context) Delete(key string) error { return c.state("").Delete(key) }

// Transient are data that came with the call and are not recorded in the transaction: the way in for private data.
func (c *Context) Transient() map[string][]byte { return c.call.Transient }

// TransientJSON decodes an entry of the transient data. Unknown fields are refused.
func (c *Context) TransientJSON(name string, into any) error {
	raw, ok := c.call.Transient[name]
	if !ok {
		return fmt.Errorf("transient data %q: %w", name, ErrNotFound)
	}
	if err := decodeJSON(raw, into); err != nil {
		return fmt.Errorf("transient data %q: %w", name, err)
	}
	if v, ok := into.(validator); ok {
		if err := v.Validate(); err != nil {
			return fmt.Errorf("transient data %q: %w", name, err)
		}
	}
	return nil
}

// Emit has the transaction carry an event, which listeners get when it commits. There is one: the last.
func (c *Context) Emit(name string, payload []byte) error {
	if c.readOnly {
		return ErrReadOnly
	}
	if name == "" {
		return errors.New("an event needs a name")
	}
	c.call.Event = &peerpb.ChaincodeEvent{EventName: name, Payload: payload}
	return nil
}

// EmitJSON emits a value as JSON.
func (c *Context) EmitJSON(name string, value any) error {
	payload, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("event %s: %w", name, err)
	}
	return c.Emit(name, payload)
}

// Invoke calls a function of another contract in this transaction and gives its result. On another channel, which may be named
// after a slash ("contract/channel"), the callee can only read. Its events are lost.
func (c *Context) Invoke(contract, function string, args ...string) ([]byte, error) {
	if contract == "" {
		return nil, errors.New("the name of the contract to invoke is empty")
	}
	raw := make([][]byte, 0, 1+len(args))
	raw = append(raw, []byte(function))
	for _, a := range args {
		raw = append(raw, []byte(a))
	}
	response, err := c.call.Ledger.Invoke(contract, raw)
	if err != nil {
		return nil, err
	}
	if response.Status >= 400 {
		return nil, fmt.Errorf("contract %s refused %s with status %d: %s", contract, function, response.Status, response.Message)
	}
	return response.Payload, nil
}

func (c *Context) state(collection string) *Collection { return &Collection{ctx: c, name: collection} }

const (
	// Composite keys live apart from plain ones: they start with this.
	compositeMark = "\x00"
	separator     = "\x00"
	lastRune      = string(utf8.MaxRune)
	// A range from the empty key starts here, after the composite keys.
	firstPlainKey = "\x01"
)

// CompositeKey joins an object's type and its attributes to a key. Ranges can be taken over any leading part of the attributes.
func CompositeKey(objectType string, attributes ...string) (string, error) {
	n := len(compositeMark) + len(objectType) + 1
	for _, a := range attributes {
		n += len(a) + 1
	}
	key := make([]byte, 0, n)
	key = append(key, compositeMark...)
	for i := -1; i < len(attributes); i++ {
		part := objectType
		if i >= 0 {
			part = attributes[i]
		}
		if !utf8.ValidString(part) {
			return "", fmt.Errorf("not a valid utf8 string: [%x]", part)
		}
		for at, r := range part {
			if r == 0 || r == utf8.MaxRune {
				return "", fmt.Errorf("input contains unicode %#U starting at position [%d]. %#U and %#U are not allowed in the input attribute of a composite key", r, at, 0, utf8.MaxRune)
			}
		}
		key = append(key, part...)
		key = append(key, separator...)
	}
	return string(key), nil
}

// SplitCompositeKey undoes CompositeKey.
func SplitCompositeKey(key string) (objectType string, attributes []string, err error) {
	if len(key) < 2 || key[0] != 0 || key[len(key)-1] != 0 {
		return "", nil, fmt.Errorf("%q is no composite key", key)
	}
	start := 1
	for i := 1; i < len(key); i++ {
		if key[i] != 0 {
			continue
		}
		if start == 1 {
			objectType = key[1:i]
		} else {
			attributes = append(attributes, key[start:i])
		}
		start = i + 1
	}
	return objectType, attributes, nil
}
