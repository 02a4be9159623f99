package jsonindex_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/collate"
	"golang.org/x/text/language"
)

// naive evaluates selectors as CouchDB describes them, on decoded JSON, with none of the code that is tested.
type naive struct{ strings *collate.Collator }

func newNaive() *naive { return &naive{collate.New(language.Und)} }

func decode(raw string) any {
	d := json.NewDecoder(strings.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		panic(err)
	}
	return v
}

func rank(v any) int {
	switch v := v.(type) {
	case nil:
		return 0
	case bool:
		if v {
			return 2
		}
		return 1
	case json.Number:
		return 3
	case string:
		return 4
	case []any:
		return 5
	}
	return 6
}

func rat(n json.Number) *big.Rat {
	r, ok := new(big.Rat).SetString(n.String())
	if !ok {
		panic(n)
	}
	return r
}

func (n *naive) compare(a, b any) int {
	if x, y := rank(a), rank(b); x != y {
		return x - y
	}
	switch a := a.(type) {
	case json.Number:
		return rat(a).Cmp(rat(b.(json.Number)))
	case string:
		return n.strings.CompareString(a, b.(string))
	case []any:
		b := b.([]any)
		for i := 0; i < len(a) && i < len(b); i++ {
			if c := n.compare(a[i], b[i]); c != 0 {
				return c
			}
		}
		return len(a) - len(b)
	case map[string]any:
		b := b.(map[string]any)
		x, y := slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b))
		for i := 0; i < len(x) && i < len(y); i++ {
			if c := n.strings.CompareString(x[i], y[i]); c != 0 {
				return c
			}
			if c := n.compare(a[x[i]], b[y[i]]); c != 0 {
				return c
			}
		}
		return len(x) - len(y)
	}
	return 0
}

const (
	found = iota
	missing
	badPath
)

func lookup(v any, path []string) (any, int) {
	for _, name := range path {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[name]
			if !ok {
				return nil, missing
			}
			v = next
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(at) {
				return nil, badPath
			}
			v = at[i]
		default:
			return nil, badPath
		}
	}
	return v, found
}

// match evaluates a condition on what is at the path of the document. Outside of the matches of items a negation is
// handed down to the single conditions.
func (n *naive) match(cond, doc any, path []string, negated, inItem bool) bool {
	object, ok := cond.(map[string]any)
	if !ok || len(object) == 0 {
		return n.single("$eq", cond, doc, path, negated)
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		if n.part(name, object[name], doc, path, negated, inItem) == negated {
			return negated
		}
	}
	return !negated
}

func (n *naive) part(name string, arg, doc any, path []string, negated, inItem bool) bool {
	all := func(args []any, negated bool) bool { // negated: any is not
		for _, a := range args {
			if n.match(a, doc, path, negated, inItem) == negated {
				return negated
			}
		}
		return !negated
	}
	some := func(args []any, negated bool) bool {
		for _, a := range args {
			if n.match(a, doc, path, negated, inItem) != negated {
				return !negated
			}
		}
		return negated
	}
	if list, ok := arg.([]any); ok && len(list) == 0 && (name == "$and" || name == "$or" || name == "$nor" && !inItem) {
		return true // also where it is negated, which only turns one list into the other
	}
	switch name {
	case "$and":
		return all(arg.([]any), negated)
	case "$or":
		return some(arg.([]any), negated)
	case "$nor":
		if inItem {
			panic(unknownThere) // CouchDB does not know $nor within the matches of items
		}
		return !none(n, arg.([]any), doc, path, negated)
	case "$not":
		if inItem {
			return !n.match(arg, doc, path, false, true)
		}
		return n.match(arg, doc, path, !negated, false)
	}
	if !strings.HasPrefix(name, "$") {
		return n.match(arg, doc, append(slices.Clone(path), strings.Split(name, ".")...), negated, inItem)
	}
	return n.single(name, arg, doc, path, negated)
}

// none is what $nor is not.
func none(n *naive, args []any, doc any, path []string, negated bool) bool {
	for _, a := range args {
		if !negated && !n.match(a, doc, path, true, false) {
			return true
		}
		if negated && n.match(a, doc, path, false, false) {
			return false
		}
	}
	return negated
}

