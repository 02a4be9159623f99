package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hansa-ledger/hansa/e2e/faults/netns"
	"github.com/hansa-ledger/hansa/e2e/faults/site"
)

// Nemesis carries plans out.
type Nemesis struct {
	site *site.Site

	mu       sync.Mutex
	shapes   map[int]shape      // of the links, by fault; guarded by mu
	impaired map[*site.Node]int // by how many faults; guarded by mu
	worst    Impaired           // of the running plan; guarded by mu
}

// Impaired says how many nodes could not do their part at the worst moment of a plan.
type Impaired struct {
	Orderers, Peers int
	Contract        bool
}

// shape is what a fault does to the direction between two nodes.
type shape func(from, to *site.Node) netns.Link

// New is the nemesis of a network.
func New(s *site.Site) *Nemesis {
	return &Nemesis{site: s, shapes: map[int]shape{}, impaired: map[*site.Node]int{}}
}

// Done is what became of a fault.
type Done struct {
	Fault
	Hit     string // the node, of faults that hit one
	Began   time.Time
	Ended   time.Time
	Refused string // why it was not done; changes of members that would be unsafe are refused by the orderers
}

// Run carries a plan out and takes everything back. An error is one of the harness.
func (n *Nemesis) Run(ctx context.Context, plan Plan) ([]Done, Impaired, error) {
	n.mu.Lock()
	n.worst = Impaired{}
	n.mu.Unlock()
	done, errs := make([]Done, len(plan)), make([]error, len(plan))
	var group sync.WaitGroup
	for i, f := range plan {
		group.Go(func() { done[i], errs[i] = n.one(ctx, i, f) })
	}
	group.Wait()
	n.site.Net.Heal()
	n.mu.Lock()
	defer n.mu.Unlock()
	return done, n.worst, errors.Join(errs...)
}

func (n *Nemesis) one(ctx context.Context, index int, f Fault) (Done, error) {
	wait(ctx, f.After)
	dice := rand.New(rand.NewPCG(f.Dice, 2))
	victims := n.victims(ctx, f, dice)
	d := Done{Fault: f, Began: time.Now()}
	if len(victims) == 1 {
		d.Hit = victims[0].Name
	}
	n.site.Log().Info("fault begins", "kind", f.Kind, "hits", d.Hit)
	if f.Kind != Clock {
		n.impair(victims, 1)
		defer n.impair(victims, -1)
	}
	undo, err := n.harm(ctx, index, f, victims, dice)
	if refused := (*Refused)(nil); errors.As(err, &refused) {
		d.Refused = refused.Error()
		n.site.Log().Info("fault refused", "kind", f.Kind, "hits", d.Hit, "why", d.Refused)
	} else if err != nil {
		return d, fmt.Errorf("%s: %w", f, err)
	}
	wait(ctx, f.For-time.Since(d.Began))
	if err := undo(); err != nil {
		return d, fmt.Errorf("end of %s: %w", f, err)
	}
	d.Ended = time.Now()
	n.site.Log().Info("fault ends", "kind", f.Kind, "hit", d.Hit)
	return d, nil
}

// restoreLimit is how long the consenters may take to be as before, while other faults end.
const restoreLimit = time.Minute

// Refused is a fault that the network, rightly, does not let happen.
type Refused struct{ err error }

func (r *Refused) Error() string { return r.err.Error() }

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// victims are the nodes that a fault keeps from doing their part.
func (n *Nemesis) victims(ctx context.Context, f Fault, dice *rand.Rand) []*site.Node {
	s := n.site
	switch f.Victim {
	case TheContract:
		return []*site.Node{s.Service}
	case AnyPeer:
		return []*site.Node{s.Peers[dice.IntN(len(s.Peers))]}
	case Leader, Follower:
		pick := s.Orderers[dice.IntN(len(s.Orderers))]
		leader := s.Leader(ctx)
		if leader == nil {
			return []*site.Node{pick}
		}
		if f.Victim == Leader {
			return []*site.Node{leader}
		}
		for pick == leader {
			pick = s.Orderers[dice.IntN(len(s.Orderers))]
		}
		return []*site.Node{pick}
	}
	switch f.Kind {
	case KillAll:
		return s.Orderers
	case Halves, Bridge:
		return minority(s, sides(s, dice))
	}
	return nil
}

// sides puts each orderer and peer on one of two sides, at least one orderer on each.
func sides(s *site.Site, dice *rand.Rand) map[*site.Node]bool {
	orderers := slices.Clone(s.Orderers)
	dice.Shuffle(len(orderers), func(i, j int) { orderers[i], orderers[j] = orderers[j], orderers[i] })
	side := map[*site.Node]bool{}
	for i, o := range orderers {
		side[o] = i < len(orderers)/2
	}
	for _, p := range s.Peers {
		side[p] = dice.IntN(2) == 0
	}
	return side
}

// minority are the nodes on the side with fewer orderers.
func minority(s *site.Site, side map[*site.Node]bool) (few []*site.Node) {
	for _, o := range append(slices.Clone(s.Orderers), s.Peers...) {
		if side[o] {
			few = append(few, o)
		}
	}
	return few
}

