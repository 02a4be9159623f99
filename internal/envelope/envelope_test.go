package envelope_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/envelope"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// The golden ledger and its micro-vectors were made by real Fabric.
const vectors = "../../testdata/vectors"

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type position struct{ Block, Tx int }

type micro struct {
	TxID struct {
		Nonce   hexBytes `json:"nonce_hex"`
		Creator hexBytes `json:"creator_hex"`
		TxID    string   `json:"tx_id"`
		From    position `json:"from"`
	} `json:"tx_id"`
	ProposalHash struct {
		ChannelHeader   hexBytes `json:"channel_header_hex"`
		SignatureHeader hexBytes `json:"signature_header_hex"`
		Payload         hexBytes `json:"chaincode_proposal_payload_hex"`
		Hash            hexBytes `json:"proposal_hash_hex"`
	} `json:"proposal_hash"`
	Envelope struct {
		Payload   hexBytes `json:"payload_hex"`
		Signature hexBytes `json:"signature_hex"`
		Creator   hexBytes `json:"creator_hex"`
		From      position `json:"from"`
	} `json:"envelope"`
	Endorsement struct {
		Payload      hexBytes `json:"proposal_response_payload_hex"`
		Endorsements []struct {
			Endorser  hexBytes `json:"endorser_hex"`
			Signature hexBytes `json:"signature_hex"`
			Signed    hexBytes `json:"signed_bytes_hex"`
		} `json:"endorsements"`
		From position `json:"from"`
	} `json:"endorsement"`
}

func loadMicro(t *testing.T) (m micro) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, "micro.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// golden is one transaction of the golden ledger.
func golden(t testing.TB, at position) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectors, "blocks", fmt.Sprintf("%06d.block", at.Block)))
	if err != nil {
		t.Fatal(err)
	}
	var b commonpb.Block
	if err := proto.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	return b.Data.Data[at.Tx]
}

func TestTxID(t *testing.T) {
	v := loadMicro(t).TxID
	if got := envelope.TxID(v.Nonce, v.Creator); got != v.TxID {
		t.Errorf("TxID = %s, Fabric's is %s", got, v.TxID)
	}
	tx := envelope.Parse(golden(t, v.From))
	if tx.ID() != v.TxID || !bytes.Equal(tx.Creator(), v.Creator) || !bytes.Equal(tx.Signature.Nonce, v.Nonce) {
		t.Errorf("Parse: id %s, want %s, with the creator and nonce of the vector", tx.ID(), v.TxID)
	}
}

func TestProposalHash(t *testing.T) {
	v := loadMicro(t).ProposalHash
	withTransient, err := proto.Marshal(&peerpb.ChaincodeProposalPayload{Input: inputOf(t, v.Payload),
		TransientMap: map[string][]byte{"secret": []byte("of the proposal only")}})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := envelope.PayloadForTx(withTransient)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(stored, v.Payload) {
		t.Error("PayloadForTx keeps more or less than the input")
	}
	if got := envelope.ProposalHash(v.ChannelHeader, v.SignatureHeader, stored); !bytes.Equal(got, v.Hash) {
		t.Errorf("ProposalHash = %x, Fabric's is %x", got, []byte(v.Hash))
	}
}

func inputOf(t *testing.T, payload []byte) []byte {
	var p peerpb.ChaincodeProposalPayload
	if err := proto.Unmarshal(payload, &p); err != nil {
		t.Fatal(err)
	}
	return p.Input
}

