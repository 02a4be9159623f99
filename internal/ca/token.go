package ca

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
)

// maxTokenBytes bounds the authorization header; a certificate with many attributes fits.
const maxTokenBytes = 64 << 10

// token is a parsed authorization header: base64(certificate in PEM) "." base64(signature).
type token struct {
	cert      *x509.Certificate
	certText  string // base64 as sent: it is part of what is signed
	signature []byte
}

func parseToken(header string) (*token, error) {
	if len(header) > maxTokenBytes {
		return nil, errors.New("the authorization token is too long")
	}
	certText, signature, ok := strings.Cut(header, ".")
	if !ok || strings.Contains(signature, ".") {
		return nil, errors.New("the authorization token must be base64(certificate).base64(signature)")
	}
	certPEM, err := base64.StdEncoding.DecodeString(certText)
	if err != nil {
		return nil, errors.New("the certificate in the authorization token is not base64")
	}
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil || len(sig) == 0 {
		return nil, errors.New("the signature in the authorization token is not base64")
	}
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, errors.New("the authorization token holds no PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, errors.New("the certificate in the authorization token cannot be parsed")
	}
	return &token{cert: cert, certText: certText, signature: sig}, nil
}

// covers reports whether the token was signed for this request. The signature is over
// method.base64(path).base64(body).certificate; in the form of clients before 1.4 (legacy) over
// base64(body).certificate only. uris are the spellings of the path to try.
func (t *token) covers(method string, uris []string, body []byte, legacy bool) bool {
	tail := base64.StdEncoding.EncodeToString(body) + "." + t.certText
	for _, uri := range uris {
		if t.signed(method + "." + base64.StdEncoding.EncodeToString([]byte(uri)) + "." + tail) {
			return true
		}
	}
	return legacy && t.signed(tail)
}

// signed checks the signature. The stock server hashes with SHA-256 whatever the curve; the stock Node
// client hashes with SHA-384 once it is set to 384-bit keys; both are accepted for P-384.
func (t *token) signed(payload string) bool {
	switch key := t.cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		sum := sha256.Sum256([]byte(payload))
		if ecdsa.VerifyASN1(key, sum[:], t.signature) {
			return true
		}
		if key.Curve == elliptic.P384() {
			sum := sha512.Sum384([]byte(payload))
			return ecdsa.VerifyASN1(key, sum[:], t.signature)
		}
	case ed25519.PublicKey:
		return ed25519.Verify(key, []byte(payload), t.signature)
	}
	return false
}

// hexKey is how clients and registry write serial numbers and key identifiers: lower-case hex without
// colons and leading zeros.
func hexKey(s string) string {
	return strings.TrimLeft(strings.ToLower(strings.ReplaceAll(s, ":", "")), "0")
}

func serialKey(n *big.Int) string { return hexKey(n.Text(16)) }

func akiKey(aki []byte) string { return hexKey(hex.EncodeToString(aki)) }
