package endorse_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hansa-ledger/hansa/internal/endorse"
	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/lifecycle"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

func ops(t testing.TB, list ...[]string) [][]byte {
	t.Helper()
	raw, err := json.Marshal(list)
	must(t, err)
	return [][]byte{[]byte("run"), raw}
}

func run(contract string, args [][]byte) envelope.ProposalArgs {
	return envelope.ProposalArgs{ChannelID: channelID, Chaincode: contract, Args: args}
}

func call(t testing.TB, function string, m proto.Message) envelope.ProposalArgs {
	return run(lifecycle.Namespace, [][]byte{[]byte(function), marshal(t, m)})
}

// TestGoldenRefusals makes the calls that peers of the golden ledger refused, and compares the words.
func TestGoldenRefusals(t *testing.T) {
	collections := func(w *world, change func(*peerpb.CollectionConfigPackage)) *lifecyclepb.ApproveChaincodeDefinitionForMyOrgArgs {
		d, err := lifecycle.Read("pvt", func(ns, key string) ([]byte, error) {
			v, err := w.now.Get(ns, key)
			if v == nil {
				return nil, err
			}
			return v.Value, nil
		})
		must(t, err)
		pkg := proto.Clone(d.Collections).(*peerpb.CollectionConfigPackage)
		change(pkg)
		return &lifecyclepb.ApproveChaincodeDefinitionForMyOrgArgs{Name: "pvt", Version: "1.0", Sequence: 2, Collections: pkg}
	}
	cases := []struct {
		what   string
		height uint64
		org    string // whose peer, Alpha by default
		by     string // a client of which member; an admin of the peer's member by default
		args   func(*world) envelope.ProposalArgs
		want   string // TX stands for the transaction id
	}{
		{"commit without approvals", 5, "", "", func(*world) envelope.ProposalArgs {
			return call(t, "CommitChaincodeDefinition", &lifecyclepb.CommitChaincodeDefinitionArgs{Name: "nodef", Version: "1", Sequence: 1})
		}, "failed to invoke backing implementation of 'CommitChaincodeDefinition': chaincode definition not agreed to by this org (AlphaMSP)"},
		{"approve at a sequence not next", 7, "", "", func(*world) envelope.ProposalArgs {
			return call(t, "ApproveChaincodeDefinitionForMyOrg", &lifecyclepb.ApproveChaincodeDefinitionForMyOrgArgs{Name: "nodef", Version: "1", Sequence: 5})
		}, "failed to invoke backing implementation of 'ApproveChaincodeDefinitionForMyOrg': requested sequence 5 is larger than the next available sequence number 2"},
		{"write after a paginated query", 33, "", "AlphaMSP", func(*world) envelope.ProposalArgs {
			return run("basic", ops(t, []string{"page", "r", "s", "5", ""}, []string{"put", "x", "1"}))
		}, "op 1 put: PUT_STATE failed: transaction ID: TX: txid [TX]: unsuppored transaction. Transaction has already performed a paginated query. Writes are not allowed"},
		{"chaincode error", 33, "", "AlphaMSP", func(*world) envelope.ProposalArgs {
			return run("basic", ops(t, []string{"fail", "on purpose"}))
		}, "op 0 fail: asked to fail: on purpose"},
		{"call of itself", 36, "", "AlphaMSP", func(*world) envelope.ProposalArgs {
			return run("orcc", ops(t, []string{"put", "y", "1"}, []string{"call", "orcc", "", `[["put","y","1"]]`}))
		}, "op 1 call: call to orcc: 500 "},
		{"read of collA at Beta", 54, "BetaMSP", "AlphaMSP", func(*world) envelope.ProposalArgs {
			return run("pvt", ops(t, []string{"pget", "collA", "ak1"}))
		}, "op 0 pget: GET_STATE failed: transaction ID: TX: private data matching public hash version is not available. Public hash version = {BlockNum: 53, TxNum: 2}, Private data version = <nil>"},
		{"write to collA by a Beta client", 54, "", "BetaMSP", func(*world) envelope.ProposalArgs {
			return run("pvt", ops(t, []string{"pput", "collA", "ak2", "1"}))
		}, "op 0 pput: PUT_STATE failed: transaction ID: TX: tx creator does not have write access permission on privatedata in chaincodeName:pvt collectionName: collA"},
		{"unknown collection", 54, "", "AlphaMSP", func(*world) envelope.ProposalArgs {
			return run("pvt", ops(t, []string{"pput", "nocoll", "k", "1"}))
		}, "op 0 pput: PUT_STATE failed: transaction ID: TX: collection devledger/pvt/nocoll could not be found"},
		{"collection's BlockToLive changed", 65, "", "", func(w *world) envelope.ProposalArgs {
			return call(t, "ApproveChaincodeDefinitionForMyOrg", collections(w, func(p *peerpb.CollectionConfigPackage) {
				for _, c := range p.Config {
					if s := c.GetStaticCollectionConfig(); s.Name == "collAB" {
						s.BlockToLive = 7
					}
				}
			}))
		}, "failed to invoke backing implementation of 'ApproveChaincodeDefinitionForMyOrg': error validating chaincode definition: the BlockToLive in an existing collection [collAB] modified. Existing value [0]"},
		{"collection removed", 65, "", "", func(w *world) envelope.ProposalArgs {
			return call(t, "ApproveChaincodeDefinitionForMyOrg", collections(w, func(p *peerpb.CollectionConfigPackage) {
				for i, c := range p.Config {
					if c.GetStaticCollectionConfig().Name == "collA" {
						p.Config = append(p.Config[:i], p.Config[i+1:]...)
						return
					}
				}
			}))
		}, "failed to invoke backing implementation of 'ApproveChaincodeDefinitionForMyOrg': error validating chaincode definition: existing collection [collA] missing in the proposed collection configuration"},
		{"invoke before init", 70, "", "AlphaMSP", func(*world) envelope.ProposalArgs {
			return run("initcc", ops(t, []string{"put", "i", "1"}))
		}, "error in simulation: failed to execute transaction TX: invalid invocation: chaincode 'initcc' has not been initialized for this version, must call as init first"},
		{"init a second time", 71, "", "AlphaMSP", func(*world) envelope.ProposalArgs {
			args := run("initcc", ops(t, []string{"put", "i", "1"}))
			args.IsInit = true
			return args
		}, "error in simulation: failed to execute transaction TX: invalid invocation: chaincode 'initcc' is already initialized but called as init"},
		{"init of one that needs none", 71, "", "AlphaMSP", func(*world) envelope.ProposalArgs {
			args := run("orcc", ops(t, []string{"put", "i", "1"}))
			args.IsInit = true
			return args
		}, "error in simulation: failed to execute transaction TX: invalid invocation: chaincode 'orcc' does not require initialization but called as init"},
		{"undefined contract", 71, "", "AlphaMSP", func(*world) envelope.ProposalArgs {
			return run("nosuchcc", ops(t, []string{"nop"}))
		}, "make sure the chaincode nosuchcc has been successfully defined on channel devledger and try again: chaincode nosuchcc not found"},
		{"contract without a package here", 71, "GammaMSP", "AlphaMSP", func(w *world) envelope.ProposalArgs {
			return run("orcc", ops(t, []string{"nop"}))
		}, "make sure the chaincode orcc has been successfully defined on channel devledger and try again: chaincode definition for 'orcc' at sequence 1 on channel 'devledger' has not yet been approved by this org"},
	}
	w := newWorld(t)
	w.holders = []string{"Beta"}
	w.contract = (&golden{}).execute
	w.install(w.peers["AlphaMSP"])
	w.install(w.peers["BetaMSP"])
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			w.to(c.height)
			if c.org == "" {
				c.org = "AlphaMSP"
			}
			p := w.peers[c.org]
			by := p.admin
			if c.by != "" {
				by = w.peers[c.by].client
			}
			args := c.args(w)
			args.Type = commonpb.HeaderType_ENDORSER_TRANSACTION
			proposal, signed, err := envelope.NewProposal(by, args)
			must(t, err)
			res, err := p.ProcessProposal(context.Background(), signed)
			must(t, err)
			want := strings.ReplaceAll(c.want, "TX", proposal.TxID)
			if res.Response.Status != 500 || res.Response.Message != want {
				t.Errorf("answer %d %s\nwant 500 %s", res.Response.Status, res.Response.Message, want)
			}
			if res.Endorsement != nil {
				t.Error("a refusal is endorsed")
			}
		})
	}
}

