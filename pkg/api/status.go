package api

import "time"

// Unknown is what every state field says when the truth is not known.
const Unknown = "UNKNOWN"

// States of the cluster (the STATE of `clmgr query cluster`).
const (
	ClusterNotConfigured = "NOT_CONFIGURED" // this node belongs to no cluster
	ClusterOffline       = "OFFLINE"        // cluster services run on no node
	ClusterStable        = "STABLE"         // nothing is planned and nothing is being done, as of AppliedIndex
	ClusterUnstable      = "UNSTABLE"       // something is planned or being done
	ClusterError         = "ERROR"          // settled, but a group is in ERROR or a step waits for the operator
)

// States of a node.
const (
	NodeNormal      = "NORMAL"      // cluster services run
	NodeOffline     = "OFFLINE"     // the daemon is a member, cluster services are stopped
	NodeUnmanaged   = "UNMANAGED"   // services stopped with unmanage: its groups run on, unwatched
	NodeJoining     = "JOINING"     // services start
	NodeLeaving     = "LEAVING"     // services stop
	NodeSilent      = "SILENT"      // nothing is heard of it and its death is not proven
	NodeIsolated    = "ISOLATED"    // no network reaches it, and its heartbeat on the repository volume goes on: it lives, and hands over
	NodeDead        = "DEAD"        // its death is proven; it has not come back
	NodeQuarantined = "QUARANTINED" // takes no groups until cleared
)

// Raw states of a node, in the words of clstrmgrES.
const (
	RawNotConfigured = "NOT_CONFIGURED"
	RawInit          = "ST_INIT"
	RawJoining       = "ST_JOINING"
	RawVoting        = "ST_VOTING"
	RawRunning       = "ST_RP_RUNNING"
	RawBarrier       = "ST_BARRIER"
	RawUnstable      = "ST_UNSTABLE"
	RawFailed        = "ST_RP_FAILED"
	RawStable        = "ST_STABLE"
)

// States of a group on one node.
const (
	GroupOffline   = "OFFLINE"
	GroupAcquiring = "ACQUIRING"
	GroupOnline    = "ONLINE"
	GroupReleasing = "RELEASING"
	GroupError     = "ERROR"
	GroupTempError = "TEMP_ERROR"
	GroupUnmanaged = "UNMANAGED"
)

// Why a group is OFFLINE on a node, in the words that follow "OFFLINE DUE TO".
const (
	DueFallover      = "FALLOVER"
	DueParentOffline = "PARENT OFFLINE"
	DueLackOfNode    = "LACK OF NODE"
	DueTargetOffline = "TARGET OFFLINE"
	DueNodeForced    = "NODE FORCED DOWN"
)

// States of anything that is there or not: networks, addresses, interfaces.
const (
	Up   = "UP"
	Down = "DOWN"
)

// States of an application, in the words of `clRGinfo -m`.
const (
	AppMonitored    = "ONLINE MONITORED"
	AppNotMonitored = "ONLINE NOT MONITORED"
	AppSuspended    = "ONLINE MONITOR SUSPENDED"
	AppMonFailed    = "ONLINE MONITOR FAILED"
	AppFailed       = "ONLINE FAILED"
	AppOffline      = "OFFLINE"
)

// A Status is what one node knows of the whole cluster at one moment.
type Status struct {
	// Version grows whenever anything here changes but ages and Time. It is comparable only between answers with the same
	// Instance, which names one run of the daemon.
	Version  uint64        `json:"version"`
	Instance string        `json:"instance"`
	Time     time.Time     `json:"time"` // the answering node's clock
	Cluster  Cluster       `json:"cluster"`
	Nodes    []Node        `json:"nodes"`  // in the definition's order
	Groups   []Group       `json:"groups"` // in the definition's order
	Networks []Network     `json:"networks,omitempty"`
	Pending  []PendingStep `json:"pending,omitempty"` // what is being done now
}

// Node finds a node by name, nil if there is none.
func (s *Status) Node(name string) *Node {
	for i := range s.Nodes {
		if s.Nodes[i].Name == name {
			return &s.Nodes[i]
		}
	}
	return nil
}

// Group finds a group by name, nil if there is none.
func (s *Status) Group(name string) *Group {
	for i := range s.Groups {
		if s.Groups[i].Name == name {
			return &s.Groups[i]
		}
	}
	return nil
}

