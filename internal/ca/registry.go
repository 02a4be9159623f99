package ca

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"time"

	_ "modernc.org/sqlite" // the driver named "sqlite"
)

//go:embed schema/*.sql
var schemaFiles embed.FS

// registry keeps identities, affiliations and issued certificates. What a method has returned from is on
// disk (SQLite's write-ahead log, synchronous=FULL). One connection writes, several read beside it.
type registry struct {
	write *sql.DB
	read  *sql.DB
}

// Attribute of an identity. The JSON form is the protocol's.
type Attribute struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	// ECert puts the attribute into enrollment certificates unasked.
	ECert bool `json:"ecert,omitempty"`
}

// identity is a row of the registry.
type identity struct {
	id             string
	secret         string // hash
	typ            string
	affiliation    string
	attributes     []Attribute
	enrolled       int
	maxEnrollments int
	failedLogins   int
	revoked        bool
}

func (i *identity) attribute(name string) (string, bool) {
	for _, a := range i.attributes {
		if a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}

// certificate is a row of the registry.
type certificate struct {
	aki, serial string
	id          string
	profile     string
	issued      time.Time
	expires     time.Time
	revoked     time.Time // zero: not revoked
	reason      int
	pem         string
}

func openRegistry(ctx context.Context, file string) (*registry, error) {
	open := func(connections int, pragmas ...string) (*sql.DB, error) {
		q := url.Values{"_txlock": {"immediate"}, "_pragma": append(pragmas, "busy_timeout(5000)", "synchronous(FULL)")}
		db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath(), RawQuery: q.Encode()}).String())
		if err != nil {
			return nil, err
		}
		db.SetMaxOpenConns(connections)
		db.SetMaxIdleConns(connections)
		return db, nil
	}
	// Before SQLite does: it gives the files beside it (log, index) the mode of this one.
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	write, err := open(1, "journal_mode(WAL)")
	if err != nil {
		return nil, fmt.Errorf("open registry %s: %w", file, err)
	}
	r := &registry{write: write}
	if err := r.migrate(ctx); err != nil {
		_ = write.Close()
		return nil, fmt.Errorf("open registry %s: %w", file, err)
	}
	if r.read, err = open(4, "query_only(1)"); err != nil {
		_ = write.Close()
		return nil, fmt.Errorf("open registry %s: %w", file, err)
	}
	return r, nil
}

func (r *registry) close() error {
	return errors.Join(r.read.Close(), r.write.Close())
}

// migrate applies the schema files that the database has not seen, in the order of their names.
func (r *registry) migrate(ctx context.Context) error {
	return r.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (name VARCHAR(255) PRIMARY KEY)`); err != nil {
			return err
		}
		names, err := fs.Glob(schemaFiles, "schema/*.sql")
		if err != nil {
			return err
		}
		for _, name := range names {
			res, err := tx.ExecContext(ctx, `INSERT INTO schema_version (name) VALUES (?) ON CONFLICT (name) DO NOTHING`, name)
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil || n == 0 {
				if err != nil {
					return err
				}
				continue
			}
			statements, err := schemaFiles.ReadFile(name)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, string(statements)); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		var count int
		if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM schema_version`).Scan(&count); err != nil {
			return err
		}
		if count > len(names) {
			return errors.New("the registry was written by a newer version of this program; use that version")
		}
		return nil
	})
}

// change runs do in one transaction.
func (r *registry) change(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := r.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.Commit()
}

// queryer is a connection pool or a transaction.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

const identityColumns = `id, secret, type, affiliation, attributes, enrolled, max_enrollments, failed_logins, revoked`

func scanIdentity(row interface{ Scan(...any) error }) (*identity, error) {
	var (
		i       identity
		attrs   string
		revoked int64
	)
	if err := row.Scan(&i.id, &i.secret, &i.typ, &i.affiliation, &attrs, &i.enrolled, &i.maxEnrollments, &i.failedLogins, &revoked); err != nil {
		return nil, err
	}
	if err := json.Unmarshal([]byte(attrs), &i.attributes); err != nil {
		return nil, fmt.Errorf("attributes of identity %q: %w", i.id, err)
	}
	i.revoked = revoked != 0
	return &i, nil
}

// identity returns nil without an error when there is none.
func (r *registry) identity(ctx context.Context, id string) (*identity, error) {
	return getIdentity(ctx, r.read, id)
}

