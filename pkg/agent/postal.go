package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/repository"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// Lease requests, grants, reports and poison by the mailbox of the repository volume, for a node that the networks do not reach
// (attack B2). The mailbox is a slower way for the same messages and changes none of their rules; docs/design/0004-two-nodes.md says
// why that cannot give a group two owners. What is special to it:
//
//   - mail stays where it is until it is replaced, so each letter names its subject, and its reader must be able to do without its
//     being new: a request by its nonce, a grant by the nonce that it answers, a report by incarnation, group and generation;
//   - a grant by mail allows nothing but stopping, and is given only to a node that the log calls silent and the detector isolated.

// askedByMail is the deadman's newest request that was also sent by mail.
type askedByMail struct {
	dm Deadman
	r  deadman.Request
}

// mailReport carries a report; ID tells which one an answer is for.
type mailReport struct {
	ID      string          `json:"id"`
	Command json.RawMessage `json:"command"`
}

// A mailAnswer says what became of a report.
type mailAnswer struct {
	ID    string      `json:"id"`
	Reply reportReply `json:"reply"`
}

// A poisonLetter tells a node that the cluster has proven its incarnation dead.
type poisonLetter struct {
	Node        string `json:"node"`
	Incarnation uint64 `json:"incarnation"`
	Boot        string `json:"boot"` // boot and life
	Why         string `json:"why"`
}

// poisoned is a poison letter, on its way to the loop.
type poisoned struct {
	from string
	poisonLetter
}

// The subjects of letters.
const (
	subjectRequest = "1 request"
	subjectGrant   = "1 grant"
	subjectPoison  = "0 poison"
	subjectReport  = "2 report "
	subjectAnswer  = "2 answer"
)

// cutOff reports whether no grant has come over the networks for longer than a healthy cluster ever takes. A node that leads grants
// itself, so one that leads and is cut off is so too, as soon as no majority confirms its term. Any goroutine.
func (m *member) cutOff() bool {
	p := m.params()
	return m.clock.Now().Sub(lease.Instant(m.disk.lastNet.Load())) > p.Renew+p.Silence/2
}

// postmaster is the node that says on the volume that it leads, in the highest term; "" if none does. It is a hint: what it grants
// rests on the round with which it confirms its term.
func (m *member) postmaster() string {
	now, limit := m.clock.Now(), 2*m.params().Silence
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	best := ""
	for _, node := range sortedKeys(m.disk.beats) {
		b := m.disk.beats[node]
		if b.beat.Leads > 0 && now.Sub(b.at) < limit && (best == "" || b.beat.Leads > m.disk.beats[best].beat.Leads) {
			best = node
		}
	}
	return best
}

// The cut-off node's side.

// askByMail sends the request by mail too, if this node is cut off, and says whether it did. The request goes on over the networks:
// the first grant counts.
func (m *member) askByMail(dm Deadman, r deadman.Request, req lease.Request) bool {
	if !m.cutOff() || m.leading() != nil {
		return false
	}
	to := m.postmaster()
	if to == "" {
		return false
	}
	body, err := json.Marshal(req)
	if err != nil {
		return false
	}
	m.disk.mu.Lock()
	m.disk.asked = &askedByMail{dm, r}
	m.disk.mu.Unlock()
	m.disk.out.put(to, subjectRequest, repository.Letter{Kind: repository.LetterRequest, Body: body})
	return true
}

// reportByMail sends a report by mail and waits for the leader's answer, as long as ctx lasts. The promise behind a report of a
// release, the tombstone, lies on this node's disk before the report is made at all.
func (m *member) reportByMail(ctx context.Context, c *state.Command) (state.Result, error) {
	to := m.postmaster()
	if to == "" {
		return state.Result{}, errNoLeader
	}
	b, err := c.Encode()
	if err != nil {
		return state.Result{}, err
	}
	id := fmt.Sprintf("%s/%d/%s", c.Report.Group, c.Report.Generation, c.Report.Outcome)
	body, err := json.Marshal(mailReport{ID: id, Command: b})
	if err != nil {
		return state.Result{}, err
	}
	answer := make(chan mailAnswer, 1)
	m.disk.mu.Lock()
	m.disk.waiting[id] = answer
	m.disk.mu.Unlock()
	m.disk.out.put(to, subjectReport+c.Report.Group, repository.Letter{Kind: repository.LetterReport, Body: body})
	defer func() {
		m.disk.mu.Lock()
		if m.disk.waiting[id] == answer {
			delete(m.disk.waiting, id)
		}
		m.disk.mu.Unlock()
		m.disk.out.drop(to, subjectReport+c.Report.Group)
	}()
	select {
	case a := <-answer:
		if a.Reply.Error != "" {
			return state.Result{}, errors.New(a.Reply.Error)
		}
		return a.Reply.Result, nil
	case <-ctx.Done():
		return state.Result{}, fmt.Errorf("node %s has not answered by the repository volume: %w", to, context.Cause(ctx))
	}
}

