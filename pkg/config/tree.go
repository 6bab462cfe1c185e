package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a file. The YAML library's cost grows with the square of some of them (keys of one mapping, documents), and its
// recursion with the nesting, so they are checked before it is called.
const (
	MaxFile    = 1 << 20 // bytes
	maxTokens  = 100_000 // words and marks; a thousand resource groups have a fifth of it
	maxDepth   = 48
	maxKeys    = 1_500  // of one mapping, or entries of a list in brackets
	maxExpands = 10_000 // values that aliases stand for
)

// kind is what a node of the tree is.
type kind int

const (
	nullNode kind = iota
	scalarNode
	mappingNode
	sequenceNode
)

func (k kind) String() string {
	return [...]string{"nothing", "a single value", "a mapping", "a list"}[k]
}

// A node is a value of the file with its place. Aliases are resolved: two places may share one node.
type node struct {
	kind   kind
	at     place
	text   string // of a scalar
	plain  bool   // a scalar without quotes
	boolt  bool   // a plain true or false
	fields []field
	items  []*node
	size   int // values in it, itself included
}

// A field is one key of a mapping.
type field struct {
	key   string
	at    place // of the key
	value *node
}

// read turns a file into a tree. Nil: the faults say why. Even then it may return what could be read of the other top-level
// keys, so that their faults are reported too; whole says that nothing is missing.
func read(r *report, data []byte) (root *node, whole bool) {
	text, ok := screen(r, data)
	if !ok {
		return nil, false
	}
	// A syntax error hides everything after it. The top-level key in which it stands is taken out, and the rest read again.
	whole = true
	for range 8 {
		root, bad := parse(text)
		if bad == nil {
			return root, whole
		}
		r.add(bad.at, "", "%s", bad.text)
		whole = false
		if bad.fatal {
			return nil, false
		}
		rest, ok := without(text, bad.at.line)
		if !ok {
			return nil, false
		}
		text = rest
	}
	return nil, false
}

// screen checks what can be checked of the bytes: size, encoding, one document.
func screen(r *report, data []byte) (string, bool) {
	if len(data) > MaxFile {
		r.add(place{}, "", "the file has %d bytes: at most %d (1 MiB) are read", len(data), MaxFile)
		return "", false
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		r.add(place{1, 1}, "", "the file is in UTF-16: save it as UTF-8")
		return "", false
	}
	data = bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	text := string(data)
	line, marks := 1, 0
	begun, ended := false, false // a document has begun; has been ended
	for l := range strings.SplitSeq(text, "\n") {
		for i, c := range l {
			if strings.ContainsRune(",:[]{}-?&*!|>'\"%@#", c) {
				marks++
			}
			if c == utf8.RuneError || c < 0x20 && c != '\t' || c == 0x7f || c == 0xfeff {
				r.add(place{line, utf8.RuneCountInString(l[:i]) + 1}, "", "the file is not text (byte 0x%02x): a file in UTF-8 is needed", l[i])
				return "", false
			}
		}
		marker := l == "---" || strings.HasPrefix(l, "--- ") || strings.HasPrefix(l, "---\t")
		content := strings.TrimSpace(l) != "" && !strings.HasPrefix(strings.TrimSpace(l), "#")
		switch {
		case marker && begun || ended && content:
			r.add(place{line, 1}, "", "a second document begins here: one file holds one document")
			return "", false
		case l == "..." || strings.HasPrefix(l, "... "):
			ended = true
		case content && !strings.HasPrefix(l, "%"):
			begun = true
		}
		// A ruler in a comment is one mark.
		if strings.HasPrefix(strings.TrimSpace(l), "#") {
			marks -= strings.Count(l, "-") + strings.Count(l, "#") - 1
		}
		if marks > maxTokens {
			r.add(place{line, 1}, "", tooMany, maxTokens)
			return "", false
		}
		line++
	}
	return text, true
}

const tooMany = "the file has more than %d words and marks by here"

// A syntaxFault is where and why the text is not YAML that we read.
type syntaxFault struct {
	at    place
	text  string
	fatal bool // nothing else of the file can be read
}

