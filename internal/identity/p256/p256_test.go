package p256_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"math/big"
	mathrand "math/rand/v2"
	"testing"

	"filippo.io/nistec"

	"github.com/hansa-ledger/hansa/internal/identity/p256"
)

func table(t testing.TB, pub *ecdsa.PublicKey) *p256.Table {
	t.Helper()
	k, err := p256.NewTable(pub)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func point(pub *ecdsa.PublicKey) []byte {
	uncompressed, err := pub.Bytes()
	if err != nil {
		return nil
	}
	return uncompressed
}

// agree compares the table's verdict with the standard library's.
func agree(t testing.TB, what string, pub *ecdsa.PublicKey, k *p256.Table, digest [32]byte, r, s *big.Int) bool {
	t.Helper()
	rr, ss := new(big.Int).Set(r), new(big.Int).Set(s)
	got, want := k.Verify(&digest, r, s), ecdsa.Verify(pub, digest[:], r, s)
	if got != want {
		t.Fatalf("%s: key %x digest %x r %x s %x: table says %t, crypto/ecdsa %t", what, point(pub), digest, r, s, got, want)
	}
	if r.Cmp(rr) != 0 || s.Cmp(ss) != 0 {
		t.Fatalf("%s: r or s was changed", what)
	}
	return want
}

func privateKey(t testing.TB, d *big.Int) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d.FillBytes(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestTableAgreesWithTheStandardLibrary(t *testing.T) {
	n := elliptic.P256().Params().N
	random := mathrand.NewChaCha8([32]byte{7})
	for _, d := range []*big.Int{big.NewInt(1), big.NewInt(2), big.NewInt(3), new(big.Int).Sub(n, big.NewInt(1)), new(big.Int).Sub(n, big.NewInt(2)),
		new(big.Int).Rsh(n, 1), new(big.Int).Lsh(big.NewInt(1), 128), nil, nil, nil} {
		if d == nil {
			d = new(big.Int).SetBytes(randomBytes(random))
			d.Add(d.Mod(d, new(big.Int).Sub(n, big.NewInt(1))), big.NewInt(1))
		}
		key := privateKey(t, d)
		pub, k := &key.PublicKey, table(t, &key.PublicKey)
		for i := range 40 {
			digest := [32]byte(randomBytes(random))
			switch i {
			case 0:
				digest = [32]byte{}
			case 1:
				digest = [32]byte(n.Bytes())
			case 2:
				digest = [32]byte(new(big.Int).Lsh(big.NewInt(1), 255).Bytes())
			}
			r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
			if err != nil {
				t.Fatal(err)
			}
			if !agree(t, "right", pub, k, digest, r, s) {
				t.Fatal("a right signature is refused")
			}
			agree(t, "other S", pub, k, digest, r, new(big.Int).Sub(n, s))
			agree(t, "other R", pub, k, digest, new(big.Int).Sub(n, r), s)
			agree(t, "swapped", pub, k, digest, s, r)
			digest[i%32] ^= 1 << (i % 8)
			agree(t, "other digest", pub, k, digest, r, s)
		}
	}
}

// Numbers at the edges, in every combination, under keys that make the sum a doubling or infinity.
func TestTableAtTheEdges(t *testing.T) {
	params := elliptic.P256().Params()
	n := params.N
	var edges []*big.Int
	for _, base := range []*big.Int{new(big.Int), n, params.P, new(big.Int).Rsh(n, 1), new(big.Int).Lsh(big.NewInt(1), 256)} {
		for _, off := range []int64{-2, -1, 0, 1, 2} {
			edges = append(edges, new(big.Int).Add(base, big.NewInt(off)))
		}
	}
	edges = append(edges, new(big.Int).Lsh(n, 1), new(big.Int).Lsh(big.NewInt(1), 5000), params.Gx, new(big.Int).Sub(n, params.Gx))
	digests := [][32]byte{{}, {31: 1}, [32]byte(n.Bytes()), [32]byte(params.Gx.Bytes()), [32]byte(new(big.Int).Sub(n, params.Gx).Bytes())}
	var all [32]byte
	for i := range all {
		all[i] = 0xff
	}
	digests = append(digests, all)
	right := 0
	for _, d := range []*big.Int{big.NewInt(1), new(big.Int).Sub(n, big.NewInt(1)), big.NewInt(2)} {
		key := privateKey(t, d)
		k := table(t, &key.PublicKey)
		for _, r := range edges {
			for _, s := range edges {
				for _, digest := range digests {
					if agree(t, "edges", &key.PublicKey, k, digest, r, s) {
						right++
					}
				}
			}
		}
	}
	if right == 0 {
		t.Error("no edge makes a right signature: the test does not reach them")
	}
}

// A point whose x is not below the order, which no signer meets by chance: r is x less the order.
func TestTableWhereXExceedsTheOrder(t *testing.T) {
	params := elliptic.P256().Params()
	n := params.N
	found := 0
	for off := int64(1); found < 5; off++ {
		x := new(big.Int).Add(n, big.NewInt(off))
		point, err := nistec.NewP256Point().SetBytes(append([]byte{2}, x.FillBytes(make([]byte, 32))...))
		if err != nil {
			continue
		}
		found++
		// Q = (s*R - e*G) / r makes (r, s) a right signature of e.
		r, s, e := big.NewInt(off), big.NewInt(12345), big.NewInt(678)
		inverse := new(big.Int).ModInverse(r, n)
		scalar := func(v *big.Int) []byte { return new(big.Int).Mod(v, n).FillBytes(make([]byte, 32)) }
		a, err := nistec.NewP256Point().ScalarMult(point, scalar(new(big.Int).Mul(s, inverse)))
		if err != nil {
			t.Fatal(err)
		}
		b, err := nistec.NewP256Point().ScalarBaseMult(scalar(new(big.Int).Neg(new(big.Int).Mul(e, inverse))))
		if err != nil {
			t.Fatal(err)
		}
		pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), a.Add(a, b).Bytes())
		if err != nil {
			t.Fatal(err)
		}
		k := table(t, pub)
		digest := [32]byte(e.FillBytes(make([]byte, 32)))
		if !agree(t, "x above the order", pub, k, digest, r, s) {
			t.Error("the signature is not right")
		}
		agree(t, "x itself", pub, k, digest, x, s)
	}
}