func TestParseReachesEveryLayer(t *testing.T) {
	m := loadMicro(t)
	tx := envelope.Parse(golden(t, m.Envelope.From))
	if !bytes.Equal(tx.Envelope.Payload, m.Envelope.Payload) || !bytes.Equal(tx.Envelope.Signature, m.Envelope.Signature) {
		t.Error("payload or signature differ from the vector")
	}
	verify(t, m.Envelope.Creator, tx.Envelope.Payload, tx.Envelope.Signature)
	if tx.Type() != commonpb.HeaderType_ENDORSER_TRANSACTION || tx.ChannelID() != "devledger" || tx.Extension.GetChaincodeId().GetName() == "" {
		t.Errorf("type %v, channel %q, contract %q", tx.Type(), tx.ChannelID(), tx.Extension.GetChaincodeId().GetName())
	}

	tx = envelope.Parse(golden(t, m.Endorsement.From))
	if len(tx.Actions) != 1 {
		t.Fatalf("%d actions, want 1", len(tx.Actions))
	}
	action := tx.Actions[0]
	if !bytes.Equal(action.ResponseBytes, m.Endorsement.Payload) {
		t.Error("the proposal response payload differs from the vector")
	}
	if len(action.Payload.Action.Endorsements) != len(m.Endorsement.Endorsements) {
		t.Fatalf("%d endorsements, want %d", len(action.Payload.Action.Endorsements), len(m.Endorsement.Endorsements))
	}
	for i, e := range action.Payload.Action.Endorsements {
		want := m.Endorsement.Endorsements[i]
		if !bytes.Equal(e.Endorser, want.Endorser) || !bytes.Equal(e.Signature, want.Signature) {
			t.Errorf("endorsement %d differs from the vector", i)
		}
		signed := append(bytes.Clone(action.ResponseBytes), e.Endorser...)
		if !bytes.Equal(signed, want.Signed) {
			t.Errorf("endorsement %d: other bytes are signed", i)
		}
		verify(t, e.Endorser, signed, e.Signature)
	}
	if action.Chaincode.GetChaincodeId().GetName() == "" || action.Response.ProposalHash == nil {
		t.Error("the chaincode action was not decoded")
	}
}

// verify checks a signature by a serialized identity with nothing but the
// standard library.
func verify(t *testing.T, identity, message, signature []byte) {
	t.Helper()
	var id msppb.SerializedIdentity
	if err := proto.Unmarshal(identity, &id); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(id.IdBytes)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(message)
		if !ecdsa.VerifyASN1(key, digest[:], signature) {
			t.Error("the signature does not verify")
		}
	case ed25519.PublicKey:
		if !ed25519.Verify(key, message, signature) {
			t.Error("the signature does not verify")
		}
	}
}

