package identity_test

import (
	"fmt"
	mathrand "math/rand/v2"
	"testing"

	"github.com/hansa-ledger/hansa/internal/identity"
	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
)

// Busy keys get tables, no more than allowed; the verdicts stay; and a key that becomes busier takes the place of one that is not.
func TestBusyKeysGetTables(t *testing.T) {
	o := identitytest.NewOrg(t, "OrgMSP")
	v := identity.NewVerifier(identity.Config{KeyTables: 2})
	one, err := identity.NewMSP(o.MSPConfig(t), v, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var signers []*identity.Signer
	var ids []*identity.Identity
	for range 4 {
		s := o.Signer(t, "peer")
		id, err := one.Deserialize(s.Serialize())
		if err != nil {
			t.Fatal(err)
		}
		signers, ids = append(signers, s), append(ids, id)
	}
	use := func(i, times int) {
		for j := range times {
			msg := fmt.Appendf(nil, "%d %d %d", i, j, mathrand.Uint64())
			sig, err := signers[i].Sign(msg)
			if err != nil {
				t.Fatal(err)
			}
			if err := ids[i].Verify(msg, sig); err != nil {
				t.Fatal(err)
			}
			want(t, "other message", ids[i].Verify(append(msg, 'x'), sig), "The signature is invalid")
		}
	}
	tables := func() (got string) {
		for _, id := range ids {
			if id.HasTable() {
				got += "x"
			} else {
				got += "-"
			}
		}
		return got
	}
	use(0, 20)
	if tables() != "----" {
		t.Error("a table for a key of little use")
	}
	use(0, 200)
	use(1, 100)
	if tables() != "xx--" {
		t.Error("tables:", tables())
	}
	use(2, 400)
	if got := tables(); got != "x-x-" && got != "-xx-" {
		t.Error("tables:", got)
	}

	none := identity.NewVerifier(identity.Config{KeyTables: -1})
	if one, err = identity.NewMSP(o.MSPConfig(t), none, identity.Options{}); err != nil {
		t.Fatal(err)
	}
	if ids[3], err = one.Deserialize(signers[3].Serialize()); err != nil {
		t.Fatal(err)
	}
	if use(3, 150); ids[3].HasTable() {
		t.Error("a table although there are to be none")
	}
}

// A signature that was verified before, by an identity that was seen before.
func BenchmarkVerifyCached(b *testing.B) {
	o := identitytest.NewOrg(b, "OrgMSP")
	m := identitytest.Manager(b, o)
	signer := o.Signer(b, "peer")
	msg := make([]byte, 3500)
	sig, err := signer.Sign(msg)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		id, err := m.Deserialize(signer.Serialize())
		if err != nil || id.Validate() != nil || id.Verify(msg, sig) != nil {
			b.Fatal("refused")
		}
	}
}
