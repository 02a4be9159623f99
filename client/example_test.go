package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/hansa-ledger/hansa/client"
)

// A connection to a member's peer, as its user.
func Example() {
	user, err := client.LoadIdentity("Org1MSP", "hansa-network/crypto/peerOrganizations/org1.example.com/users/User1@org1.example.com/msp")
	if err != nil {
		log.Fatal(err)
	}
	roots, err := os.ReadFile("hansa-network/crypto/peerOrganizations/org1.example.com/tlsca/tlsca.org1.example.com-cert.pem")
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.Dial(client.Config{Endpoint: "localhost:7060", Identity: user, TLSRoots: roots})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	asset := c.Channel("business").Contract("asset")
	ctx := context.Background()
	if _, err := asset.Submit(ctx, client.Strings("CreateAsset", "asset1", "blue", "5", "Tomoko", "300")); err != nil {
		log.Fatal(err)
	}
	result, err := asset.Evaluate(ctx, client.Strings("ReadAsset", "asset1"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", result)
}

// Many transactions in flight: the ledger's answer is awaited later.
func ExampleContract_SubmitAsync() {
	var asset *client.Contract // as in the first example
	ctx := context.Background()
	var commits []*client.Commit
	for i := range 100 {
		commit, err := asset.SubmitAsync(ctx, client.Strings("CreateAsset", fmt.Sprint(i), "blue", "5", "Tomoko", "300"))
		if err != nil {
			log.Fatal(err)
		}
		commits = append(commits, commit)
	}
	for _, commit := range commits {
		status, err := commit.Status(ctx)
		if err == nil {
			err = status.Err()
		}
		if invalid := (*client.CommitError)(nil); errors.As(err, &invalid) {
			log.Printf("%s was ordered, but is invalid: %s", invalid.TxID, invalid.Code)
		} else if err != nil {
			log.Fatal(err)
		}
	}
}

// Personal data that must not enter the ledger, shown to named members only.
func ExampleContract_Submit_transient() {
	var deals *client.Contract // as in the first example
	call := client.Strings("Offer", "deal1")
	call.Transient = map[string][]byte{"price": []byte("300")}
	call.Members = []string{"Org1MSP"}
	_, err := deals.Submit(context.Background(), call)
	if failed := (*client.Error)(nil); errors.As(err, &failed) {
		for _, d := range failed.Details {
			log.Printf("%s of %s: %s", d.Address, d.MSPID, d.Message)
		}
	}
}

// Every event once, also over restarts.
func ExampleContract_Events() {
	var asset *client.Contract // as in the first example
	var from client.Checkpoint // loaded from where the application keeps its results
	for event, err := range asset.Events(context.Background(), from) {
		if err != nil {
			log.Fatal(err)
		}
		log.Printf("block %d: %s %s", event.Block, event.Name, event.Payload)
		from = client.After(event) // stored together with what came of the event
	}
}
