package ca

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// apiVersion is what cainfo reports: the release of the stock server whose API this is. Clients compare
// it to decide what to ask for.
const apiVersion = "1.5.0"

// pageRows is how many rows a list reads at a time: no answer, however long or slowly read, holds more in
// memory, or a database connection while it is sent.
const pageRows = 256

// Time for a client to send its body, and to take the answer (a list may be long).
const (
	bodyTimeout   = 10 * time.Second
	answerTimeout = 2 * time.Minute
)

// operation is one method of one endpoint. do returns the result to encode, or a list to stream.
type operation struct {
	status int // of success
	do     func(*request) (any, error)
}

// list streams a long result: it writes the whole JSON value.
type list func(w io.Writer) error

type endpoint map[string]operation // by HTTP method

// endpoints by path, below / and below /api/v1/ alike, as the stock server has them.
func (c *CA) endpoints() map[string]endpoint {
	info := operation{http.StatusOK, c.getInfo}
	return map[string]endpoint{
		"cainfo":                     {http.MethodGet: info, http.MethodPost: info, http.MethodHead: info},
		"enroll":                     {http.MethodPost: {http.StatusCreated, c.postEnroll}},
		"reenroll":                   {http.MethodPost: {http.StatusCreated, c.postReenroll}},
		"register":                   {http.MethodPost: {http.StatusCreated, c.postRegister}},
		"revoke":                     {http.MethodPost: {http.StatusOK, c.postRevoke}},
		"gencrl":                     {http.MethodPost: {http.StatusOK, c.postGenCRL}},
		"identities":                 {http.MethodGet: {http.StatusOK, c.getIdentities}, http.MethodPost: {http.StatusCreated, c.postIdentity}},
		"identities/{id}":            {http.MethodGet: {http.StatusOK, c.getIdentity}, http.MethodPut: {http.StatusOK, c.putIdentity}, http.MethodDelete: {http.StatusOK, c.deleteIdentity}},
		"affiliations":               {http.MethodGet: {http.StatusOK, c.getAffiliations}, http.MethodPost: {http.StatusCreated, c.postAffiliation}},
		"affiliations/{affiliation}": {http.MethodGet: {http.StatusOK, c.getAffiliation}, http.MethodPut: {http.StatusOK, c.putAffiliation}, http.MethodDelete: {http.StatusOK, c.deleteAffiliation}},
		"certificates":               {http.MethodGet: {http.StatusOK, c.getCertificates}},
	}
}

// Handler serves the REST API. It must be served over TLS: enrollment carries passwords.
func (c *CA) Handler() http.Handler {
	mux := http.NewServeMux()
	for path, e := range c.endpoints() {
		h := c.serve(path, e)
		mux.Handle("/"+path, h)
		mux.Handle("/api/v1/"+path, h)
	}
	mux.Handle("/", c.serve("unknown", nil))
	return mux
}

// request is one call, with what authentication found out about its caller.
type request struct {
	http   *http.Request
	body   []byte
	header http.Header // of the answer
	caller *identity
}

func (r *request) context() context.Context { return r.http.Context() }

// decode reads the JSON body.
func (r *request) decode(into any) error {
	if len(r.body) == 0 {
		return refuse(400, codeEmptyBody, "Empty request body")
	}
	if err := json.Unmarshal(r.body, into); err != nil {
		return refuse(400, codeBadBody, "Invalid request body: %s", err)
	}
	return nil
}

// flag reads a boolean query parameter.
func (r *request) flag(name string) (bool, error) {
	v := r.http.URL.Query().Get(name)
	if v == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(strings.ToLower(v))
	if err != nil {
		return false, refuse(400, codeGettingBoolParam, "Query parameter '%s' must be true or false", name)
	}
	return b, nil
}

func (c *CA) serve(name string, e endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		start := time.Now()
		status := http.StatusOK
		var result any
		var err error
		select {
		case c.slots <- struct{}{}:
			defer func() { <-c.slots }()
			r := &request{http: hr, header: w.Header()}
			status, result, err = c.handle(w, r, e)
		default:
			err = errBusy()
		}
		var f *fault
		if err != nil {
			f = asFault(err)
			status = f.status
			level := c.log.Info
			if status >= 500 {
				level = c.log.Error
			}
			level("request refused", "endpoint", name, "method", hr.Method, "remote", hr.RemoteAddr,
				"status", status, "code", f.reason, "error", f.Error())
			if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
				w.Header().Set("Retry-After", "1")
			}
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		if hr.Method != http.MethodHead {
			c.answer(w, result, f)
		}
		c.metrics.requests.WithLabelValues(name, strconv.Itoa(status)).Inc()
		c.metrics.seconds.WithLabelValues(name).Observe(time.Since(start).Seconds())
	})
}

