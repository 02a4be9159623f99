// Package site lays out a whole Hansa network for the fault harness: orderers of several members, peers of two members and a contract, each a
// real process in a network namespace, with a disk and a clock of its own, all to be tampered with one by one.
//
// It is what members would do by hand: certificates from their own authorities, one configuration file a node, a genesis block from a
// channel description, orderers joined through their participation API, peers and the contract through administrators' calls. A node
// that ends without having been told to is started again after a moment, as any operator's system would do.
//
// Open site.go for what there is, process.go for processes, channel.go for the way into the channel, watch.go for what nodes show.
package site

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/e2e/faults/distort"
	"github.com/hansa-ledger/hansa/e2e/faults/netns"
	"github.com/hansa-ledger/hansa/internal/ca"
	"github.com/hansa-ledger/hansa/internal/ca/msptree"
	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

// Channel is the only channel, and Contract the contract on it.
const (
	Channel  = "trade"
	Contract = "registers"
)

// Ports are the same on every node: each has an address of its own.
const (
	port       = "7050"
	adminPort  = "7053"
	opsPort    = "8443"
	callPort   = "7052"
	serverPort = "9999"
)

// ElectionTimeout is the channel's: after so long without a leader, up to twice as long, a consenter stands for election. Production has
// ten times as much; here a round is to be short.
const ElectionTimeout = 500 * time.Millisecond

// Config says what to lay out.
type Config struct {
	Dir      string // where everything goes but the nodes' data, which are in memory
	Binary   string // hansa
	Orderers int
	// Contract is the program of the contract, with further environment variables.
	Contract    []string
	ContractEnv []string
	Log         *slog.Logger
}

// Site is a network.
type Site struct {
	Net      *netns.Network
	Orderers []*Node
	Peers    []*Node
	Service  *Node // the contract

	cfg     Config
	members map[string]*member
	genesis *commonpb.Block
	here    *netns.Host
}

// Role is what a node does.
type Role string

// The roles are the subcommands of hansa, but for the contract.
const (
	Orderer  Role = "orderer"
	Peer     Role = "peer"
	contract Role = "contract"
)

// member is an organization.
type member struct {
	name, mspID string
	org         msptree.Org
	ordering    bool
	nodes       []*Node
}

// Members that run orderers in turn, and those that run peers.
var (
	carriers = []string{"harbour", "ferry", "rail"}
	traders  = []string{"alpha", "beta"}
)

