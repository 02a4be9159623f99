package contractpackage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"text/template"
	"text/template/parse"
	"time"
)

const (
	connectionName     = "connection.json"
	defaultDialTimeout = 3 * time.Second
	maxConnection      = 1 << 20
)

// ErrNoConnection is returned for a package that does not say where its contract is served.
var ErrNoConnection = errors.New("the package has no connection.json")

// Connection tells where a contract that runs as a service listens, and how a peer is to dial it.
type Connection struct {
	Address     string
	DialTimeout time.Duration // 3 s unless set

	TLSRequired        bool
	RootCert           string // PEM, of the contract's certificate authority
	ClientAuthRequired bool
	ClientKey          string // PEM
	ClientCert         string // PEM
	Domain             string // name expected in the contract's certificate, if it is not that of the address
}

// Connection reads connection.json of the package's code. See ParseConnection.
func (p *Package) Connection(config map[string]any) (*Connection, error) {
	files, err := p.Files()
	if err != nil {
		return nil, err
	}
	raw, ok := files[connectionName]
	if !ok {
		return nil, ErrNoConnection
	}
	c, err := ParseConnection(raw, config)
	if err != nil {
		return nil, fmt.Errorf("contract %s: %w", p.Label, err)
	}
	return c, nil
}

// ParseConfig decodes the value of CHAINCODE_AS_A_SERVICE_BUILDER_CONFIG: a JSON object, or nothing.
func ParseConfig(text string) (map[string]any, error) {
	if text == "" {
		return nil, nil
	}
	var config map[string]any
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return nil, fmt.Errorf("CHAINCODE_AS_A_SERVICE_BUILDER_CONFIG is no JSON object: %w", err)
	}
	return config, nil
}

// ParseConnection decodes a connection.json. Its text fields are Go templates over config, as those of Fabric's builder for
// contracts as a service are, so that one package can serve several peers: {"address": "{{.peername}}_basic:9999"}.
func ParseConnection(raw []byte, config map[string]any) (*Connection, error) {
	if len(raw) > maxConnection {
		return nil, fmt.Errorf("connection.json has %d bytes, more than the %d that are accepted", len(raw), maxConnection)
	}
	var file struct {
		Address            string          `json:"address"`
		Domain             string          `json:"domain"`
		DialTimeout        json.RawMessage `json:"dial_timeout"`
		TLSRequired        bool            `json:"tls_required"`
		ClientAuthRequired bool            `json:"client_auth_required"`
		RootCert           string          `json:"root_cert"`
		ClientKey          string          `json:"client_key"`
		ClientCert         string          `json:"client_cert"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, fmt.Errorf("connection.json: %w", err)
	}
	c := &Connection{DialTimeout: defaultDialTimeout, TLSRequired: file.TLSRequired}
	var err error
	fill := func(field, text string) string {
		if err != nil {
			return ""
		}
		var filled string
		if filled, err = execute(text, config); err != nil {
			err = fmt.Errorf("connection.json: failed to parse the %s field template: %w", field, err)
		}
		return filled
	}
	c.Address = fill("address", file.Address)
	if len(file.DialTimeout) > 0 && string(file.DialTimeout) != "null" {
		var text string
		if file.DialTimeout[0] == '"' {
			if err := json.Unmarshal(file.DialTimeout, &text); err != nil {
				return nil, fmt.Errorf("connection.json: dial_timeout: %w", err)
			}
			text = fill("dial_timeout", text)
		} else {
			text = string(file.DialTimeout) + "ns" // a number counts nanoseconds
		}
		if text != "" && err == nil {
			d, parseErr := time.ParseDuration(text)
			if parseErr != nil || d < 0 {
				return nil, fmt.Errorf("connection.json: dial_timeout %q is no duration such as \"10s\"", text)
			}
			if d > 0 {
				c.DialTimeout = d
			}
		}
	}
	if file.TLSRequired {
		c.ClientAuthRequired = file.ClientAuthRequired
		c.Domain = fill("domain", file.Domain)
		c.RootCert = fill("root_cert", file.RootCert)
		c.ClientKey = fill("client_key", file.ClientKey)
		c.ClientCert = fill("client_cert", file.ClientCert)
	}
	if err != nil {
		return nil, err
	}
	return c, c.check()
}

func (c *Connection) check() error {
	if c.Address == "" {
		return errors.New("connection.json: chaincode address not provided")
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return fmt.Errorf("connection.json: address %q is not host:port", c.Address)
	}
	if !c.TLSRequired {
		return nil
	}
	switch {
	case c.ClientAuthRequired && c.ClientKey == "":
		return errors.New("connection.json: chaincode tls key not provided: client_key")
	case c.ClientAuthRequired && c.ClientCert == "":
		return errors.New("connection.json: chaincode tls cert not provided: client_cert")
	case c.RootCert == "":
		return errors.New("connection.json: chaincode tls root cert not provided: root_cert")
	}
	return nil
}

func execute(text string, config map[string]any) (string, error) {
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		return "", err
	}
	if loops(t.Root) {
		return "", errors.New("range and template are not supported in connection.json")
	}
	out := &limitedBuffer{left: maxConnection}
	if err := t.Execute(out, config); err != nil {
		return "", err
	}
	return out.String(), nil
}

// loops finds what could run for ever: the text comes with the package, and templates can count to any number.
func loops(n parse.Node) bool {
	switch n := n.(type) {
	case *parse.ListNode:
		return n != nil && slices.ContainsFunc(n.Nodes, loops)
	case *parse.IfNode:
		return loops(n.List) || loops(n.ElseList)
	case *parse.WithNode:
		return loops(n.List) || loops(n.ElseList)
	case *parse.RangeNode, *parse.TemplateNode:
		return true
	}
	return false
}

type limitedBuffer struct {
	bytes.Buffer
	left int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, fmt.Errorf("the filled template has more than %d bytes", maxConnection)
	}
	return b.Buffer.Write(p)
}
