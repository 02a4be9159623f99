package shipments_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hansa-ledger/hansa/examples/shipments"
)

var options = shipments.Options{Seed: 7, Count: 3000, Members: []string{"Org1MSP", "Org2MSP"}, Flawed: 0.03}

func text(t *testing.T, o shipments.Options) string {
	t.Helper()
	set, err := shipments.Make(o)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	n, err := set.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("wrote %d of %d bytes: %v", n, b.Len(), err)
	}
	return b.String()
}

func TestSameSeedSameBytes(t *testing.T) {
	if first, second := text(t, options), text(t, options); first != second {
		t.Error("one seed gave two files")
	}
	other := options
	other.Seed++
	if text(t, options) == text(t, other) {
		t.Error("two seeds gave one file")
	}
}

// The counts of a set are what an application will find rejected.
func TestCounts(t *testing.T) {
	set, err := shipments.Make(options)
	if err != nil {
		t.Fatal(err)
	}
	seen, duplicates := map[string]bool{}, 0
	for _, line := range set.Lines {
		var r struct{ ID string }
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if seen[r.ID] {
			duplicates++
		}
		seen[r.ID] = true
	}
	if duplicates != set.Duplicates || set.Duplicates == 0 || set.Invalid == 0 || set.Good()+set.Duplicates+set.Invalid != options.Count {
		t.Errorf("%d ids are given twice; the set says %d duplicates, %d invalid, %d good", duplicates, set.Duplicates, set.Invalid, set.Good())
	}
}

// Real variety: with few kinds of records a ledger would be tested on little.
func TestVariety(t *testing.T) {
	clean := options
	clean.Flawed = 0
	lines := strings.Split(strings.TrimSpace(text(t, clean)), "\n")
	goods, routes, shortest, longest, foreign := map[string]bool{}, map[string]bool{}, 1<<20, 0, 0
	optional := map[bool]int{}
	for _, line := range lines {
		var r shipments.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		goods[r.Goods] = true
		routes[r.Origin.City+r.Destination.City] = true
		shortest, longest = min(shortest, len(line)), max(longest, len(line))
		optional[r.Cooling != nil]++
		if utf8.RuneCountInString(line) < len(line) {
			foreign++
		}
		if r.Pieces < 1 || r.WeightKg <= 0 || len(r.Goods) > 200 || r.Origin == r.Destination {
			t.Errorf("the contract would reject %s", line)
		}
	}
	if len(goods) < 1000 || len(routes) < 900 || longest < 2*shortest || optional[true] < 300 || optional[false] < 300 || foreign < 1000 {
		t.Errorf("%d goods, %d routes, %d to %d bytes, %v cooled, %d with letters beyond ASCII", len(goods), len(routes), shortest, longest, optional, foreign)
	}
}

func TestBadOptions(t *testing.T) {
	for want, o := range map[string]shipments.Options{
		"count is 0":      {Members: []string{"A"}},
		"members is empt": {Count: 1},
		"flawed is 0.7":   {Count: 1, Members: []string{"A"}, Flawed: 0.7},
		`series "a-b"`:    {Count: 1, Members: []string{"A"}, Series: "a-b"},
	} {
		if _, err := shipments.Make(o); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
}