// parse calls the library, within limits. A panic in it is a fault of the file for us.
func parse(text string) (root *node, bad *syntaxFault) {
	defer func() {
		if p := recover(); p != nil {
			root, bad = nil, &syntaxFault{place{1, 1}, fmt.Sprintf("the file cannot be read as YAML (%v)", p), true}
		}
	}()
	tokens := lexer.Tokenize(text)
	if bad := limits(tokens); bad != nil {
		return nil, bad
	}
	f, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, explain(err, tokens)
	}
	b := builder{anchors: map[string]*node{}}
	for _, d := range f.Docs {
		if d.Body != nil && d.Body.Type() != ast.DirectiveType {
			root = b.node(d.Body, 0)
		}
	}
	if b.bad != nil {
		return nil, b.bad
	}
	if root == nil {
		root = &node{kind: nullNode, at: place{1, 1}}
	}
	return root, nil
}

// limits refuses what would be slow, or deep, and what no configuration needs.
func limits(tokens token.Tokens) *syntaxFault {
	if len(tokens) > maxTokens {
		return &syntaxFault{spot(tokens[maxTokens]), fmt.Sprintf(tooMany, maxTokens), true}
	}
	type level struct{ column, keys int }
	var levels []level
	var flow []int // entries of the brackets that are open
	empty := 0
	for _, t := range tokens {
		at := spot(t)
		if t.Type == token.SequenceEntryType && t.Next != nil && t.Next.Type == token.SequenceEntryType && spot(t.Next).column <= at.column {
			if empty++; empty > maxKeys {
				return &syntaxFault{at, fmt.Sprintf("there are more than %d empty entries", maxKeys), true}
			}
		}
		switch t.Type {
		case token.TagType:
			return &syntaxFault{at, fmt.Sprintf("the tag %s is not needed: leave it out", t.Value), false}
		case token.MappingKeyType:
			return &syntaxFault{at, "a key behind a question mark is not needed: write key: value", false}
		case token.SequenceStartType, token.MappingStartType:
			flow = append(flow, 0)
		case token.SequenceEndType, token.MappingEndType:
			flow = flow[:max(0, len(flow)-1)]
		case token.CollectEntryType:
			if n := len(flow) - 1; n >= 0 {
				if flow[n]++; flow[n] > maxKeys {
					return &syntaxFault{at, fmt.Sprintf("there are more than %d entries between one pair of brackets", maxKeys), true}
				}
			}
		}
		if len(flow) > 0 {
			if len(flow)+len(levels) > maxDepth {
				return &syntaxFault{at, fmt.Sprintf("the file is nested more than %d levels deep", maxDepth), true}
			}
			continue
		}
		column := at.column
		isKey := t.Type == token.MappingValueType && t.Prev != nil
		if isKey {
			column = spot(t.Prev).column
		} else if t.Type != token.SequenceEntryType {
			continue
		}
		for len(levels) > 0 && (levels[len(levels)-1].column > column || !isKey && levels[len(levels)-1].column == column && levels[len(levels)-1].keys == 0) {
			levels = levels[:len(levels)-1]
		}
		if len(levels) == 0 || levels[len(levels)-1].column < column || !isKey {
			levels = append(levels, level{column: column})
		}
		if isKey {
			levels[len(levels)-1].keys++
		}
		if top := levels[len(levels)-1]; top.keys > maxKeys {
			return &syntaxFault{at, fmt.Sprintf("one mapping has more than %d keys", maxKeys), true}
		}
		if len(levels) > maxDepth {
			return &syntaxFault{at, fmt.Sprintf("the file is nested more than %d levels deep", maxDepth), true}
		}
	}
	return nil
}

func spot(t *token.Token) place {
	if t == nil || t.Position == nil {
		return place{1, 1}
	}
	return place{max(1, t.Position.Line), max(1, t.Position.Column)}
}

