package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// The decoder fills Go values from a tree, by the types and the json tags of the target. It reports everything that does not
// fit, and goes on.

// otherNames are keys that are accepted beside a field's own.
var otherNames = map[reflect.Type]map[string]string{
	reflect.TypeFor[cluster.ResourceGroup](): {"failover": "fallover", "failback": "fallback"},
}

// shortForm are the types of which a single word is the name.
var shortForm = map[reflect.Type]bool{
	reflect.TypeFor[cluster.Node]():    true,
	reflect.TypeFor[cluster.Network](): true,
}

// notZero are keys whose zero value cannot be told from "not set", with the default that they then have.
var notZero = map[string]string{
	"stop_timeout": "the default", "start_timeout": "the default", "monitor_interval": "the default", "timeout": "the default",
	"stabilization": "the default", "restart_interval": "a computed one", "failure_window": "the default",
	"max_event_time": "the default", "max_group_time": "the default", "node_priority_timeout": "the default",
	"instance_count": "the default", "hung_signal": "the default", "watchdog_timeout": "the default",
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	timeType     = reflect.TypeFor[time.Time]()
)

// fill decodes n into v, which must be settable.
func (r *report) fill(n *node, v reflect.Value, path string) {
	if _, known := r.places[path]; !known {
		r.places[path] = n.at
	}
	t := v.Type()
	switch {
	case t == durationType:
		r.fillDuration(n, v, path)
	case t == timeType:
		r.fillTime(n, v, path)
	case t.Kind() == reflect.Pointer:
		if n.kind == nullNode {
			r.missing(n, path, describe(t.Elem()))
			return
		}
		p := reflect.New(t.Elem())
		r.fill(n, p.Elem(), path)
		if !r.spoiled[path] {
			v.Set(p)
		}
	case t.Kind() == reflect.Struct:
		r.fillStruct(n, v, path)
	case t.Kind() == reflect.Slice:
		r.fillSlice(n, v, path)
	case t.Kind() == reflect.Map:
		r.fillMap(n, v, path)
	default:
		r.fillScalar(n, v, path)
	}
}

// describe says in the file's words what a type looks like.
func describe(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration, as 500ms, 30s, 5m or 1d"
	case t == timeType:
		return "a moment, as 2026-01-05T09:00:00Z"
	case shortForm[t]:
		return "a name, or a mapping with name:"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return describe(t.Elem())
	case reflect.Struct:
		return "a mapping"
	case reflect.Map:
		return "a mapping of names to values, as {a: x, b: y}"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String || shortForm[t.Elem()] {
			return "a list, as [a, b]"
		}
		return "a list of mappings, each behind a dash"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	}
	return "text"
}

func (r *report) missing(n *node, path, want string) {
	r.spoil(n.at, path, "the value is missing: write %s, or leave the key out", want)
}

// wrong reports a value of the wrong kind.
func (r *report) wrong(n *node, path, want string) {
	what := n.kind.String()
	if n.kind == scalarNode {
		what = fmt.Sprintf("%q", clip(n.text))
	}
	r.spoil(n.at, path, "this is %s: %s is needed", what, want)
}

func (r *report) fillStruct(n *node, v reflect.Value, path string) {
	t := v.Type()
	if n.kind == scalarNode && shortForm[t] {
		name := v.FieldByName("Name")
		r.fillScalar(n, name, path)
		r.places[join(path, "name")] = n.at
		return
	}
	if n.kind == nullNode {
		r.missing(n, path, describe(t))
		return
	}
	if n.kind != mappingNode {
		r.wrong(n, path, describe(t))
		return
	}
	keys, index := keysOf(t)
	first := map[string]place{}
	for _, f := range n.fields {
		own, other := f.key, otherNames[t][f.key]
		if other != "" {
			own = other
		}
		i, ok := index[own]
		if !ok {
			r.unknown(f, path, keys)
			continue
		}
		if at, twice := first[own]; twice {
			r.twice(f, join(path, f.key), at)
			continue
		}
		first[own] = f.at
		key := join(path, own)
		r.places[key] = f.at
		if f.value.kind != nullNode {
			r.places[key] = f.value.at
		}
		target := v.Field(i)
		if f.value.kind == nullNode {
			f.value.at = f.at
			// A list or mapping whose entries are all commented out is empty, not wrong.
			if k := target.Kind(); k == reflect.Slice || k == reflect.Map {
				continue
			}
		}
		r.fill(f.value, target, key)
		if text, ok := notZero[own]; ok && target.IsZero() && !r.spoiled[key] {
			r.add(f.value.at, key, "it must be above 0; leave it out for %s", text)
		}
	}
}

func (r *report) unknown(f field, path string, keys []string) {
	if r.full {
		return
	}
	hint := cluster.DidYouMean(f.key, keys)
	r.add(f.at, join(path, f.key), "there is no key %q here%s: the keys are %s", clip(f.key), hint, strings.Join(keys, ", "))
}

