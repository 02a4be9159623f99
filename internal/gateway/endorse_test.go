package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/hansa-ledger/hansa/internal/discovery"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/gatewaypb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

var (
	org1   = discovery.Layout{"Org1MSP": 1}
	org2   = discovery.Layout{"Org2MSP": 1}
	org12  = discovery.Layout{"Org1MSP": 1, "Org2MSP": 1}
	org13  = discovery.Layout{"Org1MSP": 1, "Org3MSP": 1}
	org23  = discovery.Layout{"Org2MSP": 1, "Org3MSP": 1}
	org123 = discovery.Layout{"Org1MSP": 1, "Org2MSP": 1, "Org3MSP": 1}
)

const (
	tooFew     = "failed to collect enough transaction endorsements, see attached details for more info"
	firstFails = "failed to endorse transaction, see attached details for more info"
	differ     = "ProposalResponsePayloads do not match"
)

// endorsers lists who endorsed the prepared transaction.
func endorsers(t *testing.T, r *gatewaypb.EndorseResponse) []string {
	t.Helper()
	tx := envelope.Parse(marshal(t, r.PreparedTransaction))
	if len(tx.Actions) != 1 || tx.ID() != "tx" {
		t.Fatalf("the prepared transaction %q has %d actions", tx.ID(), len(tx.Actions))
	}
	var found []string
	for _, e := range tx.Actions[0].Payload.Action.Endorsements {
		found = append(found, string(e.Endorser))
	}
	slices.Sort(found)
	return found
}

