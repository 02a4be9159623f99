package lifecycle

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// proposed is what the arguments of approve, commit and readiness have in common.
type proposed interface {
	GetSequence() int64
	GetName() string
	GetVersion() string
	GetEndorsementPlugin() string
	GetValidationPlugin() string
	GetValidationParameter() []byte
	GetCollections() *peerpb.CollectionConfigPackage
	GetInitRequired() bool
}

func definitionOf(in proposed) *Definition {
	return &Definition{Name: in.GetName(), Sequence: in.GetSequence(), Parameters: Parameters{
		Endorsement: &lifecyclepb.ChaincodeEndorsementInfo{Version: in.GetVersion(), EndorsementPlugin: in.GetEndorsementPlugin(), InitRequired: in.GetInitRequired()},
		Validation:  &lifecyclepb.ChaincodeValidationInfo{ValidationPlugin: in.GetValidationPlugin(), ValidationParameter: in.GetValidationParameter()},
		Collections: &peerpb.CollectionConfigPackage{Config: in.GetCollections().GetConfig()},
	}}
}

// setDefaults fills in what the caller left to the channel.
func (c *call) setDefaults(d *Definition) error {
	if d.Endorsement.EndorsementPlugin == "" {
		d.Endorsement.EndorsementPlugin = "escc"
	}
	if d.Validation.ValidationPlugin == "" {
		d.Validation.ValidationPlugin = "vscc"
	}
	if len(d.Validation.ValidationParameter) > 0 {
		return nil
	}
	err := fmt.Errorf("could not get channel config for channel '%s'", c.ChannelID)
	if c.bundle != nil {
		err = fmt.Errorf("policy '%s' must be defined for channel '%s' before chaincode operations can be attempted", DefaultPolicy, c.ChannelID)
		if _, ok := c.bundle.Policy(DefaultPolicy); ok {
			d.Validation.ValidationParameter, err = policyReference(DefaultPolicy)
		}
	}
	if err != nil {
		return fmt.Errorf("could not set defaults for chaincode definition in channel %s: %w", c.ChannelID, err)
	}
	return nil
}

// approve records the own organisation's approval of a definition, and which package it runs, in the
// organisation's implicit collection. The definition is the committed one or the next.
func (c *call) approve(in *lifecyclepb.ApproveChaincodeDefinitionForMyOrgArgs) (proto.Message, error) {
	if err := c.checkInput(in); err != nil {
		return nil, fmt.Errorf("error validating chaincode definition: %w", err)
	}
	d, packageID := definitionOf(in), in.GetSource().GetLocalPackage().GetPackageId()
	current, err := readSequence(d.Name, c.public.get)
	switch {
	case err != nil:
		return nil, fmt.Errorf("could not get current sequence: %w", err)
	case d.Sequence == 0 && current == 0:
		return nil, errors.New("requested sequence is 0, but first definable sequence number is 1")
	case d.Sequence < current:
		return nil, fmt.Errorf("currently defined sequence %d is larger than requested sequence %d", current, d.Sequence)
	case d.Sequence > current+1:
		return nil, fmt.Errorf("requested sequence %d is larger than the next available sequence number %d", d.Sequence, current+1)
	}
	if err := c.setDefaults(d); err != nil {
		return nil, err
	}
	if d.Sequence == current {
		if err := c.checkCommitted(d); err != nil {
			return nil, err
		}
	}
	private := approvalName(d.Name, d.Sequence)
	same, err := c.approvedAlready(private, packageID, d)
	switch {
	case err != nil:
		return nil, err
	case same && d.Sequence == current:
		return nil, fmt.Errorf("attempted to redefine the current committed sequence (%d) for namespace %s", current, d.Name)
	case same: // nothing would be written
		return nil, fmt.Errorf("attempted to redefine uncommitted sequence (%d) for namespace %s with unchanged content", d.Sequence, d.Name)
	}
	parameters, err := d.Parameters.record()
	if err == nil {
		err = parameters.write(sectionNamespaces, private, c.own)
	}
	if err != nil {
		return nil, fmt.Errorf("could not serialize chaincode parameters to state: %w", err)
	}
	// An empty package id is written too: it tells the organisation's peers not to run the contract.
	source, err := localPackage(packageID)
	if err == nil {
		err = source.write(sectionSources, private, c.own)
	}
	if err != nil {
		return nil, fmt.Errorf("could not serialize chaincode package info to state: %w", err)
	}
	return &lifecyclepb.ApproveChaincodeDefinitionForMyOrgResult{}, nil
}

