package ca

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// infoResult is the answer of cainfo, and part of that of enroll. The Idemix fields are empty: Idemix is
// not offered, and clients expect the names.
type infoResult struct {
	CAName                    string
	CAChain                   string // base64 of PEM: the issuing certificate first, the root last
	IssuerPublicKey           string
	IssuerRevocationPublicKey string
	Version                   string
}

func (c *CA) info(profile string) infoResult {
	return infoResult{CAName: c.cfg.Name, CAChain: base64.StdEncoding.EncodeToString(EncodeCertificates(c.Chain(profile)...)), Version: apiVersion}
}

func (c *CA) getInfo(*request) (any, error) { return c.info(ProfileEnrollment), nil }

// enrollRequest is the body of enroll and reenroll.
type enrollRequest struct {
	Hosts     []string         `json:"hosts"`
	Request   string           `json:"certificate_request"`
	Subject   *enrollSubject   `json:"subject"`
	Profile   string           `json:"profile"`
	AttrReqs  []attributeWish  `json:"attr_reqs"`
	NotBefore time.Time        `json:"NotBefore"`
	NotAfter  time.Time        `json:"NotAfter"`
	Refused   *json.RawMessage `json:"extensions"` // would let a client write its own attributes
}

// enrollSubject overrides names of the signing request.
type enrollSubject struct {
	CN    string `json:"CN"`
	Names []struct {
		C, ST, L, O  string
		SerialNumber string
	} `json:"names"`
}

// attributeWish asks for one of the identity's attributes in the certificate.
type attributeWish struct {
	Name     string `json:"name"`
	Optional bool   `json:"optional"`
}

type enrollResult struct {
	Cert       string // base64 of PEM
	ServerInfo infoResult
}

func (c *CA) postEnroll(r *request) (any, error) {
	if err := c.authenticatePassword(r); err != nil {
		return nil, err
	}
	cert, profile, err := c.signFor(r)
	if err != nil {
		return nil, err
	}
	if err := c.registry.recordEnrollment(r.context(), r.caller, c.limitOf(r.caller), c.record(r.caller.id, profile, cert)); err != nil {
		return nil, err
	}
	return c.issuedResult(cert, profile), nil
}

func (c *CA) postReenroll(r *request) (any, error) {
	if err := c.authenticateToken(r, c.cfg.ReenrollExpired); err != nil {
		return nil, err
	}
	cert, profile, err := c.signFor(r)
	if err != nil {
		return nil, err
	}
	err = c.registry.change(r.context(), func(tx *sql.Tx) error {
		return addCertificate(r.context(), tx, c.record(r.caller.id, profile, cert))
	})
	if err != nil {
		return nil, err
	}
	return c.issuedResult(cert, profile), nil
}

func (c *CA) issuedResult(cert *x509.Certificate, profile string) enrollResult {
	c.metrics.issued.WithLabelValues(profileLabel(profile)).Inc()
	info := c.info(profile)
	info.Version = "" // as the stock server: only cainfo tells it
	return enrollResult{Cert: base64.StdEncoding.EncodeToString(EncodeCertificates(cert)), ServerInfo: info}
}

