package order_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/identity/identitytest"
	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
)

// These are what hurts operators of Fabric's ordering service, each a test that it does not happen here.

// logBook keeps what orderers log.
type logBook struct {
	slog.Handler
	mu    *sync.Mutex
	lines *[]string
	attrs string
}

func newLogBook() *logBook {
	return &logBook{Handler: slog.DiscardHandler, mu: new(sync.Mutex), lines: new([]string)}
}

func (b *logBook) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (b *logBook) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *b
	c.attrs += fmt.Sprint(attrs)
	return &c
}

func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message + b.attrs
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	*b.lines = append(*b.lines, line)
	return nil
}

func (b *logBook) count(parts ...string) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, line := range *b.lines {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			n++
		}
	}
	return n
}

// certify makes another TLS certificate for a node, which it does not use yet.
func (n *node) certify(t testing.TB) *identitytest.Leaf {
	t.Helper()
	return n.of.tlsLeaf(t, fmt.Sprintf("orderer%d", n.number))
}

// rotate is the config update that names another certificate for a node.
func (n *node) rotate(leaf *identitytest.Leaf) func(*etcdraftpb.ConfigMetadata) {
	return func(m *etcdraftpb.ConfigMetadata) {
		for _, c := range m.Consenters {
			if net.JoinHostPort(c.Host, fmt.Sprint(c.Port)) == n.address {
				c.ClientTlsCert, c.ServerTlsCert = leaf.PEM, leaf.PEM
			}
		}
	}
}

func (n *node) removal() func(*etcdraftpb.ConfigMetadata) {
	return func(m *etcdraftpb.ConfigMetadata) {
		var left []*etcdraftpb.Consenter
		for _, c := range m.Consenters {
			if !bytes.Equal(c.ServerTlsCert, n.leaf.PEM) {
				left = append(left, c)
			}
		}
		m.Consenters = left
	}
}

func (n *node) addition(t testing.TB) func(*etcdraftpb.ConfigMetadata) {
	return func(m *etcdraftpb.ConfigMetadata) { m.Consenters = append(m.Consenters, n.consenter(t)) }
}

// changeSoon repeats a change that is refused, as one is while the lead moves or not all have been heard from.
func (o *ordering) changeSoon(t testing.TB, through *node, edit func(*etcdraftpb.ConfigMetadata)) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = o.tryChange(t, through, edit); err == nil || strings.Contains(err.Error(), "no differences") {
			return
		}
	}
	t.Fatal(err)
}

// awaitPart waits until the leader hears from a node, as the member that the config has at its address.
func (o *ordering) awaitPart(t testing.TB, n *node) {
	t.Helper()
	until(t, fmt.Sprintf("node %d taking part", n.number), func() bool {
		for _, leader := range o.nodes {
			if leader.up && leader.hears(t, n) {
				return true
			}
		}
		return false
	})
}

// hears says whether a node leads and hears from another one.
func (n *node) hears(t testing.TB, from *node) bool {
	t.Helper()
	c, ok := n.Channel(channelID)
	if !ok {
		return false
	}
	s, ok := c.Consensus()
	if !ok || s.Leader != s.Self {
		return false
	}
	for _, m := range s.Members {
		if m.Address == from.address && m.Active {
			return true
		}
	}
	return false
}

func (n *node) relation(t testing.TB) string {
	t.Helper()
	relation, status := n.chain(t).Relation()
	return relation + " " + status
}

// Every consenter gets another certificate, one after the other, under load: at no time the service has no majority, also
// not between the config update and the restart, since both certificates hold then. With one dead it is refused, because
// then the restart would stop the service.
func TestRotatingDoesNotLoseTheQuorum(t *testing.T) {
	t.Parallel()
	o := newOrdering(t, 3, 0)
	o.begin(t, 3)
	l := o.load(t, 4)
	l.more(t, 20)
	for _, n := range o.nodes {
		leaf := n.certify(t)
		o.changeSoon(t, o.nodes[(n.number+1)%3], n.rotate(leaf))
		until(t, "the node to apply the config that displaces it", func() bool { return n.chain(t).Sequence() == uint64(n.number+1) })
		l.more(t, 10)
		o.awaitPart(t, n) // with its old certificate
		n.stop(t)
		l.more(t, 10) // by the other two
		n.leaf = leaf
		n.start(t)
		o.awaitPart(t, n)
		l.more(t, 10)
	}
	leader := o.leader(t)
	dead, other := o.nodes[(leader.number+1)%3], o.nodes[(leader.number+2)%3]
	dead.kill(t)
	until(t, "the dead to be missed", func() bool { return !leader.hears(t, dead) })
	err := o.tryChange(t, leader, other.rotate(other.certify(t)))
	if err == nil || !strings.Contains(err.Error(), "2 out of 3 nodes are alive, configuration will result in quorum loss") {
		t.Errorf("changing the certificate of one of two living consenters of three: %v", err)
	}
	dead.start(t)
	o.awaitPart(t, dead)
	o.check(t, l.stop())
}

