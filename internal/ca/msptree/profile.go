package msptree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"

	"go.yaml.in/yaml/v3"
)

// Endpoints say where a network is, as seen by the applications of one organization.
type Endpoints struct {
	// Network is the profile's name.
	Network string
	// Organization is the one whose applications use the profile, by its Name below.
	Organization  string
	Organizations []Organization
	Orderers      []Endpoint
	// Channels that all given peers have joined.
	Channels []string
}

// Organization is a member of the network.
type Organization struct {
	Name        string // for example Org1
	MSPID       string // for example Org1MSP
	Peers       []Endpoint
	Authorities []Authority
}

// Endpoint is a peer or an orderer.
type Endpoint struct {
	Name     string // in its TLS certificate, for example peer0.org1.example.com
	Address  string // host:port
	TLSRoots string // PEM
}

// Authority is a certificate authority.
type Authority struct {
	Name     string // in the profile, for example ca.org1.example.com
	CAName   string // what clients send as caname
	Address  string // host:port
	TLSRoots string // PEM
}

// Profile is a Fabric connection profile, the common form that stock SDKs and tools read.
type Profile struct {
	Name                   string                         `json:"name" yaml:"name"`
	Version                string                         `json:"version" yaml:"version"`
	Client                 profileClient                  `json:"client" yaml:"client"`
	Channels               map[string]profileChannel      `json:"channels,omitempty" yaml:"channels,omitempty"`
	Organizations          map[string]profileOrganization `json:"organizations" yaml:"organizations"`
	Orderers               map[string]profileNode         `json:"orderers,omitempty" yaml:"orderers,omitempty"`
	Peers                  map[string]profileNode         `json:"peers" yaml:"peers"`
	CertificateAuthorities map[string]profileAuthority    `json:"certificateAuthorities,omitempty" yaml:"certificateAuthorities,omitempty"`
}

type profileClient struct {
	Organization string `json:"organization" yaml:"organization"`
	Connection   struct {
		Timeout struct {
			Peer struct {
				Endorser string `json:"endorser" yaml:"endorser"`
			} `json:"peer" yaml:"peer"`
			Orderer string `json:"orderer" yaml:"orderer"`
		} `json:"timeout" yaml:"timeout"`
	} `json:"connection" yaml:"connection"`
}

type profileChannel struct {
	Orderers []string                `json:"orderers,omitempty" yaml:"orderers,omitempty"`
	Peers    map[string]channelRoles `json:"peers" yaml:"peers"`
}

type channelRoles struct {
	EndorsingPeer  bool `json:"endorsingPeer" yaml:"endorsingPeer"`
	ChaincodeQuery bool `json:"chaincodeQuery" yaml:"chaincodeQuery"`
	LedgerQuery    bool `json:"ledgerQuery" yaml:"ledgerQuery"`
	EventSource    bool `json:"eventSource" yaml:"eventSource"`
}

type profileOrganization struct {
	MSPID                  string   `json:"mspid" yaml:"mspid"`
	Peers                  []string `json:"peers" yaml:"peers"`
	CertificateAuthorities []string `json:"certificateAuthorities,omitempty" yaml:"certificateAuthorities,omitempty"`
}

type profileNode struct {
	URL         string            `json:"url" yaml:"url"`
	TLSCACerts  pemText           `json:"tlsCACerts" yaml:"tlsCACerts"`
	GRPCOptions map[string]string `json:"grpcOptions" yaml:"grpcOptions"`
}

type pemText struct {
	PEM string `json:"pem" yaml:"pem"`
}

type profileAuthority struct {
	URL        string `json:"url" yaml:"url"`
	CAName     string `json:"caName" yaml:"caName"`
	TLSCACerts struct {
		PEM []string `json:"pem" yaml:"pem"` // a list here, unlike at nodes: so clients read it
	} `json:"tlsCACerts" yaml:"tlsCACerts"`
	HTTPOptions struct {
		Verify bool `json:"verify" yaml:"verify"`
	} `json:"httpOptions" yaml:"httpOptions"`
}

