package node

import (
	"context"
	"errors"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"github.com/hansa-ledger/hansa/internal/ca"
)

// RunCA runs a certificate authority until ctx ends.
func RunCA(ctx context.Context, c CAConfig, level *slog.LevelVar, log *slog.Logger) (err error) {
	if err := require("ca", [2]string{"listen", c.Listen}, [2]string{"tls.cert", c.TLS.Cert}, [2]string{"tls.key", c.TLS.Key}); err != nil {
		return err
	}
	t, err := serverTLS(c.TLS)
	if err != nil {
		return err
	}
	t.NextProtos = nil // plain HTTPS
	authority, err := ca.Open(c.CA, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, authority.Close()) }()
	l, err := listen("CA", c.Listen)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	ops := &operations{level: level, check: authority.Ready}
	if err := ops.start(ctx, group, c.Operations, authority.Collectors()...); err != nil {
		l.Close()
		return err
	}
	group.Go(func() error { return serveHTTP(ctx, authority.Handler(), l, t) })
	ops.ready.Store(true)
	log.Info("serving", "name", authority.Name(), "address", l.Addr().String())
	return group.Wait()
}