// signFor signs the certificate that an authenticated caller asks for.
func (c *CA) signFor(r *request) (*x509.Certificate, string, error) {
	var req enrollRequest
	if err := r.decode(&req); err != nil {
		return nil, "", err
	}
	if req.Refused != nil && string(*req.Refused) != "null" && string(*req.Refused) != "[]" {
		return nil, "", refuse(400, codeBadCSR, "A request may not carry extensions; ask for attributes with attr_reqs")
	}
	csr, f := parseCSR(req.Request)
	if f != nil {
		return nil, "", f
	}
	if csr.Subject.CommonName != r.caller.id || req.Subject != nil && req.Subject.CN != r.caller.id {
		return nil, "", refuse(403, codeCNMismatch, "The CSR subject common name must equal the enrollment ID")
	}
	wantsCA, f := asksForCA(csr)
	if f != nil {
		return nil, "", f
	}
	if wantsCA || req.Profile == ProfileCA {
		if !r.caller.isTrue(attrIntermediateCA) {
			return nil, "", unauthorized(codeMissingAttr, "%q asks for an authority's certificate without attribute %s", r.caller.id, attrIntermediateCA)
		}
		if req.Profile != ProfileCA {
			return nil, "", refuse(400, codeBadCSR, "The CSR asks for an authority's certificate; use profile 'ca'")
		}
	}
	attrs, f := grantAttributes(r.caller, req.AttrReqs)
	if f != nil {
		return nil, "", f
	}
	hosts := req.Hosts
	if len(hosts) == 0 {
		hosts = csrHosts(csr)
	}
	cert, err := c.issuerOf(req.Profile).issue(Request{
		ID: r.caller.id, Type: r.caller.typ, Affiliation: r.caller.affiliation,
		Subject: subjectOf(csr, req.Subject), PublicKey: csr.PublicKey, Profile: req.Profile, Hosts: hosts,
		Attributes: attrs, NotBefore: req.NotBefore, NotAfter: req.NotAfter,
	}, c.lifetime(req.Profile), c.now())
	return cert, req.Profile, err
}

// maxCSRBytes bounds the PEM of a signing request.
const maxCSRBytes = 64 << 10

// parseCSR reads a PKCS#10 request in PEM and checks that its sender holds the key.
func parseCSR(text string) (*x509.CertificateRequest, *fault) {
	if len(text) > maxCSRBytes {
		return nil, refuse(400, codeBadCSR, "The CSR is larger than %d bytes", maxCSRBytes)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, refuse(400, codeBadCSR, "CSR Decode failed")
	}
	if block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
		return nil, refuse(400, codeBadCSR, "certificate_request holds a PEM block '%.32s', not a CERTIFICATE REQUEST", block.Type)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, refuse(400, codeBadCSR, "The CSR cannot be parsed: %v", err)
	}
	// Before the signature is verified: verifying with an exotic key may cost much.
	if f := checkPublicKey(csr.PublicKey); f != nil {
		return nil, f
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, refuse(400, codeBadCSR, "The CSR's signature is wrong")
	}
	for _, n := range csr.Subject.Names {
		value, ok := n.Value.(string)
		if !ok {
			return nil, refuse(400, codeCSRFields, "CSR input validation failed: a subject field is no string")
		}
		if most, known := subjectFields[n.Type.String()]; known && len(value) > most.bytes {
			return nil, refuse(400, codeCSRFields, "CSR input validation failed: The %s '%s' exceeds the maximum character limit of %d", most.name, value, most.bytes)
		}
	}
	return csr, nil
}

type subjectField struct {
	name  string
	bytes int
}

// subjectFields are the upper bounds of RFC 5280, appendix A.1.
var subjectFields = map[string]subjectField{
	"2.5.4.3":  {"CN", 64},
	"2.5.4.5":  {"serial number", 64},
	"2.5.4.6":  {"country name", 2},
	"2.5.4.7":  {"locality name", 128},
	"2.5.4.8":  {"state name", 128},
	"2.5.4.10": {"organization name", 64},
	"2.5.4.11": {"organizational unit name", 64},
}

// asksForCA reads the basic constraints in the request (RFC 5280, 4.2.1.9).
func asksForCA(csr *x509.CertificateRequest) (bool, *fault) {
	for _, ext := range csr.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 19}) {
			continue
		}
		var constraints struct {
			IsCA       bool `asn1:"optional"`
			MaxPathLen int  `asn1:"optional,default:-1"`
		}
		if rest, err := asn1.Unmarshal(ext.Value, &constraints); err != nil || len(rest) > 0 {
			return false, refuse(400, codeBadCSR, "Failed parsing CSR constraints")
		}
		if constraints.IsCA {
			return true, nil
		}
	}
	return false, nil
}

