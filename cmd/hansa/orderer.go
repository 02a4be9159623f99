package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/deliver"
	"github.com/hansa-ledger/hansa/internal/membership"
	"github.com/hansa-ledger/hansa/internal/provision"
	"github.com/hansa-ledger/hansa/internal/reconfigure"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
)

// change is a way to change who orders a channel.
type change struct {
	use, short, long, example string
	args                      cobra.PositionalArgs
	plan                      func(membership.Service, []string) (*membership.Plan, error) // of addresses
	adds                      func([]string) bool                                          // says whether the last of them may be new
	flags                     []string                                                     // of those that not all have
}

func changes() map[string]change {
	return map[string]change{
		"add": {use: "add [ORDERER]", short: "Add an orderer to a channel's consenters", args: cobra.MaximumNArgs(1),
			long: `Make another orderer a consenter of the channel, while the service runs: it follows the channel until it has all blocks,
then the channel's configuration names it, and the command ends when it takes part.

In a network on this machine (--data) the orderer is made and started too; without a name it gets the next one. Elsewhere it
must run already, and is named by the host:port that the others and clients are to reach it at.`,
			example: `  hansa orderer add --data my-network
  hansa orderer add orderer3.example.com:7050 --cert orderer3.pem --member Carrier --admin orderer3.example.com:7050=10.0.0.3:7051 \
    --channel business --orderer orderer0.example.com:7050 --tls-root tlsca.pem --identity CarrierMSP=admin/msp --tls-cert admin.pem --tls-key admin.key`,
			plan: func(s membership.Service, a []string) (*membership.Plan, error) { return s.Add(a[0]) },
			adds: func([]string) bool { return true }, flags: []string{"cert", "client-cert", "member"}},
		"remove": {use: "remove ORDERER", short: "Remove an orderer from a channel's consenters", args: cobra.ExactArgs(1),
			long: `Take an orderer out of the channel's consenters, while the service runs. In a network on this machine (--data) it is stopped
then; its folder stays. Refused if the consenters that stay and take part would be no majority.`,
			example: `  hansa orderer remove orderer3 --data my-network`,
			plan:    func(s membership.Service, a []string) (*membership.Plan, error) { return s.Remove(a[0]) },
			adds:    func([]string) bool { return false }},
		"replace": {use: "replace ORDERER [BY]", short: "Replace an orderer that is dead, or has lost its data", args: cobra.RangeArgs(1, 2),
			long: `Put one orderer in the place of another, while the service runs. Without a second name the orderer is replaced by itself: it
has lost its folder, and must not vote as the consenter that it was, since it does not know any more what it promised. A
dead orderer goes before the new one comes, a living one after.`,
			example: `  hansa orderer replace orderer1 --data my-network`,
			plan:    func(s membership.Service, a []string) (*membership.Plan, error) { return s.Replace(a[0], a[len(a)-1]) },
			adds:    func(a []string) bool { return len(a) > 1 }, flags: []string{"cert", "client-cert", "member"}},
		"rotate": {use: "rotate ORDERER", short: "Give a consenter another TLS certificate", args: cobra.ExactArgs(1),
			long: `Give a consenter another TLS certificate, while the service runs. The channel's configuration names the new one first, and
the other consenters accept the old one beside it for ten minutes; then the orderer is started with the new one.

In a network on this machine (--data) the certificate is issued and put in place. Elsewhere name its file (--cert), and start
the orderer with it when the command says so.`,
			example: `  hansa orderer rotate orderer0 --data my-network`,
			plan:    func(s membership.Service, a []string) (*membership.Plan, error) { return s.Rotate(a[0]) },
			adds:    func([]string) bool { return false }, flags: []string{"cert", "client-cert"}},
	}
}

// ordererCommands are about who orders a channel.
func ordererCommands() (all []*cobra.Command) {
	for _, name := range []string{"add", "remove", "replace", "rotate"} {
		all = append(all, newChange(changes()[name]))
	}
	return append(all, newOrdererPlan())
}

func newChange(ch change) *cobra.Command {
	var flags ordererFlags
	c := &cobra.Command{Use: ch.use, Short: ch.short, Args: ch.args, Example: ch.example,
		Long: ch.long + "\n\nInterrupted anywhere, the same command goes on. hansa orderer plan shows what it would do.",
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.open(cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return o.change(cmd.Context(), ch, args)
		}}
	flags.register(c, ch.flags...)
	return c
}

