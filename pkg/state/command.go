package state

import (
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// An Entry is one committed log entry.
type Entry struct {
	Index   uint64
	Term    uint64
	Command *Command
}

// A Command is one fact, decision or request. Exactly one of the pointers is set. The proposer stamps ID, At and By.
type Command struct {
	// ID makes the command apply once: a second entry with the same id changes nothing and gets the first's result. Empty:
	// the command may repeat (it is idempotent by its own subject). At most 64 bytes.
	ID string `json:"id,omitempty"`
	// At is the proposer's wall time, UTC: for the history, settling and fallback timers, and marks; never for safety.
	At time.Time `json:"at"`
	// Term is the term of the leader that decided this; 0: nobody's decision. Apply refuses the command in an entry of another
	// term: a proof or a decision that was under way when its leader was deposed must not come back when that node leads
	// again, because another leader may have granted, found or started something in between (attack A9).
	Term uint64 `json:"term,omitempty"`
	// By is who asked: an operator, or a node.
	By string `json:"by,omitempty"`

	Create        *Create        `json:"create,omitempty"`
	SetDefinition *SetDefinition `json:"set_definition,omitempty"`
	Stage         *Stage         `json:"stage,omitempty"`
	Activate      *Activate      `json:"activate,omitempty"`
	SetMember     *SetMember     `json:"set_member,omitempty"`
	NewEpoch      *NewEpoch      `json:"new_epoch,omitempty"`
	NodeBoot      *NodeBoot      `json:"node_boot,omitempty"`
	BootRandom    *BootRandom    `json:"boot_random,omitempty"`
	NodeServices  *NodeServices  `json:"node_services,omitempty"`
	Armed         *Armed         `json:"armed,omitempty"`
	Disarmed      *Disarmed      `json:"disarmed,omitempty"`
	NodeLost      *NodeLost      `json:"node_lost,omitempty"`
	NodeFound     *NodeFound     `json:"node_found,omitempty"`
	Proof         *Proof         `json:"proof,omitempty"`
	Fence         *Fence         `json:"fence,omitempty"`
	NetworkState  *NetworkState  `json:"network_state,omitempty"`
	Measure       *Measure       `json:"measure,omitempty"`
	Acquire       *Acquire       `json:"acquire,omitempty"`
	Release       *Release       `json:"release,omitempty"`
	GiveUp        *GiveUp        `json:"give_up,omitempty"`
	ResetNode     *ResetNode     `json:"reset_node,omitempty"`
	Report        *Report        `json:"report,omitempty"`
	TimerFired    *TimerFired    `json:"timer_fired,omitempty"`
	MoveGroup     *MoveGroup     `json:"move_group,omitempty"`
	OnlineGroup   *OnlineGroup   `json:"online_group,omitempty"`
	OfflineGroup  *OfflineGroup  `json:"offline_group,omitempty"`
	UnsetPriority *UnsetPriority `json:"unset_priority,omitempty"`
	SuspendGroup  *SuspendGroup  `json:"suspend_group,omitempty"`
	ResumeGroup   *ResumeGroup   `json:"resume_group,omitempty"`
	ClearGroup    *ClearGroup    `json:"clear_group,omitempty"`
	UnmanageGroup *UnmanageGroup `json:"unmanage_group,omitempty"`
	ManageGroup   *ManageGroup   `json:"manage_group,omitempty"`
	ClearNode     *ClearNode     `json:"clear_node,omitempty"`
	TokenAdd      *TokenAdd      `json:"token_add,omitempty"`
	TokenUse      *TokenUse      `json:"token_use,omitempty"`
	LockOpen      *LockOpen      `json:"lock_open,omitempty"`
	LockClose     *LockClose     `json:"lock_close,omitempty"`
	LockAcquire   *LockAcquire   `json:"lock_acquire,omitempty"`
	LockRelease   *LockRelease   `json:"lock_release,omitempty"`
	LockBreak     *LockBreak     `json:"lock_break,omitempty"`
	LocksEnd      *LocksEnd      `json:"locks_end,omitempty"`
	ReplaceVolume *ReplaceVolume `json:"replace_volume,omitempty"`
	RenewCerts    *RenewCerts    `json:"renew_certs,omitempty"`
	CertInUse     *CertInUse     `json:"cert_in_use,omitempty"`
	GossipKey     *GossipKey     `json:"gossip_key,omitempty"`
	Note          *Note          `json:"note,omitempty"`
	Noop          *Noop          `json:"noop,omitempty"`
}

// A Result is what Apply answers. A refusal is a normal result: Refused is one sentence that names subject and cause.
type Result struct {
	Index    uint64
	Refused  string
	Repeated bool // the id was applied before, at Index
	// Incarnation is NodeBoot's answer; Generation is Acquire's.
	Incarnation uint64
	Generation  uint64
	// Token is the fencing token of a lock that is held; Waits says that the session waits for it. Both are LockAcquire's.
	Token  uint64
	Waits  bool
	Busy   bool    // refused because others hold it
	Events []Event // what was added to the history
}

// Create makes the cluster: once, as the first command.
type Create struct {
	ClusterID  string              `json:"cluster_id"`
	Definition *cluster.Definition `json:"definition"`
}

// SetDefinition replaces the whole definition, which the proposer has validated. Nodes and groups come and go with it.
// Refused: another base version; anything that would hide or double something held.
type SetDefinition struct {
	Base       uint64              `json:"base"` // State.DefinitionVersion that it was made from
	Definition *cluster.Definition `json:"definition"`
}

// Stage replaces what waits for a sync, or with no definition drops it (undo). It has no effect on nodes or groups. Refused: a
// Version that is not State.StagedVersion (somebody else has staged or synced meanwhile); a drop of nothing.
type Stage struct {
	Version    uint64              `json:"version"`
	Definition *cluster.Definition `json:"definition,omitempty"`
}

// Activate makes the staged definition the active one: all of it, in this one entry. Refused: a Version that is not the staged
// one's, so that what becomes active is what was verified; and whatever SetDefinition refuses.
type Activate struct {
	Version uint64 `json:"version"`
}

// ReplaceVolume puts a backup in the place of the repository volume that is lost, in the definition: the leader's own decision, so it is
// proposed with its Term. Nothing of nodes and groups changes, and no vote: the log's servers follow the definition (package agent).
// What is staged is changed in the same way, so that a sync does not bring the lost volume back. Refused: From is not in use any more;
// To is no backup; the settings forbid it.
type ReplaceVolume struct {
	From     string `json:"from"` // ids of the volumes' formats
	To       string `json:"to"`
	Sentence string `json:"sentence"` // why, for the history
}

// SetMember ties a node of the definition to its raft server id. A new id for a known node is a wiped node that rejoined.
type SetMember struct {
	Node   string `json:"node"`
	RaftID string `json:"raft_id"`
	// Cert is the number of the certificate that the node was admitted with; those of the name with lower numbers are void. 0: not told.
	Cert uint64 `json:"cert,omitempty"`
}

// NewEpoch follows a forced configuration: the epoch rises, and every node not named in Dead is taken to hold every group of
// its list from now on under unknown timings. Nodes in Dead are dead by the operator's word.
type NewEpoch struct {
	Epoch uint64   `json:"epoch"` // must be the old one + 1
	Dead  []string `json:"dead,omitempty"`
}

// NodeBoot numbers a boot. The leader proposes it only for the newest nonce that it gave the node. The same boot id and life
// again get the same incarnation. Refused: a known older boot id; a Replaces that is not the newest incarnation; the boot id
// of a dead incarnation (the node must reset), except with a new Life after a death by never-armed or clean-stop, where the
// node has started nothing since.
type NodeBoot struct {
	Node     string `json:"node"`
	BootID   string `json:"boot_id"`
	Life     string `json:"life,omitempty"` // distinguishes incarnations within one boot
	Replaces uint64 `json:"replaces"`       // the incarnation that it follows; 0 for the first
	// AllStopped: this boot's first probe found every exclusive resource of the node stopped. With it the boot is proof of
	// the replaced incarnation's end, unless the platform may run two copies of the node.
	AllStopped bool `json:"all_stopped"`
	// Reset says that the machine was reset by its own deadman or watchdog, as far as it knows (a note that the deadman left
	// behind, or the device's boot status), and why. Too many such boots in a row quarantine the node; a crash or a power-off
	// by the fence device does not count.
	Reset   string `json:"reset,omitempty"`
	Format  int    `json:"format,omitempty"`
	Version string `json:"version,omitempty"`
}

// BootRandom records the value that the node's store proposed at this boot, for the check against amnesia.
type BootRandom struct {
	Node  string `json:"node"`
	Value string `json:"value"`
}

// NodeServices starts or stops cluster services. Empty Nodes means all. Exactly one of Start and Stop is set.
type NodeServices struct {
	Nodes []string  `json:"nodes,omitempty"`
	Start StartMode `json:"start,omitempty"`
	Stop  StopMode  `json:"stop,omitempty"`
}

// StartMode is how cluster services start.
type StartMode string

const (
	StartAuto   StartMode = "auto"
	StartManual StartMode = "manual"
)

// Armed is the fact that a node commits before its first start in an arming. Refused for a dead, silent-and-dead, or old
// incarnation. A node counts it only when Apply took it and State's Arming is its own.
type Armed struct {
	Fact   lease.Armed `json:"fact"`
	Arming string      `json:"arming"` // nonce of the arming, drawn by the deadman
}

// Disarmed says that the arming is over: done first, then committed. Refused while something is held there, or for another
// arming than the newest.
type Disarmed struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Arming      string `json:"arming"`
}

