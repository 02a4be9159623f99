package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/provision"
	"github.com/hansa-ledger/hansa/internal/reconfigure"
)

// channelFlags say which channel, which nodes to ask and who asks and signs: those of a
// network on this machine, or what is named one by one.
type channelFlags struct {
	data       string
	channel    string
	orderers   []string
	peers      []string
	tlsRoots   []string
	tlsCert    string
	tlsKey     string
	identities []string
	members    []string
}

func (f *channelFlags) register(c *cobra.Command, signs bool) {
	dataFlag(c, &f.data)
	flags := c.Flags()
	flags.StringVar(&f.channel, "channel", "", "the channel's `name` (default: that of the network in --data)")
	flags.StringSliceVar(&f.orderers, "orderer", nil, "`host:port` of an orderer to use, instead of a network on this machine; may be repeated")
	flags.StringSliceVar(&f.peers, "peer", nil, "`host:port` of a peer to ask for the configuration; may be repeated")
	flags.StringSliceVar(&f.tlsRoots, "tls-root", nil, "`file` of the TLS authorities of those nodes, PEM; may be repeated")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "`file` of a TLS client certificate, for nodes that ask for one")
	flags.StringVar(&f.tlsKey, "tls-key", "", "`file` of its private key")
	text := "`MSPID=FOLDER`: who asks, by an MSP folder with a key; may be repeated"
	if signs {
		text = "`MSPID=FOLDER`: an administrator who asks and signs, by an MSP folder with a key; may be repeated"
		flags.StringSliceVar(&f.members, "members", nil, "names or MSP ids of the `members` whose administrators sign (default: all whose keys are here)")
	}
	flags.StringSliceVar(&f.identities, "identity", nil, text)
}

// channelSession is what the flags come to.
type channelSession struct {
	channel  string
	orderers []reconfigure.Node
	peers    []reconfigure.Node
	ownPeer  bool                        // peers were named: they are asked before orderers
	readers  map[string]*identity.Signer // who asks a peer, by its address, where that is not asker
	asker    *identity.Signer
	signers  []reconfigure.Signer
}

func (f *channelFlags) open() (*channelSession, error) {
	s := &channelSession{channel: f.channel, readers: map[string]*identity.Signer{}}
	var own []*identity.Signer
	for _, text := range f.identities {
		mspID, dir, ok := strings.Cut(text, "=")
		if !ok || mspID == "" || dir == "" {
			return nil, fmt.Errorf("--identity %q: MSPID=FOLDER is wanted", text)
		}
		signer, err := identity.LoadSigner(dir, mspID)
		if err != nil {
			return nil, fmt.Errorf("--identity %q: %w", text, err)
		}
		own = append(own, signer)
	}
	if len(f.orderers) > 0 || len(f.peers) > 0 {
		if err := f.named(s, own); err != nil {
			return nil, err
		}
	} else if err := f.local(s, own); err != nil {
		return nil, err
	}
	for _, signer := range own {
		s.signers = append(s.signers, signer)
	}
	return s, nil
}

// named opens a session with the nodes that the flags name.
func (f *channelFlags) named(s *channelSession, own []*identity.Signer) error {
	switch {
	case s.channel == "":
		return errors.New("--channel is missing")
	case len(f.tlsRoots) == 0:
		return errors.New("--tls-root is missing: the file of the authorities that the nodes' TLS certificates come from")
	case len(own) == 0:
		return errors.New("--identity is missing: MSPID=FOLDER of a member of the channel")
	case len(f.members) > 0:
		return errors.New("--members chooses among the administrators of a network on this machine; elsewhere give --identity")
	case (f.tlsCert == "") != (f.tlsKey == ""):
		return errors.New("--tls-cert and --tls-key belong together")
	}
	for flag, addresses := range map[string][]string{"--orderer": f.orderers, "--peer": f.peers} {
		for _, address := range addresses {
			if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
				return fmt.Errorf("%s %q: host:port is wanted", flag, address)
			}
		}
	}
	var roots []byte
	for _, file := range f.tlsRoots {
		raw, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("--tls-root: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(raw) {
			return fmt.Errorf("--tls-root %s: it holds no certificate in PEM", file)
		}
		roots = append(append(roots, raw...), '\n')
	}
	var certificate *tls.Certificate
	if f.tlsCert != "" {
		pair, err := tls.LoadX509KeyPair(f.tlsCert, f.tlsKey)
		if err != nil {
			return fmt.Errorf("--tls-cert: %w", err)
		}
		certificate = &pair
	}
	for _, address := range f.orderers {
		s.orderers = append(s.orderers, reconfigure.Node{Address: address, TLSRoots: roots, Certificate: certificate})
	}
	for _, address := range f.peers {
		s.peers = append(s.peers, reconfigure.Node{Address: address, TLSRoots: roots, Certificate: certificate, Peer: true})
	}
	s.asker, s.ownPeer = own[0], len(s.peers) > 0
	return nil
}

// local opens a session with a network on this machine.
func (f *channelFlags) local(s *channelSession, own []*identity.Signer) error {
	n, err := provision.Load(f.data)
	if err != nil {
		return err
	}
	if s.channel == "" {
		s.channel = n.Channel
	}
	chosen, byMSP := slices.Clone(f.members), map[string]*identity.Signer{}
	for _, a := range n.Administrators() {
		signer, err := identity.LoadSigner(a.MSPDir, a.MSPID)
		if err != nil {
			return err
		}
		s.asker = signer // the last, the ordering service's, can ask orderers even in maintenance
		byMSP[a.MSPID] = signer
		wanted := func(name string) bool { return name == a.Name || name == a.MSPID }
		if len(f.members) == 0 && len(own) == 0 || slices.ContainsFunc(f.members, wanted) {
			s.signers = append(s.signers, signer)
		}
		chosen = slices.DeleteFunc(chosen, wanted)
	}
	if len(chosen) > 0 {
		return fmt.Errorf("--members %s: no administrator's key is here", strings.Join(chosen, ","))
	}
	if len(own) > 0 && s.asker == nil {
		s.asker = own[0]
	}
	if s.asker == nil {
		return fmt.Errorf("%s holds no administrator's key; name one with --identity", filepath.Join(n.Dir(), "crypto"))
	}
	roots, err := os.ReadFile(n.OrdererTLSRoots())
	if err != nil {
		return err
	}
	for _, o := range n.Orderers {
		s.orderers = append(s.orderers, reconfigure.Node{Address: o.Address(), TLSRoots: roots})
	}
	for _, m := range n.Members {
		if roots, err = os.ReadFile(n.TLSRoots(m)); err != nil {
			return err
		}
		for _, p := range m.Peers {
			if reader := byMSP[m.MSPID]; reader != nil {
				s.peers = append(s.peers, reconfigure.Node{Address: p.Address(), TLSRoots: roots, Peer: true})
				s.readers[p.Address()] = reader
			}
		}
	}
	return nil
}

// nodes are those that tell configurations: orderers know the newest first, but who names a peer trusts it more.
func (s *channelSession) nodes() []reconfigure.Node {
	if s.ownPeer {
		return s.peers
	}
	return s.orderers
}

// reader is who asks a node.
func (s *channelSession) reader(n reconfigure.Node) *identity.Signer {
	if r := s.readers[n.Address]; r != nil {
		return r
	}
	return s.asker
}