// explain puts the library's words for a syntax error into ours.
func explain(err error, tokens token.Tokens) *syntaxFault {
	at, text := place{1, 1}, err.Error()
	if e, ok := errors.AsType[yaml.Error](err); ok {
		at, text = spot(e.GetToken()), e.GetMessage()
		// What is not closed is noticed only where the next thing begins.
		if open := openBefore(tokens, e.GetToken()); open != nil && spot(open).line < at.line && strings.Contains(text, "must be specified") {
			end := map[string]string{"[": "]", "{": "}"}[open.Value]
			return &syntaxFault{spot(open), fmt.Sprintf("what begins here has no %s, or a comma is missing before line %d", end, at.line), false}
		}
	}
	for _, w := range []struct{ theirs, ours string }{
		{`found character '	'`, "a tab cannot indent: use spaces"},
		{"found a tab character", "a tab cannot indent: use spaces"},
		{"sequence end token ']' not found", "the list that begins here has no ]"},
		{"could not find flow mapping end token '}'", "the mapping that begins here has no }"},
		{"could not find end character of double-quoted text", `the text has no closing "`},
		{"could not find end character of single-quoted text", "the text has no closing '"},
		{"',' or ']' must be specified", "a comma or ] is missing"},
		{"',' or '}' must be specified", "a comma or } is missing"},
		{"value is not allowed in this context", "a value cannot stand here: look at the indentation, and for a missing colon or dash"},
		{"non-map value is specified", "a key and a colon are needed here, as name: value"},
		{"unexpected key name", "a key and a colon with a blank after it are needed here, as name: value"},
		{"found an invalid key", "this cannot be a key: a plain word is needed, as name: value"},
		{"tab character", "a tab cannot indent: use spaces"},
		{"is a reserved character", "text cannot begin so: put it in quotes"},
		{"unexpected scalar value type", "a value is missing here, or quotes around one"},
		{"undefined anchor name", "the anchor's name is missing after &: put the text in quotes if it is meant so"},
		{"unexpected map key", "this cannot be a key: look at the indentation, and for a missing quote"},
		{"undefined anchor value", "the anchor's name or value is missing"},
		{"undefined alias name", "the alias has no name"},
		{"could not find multi-line content", "the text that should follow | or > is missing"},
	} {
		if strings.Contains(text, w.theirs) {
			return &syntaxFault{at, w.ours, false}
		}
	}
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		text = text[:i]
	}
	return &syntaxFault{at, "this is not YAML: " + text, false}
}

// openBefore is the innermost [ or { that is open where a token stands; nil for none.
func openBefore(tokens token.Tokens, at *token.Token) *token.Token {
	var open []*token.Token
	for _, t := range tokens {
		if t == at {
			break
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			open = append(open, t)
		case token.SequenceEndType, token.MappingEndType:
			if len(open) > 0 {
				open = open[:len(open)-1]
			}
		}
	}
	if len(open) == 0 {
		return nil
	}
	return open[len(open)-1]
}

// without blanks the top-level key in which a line stands. Lines keep their numbers. False: the text has no other.
func without(text string, line int) (string, bool) {
	lines := strings.Split(text, "\n")
	if line > len(lines) {
		return "", false
	}
	top := func(l string) bool {
		return l != "" && (l[0] >= 'a' && l[0] <= 'z' || l[0] >= 'A' && l[0] <= 'Z' || l[0] == '"' || l[0] == '\'') && strings.Contains(l, ":")
	}
	from, to := line-1, line
	for from > 0 && !top(lines[from]) {
		from--
	}
	for to < len(lines) && !top(lines[to]) {
		to++
	}
	left := false
	for i := range lines {
		if i >= from && i < to {
			lines[i] = ""
		} else if top(lines[i]) {
			left = true
		}
	}
	return strings.Join(lines, "\n"), left
}

// A builder makes our tree from the library's.
type builder struct {
	anchors map[string]*node
	expands int
	bad     *syntaxFault
}

func (b *builder) fail(at place, format string, args ...any) *node {
	if b.bad == nil {
		b.bad = &syntaxFault{at, fmt.Sprintf(format, args...), false}
	}
	return &node{kind: nullNode, at: at}
}

