package api

import "time"

// An Op is what an operator asks for.
type Op string

// The operations.
const (
	OpStart         Op = "start"              // cluster services on Nodes (none: all)
	OpStop          Op = "stop"               // likewise; Manage says what becomes of the groups
	OpOnline        Op = "online"             // Groups on Node (none: by policy)
	OpOffline       Op = "offline"            // Groups on Node (none: everywhere)
	OpMove          Op = "move"               // Groups to Node
	OpUnsetPriority Op = "unset-priority"     // forget the operator's placement of Groups
	OpClear         Op = "clear"              // ERROR, marks and recovery chain of Groups; or the quarantine of Node
	OpSuspend       Op = "suspend"            // per-group maintenance: Groups are watched, not touched
	OpResume        Op = "resume"             //
	OpUnmanage      Op = "unmanage"           // Groups run on, outside the cluster's care
	OpManage        Op = "manage"             // the cluster takes Groups back: adopts or starts them
	OpConfirmDown   Op = "confirm-node-down"  // the operator's word that Node is dead
	OpReleaseLock   Op = "release-lock"       // takes Lock away from Session, which holds it or waits for it
	OpReplace       Op = "replace-repository" // puts the formatted volume Repository (none: the next one) to use in place of that in use
	OpRotateCerts   Op = "renew-certificates" // of Nodes (none: all)
	OpRotateGossip  Op = "renew-gossip-key"   //
	OpFormat        Op = "format-repository"  // makes the repository volume Repository; destroys what is on its device
)

// Role is what the operation needs.
func (o Op) Role() Role {
	switch o {
	case OpConfirmDown, OpFormat, OpReplace, OpRotateCerts, OpRotateGossip:
		return RoleAdmin
	case OpStart, OpStop, OpOnline, OpOffline, OpMove, OpUnsetPriority, OpClear, OpSuspend, OpResume,
		OpUnmanage, OpManage, OpReleaseLock:
		return RoleOperate
	}
	return RoleNone
}

// Values of Request.Manage. With OpStart: auto (the default) and manual; with OpStop the other three, offline by default.
const (
	ManageAuto     = "auto"
	ManageManual   = "manual"   // this start acquires nothing
	ManageOffline  = "offline"  // release here, no takeover ("graceful")
	ManageMove     = "move"     // release here, others take over ("takeover")
	ManageUnmanage = "unmanage" // leave running, unwatched ("forced")
)

// Values of Request.Placement.
const (
	PlacementPolicy = ""     // each group by its own startup policy
	PlacementHome   = "home" // each group that this start brings online starts on its home node
)

// A Request is one command of an operator. It is applied once, however often it is sent with the same ID.
type Request struct {
	ID        string   `json:"id"` // 16 to 64 letters, digits, '-'; made by the client
	Op        Op       `json:"op"`
	Groups    []string `json:"groups,omitempty"`
	Node      string   `json:"node,omitempty"`
	Nodes     []string `json:"nodes,omitempty"` // with OpStart and OpStop
	Manage    string   `json:"manage,omitempty"`
	Placement string   `json:"placement,omitempty"` // with OpStart
	Force     bool     `json:"force,omitempty"`
	// Repository and Overwrite are for OpFormat, and Repository for OpReplace: the volume's name in the definition, and whether a device that holds something
	// else is formatted too.
	Repository string `json:"repository,omitempty"`
	Overwrite  bool   `json:"overwrite,omitempty"`
	// Lock and Session are for OpReleaseLock.
	Lock    string `json:"lock,omitempty"`
	Session string `json:"session,omitempty"`
	Reason  string `json:"reason,omitempty"` // the operator's own words, for the history
}

