package statedb

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/hansa-ledger/hansa/internal/rwset"
)

// Everything that is derived from a channel's log shares one Pebble database. The first byte of a key says whose
// it is; these are the bytes of this package, those of privatedb and ledger are beside their own layout.
//
//	s  namespace  key                                public state
//	h  namespace  collection  hash of the key        hashed collections
//	y  namespace  key  ^block  ^transaction          history, the newest first
//	i  namespace  collection                         key spaces that ever held metadata
//
// A name inside a key is closed by 00 01, and a 00 within it becomes 00 ff, so that no name can reach into
// another's keys and the order of keys stays that of the names.
const (
	prefixPublic  = 's'
	prefixHashed  = 'h'
	prefixHistory = 'y'
	prefixHint    = 'i'
)

// AppendName appends a closed name.
func AppendName(b []byte, name string) []byte {
	for {
		i := strings.IndexByte(name, 0)
		if i < 0 {
			return append(append(b, name...), 0, 1)
		}
		b = append(append(b, name[:i]...), 0, 0xff)
		name = name[i+1:]
	}
}

// CutName takes a closed name from the front of a key.
func CutName(b []byte) (name string, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i >= 0 && i+1 < len(b) && b[i+1] == 1 {
		return string(b[:i]), b[i+2:], true
	}
	var out []byte
	for {
		i := bytes.IndexByte(b, 0)
		if i < 0 || i+1 >= len(b) {
			return "", nil, false
		}
		out = append(out, b[:i]...)
		switch b[i+1] {
		case 1:
			return string(out), b[i+2:], true
		case 0xff:
			out = append(out, 0)
		default:
			return "", nil, false
		}
		b = b[i+2:]
	}
}

// PrefixEnd is the first key behind all keys with that prefix; nil if there is none.
func PrefixEnd(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}

func appendPublic(b []byte, namespace, key string) []byte {
	return append(AppendName(append(b, prefixPublic), namespace), key...)
}

func appendHashed(b []byte, namespace, collection string, keyHash []byte) []byte {
	return append(AppendName(AppendName(append(b, prefixHashed), namespace), collection), keyHash...)
}

func appendPlace(b []byte, p rwset.Place) []byte {
	return AppendName(AppendName(b, p.Namespace), p.Collection)
}

func appendHistory(b []byte, namespace, key string) []byte {
	return AppendName(AppendName(append(b, prefixHistory), namespace), key)
}

// appendNewestFirst makes later transactions sort before earlier ones.
func appendNewestFirst(b []byte, v rwset.Version) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, ^v.Block), ^v.Tx)
}
