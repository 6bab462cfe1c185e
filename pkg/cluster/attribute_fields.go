package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A field is an attribute bound to objects of one type. The constructors below bind one to a struct's field by its kind.
type field[T any] struct {
	Attribute
	read  func(d *Definition, o *T) string
	write func(d *Definition, o *T, value string) error
}

// newClass makes a class of the objects in one list of the definition.
func newClass[T any](c Class, list func(*Definition) *[]T, name func(*T) *string, fields ...field[T]) Class {
	find := func(d *Definition, n string) *T {
		l := *list(d)
		for i := range l {
			if *name(&l[i]) == n {
				return &l[i]
			}
		}
		return nil
	}
	c.names = func(d *Definition) []string {
		var out []string
		l := *list(d)
		for i := range l {
			out = append(out, *name(&l[i]))
		}
		return out
	}
	c.create = func(d *Definition, n string) {
		var o T
		*name(&o) = n
		l := list(d)
		*l = append(*l, o)
	}
	c.remove = func(d *Definition, n string) {
		l := list(d)
		*l = slices.DeleteFunc(*l, func(o T) bool { return *name(&o) == n })
	}
	class := c.Name
	c.rename = func(d *Definition, from, to string) {
		if o := find(d, from); o != nil {
			*name(o) = to
			d.renameReferences(class, from, to)
		}
	}
	c.Attributes = append(c.Attributes, nameAttribute("NAME", c.Name))
	for _, f := range fields {
		c.Attributes = append(c.Attributes, bind(f, find))
	}
	return c
}

// bind turns a field into an attribute of objects that are found by name.
func bind[T any](f field[T], find func(*Definition, string) *T) Attribute {
	a := f.Attribute
	a.get = func(d *Definition, name string) string {
		if o := find(d, name); o != nil {
			return f.read(d, o)
		}
		return ""
	}
	a.set = func(d *Definition, name, value string) error {
		o := find(d, name)
		if o == nil {
			return ErrNotFound
		}
		if f.write == nil {
			return fmt.Errorf("it cannot be set")
		}
		return f.write(d, o, value)
	}
	return a
}

// nameAttribute is the object's own name; Modify treats it.
func nameAttribute(label, class string) Attribute {
	return Attribute{Name: label, Kind: KindText, Doc: "the name of the " + strings.ReplaceAll(class, "_", " "), ReadOnly: true,
		get: func(_ *Definition, name string) string { return name }}
}

func text[T any](a Attribute, at func(*T) *string) field[T] {
	if a.Kind == "" {
		a.Kind = KindText
	}
	check := func(string) error { return nil }
	switch a.Kind {
	case KindPath:
		check = func(v string) error {
			if !strings.HasPrefix(v, "/") {
				return fmt.Errorf("an absolute path is needed, as /opt/app/bin/start")
			}
			return nil
		}
	case KindAddress:
		check = func(v string) error {
			if _, err := netip.ParseAddr(v); err != nil {
				return fmt.Errorf("%q is not an IP address (as 10.1.1.10 or fd00::10, without a prefix length)", v)
			}
			return nil
		}
	}
	return field[T]{a, func(_ *Definition, o *T) string { return *at(o) }, func(_ *Definition, o *T, v string) error {
		if v != "" {
			if err := check(v); err != nil {
				return err
			}
		}
		*at(o) = v
		return nil
	}}
}

// enum binds one of a.Values, in any case. The text stored is what stored maps the canonical spelling to, where it does.
func enum[T any, S ~string](a Attribute, at func(*T) *S, stored map[string]string) field[T] {
	a.Kind = KindEnum
	return field[T]{a, func(_ *Definition, o *T) string {
		for shown, kept := range stored {
			if kept == string(*at(o)) {
				return shown
			}
		}
		return string(*at(o))
	}, func(_ *Definition, o *T, v string) error {
		if v == "" {
			*at(o) = ""
			return nil
		}
		for _, legal := range a.Values {
			if strings.EqualFold(v, legal) {
				if kept, ok := stored[legal]; ok {
					legal = kept
				}
				*at(o) = S(legal)
				return nil
			}
		}
		return fmt.Errorf("it must be one of %s%s", strings.Join(a.Values, ", "), DidYouMean(v, a.Values))
	}}
}

func boolean[T any](a Attribute, read func(*T) bool, write func(*T, bool)) field[T] {
	a.Kind, a.Values = KindBool, []string{"true", "false"}
	unset := strings.EqualFold(a.Default, "true")
	return field[T]{a, func(_ *Definition, o *T) string { return strconv.FormatBool(read(o)) }, func(_ *Definition, o *T, v string) error {
		if v == "" {
			write(o, unset)
			return nil
		}
		b, err := ParseBool(v)
		if err != nil {
			return err
		}
		write(o, b)
		return nil
	}}
}

func integer[T any](a Attribute, least, most int, at func(*T) *int) field[T] {
	a.Kind = KindInt
	return field[T]{a, func(_ *Definition, o *T) string {
		if *at(o) == 0 && (a.Default != "" || least > 0) {
			return ""
		}
		return strconv.Itoa(*at(o))
	}, func(_ *Definition, o *T, v string) error {
		if v == "" {
			*at(o) = 0
			return nil
		}
		n, err := parseInt(v, least, most)
		if err == nil {
			*at(o) = n
		}
		return err
	}}
}

