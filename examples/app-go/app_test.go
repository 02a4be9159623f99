package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/hansa-ledger/hansa/client"
)

func TestSame(t *testing.T) {
	sent := `{"id":"A-1","pieces":3,"origin":{"city":"上海"},"tags":["a","b"]}`
	for got, want := range map[string]bool{
		`{"status":"created","tags":["a","b"],"origin":{"city":"上海"},"pieces":3,"id":"A-1"}`: true,
		`{"id":"A-1","pieces":3,"origin":{"city":"上海"},"tags":["b","a"]}`:                    false,
		`{"id":"A-1","pieces":4,"origin":{"city":"上海"},"tags":["a","b"]}`:                    false,
		`{"id":"A-1","pieces":3,"origin":{"city":"上海"}}`:                                     false,
		`not JSON`: false,
	} {
		if same([]byte(sent), []byte(got)) != want {
			t.Errorf("%s: not %t", got, want)
		}
	}
}

// Only what the contract or the ledger rejected is a rejection.
func TestReason(t *testing.T) {
	refused := func(code codes.Code, text string) error {
		return &client.Error{Step: "endorse", Code: code, Details: []client.Detail{{Message: text}}}
	}
	for _, test := range []struct {
		err  error
		want string
	}{
		{refused(codes.Aborted, "chaincode response 500, shipment A-1 already exists"), "duplicate id"},
		{refused(codes.Aborted, "shipment A-1 is held by Org2MSP, not by Org1MSP"), "wrong owner"},
		{refused(codes.Aborted, "argument order of Create: pieces is 0"), "invalid record"},
		{refused(codes.Unknown, "shipment A-1 does not exist"), "not found"},
		{refused(codes.Unavailable, "shipment A-1 already exists"), ""},
		{refused(codes.Aborted, "the contract died"), ""},
		{&client.CommitError{Status: client.Status{Code: "MVCC_READ_CONFLICT"}}, "MVCC_READ_CONFLICT"},
		{errors.New("already exists"), ""},
	} {
		if got := reason(test.err); got != test.want {
			t.Errorf("%v: %q, not %q", test.err, got, test.want)
		}
	}
}

func TestReadRecords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "records")
	for text, want := range map[string]string{
		"":                             "holds no records",
		"{\"id\":\"A\"}\n{oops}\n":     "line 2",
		"{\"id\":\"A\"}\n{\"id\":7}\n": "line 2",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readRecords(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, not %q", text, err, want)
		}
	}
}

// A follower that is started again goes on behind the last event it handled.
func TestCheckpoint(t *testing.T) {
	file := filepath.Join(t.TempDir(), "checkpoint")
	f, err := newFollower(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range savedEvery {
		if err := f.handle(client.Event{Block: uint64(i), TxID: "tx"}); err != nil {
			t.Fatal(err)
		}
	}
	again, err := newFollower(file)
	if err != nil || again.last != (position{savedEvery - 1, "tx"}) {
		t.Errorf("%+v %v", again, err)
	}
	if err := os.WriteFile(file, []byte("oops"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newFollower(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Error(err)
	}
}

func TestSummary(t *testing.T) {
	w := &work{tally: newTally()}
	w.tally.started = time.Now()
	for i := range 2000 {
		w.tally.commit("tx", time.Duration(i)*time.Millisecond)
	}
	w.tally.reject("wrong owner")
	w.tally.events = 2000
	w.tally.ended = w.tally.started.Add(4 * time.Second)
	s := w.summary()
	if s.TxPerS != 500 || s.P50Ms != 999 || s.P99Ms != 1979 || s.verdict() != nil {
		t.Errorf("%+v %v", s, s.verdict())
	}
	var out bytes.Buffer
	s.print(&out)
	if !strings.Contains(out.String(), "2,000 transactions, 500/s, p50 999 ms, p99 1979 ms") || !strings.Contains(out.String(), "1: wrong owner 1") {
		t.Error(out.String())
	}
	s.Lost = 1
	if s.verdict() == nil {
		t.Error("a lost shipment is all right")
	}
}
