package contractpackage_test

import (
	"testing"

	"github.com/hansa-ledger/hansa/internal/contractpackage"
)

func TestIndexes(t *testing.T) {
	code, err := contractpackage.WriteCode(map[string][]byte{
		"META-INF/statedb/couchdb/indexes/owner.json":                  []byte("1"),
		"META-INF/statedb/couchdb/indexes/readme.md":                   []byte("2"),
		"META-INF/statedb/couchdb/indexes/deeper/size.json":            []byte("3"),
		"META-INF/statedb/couchdb/collections/secret/indexes/who.json": []byte("4"),
		"META-INF/statedb/couchdb/collections/a.b/indexes/who.json":    []byte("5"),
		"src/META-INF/statedb/couchdb/indexes/size.json":               []byte("6"),
		"connection.json": []byte("{}"),
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := contractpackage.Write(contractpackage.Metadata{Type: "ccaas", Label: "one"}, code)
	if err != nil {
		t.Fatal(err)
	}
	p, err := contractpackage.Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	found, err := p.Indexes()
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, x := range found {
		got += x.Collection + "=" + string(x.Content) + " "
	}
	if got != "secret=4 =1 =6 " {
		t.Errorf("indexes %q", got)
	}
}
