package p256

import (
	"math/big"
	"math/rand/v2"
	"testing"
)

func randomNumber(r *rand.Rand) *big.Int {
	v := new(big.Int)
	for range 4 {
		limb := r.Uint64()
		switch r.IntN(4) { // long carries
		case 0:
			limb = 0
		case 1:
			limb = 1<<64 - 1
		}
		v.Lsh(v, 64).Or(v, new(big.Int).SetUint64(limb))
	}
	return v.Mod(v, fieldSize)
}

func number(x *element) *big.Int {
	var plain element
	plain.mul(x, &element{1})
	v := new(big.Int)
	for i := range 4 {
		v.Lsh(v, 64).Or(v, new(big.Int).SetUint64(plain[3-i]))
	}
	return v
}

// The field's arithmetic against that of math/big, at the edges too.
func TestField(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	edges := []*big.Int{big.NewInt(0), big.NewInt(1), big.NewInt(2), new(big.Int).Sub(fieldSize, big.NewInt(1)), new(big.Int).Sub(fieldSize, big.NewInt(2)), new(big.Int).Lsh(big.NewInt(1), 255)}
	for i := range 200_000 {
		a, b := randomNumber(r), randomNumber(r)
		if i < len(edges)*len(edges) {
			a, b = edges[i/len(edges)], edges[i%len(edges)]
		}
		x, y := toElement(a), toElement(b)
		var z element
		check := func(what string, want *big.Int) {
			t.Helper()
			if got := number(&z); got.Cmp(want.Mod(want, fieldSize)) != 0 {
				t.Fatalf("%s of %x and %x is %x, want %x", what, a, b, got, want)
			}
		}
		z = x
		check("value", new(big.Int).Set(a))
		z.add(&x, &y)
		check("sum", new(big.Int).Add(a, b))
		z.sub(&x, &y)
		check("difference", new(big.Int).Sub(a, b))
		z.mul(&x, &y)
		check("product", new(big.Int).Mul(a, b))
		z.square(&x)
		check("square", new(big.Int).Mul(a, a))
		if i < 1000 && a.Sign() > 0 {
			z.invert(&x)
			check("inverse", new(big.Int).ModInverse(a, fieldSize))
		}
		z = x
		z.mul(&z, &z)
		check("square in place", new(big.Int).Mul(a, a))
	}
}

func BenchmarkMul(b *testing.B) {
	x, y := toElement(big.NewInt(12345678)), toElement(big.NewInt(87654321))
	for b.Loop() {
		x.mul(&x, &y)
	}
}

func BenchmarkSquare(b *testing.B) {
	x := toElement(big.NewInt(12345678))
	for b.Loop() {
		x.square(&x)
	}
}
