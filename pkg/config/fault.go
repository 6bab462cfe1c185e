package config

import (
	"fmt"
	"sort"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A Fault is one thing that is wrong with a file.
type Fault struct {
	File   string
	Line   int    // from 1; 0 when the fault has no place in the file
	Column int    // from 1, in characters
	Key    string // the key's path: resource_groups[2].nodes[0]; empty for the whole
	Text   string // what is wrong, and what would be right
}

// Error is one line: file:line:column: key: text.
func (f Fault) Error() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	if f.Key != "" {
		b.WriteString(": " + f.Key)
	}
	b.WriteString(": " + f.Text)
	return b.String()
}

// Faults are all that is wrong with a file, in the order of the file.
type Faults []Fault

// Error is one line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "\n")
}

// maxFaults bounds what is reported of one file. Nobody reads more, and a hostile file must not make us write it.
const maxFaults = 200

// A place is a position in a file.
type place struct{ line, column int }

// A report collects the faults of one file, and remembers where each key stands so that later checks can say so too.
type report struct {
	file   string
	faults Faults
	places map[string]place
	// spoiled holds the paths at which something could not be read: what is missing there is no fault of its own.
	spoiled map[string]bool
	full    bool
}

func newReport(file string) *report {
	return &report{file: file, places: map[string]place{}, spoiled: map[string]bool{}}
}

// add notes a fault. It returns quickly once the report is full.
func (r *report) add(at place, key, format string, args ...any) {
	if len(r.faults) >= maxFaults {
		r.full = true
		return
	}
	r.faults = append(r.faults, Fault{File: r.file, Line: at.line, Column: at.column, Key: clip(key), Text: clip(fmt.Sprintf(format, args...))})
}

// spoil notes a fault because of which the value at key was not read.
func (r *report) spoil(at place, key, format string, args ...any) {
	if len(r.spoiled) < maxFaults {
		r.spoiled[key] = true
	}
	r.add(at, key, format, args...)
}

// clip keeps a hostile value from filling the screen.
func clip(s string) string {
	const most = 600
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// find is where a key stands; for a key that the file does not have, where the nearest thing around it stands.
func (r *report) find(key string) place {
	for {
		if p, ok := r.places[key]; ok {
			return p
		}
		i := strings.LastIndexAny(key, ".[")
		if i < 0 {
			return r.places[""]
		}
		key = key[:i]
	}
}

// problems adds what cluster.Validate found; prefix is the definition's place in the file ("cluster." in a scenario). What
// only follows from something that could not be read is left out.
func (r *report) problems(prefix string, list []cluster.Problem) {
	for _, p := range list {
		key := prefix + p.Path
		if r.follows(prefix, key, p) {
			continue
		}
		text := p.Text
		if p.Want != "" {
			text += ": " + p.Want
		}
		r.add(r.find(key), strings.TrimSuffix(key, "."), "%s", text)
	}
}

// follows reports whether the problem only repeats a fault: at the same value, around it or inside it, or because an object
// to which it refers could not be read.
func (r *report) follows(prefix, key string, p cluster.Problem) bool {
	for s := range r.spoiled {
		if s == key || strings.HasPrefix(key, s+".") || strings.HasPrefix(key, s+"[") || strings.HasPrefix(s, key+".") || strings.HasPrefix(s, key+"[") {
			return true
		}
		if p.Refers != "" && names(strings.TrimPrefix(s, prefix), cluster.ListOf(p.Refers)) {
			return true
		}
	}
	return false
}

// names reports whether the value at path would have given an object of a list its name: nodes, nodes[3], nodes[3].name.
func names(path, list string) bool {
	rest, ok := strings.CutPrefix(path, list)
	return ok && (!strings.Contains(rest, ".") || strings.HasSuffix(rest, "].name"))
}

// err returns the faults as an error, nil if there are none.
func (r *report) err() error {
	if len(r.faults) == 0 {
		return nil
	}
	sort.SliceStable(r.faults, func(i, j int) bool {
		a, b := r.faults[i], r.faults[j]
		return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
	})
	if r.full {
		r.faults = append(r.faults, Fault{File: r.file, Text: fmt.Sprintf("there are more than %d faults; the rest is not listed", maxFaults)})
	}
	return r.faults
}
