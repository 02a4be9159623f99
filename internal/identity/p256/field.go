package p256

import (
	"math/big"
	"math/bits"
)

// element is a number below the field's prime p = 2^256 - 2^224 + 2^192 + 2^96 - 1 in Montgomery form, that is times 2^256 modulo p;
// the least significant limb first.
type element [4]uint64

// Limbs of p. Those that are not here are 2^64 - 1 and 0.
const (
	p1 = 1<<32 - 1
	p3 = 1<<64 - 1<<32 + 1
)

var (
	one       = toElement(big.NewInt(1))
	radix2    = element{3, 0xfffffffbffffffff, 0xfffffffffffffffe, 0x00000004fffffffd} // 2^512 mod p
	fieldSize = new(big.Int).SetBytes([]byte{
		0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
)

// toElement wants 0 <= v < p.
func toElement(v *big.Int) element {
	var z element
	z.mul(limbs(v), &radix2)
	return z
}

// limbs wants 0 <= v < 2^256.
func limbs(v *big.Int) *element {
	var raw [32]byte
	v.FillBytes(raw[:])
	z := &element{}
	for i := range z {
		for _, b := range raw[24-8*i : 32-8*i] {
			z[i] = z[i]<<8 | uint64(b)
		}
	}
	return z
}

func (z *element) isZero() bool { return z[0]|z[1]|z[2]|z[3] == 0 }

// reduce takes p away from z + carry * 2^256, which is below 2p, unless it is below p already.
func (z *element) reduce(carry uint64) {
	t0, b := bits.Sub64(z[0], 1<<64-1, 0)
	t1, b := bits.Sub64(z[1], p1, b)
	t2, b := bits.Sub64(z[2], 0, b)
	t3, b := bits.Sub64(z[3], p3, b)
	_, b = bits.Sub64(carry, 0, b)
	keep := -b // all ones or none: a branch would be guessed wrong too often
	z[0] = t0 ^ keep&(t0^z[0])
	z[1] = t1 ^ keep&(t1^z[1])
	z[2] = t2 ^ keep&(t2^z[2])
	z[3] = t3 ^ keep&(t3^z[3])
}

func (z *element) add(x, y *element) {
	var c uint64
	z[0], c = bits.Add64(x[0], y[0], 0)
	z[1], c = bits.Add64(x[1], y[1], c)
	z[2], c = bits.Add64(x[2], y[2], c)
	z[3], c = bits.Add64(x[3], y[3], c)
	z.reduce(c)
}

func (z *element) sub(x, y *element) {
	var b uint64
	z[0], b = bits.Sub64(x[0], y[0], 0)
	z[1], b = bits.Sub64(x[1], y[1], b)
	z[2], b = bits.Sub64(x[2], y[2], b)
	z[3], b = bits.Sub64(x[3], y[3], b)
	borrowed := -b
	z[0], b = bits.Add64(z[0], borrowed, 0)
	z[1], b = bits.Add64(z[1], borrowed&p1, b)
	z[2], b = bits.Add64(z[2], 0, b)
	z[3], _ = bits.Add64(z[3], borrowed&p3, b)
}

// mul is Montgomery's product, x*y/2^256 mod p: for each limb of x its product with y, and then the multiple of p that clears the
// lowest limb (see redc).
func (z *element) mul(x, y *element) {
	y0, y1, y2, y3 := y[0], y[1], y[2], y[3]
	var b, c, h, l, h0, h1, h2, h3, l0, l1, l2, l3, t0, t1, t2, t3, t4 uint64

	v := x[0]
	h0, l0 = bits.Mul64(v, y0)
	h1, l1 = bits.Mul64(v, y1)
	h2, l2 = bits.Mul64(v, y2)
	h3, l3 = bits.Mul64(v, y3)
	t0 = l0
	t1, c = bits.Add64(l1, h0, 0)
	t2, c = bits.Add64(l2, h1, c)
	t3, c = bits.Add64(l3, h2, c)
	t4 = h3 + c
	u := uint64(0)
	l, b = bits.Sub64(t0, t0<<32, 0)
	h, _ = bits.Sub64(t0, t0>>32, b)
	v = t0
	t0, c = bits.Add64(t1, v<<32, 0)
	t1, c = bits.Add64(t2, v>>32, c)
	t2, c = bits.Add64(t3, l, c)
	t3, c = bits.Add64(t4, h, c)
	t4 = u + c

	v = x[1]
	h0, l0 = bits.Mul64(v, y0)
	h1, l1 = bits.Mul64(v, y1)
	h2, l2 = bits.Mul64(v, y2)
	h3, l3 = bits.Mul64(v, y3)
	l1, c = bits.Add64(l1, h0, 0)
	l2, c = bits.Add64(l2, h1, c)
	l3, c = bits.Add64(l3, h2, c)
	h3 += c
	t0, c = bits.Add64(t0, l0, 0)
	t1, c = bits.Add64(t1, l1, c)
	t2, c = bits.Add64(t2, l2, c)
	t3, c = bits.Add64(t3, l3, c)
	t4, u = bits.Add64(t4, h3, c)
	l, b = bits.Sub64(t0, t0<<32, 0)
	h, _ = bits.Sub64(t0, t0>>32, b)
	v = t0
	t0, c = bits.Add64(t1, v<<32, 0)
	t1, c = bits.Add64(t2, v>>32, c)
	t2, c = bits.Add64(t3, l, c)
	t3, c = bits.Add64(t4, h, c)
	t4 = u + c

	v = x[2]
	h0, l0 = bits.Mul64(v, y0)
	h1, l1 = bits.Mul64(v, y1)
	h2, l2 = bits.Mul64(v, y2)
	h3, l3 = bits.Mul64(v, y3)
	l1, c = bits.Add64(l1, h0, 0)
	l2, c = bits.Add64(l2, h1, c)
	l3, c = bits.Add64(l3, h2, c)
	h3 += c
	t0, c = bits.Add64(t0, l0, 0)
	t1, c = bits.Add64(t1, l1, c)
	t2, c = bits.Add64(t2, l2, c)
	t3, c = bits.Add64(t3, l3, c)
	t4, u = bits.Add64(t4, h3, c)
	l, b = bits.Sub64(t0, t0<<32, 0)
	h, _ = bits.Sub64(t0, t0>>32, b)
	v = t0
	t0, c = bits.Add64(t1, v<<32, 0)
	t1, c = bits.Add64(t2, v>>32, c)
	t2, c = bits.Add64(t3, l, c)
	t3, c = bits.Add64(t4, h, c)
	t4 = u + c

	v = x[3]
	h0, l0 = bits.Mul64(v, y0)
	h1, l1 = bits.Mul64(v, y1)
	h2, l2 = bits.Mul64(v, y2)
	h3, l3 = bits.Mul64(v, y3)
	l1, c = bits.Add64(l1, h0, 0)
	l2, c = bits.Add64(l2, h1, c)
	l3, c = bits.Add64(l3, h2, c)
	h3 += c
	t0, c = bits.Add64(t0, l0, 0)
	t1, c = bits.Add64(t1, l1, c)
	t2, c = bits.Add64(t2, l2, c)
	t3, c = bits.Add64(t3, l3, c)
	t4, u = bits.Add64(t4, h3, c)
	l, b = bits.Sub64(t0, t0<<32, 0)
	h, _ = bits.Sub64(t0, t0>>32, b)
	v = t0
	t0, c = bits.Add64(t1, v<<32, 0)
	t1, c = bits.Add64(t2, v>>32, c)
	t2, c = bits.Add64(t3, l, c)
	t3, c = bits.Add64(t4, h, c)
	t4 = u + c

	*z = element{t0, t1, t2, t3}
	z.reduce(t4)
}

// square is mul of x with itself, in 10 multiplications for 16.
func (z *element) square(x *element) {
	x0, x1, x2, x3 := x[0], x[1], x[2], x[3]
	var c, h, l uint64

	// Twice the products of different limbs ...
	t2, t1 := bits.Mul64(x0, x1)
	t3, l := bits.Mul64(x0, x2)
	t2, c = bits.Add64(t2, l, 0)
	t4, l := bits.Mul64(x0, x3)
	t3, c = bits.Add64(t3, l, c)
	t4 += c
	h, l = bits.Mul64(x1, x2)
	t3, c = bits.Add64(t3, l, 0)
	t4, t5 := bits.Add64(t4, h, c)
	h, l = bits.Mul64(x1, x3)
	t4, c = bits.Add64(t4, l, 0)
	t5 += h + c
	t6, l := bits.Mul64(x2, x3)
	t5, c = bits.Add64(t5, l, 0)
	t6 += c
	t7 := t6 >> 63
	t6 = t6<<1 | t5>>63
	t5 = t5<<1 | t4>>63
	t4 = t4<<1 | t3>>63
	t3 = t3<<1 | t2>>63
	t2 = t2<<1 | t1>>63
	t1 <<= 1

	// ... and the squares of each.
	h, t0 := bits.Mul64(x0, x0)
	t1, c = bits.Add64(t1, h, 0)
	h, l = bits.Mul64(x1, x1)
	t2, c = bits.Add64(t2, l, c)
	t3, c = bits.Add64(t3, h, c)
	h, l = bits.Mul64(x2, x2)
	t4, c = bits.Add64(t4, l, c)
	t5, c = bits.Add64(t5, h, c)
	h, l = bits.Mul64(x3, x3)
	t6, c = bits.Add64(t6, l, c)
	t7 += h + c

	z.redc(t0, t1, t2, t3, t4, t5, t6, t7)
}

// redc sets z to t/2^256 mod p for a t below p*2^256. The multiple of p that clears the lowest limb m of t is m itself, as p is -1
// modulo 2^64, and m*p = m*2^256 - m*2^224 + m*2^192 + m*2^96 - m needs no multiplication. Four such steps clear four limbs.
func (z *element) redc(t0, t1, t2, t3, t4, t5, t6, t7 uint64) {
	var b, c, h, l uint64

	l, b = bits.Sub64(t0, t0<<32, 0) // the two upper limbs of m*p
	h, _ = bits.Sub64(t0, t0>>32, b)
	t1, c = bits.Add64(t1, t0<<32, 0)
	t2, c = bits.Add64(t2, t0>>32, c)
	t3, c = bits.Add64(t3, l, c)
	t0 = h + c // belongs four limbs up

	l, b = bits.Sub64(t1, t1<<32, 0)
	h, _ = bits.Sub64(t1, t1>>32, b)
	t2, c = bits.Add64(t2, t1<<32, 0)
	t3, c = bits.Add64(t3, t1>>32, c)
	t0, c = bits.Add64(t0, l, c)
	t1 = h + c

	l, b = bits.Sub64(t2, t2<<32, 0)
	h, _ = bits.Sub64(t2, t2>>32, b)
	t3, c = bits.Add64(t3, t2<<32, 0)
	t0, c = bits.Add64(t0, t2>>32, c)
	t1, c = bits.Add64(t1, l, c)
	t2 = h + c

	l, b = bits.Sub64(t3, t3<<32, 0)
	h, _ = bits.Sub64(t3, t3>>32, b)
	t0, c = bits.Add64(t0, t3<<32, 0)
	t1, c = bits.Add64(t1, t3>>32, c)
	t2, c = bits.Add64(t2, l, c)
	t3 = h + c

	z[0], c = bits.Add64(t0, t4, 0)
	z[1], c = bits.Add64(t1, t5, c)
	z[2], c = bits.Add64(t2, t6, c)
	z[3], c = bits.Add64(t3, t7, c)
	z.reduce(c)
}

// invert sets z to 1/x, and to 0 for 0: x^(p-2), by Fermat.
func (z *element) invert(x *element) {
	exponent := new(big.Int).Sub(fieldSize, big.NewInt(2))
	power := one
	for i := exponent.BitLen() - 1; i >= 0; i-- {
		power.square(&power)
		if exponent.Bit(i) == 1 {
			power.mul(&power, x)
		}
	}
	*z = power
}
