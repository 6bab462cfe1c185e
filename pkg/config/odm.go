package config

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// PowerHA's snapshots (.odm): ODM stanzas between <ODM and </ODM. What has a counterpart is taken; everything else is named, so that
// nobody believes that it came along. The names of classes and attributes are those of PowerHA 7; no snapshot of a real system was
// at hand when this was written, so what a snapshot says in other words is reported as not taken, and not guessed.

// IsODM reports whether a file looks like PowerHA's snapshot.
func IsODM(b []byte) bool {
	s := string(b)
	return strings.HasPrefix(strings.TrimSpace(s), "<VER") || strings.Contains(s, "\nHACMPcluster:") || strings.HasPrefix(s, "HACMPcluster:")
}

// A stanza is one object of an ODM class.
type stanza struct {
	class string
	line  int
	value map[string]string
}

// limits of what is read.
const (
	maxStanzas = 20000
	maxLeft    = 500
)

// parseStanzas reads "Class:" followed by indented "key = value" lines.
func parseStanzas(text string) ([]stanza, error) {
	if _, after, ok := strings.Cut(text, "<ODM"); ok {
		skipped := strings.Count(text[:len(text)-len(after)], "\n")
		body, _, _ := strings.Cut(after, "</ODM")
		list, err := parseStanzas(body)
		for i := range list {
			list[i].line += skipped
		}
		return list, err
	}
	var out []stanza
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		indented := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, "*"):
		case !indented && strings.HasSuffix(trimmed, ":") && !strings.Contains(trimmed, " "):
			if len(out) == maxStanzas {
				return nil, fmt.Errorf("line %d: there are more than %d objects", i+1, maxStanzas)
			}
			out = append(out, stanza{class: strings.TrimSuffix(trimmed, ":"), line: i + 1, value: map[string]string{}})
		case indented && len(out) > 0 && strings.Contains(trimmed, "="):
			key, value, _ := strings.Cut(trimmed, "=")
			value = strings.TrimSpace(value)
			if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
				value = value[1 : len(value)-1]
			}
			out[len(out)-1].value[strings.TrimSpace(key)] = value
		default:
			return nil, fmt.Errorf("line %d cannot be understood: %.60q", i+1, trimmed)
		}
	}
	return out, nil
}

// odm is an import under way.
type odm struct {
	d    *cluster.Definition
	left []string
	nets map[string]string // networks by PowerHA's name to their prefix length, as text
}

func (o *odm) leave(s stanza, format string, args ...any) {
	if len(o.left) < maxLeft {
		o.left = append(o.left, fmt.Sprintf("line %d: %s: %s", s.line, s.class, fmt.Sprintf(format, args...)))
	}
}

// ImportODM takes what it can of a PowerHA snapshot. left names what it did not take. The definition is not validated: what it lacks
// is for the caller to say.
func ImportODM(b []byte) (d *cluster.Definition, left []string, err error) {
	list, err := parseStanzas(string(b))
	if err != nil {
		return nil, nil, err
	}
	o := &odm{d: &cluster.Definition{}, nets: map[string]string{}}
	classes := map[string]func(stanza){"HACMPcluster": o.cluster, "HACMPnode": o.node, "HACMPnetwork": o.network, "HACMPadapter": o.adapter, "HACMPgroup": o.group,
		"HACMPserver": o.server, "HACMPmonitor": o.monitor, "HACMPresource": o.resource, "HACMPrgdependency": o.dependency}
	// In the order in which one needs the other, whatever the file's is.
	order := []string{"HACMPcluster", "HACMPnetwork", "HACMPnode", "HACMPadapter", "HACMPserver", "HACMPmonitor", "HACMPgroup", "HACMPresource", "HACMPrgdependency"}
	for _, class := range order {
		for _, s := range list {
			if s.class == class {
				classes[class](s)
			}
		}
	}
	others := map[string]int{}
	for _, s := range list {
		if classes[s.class] == nil {
			others[s.class]++
		}
	}
	for _, c := range sortedNames(others) {
		o.left = append(o.left, fmt.Sprintf("%d of class %s, which has no counterpart here", others[c], c))
	}
	if o.d.Name == "" || len(o.d.Nodes) == 0 {
		return nil, nil, errors.New("no cluster and no nodes were found (classes HACMPcluster and HACMPnode)")
	}
	return o.d, o.left, nil
}

func sortedNames(m map[string]int) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

