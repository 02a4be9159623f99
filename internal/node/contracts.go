package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/hansa-ledger/hansa/internal/builder"
	"github.com/hansa-ledger/hansa/internal/contracthost"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/lifecycle"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// openContracts makes ready what runs contracts.
func (p *peer) openContracts() error {
	c := p.config
	var err error
	if p.packages, err = lifecycle.OpenPackages(filepath.Join(c.DataDir, "packages")); err != nil {
		return err
	}
	p.catalog = lifecycle.NewCatalog(c.MSPID, p.packages, false)
	host := contracthost.Config{ExecuteTimeout: c.Chaincode.ExecuteTimeout, LaunchTimeout: c.Chaincode.StartTimeout, Log: p.log}
	if len(c.Chaincode.ExternalBuilders) > 0 {
		if p.contractPort, err = newContractPort(c.Chaincode.Address); err != nil {
			return err
		}
		host.Authorize = p.contractPort.authorize
		if p.builders, err = builder.Open(builder.Config{
			Builders: c.Chaincode.ExternalBuilders, Dir: filepath.Join(c.DataDir, "builds"), Timeout: c.Chaincode.BuildTimeout,
			MSPID: c.MSPID, PeerAddress: c.Chaincode.Address, Credentials: p.contractPort.issue, Environ: os.Environ(), Log: p.log,
		}); err != nil {
			return err
		}
	}
	p.host, err = contracthost.New(host)
	return err
}

// runInstalled connects to the contracts whose packages are installed. One that has to be built anew must not keep the peer from
// serving the others.
func (p *peer) runInstalled(ctx context.Context, run func(func() error)) {
	var later []*contractpackage.Package
	for _, id := range p.packages.List() {
		pkg, err := p.loadPackage(id)
		if err == nil && !p.built(id) {
			later = append(later, pkg)
			continue
		}
		if err == nil {
			err = p.prepareContract(ctx, pkg)
		}
		p.reportContract(id, err)
	}
	if len(later) > 0 {
		run(func() error {
			for _, pkg := range later {
				p.reportContract(pkg.ID, p.prepareContract(ctx, pkg))
			}
			p.channels.wakeIndexing()
			return nil
		})
	}
}

// built tells whether a package can be prepared without building it.
func (p *peer) built(packageID string) bool {
	if p.builders == nil {
		return true
	}
	build, err := p.builders.Find(packageID)
	return build != nil || err != nil
}

func (p *peer) reportContract(packageID string, err error) {
	if err != nil && !errors.Is(err, context.Canceled) { // one bad package must not keep the others from running
		p.log.Error("contract package cannot run", "package", packageID, "error", err)
	}
}

func (p *peer) loadPackage(id string) (*contractpackage.Package, error) {
	raw, err := p.packages.Load(id)
	if err != nil {
		return nil, err
	}
	return contractpackage.Read(raw)
}

// prepareContract makes the host reach a package's contract: as an external builder says, or at the address in its connection.json,
// or, without either, when the contract registers by itself.
func (p *peer) prepareContract(ctx context.Context, pkg *contractpackage.Package) error {
	if p.builders != nil {
		err := p.prepareBuild(ctx, pkg)
		if !errors.Is(err, builder.ErrUnclaimed) {
			return err
		}
	}
	values := map[string]any{}
	for name, value := range p.config.Chaincode.Builder {
		values[name] = value
	}
	connection, err := pkg.Connection(values)
	switch {
	case err == nil:
		return p.host.Connect(pkg.ID, connection)
	case !errors.Is(err, contractpackage.ErrNoConnection):
		return err
	case p.builders != nil: // the port takes only what builders start
		return fmt.Errorf("%w, it has no connection.json, and contracts are not built with Docker here: add a builder for its type %q, or package it as a service",
			builder.ErrUnclaimed, pkg.Type)
	}
	p.host.Expect(pkg.ID)
	return nil
}

