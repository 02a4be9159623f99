package contracthost

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Process is a contract's process that was started.
type Process interface {
	Done() <-chan struct{} // closed when it has ended
	Exit() error           // how, once it has ended
	Stop()                 // ends it, and returns when it has ended
}

// Start starts the process of a classic contract, which then registers.
type Start func() (Process, error)

// Launch has the host start a classic contract: when it is called and no process of it runs. A process that does not register in
// time, whose stream ends, or that nobody needs any more, is stopped.
func (h *Host) Launch(packageID string, start Start) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errors.New("contract host is closed")
	}
	c := h.contracts[packageID]
	if c == nil {
		c = &contract{id: packageID, changed: make(chan struct{})}
		h.contracts[packageID] = c
	} else {
		c.leave()
	}
	c.run = start
	c.announce()
	return nil
}

// launch is one process of a contract, from its start to its end.
type launch struct {
	stop    chan struct{} // closed: not wanted any more
	stopped sync.Once
	known   chan struct{} // closed: it has registered
	over    chan struct{} // closed when it has ended, after the fields below are set

	registered bool // belongs to Host.mu until over
	err        error
}

func (l *launch) end() { l.stopped.Do(func() { close(l.stop) }) }

// register is called with the host's lock.
func (l *launch) register() {
	if !l.registered {
		l.registered = true
		close(l.known)
	}
}

// start has the lock of the host.
func (h *Host) start(c *contract) {
	l := &launch{stop: make(chan struct{}), known: make(chan struct{}), over: make(chan struct{})}
	c.launch = l
	run := c.run
	h.run.Go(func() {
		err := h.follow(c.id, l, run)
		h.mu.Lock()
		defer h.mu.Unlock()
		l.err = err
		if c.launch == l {
			c.launch = nil
			if c.session == nil {
				c.lastErr = err
			}
		}
		close(l.over)
	})
}

// follow starts a process and is with it until it has ended; it tells why it did.
func (h *Host) follow(packageID string, l *launch, run Start) error {
	p, err := run()
	if err != nil {
		h.cfg.Log.Warn("contract cannot be started", "package", packageID, "error", err)
		return fmt.Errorf("error starting container: %w", err)
	}
	h.cfg.Log.Info("contract was started", "package", packageID)
	timer := time.NewTimer(h.cfg.LaunchTimeout)
	defer timer.Stop()
	known, late := l.known, timer.C
	for {
		select {
		case <-known:
			known, late = nil, nil
			continue
		case <-late:
			err = fmt.Errorf("timeout expired while starting chaincode %s for transaction", packageID)
		case <-l.stop:
			err = ErrStreamTerminated
		case <-h.ctx.Done():
			err = errors.New("contract host is closed")
		case <-p.Done():
			err = p.Exit()
		}
		p.Stop()
		h.cfg.Log.Info("contract's process has ended", "package", packageID, "reason", err)
		return err
	}
}
