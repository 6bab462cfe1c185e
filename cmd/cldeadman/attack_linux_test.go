package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// until waits for a moment of the boot-time clock.
func until(at lease.Instant) {
	if d := at.Sub(deadman.BootClock{}.Now()); d > 0 {
		sleep(d)
	}
}

// lateness is what the fake watchdog may be late in noticing a pet.
const lateness = 400 * time.Millisecond

// petsInTime checks that no pet came later than the newest grant allows.
func (n *node) petsInTime(granted lease.Instant) error {
	p := timings(n.t)
	if limit := granted.Add(p.MaxAge + p.Margin); n.dog.lastPet() > limit.Add(lateness) {
		return fmt.Errorf("the last pet came %v after t_req of the newest grant, allowed are %v", n.dog.lastPet().Sub(granted), limit.Sub(granted))
	}
	return nil
}

// stopped reports whether a process is stopped.
func stopped(pid int) bool { return strings.HasPrefix(procField(pid, "status", "State"), "T") }

// signal sends a signal that must arrive.
func (n *node) signal(p *process, s os.Signal) {
	n.t.Helper()
	if err := p.Process.Signal(s); err != nil {
		n.t.Fatal(err)
	}
}

// kill9 kills a process and waits for its end.
func (n *node) kill9(p *process) {
	n.t.Helper()
	n.signal(p, syscall.SIGKILL)
	<-p.done
}

// kill -9 of the deadman at several phases of its lease, just before L_hard among them; a service manager starts it again at once.
func TestA2KillNineKeepsTheBound(t *testing.T) {
	hard := timings(t).Hard
	for name, phase := range map[string]time.Duration{
		"right after a grant": 0, "half way": hard / 2, "just before L_hard": hard - 100*time.Millisecond,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.hold()
			d := n.start(program)
			granted := n.armed(n.connect(lease.ModeReset)).stop()
			until(granted.Add(phase))
			n.kill9(d)
			n.start(program)
			end, how := n.end()
			t.Logf("killed %v after t_req, the node ended by its %s %v after t_req", phase, how, end.Sub(granted))
			if err := n.within(end, granted); err != nil {
				t.Error(err)
			}
			if opens, _ := n.dog.count(); opens != 1 {
				t.Errorf("the device was opened %d times: a running one must be taken over", opens)
			}
		})
	}
}

// Without a second holder the death of the deadman closes the device, and that pets: the bound must notice, and the deadman must
// have said that its timeout counts twice.
func TestA2ClosingPetsWhereNobodyElseHolds(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.holder = ""
	d := n.start(program)
	c := n.connect(lease.ModeReset)
	l := n.armed(c)
	info := c.Info()
	granted := l.stop()
	until(granted.Add(timings(t).Hard - 100*time.Millisecond))
	n.kill9(d)
	end, how := n.end()
	t.Logf("the node ended by its %s %v after t_req", how, end.Sub(granted))
	if n.within(end, granted) == nil {
		t.Error("closing did not pet: the check of the bound would not notice a missing holder")
	}
	if info.Watchdog != 2*info.Device || info.Held || len(info.Warnings) == 0 {
		t.Errorf("the deadman reports %+v: its timeout must count twice", info)
	}
	if bound := granted.Add(timings(t).MaxAge + timings(t).Margin + info.Watchdog + slack); end > bound {
		t.Errorf("the node ended %v over the bound with the timeout that the deadman reported", end.Sub(bound))
	}
}