func (r *report) twice(f field, key string, first place) {
	r.add(f.at, key, "this key stands here twice, the first time in line %d: keep one", first.line)
}

// keysOf lists a struct's keys in its order, and where each field is.
func keysOf(t reflect.Type) ([]string, map[string]int) {
	var keys []string
	index := map[string]int{}
	for i := range t.NumField() {
		key, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if key == "" || key == "-" {
			continue
		}
		keys = append(keys, key)
		index[key] = i
	}
	return keys, index
}

func (r *report) fillSlice(n *node, v reflect.Value, path string) {
	if n.kind == nullNode {
		r.missing(n, path, describe(v.Type()))
		return
	}
	if n.kind != sequenceNode {
		r.wrong(n, path, describe(v.Type()))
		return
	}
	out := reflect.MakeSlice(v.Type(), 0, len(n.items))
	for i, item := range n.items {
		at := fmt.Sprintf("%s[%d]", path, i)
		e := reflect.New(v.Type().Elem()).Elem()
		if item.kind == nullNode {
			r.spoil(item.at, at, "the entry is empty: write %s, or take the dash away", describe(v.Type().Elem()))
		} else {
			r.fill(item, e, at)
		}
		out = reflect.Append(out, e)
	}
	v.Set(out)
}

func (r *report) fillMap(n *node, v reflect.Value, path string) {
	if n.kind != mappingNode {
		r.wrong(n, path, describe(v.Type()))
		return
	}
	out := reflect.MakeMap(v.Type())
	first := map[string]place{}
	free := v.Type().Elem().Kind() == reflect.String
	for _, f := range n.fields {
		key := join(path, f.key)
		if at, twice := first[f.key]; twice {
			r.twice(f, key, at)
			continue
		}
		first[f.key] = f.at
		r.places[key] = f.at
		e := reflect.New(v.Type().Elem()).Elem()
		switch {
		case f.value.kind == nullNode:
			r.spoil(f.at, key, "the value is missing: write %s, or leave the key out", describe(e.Type()))
		case free && f.value.kind == scalarNode:
			e.SetString(f.value.text) // ssl: true is a parameter's text, not our boolean.
		default:
			r.fill(f.value, e, key)
		}
		if !r.spoiled[key] {
			out.SetMapIndex(reflect.ValueOf(f.key), e)
		}
	}
	v.Set(out)
}

func (r *report) fillScalar(n *node, v reflect.Value, path string) {
	switch {
	case n.kind == nullNode:
		r.missing(n, path, describe(v.Type()))
		return
	case n.kind != scalarNode:
		r.wrong(n, path, describe(v.Type()))
		return
	}
	switch v.Kind() {
	case reflect.String:
		switch {
		case n.boolt:
			r.spoil(n.at, path, "this is the boolean %s: text is needed; put it in quotes if it is meant so", n.text)
		case n.text == "":
			r.spoil(n.at, path, "the text is empty: write one, or leave the key out")
		default:
			v.SetString(n.text)
		}
	case reflect.Bool:
		b, err := cluster.ParseBool(n.text)
		if err != nil {
			r.wrong(n, path, describe(v.Type()))
			return
		}
		v.SetBool(b)
	case reflect.Int:
		i, err := strconv.ParseInt(n.text, 10, 64)
		if err != nil || !n.plain {
			r.wrong(n, path, describe(v.Type()))
			return
		}
		v.SetInt(i)
	default:
		panic("config: no decoder for " + v.Type().String())
	}
}

func (r *report) fillDuration(n *node, v reflect.Value, path string) {
	if n.kind == nullNode {
		r.missing(n, path, describe(durationType))
		return
	}
	if n.kind != scalarNode {
		r.wrong(n, path, describe(durationType))
		return
	}
	d, err := cluster.ParseDuration(n.text)
	if err != nil {
		if _, number := strconv.ParseFloat(n.text, 64); number == nil && !strings.HasPrefix(n.text, "-") && len(n.text) < 20 {
			r.spoil(n.at, path, "the duration %s has no unit: write %ss for seconds, or another of ms, s, m, h, d", n.text, n.text)
			return
		}
		r.spoil(n.at, path, "%v", err)
		return
	}
	v.SetInt(int64(d))
}

// moments are the forms in which a date may be written; without a zone it is UTC.
var moments = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05",
	"2006-01-02 15:04", "2006-01-02"}

func (r *report) fillTime(n *node, v reflect.Value, path string) {
	if n.kind != scalarNode {
		r.wrong(n, path, describe(timeType))
		return
	}
	for _, m := range moments {
		if t, err := time.Parse(m, n.text); err == nil {
			v.Set(reflect.ValueOf(t.UTC()))
			return
		}
	}
	r.spoil(n.at, path, "%q is not a moment that exists: write it as 2026-01-05T09:00:00Z", clip(n.text))
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
