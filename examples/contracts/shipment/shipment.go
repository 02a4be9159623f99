package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Status is where a shipment stands.
type Status string

// The ways of a shipment: created, then in transit from its first hand-over on, then delivered; or cancelled before that.
const (
	Created   Status = "created"
	InTransit Status = "in transit"
	Delivered Status = "delivered"
	Cancelled Status = "cancelled"
)

// Order is what a member gives to create a shipment.
type Order struct {
	ID          string            `json:"id"`       // the members' own number, such as HAM-2026-000017
	Receiver    string            `json:"receiver"` // member
	Goods       string            `json:"goods"`
	Pieces      int               `json:"pieces"`
	WeightKg    float64           `json:"weightKg"`
	Hazardous   bool              `json:"hazardous"`
	Cooling     *Cooling          `json:"cooling,omitempty"`
	Origin      Place             `json:"origin"`
	Destination Place             `json:"destination"`
	Due         time.Time         `json:"due"`
	Tags        []string          `json:"tags,omitempty"`
	References  map[string]string `json:"references,omitempty"` // such as the number of the customs declaration
}

// Cooling is the range of temperatures that the goods bear, in degrees Celsius.
type Cooling struct {
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}

// Place is a port, a warehouse or a terminal.
type Place struct {
	Country   string  `json:"country"` // two letters, ISO 3166
	City      string  `json:"city"`
	Latitude  float64 `json:"latitude"`
	Longitude float64 `json:"longitude"`
}

// Shipment is what the ledger keeps.
type Shipment struct {
	Order
	Status    Status     `json:"status"`
	Sender    string     `json:"sender"` // member
	Holder    string     `json:"holder"` // member who has the goods
	Created   time.Time  `json:"created"`
	Updated   time.Time  `json:"updated"`
	Handovers []Handover `json:"handovers"`
}

// Handover is a change of hands.
type Handover struct {
	From string    `json:"from"`
	To   string    `json:"to"`
	At   time.Time `json:"at"`
}

// Reading is what a sensor in a container says.
type Reading struct {
	At          time.Time `json:"at"`
	Temperature float64   `json:"temperature"` // degrees Celsius
	Humidity    int       `json:"humidity"`    // per cent
	Shock       bool      `json:"shock"`
}

// Details stay with the member who puts them.
type Details struct {
	ValueCents int64  `json:"valueCents"`
	Currency   string `json:"currency"`
	Contact    string `json:"contact"`
	Note       string `json:"note,omitempty"`
	Salt       string `json:"salt"` // makes the public hash useless to those who guess
}

var (
	idRule       = regexp.MustCompile(`^[A-Z0-9][A-Z0-9-]{2,39}$`)
	memberRule   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
	countryRule  = regexp.MustCompile(`^[A-Z]{2}$`)
	currencyRule = regexp.MustCompile(`^[A-Z]{3}$`)
	tagRule      = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,29}$`)
)

const (
	maxText  = 200
	maxItems = 20
)

func checkID(id string) error {
	if !idRule.MatchString(id) {
		return fmt.Errorf("id %q must be 3 to 40 capital letters, digits and dashes, such as HAM-2026-000017", id)
	}
	return nil
}

func checkMember(field, id string) error {
	if !memberRule.MatchString(id) {
		return fmt.Errorf("%s %q is no member's id", field, id)
	}
	return nil
}

func checkText(field, text string) error {
	if text == "" || len(text) > maxText {
		return fmt.Errorf("%s must have 1 to %d bytes; it has %d", field, maxText, len(text))
	}
	return nil
}

// Validate is called before an order reaches a function.
func (o *Order) Validate() error {
	if o.Cooling != nil && (o.Cooling.Min > o.Cooling.Max || o.Cooling.Min < -100 || o.Cooling.Max > 100) {
		return fmt.Errorf("cooling from %g to %g must be a range between -100 and 100", o.Cooling.Min, o.Cooling.Max)
	}
	for _, tag := range o.Tags {
		if !tagRule.MatchString(tag) {
			return fmt.Errorf("tag %q must be up to 30 small letters, digits and dashes", tag)
		}
	}
	for name, text := range o.References {
		if checkText("reference", name) != nil || checkText("reference", text) != nil {
			// Not the name: maps have no order, and all endorsers must say the same.
			return fmt.Errorf("names and texts of references must have 1 to %d bytes", maxText)
		}
	}
	switch {
	case o.Pieces < 1 || o.Pieces > 1_000_000:
		return fmt.Errorf("pieces is %d; it must be between 1 and 1000000", o.Pieces)
	case !(o.WeightKg > 0 && o.WeightKg <= 1e9):
		return fmt.Errorf("weightKg is %g; it must be more than 0 and at most 1e9", o.WeightKg)
	case len(o.Tags) > maxItems || len(o.References) > maxItems:
		return fmt.Errorf("there may be at most %d tags and %d references", maxItems, maxItems)
	case len(slices.Compact(slices.Sorted(slices.Values(o.Tags)))) < len(o.Tags):
		return errors.New("a tag is given twice")
	case o.Due.IsZero():
		return errors.New("due is missing: give a time such as 2026-03-01T12:00:00Z")
	case o.Origin == o.Destination:
		return errors.New("origin and destination are the same")
	}
	return errors.Join(
		checkID(o.ID), checkMember("receiver", o.Receiver), checkText("goods", o.Goods), o.Origin.check("origin"), o.Destination.check("destination"),
	)
}

func (p Place) check(field string) error {
	switch {
	case !countryRule.MatchString(p.Country):
		return fmt.Errorf("%s.country %q must be two capital letters, such as DE", field, p.Country)
	case !(p.Latitude >= -90 && p.Latitude <= 90) || !(p.Longitude >= -180 && p.Longitude <= 180):
		return fmt.Errorf("%s: latitude %g and longitude %g are not on earth", field, p.Latitude, p.Longitude)
	}
	return checkText(field+".city", p.City)
}

// Validate is called before a reading reaches a function.
func (r *Reading) Validate() error {
	switch {
	case r.At.IsZero():
		return errors.New("at is missing: give a time such as 2026-03-01T12:00:00Z")
	case !(r.Temperature >= -273.15 && r.Temperature <= 1000):
		return fmt.Errorf("temperature is %g; it must be between -273.15 and 1000", r.Temperature)
	case r.Humidity < 0 || r.Humidity > 100:
		return fmt.Errorf("humidity is %d; it must be between 0 and 100", r.Humidity)
	}
	return nil
}

// Validate is called before details reach a function.
func (d *Details) Validate() error {
	switch {
	case d.ValueCents < 0:
		return fmt.Errorf("valueCents is %d; it must not be negative", d.ValueCents)
	case !currencyRule.MatchString(d.Currency):
		return fmt.Errorf("currency %q must be three capital letters, such as EUR", d.Currency)
	case len(d.Salt) < 16:
		return errors.New("salt must have at least 16 random characters: without them others could guess the details from their hash")
	case len(d.Note) > maxText:
		return fmt.Errorf("note must have at most %d bytes", maxText)
	}
	return checkText("contact", d.Contact)
}
