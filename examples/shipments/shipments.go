// Package shipments makes records of freight as a business would have them: many
// products, routes and partners, pieces and weights from a letter to a shipload,
// names in many scripts, fields that are there or not. The same Options make the
// same records, to the byte, so that a run can be repeated.
//
// A share of the records is flawed on purpose, as in every real file: ids that
// were given before, and fields that the contract refuses. Set counts them, so
// that a test knows what must be rejected.
//
// The records fit the contract in examples/contracts/shipment. Open shipments.go
// for how a record comes about, catalog.go for what it is made of.
package shipments

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"time"
)

// Options says which records to make.
type Options struct {
	Seed  uint64
	Count int
	// Members are the MSP ids that shipments go to; at least one.
	Members []string
	// Series stands in every id, so that the records of two files never have the
	// same: capital letters and digits, up to 16. The default is made of Seed.
	Series string
	// Flawed is the share of records, from 0 to 0.5, that must be rejected.
	Flawed float64
}

// Record is one line of the file.
type Record struct {
	ID          string            `json:"id"`
	Receiver    string            `json:"receiver"`
	Goods       string            `json:"goods"`
	Pieces      int               `json:"pieces"`
	WeightKg    float64           `json:"weightKg"`
	Hazardous   bool              `json:"hazardous"`
	Cooling     *Cooling          `json:"cooling,omitempty"`
	Origin      Place             `json:"origin"`
	Destination Place             `json:"destination"`
	Due         time.Time         `json:"due"`
	Tags        []string          `json:"tags,omitempty"`
	References  map[string]string `json:"references,omitempty"`
}

// Cooling is the range of temperatures that the goods bear, in degrees Celsius.
type Cooling struct {
	Min float64 `json:"min"`
	Max float64 `json:"max"`
}

// Place is a port, a warehouse or a terminal.
type Place struct {
	Country   string  `json:"country"`
	City      string  `json:"city"`
	Latitude  float64 `json:"latitude"`
	Longitude float64 `json:"longitude"`
}

// Set is the records of a file, each a JSON object, in order.
type Set struct {
	Lines      [][]byte
	Duplicates int // have the id of an earlier record and other content
	Invalid    int // break a rule of the contract
}

// Good is how many records must be accepted.
func (s *Set) Good() int { return len(s.Lines) - s.Duplicates - s.Invalid }

// WriteTo writes the set as JSON Lines.
func (s *Set) WriteTo(w io.Writer) (int64, error) {
	buffered := bufio.NewWriter(w)
	var n int64
	for _, line := range s.Lines {
		buffered.Write(line)
		buffered.WriteByte('\n')
		n += int64(len(line)) + 1
	}
	return n, buffered.Flush()
}

// duplicateDistance is how many records lie between two with the same id at
// least: an application with fewer in flight has the first one's answer before it
// sends the second, which is then refused for its id and not for a conflict.
const duplicateDistance = 256

// epoch is when the shipments are made; no clock, so that the records can be repeated.
var epoch = time.Date(2026, time.January, 5, 6, 0, 0, 0, time.UTC)

