// Package provision makes a business network run on one machine: it decides
// which nodes there are and on which ports, issues their certificates, writes
// their configuration and the genesis block, starts them as processes, joins
// them to the channel, and puts contracts on it.
//
// A network is one folder. network.yaml in it says what should run; everything
// else is made from it once and then kept, so that a stopped network starts again
// with all that it had. Open network.go for what a network is, make.go for how
// its files come about, up.go for how it starts.
package provision

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Network is what should run. It is stored as network.yaml.
type Network struct {
	Channel   string     `yaml:"channel"`
	Orderers  []Orderer  `yaml:"orderers"`
	Members   []Member   `yaml:"members"`
	Contracts []Contract `yaml:"contracts,omitempty"`

	dir string
}

// Member is an organization that takes part in the channel.
type Member struct {
	Name   string `yaml:"name"`  // org1
	MSPID  string `yaml:"mspId"` // Org1MSP
	Domain string `yaml:"domain"`
	CA     CA     `yaml:"ca"`
	Peers  []Peer `yaml:"peers"`
}

// CA is a member's certificate authority.
type CA struct {
	Name       string `yaml:"name"`
	Port       int    `yaml:"port"`
	Operations int    `yaml:"operations"`
}

// Peer is a member's peer.
type Peer struct {
	Name       string `yaml:"name"` // peer0
	Port       int    `yaml:"port"`
	Chaincode  int    `yaml:"chaincode"`
	Operations int    `yaml:"operations"`
}

// Orderer is a node of the ordering service.
type Orderer struct {
	Name       string `yaml:"name"` // orderer0
	Port       int    `yaml:"port"`
	Admin      int    `yaml:"admin"`
	Operations int    `yaml:"operations"`
	// Added says that the genesis block does not know it: it came later, and joins by a later block.
	Added bool `yaml:"added,omitempty"`
}

// Contract is a contract that runs as a process of its own.
type Contract struct {
	Name      string   `yaml:"name"`
	PackageID string   `yaml:"packageId"`
	Command   []string `yaml:"command"`
	Port      int      `yaml:"port"`
}

// The ordering service's own organization.
const (
	ordererMSPID  = "OrdererMSP"
	ordererDomain = "orderer.example.com"
	ordererOrg    = "orderer"
)

// Host is where every node of a local network listens and is dialled.
const Host = "127.0.0.1"

// Options says which network to make.
type Options struct {
	Channel  string // default "business"
	Orderers int    // default 1
	Members  int    // default 2
	// Port is the first port of the first node; each node takes the next ten. 0
	// takes ports that are free and that no other such network on this machine has.
	Port int
}

// Limits of Options on one machine.
const (
	maxOrderers = 7
	maxMembers  = 16
)

var channelName = regexp.MustCompile(`^[a-z][a-z0-9.-]{0,248}$`)

// Check says what is wrong with the options, before anything is made of them.
func (o Options) Check() error {
	switch {
	case !channelName.MatchString(o.Channel):
		return fmt.Errorf("channel %q: a name of lower-case letters, digits, '.' and '-' that starts with a letter is wanted", o.Channel)
	case o.Orderers < 1 || o.Orderers > maxOrderers:
		return fmt.Errorf("--orderers %d: 1 to %d are possible", o.Orderers, maxOrderers)
	case o.Members < 1 || o.Members > maxMembers:
		return fmt.Errorf("--members %d: 1 to %d are possible", o.Members, maxMembers)
	case o.Port < 0 || o.Port+portStride*(o.Orderers+2*o.Members+1) > 65535:
		return fmt.Errorf("--port %d: a port that leaves room below 65535 is wanted, or 0 for any free ones", o.Port)
	}
	return nil
}

