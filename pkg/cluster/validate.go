package cluster

import (
	"fmt"
	"reflect"
	"sort"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of a definition. They keep every check and every message bounded.
const (
	MaxNodes   = 32
	MaxObjects = 1024 // of each class
	MaxText    = 4096 // bytes of one value

	MaxFenceLevel = 9

	maxProblems     = 500
	maxRepositories = 8
)

// TwoNodeSentence is what an administrator is told whose cluster of two nodes has no repository volume.
const TwoNodeSentence = "a cluster of two nodes needs a repository volume, which decides when the nodes cannot see each other: " +
	"without it neither could tell the other's death from its own isolation; name one under repositories (a file or disk that both " +
	"nodes see), use three or more nodes, or one for trying"

// A Problem is one thing that is wrong with a definition.
type Problem struct {
	Path string // where: resource_groups[2].nodes[0]; empty for the whole
	Text string // what is wrong
	Want string // what would be right; empty where the text says it
	// Refers is the class of the object that is named and does not exist; empty for other problems.
	Refers string
}

// ListOf is the key of the list in which a definition keeps the objects of a class: node -> nodes.
func ListOf(class string) string {
	switch class {
	case "dependency":
		return "dependencies"
	case "repository":
		return "repositories"
	case "cluster":
		return ""
	}
	return class + "s"
}

// String is one line: "resource_groups[2].nodes[0]: no node \"nod1\": one of node1, node2 (did you mean "node1"?)".
func (p Problem) String() string {
	s := p.Text
	if p.Path != "" {
		s = p.Path + ": " + s
	}
	if p.Want != "" {
		s += ": " + p.Want
	}
	return s
}

// Validate lists everything that is wrong with the definition by itself, without looking at any machine: names, references,
// policies that do not go together, addresses, times. Nil means that it can be used. A value that is not set counts as its
// default. The definition is not changed.
func (d *Definition) Validate() []Problem {
	v := validator{d: d.Clone()}
	v.sizes()
	v.texts()
	v.d.Defaults()
	v.index()

	v.names()
	v.knownReferences()
	v.nodes()
	v.networks()
	v.addresses()
	v.interfaces()
	v.volumeGroups()
	v.fileSystems()
	v.nfsExports()
	v.controllers()
	v.monitors()
	v.fenceDevices()
	v.repositories()
	v.groups()
	v.sharedResources()
	v.dependencies()
	v.timers()
	v.methods()
	v.events()
	v.waivers()
	v.collections()
	v.settings()
	return v.problems
}

// A validator collects the problems of one definition.
type validator struct {
	d        *Definition
	problems []Problem
	known    map[string]map[string]int // class -> name -> index of the first of that name
	usedBy   map[string]map[string]int // class -> name -> index of the first group that lists it
}

// add notes a problem. After maxProblems of them nobody reads on.
func (v *validator) add(path, want, format string, args ...any) {
	switch {
	case len(v.problems) < maxProblems:
		v.problems = append(v.problems, Problem{Path: path, Text: fmt.Sprintf(format, args...), Want: want})
	case len(v.problems) == maxProblems:
		v.problems = append(v.problems, Problem{Text: fmt.Sprintf("there are more than %d problems; the rest is not listed", maxProblems)})
	}
}

// sizes reports lists that are too long, and cuts them so that the other checks stay quick.
func (v *validator) sizes() {
	d := v.d
	cut(v, &d.Nodes, "nodes", MaxNodes)
	cut(v, &d.Networks, "networks", MaxObjects)
	cut(v, &d.ServiceIPs, "service_ips", MaxObjects)
	cut(v, &d.PersistentIPs, "persistent_ips", MaxObjects)
	cut(v, &d.VolumeGroups, "volume_groups", MaxObjects)
	cut(v, &d.FileSystems, "file_systems", MaxObjects)
	cut(v, &d.NFSExports, "nfs_exports", MaxObjects)
	cut(v, &d.ApplicationControllers, "application_controllers", MaxObjects)
	cut(v, &d.ApplicationMonitors, "application_monitors", MaxObjects)
	cut(v, &d.FenceDevices, "fence_devices", MaxObjects)
	cut(v, &d.Repositories, "repositories", maxRepositories)
	cut(v, &d.ResourceGroups, "resource_groups", MaxObjects)
	cut(v, &d.Dependencies, "dependencies", MaxObjects)
	cut(v, &d.FallbackTimers, "fallback_timers", MaxObjects)
	cut(v, &d.Methods, "methods", MaxObjects)
	cut(v, &d.Events, "events", MaxObjects)
	cut(v, &d.Waivers, "waivers", MaxObjects)
	cut(v, &d.FileCollections, "file_collections", MaxCollections)
	for i := range d.ResourceGroups {
		g, p := &d.ResourceGroups[i], fmt.Sprintf("resource_groups[%d].", i)
		cut(v, &g.Nodes, p+"nodes", MaxNodes)
		cut(v, &g.ServiceIPs, p+"service_ips", MaxObjects)
		cut(v, &g.VolumeGroups, p+"volume_groups", MaxObjects)
		cut(v, &g.FileSystems, p+"file_systems", MaxObjects)
		cut(v, &g.NFSExports, p+"nfs_exports", MaxObjects)
		cut(v, &g.Applications, p+"applications", MaxObjects)
	}
	for i := range d.Dependencies {
		x, p := &d.Dependencies[i], fmt.Sprintf("dependencies[%d].", i)
		cut(v, &x.SameNode, p+"same_node", MaxObjects)
		if t := x.DifferentNodes; t != nil {
			cut(v, &t.High, p+"different_nodes.high", MaxObjects)
			cut(v, &t.Intermediate, p+"different_nodes.intermediate", MaxObjects)
			cut(v, &t.Low, p+"different_nodes.low", MaxObjects)
		}
	}
}

func cut[T any](v *validator, list *[]T, path string, most int) {
	if len(*list) > most {
		v.add(path, fmt.Sprintf("at most %d", most), "there are %d entries", len(*list))
		*list = (*list)[:most]
	}
}

// texts reports values that no configuration needs and that could break a line of a log, a fence agent's input or a mount
// table: control characters, and more than MaxText bytes.
func (v *validator) texts() { v.walkTexts("", reflect.ValueOf(v.d).Elem()) }

func (v *validator) walkTexts(path string, x reflect.Value) {
	switch x.Kind() {
	case reflect.String:
		v.text(path, x.String())
	case reflect.Struct:
		for i := range x.NumField() {
			key, _, _ := strings.Cut(x.Type().Field(i).Tag.Get("json"), ",")
			v.walkTexts(joinPath(path, key), x.Field(i))
		}
	case reflect.Pointer:
		if !x.IsNil() {
			v.walkTexts(path, x.Elem())
		}
	case reflect.Slice:
		for i := range x.Len() {
			v.walkTexts(fmt.Sprintf("%s[%d]", path, i), x.Index(i))
		}
	case reflect.Map:
		keys := x.MapKeys()
		sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
		for _, k := range keys {
			v.text(path, k.String())
			v.walkTexts(joinPath(path, k.String()), x.MapIndex(k))
		}
	}
}

func (v *validator) text(path, s string) {
	switch {
	case len(s) > MaxText:
		v.add(path, fmt.Sprintf("at most %d", MaxText), "the value has %d bytes", len(s))
	case !utf8.ValidString(s):
		v.add(path, "UTF-8", "the value %q is not text", s)
	case strings.ContainsFunc(s, unicode.IsControl):
		v.add(path, "printable characters on one line", "the value %q has control characters", s)
	}
}

func joinPath(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// index maps names to places, once.
func (v *validator) index() {
	d := v.d
	v.known = map[string]map[string]int{
		"node":                   indexOf(d.Nodes, func(n *Node) string { return n.Name }),
		"network":                indexOf(d.Networks, func(n *Network) string { return n.Name }),
		"service_ip":             indexOf(d.ServiceIPs, func(s *ServiceIP) string { return s.Name }),
		"persistent_ip":          indexOf(d.PersistentIPs, func(p *PersistentIP) string { return p.Name }),
		"volume_group":           indexOf(d.VolumeGroups, func(g *VolumeGroup) string { return g.Name }),
		"nfs_export":             indexOf(d.NFSExports, func(e *NFSExport) string { return e.Name }),
		"file_system":            indexOf(d.FileSystems, func(f *FileSystem) string { return f.Name }),
		"application_controller": indexOf(d.ApplicationControllers, func(a *ApplicationController) string { return a.Name }),
		"application_monitor":    indexOf(d.ApplicationMonitors, func(m *ApplicationMonitor) string { return m.Name }),
		"repository":             indexOf(d.Repositories, func(r *Repository) string { return r.Name }),
		"fence_device":           indexOf(d.FenceDevices, func(f *FenceDevice) string { return f.Name }),
		"resource_group":         indexOf(d.ResourceGroups, func(g *ResourceGroup) string { return g.Name }),
		"fallback_timer":         indexOf(d.FallbackTimers, func(t *FallbackTimer) string { return t.Name }),
		"method":                 indexOf(d.Methods, func(m *Method) string { return m.Name }),
		"event_command":          indexOf(d.Events, func(e *EventCommands) string { return e.Name }),
		"waiver":                 indexOf(d.Waivers, func(w *Waiver) string { return w.Name }),
		"file_collection":        indexOf(d.FileCollections, func(f *FileCollection) string { return f.Name }),
	}
	v.usedBy = map[string]map[string]int{}
}

func indexOf[T any](list []T, name func(*T) string) map[string]int {
	m := make(map[string]int, len(list))
	for i := range list {
		if _, twice := m[name(&list[i])]; !twice {
			m[name(&list[i])] = i
		}
	}
	return m
}

// names checks every object's name: its form, that no two of a class share it, and that no group is called as a node is
// (clRGinfo and clmgr would have to guess which is meant).
func (v *validator) names() {
	d := v.d
	if err := CheckName(d.Name); err != nil {
		v.add("name", "", "the cluster's name %q cannot be used: %v", d.Name, err)
	}
	namesOf(v, "node", "nodes", d.Nodes, func(n *Node) string { return n.Name })
	namesOf(v, "network", "networks", d.Networks, func(n *Network) string { return n.Name })
	namesOf(v, "service_ip", "service_ips", d.ServiceIPs, func(s *ServiceIP) string { return s.Name })
	namesOf(v, "persistent_ip", "persistent_ips", d.PersistentIPs, func(p *PersistentIP) string { return p.Name })
	namesOf(v, "volume_group", "volume_groups", d.VolumeGroups, func(g *VolumeGroup) string { return g.Name })
	namesOf(v, "nfs_export", "nfs_exports", d.NFSExports, func(e *NFSExport) string { return e.Name })
	namesOf(v, "file_system", "file_systems", d.FileSystems, func(f *FileSystem) string { return f.Name })
	namesOf(v, "application_controller", "application_controllers", d.ApplicationControllers, func(a *ApplicationController) string { return a.Name })
	namesOf(v, "application_monitor", "application_monitors", d.ApplicationMonitors, func(m *ApplicationMonitor) string { return m.Name })
	namesOf(v, "repository", "repositories", d.Repositories, func(r *Repository) string { return r.Name })
	namesOf(v, "fence_device", "fence_devices", d.FenceDevices, func(f *FenceDevice) string { return f.Name })
	namesOf(v, "resource_group", "resource_groups", d.ResourceGroups, func(g *ResourceGroup) string { return g.Name })
	namesOf(v, "fallback_timer", "fallback_timers", d.FallbackTimers, func(t *FallbackTimer) string { return t.Name })
	namesOf(v, "method", "methods", d.Methods, func(m *Method) string { return m.Name })
	namesOf(v, "event_command", "events", d.Events, func(e *EventCommands) string { return e.Name })
	namesOf(v, "waiver", "waivers", d.Waivers, func(w *Waiver) string { return w.Name })
	namesOf(v, "file_collection", "file_collections", d.FileCollections, func(f *FileCollection) string { return f.Name })
	for i, g := range d.ResourceGroups {
		if n, ok := v.known["node"][g.Name]; ok && g.Name != "" {
			v.add(fmt.Sprintf("resource_groups[%d].name", i), "a name of its own", "the name %s is that of nodes[%d]: a group and a node may not share one", g.Name, n)
		}
	}
}

func namesOf[T any](v *validator, class, list string, objects []T, name func(*T) string) {
	for i := range objects {
		n, path := name(&objects[i]), fmt.Sprintf("%s[%d].name", list, i)
		if err := CheckName(n); err != nil {
			v.add(path, "", "the name %q cannot be used: %v", n, err)
			continue
		}
		if first := v.known[class][n]; first != i {
			v.add(path, "a name of its own", "there is a %s %s already, at %s[%d]", class, n, list, first)
		}
	}
}

// knownReferences checks that everything that is named exists.
func (v *validator) knownReferences() {
	v.d.references(func(r reference) {
		if _, ok := v.known[r.class][*r.name]; !ok {
			v.add(r.path, v.choice(r.class, *r.name), "no %s %q is defined", r.class, *r.name)
			if last := &v.problems[len(v.problems)-1]; last.Path == r.path {
				last.Refers = r.class
			}
		}
	})
}

// choice says which names there are, and which was probably meant.
func (v *validator) choice(class, name string) string {
	all := sortedKeys(v.known[class])
	if len(all) == 0 {
		return fmt.Sprintf("define the %s, or leave this out", class)
	}
	const few = 12
	if len(all) > few {
		if n := ""; len(all) <= 200 {
			n = Nearest(name, all)
			if n != "" {
				return fmt.Sprintf("perhaps %s", n)
			}
		}
		return fmt.Sprintf("one of the %d that are defined", len(all))
	}
	return "one of " + strings.Join(all, ", ") + DidYouMean(name, all)
}

// oneOf checks an enumeration.
func (v *validator) oneOf(path, value string, legal ...string) bool {
	if contains(legal, value) {
		return true
	}
	v.add(path, "one of "+strings.Join(legal, ", ")+DidYouMean(value, legal), "the value %q is unknown", value)
	return false
}

// within checks a time that must be above 0 and at most most.
func (v *validator) within(path string, t, most time.Duration) {
	if t <= 0 || t > most {
		v.add(path, "above 0 and at most "+FormatDuration(most), "the time %v cannot be used", t)
	}
}

// distinct checks that a list names nothing twice and has no empty entry.
func (v *validator) distinct(path string, list []string) {
	seen := make(map[string]int, len(list))
	for i, s := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		first, twice := seen[s]
		switch {
		case s == "":
			v.add(at, "a name", "the entry is empty")
		case twice:
			v.add(at, "each once", "%s stands here twice, the first time as [%d]", s, first)
		default:
			seen[s] = i
		}
	}
}

// absolute checks a path: absolute, and as short as it can be written, so that two spellings cannot hide one thing.
func (v *validator) absolute(path, value string) bool {
	switch {
	case !strings.HasPrefix(value, "/"):
		v.add(path, "an absolute path, as /opt/app/bin/start", "the path %q is not absolute", value)
	case cleanPath(value) != value:
		v.add(path, cleanPath(value), "the path %q has parts that lead nowhere", value)
	default:
		return true
	}
	return false
}

// cleanPath is path.Clean for absolute paths.
func cleanPath(p string) string {
	var out []string
	for part := range strings.SplitSeq(p, "/") {
		switch part {
		case "", ".":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			out = append(out, part)
		}
	}
	return "/" + strings.Join(out, "/")
}
