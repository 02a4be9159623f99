package provision

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/internal/admin"
	"github.com/hansa-ledger/hansa/internal/provision/process"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
)

const (
	// startTimeout bounds how long the nodes may take to serve.
	startTimeout = time.Minute
	// lockTimeout bounds how long a supervisor that has no socket any more, or none
	// yet, is waited for.
	lockTimeout = 2 * time.Second
)

// Up runs the network in dir until ctx ends or it is told to stop; a folder
// without a network gets one as o says. ready is called once the network serves.
func Up(ctx context.Context, dir string, o Options, binary string, log *slog.Logger, ready func(*Network)) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	n, err := Load(dir)
	if errors.Is(err, ErrNoNetwork) {
		// The ports are looked at before anything is written: they stay the network's for good.
		if n, err = New(dir, o); err == nil {
			if err = process.CheckPorts(n.addresses()...); err != nil {
				return fmt.Errorf("%w; stop what listens there, or choose others with --port", err)
			}
			err = n.make(ctx)
		}
	}
	if err != nil {
		return err
	}
	s := process.NewSupervisor(log)
	defer s.Stop()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	process.StopStale(n.processes(binary))
	if err := process.CheckPorts(n.addresses()...); err != nil {
		return fmt.Errorf("%w; the network was made with this port: stop what listens there", err)
	}
	if err := n.start(ctx, s, binary); err != nil {
		return err
	}
	listener, err := n.listenControl()
	if err != nil {
		return err
	}
	reconcile := func(ctx context.Context) error {
		next, err := Load(dir)
		if err != nil {
			return err
		}
		return next.start(ctx, s, binary)
	}
	server := &http.Server{Handler: controlHandler(s, reconcile, stop)}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	ready(n)
	<-ctx.Done()
	s.Stop()
	unlock()       // first: who waits for the end may start the network again at once
	server.Close() // and only now: the end of the socket is what they wait for
	<-served
	return nil
}

// StopLeft stops the nodes in dir that a killed supervisor left running, and
// tells how many they were.
func StopLeft(dir, binary string) (int, error) {
	n, err := Load(dir)
	if err != nil {
		return 0, err
	}
	unlock, err := lock(n.dir)
	if err != nil {
		return 0, err
	}
	defer unlock()
	return process.StopStale(n.processes(binary)), nil
}

// lock keeps a second supervisor from the folder. The lock goes with the process:
// one that is just ending, or was killed, holds it a moment longer than its socket.
func lock(dir string) (unlock func(), err error) {
	control, err := NewControl(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockTimeout); ; time.Sleep(10 * time.Millisecond) {
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return func() { f.Close() }, nil
		}
		_, err := control.Status(context.Background())
		if err == nil || time.Now().After(deadline) {
			f.Close()
			return nil, ErrRunning(dir)
		}
	}
}

// ErrRunning says that another supervisor has the network in dir.
func ErrRunning(dir string) error {
	return fmt.Errorf("the network in %s is running already; `hansa status --data %s` shows it, `hansa down --data %s` stops it", dir, dir, dir)
}

func (n *Network) listenControl() (net.Listener, error) {
	path, err := socket(n.dir)
	if err != nil {
		return nil, err
	}
	os.Remove(path) // of a supervisor that was killed: we hold the lock
	return net.Listen("unix", path)
}

// start makes the supervisor run the network's processes and joins those that
// have not joined the channel yet.
func (n *Network) start(ctx context.Context, s *process.Supervisor, binary string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.Reconcile(n.processes(binary)); err != nil {
		return err
	}
	if err := s.WaitReady(ctx); err != nil {
		return err
	}
	raw, err := os.ReadFile(n.Genesis())
	if err != nil {
		return err
	}
	for _, o := range n.Orderers {
		if o.Added {
			continue
		}
		if err := n.joinOrderer(ctx, o, raw); err != nil {
			return fmt.Errorf("join %s to channel %s: %w", o.Name, n.Channel, err)
		}
	}
	genesis := &commonpb.Block{}
	if err := proto.Unmarshal(raw, genesis); err != nil {
		return fmt.Errorf("%s: %w", n.Genesis(), err)
	}
	for _, m := range n.Members {
		for _, p := range m.Peers {
			if err := n.joinPeer(ctx, m, p, genesis); err != nil {
				return fmt.Errorf("join %s to channel %s: %w", fqdn(p.Name, m.Domain), n.Channel, err)
			}
		}
	}
	return nil
}