// gotLetter takes a letter. Called by the disk's goroutine: what may wait is done beside it.
func (m *member) gotLetter(ctx context.Context, from string, l repository.Letter) {
	switch l.Kind {
	case repository.LetterRequest:
		m.work.Go(func() { m.serveMailRequest(ctx, from, l.Body) })
	case repository.LetterReport:
		m.work.Go(func() { m.serveMailReport(ctx, from, l.Body) })
	case repository.LetterGrant:
		m.takeMailGrant(from, l.Body)
	case repository.LetterAnswer:
		m.takeMailAnswer(l.Body)
	case repository.LetterPoison:
		var p poisonLetter
		if json.Unmarshal(l.Body, &p) == nil {
			m.post(poisoned{from, p})
		}
	}
}

// takeMailGrant hands a grant to the deadman that drew its nonce; the deadman throws it away if it is older than A.
func (m *member) takeMailGrant(from string, body []byte) {
	var g lease.Grant
	if json.Unmarshal(body, &g) != nil {
		return
	}
	m.disk.mu.Lock()
	a := m.disk.asked
	if a != nil && a.r.Nonce == g.Nonce {
		m.disk.asked = nil
	}
	m.disk.mu.Unlock()
	if a == nil || a.r.Nonce != g.Nonce || g.Leader != from || !g.Isolated {
		return // it answers an older request, or is no grant of this kind
	}
	m.work.Go(func() { m.takeGrant(a.dm, a.r, &g) })
}

func (m *member) takeMailAnswer(body []byte) {
	var list []mailAnswer
	if json.Unmarshal(body, &list) != nil {
		return
	}
	m.disk.mu.Lock()
	defer m.disk.mu.Unlock()
	for _, a := range list {
		if c := m.disk.waiting[a.ID]; c != nil {
			delete(m.disk.waiting, a.ID)
			c <- a
		}
	}
}

// gotPoison resets this node if the letter is about the incarnation that runs here. Mail is never taken away, so that a letter to
// an earlier boot, or to an earlier life of this one, is read again after it.
func (m *member) gotPoison(p poisoned) {
	n := &m.loop.node
	if p.Node != m.name || p.Boot != m.bootKey() || p.Incarnation == 0 || p.Incarnation != n.incarnation {
		m.log.Debug("poison for another incarnation is left alone", "from", p.from, "incarnation", p.Incarnation, "own", n.incarnation)
		return
	}
	n.poisoned = fmt.Sprintf("node %s says by the repository volume that incarnation %d is dead: %s", p.from, p.Incarnation, p.Why)
	m.endPoisoned()
}

// endPoisoned resets this node if it was told to, again and again until it is done, unless it has seen that nothing runs here any more:
// it has let go in time then, and the heartbeat that brought the poison was older than that.
func (m *member) endPoisoned() {
	n := &m.loop.node
	if n.poisoned == "" {
		return
	}
	names := slices.Concat(m.view().GroupNames(), sortedKeys(n.groups))
	runs := len(names) == 0 // this process knows nothing yet
	for _, name := range names {
		g := n.groups[name]
		runs = runs || g == nil || g.known.Started != 0 || seenOf(g) != scheduler.SeenStopped
	}
	if runs {
		m.resetNode(n.poisoned)
	}
}

// sendsByMail reports whether a report of this node had best go by mail: no network brings it grants, nor the leader's log.
func (m *member) sendsByMail() bool {
	if !m.cutOff() || m.leading() != nil || m.postmaster() == "" {
		return false
	}
	ago, ok := m.raft.LastContact()
	return !ok || ago > m.params().Silence/2
}

// The leader's side.

// serveMailRequest answers a lease request that came by mail. The round begins after the letter was read, hence after it came.
func (m *member) serveMailRequest(ctx context.Context, from string, body []byte) {
	var req lease.Request
	if json.Unmarshal(body, &req) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, m.params().MaxAge)
	defer cancel()
	a := m.grantByMail(ctx, from, req)
	if a.Grant == nil {
		m.log.Debug("no grant by mail", "node", from, "why", a.Wait+a.Dead+a.Leader)
		return
	}
	out, err := json.Marshal(a.Grant)
	if err != nil {
		return
	}
	m.disk.out.put(from, subjectGrant, repository.Letter{Kind: repository.LetterGrant, Body: out})
}

