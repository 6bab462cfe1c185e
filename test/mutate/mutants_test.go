package main

import (
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

const example = `package p

func f(a, b int, list []int) (int, error) {
	n := 0
	for i := 0; i < len(list); i++ {
		if list[i] > a && b != 0 {
			n += list[i] * b
			continue
		}
		log("seen", true)
	}
	if n < 0 {
		panic("n is negative")
	}
	return n, nil
}

func g(a bool) bool { return a && !false || a }

func z() error { return nil }
`

// Each kind of mistake is made, each result is a Go file, and texts, panics and functions that do nothing are left alone.
func TestMutants(t *testing.T) {
	list, err := inFile("p.go", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	made := map[string]int{}
	for _, m := range list {
		made[m.Operator]++
		text := m.Apply([]byte(example))
		if _, err := parser.ParseFile(token.NewFileSet(), "p.go", text, 0); err != nil {
			t.Errorf("%s: %v\n%s", m, err, text)
		}
		if string(text) == example {
			t.Errorf("%s changes nothing", m)
		}
		if strings.Contains(m.What, "panic(") || strings.HasPrefix(m.What, "z returns") {
			t.Errorf("%s is no mistake to look for", m)
		}
	}
	for _, o := range operators {
		if made[o] == 0 {
			t.Errorf("no mistake of the kind %q is made: %v", o, made)
		}
	}
	for kind := range made {
		if !slices.Contains(operators, kind) {
			t.Errorf("the kind %q is not listed", kind)
		}
	}
	again := slices.Clone(list)
	sample(list, 7)
	sample(again, 7)
	if !slices.Equal(list, again) {
		t.Error("a seed gives two samples")
	}
}

// Each entry of the mistakes that change nothing is still about a line of the code.
func TestEquivalentsAreThere(t *testing.T) {
	t.Chdir("../..")
	var all []Mutant
	for _, pkg := range []string{"pkg/scheduler", "pkg/state"} {
		list, err := Mutants(pkg)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list...)
	}
	for _, e := range equivalents {
		if !slices.ContainsFunc(all, e.is) {
			t.Errorf("no line is like %s", e.place)
		}
	}
	if !slices.ContainsFunc(all, func(m Mutant) bool { return changesNothing(m) == "" }) {
		t.Error("every mistake is said to change nothing")
	}
}
