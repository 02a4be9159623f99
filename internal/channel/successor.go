package channel

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
	"github.com/hansa-ledger/hansa/internal/wire/smartbftpb"
)

// checkNext says whether next may follow b at all, as peers and orderers see it.
func (b *Bundle) checkNext(next *Bundle) error {
	if b.orderer != nil {
		if next.orderer == nil {
			return errors.New("current config has orderer section, but new config does not")
		}
		if from, to := b.orderer.consensus.Type, next.orderer.consensus.Type; from != to && !b.channel.v142() {
			return fmt.Errorf("attempted to change consensus type from %s to %s", from, to)
		}
		if err := checkSameMSPIDs("orderer", b.orderer.orgs, next.orderer.orgs); err != nil {
			return err
		}
	}
	if b.application != nil {
		if next.application == nil {
			return errors.New("current config has application section, but new config does not")
		}
		if err := checkSameMSPIDs("application", b.application.orgs, next.application.orgs); err != nil {
			return err
		}
	}
	return checkConsortiumsNext(b, next)
}

func checkSameMSPIDs(kind string, from, to []Org) error {
	was := make(map[string]string, len(from))
	for _, org := range from {
		was[org.Name] = org.MSPID
	}
	for _, org := range to {
		if id, ok := was[org.Name]; ok && id != org.MSPID {
			return fmt.Errorf("%s org %s attempted to change MSP ID from %s to %s", kind, org.Name, id, org.MSPID)
		}
	}
	return nil
}

func checkConsortiumsNext(from, to *Bundle) error {
	was, had := from.config.ChannelGroup.Groups[consortiumsKey]
	is, has := to.config.ChannelGroup.Groups[consortiumsKey]
	switch {
	case had && !has:
		return errors.New("current config has consortiums section, but new config does not")
	case !had && has:
		return errors.New("current config has no consortiums section, but new config does")
	}
	for name, consortium := range was.GetGroups() {
		for orgName, org := range consortium.GetGroups() {
			next, ok := is.GetGroups()[name].GetGroups()[orgName]
			if !ok {
				continue
			}
			if a, b := mspIDOf(org), mspIDOf(next); a != b {
				return fmt.Errorf("consortium %s org %s attempted to change MSP ID from %s to %s", name, orgName, a, b)
			}
		}
	}
	return nil
}

// mspIDOf reads the name in an organization's MSP definition; bundles have decoded it before.
func mspIDOf(org *commonpb.ConfigGroup) string {
	conf, definition := &msppb.MSPConfig{}, &msppb.FabricMSPConfig{}
	if proto.Unmarshal(org.GetValues()[mspKey].GetValue(), conf) != nil || proto.Unmarshal(conf.Config, definition) != nil {
		return ""
	}
	return definition.Name
}

// checkConsensus applies what only orderers ask of a next configuration: sound
// consensus metadata, and at most one etcdraft consenter added, removed or both
// (which replaces one), since raft changes its members one at a time.
func (b *Bundle) checkConsensus(next *Bundle, now time.Time) error {
	to := next.orderer.consensus
	if to.Type == ConsensusBFT {
		for _, org := range next.orderer.orgs {
			if len(org.Endpoints) == 0 {
				return fmt.Errorf("illegal orderer config detected during consensus metadata validation: endpoints of org %s are missing", org.Name)
			}
		}
		return checkBFT(next)
	}
	if to.Type != ConsensusRaft {
		return fmt.Errorf("illegal consensus type detected during consensus metadata validation: %s", to.Type)
	}
	if b.orderer == nil || b.orderer.consensus.Type != ConsensusRaft {
		return nil // checkMaintenance refuses the change of type
	}
	before, after := &etcdraftpb.ConfigMetadata{}, &etcdraftpb.ConfigMetadata{}
	if err := proto.Unmarshal(b.orderer.consensus.Metadata, before); err != nil {
		return fmt.Errorf("failed to unmarshal current etcdraft metadata configuration: %w", err)
	}
	if err := proto.Unmarshal(to.Metadata, after); err != nil {
		return fmt.Errorf("failed to unmarshal new etcdraft metadata configuration: %w", err)
	}
	roots, err := tlsRoots(next.orderer.orgs)
	if err != nil {
		return fmt.Errorf("failed to create x509 verify options from old and new orderer config: %w", err)
	}
	if err := checkRaftMetadata(after, roots); err != nil {
		return fmt.Errorf("invalid new config metadata: %w", err)
	}
	added, removed := changedConsenters(before.Consenters, after.Consenters), changedConsenters(after.Consenters, before.Consenters)
	if len(added) > 1 || len(removed) > 1 {
		return fmt.Errorf("update of more than one consenter at a time is not supported, requested changes: add %d node(s), remove %d node(s)", len(added), len(removed))
	}
	roots.CurrentTime = now
	for _, c := range added {
		if err := checkConsenterCertificates(c, roots, false); err != nil {
			return fmt.Errorf("consenter %s:%d has invalid certificates: %w", c.Host, c.Port, err)
		}
	}
	return nil
}

