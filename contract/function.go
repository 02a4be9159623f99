package contract

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"time"
)

var (
	typeContext   = reflect.TypeFor[*Context]()
	typeError     = reflect.TypeFor[error]()
	typeTime      = reflect.TypeFor[time.Time]()
	typeRaw       = reflect.TypeFor[json.RawMessage]()
	typeValidator = reflect.TypeFor[validator]()
)

// validator is implemented by arguments that know what is wrong with them.
type validator interface{ Validate() error }

// function is a registered function. What its types ask for is found out once.
type function struct {
	name     string
	readOnly bool
	call     reflect.Value
	params   []param
	result   reflect.Type // nil: none
	encode   func(reflect.Value) ([]byte, error)
	fails    bool // the last result is an error
}

type param struct {
	name   string
	typ    reflect.Type
	decode func([]byte) (reflect.Value, error)
}

func newFunction(name string, f any, readOnly bool, names []string) (*function, error) {
	v := reflect.ValueOf(f)
	if !v.IsValid() || v.Kind() != reflect.Func || v.IsNil() {
		return nil, fmt.Errorf("%T is no function", f)
	}
	t := v.Type()
	if t.NumIn() == 0 || t.In(0) != typeContext || t.IsVariadic() {
		return nil, fmt.Errorf("%s must take a *contract.Context first, and a fixed number of arguments", t)
	}
	fn := &function{name: name, readOnly: readOnly, call: v}
	if len(names) > t.NumIn()-1 {
		return nil, fmt.Errorf("%d names are given for %d arguments", len(names), t.NumIn()-1)
	}
	for i := 1; i < t.NumIn(); i++ {
		p := param{name: "param" + strconv.Itoa(i-1), typ: t.In(i)}
		if i <= len(names) {
			p.name = names[i-1]
		}
		decode, err := decoder(p.typ)
		if err != nil {
			return nil, fmt.Errorf("argument %s: %w", p.name, err)
		}
		p.decode = validating(p.typ, decode)
		fn.params = append(fn.params, p)
	}
	results := t.NumOut()
	if results > 0 && t.Out(results-1) == typeError {
		fn.fails = true
		results--
	}
	switch results {
	case 0:
	case 1:
		fn.result = t.Out(0)
		var err error
		if fn.encode, err = encoder(fn.result); err != nil {
			return nil, fmt.Errorf("result: %w", err)
		}
	default:
		return nil, fmt.Errorf("%s must return nothing, an error, a result, or a result and an error", t)
	}
	return fn, nil
}

// run decodes the arguments, calls the function and encodes its result.
func (f *function) run(ctx *Context, args [][]byte) ([]byte, error) {
	if len(args) != len(f.params) {
		return nil, fmt.Errorf("Incorrect number of params in function %s. Expected %d, received %d", f.name, len(f.params), len(args)) //nolint:staticcheck // Fabric's text
	}
	in := make([]reflect.Value, 1, 1+len(args))
	in[0] = reflect.ValueOf(ctx)
	for i := range f.params {
		v, err := f.params[i].decode(args[i])
		if err != nil {
			return nil, fmt.Errorf("argument %s of %s: %w", f.params[i].name, f.name, err)
		}
		in = append(in, v)
	}
	out := f.call.Call(in)
	if f.fails {
		if err, _ := out[len(out)-1].Interface().(error); err != nil {
			return nil, err
		}
	}
	if f.encode == nil {
		return nil, nil
	}
	return f.encode(out[0])
}

