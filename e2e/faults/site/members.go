package site

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hansa-ledger/hansa/internal/ca"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/reconfigure"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
)

// changeLimit is how long one attempt to change the configuration may take.
const changeLimit = 4 * time.Second

// changeConsenters submits one change of the channel's consenters, signed by as many of the orderers' members as it takes, and waits until it
// is in force.
func (s *Site) changeConsenters(ctx context.Context, edit func(*etcdraftpb.ConfigMetadata) error) error {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	nodes, err := s.nodes()
	if err != nil {
		return err
	}
	var signers []reconfigure.Signer
	for _, name := range carriers {
		if m := s.members[name]; m != nil {
			signer, err := identity.LoadSigner(m.org.User("Admin").MSP(), m.mspID)
			if err != nil {
				return err
			}
			signers = append(signers, signer)
		}
	}
	config, err := reconfigure.Fetch(ctx, nodes, signers[0], Channel)
	if err != nil {
		return err
	}
	if err := config.EditRaft(edit); err != nil {
		return err
	}
	request, err := config.Request()
	if errors.Is(err, reconfigure.ErrNoChange) {
		return nil
	} else if err != nil {
		return err
	}
	if _, err := config.SignWhatIsNeeded(request, signers...); err != nil {
		return err
	}
	_, err = config.Submit(ctx, nodes, signers[0], request)
	return err
}

// nodes are the orderers as their administrators call them.
func (s *Site) nodes() (nodes []reconfigure.Node, err error) {
	for _, n := range s.Orderers {
		roots, err := os.ReadFile(n.member.org.TLSRoot())
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, reconfigure.Node{Address: n.Address(), TLSRoots: roots})
	}
	return nodes, nil
}

func (n *Node) is(c *etcdraftpb.Consenter) bool { return c.Host == n.Host.IP }

// Dismiss has a consenter order no more; it stays as a follower.
func (s *Site) Dismiss(ctx context.Context, n *Node) error {
	return s.changeConsenters(ctx, func(m *etcdraftpb.ConfigMetadata) error {
		m.Consenters = slices.DeleteFunc(m.Consenters, n.is)
		return nil
	})
}

// admit makes an orderer a consenter, if it is none.
func (s *Site) admit(ctx context.Context, n *Node) error {
	cert, err := os.ReadFile(n.tls.cert)
	if err != nil {
		return err
	}
	return s.changeConsenters(ctx, func(m *etcdraftpb.ConfigMetadata) error {
		if !slices.ContainsFunc(m.Consenters, n.is) {
			m.Consenters = append(m.Consenters, &etcdraftpb.Consenter{Host: n.Host.IP, Port: 7050, ClientTlsCert: cert, ServerTlsCert: cert})
		}
		return nil
	})
}

// keyPair names the files of a TLS certificate.
type keyPair struct{ cert, key string }

// Recertify gives a consenter another TLS certificate: issued by its member's authority, put into the configuration, and then used.
func (s *Site) Recertify(ctx context.Context, n *Node) error {
	next, err := n.issue(ctx)
	if err != nil {
		return err
	}
	n.next = next
	cert, err := os.ReadFile(next.cert)
	if err != nil {
		return err
	}
	if err := s.changeConsenters(ctx, func(m *etcdraftpb.ConfigMetadata) error {
		i := slices.IndexFunc(m.Consenters, n.is)
		if i < 0 {
			return fmt.Errorf("%s is no consenter", n.Name)
		}
		m.Consenters[i].ClientTlsCert, m.Consenters[i].ServerTlsCert = cert, cert
		return nil
	}); err != nil {
		return err // Restore finds out what has become of it
	}
	return s.install(n)
}

func (n *Node) issue(ctx context.Context) (*keyPair, error) {
	authority, err := n.member.authority()
	if err != nil {
		return nil, err
	}
	defer authority.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, err := authority.Issue(ctx, ca.Request{ID: n.folder().ID, Type: "orderer", PublicKey: key.Public(), Profile: ca.ProfileTLS, Hosts: []string{n.Name, n.Host.IP}})
	if err != nil {
		return nil, err
	}
	keyPEM, err := ca.EncodeKey(key)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(n.dir, fmt.Sprintf("tls%x", cert.SerialNumber.Bytes()[:4]))
	pair := &keyPair{name + ".crt", name + ".key"}
	return pair, errors.Join(os.WriteFile(pair.cert, ca.EncodeCertificates(cert), 0o644), os.WriteFile(pair.key, keyPEM, 0o600))
}

// install has the node use its next certificate.
func (s *Site) install(n *Node) error {
	n.tls, n.next = n.next, nil
	if err := s.configure(n); err != nil {
		return err
	}
	if err := n.Stop(); err != nil {
		return err
	}
	return n.Start()
}

// Restore brings the consenters back to what they should be, whatever became of changes: every orderer is one, with the certificate that the
// configuration names.
func (s *Site) Restore(ctx context.Context) error {
	for _, n := range s.Orderers {
		if err := until(ctx, func() error { return s.admit(ctx, n) }); err != nil {
			return fmt.Errorf("make %s a consenter again: %w", n.Name, err)
		}
		if n.next == nil {
			continue
		}
		next, err := os.ReadFile(n.next.cert)
		if err != nil {
			return err
		}
		// The configuration that is in force is the one that admit has just seen.
		named := false
		if err := until(ctx, func() error {
			return s.changeConsenters(ctx, func(m *etcdraftpb.ConfigMetadata) error {
				named = slices.ContainsFunc(m.Consenters, func(c *etcdraftpb.Consenter) bool { return bytes.Equal(c.ServerTlsCert, next) })
				return nil
			})
		}); err != nil {
			return err
		}
		if !named {
			n.next = nil
		} else if err := s.install(n); err != nil {
			return err
		}
	}
	return nil
}
