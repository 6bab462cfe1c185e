package metrics

import (
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// The phases of a transition, in their order. A failover has detect, prove, elect (if the leader died), commit and acquire; a
// planned move has commit, release and acquire.
const (
	PhaseDetect  = "detect"  // from the last sign of life until the node is taken for lost
	PhaseProve   = "prove"   // until its death is proven
	PhaseElect   = "elect"   // from the old leader's last sign until the new one can decide
	PhaseCommit  = "commit"  // from the decision until it is committed
	PhaseAcquire = "acquire" // from the committed decision until the group is online
	PhaseRelease = "release" // from the committed decision until the group is offline
)

// Phases lists all phases.
var Phases = []string{PhaseDetect, PhaseProve, PhaseElect, PhaseCommit, PhaseAcquire, PhaseRelease}

// Metrics holds the instruments of one agent.
type Metrics struct {
	registry *prometheus.Registry
	source   atomic.Pointer[func() Sample]

	leads            atomic.Bool
	leading          prometheus.Gauge
	leaderChanges    prometheus.Counter
	leaseGrants      prometheus.Counter
	leaseRefusals    prometheus.Counter
	leaseRoundTrip   prometheus.Histogram
	phases           *prometheus.HistogramVec
	executorRuns     *prometheus.CounterVec
	executorFailures *prometheus.CounterVec
	executorTime     *prometheus.HistogramVec
	events           *prometheus.CounterVec
}

// New makes the instruments, in a registry of their own; version is the product's.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		leading:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "holdfast_leading", Help: "Whether this node leads the cluster (1) or not (0)."}),
		leaderChanges: prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_leadership_changes_total",
			Help: "How often this node began or ceased to lead the cluster."}),
		leaseGrants:   prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_lease_grants_total", Help: "Leases granted to this node."}),
		leaseRefusals: prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_lease_refusals_total", Help: "Requests for a lease that brought none."}),
		leaseRoundTrip: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "holdfast_lease_request_duration_seconds",
			Help: "Time from the request for a lease until the grant was there.", Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1}}),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "holdfast_transition_duration_seconds",
			Help:    "Time that the phases of failovers and moves took: detect, prove, elect, commit, acquire, release.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 180}}, []string{"phase"}),
		executorRuns: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_executor_runs_total",
			Help: "Starts and stops of resources that were run here, by the kind of resource."}, []string{"kind"}),
		executorFailures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_executor_failures_total",
			Help: "Starts and stops of resources that failed here, by the kind of resource."}, []string{"kind"}),
		executorTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "holdfast_executor_duration_seconds",
			Help:    "Time that starts and stops of resources took here, by the kind of resource and the operation.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 180}}, []string{"kind", "operation"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_events_total", Help: "Cluster events seen by this node, by name."}, []string{"event"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "holdfast_build_info", Help: "Always 1; the labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}})
	build.Set(1)
	for _, p := range Phases {
		m.phases.WithLabelValues(p)
	}
	m.registry.MustRegister(build, m.leading, m.leaderChanges, m.leaseGrants, m.leaseRefusals, m.leaseRoundTrip, m.phases,
		m.executorRuns, m.executorFailures, m.executorTime, m.events, sampler{m},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler serves the metrics. At most two scrapes run at once; a third is told so.
func (m *Metrics) Handler() http.Handler {
	if m == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Timeout: 5 * time.Second})
}

// SetSource says where samples come from. The source is called for each scrape, and must return soon.
func (m *Metrics) SetSource(source func() Sample) {
	if m != nil {
		m.source.Store(&source)
	}
}

// Leading notes that this node leads, or does not. Telling what is known already changes nothing.
func (m *Metrics) Leading(yes bool) {
	if m == nil {
		return
	}
	if m.leads.Swap(yes) == yes {
		return
	}
	m.leaderChanges.Inc()
	if yes {
		m.leading.Set(1)
	} else {
		m.leading.Set(0)
	}
}

// LeaseGranted notes a grant that arrived, and how long after its request.
func (m *Metrics) LeaseGranted(took time.Duration) {
	if m == nil {
		return
	}
	m.leaseGrants.Inc()
	m.leaseRoundTrip.Observe(took.Seconds())
}

// LeaseRefused notes a request that brought no grant: refused, too old when it came, or not answered.
func (m *Metrics) LeaseRefused() {
	if m != nil {
		m.leaseRefusals.Inc()
	}
}

// Phase notes how long a phase of a transition took.
func (m *Metrics) Phase(phase string, took time.Duration) {
	if m != nil {
		m.phases.WithLabelValues(phase).Observe(took.Seconds())
	}
}

// ExecutorRun notes a start or stop of a resource of a kind.
func (m *Metrics) ExecutorRun(kind string) {
	if m != nil {
		m.executorRuns.WithLabelValues(kind).Inc()
	}
}

// ExecutorFailed notes that a start or stop failed. ExecutorRun counts it too.
func (m *Metrics) ExecutorFailed(kind string) {
	if m != nil {
		m.executorFailures.WithLabelValues(kind).Inc()
	}
}

// ExecutorTook notes how long a start or stop took; operation is "start" or "stop".
func (m *Metrics) ExecutorTook(kind, operation string, took time.Duration) {
	if m != nil {
		m.executorTime.WithLabelValues(kind, operation).Observe(took.Seconds())
	}
}

// Event notes a cluster event: node_down, rg_move, ... The name must come from a fixed set, not from input.
func (m *Metrics) Event(name string) {
	if m != nil {
		m.events.WithLabelValues(name).Inc()
	}
}
