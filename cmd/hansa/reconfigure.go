package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hansa-ledger/hansa/internal/reconfigure"
)

// channelTimeout bounds what a command waits for nodes.
const channelTimeout = time.Minute

func newChannelConfig() *cobra.Command {
	var flags channelFlags
	var output string
	var sequence uint64
	c := &cobra.Command{
		Use:   "config",
		Short: "Show a channel's configuration as YAML",
		Args:  cobra.NoArgs,
		Long: `Show the newest configuration of a channel, in the words of hansa channel genesis: members with their certificates,
anchor peers, policies, access rules, batch size, capabilities, orderers. An edited copy is what hansa channel
update -f takes.`,
		Example: `  hansa channel config --data my-network --output business.yaml
  hansa channel config --channel business --peer peer0.example.com:7051 --tls-root tlsca.pem --identity Org1MSP=admin/msp`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := flags.open()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), channelTimeout)
			defer cancel()
			config, err := s.fetch(ctx)
			if err == nil && cmd.Flag("sequence").Changed {
				config, err = s.earlier(ctx, sequence)
			}
			if err != nil {
				return err
			}
			raw, err := configYAML(config)
			if err != nil {
				return err
			}
			if output == "" {
				_, err = cmd.OutOrStdout().Write(raw)
				return err
			}
			if err := os.WriteFile(output, raw, 0o644); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: configuration %d of channel %s, made by block %d\n", output, config.Sequence(), config.ID(), config.Block)
			return nil
		},
	}
	flags.register(c, false)
	c.Flags().StringVarP(&output, "output", "o", "", "the `file` to write instead of the standard output")
	c.Flags().Uint64Var(&sequence, "sequence", 0, "the `number` of an earlier configuration (default: the newest)")
	return c
}

func newChannelUpdate() *cobra.Command {
	var flags channelFlags
	var u update
	c := &cobra.Command{
		Use:   "update",
		Short: "Change a channel's configuration",
		Args:  cobra.NoArgs,
		Long: `Change the configuration of a channel: of an edited copy of what hansa channel config shows (-f), or, without a file,
in your editor ($VISUAL or $EDITOR). A file may also hold just the few lines that change, with the channel's name; and
--set changes single places.

The command shows what changes and whose signatures the channel's policies ask for, signs with the administrators'
keys at hand, and submits the update once the signatures are enough. If some are missing it writes a request, a file
for the other members: each adds its signature with hansa channel sign (or peer channel signconfigtx), and one of
them submits it with hansa channel submit.`,
		Example: `  hansa channel update --data my-network
  hansa channel update --data my-network -f business.yaml --dry-run
  hansa channel update --data my-network --set batch.timeout=1s --set 'policies.application.Endorsement=ANY Endorsement'
  hansa channel update --data my-network -f business.yaml --members org1 --request add-org3.request`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			s, err := flags.open()
			if err != nil {
				return err
			}
			return u.run(ctx, cmd, s)
		},
	}
	flags.register(c, true)
	f := c.Flags()
	f.StringVarP(&u.file, "file", "f", "", "the edited `file`, - for the standard input (default: open an editor)")
	f.StringArrayVar(&u.set, "set", nil, "`PATH=VALUE` in the configuration, such as batch.maxMessages=100; an empty value removes; may be repeated")
	f.BoolVar(&u.rebase, "rebase", false, "if the file is an edit of an older configuration, make its changes in the newest, unless others have changed the same")
	f.BoolVar(&u.dryRun, "dry-run", false, "show what would change and who must sign, and do nothing")
	f.StringVar(&u.request, "request", "", "do not submit: write the update, with the signatures at hand, to this `file` for other members to sign")
	f.BoolVar(&u.yes, "yes", false, "do not ask before submitting")
	u.force(c)
	return c
}

// update is one run of hansa channel update.
type update struct {
	file    string
	set     []string
	rebase  bool
	dryRun  bool
	request string
	submission
}

func (u *update) run(ctx context.Context, cmd *cobra.Command, s *channelSession) error {
	if len(s.orderers) == 0 && u.request == "" && !u.dryRun {
		return errors.New("--orderer is missing: an update is submitted to an orderer")
	}
	config, err := s.fetch(ctx)
	if err != nil {
		return err
	}
	kept := ""
	if u.file == "" && len(u.set) == 0 {
		kept, err = edit(ctx, cmd, config)
	} else if u.file != "" {
		err = u.read(ctx, cmd, s, config)
	}
	for _, assignment := range u.set {
		if err == nil {
			err = config.Set(assignment, ".")
		}
	}
	var request *reconfigure.Request
	if err == nil {
		request, err = config.Request()
	}
	if errors.Is(err, reconfigure.ErrNoChange) {
		os.Remove(kept)
		fmt.Fprintf(cmd.OutOrStdout(), "Nothing changes: the channel has this configuration.\n")
		return nil
	}
	if err == nil {
		err = u.decide(ctx, cmd, s, config, request)
	}
	switch {
	case errors.Is(err, reconfigure.ErrStale):
		err = s.explainStale(ctx, config, u.file, err)
	case err == nil && kept != "":
		os.Remove(kept)
		return nil
	}
	if err != nil && kept != "" {
		return fmt.Errorf("%w\nyour edit is kept in %s", err, kept)
	}
	return err
}