// csrHosts are the alternative names of the request, in the form that setHosts reads.
func csrHosts(csr *x509.CertificateRequest) []string {
	hosts := append([]string(nil), csr.DNSNames...)
	for _, ip := range csr.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	hosts = append(hosts, csr.EmailAddresses...)
	for _, u := range csr.URIs {
		hosts = append(hosts, u.String())
	}
	return hosts
}

// subjectOf takes the names of the request, and over them those of the override. Organizational units are
// the authority's to give.
func subjectOf(csr *x509.CertificateRequest, override *enrollSubject) pkix.Name {
	s := pkix.Name{
		Country: csr.Subject.Country, Province: csr.Subject.Province, Locality: csr.Subject.Locality,
		Organization: csr.Subject.Organization, SerialNumber: csr.Subject.SerialNumber,
	}
	if override == nil {
		return s
	}
	var o pkix.Name
	for _, n := range override.Names {
		for _, f := range []struct {
			value string
			dst   *[]string
		}{{n.C, &o.Country}, {n.ST, &o.Province}, {n.L, &o.Locality}, {n.O, &o.Organization}} {
			if f.value != "" {
				*f.dst = append(*f.dst, f.value)
			}
		}
		if n.SerialNumber != "" {
			s.SerialNumber = n.SerialNumber
		}
	}
	for _, f := range []struct{ dst, src *[]string }{
		{&s.Country, &o.Country}, {&s.Province, &o.Province}, {&s.Locality, &o.Locality}, {&s.Organization, &o.Organization},
	} {
		if len(*f.src) > 0 {
			*f.dst = *f.src
		}
	}
	return s
}

// grantAttributes picks the attributes for a certificate: the wished ones, or, without wishes, those
// registered to be in every certificate.
func grantAttributes(who *identity, wishes []attributeWish) (map[string]string, *fault) {
	if len(wishes) > maxAttributes {
		return nil, refuse(400, codeUnknown, "At most %d attributes may be asked for", maxAttributes)
	}
	attrs := map[string]string{}
	if wishes == nil {
		for _, a := range who.attributes {
			if a.ECert {
				attrs[a.Name] = a.Value
			}
		}
		return attrs, nil
	}
	var missing []string
	for _, w := range wishes {
		value, ok := who.attribute(w.Name)
		switch {
		case ok:
			attrs[w.Name] = value
		case !w.Optional:
			missing = append(missing, w.Name)
		}
	}
	if len(missing) > 0 {
		return nil, refuse(400, codeUnknown, "Failed to find requested attributes: The following required attributes are missing: %+v", missing)
	}
	return attrs, nil
}

// registerRequest is the body of register, and of POST identities.
type registerRequest struct {
	ID             string      `json:"id"`
	Type           string      `json:"type"`
	Secret         string      `json:"secret"`
	MaxEnrollments int         `json:"max_enrollments"`
	Affiliation    string      `json:"affiliation"`
	Attributes     []Attribute `json:"attrs"`
}

func (c *CA) postRegister(r *request) (any, error) {
	if err := c.authenticateToken(r, false); err != nil {
		return nil, err
	}
	var req registerRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	_, secret, err := c.registerFor(r, req)
	if err != nil {
		return nil, err
	}
	return struct {
		Secret string `json:"secret"`
	}{secret}, nil
}