// decoder gives the way from the bytes of an argument to a value. Plain types are plain text, the rest is JSON.
func decoder(t reflect.Type) (func([]byte) (reflect.Value, error), error) {
	text := func(parse func(string, reflect.Value) error) func([]byte) (reflect.Value, error) {
		return func(raw []byte) (reflect.Value, error) {
			v := reflect.New(t).Elem()
			if err := parse(string(raw), v); err != nil {
				return v, fmt.Errorf("%q is no %s", shorten(raw), t)
			}
			return v, nil
		}
	}
	switch {
	case t == typeTime:
		return text(func(s string, v reflect.Value) error {
			at, err := time.Parse(time.RFC3339, s)
			v.Set(reflect.ValueOf(at))
			return err
		}), nil
	case t.Kind() == reflect.String && !reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()):
		return func(raw []byte) (reflect.Value, error) {
			v := reflect.New(t).Elem()
			v.SetString(string(raw))
			return v, nil
		}, nil
	case t != typeRaw && t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return func(raw []byte) (reflect.Value, error) { return reflect.ValueOf(raw).Convert(t), nil }, nil
	}
	switch t.Kind() {
	case reflect.Bool:
		return text(func(s string, v reflect.Value) error {
			b, err := strconv.ParseBool(s)
			v.SetBool(b)
			return err
		}), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return text(func(s string, v reflect.Value) error {
			n, err := strconv.ParseInt(s, 10, t.Bits())
			v.SetInt(n)
			return err
		}), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return text(func(s string, v reflect.Value) error {
			n, err := strconv.ParseUint(s, 10, t.Bits())
			v.SetUint(n)
			return err
		}), nil
	case reflect.Float32, reflect.Float64:
		return text(func(s string, v reflect.Value) error {
			n, err := strconv.ParseFloat(s, t.Bits())
			v.SetFloat(n)
			return err
		}), nil
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer, reflect.Uintptr:
		return nil, fmt.Errorf("%s cannot come from outside", t)
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return nil, fmt.Errorf("%s cannot be made of JSON: take a concrete type", t)
		}
	}
	return func(raw []byte) (reflect.Value, error) {
		v := reflect.New(t)
		return v.Elem(), decodeJSON(raw, v.Interface())
	}, nil
}

// validating asks arguments that can tell whether they are good.
func validating(t reflect.Type, decode func([]byte) (reflect.Value, error)) func([]byte) (reflect.Value, error) {
	byPointer := !t.Implements(typeValidator)
	if byPointer && !reflect.PointerTo(t).Implements(typeValidator) {
		return decode
	}
	return func(raw []byte) (reflect.Value, error) {
		v, err := decode(raw)
		if err != nil {
			return v, err
		}
		checked := v
		if byPointer {
			checked = reflect.New(t) // the values of some decoders cannot be addressed
			checked.Elem().Set(v)
		} else if t.Kind() == reflect.Pointer && v.IsNil() {
			return v, errors.New("null is not accepted")
		}
		err = checked.Interface().(validator).Validate()
		if byPointer {
			v = checked.Elem()
		}
		return v, err
	}
}

func decodeJSON(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("not the JSON that was expected: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("not the JSON that was expected: something follows it")
	}
	return nil
}

func encoder(t reflect.Type) (func(reflect.Value) ([]byte, error), error) {
	switch {
	case t == typeRaw:
		return func(v reflect.Value) ([]byte, error) { return v.Bytes(), nil }, nil
	case t.Kind() == reflect.String && !t.Implements(reflect.TypeFor[json.Marshaler]()):
		return func(v reflect.Value) ([]byte, error) { return []byte(v.String()), nil }, nil
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return func(v reflect.Value) ([]byte, error) { return v.Bytes(), nil }, nil
	case t == typeTime:
		return func(v reflect.Value) ([]byte, error) {
			return []byte(v.Interface().(time.Time).Format(time.RFC3339Nano)), nil
		}, nil
	}
	switch t.Kind() {
	case reflect.Chan, reflect.Func, reflect.Complex64, reflect.Complex128, reflect.UnsafePointer:
		return nil, fmt.Errorf("%s cannot be given to callers", t)
	case reflect.Pointer:
		return func(v reflect.Value) ([]byte, error) {
			if v.IsNil() {
				return nil, nil // as Fabric's contract API: nothing, not "null"
			}
			return json.Marshal(v.Interface())
		}, nil
	case reflect.Slice:
		return func(v reflect.Value) ([]byte, error) {
			if v.IsNil() {
				return []byte("[]"), nil
			}
			return json.Marshal(v.Interface())
		}, nil
	}
	return func(v reflect.Value) ([]byte, error) { return json.Marshal(v.Interface()) }, nil
}

// shorten keeps a stranger's text out of answers and logs in full.
func shorten(raw []byte) string {
	const most = 60
	for i, b := range raw {
		if b < 0x20 || b > 0x7e {
			return base64.StdEncoding.EncodeToString(raw[:min(len(raw), most)])
		}
		if i == most {
			return string(raw[:most]) + "..."
		}
	}
	return string(raw)
}
