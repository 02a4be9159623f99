package contracttest

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hansa-ledger/hansa/contract/internal/shim"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/queryresultpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

type write struct {
	value    []byte
	removed  bool
	metadata map[string][]byte
}

type rangeRead struct {
	contract, collection, start, end string
	seen                             []keyVersion
}

// run runs one contract of a transaction: the first, or one that another calls.
func (tx *Transaction) run(name string, args [][]byte) (*shim.Call, *peerpb.Response, error) {
	p := tx.ledger.deployed[name]
	if p == nil {
		return nil, nil, fmt.Errorf("contract %s is not deployed", name)
	}
	if slices.Contains(tx.depth, name) {
		return nil, nil, fmt.Errorf("txid: %s(%s) exists: contract %s calls itself", tx.ID, tx.ledger.Channel, name)
	}
	tx.depth = append(tx.depth, name)
	defer func() { tx.depth = tx.depth[:len(tx.depth)-1] }()
	call := &shim.Call{
		ChannelID: tx.ledger.Channel, TxID: tx.ID, Args: args, Creator: tx.client.creator, Transient: tx.client.transient,
		Timestamp: tx.at, Ledger: &view{tx: tx, contract: name},
	}
	return call, handle(p, call), nil
}

// view is the state as one contract of a transaction sees it.
type view struct {
	tx       *Transaction
	contract string
}

var _ shim.Ledger = (*view)(nil)

func (v *view) failed(request string, err error) error {
	return fmt.Errorf("%s failed: transaction ID: %s: %w", request, v.tx.ID, err)
}

// collection refuses one that is not defined, and if member is set, clients of members that are not in it.
func (v *view) collection(name string, member bool) error {
	if name == "" {
		return nil
	}
	members, defined := v.tx.ledger.collections[name]
	if org, implicit := strings.CutPrefix(name, "_implicit_org_"); implicit {
		members, defined = nil, org != "" // anybody's client may write there; its member's peers keep it
	}
	if !defined {
		return fmt.Errorf("collection [%s/%s/%s] could not be found", v.tx.ledger.Channel, v.contract, name)
	}
	if member && len(members) > 0 && !slices.Contains(members, v.tx.client.mspID) {
		return fmt.Errorf("tx creator does not have access permission on privatedata in chaincodeName:%s collectionName: %s", v.contract, name)
	}
	return nil
}

func (v *view) Get(collection, key string) ([]byte, error) {
	if err := v.collection(collection, true); err != nil {
		return nil, v.failed("GET_STATE", err)
	}
	at := place{v.contract, collection, key}
	v.tx.reads[at] = v.tx.ledger.version(at)
	return slices.Clone(v.tx.ledger.value(at)), nil
}

