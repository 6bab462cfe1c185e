package detector

import (
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// A Path is a way on which a node is heard.
type Path string

// The paths. A node's gossip on a network has the path GossipOn(network).
const (
	PathLease Path = "lease" // a lease request
	PathDisk  Path = "disk"  // a fresh heartbeat on the repository volume
	PathRaft  Path = "raft"  // a message of the replicated log
	PathPeer  Path = "peer"  // a frame of the links between nodes
)

// GossipOn is the path of the ring on a network.
func GossipOn(network string) Path { return Path("gossip " + network) }

// State is what a verdict says.
type State int

// The verdicts. Unknown is the zero value: the node is not watched, or was not heard yet and has some time left.
const (
	Unknown State = iota
	Alive
	Suspect  // worth a direct look; nothing follows from it
	Isolated // only its disk heartbeat is there: alive, and not to be reached
	Lost
)

// String gives the word that is shown.
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Suspect:
		return "suspect"
	case Isolated:
		return "isolated"
	case Lost:
		return "lost"
	}
	return "unknown"
}

// Answer is the outcome of a direct probe.
type Answer int

// The outcomes of a probe.
const (
	Answered Answer = iota // the node's daemon answered
	Refused                // its kernel did: the machine runs, the daemon does not (now)
	TimedOut               // nobody did
)

// Params are the detector's times.
type Params struct {
	// Silence without lease request and disk heartbeat makes a node lost.
	Silence time.Duration
	// Patience is the end of all other signs of life, counted from the last lease request.
	Patience time.Duration
	// Doubt is the silence after which a node is Suspect.
	Doubt time.Duration
	// ProbeEvery is the pause between two probes of one suspect.
	ProbeEvery time.Duration
	// Window is for how long a loss counts as a flap.
	Window time.Duration
}

// ParamsFor derives the detector's times from a cluster's timings. Doubt comes when a lease request is late by a fifth of the
// interval, and not under 60 % of Silence. Patience is L_soft: then a node without grant stops by itself.
func ParamsFor(p lease.Params) Params {
	return Params{
		Silence:    p.Silence,
		Patience:   max(p.Soft, p.Silence),
		Doubt:      min(max(p.Silence*6/10, p.Renew*12/10), p.Silence),
		ProbeEvery: p.Silence / 8,
		Window:     10 * time.Minute,
	}
}

// A Detector holds what was heard.
type Detector struct {
	p        Params
	nodes    map[string]*node
	names    []string // sorted
	lastTick lease.Instant
	leading  bool
}

type node struct {
	since   lease.Instant // no silence is counted before
	heard   map[Path]lease.Instant
	anyAuth bool // heard on a path that counts, ever

	refused  lease.Instant // last refused probe
	failed   int           // probes in a row that timed out; shown, not judged by
	probedAt lease.Instant
	down     map[string]bool // network -> gossip's last word
	hintAt   lease.Instant   // when gossip last said down

	reported State
	lostAt   lease.Instant // not zero: lost until heard on a path that counts
	losses   []lease.Instant
}

// maxLosses bounds the memory of one node's flaps.
const maxLosses = 64

// A Change is a verdict that differs from the one reported before.
type Change struct {
	Node     string
	From, To State
	// Why is a sentence for the log and for the administrator.
	Why string
}

// New makes a detector that watches nobody. now is the moment of the loop's first pass.
func New(p Params, now lease.Instant) *Detector {
	return &Detector{p: p, nodes: map[string]*node{}, lastTick: now}
}

// Leading reports whether the detector judges as a leader.
func (d *Detector) Leading() bool { return d.leading }

// SetParams takes new times, from now on.
func (d *Detector) SetParams(p Params) { d.p = p }

