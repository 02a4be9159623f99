package ca

import (
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Defaults of Config.
const (
	DefaultRootValidity       = 10 * 365 * 24 * time.Hour
	DefaultEnrollmentValidity = 365 * 24 * time.Hour
	DefaultTLSValidity        = 365 * 24 * time.Hour
	DefaultSubCAValidity      = 5 * 365 * 24 * time.Hour
	DefaultCRLValidity        = 24 * time.Hour
	DefaultPasswordAttempts   = 10
	DefaultMaxBodyBytes       = 256 << 10
	DefaultMaxInFlight        = 256
	DefaultMaxQueuedLogins    = 64
)

// Config of one certificate authority. The zero value of every field but Name and Dir is usable.
type Config struct {
	// Name of the authority: what clients send as caname, and the common name of a root made here.
	// A request that names no authority, or this one, is served; any other name is refused.
	Name string `yaml:"name"`
	// Dir is the data folder: the registry (ca.db), and the key and certificate files unless named below.
	// It is created with mode 0700. Two processes cannot use one folder.
	Dir string `yaml:"dir"`
	// Issuer signs enrollment certificates.
	Issuer IssuerFiles `yaml:"issuer"`
	// TLSIssuer signs what is asked for with the profile "tls". Left empty, Issuer signs those too, as
	// the stock server does; a network laid out by cryptogen has a root of its own for TLS.
	TLSIssuer IssuerFiles `yaml:"tlsIssuer"`
	// Subject fills the names of roots made here, and country, state, locality and organization of
	// certificates issued in process.
	Subject Subject `yaml:"subject"`
	// RootValidity is the lifetime of a root made here; default ten years.
	RootValidity time.Duration `yaml:"rootValidity"`
	// Validity is the lifetime of what is issued, by profile. It never outlives the issuer's certificate.
	Validity Validity `yaml:"validity"`
	// CRLValidity is the time until a revocation list says it must be replaced; default 24h.
	CRLValidity time.Duration `yaml:"crlValidity"`
	// MaxEnrollments limits how often any secret can be used to enroll; 0 or -1 is no limit.
	MaxEnrollments int `yaml:"maxEnrollments"`
	// PasswordAttempts is how many wrong passwords in a row lock an identity until a registrar sets a new
	// secret; default 10, -1 never locks.
	PasswordAttempts int `yaml:"passwordAttempts"`
	// AllowIdentityRemoval lets registrars delete identities (their certificates are revoked).
	AllowIdentityRemoval bool `yaml:"allowIdentityRemoval"`
	// AllowAffiliationRemoval lets affiliation managers delete affiliations.
	AllowAffiliationRemoval bool `yaml:"allowAffiliationRemoval"`
	// LegacyTokens also accepts the authorization token of clients before 1.4, whose signature does not
	// cover method and path: who sees one such request can repeat its body on another path. Default off.
	LegacyTokens bool `yaml:"legacyTokens"`
	// ReenrollExpired lets an expired (not a revoked) certificate ask for its own renewal.
	ReenrollExpired bool `yaml:"reenrollExpired"`
	// Identities are registered when they are missing, at every start; an existing one is left as it is.
	Identities []Bootstrap `yaml:"identities"`
	// Affiliations are added when they are missing, each with its parents, for example
	// "org1.department1".
	Affiliations []string `yaml:"affiliations"`
	// Limits protect the server from its callers.
	Limits Limits `yaml:"limits"`
}

// IssuerFiles names the files of an issuing certificate and its key, in PEM. When neither file exists, a
// self-signed root is made and written there; when only one exists, opening fails.
type IssuerFiles struct {
	// CertFile is the issuing certificate; default DIR/ca-cert.pem.
	CertFile string `yaml:"certFile"`
	// KeyFile is its private key (PKCS#8 or SEC 1; ECDSA P-256, P-384 or Ed25519), mode 0600; default
	// DIR/ca-key.pem.
	KeyFile string `yaml:"keyFile"`
	// ChainFile, for an intermediate authority, holds the certificates above CertFile up to the root, in
	// any order; CertFile itself may be among them.
	ChainFile string `yaml:"chainFile"`
}

// Subject is the part of a distinguished name that an organization shares.
type Subject struct {
	Country      string `yaml:"country"`
	State        string `yaml:"state"`
	Locality     string `yaml:"locality"`
	Organization string `yaml:"organization"`
}

// name is the subject with a common name.
func (s Subject) name(cn string) pkix.Name {
	n := pkix.Name{CommonName: cn}
	for _, f := range []struct {
		value string
		dst   *[]string
	}{{s.Country, &n.Country}, {s.State, &n.Province}, {s.Locality, &n.Locality}, {s.Organization, &n.Organization}} {
		if f.value != "" {
			*f.dst = []string{f.value}
		}
	}
	return n
}

// Validity holds lifetimes by profile.
type Validity struct {
	// Enrollment is for certificates without a profile; default one year.
	Enrollment time.Duration `yaml:"enrollment"`
	// TLS is for the profile "tls"; default one year.
	TLS time.Duration `yaml:"tls"`
	// SubCA is for the profile "ca"; default five years.
	SubCA time.Duration `yaml:"subCA"`
}

// Bootstrap is an identity that exists from the first start.
type Bootstrap struct {
	// ID is the enrollment ID.
	ID string `yaml:"id"`
	// Secret enrolls it. Required: an authority whose first registrar has no secret cannot be used.
	Secret string `yaml:"secret"`
	// Type becomes the certificate's first organizational unit: client, peer, orderer or admin; default
	// client.
	Type string `yaml:"type"`
	// Affiliation, dotted; empty is the root, which contains all others.
	Affiliation string `yaml:"affiliation"`
	// MaxEnrollments of this identity; 0 or -1 is no limit.
	MaxEnrollments int `yaml:"maxEnrollments"`
	// Registrar gives every right over the authority (all hf.* attributes).
	Registrar bool `yaml:"registrar"`
	// Attributes by name; those also named in EnrollAttributes are put into certificates by default.
	Attributes map[string]string `yaml:"attributes"`
	// EnrollAttributes lists the attributes that every enrollment certificate carries unasked.
	EnrollAttributes []string `yaml:"enrollAttributes"`
}

// Limits are what one caller, or all together, may cost.
type Limits struct {
	// MaxBodyBytes of a request; default 256 KiB. More is answered with 413.
	MaxBodyBytes int64 `yaml:"maxBodyBytes"`
	// MaxInFlight requests are served at once; default 256. More are answered with 503 and Retry-After.
	MaxInFlight int `yaml:"maxInFlight"`
	// MaxQueuedLogins wait while all processors hash passwords; default 64. More are answered with 503.
	MaxQueuedLogins int `yaml:"maxQueuedLogins"`
	// FailuresPerMinute of authentication are accepted from one address before it is answered with 429;
	// default 120, -1 is no limit.
	FailuresPerMinute int `yaml:"failuresPerMinute"`
}

// withDefaults returns the configuration as it is used, or what is wrong with it.
func (c Config) withDefaults() (Config, error) {
	if c.Name == "" || len(c.Name) > 64 {
		return c, errors.New("ca config: name must have 1 to 64 bytes, for example ca.org1.example.com")
	}
	if c.Dir == "" {
		return c, errors.New("ca config: dir is missing; name the data folder")
	}
	if (c.Issuer.CertFile == "") != (c.Issuer.KeyFile == "") {
		return c, errors.New("ca config: issuer: give both certFile and keyFile, or neither")
	}
	if (c.TLSIssuer.CertFile == "") != (c.TLSIssuer.KeyFile == "") {
		return c, errors.New("ca config: tlsIssuer: give both certFile and keyFile, or neither")
	}
	if c.TLSIssuer.CertFile == "" && c.TLSIssuer.ChainFile != "" {
		return c, errors.New("ca config: tlsIssuer: chainFile is given without certFile and keyFile")
	}
	if len(c.Subject.Country) != 0 && len(c.Subject.Country) != 2 {
		return c, fmt.Errorf("ca config: subject.country %q must have two letters", c.Subject.Country)
	}
	for _, d := range []struct {
		name  string
		value *time.Duration
		def   time.Duration
	}{
		{"rootValidity", &c.RootValidity, DefaultRootValidity},
		{"validity.enrollment", &c.Validity.Enrollment, DefaultEnrollmentValidity},
		{"validity.tls", &c.Validity.TLS, DefaultTLSValidity},
		{"validity.subCA", &c.Validity.SubCA, DefaultSubCAValidity},
		{"crlValidity", &c.CRLValidity, DefaultCRLValidity},
	} {
		if *d.value < 0 {
			return c, fmt.Errorf("ca config: %s is negative", d.name)
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if c.MaxEnrollments == 0 {
		c.MaxEnrollments = -1
	}
	if c.PasswordAttempts == 0 {
		c.PasswordAttempts = DefaultPasswordAttempts
	}
	if c.Limits.MaxBodyBytes == 0 {
		c.Limits.MaxBodyBytes = DefaultMaxBodyBytes
	}
	if c.Limits.MaxInFlight == 0 {
		c.Limits.MaxInFlight = DefaultMaxInFlight
	}
	if c.Limits.MaxQueuedLogins == 0 {
		c.Limits.MaxQueuedLogins = DefaultMaxQueuedLogins
	}
	if c.Limits.FailuresPerMinute == 0 {
		c.Limits.FailuresPerMinute = 120
	}
	if c.MaxEnrollments < -1 || c.PasswordAttempts < -1 || c.Limits.FailuresPerMinute < -1 ||
		c.Limits.MaxBodyBytes < 0 || c.Limits.MaxInFlight < 0 || c.Limits.MaxQueuedLogins < 0 {
		return c, errors.New("ca config: a limit is negative; only maxEnrollments, passwordAttempts and failuresPerMinute may be -1 (no limit)")
	}
	for i, b := range c.Identities {
		if b.Secret == "" {
			return c, fmt.Errorf("ca config: identities[%d] (%q): secret is missing", i, b.ID)
		}
		if f := checkID(b.ID); f != nil {
			return c, fmt.Errorf("ca config: identities[%d]: %w", i, f)
		}
	}
	for _, a := range c.Affiliations {
		if f := checkAffiliation(a); f != nil {
			return c, fmt.Errorf("ca config: affiliations: %w", f)
		}
	}
	return c, nil
}

// Bounds on what the registry holds.
const (
	maxIDBytes          = 255
	maxOUBytes          = 64 // an organizational unit in a subject (RFC 5280, ub-organizational-unit-name)
	maxAffiliationBytes = 512
	maxAttributes       = 128
	maxAttributeBytes   = 4096
	maxSecretBytes      = 1024
)

func checkID(id string) *fault {
	if id == "" || len(id) > maxIDBytes || !printable(id) {
		return refuse(400, codeAddIdentity, "The identity's ID must have 1 to %d printable bytes", maxIDBytes)
	}
	return nil
}

func checkType(t string) *fault {
	if t == "" || len(t) > maxOUBytes || !printable(t) {
		return refuse(400, codeAddIdentity, "The identity's type must have 1 to %d printable bytes", maxOUBytes)
	}
	return nil
}

func checkAffiliation(a string) *fault {
	if len(a) > maxAffiliationBytes {
		return refuse(400, codeAddAffiliation, "The affiliation is longer than %d bytes", maxAffiliationBytes)
	}
	for part := range strings.SplitSeq(a, ".") {
		if part == "" || len(part) > maxOUBytes || !printable(part) {
			return refuse(400, codeAddAffiliation, "Affiliation '%s': each part between dots must have 1 to %d printable bytes", a, maxOUBytes)
		}
	}
	return nil
}

func checkAttributes(attrs []Attribute) *fault {
	if len(attrs) > maxAttributes {
		return refuse(400, codeAddIdentity, "An identity may have at most %d attributes", maxAttributes)
	}
	for _, a := range attrs {
		if a.Name == "" || len(a.Name) > maxIDBytes || !printable(a.Name) {
			return refuse(400, codeAddIdentity, "An attribute's name must have 1 to %d printable bytes", maxIDBytes)
		}
		if len(a.Value) > maxAttributeBytes {
			return refuse(400, codeAddIdentity, "The value of attribute '%s' is longer than %d bytes", a.Name, maxAttributeBytes)
		}
	}
	return nil
}

// printable reports valid UTF-8 without control characters: such a name can stand in a log line, a URL and
// a certificate's subject.
func printable(s string) bool {
	for _, r := range s {
		if r < 0x20 || r == 0x7f || r == '\uFFFD' {
			return false
		}
	}
	return true
}
