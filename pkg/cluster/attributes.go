package cluster

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// The table of classes and attributes, in PowerHA's words, is made here once. The parser of clmgr, its help, its completion,
// its queries and its manual pages are all made from it, so that none of them can know an attribute that another does not.

// What an operation on a class can refuse. Callers branch with errors.Is; the text names the class, the object, the
// attribute and what would be right.
var (
	ErrNotFound  = errors.New("not found")       // no such class, object or attribute value's target
	ErrExists    = errors.New("exists already")  // add of a name that is taken
	ErrMissing   = errors.New("missing input")   // a required attribute was not given
	ErrIncorrect = errors.New("incorrect input") // an attribute or a value that does not exist
	ErrInUse     = errors.New("in use")          // delete of an object to which others refer
)

// A Class is a kind of object that the administrator adds, queries, modifies and deletes.
type Class struct {
	Name    string
	Aliases []string
	Doc     string
	// Singleton classes have one object (the cluster itself); its name may be left out.
	Singleton bool
	// Derived classes have names that follow from their attributes (dependencies); add takes none.
	Derived    bool
	Attributes []Attribute

	names  func(d *Definition) []string
	create func(d *Definition, name string)
	remove func(d *Definition, name string)
	// addAll replaces create for classes of which one add makes several objects.
	addAll func(d *Definition, set []Assignment) error
	// rename is nil for classes whose objects cannot be renamed.
	rename func(d *Definition, from, to string)
	// settle runs on the object after its attributes were set, before defaults are filled.
	settle func(d *Definition, name string)
}

// Kind says what an attribute's value is, for completion and help.
type Kind string

// The kinds of values.
const (
	KindText    Kind = "text"
	KindName    Kind = "name"    // the name of one object of the class in Refers
	KindNames   Kind = "names"   // a list of names of that class, comma or space separated
	KindList    Kind = "list"    // a list of words
	KindEnum    Kind = "enum"    // one of Values
	KindBool    Kind = "bool"    // yes/no, true/false, enabled/disabled, on/off
	KindInt     Kind = "integer" // a whole number
	KindSeconds Kind = "seconds" // a plain number of seconds, or Go's form plus d: 500ms, 2m, 1d
	KindPath    Kind = "path"    // an absolute path
	KindCommand Kind = "command" // an absolute path and arguments, quoted as in the shell
	KindAddress Kind = "address" // an IP address, with a prefix length where the text says so
	KindPairs   Kind = "pairs"   // a list of name:value
)

// An Attribute is one ATTR=VALUE of a class.
type Attribute struct {
	Name    string
	Aliases []string
	Doc     string
	Kind    Kind
	// Default is what a query shows where nothing was set, and what ATTR= (an empty value) returns to. Empty: none.
	Default string
	// Values lists the legal values of an enumeration in canonical spelling.
	Values []string
	// Refers is the class whose objects the value names.
	Refers string
	// Required attributes must be given when an object is added.
	Required bool
	// Unless names the attribute that, when it is set, takes the place of this required one.
	Unless string
	// ReadOnly attributes can be queried only.
	ReadOnly bool

	// noDefault says of which objects Default is not true.
	noDefault func(d *Definition, name string) bool

	get func(d *Definition, name string) string
	set func(d *Definition, name, value string) error
}

// An Assignment is one ATTR=VALUE as it was typed.
type Assignment struct{ Attribute, Value string }

// Classes lists all classes, in the order in which a cluster is usually defined. The result is the caller's to keep; what it
// points to is shared and must not be changed.
func Classes() []Class {
	out := make([]Class, len(classTable))
	copy(out, classTable)
	return out
}

// FindClass finds a class by name, alias, or an unambiguous beginning of its name, in any case. The error names the
// candidates.
func FindClass(word string) (*Class, error) {
	w := strings.ToLower(word)
	var starts []*Class
	for i := range classTable {
		c := &classTable[i]
		if c.Name == w || contains(c.Aliases, w) {
			return c, nil
		}
		if w != "" && strings.HasPrefix(c.Name, w) {
			starts = append(starts, c)
		}
	}
	switch len(starts) {
	case 1:
		return starts[0], nil
	case 0:
		var all []string
		for _, c := range classTable {
			all = append(all, c.Name)
		}
		return nil, fmt.Errorf("no class %q%s: the classes are %s: %w", word, DidYouMean(w, all), strings.Join(all, ", "), ErrNotFound)
	}
	var could []string
	for _, c := range starts {
		could = append(could, c.Name)
	}
	return nil, fmt.Errorf("%q could be %s: write more of it: %w", word, strings.Join(could, " or "), ErrIncorrect)
}

