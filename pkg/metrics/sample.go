package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Sample is what is true on this node now. Parts that are not known are nil or empty, and are then not shown.
type Sample struct {
	Nodes   []Node
	Groups  []Group
	Lease   *Lease
	Deadman *Deadman
	Raft    *Raft
	Gossip  []Ring
	Refused *Refused
}

// Refused counts connections to the cluster's port that were refused at their handshake, since the agent started.
type Refused struct {
	Void     uint64 // a certificate that has become void: removed, or renewed since
	Stranger uint64 // a certificate of this cluster whose node is no member
	Unknown  uint64 // none, another CA's, or no TLS
}

// A Node is a member as this node sees it.
type Node struct {
	Name string
	Up   bool // a member, not lost, its cluster services started
	// Silence is how long ago it gave the last sign of life on any path; below 0 is not known.
	Silence time.Duration
}

// A Group is an instance of a resource group.
type Group struct {
	Name, Node string
	State      string // one of States
}

// States are the states of an instance.
var States = []string{"OFFLINE", "ACQUIRING", "ONLINE", "RELEASING", "ERROR", "TEMP_ERROR", "UNMANAGED", "UNKNOWN"}

// Lease is this node's own lease.
type Lease struct {
	Age    time.Duration // of the newest grant, from its request
	Margin time.Duration // until the node releases its groups (L_soft) if no other grant comes; below 0: it does
}

// A Volume is the repository volume in use, and those that are not; nil without one.
type Volume struct {
	Answers               bool
	Backups, Usable, Lost int
}

// Deadman is this node's deadman.
type Deadman struct {
	Connected bool
	Armed     bool
	Margin    time.Duration // while armed: until it resets the node (L_hard) if no other grant comes
}

// Raft is the replicated log as this node has it.
type Raft struct {
	Term, LastIndex, CommitIndex, AppliedIndex, SnapshotIndex uint64
	Voter                                                     bool
	Voters, Servers                                           int
	Spare                                                     int // failures of voters that are survived; -1: no majority answers
	Volume                                                    *Volume
	StoreCalls                                                uint64
	SlowestStoreCall                                          time.Duration
	Rounds, RoundsFailed                                      uint64 // of term confirmation, led here
}

// A Ring is the gossip on one network.
type Ring struct {
	Network string
	Alive   int // members that answer, this node included
	Members int // members that should
	Score   int // memberlist's own health: 0 is well, more is worse
}

// sampler shows the newest sample. It describes nothing in advance because what there is depends on the cluster.
type sampler struct{ m *Metrics }

func gaugeDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("holdfast_"+name, help, labels, nil)
}

var (
	nodeUp       = gaugeDesc("node_up", "Whether a node is a running member (1) or not (0), as this node sees it.", "node")
	nodeSilence  = gaugeDesc("node_silence_seconds", "Time since the last sign of life of a node on any path.", "node")
	groupState   = gaugeDesc("group_state", "1 for the state in which a resource group is on a node, 0 for the others.", "group", "node", "state")
	leaseAge     = gaugeDesc("lease_age_seconds", "Age of this node's newest lease, from its request.")
	leaseMargin  = gaugeDesc("lease_margin_seconds", "Time until this node releases its groups if no other lease is granted.")
	deadmanUp    = gaugeDesc("deadman_connected", "Whether the agent reaches its deadman (1) or not (0).")
	deadmanArmed = gaugeDesc("deadman_armed", "Whether the deadman is armed (1) or not (0).")
	deadmanLeft  = gaugeDesc("deadman_margin_seconds", "Time until the armed deadman resets this node if no other lease is granted.")

	raftTerm      = gaugeDesc("raft_term", "The term of the replicated log.")
	raftLast      = gaugeDesc("raft_last_index", "The last entry of the log on this node.")
	raftCommit    = gaugeDesc("raft_commit_index", "The last entry that this node knows to be committed.")
	raftApplied   = gaugeDesc("raft_applied_index", "The last entry that this node has applied.")
	raftSnapshot  = gaugeDesc("raft_snapshot_index", "The last entry in this node's newest snapshot.")
	raftVoter     = gaugeDesc("raft_voter", "Whether this node votes (1) or not (0).")
	raftVoters    = gaugeDesc("raft_voters", "Servers that vote.")
	raftSpare     = gaugeDesc("quorum_spare", "Failures of voters that would be survived now; 0: the next one stops the cluster; -1: no majority answers.")
	volumeAnswers = gaugeDesc("repository_answers", "Whether the repository voter of the volume in use answers (1) or not (0), as far as this node knows.")
	volumeBackups = gaugeDesc("repository_backups", "Repository volumes that may take the place of the one in use.")
	volumeUsable  = gaugeDesc("repository_backups_usable", "Of these, how many can be used: by all nodes if this node leads, else by this node.")
	volumeLost    = gaugeDesc("repository_volumes_lost", "Repository volumes in whose place another has been put because no node could use them.")
	raftServers   = gaugeDesc("raft_servers", "Servers of the log, voters or not.")
	raftStore     = gaugeDesc("raft_store_calls_total", "Calls of the log's store.")
	raftSlowest   = gaugeDesc("raft_store_slowest_seconds", "The longest call of the log's store since the agent started.")
	raftRounds    = gaugeDesc("raft_confirmations_total", "Rounds in which this node, leading, had its term confirmed or tried to.")
	raftRoundsBad = gaugeDesc("raft_confirmation_failures_total", "Rounds in which the term was not confirmed.")

	gossipAlive   = gaugeDesc("gossip_alive_members", "Members that answer on a network, this node included.", "network")
	gossipMembers = gaugeDesc("gossip_members", "Members that should answer on a network.", "network")
	refused       = gaugeDesc("refused_connections_total", "Connections to the cluster's port that were refused at their handshake: void (a revoked certificate), "+
		"stranger (a certificate of this cluster, and no member), unknown (none, or another CA's).", "reason")

	gossipScore = gaugeDesc("gossip_health_score", "How badly this node's own gossip does on a network; 0 is well.", "network")
)

