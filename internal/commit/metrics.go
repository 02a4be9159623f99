package commit

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hansa-ledger/hansa/internal/block"
	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

type metrics struct {
	height                           prometheus.Gauge
	refused                          prometheus.Counter
	transactions                     *prometheus.CounterVec
	verify, decide, private, persist prometheus.Histogram
}

func newMetrics(channelID string) *metrics {
	labels := prometheus.Labels{"channel": channelID}
	seconds := func(name, help string) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "hansa_commit_" + name + "_seconds", Help: help, ConstLabels: labels,
			Buckets: []float64{.0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 5}})
	}
	return &metrics{
		height:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "hansa_commit_height", Help: "Blocks in the ledger.", ConstLabels: labels}),
		refused:      prometheus.NewCounter(prometheus.CounterOpts{Name: "hansa_commit_refused_blocks_total", Help: "Blocks that were not the channel's next one.", ConstLabels: labels}),
		transactions: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_commit_transactions_total", Help: "Transactions committed, by validation code.", ConstLabels: labels}, []string{"code"}),
		verify:       seconds("verify", "Time to check a block's syntax and signatures."),
		decide:       seconds("decide", "Time to check a block's policies and conflicts."),
		private:      seconds("private", "Time to gather a block's private data."),
		persist:      seconds("persist", "Time to store a block."),
	}
}

// Collectors are the channel's metrics.
func (c *Channel) Collectors() []prometheus.Collector {
	m := c.metrics
	return []prometheus.Collector{m.height, m.refused, m.transactions, m.verify, m.decide, m.private, m.persist}
}

func (m *metrics) committed(b *block.Parsed, codes []byte, decide, private, persist time.Duration) {
	m.height.Set(float64(b.Header.Number + 1))
	for _, code := range codes {
		m.transactions.WithLabelValues(peerpb.TxValidationCode(code).String()).Inc()
	}
	m.decide.Observe(decide.Seconds())
	m.private.Observe(private.Seconds())
	m.persist.Observe(persist.Seconds())
}
