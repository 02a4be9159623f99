package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hansa-ledger/hansa/internal/envelope"
)

// Signer signs as one certificate of one MSP: ECDSA over SHA-256 whatever the curve, in DER with a low S, or Ed25519. The key may
// live anywhere behind crypto.Signer (a file, a KMS, an HSM).
type Signer struct {
	*envelope.KeySigner
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
	// Text around the certificate in its file would travel in every header.
	s, err := envelope.NewKeySigner(mspID, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), key)
	if err != nil {
		return nil, fmt.Errorf("signer of %s: %w", mspID, err)
	}
	return &Signer{s}, nil
}

func sameKey(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
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

// parseKey skips the parameters that openssl writes before an elliptic curve key.
func parseKey(raw []byte) (crypto.Signer, error) {
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "EC PARAMETERS":
		case "EC PRIVATE KEY", "PRIVATE KEY":
			return envelope.ParseKey(pem.EncodeToMemory(block))
		default:
			return nil, fmt.Errorf("PEM type %q is no private key that can be used: want PRIVATE KEY (PKCS #8, unencrypted) or EC PRIVATE KEY", block.Type)
		}
	}
	return nil, errors.New("no private key in PEM form")
}

// pemFiles reads the files of dir that hold PEM, in the order of their names; others are passed over, as Fabric does. A missing
// dir is an error that errors.Is recognises as fs.ErrNotExist.
func pemFiles(dir string) ([][]byte, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, err
	}
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