// Cluster is the cluster as a whole.
type Cluster struct {
	Name         string `json:"name"`
	UUID         string `json:"uuid"`
	ID           uint64 `json:"id,omitempty"` // the short number that PowerHA's tools show, made from the UUID
	State        string `json:"state"`
	Epoch        uint64 `json:"epoch"`
	Term         uint64 `json:"term,omitempty"`
	AppliedIndex uint64 `json:"applied_index"`
	Leader       string `json:"leader"` // empty: none known
	LocalNode    string `json:"local_node"`
	Quorum       Quorum `json:"quorum"`
	// Repository is the repository volume in use; nil without one.
	Repository *Repository `json:"repository,omitempty"`
	// Backups are the formatted repository volumes that are not in use: those that may take its place, the first choice first, then
	// those that were lost.
	Backups []Backup `json:"repository_backups,omitempty"`
	// AgeSeconds says how long ago this node last knew its knowledge to be the newest (it heard the leader, or leads
	// itself). 0: now. Nil: it never did since it started. Tools call data older than StaleSeconds stale.
	AgeSeconds        *float64 `json:"age_seconds"`
	StaleSeconds      float64  `json:"stale_seconds"`
	Profile           string   `json:"profile,omitempty"`
	DeadmanMode       string   `json:"deadman_mode,omitempty"`
	DefinitionVersion uint64   `json:"definition_version"`
	// GossipKeys are the numbers of the gossip keys in force, the one that is sent with first; two while one is being rotated.
	GossipKeys []uint64 `json:"gossip_keys,omitempty"`
	// Unsynced says that a staged definition waits for a sync; StagedVersion counts the changes of what is staged.
	Unsynced        bool    `json:"unsynced,omitempty"`
	StagedVersion   uint64  `json:"staged_version,omitempty"`
	ProductVersion  string  `json:"product_version,omitempty"`
	SettlingSeconds float64 `json:"settling_seconds,omitempty"`
	// Warnings are sentences of things that the operator should know: "no further failure is survived", a waived
	// assumption, a device that was never tested.
	Warnings []string `json:"warnings,omitempty"`
}

// Stale reports whether the knowledge behind a status is too old to be trusted.
func (c *Cluster) Stale() bool {
	if c.State == ClusterNotConfigured {
		return false
	}
	return c.AgeSeconds == nil || *c.AgeSeconds > c.StaleSeconds
}

// A Repository is the repository volume in use, as the answering node sees it.
type Repository struct {
	Name     string `json:"name"`
	Device   string `json:"device"`
	UUID     string `json:"uuid"`
	Host     string `json:"host,omitempty"` // the node that runs the repository voter; empty: none is known
	Voter    bool   `json:"voter"`          // it votes
	Alive    bool   `json:"alive"`
	Sentence string `json:"sentence"`
	// Leaving are the ids of the volumes that this one replaces and that still vote.
	Leaving []string `json:"leaving,omitempty"`
	// Replacement says, of a volume that does not answer and has backups, when one takes its place or why none does.
	Replacement string `json:"replacement,omitempty"`
}

// A Backup is a repository volume that is not in use.
type Backup struct {
	Name     string `json:"name"`
	Device   string `json:"device"`
	UUID     string `json:"uuid"`
	State    string `json:"state"` // usable, unusable, unknown or lost; as all nodes found it if the leader answers, else as this node did
	Sentence string `json:"sentence"`
}

// The values of Backup.State.
const (
	BackupUsable   = "usable"
	BackupUnusable = "unusable"
	BackupUnknown  = "unknown" // nobody has looked yet
	BackupLost     = "lost"    // it was in use, and another has taken its place
)

// A Quorum says whether the cluster can decide.
type Quorum struct {
	Have     bool   `json:"have"`
	Voters   int    `json:"voters"`
	Needed   int    `json:"needed"`
	Alive    int    `json:"alive"`              // voters that answer, as far as this node knows
	Sentence string `json:"sentence,omitempty"` // as "one more failure is survived"
	// Risk says, where the cluster is laid out to survive a failure and would not now, which vote is missing and what to do about it.
	Risk string `json:"risk,omitempty"`
}

