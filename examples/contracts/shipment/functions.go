package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hansa-ledger/hansa/contract"
)

// Names of composite keys and events.
const (
	byHolder  = "holder"  // holder, id
	ofSensors = "reading" // id, time, transaction

	eventCreated   = "ShipmentCreated"
	eventHanded    = "ShipmentHandedOver"
	eventDelivered = "ShipmentDelivered"
	eventCancelled = "ShipmentCancelled"
)

func shipments() *contract.Contract {
	c := contract.New("shipment")
	c.Info.Description = "Shipments that members hand to each other"
	c.Submit("Create", create, "order")
	c.Submit("Transfer", transfer, "id", "to")
	c.Submit("Deliver", deliver, "id")
	c.Submit("Cancel", cancel, "id")
	c.Submit("Record", record, "id", "reading")
	c.Submit("PutDetails", putDetails, "id")
	c.Submit("ForgetDetails", forgetDetails, "id")
	c.Evaluate("Read", read, "id")
	c.Evaluate("Exists", exists, "id")
	c.Evaluate("List", list, "pageSize", "bookmark")
	c.Evaluate("HeldBy", heldBy, "member")
	c.Evaluate("History", history, "id")
	c.Evaluate("Readings", readings, "id")
	c.Evaluate("ReadDetails", readDetails, "id")
	c.Evaluate("DetailsHash", detailsHash, "id", "member")
	return c
}

// create makes a shipment that its maker holds.
func create(ctx *contract.Context, order Order) (*Shipment, error) {
	client, err := ctx.Client()
	if err != nil {
		return nil, err
	}
	taken, err := ctx.Has(order.ID)
	if err != nil {
		return nil, err
	}
	if taken {
		return nil, fmt.Errorf("shipment %s already exists", order.ID)
	}
	now := ctx.Timestamp().UTC()
	s := &Shipment{
		Order: order, Status: Created, Sender: client.MSPID, Holder: client.MSPID, Created: now, Updated: now, Handovers: []Handover{},
	}
	if err := put(ctx, s, ""); err != nil {
		return nil, err
	}
	return s, ctx.EmitJSON(eventCreated, s)
}

// transfer hands a shipment to another member. Only who holds it can.
func transfer(ctx *contract.Context, id, to string) (*Shipment, error) {
	if err := checkMember("to", to); err != nil {
		return nil, err
	}
	s, err := held(ctx, id)
	if err != nil {
		return nil, err
	}
	if to == s.Holder {
		return nil, fmt.Errorf("%s holds shipment %s already", to, id)
	}
	from := s.Holder
	s.Handovers = append(s.Handovers, Handover{From: from, To: to, At: ctx.Timestamp().UTC()})
	s.Holder, s.Status = to, InTransit
	if err := put(ctx, s, from); err != nil {
		return nil, err
	}
	return s, ctx.EmitJSON(eventHanded, s)
}

// deliver ends a shipment that has arrived at its receiver.
func deliver(ctx *contract.Context, id string) (*Shipment, error) {
	s, err := held(ctx, id)
	if err != nil {
		return nil, err
	}
	if s.Holder != s.Receiver {
		return nil, fmt.Errorf("shipment %s is for %s; hand it over first", id, s.Receiver)
	}
	return end(ctx, s, Delivered, eventDelivered)
}

// cancel ends a shipment that has not left its sender.
func cancel(ctx *contract.Context, id string) (*Shipment, error) {
	s, err := held(ctx, id)
	if err != nil {
		return nil, err
	}
	if s.Status != Created {
		return nil, fmt.Errorf("shipment %s is %s and cannot be cancelled", id, s.Status)
	}
	return end(ctx, s, Cancelled, eventCancelled)
}

func end(ctx *contract.Context, s *Shipment, status Status, event string) (*Shipment, error) {
	s.Status = status
	if err := put(ctx, s, s.Holder); err != nil {
		return nil, err
	}
	return s, ctx.EmitJSON(event, s)
}

func read(ctx *contract.Context, id string) (*Shipment, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	s := &Shipment{}
	err := ctx.GetJSON(id, s)
	if errors.Is(err, contract.ErrNotFound) {
		return nil, fmt.Errorf("shipment %s does not exist", id)
	}
	return s, err
}

func exists(ctx *contract.Context, id string) (bool, error) {
	if err := checkID(id); err != nil {
		return false, err
	}
	return ctx.Has(id)
}

// held reads a shipment that the client's member may change: it holds it, and the shipment has not ended.
func held(ctx *contract.Context, id string) (*Shipment, error) {
	client, err := ctx.Client()
	if err != nil {
		return nil, err
	}
	s, err := read(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case s.Status == Delivered || s.Status == Cancelled:
		return nil, fmt.Errorf("shipment %s is %s", id, s.Status)
	case s.Holder != client.MSPID:
		return nil, fmt.Errorf("shipment %s is held by %s, not by %s", id, s.Holder, client.MSPID)
	}
	return s, nil
}

