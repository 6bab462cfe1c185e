// Package wire is the protocol between an agent and its deadman: frames of one fixed size over a unix stream socket, so that
// the deadman can read and write them without allocating.
//
// It promises that Decode refuses what Encode cannot have written, with the field named. It does not authenticate: the socket's
// mode and the peer's credentials do that.
package wire

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// Size is the length of every frame, in bytes.
const Size = 128

// Version is the protocol's version. Agent and deadman of different versions refuse each other.
const Version = 2

// MaxWarnings is how many warnings one frame carries.
const MaxWarnings = 12

// A Kind says what a frame is.
type Kind uint8

// The kinds. The first group goes from the agent to the deadman, the second back.
const (
	Hello  Kind = 1 + iota // settings: first frame of a connection, and again for each change
	Renew                  // ask out of turn
	Grant                  // a leader's answer to one Request
	Arm                    // from now on pet only under grants
	Disarm                 // everything here was probed stopped: pet freely
	Holds                  // whether the node has started something in this arming
	Reset                  // reset this node at once: it heard that it must not live on

	Info    // what stands behind the deadman and how it is
	Request // a nonce, and the moment it was drawn: to be carried to the leader
	Ack     // the answer to the frame of the same Seq
	Status  // figures, after each grant
	Event   // something that a human or the agent should know

	lastKind = Event // the highest that Decode knows
)

// A Code answers one frame.
type Code uint8

// The codes of an Ack. Text gives each a sentence.
const (
	OK            Code = iota
	TooOld             // the grant is older than A, or older than one already taken
	UnknownNonce       // the nonce was never drawn for this connection, or was already answered or voided
	NotArmed           // the deadman is disarmed
	NoSettings         // no settings were given yet
	BadSettings        // the timings do not fit together
	ShortWatchdog      // L_hard is over the watchdog's timeout in force
	DeviceFailed       // the watchdog refused the operation
	Resetting          // the deadman has decided to reset the node
	LeaseRanOut        // mode e cannot be left while the lease has run out
	NotAgent           // the frame is none that an agent sends
	Pending            // settings: taken, in force with the next pet; the final answer follows under the same Seq
	lastCode      = Pending
)

var codeText = [...]string{
	OK:            "done",
	TooOld:        "the grant is too old",
	UnknownNonce:  "the grant answers no open request of this connection",
	NotArmed:      "the deadman is disarmed",
	NoSettings:    "the deadman has no settings yet",
	BadSettings:   "the timings do not fit together",
	ShortWatchdog: "l_hard is over the watchdog timeout that the device has in force",
	DeviceFailed:  "the watchdog device refused the operation",
	Resetting:     "the deadman is resetting the node",
	LeaseRanOut:   "the lease has run out: mode e can be left only under a fresh lease",
	NotAgent:      "the deadman does not take such a frame",
	Pending:       "the settings come into force with the next grant",
}

// Text is the code's sentence.
func (c Code) Text() string {
	if int(c) < len(codeText) {
		return codeText[c]
	}
	return "unknown answer"
}

// A Reason says why a deadman resets the node, or what happened where it may not.
type Reason uint8

// The reasons of resets and events.
const (
	NoReason     Reason = iota
	LeaseLost           // L_hard without a newer grant
	PetLate             // a pet ended after its kill time: it may have been later than the leader counts with
	Suspended           // BOOTTIME grew against MONOTONIC: the machine slept
	Asked               // the agent asked: the cluster has declared this boot dead
	ClockLost           // the leader's clock advanced further than ours can explain: we were paused
	SelfDisarmed        // L_hard passed, and nothing had been started: disarmed instead of reset
	StopRefused         // a clean stop was asked for while armed, or of a watchdog that cannot be stopped
	HolderLost          // nobody else holds the watchdog's descriptor any more
	PetFailed           // the watchdog refused a pet
	lastReason   = PetFailed
)