// A Node is one member.
type Node struct {
	Name        string        `json:"name"`
	ID          int           `json:"id"` // its place in the definition, from 1
	State       string        `json:"state"`
	RawState    string        `json:"raw_state"`
	Incarnation uint64        `json:"incarnation"` // number of the boot; 0: never seen
	Manage      string        `json:"manage,omitempty"`
	Voter       bool          `json:"voter"`
	Leader      bool          `json:"leader,omitempty"`
	Version     string        `json:"version,omitempty"` // of the daemon there
	Site        string        `json:"site,omitempty"`
	Addresses   []Address     `json:"addresses,omitempty"` // boot addresses, and service and persistent IPs held there
	Networks    []NodeNetwork `json:"networks,omitempty"`
	Lease       *Lease        `json:"lease,omitempty"`  // nil: not known here
	Reason      string        `json:"reason,omitempty"` // the last sentence about the node
	Since       *time.Time    `json:"since,omitempty"`  // of the state
	Resets      int           `json:"resets,omitempty"` // of its own deadman or watchdog, as counted for the quarantine
	// Certificate is the lowest number of a certificate of the node that is good; RenewsTo the number of the one that it is making.
	Certificate uint64 `json:"certificate,omitempty"`
	RenewsTo    uint64 `json:"renews_to,omitempty"`
	// Values are what dynamic node priority saw last: mem (MiB free), cpu (% idle), disk (% busy), script.
	Values map[string]float64 `json:"values,omitempty"`
}

// A Lease is the node's right to hold groups, as the leader sees it.
type Lease struct {
	Armed   bool   `json:"armed"`
	Class   string `json:"class,omitempty"`   // independent, process
	Backend string `json:"backend,omitempty"` // as "/dev/watchdog"
	Mode    string `json:"mode,omitempty"`    // a, e
	// AgeSeconds counts from the request behind the newest grant, MarginSeconds is what is left until the soft limit.
	// Nil: not known.
	AgeSeconds    *float64 `json:"age_seconds,omitempty"`
	MarginSeconds *float64 `json:"margin_seconds,omitempty"`
}

// Kinds of addresses.
const (
	AddressBoot       = "boot"
	AddressService    = "service"
	AddressPersistent = "persistent"
)

// An Address is one that is or should be on a node.
type Address struct {
	Label     string `json:"label"`
	Address   string `json:"address"` // without prefix length
	Prefix    int    `json:"prefix,omitempty"`
	Network   string `json:"network"`
	Kind      string `json:"kind"`
	Interface string `json:"interface,omitempty"`
	State     string `json:"state"`
}