// Watch makes the given nodes the watched ones. A new one is Unknown, and its silence counts from now; others are forgotten.
func (d *Detector) Watch(names []string, now lease.Instant) {
	keep := map[string]*node{}
	for _, n := range names {
		if keep[n] = d.nodes[n]; keep[n] == nil {
			keep[n] = &node{since: now, heard: map[Path]lease.Instant{}, down: map[string]bool{}}
		}
	}
	d.nodes = keep
	d.names = d.names[:0]
	for n := range keep {
		d.names = append(d.names, n)
	}
	sort.Strings(d.names)
}

// Lead tells that this node begins to lead: lease requests come here from now on, and from now on nodes can be Isolated and
// Lost. No silence before counts against a node, except that of the leader before (empty if there was none). That one was
// heard by raft while it led; its silence counts from when it was last heard by raft or peer, and so a crashed leader need not
// be silent for the same time twice.
func (d *Detector) Lead(previous string, now lease.Instant) {
	d.leading, d.lastTick = true, now
	for name, n := range d.nodes {
		n.since, n.reported, n.lostAt, n.anyAuth, n.failed = now, Unknown, 0, false, 0
		if at := n.contact(); name == previous && at != 0 {
			n.since = min(at, now)
		}
	}
}

// Follow tells that this node leads no longer. Lease requests go elsewhere, so that their absence says nothing: verdicts are
// Alive, Suspect or Unknown.
func (d *Detector) Follow() {
	d.leading = false
	for _, n := range d.nodes {
		n.lostAt = 0
	}
}

// Observe takes note that a node was heard on a path. Nodes that are not watched are ignored; so is what is older than what is
// known.
func (d *Detector) Observe(name string, path Path, now lease.Instant) {
	n := d.nodes[name]
	if n == nil || n.heard[path] >= now {
		return
	}
	n.heard[path] = now
	switch path {
	case PathLease, PathDisk:
		n.anyAuth, n.lostAt, n.failed = true, 0, 0
	case PathRaft, PathPeer:
		n.failed = 0
	}
}

// Hint takes gossip's word about a node on one network.
func (d *Detector) Hint(name, network string, up bool, now lease.Instant) {
	n := d.nodes[name]
	if n == nil {
		return
	}
	n.down[network] = !up
	if !up {
		n.hintAt = now
	}
}

// Probe takes the outcome of a direct probe.
func (d *Detector) Probe(name string, a Answer, now lease.Instant) {
	n := d.nodes[name]
	if n == nil {
		return
	}
	switch a {
	case Answered:
		d.Observe(name, PathPeer, now)
	case Refused:
		n.refused, n.failed = max(n.refused, now), 0
	case TimedOut:
		n.failed++
	}
}

// ProbesDue lists the nodes to probe now, in alphabetical order, and takes note that they are being probed.
func (d *Detector) ProbesDue(now lease.Instant) []string {
	var due []string
	for _, name := range d.names {
		n := d.nodes[name]
		if d.leading && d.verdict(n, now) == Suspect && (n.probedAt == 0 || now.Sub(n.probedAt) >= d.p.ProbeEvery) {
			n.probedAt = now
			due = append(due, name)
		}
	}
	return due
}

// Verdict says what is believed of a node now.
func (d *Detector) Verdict(name string, now lease.Instant) State {
	n := d.nodes[name]
	if n == nil {
		return Unknown
	}
	return d.verdict(n, now)
}

// lease is the moment from which the silence of lease requests counts.
func (n *node) lease() lease.Instant { return max(n.since, n.heard[PathLease]) }

// contact is the last direct sign of a running daemon.
func (n *node) contact() lease.Instant { return max(n.heard[PathRaft], n.heard[PathPeer]) }

// last is when the node was last heard over any network; 0 if never. The disk is none: what is there does not say that the node
// can be talked to.
func (n *node) last() lease.Instant {
	var last lease.Instant
	for p, at := range n.heard {
		if p != PathDisk {
			last = max(last, at)
		}
	}
	return last
}

