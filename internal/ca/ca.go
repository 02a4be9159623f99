// Package ca is a member's certificate authority: it registers identities, and issues, renews and revokes
// their certificates.
//
// It speaks the Fabric CA REST API, so that the stock clients (npm fabric-ca-client, the fabric-ca-client
// command) work unmodified, and offers the same in process to whoever lays out a network.
//
// What it guarantees: a certificate is handed out only after it was recorded durably, so that everything
// issued can be listed and revoked; passwords are kept as argon2id hashes only; private keys of the
// authority are 0600 files; certificates carry low-S signatures, which Fabric's MSP leaves untouched; a
// caller's rights (hf.* attributes, affiliation, types) are checked before anything changes; requests are
// bounded in size, number and in the password hashes they cost. Two processes never open one data folder.
//
// What it leaves out: Idemix, LDAP, several authorities in one server, /cfssl paths (the stock server has
// dropped them). Revocation is known to this server at once, to peers when the list from gencrl is put
// into the channel's MSP definition, as with Fabric. TLS and the listener belong to internal/node.
//
// Start with ca.go (the authority itself), then server.go (the HTTP surface), rights.go (who may do what)
// and issuer.go (what certificates look like).
package ca

import (
	"context"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// CA is an open certificate authority. It is safe for concurrent use.
type CA struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	lock     *os.File
	registry *registry
	issuer   *issuer
	tls      *issuer // the same as issuer unless TLS has one of its own
	hasher   *hasher
	metrics  *metrics
	slots    chan struct{} // one per request in flight
	failures *failureLimit
}

// Open opens the data folder, or makes it: root keys, registry, and the identities and affiliations that
// the configuration wants. The caller must Close it.
func Open(cfg Config, log *slog.Logger) (*CA, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &CA{
		cfg: cfg, log: log, now: time.Now,
		hasher: newHasher(cfg.Limits.MaxQueuedLogins), metrics: newMetrics(),
		slots: make(chan struct{}, cfg.Limits.MaxInFlight), failures: newFailureLimit(cfg.Limits.FailuresPerMinute),
	}
	if err := c.open(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("open certificate authority %s: %w", cfg.Name, err), c.Close())
	}
	return c, nil
}

func (c *CA) open(ctx context.Context) error {
	if err := os.MkdirAll(c.cfg.Dir, 0o700); err != nil {
		return err
	}
	var err error
	if c.lock, err = lockFolder(c.cfg.Dir); err != nil {
		return err
	}
	files := c.cfg.Issuer
	if files.CertFile == "" {
		files.CertFile, files.KeyFile = filepath.Join(c.cfg.Dir, "ca-cert.pem"), filepath.Join(c.cfg.Dir, "ca-key.pem")
	}
	if c.issuer, err = openIssuer(files, c.cfg.Subject.name(c.cfg.Name), c.cfg.RootValidity, c.now()); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	c.tls = c.issuer
	if c.cfg.TLSIssuer.CertFile != "" {
		if c.tls, err = openIssuer(c.cfg.TLSIssuer, c.cfg.Subject.name("tls"+c.cfg.Name), c.cfg.RootValidity, c.now()); err != nil {
			return fmt.Errorf("tlsIssuer: %w", err)
		}
	}
	if c.registry, err = openRegistry(ctx, filepath.Join(c.cfg.Dir, "ca.db")); err != nil {
		return err
	}
	return c.bootstrap(ctx)
}

