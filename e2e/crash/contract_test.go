package crash_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
)

// A contract's process dies while it runs a transaction: that one fails, clearly, and the next ones do not.
func TestKillContractInMidTransaction(t *testing.T) {
	for _, example := range []string{"asset", "asset-node"} {
		t.Run(example, func(t *testing.T) {
			n := network.Start(t)
			n.Deploy(example, "asset")
			plan := n.Plan()
			c, err := plan.Client(plan.Members[0], "User1")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			contract := c.Channel(plan.Channel).Contract("asset")
			submit := func(id string) error {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				_, err := contract.Submit(ctx, client.Strings("CreateAsset", id, "red", "5", "Tom", "100"))
				return err
			}
			if err := submit("before"); err != nil {
				t.Fatal(err)
			}

			// A process that is stopped takes the transaction and does not answer.
			process := n.Status()["contract-asset-1"]
			if err := syscall.Kill(process.PID, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			operations := strings.TrimSuffix(n.Status()["peer0.org1"].Spec.Ready, "/readyz")
			received := proposals(t, operations)
			failed := make(chan error, 1)
			go func() { failed <- submit("during") }()
			n.Await("the proposal", func() error {
				if proposals(t, operations) == received {
					return fmt.Errorf("still %s", received)
				}
				return nil
			})
			n.Kill("contract-asset-1")
			err = <-failed
			if err == nil {
				t.Fatal("the transaction succeeded without its contract")
			}
			if !strings.Contains(err.Error(), "chaincode stream terminated") {
				t.Errorf("the transaction's error does not say what happened: %v", err)
			}

			n.Await("the contract", func() error { return submit("after") })
			for id, want := range map[string]string{"before": "true", "during": "false", "after": "true"} {
				got, err := contract.Evaluate(t.Context(), client.Strings("AssetExists", id))
				if err != nil || string(got) != want {
					t.Errorf("asset %q exists: %s, %v", id, got, err)
				}
			}
			takeOver(t, n) // of a contract's process too, whatever program runs it
			n.Await("the contract", func() error { return submit("later") })
		})
	}
}

// proposals reads from a peer's metrics how many proposals have come.
func proposals(t *testing.T, operations string) string {
	t.Helper()
	response, err := http.Get(operations + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "endorser_proposals_received "); ok {
			return value
		}
	}
	t.Fatal("the peer has no metric endorser_proposals_received")
	return ""
}