// TestBadProposals sends proposals that are wrong in themselves.
func TestBadProposals(t *testing.T) {
	w := newWorld(t)
	w.contract = (&golden{}).execute
	w.to(36)
	p := w.peers["AlphaMSP"]
	w.install(p)
	good := run("basic", ops(t, []string{"nop"}))
	good.Type = commonpb.HeaderType_ENDORSER_TRANSACTION

	// made is a proposal whose parts are changed before it is signed.
	type parts struct {
		channel   *commonpb.ChannelHeader
		signature *commonpb.SignatureHeader
		extension *peerpb.ChaincodeHeaderExtension
		payload   *peerpb.ChaincodeProposalPayload
	}
	made := func(by *identity.Signer, change func(*parts)) *peerpb.SignedProposal {
		proposal, err := envelope.NewUnsignedProposal(by, good)
		must(t, err)
		header := &commonpb.Header{}
		must(t, proto.Unmarshal(proposal.Header, header))
		x := &parts{&commonpb.ChannelHeader{}, &commonpb.SignatureHeader{}, &peerpb.ChaincodeHeaderExtension{}, &peerpb.ChaincodeProposalPayload{}}
		must(t, proto.Unmarshal(header.ChannelHeader, x.channel))
		must(t, proto.Unmarshal(header.SignatureHeader, x.signature))
		must(t, proto.Unmarshal(x.channel.Extension, x.extension))
		must(t, proto.Unmarshal(proposal.Payload, x.payload))
		x.channel.Extension = nil
		change(x)
		if x.channel.Extension == nil {
			x.channel.Extension = marshal(t, x.extension)
		}
		raw := marshal(t, &peerpb.Proposal{
			Header:  marshal(t, &commonpb.Header{ChannelHeader: marshal(t, x.channel), SignatureHeader: marshal(t, x.signature)}),
			Payload: marshal(t, x.payload),
		})
		signature, err := by.Sign(raw)
		must(t, err)
		return &peerpb.SignedProposal{ProposalBytes: raw, Signature: signature}
	}
	stranger := newAuthority(t, "StrangerMSP").issue(t, "client", time.Now().Add(time.Hour))
	impostor := newAuthority(t, "AlphaMSP").issue(t, "client", time.Now().Add(time.Hour))
	expired := w.orgs["AlphaMSP"].issue(t, "client", time.Now().Add(-time.Minute))
	used := func() string {
		for _, tx := range w.blocks[35].Txs {
			return tx.ID()
		}
		return ""
	}()

	cases := []struct {
		what   string
		signed *peerpb.SignedProposal
		want   string // a prefix
		answer bool   // a response only, no error
	}{
		{"nothing", &peerpb.SignedProposal{}, "request unauthorized due to incorrect timestamp 1970-01-01T00:00:00Z, peer time ", false},
		{"old", made(p.client, func(x *parts) { x.channel.Timestamp = timestamppb.New(time.Now().Add(-16 * time.Minute)) }), "request unauthorized due to incorrect timestamp ", false},
		{"of the future", made(p.client, func(x *parts) { x.channel.Timestamp = timestamppb.New(time.Now().Add(16 * time.Minute)) }), "request unauthorized due to incorrect timestamp ", false},
		{"garbage", &peerpb.SignedProposal{ProposalBytes: []byte("garbage")}, "error unmarshalling Proposal: ", false},
		{"extension garbage", made(p.client, func(x *parts) { x.channel.Extension = []byte{1} }), "error unmarshalling ChaincodeHeaderExtension: ", false},
		{"no contract", made(p.client, func(x *parts) { x.extension.ChaincodeId = nil }), "ChaincodeHeaderExtension.ChaincodeId is nil", false},
		{"contract without name", made(p.client, func(x *parts) { x.extension.ChaincodeId.Name = "" }), "ChaincodeHeaderExtension.ChaincodeId.Name is empty", false},
		{"input garbage", made(p.client, func(x *parts) { x.payload.Input = []byte{1} }), "error unmarshalling ChaincodeInvocationSpec: ", false},
		{"no spec", made(p.client, func(x *parts) { x.payload.Input = nil }), "chaincode invocation spec did not contain chaincode spec", false},
		{"no input", made(p.client, func(x *parts) {
			x.payload.Input = marshal(t, &peerpb.ChaincodeInvocationSpec{ChaincodeSpec: &peerpb.ChaincodeSpec{}})
		}), "chaincode input did not contain any input", false},
		{"unknown channel", made(p.client, func(x *parts) { x.channel.ChannelId = "nochannel" }), "channel 'nochannel' not found", true},
		{"header type", made(p.client, func(x *parts) { x.channel.Type = int32(commonpb.HeaderType_MESSAGE) }), "error validating proposal: invalid header type MESSAGE", false},
		{"epoch", made(p.client, func(x *parts) { x.channel.Epoch = 1 }), "error validating proposal: epoch is non-zero", false},
		{"nonce", made(p.client, func(x *parts) { x.signature.Nonce = nil }), "error validating proposal: nonce is empty", false},
		{"creator", made(p.client, func(x *parts) { x.signature.Creator = nil }), "error validating proposal: creator is empty", false},
		{"txid", made(p.client, func(x *parts) { x.channel.TxId = "1" }), "error validating proposal: incorrectly computed txid '1' -- expected '", false},
		{"no signature", &peerpb.SignedProposal{ProposalBytes: made(p.client, func(*parts) {}).ProposalBytes}, "error validating proposal: empty signature bytes", false},
		{"bad signature", &peerpb.SignedProposal{ProposalBytes: made(p.client, func(*parts) {}).ProposalBytes, Signature: []byte("no")}, "error validating proposal: access denied: channel [devledger] creator org [AlphaMSP]", false},
		{"unknown MSP", made(stranger, func(*parts) {}), "error validating proposal: access denied: channel [devledger] creator org unknown, creator is malformed", false},
		{"certificate of another authority", made(impostor, func(*parts) {}), "error validating proposal: access denied: channel [devledger] creator org", false},
		{"expired certificate", made(expired, func(*parts) {}), "proposal client identity expired", false},
		{"another member's client without channel", made(w.peers["BetaMSP"].client, func(x *parts) { x.channel.ChannelId = "" }), "error validating proposal: access denied: channel [] creator org unknown, creator is malformed", false},
		{"contract without channel", made(p.client, func(x *parts) { x.channel.ChannelId = "" }), "make sure the chaincode basic has been successfully defined on channel  and try again: could not get channel config for channel ''", true},
	}
	for _, c := range cases {
		t.Run(c.what, func(t *testing.T) {
			res, err := p.ProcessProposal(context.Background(), c.signed)
			if c.answer != (err == nil) {
				t.Fatalf("error %v, want one: %t", err, !c.answer)
			}
			if res.GetResponse().GetStatus() != 500 || !strings.HasPrefix(res.Response.Message, c.want) {
				t.Errorf("answer %v\nwant %s", res.GetResponse(), c.want)
			}
			if err != nil && err.Error() != res.Response.Message {
				t.Errorf("error %q is not the answer %q", err, res.Response.Message)
			}
			if status.Code(err) == codes.OK && !c.answer {
				t.Error("the error has the code OK")
			}
		})
	}
	if ok, err := w.ledger.HasTx(used); err != nil || !ok {
		t.Errorf("transaction %s is not found: %v", used, err)
	}
}

