// Package client_test uses the Go client on a whole network, without stand-ins.
package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
)

func TestMain(m *testing.M) { network.Main(m) }

// connect is a member's user at the member's first peer.
func connect(t *testing.T, n *network.Network, member int) *client.Channel {
	t.Helper()
	plan := n.Plan()
	m := plan.Members[member]
	user, err := client.LoadIdentity(m.MSPID, plan.UserMSP(m, "User1"))
	must(t, err)
	roots, err := os.ReadFile(plan.TLSRoots(m))
	must(t, err)
	c, err := client.Dial(client.Config{Endpoint: m.Peers[0].Address(), Identity: user, TLSRoots: roots})
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c.Channel(plan.Channel)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(id string) client.Call {
	return client.Strings("CreateAsset", id, "blue", "5", "Tomoko", "300")
}

func TestClient(t *testing.T) {
	n := network.Start(t)
	n.Deploy("asset", "asset", "--policy", "AND('Org1MSP.peer','Org2MSP.peer')")
	n.Deploy("asset", "either", "--policy", "OR('Org1MSP.peer','Org2MSP.peer')")
	one, two := connect(t, n, 0).Contract("asset"), connect(t, n, 1).Contract("asset")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	t.Run("submit and evaluate", func(t *testing.T) {
		_, err := one.Submit(ctx, create("a"))
		must(t, err)
		result, err := two.Evaluate(ctx, client.Strings("ReadAsset", "a"))
		if err != nil { // the other member's peer may be a moment behind
			n.Await("the asset is read", func() error { result, err = two.Evaluate(ctx, client.Strings("ReadAsset", "a")); return err })
		}
		var asset struct{ Owner string }
		if err := json.Unmarshal(result, &asset); err != nil || asset.Owner != "Tomoko" {
			t.Errorf("read %s (%v)", result, err)
		}
	})
	t.Run("step by step", func(t *testing.T) {
		p, err := one.Propose(create("b"))
		must(t, err)
		tx, err := p.Endorse(ctx)
		must(t, err)
		commit, err := tx.Submit(ctx)
		must(t, err)
		if p.TxID() != tx.TxID() || tx.TxID() != commit.TxID() {
			t.Error("the steps have different transactions")
		}
		status, err := commit.Status(ctx)
		must(t, err)
		must(t, status.Err())
		again, err := connect(t, n, 1).Status(ctx, p.TxID())
		if err != nil || again != status {
			t.Errorf("the other member says %v, %v; not %v", again, err, status)
		}
	})
	t.Run("the contract refuses", func(t *testing.T) {
		_, err := one.Submit(ctx, client.Strings("TransferAsset", "none", "Max"))
		var failed *client.Error
		if !errors.As(err, &failed) || failed.Step != "endorse" || failed.Code != codes.Aborted || len(failed.Details) != 1 || !strings.Contains(failed.Details[0].Message, "does not exist") || failed.Details[0].MSPID != "Org1MSP" {
			t.Errorf("got %v", err)
		}
		_, err = one.Evaluate(ctx, client.Strings("ReadAsset", "none"))
		if !errors.As(err, &failed) || failed.Step != "evaluate" || failed.Code != codes.Unknown {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a contract or a member that is not there", func(t *testing.T) {
		nothing := connect(t, n, 0).Contract("nothing")
		_, err := nothing.Evaluate(ctx, client.Strings("f"))
		if err == nil || !strings.Contains(err.Error(), "no peers available to evaluate chaincode nothing in channel business") {
			t.Errorf("got %v", err)
		}
		_, err = nothing.Submit(ctx, client.Strings("f"))
		if err == nil || !strings.Contains(err.Error(), "no combination of peers can be derived which satisfy the endorsement policy: No metadata was found for chaincode nothing in channel business") {
			t.Errorf("got %v", err)
		}
		call := create("x")
		call.Members = []string{"Org1MSP", "Org9MSP"}
		_, err = one.Submit(ctx, call)
		if err == nil || !strings.Contains(err.Error(), "failed to find any endorsing peers for org(s): Org9MSP") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("too few endorsements are found invalid", func(t *testing.T) {
		call := create("c")
		call.Members = []string{"Org2MSP"}
		_, err := one.Submit(ctx, call)
		var invalid *client.CommitError
		if !errors.As(err, &invalid) || invalid.Code != "ENDORSEMENT_POLICY_FAILURE" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("two of one state: one is invalid", func(t *testing.T) {
		var commits []*client.Commit
		var txs []*client.Transaction
		for range 2 {
			p, err := one.Propose(create("d"))
			must(t, err)
			tx, err := p.Endorse(ctx)
			must(t, err)
			txs = append(txs, tx)
		}
		for _, tx := range txs {
			c, err := tx.Submit(ctx)
			must(t, err)
			commits = append(commits, c)
		}
		codes := map[string]int{}
		for _, c := range commits {
			status, err := c.Status(ctx)
			must(t, err)
			codes[status.Code]++
		}
		if codes["VALID"] != 1 || codes["MVCC_READ_CONFLICT"] != 1 {
			t.Errorf("got %v", codes)
		}
	})
	t.Run("events", func(t *testing.T) {
		n.Deploy("shipment", "shipment")
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		events(ctx, t, connect(t, n, 0).Contract("shipment"))
	})
	t.Run("a member's peer is down", func(t *testing.T) {
		either := connect(t, n, 0).Contract("either")
		n.Kill("peer0.org2")
		for i := range 20 {
			_, err := either.Submit(ctx, create(fmt.Sprint("e", i)))
			must(t, err)
		}
		n.AwaitReady()
		_, err := one.Submit(ctx, create("f"))
		must(t, err)
	})
}

const order = `{"id":%q,"receiver":"Org2MSP","goods":"frozen fish","pieces":120,"weightKg":2450.5,
	"origin":{"country":"NO","city":"Bergen","latitude":60.39,"longitude":5.32},
	"destination":{"country":"DE","city":"Lübeck","latitude":53.87,"longitude":10.69},"due":"2026-03-01T12:00:00Z"}`

// events stops in the middle and resumes behind the last event that it handled.
func events(ctx context.Context, t *testing.T, contract *client.Contract) {
	var want []string
	for i := range 4 {
		commit, err := contract.SubmitAsync(ctx, client.Strings("Create", fmt.Sprintf(order, fmt.Sprint("EVENT-", i))))
		must(t, err)
		want = append(want, commit.TxID())
	}
	at := client.From(0)
	got := map[string]bool{}
	for len(got) < len(want) {
		handled := 0
		for event, err := range contract.Events(ctx, at) {
			must(t, err)
			if got[event.TxID] || event.Name != "ShipmentCreated" || event.Contract != "shipment" || !strings.Contains(string(event.Payload), "Bergen") {
				t.Errorf("got %+v", event)
			}
			got[event.TxID] = true
			at = client.After(event)
			if handled++; handled == 2 || len(got) == len(want) {
				break
			}
		}
		if handled == 0 {
			t.Fatalf("no more events came after %d", len(got))
		}
	}
	for _, id := range want {
		if !got[id] {
			t.Errorf("no event of %s", id)
		}
	}
	// The end of the caller's time is no error.
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	for event, err := range contract.Events(short, client.Checkpoint{}) {
		t.Errorf("got %+v, %v", event, err)
	}
}
