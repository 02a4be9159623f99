package contract

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// The description that org.hyperledger.fabric:GetMetadata gives, in the format of Fabric's contract API:
// https://hyperledger.github.io/fabric-chaincode-node/main/api/contract-schema.json
type (
	description struct {
		Schema     string                          `json:"$schema"`
		Info       Info                            `json:"info"`
		Contracts  map[string]*contractDescription `json:"contracts"`
		Components components                      `json:"components"`
	}
	contractDescription struct {
		Info         Info                     `json:"info"`
		Name         string                   `json:"name"`
		Transactions []transactionDescription `json:"transactions"`
		Default      bool                     `json:"default,omitempty"`
	}
	transactionDescription struct {
		Name       string                 `json:"name"`
		Parameters []parameterDescription `json:"parameters,omitempty"`
		Returns    *schema                `json:"returns,omitempty"`
		Tag        []string               `json:"tag"`
	}
	parameterDescription struct {
		Name   string  `json:"name"`
		Schema *schema `json:"schema"`
	}
	components struct {
		Schemas map[string]*schema `json:"schemas,omitempty"`
	}
	schema struct {
		ID                   string             `json:"$id,omitempty"`
		Ref                  string             `json:"$ref,omitempty"`
		Type                 string             `json:"type,omitempty"`
		Format               string             `json:"format,omitempty"`
		Properties           map[string]*schema `json:"properties,omitempty"`
		Required             []string           `json:"required,omitempty"`
		Items                *schema            `json:"items,omitempty"`
		AdditionalProperties any                `json:"additionalProperties,omitempty"`
	}
)

func describe(contracts []*Contract) ([]byte, error) {
	d := description{
		Schema:    "https://fabric-shim.github.io/release-1.4/contract-schema.json",
		Contracts: map[string]*contractDescription{},
	}
	s := schemas{named: map[string]*schema{}, types: map[string]reflect.Type{}}
	for i, c := range contracts {
		if i == 0 {
			d.Info = c.Info
		}
		described := &contractDescription{Info: c.Info, Name: c.name, Default: i == 0, Transactions: []transactionDescription{}}
		for _, name := range slices.Sorted(maps.Keys(c.functions)) {
			f := c.functions[name]
			t := transactionDescription{Name: name, Tag: []string{"SUBMIT", "submitTx"}}
			if f.readOnly {
				t.Tag = []string{"EVALUATE"}
			}
			for _, p := range f.params {
				t.Parameters = append(t.Parameters, parameterDescription{Name: p.name, Schema: s.of(p.typ)})
			}
			if f.result != nil {
				t.Returns = s.of(f.result)
			}
			described.Transactions = append(described.Transactions, t)
		}
		d.Contracts[c.name] = described
	}
	d.Contracts[systemContract] = &contractDescription{
		Info: Info{Title: systemContract, Version: "latest"},
		Name: systemContract,
		Transactions: []transactionDescription{
			{Name: metadataFunction, Returns: &schema{Type: "string"}, Tag: []string{"EVALUATE"}},
		},
	}
	d.Components.Schemas = s.named
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("describe the contracts: %w", err)
	}
	return raw, nil
}

// schemas describes Go types. Structs are described once, by name.
type schemas struct {
	named map[string]*schema
	types map[string]reflect.Type
}

func (s *schemas) of(t reflect.Type) *schema {
	switch {
	case t == typeTime:
		return &schema{Type: "string", Format: "date-time"}
	case t == typeRaw:
		return &schema{}
	case t == reflect.TypeFor[time.Duration]():
		return &schema{Type: "integer", Format: "int64"}
	case t.Implements(reflect.TypeFor[json.Marshaler]()) || reflect.PointerTo(t).Implements(reflect.TypeFor[json.Marshaler]()):
		return &schema{} // it decides for itself
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.String:
		return &schema{Type: "string"}
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return &schema{Type: "integer", Format: fmt.Sprintf("int%d", t.Bits())}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &schema{Type: "integer", Format: fmt.Sprintf("uint%d", t.Bits())}
	case reflect.Float32:
		return &schema{Type: "number", Format: "float"}
	case reflect.Float64:
		return &schema{Type: "number", Format: "double"}
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return &schema{Type: "string", Format: "byte"}
		}
		return &schema{Type: "array", Items: s.of(t.Elem())}
	case reflect.Map:
		return &schema{Type: "object", AdditionalProperties: s.of(t.Elem())}
	case reflect.Struct:
		if t.Name() == "" {
			return s.object(t)
		}
		name := s.nameOf(t)
		if s.named[name] == nil {
			s.named[name] = &schema{} // before the fields: types can contain themselves
			described := s.object(t)
			described.ID = name
			s.named[name] = described
		}
		return &schema{Ref: "#/components/schemas/" + name}
	}
	return &schema{}
}

// nameOf tells apart types of different packages with one name.
func (s *schemas) nameOf(t reflect.Type) string {
	name := t.Name()
	for n := 2; s.types[name] != nil && s.types[name] != t; n++ {
		name = fmt.Sprintf("%s%d", t.Name(), n)
	}
	s.types[name] = t
	return name
}

func (s *schemas) object(t reflect.Type) *schema {
	o := &schema{Type: "object", Properties: map[string]*schema{}, AdditionalProperties: false}
	s.fields(o, t)
	return o
}

func (s *schemas) fields(o *schema, t reflect.Type) {
	for f := range t.Fields() {
		tag, hasTag := f.Tag.Lookup("json")
		name, options, _ := strings.Cut(tag, ",")
		if tag == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		if f.Anonymous && name == "" {
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			if embedded.Kind() == reflect.Struct {
				s.fields(o, embedded)
				continue
			}
		}
		if !f.IsExported() {
			continue
		}
		if !hasTag || name == "" {
			name = f.Name
		}
		o.Properties[name] = s.of(f.Type)
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			o.Required = append(o.Required, name)
		}
	}
}