// NodeLost says that the leader hears nothing of the incarnation on any path.
type NodeLost struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Sentence    string `json:"sentence"`
}

// NodeFound takes NodeLost back.
type NodeFound struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
}

// ProofKind is what proves that an incarnation holds nothing and never will.
type ProofKind string

const (
	ProofTime       ProofKind = "time"        // its lease has run out: Time is set, and Apply repeats the arithmetic
	ProofNeverArmed ProofKind = "never-armed" // no accepted Armed: it has started nothing
	ProofFenced     ProofKind = "fenced"      // a fence device says off, or its disks are cut off
	ProofBoot       ProofKind = "boot"        // its successor By found everything stopped
	ProofOperator   ProofKind = "operator"    // clmgr confirm node_down
	ProofCleanStop  ProofKind = "clean-stop"  // it stopped in order and holds nothing
)

// Proof ends an incarnation.
type Proof struct {
	Node        string           `json:"node"`
	Incarnation uint64           `json:"incarnation"`
	Kind        ProofKind        `json:"kind"`
	Time        *lease.TimeProof `json:"time,omitempty"`
	By          uint64           `json:"by,omitempty"` // ProofBoot: the current incarnation, whose probe found everything stopped
	Sentence    string           `json:"sentence"`     // e.g. "fence device ipmi1 says off"
}