func TestEndorse(t *testing.T) {
	call := func(name string, collections ...string) *peerpb.ChaincodeCall {
		return &peerpb.ChaincodeCall{Name: name, CollectionNames: collections}
	}
	written := &peerpb.ChaincodeCall{Name: "basic", CollectionNames: []string{"c"}, NoPrivateReads: true}
	for _, test := range []struct {
		name      string
		policies  map[string][]discovery.Layout
		peers     func(w *world)
		transient bool
		orgs      []string
		endorsed  []string // by
		asked     []string // all that were, if not just those
		code      codes.Code
		message   string
		details   []string
	}{
		{name: "own member is enough", policies: map[string][]discovery.Layout{"basic": {org1}},
			peers:    func(w *world) { w.peer("Org1MSP", "own:1", answers("r")); w.peer("Org2MSP", "two:1", answers("r")) },
			endorsed: []string{"own:1"}},
		{name: "two members", policies: map[string][]discovery.Layout{"basic": {org12}},
			peers:    func(w *world) { w.peer("Org1MSP", "own:1", answers("r")); w.peer("Org2MSP", "two:1", answers("r")) },
			endorsed: []string{"own:1", "two:1"}},
		{name: "the layout with the own member is best", policies: map[string][]discovery.Layout{"basic": {org23, org13}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", answers("r"))
				w.peer("Org2MSP", "two:1", answers("r"))
				w.peer("Org3MSP", "three:1", answers("r"))
			},
			endorsed: []string{"own:1", "three:1"}},
		{name: "members whose peers are ready are best", policies: map[string][]discovery.Layout{"basic": {org12, org13}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", answers("r"))
				w.peer("Org2MSP", "two:1", answers("r")).Ready = false
				w.peer("Org3MSP", "three:1", answers("r"))
			},
			endorsed: []string{"own:1", "three:1"}},
		{name: "the transaction needs more than its contract", policies: map[string][]discovery.Layout{"basic": {org1}, "basic+other": {org12}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", answers("r", call("basic"), call("other")))
				w.peer("Org2MSP", "two:1", answers("r"))
			},
			endorsed: []string{"own:1", "two:1"}},
		{name: "the transaction needs less than its contract: nobody waits", policies: map[string][]discovery.Layout{"basic": {org12}, "basic.key": {org1}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", answers("r", call("basic", "key")))
				w.peer("Org2MSP", "two:1", hangs)
			},
			endorsed: []string{"own:1"}, asked: []string{"own:1", "two:1"}},
		{name: "two peers of one member", policies: map[string][]discovery.Layout{"basic": {{"Org1MSP": 2}}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", answers("r"))
				w.peer("Org1MSP", "own:2", answers("r"))
				w.peer("Org1MSP", "own:3", answers("r"))
			},
			endorsed: []string{"own:1", "own:2"}},
		{name: "another peer of the own member stands in", policies: map[string][]discovery.Layout{"basic": {org1}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", breaks("no contract"))
				w.peer("Org1MSP", "own:2", answers("r"))
			},
			endorsed: []string{"own:2"}, asked: []string{"own:1", "own:2"}},
		{name: "another peer of the other member stands in", policies: map[string][]discovery.Layout{"basic": {org12}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", answers("r"))
				w.peer("Org2MSP", "two:1", unreachable)
				w.peer("Org2MSP", "two:2", answers("r"))
			},
			endorsed: []string{"own:1", "two:2"}, asked: []string{"own:1", "two:1", "two:2"}},
		{name: "no peer of the own member: another member begins for one that cannot be reached", policies: map[string][]discovery.Layout{"basic": {org2, {"Org3MSP": 1}}},
			peers: func(w *world) {
				w.peer("Org2MSP", "two:1", unreachable)
				w.peer("Org3MSP", "three:1", answers("r")).Ready = false
			},
			endorsed: []string{"three:1"}, asked: []string{"three:1", "two:1"}},
		{name: "no peer of the own member: what was asked ahead may begin too", policies: map[string][]discovery.Layout{"basic": {org23, {"Org3MSP": 2}}},
			peers: func(w *world) {
				w.peer("Org2MSP", "two:1", unreachable)
				w.peer("Org3MSP", "three:1", answers("r"))
				w.peer("Org3MSP", "three:2", answers("r")).Ready = false
			},
			endorsed: []string{"three:1", "three:2"}, asked: []string{"three:1", "three:2", "two:1"}},
		{name: "no peer of the own member: a refusal of the contract is final", policies: map[string][]discovery.Layout{"basic": {org2, {"Org3MSP": 1}}},
			peers: func(w *world) {
				w.peer("Org2MSP", "two:1", breaks("no"))
				w.peer("Org3MSP", "three:1", answers("r")).Ready = false
			},
			asked: []string{"two:1"}, code: codes.Aborted, message: firstFails, details: []string{"two:1 Org2MSP no"}},
		{name: "another member stands in", policies: map[string][]discovery.Layout{"basic": {org12, org13}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", answers("r"))
				w.peer("Org2MSP", "two:1", fails(500, "no"))
				w.peer("Org3MSP", "three:1", answers("r")).Ready = false
			},
			endorsed: []string{"own:1", "three:1"}, asked: []string{"own:1", "three:1", "two:1"}},
		{name: "nobody stands in", policies: map[string][]discovery.Layout{"basic": {org12}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", answers("r"))
				w.peer("Org2MSP", "two:1", fails(404, "missing"))
				w.peer("Org2MSP", "two:2", unreachable)
			},
			code: codes.Aborted, message: tooFew,
			details: []string{"two:1 Org2MSP chaincode response 404, missing", "two:2 Org2MSP rpc error: code = Unavailable desc = connection refused"}},
		{name: "the contract refuses", policies: map[string][]discovery.Layout{"basic": {org12}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", fails(500, "no such asset"))
				w.peer("Org2MSP", "two:1", fails(500, "no such asset"))
			},
			code: codes.Aborted, message: firstFails, details: []string{"own:1 Org1MSP chaincode response 500, no such asset"}},
		{name: "the proposal is refused", policies: map[string][]discovery.Layout{"basic": {org1}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", func(context.Context) (*peerpb.ProposalResponse, error) {
					return &peerpb.ProposalResponse{Response: &peerpb.Response{Status: 500}}, errors.New("error validating proposal: access denied")
				})
			},
			code: codes.Aborted, message: firstFails, details: []string{"own:1 Org1MSP error validating proposal: access denied"}},
		{name: "endorsers disagree", policies: map[string][]discovery.Layout{"basic": {org12}},
			peers: func(w *world) { w.peer("Org1MSP", "own:1", answers("r")); w.peer("Org2MSP", "two:1", answers("s")) },
			code:  codes.Aborted, message: tooFew, details: []string{"two:1 Org2MSP " + differ}},
		{name: "one who disagrees is replaced", policies: map[string][]discovery.Layout{"basic": {org12}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", answers("r"))
				w.peer("Org2MSP", "two:1", answers("s"))
				w.peer("Org2MSP", "two:2", answers("r"))
			},
			endorsed: []string{"own:1", "two:2"}, asked: []string{"own:1", "two:1", "two:2"}},
		{name: "no peer of the own member", policies: map[string][]discovery.Layout{"basic": {org2}},
			peers:    func(w *world) { w.peer("Org2MSP", "two:1", answers("r")) },
			endorsed: []string{"two:1"}},
		{name: "no peer of the own member, transient data", policies: map[string][]discovery.Layout{"basic": {org2}}, transient: true,
			peers: func(w *world) { w.peer("Org2MSP", "two:1", answers("r")) },
			code:  codes.FailedPrecondition, message: "no endorsers found in the gateway's organization; retry specifying endorsing organization(s) to protect transient data", asked: []string{}},
		{name: "transient data without collections", policies: map[string][]discovery.Layout{"basic": {org12}}, transient: true,
			peers:    func(w *world) { w.peer("Org1MSP", "own:1", answers("r")); w.peer("Org2MSP", "two:1", answers("r")) },
			endorsed: []string{"own:1", "two:1"}},
		{name: "transient data stays with the collection's members", transient: true,
			policies: map[string][]discovery.Layout{"basic": {org23, org12}, "basic.c (written)": {org23, org12}, "basic.c": {org12}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", answers("r", written))
				w.peer("Org2MSP", "two:1", answers("r"))
				w.peer("Org3MSP", "three:1", answers("r"))
			},
			endorsed: []string{"own:1", "two:1"}},
		{name: "transient data would have to leave the collection's members", transient: true,
			policies: map[string][]discovery.Layout{"basic": {org12}, "basic.c (written)": {org12}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", answers("r", written))
				w.peer("Org2MSP", "two:1", answers("r"))
			},
			code: codes.FailedPrecondition, asked: []string{"own:1"},
			message: "requires endorsement from organisation(s) that are not in the distribution policy of the private data collection(s): [c]; retry specifying trusted endorsing organizations to protect transient data"},
		{name: "no layout", policies: map[string][]discovery.Layout{},
			peers: func(w *world) { w.peer("Org1MSP", "own:1", answers("r")) },
			code:  codes.FailedPrecondition, message: discovery.ErrNoLayout.Error(), asked: []string{"own:1"}},
		{name: "too few peers", policies: map[string][]discovery.Layout{"basic": {org12}},
			peers: func(w *world) { w.peer("Org1MSP", "own:1", answers("r")) },
			code:  codes.FailedPrecondition, message: "failed to select a set of endorsers that satisfy the endorsement policy due to unavailability of peers: [Org2MSP]", asked: []string{"own:1"}},
		{name: "named members", orgs: []string{"Org2MSP", "Org3MSP"},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", answers("r"))
				w.peer("Org2MSP", "two:1", answers("r"))
				w.peer("Org3MSP", "three:1", breaks("down"))
				w.peer("Org3MSP", "three:2", answers("r"))
			},
			endorsed: []string{"three:2", "two:1"}, asked: []string{"three:1", "three:2", "two:1"}},
		{name: "named members without peers", orgs: []string{"Org2MSP", "Org8MSP", "Org9MSP"},
			peers: func(w *world) { w.peer("Org2MSP", "two:1", answers("r")) },
			code:  codes.Unavailable, message: "failed to find any endorsing peers for org(s): Org8MSP, Org9MSP", asked: []string{}},
		{name: "a defect in an endorser", policies: map[string][]discovery.Layout{"basic": {org1}},
			peers: func(w *world) {
				w.peer("Org1MSP", "own:1", func(context.Context) (*peerpb.ProposalResponse, error) { panic("defect") })
			},
			code: codes.Aborted, message: firstFails, details: []string{"own:1 Org1MSP rpc error: code = Internal desc = internal error"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.channel.layouts = policies(test.policies)
			test.peers(w)
			var edits []func(*peerpb.ChaincodeProposalPayload, *commonpb.ChannelHeader)
			if test.transient {
				edits = append(edits, transient)
			}
			r, err := w.client().Endorse(t.Context(), &gatewaypb.EndorseRequest{ProposedTransaction: proposal(t, edits...), EndorsingOrganizations: test.orgs})
			if test.code != codes.OK {
				failed(t, err).want(t, test.code, test.message, test.details...)
			} else if must(t, err); !slices.Equal(endorsers(t, r), test.endorsed) {
				t.Errorf("endorsed by %q, want %q", endorsers(t, r), test.endorsed)
			}
			want := test.asked
			if want == nil && test.code == codes.OK {
				want = test.endorsed
			}
			if want != nil && !slices.Equal(w.asked(), want) {
				t.Errorf("asked %q, want %q", w.asked(), want)
			}
		})
	}
}