// decide shows and signs a request, and submits it or writes it for others.
func (u *update) decide(ctx context.Context, cmd *cobra.Command, s *channelSession, config *reconfigure.Config, request *reconfigure.Request) error {
	status, err := config.SignWhatIsNeeded(request, s.signers...)
	if err != nil {
		return err
	}
	if err := show(cmd.OutOrStdout(), config, status); err != nil {
		return err
	}
	if u.request == "" && status.Met() {
		return u.submit(ctx, cmd, s, config, request, status, u.dryRun)
	}
	if u.dryRun {
		warn(cmd.OutOrStdout(), config.Warnings(status))
		fmt.Fprintln(cmd.OutOrStdout(), "Nothing was done (--dry-run).")
		return nil
	}
	if err := u.heed(cmd, config, status); err != nil {
		return err
	}
	file := u.request
	if file == "" {
		file = fmt.Sprintf("%s-%d.request", config.ID(), config.Sequence()+1)
	}
	if err := writeRequest(file, request); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "The request is in %s. Others sign it: hansa channel sign %s; then: hansa channel submit %s\n", file, file, file)
	if u.request == "" {
		return errors.New("signatures are missing, nothing was submitted")
	}
	return nil
}

// read takes the edited file.
func (u *update) read(ctx context.Context, cmd *cobra.Command, s *channelSession, config *reconfigure.Config) error {
	var raw []byte
	var err error
	dir := "."
	if u.file == "-" {
		raw, err = io.ReadAll(cmd.InOrStdin())
	} else {
		dir = filepath.Dir(u.file)
		raw, err = os.ReadFile(u.file)
	}
	if err != nil {
		return err
	}
	if d, failed := reconfigure.ParseDocument(raw); u.rebase && failed == nil && d.Configuration != nil && *d.Configuration < config.Sequence() {
		var older *reconfigure.Config
		if older, err = s.earlier(ctx, *d.Configuration); err == nil {
			err = config.Rebase(raw, dir, older)
		}
	} else {
		err = config.EditYAML(raw, dir)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", u.file, err)
	}
	return nil
}

// edit opens an editor and gives the file that the edit is kept in.
func edit(ctx context.Context, cmd *cobra.Command, config *reconfigure.Config) (string, error) {
	editor := os.Getenv("VISUAL")
	if editor == "" {
		editor = os.Getenv("EDITOR")
	}
	if editor == "" {
		return "", errors.New("no editor: set EDITOR, or give the edited configuration with -f")
	}
	raw, err := configYAML(config)
	if err != nil {
		return "", err
	}
	file, err := os.CreateTemp("", config.ID()+"-*.yaml")
	if err != nil {
		return "", err
	}
	kept := file.Name()
	_, err = file.Write(raw)
	if err = errors.Join(err, file.Close()); err != nil {
		return kept, err
	}
	// As git does it: EDITOR may hold options.
	run := exec.CommandContext(ctx, "sh", "-c", editor+` "$1"`, editor, kept)
	run.Stdin, run.Stdout, run.Stderr = os.Stdin, cmd.OutOrStdout(), cmd.ErrOrStderr()
	if err := run.Run(); err != nil {
		return kept, fmt.Errorf("editor %s: %w", editor, err)
	}
	edited, err := os.ReadFile(kept)
	if err != nil {
		return kept, err
	}
	if bytes.Equal(edited, raw) {
		return kept, reconfigure.ErrNoChange
	}
	dir, err := os.Getwd()
	if err != nil {
		return kept, err
	}
	return kept, config.EditYAML(edited, dir)
}

