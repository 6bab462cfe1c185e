package ocf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A Meta is what an agent says about itself.
type Meta struct {
	Name       string
	Version    string
	Short      string // one line
	Parameters []Parameter
	Actions    []Action
}

// A Parameter is one that an agent takes.
type Parameter struct {
	Name     string
	Type     string // string, integer, boolean, ...
	Default  string
	Required bool
	Short    string
}

// An Action is one that an agent can be asked for.
type Action struct {
	Name     string
	Timeout  time.Duration // 0: it says nothing
	Interval time.Duration
	Depth    int
	Role     string
}

// Limits of what an agent may say about itself.
const (
	maxParameters = 1000
	maxActions    = 100
	maxLine       = 200
)

type xmlAgent struct {
	XMLName    xml.Name `xml:"resource-agent"`
	Name       string   `xml:"name,attr"`
	Version    string   `xml:"version,attr"`
	Short      string   `xml:"shortdesc"`
	Parameters []struct {
		Name     string `xml:"name,attr"`
		Required string `xml:"required,attr"`
		Short    string `xml:"shortdesc"`
		Content  struct {
			Type    string `xml:"type,attr"`
			Default string `xml:"default,attr"`
		} `xml:"content"`
	} `xml:"parameters>parameter"`
	Actions []struct {
		Name     string `xml:"name,attr"`
		Timeout  string `xml:"timeout,attr"`
		Interval string `xml:"interval,attr"`
		Depth    string `xml:"depth,attr"`
		Role     string `xml:"role,attr"`
	} `xml:"actions>action"`
}

// ParseMeta reads an agent's meta-data. What stands before and behind it (an agent's complaints) is skipped.
func ParseMeta(text string) (*Meta, error) {
	begin := strings.Index(text, "<resource-agent")
	end := strings.LastIndex(text, "</resource-agent>")
	if begin < 0 || end < begin {
		return nil, errors.New("what the agent prints as its meta-data has no resource-agent element")
	}
	var x xmlAgent
	d := xml.NewDecoder(bytes.NewReader([]byte(text[begin : end+len("</resource-agent>")])))
	d.Strict = false
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	if err := d.Decode(&x); err != nil {
		return nil, fmt.Errorf("the agent's meta-data cannot be read: %w", err)
	}
	if len(x.Parameters) > maxParameters || len(x.Actions) > maxActions {
		return nil, fmt.Errorf("the agent's meta-data has %d parameters and %d actions: at most %d and %d are read", len(x.Parameters),
			len(x.Actions), maxParameters, maxActions)
	}
	m := &Meta{Name: x.Name, Version: x.Version, Short: line(x.Short)}
	for _, p := range x.Parameters {
		m.Parameters = append(m.Parameters, Parameter{Name: p.Name, Type: strings.ToLower(p.Content.Type), Default: p.Content.Default,
			Required: yes(p.Required), Short: line(p.Short)})
	}
	for _, a := range x.Actions {
		depth, _ := strconv.Atoi(a.Depth)
		m.Actions = append(m.Actions, Action{Name: a.Name, Timeout: span(a.Timeout), Interval: span(a.Interval), Depth: depth, Role: a.Role})
	}
	return m, nil
}

// line is text on one line, shortened.
func line(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxLine {
		s = s[:maxLine] + "..."
	}
	return s
}

func yes(s string) bool {
	switch strings.ToLower(s) {
	case "1", "yes", "true", "on":
		return true
	}
	return false
}

// span reads a time as agents write it: 20, 20s, 500ms, 2min. What it cannot read it takes for nothing.
func span(s string) time.Duration {
	s = strings.ToLower(strings.TrimSpace(s))
	number := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz ")
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 0 {
		return 0
	}
	units := map[string]time.Duration{"": time.Second, "s": time.Second, "sec": time.Second, "ms": time.Millisecond, "msec": time.Millisecond,
		"us": time.Microsecond, "m": time.Minute, "min": time.Minute, "h": time.Hour, "hr": time.Hour}
	return time.Duration(n) * units[strings.TrimSpace(s[len(number):])]
}

