package site

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hansa-ledger/hansa/internal/ca"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/reconfigure"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
)

// The consenters are changed with the commands that operators use: hansa orderer add, remove, replace, rotate. One that fails, is refused or
// interrupted is given again, by Restore.

// commandLimit is how long a command may take before it is killed.
const commandLimit = 12 * time.Second

// change gives a command about one orderer. told gets each line that it writes.
func (s *Site) change(ctx context.Context, verb string, n *Node, told func(line string), args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandLimit)
	defer cancel()
	args = append([]string{"orderer", verb, n.Address(), "--channel", Channel}, args...)
	for _, o := range s.Orderers {
		args = append(args, "--orderer", o.Address(), "--admin", o.Address()+"="+net.JoinHostPort(o.Host.IP, adminPort))
	}
	for _, m := range s.carriers() {
		args = append(args, "--tls-root", m.org.TLSRoot(), "--identity", m.mspID+"="+m.org.User("Admin").MSP())
	}
	admin := s.carriers()[0].org.User("Admin")
	command := exec.CommandContext(ctx, s.cfg.Binary, append(args, "--tls-cert", admin.TLSCert(), "--tls-key", admin.TLSKey())...)
	command.WaitDelay = time.Second
	var said, failed bytes.Buffer
	command.Stderr = &failed
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		if told != nil {
			told(lines.Text())
		}
	}
	err = command.Wait()
	s.cfg.Log.Info("hansa orderer "+verb, "node", n.Name, "said", said.String(), "failed", failed.String(), "error", err)
	if err != nil {
		return fmt.Errorf("hansa orderer %s %s: %w: %s", verb, n.Name, err, bytes.TrimSpace(failed.Bytes()))
	}
	return nil
}

// carriers are the members that run orderers here.
func (s *Site) carriers() (all []*member) {
	for _, name := range carriers {
		if m := s.members[name]; m != nil {
			all = append(all, m)
		}
	}
	return all
}

func (n *Node) is(c *etcdraftpb.Consenter) bool { return c.Host == n.Host.IP }

// Dismiss has a consenter order no more; it stays as a follower.
func (s *Site) Dismiss(ctx context.Context, n *Node) error { return s.change(ctx, "remove", n, nil) }

// keyPair names the files of a TLS certificate.
type keyPair struct{ cert, key string }

// Recertify gives a consenter another TLS certificate, issued by its member's authority.
func (s *Site) Recertify(ctx context.Context, n *Node) (err error) {
	if n.next == nil {
		if n.next, err = n.issue(ctx); err != nil {
			return err
		}
	}
	next := n.next
	var installed error
	err = s.change(ctx, "rotate", n, func(line string) {
		if strings.Contains(line, "Now start the orderer") {
			installed = s.install(n, next)
		}
	}, "--cert", next.cert)
	if err = errors.Join(err, installed); err == nil {
		n.next = nil
	}
	return err
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

// install has the node use another certificate.
func (s *Site) install(n *Node, pair *keyPair) error {
	n.tls = pair
	if err := s.configure(n); err != nil {
		return err
	}
	if err := n.Stop(); err != nil {
		return err
	}
	return n.Start()
}

// Lose takes away everything that a consenter has stored, and starts it with an empty folder.
func (s *Site) Lose(n *Node) error {
	n.lost = true
	if err := n.Kill(); err != nil {
		return err
	}
	if err := syscall.Unmount(n.Data(), syscall.MNT_DETACH); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", n.Data(), "tmpfs", 0, diskSize); err != nil {
		return err
	}
	return n.Start()
}

// Restore brings the consenters back to what they should be, whatever became of changes: every orderer is one, with the certificate that it
// has.
func (s *Site) Restore(ctx context.Context) error {
	named, err := s.consenters(ctx)
	if err != nil {
		return err
	}
	for _, n := range s.Orderers {
		var restore func() error
		member := []string{"--member", n.member.name}
		switch {
		case n.lost:
			restore = func() error {
				return s.change(ctx, "replace", n, nil, append(member, "--cert", n.tls.cert)...)
			}
		case !slices.ContainsFunc(named, n.is):
			restore = func() error { return s.change(ctx, "add", n, nil, append(member, "--cert", n.tls.cert)...) }
		case n.next != nil:
			restore = func() error { return s.Recertify(ctx, n) }
		default:
			continue
		}
		if err := until(ctx, restore); err != nil {
			return fmt.Errorf("have %s order as before: %w", n.Name, err)
		}
		n.lost = false
	}
	return nil
}

// consenters are those that the configuration names.
func (s *Site) consenters(ctx context.Context) (named []*etcdraftpb.Consenter, err error) {
	m := s.carriers()[0]
	reader, err := identity.LoadSigner(m.org.User("Admin").MSP(), m.mspID)
	if err != nil {
		return nil, err
	}
	var nodes []reconfigure.Node
	for _, n := range s.Orderers {
		roots, err := os.ReadFile(n.member.org.TLSRoot())
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, reconfigure.Node{Address: n.Address(), TLSRoots: roots})
	}
	var config *reconfigure.Config
	if err := until(ctx, func() error {
		one, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		config, err = reconfigure.Fetch(one, nodes, reader, Channel)
		return err
	}); err != nil {
		return nil, err
	}
	// Nothing is edited: this is how the metadata are read.
	return named, config.EditRaft(func(m *etcdraftpb.ConfigMetadata) error {
		named = m.Consenters
		return nil
	})
}