// A Reply says that a command is committed and applied, or why it was refused.
type Reply struct {
	// Index is the log index at which the command was applied; a node whose AppliedIndex has reached it shows its effect.
	Index uint64 `json:"index"`
	// Refused is the reason of a refusal; the command changed nothing then.
	Refused string `json:"refused,omitempty"`
	// Already says that things were so before: nothing was planned.
	Already bool `json:"already,omitempty"`
	// Waits are what must be seen before the command may be called done, where the cluster knows better than the caller.
	Waits    []Wait   `json:"waits,omitempty"`
	Sentence string   `json:"sentence,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// DefinitionVersion is the new one, after a change of the definition.
	DefinitionVersion uint64 `json:"definition_version,omitempty"`
}

// A Wait is one condition: the group in the state on the node, or, with no group, the node in the state.
type Wait struct {
	Group string `json:"group,omitempty"`
	Node  string `json:"node,omitempty"` // empty with a group: on any one node
	State string `json:"state"`
}

// A State is the replicated state of the cluster, in the encoding of its snapshots.
type State struct {
	Encoded []byte `json:"encoded"`
}

// A Definition is the active definition, as text.
type Definition struct {
	YAML    string `json:"yaml"`
	Version uint64 `json:"version"`
	// Staged says that YAML is what waits for a sync, and not the active definition; StagedBy and StagedSince are of its first
	// change. StagedVersion is what a writer of staged changes names, also when nothing is staged.
	Staged        bool       `json:"staged,omitempty"`
	StagedVersion uint64     `json:"staged_version,omitempty"`
	StagedBy      string     `json:"staged_by,omitempty"`
	StagedSince   *time.Time `json:"staged_since,omitempty"`
}

// A DefinitionText is a text to look at.
type DefinitionText struct {
	YAML string `json:"yaml"`
	File string `json:"file,omitempty"` // its name, for the faults
	// Staged asks for what is staged instead of a text.
	Staged bool `json:"staged,omitempty"`
}

// A DefinitionChange replaces the definition, if BaseVersion is still the active one.
type DefinitionChange struct {
	ID          string `json:"id"`
	YAML        string `json:"yaml"`
	BaseVersion uint64 `json:"base_version"`
	File        string `json:"file,omitempty"`
	Comment     string `json:"comment,omitempty"` // for the history, as "modify resource_group app_rg"
	Force       bool   `json:"force,omitempty"`   // accept what would only be warned about
	// Stage keeps the definition until a sync instead of making it active. StagedVersion is then the one that it was made from.
	Stage         bool   `json:"stage,omitempty"`
	StagedVersion uint64 `json:"staged_version,omitempty"`
}

// A StagedRequest activates or drops what is staged, if its version is still this one.
type StagedRequest struct {
	ID      string `json:"id"`
	Version uint64 `json:"version"`
}

// A Diff is what a text would change.
type Diff struct {
	Same    bool     `json:"same"`
	Version uint64   `json:"version"` // of the definition compared with
	Changes []Change `json:"changes,omitempty"`
	// Effects are sentences: what would happen to what runs. Disruptive of them are those by which something that serves stops.
	Effects    []string `json:"effects,omitempty"`
	Disruptive []string `json:"disruptive,omitempty"`
}

// A Change is one difference.
type Change struct {
	Op    string `json:"op"`    // add, delete, modify
	Class string `json:"class"` // as resource_group
	Name  string `json:"name"`
	Attr  string `json:"attr,omitempty"`
	From  string `json:"from,omitempty"`
	To    string `json:"to,omitempty"`
}

// A CheckReport is a verification's result.
type CheckReport struct {
	Faults     []Fault  `json:"faults,omitempty"`      // the definition cannot be used
	Warnings   []string `json:"warnings,omitempty"`    // it can, but
	NotChecked []string `json:"not_checked,omitempty"` // what this verification does not look at
	Checked    []string `json:"checked,omitempty"`     // what it did look at
}

// Recover forces the configuration of a cluster whose majority is lost for good: this node goes on alone. It is the operator's word that
// what is named is dead and stays so; where the word is wrong two nodes may hold one file system.
type Recover struct {
	ID        string   `json:"id"`                   // as Request.ID
	Dead      []string `json:"dead,omitempty"`       // nodes
	Lost      []string `json:"lost,omitempty"`       // repository volumes, by their names in the definition
	Confirm   []string `json:"confirm"`              // the same names again, nodes and volumes, as the operator has typed them
	SkipFence bool     `json:"skip_fence,omitempty"` // the fence devices are not asked: the operator has seen that the power is off
}

// CreateCluster founds a cluster with this node as its first member.
type CreateCluster struct {
	Name  string `json:"name"`
	Node  string `json:"node,omitempty"` // this node's name; empty: its host name
	Nodes []Seed `json:"nodes,omitempty"`
	YAML  string `json:"yaml,omitempty"` // instead of Nodes: a whole definition
	File  string `json:"file,omitempty"`
	// TTL is how long the tokens for the other nodes hold; 0: the daemon's default.
	TTL float64 `json:"ttl_seconds,omitempty"`
}

// A Seed is a node of a new cluster.
type Seed struct {
	Name      string            `json:"name"`
	Addresses map[string]string `json:"addresses,omitempty"` // by network, with prefix length
}

// CreateClusterReply says what was founded and how the others come in.
type CreateClusterReply struct {
	Reply
	UUID string `json:"uuid"`
	// Tokens has one for each other node.
	Tokens []JoinToken `json:"tokens,omitempty"`
}

// NewToken asks for a one-time token for a node that is to join.
type NewToken struct {
	Node      string            `json:"node"`
	Addresses map[string]string `json:"addresses,omitempty"` // by network; needed if the definition does not hold the node
	TTL       float64           `json:"ttl_seconds,omitempty"`
}

// A JoinToken lets one node join once. The token is a secret.
type JoinToken struct {
	Node    string  `json:"node"`
	Token   string  `json:"token"`
	Expires float64 `json:"expires_seconds"`
}

// Join makes the local daemon join a cluster with a token.
type Join struct {
	Token     string   `json:"token"`
	Addresses []string `json:"addresses,omitempty"` // of members to ask; empty: those in the token
	Node      string   `json:"node,omitempty"`      // this node's name; empty: the token's
}

// Admit is what a newcomer sends to a member.
type Admit struct {
	Token   string `json:"token"`
	Node    string `json:"node"`
	CSR     []byte `json:"csr"` // DER
	Version string `json:"version,omitempty"`
}

// AdmitReply is what the newcomer needs to be a member. All of it but the key that stays with the newcomer.
type AdmitReply struct {
	Cluster    string   `json:"cluster"`
	UUID       string   `json:"uuid"`
	Cert       []byte   `json:"cert"`       // DER, for the newcomer
	CA         []byte   `json:"ca"`         // DER
	GossipKey  []byte   `json:"gossip_key"` // secret
	YAML       string   `json:"yaml"`       // the definition
	ServerID   string   `json:"server_id,omitempty"`
	Addresses  []string `json:"addresses,omitempty"` // of members
	Definition uint64   `json:"definition_version"`
}