// Make makes the records.
func Make(o Options) (*Set, error) {
	if o.Series == "" {
		o.Series = strings.ToUpper(fmt.Sprintf("%x", o.Seed))
	}
	switch {
	case o.Count < 1 || o.Count > 10_000_000:
		return nil, fmt.Errorf("count is %d; it must be between 1 and 10000000", o.Count)
	case len(o.Members) == 0:
		return nil, fmt.Errorf("members is empty: name at least one MSP id")
	case !(o.Flawed >= 0 && o.Flawed <= 0.5):
		return nil, fmt.Errorf("flawed is %g; it must be between 0 and 0.5", o.Flawed)
	case len(o.Series) > 16 || strings.Trim(o.Series, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "":
		return nil, fmt.Errorf("series %q must be up to 16 capital letters and digits", o.Series)
	}
	m := &maker{rand.New(rand.NewPCG(o.Seed, 0x48616e7361)), o}
	s := &Set{Lines: make([][]byte, 0, o.Count)}
	good := make([]string, 0, o.Count) // the id of each record that will be accepted, "" for others
	for i := range o.Count {
		r := m.record(i)
		var line []byte
		var err error
		switch {
		case m.Float64() >= o.Flawed:
			line, err = json.Marshal(r)
			good = append(good, r.ID)
		case i > duplicateDistance && m.IntN(2) == 0:
			earlier := good[m.IntN(i-duplicateDistance)]
			if earlier == "" {
				earlier = good[0]
			}
			r.ID = earlier
			line, err = json.Marshal(r)
			good = append(good, "")
			s.Duplicates++
		case i == 0: // the first is always good: others may repeat its id
			line, err = json.Marshal(r)
			good = append(good, r.ID)
		default:
			line, err = m.spoiled(r)
			good = append(good, "")
			s.Invalid++
		}
		if err != nil {
			return nil, err
		}
		s.Lines = append(s.Lines, line)
	}
	return s, nil
}

type maker struct {
	*rand.Rand
	options Options
}

// record makes the i-th shipment of the series.
func (m *maker) record(i int) Record {
	kind := catalog[m.IntN(len(catalog))]
	from := m.IntN(len(places))
	to := (from + 1 + m.IntN(len(places)-1)) % len(places)
	r := Record{
		ID:          fmt.Sprintf("%s-%s-%06d", places[from].code, m.options.Series, i),
		Receiver:    m.options.Members[m.IntN(len(m.options.Members))],
		Goods:       m.goods(kind),
		Pieces:      m.pieces(),
		Hazardous:   kind.hazardous,
		Origin:      places[from].place,
		Destination: places[to].place,
		Due:         epoch.Add(time.Duration(i)*37*time.Second + time.Duration(m.IntN(90*24*60))*time.Minute),
		Tags:        m.tags(kind),
		References:  m.references(i),
	}
	r.WeightKg = max(0.001, round(kind.kg*float64(r.Pieces)*(0.6+0.8*m.Float64()), 3))
	if kind.cooled {
		low := round(kind.low+2*m.Float64(), 1)
		r.Cooling = &Cooling{Min: low, Max: round(low+2+4*m.Float64(), 1)}
	}
	return r
}

// goods describes a kind: sometimes in a word, sometimes as a whole packing list.
func (m *maker) goods(k kind) string {
	text := k.names[m.IntN(len(k.names))]
	switch m.IntN(10) {
	case 0, 1, 2, 3:
		return text
	case 4, 5, 6:
		return fmt.Sprintf("%s, %s", text, packings[m.IntN(len(packings))])
	case 7, 8:
		return fmt.Sprintf("%s (%s, %s)", text, packings[m.IntN(len(packings))], partners[m.IntN(len(partners))])
	}
	for {
		next := text + "; " + fmt.Sprintf("%d × %s", 1+m.IntN(48), packings[m.IntN(len(packings))])
		if len(next) > 190 { // the contract takes 200 bytes
			return text
		}
		text = next
	}
}

// pieces spreads evenly over the orders of magnitude: many small shipments, few big ones.
func (m *maker) pieces() int { return max(1, int(math.Pow(10, 4.5*m.Float64()*m.Float64()))) }

func (m *maker) tags(k kind) []string {
	tags := append([]string(nil), k.tags...)
	for _, i := range m.Perm(len(handling))[:m.IntN(4)] {
		tags = append(tags, handling[i])
	}
	return tags
}

func (m *maker) references(i int) map[string]string {
	if m.IntN(5) == 0 {
		return nil
	}
	all := map[string]func() string{
		"container": func() string { return fmt.Sprintf("%s%07d", carriers[m.IntN(len(carriers))], m.IntN(1e7)) },
		"customs": func() string {
			return fmt.Sprintf("26%s%014dT%d", regions[m.IntN(len(regions))], m.Int64N(1e14), m.IntN(10))
		},
		"incoterm": func() string { return incoterms[m.IntN(len(incoterms))] },
		"volume":   func() string { return fmt.Sprintf("%.2f %s", 0.01+m.ExpFloat64()*12, volumes[m.IntN(len(volumes))]) },
		"freight": func() string {
			return fmt.Sprintf("%.2f %s", 20+m.ExpFloat64()*900, currencies[m.IntN(len(currencies))])
		},
		"order":      func() string { return fmt.Sprintf("PO-%d/%d", 4_500_000+i, 1+m.IntN(9)) },
		"consignee":  func() string { return partners[m.IntN(len(partners))] },
		"insurance":  func() string { return fmt.Sprintf("%08X", m.Uint32()) },
		"letter":     func() string { return fmt.Sprintf("LC%010d", m.Int64N(1e10)) },
		"remark 備考":  func() string { return remarks[m.IntN(len(remarks))] },
		"temp. log":  func() string { return fmt.Sprintf("https://example.com/log/%x", m.Uint64()) },
		"UN number":  func() string { return fmt.Sprintf("UN%04d", 1000+m.IntN(2500)) },
		"seal-no. №": func() string { return fmt.Sprintf("%06d", m.IntN(1e6)) },
	}
	chosen := map[string]string{}
	// By their order in names: that of a map would differ from run to run.
	for _, n := range m.Perm(len(referenceNames))[:1+m.IntN(6)] {
		chosen[referenceNames[n]] = all[referenceNames[n]]()
	}
	return chosen
}

// spoiled is a record that breaks a rule of the contract.
func (m *maker) spoiled(r Record) ([]byte, error) {
	raw, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	origin := fields["origin"].(map[string]any)
	switch m.IntN(12) {
	case 0:
		fields["weightKg"] = -r.WeightKg
	case 1:
		fields["pieces"] = 0
	case 2:
		fields["pieces"] = "many"
	case 3:
		delete(fields, "due")
	case 4:
		fields["goods"] = ""
	case 5:
		fields["goods"] = strings.Repeat("très long ", 30)
	case 6:
		origin["country"] = "Atlantis"
	case 7:
		origin["latitude"] = 91.5
	case 8:
		fields["receiver"] = "nobody at all"
	case 9:
		fields["weight"] = r.WeightKg // the field has another name
	case 10:
		fields["destination"] = origin
	case 11:
		fields["tags"] = []string{"fragile", "fragile"}
	}
	return json.Marshal(fields)
}

func round(x float64, digits int) float64 {
	scale := math.Pow10(digits)
	return math.Round(x*scale) / scale
}
