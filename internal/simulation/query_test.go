package simulation_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/simulation"
)

// documents is a snapshot that answers every JSON query with the rows that the query lists, from behind the bookmark.
type documents struct{ snapshot }

func (documents) Query(ns, coll, query, bookmark string) (simulation.DocumentIterator, error) {
	if query == "bad" {
		return nil, errors.New("error handling CouchDB request")
	}
	rows := strings.Fields(query)
	if bookmark != "" {
		for rows[0] != bookmark {
			rows = rows[1:]
		}
		rows = rows[1:]
	}
	return &documentRows{rows: rows, last: bookmark}, nil
}

type documentRows struct {
	rows []string
	last string
}

func (d *documentRows) Next() (string, *rwset.VersionedValue, bool, error) {
	if len(d.rows) == 0 {
		return "", nil, false, nil
	}
	d.last, d.rows = d.rows[0], d.rows[1:]
	return d.last, &rwset.VersionedValue{Value: []byte("{}"), Version: rwset.Version{Block: 9, Tx: uint64(len(d.last))}}, true, nil
}

func (d *documentRows) Bookmark() string     { return d.last }
func (d *documentRows) StopWhen(func() bool) {}
func (d *documentRows) Close() error         { return nil }

// TestQueryReads checks that what a JSON query gives becomes part of the read set as single reads, and what it does not give does not.
func TestQueryReads(t *testing.T) {
	sim := simulation.New(config(documents{golden(t, 32)}))
	defer sim.Close()
	c := sim.Contract("basic", false)
	q, err := c.Query("", "a bb ccc")
	must(t, err)
	for range 2 {
		_, _, ok, err := q.Next()
		must(t, err)
		if !ok {
			t.Fatal("no result")
		}
	}
	q.Close()
	if _, err := c.Query("", "bad"); err == nil || err.Error() != "error handling CouchDB request" {
		t.Errorf("a bad query: %v", err)
	}
	must(t, c.Put("", "k", []byte("v"))) // a query is no obstacle
	if _, err := c.QueryPage("a", "", 1); err == nil || !strings.Contains(err.Error(), "Paginated queries are supported only in a read-only transaction") {
		t.Errorf("a page after a write: %v", err)
	}
	if _, err := sim.Contract("pvt", false).Query("collAB", "a"); err == nil || !strings.Contains(err.Error(), "Queries on pvt data is supported only in a read-only transaction") {
		t.Errorf("a private query after a write: %v", err)
	}
	results, err := sim.Results()
	must(t, err)
	set, err := rwset.Parse(results.Public)
	must(t, err)
	for _, n := range set.Namespaces {
		if n.Name != "basic" {
			continue
		}
		got := ""
		for _, r := range n.KV.Reads {
			got += fmt.Sprintf("%s@%d.%d ", r.Key, r.Version.BlockNum, r.Version.TxNum)
		}
		if got != "a@9.1 bb@9.2 " || len(n.KV.RangeQueriesInfo) != 0 {
			t.Errorf("reads %s, ranges %v", got, n.KV.RangeQueriesInfo)
		}
	}
}

func TestQueryPages(t *testing.T) {
	sim := simulation.New(config(documents{golden(t, 32)}))
	defer sim.Close()
	c := sim.Contract("pvt", false)
	var pages []string
	for mark := ""; ; {
		q, err := c.QueryPage("a b c d e", mark, 2)
		must(t, err)
		page := ""
		for {
			key, _, ok, err := q.Next()
			must(t, err)
			if !ok {
				break
			}
			page += key
		}
		next := q.Bookmark()
		if page == "" {
			if next != mark {
				t.Errorf("the bookmark of an empty page is %q", next)
			}
			break
		}
		pages, mark = append(pages, page), next
	}
	if got := strings.Join(pages, " "); got != "ab cd e" {
		t.Errorf("pages %s", got)
	}
	if err := c.Put("", "k", []byte("v")); err == nil || !strings.Contains(err.Error(), "already performed a paginated query") {
		t.Errorf("a write after a page: %v", err)
	}
	private, err := c.Query("collAB", "a b")
	must(t, err)
	_, _, _, err = private.Next()
	must(t, err)
	if err := c.Put("collAB", "k", []byte("v")); err == nil || !strings.Contains(err.Error(), "already performed queries on pvt data") {
		t.Errorf("a write after a private query: %v", err)
	}
	results, err := sim.Results()
	must(t, err)
	set, err := rwset.Parse(results.Public)
	must(t, err)
	for _, n := range set.Namespaces {
		if n.Name == "pvt" && (len(n.Collections) > 0 || len(n.KV.Reads) != 5) {
			t.Errorf("recorded %v %v", n.KV.Reads, n.Collections)
		}
	}
}