// Without transient data all are asked at once; with it, the own member comes first.
func TestEndorseLatency(t *testing.T) {
	for _, private := range []bool{false, true} {
		t.Run(fmt.Sprintf("transient %v", private), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.channel.layouts = policies(map[string][]discovery.Layout{"basic": {org123}})
				slow := func(ctx context.Context) (*peerpb.ProposalResponse, error) {
					time.Sleep(time.Second)
					return answers("r")(ctx)
				}
				w.peer("Org1MSP", "own:1", slow)
				w.peer("Org2MSP", "two:1", slow)
				w.peer("Org3MSP", "three:1", slow)
				request, want := &gatewaypb.EndorseRequest{ProposedTransaction: proposal(t)}, time.Second
				if private {
					request.ProposedTransaction, want = proposal(t, transient), 2*time.Second
				}
				start := time.Now()
				_, err := w.server().Endorse(t.Context(), request)
				must(t, err)
				if took := time.Since(start); took != want {
					t.Errorf("took %v, want %v", took, want)
				}
			})
		})
	}
}

func TestEndorseTimeouts(t *testing.T) {
	t.Run("one endorser", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.channel.layouts = policies(map[string][]discovery.Layout{"basic": {org12}})
			w.peer("Org1MSP", "own:1", answers("r"))
			failures := 0
			w.peer("Org2MSP", "two:1", hangs).Failed = func() { failures++ }
			w.peer("Org2MSP", "two:2", answers("r"))
			start := time.Now()
			r, err := w.server().Endorse(t.Context(), &gatewaypb.EndorseRequest{ProposedTransaction: proposal(t)})
			must(t, err)
			if got := endorsers(t, r); !slices.Equal(got, []string{"own:1", "two:2"}) || time.Since(start) != 30*time.Second || failures != 1 {
				t.Errorf("endorsed by %q after %v, %d failures reported", got, time.Since(start), failures)
			}
		})
	})
	for name, own := range map[string]behaviour{
		"endorsement timeout expired while collecting first endorsement": hangs,
		"endorsement timeout expired while collecting endorsements":      answers("r"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.channel.layouts = policies(map[string][]discovery.Layout{"basic": {org12}})
				w.peer("Org1MSP", "own:1", own)
				w.peer("Org2MSP", "two:1", hangs)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := w.server().Endorse(ctx, &gatewaypb.EndorseRequest{ProposedTransaction: proposal(t)})
				failed(t, err).want(t, codes.DeadlineExceeded, name)
			})
		})
	}
}