func newChannelSign() *cobra.Command {
	var flags channelFlags
	var output string
	var submission submission
	c := &cobra.Command{
		Use:   "sign FILE...",
		Short: "Sign the request of another member to change a channel's configuration",
		Args:  cobra.MinimumNArgs(1),
		Long: `Show what a request would change in the channel's newest configuration, and add the signatures of the administrators
at hand, as far as they count. Ask a node of your own: what is shown is the difference from what that node says. Several
files, copies of one request that members signed each for themselves, become one. Files of peer channel signconfigtx
are read, and what is written it reads.`,
		Example: `  hansa channel sign add-org3.request --data my-network --members org2
  hansa channel sign add-org3.request --channel business --peer peer0.org2.example.com:7051 --tls-root tlsca.pem --identity Org2MSP=admin/msp`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, request, err := flags.openRequest(args)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), channelTimeout)
			defer cancel()
			config, err := s.fetch(ctx)
			if err != nil {
				return err
			}
			status, err := config.SignWhatIsNeeded(request, s.signers...)
			if err != nil {
				return err
			}
			if err := show(cmd.OutOrStdout(), config, status); err != nil {
				return err
			}
			if err := submission.heed(cmd, config, status); err != nil {
				return err
			}
			if output == "" {
				output = args[0]
			}
			if err := writeRequest(output, request); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Written to %s. ", output)
			if status.Met() {
				fmt.Fprintf(cmd.OutOrStdout(), "The signatures are enough: hansa channel submit %s\n", output)
			} else {
				fmt.Fprintln(cmd.OutOrStdout(), "More signatures are needed.")
			}
			return nil
		},
	}
	flags.register(c, true)
	c.Flags().StringVarP(&output, "output", "o", "", "the `file` to write (default: the first FILE)")
	submission.force(c)
	return c
}

func newChannelSubmit() *cobra.Command {
	var flags channelFlags
	var submission submission
	var dryRun bool
	c := &cobra.Command{
		Use:   "submit FILE...",
		Short: "Submit a signed request to change a channel's configuration",
		Args:  cobra.MinimumNArgs(1),
		Long: `Submit a request that members have signed, and wait until the new configuration is in force. Several files, copies of
one request that members signed each for themselves, become one. Signatures that are still missing are added if
administrators at hand can give them.`,
		Example: "  hansa channel submit add-org3.request --data my-network",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, request, err := flags.openRequest(args)
			if err != nil {
				return err
			}
			if len(s.orderers) == 0 && !dryRun {
				return errors.New("--orderer is missing: an update is submitted to an orderer")
			}
			config, err := s.fetch(cmd.Context())
			if err != nil {
				return err
			}
			status, err := config.SignWhatIsNeeded(request, s.signers...)
			if err != nil {
				return err
			}
			if err := show(cmd.OutOrStdout(), config, status); err != nil {
				return err
			}
			if !status.Met() {
				return errors.New("signatures are missing, nothing was submitted")
			}
			return submission.submit(cmd.Context(), cmd, s, config, request, status, dryRun)
		},
	}
	flags.register(c, true)
	c.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change and who must sign, and do nothing")
	c.Flags().BoolVar(&submission.yes, "yes", false, "do not ask before submitting")
	submission.force(c)
	return c
}

// openRequest reads copies of one request into one, and opens the session of its channel.
func (f *channelFlags) openRequest(files []string) (*channelSession, *reconfigure.Request, error) {
	var request *reconfigure.Request
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, err
		}
		r, err := reconfigure.ReadRequest(raw)
		if err == nil && request != nil {
			err = request.Merge(r)
		} else {
			request = r
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	if f.channel == "" {
		f.channel = request.ChannelID()
	}
	s, err := f.open()
	return s, request, err
}

// submission is how an update that is signed sufficiently gets into force.
type submission struct {
	yes    bool
	forced bool
}

func (u *submission) force(c *cobra.Command) {
	c.Flags().BoolVar(&u.forced, "force", false, "go on despite warnings")
}

// heed shows warnings, and stops at them unless they are known.
func (u *submission) heed(cmd *cobra.Command, config *reconfigure.Config, status *reconfigure.Status) error {
	warnings := config.Warnings(status)
	warn(cmd.OutOrStdout(), warnings)
	if len(warnings) > 0 && !u.forced {
		return errors.New("there are warnings, nothing was done; --force goes on despite them")
	}
	return nil
}

