// Package lifecycle is how contracts come into being on channels: the system contract _lifecycle, through which
// members install packages, approve definitions and commit them; the packages that are installed on this peer; and
// the catalog of what is defined, for everyone who runs, checks or advertises contracts.
//
// It guarantees that the state it writes, and the keys it reads on the way, are those that Hyperledger Fabric's
// peers come to for the same calls, byte for byte, and that refusals carry Fabric's words, which its tools show to
// operators.
//
// It leaves out running contracts (packages endorse and contracthost), what is in a package (contractpackage) and
// whether enough members endorsed a change (validate). Definitions of Fabric before 2.0 are not supported: the
// channel needs the application capability V2_0.
//
// Open this file first for the system contract. state.go has the layout of the state, definition.go what
// readers get from it, catalog.go the cached answers, packages.go the installed packages.
package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/contractpackage"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Config says what the system contract works on.
type Config struct {
	// LocalMSP is the MSP of the peer's own organisation. Its admins install and approve.
	LocalMSP *identity.MSP
	// Channel gives the current configuration of a channel.
	Channel func(id string) (*channel.Bundle, bool)
	// Packages and Catalog are the peer's.
	Packages *Packages
	Catalog  *Catalog
	// Snapshots opens the state of each channel of the peer for the length of a call, by channel id.
	Snapshots func(use func(channelID string, s simulation.Snapshot) error) error
	// Prepare makes a package ready to run before it counts as installed. It may be nil.
	Prepare func(context.Context, *contractpackage.Package) error
	// Installed is told when a package was installed; it must not wait. It may be nil.
	Installed func()
}

// System is the system contract _lifecycle. It may be used from several goroutines.
type System struct{ cfg Config }

// New makes the system contract.
func New(cfg Config) *System { return &System{cfg} }

// Name is the name under which the contract is called.
func (s *System) Name() string { return Namespace }

// call is one invocation.
type call struct {
	*System
	*simulation.Call
	ctx    context.Context
	bundle *channel.Bundle // nil without channel
	public keyspace
	own    keyspace // the own organisation's implicit collection
}

// operation is one of the contract's functions: it decodes its argument and gives its result.
type operation struct {
	// admin: the caller must be an admin of the peer's organisation; otherwise the channel's policy decides.
	admin bool
	run   func(*call, []byte) (proto.Message, error)
}

func decoded[M any, P interface {
	*M
	proto.Message
}](name string, f func(*call, P) (proto.Message, error)) func(*call, []byte) (proto.Message, error) {
	return func(c *call, raw []byte) (proto.Message, error) {
		m := P(new(M))
		if err := proto.Unmarshal(raw, m); err != nil {
			return nil, fmt.Errorf("could not decode input arg for *lifecycle.Invocation.%s: %w", name, err)
		}
		return f(c, m)
	}
}

func find(function string) (operation, bool) {
	switch function {
	case "InstallChaincode":
		return operation{true, decoded(function, (*call).install)}, true
	case "QueryInstalledChaincode":
		return operation{true, decoded(function, (*call).queryInstalled)}, true
	case "QueryInstalledChaincodes":
		return operation{true, decoded(function, (*call).listInstalled)}, true
	case "GetInstalledChaincodePackage":
		return operation{true, decoded(function, (*call).getPackage)}, true
	case "ApproveChaincodeDefinitionForMyOrg":
		return operation{true, decoded(function, (*call).approve)}, true
	case "QueryApprovedChaincodeDefinition":
		return operation{true, decoded(function, (*call).queryApproved)}, true
	case "QueryApprovedChaincodeDefinitions":
		return operation{true, decoded(function, (*call).listApproved)}, true
	case "CheckCommitReadiness":
		return operation{false, decoded(function, (*call).checkReadiness)}, true
	case "CommitChaincodeDefinition":
		return operation{false, decoded(function, (*call).commit)}, true
	case "QueryChaincodeDefinition":
		return operation{false, decoded(function, (*call).query)}, true
	case "QueryChaincodeDefinitions":
		return operation{false, decoded(function, (*call).list)}, true
	}
	return operation{}, false
}

// notDefined is the one failure with a status of its own, 404.
type notDefined string

func (n notDefined) Error() string { return "namespace " + string(n) + " is not defined" }

func failure(format string, args ...any) *peerpb.Response {
	return &peerpb.Response{Status: 500, Message: fmt.Sprintf(format, args...)}
}

// Invoke runs a function: its name and one encoded message are the arguments.
func (s *System) Invoke(ctx context.Context, in *simulation.Call) *peerpb.Response {
	if len(in.Args) == 0 {
		return failure("lifecycle scc must be invoked with arguments")
	}
	if len(in.Args) != 2 {
		return failure("lifecycle scc operations require exactly two arguments but received %d", len(in.Args))
	}
	c := &call{System: s, Call: in, ctx: ctx, public: keyspace{txID: in.TxID}, own: keyspace{txID: in.TxID, collection: simulation.ImplicitPrefix + s.cfg.LocalMSP.ID()}}
	if in.ChannelID != "" {
		b, ok := s.cfg.Channel(in.ChannelID)
		switch {
		case !ok:
			return failure("could not get channelconfig for channel '%s'", in.ChannelID)
		case !b.HasApplication():
			return failure("could not get application config for channel '%s'", in.ChannelID)
		case !b.ApplicationV2_0():
			return failure("cannot use new lifecycle for channel '%s' as it does not have the required capabilities enabled", in.ChannelID)
		}
		c.bundle = b
	}
	if in.Sim != nil {
		c.public.contract = in.Sim.Contract(Namespace, false)
		c.own.contract = c.public.contract
	}
	function := string(in.Args[0])
	op, ok := find(function)
	err := fmt.Errorf("Unmapped policy for %s/%s", Namespace, function) //nolint:staticcheck // Fabric's words
	if ok {
		err = c.authorize(op, function)
	}
	if err != nil {
		return failure("Failed to authorize invocation due to failed ACL check: %s", err)
	}
	result, err := op.run(c, in.Args[1])
	if err == nil {
		var raw []byte
		if raw, err = (proto.MarshalOptions{Deterministic: true}).Marshal(result); err == nil {
			return &peerpb.Response{Status: 200, Payload: raw}
		}
		err = fmt.Errorf("failed to marshal result for *lifecycle.Invocation.%s: %w", function, err)
	}
	if n, ok := err.(notDefined); ok { // only as it is: wrapped it is a failure of something larger
		return &peerpb.Response{Status: 404, Message: n.Error()}
	}
	return failure("failed to invoke backing implementation of '%s': %s", function, err)
}