func TestMalformedProposals(t *testing.T) {
	without := func(edit func(*peerpb.ChaincodeProposalPayload, *commonpb.ChannelHeader)) *peerpb.SignedProposal {
		return proposal(t, edit)
	}
	spec := func(s *peerpb.ChaincodeSpec) func(*peerpb.ChaincodeProposalPayload, *commonpb.ChannelHeader) {
		return func(p *peerpb.ChaincodeProposalPayload, _ *commonpb.ChannelHeader) {
			p.Input = marshal(t, &peerpb.ChaincodeInvocationSpec{ChaincodeSpec: s})
		}
	}
	w := newWorld(t)
	client := w.client()
	for message, p := range map[string]*peerpb.SignedProposal{
		"no channel id provided":                                                     without(func(_ *peerpb.ChaincodeProposalPayload, h *commonpb.ChannelHeader) { h.ChannelId = "" }),
		"no chaincode spec is provided, channel id [mychannel]":                      without(spec(nil)),
		"no chaincode id is provided, channel id [mychannel]":                        without(spec(&peerpb.ChaincodeSpec{})),
		"no chaincode name is provided, channel id [mychannel]":                      without(spec(&peerpb.ChaincodeSpec{ChaincodeId: &peerpb.ChaincodeID{}})),
		"error unmarshalling proposal: proto: cannot parse invalid wire-format data": {ProposalBytes: []byte{0xff}},
	} {
		_, err := client.Evaluate(t.Context(), &gatewaypb.EvaluateRequest{ProposedTransaction: p})
		f := failed(t, err)
		f.Message = string(spaces(f.Message))
		f.want(t, codes.InvalidArgument, "failed to unpack transaction proposal: "+message)
		if _, err := client.Endorse(t.Context(), &gatewaypb.EndorseRequest{ProposedTransaction: p}); failed(t, err).Code != codes.InvalidArgument {
			t.Errorf("%s: Endorse: %v", message, err)
		}
	}
	_, err := client.Evaluate(t.Context(), &gatewaypb.EvaluateRequest{})
	failed(t, err).want(t, codes.InvalidArgument, "failed to unpack transaction proposal: a signed proposal is required")
	_, err = client.Endorse(t.Context(), &gatewaypb.EndorseRequest{})
	failed(t, err).want(t, codes.InvalidArgument, "the proposed transaction must contain a signed proposal")

	elsewhere := without(func(_ *peerpb.ChaincodeProposalPayload, h *commonpb.ChannelHeader) { h.ChannelId = "elsewhere" })
	_, err = client.Evaluate(t.Context(), &gatewaypb.EvaluateRequest{ProposedTransaction: elsewhere})
	failed(t, err).want(t, codes.Unavailable, "failed to get config for channel [elsewhere]: the peer has not joined it")
	_, err = client.Endorse(t.Context(), &gatewaypb.EndorseRequest{ProposedTransaction: elsewhere})
	failed(t, err).want(t, codes.FailedPrecondition, "failed to get config for channel [elsewhere]: the peer has not joined it")
}