func newOrdererPlan() *cobra.Command {
	var flags ordererFlags
	c := &cobra.Command{
		Use:   "plan [add|remove|replace|rotate] [ORDERER] [BY]",
		Short: "Show a channel's consenters, and what a change of them would do",
		Args:  cobra.MaximumNArgs(3),
		Long: `Show how the consenters of a channel are, and, if a change is named, the steps that it would take, or why it is refused and
what to do instead. Nothing is changed.`,
		Example: `  hansa orderer plan --data my-network
  hansa orderer plan replace orderer1 --data my-network`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := flags.open(cmd.OutOrStdout())
			if err != nil {
				return err
			}
			return o.show(cmd.Context(), args)
		}}
	flags.register(c, "cert", "client-cert", "member")
	return c
}

// ordererFlags are what is to be known about the orderers outside of a network on this machine.
type ordererFlags struct {
	channelFlags
	admins []string
	cert   string
	client string
	member string
}

// register makes the flags that every such command has, and some that not all have.
func (f *ordererFlags) register(c *cobra.Command, some ...string) {
	f.channelFlags.register(c, true)
	flags := c.Flags()
	flags.StringSliceVar(&f.admins, "admin", nil, "`ORDERER=HOST:PORT`: the admin port of an orderer, to be called with --tls-cert; may be repeated")
	for _, flag := range some {
		switch flag {
		case "cert":
			flags.StringVar(&f.cert, flag, "", "`file` of the TLS certificate of the orderer that is added or gets another one")
		case "client-cert":
			flags.StringVar(&f.client, flag, "", "`file` of the certificate that it calls others with (default: that of --cert)")
		case "member":
			flags.StringVar(&f.member, flag, "", "name or MSP id of the `member` whose orderer is added")
		}
	}
}

// operation is one run of these commands.
type operation struct {
	*membership.Operator
	flags   *ordererFlags
	session *channelSession
	local   *provision.Network // nil if it is not on this machine
	control *provision.Control
	out     io.Writer
	puller  *deliver.Puller
	admins  map[string]membership.Admin
}

func (f *ordererFlags) open(out io.Writer) (*operation, error) {
	s, err := f.channelFlags.open()
	if err != nil {
		return nil, err
	}
	o := &operation{flags: f, session: s, out: out, admins: map[string]membership.Admin{}}
	pull := deliver.PullerConfig{ChannelID: s.channel, Signer: s.asker}
	if len(f.orderers) == 0 {
		if len(f.peers) > 0 {
			return nil, errors.New("--orderer is missing: one that works")
		}
		err = o.openLocal(f.data)
	} else {
		pull.Certificate, err = o.openNamed()
	}
	if err != nil {
		return nil, err
	}
	o.puller = deliver.NewPuller(pull)
	o.Operator = &membership.Operator{Channel: s.channel, Config: o, Nodes: o, Height: o.height,
		Tell: func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) },
		Admin: func(address string) (membership.Admin, bool) {
			a, ok := o.admins[address]
			return a, ok
		}}
	return o, nil
}

func (o *operation) openLocal(dir string) (err error) {
	if o.local, err = provision.Load(dir); err != nil {
		return err
	}
	if o.control, err = provision.NewControl(dir); err != nil {
		return err
	}
	for _, orderer := range o.local.Orderers {
		if err := o.know(orderer); err != nil {
			return err
		}
	}
	return nil
}

// know makes the admin port of an orderer on this machine known.
func (o *operation) know(orderer provision.Orderer) error {
	client, err := o.local.OrdererAdmin()
	if err != nil {
		return err
	}
	o.admins[orderer.Address()] = membership.Admin{Address: orderer.AdminAddress(), Client: client}
	return nil
}

func (o *operation) openNamed() (*tls.Certificate, error) {
	first := o.session.orderers[0]
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(first.TLSRoots)
	config := &tls.Config{RootCAs: roots}
	if first.Certificate != nil {
		config.Certificates = []tls.Certificate{*first.Certificate}
	}
	for _, text := range o.flags.admins {
		address, admin, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--admin %q: ORDERER=HOST:PORT is wanted", text)
		}
		if first.Certificate == nil {
			return nil, errors.New("--admin needs --tls-cert and --tls-key: a client certificate that the admin port accepts")
		}
		o.admins[address] = membership.Admin{Address: admin, Client: &http.Client{Transport: &http.Transport{TLSClientConfig: config.Clone()}}}
	}
	return first.Certificate, nil
}