// authorize checks that the client may call the function. Which functions are for the peer's admins no channel can
// change; the others follow the channel's access control list.
func (c *call) authorize(op operation, function string) error {
	if op.admin {
		return c.authorizeAdmin()
	}
	if c.bundle == nil {
		return fmt.Errorf("Failed getting local MSP principal during channelless check policy with policy [%s]: [MSP Principal role [%s] not recognized]", "/Channel/Application/Writers", "/Channel/Application/Writers") //nolint:staticcheck // Fabric's words
	}
	resource := Namespace + "/" + function
	path, ok := c.bundle.ACL(resource)
	if !ok {
		return fmt.Errorf("Unmapped policy for %s", resource) //nolint:staticcheck // Fabric's words
	}
	p, ok := c.bundle.Policy(path)
	if !ok {
		return fmt.Errorf("policy %s not found", path)
	}
	if err := p.EvaluateIdentities([]*identity.Identity{c.Identity}); err != nil {
		return fmt.Errorf("Failed evaluating policy on signed data during check policy on channel [%s] with policy [%s]: [%w]", c.ChannelID, path, err) //nolint:staticcheck // Fabric's words
	}
	return nil
}

func (c *call) authorizeAdmin() error {
	msp := c.cfg.LocalMSP
	id, err := msp.Deserialize(c.Creator)
	if err != nil {
		return fmt.Errorf("Failed deserializing proposal creator during channelless check policy with policy [Admins]: [%w]", err) //nolint:staticcheck // Fabric's words
	}
	role, err := proto.Marshal(&msppb.MSPRole{Role: msppb.MSPRole_ADMIN, MspIdentifier: msp.ID()})
	if err != nil {
		return err
	}
	if err := id.Satisfies(&msppb.MSPPrincipal{PrincipalClassification: msppb.MSPPrincipal_ROLE, Principal: role}); err != nil {
		return fmt.Errorf("Failed verifying that proposal's creator satisfies local MSP principal during channelless check policy with policy [Admins]: [%w]", err) //nolint:staticcheck // Fabric's words
	}
	return id.Verify(c.Proposal.ProposalBytes, c.Proposal.Signature)
}

// keyspace is the public state of the namespace or, with a collection, a private one, as the serialization of
// records wants it. Without a simulation every access fails, as it does for calls without a channel.
type keyspace struct {
	contract   *simulation.Contract
	collection string
	txID       string
}

func (k keyspace) do(operation string, f func() error) error {
	err := errors.New("no ledger context")
	if k.contract != nil {
		err = f()
	}
	if err != nil {
		return fmt.Errorf("%s failed: transaction ID: %s: %w", operation, k.txID, err)
	}
	return nil
}

func (k keyspace) get(key string) (value []byte, err error) {
	err = k.do("GET_STATE", func() (err error) { value, err = k.contract.Get(k.collection, key); return })
	return value, err
}

func (k keyspace) hash(key string) (value []byte, err error) {
	err = k.do("GET_PRIVATE_DATA_HASH", func() (err error) { value, err = k.contract.GetHash(k.collection, key); return })
	return value, err
}

func (k keyspace) put(key string, value []byte) error {
	return k.do("PUT_STATE", func() error { return k.contract.Put(k.collection, key, value) })
}

func (k keyspace) delete(key string) error {
	return k.do("DEL_STATE", func() error { return k.contract.Delete(k.collection, key) })
}

// entry of a range.
type keyValue struct {
	key   string
	value []byte
}

// under gives everything whose key starts with prefix, which is ASCII.
func (k keyspace) under(prefix string) (all []keyValue, err error) {
	err = k.do("GET_STATE_BY_RANGE", func() error {
		q, err := k.contract.Range(k.collection, prefix, prefix+"\x7f")
		if err != nil {
			return err
		}
		defer q.Close()
		for {
			key, value, ok, err := q.Next()
			if err != nil || !ok {
				return err
			}
			all = append(all, keyValue{key, value})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("could not get state iterator: %w", err)
	}
	return all, nil
}

// metadatas gives the types of all records of the section, by name, in the order of names.
func (k keyspace) metadatas(section string) ([]string, map[string]*lifecyclepb.StateMetadata, error) {
	prefix := metadataKey(section, "")
	all, err := k.under(prefix)
	if err != nil {
		return nil, nil, fmt.Errorf("could not get state range for namespace %s: %w", section, err)
	}
	var names []string
	metadatas := map[string]*lifecyclepb.StateMetadata{}
	for _, kv := range all {
		m := &lifecyclepb.StateMetadata{}
		if err := proto.Unmarshal(kv.value, m); err != nil {
			return nil, nil, fmt.Errorf("error unmarshalling metadata for key %s: %w", kv.key, err)
		}
		name := kv.key[len(prefix):]
		names, metadatas[name] = append(names, name), m
	}
	return names, metadatas, nil
}
