package aix

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A Record is one command of a capture: what deploy/aix/capture.sh writes, on AIX or on the emulator.
type Record struct {
	Command string
	Args    []string
	Out     string
	Err     string
	Status  int  // -1: it is not in the record (the output was cut)
	C       bool // run with LC_ALL=C
}

// ReadCapture reads a capture. It fails on a line that it does not know, and on one that is not whole.
func ReadCapture(r io.Reader) ([]Record, error) {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	var out []Record
	var body []string
	c, ended := false, false
	finish := func() {
		if len(out) == 0 || body == nil {
			return
		}
		last := &out[len(out)-1]
		if n := len(body); n > 0 {
			if status, ok := strings.CutPrefix(body[n-1], "@rc "); ok {
				last.Status, _ = strconv.Atoi(status)
				body = body[:n-1]
				if n = len(body); n > 0 && body[n-1] == "" {
					body = body[:n-1] // the line feed before the status
				}
			}
		}
		if len(body) > 0 {
			last.Out = strings.Join(body, "\n") + "\n"
		}
		body = nil
	}
	for n := 1; s.Scan(); n++ {
		line := s.Text()
		kind, text, _ := strings.Cut(line, " ")
		switch {
		case n == 1 && line != "# holdfast capture 1":
			return nil, fmt.Errorf("line 1: this is not a capture: %q", line)
		case line == "# end":
			ended = true
		case kind == "#":
			c = c || line == "# LC_ALL=C"
		case kind == "@":
			finish()
			f := strings.Fields(text)
			if len(f) == 0 {
				return nil, fmt.Errorf("line %d: no command", n)
			}
			out, body = append(out, Record{Command: f[0], Args: f[1:], Status: -1, C: c}), []string{}
		case kind == "O" && len(out) > 0:
			body = append(body, text)
		case kind == "E" && len(out) > 0:
			out[len(out)-1].Err += text + "\n"
		default:
			return nil, fmt.Errorf("line %d cannot be read: %q", n, line)
		}
	}
	finish()
	if err := s.Err(); err != nil {
		return nil, err
	}
	if !ended {
		return nil, fmt.Errorf("the capture is not whole: its last line is missing")
	}
	return out, nil
}
