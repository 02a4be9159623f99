package order_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/order"
	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

func TestCutLimits(t *testing.T) {
	for _, tt := range []struct {
		in   []int
		want string
	}{
		{[]int{10, 10, 10}, "[] [] [[10 10 10]]"},          // three envelopes are a batch
		{[]int{60, 60}, "[] [[60]]"},                       // the second would exceed the preferred 100 bytes
		{[]int{60, 40, 1}, "[] [] [[60 40]]"},              // up to and including them
		{[]int{150}, "[[150]]"},                            // too large to share a batch
		{[]int{10, 150, 10}, "[] [[10] [150]] []"},         // and what waited goes first
		{[]int{60, 60, 30, 5}, "[] [[60]] [] [[60 30 5]]"}, // the batch begun by an overflow fills too
	} {
		c := order.NewCutter(&ordererpb.BatchSize{MaxMessageCount: 3, PreferredMaxBytes: 100}, time.Second, 0, 0)
		var got []string
		for _, size := range tt.in {
			got = append(got, fmt.Sprint(c.Add(size, time.Time{})))
		}
		if s := fmt.Sprint(got); s != "["+tt.want+"]" {
			t.Errorf("%v: %s, want [%s]", tt.in, s, tt.want)
		}
	}
}

func TestCutTime(t *testing.T) {
	const ms = time.Millisecond
	start := time.Unix(1000, 0)
	for _, tt := range []struct {
		name     string
		before   int // size of the batch before
		arrivals []time.Duration
		idle     bool
		timeout  time.Duration
		want     time.Duration // after the start
	}{
		{"alone", 0, []time.Duration{0}, true, time.Second, 0},
		{"alone while a block is on its way", 0, []time.Duration{0}, false, time.Second, time.Second},
		{"a few", 0, []time.Duration{0, ms, 2 * ms}, true, time.Second, 0},
		{"seldom", 0, []time.Duration{0, 6 * ms, 12 * ms, 18 * ms, 24 * ms, 30 * ms}, true, time.Second, 0},
		{"a burst waits for its end", 0, []time.Duration{0, ms, 2 * ms, 3 * ms, 4 * ms}, true, time.Second, 6 * ms},
		{"and longer for one as large as the last", 6, []time.Duration{0, ms, 2 * ms, 3 * ms, 4 * ms}, true, time.Second, 14 * ms},
		{"unless it is as large", 5, []time.Duration{0, ms, 2 * ms, 3 * ms, 4 * ms}, true, time.Second, 6 * ms},
		{"a long burst for the linger", 0, []time.Duration{0, 5 * ms, 10 * ms, 15 * ms, 20 * ms, 25 * ms, 30 * ms, 35 * ms, 40 * ms, 45 * ms, 49 * ms}, true, time.Second, 50 * ms},
		{"and never beyond the timeout", 0, []time.Duration{0, ms, 2 * ms, 3 * ms, 4 * ms}, true, 5 * ms, 5 * ms},
	} {
		c := order.NewCutter(&ordererpb.BatchSize{MaxMessageCount: 100, PreferredMaxBytes: 1 << 20}, tt.timeout, 50*ms, 10*ms)
		for range tt.before {
			c.Add(1, start.Add(-time.Second))
		}
		c.Cut()
		if _, ok := c.Due(true); ok {
			t.Error("an empty batch is due")
		}
		for _, at := range tt.arrivals {
			c.Add(1, start.Add(at))
		}
		at, ok := c.Due(tt.idle)
		if got := at.Sub(start); !ok || got != tt.want {
			t.Errorf("%s: due after %v, want %v", tt.name, got, tt.want)
		}
		if got := len(c.Cut()); got != len(tt.arrivals) {
			t.Errorf("%s: cut %d of %d", tt.name, got, len(tt.arrivals))
		}
	}
}

// The block built in one pass is what the protobuf library and package block would have made.
func TestBuildBlock(t *testing.T) {
	envs := []*commonpb.Envelope{{Payload: []byte("p"), Signature: bytes.Repeat([]byte{1}, 200)}, {Payload: bytes.Repeat([]byte{2}, 40000)}, {}}
	var data [][]byte
	for _, e := range envs {
		raw, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, raw)
	}
	want := block.New(300, bytes.Repeat([]byte{7}, 32), data)
	want.Metadata = nil
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if got := order.BuildBlock(300, want.Header.PreviousHash, envs); !bytes.Equal(got, raw) {
		t.Errorf("block is\n%.200x, want\n%.200x", got, raw)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(order.BuildBlock(1, make([]byte, 32), []*commonpb.Envelope{{Payload: []byte("p"), Signature: []byte("s")}}))
	f.Add([]byte{10, 2, 10, 0})
	f.Fuzz(func(t *testing.T, raw []byte) { order.Decode(raw) })
}
