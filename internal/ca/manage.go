package ca

import (
	"context"
	"database/sql"
	"io"
	"slices"
	"strings"
)

// identityResult is an identity as clients see it.
type identityResult struct {
	ID             string      `json:"id"`
	Type           string      `json:"type"`
	Affiliation    string      `json:"affiliation"`
	Attributes     []Attribute `json:"attrs"`
	MaxEnrollments int         `json:"max_enrollments"`
	Secret         string      `json:"secret,omitempty"` // only to who just set it
	CAName         string      `json:"caname,omitempty"`
}

func resultOf(i *identity, secret, caName string) identityResult {
	attrs := i.attributes
	if attrs == nil {
		attrs = []Attribute{}
	}
	return identityResult{ID: i.id, Type: i.typ, Affiliation: i.affiliation, Attributes: attrs,
		MaxEnrollments: i.maxEnrollments, Secret: secret, CAName: caName}
}

// getIdentities lists what the registrar may manage.
func (c *CA) getIdentities(r *request) (any, error) {
	if err := c.authenticateToken(r, false); err != nil {
		return nil, err
	}
	if !r.caller.isRegistrar() {
		return nil, unauthorized(codeGettingUser, "%q is not a registrar", r.caller.id)
	}
	after, ended := "", false
	return list(func(w io.Writer) error {
		return c.writeList(w, "identities", func() ([]any, error) {
			var items []any
			for len(items) == 0 && !ended {
				page, err := c.registry.identities(r.context(), r.caller.affiliation, after, pageRows)
				if err != nil {
					return nil, err
				}
				ended = len(page) < pageRows
				for _, i := range page {
					after = i.id
					if r.caller.mayActOnType(i.typ) == nil {
						items = append(items, resultOf(i, "", ""))
					}
				}
			}
			return items, nil
		})
	}), nil
}

// managed authenticates a registrar and loads the identity of the path, which the registrar may manage.
func (c *CA) managed(r *request) (*identity, error) {
	if err := c.authenticateToken(r, false); err != nil {
		return nil, err
	}
	return c.manageable(r.context(), c.registry.read, r.caller, r.http.PathValue("id"))
}

func (c *CA) manageable(ctx context.Context, q queryer, caller *identity, id string) (*identity, error) {
	who, err := getIdentity(ctx, q, id)
	if err != nil {
		return nil, err
	}
	if who == nil {
		// Only a registrar learns which identities exist.
		if !caller.isRegistrar() {
			return nil, unauthorized(codeRegAttrAuth, "%q is not a registrar", caller.id)
		}
		return nil, refuse(404, codeNotFound, "Failed to get User: '%.64s' is not registered", id)
	}
	if f := caller.mayManage(who); f != nil {
		return nil, f
	}
	return who, nil
}

func (c *CA) getIdentity(r *request) (any, error) {
	who, err := c.managed(r)
	if err != nil {
		return nil, err
	}
	return resultOf(who, "", c.cfg.Name), nil
}

func (c *CA) postIdentity(r *request) (any, error) {
	if err := c.authenticateToken(r, false); err != nil {
		return nil, err
	}
	var req registerRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	if req.ID == "" {
		return nil, refuse(400, codeAddIdentity, "Missing 'ID' in request to add a new identity")
	}
	reg, secret, err := c.registerFor(r, req)
	if err != nil {
		return nil, err
	}
	added, err := c.registry.identity(r.context(), reg.ID)
	if err != nil {
		return nil, err
	}
	if added == nil {
		return nil, refuse(404, codeNotFound, "Identity '%s' was removed meanwhile", reg.ID)
	}
	return resultOf(added, secret, c.cfg.Name), nil
}

