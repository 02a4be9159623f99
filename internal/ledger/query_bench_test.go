package ledger_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/hansa-ledger/hansa/internal/ledger"
)

var documents = flag.Int("documents", 100_000, "how many documents BenchmarkQuery asks")

// BenchmarkQuery asks documents of 200 bytes with an owner each, ten of an owner. Building counts the time to index documents that
// are there, committing with and without indexes that to add a hundredth more.
func BenchmarkQuery(b *testing.B) {
	l := open(b, ledger.Config{Dir: b.TempDir()})
	document := func(i int) string {
		return fmt.Sprintf(`k%08d={"docType":"asset","owner":"owner-%07d","size":%d,"color":"%s","price":%d.25,"tags":["a","b"],"place":{"city":"City %d","zip":"%05d"},"text":"%0*d"}`,
			i, i*7919%*documents/10, i%100, []string{"red", "green", "blue"}[i%3], i%5000, i%977, i%99999, 40, i)
	}
	add := func(from, n int) {
		for at := from; at < from+n; at += 2000 {
			var writes []string
			for i := at; i < min(at+2000, from+n); i++ {
				writes = append(writes, document(i))
			}
			commit(b, l, writes)
		}
	}
	start := time.Now()
	add(0, *documents)
	b.Logf("%d documents committed in %v", *documents, time.Since(start))
	count := func(want int, query, bookmark string, limit int) {
		b.Helper()
		s := l.NewSnapshot()
		defer s.Close()
		r, err := s.Query("cc", "", query, bookmark)
		if err != nil {
			b.Fatal(err)
		}
		defer r.Close()
		n := 0
		for ; n < limit; n++ {
			_, _, ok, err := r.Next()
			if err != nil {
				b.Fatal(err)
			}
			if !ok {
				break
			}
		}
		if n != want {
			b.Fatalf("%s: %d results, want %d", query, n, want)
		}
	}
	owner := func(i int) string { return fmt.Sprintf(`{"selector":{"owner":"owner-%07d"}}`, i%(*documents/10)) }
	b.Run("unindexed", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			count(10, owner(i), "", 100)
		}
		b.ReportMetric(float64(*documents)*float64(b.N)/b.Elapsed().Seconds(), "documents/s")
	})
	start = time.Now()
	add(*documents, *documents/100)
	plain := time.Since(start)
	start = time.Now()
	if err := l.DefineIndexes("cc", []ledger.IndexDefinition{
		{JSON: []byte(`{"index":{"fields":["owner"]},"ddoc":"owner","name":"owner"}`)},
		{JSON: []byte(`{"index":{"fields":["color","size"]},"ddoc":"color","name":"color"}`)},
	}); err != nil {
		b.Fatal(err)
	}
	if err := l.WaitIndexes(b.Context()); err != nil {
		b.Fatal(err)
	}
	built := time.Since(start)
	start = time.Now()
	add(*documents*101/100, *documents/100)
	b.Logf("two indexes built in %v; %d documents committed in %v without, in %v with them", built, *documents/100, plain, time.Since(start))
	b.Run("indexed", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			s := l.NewSnapshot()
			r, err := s.Query("cc", "", owner(i), "")
			if err != nil {
				b.Fatal(err)
			}
			n := 0
			for {
				_, _, ok, err := r.Next()
				if err != nil {
					b.Fatal(err)
				}
				if !ok {
					break
				}
				n++
			}
			if n < 10 {
				b.Fatalf("%d results", n)
			}
			r.Close()
			s.Close()
		}
	})
	b.Run("page of 100 sorted", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			count(100, fmt.Sprintf(`{"selector":{"color":"blue","size":{"$gte":%d}},"sort":["color","size"]}`, i%90), "", 100)
		}
	})
}
