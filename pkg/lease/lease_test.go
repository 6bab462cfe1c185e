package lease

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestProfilesAreSafe(t *testing.T) {
	for _, n := range Profiles() {
		p, err := Profile(n)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range p.Validate() {
			t.Errorf("%s: %v", n, bad)
		}
	}
	if _, err := Profile("quick"); err == nil || !strings.Contains(err.Error(), "careful, default, fast") {
		t.Errorf("unknown profile: %v", err)
	}
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		key  string
		d    time.Duration
		want string
	}{
		{"l_soft", 5 * time.Second, "l_soft 5s must be below l_hard"},
		{"l_hard", 6 * time.Second, "must not be over the watchdog timeout"},
		{"renew", time.Second, "renew 1s must be at most l_soft/4"},
		{"l_soft", 2 * time.Second, "stop their own groups"}, // attack B1
		{"margin", 0, "margin is 0s"},
		{"watchdog_timeout", time.Hour, "over the largest allowed"},
	} {
		p, _ := Profile("default")
		p, err := p.With(map[string]time.Duration{c.key: c.d})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, b := range p.Validate() {
			all = append(all, b.Error())
		}
		if !strings.Contains(strings.Join(all, "\n"), c.want) {
			t.Errorf("%s=%v: want %q in %q", c.key, c.d, c.want, all)
		}
	}
	if _, err := (Params{}).With(map[string]time.Duration{"w": 1}); err == nil {
		t.Error("an unknown timing was taken")
	}
}

func armed() Armed {
	p, _ := Profile("default")
	return Armed{Node: "a", Incarnation: 3, Class: Independent, Mode: ModeReset, Watchdog: p.Watchdog, MaxAge: p.MaxAge, Residue: p.Residue, Margin: p.Margin}
}

// A4: silence is proof only where an independent timer was armed, by the values that were armed.
func TestA4TimeProvesOnlyWhatWasArmed(t *testing.T) {
	g := NewGrantor(7)
	g.Committed(1)
	s := Subject{"a", 3}
	for name, change := range map[string]func(*Armed){
		"class process": func(a *Armed) { a.Class = Process },
		"mode e":        func(a *Armed) { a.Mode = ModeEvent },
	} {
		a := armed()
		change(&a)
		if _, wait, ok := g.Expired(s, a, Instant(time.Hour)); ok || wait >= 0 {
			t.Errorf("%s: an hour of silence was called a proof", name)
		}
		if (TimeProof{T0: 1, Now: Instant(time.Hour), Armed: a}).Check(a) == nil {
			t.Errorf("%s: Check took the proof", name)
		}
	}
	waived := armed()
	waived.Class, waived.Waived = Process, true
	if _, _, ok := g.Expired(s, waived, Instant(time.Hour)); !ok {
		t.Error("the operator's waiver was not honoured")
	}
	longer := armed()
	longer.Watchdog *= 3
	proof := TimeProof{T0: 1, Now: Instant(armed().Expiry() + 1), Armed: armed()}
	if proof.Check(longer) == nil {
		t.Error("a proof with smaller values than the newest Armed was taken")
	}
	if err := proof.Check(armed()); err != nil {
		t.Error(err)
	}
}

func TestExpiryCountsFromTheLatestGrant(t *testing.T) {
	g := NewGrantor(7)
	s := Subject{"a", 3}
	if g.MayGrant(s) || g.T0(s) != 0 {
		t.Fatal("granted or counted before the first commit of the term")
	}
	g.Committed(1000)
	g.Committed(5000) // later calls change nothing
	if g.T0(s) != 1000 {
		t.Fatalf("t0 %d", g.T0(s))
	}
	g.Granted(s, 9000)
	if g.T0(s) != 9000 {
		t.Fatalf("t0 %d after a grant", g.T0(s))
	}
	a := armed()
	if _, wait, ok := g.Expired(s, a, Instant(9000).Add(a.Expiry()-1)); ok || wait != 1 {
		t.Fatalf("one nanosecond early: ok=%v wait=%v", ok, wait)
	}
	p, _, ok := g.Expired(s, a, Instant(9000).Add(a.Expiry()))
	if !ok || p.Check(a) != nil {
		t.Fatal("not expired when it was")
	}
}

