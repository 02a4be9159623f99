package provision

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/internal/admin"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
)

// Deployment is a contract to put on the network's channel.
type Deployment struct {
	Source string // folder with a Go or Node contract
	// Command is run instead of what Source would be built into; Name is needed then.
	Command []string
	Name    string // default: the folder's name
	Version string // default: 1.0, then 2.0 and so on
	// Policy is the endorsement policy's text or a channel policy's path; default: the
	// channel's own, a majority of the members.
	Policy       string
	InitRequired bool
	// Collections is a file with the contract's collections of private data, a
	// JSON list as Fabric's collections_config.json; "" for none, or those that the
	// contract has.
	Collections string
	// Members approve, by name; default: all whose administrator's key is here.
	Members []string
}

// contractName is the rule that peers check definitions by.
var contractName = regexp.MustCompile(`^[a-zA-Z0-9]+([-_][a-zA-Z0-9]+)*$`)

// Deploy builds a contract, runs it as a service, and makes it the channel's:
// installed on every member's peers, approved and committed. A contract that is
// there already is upgraded. progress is told each step.
func (n *Network) Deploy(ctx context.Context, d Deployment, progress func(step string)) (err error) {
	if d.Command == nil {
		source, err := filepath.Abs(d.Source)
		if err != nil {
			return err
		}
		if d.Source = source; d.Name == "" {
			d.Name = filepath.Base(source)
		}
	}
	if d.Command == nil {
		if info, err := os.Stat(d.Source); err != nil {
			return err
		} else if !info.IsDir() {
			return fmt.Errorf("%s is no folder: one with a Go main package or a package.json is wanted", d.Source)
		}
	}
	if !contractName.MatchString(d.Name) {
		return fmt.Errorf("contract name %q: letters and digits are wanted, and between them '-' or '_'; name it with --name", d.Name)
	}
	approvers, err := n.approvers(d.Members)
	if err != nil {
		return err
	}
	control, err := NewControl(n.dir)
	if err != nil {
		return err
	}
	if _, err := control.Status(ctx); err != nil {
		return err // nobody would run it
	}
	release, err := n.Exclusive(ctx, progress)
	if err != nil {
		return err
	}
	defer release()
	home := approvers[0]
	c, err := n.Client(home, "Admin")
	if err != nil {
		return err
	}
	defer c.Close()
	definition, previous, err := d.next(ctx, c.Channel(n.Channel))
	if err != nil {
		return err
	}
	if _, err := definition.ValidationParameter(); err != nil {
		return err
	}

	process, command := fmt.Sprintf("%s-%d", d.Name, definition.Sequence), d.Command
	if command == nil {
		progress("build " + d.Source)
		if command, err = build(ctx, d.Source, n.path("contracts", process)); err != nil {
			return err
		}
	}
	port, err := n.freePort()
	if err != nil {
		return err
	}
	pkg, err := packageService(d.Source, fmt.Sprintf("%s_%s", d.Name, definition.Version), address(port))
	if err != nil {
		return err
	}
	contract := Contract{Name: process, Command: serviceCommand(command, address(port), pkg.ID), PackageID: pkg.ID, Port: port}
	progress("run it as a service on " + address(port))
	committing := false
	defer func() {
		// A contract that is not the channel's must not stay in network.yaml: one that
		// cannot start would keep the network from starting too.
		if err != nil && !committing {
			err = errors.Join(err, n.stopContract(context.WithoutCancel(ctx), contract.Name))
		}
	}()
	if err := n.run(ctx, contract); err != nil {
		return err
	}
	progress("install " + pkg.ID + " on the peers")
	for _, m := range approvers {
		for _, p := range m.Peers {
			if err := n.install(ctx, m, p, pkg.Raw); err != nil {
				return err
			}
		}
	}
	for _, m := range approvers {
		progress("approve for " + m.MSPID)
		if err := n.approve(ctx, m, definition, pkg.ID); err != nil {
			return err
		}
	}
	progress("commit " + definition.Name + " " + definition.Version)
	committing = true // a failure may be a lost answer
	if err := admin.Commit(ctx, c.Channel(n.Channel), mspIDs(approvers), definition); err != nil {
		return err
	}
	for _, m := range approvers {
		if err := n.awaitDefinition(ctx, m, definition); err != nil {
			return err
		}
	}
	if previous == "" {
		return nil
	}
	progress("stop " + previous)
	return n.stopContract(ctx, previous)
}

