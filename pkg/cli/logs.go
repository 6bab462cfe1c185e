package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/holdfast-ha/holdfast/pkg/cluster"
)

// logs are the files of the layout that PowerHA's administrators know, below the log directory.
var logs = []struct{ name, path, doc string }{
	{"cluster.log", "adm/cluster.log", "one line for each event: look here first"},
	{"clstrmgr.debug", "log/clstrmgr.debug", "the daemon's own log"},
	{"hacmp.out", "log/hacmp.out", "what the scripts printed"},
	{"clutils.log", "log/clutils.log", "calls of clmgr"},
	{"clverify.log", "clverify/clverify.log", "verification"},
	{"cspoc.log", "log/cspoc.log", "operations on all nodes"},
}

// maxLogLines bounds a log in JSON: the last lines, where neither HEAD nor TAIL says how many.
const maxLogLines = 10000

// A logText is a log, for -o json.
type logText struct {
	Path  string   `json:"path"`
	Lines []string `json:"lines"`
}

// viewLog shows a log of this node.
func viewLog(_ context.Context, s *session, t *target) error {
	if t.name() == "" {
		return s.listLogs()
	}
	var names []string
	for _, l := range logs {
		names = append(names, l.name)
		if strings.EqualFold(l.name, t.name()) {
			return s.showLog(filepath.Join(s.env.LogDir, l.path))
		}
	}
	return fail(ExitNotFound, "there is no log %q%s; there are: %s", t.name(), cluster.DidYouMean(t.name(), names), strings.Join(names, ", "))
}

func (s *session) listLogs() error {
	var list []record
	for _, l := range logs {
		path := filepath.Join(s.env.LogDir, l.path)
		size := "missing"
		if fi, err := os.Stat(path); err == nil {
			size = strconv.FormatInt(fi.Size(), 10)
		}
		list = append(list, record{{"NAME", l.name}, {"PATH", path}, {"SIZE", size}, {"DESCRIPTION", l.doc}})
	}
	if s.form != formText || s.verbose || len(s.attrs) > 0 {
		return s.printChosen("log", list)
	}
	for i, l := range logs {
		fmt.Fprintf(s.out, "%-16s %s (%s)\n", l.name, l.doc, list[i].value("PATH"))
	}
	return nil
}

func (s *session) showLog(path string) error {
	head, err := s.count("HEAD")
	if err != nil {
		return err
	}
	tail, err := s.count("TAIL")
	if err != nil {
		return err
	}
	if head > 0 && tail > 0 {
		return fail(ExitIncorrect, "view log: HEAD and TAIL do not go together")
	}
	keep, err := s.filter()
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(ExitNotFound, "%w", err)
	}
	defer func() { _ = f.Close() }()
	if s.form != formJSON {
		return copyLines(s.out, f, keep, head, tail)
	}
	var text strings.Builder
	if tail == 0 && head == 0 {
		tail = maxLogLines
	}
	if err := copyLines(&text, f, keep, head, tail); err != nil {
		return err
	}
	lines := []string{}
	if text.Len() > 0 {
		lines = strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
	}
	return writeJSON(s.out, logText{path, lines})
}

func (s *session) count(attr string) (int, error) {
	v, ok := s.take(attr)
	if !ok {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > 1_000_000 {
		return 0, fail(ExitIncorrect, "%s=%s: a number of lines from 1 to 1000000", attr, v)
	}
	return n, nil
}

func (s *session) filter() (*regexp.Regexp, error) {
	v, ok := s.take("FILTER")
	mode, _ := s.take("CASE")
	if !ok {
		return nil, nil
	}
	switch strings.ToLower(mode) {
	case "", "sensitive":
	case "insensitive":
		v = "(?i)" + v
	default:
		return nil, fail(ExitIncorrect, "CASE=%s: sensitive or insensitive", mode)
	}
	re, err := regexp.Compile(v)
	if err != nil {
		return nil, fail(ExitIncorrect, "FILTER: %w", err)
	}
	return re, nil
}

// copyLines copies the lines that match: the first head of them, the last tail, or all. A line longer than a megabyte is cut.
func copyLines(w io.Writer, r io.Reader, keep *regexp.Regexp, head, tail int) error {
	br := bufio.NewReaderSize(r, 1<<20)
	var ring []string
	shown := 0
	for {
		line, err := br.ReadSlice('\n')
		full := errors.Is(err, bufio.ErrBufferFull)
		if len(line) > 0 {
			text := strings.TrimRight(string(line), "\n")
			if keep == nil || keep.MatchString(text) {
				if tail > 0 {
					if ring = append(ring, text); len(ring) > 2*tail {
						ring = append([]string(nil), ring[len(ring)-tail:]...)
					}
				} else if _, werr := fmt.Fprintln(w, printable(text)); werr != nil {
					return werr
				}
				if shown++; head > 0 && shown == head {
					return nil
				}
			}
		}
		for full { // the rest of a line that does not fit
			_, err = br.ReadSlice('\n')
			full = errors.Is(err, bufio.ErrBufferFull)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
	}
	for _, l := range ring[max(0, len(ring)-max(tail, 0)):] {
		if _, err := fmt.Fprintln(w, printable(l)); err != nil {
			return err
		}
	}
	return nil
}

// record writes the call's begin to clutils.log, where this user may, and returns what writes its end. A log that cannot be
// written stops no command.
func (s *session) record() func(error) {
	path := filepath.Join(s.env.LogDir, "log", "clutils.log")
	line := func(text string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE|noFollow, 0o600)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				s.warn("the call is not recorded: %v", err)
			}
			return
		}
		_, _ = f.WriteString(text)
		_ = f.Close()
	}
	id := s.trace
	if id == "" {
		id = strconv.Itoa(os.Getpid())
	}
	stamp := func() string { return time.Now().In(s.env.Location).Format(time.RFC3339Nano) }
	call := printable(s.masked())
	if s.level == "error" {
		return func(err error) {
			if err != nil {
				line(fmt.Sprintf("%s [%s] %s: failed: clmgr %s: status %d\n", stamp(), id, userName(), call, statusOf(err)))
			}
		}
	}
	line(fmt.Sprintf("%s [%s] %s: start: clmgr %s\n", stamp(), id, userName(), call))
	return func(err error) {
		more := ""
		if hasWord([]string{"med", "high", "max"}, s.level) {
			more = fmt.Sprintf(", %.3f s", time.Since(s.began).Seconds())
			if err != nil && !errors.Is(err, errSilent) {
				more += ": " + strings.ReplaceAll(printable(err.Error()), "\n", " | ")
			}
		}
		line(fmt.Sprintf("%s [%s] %s: end: status %d%s\n", stamp(), id, userName(), statusOf(err), more))
	}
}

// masked is the command line without its secrets.
func (s *session) masked() string {
	parts := append([]string(nil), s.words...)
	for _, a := range s.set {
		v := a.Value
		if up := strings.ToUpper(a.Attribute); up == "TOKEN" || up == "PARAMS" || strings.Contains(up, "PASSWORD") {
			v = "***"
		}
		parts = append(parts, a.Attribute+"="+v)
	}
	for _, k := range sortedKeys(s.options) {
		parts = append(parts, "-"+k+" "+s.options[k])
	}
	return strings.ReplaceAll(strings.Join(parts, " "), "\n", " ")
}
