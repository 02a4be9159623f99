package site

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/internal/admin"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
)

// Run starts every node, joins them to the channel and puts the contract on it.
func (s *Site) Run(ctx context.Context) error {
	pkg, err := s.contractPackage()
	if err != nil {
		return err
	}
	label, _, _ := strings.Cut(pkg.id, ":")
	for _, n := range s.Nodes() {
		n.command = func() *exec.Cmd { return n.Host.Command(s.cfg.Binary, string(n.Role), "--config", n.config()) }
		if n.Role == contract {
			n.command = func() *exec.Cmd {
				c := n.Host.Command(s.cfg.Contract[0], s.cfg.Contract[1:]...)
				c.Env = append([]string{"CHAINCODE_SERVER_ADDRESS=" + net.JoinHostPort(n.Host.IP, serverPort), "CHAINCODE_ID=" + pkg.id, "CHAINCODE_TLS_DISABLED=true"}, s.cfg.ContractEnv...)
				return c
			}
		}
		if err := n.Start(); err != nil {
			return fmt.Errorf("start %s: %w", n.Name, err)
		}
	}
	for _, n := range s.Nodes() {
		if err := n.Await(ctx); err != nil {
			return fmt.Errorf("%s does not start: %w: %s", n.Name, err, n.lastLine())
		}
	}
	for _, n := range s.Orderers {
		if err := s.joinOrderer(ctx, n); err != nil {
			return fmt.Errorf("join %s: %w", n.Name, err)
		}
	}
	for _, n := range s.Peers {
		if err := s.joinPeer(ctx, n, pkg.raw); err != nil {
			return fmt.Errorf("join %s: %w", n.Name, err)
		}
	}
	return s.define(ctx, label, pkg.id)
}

func (s *Site) joinPeer(ctx context.Context, n *Node, pkg []byte) error {
	id, err := n.member.identity("Admin")
	if err != nil {
		return err
	}
	roots, err := os.ReadFile(n.member.org.TLSRoot())
	if err != nil {
		return err
	}
	peer, err := admin.DialPeer(n.Address(), roots, id)
	if err != nil {
		return err
	}
	defer peer.Close()
	if err := peer.JoinChannel(ctx, s.genesis); err != nil {
		return err
	}
	_, err = peer.Install(ctx, pkg)
	return err
}

// define makes the contract the channel's. One member's endorsement is enough: the service must go on with one peer.
func (s *Site) define(ctx context.Context, label, packageID string) error {
	definition := admin.Definition{Name: Contract, Version: "1", Sequence: 1, Policy: fmt.Sprintf("OR('%s.peer','%s.peer')", s.Peers[0].member.mspID, s.Peers[1].member.mspID)}
	var ids []string
	var channels []*client.Channel
	for _, n := range s.Peers {
		c, err := s.Client(n, "Admin")
		if err != nil {
			return err
		}
		defer c.Close()
		ch := c.Channel(Channel)
		if err := until(ctx, func() error { return admin.Approve(ctx, ch, n.member.mspID, definition, packageID) }); err != nil {
			return fmt.Errorf("approve %s: %w", label, err)
		}
		ids, channels = append(ids, n.member.mspID), append(channels, ch)
	}
	if err := admin.Commit(ctx, channels[0], ids, definition); err != nil {
		return err
	}
	for _, ch := range channels {
		if err := until(ctx, func() error {
			committed, err := admin.Committed(ctx, ch)
			if err == nil && len(committed) == 0 {
				err = fmt.Errorf("no contract is committed")
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

type installable struct {
	id  string
	raw []byte
}

func (s *Site) contractPackage() (*installable, error) {
	connection, err := json.Marshal(map[string]any{"address": net.JoinHostPort(s.Service.Host.IP, serverPort), "dial_timeout": "2s", "tls_required": false})
	if err != nil {
		return nil, err
	}
	code, err := contractpackage.WriteCode(map[string][]byte{"connection.json": connection})
	if err != nil {
		return nil, err
	}
	raw, err := contractpackage.Write(contractpackage.Metadata{Type: "ccaas", Label: Contract + "_1"}, code)
	if err != nil {
		return nil, err
	}
	return &installable{contractpackage.ID(Contract+"_1", raw), raw}, nil
}

// Client connects to a peer as one of its member's people.
func (s *Site) Client(n *Node, user string) (*client.Client, error) {
	id, err := n.member.identity(user)
	if err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(n.member.org.TLSRoot())
	if err != nil {
		return nil, err
	}
	return client.Dial(client.Config{Endpoint: n.Address(), Identity: id, TLSRoots: roots, EndorseTimeout: 3 * time.Second, SubmitTimeout: 3 * time.Second, CommitTimeout: 4 * time.Second})
}

// participation calls an orderer's channel participation API.
func (s *Site) participation(ctx context.Context, n *Node, method, path string, contentType string, body io.Reader) (int, []byte, error) {
	user := n.member.org.User("Admin")
	cert, err := tls.LoadX509KeyPair(user.TLSCert(), user.TLSKey())
	if err != nil {
		return 0, nil, err
	}
	root, err := os.ReadFile(user.TLSRoots())
	if err != nil {
		return 0, nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, method, "https://"+net.JoinHostPort(n.Host.IP, adminPort)+"/participation/v1/channels"+path, body)
	if err != nil {
		return 0, nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, bytes.TrimSpace(text), err
}

func (s *Site) joinOrderer(ctx context.Context, n *Node) error {
	raw, err := proto.Marshal(s.genesis)
	if err != nil {
		return err
	}
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("config-block", filepath.Base("genesis.block"))
	if err != nil {
		return err
	}
	part.Write(raw)
	form.Close()
	status, text, err := s.participation(ctx, n, http.MethodPost, "", form.FormDataContentType(), &body)
	if err == nil && !slices.Contains([]int{http.StatusCreated, http.StatusMethodNotAllowed}, status) {
		err = fmt.Errorf("status %d: %s", status, text)
	}
	return err
}