// TestDuplicate proposes a transaction again that has been committed.
func TestDuplicate(t *testing.T) {
	w := newWorld(t)
	w.contract = (&golden{}).execute
	w.to(36)
	p := w.peers["AlphaMSP"]
	w.install(p)
	signed, tx := w.endorsed(p, p.client, run("orcc", ops(t, []string{"put", "dup", "1"})))
	w.order(tx)
	res, err := p.ProcessProposal(context.Background(), signed)
	if err == nil || !strings.HasPrefix(err.Error(), "duplicate transaction found [") || !strings.Contains(err.Error(), "]. Creator [0a") {
		t.Errorf("answer %v, error %v", res, err)
	}
}

// TestRebuilding proposes to a peer whose channel was rolled back: contracts have to wait, questions about blocks have not.
func TestRebuilding(t *testing.T) {
	w := newWorld(t)
	w.contract = (&golden{}).execute
	w.to(36)
	p := w.peers["AlphaMSP"]
	w.install(p)
	w.rebuilding = true
	call := run("orcc", ops(t, []string{"put", "k", "1"}))
	const want = "endorse requests are blocked while ledgers are being rebuilt"
	if res, err := w.propose(p, p.client, call); err == nil || err.Error() != want || res.GetResponse().GetStatus() != 500 {
		t.Errorf("answer %v, error %v", res, err)
	}
	w.rebuilding = false
	if res, err := w.propose(p, p.client, call); err != nil || res.Response.Status != 200 {
		t.Errorf("answer %v, error %v", res, err)
	}
}