// putIdentity changes what the body names. An attribute with an empty value is removed.
func (c *CA) putIdentity(r *request) (any, error) {
	who, err := c.managed(r)
	if err != nil {
		return nil, err
	}
	var req registerRequest
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	if len(req.Secret) > maxSecretBytes {
		return nil, refuse(400, codeModifyingIdentity, "The secret is longer than %d bytes", maxSecretBytes)
	}
	hash := ""
	if req.Secret != "" {
		if hash, err = c.hasher.hash(r.context(), req.Secret); err != nil {
			return nil, err
		}
	}
	id := who.id
	err = c.registry.change(r.context(), func(tx *sql.Tx) error {
		// Read again inside the transaction: the rights must hold for what is changed.
		if who, err = c.manageable(r.context(), tx, r.caller, id); err != nil {
			return err
		}
		if err := c.modify(r.context(), tx, r.caller, who, req); err != nil {
			return err
		}
		if hash != "" {
			if f := r.caller.maySetSecret(who); f != nil {
				return f
			}
			who.secret, who.failedLogins = hash, 0
		}
		return updateIdentity(r.context(), tx, who)
	})
	if err != nil {
		return nil, err
	}
	return resultOf(who, req.Secret, c.cfg.Name), nil
}

// modify applies req to who after checking the caller's rights over every new value.
func (c *CA) modify(ctx context.Context, q queryer, caller, who *identity, req registerRequest) error {
	if f := checkAttributes(req.Attributes); f != nil {
		return f
	}
	if f := caller.mayGiveAttributes(req.Attributes, who); f != nil {
		return f
	}
	var fixed []Attribute
	if req.Affiliation != "" {
		affiliation := req.Affiliation
		if affiliation == "." {
			affiliation = ""
		} else if known, err := hasAffiliation(ctx, q, affiliation); err != nil || !known {
			if err == nil {
				err = refuse(400, codeModifyingIdentity, "Affiliation '%.64s' is not supported", affiliation)
			}
			return err
		}
		if f := caller.mayActOnAffiliation(affiliation); f != nil {
			return f
		}
		who.affiliation = affiliation
		fixed = append(fixed, Attribute{Name: attrAffiliation, Value: affiliation, ECert: true})
	}
	if req.Type != "" {
		if f := checkType(req.Type); f != nil {
			return f
		}
		if f := caller.mayActOnType(req.Type); f != nil {
			return f
		}
		who.typ = req.Type
		fixed = append(fixed, Attribute{Name: attrType, Value: req.Type, ECert: true})
	}
	switch {
	case req.MaxEnrollments == -2: // how clients ask for none: the identity cannot enroll any more
		who.maxEnrollments = 0
	case req.MaxEnrollments != 0:
		limit, f := c.enrollmentLimit(req.MaxEnrollments)
		if f != nil {
			return f
		}
		who.maxEnrollments = limit
	}
	who.attributes = mergeAttributes(mergeAttributes(who.attributes, req.Attributes, true), fixed, false)
	if f := checkAttributes(who.attributes); f != nil {
		return f
	}
	return nil
}

func (c *CA) deleteIdentity(r *request) (any, error) {
	if err := c.authenticateToken(r, false); err != nil {
		return nil, err
	}
	if !c.cfg.AllowIdentityRemoval {
		return nil, refuse(403, codeRemoveIdentity, "Identity removal is disabled")
	}
	force, err := r.flag("force")
	if err != nil {
		return nil, err
	}
	id := r.http.PathValue("id")
	if id == r.caller.id && !force {
		return nil, refuse(403, codeRemoveIdentity, "Need to use 'force' option to delete your own identity")
	}
	var who *identity
	err = c.registry.change(r.context(), func(tx *sql.Tx) error {
		var err error
		if who, err = c.manageable(r.context(), tx, r.caller, id); err != nil {
			return err
		}
		return removeIdentity(r.context(), tx, id, revocationReasons["cessationofoperation"], c.now())
	})
	if err != nil {
		return nil, err
	}
	c.log.Info("identity removed", "caller", r.caller.id, "id", id)
	return resultOf(who, "", c.cfg.Name), nil
}

// affiliationResult is an affiliation with what is below it.
type affiliationResult struct {
	Name         string              `json:"name"`
	Affiliations []affiliationResult `json:"affiliations,omitempty"`
	Identities   []identityResult    `json:"identities,omitempty"`
	CAName       string              `json:"caname,omitempty"`
}

