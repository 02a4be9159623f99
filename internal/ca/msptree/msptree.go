// Package msptree writes the folders that an organization's people and nodes need: keys, certificates and
// trusted roots, laid out as Fabric's cryptogen does it, so that every stock tool can be pointed at them;
// and the connection profile that tells applications where the network is.
//
// Under an organization's folder:
//
//	ca/      ca.DOMAIN-cert.pem     priv_sk       the root for enrollment, made by ca.Open
//	tlsca/   tlsca.DOMAIN-cert.pem  priv_sk       the root for TLS, likewise
//	msp/     config.yaml cacerts/ tlscacerts/ admincerts/           what other organizations may know
//	peers/NODE.DOMAIN/    orderers/NODE.DOMAIN/    users/NAME@DOMAIN/
//	         msp/  config.yaml cacerts/ tlscacerts/ admincerts/ signcerts/NAME-cert.pem keystore/priv_sk
//	         tls/  ca.crt, server.crt and server.key (of a user: client.crt and client.key)
//
// What it guarantees: a folder is there whole or not at all, and durable when Write returns; an existing
// one is never touched, so that a network can grow by writing again; keys have mode 0600; every certificate
// is recorded by the authority, so that it can be listed and revoked. Below an intermediate authority the
// folders intermediatecerts/ and tlsintermediatecerts/ come in addition.
//
// What it leaves out: renewal of what is there (remove a folder and write again), and where nodes listen.
//
// Start with msptree.go; profile.go is the connection profile.
package msptree

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/hansa-ledger/hansa/internal/ca"
)

// Org is an organization's folder.
type Org struct {
	Dir    string // for example .../peerOrganizations/org1.example.com
	Domain string // for example org1.example.com
}

// Issuer names the files of the root for enrollment certificates, for ca.Config.Issuer.
func (o Org) Issuer() ca.IssuerFiles { return o.issuer("ca") }

// TLSIssuer names the files of the root for TLS certificates, for ca.Config.TLSIssuer.
func (o Org) TLSIssuer() ca.IssuerFiles { return o.issuer("tlsca") }

func (o Org) issuer(kind string) ca.IssuerFiles {
	return ca.IssuerFiles{
		CertFile: filepath.Join(o.Dir, kind, kind+"."+o.Domain+"-cert.pem"),
		KeyFile:  filepath.Join(o.Dir, kind, "priv_sk"),
	}
}

// MSP is the folder that defines the organization to others, for a channel's configuration.
func (o Org) MSP() string { return filepath.Join(o.Dir, "msp") }

// TLSRoot is the certificate that this organization's TLS certificates chain up to.
func (o Org) TLSRoot() string {
	return filepath.Join(o.MSP(), "tlscacerts", "tlsca."+o.Domain+"-cert.pem")
}

// Peer is the folder of a peer, by its name within the organization ("peer0").
func (o Org) Peer(name string) Folder { return o.node("peers", name) }

// Orderer is the folder of an orderer.
func (o Org) Orderer(name string) Folder { return o.node("orderers", name) }

func (o Org) node(kind, name string) Folder {
	id := name + "." + o.Domain
	return Folder{Dir: filepath.Join(o.Dir, kind, id), ID: id, tls: "server"}
}

// Admin is the user that every organization has.
const Admin = "Admin"

// User is the folder of a person or an application ("Admin", "User1").
func (o Org) User(name string) Folder {
	id := name + "@" + o.Domain
	return Folder{Dir: filepath.Join(o.Dir, "users", id), ID: id, tls: "client"}
}

// Folder holds the identity of one node or user.
type Folder struct {
	Dir string
	ID  string // the common name, and enrollment ID at the authority
	tls string // how the TLS files are called
}

// MSP is the folder to give to tools as the local MSP.
func (f Folder) MSP() string { return filepath.Join(f.Dir, "msp") }

// SignCert is the enrollment certificate.
func (f Folder) SignCert() string {
	return filepath.Join(f.MSP(), "signcerts", f.ID+"-cert.pem")
}

