package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// EncodeCluster writes a definition as a cluster file: keys in the definition's order, defaults left out, the same text for
// the same definition. Decoding the text gives an equal definition. It refuses a definition that DecodeCluster would refuse.
//
// The text holds the parameters of fence devices, secrets included; it belongs into files of mode 0600.
func EncodeCluster(d *cluster.Definition) ([]byte, error) {
	if problems := d.Validate(); len(problems) > 0 {
		return nil, fmt.Errorf("write the cluster file: the definition has %d problems, the first: %v", len(problems), problems[0])
	}
	var e encoder
	e.fields(reflect.ValueOf(d.Sparse()).Elem(), 0)
	return []byte(e.String()), nil
}

type encoder struct{ strings.Builder }

const widest = 110 // columns of what is written on one line

// fields writes a struct's keys at an indentation.
func (e *encoder) fields(v reflect.Value, indent int) {
	for i := range v.NumField() {
		key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if key == "" || key == "-" || skip(v.Field(i), v.Type().Field(i).Tag.Get("json")) {
			continue
		}
		if indent == 0 && i > 0 && v.Field(i).Kind() != reflect.String {
			if last := strings.TrimSuffix(e.String(), "\n"); strings.Contains(last, "\n") || v.Field(i).Kind() == reflect.Struct || long(v.Field(i)) {
				e.WriteString("\n") // a free line between the lists of the file
			}
		}
		e.entry(key, v.Field(i), indent)
	}
}

// long reports whether a list is written over several lines.
func long(v reflect.Value) bool { _, ok := flow(v); return !ok || len(mustFlow(v)) > widest-20 }

func mustFlow(v reflect.Value) string { s, _ := flow(v); return s }

// skip reports whether a value says nothing.
func skip(v reflect.Value, tag string) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Int, reflect.Int64, reflect.Bool:
		return v.IsZero() && strings.HasSuffix(tag, ",omitempty")
	}
	return v.IsZero()
}

// entry writes "key: value", the value on the same line where it fits.
func (e *encoder) entry(key string, v reflect.Value, indent int) {
	pad := strings.Repeat("  ", indent)
	if s, ok := flow(v); ok && len(pad)+len(key)+2+len(s) <= widest {
		e.WriteString(pad + scalar(key) + ": " + s + "\n")
		return
	}
	for v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	e.WriteString(pad + scalar(key) + ":")
	switch v.Kind() {
	case reflect.Struct:
		e.WriteString("\n")
		e.fields(v, indent+1)
	case reflect.Map:
		e.WriteString("\n")
		for _, k := range mapKeys(v) {
			e.entry(k, v.MapIndex(reflect.ValueOf(k)), indent+1)
		}
	case reflect.Slice:
		e.WriteString("\n")
		for i := range v.Len() {
			e.item(v.Index(i), indent+1)
		}
	default:
		e.WriteString(" " + mustFlow(v) + "\n")
	}
}

// item writes one entry of a list behind a dash.
func (e *encoder) item(v reflect.Value, indent int) {
	pad := strings.Repeat("  ", indent)
	if name := bareName(v); name != "" {
		e.WriteString(pad + "- " + scalar(name) + "\n")
		return
	}
	if s, ok := flow(v); ok && oneLine(v) && len(pad)+2+len(s) <= widest {
		e.WriteString(pad + "- " + s + "\n")
		return
	}
	var inner encoder
	inner.fields(v, indent+1)
	text := inner.String()
	e.WriteString(pad + "- " + strings.TrimPrefix(text, strings.Repeat("  ", indent+1)))
}

// oneLine are the things that people write on one line.
func oneLine(v reflect.Value) bool {
	switch v.Type() {
	case reflect.TypeFor[cluster.ResourceGroup](), reflect.TypeFor[cluster.ApplicationController](), reflect.TypeFor[cluster.ApplicationMonitor](), reflect.TypeFor[cluster.FileSystem](),
		reflect.TypeFor[cluster.FenceDevice]():
		return false
	}
	return true
}

// flow writes a value on one line; false: it has structs in a list, and needs several.
func flow(v reflect.Value) (string, bool) {
	switch {
	case v.Type() == durationType:
		return cluster.FormatDuration(time.Duration(v.Int())), true
	case v.Kind() == reflect.Pointer:
		return flow(v.Elem())
	}
	switch v.Kind() {
	case reflect.String:
		return scalar(v.String()), true
	case reflect.Bool:
		return strconv.FormatBool(v.Bool()), true
	case reflect.Int:
		return strconv.FormatInt(v.Int(), 10), true
	case reflect.Slice:
		var parts []string
		for i := range v.Len() {
			item := v.Index(i)
			if item.Kind() == reflect.Struct {
				// A list of bare names is written as one.
				if name := bareName(item); name != "" {
					parts = append(parts, scalar(name))
					continue
				}
				return "", false
			}
			s, _ := flow(item)
			if item.Kind() == reflect.String && strings.Contains(s, ":") && s[0] != '"' {
				s = `"` + s + `"` // between brackets some readers take a:b for a mapping
			}
			parts = append(parts, s)
		}
		return "[" + strings.Join(parts, ", ") + "]", true
	case reflect.Map:
		var parts []string
		for _, k := range mapKeys(v) {
			s, _ := flow(v.MapIndex(reflect.ValueOf(k)))
			parts = append(parts, scalar(k)+": "+s)
		}
		return "{" + strings.Join(parts, ", ") + "}", true
	}
	var parts []string
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("json")
		key, _, _ := strings.Cut(tag, ",")
		if key == "" || skip(v.Field(i), tag) {
			continue
		}
		s, ok := flow(v.Field(i))
		if !ok {
			return "", false
		}
		parts = append(parts, key+": "+s)
	}
	return "{" + strings.Join(parts, ", ") + "}", v.Type() != reflect.TypeFor[cluster.Settings]()
}

// bareName is the name of a node or network that has nothing else, "" otherwise.
func bareName(v reflect.Value) string {
	if !shortForm[v.Type()] {
		return ""
	}
	for i := range v.NumField() {
		if v.Type().Field(i).Name != "Name" && !v.Field(i).IsZero() && !(v.Field(i).Kind() == reflect.Map && v.Field(i).Len() == 0) {
			return ""
		}
	}
	return v.FieldByName("Name").String()
}

func mapKeys(v reflect.Value) []string {
	m := map[string]bool{}
	for _, k := range v.MapKeys() {
		m[k.String()] = true
	}
	return sortedKeys(m)
}

var (
	plainText = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./@%+-]*(:[A-Za-z0-9_./@%+-]+)*$`)
	addresses = regexp.MustCompile(`^[0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,3})?$`)
	wholeNo   = regexp.MustCompile(`^(0|[1-9][0-9]{0,17})$`)
)

// scalar writes text plain where nobody can misread it, else in double quotes.
func scalar(s string) string {
	switch strings.ToLower(s) {
	case "true", "false", "yes", "no", "on", "off", "null", "y", "n", "inf", "nan", "":
	default:
		if plainText.MatchString(s) || addresses.MatchString(s) || wholeNo.MatchString(s) {
			return s
		}
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, "\\u%04x", r)
		default:
			fmt.Fprintf(&b, "\\U%08x", r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
