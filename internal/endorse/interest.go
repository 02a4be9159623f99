package endorse

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/simulation"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// interest tells a client, in the terms of discovery, what a simulation touched and so whose endorsements the
// transaction needs. System contracts do not count. The calls are sorted by namespace and collection, the public
// state of a namespace first.
func interest(touched []simulation.Touched, isSystem func(string) bool) (*peerpb.ChaincodeInterest, error) {
	type namespace struct {
		policies []*commonpb.SignaturePolicyEnvelope // of keys, public and private
		written  bool
		required bool // the contract's own policy
		calls    []*peerpb.ChaincodeCall
	}
	var order []string
	all := map[string]*namespace{}
	for _, t := range touched {
		if isSystem(t.Namespace) {
			continue
		}
		ns := all[t.Namespace]
		if ns == nil {
			ns = &namespace{}
			all[t.Namespace] = ns
			order = append(order, t.Namespace)
		}
		ns.written = ns.written || t.Written
		for _, raw := range t.Policies {
			p := &commonpb.SignaturePolicyEnvelope{}
			if err := proto.Unmarshal(raw, p); err != nil {
				return nil, fmt.Errorf("error unmarshalling SignaturePolicyEnvelope: %w", err)
			}
			ns.policies = append(ns.policies, p)
		}
		switch {
		case t.Collection == "":
			ns.required = ns.required || t.NoPolicy
		case t.NoPolicy || t.PrivateRead:
			// Collections differ in whether they were read, so each has a call of its own.
			ns.calls = append(ns.calls, &peerpb.ChaincodeCall{Name: t.Namespace, CollectionNames: []string{t.Collection}, NoPrivateReads: !t.PrivateRead})
		}
	}
	in := &peerpb.ChaincodeInterest{}
	for _, name := range order {
		ns := all[name]
		// A namespace that was only read needs the contract's policy. So does one whose written keys have no policy
		// of their own, but where all of them have, theirs take its place.
		required := ns.required || !ns.written
		if required || len(ns.policies) > 0 {
			in.Chaincodes = append(in.Chaincodes, &peerpb.ChaincodeCall{Name: name, KeyPolicies: ns.policies, DisregardNamespacePolicy: !required})
		}
		in.Chaincodes = append(in.Chaincodes, ns.calls...)
	}
	return in, nil
}
