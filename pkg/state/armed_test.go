package state

import (
	"strings"
	"testing"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// A9: an Armed fact that comes late, or twice, does not replace a newer one: silence would be proof by values that no longer hold.
func TestA9LateArmedFactChangesNothing(t *testing.T) {
	l := newLog(t, three())
	l.up("n1", "n2", "n3")
	armed := func(arming string, watchdog time.Duration, mode lease.Mode) Command {
		f := armedFact("n1", 1)
		f.Watchdog, f.Mode = watchdog, mode
		return Command{Armed: &Armed{Fact: f, Arming: arming}}
	}
	l.ok(armed("first", 2*time.Second, lease.ModeReset))
	l.ok(armed("second", 15*time.Second, lease.ModeReset))
	if why := l.refused(armed("first", 2*time.Second, lease.ModeReset)); !strings.Contains(why, "is over") {
		t.Errorf("refused because %q", why)
	}
	l.ok(armed("second", 30*time.Second, lease.ModeReset)) // the watchdog counts for longer: told within the arming
	l.ok(armed("second", 30*time.Second, lease.ModeReset))
	l.refused(armed("second", 15*time.Second, lease.ModeReset))
	l.ok(armed("second", 30*time.Second, lease.ModeEvent))
	l.refused(armed("second", 30*time.Second, lease.ModeReset))
	l.ok(Command{Disarmed: &Disarmed{Node: "n1", Incarnation: 1, Arming: "second"}})
	l.refused(armed("second", 30*time.Second, lease.ModeEvent))
	l.ok(armed("third", time.Second, lease.ModeReset))
	if a := l.s.Nodes["n1"].Armed; a.Watchdog != time.Second || a.Mode != lease.ModeReset {
		t.Errorf("armed %+v", a)
	}
}
