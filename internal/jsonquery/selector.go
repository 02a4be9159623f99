package jsonquery

import (
	"bytes"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type operator byte

const (
	opField operator = iota // a field, or with no path the value itself, meets sub
	opAnd
	opOr
	opNor
	opNot
	opElemMatch
	opAllMatch
	opKeyMapMatch
	opLt
	opLte
	opEq
	opNe
	opGte
	opGt
	opIn
	opNin
	opExists
	opType
	opMod
	opRegex
	opAll
	opSize
	opBeginsWith
)

func operatorOf(name string) (operator, bool) {
	switch name {
	case "$and":
		return opAnd, true
	case "$or":
		return opOr, true
	case "$nor":
		return opNor, true
	case "$not":
		return opNot, true
	case "$elemMatch":
		return opElemMatch, true
	case "$allMatch":
		return opAllMatch, true
	case "$keyMapMatch":
		return opKeyMapMatch, true
	case "$lt":
		return opLt, true
	case "$lte":
		return opLte, true
	case "$eq":
		return opEq, true
	case "$ne":
		return opNe, true
	case "$gte":
		return opGte, true
	case "$gt":
		return opGt, true
	case "$in":
		return opIn, true
	case "$nin":
		return opNin, true
	case "$exists":
		return opExists, true
	case "$type":
		return opType, true
	case "$mod":
		return opMod, true
	case "$regex":
		return opRegex, true
	case "$all":
		return opAll, true
	case "$size":
		return opSize, true
	case "$beginsWith":
		return opBeginsWith, true
	}
	return 0, false
}

// condition is a normalized one, as CouchDB normalizes them: names of fields stand right above what they are asked for, and
// negations have moved down to the single conditions. That makes a difference: {"$not": {"a": 1}} does not select documents
// without a.
type condition struct {
	op    operator
	field string      // opField: as CouchDB writes it, names joined by dots
	path  []string    // opField: its names
	sub   *condition  // opField, opNot and the matches of items
	subs  []condition // opAnd, opOr, opNor
	arg   *value
	keys  [][]byte // order keys of the argument, or of its items for opIn and opNin
	text  string   // opType, opBeginsWith
	flag  bool     // opExists
	mod   [2]*big.Int
	size  int64
	regex *regexp.Regexp
}

// builder builds conditions, and counts what is bounded.
type builder struct {
	order              collation
	conditions         int
	regexes, regexText int
}

// normalize reads a selector; nil selects every document.
func normalize(v *value) (*condition, error) {
	if len(v.sorted()) == 0 {
		return nil, nil
	}
	b := &builder{}
	c, err := b.build(v, "")
	if err != nil {
		return nil, err
	}
	*c = pushNegations(*c)
	if c.op == opField && c.field == "" {
		return nil, refuse("invalid_selector", "One or more conditions is missing a field name.")
	}
	return c, nil
}

func (b *builder) build(v *value, path string) (*condition, error) {
	if b.conditions++; b.conditions > maxConditions {
		return nil, refuse("bad_arg", "the selector has more than %d conditions", maxConditions)
	}
	if v.kind != kindObject || len(v.sorted()) == 0 {
		return b.terminal(opEq, "$eq", v, path) // a bare value means equality
	}
	if members := v.sorted(); len(members) > 1 {
		c := &condition{op: opAnd}
		for _, m := range members {
			sub, err := b.member(m, path)
			if err != nil {
				return nil, err
			}
			c.subs = append(c.subs, *sub)
		}
		return c, nil
	}
	return b.member(v.sorted()[0], path)
}

func badArg(name string, v *value) error {
	return refuse("bad_arg", "Bad argument for operator %s: %s", name, v.text())
}

func (b *builder) member(m member, path string) (*condition, error) {
	if !strings.HasPrefix(m.name, "$") {
		if path != "" {
			return b.build(&m.value, path+"."+m.name)
		}
		return b.build(&m.value, m.name)
	}
	op, known := operatorOf(m.name)
	if !known {
		switch m.name {
		case "$text", "$where", "$geoWithin", "$geoIntersects", "$near", "$nearSphere":
			return nil, refuse("not_supported", "Unsupported operator: %s", m.name)
		}
		return nil, refuse("invalid_operator", "Invalid operator: %s", m.name)
	}
	switch op {
	case opAnd, opOr, opNor:
		if m.value.kind != kindArray {
			return nil, badArg(m.name, &m.value)
		}
		c := &condition{op: op}
		for i := range m.value.items() {
			sub, err := b.build(&m.value.items()[i], path)
			if err != nil {
				return nil, err
			}
			c.subs = append(c.subs, *sub)
		}
		return c, nil
	case opNot:
		if m.value.kind != kindObject {
			return nil, badArg(m.name, &m.value)
		}
		sub, err := b.build(&m.value, path)
		return &condition{op: op, sub: sub}, err
	case opElemMatch, opAllMatch, opKeyMapMatch:
		if m.value.kind != kindObject {
			return nil, badArg(m.name, &m.value)
		}
		sub, err := b.build(&m.value, "")
		if err != nil {
			return nil, err
		}
		return at(path, condition{op: op, sub: sub})
	}
	return b.terminal(op, m.name, &m.value, path)
}

// at puts a condition on a field.
func at(field string, sub condition) (*condition, error) {
	c := &condition{op: opField, field: field, sub: &sub}
	if field != "" {
		var err error
		if c.path, err = parsePath(field); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func integer(v *value) (*big.Int, bool) {
	if v.kind != kindNumber || len(v.raw) > 1000 {
		return nil, false
	}
	return new(big.Int).SetString(v.raw, 10)
}

func (b *builder) terminal(op operator, name string, v *value, path string) (*condition, error) {
	c := condition{op: op, arg: v}
	ok := true
	switch op {
	case opLt, opLte, opEq, opNe, opGte, opGt:
		c.keys = [][]byte{b.order.appendKey(nil, v)}
	case opIn, opNin:
		ok = v.kind == kindArray
		for i := range v.items() {
			c.keys = append(c.keys, b.order.appendKey(nil, &v.items()[i]))
		}
	case opAll:
		ok = v.kind == kindArray
		b.order.appendKey(nil, v) // sorts the objects within, so that matching changes nothing
	case opExists:
		ok = v.kind == kindTrue || v.kind == kindFalse
		c.flag = v.kind == kindTrue
	case opType, opBeginsWith:
		if ok = v.kind == kindString; ok {
			c.text = v.string()
		}
	case opMod:
		if ok = v.kind == kindArray && len(v.items()) == 2; ok {
			var ok2 bool
			c.mod[0], ok = integer(&v.items()[0])
			c.mod[1], ok2 = integer(&v.items()[1])
			ok = ok && ok2 && c.mod[0].Sign() != 0
		}
	case opSize:
		n, err := natural(v)
		ok, c.size = err == nil, n
	case opRegex:
		if ok = v.kind == kindString; ok {
			return b.regex(v, path)
		}
	}
	if !ok {
		return nil, badArg(name, v)
	}
	return at(path, c)
}

func (b *builder) regex(v *value, path string) (*condition, error) {
	text := v.string()
	b.regexes++
	b.regexText += len(text)
	if b.regexes > maxRegexes || b.regexText > maxRegex {
		return nil, refuse("bad_arg", "Bad argument for operator $regex: a selector may have %d expressions of %d characters in all", maxRegexes, maxRegex)
	}
	r, err := regexp.Compile(bytewise(text))
	if err != nil {
		return nil, refuse("bad_arg", "Bad argument for operator $regex: %s (%v; expressions are those of RE2)", v.text(), err)
	}
	return at(path, condition{op: opRegex, arg: v, regex: r})
}

// bytewise makes of each byte a character of its own. CouchDB's expressions know bytes only: "." is half an umlaut.
func bytewise(s string) string {
	i := 0
	for i < len(s) && s[i] < utf8.RuneSelf {
		i++
	}
	if i == len(s) {
		return s
	}
	b := make([]byte, 0, 2*len(s))
	for i := range len(s) {
		b = utf8.AppendRune(b, rune(s[i]))
	}
	return string(b)
}

// beginsWith tells whether a text begins with another and a character begins behind it, not a mark upon the last one: CouchDB
// compares what is seen as one character.
func beginsWith(s, prefix string) bool {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok || rest == "" || prefix == "" {
		return ok
	}
	next, _ := utf8.DecodeRuneInString(rest)
	return !unicode.Is(unicode.M, next) && next != '\u200d' && !(next == '\n' && strings.HasSuffix(prefix, "\r"))
}

// pushNegations moves negations down. Below the matches of items everything stays as it is, as in CouchDB.
func pushNegations(c condition) condition {
	switch c.op {
	case opNot:
		return negate(*c.sub)
	case opNor:
		return condition{op: opAnd, subs: each(c.subs, negate)}
	case opAnd, opOr:
		return condition{op: c.op, subs: each(c.subs, pushNegations)}
	}
	return c
}

func each(subs []condition, f func(condition) condition) []condition {
	out := make([]condition, len(subs))
	for i, s := range subs {
		out[i] = f(s)
	}
	return out
}

func negate(c condition) condition {
	switch c.op {
	case opNot:
		return pushNegations(*c.sub)
	case opNor:
		return condition{op: opOr, subs: each(c.subs, pushNegations)}
	case opAnd:
		return condition{op: opOr, subs: each(c.subs, negate)}
	case opOr:
		return condition{op: opAnd, subs: each(c.subs, negate)}
	case opField:
		sub := negate(*c.sub)
		c.sub = &sub
	case opLt:
		c.op = opGte
	case opLte:
		c.op = opGt
	case opEq:
		c.op = opNe
	case opNe:
		c.op = opEq
	case opGte:
		c.op = opLt
	case opGt:
		c.op = opLte
	case opIn:
		c.op = opNin
	case opNin:
		c.op = opIn
	case opExists:
		c.flag = !c.flag
	default:
		return condition{op: opNot, sub: &c}
	}
	return c
}

// idField is the name by which selectors, sorts and indexes call the document's key.
const idField = "_id"

// Document is a value of the state that can be queried.
type Document struct {
	key  string
	root *value
}

// MaxDocument is the size up to which a value is a document. CouchDB takes no larger ones.
const MaxDocument = 8_000_000

// ParseDocument parses a value; false if it is no JSON object, or too large, and so cannot be queried.
func ParseDocument(key string, raw []byte) (*Document, bool) {
	i := 0
	for i < len(raw) && (raw[i] == ' ' || raw[i] == '\t' || raw[i] == '\n' || raw[i] == '\r') {
		i++
	}
	if i == len(raw) || raw[i] != '{' || len(raw) > MaxDocument {
		return nil, false
	}
	root, err := parseJSON(string(raw), maxDepth)
	if err != nil {
		return nil, false
	}
	return &Document{key, root}, true
}

func (d *Document) id() *value { return &value{kind: kindString, raw: d.key, literal: true} }

// found is what a field of the document is.
func (d *Document) found(path []string) (at *value, missing bool) {
	if path[0] == idField {
		return d.id().found(path[1:])
	}
	return d.root.found(path)
}

// Matcher tells which documents a query selects. It belongs to one goroutine.
type Matcher struct {
	selector *condition
	order    collation
	key      []byte
	// raised is set by what CouchDB ends with an error, up to the match of items around it, which then fails.
	raised bool
}

// Matcher makes one.
func (q *Query) Matcher() *Matcher { return &Matcher{selector: q.selector} }

// Match tells whether the query selects a document.
func (m *Matcher) Match(d *Document) bool {
	return m.selector == nil || m.document(m.selector, d)
}

// document meets the conditions outside of any field.
func (m *Matcher) document(c *condition, d *Document) bool {
	switch c.op {
	case opAnd:
		for i := range c.subs {
			if !m.document(&c.subs[i], d) {
				return false
			}
		}
		return true
	case opOr:
		for i := range c.subs {
			if m.document(&c.subs[i], d) {
				return true
			}
		}
		return len(c.subs) == 0
	case opNot:
		return !m.document(c.sub, d)
	}
	if c.field == "" {
		return m.value(c.sub, d.root)
	}
	v, missing := d.found(c.path)
	if v == nil {
		return missing && c.sub.op == opExists && !c.sub.flag
	}
	if c.field == idField {
		return m.id(c.sub, v)
	}
	return m.value(c.sub, v)
}

// id compares the document's key, by bytes. A string comes behind what is none.
func (m *Matcher) id(c *condition, v *value) bool {
	compare := func(arg *value) int {
		if arg.kind != kindString {
			return 1
		}
		return strings.Compare(v.string(), arg.string())
	}
	switch c.op {
	case opLt:
		return compare(c.arg) < 0
	case opLte:
		return compare(c.arg) <= 0
	case opEq:
		return compare(c.arg) == 0
	case opNe:
		return compare(c.arg) != 0
	case opGte:
		return compare(c.arg) >= 0
	case opGt:
		return compare(c.arg) > 0
	case opIn, opNin:
		for i := range c.arg.items() {
			if compare(&c.arg.items()[i]) == 0 {
				return c.op == opIn
			}
		}
		return c.op == opNin
	case opNot:
		return !m.id(c.sub, v)
	}
	return m.value(c, v)
}

func (m *Matcher) compare(v *value, key []byte) int {
	if v.kind != kind(key[0]) {
		return int(v.kind) - int(key[0])
	}
	m.key = m.order.appendKey(m.key[:0], v)
	return bytes.Compare(m.key, key)
}

func (m *Matcher) value(c *condition, v *value) bool {
	switch c.op {
	case opField:
		at := v
		if c.field != "" {
			found, missing := v.found(c.path)
			if found == nil {
				return missing && c.sub.op == opExists && !c.sub.flag
			}
			at = found
		}
		return m.value(c.sub, at)
	case opAnd:
		for i := range c.subs {
			if !m.value(&c.subs[i], v) {
				return false
			}
		}
		return true
	case opOr:
		for i := range c.subs {
			if m.value(&c.subs[i], v) || m.raised {
				return !m.raised
			}
		}
		return len(c.subs) == 0
	case opNor:
		// Only within a match of items is there one left. CouchDB does not know it there.
		m.raised = true
		return false
	case opNot:
		return !m.value(c.sub, v) && !m.raised
	case opLt:
		return m.compare(v, c.keys[0]) < 0
	case opLte:
		return m.compare(v, c.keys[0]) <= 0
	case opEq:
		return m.compare(v, c.keys[0]) == 0
	case opNe:
		return m.compare(v, c.keys[0]) != 0
	case opGte:
		return m.compare(v, c.keys[0]) >= 0
	case opGt:
		return m.compare(v, c.keys[0]) > 0
	case opIn:
		return m.in(c, v)
	case opNin:
		return !m.in(c, v)
	case opExists:
		return c.flag
	case opType:
		return c.text == v.typeName()
	case opBeginsWith:
		return v.kind == kindString && beginsWith(v.string(), c.text)
	case opRegex:
		return v.kind == kindString && c.regex.MatchString(bytewise(v.string()))
	case opMod:
		return modIs(v, c.mod)
	case opSize:
		return v.kind == kindArray && int64(len(v.items())) == c.size
	case opAll:
		return all(v, c.arg)
	case opElemMatch, opAllMatch, opKeyMapMatch:
		return m.items(c, v)
	}
	panic(fmt.Sprintf("jsonquery: condition %d", c.op))
}

// in tells whether a value, or an item of it if it is an array, is among the argument's.
func (m *Matcher) in(c *condition, v *value) bool {
	one := func(v *value) bool {
		m.key = m.order.appendKey(m.key[:0], v)
		for _, k := range c.keys {
			if bytes.Equal(m.key, k) {
				return true
			}
		}
		return false
	}
	if v.kind != kindArray {
		return one(v)
	}
	for i := range v.items() {
		if one(&v.items()[i]) {
			return true
		}
	}
	return false
}

// items asks the items of an array, or the names in an object.
func (m *Matcher) items(c *condition, v *value) bool {
	defer func() { m.raised = false }()
	switch {
	case c.op == opKeyMapMatch && v.kind == kindObject:
		for _, member := range v.sorted() {
			if m.value(c.sub, &value{kind: kindString, raw: member.name, literal: true}) || m.raised {
				return !m.raised
			}
		}
	case c.op == opElemMatch && v.kind == kindArray:
		for i := range v.items() {
			if m.value(c.sub, &v.items()[i]) || m.raised {
				return !m.raised
			}
		}
	case c.op == opAllMatch && v.kind == kindArray:
		for i := range v.items() {
			if !m.value(c.sub, &v.items()[i]) {
				return false
			}
		}
		return len(v.items()) > 0
	}
	return false
}

// all tells whether an array has every item of another, or is the only item of it.
func all(v, wanted *value) bool {
	if v.kind != kindArray || len(wanted.items()) == 0 {
		return false
	}
	if len(wanted.items()) == 1 && wanted.items()[0].kind == kindArray && same(&wanted.items()[0], v) {
		return true
	}
	for i := range wanted.items() {
		has := false
		for j := 0; j < len(v.items()) && !has; j++ {
			has = same(&wanted.items()[i], &v.items()[j])
		}
		if !has {
			return false
		}
	}
	return true
}

// modIs computes a remainder, whose sign is that of the dividend.
func modIs(v *value, mod [2]*big.Int) bool {
	if v.kind != kindNumber {
		return false
	}
	n, ok := int64(0), false
	if len(v.raw) < 19 {
		i, err := strconv.ParseInt(v.raw, 10, 64)
		n, ok = i, err == nil
	}
	whole := big.NewInt(n)
	if !ok {
		d := parseDecimal(v.raw)
		if !d.whole() {
			return false
		}
		digits := d.digits + strings.Repeat("0", d.exponent-len(d.digits))
		if digits == "" {
			digits = "0"
		}
		whole.SetString(digits, 10)
		if d.negative {
			whole.Neg(whole)
		}
	}
	return new(big.Int).Rem(whole, mod[0]).Cmp(mod[1]) == 0
}
