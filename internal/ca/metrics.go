package ca

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	requests     *prometheus.CounterVec
	seconds      *prometheus.HistogramVec
	issued       *prometheus.CounterVec
	revoked      prometheus.Counter
	authFailures prometheus.Counter
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_ca_requests_total", Help: "Requests to the certificate authority, by endpoint and HTTP status."}, []string{"endpoint", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hansa_ca_request_duration_seconds", Help: "Time to answer a request, by endpoint.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12)}, []string{"endpoint"}),
		issued: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hansa_ca_certificates_issued_total", Help: "Certificates issued, by profile."}, []string{"profile"}),
		revoked: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_ca_certificates_revoked_total", Help: "Certificates revoked by request."}),
		authFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "hansa_ca_authentication_failures_total", Help: "Requests whose caller could not be authenticated."}),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.seconds, m.issued, m.revoked, m.authFailures}
}