// changedConsenters are those of to that from has not; a consenter is known by its client certificate.
func changedConsenters(from, to []*etcdraftpb.Consenter) []*etcdraftpb.Consenter {
	known := make(map[string]bool, len(from))
	for _, c := range from {
		known[string(c.ClientTlsCert)] = true
	}
	var changed []*etcdraftpb.Consenter
	for _, c := range to {
		if !known[string(c.ClientTlsCert)] {
			changed = append(changed, c)
		}
	}
	return changed
}

func checkRaftMetadata(m *etcdraftpb.ConfigMetadata, roots x509.VerifyOptions) error {
	o := m.Options
	switch {
	case o == nil:
		return errors.New("nil Raft config metadata options")
	case o.HeartbeatTick == 0 || o.ElectionTick == 0 || o.MaxInflightBlocks == 0:
		return fmt.Errorf("none of HeartbeatTick (%d), ElectionTick (%d) and MaxInflightBlocks (%d) can be zero", o.HeartbeatTick, o.ElectionTick, o.MaxInflightBlocks)
	case o.ElectionTick <= o.HeartbeatTick:
		return fmt.Errorf("ElectionTick (%d) must be greater than HeartbeatTick (%d)", o.ElectionTick, o.HeartbeatTick)
	}
	if d, err := time.ParseDuration(o.TickInterval); err != nil {
		return fmt.Errorf("failed to parse TickInterval (%s) to time duration: %w", o.TickInterval, err)
	} else if d <= 0 {
		return errors.New("TickInterval cannot be zero")
	}
	if len(m.Consenters) == 0 {
		return errors.New("empty consenter set")
	}
	seen := map[string]bool{}
	for _, c := range m.Consenters {
		if err := checkConsenterCertificates(c, roots, true); err != nil {
			return fmt.Errorf("consenter %s:%d has invalid certificate: %w", c.Host, c.Port, err)
		}
		server, client := string(c.ServerTlsCert), string(c.ClientTlsCert)
		if seen[server] || seen[client] {
			return fmt.Errorf("duplicate consenter: server cert: %s, client cert: %s", server, client)
		}
		seen[server], seen[client] = true, true
	}
	return nil
}

func checkConsenterCertificates(c *etcdraftpb.Consenter, roots x509.VerifyOptions, ignoreExpiry bool) error {
	for _, side := range []struct {
		name string
		pem  []byte
	}{{"client", c.ClientTlsCert}, {"server", c.ServerTlsCert}} {
		certificate, err := parseCertificate(side.pem)
		if err != nil {
			return fmt.Errorf("parsing tls %s cert of %s:%d: %w", side.name, c.Host, c.Port, err)
		}
		options := roots
		if ignoreExpiry {
			options.CurrentTime = certificate.NotBefore.Add(time.Second)
		}
		_, err = certificate.Verify(options)
		// The certificate is good at that moment, so this is about an authority that was made later, or has
		// run out: its signature has been verified before its dates were looked at.
		if invalid := (x509.CertificateInvalidError{}); ignoreExpiry && errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("verifying tls %s cert with serial number %d: %w", side.name, certificate.SerialNumber, err)
		}
	}
	return nil
}

func tlsRoots(orgs []Org) (x509.VerifyOptions, error) {
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, org := range orgs {
		for pool, certificates := range map[*x509.CertPool][][]byte{options.Roots: org.TLSRoots, options.Intermediates: org.TLSIntermediates} {
			for _, raw := range certificates {
				certificate, err := parseCertificate(raw)
				if err != nil {
					return options, fmt.Errorf("parsing tls certs of %s: %w", org.Name, err)
				}
				pool.AddCert(certificate)
			}
		}
	}
	return options, nil
}

func parseCertificate(raw []byte) (*x509.Certificate, error) {
	decoded, _ := pem.Decode(raw)
	if decoded == nil {
		return nil, errors.New("no PEM data found in cert")
	}
	certificate, err := x509.ParseCertificate(decoded.Bytes)
	if err != nil {
		return nil, fmt.Errorf("TLS certificate has invalid ASN1 structure: %w", err)
	}
	return certificate, nil
}

