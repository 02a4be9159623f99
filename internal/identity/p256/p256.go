// Package p256 verifies ECDSA signatures on the curve P-256 (FIPS 186-5, SEC 1) by keys that are used often: for each of them the
// multiples of its point are computed once, which leaves of a verification 64 additions of points, a quarter of what crypto/ecdsa
// needs.
//
// It guarantees the verdicts of crypto/ecdsa.Verify for every input. Nothing that it handles is secret, so nothing in it takes
// care of timing: it must not be used to sign.
//
// It leaves out the encoding of keys and signatures, and which keys deserve a table. Open this file first; point.go adds points,
// field.go computes modulo the curve's prime.
package p256

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"math/big"
	"sync"
)

const (
	rows    = 32  // one for each byte of a scalar
	columns = 128 // digits run from -127 to 128, and a point's opposite costs nothing
)

// Table holds the multiples of a public point Q: d*256^i*Q at [i*128+d-1] for 1 <= d <= 128, and 256^32*Q at the end. It takes 262 kB
// and never changes.
type Table struct {
	points [rows*columns + 1]affine
}

// order is that of the base point; the scalars are computed modulo it.
var order = elliptic.P256().Params().N

// baseTable is the table of the base point: every verification needs it too.
var baseTable = sync.OnceValue(func() *Table { return newTable(base()) })

// NewTable computes the table of a key in some 3 ms. It refuses a key that is no point of P-256.
func NewTable(pub *ecdsa.PublicKey) (*Table, error) {
	raw, err := pub.Bytes()
	if err != nil {
		return nil, err
	}
	if pub.Curve != elliptic.P256() {
		return nil, errors.New("the key is not of the curve P-256")
	}
	q := affine{toElement(new(big.Int).SetBytes(raw[1:33])), toElement(new(big.Int).SetBytes(raw[33:]))}
	if !q.onCurve(elliptic.P256().Params().B) {
		return nil, errors.New("the key is not a point of P-256")
	}
	return newTable(q), nil
}

func newTable(unit affine) *Table {
	t := &Table{}
	var row [columns + 1]jacobian
	for i := range rows {
		row[0] = jacobian{unit.x, unit.y, one}
		for d := 1; d < columns; d++ {
			row[d] = row[d-1]
			row[d].add(&unit.x, &unit.y)
		}
		row[columns].double(&row[columns-1]) // 256 units: the unit of the next row
		normalize(t.points[i*columns:(i+1)*columns+1], row[:])
		unit = t.points[(i+1)*columns]
	}
	return t
}

// multiply adds k*Q to sum. k is big-endian.
func (t *Table) multiply(sum *jacobian, k *[32]byte) {
	var minus, zero element
	carry := 0
	for i := range rows {
		d := int(k[31-i]) + carry
		carry = 0
		if d > columns {
			d -= 256
			carry = 1
		}
		switch {
		case d > 0:
			p := &t.points[i*columns+d-1]
			sum.add(&p.x, &p.y)
		case d < 0:
			p := &t.points[i*columns-d-1]
			minus.sub(&zero, &p.y)
			sum.add(&p.x, &minus)
		}
	}
	if carry != 0 {
		p := &t.points[rows*columns]
		sum.add(&p.x, &p.y)
	}
}

// Verify is ecdsa.Verify for a 32-byte digest under the table's key (SEC 1, section 4.1.4). r and s may be any numbers.
func (t *Table) Verify(digest *[32]byte, r, s *big.Int) bool {
	if r.Sign() <= 0 || s.Sign() <= 0 || r.Cmp(order) >= 0 || s.Cmp(order) >= 0 {
		return false
	}
	w := new(big.Int).ModInverse(s, order)
	u := new(big.Int).SetBytes(digest[:])
	var k [32]byte
	var sum jacobian
	u.Mod(u.Mul(u, w), order).FillBytes(k[:])
	baseTable().multiply(&sum, &k)
	u.Mod(u.Mul(r, w), order).FillBytes(k[:])
	t.multiply(&sum, &k)
	if sum.z.isZero() {
		return false
	}
	// Its x = X/Z^2 modulo the order is to be r. x is below the prime, which lies between the order and twice the order.
	var zz, x element
	zz.square(&sum.z)
	candidate := new(big.Int).Set(r)
	for ; candidate.Cmp(fieldSize) < 0; candidate.Add(candidate, order) {
		x = toElement(candidate)
		x.mul(&x, &zz)
		if x == sum.x {
			return true
		}
	}
	return false
}
