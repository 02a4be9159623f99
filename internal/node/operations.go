package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// operations is the port for health checks, metrics and diagnosis:
//
//	GET /healthz   200 while the process works
//	GET /readyz    200 once it serves
//	GET /metrics   Prometheus
//	GET /version   what runs here
//	GET, PUT /logspec  the log level, in Fabric's form
//	GET /debug/pprof/  profiles
type operations struct {
	level *slog.LevelVar
	ready atomic.Bool
	check func(context.Context) error // nil: healthy while it answers
}

// start serves in group until ctx ends, if a port is configured.
func (o *operations) start(ctx context.Context, group *errgroup.Group, c OperationsConfig, own ...prometheus.Collector) error {
	if c.Listen == "" {
		return nil
	}
	l, err := listen("operations", c.Listen)
	if err != nil {
		return err
	}
	handler := o.handler(metricsRegistry(own...))
	var t *tls.Config
	if c.TLS.Cert != "" {
		if t, err = serverTLS(c.TLS); err != nil {
			return errors.Join(fmt.Errorf("operations: %w", err), l.Close())
		}
		t.NextProtos = nil // plain HTTPS
		handler = onlyKnown(handler)
	}
	group.Go(func() error { return serveHTTP(ctx, handler, l, t) })
	return nil
}

// onlyKnown is for a port with TLS, as in Fabric: what tells more than whether the node works, or changes something, needs a
// certificate of the clients' authorities.
func onlyKnown(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/healthz", "/readyz", "/version":
		default:
			if len(r.TLS.VerifiedChains) == 0 {
				http.Error(w, "a client certificate of operations.tls.clientRoots is wanted", http.StatusUnauthorized)
				return
			}
		}
		handler.ServeHTTP(w, r)
	})
}

func (o *operations) handler(registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { o.health(w, r, true) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { o.health(w, r, o.ready.Load()) })
	mux.Handle("GET /metrics", metricsHandler(registry))
	mux.HandleFunc("/version", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			writeJSON(w, http.StatusBadRequest, map[string]string{"Error": "invalid request method: " + r.Method})
			return
		}
		writeJSON(w, http.StatusOK, Version())
	})
	mux.Handle("/logspec", &logSpec{level: o.level})
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

func (o *operations) health(w http.ResponseWriter, r *http.Request, ready bool) {
	body := map[string]any{"status": "OK", "time": time.Now().UTC()}
	var err error
	if o.check != nil {
		err = o.check(r.Context())
	}
	if !ready && err == nil {
		err = errors.New("starting")
	}
	if err != nil {
		body["status"], body["failed_checks"] = "Service Unavailable", []map[string]string{{"reason": err.Error()}}
		writeJSON(w, http.StatusServiceUnavailable, body)
		return
	}
	writeJSON(w, http.StatusOK, body)
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}

// Version describes the binary: release, commit and Go version.
func Version() map[string]string {
	v := map[string]string{"Version": "dev"}
	if info, ok := debug.ReadBuildInfo(); ok {
		v["GoVersion"] = info.GoVersion
		if info.Main.Version != "" && info.Main.Version != "(devel)" {
			v["Version"] = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v["CommitSHA"] = s.Value
			}
		}
	}
	return v
}