// New plans a network in dir. Nothing is written.
func New(dir string, o Options) (*Network, error) {
	if o.Channel == "" {
		o.Channel = "business"
	}
	if err := o.Check(); err != nil {
		return nil, err
	}
	ports := ports{o.Port, portStride}
	if o.Port == 0 {
		// Not for the maximum of nodes: the rest is for contracts.
		base, err := claimPorts(dir, portsOfNode*(o.Orderers+2*o.Members))
		if err != nil {
			return nil, err
		}
		ports.base, ports.stride = base, portsOfNode
	}
	n := &Network{Channel: o.Channel, dir: dir}
	for i := range o.Orderers {
		p := ports.next()
		n.Orderers = append(n.Orderers, Orderer{Name: fmt.Sprintf("orderer%d", i), Port: p[0], Admin: p[1], Operations: p[2]})
	}
	for i := range o.Members {
		name := fmt.Sprintf("org%d", i+1)
		peer, ca := ports.next(), ports.next()
		n.Members = append(n.Members, Member{
			Name: name, MSPID: fmt.Sprintf("Org%dMSP", i+1), Domain: name + ".example.com",
			CA:    CA{Name: "ca-" + name, Port: ca[0], Operations: ca[2]},
			Peers: []Peer{{Name: "peer0", Port: peer[0], Chaincode: peer[1], Operations: peer[2]}},
		})
	}
	return n, nil
}

const networkFile = "network.yaml"

// ErrNoNetwork says that a folder holds no network.
var ErrNoNetwork = errors.New("there is no network in this folder")

// Load reads the network in dir.
func Load(dir string) (*Network, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, networkFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w; `hansa up --data %s` makes one", dir, ErrNoNetwork, dir)
	} else if err != nil {
		return nil, err
	}
	n := &Network{dir: dir}
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	if err := decoder.Decode(n); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, networkFile), err)
	}
	return n, nil
}

// Save stores the network, whole or not at all.
func (n *Network) Save() error {
	raw, err := yaml.Marshal(n)
	if err != nil {
		return err
	}
	return writeFile(n.path(networkFile), raw, 0o640)
}

// writeFile replaces a file atomically.
func writeFile(file string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	next := file + ".new"
	if err := os.WriteFile(next, content, mode); err != nil {
		return err
	}
	return os.Rename(next, file)
}

func (n *Network) path(elements ...string) string {
	return filepath.Join(append([]string{n.dir}, elements...)...)
}

// Dir is the network's folder, absolute.
func (n *Network) Dir() string { return n.dir }

// Member returns the member of a name or MSP id.
func (n *Network) Member(name string) (Member, error) {
	for _, m := range n.Members {
		if m.Name == name || m.MSPID == name {
			return m, nil
		}
	}
	return Member{}, fmt.Errorf("the network has no member %q; its members are %s", name, n.memberNames())
}

func (n *Network) memberNames() (names string) {
	for i, m := range n.Members {
		if i > 0 {
			names += ", "
		}
		names += m.Name
	}
	return names
}

// orgDir is the folder of an organization's certificates, laid out as cryptogen does.
func (n *Network) orgDir(m Member) string { return n.path("crypto", "peerOrganizations", m.Domain) }

func (n *Network) ordererOrgDir() string {
	return n.path("crypto", "ordererOrganizations", ordererDomain)
}

// UserMSP is the MSP folder of a member's user: "Admin" or "User1".
func (n *Network) UserMSP(m Member, user string) string { return n.org(m).User(user).MSP() }

// TLSRoots is the PEM file of the CA that a member's servers have their TLS certificates from.
func (n *Network) TLSRoots(m Member) string { return n.org(m).TLSRoot() }

// Genesis is the file of the channel's first block.
func (n *Network) Genesis() string { return n.path(n.Channel + ".block") }

// fqdn is a node's name within its organization's domain.
func fqdn(node, domain string) string { return node + "." + domain }

func address(port int) string { return net.JoinHostPort(Host, strconv.Itoa(port)) }

// Address is where a peer serves.
func (p Peer) Address() string { return address(p.Port) }

// Address is where an orderer serves.
func (o Orderer) Address() string { return address(o.Port) }

// Address is where a certificate authority serves.
func (c CA) Address() string { return address(c.Port) }
