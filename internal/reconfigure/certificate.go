package reconfigure

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// certificateName describes a PEM certificate for people: whose it is, until when
// it is good, and the beginning of its SHA-256.
func certificateName(raw []byte) string {
	decoded, _ := pem.Decode(raw)
	if decoded == nil {
		return "something that is no PEM"
	}
	sum := sha256.Sum256(decoded.Bytes)
	mark := hex.EncodeToString(sum[:4])
	cert, err := x509.ParseCertificate(decoded.Bytes)
	if err != nil {
		return fmt.Sprintf("%s %s", decoded.Type, mark)
	}
	name := cert.Subject.CommonName
	if name == "" {
		name = cert.Subject.String()
	}
	return fmt.Sprintf("certificate %s (%s, until %s)", mark, name, cert.NotAfter.UTC().Format("2006-01-02"))
}

// checkPEM says whether a text can be read as a certificate or revocation list.
func checkPEM(raw []byte) error {
	decoded, _ := pem.Decode(raw)
	if decoded == nil {
		return errors.New("the PEM text is damaged")
	}
	var err error
	switch decoded.Type {
	case "CERTIFICATE":
		_, err = x509.ParseCertificate(decoded.Bytes)
	case "X509 CRL":
		_, err = x509.ParseRevocationList(decoded.Bytes)
	default:
		err = fmt.Errorf("a certificate is wanted, this is a %s", decoded.Type)
	}
	return err
}
