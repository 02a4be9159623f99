package validate_test

import (
	"strings"
	"testing"

	"github.com/hansa-ledger/hansa/internal/block"
)

// TestRules names the rules of validation that are easily got wrong and holds them against the transactions of the golden ledger
// that show them: Hyperledger Fabric's peers came to these codes. Rules of other packages are tested there; for blocks that an honest network
// does not make see TestHostileBlocks, for the order of the checks TestOrderOfChecks.
func TestRules(t *testing.T) {
	c := newChain(t)
	codes := map[[2]int]string{}
	for _, want := range loadExpected(t) {
		if want.Number == 0 {
			continue
		}
		b := loadBlock(t, int(want.Number))
		r := c.decide(b)
		for i, code := range r.Codes {
			codes[[2]int{int(want.Number), i}] = codeName(code)
		}
		c.commit(b, r)
		if len(block.CommitHash(b.Block)) == 0 {
			t.Errorf("block %d has no commit hash", want.Number)
		}
	}
	const (
		good     = "VALID"
		mvcc     = "MVCC_READ_CONFLICT"
		phantom  = "PHANTOM_READ_CONFLICT"
		policy   = "ENDORSEMENT_POLICY_FAILURE"
		twice    = "DUPLICATE_TXID"
		header   = "BAD_COMMON_HEADER"
		creator  = "BAD_CREATOR_SIGNATURE"
		id       = "BAD_PROPOSAL_TXID"
		endorser = "INVALID_ENDORSER_TRANSACTION"
		contract = "INVALID_CHAINCODE"
		other    = "INVALID_OTHER_REASON"
	)
	for _, rule := range []struct {
		name  string
		block int
		txs   map[int]string
	}{
		// Identifiers.
		{"within a block only an earlier transaction that passed its policy makes a duplicate", 36, map[int]string{0: good, 1: twice, 2: policy, 3: policy}},
		{"one that then fails its reads makes a duplicate all the same", 36, map[int]string{5: mvcc, 6: twice}},
		{"an id on the ledger is used up, also by an invalid transaction", 37, map[int]string{0: twice, 1: twice, 2: twice}},
		{"a stolen id is used up", 39, map[int]string{0: twice}},
		{"an id is the hash of nonce and creator in lower case", 38, map[int]string{0: id, 2: good, 3: id, 4: id}},
		// Headers and layers.
		{"epoch, nonce and type are checked", 38, map[int]string{5: header, 6: header, 7: header, 8: header}},
		{"one action, whose proposal hash fits", 38, map[int]string{9: endorser, 10: endorser, 11: endorser, 12: endorser}},
		{"the action's creator, versions and times are not checked", 38, map[int]string{13: good, 14: good, 15: good}},
		{"names of the contract agree and there is a version", 41, map[int]string{2: other, 3: contract, 4: contract, 5: other, 6: contract}},
		{"neither the version nor the response's status is compared", 41, map[int]string{7: good, 18: good}},
		{"every written namespace needs a contract, read ones do not", 41, map[int]string{9: contract, 10: good, 19: contract, 20: contract}},
		{"an event is of the contract", 41, map[int]string{16: other, 17: other}},
		{"a namespace stands once", 41, map[int]string{15: "ILLEGAL_WRITESET"}},
		{"no namespaces at all are good", 41, map[int]string{14: good}},
		{"headers before signatures before identifiers", 106, map[int]string{15: header, 16: creator}},
		{"types that have no place in a block", 111, map[int]string{1: "UNSUPPORTED_TX_PAYLOAD"}},
		{"a transaction of another channel", 113, map[int]string{1: creator}},
		// Identities.
		{"revoked, forged, foreign and malformed creators", 106, map[int]string{1: creator, 2: creator, 3: creator, 5: creator, 6: creator, 7: creator, 8: creator}},
		{"signatures have a low S", 106, map[int]string{4: creator}},
		{"exactly one organizational unit says the role", 106, map[int]string{9: creator, 10: creator}},
		{"ed25519 needs its capability", 106, map[int]string{11: creator}},
		{"peers and orderers may be creators", 106, map[int]string{12: good, 13: good}},
		{"an expired certificate counts at commit; its chain is judged at its first second", 107, map[int]string{0: good, 1: creator}},
		{"a revocation holds from its configuration on", 100, map[int]string{0: policy, 1: good, 2: good}},
		{"a certificate listed among the admins is one", 104, map[int]string{0: good}},
		// Endorsement policies.
		{"signature policies use identities up in order", 34, map[int]string{0: policy, 1: good, 2: good, 3: policy}},
		{"invalid endorsements are passed over", 34, map[int]string{4: good, 5: good, 6: policy, 10: good}},
		{"an identity counts once", 33, map[int]string{5: policy}},
		{"an implicit policy counts members by the configuration of the moment", 88, map[int]string{0: good, 1: good}},
		{"also when it has become stricter", 90, map[int]string{0: policy}},
		{"two of three are a majority", 93, map[int]string{0: good, 1: policy, 4: good}},
		{"every written namespace has its own policy, read ones have none", 35, map[int]string{1: policy, 2: good, 3: policy}},
		{"a lifecycle reference is the policy of the channel", 33, map[int]string{15: good, 16: policy}},
		// Policies of keys.
		{"a key's policy replaces the contract's, for that key only", 45, map[int]string{0: good, 1: policy, 5: policy, 6: policy, 7: good}},
		{"metadata on a missing key vanishes", 45, map[int]string{8: policy}},
		{"a delete takes the metadata along", 46, map[int]string{0: policy, 1: good}},
		{"a policy written earlier in the block bars writers of the key", 46, map[int]string{2: good, 3: policy, 4: mvcc}},
		{"but not if its transaction failed its policy", 46, map[int]string{5: policy, 6: good}},
		{"and does if it only failed its reads", 48, map[int]string{1: mvcc, 2: policy}},
		{"a removed policy leaves the contract's", 47, map[int]string{1: policy, 2: good}},
		{"delete and put in one block lose the metadata", 49, map[int]string{0: policy}},
		{"a policy that nobody can meet stays", 50, map[int]string{0: policy}},
		// Reads.
		{"a key touched by an earlier valid transaction conflicts, an invalid one touches nothing", 16, map[int]string{0: good, 1: mvcc, 2: good}},
		{"blind writes never conflict", 16, map[int]string{4: good}},
		{"a read-only transaction conflicts", 16, map[int]string{5: mvcc}},
		{"a blind delete of nothing conflicts with a read of nothing", 17, map[int]string{6: good, 7: mvcc}},
		{"the version decides, not the value", 17, map[int]string{8: good, 9: mvcc}},
		{"changed and changed back conflicts, missing and missing again does not", 20, map[int]string{2: mvcc, 3: mvcc, 4: good}},
		{"the version 0,0 is not none", 43, map[int]string{8: mvcc}},
		{"reads before range queries", 22, map[int]string{11: mvcc}},
		// Ranges.
		{"inserts, deletes and updates are phantoms", 22, map[int]string{2: phantom, 5: phantom, 7: phantom}},
		{"the end of a range is not in it, the start is", 22, map[int]string{9: good, 10: phantom}},
		{"a range covers what the peer fetched", 23, map[int]string{0: good, 2: phantom, 3: phantom, 5: phantom, 6: phantom, 7: phantom}},
		{"inserted and deleted in one block is nothing", 24, map[int]string{2: good, 5: phantom, 8: phantom}},
		{"more than fifty results are hashed", 28, map[int]string{0: good, 1: good, 2: good, 4: phantom, 5: good, 6: phantom, 8: phantom}},
		{"the peer fetches by hundreds", 30, map[int]string{0: good, 2: good, 5: phantom, 6: phantom, 8: phantom, 9: phantom, 10: phantom}},
		{"and one more", 31, map[int]string{1: phantom, 3: good}},
		// Write sets that a contract cannot make.
		{"writes need not be sorted, nor single", 43, map[int]string{0: good, 3: good, 4: good, 5: good, 6: good, 10: good, 11: good}},
		// Private data.
		{"a collection's policy stands in for the contract's", 53, map[int]string{4: good, 5: policy, 6: policy, 7: policy, 8: good}},
		{"an implicit collection is its member's", 53, map[int]string{9: good, 10: policy}},
		{"hashed reads conflict as public ones", 54, map[int]string{2: mvcc, 4: mvcc}},
		{"a private value is there while the block validates in which it ends", 57, map[int]string{0: good}},
		{"and gone in the next", 58, map[int]string{0: mvcc, 1: good, 2: good}},
		{"purges of what is and is not there", 54, map[int]string{6: good, 8: good}},
		{"a private key's policy counts, without the collection's", 60, map[int]string{0: good, 1: policy, 2: policy, 3: good}},
		// Definitions.
		{"a definition is in the reads of who runs by it", 63, map[int]string{0: good, 1: good, 2: mvcc}},
		{"also across blocks", 64, map[int]string{0: mvcc, 1: good}},
		{"the policy is checked before the reads", 67, map[int]string{0: policy}},
		{"approvals are the member's, commits the majority's", 6, map[int]string{0: policy, 1: good, 2: mvcc}},
		{"a contract is initialized once", 70, map[int]string{0: good, 1: mvcc}},
	} {
		t.Run(strings.ReplaceAll(rule.name, ",", ""), func(t *testing.T) {
			for tx, want := range rule.txs {
				if got := codes[[2]int{rule.block, tx}]; got != want {
					t.Errorf("transaction %d of block %d: %s, want %s", tx, rule.block, got, want)
				}
			}
		})
	}
}