func (u *submission) submit(ctx context.Context, cmd *cobra.Command, s *channelSession, config *reconfigure.Config, request *reconfigure.Request, status *reconfigure.Status, dryRun bool) error {
	out := cmd.OutOrStdout()
	if dryRun {
		warn(out, config.Warnings(status))
		fmt.Fprintln(out, "Nothing was done (--dry-run).")
		return nil
	}
	if err := u.heed(cmd, config, status); err != nil {
		return err
	}
	if !u.yes && isTerminal(os.Stdin) && isTerminal(out) {
		fmt.Fprintf(out, "Submit this? [y/N] ")
		if !agrees(ctx, cmd.InOrStdin()) {
			return errors.New("nothing was submitted")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, channelTimeout)
	defer cancel()
	next, err := config.Submit(ctx, s.orderers, s.asker, request)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Configuration %d of channel %s is in force, made by block %d.\n", next.Sequence(), next.ID(), next.Block)
	for _, p := range s.peers {
		if err := reconfigure.AwaitBlock(ctx, p, s.reader(p), s.channel, next.Block); err != nil {
			fmt.Fprintf(out, "Whether the peer has it is not known: %v\n", err)
		}
	}
	return nil
}

// agrees waits for an answer that begins with y; Ctrl-C is none.
func agrees(ctx context.Context, in io.Reader) bool {
	answered := make(chan string, 1) // the reader cannot be interrupted: the end of the program ends it
	go func() {
		var answer string
		fmt.Fscanln(in, &answer)
		answered <- answer
	}()
	select {
	case answer := <-answered:
		return strings.HasPrefix(strings.ToLower(answer), "y")
	case <-ctx.Done():
		return false
	}
}

func (s *channelSession) fetch(ctx context.Context) (*reconfigure.Config, error) {
	ctx, cancel := context.WithTimeout(ctx, channelTimeout)
	defer cancel()
	return reconfigure.Fetch(ctx, s.nodes(), s.asker, s.channel)
}

func (s *channelSession) earlier(ctx context.Context, sequence uint64) (*reconfigure.Config, error) {
	ctx, cancel := context.WithTimeout(ctx, channelTimeout)
	defer cancel()
	return reconfigure.FetchSequence(ctx, s.nodes(), s.asker, s.channel, sequence)
}

// explainStale says what others have changed since the configuration that was edited.
func (s *channelSession) explainStale(ctx context.Context, config *reconfigure.Config, file string, stale error) error {
	now, err := s.fetch(ctx)
	if err != nil {
		return stale
	}
	from := config
	if edited, ok := editedSequence(file); ok && edited < now.Sequence() {
		if from, err = s.earlier(ctx, edited); err != nil {
			return stale
		}
	}
	differences, err := now.DifferencesFrom(from)
	if err != nil || len(differences) == 0 {
		return stale
	}
	var b strings.Builder
	for _, d := range differences {
		fmt.Fprintf(&b, "\n  %s", d)
	}
	return fmt.Errorf("%w\nsince then others have changed:%s\nnothing was submitted; edit the newest configuration (hansa channel config), or try --rebase", stale, b.String())
}

// editedSequence reads which configuration a file is an edit of.
func editedSequence(file string) (uint64, bool) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	d, err := reconfigure.ParseDocument(raw)
	if err != nil || d.Configuration == nil {
		return 0, false
	}
	return *d.Configuration, true
}

func configYAML(config *reconfigure.Config) ([]byte, error) {
	d, err := config.Document()
	if err != nil {
		return nil, err
	}
	return d.YAML()
}

func writeRequest(file string, request *reconfigure.Request) error {
	raw, err := request.Bytes()
	if err != nil {
		return err
	}
	return os.WriteFile(file, raw, 0o644)
}

// Colours of terminals.
const (
	red, green, yellow, plain = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"
)

func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// coloured colours a text if it goes to a terminal.
func coloured(out io.Writer, colour, text string) string {
	if !isTerminal(out) || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return colour + text + plain
}

// show says what an update changes, who must sign it and who has.
func show(out io.Writer, config *reconfigure.Config, status *reconfigure.Status) error {
	differences, err := config.Differences(status)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Changes of channel %s, configuration %d:\n", config.ID(), config.Sequence())
	for _, d := range differences {
		colour := map[string]string{"+": green, "-": red, "~": yellow}[d.Mark()]
		fmt.Fprintf(out, "  %s\n", coloured(out, colour, d.String()))
	}
	if len(differences) == 0 {
		fmt.Fprintln(out, "  none that has an effect")
	}
	fmt.Fprintln(out, "Signatures:")
	for _, name := range status.Signed {
		fmt.Fprintf(out, "  signed by %s\n", name)
	}
	for _, n := range status.Needs {
		rule := ""
		if n.Rule != "" {
			rule = " (" + n.Rule + ")"
		}
		if n.Met {
			fmt.Fprintf(out, "  %s %s%s\n", coloured(out, green, "met:"), n.Policy, rule)
			continue
		}
		fmt.Fprintf(out, "  %s %s%s, for %s\n           still needs %s\n", coloured(out, red, "not met:"), n.Policy, rule, strings.Join(n.For, ", "), n.Missing)
	}
	return nil
}

func warn(out io.Writer, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(out, "%s %s\n", coloured(out, yellow, "warning:"), w)
	}
}
