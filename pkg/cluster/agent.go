package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// An application is started, stopped and watched by scripts of the administrator, or by an agent that somebody wrote for its
// kind. An agent is named as Pacemaker's users name it: class, provider, type.

// The classes of agents.
const (
	AgentOCF     = "ocf"     // ocf:heartbeat:nginx: a resource agent below /usr/lib/ocf/resource.d
	AgentSystemd = "systemd" // systemd:nginx.service: a unit of the system's service manager
	AgentUser    = "user"    // user:NAME: a resource type of the administrator's own, below /etc/holdfast/types
	agentSRC     = "src"     // src:NAME: a subsystem of AIX's System Resource Controller
)

// DefaultAgentMonitorInterval is how often the agent of an application is asked that has no monitor of its own.
const DefaultAgentMonitorInterval = 10 * time.Second

// OwnTimes reports whether the application's agent knows itself how long it may take to start and stop.
func (a *ApplicationController) OwnTimes() bool {
	return a.Agent != "" && !strings.HasPrefix(a.Agent, AgentSRC)
}

// An AgentName is the parsed name of an agent.
type AgentName struct {
	Class    string // AgentOCF, AgentSystemd or AgentUser
	Provider string // of an OCF agent: heartbeat, pacemaker, ...
	Type     string // nginx; of systemd: the unit, with its suffix
}

const (
	maxAgentPart = 128
	maxUnit      = 255
)

// spelled reports whether a word consists of letters, digits and what else is named, begins with a letter or digit, and is not
// too long.
func spelled(s, also string, longest int) bool {
	if s == "" || len(s) > longest {
		return false
	}
	for i, r := range s {
		plain := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !plain && (i == 0 || !strings.ContainsRune(also, r)) {
			return false
		}
	}
	return true
}

func agentWord(s string) bool { return spelled(s, "_.-", maxAgentPart) }

// parameterName is one that can stand in an environment variable's name; some agents have a - in theirs.
func parameterName(s string) bool {
	return spelled(strings.TrimLeft(s, "_"), "_-", maxAgentPart) && (s[0] < '0' || s[0] > '9')
}

var (
	unitKinds = []string{".service", ".socket", ".mount", ".timer", ".path", ".target", ".swap", ".automount", ".slice", ".scope", ".device"}
)

// ParseAgent reads an agent's name. A unit without a suffix is a service.
func ParseAgent(s string) (AgentName, error) {
	const forms = "ocf:heartbeat:nginx, systemd:nginx.service, user:TYPE or, on AIX, src:SUBSYSTEM"
	class, rest, ok := strings.Cut(s, ":")
	if !ok {
		return AgentName{}, fmt.Errorf("%q names no agent: it is written as %s", s, forms)
	}
	switch class {
	case AgentOCF:
		provider, name, ok := strings.Cut(rest, ":")
		if !ok || !agentWord(provider) || !agentWord(name) {
			return AgentName{}, fmt.Errorf("%q names no OCF agent: it is written ocf:PROVIDER:TYPE, as ocf:heartbeat:nginx", s)
		}
		return AgentName{class, provider, name}, nil
	case AgentUser:
		if !agentWord(rest) {
			return AgentName{}, fmt.Errorf("%q names no resource type: it is written user:TYPE, as user:counter", s)
		}
		return AgentName{Class: class, Type: rest}, nil
	case agentSRC:
		if rest == "" || strings.ContainsAny(rest, "/ \t,:'\"") {
			return AgentName{}, fmt.Errorf("%q names no subsystem: it is written src:SUBSYSTEM, as src:httpd", s)
		}
		return AgentName{Class: class, Type: rest}, nil
	case AgentSystemd:
		if !spelled(rest, `:_.@\-`, maxUnit) {
			return AgentName{}, fmt.Errorf("%q names no systemd unit: it is written systemd:UNIT, as systemd:nginx.service", s)
		}
		suffix := slices.IndexFunc(unitKinds, func(k string) bool { return strings.HasSuffix(rest, k) })
		switch {
		case suffix < 0:
			rest += ".service"
		case !slices.Contains([]string{".service", ".socket", ".mount", ".timer", ".path"}, unitKinds[suffix]):
			return AgentName{}, fmt.Errorf("unit %s cannot be started and stopped as a resource: name a .service, .socket, .mount, .timer or .path", rest)
		}
		return AgentName{Class: class, Type: rest}, nil
	case "lsb", "upstart", "service", "stonith", "nagios":
		return AgentName{}, fmt.Errorf("agents of class %s are not supported: write %s, or start_script and stop_script", class, forms)
	}
	return AgentName{}, fmt.Errorf("%q is no class of agents%s: an agent is written as %s", class,
		DidYouMean(class, []string{AgentOCF, AgentSystemd, AgentUser, agentSRC}), forms)
}

