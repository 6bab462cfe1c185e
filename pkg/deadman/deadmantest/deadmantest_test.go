package deadmantest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/holdfast-ha/holdfast/pkg/deadman"
	"github.com/holdfast-ha/holdfast/pkg/deadman/wire"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bed is a deadman, its agent's connection and a leader, in fake time.
type bed struct {
	t     *testing.T
	clock Clock
	p     lease.Params
	d     *Deadman
	c     *deadman.Client

	mu      sync.Mutex
	why     string
	diedAt  lease.Instant
	granted lease.Instant
	leads   bool
}

func inBubble(t *testing.T, profile string, o Options, f func(t *testing.T, b *bed)) {
	synctest.Test(t, func(t *testing.T) {
		p, err := lease.Profile(profile)
		if err != nil {
			t.Fatal(err)
		}
		b := &bed{t: t, clock: Clock{Origin: time.Now()}, p: p, leads: true}
		o.Clock = b.clock
		o.Kill = func(why string) {
			b.mu.Lock()
			b.why, b.diedAt = why, b.clock.Now()
			b.mu.Unlock()
		}
		b.d = Start(o)
		f(t, b)
		if b.c != nil {
			b.c.Close()
		}
		b.d.Close()
	})
}

func (b *bed) connect() {
	b.t.Helper()
	c, err := b.d.Connect(b.t.Context(), deadman.Settings{Params: b.p, Mode: lease.ModeReset})
	if err != nil {
		b.t.Fatal(err)
	}
	b.c = c
	go func() { // the leader, by way of the agent
		for {
			select {
			case <-c.Done():
				return
			case r := <-c.Requests():
				b.mu.Lock()
				leads := b.leads
				b.mu.Unlock()
				if leads && c.Grant(r.Nonce, "leader", b.clock.Now(), 0) == nil {
					b.mu.Lock()
					b.granted = r.At
					b.mu.Unlock()
				}
			}
		}
	}()
}

func (b *bed) arm() {
	b.t.Helper()
	b.connect()
	if err := errors.Join(b.c.Arm(b.t.Context()), b.c.HoldsSomething(true)); err != nil {
		b.t.Fatal(err)
	}
	time.Sleep(2 * b.p.Renew)
}

func (b *bed) cut() {
	b.mu.Lock()
	b.leads = false
	b.mu.Unlock()
}

func (b *bed) died() (lease.Instant, string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.diedAt, b.why
}

func TestHealthyNodeLivesOn(t *testing.T) {
	inBubble(t, "default", Options{}, func(t *testing.T, b *bed) {
		b.arm()
		time.Sleep(2 * time.Hour)
		if _, why := b.died(); why != "" {
			t.Fatalf("the node died: %s", why)
		}
		s := b.c.Status()
		if s.Late != 0 || s.Pets < 2*3600*2-10 || s.MinMargin != b.p.MaxAge+b.p.Margin {
			t.Errorf("figures %+v", s)
		}
	})
}

func TestLeaseLostResetsAtHardLimit(t *testing.T) {
	inBubble(t, "default", Options{}, func(t *testing.T, b *bed) {
		b.arm()
		b.cut()
		time.Sleep(10 * time.Second)
		at, why := b.died()
		if !strings.Contains(why, wire.LeaseLost.Text()) || at.Sub(b.granted) != b.p.Hard {
			t.Errorf("died %v after t_req: %s", at.Sub(b.granted), why)
		}
		select {
		case <-b.c.Done():
		default:
			t.Error("the agent of a dead node is still connected")
		}
	})
}

func TestStoppedDeadmanLeavesTheWatchdog(t *testing.T) {
	inBubble(t, "fast", Options{}, func(t *testing.T, b *bed) {
		b.arm()
		b.d.Stop()
		time.Sleep(10 * time.Second)
		at, why := b.died()
		if bound := b.p.MaxAge + b.p.Margin + b.p.Watchdog; why != "the watchdog fired" || at.Sub(b.granted) > bound {
			t.Errorf("died %v after t_req: %q", at.Sub(b.granted), why)
		}
	})
}

