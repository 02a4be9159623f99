// Package identity decides who signed something: it is the X.509 membership service (MSP) of Hyperledger Fabric, with the same
// verdicts on the same bytes, because a verdict that differs by one certificate forks the ledger.
//
// It guarantees: an identity is valid exactly when Fabric (channel capability V2_0, or V3_0 with Options.AllowEd25519) holds it
// valid; certificates are parsed, chains verified and signatures checked once per process and then remembered in bounded caches;
// every type is safe for concurrent use and an MSP never changes after NewMSP.
//
// It leaves out: Idemix (a config that asks for it is refused), the clock (a chain is judged one second after the certificate's
// NotBefore, as Fabric does; whoever must refuse expired certificates compares Identity.ExpiresAt with the time), policies
// (package policy) and where the configuration comes from (package channel).
//
// Open this file first, then msp.go (what a member's configuration means), chain.go (certificates), principal.go (roles) and
// verifier.go (the caches).
package identity

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// Identity is one certificate seen through one MSP. It exists for certificates that chain to the MSP's roots or that are not
// signed with ECDSA (those are judged by Validate only); existing does not mean valid.
type Identity struct {
	msp        *MSP
	cert       *x509.Certificate // sanitised: its signature is low-S
	serialized []byte            // as received
	key        string
	pub        *publicKey

	chain func() ([]*x509.Certificate, error)
	units func() []unit
	valid func() error
}

// newIdentity sanitises cert, which Fabric does (and fails on) when it deserializes, before any validation.
func newIdentity(m *MSP, cert *x509.Certificate, serialized []byte) (*Identity, error) {
	pub, err := m.verifier.publicKey(cert)
	if err != nil {
		return nil, fmt.Errorf("failed to import certificate's public key: %w", err)
	}
	clean, known, err := m.sanitize(cert)
	if err != nil {
		return nil, err
	}
	digest, err := m.identifierHash(clean.Raw)
	if err != nil {
		return nil, err
	}
	id := &Identity{msp: m, cert: clean, serialized: serialized, key: m.name + ":" + hex.EncodeToString(digest), pub: pub}
	id.chain = sync.OnceValues(func() ([]*x509.Certificate, error) { return m.memberChain(clean, known) })
	id.units = sync.OnceValue(func() []unit { return m.organizationalUnits(id) })
	id.valid = sync.OnceValue(func() error { return m.validate(id) })
	return id, nil
}

// MSPID names the member this identity belongs to.
func (id *Identity) MSPID() string { return id.msp.name }

// MSP is the membership service that judges this identity.
func (id *Identity) MSP() *MSP { return id.msp }

// Certificate is the identity's certificate with its signature in low-S form. The caller must not change it.
func (id *Identity) Certificate() *x509.Certificate { return id.cert }

// Serialized is the msppb.SerializedIdentity as it was received. The caller must not change it.
func (id *Identity) Serialized() []byte { return id.serialized }

// Key is equal for two identities exactly when Fabric holds them for the same one: same MSP and same (low-S) certificate,
// however its PEM was written.
func (id *Identity) Key() string { return id.key }

// ExpiresAt is the end of the certificate's validity. Nothing in this package compares it with the time.
func (id *Identity) ExpiresAt() time.Time { return id.cert.NotAfter }

// Validate says whether the MSP accepts the identity: key type, chain, revocation, organizational units. Computed once.
func (id *Identity) Validate() error { return id.valid() }

// Verify checks sig over msg. It says nothing about the identity's validity. A signature that was verified once in this process,
// or that Verifier.Remember was told of, costs two hashes.
func (id *Identity) Verify(msg, sig []byte) error {
	return id.msp.verifier.verify(id.pub, id.msp.signatureHash, msg, sig)
}

// Manager holds the MSPs of one channel (or the local one of a node) and turns serialized identities into Identity values.
type Manager struct {
	msps map[string]*MSP
}

