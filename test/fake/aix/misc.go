package aix

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// journal notes what changed, for those who look afterwards. It lies with what the nodes share.
func (c *call) journal(what, name string) {
	f, err := os.OpenFile(filepath.Join(c.Config.Shared, "journal"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return
	}
	fmt.Fprintf(f, "%s %s %s %s %s\n", time.Now().UTC().Format(time.RFC3339Nano), c.Config.Node, c.Run.Boot, what, name)
	_ = f.Close()
}

func mkitab(c *call) int {
	f, args, _ := c.flags("i")
	if len(args) != 1 || strings.Count(args[0], ":") < 3 {
		return c.fail(1, "%s: 0481-105 Usage: %s [-i identifier] identifier:runlevel:action:command", c.name, c.name)
	}
	id, _, _ := strings.Cut(args[0], ":")
	at := c.itab(id)
	switch {
	case c.name == "mkitab" && at >= 0:
		return c.fail(1, "mkitab: 0481-107 The %s entry already exists in the /etc/inittab file.", id)
	case c.name == "chitab" && at < 0:
		return c.fail(1, "chitab: 0481-108 The %s entry does not exist in the /etc/inittab file.", id)
	case at >= 0:
		c.ODM.Inittab[at] = args[0]
		return 0
	}
	after := len(c.ODM.Inittab)
	if f['i'] != "" {
		if after = c.itab(f['i']) + 1; after == 0 {
			return c.fail(1, "mkitab: 0481-108 The %s entry does not exist in the /etc/inittab file.", f['i'])
		}
	}
	c.ODM.Inittab = slices.Insert(c.ODM.Inittab, after, args[0])
	return 0
}

func (c *call) itab(id string) int {
	return slices.IndexFunc(c.ODM.Inittab, func(l string) bool { return strings.HasPrefix(l, id+":") })
}

func lsitab(c *call) int {
	if len(c.args) == 1 && c.args[0] == "-a" {
		for _, l := range c.ODM.Inittab {
			c.say("%s", l)
		}
		return 0
	}
	if len(c.args) != 1 || c.itab(c.args[0]) < 0 {
		return 1
	}
	c.say("%s", c.ODM.Inittab[c.itab(c.args[0])])
	return 0
}

func rmitab(c *call) int {
	if len(c.args) != 1 || c.itab(c.args[0]) < 0 {
		return c.fail(1, "rmitab: 0481-108 The entry does not exist in the /etc/inittab file.")
	}
	at := c.itab(c.args[0])
	c.ODM.Inittab = append(c.ODM.Inittab[:at:at], c.ODM.Inittab[at+1:]...)
	return 0
}

// odmadd takes errnotify stanzas only: that is what the installation adds.
func odmadd(c *call) int {
	if len(c.args) != 1 {
		return c.fail(1, "Usage: odmadd [file...]")
	}
	text, err := os.ReadFile(c.args[0])
	if err != nil || !strings.HasPrefix(strings.TrimSpace(string(text)), "errnotify:") {
		return c.fail(1, "0518-506 odmadd: Cannot read the stanza file %s.", c.args[0])
	}
	if name := stanzaValue(string(text), "en_name"); name == "" || len(name) > 16 {
		return c.fail(1, "0518-509 odmadd: The value of en_name is not 1 to 16 characters long.")
	}
	c.ODM.Notify = append(c.ODM.Notify, strings.TrimSpace(string(text)))
	return 0
}

func stanzaValue(text, key string) string {
	for l := range strings.Lines(text) {
		k, v, ok := strings.Cut(strings.TrimSpace(l), "=")
		if ok && strings.TrimSpace(k) == key {
			return strings.Trim(strings.TrimSpace(v), `"`)
		}
	}
	return ""
}

func odmget(c *call) int {
	f, args, _ := c.flags("q")
	if len(args) == 1 && args[0] == "errnotify" {
		for _, s := range c.ODM.Notify {
			if f['q'] == "" || f['q'] == "en_name="+stanzaValue(s, "en_name") {
				c.say("\n%s", s)
			}
		}
	}
	return 0
}

func odmdelete(c *call) int {
	f, _, _ := c.flags("qo")
	n := len(c.ODM.Notify)
	c.ODM.Notify = slices.DeleteFunc(c.ODM.Notify, func(s string) bool { return f['q'] == "en_name="+stanzaValue(s, "en_name") })
	c.say("0518-307 odmdelete: %d objects deleted.", n-len(c.ODM.Notify))
	return 0
}

func errlogger(c *call) int {
	text := strings.Join(c.args, " ")
	if text == "" || len(text) > 1024 {
		return c.fail(1, "Usage: errlogger Message (at most 1024 bytes)")
	}
	c.ODM.Errors = append(c.ODM.Errors, ErrorEntry{ID: "AA8AB241", Label: "OPMSG", Class: "O", Type: "TEMP", Name: "OPERATOR", Text: text, At: time.Now()})
	return 0
}

func errpt(c *call) int {
	f, _, _ := c.flags("jNsd")
	if f['a'] == "" && len(c.ODM.Errors) > 0 {
		c.say("IDENTIFIER TIMESTAMP  T C RESOURCE_NAME  DESCRIPTION")
	}
	for i := len(c.ODM.Errors) - 1; i >= 0; i-- {
		e := c.ODM.Errors[i]
		if f['j'] != "" && f['j'] != e.ID {
			continue
		}
		if f['a'] == "" {
			c.say("%s   %s %s %s %-14s %s", e.ID, e.At.Format("0102150406"), e.Type[:1], e.Class, e.Name, "OPERATOR NOTIFICATION")
			continue
		}
		c.say("---------------------------------------------------------------------------\nLABEL:          %s\nIDENTIFIER:     %s\n\nClass:           %s\nType:            %s\n"+
			"Resource Name:   %s\n\nDescription\nOPERATOR NOTIFICATION\n\nDetail Data\nMESSAGE FROM ERRLOGGER COMMAND\n%s", e.Label, e.ID, e.Class, e.Type, e.Name, e.Text)
	}
	return 0
}

func ps(c *call) int {
	c.say("COMMAND")
	for _, l := range append([]string{"init", "srcmstr"}, c.Run.LVM...) {
		c.say("%s", l)
	}
	return 0
}

func oslevel(c *call) int { c.say("7300-02-01-2346"); return 0 }
func getconf(c *call) int { c.say("64"); return 0 }

func uname(c *call) int {
	if len(c.args) > 0 && c.args[0] == "-s" || len(c.args) == 0 {
		c.say("AIX")
		return 0
	}
	c.say("AIX %s 3 7 00CD67A04B00", c.Config.Node)
	return 0
}

func lslpp(c *call) int {
	c.say("/usr/lib/objrepos:bos.rte:7.3.2.0::COMMITTED:I:Base Operating System Runtime:")
	return 0
}
