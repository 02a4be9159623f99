package ledger

import "sync"

// recentTxs answers most questions after a transaction id without the disk's
// index, whose structure makes a miss as dear as a hit: those after ids that were
// committed lately (a client that waits for its commit status), and those after
// ids that were looked for in vain before (a transaction is looked up when it
// is endorsed and again when it is validated).
//
// It remembers the ids of the newest blocks whole, so an id that was missing at
// some height is known to be missing still if the blocks since are remembered.
type recentTxs struct {
	mu     sync.Mutex
	from   uint64 // every id of the blocks from here on is in places
	places map[string]txPlace
	order  []placed // oldest first
	absent map[string]uint64
	asked  []string // of absent, a ring
	next   int
}

type placed struct {
	id    string
	block uint64
}

// maxRecentTxs bounds both memories, at about 200 bytes an id.
const maxRecentTxs = 1 << 15

func newRecentTxs(height uint64) *recentTxs {
	return &recentTxs{from: height, places: map[string]txPlace{}, absent: map[string]uint64{}, asked: make([]string, maxRecentTxs)}
}

// add remembers what a block added to the index.
func (r *recentTxs) add(added map[string]txPlace) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, p := range added {
		r.places[id] = p
		r.order = append(r.order, placed{id, p.block})
		delete(r.absent, id)
	}
	for len(r.order) > maxRecentTxs { // whole blocks at a time
		r.from = r.order[0].block + 1
		n := 0
		for n < len(r.order) && r.order[n].block < r.from {
			delete(r.places, r.order[n].id)
			n++
		}
		r.order = r.order[n:]
	}
}

// look finds an id: known says that the answer is certain, found which it is.
func (r *recentTxs) look(id string) (p txPlace, found, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, found = r.places[id]; found {
		return p, true, true
	}
	height, missed := r.absent[id]
	return txPlace{}, false, missed && height >= r.from
}

// miss remembers that an id was in no block below height.
func (r *recentTxs) miss(id string, height uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, again := r.absent[id]; !again {
		delete(r.absent, r.asked[r.next])
		r.asked[r.next] = id
		r.next = (r.next + 1) % len(r.asked)
	}
	r.absent[id] = height
}