// registerFor registers with the caller's rights.
func (c *CA) registerFor(r *request, req registerRequest) (Registration, string, error) {
	reg := Registration{ID: req.ID, Secret: req.Secret, Type: req.Type, Affiliation: req.Affiliation,
		MaxEnrollments: req.MaxEnrollments, Attributes: req.Attributes}
	switch reg.Affiliation {
	case "":
		reg.Affiliation = r.caller.affiliation
	case ".": // how clients ask for the root
		reg.Affiliation = ""
	}
	if reg.Type == "" {
		reg.Type = r.caller.typ
	}
	for _, f := range []*fault{
		r.caller.mayActOnType(reg.Type), r.caller.mayActOnAffiliation(reg.Affiliation), r.caller.mayGiveAttributes(reg.Attributes, nil),
	} {
		if f != nil {
			f.reason = codeRegistrarRights
			return reg, "", f
		}
	}
	secret, err := c.register(r.context(), reg)
	if err != nil {
		return reg, "", err
	}
	r.header.Set("Location", "/api/v1/identities/"+url.PathEscape(req.ID))
	return reg, secret, nil
}

// revokeRequest is the body of revoke.
type revokeRequest struct {
	ID     string `json:"id"`
	Serial string `json:"serial"`
	AKI    string `json:"aki"`
	Reason string `json:"reason"`
	GenCRL bool   `json:"gencrl"`
}

type revokedCert struct {
	Serial string
	AKI    string
}

type revokeResult struct {
	RevokedCerts []revokedCert
	CRL          string // base64 of PEM
}

// revocationReasons of RFC 5280, 5.3.1. removeFromCRL (8) belongs into delta lists only.
var revocationReasons = map[string]int{
	"": 0, "unspecified": 0, "keycompromise": 1, "cacompromise": 2, "affiliationchanged": 3, "superseded": 4,
	"cessationofoperation": 5, "certificatehold": 6, "privilegewithdrawn": 9, "aacompromise": 10,
}

func (c *CA) postRevoke(r *request) (any, error) {
	if err := c.authenticateToken(r, false); err != nil {
		return nil, err
	}
	var req revokeRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	reason, ok := revocationReasons[strings.ToLower(req.Reason)]
	if !ok {
		return nil, refuse(400, codeMissingRevokeArgs, "Unknown reason '%.32s'; use a CRLReason of RFC 5280, for example keycompromise", req.Reason)
	}
	aki, serial := hexKey(req.AKI), hexKey(req.Serial)
	var revoked []*certificate
	var err error
	switch {
	case aki != "" && serial != "":
		revoked, err = c.revokeCertificate(r, req.ID, aki, serial, reason)
	case req.ID != "":
		revoked, err = c.revokeIdentity(r, req.ID, reason)
	default:
		err = refuse(400, codeMissingRevokeArgs, "Either Name or Serial and AKI are required for a revoke request")
	}
	if err != nil {
		return nil, err
	}
	c.metrics.revoked.Add(float64(len(revoked)))
	c.log.Info("revoked", "caller", r.caller.id, "id", req.ID, "certificates", len(revoked), "reason", req.Reason)
	result := revokeResult{RevokedCerts: []revokedCert{}}
	for _, cert := range revoked {
		result.RevokedCerts = append(result.RevokedCerts, revokedCert{Serial: cert.serial, AKI: cert.aki})
	}
	if req.GenCRL && len(revoked) > 0 {
		if result.CRL, err = c.encodedCRL(r, ProfileEnrollment, certificateFilter{}); err != nil {
			return nil, err
		}
	}
	return result, nil
}

