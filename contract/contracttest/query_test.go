package contracttest_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/contract"
	"github.com/hansa-ledger/hansa/contract/contracttest"
)

// catalogue finds things by what they are.
func catalogue() *contract.Contract {
	c := contract.New("catalogue")
	c.Submit("Put", func(ctx *contract.Context, collection, key, value string) error {
		if collection != "" {
			return ctx.Private(collection).Put(key, []byte(value))
		}
		return ctx.Put(key, []byte(value))
	})
	find := func(ctx *contract.Context, collection, query string) (string, error) {
		found, results := []string{}, ctx.Query(query)
		if collection != "" {
			results = ctx.Private(collection).Query(query)
		}
		for e, err := range results {
			if err != nil {
				return "", err
			}
			found = append(found, e.Key+string(e.Value))
		}
		return strings.Join(found, " "), nil
	}
	c.Evaluate("Find", find)
	c.Submit("FindAndPut", func(ctx *contract.Context, collection, query, key string) error {
		found, err := find(ctx, collection, query)
		if err != nil {
			return err
		}
		return ctx.Put(key, []byte(found))
	})
	c.Submit("PutAndFind", func(ctx *contract.Context, collection, query, key string) (string, error) {
		if err := ctx.Put(key, []byte("{}")); err != nil {
			return "", err
		}
		return find(ctx, collection, query)
	})
	c.Evaluate("Page", func(ctx *contract.Context, query string, size int, bookmark string) ([]string, error) {
		page, err := ctx.QueryPage(query, size, bookmark)
		if err != nil {
			return nil, err
		}
		keys := []string{page.Bookmark}
		for _, e := range page.Entries {
			keys = append(keys, e.Key)
		}
		return keys, nil
	})
	return c
}

func TestQueries(t *testing.T) {
	l := contracttest.New(t)
	l.Deploy("catalogue", catalogue())
	l.Collection("secrets", "Org1MSP")
	ann := l.Client("Org1MSP", "ann", nil)
	for i, color := range []string{"red", "Blue", "red", "green", "red"} {
		must(t, ann, "Put", "", fmt.Sprint("k", i), fmt.Sprintf(`{"color":%q,"size":%d}`, color, 9-i))
	}
	must(t, ann, "Put", "", "text", "no document")
	must(t, ann, "Put", "secrets", "s1", `{"color":"red"}`)
	find := func(collection, query, want string) {
		t.Helper()
		got, err := ann.Evaluate("Find", collection, query)
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v, want %q", query, got, err, want)
		}
	}
	find("", `{"selector":{"color":"red"},"fields":["size"]}`, `k0{"size":9} k2{"size":7} k4{"size":5}`)
	find("", `{"selector":{"size":{"$lt":6}}}`, `k4{"color":"red","size":5}`)
	find("", `{"selector":{"color":"red"},"skip":2,"limit":1,"fields":["size"]}`, `k4{"size":5}`)
	find("", `{"selector":{"color":"violet"}}`, ``)
	find("secrets", `{"selector":{"color":"red"}}`, `s1{"color":"red"}`)

	sorted := `{"selector":{"color":{"$gt":null}},"sort":["color","size"],"fields":["size"]}`
	refuse := func(want string, call ...string) {
		t.Helper()
		if _, err := ann.Submit(call[0], call[1:]...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", call, err, want)
		}
	}
	refuse("no_usable_index", "Find", "", sorted)
	l.Index("", `{"index":{"fields":["color","size"]},"ddoc":"d","name":"n","type":"json"}`)
	find("", sorted, `k1{"size":8} k3{"size":6} k4{"size":5} k2{"size":7} k0{"size":9}`)
	find("", strings.Replace(sorted, `["color","size"]`, `[{"color":"desc"},{"size":"desc"}]`, 1), `k0{"size":9} k2{"size":7} k4{"size":5} k3{"size":6} k1{"size":8}`)
	refuse("no_usable_index", "Find", "secrets", sorted) // an index is of one collection

	refuse("invalid_operator", "Find", "", `{"selector":{"a":{"$nothing":2}}}`)
	refuse("Missing required key: selector", "Find", "", `{}`)
	refuse("GET_QUERY_RESULT failed: transaction ID: ", "Find", "", `nonsense`)
	refuse("could not be found", "Find", "nosuch", sorted)
	refuse("writes are not allowed", "FindAndPut", "secrets", `{"selector":{}}`, "x")
	refuse("only in a read-only transaction", "PutAndFind", "secrets", `{"selector":{}}`, "x")
	must(t, ann, "PutAndFind", "", `{"selector":{}}`, "x")
	if _, err := l.Client("Org2MSP", "bob", nil).Evaluate("Find", "secrets", `{"selector":{}}`); err == nil {
		t.Error("a client of another member queried a collection that is not its")
	}
}

func TestQueryPages(t *testing.T) {
	l := contracttest.New(t)
	l.Deploy("catalogue", catalogue())
	l.Index("", `{"index":{"fields":["n"]},"name":"n"}`)
	ann := l.Client("Org1MSP", "ann", nil)
	for i := range 7 {
		must(t, ann, "Put", "", fmt.Sprint("k", i), fmt.Sprintf(`{"n":%d}`, 6-i))
	}
	for query, want := range map[string]string{
		`{"selector":{"n":{"$gt":0}},"sort":["n"]}`:          "k5 k4 k3 k2 k1 k0",
		`{"selector":{"n":{"$gt":0}},"sort":[{"n":"desc"}]}`: "k0 k1 k2 k3 k4 k5",
		`{"selector":{}}`: "k0 k1 k2 k3 k4 k5 k6",
	} {
		for size := 1; size <= 8; size++ {
			var got []string
			for bookmark := ""; ; {
				raw, err := ann.Evaluate("Page", query, strconv.Itoa(size), bookmark)
				if err != nil {
					t.Fatal(err)
				}
				keys := strings.Split(strings.Trim(strings.ReplaceAll(string(raw), `"`, ""), "[]"), ",")
				if len(keys) == 1 {
					if bookmark != keys[0] {
						t.Errorf("an empty page has bookmark %q, asked was %q", keys[0], bookmark)
					}
					break
				}
				bookmark, got = keys[0], append(got, keys[1:]...)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s in pages of %d: %s, want %s", query, size, got, want)
			}
		}
	}
	if _, err := ann.Evaluate("Page", `{"selector":{}}`, "2", "~~~"); err == nil || !strings.Contains(err.Error(), "invalid_bookmark") {
		t.Errorf("nonsense for a bookmark: %v", err)
	}
}

// A query conflicts with whoever changes what it found, and with nobody who adds to it.
func TestQueryConflicts(t *testing.T) {
	for change, conflict := range map[string]bool{"k0": true, "k9": false} {
		l := contracttest.New(t)
		l.Deploy("catalogue", catalogue())
		ann := l.Client("Org1MSP", "ann", nil)
		must(t, ann, "Put", "", "k0", `{"color":"red"}`)
		tx, err := ann.Simulate("FindAndPut", "", `{"selector":{"color":"red"}}`, "found")
		if err != nil {
			t.Fatal(err)
		}
		must(t, ann, "Put", "", change, `{"color":"red","new":1}`)
		if err := tx.Commit(); (err != nil) != conflict {
			t.Errorf("changed %s meanwhile: %v", change, err)
		}
	}
}
