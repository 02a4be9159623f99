package rwset

import "fmt"

// ParseVersion is the inverse of AppendBytes.
func ParseVersion(b []byte) (Version, error) {
	var n [2]uint64
	rest := b
	for i := range n {
		if len(rest) == 0 || rest[0] > 8 || len(rest) < 1+int(rest[0]) {
			return Version{}, fmt.Errorf("version %x: cut short", b)
		}
		size := int(rest[0])
		for _, digit := range rest[1 : 1+size] {
			n[i] = n[i]<<8 | uint64(digit)
		}
		rest = rest[1+size:]
	}
	if len(rest) > 0 {
		return Version{}, fmt.Errorf("version %x: too long", b)
	}
	return Version{Block: n[0], Tx: n[1]}, nil
}