// Fence records the beginning of a fencing, before the shot, and its failure. Success is recorded by a Proof.
type Fence struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Device      string `json:"device"`
	Failed      string `json:"failed,omitempty"` // empty: it begins
}

// NetworkState is the loss or return of all of a node's interfaces on a network.
type NetworkState struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Network     string `json:"network"`
	Up          bool   `json:"up"`
	Sentence    string `json:"sentence,omitempty"`
}

// Measure is a node's reading for dynamic node priority; what is nil keeps its old value.
type Measure struct {
	Node        string   `json:"node"`
	Incarnation uint64   `json:"incarnation"`
	Measures    Measures `json:"measures"`
}

// Acquire is the decision to start a group on a node. It is the only command that raises a generation. Refused: a Based that
// is not current (State.Based); the subject is not the node's living incarnation; for an exclusive group, anything else held.
type Acquire struct {
	Group       string `json:"group"`
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Based       uint64 `json:"based"`
	Dynamic     bool   `json:"dynamic,omitempty"` // the node was chosen by dynamic node priority
	Reason      string `json:"reason"`
}

// Release is the decision to stop an instance: the subject must be held and current.
type Release struct {
	Group       string `json:"group"`
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Generation  uint64 `json:"generation"`
	Cause       Cause  `json:"cause"`
	To          string `json:"to,omitempty"` // where it is meant to start next
	DueTo       DueTo  `json:"due_to,omitempty"`
	Reason      string `json:"reason"`
}

