package node

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// connections are a node's connections to other nodes, one for each address,
// shared by everything in the process. The node shows its own certificate.
type connections struct {
	cert tls.Certificate

	mu   sync.Mutex
	open map[string]*connection // by address, guarded by mu
}

type connection struct {
	*grpc.ClientConn
	roots []byte
}

func newConnections(cert tls.Certificate) *connections {
	return &connections{cert: cert, open: map[string]*connection{}}
}

// Dial returns the connection to address. Other roots than before, after the
// channel's configuration changed, make a new one.
func (c *connections) Dial(address string, roots [][]byte) (*grpc.ClientConn, error) {
	joined := bytes.Join(roots, []byte("\n"))
	c.mu.Lock()
	defer c.mu.Unlock()
	if existing := c.open[address]; existing != nil {
		if bytes.Equal(existing.roots, joined) {
			return existing.ClientConn, nil
		}
		existing.Close()
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(joined) {
		return nil, fmt.Errorf("connect to %s: the channel's configuration has no TLS root certificate for it", address)
	}
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{c.cert}, MinVersion: tls.VersionTLS12})),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 3 * time.Second,
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: pingTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	c.open[address] = &connection{conn, joined}
	return conn, nil
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		conn.Close()
	}
}
