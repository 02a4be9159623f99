package gateway

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Evaluate runs a proposal on one peer, the gateway's own where it can, and
// returns its result. Nothing is ordered.
func (s *Server) Evaluate(ctx context.Context, request *gatewaypb.EvaluateRequest) (*gatewaypb.EvaluateResponse, error) {
	in, err := parseInvocation(request.GetProposedTransaction())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "failed to unpack transaction proposal: %s", err)
	}
	if _, ok := s.Channels(in.channelID); !ok {
		return nil, status.Errorf(codes.Unavailable, "failed to get config for channel [%s]: the peer has not joined it", in.channelID)
	}
	peers, err := s.evaluators(in, request.GetTargetOrganizations())
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	var details []*gatewaypb.ErrorDetail
	code := codes.Unavailable
	for _, p := range peers {
		response, err := s.call(ctx, p, in.signed)
		if ctx.Err() != nil {
			return nil, fail(codes.DeadlineExceeded, "evaluate timeout expired", details...)
		}
		v := judge(response, err)
		if v.code == codes.OK {
			return &gatewaypb.EvaluateResponse{Result: result(response)}, nil
		}
		code = v.code
		details = append(details, detail(p.Address, p.MSPID, v.message))
		if v.unreachable && p.Failed != nil {
			p.Failed()
		}
		if !v.retry {
			return nil, fail(v.code, "evaluate call to endorser returned error: "+v.message, details...)
		}
	}
	return nil, fail(code, "failed to evaluate transaction, see attached details for more info", details...)
}

// call asks one peer. A defect that a request meets in this peer's own endorser
// is an error of that call: it must not stop a node that serves others.
func (s *Server) call(ctx context.Context, p Peer, signed *peerpb.SignedProposal) (response *peerpb.ProposalResponse, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.Log.Error("panic in a call to an endorser", "endorser", p.Address, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			response, err = nil, status.Error(codes.Internal, "internal error")
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, s.EndorsementTimeout)
	defer cancel()
	return p.ProcessProposal(ctx, signed)
}

// evaluators lists the peers to try: the gateway's own member first, then the
// other targets. Transient data stays at home unless the client names others.
func (s *Server) evaluators(in *invocation, targets []string) ([]Peer, error) {
	available := s.Peers.Endorsers(in.channelID, in.chaincode)
	protected := in.transient && len(targets) == 0
	switch {
	case protected:
		targets = []string{s.MSPID}
	case len(targets) == 0:
		targets = slices.Sorted(maps.Keys(available))
	}
	var own, others []Peer
	for _, msp := range targets {
		if msp == s.MSPID {
			own = available[msp]
		} else {
			others = append(others, available[msp]...)
		}
	}
	// Other members' peers: those ready first, the highest ledgers first.
	slices.SortStableFunc(others, func(a, b Peer) int {
		switch {
		case a.Ready == b.Ready:
			return cmp.Compare(b.Height, a.Height)
		case a.Ready:
			return -1
		}
		return 1
	})
	if peers := slices.Concat(own, others); len(peers) > 0 {
		return peers, nil
	}
	err := fmt.Errorf("no peers available to evaluate chaincode %s in channel %s", in.chaincode, in.channelID)
	if protected {
		err = fmt.Errorf("no endorsers found in the gateway's organization; retry specifying target organization(s) to protect transient data: %w", err)
	}
	return nil, err
}

// result prefers the contract's own answer in the endorsed action over the
// response's copy, which an endorser may leave out.
func result(response *peerpb.ProposalResponse) *peerpb.Response {
	var payload peerpb.ProposalResponsePayload
	var action peerpb.ChaincodeAction
	if proto.Unmarshal(response.Payload, &payload) == nil && proto.Unmarshal(payload.Extension, &action) == nil && action.Response != nil {
		response.Response.Payload = action.Response.Payload
	}
	return response.Response
}