func TestReplacedDeadmanIsArmed(t *testing.T) {
	inBubble(t, "fast", Options{}, func(t *testing.T, b *bed) {
		b.arm()
		b.d = b.d.Replace()
		<-b.c.Done()
		b.connect()
		if i := b.c.Info(); !i.Armed || !i.TakenOver {
			t.Errorf("info %+v", i)
		}
		time.Sleep(time.Minute)
		if _, why := b.died(); why != "" {
			t.Errorf("a node whose deadman was replaced in time died: %s", why)
		}
		if err := b.c.Disarm(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.cut()
		time.Sleep(time.Minute)
		if _, why := b.died(); why != "" || b.c.Info().Armed {
			t.Errorf("a disarmed node died: %s", why)
		}
	})
}

// Settings that need another timeout of the device must not keep an agent from connecting to an armed deadman.
func TestOtherTimingsForAnArmedDeadman(t *testing.T) {
	inBubble(t, "fast", Options{Watchdog: 2 * time.Second}, func(t *testing.T, b *bed) {
		b.arm()
		b.c.Close()
		b.p, _ = lease.Profile("default")
		b.connect()
		time.Sleep(time.Second)
		if i := b.c.Info(); i.Watchdog != b.p.Watchdog || !i.Armed {
			t.Errorf("a second after its agent's new settings the deadman says %+v", i)
		}
		fast, _ := lease.Profile("fast")
		if err := b.c.Update(t.Context(), deadman.Settings{Params: fast, Mode: lease.ModeReset}); err != nil || b.c.Info().Watchdog != fast.Watchdog {
			t.Errorf("update: %v, then %+v", err, b.c.Info())
		}
		time.Sleep(time.Minute)
		if _, why := b.died(); why != "" {
			t.Errorf("a change of timings killed the node: %s", why)
		}
		b.cut()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		slow, _ := lease.Profile("careful")
		if err := b.c.Update(ctx, deadman.Settings{Params: slow, Mode: lease.ModeReset}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an update without a grant: %v", err)
		}
	})
}

func TestClientSaysWhatIsWrong(t *testing.T) {
	inBubble(t, "default", Options{Class: lease.Process, Lonely: true}, func(t *testing.T, b *bed) {
		b.connect()
		if i := b.c.Info(); i.Class != lease.Process || i.Watchdog != i.Device || i.Held {
			t.Errorf("class process has no descriptor to close: %+v", i)
		}
		wrong := b.p
		wrong.Hard = wrong.Watchdog + 1
		for name, s := range map[string]deadman.Settings{"timings": {Params: wrong, Mode: lease.ModeReset}, "mode": {Params: b.p, Mode: "x"}} {
			if err := b.c.Update(t.Context(), s); err == nil {
				t.Errorf("wrong %s were taken", name)
			}
		}
		if err := b.c.HoldsSomething(true); err == nil || !strings.Contains(err.Error(), wire.NotArmed.Text()) {
			t.Errorf("a start under a disarmed deadman: %v", err)
		}
		if err := b.c.Grant(lease.Nonce{1}, "leader", 1, 0); err == nil {
			t.Error("a grant for nothing was taken")
		}
		if err := b.c.TestWatchdog(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("the measurement that does not exist says %v", err)
		}
		b.d.Kill9()
		<-b.c.Done()
		if err := b.c.Arm(t.Context()); !errors.Is(err, deadman.ErrClosed) || !errors.Is(b.c.Err(), deadman.ErrClosed) {
			t.Errorf("arming over a dead connection: %v; %v", err, b.c.Err())
		}
		if _, err := b.d.Dial(); err == nil {
			t.Error("a dead deadman takes connections")
		}
		b.c.Renew() // does nothing, and does not hang
	})
}

// A frame that is none ends the connection, and nothing else.
func TestGarbageEndsTheConnection(t *testing.T) {
	inBubble(t, "fast", Options{}, func(t *testing.T, b *bed) {
		b.arm()
		conn, err := b.d.Dial()
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = conn.Write(make([]byte, 3*wire.Size)) }()
		buf := make([]byte, wire.Size)
		for err == nil {
			_, err = conn.Read(buf)
		}
		conn.Close()
		<-b.c.Done() // the newest connection is served, even if it is a bad one
		b.connect()
		time.Sleep(10 * time.Second)
		if _, why := b.died(); why != "" {
			t.Errorf("the node died: %s", why)
		}
	})
}

// A deadman that does not answer, because it is stopped, must not hold its agent for ever.
func TestNoAnswer(t *testing.T) {
	inBubble(t, "default", Options{}, func(t *testing.T, b *bed) {
		b.connect()
		b.d.Stop()
		if err := b.c.Arm(t.Context()); !errors.Is(err, deadman.ErrNoAnswer) {
			t.Errorf("arming a stopped deadman: %v", err)
		}
		b.d.Continue()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("no longer wanted"))
		if err := b.c.Arm(ctx); err == nil || !strings.Contains(err.Error(), "no longer wanted") {
			t.Errorf("arming under a cancelled context: %v", err)
		}
	})
}