// NewProfile builds the profile.
func NewProfile(e Endpoints) (*Profile, error) {
	p := &Profile{
		Name: e.Network, Version: "1.0.0",
		Organizations: map[string]profileOrganization{}, Orderers: map[string]profileNode{},
		Peers: map[string]profileNode{}, CertificateAuthorities: map[string]profileAuthority{},
		Channels: map[string]profileChannel{},
	}
	p.Client.Organization = e.Organization
	p.Client.Connection.Timeout.Peer.Endorser = "300" // seconds, as stock samples have it
	p.Client.Connection.Timeout.Orderer = "300"
	var errs []error
	var ordererNames []string
	for _, o := range e.Orderers {
		errs = append(errs, addNode(p.Orderers, "orderer", o))
		ordererNames = append(ordererNames, o.Name)
	}
	roles := map[string]channelRoles{}
	for _, org := range e.Organizations {
		if org.Name == "" || org.MSPID == "" {
			errs = append(errs, fmt.Errorf("organization %q: its name and its MSP ID are needed", org.Name))
		}
		entry := profileOrganization{MSPID: org.MSPID, Peers: []string{}}
		for _, peer := range org.Peers {
			errs = append(errs, addNode(p.Peers, "peer", peer))
			entry.Peers = append(entry.Peers, peer.Name)
			// Applications query and listen at their own peers; others' peers endorse.
			own := org.Name == e.Organization
			roles[peer.Name] = channelRoles{EndorsingPeer: true, ChaincodeQuery: own, LedgerQuery: own, EventSource: own}
		}
		for _, a := range org.Authorities {
			errs = append(errs, checkEndpoint("certificate authority", a.Name, a.Address, a.TLSRoots))
			c := profileAuthority{URL: "https://" + a.Address, CAName: a.CAName}
			c.TLSCACerts.PEM = []string{a.TLSRoots}
			c.HTTPOptions.Verify = true
			p.CertificateAuthorities[a.Name] = c
			entry.CertificateAuthorities = append(entry.CertificateAuthorities, a.Name)
		}
		p.Organizations[org.Name] = entry
	}
	if _, ok := p.Organizations[e.Organization]; !ok {
		errs = append(errs, fmt.Errorf("the client's organization %q is not among the organizations", e.Organization))
	}
	for _, c := range e.Channels {
		p.Channels[c] = profileChannel{Orderers: ordererNames, Peers: roles}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("connection profile %s: %w", e.Network, err)
	}
	return p, nil
}

func addNode(nodes map[string]profileNode, kind string, e Endpoint) error {
	if _, twice := nodes[e.Name]; twice {
		return fmt.Errorf("there are two of %s %q", kind, e.Name)
	}
	nodes[e.Name] = profileNode{
		URL: "grpcs://" + e.Address, TLSCACerts: pemText{e.TLSRoots},
		// The address may be one that is not in the certificate; the name is. Two spellings, for old and
		// new clients.
		GRPCOptions: map[string]string{"ssl-target-name-override": e.Name, "hostnameOverride": e.Name},
	}
	return checkEndpoint(kind, e.Name, e.Address, e.TLSRoots)
}

func checkEndpoint(kind, name, address, roots string) error {
	if name == "" {
		return fmt.Errorf("a %s at %q has no name", kind, address)
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("%s %s: address %q must be host:port", kind, name, address)
	}
	if roots == "" {
		return fmt.Errorf("%s %s: its TLS roots are missing", kind, name)
	}
	return nil
}

// JSON is the profile as a .json file.
func (p *Profile) JSON() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "    ")
	err := e.Encode(p)
	return b.Bytes(), err
}

// YAML is the profile as a .yaml file.
func (p *Profile) YAML() ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(p); err != nil {
		return nil, err
	}
	err := e.Close()
	return b.Bytes(), err
}
