package bench

import (
	"errors"
	"fmt"

	"github.com/hansa-ledger/hansa/contract"
)

// asset is what the benchmark's contract keeps.
type asset struct {
	ID             string
	Color          string
	Size           int
	Owner          string
	AppraisedValue int
}

// NewContract is the contract that the workloads call: the functions of Fabric's
// asset-transfer-basic sample, so that other load clients can call it too.
func NewContract() *contract.Contract {
	c := contract.New("bench")
	c.Submit("CreateAsset", create, "id", "color", "size", "owner", "appraisedValue")
	c.Submit("TransferAsset", transfer, "id", "newOwner")
	c.Evaluate("ReadAsset", read, "id")
	c.Evaluate("AssetExists", func(ctx *contract.Context, id string) (bool, error) { return ctx.Has(id) }, "id")
	return c
}

func create(ctx *contract.Context, id, color string, size int, owner string, appraisedValue int) error {
	if taken, err := ctx.Has(id); err != nil {
		return err
	} else if taken {
		return fmt.Errorf("the asset %s already exists", id)
	}
	return ctx.PutJSON(id, asset{id, color, size, owner, appraisedValue})
}

func read(ctx *contract.Context, id string) (*asset, error) {
	var a asset
	err := ctx.GetJSON(id, &a)
	if errors.Is(err, contract.ErrNotFound) {
		return nil, fmt.Errorf("the asset %s does not exist", id)
	}
	return &a, err
}

func transfer(ctx *contract.Context, id, newOwner string) (previous string, err error) {
	a, err := read(ctx, id)
	if err != nil {
		return "", err
	}
	previous, a.Owner = a.Owner, newOwner
	return previous, ctx.PutJSON(id, a)
}
