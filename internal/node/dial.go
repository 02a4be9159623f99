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

// connections are a node's connections to other nodes, shared by everything in
// the process. The node shows its own certificate.
type connections struct {
	cert tls.Certificate

	mu   sync.Mutex
	open map[target]*grpc.ClientConn // guarded by mu
}

// target is an address with the authorities that its certificate may come from.
// Channels may know a node by others, and members may claim one address: neither
// must cut the other's connection. One that is not used any more goes idle.
type target struct{ address, roots string }

func newConnections(cert tls.Certificate) *connections {
	return &connections{cert: cert, open: map[target]*grpc.ClientConn{}}
}

// Dial returns the connection to an address whose certificate comes from roots.
func (c *connections) Dial(address string, roots [][]byte) (*grpc.ClientConn, error) {
	joined := bytes.Join(roots, []byte("\n"))
	to := target{address, string(joined)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if existing := c.open[to]; existing != nil {
		return existing, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(joined) {
		return nil, fmt.Errorf("connect to %s: the channel's configuration has no TLS root certificate for it", address)
	}
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{c.cert}, MinVersion: tls.VersionTLS12})),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 3 * time.Second,
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second}}),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connectionWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute, Timeout: pingTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	c.open[to] = conn
	return conn, nil
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.open {
		conn.Close()
	}
}
