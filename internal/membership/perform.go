package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/hansa-ledger/hansa/internal/wire/etcdraftpb"
)

// Config is the channel's configuration.
type Config interface {
	// Consenters are those that the newest configuration names.
	Consenters(ctx context.Context) ([]*etcdraftpb.Consenter, error)
	// Change has the configuration name other consenters, and their addresses to clients, and returns when it is in force.
	// The edit gives the consenters as they should be; nothing is done if they are so already.
	Change(ctx context.Context, edit func([]*etcdraftpb.Consenter) ([]*etcdraftpb.Consenter, error)) error
	// Block is the newest configuration block.
	Block(ctx context.Context) ([]byte, error)
}

// Nodes are the orderers as processes, as far as whoever runs a plan runs them.
type Nodes interface {
	// Start makes sure that the orderer of an address runs.
	Start(ctx context.Context, address string) error
	// Consenter describes the orderer for the configuration, with the certificates that it uses or will use next.
	Consenter(ctx context.Context, address string) (*etcdraftpb.Consenter, error)
	// Issue makes a new certificate ready beside the one in use, unless an earlier run has done so: Consenter has it from
	// then on.
	Issue(ctx context.Context, address string) error
	// Install has the orderer use the certificate that Issue made ready. It returns when the orderer runs with it.
	Install(ctx context.Context, address string) error
}

// Operator carries plans out.
type Operator struct {
	Channel string
	Config  Config
	Nodes   Nodes
	// Admin is the admin port of the orderer of an address, if it is known.
	Admin func(address string) (Admin, bool)
	// Height asks an orderer without a known admin port how many blocks it has.
	Height func(ctx context.Context, address string) (uint64, error)
	// Tell says what happens.
	Tell func(format string, args ...any)
	// Patience bounds how long each step may take. Default 2 minutes.
	Patience time.Duration
}

const pollPause = 100 * time.Millisecond

// Address is how a consenter is named: host:port.
func Address(c *etcdraftpb.Consenter) string {
	return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
}

