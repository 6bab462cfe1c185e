package state

import (
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Format is the newest version of the snapshot and command encoding that this code writes. It reads all older ones, and writes
// the oldest that can say what is to be said (format.go), so that nodes of two versions go on together.
//
//	1  the first
//	2  definitions with volume groups, exports, a repository, agents, methods, waivers, and settings of the verification and of staging; staged definitions
//	3  locks and their sessions
//	4  a repository volume that is lost, and the backup that takes its place; what becomes of a node that was taken for dead; commands around events;
//	   numbers of certificates, their rotation and that of the gossip key; file collections and free commands
const Format = 4

// A State is everything that the log has decided. It is a value that never changes once made: Apply returns a new one, which
// shares what did not change. All methods may be called by any goroutine. The zero value (or New) is the state before the
// first entry.
type State struct {
	Format    int    `json:"format"`
	ClusterID string `json:"cluster_id,omitempty"` // UUID, given once by Create
	// Epoch counts forced configurations; it stands in every RPC and in the high bits of every generation.
	Epoch uint64 `json:"epoch"`
	// Generation is the newest generation given out, for whatever group: epoch<<40 | count.
	Generation uint64 `json:"generation"`

	Index uint64 `json:"index"` // of the last entry applied
	Term  uint64 `json:"term"`

	Definition        *cluster.Definition `json:"definition,omitempty"`
	DefinitionVersion uint64              `json:"definition_version"` // raised by each accepted SetDefinition

	// Staged waits for a sync; nil: nothing does. StagedVersion is raised by each Stage and Activate, and by nothing else: who
	// stages, syncs or undoes names the version that he has seen.
	Staged        *Staged `json:"staged,omitempty"`
	StagedVersion uint64  `json:"staged_version,omitempty"`

	Nodes map[string]*Node `json:"nodes,omitempty"`
	// Retired keeps the last incarnation of nodes that were removed: a node of that name is numbered on from there, so that what
	// comes late about the old one stays late.
	Retired map[string]uint64 `json:"retired,omitempty"`
	Groups  map[string]*Group `json:"groups,omitempty"`
	Timers  map[string]*Timer `json:"timers,omitempty"` // delayed fallback timers, by name
	Tokens  map[string]*Token `json:"tokens,omitempty"` // join tokens, by hash

	// Locks are the named locks; nil until there was one.
	Locks *Locks `json:"locks,omitempty"`

	// CAKeys and the like are no part of the state: secrets do not enter the log. What does is which of them are good.

	// Certs is nil until a certificate was numbered.
	Certs *Certs `json:"certs,omitempty"`
	// GossipKeys are the numbers of the gossip keys in force: the first is sent with, all are understood. None: key 0 alone, with
	// which the cluster was founded. See GossipKey.
	GossipKeys []uint64 `json:"gossip_keys,omitempty"`

	events  ring[Event]
	applied ring[appliedID]
}

// New is the state before the first entry.
func New() *State { return &State{Format: Format} }

// A Staged definition waits for a sync. Nothing acts on it.
type Staged struct {
	Definition *cluster.Definition `json:"definition"`
	Base       uint64              `json:"base"`  // the active version from which the first change was made
	Since      time.Time           `json:"since"` // of the first change
	By         string              `json:"by,omitempty"`
}

// Services says what the cluster services of a node are doing.
type Services string

const (
	ServicesOff       Services = "off"       // the daemon may run, but takes part in nothing
	ServicesOn        Services = "on"        // started with automatic acquisition
	ServicesManual    Services = "manual"    // started; this start acquires nothing, later failovers may use the node
	ServicesStopping  Services = "stopping"  // to be stopped in the node's StopMode; becomes off when nothing is held there
	ServicesUnmanaged Services = "unmanaged" // stopped with its groups left running, UNMANAGED
)

// StopMode is how cluster services stop.
type StopMode string

const (
	StopOffline  StopMode = "offline"  // release the groups and leave them offline
	StopMove     StopMode = "move"     // move the groups to other nodes
	StopUnmanage StopMode = "unmanage" // leave the groups running, outside the cluster's care
)

// A Node is what the log knows of one member.
type Node struct {
	Name   string `json:"name"`
	RaftID string `json:"raft_id,omitempty"` // the node's server id; a wiped node rejoins under a new one
	// Incarnation numbers the node's boots, as the log saw them; 0: never seen.
	Incarnation uint64   `json:"incarnation"`
	BootID      string   `json:"boot_id,omitempty"`
	Life        string   `json:"life,omitempty"`      // see NodeBoot
	OldBoots    []string `json:"old_boots,omitempty"` // known older boot ids, newest last, bounded
	Format      int      `json:"format,omitempty"`    // the newest Format that the node's daemon understands
	Version     string   `json:"version,omitempty"`   // the daemon's version, for status
	Random      string   `json:"random,omitempty"`    // the value of the node's last BootRandom (attack A10)

	Services Services `json:"services,omitempty"`
	StopMode StopMode `json:"stop_mode,omitempty"` // while stopping
	// UpSince is the index at which these services started; 0 while off. AbleSince is that, or of the last return of a network.
	UpSince   uint64 `json:"up_since,omitempty"`
	AbleSince uint64 `json:"able_since,omitempty"`

	// Dead is the proof of the current incarnation's death; nil while it lives or is only silent.
	Dead *Death `json:"dead,omitempty"`
	// Lost is set while the current incarnation is silent: nothing of it is known, nothing of it may start elsewhere.
	Lost *Loss `json:"lost,omitempty"`
	// Former are older incarnations that still hold something, because their boot proof did not count.
	Former []Former `json:"former,omitempty"`

	// Armed is the newest Armed fact of the current incarnation; nil: it has started nothing (attack A4).
	Armed  *lease.Armed `json:"armed,omitempty"`
	Arming string       `json:"arming,omitempty"` // the nonce of that arming
	// OldArmings are those of this incarnation that are over, newest last, bounded.
	OldArmings []string `json:"old_armings,omitempty"`
	// Forced: a forced configuration made it unknown what the incarnation armed and holds. Time and the absence of an Armed
	// fact prove nothing until it arms or boots again.
	Forced bool `json:"forced,omitempty"`

	// Resetting is set when a failed release made the planner tell the node to give up its lease (on_release_failure: reset).
	Resetting string `json:"resetting,omitempty"` // the sentence; empty: no

	// NetworksDown lists the networks on which the node has lost all its interfaces, sorted.
	NetworksDown []string `json:"networks_down,omitempty"`
	Measures     Measures `json:"measures"`

	Quarantined string      `json:"quarantined,omitempty"` // why; empty: no
	Resets      []time.Time `json:"resets,omitempty"`      // wall times of the latest boots after an unclean end
	Fencing     *Fencing    `json:"fencing,omitempty"`     // in progress, or the last result
}

// Up reports whether the node is there and its services are started: it may take groups.
func (n *Node) Up() bool {
	return n != nil && n.Alive() && (n.Services == ServicesOn || n.Services == ServicesManual)
}

// Alive reports whether the node's current incarnation is neither dead nor silent.
func (n *Node) Alive() bool { return n != nil && n.Incarnation > 0 && n.Dead == nil && n.Lost == nil }

// NetworkDown reports whether all of the node's interfaces on the network are down.
func (n *Node) NetworkDown(network string) bool {
	return slices.Contains(n.NetworksDown, network)
}

// A Death is an accepted proof.
type Death struct {
	Kind     ProofKind `json:"kind"`
	Sentence string    `json:"sentence"`
	Index    uint64    `json:"index"`
	At       time.Time `json:"at"`
}

// String is "proof fenced: fence device ipmi1 says off".
func (d *Death) String() string { return "proof " + string(d.Kind) + colon(d.Sentence) }

// A Loss says since when, and why, a node is taken to be silent.
type Loss struct {
	Sentence string    `json:"sentence"`
	Index    uint64    `json:"index"`
	At       time.Time `json:"at"`
}

// A Former incarnation is over by its successor's word only; it holds what it held until a proof that counts.
type Former struct {
	Incarnation uint64       `json:"incarnation"`
	Armed       *lease.Armed `json:"armed,omitempty"`
	Forced      bool         `json:"forced,omitempty"`
}

// Measures are what dynamic node priority sees. Nil: not known.
type Measures struct {
	CPU    *float64           `json:"cpu,omitempty"`    // idle, percent
	Memory *float64           `json:"memory,omitempty"` // free, MiB
	Disk   *float64           `json:"disk,omitempty"`   // busy, percent
	Script map[string]float64 `json:"script,omitempty"` // answer of a group's own script, by group; "" for all groups
}

// Fencing is one attempt to switch a node off, or the result of the last.
type Fencing struct {
	Incarnation uint64    `json:"incarnation"`
	Device      string    `json:"device"`
	Running     bool      `json:"running"`
	Index       uint64    `json:"index"`
	At          time.Time `json:"at"`
	Result      string    `json:"result,omitempty"` // one sentence, when not running
}

// A Group is what the log knows of one resource group.
type Group struct {
	Name string `json:"name"`
	// Generation is that of the newest Acquire; decisions are based on it.
	Generation uint64               `json:"generation"`
	Instances  map[string]*Instance `json:"instances,omitempty"` // by node; a missing one is OFFLINE and was never touched

	Phase Phase `json:"phase"`
	// Tried are the nodes tried in vain in the current recovery chain, in order.
	Tried []string `json:"tried,omitempty"`
	// Intent is what the last Release was for: it guides the next placement, and ends with it.
	Intent *Intent `json:"intent,omitempty"`
	// ErrorForNetwork: the group is in ERROR, and a node was left out for the lack of a network.
	ErrorForNetwork bool `json:"error_for_network,omitempty"`

	// Dynamic is the index at which it was acquired on a node that dynamic node priority chose, 0 if its node was chosen
	// otherwise: only a node that has become able since is a reason to fall back.
	Dynamic uint64 `json:"dynamic,omitempty"`

	// Override is the operator's placement (priority override location).
	Override *Override `json:"override,omitempty"`
	// Offline: the operator wants it offline, everywhere, or (concurrent groups) on these nodes.
	Offline   bool     `json:"offline,omitempty"`
	OfflineOn []string `json:"offline_on,omitempty"`
	Suspended bool     `json:"suspended,omitempty"`

	Marks map[string]*Mark `json:"marks,omitempty"` // by node
	// SettleUntil ends the settling time of an OFAN group; zero: none runs.
	SettleUntil time.Time `json:"settle_until,omitzero"`
	LastReason  string    `json:"last_reason,omitempty"` // of the last decision about it
	// Freed is what made the group free, as the beginning of the next decision's reason; empty while it is held.
	Freed string `json:"freed,omitempty"`
	// Unreleased says that the last holder did not release it, and by which proof it is gone; empty once the group was online
	// again. What that holder left in storage (the guard of a mount) is known to be nobody's by it. It frees nothing: that is
	// Held's; and without it an executor refuses more, never less.
	Unreleased string `json:"unreleased,omitempty"`
}

// Phase says by which policy the group is placed next.
type Phase string

const (
	PhaseStart   Phase = "start"   // not yet online since the cluster started: the startup policy
	PhaseActive  Phase = "active"  // an instance is held (or, concurrent: see the instances)
	PhaseRecover Phase = "recover" // it was active, and lost its node: the failover policy
	PhaseRequest Phase = "request" // the operator wants it online: the first node of the list that can take it
	PhaseParked  Phase = "parked"  // its node's services stopped: waits for a node of the list to join
	PhaseError   Phase = "error"   // nobody could take it: waits for clear, online, move, or a join
)

// InstanceState is PowerHA's state of a group on a node.
type InstanceState string

const (
	Offline   InstanceState = "OFFLINE"
	Acquiring InstanceState = "ACQUIRING"
	Online    InstanceState = "ONLINE"
	Releasing InstanceState = "RELEASING"
	Error     InstanceState = "ERROR"
	TempError InstanceState = "TEMP_ERROR"
	Unmanaged InstanceState = "UNMANAGED"
	Unknown   InstanceState = "UNKNOWN" // shown only (State.Shown): the node is silent
)

// An Instance is a group on a node.
type Instance struct {
	State InstanceState `json:"state"`
	// Held: the node may have resources of the group, or may still start them. See the package comment.
	Held        bool   `json:"held,omitempty"`
	Incarnation uint64 `json:"incarnation,omitempty"` // of the node, when it was acquired
	Generation  uint64 `json:"generation,omitempty"`
	// DueTo refines OFFLINE, as clRGinfo -v shows it; while RELEASING it is what OFFLINE will be due to.
	DueTo DueTo `json:"due_to,omitempty"`
	// Cause is what the release is for, while RELEASING and after a failed release.
	Cause Cause `json:"cause,omitempty"`
	// Failed: the application has failed beyond its restarts and asks for a failover; only while ONLINE.
	Failed bool `json:"failed,omitempty"`
	// Retry: the release has failed, and the operator wants it tried again; the planner decides when it is its turn.
	Retry    bool   `json:"retry,omitempty"`
	Since    uint64 `json:"since,omitempty"`    // index of the last change of State
	Sentence string `json:"sentence,omitempty"` // why it is so
	// Outside: it ran UNMANAGED, and its node has not said yet, knowing that it is managed again, that it holds it under a lease.
	// Until then it lies outside every lease as if it were UNMANAGED still: the node may have disarmed meanwhile (attack A4).
	Outside bool `json:"outside,omitempty"`
}

// DueTo says why an instance is OFFLINE.
type DueTo string

const (
	DueToFallover       DueTo = "FALLOVER"         // displaced, or left for another node
	DueToParentOffline  DueTo = "PARENT OFFLINE"   //
	DueToTargetOffline  DueTo = "TARGET OFFLINE"   // of a start-after dependency
	DueToLackOfNode     DueTo = "LACK OF NODE"     //
	DueToNodeForcedDown DueTo = "NODE FORCED DOWN" //
)

// An Intent is what a release is for.
type Intent struct {
	Cause Cause  `json:"cause"`
	From  string `json:"from"`
	To    string `json:"to,omitempty"` // where the planner meant to start it; only a hint for its next pass
}

// Cause is why a group is released.
type Cause string

const (
	CauseOffline    Cause = "offline"     // the operator's offline
	CauseMove       Cause = "move"        // the operator's move
	CauseStop       Cause = "stop"        // services stop, groups stay offline
	CauseStopMove   Cause = "stop-move"   // services stop, groups move
	CauseFailure    Cause = "failure"     // the application failed
	CauseNetwork    Cause = "network"     // the node lost a network that the group needs
	CauseFallback   Cause = "fallback"    // a better node is there
	CauseParent     Cause = "parent"      // its parent is not online
	CauseDisplaced  Cause = "displaced"   // a group of a higher tier takes the node
	CauseSameNode   Cause = "same-node"   // its set moves
	CauseEvacuate   Cause = "evacuate"    // the node will give up its lease
	CauseLease      Cause = "lease"       // the node itself gave it up (reported, never planned)
	CauseDependency Cause = "dependency"  // stops so that another can stop or move
	CauseReload     Cause = "reconfigure" // the definition no longer wants it there
)

// An Override is the operator's placement.
type Override struct {
	Node string    `json:"node"`
	By   string    `json:"by,omitempty"`
	At   time.Time `json:"at"`
}

// A Mark says that a group has failed on a node.
type Mark struct {
	Kind     MarkKind  `json:"kind"`
	At       time.Time `json:"at"`
	Sentence string    `json:"sentence"`
}

// MarkKind says what failed.
type MarkKind string

const (
	MarkApplication MarkKind = "application" // failed beyond its restarts
	MarkAcquisition MarkKind = "acquisition" // could not be acquired: no target of fallback until something changes there
)

// A Timer is one delayed fallback timer of the definition.
type Timer struct {
	Name  string    `json:"name"`
	Due   time.Time `json:"due,omitzero"`   // next firing, UTC; zero: never again
	Fired time.Time `json:"fired,omitzero"` // last firing
}

// A Token lets one node join once.
type Token struct {
	Hash    string    `json:"hash"` // SHA-256 of the secret, hexadecimal
	Node    string    `json:"node"` // empty: any new name
	Expires time.Time `json:"expires"`
	By      string    `json:"by,omitempty"`
	UsedBy  string    `json:"used_by,omitempty"` // node; empty: not used
}

type appliedID struct {
	ID      string `json:"id"`
	Index   uint64 `json:"index"`
	Refused string `json:"refused,omitempty"`
	Value   uint64 `json:"value,omitempty"` // incarnation or generation that it gave
}
