package jsonquery

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

type kind byte

// The kinds in the order in which values of different kinds sort. They are also the first byte of a value's order key.
const (
	kindNull kind = iota + 1
	kindFalse
	kindTrue
	kindNumber
	kindString
	kindArray
	kindObject
)

func (k kind) String() string {
	switch k {
	case kindNull:
		return "null"
	case kindFalse, kindTrue:
		return "bool"
	case kindNumber:
		return "number"
	case kindString:
		return "string"
	case kindArray:
		return "array"
	}
	return "object"
}

// value is a JSON value whose parts refer to the text that it was parsed from. It is kept small: an array may have millions.
type value struct {
	raw     string     // the text: of a string with its quotes
	parts   *composite // of an array or object; nil if it is empty
	kind    kind
	literal bool // a string without quotes and escapes: a document's key
}

type composite struct {
	items   []value
	members []member // as written
	ordered bool     // members are sorted, without repetition
}

type member struct {
	name  string
	value value
}

func (v *value) items() []value {
	if v.parts == nil {
		return nil
	}
	return v.parts.items
}

// text is the value as it was written, shortened to fit a message.
func (v *value) text() string {
	if len(v.raw) > 200 {
		return v.raw[:200] + "..."
	}
	return v.raw
}

// string is the text of a string.
func (v *value) string() string {
	if v.literal {
		return v.raw
	}
	s := v.raw[1 : len(v.raw)-1]
	if strings.IndexByte(s, '\\') < 0 && utf8.ValidString(s) {
		return s
	}
	return unescape(s)
}

// sorted gives the members of an object sorted by name; of repeated ones the last.
func (v *value) sorted() []member {
	c := v.parts
	if c == nil {
		return nil
	}
	if !c.ordered {
		slices.SortStableFunc(c.members, func(a, b member) int { return strings.Compare(a.name, b.name) })
		kept := c.members[:0]
		for i, m := range c.members {
			if i+1 == len(c.members) || c.members[i+1].name != m.name {
				kept = append(kept, m)
			}
		}
		c.members, c.ordered = kept, true
	}
	return c.members
}

// get gives a member of an object, nil if it has none of the name.
func (v *value) get(name string) *value {
	if v.parts == nil {
		return nil
	}
	for i := len(v.parts.members) - 1; i >= 0; i-- {
		if m := &v.parts.members[i]; m.name == name {
			return &m.value
		}
	}
	return nil
}

// found is what a path leads to. Arrays are entered by number.
func (v *value) found(path []string) (at *value, missing bool) {
	for _, name := range path {
		switch v.kind {
		case kindObject:
			if v = v.get(name); v == nil {
				return nil, true
			}
		case kindArray:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(v.items()) {
				return nil, false
			}
			v = &v.items()[i]
		default:
			return nil, false
		}
	}
	return v, false
}

// typeName is what $type calls the value's kind.
func (v *value) typeName() string {
	if v.kind == kindFalse || v.kind == kindTrue {
		return "boolean"
	}
	return v.kind.String()
}

// maxDepth of documents is that of encoding/json.
const maxDepth = 10_000

type parser struct {
	text  string
	at    int
	depth int
	limit int
}

var errTooDeep = errors.New("json: exceeded max depth")

// parseJSON parses a whole text.
func parseJSON(text string, limit int) (*value, error) {
	p := &parser{text: text, limit: limit}
	v := &value{}
	p.space()
	if err := p.value(v); err != nil {
		return nil, err
	}
	p.space()
	if p.at != len(text) {
		return nil, p.unexpected()
	}
	return v, nil
}

func (p *parser) unexpected() error {
	if p.at >= len(p.text) {
		return io.ErrUnexpectedEOF // what Fabric's decoder says
	}
	return fmt.Errorf("invalid character %q at position %d of JSON", p.text[p.at], p.at)
}