// impair counts which nodes are out of order.
func (n *Nemesis) impair(nodes []*site.Node, by int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, node := range nodes {
		n.impaired[node] += by
	}
	now := Impaired{}
	for node, faults := range n.impaired {
		switch {
		case faults == 0:
		case node.Role == site.Orderer:
			now.Orderers++
		case node.Role == site.Peer:
			now.Peers++
		default:
			now.Contract = true
		}
	}
	n.worst.Orderers, n.worst.Peers = max(n.worst.Orderers, now.Orderers), max(n.worst.Peers, now.Peers)
	n.worst.Contract = n.worst.Contract || now.Contract
}

// harm begins a fault; undo ends it.
func (n *Nemesis) harm(ctx context.Context, index int, f Fault, victims []*site.Node, dice *rand.Rand) (undo func() error, err error) {
	each := func(do func(*site.Node) error) func() error {
		return func() error {
			var errs []error
			for _, v := range victims {
				errs = append(errs, do(v))
			}
			return errors.Join(errs...)
		}
	}
	links := func(s shape) (func() error, error) {
		n.shape(index, s)
		return func() error { n.shape(index, nil); return nil }, nil
	}
	all := func(l netns.Link) shape { return func(_, _ *site.Node) netns.Link { return l } }
	switch f.Kind {
	case Kill, KillAll:
		return each((*site.Node).Start), each((*site.Node).Kill)()
	case Pause:
		return each(func(v *site.Node) error { return v.Signal(syscall.SIGCONT) }), each(func(v *site.Node) error { return v.Signal(syscall.SIGSTOP) })()
	case FullDisk:
		return each((*site.Node).FreeDisk), each((*site.Node).FillDisk)()
	case SlowDisk:
		return each(func(v *site.Node) error { v.Page.Disk(0); return nil }), each(func(v *site.Node) error { v.Page.Disk(time.Duration(f.Amount)); return nil })()
	case Clock:
		return each(func(v *site.Node) error { v.Page.Skew(0); return nil }), each(func(v *site.Node) error { v.Page.Skew(time.Duration(f.Amount)); return nil })()
	case Halves, Bridge:
		few := map[*site.Node]bool{}
		for _, v := range victims {
			few[v] = true
		}
		var bridge *site.Node
		if f.Kind == Bridge {
			bridge = n.site.Orderers[dice.IntN(len(n.site.Orderers))]
		}
		return links(func(from, to *site.Node) netns.Link {
			return netns.Link{Cut: few[from] != few[to] && from != bridge && to != bridge}
		})
	case OneWay:
		deaf := dice.IntN(2) == 0
		return links(func(from, to *site.Node) netns.Link {
			return netns.Link{Cut: deaf && to == victims[0] || !deaf && from == victims[0]}
		})
	case Membership, Certificate, LostDisk:
		switch f.Kind {
		case Membership:
			err = n.site.Dismiss(ctx, victims[0])
		case Certificate:
			err = n.site.Recertify(ctx, victims[0])
		default:
			return n.restore(ctx), n.site.Lose(victims[0])
		}
		if err != nil {
			err = &Refused{err}
		}
		return n.restore(ctx), err
	case Delay:
		d := time.Duration(f.Amount)
		return links(all(netns.Link{Delay: d, Jitter: d / 2}))
	case Loss:
		return links(all(netns.Link{Loss: f.Amount}))
	case Reorder:
		return links(all(netns.Link{Reorder: f.Amount, Delay: 4 * time.Millisecond, Jitter: 2 * time.Millisecond}))
	case Duplicate:
		return links(all(netns.Link{Duplicate: f.Amount}))
	case Bandwidth:
		return links(all(netns.Link{Rate: int(f.Amount)}))
	}
	return nil, fmt.Errorf("nobody knows how to do %q", f.Kind)
}

func (n *Nemesis) restore(ctx context.Context) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(ctx, restoreLimit)
		defer cancel()
		return n.site.Restore(ctx)
	}
}

// shape changes the links between orderers and peers. What several faults do to one link adds up. Contracts and the harness stay reachable.
func (n *Nemesis) shape(index int, s shape) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s == nil {
		delete(n.shapes, index)
	} else {
		n.shapes[index] = s
	}
	nodes := append(slices.Clone(n.site.Orderers), n.site.Peers...)
	for _, from := range nodes {
		for _, to := range nodes {
			if from == to {
				continue
			}
			var sum netns.Link
			for _, s := range n.shapes {
				l := s(from, to)
				sum.Cut = sum.Cut || l.Cut
				sum.Delay, sum.Jitter = sum.Delay+l.Delay, sum.Jitter+l.Jitter
				sum.Loss, sum.Reorder, sum.Duplicate = max(sum.Loss, l.Loss), max(sum.Reorder, l.Reorder), max(sum.Duplicate, l.Duplicate)
				if l.Rate > 0 && (sum.Rate == 0 || l.Rate < sum.Rate) {
					sum.Rate = l.Rate
				}
			}
			n.site.Net.Set(from.Host, to.Host, sum)
		}
	}
}
