// Package qscc is the system contract that answers queries about a channel's
// ledger: its height, blocks and transactions.
//
// Functions, arguments, status codes and messages are those of Hyperledger
// Fabric's qscc, so that `peer channel getinfo` and the SDKs work unmodified.
// Callers must satisfy the channel's rule for the resource "qscc/<function>",
// which is the Readers policy unless the channel says otherwise.
//
// It reads the ledger and never the state, so it adds nothing to a transaction.
// There is only this file.
package qscc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/ledger"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

const name = "qscc"

// Ledger is one channel's ledger, as far as queries read it. What it does not
// hold is ledger.ErrNotFound. Implementations are safe for concurrent use.
type Ledger interface {
	Info() *commonpb.BlockchainInfo
	// BlockBytes gives an encoded block, which stays the ledger's.
	BlockBytes(n uint64) ([]byte, error)
	BlockByHash(hash []byte) (*commonpb.Block, error)
	BlockByTxID(id string) (*commonpb.Block, error)
	Transaction(id string) (*peerpb.ProcessedTransaction, error)
}

var _ Ledger = (*ledger.Ledger)(nil)

// Access decides whether the signer of a proposal may use a resource of a channel.
type Access interface {
	Check(channelID, resource string, sp *peerpb.SignedProposal) error
}

// Config is what the contract works on.
type Config struct {
	// Ledger finds the ledger of a channel that this peer is a member of.
	Ledger func(channelID string) (Ledger, bool)
	// Access guards every function.
	Access Access
}

// Contract is the system contract. It holds no state.
type Contract struct{ config Config }

// New makes the contract; both fields of the Config are needed.
func New(c Config) *Contract { return &Contract{config: c} }

// Name is the name that proposals call it by.
func (c *Contract) Name() string { return name }

// Invoke answers one query: args[0] is the function, args[1] the channel, args[2] what to look for.
func (c *Contract) Invoke(_ context.Context, call *simulation.Call) *peerpb.Response {
	args := call.Args
	if len(args) < 2 {
		return failure("Incorrect number of arguments, %d", len(args))
	}
	function, channelID := string(args[0]), string(args[1])
	switch called, err := calledContract(call.Proposal); {
	case err != nil:
		return failure("Failed to identify the called chaincode: %s", err)
	case called != name:
		// A contract on the channel could wait for itself by asking for its own commit.
		return failure("Rejecting invoke of QSCC from another chaincode because of potential for deadlocks, original invocation for '%s'", called)
	}
	if function != "GetChainInfo" && len(args) < 3 {
		return failure("missing 3rd argument for %s", function)
	}
	l, ok := c.config.Ledger(channelID)
	if !ok {
		return failure("Invalid chain ID, %s", channelID)
	}
	if err := c.config.Access.Check(channelID, name+"/"+function, call.Proposal); err != nil {
		return failure("access denied for [%s][%s]: [%s]", function, channelID, err)
	}
	query, ok := queries[function]
	if !ok {
		return failure("Requested function %s not found.", function)
	}
	var argument []byte
	if len(args) > 2 {
		argument = args[2]
	}
	return query(l, argument)
}

// calledContract is the contract that the client itself called with its proposal.
func calledContract(sp *peerpb.SignedProposal) (string, error) {
	var proposal peerpb.Proposal
	var payload peerpb.ChaincodeProposalPayload
	var spec peerpb.ChaincodeInvocationSpec
	if err := proto.Unmarshal(sp.GetProposalBytes(), &proposal); err != nil {
		return "", fmt.Errorf("could not unmarshal proposal: %w", err)
	}
	if err := proto.Unmarshal(proposal.Payload, &payload); err != nil {
		return "", fmt.Errorf("could not unmarshal chaincode proposal payload: %w", err)
	}
	if err := proto.Unmarshal(payload.Input, &spec); err != nil {
		return "", fmt.Errorf("could not unmarshal chaincode invocation spec: %w", err)
	}
	return spec.GetChaincodeSpec().GetChaincodeId().GetName(), nil
}

// queries is never written to.
var queries = map[string]func(Ledger, []byte) *peerpb.Response{
	"GetChainInfo":       chainInfo,
	"GetBlockByNumber":   blockByNumber,
	"GetBlockByHash":     blockByHash,
	"GetBlockByTxID":     blockByTxID,
	"GetTransactionByID": transactionByID,
}

func chainInfo(l Ledger, _ []byte) *peerpb.Response { return success(l.Info()) }

func blockByNumber(l Ledger, argument []byte) *peerpb.Response {
	n, err := strconv.ParseUint(string(argument), 10, 64)
	if err != nil {
		return failure("Failed to parse block number with error %s", err)
	}
	at := n
	if n == math.MaxUint64 { // asks for the last block
		at = l.Info().GetHeight() - 1
	}
	raw, err := l.BlockBytes(at)
	if err != nil {
		return failure("Failed to get block number %d, error %s", n, missing(err, "no such block number [%d] in index", n))
	}
	return &peerpb.Response{Status: int32(commonpb.Status_SUCCESS), Payload: raw}
}

func blockByHash(l Ledger, hash []byte) *peerpb.Response {
	b, err := l.BlockByHash(hash)
	if err != nil {
		// The client gave arbitrary bytes, and a message must be text.
		return failure("Failed to get block hash %x, error %s", hash, missing(err, "no such block hash [%x] in index", hash))
	}
	return success(b)
}

func blockByTxID(l Ledger, id []byte) *peerpb.Response {
	b, err := l.BlockByTxID(string(id))
	if err != nil {
		return failure("Failed to get block for txID %s, error %s", id, missing(err, "no such transaction ID [%s] in index", id))
	}
	return success(b)
}

func transactionByID(l Ledger, id []byte) *peerpb.Response {
	tx, err := l.Transaction(string(id))
	if err != nil {
		return failure("Failed to get transaction with id %s, error %s", id, missing(err, "no such transaction ID [%s] in index", id))
	}
	return success(tx)
}

// missing says in Fabric's words, which clients look for, that something is not on the ledger.
func missing(err error, format string, what any) error {
	if before := (*ledger.BeforeSnapshotError)(nil); errors.As(err, &before) {
		return before
	}
	if errors.Is(err, ledger.ErrNotFound) {
		return fmt.Errorf(format, what)
	}
	return err
}

func success(m proto.Message) *peerpb.Response {
	raw, err := proto.Marshal(m)
	if err != nil {
		return failure("%s", err)
	}
	return &peerpb.Response{Status: int32(commonpb.Status_SUCCESS), Payload: raw}
}

func failure(format string, args ...any) *peerpb.Response {
	return &peerpb.Response{Status: int32(commonpb.Status_INTERNAL_SERVER_ERROR), Message: strings.ToValidUTF8(fmt.Sprintf(format, args...), "?")}
}
