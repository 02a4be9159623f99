package membership_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/hansa-ledger/hansa/internal/membership"
)

// service has n consenters, of which those in the bit set live take part.
func service(n, live int) (s membership.Service) {
	for i := range n {
		s = append(s, membership.Member{Address: address(i), Live: live>>i&1 == 1})
	}
	return s
}

func address(i int) string { return fmt.Sprintf("orderer%d:7050", i) }

const newcomer = "newcomer:7050"

// model carries steps out on its own, by the rules of raft and of Fabric's orderers, and knows nothing of plans.
type model struct {
	named map[string]bool // by the configuration
	live  map[string]bool // running, with what it promised
	clean map[string]bool // running, never part of anything
}

func (m *model) living() (n int) {
	for a := range m.named {
		if m.live[a] {
			n++
		}
	}
	return n
}

func (m *model) quorum() bool { return m.living() > len(m.named)/2 }

// step does one step, and says what goes wrong.
func (m *model) step(s membership.Step) error {
	if !m.quorum() {
		return fmt.Errorf("%q comes when nothing can be ordered", s.Text)
	}
	switch s.Action {
	case membership.Start:
		if !m.named[s.Address] {
			m.clean[s.Address] = true
		}
	case membership.Admit:
		if !m.clean[s.Address] {
			return errors.New("a consenter is let in that did not follow, or has a past")
		}
		// Fabric's rule: the new one does not count, and clusters up to two may grow.
		if after := len(m.named) + 1; after > 2 && m.living() < after/2+1 {
			return errors.New("orderers would refuse this")
		}
		m.named[s.Address] = true
		m.live[s.Address] = true // it was caught up
	case membership.Dismiss:
		delete(m.named, s.Address)
		delete(m.live, s.Address)
		delete(m.clean, s.Address)
		if len(m.named) == 0 {
			return errors.New("no consenter is left")
		}
	case membership.Certify:
		if left := m.living(); len(m.named) > 2 {
			if m.live[s.Address] {
				left--
			}
			if left < len(m.named)/2+1 {
				return errors.New("orderers would refuse this")
			}
		}
	case membership.Install:
		if m.live[s.Address] && len(m.named) > 2 {
			delete(m.live, s.Address)
			if !m.quorum() {
				return errors.New("the restart stops the service")
			}
		}
		m.live[s.Address] = true
	case membership.TakePart:
		if m.named[s.Address] {
			m.live[s.Address] = true
		}
	}
	if !m.quorum() {
		return fmt.Errorf("after %q %d of %d live", s.Text, m.living(), len(m.named))
	}
	return nil
}