// Describe implements prometheus.Collector.
func (sampler) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s sampler) Collect(out chan<- prometheus.Metric) {
	source := s.m.source.Load()
	if source == nil {
		return
	}
	now := (*source)()
	c := collection{out}
	for _, n := range now.Nodes {
		c.flag(nodeUp, n.Up, n.Name)
		if n.Silence >= 0 {
			c.gauge(nodeSilence, n.Silence.Seconds(), n.Name)
		}
	}
	for _, g := range now.Groups {
		for _, state := range States {
			c.flag(groupState, g.State == state, g.Name, g.Node, state)
		}
	}
	if l := now.Lease; l != nil {
		c.gauge(leaseAge, l.Age.Seconds())
		c.gauge(leaseMargin, l.Margin.Seconds())
	}
	if d := now.Deadman; d != nil {
		c.flag(deadmanUp, d.Connected)
		if d.Connected {
			c.flag(deadmanArmed, d.Armed)
		}
		if d.Connected && d.Armed {
			c.gauge(deadmanLeft, d.Margin.Seconds())
		}
	}
	c.raft(now.Raft)
	if r := now.Refused; r != nil {
		c.gauge(refused, float64(r.Void), "void")
		c.gauge(refused, float64(r.Stranger), "stranger")
		c.gauge(refused, float64(r.Unknown), "unknown")
	}
	for _, r := range now.Gossip {
		c.gauge(gossipAlive, float64(r.Alive), r.Network)
		c.gauge(gossipMembers, float64(r.Members), r.Network)
		c.gauge(gossipScore, float64(r.Score), r.Network)
	}
}

// A collection writes the metrics of one scrape.
type collection struct{ out chan<- prometheus.Metric }

func (c collection) gauge(d *prometheus.Desc, v float64, labels ...string) {
	c.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (c collection) counter(d *prometheus.Desc, v uint64) {
	c.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
}

func (c collection) flag(d *prometheus.Desc, yes bool, labels ...string) {
	v := 0.0
	if yes {
		v = 1
	}
	c.gauge(d, v, labels...)
}

func (c collection) raft(r *Raft) {
	if r == nil {
		return
	}
	c.gauge(raftTerm, float64(r.Term))
	c.gauge(raftLast, float64(r.LastIndex))
	c.gauge(raftCommit, float64(r.CommitIndex))
	c.gauge(raftApplied, float64(r.AppliedIndex))
	c.gauge(raftSnapshot, float64(r.SnapshotIndex))
	c.flag(raftVoter, r.Voter)
	c.gauge(raftVoters, float64(r.Voters))
	c.gauge(raftServers, float64(r.Servers))
	c.gauge(raftSpare, float64(r.Spare))
	if v := r.Volume; v != nil {
		c.flag(volumeAnswers, v.Answers)
		c.gauge(volumeBackups, float64(v.Backups))
		c.gauge(volumeUsable, float64(v.Usable))
		c.gauge(volumeLost, float64(v.Lost))
	}
	c.counter(raftStore, r.StoreCalls)
	c.gauge(raftSlowest, r.SlowestStoreCall.Seconds())
	c.counter(raftRounds, r.Rounds)
	c.counter(raftRoundsBad, r.RoundsFailed)
}