// handle reads the request and runs its operation.
func (c *CA) handle(w http.ResponseWriter, r *request, e endpoint) (int, any, error) {
	if e == nil {
		return 0, nil, refuse(404, codeUnknown, "There is no %s here; the API is below /api/v1/", r.http.URL.Path)
	}
	op, ok := e[r.http.Method]
	if !ok {
		return 0, nil, refuse(405, codeMethodNotAllowed, "Method %s is not allowed", r.http.Method)
	}
	// A slot is not for who sends or reads at a trickle. A server that knows no deadlines (a test's) is fine.
	deadline := http.NewResponseController(w)
	_ = deadline.SetReadDeadline(time.Now().Add(bodyTimeout))
	_ = deadline.SetWriteDeadline(time.Now().Add(answerTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.http.Body, c.cfg.Limits.MaxBodyBytes))
	if err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return 0, nil, refuse(413, codeReadingBody, "The request body is larger than %d bytes", c.cfg.Limits.MaxBodyBytes)
		}
		return 0, nil, refuse(400, codeReadingBody, "Failed reading request body")
	}
	r.body = body
	if f := c.checkName(r); f != nil {
		return 0, nil, f
	}
	result, err := op.do(r)
	return op.status, result, err
}

// checkName refuses a request for another authority. "undefined" is what the Node client sends when it
// was given no name.
func (c *CA) checkName(r *request) *fault {
	name := r.http.URL.Query().Get("ca")
	if name == "" && len(r.body) > 0 {
		var b struct {
			CAName string `json:"caname"`
		}
		if err := json.Unmarshal(r.body, &b); err != nil {
			return refuse(400, codeBadBody, "Invalid request body: %s", err)
		}
		name = b.CAName
	}
	if name != "" && name != "undefined" && name != "null" && name != c.cfg.Name {
		return refuse(404, codeCANotFound, "CA '%.64s' does not exist; this is '%s'", name, c.cfg.Name)
	}
	return nil
}

// message is an error as clients read it.
type message struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// answer writes the envelope {result, errors, messages, success}. A list that breaks off ends with an
// error and success false: its status line is gone already.
func (c *CA) answer(w io.Writer, result any, f *fault) {
	var out bytes.Buffer
	out.WriteString(`{"result":`)
	switch v := result.(type) {
	case nil:
		out.WriteString(`""`)
	case list:
		if _, err := w.Write(out.Bytes()); err != nil {
			return // the client is gone
		}
		out.Reset()
		if err := v(w); err != nil {
			c.log.Error("list broke off", "error", err.Error())
			f = asFault(err)
		}
	default:
		if err := json.NewEncoder(&out).Encode(v); err != nil {
			c.log.Error("encode result", "error", err.Error())
			out.WriteString(`""`)
		}
	}
	errs := []message{}
	if f != nil {
		errs = append(errs, message{f.code, f.msg})
	}
	text, err := json.Marshal(errs) // two plain fields: cannot fail
	if err != nil {
		text = []byte("[]")
	}
	out.WriteString(`,"errors":`)
	out.Write(text)
	out.WriteString(`,"messages":[],"success":` + strconv.FormatBool(f == nil) + "}\n")
	_, _ = w.Write(out.Bytes()) // a failed write means that the client is gone
}

// writeList writes {"<key>":[items...],"caname":...}. next returns a page of items, and none at the end.
func (c *CA) writeList(w io.Writer, key string, next func() ([]any, error)) error {
	head := `{"` + key + `":[`
	if _, err := io.WriteString(w, head); err != nil {
		return nil // the client is gone: nobody to tell
	}
	tail, err := json.Marshal(c.cfg.Name)
	if err != nil {
		return err
	}
	end := `],"caname":` + string(tail) + "}"
	separator := ""
	for {
		items, err := next()
		if err != nil {
			_, _ = io.WriteString(w, end)
			return err
		}
		if len(items) == 0 {
			_, _ = io.WriteString(w, end)
			return nil
		}
		var page bytes.Buffer
		for _, it := range items {
			page.WriteString(separator)
			separator = ","
			if err := json.NewEncoder(&page).Encode(it); err != nil {
				return err
			}
		}
		if _, err := w.Write(page.Bytes()); err != nil {
			return nil // likewise
		}
	}
}

