package ca_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/ca"
	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/wire/msppb"
)

// What this authority issues is what a channel's MSP accepts, in the role of its type, until the authority's
// revocation list says otherwise.
func TestIdentitiesAreMembers(t *testing.T) {
	s := start(t, config(t))
	admin := s.mustEnroll("admin", "adminpw")
	members := map[string]*user{}
	for _, typ := range []string{"client", "peer", "admin", "orderer"} {
		secret := admin.register(object{"id": "u-" + typ, "type": typ, "affiliation": "org1.department1", "attrs": []object{{"name": "a", "value": "1", "ecert": true}}})
		members[typ] = s.mustEnroll("u-"+typ, secret)
	}
	msp := newMSP(t, s)
	for typ, u := range members {
		id, err := msp.Deserialize(identity.Serialize("Org1MSP", u.certPEM))
		if err != nil {
			t.Fatal(err)
		}
		if err := id.Validate(); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
		for role, number := range map[string]msppb.MSPRole_MSPRoleType{"client": msppb.MSPRole_CLIENT, "peer": msppb.MSPRole_PEER, "admin": msppb.MSPRole_ADMIN, "orderer": msppb.MSPRole_ORDERER} {
			want, err := proto.Marshal(&msppb.MSPRole{MspIdentifier: "Org1MSP", Role: number})
			if err != nil {
				t.Fatal(err)
			}
			err = id.Satisfies(&msppb.MSPPrincipal{Principal: want})
			if (err == nil) != (role == typ) {
				t.Errorf("type %s, role %s: %v", typ, role, err)
			}
		}
	}

	var result struct{ CRL []byte }
	admin.ok("POST", "revoke", object{"id": "u-client", "gencrl": true}, &result)
	msp = newMSP(t, s, result.CRL)
	for typ, u := range members {
		id, err := msp.Deserialize(identity.Serialize("Org1MSP", u.certPEM))
		if err != nil {
			t.Fatal(err)
		}
		if err := id.Validate(); (err == nil) == (typ == "client") {
			t.Errorf("%s after the revocation of client: %v", typ, err)
		}
	}
}

func newMSP(t *testing.T, s *server, lists ...[]byte) *identity.MSP {
	t.Helper()
	root := ca.EncodeCertificates(s.Chain(ca.ProfileEnrollment)...)
	unit := func(name string) *msppb.FabricOUIdentifier {
		return &msppb.FabricOUIdentifier{Certificate: root, OrganizationalUnitIdentifier: name}
	}
	raw, err := proto.Marshal(&msppb.FabricMSPConfig{
		Name: "Org1MSP", RootCerts: [][]byte{root}, RevocationList: lists,
		CryptoConfig: &msppb.FabricCryptoConfig{SignatureHashFamily: "SHA2", IdentityIdentifierHashFunction: "SHA256"},
		FabricNodeOus: &msppb.FabricNodeOUs{Enable: true, ClientOuIdentifier: unit("client"), PeerOuIdentifier: unit("peer"),
			AdminOuIdentifier: unit("admin"), OrdererOuIdentifier: unit("orderer")},
	})
	if err != nil {
		t.Fatal(err)
	}
	msp, err := identity.NewMSP(&msppb.MSPConfig{Config: raw}, nil, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return msp
}
