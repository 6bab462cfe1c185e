package lease

import (
	"fmt"
	"time"
)

// Class says what stands behind a deadman.
type Class string

const (
	// Independent is a watchdog outside every process of the node: a device, or the lab's. Its expiry is proof by time.
	Independent Class = "independent"
	// Process is a timer that is itself a process of the node (reboot(2), halt -q: what AIX has). Silence of such a node
	// proves nothing (attack A4).
	Process Class = "process"
)

// Mode is what a deadman does when its lease has run out.
type Mode string

const (
	ModeReset Mode = "a" // reset the node
	ModeEvent Mode = "e" // raise an event for a human; never proof by time
)

// Armed is the fact that a node commits before its first start in an arming: by these values, and never by the definition's,
// its silence is judged.
type Armed struct {
	Node        string        `json:"node"`
	Incarnation uint64        `json:"incarnation"`
	Class       Class         `json:"class"`
	Mode        Mode          `json:"mode"`
	Watchdog    time.Duration `json:"watchdog"` // W in force, read back from the device; doubled where nobody else can hold its descriptor
	MaxAge      time.Duration `json:"max_age"`
	Residue     time.Duration `json:"residue"`
	Margin      time.Duration `json:"margin"`
	Waived      bool          `json:"waived,omitempty"` // the operator waived the class: the assumption is printed with the guarantees
}

// Expiry is how long after t0 the node's resources are surely gone, if TimeProves.
func (a Armed) Expiry() time.Duration { return expiry(a.MaxAge, a.Watchdog, a.Residue, a.Margin) }

// TimeProves reports whether the passing of time can prove the node's resources gone.
func (a Armed) TimeProves() bool {
	return a.Mode == ModeReset && (a.Class == Independent || a.Class == Process && a.Waived)
}

// A TimeProof is the leader's statement that an incarnation's lease has certainly run out. State's Apply repeats the
// arithmetic with Check; the two clock readings are the only thing taken on trust, and only a Grantor makes one.
type TimeProof struct {
	T0    Instant `json:"t0"`  // on the leader's clock
	Now   Instant `json:"now"` // on the leader's clock
	Armed Armed   `json:"armed"`
}

// Check repeats the proof's arithmetic against the newest committed Armed fact of the incarnation.
func (p TimeProof) Check(committed Armed) error {
	switch {
	case p.Armed != committed:
		return fmt.Errorf("the proof was computed with other values than node %s armed", committed.Node)
	case !committed.TimeProves():
		return fmt.Errorf("the deadman of node %s is of class %s in mode %s: its silence is no proof", committed.Node, committed.Class, committed.Mode)
	case p.T0 <= 0 || p.Now.Sub(p.T0) < committed.Expiry():
		return fmt.Errorf("only %v have passed since t0, %v are needed", p.Now.Sub(p.T0), committed.Expiry())
	}
	return nil
}
