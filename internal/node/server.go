package node

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// How a node's gRPC servers treat connections: Fabric's defaults. Stock clients
// ping every minute, also without a call under way.
const (
	maxMessage      = 100 << 20
	minPingInterval = time.Minute / 2
	serverPing      = 2 * time.Hour
	pingTimeout     = 20 * time.Second
	stopGrace       = 3 * time.Second
	// Windows that do not change spare the measuring of each connection by pings. They bound what is read ahead of a slow reader.
	streamWindow     = 1 << 20
	connectionWindow = 4 << 20
)

// serverTLS reads a server's certificate and the roots of its clients.
func serverTLS(c TLSConfig) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate: %w", err)
	}
	t := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	if len(c.ClientRoots) == 0 {
		if c.RequireClientCert {
			return nil, errors.New("tls.requireClientCert needs tls.clientRoots")
		}
		// A client may still show a certificate: requests that name its hash are bound
		// to the connection by it.
		t.ClientAuth = tls.RequestClientCert
		return t, nil
	}
	t.ClientCAs = x509.NewCertPool()
	for _, file := range c.ClientRoots {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("tls.clientRoots: %w", err)
		}
		if !t.ClientCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("tls.clientRoots: %s holds no PEM certificate", file)
		}
	}
	t.ClientAuth = tls.VerifyClientCertIfGiven
	if c.RequireClientCert {
		t.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return t, nil
}

// newGRPCServer makes a server with a node's limits and panics contained.
func newGRPCServer(t *tls.Config, log *slog.Logger, options ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(t)),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(1 << 14),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(connectionWindow),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: serverPing, Timeout: pingTimeout}),
		grpc.ConnectionTimeout(10 * time.Second),
		// Goroutines that serve call after call keep their grown stacks.
		grpc.NumStreamWorkers(64),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
			defer contain(log, info.FullMethod, &err)
			return handler(ctx, request)
		}),
		grpc.ChainStreamInterceptor(func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
			defer contain(log, info.FullMethod, &err)
			return handler(server, stream)
		}),
	}, options...)...)
}

// contain turns a panic into an error of that call: one request that meets a
// defect must not stop a node that serves others.
func contain(log *slog.Logger, method string, err *error) {
	if p := recover(); p != nil {
		log.Error("panic in a call", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "internal error")
	}
}

// limit bounds the calls of a set of gRPC methods that run at once.
type limit struct {
	slots chan struct{}
	name  string
}

func newLimit(name string, n int) *limit { return &limit{make(chan struct{}, n), name} }

func (l *limit) enter() error {
	select {
	case l.slots <- struct{}{}:
		return nil
	default:
		return status.Errorf(codes.ResourceExhausted, "too many requests for %s, exceeding concurrency limit (%d)", l.name, cap(l.slots))
	}
}

func (l *limit) leave() { <-l.slots }

// limitUnary applies limits by full method name.
func limitUnary(limits map[string]*limit) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if l := limits[info.FullMethod]; l != nil {
			if err := l.enter(); err != nil {
				return nil, err
			}
			defer l.leave()
		}
		return handler(ctx, request)
	}
}

func limitStream(limits map[string]*limit) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if l := limits[info.FullMethod]; l != nil {
			if err := l.enter(); err != nil {
				return err
			}
			defer l.leave()
		}
		return handler(server, stream)
	}
}

// listen opens a TCP port and names it when it is taken.
func listen(what, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s port: %w; is another program using %s?", what, err, address)
	}
	return l, nil
}

// serveGRPC serves until ctx ends, then lets calls under way finish for a moment.
func serveGRPC(ctx context.Context, server *grpc.Server, l net.Listener) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		kill := time.AfterFunc(stopGrace, server.Stop)
		defer kill.Stop()
		server.GracefulStop()
	})
	err := server.Serve(l)
	if stop() { // Serve failed by itself
		return fmt.Errorf("serve gRPC on %s: %w", l.Addr(), err)
	}
	<-stopped
	return nil
}

// serveHTTP serves until ctx ends.
func serveHTTP(ctx context.Context, handler http.Handler, l net.Listener, t *tls.Config) error {
	server := &http.Server{Handler: handler, TLSConfig: t, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.Background(), stopGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	var err error
	if t != nil {
		err = server.ServeTLS(l, "", "")
	} else {
		err = server.Serve(l)
	}
	if stop() {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	<-stopped
	return nil
}

// certHash is the SHA-256 of a certificate's DER form: how requests name the TLS
// certificate that they come with.
func certHash(cert tls.Certificate) []byte {
	if len(cert.Certificate) == 0 {
		return nil
	}
	sum := sha256.Sum256(cert.Certificate[0])
	return sum[:]
}

// metricsRegistry holds a node's metrics beside those of the Go runtime and process.
func metricsRegistry(own ...prometheus.Collector) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(own...)
	return registry
}

func metricsHandler(r *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}
