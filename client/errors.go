package client

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
)

// Error is a step that failed before the transaction was committed.
type Error struct {
	Step string // "evaluate", "endorse", "submit", "commit status", "events"
	TxID string // "" for events
	// Code is the gRPC code: Unavailable and ResourceExhausted may be retried.
	Code codes.Code
	// Details says which nodes failed, and why.
	Details []Detail
	err     error
}

// Detail is one node's failure.
type Detail struct{ Address, MSPID, Message string }

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", e.Step)
	if e.TxID != "" {
		fmt.Fprintf(&b, " transaction %s", e.TxID)
	}
	fmt.Fprintf(&b, ": %v", e.err)
	for _, d := range e.Details {
		fmt.Fprintf(&b, "; %s (%s): %s", d.Address, d.MSPID, d.Message)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.err }

// CommitError is a transaction that stands in the ledger as invalid: it changed nothing.
type CommitError struct{ Status }

func (e *CommitError) Error() string {
	return fmt.Sprintf("transaction %s stands in block %d as invalid: %s", e.TxID, e.Block, e.Code)
}

func stepError(step, txID string, err error) error {
	s := status.Convert(err)
	e := &Error{Step: step, TxID: txID, Code: s.Code(), err: err}
	for _, d := range s.Proto().GetDetails() {
		detail := &gatewaypb.ErrorDetail{}
		// The type is registered under another name here, so it is matched by its URL.
		if strings.HasSuffix(d.TypeUrl, "/gateway.ErrorDetail") && proto.Unmarshal(d.Value, detail) == nil {
			e.Details = append(e.Details, Detail{detail.Address, detail.MspId, detail.Message})
		}
	}
	return e
}
