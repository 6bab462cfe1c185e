package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestCompletion asks as the shells' scripts do: the words before, and the one that is being typed.
func TestCompletion(t *testing.T) {
	for _, tc := range []struct {
		words []string
		want  []string // exactly these; a leading + means that these are among them
	}{
		{[]string{"qu"}, []string{"query"}},
		{[]string{"com"}, []string{"compare", "completion"}},
		{[]string{"query", "resource"}, []string{"resource_group"}},
		{[]string{"move", ""}, []string{"resource_group"}},
		{[]string{"move", "rg", ""}, []string{"rg1", "rg2", "NODE=", "TIMEOUT="}},
		{[]string{"move", "rg", "rg1,"}, []string{"rg1,rg2"}},
		{[]string{"move", "rg", "rg1", "n"}, []string{"NODE="}},
		{[]string{"move", "rg", "rg1", "NODE="}, []string{"NODE=node1", "NODE=node2", "NODE=node3"}},
		{[]string{"add", "rg", "x", "NODES=node1,"}, []string{"NODES=node1,node2", "NODES=node1,node3"}},
		{[]string{"add", "rg", "x", "START"}, []string{"STARTUP="}},
		{[]string{"modify", "rg", "rg1", "STARTUP=OF"}, []string{"STARTUP=OFAN"}},
		{[]string{"modify", "rg", "rg1", "FS_BEFORE_IPADDR="}, []string{"FS_BEFORE_IPADDR=yes", "FS_BEFORE_IPADDR=no", "FS_BEFORE_IPADDR=true", "FS_BEFORE_IPADDR=false"}},
		{[]string{"modify", "ac", "app1", "STARTSCRIPT=/h"}, []string{fileMark}},
		{[]string{"add", "cluster", "FILE="}, []string{fileMark}},
		{[]string{"set", "failover", "-g", ""}, []string{"rg1", "rg2"}},
		{[]string{"set", "failover", "-g", "rg1", "-m", ""}, []string{"next", "dynamic", "offline"}},
		{[]string{"start", "cluster", "-o", "h"}, []string{"home"}},
		{[]string{"-o", "y"}, []string{"yaml"}},
		{[]string{"-l", "m"}, []string{"med", "max"}},
		{[]string{"-cSa", "NAME", "q", "no", "node3"}, []string{"node3"}},
		{[]string{"q", "no", "-a", "NAME,RAW"}, []string{"NAME,RAW_STATE"}},
		{[]string{"stop", "node", "node1", "MANAGE="}, []string{"MANAGE=offline", "MANAGE=move", "MANAGE=unmanage"}},
		{[]string{"diff", "-f", "x"}, []string{fileMark}},
		{[]string{"confirm", "node_down", ""}, []string{"+", "node1", "node2", "node3"}},
		{[]string{"help", "add", "rg", "FALLB"}, []string{"FALLBACK", "FALLBACK_AT"}},
		{[]string{"completion", ""}, []string{"bash", "ksh", "zsh"}},
		{[]string{"nosuch", "thing", ""}, nil},
		{[]string{"--ti"}, []string{"--timeout"}},
		{[]string{"@clRGinfo", ""}, []string{"rg1", "rg2"}},
		{[]string{"@clRGmove", "-g", "rg1,"}, []string{"rg1,rg2"}},
		{[]string{"@clRGmove", "-g", "rg1", "-n", ""}, []string{"node1", "node2", "node3"}},
		{[]string{"@lscluster", "-"}, []string{"-h", "-m", "-i", "-d", "-c", "-s"}},
		{[]string{"@nosuch", ""}, nil},
	} {
		l := newLab(t)
		got := l.run(append([]string{completeWord}, tc.words...)...)
		list := strings.Fields(got.out)
		want := tc.want
		if len(want) > 0 && want[0] == "+" {
			for _, w := range want[1:] {
				if !slices.Contains(list, w) {
					t.Errorf("%q: %q lacks %s", tc.words, list, w)
				}
			}
			continue
		}
		if got.status != 0 || got.errors != "" || !slices.Equal(list, want) {
			t.Errorf("%q: %q, %d %q; want %q", tc.words, list, got.status, got.errors, want)
		}
	}
}

// Without a daemon there are no names of objects, at once, and everything else is completed.
func TestCompletionWithoutDaemon(t *testing.T) {
	l := newLab(t)
	l.socket = filepath.Join(t.TempDir(), "nobody")
	began := time.Now()
	if got := l.run(completeWord, "move", "rg", ""); got.out != "NODE=\nTIMEOUT=\n" || got.errors != "" {
		t.Errorf("%+v", got)
	}
	if d := time.Since(began); d > 10*completionPatience {
		t.Errorf("it took %v", d)
	}
}

