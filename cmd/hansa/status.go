package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/hansa-ledger/hansa/internal/provision"
)

func newStatus() *cobra.Command {
	var dir string
	var asJSON bool
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show the processes of a network",
		GroupID: "network",
		Args:    cobra.NoArgs,
		Example: `  hansa status --data my-network
  hansa status --data my-network --json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := provision.Load(dir); err != nil {
				return err
			}
			control, err := provision.NewControl(dir)
			if err != nil {
				return err
			}
			all, err := control.Status(cmd.Context())
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if asJSON {
				encoder := json.NewEncoder(out)
				encoder.SetIndent("", "  ")
				return encoder.Encode(all)
			}
			table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
			fmt.Fprintln(table, "NAME\tROLE\tADDRESS\tSTATE\tPID\tUP\tRESTARTS")
			for _, p := range all {
				state, up := "serves", time.Since(p.Since).Round(time.Second).String()
				switch {
				case p.PID == 0:
					state, up = "down, see hansa logs "+p.Name, "-"
				case !p.Ready:
					state = "not ready"
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%s\t%d\n", p.Name, p.Role, p.Address, state, p.PID, up, p.Restarts)
			}
			return table.Flush()
		},
	}
	dataFlag(c, &dir)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newLogs() *cobra.Command {
	var dir string
	var follow bool
	var lines int
	c := &cobra.Command{
		Use:     "logs [NAME...]",
		Short:   "Show what the processes of a network wrote",
		GroupID: "network",
		Long:    "Show what the processes of a network wrote: those that are named, as hansa status names them, or all. A network that is stopped has logs too.",
		Example: `  hansa logs --data my-network
  hansa logs peer0.org1 orderer0 --follow --data my-network`,
		RunE: func(cmd *cobra.Command, names []string) error {
			if lines < 0 {
				return fmt.Errorf("--lines %d: it must not be negative", lines)
			}
			n, err := provision.Load(dir)
			if err != nil {
				return err
			}
			files, err := n.Logs(names...)
			if err != nil {
				return err
			}
			return showLogs(cmd.Context(), cmd.OutOrStdout(), files, lines, follow)
		},
	}
	dataFlag(c, &dir)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on showing new lines until Ctrl-C")
	c.Flags().IntVarP(&lines, "lines", "n", 20, "how many of the last lines of each")
	return c
}

// showLogs prints the ends of files, each line after its process's name.
func showLogs(ctx context.Context, out io.Writer, files map[string]string, lines int, follow bool) error {
	var mu sync.Mutex // one line at a time
	var group sync.WaitGroup
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		args := []string{"-n", fmt.Sprint(lines)}
		if follow {
			args = append(args, "-F")
		}
		tail := exec.CommandContext(ctx, "tail", append(args, files[name])...)
		tail.Stderr = os.Stderr
		pipe, err := tail.StdoutPipe()
		if err != nil {
			return err
		}
		if err := tail.Start(); err != nil {
			return fmt.Errorf("read logs: %w", err)
		}
		show := func() {
			scanner := bufio.NewScanner(pipe)
			scanner.Buffer(nil, 1<<20)
			for scanner.Scan() {
				mu.Lock()
				fmt.Fprintf(out, "%-16s %s\n", name, scanner.Text())
				mu.Unlock()
			}
			tail.Wait()
		}
		if follow {
			group.Go(show)
		} else {
			show()
		}
	}
	group.Wait()
	if err := ctx.Err(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
