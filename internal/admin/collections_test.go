package admin_test

import (
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/internal/admin"
	"github.com/hansa-ledger/hansa/internal/policy"
)

const collections = `[
  {
    "name": "deals",
    "policy": "OR('Org1MSP.member', 'Org2MSP.member')",
    "requiredPeerCount": 1,
    "maxPeerCount": 3,
    "blockToLive": 1000000,
    "memberOnlyRead": true,
    "memberOnlyWrite": true,
    "endorsementPolicy": {"signaturePolicy": "OR('Org1MSP.peer')"}
  },
  {"name": "mine", "policy": "OR('Org1MSP.member')", "endorsementPolicy": {"channelConfigPolicy": "/Channel/Application/Endorsement"}}
]`

func TestParseCollections(t *testing.T) {
	pkg, err := admin.ParseCollections([]byte(collections))
	if err != nil || len(pkg.Config) != 2 {
		t.Fatal(pkg, err)
	}
	deals, mine := pkg.Config[0].GetStaticCollectionConfig(), pkg.Config[1].GetStaticCollectionConfig()
	members, err := policy.Text(deals.MemberOrgsPolicy.GetSignaturePolicy())
	if err != nil || deals.Name != "deals" || deals.RequiredPeerCount != 1 || deals.MaximumPeerCount != 3 || deals.BlockToLive != 1000000 ||
		!deals.MemberOnlyRead || !deals.MemberOnlyWrite || deals.EndorsementPolicy.GetSignaturePolicy() == nil || !strings.Contains(members, "Org2MSP") {
		t.Errorf("%v, %s, %v", deals, members, err)
	}
	if mine.RequiredPeerCount != 0 || mine.MaximumPeerCount != 1 || mine.BlockToLive != 0 || mine.MemberOnlyRead ||
		mine.EndorsementPolicy.GetChannelConfigPolicyReference() != "/Channel/Application/Endorsement" {
		t.Errorf("%v", mine)
	}
}

func TestParseCollectionsRefuses(t *testing.T) {
	for what, raw := range map[string]string{
		"policy is missing":        `[{"name":"a"}]`,
		"has no name":              `[{"policy":"OR('Org1MSP.member')"}]`,
		"there twice":              `[{"name":"a","policy":"OR('A.member')"},{"name":"a","policy":"OR('A.member')"}]`,
		"unknown field":            `[{"name":"a","policy":"OR('A.member')","maxpeers":2}]`,
		"cannot be less than":      `[{"name":"a","policy":"OR('A.member')","requiredPeerCount":2,"maxPeerCount":1}]`,
		"may be negative":          `[{"name":"a","policy":"OR('A.member')","requiredPeerCount":-1}]`,
		"both a signaturePolicy":   `[{"name":"a","policy":"OR('A.member')","endorsementPolicy":{"signaturePolicy":"OR('A.peer')","channelConfigPolicy":"/x"}}]`,
		"is wanted":                `[{"name":"a","policy":"OR('A.member')","endorsementPolicy":{}}]`,
		`policy "MAYBE('A.peer')"`: `[{"name":"a","policy":"MAYBE('A.peer')"}]`,
		"after the list":           `[] []`,
		"cannot unmarshal":         `{"name":"a"}`,
	} {
		if _, err := admin.ParseCollections([]byte(raw)); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v, want %q", raw, err, what)
		}
	}
}

func FuzzParseCollections(f *testing.F) {
	f.Add([]byte(collections))
	f.Add([]byte(`[{}]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if pkg, err := admin.ParseCollections(raw); (pkg == nil) == (err == nil) {
			t.Errorf("%v, %v", pkg, err)
		}
	})
}