// String is the name as it is written in a definition.
func (a AgentName) String() string {
	if a.Class == AgentOCF {
		return a.Class + ":" + a.Provider + ":" + a.Type
	}
	return a.Class + ":" + a.Type
}

// MonitorsOf lists the monitors of an application, resolved. One that is run by an agent and has no monitor is watched by its
// agent: every 10 s, restarted three times, then moved. A subsystem of AIX is watched only by the monitors that it is given.
func (d *Definition) MonitorsOf(a *ApplicationController) []ApplicationMonitor {
	var out []ApplicationMonitor
	for _, name := range a.Monitors {
		if m := d.ApplicationMonitor(name); m != nil {
			out = append(out, *m)
		}
	}
	if a.OwnTimes() && len(a.Monitors) == 0 {
		m := ApplicationMonitor{Name: a.Name, Type: "agent", MonitorInterval: DefaultAgentMonitorInterval, FailureAction: "fallover"}
		m.defaults()
		out = append(out, m)
	}
	return out
}

// agent checks what an application that is run by an agent may have.
func (v *validator) agent(p string, a *ApplicationController) {
	name, err := ParseAgent(a.Agent)
	if err != nil {
		v.add(p+".agent", "", "%v", err)
	}
	for _, f := range []struct {
		key   string
		given bool
	}{{"start_script", a.StartScript != ""}, {"stop_script", a.StopScript != ""}, {"start_args", len(a.StartArgs) > 0}, {"stop_args", len(a.StopArgs) > 0}} {
		if f.given {
			v.add(p+"."+f.key, "leave it out, or the agent", "the application is run by the agent %s, not by scripts", a.Agent)
		}
	}
	if a.StartupMode == "background" {
		v.add(p+".startup_mode", "foreground, or leave it out", "an agent's start is always awaited")
	}
	switch {
	case len(a.Params) == 0:
	case name.Class == AgentSystemd:
		v.add(p+".params", "leave them out; a drop-in of the unit takes settings", "a systemd unit takes no parameters")
	case name.Class == agentSRC:
		v.add(p+".params", "leave them out", "a subsystem takes no parameters")
	}
	for _, k := range sortedKeys(a.Params) {
		if !parameterName(k) {
			v.add(p+".params", "letters, digits and _", "the parameter name %q cannot be used", k)
		}
		if strings.ContainsFunc(a.Params[k], func(r rune) bool { return r < ' ' || r == 0x7f }) {
			v.add(p+".params."+k, "one line of text", "the value has control characters in it")
		}
	}
}

// agentMonitors checks that only applications with an agent are watched by theirs.
func (v *validator) agentMonitors(p string, a *ApplicationController) {
	if a.Agent != "" {
		return
	}
	for i, name := range a.Monitors {
		if m := v.d.ApplicationMonitor(name); m != nil && m.Type == "agent" {
			v.add(fmt.Sprintf("%s.monitors[%d]", p, i), "a monitor of type process or custom", "monitor %s asks an agent, and the application has none", name)
		}
	}
}

// words binds a map whose values may hold anything: name:value words, quoted as in the shell where they have blanks.
func words[T any](a Attribute, at func(*T) *map[string]string, hide func(key string) bool) field[T] {
	a.Kind = KindPairs
	return field[T]{a, func(_ *Definition, o *T) string {
		var out []string
		for _, k := range sortedKeys(*at(o)) {
			value := (*at(o))[k]
			if hide(k) {
				value = hidden
			}
			out = append(out, k+":"+value)
		}
		return JoinCommand(out)
	}, func(_ *Definition, o *T, v string) error {
		list, err := SplitCommand(v)
		if err != nil {
			return err
		}
		m := map[string]string{}
		for _, w := range list {
			k, x, ok := strings.Cut(w, ":")
			if !ok || k == "" {
				return fmt.Errorf("%q is not of the form name:value (several are separated by blanks; quote a value that has some)", w)
			}
			if _, twice := m[k]; twice {
				return fmt.Errorf("%s is given twice", k)
			}
			if x == hidden {
				x = (*at(o))[k] // What a query printed may be given back.
			}
			m[k] = x
		}
		if len(m) == 0 {
			m = nil
		}
		*at(o) = m
		return nil
	}}
}

// MayRun reports whether an application could run on a node: it is in a group of the node's, or in none yet.
func (d *Definition) MayRun(node, application string) bool {
	for i := range d.ResourceGroups {
		if g := &d.ResourceGroups[i]; contains(g.Applications, application) {
			return g.Has(node)
		}
	}
	return true
}
