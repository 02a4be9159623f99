// Command asset is a small contract: assets with an owner. It has the functions of Fabric's asset-transfer-basic sample that load clients
// call, and its speed is what such clients measure.
//
//	CHAINCODE_ID=asset:... CHAINCODE_SERVER_ADDRESS=127.0.0.1:9999 go run .
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os/signal"
	"syscall"

	"github.com/hansa-ledger/hansa/contract"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := contract.Run(ctx, assets()); err != nil {
		log.Fatal(err)
	}
}

// Asset is what is kept under an asset's id.
type Asset struct {
	ID             string
	Color          string
	Size           int
	Owner          string
	AppraisedValue int
}

func assets() *contract.Contract {
	c := contract.New("asset")
	c.Submit("CreateAsset", create, "id", "color", "size", "owner", "appraisedValue")
	c.Submit("TransferAsset", transfer, "id", "newOwner")
	c.Evaluate("ReadAsset", read, "id")
	c.Evaluate("AssetExists", exists, "id")
	c.Evaluate("GetAllAssets", all)
	return c
}

func create(ctx *contract.Context, id, color string, size int, owner string, appraisedValue int) error {
	taken, err := ctx.Has(id)
	if err != nil {
		return err
	}
	if taken {
		return fmt.Errorf("the asset %s already exists", id)
	}
	return ctx.PutJSON(id, Asset{ID: id, Color: color, Size: size, Owner: owner, AppraisedValue: appraisedValue})
}

// transfer gives the owner before.
func transfer(ctx *contract.Context, id, newOwner string) (string, error) {
	asset, err := read(ctx, id)
	if err != nil {
		return "", err
	}
	before := asset.Owner
	asset.Owner = newOwner
	return before, ctx.PutJSON(id, asset)
}

func read(ctx *contract.Context, id string) (*Asset, error) {
	var asset Asset
	err := ctx.GetJSON(id, &asset)
	if errors.Is(err, contract.ErrNotFound) {
		return nil, fmt.Errorf("the asset %s does not exist", id)
	}
	return &asset, err
}

func exists(ctx *contract.Context, id string) (bool, error) { return ctx.Has(id) }

func all(ctx *contract.Context) ([]json.RawMessage, error) {
	var values []json.RawMessage
	for entry, err := range ctx.Range("", "") {
		if err != nil {
			return nil, err
		}
		values = append(values, entry.Value)
	}
	return values, nil
}
