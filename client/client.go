// Package client is for applications: it submits transactions to contracts and
// follows their results over the Gateway service of a Hansa peer, or of any
// Hyperledger Fabric peer from v2.4 on.
//
// A Client is one connection used by one Identity; Channel and Contract are
// light handles of it. Submit does the whole way of a transaction: propose,
// endorse, sign, order, and wait until it is committed. The steps are there one
// by one too, for offline signing and for many transactions in flight.
//
// Nothing here registers Hyperledger's protobuf names, so the package can stand
// in one program with Hyperledger's own modules. Open client.go for
// connections, contract.go for transactions, events.go for events, errors.go for
// what can go wrong.
package client

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
)

// Identity signs for one member's client.
type Identity interface {
	// Serialize returns the bytes of an msp.SerializedIdentity.
	Serialize() []byte
	// Sign signs a whole message, which it hashes itself.
	Sign(message []byte) ([]byte, error)
	// MSPID names the member.
	MSPID() string
}

// NewIdentity joins a PEM certificate with its private key (ECDSA P-256 or
// P-384, or Ed25519); the key may live in an HSM or KMS.
func NewIdentity(mspID string, certPEM []byte, key crypto.Signer) (Identity, error) {
	return envelope.NewKeySigner(mspID, certPEM, key)
}

// LoadIdentity reads an MSP folder: the first file in signcerts, the first in keystore.
func LoadIdentity(mspID, mspDir string) (Identity, error) {
	certPEM, err := firstFile(filepath.Join(mspDir, "signcerts"))
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	keyPEM, err := firstFile(filepath.Join(mspDir, "keystore"))
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	key, err := envelope.ParseKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("load identity from %s: %w", mspDir, err)
	}
	return envelope.NewKeySigner(mspID, certPEM, key)
}

func firstFile(dir string) ([]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if !e.IsDir() {
			return os.ReadFile(filepath.Join(dir, e.Name()))
		}
	}
	return nil, fmt.Errorf("%s holds no file", dir)
}

// Config says where and as whom to connect.
type Config struct {
	Endpoint string   // host:port of a peer
	Identity Identity // required

	// TLSRoots are PEM certificates of the CAs that the peer's certificate may come
	// from; empty means no TLS.
	TLSRoots []byte
	// ServerName, if set, is the name that the peer's certificate must carry
	// instead of the endpoint's host.
	ServerName string
	// TLSCertificate is shown to peers that ask for mutual TLS.
	TLSCertificate *tls.Certificate

	// Limits of one step each; zero means the default.
	EvaluateTimeout time.Duration // 5 s
	EndorseTimeout  time.Duration // 15 s
	SubmitTimeout   time.Duration // 5 s
	CommitTimeout   time.Duration // 1 min
}

// The defaults of the stock Fabric Gateway SDKs.
const (
	defaultEvaluateTimeout = 5 * time.Second
	defaultEndorseTimeout  = 15 * time.Second
	defaultSubmitTimeout   = 5 * time.Second
	defaultCommitTimeout   = time.Minute

	maxMessage = 100 << 20 // what Fabric's peers send at most
)

// Client is a connection to a Gateway. It is safe for concurrent use.
type Client struct {
	config  Config
	conn    *grpc.ClientConn
	gateway gatewaypb.GatewayClient
}

// Dial prepares a connection; it is made at the first call and remade after failures.
func Dial(c Config) (*Client, error) {
	if c.Endpoint == "" || c.Identity == nil {
		return nil, errors.New("client: Config needs Endpoint and Identity")
	}
	setDefault(&c.EvaluateTimeout, defaultEvaluateTimeout)
	setDefault(&c.EndorseTimeout, defaultEndorseTimeout)
	setDefault(&c.SubmitTimeout, defaultSubmitTimeout)
	setDefault(&c.CommitTimeout, defaultCommitTimeout)
	transport := insecure.NewCredentials()
	if len(c.TLSRoots) > 0 {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(c.TLSRoots) {
			return nil, errors.New("client: Config.TLSRoots holds no PEM certificate")
		}
		t := &tls.Config{RootCAs: roots, ServerName: c.ServerName, MinVersion: tls.VersionTLS12}
		if c.TLSCertificate != nil {
			t.Certificates = []tls.Certificate{*c.TLSCertificate}
		}
		transport = credentials.NewTLS(t)
	}
	conn, err := grpc.NewClient(c.Endpoint,
		grpc.WithTransportCredentials(transport),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 2 * time.Minute}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return &Client{c, conn, gatewaypb.NewGatewayClient(conn)}, nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// Close ends the connection; calls in flight fail.
func (c *Client) Close() error { return c.conn.Close() }

// Channel is a channel as this client sees it.
func (c *Client) Channel(id string) *Channel { return &Channel{c, id} }

// Channel is a handle of one channel.
type Channel struct {
	client *Client
	id     string
}

// ID is the name of the channel.
func (ch *Channel) ID() string { return ch.id }

// Contract is the contract installed under a name on the channel.
func (ch *Channel) Contract(name string) *Contract { return &Contract{ch, name} }

// limited derives a context with the step's limit, unless the caller's ends earlier.
func limited(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, limit)
}