func (c *CA) revokeCertificate(r *request, id, aki, serial string, reason int) ([]*certificate, error) {
	cert, err := c.registry.certificate(r.context(), aki, serial)
	if err != nil {
		return nil, err
	}
	if cert == nil {
		// Only a revoker learns which certificates exist.
		if !r.caller.isTrue(attrRevoker) {
			return nil, unauthorized(codeNotRevoker, "%q has no authority to revoke", r.caller.id)
		}
		return nil, refuse(404, codeRevokeCertNotFound, "Certificate with serial %.64s and AKI %.64s was not found", serial, aki)
	}
	if f := mayRevoke(r.caller, cert.id); f != nil {
		return nil, f
	}
	if !cert.revoked.IsZero() {
		return nil, refuse(404, codeCertAlreadyRevoked, "Certificate with serial %s and AKI %s was already revoked", serial, aki)
	}
	if id != "" && id != cert.id {
		return nil, refuse(400, codeCertWrongOwner, "Certificate with serial %s and AKI %s is not owned by %s", serial, aki, id)
	}
	if cert.id != r.caller.id {
		owner, err := c.registry.identity(r.context(), cert.id)
		if err != nil {
			return nil, err
		}
		if owner == nil {
			return nil, refuse(404, codeRevokeIDNotFound, "Identity %s was not found", cert.id)
		}
		if f := r.caller.mayManage(owner); f != nil {
			return nil, f
		}
	}
	done, err := c.registry.revokeOne(r.context(), aki, serial, reason, c.now())
	if err == nil && !done {
		err = refuse(404, codeCertAlreadyRevoked, "Certificate with serial %s and AKI %s was already revoked", serial, aki)
	}
	return []*certificate{cert}, err
}

func (c *CA) revokeIdentity(r *request, id string, reason int) ([]*certificate, error) {
	if f := mayRevoke(r.caller, id); f != nil {
		return nil, f
	}
	if id != r.caller.id {
		who, err := c.registry.identity(r.context(), id)
		if err != nil {
			return nil, err
		}
		if who == nil {
			return nil, refuse(404, codeRevokeIDNotFound, "Identity %.64s was not found", id)
		}
		if f := r.caller.mayManage(who); f != nil {
			return nil, f
		}
	}
	return c.registry.revokeIdentity(r.context(), id, reason, c.now())
}

// mayRevoke: everyone what is their own, revokers what is others' (within their affiliation and types).
func mayRevoke(caller *identity, owner string) *fault {
	if caller.id != owner && !caller.isTrue(attrRevoker) {
		return unauthorized(codeNotRevoker, "%q has no authority to revoke", caller.id)
	}
	return nil
}

// crlRequest is the body of gencrl. Profile is an extension of the stock API: with an issuer of its own
// for TLS, "tls" asks for that one's list.
type crlRequest struct {
	RevokedAfter  time.Time `json:"revokedafter"`
	RevokedBefore time.Time `json:"revokedbefore"`
	ExpireAfter   time.Time `json:"expireafter"`
	ExpireBefore  time.Time `json:"expirebefore"`
	Profile       string    `json:"profile"`
}

func (c *CA) postGenCRL(r *request) (any, error) {
	if err := c.authenticateToken(r, false); err != nil {
		return nil, err
	}
	var req crlRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	if !r.caller.isTrue(attrGenCRL) {
		return nil, unauthorized(codeNoGenCRLAuth, "%q has no authority to generate a CRL (%s)", r.caller.id, attrGenCRL)
	}
	if !req.RevokedBefore.IsZero() && req.RevokedAfter.After(req.RevokedBefore) {
		return nil, refuse(http.StatusBadRequest, codeInvalidRevokedAfter,
			"Invalid 'revokedafter' value. It must not be a timestamp greater than 'revokedbefore'")
	}
	if !req.ExpireBefore.IsZero() && req.ExpireAfter.After(req.ExpireBefore) {
		return nil, refuse(http.StatusBadRequest, codeInvalidExpiredAfter,
			"Invalid 'expireafter' value. It must not be a timestamp greater than 'expirebefore'")
	}
	crl, err := c.encodedCRL(r, req.Profile, certificateFilter{
		revokedStart: req.RevokedAfter, revokedEnd: req.RevokedBefore, expiredStart: req.ExpireAfter, expiredEnd: req.ExpireBefore})
	if err != nil {
		return nil, err
	}
	return struct{ CRL string }{crl}, nil
}

func (c *CA) encodedCRL(r *request, profile string, f certificateFilter) (string, error) {
	der, err := c.revocationList(r.context(), profile, f)
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})), nil
}
