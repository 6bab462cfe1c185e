package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/holdfast-ha/holdfast/"

// mayImport says which of our packages a package may import. A name ending in /... stands for the package and all below it. A
// package that stands in no line fails the test: it must be given its place first.
var mayImport = []struct{ pkg, allowed string }{
	// L0: words and arithmetic. The definition's timings are checked by the arithmetic that uses them.
	{"pkg/lease", ""},
	{"pkg/cluster", "pkg/lease"},
	{"pkg/detector", "pkg/lease"},

	// L1: the core. Pure, above L0 only.
	{"pkg/state", "pkg/cluster pkg/lease pkg/detector"},
	{"pkg/scheduler", "pkg/cluster pkg/lease pkg/state"},
	{"pkg/leader", "pkg/cluster pkg/lease pkg/detector pkg/state pkg/scheduler"},

	// L2: adapters. They never import each other; what two of them need is in L0 or handed over by the agent.
	{"pkg/consensus", "pkg/cluster pkg/lease"},
	{"pkg/gossip", "pkg/cluster pkg/lease"},
	{"pkg/repository/...", "pkg/cluster pkg/lease pkg/repository/..."},
	{"pkg/deadman/...", "pkg/lease pkg/deadman/..."},
	{"pkg/executor/...", "pkg/cluster pkg/executor/..."},
	{"pkg/monitor", "pkg/cluster"},
	{"pkg/config", "pkg/cluster"},
	{"pkg/metrics", ""},
	{"pkg/identity", ""},
	{"pkg/peer", "pkg/identity"}, // the TLS listener checks the identities that identity makes

	// L3: the wiring, and the tools that run the core without a cluster.
	{"pkg/agent", "pkg/..."},
	{"pkg/scenario", "pkg/cluster pkg/config pkg/lease pkg/scheduler pkg/state pkg/detector"},

	// The outside world.
	{"pkg/api", ""},
	{"pkg/server", "pkg/api pkg/cluster pkg/config"},
	{"pkg/server/servertest", "pkg/api pkg/server"},
	{"pkg/client", "pkg/api"},
	{"pkg/cli", "pkg/api pkg/client pkg/cluster pkg/config pkg/scenario pkg/verify"},
	{"pkg/verify", "pkg/api pkg/cluster pkg/config pkg/lease"},
	{"pkg/verify/collect", "pkg/verify pkg/cluster pkg/executor"}, // looks at a node by the rules of those who run its programs
	{"pkg/lab", "pkg/api pkg/client pkg/cluster pkg/config pkg/lease"},

	{"cmd/clstrmgrd", "pkg/agent pkg/config pkg/metrics pkg/executor/... pkg/monitor"},
	{"cmd/cldeadman", "pkg/lease pkg/deadman/..."},
	{"cmd/clmgr", "pkg/cli pkg/scenario pkg/state"},
	{"cmd/clstat", "pkg/api pkg/client"},
	{"cmd/cllab", "pkg/lab pkg/api pkg/client pkg/cluster pkg/config pkg/lease"},
	{"test/...", "pkg/... test/..."},
	{"deploy", "pkg/config pkg/metrics"},
}

// importers says which packages may import a library, beside golang.org/x/sys (any outside the core) and what only tests use.
// One importer each: a library can then be replaced, or its next version understood, in one place.
var importers = map[string][]string{
	"github.com/hashicorp/raft":           {"pkg/consensus"},
	"github.com/hashicorp/raft-boltdb/v2": {"pkg/consensus"},
	"go.etcd.io/bbolt":                    {"pkg/consensus"},
	"github.com/hashicorp/go-hclog":       {"pkg/consensus"},
	"github.com/hashicorp/memberlist":     {"pkg/gossip"},
	"github.com/hashicorp/go-metrics":     {"pkg/gossip", "pkg/consensus"}, // its sink is process-wide; both silence it
	"github.com/goccy/go-yaml":            {"pkg/config"},
	"github.com/prometheus/client_golang": {"pkg/metrics"},
	"github.com/vishvananda/netlink":      {"pkg/executor/linux", "cmd/cllab"}, // the lab builds networks, the executor addresses
	"github.com/google/nftables":          {"cmd/cllab"},
	"github.com/spf13/cobra":              {"cmd/cllab"},
	"github.com/gdamore/tcell/v2":         {"cmd/clstat"},
	"github.com/coreos/go-systemd/v22":    {"cmd/clstrmgrd", "cmd/cldeadman"},
	"golang.org/x/term":                   {"cmd/clmgr", "cmd/clstat", "cmd/cllab", "pkg/cli"},
	"golang.org/x/sync":                   nil, // anywhere outside the core
	"golang.org/x/sys":                    nil,
	"pgregory.net/rapid":                  {}, // tests only
	"go.uber.org/goleak":                  {},
	"github.com/anishathalye/porcupine":   {},
	"github.com/getkin/kin-openapi":       {},
}

