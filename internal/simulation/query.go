package simulation

import (
	"errors"
	"fmt"

	"github.com/hansa-ledger/hansa/internal/rwset"
	"github.com/hansa-ledger/hansa/internal/wire/kvrwsetpb"
	"github.com/hansa-ledger/hansa/internal/wire/queryresultpb"
)

// Range opens a query over keys from start to before end; an empty end means to the end of the namespace.
func (s *Simulator) Range(namespace, start, end string) (*Query, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	return s.openRange(namespace, start, end, 0)
}

// RangePage is Range for at most pageSize results (0 or less: no limit) with a bookmark afterwards. It makes the
// transaction read-only, because a page cannot be validated.
func (s *Simulator) RangePage(namespace, start, end string, pageSize int32) (*Query, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	if s.written {
		return nil, fmt.Errorf("txid [%s]: unsuppored transaction. Paginated queries are supported only in a read-only transaction", s.cfg.TxID)
	}
	s.paginated = true
	return s.openRange(namespace, start, end, pageSize)
}

func (s *Simulator) openRange(namespace, start, end string, pageSize int32) (*Query, error) {
	if len(s.queries) >= maxQueries {
		return nil, fmt.Errorf("txid [%s]: more than %d range queries in one transaction", s.cfg.TxID, maxQueries)
	}
	it, err := s.cfg.Snapshot.Range(namespace, start, end)
	if err != nil {
		return nil, err
	}
	results, err := rwset.NewRangeResults(rwset.MaxDegree)
	if err != nil {
		return nil, err
	}
	s.namespaces[namespace] = true
	q := &Query{sim: s, it: it, end: end, limit: pageSize, namespace: namespace, info: &kvrwsetpb.RangeQueryInfo{StartKey: start}, results: results}
	s.queries = append(s.queries, q)
	return q, nil
}

// Query is an open query. It is closed with the simulation at the latest.
type Query struct {
	sim       *Simulator
	it        StateIterator
	closed    bool
	namespace string
	end       string
	limit     int32 // of a page
	given     int32
	info      *kvrwsetpb.RangeQueryInfo // nil for private and JSON queries
	results   *rwset.RangeResults
	read      bool          // results are reads
	bookmark  func() string // of JSON queries
}

// Next gives the next result. That the query was exhausted is recorded only when a caller asked for one more.
func (q *Query) Next() (key string, value []byte, ok bool, err error) {
	defer q.sim.mu.Unlock()
	if err := q.sim.enter(); err != nil {
		return "", nil, false, err
	}
	if q.closed {
		return "", nil, false, errors.New("query iterator not found")
	}
	var v *rwset.VersionedValue
	if q.limit <= 0 || q.given < q.limit {
		if key, v, ok, err = q.it.Next(); err != nil {
			return "", nil, false, err
		}
	}
	if !ok {
		if q.info != nil {
			q.info.ItrExhausted, q.info.EndKey = true, q.end
		}
		return "", nil, false, nil
	}
	q.given++
	if q.read {
		if err := q.sim.charge(len(key)); err != nil {
			return "", nil, false, err
		}
		q.sim.builder.AddRead(q.namespace, key, &v.Version)
	}
	if q.info != nil {
		q.results.Add(key, v.Version)
		q.info.EndKey = key
	}
	return key, v.Value, true, nil
}

// StopWhen makes Next fail, be it under way, when the function says so. It is for JSON queries, which may look for a result for long.
func (q *Query) StopWhen(stop func() bool) {
	if documents, ok := q.it.(DocumentIterator); ok {
		documents.StopWhen(stop)
	}
}

// Bookmark is where the page after this one starts; at the end it is empty, or for JSON queries where an empty page is. It
// closes the query.
func (q *Query) Bookmark() string {
	q.sim.mu.Lock()
	defer q.sim.mu.Unlock()
	if q.closed || q.sim.done {
		return ""
	}
	if q.bookmark != nil {
		q.close()
		return q.bookmark()
	}
	key, _, ok, err := q.it.Next()
	q.close()
	if !ok || err != nil {
		return ""
	}
	return key
}

// Close releases the query. What it fetched stays recorded.
func (q *Query) Close() {
	q.sim.mu.Lock()
	defer q.sim.mu.Unlock()
	q.close()
}

func (q *Query) close() {
	if !q.closed {
		q.closed = true
		_ = q.it.Close() // what matters was read
	}
}

// History opens the history of a key. It is not recorded. What is still open when the simulation ends is closed then.
func (s *Simulator) History(namespace, key string) (HistoryIterator, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	if len(s.histories) >= maxQueries {
		return nil, fmt.Errorf("txid [%s]: more than %d histories in one transaction", s.cfg.TxID, maxQueries)
	}
	it, err := s.cfg.Snapshot.History(namespace, key)
	if err != nil {
		return nil, err
	}
	h := &history{sim: s, it: it}
	s.histories = append(s.histories, h)
	return h, nil
}

type history struct {
	sim    *Simulator
	it     HistoryIterator
	closed bool
}

func (h *history) Next() (*queryresultpb.KeyModification, error) {
	defer h.sim.mu.Unlock()
	if err := h.sim.enter(); err != nil {
		return nil, err
	}
	if h.closed {
		return nil, errors.New("query iterator not found")
	}
	return h.it.Next()
}

func (h *history) Close() error {
	h.sim.mu.Lock()
	defer h.sim.mu.Unlock()
	return h.close()
}

func (h *history) close() error {
	if h.closed {
		return nil
	}
	h.closed = true
	return h.it.Close()
}

// ExecuteQuery opens a JSON query. Each result that is given is recorded as a read; documents that the query would select when the
// transaction is validated are not looked for, as in Fabric.
func (s *Simulator) ExecuteQuery(namespace, query string) (*Query, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	return s.openQuery(namespace, "", query, "", 0)
}

// ExecuteQueryPage is ExecuteQuery for at most pageSize results (0 or less: no limit) from a bookmark, with the next bookmark afterwards.
// It makes the transaction read-only.
func (s *Simulator) ExecuteQueryPage(namespace, query, bookmark string, pageSize int32) (*Query, error) {
	defer s.mu.Unlock()
	if err := s.enter(); err != nil {
		return nil, err
	}
	if s.written {
		return nil, fmt.Errorf("txid [%s]: unsuppored transaction. Paginated queries are supported only in a read-only transaction", s.cfg.TxID)
	}
	s.paginated = true
	return s.openQuery(namespace, "", query, bookmark, pageSize)
}

func (s *Simulator) openQuery(namespace, collection, query, bookmark string, limit int32) (*Query, error) {
	if len(s.queries) >= maxQueries {
		return nil, fmt.Errorf("txid [%s]: more than %d queries in one transaction", s.cfg.TxID, maxQueries)
	}
	documents, ok := s.cfg.Snapshot.(Documents)
	if !ok {
		return nil, errors.New("ExecuteQuery not supported for leveldb")
	}
	it, err := documents.Query(namespace, collection, query, bookmark)
	if err != nil {
		return nil, err
	}
	s.namespaces[namespace] = true
	q := &Query{sim: s, it: it, limit: limit, namespace: namespace, read: collection == "", bookmark: it.Bookmark}
	s.queries = append(s.queries, q)
	return q, nil
}