// spaces puts the usual space where the protobuf library varies its error texts on purpose.
func spaces(s string) []rune {
	r := []rune(s)
	for i := range r {
		if r[i] == '\u00a0' {
			r[i] = ' '
		}
	}
	return r
}

func TestEvaluate(t *testing.T) {
	for _, test := range []struct {
		name      string
		peers     func(w *world)
		transient bool
		orgs      []string
		result    string
		asked     []string
		code      codes.Code
		message   string
		details   []string
	}{
		{name: "own peer", peers: func(w *world) { w.peer("Org2MSP", "two:1", answers("2")); w.peer("Org1MSP", "own:1", answers("1")) },
			result: "1", asked: []string{"own:1"}},
		{name: "named member", orgs: []string{"Org2MSP"}, peers: func(w *world) { w.peer("Org2MSP", "two:1", answers("2")); w.peer("Org1MSP", "own:1", answers("1")) },
			result: "2", asked: []string{"two:1"}},
		{name: "highest ledger of the others that are ready", peers: func(w *world) {
			w.peer("Org2MSP", "two:1", answers("2")).Height = 7
			w.peer("Org3MSP", "three:1", answers("3")).Height = 8
			p := w.peer("Org4MSP", "four:1", answers("4"))
			p.Height, p.Ready = 9, false
		}, result: "3", asked: []string{"three:1"}},
		{name: "next peer", peers: func(w *world) {
			w.peer("Org1MSP", "own:1", breaks("x chaincode stream terminated"))
			w.peer("Org2MSP", "two:1", answers("2"))
		},
			result: "2", asked: []string{"own:1", "two:1"}},
		{name: "contract refuses", peers: func(w *world) { w.peer("Org1MSP", "own:1", fails(500, "no")); w.peer("Org2MSP", "two:1", answers("2")) },
			asked: []string{"own:1"}, code: codes.Unknown, message: "evaluate call to endorser returned error: chaincode response 500, no", details: []string{"own:1 Org1MSP chaincode response 500, no"}},
		{name: "all break", peers: func(w *world) { w.peer("Org1MSP", "own:1", breaks("a")); w.peer("Org2MSP", "two:1", unreachable) },
			asked: []string{"own:1", "two:1"}, code: codes.Unavailable, message: "failed to evaluate transaction, see attached details for more info",
			details: []string{"own:1 Org1MSP a", "two:1 Org2MSP rpc error: code = Unavailable desc = connection refused"}},
		{name: "no peers", peers: func(*world) {}, code: codes.FailedPrecondition, message: "no peers available to evaluate chaincode basic in channel mychannel"},
		{name: "transient data stays at home", transient: true, peers: func(w *world) { w.peer("Org2MSP", "two:1", answers("2")) }, code: codes.FailedPrecondition,
			message: "no endorsers found in the gateway's organization; retry specifying target organization(s) to protect transient data: no peers available to evaluate chaincode basic in channel mychannel"},
		{name: "transient data goes where the client says", transient: true, orgs: []string{"Org2MSP"}, peers: func(w *world) { w.peer("Org2MSP", "two:1", answers("2")) },
			result: "2", asked: []string{"two:1"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			test.peers(w)
			var edits []func(*peerpb.ChaincodeProposalPayload, *commonpb.ChannelHeader)
			if test.transient {
				edits = append(edits, transient)
			}
			r, err := w.client().Evaluate(t.Context(), &gatewaypb.EvaluateRequest{ProposedTransaction: proposal(t, edits...), TargetOrganizations: test.orgs})
			if test.code != codes.OK {
				failed(t, err).want(t, test.code, test.message, test.details...)
			} else if must(t, err); string(r.Result.Payload) != test.result || r.Result.Status != 200 {
				t.Errorf("result %v, want %q", r.Result, test.result)
			}
			if !slices.Equal(w.asked(), test.asked) {
				t.Errorf("asked %q, want %q", w.asked(), test.asked)
			}
		})
	}
	t.Run("timeout", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.peer("Org1MSP", "own:1", hangs)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := w.server().Evaluate(ctx, &gatewaypb.EvaluateRequest{ProposedTransaction: proposal(t)})
			failed(t, err).want(t, codes.DeadlineExceeded, "evaluate timeout expired")
		})
	})
}

// The details of one error stay within what clients take in trailers.
func TestDetailsAreBounded(t *testing.T) {
	w := newWorld(t)
	w.channel.layouts = policies(map[string][]discovery.Layout{"basic": {org1}})
	for i := range 100 {
		w.peer("Org1MSP", fmt.Sprintf("own:%d", i), breaks(string(make([]byte, 10000))))
	}
	_, err := w.server().Endorse(t.Context(), &gatewaypb.EndorseRequest{ProposedTransaction: proposal(t)})
	f := failed(t, err)
	if len(f.Details) != 32 || len(f.Details[0]) > 4200 {
		t.Errorf("%d details, the first of %d bytes", len(f.Details), len(f.Details[0]))
	}
}
