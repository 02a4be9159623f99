package contract

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/hansa-ledger/hansa/contract/internal/shim"
)

// Config is the manual of a contract process.
type Config struct {
	// ID is the id of the installed package: label:hash.
	ID string
	// Address is where to listen for peers: host:port. Either this or PeerAddress is needed.
	Address string
	// PeerAddress is the peer to dial: the chaincode address of a peer that runs classic contracts.
	PeerAddress string
	// TLS is nil for plain connections, which belong on a machine's loopback or inside a pod only.
	TLS *tls.Config
	// Log receives what happens to the process. Nil discards it.
	Log *slog.Logger
}

// Run serves contracts as the environment says, until the context ends. These are the variables of Fabric's samples and shims:
//
//	CHAINCODE_ID, CORE_CHAINCODE_ID_NAME  the package id (either)
//	CHAINCODE_SERVER_ADDRESS              listen there, as a service, with
//	  CHAINCODE_TLS_DISABLED              "true", or nothing, for no TLS; otherwise
//	  CHAINCODE_TLS_KEY, CHAINCODE_TLS_CERT, CHAINCODE_CLIENT_CA_CERT   files; the last, if set, is who must have issued peers' certificates
//	CORE_PEER_ADDRESS                     dial the peer, with
//	  CORE_PEER_TLS_ENABLED               "true", and then
//	  CORE_TLS_CLIENT_KEY_FILE, CORE_TLS_CLIENT_CERT_FILE, CORE_PEER_TLS_ROOTCERT_FILE   files; the first two also as
//	  CORE_TLS_CLIENT_KEY_PATH, CORE_TLS_CLIENT_CERT_PATH                                files in base64
//
// A peer's address may also be given by the argument -peer.address (or --peer.address), as Fabric's peers do.
func Run(ctx context.Context, contracts ...*Contract) error {
	cfg, err := ConfigFromEnvironment(os.Getenv, os.Args[1:])
	if err != nil {
		return err
	}
	cfg.Log = slog.New(slog.NewJSONHandler(os.Stderr, nil))
	return Serve(ctx, *cfg, contracts...)
}

// Serve serves contracts until the context ends. As a service it listens; otherwise it keeps a connection to the peer.
func Serve(ctx context.Context, cfg Config, contracts ...*Contract) error {
	switch {
	case cfg.ID == "":
		return errors.New("contract: the package id is not set: give Config.ID, or CHAINCODE_ID in the environment")
	case (cfg.Address == "") == (cfg.PeerAddress == ""):
		return errors.New("contract: give either an address to listen at (CHAINCODE_SERVER_ADDRESS) or a peer's to dial (CORE_PEER_ADDRESS)")
	}
	if cfg.Address != "" {
		l, err := net.Listen("tcp", cfg.Address)
		if err != nil {
			return fmt.Errorf("contract: %w", err)
		}
		return ServeOn(ctx, l, cfg, contracts...)
	}
	program, err := cfg.program(contracts)
	if err != nil {
		return err
	}
	pause := time.Second
	for {
		start := time.Now()
		err := program.Join(ctx, cfg.PeerAddress, cfg.TLS)
		if err == nil {
			return nil
		}
		if time.Since(start) > time.Minute {
			pause = time.Second
		}
		program.Log.Warn("no connection to the peer", "peer", cfg.PeerAddress, "retry_in", pause, "error", err)
		select {
		case <-time.After(pause):
			pause = min(2*pause, 30*time.Second)
		case <-ctx.Done():
			return nil
		}
	}
}

// ServeOn serves contracts as a service on a listener, which it closes.
func ServeOn(ctx context.Context, l net.Listener, cfg Config, contracts ...*Contract) error {
	program, err := cfg.program(contracts)
	if err != nil {
		l.Close()
		return err
	}
	program.Log.Info("contract is listening", "address", l.Addr().String(), "package", cfg.ID)
	return program.Serve(ctx, l, cfg.TLS)
}

func (cfg Config) program(contracts []*Contract) (*shim.Program, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p, err := NewProcess(cfg.Log, contracts...)
	if err != nil {
		return nil, err
	}
	return &shim.Program{ID: cfg.ID, Handle: p.Handle, Log: cfg.Log}, nil
}

// ConfigFromEnvironment reads what Run documents.
func ConfigFromEnvironment(getenv func(string) string, args []string) (*Config, error) {
	cfg := &Config{ID: getenv("CHAINCODE_ID"), Address: getenv("CHAINCODE_SERVER_ADDRESS"), PeerAddress: getenv("CORE_PEER_ADDRESS")}
	if cfg.ID == "" {
		cfg.ID = getenv("CORE_CHAINCODE_ID_NAME")
	}
	for i, arg := range args {
		for _, name := range []string{"-peer.address", "--peer.address"} {
			if arg == name && i+1 < len(args) {
				cfg.PeerAddress = args[i+1]
			} else if len(arg) > len(name) && arg[:len(name)+1] == name+"=" {
				cfg.PeerAddress = arg[len(name)+1:]
			}
		}
	}
	var err error
	if cfg.Address != "" {
		cfg.PeerAddress = "" // a service does not dial, whatever else is set on its machine
		cfg.TLS, err = serviceTLS(getenv)
	} else {
		cfg.TLS, err = peerTLS(getenv)
	}
	return cfg, err
}

func serviceTLS(getenv func(string) string) (*tls.Config, error) {
	off, err := flag(getenv, "CHAINCODE_TLS_DISABLED", true)
	if off || err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(getenv("CHAINCODE_TLS_CERT"), getenv("CHAINCODE_TLS_KEY"))
	if err != nil {
		return nil, fmt.Errorf("CHAINCODE_TLS_CERT and CHAINCODE_TLS_KEY: %w", err)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if file := getenv("CHAINCODE_CLIENT_CA_CERT"); file != "" {
		cfg.ClientAuth = tls.RequireAndVerifyClientCert
		cfg.ClientCAs, err = pool("CHAINCODE_CLIENT_CA_CERT", file)
	}
	return cfg, err
}

func peerTLS(getenv func(string) string) (*tls.Config, error) {
	on, err := flag(getenv, "CORE_PEER_TLS_ENABLED", false)
	if !on || err != nil {
		return nil, err
	}
	read := func(name string) ([]byte, error) {
		if file := getenv(name + "_FILE"); file != "" {
			return os.ReadFile(file)
		}
		file := getenv(name + "_PATH")
		if file == "" {
			return nil, fmt.Errorf("%s_FILE is not set", name)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		raw, err := base64.StdEncoding.DecodeString(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s_PATH: %s is not base64: %w", name, file, err)
		}
		return raw, nil
	}
	key, err := read("CORE_TLS_CLIENT_KEY")
	if err != nil {
		return nil, err
	}
	certificate, err := read("CORE_TLS_CLIENT_CERT")
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("CORE_TLS_CLIENT_CERT and CORE_TLS_CLIENT_KEY: %w", err)
	}
	roots, err := pool("CORE_PEER_TLS_ROOTCERT_FILE", getenv("CORE_PEER_TLS_ROOTCERT_FILE"))
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: roots}, err
}

func flag(getenv func(string) string, name string, unless bool) (bool, error) {
	text := getenv(name)
	if text == "" {
		return unless, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%s is %q; it must be true or false", name, text)
	}
	return on, nil
}

func pool(name, file string) (*x509.CertPool, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	certificates := x509.NewCertPool()
	if !certificates.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%s: %s holds no PEM certificate", name, file)
	}
	return certificates, nil
}
