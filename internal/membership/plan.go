// Package membership changes who orders a channel: it plans how an orderer is added, removed, replaced, or given another TLS
// certificate while the service runs, and carries the plan out.
//
// A plan is a function of what is known about the consenters: which the configuration names, and which take part. It is
// worked out whole before anything is touched, and is refused, with the reason and what to do instead, when at any point of
// it the consenters that live would be no majority of those that the configuration names. Orderers check once more when
// the change is ordered, as Fabric's do; a plan is never more generous than they are.
//
// Guaranteed: a change that was interrupted anywhere is finished by asking for it again: each step looks first whether it
// has been done. One consenter is added or removed at a time. A consenter that lost its data is never let back in as the
// member that it was, since it has forgotten what it promised: it is removed, and comes back as another.
//
// Left out: who signs the configuration update and how it gets to the orderers, and how processes are started: Config and
// Nodes are the seams.
//
// Open plan.go first, then live.go (how the consenters are) and perform.go.
package membership

import (
	"fmt"
	"strings"
)

// Member is a consenter that the channel's configuration names.
type Member struct {
	Address string // host:port, in the configuration
	// Live says that it takes part in consensus now: the leader hears from it.
	Live   bool
	Height uint64 // blocks that it has; 0 if it cannot be reached
	Leader bool
	State  string // for people: what is known about it
}

// Service is a channel's consenters.
type Service []Member

// Quorum is how many of n consenters must agree.
func Quorum(n int) int { return n/2 + 1 }

// Live is how many take part.
func (s Service) Live() (n int) {
	for _, m := range s {
		if m.Live {
			n++
		}
	}
	return n
}

func (s Service) find(address string) (Member, bool) {
	for _, m := range s {
		if m.Address == address {
			return m, true
		}
	}
	return Member{}, false
}

func (s Service) without(address string) (rest Service) {
	for _, m := range s {
		if m.Address != address {
			rest = append(rest, m)
		}
	}
	return rest
}

func (s Service) with(address string) Service {
	return append(s[:len(s):len(s)], Member{Address: address, Live: true})
}

// dead lists the addresses of those that do not take part.
func (s Service) dead() string {
	var all []string
	for _, m := range s {
		if !m.Live {
			all = append(all, m.Address)
		}
	}
	return strings.Join(all, ", ")
}

// Action is what a step does.
type Action int

// The steps that plans are made of. Of these only Admit, Dismiss and Certify change the configuration.
const (
	Start   Action = iota // the orderer runs and follows the channel
	CatchUp               // it has all blocks
	Admit                 // the configuration names it as a consenter
	TakePart
	Dismiss // the configuration names it no more
	Leave   // it has noticed, and can be stopped
	Issue   // it has another certificate, not in use yet
	Certify // the configuration names that certificate
	Install // it uses that certificate
)

// Step is one step of a plan.
type Step struct {
	Action  Action
	Address string
	Text    string // in plain words
}

// Plan is what will be done, in order.
type Plan struct {
	Steps []Step
	Notes []string // what whoever carries it out should know
}

func (p *Plan) add(a Action, address, format string, args ...any) {
	p.Steps = append(p.Steps, Step{a, address, fmt.Sprintf(format, args...)})
}

// String lists the steps for people.
func (p *Plan) String() string {
	var b strings.Builder
	for i, s := range p.Steps {
		fmt.Fprintf(&b, "%d. %s\n", i+1, s.Text)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(&b, "Note: %s\n", n)
	}
	return b.String()
}

// Refusal says why there is no plan, and what can be done.
type Refusal struct {
	Why     string
	Instead string
}

func (r *Refusal) Error() string { return r.Why + "; " + r.Instead }

func refuse(instead, why string, args ...any) error {
	return &Refusal{fmt.Sprintf(why, args...), instead}
}

// alive refuses every change while nothing can be ordered.
func (s Service) alive() error {
	if n, need := s.Live(), Quorum(len(s)); n < need {
		return refuse("start the others again: "+s.dead(), "only %d of %d consenters take part and %d must, so the channel stands still and no change can be ordered", n, len(s), need)
	}
	return nil
}

// admits says whether one more consenter may be named. It counts as dead until it takes part, as orderers count it, unless
// there is one consenter only: nothing else could ever be done.
func (s Service) admits() error {
	if n, need := s.Live(), Quorum(len(s)+1); len(s) > 1 && n < need {
		return refuse("bring back, replace or remove first: "+s.dead(),
			"%d of %d consenters take part, and of %d consenters %d must", n, len(s), len(s)+1, need)
	}
	return nil
}

// dismisses says whether a consenter may be removed.
func (s Service) dismisses(address string) error {
	left := s.without(address)
	if len(left) == 0 {
		return refuse("add another one first, or use `hansa orderer replace`", "%s is the only consenter: without it the channel could never be written again", address)
	}
	if n, need := left.Live(), Quorum(len(left)); n < need {
		return refuse("bring back, replace or remove first: "+left.dead(),
			"without %s there are %d consenters, of which %d take part and %d must", address, len(left), n, need)
	}
	return nil
}

