package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// WriteYAML writes JSON documents - objects and lists - as YAML documents: the same keys in the same order, numbers to the last digit. What is written is
// the part of YAML that every reader understands alike: a text that some version of it could take for something else stands in
// quotes. Lines that are no JSON stay as they are. The error is the writer's.
func WriteYAML(w io.Writer, text []byte) error {
	var b bytes.Buffer
	for documents := 0; len(text) > 0; {
		if text[0] == '{' || text[0] == '[' {
			d := json.NewDecoder(bytes.NewReader(text))
			d.UseNumber()
			var doc bytes.Buffer
			if yamlValue(&doc, d, 0, true) == nil {
				if documents++; documents > 1 {
					b.WriteString("---\n")
				}
				b.Write(doc.Bytes())
				text = bytes.TrimPrefix(text[d.InputOffset():], []byte("\n"))
				continue
			}
		}
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		b.Write(line)
		b.WriteByte('\n')
		text = rest
	}
	_, err := w.Write(b.Bytes())
	return err
}

// yamlValue writes the decoder's next value. At the top, and in a list, it begins where the cursor stands.
func yamlValue(w *bytes.Buffer, d *json.Decoder, indent int, first bool) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch v := t.(type) {
	case json.Delim:
		if !d.More() {
			if _, err := d.Token(); err != nil {
				return err
			}
			fmt.Fprintln(w, map[json.Delim]string{'{': "{}", '[': "[]"}[v])
			return nil
		}
		if !first {
			w.WriteByte('\n')
		}
		return yamlInside(w, d, v, indent, first)
	case string:
		fmt.Fprintln(w, yamlText(v))
	case nil:
		fmt.Fprintln(w, "null")
	default: // numbers as they stand, and booleans
		fmt.Fprintln(w, v)
	}
	return nil
}

// yamlInside writes what stands between the brackets, each on a line of its own.
func yamlInside(w *bytes.Buffer, d *json.Decoder, kind json.Delim, indent int, first bool) error {
	for d.More() {
		if !first {
			w.WriteString(strings.Repeat(" ", indent))
		}
		first = false
		if kind == '[' {
			w.WriteString("- ")
			if err := yamlValue(w, d, indent+2, true); err != nil {
				return err
			}
			continue
		}
		key, err := d.Token()
		if err != nil {
			return err
		}
		name, ok := key.(string)
		if !ok {
			return fmt.Errorf("a key that is no text: %v", key)
		}
		w.WriteString(yamlText(name) + ":")
		var value bytes.Buffer
		if err := yamlValue(&value, d, indent+2, false); err != nil {
			return err
		}
		if value.Bytes()[0] != '\n' {
			w.WriteByte(' ')
		}
		w.Write(value.Bytes())
	}
	_, err := d.Token()
	return err
}

var yamlPlain = regexp.MustCompile(`^[A-Za-z_/][A-Za-z0-9_./-]*$`)

// yamlText is a text: plain where no reader can take it for anything else, else in double quotes with JSON's escapes.
func yamlText(s string) string {
	switch strings.ToLower(s) {
	case "null", "true", "false", "yes", "no", "on", "off", "y", "n", "none", "nan", "inf":
		return yamlQuoted(s)
	}
	if yamlPlain.MatchString(s) && len(s) <= 128 {
		return s
	}
	return yamlQuoted(s)
}

func yamlQuoted(s string) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	var out strings.Builder
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		if r >= 0x7f && r < 0xa0 || r == 0xfeff || r == 0xfffe || r == 0xffff {
			fmt.Fprintf(&out, `\u%04x`, r)
			continue
		}
		out.WriteRune(r)
	}
	return out.String()
}