// authenticatePassword identifies the caller of an enrollment by ID and secret.
func (c *CA) authenticatePassword(r *request) error {
	if f := c.failures.refused(r.http, c.now()); f != nil {
		return f
	}
	err := c.checkPassword(r)
	c.noteFailure(r, err)
	return err
}

func (c *CA) checkPassword(r *request) error {
	if r.http.Header.Get("Authorization") == "" {
		return refuse(401, codeNoAuthHeader, "No authorization header")
	}
	id, secret, ok := r.http.BasicAuth()
	if !ok || len(id) > maxIDBytes || len(secret) > maxSecretBytes {
		return unauthenticated(codeNoUserPass, "no user and password in the authorization header, or too long")
	}
	who, err := c.registry.identity(r.context(), id)
	if err != nil {
		return err
	}
	if who == nil {
		// As long as for one that exists: the time must not tell.
		if _, err := c.hasher.matches(r.context(), secret, ""); err != nil {
			return err
		}
		return unauthenticated(codeInvalidUser, "identity %q is not registered", id)
	}
	if most := c.cfg.PasswordAttempts; most > 0 && who.failedLogins >= most {
		return refuse(401, codePasswordAttempts, "Incorrect password entered %d times, max incorrect password limit of %d reached", who.failedLogins, most)
	}
	match, err := c.hasher.matches(r.context(), secret, who.secret)
	if err != nil {
		return err
	}
	if !match {
		if err := c.registry.loginFailed(r.context(), id); err != nil {
			return err
		}
		return unauthenticated(codeInvalidPass, "wrong password for identity %q", id)
	}
	if who.revoked {
		return unauthenticated(codeInvalidPass, "identity %q is revoked", id)
	}
	if limit := c.limitOf(who); limit != -1 && who.enrolled >= limit {
		return unauthenticated(codeInvalidPass, "identity %q has enrolled %d times, its limit", id, limit)
	}
	r.caller = who
	return nil
}

// limitOf is the limit of enrollments that holds for an identity now: its own, or the authority's if that is less.
func (c *CA) limitOf(i *identity) int {
	if most := c.cfg.MaxEnrollments; most != -1 && (i.maxEnrollments == -1 || i.maxEnrollments > most) {
		return most
	}
	return i.maxEnrollments
}

// authenticateToken identifies the caller by a certificate of this authority and a signature over the
// request.
func (c *CA) authenticateToken(r *request, acceptExpired bool) error {
	if f := c.failures.refused(r.http, c.now()); f != nil {
		return f
	}
	err := c.checkToken(r, acceptExpired)
	c.noteFailure(r, err)
	return err
}

func (c *CA) checkToken(r *request, acceptExpired bool) error {
	header := r.http.Header.Get("Authorization")
	if header == "" {
		return refuse(401, codeNoAuthHeader, "No authorization header")
	}
	t, err := parseToken(header)
	if err != nil {
		return unauthenticated(codeInvalidToken, "%v", err)
	}
	// The cheap check first: others' certificates cost no verification.
	if !bytes.Equal(t.cert.AuthorityKeyId, c.issuer.cert.SubjectKeyId) {
		return unauthenticated(codeUntrustedCert, "certificate of %q was not issued by this authority for enrollment", t.cert.Subject)
	}
	// Clients sign the path as they wrote it, or as their URL library normalised it.
	uris := []string{r.http.RequestURI}
	if u := r.http.URL.RequestURI(); u != r.http.RequestURI {
		uris = append(uris, u)
	}
	if !t.covers(r.http.Method, uris, r.body, c.cfg.LegacyTokens) {
		return unauthenticated(codeInvalidToken, "the token's signature does not cover this request")
	}
	// The recorded certificate decides. With it at hand, its signature need not be verified again: the
	// bytes are those that this authority issued, or they are not.
	record, err := c.registry.certificate(r.context(), akiKey(t.cert.AuthorityKeyId), serialKey(t.cert.SerialNumber))
	if err != nil {
		return err
	}
	if record == nil || record.pem != string(EncodeCertificates(t.cert)) {
		return unauthenticated(codeCertNotFound, "certificate of %q was not issued here", t.cert.Subject)
	}
	if !record.revoked.IsZero() {
		return unauthenticated(codeCertRevoked, "certificate %s of %q is revoked", record.serial, record.id)
	}
	now := c.now()
	if now.Before(t.cert.NotBefore) || now.After(t.cert.NotAfter) && !acceptExpired || now.After(c.issuer.cert.NotAfter) {
		return unauthenticated(codeCertExpired, "certificate %s of %q is valid from %s to %s", record.serial, record.id,
			t.cert.NotBefore.Format(time.RFC3339), t.cert.NotAfter.Format(time.RFC3339))
	}
	who, err := c.registry.identity(r.context(), record.id)
	if err != nil {
		return err
	}
	if who == nil {
		return unauthenticated(codeGettingUser, "identity %q is not registered", record.id)
	}
	if who.revoked {
		return unauthorized(codeRevokedID, "identity %q is revoked", record.id)
	}
	r.caller = who
	return nil
}

