package provision

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hansa-ledger/hansa/internal/ca"
	"github.com/hansa-ledger/hansa/internal/provision/process"
)

// Orderers come and go, and get other certificates, while the network runs. What is done here concerns files and
// processes; who orders the channel is decided by its configuration (package membership).

// Orderer returns the orderer of a name or an address.
func (n *Network) Orderer(name string) (Orderer, error) {
	var names []string
	for _, o := range n.Orderers {
		if o.Name == name || o.Address() == name {
			return o, nil
		}
		names = append(names, o.Name)
	}
	return Orderer{}, fmt.Errorf("the network has no orderer %q; its orderers are %s", name, strings.Join(names, ", "))
}

// AdminAddress is where an orderer serves the channel participation API.
func (o Orderer) AdminAddress() string { return address(o.Admin) }

// AddOrderer makes the files of one more orderer and stores the network with it; a supervisor that is told to reconcile then
// runs it. Without a name it gets the next one. One that is there already is returned as it is.
func (n *Network) AddOrderer(ctx context.Context, name string) (Orderer, error) {
	for i := 0; name == ""; i++ {
		next := fmt.Sprintf("orderer%d", i)
		// A folder that is left of a removed one is not taken over.
		if _, err := os.Stat(n.nodeDir(next)); errors.Is(err, fs.ErrNotExist) {
			name = next
		}
	}
	if o, err := n.Orderer(name); err == nil {
		return o, nil
	}
	if err := n.CheckNewOrderer(name); err != nil {
		return Orderer{}, err
	}
	free, err := n.freePorts(portsOfNode)
	if err != nil {
		return Orderer{}, err
	}
	o := Orderer{Name: name, Port: free[0], Admin: free[1], Operations: free[2], Added: true}
	n.Orderers = append(n.Orderers, o)
	if err := n.certifyOrderers(ctx); err != nil {
		return Orderer{}, err
	}
	if err := n.configureOrderer(o); err != nil {
		return Orderer{}, err
	}
	return o, n.saveOrderers()
}

// CheckNewOrderer says why an orderer that is not there cannot get a name.
func (n *Network) CheckNewOrderer(name string) error {
	switch {
	case !channelName.MatchString(name):
		return fmt.Errorf("orderer %q: a name of lower-case letters, digits, '.' and '-' that starts with a letter is wanted", name)
	case len(n.Orderers) >= maxOrderers:
		return fmt.Errorf("the network has %d orderers, which is the most", len(n.Orderers))
	case slices.ContainsFunc(n.processes(""), func(s process.Spec) bool { return s.Name == name }):
		return fmt.Errorf("the network has another process named %q", name)
	}
	return nil
}

// Later notes that an orderer joins the channel by a later block than the first.
func (n *Network) Later(o Orderer) error {
	i := slices.IndexFunc(n.Orderers, func(other Orderer) bool { return other.Name == o.Name })
	if i < 0 || n.Orderers[i].Added {
		return nil
	}
	n.Orderers[i].Added = true
	return n.Save()
}

// DropOrderer takes an orderer out of the network, whose supervisor then stops it. Its folder stays.
func (n *Network) DropOrderer(o Orderer) error {
	n.Orderers = slices.DeleteFunc(n.Orderers, func(other Orderer) bool { return other.Name == o.Name })
	return n.saveOrderers()
}

// saveOrderers stores the network and tells applications where its orderers are.
func (n *Network) saveOrderers() error {
	if err := n.Save(); err != nil {
		return err
	}
	for _, m := range n.Members {
		if err := n.writeProfiles(m); err != nil {
			return err
		}
	}
	return nil
}

// pending are the files of a TLS certificate that is not in use yet.
func (n *Network) pending(o Orderer) (cert, key string) {
	folder := n.orderers().Orderer(o.Name)
	return folder.TLSCert() + ".next", folder.TLSKey() + ".next"
}

// OrdererCertificate is the TLS certificate of an orderer: the one that is to be used next, if there is one.
func (n *Network) OrdererCertificate(o Orderer) ([]byte, error) {
	cert, _ := n.pending(o)
	raw, err := os.ReadFile(cert)
	if errors.Is(err, fs.ErrNotExist) {
		return os.ReadFile(n.orderers().Orderer(o.Name).TLSCert())
	}
	return raw, err
}

// IssueOrdererCertificate makes a new TLS certificate ready, beside the one in use.
func (n *Network) IssueOrdererCertificate(ctx context.Context, o Orderer) error {
	certFile, keyFile := n.pending(o)
	if _, err := os.Stat(certFile); err == nil {
		return nil // by an earlier run
	}
	org := n.orderers()
	authority, err := n.ordererAuthority()
	if err != nil {
		return err
	}
	defer authority.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	id := org.Orderer(o.Name).ID
	cert, err := authority.Issue(ctx, ca.Request{ID: id, Type: "orderer", PublicKey: key.Public(), Profile: ca.ProfileTLS, Hosts: append([]string{id, o.Name}, hosts...)})
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
	return writeFile(certFile, ca.EncodeCertificates(cert), 0o644) // last: it says that both are there
}

// InstallOrdererCertificate puts the certificate that was made ready in the place of the one in use, from the orderer's
// next start on.
func (n *Network) InstallOrdererCertificate(o Orderer) error {
	certFile, keyFile := n.pending(o)
	folder := n.orderers().Orderer(o.Name)
	if _, err := os.Stat(certFile); errors.Is(err, fs.ErrNotExist) {
		return nil // by an earlier run
	}
	// The certificate goes last again: while its file is there, this is repeated.
	if err := os.Rename(keyFile, folder.TLSKey()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(certFile, folder.TLSCert())
}

func (n *Network) ordererAuthority() (*ca.CA, error) {
	org := n.orderers()
	return ca.Open(ca.Config{Name: "ca." + ordererDomain, Dir: filepath.Join(org.Dir, "ca", "data"),
		Issuer: org.Issuer(), TLSIssuer: org.TLSIssuer(), Subject: ca.Subject{Organization: ordererDomain}}, slog.New(slog.DiscardHandler))
}

// Restart stops a process of the network in good order and waits until the supervisor has started it again and it serves.
func (c *Control) Restart(ctx context.Context, name string) error {
	stopped := 0
	kill := time.Now().Add(restartGrace)
	for {
		all, err := c.Status(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(s process.Status) bool { return s.Name == name })
		switch {
		case i < 0:
			return fmt.Errorf("the network runs no process %q", name)
		case stopped == 0 && all[i].PID != 0:
			stopped = all[i].PID
			if err := syscall.Kill(stopped, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("stop %s: %w", name, err)
			}
		case all[i].PID != 0 && all[i].PID != stopped && all[i].Ready:
			return nil
		case all[i].PID == stopped && time.Now().After(kill):
			syscall.Kill(stopped, syscall.SIGKILL)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("restart %s: %w", name, ctx.Err())
		}
	}
}

// restartGrace is how long a process may take to stop before it is killed.
const restartGrace = 10 * time.Second
