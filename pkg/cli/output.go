package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// errSilent is a failure of which everything was said already.
var errSilent = errors.New("")

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printable replaces what could drive a terminal in text that came from elsewhere.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '?'
		}
		return r
	}, s)
}

// readLine reads one line, of bounded length.
func readLine(r io.Reader) string {
	line, _ := bufio.NewReader(io.LimitReader(r, 4096)).ReadString('\n')
	return strings.TrimRight(line, "\r\n")
}

// A record is one object of a query: attributes in order.
type record []attribute

type attribute struct{ name, value string }

func (r record) value(name string) string {
	for _, a := range r {
		if strings.EqualFold(a.name, name) {
			return a.value
		}
	}
	return ""
}

// printRecords prints objects of a class in the form that was asked for.
func (s *session) printRecords(class string, list []record) error {
	switch s.form {
	case formJSON:
		return s.printJSON(list)
	case formColon:
		return s.printColon(list)
	case formXML:
		return s.printXML(class, list)
	}
	for i, r := range list {
		if i > 0 {
			fmt.Fprintln(s.out)
		}
		for _, a := range r {
			fmt.Fprintf(s.out, "%s=\"%s\"\n", a.name, quoted(a.value))
		}
	}
	return nil
}

// quoted escapes what would end a value, so that a shell that evaluates the lines sees just text.
func quoted(v string) string {
	return strings.NewReplacer("\\", "\\\\", "\"", "\\\"", "$", "\\$", "`", "\\`", "\n", " ").Replace(printable(v))
}

func (s *session) printJSON(list []record) error {
	out := make([]json.RawMessage, 0, len(list))
	for _, r := range list {
		// A map would lose the order, which is the table's.
		var b strings.Builder
		b.WriteByte('{')
		for i, a := range r {
			if i > 0 {
				b.WriteByte(',')
			}
			k, _ := json.Marshal(a.name) // a string always encodes
			v, _ := json.Marshal(a.value)
			b.Write(k)
			b.WriteByte(':')
			b.Write(v)
		}
		b.WriteByte('}')
		out = append(out, json.RawMessage(b.String()))
	}
	return writeJSON(s.out, out)
}

// printColon prints one line for each object; the delimiter within a value is marked by a backslash.
func (s *session) printColon(list []record) error {
	escape := strings.NewReplacer("\\", "\\\\", s.delim, "\\"+s.delim, "\n", " ")
	for i, r := range list {
		var names, values []string
		for _, a := range r {
			names = append(names, a.name)
			values = append(values, escape.Replace(printable(a.value)))
		}
		if i == 0 && !s.noHeader {
			fmt.Fprintln(s.out, "# "+strings.Join(names, s.delim))
		}
		fmt.Fprintln(s.out, strings.Join(values, s.delim))
	}
	return nil
}

var xmlText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\"", "&quot;")

func (s *session) printXML(class string, list []record) error {
	tag := strings.ToUpper(class)
	fmt.Fprintf(s.out, "<%sS>\n", tag)
	for _, r := range list {
		fmt.Fprintf(s.out, "   <%s>\n", tag)
		for _, a := range r {
			fmt.Fprintf(s.out, "      <%s>%s</%s>\n", a.name, xmlText.Replace(printable(a.value)), a.name)
		}
		fmt.Fprintf(s.out, "   </%s>\n", tag)
	}
	fmt.Fprintf(s.out, "</%sS>\n", tag)
	return nil
}

// printNames prints a bare list.
func (s *session) printNames(class string, names []string) error {
	switch s.form {
	case formJSON:
		if names == nil {
			names = []string{}
		}
		return writeJSON(s.out, names)
	case formXML:
		list := make([]record, 0, len(names))
		for _, n := range names {
			list = append(list, record{{"NAME", n}})
		}
		return s.printXML(class, list)
	}
	for _, n := range names {
		fmt.Fprintln(s.out, printable(n))
	}
	return nil
}
