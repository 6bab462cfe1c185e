package cluster

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// ParseSeconds reads a time as clmgr takes it: a plain number of seconds (30, 0.5), or a duration (500ms, 2m, 1d12h).
func ParseSeconds(s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(f) || f < 0 || f > float64(math.MaxInt64)/float64(time.Second) {
			return 0, fmt.Errorf("%q is not a time that can be used", s)
		}
		return time.Duration(math.Round(f * float64(time.Second))), nil
	}
	d, err := ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a time: write seconds (30) or a duration (500ms, 2m, 1d)", s)
	}
	return d, nil
}

// ParseDuration reads Go's form of a duration plus d for days (1d12h). It does not take negative ones, nor plain numbers
// except 0.
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration: write a number with a unit, as 500ms, 30s, 5m, 2h or 1d", s)
	rest, days := s, time.Duration(0)
	if i := strings.IndexByte(s, 'd'); i > 0 {
		f, err := strconv.ParseFloat(s[:i], 64)
		if err != nil || math.IsNaN(f) || f < 0 || f > 100_000 {
			return 0, bad
		}
		days = time.Duration(f * float64(24*time.Hour))
		rest = s[i+1:]
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || d > math.MaxInt64-days || rest != s && strings.HasPrefix(rest, "+") {
		return 0, bad
	}
	return days + d, nil
}

// FormatDuration writes a duration in the shortest form that ParseDuration reads back: 30s, 1m30s, 2h, 1d.
func FormatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	out := ""
	if d >= day {
		out = strconv.FormatInt(int64(d/day), 10) + "d"
		d %= day
		if d == 0 {
			return out
		}
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return out + s
}

// formatSeconds writes a time as a query shows it: a plain number of seconds when it is whole, else a duration.
func formatSeconds(d time.Duration) string {
	if d%time.Second == 0 {
		return strconv.FormatInt(int64(d/time.Second), 10)
	}
	return FormatDuration(d)
}

// ParseBool reads PowerHA's booleans in any case: yes, no, true, false, enabled, disabled, on, off.
func ParseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "yes", "true", "enabled", "enable", "on", "y":
		return true, nil
	case "no", "false", "disabled", "disable", "off", "n":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither yes nor no (true/false, enabled/disabled)", s)
}

// SplitList splits a list that is separated by commas, spaces, or both; empty entries are dropped.
func SplitList(s string) []string {
	words := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
	return append([]string(nil), words...) // nil for an empty list
}

// SplitCommand splits a command line into words as the shell does with plain words, '...', "..." and \x; it knows no
// variables, patterns or operators.
func SplitCommand(s string) ([]string, error) {
	var out []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	runes := []rune(s)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case quote == 0 && (r == ' ' || r == '\t' || r == '\n'):
			if inWord {
				out = append(out, word.String())
				word.Reset()
				inWord = false
			}
		case quote == 0 && (r == '\'' || r == '"'):
			quote, inWord = r, true
		case r == quote:
			quote = 0
		case r == '\\' && quote != '\'':
			if i+1 == len(runes) {
				return nil, fmt.Errorf("%q ends with a backslash", s)
			}
			i++
			word.WriteRune(runes[i])
			inWord = true
		default:
			word.WriteRune(r)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("%q has a quote that does not end", s)
	}
	if inWord {
		out = append(out, word.String())
	}
	return out, nil
}

// JoinCommand is the inverse of SplitCommand.
func JoinCommand(words []string) string {
	var out []string
	for _, w := range words {
		if w == "" || strings.ContainsAny(w, " \t\n'\"\\") {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		out = append(out, w)
	}
	return strings.Join(out, " ")
}

// parsePrefix reads a prefix length, or a netmask in PowerHA's dotted form.
func parsePrefix(s string) (int, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Is4() {
		b := a.As4()
		mask := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		n := 0
		for mask&(1<<31) != 0 {
			n++
			mask <<= 1
		}
		if mask != 0 || n == 0 {
			return 0, fmt.Errorf("%q is not a netmask: its ones must stand together at the left, as 255.255.255.0", s)
		}
		return n, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 128 {
		return 0, fmt.Errorf("%q is not a prefix length (1 to 128) or a netmask (255.255.255.0)", s)
	}
	return n, nil
}

// CheckName reports what is wrong with the name of an object; nil: it can be used.
func CheckName(s string) error {
	if s == "" {
		return fmt.Errorf("a name is needed")
	}
	if len(s) > 64 {
		return fmt.Errorf("the name has %d characters: at most 64 are allowed", len(s))
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		switch {
		case letter:
		case i == 0:
			return fmt.Errorf("the name must begin with a letter or a digit")
		case c == '_' || c == '-' || c == '.':
		default:
			return fmt.Errorf("the name must be of letters, digits, '_', '-' and '.'")
		}
	}
	return nil
}
