// Package queries_test asks a stock Node contract, whose package holds indexes, for JSON queries on a whole network.
package queries_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/network"
)

func TestMain(m *testing.M) { network.Main(m) }

const collections = `[{"name":"details","policy":"OR('Org1MSP.member','Org2MSP.member')","requiredPeerCount":0,"maxPeerCount":1,"blockToLive":0,"memberOnlyRead":true}]`

func TestQueries(t *testing.T) {
	n := network.Start(t)
	file := filepath.Join(t.TempDir(), "collections.json")
	if err := os.WriteFile(file, []byte(collections), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Deploy("asset-node", "asset", "--collections", file)
	plan := n.Plan()
	c, err := plan.Client(plan.Members[0], "User1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	contract := c.Channel(plan.Channel).Contract("asset")
	submit := func(call client.Call) string {
		t.Helper()
		result, err := contract.Submit(ctx, call)
		if err != nil {
			t.Fatalf("%s: %v", call.Function, err)
		}
		return string(result)
	}
	evaluate := func(function string, args ...string) (string, error) {
		call := client.Strings(function, args...)
		call.Members = []string{"Org1MSP"}
		result, err := contract.Evaluate(ctx, call)
		return string(result), err
	}
	owners := []string{"Tom", "ann", "Ann", "tom", "Zoë"}
	for i := range 20 {
		submit(client.Strings("CreateAsset", fmt.Sprintf("a%02d", i), "red", fmt.Sprint(i%7), owners[i%len(owners)], "100"))
	}

	// Without an index CouchDB sorts nothing: that it is sorted shows that the package's index came.
	const sorted = `{"selector":{"Owner":{"$gt":null}},"sort":["Owner","Size"]}`
	n.Await("the index", func() error { _, err := evaluate("QueryAssets", sorted); return err })
	text, err := evaluate("QueryAssets", sorted)
	if err != nil {
		t.Fatal(err)
	}
	var assets []struct {
		ID, Owner string
		Size      int
	}
	if err := json.Unmarshal([]byte(text), &assets); err != nil {
		t.Fatal(err)
	}
	var order, ids []string
	for _, a := range assets {
		ids = append(ids, a.ID)
		if len(order) == 0 || order[len(order)-1] != a.Owner {
			order = append(order, a.Owner)
		}
	}
	if got := strings.Join(order, " "); got != "ann Ann tom Tom Zoë" || len(assets) != 20 {
		t.Errorf("%d assets by owner: %s", len(assets), got)
	}

	var pages []string
	for mark, size := "", 6; ; {
		text, err := evaluate("QueryAssetPage", sorted, fmt.Sprint(size), mark)
		if err != nil {
			t.Fatal(err)
		}
		var page struct {
			IDs      []string
			Count    int
			Bookmark string
		}
		if err := json.Unmarshal([]byte(text), &page); err != nil {
			t.Fatal(err)
		}
		if page.Count != len(page.IDs) || page.Count > size || page.Bookmark == "" {
			t.Fatalf("page %s", text)
		}
		if page.Count == 0 {
			break
		}
		pages, mark = append(pages, page.IDs...), page.Bookmark
	}
	if !slices.Equal(pages, ids) {
		t.Errorf("pages %q, all at once %q", pages, ids)
	}

	for query, want := range map[string]string{
		`{"selector":{"Owner":"ann","Size":{"$lt":3}},"fields":["ID"]}`:                                                `[{"ID":"a01"},{"ID":"a16"}]`,
		`{"selector":{"$or":[{"Size":6},{"ID":{"$regex":"^a1[89]$"}}],"Owner":{"$in":["Tom","Zoë"]}},"fields":["ID"]}`: `[{"ID":"a19"}]`,
		`{"selector":{"_id":{"$gte":"a18"}},"fields":["ID","Owner"]}`:                                                  `[{"ID":"a18","Owner":"tom"},{"ID":"a19","Owner":"Zoë"}]`,
	} {
		if got, err := evaluate("QueryAssets", query); err != nil || got != want {
			t.Errorf("%s: %s, %v\nwant %s", query, got, err, want)
		}
	}
	for query, want := range map[string]string{
		`{"selector":{"Owner":"Tom"},"sort":["Color"]}`: "No index exists for this sort, try indexing by the sort fields.",
		`{"selector":{"Owner":{"$what":1}}}`:            "Invalid operator: $what",
		`{"selector"`:                                   "unexpected EOF",
	} {
		if _, err := evaluate("QueryAssets", query); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", query, err, want)
		}
	}

	// Results of a query are read, and may be written.
	if got := submit(client.Strings("GiveAll", `{"selector":{"Owner":"Ann"}}`, "Bob")); got != "4" {
		t.Errorf("gave %s assets away", got)
	}
	if got, err := evaluate("QueryAssets", `{"selector":{"Owner":"Ann"}}`); err != nil || got != "[]" {
		t.Errorf("after all were given away: %s, %v", got, err)
	}

	for id, price := range map[string]int{"a01": 30, "a02": 10, "a03": 20} {
		call := client.Strings("PutDetails", id)
		call.Transient = map[string][]byte{"details": fmt.Appendf(nil, `{"price":%d}`, price)}
		submit(call)
	}
	const byPrice = `{"selector":{"price":{"$gt":5}},"sort":[{"price":"desc"}]}`
	n.Await("private data", func() error {
		got, err := evaluate("QueryDetails", byPrice)
		if err == nil && got != `["a01","a03","a02"]` {
			err = fmt.Errorf("details by price: %s", got)
		}
		return err
	})

	// A peer that was killed has its indexes again.
	n.Kill("peer0.org1")
	n.Await("the peer", func() error {
		got, err := evaluate("QueryAssets", `{"selector":{"Owner":{"$gt":"To"}},"sort":["Owner","Size"],"fields":["Owner"],"use_index":"indexOwnerDoc"}`)
		if err == nil && !strings.HasPrefix(got, `[{"Owner":"tom"},`) {
			err = fmt.Errorf("sorted %s", got)
		}
		return err
	})
}
