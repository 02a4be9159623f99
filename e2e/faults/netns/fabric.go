package netns

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Link is how a link treats what goes from one host to another. The zero value is a good one.
type Link struct {
	Cut       bool
	Delay     time.Duration
	Jitter    time.Duration // up to so much more or less; frames stay in order but for Reorder
	Loss      float64       // share of the frames
	Duplicate float64
	Reorder   float64 // share that overtakes what is under way
	Rate      int     // bytes a second; 0 is any number
}

// String is for people.
func (l Link) String() string {
	if l.Cut {
		return "cut"
	}
	text := ""
	add := func(format string, args ...any) {
		if text != "" {
			text += " "
		}
		text += fmt.Sprintf(format, args...)
	}
	if l.Delay > 0 {
		add("%v±%v", l.Delay, l.Jitter)
	}
	for _, share := range []struct {
		name  string
		value float64
	}{{"loss", l.Loss}, {"duplicate", l.Duplicate}, {"reorder", l.Reorder}} {
		if share.value > 0 {
			add("%s %.0f %%", share.name, 100*share.value)
		}
	}
	if l.Rate > 0 {
		add("%d kB/s", l.Rate/1000)
	}
	return text
}

// longest is how much a link with a rate keeps waiting; what comes then is lost.
const longest = 300 * time.Millisecond

// link is one direction between two hosts.
type link struct {
	to *Host

	mu      sync.Mutex
	is      Link       // guarded by mu
	dice    *rand.Rand // guarded by mu
	free    time.Time  // when the rate lets the next frame go; guarded by mu
	last    time.Time  // when the newest frame under way arrives; guarded by mu
	queue   []underway // by arrival; guarded by mu
	timer   *time.Timer
	carried uint64 // bytes; guarded by mu
}

type underway struct {
	due   time.Time
	frame []byte
}

// Set makes the direction from one host to another as l says; what is under way arrives.
func (n *Network) Set(from, to *Host, l Link) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	link := n.links[[2]int{from.index, to.index}]
	link.mu.Lock()
	defer link.mu.Unlock()
	link.is = l
	link.free = time.Time{}
}

// Heal makes all links good.
func (n *Network) Heal() {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, link := range n.links {
		link.mu.Lock()
		link.is = Link{}
		link.mu.Unlock()
	}
}

// Seed sets the dice.
func (n *Network) Seed(seed uint64) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for key, link := range n.links {
		link.mu.Lock()
		link.dice = rand.New(rand.NewPCG(seed, uint64(key[0]<<16|key[1])))
		link.mu.Unlock()
	}
}

// Carried is how many bytes have gone from one host to another.
func (n *Network) Carried(from, to *Host) uint64 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	link := n.links[[2]int{from.index, to.index}]
	link.mu.Lock()
	defer link.mu.Unlock()
	return link.carried
}

// carry brings what a host sends to where it should go.
func (n *Network) carry(h *Host) {
	buffer := make([]byte, 1<<16)
	for {
		size, err := h.end.Read(buffer)
		if err != nil {
			return
		}
		if size < 14 {
			continue
		}
		n.mu.RLock()
		var out *link
		if to := n.byMAC[[6]byte(buffer[:6])]; to != nil {
			out = n.links[[2]int{h.index, to.index}]
		}
		n.mu.RUnlock()
		if out != nil {
			out.take(buffer[:size])
		}
	}
}

func (l *link) take(frame []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.is == (Link{}) && len(l.queue) == 0 {
		l.put(frame)
		return
	}
	if l.dice == nil {
		l.dice = rand.New(rand.NewPCG(0, 0))
	}
	if l.is.Cut || l.dice.Float64() < l.is.Loss {
		return
	}
	copies := 1
	if l.dice.Float64() < l.is.Duplicate {
		copies = 2
	}
	for range copies {
		l.send(slices.Clone(frame))
	}
}

// send puts a frame under way; the caller holds mu.
func (l *link) send(frame []byte) {
	due := time.Now()
	if l.is.Rate > 0 {
		if l.free.Before(due) {
			l.free = due
		}
		if l.free.Sub(due) > longest {
			return
		}
		l.free = l.free.Add(time.Duration(len(frame)) * time.Second / time.Duration(l.is.Rate))
		due = l.free
	}
	if l.dice.Float64() >= l.is.Reorder {
		due = due.Add(l.is.Delay)
		if l.is.Jitter > 0 {
			due = due.Add(time.Duration(l.dice.Int64N(int64(2*l.is.Jitter))) - l.is.Jitter)
		}
		if due.Before(l.last) {
			due = l.last
		}
		l.last = due
	}
	at, _ := slices.BinarySearchFunc(l.queue, due, func(u underway, due time.Time) int {
		if u.due.After(due) {
			return 1
		}
		return -1
	})
	l.queue = slices.Insert(l.queue, at, underway{due, frame})
	if at > 0 {
		return
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(time.Until(due), l.arrive)
	} else {
		l.timer.Reset(time.Until(due))
	}
}

func (l *link) arrive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	sent := 0
	for sent < len(l.queue) && !l.queue[sent].due.After(now) {
		l.put(l.queue[sent].frame)
		sent++
	}
	l.queue = slices.Delete(l.queue, 0, sent)
	if len(l.queue) > 0 {
		l.timer.Reset(time.Until(l.queue[0].due))
	}
}

// put lets a frame arrive; the caller holds mu. One that the kernel has no room for is lost, as it would be on a wire.
func (l *link) put(frame []byte) {
	if _, err := l.to.end.Write(frame); err == nil {
		l.carried += uint64(len(frame))
	}
}
