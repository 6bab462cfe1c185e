package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/config"
	"github.com/holdfast-ha/holdfast/pkg/detector"
	"github.com/holdfast-ha/holdfast/pkg/lease"
	"github.com/holdfast-ha/holdfast/pkg/repository"
	"github.com/holdfast-ha/holdfast/pkg/scheduler"
	"github.com/holdfast-ha/holdfast/pkg/state"
)

// The agent's own side of the repository volume: this node's heartbeat and mail, and those of the others. One goroutine does all of
// it, beside the loop; an access is bounded by T_io, and one that hangs delays nothing but the next. Nothing that is read here frees
// anything: a heartbeat is a hint for the detector, and mail is another way for messages that have rules of their own (postal.go).

const (
	// diskPoll is the interval of looks at the volume while somebody is cut off. Two of them and a round must fit into A, so it is
	// shorter where A is short.
	diskPoll = 100 * time.Millisecond
	// diskRest is the interval of looks, and of heartbeats, while nobody is: for poison, and for the status.
	diskRest = time.Second
	// diskRetry is the pause before a volume that could not be opened, or has failed, is opened again.
	diskRetry = 2 * time.Second
	// diskEndLimit is how long the end of the daemon waits for the volume to be closed.
	diskEndLimit = 2 * time.Second
	diskSave     = time.Second
	// diskOpenLimit is when an opening that hangs is told of. It is waited for: another one would hang as well.
	diskOpenLimit = 5 * time.Second
)

// An outbox holds what is to lie in the mail blocks of this node: the newest of each subject, for each recipient. It outlives the
// volume's being opened anew. Any goroutine.
type outbox struct {
	mu   sync.Mutex
	mail map[string]*outgoing
	wake chan struct{}
}

type outgoing struct {
	letters map[string]repository.Letter // by subject
	version uint64
	written uint64 // version that lies on the volume
}

func newOutbox() *outbox { return &outbox{mail: map[string]*outgoing{}, wake: make(chan struct{}, 1)} }

// put makes a letter the newest about its subject.
func (o *outbox) put(to, subject string, l repository.Letter) {
	o.mu.Lock()
	g := o.mail[to]
	if g == nil {
		g = &outgoing{letters: map[string]repository.Letter{}}
		o.mail[to] = g
	}
	g.letters[subject] = l
	g.version++
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// drop takes a letter out of what is written next. It is no reason to write: mail that is old is told by what it says.
func (o *outbox) drop(to, subject string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if g := o.mail[to]; g != nil {
		delete(g.letters, subject)
	}
}

type envelope struct {
	to      string
	version uint64
	letters []repository.Letter
}

// due lists the mail that is newer than what lies on the volume. What has no room waits: the first subjects by name go first.
func (o *outbox) due() []envelope {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []envelope
	for _, to := range sortedKeys(o.mail) {
		g := o.mail[to]
		if g.version == g.written {
			continue
		}
		e, room := envelope{to: to, version: g.version}, repository.MaxMail
		for _, subject := range sortedKeys(g.letters) {
			l := g.letters[subject]
			if need := len(l.Body) + 3; need <= room && len(e.letters) < 255 {
				e.letters, room = append(e.letters, l), room-need
			}
		}
		out = append(out, e)
	}
	return out
}

func (o *outbox) wrote(e envelope) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mail[e.to].written = e.version
}

// diskHooks are what a disk needs of its agent. They are called by the disk's goroutine and must not wait.
type diskHooks struct {
	// beat is what to say of this node. ok is false when nothing must be said: a daemon whose loop stands is not alive.
	beat func() (b repository.Beat, ok bool)
	// pace is the interval of the heartbeats, that of close looks, and whether such are wanted: at the heartbeats, and at the mail.
	pace func(repository.Timings) diskPace
	// seen tells of a heartbeat that came after the moment at.
	seen func(node string, b repository.Beat, at lease.Instant)
	// letter brings a letter of mail that was not read before.
	letter func(from string, l repository.Letter)
	// glass tells which groups a node holds by a break-glass start, at every read and for every node that can be read.
	glass func(node string, groups []string)
	// read is called after each read of the heartbeats.
	read func()
}

type diskPace struct {
	beat, poll time.Duration
	watch      bool // somebody may be cut off: heartbeats are read at each look
	post       bool // mail is expected: it is read at each look
}

// A disk is an open volume with what its goroutine remembers.
type disk struct {
	vol   *repository.Volume
	name  string
	clock lease.Clock
	out   *outbox
	hooks diskHooks

	beatAt, readAt, savedAt lease.Instant // when the last of each began; 0: none
	mailSeen                map[string]uint64
	places                  map[string]int // of the members, by name: whoever has another one now writes other sequences
	cannotWrite, cannotRead error          // what became of the newest attempt at each: most looks do not write
}