// approvers are the named members, or all whose administrator's key is here.
func (n *Network) approvers(names []string) ([]Member, error) {
	var members []Member
	for _, name := range names {
		m, err := n.Member(name)
		if err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	if len(names) > 0 {
		return members, nil
	}
	for _, m := range n.Members {
		if _, err := client.LoadIdentity(m.MSPID, n.UserMSP(m, "Admin")); err == nil {
			members = append(members, m)
		}
	}
	if len(members) == 0 {
		return nil, errors.New("there is no administrator's key of any member here")
	}
	return members, nil
}

func mspIDs(members []Member) (ids []string) {
	for _, m := range members {
		ids = append(ids, m.MSPID)
	}
	return ids
}

// next is the definition to commit, and the process of the one it follows.
func (d Deployment) next(ctx context.Context, ch *client.Channel) (definition admin.Definition, previous string, err error) {
	definition = admin.Definition{Name: d.Name, Version: d.Version, Sequence: 1, Policy: d.Policy, InitRequired: d.InitRequired}
	if d.Collections != "" {
		raw, err := os.ReadFile(d.Collections)
		if err != nil {
			return definition, "", err
		}
		if definition.Collections, err = admin.ParseCollections(raw); err != nil {
			return definition, "", fmt.Errorf("%s: %w", d.Collections, err)
		}
	}
	committed, err := admin.Committed(ctx, ch)
	if err != nil {
		return definition, "", err
	}
	for _, c := range committed {
		if c.Name == d.Name {
			definition.Sequence = c.Sequence + 1
			if d.Collections == "" {
				definition.Collections = c.Collections // none can be taken away
			}
			previous = fmt.Sprintf("%s-%d", d.Name, c.Sequence)
		}
	}
	if definition.Version == "" {
		definition.Version = strconv.FormatInt(definition.Sequence, 10) + ".0"
	}
	return definition, previous, nil
}

// run adds the contract's process to the network and waits until it serves.
func (n *Network) run(ctx context.Context, c Contract) error {
	n.Contracts = slices.DeleteFunc(n.Contracts, func(old Contract) bool { return old.Name == c.Name })
	n.Contracts = append(n.Contracts, c)
	return n.reconcile(ctx)
}

func (n *Network) stopContract(ctx context.Context, name string) error {
	n.Contracts = slices.DeleteFunc(n.Contracts, func(c Contract) bool { return c.Name == name })
	return n.reconcile(ctx)
}

func (n *Network) reconcile(ctx context.Context) error {
	if err := n.Save(); err != nil {
		return err
	}
	control, err := NewControl(n.dir)
	if err != nil {
		return err
	}
	return control.Reconcile(ctx)
}

func (n *Network) install(ctx context.Context, m Member, p Peer, pkg []byte) error {
	peer, err := n.AdminPeer(m, p)
	if err != nil {
		return err
	}
	defer peer.Close()
	_, err = peer.Install(ctx, pkg)
	if err != nil && strings.Contains(err.Error(), "already successfully installed") {
		return nil
	}
	return err
}

func (n *Network) approve(ctx context.Context, m Member, d admin.Definition, packageID string) error {
	c, err := n.Client(m, "Admin")
	if err != nil {
		return err
	}
	defer c.Close()
	return admin.Approve(ctx, c.Channel(n.Channel), m.MSPID, d, packageID)
}

// awaitDefinition waits until a member's peer has a committed definition, so that
// whoever calls the contract next finds it everywhere.
func (n *Network) awaitDefinition(ctx context.Context, m Member, d admin.Definition) error {
	c, err := n.Client(m, "Admin")
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		committed, err := admin.Committed(ctx, c.Channel(n.Channel))
		for _, has := range committed {
			if has.Name == d.Name && has.Sequence >= d.Sequence {
				return nil
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("the peer of %s has not committed contract %s: %w", m.Name, d.Name, errors.Join(ctx.Err(), err))
		}
	}
}

// build makes a contract ready to run in target and returns its command.
func build(ctx context.Context, source, target string) ([]string, error) {
	if err := os.MkdirAll(target, 0o750); err != nil {
		return nil, err
	}
	switch kind, err := kindOf(source); {
	case err != nil:
		return nil, err
	case kind == "go":
		binary := filepath.Join(target, "contract")
		if err := runIn(ctx, source, "go", "build", "-trimpath", "-o", binary, "."); err != nil {
			return nil, err
		}
		// Of a library, go build makes an archive.
		if info, err := os.Stat(binary); err != nil || info.Mode()&0o100 == 0 {
			return nil, fmt.Errorf("%s holds a Go library: a contract is a program, `package main`", source)
		}
		return []string{binary}, nil
	default:
		if err := os.CopyFS(target, withoutModules{os.DirFS(source)}); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		install := "ci"
		if _, err := os.Stat(filepath.Join(target, "package-lock.json")); err != nil {
			install = "install"
		}
		if err := runIn(ctx, target, "npm", install, "--omit=dev", "--no-audit", "--no-fund"); err != nil {
			return nil, err
		}
		return []string{filepath.Join(target, "node_modules", ".bin", "fabric-chaincode-node"), "server"}, nil
	}
}

// serviceCommand adds to a Node contract's command what Go contracts read from
// the environment.
func serviceCommand(command []string, address, packageID string) []string {
	if filepath.Base(command[0]) == "fabric-chaincode-node" {
		return append(command, "--chaincode-address", address, "--chaincode-id", packageID,
			"--module-path", filepath.Dir(filepath.Dir(filepath.Dir(command[0]))))
	}
	return command
}

// kindOf tells a Go contract from a Node one.
func kindOf(source string) (string, error) {
	if _, err := os.Stat(filepath.Join(source, "package.json")); err == nil {
		return "node", nil
	}
	if matches, _ := filepath.Glob(filepath.Join(source, "*.go")); len(matches) > 0 {
		return "go", nil
	}
	return "", fmt.Errorf("%s holds no contract: a folder with a Go main package or a package.json is wanted", source)
}

func runIn(ctx context.Context, dir, program string, args ...string) error {
	command := exec.CommandContext(ctx, program, args...)
	command.Dir = dir
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	// Asked to end, a build removes what it has half done.
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 10 * time.Second
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s in %s: %w\n%s", program, strings.Join(args, " "), dir, err, output)
	}
	return nil
}