// addresses turns names of orderers into host:port.
func (o *operation) addresses(ctx context.Context, ch change, names []string) ([]string, error) {
	if o.local == nil {
		for _, name := range names {
			if _, _, err := net.SplitHostPort(name); err != nil {
				return nil, fmt.Errorf("orderer %q: host:port is wanted: %w", name, err)
			}
		}
		if len(names) == 0 {
			return nil, errors.New("the orderer to add is missing: host:port")
		}
		return names, nil
	}
	if ch.adds(names) && len(names) == 0 {
		names = []string{""}
	}
	var all []string
	for i, name := range names {
		orderer, err := o.local.Orderer(name)
		if err != nil && i == len(names)-1 && ch.adds(names) {
			if name == "" {
				orderer, err = o.unfinished(ctx)
			} else if err := o.local.CheckNewOrderer(name); err != nil {
				return nil, err
			}
			if err != nil || name != "" {
				all = append(all, name) // to be made
				continue
			}
		} else if err != nil {
			return nil, err
		}
		all = append(all, orderer.Address())
	}
	return all, nil
}

// unfinished is an orderer that an earlier run made and did not finish adding.
func (o *operation) unfinished(ctx context.Context) (provision.Orderer, error) {
	consenters, err := o.Consenters(ctx)
	if err != nil {
		return provision.Orderer{}, err
	}
	for _, orderer := range o.local.Orderers {
		if orderer.Added && !slices.ContainsFunc(consenters, func(c *etcdraftpb.Consenter) bool { return membership.Address(c) == orderer.Address() }) {
			return orderer, nil
		}
	}
	return provision.Orderer{}, errors.New("there is none")
}

// made turns the name of an orderer that is not there yet into its address, by making it.
func (o *operation) made(ctx context.Context, ch change, all []string) error {
	last := len(all) - 1
	if o.local == nil || !ch.adds(all) || strings.Contains(all[last], ":") {
		return nil
	}
	orderer, err := o.local.AddOrderer(ctx, all[last])
	if err != nil {
		return err
	}
	fmt.Fprintf(o.out, "%s is made, at %s.\n", orderer.Name, orderer.Address())
	all[last] = orderer.Address()
	return o.know(orderer)
}

func (o *operation) change(ctx context.Context, ch change, args []string) error {
	if o.local != nil {
		if _, err := o.control.Status(ctx); err != nil {
			return err // nobody would start or stop orderers
		}
		release, err := o.local.Exclusive(ctx, func(text string) { fmt.Fprintln(o.out, text) })
		if err != nil {
			return err
		}
		defer release()
		for _, orderer := range o.local.Orderers { // another command may have added some
			if err := o.know(orderer); err != nil {
				return err
			}
		}
	}
	service, err := o.Service(ctx)
	if err != nil {
		return err
	}
	all, err := o.addresses(ctx, ch, args)
	if err != nil {
		return err
	}
	if _, err := ch.plan(service, all); err != nil { // before anything is made
		return err
	}
	if err := o.made(ctx, ch, all); err != nil {
		return err
	}
	plan, err := ch.plan(service, all)
	if err != nil {
		return err
	}
	if err := o.Perform(ctx, plan); err != nil {
		return err
	}
	if err := o.tidy(ctx, all[0]); err != nil {
		return err
	}
	if len(plan.Steps) == 0 {
		fmt.Fprintln(o.out, "There is nothing to do.")
	}
	return o.print(ctx)
}

// tidy stops an orderer of a network on this machine that is no consenter any more.
func (o *operation) tidy(ctx context.Context, address string) error {
	if o.local == nil {
		return nil
	}
	orderer, err := o.local.Orderer(address)
	if err != nil {
		return nil // it is not there any more
	}
	consenters, err := o.Consenters(ctx)
	if err != nil || slices.ContainsFunc(consenters, func(c *etcdraftpb.Consenter) bool { return membership.Address(c) == address }) {
		return err
	}
	if err := o.local.DropOrderer(orderer); err != nil {
		return err
	}
	if err := o.control.Reconcile(ctx); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "%s is stopped; its folder stays.\n", orderer.Name)
	return nil
}