var reasonText = [...]string{
	NoReason:     "",
	LeaseLost:    "no grant within l_hard: the lease has run out",
	PetLate:      "a pet ended after its limit t_req + A + p",
	Suspended:    "the machine was suspended: CLOCK_BOOTTIME grew against CLOCK_MONOTONIC by more than p",
	Asked:        "the agent asked for it: the cluster has declared this boot dead, or it must give up what it holds",
	ClockLost:    "the machine was paused: the leader's clock advanced by more than p beyond ours",
	SelfDisarmed: "no grant within l_hard and nothing started: disarmed",
	StopRefused:  "a clean stop was refused: the deadman is armed, or its watchdog cannot be stopped",
	HolderLost:   "nobody else holds the watchdog's descriptor: its timeout counts twice",
	PetFailed:    "the watchdog device refused a pet",
}

// Text is the reason's sentence.
func (r Reason) Text() string {
	if int(r) < len(reasonText) {
		return reasonText[r]
	}
	return "unknown reason"
}

// A Trouble is one thing that the process could not do at its start.
type Trouble uint8

// The troubles that a Warning names.
const (
	NoTrouble      Trouble = iota
	NoRealtime             // real-time priority
	NoMemoryLock           // memory lock
	NoOOMScore             // protection from the out-of-memory killer
	NoCgroup               // leaving the caller's cgroup
	NoKillTimer            // the absolute kill timer
	NoSysrq                // opening /proc/sysrq-trigger
	NotHeldTwice           // nobody else holds the descriptor
	SoftwareDevice         // a software watchdog that does not count as independent
	NoNowayout             // the watchdog can be stopped by who may open it
	UnknownWayout          // whether it can be stopped is unknown
	PlainTimers            // no real-time clockwork on this system
	MuchLocked             // more memory locked than promised
	lastTrouble    = MuchLocked
)

// A Warning is a trouble and the system's error number, 0 where there is none.
type Warning struct {
	Trouble Trouble
	Errno   uint16
}

// Settings are the timings and the mode that the agent gives.
type Settings struct {
	Watchdog, Hard, MaxAge, Margin, Renew time.Duration
	ModeEvent                             bool // mode e
}

// State is what an Info carries.
type State struct {
	Independent bool          // class; else process
	ModeEvent   bool          // mode in force
	Armed       bool          // pets only under grants
	Held        bool          // somebody else holds the descriptor too
	TakenOver   bool          // the descriptor came from a predecessor: armed until the agent disarms
	NoWayOut    bool          // the watchdog cannot be stopped
	Pid         uint32        // of the deadman
	Watchdog    time.Duration // in force at the device
	Started     lease.Instant // when the process began
	ArmedAt     lease.Instant // when the present arming began, 0 if disarmed
	Warnings    [MaxWarnings]Warning
	Fired       bool // the device says that it ended the machine before this boot
}

// Figures are what a Status carries.
type Figures struct {
	Granted   lease.Instant // t_req of the newest grant taken
	PettedAt  lease.Instant // when the last pet ended
	Margin    time.Duration // how long before its kill time the last pet under a grant ended
	MinMargin time.Duration // the smallest Margin so far; 0 before the first
	Pets      uint64
	Asked     uint64
	Taken     uint64
	Late      uint64 // grants that came too late to be taken
	Refused   uint64 // grants refused for any other reason
}

// A Message is one decoded frame; only the fields of its Kind mean anything.
type Message struct {
	Kind     Kind
	Seq      uint32 // of the frame, or in an Ack of the frame it answers
	Settings Settings
	Nonce    lease.Nonce
	At       lease.Instant // Request: t_req. Event: when
	Boot     [16]byte      // Grant: digest of the leader's boot id
	Time     lease.Instant // Grant: the leader's clock
	Next     time.Duration // Grant: when to ask again, 0 for the deadman's own pace
	Started  bool          // Holds
	Code     Code          // Ack
	Reason   Reason        // Event
	Dooms    bool          // Event: the node is being reset for that reason
	State    State         // Info
	Figures  Figures       // Status
}