func (o *odm) cluster(s stanza) {
	if o.d.Name == "" {
		o.d.Name = s.value["name"]
	}
	if t, err := strconv.Atoi(s.value["settling_time"]); err == nil && t > 0 {
		o.d.Settings.SettlingTime = time.Duration(t) * time.Second
	}
}

func (o *odm) node(s stanza) {
	name := s.value["name"]
	if name == "" {
		o.leave(s, "it has no name")
		return
	}
	if o.d.Node(name) == nil { // one object for each attribute of a node
		o.d.Nodes = append(o.d.Nodes, cluster.Node{Name: name, Addresses: map[string]string{}})
	}
}

func (o *odm) network(s stanza) {
	name := s.value["name"]
	switch kind := s.value["nimname"]; {
	case name == "":
		o.leave(s, "it has no name")
	case kind != "" && kind != "ether":
		o.leave(s, "network %s is of kind %s", name, kind)
	case o.d.Network(name) == nil:
		o.d.Networks = append(o.d.Networks, cluster.Network{Name: name, Private: s.value["attr"] == "private"})
		o.nets[name] = prefixLength(s.value["netmask"])
	}
}

// prefixLength of a netmask or of a number of bits; empty if it is neither.
func prefixLength(mask string) string {
	if n, err := strconv.Atoi(mask); err == nil && n > 0 && n <= 128 {
		return strconv.Itoa(n)
	}
	a, err := netip.ParseAddr(mask)
	if err != nil || !a.Is4() {
		return ""
	}
	for bits := range 33 {
		if p, err := netip.AddrFrom4([4]byte{255, 255, 255, 255}).Prefix(bits); err == nil && p.Addr() == a {
			return strconv.Itoa(bits)
		}
	}
	return ""
}

func (o *odm) adapter(s stanza) {
	network, label, address := s.value["network"], s.value["ip_label"], s.value["identifier"]
	a, err := netip.ParseAddr(address)
	switch function := s.value["function"]; {
	case o.d.Network(network) == nil:
		o.leave(s, "%s is on network %q, which was not taken", label, network)
	case err != nil:
		o.leave(s, "%s has %q, which is no IP address", label, address)
	case function == "service" || function == "shared":
		if o.d.ServiceIP(label) == nil {
			o.d.ServiceIPs = append(o.d.ServiceIPs, cluster.ServiceIP{Name: label, Address: a.String(), Network: network})
		}
	case function == "boot" || function == "standby":
		o.bootAddress(s, network, a)
	case function == "persistent":
		o.d.PersistentIPs = append(o.d.PersistentIPs, cluster.PersistentIP{Name: label, Address: a.String(), Network: network, Node: s.value["nodename"]})
	default:
		o.leave(s, "%s has the function %q", label, function)
	}
}

func (o *odm) bootAddress(s stanza, network string, a netip.Addr) {
	n := o.d.Node(s.value["nodename"])
	if n == nil {
		o.leave(s, "the boot address %s is of node %q, which is not defined", a, s.value["nodename"])
		return
	}
	if have, ok := n.Addresses[network]; ok {
		o.leave(s, "node %s has %s on network %s already: one address of a node on a network is enough, others on it are found by themselves (%s)", n.Name, have, network, a)
		return
	}
	text := a.String()
	if bits := o.nets[network]; bits != "" {
		text += "/" + bits
	}
	n.Addresses[network] = text
}

func (o *odm) group(s stanza) {
	policies := map[string]string{"OHN": "OHN", "OFAN": "OFAN", "OAAN": "OAAN", "OUDP": "OUDP"}
	g := cluster.ResourceGroup{Name: s.value["group"], Nodes: strings.Fields(s.value["nodes"])}
	if v := s.value["startup_pref"]; v != "" {
		g.Startup = cluster.Startup(policies[v])
	}
	switch v := s.value["fallover_pref"]; v {
	case "FNPN", "FUDNP", "BO":
		g.Fallover = cluster.Fallover(v)
	case "":
	default:
		o.leave(s, "group %s has the fallover policy %q", g.Name, v)
	}
	switch v := s.value["fallback_pref"]; v {
	case "NFB", "FBHPN":
		g.Fallback = cluster.Fallback(v)
	case "":
	default:
		o.leave(s, "group %s has the fallback policy %q", g.Name, v)
	}
	if v := s.value["startup_pref"]; v != "" && g.Startup == "" {
		o.leave(s, "group %s has the startup policy %q", g.Name, v)
	}
	if v := s.value["secondarynodes"]; strings.TrimSpace(v) != "" {
		o.leave(s, "group %s has secondary nodes (%s): there are no sites here", g.Name, v)
	}
	o.d.ResourceGroups = append(o.d.ResourceGroups, g)
}