// affiliationTree arranges sorted names below root ("" is above all).
func affiliationTree(root string, names []string, members []*identity) affiliationResult {
	result := affiliationResult{Name: root}
	for _, i := range members {
		if i.affiliation == root && root != "" {
			result.Identities = append(result.Identities, resultOf(i, "", ""))
		}
	}
	for _, n := range names {
		parent := ""
		if at := strings.LastIndexByte(n, '.'); at >= 0 {
			parent = n[:at]
		}
		if parent == root && n != root {
			within := slices.DeleteFunc(slices.Clone(names), func(m string) bool { return !strings.HasPrefix(m, n+".") })
			result.Affiliations = append(result.Affiliations, affiliationTree(n, within, members))
		}
	}
	return result
}

// affiliationManager authenticates a caller with the right over affiliations.
func (c *CA) affiliationManager(r *request) error {
	if err := c.authenticateToken(r, false); err != nil {
		return err
	}
	if !r.caller.isTrue(attrAffiliationMgr) {
		return unauthorized(codeMissingRole, "%q is no affiliation manager (%s)", r.caller.id, attrAffiliationMgr)
	}
	return nil
}

func (c *CA) getAffiliations(r *request) (any, error) {
	if err := c.affiliationManager(r); err != nil {
		return nil, err
	}
	own := r.caller.affiliation
	names, err := affiliations(r.context(), c.registry.read, own)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, refuse(404, codeGettingAffiliation, "No affiliations are configured on the CA")
	}
	result := affiliationTree(own, names, nil)
	if own == "" && len(result.Affiliations) == 1 {
		result = result.Affiliations[0] // as the stock server: a single root stands for itself
	}
	result.CAName = c.cfg.Name
	return result, nil
}

func (c *CA) getAffiliation(r *request) (any, error) {
	if err := c.affiliationManager(r); err != nil {
		return nil, err
	}
	name := r.http.PathValue("affiliation")
	if f := r.caller.mayActOnAffiliation(name); f != nil {
		return nil, f
	}
	names, err := affiliations(r.context(), c.registry.read, name)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(names, name) {
		return nil, errNoAffiliation(name)
	}
	result := affiliationTree(name, names, nil)
	result.CAName = c.cfg.Name
	return result, nil
}

func errNoAffiliation(name string) *fault {
	return refuse(404, codeNotFound, "Failed to get affiliation: '%.64s' does not exist", name)
}

func (c *CA) postAffiliation(r *request) (any, error) {
	if err := c.affiliationManager(r); err != nil {
		return nil, err
	}
	var req struct {
		Name string `json:"name"`
	}
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	force, err := r.flag("force")
	if err != nil {
		return nil, err
	}
	for _, f := range []*fault{checkAffiliation(req.Name), r.caller.mayActOnAffiliation(req.Name)} {
		if f != nil {
			return nil, f
		}
	}
	ctx := r.context()
	err = c.registry.change(ctx, func(tx *sql.Tx) error {
		exists, err := hasAffiliation(ctx, tx, req.Name)
		if err != nil {
			return err
		}
		if exists {
			return refuse(409, codeAddAffiliation, "Affiliation already exists")
		}
		if at := strings.LastIndexByte(req.Name, '.'); at >= 0 && !force {
			if exists, err = hasAffiliation(ctx, tx, req.Name[:at]); err != nil {
				return err
			}
			if !exists {
				return refuse(400, codeAddAffiliation, "Parent affiliation does not exist, 'force' option required on request to add affiliation")
			}
		}
		return addAffiliation(ctx, tx, req.Name, force)
	})
	if err != nil {
		return nil, err
	}
	return affiliationResult{Name: req.Name, CAName: c.cfg.Name}, nil
}

