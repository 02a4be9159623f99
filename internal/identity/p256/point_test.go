package p256

import (
	"crypto/elliptic"
	"math/big"
	"testing"

	"filippo.io/nistec"
)

// Sums of multiples of the base point and of small multiples of it, where intermediate sums meet the next summand, its opposite and
// infinity, against another implementation.
func TestSumsThatMeet(t *testing.T) {
	n := elliptic.P256().Params().N
	less := func(v int64) *big.Int { return new(big.Int).Sub(n, big.NewInt(v)) }
	var scalars []*big.Int
	for _, v := range []int64{0, 1, 2, 3, 127, 128, 129, 255, 256, 257, 1 << 15, 1<<15 + 128, 1<<16 - 1} {
		scalars = append(scalars, big.NewInt(v), new(big.Int).Mod(less(v), n), new(big.Int).Lsh(big.NewInt(v), 200))
	}
	scalars = append(scalars, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1))) // not below the order
	times := func(k *big.Int) *nistec.P256Point {
		p, err := nistec.NewP256Point().ScalarBaseMult(new(big.Int).Mod(k, n).FillBytes(make([]byte, 32)))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, d := range []*big.Int{big.NewInt(1), big.NewInt(2), big.NewInt(256), less(1), less(2), less(256)} {
		raw := times(d).Bytes()
		q := newTable(affine{toElement(new(big.Int).SetBytes(raw[1:33])), toElement(new(big.Int).SetBytes(raw[33:]))})
		for _, a := range scalars {
			for _, b := range scalars {
				var sum jacobian
				baseTable().multiply(&sum, (*[32]byte)(a.FillBytes(make([]byte, 32))))
				q.multiply(&sum, (*[32]byte)(b.FillBytes(make([]byte, 32))))
				want := times(new(big.Int).Add(a, new(big.Int).Mul(b, d))).Bytes()
				if sum.z.isZero() {
					if len(want) != 1 {
						t.Fatalf("%x + %x*%x is infinity", a, b, d)
					}
					continue
				}
				var got [1]affine
				normalize(got[:], []jacobian{sum})
				if len(want) != 65 || number(&got[0].x).Cmp(new(big.Int).SetBytes(want[1:33])) != 0 || number(&got[0].y).Cmp(new(big.Int).SetBytes(want[33:])) != 0 {
					t.Fatalf("%x + %x*%x is wrong", a, b, d)
				}
			}
		}
	}
}
