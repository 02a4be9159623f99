package jsonquery

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Bounds of definitions of indexes.
const (
	// MaxDefinition is the size of one.
	MaxDefinition = 64 << 10
	maxColumns    = 32
)

// Index is a definition of an index: a file of META-INF/statedb/couchdb/indexes in a contract's package. It is not changed by use.
type Index struct {
	// Design and Name name it; Design is without "_design/".
	Design, Name string
	// Fields are its columns. A document is in the index if it has all of them, and meets the partial filter if there is one.
	Fields []string

	paths  [][]string
	filter *condition
}

// ParseIndex reads a definition. What Fabric refuses when a contract is packaged and what CouchDB refuses when the index is made is
// refused here.
func ParseIndex(raw []byte) (*Index, error) {
	if len(raw) > MaxDefinition {
		return nil, fmt.Errorf("index definition of %d bytes is larger than the %d that are accepted", len(raw), MaxDefinition)
	}
	root, err := parseJSON(string(raw), maxQueryDepth)
	if err != nil || root.kind != kindObject {
		return nil, fmt.Errorf("index definition is not a JSON object")
	}
	x := &Index{}
	var index *value
	for _, m := range root.sorted() {
		switch v := &m.value; m.name {
		case "index":
			if index = v; v.kind != kindObject {
				return nil, fmt.Errorf(`invalid entry, "index" must be a JSON`)
			}
		case "ddoc", "name":
			if v.kind != kindString || v.string() == "" || strings.Contains(v.string(), "\x00") {
				return nil, fmt.Errorf("invalid entry, %q must be a string", m.name)
			}
			if m.name == "name" {
				x.Name = v.string()
			} else {
				x.Design = strings.TrimPrefix(v.string(), "_design/")
			}
		case "type":
			if v.kind != kindString || v.string() != "json" {
				return nil, fmt.Errorf("index type must be json")
			}
		default:
			return nil, fmt.Errorf("invalid entry %s", m.name)
		}
	}
	if index == nil {
		return nil, fmt.Errorf(`index definition must include an "index" with "fields"`)
	}
	if err := x.parse(index); err != nil {
		return nil, err
	}
	// CouchDB makes up names as well, others.
	sum := sha1.Sum([]byte(root.raw))
	x.Design, x.Name = cmp.Or(x.Design, hex.EncodeToString(sum[:])), cmp.Or(x.Name, hex.EncodeToString(sum[:]))
	return x, nil
}

func (x *Index) parse(index *value) error {
	for _, m := range index.sorted() {
		switch v := &m.value; m.name {
		case "fields":
			var err error
			if x.Fields, _, err = parseSort(v); err != nil {
				return err
			}
		case "partial_filter_selector":
			if v.kind != kindObject {
				return fmt.Errorf("partial_filter_selector must be a JSON object")
			}
			var err error
			if x.filter, err = normalize(v); err != nil {
				return err
			}
		default:
			return fmt.Errorf("invalid entry %s", m.name)
		}
	}
	if len(x.Fields) == 0 || len(x.Fields) > maxColumns {
		return fmt.Errorf("an index has between 1 and %d fields, this one %d", maxColumns, len(x.Fields))
	}
	for _, f := range x.Fields {
		path, err := parsePath(f)
		if err != nil {
			return err
		}
		x.paths = append(x.paths, path)
	}
	return nil
}

// Keyer makes the order keys by which documents stand in indexes. It belongs to one goroutine.
type Keyer struct{ m Matcher }

// Append appends the order keys of a document's indexed fields; false if the document is not in the index.
func (k *Keyer) Append(b []byte, x *Index, d *Document) ([]byte, bool) {
	start := len(b)
	for _, path := range x.paths {
		v, _ := d.found(path)
		if v == nil {
			return b[:start], false
		}
		b = k.m.order.appendKey(b, v)
	}
	if x.filter != nil && !k.m.document(x.filter, d) {
		return b[:start], false
	}
	return b, true
}

// Bound is one end of what a query has to read.
type Bound struct {
	Key       []byte // nil: open
	Inclusive bool
}

// Plan is how a query is to be answered.
type Plan struct {
	// Index is the one to walk; nil to walk over all documents by key.
	Index *Index
	// Low and High bound the walk. In an index they are beginnings of its order keys: an inclusive bound has in it all that begin so, an
	// exclusive one none. Without index they are keys of documents.
	Low, High Bound
	// Empty: nothing can be found.
	Empty bool
	// Warning is what CouchDB warns of.
	Warning string
}

