// Command shipment is a contract for freight: members create shipments, hand them to each other and deliver them, and everybody on the
// channel can follow where a shipment is and was. What it is worth and whom to call stay with the member who knows it, as private
// data; others can only check it. Nothing on the ledger names a person.
//
//	CHAINCODE_ID=shipment:... CHAINCODE_SERVER_ADDRESS=127.0.0.1:9999 go run .
//
// Files: main.go, shipment.go (what is kept, and its rules), functions.go (what members can do).
package main

import (
	"context"
	"log"
	"os/signal"
	"syscall"

	"github.com/hansa-ledger/hansa/contract"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := contract.Run(ctx, shipments()); err != nil {
		log.Fatal(err)
	}
}
