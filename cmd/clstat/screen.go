package main

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/holdfast-ha/holdfast/pkg/api"
)

// A view is what there is to show at one moment.
type view struct {
	status *api.Status // the last one seen; nil: none yet
	seen   time.Time   // when it was seen, by this machine's clock; zero: just now
	err    error       // why there is no newer one
	now    time.Time
}

// A line is one row of the screen. Marked lines are those that a glance must not miss; the words say it too, for no terminal's
// colours or attributes are relied upon.
type line struct {
	text   string
	marked bool
}

const title = "clstat - Holdfast Cluster Status Monitor"

// lines is the whole picture, as PowerHA's clstat lays it out.
func (v view) lines() []line {
	p := &page{}
	p.add("                %s", title)
	p.add("                %s", strings.Repeat("-", len(title)))
	if v.status == nil {
		p.mark("no state yet: %s", v.trouble())
		return p.lines
	}
	st := v.status
	p.add("%-47s %s", fmt.Sprintf("Cluster: %s  (%d)", st.Cluster.Name, st.Cluster.ID), v.now.Format("Mon Jan _2 15:04:05 2006"))
	old := v.age()
	if old != "" {
		p.mark("STALE: %s; what follows is as it was then", old)
	}
	p.cluster(st, old != "")
	for i := range st.Nodes {
		p.node(st, &st.Nodes[i])
	}
	p.elsewhere(st)
	for _, w := range st.Cluster.Warnings {
		p.mark("WARNING: %s", w)
	}
	return p.lines
}

func (v view) trouble() string {
	if v.err == nil {
		return "waiting for the daemon"
	}
	return v.err.Error()
}

// age says how old what is shown is; "": it is current.
func (v view) age() string {
	silent := time.Duration(0)
	if !v.seen.IsZero() && v.err != nil {
		silent = v.now.Sub(v.seen)
	}
	c := &v.status.Cluster
	switch {
	case v.err != nil:
		return fmt.Sprintf("the daemon has not answered for %s (%v)", span(silent), v.err)
	case !c.Stale():
		return ""
	case c.AgeSeconds == nil:
		return "this node has not heard a leader since its daemon started"
	}
	return fmt.Sprintf("this node has not heard a leader for %s", span(time.Duration(*c.AgeSeconds*float64(time.Second))))
}

func span(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// A page collects lines.
type page struct{ lines []line }

func (p *page) add(format string, args ...any)  { p.put(false, format, args...) }
func (p *page) mark(format string, args ...any) { p.put(true, format, args...) }

func (p *page) put(marked bool, format string, args ...any) {
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, fmt.Sprintf(format, args...))
	p.lines = append(p.lines, line{strings.TrimRight(text, " "), marked})
}

func (p *page) cluster(st *api.Status, stale bool) {
	state, sub := "UP", st.Cluster.State
	switch {
	case stale, sub == "":
		state, sub = api.Unknown, api.Unknown
	case sub == api.ClusterNotConfigured:
		state = "NOT CONFIGURED"
	case sub == api.ClusterOffline:
		state = "DOWN"
	}
	p.add("                State: %-17sNodes: %d", state, len(st.Nodes))
	p.put(sub == api.ClusterError, "                SubState: %s", sub)
}

func (p *page) node(st *api.Status, n *api.Node) {
	state := nodeState(n)
	p.put(state != "UP", "        Node: %-18sState: %s%s", n.Name, state, detail(n))
	for _, a := range n.Addresses {
		up := a.State
		if up == "" {
			up = api.Unknown
		}
		p.add("           Interface: %-24sAddress: %s", fmt.Sprintf("%s (%d)", a.Label, networkID(st, a.Network)), a.Address)
		p.put(up != api.Up, "           %-35sState:   %s", "", up)
	}
	for i := range st.Groups {
		g := &st.Groups[i]
		if in := g.On(n.Name); in != nil && in.State != api.GroupOffline {
			p.put(in.State != api.GroupOnline, "           Resource Group: %-19sState:  %s", g.Name, groupState(in))
		}
	}
}

// elsewhere lists the groups that no node above shows.
func (p *page) elsewhere(st *api.Status) {
	for i := range st.Groups {
		g := &st.Groups[i]
		nowhere, due := true, ""
		for k := range g.Instances {
			nowhere = nowhere && g.Instances[k].State == api.GroupOffline
			if due == "" && g.Instances[k].Due != "" {
				due = " (due to " + strings.ToLower(g.Instances[k].Due) + ")"
			}
		}
		if nowhere {
			p.mark("        Resource Group: %-22sState:  Off line%s", g.Name, due)
		}
	}
}

func networkID(st *api.Status, name string) int {
	for i := range st.Networks {
		if st.Networks[i].Name == name {
			return i
		}
	}
	return 0
}

// nodeState is the state in clstat's words.
func nodeState(n *api.Node) string {
	switch n.State {
	case api.NodeNormal, api.NodeUnmanaged:
		return "UP"
	case api.NodeOffline, api.NodeDead, api.NodeQuarantined:
		return "DOWN"
	case api.NodeJoining, api.NodeLeaving:
		return n.State
	}
	return api.Unknown
}

// detail says what the two words UP and DOWN leave out.
func detail(n *api.Node) string {
	switch n.State {
	case api.NodeNormal, api.NodeJoining, api.NodeLeaving:
		return ""
	case "":
		return ""
	}
	s := strings.ToLower(n.State)
	if n.Reason != "" {
		s += ": " + n.Reason
	}
	return " (" + s + ")"
}

func groupState(i *api.Instance) string {
	words := map[string]string{
		api.GroupOnline: "On line", api.GroupOffline: "Off line", api.GroupAcquiring: "Acquiring", api.GroupReleasing: "Releasing",
		api.GroupError: "Error", api.GroupTempError: "Temporary error", api.GroupUnmanaged: "Unmanaged",
	}
	w, ok := words[i.State]
	if !ok {
		w = "Unknown"
	}
	if i.Reason != "" && i.State != api.GroupOnline {
		w += " (" + i.Reason + ")"
	}
	return w
}
