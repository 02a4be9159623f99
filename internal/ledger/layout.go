package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/rwsetpb"
)

// Keys of the derived database that are this package's; statedb and privatedb have the others.
//
//	m                          savepoint
//	t  length  transaction id  block, transaction, code; nothing for one that only a snapshot knows
//	b  hash of the header      block number
//	c  Fabric's own key        collections of a contract as a block changed them, see collections.go
const (
	keySavepoint      = 'm'
	prefixTx          = 't'
	prefixBlockHash   = 'b'
	prefixCollections = 'c'
)

// derivedFormat counts the changes of this layout and those of statedb and privatedb. Derived data of another format is
// thrown away by Open and made again.
const derivedFormat = 2

// txKey puts the length in front, so that identifiers are in the order of a snapshot's file.
func txKey(id string) []byte {
	b := make([]byte, 0, 16+len(id))
	if b = append(b, prefixTx); len(id) < 0xff {
		b = append(b, byte(len(id)))
	} else {
		b = binary.BigEndian.AppendUint64(append(b, 0xff), uint64(len(id)))
	}
	return append(b, id...)
}

// cutTxKey gives the identifier in a key.
func cutTxKey(key []byte) (string, error) {
	skip := 2
	if len(key) > 1 && key[1] == 0xff {
		skip += 8
	}
	if len(key) < skip {
		return "", fmt.Errorf("transaction index: bad key %x", key)
	}
	return string(key[skip:]), nil
}

// savepoint says up to where the derived data is complete.
type savepoint struct {
	height                         uint64
	hash, previousHash, commitHash []byte
	format                         uint64 // of the data as it was found; what is written is always derivedFormat
}

func (s savepoint) encode() []byte {
	b := binary.AppendUvarint(nil, s.height)
	for _, h := range [][]byte{s.hash, s.previousHash, s.commitHash} {
		b = append(binary.AppendUvarint(b, uint64(len(h))), h...)
	}
	return binary.AppendUvarint(b, derivedFormat)
}

func readSavepoint(r pebble.Reader) (savepoint, error) {
	var s savepoint
	b, closer, err := r.Get([]byte{keySavepoint})
	if errors.Is(err, pebble.ErrNotFound) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("read savepoint: %w", err)
	}
	defer closer.Close()
	d := decoder{b: b}
	s.height = d.number()
	for _, h := range []*[]byte{&s.hash, &s.previousHash, &s.commitHash} {
		if x := d.bytes(); len(x) > 0 {
			*h = append([]byte(nil), x...)
		}
	}
	s.format = 1 // the first one did not say so
	if len(d.b) > 0 {
		s.format = d.number()
	}
	if d.bad {
		return s, errors.New("read savepoint: cut short; remove the folder \"derived\" to have it made again")
	}
	return s, nil
}

type txPlace struct {
	block, tx uint64
	code      byte
}

func (p txPlace) encode() []byte {
	return append(binary.AppendUvarint(binary.AppendUvarint(make([]byte, 0, 12), p.block), p.tx), p.code)
}

func decodeTxPlace(b []byte) (txPlace, error) {
	d := decoder{b: b}
	p := txPlace{block: d.number(), tx: d.number()}
	if d.bad || len(d.b) != 1 {
		return p, fmt.Errorf("transaction index: bad entry %x", b)
	}
	p.code = d.b[0]
	return p, nil
}

// decoder takes numbers and length-prefixed bytes from the front; bad is set once something is cut short.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *decoder) bytes() []byte {
	n := d.number()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	x := d.b[:n]
	d.b = d.b[n:]
	return x
}

// extraFormat starts the bytes that go into the log with a block, if there are any: private write sets, then what is missing.
const extraFormat = 1

func encodeExtra(private []TxPrivate, missing []Missing) []byte {
	if len(private) == 0 && len(missing) == 0 {
		return nil
	}
	b := binary.AppendUvarint([]byte{extraFormat}, uint64(len(private)))
	for _, p := range private {
		raw, err := proto.Marshal(p.Set)
		if err != nil {
			// Its parts came off the wire or from a builder, which have checked what can be wrong: the strings.
			panic(fmt.Sprintf("ledger: encode private write set: %v", err))
		}
		b = binary.AppendUvarint(b, p.Tx)
		b = append(binary.AppendUvarint(b, uint64(len(raw))), raw...)
	}
	b = binary.AppendUvarint(b, uint64(len(missing)))
	for _, m := range missing {
		b = binary.AppendUvarint(b, m.Tx)
		for _, name := range []string{m.Namespace, m.Collection} {
			b = append(binary.AppendUvarint(b, uint64(len(name))), name...)
		}
		eligible := uint64(0)
		if m.Eligible {
			eligible = 1
		}
		b = binary.AppendUvarint(b, eligible)
	}
	return b
}

func decodeExtra(b []byte) ([]TxPrivate, []Missing, error) {
	if len(b) == 0 {
		return nil, nil, nil
	}
	if b[0] != extraFormat {
		return nil, nil, fmt.Errorf("private data in the log has format %d, this program knows format %d", b[0], extraFormat)
	}
	var private []TxPrivate
	var missing []Missing
	d := decoder{b: b[1:]}
	for n := d.number(); n > 0 && !d.bad; n-- {
		p := TxPrivate{Tx: d.number(), Set: &rwsetpb.TxPvtReadWriteSet{}}
		if err := proto.Unmarshal(d.bytes(), p.Set); err != nil {
			return nil, nil, fmt.Errorf("private data in the log: %w", err)
		}
		private = append(private, p)
	}
	for n := d.number(); n > 0 && !d.bad; n-- {
		missing = append(missing, Missing{Tx: d.number(), Namespace: string(d.bytes()), Collection: string(d.bytes()), Eligible: d.number() == 1})
	}
	if d.bad || len(d.b) > 0 {
		return nil, nil, errors.New("private data in the log is cut short or too long")
	}
	return private, missing, nil
}
