package api

import "time"

// Locks. A client opens a session at the daemon of its own node, keeps it with calls of PathLockKeep that follow one another, takes
// and releases locks in it, and closes it. One call of PathLockKeep hangs at any time: its end without an answer is the client's end.
//
// The session's client holds its locks for certain only until TTLSeconds have passed since it began its last answered call of
// PathLockKeep; then, or when the answer says that the session is lost, it must have stopped what it does under a lock. A daemon that
// does not answer may be restarting: until then the client opens the session again, with Again.

// LockOpen opens a session. With Again it finds the open one that Session names, after the daemon was restarted.
type LockOpen struct {
	TTLSeconds float64 `json:"ttl_seconds,omitempty"` // 5 to 600; 0: DefaultLockTTL. Not with Again
	Session    string  `json:"session,omitempty"`     // only with Again
	Again      bool    `json:"again,omitempty"`
}

// DefaultLockTTL is a session's TTL where none is asked for.
const DefaultLockTTL = 15 * time.Second

// A LockSession is an open session.
type LockSession struct {
	Session    string  `json:"session"`
	TTLSeconds float64 `json:"ttl_seconds"`
	Node       string  `json:"node"`
}

// LockKeep says that the session's client lives, and asks to hear of the session's loss. The answer comes when it is lost, or after
// about WaitSeconds, at most a third of the TTL.
type LockKeep struct {
	Session     string  `json:"session"`
	WaitSeconds float64 `json:"wait_seconds,omitempty"`
}

// LockKept is the answer. A session with a sentence in Lost is over, or must be taken to be. Gone lists locks that were held and are not
// any more although the session lives: an operator has taken them.
type LockKept struct {
	Lost string   `json:"lost,omitempty"`
	Gone []string `json:"gone,omitempty"`
}

// LockTake asks for a lock. Seq grows with each LockTake and LockGive of a session; the same again is the same request, with the same
// result. With Wait it gets in line, and the answer comes when it is held or WaitSeconds have passed; 0 then means without a limit. A
// call whose caller goes away, or whose wait is over, leaves the line.
type LockTake struct {
	Session     string  `json:"session"`
	Seq         uint64  `json:"seq"`
	Name        string  `json:"name"` // 1 to 64 letters, digits and . _ : / @ + -
	Shared      bool    `json:"shared,omitempty"`
	Wait        bool    `json:"wait,omitempty"`
	WaitSeconds float64 `json:"wait_seconds,omitempty"`
}

// LockTaken is the answer: held with a token, or not, with the reason.
type LockTaken struct {
	Held bool `json:"held"`
	// Token is larger than every token that was given before, for any lock. A resource that refuses a token smaller than one that it has
	// seen is safe from a holder that has lost its lock and does not know it yet.
	Token uint64 `json:"token,omitempty"`
	// Busy is why it is not held: somebody else has it. Refused is any other reason.
	Busy    string `json:"busy,omitempty"`
	Refused string `json:"refused,omitempty"`
}

// LockGive releases a lock.
type LockGive struct {
	Session string `json:"session"`
	Seq     uint64 `json:"seq"`
	Name    string `json:"name"`
}

// LockClose ends a session and frees all that it holds.
type LockClose struct {
	Session string `json:"session"`
}

// A LockList is what this node knows of the cluster's locks.
type LockList struct {
	Version uint64 `json:"version"` // of the locks: grows with each change. Ask with since=VERSION and wait=SECONDS for the next
	Locks   []Lock `json:"locks"`   // by name; those that somebody holds or waits for
}

// A Lock is one of them.
type Lock struct {
	Name    string      `json:"name"`
	Mode    string      `json:"mode"` // exclusive or shared: of the holders
	Holders []LockShare `json:"holders,omitempty"`
	Waiters []LockShare `json:"waiters,omitempty"` // in their order
}

// A LockShare is a session's part in a lock.
type LockShare struct {
	Session string    `json:"session"`
	Node    string    `json:"node"`
	Who     string    `json:"who,omitempty"`
	Mode    string    `json:"mode"`
	Token   uint64    `json:"token,omitempty"` // of a holder
	Since   time.Time `json:"since"`           // held, or waiting, since; wall time
	// Silent says that nothing is heard of the node: the lock stays until its end is certain.
	Silent bool `json:"silent,omitempty"`
}

// GoodSession reports whether the text can be the id of a session that a daemon has opened: 32 hexadecimal digits.
func GoodSession(id string) bool {
	for _, r := range id {
		if (r < 'a' || r > 'f') && (r < '0' || r > '9') {
			return false
		}
	}
	return len(id) == 32
}
