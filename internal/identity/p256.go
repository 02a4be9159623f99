package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"math/big"
	"sync"
	"sync/atomic"

	"filippo.io/nistec"
)

// A verifying node sees the same few keys over and over: a handful of endorsers and orderers, some clients. For a P-256 key that
// is used often, the multiples of its point are computed once, which leaves of a verification a multiplication of the base point
// (as quick as nistec's own table makes it) and 32 additions: less than half of what crypto/ecdsa needs. Nothing here is secret,
// so nothing here takes care of timing.
const (
	// tableAfter is how many verifications a key must have asked for: a table costs as much as some 40 of them save.
	tableAfter = 100
	tableSize  = 32*128 + 1 // points of 96 bytes: 393 kB
)

// keyTable holds, for the public point Q, d*256^i*Q at [i*128+d-1] for i < 32 and 1 <= d <= 128, and 256^32*Q at the end.
type keyTable [tableSize]nistec.P256Point

func newKeyTable(pub *ecdsa.PublicKey) (*keyTable, error) {
	raw, err := pub.Bytes()
	if err != nil {
		return nil, err
	}
	unit, err := nistec.NewP256Point().SetBytes(raw)
	if err != nil {
		return nil, err
	}
	t := new(keyTable)
	for i := range 32 {
		row := t[i*128 : (i+1)*128]
		row[0].Set(unit)
		for d := 1; d < 128; d++ {
			row[d].Add(&row[d-1], unit)
		}
		unit = nistec.NewP256Point().Double(&row[127]) // 256 units
	}
	t[tableSize-1].Set(unit)
	return t, nil
}

// mult sets p to k*Q. k is big-endian. Digits above 128 borrow from the next byte, which halves the table.
func (t *keyTable) mult(p *nistec.P256Point, k *[32]byte) {
	p.Set(nistec.NewP256Point())
	var minus nistec.P256Point
	carry := 0
	for i := range 32 {
		d := int(k[31-i]) + carry
		carry = 0
		if d > 128 {
			d -= 256
			carry = 1
		}
		switch {
		case d > 0:
			p.Add(p, &t[i*128+d-1])
		case d < 0:
			p.Add(p, minus.Negate(&t[i*128-d-1]))
		}
	}
	if carry != 0 {
		p.Add(p, &t[tableSize-1])
	}
}

// verify is ecdsa.Verify for a 32-byte digest under the table's key (SEC 1, section 4.1.4).
func (t *keyTable) verify(digest *[32]byte, r, s *big.Int) bool {
	n := p256.order
	if r.Sign() <= 0 || s.Sign() <= 0 || r.Cmp(n) >= 0 || s.Cmp(n) >= 0 {
		return false
	}
	w := new(big.Int).ModInverse(s, n)
	u := new(big.Int).SetBytes(digest[:])
	u.Mod(u.Mul(u, w), n)
	var k [32]byte
	sum, err := nistec.NewP256Point().ScalarBaseMult(u.FillBytes(k[:]))
	if err != nil {
		return false
	}
	u.Mod(u.Mul(r, w), n)
	u.FillBytes(k[:])
	var q nistec.P256Point
	t.mult(&q, &k)
	x, err := sum.Add(sum, &q).BytesX()
	if err != nil {
		return false // the sum is infinity
	}
	// x is below the field's prime, which is above the order, but below twice the order.
	u.SetBytes(x)
	if u.Cmp(n) >= 0 {
		u.Sub(u, n)
	}
	return u.Cmp(r) == 0
}

// p256 are the curve's constants, never changed.
var p256 = struct{ order, half *big.Int }{elliptic.P256().Params().N, new(big.Int).Rsh(elliptic.P256().Params().N, 1)}

// keyTables says which keys have a table: at most as many as there are slots, the busiest ones.
type keyTables struct {
	limit int

	mu    sync.Mutex // guards slots; held while a table is computed
	slots []*publicKey
}

// usage belongs to a publicKey.
type usage struct {
	count atomic.Uint64 // verifications, halved as time goes by for keys that have a table
	table atomic.Pointer[keyTable]
}

// tableOf returns the table of k if it has one. It computes one for a key that earned it, on the caller's time (under 2 ms, once),
// unless another key is at it: then the caller does without.
func (ts *keyTables) tableOf(k *publicKey) *keyTable {
	count := k.usage.count.Add(1)
	if t := k.usage.table.Load(); t != nil {
		return t
	}
	if ts.limit <= 0 || k.ecdsa.Curve != elliptic.P256() || count%tableAfter != 0 || !ts.mu.TryLock() {
		return nil
	}
	defer ts.mu.Unlock()
	if t := k.usage.table.Load(); t != nil {
		return t
	}
	if len(ts.slots) < ts.limit {
		ts.slots = append(ts.slots, nil)
	} else {
		// The least busy key makes room, if it is less busy than k. Halving lets old fame fade.
		last := len(ts.slots) - 1
		for i, one := range ts.slots {
			one.usage.count.Store(one.usage.count.Load() / 2)
			if one.usage.count.Load() < ts.slots[last].usage.count.Load() {
				ts.slots[i], ts.slots[last] = ts.slots[last], ts.slots[i]
			}
		}
		if ts.slots[last].usage.count.Load() >= count {
			return nil
		}
		ts.slots[last].usage.table.Store(nil)
	}
	t, err := newKeyTable(k.ecdsa)
	if err != nil { // not possible for a key out of a certificate, whose point was checked
		ts.slots = ts.slots[:len(ts.slots)-1]
		return nil
	}
	ts.slots[len(ts.slots)-1] = k
	k.usage.table.Store(t)
	return t
}
