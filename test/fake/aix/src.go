package aix

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

func lssrc(c *call) int {
	f, _, ok := c.flags("sg")
	switch {
	case !ok:
		return c.fail(1, "0513-009 Unable to process command line syntax correctly.")
	case f['S'] != "":
		s := c.ODM.Subsystems[f['s']]
		if s == nil {
			return c.fail(1, "0513-085 The %s Subsystem is not on file.", f['s'])
		}
		c.say("#subsysname:synonym:cmdargs:path:uid:auditid:standin:standout:standerr:action:multi:contact:svrkey:svrmtype:priority:signorm:sigforce:display:waittime:grpname:")
		action := "-O"
		if s.Respawn {
			action = "-R"
		}
		c.say("%s::%s:%s:0:0:/dev/null:%s:%s:%s:-Q:-S:0:0:%s:15:9:-d:%d:%s:", f['s'], strings.ReplaceAll(s.Args, ":", "\\:"), s.Path, s.Stdout, s.Stderr, action, s.Nice, s.Wait, s.Group)
		return 0
	case f['s'] != "":
		if c.ODM.Subsystems[f['s']] == nil {
			return c.fail(1, "0513-085 The %s Subsystem is not on file.", f['s'])
		}
	}
	c.say("Subsystem         Group            PID          Status ")
	for _, n := range keys(c.ODM.Subsystems) {
		s := c.ODM.Subsystems[n]
		if f['s'] != "" && n != f['s'] || f['g'] != "" && s.Group != f['g'] {
			continue
		}
		pid, status := "", "inoperative"
		if p, ok := c.Run.Running[n]; ok {
			status = p.Status
			if p.PID != 0 {
				pid = fmt.Sprint(p.PID)
			}
		}
		c.say(" %-16s %-16s %-12s %s", n, s.Group, pid, status)
	}
	return 0
}

func startsrc(c *call) int {
	f, _, ok := c.flags("sgae")
	if !ok || f['s'] == "" {
		return c.fail(1, "0513-009 Unable to process command line syntax correctly.")
	}
	n := f['s']
	if c.ODM.Subsystems[n] == nil {
		return c.fail(1, "0513-085 The %s Subsystem is not on file.", n)
	}
	p, there := c.Run.Running[n]
	switch {
	case there && !c.warned:
		return c.fail(1, "0513-029 The %s Subsystem is already active.\nMultiple instances are not supported.", n)
	case !there && c.warned:
		return c.fail(1, "0513-005 The Subsystem, %s, only supports signal communication.", n)
	case !there:
		c.Run.Running[n] = Process{Status: "starting"}
		c.again = true
	case p.PID == 0:
		c.again = true
	default:
		c.say("0513-059 The %s Subsystem has been started. Subsystem PID is %d.", n, p.PID)
	}
	return 0
}

func stopsrc(c *call) int {
	f, _, ok := c.flags("sgh")
	if !ok || f['s'] == "" {
		return c.fail(1, "0513-009 Unable to process command line syntax correctly.")
	}
	n := f['s']
	s := c.ODM.Subsystems[n]
	if s == nil {
		return c.fail(1, "0513-085 The %s Subsystem is not on file.", n)
	}
	p, there := c.Run.Running[n]
	if !there {
		return c.fail(1, "0513-044 The %s Subsystem is currently inoperative.", n)
	}
	p.Status = "stopping"
	c.Run.Running[n] = p
	force, cancel := f['f'] != "", f['c'] != ""
	if p.PID > 0 {
		terminate(p.PID, force)
	}
	if cancel { // SIGKILL after the wait
		wait := time.Duration(s.Wait) * time.Second
		c.Run.Running["#kill "+n] = Process{PID: int(time.Now().Add(wait).UnixMilli()), Status: "due"}
	}
	c.say("0513-044 The %s Subsystem was requested to stop.", n)
	return 0
}