// Plan chooses among the indexes that there are. It fails if the query is to be sorted and no index does it.
func (q *Query) Plan(indexes []*Index) (*Plan, error) {
	var usable, wanted []*Index
	for _, x := range indexes {
		chosen := q.chose(x)
		if !q.usable(x) || x.filter != nil && !chosen {
			continue
		}
		usable = append(usable, x)
		if chosen {
			wanted = append(wanted, x)
		}
	}
	ranges, empty := q.ranges()
	// CouchDB answers a selector that is nothing but a list of no conditions with nothing.
	p := &Plan{Empty: empty || q.selector != nil && (q.selector.op == opAnd || q.selector.op == opOr) && len(q.selector.subs) == 0}
	if len(q.useIndex) > 0 && len(wanted) == 0 {
		p.Warning = fmt.Sprintf("_design/%s was not used because it does not contain a valid index for this query.", q.useIndex[0])
		if len(q.useIndex) > 1 {
			p.Warning = fmt.Sprintf("_design/%s, %s was not used because it is not a valid index for this query.", q.useIndex[0], q.useIndex[1])
		}
	}
	if len(wanted) > 0 {
		usable = wanted
	}
	if len(usable) == 0 {
		id, bounded := ranges[idField]
		if len(q.Sort) > 0 && !(bounded && slices.Equal(q.Sort, []string{idField})) {
			return nil, refuse("no_usable_index", "No index exists for this sort, try indexing by the sort fields.")
		}
		if p.Warning != "" {
			p.Warning += "\n"
		}
		p.Warning += "No matching index found, create an index to optimize query time."
		// Keys are compared by bytes, but in asking whether there can be any between the bounds CouchDB compares them as text.
		p.Empty = p.Empty || id.empty()
		q.boundID(p)
		return p, nil
	}
	// As CouchDB: the most conditions that its columns serve, the fewest columns, the name.
	unserved := func(x *Index) int { return len(ranges) - served(x, ranges) }
	p.Index = slices.MinFunc(usable, func(a, b *Index) int {
		return cmp.Or(cmp.Compare(unserved(a), unserved(b)), cmp.Compare(len(a.Fields), len(b.Fields)), cmp.Compare(a.Design, b.Design), cmp.Compare(a.Name, b.Name))
	})
	p.bound(ranges)
	return p, nil
}

// chose tells whether the query asks for an index.
func (q *Query) chose(x *Index) bool {
	return len(q.useIndex) > 0 && q.useIndex[0] == x.Design && (len(q.useIndex) == 1 || q.useIndex[1] == x.Name)
}

// usable tells whether the query may be answered from an index: every document that it selects has to be in there, but for those
// without the fields to sort by, and the index has to stand in the order to sort by.
func (q *Query) usable(x *Index) bool {
	required := map[string]bool{}
	for _, f := range x.Fields {
		if f != idField && f != "_rev" && !slices.Contains(q.Sort, f) {
			required[f] = true
		}
	}
	if q.selector != nil {
		required = unrequired(q.selector, required)
	}
	return len(required) == 0 && q.sorts(x.Fields)
}

// unrequired gives those of the fields that a document need not have to meet the condition.
func unrequired(c *condition, fields map[string]bool) map[string]bool {
	if len(fields) == 0 {
		return fields
	}
	switch c.op {
	case opAnd:
		for i := range c.subs {
			fields = unrequired(&c.subs[i], fields)
		}
	case opOr:
		if len(c.subs) == 0 {
			return fields // selects everything
		}
		left := map[string]bool{}
		for i := range c.subs {
			for f := range unrequired(&c.subs[i], fields) {
				left[f] = true
			}
		}
		return left
	case opField:
		if fields[c.field] && !(c.sub.op == opExists && !c.sub.flag) {
			left := map[string]bool{}
			for f := range fields {
				if f != c.field {
					left[f] = true
				}
			}
			return left
		}
	}
	return fields
}

// sorts tells whether columns stand in the order of the sort: it is their beginning, but for columns that the query makes constant.
func (q *Query) sorts(columns []string) bool {
	if len(q.Sort) == 0 {
		return true
	}
	for len(columns) > 0 && columns[0] != q.Sort[0] {
		if q.selector == nil || !constant(q.selector, columns[0]) {
			return false
		}
		columns = columns[1:]
	}
	return len(columns) >= len(q.Sort) && slices.Equal(columns[:len(q.Sort)], q.Sort)
}

func constant(c *condition, field string) bool {
	if c.op == opAnd {
		return slices.ContainsFunc(c.subs, func(s condition) bool { return constant(&s, field) })
	}
	return c.op == opField && c.field == field && c.sub.op == opEq
}

type interval struct{ low, high Bound }

func (r interval) single() bool {
	return r.low.Inclusive && r.high.Inclusive && r.low.Key != nil && bytes.Equal(r.low.Key, r.high.Key)
}

// empty tells whether nothing can be within.
func (r interval) empty() bool {
	if r.low.Key == nil || r.high.Key == nil {
		return false
	}
	n := bytes.Compare(r.low.Key, r.high.Key)
	return n > 0 || n == 0 && !r.single()
}

