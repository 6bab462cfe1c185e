package cli

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/client"
	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// completeWord is the first argument by which the shells' scripts ask for completions: clmgr __complete WORD... CURRENT, or, for a
// tool, clmgr __complete @TOOL WORD... CURRENT.
const completeWord = "__complete"

// fileMark stands for the names of files, which the shell knows better.
const fileMark = ":files"

// completionPatience is how long a completion may wait for the names of objects; then there are none.
const completionPatience = time.Second

//go:embed all:completion
var completionFiles embed.FS

var completionScripts = map[string]string{"bash": "clmgr.bash", "zsh": "_clmgr", "ksh": "clmgr.ksh"}

// completionScript prints the script of a shell.
func completionScript(_ context.Context, s *session, t *target) error {
	shell := strings.ToLower(t.name())
	file, ok := completionScripts[shell]
	if !ok {
		return fail(ExitIncorrect, "completion: %q is not one of %s%s", t.name(), strings.Join(sortedKeys(completionScripts), ", "),
			cluster.DidYouMean(shell, sortedKeys(completionScripts)))
	}
	text, err := fs.ReadFile(completionFiles, "completion/"+file)
	if err != nil {
		return fmt.Errorf("completion: %w", err)
	}
	_, err = s.out.Write(text)
	return err
}

// complete answers a shell: one candidate on a line. It never fails, because there is nobody to tell.
func complete(ctx context.Context, env Env, args []string) int {
	s := newSession(env, &command{})
	defer s.client.Close()
	c := &completion{client: s.client}
	ctx, cancel := context.WithTimeout(ctx, completionPatience)
	defer cancel()
	c.ctx = ctx
	for _, w := range c.words(args) {
		fmt.Fprintln(s.out, printable(w))
	}
	return ExitOK
}

// A completion is one question of a shell.
type completion struct {
	ctx    context.Context // ends with the call; the object lives no longer
	client *client.Client
	def    *cluster.Definition
	asked  bool
}

// words are the candidates for the last of the arguments.
func (c *completion) words(args []string) []string {
	if len(args) == 0 {
		return nil
	}
	cur := args[len(args)-1]
	if strings.HasPrefix(args[0], "@") && len(args) > 1 {
		return c.toolWords(strings.ToLower(args[0][1:]), args[1:len(args)-1], cur)
	}
	p := &parser{c: &command{delim: ":", options: map[string]string{}}, rest: args[:len(args)-1]}
	var open string // an option that waits for its value
	for len(p.rest) > 0 {
		open = c.step(p)
	}
	return beginning(c.candidates(p.c, open, cur), cur)
}

// step takes one word of what is there already, and returns the option whose value is being typed.
func (c *completion) step(p *parser) string {
	arg := p.take()
	switch {
	case strings.HasPrefix(arg, "--"):
		if slices.Contains([]string{"timeout", "socket", "output", "file"}, arg[2:]) {
			if len(p.rest) == 0 {
				return arg
			}
			p.take()
		}
	case len(arg) > 1 && arg[0] == '-':
		last := arg[len(arg)-1:]
		if strings.Contains(optionsWithValue, last) || last == "f" && p.fileAction() {
			if len(p.rest) == 0 {
				return "-" + last
			}
			p.c.options[last] = p.take()
		}
	default:
		p.word(arg)
	}
	return ""
}

// beginning keeps those that begin with what is typed.
func beginning(list []string, cur string) []string {
	var out []string
	for _, w := range list {
		if w == fileMark || len(w) >= len(cur) && strings.EqualFold(w[:len(cur)], cur) {
			out = append(out, w)
		}
	}
	return out
}