// Key is the private key of SignCert.
func (f Folder) Key() string { return filepath.Join(f.MSP(), "keystore", "priv_sk") }

// TLSCert is the certificate for TLS, with what stands between it and the root.
func (f Folder) TLSCert() string { return filepath.Join(f.Dir, "tls", f.tls+".crt") }

// TLSKey is the private key of TLSCert.
func (f Folder) TLSKey() string { return filepath.Join(f.Dir, "tls", f.tls+".key") }

// TLSRoots is the root that TLSCert chains up to.
func (f Folder) TLSRoots() string { return filepath.Join(f.Dir, "tls", "ca.crt") }

// Spec says who belongs to an organization.
type Spec struct {
	Peers    []Node
	Orderers []Node
	// Users besides Admin, for example User1.
	Users []string
}

// Node is a peer or an orderer.
type Node struct {
	// Name within the organization, for example peer0. Its full name and this one are in the TLS
	// certificate.
	Name string
	// Hosts are further names and addresses that clients reach it by, for example localhost, 127.0.0.1.
	Hosts []string
}

// member is one folder to make.
type member struct {
	folder Folder
	typ    string // organizational unit: peer, orderer, admin or client
	hosts  []string
}

func (o Org) members(spec Spec) ([]member, error) {
	var out []member
	seen := map[string]bool{}
	add := func(f Folder, name, typ string, hosts []string) error {
		if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") || len(f.ID) > 64 {
			return fmt.Errorf("name %q of a %s cannot stand in a file name or is, as %q, longer than the 64 bytes of a common name", name, typ, f.ID)
		}
		if seen[f.Dir] {
			return fmt.Errorf("there are two of %s", f.ID)
		}
		seen[f.Dir] = true
		out = append(out, member{f, typ, hosts})
		return nil
	}
	var errs []error
	for _, n := range spec.Peers {
		errs = append(errs, add(o.Peer(n.Name), n.Name, "peer", o.hosts(n)))
	}
	for _, n := range spec.Orderers {
		errs = append(errs, add(o.Orderer(n.Name), n.Name, "orderer", o.hosts(n)))
	}
	errs = append(errs, add(o.User(Admin), Admin, "admin", nil))
	for _, u := range spec.Users {
		if u != Admin {
			errs = append(errs, add(o.User(u), u, "client", nil))
		}
	}
	return out, errors.Join(errs...)
}

func (o Org) hosts(n Node) []string {
	return append([]string{n.Name + "." + o.Domain, n.Name}, n.Hosts...)
}

