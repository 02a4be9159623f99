package contract

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/hansa-ledger/hansa/contract/internal/shim"
)

// Entry is a key and its value.
type Entry struct {
	Key   string
	Value []byte
}

// Page is a part of a query's results. Bookmark asks for the next part. It is empty after the last part of a range; a JSON query ends with a
// part that has no entries.
type Page struct {
	Entries  []Entry
	Bookmark string
}

// Change is a value that a key had.
type Change struct {
	TxID      string
	Timestamp time.Time
	Value     []byte
	IsDelete  bool
}

// Range visits the keys of the public state from start up to, without, end, in order. Empty ends are those of all plain keys; composite
// keys are apart. The transaction commits only if nobody changed the range in the meantime. An error ends the visit:
//
//	for entry, err := range ctx.Range("a", "b") {
//		if err != nil { return err }
//		...
//	}
func (c *Context) Range(start, end string) iter.Seq2[Entry, error] {
	return c.state("").Range(start, end)
}

// RangeComposite visits the composite keys that start with the given parts. See CompositeKey.
func (c *Context) RangeComposite(objectType string, attributes ...string) iter.Seq2[Entry, error] {
	return c.state("").RangeComposite(objectType, attributes...)
}

// RangePage gives the first size keys of a range, or those from a bookmark on. Only transactions that write nothing may use pages.
func (c *Context) RangePage(start, end string, size int, bookmark string) (*Page, error) {
	return c.page(size, bookmark, func(p shim.Page) (shim.Rows, error) { return c.state("").rangeOf(start, end, p) })
}

// RangeCompositePage is RangeComposite in pages.
func (c *Context) RangeCompositePage(size int, bookmark, objectType string, attributes ...string) (*Page, error) {
	return c.page(size, bookmark, func(p shim.Page) (shim.Rows, error) {
		return c.state("").compositeRange(p, objectType, attributes)
	})
}

// Query visits the values that a JSON query (a CouchDB selector) finds. Unlike ranges, results are not checked again when the transaction commits.
func (c *Context) Query(query string) iter.Seq2[Entry, error] { return c.state("").Query(query) }

// QueryPage is Query in pages.
func (c *Context) QueryPage(query string, size int, bookmark string) (*Page, error) {
	return c.page(size, bookmark, func(p shim.Page) (shim.Rows, error) { return c.call.Ledger.Query("", query, p) })
}

// History visits the values that a key had, newest first. Results are not checked again when the transaction commits.
func (c *Context) History(key string) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		changes, err := c.call.Ledger.History(key)
		if err != nil {
			yield(Change{}, err)
			return
		}
		defer changes.Close()
		for {
			m, err := changes.Next()
			if err != nil {
				yield(Change{}, err)
				return
			}
			if m == nil {
				return
			}
			change := Change{TxID: m.TxId, Value: m.Value, IsDelete: m.IsDelete}
			if m.Timestamp != nil {
				change.Timestamp = m.Timestamp.AsTime()
			}
			if !yield(change, nil) {
				return
			}
		}
	}
}

func (p *Collection) entries(open func() (shim.Rows, error)) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if p.name == noCollection {
			yield(Entry{}, errors.New("collection must not be an empty string"))
			return
		}
		rows, err := open()
		if err != nil {
			yield(Entry{}, err)
			return
		}
		// An error in closing loses nothing: the peer closes what a transaction left open.
		defer rows.Close()
		for {
			row, err := rows.Next()
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if row == nil || !yield(Entry{Key: row.Key, Value: row.Value}, nil) {
				return
			}
		}
	}
}

func (p *Collection) rangeOf(start, end string, page shim.Page) (shim.Rows, error) {
	if start == "" {
		start = firstPlainKey
	}
	for _, key := range []string{start, end} {
		if strings.HasPrefix(key, compositeMark) {
			return nil, fmt.Errorf("first character of the key [%s] contains a null character which is not allowed; use RangeComposite", key)
		}
	}
	return p.ctx.call.Ledger.Range(p.name, start, end, page)
}

func (p *Collection) compositeRange(page shim.Page, objectType string, attributes []string) (shim.Rows, error) {
	start, err := CompositeKey(objectType, attributes...)
	if err != nil {
		return nil, err
	}
	return p.ctx.call.Ledger.Range(p.name, start, start+lastRune, page)
}

func (c *Context) page(size int, bookmark string, open func(shim.Page) (shim.Rows, error)) (*Page, error) {
	const largest = 100_000 // what peers give for one query
	if size < 1 || size > largest {
		return nil, fmt.Errorf("page size %d must be between 1 and %d", size, largest)
	}
	rows, err := open(shim.Page{Size: int32(size), Bookmark: bookmark})
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	page := &Page{}
	for {
		row, err := rows.Next()
		if err != nil {
			return nil, err
		}
		if row == nil {
			page.Bookmark = rows.Bookmark()
			return page, nil
		}
		page.Entries = append(page.Entries, Entry{Key: row.Key, Value: row.Value})
	}
}