// The errors of Decode.
var (
	ErrMagic   = errors.New("the frame does not begin with the deadman protocol's mark")
	ErrVersion = errors.New("the frame is of another version of the deadman protocol")
	ErrKind    = errors.New("the frame's kind is unknown")
	ErrValue   = errors.New("a field of the frame is outside its range")
	ErrPadding = errors.New("the frame carries bytes that its kind does not have")
)

// MaxNext bounds Message.Next.
const MaxNext = maxDuration

// maxDuration bounds every duration on the wire: one hour is far over anything that pkg/lease allows.
const maxDuration = time.Hour

// cursor walks over a frame. It keeps the first fault.
type cursor struct {
	b   *[Size]byte
	at  int
	bad bool
}

func (c *cursor) u8() uint8 { v := c.b[c.at]; c.at++; return v }
func (c *cursor) u16() uint16 {
	v := binary.BigEndian.Uint16(c.b[c.at:])
	c.at += 2
	return v
}
func (c *cursor) u32() uint32 {
	v := binary.BigEndian.Uint32(c.b[c.at:])
	c.at += 4
	return v
}
func (c *cursor) u64() uint64 {
	v := binary.BigEndian.Uint64(c.b[c.at:])
	c.at += 8
	return v
}
func (c *cursor) bool() bool {
	v := c.u8()
	c.bad = c.bad || v > 1
	return v == 1
}
func (c *cursor) duration() time.Duration {
	v := c.u64()
	c.bad = c.bad || v > uint64(maxDuration)
	return time.Duration(v)
}
func (c *cursor) instant() lease.Instant {
	v := c.u64()
	c.bad = c.bad || v > 1<<62
	return lease.Instant(v)
}
func (c *cursor) bytes16(to *[16]byte) {
	copy(to[:], c.b[c.at:c.at+16])
	c.at += 16
}

func (c *cursor) put8(v uint8) { c.b[c.at] = v; c.at++ }
func (c *cursor) put16(v uint16) {
	binary.BigEndian.PutUint16(c.b[c.at:], v)
	c.at += 2
}
func (c *cursor) put32(v uint32) {
	binary.BigEndian.PutUint32(c.b[c.at:], v)
	c.at += 4
}
func (c *cursor) put64(v uint64) {
	binary.BigEndian.PutUint64(c.b[c.at:], v)
	c.at += 8
}
func (c *cursor) putBool(v bool) {
	if v {
		c.put8(1)
		return
	}
	c.put8(0)
}
func (c *cursor) put16bytes(v *[16]byte) {
	copy(c.b[c.at:], v[:])
	c.at += 16
}

// Encode writes the message into the frame. It never fails: values out of range are the caller's bug, and Decode refuses them.
func Encode(m *Message, b *[Size]byte) {
	*b = [Size]byte{'H', 'D', Version, uint8(m.Kind)}
	c := cursor{b: b, at: 4}
	c.put32(m.Seq)
	switch m.Kind {
	case Hello:
		s := &m.Settings
		c.put64(uint64(s.Watchdog))
		c.put64(uint64(s.Hard))
		c.put64(uint64(s.MaxAge))
		c.put64(uint64(s.Margin))
		c.put64(uint64(s.Renew))
		c.putBool(s.ModeEvent)
	case Grant:
		c.put16bytes((*[16]byte)(&m.Nonce))
		c.put16bytes(&m.Boot)
		c.put64(uint64(m.Time))
		c.put64(uint64(m.Next))
	case Holds:
		c.putBool(m.Started)
	case Info:
		c.putState(&m.State)
	case Request:
		c.put16bytes((*[16]byte)(&m.Nonce))
		c.put64(uint64(m.At))
	case Ack:
		c.put8(uint8(m.Code))
	case Status:
		c.putFigures(&m.Figures)
	case Event:
		c.put8(uint8(m.Reason))
		c.put64(uint64(m.At))
		c.putBool(m.Dooms)
	}
}

