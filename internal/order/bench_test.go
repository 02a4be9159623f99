package order_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"github.com/hansa-ledger/hansa/internal/wire/commonpb"
	"github.com/hansa-ledger/hansa/internal/wire/ordererpb"
)

// BenchmarkBroadcast is one envelope of 4 kB on a persistent stream, many streams at a time, client included.
func BenchmarkBroadcast(b *testing.B) {
	n := newNetwork(b)
	o := n.startJoined(b)
	text := make([]byte, 3000)
	envs := make([]*commonpb.Envelope, 2000)
	for i := range envs {
		envs[i] = message(b, n.user, channelID, fmt.Sprint(i, string(text)))
	}
	var at atomic.Int64
	b.SetParallelism(32)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var stream grpc.BidiStreamingClient[commonpb.Envelope, ordererpb.BroadcastResponse]
		stream, err := o.client.Broadcast(b.Context())
		if err != nil {
			b.Error(err)
			return
		}
		for pb.Next() {
			if err := stream.Send(envs[int(at.Add(1))%len(envs)]); err != nil {
				b.Error(err)
				return
			}
			if r, err := stream.Recv(); err != nil || r.Status != commonpb.Status_SUCCESS {
				b.Error(r, err)
				return
			}
		}
	})
	c, _ := o.Channel(channelID)
	b.ReportMetric(float64(b.N)/float64(c.Height()-1), "envelopes/block")
}