func (p *peer) prepareBuild(ctx context.Context, pkg *contractpackage.Package) error {
	build, err := p.builders.Build(ctx, pkg)
	if err != nil {
		return err
	}
	connection, err := build.Connection()
	switch {
	case err == nil:
		return p.host.Connect(pkg.ID, connection)
	case !errors.Is(err, contractpackage.ErrNoConnection):
		return err
	}
	return p.host.Launch(pkg.ID, func() (contracthost.Process, error) {
		process, err := build.Run()
		if err != nil { // no nil process in an interface
			return nil, err
		}
		return process, nil
	})
}

// indexFiles are the definitions of indexes of a package: those that its builder released, or else its own.
func (p *peer) indexFiles(packageID string) ([]contractpackage.Index, error) {
	if p.builders != nil {
		if build, err := p.builders.Find(packageID); build != nil {
			return build.Indexes()
		} else if err != nil {
			return nil, err
		}
	}
	pkg, err := p.loadPackage(packageID)
	if err != nil {
		return nil, err
	}
	return pkg.Indexes()
}

// serveContracts opens the port where contracts register, until ctx ends: then their streams are cut, for they never end by themselves.
func (p *peer) serveContracts(ctx context.Context, run func(func() error)) error {
	address := p.config.Chaincode.Listen
	if address == "" {
		return nil
	}
	l, err := listen("chaincode", address)
	if err != nil {
		return err
	}
	options := []grpc.ServerOption{grpc.MaxRecvMsgSize(contracthost.MaxMessageBytes), grpc.MaxSendMsgSize(contracthost.MaxMessageBytes)}
	if p.contractPort != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(p.contractPort.tls)))
	}
	server := grpc.NewServer(options...)
	peerpb.RegisterChaincodeSupportServer(server, p.host)
	run(func() error {
		stop := context.AfterFunc(ctx, server.Stop)
		err := server.Serve(l)
		if stop() { // Serve failed by itself
			return fmt.Errorf("serve contracts on %s: %w", address, err)
		}
		return nil
	})
	return nil
}

// contractPort protects the port where contracts register: it has an authority of its own, which lives as long as the process, and
// each run of a contract a certificate that is good for that package only. As in Fabric.
type contractPort struct {
	tls  *tls.Config
	root *x509.Certificate
	key  *ecdsa.PrivateKey

	mu     sync.Mutex
	issued map[[sha256.Size]byte]string // package by certificate
	latest map[string][sha256.Size]byte // certificate of its newest run, by package
}

const contractCertLife = 10 * 365 * 24 * time.Hour

func newContractPort(address string) (*contractPort, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("chaincode.address: %w", err)
	}
	c := &contractPort{issued: map[[sha256.Size]byte]string{}, latest: map[string][sha256.Size]byte{}}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "contracts"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	if c.root, c.key, err = c.sign(template); err != nil {
		return nil, err
	}
	template = &x509.Certificate{Subject: pkix.Name{CommonName: host}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	cert, key, err := c.sign(template)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(c.root)
	c.tls = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
	return c, nil
}

// sign completes a certificate; the first one, the root, signs itself.
func (c *contractPort) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, err
	}
	now := time.Now()
	template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(contractCertLife)
	parent, signer := c.root, c.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}

// issue makes the credentials of one run; those of the run before are worth nothing from then on.
func (c *contractPort) issue(packageID string) (*builder.Credentials, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cert, key, err := c.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "contract"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	delete(c.issued, c.latest[packageID])
	hash := sha256.Sum256(cert.Raw)
	c.issued[hash], c.latest[packageID] = packageID, hash
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return &builder.Credentials{ClientCert: block("CERTIFICATE", cert.Raw), ClientKey: block("PRIVATE KEY", raw), RootCert: block("CERTIFICATE", c.root.Raw)}, nil
}

func (c *contractPort) authorize(ctx context.Context, packageID string) error {
	if caller, ok := grpcpeer.FromContext(ctx); ok {
		if info, ok := caller.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.issued[sha256.Sum256(info.State.PeerCertificates[0].Raw)] == packageID {
				return nil
			}
		}
	}
	return errors.New("the client's certificate was not made for this contract")
}