// ranges are what comparisons leave of each field that an index could serve, by order key; empty if nothing is left of one.
func (q *Query) ranges() (fields map[string]interval, empty bool) {
	fields = map[string]interval{}
	if q.selector != nil {
		narrow(q.selector, fields)
	}
	for f, r := range fields {
		if f != idField && r.empty() { // keys of documents compare by bytes, see boundID
			return fields, true
		}
	}
	return fields, false
}

func narrow(c *condition, fields map[string]interval) {
	if c.op == opAnd {
		for i := range c.subs {
			narrow(&c.subs[i], fields)
		}
	}
	if c.op != opField {
		return
	}
	r := fields[c.field]
	switch op := c.sub.op; op {
	case opExists: // bounds nothing, but counts in the choice of an index
	case opGt, opGte:
		r.above(Bound{c.sub.keys[0], op == opGte})
	case opLt, opLte:
		r.below(Bound{c.sub.keys[0], op == opLte})
	case opEq:
		r.above(Bound{c.sub.keys[0], true})
		r.below(Bound{c.sub.keys[0], true})
	case opBeginsWith:
		if low, high, ok := prefixKeys(c.sub.text); ok {
			r.above(Bound{low, true})
			r.below(Bound{high, false})
		}
	default:
		return
	}
	fields[c.field] = r
}

func (r *interval) above(b Bound) {
	if n := bytes.Compare(b.Key, r.low.Key); r.low.Key == nil || n > 0 || n == 0 && !b.Inclusive {
		r.low = b
	}
}

func (r *interval) below(b Bound) {
	if n := bytes.Compare(b.Key, r.high.Key); r.high.Key == nil || n < 0 || n == 0 && !b.Inclusive {
		r.high = b
	}
}

// served is the number of an index's first columns that are bounded.
func served(x *Index, ranges map[string]interval) int {
	n := 0
	for ; n < len(x.Fields); n++ {
		if _, ok := ranges[x.Fields[n]]; !ok {
			break
		}
	}
	return n
}

// bound makes the ranges of the index's first columns the bounds of the walk.
func (p *Plan) bound(ranges map[string]interval) {
	var prefix []byte
	for _, f := range p.Index.Fields {
		r, ok := ranges[f]
		if ok && f != idField && r.single() {
			prefix = append(prefix, r.low.Key...)
			continue
		}
		p.Low, p.High = Bound{prefix, true}, Bound{prefix, true}
		if ok && f != idField {
			if r.low.Key != nil {
				p.Low = Bound{slices.Concat(prefix, r.low.Key), r.low.Inclusive}
			}
			if r.high.Key != nil {
				p.High = Bound{slices.Concat(prefix, r.high.Key), r.high.Inclusive}
			}
		}
		return
	}
	p.Low, p.High = Bound{prefix, true}, Bound{prefix, true}
}

// boundID bounds a walk over all documents.
func (q *Query) boundID(p *Plan) {
	var visit func(c *condition)
	visit = func(c *condition) {
		if c.op == opAnd {
			for i := range c.subs {
				visit(&c.subs[i])
			}
		}
		if c.op != opField || c.field != idField || c.sub.arg == nil || c.sub.arg.kind != kindString {
			return
		}
		key := []byte(c.sub.arg.string())
		switch c.sub.op {
		case opGt, opGte, opEq:
			if p.Low.Key == nil || bytes.Compare(key, p.Low.Key) > 0 {
				p.Low = Bound{key, true} // what is one too much is found out by matching
			}
		}
		switch c.sub.op {
		case opLt, opLte, opEq:
			if p.High.Key == nil || bytes.Compare(key, p.High.Key) < 0 {
				p.High = Bound{key, true}
			}
		}
	}
	if q.selector != nil {
		visit(q.selector)
	}
}

// Result is what a query gives of a document that it selects: the value's own bytes, or what the query's fields leave of it.
func (q *Query) Result(d *Document, raw []byte) ([]byte, error) {
	if !q.project {
		return raw, nil
	}
	out := map[string]any{}
	for _, f := range q.fields {
		path, err := parsePath(f)
		if err != nil {
			return nil, err
		}
		if path[0] == idField {
			continue // not part of the value
		}
		v, _ := d.found(path)
		if v == nil {
			continue
		}
		decoder := json.NewDecoder(strings.NewReader(v.raw))
		decoder.UseNumber()
		var decoded any
		if err := decoder.Decode(&decoded); err != nil {
			return nil, fmt.Errorf("query: field %q of %q: %w", f, d.key, err)
		}
		put(out, path, decoded)
	}
	return json.Marshal(out)
}

// put sets a field within objects, which are made as needed.
func put(object map[string]any, path []string, v any) {
	for ; len(path) > 1; path = path[1:] {
		next, ok := object[path[0]].(map[string]any)
		if !ok {
			if _, taken := object[path[0]]; taken {
				return
			}
			next = map[string]any{}
			object[path[0]] = next
		}
		object = next
	}
	object[path[0]] = v
}
