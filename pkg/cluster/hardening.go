package cluster

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What an attribute refuses whatever its kind is. It stands here and not in the single kinds, so that a new attribute has it too.
// Shell metacharacters are no danger: no value is ever given to a shell, programs are run by argv.

// maxList is how long the text of a list may be; each of its entries has MaxText.
const maxList = 64 << 10

// checkText looks at a value as it was typed.
func (a *Attribute) checkText(v string) error {
	most := MaxText
	if a.lists() {
		most = maxList
	}
	switch {
	case len(v) > most:
		return fmt.Errorf("it has %d bytes, and at most %d are allowed", len(v), most)
	case !utf8.ValidString(v):
		return fmt.Errorf("it is not UTF-8")
	case strings.ContainsFunc(v, turnsText):
		return fmt.Errorf("it has characters that turn the direction of writing, so that it is not what it looks like")
	case !a.lists() && strings.ContainsFunc(v, unicode.IsControl):
		return fmt.Errorf("it has control characters, and must stand on one line")
	}
	return nil
}

// checkKept looks at what was made of the value: blanks and line ends between the entries of a list are gone, those within stay.
func (a *Attribute) checkKept(v string) error {
	if strings.ContainsFunc(v, unicode.IsControl) {
		return fmt.Errorf("it has control characters, and must stand on one line")
	}
	if a.Kind != KindPath && a.Kind != KindCommand && !strings.HasPrefix(v, "/") {
		return nil
	}
	path, _, _ := strings.Cut(v, " ")
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." || part == "." {
			return fmt.Errorf("a path is written without %q, so that it is the one that it says", part)
		}
	}
	return nil
}

// lists reports whether blanks and line ends separate the entries of the value.
func (a *Attribute) lists() bool {
	return a.Kind == KindNames || a.Kind == KindList || a.Kind == KindPairs
}

// turnsText reports characters by which a text is shown in another order than it has.
func turnsText(r rune) bool {
	return r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// shortened is a value for a message: bounded, on one line, without what drives a terminal.
func shortened(v string) string {
	const most = 80
	if len(v) > most {
		v = strings.ToValidUTF8(v[:most], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || turnsText(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, v)
}

// bounded is a refusal that may quote the whole value, cut to a length that can be read.
func bounded(err error) error {
	const most = 600
	if text := err.Error(); len(text) > most {
		return errors.New(strings.ToValidUTF8(text[:most], "") + "...")
	}
	return err
}