func TestTableNeedsAPoint(t *testing.T) {
	for _, pub := range []*ecdsa.PublicKey{
		{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)},
		{Curve: elliptic.P256(), X: new(big.Int), Y: new(big.Int)},
	} {
		if _, err := p256.NewTable(pub); err == nil {
			t.Error("a table for a point that is not on the curve")
		}
	}
}

func FuzzTable(f *testing.F) {
	key := privateKey(f, big.NewInt(0x4a4a4a4a))
	k := table(f, &key.PublicKey)
	digest := sha256.Sum256([]byte("message"))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(digest[:], r.Bytes(), s.Bytes())
	f.Fuzz(func(t *testing.T, digest, r, s []byte) {
		if len(digest) == 32 {
			agree(t, "fuzz", &key.PublicKey, k, [32]byte(digest), new(big.Int).SetBytes(r), new(big.Int).SetBytes(s))
		}
	})
}

func randomBytes(from *mathrand.ChaCha8) []byte {
	b := make([]byte, 32)
	from.Read(b)
	return b
}

func BenchmarkVerify(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	b.Run("crypto/ecdsa", func(b *testing.B) {
		for b.Loop() {
			if !ecdsa.Verify(&key.PublicKey, digest[:], r, s) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("table", func(b *testing.B) {
		k := table(b, &key.PublicKey)
		for b.Loop() {
			if !k.Verify(&digest, r, s) {
				b.Fatal("refused")
			}
		}
	})
	b.Run("new table", func(b *testing.B) {
		for b.Loop() {
			table(b, &key.PublicKey)
		}
	})
}
