package provision

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hansa-ledger/hansa/internal/provision/process"
)

// The supervisor of a network listens on a Unix socket in the network's folder,
// so that other commands can ask how it is and tell it to look again:
//
//	GET  /status     the processes, []process.Status
//	POST /reconcile  read network.yaml again and run what it says
//	POST /stop       stop every process and end
//
// Who may write to the folder may do so; there is no other access.

// socket is kept short: the path of a Unix socket may have 107 bytes.
func socket(dir string) (string, error) {
	path := filepath.Join(dir, "hansa.sock")
	if len(path) <= 100 {
		return path, nil
	}
	// A longer one is named relative to the working directory, if that is shorter.
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	relative, err := filepath.Rel(wd, path)
	if err != nil || len(relative) > 100 {
		return "", fmt.Errorf("the folder's path %s is too long for a socket; choose one below 90 characters", dir)
	}
	return relative, nil
}

// controlHandler serves the socket.
func controlHandler(s *process.Supervisor, reconcile func(context.Context) error, stop func()) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(s.Status(r.Context()))
	})
	mux.HandleFunc("POST /reconcile", func(w http.ResponseWriter, r *http.Request) {
		if err := reconcile(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("POST /stop", func(http.ResponseWriter, *http.Request) { stop() })
	return mux
}

// ErrNotRunning says that no supervisor runs the network.
var ErrNotRunning = errors.New("the network is not running")

// Control talks to the supervisor of a running network.
type Control struct {
	dir    string
	client *http.Client
}

// NewControl talks to the supervisor of the network in dir.
func NewControl(dir string) (*Control, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	path, err := socket(dir)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &Control{dir, &http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
}

func (c *Control) call(ctx context.Context, method, path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://hansa"+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := c.client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%s: %w; `hansa up --data %s` starts it", c.dir, ErrNotRunning, c.dir)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(string(bytes.TrimSpace(body)))
	}
	return body, err
}

// Status tells how the processes are.
func (c *Control) Status(ctx context.Context) ([]process.Status, error) {
	body, err := c.call(ctx, http.MethodGet, "/status")
	if err != nil {
		return nil, err
	}
	var all []process.Status
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("decode status: %w", err)
	}
	return all, nil
}

// Reconcile makes the supervisor run what network.yaml says now, and waits until it does.
func (c *Control) Reconcile(ctx context.Context) error {
	_, err := c.call(ctx, http.MethodPost, "/reconcile")
	return err
}

// Stop stops the network and waits until it has stopped.
func (c *Control) Stop(ctx context.Context) error {
	if _, err := c.call(ctx, http.MethodPost, "/stop"); err != nil {
		return err
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := c.call(ctx, http.MethodGet, "/status"); errors.Is(err, ErrNotRunning) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("the network has not stopped: %w", ctx.Err())
		}
	}
}