func TestVotersMakeT0Earlier(t *testing.T) {
	g := NewGrantor(7)
	g.SetVoters([]string{"a", "b", "c"})
	s := Subject{"x", 1}
	g.Committed(Instant(10 * time.Second))
	g.HeardVoter("b", Instant(10*time.Second), 2*time.Second)
	if g.T0(s) != Instant(10*time.Second) {
		t.Fatal("one voter of three is no majority")
	}
	g.HeardVoter("stranger", Instant(10*time.Second), 9*time.Second)
	if g.T0(s) != Instant(10*time.Second) {
		t.Fatal("a non-voter was counted")
	}
	g.HeardVoter("c", Instant(10*time.Second), time.Second)
	if g.T0(s) != Instant(9*time.Second) {
		t.Fatalf("t0 %v: want the later of the two", time.Duration(g.T0(s)))
	}
	g.HeardVoter("a", Instant(10*time.Second), 3*time.Second) // the best majority is a, b
	if g.T0(s) != Instant(8*time.Second) {
		t.Fatalf("t0 %v: want the better majority's later one", time.Duration(g.T0(s)))
	}
	g.Granted(s, Instant(11*time.Second))
	if g.T0(s) != Instant(11*time.Second) {
		t.Fatal("an own grant was forgotten")
	}
}

// A9: from the moment a proof is proposed the incarnation is granted nothing, and it alone.
func TestA9DoomedIncarnationIsNotGranted(t *testing.T) {
	g := NewGrantor(7)
	g.Committed(1)
	old, young := Subject{"a", 3}, Subject{"a", 4}
	g.Doom(old)
	if g.MayGrant(old) || !g.MayGrant(young) {
		t.Fatal("doom must hold for the incarnation and for it alone")
	}
	g.Spare(old)
	if !g.MayGrant(old) {
		t.Fatal("a refused proof must lift the doom")
	}
}

func TestGrantOrderIsByTermAndIndex(t *testing.T) {
	a, b := &Grant{Term: 3, Applied: 90}, &Grant{Term: 4, Applied: 10}
	if a.Newer(b) || !b.Newer(a) || !a.Newer(nil) || !a.Newer(a) {
		t.Fatal("order of grants")
	}
	h := &Grant{Hold: []Held{{Group: "g", Generation: 5}, {Group: "r", Generation: 2, Releasing: true}}}
	if ok, _ := h.Lists("g", 4); ok {
		t.Fatal("another generation was listed")
	}
	if ok, rel := h.Lists("r", 2); !ok || !rel {
		t.Fatal("releasing group")
	}
	if ok, _ := (*Grant)(nil).Lists("g", 5); ok {
		t.Fatal("no grant lists nothing")
	}
}

// The rule against which the arithmetic is argued, run on random clocks: whatever two clocks within Rho do, and whenever
// grants, pets and commits happen in the allowed order, the holder's last side effect lies before the leader's proof.
func TestNoOverlapOnDriftingClocks(t *testing.T) {
	a := armed()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		rate := func() float64 { return 1 + (r.Float64()*2-1)*Rho }
		node, leader := rate(), rate()
		g := NewGrantor(2)
		s := Subject{a.Node, a.Incarnation}
		var lastEffect float64 // true time, seconds
		now := 1.0             // true time
		at := func() Instant { return Instant(now * leader * 1e9) }
		g.Committed(at())
		for range 20 {
			treq := now
			now += r.Float64() * 0.3 // the request travels, the round runs
			g.Granted(s, at())
			// The latest pet that the absolute timer lets happen, then W, then R, all on the node's clock.
			lastEffect = treq + (a.MaxAge+a.Margin+a.Watchdog+a.Residue).Seconds()/node
			now += r.Float64() * 0.5
		}
		for {
			_, wait, ok := g.Expired(s, a, at())
			if ok {
				break
			}
			now += wait.Seconds()/leader + 1e-9
		}
		if now < lastEffect {
			t.Fatalf("seed %d: called free at %.6f, last effect at %.6f", seed, now, lastEffect)
		}
	}
}

func TestConfirmationsAge(t *testing.T) {
	c := NewConfirmations(Instant(time.Second))
	now := Instant(10 * time.Second)
	if a := c.Age(5, now); a > 9*time.Second || a < 8900*time.Millisecond {
		t.Fatalf("with no confirmation the age is that of the record, is %v", a)
	}
	c.Confirm(4, Instant(7*time.Second))
	c.Confirm(5, Instant(9*time.Second))
	if a := c.Age(5, now); a > 3*time.Second || a < 2900*time.Millisecond {
		t.Fatalf("age of older terms %v, want just below 3 s", a)
	}
	if a := c.Age(6, now); a > time.Second {
		t.Fatalf("age %v, want at most 1 s", a)
	}
	c.Restart(Instant(9500 * time.Millisecond))
	if a := c.Age(5, now); a > 500*time.Millisecond {
		t.Fatalf("age %v is more than the time as a voter", a)
	}
}

func FuzzParamsWith(f *testing.F) {
	f.Add("renew", int64(1))
	f.Fuzz(func(t *testing.T, key string, d int64) {
		p, _ := Profile("fast")
		if q, err := p.With(map[string]time.Duration{key: time.Duration(d)}); err == nil {
			_ = q.Validate()
			_ = q.Expiry()
		}
	})
}
