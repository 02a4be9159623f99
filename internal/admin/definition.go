package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/client"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Definition is what a channel's members agree on about a contract.
type Definition struct {
	Name     string
	Version  string
	Sequence int64 // 1 for the first, one more for every change
	// Policy is the endorsement policy: a signature policy's text such as
	// "AND('Org1MSP.peer','Org2MSP.peer')", a path of a channel policy such as
	// "/Channel/Application/Endorsement", or empty for the channel's default.
	Policy       string
	Collections  *peerpb.CollectionConfigPackage // nil without private data
	InitRequired bool
}

// ValidationParameter encodes the policy as definitions carry it, nil for the default.
func (d Definition) ValidationParameter() ([]byte, error) {
	if d.Policy == "" {
		return nil, nil
	}
	p := &peerpb.ApplicationPolicy{}
	if d.Policy[0] == '/' {
		p.Type = &peerpb.ApplicationPolicy_ChannelConfigPolicyReference{ChannelConfigPolicyReference: d.Policy}
	} else {
		signature, err := policy.Parse(d.Policy)
		if err != nil {
			return nil, fmt.Errorf("endorsement policy %q: %w", d.Policy, err)
		}
		p.Type = &peerpb.ApplicationPolicy_SignaturePolicy{SignaturePolicy: signature}
	}
	return proto.Marshal(p)
}

// Approve approves a definition for the client's own member. packageID is the
// package that serves it on the member's peers, "" if they will not run it.
func Approve(ctx context.Context, ch *client.Channel, mspID string, d Definition, packageID string) error {
	parameter, err := d.ValidationParameter()
	if err != nil {
		return err
	}
	source := &lifecyclepb.ChaincodeSource{Type: &lifecyclepb.ChaincodeSource_Unavailable_{Unavailable: &lifecyclepb.ChaincodeSource_Unavailable{}}}
	if packageID != "" {
		source.Type = &lifecyclepb.ChaincodeSource_LocalPackage{LocalPackage: &lifecyclepb.ChaincodeSource_Local{PackageId: packageID}}
	}
	_, err = submit(ctx, ch, "ApproveChaincodeDefinitionForMyOrg", []string{mspID}, &lifecyclepb.ApproveChaincodeDefinitionForMyOrgArgs{
		Sequence: d.Sequence, Name: d.Name, Version: d.Version, ValidationParameter: parameter,
		Collections: d.Collections, InitRequired: d.InitRequired, Source: source,
	})
	if err != nil {
		return fmt.Errorf("approve contract %s for %s: %w", d.Name, mspID, err)
	}
	return nil
}

// Commit makes an approved definition the channel's. The peers of members endorse it.
func Commit(ctx context.Context, ch *client.Channel, members []string, d Definition) error {
	parameter, err := d.ValidationParameter()
	if err != nil {
		return err
	}
	args := &lifecyclepb.CommitChaincodeDefinitionArgs{
		Sequence: d.Sequence, Name: d.Name, Version: d.Version, ValidationParameter: parameter,
		Collections: d.Collections, InitRequired: d.InitRequired,
	}
	// Right after the approvals, peers that have not all of their blocks yet give
	// different answers; they agree once the last one has caught up.
	pause := time.NewTicker(catchUp)
	defer pause.Stop()
	for attempt := 0; ; attempt++ {
		_, err = submit(ctx, ch, "CommitChaincodeDefinition", members, args)
		if err == nil || attempt == maxAttempts || !disagree(err) {
			break
		}
		<-pause.C
	}
	if err != nil {
		return fmt.Errorf("commit contract %s: %w", d.Name, err)
	}
	return nil
}

// How long peers are given to catch up with each other.
const (
	catchUp     = 50 * time.Millisecond
	maxAttempts = 100
)

// disagree says whether endorsers gave different answers to one proposal.
func disagree(err error) bool {
	failed := (*client.Error)(nil)
	return errors.As(err, &failed) && slices.ContainsFunc(failed.Details, func(d client.Detail) bool {
		return strings.Contains(d.Message, "do not match")
	})
}

// Readiness tells which members have approved a definition.
func Readiness(ctx context.Context, ch *client.Channel, d Definition) (map[string]bool, error) {
	parameter, err := d.ValidationParameter()
	if err != nil {
		return nil, err
	}
	result := &lifecyclepb.CheckCommitReadinessResult{}
	err = evaluate(ctx, ch, "CheckCommitReadiness", &lifecyclepb.CheckCommitReadinessArgs{
		Sequence: d.Sequence, Name: d.Name, Version: d.Version, ValidationParameter: parameter,
		Collections: d.Collections, InitRequired: d.InitRequired,
	}, result)
	return result.Approvals, err
}

// Committed lists the definitions that the channel has.
func Committed(ctx context.Context, ch *client.Channel) ([]*lifecyclepb.QueryChaincodeDefinitionsResult_ChaincodeDefinition, error) {
	result := &lifecyclepb.QueryChaincodeDefinitionsResult{}
	err := evaluate(ctx, ch, "QueryChaincodeDefinitions", &lifecyclepb.QueryChaincodeDefinitionsArgs{}, result)
	return result.ChaincodeDefinitions, err
}

func submit(ctx context.Context, ch *client.Channel, function string, members []string, args proto.Message) ([]byte, error) {
	raw, err := proto.Marshal(args)
	if err != nil {
		return nil, err
	}
	return ch.Contract("_lifecycle").Submit(ctx, client.Call{Function: function, Args: [][]byte{raw}, Members: members})
}

func evaluate(ctx context.Context, ch *client.Channel, function string, args, result proto.Message) error {
	raw, err := proto.Marshal(args)
	if err != nil {
		return err
	}
	answer, err := ch.Contract("_lifecycle").Evaluate(ctx, client.Call{Function: function, Args: [][]byte{raw}})
	if err != nil {
		return err
	}
	if err := proto.Unmarshal(answer, result); err != nil {
		return fmt.Errorf("decode result of %s: %w", function, err)
	}
	return nil
}
