// Package register is the contract of the fault harness: registers that are read, written, swapped and created, one key each.
package register

import (
	"fmt"

	"github.com/hansa-ledger/hansa/contract"
	"github.com/hansa-ledger/hansa/e2e/faults/check"
)

// New is the contract. What its functions answer is specified in package check.
func New(name string) *contract.Contract {
	c := contract.New(name)
	c.Submit("Read", func(ctx *contract.Context, key string) (string, error) {
		value, err := ctx.Get(key)
		return string(value), err
	}, "key")
	c.Submit("Write", func(ctx *contract.Context, key, value string) error { return ctx.Put(key, []byte(value)) }, "key", "value")
	c.Submit("Swap", swap, "key", "old", "value")
	c.Submit("Create", create, "key", "value")
	c.Evaluate("Dump", dump, "start", "end")
	return c
}

func swap(ctx *contract.Context, key, old, value string) (string, error) {
	held, err := ctx.Get(key)
	if err != nil || string(held) != old {
		return string(held), err
	}
	return check.Swapped, ctx.Put(key, []byte(value))
}

func create(ctx *contract.Context, key, value string) error {
	if exists, err := ctx.Has(key); err != nil || exists {
		return fmt.Errorf("%s exists: %v", key, err)
	}
	return ctx.Put(key, []byte(value))
}

// dump is all that one peer holds in a range.
func dump(ctx *contract.Context, start, end string) (map[string]string, error) {
	all := map[string]string{}
	for entry, err := range ctx.Range(start, end) {
		if err != nil {
			return nil, err
		}
		all[entry.Key] = string(entry.Value)
	}
	return all, nil
}
