package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/client"
)

// defaultTimeout is how long clmgr waits for an effect: PowerHA's config_too_long, 180 s for the event and 180 s for the groups.
const defaultTimeout = 360 * time.Second

// hopeless is how long a settled cluster may miss the goal before clmgr says that it will not be reached: what is planned for a
// command shows in the status at once, but a node that hears of it by replication may be a moment behind.
const hopeless = 2 * time.Second

// calmness is how long a goal that rests on a settled cluster must hold: between a command's entry in the log and the first
// decision that follows from it, a state that is read from the log looks settled.
const calmness = 200 * time.Millisecond

// poll is how long one long poll lasts; short enough to notice a daemon that hangs.
const poll = 5 * time.Second

// leaderPatience is how long a command is offered again while there is no leader to take it.
const leaderPatience = 15 * time.Second

// A goal is what must be seen before a command may be called done.
type goal struct {
	// done is the sentence for the operator when it is reached.
	done func(*api.Status) string
	// missing lists what is not yet so, one sentence each; none: reached.
	missing func(*api.Status) []string
	// calm says that the goal rests on the cluster having settled: it counts when it is still so a moment later.
	calm bool
	// failed is, for a cluster that has settled without reaching the goal, why it will not be reached by waiting; empty:
	// wait on. Nil: whatever is missing.
	failed func(*api.Status) string
}

func (s *session) patience() time.Duration {
	if s.timeout == nil {
		return defaultTimeout
	}
	if *s.timeout == 0 {
		return 365 * 24 * time.Hour
	}
	return *s.timeout
}

var errTimeUp = errors.New("the daemon did not answer in the time given (TIMEOUT)")

// limited gives a context the time that the whole command may take.
func (s *session) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithDeadlineCause(ctx, s.began.Add(s.patience()), errTimeUp)
}

// send offers a write until it is taken: while there is no leader it is certainly not done and may be sent again, and when its
// outcome is not known it may be sent again because of its id.
func send[T any](ctx context.Context, s *session, what string, write func(context.Context) (T, error)) (T, error) {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	p := s.progress()
	defer p.end()
	began := time.Now()
	uncertain := false
	for {
		reply, err := write(ctx)
		if err == nil {
			return reply, nil
		}
		again, mayBeDone := retryable(err)
		// A call that was broken off by its time, or by the user, was on its way.
		uncertain = uncertain || mayBeDone || ctx.Err() != nil
		if !again || ctx.Err() != nil || time.Since(began) > leaderPatience {
			var zero T
			if uncertain {
				return zero, fail(ExitFailed, "%s: %w; it is not known whether it was done: look before you repeat it", what, err)
			}
			return zero, err
		}
		p.show(what + ": " + firstLine(err.Error()))
		if err := pause(ctx, 250*time.Millisecond); err != nil {
			continue // the next turn ends with the context
		}
	}
}

// retryable says whether a write may be offered again, and whether it may have been done already.
func retryable(err error) (again, mayBeDone bool) {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e.Code == api.CodeUnavailable || e.Code == api.CodeUncertain, e.Code == api.CodeUncertain
	}
	if u, ok := errors.AsType[*client.UnreachableError](err); ok {
		return !u.NeverSent(), !u.NeverSent()
	}
	return false, false
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// finish ends a command: it prints what the cluster said, and waits for the goal unless it was told not to.
func (s *session) finish(ctx context.Context, what string, reply api.Reply, g goal) error {
	for _, w := range reply.Warnings {
		s.warn("%s", w)
	}
	if reply.Refused != "" {
		return fail(ExitFailed, "%s: refused: %s", what, reply.Refused)
	}
	if s.noWait {
		return s.say(result{What: what, Result: "committed", Index: reply.Index,
			Sentence: fmt.Sprintf("%s: committed at index %d; its effect was not waited for (--no-wait)", what, reply.Index)})
	}
	st, err := s.await(ctx, what, reply, g)
	if err != nil {
		return err
	}
	sentence := g.done(&st)
	if reply.Already {
		sentence += " (it was so already)"
	}
	return s.say(result{What: what, Result: "done", Index: reply.Index, Sentence: sentence})
}

// A result is the end of a command, for -o json.
type result struct {
	What     string `json:"what"`
	Result   string `json:"result"`
	Index    uint64 `json:"index,omitempty"`
	Sentence string `json:"sentence"`
}

func (s *session) say(r result) error {
	if s.form == formJSON {
		return writeJSON(s.out, r)
	}
	_, err := fmt.Fprintln(s.out, r.Sentence)
	return err
}