// shells run their script with a clmgr that answers as the real one does. Each prints what it would offer for the line in $LINE.
var shells = []struct{ name, script string }{
	{"bash", `. "$SCRIPT"
COMP_LINE=$LINE COMP_POINT=${#LINE}
# As readline splits: at blanks, '=' and ':', which are words of their own.
rest=$LINE COMP_WORDS=()
while [ -n "$rest" ]; do
  case $rest in
    ' '*) rest=${rest# }; continue ;;
    [=:]*) COMP_WORDS+=("${rest:0:1}"); rest=${rest:1}; continue ;;
  esac
  word=${rest%%[ =:]*}; COMP_WORDS+=("$word"); rest=${rest#"$word"}
done
case $LINE in *' ') COMP_WORDS+=('') ;; esac
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_clmgr
printf '%s\n' "${COMPREPLY[@]}"`},
	{"zsh", `functions[compdef]=:
. "$SCRIPT"
compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -rl -- ${(M)@:#$PREFIX*} }
_files() { print :files }
compset() { : }
words=(${(z)LINE}); [[ $LINE == *' ' ]] && words+=('')
CURRENT=$#words PREFIX=$words[-1]
_clmgr`},
	{"mksh", `. "$SCRIPT"
case $LINE in *' ') last= ;; *) last=no ;; esac
set -- ${LINE#clmgr}
[ -n "$last" ] || set -- "$@" ""
clmgr_words "$@"`},
	{"ksh93", `. "$SCRIPT"
case $LINE in *' ') last= ;; *) last=no ;; esac
set -- ${LINE#clmgr}
[ -n "$last" ] || set -- "$@" ""
clmgr_words "$@"`},
}

// TestShells really runs the shells that are installed.
func TestShells(t *testing.T) {
	clmgr := buildClmgr(t)
	ran := 0
	for _, sh := range shells {
		path, err := exec.LookPath(sh.name)
		if err != nil {
			t.Logf("%s is not installed", sh.name)
			continue
		}
		ran++
		file := map[string]string{"bash": "clmgr.bash", "zsh": "_clmgr"}[sh.name]
		if file == "" {
			file = "clmgr.ksh"
		}
		script, err := filepath.Abs("completion/" + file)
		if err != nil {
			t.Fatal(err)
		}
		l := newLab(t)
		for line, want := range map[string]string{
			"clmgr qu":                        "query",
			"clmgr move rg ":                  "rg1 rg2 NODE= TIMEOUT=",
			"clmgr add rg x STARTUP=OF":       "STARTUP=OFAN",
			"clmgr add rg x NODES=node1,":     "NODES=node1,node2 NODES=node1,node3",
			"clmgr set failover -g rg1 -m ne": "next",
		} {
			if sh.name == "bash" { // which replaces what stands after the '=' only
				want = strings.NewReplacer("STARTUP=OFAN", "OFAN", "NODES=", "").Replace(want)
			}
			c := exec.Command(path, "-c", sh.script)
			c.Env = []string{"PATH=" + filepath.Dir(clmgr) + ":/usr/bin:/bin", "SCRIPT=" + script, "LINE=" + line, "HOLDFAST_SOCKET=" + l.socket, "HOME=/nonexistent"}
			out, err := c.CombinedOutput()
			if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != want {
				t.Errorf("%s, %q: %q, %v; want %q", sh.name, line, got, err, want)
			}
		}
	}
	if ran == 0 {
		t.Error("no shell is installed")
	}
}

// FuzzCompletion: no line makes a completion panic, or offer what does not begin with what is typed.
func FuzzCompletion(f *testing.F) {
	for _, s := range []string{"query cl", "-cSa NAME q rg ", "add rg x NODES=a,", "set failover -g x -m ", "-", "--", "-f", "apply -f ", "@clRGmove -g ", "help add rg ", "-o", "= =", "A=B c="} {
		f.Add(s)
	}
	socket := filepath.Join(f.TempDir(), "nobody")
	f.Fuzz(func(t *testing.T, line string) {
		args := strings.Split(line, " ")
		s := newSession(Env{Getenv: func(string) string { return socket }}.filled(), &command{})
		defer s.client.Close()
		c := &completion{ctx: t.Context(), client: s.client, asked: true}
		cur := args[len(args)-1]
		for _, w := range c.words(args) {
			if w != fileMark && (len(w) < len(cur) || !strings.EqualFold(w[:len(cur)], cur)) {
				t.Errorf("%q: offers %q", args, w)
			}
		}
	})
}

// built is the program, built once for all tests that run it.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func buildClmgr(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "clmgr-test-"); built.err != nil {
			return
		}
		c := exec.Command("go", "build", "-o", filepath.Join(built.dir, "clmgr"), "../../cmd/clmgr")
		c.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build clmgr: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "clmgr")
}
