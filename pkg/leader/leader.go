package leader

import (
	"fmt"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// refusedPause keeps a leader and a state that disagree from filling the log.
const refusedPause = 300 * time.Millisecond

// Duties are what one node has to do in one term of its leadership. They are not safe for concurrent use.
type Duties struct {
	self string
	book *lease.Grantor

	fencing     map[lease.Subject]*fencing
	proofsAfter lease.Instant                   // no proof before: one was refused, and would be again
	plansAfter  lease.Instant                   // no plan before: a proposal was refused, and would be again
	planned     uint64                          // index that the last plan was made on; 0: none, or it is void
	lockless    map[lease.Subject]lease.Instant // over, with lock sessions left: since when that is seen
	nextPlan    time.Time                       // when the plan may change by time alone; zero: never
}

// New begins a term of the node's leadership, with the term's book of grants.
func New(self string, book *lease.Grantor) *Duties {
	return &Duties{self: self, book: book, fencing: map[lease.Subject]*fencing{}, lockless: map[lease.Subject]lease.Instant{}}
}

// A Look is what the leader knows at one moment.
type Look struct {
	Now         lease.Instant
	View        *state.State       // the newest committed state
	Incarnation uint64             // of this node, as the log numbers this boot; 0: not yet
	Detector    *detector.Detector // judges as a leader; only read
	Why         map[string]string  // the detector's last word on each node, for the log
	// Isolated is since when the detector calls a node isolated: only its heartbeat on the repository volume is there.
	Isolated map[string]lease.Instant
	Params   lease.Params // the timings in force
}

// A Proposal is a command for the log.
type Proposal struct {
	Command *state.Command
	// Doomed is whom a proof is against; nobody for other commands. It gets no grant until the log has refused the proof.
	Doomed lease.Subject
}

func fact(c state.Command) Proposal { return Proposal{Command: &c} }

// A Shot is an order to switch a silent incarnation off, by the devices of one level: all of them must say that it is off.
type Shot struct {
	Subject lease.Subject
	Devices []cluster.FenceDevice
}

// Findings lists what is to be said of the nodes: which are silent and which are heard again, or, when there is nothing of that, which
// are dead; and whose locks end by time. The shots are at those against whom there is no proof yet: the caller answers each by Fired or
// Held before it calls again.
func (d *Duties) Findings(l Look) ([]Proposal, []Shot) {
	found := d.facts(l)
	var shots []Shot
	if len(found) == 0 && l.Now >= d.proofsAfter {
		found, shots = d.proofs(l)
	}
	return append(found, d.lockEnds(l)...), shots
}

// facts turns what the detector sees into proposals.
func (d *Duties) facts(l Look) []Proposal {
	var out []Proposal
	for _, name := range l.View.NodeNames() {
		n := l.View.Node(name)
		if n == nil || n.Incarnation == 0 || n.Dead != nil {
			continue
		}
		found := fact(state.Command{NodeFound: &state.NodeFound{Node: name, Incarnation: n.Incarnation}})
		if name == d.self { // an earlier leader may have lost it
			if n.Lost != nil && n.Incarnation == l.Incarnation {
				out = append(out, found)
			}
			continue
		}
		switch verdict := l.Detector.Verdict(name, l.Now); {
		case verdict == detector.Lost && n.Lost == nil:
			out = append(out, fact(state.Command{NodeLost: &state.NodeLost{Node: name, Incarnation: n.Incarnation, Sentence: l.Why[name]}}))
		case verdict == detector.Isolated && n.Lost == nil && l.isolatedFor(name) >= l.Params.Silence/2:
			// Not at once: the last heartbeat on the volume of a node that has crashed may be a little younger than its last message.
			out = append(out, fact(state.Command{NodeLost: &state.NodeLost{Node: name, Incarnation: n.Incarnation, Sentence: l.Why[name]}}))
		case verdict == detector.Alive && n.Lost != nil && !d.doomed(lease.Subject{Node: name, Incarnation: n.Incarnation}):
			out = append(out, found)
		}
	}
	return out
}

// isolatedFor is how long the node has been isolated; negative: it is not.
func (l *Look) isolatedFor(node string) time.Duration {
	since := l.Isolated[node]
	if since == 0 {
		return -1
	}
	return l.Now.Sub(since)
}

func (d *Duties) doomed(s lease.Subject) bool { return d.book.Ready() && !d.book.MayGrant(s) }

// proofs looks for a proof of death of each silent incarnation: none armed, time, fence. The first that holds is proposed.
func (d *Duties) proofs(l Look) (out []Proposal, shots []Shot) {
	for _, name := range l.View.NodeNames() {
		n := l.View.Node(name)
		if n == nil || n.Lost == nil || n.Dead != nil || name == d.self {
			continue
		}
		s := lease.Subject{Node: name, Incarnation: n.Incarnation}
		if d.HandsOver(l, s) {
			continue
		}
		if p, ok := d.withoutFencing(s, n, l.Now); ok {
			out = append(out, d.doom(s, p))
			continue
		}
		f := d.fencing[s]
		if f == nil {
			f = &fencing{}
			d.fencing[s] = f
		}
		if devices := f.aim(l.View.Definition.FenceLevelsOf(name), l.Now); devices != nil {
			shots = append(shots, Shot{s, devices})
		}
		if f.proof != "" && !f.proposed {
			f.proposed = true
			out = append(out, d.doom(s, state.Proof{Kind: state.ProofFenced, Sentence: f.proof}))
		}
	}
	return out, shots
}

// withoutFencing is the proof that silence alone gives. After a forced configuration there is none: it is not known what the
// incarnation has armed, so neither time nor the absence of an Armed fact proves anything.
func (d *Duties) withoutFencing(s lease.Subject, n *state.Node, now lease.Instant) (state.Proof, bool) {
	if n.Forced {
		return state.Proof{}, false
	}
	if n.Armed == nil {
		return state.Proof{Kind: state.ProofNeverArmed,
			Sentence: "node " + s.Node + " is silent and its deadman is not armed: it holds nothing under a lease"}, true
	}
	proof, _, ok := d.book.Expired(s, *n.Armed, now)
	if !ok {
		return state.Proof{}, false
	}
	return state.Proof{Kind: state.ProofTime, Time: &proof,
		Sentence: fmt.Sprintf("the lease of node %s ran out: %.2f s since its last possible grant, its watchdog has fired after at most %.2f s",
			s.Node, proof.Now.Sub(proof.T0).Seconds(), n.Armed.Expiry().Seconds())}, true
}

// doom stops grants to the subject and makes the proposal of a proof against it.
func (d *Duties) doom(s lease.Subject, p state.Proof) Proposal {
	d.book.Doom(s)
	p.Node, p.Incarnation = s.Node, s.Incarnation
	return Proposal{Command: &state.Command{Proof: &p}, Doomed: s}
}

// Answered tells what became of a proposal whose outcome is known. A refused proof leaves its subject alive, and it may be granted again.
// An unknown outcome is not told: the doom stays, and the next term decides with a book of its own.
func (d *Duties) Answered(p Proposal, refused bool, now lease.Instant) {
	if !refused {
		return
	}
	d.plansAfter = now.Add(refusedPause)
	if p.Doomed != (lease.Subject{}) {
		d.book.Spare(p.Doomed)
		d.proofsAfter = now.Add(refusedPause)
	}
}

// Plan asks the scheduler, when something has changed since it was last asked, or by the time of the wall clock. ok is false when it
// was not asked.
func (d *Duties) Plan(view *state.State, now lease.Instant, wall time.Time) (res scheduler.Result, ok bool) {
	if now < d.plansAfter || d.planned == view.Index && (d.nextPlan.IsZero() || wall.Before(d.nextPlan)) {
		return scheduler.Result{}, false
	}
	res = scheduler.Plan(view, wall)
	d.planned, d.nextPlan = view.Index, res.Next
	return res, true
}

// Replan makes the next Plan ask the scheduler: a batch of proposals is over.
func (d *Duties) Replan() { d.planned = 0 }
