// Package api is the wire between the daemon and everything that talks to it: paths, requests, replies, error codes.
//
// It holds plain values for JSON and imports the standard library only, so that a thin client links nothing else. It promises
// that fields are added and never change their meaning within one version of the path prefix; readers ignore fields that they
// do not know, while the server refuses unknown fields in a write, because an option that is ignored would do something else
// than what was asked.
//
// It does not promise freshness: a Status says itself how old the knowledge behind it is (Cluster.AgeSeconds), and a value
// that is not known is absent or "UNKNOWN", never a guess. Times in it are wall clock, for people to read; no safety decision
// uses them.
package api

import "time"

// Where the daemon listens for local commands, unless told otherwise.
const (
	DefaultSocket = "/run/holdfast/clstrmgrd.sock"
	SocketEnv     = "HOLDFAST_SOCKET" // names another socket; an empty value counts as unset
)

// The paths. GET reads, POST and PUT write; a read may be made by every role.
const (
	PathStatus     = "/v1/status"           // GET ?since=VERSION&instance=ID&wait=SECONDS -> Status
	PathOpenAPI    = "/v1/openapi.json"     // GET -> the description of all this, an OpenAPI 3.1 document
	PathEvents     = "/v1/events"           // GET ?since=ID&limit=N -> EventList; with follow a stream (StreamLost, StreamEnd)
	PathDefinition = "/v1/definition"       // GET ?staged=yes (what is staged, if anything is) -> Definition; PUT DefinitionChange -> Reply
	PathDiff       = "/v1/definition/diff"  // POST DefinitionText -> Diff (a read: changes nothing)
	PathCheck      = "/v1/definition/check" // POST DefinitionText -> CheckReport (a read)
	PathSync       = "/v1/definition/sync"  // POST StagedRequest -> Reply: what is staged becomes active
	PathUndo       = "/v1/definition/undo"  // POST StagedRequest -> Reply: what is staged is dropped
	PathAudit      = "/v1/audit"            // GET ?limit=N -> AuditList
	PathSnapshots  = "/v1/snapshots"        // GET -> SnapshotList, or with ?name= SnapshotText; POST NewSnapshot, DELETE ?name= -> SnapshotReply
	PathVerify     = "/v1/verify"           // POST VerifyRequest -> VerifyReport
	PathExplain    = "/v1/explain"          // GET ?group=NAME&node=NAME -> Explanation
	PathHealth     = "/v1/health"           // GET -> Health
	PathState      = "/v1/state"            // GET -> State: the replicated state as a whole, for simulation
	PathRequests   = "/v1/requests"         // POST Request -> Reply
	PathCluster    = "/v1/cluster"          // POST CreateCluster -> CreateClusterReply; DELETE -> Reply (this node leaves)
	PathTokens     = "/v1/tokens"           // POST NewToken -> JoinToken
	PathRecover    = "/v1/recover"          // POST Recover -> Reply (this node goes on without the majority)
	PathJoin       = "/v1/join"             // POST Join -> Reply (the local daemon joins a cluster)
	PathLocks      = "/v1/locks"            // GET ?name=NAME&since=VERSION&wait=SECONDS -> LockList
	PathLockOpen   = "/v1/locks/open"       // POST LockOpen -> LockSession (a session on this node)
	PathLockKeep   = "/v1/locks/keep"       // POST LockKeep -> LockKept: answers late, or when the session is lost
	PathLockTake   = "/v1/locks/acquire"    // POST LockTake -> LockTaken: answers when the lock is held, or when the wait is over
	PathLockGive   = "/v1/locks/release"    // POST LockGive -> Reply
	PathLockClose  = "/v1/locks/close"      // POST LockClose -> Reply
	PathRemote     = "/v1/remote"           // POST RemoteRequest begins it, GET ?id=ID&since=VERSION&wait=SECONDS follows it -> RemoteOperation
	PathAdmit      = "/v1/admit"            // POST Admit -> AdmitReply (a member admits a newcomer; the token is the credential)
)

// The stream of events is text/event-stream. Each event is a message without a name, whose id is the event's and whose data is an
// Event. A reader that comes back with the header Last-Event-ID, to this daemon or another of the cluster, gets what followed. Two
// messages have names and a StreamNote as data:
const (
	StreamLost = "lost" // events between the last one and the next are no longer kept
	StreamEnd  = "end"  // the daemon ends the stream, and says why
)

// A StreamNote is what the stream says of itself.
type StreamNote struct {
	Sentence string `json:"sentence"`
}

// HeaderOnBehalf carries, in a call from a member node, the caller whose command the node passes on (a Caller in JSON). The
// server reads it from members only.
const HeaderOnBehalf = "Holdfast-On-Behalf-Of"

// Limits of the wire. The server refuses what is longer.
const (
	MaxBody       = 64 << 10 // bytes of a request
	MaxDefinition = 4 << 20  // bytes of a definition's text
	MaxAnswer     = 32 << 20 // bytes of an answer that a client reads
	MaxEvents     = 10000    // events in one answer
	MaxWait       = 55 * time.Second
)

// A Role says what a caller may do. Each includes the ones before it.
type Role string

// The roles.
const (
	RoleNone    Role = ""
	RoleView    Role = "view"
	RoleOperate Role = "operate" // move, online, offline, clear, suspend, start and stop of services; locks
	RoleAdmin   Role = "admin"   // the definition, membership, confirmations of death
)

// Allows reports whether the role includes the needed one. An unknown role allows nothing.
func (r Role) Allows(need Role) bool { return rank(r) >= rank(need) && rank(r) > 0 }

func rank(r Role) int {
	switch r {
	case RoleView:
		return 1
	case RoleOperate:
		return 2
	case RoleAdmin:
		return 3
	}
	return 0
}

// A Caller is who asks, as the server found out from the connection; nothing in it is taken from the caller's own words.
type Caller struct {
	User string `json:"user"` // the name, or the numeric id if it has none
	UID  int    `json:"uid"`  // -1 where there is none
	Role Role   `json:"role"`
	// Command says that the caller may run commands of its choice on the nodes, where the definition allows any (FREE_COMMANDS).
	// No role includes it.
	Command bool `json:"command,omitempty"`
	// Node is the member that passed the command on; empty for a command given on this node. A backend never forwards a
	// command that already came from a member.
	Node string `json:"node,omitempty"`
}

// String is the caller as the audit line shows it.
func (c Caller) String() string {
	s := c.User
	if s == "" {
		s = "unknown"
	}
	if c.Node != "" {
		s += " via " + c.Node
	}
	return s
}
