package aix

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// A call is one call of one command.
type call struct {
	*World
	name     string
	args     []string
	out, err io.Writer
	again    bool // the command waits for a lock: it is to be tried again
	warned   bool
	after    []func() // done when the state is saved and unlocked
}

func (c *call) say(format string, args ...any) { fmt.Fprintf(c.out, format+"\n", args...) }

// fail writes a message to standard error and gives the exit status.
func (c *call) fail(status int, format string, args ...any) int {
	fmt.Fprintf(c.err, format+"\n", args...)
	return status
}

// flags reads options as getopt does: letters that stand in withValue take one.
func (c *call) flags(withValue string) (map[byte]string, []string, bool) {
	f := map[byte]string{}
	args := c.args
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && len(args[0]) > 1 {
		a := args[0][1:]
		args = args[1:]
		for i := 0; i < len(a); i++ {
			if !strings.Contains(withValue, string(a[i])) {
				f[a[i]] = "yes"
				continue
			}
			if v := a[i+1:]; v != "" {
				f[a[i]] = v
			} else if len(args) > 0 {
				f[a[i]], args = args[0], args[1:]
			} else {
				return nil, nil, false
			}
			break
		}
	}
	return f, args, true
}

var commands = map[string]func(c *call) int{
	"lsvg": lsvg, "lspv": lspv, "varyonvg": varyonvg, "varyoffvg": varyoffvg, "importvg": importvg, "exportvg": exportvg, "chvg": chvg,
	"lqueryvg": lqueryvg, "getlvodm": getlvodm, "devrsrv": devrsrv, "lsattr": lsattr, "lsdev": lsdev,
	"mount": mount, "umount": umount, "fsck": fsck, "logredo": logredo, "fuser": fuser, "lsfs": lsfs, "exportfs": exportfs, "df": df,
	"ifconfig": ifconfig, "netstat": netstat, "entstat": entstat, "arp": arp, "ndp": arp,
	"lssrc": lssrc, "startsrc": startsrc, "stopsrc": stopsrc, "mkssys": mkssys, "chssys": mkssys, "rmssys": rmssys,
	"mkitab": mkitab, "chitab": mkitab, "rmitab": rmitab, "lsitab": lsitab, "odmadd": odmadd, "odmdelete": odmdelete, "odmget": odmget,
	"errlogger": errlogger, "errpt": errpt, "oslevel": oslevel, "ps": ps, "mknotify": mknotify, "rmnotify": rmnotify,
	"uname": uname, "lslpp": lslpp, "getconf": getconf, "lspath": lspath, "mkdir": nil,
}

// Names lists the commands that it plays.
func Names() []string {
	var out []string
	for n, f := range commands {
		if f != nil {
			out = append(out, n)
		}
	}
	sort.Strings(out)
	return out
}

// Called reports whether the program was called as one of the commands.
func Called(argv0 string) bool {
	if commands[filepath.Base(argv0)] == nil {
		return false
	}
	_, err := os.Stat(filepath.Join(directory(argv0), ConfigName))
	return err == nil
}

// directory is where the command lies; a shell that found it by PATH names it without.
func directory(argv0 string) string {
	if !strings.Contains(argv0, "/") {
		if path, err := exec.LookPath(argv0); err == nil {
			argv0 = path
		}
	}
	return filepath.Dir(argv0)
}

// Main plays the command by whose name the program was called, and returns its exit status.
func Main(argv []string) int {
	name := filepath.Base(argv[0])
	var cfg Config
	if err := load(filepath.Join(directory(argv[0]), ConfigName), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, "aixemu:", err)
		return 126
	}
	if cfg.Node == "" {
		cfg.Node, _ = os.Hostname()
	}
	return play(cfg, name, argv[1:])
}

func play(cfg Config, name string, args []string) int {
	f := commands[name]
	if f == nil {
		fmt.Fprintf(os.Stderr, "aixemu: %s is not played; there are %s\n", name, strings.Join(Names(), " "))
		return 127
	}
	if status, done := suffer(cfg, name, args); done {
		return status
	}
	warned := false
	for {
		w, err := Open(cfg)
		if err != nil {
			fmt.Fprintln(os.Stderr, "aixemu:", err)
			return 126
		}
		var out, errs bytes.Buffer
		c := &call{World: w, name: name, args: args, out: &out, err: &errs, warned: warned}
		status := f(c)
		if err := w.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "aixemu:", err)
			return 126
		}
		_, _ = os.Stderr.Write(errs.Bytes())
		_, _ = os.Stdout.Write(out.Bytes())
		for _, after := range c.after {
			after()
		}
		if !c.again {
			return status
		}
		warned = true
		time.Sleep(50 * time.Millisecond)
	}
}

// suffer applies the first fault that fits.
func suffer(cfg Config, name string, args []string) (int, bool) {
	var hit *Fault
	err := Change(cfg, func(w *World) {
		for i, f := range w.Run.Faults {
			if f.Command != name || !strings.Contains(strings.Join(args, " "), f.Arg) {
				continue
			}
			hit = f
			if f.Times > 0 {
				if f.Times--; f.Times == 0 {
					w.Run.Faults = append(w.Run.Faults[:i:i], w.Run.Faults[i+1:]...)
				}
			}
			return
		}
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "aixemu:", err)
		return 126, true
	}
	if hit == nil {
		return 0, false
	}
	switch hit.Mode {
	case "slow":
		time.Sleep(time.Duration(hit.Millis) * time.Millisecond)
		return 0, false
	case "hang": // the wrapper waits for a helper that has its output too
		hangChild()
		select {}
	case "hangchild": // the wrapper ends, its helper does not, and keeps the pipe
		hangChild()
		return 0, false
	case "fail":
		if hit.Text != "" {
			fmt.Fprintln(os.Stderr, hit.Text)
		}
		return max(hit.Exit, 1), true
	case "lie":
		if hit.Text != "" {
			fmt.Println(hit.Text)
		}
		return 0, true
	case "garbage":
		line := strings.Repeat("?", 1023) + "\n"
		for range 4 << 10 {
			fmt.Print(line)
		}
		return 0, false
	}
	fmt.Fprintf(os.Stderr, "aixemu: no fault of mode %q\n", hit.Mode)
	return 126, true
}

// Install makes a directory of commands: symbolic links to the program, and the configuration.
func Install(dir, program string, cfg Config) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, n := range Names() {
		if err := os.Symlink(program, filepath.Join(dir, n)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return save(filepath.Join(dir, ConfigName), cfg)
}
