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
