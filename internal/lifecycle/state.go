package lifecycle

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/wire/lifecyclepb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// Namespace is where definitions are kept, and the name of the system contract that writes them.
const Namespace = "_lifecycle"

// Below the namespace, in the public state and in each organisation's implicit collection, a record called name
// is kept as one key for its type and one for each field:
//
//	<section>/metadata/<name>        StateMetadata: type and names of the fields
//	<section>/fields/<name>/<field>  StateData
//
// so that a change writes, and conflicts with readers of, the fields that changed and no others. Organisations
// compare records by the hashes of these values, so their bytes are part of the protocol.
const (
	sectionNamespaces = "namespaces"
	sectionSources    = "chaincode-sources"

	typeDefinition   = "ChaincodeDefinition" // in the public state
	typeParameters   = "ChaincodeParameters" // an organisation's approval, called <contract>#<sequence>
	typeLocalPackage = "ChaincodeLocalPackage"

	fieldSequence    = "Sequence"
	fieldEndorsement = "EndorsementInfo"
	fieldValidation  = "ValidationInfo"
	fieldCollections = "Collections"
	fieldPackageID   = "PackageID"
)

func metadataKey(section, name string) string { return section + "/metadata/" + name }
func fieldKey(section, name, field string) string {
	return section + "/fields/" + name + "/" + field
}

// readState reads a key of the namespace.
type readState func(key string) ([]byte, error)

// record is a record before it is written.
type record struct {
	kind   string
	fields []field
}

type field struct {
	name  string
	value []byte // a StateData
}

func (r *record) metadata() ([]byte, error) {
	m := &lifecyclepb.StateMetadata{Datatype: r.kind}
	for _, f := range r.fields {
		m.Fields = append(m.Fields, f.name)
	}
	return proto.Marshal(m)
}

func (r *record) addBytes(name string, value []byte) error {
	return r.add(name, &lifecyclepb.StateData{Type: &lifecyclepb.StateData_Bytes{Bytes: value}})
}

func (r *record) addMessage(name string, m proto.Message) error {
	raw, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("could not marshal field %s: %w", name, err)
	}
	return r.addBytes(name, raw)
}

func (r *record) add(name string, data *lifecyclepb.StateData) error {
	raw, err := proto.Marshal(data)
	if err != nil {
		return fmt.Errorf("could not marshal field %s: %w", name, err)
	}
	r.fields = append(r.fields, field{name, raw})
	return nil
}

func packageData(id string) *lifecyclepb.StateData {
	return &lifecyclepb.StateData{Type: &lifecyclepb.StateData_String_{String_: id}}
}

func localPackage(id string) (*record, error) {
	r := &record{kind: typeLocalPackage}
	return r, r.add(fieldPackageID, packageData(id))
}

// write makes the state hold the record, touching only what differs from what the state holds.
func (r *record) write(section, name string, st keyspace) error {
	existing, _, err := readMetadata(section, name, st.get)
	if err != nil {
		return fmt.Errorf("could not deserialize metadata for namespace %s/%s: %w", section, name, err)
	}
	old := map[string][]byte{}
	for _, f := range existing.GetFields() {
		key := fieldKey(section, name, f)
		if old[key], err = st.get(key); err != nil {
			return fmt.Errorf("could not get value for key %s: %w", key, err)
		}
	}
	for _, f := range r.fields {
		key := fieldKey(section, name, f.name)
		if was, ok := old[key]; !ok || !bytes.Equal(was, f.value) {
			if err := st.put(key, f.value); err != nil {
				return fmt.Errorf("could not write key into state: %w", err)
			}
		}
		delete(old, key)
	}
	if len(old) > 0 || existing.GetDatatype() != r.kind || len(existing.GetFields()) != len(r.fields) {
		raw, err := r.metadata()
		if err == nil {
			err = st.put(metadataKey(section, name), raw)
		}
		if err != nil {
			return fmt.Errorf("could not store metadata for namespace %s/%s: %w", section, name, err)
		}
	}
	for key := range old {
		if err := st.delete(key); err != nil {
			return fmt.Errorf("could not delete unneeded key %s: %w", key, err)
		}
	}
	return nil
}

// mismatches compares the record with hashes of what an organisation wrote, and names what differs: the type, or
// else fields. It reads every hash before it compares, because the reads are recorded and must not depend on values.
func (r *record) mismatches(section, name string, hash readState) ([]string, error) {
	keys := []string{metadataKey(section, name)}
	for _, f := range r.fields {
		keys = append(keys, fieldKey(section, name, f.name))
	}
	hashes := make([][]byte, len(keys))
	for i, key := range keys {
		var err error
		if hashes[i], err = hash(key); err != nil {
			return nil, fmt.Errorf("could not get value for key %s: %w", key, err)
		}
	}
	metadata, err := r.metadata()
	if err != nil {
		return nil, fmt.Errorf("could not marshal metadata for namespace %s/%s: %w", section, name, err)
	}
	if !hashIs(hashes[0], metadata) {
		return []string{r.kind}, nil
	}
	var differ []string
	for i, f := range r.fields {
		if !hashIs(hashes[i+1], f.value) {
			differ = append(differ, f.name)
		}
	}
	return differ, nil
}

func hashIs(hash, value []byte) bool {
	sum := sha256.Sum256(value)
	return bytes.Equal(hash, sum[:])
}