// await follows the status until the goal is reached, cannot be reached, or time is up.
func (s *session) await(ctx context.Context, what string, reply api.Reply, g goal) (api.Status, error) {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	p := s.progress()
	defer p.end()
	w := &waiting{goal: g, reply: reply, hopeless: s.env.hopeless, calmness: s.env.calmness, lacks: []string{"the daemon has not answered yet"}}
	var st api.Status
	next := func() (api.Status, error) { return s.client.Status(ctx) }
	for {
		got, err := next()
		if err == nil {
			st = got
			w.look(&st, time.Now())
		} else if ctx.Err() == nil {
			w.deaf(err)
			_ = pause(ctx, 250*time.Millisecond)
		}
		switch {
		case w.reached:
			return st, nil
		case w.verdict != "":
			return st, fail(ExitFailed, "%s: %s", what, w.verdict)
		case ctx.Err() != nil:
			return st, s.timeUp(ctx, what, w.lacks)
		}
		if len(w.lacks) > 0 {
			p.show(what + ": waiting for " + strings.Join(w.lacks, "; "))
		}
		last, d := st, w.wait(time.Now())
		next = func() (api.Status, error) { return s.client.Next(ctx, &last, d) }
	}
}

func (s *session) timeUp(ctx context.Context, what string, lacks []string) error {
	if len(lacks) == 0 {
		lacks = []string{"that it stays so for a moment"}
	}
	head := fmt.Sprintf("%s: not seen to be done after %s", what, s.patience())
	if !errors.Is(context.Cause(ctx), errTimeUp) {
		head = what + ": interrupted; the command itself is committed and goes on"
	}
	return fail(ExitFailed, "%s; missing:\n  %s", head, strings.Join(lacks, "\n  "))
}

// waiting is the judgement over the statuses that come in.
type waiting struct {
	goal    goal
	reply   api.Reply
	reached bool
	verdict string // why the goal will not be reached
	lacks   []string

	hopeless, calmness time.Duration
	good               time.Time // since when the goal has been met
	settled            time.Time // since when the cluster has been settled without the goal
}

func (w *waiting) deaf(err error) {
	w.settled, w.good = time.Time{}, time.Time{}
	w.lacks = []string{"an answer of the daemon (" + firstLine(err.Error()) + ")"}
}

// look judges one status.
func (w *waiting) look(st *api.Status, now time.Time) {
	switch {
	case st.Cluster.Stale():
		w.settled, w.good = time.Time{}, time.Time{}
		w.lacks = []string{staleness(&st.Cluster) + ": what has become of the command is not known here"}
		return
	case st.Cluster.AppliedIndex < w.reply.Index:
		w.settled, w.good = time.Time{}, time.Time{}
		w.lacks = []string{fmt.Sprintf("this node has applied index %d of %d", st.Cluster.AppliedIndex, w.reply.Index)}
		return
	}
	w.lacks = saidOnce(append(w.goal.missing(st), unmetWaits(st, w.reply.Waits)...))
	if len(w.lacks) == 0 {
		w.hold(now)
		return
	}
	w.good = time.Time{}
	if st.Cluster.State == api.ClusterUnstable {
		w.settled = time.Time{}
		return
	}
	if w.settled.IsZero() {
		w.settled = now
	}
	if now.Sub(w.settled) < w.hopeless {
		return
	}
	if w.goal.failed != nil {
		w.verdict = w.goal.failed(st)
	} else {
		w.verdict = "the cluster has settled (" + st.Cluster.State + ") without it: " + strings.Join(w.lacks, "; ")
	}
}

// hold notes that the goal is met: reached at once, or when it has held.
func (w *waiting) hold(now time.Time) {
	if w.good.IsZero() {
		w.good = now
	}
	w.reached = !w.goal.calm || now.Sub(w.good) >= w.calmness
	w.settled = time.Time{}
}

// wait is how long the next long poll may take.
func (w *waiting) wait(now time.Time) time.Duration {
	switch {
	case !w.good.IsZero():
		return max(0, w.calmness-now.Sub(w.good)) + time.Millisecond
	case w.settled.IsZero():
		return poll
	}
	if left := w.hopeless - now.Sub(w.settled); left > 0 {
		return left + time.Millisecond
	}
	return poll
}

// unmetWaits says which of the conditions that the cluster itself named are not met.
func unmetWaits(st *api.Status, waits []api.Wait) []string {
	var out []string
	for _, w := range waits {
		switch {
		case w.Group == "":
			if n := st.Node(w.Node); n == nil || n.State != w.State {
				out = append(out, nodeIs(st, w.Node)+", wanted "+w.State)
			}
		case w.Node != "":
			if i := instance(st, w.Group, w.Node); i == nil || i.State != w.State {
				out = append(out, groupIs(st, w.Group, w.Node)+", wanted "+w.State)
			}
		case !anyInstance(st, w.Group, w.State):
			out = append(out, groupIs(st, w.Group, "")+", wanted "+w.State)
		}
	}
	return out
}

func instance(st *api.Status, group, node string) *api.Instance {
	if g := st.Group(group); g != nil {
		return g.On(node)
	}
	return nil
}

func anyInstance(st *api.Status, group, state string) bool {
	g := st.Group(group)
	if g == nil {
		return false
	}
	for i := range g.Instances {
		if g.Instances[i].State == state {
			return true
		}
	}
	return false
}

// nodeIs is a sentence: "node2 is DEAD (fenced by ipmi1)".
func nodeIs(st *api.Status, node string) string {
	n := st.Node(node)
	if n == nil {
		return node + " is no node of the cluster"
	}
	return node + " is " + orUnknown(n.State) + inBrackets(n.Reason)
}

