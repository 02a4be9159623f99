package gateway

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// invocation is what a gateway reads of a client's proposal.
type invocation struct {
	signed    *peerpb.SignedProposal
	proposal  *peerpb.Proposal
	channelID string
	chaincode string
	transient bool // carries data that must not leave its collection's members
}

func parseInvocation(signed *peerpb.SignedProposal) (*invocation, error) {
	if len(signed.GetProposalBytes()) == 0 {
		return nil, fmt.Errorf("a signed proposal is required")
	}
	in := &invocation{signed: signed, proposal: &peerpb.Proposal{}}
	var header commonpb.Header
	var channelHeader commonpb.ChannelHeader
	var payload peerpb.ChaincodeProposalPayload
	var spec peerpb.ChaincodeInvocationSpec
	for _, layer := range []struct {
		name string
		raw  func() []byte
		into proto.Message
	}{
		{"proposal", signed.GetProposalBytes, in.proposal},
		{"header", in.proposal.GetHeader, &header},
		{"channel header", header.GetChannelHeader, &channelHeader},
		{"chaincode proposal payload", in.proposal.GetPayload, &payload},
		{"chaincode invocation spec", payload.GetInput, &spec},
	} {
		if err := proto.Unmarshal(layer.raw(), layer.into); err != nil {
			return nil, fmt.Errorf("error unmarshalling %s: %w", layer.name, err)
		}
	}
	in.channelID = channelHeader.ChannelId
	in.chaincode = spec.GetChaincodeSpec().GetChaincodeId().GetName()
	in.transient = len(payload.TransientMap) > 0
	switch {
	case in.channelID == "":
		return nil, fmt.Errorf("no channel id provided")
	case spec.ChaincodeSpec == nil:
		return nil, fmt.Errorf("no chaincode spec is provided, channel id [%s]", in.channelID)
	case spec.ChaincodeSpec.ChaincodeId == nil:
		return nil, fmt.Errorf("no chaincode id is provided, channel id [%s]", in.channelID)
	case in.chaincode == "":
		return nil, fmt.Errorf("no chaincode name is provided, channel id [%s]", in.channelID)
	}
	return in, nil
}

// Endorse collects endorsements until the contract's policy is satisfied and
// returns the transaction for the client to sign.
func (s *Server) Endorse(ctx context.Context, request *gatewaypb.EndorseRequest) (*gatewaypb.EndorseResponse, error) {
	if len(request.GetProposedTransaction().GetProposalBytes()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the proposed transaction must contain a signed proposal")
	}
	in, err := parseInvocation(request.ProposedTransaction)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	c := &collection{server: s, in: in, peers: s.Peers.Endorsers(in.channelID, in.chaincode), used: map[string]bool{}, have: discovery.Layout{}}
	if orgs := request.GetEndorsingOrganizations(); len(orgs) > 0 {
		err = c.fromMembers(ctx, orgs)
	} else {
		err = c.fromPolicy(ctx)
	}
	if err != nil {
		return nil, err
	}
	payload, err := envelope.AssembleTx(in.proposal, c.responses)
	if err != nil {
		return nil, status.Errorf(codes.Aborted, "failed to assemble transaction: %s", err)
	}
	raw, err := proto.Marshal(payload)
	if err != nil {
		return nil, status.Errorf(codes.Aborted, "failed to assemble transaction: %s", err)
	}
	return &gatewaypb.EndorseResponse{PreparedTransaction: &commonpb.Envelope{Payload: raw}}, nil
}

// collection gathers the endorsements of one proposal. It is used by one
// goroutine; calls to endorsers run beside it and report over channels.
type collection struct {
	server    *Server
	in        *invocation
	peers     map[string][]Peer
	used      map[string]bool // by address: asked already
	have      discovery.Layout
	responses []*peerpb.ProposalResponse
	details   []*gatewaypb.ErrorDetail
}

type answer struct {
	peer     Peer
	response *peerpb.ProposalResponse
	err      error
}

// next returns a peer of the member that was not asked yet.
func (c *collection) next(mspID string) (Peer, bool) {
	for _, p := range c.peers[mspID] {
		if !c.used[p.Address] {
			c.used[p.Address] = true
			return p, true
		}
	}
	return Peer{}, false
}

func (c *collection) ask(ctx context.Context, p Peer, answers chan<- answer) {
	go func() {
		ctx, cancel := context.WithTimeout(ctx, c.server.EndorsementTimeout)
		defer cancel()
		response, err := p.ProcessProposal(ctx, c.in.signed)
		answers <- answer{p, response, err}
	}()
}

// accept files an answer and says whether it is an endorsement that agrees with
// those before it. A disagreeing one is an error of that endorser: the first
// result stands, as the client may retry with others.
func (c *collection) accept(a answer) bool {
	v := judge(a.response, a.err)
	if v.code == codes.OK && len(c.responses) > 0 && !bytes.Equal(c.responses[0].Payload, a.response.Payload) {
		v = verdict{code: codes.Aborted, message: "ProposalResponsePayloads do not match"}
		c.server.Log.Warn("endorsers disagree", "channel", c.in.channelID, "chaincode", c.in.chaincode, "endorser", a.peer.Address, "msp", a.peer.MSPID)
	}
	if v.code != codes.OK {
		if v.unreachable && a.peer.Failed != nil {
			a.peer.Failed()
		}
		c.details = append(c.details, detail(a.peer.Address, a.peer.MSPID, v.message))
		return false
	}
	if a.response.Response != nil {
		a.response.Response.Payload = nil // it stands in the agreed payload already
	}
	c.responses = append(c.responses, a.response)
	c.have[a.peer.MSPID]++
	return true
}

