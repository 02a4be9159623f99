package p256

import (
	"crypto/elliptic"
	"math/big"
)

// affine is a point other than infinity.
type affine struct{ x, y element }

// jacobian is the point (x/z^2, y/z^3), infinity where z is 0.
type jacobian struct{ x, y, z element }

func base() affine {
	params := elliptic.P256().Params()
	return affine{toElement(params.Gx), toElement(params.Gy)}
}

// onCurve says whether y^2 = x^3 - 3x + b.
func (p *affine) onCurve(b *big.Int) bool {
	constant := toElement(b)
	var left, right element
	left.square(&p.y)
	right.square(&p.x)
	right.mul(&right, &p.x)
	for range 3 {
		right.sub(&right, &p.x)
	}
	right.add(&right, &constant)
	return left == right
}

// double sets p to 2q; p and q may be one (dbl-2001-b of the Explicit-Formulas Database).
func (p *jacobian) double(q *jacobian) {
	var delta, gamma, beta, alpha, t element
	delta.square(&q.z)
	gamma.square(&q.y)
	beta.mul(&q.x, &gamma)
	alpha.sub(&q.x, &delta)
	t.add(&q.x, &delta)
	alpha.mul(&alpha, &t)
	t.add(&alpha, &alpha)
	alpha.add(&alpha, &t)

	p.z.add(&q.y, &q.z)
	p.z.square(&p.z)
	p.z.sub(&p.z, &gamma)
	p.z.sub(&p.z, &delta)

	beta.add(&beta, &beta)
	beta.add(&beta, &beta) // 4 beta
	t.add(&beta, &beta)
	p.x.square(&alpha)
	p.x.sub(&p.x, &t)

	gamma.square(&gamma)
	gamma.add(&gamma, &gamma)
	gamma.add(&gamma, &gamma)
	gamma.add(&gamma, &gamma) // 8 gamma^2
	t.sub(&beta, &p.x)
	p.y.mul(&alpha, &t)
	p.y.sub(&p.y, &gamma)
}

// add sets p to p + (x, y), whatever the two are: who chooses his key may choose them to be equal or opposite.
func (p *jacobian) add(x, y *element) {
	if p.z.isZero() {
		*p = jacobian{*x, *y, one}
		return
	}
	var zz, h, r, hh, hhh, v element
	zz.square(&p.z)
	h.mul(x, &zz)
	h.sub(&h, &p.x)
	zz.mul(&zz, &p.z)
	r.mul(y, &zz)
	r.sub(&r, &p.y)
	if h.isZero() {
		if r.isZero() {
			p.double(&jacobian{*x, *y, one})
		} else {
			*p = jacobian{}
		}
		return
	}
	hh.square(&h)
	hhh.mul(&hh, &h)
	v.mul(&p.x, &hh)
	p.z.mul(&p.z, &h)

	p.x.square(&r)
	p.x.sub(&p.x, &hhh)
	p.x.sub(&p.x, &v)
	p.x.sub(&p.x, &v)

	v.sub(&v, &p.x)
	v.mul(&v, &r)
	hhh.mul(&hhh, &p.y)
	p.y.sub(&v, &hhh)
}

// normalize computes the affine form of points, none of which is infinity, with one inversion for all (Montgomery's trick).
func normalize(to []affine, from []jacobian) {
	product := one
	before := make([]element, len(from)) // the product of all z before this one's
	for i := range from {
		before[i] = product
		product.mul(&product, &from[i].z)
	}
	product.invert(&product)
	for i := len(from) - 1; i >= 0; i-- {
		var inverse, square element
		inverse.mul(&product, &before[i])
		product.mul(&product, &from[i].z)
		square.square(&inverse)
		to[i].x.mul(&from[i].x, &square)
		square.mul(&square, &inverse)
		to[i].y.mul(&from[i].y, &square)
	}
}