func mkssys(c *call) int {
	f, args, ok := c.flags("spaunfwGioeEtqQx")
	// Letters that take no value, although they stand in the list for one form or the other.
	if !ok || len(args) > 0 {
		f, args, ok = c.flags("spaunfwGioeEt")
	}
	if !ok || len(args) > 0 || f['s'] == "" {
		return c.fail(1, "0513-009 Unable to process command line syntax correctly.")
	}
	n := f['s']
	have := c.ODM.Subsystems[n]
	switch {
	case c.name == "mkssys" && have != nil:
		return c.fail(1, "0513-081 The %s Subsystem is already on file.", n)
	case c.name == "chssys" && have == nil:
		return c.fail(1, "0513-085 The %s Subsystem is not on file.", n)
	case c.name == "mkssys" && f['p'] == "":
		return c.fail(1, "0513-070 The command path of the %s Subsystem is not given.", n)
	case len(f['a']) > 1200:
		return c.fail(1, "0513-068 The arguments of the %s Subsystem are longer than 1200 characters.", n)
	}
	s := have
	if s == nil {
		s = &Subsystem{Wait: 20, Nice: "20", Stdout: "/dev/console", Stderr: "/dev/console"}
	}
	set := func(letter byte, to *string) {
		if v := f[letter]; v != "" {
			*to = v
		}
	}
	set('p', &s.Path)
	set('a', &s.Args)
	set('G', &s.Group)
	set('o', &s.Stdout)
	set('e', &s.Stderr)
	set('E', &s.Nice)
	_, _ = fmt.Sscan(f['w'], &s.Wait)
	s.Respawn = f['R'] != "" || f['O'] == "" && s.Respawn
	s.Signals = f['S'] != "" || s.Signals
	c.ODM.Subsystems[n] = s
	if have == nil {
		c.say("0513-071 The %s Subsystem has been added.", n)
	} else {
		c.say("0513-077 Subsystem has been changed.")
	}
	return 0
}

func rmssys(c *call) int {
	f, _, _ := c.flags("s")
	if c.ODM.Subsystems[f['s']] == nil {
		return c.fail(1, "0513-085 The %s Subsystem is not on file.", f['s'])
	}
	if _, on := c.Run.Running[f['s']]; on {
		return c.fail(1, "0513-084 The %s Subsystem is active, it cannot be deleted.", f['s'])
	}
	delete(c.ODM.Subsystems, f['s'])
	c.say("0513-083 Subsystem has been Deleted.")
	return 0
}

func mknotify(c *call) int {
	f, _, _ := c.flags("nm")
	s := c.ODM.Subsystems[f['n']]
	if s == nil {
		return c.fail(1, "0513-085 The %s Subsystem is not on file.", f['n'])
	}
	s.Notify = f['m']
	c.say("0513-106 The Notify method has been added.")
	return 0
}

func rmnotify(c *call) int {
	f, _, _ := c.flags("n")
	s := c.ODM.Subsystems[f['n']]
	if s == nil || s.Notify == "" {
		return c.fail(1, "0513-085 The %s Subsystem is not on file.", f['n'])
	}
	s.Notify = ""
	return 0
}

// Master is the master of the subsystems of the node whose commands are in dir: it starts what startsrc asked for, sees what
// ended, and respawns what is to be. It ends when the directory of commands goes away, or with its machine.
func Master(dir string) int {
	var cfg Config
	if err := load(filepath.Join(dir, ConfigName), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, "srcmstr:", err)
		return 1
	}
	if cfg.Node == "" {
		cfg.Node, _ = os.Hostname()
	}
	runtime.LockOSThread() // its children end with it, and that is: with the thread that started them
	for {
		if _, err := os.Stat(filepath.Join(dir, ConfigName)); err != nil {
			return 0
		}
		if err := Change(cfg, func(w *World) { w.tend() }); err != nil {
			fmt.Fprintln(os.Stderr, "srcmstr:", err)
			return 1
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *World) tend() {
	for _, n := range keys(w.Run.Running) {
		p := w.Run.Running[n]
		if name, due := strings.CutPrefix(n, "#kill "); due {
			w.kill(name, n, p)
			continue
		}
		s := w.ODM.Subsystems[n]
		switch {
		case s == nil || p.PID < 0: // set by a test
		case p.PID == 0 && p.Status == "starting", p.PID > 0 && p.Status == "active" && !alive(p.PID) && s.Respawn:
			w.spawn(n, s)
		case p.PID > 0 && !alive(p.PID):
			delete(w.Run.Running, n)
			if p.Status == "active" && s.Notify != "" {
				_, _ = spawn(s.Notify, []string{n}, "", "")
			}
		case p.PID > 0 && p.Status == "starting":
			w.Run.Running[n] = Process{PID: p.PID, Status: "active"}
		}
	}
}

func (w *World) kill(name, key string, due Process) {
	p, there := w.Run.Running[name]
	if !there || p.Status != "stopping" {
		delete(w.Run.Running, key)
		return
	}
	if time.Now().UnixMilli() >= int64(due.PID) {
		terminate(p.PID, true)
	}
}

func (w *World) spawn(n string, s *Subsystem) {
	pid, err := spawn(s.Path, strings.Fields(s.Args), s.Stdout, s.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "srcmstr:", err)
		delete(w.Run.Running, n)
		return
	}
	w.Run.Running[n] = Process{PID: pid, Status: "active"}
}
