package discovery_test

import (
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/discovery"
)

// Peers that are no anchor peers become known by asking anchor peers, to all.
func TestPeersFindEachOther(t *testing.T) {
	w := newWorld(t)
	w.rules["basic"], w.rules["other"] = "OR('AlphaMSP.peer')", "OR('AlphaMSP.peer')"
	a, b := w.peer("AlphaMSP", "basic"), w.peer("AlphaMSP", "basic", "other")
	c, d := w.peer("BetaMSP"), w.peer("BetaMSP", "other")
	all := []*peer{a, b, c, d}
	if len(a.seen()) != 0 {
		t.Error("a peer is known without a configuration that names any")
	}
	w.configure(a, c)
	if m := b.seen()[c.address]; m == nil || m.Heard || m.MSPID != "BetaMSP" {
		t.Errorf("an anchor peer that was never asked is listed as %+v", m)
	}
	await(t, "everybody knows everybody", func() bool {
		for _, p := range all {
			seen := p.seen()
			if len(seen) != 3 || slices.ContainsFunc(all, func(q *peer) bool { return p != q && (seen[q.address] == nil || !seen[q.address].Heard) }) {
				return false
			}
		}
		return true
	})
	if m := a.seen()[b.address]; m.MSPID != "AlphaMSP" || !m.Runs("basic") || !m.Runs("other") || !m.Runs("_lifecycle") || m.Runs("third") || m.Contracts["basic"] != "1.0" {
		t.Errorf("b is known to a as %+v", m)
	}

	// News arrive: heights, contracts.
	d.mu.Lock()
	d.height = 77
	d.mu.Unlock()
	d.install("basic", "other")
	version := a.directory.Version()
	d.directory.Changed()
	w.pass(2 * time.Second)
	await(t, "what is new at d reaches a", func() bool { m := a.seen()[d.address]; return m.Height == 77 && m.Runs("basic") })
	if a.directory.Version() == version {
		t.Error("the version does not change with what is known")
	}
	// The best first: here the highest, but this peer before all.
	await(t, "b lists d before c", func() bool {
		members := b.directory.Members(w.id)
		return members[0].Local && members[2].Address == d.address && members[3].Address == c.address
	})
}

func TestSilentPeersAreDropped(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.peer("AlphaMSP"), w.peer("AlphaMSP"), w.peer("BetaMSP")
	w.configure(a, c)
	heard := func(p, q *peer) bool { m := p.seen()[q.address]; return m != nil && m.Heard && !m.Failed }
	await(t, "all are known", func() bool { return heard(a, b) && heard(a, c) && heard(c, b) && heard(b, a) })
	b.server.Stop()
	c.server.Stop()
	await(t, "the dead are known to fail", func() bool { x, y := a.seen()[b.address], a.seen()[c.address]; return x.Failed && y.Failed })
	if members := a.directory.Members(w.id); members[len(members)-1].MSPID != "BetaMSP" || !members[0].Local {
		t.Errorf("the order is %v", members)
	}
	// b and c still ask, so they live. When they do not any more, they are dropped; an anchor peer stays a candidate.
	b.stop()
	c.stop()
	w.pass(29 * time.Second)
	if seen := a.seen(); !seen[b.address].Heard || !seen[c.address].Heard {
		t.Error("dropped too early")
	}
	w.pass(2 * time.Second)
	if seen := a.seen(); seen[b.address] != nil || seen[c.address] == nil || seen[c.address].Heard {
		t.Errorf("after the expiry there are %v", seen)
	}
}

// A configuration without a member drops its peers at once.
func TestRemovedMember(t *testing.T) {
	w := newWorld(t)
	a, c := w.peer("AlphaMSP"), w.peer("BetaMSP")
	w.configure(a, c)
	await(t, "both are known", func() bool { m := a.seen()[c.address]; return m != nil && m.Heard })
	delete(w.orgs, "BetaMSP")
	w.configure(a)
	if seen := a.seen(); len(seen) != 0 {
		t.Errorf("a removed member's peers are listed: %v", slices.Collect(maps.Keys(seen)))
	}
	if w.bundle.ID() != a.w.id {
		t.Error("another channel")
	}
	for range 20 {
		time.Sleep(time.Millisecond)
		if len(a.seen()) != 0 {
			t.Fatal("a removed member's peer came back")
		}
	}
}

func TestFail(t *testing.T) {
	w := newWorld(t)
	a, c := w.peer("AlphaMSP"), w.peer("BetaMSP")
	w.configure(a, c)
	await(t, "c is known", func() bool { m := a.seen()[c.address]; return m != nil && m.Heard })
	version := a.directory.Version()
	a.directory.Fail(w.id, c.address)
	if a.directory.Version() == version {
		t.Error("the version does not change with a failure")
	}
	await(t, "a peer that answers again has not failed", func() bool { return !a.seen()[c.address].Failed })
}

// A peer that claims the address of another member's peer does not take its place.
func TestClaimedAddress(t *testing.T) {
	w := newWorld(t)
	a, b := w.peer("AlphaMSP"), w.peer("BetaMSP")
	a.stop() // it knows what it is told, and asks nobody
	w.configure(b)
	liar, err := discovery.NewDirectory(discovery.Config{Signer: w.orgs["GammaMSP"].Signer(t, "peer"), MSPID: "GammaMSP", Address: b.address, Dial: a,
		Log: slog.New(slog.DiscardHandler), Now: w.now, Channels: func() []string { return []string{w.id} },
		Channel: func(id string) (discovery.Channel, bool) { return b, id == w.id }})
	must(t, err)
	said, err := liar.Statements(w.id)
	must(t, err)
	must(t, a.directory.Hear(w.id, said[0]))
	if at := a.directory.Strangers(w.id)[b.address]; at != "BetaMSP" {
		t.Errorf("the anchor peer of beta is taken for one of %q that is known", at)
	}
	members := map[string]bool{}
	for _, m := range a.directory.Members(w.id) {
		if m.Address == b.address {
			members[m.MSPID] = true
		}
	}
	if !members["BetaMSP"] {
		t.Errorf("at the address are peers of %v", members)
	}
}
