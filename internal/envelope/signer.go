package envelope

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	_ "crypto/sha256" // the digests that KeySigner uses
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// KeySigner signs with a private key and presents a certificate. It is safe for
// concurrent use if the key is.
type KeySigner struct {
	mspID      string
	cert       *x509.Certificate
	key        crypto.Signer
	serialized []byte
}

// NewKeySigner joins a PEM certificate and its private key: ECDSA on P-256 or
// P-384, or Ed25519.
func NewKeySigner(mspID string, certPEM []byte, key crypto.Signer) (*KeySigner, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, errors.New("certificate: not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("the private key does not belong to the certificate of %q", cert.Subject.CommonName)
	}
	serialized, err := proto.Marshal(&msppb.SerializedIdentity{Mspid: mspID, IdBytes: certPEM})
	if err != nil {
		return nil, fmt.Errorf("serialize identity: %w", err)
	}
	return &KeySigner{mspID, cert, key, serialized}, nil
}

// ParseKey reads a PEM private key in PKCS #8 or SEC 1 form.
func ParseKey(keyPEM []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(keyPEM)
	if block == nil {
		return nil, errors.New("private key: not PEM")
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key: %T cannot sign", key)
	}
	return signer, nil
}

func (s *KeySigner) MSPID() string                  { return s.mspID }
func (s *KeySigner) Certificate() *x509.Certificate { return s.cert }
func (s *KeySigner) Serialize() []byte              { return s.serialized }

// Sign signs as Fabric verifies: ECDSA over SHA-256 with s in the lower half of
// the group order, whatever the curve, or Ed25519 over the message itself.
func (s *KeySigner) Sign(message []byte) ([]byte, error) {
	if _, ok := s.key.Public().(ed25519.PublicKey); ok {
		return s.key.Sign(rand.Reader, message, crypto.Hash(0))
	}
	public, ok := s.key.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("cannot sign with a %T key: ECDSA or Ed25519 is wanted", s.key.Public())
	}
	h := crypto.SHA256.New()
	h.Write(message)
	signature, err := s.key.Sign(rand.Reader, h.Sum(nil), crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return LowS(public, signature)
}

// LowS returns an equal ECDSA signature whose s is at most half the group order.
func LowS(public *ecdsa.PublicKey, signature []byte) ([]byte, error) {
	var r, s big.Int
	input := cryptobyte.String(signature)
	var inner cryptobyte.String
	if !input.ReadASN1(&inner, asn1.SEQUENCE) || !inner.ReadASN1Integer(&r) || !inner.ReadASN1Integer(&s) {
		return nil, errors.New("signature: not two integers in DER")
	}
	order := public.Params().N
	if s.Cmp(new(big.Int).Rsh(order, 1)) <= 0 {
		return signature, nil
	}
	s.Sub(order, &s)
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(&r)
		b.AddASN1BigInt(&s)
	})
	return b.Bytes()
}
