package ledger

// EncodeExtra and DecodeExtra are the form of private data in the log, for its fuzz test.
var (
	EncodeExtra = encodeExtra
	DecodeExtra = decodeExtra
)

// Each and AddPrivate take private data apart and put it together.
var (
	Each       = each
	AddPrivate = addPrivate
)

// LimitHotKeys sets the bytes of a generation of remembered keys.
func (l *Ledger) LimitHotKeys(bytes int) { l.hot.limit = bytes }

// IsHot says whether a key's value at a height is remembered.
func (l *Ledger) IsHot(namespace, key string, height uint64) bool {
	_, ok := l.hot.get(namespace, key, height)
	return ok
}