// processes lists what should run.
func (n *Network) processes(binary string) []process.Spec {
	var specs []process.Spec
	add := func(role, name string, port, operations int) {
		dir := n.nodeDir(name)
		specs = append(specs, process.Spec{
			Name: name, Role: role, Dir: dir,
			Command: []string{binary, role, "--config", filepath.Join(dir, role+".yaml")},
			Address: address(port),
			Ready:   "http://" + address(operations) + "/readyz",
		})
	}
	for _, o := range n.Orderers {
		add("orderer", o.Name, o.Port, o.Operations)
	}
	for _, m := range n.Members {
		add("ca", m.CA.Name, m.CA.Port, m.CA.Operations)
		for _, p := range m.Peers {
			add("peer", p.Name+"."+m.Name, p.Port, p.Operations)
		}
	}
	for _, c := range n.Contracts {
		env := []string{"CHAINCODE_SERVER_ADDRESS=" + address(c.Port), "CHAINCODE_ID=" + c.PackageID,
			"CORE_CHAINCODE_ID_NAME=" + c.PackageID, "CHAINCODE_TLS_DISABLED=true"}
		if os.Getenv("GOGC") == "" {
			// A contract in Go keeps next to nothing: without this it would collect its garbage at every 4 MB.
			env = append(env, "GOGC=400")
		}
		specs = append(specs, process.Spec{
			Name: "contract-" + c.Name, Role: "contract", Dir: n.nodeDir("contract-" + c.Name),
			Command: c.Command,
			Env:     env,
			Address: address(c.Port),
			Ready:   "tcp://" + address(c.Port),
		})
	}
	return specs
}

// addresses lists every port that the nodes will listen on.
func (n *Network) addresses() []string {
	var ports []int
	for _, o := range n.Orderers {
		ports = append(ports, o.Port, o.Admin, o.Operations)
	}
	for _, m := range n.Members {
		ports = append(ports, m.CA.Port, m.CA.Operations)
		for _, p := range m.Peers {
			ports = append(ports, p.Port, p.Chaincode, p.Operations)
		}
	}
	for _, c := range n.Contracts {
		ports = append(ports, c.Port)
	}
	all := make([]string, len(ports))
	for i, p := range ports {
		all[i] = address(p)
	}
	return all
}

func (n *Network) nodeDir(name string) string { return n.path("nodes", name) }

// joinOrderer hands the genesis block to an orderer's channel participation API.
func (n *Network) joinOrderer(ctx context.Context, o Orderer, genesis []byte) error {
	httpClient, err := n.OrdererAdmin()
	if err != nil {
		return err
	}
	defer httpClient.CloseIdleConnections()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("config-block", filepath.Base(n.Genesis()))
	if err != nil {
		return err
	}
	part.Write(genesis)
	form.Close()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address(o.Admin)+"/participation/v1/channels", &body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", form.FormDataContentType())
	response, err := httpClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	// 405 says that the channel exists: joined in an earlier start.
	if response.StatusCode == http.StatusCreated || response.StatusCode == http.StatusMethodNotAllowed {
		return nil
	}
	text, _ := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	return fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(text))
}

// OrdererAdmin calls orderers' admin ports as the ordering organization's administrator.
func (n *Network) OrdererAdmin() (*http.Client, error) {
	dir := filepath.Join(n.ordererOrgDir(), "users", "Admin@"+ordererDomain, "tls")
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"))
	if err != nil {
		return nil, err
	}
	root, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}}}, nil
}

func (n *Network) joinPeer(ctx context.Context, m Member, p Peer, genesis *commonpb.Block) error {
	peer, err := n.AdminPeer(m, p)
	if err != nil {
		return err
	}
	defer peer.Close()
	channels, err := peer.Channels(ctx)
	if err != nil || slices.Contains(channels, n.Channel) {
		return err
	}
	err = peer.JoinChannel(ctx, genesis)
	if err != nil && strings.Contains(err.Error(), "already exists with state [INACTIVE]") {
		return nil // an operator has paused it there
	}
	return err
}

// AdminPeer connects to a peer as its member's administrator.
func (n *Network) AdminPeer(m Member, p Peer) (*admin.Peer, error) {
	id, err := client.LoadIdentity(m.MSPID, n.UserMSP(m, "Admin"))
	if err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(n.TLSRoots(m))
	if err != nil {
		return nil, err
	}
	return admin.DialPeer(p.Address(), roots, id)
}

// Client connects to the first peer of a member as one of its users: "Admin" or "User1".
func (n *Network) Client(m Member, user string) (*client.Client, error) {
	id, err := client.LoadIdentity(m.MSPID, n.UserMSP(m, user))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s has no user %q here; there are %s", m.Name, user, strings.Join(n.users(m), ", "))
		}
		return nil, fmt.Errorf("user %q of %s: %w", user, m.Name, err)
	}
	roots, err := os.ReadFile(n.TLSRoots(m))
	if err != nil {
		return nil, err
	}
	if len(m.Peers) == 0 {
		return nil, fmt.Errorf("member %s has no peer", m.Name)
	}
	return client.Dial(client.Config{Endpoint: m.Peers[0].Address(), Identity: id, TLSRoots: roots})
}

// users lists a member's users whose keys are here.
func (n *Network) users(m Member) (names []string) {
	entries, err := os.ReadDir(filepath.Join(n.orgDir(m), "users"))
	if err != nil {
		return nil
	}
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), "@")
		names = append(names, name)
	}
	return names
}

// Logs lists the log files of the processes, by name; names selects some of them.
func (n *Network) Logs(names ...string) (map[string]string, error) {
	entries, err := os.ReadDir(n.path("nodes"))
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	var known []string
	for _, e := range entries {
		known = append(known, e.Name())
		if len(names) == 0 || slices.Contains(names, e.Name()) {
			files[e.Name()] = process.Spec{Dir: n.nodeDir(e.Name())}.Log()
		}
	}
	for _, name := range names {
		if files[name] == "" {
			return nil, fmt.Errorf("there is no process %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return files, nil
}