// checkCommitted refuses a definition that differs from the one committed with the same sequence.
func (c *call) checkCommitted(d *Definition) error {
	metadata, ok, err := readMetadata(sectionNamespaces, d.Name, c.public.get)
	if err != nil {
		return fmt.Errorf("could not fetch metadata for current definition: %w", err)
	}
	if !ok {
		return fmt.Errorf("missing metadata for currently committed sequence number (%d)", d.Sequence)
	}
	committed, err := c.readTyped(d.Name, metadata)
	if err != nil {
		return err
	}
	if err := committed.equal(d.Parameters); err != nil {
		return fmt.Errorf("attempted to redefine the current committed sequence (%d) for namespace %s with different parameters: %w", d.Sequence, d.Name, err)
	}
	return nil
}

func (c *call) readTyped(name string, metadata *lifecyclepb.StateMetadata) (*Definition, error) {
	err := checkType(metadata, typeDefinition)
	var d *Definition
	if err == nil {
		d, err = readDefinition(name, c.public.get)
	}
	if err != nil {
		return nil, fmt.Errorf("could not deserialize namespace %s as chaincode: %w", name, err)
	}
	return d, nil
}

func checkType(metadata *lifecyclepb.StateMetadata, want string) error {
	if metadata.Datatype != want {
		return fmt.Errorf("type name mismatch '%s' != '%s'", want, metadata.Datatype)
	}
	return nil
}

// approvedAlready tells whether the organisation's approval says just this.
func (c *call) approvedAlready(private, packageID string, d *Definition) (bool, error) {
	metadata, ok, err := readMetadata(sectionNamespaces, private, c.own.get)
	if err != nil {
		return false, fmt.Errorf("could not fetch chaincode definition, chaincode %s, requested at sequence %d: %w", private, d.Sequence, err)
	}
	if !ok {
		return false, nil
	}
	err = checkType(metadata, typeParameters)
	var approved Parameters
	if err == nil {
		approved, err = readParameters(private, c.own.get)
	}
	if err != nil {
		return false, fmt.Errorf("could not deserialize namespace %s as chaincode: %w", private, err)
	}
	if approved.equal(d.Parameters) != nil {
		return false, nil
	}
	metadata, ok, err = readMetadata(sectionSources, private, c.own.get)
	if err != nil {
		return false, fmt.Errorf("could not deserialize chaincode-source metadata for %s: %w", private, err)
	}
	if !ok {
		return false, nil
	}
	err = checkType(metadata, typeLocalPackage)
	var id string
	if err == nil {
		id, err = readPackageID(private, c.own.get)
	}
	if err != nil {
		return false, fmt.Errorf("could not deserialize chaincode package for %s: %w", private, err)
	}
	return id == packageID, nil
}

// approvals compares a definition with what the organisations of the channel approved, by hashes. It tells who
// agrees, and for the others what differs.
func (c *call) approvals(d *Definition) (map[string]bool, map[string][]string, error) {
	if c.bundle == nil {
		return nil, nil, fmt.Errorf("no application config for channel '%s'", c.ChannelID)
	}
	r, err := d.Parameters.record()
	if err != nil {
		return nil, nil, err
	}
	agree, differ := map[string]bool{}, map[string][]string{}
	private := approvalName(d.Name, d.Sequence)
	for _, org := range c.bundle.ApplicationOrgs() {
		k := keyspace{contract: c.public.contract, txID: c.TxID, collection: simulation.ImplicitPrefix + org.MSPID}
		items, err := r.mismatches(sectionNamespaces, private, k.hash)
		if err != nil {
			return nil, nil, fmt.Errorf("serialization check failed for key %s: %w", private, err)
		}
		agree[org.MSPID] = len(items) == 0
		if len(items) > 0 {
			differ[org.MSPID] = items
		}
	}
	return agree, differ, nil
}

func (c *call) readiness(d *Definition) (map[string]bool, map[string][]string, error) {
	current, err := readSequence(d.Name, c.public.get)
	if err != nil {
		return nil, nil, fmt.Errorf("could not get current sequence: %w", err)
	}
	if d.Sequence != current+1 {
		return nil, nil, fmt.Errorf("requested sequence is %d, but new definition must be sequence %d", d.Sequence, current+1)
	}
	if err := c.setDefaults(d); err != nil {
		return nil, nil, err
	}
	return c.approvals(d)
}

