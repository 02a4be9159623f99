package identity_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

func TestDeserializeIsLenientAboutPEMOnly(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	m := identitytest.Manager(t, o)
	leaf := o.Issue(t, "x", []string{"client"})
	plain, err := m.Deserialize(identity.Serialize("OrgMSP", leaf.PEM))
	if err != nil {
		t.Fatal(err)
	}
	for name, certPEM := range map[string][]byte{
		"CRLF":         bytes.ReplaceAll(leaf.PEM, []byte("\n"), []byte("\r\n")),
		"another type": bytes.ReplaceAll(leaf.PEM, []byte("CERTIFICATE"), []byte("POTATO")),
		"text around":  append(append([]byte("before\n"), leaf.PEM...), "after"...),
		"headers":      bytes.Replace(leaf.PEM, []byte("-----\n"), []byte("-----\nA: b\n\n"), 1),
	} {
		id, err := m.Deserialize(identity.Serialize("OrgMSP", certPEM))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if id.Key() != plain.Key() || id.Validate() != nil {
			t.Errorf("%s: another identity", name)
		}
	}
	for text, raw := range map[string][]byte{
		"could not deserialize a SerializedIdentity": {0xff},
		"MSP OtherMSP is not defined on channel":     identity.Serialize("OtherMSP", leaf.PEM),
		"MSP  is not defined on channel":             nil,
		"could not decode the PEM structure":         identity.Serialize("OrgMSP", []byte("x")),
		"parseCertificate failed":                    identity.Serialize("OrgMSP", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})),
	} {
		_, err := m.Deserialize(raw)
		want(t, text, err, text)
	}
	one, _ := m.MSP("OrgMSP")
	_, err = one.Deserialize(identity.Serialize("OtherMSP", leaf.PEM))
	want(t, "another MSP's", err, "expected MSP ID OrgMSP, received OtherMSP")
}

// A certificate and its twin with the other S are one identity.
func TestCertificatesAreSanitised(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	m := identitytest.Manager(t, o)
	leaf := o.Issue(t, "x", []string{"client"})
	twin := flipS(t, leaf.Cert)
	a, err := m.Deserialize(identity.Serialize("OrgMSP", leaf.PEM))
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Deserialize(identity.Serialize("OrgMSP", twin))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(leaf.PEM, twin) || a.Key() != b.Key() || !a.Certificate().Equal(b.Certificate()) || b.Validate() != nil {
		t.Error("the twin is another identity")
	}
	// The same of a root: its MSP is set up and takes the certificates.
	o.Config.RootCerts = [][]byte{flipS(t, o.Cert)}
	certifyUnits(o, o.PEM)
	want(t, "under a twin root", verdict(newMSP(t, o, identity.Options{}), leaf), "")
}

func flipS(t testing.TB, cert *x509.Certificate) []byte {
	t.Helper()
	var outer struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	var sig struct{ R, S *big.Int }
	_, err := asn1.Unmarshal(cert.Raw, &outer)
	if err == nil {
		_, err = asn1.Unmarshal(outer.Signature.Bytes, &sig)
	}
	if err != nil {
		t.Fatal(err)
	}
	sig.S.Sub(elliptic.P256().Params().N, sig.S)
	outer.Signature.Bytes, _ = asn1.Marshal(sig)
	outer.Signature.BitLength = 8 * len(outer.Signature.Bytes)
	raw, err := asn1.Marshal(outer)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

func TestSignatureEncodings(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	m := identitytest.Manager(t, o)
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		id, err := m.Deserialize(identity.Serialize("OrgMSP", o.IssueTo(t, key, "x", []string{"client"}).PEM))
		if err != nil {
			t.Fatal(err)
		}
		msg := []byte("message")
		digest := sha256.Sum256(msg)
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		n := curve.Params().N
		low, high := s, new(big.Int).Sub(n, s)
		if low.Cmp(high) > 0 {
			low, high = high, low
		}
		enc := func(v any) []byte {
			raw, err := asn1.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}
		type pair struct{ R, S *big.Int }
		zero := new(big.Int)
		for _, c := range []struct {
			what string
			sig  []byte
			want string
		}{
			{"low S", enc(pair{r, low}), ""},
			{"bytes after it", append(enc(pair{r, low}), 1, 2, 3), ""},
			{"a third number", enc(struct{ R, S, T *big.Int }{r, low, r}), ""},
			{"high S", enc(pair{r, high}), "Invalid S. Must be smaller than half the order"},
			{"S above the order", enc(pair{r, new(big.Int).Add(n, low)}), "Invalid S"},
			{"R above the order", enc(pair{new(big.Int).Add(n, r), low}), "The signature is invalid"},
			{"R the order", enc(pair{n, low}), "The signature is invalid"},
			{"huge R", enc(pair{new(big.Int).Lsh(r, 4000), low}), "The signature is invalid"},
			{"R zero", enc(pair{zero, low}), "R must be larger than zero"},
			{"S zero", enc(pair{r, zero}), "S must be larger than zero"},
			{"R negative", enc(pair{new(big.Int).Neg(r), low}), "R must be larger than zero"},
			{"one number", enc(struct{ R *big.Int }{r}), "failed unmashalling signature"},
			{"long length", append([]byte{0x30, 0x81}, enc(pair{r, low})[1:]...), "failed unmashalling signature"},
			{"nothing", nil, "Cannot be empty"},
			{"text", []byte("hello"), "failed unmashalling signature"},
		} {
			for range 2 { // the second answer comes from the cache, if there is one
				want(t, curve.Params().Name+" "+c.what, id.Verify(msg, c.sig), c.want)
			}
			want(t, c.what+" of another message", id.Verify([]byte("massage"), c.sig), " ")
		}
	}
}