// A consenter that is down while its certificate is changed comes back, whether it has the old one still or the new one, or
// the one after the other.
func TestCertificateChangedWhileDown(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"starts with the new one", "starts with the old one first"} {
		t.Run(name, func(t *testing.T) {
			o := newOrdering(t, 3, 0)
			book := newLogBook()
			o.log = slog.New(book)
			o.begin(t, 3)
			l := o.load(t, 2)
			l.more(t, 10)
			n := o.nodes[(o.leader(t).number+1)%3]
			n.kill(t)
			leaf := n.certify(t)
			o.changeSoon(t, o.leader(t), n.rotate(leaf))
			l.more(t, 20)
			if name == "starts with the old one first" {
				n.start(t)
				o.awaitPart(t, n) // the others were told of the change while they ran: they still accept the old one
				until(t, "all blocks", func() bool { return n.chain(t).Sequence() == 1 })
				n.stop(t)
			}
			n.leaf = leaf
			n.start(t)
			o.awaitPart(t, n)
			if got := n.relation(t); got != "consenter active" {
				t.Errorf("it is a %s", got)
			}
			l.more(t, 10)
			o.check(t, l.stop())
		})
	}
}

// A single consenter whose certificate was changed in the config goes on with the old one, also if it is restarted with it,
// and with the new one: it never finds itself a follower of nobody.
func TestSingleConsenterRotates(t *testing.T) {
	t.Parallel()
	o := newOrdering(t, 1, 0)
	o.begin(t, 1)
	n := o.nodes[0]
	submit := func(text string) {
		t.Helper()
		if err := n.Submit(t.Context(), message(t, o.user, channelID, text)); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	leaf := n.certify(t)
	o.change(t, n, n.rotate(leaf))
	submit("before the restart")
	n.stop(t)
	n.start(t)
	submit("with the old one again")
	if got := n.relation(t); got != "consenter active" {
		t.Errorf("it is a %s", got)
	}
	n.kill(t)
	n.leaf = leaf
	n.start(t)
	submit("with the new one")
	until(t, "the last block", func() bool { return n.chain(t).Height() == 5 }) // the client is answered first
	o.check(t, map[string]bool{"before the restart": true, "with the old one again": true, "with the new one": true})
}

// A consenter that is removed and added again, over and over, says once each time that it was removed, comes back each time
// and disturbs nobody.
func TestEvictedAndAddedAgain(t *testing.T) {
	t.Parallel()
	o := newOrdering(t, 3, 0)
	book := newLogBook()
	o.log = slog.New(book)
	o.begin(t, 3)
	l := o.load(t, 2)
	n := o.nodes[2]
	const times = 3
	for range times {
		o.changeSoon(t, o.nodes[0], n.removal())
		until(t, "the removed node following", func() bool { return n.relation(t) == "follower active" })
		l.more(t, 10)
		o.changeSoon(t, o.nodes[0], n.addition(t))
		o.awaitPart(t, n)
		l.more(t, 10)
	}
	o.check(t, l.stop())
	if got := book.count("names this node no more"); got != times {
		t.Errorf("it was removed %d times and said so %d times", times, got)
	}
	if got := book.count("ERROR"); got != 0 {
		t.Errorf("%d errors were logged: %q", got, *book.lines)
	}
}

// A removed node that is left running and not added again stays a follower quietly.
func TestEvictedStaysQuiet(t *testing.T) {
	t.Parallel()
	o := newOrdering(t, 3, 0)
	book := newLogBook()
	o.log = slog.New(book)
	o.begin(t, 3)
	n := o.nodes[(o.leader(t).number+1)%3]
	other := o.leader(t)
	n.kill(t)
	o.changeSoon(t, other, n.removal())
	n.start(t) // it believes to be a consenter
	until(t, "the removed node following", func() bool { return n.relation(t) == "follower active" })
	before, term := book.count("INFO leader changed"), termOf(t, o.leader(t))
	l := o.load(t, 2)
	l.more(t, 200)
	o.check(t, l.stop())
	if got := book.count("names this node no more"); got != 1 {
		t.Errorf("it said %d times that it was removed", got)
	}
	if after := book.count("INFO leader changed"); after != before || termOf(t, o.leader(t)) != term {
		t.Errorf("the leader changed %d times", after-before)
	}
}

func termOf(t testing.TB, n *node) uint64 {
	t.Helper()
	s, ok := n.chain(t).Consensus()
	if !ok {
		t.Fatal("no consenter")
	}
	return s.Term
}

// lose is what happens to a consenter whose folder is lost: it starts empty and is joined to the channel again.
func (n *node) lose(t testing.TB) {
	t.Helper()
	n.dir = t.TempDir()
	n.start(t)
	n.join(t, n.of.genesis)
}

// A consenter that lost its folder does not help to elect somebody who lacks what it has forgotten, and was acknowledged
// on its word.
func TestForgottenLogDoesNotVote(t *testing.T) {
	t.Parallel()
	o := newOrdering(t, 3, 0)
	o.begin(t, 3)
	leader := o.leader(t)
	forgetful, behind := o.nodes[(leader.number+1)%3], o.nodes[(leader.number+2)%3]
	submit := func(through *node, text string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return through.Submit(ctx, message(t, o.user, channelID, text))
	}
	if err := submit(leader, "known to all"); err != nil {
		t.Fatal(err)
	}
	until(t, "all having it", func() bool { return behind.chain(t).Height() == 2 })
	behind.kill(t)
	if err := submit(leader, "not known to one"); err != nil {
		t.Fatal(err)
	}
	forgetful.kill(t)
	leader.kill(t)

	behind.start(t)
	forgetful.lose(t)
	if err := submit(behind, "by those who forgot"); err == nil {
		t.Error("two consenters, of which one was behind and one has forgotten, ordered a transaction")
	}
	if behind.chain(t).Leader() != 0 {
		t.Error("the one that is behind leads")
	}
	leader.start(t)
	until(t, "ordering to go on", func() bool { return submit(behind, "after all") == nil })
	o.leader(t)
	height := leader.chain(t).Height()
	until(t, "all blocks", func() bool { return forgetful.chain(t).Height() == height && behind.chain(t).Height() == height })
	found := map[string]int{}
	for i := range height {
		b, err := forgetful.chain(t).Block(i)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range texts(t, b) {
			found[text]++
		}
	}
	if found["known to all"] != 1 || found["not known to one"] != 1 {
		t.Errorf("the chain has %v", found)
	}
}

// A consenter that lost its folder while the leader lives is found out: it follows, says once what to do, also after a
// restart, and takes part again as another member.
func TestLostFolder(t *testing.T) {
	t.Parallel()
	o := newOrdering(t, 3, 0)
	book := newLogBook()
	o.log = slog.New(book)
	o.begin(t, 3)
	l := o.load(t, 2)
	l.more(t, 20)
	leader := o.leader(t)
	n := o.nodes[(leader.number+1)%3]
	n.kill(t)
	l.more(t, 5)
	n.lose(t)
	until(t, "the node to find that it has forgotten", func() bool { return n.relation(t) == "consenter inactive" })
	l.more(t, 10)
	n.stop(t)
	n.start(t)
	if got := n.relation(t); got != "consenter inactive" {
		t.Errorf("after a restart it is a %s", got)
	}
	if got := book.count("ERROR", "hansa orderer replace"); got != 1 {
		t.Errorf("%d errors were logged: %q", got, *book.lines)
	}
	o.changeSoon(t, leader, n.removal())
	o.changeSoon(t, leader, n.addition(t))
	o.awaitPart(t, n)
	if got := n.relation(t); got != "consenter active" {
		t.Errorf("it is a %s: %q", got, *book.lines)
	}
	o.check(t, l.stop())
}

// A founder that starts late, when the others have ordered already, takes part: it has nothing to remember.
func TestLateFounder(t *testing.T) {
	t.Parallel()
	o := newOrdering(t, 3, 0)
	o.begin(t, 2)
	l := o.load(t, 2)
	l.more(t, 50)
	late := o.nodes[2]
	late.start(t)
	late.join(t, o.genesis)
	o.awaitPart(t, late)
	until(t, "the late one having the blocks", func() bool { return late.chain(t).Height() > 2 })
	l.more(t, 10)
	// It votes too.
	leader := o.leader(t)
	if leader == late {
		leader = o.nodes[0]
	}
	leader.kill(t)
	o.leader(t)
	l.more(t, 10)
	o.check(t, l.stop())
}