// gossipDown reports whether gossip's last word is "down" on every network that it spoke of, and nothing direct came since.
func (n *node) gossipDown() bool {
	for _, down := range n.down {
		if !down {
			return false
		}
	}
	return len(n.down) > 0 && n.hintAt > max(n.contact(), n.heard[PathLease])
}

// lostIf is the moment at which the node is lost if nothing more is heard of it.
func (d *Detector) lostIf(n *node) lease.Instant {
	from := n.lease()
	last := from.Add(d.p.Silence)
	if alive := max(n.contact(), n.refused); alive != 0 {
		last = max(last, min(alive.Add(d.p.Silence), from.Add(d.p.Patience)))
	}
	return last
}

// ComesBack reports whether a node that the disk showed a while ago is heard over a network, and has not had the time yet to ask for its
// lease: it writes to the volume more rarely as soon as it hears the others. Without this a node that was isolated would be lost in the
// moment in which it is back, and be shot. It lasts no longer than Patience after the last heartbeat on the volume.
func (d *Detector) ComesBack(name string, now lease.Instant) bool {
	n := d.nodes[name]
	return n != nil && d.comesBack(n, now)
}

func (d *Detector) comesBack(n *node, now lease.Instant) bool {
	disk := n.heard[PathDisk]
	return disk != 0 && now.Sub(disk) < d.p.Patience && now.Sub(n.last()) < d.p.Silence
}

func (d *Detector) verdict(n *node, now lease.Instant) State {
	if !d.leading {
		return d.hearsay(n, now)
	}
	if n.lostAt != 0 {
		return Lost
	}
	disk := n.heard[PathDisk]
	diskFresh := disk != 0 && now.Sub(disk) < d.p.Silence
	switch {
	case now >= d.lostIf(n) && (diskFresh || d.comesBack(n, now)):
		return Isolated
	case now >= d.lostIf(n):
		return Lost
	case n.gossipDown(), n.anyAuth && now.Sub(n.lease()) >= d.p.Doubt:
		return Suspect
	case n.anyAuth:
		return Alive
	}
	return Unknown
}

// hearsay is what a node that does not lead can say of another.
func (d *Detector) hearsay(n *node, now lease.Instant) State {
	at := n.last()
	switch {
	case at == 0:
		return Unknown
	case n.gossipDown():
		return Suspect
	case now.Sub(at) < d.p.Silence:
		return Alive
	}
	return Unknown
}

// Changes ends a pass of the loop: it takes the observer's own stall into account and lists the verdicts that are new, in
// alphabetical order of the nodes. It must be called at least as often as Next asks; a pass that comes late is a stall.
func (d *Detector) Changes(now lease.Instant) []Change {
	d.tick(now)
	var out []Change
	for _, name := range d.names {
		n := d.nodes[name]
		v := d.verdict(n, now)
		if v == n.reported {
			continue
		}
		c := Change{Node: name, From: n.reported, To: v, Why: d.why(n, v, now)}
		if v == Lost {
			n.lostAt = now
			if n.reported != Unknown {
				n.losses = append(n.losses, now)
				n.losses = n.losses[max(0, len(n.losses)-maxLosses):]
			}
		}
		n.reported = v
		out = append(out, c)
	}
	return out
}

// tick takes a gap between two passes of the loop out of all silences.
func (d *Detector) tick(now lease.Instant) {
	gap := now.Sub(d.lastTick)
	d.lastTick = max(d.lastTick, now)
	if !d.leading || gap <= d.p.Silence/3 {
		return
	}
	shift := func(at lease.Instant) lease.Instant {
		if at == 0 {
			return 0
		}
		return max(at, min(at.Add(gap), now))
	}
	for _, n := range d.nodes {
		n.since, n.refused = shift(n.since), shift(n.refused)
		for p, at := range n.heard {
			n.heard[p] = shift(at)
		}
		// A probe that timed out meanwhile may have been answered, and gossip stood still as well.
		n.failed = 0
		n.hintAt = min(n.hintAt, n.contact())
	}
}

