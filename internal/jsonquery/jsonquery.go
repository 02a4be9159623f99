// Package jsonquery is CouchDB's query language ("Mango") over JSON documents: queries, the conditions in them, definitions of
// indexes, and the order of JSON values.
//
// It decides the same as the CouchDB behind a Fabric peer does: which documents a query selects, which index
// serves it and so in which order the results come, and which queries are refused, in CouchDB's words. It follows what
// Fabric puts between contracts and CouchDB: keys of objects are sorted, of repeated keys the last counts,
// and a value that is no JSON object is no document.
//
// Strings are ordered by the Unicode Collation Algorithm with CLDR's root order, down to the third level, as CouchDB orders them by
// ICU; the tables are those of CLDR 23, so that characters newer than Unicode 6.2 come by code point. Keys of documents (_id) are
// ordered by bytes.
//
// The CouchDB that it was compared with is 3.4.2, which Fabric uses, with its oddities: an empty list of conditions holds
// where it is one condition among others, and selects nothing where it is all of the selector; $nor is unknown within $elemMatch and its
// like, which fail at it; expressions of $regex see bytes, $beginsWith what the eye takes for a character.
//
// It differs on purpose in a few things. Numbers are compared as the decimals that they are written as, where Fabric rounds
// those of documents to 64-bit floating point. Regular expressions are Go's (RE2), which take linear time, and know
// no references back and no looking around, and for which $ is the very end of the text, not the place before a last line break. An empty $or
// does not make CouchDB's choice of an index that lacks some of the documents. What Fabric's CouchDB documents have of their own
// (_rev, ~version) is not seen. $text and the operators of places are refused, as CouchDB refuses them without its search.
//
// The package reads no database: package jsonindex does, with what is here. Open this file first; selector.go holds the
// conditions, plan.go the choice of an index, order.go the order of values.
package jsonquery

import (
	"fmt"
	"strconv"
	"strings"
)

// Bounds of queries. Those of documents are the depth of encoding/json, and what a transaction may hold.
const (
	// MaxQuery is the size of a query's text.
	MaxQuery = 1 << 20
	// maxQueryDepth is how deep its objects and arrays nest.
	maxQueryDepth = 200
	// maxConditions is the number of conditions in a selector.
	maxConditions = 20_000
	// maxRegexes bounds the regular expressions of one selector, and maxRegex the length of all of them.
	maxRegexes = 100
	maxRegex   = 16 << 10
)

// Error is a query or a definition that is refused. It reads as it reaches a contract from a Fabric peer.
type Error struct {
	Code   string // CouchDB's, such as "invalid_operator"
	Reason string
}

func (e *Error) Error() string {
	return "error handling CouchDB request. Error:" + e.Code + ",  Status Code:400,  Reason:" + e.Reason
}

func refuse(code, format string, args ...any) error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// Query is a parsed query. It is not changed by use, and any number of goroutines may use it.
type Query struct {
	selector *condition
	// Sort are the fields to sort by, Descending their common direction.
	Sort       []string
	Descending bool
	// Skip is the number of results that are left out at the beginning.
	Skip int64
	// Bookmark is where the query goes on, "" at the beginning.
	Bookmark string

	useIndex []string // design document and maybe the name
	fields   []string // nil: the whole document
	project  bool
}

// Parse reads a query. Its limit is checked and otherwise ignored, as Fabric ignores it: how many results there are is for whoever
// iterates.
func Parse(text string) (*Query, error) {
	if len(text) > MaxQuery {
		return nil, refuse("invalid_ejson", "the query has %d bytes, more than the %d that are accepted", len(text), MaxQuery)
	}
	root, err := parseJSON(text, maxQueryDepth)
	if err != nil {
		return nil, err // as Fabric, which parses the query before it asks CouchDB
	}
	if root.kind != kindObject {
		return nil, fmt.Errorf("json: cannot unmarshal %s into Go value of type map[string]interface {}", root.kind)
	}
	q := &Query{}
	seen := false
	for _, m := range root.sorted() {
		switch v := &m.value; m.name {
		case "selector":
			seen = true
			if v.kind != kindObject {
				return nil, refuse("invalid_selector_json", "Selector must be a JSON object, not: %s", v.text())
			}
			q.selector, err = normalize(v)
		case "sort":
			q.Sort, q.Descending, err = parseSort(v)
		case "fields":
			err = q.parseFields(v)
		case "limit":
			_, err = natural(v)
		case "skip":
			q.Skip, err = natural(v)
		case "bookmark":
			q.Bookmark, err = parseBookmark(v)
		case "use_index":
			q.useIndex, err = parseUseIndex(v)
		case "execution_stats", "conflicts", "update", "stable":
			if v.kind != kindTrue && v.kind != kindFalse {
				err = refuse("invalid_boolean", "Invalid boolean value: %s", v.text())
			}
		case "r":
			var n int64
			if n, err = natural(v); err == nil && n == 0 {
				err = refuse("invalid_pos_integer", "%s is not an integer greater than zero", v.text())
			}
		case "stale", "partition": // of no meaning here
		default:
			err = refuse("invalid_key", "Invalid key %s for this request.", m.name)
		}
		if err != nil {
			return nil, err
		}
	}
	if !seen {
		return nil, refuse("missing_required_key", "Missing required key: selector")
	}
	return q, nil
}

