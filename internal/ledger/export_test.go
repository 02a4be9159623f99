package ledger

// EncodeExtra and DecodeExtra are the form of private data in the log, for its fuzz test.
var (
	EncodeExtra = encodeExtra
	DecodeExtra = decodeExtra
)
