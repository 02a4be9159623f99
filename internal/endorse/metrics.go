package endorse

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hansa-ledger/hansa/internal/wire/peerpb"
)

// metrics have the names that Fabric's peers give them, so that dashboards go on working. Labels carry names of
// channels and contracts only where these are known to exist: clients cannot make up series.
type metrics struct {
	received, successful, invalid prometheus.Counter
	denied, duplicate, failed     *prometheus.CounterVec
	duration                      *prometheus.HistogramVec
}

func newMetrics() *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "endorser", Name: name, Help: help})
	}
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "endorser", Name: name, Help: help}, labels)
	}
	return &metrics{
		received:   counter("proposals_received", "The number of proposals received."),
		successful: counter("successful_proposals", "The number of successful proposals."),
		invalid:    counter("proposal_validation_failures", "The number of proposals that have failed initial validation."),
		denied:     vector("proposal_acl_failures", "The number of proposals that failed ACL checks.", "channel"),
		duplicate:  vector("duplicate_transaction_failures", "The number of failed proposals due to duplicate transaction ID.", "channel"),
		failed:     vector("proposal_simulation_failures", "The number of proposals that failed to run.", "channel"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "endorser", Name: "proposal_duration", Help: "The time to complete a proposal, in seconds.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"channel", "chaincode", "success"}),
	}
}

// Collectors are the endorser's metrics.
func (e *Endorser) Collectors() []prometheus.Collector {
	m := e.metrics
	return []prometheus.Collector{m.received, m.successful, m.invalid, m.denied, m.duplicate, m.failed, m.duration}
}

// answered counts a proposal that its contract answered, whatever it said.
func (m *metrics) answered(p *proposal, response *peerpb.ProposalResponse, took time.Duration) {
	success := response.Endorsement != nil || p.channelID == ""
	if success {
		m.successful.Inc()
	}
	m.duration.WithLabelValues(p.channelID, p.contract, strconv.FormatBool(success)).Observe(took.Seconds())
}