// core are the packages that decide: no I/O, clock, randomness, goroutine or log.
var core = []string{"pkg/cluster", "pkg/detector", "pkg/lease", "pkg/state", "pkg/scheduler", "pkg/leader"}

// pureImports are the standard packages that the core may use.
var pureImports = strings.Fields("bytes cmp encoding/base64 encoding/binary encoding/hex encoding/json errors fmt hash/crc32 hash/fnv crypto/sha256 io iter maps math math/bits " +
	"net/netip reflect slices sort strconv strings time unicode unicode/utf8")

// A source is one Go file.
type source struct {
	pkg, path string
	test      bool
	file      *ast.File
}

var fileSet = token.NewFileSet()

// sources parses every file of the module, once.
func sources(t *testing.T) []source {
	t.Helper()
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for !exists(filepath.Join(root, "go.mod")) {
		if root == filepath.Dir(root) {
			t.Fatal("no go.mod above the test")
		}
		root = filepath.Dir(root)
	}
	var out []source
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin" || exists(filepath.Join(path, "go.mod"))):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		f, err := parser.ParseFile(fileSet, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		out = append(out, source{filepath.ToSlash(filepath.Dir(rel)), filepath.ToSlash(rel), strings.HasSuffix(path, "_test.go"), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("only %d files were found", len(out))
	}
	return out
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// imports lists what a file imports.
func (s source) imports() []string {
	var out []string
	for _, i := range s.file.Imports {
		out = append(out, strings.Trim(i.Path.Value, `"`))
	}
	return out
}

func matches(pattern, pkg string) bool {
	base, tree := strings.CutSuffix(pattern, "/...")
	return pkg == base || tree && strings.HasPrefix(pkg, base+"/")
}

func matchesAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, pkg) })
}

// ruleOf is the longest pattern that a package matches.
func ruleOf(pkg string) (allowed []string, ok bool) {
	best := -1
	for _, r := range mayImport {
		if matches(r.pkg, pkg) && len(r.pkg) > best {
			best, allowed, ok = len(r.pkg), strings.Fields(r.allowed), true
		}
	}
	return allowed, ok
}

func TestImportDirection(t *testing.T) {
	placed := map[string]bool{}
	for _, s := range sources(t) {
		allowed, ok := ruleOf(s.pkg)
		if !ok {
			if !placed[s.pkg] {
				t.Errorf("package %s has no place: give it a line in mayImport", s.pkg)
			}
			placed[s.pkg] = true
			continue
		}
		if s.test {
			continue // A test may use what it likes of ours; it links into nothing.
		}
		for _, i := range s.imports() {
			own, ours := strings.CutPrefix(i, module)
			if ours && own != s.pkg && !matchesAny(allowed, own) {
				t.Errorf("%s imports %s: %s may import only %v", s.path, own, s.pkg, allowed)
			}
			if ours && strings.HasPrefix(own, "cmd/") {
				t.Errorf("%s imports a command", s.path)
			}
		}
	}
}

func TestOneImporterOfEachLibrary(t *testing.T) {
	for _, s := range sources(t) {
		for _, i := range s.imports() {
			if !strings.Contains(strings.Split(i, "/")[0], ".") || strings.HasPrefix(i, module) {
				continue
			}
			library := ""
			for l := range importers {
				if matches(l+"/...", i) && len(l) > len(library) {
					library = l
				}
			}
			allowed, known := importers[library]
			switch {
			case library == "" || !known:
				t.Errorf("%s imports %s, which no line of importers knows", s.path, i)
			case slices.Contains(core, s.pkg) && !s.test:
				t.Errorf("%s imports %s: the core uses the standard library only", s.path, i)
			case s.test && len(allowed) == 0 || allowed == nil:
			case s.test && (strings.HasPrefix(s.pkg, "test/") || matchesAny(trees(allowed), s.pkg)):
			case !slices.Contains(allowed, s.pkg):
				t.Errorf("%s imports %s: only %v may", s.path, i, allowed)
			}
		}
	}
}

// trees lets tests below a package use its library too.
func trees(pkgs []string) []string {
	var out []string
	for _, p := range pkgs {
		out = append(out, p+"/...")
	}
	return out
}