func newDisk(vol *repository.Volume, name string, clock lease.Clock, out *outbox, hooks diskHooks) *disk {
	return &disk{vol: vol, name: name, clock: clock, out: out, hooks: hooks, mailSeen: map[string]uint64{}, places: map[string]int{}}
}

// look does what is due: mail and heartbeat are written, heartbeats and mail are read. One failure does not keep the rest from being
// tried. It waits at most T_io per access.
func (d *disk) look() error {
	p := d.hooks.pace(d.vol.Timings())
	if tried, err := d.write(p); tried {
		d.cannotWrite = err
	}
	if tried, err := d.read(p); tried {
		d.cannotRead = err
	}
	err := errors.Join(d.cannotWrite, d.cannotRead)
	if now := d.clock.Now(); now.Sub(d.savedAt) >= diskSave {
		d.savedAt = now
		err = errors.Join(err, d.vol.SaveMarks())
	}
	return err
}

func (d *disk) write(p diskPace) (tried bool, failed error) {
	for _, e := range d.out.due() {
		tried = true
		if err := d.vol.WriteMail(e.to, e.letters...); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		d.out.wrote(e)
	}
	now := d.clock.Now()
	if d.beatAt != 0 && now.Sub(d.beatAt) < p.beat {
		return tried, failed
	}
	b, ok := d.hooks.beat()
	if !ok {
		return tried, failed
	}
	d.beatAt = now
	return true, errors.Join(failed, d.vol.WriteBeat(b))
}

func (d *disk) read(p diskPace) (tried bool, err error) {
	post := p.post
	now := d.clock.Now()
	if p.watch || d.readAt == 0 || now.Sub(d.readAt) >= diskRest {
		// A heartbeat that is another than at the last look was written after that look began, and that is all that is known: taken
		// for newer it would keep a node alive that has died since.
		before := d.readAt
		tried = true
		beats, err := d.vol.ReadBeats()
		if err != nil {
			return true, err
		}
		d.readAt = now
		for _, m := range d.vol.Members() {
			if was, known := d.places[m.Name]; known && was != m.Index {
				delete(d.mailSeen, m.Name) // it was rebuilt
			}
			d.places[m.Name] = m.Index
		}
		own := d.index()
		for _, s := range beats {
			if s.Node == d.name || s.Err != nil {
				continue
			}
			d.hooks.glass(s.Node, s.Beat.BreakGlass)
			post = post || own >= 0 && own < len(s.Beat.Mail) && s.Beat.Mail[own] > d.mailSeen[s.Node]
			if s.Advanced && before != 0 {
				d.hooks.seen(s.Node, s.Beat, before)
			}
		}
	}
	if tried {
		d.hooks.read()
	}
	if !post {
		return tried, nil
	}
	mail, err := d.vol.ReadMail()
	if err != nil {
		return true, err
	}
	for _, m := range mail {
		if m.Seq <= d.mailSeen[m.From] || m.From == d.name {
			continue
		}
		d.mailSeen[m.From] = m.Seq
		for _, l := range m.Letters {
			d.hooks.letter(m.From, l)
		}
	}
	return true, nil
}

// index is this node's place on the volume, -1 if it has none.
func (d *disk) index() int {
	for _, m := range d.vol.Members() {
		if m.Name == d.name {
			return m.Index
		}
	}
	return -1
}

// diskState is what the agent's goroutines share about the volume.
type diskState struct {
	changed chan struct{} // which volume is in use may have changed

	out   *outbox
	facts atomic.Pointer[diskFacts] // by the loop
	// lastNet is when a grant last came over the networks; an Instant.
	lastNet atomic.Int64
	trouble atomic.Pointer[string] // why the volume cannot be used now; nil: it can, or there is none

	mu         sync.Mutex
	beats      map[string]diskBeat
	asked      *askedByMail
	waiting    map[string]chan mailAnswer // reports that wait for an answer, by subject
	answers    map[string][]mailAnswer    // to the reports of each node
	quickUntil lease.Instant              // of the disk's goroutine alone, as what follows
	// poisoned are the incarnations that were told to reset; of the disk's goroutine alone.
	poisoned map[lease.Subject]bool

	glass     map[string][]string // groups that other nodes hold by break-glass starts, by node; under mu
	firstRead chan struct{}       // closed when the volume's heartbeats were read once
	readOnce  sync.Once
}

// diskFacts is what the loop says of this node for its heartbeat.
type diskFacts struct {
	incarnation uint64
	held        []repository.Held
	networks    []repository.Network
}

// A diskBeat is the newest heartbeat of another node.
type diskBeat struct {
	beat repository.Beat
	at   lease.Instant // it was written after that
}

