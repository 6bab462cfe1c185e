package cli

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// A form is how a query prints.
type form int

const (
	formText  form = iota // ATTR="VALUE" lines
	formColon             // -c, -d X
	formXML               // -x
	formJSON              // -o json, and -o yaml
)

// A command is one parsed command line: {options} ACTION [CLASS] [NAME] [ATTR=VALUE ...].
type command struct {
	form     form
	delim    string
	noHeader bool
	yaml     bool // the form is JSON's, and is written as YAML at the end
	verbose  bool
	force    bool
	help     bool
	version  bool
	attrs    []string // -a
	level    string   // -l
	trace    string   // -T
	socket   string
	timeout  *time.Duration
	noWait   bool
	stage    bool     // the change waits for a sync
	yes      bool     // go on without asking
	planOnly bool     // show and do nothing
	many     []string // -M: one operation per line
	options  map[string]string

	words []string // ACTION, CLASS, NAME, ...
	set   []cluster.Assignment
}

// optionsWithValue take the next word. Those that only some actions have (-g, -m, -n, -p, and -f as a file, -o as a placement) end
// up in command.options; the action says which it knows.
var optionsWithValue = "adglmnopTM"

// fileActions are the actions whose -f names a file; so does that of a break-glass command. Everywhere else it means force.
var fileActions = []string{"diff", "apply"}