// groupIs is a sentence: "app_rg is ACQUIRING on node2 (starting app1)"; with no node, all that is not simply OFFLINE.
func groupIs(st *api.Status, group, node string) string {
	g := st.Group(group)
	if g == nil {
		return group + " is no group of the cluster"
	}
	if node != "" {
		i := g.On(node)
		if i == nil {
			return group + " cannot run on " + node + ", which is not in its list"
		}
		return group + " is " + i.Text() + " on " + node + inBrackets(reasonFor(g, i))
	}
	var parts []string
	for k := range g.Instances {
		if i := &g.Instances[k]; i.State != api.GroupOffline {
			parts = append(parts, i.Text()+" on "+i.Node+inBrackets(reasonFor(g, i)))
		}
	}
	if len(parts) == 0 {
		return group + " is OFFLINE everywhere" + inBrackets(whyOffline(g))
	}
	return group + " is " + strings.Join(parts, " and ")
}

// reasonFor is what is worth saying about an instance. That it is OFFLINE because the group is elsewhere, or ONLINE, needs none.
func reasonFor(g *api.Group, i *api.Instance) string {
	switch {
	case i.State == api.GroupOnline, i.State == api.GroupOffline && i.Reason == g.Sentence:
		return ""
	case i.Reason == "" && i.State != api.GroupOffline:
		return g.Sentence
	}
	return i.Reason
}

// whyOffline is why a group that is nowhere is nowhere.
func whyOffline(g *api.Group) string {
	for k := range g.Instances {
		if i := &g.Instances[k]; i.Due != "" {
			if i.Reason != "" {
				return i.Reason
			}
			return "due to " + strings.ToLower(i.Due)
		}
	}
	return g.Sentence
}

// inBrackets is what follows a statement as its reason. A reason is made of what was decided and what came before, which may be
// one and the same.
func inBrackets(s string) string {
	if s == "" {
		return ""
	}
	return " (" + strings.Join(saidOnce(strings.Split(s, "; ")), "; ") + ")"
}

// saidOnce leaves out what another of the sentences says already, word by word or with more behind it.
func saidOnce(list []string) []string {
	var out []string
	for i, s := range list {
		said := false
		for k, other := range list {
			said = said || k != i && (other == s && k < i || strings.HasPrefix(other, s+"; "))
		}
		if !said {
			out = append(out, s)
		}
	}
	return out
}

// staleness says how old a node's knowledge is.
func staleness(c *api.Cluster) string {
	who := c.LocalNode
	if who == "" {
		who = "this node"
	}
	if c.AgeSeconds == nil {
		return who + " has not heard a leader since its daemon started"
	}
	return fmt.Sprintf("%s has not heard a leader for %s", who, seconds(*c.AgeSeconds))
}

// seconds shows an age or a length: 0.3 s, 12 s, 4 m 5 s.
func seconds(f float64) string {
	d := time.Duration(f * float64(time.Second))
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", f)
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d m %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d m", int(d.Hours()), int(d.Minutes())%60)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// A progress line says what is waited for: on a terminal one line that is written over, with the time; elsewhere a line
// whenever it changes.
type progress struct {
	w        io.Writer
	terminal bool
	width    int
	began    time.Time

	mu   sync.Mutex
	text string
	stop chan struct{}
	idle sync.WaitGroup
}

func (s *session) progress() *progress {
	return &progress{w: s.env.Stderr, terminal: s.env.Terminal, width: s.env.Width, began: s.began}
}

func (p *progress) show(text string) {
	text = strings.ReplaceAll(printable(text), "\n", " ")
	p.mu.Lock()
	defer p.mu.Unlock()
	if text == p.text {
		return
	}
	p.text = text
	if !p.terminal {
		fmt.Fprintln(p.w, fold(text))
		return
	}
	p.draw()
	if p.stop == nil {
		stop := make(chan struct{})
		p.stop = stop
		p.idle.Go(func() { p.tick(stop) })
	}
}

// foldAt is where a line that is not drawn over itself ends.
const foldAt = 100

// fold breaks a long line between words, and indents what follows.
func fold(text string) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Split(text, " ") {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > foldAt:
			b.WriteString("\n    ")
			column = 4
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

// draw writes the line over itself, cut to the terminal: a longer one would wrap and pile up.
func (p *progress) draw() {
	width := p.width - 1
	if width < 10 {
		width = 79
	}
	line := []rune(fmt.Sprintf("%4ds  %s", int(time.Since(p.began).Seconds()), p.text))
	if len(line) > width {
		line = append(line[:width-3], '.', '.', '.')
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", string(line))
}

func (p *progress) tick(stop <-chan struct{}) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		case <-stop:
			return
		}
	}
}

// end takes the live line away.
func (p *progress) end() {
	p.mu.Lock()
	stop := p.stop
	p.stop = nil
	p.mu.Unlock()
	if stop == nil {
		return
	}
	close(stop)
	p.idle.Wait()
	fmt.Fprint(p.w, "\r\x1b[K")
}
