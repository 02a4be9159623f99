package jsonindex

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/hansa-ledger/hansa/internal/jsonquery"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/statedb"
)

// Results walk over what a query selects. They are used by one goroutine and must be closed.
type Results struct {
	// Warning says what is not as it should be with the query, "" for nothing. Close adds what is seen in the end.
	Warning string
	// Closed is called by Close, if it is set.
	Closed func(warning string)

	query   *jsonquery.Query
	matcher *jsonquery.Matcher
	reader  pebble.Reader
	from    Source
	index   *index           // nil: the walk is over the documents themselves
	it      *pebble.Iterator // nil if there is nothing to find
	base    int              // length of the prefix of its keys
	started bool
	skip    int64
	last    string // the bookmark
	ended   bool
	stop    func() bool
	looked  int // documents
	given   int
}

// scanRatio is how many documents CouchDB looks at for one result before it warns.
const scanRatio = 10

const scanWarning = "The number of documents examined is high in proportion to the number of results returned. Consider adding a more specific index to improve this."

// Query opens a query on the documents of a place. The reader is a snapshot, or the database. A bookmark overrides that of the query.
func Query(r pebble.Reader, p rwset.Place, from Source, q *jsonquery.Query, bookmark string) (*Results, error) {
	all, err := complete(r, p)
	if err != nil {
		return nil, err
	}
	if bookmark == "" || bookmark == noBookmark {
		bookmark = q.Bookmark
	}
	mark, err := parseBookmark(bookmark)
	if err != nil {
		return nil, err
	}
	plan, err := q.Plan(candidates(all, mark))
	if err != nil {
		return nil, err
	}
	res := &Results{Warning: plan.Warning, query: q, matcher: q.Matcher(), reader: r, from: from, skip: q.Skip, last: bookmark}
	if bookmark == "" {
		res.last = noBookmark
	}
	for _, x := range all {
		if plan.Index == x.Index {
			res.index = x
		}
	}
	if mark != nil && !mark.of(res.index) {
		return nil, badBookmark(bookmark)
	}
	if plan.Empty {
		return res, nil
	}
	base := from.Prefix
	if res.index != nil {
		base = res.index.entryPrefix(nil)
	}
	res.base = len(base)
	lower, upper := limits(base, plan, res.index != nil)
	if mark != nil {
		at := slices.Concat(base, mark.position)
		if q.Descending {
			upper = minKey(upper, at)
		} else {
			lower = maxKey(lower, append(at, 0))
		}
	}
	if string(lower) >= string(upper) {
		return res, nil
	}
	if res.it, err = r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper}); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	return res, nil
}

// complete reads the indexes of a place that can be used.
func complete(r pebble.Reader, p rwset.Place) ([]*index, error) {
	prefix := definitionPrefix(p)
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: statedb.PrefixEnd(prefix)})
	if err != nil {
		return nil, fmt.Errorf("read indexes: %w", err)
	}
	defer it.Close()
	var all []*index
	for it.First(); it.Valid(); it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return nil, fmt.Errorf("read indexes: %w", err)
		}
		one, err := decodeDefinition(p, it.Key()[len(prefix):], v)
		if err != nil {
			return nil, err
		}
		if one.ready {
			all = append(all, one)
		}
	}
	return all, it.Error()
}

// candidates are the indexes to choose from: the query goes on where its bookmark is, whatever has been added since.
func candidates(all []*index, m *mark) []*jsonquery.Index {
	var out []*jsonquery.Index
	for _, x := range all {
		if m == nil || m.of(x) {
			out = append(out, x.Index)
		}
	}
	return out
}

// limits translates the bounds of a plan.
func limits(base []byte, plan *jsonquery.Plan, indexed bool) (lower, upper []byte) {
	lower, upper = base, statedb.PrefixEnd(base)
	if plan.Low.Key != nil {
		lower = slices.Concat(base, plan.Low.Key)
		if indexed && !plan.Low.Inclusive {
			lower = statedb.PrefixEnd(lower)
		}
	}
	if plan.High.Key != nil {
		upper = slices.Concat(base, plan.High.Key)
		switch {
		case indexed && plan.High.Inclusive:
			upper = statedb.PrefixEnd(upper)
		case !indexed:
			upper = append(upper, 0)
		}
	}
	return lower, upper
}

func minKey(a, b []byte) []byte {
	if string(b) < string(a) {
		return b
	}
	return a
}

func maxKey(a, b []byte) []byte {
	if string(b) > string(a) {
		return b
	}
	return a
}

// StopWhen makes Next fail while it looks for a result, soon after the function says so: to look may take long without an index.
func (r *Results) StopWhen(stop func() bool) { r.stop = stop }

