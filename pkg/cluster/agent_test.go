package cluster

import (
	"strings"
	"testing"
	"time"
)

func TestParseAgent(t *testing.T) {
	for in, want := range map[string]string{
		"ocf:heartbeat:nginx":        "ocf:heartbeat:nginx",
		"ocf:heartbeat:LVM-activate": "ocf:heartbeat:LVM-activate",
		"systemd:nginx":              "systemd:nginx.service",
		"systemd:nginx.service":      "systemd:nginx.service",
		"systemd:getty@tty1":         "systemd:getty@tty1.service",
		"systemd:home.mount":         "systemd:home.mount",
		"user:counter":               "user:counter",
		"nginx":                      "!names no agent",
		"ocf:nginx":                  "!ocf:PROVIDER:TYPE",
		"ocf:heartbeat:":             "!ocf:PROVIDER:TYPE",
		"ocf:heartbeat:../../bin/sh": "!ocf:PROVIDER:TYPE",
		"ocf:heartbeat:a/b":          "!ocf:PROVIDER:TYPE",
		"ocf:.:x":                    "!ocf:PROVIDER:TYPE",
		"ocf:a:" + longText(200):     "!ocf:PROVIDER:TYPE",
		"systemd:":                   "!systemd:UNIT",
		"systemd:--now":              "!systemd:UNIT",
		"systemd:a b":                "!systemd:UNIT",
		"systemd:multi-user.target":  "!cannot be started and stopped",
		"user:../x":                  "!user:TYPE",
		"lsb:nginx":                  "!class lsb are not supported",
		"stonith:fence_apc":          "!class stonith are not supported",
		"systmd:nginx":               `!did you mean "systemd"`,
		"":                           "!names no agent",
	} {
		got, err := ParseAgent(in)
		if says, bad := strings.CutPrefix(want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%q: %v, %v, wanted %q", in, got, err, says)
			}
			continue
		}
		if err != nil || got.String() != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}

func longText(n int) string { return strings.Repeat("x", n) }

// withApp is a definition whose one group has an application.
func withApp(a ApplicationController, monitors ...ApplicationMonitor) *Definition {
	a.Name = "app"
	return &Definition{Name: "c", Nodes: []Node{{Name: "n1"}}, ApplicationControllers: []ApplicationController{a}, ApplicationMonitors: monitors,
		ResourceGroups: []ResourceGroup{{Name: "rg", Nodes: []string{"n1"}, Startup: "OHN", Fallover: "FNPN", Fallback: "NFB", Applications: []string{"app"}}}}
}

func TestApplicationsOfAgents(t *testing.T) {
	for what, c := range map[string]struct {
		d    *Definition
		says string
	}{
		"good":           {withApp(ApplicationController{Agent: "ocf:heartbeat:nginx", Params: map[string]string{"configfile": "/etc/nginx.conf"}}), ""},
		"both":           {withApp(ApplicationController{Agent: "ocf:heartbeat:nginx", StartScript: "/a", StopScript: "/b"}), "not by scripts"},
		"neither":        {withApp(ApplicationController{}), "the script is missing"},
		"odd parameter":  {withApp(ApplicationController{Agent: "user:x", Params: map[string]string{"a b": "c"}}), `"a b" cannot be used`},
		"digit first":    {withApp(ApplicationController{Agent: "user:x", Params: map[string]string{"1a": "c"}}), `"1a" cannot be used`},
		"lines":          {withApp(ApplicationController{Agent: "user:x", Params: map[string]string{"a": "c\nd"}}), "control characters"},
		"unit's":         {withApp(ApplicationController{Agent: "systemd:x", Params: map[string]string{"a": "c"}}), "takes no parameters"},
		"script's":       {withApp(ApplicationController{StartScript: "/a", StopScript: "/b", Params: map[string]string{"a": "c"}}), "scripts take no parameters"},
		"background":     {withApp(ApplicationController{Agent: "user:x", StartupMode: "background"}), "always awaited"},
		"agent monitor":  {withApp(ApplicationController{Agent: "user:x", Monitors: []string{"m"}}, ApplicationMonitor{Name: "m", Type: "agent", Depth: 10}), ""},
		"of a script":    {withApp(ApplicationController{StartScript: "/a", StopScript: "/b", Monitors: []string{"m"}}, ApplicationMonitor{Name: "m", Type: "agent"}), "asks an agent"},
		"depth":          {withApp(ApplicationController{Agent: "user:x"}, ApplicationMonitor{Name: "m", Type: "process", Processes: []string{"a"}, Depth: 10}), "only an agent"},
		"monitor method": {withApp(ApplicationController{Agent: "user:x"}, ApplicationMonitor{Name: "m", Type: "agent", MonitorMethod: "/x"}), "its own method"},
	} {
		problems := c.d.Validate()
		var all []string
		for _, p := range problems {
			all = append(all, p.String())
		}
		text := strings.Join(all, "\n")
		if c.says == "" && text != "" || !strings.Contains(text, c.says) {
			t.Errorf("%s: %s, wanted %q", what, text, c.says)
		}
	}
}