// New lays a network out. Nothing runs yet.
func New(ctx context.Context, cfg Config) (*Site, error) {
	s := &Site{Net: netns.New(), cfg: cfg, members: map[string]*member{}}
	var err error
	if s.here, err = s.Net.Add("clients"); err != nil {
		return nil, err
	}
	for i := range cfg.Orderers {
		n, err := s.add(Orderer, fmt.Sprintf("orderer%d", i), carriers[i%len(carriers)])
		if err != nil {
			return nil, err
		}
		s.Orderers = append(s.Orderers, n)
	}
	for i, trader := range traders {
		n, err := s.add(Peer, fmt.Sprintf("peer%d", i), trader)
		if err != nil {
			return nil, err
		}
		s.Peers = append(s.Peers, n)
	}
	if s.Service, err = s.add(contract, "contract", ""); err != nil {
		return nil, err
	}
	for _, m := range s.members {
		if err := m.certify(ctx); err != nil {
			return nil, fmt.Errorf("certificates of %s: %w", m.name, err)
		}
	}
	if err := s.writeGenesis(); err != nil {
		return nil, err
	}
	for _, n := range s.Nodes() {
		if err := s.configure(n); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// add makes a node's namespace, folders and disk.
func (s *Site) add(role Role, name, of string) (*Node, error) {
	host, err := s.Net.Add(name)
	if err != nil {
		return nil, err
	}
	n := &Node{Name: name, Role: role, Host: host, dir: filepath.Join(s.cfg.Dir, "nodes", name), log: s.cfg.Log}
	if err := os.MkdirAll(n.Data(), 0o750); err != nil {
		return nil, err
	}
	if err := syscall.Mount("tmpfs", n.Data(), "tmpfs", 0, diskSize); err != nil {
		return nil, fmt.Errorf("disk of %s: %w", name, err)
	}
	if n.Page, err = distort.NewPage(filepath.Join(n.dir, "page")); err != nil {
		return nil, err
	}
	if of == "" {
		return n, nil
	}
	m := s.members[of]
	if m == nil {
		m = &member{name: of, mspID: of + "MSP", org: msptree.Org{Dir: filepath.Join(s.cfg.Dir, "crypto", of), Domain: of + ".example"}, ordering: role == Orderer}
		s.members[of] = m
	}
	n.member = m
	m.nodes = append(m.nodes, n)
	return n, nil
}

// Nodes are all of them.
func (s *Site) Nodes() []*Node {
	return append(append(append([]*Node{}, s.Orderers...), s.Peers...), s.Service)
}

// authority opens the member's certificate authority.
func (m *member) authority() (*ca.CA, error) {
	return ca.Open(ca.Config{Name: "ca." + m.org.Domain, Dir: filepath.Join(m.org.Dir, "ca", "data"), Issuer: m.org.Issuer(), TLSIssuer: m.org.TLSIssuer(),
		Subject: ca.Subject{Organization: m.org.Domain}}, slog.New(slog.DiscardHandler))
}

func (m *member) certify(ctx context.Context) error {
	authority, err := m.authority()
	if err != nil {
		return err
	}
	defer authority.Close()
	spec := msptree.Spec{Users: []string{"User1"}}
	for _, n := range m.nodes {
		node := msptree.Node{Name: n.Name, Hosts: []string{n.Host.IP}}
		if n.Role == Orderer {
			spec.Orderers = append(spec.Orderers, node)
		} else {
			spec.Peers = append(spec.Peers, node)
		}
	}
	return m.org.Write(ctx, authority, spec)
}

// identity is one of the member's people: Admin or User1.
func (m *member) identity(user string) (client.Identity, error) {
	return client.LoadIdentity(m.mspID, m.org.User(user).MSP())
}

func (n *Node) folder() msptree.Folder {
	if n.Role == Orderer {
		return n.member.org.Orderer(n.Name)
	}
	return n.member.org.Peer(n.Name)
}

func (s *Site) writeGenesis() error {
	spec := channel.Spec{Channel: Channel,
		Batch: channel.BatchSpec{Timeout: 200 * time.Millisecond},
		Raft: channel.RaftSpec{TickInterval: ElectionTimeout / 10, ElectionTick: 10, HeartbeatTick: 1,
			SnapshotIntervalBytes: 256 << 10}} // so that the log is compacted now and then, and those left behind catch up by blocks
	for _, name := range append(append([]string{}, carriers...), traders...) {
		m := s.members[name]
		if m == nil {
			continue
		}
		one := channel.MemberSpec{Name: m.name, MSPID: m.mspID, MSPDir: m.org.MSP(), OrderingOnly: m.ordering}
		for _, n := range m.nodes {
			if !m.ordering {
				one.AnchorPeers = append(one.AnchorPeers, n.Address())
			}
		}
		spec.Members = append(spec.Members, one)
	}
	for _, n := range s.Orderers {
		spec.Orderers = append(spec.Orderers, channel.OrdererSpec{Member: n.member.name, Host: n.Host.IP, Port: 7050, TLSCert: n.folder().TLSCert()})
	}
	raw, err := yaml.Marshal(spec)
	if err != nil {
		return err
	}
	file := filepath.Join(s.cfg.Dir, "channel.yaml")
	if err := os.WriteFile(file, raw, 0o644); err != nil {
		return err
	}
	output := filepath.Join(s.cfg.Dir, "genesis.block")
	if text, err := exec.Command(s.cfg.Binary, "channel", "genesis", file, "--output", output).CombinedOutput(); err != nil {
		return fmt.Errorf("hansa channel genesis: %w\n%s", err, text)
	}
	if raw, err = os.ReadFile(output); err != nil {
		return err
	}
	s.genesis = &commonpb.Block{}
	return proto.Unmarshal(raw, s.genesis)
}

func (s *Site) configure(n *Node) error {
	if n.Role == contract {
		return nil
	}
	folder := n.folder()
	if n.tls == nil {
		n.tls = &keyPair{folder.TLSCert(), folder.TLSKey()}
	}
	tls := map[string]any{"cert": n.tls.cert, "key": n.tls.key}
	at := func(port string) string { return net.JoinHostPort(n.Host.IP, port) }
	config := map[string]any{"mspId": n.member.mspID, "mspDir": folder.MSP(), "dataDir": n.Data(), "listen": at(port), "tls": tls,
		"operations": map[string]any{"listen": at(opsPort)}, "log": map[string]any{"format": "text"}}
	if n.Role == Orderer {
		var roots []string // administrators of all carriers: one command asks all orderers
		for _, m := range s.carriers() {
			roots = append(roots, m.org.TLSRoot())
		}
		config["admin"] = map[string]any{"listen": at(adminPort), "tls": map[string]any{"cert": n.tls.cert, "key": n.tls.key,
			"clientRoots": roots, "requireClientCert": true}}
	} else {
		config["address"] = at(port)
		config["chaincode"] = map[string]any{"listen": at(callPort)}
	}
	raw, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(n.config(), raw, 0o600)
}

// Binary is the program of the nodes.
func (s *Site) Binary() string { return s.cfg.Binary }

// Log is where the harness tells what it does.
func (s *Site) Log() *slog.Logger { return s.cfg.Log }

// Close ends every process and takes the network away, with all that the nodes stored.
func (s *Site) Close() error {
	var errs []error
	for _, n := range s.Nodes() {
		errs = append(errs, n.Kill(), syscall.Unmount(n.Data(), syscall.MNT_DETACH), n.Page.Close())
	}
	return errors.Join(append(errs, s.Net.Close())...)
}
