package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hansa-ledger/hansa/internal/provision"
)

// defaultData is the folder of a network unless --data says otherwise.
const defaultData = "hansa-network"

func dataFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "data", defaultData, "the `folder` that holds the network")
}

func newUp() *cobra.Command {
	var dir string
	var options provision.Options
	var detach bool
	c := &cobra.Command{
		Use:     "up",
		Short:   "Start a network on this machine, making it first if there is none",
		GroupID: "network",
		Args:    cobra.NoArgs,
		Long: `Start a business network on this machine: an ordering service, and for each member a certificate authority and a
peer, each a process of its own, with TLS everywhere and one channel. Ctrl-C (or hansa down) stops it; started again it
has everything it had.

The folder then holds for each member what any Fabric client needs: connection profiles (members/) and MSP and TLS
folders of its administrator and a user, laid out as cryptogen does (crypto/).`,
		Example: `  hansa up --data my-network
  hansa up --data my-network --members 3 --detach`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
				if err := options.Check(); err != nil {
					return err // before there is a folder
				}
			}
			sayIgnored(cmd, dir)
			if detach {
				return upDetached(cmd, dir)
			}
			binary, err := os.Executable()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			start := time.Now()
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			return provision.Up(cmd.Context(), dir, options, binary, log, func(n *provision.Network) {
				describe(out, n, time.Since(start))
				fmt.Fprintln(out, "Ctrl-C stops the network.")
			})
		},
	}
	dataFlag(c, &dir)
	f := c.Flags()
	f.BoolVar(&detach, "detach", false, "return once the network serves; hansa down stops it")
	f.IntVar(&options.Orderers, "orderers", 1, "ordering nodes of a new network")
	f.IntVar(&options.Members, "members", 2, "members of a new network")
	f.StringVar(&options.Channel, "channel", "business", "`name` of the channel of a new network")
	f.IntVar(&options.Port, "port", 7050, "first port of a new network; each node takes the next ten; 0 takes free ones")
	return c
}

// sayIgnored warns of flags that are for a new network where there is one already.
func sayIgnored(cmd *cobra.Command, dir string) {
	n, err := provision.Load(dir)
	if err != nil {
		return
	}
	has := map[string]string{
		"orderers": fmt.Sprint(len(n.Orderers)),
		"members":  fmt.Sprint(len(n.Members)),
		"channel":  n.Channel,
	}
	if len(n.Orderers) > 0 {
		has["port"] = fmt.Sprint(n.Orderers[0].Port)
	}
	for _, name := range slices.Sorted(maps.Keys(has)) {
		f := cmd.Flag(name)
		if f.Changed && f.Value.String() != has[name] && !(name == "port" && f.Value.String() == "0") {
			fmt.Fprintf(cmd.ErrOrStderr(), "--%s %s has no effect: it is for new networks, and the one in %s has %s already\n", name, f.Value, n.Dir(), has[name])
		}
	}
}

// upDetached runs the same command without --detach in the background and waits
// until its network serves.
func upDetached(cmd *cobra.Command, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	control, err := provision.NewControl(dir)
	if err != nil {
		return err
	}
	if _, err := control.Status(cmd.Context()); err == nil {
		return provision.ErrRunning(dir)
	}
	log, err := os.OpenFile(filepath.Join(dir, "up.log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	defer log.Close()
	args := []string{"up", "--data", dir}
	if _, err := provision.Load(dir); err != nil { // a network that is there has them
		for _, name := range []string{"orderers", "members", "channel", "port"} {
			args = append(args, "--"+name, cmd.Flag(name).Value.String())
		}
	}
	background := exec.Command(binary, args...)
	background.Stdout, background.Stderr = log, log
	background.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	start := time.Now()
	if err := background.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- background.Wait() }()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ended:
			text, _ := os.ReadFile(log.Name())
			return errors.New(strings.TrimPrefix(strings.TrimSpace(string(text)), "hansa: "))
		case <-cmd.Context().Done():
			background.Process.Signal(syscall.SIGTERM)
			<-ended // it writes until then
			return cmd.Context().Err()
		case <-ticker.C:
			if _, err := control.Status(cmd.Context()); err == nil {
				n, err := provision.Load(dir)
				if err != nil {
					return err
				}
				describe(cmd.OutOrStdout(), n, time.Since(start))
				return nil
			}
		}
	}
}

// describe says how a network can be reached.
func describe(out io.Writer, n *provision.Network, took time.Duration) {
	fmt.Fprintf(out, "The network in %s serves channel %q (%.1f s).\n\n", n.Dir(), n.Channel, took.Seconds())
	for _, o := range n.Orderers {
		fmt.Fprintf(out, "  %-14s %-22s orderer\n", o.Name, o.Address())
	}
	for _, m := range n.Members {
		for _, p := range m.Peers {
			fmt.Fprintf(out, "  %-14s %-22s peer and Gateway of %s\n", p.Name+"."+m.Name, p.Address(), m.MSPID)
		}
		fmt.Fprintf(out, "  %-14s %-22s certificate authority of %s\n", m.CA.Name, m.CA.Address(), m.MSPID)
	}
	fmt.Fprintf(out, `
  connection profiles   %s
  identities            %s
  put a contract on it  hansa contract deploy DIR --data %s
  how it is             hansa status --data %s

`, filepath.Join(n.Dir(), "members"), filepath.Join(n.Dir(), "crypto"), n.Dir(), n.Dir())
}

func newDown() *cobra.Command {
	var dir string
	var purge bool
	c := &cobra.Command{
		Use:     "down",
		Short:   "Stop a network; its data stays",
		GroupID: "network",
		Args:    cobra.NoArgs,
		Long: `Stop a network that hansa up started, or nodes that run on because hansa up itself was killed. The data stays; hansa up goes
on with it.`,
		Example: `  hansa down --data my-network
  hansa down --data my-network --purge`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			err := stopNetwork(ctx, dir)
			if err != nil && !(purge && errors.Is(err, provision.ErrNotRunning)) {
				return err
			}
			if purge {
				if _, err := provision.Load(dir); err != nil {
					return err // never remove a folder that is no network
				}
				return os.RemoveAll(dir)
			}
			return nil
		},
	}
	dataFlag(c, &dir)
	c.Flags().BoolVar(&purge, "purge", false, "remove the network with all its data and keys")
	return c
}

// stopNetwork stops a network's supervisor and with it the nodes, or the nodes
// that run on without one.
func stopNetwork(ctx context.Context, dir string) error {
	control, err := provision.NewControl(dir)
	if err != nil {
		return err
	}
	notRunning := control.Stop(ctx)
	if !errors.Is(notRunning, provision.ErrNotRunning) {
		return notRunning
	}
	binary, err := os.Executable()
	if err != nil {
		return err
	}
	left, err := provision.StopLeft(dir, binary)
	if err != nil {
		return err
	}
	if left > 0 {
		return nil
	}
	return notRunning
}