func natural(v *value) (int64, error) {
	if v.kind == kindNumber {
		if n, err := strconv.ParseInt(v.raw, 10, 64); err == nil && n >= 0 {
			return n, nil
		}
	}
	return 0, refuse("invalid_non_neg_integer", "%s is not an integer greater than or equal to zero", v.text())
}

func parseSort(v *value) (fields []string, descending bool, err error) {
	if v.kind != kindArray {
		return nil, false, refuse("invalid_sort_json", "Sort must be an array of sort specs, not: %s", v.text())
	}
	for i, item := range v.items() {
		name, down := "", false
		switch {
		case item.kind == kindString:
			name = item.string()
		case item.kind == kindObject && len(item.sorted()) == 1:
			m := item.sorted()[0]
			name = m.name
			switch {
			case m.value.kind == kindString && m.value.string() == "desc":
				down = true
			case m.value.kind != kindString || m.value.string() != "asc":
				return nil, false, refuse("invalid_sort_field", "Invalid sort field: %s", item.text())
			}
		default:
			return nil, false, refuse("invalid_sort_field", "Invalid sort field: %s", item.text())
		}
		if name == "" {
			return nil, false, refuse("invalid_sort_field", "Invalid sort field: %s", item.text())
		}
		if i > 0 && down != descending {
			return nil, false, refuse("unsupported_mixed_sort", "Sorts currently only support a single direction for all fields.")
		}
		if _, err := parsePath(name); err != nil {
			return nil, false, err
		}
		fields, descending = append(fields, name), down
	}
	return fields, descending, nil
}

func (q *Query) parseFields(v *value) error {
	if v.kind != kindArray {
		return fmt.Errorf("fields definition must be an array") // Fabric's own check
	}
	q.project = true
	for _, item := range v.items() {
		if item.kind != kindString {
			return refuse("invalid_field", "Invalid JSON for field spec: %s", item.text())
		}
		name := item.string()
		if _, err := parsePath(name); err != nil {
			return err
		}
		q.fields = append(q.fields, name)
	}
	return nil
}

func parseBookmark(v *value) (string, error) {
	switch {
	case v.kind == kindNull:
		return "", nil
	case v.kind == kindString && v.string() == "nil": // CouchDB's bookmark of no results
		return "", nil
	case v.kind == kindString:
		return v.string(), nil
	}
	return "", refuse("invalid_bookmark", "Invalid bookmark value: %s", v.text())
}

func parseUseIndex(v *value) ([]string, error) {
	bad := refuse("invalid_index_name", "Invalid index name: %s", v.text())
	var names []string
	switch v.kind {
	case kindNull:
		return nil, nil
	case kindString:
		names = strings.Split(strings.TrimPrefix(v.string(), "_design/"), "/")
	case kindArray:
		for _, item := range v.items() {
			if item.kind != kindString {
				return nil, bad
			}
			names = append(names, item.string())
		}
		if len(names) > 0 {
			names[0] = strings.TrimPrefix(names[0], "_design/")
		}
	default:
		return nil, bad
	}
	if len(names) > 2 {
		return nil, bad
	}
	return names, nil
}

// parsePath splits the name of a field into the names of objects around it. A dot after a backslash belongs to the name.
func parsePath(field string) ([]string, error) {
	var path []string
	var part strings.Builder
	empty := true // the part as it was written
	for i := 0; i <= len(field); i++ {
		switch {
		case i == len(field) || field[i] == '.' && (i == 0 || field[i-1] != '\\'):
			if empty {
				return nil, refuse("invalid_field_name", "Invalid field name: %s", field)
			}
			path = append(path, part.String())
			part.Reset()
			empty = true
		case field[i] == '\\':
			empty = false
		default:
			part.WriteByte(field[i])
			empty = false
		}
	}
	return path, nil
}