func (c *completion) candidates(cmd *command, open, cur string) []string {
	var act *action
	var t *target
	words := cmd.words
	help := len(words) > 0 && isHelp(words[0])
	if help {
		words = words[1:]
	}
	if len(words) > 0 {
		act, _ = findAction(words[0])
	}
	if act != nil && act.bare != nil {
		t = &target{action: act, operation: act.bare}
	} else if act != nil && len(words) > 1 {
		t = &target{action: act}
		if t.find(act, words[1]) != nil {
			t = nil
		}
	}
	switch {
	case open != "":
		return c.optionValues(t, open, cur)
	case strings.HasPrefix(cur, "-"):
		return optionWords(t)
	case len(words) == 0:
		var out []string
		for i := range actionTable {
			out = append(out, actionTable[i].name)
		}
		if help {
			return append(out, "status", "checks")
		}
		return append(out, "help")
	case act == nil:
		return nil
	case act.bare == nil && len(words) == 1:
		return act.classNames()
	case t == nil:
		return nil
	case help:
		return c.attributes(t, false)
	}
	if name, value, ok := strings.Cut(cur, "="); ok {
		return c.values(t, name, value)
	}
	have := len(words) - 2
	if act.bare != nil {
		have++
	}
	var out []string
	if takesMore(t.operation.names, have) {
		out = c.names(t, cur)
	}
	return append(out, c.attributes(t, true)...)
}

func takesMore(a arity, have int) bool {
	switch a {
	case namesNone:
		return false
	case namesUpToTwo:
		return have < 2
	case namesAll:
		return true
	}
	return have < 1
}

// names are what stands after the class: objects that exist, except where one is made.
func (c *completion) names(t *target, cur string) []string {
	switch {
	case t.action.name == "completion":
		return sortedKeys(completionScripts)
	case t.action.name == "explain":
		return append(c.objects("resource_group"), c.objects("node")...)
	case t.action.name == "simulate":
		return []string{fileMark}
	case t.action.name == "view" && t.operation.class == "log":
		var out []string
		for _, l := range logs {
			out = append(out, l.name)
		}
		return out
	case t.operation.class == "node_down" || t.operation.class == "token":
		return c.objects("node")
	case t.operation.class == "priority":
		return c.list(cur, c.objects("resource_group"))
	case t.operation.class == "snapshot" && t.action.name != "add":
		return c.list(cur, c.snapshots())
	case t.action.name == "add" || t.class == nil:
		return nil
	}
	return c.list(cur, c.objects(t.class.Name))
}

// list offers the next name of a list: what is typed before the last comma stays.
func (c *completion) list(cur string, names []string) []string {
	i := strings.LastIndex(cur, ",")
	if i < 0 {
		return names
	}
	var out []string
	taken := strings.Split(cur[:i], ",")
	for _, n := range names {
		if !slices.Contains(taken, n) {
			out = append(out, cur[:i+1]+n)
		}
	}
	return out
}

// attributes are the names that the operation takes.
func (c *completion) attributes(t *target, equals bool) []string {
	sign := ""
	if equals {
		sign = "="
	}
	var out []string
	for _, a := range t.operation.attrs {
		out = append(out, a.name+sign)
	}
	if t.class == nil || !t.setsAttributes() {
		return out
	}
	for _, a := range t.class.Attributes {
		if !a.ReadOnly || t.action.name == "query" {
			out = append(out, a.Name+sign)
		}
	}
	if t.action.name == "query" {
		for _, l := range liveAttributes[t.class.Name] {
			out = append(out, l.name+sign)
		}
	}
	return out
}

// values are the values that an attribute can have, with its name before them.
func (c *completion) values(t *target, name, value string) []string {
	var list []string
	switch a := t.classAttribute(name); {
	case a != nil && a.Kind == cluster.KindBool:
		list = []string{"yes", "no", "true", "false"}
	case a != nil && len(a.Values) > 0:
		list = a.Values
	case a != nil && a.Refers != "" && a.Kind == cluster.KindNames:
		list = c.list(value, c.objects(a.Refers))
	case a != nil && a.Refers != "" && a.Kind == cluster.KindName:
		list = c.objects(a.Refers)
	case a != nil && (a.Kind == cluster.KindPath || a.Kind == cluster.KindCommand):
		return []string{fileMark}
	case a == nil:
		for _, x := range t.operation.attrs {
			if strings.EqualFold(x.name, name) {
				list = c.argumentValues(x, value)
			}
		}
	}
	var out []string
	for _, v := range list {
		if v == fileMark {
			return []string{fileMark}
		}
		out = append(out, name+"="+v)
	}
	return out
}