func TestA2SuccessorTakesOver(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	d1 := n.start(program) // which starts its holder
	n.armed(n.connect(lease.ModeReset))
	n.kill9(d1)
	dead := deadman.BootClock{}.Now()
	d2 := n.start(program)
	c := n.connect(lease.ModeReset)
	if i := c.Info(); !i.Armed || !i.TakenOver || i.Pid != d2.Process.Pid || !i.Held || i.Watchdog != 2*time.Second {
		t.Errorf("the successor describes itself as %+v", i)
	}
	r := <-c.Requests()
	if last := n.dog.lastPet(); last > dead.Add(lateness) {
		t.Errorf("the successor petted %v after its predecessor's death, before any grant", last.Sub(dead))
	}
	if err := c.Grant(r.Nonce, "leader", deadman.BootClock{}.Now(), 0); err != nil {
		t.Fatal(err)
	}
	l := newLeader(c)
	l.awaitGrants(n, 15) // longer than W
	n.alive()
	if err := c.Disarm(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.stop()
	n.stopsCleanly(d2)
	if opens, _ := n.dog.count(); opens != 1 {
		t.Errorf("the device was opened %d times", opens)
	}
}

// stopsCleanly ends a disarmed deadman, and sees that the watching has ended with it and that its holder is gone.
func (n *node) stopsCleanly(d *process) {
	n.t.Helper()
	n.signal(d, syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(patience):
		n.t.Fatal("a disarmed deadman did not stop")
	}
	if !d.ProcessState.Success() {
		n.t.Errorf("a clean stop ended with %v: %s", d.ProcessState, d.said())
	}
	if magic := <-n.dog.ended; !magic {
		n.t.Error("the device was closed without the magic close")
	}
	n.await("the end of the holder", func() bool { _, err := os.Stat(n.holder); return err != nil })
	n.alive()
}

func TestA2SuccessorSeesItsPredecessorGone(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.hold()
	d1 := n.start(program)
	l := n.armed(n.connect(lease.ModeReset))
	n.signal(d1, syscall.SIGSTOP)
	granted := l.stop()
	n.socket = filepath.Join(n.dir, "s2", "deadman.sock") // so that only the predecessor's pidfd holds it up
	n.start(program)
	end, how := n.end()
	if err := n.within(end, granted); err != nil || how != "watchdog" {
		t.Errorf("the node of a stopped deadman ended by its %s: %v", how, err)
	}
	if _, err := os.Stat(n.socket); err == nil {
		t.Error("the successor serves while its predecessor lives")
	}
	n.kill9(d1)
	n.await("the successor", func() bool { _, err := os.Stat(n.socket); return err == nil })
}

func TestA2DescriptorOfAnotherDeviceIsNotTaken(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.hold()
	d1 := n.start(program)
	n.connect(lease.ModeReset)
	n.kill9(d1)
	n.dog.path = filepath.Join(n.dir, "another")
	d2 := n.start(program)
	<-d2.done
	if d2.ProcessState.ExitCode() != 1 || !strings.Contains(d2.said(), "not of") {
		t.Errorf("%v: %s", d2.ProcessState, d2.said())
	}
}

// A deadman that is stopped inside the pet dies by its kill timer, or does not pet when it goes on. Without the timer it pets late.
func TestA3StoppedInsideThePet(t *testing.T) {
	for name, c := range map[string]struct{ point, without string }{
		"before the timer": {"before timer", ""}, "before the pet": {"before pet", ""}, "after the pet": {"after pet", ""},
		"before the pet, no kill timer": {"before pet", "killtimer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.hold()
			trigger := filepath.Join(n.dir, "now")
			d := n.start(mutants, "DEADMAN_STOP_AT="+c.point, "DEADMAN_STOP_WHEN="+trigger, "DEADMAN_WITHOUT="+c.without)
			l := n.armed(n.connect(lease.ModeReset))
			if err := os.WriteFile(trigger, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			n.await("the stop", func() bool {
				s := procField(d.Process.Pid, "status", "State")
				return stopped(d.Process.Pid) || s == "" || s[0] == 'Z'
			})
			at := deadman.BootClock{}.Now()
			// Inside the pet the timer kills a stopped process. Before the timer nothing does, nor where there is none.
			if c.point != "before timer" && c.without == "" {
				select {
				case <-d.done:
				case <-time.After(patience):
					t.Fatal("the kill timer does not kill a stopped process")
				}
				if ws := d.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
					t.Errorf("the deadman ended with %v", d.ProcessState)
				}
			} else {
				until(at.Add(1500 * time.Millisecond)) // the watchdog itself would fire after 2 s
				n.signal(d, syscall.SIGCONT)
			}
			// Nobody can say whether the grant under which the deadman was stopped was taken: it counts.
			granted := max(l.stop(), at.Add(-lateness))
			end, how := n.end()
			err := errors.Join(n.within(end, granted), n.petsInTime(granted))
			t.Logf("ended by its %s; last pet %v after t_req; the checks say: %v", how, n.dog.lastPet().Sub(granted), err)
			if (err != nil) != (c.without != "") {
				t.Errorf("the checks say: %v", err)
			}
		})
	}
}

// A grant that a stopped agent carries late is refused, and costs nothing.
func TestA3GrantCarriedLate(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.hold()
	n.start(program)
	c := n.connect(lease.ModeReset)
	n.armed(c).stop()
	r := newestRequest(c)
	_, pets := n.dog.count()
	until(r.At.Add(timings(t).MaxAge + 20*time.Millisecond))
	err := c.Grant(r.Nonce, "leader", deadman.BootClock{}.Now(), 0)
	var answer *deadman.AnswerError
	if !errors.As(err, &answer) || answer.Code != wire.TooOld {
		t.Errorf("a grant over A is answered: %v", err)
	}
	if _, now := n.dog.count(); now != pets {
		t.Error("a grant over A made the deadman pet")
	}
	newLeader(c).awaitGrants(n, 12)
	n.alive()
}

// newestRequest waits for a request and takes the newest one there is.
func newestRequest(c *deadman.Client) deadman.Request {
	r := <-c.Requests()
	for {
		select {
		case r = <-c.Requests():
		default:
			return r
		}
	}
}

