package gateway

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
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
	in := &invocation{signed: signed}
	var err error
	if in.proposal, err = envelope.DecodeProposal(signed.ProposalBytes); err != nil {
		return nil, fmt.Errorf("error unmarshalling proposal: %w", err)
	}
	header, err := envelope.DecodeHeader(in.proposal.Header)
	if err != nil {
		return nil, fmt.Errorf("error unmarshalling header: %w", err)
	}
	var channelHeader commonpb.ChannelHeader
	if err := proto.Unmarshal(header.ChannelHeader, &channelHeader); err != nil {
		return nil, fmt.Errorf("error unmarshalling channel header: %w", err)
	}
	payload, err := envelope.DecodeProposalPayload(in.proposal.Payload)
	if err != nil {
		return nil, fmt.Errorf("error unmarshalling chaincode proposal payload: %w", err)
	}
	var spec peerpb.ChaincodeInvocationSpec
	if err := proto.Unmarshal(payload.Input, &spec); err != nil {
		return nil, fmt.Errorf("error unmarshalling chaincode invocation spec: %w", err)
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
	ctx, cancel := context.WithCancel(ctx) // ends the calls that turn out to be superfluous
	defer cancel()
	c := newCollection(s, in)
	if orgs := request.GetEndorsingOrganizations(); len(orgs) > 0 {
		err = c.fromMembers(ctx, orgs)
	} else {
		err = c.fromPolicy(ctx)
	}
	if err != nil {
		return nil, err
	}
	payload, err := envelope.AssembleTx(in.proposal, c.chosen)
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
// goroutine; calls to endorsers run beside it and report over answers.
type collection struct {
	server  *Server
	in      *invocation
	peers   map[string][]Peer  // shared: not changed
	used    map[[2]string]bool // by MSP id and address: asked already
	answers chan answer        // holds an answer of every peer: an asker never waits
	asked   map[string]int     // by MSP id: answers to come
	own     func()             // calls the gateway's own peer, once asked: see ask
	ahead   []answer           // that came before the first endorsement, of peers that were asked ahead of need

	got     map[string][]*peerpb.ProposalResponse // by MSP id: endorsements that agree with first
	first   *peerpb.ProposalResponse
	details []*gatewaypb.ErrorDetail
	// unreachable says of the last answer that it was none: its peer could not be reached.
	unreachable bool
	chosen      []*peerpb.ProposalResponse // the endorsements of the layout that was completed
}

func newCollection(s *Server, in *invocation) *collection {
	c := &collection{server: s, in: in, peers: s.Peers.Endorsers(in.channelID, in.chaincode), used: map[[2]string]bool{},
		asked: map[string]int{}, got: map[string][]*peerpb.ProposalResponse{}}
	n := 0
	for _, peers := range c.peers {
		n += len(peers)
	}
	c.answers = make(chan answer, n)
	return c
}

type answer struct {
	peer     Peer
	response *peerpb.ProposalResponse
	err      error
}

// ask calls a peer of the member that was not asked yet; false if there is none. The gateway's own peer is called by this goroutine,
// when all others that are needed have been asked: a new one would begin with a stack too small for that much work.
func (c *collection) ask(ctx context.Context, mspID string) bool {
	for _, p := range c.peers[mspID] {
		if at := [2]string{mspID, p.Address}; !c.used[at] {
			c.used[at] = true
			c.asked[mspID]++
			call := func() {
				response, err := c.server.call(ctx, p, c.in.signed)
				c.answers <- answer{p, response, err}
			}
			if p.Local && c.own == nil {
				c.own = call
			} else {
				go call()
			}
			return true
		}
	}
	return false
}

// next is the next answer, a zero one if ctx ended.
func (c *collection) next(ctx context.Context) (a answer) {
	if own := c.own; own != nil {
		c.own = nil
		own()
	}
	select {
	case a = <-c.answers:
	case <-ctx.Done():
	}
	return a
}

// accept files an answer and says whether it is an endorsement that agrees with
// the first one. A disagreeing one is an error of that endorser: the first
// result stands, as the client may retry with others.
func (c *collection) accept(a answer) bool {
	v := judge(a.response, a.err)
	if v.code == codes.OK && c.first != nil && !bytes.Equal(c.first.Payload, a.response.Payload) {
		v = verdict{code: codes.Aborted, message: "ProposalResponsePayloads do not match"}
		c.server.Log.Warn("endorsers disagree", "channel", c.in.channelID, "chaincode", c.in.chaincode, "endorser", a.peer.Address, "msp", a.peer.MSPID)
	}
	c.unreachable = v.unreachable
	if v.code != codes.OK {
		if v.unreachable && a.peer.Failed != nil {
			a.peer.Failed()
		}
		c.details = append(c.details, detail(a.peer.Address, a.peer.MSPID, v.message))
		return false
	}
	if c.first == nil {
		c.first = a.response
	}
	c.got[a.peer.MSPID] = append(c.got[a.peer.MSPID], a.response)
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

// fromPolicy endorses at a peer of our own member first, where there is one,
// learns from that answer which chaincodes, collections and keys the transaction
// touches, and asks the members that their policies need. The members that the
// chaincode's own policy needs are asked at the same time as the first peer, as
// most transactions need just these; but not with transient data, which must
// not reach a member before it is known that it may.
func (c *collection) fromPolicy(ctx context.Context) error {
	s := c.server
	ch, ok := s.Channels(c.in.channelID)
	if !ok {
		return status.Errorf(codes.FailedPrecondition, "failed to get config for channel [%s]: the peer has not joined it", c.in.channelID)
	}
	interest := &peerpb.ChaincodeInterest{Chaincodes: []*peerpb.ChaincodeCall{{Name: c.in.chaincode}}}
	guess, err := c.layouts(ch, interest, s.MSPID)
	firsts := []string{s.MSPID}
	if len(c.peers[s.MSPID]) == 0 {
		if c.in.transient {
			return status.Error(codes.FailedPrecondition, "no endorsers found in the gateway's organization; retry specifying endorsing organization(s) to protect transient data")
		}
		if err != nil {
			return err
		}
		firsts = leaders(guess)
	}
	c.ask(ctx, firsts[0])
	if err == nil && !c.in.transient && guess[0][firsts[0]] > 0 {
		for msp, quantity := range guess[0] {
			if msp == firsts[0] {
				quantity--
			}
			for range quantity {
				c.ask(ctx, msp)
			}
		}
	}
	// Where none of our own member's peers can endorse, another member may begin in
	// place of one that cannot be reached.
	for _, first := range firsts {
		done, err := c.begin(ctx, first)
		if err != nil {
			return err
		}
		if done || !c.unreachable {
			break
		}
	}
	if c.first == nil {
		return fail(codes.Aborted, "failed to endorse transaction, see attached details for more info", c.details...)
	}
	if learned := c.first.Interest; len(learned.GetChaincodes()) > 0 {
		interest = learned
	}
	layouts, err := c.protectedLayouts(ch, interest)
	if err != nil {
		return err
	}
	for _, layout := range layouts {
		if done, err := c.fill(ctx, layout); err != nil || done {
			return err
		}
	}
	return c.tooFew()
}

// leaders names a member of each layout, best layouts first, each member once.
func leaders(layouts []discovery.Layout) (members []string) {
	for _, layout := range layouts {
		if first := slices.Min(slices.Collect(maps.Keys(layout))); !slices.Contains(members, first) {
			members = append(members, first)
		}
	}
	return members
}

// begin waits for the first endorsement, by a peer of the member: its result
// is what others must agree with. Answers of other members wait.
func (c *collection) begin(ctx context.Context, mspID string) (bool, error) {
	for {
		var a answer
		i := slices.IndexFunc(c.ahead, func(a answer) bool { return a.peer.MSPID == mspID })
		switch {
		case i >= 0:
			a = c.ahead[i]
			c.ahead = slices.Delete(c.ahead, i, i+1)
		case c.asked[mspID] > 0 || c.ask(ctx, mspID):
			if a = c.next(ctx); ctx.Err() != nil {
				return false, fail(codes.DeadlineExceeded, "endorsement timeout expired while collecting first endorsement", c.details...)
			}
			if a.peer.MSPID != mspID {
				c.ahead = append(c.ahead, a)
				continue
			}
		default:
			return false, nil
		}
		c.asked[mspID]--
		if c.accept(a) {
			for _, a := range c.ahead {
				c.asked[a.peer.MSPID]--
				c.accept(a)
			}
			return true, nil
		}
	}
}

// fill asks as many peers as want still misses, side by side, and replaces
// those that fail by others of the same member. It says whether want is
// satisfied; endorsements stay for the next layout otherwise.
func (c *collection) fill(ctx context.Context, want discovery.Layout) (bool, error) {
	for {
		missing := false
		for msp, quantity := range want {
			for len(c.got[msp])+c.asked[msp] < quantity {
				if !c.ask(ctx, msp) {
					return false, nil
				}
			}
			missing = missing || len(c.got[msp]) < quantity
		}
		if !missing {
			c.chosen = c.chosen[:0]
			for _, msp := range slices.Sorted(maps.Keys(want)) {
				c.chosen = append(c.chosen, c.got[msp][:want[msp]]...)
			}
			return true, nil
		}
		a := c.next(ctx)
		if ctx.Err() != nil {
			return false, fail(codes.DeadlineExceeded, "endorsement timeout expired while collecting endorsements", c.details...)
		}
		c.asked[a.peer.MSPID]--
		c.accept(a)
	}
}

// protectedLayouts plans for an interest. With transient data every member that
// is asked must belong to the collections it touches, even if nothing is read.
func (c *collection) protectedLayouts(ch Channel, interest *peerpb.ChaincodeInterest) ([]discovery.Layout, error) {
	if !c.in.transient {
		return c.layouts(ch, interest, "")
	}
	cautious := proto.Clone(interest).(*peerpb.ChaincodeInterest)
	var protected []string
	for _, call := range cautious.Chaincodes {
		if call.NoPrivateReads {
			call.NoPrivateReads = false
			protected = append(protected, call.CollectionNames...)
		}
	}
	layouts, err := c.layouts(ch, cautious, "")
	if err != nil && len(protected) > 0 {
		if _, open := c.layouts(ch, interest, ""); open == nil {
			return nil, status.Errorf(codes.FailedPrecondition, "requires endorsement from organisation(s) that are not in the distribution policy of the private data collection(s): %v; retry specifying trusted endorsing organizations to protect transient data", protected)
		}
	}
	return layouts, err
}

// layouts lists the combinations of members that can be asked for an interest,
// best first: those with few calls to come (one of the member preferred counts
// as made), and those of peers known to be ready.
func (c *collection) layouts(ch Channel, interest *peerpb.ChaincodeInterest, preferred string) ([]discovery.Layout, error) {
	all, err := ch.Layouts(interest)
	if err != nil {
		if !errors.Is(err, discovery.ErrNoLayout) {
			err = fmt.Errorf("%w: %w", discovery.ErrNoLayout, err)
		}
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	type plan struct {
		layout         discovery.Layout
		calls, unready int
	}
	plans := make([]plan, 0, len(all))
	for _, layout := range all {
		p := plan{layout: layout}
		for msp, quantity := range layout {
			peers := c.peers[msp]
			if len(peers) < quantity {
				p.layout = nil
				break
			}
			have := len(c.got[msp])
			if msp == preferred {
				have++
			}
			p.calls += max(0, quantity-have)
			for _, peer := range peers[:quantity] {
				if !peer.Ready {
					p.unready++
				}
			}
		}
		if p.layout != nil {
			plans = append(plans, p)
		}
	}
	if len(plans) == 0 {
		return nil, status.Error(codes.FailedPrecondition, "failed to select a set of endorsers that satisfy the endorsement policy due to unavailability of peers: "+c.unavailable(all))
	}
	// Equally good layouts take turns.
	rand.Shuffle(len(plans), func(i, j int) { plans[i], plans[j] = plans[j], plans[i] })
	slices.SortStableFunc(plans, func(a, b plan) int { return cmp.Or(cmp.Compare(a.unready, b.unready), cmp.Compare(a.calls, b.calls)) })
	layouts := make([]discovery.Layout, len(plans))
	for i, p := range plans {
		layouts[i] = p.layout
	}
	return layouts, nil
}

// unavailable names the members of which peers are missing.
func (c *collection) unavailable(all []discovery.Layout) string {
	missing := map[string]bool{}
	for _, layout := range all {
		for msp, quantity := range layout {
			if len(c.peers[msp]) < quantity {
				missing[msp] = true
			}
		}
	}
	return fmt.Sprint(slices.Sorted(maps.Keys(missing)))
}