func (s *diskState) init(now lease.Instant) {
	s.out, s.beats, s.waiting = newOutbox(), map[string]diskBeat{}, map[string]chan mailAnswer{}
	s.changed = make(chan struct{}, 1)
	s.glass, s.firstRead = map[string][]string{}, make(chan struct{})
	s.answers, s.poisoned = map[string][]mailAnswer{}, map[lease.Subject]bool{}
	s.lastNet.Store(int64(now))
}

// beatOf is the newest heartbeat of a node; ok is false if none was seen.
func (s *diskState) beatOf(node string) (b diskBeat, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok = s.beats[node]
	return b, ok
}

// keepDisk keeps the volume in use open and looks at it, until ctx ends.
func (m *member) keepDisk(ctx context.Context) {
	told := ""
	trouble := func(err error) {
		text := strings.ReplaceAll(err.Error(), "\n", "; ")
		m.disk.trouble.Store(&text)
		if text != told {
			told = text
			m.log.Warn("this node's heartbeat and mail on the repository volume", "error", err)
		}
	}
	for ctx.Err() == nil {
		pause := tendInterval
		want := m.wantedVolume()
		if want == nil {
			m.disk.trouble.Store(nil)
			select { // a cluster without a volume is not woken for it
			case <-ctx.Done():
			case <-m.disk.changed:
			}
			continue
		}
		if vol, err := m.openDisk(ctx, want.Device, want.UUID); err != nil {
			trouble(err)
			pause = diskRetry
		} else {
			m.log.Info("the repository volume is open for heartbeat and mail", "device", want.Device, "volume", want.UUID)
			d := newDisk(vol, m.name, m.clock, m.disk.out, m.diskHooks(ctx))
			if err := m.useDisk(ctx, d, want.UUID, func(err error) {
				if err != nil {
					trouble(err)
					return
				}
				told = ""
				m.disk.trouble.Store(nil)
			}); err != nil {
				trouble(err)
				pause = diskRetry
			}
			m.closeDisk(vol)
		}
		select {
		case <-ctx.Done():
		case <-after(pause):
		}
	}
}

// useDisk looks at the volume until it is no longer the one in use, has failed, or ctx ends.
func (m *member) useDisk(ctx context.Context, d *disk, uuid string, note func(error)) error {
	for {
		err := d.look()
		if errors.Is(err, repository.ErrFailed) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		note(err)
		select {
		case <-ctx.Done():
			return nil
		case <-m.disk.out.wake:
		case <-after(d.hooks.pace(d.vol.Timings()).poll):
		}
		if want := m.wantedVolume(); want == nil || want.UUID != uuid {
			return nil
		}
	}
}

// openDisk opens the volume. Opening a file on a server that is gone can hang for ever, so it is done apart; what comes too late is
// closed again.
func (m *member) openDisk(ctx context.Context, device, uuid string) (*repository.Volume, error) {
	type opened struct {
		vol *repository.Volume
		err error
	}
	done := make(chan opened, 1)
	go func() {
		vol, err := m.opt.OpenVolume(repository.Options{Path: device, Cluster: m.id.ClusterUUID, Node: m.name, Authority: m.id,
			Dir: filepath.Join(m.opt.Node.StateDir, "repository"), Role: repository.RoleAgent, Lab: m.opt.Node.Deadman.Backend == config.BackendLab})
		if err == nil && vol.UUID().String() != uuid {
			err = fmt.Errorf("the volume %s has the id %s, the definition says %s: it was formatted anew, or is another one", device, vol.UUID(), uuid)
			vol.Close()
		}
		done <- opened{vol, err}
	}()
	slow := after(diskOpenLimit)
	for {
		select {
		case o := <-done:
			return o.vol, o.err
		case <-slow:
			text := "opening " + device + " hangs"
			m.disk.trouble.Store(&text)
			m.log.Warn("this node's heartbeat and mail on the repository volume", "error", text)
		case <-ctx.Done():
			go func() {
				if o := <-done; o.err == nil {
					o.vol.Close()
				}
			}()
			return nil, context.Cause(ctx)
		}
	}
}

func (m *member) closeDisk(vol *repository.Volume) {
	done := make(chan error, 1)
	go func() { done <- vol.Close() }()
	select {
	case err := <-done:
		if err != nil {
			m.log.Debug("close the repository volume", "error", err)
		}
	case <-after(diskEndLimit):
		m.log.Warn("the repository volume cannot be closed: an access to it hangs")
	}
}

func (m *member) diskHooks(ctx context.Context) diskHooks {
	return diskHooks{beat: m.ownBeat, pace: m.diskPace, seen: m.sawBeat,
		letter: func(from string, l repository.Letter) { m.gotLetter(ctx, from, l) },
		glass:  m.disk.sawGlass, read: m.disk.wasRead}
}

