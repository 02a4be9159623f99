package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Config bounds the caches of a Verifier. Zero values choose the defaults.
type Config struct {
	// Identities is how many deserialized identities are kept, about 6 kB each.
	Identities int
	// Signatures is how many verified signatures are kept, about 100 bytes each. It must cover the transactions between their
	// endorsement and their commit, so that none is verified twice.
	Signatures int
	// KeyTables is how many P-256 keys, the busiest ones, get a table that quarters the cost of their verifications, 262 kB each.
	// Negative: none.
	KeyTables int
}

const (
	defaultIdentities = 10_000
	defaultSignatures = 200_000
	defaultKeyTables  = 64
	maxMSPs           = 256
)

// Verifier remembers, for the whole process, which identities were parsed and which signatures hold. A failure is never
// remembered: forged signatures cannot push true ones out.
type Verifier struct {
	msps       *cache[[sha256.Size]byte, *MSP]
	identities *cache[identityKey, *Identity]
	signatures *cache[[sha256.Size]byte, struct{}]
	keys       *cache[[sha256.Size]byte, *publicKey]
	tables     keyTables
}

// identityKey separates MSPs of one name, which differ between channels and config blocks.
type identityKey struct {
	msp        *MSP
	serialized string
}

// NewVerifier makes the process's verifier.
func NewVerifier(c Config) *Verifier {
	if c.Identities <= 0 {
		c.Identities = defaultIdentities
	}
	if c.Signatures <= 0 {
		c.Signatures = defaultSignatures
	}
	if c.KeyTables == 0 {
		c.KeyTables = defaultKeyTables
	}
	return &Verifier{
		msps:       newCache[[sha256.Size]byte, *MSP](maxMSPs, 1),
		identities: newCache[identityKey, *Identity](c.Identities, 16),
		signatures: newCache[[sha256.Size]byte, struct{}](c.Signatures, 64),
		keys:       newCache[[sha256.Size]byte, *publicKey](c.Identities, 16),
		tables:     keyTables{limit: c.KeyTables},
	}
}

// Remember spares the verification of a signature that this process made itself. Nothing checks that sig is right.
func (v *Verifier) Remember(id *Identity, msg, sig []byte) {
	if key, _, err := id.pub.cacheKey(id.msp.signatureHash, msg, sig); err == nil {
		v.signatures.add(key, struct{}{})
	}
}

// publicKey is a certificate's key, ready to verify with. Identities with the same key, in several channels or after a config
// update, share it.
type publicKey struct {
	id    [sha256.Size]byte // hash of the SubjectPublicKeyInfo
	ecdsa *ecdsa.PublicKey  // one of these two, or none for RSA, which can sign certificates but nothing else
	ed    ed25519.PublicKey
	usage usage
}

func (v *Verifier) publicKey(cert *x509.Certificate) (*publicKey, error) {
	k := &publicKey{id: sha256.Sum256(cert.RawSubjectPublicKeyInfo)}
	switch pub := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		k.ecdsa = pub
	case ed25519.PublicKey:
		k.ed = pub
	case *rsa.PublicKey:
	default:
		return nil, errors.New("Certificate's public key type not recognized. Supported keys: [ECDSA, ED25519, RSA]")
	}
	return v.keys.add(k.id, k), nil
}

// cacheKey hashes key, digest and signature. The first two have fixed lengths, so different triples are different inputs.
func (k *publicKey) cacheKey(hash func([]byte) ([sha256.Size]byte, error), msg, sig []byte) (key, digest [sha256.Size]byte, err error) {
	if k.ed != nil {
		hash = func(msg []byte) ([sha256.Size]byte, error) { return sha256.Sum256(msg), nil } // Ed25519 signs the message itself
	}
	if digest, err = hash(msg); err != nil {
		return key, digest, err
	}
	buf := make([]byte, 0, 256)
	buf = append(buf, k.id[:]...)
	buf = append(buf, digest[:]...)
	buf = append(buf, sig...)
	return sha256.Sum256(buf), digest, nil
}

func (v *Verifier) verify(k *publicKey, hash func([]byte) ([sha256.Size]byte, error), msg, sig []byte) error {
	key, digest, err := k.cacheKey(hash, msg, sig)
	if err != nil {
		return err
	}
	if _, ok := v.signatures.get(key); ok {
		return nil
	}
	if err := v.check(k, msg, &digest, sig); err != nil {
		return err
	}
	v.signatures.add(key, struct{}{})
	return nil
}

func (v *Verifier) check(k *publicKey, msg []byte, digest *[sha256.Size]byte, sig []byte) error {
	const undecided = "could not determine the validity of the signature: "
	if len(sig) == 0 {
		return errors.New(undecided + "Invalid signature. Cannot be empty.")
	}
	ok := false
	switch {
	case k.ecdsa != nil:
		var err error
		if ok, err = v.checkECDSA(k, digest, sig); err != nil {
			return fmt.Errorf(undecided+"Failed verifing with opts [<nil>]: %w", err)
		}
	case k.ed != nil:
		if len(msg) == 0 {
			return errors.New(undecided + "Invalid digest. Cannot be empty.")
		}
		ok = ed25519.Verify(k.ed, msg, sig)
	default:
		return errors.New(undecided + "Unsupported 'VerifyKey' provided [RSA]")
	}
	if !ok {
		return errors.New("The signature is invalid")
	}
	return nil
}

type ecdsaSignature struct{ R, S *big.Int }

// unmarshalSignature accepts what Fabric accepts: bytes after the signature, and after S inside it, are ignored.
func unmarshalSignature(raw []byte) (r, s *big.Int, err error) {
	var sig ecdsaSignature
	if _, err := asn1.Unmarshal(raw, &sig); err != nil {
		return nil, nil, fmt.Errorf("failed unmashalling signature [%w]", err)
	}
	if sig.R.Sign() != 1 {
		return nil, nil, errors.New("invalid signature, R must be larger than zero")
	}
	if sig.S.Sign() != 1 {
		return nil, nil, errors.New("invalid signature, S must be larger than zero")
	}
	return sig.R, sig.S, nil
}

// halfP256 is never changed.
var halfP256 = new(big.Int).Rsh(elliptic.P256().Params().N, 1)

// halfOrder is the largest S that is low. The caller must not change it.
func halfOrder(curve elliptic.Curve) (*big.Int, error) {
	switch curve {
	case elliptic.P256():
		return halfP256, nil
	case elliptic.P224(), elliptic.P384(), elliptic.P521():
		return new(big.Int).Rsh(curve.Params().N, 1), nil
	}
	return nil, fmt.Errorf("curve not recognized [%s]", curve.Params().Name)
}

// checkECDSA wants a low S: otherwise everybody could make a second valid signature out of the first.
func (v *Verifier) checkECDSA(k *publicKey, digest *[sha256.Size]byte, raw []byte) (bool, error) {
	r, s, err := unmarshalSignature(raw)
	if err != nil {
		return false, fmt.Errorf("Failed unmashalling signature [%w]", err)
	}
	half, err := halfOrder(k.ecdsa.Curve)
	if err != nil {
		return false, err
	}
	if s.Cmp(half) > 0 {
		return false, fmt.Errorf("Invalid S. Must be smaller than half the order [%s][%s].", s, half)
	}
	if t := v.tables.tableOf(k); t != nil {
		return t.Verify(digest, r, s), nil
	}
	return ecdsa.Verify(k.ecdsa, digest[:], r, s), nil
}