func (p *parser) space() {
	for p.at < len(p.text) {
		switch p.text[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) value(v *value) error {
	if p.at >= len(p.text) {
		return p.unexpected()
	}
	start := p.at
	var err error
	switch c := p.text[p.at]; {
	case c == '{':
		err = p.object(v)
	case c == '[':
		err = p.array(v)
	case c == '"':
		v.kind = kindString
		err = p.skipString()
	case c == '-' || c >= '0' && c <= '9':
		v.kind = kindNumber
		err = p.number()
	case c == 't':
		v.kind = kindTrue
		err = p.word("true")
	case c == 'f':
		v.kind = kindFalse
		err = p.word("false")
	case c == 'n':
		v.kind = kindNull
		err = p.word("null")
	default:
		err = p.unexpected()
	}
	v.raw = p.text[start:p.at]
	return err
}

func (p *parser) word(word string) error {
	for i := range len(word) {
		if p.at >= len(p.text) || p.text[p.at] != word[i] {
			return p.unexpected()
		}
		p.at++
	}
	return nil
}

func (p *parser) enter() error {
	if p.depth++; p.depth > p.limit {
		return errTooDeep
	}
	p.at++
	p.space()
	return nil
}

func (p *parser) object(v *value) error {
	v.kind = kindObject
	if err := p.enter(); err != nil {
		return err
	}
	if p.at < len(p.text) && p.text[p.at] == '}' {
		p.at++
		p.depth--
		return nil
	}
	c := &composite{members: make([]member, 0, 8)}
	v.parts = c
	for {
		if p.at >= len(p.text) || p.text[p.at] != '"' {
			return p.unexpected()
		}
		start := p.at
		if err := p.skipString(); err != nil {
			return err
		}
		name := value{raw: p.text[start:p.at]}
		p.space()
		if p.at >= len(p.text) || p.text[p.at] != ':' {
			return p.unexpected()
		}
		p.at++
		p.space()
		c.members = append(c.members, member{name: name.string()})
		if err := p.value(&c.members[len(c.members)-1].value); err != nil {
			return err
		}
		if done, err := p.next('}'); done || err != nil {
			return err
		}
	}
}

func (p *parser) array(v *value) error {
	v.kind = kindArray
	if err := p.enter(); err != nil {
		return err
	}
	if p.at < len(p.text) && p.text[p.at] == ']' {
		p.at++
		p.depth--
		return nil
	}
	c := &composite{}
	v.parts = c
	for {
		c.items = append(c.items, value{})
		if err := p.value(&c.items[len(c.items)-1]); err != nil {
			return err
		}
		if done, err := p.next(']'); done || err != nil {
			return err
		}
	}
}

// next goes past a comma, or past the end of an array or object.
func (p *parser) next(end byte) (done bool, err error) {
	p.space()
	if p.at < len(p.text) {
		switch p.text[p.at] {
		case end:
			p.at++
			p.depth--
			return true, nil
		case ',':
			p.at++
			p.space()
			return false, nil
		}
	}
	return false, p.unexpected()
}

func (p *parser) skipString() error {
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case c == '"':
			p.at++
			return nil
		case c < ' ':
			return p.unexpected()
		case c == '\\':
			p.at++
			if p.at >= len(p.text) {
				return p.unexpected()
			}
			switch p.text[p.at] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for range 4 {
					p.at++
					if p.at >= len(p.text) || hexDigit(p.text[p.at]) < 0 {
						return p.unexpected()
					}
				}
			default:
				return p.unexpected()
			}
		}
	}
	return p.unexpected()
}

func (p *parser) digits() error {
	start := p.at
	for p.at < len(p.text) && p.text[p.at] >= '0' && p.text[p.at] <= '9' {
		p.at++
	}
	if p.at == start {
		return p.unexpected()
	}
	return nil
}

func (p *parser) number() error {
	start, exponent := p.at, false
	if p.text[p.at] == '-' {
		p.at++
	}
	if p.at < len(p.text) && p.text[p.at] == '0' {
		p.at++
	} else if err := p.digits(); err != nil {
		return err
	}
	if p.at < len(p.text) && p.text[p.at] == '.' {
		p.at++
		if err := p.digits(); err != nil {
			return err
		}
	}
	if p.at < len(p.text) && (p.text[p.at] == 'e' || p.text[p.at] == 'E') {
		exponent = true
		p.at++
		if p.at < len(p.text) && (p.text[p.at] == '+' || p.text[p.at] == '-') {
			p.at++
		}
		if err := p.digits(); err != nil {
			return err
		}
	}
	if exponent || p.at-start > 300 {
		// Fabric, which decodes numbers as 64-bit floating point, takes a value with a larger one for no JSON.
		if _, err := strconv.ParseFloat(p.text[start:p.at], 64); err != nil {
			return fmt.Errorf("json: number %.40s is out of range", p.text[start:p.at])
		}
	}
	return nil
}

func hexDigit(c byte) rune {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0')
	case c >= 'a' && c <= 'f':
		return rune(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return rune(c-'A') + 10
	}
	return -1
}

// unescape decodes the inside of a string that was parsed. What is no text becomes U+FFFD, as encoding/json has it.
func unescape(s string) string {
	b := make([]byte, 0, len(s))
	code := func(i int) rune {
		if i+6 > len(s) || s[i] != '\\' || s[i+1] != 'u' {
			return -1
		}
		return hexDigit(s[i+2])<<12 | hexDigit(s[i+3])<<8 | hexDigit(s[i+4])<<4 | hexDigit(s[i+5])
	}
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '\\' && s[i+1] == 'u':
			r := code(i)
			i += 6
			if utf16.IsSurrogate(r) {
				if joined := utf16.DecodeRune(r, code(i)); joined != utf8.RuneError {
					r = joined
					i += 6
				} else {
					r = utf8.RuneError
				}
			}
			b = utf8.AppendRune(b, r)
		case c == '\\':
			c = s[i+1]
			if n := strings.IndexByte("bfnrt", c); n >= 0 {
				c = "\b\f\n\r\t"[n]
			}
			b = append(b, c)
			i += 2
		case c < utf8.RuneSelf:
			b = append(b, c)
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
		}
	}
	return string(b)
}