// putAffiliation renames an affiliation and all below it; with force also in the identities that have it.
func (c *CA) putAffiliation(r *request) (any, error) {
	if err := c.affiliationManager(r); err != nil {
		return nil, err
	}
	var req struct {
		Name string `json:"name"`
	}
	if err := r.decode(&req); err != nil {
		return nil, err
	}
	force, err := r.flag("force")
	if err != nil {
		return nil, err
	}
	from := r.http.PathValue("affiliation")
	for _, f := range []*fault{checkAffiliation(req.Name), r.caller.mayActOnAffiliation(from), r.caller.mayActOnAffiliation(req.Name)} {
		if f != nil {
			return nil, f
		}
	}
	if strings.HasPrefix(req.Name, from+".") {
		return nil, refuse(400, codeModifyAffiliation, "Affiliation '%s' cannot be moved below itself", from)
	}
	var result affiliationResult
	err = c.registry.change(r.context(), func(tx *sql.Tx) error {
		var err error
		result, err = renameAffiliation(r.context(), tx, r.caller, from, req.Name, force)
		return err
	})
	if err != nil {
		return nil, err
	}
	result.CAName = c.cfg.Name
	return result, nil
}

func renameAffiliation(ctx context.Context, tx *sql.Tx, caller *identity, from, to string, force bool) (affiliationResult, error) {
	var none affiliationResult
	names, err := affiliations(ctx, tx, from)
	if err != nil {
		return none, err
	}
	if !slices.Contains(names, from) {
		return none, errNoAffiliation(from)
	}
	if exists, err := hasAffiliation(ctx, tx, to); err != nil || exists {
		if err == nil {
			err = refuse(409, codeModifyAffiliation, "Affiliation '%s' already exists", to)
		}
		return none, err
	}
	members, err := membersOf(ctx, tx, caller, from, codeMissingRegAttr)
	if err != nil {
		return none, err
	}
	if len(members) > 0 && !force {
		return none, refuse(400, codeModifyAffiliation,
			"The request to modify affiliation '%s' has the following identities associated: %s. Need to use 'force' to remove identities and affiliation",
			from, idList(members))
	}
	for _, i := range members {
		i.affiliation = to + strings.TrimPrefix(i.affiliation, from)
		i.attributes = mergeAttributes(i.attributes, []Attribute{{Name: attrAffiliation, Value: i.affiliation, ECert: true}}, false)
		if err := updateIdentity(ctx, tx, i); err != nil {
			return none, err
		}
	}
	renamed := make([]string, len(names))
	for n, name := range names {
		renamed[n] = to + strings.TrimPrefix(name, from)
		if _, err := tx.ExecContext(ctx, `UPDATE affiliations SET name = ? WHERE name = ?`, renamed[n], name); err != nil {
			return none, err
		}
	}
	return affiliationTree(to, renamed, members), nil
}

// deleteAffiliation removes an affiliation; with force also those below it and the identities that have
// one of them, whose certificates are revoked.
func (c *CA) deleteAffiliation(r *request) (any, error) {
	if err := c.affiliationManager(r); err != nil {
		return nil, err
	}
	name := r.http.PathValue("affiliation")
	force, err := r.flag("force")
	if err != nil {
		return nil, err
	}
	if !c.cfg.AllowAffiliationRemoval {
		return nil, unauthorized(codeRemoveAffiliation, "affiliation removal is disabled")
	}
	if r.caller.affiliation == name {
		return nil, unauthorized(codeRemoveAffiliation, "%q is itself of affiliation %q", r.caller.id, name)
	}
	if f := r.caller.mayActOnAffiliation(name); f != nil {
		return nil, f
	}
	var result affiliationResult
	err = c.registry.change(r.context(), func(tx *sql.Tx) error {
		var err error
		result, err = c.removeAffiliation(r.context(), tx, r.caller, name, force)
		return err
	})
	if err != nil {
		return nil, err
	}
	c.log.Info("affiliation removed", "caller", r.caller.id, "affiliation", name)
	result.CAName = c.cfg.Name
	return result, nil
}