// mailReportLimit bounds the commit of one report.
const mailReportLimit = 2 * time.Second

// serveMailReport commits a node's report of its own group, and nothing else.
func (m *member) serveMailReport(ctx context.Context, from string, body []byte) {
	var r mailReport
	if json.Unmarshal(body, &r) != nil || m.leading() == nil {
		return
	}
	c, err := state.DecodeCommand(r.Command)
	if err != nil || c.Report == nil || c.Report.Node != from {
		m.log.Warn("a report by mail is left alone", "node", from, "error", err)
		return
	}
	reply := reportReply{}
	if i := m.view().Instance(c.Report.Group, from); i.Held && i.Generation == c.Report.Generation && i.Incarnation == c.Report.Incarnation {
		ctx, cancel := context.WithTimeout(ctx, mailReportLimit)
		defer cancel()
		c.By = from
		if reply.Result, err = m.commit(ctx, c); err != nil {
			return // not answered: the node repeats it
		}
	} // else the log has it already, or never will: the letter lay there for a while
	m.disk.mu.Lock()
	list := append(m.disk.answers[from], mailAnswer{r.ID, reply})
	m.disk.answers[from] = list[max(0, len(list)-maxMailAnswers):]
	out, err := json.Marshal(m.disk.answers[from])
	m.disk.mu.Unlock()
	if err == nil {
		m.disk.out.put(from, subjectAnswer, repository.Letter{Kind: repository.LetterAnswer, Body: out})
	}
}

// maxMailAnswers is how many answers to one node are kept in its mail: older ones were read, or their reports are repeated.
const maxMailAnswers = 8

// handsOver reports whether a silent node is to be left to hand its groups over by itself. Called with led.mu held.
func (m *member) handsOver(led *leadership, view *state.State, s lease.Subject, now lease.Instant) bool {
	look := m.leaderLook(view, now)
	m.detMu.Lock()
	defer m.detMu.Unlock()
	return led.duties.HandsOver(look, s)
}

// isolated reports whether the node may be granted by mail: the log says that it is silent, so that nothing new is given to it, and
// its heartbeat on the volume is all that is there of it.
func (m *member) isolated(view *state.State, node string) bool {
	n := view.Node(node)
	if n == nil || n.Lost == nil || n.Dead != nil {
		return false
	}
	m.detMu.Lock()
	defer m.detMu.Unlock()
	return m.det.Verdict(node, m.clock.Now()) == detector.Isolated
}

// poison tells a node whose incarnation is dead by proof, and which still says on the volume that it holds something of what the proof
// has freed, to reset itself. Nothing rests on its being read.
func (m *member) poison(node string, n *state.Node, b repository.Beat) {
	if m.leading() == nil || n.Dead == nil || n.Incarnation != b.Incarnation {
		return
	}
	freed := b.HeldMore > 0
	for _, h := range b.Held { // what the log gives it still (UNMANAGED, where the proof was not one that ends that) may run on
		i := m.view().Instance(h.Group, node)
		freed = freed || !i.Held || i.Incarnation != n.Incarnation
	}
	if !freed {
		return
	}
	body, err := json.Marshal(poisonLetter{Node: node, Incarnation: n.Incarnation, Boot: b.Boot, Why: n.Dead.Sentence})
	if err != nil {
		return
	}
	key := lease.Subject{Node: node, Incarnation: n.Incarnation}
	if m.disk.poisoned[key] {
		return
	}
	m.disk.poisoned[key] = true
	m.log.Warn("a dead incarnation still says on the volume that it holds groups: it is told to reset", "node", node, "incarnation", n.Incarnation)
	m.disk.out.put(node, subjectPoison, repository.Letter{Kind: repository.LetterPoison, Body: body})
}

// forMail makes a grant one that may go by mail: all that it lists may only be stopped. It reports false if the node is to have none.
func (m *member) forMail(view *state.State, g *lease.Grant) bool {
	if !m.isolated(view, g.Node) {
		return false
	}
	g.Isolated, g.Next = true, 0
	for i := range g.Hold {
		g.Hold[i].Releasing = true
	}
	return true
}

// cutOffGrant reports whether the newest grant came by mail: this node hands over what it holds.
func (n *ownState) cutOffGrant() bool { return n.grant != nil && n.grant.Isolated }
