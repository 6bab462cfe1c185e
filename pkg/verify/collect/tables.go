package collect

import (
	"slices"
	"strings"

	"github.com/holdfast-ha/holdfast/pkg/verify"
)

// parseFstab reads /etc/fstab. An entry is mounted at boot unless its options say noauto; an automount unit of systemd mounts at
// the first access, which is as bad.
func parseFstab(text string) []verify.Mount {
	var out []verify.Mount
	for i, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") {
			continue
		}
		options := ""
		if len(f) > 3 {
			options = f[3]
		}
		list := strings.Split(options, ",")
		auto := !slices.Contains(list, "noauto") || slices.Contains(list, "x-systemd.automount")
		out = append(out, verify.Mount{Source: unescape(f[0]), Point: unescape(f[1]), Type: f[2], Auto: auto, Line: i + 1})
	}
	return out
}

// unescape resolves the octal forms in which the table writes blanks.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// parseFilesystems reads AIX's /etc/filesystems: stanzas of a mount point with dev, vfs and mount.
func parseFilesystems(text string) []verify.Mount {
	var out []verify.Mount
	var cur *verify.Mount
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || strings.HasPrefix(trimmed, "*"):
		case !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") && strings.HasSuffix(trimmed, ":"):
			out = append(out, verify.Mount{Point: strings.TrimSuffix(trimmed, ":"), Line: i + 1})
			cur = &out[len(out)-1]
		case cur != nil:
			key, value, ok := strings.Cut(trimmed, "=")
			if !ok {
				continue
			}
			value = strings.Trim(strings.TrimSpace(value), `"`)
			switch strings.TrimSpace(key) {
			case "dev":
				cur.Source = value
			case "vfs":
				cur.Type = value
			case "mount":
				cur.Auto = value == "true" || value == "automatic"
			}
		}
	}
	return out
}

// noAuto adds the option noauto to the entry of a table for a mount point and source, and takes an automount away. ok is false if
// there is no such entry, or nothing to change.
func noAuto(text, source, point string) (changed string, ok bool) {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") || unescape(f[0]) != source || unescape(f[1]) != point {
			continue
		}
		var keep []string
		if len(f) > 3 {
			for o := range strings.SplitSeq(f[3], ",") {
				if o != "auto" && o != "defaults" && o != "noauto" && !strings.HasPrefix(o, "x-systemd.automount") {
					keep = append(keep, o)
				}
			}
		}
		options := strings.Join(append([]string{"noauto"}, keep...), ",")
		if len(f) > 3 && f[3] == options {
			continue
		}
		rest := []string{f[0], f[1], f[2], options}
		if len(f) > 4 {
			rest = append(rest, f[4:]...)
		}
		lines[i], ok = strings.Join(rest, "\t"), true
	}
	return strings.Join(lines, "\n"), ok
}