// checkBFT checks a configuration of a BFT channel: the policy by which peers
// check blocks names just the consenters, and a quorum of them.
func checkBFT(next *Bundle) error {
	options := &smartbftpb.Options{}
	if err := proto.Unmarshal(next.orderer.consensus.Metadata, options); err != nil {
		return fmt.Errorf("invalid options encoded in consensus metadata: %w", err)
	}
	if options.LeaderRotation == smartbftpb.Options_ROTATION_ON {
		return errors.New("leader rotation must be turned off for this version or be unspecified")
	}
	if err := checkBFTOptions(options); err != nil {
		return fmt.Errorf("invalid BFT metadata configuration: %w", err)
	}
	if len(next.orderer.consenters) == 0 {
		return errors.New("no consenters in the Orderers value of the 'Orderer' group")
	}
	has := next.config.ChannelGroup.Groups[ordererKey].GetPolicies()[blockValidationPolicy].GetPolicy()
	wants, err := BFTBlockPolicy(next.orderer.consenters)
	if err != nil {
		return err
	}
	if has.GetType() != wants.Type || !sameSignaturePolicy(has.GetValue(), wants.Value) {
		return errors.New("block validation policy must be a signature policy over the consenters, of a quorum of them in their order; compute it from the Orderers value")
	}
	return nil
}

// checkBFTOptions asks of the options what SmartBFT asks of them when it starts: a
// channel with others would not come up again.
func checkBFTOptions(o *smartbftpb.Options) error {
	for name, n := range map[string]uint64{
		"RequestBatchMaxCount": o.RequestBatchMaxCount, "RequestBatchMaxBytes": o.RequestBatchMaxBytes,
		"IncomingMessageBufferSize": o.IncomingMessageBufferSize, "RequestPoolSize": o.RequestPoolSize, "LeaderHeartbeatCount": o.LeaderHeartbeatCount,
	} {
		if n == 0 {
			return fmt.Errorf("%s should be greater than zero", name)
		}
	}
	times := map[string]time.Duration{}
	for name, text := range map[string]string{
		"RequestBatchMaxInterval": o.RequestBatchMaxInterval, "RequestForwardTimeout": o.RequestForwardTimeout,
		"RequestComplainTimeout": o.RequestComplainTimeout, "RequestAutoRemoveTimeout": o.RequestAutoRemoveTimeout,
		"ViewChangeResendInterval": o.ViewChangeResendInterval, "ViewChangeTimeout": o.ViewChangeTimeout,
		"LeaderHeartbeatTimeout": o.LeaderHeartbeatTimeout, "CollectTimeout": o.CollectTimeout,
	} {
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("bad config metadata option %s: %w", name, err)
		}
		if d <= 0 {
			return fmt.Errorf("%s should be greater than zero", name)
		}
		times[name] = d
	}
	for _, pair := range [][2]string{
		{"RequestForwardTimeout", "RequestComplainTimeout"}, {"RequestComplainTimeout", "RequestAutoRemoveTimeout"}, {"ViewChangeResendInterval", "ViewChangeTimeout"},
	} {
		if times[pair[0]] > times[pair[1]] {
			return fmt.Errorf("%s is bigger than %s", pair[0], pair[1])
		}
	}
	switch {
	case o.RequestBatchMaxCount > o.RequestBatchMaxBytes:
		return errors.New("RequestBatchMaxCount is bigger than RequestBatchMaxBytes")
	case o.RequestMaxBytes > o.RequestBatchMaxBytes:
		return errors.New("RequestMaxBytes is bigger than RequestBatchMaxBytes")
	}
	return nil
}

func sameSignaturePolicy(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	left, right := &commonpb.SignaturePolicyEnvelope{}, &commonpb.SignaturePolicyEnvelope{}
	return proto.Unmarshal(a, left) == nil && proto.Unmarshal(b, right) == nil && proto.Equal(left, right)
}

// BFTBlockPolicy is the BlockValidation policy of a BFT channel: ceil((n+f+1)/2)
// of the n consenters, f = (n-1)/3 of whom may be faulty.
func BFTBlockPolicy(consenters []*commonpb.Consenter) (*commonpb.Policy, error) {
	n := len(consenters)
	f := (n - 1) / 3
	rule := &commonpb.SignaturePolicy_NOutOf{N: int32((n + f + 2) / 2)}
	env := &commonpb.SignaturePolicyEnvelope{Rule: &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_NOutOf_{NOutOf: rule}}}
	for i, c := range consenters {
		principal, err := proto.Marshal(&msppb.SerializedIdentity{Mspid: c.GetMspId(), IdBytes: c.GetIdentity()})
		if err != nil {
			return nil, err
		}
		env.Identities = append(env.Identities, &msppb.MSPPrincipal{
			PrincipalClassification: msppb.MSPPrincipal_IDENTITY,
			Principal:               principal,
		})
		rule.Rules = append(rule.Rules, &commonpb.SignaturePolicy{Type: &commonpb.SignaturePolicy_SignedBy{SignedBy: int32(i)}})
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(env)
	return &commonpb.Policy{Type: int32(commonpb.Policy_SIGNATURE), Value: value}, err
}

