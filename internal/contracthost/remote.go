package contracthost

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// remote keeps one contract as a service connected.
type remote struct {
	host        *Host
	packageID   string
	to          contractpackage.Connection
	credentials credentials.TransportCredentials

	ctx     context.Context
	stop    context.CancelFunc // ends the stream and the calls on it
	wake    chan struct{}      // a call waits: dial now
	retired chan struct{}      // closed: do not dial again
	once    sync.Once
}

func newRemote(h *Host, packageID string, to *contractpackage.Connection) (*remote, error) {
	r := &remote{host: h, packageID: packageID, to: *to, wake: make(chan struct{}, 1), retired: make(chan struct{})}
	if r.to.DialTimeout <= 0 {
		r.to.DialTimeout = h.cfg.StartTimeout
	}
	r.credentials = insecure.NewCredentials()
	if to.TLSRequired {
		cfg := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool(), ServerName: to.Domain}
		if !cfg.RootCAs.AppendCertsFromPEM([]byte(to.RootCert)) {
			return nil, fmt.Errorf("contract %s: root_cert of connection.json holds no PEM certificate", packageID)
		}
		if to.ClientAuthRequired {
			pair, err := tls.X509KeyPair([]byte(to.ClientCert), []byte(to.ClientKey))
			if err != nil {
				return nil, fmt.Errorf("contract %s: client_cert and client_key of connection.json: %w", packageID, err)
			}
			cfg.Certificates = []tls.Certificate{pair}
		}
		r.credentials = credentials.NewTLS(cfg)
	}
	r.ctx, r.stop = context.WithCancel(h.ctx)
	return r, nil
}

// kick cuts a pause between dials short.
func (r *remote) kick() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// retire lets the calls that run on the stream end, which they do within the execute timeout, and then ends the stream.
func (r *remote) retire() {
	r.once.Do(func() {
		close(r.retired)
		r.host.run.Go(func() {
			timer := time.NewTimer(r.host.cfg.ExecuteTimeout)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-r.ctx.Done():
			}
			r.stop()
		})
	})
}

// keepConnected dials, speaks, and dials again.
func (r *remote) keepConnected() {
	defer r.stop()
	pause := r.host.cfg.MinBackoff
	for {
		start := time.Now()
		err := r.connect()
		select {
		case <-r.ctx.Done():
			return
		case <-r.retired:
			return
		default:
		}
		r.host.unreachable(r, err)
		if time.Since(start) > r.host.cfg.MaxBackoff {
			pause = r.host.cfg.MinBackoff // it had been well
		}
		r.host.cfg.Log.Debug("contract as a service is not connected", "package", r.packageID, "address", r.to.Address, "retry_in", pause, "error", err)
		if !r.rest(pause) {
			return
		}
		pause = min(2*pause, r.host.cfg.MaxBackoff)
	}
}

// rest waits before the next dial: the full pause when nobody needs the contract, the shortest when a call waits. Half of it is drawn,
// so that many peers do not dial a restarted contract at the same moment.
func (r *remote) rest(pause time.Duration) bool {
	shortest := r.host.cfg.MinBackoff
	for i, wait := range []time.Duration{shortest, pause - shortest} {
		wait = wait/2 + rand.N(wait/2+1)
		wake := r.wake
		if i == 0 {
			wake = nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-wake:
			timer.Stop()
			return true
		case <-r.ctx.Done():
			timer.Stop()
			return false
		case <-r.retired:
			timer.Stop()
			return false
		}
	}
	return true
}

// connect is one stream from dial to end.
func (r *remote) connect() error {
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	// One gRPC connection for each stream: no second, hidden backoff.
	conn, err := grpc.NewClient("passthrough:///"+r.to.Address,
		grpc.WithTransportCredentials(r.credentials),
		grpc.WithNoProxy(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: 20 * time.Second, PermitWithoutStream: true}),
		grpc.WithInitialWindowSize(1<<20), grpc.WithInitialConnWindowSize(4<<20),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes)),
	)
	if err != nil {
		return fmt.Errorf("error creating grpc connection to %s: %w", r.to.Address, err)
	}
	defer conn.Close()
	late := time.AfterFunc(r.to.DialTimeout, func() {
		cancel(fmt.Errorf("contract at %s did not answer within %s", r.to.Address, r.to.DialTimeout))
	})
	defer late.Stop()
	st, err := peerpb.NewChaincodeClient(conn).Connect(ctx)
	if err != nil {
		return fmt.Errorf("error cannot create connection for %s: %w", r.packageID, errors.Join(context.Cause(ctx), err))
	}
	err = r.host.serve(ctx, st, r, func(id string) (*contract, error) {
		if !late.Stop() {
			return nil, context.Cause(ctx)
		}
		if id != r.packageID {
			return nil, fmt.Errorf("the contract at %s registered as %q instead of %q: set its CHAINCODE_ID to the package id", r.to.Address, id, r.packageID)
		}
		r.host.mu.Lock()
		defer r.host.mu.Unlock()
		c := r.host.contracts[id]
		if c == nil || c.remote != r {
			return nil, fmt.Errorf("contract package %s is no longer served at %s", id, r.to.Address)
		}
		return c, nil
	})
	if cause := context.Cause(ctx); cause != nil && r.ctx.Err() == nil {
		return cause
	}
	return err
}