// bootstrap adds the configured affiliations and identities that are missing.
func (c *CA) bootstrap(ctx context.Context) error {
	err := c.registry.change(ctx, func(tx *sql.Tx) error {
		for _, a := range c.cfg.Affiliations {
			if err := addAffiliation(ctx, tx, a, true); err != nil {
				return fmt.Errorf("add affiliation %q: %w", a, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, b := range c.cfg.Identities {
		existing, err := c.registry.identity(ctx, b.ID)
		if err != nil {
			return err
		}
		if existing != nil {
			continue
		}
		r := Registration{ID: b.ID, Secret: b.Secret, Type: b.Type, Affiliation: b.Affiliation, MaxEnrollments: b.MaxEnrollments}
		if b.Registrar {
			r.Attributes = registrarAttributes()
		}
		for name, value := range b.Attributes {
			r.Attributes = mergeAttributes(r.Attributes, []Attribute{{Name: name, Value: value, ECert: inList(b.EnrollAttributes, name, false)}}, false)
		}
		if _, err := c.Register(ctx, r); err != nil {
			return fmt.Errorf("register identity %q of the configuration: %w", b.ID, err)
		}
	}
	return nil
}

// Close waits for nothing: the HTTP server in front must have finished its requests.
func (c *CA) Close() error {
	var errs []error
	if c.registry != nil {
		errs = append(errs, c.registry.close())
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Close()) // the lock goes with the descriptor
	}
	return errors.Join(errs...)
}

// lockFolder keeps other processes out, until the file is closed or this process dies.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("data folder %s is in use by another process; stop that one, or use another folder", dir)
	}
	return f, nil
}

// Name is the authority's name, which clients may send as caname.
func (c *CA) Name() string { return c.cfg.Name }

// Chain is the certificate that signs for a profile, and those above it, the root last.
func (c *CA) Chain(profile string) []*x509.Certificate { return c.issuerOf(profile).chain() }

// Collectors are the authority's metrics, for the process's registry.
func (c *CA) Collectors() []prometheus.Collector { return c.metrics.collectors() }

// Ready reports whether requests can be served.
func (c *CA) Ready(ctx context.Context) error {
	if err := c.registry.read.PingContext(ctx); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	return nil
}

func (c *CA) issuerOf(profile string) *issuer {
	if profile == ProfileTLS {
		return c.tls
	}
	return c.issuer
}

func (c *CA) lifetime(profile string) time.Duration {
	switch profile {
	case ProfileTLS:
		return c.cfg.Validity.TLS
	case ProfileCA:
		return c.cfg.Validity.SubCA
	}
	return c.cfg.Validity.Enrollment
}

// Registration describes an identity to register.
type Registration struct {
	// ID is the enrollment ID.
	ID string
	// Secret to enroll with; one is generated when it is empty.
	Secret string
	// Type: client (the default), peer, orderer or admin.
	Type string
	// Affiliation, dotted, must exist; empty is the root.
	Affiliation string
	// MaxEnrollments with the secret; 0 is the authority's limit, -1 none.
	MaxEnrollments int
	// Attributes of the identity. Those with ECert go into its enrollment certificates unasked.
	Attributes []Attribute
}

// Register adds an identity on the authority's own behalf (no registrar's rights are asked for), and returns
// its secret.
func (c *CA) Register(ctx context.Context, r Registration) (secret string, err error) {
	if r.Type == "" {
		r.Type = "client"
	}
	return c.register(ctx, r)
}

func (c *CA) register(ctx context.Context, r Registration) (string, error) {
	for _, f := range []*fault{checkID(r.ID), checkType(r.Type), checkAttributes(r.Attributes)} {
		if f != nil {
			return "", f
		}
	}
	if len(r.Secret) > maxSecretBytes {
		return "", refuse(400, codeAddIdentity, "The secret is longer than %d bytes", maxSecretBytes)
	}
	limit, f := c.enrollmentLimit(r.MaxEnrollments)
	if f != nil {
		return "", f
	}
	if r.Affiliation != "" {
		known, err := hasAffiliation(ctx, c.registry.read, r.Affiliation)
		if err != nil {
			return "", err
		}
		if !known {
			return "", refuse(404, codeGettingAffiliation, "Affiliation '%s' does not exist", r.Affiliation)
		}
	}
	// Asked before the hash, which is the expensive part, and again by the insert.
	if existing, err := c.registry.identity(ctx, r.ID); err != nil || existing != nil {
		if err == nil {
			err = refuse(409, codeDuplicateIdentity, "Identity '%s' is already registered", r.ID)
		}
		return "", err
	}
	if r.Secret == "" {
		r.Secret = newSecret()
	}
	hash, err := c.hasher.hash(ctx, r.Secret)
	if err != nil {
		return "", err
	}
	i := &identity{id: r.ID, secret: hash, typ: r.Type, affiliation: r.Affiliation, maxEnrollments: limit,
		attributes: withFixedAttributes(r.Attributes, r.ID, r.Type, r.Affiliation)}
	err = c.registry.change(ctx, func(tx *sql.Tx) error {
		added, err := addIdentity(ctx, tx, i, c.now())
		if err == nil && !added {
			err = refuse(409, codeDuplicateIdentity, "Identity '%s' is already registered", r.ID)
		}
		return err
	})
	return r.Secret, err
}

// enrollmentLimit is what an identity gets when it, or its registrar, asks for want.
func (c *CA) enrollmentLimit(want int) (int, *fault) {
	most := c.cfg.MaxEnrollments
	switch {
	case want < -1:
		return 0, refuse(400, codeMaxEnrollments, "Max enrollment in registration request may not be less than -1, but was %d", want)
	case most == -1 && want == 0:
		return -1, nil
	case most == -1:
		return want, nil
	case want == -1:
		return 0, refuse(400, codeMaxEnrollments, "Registration for infinite enrollments is not allowed")
	case want == 0:
		return most, nil
	case want > most:
		return 0, refuse(400, codeMaxEnrollments, "Requested enrollments (%d) exceeds maximum allowable enrollments (%d)", want, most)
	}
	return want, nil
}

// Issue signs and records a certificate on the authority's own behalf. An identity of that ID is added when
// it is missing, without a secret: nobody can enroll as it over HTTP, but it is listed, can sign calls with
// its certificate, and can be revoked.
func (c *CA) Issue(ctx context.Context, req Request) (*x509.Certificate, error) {
	if req.Type == "" {
		req.Type = "client"
	}
	for _, f := range []*fault{checkID(req.ID), checkType(req.Type)} {
		if f != nil {
			return nil, f
		}
	}
	if s := &req.Subject; len(s.Country)+len(s.Province)+len(s.Locality)+len(s.Organization) == 0 {
		own := c.cfg.Subject.name("")
		s.Country, s.Province, s.Locality, s.Organization = own.Country, own.Province, own.Locality, own.Organization
	}
	cert, err := c.issuerOf(req.Profile).issue(req, c.lifetime(req.Profile), c.now())
	if err != nil {
		return nil, fmt.Errorf("issue certificate of %q: %w", req.ID, err)
	}
	var attrs []Attribute
	for name, value := range req.Attributes {
		attrs = mergeAttributes(attrs, []Attribute{{Name: name, Value: value, ECert: true}}, false)
	}
	err = c.registry.change(ctx, func(tx *sql.Tx) error {
		_, err := addIdentity(ctx, tx, &identity{
			id: req.ID, typ: req.Type, affiliation: req.Affiliation, maxEnrollments: -1,
			attributes: withFixedAttributes(attrs, req.ID, req.Type, req.Affiliation),
		}, c.now())
		if err != nil {
			return err
		}
		return addCertificate(ctx, tx, c.record(req.ID, req.Profile, cert))
	})
	if err != nil {
		return nil, fmt.Errorf("record certificate of %q: %w", req.ID, err)
	}
	c.metrics.issued.WithLabelValues(profileLabel(req.Profile)).Inc()
	return cert, nil
}

// record is the registry's form of an issued certificate.
func (c *CA) record(id, profile string, cert *x509.Certificate) *certificate {
	return &certificate{
		aki: akiKey(cert.AuthorityKeyId), serial: serialKey(cert.SerialNumber), id: id, profile: profile,
		issued: c.now(), expires: cert.NotAfter, pem: string(EncodeCertificates(cert)),
	}
}

// maxCRLEntries bounds what one revocation list costs to make and to send.
const maxCRLEntries = 500_000

// revocationList signs the list of a profile's issuer, in DER, over what the filter selects.
func (c *CA) revocationList(ctx context.Context, profile string, f certificateFilter) ([]byte, error) {
	is := c.issuerOf(profile)
	f.onlyRevoked, f.aki, f.limit = true, akiKey(is.cert.SubjectKeyId), pageRows
	f.exclusiveStart, f.exclusiveEnd = true, true
	var entries []x509.RevocationListEntry
	for {
		certs, err := c.registry.certificates(ctx, f, c.now())
		if err != nil {
			return nil, fmt.Errorf("list revoked certificates: %w", err)
		}
		for _, cert := range certs {
			serial, ok := parseHex(cert.serial)
			if !ok {
				return nil, fmt.Errorf("the registry holds a malformed serial number %q", cert.serial)
			}
			entries = append(entries, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: cert.revoked.UTC(), ReasonCode: cert.reason})
		}
		if len(entries) > maxCRLEntries {
			return nil, refuse(400, codeUnknown, "The list would have more than %d entries; narrow it with expireafter or revokedafter", maxCRLEntries)
		}
		if len(certs) < pageRows {
			return is.revocationList(entries, c.now(), c.cfg.CRLValidity)
		}
		last := certs[len(certs)-1]
		f.afterAKI, f.afterSerial = last.aki, last.serial
	}
}