// checkMaintenance applies the rules of changing the consensus type: only between
// two maintenance configurations, only from etcdraft to BFT; and entering or
// leaving maintenance changes nothing else.
func (b *Bundle) checkMaintenance(next *Bundle, env *commonpb.ConfigUpdateEnvelope) error {
	from, to := b.orderer.consensus, next.orderer.consensus
	if !b.orderer.consensusMigration() {
		if to.State != ordererpb.ConsensusType_STATE_NORMAL {
			return fmt.Errorf("next config attempted to change ConsensusType.State to %s, but capability is disabled", to.State)
		}
		if from.Type != to.Type {
			return fmt.Errorf("next config attempted to change ConsensusType.Type from %s to %s, but capability is disabled", from.Type, to.Type)
		}
		return nil
	}
	if from.State != to.State {
		update := &commonpb.ConfigUpdate{}
		if err := proto.Unmarshal(env.ConfigUpdate, update); err != nil {
			return fmt.Errorf("config update unmarshalling error: %w", err)
		}
		if err := consensusTypeOnly(update); err != nil {
			return err
		}
		if from.Type != to.Type {
			return fmt.Errorf("attempted to change ConsensusType.Type from %s to %s, but ConsensusType.State is changing from %s to %s", from.Type, to.Type, from.State, to.State)
		}
		if !bytes.Equal(from.Metadata, to.Metadata) {
			return fmt.Errorf("attempted to change ConsensusType.Metadata, but ConsensusType.State is changing from %s to %s", from.State, to.State)
		}
	}
	if from.Type == to.Type {
		return nil
	}
	switch {
	case from.State == ordererpb.ConsensusType_STATE_NORMAL:
		return fmt.Errorf("attempted to change consensus type from %s to %s, but current config ConsensusType.State is not in maintenance mode", from.Type, to.Type)
	case to.State == ordererpb.ConsensusType_STATE_NORMAL:
		return fmt.Errorf("attempted to change consensus type from %s to %s, but next config ConsensusType.State is not in maintenance mode", from.Type, to.Type)
	case to.Type != ConsensusBFT:
		return fmt.Errorf("attempted to change consensus type from %s to %s, transition not supported", from.Type, to.Type)
	}
	return checkMigratedConsenters(from.Metadata, next.orderer.consenters)
}

// checkMigratedConsenters makes sure that the nodes stay the same when etcdraft becomes BFT.
func checkMigratedConsenters(raftMetadata []byte, after []*commonpb.Consenter) error {
	before := &etcdraftpb.ConfigMetadata{}
	if err := proto.Unmarshal(raftMetadata, before); err != nil {
		return fmt.Errorf("failed to unmarshal current etcdraft metadata configuration: %w", err)
	}
	if len(before.Consenters) != len(after) {
		return fmt.Errorf("invalid BFT consenter mapping configuration: Invalid new config: the number of bft consenters: %d is not equal to the number of raft consenters: %d", len(after), len(before.Consenters))
	}
	type node struct {
		host           string
		port           uint32
		server, client string
	}
	known := map[node]bool{}
	for _, c := range after {
		known[node{c.Host, c.Port, string(c.ServerTlsCert), string(c.ClientTlsCert)}] = true
	}
	for _, c := range before.Consenters {
		if !known[node{c.Host, c.Port, string(c.ServerTlsCert), string(c.ClientTlsCert)}] {
			return fmt.Errorf("invalid BFT consenter mapping configuration: No suitable BFT consenter for Raft consenter: %s:%d", c.Host, c.Port)
		}
	}
	return nil
}

// consensusTypeOnly says whether an update changes the ConsensusType value and nothing beside it.
func consensusTypeOnly(update *commonpb.ConfigUpdate) error {
	root := update.GetWriteSet()
	orderer, ok := root.GetGroups()[ordererKey]
	switch {
	case len(root.GetGroups()) == 0:
		return errors.New("config update contains no changes")
	case len(root.GetValues()) > 0:
		return fmt.Errorf("config update contains changes to values in group %s", rootKey)
	case len(root.GetGroups()) > 1:
		return errors.New("config update contains changes to more than one group")
	case !ok:
		return fmt.Errorf("update does not contain the %s group", ordererKey)
	case len(orderer.GetGroups()) > 0:
		return fmt.Errorf("config update contains changes to groups within the %s group", ordererKey)
	}
	if _, ok := orderer.GetValues()[consensusTypeKey]; !ok {
		return fmt.Errorf("config update does not contain the %s value", consensusTypeKey)
	}
	if len(orderer.GetValues()) > 1 {
		return fmt.Errorf("config update contain more then just the %s value in the %s group", consensusTypeKey, ordererKey)
	}
	return nil
}