func (c *cursor) putState(s *State) {
	c.putBool(s.Independent)
	c.putBool(s.ModeEvent)
	c.putBool(s.Armed)
	c.putBool(s.Held)
	c.putBool(s.TakenOver)
	c.putBool(s.NoWayOut)
	c.put32(s.Pid)
	c.put64(uint64(s.Watchdog))
	c.put64(uint64(s.Started))
	c.put64(uint64(s.ArmedAt))
	for _, w := range s.Warnings {
		c.put8(uint8(w.Trouble))
		c.put16(w.Errno)
	}
	c.putBool(s.Fired) // last: a peer that does not know it yet reads the padding, which says no
}

func (c *cursor) putFigures(f *Figures) {
	c.put64(uint64(f.Granted))
	c.put64(uint64(f.PettedAt))
	c.put64(uint64(f.Margin))
	c.put64(uint64(f.MinMargin))
	c.put64(f.Pets)
	c.put64(f.Asked)
	c.put64(f.Taken)
	c.put64(f.Late)
	c.put64(f.Refused)
}

// Decode reads the frame into the message. On an error the message is not to be used.
func Decode(b *[Size]byte, m *Message) error {
	if b[0] != 'H' || b[1] != 'D' {
		return ErrMagic
	}
	if b[2] != Version {
		return ErrVersion
	}
	*m = Message{Kind: Kind(b[3])}
	c := cursor{b: b, at: 4}
	m.Seq = c.u32()
	switch m.Kind {
	case Hello:
		s := &m.Settings
		s.Watchdog, s.Hard, s.MaxAge = c.duration(), c.duration(), c.duration()
		s.Margin, s.Renew = c.duration(), c.duration()
		s.ModeEvent = c.bool()
	case Renew, Arm, Disarm, Reset:
	case Grant:
		c.bytes16((*[16]byte)(&m.Nonce))
		c.bytes16(&m.Boot)
		m.Time = c.instant()
		m.Next = c.duration()
	case Holds:
		m.Started = c.bool()
	case Info:
		c.state(&m.State)
	case Request:
		c.bytes16((*[16]byte)(&m.Nonce))
		m.At = c.instant()
	case Ack:
		m.Code = Code(c.u8())
		c.bad = c.bad || m.Code > lastCode
	case Status:
		c.figures(&m.Figures)
	case Event:
		m.Reason = Reason(c.u8())
		m.At = c.instant()
		m.Dooms = c.bool()
		c.bad = c.bad || m.Reason > lastReason
	default:
		return ErrKind
	}
	if c.bad {
		return ErrValue
	}
	for _, v := range b[c.at:] {
		if v != 0 {
			return ErrPadding
		}
	}
	return nil
}

func (c *cursor) state(s *State) {
	s.Independent, s.ModeEvent, s.Armed = c.bool(), c.bool(), c.bool()
	s.Held, s.TakenOver, s.NoWayOut = c.bool(), c.bool(), c.bool()
	s.Pid = c.u32()
	s.Watchdog = c.duration()
	s.Started, s.ArmedAt = c.instant(), c.instant()
	for i := range s.Warnings {
		s.Warnings[i] = Warning{Trouble: Trouble(c.u8()), Errno: c.u16()}
		c.bad = c.bad || s.Warnings[i].Trouble > lastTrouble
	}
	s.Fired = c.bool()
}

func (c *cursor) figures(f *Figures) {
	f.Granted, f.PettedAt = c.instant(), c.instant()
	f.Margin, f.MinMargin = c.duration(), c.duration()
	f.Pets, f.Asked, f.Taken, f.Late, f.Refused = c.u64(), c.u64(), c.u64(), c.u64(), c.u64()
}