// Has reports whether the agent offers an action.
func (m *Meta) Has(action string) bool {
	return slices.ContainsFunc(m.Actions, func(a Action) bool { return a.Name == action })
}

// Timeout is what the agent asks for an action: the longest that it names. A monitor of a depth has that of its depth.
func (m *Meta) Timeout(action string, depth int) time.Duration {
	var longest, of time.Duration
	for _, a := range m.Actions {
		if a.Name != action {
			continue
		}
		longest = max(longest, a.Timeout)
		if a.Depth == depth {
			of = max(of, a.Timeout)
		}
	}
	if of > 0 {
		return of
	}
	return longest
}

// Check says what is wrong with the parameters that an application gives the agent: unknown ones, missing ones, and values
// that are not of their type.
func (m *Meta) Check(params map[string]string) error {
	var errs []error
	var known []string
	for _, p := range m.Parameters {
		known = append(known, p.Name)
		v, given := params[p.Name]
		switch {
		case !given && p.Required && p.Default == "":
			errs = append(errs, fmt.Errorf("the parameter %s is missing (%s)", p.Name, orNothing(p.Short)))
		case !given || v == "":
		case p.Type == "boolean" && !isBoolean(v):
			errs = append(errs, fmt.Errorf("the parameter %s is %q: yes or no is needed", p.Name, v))
		case p.Type == "integer" && !isInteger(v):
			errs = append(errs, fmt.Errorf("the parameter %s is %q: a whole number is needed", p.Name, v))
		}
	}
	for _, k := range sortedKeys(params) {
		// Pacemaker's own meta attributes reach agents under this name; some documented settings are among them.
		if !slices.Contains(known, k) && !strings.HasPrefix(k, "CRM_meta_") {
			errs = append(errs, fmt.Errorf("the agent has no parameter %s%s: it has %s", k, cluster.DidYouMean(k, known), strings.Join(known, ", ")))
		}
	}
	return errors.Join(errs...)
}

func orNothing(s string) string {
	if s == "" {
		return "the agent does not say what for"
	}
	return s
}

func isBoolean(v string) bool {
	switch strings.ToLower(v) {
	case "1", "0", "yes", "no", "true", "false", "on", "off", "ja", "nein":
		return true
	}
	return false
}

func isInteger(v string) bool {
	_, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
	return err == nil
}

func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// unpromoted are the promotable agents that, by their own documentation, also run one plain instance, and the parameters that
// would make them need a promotion.
var unpromoted = map[string][]string{
	"pgsql":       {"rep_mode"},
	"mysql":       {"replication_user", "replication_passwd"},
	"db2":         nil,
	"SAPInstance": nil,
}

// refusePromotable explains why an agent that is to be promoted cannot be used, or says nothing. Holdfast runs one instance of
// an application at a time, and never tells an agent to promote it: a promotable agent would be started into its lesser role,
// and stay there.
func refusePromotable(name cluster.AgentName, m *Meta, params map[string]string) error {
	if !m.Has("promote") {
		return nil
	}
	const then = "; run it by start and stop scripts, which start its full role, or leave the promotion to its own replication manager"
	hot, plain := unpromoted[name.Type]
	if name.Class != cluster.AgentOCF || name.Provider != "heartbeat" || !plain {
		return fmt.Errorf("%s is a promotable agent: its instances start in a lesser role and one of them is promoted, which Holdfast never does%s", name, then)
	}
	for _, k := range hot {
		if v := params[k]; v != "" && v != "none" {
			return fmt.Errorf("with %s=%s %s is a promotable agent: its instances start in a lesser role and one of them is promoted, which "+
				"Holdfast never does; leave %s out to run one plain instance%s", k, shown(k, v), name, k, then)
		}
	}
	return nil
}

func shown(k, v string) string {
	if cluster.Secret(k) {
		return "***"
	}
	return v
}