func (v *view) GetMany(collection string, keys []string) ([][]byte, error) {
	values := make([][]byte, 0, len(keys))
	for _, key := range keys {
		value, err := v.Get(collection, key)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, nil
}

func (v *view) Hash(collection, key string) ([]byte, error) {
	if err := v.collection(collection, false); err != nil {
		return nil, v.failed("GET_PRIVATE_DATA_HASH", err)
	}
	at := place{v.contract, collection, key}
	v.tx.reads[at] = v.tx.ledger.version(at)
	value := v.tx.ledger.value(at)
	if value == nil {
		return nil, nil
	}
	sum := sha256.Sum256(value)
	return sum[:], nil
}

func (v *view) Put(collection, key string, value []byte) error {
	w, err := v.write("PUT_STATE", collection, key)
	if err == nil {
		w.value, w.removed = slices.Clone(value), false
	}
	return err
}

func (v *view) Delete(collection, key string) error {
	w, err := v.write("DEL_STATE", collection, key)
	if err == nil {
		w.value, w.removed = nil, true
	}
	return err
}

func (v *view) Purge(collection, key string) error {
	if collection == "" {
		return v.failed("PURGE_PRIVATE_DATA", errors.New("only applicable for private data"))
	}
	return v.Delete(collection, key)
}

func (v *view) PutMetadata(collection, key, name string, value []byte) error {
	w, err := v.write("PUT_STATE_METADATA", collection, key)
	if err == nil {
		if w.metadata == nil {
			w.metadata = map[string][]byte{}
		}
		w.metadata[name] = slices.Clone(value)
	}
	return err
}

// write notes that a key is written.
func (v *view) write(request, collection, key string) (*write, error) {
	if err := v.collection(collection, true); err != nil {
		return nil, v.failed(request, err)
	}
	tx := v.tx
	switch {
	case tx.private:
		return nil, v.failed(request, errors.New("transaction has already performed queries on private data; writes are not allowed"))
	case tx.paged:
		return nil, v.failed(request, errors.New("transaction has already performed a paginated query; writes are not allowed"))
	}
	at := place{v.contract, collection, key}
	w := tx.writes[at]
	if w == nil {
		w = &write{}
		tx.writes[at] = w
		tx.order = append(tx.order, at)
	}
	return w, nil
}

func (v *view) Metadata(collection, key string) (map[string][]byte, error) {
	if err := v.collection(collection, true); err != nil {
		return nil, v.failed("GET_STATE_METADATA", err)
	}
	at := place{v.contract, collection, key}
	v.tx.reads[at] = v.tx.ledger.version(at)
	if e := v.tx.ledger.state[at]; e != nil {
		return maps.Clone(e.metadata), nil
	}
	return nil, nil
}

func (v *view) Range(collection, start, end string, page shim.Page) (shim.Rows, error) {
	const request = "GET_STATE_BY_RANGE"
	if err := v.collection(collection, true); err != nil {
		return nil, v.failed(request, err)
	}
	tx := v.tx
	paged := collection == "" && page != (shim.Page{})
	if (paged || collection != "") && len(tx.writes) > 0 {
		return nil, v.failed(request, errors.New("pages and queries of private data are supported only in a read-only transaction"))
	}
	tx.paged = tx.paged || paged
	tx.private = tx.private || collection != ""
	start = cmp.Or(page.Bookmark, start)
	found := tx.ledger.scan(v.contract, collection, start, end)
	rows := &rows{}
	if paged && len(found) > int(page.Size) {
		rows.bookmark = found[page.Size].key
		end = rows.bookmark
		found = found[:page.Size]
	}
	if collection == "" {
		tx.ranges = append(tx.ranges, rangeRead{v.contract, collection, start, end, found})
	}
	for _, f := range found {
		rows.left = append(rows.left, &queryresultpb.KV{
			Namespace: v.contract, Key: f.key, Value: slices.Clone(tx.ledger.value(place{v.contract, collection, f.key})),
		})
	}
	return rows, nil
}

func (v *view) History(key string) (shim.Changes, error) {
	c := &changes{}
	for _, change := range slices.Backward(v.tx.ledger.history[place{v.contract, "", key}]) {
		c.left = append(c.left, &queryresultpb.KeyModification{
			TxId: change.TxID, Value: slices.Clone(change.Value), IsDelete: change.IsDelete, Timestamp: timestamppb.New(change.Timestamp),
		})
	}
	return c, nil
}

func (v *view) Invoke(name string, args [][]byte) (*peerpb.Response, error) {
	name, channel, _ := strings.Cut(name, "/")
	if channel != "" && channel != v.tx.ledger.Channel {
		return nil, v.failed("INVOKE_CHAINCODE", fmt.Errorf("failed to find ledger for channel: %s", channel))
	}
	_, response, err := v.tx.run(name, args)
	if err != nil {
		return nil, v.failed("INVOKE_CHAINCODE", err)
	}
	return response, nil
}

// Flush has nothing to do: writes are checked when they are made.
func (v *view) Flush() error { return nil }

type rows struct {
	left     []*queryresultpb.KV
	bookmark string
}

func (r *rows) Next() (*queryresultpb.KV, error) { return first(&r.left), nil }
func (r *rows) Bookmark() string                 { return r.bookmark }
func (r *rows) Close() error                     { return nil }

type changes struct {
	left []*queryresultpb.KeyModification
}

func (c *changes) Next() (*queryresultpb.KeyModification, error) { return first(&c.left), nil }
func (c *changes) Close() error                                  { return nil }

// first takes the first of a list, nil if there is none.
func first[T any](list *[]*T) *T {
	if len(*list) == 0 {
		return nil
	}
	head := (*list)[0]
	*list = (*list)[1:]
	return head
}