func (o *odm) server(s stanza) {
	start, args := splitProgram(s.value["start"])
	stop, stopArgs := splitProgram(s.value["stop"])
	o.d.ApplicationControllers = append(o.d.ApplicationControllers, cluster.ApplicationController{Name: s.value["name"], StartScript: start, StartArgs: args,
		StopScript: stop, StopArgs: stopArgs})
}

func splitProgram(s string) (string, []string) {
	words := strings.Fields(s)
	if len(words) < 2 {
		return strings.TrimSpace(s), nil
	}
	return words[0], words[1:]
}

// monitorAttributes are PowerHA's names of what an application monitor is made of, one object for each.
func (o *odm) monitor(s stanza) {
	name, key, value := s.value["monitor"], s.value["name"], s.value["value"]
	m := o.d.ApplicationMonitor(name)
	if m == nil {
		o.d.ApplicationMonitors = append(o.d.ApplicationMonitors, cluster.ApplicationMonitor{Name: name})
		m = &o.d.ApplicationMonitors[len(o.d.ApplicationMonitors)-1]
	}
	seconds := func(to *time.Duration) {
		if n, err := strconv.Atoi(value); err == nil {
			*to = time.Duration(n) * time.Second
		}
	}
	switch key {
	case "MONITOR_TYPE":
		m.Type = map[string]string{"process": "process", "user": "custom", "custom": "custom"}[strings.ToLower(value)]
	case "INVOCATION":
		m.Mode = strings.ToLower(value)
	case "PROCESSES":
		m.Processes = strings.Fields(strings.ReplaceAll(value, ",", " "))
	case "PROCESS_OWNER":
		m.Owner = value
	case "INSTANCE_COUNT":
		m.InstanceCount, _ = strconv.Atoi(value)
	case "MONITOR_METHOD":
		m.MonitorMethod = value
	case "MONITOR_INTERVAL":
		seconds(&m.MonitorInterval)
	case "HUNG_MONITOR_SIGNAL":
		m.HungSignal, _ = strconv.Atoi(value)
	case "STABILIZATION_INTERVAL":
		seconds(&m.Stabilization)
	case "RESTART_COUNT":
		if n, err := strconv.Atoi(value); err == nil {
			m.RestartCount = &n
		}
	case "RESTART_INTERVAL":
		seconds(&m.RestartInterval)
	case "FAILURE_ACTION":
		m.FailureAction = strings.ToLower(value)
	case "NOTIFY_METHOD":
		m.NotifyMethod = value
	case "CLEANUP_METHOD":
		m.CleanupMethod = value
	case "RESTART_METHOD":
		m.RestartMethod = value
	case "RESOURCE_TO_MONITOR":
		if a := o.d.ApplicationController(value); a != nil && !slices.Contains(a.Monitors, name) {
			a.Monitors = append(a.Monitors, name)
		}
	default:
		o.leave(s, "monitor %s has %s = %q", name, key, value)
	}
}

func (o *odm) resource(s stanza) {
	g := o.d.Group(s.value["group"])
	key, value := s.value["name"], s.value["value"]
	if g == nil {
		o.leave(s, "it is of group %q, which is not defined", s.value["group"])
		return
	}
	switch key {
	case "SERVICE_LABEL":
		g.ServiceIPs = append(g.ServiceIPs, value)
	case "APPLICATIONS":
		g.Applications = append(g.Applications, value)
	case "FS_BEFORE_IPADDR":
		g.FSBeforeIP = value == "true"
	case "FILESYSTEM", "VOLUME_GROUP":
		if value != "" {
			o.leave(s, "group %s has %s = %q: its device and mount point on these nodes are not in the snapshot; define a file_system", g.Name, key, value)
		}
	default:
		if value != "" && value != "false" && value != "ignore" {
			o.leave(s, "group %s has %s = %q", g.Name, key, value)
		}
	}
}

func (o *odm) dependency(s stanza) {
	parent, child := s.value["group_parent"], s.value["group_child"]
	if parent == "" || child == "" || o.d.Group(parent) == nil || o.d.Group(child) == nil {
		o.leave(s, "it relates %q and %q", parent, child)
		return
	}
	switch kind := strings.ToUpper(s.value["dependency_type"]); kind {
	case "", "PARENT_CHILD":
		o.d.Dependencies = append(o.d.Dependencies, cluster.Dependency{Parent: parent, Child: child})
	default:
		o.leave(s, "the dependency of %s on %s is of type %s", child, parent, kind)
	}
}