// lookEvery is the number of documents between two questions whether to stop.
const lookEvery = 256

// ErrStopped is given by Next when it was stopped.
var ErrStopped = errors.New("the query was stopped: the transaction is over; a query without an index that fits it reads all documents")

// Next gives the next result: the key, and the value as it is stored or as the query's fields make it. ok is false at the end.
func (r *Results) Next() (key string, v *rwset.VersionedValue, ok bool, err error) {
	for r.it != nil && !r.ended && r.advance() {
		if r.looked++; r.stop != nil && r.looked%lookEvery == 0 && r.stop() {
			return "", nil, false, ErrStopped
		}
		key, v, ok, err = r.current()
		if err != nil {
			return "", nil, false, fmt.Errorf("query: %w", err)
		}
		if !ok {
			continue
		}
		if r.skip > 0 {
			r.skip--
			continue
		}
		r.mark()
		r.given++
		return key, v, true, nil
	}
	r.ended = true
	if r.it != nil {
		if err := r.it.Error(); err != nil {
			return "", nil, false, fmt.Errorf("query: %w", err)
		}
	}
	return "", nil, false, nil
}

func (r *Results) advance() bool {
	switch {
	case r.started && r.query.Descending:
		return r.it.Prev()
	case r.started:
		return r.it.Next()
	}
	r.started = true
	if r.query.Descending {
		return r.it.Last()
	}
	return r.it.First()
}

// current reads the document that the walk is at; false if it is not selected.
func (r *Results) current() (string, *rwset.VersionedValue, bool, error) {
	stored, err := r.it.ValueAndErr()
	if err != nil {
		return "", nil, false, err
	}
	key := ""
	if r.index == nil {
		key = string(r.it.Key()[r.base:])
	} else {
		key = string(stored)
		found, closer, err := r.reader.Get(slices.Concat(r.from.Prefix, stored))
		if err != nil {
			return "", nil, false, fmt.Errorf("index %s/%s names the missing document %q: %w", r.index.Design, r.index.Name, key, err)
		}
		defer closer.Close()
		stored = found
	}
	v, err := r.from.Decode(stored)
	if err != nil {
		return "", nil, false, fmt.Errorf("document %q: %w", key, err)
	}
	d, ok := jsonquery.ParseDocument(key, v.Value)
	if !ok || !r.matcher.Match(d) {
		return "", nil, false, nil
	}
	if r.skip > 0 {
		return key, nil, true, nil
	}
	value, err := r.query.Result(d, v.Value)
	if err != nil {
		return "", nil, false, err
	}
	return key, &rwset.VersionedValue{Value: slices.Clone(value), Metadata: slices.Clone(v.Metadata), Version: v.Version}, true, nil
}

// Bookmark is where the query goes on behind the last result that Next gave.
func (r *Results) Bookmark() string { return r.last }

// Close frees the results.
func (r *Results) Close() error {
	r.ended = true
	if closed := r.Closed; closed != nil {
		r.Closed = nil
		if r.looked > scanRatio*max(r.given, 1) {
			r.Warning = strings.TrimPrefix(r.Warning+"\n"+scanWarning, "\n")
		}
		closed(r.Warning)
	}
	if r.it == nil {
		return nil
	}
	err := r.it.Close()
	r.it = nil
	return err
}

// noBookmark is what CouchDB gives for no results at all.
const noBookmark = "nil"

// mark is a decoded bookmark: a position in an index, or with no design document one among the documents. It names no numbers: the
// next page may be another peer's, or come after the indexes were made again.
type mark struct {
	design, name string
	position     []byte
}

const markFormat = 1

func (r *Results) mark() {
	b := []byte{markFormat}
	design, name := "", ""
	if r.index != nil {
		design, name = r.index.Design, r.index.Name
	}
	for _, s := range []string{design, name} {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	r.last = base64.RawURLEncoding.EncodeToString(append(b, r.it.Key()[r.base:]...))
}

func badBookmark(text string) error {
	return &jsonquery.Error{Code: "invalid_bookmark", Reason: fmt.Sprintf("Invalid bookmark value: %.200q", text)}
}

func parseBookmark(text string) (*mark, error) {
	if text == "" {
		return nil, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) == 0 || b[0] != markFormat {
		return nil, badBookmark(text)
	}
	b = b[1:]
	m := &mark{}
	for _, s := range []*string{&m.design, &m.name} {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			return nil, badBookmark(text)
		}
		*s, b = string(b[size:size+int(n)]), b[size+int(n):]
	}
	m.position = b
	return m, nil
}

// of tells whether the mark is a position in an index, which may be nil.
func (m *mark) of(x *index) bool {
	if x == nil {
		return m.design == ""
	}
	return m.design == x.Design && m.name == x.Name
}