func (c *CA) removeAffiliation(ctx context.Context, tx *sql.Tx, caller *identity, name string, force bool) (affiliationResult, error) {
	var none affiliationResult
	names, err := affiliations(ctx, tx, name)
	if err != nil {
		return none, err
	}
	if !slices.Contains(names, name) {
		return none, errNoAffiliation(name)
	}
	members, err := membersOf(ctx, tx, caller, name, codeRemoveAffiliation)
	if err != nil {
		return none, err
	}
	if len(members) > 0 && !c.cfg.AllowIdentityRemoval {
		return none, unauthorized(codeRemoveAffiliation, "affiliation %q has identities, and identity removal is disabled", name)
	}
	if !force && (len(members) > 0 || len(names) > 1) {
		return none, unauthorized(codeRemoveAffiliation, "affiliation %q has identities (%s) or sub-affiliations; 'force' is needed", name, idList(members))
	}
	for _, i := range members {
		if err := removeIdentity(ctx, tx, i.id, revocationReasons["affiliationchanged"], c.now()); err != nil {
			return none, err
		}
	}
	where, args := below("name", name)
	if _, err := tx.ExecContext(ctx, `DELETE FROM affiliations WHERE `+where, args...); err != nil {
		return none, err
	}
	return affiliationTree(name, names, members), nil
}

// membersOf lists the identities at or below an affiliation; to change any, the caller must be allowed to
// manage every one.
func membersOf(ctx context.Context, tx *sql.Tx, caller *identity, affiliation string, reason int) ([]*identity, error) {
	where, args := below("affiliation", affiliation)
	members, err := selectIdentities(ctx, tx, `WHERE `+where+` ORDER BY id`, args...)
	if err != nil {
		return nil, err
	}
	for _, i := range members {
		if f := caller.mayManage(i); f != nil {
			f.reason = reason
			return nil, f
		}
	}
	return members, nil
}

// idList names at most a few identities in a message.
func idList(members []*identity) string {
	var ids []string
	for n, i := range members {
		if n == 10 {
			ids = append(ids, "...")
			break
		}
		ids = append(ids, i.id)
	}
	return strings.Join(ids, ",")
}

// getCertificates lists certificates by the filters of the query, within the caller's affiliation.
func (c *CA) getCertificates(r *request) (any, error) {
	if err := c.authenticateToken(r, false); err != nil {
		return nil, err
	}
	if !r.caller.isRegistrar() && !r.caller.isTrue(attrRevoker) {
		return nil, unauthorized(codeAuthorization, "%q is neither a registrar nor a revoker", r.caller.id)
	}
	f, err := c.certificateQuery(r)
	if err != nil {
		return nil, err
	}
	ended := false
	return list(func(w io.Writer) error {
		return c.writeList(w, "certs", func() ([]any, error) {
			if ended {
				return nil, nil
			}
			page, err := c.registry.certificates(r.context(), f, c.now())
			if err != nil || len(page) == 0 {
				return nil, err
			}
			ended = len(page) < pageRows
			items := make([]any, len(page))
			for n, cert := range page {
				items[n] = struct{ PEM string }{cert.pem}
				f.afterAKI, f.afterSerial = cert.aki, cert.serial
			}
			return items, nil
		})
	}), nil
}

func (c *CA) certificateQuery(r *request) (certificateFilter, error) {
	q, now := r.http.URL.Query(), c.now()
	f := certificateFilter{id: q.Get("id"), aki: hexKey(q.Get("aki")), serial: hexKey(q.Get("serial")),
		affiliation: r.caller.affiliation, limit: pageRows}
	var err error
	if f.notRevoked, err = r.flag("notrevoked"); err != nil {
		return f, err
	}
	if f.notExpired, err = r.flag("notexpired"); err != nil {
		return f, err
	}
	if f.revokedStart, err = parseInstant(q, "revoked_start", now); err != nil {
		return f, err
	}
	if f.revokedEnd, err = parseInstant(q, "revoked_end", now); err != nil {
		return f, err
	}
	if f.expiredStart, err = parseInstant(q, "expired_start", now); err != nil {
		return f, err
	}
	if f.expiredEnd, err = parseInstant(q, "expired_end", now); err != nil {
		return f, err
	}
	if f.notExpired && !(f.expiredStart.IsZero() && f.expiredEnd.IsZero()) {
		return f, refuse(400, codeGettingCert, "Invalid Request: Can't specify expiration time filter and the 'notexpired' filter")
	}
	if f.notRevoked && !(f.revokedStart.IsZero() && f.revokedEnd.IsZero()) {
		return f, refuse(400, codeGettingCert, "Invalid Request: Can't specify revocation time filter and the 'notrevoked' filter")
	}
	return f, nil
}