// carryOut tries a plan on the model, up to a number of steps, and returns the service as it then is.
func carryOut(t *testing.T, s membership.Service, p *membership.Plan, steps int) membership.Service {
	t.Helper()
	m := &model{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	var order []string
	for _, c := range s {
		m.named[c.Address], m.live[c.Address] = true, c.Live
		order = append(order, c.Address)
	}
	for _, step := range p.Steps[:steps] {
		if err := m.step(step); err != nil {
			t.Fatalf("%v: %v:\n%v", s, err, p)
		}
	}
	var after membership.Service
	for i := range 8 {
		order = append(order, address(i))
	}
	for _, a := range append(order, newcomer) {
		if m.named[a] && !slices.ContainsFunc(after, func(c membership.Member) bool { return c.Address == a }) {
			after = append(after, membership.Member{Address: a, Live: m.live[a]})
		}
	}
	return after
}

// request is one thing that can be asked of a service.
type request struct {
	name string
	plan func(membership.Service) (*membership.Plan, error)
	done func(membership.Service) bool
}

func requests(n int) []request {
	has := func(a string) func(membership.Service) bool {
		return func(s membership.Service) bool {
			for _, m := range s {
				if m.Address == a {
					return m.Live
				}
			}
			return false
		}
	}
	lacks := func(a string) func(membership.Service) bool {
		return func(s membership.Service) bool {
			for _, m := range s {
				if m.Address == a {
					return false
				}
			}
			return true
		}
	}
	all := []request{{"add", func(s membership.Service) (*membership.Plan, error) { return s.Add(newcomer) }, has(newcomer)}}
	for i := range n {
		a := address(i)
		all = append(all,
			request{"remove " + a, func(s membership.Service) (*membership.Plan, error) { return s.Remove(a) }, lacks(a)},
			request{"replace " + a, func(s membership.Service) (*membership.Plan, error) { return s.Replace(a, newcomer) },
				func(s membership.Service) bool { return lacks(a)(s) && has(newcomer)(s) }},
			request{"replace by itself " + a, func(s membership.Service) (*membership.Plan, error) { return s.Replace(a, a) }, has(a)},
			request{"rotate " + a, func(s membership.Service) (*membership.Plan, error) { return s.Rotate(a) }, has(a)})
	}
	return all
}

// For all sizes up to seven, all sets of consenters that live and everything that can be asked: no step of any plan leaves
// the living without a majority, orderers would accept each, and the plan does what was asked for. A plan that was left
// after any of its steps is finished by asking again. What is allowed with some alive is allowed with more alive.
func TestNoPlanLosesTheQuorum(t *testing.T) {
	plans, refused := 0, 0
	for n := 1; n <= 7; n++ {
		for _, r := range requests(n) {
			allowed := map[int]bool{}
			for live := range 1 << n {
				s := service(n, live)
				p, err := r.plan(s)
				if err != nil {
					refused++
					var why *membership.Refusal
					if !errors.As(err, &why) || why.Why == "" || why.Instead == "" {
						t.Fatalf("%s of %v is refused without saying why or what to do: %v", r.name, s, err)
					}
					continue
				}
				plans++
				allowed[live] = true
				for stop := range len(p.Steps) + 1 {
					after := carryOut(t, s, p, stop)
					again, err := r.plan(after)
					if err != nil {
						t.Fatalf("%s of %v cannot go on after step %d, from %v: %v\n%v", r.name, s, stop, after, err, p)
					}
					if done := carryOut(t, after, again, len(again.Steps)); !r.done(done) {
						t.Fatalf("%s of %v, interrupted after step %d, comes to %v:\n%v%v", r.name, s, stop, done, p, again)
					}
				}
			}
			for live := range allowed {
				for more := range 1 << n {
					if live&more == live && !allowed[more] {
						t.Errorf("%s is allowed with %v and not with more alive: %v", r.name, service(n, live), service(n, more))
					}
				}
			}
		}
	}
	t.Logf("%d plans, %d refusals", plans, refused)
}

// What a majority can bear is not refused: a service of which any minority is dead gets its dead replaced.
func TestTheDeadCanBeReplaced(t *testing.T) {
	for n := 3; n <= 7; n++ {
		for live := range 1 << n {
			s := service(n, live)
			if s.Live() < membership.Quorum(n) {
				continue
			}
			for _, m := range s {
				if m.Live {
					continue
				}
				if _, err := s.Replace(m.Address, newcomer); err != nil {
					t.Errorf("replace %s of %v: %v", m.Address, s, err)
				}
				if _, err := s.Replace(m.Address, m.Address); err != nil {
					t.Errorf("replace %s of %v by itself: %v", m.Address, s, err)
				}
			}
		}
	}
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		plan func() (*membership.Plan, error)
		want string
	}{
		"add without majority": {func() (*membership.Plan, error) { return service(3, 0b001).Add(newcomer) },
			"only 1 of 3 consenters take part and 2 must, so the channel stands still and no change can be ordered; start the others again: orderer1:7050, orderer2:7050"},
		"add with one dead": {func() (*membership.Plan, error) { return service(3, 0b011).Add(newcomer) },
			"2 of 3 consenters take part, and of 4 consenters 3 must; bring back, replace or remove first: orderer2:7050"},
		"remove the only one": {func() (*membership.Plan, error) { return service(1, 0b1).Remove(address(0)) },
			"orderer0:7050 is the only consenter: without it the channel could never be written again; add another one first, or use `hansa orderer replace`"},
		"remove a living one": {func() (*membership.Plan, error) { return service(3, 0b011).Remove(address(0)) },
			"without orderer0:7050 there are 2 consenters, of which 1 take part and 2 must; bring back, replace or remove first: orderer2:7050"},
		"rotate with one dead": {func() (*membership.Plan, error) { return service(3, 0b011).Rotate(address(0)) },
			"while orderer0:7050 restarts 1 of 3 consenters take part, and 2 must; bring back, replace or remove first: orderer2:7050"},
		"rotate a stranger": {func() (*membership.Plan, error) { return service(3, 0b111).Rotate(newcomer) },
			"newcomer:7050 is no consenter of the channel; orderers that are no consenters just need the new files and a restart"},
	} {
		if _, err := c.plan(); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v\nwant %s", name, err, c.want)
		}
	}
}

func TestPlanInPlainWords(t *testing.T) {
	p, err := service(3, 0b101).Replace(address(1), newcomer)
	if err != nil {
		t.Fatal(err)
	}
	want := `1. take orderer1:7050 out of the channel's configuration: of the 2 that stay 2 take part, and 2 must
2. start newcomer:7050 on the channel, from its newest configuration block; it follows
3. wait until it has all blocks
4. name it as a consenter in the channel's configuration: 2 of 2 take part, and of 3 then 2 must
5. wait until it takes part
`
	if p.String() != want {
		t.Errorf("got\n%v", p)
	}
}
