package verify

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
	"github.com/holdfast-ha/holdfast/pkg/lease"
)

// An Input is everything that a verification judges.
type Input struct {
	Definition *cluster.Definition // with its defaults filled in; the one to be verified
	Params     lease.Params        // its timings
	// Faults are the problems that make the definition unusable; the other checks then see only what is left.
	Faults []api.Fault
	Nodes  map[string]*Facts // by name; a node that is missing here is in Silent
	Silent map[string]string
	Status *api.Status // nil: the cluster's state is not judged (a file that is verified)
	Now    time.Time
	// Unsynced: a staged definition has been waiting since; zero: none waits.
	Unsynced time.Time
	// Only restricts the checks by number; nil: all of them.
	Only func(id string) bool
}

// A Check is one row of the table.
type Check struct {
	ID       string // V, two digits for the subject, two for the check
	Severity api.Severity
	Title    string
	Why      string // why a finding matters
	Fix      string // what to do about it; %s stands for the object's own advice
	// Needs names the facts without which a node's part of the check is not made (the keys of Facts.Missed).
	Needs []string
	run   func(in *Input, h *hits)
}

// Subjects are the groups of checks, by the first two digits.
var Subjects = map[string]string{
	"01": "names and the definition as a whole", "02": "nodes, interfaces and reachability", "03": "agreement about what runs where",
	"04": "devices, file systems and mount points", "05": "versions and systems", "06": "addresses, prefixes, MTU and name resolution",
	"07": "host names", "09": "use of what is defined", "12": "scripts and programs", "13": "policies and monitors", "14": "dependencies",
	"15": "timers", "16": "services and listeners", "17": "network options", "18": "single points of failure", "20": "deadman, watchdog and fence devices",
	"21": "users", "26": "security and time", "27": "methods of your own", "28": "space and capacity", "29": "timings", "30": "state of the cluster",
}

// hits collects what one check finds.
type hits struct {
	check *Check
	list  []hit
}

type hit struct {
	api.Finding
	action *Action
}

// add notes a finding with the check's own severity.
func (h *hits) add(node, object, format string, args ...any) *hit {
	h.list = append(h.list, hit{Finding: api.Finding{Check: h.check.ID, Title: h.check.Title, Severity: h.check.Severity, Node: node, Object: object,
		Saw: fmt.Sprintf(format, args...), Why: h.check.Why, Fix: h.check.Fix}})
	return &h.list[len(h.list)-1]
}

// as gives the finding another severity.
func (f *hit) as(s api.Severity) *hit {
	f.Severity = s
	return f
}

// fixBy says what FIX=yes does on the finding's node.
func (f *hit) fixBy(a Action) *hit {
	f.action, f.Fixable = &a, true
	return f
}

// An Action is one repair of a closed list. The node that carries it out looks again before it does.
type Action struct {
	Kind string      `json:"kind"`
	Path string      `json:"path"`
	Mode uint32      `json:"mode,omitempty"` // for mkdir and chmod
	Line string      `json:"line,omitempty"` // for noauto: the mount point of the entry
	For  api.Finding `json:"for"`
}

// The kinds of Action.
const (
	ActionMkdir  = "mkdir"  // make a missing mount point
	ActionChmod  = "chmod"  // take write rights of others away, or make a script executable
	ActionNoAuto = "noauto" // let the system's own table not mount it at boot
)

// Run makes all checks. The findings are in the order of the checks, then of nodes and objects.
func Run(in *Input) api.VerifyReport {
	r, _ := judge(in)
	return r
}

// Actions lists what FIX=yes would do on the node.
func Actions(in *Input, node string) []Action {
	_, hits := judge(in)
	var out []Action
	for _, h := range hits {
		if h.action != nil && h.Node == node && h.Waived == "" {
			a := *h.action
			a.For = h.Finding
			out = append(out, a)
		}
	}
	return out
}

func judge(in *Input) (api.VerifyReport, []hit) {
	r := api.VerifyReport{Time: in.Now, Silent: in.Silent, Findings: []api.Finding{}}
	r.Nodes = in.nodeNames()
	var all []hit
	for i := range checkTable {
		c := &checkTable[i]
		if in.Only != nil && !in.Only(c.ID) {
			continue
		}
		h := &hits{check: c}
		c.run(in, h)
		sort.SliceStable(h.list, func(i, j int) bool { return h.list[i].sortKey() < h.list[j].sortKey() })
		r.Checks++
		if len(h.list) == 0 {
			r.Passed++
		}
		all = append(all, h.list...)
		r.NotChecked = append(r.NotChecked, in.missed(c)...)
	}
	waive(in, all)
	if in.Only == nil || in.Only("V3006") {
		stale := staleWaivers(in, all)
		if r.Checks++; len(stale) == 0 {
			r.Passed++
		}
		all = append(all, stale...)
	}
	for i := range all {
		r.Findings = append(r.Findings, all[i].Finding)
	}
	r.NotChecked = dedupe(append(r.NotChecked, notLookedAt...))
	return r, all
}

