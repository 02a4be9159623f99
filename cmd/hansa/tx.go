package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/internal/provision"
)

func memberFlag(c *cobra.Command, member *string) {
	c.Flags().StringVar(member, "member", "", "the `member` on whose behalf and through whose peer (default: the first)")
}

// openChannel connects to a member's peer as one of its users.
func openChannel(dir, member, user string) (*provision.Network, *client.Channel, func() error, error) {
	n, err := provision.Load(dir)
	if err != nil {
		return nil, nil, nil, err
	}
	m := n.Members[0]
	if member != "" {
		if m, err = n.Member(member); err != nil {
			return nil, nil, nil, err
		}
	}
	c, err := n.Client(m, user)
	if err != nil {
		return nil, nil, nil, err
	}
	return n, c.Channel(n.Channel), c.Close, nil
}

func newTx() *cobra.Command {
	c := &cobra.Command{
		Use:     "tx",
		Short:   "Call a contract",
		GroupID: "use",
	}
	c.AddCommand(
		newCall("submit", "Submit a transaction and wait until it is committed", "submit asset CreateAsset a1 blue 5 Ann 300 --data my-network", (*txCall).submit),
		newCall("evaluate", "Run a function on one peer, without a transaction", "evaluate asset ReadAsset a1 --data my-network", (*txCall).evaluate))
	return c
}

// txCall is one call from the command line.
type txCall struct {
	contract *client.Contract
	call     client.Call
	asJSON   bool
}

func newCall(use, short, example string, run func(*txCall, *cobra.Command) error) *cobra.Command {
	var dir, member, user string
	var transient, endorsers []string
	t := &txCall{}
	c := &cobra.Command{
		Use:     use + " CONTRACT FUNCTION [ARGUMENT...]",
		Short:   short,
		Args:    cobra.MinimumNArgs(2),
		Example: "  hansa tx " + example,
		RunE: func(cmd *cobra.Command, args []string) error {
			t.call = client.Strings(args[1], args[2:]...)
			t.call.Members = endorsers
			if len(transient) > 0 {
				t.call.Transient = map[string][]byte{}
			}
			for _, pair := range transient {
				name, value, ok := strings.Cut(pair, "=")
				if !ok {
					return fmt.Errorf("--transient %q: NAME=VALUE is wanted", pair)
				}
				t.call.Transient[name] = []byte(value)
			}
			_, ch, closeClient, err := openChannel(dir, member, user)
			if err != nil {
				return err
			}
			defer closeClient()
			t.contract = ch.Contract(args[0])
			return run(t, cmd)
		},
	}
	dataFlag(c, &dir)
	memberFlag(c, &member)
	f := c.Flags()
	f.StringVar(&user, "user", "User1", "the member's `user`")
	f.StringArrayVar(&transient, "transient", nil, "`NAME=VALUE` that reaches the contract and not the ledger; may be repeated")
	f.StringSliceVar(&endorsers, "endorsers", nil, "`MSP ids` whose peers run the function, instead of those that the policy asks for")
	f.BoolVar(&t.asJSON, "json", false, "print JSON")
	return c
}

func (t *txCall) submit(cmd *cobra.Command) error {
	commit, err := t.contract.SubmitAsync(cmd.Context(), t.call)
	if err != nil {
		return err
	}
	status, err := commit.Status(cmd.Context())
	if err != nil {
		return err
	}
	if err := status.Err(); err != nil {
		return err
	}
	if t.asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{
			"transaction": status.TxID, "block": status.Block, "code": status.Code, "result": string(commit.Result())})
	}
	if result := commit.Result(); len(result) > 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "%s\n", result)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "transaction %s committed in block %d\n", status.TxID, status.Block)
	return nil
}

func (t *txCall) evaluate(cmd *cobra.Command) error {
	result, err := t.contract.Evaluate(cmd.Context(), t.call)
	if err != nil {
		return err
	}
	if t.asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"result": string(result)})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s\n", result)
	return nil
}
