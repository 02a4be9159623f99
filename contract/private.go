package contract

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/hansa-ledger/hansa/contract/internal/shim"
)

// Collection is state that only the members of a collection keep; everybody has its hashes. Its methods are those of Context.
type Collection struct {
	ctx  *Context
	name string // empty: the public state
}

// Private gives a collection of private data.
func (c *Context) Private(collection string) *Collection {
	if collection == "" {
		collection = noCollection
	}
	return c.state(collection)
}

// noCollection stands for a name that was forgotten, which must not mean the public state. No collection can have it.
const noCollection = "\x00"

// OrgCollection is the name of the collection that a member has for itself without having to define it.
func OrgCollection(mspID string) string { return "_implicit_org_" + mspID }

func (p *Collection) check(key string) error {
	if p.name == noCollection {
		return errors.New("collection must not be an empty string")
	}
	if key == "" {
		return errors.New("key must not be an empty string")
	}
	return nil
}

func (p *Collection) mayWrite(key string) error {
	if p.ctx.readOnly {
		return ErrReadOnly
	}
	return p.check(key)
}

// Get reads a key; nil if it has no value.
func (p *Collection) Get(key string) ([]byte, error) {
	if err := p.check(key); err != nil {
		return nil, err
	}
	return p.ctx.call.Ledger.Get(p.name, key)
}

// GetMany reads several keys.
func (p *Collection) GetMany(keys ...string) ([][]byte, error) {
	for _, key := range keys {
		if err := p.check(key); err != nil {
			return nil, err
		}
	}
	return p.ctx.call.Ledger.GetMany(p.name, keys)
}

// GetJSON reads a key into a value. A key without a value is ErrNotFound. Fields that the value does not have are ignored: newer
// versions of a contract read what older ones wrote.
func (p *Collection) GetJSON(key string, into any) error {
	raw, err := p.Get(key)
	if err != nil {
		return err
	}
	if len(raw) == 0 {
		return fmt.Errorf("%q: %w", key, ErrNotFound)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("value of %q: %w", key, err)
	}
	return nil
}

// Has tells whether a key has a value.
func (p *Collection) Has(key string) (bool, error) {
	value, err := p.Get(key)
	return len(value) > 0, err
}

// Hash gives the SHA-256 of a value, also to those who are not members of the collection.
func (p *Collection) Hash(key string) ([]byte, error) {
	if err := p.check(key); err != nil {
		return nil, err
	}
	return p.ctx.call.Ledger.Hash(p.name, key)
}

// Put writes a key.
func (p *Collection) Put(key string, value []byte) error {
	if err := p.mayWrite(key); err != nil {
		return err
	}
	if len(value) == 0 {
		return fmt.Errorf("value of %q must not be empty; use Delete", key)
	}
	return p.ctx.call.Ledger.Put(p.name, key, value)
}

// PutJSON writes a value as JSON.
func (p *Collection) PutJSON(key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("value of %q: %w", key, err)
	}
	return p.Put(key, raw)
}

// Delete removes a key.
func (p *Collection) Delete(key string) error {
	if err := p.mayWrite(key); err != nil {
		return err
	}
	return p.ctx.call.Ledger.Delete(p.name, key)
}

// Purge removes a key and all that was ever kept under it, on every member's peer.
func (p *Collection) Purge(key string) error {
	if err := p.mayWrite(key); err != nil {
		return err
	}
	return p.ctx.call.Ledger.Purge(p.name, key)
}

// Range visits the keys from start up to, without, end. See Context.Range.
func (p *Collection) Range(start, end string) iter.Seq2[Entry, error] {
	return p.entries(func() (shim.Rows, error) { return p.rangeOf(start, end, shim.Page{}) })
}

// RangeComposite visits the composite keys that start with the given parts.
func (p *Collection) RangeComposite(objectType string, attributes ...string) iter.Seq2[Entry, error] {
	return p.entries(func() (shim.Rows, error) { return p.compositeRange(shim.Page{}, objectType, attributes) })
}

// Query visits the results of a JSON query.
func (p *Collection) Query(query string) iter.Seq2[Entry, error] {
	return p.entries(func() (shim.Rows, error) { return p.ctx.call.Ledger.Query(p.name, query, shim.Page{}) })
}