// Service finds out who the consenters are and how. If a majority answers and nobody leads, it waits a moment for the
// election, and for a consenter that has just started to be heard of by the leader.
func (o *Operator) Service(ctx context.Context) (Service, error) {
	for end := time.Now().Add(5 * time.Second); ; {
		s, led, err := o.now(ctx)
		starting := slices.ContainsFunc(s, func(m Member) bool { return m.State == unheard })
		switch {
		case err == nil && led && starting && time.Now().Before(end):
		case err != nil || led || s.Live() < Quorum(len(s)) || !o.tellsLeader(s):
			return s, err
		case time.Now().After(end):
			return s, refuse("look at what they log about connections to each other", "%d of %d consenters answer, yet none of them leads", s.Live(), len(s))
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
}

func (o *Operator) now(ctx context.Context) (s Service, led bool, err error) {
	consenters, err := o.Config.Consenters(ctx)
	if err != nil {
		return nil, false, err
	}
	addresses := make([]string, len(consenters))
	for i, c := range consenters {
		addresses[i] = Address(c)
	}
	s, led = o.look(ctx, addresses)
	return s, led, nil
}

// tellsLeader says whether the leader is among those that can be asked whether they lead.
func (o *Operator) tellsLeader(s Service) bool {
	for _, m := range s {
		if _, ok := o.Admin(m.Address); m.Live && !ok {
			return false
		}
	}
	return true
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(pollPause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Perform does the steps of a plan.
func (o *Operator) Perform(ctx context.Context, p *Plan) error {
	patience := o.Patience
	if patience == 0 {
		patience = 2 * time.Minute
	}
	for i, s := range p.Steps {
		o.Tell("%d. %s", i+1, s.Text)
		step, cancel := context.WithTimeout(ctx, patience)
		err := o.step(step, s)
		cancel()
		if err != nil {
			return fmt.Errorf("step %d (%s): %w; run the same command again to go on", i+1, s.Text, err)
		}
	}
	for _, n := range p.Notes {
		o.Tell("Note: %s", n)
	}
	return nil
}

func (o *Operator) step(ctx context.Context, s Step) error {
	switch s.Action {
	case Start:
		return o.start(ctx, s.Address)
	case CatchUp:
		return o.await(ctx, func() (bool, string) { return o.caughtUp(ctx, s.Address) })
	case Admit:
		if err := o.check(ctx, func(now Service) error { return errors.Join(now.alive(), now.admits()) }, s.Address, false); err != nil {
			return err
		}
		c, err := o.Nodes.Consenter(ctx, s.Address)
		if err != nil {
			return err
		}
		return o.Config.Change(ctx, func(all []*etcdraftpb.Consenter) ([]*etcdraftpb.Consenter, error) {
			if find(all, s.Address) >= 0 {
				return all, nil
			}
			return append(all, c), nil
		})
	case Dismiss:
		if err := o.check(ctx, func(now Service) error { return errors.Join(now.alive(), now.dismisses(s.Address)) }, s.Address, true); err != nil {
			return err
		}
		return o.Config.Change(ctx, func(all []*etcdraftpb.Consenter) ([]*etcdraftpb.Consenter, error) {
			var left []*etcdraftpb.Consenter
			for _, c := range all {
				if Address(c) != s.Address {
					left = append(left, c)
				}
			}
			return left, nil
		})
	case Issue:
		return o.Nodes.Issue(ctx, s.Address)
	case Certify:
		c, err := o.Nodes.Consenter(ctx, s.Address)
		if err != nil {
			return err
		}
		return o.Config.Change(ctx, func(all []*etcdraftpb.Consenter) ([]*etcdraftpb.Consenter, error) {
			i := find(all, s.Address)
			if i < 0 {
				return nil, fmt.Errorf("%s is no consenter any more", s.Address)
			}
			all[i].ServerTlsCert, all[i].ClientTlsCert = c.ServerTlsCert, c.ClientTlsCert
			return all, nil
		})
	case Install:
		return o.Nodes.Install(ctx, s.Address)
	case TakePart:
		return o.await(ctx, func() (bool, string) {
			now, _, err := o.now(ctx)
			if err != nil {
				return false, err.Error()
			}
			m, _ := now.find(s.Address)
			return m.Live, m.State
		})
	case Leave:
		return o.await(ctx, func() (bool, string) {
			admin, ok := o.Admin(s.Address)
			if !ok {
				return true, ""
			}
			info, err := admin.Info(ctx, o.Channel)
			return err != nil || info.ConsensusRelation != "consenter", "it still believes to be a consenter"
		})
	}
	return fmt.Errorf("unknown action %d", s.Action)
}

// check looks again whether a change can be made, right before it is, unless it has been made.
func (o *Operator) check(ctx context.Context, rule func(Service) error, address string, named bool) error {
	now, err := o.Service(ctx)
	if err != nil {
		return err
	}
	if _, is := now.find(address); is != named {
		return nil
	}
	return rule(now)
}

func find(all []*etcdraftpb.Consenter, address string) int {
	for i, c := range all {
		if Address(c) == address {
			return i
		}
	}
	return -1
}

// await waits for a condition; what is known about it goes into the error when that takes too long.
func (o *Operator) await(ctx context.Context, holds func() (bool, string)) error {
	for {
		ok, state := holds()
		if ok {
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("in vain waited for: %w (%s)", err, state)
		}
	}
}

// start has the orderer run and follow the channel.
func (o *Operator) start(ctx context.Context, address string) error {
	if err := o.Nodes.Start(ctx, address); err != nil {
		return err
	}
	admin, ok := o.Admin(address)
	if !ok {
		return fmt.Errorf("its admin port is not known: name it with --admin %s=HOST:PORT", address)
	}
	return o.await(ctx, func() (bool, string) {
		_, err := admin.Info(ctx, o.Channel)
		if errors.Is(err, ErrNotJoined) {
			var block []byte
			if block, err = o.Config.Block(ctx); err == nil {
				err = admin.Join(ctx, block)
			}
		}
		return err == nil, fmt.Sprint(err)
	})
}

// caughtUp says whether an orderer has the blocks that the others had a moment ago.
func (o *Operator) caughtUp(ctx context.Context, address string) (bool, string) {
	now, _, err := o.now(ctx)
	if err != nil {
		return false, err.Error()
	}
	height := uint64(0)
	for _, m := range now {
		if m.Address != address {
			height = max(height, m.Height)
		}
	}
	admin, ok := o.Admin(address)
	if !ok {
		return false, "its admin port is not known"
	}
	info, err := admin.Info(ctx, o.Channel)
	if err != nil {
		return false, err.Error()
	}
	// Under load it is never quite there: the last blocks come while it is named.
	const close = 16
	return info.Status == "active" && info.Height > 0 && info.Height+close > height,
		fmt.Sprintf("it has %d of %d blocks and is %s", info.Height, height, info.Status)
}
