package contract

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"google.golang.org/protobuf/proto"
)

// attributesOID marks the extension in which Fabric CAs put attributes.
var attributesOID = asn1.ObjectIdentifier{1, 2, 3, 4, 5, 6, 7, 8, 1}

// Client is who made the transaction. The peer has checked that the certificate is valid and that the client signed.
type Client struct {
	MSPID       string
	Certificate *x509.Certificate
	attributes  map[string]string
}

// Client gives the identity that the transaction was made with.
func (c *Context) Client() (*Client, error) {
	if c.client != nil {
		return c.client, nil
	}
	client, err := parseClient(c.call.Creator)
	if err != nil {
		return nil, fmt.Errorf("identity of the client: %w", err)
	}
	c.client = client
	return client, nil
}

func parseClient(creator []byte) (*Client, error) {
	if len(creator) == 0 {
		return nil, errors.New("the call has none")
	}
	var id msppb.SerializedIdentity
	if err := proto.Unmarshal(creator, &id); err != nil {
		return nil, err
	}
	block, _ := pem.Decode(id.IdBytes)
	if block == nil {
		return nil, errors.New("it has no certificate in PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	client := &Client{MSPID: id.Mspid, Certificate: certificate}
	for _, e := range certificate.Extensions {
		if e.Id.Equal(attributesOID) {
			var held struct {
				Attrs map[string]string `json:"attrs"`
			}
			if err := json.Unmarshal(e.Value, &held); err != nil {
				return nil, fmt.Errorf("attributes of the certificate: %w", err)
			}
			client.attributes = held.Attrs
		}
	}
	return client, nil
}

// ID is the client's identity within its member, as Fabric's contract API gives it: the base64 of "x509::<subject>::<issuer>".
func (c *Client) ID() string {
	text := "x509::" + c.Certificate.Subject.String() + "::" + c.Certificate.Issuer.String()
	return base64.StdEncoding.EncodeToString([]byte(text))
}

// Attribute gives an attribute that the member's CA put into the certificate.
func (c *Client) Attribute(name string) (value string, ok bool) {
	value, ok = c.attributes[name]
	return value, ok
}

// Require refuses clients whose attribute has another value.
func (c *Client) Require(name, value string) error {
	if have, ok := c.attributes[name]; !ok || have != value {
		return fmt.Errorf("the client's certificate must have the attribute %s with the value %q", name, value)
	}
	return nil
}
