package linux

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// A mount is one line of /proc/PID/mountinfo.
type mount struct {
	id, parent   int
	major, minor uint32
	root         string // the directory of the file system that is mounted
	point        string
	options      string // of this mount
	fsType       string
	source       string
	superOptions string // of the file system
}

// readMounts lists the mounts that a process sees, in the order in which they were made; a later one on the same point covers
// the earlier.
func readMounts(pid string) ([]mount, error) {
	data, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return parseMounts(string(data))
}

func parseMounts(text string) ([]mount, error) {
	var out []mount
	for line := range strings.Lines(text) {
		m, err := parseMount(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

func parseMount(line string) (mount, error) {
	bad := func() (mount, error) {
		return mount{}, fmt.Errorf("the mount table has a line that cannot be read: %q", line)
	}
	left, right, ok := strings.Cut(line, " - ")
	f, g := strings.Fields(left), strings.Fields(right)
	if !ok || len(f) < 6 || len(g) < 2 {
		return bad()
	}
	majorText, minorText, ok := strings.Cut(f[2], ":")
	id, err1 := strconv.Atoi(f[0])
	parent, err2 := strconv.Atoi(f[1])
	major, err3 := strconv.ParseUint(majorText, 10, 32)
	minor, err4 := strconv.ParseUint(minorText, 10, 32)
	if !ok || err1 != nil || err2 != nil || err3 != nil || err4 != nil {
		return bad()
	}
	m := mount{id: id, parent: parent, major: uint32(major), minor: uint32(minor), root: unescape(f[3]), point: unescape(f[4]),
		options: f[5], fsType: unescape(g[0])}
	// An empty source shows as two blanks, so the fields are told apart from the right.
	rest := strings.SplitN(right, " ", 3)
	m.source = unescape(rest[1])
	if len(rest) > 2 {
		m.superOptions = rest[2]
	}
	return m, nil
}

// unescape reads the octal escapes of blanks, tabs, newlines and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(v))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// hasOption finds an option in a comma-separated list.
func hasOption(list, name string) bool {
	for o := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(o) == name {
			return true
		}
	}
	return false
}

// below reports whether path is dir or lies in it.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