func (t *target) classAttribute(name string) *cluster.Attribute {
	if t.class == nil || !t.setsAttributes() {
		return nil
	}
	return t.class.Attribute(name)
}

// argumentValues reads what the table says of an argument: words with | between them, or what kind of thing it is.
func (c *completion) argumentValues(a argument, value string) []string {
	switch a.values {
	case "node":
		return c.objects("node")
	case "node[,node]":
		return c.list(value, c.objects("node"))
	case "RG[,RG]":
		return c.list(value, c.objects("resource_group"))
	case "group":
		return c.objects("resource_group")
	case "name[,name]":
		return c.list(value, c.objects("method"))
	case "path", "FILE":
		return []string{fileMark}
	case "yes":
		return []string{"yes"}
	}
	if strings.Contains(a.values, "|") {
		return strings.Split(a.values, "|")
	}
	return nil
}

func (c *completion) optionValues(t *target, open, cur string) []string {
	if t != nil && len(open) == 2 {
		for _, o := range t.operation.options {
			if o.name == open[1:] {
				out := c.argumentValues(o, cur)
				if open == "-o" {
					out = append(out, outputForms...)
				}
				return out
			}
		}
	}
	switch open {
	case "-o", "--output":
		return outputForms
	case "-l":
		return levels
	case "-a":
		if t == nil || t.class == nil {
			return nil
		}
		return c.list(cur, attributeNames(t.class))
	case "--socket", "--file":
		return []string{fileMark}
	}
	return nil
}

func optionWords(t *target) []string {
	out := []string{"-h"}
	for _, r := range "acdfloSTvxDM" {
		out = append(out, "-"+string(r))
	}
	if t != nil {
		for _, o := range t.operation.options {
			if w := "-" + o.name; !slices.Contains(out, w) {
				out = append(out, w)
			}
		}
	}
	for _, l := range longOptions {
		out = append(out, "--"+l)
	}
	return out
}

// objects are the names of the objects of a class, as far as the daemon answers in time.
func (c *completion) objects(class string) []string {
	if !c.asked {
		c.asked = true
		if text, err := c.client.Staged(c.ctx); err == nil {
			if d, faults := decode("the definition", []byte(text.YAML)); len(faults) == 0 {
				c.def = d
			}
		}
	}
	k := classNamed(class)
	if c.def == nil || k == nil {
		return nil
	}
	return k.Names(c.def)
}

func (c *completion) snapshots() []string {
	list, err := c.client.Snapshots(c.ctx)
	if err != nil {
		return nil
	}
	return snapshotNames(list)
}

// toolWords are for the tools by other names: their options, and groups or nodes.
func (c *completion) toolWords(name string, before []string, cur string) []string {
	x, ok := tools[name]
	if !ok {
		return nil
	}
	if len(before) > 0 && len(before[len(before)-1]) == 2 && before[len(before)-1][0] == '-' {
		letter := before[len(before)-1][1:]
		if i := strings.Index(x.flags, letter); i >= 0 && strings.HasPrefix(x.flags[i+1:], ":") {
			return beginning(c.flagValues(x.flagValue(letter), cur), cur)
		}
	}
	if strings.HasPrefix(cur, "-") {
		var out []string
		for _, r := range x.flags {
			if r != ':' {
				out = append(out, "-"+string(r))
			}
		}
		return beginning(out, cur)
	}
	if x.names == "" {
		return nil
	}
	return beginning(c.objects(x.names), cur)
}

func (c *completion) flagValues(kind, cur string) []string {
	return c.argumentValues(argument{values: kind}, cur)
}