// GiveUp is the decision that nobody can take the group after a failure: the last node tried shows ERROR.
type GiveUp struct {
	Group string `json:"group"`
	Node  string `json:"node"`
	Based uint64 `json:"based"`
	// ForNetwork: a node was left out for the lack of a network, so its return is a reason to try again.
	ForNetwork bool   `json:"for_network,omitempty"`
	Reason     string `json:"reason"`
}

// ResetNode is the decision that a node gives up its lease, because a group could not be released there and says so.
type ResetNode struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Reason      string `json:"reason"`
}

// Outcome is what a node reports of an instance.
type Outcome string

const (
	OutcomeOnline        Outcome = "online"
	OutcomeAcquireFailed Outcome = "acquire-failed" // cleaned up, probed stopped, tombstoned
	OutcomeReleased      Outcome = "released"       // probed stopped, tombstoned
	OutcomeReleaseFailed Outcome = "release-failed" // the outcome is unknown: still held
	OutcomeFoundStopped  Outcome = "found-stopped"  // it was to run, and was found stopped; tombstoned
	OutcomeAppFailed     Outcome = "app-failed"     // beyond its restarts, action fallover
)

// Report is a node's word about one instance. It is taken only if node, incarnation, group and generation are all current.
type Report struct {
	Node        string  `json:"node"`
	Incarnation uint64  `json:"incarnation"`
	Group       string  `json:"group"`
	Generation  uint64  `json:"generation"`
	Outcome     Outcome `json:"outcome"`
	Sentence    string  `json:"sentence,omitempty"`
	Applied     uint64  `json:"applied,omitempty"` // index of the state that the node knew when it made the report
}

// TimerFired says that a delayed fallback timer has fired and that its groups were planned for it.
type TimerFired struct {
	Timer string    `json:"timer"`
	Due   time.Time `json:"due"` // must be the state's
}

// The operator's requests. Whether one makes sense is scheduler.Admit's; Apply only checks that the names exist.
type (
	// MoveGroup makes the node the group's first priority.
	MoveGroup struct {
		Group string `json:"group"`
		Node  string `json:"node"`
	}
	// OnlineGroup wants the group online; with a Node it is a MoveGroup (a concurrent group: on that node).
	OnlineGroup struct {
		Group string `json:"group"`
		Node  string `json:"node,omitempty"`
	}
	// OfflineGroup wants the group offline, everywhere or (concurrent) on one node.
	OfflineGroup struct {
		Group string `json:"group"`
		Node  string `json:"node,omitempty"`
	}
	// UnsetPriority forgets the operator's placement.
	UnsetPriority struct {
		Group string `json:"group"`
	}
	// SuspendGroup makes the cluster watch the group without touching it.
	SuspendGroup struct {
		Group string `json:"group"`
	}
	// ResumeGroup ends SuspendGroup.
	ResumeGroup struct {
		Group string `json:"group"`
	}
	// ClearGroup forgets ERROR, marks and chain. The operator answers for an instance whose release failed: it is released
	// again, not taken to be gone.
	ClearGroup struct {
		Group string `json:"group"`
	}
	// UnmanageGroup leaves the group running, outside the cluster's care, where it runs.
	UnmanageGroup struct {
		Group string `json:"group"`
	}
	// ManageGroup takes it back: its node probes it and adopts or starts it.
	ManageGroup struct {
		Group string `json:"group"`
	}
	// ClearNode ends a quarantine.
	ClearNode struct {
		Node string `json:"node"`
	}
)

// TokenAdd offers a join token.
type TokenAdd struct {
	Hash    string    `json:"hash"`
	Node    string    `json:"node,omitempty"`
	Expires time.Time `json:"expires"`
}

// TokenUse takes it: refused if unknown, used, for another node, or expired at the command's At.
type TokenUse struct {
	Hash string `json:"hash"`
	Node string `json:"node"`
}

// Note adds to the history without changing anything else: config_too_long, server_restart, ...
type Note struct {
	Event    string `json:"event"`
	Node     string `json:"node,omitempty"`
	Group    string `json:"group,omitempty"`
	Sentence string `json:"sentence"`
}

// Noop commits an entry of the leader's term.
type Noop struct{}