func (o *operation) show(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return o.print(ctx)
	}
	ch, ok := changes()[args[0]]
	if !ok {
		return fmt.Errorf("%q is no change of orderers: add, remove, replace and rotate are", args[0])
	}
	if err := ch.args(nil, args[1:]); err != nil {
		return fmt.Errorf("%s: %w; the command is: hansa orderer plan %s", args[0], err, ch.use)
	}
	if err := o.print(ctx); err != nil {
		return err
	}
	all, err := o.addresses(ctx, ch, args[1:])
	if err != nil {
		return err
	}
	service, err := o.Service(ctx)
	if err != nil {
		return err
	}
	if all[len(all)-1] == "" {
		all[len(all)-1] = "the next orderer"
	}
	plan, err := ch.plan(service, all)
	if err != nil {
		return err
	}
	if len(plan.Steps) == 0 {
		fmt.Fprintln(o.out, "There is nothing to do.")
	}
	fmt.Fprint(o.out, plan)
	return nil
}

func (o *operation) print(ctx context.Context) error {
	service, err := o.Service(ctx)
	var refusal *membership.Refusal
	if err != nil && !errors.As(err, &refusal) {
		return err
	}
	table := tabwriter.NewWriter(o.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "ORDERER\tBLOCKS\tSTATE")
	for _, m := range service {
		name := m.Address
		if o.local != nil {
			if orderer, err := o.local.Orderer(m.Address); err == nil {
				name = orderer.Name + " " + name
			}
		}
		blocks := "-"
		if m.Height > 0 {
			blocks = strconv.FormatUint(m.Height, 10)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", name, blocks, m.State)
	}
	return errors.Join(table.Flush(), err)
}

func (o *operation) endpoint(address string) deliver.Endpoint {
	return deliver.Endpoint{Address: address, TLSRoots: [][]byte{o.session.orderers[0].TLSRoots}}
}

func (o *operation) height(ctx context.Context, address string) (uint64, error) {
	return o.puller.Height(ctx, o.endpoint(address))
}

// Consenters, Change and Block make an operation the configuration that package membership works on.

func (o *operation) fetch(ctx context.Context) (*reconfigure.Config, error) {
	return reconfigure.Fetch(ctx, o.session.orderers, o.session.asker, o.session.channel)
}

func (o *operation) Consenters(ctx context.Context) ([]*etcdraftpb.Consenter, error) {
	c, err := o.fetch(ctx)
	if err != nil {
		return nil, err
	}
	raft, err := c.Bundle().RaftMetadata()
	return raft.GetConsenters(), err
}

func (o *operation) Block(ctx context.Context) ([]byte, error) {
	c, err := o.fetch(ctx)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, n := range o.session.orderers {
		b, err := o.puller.Block(ctx, o.endpoint(n.Address), c.Block)
		if err == nil {
			return proto.Marshal(b)
		}
		failed = errors.Join(failed, fmt.Errorf("%s: %w", n.Address, err))
	}
	return nil, failed
}

func (o *operation) Change(ctx context.Context, edit func([]*etcdraftpb.Consenter) ([]*etcdraftpb.Consenter, error)) error {
	for {
		c, err := o.fetch(ctx)
		if err != nil {
			return err
		}
		if err := o.edit(c, edit); err != nil {
			return err
		}
		request, err := c.Request()
		if errors.Is(err, reconfigure.ErrNoChange) {
			return nil
		} else if err != nil {
			return err
		}
		status, err := c.SignWhatIsNeeded(request, o.session.signers...)
		if err != nil {
			return err
		}
		if !status.Met() {
			var lack []string
			for _, n := range status.Needs {
				if !n.Met {
					lack = append(lack, n.Missing)
				}
			}
			return fmt.Errorf("signatures are missing: %s; name further administrators with --identity", strings.Join(lack, ", "))
		}
		if _, err := c.Submit(ctx, o.session.orderers, o.session.asker, request); !errors.Is(err, reconfigure.ErrStale) {
			return err
		}
	}
}

// edit changes the consenters, and the addresses that clients know them by.
func (o *operation) edit(c *reconfigure.Config, edit func([]*etcdraftpb.Consenter) ([]*etcdraftpb.Consenter, error)) error {
	before, after := map[string]bool{}, map[string]bool{}
	if err := c.EditRaft(func(m *etcdraftpb.ConfigMetadata) (err error) {
		for _, consenter := range m.Consenters {
			before[membership.Address(consenter)] = true
		}
		m.Consenters, err = edit(m.Consenters)
		for _, consenter := range m.Consenters {
			after[membership.Address(consenter)] = true
		}
		return err
	}); err != nil {
		return err
	}
	for _, org := range c.Bundle().OrdererOrgs() {
		if slices.ContainsFunc(org.Endpoints, func(a string) bool { return before[a] && !after[a] }) {
			if err := c.EditEndpoints(org.Name, func(all []string) ([]string, error) {
				return slices.DeleteFunc(all, func(a string) bool { return before[a] && !after[a] }), nil
			}); err != nil {
				return err
			}
		}
	}
	for address := range after {
		if before[address] {
			continue
		}
		member, err := o.owner(c)
		if err != nil {
			return err
		}
		if err := c.EditEndpoints(member, func(all []string) ([]string, error) {
			if slices.Contains(all, address) {
				return all, nil
			}
			return append(all, address), nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// owner is the member that runs an orderer that is added.
func (o *operation) owner(c *reconfigure.Config) (string, error) {
	if o.flags.member != "" {
		return o.flags.member, nil
	}
	orgs := c.Bundle().OrdererOrgs()
	if len(orgs) == 1 {
		return orgs[0].Name, nil
	}
	var names []string
	for _, org := range orgs {
		names = append(names, org.Name)
	}
	return "", fmt.Errorf("--member is missing: whose orderer is it? %s run orderers", strings.Join(names, ", "))
}

// Start, Consenter, Issue and Install make it the nodes.

func (o *operation) Start(ctx context.Context, address string) error {
	if o.local == nil {
		return nil // its owner has started it
	}
	orderer, err := o.local.Orderer(address)
	if err == nil {
		err = o.local.Later(orderer)
	}
	if err != nil {
		return err
	}
	return o.control.Reconcile(ctx)
}

func (o *operation) Consenter(_ context.Context, address string) (*etcdraftpb.Consenter, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("orderer %s: %w", address, err)
	}
	var server, client []byte
	if o.local != nil {
		orderer, err := o.local.Orderer(address)
		if err != nil {
			return nil, err
		}
		server, err = o.local.OrdererCertificate(orderer)
		if err != nil {
			return nil, err
		}
		client = server
	} else if server, client, err = o.certificates(); err != nil {
		return nil, err
	}
	return &etcdraftpb.Consenter{Host: host, Port: uint32(port), ServerTlsCert: server, ClientTlsCert: client}, nil
}

// certificates reads the files that are named for an orderer elsewhere.
func (o *operation) certificates() (server, client []byte, err error) {
	if o.flags.cert == "" {
		return nil, nil, errors.New("--cert is missing: the orderer's TLS certificate")
	}
	if server, err = os.ReadFile(o.flags.cert); err != nil {
		return nil, nil, err
	}
	if client = server; o.flags.client != "" {
		client, err = os.ReadFile(o.flags.client)
	}
	return server, client, err
}

func (o *operation) Issue(ctx context.Context, address string) error {
	if o.local == nil {
		_, _, err := o.certificates()
		return err
	}
	orderer, err := o.local.Orderer(address)
	if err != nil {
		return err
	}
	return o.local.IssueOrdererCertificate(ctx, orderer)
}

func (o *operation) Install(ctx context.Context, address string) error {
	if o.local != nil {
		orderer, err := o.local.Orderer(address)
		if err == nil {
			err = o.local.InstallOrdererCertificate(orderer)
		}
		if err != nil {
			return err
		}
		return o.control.Restart(ctx, orderer.Name)
	}
	raw, _, err := o.certificates()
	if err != nil {
		return err
	}
	p, _ := pem.Decode(raw)
	if p == nil {
		return fmt.Errorf("--cert %s holds no PEM certificate", o.flags.cert)
	}
	fmt.Fprintf(o.out, "   Now start the orderer at %s with %s and its key; this waits for it.\n", address, o.flags.cert)
	return awaitCertificate(ctx, address, p.Bytes)
}

// awaitCertificate waits until a server shows a certificate.
func awaitCertificate(ctx context.Context, address string, der []byte) error {
	// What it shows is only compared: nothing is sent to it.
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: time.Second}, Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}
	for {
		if conn, err := dialer.DialContext(ctx, "tcp", address); err == nil {
			shown := conn.(*tls.Conn).ConnectionState().PeerCertificates
			conn.Close()
			if len(shown) > 0 && bytes.Equal(shown[0].Raw, der) {
				return nil
			}
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s does not show the new certificate: %w", address, ctx.Err())
		}
	}
}