func TestRemember(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	v := newVerifier()
	one, err := identity.NewMSP(o.MSPConfig(t), v, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	id, err := one.Deserialize(o.Signer(t, "peer").Serialize())
	if err != nil {
		t.Fatal(err)
	}
	// What is remembered is believed, which shows that nothing is verified; what is near it is not.
	v.Remember(id, []byte("message"), []byte("signature"))
	want(t, "remembered", id.Verify([]byte("message"), []byte("signature")), "")
	want(t, "another message", id.Verify([]byte("messages"), []byte("ignature")), "could not determine")
	other, err := one.Deserialize(o.Signer(t, "peer").Serialize())
	if err != nil {
		t.Fatal(err)
	}
	want(t, "another key", other.Verify([]byte("message"), []byte("signature")), "could not determine")
}

// Caches hold what they promise and no more, also under concurrent use; what fell out is found again.
func TestCachesAreBounded(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	v := identity.NewVerifier(identity.Config{Identities: 32, Signatures: 128})
	conf := o.MSPConfig(t)
	one, err := identity.NewMSP(conf, v, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := identity.NewMSP(proto.Clone(conf).(*msppb.MSPConfig), v, identity.Options{}); err != nil || again != one {
		t.Error("the same configuration makes another MSP", err)
	}
	if again, err := identity.NewMSP(conf, v, identity.Options{AllowEd25519: true}); err != nil || again == one {
		t.Error("another capability makes the same MSP", err)
	}
	m, err := identity.NewManager([]*identity.MSP{one})
	if err != nil {
		t.Fatal(err)
	}
	var signers []*identity.Signer
	for i := range 100 {
		signers = append(signers, identitytest.Signer(t, "OrgMSP", o.Issue(t, fmt.Sprint(i), []string{"client"})))
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 3 {
				for _, s := range signers {
					id, err := m.Deserialize(s.Serialize())
					if err != nil || id.Validate() != nil || !bytes.Equal(id.Serialized(), s.Serialize()) {
						t.Error(err, id)
						return
					}
					sig, err := s.Sign([]byte("message"))
					if err != nil || id.Verify([]byte("message"), sig) != nil || id.Verify([]byte("message"), sig) != nil {
						t.Error("own signature is refused", err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	ids, sigs := v.Cached()
	if ids == 0 || ids > 32+32 || sigs == 0 || sigs > 128+128 {
		t.Errorf("%d identities and %d signatures are kept", ids, sigs)
	}
	a, _ := m.Deserialize(signers[0].Serialize())
	if b, _ := m.Deserialize(signers[0].Serialize()); a != b {
		t.Error("an identity is parsed twice")
	}
}

func TestFolders(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	sub := o.NewCA(t, "sub")
	leaf := sub.Issue(t, "peer0", []string{"peer"})
	dir := t.TempDir()
	put := func(name string, content []byte) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, err := identity.ConfigFromDir(dir, "OrgMSP")
	want(t, "empty folder", err, "no ca certificate found in directory")
	_, err = identity.LoadSigner(dir, "OrgMSP")
	want(t, "empty folder", err, "signcerts")

	put("cacerts/ca.pem", o.PEM)
	put("cacerts/README", []byte("no PEM"))
	put("intermediatecerts/sub.pem", sub.PEM)
	put("tlscacerts/tls.pem", o.Config.TlsRootCerts[0])
	put("crls/crl.pem", sub.Revoke(t, sub.Issue(t, "gone", nil).Cert))
	put("admincerts/admin.pem", sub.Issue(t, "boss", []string{"client"}).PEM)
	unit := func(key, name string) string {
		return fmt.Sprintf("  %s:\n    Certificate: intermediatecerts/sub.pem\n    OrganizationalUnitIdentifier: %s\n", key, name)
	}
	put("config.yaml", []byte("NodeOUs:\n  Enable: true\n"+unit("ClientOUIdentifier", "client")+unit("PeerOUIdentifier", "peer")+
		unit("AdminOUIdentifier", "admin")+unit("OrdererOUIdentifier", "orderer")))
	put("signcerts/cert.pem", append([]byte("Certificate:\n"), leaf.PEM...))
	pkcs8, err := x509.MarshalPKCS8PrivateKey(leaf.Key)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(leaf.Key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	other, err := x509.MarshalPKCS8PrivateKey(identitytest.NewKey(t))
	if err != nil {
		t.Fatal(err)
	}

	conf, err := identity.ConfigFromDir(dir, "OrgMSP")
	if err != nil {
		t.Fatal(err)
	}
	m, err := identity.NewMSP(conf, nil, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !m.NodeOUs() || len(m.TLSRootCerts()) != 1 || len(m.Intermediates()) != 1 {
		t.Error("parts of the folder are missing")
	}

	put("keystore/a_sk", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: other}))
	_, err = identity.LoadSigner(dir, "OrgMSP")
	want(t, "wrong key", err, "belongs to the certificate of")
	for _, key := range [][]byte{
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})...),
	} {
		put("keystore/b_sk", key)
		s, err := identity.LoadSigner(dir, "OrgMSP")
		if err != nil {
			t.Fatal(err)
		}
		id, err := m.Deserialize(s.Serialize())
		if err != nil {
			t.Fatal(err)
		}
		sig, err := s.Sign([]byte("message"))
		if err != nil {
			t.Fatal(err)
		}
		want(t, "signature", id.Verify([]byte("message"), sig), "")
		want(t, "role", id.Satisfies(role("OrgMSP", msppb.MSPRole_PEER)), "")
		if !bytes.Equal(s.Serialize(), identity.Serialize("OrgMSP", leaf.PEM)) || s.MSPID() != "OrgMSP" {
			t.Error("the text around the certificate is part of the identity")
		}
	}
	put("keystore/b_sk", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: pkcs8}))
	_, err = identity.LoadSigner(dir, "OrgMSP")
	want(t, "encrypted key", err, "ENCRYPTED PRIVATE KEY")
	put("config.yaml", []byte(strings.ReplaceAll("NodeOUs:\n  Enable: true\n"+unit("PeerOUIdentifier", "peer"), "sub.pem", "gone.pem")))
	_, err = identity.ConfigFromDir(dir, "OrgMSP")
	want(t, "missing OU certificate", err, "certificate of node OU peer")
	put("config.yaml", []byte("NodeOUs: ["))
	_, err = identity.ConfigFromDir(dir, "OrgMSP")
	want(t, "bad YAML", err, "config.yaml")
}

func FuzzDeserialize(f *testing.F) {
	m := vectorManager(f, newVerifier())
	for _, tx := range readBlock(f, "000106.block").Txs {
		f.Add(tx.Creator(), tx.Envelope.GetPayload(), tx.Envelope.GetSignature())
	}
	f.Fuzz(func(t *testing.T, raw, msg, sig []byte) {
		id, err := m.Deserialize(raw)
		if err != nil {
			return
		}
		if id.Certificate() == nil || id.Key() == "" {
			t.Fatal("an identity without certificate or key")
		}
		valid, verified := id.Validate(), id.Verify(msg, sig)
		again, err := m.Deserialize(bytes.Clone(raw))
		if err != nil || (again.Validate() == nil) != (valid == nil) || (again.Verify(msg, sig) == nil) != (verified == nil) {
			t.Fatalf("two verdicts on one identity: %v %v %v", err, valid, verified)
		}
	})
}

func FuzzNewMSP(f *testing.F) {
	o := identitytest.NewOrg(f, "OrgMSP")
	o.Config.RevocationList = [][]byte{o.Revoke(f, o.Cert)}
	f.Add(o.MSPConfig(f).Config)
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := identity.NewMSP(&msppb.MSPConfig{Config: raw}, nil, identity.Options{})
		if err == nil && len(m.Roots()) == 0 {
			t.Fatal("an MSP without roots")
		}
	})
}

func FuzzPrincipal(f *testing.F) {
	o := identitytest.NewOrg(f, "OrgMSP")
	m := newMSP(f, o, identity.Options{})
	id, err := m.Deserialize(o.Signer(f, "peer").Serialize())
	if err != nil {
		f.Fatal(err)
	}
	raw, err := proto.Marshal(principal(f, msppb.MSPPrincipal_COMBINED, &msppb.CombinedPrincipal{Principals: []*msppb.MSPPrincipal{role("OrgMSP", 0)}}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p := &msppb.MSPPrincipal{}
		if proto.Unmarshal(raw, p) == nil {
			_ = id.Satisfies(p)
		}
	})
}
