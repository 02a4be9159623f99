package contracttest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/hansa-ledger/hansa/contract/internal/shim"
	"github.com/hansa-ledger/hansa/internal/jsonquery"
	"github.com/hansa-ledger/hansa/internal/wire/queryresultpb"
)

// Index defines an index for JSON queries of the first contract, as a file of META-INF/statedb/couchdb/indexes in its package does; the
// collection is "" for the public state. As on a network, a query can sort only by what an index has.
func (l *Ledger) Index(collection, definition string) {
	l.t.Helper()
	x, err := jsonquery.ParseIndex([]byte(definition))
	if err != nil {
		l.t.Fatalf("index %s: %v", definition, err)
	}
	at := place{l.first, collection, ""}
	if l.first == "" {
		l.t.Fatalf("index %s: deploy the contract first", definition)
	}
	l.indexes[at] = append(l.indexes[at], x)
}

func (v *view) Query(collection, query string, page shim.Page) (shim.Rows, error) {
	const request = "GET_QUERY_RESULT"
	if err := v.collection(collection, true); err != nil {
		return nil, v.failed(request, err)
	}
	tx := v.tx
	paged := collection == "" && page != (shim.Page{})
	if (paged || collection != "") && len(tx.writes) > 0 {
		return nil, v.failed(request, errors.New("pages and queries of private data are supported only in a read-only transaction"))
	}
	rows, err := v.query(collection, query, page)
	if err != nil {
		return nil, v.failed(request, err)
	}
	tx.paged = tx.paged || paged
	tx.private = tx.private || collection != ""
	return rows, nil
}

// selected is a result with its place in the order of the results.
type selected struct {
	keyVersion
	order []byte
	value []byte
}

func (v *view) query(collection, text string, page shim.Page) (*queryRows, error) {
	q, err := jsonquery.Parse(text)
	if err != nil {
		return nil, err
	}
	plan, err := q.Plan(v.tx.ledger.indexes[place{v.contract, collection, ""}])
	if err != nil {
		return nil, err
	}
	mark := page.Bookmark
	if mark == "" {
		mark = q.Bookmark
	}
	rows := &queryRows{view: v, read: collection == "", bookmark: "nil"} // CouchDB's bookmark of no results
	var from []byte
	if mark != "" && mark != rows.bookmark {
		rows.bookmark = mark
		if from, err = base64.RawURLEncoding.DecodeString(mark); err != nil {
			return nil, &jsonquery.Error{Code: "invalid_bookmark", Reason: fmt.Sprintf("Invalid bookmark value: %.200q", mark)}
		}
	}
	if plan.Empty {
		return rows, nil
	}
	matcher, keyer := q.Matcher(), &jsonquery.Keyer{}
	for _, at := range v.tx.ledger.scan(v.contract, collection, "", "") {
		raw := v.tx.ledger.value(place{v.contract, collection, at.key})
		d, ok := jsonquery.ParseDocument(at.key, raw)
		if !ok || !matcher.Match(d) {
			continue
		}
		order := []byte(nil)
		if plan.Index != nil {
			if order, ok = keyer.Append(nil, plan.Index, d); !ok {
				continue
			}
		}
		one := selected{keyVersion: at, order: append(order, at.key...)}
		if one.value, err = q.Result(d, raw); err != nil {
			return nil, err
		}
		rows.left = append(rows.left, one)
	}
	slices.SortFunc(rows.left, func(a, b selected) int {
		if q.Descending {
			a, b = b, a
		}
		return bytes.Compare(a.order, b.order)
	})
	rows.left = slices.DeleteFunc(rows.left, func(s selected) bool {
		c := bytes.Compare(s.order, from)
		return len(from) > 0 && (c == 0 || c < 0 != q.Descending)
	})
	rows.left = rows.left[min(q.Skip, int64(len(rows.left))):]
	if page.Size > 0 && int64(page.Size) < int64(len(rows.left)) {
		rows.left = rows.left[:page.Size]
	}
	return rows, nil
}

// queryRows are results; each that is given counts as a key that was read, so that the transaction conflicts with one that changes it.
// What a query does not find is not protected, on a network neither.
type queryRows struct {
	view     *view
	read     bool
	left     []selected
	bookmark string
}

func (r *queryRows) Next() (*queryresultpb.KV, error) {
	if len(r.left) == 0 {
		return nil, nil
	}
	one := r.left[0]
	r.left = r.left[1:]
	r.bookmark = base64.RawURLEncoding.EncodeToString(one.order)
	if r.read {
		r.view.tx.reads[place{r.view.contract, "", one.key}] = one.version
	}
	return &queryresultpb.KV{Namespace: r.view.contract, Key: one.key, Value: slices.Clone(one.value)}, nil
}

func (r *queryRows) Bookmark() string { return r.bookmark }
func (r *queryRows) Close() error     { return nil }
