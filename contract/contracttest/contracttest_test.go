package contracttest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/contract"
	"github.com/hansa-ledger/hansa/contract/contracttest"
)

func notes() *contract.Contract {
	c := contract.New("notes")
	c.Submit("Put", func(ctx *contract.Context, key, value string) (string, error) {
		if err := ctx.Put(key, []byte(value)); err != nil {
			return "", err
		}
		if err := ctx.Emit("put", []byte(key)); err != nil {
			return "", err
		}
		before, err := ctx.Get(key)
		return string(before), err
	})
	c.Submit("Delete", func(ctx *contract.Context, key string) error { return ctx.Delete(key) })
	c.Submit("Count", func(ctx *contract.Context, into string) error {
		n := 0
		for _, err := range ctx.Range("a", "n") {
			if err != nil {
				return err
			}
			n++
		}
		return ctx.Put(into, fmt.Append(nil, n))
	})
	c.Submit("PageAndWrite", func(ctx *contract.Context) error {
		if _, err := ctx.RangePage("", "", 10, ""); err != nil {
			return err
		}
		return ctx.Put("a", []byte("b"))
	})
	c.Submit("Secret", func(ctx *contract.Context, collection, key string) error {
		return ctx.Private(collection).Put(key, ctx.Transient()["secret"])
	})
	c.Evaluate("Reveal", func(ctx *contract.Context, collection, key string) ([]byte, error) {
		return ctx.Private(collection).Get(key)
	})
	c.Submit("Ask", func(ctx *contract.Context, name, key, value string) ([]byte, error) {
		return ctx.Invoke(name, "Put", key, value)
	})
	c.Submit("Protect", func(ctx *contract.Context, key string, by []string) error { return ctx.SetEndorsers(key, by...) })
	c.Evaluate("Protectors", func(ctx *contract.Context, key string) ([]string, error) { return ctx.Endorsers(key) })
	c.Evaluate("Who", func(ctx *contract.Context) (string, error) {
		client, err := ctx.Client()
		if err != nil {
			return "", err
		}
		return client.MSPID + " " + client.Certificate.Subject.CommonName, nil
	})
	return c
}

func newLedger(t *testing.T) (*contracttest.Ledger, *contracttest.Client) {
	l := contracttest.New(t)
	l.Deploy("one", notes())
	l.Deploy("two", notes())
	return l, l.Client("Org1MSP", "ann", nil)
}

func must(t *testing.T, c *contracttest.Client, call ...string) string {
	t.Helper()
	result, err := c.Submit(call[0], call[1:]...)
	if err != nil {
		t.Fatalf("%q: %v", call, err)
	}
	return string(result)
}

func TestTransactionsAreAtomicAndDoNotReadTheirWrites(t *testing.T) {
	l, ann := newLedger(t)
	if got := must(t, ann, "Put", "a", "1"); got != "" {
		t.Errorf("read its own write: %q", got)
	}
	if got, err := ann.Evaluate("Put", "a", "2"); err != nil || string(got) != "1" || string(l.Get("a")) != "1" {
		t.Error(string(got), err, string(l.Get("a")))
	}
	if events := l.Events(); len(events) != 1 || events[0].Name != "put" || events[0].Contract != "one" {
		t.Error(events)
	}
	must(t, ann, "Delete", "a")
	if l.Get("a") != nil || len(l.Keys()) != 0 {
		t.Error("it is still there")
	}
	if got := must(t, ann, "Who"); got != "Org1MSP ann" {
		t.Error(got)
	}
}

func TestConflicts(t *testing.T) {
	l, ann := newLedger(t)
	for _, test := range []struct {
		first, second []string
		conflict      bool
	}{
		{[]string{"Put", "a", "1"}, []string{"Put", "a", "2"}, true}, // Put reads
		{[]string{"Put", "b", "1"}, []string{"Put", "c", "2"}, false},
		{[]string{"Put", "d", "1"}, []string{"Count", "z"}, true}, // a new key in the range
		{[]string{"Put", "x", "1"}, []string{"Count", "z"}, false},
		{[]string{"Delete", "d"}, []string{"Count", "z"}, true},
		{[]string{"Delete", "b"}, []string{"Delete", "b"}, false}, // blind
	} {
		one, err := ann.Simulate(test.first[0], test.first[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		two, err := ann.Simulate(test.second[0], test.second[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		if err := one.Commit(); err != nil {
			t.Error(test, err)
		}
		if err := two.Commit(); errors.Is(err, contracttest.ErrConflict) != test.conflict {
			t.Error(test, err)
		}
		if err := one.Commit(); err == nil {
			t.Error("committed twice")
		}
	}
	if string(l.Get("a")) != "1" {
		t.Errorf("%s", l.Get("a"))
	}
}

func TestPrivateDataNeedCollectionAndMember(t *testing.T) {
	l, ann := newLedger(t)
	bob := l.Client("Org2MSP", "bob", nil)
	secret := ann.With(map[string][]byte{"secret": []byte("hush")})
	if _, err := secret.Submit("Secret", "deal", "k"); err == nil || !strings.Contains(err.Error(), "collection [test/one/deal] could not be found") {
		t.Error(err)
	}
	l.Collection("deal", "Org1MSP")
	must(t, secret, "Secret", "deal", "k")
	if got := must(t, ann, "Reveal", "deal", "k"); got != "hush" || string(l.Private("deal", "k")) != "hush" {
		t.Error(got)
	}
	var refused *contracttest.Refused
	if _, err := bob.Submit("Reveal", "deal", "k"); !errors.As(err, &refused) || refused.Status != 500 {
		t.Error(err)
	}
	must(t, secret, "Secret", contract.OrgCollection("Org1MSP"), "k")
}

func TestContractsCallEachOther(t *testing.T) {
	l, ann := newLedger(t)
	must(t, ann, "Ask", "two", "k", "v")
	if l.Get("k") != nil || must(t, ann.On("two"), "Put", "k", "w") != "v" {
		t.Error("the callee did not write to its own state")
	}
	for _, name := range []string{"one", "three", "two/other"} {
		if _, err := ann.Submit("Ask", name, "k", "v"); err == nil || !strings.Contains(err.Error(), "INVOKE_CHAINCODE failed") {
			t.Error(name, err)
		}
	}
	if _, err := ann.On("three").Submit("Put", "k", "v"); err == nil {
		t.Error("called what is not there")
	}
}

func TestRulesOfPeers(t *testing.T) {
	l, ann := newLedger(t)
	if _, err := ann.Submit("PageAndWrite"); err == nil || !strings.Contains(err.Error(), "paginated query") {
		t.Error(err)
	}
	l.Put("k", []byte("v"))
	must(t, ann, "Protect", "k", `["Org2MSP","Org1MSP","Org2MSP"]`)
	must(t, ann, "Protect", "absent", `["Org2MSP"]`)
	if got := must(t, ann, "Protectors", "k"); got != `["Org1MSP","Org2MSP"]` {
		t.Error(got)
	}
	if got := must(t, ann, "Protectors", "absent"); got != `[]` {
		t.Error(got)
	}
	must(t, ann, "Protect", "k", `[]`)
	if got := must(t, ann, "Protectors", "k"); got != `[]` {
		t.Error(got)
	}
}
