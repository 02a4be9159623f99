package provision

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/ca"
	"github.com/hansa-ledger/hansa/internal/ca/msptree"
	"github.com/hansa-ledger/hansa/internal/channel"
)

// make writes everything that the network's nodes need: certificates, the
// genesis block, the nodes' configurations, and the members' connection
// profiles. network.yaml comes last: a folder without it has no network, and
// making one there starts over with what is missing.
func (n *Network) make(ctx context.Context) error {
	group, certifying := errgroup.WithContext(ctx)
	group.Go(func() error { return n.certifyOrderers(certifying) })
	for _, m := range n.Members {
		group.Go(func() error { return n.certifyMember(certifying, m) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := n.writeGenesis(); err != nil {
		return err
	}
	for _, o := range n.Orderers {
		if err := n.configureOrderer(o); err != nil {
			return err
		}
	}
	for _, m := range n.Members {
		for _, p := range m.Peers {
			if err := n.configurePeer(m, p); err != nil {
				return err
			}
		}
		if err := n.writeProfiles(m); err != nil {
			return err
		}
	}
	return n.Save()
}

// users are the people of every member beside its administrator.
var users = []string{"User1"}

func (n *Network) org(m Member) msptree.Org { return msptree.Org{Dir: n.orgDir(m), Domain: m.Domain} }

func (n *Network) orderers() msptree.Org {
	return msptree.Org{Dir: n.ordererOrgDir(), Domain: ordererDomain}
}

// hosts are the names under which nodes of a local network are reached.
var hosts = []string{"localhost", Host}

// certifyOrderers issues the ordering organization's certificates. It has no CA
// process: its authority is opened here only.
func (n *Network) certifyOrderers(ctx context.Context) error {
	org := n.orderers()
	authority, err := n.ordererAuthority()
	if err != nil {
		return err
	}
	defer authority.Close()
	var spec msptree.Spec
	for _, o := range n.Orderers {
		spec.Orderers = append(spec.Orderers, msptree.Node{Name: o.Name, Hosts: hosts})
	}
	return org.Write(ctx, authority, spec)
}

// certifyMember issues a member's certificates with the authority that its CA
// process will run, and configures that process.
func (n *Network) certifyMember(ctx context.Context, m Member) error {
	org, dir := n.org(m), n.nodeDir(m.CA.Name)
	config := ca.Config{Name: m.CA.Name, Dir: filepath.Join(dir, "data"), Issuer: org.Issuer(), TLSIssuer: org.TLSIssuer(),
		Subject:      ca.Subject{Organization: m.Domain},
		Identities:   []ca.Bootstrap{{ID: "admin", Secret: rand.Text(), Type: "client", Registrar: true}},
		Affiliations: []string{m.Name + ".department1"}}
	authority, err := ca.Open(config, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer authority.Close()
	spec := msptree.Spec{Users: users}
	for _, p := range m.Peers {
		spec.Peers = append(spec.Peers, msptree.Node{Name: p.Name, Hosts: hosts})
	}
	if err := org.Write(ctx, authority, spec); err != nil {
		return err
	}
	cert, key := filepath.Join(dir, "tls", "server.crt"), filepath.Join(dir, "tls", "server.key")
	if err := certifyServer(ctx, authority, fqdn("ca", m.Domain), cert, key); err != nil {
		return err
	}
	return writeYAML(filepath.Join(dir, "ca.yaml"), map[string]any{
		"ca": config, "listen": m.CA.Address(), "tls": map[string]any{"cert": cert, "key": key},
		"operations": listenOn(m.CA.Operations),
	})
}

// certifyServer issues the TLS certificate of the CA's own server.
func certifyServer(ctx context.Context, authority *ca.CA, name, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert, err := authority.Issue(ctx, ca.Request{ID: name, Type: "client", PublicKey: key.Public(), Profile: ca.ProfileTLS, Hosts: append([]string{name}, hosts...)})
	if err != nil {
		return err
	}
	keyPEM, err := ca.EncodeKey(key)
	if err != nil {
		return err
	}
	if err := writeFile(keyFile, keyPEM, 0o600); err != nil {
		return err
	}
	return writeFile(certFile, ca.EncodeCertificates(cert), 0o644)
}

// electionTick is a tenth of the shortest time without a leader after which an orderer stands for election.
const electionTick = 100 * time.Millisecond

// writeGenesis makes the channel's first block.
func (n *Network) writeGenesis() error {
	// On one machine a leader is missed sooner than Fabric's defaults allow for.
	spec := channel.Spec{Channel: n.Channel, Raft: channel.RaftSpec{TickInterval: electionTick, ElectionTick: 10}}
	spec.Members = append(spec.Members, channel.MemberSpec{Name: ordererOrg, MSPID: ordererMSPID, MSPDir: n.orderers().MSP(), OrderingOnly: true})
	for _, m := range n.Members {
		member := channel.MemberSpec{Name: m.Name, MSPID: m.MSPID, MSPDir: n.org(m).MSP()}
		for _, p := range m.Peers {
			member.AnchorPeers = append(member.AnchorPeers, p.Address())
		}
		spec.Members = append(spec.Members, member)
	}
	for _, o := range n.Orderers {
		spec.Orderers = append(spec.Orderers, channel.OrdererSpec{Member: ordererOrg, Host: Host, Port: uint16(o.Port),
			TLSCert: n.orderers().Orderer(o.Name).TLSCert()})
	}
	raw, err := yaml.Marshal(spec)
	if err != nil {
		return err
	}
	if err := writeFile(n.path("channel.yaml"), raw, 0o640); err != nil {
		return err
	}
	checked, err := channel.ParseSpec(raw)
	if err != nil {
		return err
	}
	block, err := checked.Genesis(n.dir)
	if err != nil {
		return fmt.Errorf("genesis block: %w", err)
	}
	if raw, err = proto.Marshal(block); err != nil {
		return err
	}
	return writeFile(n.Genesis(), raw, 0o640)
}

func listenOn(port int) map[string]string { return map[string]string{"listen": address(port)} }

func (n *Network) configureOrderer(o Orderer) error {
	folder := n.orderers().Orderer(o.Name)
	tls := map[string]any{"cert": folder.TLSCert(), "key": folder.TLSKey()}
	return writeYAML(filepath.Join(n.nodeDir(o.Name), "orderer.yaml"), map[string]any{
		"mspId": ordererMSPID, "mspDir": folder.MSP(), "dataDir": "data", "listen": o.Address(), "tls": tls,
		"admin": map[string]any{"listen": address(o.Admin), "tls": map[string]any{
			"cert": folder.TLSCert(), "key": folder.TLSKey(), "clientRoots": []string{folder.TLSRoots()}, "requireClientCert": true}},
		"operations": listenOn(o.Operations),
	})
}

func (n *Network) configurePeer(m Member, p Peer) error {
	folder := n.org(m).Peer(p.Name)
	return writeYAML(filepath.Join(n.nodeDir(p.Name+"."+m.Name), "peer.yaml"), map[string]any{
		"mspId": m.MSPID, "mspDir": folder.MSP(), "dataDir": "data", "listen": p.Address(), "address": p.Address(),
		"tls":        map[string]any{"cert": folder.TLSCert(), "key": folder.TLSKey()},
		"operations": listenOn(p.Operations), "chaincode": listenOn(p.Chaincode),
	})
}

// writeYAML stores a configuration that may hold a secret.
func writeYAML(file string, config any) error {
	raw, err := yaml.Marshal(config)
	if err != nil {
		return err
	}
	return writeFile(file, raw, 0o600)
}

// writeProfiles stores a member's connection profiles.
func (n *Network) writeProfiles(m Member) error {
	endpoints := msptree.Endpoints{Network: n.Channel, Organization: m.Name, Channels: []string{n.Channel}}
	for _, o := range n.Orderers {
		roots, err := os.ReadFile(n.orderers().TLSRoot())
		if err != nil {
			return err
		}
		endpoints.Orderers = append(endpoints.Orderers, msptree.Endpoint{Name: fqdn(o.Name, ordererDomain), Address: o.Address(), TLSRoots: string(roots)})
	}
	for _, member := range n.Members {
		roots, err := os.ReadFile(n.TLSRoots(member))
		if err != nil {
			return err
		}
		org := msptree.Organization{Name: member.Name, MSPID: member.MSPID}
		for _, p := range member.Peers {
			org.Peers = append(org.Peers, msptree.Endpoint{Name: fqdn(p.Name, member.Domain), Address: p.Address(), TLSRoots: string(roots)})
		}
		org.Authorities = []msptree.Authority{{Name: fqdn("ca", member.Domain), CAName: member.CA.Name, Address: member.CA.Address(), TLSRoots: string(roots)}}
		endpoints.Organizations = append(endpoints.Organizations, org)
	}
	profile, err := msptree.NewProfile(endpoints)
	if err != nil {
		return err
	}
	asJSON, err := profile.JSON()
	if err != nil {
		return err
	}
	asYAML, err := profile.YAML()
	if err != nil {
		return err
	}
	if err := writeFile(n.path("members", m.Name, "connection.json"), asJSON, 0o644); err != nil {
		return err
	}
	return writeFile(n.path("members", m.Name, "connection.yaml"), asYAML, 0o644)
}