// ownBeat is this node's heartbeat. While the loop makes no progress there is none: a daemon that hangs must be found lost.
func (m *member) ownBeat() (repository.Beat, bool) {
	f := m.disk.facts.Load()
	if f == nil || !m.loopAlive() || m.closing.Load() {
		return repository.Beat{}, false
	}
	b := repository.Beat{Incarnation: f.incarnation, Boot: m.bootKey(), Held: f.held, Networks: f.networks}
	if led := m.leading(); led != nil {
		b.Leads = led.term
	}
	return b, true
}

// diskPace says how closely the volume is watched. A node is looked at from a third of Silence on, so that its heartbeat is known
// when the detector asks; a healthy cluster is never that silent. One that has long shown nothing anywhere is looked at as rarely as
// all others.
//
// Its own heartbeats are as rare as the looks while all are heard. A node that is cut off notices so before the others may call it lost,
// and goes over to the quick ones; it keeps to them for as long as `silence`, because who leads may change meanwhile.
func (m *member) diskPace(t repository.Timings) diskPace {
	out, now := m.attention(t), m.clock.Now()
	if out.watch {
		m.disk.quickUntil = now.Add(m.params().Silence)
	}
	if now >= m.disk.quickUntil {
		out.beat = max(out.beat, diskRest)
	}
	return out
}

func (m *member) attention(t repository.Timings) diskPace {
	p := m.params()
	out := diskPace{beat: min(t.Beat, p.Silence/3), poll: min(diskPoll, p.MaxAge/5)}
	now, limit := m.clock.Now(), p.Silence/3
	if m.cutOff() {
		out.watch, out.post = true, m.postmaster() != ""
		return out
	}
	led := m.leading()
	if led == nil {
		ago, ok := m.raft.LastContact()
		out.watch = !ok || ago > limit || m.leaderNode() == ""
		return out
	}
	view := m.view()
	for _, name := range view.NodeNames() {
		n := view.Node(name)
		if name == m.name || n == nil || n.Incarnation == 0 || n.Dead != nil {
			continue
		}
		m.detMu.Lock()
		silent, ok := m.det.Silent(name, now)
		m.detMu.Unlock()
		if !ok { // not heard at all: since this node leads
			silent = now.Sub(led.since)
		}
		b, seen := m.disk.beatOf(name)
		there := seen && now.Sub(b.at) < 3*diskRest
		out.watch = out.watch || silent > limit && (there || silent < 10*p.Silence)
		out.post = out.post || there && n.Lost != nil
	}
	return out
}

// sawBeat takes another node's heartbeat. It speaks for the boot and life that it names, and for no other: that of a machine that
// has booted again says nothing of the incarnation before.
func (m *member) sawBeat(node string, b repository.Beat, at lease.Instant) {
	m.disk.mu.Lock()
	m.disk.beats[node] = diskBeat{b, at}
	m.disk.mu.Unlock()
	n := m.view().Node(node)
	if n == nil || n.Incarnation == 0 || b.Boot != bootKey(n.BootID, n.Life) {
		return
	}
	m.detMu.Lock()
	m.det.Observe(node, detector.PathDisk, at)
	m.detMu.Unlock()
	m.poison(node, n, b)
}

// publishDisk shows the disk's goroutine what this node is. Of the loop.
func (m *member) publishDisk(view *state.State) {
	n := &m.loop.node
	if view.Definition == nil || view.Definition.Repository() == nil && m.disk.facts.Load() == nil {
		return
	}
	f := &diskFacts{incarnation: n.incarnation, held: n.shownHeld()}
	for _, w := range view.Definition.Networks {
		_, down := n.downNets[w.Name]
		f.networks = append(f.networks, repository.Network{Name: w.Name, Up: !down})
	}
	m.disk.facts.Store(f)
}

// onVolume reports whether a silent node is seen on the repository volume, as far as this node looks at it: it alone may be behind
// by the pause between two looks.
func (m *member) onVolume(n *state.Node) bool {
	b, ok := m.disk.beatOf(n.Name)
	return ok && b.beat.Boot == bootKey(n.BootID, n.Life) && m.clock.Now().Sub(b.at) < m.params().Silence+2*diskRest
}

// shownHeld is what this node may have running, for its heartbeat. Of the loop.
func (n *ownState) shownHeld() []repository.Held {
	var out []repository.Held
	for _, name := range slices.Sorted(maps.Keys(n.groups)) {
		g := n.groups[name]
		seen := seenOf(g)
		switch {
		case g.job == jobStart || g.job == jobStop || g.known.Started != 0:
		case g.job != "" || seen == scheduler.NotProbed || seen == scheduler.SeenStopped:
			continue
		}
		out = append(out, repository.Held{Group: name, Generation: max(g.known.Started, g.generation)})
	}
	return out
}