func (n *naive) single(op string, arg, doc any, path []string, negated bool) bool {
	v, state := lookup(doc, path)
	if op == "$exists" {
		want := arg.(bool) != negated
		return state == found && want || state == missing && !want
	}
	if state != found {
		return false
	}
	return n.holds(op, arg, v) != negated
}

func (n *naive) holds(op string, arg, v any) bool {
	items, isArray := v.([]any)
	text, isText := v.(string)
	switch op {
	case "$eq":
		return n.compare(v, arg) == 0
	case "$ne":
		return n.compare(v, arg) != 0
	case "$lt":
		return n.compare(v, arg) < 0
	case "$lte":
		return n.compare(v, arg) <= 0
	case "$gt":
		return n.compare(v, arg) > 0
	case "$gte":
		return n.compare(v, arg) >= 0
	case "$in", "$nin":
		among := false
		if !isArray {
			items = []any{v}
		}
		for _, x := range items {
			for _, a := range arg.([]any) {
				among = among || n.compare(x, a) == 0
			}
		}
		return among == (op == "$in")
	case "$type":
		return arg == [...]string{"null", "boolean", "boolean", "number", "string", "array", "object"}[rank(v)]
	case "$size":
		return isArray && json.Number(strconv.Itoa(len(items))) == arg
	case "$mod":
		x, ok := v.(json.Number)
		if !ok || !rat(x).IsInt() {
			return false
		}
		d, r := rat(arg.([]any)[0].(json.Number)), rat(arg.([]any)[1].(json.Number))
		return new(big.Int).Rem(rat(x).Num(), d.Num()).Cmp(r.Num()) == 0
	case "$regex":
		return isText && regexp.MustCompile(characters(arg.(string))).MatchString(characters(text))
	case "$beginsWith":
		return isText && strings.HasPrefix(text, arg.(string))
	case "$all":
		wanted := arg.([]any)
		if !isArray || len(wanted) == 0 {
			return false
		}
		if one, ok := wanted[0].([]any); ok && len(wanted) == 1 && exact(one, v) {
			return true
		}
		for _, w := range wanted {
			if !slices.ContainsFunc(items, func(x any) bool { return exact(w, x) }) {
				return false
			}
		}
		return true
	case "$elemMatch":
		return isArray && caught(func() bool {
			return slices.ContainsFunc(items, func(x any) bool { return n.match(arg, x, nil, false, true) })
		})
	case "$allMatch":
		return len(items) > 0 && caught(func() bool {
			return !slices.ContainsFunc(items, func(x any) bool { return !n.match(arg, x, nil, false, true) })
		})
	case "$keyMapMatch":
		object, _ := v.(map[string]any)
		return caught(func() bool {
			return slices.ContainsFunc(slices.Sorted(maps.Keys(object)), func(name string) bool { return n.match(arg, name, nil, false, true) })
		})
	}
	panic(op)
}

const unknownThere = "unknown operator"

// caught is false where CouchDB meets an error.
func caught(f func() bool) (holds bool) {
	defer func() {
		if r := recover(); r != nil {
			if r != unknownThere {
				panic(r)
			}
			holds = false
		}
	}()
	return f()
}

// characters gives every byte as a character of its own.
func characters(s string) string {
	out := make([]rune, len(s))
	for i := range len(s) {
		out[i] = rune(s[i])
	}
	return string(out)
}

// emptyList tells whether a selector comes down to a list of no conditions, which selects nothing.
func emptyList(cond any) bool {
	object, ok := cond.(map[string]any)
	if !ok || len(object) != 1 {
		return false
	}
	for name, arg := range object {
		switch items, isList := arg.([]any); {
		case name == "$not":
			return emptyList(arg)
		case name == "$and" || name == "$or" || name == "$nor":
			return isList && len(items) == 0
		case !strings.HasPrefix(name, "$"):
			return emptyList(arg) // names of fields move below
		}
	}
	return false
}

func exact(a, b any) bool {
	x, err := json.Marshal(normal(a))
	if err != nil {
		panic(err)
	}
	y, err := json.Marshal(normal(b))
	if err != nil {
		panic(err)
	}
	return bytes.Equal(x, y)
}

func normal(v any) any {
	switch v := v.(type) {
	case json.Number:
		return "number " + rat(v).RatString()
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = normal(x)
		}
		return out
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			out[k] = normal(x)
		}
		return out
	}
	return v
}