// Attribute finds an attribute by name or alias in any case. Nil: the class has none such.
func (c *Class) Attribute(name string) *Attribute {
	n := strings.ToUpper(name)
	for i := range c.Attributes {
		a := &c.Attributes[i]
		if a.Name == n || contains(a.Aliases, n) {
			return a
		}
	}
	return nil
}

// Names lists the objects of the class in the order of the definition.
func (c *Class) Names(d *Definition) []string { return c.names(d) }

// Has reports whether the object exists.
func (c *Class) Has(d *Definition, name string) bool { return contains(c.names(d), name) }

// Get returns an attribute's value as a query shows it; where nothing is set, the default. Secrets are shown as "***".
func (c *Class) Get(d *Definition, name, attribute string) (string, error) {
	name, err := c.object(d, name)
	if err != nil {
		return "", err
	}
	a := c.Attribute(attribute)
	if a == nil {
		return "", c.noAttribute(attribute)
	}
	if v := a.get(d, name); v != "" {
		return v, nil
	}
	if a.noDefault != nil && a.noDefault(d, name) {
		return "", nil
	}
	return a.Default, nil
}

// Set sets one attribute of an object: Modify with one assignment.
func (c *Class) Set(d *Definition, name, attribute, value string) error {
	return c.Modify(d, name, []Assignment{{attribute, value}})
}

// Add makes a new object. Nothing is changed unless everything can be done; all that is wrong with the assignments is
// reported at once. Add checks values by themselves; relations between objects are Validate's.
func (c *Class) Add(d *Definition, name string, set []Assignment) error {
	work := d.Clone()
	if c.addAll != nil {
		if err := c.addAll(work, set); err != nil {
			return err
		}
		work.Defaults()
		*d = *work
		return nil
	}
	if err := CheckName(name); err != nil {
		return fmt.Errorf("add %s %q: %w: %w", c.Name, shortened(name), err, ErrIncorrect)
	}
	if c.Singleton && len(c.names(work)) > 0 {
		return fmt.Errorf("add %s %s: there is the %s %s already: %w", c.Name, name, c.Name, c.names(work)[0], ErrExists)
	}
	if c.Has(work, name) {
		return fmt.Errorf("add %s %s: there is one already: %w", c.Name, name, ErrExists)
	}
	c.create(work, name)
	var bad []error
	given := map[string]bool{}
	for _, s := range set {
		if a := c.Attribute(s.Attribute); a != nil {
			given[a.Name] = strings.TrimSpace(s.Value) != ""
		}
	}
	for _, a := range c.Attributes {
		if a.Required && !given[a.Name] && !given[a.Unless] && a.get(work, name) == "" {
			bad = append(bad, fmt.Errorf("add %s %s: %s is needed (%s): %w", c.Name, name, a.Name, a.Doc, ErrMissing))
		}
	}
	bad = append(bad, c.assign(work, name, set))
	if err := errors.Join(bad...); err != nil {
		return err
	}
	*d = *work
	return nil
}

// Modify sets attributes of an object. NAME=new renames it, and every reference to it follows. Nothing is changed unless
// everything can be done.
func (c *Class) Modify(d *Definition, name string, set []Assignment) error {
	name, err := c.object(d, name)
	if err != nil {
		return err
	}
	if c.Derived {
		return fmt.Errorf("modify %s %s: what it says is its name: delete it and add another: %w", c.Name, name, ErrIncorrect)
	}
	work := d.Clone()
	var rest []Assignment
	to := ""
	for _, s := range set {
		if strings.EqualFold(s.Attribute, "NAME") && c.rename != nil {
			to = strings.TrimSpace(s.Value)
			continue
		}
		rest = append(rest, s)
	}
	if err := c.assign(work, name, rest); err != nil {
		return err
	}
	if to != "" && to != name {
		if err := CheckName(to); err != nil {
			return fmt.Errorf("rename %s %s: NAME=%s: %w: %w", c.Name, name, shortened(to), err, ErrIncorrect)
		}
		if !c.Singleton && c.Has(work, to) {
			return fmt.Errorf("rename %s %s: there is a %s %s already: %w", c.Name, name, c.Name, to, ErrExists)
		}
		c.rename(work, name, to)
	}
	*d = *work
	return nil
}

