// Command vault is the contract of the tests of private data: one function for each thing that can be done with a collection.
package main

import (
	"context"
	"encoding/hex"
	"errors"
	"log"
	"os/signal"
	"syscall"

	"github.com/hansa-ledger/hansa/contract"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := contract.Run(ctx, vault()); err != nil {
		log.Fatal(err)
	}
}

func vault() *contract.Contract {
	c := contract.New("vault")
	c.Submit("Put", put, "collection", "key")
	c.Submit("Delete", func(ctx *contract.Context, collection, key string) error { return ctx.Private(collection).Delete(key) }, "collection", "key")
	c.Submit("Purge", func(ctx *contract.Context, collection, key string) error { return ctx.Private(collection).Purge(key) }, "collection", "key")
	c.Submit("Touch", func(ctx *contract.Context, key string) error { return ctx.Put(key, []byte("touched")) }, "key")
	c.Evaluate("Get", get, "collection", "key")
	c.Evaluate("Hash", hash, "collection", "key")
	return c
}

// put takes the value from the transient data, so that it is in no block.
func put(ctx *contract.Context, collection, key string) error {
	value := ctx.Transient()["value"]
	if len(value) == 0 {
		return errors.New("no value in the transient data")
	}
	return ctx.Private(collection).Put(key, value)
}

func get(ctx *contract.Context, collection, key string) (string, error) {
	value, err := ctx.Private(collection).Get(key)
	return string(value), err
}

func hash(ctx *contract.Context, collection, key string) (string, error) {
	value, err := ctx.Private(collection).Hash(key)
	return hex.EncodeToString(value), err
}