// source makes random JSON.
type source struct{ *rand.Rand }

func (r source) pick(from ...string) string { return from[r.IntN(len(from))] }

func (r source) scalar() string {
	return r.pick(`null`, `true`, `false`, `0`, `-1`, `1`, `2`, `2.0`, `20e-1`, `3`, `10`, `1.5`, `-1.25`, `1e3`, `12345678901234567890`,
		`""`, `"a"`, `"A"`, `"b"`, `"B"`, `"ab"`, `"aB"`, `"é"`, `"e"`, `"résumé"`, `"zoo"`, `"10"`, `"9"`, `"a b"`, `"日本"`, `"_x"`, `"\u00e9"`)
}

func (r source) value(depth int) string {
	switch n := r.IntN(10); {
	case depth > 0 && n == 0:
		items := make([]string, r.IntN(4))
		for i := range items {
			items[i] = r.value(depth - 1)
		}
		return "[" + strings.Join(items, ",") + "]"
	case depth > 0 && n == 1:
		return r.object(depth-1, "x", "y")
	}
	return r.scalar()
}

func (r source) object(depth int, names ...string) string {
	var members []string
	for _, name := range names {
		if r.IntN(4) > 0 {
			members = append(members, strconv.Quote(name)+":"+r.value(depth))
		}
	}
	r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return "{" + strings.Join(members, ",") + "}"
}

func (r source) field() string {
	return r.pick("a", "b", "c", "d", "a.x", "b.y", "c.0", "absent")
}

// selector makes a condition; inField says that comparisons may stand without a field.
func (r source) selector(depth int, inField bool) string {
	list := func(f func() string) string {
		items := make([]string, r.IntN(12)%4)
		for i := range items {
			items[i] = f()
		}
		return "[" + strings.Join(items, ",") + "]"
	}
	sub := func() string { return r.selector(depth-1, inField) }
	if depth > 0 {
		switch r.IntN(8) {
		case 0:
			return `{"$and":` + list(sub) + `}`
		case 1:
			return `{"$or":` + list(sub) + `}`
		case 2:
			return `{"$nor":` + list(sub) + `}`
		case 3:
			return `{"$not":` + sub() + `}`
		}
	}
	if inField {
		if c := r.comparison(depth, list); c[0] == '{' {
			return c
		}
		return `{"$eq":` + r.scalar() + `}`
	}
	seen := map[string]bool{}
	var parts []string
	for range r.IntN(3) + 1 {
		if f := r.field(); !seen[f] {
			seen[f] = true
			parts = append(parts, fmt.Sprintf(`%q:%s`, f, r.comparison(depth, list)))
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func (r source) comparison(depth int, list func(func() string) string) string {
	switch r.IntN(20) {
	case 0:
		return `{"$gt":` + r.scalar() + `,"$lte":` + r.scalar() + `}`
	case 1:
		return `{"$in":` + list(r.scalar) + `}`
	case 2:
		return `{"$nin":` + list(r.scalar) + `}`
	case 3:
		return `{"$exists":` + r.pick("true", "false") + `}`
	case 4:
		return `{"$type":` + r.pick(`"string"`, `"number"`, `"null"`, `"boolean"`, `"array"`, `"object"`) + `}`
	case 5:
		return `{"$mod":` + r.pick(`[2,0]`, `[3,1]`, `[-2,-1]`, `[10,0]`) + `}`
	case 6:
		return `{"$regex":` + r.pick(`"^a"`, `"[A-Z]"`, `"."`, `"é|z"`, `"^.$"`, `"^..$"`) + `}`
	case 7:
		return `{"$beginsWith":` + r.pick(`"a"`, `"r"`, `""`, `"A"`, `"é"`, `"a "`) + `}`
	case 8:
		return `{"$size":` + r.pick(`0`, `1`, `2`) + `}`
	case 9:
		return `{"$all":` + list(r.scalar) + `}`
	case 10, 11:
		if depth > 0 {
			return `{"` + r.pick("$elemMatch", "$allMatch", "$keyMapMatch") + `":` + r.selector(depth-1, true) + `}`
		}
	case 12:
		return r.value(1)
	}
	return `{"` + r.pick("$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$gt", "$lt") + `":` + r.value(1) + `}`
}
