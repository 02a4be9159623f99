package courier

import "github.com/prometheus/client_golang/prometheus"

// metrics count private write sets by channel. Channels are those that this peer has joined, so others cannot make up series.
type metrics struct {
	brought, fetched, reconciled, taken, given, denied *prometheus.CounterVec
}

func newMetrics() *metrics {
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "hansa_private_data_" + name + "_total", Help: help}, append([]string{"channel"}, labels...))
	}
	return &metrics{
		brought:    vector("brought", "Write sets brought to other peers, by whether these keep them.", "result"),
		fetched:    vector("fetched", "Write sets that other peers were asked for at the commit, by whether one had them.", "result"),
		reconciled: vector("reconciled", "Write sets that were missing and came later."),
		taken:      vector("taken", "Write sets that other peers brought, by whether they are kept.", "result"),
		given:      vector("given", "Write sets that other peers were given."),
		denied:     vector("denied", "Write sets that other peers asked for and may not have."),
	}
}

// Collectors are the courier's metrics.
func (c *Courier) Collectors() []prometheus.Collector {
	m := c.metrics
	return []prometheus.Collector{m.brought, m.fetched, m.reconciled, m.taken, m.given, m.denied}
}

// count counts under one of two results.
func count(v *prometheus.CounterVec, channelID string, ok bool) {
	result := "missed"
	if ok {
		result = "kept"
	}
	v.WithLabelValues(channelID, result).Inc()
}