func (c *call) checkReadiness(in *lifecyclepb.CheckCommitReadinessArgs) (proto.Message, error) {
	if c.bundle == nil {
		return nil, fmt.Errorf("no application config for channel '%s'", c.ChannelID)
	}
	agree, differ, err := c.readiness(definitionOf(in))
	if err != nil {
		return nil, err
	}
	result := &lifecyclepb.CheckCommitReadinessResult{Approvals: agree, Mismatches: map[string]*lifecyclepb.CheckCommitReadinessResult_Mismatches{}}
	for org, items := range differ {
		result.Mismatches[org] = &lifecyclepb.CheckCommitReadinessResult_Mismatches{Items: items}
	}
	return result, nil
}

// commit makes a definition the channel's. This peer agrees if its own organisation has approved it; whether enough
// others do is for the channel's LifecycleEndorsement policy.
func (c *call) commit(in *lifecyclepb.CommitChaincodeDefinitionArgs) (proto.Message, error) {
	if err := c.checkInput(in); err != nil {
		return nil, fmt.Errorf("error validating chaincode definition: %w", err)
	}
	own, member := c.cfg.LocalMSP.ID(), false
	for _, org := range c.bundle.ApplicationOrgs() {
		member = member || org.MSPID == own
	}
	if !member {
		return nil, errors.New("impossibly, this peer's org is processing requests for a channel it is not a member of")
	}
	d := definitionOf(in)
	agree, _, err := c.readiness(d)
	if err != nil {
		return nil, err
	}
	r, err := d.record()
	if err == nil {
		err = r.write(sectionNamespaces, d.Name, c.public)
	}
	if err != nil {
		return nil, fmt.Errorf("could not serialize chaincode definition: %w", err)
	}
	if !agree[own] {
		return nil, fmt.Errorf("chaincode definition not agreed to by this org (%s)", own)
	}
	return &lifecyclepb.CommitChaincodeDefinitionResult{}, nil
}

func (c *call) defined(name string) (*Definition, error) {
	metadata, ok, err := readMetadata(sectionNamespaces, name, c.public.get)
	if err != nil {
		return nil, fmt.Errorf("could not fetch metadata for namespace %s: %w", name, err)
	}
	if !ok {
		return nil, notDefined(name)
	}
	return c.readTyped(name, metadata)
}

func (c *call) query(in *lifecyclepb.QueryChaincodeDefinitionArgs) (proto.Message, error) {
	d, err := c.defined(in.Name)
	if err != nil {
		return nil, err
	}
	agree, _, err := c.approvals(d)
	if err != nil {
		return nil, err
	}
	return &lifecyclepb.QueryChaincodeDefinitionResult{
		Sequence: d.Sequence, Version: d.Endorsement.Version, EndorsementPlugin: d.Endorsement.EndorsementPlugin, ValidationPlugin: d.Validation.ValidationPlugin,
		ValidationParameter: d.Validation.ValidationParameter, InitRequired: d.Endorsement.InitRequired, Collections: d.Collections, Approvals: agree,
	}, nil
}

func (c *call) list(*lifecyclepb.QueryChaincodeDefinitionsArgs) (proto.Message, error) {
	names, metadatas, err := c.public.metadatas(sectionNamespaces)
	if err != nil {
		return nil, fmt.Errorf("could not query namespace metadata: %w", err)
	}
	result := &lifecyclepb.QueryChaincodeDefinitionsResult{}
	for _, name := range names {
		if metadatas[name].Datatype != typeDefinition {
			continue
		}
		d, err := c.defined(name)
		if err != nil {
			return nil, err
		}
		result.ChaincodeDefinitions = append(result.ChaincodeDefinitions, &lifecyclepb.QueryChaincodeDefinitionsResult_ChaincodeDefinition{
			Name: name, Sequence: d.Sequence, Version: d.Endorsement.Version, EndorsementPlugin: d.Endorsement.EndorsementPlugin, ValidationPlugin: d.Validation.ValidationPlugin,
			ValidationParameter: d.Validation.ValidationParameter, InitRequired: d.Endorsement.InitRequired, Collections: d.Collections,
		})
	}
	return result, nil
}