// node converts one value.
func (b *builder) node(n ast.Node, depth int) *node {
	if b.bad != nil || n == nil {
		return &node{kind: nullNode, at: place{1, 1}}
	}
	at := spot(n.GetToken())
	if depth > 2*maxDepth {
		return b.fail(at, "the file is nested too deep")
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return &node{kind: nullNode, at: at, size: 1}
	case *ast.BoolNode:
		return &node{kind: scalarNode, at: at, text: n.Token.Value, plain: true, boolt: true, size: 1}
	case *ast.IntegerNode:
		return &node{kind: scalarNode, at: at, text: n.Token.Value, plain: true, size: 1}
	case *ast.FloatNode:
		return &node{kind: scalarNode, at: at, text: n.Token.Value, plain: true, size: 1}
	case *ast.InfinityNode:
		return &node{kind: scalarNode, at: at, text: n.Token.Value, plain: true, size: 1}
	case *ast.NanNode:
		return &node{kind: scalarNode, at: at, text: n.Token.Value, plain: true, size: 1}
	case *ast.StringNode:
		quoted := n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
		return &node{kind: scalarNode, at: at, text: n.Value, plain: !quoted, size: 1}
	case *ast.LiteralNode:
		return &node{kind: scalarNode, at: at, text: n.Value.Value, size: 1}
	case *ast.SequenceNode:
		return b.sequence(n, at, depth)
	case *ast.MappingNode:
		return b.mapping(n.Values, at, depth)
	case *ast.MappingValueNode:
		return b.mapping([]*ast.MappingValueNode{n}, at, depth)
	case *ast.AnchorNode:
		v := b.node(n.Value, depth+1)
		b.anchors[n.Name.GetToken().Value] = v
		return v
	case *ast.AliasNode:
		return b.alias(n, at)
	}
	return b.fail(at, "%s cannot be used here", strings.ToLower(n.Type().String()))
}

func (b *builder) sequence(n *ast.SequenceNode, at place, depth int) *node {
	out := &node{kind: sequenceNode, at: at, size: 1}
	for _, v := range n.Values {
		item := b.node(v, depth+1)
		out.items = append(out.items, item)
		out.size += item.size
	}
	return out
}

func (b *builder) mapping(values []*ast.MappingValueNode, at place, depth int) *node {
	out := &node{kind: mappingNode, at: at, size: 1}
	if len(values) > 0 && values[0].Key != nil {
		at = spot(values[0].Key.GetToken())
		out.at = at
	}
	var merged []field
	for _, v := range values {
		keyAt := spot(v.Key.GetToken())
		value := b.node(v.Value, depth+1)
		out.size += value.size
		if v.Key.Type() == ast.MergeKeyType {
			merged = append(merged, b.merge(value, keyAt)...)
			continue
		}
		key := v.Key.GetToken().Value
		switch v.Key.(type) {
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode, *ast.InfinityNode, *ast.NanNode:
		default:
			return b.fail(keyAt, "a key must be a plain word")
		}
		out.fields = append(out.fields, field{key: key, at: keyAt, value: value})
	}
	own := map[string]bool{}
	for _, f := range out.fields {
		own[f.key] = true
	}
	for _, f := range merged {
		if !own[f.key] {
			own[f.key] = true
			out.fields = append(out.fields, f)
		}
	}
	return out
}

// merge resolves <<: the keys of a mapping, or of several, are taken over where the mapping has none of its own.
func (b *builder) merge(v *node, at place) []field {
	switch v.kind {
	case mappingNode:
		return v.fields
	case sequenceNode:
		var out []field
		for _, i := range v.items {
			if i.kind != mappingNode {
				b.fail(at, "<< takes mappings only")
				return nil
			}
			out = append(out, i.fields...)
		}
		return out
	}
	b.fail(at, "<< takes a mapping, or a list of mappings")
	return nil
}

func (b *builder) alias(n *ast.AliasNode, at place) *node {
	name := n.Value.GetToken().Value
	v, ok := b.anchors[name]
	if !ok {
		return b.fail(at, "the alias *%s has no anchor &%s before it", name, name)
	}
	b.expands += v.size
	if b.expands > maxExpands {
		b.fail(at, "the aliases of this file stand for more than %d values", maxExpands)
		b.bad.fatal = true
		return v
	}
	c := *v
	c.at = at
	return &c
}