// NewManager refuses two different MSPs of one name; the same one given twice is accepted.
func NewManager(msps []*MSP) (*Manager, error) {
	m := &Manager{msps: make(map[string]*MSP, len(msps))}
	for _, one := range msps {
		if have, ok := m.msps[one.name]; ok && have.fingerprint != one.fingerprint {
			return nil, fmt.Errorf("Attempted to define two different versions of MSP: %s", one.name)
		}
		m.msps[one.name] = one
	}
	return m, nil
}

// MSP returns the MSP named id.
func (m *Manager) MSP(id string) (*MSP, bool) {
	one, ok := m.msps[id]
	return one, ok
}

// MSPs returns all MSPs by name, as a new map.
func (m *Manager) MSPs() map[string]*MSP {
	out := make(map[string]*MSP, len(m.msps))
	for name, one := range m.msps {
		out[name] = one
	}
	return out
}

// Deserialize turns msppb.SerializedIdentity bytes into an Identity. It fails where Fabric's DeserializeIdentity fails: unknown
// MSP, no PEM, no certificate, and, for ECDSA-signed certificates, no single chain to the MSP's roots. serialized is not kept.
func (m *Manager) Deserialize(serialized []byte) (*Identity, error) {
	// A hit in the cache needs only the MSP's name, and needs it only to find the right entry: whatever this guess is, the entry
	// was made from exactly these bytes by the MSP that it is stored under.
	if one, ok := m.msps[string(guessMSPID(serialized))]; ok {
		if id, ok := one.verifier.identities.get(identityKey{one, string(serialized)}); ok {
			return id, nil
		}
	}
	sid := &msppb.SerializedIdentity{}
	if err := proto.Unmarshal(serialized, sid); err != nil {
		return nil, fmt.Errorf("could not deserialize a SerializedIdentity: %w", err)
	}
	one, ok := m.msps[sid.Mspid]
	if !ok {
		return nil, fmt.Errorf("MSP %s is not defined on channel", sid.Mspid)
	}
	return one.deserialize(serialized, sid.IdBytes)
}

// Deserialize is Manager.Deserialize for a single MSP: an identity of another one is refused.
func (m *MSP) Deserialize(serialized []byte) (*Identity, error) {
	if id, ok := m.verifier.identities.get(identityKey{m, string(serialized)}); ok {
		return id, nil
	}
	sid := &msppb.SerializedIdentity{}
	if err := proto.Unmarshal(serialized, sid); err != nil {
		return nil, fmt.Errorf("could not deserialize a SerializedIdentity: %w", err)
	}
	if sid.Mspid != m.name {
		return nil, fmt.Errorf("expected MSP ID %s, received %s", m.name, sid.Mspid)
	}
	return m.deserialize(serialized, sid.IdBytes)
}

// deserialize parses certPEM as leniently as Fabric: the first PEM block counts, whatever its type, headers, line ends and
// surroundings.
func (m *MSP) deserialize(serialized, certPEM []byte) (*Identity, error) {
	block, _ := pem.Decode(certPEM)
	if block == nil {
		return nil, errors.New("could not decode the PEM structure")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parseCertificate failed: %w", err)
	}
	id, err := newIdentity(m, cert, append([]byte(nil), serialized...))
	if err != nil {
		return nil, err
	}
	// Of two that raced here the first one stays, so that its cached verdicts are shared.
	return m.verifier.identities.add(identityKey{m, string(serialized)}, id), nil
}

// guessMSPID reads the first field of a SerializedIdentity without decoding the rest; nil if it is not the MSP's name.
func guessMSPID(serialized []byte) []byte {
	if len(serialized) == 0 || serialized[0] != 0x0a {
		return nil
	}
	name, n := protowire.ConsumeBytes(serialized[1:])
	if n < 0 {
		return nil
	}
	return name
}

// Serialize builds the msppb.SerializedIdentity of a certificate in PEM form, without looking at it.
func Serialize(mspID string, certPEM []byte) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(&msppb.SerializedIdentity{Mspid: mspID, IdBytes: certPEM})
	if err != nil {
		panic(fmt.Sprintf("identity: MSP id %q cannot be encoded: %v", mspID, err)) // only possible if it is no UTF-8
	}
	return raw
}