// queryApproved gives the own organisation's approval: of the sequence asked for, or of the latest.
func (c *call) queryApproved(in *lifecyclepb.QueryApprovedChaincodeDefinitionArgs) (proto.Message, error) {
	sequence := in.Sequence
	if sequence == 0 {
		current, err := readSequence(in.Name, c.public.get)
		if err != nil {
			return nil, fmt.Errorf("could not get current sequence: %w", err)
		}
		sequence = current
		_, ok, err := readMetadata(sectionNamespaces, approvalName(in.Name, current+1), c.own.get)
		if err != nil {
			return nil, fmt.Errorf("could not deserialize namespace metadata for next sequence %d: %w", current+1, err)
		}
		if ok {
			sequence = current + 1
		}
	}
	private := approvalName(in.Name, sequence)
	metadata, ok, err := readMetadata(sectionNamespaces, private, c.own.get)
	if err != nil {
		return nil, fmt.Errorf("could not deserialize namespace metadata for %s: %w", private, err)
	}
	if !ok {
		return nil, fmt.Errorf("could not fetch approved chaincode definition (name: '%s', sequence: '%d') on channel '%s'", in.Name, sequence, c.ChannelID)
	}
	p, source, err := c.approval(private, metadata)
	if err != nil {
		return nil, err
	}
	return &lifecyclepb.QueryApprovedChaincodeDefinitionResult{
		Sequence: sequence, Version: p.Endorsement.Version, EndorsementPlugin: p.Endorsement.EndorsementPlugin, ValidationPlugin: p.Validation.ValidationPlugin,
		ValidationParameter: p.Validation.ValidationParameter, InitRequired: p.Endorsement.InitRequired, Collections: p.Collections, Source: source,
	}, nil
}

func (c *call) approval(private string, metadata *lifecyclepb.StateMetadata) (Parameters, *lifecyclepb.ChaincodeSource, error) {
	if metadata.Datatype != typeParameters {
		return Parameters{}, nil, fmt.Errorf("not a chaincode parameters type: %s", metadata.Datatype)
	}
	p, err := readParameters(private, c.own.get)
	if err != nil {
		return Parameters{}, nil, fmt.Errorf("could not deserialize chaincode parameters for %s: %w", private, err)
	}
	metadata, ok, err := readMetadata(sectionSources, private, c.own.get)
	switch {
	case err != nil:
		return Parameters{}, nil, fmt.Errorf("could not deserialize chaincode-source metadata for %s: %w", private, err)
	case !ok:
		return Parameters{}, nil, fmt.Errorf("could not fetch chaincode-source metadata for %s", private)
	case metadata.Datatype != typeLocalPackage:
		return Parameters{}, nil, fmt.Errorf("not a chaincode local package type: %s", metadata.Datatype)
	}
	id, err := readPackageID(private, c.own.get)
	if err != nil {
		return Parameters{}, nil, fmt.Errorf("could not deserialize chaincode package for %s: %w", private, err)
	}
	if id == "" {
		return p, &lifecyclepb.ChaincodeSource{Type: &lifecyclepb.ChaincodeSource_Unavailable_{Unavailable: &lifecyclepb.ChaincodeSource_Unavailable{}}}, nil
	}
	return p, &lifecyclepb.ChaincodeSource{Type: &lifecyclepb.ChaincodeSource_LocalPackage{LocalPackage: &lifecyclepb.ChaincodeSource_Local{PackageId: id}}}, nil
}

func (c *call) listApproved(*lifecyclepb.QueryApprovedChaincodeDefinitionsArgs) (proto.Message, error) {
	names, metadatas, err := c.own.metadatas(sectionNamespaces)
	if err != nil {
		return nil, fmt.Errorf("could not fetch metadatas: %w", err)
	}
	result := &lifecyclepb.QueryApprovedChaincodeDefinitionsResult{}
	for _, private := range names {
		name, sequence, err := splitApprovalName(private)
		if err != nil {
			return nil, fmt.Errorf("could not extract chaincode name and sequence number from metadata: %s: %w", private, err)
		}
		p, source, err := c.approval(private, metadatas[private])
		if err != nil {
			return nil, fmt.Errorf("could not fetch approved chaincode definition (name: '%s', sequence: '%d') on channel '%s': %w", name, sequence, c.ChannelID, err)
		}
		result.ApprovedChaincodeDefinitions = append(result.ApprovedChaincodeDefinitions, &lifecyclepb.QueryApprovedChaincodeDefinitionsResult_ApprovedChaincodeDefinition{
			Name: name, Sequence: sequence, Version: p.Endorsement.Version, EndorsementPlugin: p.Endorsement.EndorsementPlugin, ValidationPlugin: p.Validation.ValidationPlugin,
			ValidationParameter: p.Validation.ValidationParameter, InitRequired: p.Endorsement.InitRequired, Collections: p.Collections, Source: source,
		})
	}
	return result, nil
}

func splitApprovalName(private string) (string, int64, error) {
	name, number, ok := strings.Cut(private, "#")
	if !ok || strings.Contains(number, "#") {
		return "", 0, fmt.Errorf("invalid private name format: %s", private)
	}
	sequence, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return "", 0, fmt.Errorf("invalid sequence number in private name: %s: %w", private, err)
	}
	return name, sequence, nil
}
