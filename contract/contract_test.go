package contract_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/contract"
	"github.com/hansa-ledger/hansa/contract/contracttest"
)

type part struct {
	Name  string         `json:"name"`
	Count int            `json:"count"`
	Sub   []*part        `json:"sub,omitempty"`
	Tags  map[string]int `json:"tags,omitempty"`
}

func (p part) Validate() error {
	if p.Count < 0 {
		return errors.New("count must not be negative")
	}
	return nil
}

func typed() *contract.Contract {
	c := contract.New("typed")
	c.Evaluate("Echo", func(_ *contract.Context, s string, b bool, i int8, u uint16, f float64, at time.Time, raw []byte, p *part, list []int) (string, error) {
		return fmt.Sprint(s, " ", b, " ", i, " ", u, " ", f, " ", at.UTC().Format(time.RFC3339), " ", len(raw), " ", p.Name, p.Sub[0].Count, " ", list), nil
	}, "text", "yes", "small", "positive", "real", "at", "raw", "part", "list")
	c.Evaluate("Part", func(_ *contract.Context, p part) (part, error) { return p, nil }, "part")
	c.Evaluate("Nothing", func(*contract.Context) (*part, error) { return nil, nil })
	c.Evaluate("List", func(*contract.Context) []string { return nil })
	c.Evaluate("Number", func(*contract.Context) float64 { return 1.5 })
	c.Evaluate("NaN", func(*contract.Context) float64 { return math.NaN() })
	c.Evaluate("Writes", func(ctx *contract.Context) error { return ctx.Put("a", []byte("b")) })
	c.Evaluate("Emits", func(ctx *contract.Context) error { return ctx.Emit("a", nil) })
	c.Submit("Empty", func(ctx *contract.Context) error { return ctx.Put("a", nil) })
	c.Submit("NoKey", func(ctx *contract.Context) error { return ctx.Put("", []byte("b")) })
	c.Submit("NoCollection", func(ctx *contract.Context) error { return ctx.Private("").Put("a", []byte("b")) })
	c.Submit("Panic", func(ctx *contract.Context) { panic("oh") })
	return c
}

