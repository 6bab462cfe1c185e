package cli

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/api"
	"github.com/holdfast-ha/holdfast/pkg/scenario"
)

// A failed command's answer in JSON.
type errorOutput struct {
	Error  string      `json:"error"`
	Status int         `json:"status"` // the exit status
	Code   api.Code    `json:"code,omitempty"`
	Faults []api.Fault `json:"faults,omitempty"`
}

// outputs are what each command writes with -o json, form 1.
var outputs = []struct {
	command string
	value   any // of the type that is written; a string says it in words
	list    bool
}{
	{"query CLASS, query snapshot, view log without a name", "for each object an object: its attributes by their names, all values as text", true},
	{"query status; clstat -o json", api.Status{}, false},
	{"query event", api.Event{}, true},
	{"query event FOLLOW=yes: one object a line, without end", api.Event{}, false},
	{"query audit", api.AuditRecord{}, true},
	{"view log NAME", logText{}, false},
	{"view snapshot", api.SnapshotText{}, false},
	{"view subsystem", subsystem{}, false},
	{"export", api.Definition{}, false},
	{"diff, compare, apply --plan", api.Diff{}, false},
	{"verify cluster, verify method", api.VerifyReport{}, false},
	{"sync file_collection, verify file_collection", api.RemoteOperation{}, false},
	{"verify cluster FILE=..., where no cluster can be asked", api.CheckReport{}, false},
	{"explain", api.Explanation{}, false},
	{"simulate", scenario.Report{}, false},
	{"add cluster", api.CreateClusterReply{}, false},
	{"add token; add node, after its result", api.JoinToken{}, false},
	{"every other command", result{}, false},
	{"a command that fails, on the standard error", errorOutput{}, false},
}

// OutputReference is docs/output.md.
func OutputReference() string {
	m := &markdown{}
	m.title("Output for programs", "", "-o json and -o yaml")
	m.text("This page is made from the types that are written (`make docs`); a test compares them.")
	m.text("Every action of `clmgr` takes `-o json` and `-o yaml`. YAML is the same in another notation: the same keys in the same order. " +
		"There is one document for each answer; `clmgr -M` and commands with two answers write several (in YAML with `---` between them). " +
		"Warnings and what a command waits for go to the standard error, as text. The exit status is the same in every form (`clmgr help status`).")
	m.text("**The form has a number.** This is form 1. Keys may be added to it; none is taken away, renamed, or given another type without a new number. " +
		"A program that is to outlive upgrades writes `-o json/1` or `-o yaml/1`: a clmgr that no longer writes form 1 refuses it with exit status 4 instead of " +
		"answering in another. `-o json` is the newest.")
	m.text("A key marked with ? is left out when it is empty, zero or not known. Times are RFC 3339, with fractions of a second. What is not known is UNKNOWN, or null " +
		"where a number would stand. Attributes of `query CLASS` are those of `clmgr.md`; `-a` chooses some. `-c`, `-d X` and `-x` are PowerHA's forms: in `-c` a colon " +
		"within a value is marked by a backslash.")
	m.heading("What is written")
	var rows [][]string
	var order []reflect.Type
	for _, o := range outputs {
		text, isText := o.value.(string)
		if !isText {
			t := reflect.TypeOf(o.value)
			order = append(order, t)
			text = "[" + t.Name() + "](#" + strings.ToLower(t.Name()) + ")"
		}
		if o.list {
			text = "list: " + text
		}
		rows = append(rows, []string{o.command, text})
	}
	m.table([]string{"command", "document"}, rows)
	m.heading("Objects")
	done := map[reflect.Type]bool{}
	for len(order) > 0 {
		t := order[0]
		order = order[1:]
		if done[t] {
			continue
		}
		done[t] = true
		m.sub(t.Name())
		var keys [][]string
		for _, f := range jsonFields(t) {
			kind, inner := jsonKind(f.kind)
			if inner != nil {
				order = append(order, inner)
			}
			keys = append(keys, []string{f.key, kind})
		}
		m.table([]string{"key", "value"}, keys)
	}
	return m.String()
}

type jsonField struct {
	key  string
	kind reflect.Type
}

// jsonFields lists the keys of a struct as encoding/json writes them.
func jsonFields(t reflect.Type) []jsonField {
	var out []jsonField
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		if f.Anonymous && tag == "" {
			out = append(out, jsonFields(f.Type)...)
			continue
		}
		key, more, _ := strings.Cut(tag, ",")
		if key == "-" || !f.IsExported() {
			continue
		}
		if key == "" {
			key = f.Name
		}
		if strings.Contains(more, "omitempty") || strings.Contains(more, "omitzero") {
			key += " ?"
		}
		out = append(out, jsonField{key, f.Type})
	}
	return out
}

// jsonKind is a type in the words of JSON, and the struct in it that has a table of its own.
func jsonKind(t reflect.Type) (string, reflect.Type) {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time", nil
	case t.Kind() == reflect.Pointer:
		k, inner := jsonKind(t.Elem())
		return k + " or null", inner
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return "base64 text", nil
	case t.Kind() == reflect.Slice:
		k, inner := jsonKind(t.Elem())
		return "list of " + k, inner
	case t.Kind() == reflect.Map:
		k, inner := jsonKind(t.Elem())
		return "object by name: " + k, inner
	case t.Kind() == reflect.Struct:
		return fmt.Sprintf("[%s](#%s)", t.Name(), strings.ToLower(t.Name())), t
	case t.Kind() == reflect.String:
		return "text", nil
	case t.Kind() == reflect.Bool:
		return "true or false", nil
	case t.Kind() == reflect.Float64:
		return "number", nil
	}
	return "whole number", nil
}