func TestParseSaysWhichLayerIsBroken(t *testing.T) {
	marshal := func(m proto.Message) []byte {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	broken := []byte{0xff}
	channel := marshal(&commonpb.ChannelHeader{Type: int32(commonpb.HeaderType_ENDORSER_TRANSACTION)})
	payload := func(channel, signature, data []byte) []byte {
		return marshal(&commonpb.Envelope{Payload: marshal(&commonpb.Payload{
			Header: &commonpb.Header{ChannelHeader: channel, SignatureHeader: signature}, Data: data})})
	}
	action := func(a *peerpb.ChaincodeActionPayload) []byte {
		return payload(channel, nil, marshal(&peerpb.Transaction{Actions: []*peerpb.TransactionAction{{Payload: marshal(a)}}}))
	}
	response := func(r []byte) []byte {
		return action(&peerpb.ChaincodeActionPayload{Action: &peerpb.ChaincodeEndorsedAction{ProposalResponsePayload: r}})
	}
	first := func(tx *envelope.Tx) *envelope.Action { return tx.Actions[0] }
	cases := map[string]struct {
		raw []byte
		err func(*envelope.Tx) error
	}{
		"envelope":         {broken, func(tx *envelope.Tx) error { return tx.EnvelopeErr }},
		"payload":          {marshal(&commonpb.Envelope{Payload: broken}), func(tx *envelope.Tx) error { return tx.PayloadErr }},
		"channel header":   {payload(broken, nil, nil), func(tx *envelope.Tx) error { return tx.ChannelErr }},
		"signature header": {payload(channel, broken, nil), func(tx *envelope.Tx) error { return tx.SignatureErr }},
		"extension": {payload(marshal(&commonpb.ChannelHeader{Type: 3, Extension: broken}), nil, nil),
			func(tx *envelope.Tx) error { return tx.ExtensionErr }},
		"transaction":      {payload(channel, nil, broken), func(tx *envelope.Tx) error { return tx.TransactionErr }},
		"response payload": {response(broken), func(tx *envelope.Tx) error { return first(tx).ResponseErr }},
		"chaincode action": {response(marshal(&peerpb.ProposalResponsePayload{Extension: broken})),
			func(tx *envelope.Tx) error { return first(tx).ChaincodeErr }},
		"event": {response(marshal(&peerpb.ProposalResponsePayload{Extension: marshal(&peerpb.ChaincodeAction{Events: broken})})),
			func(tx *envelope.Tx) error { return first(tx).EventErr }},
	}
	for name, c := range cases {
		if c.err(envelope.Parse(c.raw)) == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzParse: whatever arrives, Parse returns, and what it decoded has the
// invariants that its comment promises.
func FuzzParse(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{0xff})
	for _, at := range []position{{0, 0}, {3, 0}, {7, 0}} {
		f.Add(golden(f, at))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		tx := envelope.Parse(raw)
		_, _, _, _ = tx.ID(), tx.ChannelID(), tx.Type(), tx.Creator()
		if (tx.Envelope == nil) != (tx.EnvelopeErr != nil) {
			t.Error("an envelope is missing without an error, or there with one")
		}
		if tx.Transaction != nil && len(tx.Actions) != len(tx.Transaction.Actions) {
			t.Error("actions do not match")
		}
		for _, a := range tx.Actions {
			if a.Chaincode != nil && a.Response == nil || a.Response != nil && a.Payload == nil {
				t.Error("a layer was decoded without the one around it")
			}
		}
	})
}

func newSigner(t *testing.T, curve elliptic.Curve) *envelope.KeySigner {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "user"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := envelope.NewKeySigner("Org1MSP", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestProposalToTransaction(t *testing.T) {
	s := newSigner(t, elliptic.P256())
	p, signed, err := envelope.NewProposal(s, envelope.ProposalArgs{Type: commonpb.HeaderType_ENDORSER_TRANSACTION, ChannelID: "business",
		Chaincode: "shipment", Args: [][]byte{[]byte("Create"), []byte("S-1")}, Transient: map[string][]byte{"price": []byte("12")}})
	if err != nil {
		t.Fatal(err)
	}
	verify(t, s.Serialize(), signed.ProposalBytes, signed.Signature)

	answer := func(endorser string) *peerpb.ProposalResponse {
		return &peerpb.ProposalResponse{Response: &peerpb.Response{Status: 200}, Payload: []byte{}, Endorsement: &peerpb.Endorsement{Endorser: []byte(endorser)}}
	}
	payload, err := envelope.AssembleTx(p.Proposal, []*peerpb.ProposalResponse{answer("a"), answer("b"), answer("a")})
	if err != nil {
		t.Fatal(err)
	}
	env, err := envelope.SignPayload(s, payload)
	if err != nil {
		t.Fatal(err)
	}
	verify(t, s.Serialize(), env.Payload, env.Signature)
	raw, err := proto.Marshal(env)
	if err != nil {
		t.Fatal(err)
	}
	tx := envelope.Parse(raw)
	if tx.ID() != p.TxID || tx.ID() != envelope.TxID(tx.Signature.Nonce, s.Serialize()) || len(tx.Signature.Nonce) != envelope.NonceSize {
		t.Errorf("the transaction's id is %s, the proposal's %s", tx.ID(), p.TxID)
	}
	if n := len(tx.Actions[0].Payload.Action.Endorsements); n != 2 {
		t.Errorf("%d endorsements, want 2: one endorser answered twice", n)
	}
	if bytes.Contains(raw, []byte("price")) {
		t.Error("transient data reached the transaction")
	}
}

func TestAssembleRefuses(t *testing.T) {
	s := newSigner(t, elliptic.P256())
	p, _, err := envelope.NewProposal(s, envelope.ProposalArgs{ChannelID: "business", Chaincode: "shipment"})
	if err != nil {
		t.Fatal(err)
	}
	good := &peerpb.ProposalResponse{Response: &peerpb.Response{Status: 200}, Payload: []byte{1}, Endorsement: &peerpb.Endorsement{Endorser: []byte("a")}}
	other := &peerpb.ProposalResponse{Response: &peerpb.Response{Status: 200}, Payload: []byte{2}, Endorsement: &peerpb.Endorsement{Endorser: []byte("b")}}
	failed := &peerpb.ProposalResponse{Response: &peerpb.Response{Status: 500, Message: "no such shipment"}, Payload: []byte{1}}
	bare := &peerpb.ProposalResponse{Response: &peerpb.Response{Status: 200}, Payload: []byte{1}}
	cases := map[string]struct {
		responses []*peerpb.ProposalResponse
		want      string
	}{
		"none":            {nil, "at least one"},
		"different":       {[]*peerpb.ProposalResponse{good, other}, "do not match"},
		"failed":          {[]*peerpb.ProposalResponse{good, failed}, "no such shipment"},
		"no endorsements": {[]*peerpb.ProposalResponse{bare}, "no endorsements"},
	}
	for name, c := range cases {
		_, err := envelope.AssembleTx(p.Proposal, c.responses)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if errors.Is(err, envelope.ErrMismatch) != (name == "different") {
			t.Errorf("%s: ErrMismatch", name)
		}
	}
}

// Fabric refuses the larger of the two values that s can have.
func TestSignaturesHaveLowS(t *testing.T) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		s := newSigner(t, curve)
		key := s.Certificate().PublicKey.(*ecdsa.PublicKey)
		for range 20 { // each high with probability 1/2
			signature, err := s.Sign([]byte("message"))
			if err != nil {
				t.Fatal(err)
			}
			again, err := envelope.LowS(key, signature)
			if err != nil || !bytes.Equal(again, signature) {
				t.Fatalf("%s: s is in the upper half (%v)", curve.Params().Name, err)
			}
			verify(t, s.Serialize(), []byte("message"), signature)
		}
	}
}

func TestKeysThatDoNotFit(t *testing.T) {
	a := newSigner(t, elliptic.P256())
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
	if _, err := envelope.NewKeySigner("Org1MSP", certPEM, stranger); err == nil || !strings.Contains(err.Error(), `"user"`) {
		t.Errorf("another's key: %v", err)
	}
	if _, err := envelope.ParseKey([]byte("no PEM")); err == nil || !strings.Contains(err.Error(), "not PEM") {
		t.Errorf("no PEM: %v", err)
	}
	for _, encode := range []func() (string, []byte, error){
		func() (string, []byte, error) {
			der, err := x509.MarshalECPrivateKey(stranger)
			return "EC PRIVATE KEY", der, err
		},
		func() (string, []byte, error) {
			der, err := x509.MarshalPKCS8PrivateKey(stranger)
			return "PRIVATE KEY", der, err
		},
	} {
		typ, der, err := encode()
		if err != nil {
			t.Fatal(err)
		}
		key, err := envelope.ParseKey(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
		if err != nil || !stranger.Equal(key) {
			t.Errorf("%s: %v", typ, err)
		}
	}
}

// What is decoded in place is what proto.Unmarshal makes of the same bytes, its errors included.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(nil))
	for _, at := range []position{{0, 0}, {3, 0}, {7, 0}} {
		tx := envelope.Parse(golden(f, at))
		for _, raw := range [][]byte{tx.Raw, tx.Envelope.Payload, tx.Payload.Data, tx.Payload.Header.SignatureHeader} {
			f.Add(raw)
		}
		for _, a := range tx.Actions {
			for _, raw := range [][]byte{tx.Transaction.Actions[0].Payload, a.ResponseBytes, a.Response.Extension, a.Payload.ChaincodeProposalPayload} {
				f.Add(raw)
			}
		}
	}
	f.Add([]byte{0x0a, 0x80, 0x00})                                                             // a length that is not minimal
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00})       // a length that leads around
	f.Add([]byte{0x0a, 0x02, 0x0a, 0x00, 0x12, 0x01, 0x41, 0x0a, 0x03, 0x12, 0x01, 0x42, 0x1a}) // a field twice, then one cut off
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		check := func(got proto.Message, err error) {
			t.Helper()
			want := got.ProtoReflect().New().Interface()
			wantErr := proto.Unmarshal(raw, want)
			if fmt.Sprint(err) != fmt.Sprint(wantErr) || err == nil && !proto.Equal(got, want) {
				t.Errorf("%T: %v, %v; proto.Unmarshal makes %v, %v", got, got, err, want, wantErr)
			}
		}
		for _, one := range envelope.Decoders(raw) {
			check(one())
		}
		if !bytes.Equal(raw, before) {
			t.Error("the bytes were changed")
		}
	})
}