// Next is the latest moment at which Changes must be called again, if nothing is observed before. For a leader it is never
// further away than Silence/4, because a stall shows only in passes that come late; other nodes have nothing to wait for.
func (d *Detector) Next(now lease.Instant) lease.Instant {
	if len(d.names) == 0 || !d.leading {
		return now.Add(time.Hour)
	}
	next := now.Add(d.p.Silence / 4)
	for _, name := range d.names {
		n := d.nodes[name]
		if n.lostAt != 0 {
			continue
		}
		for _, at := range []lease.Instant{d.lostIf(n), n.lease().Add(d.p.Doubt), n.heard[PathDisk].Add(d.p.Silence),
			n.probedAt.Add(d.p.ProbeEvery)} {
			if at > now && at < next {
				next = at
			}
		}
	}
	return next
}

// OnDisk reports whether the node's heartbeat on the repository volume is fresh.
func (d *Detector) OnDisk(name string, now lease.Instant) bool {
	n := d.nodes[name]
	return n != nil && n.heard[PathDisk] != 0 && now.Sub(n.heard[PathDisk]) < d.p.Silence
}

// Silent is how long ago the node was last heard over any network, gossip included. ok is false if it never was.
func (d *Detector) Silent(name string, now lease.Instant) (silence time.Duration, ok bool) {
	n := d.nodes[name]
	if n == nil {
		return 0, false
	}
	last := n.last()
	if last == 0 {
		return 0, false
	}
	return max(now.Sub(last), 0), true
}

// Flaps is how often the node was lost, after it had been heard, within the last Window. It is for restraint: a node that comes
// and goes should not take its groups along each time.
func (d *Detector) Flaps(name string, now lease.Instant) int {
	n := d.nodes[name]
	if n == nil {
		return 0
	}
	count := 0
	for _, at := range n.losses {
		if now.Sub(at) < d.p.Window {
			count++
		}
	}
	return count
}

// A Heard is when a node was last heard on a path.
type Heard struct {
	Path Path
	Ago  time.Duration
}

// Heard lists the paths on which a node was heard, in alphabetical order.
func (d *Detector) Heard(name string, now lease.Instant) []Heard {
	n := d.nodes[name]
	if n == nil {
		return nil
	}
	out := make([]Heard, 0, len(n.heard))
	for p, at := range n.heard {
		out = append(out, Heard{p, max(now.Sub(at), 0)})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return out
}

// why says what led to a verdict.
func (d *Detector) why(n *node, v State, now lease.Instant) string {
	ms := func(at lease.Instant) string { return now.Sub(at).Round(time.Millisecond).String() }
	var parts []string
	add := func(s ...string) { parts = append(parts, strings.Join(s, "")) }
	if v == Isolated {
		add("isolated: only its heartbeat on the repository volume is there")
	}
	switch {
	case v == Alive && d.leading:
		return "it asks for its lease"
	case v == Alive:
		return "it is heard"
	case v == Unknown && n.last() == 0:
		return "it was not heard yet"
	case !d.leading:
	case n.heard[PathLease] == 0:
		add("no lease request since it is watched, ", ms(n.since))
	default:
		add("no lease request for ", ms(n.heard[PathLease]))
	}
	if at := n.contact(); at != 0 {
		add("no other message for ", ms(at))
	}
	if n.heard[PathDisk] != 0 {
		add("last disk heartbeat ", ms(n.heard[PathDisk]), " ago")
	}
	if n.refused != 0 && n.refused > n.contact() {
		add("its kernel refused a connection ", ms(n.refused), " ago")
	}
	if n.failed > 0 {
		add("probes without answer: ", strconv.Itoa(n.failed))
	}
	if n.gossipDown() {
		add("gossip calls it down on all networks")
	}
	return strings.Join(parts, "; ")
}