// A NodeNetwork is one network as seen from one node.
type NodeNetwork struct {
	Name      string `json:"name"`
	State     string `json:"state"`
	Interface string `json:"interface,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// A Network is one network of the cluster.
type Network struct {
	Name    string `json:"name"`
	State   string `json:"state"` // UP: on one node at least
	Private bool   `json:"private,omitempty"`
}

// A Group is one resource group.
type Group struct {
	Name       string   `json:"name"`
	ID         int      `json:"id"` // its place in the definition, from 1
	Nodes      []string `json:"nodes"`
	Startup    string   `json:"startup"`
	Fallover   string   `json:"fallover"`
	Fallback   string   `json:"fallback"`
	SitePolicy string   `json:"site_policy,omitempty"` // empty: ignore
	// Instances has one entry for each of Nodes, in that order.
	Instances    []Instance    `json:"instances"`
	Override     *Override     `json:"priority_override,omitempty"`
	Timers       []Timer       `json:"timers,omitempty"`
	Applications []Application `json:"applications,omitempty"`
	Resources    []Resource    `json:"resources,omitempty"`
	Generation   uint64        `json:"generation"`
	Suspended    bool          `json:"suspended,omitempty"`
	Sentence     string        `json:"sentence,omitempty"` // of the last decision about it
	// PreviousNodes is where it ran before the event that is being handled; empty when none is.
	PreviousNodes []string `json:"previous_nodes,omitempty"`
}

// On is the group's state on a node; nil if the node is not in its list.
func (g *Group) On(node string) *Instance {
	for i := range g.Instances {
		if g.Instances[i].Node == node {
			return &g.Instances[i]
		}
	}
	return nil
}

// OnlineOn lists the nodes where the group is ONLINE.
func (g *Group) OnlineOn() []string {
	var out []string
	for i := range g.Instances {
		if g.Instances[i].State == GroupOnline {
			out = append(out, g.Instances[i].Node)
		}
	}
	return out
}

// An Instance is a group on one of its nodes.
type Instance struct {
	Node   string     `json:"node"`
	State  string     `json:"state"`
	Due    string     `json:"due,omitempty"` // with OFFLINE: one of the Due words
	Reason string     `json:"reason,omitempty"`
	Since  *time.Time `json:"since,omitempty"`
	Tried  bool       `json:"tried,omitempty"` // tried in vain, or marked by a failure
}

// Text is the state in the words of clRGinfo.
func (i *Instance) Text() string {
	switch {
	case i.State == GroupOffline && i.Due != "":
		return GroupOffline + " DUE TO " + i.Due
	case i.State == GroupTempError:
		return "TEMP ERROR"
	case i.State == "":
		return Unknown
	}
	return i.State
}

// An Override is the operator's placement, which outranks the list's order.
type Override struct {
	Node string    `json:"node"`
	Time time.Time `json:"time"`
	User string    `json:"user,omitempty"`
}

// Kinds of timers.
const (
	TimerFallback = "fallback"
	TimerSettling = "settling"
)

// A Timer is a moment that a group waits for.
type Timer struct {
	Kind string    `json:"kind"`
	Name string    `json:"name,omitempty"`
	At   time.Time `json:"at"`
}

// An Application is an application controller's state on a node.
type Application struct {
	Name     string    `json:"name"`
	Node     string    `json:"node"`
	State    string    `json:"state"`
	Restarts int       `json:"restarts,omitempty"` // counted in the current restart interval
	Reason   string    `json:"reason,omitempty"`
	Monitors []Monitor `json:"monitors,omitempty"`
}

// A Monitor is an application monitor's last answer.
type Monitor struct {
	Name   string `json:"name"`
	State  string `json:"state"` // UP, DOWN, UNKNOWN, SUSPENDED
	Reason string `json:"reason,omitempty"`
}

// A Resource is one thing that a group holds.
type Resource struct {
	Kind    string `json:"kind"` // service_ip, file_system, application
	Name    string `json:"name"`
	Node    string `json:"node,omitempty"` // where it was last probed
	State   string `json:"state"`          // running, stopped, degraded, unknown
	Address string `json:"address,omitempty"`
	Network string `json:"network,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

// A PendingStep is one action that is planned or being done.
type PendingStep struct {
	Op     string     `json:"op"` // acquire, release, start services, stop services
	Group  string     `json:"group,omitempty"`
	Node   string     `json:"node"`
	Since  *time.Time `json:"since,omitempty"`
	Reason string     `json:"reason,omitempty"`
}

// An Event is one line of the cluster's history.
type Event struct {
	ID       uint64    `json:"id"` // grows; not necessarily by one
	Time     time.Time `json:"time"`
	Kind     string    `json:"kind"` // as node_down, rg_move_acquire, config_too_long
	Node     string    `json:"node,omitempty"`
	Group    string    `json:"group,omitempty"`
	Sentence string    `json:"sentence"`
	User     string    `json:"user,omitempty"` // for an operator's command
}

// An EventList is a piece of the history, oldest first.
type EventList struct {
	Events []Event `json:"events"`
	// Next is the value of since that asks for what follows.
	Next uint64 `json:"next"`
	// Lost says that events after since are no longer kept.
	Lost bool `json:"lost,omitempty"`
}

// An Explanation answers why a group is where it is, or is not where it might be.
type Explanation struct {
	Group     string   `json:"group"`
	Node      string   `json:"node,omitempty"`
	Sentences []string `json:"sentences"`
	// Nodes has a verdict for each node of the list, when no single one was asked for.
	Nodes []NodeVerdict `json:"nodes,omitempty"`
}

// A NodeVerdict says whether a node could take a group now, and why not.
type NodeVerdict struct {
	Node   string `json:"node"`
	State  string `json:"state"`
	Can    bool   `json:"can"`
	Reason string `json:"reason"`
}

// Health is the daemon's own.
type Health struct {
	OK       bool     `json:"ok"`
	Instance string   `json:"instance"`
	Version  string   `json:"version,omitempty"`
	Problems []string `json:"problems,omitempty"`
}
