package contract_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/hansa-ledger/hansa/contract"
	"github.com/hansa-ledger/hansa/contract/contracttest"
)

type Account struct {
	Owner   string `json:"owner"`
	Balance int    `json:"balance"`
}

func open(ctx *contract.Context, id string) (*Account, error) {
	client, err := ctx.Client()
	if err != nil {
		return nil, err
	}
	taken, err := ctx.Has(id)
	if err != nil {
		return nil, err
	}
	if taken {
		return nil, fmt.Errorf("account %s already exists", id)
	}
	account := &Account{Owner: client.MSPID}
	return account, ctx.PutJSON(id, account)
}

func deposit(ctx *contract.Context, id string, amount int) (*Account, error) {
	if amount <= 0 {
		return nil, errors.New("the amount must be positive")
	}
	var account Account
	if err := ctx.GetJSON(id, &account); err != nil {
		return nil, err
	}
	account.Balance += amount
	return &account, ctx.PutJSON(id, account)
}

// A contract and its test. A program that serves it calls contract.Run(ctx, accounts()).
func Example() {
	accounts := contract.New("accounts")
	accounts.Submit("Open", open, "id")
	accounts.Submit("Deposit", deposit, "id", "amount")

	// In a test, t is the test's.
	t := &testing.T{}
	l := contracttest.New(t)
	l.Deploy("accounts", accounts)
	ann := l.Client("Org1MSP", "ann", nil)
	for _, call := range [][]string{{"Open", "a1"}, {"Deposit", "a1", "5"}, {"Deposit", "a1", "ten"}, {"Open", "a1"}} {
		result, err := ann.Submit(call[0], call[1:]...)
		fmt.Printf("%q: %s %v\n", call, result, err)
	}
	// Output:
	// ["Open" "a1"]: {"owner":"Org1MSP","balance":0} <nil>
	// ["Deposit" "a1" "5"]: {"owner":"Org1MSP","balance":5} <nil>
	// ["Deposit" "a1" "ten"]:  argument amount of Deposit: "ten" is no int
	// ["Open" "a1"]:  account a1 already exists
}
