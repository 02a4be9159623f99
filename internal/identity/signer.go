package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Signer signs as one certificate of one MSP. The key may live anywhere behind crypto.Signer (a file, a KMS, an HSM).
type Signer struct {
	mspID      string
	cert       *x509.Certificate
	serialized []byte
	key        crypto.Signer
}

// NewSigner joins a certificate in PEM form with its private key, ECDSA or Ed25519.
func NewSigner(mspID string, certPEM []byte, key crypto.Signer) (*Signer, error) {
	cert, err := parsePEM(certPEM)
	if err != nil {
		return nil, fmt.Errorf("signing certificate of %s: %w", mspID, err)
	}
	switch cert.PublicKey.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("signing certificate of %s has a %s key; only ECDSA and Ed25519 keys can sign", mspID, cert.PublicKeyAlgorithm)
	}
	if !sameKey(cert.PublicKey, key.Public()) {
		return nil, fmt.Errorf("private key does not belong to the certificate of %s", cert.Subject)
	}
	clean := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	return &Signer{mspID: mspID, cert: cert, serialized: Serialize(mspID, clean), key: key}, nil
}

func sameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

// Serialize returns the msppb.SerializedIdentity that goes into headers. The caller must not change it.
func (s *Signer) Serialize() []byte { return s.serialized }

// MSPID names the signer's member.
func (s *Signer) MSPID() string { return s.mspID }

// Certificate is the signer's certificate. The caller must not change it.
func (s *Signer) Certificate() *x509.Certificate { return s.cert }

// Sign signs msg: ECDSA over its SHA-256 whatever the curve, DER with a low S; or Ed25519 over msg itself.
func (s *Signer) Sign(msg []byte) ([]byte, error) {
	pub, ok := s.cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return s.key.Sign(rand.Reader, msg, crypto.Hash(0))
	}
	digest := sha256.Sum256(msg)
	raw, err := s.key.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign as %s: %w", s.cert.Subject, err)
	}
	r, sv, err := unmarshalSignature(raw)
	if err != nil {
		return nil, fmt.Errorf("sign as %s: %w", s.cert.Subject, err)
	}
	half, err := halfOrder(pub.Curve)
	if err != nil {
		return nil, err
	}
	if sv.Cmp(half) <= 0 {
		return raw, nil
	}
	return asn1.Marshal(ecdsaSignature{r, sv.Sub(pub.Params().N, sv)})
}

// LoadSigner reads an MSP folder as cryptogen and Fabric's CA client write it: the certificate in signcerts, its key (PKCS #8 or
// SEC 1, unencrypted PEM) among those in keystore.
func LoadSigner(mspDir, mspID string) (*Signer, error) {
	certs, err := pemFiles(filepath.Join(mspDir, "signcerts"))
	if err != nil {
		return nil, fmt.Errorf("load signing certificate of %s: %w", mspID, err)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("no signing certificate found in directory %s", filepath.Join(mspDir, "signcerts"))
	}
	cert, err := parsePEM(certs[0])
	if err != nil {
		return nil, fmt.Errorf("signing certificate in %s: %w", filepath.Join(mspDir, "signcerts"), err)
	}
	keystore := filepath.Join(mspDir, "keystore")
	keys, err := pemFiles(keystore)
	if err != nil {
		return nil, fmt.Errorf("load private key of %s: %w", mspID, err)
	}
	var failed error
	for _, raw := range keys {
		key, err := parseKey(raw)
		if err != nil {
			failed = err
			continue
		}
		if sameKey(cert.PublicKey, key.Public()) {
			return NewSigner(mspID, certs[0], key)
		}
	}
	if failed != nil {
		return nil, fmt.Errorf("no key in %s belongs to the certificate of %s; one could not be read: %w", keystore, cert.Subject, failed)
	}
	return nil, fmt.Errorf("no key in %s belongs to the certificate of %s (%d keys looked at)", keystore, cert.Subject, len(keys))
}

func parseKey(raw []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		var key any
		var err error
		switch block.Type {
		case "EC PARAMETERS":
			continue // openssl writes them before the key
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		default:
			return nil, fmt.Errorf("PEM type %q is no private key that can be used: want PRIVATE KEY (PKCS #8, unencrypted) or EC PRIVATE KEY", block.Type)
		}
		if err != nil {
			return nil, err
		}
		if signer, ok := key.(crypto.Signer); ok {
			return signer, nil
		}
		return nil, fmt.Errorf("a key of type %T cannot sign", key)
	}
	return nil, errors.New("no private key in PEM form")
}

// pemFiles reads the files of dir that hold PEM, in the order of their names; others are passed over, as Fabric does. A missing
// dir is an error that errors.Is recognises as fs.ErrNotExist.
func pemFiles(dir string) ([][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return bytes.Compare([]byte(a.Name()), []byte(b.Name())) })
	var out [][]byte
	for _, entry := range entries {
		name := filepath.Join(dir, entry.Name())
		info, err := os.Stat(name) // follows the links of a Kubernetes secret
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		raw, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if block, _ := pem.Decode(raw); block != nil {
			out = append(out, raw)
		}
	}
	return out, nil
}