func parseInt(v string, least, most int) (int, error) {
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%q is not a whole number from %d to %d", v, least, most)
	}
	return n, nil
}

// seconds binds a time. Zero is refused where it cannot be told from "not set".
func seconds[T any](a Attribute, at func(*T) *time.Duration) field[T] {
	a.Kind = KindSeconds
	return field[T]{a, func(_ *Definition, o *T) string {
		if *at(o) == 0 {
			return ""
		}
		return formatSeconds(*at(o))
	}, func(_ *Definition, o *T, v string) error {
		if v == "" {
			*at(o) = 0
			return nil
		}
		t, err := ParseSeconds(v)
		if err != nil {
			return err
		}
		if t == 0 && a.Default != "0" {
			return fmt.Errorf("it must be above 0 (nothing after the = sets the default)")
		}
		*at(o) = t
		return nil
	}}
}

// minutes binds a time that is told in minutes, as PowerHA does. A time that is no whole number of them is shown and taken with its
// unit, as 90s.
func minutes[T any](a Attribute, least, most int, at func(*T) *time.Duration) field[T] {
	a.Kind = KindInt
	return field[T]{a, func(_ *Definition, o *T) string {
		switch t := *at(o); {
		case t == 0:
			return ""
		case t%time.Minute == 0:
			return strconv.Itoa(int(t / time.Minute))
		default:
			return FormatDuration(t)
		}
	}, func(_ *Definition, o *T, v string) error {
		if v == "" {
			*at(o) = 0
			return nil
		}
		if t, err := time.ParseDuration(v); err == nil && t > 0 {
			*at(o) = t // its bounds are Validate's
			return nil
		}
		n, err := parseInt(v, least, most)
		if err == nil {
			*at(o) = time.Duration(n) * time.Minute
		}
		return err
	}}
}

func names[T any](a Attribute, at func(*T) *[]string) field[T] {
	if a.Kind == "" {
		a.Kind = KindNames
	}
	return field[T]{a, func(_ *Definition, o *T) string { return strings.Join(*at(o), ",") }, func(_ *Definition, o *T, v string) error {
		list := SplitList(v)
		for i, n := range list {
			if slices.Contains(list[:i], n) {
				return fmt.Errorf("%s is named twice", n)
			}
		}
		*at(o) = list
		return nil
	}}
}

// command binds a path with its arguments.
func command[T any](a Attribute, path func(*T) *string, args func(*T) *[]string) field[T] {
	a.Kind = KindCommand
	return field[T]{a, func(_ *Definition, o *T) string {
		if *path(o) == "" {
			return ""
		}
		return JoinCommand(append([]string{*path(o)}, *args(o)...))
	}, func(_ *Definition, o *T, v string) error {
		words, err := SplitCommand(v)
		if err != nil {
			return err
		}
		if len(words) == 0 {
			*path(o), *args(o) = "", nil
			return nil
		}
		if !strings.HasPrefix(words[0], "/") {
			return fmt.Errorf("an absolute path is needed, as /opt/app/bin/start")
		}
		*path(o), *args(o) = words[0], slices.Clip(words[1:])
		if len(words) == 1 {
			*args(o) = nil
		}
		return nil
	}}
}

func prefix[T any](a Attribute, at func(*T) *int) field[T] {
	a.Kind = KindText
	return field[T]{a, func(_ *Definition, o *T) string {
		if *at(o) == 0 {
			return ""
		}
		return strconv.Itoa(*at(o))
	}, func(_ *Definition, o *T, v string) error {
		if v == "" {
			*at(o) = 0
			return nil
		}
		n, err := parsePrefix(v)
		if err == nil {
			*at(o) = n
		}
		return err
	}}
}

// pairs binds a map, written name:value,name:value. Values that hide returns true for are shown as ***.
func pairs[T any](a Attribute, at func(*T) *map[string]string, hide func(key string) bool) field[T] {
	a.Kind = KindPairs
	return field[T]{a, func(_ *Definition, o *T) string {
		var out []string
		for _, k := range sortedKeys(*at(o)) {
			v := (*at(o))[k]
			if hide(k) {
				v = hidden
			}
			out = append(out, k+":"+v)
		}
		return strings.Join(out, ",")
	}, func(_ *Definition, o *T, v string) error {
		if v == "" {
			*at(o) = nil
			return nil
		}
		m := map[string]string{}
		for _, p := range SplitList(v) {
			k, x, ok := strings.Cut(p, ":")
			if !ok || k == "" || x == "" {
				return fmt.Errorf("%q is not of the form name:value", p)
			}
			if _, twice := m[k]; twice {
				return fmt.Errorf("%s is given twice", k)
			}
			if x == hidden {
				x = (*at(o))[k] // What a query printed may be given back.
			}
			m[k] = x
		}
		*at(o) = m
		return nil
	}}
}

const hidden = "***"

// Secret reports whether a parameter of a fence or resource agent is a secret, which is never printed.
func Secret(parameter string) bool {
	p := strings.ToLower(parameter)
	if strings.HasSuffix(p, "_script") {
		return false // The path of a script that prints the secret is none.
	}
	for _, s := range []string{"passw", "secret", "token", "snmp_priv", "api_key", "apikey", "community"} {
		if strings.Contains(p, s) {
			return true
		}
	}
	return strings.HasSuffix(p, "pass") || strings.HasSuffix(p, "pwd")
}

func notSecret(string) bool { return false }
