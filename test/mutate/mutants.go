package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A Mutant is one small mistake in one file: the bytes from From to To are replaced by With.
type Mutant struct {
	File     string // path of the file
	Line     int
	From, To int
	With     string
	Operator string // the kind of mistake
	What     string // the mistake, for the reader
	Place    string // its line of the file, with what is replaced between « and »
}

// Apply makes the mistake in the file's text.
func (m Mutant) Apply(src []byte) []byte {
	return slices.Concat(src[:m.From], []byte(m.With), src[m.To:])
}

func (m Mutant) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", m.File, m.Line, m.Operator, m.What)
}

// operators lists the kinds of mistakes that mutants finds.
var operators = []string{"negated condition", "comparison", "logic", "arithmetic", "constant", "dropped statement", "early return", "returned value"}

// Mutants lists every mistake that can be made in the package's files, in the order of the text. Tests are left as they are.
func Mutants(dir string) ([]Mutant, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var out []Mutant
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		src, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		found, err := inFile(file, src)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no code to make mistakes in", dir)
	}
	return out, nil
}

// finder walks one file.
type finder struct {
	file string
	src  []byte
	set  *token.FileSet
	out  []Mutant
}

func inFile(file string, src []byte) ([]Mutant, error) {
	f := &finder{file: file, src: src, set: token.NewFileSet()}
	tree, err := parser.ParseFile(f.set, file, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	for _, d := range tree.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
			f.function(fn)
		}
	}
	slices.SortStableFunc(f.out, func(a, b Mutant) int { return a.From - b.From })
	return f.out, nil
}

func (f *finder) offset(p token.Pos) int { return f.set.Position(p).Offset }

func (f *finder) text(n ast.Node) string { return string(f.src[f.offset(n.Pos()):f.offset(n.End())]) }

func (f *finder) add(operator string, from, to token.Pos, with, what string) {
	what = strings.Join(strings.Fields(what), " ")
	if len(what) > 150 {
		what = what[:150] + "..."
	}
	m := Mutant{File: f.file, Line: f.set.Position(from).Line, From: f.offset(from), To: f.offset(to), With: with, Operator: operator, What: what}
	m.Place = f.place(m.From, m.To)
	f.out = append(f.out, m)
}

// place is the line (or the lines) of a mistake, marked.
func (f *finder) place(from, to int) string {
	begin := bytes.LastIndexByte(f.src[:from], '\n') + 1
	end := len(f.src)
	if n := bytes.IndexByte(f.src[to:], '\n'); n >= 0 {
		end = to + n
	}
	return string(f.src[begin:from]) + "«" + string(f.src[from:to]) + "»" + string(f.src[to:end])
}

// function finds the mistakes in a function: first that it does nothing at all.
func (f *finder) function(fn *ast.FuncDecl) {
	zero := ""
	if r := fn.Type.Results; r != nil {
		var list []string
		for _, field := range r.List {
			for range max(1, len(field.Names)) {
				list = append(list, "*new("+f.text(field.Type)+")")
			}
		}
		zero = " " + strings.Join(list, ", ")
	}
	if len(fn.Body.List) > 0 && !f.isZeroReturn(fn.Body.List[0]) {
		at := fn.Body.Lbrace + 1
		f.add("early return", at, at, " return"+zero+";", fn.Name.Name+" returns at once")
	}
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			return f.call(n)
		case *ast.IfStmt:
			f.negate(n.Cond)
		case *ast.ForStmt:
			if n.Cond != nil {
				f.negate(n.Cond)
			}
		case *ast.BinaryExpr:
			f.binary(n)
		case *ast.BasicLit:
			f.constant(n)
		case *ast.Ident:
			if with, ok := map[string]string{"true": "false", "false": "true"}[n.Name]; ok {
				f.add("constant", n.Pos(), n.End(), with, n.Name+" -> "+with)
			}
		case *ast.ReturnStmt:
			f.returned(n)
		case *ast.BlockStmt:
			f.statements(n.List)
		case *ast.CaseClause:
			f.statements(n.Body)
		}
		return true
	})
}

