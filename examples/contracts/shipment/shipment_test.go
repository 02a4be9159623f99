package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/contract/contracttest"
)

const (
	shipper  = "HansaFreightMSP"
	carrier  = "NordLineMSP"
	receiver = "BalticFoodsMSP"
)

func order(id string) string {
	return fmt.Sprintf(`{"id":%q,"receiver":%q,"goods":"frozen fish","pieces":120,"weightKg":2450.5,"hazardous":false,
		"cooling":{"min":-24,"max":-18},"origin":{"country":"NO","city":"Bergen","latitude":60.39,"longitude":5.32},
		"destination":{"country":"DE","city":"Lübeck","latitude":53.87,"longitude":10.69},"due":"2026-03-01T12:00:00Z",
		"tags":["cold","fish"],"references":{"customs":"26NO0001"}}`, id, receiver)
}

// network is a channel with three members.
type network struct {
	*contracttest.Ledger
	shipper, carrier, receiver *contracttest.Client
}

func newNetwork(t *testing.T) *network {
	l := contracttest.New(t)
	l.Deploy("shipment", shipments())
	return &network{l, l.Client(shipper, "s", nil), l.Client(carrier, "c", nil), l.Client(receiver, "r", nil)}
}

func must(t *testing.T, c *contracttest.Client, function string, args ...string) []byte {
	t.Helper()
	result, err := c.Submit(function, args...)
	if err != nil {
		t.Fatalf("%s %q: %v", function, args, err)
	}
	return result
}

func refused(t *testing.T, want string, c *contracttest.Client, function string, args ...string) {
	t.Helper()
	_, err := c.Submit(function, args...)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s %q: %v, want %s", function, args, err, want)
	}
}

func TestWayOfAShipment(t *testing.T) {
	n := newNetwork(t)
	const id = "BGO-2026-000017"
	must(t, n.shipper, "Create", order(id))
	refused(t, "already exists", n.shipper, "Create", order(id))
	refused(t, "is held by "+shipper, n.carrier, "Transfer", id, receiver)
	refused(t, "hand it over first", n.shipper, "Deliver", id)
	must(t, n.shipper, "Transfer", id, carrier)
	refused(t, "holds shipment", n.carrier, "Transfer", id, carrier)
	refused(t, "cannot be cancelled", n.carrier, "Cancel", id)
	must(t, n.carrier, "Record", id, `{"at":"2026-02-01T10:00:00Z","temperature":-20.5,"humidity":40,"shock":false}`)
	must(t, n.carrier, "Record", id, `{"at":"2026-02-01T09:00:00+01:00","temperature":-19,"humidity":41,"shock":true}`)
	must(t, n.carrier, "Transfer", id, receiver)
	must(t, n.receiver, "Deliver", id)
	refused(t, "is delivered", n.receiver, "Transfer", id, carrier)

	var s Shipment
	if err := json.Unmarshal(must(t, n.carrier, "Read", id), &s); err != nil {
		t.Fatal(err)
	}
	if s.Status != Delivered || s.Sender != shipper || s.Holder != receiver || len(s.Handovers) != 2 || s.Cooling.Min != -24 || !s.Updated.After(s.Created) {
		t.Errorf("%+v", s)
	}
	var past []Past
	if err := json.Unmarshal(must(t, n.carrier, "History", id), &past); err != nil {
		t.Fatal(err)
	}
	if len(past) != 4 || past[0].Shipment.Status != Delivered || past[3].Shipment.Status != Created {
		t.Errorf("%+v", past)
	}
	var read []Reading
	if err := json.Unmarshal(must(t, n.shipper, "Readings", id), &read); err != nil {
		t.Fatal(err)
	}
	if len(read) != 2 || !read[0].Shock {
		t.Errorf("readings are not in the order of time: %+v", read)
	}
	var events []string
	for _, e := range n.Events() {
		events = append(events, e.Name)
	}
	if got := strings.Join(events, " "); got != "ShipmentCreated ShipmentHandedOver ShipmentHandedOver ShipmentDelivered" {
		t.Error(got)
	}
}

