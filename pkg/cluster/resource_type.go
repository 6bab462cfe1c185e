package cluster

import (
	"fmt"
	"strings"
	"time"
)

// A ResourceType is the manifest of a resource type that an administrator has made: what its scripts (start, stop, monitor and,
// if it is there, validate, in the manifest's directory) take, and how long they may take. It belongs to a node, not to the
// definition: an application names it by its agent, user:NAME.
type ResourceType struct {
	Name        string `json:"name"`
	Version     string `json:"version,omitempty"`
	Description string `json:"description,omitempty"` // one line
	// Parameters reach the scripts as OCF_RESKEY_name, with their default where none is given.
	Parameters []ResourceParameter `json:"parameters,omitempty"`
	// Timeouts by script; default 20 s.
	Timeouts map[string]time.Duration `json:"timeouts,omitempty"`
}

// A ResourceParameter is one that a resource type takes.
type ResourceParameter struct {
	Name        string `json:"name"`
	Type        string `json:"type,omitempty"` // string (default), integer or boolean
	Required    bool   `json:"required,omitempty"`
	Default     string `json:"default,omitempty"`
	Description string `json:"description,omitempty"`
}

// The scripts of a resource type.
var resourceTypeScripts = []string{"start", "stop", "monitor", "validate"}

// Validate lists everything that is wrong with a manifest.
func (t *ResourceType) Validate() []Problem {
	v := validator{d: &Definition{}}
	if !agentWord(t.Name) {
		v.add("name", "the name of the directory", "the name %q cannot be used", t.Name)
	}
	for _, f := range []struct{ path, text string }{{"version", t.Version}, {"description", t.Description}} {
		if len(f.text) > MaxText || strings.ContainsAny(f.text, "\n\r") {
			v.add(f.path, "one line", "the text cannot be used")
		}
	}
	if len(t.Parameters) > 100 {
		v.add("parameters", "at most 100", "there are %d", len(t.Parameters))
		return v.problems
	}
	seen := map[string]bool{}
	for i, p := range t.Parameters {
		at := fmt.Sprintf("parameters[%d].", i)
		if !parameterName(p.Name) || strings.Contains(p.Name, "-") {
			v.add(at+"name", "letters, digits and _", "the parameter name %q cannot be used", p.Name)
		}
		if seen[p.Name] {
			v.add(at+"name", "another name", "there are two parameters %s", p.Name)
		}
		seen[p.Name] = true
		if p.Type != "" {
			v.oneOf(at+"type", p.Type, "string", "integer", "boolean")
		}
		if p.Required && p.Default != "" {
			v.add(at+"default", "leave it out, or required", "a parameter that must be given has no default")
		}
	}
	for _, k := range sortedKeys(t.Timeouts) {
		if !contains(resourceTypeScripts, k) {
			v.add("timeouts."+k, strings.Join(resourceTypeScripts, ", "), "there is no script %q", k)
			continue
		}
		v.within("timeouts."+k, t.Timeouts[k], 24*time.Hour)
	}
	return v.problems
}