// forbidden are the calls that would bring the outside into the core.
var forbidden = map[string][]string{
	"time": {"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"},
	"fmt":  {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
}

func TestTheCoreIsPure(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !slices.Contains(core, s.pkg) {
			continue
		}
		for _, i := range s.imports() {
			if !strings.HasPrefix(i, module) && !slices.Contains(pureImports, i) {
				t.Errorf("%s imports %s, which is not pure", s.path, i)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a go statement in the core", fileSet.Position(n.Pos()))
			case *ast.SelectStmt, *ast.SendStmt, *ast.ChanType:
				t.Errorf("%s: a channel in the core", fileSet.Position(n.Pos()))
			case *ast.CallExpr:
				if pkg, name := callee(n); slices.Contains(forbidden[pkg], name) {
					t.Errorf("%s: %s.%s in the core", fileSet.Position(n.Pos()), pkg, name)
				}
				if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "print" || id.Name == "println") {
					t.Errorf("%s: output in the core", fileSet.Position(n.Pos()))
				}
			}
			return true
		})
	}
}

// callee is package and name of a call of the form package.Name.
func callee(c *ast.CallExpr) (pkg, name string) {
	if sel, ok := c.Fun.(*ast.SelectorExpr); ok {
		if id, ok := sel.X.(*ast.Ident); ok {
			return id.Name, sel.Sel.Name
		}
	}
	return "", ""
}

// measures reports whether a function belongs to a benchmark, which is about real time.
func measures(f *ast.FuncDecl) bool {
	for _, p := range f.Type.Params.List {
		if star, ok := p.Type.(*ast.StarExpr); ok {
			if sel, ok := star.X.(*ast.SelectorExpr); ok && sel.Sel.Name == "B" {
				return true
			}
		}
	}
	return false
}

// A test waits for what it needs, or in fake time. Only the end-to-end tests, which look at real processes, and benchmarks may
// sleep. All of test/cluster runs in bubbles of fake time, which one of its files makes.
func TestNobodySleepsInRealTime(t *testing.T) {
	for _, s := range sources(t) {
		if !s.test || s.pkg == "test/e2e" || s.pkg == "test/cluster" || strings.HasSuffix(s.path, "/bench_test.go") || slices.Contains(s.imports(), "testing/synctest") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if f, ok := n.(*ast.FuncDecl); ok && measures(f) {
				return false
			}
			if c, ok := n.(*ast.CallExpr); ok {
				if pkg, name := callee(c); pkg == "time" && name == "Sleep" {
					t.Errorf("%s: time.Sleep outside fake time", fileSet.Position(c.Pos()))
				}
			}
			return true
		})
	}
}

// Names that say nothing collect everything.
func TestPackagesHaveNames(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		name := strings.TrimSuffix(s.file.Name.Name, "_test")
		if slices.Contains([]string{"util", "utils", "common", "types", "helpers", "models", "misc", "shared"}, name) {
			t.Errorf("%s: a package called %s", s.path, name)
		}
		if !s.test {
			documented[s.pkg] = documented[s.pkg] || s.file.Doc != nil && len(s.file.Doc.Text()) > 60
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(documented)) {
		if !documented[pkg] {
			t.Errorf("package %s has no comment that says what it does", pkg)
		}
	}
}

// The rules can fail: each catches the smallest thing that breaks it.
func TestTheRulesCanFail(t *testing.T) {
	for _, w := range []struct {
		pkg, imported string
		ok            bool
	}{{"pkg/client", "pkg/api", true}, {"pkg/client", "pkg/cluster", false}, {"pkg/executor/linux", "pkg/executor", true}, {"pkg/executor/linux", "pkg/monitor", false},
		{"pkg/state", "pkg/scheduler", false}, {"cmd/clstat", "pkg/cli", false}, {"pkg/server/servertest", "pkg/server", true}, {"pkg/consensus", "pkg/gossip", false}} {
		allowed, ok := ruleOf(w.pkg)
		if !ok || matchesAny(allowed, w.imported) != w.ok {
			t.Errorf("%s imports %s: allowed is %v, want %v", w.pkg, w.imported, !w.ok, w.ok)
		}
	}
	if _, ok := ruleOf("pkg/elsewhere"); ok {
		t.Error("an unknown package has a place")
	}
	expr, err := parser.ParseExpr("time.Now()")
	if err != nil {
		t.Fatal(err)
	}
	if pkg, name := callee(expr.(*ast.CallExpr)); !slices.Contains(forbidden[pkg], name) {
		t.Error(fmt.Sprint("time.Now is not seen: ", pkg, name))
	}
}