// put writes a shipment, and the index by which holders find theirs.
func put(ctx *contract.Context, s *Shipment, before string) error {
	s.Updated = ctx.Timestamp().UTC()
	if before != s.Holder {
		if before != "" {
			if err := index(before, s.ID, ctx.Delete); err != nil {
				return err
			}
		}
		if err := index(s.Holder, s.ID, func(key string) error { return ctx.Put(key, []byte{1}) }); err != nil {
			return err
		}
	}
	return ctx.PutJSON(s.ID, s)
}

func index(holder, id string, change func(key string) error) error {
	key, err := contract.CompositeKey(byHolder, holder, id)
	if err != nil {
		return err
	}
	return change(key)
}

// Listed is a page of shipments.
type Listed struct {
	Shipments []Shipment `json:"shipments"`
	Bookmark  string     `json:"bookmark"` // for the next page; empty after the last
}

func list(ctx *contract.Context, pageSize int, bookmark string) (*Listed, error) {
	page, err := ctx.RangePage("", "", pageSize, bookmark)
	if err != nil {
		return nil, err
	}
	l := &Listed{Shipments: make([]Shipment, len(page.Entries)), Bookmark: page.Bookmark}
	for i, entry := range page.Entries {
		if err := json.Unmarshal(entry.Value, &l.Shipments[i]); err != nil {
			return nil, fmt.Errorf("shipment %s: %w", entry.Key, err)
		}
	}
	return l, nil
}

func heldBy(ctx *contract.Context, member string) ([]string, error) {
	var ids []string
	for entry, err := range ctx.RangeComposite(byHolder, member) {
		if err != nil {
			return nil, err
		}
		_, parts, err := contract.SplitCompositeKey(entry.Key)
		if err != nil {
			return nil, err
		}
		ids = append(ids, parts[len(parts)-1])
	}
	return ids, nil
}

// Past is a state that a shipment had.
type Past struct {
	Transaction string    `json:"transaction"`
	At          time.Time `json:"at"`
	Shipment    *Shipment `json:"shipment"`
}

func history(ctx *contract.Context, id string) ([]Past, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	var all []Past
	for change, err := range ctx.History(id) {
		if err != nil {
			return nil, err
		}
		past := Past{Transaction: change.TxID, At: change.Timestamp.UTC()}
		if !change.IsDelete {
			if err := json.Unmarshal(change.Value, &past.Shipment); err != nil {
				return nil, fmt.Errorf("shipment %s as of transaction %s: %w", id, change.TxID, err)
			}
		}
		all = append(all, past)
	}
	return all, nil
}

// record keeps what a sensor says, under a key of its own: many sensors write at once and do not conflict.
func record(ctx *contract.Context, id string, reading Reading) error {
	if _, err := held(ctx, id); err != nil {
		return err
	}
	key, err := contract.CompositeKey(ofSensors, id, reading.At.UTC().Format("2006-01-02T15:04:05.000000000Z"), ctx.TxID())
	if err != nil {
		return err
	}
	return ctx.PutJSON(key, reading)
}

func readings(ctx *contract.Context, id string) ([]Reading, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	var all []Reading
	for entry, err := range ctx.RangeComposite(ofSensors, id) {
		if err != nil {
			return nil, err
		}
		var r Reading
		if err := json.Unmarshal(entry.Value, &r); err != nil {
			return nil, fmt.Errorf("reading of shipment %s: %w", id, err)
		}
		all = append(all, r)
	}
	return all, nil
}

// details is the collection that the client's own member keeps for itself.
func details(ctx *contract.Context) (*contract.Collection, error) {
	client, err := ctx.Client()
	if err != nil {
		return nil, err
	}
	return ctx.Private(contract.OrgCollection(client.MSPID)), nil
}

// putDetails takes the transient data "details". Only their hash leaves the member's peers.
func putDetails(ctx *contract.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	var d Details
	if err := ctx.TransientJSON("details", &d); err != nil {
		return err
	}
	own, err := details(ctx)
	if err != nil {
		return err
	}
	return own.PutJSON(id, d)
}

// forgetDetails erases details with all their past, as people may ask for.
func forgetDetails(ctx *contract.Context, id string) error {
	if err := checkID(id); err != nil {
		return err
	}
	own, err := details(ctx)
	if err != nil {
		return err
	}
	return own.Purge(id)
}

func readDetails(ctx *contract.Context, id string) (*Details, error) {
	own, err := details(ctx)
	if err != nil {
		return nil, err
	}
	d := &Details{}
	if err := own.GetJSON(id, d); err != nil {
		return nil, fmt.Errorf("details of shipment %s: %w", id, err)
	}
	return d, nil
}

// detailsHash lets members who were shown another's details check that these are the ones that were put.
func detailsHash(ctx *contract.Context, id, member string) (string, error) {
	if err := checkMember("member", member); err != nil {
		return "", err
	}
	hash, err := ctx.Private(contract.OrgCollection(member)).Hash(id)
	if err != nil {
		return "", err
	}
	if hash == nil {
		return "", fmt.Errorf("%s has put no details of shipment %s", member, id)
	}
	return hex.EncodeToString(hash), nil
}
