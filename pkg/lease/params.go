package lease

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// Params are all timings of a cluster that safety or detection rests on. A profile gives them; the definition's settings may
// override single values; Validate refuses a set that does not fit together.
type Params struct {
	Profile string

	Watchdog time.Duration // W: the watchdog's timeout; the value in force is read back from the device
	Hard     time.Duration // L_hard: from t_req, without a newer grant, until the deadman resets the node
	Soft     time.Duration // L_soft: from t_req, without a newer grant, until the agent releases its groups in order
	MaxAge   time.Duration // A: a grant older than this, by the deadman's clock, is thrown away
	Residue  time.Duration // R: from the watchdog's firing to the last side effect of the node
	Margin   time.Duration // p: the absolute timer's margin after t_req + A
	Renew    time.Duration // interval between lease requests

	RaftHeartbeat time.Duration
	RaftElection  time.Duration
	RaftLease     time.Duration // how long a leader goes on without a majority; no lease of ours rests on it
	ElectionP99   time.Duration // how long an election takes at its 99th percentile with these raft timings
	HostTimeout   time.Duration // T_host: silence of the repository voter's host before another may claim (issue of two nodes)

	Silence time.Duration // the detector's limit: a node that has sent nothing on any path for so long is lost
}

// The profiles; docs/timing.md has their budget.
var profiles = map[string]Params{
	"default": {
		Profile: "default", Watchdog: 5 * time.Second, Hard: 4600 * time.Millisecond, Soft: 3600 * time.Millisecond,
		MaxAge: 500 * time.Millisecond, Residue: 500 * time.Millisecond, Margin: 100 * time.Millisecond, Renew: 500 * time.Millisecond,
		RaftHeartbeat: 500 * time.Millisecond, RaftElection: 500 * time.Millisecond, RaftLease: 500 * time.Millisecond,
		ElectionP99: 1450 * time.Millisecond, HostTimeout: 1500 * time.Millisecond, Silence: 1000 * time.Millisecond,
	},
	"fast": {
		Profile: "fast", Watchdog: 2 * time.Second, Hard: 1900 * time.Millisecond, Soft: 1600 * time.Millisecond,
		MaxAge: 300 * time.Millisecond, Residue: 300 * time.Millisecond, Margin: 100 * time.Millisecond, Renew: 200 * time.Millisecond,
		RaftHeartbeat: 300 * time.Millisecond, RaftElection: 300 * time.Millisecond, RaftLease: 300 * time.Millisecond,
		ElectionP99: 880 * time.Millisecond, HostTimeout: 800 * time.Millisecond, Silence: 450 * time.Millisecond,
	},
	"careful": {
		Profile: "careful", Watchdog: 15 * time.Second, Hard: 14 * time.Second, Soft: 10 * time.Second,
		MaxAge: 2 * time.Second, Residue: 2 * time.Second, Margin: 500 * time.Millisecond, Renew: 1500 * time.Millisecond,
		RaftHeartbeat: time.Second, RaftElection: time.Second, RaftLease: time.Second,
		ElectionP99: 2920 * time.Millisecond, HostTimeout: 5 * time.Second, Silence: 3 * time.Second,
	},
}

// Profiles lists the profiles' names in alphabetical order.
func Profiles() []string {
	var out []string
	for n := range profiles {
		out = append(out, n)
	}
	sort.Strings(out)
	return out
}

// Profile returns the named set of timings; the empty name is "default". The error lists the names that exist.
func Profile(name string) (Params, error) {
	if name == "" {
		name = "default"
	}
	p, ok := profiles[name]
	if !ok {
		return Params{}, fmt.Errorf("no timing profile %q; there are %s", name, strings.Join(Profiles(), ", "))
	}
	return p, nil
}

// overridable maps the definition's keys to the fields that they set.
var overridable = map[string]func(*Params) *time.Duration{
	"watchdog_timeout": func(p *Params) *time.Duration { return &p.Watchdog },
	"l_hard":           func(p *Params) *time.Duration { return &p.Hard },
	"l_soft":           func(p *Params) *time.Duration { return &p.Soft },
	"max_age":          func(p *Params) *time.Duration { return &p.MaxAge },
	"residue":          func(p *Params) *time.Duration { return &p.Residue },
	"margin":           func(p *Params) *time.Duration { return &p.Margin },
	"renew":            func(p *Params) *time.Duration { return &p.Renew },
	"silence":          func(p *Params) *time.Duration { return &p.Silence },
}

// Keys lists the names that With accepts, in alphabetical order.
func Keys() []string {
	var out []string
	for k := range overridable {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// With returns the timings with single values overridden. An unknown key is an error.
func (p Params) With(overrides map[string]time.Duration) (Params, error) {
	keys := make([]string, 0, len(overrides))
	for k := range overrides {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		f, ok := overridable[k]
		if !ok {
			return p, fmt.Errorf("no timing %q; there are %s", k, strings.Join(Keys(), ", "))
		}
		*f(&p) = overrides[k]
	}
	return p, nil
}

// Validate lists every relation between the timings that does not hold; nil means that they are safe and fit together.
func (p Params) Validate() []error {
	var bad []error
	need := func(ok bool, format string, args ...any) {
		if !ok {
			bad = append(bad, fmt.Errorf(format, args...))
		}
	}
	for _, v := range []struct {
		name string
		d    time.Duration
	}{{"watchdog_timeout", p.Watchdog}, {"l_hard", p.Hard}, {"l_soft", p.Soft}, {"max_age", p.MaxAge}, {"residue", p.Residue},
		{"margin", p.Margin}, {"renew", p.Renew}, {"silence", p.Silence}} {
		need(v.d > 0, "%s is %v: it must be positive", v.name, v.d)
	}
	need(p.Watchdog <= 10*time.Minute, "watchdog_timeout %v is over the largest allowed, 10m", p.Watchdog)
	need(p.Soft < p.Hard, "l_soft %v must be below l_hard %v: the difference is what an application gets for stopping", p.Soft, p.Hard)
	// At L_hard the deadman resets by itself; a watchdog that fired before could not be told from a failure of that.
	need(p.Hard <= p.Watchdog, "l_hard %v must not be over the watchdog timeout %v: the device is the backstop", p.Hard, p.Watchdog)
	need(p.Renew <= p.Soft/4, "renew %v must be at most l_soft/4 = %v: three lost requests must not stop the groups", p.Renew, p.Soft/4)
	lost := p.ElectionP99
	if h := p.HostTimeout + 300*time.Millisecond; h > lost {
		lost = h
	}
	need(p.Soft >= p.Renew+lost+200*time.Millisecond,
		"l_soft %v must be at least renew + max(election %v, T_host + 0.3s) + 0.2s = %v: else survivors stop their own groups while a new leader is found",
		p.Soft, p.ElectionP99, p.Renew+lost+200*time.Millisecond)
	need(p.MaxAge+p.Margin < p.Watchdog, "max_age %v + margin %v must be below the watchdog timeout %v", p.MaxAge, p.Margin, p.Watchdog)
	need(p.Renew+p.MaxAge+p.Margin < p.Watchdog, "renew + max_age + margin must be below the watchdog timeout %v, or a healthy node is reset", p.Watchdog)
	return bad
}

// Expiry is how long after t0 the resources of a node with these timings are surely gone:
// (A + W + R + p)(1 + rho)/(1 - rho).
func (p Params) Expiry() time.Duration { return expiry(p.MaxAge, p.Watchdog, p.Residue, p.Margin) }

func expiry(a, w, r, margin time.Duration) time.Duration { return stretch(a + w + r + margin) }
