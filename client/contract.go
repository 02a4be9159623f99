package client

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Contract is a handle of one contract of a channel.
type Contract struct {
	channel *Channel
	name    string
}

// Call is one invocation of a contract's function.
type Call struct {
	Function string
	Args     [][]byte
	// Transient reaches the contract but not the ledger.
	Transient map[string][]byte
	// Members, if set, are the MSP ids whose peers endorse (or evaluate) instead of
	// those that the contract's policy asks for.
	Members []string
}

// Strings makes a Call of text arguments.
func Strings(function string, args ...string) Call {
	c := Call{Function: function, Args: make([][]byte, len(args))}
	for i, a := range args {
		c.Args[i] = []byte(a)
	}
	return c
}

// Evaluate runs a function on one peer and returns its result; nothing is recorded.
func (c *Contract) Evaluate(ctx context.Context, call Call) ([]byte, error) {
	p, err := c.Propose(call)
	if err != nil {
		return nil, err
	}
	return p.Evaluate(ctx)
}

// Submit runs a function as a transaction and waits until it is committed. A
// transaction that was ordered but found invalid is a *CommitError.
func (c *Contract) Submit(ctx context.Context, call Call) ([]byte, error) {
	commit, err := c.SubmitAsync(ctx, call)
	if err != nil {
		return nil, err
	}
	status, err := commit.Status(ctx)
	if err != nil {
		return nil, err
	}
	return commit.Result(), status.Err()
}

// SubmitAsync returns once the transaction is ordered; the Commit tells the rest.
func (c *Contract) SubmitAsync(ctx context.Context, call Call) (*Commit, error) {
	p, err := c.Propose(call)
	if err != nil {
		return nil, err
	}
	tx, err := p.Endorse(ctx)
	if err != nil {
		return nil, err
	}
	return tx.Submit(ctx)
}

// Propose makes and signs a proposal.
func (c *Contract) Propose(call Call) (*Proposal, error) {
	p, signed, err := envelope.NewProposal(c.channel.client.config.Identity, envelope.ProposalArgs{
		Type: commonpb.HeaderType_ENDORSER_TRANSACTION, ChannelID: c.channel.id, Chaincode: c.name,
		Args:      append([][]byte{[]byte(call.Function)}, call.Args...),
		Transient: call.Transient,
	})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return &Proposal{c.channel, p.TxID, signed, call.Members}, nil
}

// Proposal is a signed request to run a function.
type Proposal struct {
	channel *Channel
	txID    string
	signed  *peerpb.SignedProposal
	members []string
}

// TxID is the identifier that the transaction will have.
func (p *Proposal) TxID() string { return p.txID }

// Evaluate runs the proposal on one peer and returns its result.
func (p *Proposal) Evaluate(ctx context.Context) ([]byte, error) {
	c := p.channel.client
	ctx, cancel := limited(ctx, c.config.EvaluateTimeout)
	defer cancel()
	response, err := c.gateway.Evaluate(ctx, &gatewaypb.EvaluateRequest{
		TransactionId: p.txID, ChannelId: p.channel.id, ProposedTransaction: p.signed, TargetOrganizations: p.members})
	if err != nil {
		return nil, stepError("evaluate", p.txID, err)
	}
	return response.GetResult().GetPayload(), nil
}

// Endorse collects the endorsements that the contract's policy asks for.
func (p *Proposal) Endorse(ctx context.Context) (*Transaction, error) {
	c := p.channel.client
	ctx, cancel := limited(ctx, c.config.EndorseTimeout)
	defer cancel()
	response, err := c.gateway.Endorse(ctx, &gatewaypb.EndorseRequest{
		TransactionId: p.txID, ChannelId: p.channel.id, ProposedTransaction: p.signed, EndorsingOrganizations: p.members})
	if err != nil {
		return nil, stepError("endorse", p.txID, err)
	}
	// The gateway is not trusted to assemble another transaction than ours.
	tx := envelope.Parse(mustMarshal(response.GetPreparedTransaction()))
	if tx.ID() != p.txID {
		return nil, stepError("endorse", p.txID, fmt.Errorf("the gateway prepared transaction %q", tx.ID()))
	}
	if len(tx.Actions) != 1 || tx.Actions[0].Chaincode == nil {
		return nil, stepError("endorse", p.txID, errors.New("the gateway's prepared transaction holds no result"))
	}
	return &Transaction{p.channel, p.txID, response.PreparedTransaction, tx.Actions[0].Chaincode.GetResponse().GetPayload()}, nil
}

func mustMarshal(m proto.Message) []byte {
	raw, err := proto.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("client: a message that was received has no encoding: %v", err))
	}
	return raw
}

// Transaction is an endorsed transaction, not yet signed by the client.
type Transaction struct {
	channel  *Channel
	txID     string
	envelope *commonpb.Envelope
	result   []byte
}

// TxID is the transaction's identifier.
func (t *Transaction) TxID() string { return t.txID }

// Result is what the function returned to the endorsers.
func (t *Transaction) Result() []byte { return t.result }

// Submit signs the transaction and hands it to the ordering service.
func (t *Transaction) Submit(ctx context.Context) (*Commit, error) {
	c := t.channel.client
	signature, err := c.config.Identity.Sign(t.envelope.Payload)
	if err != nil {
		return nil, stepError("submit", t.txID, err)
	}
	ctx, cancel := limited(ctx, c.config.SubmitTimeout)
	defer cancel()
	_, err = c.gateway.Submit(ctx, &gatewaypb.SubmitRequest{TransactionId: t.txID, ChannelId: t.channel.id,
		PreparedTransaction: &commonpb.Envelope{Payload: t.envelope.Payload, Signature: signature}})
	if err != nil {
		return nil, stepError("submit", t.txID, err)
	}
	return &Commit{t.channel, t.txID, t.result}, nil
}

// Commit is a transaction on its way into the ledger.
type Commit struct {
	channel *Channel
	txID    string
	result  []byte
}

// TxID is the transaction's identifier.
func (c *Commit) TxID() string { return c.txID }

// Result is what the function returned to the endorsers.
func (c *Commit) Result() []byte { return c.result }

// Status is what became of a transaction.
type Status struct {
	TxID  string
	Block uint64
	// Code is the validation code's name: "VALID", "MVCC_READ_CONFLICT", ...
	Code string
}

// Err is nil for a valid transaction and a *CommitError otherwise.
func (s Status) Err() error {
	if s.Code == peerpb.TxValidationCode_VALID.String() {
		return nil
	}
	return &CommitError{s}
}

// Status waits until the transaction is committed and returns its validation code.
func (c *Commit) Status(ctx context.Context) (Status, error) {
	return c.channel.Status(ctx, c.txID)
}

// Status waits until a transaction, from whichever client, is committed.
func (ch *Channel) Status(ctx context.Context, txID string) (Status, error) {
	c := ch.client
	request := mustMarshal(&gatewaypb.CommitStatusRequest{TransactionId: txID, ChannelId: ch.id, Identity: c.config.Identity.Serialize()})
	signature, err := c.config.Identity.Sign(request)
	if err != nil {
		return Status{}, stepError("commit status", txID, err)
	}
	ctx, cancel := limited(ctx, c.config.CommitTimeout)
	defer cancel()
	response, err := c.gateway.CommitStatus(ctx, &gatewaypb.SignedCommitStatusRequest{Request: request, Signature: signature})
	if err != nil {
		return Status{}, stepError("commit status", txID, err)
	}
	return Status{TxID: txID, Block: response.BlockNumber, Code: response.Result.String()}, nil
}
