package ca

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Cost of one password hash: OWASP's first choice for argon2id, about 20 ms.
const (
	argonTime    = 2
	argonMemory  = 19 << 10 // KiB
	argonThreads = 1
	argonBytes   = 32
)

// hasher computes password hashes, on at most all processors but one at a time, so that a flood of logins
// costs bounded memory and leaves the token-authenticated calls running.
type hasher struct {
	running chan struct{}
	queue   chan struct{} // those that wait, and those that run
}

func newHasher(queued int) *hasher {
	n := max(1, runtime.GOMAXPROCS(0)-1)
	return &hasher{running: make(chan struct{}, n), queue: make(chan struct{}, n+queued)}
}

// do runs f in its turn.
func (h *hasher) do(ctx context.Context, f func()) error {
	select {
	case h.queue <- struct{}{}:
		defer func() { <-h.queue }()
	default:
		return errBusy()
	}
	select {
	case h.running <- struct{}{}:
		defer func() { <-h.running }()
	case <-ctx.Done():
		return ctx.Err()
	}
	f()
	return nil
}

func errBusy() *fault {
	return refuse(http.StatusServiceUnavailable, codeUnknown, "The certificate authority is busy; try again in a moment")
}

// hash returns the stored form of a secret.
func (h *hasher) hash(ctx context.Context, secret string) (string, error) {
	salt := make([]byte, 16)
	// crypto/rand.Read never fails: it stops the program instead.
	_, _ = rand.Read(salt)
	var sum []byte
	err := h.do(ctx, func() {
		sum = argon2.IDKey([]byte(secret), salt, argonTime, argonMemory, argonThreads, argonBytes)
	})
	if err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		b64.EncodeToString(salt), b64.EncodeToString(sum)), nil
}

// matches compares a secret with its stored form. An empty stored form matches nothing, and takes as long
// as any other, so that the answer's time does not tell which identities exist.
func (h *hasher) matches(ctx context.Context, secret, stored string) (bool, error) {
	p := storedHash{time: argonTime, memory: argonMemory, threads: argonThreads, salt: make([]byte, 16), sum: make([]byte, argonBytes)}
	usable := stored != ""
	if usable {
		var err error
		if p, err = parseHash(stored); err != nil {
			return false, err
		}
	}
	var sum []byte
	err := h.do(ctx, func() {
		sum = argon2.IDKey([]byte(secret), p.salt, p.time, p.memory, p.threads, uint32(len(p.sum)))
	})
	return err == nil && usable && subtle.ConstantTimeCompare(sum, p.sum) == 1, err
}

type storedHash struct {
	time, memory uint32
	threads      uint8
	salt, sum    []byte
}

func parseHash(s string) (storedHash, error) {
	var p storedHash
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, errors.New("the registry holds a password hash of an unknown kind")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.threads); err != nil {
		return p, fmt.Errorf("password hash in the registry: %w", err)
	}
	var saltErr, sumErr error
	p.salt, saltErr = base64.RawStdEncoding.DecodeString(parts[4])
	p.sum, sumErr = base64.RawStdEncoding.DecodeString(parts[5])
	if err := errors.Join(saltErr, sumErr); err != nil {
		return p, fmt.Errorf("password hash in the registry: %w", err)
	}
	return p, nil
}

// newSecret is a password for an identity registered without one: 26 letters and digits, 130 bits.
func newSecret() string { return rand.Text() }
