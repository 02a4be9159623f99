package jsonquery

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/text/collate"
	"golang.org/x/text/language"
)

// An order key is bytes that compare as CouchDB compares the values they stand for; none is the beginning of
// another. The first byte is the value's kind.
//
//	number  sign, exponent, decimal digits by two
//	string  three levels of collation weights, each closed by 00 01
//	array   the keys of its items, 00
//	object  the keys of its names and values in turn, by name, 00
//
// The common weight at the end of the second and third level is left out: it is the least, so that the order stays.

// collation makes order keys of strings. It belongs to one goroutine.
type collation struct {
	collator *collate.Collator // made when the first string needs it
	buffer   *collate.Buffer
}

const (
	commonSecondary = 0x20
	commonTertiary  = 0x02
)

// weights are those of one ASCII character, as the collator has them.
type weights struct {
	primary, secondary, tertiary []byte
}

// asciiWeights spares the collator for text of ASCII alone, whose characters never join in the root order.
var asciiWeights = sync.OnceValue(func() *[128]weights {
	c := newCollator()
	var table [128]weights
	for i := range table {
		var b collate.Buffer
		w := split(c.KeyFromString(&b, string(rune(i))))
		table[i] = weights{bytes.Clone(w.primary), bytes.Clone(w.secondary), bytes.Clone(w.tertiary)}
	}
	return &table
})

func newCollator() *collate.Collator { return collate.New(language.Und) }

// split takes a collator's key apart: primary weights of two or three bytes, 0 0, secondary ones of two, 0 0, tertiary ones of one.
func split(key []byte) weights {
	cut := func(width func(byte) int) []byte {
		n := 0
		for n+1 < len(key) && (key[n] != 0 || key[n+1] != 0) {
			n += width(key[n])
		}
		n = min(n, len(key))
		level := key[:n]
		key = key[min(n+2, len(key)):]
		return level
	}
	var w weights
	w.primary = cut(func(first byte) int {
		if first >= 0x80 {
			return 3
		}
		return 2
	})
	w.secondary = cut(func(byte) int { return 2 })
	w.tertiary = key
	return w
}

func (c *collation) appendString(b []byte, s string) []byte {
	b = append(b, byte(kindString))
	ascii := true
	for i := 0; ascii && i < len(s); i++ {
		ascii = s[i] < 0x80
	}
	if !ascii {
		if c.collator == nil {
			c.collator, c.buffer = newCollator(), &collate.Buffer{}
		}
		c.buffer.Reset()
		w := split(c.collator.KeyFromString(c.buffer, s))
		b = appendLevel(b, w.primary)
		b = appendLevel(b, trimSecondary(w.secondary))
		return appendLevel(b, trimTertiary(w.tertiary))
	}
	table := asciiWeights()
	for i := range len(s) {
		b = appendEscaped(b, table[s[i]].primary)
	}
	b = append(b, 0, 1)
	// All of the second level is common. An uppercase letter, and little else, has a weight of its own on the third.
	b = append(b, 0, 1)
	start, end := len(b), len(b)
	for i := range len(s) {
		t := table[s[i]].tertiary
		b = appendEscaped(b, t)
		if len(t) > 0 && t[0] != commonTertiary { // a control character has none
			end = len(b)
		}
	}
	b = b[:max(start, end)]
	return append(b, 0, 1)
}

// prefixKeys are bounds of the order keys of all strings that begin with a text; false if there are none that are sure: a
// character outside of ASCII may join with what follows.
func prefixKeys(text string) (low, high []byte, ok bool) {
	low = []byte{byte(kindString)}
	for i := range len(text) {
		if text[i] >= 0x80 {
			return nil, nil, false
		}
		low = appendEscaped(low, asciiWeights()[text[i]].primary)
	}
	high = bytes.Clone(low)
	for i := len(high) - 1; i >= 0; i-- {
		if high[i]++; high[i] != 0 {
			return low, high[:i+1], true
		}
	}
	return nil, nil, false
}

func trimSecondary(w []byte) []byte {
	for len(w) >= 2 && w[len(w)-2] == 0 && w[len(w)-1] == commonSecondary {
		w = w[:len(w)-2]
	}
	return w
}