func TestA3NewAgentVoidsOldRequests(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.hold()
	n.start(program)
	c1 := n.connect(lease.ModeReset)
	n.armed(c1).stop()
	r := newestRequest(c1)
	c2 := n.connect(lease.ModeReset)
	err := c2.Grant(r.Nonce, "leader", deadman.BootClock{}.Now(), 0)
	var answer *deadman.AnswerError
	if !errors.As(err, &answer) || answer.Code != wire.UnknownNonce {
		t.Errorf("a grant that the old agent asked for is answered: %v", err)
	}
	select {
	case <-c1.Done():
	case <-time.After(patience):
		t.Error("the old agent is still served")
	}
	newLeader(c2).awaitGrants(n, 12)
	n.alive()
}

// SIGSTOP of agent and deadman together, and back: nothing survives its lease.
func TestA3AgentAndDeadmanStopped(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.hold()
	d := n.start(program)
	l := n.armed(n.connect(lease.ModeReset))
	n.signal(d, syscall.SIGSTOP)
	granted := l.stop()
	end, how := n.end()
	if err := n.within(end, granted); err != nil || how != "watchdog" {
		t.Errorf("ended by its %s: %v", how, err)
	}
	// A real node would be dead. What wakes up here must not pet, but reset.
	_, pets := n.dog.count()
	n.signal(d, syscall.SIGCONT)
	<-n.dog.reset
	if _, now := n.dog.count(); now != pets {
		t.Error("a deadman that slept through its lease petted")
	}
}

func TestB5CleanStopOnlyDisarmed(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	d := n.start(program)
	c := n.connect(lease.ModeReset)
	l := n.armed(c)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGTSTP} {
		n.signal(d, s)
	}
	select {
	case e := <-c.Events():
		if e.Reason != wire.StopRefused || e.Reset {
			t.Errorf("event %+v", e)
		}
	case <-time.After(patience):
		t.Error("an armed deadman did not tell that it refused to stop")
	}
	l.awaitGrants(n, 12)
	n.alive()
	if err := c.Disarm(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.stop()
	c.Close()
	sleep(timings(t).Watchdog + lateness) // disarmed, without a leader, without an agent: it pets freely
	n.alive()
	n.stopsCleanly(d)
}

func TestModeEventNeverResets(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.hold()
	n.start(program)
	c := n.connect(lease.ModeEvent)
	n.armed(c).stop()
	select {
	case e := <-c.Events():
		if e.Reason != wire.LeaseLost || e.Reset {
			t.Errorf("event %+v", e)
		}
	case <-time.After(patience):
		t.Error("no event at L_hard")
	}
	sleep(timings(t).Watchdog)
	n.alive()
}

func TestAgentMayAskForReset(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.hold()
	n.start(program)
	c := n.connect(lease.ModeReset)
	n.armed(c)
	if err := c.Reset(); err != nil {
		t.Error(err)
	}
	<-n.dog.reset
	if e := <-c.Events(); e.Reason != wire.Asked || !e.Reset {
		t.Errorf("event %+v", e)
	}
}

func TestHolderLostAndFound(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	h := n.hold()
	d := n.start(program)
	c := n.connect(lease.ModeReset)
	l := n.armed(c)
	n.kill9(h)
	n.await("the loss", func() bool { return c.Info().Watchdog == 2*c.Info().Device })
	if e := <-c.Events(); e.Reason != wire.HolderLost {
		t.Errorf("event %+v", e)
	}
	n.hold()
	n.await("a new holder", func() bool { return c.Info().Held && c.Info().Watchdog == c.Info().Device })
	granted := l.stop()
	n.kill9(d)
	end, _ := n.end()
	if err := n.within(end, granted); err != nil {
		t.Errorf("the new holder does not hold: %v", err)
	}
}

func TestC1C2ProcessIsPrepared(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.hold()
	n.start(program)
	c := n.connect(lease.ModeReset)
	pid := c.Info().Pid
	warned := strings.Join(c.Info().Warnings, "; ")
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/stat", pid, thread.Name()))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(rest) // from the third field of proc(5) on
		if realtime := f[37] == "20" && f[38] == "2"; /* SCHED_RR */ realtime == strings.Contains(warned, "real-time") {
			t.Errorf("thread %s has priority %s and policy %s; warnings: %s", thread.Name(), f[37], f[38], warned)
		}
	}
	locked := procField(pid, "smaps_rollup", "Locked")
	if (locked == "0 kB") != strings.Contains(warned, "memory is not locked") {
		t.Errorf("locked %s; warnings: %s", locked, warned)
	}
	if strings.Contains(warned, "more than 4 MiB") {
		t.Errorf("resident and locked: %s", procField(pid, "status", "VmRSS"))
	}
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil || (strings.TrimSpace(string(score)) == "-1000") == strings.Contains(warned, "out-of-memory") {
		t.Errorf("OOM score %s (%v); warnings: %s", score, err, warned)
	}
	t.Logf("%d threads, locked %s, resident %s; warnings: %s", len(threads), locked, procField(pid, "status", "VmRSS"), warned)
}