var assignment = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_]*)=((?s).*)$`)

// parse reads a command line. It knows the options, and not which classes and attributes exist.
func parse(args []string) (*command, error) {
	c := &command{delim: ":", options: map[string]string{}}
	p := &parser{c: c, rest: args}
	for len(p.rest) > 0 {
		arg := p.take()
		var err error
		switch {
		case p.literal:
			p.word(arg)
		case arg == "--":
			p.literal = true
		case strings.HasPrefix(arg, "--"):
			err = p.long(arg[2:])
		case len(arg) > 1 && arg[0] == '-' && !negativeNumber(arg):
			err = p.short(arg[1:])
		default:
			p.word(arg)
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

func negativeNumber(s string) bool {
	_, err := strconv.Atoi(s)
	return err == nil
}

type parser struct {
	c       *command
	rest    []string
	literal bool // after "--"
}

func (p *parser) take() string {
	a := p.rest[0]
	p.rest = p.rest[1:]
	return a
}

// word is an action, class or name, or, from the third word on, an assignment: `clmgr add cluster A=B` has no name, and a name
// has no '='.
func (p *parser) word(arg string) {
	if m := assignment.FindStringSubmatch(arg); m != nil && len(p.c.words) > 0 && !p.literal {
		p.c.set = append(p.c.set, cluster.Assignment{Attribute: m[1], Value: m[2]})
		return
	}
	p.c.words = append(p.c.words, arg)
}

// short reads a group of one-letter options, the last of which may take a value: -cSa STATE, -d, or -aSTATE.
func (p *parser) short(letters string) error {
	for i, r := range letters {
		l := string(r)
		if !strings.Contains(optionsWithValue, l) && (r != 'f' || !p.fileAction()) {
			if err := p.flag(r); err != nil {
				return err
			}
			continue
		}
		value := letters[i+len(l):]
		if value == "" {
			if len(p.rest) == 0 {
				return fail(ExitMissing, "option -%s needs a value", l)
			}
			value = p.take()
		}
		return p.valued(r, value)
	}
	return nil
}

func (p *parser) fileAction() bool {
	if _, glass := p.c.options[breakGlass]; glass || slices.Contains(p.rest, "-"+breakGlass) {
		return true
	}
	if len(p.c.words) == 0 {
		return false
	}
	for _, a := range fileActions {
		if strings.EqualFold(p.c.words[0], a) {
			return true
		}
	}
	return false
}

func (p *parser) flag(r rune) error {
	c := p.c
	switch r {
	case 'c':
		c.form = formColon
	case 'S':
		c.noHeader = true
	case 'x':
		c.form = formXML
	case 'v':
		c.verbose = true
	case 'f':
		c.force = true
	case 'D': // nothing is added by itself, so there is nothing to switch off
	case 'h', '?':
		c.help = true
	default:
		return fail(ExitNotFound, "there is no option -%c; see: clmgr help", r)
	}
	return nil
}

func (p *parser) valued(r rune, v string) error {
	c := p.c
	switch r {
	case 'a':
		c.attrs = append(c.attrs, cluster.SplitList(v)...)
	case 'd':
		if v == "" {
			return fail(ExitMissing, "option -d needs a delimiter")
		}
		c.form, c.delim = formColon, v
	case 'l':
		return c.setLevel(v)
	case 'T':
		if strings.ContainsAny(v, "\r\n") || len(v) > 64 {
			return fail(ExitIncorrect, "option -T: a transaction id has up to 64 characters on one line")
		}
		c.trace = v
	case 'M':
		c.many = append(c.many, strings.Split(v, "\n")...)
	case 'o':
		return c.setOutput(v)
	default:
		return c.option(string(r), v)
	}
	return nil
}

// option keeps an option that only some actions have.
func (c *command) option(letter, v string) error {
	if _, twice := c.options[letter]; twice {
		return fail(ExitIncorrect, "option -%s is given twice", letter)
	}
	c.options[letter] = v
	return nil
}

// setOutput takes -o: an output form, or whatever else the action understands (start cluster -o home).
func (c *command) setOutput(v string) error {
	switch strings.ToLower(v) {
	case "json", "json/1":
		c.form, c.yaml = formJSON, false
	case "yaml", "yaml/1":
		c.form, c.yaml = formJSON, true
	case "text":
		c.form = formText
	case "xml":
		c.form = formXML
	default:
		for _, f := range []string{"json/", "yaml/"} {
			if strings.HasPrefix(strings.ToLower(v), f) {
				return fail(ExitIncorrect, "option -o: this clmgr writes form 1 (%s1) and not %q", f, v)
			}
		}
		return c.option("o", v)
	}
	return nil
}

// outputForms are what -o takes for the output, in every action.
var outputForms = []string{"json", "yaml", "text", "xml"}

// levels are what -l takes. What each does is in record.
var levels = []string{"error", "standard", "low", "med", "high", "max"}

func (c *command) setLevel(v string) error {
	if l := strings.ToLower(v); hasWord(levels, l) {
		c.level = l
		return nil
	}
	return fail(ExitIncorrect, "option -l: %q is not one of %s", v, strings.Join(levels, ", "))
}

func (p *parser) long(s string) error {
	name, value, has := strings.Cut(s, "=")
	need := func() (string, error) {
		if has {
			return value, nil
		}
		if len(p.rest) == 0 {
			return "", fail(ExitMissing, "option --%s needs a value", name)
		}
		return p.take(), nil
	}
	if flagOnly[name] && has {
		return fail(ExitIncorrect, "option --%s takes no value", name)
	}
	c := p.c
	switch name {
	case "help":
		c.help = true
	case "version":
		c.version = true
	case "force":
		c.force = true
	case "no-wait":
		c.noWait = true
	case "verbose":
		c.verbose = true
	case "timeout":
		v, err := need()
		if err != nil {
			return err
		}
		return c.setTimeout(v, "option --timeout")
	case "socket":
		v, err := need()
		c.socket = v
		return err
	case "output":
		v, err := need()
		if err != nil {
			return err
		}
		return c.setOutput(v)
	case "file":
		v, err := need()
		if err != nil {
			return err
		}
		return c.option("f", v)
	case "stage":
		c.stage = true
	case "yes":
		c.yes = true
	case "plan":
		c.planOnly = true
	case "live":
		return c.option("live", "yes")
	case breakGlass[1:]:
		return c.option(breakGlass, "yes")
	default:
		return fail(ExitNotFound, "there is no option --%s%s; see: clmgr help", name, cluster.DidYouMean(name, longOptions))
	}
	return nil
}

var flagOnly = map[string]bool{"help": true, "version": true, "force": true, "no-wait": true, "verbose": true, "live": true, "stage": true, "yes": true, "plan": true, breakGlass[1:]: true}

var longOptions = []string{"help", "version", "force", "no-wait", "verbose", "live", "stage", "yes", "plan", "timeout", "socket", "output", "file"}

func (c *command) setTimeout(v, what string) error {
	d, err := cluster.ParseSeconds(v)
	if err != nil || d < 0 {
		return fail(ExitIncorrect, "%s: %q is not a time (a number of seconds, or as 90s, 2m; 0 waits as long as it takes)", what, v)
	}
	c.timeout = &d
	return nil
}

// take removes an assignment from the command and returns its value.
func (c *command) take(attr string) (string, bool) {
	for i, s := range c.set {
		if strings.EqualFold(s.Attribute, attr) {
			c.set = append(c.set[:i:i], c.set[i+1:]...)
			return s.Value, true
		}
	}
	return "", false
}