func TestTypedCalls(t *testing.T) {
	l := contracttest.New(t)
	l.Deploy("typed", typed())
	ann := l.Client("Org1MSP", "ann", nil)
	good := []string{"Echo", "s", "true", "-8", "16", "0.5", "2026-01-02T03:04:05+01:00", "\x00\x01", `{"name":"n","count":1,"sub":[{"name":"m","count":7}]}`, "[1,2]"}
	for _, test := range []struct {
		call         []string
		result, fail string
	}{
		{good, "s true -8 16 0.5 2026-01-02T02:04:05Z 2 n7 [1 2]", ""},
		{[]string{"typed:Part", `{"name":"n","count":1}`}, `{"name":"n","count":1}`, ""},
		{[]string{"Nothing"}, "", ""},
		{[]string{"List"}, "[]", ""},
		{[]string{"Number"}, "1.5", ""},
		{[]string{"NaN"}, "", "unsupported value"},
		{[]string{"Part", `{"count":-1}`}, "", "argument part of Part: count must not be negative"},
		{[]string{"Part", `{"count":1,"more":2}`}, "", `unknown field "more"`},
		{[]string{"Part", `{"count":1} {}`}, "", "something follows it"},
		{[]string{"Part"}, "", "Incorrect number of params in function Part. Expected 1, received 0"},
		{[]string{"Missing"}, "", "Function Missing not found in contract typed"},
		{[]string{"other:Part"}, "", "Contract not found with name other"},
		{[]string{"Writes"}, "", contract.ErrReadOnly.Error()},
		{[]string{"Emits"}, "", contract.ErrReadOnly.Error()},
		{[]string{"Empty"}, "", "must not be empty; use Delete"},
		{[]string{"NoKey"}, "", "key must not be an empty string"},
		{[]string{"NoCollection"}, "", "collection must not be an empty string"},
		{[]string{"Panic"}, "", "panicked"},
	} {
		result, err := ann.Submit(test.call[0], test.call[1:]...)
		if string(result) != test.result || (err == nil) != (test.fail == "") || err != nil && !strings.Contains(err.Error(), test.fail) {
			t.Errorf("%q: %s, %v", test.call, result, err)
		}
	}
	for i, bad := range map[int]string{2: "yes", 3: "128", 4: "-1", 5: "x", 6: "today", 8: "[]", 9: `["a"]`} {
		args := append([]string{}, good...)
		args[i] = bad
		if _, err := ann.Evaluate(args[0], args[1:]...); err == nil || !strings.HasPrefix(err.Error(), "argument ") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestHooksAndNamespaces(t *testing.T) {
	var trace []string
	a, b := contract.New("a"), contract.New("b")
	a.Submit("F", func(ctx *contract.Context, s string) (string, error) {
		trace = append(trace, ctx.Function())
		return "a" + s, ctx.Put("k", []byte(s))
	})
	a.Before(func(ctx *contract.Context) error {
		trace = append(trace, "before "+ctx.Function())
		client, err := ctx.Client()
		if err != nil {
			return err
		}
		return client.Require("role", "clerk")
	})
	a.After(func(_ *contract.Context, result []byte) error {
		trace = append(trace, "after "+string(result))
		if string(result) == "abad" {
			return errors.New("refused after all")
		}
		return nil
	})
	b.Evaluate("F", func(*contract.Context) string { return "b" })
	b.Unknown(func(ctx *contract.Context) ([]byte, error) {
		return fmt.Appendf(nil, "%s %q", ctx.Function(), ctx.Args()), nil
	})
	l := contracttest.New(t)
	l.Deploy("both", a, b)
	clerk := l.Client("Org1MSP", "ann", map[string]string{"role": "clerk"})
	stranger := l.Client("Org1MSP", "bob", nil)
	for call, want := range map[string]string{"F": "ax", "a:F": "ax"} {
		trace = nil
		if got, err := clerk.Submit(call, "x"); err != nil || string(got) != want {
			t.Error(string(got), err)
		}
		if got := strings.Join(trace, ", "); got != "before F, F, after ax" {
			t.Error(got)
		}
	}
	if _, err := clerk.Submit("F", "bad"); err == nil || string(l.Get("k")) != "x" {
		t.Error(err, string(l.Get("k")))
	}
	if _, err := stranger.Submit("F", "x"); err == nil || !strings.Contains(err.Error(), `attribute role with the value "clerk"`) {
		t.Error(err)
	}
	if got, err := stranger.Evaluate("b:F"); err != nil || string(got) != "b" {
		t.Error(string(got), err)
	}
	if got, err := stranger.Evaluate("b:G", "x"); err != nil || string(got) != `G ["x"]` {
		t.Error(string(got), err)
	}
}

func TestMetadata(t *testing.T) {
	c := typed()
	c.Info.Version = "1.2.3"
	l := contracttest.New(t)
	l.Deploy("typed", c, contract.New("second"))
	raw, err := l.Client("Org1MSP", "ann", nil).Evaluate("org.hyperledger.fabric:GetMetadata")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Info      struct{ Title, Version string }
		Contracts map[string]struct {
			Default      bool
			Transactions []struct {
				Name       string
				Tag        []string
				Parameters []struct {
					Name   string
					Schema map[string]any
				}
				Returns map[string]any
			}
		}
		Components struct {
			Schemas map[string]struct {
				Type       string
				Properties map[string]map[string]any
				Required   []string
			}
		}
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got.Info.Title != "typed" || got.Info.Version != "1.2.3" || len(got.Contracts) != 3 || !got.Contracts["typed"].Default || got.Contracts["second"].Default {
		t.Errorf("%s", raw)
	}
	echo := got.Contracts["typed"].Transactions[0]
	if echo.Name != "Echo" || echo.Tag[0] != "EVALUATE" || len(echo.Parameters) != 9 || echo.Parameters[5].Schema["format"] != "date-time" ||
		echo.Parameters[7].Schema["$ref"] != "#/components/schemas/part" || echo.Returns["type"] != "string" {
		t.Errorf("%+v", echo)
	}
	p := got.Components.Schemas["part"]
	if p.Type != "object" || strings.Join(p.Required, " ") != "name count" || p.Properties["sub"]["items"].(map[string]any)["$ref"] != "#/components/schemas/part" {
		t.Errorf("%+v", p)
	}
}

func TestMistakesInTheMaking(t *testing.T) {
	c := contract.New("c")
	c.Submit("a", nil)
	c.Submit("b", func() {})
	c.Submit("c", func(*contract.Context, ...string) {})
	c.Submit("d", func(*contract.Context, chan int) {})
	c.Submit("e", func(*contract.Context) (int, int, error) { return 0, 0, nil })
	c.Submit("f:g", func(*contract.Context) {})
	c.Submit("h", func(*contract.Context) {})
	c.Submit("h", func(*contract.Context) {})
	c.Submit("i", func(*contract.Context, string) {}, "a", "b")
	_, err := contract.NewProcess(nil, c, contract.New("c"), contract.New(""))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`function "a"`, `function "b"`, `function "c"`, `function "d": argument param0: chan int`, `function "e"`, `function "f:g"`,
		`function "h": it is registered twice`, `function "i": 2 names`, `contract name "c" is taken`, `contract name ""`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in: %v", want, err)
		}
	}
	if _, err := contract.NewProcess(nil); err == nil {
		t.Error("accepted")
	}
	for _, cfg := range []contract.Config{{}, {ID: "a:b"}, {ID: "a:b", Address: "x:1", PeerAddress: "y:1"}} {
		if err := contract.Serve(t.Context(), cfg, typed()); err == nil {
			t.Error("accepted", cfg)
		}
	}
}