func TestListsAndHolders(t *testing.T) {
	n := newNetwork(t)
	for i := range 5 {
		must(t, n.shipper, "Create", order(fmt.Sprintf("BGO-%d", i)))
	}
	must(t, n.shipper, "Transfer", "BGO-2", carrier)
	must(t, n.shipper, "Cancel", "BGO-4")
	if got := string(must(t, n.shipper, "HeldBy", shipper)); got != `["BGO-0","BGO-1","BGO-3","BGO-4"]` {
		t.Error(got)
	}
	if got := string(must(t, n.shipper, "HeldBy", carrier)); got != `["BGO-2"]` {
		t.Error(got)
	}
	seen, bookmark := 0, ""
	for page := 0; page == 0 || bookmark != ""; page++ {
		var l Listed
		if err := json.Unmarshal(must(t, n.shipper, "List", "2", bookmark), &l); err != nil {
			t.Fatal(err)
		}
		seen, bookmark = seen+len(l.Shipments), l.Bookmark
	}
	if seen != 5 {
		t.Errorf("listed %d", seen)
	}
	if got := string(must(t, n.shipper, "Exists", "BGO-9")); got != "false" {
		t.Error(got)
	}
}

func TestDetailsStayWithTheirMember(t *testing.T) {
	n := newNetwork(t)
	must(t, n.shipper, "Create", order("BGO-1"))
	raw := `{"valueCents":125000,"currency":"EUR","contact":"+47 555 0100","salt":"0123456789abcdef"}`
	must(t, n.shipper.With(map[string][]byte{"details": []byte(raw)}), "PutDetails", "BGO-1")
	if got := string(must(t, n.shipper, "ReadDetails", "BGO-1")); got != raw {
		t.Error(got)
	}
	sum := sha256.Sum256([]byte(raw))
	if got := string(must(t, n.carrier, "DetailsHash", "BGO-1", shipper)); got != hex.EncodeToString(sum[:]) {
		t.Error(got)
	}
	refused(t, "not found", n.carrier, "ReadDetails", "BGO-1")
	if public := string(n.Get("BGO-1")); strings.Contains(public, "555") || strings.Contains(public, "125000") {
		t.Error(public)
	}
	refused(t, `transient data "details": not found`, n.shipper, "PutDetails", "BGO-1")
	refused(t, "salt must have", n.shipper.With(map[string][]byte{"details": []byte(`{"valueCents":1,"currency":"EUR","contact":"x","salt":"short"}`)}), "PutDetails", "BGO-1")
	must(t, n.shipper, "ForgetDetails", "BGO-1")
	refused(t, "not found", n.shipper, "ReadDetails", "BGO-1")
}

func TestBadInput(t *testing.T) {
	n := newNetwork(t)
	for _, test := range []struct{ from, to, want string }{
		{`"pieces":120`, `"pieces":0`, "pieces is 0"},
		{`"pieces":120`, `"pieces":"120"`, "not the JSON that was expected"},
		{`"weightKg":2450.5`, `"weightKg":-1`, "weightKg is -1"},
		{`"country":"NO"`, `"country":"Norway"`, `origin.country "Norway" must be two capital letters`},
		{`"latitude":53.87`, `"latitude":153`, "not on earth"},
		{`"goods"`, `"good"`, "unknown field"},
		{`"frozen fish"`, `""`, "goods must have 1 to 200 bytes"},
		{`"cold","fish"`, `"cold","cold"`, "twice"},
		{`"due":"2026-03-01T12:00:00Z",`, ``, "due is missing"},
		{`"min":-24`, `"min":24`, "cooling from 24 to -18"},
		{`"BGO-1"`, `"bgo 1"`, "capital letters, digits and dashes"},
		{receiver, "a b", `receiver "a b" is no member's id`},
		{`}}`, `}}x`, "not the JSON that was expected"},
	} {
		bad := strings.Replace(order("BGO-1"), test.from, test.to, 1)
		refused(t, test.want, n.shipper, "Create", bad)
	}
	refused(t, "shipment BGO-1 does not exist", n.shipper, "Transfer", "BGO-1", carrier)
	refused(t, "Expected 2, received 1", n.shipper, "Transfer", "BGO-1")
	must(t, n.shipper, "Create", order("BGO-1"))
	refused(t, "humidity is 101", n.shipper, "Record", "BGO-1", `{"at":"2026-02-01T10:00:00Z","temperature":1,"humidity":101}`)
}

// Two members who act on the same shipment at once: the second to commit is refused.
func TestConflict(t *testing.T) {
	n := newNetwork(t)
	must(t, n.shipper, "Create", order("BGO-1"))
	one, err := n.shipper.Simulate("Transfer", "BGO-1", carrier)
	if err != nil {
		t.Fatal(err)
	}
	two, err := n.shipper.Simulate("Cancel", "BGO-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := two.Commit(); !errors.Is(err, contracttest.ErrConflict) {
		t.Error(err)
	}
}