// noteFailure counts what was refused for the caller's own fault.
func (c *CA) noteFailure(r *request, err error) {
	if f, ok := errors.AsType[*fault](err); ok && f.status == http.StatusUnauthorized {
		c.metrics.authFailures.Inc()
		c.failures.note(r.http, c.now())
	}
}

// failureLimit counts failed authentications by address: a bucket that fills with failures and leaks at
// the allowed rate. Addresses with an empty bucket are forgotten; when there are too many to remember,
// all further ones share a bucket.
type failureLimit struct {
	perMinute float64 // -1: no limit

	mu      sync.Mutex
	buckets map[string]bucket
}

type bucket struct {
	level float64
	at    time.Time
}

const maxBuckets = 10_000

func newFailureLimit(perMinute int) *failureLimit {
	return &failureLimit{perMinute: float64(perMinute), buckets: map[string]bucket{}}
}

func (l *failureLimit) leak(b bucket, now time.Time) bucket {
	return bucket{max(0, b.level-now.Sub(b.at).Minutes()*l.perMinute), now}
}

func remoteAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func (l *failureLimit) refused(r *http.Request, now time.Time) *fault {
	if l.perMinute < 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.buckets[remoteAddress(r)]
	if !ok && len(l.buckets) >= maxBuckets {
		b = l.buckets[""]
	}
	if l.leak(b, now).level+1 > l.perMinute {
		return refuse(http.StatusTooManyRequests, codeUnknown, "Too many failed authentications from this address; try again in a minute")
	}
	return nil
}

func (l *failureLimit) note(r *http.Request, now time.Time) {
	if l.perMinute < 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	key := remoteAddress(r)
	if _, ok := l.buckets[key]; !ok && len(l.buckets) >= maxBuckets {
		for k, b := range l.buckets {
			if l.leak(b, now).level == 0 {
				delete(l.buckets, k)
			}
		}
		if len(l.buckets) >= maxBuckets {
			key = ""
		}
	}
	b := l.leak(l.buckets[key], now)
	b.level++
	l.buckets[key] = b
}

func parseHex(s string) (*big.Int, bool) { return new(big.Int).SetString(s, 16) }

// parseInstant reads a time filter of the certificates endpoint: RFC 3339, a date, or a duration from now
// such as +30d or -15m.
func parseInstant(query url.Values, name string, now time.Time) (time.Time, error) {
	v := query.Get(name)
	switch {
	case v == "":
		return time.Time{}, nil
	case v[0] == '+' || v[0] == '-' || v[0] == ' ': // a plus that was not escaped arrives as a space
		v = strings.ToLower(strings.TrimSpace(v))
		if days, ok := strings.CutSuffix(v, "d"); ok {
			n, err := strconv.Atoi(days)
			if err != nil || n > 36500 || n < -36500 {
				return time.Time{}, refuse(400, codeGettingCert, "Invalid Request: Invalid '%s' value: '%s' is no number of days", name, v)
			}
			return now.AddDate(0, 0, n), nil
		}
		d, err := time.ParseDuration(v)
		if err != nil {
			return time.Time{}, refuse(400, codeGettingCert, "Invalid Request: Invalid '%s' value: '%s' is no duration", name, v)
		}
		return now.Add(d), nil
	case !strings.Contains(v, "T"):
		v += "T00:00:00Z"
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil {
		return time.Time{}, refuse(400, codeGettingCert, "Invalid Request: Invalid '%s' value: '%s' is no RFC 3339 time", name, v)
	}
	return t, nil
}

// profileLabel bounds a metric's label to known profiles.
func profileLabel(profile string) string {
	if slices.Contains([]string{ProfileTLS, ProfileCA}, profile) {
		return profile
	}
	return "enrollment"
}
