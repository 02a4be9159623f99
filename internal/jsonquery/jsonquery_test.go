package jsonquery_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/collate"
	"golang.org/x/text/language"

	"github.com/hansa-ledger/hansa/internal/jsonquery"
)

func matches(t *testing.T, selector, doc string) bool {
	t.Helper()
	q, err := jsonquery.Parse(`{"selector":` + selector + `}`)
	if err != nil {
		t.Fatalf("%s: %v", selector, err)
	}
	d, ok := jsonquery.ParseDocument("key1", []byte(doc))
	if !ok {
		t.Fatalf("%s is no document", doc)
	}
	return q.Matcher().Match(d)
}

// What CouchDB's documentation and its own tests say of each operator.
func TestOperators(t *testing.T) {
	const movie = `{"title":"The Long Day","year":2010,"rate":7.5,"genre":["Comedy","Short"],"imdb":{"rating":6.5,"votes":12},
		"cameras":{"primary":1,"secondary":2},"scores":[81,84],"empty":{},"none":null,"yes":true,"no":false,"a.b":9,"big":12345678901234567890,
		"cast":[{"name":"Ann","age":30},{"name":"Bob","age":50}],"list":[[1,2],3],"whole":4.0,"accent":"e\u0301t\u0065"}`
	for _, c := range []struct {
		selector string
		want     bool
	}{
		{`{}`, true},
		{`{"year":2010}`, true},
		{`{"year":2010.0}`, true},
		{`{"year":20.10e2}`, true},
		{`{"year":{"$eq":2010},"title":"The Long Day"}`, true},
		{`{"year":2010,"title":"Other"}`, false},
		{`{"year":{"$gt":2009,"$lt":2011}}`, true},
		{`{"year":{"$gt":2010}}`, false},
		{`{"year":{"$gte":2010}}`, true},
		{`{"year":{"$lt":"a string comes behind numbers"}}`, true},
		{`{"year":{"$gt":null}}`, true},
		{`{"none":{"$gt":null}}`, false},
		{`{"none":null}`, true},
		{`{"no":{"$lt":true}}`, true},
		{`{"year":{"$ne":2011}}`, true},
		{`{"absent":{"$ne":2011}}`, false},
		{`{"year":{"$lte":2010}}`, true},
		{`{"imdb":{"rating":6.5}}`, true},
		{`{"imdb.rating":6.5}`, true},
		{`{"imdb":{"rating":{"$gt":6}}}`, true},
		{`{"imdb":{"rating":6.5,"votes":12}}`, true},
		{`{"imdb":{"$eq":{"rating":6.5}}}`, false},
		{`{"imdb":{"$eq":{"votes":12,"rating":6.5}}}`, true},
		{`{"empty":{}}`, true},
		{`{"imdb":{}}`, false},
		{`{"a\\.b":9}`, true},
		{`{"a.b":9}`, false},
		{`{"genre.0":"Comedy"}`, true},
		{`{"genre.2":"Comedy"}`, false},
		{`{"genre":["Comedy","Short"]}`, true},
		{`{"year":{"$exists":true}}`, true},
		{`{"year":{"$exists":false}}`, false},
		{`{"absent":{"$exists":false}}`, true},
		{`{"absent":{"$exists":true}}`, false},
		{`{"year.x":{"$exists":false}}`, false}, // a path into a number is bad, not missing
		{`{"$not":{"absent":{"$exists":true}}}`, true},
		{`{"year":{"$type":"number"}}`, true},
		{`{"none":{"$type":"null"}}`, true},
		{`{"yes":{"$type":"boolean"}}`, true},
		{`{"genre":{"$type":"array"}}`, true},
		{`{"imdb":{"$type":"object"}}`, true},
		{`{"title":{"$type":"string"}}`, true},
		{`{"year":{"$in":[1900,2010]}}`, true},
		{`{"genre":{"$in":["Short"]}}`, true},
		{`{"genre":{"$nin":["Short"]}}`, false},
		{`{"year":{"$nin":[1,2]}}`, true},
		{`{"absent":{"$nin":[1,2]}}`, false},
		{`{"genre":{"$size":2}}`, true},
		{`{"genre":{"$size":1}}`, false},
		{`{"year":{"$mod":[10,0]}}`, true},
		{`{"year":{"$mod":[-7,1]}}`, true},
		{`{"rate":{"$mod":[2,1]}}`, false},
		{`{"whole":{"$mod":[3,1]}}`, true},
		{`{"big":{"$mod":[9,3]}}`, false},
		{`{"big":{"$mod":[10,0]}}`, true},
		{`{"big":{"$gt":12345678901234567889}}`, true},
		{`{"big":12345678901234567891}`, false},
		{`{"title":{"$regex":"^The .*y$"}}`, true},
		{`{"title":{"$regex":"long"}}`, false},
		{`{"title":{"$regex":"(?i)long"}}`, true},
		{`{"year":{"$regex":"2"}}`, false},
		{`{"title":{"$beginsWith":"The"}}`, true},
		{`{"title":{"$beginsWith":"the"}}`, false},
		{`{"title":{"$beginsWith":""}}`, true},
		{`{"accent":{"$beginsWith":"e"}}`, false}, // it begins with an é, as two characters
		{`{"accent":{"$beginsWith":"e\u0301t"}}`, true},
		{`{"accent":{"$regex":"^.{5}$"}}`, true}, // bytes
		{`{"accent":{"$regex":"t"}}`, true},
		{`{"list":{"$elemMatch":{"$nor":[{"$eq":7}]}}}`, false}, // CouchDB does not know it there
		{`{"list":{"$elemMatch":{"$or":[{"$eq":3},{"$nor":[{"$eq":7}]}]}}}`, false},
		{`{"list":{"$elemMatch":{"$or":[{"$type":"array"},{"$nor":[{"$eq":7}]}]}}}`, true},
		{`{"list":{"$not":{"$elemMatch":{"$nor":[{"$eq":7}]}}}}`, true},
		{`{"list":{"$allMatch":{"$not":{"$nor":[{"$eq":3}]}}}}`, false},
		{`{"genre":{"$all":["Comedy","Short"]}}`, true},
		{`{"genre":{"$all":["Comedy","Long"]}}`, false},
		{`{"genre":{"$all":[["Comedy","Short"]]}}`, true},
		{`{"list":{"$all":[[1,2]]}}`, true},
		{`{"genre":{"$all":[]}}`, false},
		{`{"genre":{"$elemMatch":{"$eq":"Short"}}}`, true},
		{`{"cast":{"$elemMatch":{"name":"Bob","age":{"$gt":40}}}}`, true},
		{`{"cast":{"$elemMatch":{"name":"Ann","age":{"$gt":40}}}}`, false},
		{`{"scores":{"$elemMatch":{"$gte":80,"$lt":82}}}`, true},
		{`{"scores":{"$allMatch":{"$gte":80,"$lt":85}}}`, true},
		{`{"scores":{"$allMatch":{"$gte":82}}}`, false},
		{`{"empty":{"$allMatch":{"$gte":82}}}`, false},
		{`{"cameras":{"$keyMapMatch":{"$eq":"secondary"}}}`, true},
		{`{"cameras":{"$keyMapMatch":{"$eq":"third"}}}`, false},
		{`{"$and":[{"year":2010},{"rate":{"$gt":7}}]}`, true},
		{`{"$and":[]}`, true},
		{`{"$or":[{"year":1},{"rate":7.5}]}`, true},
		{`{"$or":[{"year":1},{"rate":1}]}`, false},
		{`{"year":{"$or":[1,2010]}}`, true},
		{`{"year":{"$and":[{"$gt":1},{"$lt":3000}]}}`, true},
		{`{"$nor":[{"year":1},{"rate":1}]}`, true},
		{`{"$nor":[{"year":2010},{"rate":1}]}`, false},
		{`{"$nor":[{"absent":1}]}`, false}, // negations want the field
		{`{"$not":{"year":1}}`, true},
		{`{"$not":{"absent":1}}`, false},
		{`{"year":{"$not":{"$gt":3000}}}`, true},
		{`{"title":{"$not":{"$regex":"xyz"}}}`, true},
		{`{"$not":{"$and":[{"year":2010},{"rate":1}]}}`, true},
		{`{"$not":{"$not":{"year":2010}}}`, true},
		{`{"_id":"key1"}`, true},
		{`{"_id":{"$gt":null,"$lt":"key2"}}`, true},
		{`{"_id":{"$in":["key0","key1"]}}`, true},
		{`{"_id":{"$gt":"KEY1"}}`, true},
		{`{"title":{"$gt":"THE LONG DAY"}}`, false}, // collation: lower case first
		{`{"title":{"$lt":"the long day"}}`, false},
	} {
		if got := matches(t, c.selector, movie); got != c.want {
			t.Errorf("%s: %v, want %v", c.selector, got, c.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	const prefix = "error handling CouchDB request. Error:"
	for _, c := range []struct{ query, want string }{
		{`{}`, prefix + "missing_required_key,  Status Code:400,  Reason:Missing required key: selector"},
		{`{"selector":[]}`, prefix + "invalid_selector_json"},
		{`{"selector":{"a":{"$foo":1}}}`, prefix + "invalid_operator,  Status Code:400,  Reason:Invalid operator: $foo"},
		{`{"selector":{"$text":"x"}}`, prefix + "not_supported"},
		{`{"selector":{"$eq":1}}`, prefix + "invalid_selector,  Status Code:400,  Reason:One or more conditions is missing a field name."},
		{`{"selector":{"a":{"$in":1}}}`, prefix + "bad_arg,  Status Code:400,  Reason:Bad argument for operator $in: 1"},
		{`{"selector":{"a":{"$mod":[0,1]}}}`, prefix + "bad_arg"},
		{`{"selector":{"a":{"$mod":[1.5,1]}}}`, prefix + "bad_arg"},
		{`{"selector":{"a":{"$regex":"("}}}`, prefix + "bad_arg"},
		{`{"selector":{"a":{"$regex":"(?=x)"}}}`, "RE2"},
		{`{"selector":{"a":{"$size":-1}}}`, prefix + "bad_arg"},
		{`{"selector":{"a":{"$exists":"yes"}}}`, prefix + "bad_arg"},
		{`{"selector":{"a..b":1}}`, prefix + "invalid_field_name"},
		{`{"selector":{},"what":1}`, prefix + "invalid_key,  Status Code:400,  Reason:Invalid key what for this request."},
		{`{"selector":{},"sort":[{"a":"asc"},{"b":"desc"}]}`, prefix + "unsupported_mixed_sort"},
		{`{"selector":{},"sort":"a"}`, prefix + "invalid_sort_json"},
		{`{"selector":{},"fields":"a"}`, "fields definition must be an array"},
		{`{"selector":{},"skip":-1}`, prefix + "invalid_non_neg_integer"},
		{`{"selector":`, "unexpected EOF"},
		{`{"selector":` + strings.Repeat(`{"a":`, 300) + `1` + strings.Repeat(`}`, 301), "exceeded max depth"},
		{`{"selector":{"$and":[` + strings.Repeat(`{"a":{"$regex":"a"}},`, 200) + `{}]}}`, prefix + "bad_arg"},
		{`{"selector":{"a":{"$in":[` + strings.Repeat(" ", jsonquery.MaxQuery) + `]}}}`, "more than the"},
	} {
		_, err := jsonquery.Parse(c.query)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: %v, want %q", c.query, err, c.want)
		}
	}
}

// The order that CouchDB documents for keys of views, by CLDR's root collation.
func TestOrder(t *testing.T) {
	ordered := []string{
		`null`, `false`, `true`,
		`-123456789012345678901234567890`, `-1e300`, `-2`, `-1.5`, `-1`, `-1e-300`, `0`, `1e-300`, `0.1`, `0.10000000000000000001`, `1`, `1.5`, `2`, `10`, `99`, `9007199254740993`, `9007199254740994`, `1e300`,
		`""`, `" "`, `"_"`, `"-"`, `","`, `"!"`, `"("`, `"@"`, `"#"`, `"+"`, `"$"`, `"1"`, `"10"`, `"2"`,
		`"a"`, `"A"`, `"á"`, `"aa"`, `"Aa"`, `"b"`, `"B"`, `"ba"`, `"bb"`, `"résumé"`, `"résumés"`, `"z"`, `"Ω"`, `"日本"`,
		`[]`, `["a"]`, `["b"]`, `["b","c"]`, `["b","c","a"]`, `["b","d"]`, `["b","d","e"]`, `[[]]`,
		`{}`, `{"a":1}`, `{"a":2}`, `{"b":1}`, `{"b":2}`, `{"b":2,"c":2}`,
	}
	// -123456789012345678901234567890 is above -1e300.
	ordered[3], ordered[4] = ordered[4], ordered[3]
	for i, a := range ordered {
		for j, b := range ordered {
			got := matches(t, `{"v":{"$lt":`+b+`}}`, `{"v":`+a+`}`)
			if got != (i < j) {
				t.Errorf("%s < %s: %v", a, b, got)
			}
			if equal := matches(t, `{"v":{"$eq":`+b+`}}`, `{"v":`+a+`}`); equal != (i == j) {
				t.Errorf("%s = %s: %v", a, b, equal)
			}
		}
	}
	for _, same := range [][2]string{{`1`, `1.000`}, {`100`, `1e2`}, {`0`, `-0.0e5`}, {`"a"`, `"\u0061"`}, {`"é"`, `"e\u0301"`}, {`{"a":1,"b":2}`, `{"b":2,"a":0,"a":1}`}, {`0`, `1e-500`}} {
		if !matches(t, `{"v":{"$eq":`+same[0]+`}}`, `{"v":`+same[1]+`}`) {
			t.Errorf("%s and %s differ", same[0], same[1])
		}
	}
}

// TestCollation compares random strings with the collator itself, which the order keys of ASCII text go around.
func TestCollation(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	runes := []rune("aAbBcCzZ019 _-,.'\"$~\t\u0001\u007féÉèßøñÆ\u0301\u0308\u0327日本語한글Ωωя😀\u200d")
	text := func(n int) string {
		s := make([]rune, r.IntN(6))
		for i := range s {
			s[i] = runes[r.IntN(n)]
		}
		return string(s)
	}
	quote := func(s string) string {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	collator := collate.New(language.Und)
	for i := range 5000 {
		n := len(runes)
		if i%2 == 0 {
			n = 22 // ASCII
		}
		a, b := text(n), text(len(runes))
		want := collator.CompareString(a, b)
		if got := matches(t, `{"v":{"$lt":`+quote(b)+`}}`, `{"v":`+quote(a)+`}`); got != (want < 0) {
			t.Errorf("%q < %q: %v", a, b, got)
		}
		if got := matches(t, `{"v":`+quote(b)+`}`, `{"v":`+quote(a)+`}`); got != (want == 0) {
			t.Errorf("%q = %q: %v", a, b, got)
		}
	}
}

func TestDocuments(t *testing.T) {
	for _, raw := range []string{``, `1`, `"a"`, `[]`, `null`, `{`, `{"a":1}x`, `{"a":01}`, `{"a":1e999}`, `{a:1}`, `{"a":"` + "\n" + `"}`, "\xff", `{"a":tru}`, `{"a":1,}`} {
		if _, ok := jsonquery.ParseDocument("k", []byte(raw)); ok {
			t.Errorf("%q is a document", raw)
		}
	}
	deep := strings.Repeat(`{"a":`, 9_000) + `1` + strings.Repeat(`}`, 9_000)
	if _, ok := jsonquery.ParseDocument("k", []byte(" \n"+deep+" ")); !ok {
		t.Error("a deep document is none")
	}
	if _, ok := jsonquery.ParseDocument("k", []byte(strings.Repeat(`{"a":`, 20_000))); ok {
		t.Error("a document that is too deep is one")
	}
}

func TestIndexDefinitions(t *testing.T) {
	for _, bad := range []string{
		``, `[]`, `{}`, `{"index":{}}`, `{"index":{"fields":[]}}`, `{"index":{"fields":"a"}}`, `{"index":{"fields":[1]}}`, `{"index":{"fields":[{"a":"up"}]}}`,
		`{"index":{"fields":["a"]},"type":"text"}`, `{"index":{"fields":["a"]},"other":1}`, `{"index":{"fields":["a"],"other":1}}`, `{"index":{"fields":["a"]},"ddoc":1}`,
		`{"index":{"fields":["a"],"partial_filter_selector":{"a":{"$x":1}}}}`, `{"index":{"fields":[{"a":"asc"},{"b":"desc"}]}}`, `{"index":{"fields":["a..b"]}}`,
	} {
		if x, err := jsonquery.ParseIndex([]byte(bad)); err == nil {
			t.Errorf("%s is accepted: %+v", bad, x)
		}
	}
	x, err := jsonquery.ParseIndex([]byte(`{"index":{"fields":["docType",{"owner.name":"asc"}]},"ddoc":"indexOwnerDoc","name":"indexOwner","type":"json"}`))
	if err != nil || x.Design != "indexOwnerDoc" || x.Name != "indexOwner" || strings.Join(x.Fields, " ") != "docType owner.name" {
		t.Errorf("%+v %v", x, err)
	}
}

// Which index CouchDB's planner takes.
func TestPlan(t *testing.T) {
	define := func(ddoc, fields string, extra ...string) *jsonquery.Index {
		x, err := jsonquery.ParseIndex([]byte(`{"ddoc":"` + ddoc + `","name":"n","index":{"fields":[` + fields + `]` + strings.Join(extra, "") + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	indexes := []*jsonquery.Index{
		define("ab", `"a","b"`), define("a", `"a"`), define("a2", `"a"`), define("c", `"c"`), define("abc", `"a","b","c"`),
		define("part", `"a"`, `,"partial_filter_selector":{"z":1}`), define("nested", `"x.y"`),
	}
	for _, c := range []struct{ query, want string }{
		{`{"selector":{"a":1}}`, "a"},
		{`{"selector":{"a":1,"b":2}}`, "ab"},
		{`{"selector":{"a":1,"b":{"$exists":true}}}`, "ab"}, // as CouchDB since 3.4
		{`{"selector":{"a":1,"b":{"$beginsWith":"x"}}}`, "ab"},
		{`{"selector":{"a":1,"b":{"$regex":"x"}}}`, "a"},
		{`{"selector":{"a":1,"b":2,"c":3}}`, "abc"},
		{`{"selector":{"b":1}}`, ""},
		{`{"selector":{}}`, ""},
		{`{"selector":{"a":{"$regex":"x"}}}`, "a"},
		{`{"selector":{"a":{"$exists":false}}}`, ""},
		{`{"selector":{"$or":[{"a":1},{"a":2}]}}`, "a"},
		{`{"selector":{"$or":[{"a":1},{"c":2}]}}`, ""},
		{`{"selector":{"x":{"y":1}}}`, "nested"},
		{`{"selector":{"a":1},"use_index":"a2"}`, "a2"},
		{`{"selector":{"a":1},"use_index":["_design/a2","n"]}`, "a2"},
		{`{"selector":{"a":1},"use_index":"nosuch"}`, "a"},
		{`{"selector":{"a":1},"use_index":"part"}`, "part"},
		{`{"selector":{"a":1},"sort":["b"]}`, "ab"},
		{`{"selector":{"a":{"$gt":1}},"sort":["b"]}`, "no_usable_index"},
		{`{"selector":{"b":1},"sort":["a","b"]}`, "ab"},
		{`{"selector":{"q":1},"sort":["a"]}`, "a"},
		{`{"selector":{"_id":{"$gt":null}},"sort":["_id"]}`, ""},
		{`{"selector":{"a":1},"sort":["_id"]}`, "no_usable_index"},
		{`{"selector":{"a":1},"sort":[{"q":"desc"}]}`, "no_usable_index"},
	} {
		q, err := jsonquery.Parse(c.query)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if p, err := q.Plan(indexes); err != nil {
			got = err.Error()
		} else if p.Index != nil {
			got = p.Index.Design
		}
		if got != c.want && !(c.want == "no_usable_index" && strings.Contains(got, "No index exists for this sort, try indexing by the sort fields.")) {
			t.Errorf("%s: %q, want %q", c.query, got, c.want)
		}
	}
}

// What begins with a text lies between the bounds of the walk over an index, whatever follows the text.
func TestBeginsWithBounds(t *testing.T) {
	x, err := jsonquery.ParseIndex([]byte(`{"index":{"fields":["v"]},"name":"v"}`))
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	runes := []rune("aAbBcCzZlL019 _-,.'\"$~\t\u0001\u007f·féÉèßøñÆ\u0301\u0308\u0327\u200d\u0e40\u0e01日本語한글Ωωяй😀\uffff\U0010ffff")
	text := func(n, from int) string {
		s := make([]rune, r.IntN(n))
		for i := range s {
			s[i] = runes[r.IntN(from)]
		}
		return string(s)
	}
	bounded, narrow := 0, 0
	keyer := &jsonquery.Keyer{}
	for range 4000 {
		prefix, rest := text(4, 27), text(4, len(runes))
		quoted, err := json.Marshal(map[string]any{"selector": map[string]any{"v": map[string]string{"$beginsWith": prefix}}})
		if err != nil {
			t.Fatal(err)
		}
		q, err := jsonquery.Parse(string(quoted))
		if err != nil {
			t.Fatal(err)
		}
		p, err := q.Plan([]*jsonquery.Index{x})
		if err != nil || p.Index != x {
			t.Fatal(p, err)
		}
		for _, value := range []string{prefix + rest, rest} {
			raw, err := json.Marshal(map[string]string{"v": value})
			if err != nil {
				t.Fatal(err)
			}
			d, _ := jsonquery.ParseDocument("k", raw)
			key, _ := keyer.Append(nil, x, d)
			inside := (p.Low.Key == nil || bytes.Compare(key, p.Low.Key) >= 0) && (p.High.Key == nil || bytes.Compare(key, p.High.Key) < 0)
			if q.Matcher().Match(d) && !inside {
				t.Errorf("%q begins with %q and is not between its bounds", value, prefix)
			}
			if !inside {
				narrow++
			}
		}
		if p.Low.Key != nil {
			bounded++
		}
	}
	if bounded < 1000 || narrow < 500 {
		t.Errorf("%d of 4000 had bounds, %d values were outside", bounded, narrow)
	}
}

// What CouchDB answers with nothing without looking, and what it warns of.
func TestPlanWarnings(t *testing.T) {
	x, err := jsonquery.ParseIndex([]byte(`{"ddoc":"d","name":"n","index":{"fields":["a"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	const unindexed = "No matching index found, create an index to optimize query time."
	for _, c := range []struct {
		query, warning string
		empty          bool
	}{
		{`{"selector":{"a":1}}`, "", false},
		{`{"selector":{"b":1}}`, unindexed, false},
		{`{"selector":{"a":1},"use_index":"_design/d"}`, "", false},
		{`{"selector":{"a":1},"use_index":"other"}`, "_design/other was not used because it does not contain a valid index for this query.", false},
		{`{"selector":{"b":1},"use_index":["d","n"]}`, "_design/d, n was not used because it is not a valid index for this query.\n" + unindexed, false},
		{`{"selector":{}}`, unindexed, false},
		{`{"selector":{"$and":[]}}`, unindexed, true},
		{`{"selector":{"$or":[]}}`, unindexed, true},
		{`{"selector":{"$nor":[]}}`, unindexed, true},
		{`{"selector":{"$not":{"$or":[]}}}`, unindexed, true},
		{`{"selector":{"b":1,"$or":[]}}`, unindexed, false},
		{`{"selector":{"a":{"$gt":2,"$lt":1}}}`, "", true},
		{`{"selector":{"a":{"$gt":1,"$lte":1}}}`, "", true},
		{`{"selector":{"a":{"$gte":1,"$lte":1}}}`, "", false},
		{`{"selector":{"a":{"$beginsWith":"b","$lt":"a"}}}`, "", true},
		{`{"selector":{"a":{"$beginsWith":"b","$gte":"b"}}}`, "", false},
		{`{"selector":{"_id":{"$gt":"a","$lt":"B"}}}`, unindexed, false}, // as text a is before B, by bytes behind it
		{`{"selector":{"_id":{"$gt":"B","$lt":"a"}}}`, unindexed, true},
	} {
		q, err := jsonquery.Parse(c.query)
		if err != nil {
			t.Fatal(err)
		}
		p, err := q.Plan([]*jsonquery.Index{x})
		if err != nil || p.Warning != c.warning || p.Empty != c.empty {
			t.Errorf("%s: %+v %v, want %q %v", c.query, p, err, c.warning, c.empty)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{`{"selector":{"a":{"$gt":1}},"sort":["a"],"limit":5}`, `{"selector":{"$or":[{"a.b":{"$elemMatch":{"$not":{"$in":[1]}}}}]}}`, `{"selector":{"a":{"$mod":[3,1]},"_id":"x"}}`} {
		f.Add(s, `{"a":1,"b":["x",{"y":null}],"s":"\ud83d\ude00"}`)
	}
	index, err := jsonquery.ParseIndex([]byte(`{"index":{"fields":["a"]}}`))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, query, doc string) {
		q, err := jsonquery.Parse(query)
		if err != nil {
			return
		}
		p, err := q.Plan([]*jsonquery.Index{index})
		d, ok := jsonquery.ParseDocument("k", []byte(doc))
		if !ok {
			return
		}
		match := q.Matcher().Match(d)
		if _, err := q.Result(d, []byte(doc)); err != nil {
			t.Error(err)
		}
		if err != nil || p.Index == nil || !match || len(q.Sort) > 0 {
			return
		}
		key, in := new(jsonquery.Keyer).Append(nil, p.Index, d)
		switch k := string(key); {
		case !in:
			t.Error("a selected document is not in the index")
		case p.Empty || p.Low.Key != nil && k < string(p.Low.Key) || p.High.Key != nil && !strings.HasPrefix(k, string(p.High.Key)) && k > string(p.High.Key):
			t.Errorf("a selected document is outside of the bounds: %x not in %x to %x", k, p.Low.Key, p.High.Key)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add(`{"index":{"fields":["a",{"b.c":"asc"}],"partial_filter_selector":{"a":{"$gt":1}}},"ddoc":"d","name":"n","type":"json"}`, `{"a":2,"b":{"c":"x"}}`)
	f.Fuzz(func(t *testing.T, definition, doc string) {
		x, err := jsonquery.ParseIndex([]byte(definition))
		if err != nil {
			return
		}
		if d, ok := jsonquery.ParseDocument("k", []byte(doc)); ok {
			new(jsonquery.Keyer).Append(nil, x, d)
		}
	})
}