func trimTertiary(w []byte) []byte { return bytes.TrimRight(w, string(rune(commonTertiary))) }

func appendLevel(b, w []byte) []byte { return append(appendEscaped(b, w), 0, 1) }

func appendEscaped(b, w []byte) []byte {
	for _, x := range w {
		if b = append(b, x); x == 0 {
			b = append(b, 0xff)
		}
	}
	return b
}

// appendKey appends the order key of a value.
func (c *collation) appendKey(b []byte, v *value) []byte {
	switch v.kind {
	case kindNumber:
		return appendNumber(b, v.raw)
	case kindString:
		return c.appendString(b, v.string())
	case kindArray:
		b = append(b, byte(v.kind))
		for i := range v.items() {
			b = c.appendKey(b, &v.items()[i])
		}
		return append(b, 0)
	case kindObject:
		b = append(b, byte(v.kind))
		for i, members := 0, v.sorted(); i < len(members); i++ {
			b = c.appendKey(c.appendString(b, members[i].name), &members[i].value)
		}
		return append(b, 0)
	}
	return append(b, byte(v.kind))
}

// decimal is 0.DIGITS * 10^exponent. The digits neither begin nor end with 0; there are none if it is zero.
type decimal struct {
	negative bool
	exponent int
	digits   string
}

// underflow is far below the smallest number of 64-bit floating point: what is smaller is zero.
const underflow = -400

func parseDecimal(raw string) decimal {
	d := decimal{}
	if raw[0] == '-' {
		d.negative, raw = true, raw[1:]
	}
	shift := 0
	if i := strings.IndexAny(raw, "eE"); i >= 0 {
		n, err := strconv.Atoi(strings.TrimPrefix(raw[i+1:], "+"))
		if err != nil { // more digits than an int has: zero, or else the value had been refused
			return decimal{}
		}
		shift, raw = n, raw[:i]
	}
	whole, fraction, _ := strings.Cut(raw, ".")
	digits := whole + fraction
	d.exponent = len(whole) + shift
	trimmed := strings.TrimLeft(digits, "0")
	d.exponent -= len(digits) - len(trimmed)
	d.digits = strings.TrimRight(trimmed, "0")
	if len(d.digits) == 0 || d.exponent < underflow {
		return decimal{}
	}
	return d
}

// whole tells whether it is an integer to CouchDB, behind Fabric: which writes large numbers with an exponent.
func (d decimal) whole() bool {
	return len(d.digits) <= d.exponent && d.exponent <= 21 || len(d.digits) == 0
}

func appendNumber(b []byte, raw string) []byte {
	d := parseDecimal(raw)
	b = append(b, byte(kindNumber))
	if len(d.digits) == 0 {
		return append(b, 2)
	}
	sign := byte(3)
	if d.negative {
		sign = 1
	}
	b = append(b, sign)
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, uint16(d.exponent+0x4000))
	for i := 0; i < len(d.digits); i += 2 {
		two := (d.digits[i] - '0') * 10
		if i+1 < len(d.digits) {
			two += d.digits[i+1] - '0'
		}
		b = append(b, two+1)
	}
	b = append(b, 0)
	if d.negative {
		for i := start; i < len(b); i++ {
			b[i] = ^b[i]
		}
	}
	return b
}

// same tells whether two values are the same: numbers by what they are worth, strings by their bytes. It is what $all asks, where
// other conditions compare in order.
func same(a, b *value) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case kindNumber:
		return bytes.Equal(appendNumber(nil, a.raw), appendNumber(nil, b.raw))
	case kindString:
		return a.string() == b.string()
	case kindArray:
		x, y := a.items(), b.items()
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if !same(&x[i], &y[i]) {
				return false
			}
		}
	case kindObject:
		x, y := a.sorted(), b.sorted()
		if len(x) != len(y) {
			return false
		}
		for i := range x {
			if x[i].name != y[i].name || !same(&x[i].value, &y[i].value) {
				return false
			}
		}
	}
	return true
}
