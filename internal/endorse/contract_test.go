package endorse_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/hansa-ledger/hansa/internal/endorse"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// golden is the contract of the golden ledger, as far as its transactions tell: its function run takes a list of
// operations. What it writes is not derived but looked up in the transaction that it re-runs; what counts here is
// which keys it touches in which way, and that includes how the contract library fetches results.
type golden struct {
	public   map[string]map[string][]byte // by namespace
	private  map[string]map[string][]byte // by namespace/collection
	metadata map[string][]byte            // policies by key
	event    *peerpb.ChaincodeEvent
}

func (g *golden) execute(ctx context.Context, in *endorse.Invocation) (*peerpb.Response, *peerpb.ChaincodeEvent, error) {
	if len(in.Input.Args) == 0 {
		return nil, nil, errors.New("no function")
	}
	g.event = nil
	var args []string
	for _, a := range in.Input.Args[1:] {
		args = append(args, string(a))
	}
	ops := [][]string{append([]string{string(in.Input.Args[0])}, args...)}
	if ops[0][0] == "run" {
		ops = nil
		if err := json.Unmarshal([]byte(args[0]), &ops); err != nil {
			return nil, nil, err
		}
	}
	for i, op := range ops {
		if err := g.do(ctx, in, op); err != nil {
			return &peerpb.Response{Status: 500, Message: fmt.Sprintf("op %d %s: %s", i, op[0], err)}, nil, nil
		}
	}
	event := g.event
	if event != nil {
		event.ChaincodeId, event.TxId = in.Namespace, in.TxID
	}
	return &peerpb.Response{Status: 200}, event, nil
}

func keyOf(s string) string {
	if rest, ok := strings.CutPrefix(s, "rep:"); ok {
		n, what, _ := strings.Cut(rest, ":")
		count, _ := strconv.Atoi(n)
		return strings.Repeat(what, count)
	}
	if rest, ok := strings.CutPrefix(s, "0x"); ok {
		raw, _ := hex.DecodeString(rest)
		return string(raw)
	}
	return s
}

func (g *golden) value(ns, key, otherwise string) []byte {
	if v, ok := g.public[ns][key]; ok {
		return v
	}
	return []byte(otherwise)
}

func composite(kind, attributes string) string {
	key := "\x00" + kind + "\x00"
	if attributes != "" {
		key += strings.ReplaceAll(attributes, ",", "\x00") + "\x00"
	}
	return key
}

func failed(operation string, in *endorse.Invocation, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s failed: transaction ID: %s: %w", operation, in.TxID, err)
}

