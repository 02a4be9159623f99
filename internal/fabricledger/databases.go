package fabricledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"syscall"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
	"google.golang.org/protobuf/encoding/protowire"
)

// Status is what a peer's list says of a ledger.
type Status int

// The states of a ledger; of those under construction and deletion nothing is to be had.
const (
	Active Status = iota
	Inactive
	UnderConstruction
	UnderDeletion
)

const (
	ledgerPrefix  = 's'
	formatKey     = "f"
	currentFormat = "2.0"
	// dataPrefix begins the keys of private write sets.
	dataPrefix = 2
)

// open opens a database without changing it.
func open(dir string) (*leveldb.DB, error) {
	db, err := leveldb.OpenFile(dir, &opt.Options{ReadOnly: true, ErrorIfMissing: true, DisableSeeksCompaction: true})
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
		return nil, fmt.Errorf("%s is in use: stop Fabric's node first", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return db, nil
}

// Idle is an error while an orderer uses its folder of ledgers.
func Idle(dir string) error {
	index := filepath.Join(dir, "index")
	if _, err := os.Stat(index); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := open(index)
	if err != nil {
		return err
	}
	return db.Close()
}

// Ledgers lists a peer's ledgers. dir is ledgersData.
func Ledgers(dir string) (_ map[string]Status, err error) {
	// A running peer holds this one all the time.
	lock := filepath.Join(dir, "fileLock")
	if _, err := os.Stat(lock); err == nil {
		db, err := open(lock)
		if err != nil {
			return nil, err
		}
		if err := db.Close(); err != nil {
			return nil, err
		}
	}
	db, err := open(filepath.Join(dir, "ledgerProvider"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	switch format, err := db.Get([]byte(formatKey), nil); {
	case errors.Is(err, leveldb.ErrNotFound) || err == nil && string(format) != currentFormat:
		return nil, fmt.Errorf("%s has format %q, and %q is wanted: upgrade it with Fabric's peer node upgrade-dbs first", dir, format, currentFormat)
	case err != nil:
		return nil, err
	}
	ledgers := map[string]Status{}
	it := db.NewIterator(util.BytesPrefix([]byte{ledgerPrefix}), nil)
	defer it.Release()
	for it.Next() {
		status, err := decodeStatus(it.Value())
		if err != nil {
			return nil, fmt.Errorf("%s: ledger %q: %w", dir, it.Key()[1:], err)
		}
		ledgers[string(it.Key()[1:])] = status
	}
	return ledgers, it.Error()
}

// decodeStatus reads field 1 of a ledger's metadata.
func decodeStatus(raw []byte) (Status, error) {
	status := Active
	err := walk(raw, func(field protowire.Number, number uint64, value []byte) {
		if field == 1 && value == nil {
			status = Status(number)
		}
	})
	return status, err
}

// walk visits the fields of a message that are numbers, with a nil value, and those that are bytes.
func walk(raw []byte, visit func(field protowire.Number, number uint64, value []byte)) error {
	for len(raw) > 0 {
		field, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return protowire.ParseError(n)
		}
		raw = raw[n:]
		if n = protowire.ConsumeFieldValue(field, kind, raw); n < 0 {
			return protowire.ParseError(n)
		}
		switch kind {
		case protowire.VarintType:
			number, _ := protowire.ConsumeVarint(raw)
			visit(field, number, nil)
		case protowire.BytesType:
			value, _ := protowire.ConsumeBytes(raw)
			visit(field, 0, value)
		}
		raw = raw[n:]
	}
	return nil
}

// Private reads a peer's private data.
type Private struct{ db *leveldb.DB }

// OpenPrivate opens the private data; dir is ledgersData. nil: there is none.
func OpenPrivate(dir string) (*Private, error) {
	dir = filepath.Join(dir, "pvtdataStore")
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	db, err := open(dir)
	if err != nil {
		return nil, err
	}
	return &Private{db}, nil
}

// Close closes it; nil is closed.
func (p *Private) Close() error {
	if p == nil {
		return nil
	}
	return p.db.Close()
}

// WriteSet is the serialized private write set of a collection in a transaction, or nil.
func (p *Private) WriteSet(channel string, block, tx uint64, namespace, collection string) ([]byte, error) {
	if p == nil {
		return nil, nil
	}
	key := append([]byte(channel), 0, dataPrefix)
	key = appendOrdered(appendOrdered(key, block), tx)
	key = append(append(append(key, namespace...), 0), collection...)
	raw, err := p.db.Get(key, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("private data of block %d, transaction %d: %w", block, tx, err)
	}
	return decodeCollection(raw)
}

// decodeCollection reads field 2 of rwset.CollectionPvtReadWriteSet.
func decodeCollection(raw []byte) (set []byte, err error) {
	err = walk(raw, func(field protowire.Number, _ uint64, value []byte) {
		if field == 2 && value != nil {
			set = value
		}
	})
	return set, err
}

// appendOrdered writes a number so that numbers sort as bytes: how many bytes it has, then those, the highest first.
func appendOrdered(b []byte, n uint64) []byte {
	size := (bits.Len64(n) + 7) / 8
	b = append(b, byte(size))
	return append(b, binary.BigEndian.AppendUint64(nil, n)[8-size:]...)
}
