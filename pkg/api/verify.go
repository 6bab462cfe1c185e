package api

import "time"

// A Severity says what a finding of the verification means.
type Severity string

// The severities. Only an error makes a verification fail.
const (
	SeverityError   Severity = "ERROR"
	SeverityWarning Severity = "WARNING"
	SeverityInfo    Severity = "INFO"
)

// A VerifyRequest asks for a verification on all nodes. Verifying changes nothing unless Fix is set; it runs the
// administrator's own methods and asks the fence devices for the nodes' power, so it needs the role operate. A text of the
// caller's own, and Fix, need the role admin: the one makes every node look at paths of the caller's choice, the other writes.
type VerifyRequest struct {
	// YAML is a definition to verify instead of the cluster's; File is its name for the messages.
	YAML string `json:"yaml,omitempty"`
	File string `json:"file,omitempty"`
	// Active asks for the active definition even when a staged one waits.
	Active bool `json:"active,omitempty"`
	// Fix repairs what can be repaired safely, and then looks again.
	Fix bool `json:"fix,omitempty"`
	// NoDefaultChecks leaves the built-in checks out; Methods names the custom methods to run, none: all of them.
	NoDefaultChecks bool     `json:"no_default_checks,omitempty"`
	Methods         []string `json:"methods,omitempty"`
	// Quick leaves out what takes long or has effects outside: fence devices and custom methods.
	Quick bool `json:"quick,omitempty"`
}

// A VerifyReport is the result.
type VerifyReport struct {
	Time              time.Time `json:"time"` // the asked node's clock
	TookSeconds       float64   `json:"took_seconds"`
	Subject           string    `json:"subject"` // "the active definition", "the staged definition", or a file's name
	DefinitionVersion uint64    `json:"definition_version,omitempty"`
	// Checks is how many checks were made, Passed how many of them found nothing.
	Checks int `json:"checks"`
	Passed int `json:"passed"`
	// Nodes were looked at; Silent could not be, with the reason.
	Nodes    []string          `json:"nodes,omitempty"`
	Silent   map[string]string `json:"silent,omitempty"`
	Findings []Finding         `json:"findings"`
	// NotChecked says what was not looked at, and why.
	NotChecked []string `json:"not_checked,omitempty"`
	// Fixed says what FIX=yes did, one sentence each.
	Fixed []string `json:"fixed,omitempty"`
}

// A Finding is one thing that a check saw.
type Finding struct {
	Check    string   `json:"check"` // its number, as V0408
	Title    string   `json:"title"`
	Severity Severity `json:"severity"`
	Node     string   `json:"node,omitempty"`   // where it was seen; empty: of the cluster as a whole
	Object   string   `json:"object,omitempty"` // as "file_system app_fs"
	Saw      string   `json:"saw"`              // what was seen
	Why      string   `json:"why"`              // why it matters
	Fix      string   `json:"fix"`              // what to do
	// Fixable says that FIX=yes would do it.
	Fixable bool `json:"fixable,omitempty"`
	// Waived is the reason of the waiver that covers it; WaivedUntil its last day, empty: without end.
	Waived      string `json:"waived,omitempty"`
	WaivedUntil string `json:"waived_until,omitempty"`
}

// Key names what a finding is about, whatever its words: two reports are compared by it.
func (f *Finding) Key() string {
	return f.Check + "|" + string(f.Severity) + "|" + f.Node + "|" + f.Object
}

// Count is how many findings of the severity are not waived.
func (r *VerifyReport) Count(s Severity) int {
	n := 0
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Severity == s && f.Waived == "" {
			n++
		}
	}
	return n
}

// Failed reports whether an error was found that nobody has waived.
func (r *VerifyReport) Failed() bool { return r.Count(SeverityError) > 0 }
