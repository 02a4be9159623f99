package validate

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/channel"
	"github.com/hansa-ledger/hansa/internal/policy"
	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// checkPolicies checks a transaction's endorsers against the rules of every namespace that it writes to.
func (d *decision) checkPolicies(tx *preparedTx) (Code, error) {
	verdict := valid
	for _, name := range tx.written {
		// A failure does not end the loop: see noteParameters.
		code, err := d.checkNamespace(tx, name)
		if err != nil {
			return notValidated, err
		}
		if verdict == valid {
			verdict = code
		}
	}
	return verdict, nil
}

func (d *decision) checkNamespace(tx *preparedTx, name string) (Code, error) {
	def, err := d.definition(name)
	if err != nil {
		return notValidated, err
	}
	if !def.usable {
		return peerpb.TxValidationCode_INVALID_CHAINCODE, nil
	}
	c := &endorsementCheck{decision: d, tx: tx, definition: def, contract: name}
	var writes *rwset.Namespace
	for _, ns := range tx.set.Namespaces {
		if ns.Name == name {
			writes = ns
		}
	}
	switch satisfied, err := c.all(writes); {
	case err != nil:
		return notValidated, err
	case !satisfied:
		return peerpb.TxValidationCode_ENDORSEMENT_POLICY_FAILURE, nil
	}
	d.noteParameters(writes)
	return valid, nil
}

// noteParameters remembers the keys whose policy a transaction of this block replaces: which policy a later
// transaction of the block has to satisfy cannot be told, so it is refused. What counts is that the rules of the key's own
// namespace were satisfied, not that the transaction becomes valid. (It may fail in another namespace: peers of
// the reference implementation then refuse the later one too, or wait forever, by chance. They also wait forever for
// the verdict of an earlier transaction that was refused before its policies were looked at, or that cannot be decoded;
// here such a one does not count.)
func (d *decision) noteParameters(ns *rwset.Namespace) {
	if ns == nil {
		return
	}
	note := func(collection, key string) {
		if d.parameters == nil {
			d.parameters = map[ledgerKey]bool{}
		}
		d.parameters[ledgerKey{ns.Name, collection, key}] = true
	}
	for _, w := range ns.KV.MetadataWrites {
		note("", w.Key)
	}
	for _, c := range ns.Collections {
		for _, w := range c.Hashed.MetadataWrites {
			note(c.Name, string(w.KeyHash))
		}
	}
}

// endorsementCheck checks one transaction's endorsers for one namespace.
type endorsementCheck struct {
	*decision
	*definition
	tx       *preparedTx
	contract string

	// Which policies were found satisfied: collections' by name, the contract's, and any at all.
	collectionsDone map[string]bool
	contractDone    bool
	anyDone         bool
}

// all goes through the namespace's writes: public values, public metadata, then all collections' values, then
// their metadata. A key with a policy of its own asks for that; else its collection's policy counts, else the
// contract's. A transaction that writes nothing still needs the contract's.
func (c *endorsementCheck) all(ns *rwset.Namespace) (bool, error) {
	if ns != nil {
		for _, w := range ns.KV.Writes {
			if ok, err := c.key("", w.Key); !ok || err != nil {
				return false, err
			}
		}
		for _, w := range ns.KV.MetadataWrites {
			if ok, err := c.key("", w.Key); !ok || err != nil {
				return false, err
			}
		}
		for _, coll := range ns.Collections {
			for _, w := range coll.Hashed.HashedWrites {
				if ok, err := c.key(coll.Name, string(w.KeyHash)); !ok || err != nil {
					return false, err
				}
			}
		}
		for _, coll := range ns.Collections {
			for _, w := range coll.Hashed.MetadataWrites {
				if ok, err := c.key(coll.Name, string(w.KeyHash)); !ok || err != nil {
					return false, err
				}
			}
		}
	}
	return c.anyDone || c.byContract(), nil
}

// key checks a write of one key; the key of a collection is its hash.
func (c *endorsementCheck) key(collection, key string) (bool, error) {
	if c.parameters[ledgerKey{c.contract, collection, key}] {
		return false, nil
	}
	own, err := c.parameter(collection, key)
	switch {
	case err != nil:
		return false, err
	case len(own) == 0:
		return c.byDefault(collection), nil
	}
	// A parameter that is no policy satisfies nobody. (The reference implementation stops at it.)
	if !c.satisfies(c.validator.parameter(c.bundle, own)) {
		return false, nil
	}
	c.anyDone = true
	return true, nil
}