// Add plans to make another orderer a consenter.
func (s Service) Add(address string) (*Plan, error) {
	if m, ok := s.find(address); ok {
		if m.Live {
			return &Plan{}, nil
		}
		// Named by an earlier run, or dead: what is missing is that it takes part.
		p := &Plan{}
		p.add(Start, address, "start %s, which the configuration names already, on the channel", address)
		p.add(TakePart, address, "wait until it takes part")
		return p, nil
	}
	if err := s.alive(); err != nil {
		return nil, err
	}
	if err := s.admits(); err != nil {
		return nil, err
	}
	p := &Plan{}
	s.plusOne(p, address)
	if n := len(s) + 1; n%2 == 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("%d consenters bear the loss of no more than %d do: add one more", n, n-1))
	}
	return p, nil
}

func (s Service) plusOne(p *Plan, address string) {
	n := len(s) + 1
	p.add(Start, address, "start %s on the channel, from its newest configuration block; it follows", address)
	p.add(CatchUp, address, "wait until it has all blocks")
	p.add(Admit, address, "name it as a consenter in the channel's configuration: %d of %d take part, and of %d then %d must", s.Live(), len(s), n, Quorum(n))
	p.add(TakePart, address, "wait until it takes part")
}

func (s Service) minusOne(p *Plan, address string) {
	left := s.without(address)
	p.add(Dismiss, address, "take %s out of the channel's configuration: of the %d that stay %d take part, and %d must", address, len(left), left.Live(), Quorum(len(left)))
}

// Remove plans to have a consenter order no more.
func (s Service) Remove(address string) (*Plan, error) {
	m, ok := s.find(address)
	if !ok {
		return &Plan{}, nil
	}
	if err := s.alive(); err != nil {
		return nil, err
	}
	if err := s.dismisses(address); err != nil {
		return nil, err
	}
	p := &Plan{}
	s.minusOne(p, address)
	if m.Live {
		p.add(Leave, address, "wait until it has noticed")
	}
	if n := len(s) - 1; n == 2 {
		p.Notes = append(p.Notes, "two consenters bear no loss: the channel stands still as soon as one of them is down")
	}
	return p, nil
}

// Replace plans to have one orderer in the place of another, which may be the same one with an empty folder.
func (s Service) Replace(old, by string) (*Plan, error) {
	m, ok := s.find(old)
	if !ok {
		if n, named := s.find(by); named && n.Live {
			return &Plan{}, nil
		}
		return s.Add(by) // an earlier run has removed it
	}
	if _, named := s.find(by); named && by != old {
		// An earlier run has added it.
		p, err := s.Remove(old)
		if err != nil {
			return nil, err
		}
		return p, nil
	}
	if err := s.alive(); err != nil {
		return nil, err
	}
	if old == by && m.Live {
		return &Plan{Notes: []string{old + " takes part: there is nothing to replace; for another certificate use `hansa orderer rotate`"}}, nil
	}
	p := &Plan{}
	if m.Live {
		// It carries the service until the other does.
		err := s.admits()
		if err == nil {
			err = s.with(by).dismisses(old)
		}
		if err == nil {
			s.plusOne(p, by)
			s.with(by).minusOne(p, old)
			p.add(Leave, old, "wait until it has noticed")
			return p, nil
		}
		return nil, err
	}
	// A dead one only counts against the majority: it goes first.
	if err := s.dismisses(old); err != nil {
		return nil, err
	}
	left := s.without(old)
	if err := left.admits(); err != nil {
		return nil, err
	}
	s.minusOne(p, old)
	left.plusOne(p, by)
	return p, nil
}

// Rotate plans to give a consenter another TLS certificate.
func (s Service) Rotate(address string) (*Plan, error) {
	m, ok := s.find(address)
	if !ok {
		return nil, refuse("orderers that are no consenters just need the new files and a restart", "%s is no consenter of the channel", address)
	}
	if err := s.alive(); err != nil {
		return nil, err
	}
	// It is away for a moment. Of one or two nobody can be.
	if n, need := s.without(address).Live(), Quorum(len(s)); len(s) > 2 && n < need {
		return nil, refuse("bring back, replace or remove first: "+s.without(address).dead(),
			"while %s restarts %d of %d consenters take part, and %d must", address, n, len(s), need)
	}
	p := &Plan{}
	p.add(Issue, address, "make the new certificate of %s ready", address)
	p.add(Certify, address, "name it in the channel's configuration; for ten minutes the others accept the old one too")
	p.add(Install, address, "have %s use it, which restarts it", address)
	p.add(TakePart, address, "wait until it takes part")
	if len(s) <= 2 && m.Live {
		p.Notes = append(p.Notes, fmt.Sprintf("with %d consenters nothing is ordered while one restarts", len(s)))
	}
	return p, nil
}