func readMetadata(section, name string, get readState) (*lifecyclepb.StateMetadata, bool, error) {
	raw, err := get(metadataKey(section, name))
	if err != nil {
		return nil, false, fmt.Errorf("could not query metadata for namespace %s/%s: %w", section, name, err)
	}
	if raw == nil {
		return nil, false, nil
	}
	m := &lifecyclepb.StateMetadata{}
	if err := proto.Unmarshal(raw, m); err != nil {
		return nil, false, fmt.Errorf("could not unmarshal metadata for namespace %s/%s: %w", section, name, err)
	}
	return m, true, nil
}

// readField reads a field; a missing one has no type.
func readField(section, name, field string, get readState) (*lifecyclepb.StateData, error) {
	key := fieldKey(section, name, field)
	raw, err := get(key)
	if err != nil {
		return nil, fmt.Errorf("could not get state for key %s: %w", key, err)
	}
	data := &lifecyclepb.StateData{}
	if err := proto.Unmarshal(raw, data); err != nil {
		return nil, fmt.Errorf("could not unmarshal state for key %s: %w", key, err)
	}
	return data, nil
}

func readSequence(name string, get readState) (int64, error) {
	data, err := readField(sectionNamespaces, name, fieldSequence, get)
	if err != nil {
		return 0, err
	}
	if _, ok := data.Type.(*lifecyclepb.StateData_Int64); !ok && data.Type != nil {
		return 0, fmt.Errorf("expected key %s to encode a value of type Int64, but was %T", fieldKey(sectionNamespaces, name, fieldSequence), data.Type)
	}
	return data.GetInt64(), nil
}

func readPackageID(name string, get readState) (string, error) {
	data, err := readField(sectionSources, name, fieldPackageID, get)
	if err != nil {
		return "", err
	}
	if _, ok := data.Type.(*lifecyclepb.StateData_String_); !ok && data.Type != nil {
		return "", fmt.Errorf("expected key %s to encode a value of type String, but was %T", fieldKey(sectionSources, name, fieldPackageID), data.Type)
	}
	return data.GetString_(), nil
}

// readMessage reads a field into m, which stays empty if the field is missing.
func readMessage(name, field string, get readState, m proto.Message) error {
	data, err := readField(sectionNamespaces, name, field, get)
	if err != nil {
		return err
	}
	key := fieldKey(sectionNamespaces, name, field)
	if _, ok := data.Type.(*lifecyclepb.StateData_Bytes); !ok && data.Type != nil {
		return fmt.Errorf("expected key %s to encode a value of type []byte, but was %T", key, data.Type)
	}
	if err := proto.Unmarshal(data.GetBytes(), m); err != nil {
		return fmt.Errorf("could not unmarshal key %s to %T: %w", key, m, err)
	}
	return nil
}

// Parameters are the part of a definition that organisations approve.
type Parameters struct {
	Endorsement *lifecyclepb.ChaincodeEndorsementInfo
	Validation  *lifecyclepb.ChaincodeValidationInfo
	Collections *peerpb.CollectionConfigPackage
}

func readParameters(name string, get readState) (Parameters, error) {
	p := Parameters{&lifecyclepb.ChaincodeEndorsementInfo{}, &lifecyclepb.ChaincodeValidationInfo{}, &peerpb.CollectionConfigPackage{}}
	if err := readMessage(name, fieldEndorsement, get, p.Endorsement); err != nil {
		return Parameters{}, err
	}
	if err := readMessage(name, fieldValidation, get, p.Validation); err != nil {
		return Parameters{}, err
	}
	return p, readMessage(name, fieldCollections, get, p.Collections)
}

func (p Parameters) addTo(r *record) error {
	if err := r.addMessage(fieldEndorsement, p.Endorsement); err != nil {
		return err
	}
	if err := r.addMessage(fieldValidation, p.Validation); err != nil {
		return err
	}
	return r.addMessage(fieldCollections, p.Collections)
}

func (p Parameters) record() (*record, error) {
	r := &record{kind: typeParameters}
	return r, p.addTo(r)
}

// equal explains how q differs from p.
func (p Parameters) equal(q Parameters) error {
	switch {
	case p.Endorsement.Version != q.Endorsement.Version:
		return fmt.Errorf("expected Version '%s' does not match passed Version '%s'", p.Endorsement.Version, q.Endorsement.Version)
	case p.Endorsement.EndorsementPlugin != q.Endorsement.EndorsementPlugin:
		return fmt.Errorf("expected EndorsementPlugin '%s' does not match passed EndorsementPlugin '%s'", p.Endorsement.EndorsementPlugin, q.Endorsement.EndorsementPlugin)
	case p.Endorsement.InitRequired != q.Endorsement.InitRequired:
		return fmt.Errorf("expected InitRequired '%t' does not match passed InitRequired '%t'", p.Endorsement.InitRequired, q.Endorsement.InitRequired)
	case p.Validation.ValidationPlugin != q.Validation.ValidationPlugin:
		return fmt.Errorf("expected ValidationPlugin '%s' does not match passed ValidationPlugin '%s'", p.Validation.ValidationPlugin, q.Validation.ValidationPlugin)
	case !bytes.Equal(p.Validation.ValidationParameter, q.Validation.ValidationParameter):
		return fmt.Errorf("expected ValidationParameter '%x' does not match passed ValidationParameter '%x'", p.Validation.ValidationParameter, q.Validation.ValidationParameter)
	case !proto.Equal(p.Collections, q.Collections):
		return fmt.Errorf("Collections do not match") //nolint:staticcheck // the words are the protocol's
	}
	return nil
}
