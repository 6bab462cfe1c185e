package state

import (
	"strings"
	"testing"
)

// A9: a decision that was under way when its leader was deposed is refused in a later term, whatever it says.
func TestA9ADecisionOfAnOlderTermIsRefused(t *testing.T) {
	s := New()
	s.Term = 4
	next, r := Apply(s, Entry{Index: 1, Term: 5, Command: &Command{Term: 4, Noop: &Noop{}}})
	if !strings.Contains(r.Refused, "term 4") {
		t.Fatalf("refused %q", r.Refused)
	}
	if _, r = Apply(next, Entry{Index: 2, Term: 5, Command: &Command{Term: 5, Noop: &Noop{}}}); r.Refused != "" {
		t.Fatalf("a decision of the term itself was refused: %s", r.Refused)
	}
	if _, r = Apply(next, Entry{Index: 2, Term: 5, Command: &Command{Noop: &Noop{}}}); r.Refused != "" {
		t.Fatalf("what nobody decided was refused: %s", r.Refused)
	}
}