// fromMembers asks one peer of each named member; the client answers for the policy.
func (c *collection) fromMembers(ctx context.Context, orgs []string) error {
	want := discovery.Layout{}
	var missing []string
	for _, org := range orgs {
		want[org] = 1
		if len(c.peers[org]) == 0 {
			missing = append(missing, org)
		}
	}
	if len(missing) > 0 {
		return status.Errorf(codes.Unavailable, "failed to find any endorsing peers for org(s): %s", strings.Join(missing, ", "))
	}
	if done, err := c.fill(ctx, want); err != nil || done {
		return err
	}
	return c.tooFew()
}

func (c *collection) tooFew() error {
	return fail(codes.Aborted, "failed to collect enough transaction endorsements, see attached details for more info", c.details...)
}

// fromPolicy endorses here first, or where there is no peer of ours anywhere,
// learns from that answer which chaincodes, collections and keys the
// transaction touches, and asks the members that their policies need.
func (c *collection) fromPolicy(ctx context.Context) error {
	s := c.server
	ch, ok := s.Channels(c.in.channelID)
	if !ok {
		return status.Errorf(codes.FailedPrecondition, "failed to get config for channel [%s]: the peer has not joined it", c.in.channelID)
	}
	interest := &peerpb.ChaincodeInterest{Chaincodes: []*peerpb.ChaincodeCall{{Name: c.in.chaincode}}}
	first := s.MSPID
	if len(c.peers[first]) == 0 {
		if c.in.transient {
			return status.Error(codes.FailedPrecondition, "no endorsers found in the gateway's organization; retry specifying endorsing organization(s) to protect transient data")
		}
		layouts, err := c.layouts(ch, interest)
		if err != nil {
			return err
		}
		first = slices.Min(slices.Collect(maps.Keys(layouts[0])))
	}
	if done, err := c.fill(ctx, discovery.Layout{first: 1}); err != nil {
		return err
	} else if !done {
		if err := unknown(ch, c.in.chaincode); err != nil {
			return status.Error(codes.FailedPrecondition, err.Error())
		}
		return fail(codes.Aborted, "failed to endorse transaction, see attached details for more info", c.details...)
	}
	if learned := c.responses[0].Interest; len(learned.GetChaincodes()) > 0 {
		interest = learned
	}
	layouts, err := c.protectedLayouts(ch, interest)
	if err != nil {
		return err
	}
	// Prefer a layout that the first endorsement counts for: fewer calls.
	slices.SortStableFunc(layouts, func(a, b discovery.Layout) int { return cmp.Compare(c.missing(a), c.missing(b)) })
	for _, layout := range layouts {
		if done, err := c.fill(ctx, layout); err != nil || done {
			return err
		}
	}
	return c.tooFew()
}

func (c *collection) missing(l discovery.Layout) (n int) {
	for msp, quantity := range l {
		n += max(0, quantity-c.have[msp])
	}
	return n
}

// protectedLayouts plans for an interest. With transient data every member that
// is asked must belong to the collections it touches, even if nothing is read.
func (c *collection) protectedLayouts(ch Channel, interest *peerpb.ChaincodeInterest) ([]discovery.Layout, error) {
	if !c.in.transient {
		return c.layouts(ch, interest)
	}
	cautious := proto.Clone(interest).(*peerpb.ChaincodeInterest)
	var protected []string
	for _, call := range cautious.Chaincodes {
		if call.NoPrivateReads {
			call.NoPrivateReads = false
			protected = append(protected, call.CollectionNames...)
		}
	}
	layouts, err := c.layouts(ch, cautious)
	if err != nil && len(protected) > 0 {
		if _, open := c.layouts(ch, interest); open == nil {
			return nil, status.Errorf(codes.FailedPrecondition, "requires endorsement from organisation(s) that are not in the distribution policy of the private data collection(s): %v; retry specifying trusted endorsing organizations to protect transient data", protected)
		}
	}
	return layouts, err
}

func (c *collection) layouts(ch Channel, interest *peerpb.ChaincodeInterest) ([]discovery.Layout, error) {
	policies, err := discovery.Policies(interest, ch.Rules(), ch.Bundle().Config())
	if err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "no combination of peers can be derived which satisfy the endorsement policy: %s", err)
	}
	available := make(map[string]int, len(c.peers))
	for msp, peers := range c.peers {
		available[msp] = len(peers)
	}
	layouts, err := discovery.Layouts(policies, available)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return layouts, nil
}

// fill asks as many peers as want still misses, side by side, and replaces
// those that fail by others of the same member. It says whether want is
// satisfied; endorsements stay for the next layout otherwise.
func (c *collection) fill(ctx context.Context, want discovery.Layout) (bool, error) {
	answers := make(chan answer, c.missing(want)) // an asker in flight when we give up must not block
	pending := 0
	for msp, quantity := range want {
		for range quantity - c.have[msp] {
			p, ok := c.next(msp)
			if !ok {
				return false, nil
			}
			c.ask(ctx, p, answers)
			pending++
		}
	}
	for ; pending > 0; pending-- {
		select {
		case a := <-answers:
			if c.accept(a) {
				continue
			}
			if v := judge(a.response, a.err); !v.retry {
				continue
			}
			if p, ok := c.next(a.peer.MSPID); ok {
				c.ask(ctx, p, answers)
				pending++
			}
		case <-ctx.Done():
			return false, fail(codes.DeadlineExceeded, "endorsement timeout expired while collecting endorsements", c.details...)
		}
	}
	return c.missing(want) == 0, nil
}