// isZeroReturn is a first statement for which returning at once would make no difference.
func (f *finder) isZeroReturn(s ast.Stmt) bool {
	r, ok := s.(*ast.ReturnStmt)
	if !ok {
		return false
	}
	for _, x := range r.Results {
		if t := f.text(x); t != "nil" && t != "false" && t != "0" && t != `""` {
			return false
		}
	}
	return true
}

// call says whether there is anything to change below a call: how much room is made, and what a panic says, is no behaviour.
func (f *finder) call(n *ast.CallExpr) bool {
	id, ok := n.Fun.(*ast.Ident)
	return !ok || id.Name != "make" && id.Name != "panic"
}

func (f *finder) negate(cond ast.Expr) {
	t := f.text(cond)
	f.add("negated condition", cond.Pos(), cond.End(), "!("+t+")", t+" -> !("+t+")")
}

var binaries = map[token.Token]struct {
	with token.Token
	kind string
}{
	token.LSS: {token.LEQ, "comparison"}, token.LEQ: {token.LSS, "comparison"}, token.GTR: {token.GEQ, "comparison"}, token.GEQ: {token.GTR, "comparison"},
	token.EQL: {token.NEQ, "comparison"}, token.NEQ: {token.EQL, "comparison"},
	token.LAND: {token.LOR, "logic"}, token.LOR: {token.LAND, "logic"},
	token.ADD: {token.SUB, "arithmetic"}, token.SUB: {token.ADD, "arithmetic"}, token.MUL: {token.QUO, "arithmetic"}, token.QUO: {token.MUL, "arithmetic"},
	token.REM: {token.MUL, "arithmetic"},
}

func (f *finder) binary(n *ast.BinaryExpr) {
	b, ok := binaries[n.Op]
	if !ok || n.Op == token.ADD && (isText(n.X) || isText(n.Y)) {
		return
	}
	f.add(b.kind, n.OpPos, n.OpPos+token.Pos(len(n.Op.String())), b.with.String(), f.text(n)+": "+n.Op.String()+" -> "+b.with.String())
}

// isText reports whether the expression certainly is a string: a minus there would not compile.
func isText(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.BasicLit:
		return x.Kind == token.STRING
	case *ast.BinaryExpr:
		return isText(x.X) || isText(x.Y)
	}
	return false
}

func (f *finder) constant(n *ast.BasicLit) {
	if n.Kind != token.INT {
		return // texts are no behaviour
	}
	v, err := strconv.ParseInt(n.Value, 0, 64)
	if err != nil {
		return
	}
	with := strconv.FormatInt(v+1, 10)
	f.add("constant", n.Pos(), n.End(), with, n.Value+" -> "+with)
}

// returned turns round what a function answers, where that can be told from the text alone.
func (f *finder) returned(n *ast.ReturnStmt) {
	for _, x := range n.Results {
		if b, ok := x.(*ast.BinaryExpr); ok && (b.Op == token.LAND || b.Op == token.LOR) {
			t := f.text(x)
			f.add("returned value", x.Pos(), x.End(), "!("+t+")", "return "+t+" -> !("+t+")")
		}
	}
}

// statements drops the statements that can be dropped, one at a time.
func (f *finder) statements(list []ast.Stmt) {
	for _, s := range list {
		switch s := s.(type) {
		case *ast.ExprStmt:
			if c, ok := s.X.(*ast.CallExpr); ok && !f.call(c) {
				continue // a panic that is never to happen
			}
		case *ast.AssignStmt:
			if s.Tok == token.DEFINE {
				continue
			}
		case *ast.IncDecStmt, *ast.BranchStmt:
		default:
			continue
		}
		f.add("dropped statement", s.Pos(), s.End(), "", "dropped: "+f.text(s))
	}
}