func TestEnvironment(t *testing.T) {
	for _, test := range []struct {
		env        map[string]string
		args       []string
		want, fail string
	}{
		{map[string]string{"CHAINCODE_ID": "a:1", "CHAINCODE_SERVER_ADDRESS": ":9999"}, nil, "a:1 :9999 ", ""},
		{map[string]string{"CORE_CHAINCODE_ID_NAME": "a:1", "CORE_PEER_ADDRESS": "p:7052"}, nil, "a:1  p:7052", ""},
		{map[string]string{"CORE_CHAINCODE_ID_NAME": "a:1"}, []string{"-peer.address", "q:7052"}, "a:1  q:7052", ""},
		{map[string]string{"CORE_CHAINCODE_ID_NAME": "a:1"}, []string{"x", "--peer.address=q:7052"}, "a:1  q:7052", ""},
		{map[string]string{"CHAINCODE_SERVER_ADDRESS": ":1", "CHAINCODE_TLS_DISABLED": "maybe"}, nil, "", "CHAINCODE_TLS_DISABLED"},
		{map[string]string{"CHAINCODE_SERVER_ADDRESS": ":1", "CHAINCODE_TLS_DISABLED": "false"}, nil, "", "CHAINCODE_TLS_CERT"},
		{map[string]string{"CORE_PEER_ADDRESS": ":1", "CORE_PEER_TLS_ENABLED": "true"}, nil, "", "CORE_TLS_CLIENT_KEY_FILE is not set"},
	} {
		cfg, err := contract.ConfigFromEnvironment(func(name string) string { return test.env[name] }, test.args)
		if test.fail != "" {
			if err == nil || !strings.Contains(err.Error(), test.fail) {
				t.Errorf("%v: %v", test.env, err)
			}
			continue
		}
		if err != nil || fmt.Sprint(cfg.ID, " ", cfg.Address, " ", cfg.PeerAddress) != test.want {
			t.Errorf("%v: %+v, %v", test.env, cfg, err)
		}
	}
}

func FuzzCompositeKey(f *testing.F) {
	f.Add("type", "a", "")
	f.Add("", "\x00", "ü")
	f.Fuzz(func(t *testing.T, objectType, a, b string) {
		key, err := contract.CompositeKey(objectType, a, b)
		if err != nil {
			return
		}
		gotType, attributes, err := contract.SplitCompositeKey(key)
		// An empty type shifts the attributes in Fabric's format as well; it is not told apart.
		if err != nil || objectType != "" && (gotType != objectType || len(attributes) != 2 || attributes[0] != a || attributes[1] != b) {
			t.Errorf("%q: %q, %q, %v", key, gotType, attributes, err)
		}
		contract.SplitCompositeKey(a)
	})
}

func FuzzCall(f *testing.F) {
	f.Add("Echo", "s", "{}")
	f.Add("typed:Part", `{"name":"n","count":1}`, "")
	f.Add("a:b:c", "\xff", "[[[[")
	f.Fuzz(func(t *testing.T, function, a, b string) {
		l := contracttest.New(t)
		l.Deploy("typed", typed())
		ann := l.Client("Org1MSP", "ann", nil)
		_, _ = ann.Submit(function, a)
		_, _ = ann.Submit(function, a, b)
		_, _ = ann.Submit("Echo", a, b, a, a, b, b, a, b, a)
	})
}