// Delete removes an object. While others refer to it, it is refused with their names, unless force is set: then the
// references go too.
func (c *Class) Delete(d *Definition, name string, force bool) error {
	name, err := c.object(d, name)
	if err != nil {
		return err
	}
	users := d.Users(c.Name, name)
	if len(users) > 0 && !force {
		return fmt.Errorf("delete %s %s: it is used by %s: %w", c.Name, name, strings.Join(users, ", "), ErrInUse)
	}
	work := d.Clone()
	work.forget(c.Name, name)
	c.remove(work, name)
	*d = *work
	return nil
}

// assign sets attributes in the table's order, so that the result does not depend on the order in which they were typed.
func (c *Class) assign(d *Definition, name string, set []Assignment) error {
	var bad []error
	seen := map[string]bool{}
	values := map[string]string{}
	for _, s := range set {
		a := c.Attribute(s.Attribute)
		switch {
		case a == nil:
			bad = append(bad, c.noAttribute(s.Attribute))
		case a.ReadOnly:
			bad = append(bad, fmt.Errorf("%s %s: %s cannot be set: %w", c.Name, name, a.Name, ErrIncorrect))
		case seen[a.Name]:
			bad = append(bad, fmt.Errorf("%s %s: %s is given twice: %w", c.Name, name, a.Name, ErrIncorrect))
		default:
			seen[a.Name] = true
			values[a.Name] = strings.TrimSpace(s.Value)
		}
	}
	if c.settle != nil {
		c.settle(d, name)
	}
	for i := range c.Attributes {
		a := &c.Attributes[i]
		if !seen[a.Name] {
			continue
		}
		v := values[a.Name]
		if v == "" && a.Required && (a.Unless == "" || values[a.Unless] == "" && c.Attribute(a.Unless).get(d, name) == "") {
			bad = append(bad, fmt.Errorf("%s %s: %s cannot be empty: %w", c.Name, name, a.Name, ErrMissing))
			continue
		}
		err := a.checkText(v)
		if err == nil {
			err = a.set(d, name, v)
		}
		if err == nil {
			err = a.checkKept(a.get(d, name))
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("%s %s: %s=%s: %w: %w", c.Name, name, a.Name, shortened(v), bounded(err), ErrIncorrect))
		}
	}
	d.Defaults()
	return errors.Join(bad...)
}

// object resolves the name, which may be left out for a singleton, and reports one that does not exist.
func (c *Class) object(d *Definition, name string) (string, error) {
	names := c.names(d)
	if c.Singleton && len(names) == 1 && (name == "" || name == names[0]) {
		return names[0], nil
	}
	if contains(names, name) {
		return name, nil
	}
	if len(names) == 0 {
		return "", fmt.Errorf("no %s %q: none is defined: %w", c.Name, shortened(name), ErrNotFound)
	}
	return "", fmt.Errorf("no %s %q%s: there are %s: %w", c.Name, shortened(name), DidYouMean(name, names), strings.Join(names, ", "), ErrNotFound)
}

func (c *Class) noAttribute(name string) error {
	n := strings.ToUpper(name)
	if f := FindForeign(n, c.Name); f != nil {
		return fmt.Errorf("%s: %s: %w", c.Name, f.Refusal(""), ErrIncorrect)
	}
	var all []string
	for _, a := range c.Attributes {
		all = append(all, a.Name)
	}
	return fmt.Errorf("%s has no attribute %s%s: it has %s: %w", c.Name, n, DidYouMean(n, all), strings.Join(all, ", "), ErrIncorrect)
}

// DidYouMean returns ` (did you mean "x"?)` for the nearest candidate that is near enough to be a slip of the finger, else "".
func DidYouMean(word string, candidates []string) string {
	if n := Nearest(word, candidates); n != "" {
		return fmt.Sprintf(" (did you mean %q?)", n)
	}
	return ""
}

// Nearest returns the candidate with the least edit distance to word, in any case, if at most a third of it differs; else "".
func Nearest(word string, candidates []string) string {
	if len(word) > 128 {
		return ""
	}
	best, bestAt := "", 1+(len(word)+1)/3
	sorted := append([]string(nil), candidates...)
	sort.Strings(sorted)
	for _, c := range sorted {
		if len(c) > 128 || c == "" {
			continue
		}
		if n := distance(strings.ToLower(word), strings.ToLower(c)); n < bestAt {
			best, bestAt = c, n
		}
	}
	return best
}

// distance counts the insertions, deletions, exchanges and swaps of neighbours that make b of a.
func distance(a, b string) int {
	var before []int
	last := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

func contains(list []string, s string) bool {
	return slices.Contains(list, s)
}
