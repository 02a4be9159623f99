package contracthost

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
	"github.com/hansa-ledger/hansa/internal/wire/queryresultpb"
	"google.golang.org/protobuf/proto"
)

// batchSize is how many results go to a contract in one message. One more is read ahead to know whether there are more. Both are
// Fabric's, and must be: what was read from a range, not what the contract looked at, is in the read set that endorsers compare.
const batchSize = 100

// query is an open iterator of a call.
type query struct {
	next     func() ([]byte, error) // the next result, serialized; nil at the end
	bookmark func() string          // set for pages
	close    func()
	limit    int32 // results that may be given in all
	given    int32
	ahead    []byte // read, but not given
}

func (c *call) rangeQuery(m *peerpb.ChaincodeMessage) ([]byte, error) {
	var r peerpb.GetStateByRange
	if err := decode(m, &r); err != nil {
		return nil, err
	}
	page, err := pageOf(r.Metadata)
	if err != nil {
		return nil, err
	}
	if err := c.mayOpen(r.Collection); err != nil {
		return nil, err
	}
	if r.Collection == "" && isPage(page) {
		start := r.StartKey
		if page.Bookmark != "" {
			start = page.Bookmark
		}
		it, err := c.Backend.RangePage(start, r.EndKey, page.PageSize)
		return c.openState(it, err, page, true)
	}
	it, err := c.Backend.Range(r.Collection, r.StartKey, r.EndKey)
	return c.openState(it, err, page, false)
}

func (c *call) richQuery(ctx context.Context, m *peerpb.ChaincodeMessage) ([]byte, error) {
	var r peerpb.GetQueryResult
	if err := decode(m, &r); err != nil {
		return nil, err
	}
	page, err := pageOf(r.Metadata)
	if err != nil {
		return nil, err
	}
	if err := c.mayOpen(r.Collection); err != nil {
		return nil, err
	}
	if r.Collection == "" && isPage(page) {
		it, err := c.Backend.QueryPage(r.Query, page.Bookmark, page.PageSize)
		stopWith(ctx, it)
		return c.openState(it, err, page, true)
	}
	it, err := c.Backend.Query(r.Collection, r.Query)
	stopWith(ctx, it)
	return c.openState(it, err, page, false)
}

// stopWith has a query end with its call, if the query can: to find a result may take longer than a call may.
func stopWith(ctx context.Context, it StateIterator) {
	if q, ok := it.(interface{ StopWhen(func() bool) }); ok {
		q.StopWhen(func() bool { return ctx.Err() != nil })
	}
}

func (c *call) historyQuery(m *peerpb.ChaincodeMessage) ([]byte, error) {
	var r peerpb.GetHistoryForKey
	if err := decode(m, &r); err != nil {
		return nil, err
	}
	if err := c.mayOpen(""); err != nil {
		return nil, err
	}
	it, err := c.Backend.History(r.Key)
	if err != nil {
		return nil, err
	}
	return c.open(&query{
		next: func() ([]byte, error) {
			change, err := it.Next()
			if change == nil || err != nil {
				return nil, err
			}
			return proto.Marshal(change)
		},
		close: it.Close,
		limit: c.limits.QueryLimit,
	})
}

func (c *call) openState(it StateIterator, err error, page *peerpb.QueryMetadata, paged bool) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	row := &queryresultpb.KV{Namespace: c.Namespace}
	q := &query{
		next: func() ([]byte, error) {
			key, value, ok, err := it.Next()
			if !ok || err != nil {
				return nil, err
			}
			row.Key, row.Value = key, value
			return proto.Marshal(row)
		},
		close: it.Close,
		limit: c.limits.QueryLimit,
	}
	if page != nil && page.PageSize > 0 {
		q.limit = min(q.limit, page.PageSize)
	}
	if paged {
		q.bookmark = it.Bookmark
	}
	return c.open(q)
}

func (c *call) mayOpen(collection string) error {
	if err := c.mayUse(collection); err != nil {
		return err
	}
	if len(c.queries) >= c.limits.MaxIterators {
		return fmt.Errorf("the transaction has %d queries open, which is the most it may: close iterators that are done with", len(c.queries))
	}
	return nil
}

// open registers a query and gives its first results.
func (c *call) open(q *query) ([]byte, error) {
	c.issued++
	id := strconv.Itoa(c.issued)
	if c.queries == nil {
		c.queries = map[string]*query{}
	}
	c.queries[id] = q
	return c.results(id, q)
}

func (c *call) nextResults(m *peerpb.ChaincodeMessage) ([]byte, error) {
	var r peerpb.QueryStateNext
	if err := decode(m, &r); err != nil {
		return nil, err
	}
	q := c.queries[r.Id]
	if q == nil {
		return nil, errors.New("query iterator not found")
	}
	return c.results(r.Id, q)
}

func (c *call) closeQuery(m *peerpb.ChaincodeMessage) ([]byte, error) {
	var r peerpb.QueryStateClose
	if err := decode(m, &r); err != nil {
		return nil, err
	}
	c.forget(r.Id)
	return proto.Marshal(&peerpb.QueryResponse{Id: r.Id})
}

// results gives the next batch of a query, and closes the query after its last.
func (c *call) results(id string, q *query) ([]byte, error) {
	response := &peerpb.QueryResponse{Id: id}
	if q.ahead != nil {
		response.Results = append(response.Results, &peerpb.QueryResultBytes{ResultBytes: q.ahead})
		q.ahead = nil
	}
	// The limit is looked at before reading, so that a full page reads nothing that it does not give.
	for q.given < q.limit {
		result, err := q.next()
		if err != nil {
			c.forget(id)
			return nil, err
		}
		if result == nil {
			break
		}
		q.given++
		// A page is one message, whatever its size.
		if q.bookmark == nil && len(response.Results) == batchSize {
			q.ahead = result
			response.HasMore = true
			return proto.Marshal(response)
		}
		response.Results = append(response.Results, &peerpb.QueryResultBytes{ResultBytes: result})
	}
	if q.bookmark != nil {
		metadata, err := proto.Marshal(&peerpb.QueryResponseMetadata{FetchedRecordsCount: q.given, Bookmark: q.bookmark()})
		if err != nil {
			c.forget(id)
			return nil, err
		}
		response.Metadata = metadata
	}
	c.forget(id)
	return proto.Marshal(response)
}

func (c *call) forget(id string) {
	if q := c.queries[id]; q != nil {
		delete(c.queries, id)
		q.close()
	}
}

func (c *call) closeQueries() {
	for id := range c.queries {
		c.forget(id)
	}
}

func pageOf(raw []byte) (*peerpb.QueryMetadata, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	page := &peerpb.QueryMetadata{}
	if err := proto.Unmarshal(raw, page); err != nil {
		return nil, fmt.Errorf("unmarshal failed: %w", err)
	}
	return page, nil
}

func isPage(p *peerpb.QueryMetadata) bool {
	return p != nil && (p.PageSize != 0 || p.Bookmark != "")
}