func TestAnAgentWatchesAnApplicationWithoutMonitors(t *testing.T) {
	d := withApp(ApplicationController{Agent: "ocf:heartbeat:nginx"})
	d.Defaults()
	a := d.ApplicationController("app")
	if a.StartTimeout != 0 || a.StopTimeout != 0 {
		t.Errorf("an agent's times are its own, not %v and %v", a.StartTimeout, a.StopTimeout)
	}
	m := d.MonitorsOf(a)
	if len(m) != 1 || m[0].Type != "agent" || m[0].MonitorInterval != 10*time.Second || m[0].FailureAction != "fallover" || *m[0].RestartCount != 3 {
		t.Errorf("%+v", m)
	}
	if m := d.MonitorsOf(&ApplicationController{Name: "s", StartScript: "/a"}); m != nil {
		t.Errorf("%+v", m)
	}
}

func TestAgentAttributes(t *testing.T) {
	d := withApp(ApplicationController{StartScript: "/a", StopScript: "/b"})
	d.Defaults()
	c, err := FindClass("application_controller")
	if err != nil {
		t.Fatal(err)
	}
	set := func(name string, pairs ...string) error {
		var list []Assignment
		for _, p := range pairs {
			k, v, _ := strings.Cut(p, "=")
			list = append(list, Assignment{k, v})
		}
		if c.Has(d, name) {
			return c.Modify(d, name, list)
		}
		return c.Add(d, name, list)
	}
	get := func(name, attribute string) string {
		v, err := c.Get(d, name, attribute)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	if err := set("web", "AGENT=ocf:heartbeat:nginx", `PARAMS=configfile:/etc/nginx.conf options:'-g "a b"' test_pass:x7`); err != nil {
		t.Fatal(err)
	}
	if got := get("web", "PARAMS"); got != `configfile:/etc/nginx.conf 'options:-g "a b"' test_pass:***` {
		t.Error(got)
	}
	if err := set("web", "PARAMS="+get("web", "PARAMS")); err != nil || d.ApplicationController("web").Params["test_pass"] != "x7" {
		t.Errorf("%v %v", err, d.ApplicationController("web").Params)
	}
	if v := get("web", "START_TIMEOUT"); v != "" {
		t.Errorf("the agent's own start timeout is shown as %q", v)
	}
	if v := get("app", "START_TIMEOUT"); v != "60" {
		t.Errorf("a script's start timeout is shown as %q", v)
	}
	if err := set("half"); err == nil || !strings.Contains(err.Error(), "STARTSCRIPT is needed") {
		t.Error(err)
	}
	if err := set("app", "AGENT=user:x", "STARTSCRIPT=", "STOPSCRIPT="); err != nil {
		t.Fatal(err)
	}
	if a := d.ApplicationController("app"); a.StartTimeout != 0 || len(d.Validate()) > 0 {
		t.Errorf("%+v %v", a, d.Validate())
	}
	if err := set("app", "STARTSCRIPT=/x"); err != nil {
		t.Fatal(err)
	}
	if len(d.Validate()) == 0 {
		t.Error("scripts and an agent are taken together")
	}
}