// notLookedAt is what PowerHA's verification knows and this product does not have.
var notLookedAt = []string{"volume groups and NFS exports on the nodes", "what an OCF agent or a unit needs on the nodes", "the repository volume's content", "sites and replication"}

func (f *hit) sortKey() string { return f.Node + "|" + f.Object + "|" + f.Saw }

// missed lists the nodes on which a check could not look.
func (in *Input) missed(c *Check) []string {
	var out []string
	for _, n := range in.nodeNames() {
		for _, need := range c.Needs {
			if why, ok := in.Nodes[n].Missed[need]; ok {
				out = append(out, fmt.Sprintf("%s on node %s: %s", need, n, why))
			}
		}
	}
	return out
}

func dedupe(list []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// waive marks what a waiver covers. A waiver of an error counts too: the administrator has said so, with a reason and a day.
func waive(in *Input, list []hit) {
	if in.Definition == nil {
		return
	}
	for i := range list {
		for k := range in.Definition.Waivers {
			w := &in.Definition.Waivers[k]
			if covers(w, &list[i].Finding) && !w.Expired(in.Now) {
				list[i].Waived, list[i].WaivedUntil = w.Reason, w.Expires
			}
		}
	}
}

func covers(w *cluster.Waiver, f *api.Finding) bool {
	return w.Check == f.Check && (w.Node == "" || w.Node == f.Node) && (w.Object == "" || w.Object == f.Object)
}

// staleWaivers finds waivers that are over, cover nothing, or name a check that does not exist.
func staleWaivers(in *Input, list []hit) []hit {
	if in.Definition == nil {
		return nil
	}
	c := &waiverCheck
	h := &hits{check: c}
	for k := range in.Definition.Waivers {
		w := &in.Definition.Waivers[k]
		used := false
		for i := range list {
			used = used || covers(w, &list[i].Finding)
		}
		object := "waiver " + w.Name
		switch {
		case Lookup(w.Check) == nil:
			h.add("", object, "it names the check %s, which does not exist", w.Check)
		case w.Expired(in.Now):
			h.add("", object, "its last day was %s", w.Expires)
		case !used && in.Only == nil && len(in.Silent) == 0:
			h.add("", object, "nothing is found any more that it covers").as(api.SeverityInfo)
		}
	}
	return h.list
}

var waiverCheck = Check{ID: "V3006", Severity: api.SeverityWarning, Title: "waivers are current",
	Why: "a waiver that is forgotten hides the next finding of its kind", Fix: "delete it (clmgr delete waiver NAME), or give it another day (EXPIRES=)"}

// Lookup finds a check by its number, nil if there is none.
func Lookup(id string) *Check {
	for i := range checkTable {
		if strings.EqualFold(checkTable[i].ID, id) {
			return &checkTable[i]
		}
	}
	if strings.EqualFold(id, waiverCheck.ID) {
		return &waiverCheck
	}
	return nil
}

// Checks lists the table.
func Checks() []Check { return append(append([]Check(nil), checkTable...), waiverCheck) }

// nodeNames are the nodes that answered, in the definition's order, those that it does not have at the end.
func (in *Input) nodeNames() []string {
	var out []string
	seen := map[string]bool{}
	if in.Definition != nil {
		for i := range in.Definition.Nodes {
			if n := in.Definition.Nodes[i].Name; in.Nodes[n] != nil {
				out, seen[n] = append(out, n), true
			}
		}
	}
	var rest []string
	for n := range in.Nodes {
		if !seen[n] {
			rest = append(rest, n)
		}
	}
	sort.Strings(rest)
	return append(out, rest...)
}

// Compare lists what is new in b and what is gone from a, findings that are waived left out.
func Compare(a, b *api.VerifyReport) (fresh, gone []api.Finding) {
	keys := func(r *api.VerifyReport) map[string]bool {
		m := map[string]bool{}
		if r != nil {
			for i := range r.Findings {
				if r.Findings[i].Waived == "" {
					m[r.Findings[i].Key()] = true
				}
			}
		}
		return m
	}
	before, after := keys(a), keys(b)
	if b != nil {
		for _, f := range b.Findings {
			if f.Waived == "" && !before[f.Key()] {
				fresh = append(fresh, f)
			}
		}
	}
	if a != nil {
		for _, f := range a.Findings {
			if f.Waived == "" && !after[f.Key()] {
				gone = append(gone, f)
			}
		}
	}
	return fresh, gone
}