func getIdentity(ctx context.Context, q queryer, id string) (*identity, error) {
	i, err := scanIdentity(q.QueryRowContext(ctx, `SELECT `+identityColumns+` FROM identities WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return i, err
}

// identities lists those at or below affiliation with IDs after the given one, in order of ID. The page
// ends by itself, so that a slow reader of the answer holds no connection.
func (r *registry) identities(ctx context.Context, affiliation, after string, limit int) ([]*identity, error) {
	where, args := below("affiliation", affiliation)
	return selectIdentities(ctx, r.read, `WHERE id > ? AND `+where+` ORDER BY id LIMIT ?`, append(append([]any{after}, args...), limit)...)
}

func selectIdentities(ctx context.Context, q queryer, rest string, args ...any) ([]*identity, error) {
	rows, err := q.QueryContext(ctx, `SELECT `+identityColumns+` FROM identities `+rest, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*identity
	for rows.Next() {
		i, err := scanIdentity(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, rows.Err()
}

// below is the condition that a dotted name is root or under it. A range serves instead of LIKE, whose
// wildcards may stand in a name: '/' is the byte after '.'.
func below(column, root string) (string, []any) {
	if root == "" {
		return "1 = 1", nil
	}
	return "(" + column + " = ? OR (" + column + " > ? AND " + column + " < ?))", []any{root, root + ".", root + "/"}
}

// addIdentity reports whether the ID was free.
func addIdentity(ctx context.Context, tx *sql.Tx, i *identity, now time.Time) (bool, error) {
	attrs, err := json.Marshal(i.attributes)
	if err != nil {
		return false, err
	}
	res, err := tx.ExecContext(ctx, `INSERT INTO identities (id, secret, type, affiliation, attributes, max_enrollments, created)
		VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
		i.id, i.secret, i.typ, i.affiliation, string(attrs), i.maxEnrollments, now.UnixMilli())
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// updateIdentity stores what a registrar may change.
func updateIdentity(ctx context.Context, tx *sql.Tx, i *identity) error {
	attrs, err := json.Marshal(i.attributes)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE identities SET secret = ?, type = ?, affiliation = ?, attributes = ?, max_enrollments = ?, failed_logins = ? WHERE id = ?`,
		i.secret, i.typ, i.affiliation, string(attrs), i.maxEnrollments, i.failedLogins, i.id)
	return err
}

// removeIdentity also revokes what it was issued.
func removeIdentity(ctx context.Context, tx *sql.Tx, id string, reason int, now time.Time) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM identities WHERE id = ?`, id); err != nil {
		return err
	}
	_, err := revokeAll(ctx, tx, id, reason, now)
	return err
}

func (r *registry) loginFailed(ctx context.Context, id string) error {
	_, err := r.write.ExecContext(ctx, `UPDATE identities SET failed_logins = failed_logins + 1 WHERE id = ?`, id)
	return err
}

// recordEnrollment uses up one enrollment of the secret, if there is one left, and stores the certificate,
// together: a certificate that was not recorded is never handed out, and could not be revoked. The secret
// must still be the one that was checked.
func (r *registry) recordEnrollment(ctx context.Context, i *identity, limit int, c *certificate) error {
	return r.change(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE identities SET enrolled = enrolled + 1, failed_logins = 0
			WHERE id = ? AND secret = ? AND revoked = 0 AND (? = -1 OR enrolled < ?)`, i.id, i.secret, limit, limit)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil {
			return err
		}
		if n == 0 {
			return unauthenticated(codeInvalidPass, "identity %q was changed, or used up its %d enrollments, meanwhile", i.id, limit)
		}
		return addCertificate(ctx, tx, c)
	})
}

func addCertificate(ctx context.Context, tx *sql.Tx, c *certificate) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO certificates (aki, serial, id, profile, issued, expires, pem) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		c.aki, c.serial, c.id, c.profile, c.issued.UnixMilli(), c.expires.UnixMilli(), c.pem)
	return err
}

const certificateColumns = `aki, serial, id, profile, issued, expires, revoked, reason, pem`

func scanCertificate(row interface{ Scan(...any) error }) (*certificate, error) {
	var (
		c                        certificate
		issued, expires, revoked int64
	)
	if err := row.Scan(&c.aki, &c.serial, &c.id, &c.profile, &issued, &expires, &revoked, &c.reason, &c.pem); err != nil {
		return nil, err
	}
	c.issued, c.expires = time.UnixMilli(issued), time.UnixMilli(expires)
	if revoked != 0 {
		c.revoked = time.UnixMilli(revoked)
	}
	return &c, nil
}

// certificate returns nil without an error when there is none.
func (r *registry) certificate(ctx context.Context, aki, serial string) (*certificate, error) {
	c, err := scanCertificate(r.read.QueryRowContext(ctx, `SELECT `+certificateColumns+` FROM certificates WHERE aki = ? AND serial = ?`, aki, serial))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return c, err
}

// certificateFilter selects certificates; zero fields select all.
type certificateFilter struct {
	id, aki, serial              string
	affiliation                  string // of the identity, at or below
	notRevoked, notExpired       bool
	revokedStart, revokedEnd     time.Time
	expiredStart, expiredEnd     time.Time
	onlyRevoked                  bool
	afterAKI, afterSerial        string // page: what follows this row
	limit                        int
	exclusiveStart, exclusiveEnd bool // the time bounds themselves do not match
}

func (r *registry) certificates(ctx context.Context, f certificateFilter, now time.Time) ([]*certificate, error) {
	var (
		where []string
		args  []any
	)
	and := func(condition string, values ...any) {
		where = append(where, condition)
		args = append(args, values...)
	}
	from, to := ">=", "<="
	if f.exclusiveStart {
		from = ">"
	}
	if f.exclusiveEnd {
		to = "<"
	}
	and(`(aki > ? OR (aki = ? AND serial > ?))`, f.afterAKI, f.afterAKI, f.afterSerial)
	if f.affiliation != "" {
		condition, values := below("affiliation", f.affiliation)
		and(`id IN (SELECT id FROM identities WHERE `+condition+`)`, values...)
	}
	if f.id != "" {
		and(`id = ?`, f.id)
	}
	if f.aki != "" {
		and(`aki = ?`, f.aki)
	}
	if f.serial != "" {
		and(`serial = ?`, f.serial)
	}
	if f.notRevoked {
		and(`revoked = 0`)
	}
	if f.onlyRevoked || !f.revokedStart.IsZero() || !f.revokedEnd.IsZero() {
		and(`revoked <> 0`)
	}
	if !f.revokedStart.IsZero() {
		and(`revoked `+from+` ?`, f.revokedStart.UnixMilli())
	}
	if !f.revokedEnd.IsZero() {
		and(`revoked `+to+` ?`, f.revokedEnd.UnixMilli())
	}
	if f.notExpired {
		and(`expires >= ?`, now.UnixMilli())
	}
	if !f.expiredStart.IsZero() {
		and(`expires `+from+` ?`, f.expiredStart.UnixMilli())
	}
	if !f.expiredEnd.IsZero() {
		and(`expires `+to+` ?`, f.expiredEnd.UnixMilli())
	}
	return selectCertificates(ctx, r.read, strings.Join(where, " AND ")+` ORDER BY aki, serial LIMIT ?`, append(args, f.limit)...)
}

func selectCertificates(ctx context.Context, q queryer, where string, args ...any) ([]*certificate, error) {
	rows, err := q.QueryContext(ctx, `SELECT `+certificateColumns+` FROM certificates WHERE `+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []*certificate
	for rows.Next() {
		c, err := scanCertificate(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, rows.Err()
}

// revokeOne reports whether the certificate was still good.
func (r *registry) revokeOne(ctx context.Context, aki, serial string, reason int, now time.Time) (bool, error) {
	res, err := r.write.ExecContext(ctx, `UPDATE certificates SET revoked = ?, reason = ? WHERE aki = ? AND serial = ? AND revoked = 0`,
		now.UnixMilli(), reason, aki, serial)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// revokeIdentity bars the identity for good, and returns what was revoked with it.
func (r *registry) revokeIdentity(ctx context.Context, id string, reason int, now time.Time) ([]*certificate, error) {
	var certs []*certificate
	err := r.change(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `UPDATE identities SET revoked = ? WHERE id = ? AND revoked = 0`, now.UnixMilli(), id); err != nil {
			return err
		}
		var err error
		certs, err = revokeAll(ctx, tx, id, reason, now)
		return err
	})
	return certs, err
}

func revokeAll(ctx context.Context, tx *sql.Tx, id string, reason int, now time.Time) ([]*certificate, error) {
	certs, err := selectCertificates(ctx, tx, `id = ? AND revoked = 0 ORDER BY aki, serial`, id)
	if err != nil {
		return nil, err
	}
	_, err = tx.ExecContext(ctx, `UPDATE certificates SET revoked = ?, reason = ? WHERE id = ? AND revoked = 0`, now.UnixMilli(), reason, id)
	return certs, err
}

// affiliations lists root and what is under it; all when root is empty.
func affiliations(ctx context.Context, q queryer, root string) ([]string, error) {
	where, args := below("name", root)
	rows, err := q.QueryContext(ctx, `SELECT name FROM affiliations WHERE `+where+` ORDER BY name`, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		out = append(out, name)
	}
	return out, rows.Err()
}

func hasAffiliation(ctx context.Context, q queryer, name string) (bool, error) {
	var n int
	err := q.QueryRowContext(ctx, `SELECT COUNT(*) FROM affiliations WHERE name = ?`, name).Scan(&n)
	return n > 0, err
}

// addAffiliation adds name and, with parents, all above it that are missing.
func addAffiliation(ctx context.Context, tx *sql.Tx, name string, parents bool) error {
	for i := range len(name) {
		if parents && name[i] == '.' {
			if err := addAffiliation(ctx, tx, name[:i], false); err != nil {
				return err
			}
		}
	}
	_, err := tx.ExecContext(ctx, `INSERT INTO affiliations (name) VALUES (?) ON CONFLICT (name) DO NOTHING`, name)
	return err
}