// withoutModules hides the installed dependencies of a Node contract, which are
// installed anew from its lock file.
type withoutModules struct{ fs.FS }

func (w withoutModules) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(w.FS, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return skipped(e.Name()) }), err
}

func skipped(name string) bool { return name == "node_modules" || strings.HasPrefix(name, ".") }

// servicePackage is an installable package.
type servicePackage struct {
	ID  string
	Raw []byte
}

// packageService packages a contract that runs as a service at address. A
// digest of the source makes other code another package; META-INF goes along.
func packageService(source, label, address string) (*servicePackage, error) {
	connection, err := json.Marshal(map[string]any{"address": address, "dial_timeout": "10s", "tls_required": false})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{"connection.json": connection}
	if source != "" {
		if err := addSource(files, source); err != nil {
			return nil, err
		}
	}
	code, err := contractpackage.WriteCode(files)
	if err != nil {
		return nil, err
	}
	raw, err := contractpackage.Write(contractpackage.Metadata{Type: "ccaas", Label: label}, code)
	if err != nil {
		return nil, err
	}
	return &servicePackage{contractpackage.ID(label, raw), raw}, nil
}

// addSource adds META-INF and a digest of the source.
func addSource(files map[string][]byte, source string) error {
	digest := sha256.New()
	err := fs.WalkDir(withoutModules{os.DirFS(source)}, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return err
		}
		digest.Write(protowire.AppendBytes(protowire.AppendString(nil, name), content))
		if strings.HasPrefix(name, "META-INF/") {
			files[name] = content
		}
		return nil
	})
	files["source.sha256"] = []byte(hex.EncodeToString(digest.Sum(nil)) + "\n")
	return err
}