// Write makes the folders that are missing, with certificates of the authority, which was opened with the
// files of Issuer and TLSIssuer (or is an intermediate one with files of its own).
func (o Org) Write(ctx context.Context, authority *ca.CA, spec Spec) error {
	if o.Dir == "" || o.Domain == "" {
		return errors.New("write organization: its folder and its domain are needed")
	}
	members, err := o.members(spec)
	if err != nil {
		return fmt.Errorf("write organization %s: %w", o.Domain, err)
	}
	msp := o.verifyingMSP(authority)
	if err := o.sameAuthority(msp); err != nil {
		return fmt.Errorf("write organization %s: %w", o.Domain, err)
	}
	// Folders wait for the disk most of the time.
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	group.Go(func() error { return writeFolder(o.MSP(), func() (files, error) { return msp, nil }) })
	for _, m := range members {
		group.Go(func() error {
			return writeFolder(m.folder.Dir, func() (files, error) { return o.issue(ctx, authority, m, msp) })
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("write organization %s: %w", o.Domain, err)
	}
	return nil
}

// sameAuthority refuses to mix certificates of two authorities in one organization: identities of the new
// one would be strangers to all who know the old.
func (o Org) sameAuthority(msp files) error {
	for path, content := range msp {
		if filepath.Ext(path) != ".pem" {
			continue
		}
		file := filepath.Join(o.MSP(), filepath.FromSlash(path))
		existing, err := os.ReadFile(file)
		if err == nil && !bytes.Equal(existing, content) {
			return fmt.Errorf("%s is the certificate of another authority; use the one that made this folder, or remove %s", file, o.Dir)
		}
	}
	return nil
}

// files are contents by path within a folder. A path that ends in a slash is an empty folder.
type files map[string][]byte

// verifyingMSP is what it takes to verify an identity of the organization.
func (o Org) verifyingMSP(authority *ca.CA) files {
	f := files{"admincerts/": nil}
	signer := f.addChain("", "ca."+o.Domain, authority.Chain(ca.ProfileEnrollment))
	f.addChain("tls", "tlsca."+o.Domain, authority.Chain(ca.ProfileTLS))
	f["config.yaml"] = nodeOUs(signer)
	return f
}

// addChain puts a chain's root into PREFIXcacerts and the rest into PREFIXintermediatecerts, and returns
// the path of the first, the issuing certificate.
func (f files) addChain(prefix, name string, chain []*x509.Certificate) (issuing string) {
	last := len(chain) - 1
	issuing = prefix + "cacerts/" + name + "-cert.pem"
	f[issuing] = ca.EncodeCertificates(chain[last])
	for n := last - 1; n >= 0; n-- {
		issuing = fmt.Sprintf("%sintermediatecerts/%s-intermediate%d-cert.pem", prefix, name, last-n)
		f[issuing] = ca.EncodeCertificates(chain[n])
	}
	return issuing
}

// nodeOUs is the MSP's config.yaml: roles by organizational unit, of certificates that the organization's
// issuing certificate signed.
func nodeOUs(certificate string) []byte {
	var b strings.Builder
	b.WriteString("NodeOUs:\n    Enable: true\n")
	for _, role := range []string{"Client", "Peer", "Admin", "Orderer"} {
		fmt.Fprintf(&b, "    %sOUIdentifier:\n        Certificate: %s\n        OrganizationalUnitIdentifier: %s\n", role, certificate, strings.ToLower(role))
	}
	return []byte(b.String())
}

// issue makes a member's keys and has them certified.
func (o Org) issue(ctx context.Context, authority *ca.CA, m member, msp files) (files, error) {
	f := files{}
	for path, content := range msp {
		f["msp/"+path] = content
	}
	sign, signKey, err := certify(ctx, authority, ca.Request{ID: m.folder.ID, Type: m.typ})
	if err != nil {
		return nil, err
	}
	f["msp/signcerts/"+m.folder.ID+"-cert.pem"] = ca.EncodeCertificates(sign)
	f["msp/keystore/priv_sk"] = signKey

	cert, key, err := certify(ctx, authority, ca.Request{ID: m.folder.ID, Type: m.typ, Profile: ca.ProfileTLS, Hosts: m.hosts})
	if err != nil {
		return nil, err
	}
	chain := authority.Chain(ca.ProfileTLS)
	root := len(chain) - 1
	f["tls/ca.crt"] = ca.EncodeCertificates(chain[root])
	f["tls/"+m.folder.tls+".crt"] = ca.EncodeCertificates(append([]*x509.Certificate{cert}, chain[:root]...)...)
	f["tls/"+m.folder.tls+".key"] = key
	return f, nil
}

func certify(ctx context.Context, authority *ca.CA, req ca.Request) (*x509.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	req.PublicKey = key.Public()
	cert, err := authority.Issue(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err := ca.EncodeKey(crypto.Signer(key))
	return cert, keyPEM, err
}

// writeFolder makes a folder under another name and puts it in place when it is complete and on disk. What
// a crash leaves of the other name is cleared by the next attempt.
func writeFolder(dir string, content func() (files, error)) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	f, err := content()
	if err != nil {
		return err
	}
	next := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".new")
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	for path, data := range f {
		file := filepath.Join(next, filepath.FromSlash(path))
		if strings.HasSuffix(path, "/") {
			err = os.MkdirAll(file, 0o755)
		} else {
			err = writeFile(file, data)
		}
		if err != nil {
			return err
		}
	}
	if err := os.Rename(next, dir); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(dir))
}

func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	mode := os.FileMode(0o644)
	if base := filepath.Base(path); base == "priv_sk" || filepath.Ext(base) == ".key" {
		mode = 0o600
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