func (g *golden) do(ctx context.Context, in *endorse.Invocation, op []string) error {
	b, ns := in.Backend, in.Namespace
	arg := func(i int) string {
		if i < len(op) {
			return op[i]
		}
		return ""
	}
	put := func(key, otherwise string) error {
		return failed("PUT_STATE", in, b.Put("", key, g.value(ns, key, otherwise)))
	}
	get := func(coll, key string) error {
		_, err := b.Get(coll, key)
		return failed("GET_STATE", in, err)
	}
	policy := func(key string) []byte { return g.metadata[key] }
	switch op[0] {
	case "nop":
		return nil
	case "fail":
		return errors.New("asked to fail: " + arg(1))
	case "put":
		return put(keyOf(arg(1)), arg(2))
	case "creator", "txid", "ts", "putvar":
		return put(arg(1), "")
	case "thash":
		return put(arg(2), "")
	case "get":
		return get("", keyOf(arg(1)))
	case "del":
		return failed("DEL_STATE", in, b.Delete("", arg(1)))
	case "batch":
		for i := 1; i+1 < len(op); i += 2 {
			if err := put(op[i], op[i+1]); err != nil {
				return err
			}
		}
		return nil
	case "mget":
		_, err := b.GetMany("", op[1:])
		return err
	case "many", "delmany":
		from, _ := strconv.Atoi(arg(2))
		to, _ := strconv.Atoi(arg(3))
		for i := from; i < to; i++ {
			key := fmt.Sprintf("%s%05d", arg(1), i)
			err := b.Put("", key, g.value(ns, key, ""))
			if op[0] == "delmany" {
				err = b.Delete("", key)
			}
			if err != nil {
				return err
			}
		}
		return nil
	case "copy":
		return errors.Join(get("", arg(1)), put(arg(2), ""))
	case "transfer":
		return errors.Join(get("", arg(1)), get("", arg(2)), put(arg(1), ""), put(arg(2), ""))
	case "ckput":
		return put(composite(arg(1), arg(2)), arg(3))
	case "ckdel":
		return b.Delete("", composite(arg(1), arg(2)))
	case "ckscan":
		start := composite(arg(1), arg(2))
		return errors.Join(scan(b, start, start+"\U0010FFFF", arg(3)), put(arg(4), ""))
	case "range":
		start := arg(1)
		if start == "" {
			start = "\x01"
		}
		return errors.Join(scan(b, start, arg(2), arg(3)), put(arg(4), ""))
	case "page", "ckpage":
		start, end, size, bookmark := arg(1), arg(2), arg(3), arg(4)
		if op[0] == "ckpage" {
			start = composite(arg(1), arg(2))
			end = start + "\U0010FFFF"
		}
		if bookmark != "" {
			start = bookmark
		}
		limit, err := strconv.Atoi(size)
		if err != nil {
			return err
		}
		q, err := b.RangePage(start, end, int32(limit))
		if err != nil {
			return err
		}
		for range limit {
			if _, _, ok, err := q.Next(); !ok || err != nil {
				return err
			}
		}
		_ = q.Bookmark()
		return nil
	case "hist":
		h, err := b.History(arg(1))
		if err != nil {
			return err
		}
		defer h.Close()
		for {
			m, err := h.Next()
			if err != nil {
				return err
			}
			if m == nil {
				return put(arg(2), "")
			}
		}
	case "event":
		g.event = &peerpb.ChaincodeEvent{EventName: arg(1), Payload: []byte(arg(2))}
		return nil
	case "call":
		caller := g.event
		res, err := b.Invoke(ctx, arg(1), arg(2), &peerpb.ChaincodeInput{Args: [][]byte{[]byte("run"), []byte(arg(3))}})
		g.event = caller
		if err != nil { // contract libraries put the text into the payload and say no more
			return fmt.Errorf("call to %s: 500 ", arg(1))
		}
		if res.Status != 200 {
			return fmt.Errorf("call to %s: %d %s", arg(1), res.Status, res.Message)
		}
		return nil
	case "setvp", "delvp":
		return b.PutMetadata("", arg(1), "VALIDATION_PARAMETER", policy(arg(1)))
	case "getvp":
		_, err := b.Metadata("", arg(1))
		return err
	case "psetvp":
		return b.PutMetadata(arg(1), arg(2), "VALIDATION_PARAMETER", policy(arg(2)))
	case "pput", "tput":
		value, ok := g.private[ns+"/"+arg(1)][arg(2)]
		if !ok {
			value = []byte(arg(3))
		}
		return failed("PUT_STATE", in, b.Put(arg(1), arg(2), value))
	case "pget":
		return get(arg(1), arg(2))
	case "phash":
		_, err := b.GetHash(arg(1), arg(2))
		return err
	case "pcopy":
		return errors.Join(get(arg(1), arg(2)), put(arg(3), ""))
	case "pdel":
		return b.Delete(arg(1), arg(2))
	case "ppurge":
		return b.Purge(arg(1), arg(2))
	}
	return fmt.Errorf("unknown operation %s", op[0])
}

// scan reads a range as Fabric's contract libraries do: the peer sends a hundred results at a time and looks one ahead, and
// the last result of a batch makes the library ask for the next.
func scan(b *endorse.Backend, start, end, limit string) error {
	q, err := b.Range("", start, end)
	if err != nil {
		return err
	}
	defer q.Close()
	most := -1
	if limit != "" {
		if most, err = strconv.Atoi(limit); err != nil {
			return err
		}
	}
	f := &fetcher{q: q}
	if err := f.fetch(); err != nil {
		return err
	}
	for n := 0; (f.left > 0 || f.more) && n != most; n++ {
		if f.left--; f.left == 0 && f.more {
			if err := f.fetch(); err != nil {
				return err
			}
		}
	}
	return nil
}

type fetcher struct {
	q             *simulation.Query
	left, pending int
	more          bool
}

func (f *fetcher) fetch() error {
	f.left = f.pending
	f.pending = 0
	for {
		_, _, ok, err := f.q.Next()
		if err != nil {
			return err
		}
		if !ok {
			f.more = false
			return nil
		}
		if f.left == 100 {
			f.pending, f.more = 1, true
			return nil
		}
		f.left++
	}
}