// parameter is the key's own policy, a serialized SignaturePolicyEnvelope, empty without one.
func (c *endorsementCheck) parameter(collection, key string) ([]byte, error) {
	var raw []byte
	var err error
	switch {
	case collection == "":
		raw, err = c.state.Metadata(c.contract, key)
	case c.collection(c.definition, collection).defined:
		raw, err = c.state.HashMetadata(c.contract, collection, []byte(key))
	}
	if err != nil || len(raw) == 0 {
		return nil, err
	}
	metadata, err := rwset.DecodeMetadata(raw)
	if err != nil {
		return nil, fmt.Errorf("key %q of namespace %q: %w", key, c.contract, err)
	}
	return metadata[peerpb.MetaDataKeys_VALIDATION_PARAMETER.String()], nil
}

// byDefault checks the policy of a collection, or where there is none, of the contract; each once.
func (c *endorsementCheck) byDefault(collection string) bool {
	if collection == "" || c.collectionsDone[collection] {
		return collection != "" || c.byContract()
	}
	rule := c.collection(c.definition, collection)
	switch {
	case !rule.writable:
		return false
	case !rule.hasPolicy:
		return c.byContract()
	case !c.satisfies(rule.policy):
		return false
	}
	if c.collectionsDone == nil {
		c.collectionsDone = map[string]bool{}
	}
	c.collectionsDone[collection], c.anyDone = true, true
	return true
}

func (c *endorsementCheck) byContract() bool {
	if !c.contractDone {
		if !c.satisfies(c.policy) {
			return false
		}
		c.contractDone, c.anyDone = true, true
	}
	return true
}

// satisfies evaluates a policy; one that could not be compiled (nil) satisfies nobody.
func (c *endorsementCheck) satisfies(p policy.Policy) bool {
	return p != nil && p.EvaluateIdentities(c.tx.endorsers) == nil
}

// application gives the policy for a serialized ApplicationPolicy under a configuration, nil if it is none.
func (v *Validator) application(b *channel.Bundle, raw []byte) policy.Policy {
	return v.compile(b, 'a', raw, func() (policy.Policy, error) {
		application := &peerpb.ApplicationPolicy{}
		if err := proto.Unmarshal(raw, application); err != nil {
			return nil, err
		}
		switch t := application.Type.(type) {
		case *peerpb.ApplicationPolicy_SignaturePolicy:
			return policy.NewSignature(t.SignaturePolicy, b.MSPs())
		case *peerpb.ApplicationPolicy_ChannelConfigPolicyReference:
			if p, ok := b.PolicyRef(t.ChannelConfigPolicyReference); ok {
				return p, nil
			}
		}
		return nil, errNoPolicy
	})
}

// parameter gives the policy for a key-level validation parameter, a serialized SignaturePolicyEnvelope, nil if it is none.
func (v *Validator) parameter(b *channel.Bundle, raw []byte) policy.Policy {
	return v.compile(b, 'k', raw, func() (policy.Policy, error) {
		rule := &commonpb.SignaturePolicyEnvelope{}
		if err := proto.Unmarshal(raw, rule); err != nil {
			return nil, err
		}
		return policy.NewSignature(rule, b.MSPs())
	})
}

var errNoPolicy = errors.New("no policy")

// policyKey names a compiled policy: what it was made as, and the hash of what it was made from.
type policyKey struct {
	kind byte
	hash [sha256.Size]byte
}

// maxKeptPolicy is the size up to which policies are kept compiled; those that people write have some hundred bytes.
const maxKeptPolicy = 64 << 10

// compile remembers policies for as long as the configuration stays; failures too, as nil.
func (v *Validator) compile(b *channel.Bundle, kind byte, raw []byte, make func() (policy.Policy, error)) policy.Policy {
	if len(raw) > maxKeptPolicy {
		p, err := make()
		if err != nil {
			return nil
		}
		return p
	}
	key := policyKey{kind, sha256.Sum256(raw)}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.bundle != b || len(v.policies) >= v.config.MaxPolicies {
		v.bundle, v.policies = b, map[policyKey]policy.Policy{}
	}
	p, known := v.policies[key]
	if !known {
		var err error
		if p, err = make(); err != nil {
			p = nil
		}
		v.policies[key] = p
	}
	return p
}