// TestLimits overloads a peer.
func TestLimits(t *testing.T) {
	w := newWorld(t)
	w.to(36)
	entered, leave := make(chan struct{}), make(chan struct{})
	w.contract = func(context.Context, *endorse.Invocation) (*peerpb.Response, *peerpb.ChaincodeEvent, error) {
		close(entered)
		<-leave
		return &peerpb.Response{Status: 200}, nil, nil
	}
	w.limit = func(c *endorse.Config) { c.MaxConcurrent, c.MaxProposalBytes = 1, 10_000 }
	p := w.newPeer("AlphaMSP", w.orgs["AlphaMSP"])
	w.install(p)
	done := make(chan error)
	args := run("orcc", ops(t, []string{"nop"}))
	args.Type = commonpb.HeaderType_ENDORSER_TRANSACTION
	_, signed, err := envelope.NewProposal(p.client, args)
	must(t, err)
	go func() {
		_, err := p.ProcessProposal(context.Background(), signed)
		done <- err
	}()
	<-entered
	_, err = p.ProcessProposal(context.Background(), signed)
	if status.Code(err) != codes.ResourceExhausted || status.Convert(err).Message() != "too many requests for /protos.Endorser, exceeding concurrency limit (1)" {
		t.Errorf("error %v", err)
	}
	close(leave)
	must(t, <-done)
	_, err = p.ProcessProposal(context.Background(), &peerpb.SignedProposal{ProposalBytes: make([]byte, 10_001)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("error %v", err)
	}
}
